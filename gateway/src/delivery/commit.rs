//! From the sink's answers into the journal: rows, gaps and the cursor behind them.
//!
//! Operation: what is settled is held in memory as one [`Progress`](super::progress::Progress) and submitted at once,
//! before the next batch is sent. Where it would become larger than a submission may be, it is submitted in slices, each
//! with the cursor just behind what it tells of. While the journal is tight, what is held is submitted only when its cursor
//! has passed the end of a segment, so that the write frees more than it takes; or when all was delivered for a while, the
//! journal has room again, or the driver stops. What has no points is passed where a segment ends in it.
//!
//! Failure: a cursor that the journal refuses is submitted again and again, and no batch is sent meanwhile: delivery goes
//! on once the journal takes it, has failed, or needs room of this sink, which then lets go of rows. Only a cursor that is
//! not due yet, in a tight journal, stays held while delivery goes on. A failed journal gets nothing any more; delivery
//! goes on without, and the next start delivers those points again.

use std::pin::pin;
use std::time::Instant;

use tokio::time::timeout;
use tracing::error;

use super::driver::{Driver, EVICT_GRACE, JOURNAL_RETRY, Stopping};
use super::gather::Gather;
use super::status::Condition;
use super::{Settled, letters};
use crate::clock;
use crate::dead_letters::Letter;
use crate::journal::entry::{Cause, RowEntry};
use crate::journal::{self, Class, Refused};
use crate::record::Offset;
use crate::sink::batch::Passed;
use crate::sink::{Batch, Sink};

/// What became of what is held.
pub(super) enum Submitted {
    /// It is durable once the watermark has reached this.
    Taken(Offset),
    /// There is nothing.
    Nothing,
    /// The journal takes nothing any more.
    Failed,
    /// It is still held: the journal has no room, and needs some of this sink.
    MustEvict,
}

/// What became of letters.
pub(super) enum Kept {
    Yes,
    /// They cannot be.
    No,
    /// Not so far, and the journal needs room.
    MustEvict,
}

/// What a row is counted as.
#[derive(Clone, Copy)]
enum RowFate {
    Confirmed,
    Lost(Cause),
    Unwanted,
}

impl<S: Sink> Driver<S> {
    /// Enters the front of a batch into the ledger, after what was refused is among the dead letters; how many points of
    /// it, and whether that is all of it. It is not if the rest has to make room.
    pub(super) async fn commit(
        &mut self,
        batch: &Batch,
        mut settled: Settled,
        gather: &mut Gather,
    ) -> Result<(usize, bool), Stopping> {
        let letters = self.rejections.letters(Instant::now(), clock::now_ns(), batch, &settled);
        let (mut cause, mut whole) = (Cause::Rejected, true);
        match self.keep(&letters).await? {
            Kept::Yes => {}
            Kept::No => cause = Cause::Unkept,
            Kept::MustEvict => {
                settled = settled.before_refused();
                whole = false;
            }
        }
        let entered = self.enter(batch, &settled, cause).await;
        let submitted = if self.is_due() { self.submit_held(false).await } else { Submitted::Nothing };
        // A medium that fails to be read is complained about by the next gathering.
        let _ = gather.advance(Instant::now());
        if let Submitted::Taken(receipt) = submitted {
            self.durable(receipt).await;
        }
        Ok((entered.unwrap_or_else(|points| points), whole && entered.is_ok()))
    }

    /// Counts the front of a batch, row by row; how many points that was, as an error if the rest has to make room.
    async fn enter(&mut self, batch: &Batch, settled: &Settled, cause: Cause) -> Result<usize, usize> {
        let mut refused = settled.rejected.iter().map(|rejected| rejected.point).peekable();
        let (mut confirmed, mut rejected, mut entered) = (0, 0, 0);
        let end = batch.offset_of(settled.points);
        for (offset, passed) in batch.passed().take_while(|(offset, _)| *offset < end) {
            let (row, fate) = match passed {
                Passed::Unwanted(row) => (Some(row), RowFate::Unwanted),
                Passed::Point(record) => {
                    let fate = match refused.next_if_eq(&entered) {
                        Some(_) => RowFate::Lost(cause),
                        None => RowFate::Confirmed,
                    };
                    (record.row(), fate)
                }
            };
            // What is below is in the ledger already. A refused gap makes none: it would be refused as well.
            if offset >= self.accounted
                && let Some(row) = row
            {
                if !self.enter_row(&row, fate).await {
                    self.status.settle(confirmed, rejected);
                    return Err(entered);
                }
                confirmed += u64::from(matches!(fate, RowFate::Confirmed));
                rejected += u64::from(matches!(fate, RowFate::Lost(_)));
            }
            entered += usize::from(matches!(passed, Passed::Point(_)));
            self.pass(offset.plus(1));
        }
        self.pass(end);
        self.status.settle(confirmed, rejected);
        Ok(entered)
    }

    /// Counts a row; false if the journal needs room before that.
    async fn enter_row(&mut self, row: &RowEntry<'_>, fate: RowFate) -> bool {
        loop {
            let fits = match fate {
                RowFate::Confirmed => self.held.confirm(row),
                RowFate::Lost(cause) => self.held.lose(cause, row, None, &mut self.gaps),
                RowFate::Unwanted => self.held.pass_over(row),
            };
            if fits {
                return true;
            }
            if let Submitted::MustEvict = self.submit_held(false).await {
                return false;
            }
        }
    }

