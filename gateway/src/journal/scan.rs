//! Scanning a segment for its intact frames.
//!
//! Operation: a frame begins where the one before it ends, or on the next sector boundary. Where neither holds, bytes
//! are damaged, and the next intact frame is looked for byte by byte, so that damage costs what it hit and no more.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::JournalId;
use super::frame::{FRAME_BYTES_MAX, Frame, FrameHeader, MAGIC};
use super::segment::{FRAMES_AT, Segment, SegmentId, gives_anything, sector_up};
use super::storage::StorageFile;

/// Bytes that a medium refuses together.
const BLOCK_BYTES: usize = 4 * 1024;

/// Bytes read at once.
const WINDOW_BYTES: usize = 128 * 1024;

/// An intact frame and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) at: u64,
    pub(super) header: FrameHeader,
    pub(super) checksum: u32,
}

impl Found {
    /// The position behind it.
    pub(super) fn end_at(&self) -> u64 {
        self.at + self.header.length as u64
    }
}

/// Goes through a segment from front to back.
pub(super) struct Scanner {
    file: Arc<dyn StorageFile>,
    segment: SegmentId,
    journal: JournalId,
    /// Where the next frame is expected.
    at: u64,
    /// Checksum of the frame that ends at `at`, if it was intact.
    previous: Option<u32>,
    window: Box<[u8]>,
    window_at: u64,
    /// Bytes of the window that hold what was read.
    filled: usize,
}

impl Scanner {
    pub(super) fn new(segment: &Segment) -> Scanner {
        Scanner {
            file: Arc::clone(&segment.file),
            segment: segment.id,
            journal: segment.journal,
            at: FRAMES_AT,
            previous: None,
            window: vec![0; WINDOW_BYTES].into_boxed_slice(),
            window_at: 0,
            filled: 0,
        }
    }

    pub(super) fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The next intact frame; none if there is no further one. The scanner then stands behind it, or where it was.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if let Some(found) = self.next_adjacent()? {
            return Ok(Some(found));
        }
        // What the window holds may have been read before the frame was written.
        self.filled = 0;
        if let Some(found) = self.next_adjacent()? {
            return Ok(Some(found));
        }
        let mut from = self.at;
        while let Some(at) = self.find_magic(from)? {
            if let Some((header, checksum)) = self.parse(at)? {
                return Ok(Some(self.pass(at, header, checksum)));
            }
            from = at + 1;
        }
        Ok(None)
    }

    /// Where the next frame is expected.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Steps back in front of a frame.
    pub(super) fn rewind(&mut self, found: &Found) {
        self.at = found.at;
        self.previous = None;
    }

    /// The bytes of a frame that [`Scanner::next`] has just found.
    pub(super) fn frame(&mut self, found: &Found) -> io::Result<Frame> {
        let bytes = self.bytes_at(found.at)?;
        let bytes = bytes.get(..found.header.length).unwrap_or_default();
        Ok(Frame::new(Bytes::copy_from_slice(bytes), &found.header))
    }

    /// The frame at the place where one is expected.
    pub(super) fn next_adjacent(&mut self) -> io::Result<Option<Found>> {
        for at in [self.at, sector_up(self.at)] {
            if let Some((header, checksum)) = self.parse(at)?
                && self.previous.is_none_or(|previous| previous == header.previous)
            {
                return Ok(Some(self.pass(at, header, checksum)));
            }
        }
        Ok(None)
    }

    fn pass(&mut self, at: u64, header: FrameHeader, checksum: u32) -> Found {
        let found = Found { at, header, checksum };
        self.at = found.end_at();
        self.previous = Some(checksum);
        found
    }

    fn parse(&mut self, at: u64) -> io::Result<Option<(FrameHeader, u32)>> {
        let (segment, journal) = (self.segment, self.journal);
        Ok(FrameHeader::parse(self.bytes_at(at)?, segment, journal))
    }

    fn find_magic(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        loop {
            let bytes = self.bytes_at(from)?;
            if bytes.len() < MAGIC.len() {
                return Ok(None);
            }
            if let Some(at) = find_in(bytes) {
                return Ok(Some(from + at as u64));
            }
            // A magic may straddle the end of what was looked at.
            from += (bytes.len() - (MAGIC.len() - 1)) as u64;
        }
    }

    /// What the file holds from `at` on: at least the longest frame, unless the file ends before.
    fn bytes_at(&mut self, at: u64) -> io::Result<&[u8]> {
        let window_end = self.window_at + self.filled as u64;
        let covered = at >= self.window_at
            && (at + FRAME_BYTES_MAX as u64 <= window_end
                || (at <= window_end && (1..WINDOW_BYTES).contains(&self.filled)));
        if !covered {
            self.filled = 0;
            self.window_at = at;
            self.filled = read_what_can_be(&*self.file, &mut self.window, at)?;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(start..self.filled).unwrap_or_default())
    }
}

/// Reads as far as the medium lets it: blocks that it refuses become zeros, and so a hole, as long as it gives any others
/// of the file.
fn read_what_can_be(file: &dyn StorageFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let refused = match file.read_at(buffer, at) {
        Ok(length) => return Ok(length),
        Err(cause) => cause,
    };
    let left = file.length()?.saturating_sub(at).min(buffer.len() as u64);
    let length = usize::try_from(left).unwrap_or(buffer.len());
    let mut given = false;
    let mut from = 0;
    while from < length {
        // What a medium refuses together begins at a multiple of it in the file.
        let into = (at + from as u64) % BLOCK_BYTES as u64;
        let to = (from + BLOCK_BYTES - into as usize).min(length);
        let block = &mut buffer[from..to];
        match file.read_at(block, at + from as u64) {
            Ok(_) => given = true,
            Err(_) => block.fill(0),
        }
        from = to;
    }
    if given || length == 0 || gives_anything(file) { Ok(length) } else { Err(refused) }
}

/// Where a magic begins in `bytes`. Runs of zeros, which is what most of a segment may be, are skipped at once.
fn find_in(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 512] = [0; 512];
    let mut at = 0;
    while at < bytes.len() {
        let block = &bytes[at..bytes.len().min(at + ZEROS.len())];
        if block != &ZEROS[..block.len()] {
            let starts = block.iter().enumerate().filter(|(_, byte)| **byte == MAGIC[0]);
            let found = starts.map(|(step, _)| at + step).find(|at| bytes[*at..].starts_with(&MAGIC));
            if found.is_some() {
                return found;
            }
        }
        at += block.len();
    }
    None
}
