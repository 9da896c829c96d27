//! The gateway under measurement: the real program on a real directory, seen through its own status and `/proc`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use forebay_tests::closing::Closing;
use forebay_tests::gateway::{Gateway, Program, Settings};
use forebay_tests::services::Mosquitto;
use serde_json::Value;

use super::load::Load;
use crate::process::Spent;

/// How the broker knows the gateway.
const CLIENT_ID: &str = "forebay-bench";

/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Between two looks where the processor time counts: each look costs the gateway some.
pub(super) const LOOK_SELDOM: Duration = Duration::from_millis(200);

/// Between two looks where the time counts.
pub(super) const LOOK_OFTEN: Duration = Duration::from_millis(20);

/// A sink that is not there, so that intake is measured alone.
pub(super) const NO_SINK: &str =
    "[[influxdb]]\nurl = \"http://127.0.0.1:9\"\nversion = 2\norg = \"o\"\nbucket = \"b\"\n";

/// A gateway that serves one broker.
#[derive(Debug)]
pub(super) struct Ours {
    gateway: Gateway,
}

/// What is known of its counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    pid: u32,
    acked: u64,
    pub(super) journal_bytes: u64,
    pub(super) commits: u64,
}

impl Ours {
    /// Starts a gateway and waits until a message reaches it and is acked.
    pub(super) fn start(directory: &Path, broker: &Mosquitto, sink: &str, dated: bool) -> Result<Ours> {
        let timestamp = if dated { "timestamp = \"$.time\"\ntimestamp_format = \"ms\"\n" } else { "" };
        let tables = format!(
            "[ack]\nafter = \"journal\"\n[[mqtt]]\nurl = \"{}\"\nclient_id = \"{CLIENT_ID}\"\n\
             [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\n\
             measurement = \"weather\"\n{timestamp}{sink}",
            broker.url()
        );
        let settings = Settings { tables, ..Settings::default() };
        let program = Program::find(Path::new("forebay-sim"));
        let mut gateway = Gateway::start(program, directory, &settings)?;
        gateway.closes(Closing::Unaudited("what is measured is held against the database by the benchmark"));
        let ours = Ours { gateway };
        let probe = Load::probe(dated)?;
        let until = Instant::now() + LIMIT;
        while ours.counters()?.acked == 0 {
            ensure!(Instant::now() < until, "the gateway does not subscribe");
            probe.publish(broker.port, None)?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(ours)
    }

    /// Ends it; the broker queues for its session then.
    pub(super) fn stop(&mut self) -> Result<()> {
        let status = self.gateway.terminate()?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }

    /// Starts it again, without waiting until it is ready.
    pub(super) fn resume(&mut self) -> Result<()> {
        self.gateway.launch()
    }

    /// Messages acked a second, from the first look that finds any to the first that finds all `messages`.
    pub(super) fn acks(&self, messages: u64, look_every: Duration) -> Result<f64> {
        let until = Instant::now() + LIMIT;
        let (mut before, mut first) = (None, None);
        loop {
            // Right after a start there is nobody to ask.
            if let Ok(counters) = self.counters() {
                let (now, acked) = (Instant::now(), counters.acked);
                let before = *before.get_or_insert(acked);
                if first.is_none() && acked > before {
                    first = Some((now, acked));
                }
                if let Some((began, had)) = first.filter(|_| acked >= messages) {
                    return Ok((acked - had) as f64 / (now - began).as_secs_f64());
                }
            }
            ensure!(Instant::now() < until, "the gateway does not ack everything");
            thread::sleep(look_every);
        }
    }

    /// Waits until the sinks have everything.
    pub(super) fn deliver(&self) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let (rows, _) = self.gateway.backlog()?;
            if rows == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{rows} rows are not delivered");
            thread::sleep(LOOK_SELDOM);
        }
    }

    pub(super) fn counters(&self) -> Result<Counters> {
        let status = self.gateway.status()?;
        let number = |pointer: &str| {
            status
                .pointer(pointer)
                .and_then(Value::as_u64)
                .with_context(|| format!("no {pointer} in {status}"))
        };
        let sources = status.get("sources").and_then(Value::as_object).context("a status without sources")?;
        let acked = sources.values().filter_map(|source| source.get("rows_acked")?.as_u64()).sum();
        Ok(Counters {
            pid: u32::try_from(number("/pid")?)?,
            acked,
            journal_bytes: number("/journal/bytes_written")?,
            commits: number("/journal/commits")?,
        })
    }
}

impl Counters {
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// What the process has used so far.
    pub(super) fn spent(&self) -> Result<Spent> {
        Spent::by(self.pid)
    }
}
