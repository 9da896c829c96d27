//! The benchmark `journal`: our log beside SQLite, fjall and redb as journals of the same records.
//!
//! * (a) paced: 20,000 records a second, one durable commit every 10 ms. What a record costs in processor time and in
//!   bytes and flushes of the device.
//! * (b) flat out: each engine at each commit size; the best counts.
//! * (c) a backlog of 1 GiB, opened cold after a kill and after a clean end.
//!
//! Runs of the engines take turns, so that a change in the machine's mood meets all of them, and the median counts.
//! Bytes and processor time include what it takes to make and encode the records, which is the same for all.

mod backlog;
mod flat_out;
mod paced;
mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use backlog::{Fill, Open};
pub(crate) use flat_out::FlatOut;
pub(crate) use paced::Paced;

use crate::cli::Common;
use crate::device::{self, Device, forget_cached};
use crate::engine::{Kind, Setup, Source};
use crate::process::Machine;
use crate::progress;
use crate::task::Task as _;
use backlog::OpenOutcome;
use flat_out::FlatOutcome;
use paced::PacedOutcome;

/// Records in a commit where only the result counts.
const WARM_UP_COMMIT: u64 = 10_000;

/// Commits of ours that may be outstanding where it runs flat out.
const WINDOW: usize = 2;

const RATE: u64 = 20_000;
const INTERVAL_MS: u64 = 10;

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    /// Records that an engine takes before the paced part is measured.
    paced_warm_up: u64,
    paced_seconds: u64,
    commit_sizes: Vec<u64>,
    flat_warm_up_ms: u64,
    flat_ms: u64,
    backlog_mib: u64,
    device_mib: u64,
    max_bytes_mib: u64,
    /// Whether the others are spared the deleting.
    append_only: bool,
}

/// What a stretch of work took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) records: u64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
}

