//! Where the ring keeps its blocks: one array, in which they follow one another around its end.
//!
//! ```text
//! sealed block = length of the run u8 · first row u32, low byte first · what the link remembers 4 bytes · run
//! ```
//!
//! The open block is behind the last sealed one and has the same form; its head is written when it is sealed. A block
//! ends where the next one's rows begin. Its place is the number of bytes that ever stood before it.

use forebay_shared::ids::Seq;
use forebay_shared::link::{Backlog, Block, Flight, Place};
use forebay_shared::message::SeqRange;
use forebay_shared::pack::PackedBytes;

use super::WhenFull;

/// Bytes before the run of a block.
pub(super) const HEAD_BYTES: u32 = 1 + 4 + 4;

/// The blocks. See the [module](self).
#[derive(Debug)]
pub struct Blocks<const N: usize> {
    bytes: [u8; N],
    /// Where in the array the first block is, and the place of it.
    head: u32,
    first: Place,
    /// Bytes in sealed blocks.
    len: u32,
    /// One past the last sealed row.
    sealed: Seq,
    /// Rows before it are durable at the gateway.
    released: Seq,
    /// The block that is being sent, and has to stay until it has left.
    pinned: Place,
    is_pinned: bool,
    when_full: WhenFull,
    evicted_rows: u32,
}

impl<const N: usize> Blocks<N> {
    pub(super) const fn new(when_full: WhenFull) -> Self {
        Self {
            bytes: [0; N],
            head: 0,
            first: Place(0),
            len: 0,
            sealed: Seq(0),
            released: Seq(0),
            pinned: Place(0),
            is_pinned: false,
            when_full,
            evicted_rows: 0,
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) const fn number_from(&mut self, first: Seq) {
        (self.sealed, self.released) = (first, first);
    }

    pub(super) const fn used_bytes(&self) -> u32 {
        self.len
    }

    pub(super) const fn evicted_rows(&self) -> u32 {
        self.evicted_rows
    }

    pub(super) const fn released(&self) -> Seq {
        self.released
    }

    /// Whether a run of `bytes` bytes has room without another block's making it, or one would.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        self.len + HEAD_BYTES + bytes <= N as u32 || self.evictable().is_some()
    }

    /// Closes the open block, which has `len` bytes and all rows before `to`.
    pub(super) fn seal(&mut self, len: u8, to: Seq) {
        let head = [len].into_iter().chain(self.sealed.0.to_le_bytes()).chain(Flight::NEW.to_bytes());
        for (offset, byte) in (self.len..).zip(head) {
            self.write(offset, byte);
        }
        self.len += HEAD_BYTES + u32::from(len);
        self.sealed = to;
    }

    /// Keeps the block at this place until it has left, whatever happens.
    pub(super) fn pin(&mut self, place: Place) {
        (self.pinned, self.is_pinned) = (place, true);
    }

    /// Nothing is being sent any more.
    pub(super) fn unpin(&mut self) {
        self.is_pinned = false;
        self.release(self.released);
    }

    /// Byte `at` of the run of the block at `place`, which must be there.
    pub fn byte(&self, place: Place, at: usize) -> u8 {
        self.read(self.offset(place) + HEAD_BYTES + at as u32)
    }

    /// How many bytes the run of the block at `place` has, which must be there.
    pub fn run_len(&self, place: Place) -> u8 {
        self.read(self.offset(place))
    }

    /// Makes room by the oldest block; says whether it could.
    fn evict(&mut self) -> bool {
        let Some(block) = self.evictable() else { return false };
        let from = block.rows.from.max(self.released);
        self.evicted_rows = self.evicted_rows.wrapping_add(from.rows_until(block.rows.to));
        self.drop_first(block);
        true
    }

    fn evictable(&self) -> Option<Block> {
        let may = self.when_full == WhenFull::DropOldest && !self.first_is_pinned();
        self.block(self.first).filter(|_| may)
    }

    fn first_is_pinned(&self) -> bool {
        self.is_pinned && self.pinned == self.first
    }

    fn drop_first(&mut self, block: Block) {
        let bytes = self.offset(block.next);
        self.head = self.index(bytes) as u32;
        self.len -= bytes;
        self.first = block.next;
    }

    /// How far behind the first block a place is; beyond all of them where it is before it.
    const fn offset(&self, place: Place) -> u32 {
        place.0.wrapping_sub(self.first.0)
    }

    const fn index(&self, offset: u32) -> usize {
        let at = self.head as usize + offset as usize;
        if at < N { at } else { at - N }
    }

    fn read(&self, offset: u32) -> u8 {
        self.bytes.get(self.index(offset)).copied().unwrap_or_default()
    }

    fn write(&mut self, offset: u32, byte: u8) {
        let at = self.index(offset);
        if let Some(slot) = self.bytes.get_mut(at) {
            *slot = byte;
        }
    }

    fn first_row(&self, offset: u32) -> Seq {
        Seq(u32::from_le_bytes([1, 2, 3, 4].map(|at| self.read(offset + at))))
    }
}

impl<const N: usize> PackedBytes for Blocks<N> {
    fn put(&mut self, at: u8, byte: u8) -> bool {
        while self.len + HEAD_BYTES + u32::from(at) >= N as u32 {
            if !self.evict() {
                return false;
            }
        }
        self.write(self.len + HEAD_BYTES + u32::from(at), byte);
        true
    }
}

impl<const N: usize> Backlog for Blocks<N> {
    fn oldest(&self) -> Seq {
        if self.len == 0 { self.sealed } else { self.first_row(0) }
    }

    fn sealed(&self) -> Seq {
        self.sealed
    }

    fn lost_to(&self) -> Option<Seq> {
        let oldest = self.oldest();
        self.released.is_before(oldest).then_some(oldest)
    }

    fn release(&mut self, to: Seq) {
        self.released = self.released.max(to);
        while let Some(block) = self.block(self.first).filter(|block| !self.released.is_before(block.rows.to))
        {
            if self.first_is_pinned() {
                break;
            }
            self.drop_first(block);
        }
    }

    fn first(&self) -> Place {
        self.first
    }

    fn block(&self, place: Place) -> Option<Block> {
        let offset = self.offset(place);
        if offset >= self.len {
            return None;
        }
        let end = offset + HEAD_BYTES + u32::from(self.read(offset));
        let to = if end < self.len { self.first_row(end) } else { self.sealed };
        let flight = Flight::from_bytes([5, 6, 7, 8].map(|at| self.read(offset + at)));
        let next = Place(self.first.0.wrapping_add(end));
        Some(Block { rows: SeqRange { from: self.first_row(offset), to }, flight, next })
    }

    fn note(&mut self, place: Place, flight: Flight) {
        let offset = self.offset(place);
        if offset < self.len {
            for (at, byte) in (offset + 5..).zip(flight.to_bytes()) {
                self.write(at, byte);
            }
        }
    }
}
