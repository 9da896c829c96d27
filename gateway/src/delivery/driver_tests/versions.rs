//! The driver and the real write paths before a server that behaves as each version of InfluxDB does.

use std::collections::BTreeSet;

use super::replays::{replay, stored};
use super::*;
use crate::delivery::replay::Fate;
use crate::sink::influx::{Influx, Target};
use crate::sink::line_protocol::parse_line;
use crate::sink::scripted_server::{Request, Script, ScriptedServer};

/// How a server refuses points of another type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    /// 400, the others stored, a count.
    V1,
    /// 422, likewise.
    V2,
    /// 500, likewise.
    OldV2,
    /// 400, likewise, without a count, as no version of InfluxDB does.
    Uncounted,
    /// 400, nothing stored, the lines in the text, as what cannot be read is refused.
    Unreadable,
    /// 400, the others stored, each line by its number.
    V3,
}

impl Manner {
    pub(super) const ALL: [Manner; 5] =
        [Manner::V1, Manner::V2, Manner::OldV2, Manner::Unreadable, Manner::V3];

    pub(super) fn target(self) -> Target {
        match self {
            Manner::V1 | Manner::Uncounted => {
                Target::V1 { database: "d".into(), retention_policy: None, credentials: None }
            }
            Manner::V3 => Target::V3 { database: "d".into(), token: None },
            _ => Target::V2 { org: "o".into(), bucket: "b".into(), token: None },
        }
    }
}

/// What a database holds and was asked.
#[derive(Debug, Default)]
pub(super) struct Database {
    /// Series and time of each point of the measurement `m`, and how often it was written.
    pub(super) stored: BTreeMap<(String, i64), u32>,
    /// For each request how many points it had, and whether one of them was refused.
    pub(super) requests: Vec<(usize, bool)>,
    /// Integers are taken too.
    pub(super) is_mended: bool,
}

impl Database {
    /// Takes floats, and integers once it is mended.
    pub(super) fn answer(&mut self, manner: Manner, request: &Request) -> Script {
        let lines: Vec<&str> = request.lines.lines().collect();
        let points: Vec<_> = lines.iter().map(|line| parse_line(line).expect("a line")).collect();
        let is_bad = |fields: &[(String, Value)]| {
            !self.is_mended && fields.iter().any(|(name, value)| name == "v" && *value == Value::Integer(1))
        };
        let bad: BTreeSet<usize> = (0..points.len()).filter(|at| is_bad(&points[*at].fields)).collect();
        self.requests.push((points.len(), !bad.is_empty()));
        if bad.is_empty() || manner != Manner::Unreadable {
            for (at, point) in points.iter().enumerate() {
                if !bad.contains(&at) && point.series.starts_with("m,") {
                    *self.stored.entry((point.series.clone(), point.ns)).or_default() += 1;
                }
            }
        }
        if bad.is_empty() {
            return Script::Answer("204 No Content", "");
        }
        let conflict = "partial write: field type conflict: input field \"v\" on measurement \"m\" is type integer, already exists as type float";
        let (head, body) = match manner {
            Manner::V1 => (
                "400 Bad Request",
                serde_json::json!({ "error": format!("{conflict} dropped={}", bad.len()) }),
            ),
            Manner::V2 => {
                let message = format!("failure writing points to database: {conflict} dropped={}", bad.len());
                (
                    "422 Unprocessable",
                    serde_json::json!({ "code": "unprocessable entity", "message": message }),
                )
            }
            Manner::OldV2 => {
                let message =
                    format!("unexpected error writing points to database: {conflict} dropped={}", bad.len());
                ("500 Internal", serde_json::json!({ "code": "internal error", "message": message }))
            }
            Manner::Uncounted => ("400 Bad Request", serde_json::json!({ "error": conflict })),
            Manner::Unreadable => {
                let named: Vec<String> = bad
                    .iter()
                    .map(|at| format!("unable to parse '{}': invalid number", lines[*at]))
                    .collect();
                ("400 Bad Request", serde_json::json!({ "code": "invalid", "message": named.join("\n") }))
            }
            Manner::V3 => {
                let data: Vec<_> = bad
                    .iter()
                    .map(|at| {
                        serde_json::json!({
                            "original_line": lines[*at], "line_number": at + 1,
                            "error_message": "invalid column type for column 'v'",
                        })
                    })
                    .collect();
                let error = "partial write of line protocol occurred";
                ("400 Bad Request", serde_json::json!({ "error": error, "data": data }))
            }
        };
        Script::Answer(head, body.to_string().leak())
    }
}

