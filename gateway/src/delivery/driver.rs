//! Runs delivery to one sink on a thread of its own.
//!
//! * In: the journal's watermark, which says that there is something to read.
//! * Out: writes to the sink, cursor and gaps to the journal, state to [`SinkStatus`].
//! * Next: `sink/` (a file per write path).
//!
//! The loop is gather, write, commit (`commit.rs`); where the journal has a hole, or has to make room, something is
//! skipped instead (`skip.rs`). Where it begins, `position.rs` says. While a batch or its cursor is on its way, the next
//! batch is gathered already, but sent only once that cursor is durable.
//!
//! No wait is so long that it keeps the journal from making room: whatever the driver waits for, it goes on as soon as it
//! has to let go of its oldest rows. A write that is under way then is abandoned after [`EVICT_GRACE`], and its rows are
//! evicted although the database may store them.
//!
//! Asked to stop, the driver delivers what is committed without lingering, until it has caught up, a write fails, or
//! the time for draining is over; a write that is under way then is abandoned, and repeated by the next start.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::ahead::{self, Ahead};
use super::backoff::Backoff;
use super::batcher::{Batcher, Limits};
use super::complaints::Complaints;
use super::gaps::GapMaker;
use super::gather::{BATCH_BYTES_MAX, Gather};
use super::horizon::Reached;
use super::lanes::Lanes;
use super::losses::Holes;
use super::pace::Pace;
use super::progress::Progress;
use super::rejection::Rejections;
use super::status::{Condition, SinkStatus};
use super::waits::{at, patience};
use super::{Delivery, Settled, Step};
use crate::config::Service;
use crate::dead_letters::DeadLetters;
use crate::journal::{Journal, Refused};
use crate::record::Offset;
use crate::sink::batch::{Audience, Record};
use crate::sink::{Batch, Outcome, Part, Sink};

/// Pause before the journal is asked again after it refused a cursor or failed to be read.
pub(super) const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// How long a write that is under way may take when the journal needs room.
pub(super) const EVICT_GRACE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 2_000 });
/// How long a batch that waits for more points is left alone: there may be a thousand commits a second.
const NAP: Duration = Duration::from_millis(5);
/// How long a sink has to have everything before that is journaled although the journal is tight.
const CAUGHT_UP: Duration = Duration::from_secs(1);

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
    /// Where it begins when it is new, what it gets, at what pace, and whether intake waits for it.
    pub service: Service,
    /// Configured tags, which the point of a gap carries besides `device` and `cause`.
    pub gap_tags: Vec<(String, String)>,
    /// Where it is told how far the sink is, if an ack waits for it.
    pub horizon: Option<Reached>,
    /// Seed of the backoff's jitter.
    pub seed: u64,
}

/// Delivery to a sink cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The journal does not take the sink's registration.
    #[error("cannot register the sink")]
    Journal(#[from] Refused),
    /// No thread or no event loop.
    #[error("cannot start the thread of the sink")]
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
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name(format!("sink-{}", settings.name));
    let mut limits =
        Limits { points: settings.batch_points, bytes: BATCH_BYTES_MAX, linger: settings.linger };
    if settings.service.live_first {
        limits = ahead::limits_at_pace(limits, settings.service.bytes_per_second_max);
    }
    let drain = settings.drain;
    let driver = Driver::new(journal, sink, settings, status, stop)?;
    Ok(thread.spawn(move || {
        runtime.block_on(driver.run(limits, drain));
        // A name lookup that hangs must not keep the process from ending.
        runtime.shutdown_background();
    })?)
}

