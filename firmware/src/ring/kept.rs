//! Memory that outlives a reset of the chip, with what is needed to go on from it.
//!
//! ```text
//! kept memory = 2 identities · 2 extents · 2 marks · the ring's bytes
//! identity    = turn · number of this layout · bytes of the ring · schema · boot or 0 · resumed at, two words · check
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

/// Bytes of kept memory beside those of the ring.
pub const KEPT_BYTES: usize = 2 * 4 * (8 + 7 + 5);

/// Of this layout, and that of blocks: another for each that there ever was.
const LAYOUT: u32 = 0xf0be_0001;

/// Memory that outlives a reset. See the [module](self).
#[derive(Debug)]
pub struct Kept<M> {
    memory: M,
    schema: SchemaId,
    boot: Option<Boot>,
    resumed_at: Option<Tick>,
    /// The latest that was kept.
    tick: Tick,
    identities: Pair<6>,
    extents: Pair<5>,
    marks: Pair<3>,
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

    /// Memory of which nothing is known yet, for a ring of this schema.
    pub(crate) const fn new(memory: M, schema: SchemaId) -> Self {
        Self {
            memory,
            schema,
            boot: None,
            resumed_at: None,
            tick: Tick(0),
            identities: Pair { at: 0, turn: 0, check: crc },
            extents: Pair { at: 64, turn: 0, check: crc },
            marks: Pair { at: 120, turn: 0, check: sum },
        }
    }

    /// What there is of an earlier life with this schema, if the reset left the memory alone, or did no harm to it. Its
    /// blocks are yet to be looked at.
    pub(super) fn survivor(&mut self, left_alone: bool) -> Option<Survivor> {
        let [layout, ring, schema, boot, ..] = self.identities.read(&self.memory, left_alone)?;
        let is_same = schema == self.schema.0 || seeded(Bug::SchemaIgnored);
        if [layout, ring] != [LAYOUT, Self::RING_BYTES] || !is_same {
            return None;
        }
        let [head, first, len, sealed, released] = self.extents.read(&self.memory, left_alone)?;
        let (first, sealed, released) = (Place(first), Seq(sealed), Seq(released));
        let [next, low, high] = self.marks.read(&self.memory, left_alone)?;
        let mark = Mark { next: Seq(next), tick: Tick(u64::from(high) << 32 | u64::from(low)) };
        Some(Survivor { boot: Boot::new(boot), extent: Extent { head, first, len, sealed, released }, mark })
    }

    /// Goes on where the earlier life ended.
    pub(super) fn resume(&mut self, survivor: &Survivor) {
        let tick = Tick(survivor.mark.tick.0.saturating_add(1));
        (self.boot, self.resumed_at) = (survivor.boot, Some(tick));
        self.keep_mark(Mark { tick, ..survivor.mark });
        self.identify();
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
        let [low, high] = halves(self.resumed_at.unwrap_or(Tick(0)));
        let boot = self.boot.map_or(0, Boot::get);
        let words = [LAYOUT, Self::RING_BYTES, self.schema.0, boot, low, high];
        // Both of them: rows must not come up under another boot than before, whatever happens to one.
        self.identities.write(&mut self.memory, words);
        self.identities.write(&mut self.memory, words);
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
        self.extents.write(&mut self.memory, [head, first, len, sealed, released]);
    }

    fn keep_mark(&mut self, Mark { next: Seq(next), tick }: Mark) {
        self.tick = self.tick.max(tick);
        let [low, high] = halves(self.tick);
        self.marks.write(&mut self.memory, [next, low, high]);
    }

    fn keep_boot(&mut self, boot: Boot) {
        if self.boot != Some(boot) {
            self.boot = Some(boot);
            self.identify();
        }
    }

    fn resumed_at(&self) -> Option<Tick> {
        self.resumed_at
    }
}

/// Two records of `WORDS` words, written in turns. Before them stands the number of the turn, behind them the check.
#[derive(Debug)]
struct Pair<const WORDS: usize> {
    at: usize,
    /// Of the record that was written last.
    turn: u32,
    check: fn(u32, &[u32]) -> u32,
}

impl<const WORDS: usize> Pair<WORDS> {
    /// The later of those that are whole; or nothing, where one may not be cut short and is.
    fn read(&mut self, memory: &impl Memory, may_be_cut: bool) -> Option<[u32; WORDS]> {
        let mut last = None;
        for odd in [0, 1] {
            let at = self.record(odd);
            let word = |index: usize| {
                u32::from_le_bytes([0, 1, 2, 3].map(|byte| memory.read(at + 4 * index + byte)))
            };
            let (turn, words) = (word(0), core::array::from_fn(|index| word(1 + index)));
            if word(1 + WORDS) != (self.check)(turn, &words) || turn & 1 != odd {
                if may_be_cut {
                    continue;
                }
                return None;
            }
            if last.is_none() || turn.wrapping_sub(self.turn).cast_signed() > 0 {
                (self.turn, last) = (turn, Some(words));
            }
        }
        last
    }

    fn write(&mut self, memory: &mut impl Memory, words: [u32; WORDS]) {
        self.turn = self.turn.wrapping_add(1);
        let check = (self.check)(self.turn, &words);
        let all = [self.turn].into_iter().chain(words).chain([check]).flat_map(u32::to_le_bytes);
        // Nothing that came before may be written after this, nor the other way round.
        compiler_fence(Ordering::SeqCst);
        for (at, byte) in (self.record(self.turn & 1)..).zip(all) {
            memory.write(at, byte);
        }
        compiler_fence(Ordering::SeqCst);
    }

    const fn record(&self, odd: u32) -> usize {
        self.at + if odd == 0 { 0 } else { 4 * (WORDS + 2) }
    }
}

fn crc(turn: u32, words: &[u32]) -> u32 {
    checksum([turn].iter().chain(words).flat_map(|word| word.to_le_bytes()))
}

/// Memory that was never written, all zeros or all ones, does not pass.
fn sum(turn: u32, words: &[u32]) -> u32 {
    let mixed = |sum: u32, word: &u32| (sum ^ *word).wrapping_mul(0x9e37_79b1).rotate_left(15);
    words.iter().fold(mixed(0x5a5a_a5a5, &turn), mixed)
}

const fn halves(tick: Tick) -> [u32; 2] {
    [tick.0 as u32, (tick.0 >> 32) as u32]
}