pub(super) fn serve(manner: Manner) -> (ScriptedServer, Arc<Mutex<Database>>) {
    let database = Arc::new(Mutex::new(Database::default()));
    let shared = Arc::clone(&database);
    let server = ScriptedServer::answering(move |request| match request.head.starts_with("post ") {
        true => shared.lock().unwrap().answer(manner, request),
        false => Script::Answer("204 No Content", ""),
    });
    (server, database)
}

/// Submits rows of one device and measurement at these times, as floats or integers, in one submission.
pub(super) fn submit_values(journal: &Journal, rows: impl Iterator<Item = (&'static str, i64, Value)>) {
    let rows: Vec<_> = rows.map(|(device, ns, value)| (device, ns, [("v".to_owned(), value)])).collect();
    let mut end = Offset(0);
    for chunk in rows.chunks(1000) {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |_, submission| {
            for (device, ns, fields) in chunk {
                submission.add(&Entry::Row(RowEntry {
                    device,
                    boot: 0,
                    sequence: *ns as u64,
                    stamped: false,
                    series: &format!("m,device={device}"),
                    ns: *ns,
                    fields: Fields::of(fields),
                }))?;
            }
            Ok(())
        });
        end = submitted.unwrap().1;
    }
    until(|| *journal.watermark().borrow() >= end);
}

pub(super) fn start(
    journal: &Journal,
    server: &ScriptedServer,
    manner: Manner,
    batch_points: usize,
) -> Running {
    let sink = Influx::new(&server.url(), manner.target()).unwrap();
    Running::start_with(journal, "main", sink, batch_points, MemoryStorage::new())
}

#[test]
fn one_bad_point_in_5000_harms_nobody_and_is_stored_once_the_cause_is_mended() {
    // Floats read as integers in one point; the rest of 5,000 are good.
    let searched = Manner::ALL.map(|manner| (manner, if manner == Manner::V3 { 2 } else { 4 }));
    for (manner, most) in searched.into_iter().chain([(Manner::Uncounted, 4)]) {
        let journal = journal();
        let value = |ns| if ns == 3210 { Value::Integer(1) } else { Value::Float(0.5) };
        submit_values(&journal, (0..5000).map(|ns| ("d", ns, value(ns))));
        let (server, database) = serve(manner);
        let running = start(&journal, &server, manner, 5000);
        until(|| journal.with_state(|state| state.owed("main")) == 0);
        assert_eq!(ledger(&journal, "d", "main"), (4999, 1), "{manner:?}");
        // The point of the gap follows in a request of its own.
        until(|| database.lock().unwrap().requests.last() == Some(&(1, false)));
        let requests = database.lock().unwrap().requests.clone();
        eprintln!("{manner:?}: {} requests for 5,000 points with one bad: {requests:?}", requests.len());
        assert!(requests.len() <= most, "{manner:?}: {requests:?}");
        let letters = running.letters();
        let [(_, reason, body)] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!(body, "m,device=d v=1i 3210\n");
        let said = match manner {
            Manner::V3 => "invalid column type for column 'v'",
            Manner::Unreadable => "unable to parse 'm,device=d v=1i 3210'",
            _ => "field type conflict: input field \"v\"",
        };
        assert!(reason.contains(said), "{reason}");
        assert_eq!(database.lock().unwrap().stored.len(), 4999);

        database.lock().unwrap().is_mended = true;
        let fates = replay(&running, stored(&running));
        assert_eq!(fates, [Fate::Stored]);
        assert_eq!(running.letters(), []);
        let stored = database.lock().unwrap().stored.clone();
        assert_eq!(stored.len(), 5000);
        assert_eq!(stored[&("m,device=d".to_owned(), 3210)], 1, "with its own time");
        assert_eq!(ledger(&journal, "d", "main"), (5000, 0));
        running.stop();
    }
}

