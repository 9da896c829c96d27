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
//! confirmed is remembered as stretches of offsets (`stored.rs`). When the cursor comes to them, their points are not sent
//! again. A point that was refused is left to the cursor, which deals with refusals. Where the backlog cannot be read on,
//! nothing goes ahead of it.
//!
//! *Fairness.* If more rows come than the turns take, the devices that flood are left out, one after the other, until the
//! rest fits (`heavy.rs`): their rows are backlog, and a stretch remembers whose rows it lacks. So a calm device's rows wait
//! for one turn of the backlog at most, while no more than 16 devices flood, and no more than [`ENTRIES_LATE`] entries, or
//! eight batches, come between two turns. If more come, or nobody else has fresh rows, or nobody stands out, the second
//! reader goes on a batch before the journal's end, and what lies before that is backlog.
//!
//! *Failure.* The stretches are in memory, and few: what is forgotten, by a kill too, is sent once more, which changes nothing
//! in a store where equal points overwrite. A sink that fails is waited for as ever, and the backlog has the next turn. What
//! went ahead and is then damaged in the journal is declared lost, although the sink has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Step;
use super::batcher::{Batcher, Limits};
use super::driver::{Driver, Stopping};
use super::gather::Gather;
use super::heavy::Heavy;
use super::stored::Stored;
use crate::journal::Journal;
use crate::record::Offset;
use crate::sink::batch::Audience;
use crate::sink::selection::LeftOut;
use crate::sink::{Batch, Outcome, Sink};

/// Requests that a batch ahead of its turn may cost; what is not dealt with then has time.
const REQUESTS_MAX: u32 = 8;
/// The backlog that makes fresh rows go first, in batches.
const BATCHES_BEHIND: u64 = 2;
/// How far fresh rows may be behind themselves before some of them become backlog, in batches.
const BATCHES_LATE: u64 = 8;
/// How many entries are gone through in a turn, or eight batches, to find those of calm devices among those of others.
const ENTRIES_LATE: u64 = 1 << 16;
/// Which part of a batch may wait behind a full one before somebody is left out: there are other entries than rows.
const SLACK: u64 = 8;
/// How long fresh rows may wait for others: the backlog's turns make them wait enough.
const LINGER_MAX: Duration = Duration::from_millis(250);
/// Journal bytes of a batch, at least, where a pace makes batches smaller.
const BATCH_BYTES_LEAST: u64 = 16 << 10;

/// What goes ahead to one sink.
#[derive(Default)]
pub(super) struct Ahead {
    fresh: Option<Gather>,
    /// What the sink has above the cursor.
    pub(super) stored: Stored,
    heavy: Heavy,
    /// Nobody is left out of the batch under way, since nobody else had fresh rows.
    takes_all: bool,
    /// The backlog has the next turn.
    yields: bool,
    /// Something was sent since the second reader began, or began anew: it does not begin anew before that.
    has_sent: bool,
    /// More came before anything was sent than is gone through: what there is now does not wait for more.
    hurries: bool,
}

