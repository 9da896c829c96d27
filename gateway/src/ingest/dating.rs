//! When rows happened: which clock dates them, and what fixes those that came before the gateway's was believed.
//!
//! In: moments of the steady clock, and what the wall clock has to say of them. Out: entries with their time, early ones without,
//! and the fixes that give those theirs.
//!
//! Constraints: nothing here reads a clock. What is decided follows from the journal's state alone, and whether the clock is
//! believed counts only as long as the state says nothing of this boot of the machine:
//!
//! | early entries of this boot of the machine | rows |
//! |---|---|
//! | none | have their time if the clock is believed; else they are early, and the first one announces the boot |
//! | not fixed | are early, also if the clock has come to be believed meanwhile |
//! | fixed | have their time |
//!
//! So a fix divides those who wait for it from those who come later, whoever submits what at the same moment.

use std::sync::atomic::{AtomicI64, Ordering};

use tracing::{info, warn};

use crate::clock::{self, Belief, Moment};
use crate::journal::clocks::{Clock, ClockEntry, FixEntry};
use crate::journal::entry::{Entry, GapEntry, RowEntry};
use crate::journal::state::State;
use crate::journal::{Class, Refused, Submission};
use crate::record::MachineBoot;

use super::{Ingest, timestamp};

/// The gateway's clock as intake knows it.
pub struct OwnClock {
    /// This boot of the machine.
    pub machine: MachineBoot,
    /// Says whether the wall clock is believed now.
    pub belief: Box<dyn Fn() -> Belief + Send + Sync>,
    /// A moment of the steady clock by what the wall clock reads now: it may have been stepped since.
    pub moment: Box<dyn Fn(i64) -> Moment + Send + Sync>,
}

/// How the rows of one submission get their time.
pub(super) struct Dating {
    /// This boot of the machine, if they are early.
    early: Option<MachineBoot>,
    /// If the journal has to hear of that boot first, whether it has room for it.
    announce: Option<bool>,
    now: Moment,
    last_stamp: i64,
    /// What rows beside the present hang on.
    base: Option<i64>,
}

impl Ingest {
    /// Fixes the clocks of early entries, if the gateway's own is believed by now and there are any: each once, for good.
    ///
    /// # Errors
    /// The journal takes nothing now; it is to be tried again.
    pub fn fix_clocks(&self, steady_ns: i64) -> Result<(), Refused> {
        let belief = (self.clock.belief)();
        if !belief.is_trust() || self.journal.with_state(|state| state.clocks().waiting().next().is_none()) {
            return Ok(());
        }
        // Only what is read after it was asked for is what is believed.
        let now = (self.clock.moment)(steady_ns);
        let (fixed, _) = self.journal.submit(Class::Internal, |state, submission| {
            let estimated = belief == Belief::Waited;
            let fixes = due_fixes(state, self.clock.machine, now, estimated).into_iter();
            let rows = |fix: &FixEntry| state.clocks().get(fix.machine).map_or(0, |clock| clock.rows);
            let fixes: Vec<_> = fixes.map(|fix| (rows(&fix), fix)).collect();
            fixes.iter().try_for_each(|(_, fix)| submission.add(&Entry::ClockFix(*fix)))?;
            Ok::<_, Refused>(fixes)
        })?;
        for (rows, FixEntry { machine, offset_ns, estimated }) in fixed {
            if machine == self.clock.machine {
                clock::hold(offset_ns);
                info!(%machine, offset_ns, estimated, rows, "the clock is believed: {}; rows that waited for their time have it", belief.reason());
            } else {
                warn!(%machine, offset_ns, estimated, rows, "rows of an earlier start of the machine have an estimated time, since its clock was never believed");
            }
        }
        Ok(())
    }

    /// Whether what comes now has to wait for its time.
    #[must_use]
    pub fn is_early(&self) -> bool {
        let believed = (self.clock.belief)().is_trust();
        self.journal.with_state(|state| is_early(state, self.clock.machine, believed))
    }

    /// How rows of a submission that came at this moment are to be dated. Whether the clock is believed is asked before
    /// the journal's lock is taken; what it reads, under the lock, so that a fix in the state is not younger than that.
    pub(super) fn dating(&self, steady_ns: i64) -> impl FnOnce(&State) -> Dating {
        let believed = (self.clock.belief)().is_trust();
        move |state| Dating::new(state, self.clock.machine, believed, (self.clock.moment)(steady_ns))
    }
}

impl Dating {
    /// As the state wants it; `believed` is whether the clock is.
    pub(super) fn new(state: &State, machine: MachineBoot, believed: bool, now: Moment) -> Dating {
        let (clock, is_early) = (state.clocks().get(machine), is_early(state, machine, believed));
        let last_stamp = match clock.filter(|_| is_early) {
            Some(clock) => clock.stamps.map_or(i64::MIN, |(_, last)| last),
            None if is_early => i64::MIN,
            None => state.last_stamp(),
        };
        Dating {
            early: is_early.then_some(machine),
            announce: (is_early && clock.is_none()).then(|| state.has_room_for_clock()),
            now,
            last_stamp,
            base: None,
        }
    }

    /// The next stamp: the present, or the next free nanosecond.
    pub(super) fn stamp(&mut self) -> i64 {
        let now_ns = if self.early.is_some() { self.now.steady_ns } else { self.now.ns };
        self.last_stamp = timestamp::stamp(self.last_stamp, now_ns);
        self.last_stamp
    }