#[test]
fn a_device_that_sends_nothing_but_bad_points_costs_few_requests_and_delays_nobody() {
    const HOURS: i64 = 24;
    for manner in Manner::ALL {
        let journal = journal();
        let (server, database) = serve(manner);
        let running = start(&journal, &server, manner, 500);
        // An hour a batch, every other row of which is bad.
        for hour in 0..HOURS {
            let row = |n: i64| match n % 2 {
                0 => ("good", hour * 500 + n, Value::Float(0.5)),
                _ => ("bad", hour * 500 + n, Value::Integer(1)),
            };
            let before = database.lock().unwrap().requests.len();
            submit_values(&journal, (0..500).map(row));
            until(|| journal.with_state(|state| state.owed("main")) == 0);
            let requests = database.lock().unwrap().requests.clone();
            let of_batch = &requests[before..];
            assert!(of_batch.len() <= 64, "{manner:?}, hour {hour}: {} requests", of_batch.len());
            if hour > 0 && matches!(manner, Manner::V1 | Manner::V2 | Manner::OldV2) {
                // What is known to be refused goes behind what is not; gaps may have gone before.
                let good = of_batch.iter().position(|(points, refused)| *points >= 200 && !refused);
                let refused = of_batch.iter().position(|(_, refused)| *refused);
                assert!(good < refused, "{manner:?}, hour {hour}: {of_batch:?}");
            }
        }
        assert_eq!(ledger(&journal, "good", "main"), (250 * HOURS as u64, 0), "{manner:?}");
        assert_eq!(ledger(&journal, "bad", "main"), (0, 250 * HOURS as u64), "{manner:?}");
        running.stop();
        let requests = database.lock().unwrap().requests.len();
        eprintln!("{manner:?}: {requests} requests for {HOURS} batches, half of which is bad");
        // A batch may be gathered in two pieces.
        assert!(requests <= 8 * HOURS as usize, "{manner:?}: {requests} requests");
    }
}

#[test]
fn a_server_that_does_not_count_is_asked_point_by_point_behind_all_others() {
    let journal = journal();
    let (server, database) = serve(Manner::Uncounted);
    let row = |n: i64| match n % 2 {
        0 => ("good", n, Value::Float(0.5)),
        _ => ("bad", n, Value::Integer(1)),
    };
    submit_values(&journal, (0..200).map(row));
    let running = start(&journal, &server, Manner::Uncounted, 200);
    until(|| journal.with_state(|state| state.owed("main")) == 0);
    assert_eq!((ledger(&journal, "good", "main"), ledger(&journal, "bad", "main")), ((100, 0), (0, 100)));
    let requests = database.lock().unwrap().requests.clone();
    assert_eq!(requests[..2], [(200, true), (100, false)], "the second request has all that is good");
    let times = database.lock().unwrap().stored.values().copied().max();
    assert!(times <= Some(2), "what is stored is not sent again: {times:?}");
    running.stop();
}

