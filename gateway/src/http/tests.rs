//! The interface over real sockets, on a journal in memory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::{BindError, Letters, Server, TCP_LIMITS};
use crate::config::Config;
use crate::dead_letters::{DeadLetters, Letter, Stage};
use crate::journal::entry::{Cause, DeviceEntry, Fields, GapEntry, RowEntry};
use crate::journal::memory::MemoryStorage;
use crate::journal::{Class, Entry, Journal, Options, Refused, STALLED_AFTER};
use crate::record::{Offset, Value};
use crate::stats::{SourceState, Stats, Status};

mod dashboard;

/// Longest wait for something that is expected.
const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    data_dir: TempDir,
    storage: MemoryStorage,
    journal: Journal,
    stats: Arc<Stats>,
    server: JoinHandle<()>,
}

fn config(data_dir: &Path) -> Config {
    let text = "[http]\nlisten = \"127.0.0.1:0\"\n[clock]\ntrust = \"always\"\n";
    Config { data_dir: data_dir.to_owned(), ..crate::config::of_text(text) }
}

async fn bind(data_dir: &Path, journal: &Journal) -> Result<(Arc<Stats>, Server), BindError> {
    let stats = Stats::new(1);
    let server = Server::bind(&config(data_dir), journal, &stats).await?;
    Ok((stats, server))
}

impl Served {
    async fn start() -> Served {
        Served::start_with(&Options::sized(4 << 20)).await
    }

    async fn start_with(options: &Options) -> Served {
        let storage = MemoryStorage::new();
        let (journal, _) = Journal::open(Arc::new(storage.clone()), options).unwrap();
        journal.register_sink("main").unwrap();
        let data_dir = tempfile::tempdir().unwrap();
        let (stats, server) = bind(data_dir.path(), &journal).await.unwrap();
        let server = tokio::spawn(server.serve());
        Served { data_dir, storage, journal, stats, server }
    }

    /// Submits rows numbered `from` to `to` of a native device.
    fn submit(&self, device: &str, from: u64, to: u64) -> Offset {
        let fields = [("t".to_owned(), Value::Float(21.5))];
        let series = format!("climate,device={device}");
        loop {
            let submitted = self.journal.submit(Class::Foreign, |_, submission| {
                for sequence in from..to {
                    let fields = Fields::of(&fields);
                    let ns = sequence.cast_signed();
                    let row =
                        RowEntry { device, boot: 7, sequence, stamped: false, series: &series, ns, fields };
                    submission.add(&Entry::Row(row))?;
                }
                Ok::<(), Refused>(())
            });
            match submitted {
                Err(Refused::Busy) => std::thread::yield_now(),
                submitted => return submitted.unwrap().1,
            }
        }
    }

    /// The same, waiting until they are durable.
    async fn rows(&self, device: &str, from: u64, to: u64) {
        self.durable(self.submit(device, from, to)).await;
    }