pub(super) struct Driver<S> {
    pub(super) name: Arc<str>,
    pub(super) audience: Arc<Audience>,
    pub(super) journal: Journal,
    pub(super) sink: S,
    pub(super) status: Arc<SinkStatus>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) delivery: Delivery,
    /// What goes before the backlog; none if everything goes in order.
    live_first: bool,
    pub(super) ahead: Ahead,
    lanes: Lanes,
    pub(super) pace: Pace,
    pub(super) rejections: Rejections,
    pub(super) gaps: GapMaker,
    pub(super) dead_letters: Arc<DeadLetters>,
    /// Where to go on so that the journal has room.
    pub(super) evict_to: watch::Receiver<Offset>,
    pub(super) complaints: Complaints,
    /// What the journal does not have yet of what is settled.
    pub(super) held: Progress,
    /// Rows below are in the ledger, or held for it, though a sink that lost its data may get them again.
    pub(super) accounted: Offset,
    /// The sink was given everything below in this life, or needs it no more.
    pub(super) served: Offset,
    /// Rows below are in the ledger.
    pub(super) journaled: Offset,
    /// Whether the journal is not told of anything any more, although it works.
    pub(super) detached: bool,
    /// Holes in the journal that are declared, and not passed yet.
    pub(super) holes: Holes,
    pub(super) has_told_of_lack: bool,
    /// Where the journal ended when this life began.
    pub(super) recovered: Offset,
    /// From which offset on the sink's own counts can be compared with the ledger's, once in this life; none if they were, or
    /// there are none.
    pub(super) comparable_from: Option<Offset>,
    horizon: Option<Reached>,
}

/// The driver was asked to stop and has come to a point where it can.
pub(super) struct Stopping;

/// What is to be done with what comes next in the journal.
enum Next {
    Write(Batch),
    /// Fresh rows, before the backlog.
    WriteAhead(Batch),
    /// The journal has lost it.
    PassHole(Offset, Offset),
    /// It has to make room.
    Evict,
}

