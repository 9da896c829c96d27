//! What a power cut has to decide, and families of decisions.

use std::sync::Arc;

use super::content::digest;

/// What a power cut has to decide, for a given number of directory operations that survive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undecided {
    /// How many directory operations are not durable. The cut leaves the first few of them, from none to all.
    pub operations: usize,
    /// The sectors that are not durable, in the order of file names and then of numbers: [`Fact::Sector`].
    pub sectors: Vec<Fact>,
    /// The file lengths that are not durable, in the order of file names: [`Fact::Length`].
    pub lengths: Vec<Fact>,
}

/// One thing that a power cut decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What a sector holds.
    Sector {
        /// The file, by the name under which it survives.
        file: Arc<str>,
        /// Number of the sector in the file.
        sector: usize,
        /// How many versions there are: the durable one, those written over since, and the one that reads now.
        versions: usize,
    },
    /// How long a file is. What lies beyond is gone.
    Length {
        /// The file, by the name under which it survives.
        file: Arc<str>,
        /// The durable length.
        durable: u64,
        /// The length as it reads now.
        written: u64,
        /// How many versions there are, as for a sector.
        versions: usize,
    },
}

/// What becomes of a sector or length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is as it was durable.
    Old,
    /// It is as it was at some time: 0 is the durable version, and the last one or any beyond is the new one.
    Version(usize),
    /// It is as it was written last.
    New,
    /// It holds garbage that follows from this seed, the file and the sector. A length is new then.
    Garbled(u64),
}

/// A decision for everything that is undecided.
///
/// The patterns are of sectors, by their places in [`Undecided::sectors`]; sectors outside the pattern keep their old
/// content or what [`Fates::others`] says. Unless told otherwise all lengths are new and all directory operations
/// survive, but for [`Fates::all_old`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fates {
    pattern: Pattern,
    others: Fate,
    lengths: Lengths,
    operations: Operations,
}

