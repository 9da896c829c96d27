//! Names of devices and sinks, all of one length, so that frames of successive lives are too.

use crate::journal::state::OTHERS;

/// The first [`NATIVES`] speak our protocol.
pub(super) const DEVICES: [&str; 5] = ["e66141", "e66142", "meter1", "meter2", "meter3"];
pub(super) const NATIVES: usize = 2;
pub(super) const SINKS: [&str; 2] = ["influx", "sqlite"];

/// The static one of a name, or of the account of those for whom there is no room.
pub(super) fn interned(names: &[&'static str], name: &str) -> &'static str {
    names.iter().find(|known| **known == name).copied().unwrap_or(OTHERS)
}

/// A generator of the workload's choices, splitmix64.
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Mixes numbers into one that tells them apart.
pub(super) fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x5851_f42d_4c95_7f2d, |hash, number| Rng(hash ^ number).next())
}
