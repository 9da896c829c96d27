//! Runs delivery to one sink on a thread of its own.
//!
//! * In: the journal's watermark, which says that there is something to read.
//! * Out: writes to the sink, cursor and gaps to the journal, state to [`SinkStatus`].
//! * Next: `sink/` (a file per write path).
//!
//! The loop is gather, write, commit; where the journal has a hole, or has to make room, something is skipped instead
//! (`skip.rs`). While a cursor is on its way to the disk, the next batch is gathered already,
//! but sent only once the cursor is durable. A failed journal takes no cursors any more; delivery then goes on
//! without them, and the next start delivers those points again, which changes nothing in a store.
//!
//! Asked to stop, the driver delivers what is committed without lingering, until it has caught up, a write fails, or
//! the time for draining is over; a write that is under way then is abandoned, and repeated by the next start.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::batcher::{Batcher, Limits};
use super::gaps::{Gap, GapMaker};
use super::gather::Gather;
use super::rejection::Rejections;
use super::status::{Condition, SinkStatus};
use super::{Delivery, Rejected, Settled, Step, letters};
use crate::clock;
use crate::dead_letters::{DeadLetters, Letter};
use crate::journal::entry::Cause;
use crate::journal::{self, Class, Journal, Refused, Submission};
use crate::record::Offset;
use crate::sink::batch::Record;
use crate::sink::{Batch, Outcome, Position, Sink};

/// Bytes of journal that a batch keeps in memory.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause before the journal is asked again after it refused a cursor or failed to be read.
pub(super) const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// How long a write that is under way may take when the journal needs room.
const EVICT_GRACE: Duration = Duration::from_secs(2);
/// The same complaint is logged once in this time.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// How one sink is to be served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the sink, the identity of its cursor.
    pub name: String,
    /// Points in a batch.
    pub batch_points: usize,
    /// How long a point may wait for others before its batch leaves.
    pub linger: Duration,
    /// Longest time for the rest once the driver was asked to stop.
    pub drain: Duration,
    /// Where refused points go.
    pub dead_letters: Arc<DeadLetters>,
    /// Configured tags, which the point of a gap carries besides `device` and `cause`.
    pub gap_tags: Vec<(String, String)>,
    /// Seed of the backoff's jitter.
    pub seed: u64,
}

/// Delivery to a sink cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The journal does not take the sink's registration.
    #[error("cannot register the sink: {0}")]
    Journal(#[from] Refused),
    /// No thread or no event loop.
    #[error("cannot start the sink's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Registers the sink and starts its thread, which ends some time after `stop` became true or was dropped.
///
/// # Errors
/// The journal refuses the registration, or the system a thread.
pub fn spawn<S: Sink + Send + 'static>(
    journal: Journal,
    sink: S,
    settings: Settings,
    status: Arc<SinkStatus>,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let cursor = journal.register_sink(&settings.name)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let name: Arc<str> = settings.name.as_str().into();
    let thread = thread::Builder::new().name(format!("sink-{name}"));
    let driver = Driver {
        rejections: Rejections::new(Arc::clone(&name), journal.id()),
        gaps: GapMaker::new(settings.gap_tags),
        dead_letters: settings.dead_letters,
        evict_to: journal.evict_to(),
        delivery: Delivery::new(Backoff::new(settings.seed)),
        complaints: Complaints::default(),
        accounted: cursor,
        name,
        journal,
        sink,
        status,
        stop,
    };
    let limits = Limits { points: settings.batch_points, bytes: BATCH_BYTES_MAX, linger: settings.linger };
    let drain = settings.drain;
    Ok(thread.spawn(move || {
        runtime.block_on(driver.run(limits, drain));
        // A name lookup that hangs must not keep the process from ending.
        runtime.shutdown_background();
    })?)
}

pub(super) struct Driver<S> {
    pub(super) name: Arc<str>,
    pub(super) journal: Journal,
    sink: S,
    pub(super) status: Arc<SinkStatus>,
    stop: watch::Receiver<bool>,
    delivery: Delivery,
    rejections: Rejections,
    pub(super) gaps: GapMaker,
    dead_letters: Arc<DeadLetters>,
    /// Where to go on so that the journal has room.
    pub(super) evict_to: watch::Receiver<Offset>,
    complaints: Complaints,
    /// Rows below are in the ledger already, though a sink that lost its data may get them again.
    pub(super) accounted: Offset,
}

