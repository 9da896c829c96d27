//! The walk through one segment: which frames stand, and where the chain of checksums or offsets breaks.

use std::io;

use super::unreadable;
use crate::journal::files::Candidate;
use crate::journal::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::journal::scan::Scanner;
use crate::journal::segment::{FRAMES_AT, sector_up};
use crate::journal::{Entry, OpenError};
use crate::record::Offset;

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Frames that stand.
    pub(super) frames: u64,
    pub(super) entries: u64,
    pub(super) rows: u64,
    /// The offsets that stand, as half-open ranges without holes.
    pub(super) runs: Vec<(Offset, Offset)>,
    /// What was known before the first frame that stands.
    pub(super) opening: Option<Side>,
    /// Where something is missing between frames that stand, or before the first of them.
    pub(super) breaks: Vec<Break>,
    /// What is behind the last frame that stands.
    pub(super) tail: Break,
    /// Whether it begins with what a frame of this segment has left.
    pub(super) tail_has_traces: bool,
    /// Everything below was durable when a frame that stands was written.
    pub(super) watermark: Offset,
    /// Entries that cannot be decoded: the bytes of their frames, and their offsets.
    pub(super) undecodable: Vec<((u64, u64), Offset)>,
}

/// Bytes that no standing frame covers, and what is known on either side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Break {
    pub(super) bytes: (u64, u64),
    pub(super) before: Option<Side>,
    pub(super) after: Option<Side>,
}

/// An offset, and how many rows were learned before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) offset: Offset,
    pub(super) learned: u64,
}

/// Reads a whole segment. `visit` gets each frame that stands, and its position.
pub(super) fn walk<E: From<OpenError>>(
    candidate: &Candidate,
    stands: impl Fn(&FrameHeader) -> bool,
    mut visit: impl FnMut(u64, &Frame) -> Result<(), E>,
) -> Result<Walk, E> {
    let failed = |cause: io::Error| unreadable(&candidate.segment.id.file_name(), cause);
    let mut walk = Walk::default();
    let mut scanner = Scanner::new(&candidate.segment);
    // Without a header there is no checksum to follow; that the first frame is at its place must do then.
    let mut expected = candidate.header.map(|header| header.encode().1);
    let mut at = FRAMES_AT;
    let mut before = None;
    let mut stray = None;
    while let Some(found) = scanner.next().map_err(failed)? {
        let frame = scanner.frame(&found).map_err(failed)?;
        let adjacent = found.at == at || found.at == sector_up(at);
        let linked = adjacent && expected.is_none_or(|expected| expected == found.header.previous);
        expected = Some(frame.checksum());
        let end = found.at + found.header.length as u64;
        if !stands(&found.header) {
            stray = stray.or(Some(found.at));
            at = end;
            continue;
        }
        let after = Side { offset: frame.first(), learned: frame.learned_before() };
        let reached = before.map_or(candidate.segment.first, |side: Side| side.offset);
        if !linked || after.offset > reached {
            walk.breaks.push(Break { bytes: (stray.unwrap_or(at), found.at), before, after: Some(after) });
        }
        walk.opening = walk.opening.or(Some(after));
        walk.take(&found.header, (found.at, end), &frame);
        visit(found.at, &frame)?;
        before = Some(Side { offset: frame.end(), learned: frame.learned() });
        (at, stray) = (end, None);
        walk.tail.bytes.0 = end;
    }
    let behind = stray.unwrap_or(candidate.bytes);
    let from = if walk.frames > 0 { walk.tail.bytes.0 } else { FRAMES_AT.min(candidate.bytes) };
    walk.tail = Break { bytes: (from, behind.max(from)), before, after: None };
    let reached = before.map_or(candidate.segment.first, |side| side.offset);
    walk.tail_has_traces = has_traces(candidate, from, reached).map_err(failed)?;
    Ok(walk)
}

/// Whether the bytes where a next frame would be were once a frame of this segment: they tell its number, or the offset
/// that comes next.
fn has_traces(candidate: &Candidate, at: u64, next: Offset) -> io::Result<bool> {
    for at in [at, sector_up(at)] {
        let mut head = [0; FRAME_HEADER_BYTES];
        candidate.segment.file.read_at(&mut head, at)?;
        let is = |at: usize, number: u64| head[at..].starts_with(&number.to_le_bytes());
        if head != [0; FRAME_HEADER_BYTES] && (is(16, candidate.segment.id.0) || is(24, next.0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Walk {
    fn take(&mut self, header: &FrameHeader, bytes: (u64, u64), frame: &Frame) {
        self.frames += 1;
        self.watermark = self.watermark.max(header.watermark);
        match self.runs.last_mut() {
            Some((_, end)) if *end >= frame.first() => *end = frame.end().max(*end),
            _ => self.runs.push((frame.first(), frame.end())),
        }
        for (offset, entry) in frame.entries() {
            self.entries += 1;
            match entry {
                Ok(Entry::Row(_) | Entry::EarlyRow(..)) => self.rows += 1,
                Ok(_) => {}
                Err(_) => self.undecodable.push((bytes, offset)),
            }
        }
    }
}
