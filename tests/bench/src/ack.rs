//! The benchmark `ack`: how long a sender waits until its record is durable, and what patience saves the disk.
//!
//! * Closed loop: 1 to 1,000 senders, each of which submits a record, waits until it is durable and submits the next.
//! * Limited: a steady stream at half the highest rate of the closed loops.
//! * Beside both, in slices of the same process that take turns with them: a bare loop of write and fdatasync, which is
//!   the least that durability costs on this disk.
//! * The wear curve: 100 records a second at commit intervals from 0 to 1 s, bytes by the device's own counters.

mod bare;
mod closed;
mod limited;
mod report;
mod wear;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub(crate) use closed::Closed;
pub(crate) use limited::Limited;
pub(crate) use wear::Wear;

use crate::cli::Common;
use crate::device::{self, Device};
use crate::engine::{Kind, Setup};
use crate::process::Machine;
use crate::progress;
use crate::statistics::{Latency, median};
use crate::task::Task as _;
use wear::WearOutcome;

const SENDERS: [usize; 4] = [1, 10, 100, 1_000];
const INTERVALS_MS: [u64; 6] = [0, 10, 50, 100, 250, 1_000];
const WEAR_RATE: u64 = 100;

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    slices: Slices,
    wear_seconds: u64,
    device_mib: u64,
    max_bytes_mib: u64,
}

/// The bare loop and ours take turns within one process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Slices {
    pub(crate) count: u32,
    pub(crate) bare_ms: u64,
    pub(crate) ours_ms: u64,
}

/// What came of one process that measured ours beside the bare loop.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct AckOutcome {
    pub(crate) bare: Latency,
    pub(crate) ours: Latency,
    pub(crate) records: u64,
    pub(crate) commits: u64,
    pub(crate) wall_s: f64,
    /// How late the load was handed in, for a stream that has a schedule.
    pub(crate) lag: Latency,
}

/// All outcomes, in the order of the runs.
#[derive(Debug, Default)]
struct Outcomes {
    closed: BTreeMap<usize, Vec<AckOutcome>>,
    half_rate: f64,
    half: Vec<AckOutcome>,
    wear: Vec<(u64, WearOutcome)>,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    device::enter_namespace();
    let mut machine = Machine::look();
    let mut outcomes = Outcomes::default();
    let base = common.directory()?;
    let plain = Device::plain(&base)?;
    for run in 1..=plan.runs {
        for senders in SENDERS {
            progress!("closed loop, run {run} of {}: {senders} senders", plan.runs);
            let directory = plain.fresh()?;
            let (setup, slices) = (plan.setup(0), plan.slices);
            let task = Closed { setup, directory: directory.path().to_owned(), senders, slices };
            outcomes.closed.entry(senders).or_default().push(task.measure()?);
        }
    }
    let rate = |runs: &Vec<AckOutcome>| median(runs.iter().map(AckOutcome::rate));
    let peak = outcomes.closed.values().map(rate).max_by(f64::total_cmp).context("nothing was measured")?;
    outcomes.half_rate = (peak / 2.0).round();
    for run in 1..=plan.runs {
        progress!("half the peak, {} records/s, run {run} of {}", outcomes.half_rate, plan.runs);
        let directory = plain.fresh()?;
        let (setup, slices, rate) = (plan.setup(0), plan.slices, outcomes.half_rate);
        let task = Limited { setup, directory: directory.path().to_owned(), rate, slices };
        outcomes.half.push(task.measure()?);
    }
    progress!("making a device of {} MiB", plan.device_mib);
    let counted = Device::counted(&base, plan.device_mib << 20)?;
    for interval_ms in INTERVALS_MS {
        progress!("wear, commit interval {interval_ms} ms");
        let directory = counted.fresh()?;
        let task = Wear {
            setup: plan.setup(interval_ms),
            directory: directory.path().join("journal"),
            stat: counted.stat.clone(),
            rate: WEAR_RATE,
            seconds: plan.wear_seconds,
        };
        outcomes.wear.push((interval_ms, task.measure()?));
    }
    machine.look_again();
    report::Report::new(&plan, machine, &counted, &outcomes)?.publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let plan = if common.quick {
            let slices = Slices { count: 1, bare_ms: 50, ours_ms: 200 };
            Plan { runs: 1, slices, wear_seconds: 1, device_mib: 128, max_bytes_mib: 16 }
        } else {
            let slices = Slices { count: 4, bare_ms: 500, ours_ms: 1_000 };
            Plan { runs: 5, slices, wear_seconds: 30, device_mib: 512, max_bytes_mib: 1_024 }
        };
        Plan { runs: common.runs().unwrap_or(plan.runs), ..plan }
    }

    fn setup(&self, commit_interval_ms: u64) -> Setup {
        Setup { kind: Kind::Ours, trim: true, max_bytes: self.max_bytes_mib << 20, commit_interval_ms }
    }
}

impl AckOutcome {
    fn rate(&self) -> f64 {
        self.records as f64 / self.wall_s
    }

    /// How long a commit takes, from one to the next.
    fn cycle_ms(&self) -> f64 {
        self.wall_s * 1e3 / self.commits as f64
    }

    fn over_bare(&self) -> f64 {
        self.ours.p50_ms / self.bare.p50_ms
    }

    fn over_cycle(&self) -> f64 {
        self.ours.p50_ms / self.cycle_ms()
    }
}