/// The driver was asked to stop and has come to a point where it can.
pub(super) struct Stopping;

/// What is to be done with what comes next in the journal.
enum Next {
    Write(Batch),
    /// The journal has lost it.
    PassHole(Offset, Offset),
    /// It has to make room.
    Evict,
}

impl<S: Sink> Driver<S> {
    async fn run(mut self, limits: Limits, drain: Duration) {
        let mut stop = self.stop.clone();
        let status = Arc::clone(&self.status);
        let name = Arc::clone(&self.name);
        let deadline = async {
            // An error says that nobody is left to ask, which amounts to the same.
            let _ = stop.wait_for(|stop| *stop).await;
            sleep(drain).await;
        };
        tokio::select! {
            Err(Stopping) = self.deliver(limits) => {}
            () = deadline => warn!(sink = &*name, "stopped with a write under way; the next start repeats it"),
        }
        status.set(Condition::Stopped);
    }

    async fn deliver(&mut self, limits: Limits) -> Result<Infallible, Stopping> {
        let start = self.locate().await?;
        let mut gather =
            Gather::new(Arc::clone(&self.name), self.journal.reader(start), Batcher::new(limits));
        let mut watermark = self.journal.watermark();
        loop {
            match self.gather(&mut gather, &mut watermark).await? {
                Next::PassHole(from, to) => self.pass_hole(from, to, &mut gather).await?,
                Next::Evict => self.evict(&mut gather).await?,
                Next::Write(mut batch) => {
                    while batch.points() > 0 {
                        let settled = self.write(&batch).await?;
                        if settled.points == 0 {
                            // The rest is what has to make room.
                            break;
                        }
                        self.commit(&batch, &settled, &mut gather).await?;
                        batch.advance(settled.points);
                    }
                }
            }
        }
    }

    /// Where delivery begins: at the journal's cursor, or before it if the sink itself knows of less. A sink that is
    /// ahead, because the last life ended between its transaction and the cursor, gets the difference again, which
    /// changes nothing there but puts it in the ledger.
    async fn locate(&mut self) -> Result<Offset, Stopping> {
        let position = loop {
            match self.sink.position().await {
                Ok(position) => break position,
                Err(outcome) => {
                    self.note(&outcome);
                    self.delivery.handle_batch(1);
                    self.delivery.handle_outcome(Instant::now(), outcome);
                    let now = Instant::now();
                    let Step::Wait(until) = self.delivery.poll(now) else {
                        self.wait(now + JOURNAL_RETRY).await?;
                        continue;
                    };
                    self.wait(until).await?;
                }
            }
        };
        let floor = self.journal.with_state(|state| state.floor(&self.name));
        let start = match position {
            Position::Journal => self.accounted,
            Position::Own(own) => own.unwrap_or_default().min(self.accounted).max(floor),
        };
        if start < self.accounted {
            warn!(sink = &*self.name, from = %start, to = %self.accounted, "the store lacks what it had confirmed; it gets again what the journal still has of it");
        }
        Ok(start)
    }

    /// The next batch that has to leave, or what is to be done instead.
    async fn gather(
        &mut self,
        gather: &mut Gather,
        watermark: &mut watch::Receiver<Offset>,
    ) -> Result<Next, Stopping> {
        loop {
            if self.must_evict() {
                return Ok(Next::Evict);
            }
            watermark.mark_unchanged();
            let read = gather.advance(Instant::now());
            let now = Instant::now();
            if let Some((from, to)) = gather.hole() {
                return Ok(Next::PassHole(from, to));
            }
            if gather.is_due(now) || (self.is_stopping() && !gather.is_empty()) {
                return Ok(Next::Write(gather.take()));
            }
            let mut due = gather.poll_timeout();
            if let Err(error) = read {
                self.complain(&error.to_string());
                due = Some(now + JOURNAL_RETRY);
            }
            if self.is_stopping() {
                return Err(Stopping);
            }
            tokio::select! {
                changed = watermark.changed() => if changed.is_err() { return Err(Stopping) },
                _ = self.stop.changed() => {}
                _ = self.evict_to.changed() => {}
                () = at(due) => {}
            }
        }
    }

