//! Fresh rows before the backlog, for a sink with `live_first`.
//!
//! * In: committed frames from the journal's end, while the sink is far behind it.
//! * Out: every other batch; what the sink has of it, by offset.
//!
//! *Constraints.* The cursor stays one number, and the ledger counts a row when the cursor passes it: nothing is journaled
//! for rows that went ahead. Neither side starves: fresh rows and the backlog take turns, one batch each.
//!
//! *Operation.* Once the backlog is more than a few batches, a second reader begins a batch before the journal's end. What
//! it has read leaves when it is a batch or has waited a little, and costs at most [`REQUESTS_MAX`] requests; what the sink has
//! confirmed is remembered as ranges of offsets. When the cursor comes to them, their points are not sent again. A point
//! that was refused is left to the cursor, which deals with refusals. If more rows come than its turns take, the second
//! reader goes on a batch before the journal's end, and what it leaves out is backlog. Where the backlog cannot be read on,
//! nothing goes ahead of it.
//!
//! *Failure.* The ranges are in memory, and few: what is forgotten, by a kill too, is sent once more, which changes nothing
//! in a store where equal points overwrite. A sink that fails is waited for as ever, and the backlog has the next turn. What
//! went ahead and is then damaged in the journal is declared lost, although the sink has it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Step;
use super::batcher::{Batcher, Limits};
use super::driver::{Driver, Stopping};
use super::gather::Gather;
use crate::journal::Journal;
use crate::record::Offset;
use crate::sink::batch::Audience;
use crate::sink::{Batch, Outcome, Sink};

/// Requests that a batch ahead of its turn may cost; what is not dealt with then has time.
const REQUESTS_MAX: u32 = 8;
/// The backlog that makes fresh rows go first, in batches.
const BATCHES_BEHIND: u64 = 2;
/// How far fresh rows may be behind themselves before some of them become backlog, in batches.
const BATCHES_LATE: u64 = 8;
/// How long fresh rows may wait for others: the backlog's turns make them wait enough.
const LINGER_MAX: Duration = Duration::from_millis(250);
/// Most ranges that are remembered.
const RANGES_MAX: usize = 64;
/// Journal bytes of a batch, at least, where a pace makes batches smaller.
const BATCH_BYTES_LEAST: u64 = 16 << 10;

/// What goes ahead to one sink.
#[derive(Default)]
pub(super) struct Ahead {
    fresh: Option<Gather>,
    /// What the sink has above the cursor.
    pub(super) stored: Stored,
    /// The backlog has the next turn.
    yields: bool,
    /// Something was sent since the second reader began, or began anew: it does not begin anew before that.
    has_sent: bool,
}

/// Offsets above the cursor whose points a sink has.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Half-open, ascending, none touching another.
    ranges: VecDeque<Range<u64>>,
}

/// Limits of batches that take turns at a pace: one of the backlog must not use up more than a second of it, as far as
/// that can be told from the journal's bytes, which are more than those of a request.
pub(super) fn limits_at_pace(limits: Limits, bytes_per_second_max: Option<u64>) -> Limits {
    let Some(pace) = bytes_per_second_max else { return limits };
    let bytes = usize::try_from(pace.max(BATCH_BYTES_LEAST)).unwrap_or(usize::MAX);
    Limits { bytes: limits.bytes.min(bytes), ..limits }
}

impl Ahead {
    /// The batch that goes before the backlog now, if any does.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        journal: &Journal,
        audience: &Arc<Audience>,
        limits: Limits,
        backlog: &Gather,
    ) -> Option<Batch> {
        if !backlog.is_full() {
            return None;
        }
        let end = *journal.watermark().borrow();
        let batch = (backlog.to().0 - backlog.from().0).max(1);
        let batches = |from: Offset| end.0.saturating_sub(from.0) / batch;
        let from = Offset(end.0.saturating_sub(batch)).max(backlog.to());
        match &mut self.fresh {
            None if batches(backlog.to()) >= BATCHES_BEHIND => {
                let limits = Limits { linger: limits.linger.min(LINGER_MAX), ..limits };
                let (audience, batcher) = (Arc::clone(audience), Batcher::new(limits));
                self.fresh = Some(Gather::new(audience, journal.reader(from), batcher));
                self.has_sent = false;
            }
            Some(fresh) if fresh.from() <= backlog.to() => self.fresh = None,
            Some(fresh) if self.has_sent && batches(fresh.to()) >= BATCHES_LATE => {
                fresh.restart(journal.reader(from));
                self.has_sent = false;
            }
            _ => {}
        }
        let fresh = self.fresh.as_mut()?;
        if fresh.advance(now).is_err() || fresh.hole().is_some() {
            // The backlog's turn says what is wrong with the journal.
            self.fresh = None;
            return None;
        }
        let is_due = !std::mem::take(&mut self.yields) && fresh.is_due(now);
        self.yields = is_due;
        self.has_sent |= is_due;
        is_due.then(|| fresh.take())
    }

    /// The batch that was taken last did not get through; it comes again in its turn.
    fn put_back(&mut self, journal: &Journal, batch: &Batch) {
        if let Some(fresh) = &mut self.fresh {
            fresh.restart(journal.reader(batch.from()));
        }
    }
}

