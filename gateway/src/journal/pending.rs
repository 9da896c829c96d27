//! The pending buffer: entries laid out in frames, waiting for the next commit.
//!
//! Frames are built in place with room for their headers, which the committer fills in, so that a row is copied once on
//! its way from the submission to the file.

use std::sync::Arc;

use super::clocks::Fixes;
use super::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use super::segment::FRAMES_AT;
use crate::record::Offset;

/// Bytes before the piece in a frame that is a piece of a snapshot.
const PIECE_HEADER_BYTES: usize = 8;

/// Frames in the order of the journal, not yet sealed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Vec<PendingFrame>,
    /// Fixes that readers may know once everything below the offset is durable.
    pub(super) fixes: Option<(Offset, Arc<Fixes>)>,
}

/// One frame in the buffer; it ends where the next begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingFrame {
    pub(super) start: usize,
    pub(super) first: Offset,
    pub(super) count: u16,
    /// Whether a submission or a snapshot ends with it.
    pub(super) complete: bool,
    /// Whether it is a piece of a snapshot.
    pub(super) snapshot: bool,
    /// Whether it begins a segment.
    pub(super) opens: bool,
    /// Whether its segment may hold early entries.
    pub(super) early: bool,
    /// Whether its segment's snapshot tells of shared points.
    pub(super) shared: bool,
    /// Whether its segment's snapshot counts rows by boot.
    pub(super) boots: bool,
    /// Rows learned up to its end.
    pub(super) learned: u64,
}

/// Where in the segments the buffer's end will come to lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// Offset of the next entry.
    pub(super) end: Offset,
    /// Position behind the last frame in its segment.
    pub(super) at: u64,
    /// Whether the segment may hold early entries.
    pub(super) early: bool,
    /// Whether the segment's snapshot tells of shared points.
    pub(super) shared: bool,
    /// Whether the segment's snapshot counts rows by boot.
    pub(super) boots: bool,
    pub(super) shape: Shape,
}

/// How a journal is cut into files and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Length of each new segment.
    pub(super) segment_bytes: u64,
    /// Length at which a frame is full; a single entry may exceed it.
    pub(super) frame_bytes: usize,
}

impl Tail {
    pub(super) fn left(&self) -> u64 {
        self.shape.segment_bytes.saturating_sub(self.at)
    }
}

impl Shape {
    /// The shape of a journal with segments of that length.
    pub(super) fn of(segment_bytes: u64) -> Shape {
        Shape { segment_bytes, frame_bytes: FRAME_BYTES_MAX }
    }

    /// What a submission of `bytes` bytes of entries takes at most, frame headers included.
    pub(super) fn cost(&self, bytes: usize) -> u64 {
        // An entry that does not fit leaves its frame less than full, but two neighbours always hold more than one frame.
        let frames = 1 + 2 * bytes / (self.frame_bytes - FRAME_HEADER_BYTES);
        (bytes + frames * FRAME_HEADER_BYTES) as u64
    }

    /// What a snapshot of `bytes` bytes takes at the start of a segment, the segment's header included.
    pub(super) fn opening_cost(&self, bytes: usize) -> u64 {
        let overhead = bytes.div_ceil(self.piece_bytes()) * (FRAME_HEADER_BYTES + PIECE_HEADER_BYTES);
        FRAMES_AT + (bytes + overhead) as u64
    }

    fn piece_bytes(&self) -> usize {
        self.frame_bytes - FRAME_HEADER_BYTES - PIECE_HEADER_BYTES
    }
}

impl Pending {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.fixes = None;
    }

    /// Makes ready for a submission of `bytes` bytes and `count` entries, for which there must be room: it goes into the
    /// open frame if that can take it as a whole, else begins a frame of its own.
    pub(super) fn begin(&mut self, tail: &mut Tail, bytes: usize, count: u32) {
        let length = self.bytes.len();
        let joins = self.frames.last().is_some_and(|open| {
            !open.snapshot
                && length - open.start + bytes <= tail.shape.frame_bytes
                && u32::from(open.count) + count <= u32::from(u16::MAX)
        });
        if !joins {
            self.begin_frame(tail);
        }
    }

    /// Appends one encoded entry of the submission, up to which `learned` rows are known.
    pub(super) fn push(&mut self, tail: &mut Tail, entry: &[u8], learned: u64) {
        let full = self.frames.last().is_none_or(|open| {
            open.count > 0 && self.bytes.len() - open.start + entry.len() > tail.shape.frame_bytes
                || open.count == u16::MAX
        });
        if full {
            self.begin_frame(tail);
        }
        self.bytes.extend_from_slice(entry);
        tail.at += entry.len() as u64;
        tail.end = tail.end.plus(1);
        if let Some(open) = self.frames.last_mut() {
            open.count += 1;
            open.learned = learned;
        }
    }

    /// The submission or snapshot ends here.
    pub(super) fn complete(&mut self) {
        if let Some(open) = self.frames.last_mut() {
            open.complete = true;
        }
    }

    /// Begins the next segment, with a snapshot.
    pub(super) fn open_segment(&mut self, tail: &mut Tail, snapshot: &[u8], learned: u64) {
        let opening = self.frames.len();
        tail.at = FRAMES_AT;
        let pieces = snapshot.chunks(tail.shape.piece_bytes());
        let parts = pieces.len() as u32;
        for (part, piece) in (0_u32..).zip(pieces) {
            self.begin_frame(tail);
            self.bytes.extend_from_slice(&part.to_le_bytes());
            self.bytes.extend_from_slice(&parts.to_le_bytes());
            self.bytes.extend_from_slice(piece);
            tail.at += (PIECE_HEADER_BYTES + piece.len()) as u64;
            if let Some(open) = self.frames.last_mut() {
                (open.snapshot, open.learned) = (true, learned);
            }
        }
        self.complete();
        if let Some(frame) = self.frames.get_mut(opening) {
            frame.opens = true;
        }
    }

    fn begin_frame(&mut self, tail: &mut Tail) {
        let start = self.bytes.len();
        self.bytes.resize(start + FRAME_HEADER_BYTES, 0);
        tail.at += FRAME_HEADER_BYTES as u64;
        self.frames.push(PendingFrame {
            start,
            first: tail.end,
            count: 0,
            complete: false,
            snapshot: false,
            opens: false,
            early: tail.early,
            shared: tail.shared,
            boots: tail.boots,
            learned: 0,
        });
    }
}