    /// Writes the batch's front until it is dealt with, or nothing of it has to be any more.
    async fn write(&mut self, batch: &Batch) -> Result<Settled, Stopping> {
        self.delivery.handle_batch(batch.points());
        let rows = self.rows(batch, batch.points(), &[]);
        let mut unconfirmed = false;
        loop {
            if self.must_evict() {
                return Ok(self.delivery.settle());
            }
            match self.delivery.poll(Instant::now()) {
                Step::Settle => return Ok(self.delivery.settle()),
                Step::Wait(until) => self.wait(until).await?,
                Step::Write(points) => {
                    let settled =
                        if self.delivery.is_clean() { batch.offset_of(points.end) } else { batch.from() };
                    self.status.set_unconfirmed(rows.clone());
                    let part = batch.part(points, settled);
                    let patience = patience(self.evict_to.clone(), self.accounted);
                    let outcome = tokio::select! {
                        outcome = self.sink.write(&part) => outcome,
                        () = patience => continue,
                    };
                    self.note(&outcome);
                    match outcome {
                        Outcome::Retry { unknown: false, .. } | Outcome::Hold { .. } => {}
                        _ => unconfirmed = true,
                    }
                    if !unconfirmed {
                        self.status.set_unconfirmed(Vec::new());
                    }
                    self.delivery.handle_outcome(Instant::now(), outcome);
                }
            }
        }
    }

    /// Makes the cursor behind the batch's front durable, after what was refused is among the dead letters.
    async fn commit(
        &mut self,
        batch: &Batch,
        settled: &Settled,
        gather: &mut Gather,
    ) -> Result<(), Stopping> {
        let next = batch.offset_of(settled.points);
        let letters = self.rejections.letters(Instant::now(), clock::now_ns(), batch, settled);
        let cause = if self.keep(&letters).await? { Cause::Rejected } else { Cause::Unkept };
        let gaps = Rejections::gaps(batch, settled, self.accounted, cause, &mut self.gaps);
        let confirmed = self.rows(batch, settled.points, &settled.rejected);
        let rows: u64 = confirmed.iter().map(|(_, rows)| rows).sum();
        let name = Arc::clone(&self.name);
        let submitted = self.submit(&gaps, |submission| submission.add_cursor(&name, next, &confirmed)).await;
        // A medium that fails to be read is complained about by the next gathering.
        let _ = gather.advance(Instant::now());
        if let Some(receipt) = submitted {
            self.durable(receipt).await;
        }
        self.accounted = self.accounted.max(next);
        self.status.settle(rows, gaps.iter().map(|gap| gap.count).sum());
        Ok(())
    }

    /// Makes letters durable, as long as it takes; false if the disk has no room for them.
    pub(super) async fn keep(&mut self, letters: &[Letter]) -> Result<bool, Stopping> {
        let began = Instant::now();
        loop {
            let Err(error) = letters::keep(&self.dead_letters, letters) else { return Ok(true) };
            if letters::has_no_room(&error) && began.elapsed() >= letters::PATIENCE {
                error!(sink = &*self.name, %error, "refused points are lost: there is no room to keep them");
                return Ok(false);
            }
            self.complain(&error.to_string());
            self.wait(Instant::now() + JOURNAL_RETRY).await?;
        }
    }

