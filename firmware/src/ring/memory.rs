//! Memory for a ring: an array of its own, or memory that outlives a reset of the chip.
//!
//! A ring takes its memory byte by byte, and says what it would need to go on from there. Only memory that is
//! [kept](super::Kept) has an ear for that.

use forebay_shared::ids::{Boot, Seq, Tick};
use forebay_shared::link::Place;

/// Bytes, and what is to be remembered of them.
pub trait Memory {
    /// How many bytes there are.
    const BYTES: usize;
    /// Whether it outlives a reset, so that a sealed block needs a check.
    const IS_KEPT: bool = false;

    /// The byte at `at`, zero beyond the end.
    fn read(&self, at: usize) -> u8;

    /// Writes the byte at `at`; beyond the end, nothing.
    fn write(&mut self, at: usize, byte: u8);

    /// The sealed blocks are there now. What is outside may be overwritten after this, not before.
    fn keep_extent(&mut self, _: &Extent) {}

    /// Rows have numbers up to `next`, and the count of time has come to `tick`, or further.
    fn keep_mark(&mut self, _: Mark) {}

    /// The gateway has assigned a boot.
    fn keep_boot(&mut self, _: Boot) {}

    /// Where the count of time was taken up again after a reset, if it was.
    fn resumed_at(&self) -> Option<Tick> {
        None
    }
}

/// Where the sealed blocks are, and which rows they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the memory the first block is, and the place of it.
    pub(super) head: u32,
    pub(super) first: Place,
    /// Bytes in sealed blocks.
    pub(super) len: u32,
    /// One past the last sealed row.
    pub(super) sealed: Seq,
    /// Rows before it are durable at the gateway.
    pub(super) released: Seq,
}

impl Extent {
    pub(super) const EMPTY: Self =
        Self { head: 0, first: Place(0), len: 0, sealed: Seq(0), released: Seq(0) };
}

/// How far the device has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The number that the next row will get.
    pub(crate) next: Seq,
    /// The latest tick that a row has, or the gateway was told.
    pub(crate) tick: Tick,
}

impl<const N: usize> Memory for [u8; N] {
    const BYTES: usize = N;

    fn read(&self, at: usize) -> u8 {
        self.get(at).copied().unwrap_or_default()
    }

    fn write(&mut self, at: usize, byte: u8) {
        if let Some(slot) = self.get_mut(at) {
            *slot = byte;
        }
    }
}

impl<const N: usize> Memory for &mut [u8; N] {
    const BYTES: usize = N;

    fn read(&self, at: usize) -> u8 {
        (**self).read(at)
    }

    fn write(&mut self, at: usize, byte: u8) {
        (**self).write(at, byte);
    }
}
