//! The device's cache: rows as sealed, encoded blocks, in a ring of fixed size.
//!
//! *In:* rows from the device's sensors. *Out:* sealed blocks. *Next:* `shared/src/link/sender.rs`.
//!
//! A row is encoded once, into the open block. A sealed block is moved behind the others, and leaves when
//! all its rows are released. Where there is no room for it, the oldest block makes room, and its rows
//! become part of the *lost* range, which is kept until the gateway has confirmed that too. The oldest
//! always go first, so what is lost is one range, and row numbers in the ring have no hole:
//!
//! ```text
//! released ≤ [lost ┊) oldest ┊ sealed blocks ┊ sealed ┊ open block ┊ next
//! ```
//!
//! A block in the ring is two bytes, its length and its number of rows, and then its bytes. The numbers of
//! its rows follow from the blocks before it.

use forebay_shared::block::BlockWriter;
use forebay_shared::ids::{GroupId, Seq, Tick};
use forebay_shared::message::SeqRange;
use forebay_shared::reading::Value;
use heapless::Deque;

/// Fewest bytes that a ring may have: two of the largest blocks.
pub const RING_BYTES_MIN: usize = 512;

/// Rows that wait for the gateway, in at most `N` bytes. See the [module](self).
#[derive(Debug)]
pub struct Ring<const N: usize> {
    open: BlockWriter,
    blocks: Deque<u8, N>,
    oldest: Seq,
    sealed: Seq,
    next: Seq,
    released: Seq,
    lost: Option<SeqRange>,
    evicted_rows: u32,
}

/// A sealed block in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedBlock<'a> {
    /// The rows in it.
    pub rows: SeqRange,
    /// Its bytes in two parts, since the ring may wrap within it.
    pub parts: (&'a [u8], &'a [u8]),
}

const HEAD_BYTES: usize = 2;

impl<const N: usize> Ring<N> {
    /// An empty ring whose first row will get number 0.
    pub const fn new() -> Self {
        const { assert!(N >= RING_BYTES_MIN, "a ring has at least 512 bytes") };
        Self {
            open: BlockWriter::new(),
            blocks: Deque::new(),
            oldest: Seq(0),
            sealed: Seq(0),
            next: Seq(0),
            released: Seq(0),
            lost: None,
            evicted_rows: 0,
        }
    }

    /// Appends a row and gives its number. The caller has checked the values against the group.
    pub fn push(&mut self, tick: Tick, group: GroupId, values: &[Option<Value>]) -> Seq {
        let seq = self.next;
        if self.open.push(seq, tick, group, values).is_err() {
            self.seal();
            let fits = self.open.push(seq, tick, group, values).is_ok();
            debug_assert!(fits, "an empty block takes every row");
        }
        self.next = seq.plus(1);
        seq
    }

    /// Closes the open block, if it has any rows.
    pub fn seal(&mut self) {
        let (rows, len) = (self.open.rows(), self.open.bytes().len());
        if rows == 0 {
            return;
        }
        while N - self.blocks.len() < HEAD_BYTES + len {
            self.evict();
        }
        // A block has at most 244 bytes.
        for byte in [len as u8, rows].iter().chain(self.open.bytes()) {
            let room = self.blocks.push_back(*byte).is_ok();
            debug_assert!(room, "room was made before");
        }
        self.sealed = self.sealed.plus(u32::from(rows));
        self.open.clear();
    }

    /// Lets go of all blocks whose rows come before `to`.
    pub fn release(&mut self, to: Seq) {
        self.released = self.released.max(to);
        self.lost = self.lost.filter(|lost| to.is_before(lost.to));
        while let Some(rows) = self.front().filter(|rows| !to.is_before(rows.to)) {
            self.drop_front(rows);
        }
    }

    /// The sealed block with row `seq`.
    pub fn find(&self, seq: Seq) -> Option<SealedBlock<'_>> {
        let mut at = 0;
        let mut from = self.oldest;
        loop {
            let (len, rows) = (*self.blocks.get(at)?, *self.blocks.get(at + 1)?);
            let to = from.plus(u32::from(rows));
            let start = at + HEAD_BYTES;
            let end = start + usize::from(len);
            if seq.is_before(to) {
                let rows = SeqRange { from, to };
                return (!seq.is_before(from)).then(|| SealedBlock { rows, parts: self.bytes(start, end) });
            }
            (at, from) = (end, to);
        }
    }

    /// First row in the ring; where there is none, the number of the next.
    pub const fn oldest(&self) -> Seq {
        self.oldest
    }

    /// One past the last row in a sealed block.
    pub const fn sealed(&self) -> Seq {
        self.sealed
    }

    /// The number that the next row will get.
    pub const fn next(&self) -> Seq {
        self.next
    }

    /// Rows in the open block.
    pub const fn open_rows(&self) -> u8 {
        self.open.rows()
    }

    /// Rows that made room for newer ones and are not released.
    pub fn lost(&self) -> Option<SeqRange> {
        self.lost.map(|lost| SeqRange { from: lost.from.max(self.released), ..lost })
    }

    /// First row that is not released, in the ring or lost.
    pub fn unreleased(&self) -> Seq {
        self.lost().map_or(self.oldest.max(self.released), |lost| lost.from)
    }

    /// Bytes in use.
    pub const fn used_bytes(&self) -> usize {
        self.blocks.len()
    }

    /// Rows that ever made room for newer ones without having been released. A row that the gateway has,
    /// and whose release was still on its way, counts too.
    pub const fn evicted_rows(&self) -> u32 {
        self.evicted_rows
    }

    fn evict(&mut self) {
        let Some(rows) = self.front() else { return };
        self.drop_front(rows);
        let from = rows.from.max(self.released);
        self.evicted_rows = self.evicted_rows.wrapping_add(from.rows_until(rows.to));
        self.lost = Some(SeqRange { from: self.lost.map_or(from, |lost| lost.from), to: rows.to });
    }

    fn front(&self) -> Option<SeqRange> {
        let rows = *self.blocks.get(1)?;
        Some(SeqRange { from: self.oldest, to: self.oldest.plus(u32::from(rows)) })
    }

    fn drop_front(&mut self, rows: SeqRange) {
        let len = self.blocks.front().copied().unwrap_or_default();
        for _ in 0..HEAD_BYTES + usize::from(len) {
            self.blocks.pop_front();
        }
        self.oldest = rows.to;
    }

    fn bytes(&self, start: usize, end: usize) -> (&[u8], &[u8]) {
        let (left, right) = self.blocks.as_slices();
        let part = |of: &'_ [u8], offset: usize| {
            start.saturating_sub(offset).min(of.len())..end.saturating_sub(offset).min(of.len())
        };
        (&left[part(left, 0)], &right[part(right, left.len())])
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}
