//! Senders that wait for each ack before they send again.
//!
//! One thread speaks for all of them, as a source of the gateway does for all devices behind it: acks leave in the order
//! of the records, as soon as the watermark says so.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::bare::Bare;
use super::{AckOutcome, Slices};
use crate::engine::ours::Ours;
use crate::engine::{Engine as _, Setup, Ticket};
use crate::statistics::Latency;
use crate::task::Task;

/// `senders` senders beside the bare loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) senders: usize,
    pub(crate) slices: Slices,
}

impl Task for Closed {
    const NAME: &'static str = "closed";
    type Outcome = AckOutcome;

    fn run(&self) -> Result<AckOutcome> {
        let mut bare = Bare::create(&self.directory)?;
        let mut loops = Loops {
            ours: Ours::open(&self.directory.join("journal"), &self.setup)?,
            next: 0,
            samples: vec![],
        };
        // The first turn of each only warms up.
        bare.run(self.slices.bare_ms)?;
        loops.turn(self.senders, self.slices.ours_ms)?;
        bare.samples.clear();
        loops.samples.clear();
        let (mut wall, commits) = (Duration::ZERO, loops.ours.commits());
        for _ in 0..self.slices.count {
            bare.run(self.slices.bare_ms)?;
            let start = Instant::now();
            loops.turn(self.senders, self.slices.ours_ms)?;
            wall += start.elapsed();
        }
        Ok(AckOutcome {
            bare: Latency::of(&mut bare.samples),
            ours: Latency::of(&mut loops.samples),
            records: loops.samples.len() as u64,
            commits: loops.ours.commits() - commits,
            wall_s: wall.as_secs_f64(),
            lag: Latency::default(),
        })
    }
}

struct Loops {
    ours: Ours,
    next: u64,
    samples: Vec<Duration>,
}

impl Loops {
    /// Lets all senders go on for so long, and waits for what they are still owed then.
    fn turn(&mut self, senders: usize, ms: u64) -> Result<()> {
        let (start, limit) = (Instant::now(), Duration::from_millis(ms));
        let mut waiting: VecDeque<(Ticket, Instant)> = VecDeque::with_capacity(senders);
        for _ in 0..senders {
            waiting.push_back(self.send()?);
        }
        while let Some(&(oldest, _)) = waiting.front() {
            self.ours.wait(oldest)?;
            let (durable, now) = (self.ours.durable(), Instant::now());
            let acked = waiting.iter().take_while(|(ticket, _)| *ticket <= durable).count();
            for (_, sent) in waiting.drain(..acked) {
                self.samples.push(now.saturating_duration_since(sent));
            }
            if start.elapsed() < limit {
                for _ in 0..acked {
                    waiting.push_back(self.send()?);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(Ticket, Instant)> {
        let sent = Instant::now();
        let ticket = self.ours.submit(self.next..self.next + 1)?;
        self.next += 1;
        Ok((ticket, sent))
    }
}
