//! The benchmark `ack-modes`: write-behind and write-through, side by side.
//!
//! A gateway is given the same messages with each value of `[ack] after`, by a broker of ours that knows when it sent a
//! message and when the ack came, and delivers them to InfluxDB 1.
//!
//! * *Calm:* [`PACE`] messages a second. How soon is an ack there, and how many readings does the database get in one write?
//! * *Full:* as fast as acks allow with [`WINDOW`] messages in flight.
//! * *Killed:* under a load of [`KILLED_PACE`] messages a second the gateway gets SIGKILL; when the next life has delivered
//!   everything, some of what was acked may not be in the database.

pub(crate) mod broker;
mod report;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use forebay_tests::gateway::{Gateway, Program, Settings};
use forebay_tests::http::Http;
use forebay_tests::readback::influxql;
use forebay_tests::services::InfluxDb;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Common;
use crate::device::Device;
use crate::mqtt::load::{FIRST_N, Load};
use crate::process::Machine;
use crate::progress;
use crate::statistics::Latency;
use broker::Broker;

/// Messages a second of the calm load.
const PACE: u64 = 500;

/// Messages a second of the load under which the gateway is killed.
const KILLED_PACE: u64 = 10_000;

/// Messages that the broker has in flight.
const WINDOW: u64 = 1_000;

/// The longest wait for the database to have everything.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// When an ack leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Memory,
    Journal,
    Database,
}

const MODES: [Mode; 3] = [Mode::Memory, Mode::Journal, Mode::Database];

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    calm_s: u64,
    full_messages: u64,
    kills: u64,
}

/// What came of one run of a mode.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    ack: Latency,
    acked_per_s: f64,
    /// Writes that the database got for a thousand readings, of the calm load and of the full one.
    calm_writes: f64,
    full_writes: f64,
    /// Messages acked before the kills.
    acked: u64,
    /// Those of them that never came to the database.
    lost: u64,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    let mut machine = Machine::look();
    let mut outcomes = Vec::new();
    let disk = Device::plain(&common.directory()?)?;
    for run in 1..=plan.runs {
        for mode in MODES {
            progress!("run {run} of {}: [ack] after = {:?}", plan.runs, mode.word());
            let directory = disk.fresh()?;
            outcomes.push((mode, mode.measure(directory.path(), &plan)?));
        }
    }
    machine.look_again();
    report::Report::new(&plan, machine, &outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let plan = if common.quick {
            Plan { runs: 1, calm_s: 1, full_messages: 20_000, kills: 2 }
        } else {
            Plan { runs: 5, calm_s: 5, full_messages: 100_000, kills: 4 }
        };
        Plan { runs: common.runs().unwrap_or(plan.runs), ..plan }
    }

    fn calm_messages(&self) -> u64 {
        self.calm_s * PACE
    }

    /// Enough that the last kill comes before the end.
    fn killed_messages(&self) -> u64 {
        self.kills * KILLED_PACE
    }
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Memory => "memory",
            Mode::Journal => "journal",
            Mode::Database => "database",
        }
    }

    fn measure(self, directory: &Path, plan: &Plan) -> Result<Outcome> {
        let database = InfluxDb::start(&directory.join("database"))?;
        let mut broker = Broker::open()?;
        let mut gateway = self.gateway(directory, broker.port, &database)?;
        let load = Load::new(plan.calm_messages() + plan.full_messages + plan.killed_messages(), true)?;
        let mut session = broker.accept()?;

        let calm = 1..=plan.calm_messages();
        let writes = writes(&database)?;
        let ack = Latency::of(&mut session.publish(&load, calm.clone(), Some(PACE), WINDOW)?.latencies);
        gateway.drain(DRAIN_LIMIT)?;
        let calm_writes = writes_since(&database, writes, plan.calm_messages())?;

        let full = calm.end() + 1..=calm.end() + plan.full_messages;
        let writes = self::writes(&database)?;
        let acked_per_s = session.publish(&load, full.clone(), None, WINDOW)?.per_s;
        gateway.drain(DRAIN_LIMIT)?;
        let full_writes = writes_since(&database, writes, plan.full_messages)?;

        let mut acked: Vec<u64> = Vec::new();
        for kill in 0..plan.kills {
            let first = full.end() + 1 + kill * KILLED_PACE;
            let range = first..=first + KILLED_PACE - 1;
            // Not at the same part of a second each time.
            let killed_at = first + KILLED_PACE / 2 + kill * 137;
            acked.extend(session.publish_until(&load, range, KILLED_PACE, killed_at, || gateway.kill())?);
            gateway.launch()?;
            session = broker.accept()?;
            gateway.await_ready()?;
            gateway.drain(DRAIN_LIMIT)?;
        }
        let stored = stored(&database)?;
        let lost = acked.iter().filter(|number| !stored.contains(number)).count() as u64;
        let acked = acked.len() as u64;
        Ok(Outcome { ack, acked_per_s, calm_writes, full_writes, acked, lost })
    }

    fn gateway(self, directory: &Path, port: u16, database: &InfluxDb) -> Result<Gateway> {
        let tables = format!(
            "[ack]\nafter = \"{}\"\n[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\n\
             [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\n\
             measurement = \"weather\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ms\"\n\
             [[influxdb]]\nversion = 1\nurl = \"{}\"\ndatabase = \"{}\"\n",
            self.word(),
            database.url(),
            InfluxDb::DATABASE
        );
        let settings = Settings { tables, ..Settings::default() };
        let program = Program::find(Path::new("forebay-sim"));
        let mut gateway = Gateway::configure(program, &directory.join("gateway"), &settings)?;
        gateway.launch()?;
        Ok(gateway)
    }
}

/// Write requests that the database has had.
fn writes(database: &InfluxDb) -> Result<u64> {
    let url = format!("{}/debug/vars", database.url());
    let answer = Http::new()?.get(&url)?.successful("/debug/vars")?;
    let vars: serde_json::Map<String, Value> = serde_json::from_str(&answer.body)?;
    let writes = vars.values().filter(|value| value.get("name").is_some_and(|name| name == "httpd"));
    writes
        .filter_map(|httpd| httpd.pointer("/values/writeReq")?.as_u64())
        .next()
        .context("no count of writes")
}

/// Writes since there were `before`, for a thousand of `readings`.
fn writes_since(database: &InfluxDb, before: u64, readings: u64) -> Result<f64> {
    Ok((writes(database)? - before) as f64 * 1e3 / readings as f64)
}

/// The numbers of all messages in the database.
fn stored(database: &InfluxDb) -> Result<HashSet<u64>> {
    let points = influxql::select(&Http::new()?, &database.url(), InfluxDb::DATABASE, "weather", 0)?;
    ensure!(!points.is_empty(), "the database has nothing");
    let numbers = points.iter().filter_map(|point| point.column("n")?.as_f64());
    Ok(numbers.map(|number| number as u64 - FIRST_N).collect())
}
