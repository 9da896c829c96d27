//! The device's cache: rows as sealed, encoded blocks, in a ring of fixed size.
//!
//! *In:* rows from the device's sensors. *Out:* sealed blocks. *Next:* `shared/src/link/sender.rs`.
//!
//! A row is encoded once, into the open block, which is behind the sealed ones in the same memory. A block leaves when
//! all its rows are released. Where there is no room for another byte, the oldest block makes it, and its rows are
//! *lost*, which is remembered until the gateway has confirmed that too. The oldest always go first, so what is lost is
//! one range, and row numbers in the ring have no hole:
//!
//! ```text
//! released ┊ lost ┊ oldest ┊ sealed blocks ┊ sealed ┊ open block ┊ refused ┊ next
//! ```
//!
//! Rows that find no room, since the oldest block is not to be dropped or is just on its way, and rows that never came as
//! far as the ring, are *refused*: they have numbers, and the open block says so as soon as it can.

mod blocks;
mod kept;
#[cfg(test)]
mod kept_tests;
mod memory;
mod uninit;

use forebay_shared::ids::{Boot, Seq, Tick};
use forebay_shared::link::bugs::{Bug, seeded};
use forebay_shared::link::{Backlog, Place};
use forebay_shared::message::{GapCause, SeqRange};
use forebay_shared::pack::{PackError, PackItem, PackRow, Packer};

pub use blocks::Blocks;
pub use kept::{KEPT_BYTES, Kept, Kin};
pub use memory::{Extent, Mark, Memory};
pub use uninit::Uninit;

/// Fewest bytes that a ring may have: two of the largest blocks.
pub const RING_BYTES_MIN: usize = 512;

/// Most bytes in which the open block says what was refused.
const REFUSED_BYTES_MAX: u32 = 6;

/// What makes way when the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest block: the latest readings matter most.
    DropOldest,
    /// The newest row: what led to the present matters most.
    DropNewest,
}

/// Rows of at most `CHANNELS` channels that wait for the gateway, in at most `N` bytes. See the [module](self).
#[derive(Debug)]
pub struct Ring<const N: usize, const CHANNELS: usize, M = [u8; N]> {
    blocks: Blocks<N, M>,
    packer: Packer<CHANNELS>,
    /// One past the last row in the open block.
    open_to: Seq,
    refused: u32,
    cause: GapCause,
}

impl<const N: usize, const CHANNELS: usize> Ring<N, CHANNELS> {
    /// An empty ring whose first row will get number 0.
    pub const fn new(when_full: WhenFull) -> Self {
        Self::within([0; N], when_full)
    }
}

impl<const N: usize, const CHANNELS: usize, M: Memory> Ring<N, CHANNELS, Kept<M>> {
    /// A ring that goes on from what is in the memory, which the reset has `left_alone` for sure or not; or an empty one,
    /// where nothing in it can be taken up.
    pub fn resume(memory: M, kin: Kin, when_full: WhenFull, left_alone: bool) -> Self {
        let mut ring = Self::within(Kept::new(memory, kin), when_full);
        if let Some(survivor) = ring.blocks.memory_mut().survivor(left_alone)
            && survivor.mark.next.distance_from(survivor.extent.sealed) >= 0
            && ring.blocks.resume(survivor.extent)
        {
            let sealed = survivor.extent.sealed;
            ring.open_to = sealed;
            ring.blocks.memory_mut().resume(&survivor);
            if !seeded(Bug::OpenRowsForgotten) {
                // Of the rows of the open block nothing is left but their numbers. They are declared at once: without
                // a link nothing would seal them, and a gateway may have them already.
                (ring.refused, ring.cause) = (sealed.rows_until(survivor.mark.next), GapCause::RESET);
                ring.seal();
            }
        } else {
            ring.blocks.memory_mut().begin();
        }
        ring
    }

    /// The boot of the rows, if a gateway has assigned one.
    pub fn boot(&self) -> Option<Boot> {
        self.blocks.memory().boot()
    }
}