/// Where the journal ends, and how many entries of it a batch of the backlog has.
#[derive(Clone, Copy)]
struct Lag {
    end: Offset,
    batch: u64,
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
        let lag =
            Lag { end: *journal.watermark().borrow(), batch: (backlog.to().0 - backlog.from().0).max(1) };
        self.begin(journal, audience, limits, backlog, lag);
        if self.read(now, journal, lag).is_none() {
            // The backlog's turn says what is wrong with the journal.
            self.fresh = None;
            return None;
        }
        let fresh = self.fresh.as_ref()?;
        let is_due = fresh.is_due(now) || (self.takes_all || self.hurries) && !fresh.is_empty();
        let is_due = is_due && !std::mem::take(&mut self.yields);
        self.yields = is_due;
        self.has_sent |= is_due;
        self.hurries &= !is_due;
        if is_due { self.take(now, limits) } else { None }
    }

    /// Begins, or ends where the backlog has come to what is fresh.
    fn begin(
        &mut self,
        journal: &Journal,
        audience: &Arc<Audience>,
        limits: Limits,
        backlog: &Gather,
        lag: Lag,
    ) {
        match &self.fresh {
            None if lag.batches(backlog.to()) >= BATCHES_BEHIND => {
                let batcher = Batcher::new(Limits { linger: limits.linger.min(LINGER_MAX), ..limits });
                let reader = journal.reader(lag.batch_before_end().max(backlog.to()));
                let left_out = self.heavy.left_out();
                self.fresh = Some(Gather::selective(Arc::clone(audience), reader, batcher, left_out));
                (self.has_sent, self.takes_all, self.hurries) = (false, false, false);
            }
            Some(fresh) if fresh.from() <= backlog.to() => self.fresh = None,
            _ => {}
        }
    }

    /// Reads on, to the journal's end if somebody can be left out for that; none if nothing can go ahead. However much came since
    /// the last turn, [`ENTRIES_LATE`] entries or eight batches are gone through at most.
    fn read(&mut self, now: Instant, journal: &Journal, lag: Lag) -> Option<()> {
        let fresh = self.fresh.as_ref()?;
        if lag.entries(fresh.to()) >= ENTRIES_LATE.max(BATCHES_LATE * lag.batch) {
            self.hurries |= !self.has_sent;
            self.begin_anew(now, journal, lag, false);
        }
        self.read_on(now, lag)?;
        let fresh = self.fresh.as_ref()?;
        if self.has_sent && lag.batches(fresh.to()) >= BATCHES_LATE {
            self.begin_anew(now, journal, lag, false);
            self.read_on(now, lag)?;
        }
        let fresh = self.fresh.as_ref()?;
        let is_of_others = fresh.is_empty() && fresh.census().is_some_and(|census| census.records() > 0);
        if is_of_others && !self.yields {
            self.begin_anew(now, journal, lag, true);
            self.read_on(now, lag)?;
        }
        Some(())
    }

    fn read_on(&mut self, now: Instant, lag: Lag) -> Option<()> {
        let fresh = self.fresh.as_mut()?;
        loop {
            if fresh.advance(now).is_err() || fresh.hole().is_some() {
                return None;
            }
            // Frames may be many for few points of their own: that is nobody's flood.
            let lags = fresh.is_full_of_points() && lag.entries(fresh.to()) > lag.batch / SLACK;
            let is_late = lag.batches(fresh.to()) >= BATCHES_LATE;
            if !lags || self.takes_all || !self.heavy.handle_full(fresh.census()?, is_late) {
                return Some(());
            }
            fresh.leave_out(now, self.heavy.left_out());
        }
    }

    /// Begins anew a batch before the journal's end, and not before where it is now; what lies between is backlog.
    fn begin_anew(&mut self, now: Instant, journal: &Journal, lag: Lag, takes_all: bool) {
        let Some(fresh) = &mut self.fresh else { return };
        (self.has_sent, self.takes_all) = (false, takes_all);
        let left_out = if takes_all { LeftOut::default() } else { self.heavy.left_out() };
        fresh.leave_out(now, left_out);
        fresh.restart(journal.reader(lag.batch_before_end().max(fresh.from())));
    }

    /// Takes the batch. Where nobody was left out of it for want of others, that tells nothing of who floods.
    fn take(&mut self, now: Instant, limits: Limits) -> Option<Batch> {
        let fresh = self.fresh.as_mut()?;
        let batch = fresh.take();
        if let Some(census) = batch.census()
            && !std::mem::take(&mut self.takes_all)
        {
            let all_fits = census.records() <= limits.points && census.bytes() <= limits.bytes as u64;
            self.heavy.handle_turn(census, all_fits);
        }
        fresh.leave_out(now, self.heavy.left_out());
        Some(batch)
    }

    /// The batch that was taken last did not get through; it comes again in its turn.
    fn put_back(&mut self, journal: &Journal, batch: &Batch) {
        if let Some(fresh) = &mut self.fresh {
            fresh.restart(journal.reader(batch.from()));
        }
    }
}

impl Lag {
    /// Entries from an offset to the end.
    fn entries(self, from: Offset) -> u64 {
        self.end.0.saturating_sub(from.0)
    }

    /// As many in batches, rounded down.
    fn batches(self, from: Offset) -> u64 {
        self.entries(from) / self.batch
    }

