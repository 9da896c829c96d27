//! Reading back what is durable, in order.
//!
//! Operation: a frame comes from memory while it is among the recent ones, else from its segment. A reader keeps its place
//! in the segment, so that going on costs one read per window, whatever the backlog.
//!
//! Failure: a hole between two frames below the watermark is what the medium lost; it is named once and passed over.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::clocks::Fixes;
use super::scan::{Found, Scanner};
use super::segment::Segment;
use super::{Frame, Shared};
use crate::record::Offset;

/// Reads committed frames in order. Reads from disk block: use it on a thread of its own.
pub struct Reader {
    shared: Arc<Shared>,
    next: Offset,
    scanner: Option<Scanner>,
    bytes: u64,
}

/// What a reader found at its position.
#[derive(Clone, Debug)]
pub enum Read {
    /// The frame that holds the next offset; it may begin before it.
    Frame(Arc<Frame>),
    /// Entries that the medium lost.
    Damaged {
        /// First lost entry.
        from: Offset,
        /// Offset behind the last lost entry.
        to: Offset,
    },
    /// Nothing is committed beyond the reader's position: wait for the watermark.
    Wait,
}

/// Most bytes of a hole that are handed out.
const DAMAGED_BYTES_MAX: usize = 16 << 10;

/// What a hole looks like on the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBytes {
    /// Name of the file.
    pub file: String,
    /// Where in it the hole begins.
    pub at: u64,
    /// How many bytes it has at most.
    pub length: u64,
    /// The first of them.
    pub bytes: Vec<u8>,
}

/// The medium refuses to be read; the reader stays where it is.
#[derive(Debug, Error)]
#[error("cannot read the journal at entry {at}, in {file}: {cause}; check the disk under data_dir")]
pub struct ReadError {
    at: Offset,
    file: String,
    cause: io::Error,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, next: Offset) -> Reader {
        Reader { shared, next, scanner: None, bytes: 0 }
    }

    /// The next offset to be read.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// Bytes of the journal that it has gone through so far, those between the frames that were asked for included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Passes over what lies before `to`, unread.
    pub fn skip_to(&mut self, to: Offset) {
        self.next = self.next.max(to);
    }

    /// The fixes that are durable: what gives early entries their time.
    #[must_use]
    pub fn fixes(&self) -> Arc<Fixes> {
        Arc::clone(&self.shared.fixes())
    }

    /// Reads on. What was trimmed is passed over in silence: it never is above the cursor of a registered sink.
    ///
    /// # Errors
    /// The medium fails.
    #[expect(clippy::should_implement_trait, reason = "a reader that has to wait is no iterator")]
    pub fn next(&mut self) -> Result<Read, ReadError> {
        loop {
            let watermark = *self.shared.watermark.borrow();
            if self.next >= watermark {
                return Ok(Read::Wait);
            }
            let recent = self.shared.recent().get(self.next);
            if let Some(frame) = recent {
                self.next = frame.end();
                self.bytes += frame.bytes() as u64;
                return Ok(Read::Frame(frame));
            }
            if let Some(read) = self.next_on_disk(watermark)? {
                return Ok(read);
            }
        }
    }

    /// Reads on in the segment that holds the position; none if the position moved and has to be looked up again.
    fn next_on_disk(&mut self, watermark: Offset) -> Result<Option<Read>, ReadError> {
        let segments = self.shared.segments();
        if let Some(behind) = segments.behind_void(self.next) {
            self.next = behind;
            return Ok(None);
        }
        let Some((segment, _)) = segments.holding(self.next) else {
            drop(segments);
            return Ok(Some(self.damaged(watermark)));
        };
        let end = segments.end_of(segment.id).map_or(watermark, |end| end.min(watermark));
        drop(segments);
        if self.next < segment.first {
            return Ok(self.move_up_to(&segment));
        }
        let mut scanner = match self.scanner.take() {
            Some(scanner) if scanner.segment() == segment.id => scanner,
            _ => Scanner::new(&segment),
        };
        let at = self.next;
        let error = |cause| ReadError { at, file: segment.id.file_name(), cause };
        let found = loop {
            let from = scanner.position();
            let found = scanner.next().map_err(error)?;
            // Where no frame follows, it was looked for up to the end.
            self.bytes += found.as_ref().map_or(segment.length, Found::end_at).saturating_sub(from);
            match found {
                // What lies at or beyond the end was never finished; a later segment begins there instead.
                Some(found) if found.header.first >= end => {
                    scanner.rewind(&found);
                    break None;
                }
                Some(found) if found.header.end() > at => break Some(found),
                Some(_) => {}
                None => break None,
            }
        };
        let read = match found {
            Some(found) if found.header.first <= at => {
                let frame = scanner.frame(&found).map_err(error)?;
                self.next = frame.end();
                Some(Read::Frame(Arc::new(frame)))
            }
            // A segment that was trimmed and recycled under the reader lost nothing.
            _ if !self.shared.segments().contains(segment.id) => None,
            Some(found) => {
                scanner.rewind(&found);
                Some(self.damaged(found.header.first))
            }
            None => Some(self.damaged(end)),
        };
        self.scanner = Some(scanner);
        Ok(read)
    }

    /// What lies where the entries from `from` to `to` should be, and in which file where: the first bytes of it.
    ///
    /// # Errors
    /// The medium fails.
    pub fn damaged_bytes(&self, from: Offset, to: Offset) -> Result<Option<DamagedBytes>, ReadError> {
        let held = self.shared.segments().holding(from);
        let Some((segment, _)) = held else { return Ok(None) };
        let file = segment.id.file_name();
        let error = |cause| ReadError { at: from, file: file.clone(), cause };
        let mut scanner = Scanner::new(&segment);
        let mut at = scanner.position();
        let mut end = segment.length;
        while let Some(found) = scanner.next().map_err(error)? {
            if found.header.first >= to && found.header.count > 0 {
                end = found.at;
                break;
            }
            at = scanner.position();
        }
        let length = end.saturating_sub(at);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(DAMAGED_BYTES_MAX)];
        let read = segment.file.read_at(&mut bytes, at).map_err(error)?;
        bytes.truncate(read);
        Ok(Some(DamagedBytes { file, at, length, bytes }))
    }

    /// Moves up to the oldest segment. Of what lies before it, all that was trimmed is passed over; what a sink or the dead
    /// letters still need was never trimmed, and is lost.
    fn move_up_to(&mut self, oldest: &Segment) -> Option<Read> {
        let needed = self.shared.intake().state.done_below().unwrap_or(oldest.first);
        let lost_from = self.next.max(needed);
        if lost_from < oldest.void {
            self.next = lost_from;
            return Some(self.damaged(oldest.void));
        }
        self.next = self.next.max(oldest.first);
        None
    }

    fn damaged(&mut self, to: Offset) -> Read {
        let from = std::mem::replace(&mut self.next, to);
        Read::Damaged { from, to }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).finish_non_exhaustive()
    }
}