    /// Submits gaps and what goes with them, as long as it takes; none if the journal has failed.
    pub(super) async fn submit(
        &mut self,
        gaps: &[Gap],
        rest: impl Fn(&mut Submission<'_>) -> Result<(), Refused>,
    ) -> Option<Offset> {
        let mut room = self.journal.room();
        loop {
            room.mark_unchanged();
            let submitted = self.journal.submit(Class::Internal, |_, submission| {
                for gap in gaps {
                    submission.add(&gap.entry(&self.name))?;
                }
                rest(submission)
            });
            match submitted {
                Ok(((), receipt)) => return Some(receipt),
                Err(Refused::Failed) => return None,
                Err(refused) => {
                    self.complain(&format!("the cursor is refused: {refused}"));
                    let _ = tokio::time::timeout(JOURNAL_RETRY, room.changed()).await;
                }
            }
        }
    }

    /// Waits until the receipt is durable, or the journal has failed and nothing will be any more.
    pub(super) async fn durable(&self, receipt: Offset) {
        let mut watermark = self.journal.watermark();
        while self.journal.usage().state != journal::Condition::Failed {
            let reached = pin!(watermark.wait_for(|watermark| *watermark >= receipt));
            if tokio::time::timeout(JOURNAL_RETRY, reached).await.is_ok() {
                return;
            }
        }
    }

    /// Rows among the first `points` points that were not rejected and are not in the ledger yet, by device.
    fn rows(&self, batch: &Batch, points: usize, rejected: &[Rejected]) -> Vec<(Box<str>, u64)> {
        let mut rejected = rejected.iter().map(|rejected| rejected.point).peekable();
        let mut rows: HashMap<&str, u64> = HashMap::new();
        for (point, (offset, record)) in batch.records().take(points).enumerate() {
            if rejected.next_if_eq(&point).is_some() || offset < self.accounted {
                continue;
            }
            if let Record::Row(row) = record {
                *rows.entry(row.device).or_default() += 1;
            }
        }
        rows.into_iter().map(|(device, rows)| (device.into(), rows)).collect()
    }

    /// Waits, unless the driver is to stop: a sink that fails now is not waited for.
    pub(super) async fn wait(&mut self, until: Instant) -> Result<(), Stopping> {
        if self.is_stopping() {
            return Err(Stopping);
        }
        tokio::select! {
            () = at(Some(until)) => Ok(()),
            _ = self.evict_to.changed() => Ok(()),
            _ = self.stop.changed() => if self.is_stopping() { Err(Stopping) } else { Ok(()) },
        }
    }

    /// Whether the journal needs the room of what this sink has not got yet.
    fn must_evict(&self) -> bool {
        *self.evict_to.borrow() > self.accounted
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Tells status page and log of an outcome.
    fn note(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Confirmed => {
                self.status.set(Condition::Running);
                if self.complaints.end() {
                    info!(sink = &*self.name, "delivery goes on");
                }
            }
            Outcome::Retry { reason, .. } => {
                self.status.set_failed(Condition::Retrying, reason);
                self.complain(reason);
            }
            Outcome::Hold { reason } => {
                self.status.set_failed(Condition::Holding, reason);
                if self.complaints.begin(Instant::now(), reason) {
                    error!(
                        sink = &*self.name,
                        reason, "delivery is held until this is mended; nothing is dropped"
                    );
                }
            }
            Outcome::TooLarge { reason } | Outcome::Rejected { reason } => {
                self.status.set(Condition::Running);
                self.status.note(reason);
            }
        }
    }

    pub(super) fn complain(&mut self, reason: &str) {
        if self.complaints.begin(Instant::now(), reason) {
            warn!(sink = &*self.name, reason, "delivery is delayed; it is tried again");
        }
    }
}

/// What was logged last, so that a failure that repeats itself fills no disk.
#[derive(Default)]
struct Complaints {
    last: Option<(Instant, String)>,
}

impl Complaints {
    /// Whether to log this one: it is new, or the last time was long ago.
    fn begin(&mut self, now: Instant, reason: &str) -> bool {
        if let Some((at, last)) = &self.last
            && last == reason
            && now.duration_since(*at) < COMPLAINT_PAUSE
        {
            return false;
        }
        self.last = Some((now, reason.to_owned()));
        true
    }

    /// Whether there was anything to complain about.
    fn end(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// Completes when a write has had its time although the journal needs room; its outcome is then unknown.
async fn patience(mut evict_to: watch::Receiver<Offset>, accounted: Offset) {
    match evict_to.wait_for(|to| *to > accounted).await {
        Ok(_) => sleep(EVICT_GRACE).await,
        Err(_) => std::future::pending().await,
    }
}

/// Completes at `due`, or never.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