    /// Waits until `path` answers with `code`.
    async fn answers(&self, path: &str, code: u16) {
        let answering = async {
            while self.get(path).await.0 != code {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, answering)
            .await
            .unwrap_or_else(|_| panic!("{path} never answers {code}"));
    }

    async fn durable(&self, receipt: Offset) {
        let mut watermark = self.journal.watermark();
        let reached = watermark.wait_for(|watermark| *watermark >= receipt);
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
    }

    async fn connect(&self, path: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel would hold for a client that does not read must not decide a test.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut stream = socket.connect(self.stats.listen().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends the head of a request, and nothing of the body that it announces.
    async fn without_body(&self, line: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.stats.listen().unwrap()).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Status code and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut text = String::new();
        self.connect(path).await.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn status(&self) -> Status {
        let (code, body) = self.get("/api/v1/status").await;
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn what_is_open_to_all_waits_for_no_body() {
    let served = Served::start().await;
    for (line, code) in
        [("POST /healthz", 405), ("DELETE /", 405), ("OPTIONS /ui/app.js", 405), ("GET /ui/app.js", 200)]
    {
        let began = Instant::now();
        let mut stream = served.without_body(line).await;
        let answer = tokio::time::timeout(PATIENCE, read_until(&mut stream, "\r\n\r\n")).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{line}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "{line} waits for a body");
        assert!(code != 405 || answer.contains("allow: GET, HEAD"), "{answer}");
    }
}

#[tokio::test]
async fn whose_bodies_do_not_come_keeps_nobody_out() {
    let served = Served::start().await;
    let mut held = Vec::new();
    for _ in 0..TCP_LIMITS.share {
        held.push(served.without_body("GET /api/v1/status").await);
    }
    let (code, text) =
        tokio::time::timeout(Duration::from_secs(5), served.get("/api/v1/status")).await.unwrap();
    assert_eq!(code, 200, "{text}");
}

#[tokio::test]
async fn devices_are_listed_with_their_latest_rows() {
    let served = Served::start().await;
    served.rows("boiler", 0, 3).await;
    served.rows("pump", 0, 1).await;
    let (code, body) = served.get("/api/v1/devices").await;
    assert_eq!(code, 200);
    let devices: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&devices[0]["device"], &devices[0]["rows"]), (&"boiler".into(), &3.into()));
    let latest = &devices[0]["latest"]["climate,device=boiler"];
    assert_eq!((&latest["time_ns"], &latest["fields"]["t"]), (&2.into(), &21.5.into()));
    assert_eq!(devices[1]["latest"]["climate,device=pump"]["time_ns"], 0);
}

#[tokio::test]
async fn a_device_is_shown_with_its_ledger_in_each_sink_and_by_boot() {
    let served = Served::start().await;
    served.rows("boiler", 0, 3).await;
    let (boot, name) = (8, "boiler");
    let submitted: Result<_, Refused> = served.journal.submit(Class::Internal, |_, submission| {
        submission.add(&Entry::Device(DeviceEntry { device: "boiler", name, boot, first: 0 }))?;
        submission.add_cursor("main", Offset(3), &[("boiler".into(), 2)])
    });
    served.durable(submitted.unwrap().1).await;
    let (code, body) = served.get("/api/v1/devices/boiler").await;
    assert_eq!(code, 200, "{body}");
    let device: serde_json::Value = serde_json::from_str(&body).unwrap();
    let of = |ledger: &serde_json::Value| {
        ["learned", "confirmed", "queued"].map(|name| ledger[name].as_u64().unwrap())
    };
    assert_eq!((&device["rows"], device["latest"].as_object().unwrap().len()), (&3.into(), 1));
    assert_eq!(of(&device["sinks"]["main"]), [3, 2, 1]);
    let boots = device["boots"].as_array().unwrap();
    assert_eq!(boots.iter().map(|boot| boot["boot"].as_u64().unwrap()).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(of(&boots[0]["sinks"]["main"]), [3, 2, 1]);
    assert_eq!(of(&boots[1]["sinks"]["main"]), [0, 0, 0]);
    assert_eq!(of(&device["earlier_boots"]["main"]), [0, 0, 0]);
    let (code, body) = served.get("/api/v1/devices/pump").await;
    assert_eq!(code, 404);
    assert!(body.contains("/api/v1/devices lists"), "{body}");
}

#[tokio::test]
async fn queries_are_answered_and_faults_name_parameter_cause_and_cure() {
    let served = Served::start().await;
    served.rows("boiler", 0, 3).await;
    served.rows("pump", 0, 1).await;
    let (code, body) = served.get("/api/v1/query?device=boiler&from=0&to=100&limit=2").await;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &answer["complete"], &answer["sink"]), (200, &true.into(), &"sqlite".into()), "{body}");
    let expected = serde_json::json!({
        "time": "1970-01-01T00:00:00.000000001Z",
        "ns": 1,
        "measurement": "climate",
        "tags": { "device": "boiler" },
        "fields": { "t": 21.5 },
    });
    assert_eq!(
        (&answer["points"][1], &answer["next"]),
        (&expected, &"1970-01-01T00:00:00.000000002Z".into())
    );
    for (parameters, key) in [("limit=many", "limit"), ("from=%20", "from"), ("colour=red", "colour")] {
        let (code, body) = served.get(&format!("/api/v1/query?{parameters}")).await;
        let refusal: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &refusal["error"]["key"]), (400, &key.into()), "{body}");
        assert!(refusal["error"]["cause"].is_string() && refusal["error"]["cure"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_count_as_queries() {
    let served = Served::start_with(&Options::sized(64 << 20)).await;
    // In JSON each of these bytes is six: more than the kernel takes for a client that does not read.
    let fields = [("text".to_owned(), Value::Text("\u{1}".repeat(5_000)))];
    let submitted = served.journal.submit(Class::Foreign, |_, submission| {
        for ns in 0..200 {
            let (device, series, fields) = ("d", "m,device=d", Fields::of(&fields));
            let row = RowEntry { device, boot: 7, sequence: ns, stamped: false, series, ns: 0, fields };
            submission.add(&Entry::Row(RowEntry { ns: ns.cast_signed(), ..row }))?;
        }
        Ok::<(), Refused>(())
    });
    served.durable(submitted.unwrap().1).await;
    let path = "/api/v1/query?device=d&from=0&to=1000";
    let mut unread = Vec::new();
    for _ in 0..super::query::ADMITTED_MAX {
        let mut stream = served.connect(path).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 6"), "{head:.200}");
        unread.push(stream);
    }
    let (code, body) = served.get(path).await;
    assert_eq!(code, 503, "{body:.200}");
    unread.pop();
    served.answers("/api/v1/query?device=nobody&from=0&to=1000", 200).await;
}

/// Reads from a live stream until `wanted` appears.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        let mut searched = 0;
        while !text[searched..].windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            searched = text.len().saturating_sub(wanted.len());
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "the stream ended before {wanted}");
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {wanted}"));
    String::from_utf8(text).unwrap()
}

/// Asks the control socket; status code and body.
async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn dead_letters_are_decided_about_on_the_control_socket() {
    let data_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(4 << 20)).unwrap();
    let (stats, server) = bind(data_dir.path(), &journal).await.unwrap();
    let directory = data_dir.path().join("letters");
    let store = Arc::new(DeadLetters::open_dir(&directory, 1 << 20).unwrap());
    let letter = |sink: &str, offset, stage| Letter {
        sink: sink.into(),
        journal: journal.id(),
        offset: Offset(offset),
        stage,
        at_ns: 5,
        device: "d".into(),
        rows: 1,
        origin: "m,device=d".into(),
        reason: "no".into(),
        body: b"m,device=d v=1.0 7\n"[..].into(),
        body_bytes: 19,
    };
    let letters = [1, 2, 3].map(|offset| letter("main", offset, Stage::Delivery));
    store.append(&letters).unwrap();
    store.append(&[letter("gone", 4, Stage::Delivery), letter("", 5, Stage::Intake)]).unwrap();
    let shared = Letters { store, directory, stats: Arc::clone(&stats) };
    let server = tokio::spawn(server.with_letters(shared).serve());
    let socket = data_dir.path().join(super::CONTROL_SOCKET);

