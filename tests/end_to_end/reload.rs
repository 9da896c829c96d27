//! SIGHUP while readings come: what can change does, nothing is lost or stored twice, and a broken file changes nothing. What
//! has not changed is not touched.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use forebay_tests::clock::wait_for;
use forebay_tests::closing::Closing;
use forebay_tests::gateway::{Gateway, Settings, data_dir};
use forebay_tests::http::Http;
use forebay_tests::mqtt::{Client, Message};
use forebay_tests::proxy::MqttTap;
use forebay_tests::pty::Line;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};
use serde_json::Value;

use crate::world::{DRAIN_LIMIT, Scratch, program};

/// Messages after which mosquitto's numbers tell what comes again.
const SETTLED: u64 = 1_500;

/// How often the configuration changes under the load.
const RELOADS: u64 = 8;

const LIMITS: &str = "max_inflight_messages 100\nmax_queued_messages 0\nmax_queued_bytes 0\n";

const SUBSCRIBE: &str = "[[mqtt.subscribe]]\ntopic = \"load/{device}\"\nformat = \"json\"\nmeasurement = \"load\"\n\
                         integer_fields = [\"n\"]\n";

struct Site {
    gateway: Gateway,
    tables: String,
    base: String,
}

impl Site {
    /// Writes a configuration, and asks the gateway to read it; how often it has said that it did by then.
    fn reload(&mut self, tables: &str) -> anyhow::Result<()> {
        std::fs::write(self.gateway.config(), self.base.replace(&self.tables, tables))?;
        let before = self.count("SIGHUP: the configuration was read again")?;
        self.gateway.reload()?;
        wait_for("the configuration to be read", DRAIN_LIMIT, || {
            match self.count("SIGHUP: the configuration was read again") {
                Ok(count) if count > before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Waits until the log has said something so often.
    fn await_said(&self, what: &str, times: usize) -> anyhow::Result<()> {
        wait_for(what, DRAIN_LIMIT, || match self.count(what) {
            Ok(count) if count >= times => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until the sources are connected that often, and there are no others.
    fn await_connects(&self, wanted: &[(&Path, u64)]) -> anyhow::Result<()> {
        wait_for("the sources", DRAIN_LIMIT, || {
            let status = self.gateway.status().map_err(|error| format!("{error:#}"))?;
            let sources = status["sources"].as_object().cloned().unwrap_or_default();
            let is_as_wanted = wanted.iter().all(|(path, connects)| {
                sources.get(&*path.to_string_lossy()).is_some_and(|source| {
                    source["connects"] == *connects && (source["state"] == "connected") == (*connects > 0)
                })
            });
            if is_as_wanted && sources.len() == wanted.len() { Ok(()) } else { Err(format!("{sources:?}")) }
        })
    }

    fn count(&self, what: &str) -> anyhow::Result<usize> {
        Ok(self.gateway.log_text()?.matches(what).count())
    }
}

/// How much a thread of the gateway gives way to others.
fn nice(id: u32, thread: &str) -> anyhow::Result<i32> {
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let (head, tail) = stat.rsplit_once(") ").context("no name")?;
        if head.ends_with(&format!("({thread}")) {
            // The state, which is the first here, is the third field, and this is the nineteenth.
            return tail.split(' ').nth(16).and_then(|text| text.parse().ok()).context("no number");
        }
    }
    anyhow::bail!("there is no thread {thread}")
}

/// Makes a pipe under this name; whoever reads from it waits.
fn pipe(path: &Path) -> anyhow::Result<()> {
    let made = std::process::Command::new("mkfifo").arg(path).status()?;
    ensure!(made.success(), "mkfifo ended with {made}");
    Ok(())
}

/// Waits until somebody reads from a pipe; it waits until what is returned is dropped.
fn await_reader(path: &Path) -> anyhow::Result<File> {
    let options = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    wait_for("somebody to read from the pipe", DRAIN_LIMIT, || {
        File::options().write(true).custom_flags(options).open(path).map_err(|error| error.to_string())
    })
}

/// Publishes numbers without a time of their own until it is over; how many there were.
fn load(port: u16, over: &AtomicBool, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut client = Client::connect(port, "load", true)?;
    while !over.load(Ordering::Relaxed) {
        let first = sent.load(Ordering::Relaxed);
        let messages: Vec<Message> = (first..first + 100)
            .map(|number| Message::new(format!("load/d{}", number % 7), format!("{{\"n\":{number}}}")))
            .collect();
        client.publish(&messages)?;
        sent.store(first + 100, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_reload_under_load_loses_nothing_and_stores_nothing_twice() -> anyhow::Result<()> {
    let scratch = Scratch::new("reload")?;
    let broker = Mosquitto::start_with(&scratch.path().join("mosquitto"), LIMITS)?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tap = MqttTap::start(broker.port)?;
    let source = format!("[[mqtt]]\nurl = \"{}\"\nnative = false\n{SUBSCRIBE}", tap.url());
    let tables = source + &Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let settings = Settings { tables: tables.clone(), ..Settings::default() };
    let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    let base = std::fs::read_to_string(gateway.config())?;
    let mut site = Site { gateway, tables: tables.clone(), base };
    let url = tap.url();
    let acked = |site: &Site| -> Result<u64, String> {
        let status = site.gateway.status().map_err(|error| format!("{error:#}"))?;
        status["sources"][&url]["rows_acked"]
            .as_u64()
            .context("no source")
            .map_err(|error| format!("{error:#}"))
    };
    tap.wait_for_subscriptions(1, 1, DRAIN_LIMIT)?;

    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loading = {
        let (port, over, sent) = (broker.port, Arc::clone(&over), Arc::clone(&sent));
        std::thread::spawn(move || load(port, &over, &sent))
    };
    let reach = |site: &Site, wanted: u64| {
        wait_for("acks", DRAIN_LIMIT, || match acked(site)? {
            count if count >= wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        })
    };
    reach(&site, SETTLED)?;
    for round in 0..RELOADS {
        // A subscription comes and goes, so that the broker's source is begun anew each time.
        let more = format!(
            "{SUBSCRIBE}[[mqtt.subscribe]]\ntopic = \"more/{{device}}\"\nformat = \"value\"\nmeasurement = \"more\"\n"
        );
        let changed = if round % 2 == 0 { tables.replace(SUBSCRIBE, &more) } else { tables.clone() };
        site.reload(&changed)?;
        wait_for("the new connection", DRAIN_LIMIT, || match tap.figures().connections {
            connections if connections == 2 + round => Ok(()),
            connections => Err(format!("{connections} connections")),
        })?;
        let before = acked(&site).map_err(anyhow::Error::msg)?;
        reach(&site, before + 200)?;
        if round == 0 {
            tap.wait_for_subscriptions(1, 3, DRAIN_LIMIT)?;
            Client::connect(broker.port, "more", true)?.publish(&[Message::new("more/x", "7")])?;
            // The next reload takes the subscription away, and what has not come by then is let go.
            let http = Http::new()?;
            wait_for("what was published for it", DRAIN_LIMIT, || {
                match influxql::select(&http, &server.url(), InfluxDb::DATABASE, "more", 0) {
                    Ok(points) if points.len() == 1 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })?;
        }
    }
    let id = site.gateway.id().context("it runs")?;
    let (begun, committer) = (nice(id, "mqtt")?, nice(id, "committer")?);
    ensure!(begun == committer, "a source that was begun anew has nice {begun}, the committer {committer}");
    over.store(true, Ordering::Relaxed);
    loading.join().map_err(|_| anyhow::anyhow!("the load has panicked"))??;
    let sent = sent.load(Ordering::Relaxed);
    wait_for("everything", DRAIN_LIMIT, || {
        let status = site.gateway.status().map_err(|error| format!("{error:#}"))?;
        match status["ledger"]["learned"].as_u64() {
            Some(learned) if learned > sent => Ok(()),
            learned => Err(format!("{learned:?} of {sent}")),
        }
    })?;
    site.gateway.drain(DRAIN_LIMIT)?;

    let points = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, "load", 0)?;
    let numbers: BTreeSet<i64> = points.iter().filter_map(|point| point.column("n")?.as_i64()).collect();
    eprintln!("{sent} messages over {RELOADS} reloads: {} points, {} numbers", points.len(), numbers.len());
    ensure!(numbers.len() as u64 == sent, "{} of {sent} numbers are stored", numbers.len());
    ensure!(points.len() as u64 == sent, "{} points of {sent} messages", points.len());
    let more = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, "more", 0)?;
    ensure!(more.len() == 1, "the subscription that was added brought {more:?}");
    ensure!(tap.figures().connections == 1 + RELOADS, "no source was begun anew: {:?}", tap.figures());
    site.gateway.close(DRAIN_LIMIT)?;
    scratch.passed();
    Ok(())
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() -> anyhow::Result<()> {
    let scratch = Scratch::new("reload-keys")?;
    let directory = scratch.path().join("gateway");
    let mut gateway = Gateway::configure(program(), &directory, &Settings::default())?;
    gateway.require_token("the-first-token-0123456789")?;
    gateway.resume()?;
    let base = std::fs::read_to_string(gateway.config())?;
    let mut site = Site { gateway, tables: String::from("[health]"), base };

    // A file that cannot be used changes nothing, says why, and the gateway goes on.
    std::fs::write(
        site.gateway.config(),
        site.base.replace("[health]", "[journal]\nmax_bytes = 7\n[health]"),
    )?;
    site.gateway.reload()?;
    wait_for("the fault in the log", DRAIN_LIMIT, || {
        match site.count("journal.max_bytes: 7B is out of range") {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    ensure!(site.count("nothing was changed")? == 1 && site.count("was read again")? == 0, "something was");
    ensure!(site.gateway.readiness()? == 200, "it does not ack any more");

    // The token changes at once, and so does the log; what needs a start is named.
    let (old, url) = (Http::bearing("the-first-token-0123456789")?, site.gateway.url("/api/v1/status"));
    ensure!(old.get(&url)?.status == 200, "the first token is not taken");
    site.gateway.require_token("another-token-0123456789")?;
    site.reload("[log]\nlevel = \"debug\"\n[devices.a]\nname = \"b\"\n[ack]\nafter = \"memory\"\n[health]")?;
    ensure!(old.get(&url)?.status == 401, "the first token is still taken");
    site.gateway.status()?;
    for key in ["[devices]", "ack.after"] {
        let named = site.count(&format!("SIGHUP: {key} has changed; this is applied when"))?;
        ensure!(named == 1, "{key} is named {named} times");
    }
    wait_for("the log to tell more", DRAIN_LIMIT, || {
        // What is no HTTP is worth a word at this level only.
        let odd = TcpStream::connect(site.gateway.http_address())
            .and_then(|mut client| client.write_all(b"\x16\r\n\r\n"));
        odd.map_err(|error| error.to_string())?;
        match site.count("DEBUG") {
            Ok(0) => Err("nothing at this level".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })?;
    site.gateway.close(DRAIN_LIMIT)?;
    scratch.passed();
    Ok(())
}

#[test]
fn what_could_not_be_begun_is_begun_by_the_next_reload() -> anyhow::Result<()> {
    let scratch = Scratch::new("reload-back")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let tap = MqttTap::start(broker.port)?;
    let source = |client_id: &str| {
        format!("[[mqtt]]\nurl = \"{}\"\n{client_id}native = false\n{SUBSCRIBE}", tap.url())
    };
    let (named, unnamed) = (source("client_id = \"one\"\n"), source(""));
    let settings = Settings { mqtt: None, ports: Vec::new(), tables: named.clone() };
    let directory = scratch.path().join("gateway");
    let gateway = Gateway::start(program(), &directory, &settings)?;
    let base = std::fs::read_to_string(gateway.config())?;
    let mut site = Site { gateway, tables: named.clone(), base };
    tap.wait_for_subscriptions(1, 1, DRAIN_LIMIT)?;

    // Without a client id the gateway needs one of its own, which is nowhere to be had.
    let client_id = data_dir(&directory).join("client-id");
    std::fs::create_dir(&client_id)?;
    std::fs::write(site.gateway.config(), site.base.replace(&named, &unnamed))?;
    site.gateway.reload()?;
    site.await_said("a source cannot be started", 1)?;
    site.reload(&named)?;
    wait_for("the second connection", DRAIN_LIMIT, || match tap.figures().connections {
        2 => Ok(()),
        connections => Err(format!("{connections} connections")),
    })?;
    Client::connect(broker.port, "after", true)?.publish(&[Message::new("load/d0", "{\"n\":1}")])?;
    wait_for("a row", DRAIN_LIMIT, || match site.gateway.status() {
        Ok(status) if status["sources"][tap.url()]["rows_acked"] == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    // What runs as it should is not touched.
    site.reload(&named)?;
    ensure!(tap.figures().connections == 2, "{:?}", tap.figures());
    site.gateway.close(DRAIN_LIMIT)?;
    scratch.passed();
    Ok(())
}

#[test]
fn a_serial_port_that_stays_as_it_is_is_not_touched() -> anyhow::Result<()> {
    let scratch = Scratch::new("reload-serial")?;
    let path = |name: &str| scratch.path().join(name);
    let [a, b, c, any] = ["a", "b", "c", "any-1"].map(path);
    let plugged = [Line::plug_in(&a)?, Line::plug_in(&b)?, Line::plug_in(&c)?, Line::plug_in(&any)?];
    let port = |path: &Path| format!("[[serial]]\nport = {path:?}\n");
    let first = port(&a) + &port(&b);
    let settings = Settings { mqtt: None, ports: Vec::new(), tables: first.clone() };
    let gateway = Gateway::start(program(), &path("gateway"), &settings)?;
    let base = std::fs::read_to_string(gateway.config())?;
    let mut site = Site { gateway, tables: first, base };
    site.await_connects(&[(&a, 1), (&b, 1)])?;
    // One is served otherwise, one comes, and one that stays changes its place.
    let slow = port(&b) + "baud = 9600\n";
    site.reload(&(slow.clone() + &port(&c) + &port(&a)))?;
    site.await_connects(&[(&a, 1), (&b, 2), (&c, 1)])?;
    site.reload(&(port(&a) + &port(&c)))?;
    site.await_connects(&[(&a, 1), (&c, 1)])?;
    // A pattern has what no path has, until one has it.
    let pattern = path("any*");
    let claimed = format!("[[serial]]\nport = {pattern:?}\nclaim = \"any\"\n") + &port(&a);
    site.reload(&claimed)?;
    site.await_connects(&[(&a, 1), (&pattern, 1)])?;
    site.reload(&(claimed + &port(&any)))?;
    wait_for("the path to have its port", DRAIN_LIMIT, || {
        let status = site.gateway.status().map_err(|error| format!("{error:#}"))?;
        let of = |path: &Path| status["sources"][&*path.to_string_lossy()].clone();
        let is_moved = of(&any)["state"] == "connected" && of(&pattern)["state"] == "waiting";
        if is_moved && of(&a)["connects"] == 1 { Ok(()) } else { Err(status.to_string()) }
    })?;
    // None at all, and one again.
    site.reload("")?;
    site.await_connects(&[])?;
    site.reload(&slow)?;
    site.await_connects(&[(&b, 1)])?;
    site.gateway.close(DRAIN_LIMIT)?;
    for line in plugged {
        line.unplug();
    }
    scratch.passed();
    Ok(())
}

#[test]
fn a_signal_that_comes_while_something_takes_its_time_is_heard() -> anyhow::Result<()> {
    let scratch = Scratch::new("reload-early")?;
    let directory = scratch.path().join("gateway");
    let gateway = Gateway::configure(program(), &directory, &Settings::default())?;
    let base = std::fs::read_to_string(gateway.config())?;
    let mut site = Site { gateway, tables: String::new(), base };
    // The start waits for this file, and a reload that comes meanwhile waits for the start.
    let clocks = data_dir(&directory).join("clocks");
    std::fs::create_dir_all(data_dir(&directory))?;
    pipe(&clocks)?;
    site.gateway.launch()?;
    let writer = await_reader(&clocks)?;
    site.gateway.reload()?;
    drop(writer);
    site.gateway.await_ready()?;
    site.await_said("SIGHUP: the configuration was read again", 1)?;

    // A reload waits for this file, and a stop that comes meanwhile is heard at once.
    site.gateway.closes(Closing::Unaudited("the configuration is a pipe"));
    std::fs::remove_file(site.gateway.config())?;
    pipe(&site.gateway.config())?;
    site.gateway.reload()?;
    let writer = await_reader(&site.gateway.config())?;
    let log = directory.join("gateway.log");
    let waiting = std::thread::spawn(move || {
        let heard = wait_for("the stop", DRAIN_LIMIT, || match std::fs::read_to_string(&log) {
            Ok(text) if text.contains("SIGTERM: stopping") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        drop(writer);
        heard
    });
    site.gateway.close(DRAIN_LIMIT)?;
    waiting.join().map_err(|_| anyhow::anyhow!("the waiting has panicked"))??;
    scratch.passed();
    Ok(())
}

#[test]
fn the_log_is_json_if_that_is_wanted() -> anyhow::Result<()> {
    let scratch = Scratch::new("log-json")?;
    let directory = scratch.path().join("gateway");
    let mut gateway = Gateway::configure(program(), &directory, &Settings::default())?;
    gateway.require_token("the-only-token-0123456789")?;
    let mut command = program().command("run", &gateway.config());
    command.args(["--log", "json"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let ready = wait_for("the gateway", DRAIN_LIMIT, || match gateway.readiness() {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let id =
        i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).context("no process id")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let output = child.wait_with_output()?;
    ready?;
    let text = String::from_utf8(output.stderr)?;
    let mut said = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        ensure!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
        said.extend(event["message"].as_str().map(str::to_owned));
    }
    ensure!(said.iter().any(|message| message.starts_with("listening on")), "{said:?}");
    ensure!(!text.contains("the-only-token"), "the token is in the log: {text}");
    scratch.passed();
    Ok(())
}