/// All outcomes, in the order of the runs.
#[derive(Debug, Default)]
struct Outcomes {
    paced: BTreeMap<Kind, Vec<PacedOutcome>>,
    /// By engine, commit size and window.
    flat: BTreeMap<(Kind, u64, usize), Vec<FlatOutcome>>,
    killed: BTreeMap<Kind, Vec<OpenOutcome>>,
    closed: BTreeMap<Kind, Vec<OpenOutcome>>,
    empty: BTreeMap<Kind, Vec<OpenOutcome>>,
    /// Processor microseconds to make and encode a record.
    feeding_us: Vec<f64>,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common, append_only: bool) -> Result<bool> {
    let plan = Plan { append_only, ..Plan::of(common) };
    device::enter_namespace();
    let mut machine = Machine::look();
    let mut outcomes = Outcomes::default();
    let base = common.directory()?;
    progress!("making a device of {} MiB", plan.device_mib);
    let counted = Device::counted(&base, plan.device_mib << 20)?;
    let plain = Device::plain(&base)?;
    for run in 1..=plan.runs {
        for kind in Kind::ALL.into_iter().chain([Kind::Floor]) {
            progress!("paced, run {run} of {}: {kind}", plan.runs);
            outcomes.paced.entry(kind).or_default().push(plan.paced(kind, &counted)?);
        }
        outcomes.feeding_us.push(plan.flat_out(Kind::Nothing, 1_000, 1, &plain)?.spent.cpu_us_per_record());
    }
    for run in 1..=plan.runs {
        for (kind, commit, window) in plan.flat_candidates() {
            progress!("flat out, run {run} of {}: {kind}, {commit} a commit", plan.runs);
            let outcome = plan.flat_out(kind, commit, window, &plain)?;
            outcomes.flat.entry((kind, commit, window)).or_default().push(outcome);
        }
    }
    plan.backlogs(&plain, &mut outcomes)?;
    machine.look_again();
    report::Report::new(&plan, machine, &counted, &outcomes)?.publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let plan = if common.quick {
            Plan {
                runs: 1,
                paced_warm_up: 50_000,
                paced_seconds: 1,
                commit_sizes: vec![1_000],
                flat_warm_up_ms: 50,
                flat_ms: 200,
                backlog_mib: 16,
                device_mib: 256,
                max_bytes_mib: 64,
                append_only: false,
            }
        } else {
            Plan {
                runs: 5,
                paced_warm_up: 600_000,
                paced_seconds: 30,
                commit_sizes: vec![100, 1_000, 10_000],
                flat_warm_up_ms: 1_000,
                flat_ms: 3_000,
                backlog_mib: 1_024,
                device_mib: 2_048,
                max_bytes_mib: 1_024,
                append_only: false,
            }
        };
        Plan { runs: common.runs().unwrap_or(plan.runs), ..plan }
    }

    fn paced(&self, kind: Kind, device: &Device) -> Result<PacedOutcome> {
        let directory = device.fresh()?;
        let task = Paced {
            setup: self.setup(kind),
            directory: directory.path().join("journal"),
            stat: device.stat.clone(),
            warm_up: self.paced_warm_up,
            commit: RATE * INTERVAL_MS / 1_000,
            interval_ms: INTERVAL_MS,
            commits: self.paced_seconds * 1_000 / INTERVAL_MS,
        };
        task.measure()
    }

    fn flat_out(&self, kind: Kind, commit: u64, window: usize, device: &Device) -> Result<FlatOutcome> {
        let directory = device.fresh()?;
        let task = FlatOut {
            setup: self.setup(kind),
            directory: directory.path().join("journal"),
            commit,
            window,
            warm_up_ms: self.flat_warm_up_ms,
            measured_ms: self.flat_ms,
        };
        task.measure()
    }

    /// Every engine at every commit size; ours also without going on while a commit is under way.
    fn flat_candidates(&self) -> Vec<(Kind, u64, usize)> {
        let of_size = |&commit: &u64| {
            let all = Kind::ALL.into_iter().map(move |kind| (kind, commit, WINDOW));
            all.chain([(Kind::Ours, commit, 1)])
        };
        self.commit_sizes.iter().flat_map(of_size).collect()
    }

    fn backlogs(&self, device: &Device, outcomes: &mut Outcomes) -> Result<()> {
        let records = (self.backlog_mib << 20).div_ceil(record_bytes()?);
        // The backlog must not fill the journal.
        let max_bytes = (2 * self.backlog_mib + 64) << 20;
        let setup = |kind| Setup { trim: false, max_bytes, ..self.setup(kind) };
        let mut directories = Vec::new();
        for kind in Kind::ALL {
            progress!("writing a backlog of {} MiB: {kind}", self.backlog_mib);
            let directory = device.fresh()?;
            Fill { setup: setup(kind), directory: directory.path().join("journal"), records }.measure()?;
            directories.push((kind, directory));
        }
        let mut next = records;
        let mut open = |kind, directory: &std::path::Path, close| {
            next += 1;
            forget_cached(directory)?;
            Open { setup: setup(kind), directory: directory.join("journal"), next: next - 1, close }.measure()
        };
        for run in 1..=self.runs {
            for (kind, directory) in &directories {
                progress!("opening the backlog of a killed process, run {run} of {}: {kind}", self.runs);
                outcomes.killed.entry(*kind).or_default().push(open(*kind, directory.path(), false)?);
            }
        }
        for (kind, directory) in &directories {
            open(*kind, directory.path(), true)?;
        }
        for run in 1..=self.runs {
            for (kind, directory) in &directories {
                progress!("opening the backlog of a closed process, run {run} of {}: {kind}", self.runs);
                outcomes.closed.entry(*kind).or_default().push(open(*kind, directory.path(), true)?);
                let empty = device.fresh()?;
                let directory = empty.path().join("journal");
                let task = Open { setup: setup(*kind), directory, next: 0, close: true };
                outcomes.empty.entry(*kind).or_default().push(task.measure()?);
            }
        }
        Ok(())
    }

    fn setup(&self, kind: Kind) -> Setup {
        let trim = kind == Kind::Ours || !self.append_only;
        Setup { kind, trim, max_bytes: self.max_bytes_mib << 20, commit_interval_ms: 0 }
    }
}

impl Spent {
    fn since(cpu: Duration, start: Instant, records: u64) -> Spent {
        let wall_s = start.elapsed().as_secs_f64();
        Spent { records, wall_s, cpu_s: (crate::process::cpu_time() - cpu).as_secs_f64() }
    }

    fn records_per_s(&self) -> f64 {
        self.records as f64 / self.wall_s
    }

    fn cpu_us_per_record(&self) -> f64 {
        self.cpu_s * 1e6 / self.records as f64
    }
}

/// Bytes of an encoded record, which all engines store.
pub(crate) fn record_bytes() -> Result<u64> {
    Ok(Source::new().body(0)?.len() as u64)
}
