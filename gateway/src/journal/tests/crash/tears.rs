//! What a power cut may leave: the patterns that are tried at every crash point.

use super::names::mix;
use crate::journal::memory::{Fate, Fates, Lengths, MemoryStorage};

/// One pattern.
pub(super) struct Tear {
    pub(super) fates: Fates,
    /// Whether later sectors survive without earlier ones, which is the hardest to append behind.
    pub(super) torn: bool,
}

/// Patterns for a storage as it is, always in the same order.
pub(super) fn patterns(storage: &MemoryStorage) -> Vec<Tear> {
    let undecided = storage.undecided();
    let mut patterns = vec![Fates::all_old(), Fates::all_new()];
    for operations in 0..undecided.operations {
        patterns.push(Fates::all_new().with_operations(operations));
        patterns.push(Fates::all_old().with_operations(operations + 1));
    }
    let sectors = undecided.sectors.len();
    for at in 0..sectors {
        patterns.extend([Fates::only(at), Fates::all_but(at), Fates::prefix(at)]);
        patterns.push(Fates::all_but(at).others(Fate::Garbled(at as u64)));
        patterns.push(Fates::only(at).others(Fate::Garbled(at as u64)));
    }
    if !undecided.lengths.is_empty() {
        patterns.push(Fates::all_new().with_lengths(Lengths::Old));
        patterns.push(Fates::all_old().with_lengths(Lengths::New));
    }
    patterns.push(Fates::prefix(0).others(Fate::Version(1)));
    if sectors + undecided.operations > 1 {
        let seed = storage.digest();
        patterns.extend((0..4).map(|nth| Fates::seeded(mix(&[seed, nth]))));
    }
    let mixed = patterns.into_iter().map(|fates| Tear { fates, torn: false });
    let torn = (1..sectors).map(|first| Tear { fates: Fates::suffix(first), torn: true });
    mixed.chain(torn).collect()
}
