//! Where the ring keeps its blocks: one array, in which they follow one another around its end.
//!
//! ```text
//! sealed block = length of the run u8 · first row u32, low byte first · what the link remembers 4 bytes
//!                · in kept memory, CRC-32C of the run, the first row, and the first row of the next block u32
//!                · run
//! ```
//!
//! The open block is behind the last sealed one and has the same form; its head is written when it is sealed. A block
//! ends where the next one's rows begin. Its place is the number of bytes that ever stood before it.

use forebay_shared::checksum;
use forebay_shared::ids::Seq;
use forebay_shared::link::bugs::{Bug, seeded};
use forebay_shared::link::{Backlog, Block, Flight, Place};
use forebay_shared::message::SeqRange;
use forebay_shared::pack::PackedBytes;

use super::WhenFull;
use super::memory::{Extent, Memory};

/// The blocks. See the [module](self).
#[derive(Debug)]
pub struct Blocks<const N: usize, M> {
    memory: M,
    extent: Extent,
    /// The block that is being sent, and has to stay until it has left.
    pinned: Place,
    is_pinned: bool,
    when_full: WhenFull,
    evicted_rows: u32,
}

impl<const N: usize, M: Memory> Blocks<N, M> {
    /// Bytes before the run of a block.
    const HEAD_BYTES: u32 = 1 + 4 + 4 + if M::IS_KEPT { 4 } else { 0 };

    pub(super) const fn new(memory: M, when_full: WhenFull) -> Self {
        Self { memory, extent: Extent::EMPTY, pinned: Place(0), is_pinned: false, when_full, evicted_rows: 0 }
    }

    #[cfg(feature = "simulation")]
    pub(super) fn number_from(&mut self, first: Seq) {
        (self.extent.sealed, self.extent.released) = (first, first);
        self.memory.keep_extent(&self.extent);
    }

    /// Takes up the blocks that were there before a reset, if they are whole.
    pub(super) fn resume(&mut self, extent: Extent) -> bool {
        self.extent = extent;
        let is_whole = self.is_whole() || seeded(Bug::DamageTakenUp);
        if !is_whole {
            self.extent = Extent::EMPTY;
        }
        is_whole
    }

    fn is_whole(&self) -> bool {
        let Extent { head, first, len, sealed, .. } = self.extent;
        if head >= N as u32 || len > N as u32 {
            return false;
        }
        let mut at = first;
        while let Some(block) = self.block(at) {
            let offset = self.offset(at);
            let end = self.offset(block.next);
            let is_whole = offset + Self::HEAD_BYTES <= len
                && end <= len
                && block.rows.from.is_before(block.rows.to)
                && !sealed.is_before(block.rows.to)
                && self.read_word(offset + 9) == self.check(offset, block.rows);
            if !is_whole {
                return false;
            }
            at = block.next;
        }
        self.offset(at) == len
    }

    pub(super) const fn memory(&self) -> &M {
        &self.memory
    }

    pub(super) const fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    pub(super) const fn used_bytes(&self) -> u32 {
        self.extent.len
    }

    pub(super) const fn evicted_rows(&self) -> u32 {
        self.evicted_rows
    }

    pub(super) const fn released(&self) -> Seq {
        self.extent.released
    }

