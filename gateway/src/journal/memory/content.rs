//! The bytes of one file: how they read, and what a power cut may leave of them.
//!
//! Only what reads is kept whole. Of a sector that was written since the last sync, the older versions are kept beside
//! it, so that a sync only forgets them. Every write has a number, and a sync covers the writes up to one, because
//! a file may be written while its sync is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::fates::{ByFates, Decide, Fact, Fate, Fates, Noise, Undecided};

pub(super) const SECTOR_BYTES: usize = 512;

/// A file's content. Cheap to share and copied when it is written.
#[derive(Clone, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    sectors: BTreeMap<usize, Versions<Sector>>,
    length: Option<Versions<u64>>,
    /// Number of the last write.
    written: u64,
    digest: OnceLock<u64>,
}

/// An older version of a sector; none stands for zeros.
type Sector = Option<Arc<[u8; SECTOR_BYTES]>>;

/// The versions of a sector or length that may survive, but for the newest, which is the live one.
#[derive(Clone)]
struct Versions<T> {
    durable: T,
    /// What was written and then written over, with the numbers of those writes.
    between: Vec<(u64, T)>,
    /// Number of the write that made the live version.
    written: u64,
    /// Writes up to this one met a failed sync, and no later sync makes them durable.
    lost: u64,
}

impl Content {
    /// A file all of which is durable.
    pub(super) fn durable(live: Vec<u8>) -> Content {
        Content { live, ..Content::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.live
    }

    /// Number of the last write.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether a power cut leaves it as it is.
    pub(super) fn is_durable(&self) -> bool {
        self.sectors.is_empty() && self.length.is_none()
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        self.written += 1;
        self.digest = OnceLock::new();
        let end = at + bytes.len();
        for number in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let current = self.sector(number);
            self.sectors
                .entry(number)
                .and_modify(|versions| versions.replace(current.clone(), self.written))
                .or_insert_with(|| Versions::new(current, self.written));
        }
        let length = self.live.len() as u64;
        match &mut self.length {
            // To write behind the durable end again is to make the length durable with it.
            Some(versions) if end as u64 > length || versions.is_lost() && end as u64 > versions.durable => {
                versions.replace(length, self.written);
            }
            None if end as u64 > length => self.length = Some(Versions::new(length, self.written)),
            _ => {}
        }
        self.live.resize(self.live.len().max(end), 0);
        self.live[at..end].copy_from_slice(bytes);
    }

    /// Makes the writes up to a number durable, but for those that an earlier sync lost.
    pub(super) fn sync(&mut self, up_to: u64) {
        self.sectors.retain(|_, versions| !versions.sync(up_to));
        if self.length.as_mut().is_some_and(|versions| versions.sync(up_to)) {
            self.length = None;
        }
    }

    /// Loses the writes up to a number to a failed sync: they read as written, and nobody will write them to the disk.
    pub(super) fn lose(&mut self, up_to: u64) {
        self.sectors.values_mut().for_each(|versions| versions.lost = versions.lost.max(up_to));
        if let Some(versions) = &mut self.length {
            versions.lost = versions.lost.max(up_to);
        }
    }

    /// Reads from now on as it is durable: what a sync has lost is gone.
    pub(super) fn forget_lost(&mut self) {
        let durable = self.survivor(&Arc::from(""), &mut ByFates::new(&Fates::all_old()));
        *self = Content { written: self.written, ..durable };
    }

    /// Adds what a power cut decides.
    pub(super) fn undecided(&self, file: &Arc<str>, undecided: &mut Undecided) {
        undecided.sectors.extend(self.sectors.iter().map(|(sector, versions)| Fact::Sector {
            file: Arc::clone(file),
            sector: *sector,
            versions: versions.count(),
        }));
        undecided.lengths.extend(self.length.as_ref().map(|versions| Fact::Length {
            file: Arc::clone(file),
            durable: versions.durable,
            written: self.live.len() as u64,
            versions: versions.count(),
        }));
    }

