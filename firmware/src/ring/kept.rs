//! Memory that outlives a reset of the chip, with what is needed to go on from it.
//!
//! ```text
//! kept memory = 2 identities · 2 extents · 2 marks · the ring's bytes
//! identity    = turn · number of this layout · bytes of the ring · schema · ticks a second · boot or 0 · check
//! extent      = turn · head · place of the first block · bytes · sealed · released · check
//! mark        = turn · next · tick, two words · check
//! ```
//!
//! All are words of four bytes, low byte first. There are two of each, written in turns: a reset may come between any
//! two bytes, and then the earlier one holds. An extent is written before anything that it leaves out is overwritten,
//! and a mark with each row, so that the numbers that were given are known to the row. The check of a mark is a simple
//! one, since it is written so often; the others, and that of each block, are CRCs.
//!
//! Failure: where anything does not go together, nothing is taken up. The gateway learns of it as of any other reset.
//! After a reset that leaves memory alone, one of each two may be cut short; after any other all must be whole, or an
//! earlier record could pass for the last, and numbers that were given be given again.

use core::sync::atomic::{Ordering, compiler_fence};

use forebay_shared::checksum;
use forebay_shared::ids::{Boot, SchemaId, Seq, Tick};
use forebay_shared::link::Place;
use forebay_shared::link::bugs::{Bug, seeded};

use super::memory::{Extent, Mark, Memory};

const IDENTITIES: Pair<7> = Pair { at: 0, check: crc };
const EXTENTS: Pair<7> = Pair { at: 56, check: crc };
const MARKS: Pair<5> = Pair { at: 112, check: mix };

/// Bytes of kept memory beside those of the ring.
pub const KEPT_BYTES: usize = 152;

/// Of this layout, and that of blocks: another for each that there ever was.
const LAYOUT: u32 = 0xf0be_0001;

/// What a device must be to go on with a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    /// What its rows are.
    pub schema: SchemaId,
    /// What its ticks are.
    pub tick_hz: u32,
}

/// Memory that outlives a reset. See the [module](self).
#[derive(Debug)]
pub struct Kept<M> {
    memory: M,
    kin: Kin,
    boot: Option<Boot>,
    /// The latest that was kept, and where the count was taken up, if it was: their halves.
    tick: [u32; 2],
    resumed_at: [u32; 2],
    resumed: bool,
    /// The last turn of each.
    identity: u8,
    extent: u8,
    mark: u8,
}

/// What outlived a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(super) boot: Option<Boot>,
    pub(super) extent: Extent,
    pub(super) mark: Mark,
}

impl<M: Memory> Kept<M> {
    const RING_BYTES: u32 = M::BYTES.saturating_sub(KEPT_BYTES) as u32;

    /// Memory of which nothing is known yet.
    pub(crate) const fn new(memory: M, kin: Kin) -> Self {
        Self {
            memory,
            kin,
            boot: None,
            tick: [0; 2],
            resumed_at: [0; 2],
            resumed: false,
            identity: 0,
            extent: 0,
            mark: 0,
        }
    }

    /// What there is of an earlier life of the same kin, if the reset left the memory alone, or did no harm to it. Its
    /// blocks are yet to be looked at.
    pub(super) fn survivor(&mut self, left_alone: bool) -> Option<Survivor> {
        let [_, layout, ring, schema, tick_hz, boot, _] =
            IDENTITIES.read(&mut self.identity, &self.memory, left_alone)?;
        let is_same = schema == self.kin.schema.0 || seeded(Bug::SchemaIgnored);
        if [layout, ring, tick_hz] != [LAYOUT, Self::RING_BYTES, self.kin.tick_hz] || !is_same {
            return None;
        }
        let [_, head, first, len, sealed, released, _] =
            EXTENTS.read(&mut self.extent, &self.memory, left_alone)?;
        let (first, sealed, released) = (Place(first), Seq(sealed), Seq(released));
        let [_, next, low, high, _] = MARKS.read(&mut self.mark, &self.memory, left_alone)?;
        let mark = Mark { next: Seq(next), tick: tick([low, high]) };
        Some(Survivor { boot: Boot::new(boot), extent: Extent { head, first, len, sealed, released }, mark })
    }

    /// Goes on where the earlier life ended.
    pub(super) fn resume(&mut self, survivor: &Survivor) {
        let tick = Tick(survivor.mark.tick.0.saturating_add(1));
        (self.boot, self.resumed_at, self.resumed) = (survivor.boot, halves(tick), true);
        self.keep_mark(Mark { tick, ..survivor.mark });
    }

    /// Begins a first life. As long as that is cut short, there is nothing that could be taken up.
    pub(super) fn begin(&mut self) {
        for at in 0..KEPT_BYTES {
            self.memory.write(at, 0);
        }
        compiler_fence(Ordering::SeqCst);
        for _ in 0..2 {
            self.keep_extent(&Extent::EMPTY);
            self.keep_mark(Mark { next: Seq(0), tick: Tick(0) });
        }
        self.identify();
    }