    /// Everything below `to` is dealt with.
    fn pass(&mut self, to: Offset) {
        if to > self.accounted {
            self.accounted = to;
            self.held.pass(to);
        }
    }

    /// Passes what has no rows, like letters and cursors, when a segment ends in it: nothing else would ever free that.
    /// Within a segment it does not, or each cursor would be what the next one passes.
    pub(super) fn pass_without_rows(&mut self, gather: &Gather) {
        let segment_end = self.journal.segment_end(self.accounted);
        if let Some(to) = gather.without_rows()
            && segment_end.is_some_and(|end| end <= to)
        {
            self.pass(to);
        }
    }

    /// Makes letters durable, unless that fails for too long or the journal needs room.
    pub(super) async fn keep(&mut self, letters: &[Letter]) -> Result<Kept, Stopping> {
        let mut failing: Option<Instant> = None;
        loop {
            let Err(error) = letters::keep(&self.dead_letters, letters) else {
                if failing.is_some() {
                    self.status.set(Condition::Running);
                }
                return Ok(Kept::Yes);
            };
            let waited = failing.get_or_insert_with(Instant::now).elapsed();
            self.status.hold(&error.to_string());
            if self.must_evict() && waited >= EVICT_GRACE {
                return Ok(Kept::MustEvict);
            }
            if waited >= letters::PATIENCE {
                error!(sink = &*self.name, %error, letters = letters.len(), "dead letters cannot be kept, and are lost");
                self.status.set(Condition::Running);
                return Ok(Kept::No);
            }
            self.complain(&error.to_string());
            self.wait(Instant::now() + JOURNAL_RETRY.min(letters::PATIENCE)).await?;
        }
    }

    /// Whether what is held has to be journaled now. While the journal is tight that waits for a segment that it frees.
    pub(super) fn is_due(&self) -> bool {
        let Some(to) = self.held.to() else { return !self.held.is_empty() };
        let evict_to = *self.evict_to.borrow();
        let frees = |end: Offset| self.journaled < end && end <= to;
        frees(evict_to)
            || !self.journal.is_tight()
            || self.journal.segment_end(self.journaled).is_some_and(frees)
    }

    /// Journals what is held, and waits until it is durable.
    pub(super) async fn journal_held(&mut self) {
        if let Submitted::Taken(receipt) = self.submit_held(false).await {
            self.durable(receipt).await;
        }
    }

    /// Submits what is held, as long as it takes; if it is not patient, until the journal needs room of this sink.
    pub(super) async fn submit_held(&mut self, patient: bool) -> Submitted {
        let mut room = self.journal.room();
        loop {
            room.mark_unchanged();
            let refused = match self.try_submit_held() {
                Ok(Some(receipt)) => return Submitted::Taken(receipt),
                Ok(None) => return Submitted::Nothing,
                Err(Refused::Failed) => return Submitted::Failed,
                Err(refused) => refused,
            };
            self.complain(&format!("the cursor is refused: {refused}"));
            if !patient && self.must_evict() {
                return Submitted::MustEvict;
            }
            tokio::select! {
                _ = timeout(JOURNAL_RETRY, room.changed()) => {}
                _ = self.evict_to.changed(), if !patient => {}
            }
        }
    }

    /// Submits what is held, once.
    pub(super) fn try_submit_held(&mut self) -> Result<Option<Offset>, Refused> {
        if self.held.is_empty() {
            return Ok(None);
        }
        let held = &self.held;
        let submitted = match self.detached {
            true => Err(Refused::Failed),
            false => self.journal.submit(Class::Internal, |_, submission| held.submit(submission)),
        };
        match submitted {
            Ok(((), receipt)) => {
                self.journaled = self.held.to().unwrap_or(self.journaled);
                self.held.clear();
                Ok(Some(receipt))
            }
            // Slices are small, so only the snapshot of a state can be too large for a further segment. A cursor that
            // came behind what was not counted would make the ledger wrong, so there must be none in this life.
            Err(refused @ Refused::TooLarge { .. }) => {
                error!(sink = &*self.name, %refused, "the journal takes no cursors any more; raise [journal] max_bytes and restart; until then delivery goes on without");
                self.detached = true;
                self.held.clear();
                Err(Refused::Failed)
            }
            Err(refused) => {
                if refused == Refused::Failed {
                    self.held.clear();
                }
                Err(refused)
            }
        }
    }

    /// Waits until the receipt is durable, or the journal has failed and nothing will be any more.
    pub(super) async fn durable(&self, receipt: Offset) {
        let mut watermark = self.journal.watermark();
        while self.journal.usage().state != journal::Condition::Failed {
            let reached = pin!(watermark.wait_for(|watermark| *watermark >= receipt));
            if timeout(JOURNAL_RETRY, reached).await.is_ok() {
                return;
            }
        }
    }

    /// Whether the journal takes nothing of this sink any more.
    pub(super) fn has_failed(&self) -> bool {
        self.detached || self.journal.usage().state == journal::Condition::Failed
    }
}
