//! Reading the journal.
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::Frame;
use crate::record::Offset;

/// Reads committed frames in order. Reads from disk block: use it on a thread of its own.
#[derive(Debug)]
pub struct Reader {
    next: Offset,
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

/// The medium refuses to be read; the reader stays where it is.
#[derive(Debug, Error)]
#[error("cannot read journal file {name}: {source}; check the disk under data_dir")]
pub struct ReadError {
    name: String,
    source: io::Error,
}

impl Reader {
    pub(super) fn new(next: Offset) -> Reader {
        Reader { next }
    }

    /// The next offset to be read.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// Reads on. What was trimmed is passed over in silence: it never is above the cursor of a registered sink.
    ///
    /// # Errors
    /// The medium fails.
    #[expect(clippy::should_implement_trait, reason = "a reader that has to wait is no iterator")]
    pub fn next(&mut self) -> Result<Read, ReadError> {
        Ok(Read::Wait)
    }
}
