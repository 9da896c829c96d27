//! What a bad serial line does to bytes, for simulations: the same on the virtual clock of the link's tests and on the
//! lines of a simulated fleet.
//!
//! Each byte meets at most one fault, and what it meets follows from the seed and from how many bytes came before it,
//! not from how they were handed over. Nothing here belongs into a product, which has no feature `noise`.

/// Numbers that look random, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// How likely something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chance(u64);

/// How likely each fault is for a byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noise {
    /// One of its bits is turned over.
    pub flip: Chance,
    /// It does not arrive.
    pub drop: Chance,
    /// It arrives twice.
    pub duplicate: Chance,
    /// Another one arrives before it; every second time a zero, which ends a frame.
    pub insert: Chance,
}

/// How many bytes met which fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harmed {
    /// Arrived with a bit turned over.
    pub flipped: u64,
    /// Did not arrive.
    pub dropped: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Arrived behind one that nobody sent.
    pub inserted: u64,
}

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// From `from` to `to`, both included.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Whether something happens that happens once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Any number of 32 bits.
    pub fn u32(&mut self) -> u32 {
        self.below(1 << 32) as u32
    }

    /// Whether something happens that is so likely.
    pub fn happens(&mut self, chance: Chance) -> bool {
        self.below(Chance::ALWAYS.0) < chance.0
    }
}

impl Chance {
    /// It never happens.
    pub const NEVER: Chance = Chance(0);

    /// It always happens.
    pub const ALWAYS: Chance = Chance(1 << 32);

    /// A probability from 0 to 1; `None` for any other number.
    pub fn new(probability: f64) -> Option<Chance> {
        let is_one = (0.0..=1.0).contains(&probability);
        is_one.then_some(Chance((probability * Chance::ALWAYS.0 as f64) as u64))
    }

    /// Once in `count` times; never for zero.
    pub fn one_in(count: u64) -> Chance {
        Chance::ALWAYS.0.checked_div(count).map_or(Chance::NEVER, Chance)
    }
}

impl Noise {
    /// Whether no byte would meet more than one fault.
    pub fn is_possible(&self) -> bool {
        let chances = [self.flip, self.drop, self.duplicate, self.insert];
        chances.iter().map(|chance| chance.0).sum::<u64>() <= Chance::ALWAYS.0
    }

    /// Lets bytes pass, and hands over what arrives. Says what was done to them.
    pub fn pass(&self, random: &mut Random, bytes: &[u8], mut arrive: impl FnMut(u8)) -> Harmed {
        let mut harmed = Harmed::default();
        let dropped_below = self.flip.0 + self.drop.0;
        let duplicated_below = dropped_below + self.duplicate.0;
        let inserted_below = duplicated_below + self.insert.0;
        for &byte in bytes {
            let met = random.below(Chance::ALWAYS.0);
            if met >= inserted_below {
                arrive(byte);
            } else if met < self.flip.0 {
                harmed.flipped += 1;
                arrive(byte ^ (1 << random.below(8)));
            } else if met < dropped_below {
                harmed.dropped += 1;
            } else if met < duplicated_below {
                harmed.duplicated += 1;
                arrive(byte);
                arrive(byte);
            } else {
                harmed.inserted += 1;
                arrive(if random.one_in(2) { 0 } else { random.below(256) as u8 });
                arrive(byte);
            }
        }
        harmed
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    static SENT: [u8; 20_000] = [0x55; 20_000];

    /// What arrives of [`SENT`] when it is handed over in pieces, and what was done to it.
    fn pass(noise: Noise, seed: u64, piece: usize) -> (Vec<u8>, Harmed) {
        let (mut random, mut arrived, mut total) = (Random::new(seed), Vec::new(), Harmed::default());
        for bytes in SENT.chunks(piece) {
            let harmed = noise.pass(&mut random, bytes, |byte| arrived.push(byte));
            total.flipped += harmed.flipped;
            total.dropped += harmed.dropped;
            total.duplicated += harmed.duplicated;
            total.inserted += harmed.inserted;
        }
        (arrived, total)
    }

    fn percent() -> Chance {
        Chance::new(0.01).unwrap()
    }

    #[test]
    fn a_clean_line_changes_nothing() {
        assert_eq!(pass(Noise::default(), 1, 100), (SENT.to_vec(), Harmed::default()));
    }

    #[test]
    fn the_same_seed_does_the_same_however_the_bytes_are_handed_over() {
        let noise = Noise { flip: percent(), drop: percent(), duplicate: percent(), insert: percent() };
        assert_eq!(pass(noise, 7, 1), pass(noise, 7, 4096));
        assert_ne!(pass(noise, 7, 64).0, pass(noise, 8, 64).0);
    }

    #[test]
    fn each_chance_is_that_of_its_own_fault() {
        let about_a_percent = 150..250;
        let (came, harmed) = pass(Noise { flip: percent(), ..Noise::default() }, 3, 64);
        let flipped = came.iter().filter(|byte| (**byte ^ 0x55).count_ones() == 1).count() as u64;
        assert_eq!(harmed, Harmed { flipped, ..Harmed::default() });
        assert!(about_a_percent.contains(&flipped) && came.len() == SENT.len(), "{flipped}");

        let (came, harmed) = pass(Noise { drop: percent(), ..Noise::default() }, 3, 64);
        let dropped = (SENT.len() - came.len()) as u64;
        assert_eq!(harmed, Harmed { dropped, ..Harmed::default() });
        assert!(about_a_percent.contains(&dropped) && came.iter().all(|byte| *byte == 0x55), "{dropped}");

        let (came, harmed) = pass(Noise { duplicate: percent(), ..Noise::default() }, 3, 64);
        let duplicated = (came.len() - SENT.len()) as u64;
        assert_eq!(harmed, Harmed { duplicated, ..Harmed::default() });
        assert!(about_a_percent.contains(&duplicated) && came.iter().all(|byte| *byte == 0x55));

        let (came, harmed) = pass(Noise { insert: percent(), ..Noise::default() }, 3, 64);
        let inserted = (came.len() - SENT.len()) as u64;
        assert_eq!(harmed, Harmed { inserted, ..Harmed::default() });
        let zeros = came.iter().filter(|byte| **byte == 0).count() as u64;
        assert!(about_a_percent.contains(&inserted) && zeros > inserted / 3, "{zeros} of {inserted}");
    }

    #[test]
    fn a_chance_is_a_probability() {
        assert_eq!(Chance::new(0.0), Some(Chance::NEVER));
        assert_eq!(Chance::new(1.0), Some(Chance::ALWAYS));
        assert_eq!(Chance::new(0.25), Some(Chance::one_in(4)));
        assert!([-0.1, 1.1, f64::NAN].into_iter().all(|number| Chance::new(number).is_none()));
        assert_eq!(Chance::one_in(0), Chance::NEVER);
        let all = Noise { drop: Chance::ALWAYS, ..Noise::default() };
        assert!(all.is_possible() && pass(all, 1, 64).0.is_empty());
        assert!(!Noise { flip: percent(), ..all }.is_possible());
    }
}
