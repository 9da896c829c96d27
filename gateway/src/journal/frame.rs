//! Frames: runs of entries that are written, checked and read as one.

use bytes::Bytes;

use super::entry::{Entry, Undecodable, take_entry};
use crate::record::Offset;

/// Largest frame in bytes, header included.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a frame before its entries.
pub const FRAME_HEADER_BYTES: usize = 44;

/// A committed frame whose checksum was right.
#[derive(Clone, Debug)]
pub struct Frame {
    pub(super) bytes: Bytes,
    pub(super) first: Offset,
    pub(super) count: u32,
}

impl Frame {
    /// Offset of the first entry.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// Offset behind the last entry.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first.plus(u64::from(self.count))
    }

    /// Size in bytes, header included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The entries with their offsets. One that cannot be decoded was written by a newer version or with a fault that
    /// the checksum does not see: skip and count it.
    pub fn entries(&self) -> impl Iterator<Item = (Offset, Result<Entry<'_>, Undecodable>)> {
        let mut body = self.bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        (0..u64::from(self.count))
            .map(move |n| (self.first.plus(n), take_entry(&mut body).and_then(Entry::decode)))
    }
}