/// What goes wrong once each, before a request is answered as it should be.
const MISFORTUNES: [Script; 9] = [
    Script::Cut,
    Script::Answer("400 Bad Request", "<html><body>nginx</body></html>"),
    Script::Answer("429 Too Many Requests\r\nRetry-After: 0", ""),
    Script::Answer("503 Unavailable\r\nRetry-After: 0", "{}"),
    Script::Answer("502 Bad Gateway", "<html>"),
    Script::Answer("200 OK", "<html>Welcome to the hotel</html>"),
    Script::Half("400 Bad Request", "{\"error\":\"partial write: field type conflict dropped=1\"}"),
    Script::Answer("500 Internal", "{\"code\":\"internal error\",\"message\":\"timeout\"}"),
    Script::Answer("413 Too Large", "<html>"),
];

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_nothing_counts_twice() {
    for manner in [Manner::V1, Manner::V2, Manner::V3] {
        let journal = journal();
        let database = Arc::new(Mutex::new(Database::default()));
        let shared = Arc::clone(&database);
        let mut turn = 0;
        let server = ScriptedServer::answering(move |request| {
            turn += 1;
            if request.head.starts_with("get ") {
                return Script::Answer("204 No Content", "");
            }
            match turn % 3 {
                // One in three is done, and its answer is lost.
                1 => {
                    shared.lock().unwrap().answer(manner, request);
                    Script::Cut
                }
                2 => MISFORTUNES[turn / 3 % MISFORTUNES.len()].clone(),
                _ => shared.lock().unwrap().answer(manner, request),
            }
        });
        let value = |ns| if ns % 400 == 7 { Value::Integer(1) } else { Value::Float(0.5) };
        submit_values(&journal, (0..2000).map(|ns| ("d", ns, value(ns))));
        let running = start(&journal, &server, manner, 200);
        until_in_time(|| journal.with_state(|state| state.owed("main")) == 0);
        assert_eq!(ledger(&journal, "d", "main"), (1995, 5), "{manner:?}");
        let rows = running.letters().into_iter().filter(|(_, _, body)| body.starts_with("m,"));
        let times: Vec<String> = rows.map(|(_, _, body)| body).collect();
        let expected: Vec<String> = (0..5).map(|n| format!("m,device=d v=1i {}\n", 7 + 400 * n)).collect();
        assert_eq!(times, expected, "{manner:?}");
        let stored = database.lock().unwrap().stored.clone();
        assert_eq!(stored.len(), 1995, "{manner:?}");
        let status = running.stop().snapshot();
        assert!(status.requests >= status.retries && status.retries > 10, "{status:?}");
        assert_eq!(status.confirmed_rows, 1995);
    }
}

/// Backoff takes its time.
fn until_in_time(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(120), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_flood_of_429_is_no_busy_loop() {
    let journal = journal();
    let busy = Script::Answer("429 Too Many Requests\r\nRetry-After: 0", "");
    let server = ScriptedServer::start(vec![busy]);
    submit(&journal, "d", 0..100);
    let running = start(&journal, &server, Manner::V2, 100);
    std::thread::sleep(Duration::from_secs(3));
    let status = running.stop().snapshot();
    let requests = server.requests();
    // At least 50 ms pass before each, half a second in the mean.
    assert!((2..=30).contains(&requests.len()), "{} requests in 3 s", requests.len());
    assert!(
        requests.iter().all(|request| request.head.starts_with("post ")),
        "who answers is not looked for"
    );
    assert_eq!(status.requests, requests.len() as u64);
    assert_eq!((status.confirmed_rows, ledger(&journal, "d", "main")), (0, (0, 0)));
}

#[test]
fn a_server_that_returns_is_noticed_before_the_backoff_is_over() {
    let journal = journal();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    submit(&journal, "d", 0..100);
    let sink = Influx::new(&format!("http://{address}"), Manner::V1.target()).unwrap();
    let running = Running::start_with(&journal, "main", sink, 100, MemoryStorage::new());
    // By then the backoff waits for many seconds.
    until_in_time(|| running.status.snapshot().retries >= 7);
    let returned = Instant::now();
    let server = ScriptedServer::listening(address, |_| Script::Answer("204 No Content", ""));
    until_in_time(|| ledger(&journal, "d", "main") == (100, 0));
    let requests = server.requests();
    let waited = returned.elapsed();
    eprintln!(
        "delivered {waited:?} after its return; first {}",
        requests[0].head.lines().next().unwrap_or_default()
    );
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    running.stop();
}
