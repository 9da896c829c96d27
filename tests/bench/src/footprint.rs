//! The benchmark `footprint`: what the gateway takes of a small machine, and how soon it is there.
//!
//! * *Memory:* resident bytes of the real program, as `/proc` tells: at rest, [`Plan::rest_s`] after its start with a broker
//!   connected, a subscription and a database; and the most of it while [`PACE`] messages a second are acked and delivered.
//!   Both with the embedded database and with InfluxDB 1.
//! * *Start:* from the moment at which the process is made to the ack of the first message, by a broker of ours that has
//!   it ready, with an empty journal, and with one of [`Plan::journal_bytes`] that no database has taken, of which the page
//!   cache knows nothing.
//! * *Size:* the program without its symbols, of this machine, and of a 64-bit Raspberry Pi where that was built.
//!
//! The allocator is the C library's (glibc), with the settings that the daemon gives it ([`ALLOCATOR`]).

mod backlog;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use forebay_tests::closing::Closing;
use forebay_tests::gateway::{Gateway, Program, Settings, data_dir};
use forebay_tests::services::InfluxDb;
use serde::Serialize;

use crate::cli::Common;
use crate::device::{Device, forget_cached};
use crate::modes::broker::{Broker, Session};
use crate::mqtt::load::Load;
use crate::process::Machine;
use crate::progress;

/// What memory is taken from, as `gateway/src/raw.rs` sets it up.
const ALLOCATOR: &str = "the C library's (glibc), two arenas, buffers from 128 KiB on and what is free at an arena's end given back";

/// Messages a second.
const PACE: u64 = 10_000;

/// Messages that the broker has in flight.
const WINDOW: u64 = 1_000;

/// The longest wait for the database to have everything.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    rest_s: u64,
    load_s: u64,
    journal_bytes: u64,
    /// Whether a figure counts; else it is only to be seen that the benchmark works.
    #[serde(skip)]
    counts: bool,
}

/// Where readings go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Store {
    Sqlite,
    Influxdb,
}

const STORES: [Store; 2] = [Store::Sqlite, Store::Influxdb];

/// Resident memory of one run, in MiB.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    store: Store,
    rest_mib: f64,
    load_mib: f64,
}

/// From the start of the process to the first ack of one run, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct FirstAck {
    empty_ms: f64,
    full_ms: f64,
}

/// Stripped programs, in bytes; none that was not built.
#[derive(Clone, Copy, Debug, Serialize)]
struct Size {
    here: u64,
    aarch64: Option<u64>,
}

/// All outcomes, in the order of the runs.
#[derive(Debug)]
struct Outcomes {
    memory: Vec<Memory>,
    first_ack: Vec<FirstAck>,
    size: Size,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    let mut machine = Machine::look();
    let disk = Device::plain(&common.directory()?)?;
    let size = Size::measure(&common.directory()?)?;
    let mut outcomes = Outcomes { memory: Vec::new(), first_ack: Vec::new(), size };
    for run in 1..=plan.runs {
        for store in STORES {
            progress!("memory, run {run} of {}: {store:?}", plan.runs);
            let directory = disk.fresh()?;
            outcomes.memory.push(store.measure(directory.path(), &plan)?);
        }
    }
    progress!("a journal of {} MiB", plan.journal_bytes >> 20);
    let directory = disk.fresh()?;
    let mut start = Start::prepare(directory.path(), &plan)?;
    for run in 1..=plan.runs {
        progress!("start, run {run} of {}", plan.runs);
        outcomes.first_ack.push(start.measure(directory.path())?);
    }
    machine.look_again();
    report::Report::new(&plan, machine, &outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let plan = if common.quick {
            Plan { runs: 1, rest_s: 1, load_s: 2, journal_bytes: 64 << 20, counts: false }
        } else {
            Plan { runs: 5, rest_s: 10, load_s: 20, journal_bytes: 1 << 30, counts: true }
        };
        Plan { runs: common.runs().unwrap_or(plan.runs), ..plan }
    }
}