    // Over TCP they can be looked at, and nothing is decided about them without a token.
    let over_tcp = async |request: &str| {
        let mut tcp = TcpStream::connect(stats.listen().unwrap()).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = over_tcp("GET /api/v1/dead-letters/main-2").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(r#""body":"m,device=d v=1.0 7\n""#), "{text}");
    assert!(over_tcp("GET /api/v1/dead-letters/main-9").await.starts_with("HTTP/1.1 404"));
    let text = over_tcp("POST /api/v1/dead-letters/drop").await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("token_file"), "{text}");

    let (code, body) = ask(&socket, "GET", "/api/v1/dead-letters?limit=2", "").await;
    let list: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &list["letters"][1]["id"], &list["more"]), (200, &"main-2".into(), &true.into()));

    let replay = "/api/v1/dead-letters/replay";
    let drop = "/api/v1/dead-letters/drop";
    for (path, question) in [(replay, "{}"), (drop, r#"{"all":true,"ids":["main-1"]}"#)] {
        let (code, body) = ask(&socket, "POST", path, question).await;
        assert_eq!(code, 400, "{body}");
    }
    assert_eq!(ask(&socket, "POST", drop, r#"{"everything":true}"#).await.0, 422);
    // Nobody serves these sinks.
    let (code, body) = ask(&socket, "POST", replay, r#"{"ids":["gone-4","intake-5","main-9"]}"#).await;
    let done: super::dead_letters::Done = serde_json::from_str(&body).unwrap();
    assert_eq!((code, done.gone, done.kept), (200, 0, 3), "{body}");
    let words = ["no point to send", "configured any more", "there is no such dead letter"];
    assert!(words.iter().all(|word| body.contains(word)), "{body}");

    let (_, body) = ask(&socket, "POST", drop, r#"{"ids":["main-2","main-9"]}"#).await;
    assert!(body.contains(r#""gone":1,"kept":1"#), "{body}");
    let (_, body) = ask(&socket, "POST", drop, r#"{"all":true,"sink":"main"}"#).await;
    assert!(body.contains(r#""gone":2,"kept":0"#), "{body}");
    let (_, body) = ask(&socket, "GET", "/api/v1/dead-letters", "").await;
    let list: serde_json::Value = serde_json::from_str(&body).unwrap();
    let ids: Vec<&str> =
        list["letters"].as_array().unwrap().iter().filter_map(|l| l["id"].as_str()).collect();
    assert_eq!(ids, ["gone-4", "intake-5"]);
    server.abort();
}

#[tokio::test]
async fn health_and_readiness_follow_the_journal() {
    let served = Served::start().await;
    assert_eq!(served.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(served.get("/readyz").await, (200, "ok\n".to_owned()));
    let (code, text) = served.get("/nothing").await;
    assert_eq!(code, 404);
    assert!(text.starts_with("there is nothing at /nothing; "), "{text}");

    served.storage.faults(|faults| faults.full = true);
    let receipt = served.submit("a", 0, 1);
    served.answers("/readyz", 503).await;
    assert_eq!(served.get("/healthz").await.0, 200, "a full disk is no reason to restart");
    served.storage.faults(|faults| faults.full = false);
    served.durable(receipt).await;
    served.answers("/readyz", 200).await;

    served.storage.faults(|faults| faults.fail_syncs = true);
    served.submit("a", 1, 2);
    served.answers("/readyz", 503).await;
    served.answers("/healthz", 503).await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_told_of_and_an_idle_one_is_well() {
    let served = Served::start().await;
    served.rows("a", 0, 1).await;
    tokio::time::sleep(2 * STALLED_AFTER).await;
    assert_eq!(served.get("/readyz").await, (200, "ok\n".to_owned()), "nothing waits for the disk");

    served.storage.faults(|faults| faults.hold_syncs = true);
    let receipt = served.submit("a", 1, 2);
    served.answers("/readyz", 503).await;
    let (ready, health, status) =
        (served.get("/readyz").await, served.get("/healthz").await, served.status().await);
    // A journal is not closed before its disk answers, nor after an assertion.
    served.storage.faults(|faults| faults.hold_syncs = false);
    assert!(ready.0 == 503 && ready.1.contains("the disk does not answer"), "{ready:?}");
    assert_eq!(health.0, 200, "a restart would wait for the same disk");
    assert_eq!(status.journal.state, "stalled");
    assert_eq!(
        status.verdict,
        "Nothing is being lost, but the disk does not answer, and what has come waits for it."
    );
    assert!(status.findings[0].cure.contains("dmesg"), "{}", status.findings[0].cure);
    served.durable(receipt).await;
    assert_eq!(served.get("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(served.status().await.verdict, "Nothing is being lost.");
}

#[tokio::test]
async fn the_status_has_a_ledger_that_balances() {
    let served = Served::start().await;
    let device = DeviceEntry { device: "e6614104", name: "boiler", boot: 7, first: 0 };
    let gap = GapEntry {
        device: "e6614104",
        boot: 7,
        from: 0,
        to: 4,
        count: 4,
        cause: Cause::Overflow,
        sink: None,
        stamped: false,
        series: "forebay_gap,cause=overflow,device=boiler",
        ns: 0,
    };
    let submitted = served.journal.submit(Class::Foreign, |_, submission| {
        submission.add(&Entry::Device(device))?;
        submission.add(&Entry::Gap(gap))
    });
    served.durable(submitted.unwrap().1).await;
    served.rows("e6614104", 4, 10).await;
    let confirmed = [("e6614104".into(), 5)];
    let cursor = |submission: &mut crate::journal::Submission<'_>| {
        submission.add_cursor("main", Offset(9), &confirmed)
    };
    served.journal.submit(Class::Internal, |_, submission| cursor(submission)).unwrap();
    served.stats.learn("e6614104", 7, 12);
    let source = served.stats.source("/dev/ttyACM0");
    source.rows_received.add(6);
    source.fail(SourceState::Disconnected, 5, "unplugged; plug it in");

    let status = served.status().await;
    let ledger = &status.devices["e6614104"].sinks["main"];
    assert_eq!(status.devices["e6614104"].name, "boiler");
    assert_eq!((ledger.learned, ledger.confirmed, ledger.queued), (12, 5, 1));
    assert_eq!((ledger.gaps["overflow"], ledger.not_yet_received), (4, 2));
    assert!(ledger.balances() && status.ledger.balances());
    assert_eq!(&status.ledger, ledger, "there is one device and one sink");
    assert_eq!(status.sinks["main"].backlog_rows, 1);
    assert_eq!(status.journal.state, "running");
    assert!(status.journal.bytes > 0 && status.journal.watermark > 0);
    assert_eq!(status.http.listen, served.stats.listen().unwrap().to_string());
    assert_eq!(status.sources["/dev/ttyACM0"].last_error.as_deref(), Some("unplugged; plug it in"));
}

/// What happens between the start of delivery and the first answer is no less lost.
#[tokio::test]
async fn what_is_lost_right_after_the_start_is_in_the_verdict() {
    let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(4 << 20)).unwrap();
    journal.register_sink("main").unwrap();
    let gap = |from| GapEntry {
        device: "a",
        boot: 7,
        from,
        to: from + 4,
        count: 4,
        cause: Cause::Overflow,
        sink: None,
        stamped: false,
        series: "forebay_gap,cause=overflow,device=a",
        ns: 0,
    };
    let device = DeviceEntry { device: "a", name: "a", boot: 7, first: 0 };
    let lose = |from: u64| {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |_, submission| {
            if from == 0 {
                submission.add(&Entry::Device(device))?;
            }
            submission.add(&Entry::Gap(gap(from)))
        });
        submitted.unwrap();
    };
    lose(0);
    let data_dir = tempfile::tempdir().unwrap();
    let (stats, server) = bind(data_dir.path(), &journal).await.unwrap();
    lose(4);
    stats.source("mqtt://b").dropped_messages.add(3);
    let server = tokio::spawn(server.serve());
    let served = Served { data_dir, storage: MemoryStorage::new(), journal: journal.clone(), stats, server };
    let told = async {
        loop {
            let status = served.status().await;
            if status.lost_rows_lately > 0 {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = tokio::time::timeout(PATIENCE, told).await.expect("it is never told");
    assert_eq!(status.lost_rows_lately, 4, "what was lost before the start is no news");
    assert_eq!(status.sources["mqtt://b"].dropped_messages_lately, 3);
    assert!(status.verdict.starts_with("Rows are being lost: 4 were declared lost"), "{}", status.verdict);
}

/// The names that others depend on, read as plain JSON.
#[tokio::test]
async fn the_names_of_the_status_are_stable() {
    let served = Served::start().await;
    served.rows("a", 0, 2).await;
    served.stats.source("s");
    let (_, body) = served.get("/api/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let ledgers = ["/ledger", "/devices/a/sinks/main"];
    let names =
        ["learned", "confirmed", "queued", "unconfirmed", "dead_lettered", "gaps", "not_yet_received"];
    let ledger_names =
        ledgers.iter().flat_map(|ledger| names.iter().map(move |name| format!("{ledger}/{name}")));
    let others = [
        "/journal/bytes",
        "/journal/max_bytes",
        "/journal/watermark",
        "/journal/state",
        "/sources/s/state",
        "/sources/s/last_error",
        "/sinks/main/state",
        "/sinks/main/last_error",
        "/http/listen",
        "/dead_letters_dropped/letters",
        "/dead_letters_dropped/rows",
    ];
    for name in ledger_names.chain(others.map(str::to_owned)) {
        assert!(status.pointer(&name).is_some(), "{name} is missing in {body}");
    }
}

#[tokio::test]
async fn metrics_have_their_names_and_help() {
    let served = Served::start().await;
    served.rows("a", 0, 3).await;
    served.stats.source("mqtt://\"x\\y").rows_received.add(3);
    served.stats.source("usb:2e8a:*").await_device();
    let (code, page) = served.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        r#"forebay_rows_received_total{source="mqtt://\"x\\y"} 3"#,
        r#"forebay_rows_acked_total{source="mqtt://\"x\\y"} 0"#,
        r#"forebay_source_connected{source="mqtt://\"x\\y"} 0"#,
        r#"forebay_gap_rows_total{cause="overflow"} 0"#,
        r#"forebay_backlog_rows{sink="main"} 3"#,
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
    }
    for sample in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = sample.rsplit_once(' ').unwrap();
        let name = name.split('{').next().unwrap();
        value.parse::<u64>().unwrap();
        for head in ["HELP", "TYPE"] {
            assert!(page.contains(&format!("# {head} {name} ")), "{name} has no {head}");
        }
    }
    assert!(
        !page.contains(r#"forebay_source_connected{source="usb:2e8a:*"}"#),
        "that would be an alert:\n{page}"
    );
    for name in ["forebay_rows_confirmed_total", "forebay_journal_bytes"] {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

#[tokio::test]
async fn rows_appear_on_the_live_stream_as_they_become_durable() {
    let served = Served::start().await;
    served.rows("before", 0, 1).await;
    let mut all = served.connect("/api/v1/live").await;
    let mut one = served.connect("/api/v1/live?device=b").await;
    read_until(&mut all, ": live").await;
    read_until(&mut one, ": live").await;
    served.rows("a", 0, 2).await;
    served.rows("b", 2, 3).await;
    let text = read_until(&mut all, "device=b t=21.5 2\n").await;
    assert!(
        text.contains("data: climate,device=a t=21.5 0\n\ndata: climate,device=a t=21.5 1\n\n"),
        "{text}"
    );
    assert!(!text.contains("before"), "{text}");
    let text = read_until(&mut one, "data: climate,device=b t=21.5 2\n\n").await;
    assert!(!text.contains("device=a"), "{text}");
    assert_eq!(served.get("/api/v1/live?devise=b").await.0, 400);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_skipped_ahead() {
    let served = Served::start().await;
    let mut slow = served.connect("/api/v1/live").await;
    read_until(&mut slow, ": live").await;
    for round in 0..300 {
        served.rows("a", round * 1000, (round + 1) * 1000).await;
        // The sink takes everything, so that the journal does not fill.
        let end = served.journal.usage().end;
        let submitted = served.journal.submit(Class::Internal, |_, s| s.add_cursor("main", end, &[]));
        submitted.unwrap();
    }
    read_until(&mut slow, "event: skipped\ndata: ").await;
    // A row may still be among those skipped, until the client has caught up.
    let writing = async {
        for sequence in 0.. {
            served.rows("last", sequence, sequence + 1).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = writing => {}
        _ = read_until(&mut slow, "climate,device=last") => {}
    }
}

#[tokio::test]
async fn the_control_socket_replaces_what_a_killed_process_left() {
    let served = Served::start().await;
    let socket = served.data_dir.path().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    served.server.abort();
    assert!(socket.exists(), "a process that is killed cleans nothing up");
    let again = bind(served.data_dir.path(), &served.journal).await.unwrap();
    let server = tokio::spawn(again.1.serve());
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn what_cannot_be_bound_is_named() {
    let served = Served::start().await;
    let missing = served.data_dir.path().join("missing");
    let error = bind(&missing, &served.journal).await.unwrap_err().to_string();
    assert!(
        error.contains("missing/control.sock") && error.contains("check that data_dir is writable"),
        "{error}"
    );
    let address = served.stats.listen().unwrap();
    let mut config = config(served.data_dir.path());
    config.http.listen = address;
    let error = Server::bind(&config, &served.journal, &Stats::new(0)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} (http.listen): ")), "{error}");
}