impl<const N: usize, const CHANNELS: usize, M: Memory> Ring<N, CHANNELS, M> {
    /// An empty ring in this memory, whose first row will get number 0.
    pub const fn within(memory: M, when_full: WhenFull) -> Self {
        const { assert!(N >= RING_BYTES_MIN, "a ring has at least 512 bytes") };
        const { assert!(M::BYTES == N, "the memory is as large as the ring, or KEPT_BYTES larger if kept") };
        Self {
            blocks: Blocks::new(memory, when_full),
            packer: Packer::new(),
            open_to: Seq(0),
            refused: 0,
            cause: GapCause::OVERFLOW,
        }
    }

    /// Numbers rows from `first` on.
    #[cfg(feature = "simulation")]
    pub(crate) fn number_from(&mut self, first: Seq) {
        self.open_to = first;
        self.blocks.number_from(first);
        self.mark(Tick(0));
    }

    /// Notes where the numbers are, and the time, unless it was further before, for a life after a reset.
    pub fn mark(&mut self, tick: Tick) {
        let next = self.next();
        self.blocks.memory_mut().keep_mark(Mark { next, tick });
    }

    /// The gateway has assigned a boot, which the rows keep.
    pub fn keep_boot(&mut self, boot: Boot) {
        self.blocks.memory_mut().keep_boot(boot);
    }

    /// Where the count of time went on after a reset, if it did.
    pub fn resumed_at(&self) -> Option<Tick> {
        self.blocks.memory().resumed_at()
    }

    /// Appends a row; `false` where it is refused. It has a number in either case. The caller has checked the values
    /// against the group.
    pub fn push(&mut self, row: PackRow<'_>) -> bool {
        let taken = self.declare_refused() && self.pack(&PackItem::Row(row));
        if taken {
            self.open_to = self.open_to.plus(1);
        } else {
            self.refuse(1, GapCause::OVERFLOW);
        }
        self.mark(row.tick);
        taken
    }

    /// Gives numbers to rows that are lost for this cause.
    pub fn skip(&mut self, rows: u32, cause: GapCause) {
        if self.cause != cause {
            self.declare_refused();
        }
        self.refuse(rows, cause);
        self.mark(Tick(0));
    }

    /// Closes the open block, if it has anything to say.
    pub fn seal(&mut self) {
        self.declare_refused();
        self.close();
    }

    /// Whether there is something to seal.
    pub fn is_open(&self) -> bool {
        !self.packer.is_empty() || (self.refused > 0 && self.blocks.has_room(REFUSED_BYTES_MAX))
    }

    /// Lets go of all blocks whose rows come before `to`.
    pub fn release(&mut self, to: Seq) {
        self.blocks.release(to);
    }

    /// Keeps the block at this place, and no other, until it has left.
    pub fn pin(&mut self, place: Place) {
        self.blocks.pin(place);
    }

    /// No block is on its way any more.
    pub fn unpin(&mut self) {
        self.blocks.unpin();
    }

    /// The sealed blocks.
    pub const fn blocks(&self) -> &Blocks<N, M> {
        &self.blocks
    }

    /// The sealed blocks, for the link to note what became of them.
    pub const fn blocks_mut(&mut self) -> &mut Blocks<N, M> {
        &mut self.blocks
    }

    /// The number that the next row will get.
    pub const fn next(&self) -> Seq {
        self.open_to.plus(self.refused)
    }

    /// Rows that made room for newer ones and are not released.
    pub fn lost(&self) -> Option<SeqRange> {
        self.blocks.lost_to().map(|to| SeqRange { from: self.blocks.released(), to })
    }

    /// First row that is not released, in the ring or lost.
    pub const fn unreleased(&self) -> Seq {
        self.blocks.released()
    }

    /// Bytes in sealed blocks.
    pub const fn used_bytes(&self) -> usize {
        self.blocks.used_bytes() as usize
    }