impl Store {
    fn measure(self, directory: &Path, plan: &Plan) -> Result<Memory> {
        let influxdb = match self {
            Store::Sqlite => None,
            Store::Influxdb => Some(InfluxDb::start(&directory.join("database"))?),
        };
        let sink = influxdb.as_ref().map(|server| Settings::influxdb_1(&server.url(), InfluxDb::DATABASE));
        let mut broker = Broker::open()?;
        let mut gateway = gateway(&directory.join("gateway"), broker.port, &sink.unwrap_or_default())?;
        gateway.launch()?;
        let mut session = broker.accept()?;
        gateway.await_ready()?;
        thread::sleep(Duration::from_secs(plan.rest_s));
        let rest = gateway.usage().resident_bytes;

        let messages = PACE * plan.load_s;
        let load = Load::new(messages, true)?;
        let acked = session.publish(&load, 1..=messages, Some(PACE), WINDOW)?;
        let kept_pace = acked.per_s > 0.9 * PACE as f64;
        ensure!(kept_pace || !plan.counts, "only {:.0} messages/s: the machine is busy", acked.per_s);
        gateway.drain(DRAIN_LIMIT)?;
        let load = gateway.usage().resident_bytes_max;
        gateway.kill();
        Ok(Memory { store: self, rest_mib: mib(rest), load_mib: mib(load) })
    }
}

/// Two gateways, of which one has much that no database has taken.
struct Start {
    empty: Life,
    full: Life,
}

/// A gateway and the broker that it connects to, over all of its lives.
struct Life {
    broker: Broker,
    gateway: Gateway,
    directory: PathBuf,
    load: Load,
    next: u64,
}

impl Start {
    fn prepare(directory: &Path, plan: &Plan) -> Result<Start> {
        let full = Life::prepare(&directory.join("full"), plan)?;
        backlog::fill(&data_dir(&full.directory), plan.journal_bytes)?;
        Ok(Start { empty: Life::prepare(&directory.join("empty"), plan)?, full })
    }

    fn measure(&mut self, directory: &Path) -> Result<FirstAck> {
        // What an earlier run has left would make it another start.
        let emptied = data_dir(&self.empty.directory);
        if emptied.exists() {
            std::fs::remove_dir_all(&emptied)?;
        }
        let empty_ms = self.empty.first_ack()?;
        forget_cached(&data_dir(&self.full.directory).join("journal"))?;
        let full_ms = self.full.first_ack()?;
        ensure!(directory.exists(), "the disk is gone");
        Ok(FirstAck { empty_ms, full_ms })
    }
}

impl Life {
    fn prepare(directory: &Path, plan: &Plan) -> Result<Life> {
        let broker = Broker::open()?;
        let tables = format!(
            "[journal]\nmax_bytes = {}\n[[influxdb]]\nname = \"{}\"\nurl = \"http://127.0.0.1:9\"\nversion = 1\n\
             database = \"d\"\n",
            2 * plan.journal_bytes,
            backlog::SINK
        );
        let gateway = gateway(directory, broker.port, &tables)?;
        let load = Load::new(plan.runs as u64, true)?;
        Ok(Life { broker, gateway, directory: directory.to_owned(), load, next: 1 })
    }

    /// Milliseconds from its start to the first ack. Then it is killed.
    fn first_ack(&mut self) -> Result<f64> {
        let began = Instant::now();
        self.gateway.launch()?;
        let mut session: Session = self.broker.accept()?;
        session.publish(&self.load, self.next..=self.next, None, WINDOW)?;
        let took = began.elapsed();
        self.next += 1;
        self.gateway.kill();
        Ok(took.as_secs_f64() * 1e3)
    }
}

impl Size {
    fn measure(directory: &Path) -> Result<Size> {
        let program = std::env::var_os("FOREBAY_BIN").context("FOREBAY_BIN names no program to measure")?;
        let target = std::env::var_os("FOREBAY_AARCH64").map(PathBuf::from);
        let aarch64 = target
            .filter(|path| path.exists())
            .map(|path| stripped(&path, "aarch64-linux-gnu-strip", directory));
        Ok(Size { here: stripped(Path::new(&program), "strip", directory)?, aarch64: aarch64.transpose()? })
    }
}

/// Bytes of a program without its symbols.
fn stripped(program: &Path, tool: &str, directory: &Path) -> Result<u64> {
    let copy = directory.join("stripped");
    let status = Command::new(tool).arg("-o").arg(&copy).arg(program).status();
    let status = status.with_context(|| format!("{tool} is not installed"))?;
    ensure!(status.success(), "{tool} {}: {status}", program.display());
    let bytes = std::fs::metadata(&copy)?.len();
    std::fs::remove_file(&copy)?;
    Ok(bytes)
}

/// A gateway that serves one broker; it is not started yet.
fn gateway(directory: &Path, port: u16, tables: &str) -> Result<Gateway> {
    let tables = format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\n[[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\n\
         format = \"json\"\nmeasurement = \"weather\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ms\"\n{tables}"
    );
    let settings = Settings { tables, ..Settings::default() };
    let mut gateway = Gateway::configure(Program::find(Path::new("forebay-sim")), directory, &settings)?;
    gateway
        .closes(Closing::Unaudited("it is killed, and what it stored is none of this benchmark's business"));
    Ok(gateway)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