    fn batch_before_end(self) -> Offset {
        Offset(self.end.0.saturating_sub(self.batch))
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
            self.ahead.stored.add(from, batch.offset_of(points.end), &batch.left_out());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::BATCH_BYTES_MAX;
    use super::*;
    use crate::config::Filter;
    use crate::journal::entry::{Entry, Fields, RowEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Options, Refused};
    use crate::record::Value;

    struct World {
        journal: Journal,
        audience: Arc<Audience>,
        ahead: Ahead,
        backlog: Gather,
        limits: Limits,
        now: Instant,
    }

    impl World {
        /// Three thousand rows of a device that is left out ahead, and then others; a batch of so many is gathered of the backlog.
        fn new(points: usize, others: impl IntoIterator<Item = Vec<(&'static str, usize)>>) -> World {
            let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(64 << 20)).unwrap().0;
            journal.register_sink("main").unwrap();
            flood(&journal, 3_000);
            others.into_iter().for_each(|rows| submit(&journal, &rows));
            let limits = Limits { points, bytes: 1 << 20, linger: Duration::from_secs(3_600) };
            let audience = Arc::new(Audience { name: "main".into(), filter: Filter::default() });
            let (reader, now) = (journal.reader(Offset(0)), Instant::now());
            let mut backlog = Gather::new(Arc::clone(&audience), reader, Batcher::new(limits));
            backlog.advance(now).unwrap();
            assert!(backlog.is_full());
            let ahead = Ahead { heavy: Heavy::of("flood"), ..Ahead::default() };
            World { journal, audience, ahead, backlog, limits, now }
        }

        fn poll(&mut self) -> Option<Batch> {
            self.ahead.poll(self.now, &self.journal, &self.audience, self.limits, &self.backlog)
        }
    }

    fn flood(journal: &Journal, rows: usize) {
        (0..rows / 100).for_each(|_| submit(journal, &[("flood", 0); 100]));
    }

    /// Rows of devices, each with a text of so many bytes, in one frame.
    fn submit(journal: &Journal, rows: &[(&str, usize)]) {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |_, submission| {
            for (device, text_bytes) in rows {
                let fields = [("v".to_owned(), Value::Text("x".repeat(*text_bytes)))];
                let (boot, sequence, stamped, series, ns) = (0, 0, false, "m,device=x", 0);
                let fields = Fields::of(&fields);
                submission.add(&Entry::Row(RowEntry {
                    device,
                    boot,
                    sequence,
                    stamped,
                    series,
                    ns,
                    fields,
                }))?;
            }
            Ok(())
        });
        let (_, end) = submitted.unwrap();
        while *journal.watermark().borrow() < end {
            std::thread::yield_now();
        }
    }

    #[test]
    fn whoever_floods_alone_has_fresh_turns_however_many_stretches_are_remembered() {
        let mut world = World::new(100, []);
        for n in 0..2_000 {
            let from = 1_000_000 + 10 * n;
            world.ahead.stored.add(Offset(from), Offset(from + 5), &LeftOut::default());
        }
        let batch = world.poll().expect("nobody else has any");
        assert_eq!((batch.points(), batch.left_out().count()), (100, 0));
    }

    #[test]
    fn however_much_came_while_nothing_could_be_sent_is_not_gone_through() {
        let mut world = World::new(100, [vec![("calm", 0)]]);
        assert!(world.poll().is_none(), "its only fresh row may wait for others");
        flood(&world.journal, 2 * ENTRIES_LATE as usize);
        submit(&world.journal, &[("calm", 0)]);
        let end = world.journal.watermark().borrow().0;
        let batch = world.poll().expect("what there is does not wait any longer");
        assert!(end - batch.from().0 <= 200, "{} of {end}", batch.from());
        assert_eq!((batch.points(), batch.left_out().count()), (1, 1));
    }

    #[test]
    fn nobody_is_left_out_because_frames_of_others_are_large() {
        // One has four times as many rows as the other, and all of them fit.
        let calm = (0..450).map(|n| vec![("flood", 14_000), (if n % 5 == 0 { "calm2" } else { "calm" }, 0)]);
        let mut world = World::new(1_000, calm);
        let batch = world.poll().expect("it is full of frames");
        assert!(batch.bytes() >= BATCH_BYTES_MAX && batch.points() < 400, "{} points", batch.points());
        assert_eq!((world.ahead.heavy.left_out().count(), batch.left_out().count()), (1, 1));
    }
}
