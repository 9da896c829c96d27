//! The pending buffer: entries laid out in frames, waiting for the next commit.
//!
//! Frames are built in place with room for their headers, which the committer fills in, so that a row is copied once on
//! its way from the submission to the file.

use super::entry::take_entry;
use super::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use super::segment::{FRAMES_AT, SegmentId};
use crate::record::Offset;

/// Frames in the order of the journal, not yet sealed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Vec<PendingFrame>,
}

/// One frame in the buffer; it ends where the next begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingFrame {
    pub(super) start: usize,
    pub(super) first: Offset,
    pub(super) count: u16,
    /// Whether a submission ends with its last entry.
    pub(super) complete: bool,
    /// The segment that it begins.
    pub(super) opens: Option<SegmentId>,
}

/// Where in the segments the buffer's end will come to lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// Offset of the next entry.
    pub(super) end: Offset,
    /// Position behind the last frame in its segment.
    pub(super) at: u64,
    /// Length of each segment.
    pub(super) segment_bytes: u64,
    pub(super) next_segment: SegmentId,
}

impl Tail {
    pub(super) fn left(&self) -> u64 {
        self.segment_bytes.saturating_sub(self.at)
    }
}

/// What a submission of `bytes` bytes of entries takes at most, frame headers included.
pub(super) fn cost(bytes: usize) -> u64 {
    // An entry that does not fit leaves its frame less than full, but two neighbours always hold more than one frame.
    let frames = 1 + 2 * bytes / (FRAME_BYTES_MAX - FRAME_HEADER_BYTES);
    (bytes + frames * FRAME_HEADER_BYTES) as u64
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    /// Appends a submission of `count` encoded entries. There must be room for it.
    pub(super) fn append(&mut self, tail: &mut Tail, entries: &[u8], count: u32) {
        let before = self.bytes.len();
        if let (Some(open), Ok(count)) = (self.open_frame(entries.len()), u16::try_from(count))
            && let Some(sum) = open.count.checked_add(count)
        {
            open.count = sum;
            self.bytes.extend_from_slice(entries);
            tail.end = tail.end.plus(u64::from(count));
        } else {
            self.append_frames(tail, entries);
        }
        tail.at += (self.bytes.len() - before) as u64;
    }

    /// Appends a submission that opens the next segment.
    pub(super) fn append_segment(&mut self, tail: &mut Tail, entries: &[u8]) {
        let (before, opening) = (self.bytes.len(), self.frames.len());
        self.append_frames(tail, entries);
        if let Some(frame) = self.frames.get_mut(opening) {
            frame.opens = Some(tail.next_segment);
        }
        tail.next_segment = tail.next_segment.next();
        tail.at = FRAMES_AT + (self.bytes.len() - before) as u64;
    }

    /// Appends a frame without entries, which carries nothing but the watermark.
    pub(super) fn append_mark(&mut self, tail: &mut Tail) {
        let before = self.bytes.len();
        self.begin_frame(tail.end);
        if let Some(frame) = self.frames.last_mut() {
            frame.complete = true;
        }
        tail.at += (self.bytes.len() - before) as u64;
    }

    fn append_frames(&mut self, tail: &mut Tail, mut entries: &[u8]) {
        self.begin_frame(tail.end);
        while !entries.is_empty() {
            let whole = entries;
            if take_entry(&mut entries).is_err() {
                break;
            }
            let entry = &whole[..whole.len() - entries.len()];
            let full = self.frames.last().is_none_or(|open| {
                self.bytes.len() - open.start + entry.len() > FRAME_BYTES_MAX || open.count == u16::MAX
            });
            if full {
                self.begin_frame(tail.end);
            }
            self.bytes.extend_from_slice(entry);
            tail.end = tail.end.plus(1);
            if let Some(open) = self.frames.last_mut() {
                open.count += 1;
            }
        }
        if let Some(open) = self.frames.last_mut() {
            open.complete = true;
        }
    }

    /// The last frame, if it can take `bytes` more.
    fn open_frame(&mut self, bytes: usize) -> Option<&mut PendingFrame> {
        let length = self.bytes.len();
        self.frames.last_mut().filter(|open| length - open.start + bytes <= FRAME_BYTES_MAX)
    }

    fn begin_frame(&mut self, first: Offset) {
        let start = self.bytes.len();
        self.bytes.resize(start + FRAME_HEADER_BYTES, 0);
        self.frames.push(PendingFrame { start, first, count: 0, complete: false, opens: None });
    }
}
