//! A journal without its threads: whoever drives it decides when it commits, so that the same input does the same.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use super::super::memory::MemoryStorage;
use super::super::pending::Shape;
use super::super::storage::Storage;
use super::super::writer::Committer;
use super::super::{
    Class, Entry, Frame, OpenError, Options, Read, Reader, RecoveryReport, Refused, Shared, State,
    Submission, keeper,
};
use super::samples::JOURNAL;
use crate::record::Offset;

/// Small enough that a journal of some rows has several segments, and submissions of several frames.
pub(super) const SHAPE: Shape = Shape { segment_bytes: 8 << 10, frame_bytes: 1 << 10 };

/// More reads than any journal made here has frames and holes.
const READS_MAX: usize = 100_000;

/// An opened journal.
pub(super) struct Life {
    shared: Arc<Shared>,
    committer: Committer,
}

/// What a reader delivered from beginning to end.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) items: Vec<Item>,
    /// What somebody is to get: by offset, as the bytes that the entry encodes to.
    pub(super) owed: BTreeMap<Offset, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A frame, from its first entry to behind its last.
    Frame(Offset, Offset),
    Damaged(Offset, Offset),
}

impl Life {
    pub(super) fn open(storage: &MemoryStorage) -> Result<(Life, RecoveryReport), OpenError> {
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        let (shared, committer, report) = Shared::open(storage, &Options::sized(2 << 20), SHAPE, JOURNAL)?;
        Ok((Life { shared, committer }, report))
    }

    pub(super) fn submit(
        &self,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<(), Refused>,
    ) -> Result<Offset, Refused> {
        Ok(self.shared.submit(Class::Internal, decide)?.1)
    }

    /// Makes durable what was submitted. `tidy` lets the files that nobody needs go.
    pub(super) fn commit(&mut self, tidy: bool) {
        held(self.committer.commit(), "a commit");
        if tidy {
            held(keeper::tidy(&self.shared), "looking after the files");
        }
    }

    pub(super) fn mark(&mut self) {
        self.committer.mark();
    }

    pub(super) fn state(&self) -> State {
        self.shared.intake().state.clone()
    }

    /// Below this everything is accounted for, and may be gone after a commit.
    pub(super) fn done_below(&self) -> Option<Offset> {
        self.shared.intake().state.done_below()
    }

    /// Reads everything from an offset on.
    pub(super) fn read(&self, from: u64) -> Delivered {
        let mut delivered = Delivered::default();
        let mut reader = Reader::new(Arc::clone(&self.shared), Offset(from));
        for _ in 0..READS_MAX {
            match held(reader.next(), "reading") {
                Read::Frame(frame) => delivered.take_in(&frame),
                Read::Damaged { from, to } => delivered.items.push(Item::Damaged(from, to)),
                Read::Wait => return delivered,
            }
        }
        assert!(delivered.items.is_empty(), "reading does not end");
        delivered
    }
}

impl Delivered {
    fn take_in(&mut self, frame: &Frame) {
        self.items.push(Item::Frame(frame.first(), frame.end()));
        for (offset, entry) in frame.entries() {
            let mut bytes = Vec::new();
            if let Ok(entry @ (Entry::Row(_) | Entry::Gap(_) | Entry::GapAgain(_) | Entry::Letter(_))) = entry
                && entry.encode(&mut bytes).is_ok()
            {
                self.owed.insert(offset, bytes);
            }
        }
    }
}

impl Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.fmt(f)
    }
}

impl Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Frame(first, end) => write!(f, "{first}..{end}"),
            Item::Damaged(from, to) => write!(f, "damaged {from}..{to}"),
        }
    }
}

/// What cannot fail over a sound storage, whatever its bytes are.
#[track_caller]
#[expect(clippy::panic, reason = "this is what fuzzing looks for")]
pub(super) fn held<T, E: Debug>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {error:?}"),
    }
}
