//! Intake: what happens under the journal's lock when somebody submits.
//!
//! Constraint: this is the hot path. Entries are encoded into a buffer that is kept, applied to the state from there, and
//! copied once into the pending buffer; nothing is allocated per row.
//!
//! Operation: a segment is opened here, not by the committer, because the snapshot at its start must hold exactly the
//! state that its place in the journal stands for, and because room must be known before a submission is taken.
//!
//! Failure: a submission is refused before anything of it is visible. Intake may fill all of `max_bytes` but the two
//! segments that are kept in reserve as files; delivery may use those, without which its cursors could not make room, and
//! has them for itself. It may exceed `max_bytes` by one segment for each that it has let go of, and at the first write
//! after a start, so that a full journal can always be emptied; and so may a file that takes over from one that could not
//! be written. Who is refused because the journal is full may have asked for the oldest rows to make room
//! (`when_full`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::bugs::{Bug, seeded};
use super::entry::{Entry, take_entry};
use super::pending::{Pending, Tail};
use super::segment::sector_up;
use super::{Class, Commits, Condition, Options, Refused, State, Submission, WhenFull};
use crate::record::Offset;

/// Uncommitted bytes at which intake is refused as busy; delivery at twice as many.
pub(super) const PENDING_BYTES_MAX: usize = 2 << 20;

/// Largest submission in bytes of entries, where half a segment is not less.
const SUBMISSION_BYTES_MAX: u64 = 1 << 20;

/// Everything that the journal's lock protects.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) state: State,
    scratch: Vec<u8>,
    pub(super) pending: Pending,
    pub(super) tail: Tail,
    options: Options,
    /// What segments and spares may take.
    max_bytes: u64,
    /// Bytes of all segments in use, those included that only the pending buffer knows, and those that are to be removed.
    pub(super) live_bytes: u64,
    /// Bytes of long segments that cannot go yet; see [`super::segment::Segments::surplus`].
    pub(super) surplus_bytes: u64,
    /// Whether there are segments that stay until others begin behind them; see [`super::segment::Segments::is_chained`].
    pub(super) chained: bool,
    pub(super) phase: Phase,
    /// Why the last commit was not possible.
    pub(super) commit_trouble: Option<String>,
    /// Why a segment that was let go of makes no room.
    pub(super) retire_trouble: Option<String>,
    /// Why no spare could be made.
    pub(super) spare_trouble: Option<String>,
    /// What segments and spares took when a further one could not be made, as long as none can.
    pub(super) disk_bytes: Option<u64>,
    /// Spare segments that are ready, as files.
    spares_ready: Arc<AtomicUsize>,
    /// Segments that the committer has yet to begin, with a spare for each.
    pub(super) unopened: usize,
    /// Whether no segment was opened since the start.
    fresh: bool,
    /// Whether foreign and native intake were refused as full, and had no room since.
    pub(super) full: [bool; 2],
    /// Segments that were let go of since one was last opened beyond `max_bytes`.
    pub(super) retired: u64,
    /// Whether anybody was refused and waits to hear of room.
    pub(super) refused: bool,
    /// Whether the oldest rows are to make room.
    pub(super) evict: bool,
    /// Sinks for which intake does not wait.
    pub(super) optional: Vec<Box<str>>,
    /// Whether those of them that lack the oldest rows are to skip ahead.
    pub(super) evict_optional: bool,
    /// Whether it was said that they cannot.
    pub(super) too_small: bool,
    /// How soon what is pending is to be committed.
    urgency: Urgency,
    /// Since when something is pending, if anything is.
    since: Instant,
    /// Up to where the last commit goes, and when it began.
    taken: (Offset, Instant),
    /// When something became durable last.
    pub(super) moved: Instant,
    /// Whether the end has yet to be marked.
    pub(super) mark_due: bool,
    /// Whether segments that were let go of are to be recycled or removed.
    pub(super) retire_due: bool,
    /// Whether spares may have to be made.
    pub(super) tidy_due: bool,
    pub(super) commits: Commits,
}

/// What lock and end mark may take of `max_bytes`.
const SMALL_FILES_BYTES: u64 = 4096;

/// Spare segments kept: one to be opened next, one in reserve.
pub(super) const SPARES: usize = 2;

/// Pending bytes that do not wait for company.
const COMMIT_BYTES: usize = 64 * 1024;

/// How long foreign messages wait for company: their acks are for a broker, which goes on sending meanwhile. At 2,000
/// messages a second that makes a fifth of the commits, the wake-ups and the bytes of one commit a message.
const PATIENCE: Duration = Duration::from_millis(2);

/// How soon what is pending is to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Nothing is pending.
    Idle,
    /// Nobody is held up by waiting for company.
    Patient,
    /// Somebody waits.
    Awaited,
    /// At once: enough has come together, or half of what a source may have in flight is out.
    Due,
}