    /// Whether a run of `bytes` bytes has room without another block's making it, or one would.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        self.extent.len + Self::HEAD_BYTES + bytes <= N as u32 || self.evictable().is_some()
    }

    /// Closes the open block, which has `len` bytes and all rows before `to`.
    pub(super) fn seal(&mut self, len: u8, to: Seq) {
        let offset = self.extent.len;
        let from = self.extent.sealed;
        self.write(offset, len);
        self.write_word(offset + 1, from.0);
        self.write_word(offset + 5, Flight::NEW.0);
        if M::IS_KEPT {
            self.write_word(offset + 9, self.check(offset, SeqRange { from, to }));
        }
        self.extent.len += Self::HEAD_BYTES + u32::from(len);
        self.extent.sealed = to;
        self.memory.keep_extent(&self.extent);
    }

    /// Of the block at `offset`: all that does not change as long as it is there.
    fn check(&self, offset: u32, rows: SeqRange) -> u32 {
        let run = (0..u32::from(self.read(offset))).map(|at| self.read(offset + Self::HEAD_BYTES + at));
        checksum([rows.from, rows.to].into_iter().flat_map(|seq| seq.0.to_le_bytes()).chain(run))
    }

    /// Keeps the block at this place until it has left, whatever happens.
    pub(super) fn pin(&mut self, place: Place) {
        (self.pinned, self.is_pinned) = (place, true);
    }

    /// Nothing is being sent any more.
    pub(super) fn unpin(&mut self) {
        self.is_pinned = false;
        self.release(self.extent.released);
    }

    /// Byte `at` of the run of the block at `place`, which must be there.
    pub fn byte(&self, place: Place, at: u8) -> u8 {
        self.read(self.offset(place) + Self::HEAD_BYTES + u32::from(at))
    }

    /// How many bytes the run of the block at `place` has, which must be there.
    pub fn run_len(&self, place: Place) -> u8 {
        self.read(self.offset(place))
    }

    /// Makes room by the oldest block; says whether it could.
    #[inline(never)]
    fn evict(&mut self) -> bool {
        let Some(block) = self.evictable() else { return false };
        let from = block.rows.from.max(self.extent.released);
        self.evicted_rows = self.evicted_rows.wrapping_add(from.rows_until(block.rows.to));
        self.drop_first(block);
        true
    }

    fn evictable(&self) -> Option<Block> {
        if self.when_full == WhenFull::DropNewest || self.first_is_pinned() {
            return None;
        }
        self.block(self.extent.first)
    }

    fn first_is_pinned(&self) -> bool {
        self.is_pinned && self.pinned == self.extent.first
    }

    #[inline(never)]
    fn drop_first(&mut self, block: Block) {
        let bytes = self.offset(block.next);
        self.extent.head = self.index(bytes) as u32;
        self.extent.len -= bytes;
        self.extent.first = block.next;
        self.memory.keep_extent(&self.extent);
    }

    /// How far behind the first block a place is; beyond all of them where it is before it.
    #[inline(never)]
    const fn offset(&self, place: Place) -> u32 {
        place.0.wrapping_sub(self.extent.first.0)
    }

    #[inline(never)]
    const fn index(&self, offset: u32) -> usize {
        let at = self.extent.head as usize + offset as usize;
        if at < N { at } else { at - N }
    }

    #[inline(never)]
    fn read(&self, offset: u32) -> u8 {
        self.memory.read(self.index(offset))
    }

    #[inline(never)]
    fn write(&mut self, offset: u32, byte: u8) {
        self.memory.write(self.index(offset), byte);
    }

    #[inline(never)]
    fn read_word(&self, offset: u32) -> u32 {
        (0..4).fold(0, |word, at| word >> 8 | u32::from(self.read(offset + at)) << 24)
    }

    #[inline(never)]
    fn write_word(&mut self, offset: u32, word: u32) {
        for at in 0..4 {
            self.write(offset + at, (word >> (8 * at)) as u8);
        }
    }
}

impl<const N: usize, M: Memory> PackedBytes for Blocks<N, M> {
    fn put(&mut self, at: u8, byte: u8) -> bool {
        let at = Self::HEAD_BYTES + u32::from(at);
        while self.extent.len + at >= N as u32 {
            if !self.evict() {
                return false;
            }
        }
        self.write(self.extent.len + at, byte);
        true
    }
}

impl<const N: usize, M: Memory> Backlog for Blocks<N, M> {
    fn oldest(&self) -> Seq {
        if self.extent.len == 0 { self.extent.sealed } else { Seq(self.read_word(1)) }
    }

    fn sealed(&self) -> Seq {
        self.extent.sealed
    }

    fn lost_to(&self) -> Option<Seq> {
        let oldest = self.oldest();
        self.extent.released.is_before(oldest).then_some(oldest)
    }

    fn release(&mut self, to: Seq) {
        if self.extent.released.is_before(to) {
            self.extent.released = to;
            self.memory.keep_extent(&self.extent);
        }
        while let Some(block) = self.block(self.extent.first)
            && !self.extent.released.is_before(block.rows.to)
            && !self.first_is_pinned()
        {
            self.drop_first(block);
        }
    }

    fn first(&self) -> Place {
        self.extent.first
    }

    fn block(&self, place: Place) -> Option<Block> {
        let offset = self.offset(place);
        if offset >= self.extent.len {
            return None;
        }
        let end = offset + Self::HEAD_BYTES + u32::from(self.read(offset));
        let to = if end < self.extent.len { Seq(self.read_word(end + 1)) } else { self.extent.sealed };
        let flight = Flight(self.read_word(offset + 5));
        let next = Place(self.extent.first.0.wrapping_add(end));
        Some(Block { rows: SeqRange { from: Seq(self.read_word(offset + 1)), to }, flight, next })
    }

    fn note(&mut self, place: Place, flight: Flight) {
        let offset = self.offset(place);
        if offset < self.extent.len {
            self.write_word(offset + 5, flight.0);
        }
    }
}
