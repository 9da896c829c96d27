//! Part (a): a steady stream, one durable commit in each interval, as a gateway lives most of its life.
//!
//! Operation: the engine first takes enough, flat out, to be where it will stay: segments are recycled, tables
//! flushed, logs wrapped around. Only then the counters are read. What the file system still holds back at the end counts
//! too.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Spent, WARM_UP_COMMIT, record_bytes};
use crate::device::Counters;
use crate::engine::{Engine, Setup};
use crate::process::{cpu_time, peak_rss_mib};
use crate::statistics::Latency;
use crate::task::Task;

/// Commits `commit` records every `interval_ms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Paced {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) stat: Option<PathBuf>,
    pub(crate) warm_up: u64,
    pub(crate) commit: u64,
    pub(crate) interval_ms: u64,
    pub(crate) commits: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PacedOutcome {
    pub(crate) spent: Spent,
    pub(crate) device: Option<Counters>,
    /// From handing a commit in until it is durable.
    pub(crate) commit: Latency,
    /// Commits that began more than an interval late.
    pub(crate) late: u64,
    pub(crate) rss_mib: f64,
    pub(crate) commits: u64,
}

impl PacedOutcome {
    /// None without a device of its own.
    pub(crate) fn device_bytes_per_payload_byte(&self) -> Option<f64> {
        let payload = self.spent.records * record_bytes().ok()?;
        Some(self.device?.bytes as f64 / payload as f64)
    }

    /// None without a device of its own.
    pub(crate) fn flushes_per_commit(&self) -> Option<f64> {
        Some(self.device?.flushes as f64 / self.commits as f64)
    }
}

impl Task for Paced {
    const NAME: &'static str = "paced";
    type Outcome = PacedOutcome;

    fn run(&self) -> Result<PacedOutcome> {
        let mut engine = self.setup.open(&self.directory)?;
        let mut next = 0;
        while next < self.warm_up {
            let ticket = engine.submit(next..next + WARM_UP_COMMIT)?;
            engine.wait(ticket)?;
            next += WARM_UP_COMMIT;
        }
        thread::sleep(Duration::from_secs(1));
        let counters = || self.stat.as_ref().map(|stat| Counters::read(stat, &self.directory)).transpose();
        let before = counters()?;
        let (cpu, start) = (cpu_time(), Instant::now());
        let (mut samples, late) = self.pace(&mut *engine, next, start)?;
        let spent = Spent::since(cpu, start, self.commits * self.commit);
        let device = counters()?.zip(before).map(|(after, before)| after.since(before));
        let rss_mib = peak_rss_mib()?;
        engine.close()?;
        let (commit, commits) = (Latency::of(&mut samples), self.commits);
        Ok(PacedOutcome { spent, device, commit, late, rss_mib, commits })
    }
}

impl Paced {
    fn pace(&self, engine: &mut dyn Engine, first: u64, start: Instant) -> Result<(Vec<Duration>, u64)> {
        let interval = Duration::from_millis(self.interval_ms);
        let mut samples = Vec::with_capacity(self.commits as usize);
        let (mut late, mut due, mut next) = (0, start, first);
        for _ in 0..self.commits {
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            late += u64::from(began > due + interval);
            let ticket = engine.submit(next..next + self.commit)?;
            engine.wait(ticket)?;
            samples.push(began.elapsed());
            next += self.commit;
        }
        Ok((samples, late))
    }
}
