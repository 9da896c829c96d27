//! Randomness that can be replayed: every random moment of a run comes from one printed seed.

use std::ops::Range;

/// The environment variable that replays a run.
pub const SEED_VARIABLE: &str = "FOREBAY_SEED";

/// The environment variable that asks for the full counts of `tests/run --long`.
pub const LONG_VARIABLE: &str = "FOREBAY_LONG";

/// Whether the full counts are asked for.
#[must_use]
pub fn long() -> bool {
    std::env::var_os(LONG_VARIABLE).is_some_and(|value| value == "1")
}

/// A seed that nobody has chosen, short enough to be typed.
///
/// # Errors
/// The system has no randomness.
pub fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// A small seeded generator (splitmix64): equal seeds give equal runs.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// Takes the seed from `FOREBAY_SEED`, else from the system, and prints how to replay the run.
    ///
    /// # Errors
    /// `FOREBAY_SEED` is no number, or the system has no randomness.
    pub fn announced(test: &str) -> anyhow::Result<Rng> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().map_err(|_| anyhow::anyhow!("{SEED_VARIABLE}={text} is no number"))?,
            Err(_) => random()?,
        };
        eprintln!("{test}: {SEED_VARIABLE}={seed}");
        Ok(Rng(seed))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`, which must not be empty.
    pub fn in_range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next_u64() % (range.end - range.start).max(1)
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next_u64().to_le_bytes()[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn equal_seeds_give_equal_runs_and_ranges_hold() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        for _ in 0..1000 {
            let number = a.in_range(10..20);
            assert!((10..20).contains(&number));
            assert_eq!(number, b.in_range(10..20));
        }
    }
}
