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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use forebay_shared::block::Block;
    use forebay_shared::ids::Tick;
    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(0);

    fn push<const N: usize>(ring: &mut Ring<N>, value: u32) -> Seq {
        ring.push(Tick(u64::from(value)), GROUP, &[Some(Value::U32(value))])
    }

    fn range(from: u32, to: u32) -> SeqRange {
        SeqRange { from: Seq(from), to: Seq(to) }
    }

    #[test]
    fn rows_stay_until_their_block_is_released() {
        let mut ring = Ring::<512>::new();
        for value in 0..10 {
            assert_eq!(push(&mut ring, value), Seq(value));
        }
        assert_eq!(ring.find(Seq(0)), None, "the open block is not sealed");
        ring.seal();
        push(&mut ring, 10);
        ring.seal();
        ring.seal();
        assert_eq!(ring.find(Seq(9)).unwrap().rows, range(0, 10));
        assert_eq!(ring.find(Seq(10)).unwrap().rows, range(10, 11));
        assert_eq!(ring.find(Seq(11)), None);
        ring.release(Seq(9));
        assert_eq!((ring.oldest(), ring.unreleased()), (Seq(0), Seq(9)));
        ring.release(Seq(10));
        assert_eq!((ring.oldest(), ring.find(Seq(9))), (Seq(10), None));
        ring.release(Seq(11));
        assert_eq!((ring.used_bytes(), ring.oldest(), ring.lost()), (0, Seq(11), None));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let mut ring = Ring::<512>::new();
        while ring.lost().is_none() {
            let value = ring.next().0;
            push(&mut ring, value);
        }
        let first = ring.lost().unwrap();
        assert_eq!((first.from, first.to), (Seq(0), ring.oldest()));
        assert_eq!((ring.evicted_rows(), ring.unreleased()), (first.to.0, Seq(0)));
        ring.release(Seq(3));
        assert_eq!(ring.lost(), Some(range(3, first.to.0)));
        while ring.lost().unwrap().to == first.to {
            let value = ring.next().0;
            push(&mut ring, value);
        }
        let grown = ring.lost().unwrap();
        assert_eq!((grown.from, grown.to), (Seq(3), ring.oldest()));
        ring.release(grown.to);
        assert_eq!((ring.lost(), ring.unreleased()), (None, ring.oldest()));
    }

    #[test]
    fn a_released_row_is_not_lost_with_its_block() {
        let mut ring = Ring::<512>::new();
        for value in 0..10 {
            push(&mut ring, value);
        }
        ring.seal();
        ring.release(Seq(4));
        while ring.lost().is_none() {
            let value = ring.next().0;
            push(&mut ring, value);
        }
        assert_eq!((ring.lost(), ring.evicted_rows()), (Some(range(4, 10)), 6));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u32),
        Seal,
        Release(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => any::<u32>().prop_map(Step::Push),
            1 => Just(Step::Seal),
            1 => (0..60_u32).prop_map(Step::Release),
        ]
    }

    proptest! {
        /// Against a list of rows: every one is released, lost, or in the ring with the bytes it had.
        #[test]
        fn every_row_is_somewhere(steps in proptest::collection::vec(step(), 0..600)) {
            let mut ring = Ring::<600>::new();
            let mut sealed: VecDeque<(SeqRange, Vec<u8>)> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(value) => {
                        push(&mut ring, value);
                    }
                    Step::Seal => ring.seal(),
                    Step::Release(rows) => {
                        let to = ring.unreleased().plus(rows);
                        ring.release(to.min(ring.sealed()));
                    }
                }
                prop_assert!(ring.used_bytes() <= 600);
                let mut at = ring.oldest();
                let mut found = VecDeque::new();
                while let Some(block) = ring.find(at) {
                    prop_assert_eq!(block.rows.from, at);
                    at = block.rows.to;
                    found.push_back((block.rows, [block.parts.0, block.parts.1].concat()));
                }
                prop_assert_eq!(at, ring.sealed());
                prop_assert_eq!(at.plus(u32::from(ring.open_rows())), ring.next());
                if let Some(lost) = ring.lost() {
                    prop_assert_eq!(lost.to, ring.oldest());
                    prop_assert!(lost.from.is_before(lost.to));
                }
                while sealed.front().is_some_and(|(rows, _)| rows.from.is_before(ring.oldest())) {
                    sealed.pop_front();
                }
                prop_assert!(found.iter().zip(&sealed).all(|(now, before)| now == before), "a block changed");
                for (rows, bytes) in &found {
                    let block = Block::parse(bytes).unwrap();
                    prop_assert_eq!((block.first(), block.end()), (rows.from, rows.to));
                }
                sealed = found;
            }
        }
    }
}