    /// Rows that ever made room for newer ones without having been released. A row that the gateway has,
    /// and whose release was still on its way, counts too.
    pub const fn evicted_rows(&self) -> u32 {
        self.blocks.evicted_rows()
    }

    fn refuse(&mut self, rows: u32, cause: GapCause) {
        if self.refused == 0 {
            self.cause = cause;
        }
        self.refused = self.refused.saturating_add(rows);
    }

    /// Says in the open block what was refused; `false` where there is no room even for that.
    fn declare_refused(&mut self) -> bool {
        let (rows, cause) = (self.refused, self.cause);
        let declared = rows == 0 || self.pack(&PackItem::Lost { rows, cause });
        if declared {
            self.open_to = self.open_to.plus(rows);
            self.refused = 0;
        }
        declared
    }

    /// Packs into the open block, or into a new one where it is full.
    fn pack(&mut self, item: &PackItem<'_>) -> bool {
        let mut packed = self.packer.push(item, &mut self.blocks);
        if packed == Err(PackError::Full) {
            self.close();
            packed = self.packer.push(item, &mut self.blocks);
        }
        if packed.is_err() {
            self.close();
        }
        packed.is_ok()
    }

    fn close(&mut self) {
        let len = self.packer.len();
        if len > 0 {
            self.blocks.seal(len, self.open_to);
        }
        self.packer.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use forebay_shared::block::{self, BlockError, Form, Row, packed_head};
    use forebay_shared::ids::{GroupId, Tick};
    use forebay_shared::reading::{Channel, Group, Groups, Schema, Value, ValueKind};
    use proptest::prelude::*;

    use super::*;

    const GROUPS: Groups = Groups::new(&[Group {
        name: "meter",
        channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
    }]);

    fn new<const N: usize>() -> Ring<N, 1> {
        Ring::new(WhenFull::DropOldest)
    }

    /// Appends a row, and gives its number.
    pub(super) fn push<const N: usize, M: Memory>(ring: &mut Ring<N, 1, M>, value: u32) -> Seq {
        let seq = ring.next();
        let values = [Some(Value::U32(value))];
        let (tick, group, channels_before) = (Tick(u64::from(seq.0)), GroupId(0), 0);
        ring.push(PackRow { tick, group, channels_before, values: &values });
        seq
    }

    /// Values that take about four bytes each.
    fn noise(seq: Seq) -> u32 {
        seq.0.wrapping_mul(0x9e37_79b9)
    }

    fn fill_until<const N: usize>(ring: &mut Ring<N, 1>, done: impl Fn(&Ring<N, 1>) -> bool) {
        while !done(ring) {
            let value = noise(ring.next());
            push(ring, value);
        }
    }

    /// The sealed blocks with their rows.
    pub(super) fn sealed<const N: usize, M: Memory>(ring: &Ring<N, 1, M>) -> VecDeque<(SeqRange, Vec<Row>)> {
        let schema = Schema::new(GROUPS.descriptions()).unwrap();
        let mut at = ring.blocks().first();
        let mut found = VecDeque::new();
        while let Some(block) = ring.blocks().block(at) {
            let run: Vec<_> =
                (0..ring.blocks().run_len(at)).map(|byte| ring.blocks().byte(at, byte)).collect();
            let bytes = [&packed_head(block.rows)[..], &run].concat();
            let rows = block::Block::parse(Form::Packed, &bytes).unwrap().rows(&schema);
            found.push_back((block.rows, rows.collect::<Result<Vec<_>, BlockError>>().unwrap()));
            at = block.next;
        }
        found
    }

    fn blocks<const N: usize>(ring: &Ring<N, 1>) -> Vec<SeqRange> {
        sealed(ring).into_iter().map(|(rows, _)| rows).collect()
    }

    fn range(from: u32, to: u32) -> SeqRange {
        SeqRange { from: Seq(from), to: Seq(to) }
    }

    #[test]
    fn rows_stay_until_their_block_is_released() {
        let mut ring = new::<512>();
        for value in 0..10 {
            assert_eq!(push(&mut ring, value), Seq(value));
        }
        assert_eq!((blocks(&ring), ring.is_open()), ([].to_vec(), true), "the open block is not sealed");
        ring.seal();
        push(&mut ring, 10);
        ring.seal();
        ring.seal();
        assert_eq!(blocks(&ring), [range(0, 10), range(10, 11)]);
        ring.release(Seq(9));
        assert_eq!((ring.blocks().oldest(), ring.unreleased()), (Seq(0), Seq(9)));
        ring.release(Seq(10));
        assert_eq!(blocks(&ring), [range(10, 11)]);
        ring.release(Seq(11));
        assert_eq!((ring.used_bytes(), ring.blocks().oldest(), ring.lost()), (0, Seq(11), None));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let mut ring = new::<512>();
        fill_until(&mut ring, |ring| ring.lost().is_some());
        let first = ring.lost().unwrap();
        assert_eq!((first.from, first.to), (Seq(0), ring.blocks().oldest()));
        assert_eq!((ring.evicted_rows(), ring.unreleased()), (first.to.0, Seq(0)));
        ring.release(Seq(3));
        assert_eq!(ring.lost(), Some(range(3, first.to.0)));
        fill_until(&mut ring, |ring| ring.lost().unwrap().to != first.to);
        let grown = ring.lost().unwrap();
        assert_eq!((grown.from, grown.to), (Seq(3), ring.blocks().oldest()));
        ring.release(grown.to);
        assert_eq!((ring.lost(), ring.unreleased()), (None, ring.blocks().oldest()));
    }

    #[test]
    fn a_released_row_is_not_lost_with_its_block() {
        let mut ring = new::<512>();
        for value in 0..10 {
            push(&mut ring, value);
        }
        ring.seal();
        ring.release(Seq(4));
        fill_until(&mut ring, |ring| ring.lost().is_some());
        assert_eq!((ring.lost(), ring.evicted_rows()), (Some(range(4, 10)), 6));
    }

    /// What a ring says when it has refused rows, and has room again.
    fn declared<const N: usize>(ring: &mut Ring<N, 1>) -> (SeqRange, GapCause) {
        let refused = ring.open_to;
        let next = push(ring, 7);
        assert_eq!(ring.refused, 0, "there is room again");
        ring.seal();
        let rows: Vec<_> = sealed(ring).into_iter().flat_map(|(_, rows)| rows).collect();
        let [.., Row::Lost { from, to, cause }, Row::Sample(last)] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((*from, last.seq), (refused, next));
        (SeqRange { from: *from, to: *to }, *cause)
    }

    #[test]
    fn the_newest_make_way_where_they_shall() {
        let mut ring = Ring::<512, 1>::new(WhenFull::DropNewest);
        fill_until(&mut ring, |ring| ring.next() == Seq(1000));
        assert_eq!((ring.blocks().oldest(), ring.lost(), ring.is_open()), (Seq(0), None, false));
        let first = blocks(&ring)[0];
        ring.release(first.to);
        assert!(ring.is_open(), "it can say what it has refused");
        let (refused, cause) = declared(&mut ring);
        assert_eq!((refused.to, cause), (Seq(1000), GapCause::OVERFLOW));
    }

    #[test]
    fn a_block_on_its_way_does_not_make_room() {
        let mut ring = new::<512>();
        fill_until(&mut ring, |ring| blocks(ring).len() == 1);
        let first = ring.blocks().first();
        ring.pin(first);
        fill_until(&mut ring, |ring| ring.next() == Seq(1000));
        ring.release(ring.blocks().oldest());
        assert_eq!((ring.blocks().first(), ring.lost()), (first, None));
        ring.release(blocks(&ring)[0].to);
        assert_eq!(ring.blocks().first(), first, "nor does it go when it is released");
        ring.unpin();
        assert_ne!(ring.blocks().first(), first);
        let (refused, cause) = declared(&mut ring);
        assert_eq!((refused.to, cause), (Seq(1000), GapCause::OVERFLOW));
    }

    #[test]
    fn rows_that_never_came_are_numbered() {
        let mut ring = new::<512>();
        push(&mut ring, 1);
        ring.skip(3, GapCause::SENSOR);
        ring.skip(2, GapCause::SENSOR);
        ring.skip(1, GapCause::OVERRUN);
        assert_eq!(declared(&mut ring), (range(6, 7), GapCause::OVERRUN));
        let lost = Row::Lost { from: Seq(1), to: Seq(6), cause: GapCause::SENSOR };
        assert_eq!(sealed(&ring)[0].1[1], lost);
        ring.skip(1, GapCause::SENSOR);
        assert!(ring.is_open());
        ring.seal();
        assert_eq!(blocks(&ring).last(), Some(&range(8, 9)), "nothing else need come");
    }

    #[derive(Debug, Clone)]
    pub(super) enum Step {
        Push(u32),
        Skip(u32),
        Seal,
        Release(u32),
        Pin(bool),
    }

    pub(super) fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => any::<u32>().prop_map(Step::Push),
            1 => (1..9_u32).prop_map(Step::Skip),
            1 => Just(Step::Seal),
            1 => (0..60_u32).prop_map(Step::Release),
            1 => any::<bool>().prop_map(Step::Pin),
        ]
    }

    proptest! {
        /// Against a list of rows: every one is released, lost, or in the ring as it was or as refused.
        #[test]
        fn every_row_is_somewhere(newest in any::<bool>(), steps in proptest::collection::vec(step(), 0..300)) {
            let mut ring =
                Ring::<600, 1>::new(if newest { WhenFull::DropNewest } else { WhenFull::DropOldest });
            let mut given: Vec<Option<u32>> = Vec::new();
            let mut before: VecDeque<(SeqRange, Vec<Row>)> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(value) => {
                        push(&mut ring, value);
                        given.push((ring.refused == 0).then_some(value));
                    }
                    Step::Skip(rows) => {
                        ring.skip(rows, GapCause::SENSOR);
                        given.extend((0..rows).map(|_| None));
                    }
                    Step::Seal => ring.seal(),
                    Step::Release(rows) => {
                        let to = ring.unreleased().plus(rows);
                        ring.release(to.min(ring.blocks().sealed()));
                    }
                    Step::Pin(true) => ring.pin(ring.blocks().first()),
                    Step::Pin(false) => ring.unpin(),
                }
                prop_assert!(ring.used_bytes() <= 600);
                prop_assert_eq!(ring.next(), Seq(given.len() as u32));
                let found = sealed(&ring);
                let mut at = ring.blocks().oldest();
                for (rows, content) in &found {
                    prop_assert_eq!(rows.from, at);
                    at = rows.to;
                    for row in content {
                        match row {
                            Row::Sample(row) => {
                                let value = given[row.seq.0 as usize].map(|value| (0, Value::U32(value)));
                                prop_assert_eq!(row.values.first().copied(), value);
                            }
                            Row::Lost { from, to, .. } => {
                                prop_assert!(given[from.0 as usize..to.0 as usize].iter().all(Option::is_none));
                            }
                        }
                    }
                }
                prop_assert_eq!(at, ring.blocks().sealed());
                if let Some(lost) = ring.lost() {
                    prop_assert_eq!(lost.to, ring.blocks().oldest());
                    prop_assert!(lost.from.is_before(lost.to));
                    prop_assert!(!newest);
                }
                while before.front().is_some_and(|(rows, _)| rows.from.is_before(ring.blocks().oldest())) {
                    before.pop_front();
                }
                prop_assert!(found.iter().zip(&before).all(|(now, before)| now == before), "a block changed");
                before = found;
            }
        }
    }
}
