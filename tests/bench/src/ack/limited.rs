//! A stream that keeps its rate, whatever the acks do.
//!
//! Whoever submits sleeps until the next record is due, and the system wakes it some tens of microseconds late, so that
//! records come in small bursts. The wait for the ack begins when a record is handed in; how late that was is told apart.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::bare::Bare;
use super::{AckOutcome, Slices};
use crate::engine::ours::{Ours, Receipts};
use crate::engine::{Engine as _, Setup, Ticket};
use crate::statistics::Latency;
use crate::task::Task;

/// `rate` records a second beside the bare loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Limited {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) rate: f64,
    pub(crate) slices: Slices,
}

/// A journal and the stream that goes into it.
pub(super) struct Stream {
    pub(super) ours: Ours,
    next: u64,
    pub(super) samples: Vec<Duration>,
    lags: Vec<Duration>,
}

/// Records handed in and not yet seen to be durable, at most.
const IN_FLIGHT_MAX: usize = 1 << 16;

impl Task for Limited {
    const NAME: &'static str = "limited";
    type Outcome = AckOutcome;

    fn run(&self) -> Result<AckOutcome> {
        let mut bare = Bare::create(&self.directory)?;
        let mut stream = Stream::new(Ours::open(&self.directory.join("journal"), &self.setup)?);
        let limit = Duration::from_millis(self.slices.ours_ms);
        let arrivals = || {
            (1..).map(|n| Duration::from_secs_f64(f64::from(n) / self.rate)).take_while(|due| *due < limit)
        };
        // The first turn of each only warms up.
        bare.run(self.slices.bare_ms)?;
        stream.turn(arrivals())?;
        bare.samples.clear();
        stream.forget();
        let (mut wall, commits) = (Duration::ZERO, stream.ours.commits());
        for _ in 0..self.slices.count {
            bare.run(self.slices.bare_ms)?;
            let start = Instant::now();
            stream.turn(arrivals())?;
            wall += start.elapsed();
        }
        Ok(AckOutcome {
            bare: Latency::of(&mut bare.samples),
            ours: Latency::of(&mut stream.samples),
            records: stream.samples.len() as u64,
            commits: stream.ours.commits() - commits,
            wall_s: wall.as_secs_f64(),
            lag: Latency::of(&mut stream.lags),
        })
    }
}

impl Stream {
    pub(super) fn new(ours: Ours) -> Stream {
        Stream { ours, next: 0, samples: Vec::new(), lags: Vec::new() }
    }

    /// Forgets what was measured.
    pub(super) fn forget(&mut self) {
        self.samples.clear();
        self.lags.clear();
    }

    /// Submits a record at each of the times, and waits until all are durable.
    pub(super) fn turn(&mut self, arrivals: impl Iterator<Item = Duration>) -> Result<()> {
        let receipts = self.ours.receipts()?;
        let (sender, receiver) = sync_channel(IN_FLIGHT_MAX);
        thread::scope(|scope| {
            let acks = scope.spawn(move || take_acks(receipts, &receiver));
            let start = Instant::now();
            for due in arrivals {
                let due = start + due;
                if due > Instant::now() {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                let sent = Instant::now();
                self.lags.push(sent.saturating_duration_since(due));
                let ticket = self.ours.submit(self.next..self.next + 1)?;
                self.next += 1;
                sender.send((ticket, sent)).context("nobody waits for acks any more")?;
            }
            drop(sender);
            let samples = acks.join().map_err(|_| anyhow::anyhow!("whoever took the acks panicked"))??;
            self.samples.extend(samples);
            Ok(())
        })
    }
}

/// Waits for each record until all have been handed in and are durable, and returns how long each took.
fn take_acks(mut receipts: Receipts, sent: &Receiver<(Ticket, Instant)>) -> Result<Vec<Duration>> {
    let mut samples = Vec::new();
    let mut held = sent.recv().ok();
    while let Some((oldest, began)) = held.take() {
        let durable = receipts.wait(oldest)?;
        let now = Instant::now();
        samples.push(now.saturating_duration_since(began));
        while let Ok((ticket, began)) = sent.try_recv() {
            if ticket > durable {
                held = Some((ticket, began));
                break;
            }
            samples.push(now.saturating_duration_since(began));
        }
        held = held.or_else(|| sent.recv().ok());
    }
    Ok(samples)
}