impl Stored {
    /// None, as for every sink whose rows go in order.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the sink has what stands at an offset.
    pub(super) fn has(&self, offset: Offset) -> bool {
        let behind = self.ranges.partition_point(|range| range.end <= offset.0);
        self.ranges.get(behind).is_some_and(|range| range.start <= offset.0)
    }

    /// The cursor has come to an offset.
    pub(super) fn pass(&mut self, to: Offset) {
        while let Some(first) = self.ranges.front_mut() {
            if first.end > to.0 {
                first.start = first.start.max(to.0);
                return;
            }
            self.ranges.pop_front();
        }
    }

    /// The sink has everything from one offset to another. Of too many ranges the shortest is forgotten.
    fn add(&mut self, from: Offset, to: Offset) {
        if from >= to {
            return;
        }
        let first = self.ranges.partition_point(|range| range.end < from.0);
        let last = self.ranges.partition_point(|range| range.start <= to.0);
        let mut joined = from.0..to.0;
        for range in self.ranges.drain(first..last) {
            joined = joined.start.min(range.start)..joined.end.max(range.end);
        }
        self.ranges.insert(first, joined);
        if self.ranges.len() > RANGES_MAX {
            let shortest = (0..self.ranges.len()).min_by_key(|at| {
                let range = &self.ranges[*at];
                range.end - range.start
            });
            shortest.and_then(|shortest| self.ranges.remove(shortest));
        }
    }
}

impl<S: Sink> Driver<S> {
    /// Sends a batch ahead of its turn, and remembers what of it the sink has.
    pub(super) async fn deliver_ahead(&mut self, batch: &Batch) -> Result<(), Stopping> {
        let mut delivery = self.delivery.beside();
        delivery.handle_batch(batch.points(), self.lanes_of(batch));
        for _ in 0..REQUESTS_MAX {
            let now = Instant::now();
            let Step::Write(points) = delivery.poll(now) else { break };
            if self.pace.is_early(now) {
                self.wait_at_pace().await?;
            }
            // A sink with a cursor of its own stays where it is.
            let part = batch.part(&points, self.served.min(self.accounted));
            let Some(outcome) = self.send(&part).await else { break };
            self.note(&outcome);
            if let Outcome::Retry { .. } | Outcome::Hold { .. } = outcome {
                // It is the sink that fails, whatever it is sent.
                self.delivery.handle_outcome(Instant::now(), outcome, &[]);
                self.ahead.put_back(&self.journal, batch);
                break;
            }
            let suspects = self.suspects(&outcome, &part, &points);
            delivery.handle_outcome(Instant::now(), outcome, &suspects);
        }
        for points in delivery.confirmed() {
            let from = if points.start == 0 { batch.from() } else { batch.offset_of(points.start) };
            self.ahead.stored.add(from, batch.offset_of(points.end));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_what_was_added_and_not_passed(
            steps in prop::collection::vec((0..200_u64, 0..20_u64, prop::bool::weighted(0.1)), 0..40),
        ) {
            let (mut stored, mut model) = (Stored::default(), BTreeSet::new());
            for (from, length, passes) in steps {
                if passes {
                    stored.pass(Offset(from));
                    model = model.split_off(&from);
                } else {
                    stored.add(Offset(from), Offset(from + length));
                    model.extend(from..from + length);
                }
                for offset in 0..230 {
                    prop_assert_eq!(stored.has(Offset(offset)), model.contains(&offset), "{}: {:?}", offset, stored);
                }
            }
        }
    }

    #[test]
    fn of_too_many_ranges_the_shortest_is_forgotten() {
        let mut stored = Stored::default();
        for n in 0..=RANGES_MAX as u64 {
            let length = if n == 7 { 1 } else { 5 };
            stored.add(Offset(n * 10), Offset(n * 10 + length));
        }
        assert_eq!(stored.ranges.len(), RANGES_MAX);
        assert!(!stored.has(Offset(70)) && stored.has(Offset(60)) && stored.has(Offset(644)));
    }
}
