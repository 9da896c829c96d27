//! What a commit interval spares a disk: a slow stream of records at random times, and the device's counters.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::limited::Stream;
use crate::device::Counters;
use crate::engine::Setup;
use crate::engine::ours::Ours;
use crate::statistics::Latency;
use crate::task::Task;
use crate::workload::mix;

/// `rate` records a second on average.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wear {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) stat: Option<PathBuf>,
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct WearOutcome {
    pub(crate) device: Option<Counters>,
    pub(crate) latency: Latency,
    pub(crate) records: u64,
    pub(crate) commits: u64,
    pub(crate) wall_s: f64,
}

impl Task for Wear {
    const NAME: &'static str = "wear";
    type Outcome = WearOutcome;

    fn run(&self) -> Result<WearOutcome> {
        let mut stream = Stream::new(Ours::open(&self.directory, &self.setup)?);
        // The first segment is opened and the next made ready before anything counts.
        stream.turn(self.arrivals().take(10))?;
        thread::sleep(Duration::from_secs(2));
        stream.forget();
        let counters = || self.stat.as_ref().map(|stat| Counters::read(stat, &self.directory)).transpose();
        let (before, commits, start) = (counters()?, stream.ours.commits(), Instant::now());
        let limit = Duration::from_secs(self.seconds);
        stream.turn(self.arrivals().take_while(|due| *due < limit))?;
        let wall_s = start.elapsed().as_secs_f64();
        let device = counters()?.zip(before).map(|(after, before)| after.since(before));
        let records = stream.samples.len() as u64;
        let commits = stream.ours.commits() - commits;
        Ok(WearOutcome { device, latency: Latency::of(&mut stream.samples), records, commits, wall_s })
    }
}

impl Wear {
    /// Times of a Poisson process, the same in every run.
    fn arrivals(&self) -> impl Iterator<Item = Duration> {
        let mean = 1.0 / self.rate as f64;
        let gap = move |n: u64| {
            let uniform = ((mix(n) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            Duration::from_secs_f64(-uniform.ln() * mean)
        };
        (0..).map(gap).scan(Duration::ZERO, |time, gap| {
            *time += gap;
            Some(*time)
        })
    }
}