impl Urgency {
    fn of(class: Class, pending_bytes: usize) -> Urgency {
        match class {
            _ if pending_bytes >= COMMIT_BYTES => Urgency::Due,
            Class::Foreign => Urgency::Patient,
            Class::Native | Class::Internal => Urgency::Awaited,
        }
    }

    fn patience(self, commit_interval: Duration) -> Option<Duration> {
        match self {
            Urgency::Idle => None,
            Urgency::Patient => Some(commit_interval.max(PATIENCE)),
            Urgency::Awaited => Some(commit_interval),
            Urgency::Due => Some(Duration::ZERO),
        }
    }
}

/// What the journal lives through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing,
    Failed,
}

impl Intake {
    pub(super) fn new(
        state: State,
        tail: Tail,
        options: Options,
        live_bytes: u64,
        spares_ready: Arc<AtomicUsize>,
    ) -> Intake {
        let end = tail.end;
        Intake {
            state,
            scratch: Vec::new(),
            pending: Pending::default(),
            tail,
            options,
            max_bytes: options.max_bytes - SMALL_FILES_BYTES,
            live_bytes,
            surplus_bytes: 0,
            chained: false,
            phase: Phase::Open,
            commit_trouble: None,
            retire_trouble: None,
            spare_trouble: None,
            disk_bytes: None,
            spares_ready,
            unopened: 0,
            fresh: true,
            full: [false; 2],
            retired: 0,
            refused: false,
            evict: false,
            optional: Vec::new(),
            evict_optional: false,
            too_small: false,
            urgency: Urgency::Idle,
            since: Instant::now(),
            taken: (end, Instant::now()),
            moved: Instant::now(),
            mark_due: false,
            retire_due: true,
            tidy_due: true,
            commits: Commits::default(),
        }
    }

    /// Lets `decide` collect entries and appends them; see [`super::Journal::submit`].
    pub(super) fn submit<T, E: From<Refused>>(
        &mut self,
        class: Class,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<T, E>,
    ) -> Result<(T, Offset), E> {
        self.admit(class)?;
        self.scratch.clear();
        let at = self.tail.end;
        let mut submission = Submission { out: &mut self.scratch, entries: 0, at, of_clocks: false };
        let value = decide(&self.state, &mut submission)?;
        let Submission { entries, of_clocks, .. } = submission;
        if entries > 0 {
            self.make_room(class, of_clocks && !seeded(Bug::EarlyInAnOldSegment))?;
            self.append(entries);
            if self.urgency == Urgency::Idle {
                self.since = Instant::now();
            }
            self.urgency = self.urgency.max(Urgency::of(class, self.pending.bytes.len()));
        }
        Ok((value, self.tail.end))
    }

    /// Moves what is pending into `taken`, which must be empty, for one commit.
    pub(super) fn take(&mut self, taken: &mut Pending) {
        std::mem::swap(&mut self.pending, taken);
        self.tail.at = sector_up(self.tail.at);
        self.urgency = Urgency::Idle;
        self.taken = (self.tail.end, Instant::now());
    }

    /// How soon what is pending is to be committed.
    pub(super) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// What is pending, if anything is, is to be committed now.
    pub(super) fn hurry(&mut self) {
        if self.urgency != Urgency::Idle {
            self.urgency = Urgency::Due;
        }
    }

    /// When what is pending is to be committed; none if nothing is pending. It waits from its coming on: what came during a
    /// long commit has waited enough.
    pub(super) fn commit_at(&self) -> Option<Instant> {
        self.urgency.patience(self.options.commit_interval).map(|patience| self.since + patience)
    }

    /// For how long what should be durable has waited without getting on, when everything below `watermark` is; none if
    /// nothing is due.
    pub(super) fn held_up(&self, watermark: Offset) -> Option<Duration> {
        let (end, began) = self.taken;
        let due = if watermark < end { began } else { self.commit_at()? };
        Instant::now().checked_duration_since(due.max(self.moved))
    }

    /// Whether another spare is to be made now. The second one can wait until half of the segment is full: most often a
    /// trimmed one comes first, which costs nothing.
    pub(super) fn wants_spare(&self) -> bool {
        let spares = self.spares();
        let bytes = self.live_bytes + (spares as u64 + 1) * self.tail.shape.segment_bytes;
        let soon = spares == 0 || self.refused || self.tail.left() <= self.tail.shape.segment_bytes / 2;
        spares < SPARES && soon && bytes <= self.limit_bytes()
    }