impl<S: Sink> Driver<S> {
    /// Registers the sink.
    pub(super) fn new(
        journal: Journal,
        sink: S,
        settings: Settings,
        status: Arc<SinkStatus>,
        stop: watch::Receiver<bool>,
    ) -> Result<Driver<S>, Refused> {
        let Service { start, required, live_first, filter, bytes_per_second_max } = settings.service;
        let cursor = journal.register_sink_from(&settings.name, start)?;
        let name: Arc<str> = settings.name.into();
        let evict_to = if required { journal.evict_to() } else { journal.evict_optional_to(&name) };
        Ok(Driver {
            audience: Arc::new(Audience { name: Arc::clone(&name), filter }),
            rejections: Rejections::new(Arc::clone(&name), journal.id()),
            gaps: GapMaker::new(settings.gap_tags),
            dead_letters: settings.dead_letters,
            evict_to,
            delivery: Delivery::new(Backoff::new(settings.seed)),
            live_first,
            ahead: Ahead::default(),
            lanes: Lanes::default(),
            pace: Pace::new(bytes_per_second_max),
            complaints: Complaints::default(),
            held: Progress::new(&name, journal.usage().submission_bytes_max),
            accounted: cursor,
            served: Offset(0),
            journaled: cursor,
            detached: false,
            holes: Holes::default(),
            has_told_of_lack: false,
            recovered: *journal.watermark().borrow(),
            comparable_from: None,
            horizon: settings.horizon,
            name,
            journal,
            sink,
            status,
            stop,
        })
    }

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
        if let Err(refused) = self.try_submit_held() {
            warn!(sink = &*self.name, %refused, "stopped with a cursor that is not in the journal; the next start repeats what it tells of");
        }
        status.set(Condition::Stopped);
    }

    async fn deliver(&mut self, limits: Limits) -> Result<Infallible, Stopping> {
        let start = self.locate().await?;
        self.served = start;
        let mut gather =
            Gather::new(Arc::clone(&self.audience), self.journal.reader(start), Batcher::new(limits));
        let mut watermark = self.journal.watermark();
        loop {
            self.ahead.stored.pass(self.accounted);
            match self.gather(&mut gather, limits, &mut watermark).await? {
                Next::PassHole(from, to) => {
                    self.declare_damage(from, to).await?;
                    gather.restart(self.journal.reader(to));
                }
                Next::Evict => {
                    self.evict().await?;
                    gather.restart(self.journal.reader(self.accounted));
                }
                Next::Write(batch) => self.deliver_batch(batch, &mut gather).await?,
                Next::WriteAhead(batch) => self.deliver_ahead(&batch).await?,
            }
        }
    }

    /// Delivers a batch to its end, unless the rest of it has to make room.
    async fn deliver_batch(&mut self, mut batch: Batch, gather: &mut Gather) -> Result<(), Stopping> {
        self.tell_of_lack(&batch);
        batch.finish_preparing();
        self.delivery.handle_batch(batch.points(), self.lanes_of(&batch));
        while batch.rows() > 0 {
            let (settled, is_interrupted) = self.write(&batch, gather).await?;
            let (points, whole) = self.commit(&batch, settled, gather).await?;
            batch.advance(points);
            self.served = batch.from();
            self.delivery.handle_commit(points);
            if is_interrupted || !whole {
                gather.restart(self.journal.reader(batch.from()));
                break;
            }
        }
        Ok(())
    }

    /// The next batch that has to leave, or what is to be done instead.
    async fn gather(
        &mut self,
        gather: &mut Gather,
        limits: Limits,
        watermark: &mut watch::Receiver<Offset>,
    ) -> Result<Next, Stopping> {
        let mut caught_up = None;
        loop {
            if self.must_evict() {
                return Ok(Next::Evict);
            }
            while let Some(replay) = self.status.desk().take() {
                self.replay(replay).await;
            }
            watermark.mark_unchanged();
            let read = gather.advance(Instant::now());
            self.pass_without_rows(gather);
            if let Some(horizon) = &self.horizon
                && !self.has_failed()
            {
                horizon.reach(gather.without_rows().unwrap_or(self.accounted));
            }
            if self.is_due() {
                self.journal_held().await;
                continue;
            }
            self.declare_lack(gather).await?;
            let now = Instant::now();
            if let Some((from, to)) = gather.hole() {
                return Ok(Next::PassHole(from, to));
            }
            if self.live_first && gather.is_full() && self.pace.is_early(now) {
                // What goes ahead is chosen when it can leave, or it would not be the latest any more.
                self.wait_at_pace().await?;
                continue;
            }
            if self.live_first
                && let Some(batch) = self.ahead.poll(now, &self.journal, &self.audience, limits, gather)
            {
                return Ok(Next::WriteAhead(batch));
            }
            if gather.is_due(now) || (self.is_stopping() && !gather.is_empty()) {
                return Ok(Next::Write(gather.take()));
            }
            let mut due = gather.poll_timeout();
            if read.is_ok() && gather.is_empty() && !self.held.is_empty() {
                // All is delivered. If that was so for a while, a cursor costs no more than it is worth.
                let since = *caught_up.get_or_insert(now);
                if self.is_stopping() || now >= since + CAUGHT_UP {
                    self.journal_held().await;
                    continue;
                }
                due = Some(since + CAUGHT_UP);
            }
            if let Err(error) = read {
                self.complain(&error.to_string());
                due = Some(now + JOURNAL_RETRY);
            }
            if self.is_stopping() {
                return Err(Stopping);
            }
            let nap = (!gather.is_empty()).then_some(now + NAP);
            tokio::select! {
                changed = news(watermark, nap) => if changed.is_err() { return Err(Stopping) },
                _ = self.stop.changed() => {}
                _ = self.evict_to.changed() => {}
                () = self.status.desk().asked() => {}
                () = at(due) => {}
            }
        }
    }

    /// Writes the batch's front until it is dealt with, or nothing of it has to be any more; whether that was the reason.
    async fn write(&mut self, batch: &Batch, gather: &mut Gather) -> Result<(Settled, bool), Stopping> {
        let rows = self.rows(batch);
        let mut unconfirmed = false;
        loop {
            if self.must_evict() {
                return Ok((self.delivery.settle(), true));
            }
            let now = Instant::now();
            match self.delivery.poll(now) {
                Step::Settle => return Ok((self.delivery.settle(), false)),
                Step::Wait(_) if self.is_due() => self.journal_held().await,
                Step::Wait(until) => self.wait_for_sink(until).await?,
                Step::Write(_) if self.pace.is_early(now) => self.wait_at_pace().await?,
                Step::Write(points) => {
                    let settled = match self.delivery.is_clean() {
                        true => batch.offset_of(self.delivery.first_open_without(&points)),
                        false => batch.from(),
                    };
                    self.status.set_unconfirmed(rows.clone());
                    let part = batch.part(&points, settled);
                    let dialect = self.sink.dialect();
                    let outcome = tokio::select! {
                        biased;
                        outcome = self.send(&part) => outcome,
                        never = gather.advance_beside(dialect) => match never {},
                    };
                    let Some(outcome) = outcome else { continue };
                    self.note(&outcome);
                    match outcome {
                        Outcome::Retry { unknown: false, .. } | Outcome::Hold { .. } => {}
                        _ => unconfirmed = true,
                    }
                    if !unconfirmed {
                        self.status.set_unconfirmed(Vec::new());
                    }
                    let suspects = self.suspects(&outcome, &part, &points);
                    self.delivery.handle_outcome(Instant::now(), outcome, &suspects);
                }
            }
        }
    }

    /// The lanes of a batch, without what the sink has already.
    pub(super) fn lanes_of(&self, batch: &Batch) -> Vec<Vec<usize>> {
        let points = batch.records().map(|(_, record)| record.point());
        let mut lanes = self.lanes.of(batch.points(), points);
        let stored = &self.ahead.stored;
        if !stored.is_empty() {
            let has: Vec<bool> =
                batch.records().map(|(offset, record)| stored.has(offset, record.device())).collect();
            lanes.iter_mut().for_each(|lane| lane.retain(|point| !has[*point]));
        }
        lanes
    }

    /// Learns from an answer what the sink refuses, and which of these points it accuses.
    pub(super) fn suspects(&mut self, outcome: &Outcome, part: &Part<'_>, points: &[usize]) -> Vec<usize> {
        match outcome {
            Outcome::Rejected { reason } => {
                self.lanes.accuse(reason, part).into_iter().map(|at| points[at]).collect()
            }
            Outcome::Confirmed => {
                self.lanes.acquit(part);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Writes a part; none if the journal needs room, and it took too long for that.
    pub(super) async fn send(&mut self, part: &Part<'_>) -> Option<Outcome> {
        let before = self.sink.sent_bytes();
        let patience = patience(self.evict_to.clone(), self.accounted);
        let outcome = tokio::select! {
            outcome = self.sink.write(part) => Some(outcome),
            () = patience => None,
        };
        let bytes = self.sink.sent_bytes().saturating_sub(before);
        self.pace.handle_sent(Instant::now(), bytes);
        self.status.count_request(bytes);
        outcome
    }

    /// Rows of a batch that are not in the ledger yet, by device.
    fn rows(&self, batch: &Batch) -> Vec<(Box<str>, u64)> {
        let mut rows: HashMap<&str, u64> = HashMap::new();
        for (offset, record) in batch.records() {
            if let Record::Row(row) = record
                && offset >= self.accounted
            {
                *rows.entry(row.device).or_default() += 1;
            }
        }
        rows.into_iter().map(|(device, rows)| (device.into(), rows)).collect()
    }
}

/// Completes once there is more to read, and not before the end of the nap.
async fn news(
    watermark: &mut watch::Receiver<Offset>,
    nap: Option<Instant>,
) -> Result<(), watch::error::RecvError> {
    if let Some(nap) = nap {
        tokio::time::sleep_until(nap.into()).await;
    }
    watermark.changed().await
}