    /// The time of a row that happened so far from its receipt. All such rows of a submission hang on one stamp, so
    /// that they lie as far apart as they say. Their times are no stamps, so the journal does not tell which one that
    /// was; `last_base` does, so that no other submission gets it. None lies ahead of its receipt: the clock of a boot
    /// ends with its latest row, and rows of other boots are dated by that.
    pub(super) fn stamp_beside(&mut self, offset_ns: i64, last_base: &AtomicI64) -> i64 {
        if offset_ns >= 0 {
            return self.stamp();
        }
        let base = self.base.unwrap_or_else(|| {
            self.last_stamp = self.last_stamp.max(last_base.load(Ordering::Relaxed));
            let base = self.stamp();
            last_base.store(base, Ordering::Relaxed);
            base
        });
        self.base = Some(base);
        base.saturating_add(offset_ns)
    }

    /// What an entry is to say of a moment of the steady clock.
    pub(super) fn ns(&self, steady_ns: i64) -> i64 {
        steady_ns.saturating_add(if self.early.is_some() { 0 } else { self.now.offset_ns() })
    }

    /// What the wall clock says of the moment, right or not.
    pub(super) fn wall_ns(&self) -> i64 {
        self.now.ns
    }

    /// What makes steady nanoseconds those since 1970, if that is known.
    pub(super) fn offset_ns(&self) -> Option<i64> {
        self.early.is_none().then(|| self.now.offset_ns())
    }

    /// Adds a row that is dated by [`Dating::stamp`] or [`Dating::ns`].
    pub(super) fn add_row(
        &mut self,
        submission: &mut Submission<'_>,
        row: RowEntry<'_>,
    ) -> Result<(), Refused> {
        match self.begin(submission)? {
            None => submission.add(&Entry::Row(row)),
            Some(machine) => submission.add(&Entry::EarlyRow(machine, row)),
        }
    }

    /// Adds such a gap.
    pub(super) fn add_gap(
        &mut self,
        submission: &mut Submission<'_>,
        gap: GapEntry<'_>,
    ) -> Result<(), Refused> {
        match self.begin(submission)? {
            None => submission.add(&Entry::Gap(gap)),
            Some(machine) => submission.add(&Entry::EarlyGap(machine, gap)),
        }
    }

    fn begin(&mut self, submission: &mut Submission<'_>) -> Result<Option<MachineBoot>, Refused> {
        if let Some(machine) = self.early
            && let Some(has_room) = self.announce.take()
        {
            if !has_room {
                return Err(Refused::Clocks);
            }
            submission.add(&Entry::Clock(ClockEntry { machine, told_ns: self.now.offset_ns() }))?;
        }
        Ok(self.early)
    }
}

/// Whether rows of this boot of the machine are early; `believed` is whether the clock is.
fn is_early(state: &State, machine: MachineBoot, believed: bool) -> bool {
    state.clocks().get(machine).map_or(!believed, |clock| clock.offset_ns.is_none())
}

/// The fixes of all clocks that wait for one, oldest first, now that the wall clock of this boot of the machine is
/// believed.
///
/// This boot's is what the clocks say. An earlier boot ended before this one began, and the later of them ended later; its
/// stamps lie behind those that were given before. Between these bounds its own clock is right as far as anybody knows. That
/// is an estimate, always.
pub(super) fn due_fixes(state: &State, machine: MachineBoot, now: Moment, estimated: bool) -> Vec<FixEntry> {
    let earlier = || state.clocks().waiting().filter(|clock| clock.machine != machine);
    let mut lasted_ns = earlier().fold(0_i64, |sum, clock| sum.saturating_add(clock.end_ns));
    let (mut stamped_ns, mut ended_ns) = (state.last_stamp(), None);
    let mut fixes = Vec::new();
    for clock in earlier() {
        let latest_ns = now.offset_ns().saturating_sub(lasted_ns);
        lasted_ns = lasted_ns.saturating_sub(clock.end_ns);
        // The last stamp may be of the same boot, when the clock was believed for a while.
        let first_ns = clock.stamps.map_or(0, |(first, _)| first);
        let earliest_ns = ended_ns.unwrap_or(stamped_ns.saturating_sub(first_ns));
        let told_ns = clock.told_ns.unwrap_or(i64::MAX).max(earliest_ns).min(latest_ns);
        let offset_ns = apart(clock, stamped_ns, told_ns);
        stamped_ns = offset_ns.saturating_add(clock.end_ns);
        ended_ns = Some(stamped_ns);
        fixes.push(FixEntry { machine: clock.machine, offset_ns, estimated: true });
    }
    if let Some(clock) = state.clocks().waiting().find(|clock| clock.machine == machine) {
        fixes.push(FixEntry { machine, offset_ns: apart(clock, stamped_ns, now.offset_ns()), estimated });
    }
    fixes
}

/// The offset, moved so that the first stamp of a clock is none that was given before.
fn apart(clock: &Clock, stamped_ns: i64, offset_ns: i64) -> i64 {
    clock.stamps.map_or(offset_ns, |(first, _)| {
        timestamp::stamp(stamped_ns, first.saturating_add(offset_ns)).saturating_sub(first)
    })
}