    /// What a power cut leaves.
    pub(super) fn survivor(&self, file: &Arc<str>, decide: &mut impl Decide) -> Content {
        let mut live = self.live.clone();
        for (number, versions) in &self.sectors {
            let at = number * SECTOR_BYTES;
            let to = live.len().min(at + SECTOR_BYTES);
            let place = &mut live[at..to];
            let version = match decide.sector(file, *number, versions.count()) {
                Fate::Old => Some(&versions.durable),
                Fate::Version(version) => versions.older(version),
                Fate::New => None,
                Fate::Garbled(seed) => {
                    Noise::new(seed, file, *number).fill(place);
                    None
                }
            };
            match version {
                Some(Some(bytes)) => place.copy_from_slice(&bytes[..place.len()]),
                Some(None) => place.fill(0),
                None => {}
            }
        }
        if let Some(versions) = &self.length {
            let lengths = |version| versions.older(version).copied().unwrap_or(self.live.len() as u64);
            let length = decide.length(file, versions.count(), lengths);
            live.resize(usize::try_from(length).unwrap_or(usize::MAX).min(live.len()), 0);
        }
        Content::durable(live)
    }

    /// A hash of what reads.
    pub(super) fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| digest(&self.live))
    }

    fn sector(&self, number: usize) -> Sector {
        let bytes = self.live.get(number * SECTOR_BYTES..).filter(|bytes| !bytes.is_empty())?;
        let bytes = &bytes[..bytes.len().min(SECTOR_BYTES)];
        let mut sector = [0; SECTOR_BYTES];
        sector[..bytes.len()].copy_from_slice(bytes);
        Some(Arc::new(sector))
    }
}

impl<T> Versions<T> {
    fn new(durable: T, written: u64) -> Versions<T> {
        Versions { durable, between: Vec::new(), written, lost: 0 }
    }

    /// Takes in the live version, which the write of this number replaces.
    fn replace(&mut self, live: T, write: u64) {
        self.between.push((self.written, live));
        self.written = write;
    }

    fn is_lost(&self) -> bool {
        self.written <= self.lost
    }

    /// Takes note that what was written up to a number is durable; returns whether nothing is left to decide.
    fn sync(&mut self, up_to: u64) -> bool {
        if self.written <= up_to {
            return !self.is_lost();
        }
        let covered = |(write, _): &(u64, T)| *write <= up_to && *write > self.lost;
        if let Some(last) = self.between.iter().rposition(covered)
            && let Some((_, durable)) = self.between.drain(..=last).next_back()
        {
            self.durable = durable;
        }
        false
    }

    /// How many versions there are with the durable and the live one.
    fn count(&self) -> usize {
        self.between.len() + 2
    }

    /// A version by its age, 0 for the durable one, or nothing for the live one.
    fn older(&self, version: usize) -> Option<&T> {
        match version.checked_sub(1) {
            None => Some(&self.durable),
            Some(between) => self.between.get(between).map(|(_, version)| version),
        }
    }
}

/// Hashes bytes to tell states apart: four lanes of multiplications, so that 8 KiB take about a microsecond.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    const KEYS: [u64; 4] =
        [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];
    let mut lanes = KEYS;
    let mut take = |block: &[u8; 32]| {
        for ((lane, word), key) in lanes.iter_mut().zip(block.as_chunks::<8>().0).zip(KEYS) {
            *lane = mix(*lane ^ u64::from_le_bytes(*word), key);
        }
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut take);
    let mut padded = [0; 32];
    padded[..rest.len()].copy_from_slice(rest);
    take(&padded);
    lanes.iter().fold(bytes.len() as u64, |hash, lane| mix(hash ^ lane, KEYS[0]))
}

/// Multiplies to 128 bits and folds them.
pub(super) fn mix(value: u64, key: u64) -> u64 {
    let product = u128::from(value) * u128::from(key);
    (product >> 64) as u64 ^ product as u64
}
