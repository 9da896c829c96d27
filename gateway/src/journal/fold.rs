//! The fold: the state that the standing entries amount to, lost ones counted.
//!
//! A hole tells how many rows it held: each frame carries how many rows were learned up to its end, and so does the end
//! mark. Whose they were is told by the numbers of the rows behind the hole, since those of each device and boot follow
//! one another: the first one of each that comes after a hole shows how many went before it. What no later row tells of
//! is accounted under [`UNKNOWN`](super::state::UNKNOWN).

use std::collections::HashSet;
use std::io;

use tracing::warn;

use super::State;
use super::end::EndMark;
use super::entry::{Entry, RowEntry};
use super::files::Candidate;
use super::frame::Frame;
use super::judge::Verdict;
use super::scan::Scanner;
use super::segment::{Segment, SegmentId};
use crate::record::Offset;

/// What the entries amount to.
pub(super) struct Folded {
    pub(super) state: State,
    /// Entries that were read.
    pub(super) entries: u64,
    /// Rows in holes.
    pub(super) rows_lost: u64,
}

/// Devices after a hole.
#[derive(Default)]
struct Hole {
    /// Rows that are missing and not yet anybody's.
    missing: u64,
    /// Device and boot of the rows that came since.
    heard: HashSet<(Box<str>, u32)>,
    /// Whether there was any hole at all.
    open: bool,
}

/// Applies what stands to the state of the snapshot before it.
pub(super) fn fold(
    state: State,
    candidates: &[Candidate],
    verdict: &Verdict,
    mark: Option<EndMark>,
) -> Result<Folded, (SegmentId, io::Error)> {
    let mut folded = Folded { state, entries: 0, rows_lost: 0 };
    let mut hole = Hole::default();
    let mut holes = verdict.damaged.iter().peekable();
    for candidate in candidates {
        let mut scanner = Scanner::new(&candidate.segment);
        for found in candidate.frames.iter().filter(|found| found.header.end() <= verdict.end) {
            scanner.rewind(found);
            let frame = scanner.frame(found).map_err(|cause| (candidate.segment.id, cause))?;
            if holes.next_if(|(_, to)| *to <= found.header.first).is_some() {
                while holes.next_if(|(_, to)| *to <= found.header.first).is_some() {}
                hole.widen(&mut folded, frame.learned_before());
            }
            for (offset, entry) in frame.entries() {
                folded.take_in(&mut hole, offset, entry);
            }
        }
    }
    if let Some(mark) = mark.filter(|mark| mark.watermark <= verdict.end) {
        hole.widen(&mut folded, mark.learned);
    }
    if hole.missing > 0 {
        folded.state.lose("", 0, 0, hole.missing);
    }
    Ok(folded)
}

/// Whether anything in a segment is owed to a sink or to the dead letters. What cannot be read may be.
pub(super) fn is_owed_anything(segment: &Segment) -> io::Result<bool> {
    let mut scanner = Scanner::new(segment);
    while let Some(found) = scanner.next()? {
        let frame: Frame = scanner.frame(&found)?;
        if frame.entries().any(|(_, entry)| entry.map_or(true, |entry| entry.is_owed())) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Folded {
    fn take_in(
        &mut self,
        hole: &mut Hole,
        offset: Offset,
        entry: Result<Entry<'_>, super::entry::Undecodable>,
    ) {
        self.entries += 1;
        match entry {
            Ok(entry) => {
                if let Entry::Row(row) | Entry::EarlyRow(_, row) = &entry
                    && hole.open
                {
                    hole.attribute(&mut self.state, row);
                }
                self.state.apply(offset, &entry);
            }
            Err(cause) => warn!(%offset, %cause, "a journal entry is passed over"),
        }
    }
}

impl Hole {
    /// Another hole ended, before which so many rows were learned.
    fn widen(&mut self, folded: &mut Folded, learned: u64) {
        let missing = learned.saturating_sub(folded.state.learned());
        folded.state.learn_up_to(learned);
        folded.rows_lost += missing;
        self.missing += missing;
        self.heard.clear();
        self.open = true;
    }

    /// The first row of a device and boot since the hole shows how many of its rows went with it.
    fn attribute(&mut self, state: &mut State, row: &RowEntry<'_>) {
        let key = (row.device.into(), row.boot);
        if !self.heard.insert(key) {
            return;
        }
        let Some(expected) = state.expected(row.device, row.boot) else { return };
        let jump = row.sequence.saturating_sub(expected);
        // A native device's numbers leave no doubt; a foreign one's are those of an account that others may share.
        let lost = if row.boot == 0 { jump.min(self.missing) } else { jump };
        if lost > 0 {
            state.lose(row.device, row.boot, row.sequence, lost);
            self.missing = self.missing.saturating_sub(lost);
        }
    }
}
