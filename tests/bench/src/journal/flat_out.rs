//! Part (b): as fast as it goes at one commit size.
//!
//! Up to `window` commits are handed in and not yet durable, for an engine that can go on meanwhile; the others return
//! from handing in when the commit is durable, so that for them the window makes no difference.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Spent;
use crate::engine::{Engine, Setup, Ticket};
use crate::process::{cpu_time, peak_rss_mib};
use crate::task::Task;

/// Commits of `commit` records, one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FlatOut {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) commit: u64,
    pub(crate) window: usize,
    pub(crate) warm_up_ms: u64,
    pub(crate) measured_ms: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FlatOutcome {
    pub(crate) spent: Spent,
    pub(crate) rss_mib: f64,
}

impl Task for FlatOut {
    const NAME: &'static str = "flat-out";
    type Outcome = FlatOutcome;

    fn run(&self) -> Result<FlatOutcome> {
        let mut engine = self.setup.open(&self.directory)?;
        let warm = self.commit_for(&mut *engine, 0, self.warm_up_ms)?;
        let (cpu, start) = (cpu_time(), Instant::now());
        let end = self.commit_for(&mut *engine, warm, self.measured_ms)?;
        let spent = Spent::since(cpu, start, end - warm);
        let rss_mib = peak_rss_mib()?;
        engine.close()?;
        Ok(FlatOutcome { spent, rss_mib })
    }
}

impl FlatOut {
    /// Commits for so long, waits until all of it is durable, and returns the number of the next record.
    fn commit_for(&self, engine: &mut dyn Engine, first: u64, ms: u64) -> Result<u64> {
        let (start, limit) = (Instant::now(), Duration::from_millis(ms));
        let mut in_flight: VecDeque<Ticket> = VecDeque::new();
        let mut next = first;
        while start.elapsed() < limit {
            in_flight.push_back(engine.submit(next..next + self.commit)?);
            next += self.commit;
            if in_flight.len() >= self.window
                && let Some(oldest) = in_flight.pop_front()
            {
                engine.wait(oldest)?;
            }
        }
        for ticket in in_flight {
            engine.wait(ticket)?;
        }
        Ok(next)
    }
}