/// What becomes of the lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// Files are as long as they were when last synced.
    Old,
    /// Files are as long as they were written.
    New,
    /// Each is any of its versions, by this seed.
    Seeded(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    None,
    All,
    Only(usize),
    AllBut(usize),
    Before(usize),
    From(usize),
    Seeded(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operations {
    First(usize),
    All,
    Seeded(u64),
}

impl Fates {
    /// Nothing survives that was not synced: no sector, no length, no directory operation.
    #[must_use]
    pub const fn all_old() -> Fates {
        Fates { lengths: Lengths::Old, operations: Operations::First(0), ..Fates::of(Pattern::None) }
    }

    /// Everything survives, synced or not.
    #[must_use]
    pub const fn all_new() -> Fates {
        Fates::of(Pattern::All)
    }

    /// One sector is new.
    #[must_use]
    pub const fn only(sector: usize) -> Fates {
        Fates::of(Pattern::Only(sector))
    }

    /// All sectors but one are new.
    #[must_use]
    pub const fn all_but(sector: usize) -> Fates {
        Fates::of(Pattern::AllBut(sector))
    }

    /// The first `sectors` are new.
    #[must_use]
    pub const fn prefix(sectors: usize) -> Fates {
        Fates::of(Pattern::Before(sectors))
    }

    /// The sectors from number `first` on are new.
    #[must_use]
    pub const fn suffix(first: usize) -> Fates {
        Fates::of(Pattern::From(first))
    }

    /// Everything by a generator: sectors of any version or garbled, lengths of any version, any number of operations.
    #[must_use]
    pub const fn seeded(seed: u64) -> Fates {
        Fates {
            lengths: Lengths::Seeded(seed),
            operations: Operations::Seeded(seed),
            ..Fates::of(Pattern::Seeded(seed))
        }
    }

    /// Sets how many directory operations survive.
    #[must_use]
    pub const fn with_operations(self, operations: usize) -> Fates {
        Fates { operations: Operations::First(operations), ..self }
    }

    /// Sets what becomes of the lengths.
    #[must_use]
    pub const fn with_lengths(self, lengths: Lengths) -> Fates {
        Fates { lengths, ..self }
    }

    /// Sets what becomes of the sectors outside the pattern.
    #[must_use]
    pub const fn others(self, others: Fate) -> Fates {
        Fates { others, ..self }
    }

    const fn of(pattern: Pattern) -> Fates {
        Fates { pattern, others: Fate::Old, lengths: Lengths::New, operations: Operations::All }
    }

    /// How many of the operations that are not durable survive.
    pub(super) fn operations(&self, undecided: usize) -> usize {
        match self.operations {
            Operations::First(first) => first.min(undecided),
            Operations::All => undecided,
            Operations::Seeded(seed) => draw(seed, undecided, undecided + 1),
        }
    }

    fn sector(&self, place: usize, versions: usize) -> Fate {
        let is_new = match self.pattern {
            Pattern::None => false,
            Pattern::All => true,
            Pattern::Only(only) => place == only,
            Pattern::AllBut(but) => place != but,
            Pattern::Before(end) => place < end,
            Pattern::From(first) => place >= first,
            Pattern::Seeded(seed) => return seeded_sector(seed, place, versions),
        };
        if is_new { Fate::New } else { self.others }
    }
}

/// A sector's fate by a generator. Half of the seeds garble nothing, because most damage lies in how old and new mix.
fn seeded_sector(seed: u64, place: usize, versions: usize) -> Fate {
    let garbles = draw(seed, usize::MAX, 2) == 0;
    match draw(seed, place, 8) {
        0..3 => Fate::Old,
        3..6 => Fate::New,
        6 if garbles => Fate::Garbled(seed),
        _ => Fate::Version(draw(!seed, place, versions)),
    }
}

/// A number below `end` that follows from a seed and a place.
fn draw(seed: u64, place: usize, end: usize) -> usize {
    (Noise::at(seed, place).next() % end as u64) as usize
}

/// Who decides. Asked for every file in the order of names: for its sectors in order, then for its length.
pub(super) trait Decide {
    fn sector(&mut self, file: &Arc<str>, sector: usize, versions: usize) -> Fate;

    /// The length; `lengths` tells each version.
    fn length(&mut self, file: &Arc<str>, versions: usize, lengths: impl Fn(usize) -> u64) -> u64;
}

/// [`Fates`] at work.
pub(super) struct ByFates<'f> {
    fates: &'f Fates,
    sectors: usize,
    lengths: usize,
}

impl<'f> ByFates<'f> {
    pub(super) fn new(fates: &'f Fates) -> ByFates<'f> {
        ByFates { fates, sectors: 0, lengths: 0 }
    }
}

impl Decide for ByFates<'_> {
    fn sector(&mut self, _: &Arc<str>, _: usize, versions: usize) -> Fate {
        self.sectors += 1;
        self.fates.sector(self.sectors - 1, versions)
    }

    fn length(&mut self, _: &Arc<str>, versions: usize, lengths: impl Fn(usize) -> u64) -> u64 {
        self.lengths += 1;
        lengths(match self.fates.lengths {
            Lengths::Old => 0,
            Lengths::New => versions,
            Lengths::Seeded(seed) => draw(!seed, usize::MAX - self.lengths, versions),
        })
    }
}

/// A function that decides everything.
pub(super) struct ByFact<F>(pub(super) F);

impl<F: FnMut(&Fact) -> Fate> Decide for ByFact<F> {
    fn sector(&mut self, file: &Arc<str>, sector: usize, versions: usize) -> Fate {
        (self.0)(&Fact::Sector { file: Arc::clone(file), sector, versions })
    }

    fn length(&mut self, file: &Arc<str>, versions: usize, lengths: impl Fn(usize) -> u64) -> u64 {
        let (durable, written) = (lengths(0), lengths(versions));
        match (self.0)(&Fact::Length { file: Arc::clone(file), durable, written, versions }) {
            Fate::Old => durable,
            Fate::Version(version) => lengths(version),
            Fate::New | Fate::Garbled(_) => written,
        }
    }
}

/// Garbage that follows from a seed.
pub(super) struct Noise {
    state: u64,
}

impl Noise {
    pub(super) fn new(seed: u64, file: &str, sector: usize) -> Noise {
        Noise::at(seed ^ digest(file.as_bytes()), sector)
    }

    /// Seeds and places that differ little give noise that differs in everything.
    fn at(seed: u64, place: usize) -> Noise {
        Noise { state: Noise { state: seed }.next() ^ place as u64 }
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// The generator splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