    /// The boot of this life, if a gateway has assigned one.
    pub(super) const fn boot(&self) -> Option<Boot> {
        self.boot
    }

    fn identify(&mut self) {
        let Kin { schema, tick_hz } = self.kin;
        let boot = self.boot.map_or(0, Boot::get);
        let record = [0, LAYOUT, Self::RING_BYTES, schema.0, tick_hz, boot, 0];
        // Both of them: rows must not come up under another boot than before, whatever happens to one.
        IDENTITIES.write(&mut self.identity, &mut self.memory, record);
        IDENTITIES.write(&mut self.identity, &mut self.memory, record);
    }
}

impl<M: Memory> Memory for Kept<M> {
    const BYTES: usize = M::BYTES.saturating_sub(KEPT_BYTES);
    const IS_KEPT: bool = true;

    fn read(&self, at: usize) -> u8 {
        self.memory.read(KEPT_BYTES + at)
    }

    fn write(&mut self, at: usize, byte: u8) {
        self.memory.write(KEPT_BYTES + at, byte);
    }

    fn keep_extent(&mut self, extent: &Extent) {
        let Extent { head, first: Place(first), len, sealed: Seq(sealed), released: Seq(released) } = *extent;
        EXTENTS.write(&mut self.extent, &mut self.memory, [0, head, first, len, sealed, released, 0]);
    }

    fn keep_mark(&mut self, Mark { next: Seq(next), tick: latest }: Mark) {
        self.tick = halves(latest.max(tick(self.tick)));
        let [low, high] = self.tick;
        MARKS.write(&mut self.mark, &mut self.memory, [0, next, low, high, 0]);
    }

    fn keep_boot(&mut self, boot: Boot) {
        if self.boot != Some(boot) {
            self.boot = Some(boot);
            self.identify();
        }
    }

    fn resumed_at(&self) -> Option<Tick> {
        self.resumed.then_some(tick(self.resumed_at))
    }
}

/// Two records of `WORDS` words, written in turns: the first of them is the number of the turn, the last the check.
struct Pair<const WORDS: usize> {
    at: usize,
    check: fn(&[u32]) -> u32,
}

impl<const WORDS: usize> Pair<WORDS> {
    /// The later of those that are whole; or nothing, where one may not be cut short and is.
    fn read(&self, turn: &mut u8, memory: &impl Memory, may_be_cut: bool) -> Option<[u32; WORDS]> {
        let mut last = None;
        for odd in [0, 1] {
            let record = self.record(odd, memory);
            let its_turn = record[0] as u8;
            let is_whole = (self.check)(&record[..WORDS - 1]) == record[WORDS - 1] && its_turn & 1 == odd;
            if !is_whole && !may_be_cut {
                return None;
            }
            if is_whole && (last.is_none() || its_turn.wrapping_sub(*turn).cast_signed() > 0) {
                (*turn, last) = (its_turn, Some(record));
            }
        }
        last
    }

    fn record(&self, odd: u8, memory: &impl Memory) -> [u32; WORDS] {
        let mut record = [0; WORDS];
        for (at, word) in (self.place(odd)..).step_by(4).zip(&mut record) {
            *word = u32::from_le_bytes([0, 1, 2, 3].map(|byte| memory.read(at + byte)));
        }
        record
    }

    fn write(&self, turn: &mut u8, memory: &mut impl Memory, mut record: [u32; WORDS]) {
        *turn = turn.wrapping_add(1);
        record[0] = u32::from(*turn);
        record[WORDS - 1] = (self.check)(&record[..WORDS - 1]);
        // Nothing that came before may be written after this, nor the other way round.
        compiler_fence(Ordering::SeqCst);
        for (at, word) in (self.place(*turn & 1)..).step_by(4).zip(record) {
            for (byte, bits) in (0..).zip(word.to_le_bytes()) {
                memory.write(at + byte, bits);
            }
        }
        compiler_fence(Ordering::SeqCst);
    }

    const fn place(&self, odd: u8) -> usize {
        self.at + if odd == 0 { 0 } else { 4 * WORDS }
    }
}

fn crc(words: &[u32]) -> u32 {
    checksum(words.iter().flat_map(|word| word.to_le_bytes()))
}

/// Memory that was never written, all zeros or all ones, does not pass.
fn mix(words: &[u32]) -> u32 {
    words.iter().fold(0x5a5a_a5a5, |sum: u32, word| (sum ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15))
}

const fn halves(tick: Tick) -> [u32; 2] {
    [tick.0 as u32, (tick.0 >> 32) as u32]
}

const fn tick([low, high]: [u32; 2]) -> Tick {
    Tick((high as u64) << 32 | low as u64)
}
