//! Intake: what happens under the journal's lock when somebody submits.
//!
//! Constraint: this is the hot path. Entries are encoded into a buffer that is kept, applied to the state from there, and
//! copied once into the pending buffer; nothing is allocated per row.
//!
//! Operation: a segment is opened here, not by the committer, because the snapshot at its start must hold exactly the
//! state that its place in the journal stands for, and because room must be known before a submission is taken.
//!
//! Failure: a submission is refused before anything of it is visible. Intake may fill all but two segments' worth of
//! `max_bytes`; delivery may use the rest, without which its cursors could not make room. At the first write after a
//! start delivery may exceed `max_bytes` by one segment, so that a full journal can always be emptied.

use super::entry::{ENTRY_BYTES_MAX, Entry, SnapshotEntry, take_entry};
use super::frame::FRAME_HEADER_BYTES;
use super::pending::{Pending, Tail, cost};
use super::segment::{FRAMES_AT, sector_up};
use super::{Class, Commits, Condition, Refused, State, Submission};
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
    max_bytes: u64,
    /// Bytes of all segments in use, those included that only the pending buffer knows.
    pub(super) live_bytes: u64,
    pub(super) phase: Phase,
    /// Whether the disk had no room when a file was last made.
    pub(super) disk_full: bool,
    /// Whether no segment was opened since the start.
    fresh: bool,
    /// Whether intake was refused as full since there last was room.
    pub(super) full: bool,
    /// Whether anybody was refused and waits to hear of room.
    pub(super) refused: bool,
    /// Whether the next commit must not wait for company.
    pub(super) hurry: bool,
    /// Whether the watermark has yet to be told by a frame.
    pub(super) mark_due: bool,
    /// Whether a spare segment has to be made.
    pub(super) spare_due: bool,
    pub(super) commits: Commits,
}

/// What the journal lives through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing,
    Failed,
}

impl Intake {
    pub(super) fn new(state: State, tail: Tail, max_bytes: u64, live_bytes: u64) -> Intake {
        Intake {
            state,
            scratch: Vec::new(),
            pending: Pending::default(),
            tail,
            max_bytes,
            live_bytes,
            phase: Phase::Open,
            disk_full: false,
            fresh: true,
            full: false,
            refused: false,
            hurry: false,
            mark_due: false,
            spare_due: true,
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
        let mut submission = Submission { out: &mut self.scratch, entries: 0 };
        let value = decide(&self.state, &mut submission)?;
        let entries = submission.entries;
        if entries > 0 {
            self.make_room(class)?;
            self.apply();
            self.pending.append(&mut self.tail, &self.scratch, entries);
        }
        Ok((value, self.tail.end))
    }

    /// Moves what is pending into `taken`, which must be empty, for one commit.
    pub(super) fn take(&mut self, taken: &mut Pending) {
        std::mem::swap(&mut self.pending, taken);
        self.tail.at = sector_up(self.tail.at);
        self.hurry = false;
    }

    /// Lets a frame without entries tell the watermark, if that is due and fits.
    pub(super) fn append_mark(&mut self) {
        let fits = self.tail.left() >= FRAME_HEADER_BYTES as u64;
        if std::mem::take(&mut self.mark_due) && fits {
            self.pending.append_mark(&mut self.tail);
        }
    }

    /// Whether a spare may be made now.
    pub(super) fn spare_allowed(&self) -> bool {
        self.spare_due && self.live_bytes + self.tail.segment_bytes <= self.max_bytes
    }

    pub(super) fn condition(&self) -> Condition {
        match self.phase {
            Phase::Failed => Condition::Failed,
            _ if self.full || self.disk_full => Condition::Full,
            _ => Condition::Running,
        }
    }

    pub(super) fn submission_bytes_max(&self) -> usize {
        usize::try_from(SUBMISSION_BYTES_MAX.min(self.tail.segment_bytes / 2)).unwrap_or(usize::MAX)
    }

    fn admit(&mut self, class: Class) -> Result<(), Refused> {
        let bytes_max = match class {
            Class::Intake => PENDING_BYTES_MAX,
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

    /// Sees to it that the collected entries fit the current segment, by opening the next one if need be.
    fn make_room(&mut self, class: Class) -> Result<(), Refused> {
        let (bytes, limit) = (self.scratch.len(), self.submission_bytes_max());
        if bytes > limit {
            return Err(Refused::TooLarge { bytes, limit });
        }
        let fits = cost(bytes) <= self.tail.left();
        let live_bytes = self.live_bytes + if fits { 0 } else { self.tail.segment_bytes };
        let allowed = match class {
            Class::Intake if self.disk_full && !fits => 0,
            Class::Intake => self.max_bytes.saturating_sub(2 * self.tail.segment_bytes),
            Class::Internal if fits || self.fresh => u64::MAX,
            Class::Internal => self.max_bytes,
        };
        if live_bytes > allowed {
            self.full |= class == Class::Intake;
            self.refused = true;
            return Err(Refused::Full);
        }
        if !fits {
            self.open_segment(cost(bytes))?;
        }
        if class == Class::Intake {
            self.full = false;
        }
        Ok(())
    }

    fn open_segment(&mut self, needed: u64) -> Result<(), Refused> {
        let too_large = |bytes: usize| Refused::TooLarge { bytes, limit: ENTRY_BYTES_MAX };
        let snapshot = snapshot_entries(&self.state).ok_or(too_large(usize::MAX))?;
        if FRAMES_AT + cost(snapshot.len()) + needed > self.tail.segment_bytes {
            return Err(too_large(snapshot.len()));
        }
        self.pending.append_segment(&mut self.tail, &snapshot);
        self.live_bytes += self.tail.segment_bytes;
        self.fresh = false;
        Ok(())
    }

    fn apply(&mut self) {
        let mut entries = self.scratch.as_slice();
        while let Ok(bytes) = take_entry(&mut entries) {
            if let Ok(entry) = Entry::decode_own(bytes) {
                self.state.apply(&entry);
            }
        }
    }
}

/// The state as encoded entries; none if it cannot be serialised.
fn snapshot_entries(state: &State) -> Option<Vec<u8>> {
    // The length prefix, the kind and two numbers of at most five bytes go before the piece.
    const PIECE_BYTES: usize = ENTRY_BYTES_MAX - 2 - 1 - 2 * 5;
    let bytes = state.to_bytes().ok()?;
    let parts = u32::try_from(bytes.len().div_ceil(PIECE_BYTES)).ok()?;
    let mut entries = Vec::with_capacity(bytes.len() + 16 * parts as usize);
    for (part, piece) in (0..).zip(bytes.chunks(PIECE_BYTES)) {
        let entry = Entry::Snapshot(SnapshotEntry { part, parts, bytes: piece });
        entry.encode(&mut entries).ok()?;
    }
    Some(entries)
}