    /// What all files may take: `max_bytes`, and what a journal has that was made with a higher one and cannot let go of.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.max_bytes + self.surplus_bytes
    }

    /// What segments and spares take.
    pub(super) fn file_bytes(&self) -> u64 {
        self.live_bytes + self.spares() as u64 * self.tail.shape.segment_bytes
    }

    /// Spares that nobody has a plan for.
    pub(super) fn spares(&self) -> usize {
        self.spares_ready.load(Ordering::Relaxed).saturating_sub(self.unopened)
    }

    pub(super) fn condition(&self) -> Condition {
        match self.phase {
            Phase::Failed => Condition::Failed,
            _ if self.full != [false; 2] || self.commit_trouble.is_some() => Condition::Full,
            _ => Condition::Running,
        }
    }

    pub(super) fn submission_bytes_max(&self) -> usize {
        usize::try_from(SUBMISSION_BYTES_MAX.min(self.tail.shape.segment_bytes / 2)).unwrap_or(usize::MAX)
    }

    fn admit(&mut self, class: Class) -> Result<(), Refused> {
        let bytes_max = match class {
            Class::Foreign | Class::Native => PENDING_BYTES_MAX,
            Class::Internal => 2 * PENDING_BYTES_MAX,
        };
        if self.phase != Phase::Open {
            return Err(Refused::Failed);
        }
        if self.pending.bytes.len() >= bytes_max {
            self.refused = true;
            return Err(Refused::Busy);
        }
        Ok(())
    }

    /// Sees to it that the collected entries fit the current segment, by opening the next one if need be. Early entries
    /// need one whose header says so.
    fn make_room(&mut self, class: Class, early: bool) -> Result<(), Refused> {
        let (bytes, limit) = (self.scratch.len(), self.submission_bytes_max());
        if bytes > limit {
            return Err(Refused::TooLarge { bytes, limit });
        }
        let cost = self.tail.shape.cost(bytes);
        let kept_back = class != Class::Internal && self.is_in_reserve()
            || class == Class::Native && self.holds_native_back();
        if kept_back && !self.is_full_of_nothing() {
            return Err(self.refuse_as_full(class));
        }
        if kept_back {
            self.open_segment(cost, early)?;
            self.chained = false;
        } else if cost > self.tail.left() || early && !self.tail.early {
            self.may_open(class)?;
            self.open_segment(cost, early)?;
        }
        match class {
            Class::Foreign => self.full[0] = false,
            Class::Native => self.full[1] = false,
            Class::Internal => {}
        }
        Ok(())
    }

    /// Whether the current segment was taken out of the reserve: rows that fill it would leave no room for what makes room.
    fn is_in_reserve(&self) -> bool {
        let reserve_bytes = SPARES as u64 * self.tail.shape.segment_bytes;
        let is_full = self.live_bytes + reserve_bytes > self.limit_bytes() && !seeded(Bug::SparesNotCounted);
        is_full || self.spare_trouble.is_some() && self.spares() + 1 < SPARES
    }

    /// Whether what fills the journal is owed to nobody, and stays for want of segments behind it alone: rows may begin one,
    /// and once they are confirmed another one, behind which all before these goes; each once the last has begun.
    fn is_full_of_nothing(&self) -> bool {
        let sinks = self.state.sinks();
        let owes_nothing = !sinks.is_empty()
            && sinks.iter().all(|sink| self.state.owed(&sink.name) == 0)
            && self.state.oldest_letter().is_none();
        self.chained && self.unopened == 0 && owes_nothing && self.spare_trouble.is_none()
    }

    /// Whether intake is refused as full, or will be at the next segment.
    pub(super) fn is_tight(&self) -> bool {
        let further_bytes = (1 + SPARES as u64) * self.tail.shape.segment_bytes;
        let is_short = self.live_bytes + further_bytes > self.limit_bytes();
        is_short || self.spare_trouble.is_some() || self.condition() == Condition::Full
    }

    /// Whether native devices are to wait although others need not: the oldest rows may have made room for those, and must
    /// not do so for native ones, which keep theirs. So these stop two segments earlier, at a mark that no eviction goes
    /// below.
    fn holds_native_back(&self) -> bool {
        let segment_bytes = self.tail.shape.segment_bytes;
        let margin_bytes = (SPARES as u64 + 2) * segment_bytes;
        let limit_bytes = self.disk_bytes.unwrap_or(u64::MAX).min(self.limit_bytes());
        // A journal of few segments must not hold anybody back for those that always stay.
        let is_full = self.live_bytes > 4 * segment_bytes + self.surplus_bytes
            && self.live_bytes + margin_bytes > limit_bytes;
        self.options.when_full == WhenFull::Auto && is_full
    }

    /// Whether the next segment may be opened now. Delivery may always go beyond the limit by what it has let go of.
    fn may_open(&mut self, class: Class) -> Result<(), Refused> {
        let segment_bytes = self.tail.shape.segment_bytes;
        let live_bytes = self.live_bytes + segment_bytes;
        if class == Class::Internal {
            let within = live_bytes <= self.limit_bytes();
            if !within && !self.fresh && self.retired == 0 {
                return Err(self.refuse_as_full(class));
            }
            self.retired -= u64::from(!within && !self.fresh);
            return Ok(());
        }
        let reserve = if seeded(Bug::SparesNotCounted) { 0 } else { SPARES as u64 };
        if live_bytes + reserve * segment_bytes > self.limit_bytes() {
            return Err(self.refuse_as_full(class));
        }
        // The last spare is the reserve; what the disk has no room for is not taken out of it.
        match self.spares() {
            SPARES.. => Ok(()),
            _ if self.spare_trouble.is_some() => Err(self.refuse_as_full(class)),
            _ => {
                self.refused = true;
                self.tidy_due = true;
                Err(Refused::Busy)
            }
        }
    }

    fn refuse_as_full(&mut self, class: Class) -> Refused {
        self.refused = true;
        match class {
            Class::Foreign => self.full[0] = true,
            Class::Native => self.full[1] = true,
            Class::Internal => {}
        }
        let evict = match (self.options.when_full, class) {
            (WhenFull::Refuse, _) | (_, Class::Internal) | (WhenFull::Auto, Class::Native) => false,
            (WhenFull::DropOldest, _) | (WhenFull::Auto, Class::Foreign) => true,
        };
        self.evict |= evict;
        self.evict_optional |= class != Class::Internal && !self.optional.is_empty();
        self.tidy_due |= self.evict || self.evict_optional;
        Refused::Full
    }

    /// Whether of all that are to get what is below an offset only sinks lack it for which intake does not wait.
    pub(super) fn is_owed_to_optional_alone(&self, end: Offset) -> bool {
        let is_optional = |name: &str| self.optional.iter().any(|optional| **optional == *name);
        let (optional, required): (Vec<_>, Vec<_>) = self
            .state
            .sinks()
            .iter()
            .filter(|sink| sink.cursor < end)
            .partition(|sink| is_optional(&sink.name));
        !optional.is_empty() && required.is_empty()
    }

    fn open_segment(&mut self, needed: u64, early: bool) -> Result<(), Refused> {
        let limit = usize::try_from(self.tail.shape.segment_bytes / 4).unwrap_or(usize::MAX);
        let too_large = |bytes: usize| Refused::TooLarge { bytes, limit };
        let snapshot = self.state.to_bytes().map_err(|_| too_large(usize::MAX))?;
        #[cfg(test)]
        let snapshot =
            super::bugs::later_snapshot(&self.state, self.tail.end, &self.scratch).unwrap_or(snapshot);
        if self.tail.shape.opening_cost(snapshot.len()) + needed > self.tail.shape.segment_bytes {
            return Err(too_large(snapshot.len()));
        }
        // Clocks in the snapshot are as unknown to an older gateway as early entries are.
        self.tail.early = early || !self.state.clocks().is_empty();
        self.tail.shared = self.state.has_shared();
        self.tail.boots = self.state.has_boots();
        self.pending.open_segment(&mut self.tail, &snapshot, self.state.learned());
        self.live_bytes += self.tail.shape.segment_bytes;
        self.unopened += 1;
        self.tidy_due = true;
        self.fresh = false;
        Ok(())
    }

    /// Appends what was collected and makes it part of the state, one entry after the other.
    fn append(&mut self, count: u32) {
        self.pending.begin(&mut self.tail, self.scratch.len(), count);
        let mut rest = self.scratch.as_slice();
        while !rest.is_empty() {
            let whole = rest;
            let Ok(body) = take_entry(&mut rest) else { break };
            let decoded = Entry::decode_own(body);
            if let Ok(entry) = &decoded {
                self.state.apply(self.tail.end, entry);
            }
            let entry = &whole[..whole.len() - rest.len()];
            self.pending.push(&mut self.tail, entry, self.state.learned());
            if let Ok(Entry::Clock(_) | Entry::ClockFix(_)) = decoded {
                self.pending.fixes = Some((self.tail.end, Arc::new(self.state.clocks().fixes())));
            }
        }
        self.pending.complete();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_is_held_up_by_waits_for_company_and_never_for_long() {
        let patience = |class, bytes, interval| Urgency::of(class, bytes).patience(interval);
        let (none, interval) = (Duration::ZERO, Duration::from_millis(100));
        assert_eq!(patience(Class::Foreign, 1, none), Some(PATIENCE));
        assert_eq!(patience(Class::Native, 1, none), Some(none));
        assert_eq!(patience(Class::Internal, 1, none), Some(none));
        for class in [Class::Foreign, Class::Native, Class::Internal] {
            assert_eq!(patience(class, 1, interval), Some(interval));
            assert_eq!(patience(class, COMMIT_BYTES, interval), Some(none));
        }
        assert_eq!(Urgency::Idle.patience(interval), None);
    }
}
