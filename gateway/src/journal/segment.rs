//! Segments: the files of the journal, and the table of those in use.
//!
//! A segment is `{id:020}.seg`: a header in the first sector, then frames. Each commit begins on a sector boundary, so
//! that no write ever touches a sector that holds durable entries. The header, little-endian:
//!
//! | at | what |
//! |---|---|
//! | 0 | magic, 8 bytes |
//! | 8 | format version, u32 |
//! | 12 | feature bits, u32: 1, there may be early entries and their clocks; 2, the snapshot tells of shared points; 4, it counts rows by boot; one that is unknown makes the file unreadable |
//! | 16 | id of the journal, u64 |
//! | 24 | id of the segment, u64 |
//! | 32 | offset of the first entry, u64: everything below was durable when this was written |
//! | 40 | offset from which on, up to the first entry, nobody is owed anything: a segment of these may be gone, u64 |
//! | 48 | length of the file, u64 |
//! | 56 | CRC-32C of bytes 0 to 55, u32; its place is the same in every version |
//!
//! The header is a help, not a need: frames carry the segment's id and their offsets themselves. A segment that has not
//! begun is a *spare*: zeros, or what the file held as an earlier segment, whose frames carry another id. It has the name
//! of a coming segment already, so that beginning one changes no directory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::JournalId;
use super::bugs::{Bug, seeded};
use super::storage::StorageFile;
use crate::record::Offset;

/// Unit of writing: what is durable never shares one with what is not.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Where the first frame of a segment begins.
pub(super) const FRAMES_AT: u64 = SECTOR_BYTES;

/// Version of the format that this program writes, the only one so far.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Feature bit of a segment that may hold early entries, and clocks in its snapshot. Gateways that do not know it pass over
/// such entries, so they must refuse the file.
const EARLY: u32 = 1;

/// Feature bit of a segment whose snapshot tells of shared points, which gateways that do not know it cannot read.
const SHARED: u32 = 2;

/// Feature bit of a segment whose snapshot counts rows by boot, likewise.
const BOOTS: u32 = 4;

/// All feature bits that this program knows; docs/upgrade.md has them too.
const KNOWN: u32 = EARLY | SHARED | BOOTS;

/// Steps in which a file is tried that refuses to be read somewhere.
const PROBE_BYTES: usize = 64 << 10;

const MAGIC: [u8; 8] = *b"FOREBAYJ";
const SUFFIX: &str = ".seg";
/// Bytes of the first sector that say something.
pub(super) const HEADER_BYTES: usize = 60;

/// Number of a segment; never used twice in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId(pub(super) u64);

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) journal: JournalId,
    pub(super) segment: SegmentId,
    pub(super) first: Offset,
    pub(super) void: Offset,
    pub(super) length: u64,
    /// Whether there may be early entries.
    pub(super) early: bool,
    /// Whether its snapshot tells of shared points.
    pub(super) shared: bool,
    /// Whether its snapshot counts rows by boot.
    pub(super) boots: bool,
}

/// What the first sector of a segment turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Intact(SegmentHeader),
    /// Zeros, or the header of an earlier life of the file: most likely not begun.
    Spare,
    /// Damaged, or cut off.
    Unknown,
    /// Written by a newer program.
    Newer {
        version: u32,
        features: u32,
    },
}

/// A segment in use.
#[derive(Clone)]
pub(super) struct Segment {
    /// The journal that its frames are checked with.
    pub(super) journal: JournalId,
    pub(super) id: SegmentId,
    /// Offset of the first entry; those of earlier segments are below.
    pub(super) first: Offset,
    /// From here on up to `first`, nobody is owed anything.
    pub(super) void: Offset,
    pub(super) length: u64,
    /// Whether its header allows early entries.
    pub(super) early: bool,
    /// Whether its header says that the snapshot tells of shared points.
    pub(super) shared: bool,
    /// Whether its header says that the snapshot counts rows by boot.
    pub(super) boots: bool,
    pub(super) file: Arc<dyn StorageFile>,
    /// Whether it begins with an intact snapshot, as far as is known.
    pub(super) snapshot: bool,
    /// Whether nobody is owed anything of it, as recovery saw.
    pub(super) idle: bool,
    /// Whether no write or sync of it has failed, so that the file may serve again.
    pub(super) sound: bool,
}

/// The segments in use, oldest first.
#[derive(Debug, Default)]
pub(super) struct Segments(BTreeMap<SegmentId, Segment>);

impl SegmentId {
    pub(super) fn file_name(self) -> String {
        format!("{:020}{SUFFIX}", self.0)
    }

    pub(super) fn of_file_name(name: &str) -> Option<SegmentId> {
        let digits = name.strip_suffix(SUFFIX)?;
        let id = digits.parse().ok().map(SegmentId)?;
        (id.file_name() == name).then_some(id)
    }

    pub(super) fn next(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }
}

impl SegmentHeader {
    /// The header's sector, and the checksum that the first frame carries on.
    pub(super) fn encode(&self) -> ([u8; SECTOR_BYTES as usize], u32) {
        let mut sector = [0; SECTOR_BYTES as usize];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let bits = [(self.early, EARLY), (self.shared, SHARED), (self.boots, BOOTS)];
        let features: u32 = bits.into_iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum();
        sector[12..16].copy_from_slice(&features.to_le_bytes());
        let numbers = [self.journal.0, self.segment.0, self.first.0, self.void.0, self.length];
        for (place, number) in sector[16..56].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&sector[..56]);
        sector[56..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        (sector, checksum)
    }

    /// Reads the header of a file that is named as `segment`.
    pub(super) fn read(file: &dyn StorageFile, segment: SegmentId) -> io::Result<HeaderRead> {
        let mut head = [0; HEADER_BYTES];
        let complete = match file.read_at(&mut head, 0) {
            Ok(length) => length == HEADER_BYTES,
            // A bad block costs no more than the header, if the medium gives anything else.
            Err(_) if gives_anything(file) => return Ok(HeaderRead::Unknown),
            Err(cause) => return Err(cause),
        };
        let u64_at = |at: usize| u64::from_le_bytes(head[at..].first_chunk().copied().unwrap_or_default());
        let u32_at = |at: usize| u32::from_le_bytes(head[at..].first_chunk().copied().unwrap_or_default());
        if complete && head == [0; HEADER_BYTES] {
            return Ok(HeaderRead::Spare);
        }
        if !complete || head[..8] != MAGIC || crc32c::crc32c(&head[..56]) != u32_at(56) {
            return Ok(HeaderRead::Unknown);
        }
        let (version, features) = (u32_at(8), u32_at(12));
        if version != FORMAT_VERSION || features & !KNOWN != 0 {
            return Ok(HeaderRead::Newer { version, features });
        }
        let header = SegmentHeader {
            journal: JournalId(u64_at(16)),
            segment: SegmentId(u64_at(24)),
            first: Offset(u64_at(32)),
            void: Offset(u64_at(40)),
            length: u64_at(48),
            early: features & EARLY != 0,
            shared: features & SHARED != 0,
            boots: features & BOOTS != 0,
        };
        Ok(if header.segment == segment { HeaderRead::Intact(header) } else { HeaderRead::Spare })
    }
}

impl Segment {
    /// The header that it begins with.
    pub(super) fn header(&self) -> SegmentHeader {
        let Segment { journal, id, first, void, length, early, shared, boots, .. } = *self;
        SegmentHeader { journal, segment: id, first, void, length, early, shared, boots }
    }
}

impl Segments {
    pub(super) fn insert(&mut self, segment: Segment) {
        self.0.insert(segment.id, segment);
    }

    pub(super) fn remove(&mut self, id: SegmentId) -> Option<Segment> {
        self.0.remove(&id)
    }

    pub(super) fn get_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.0.get_mut(&id)
    }

    pub(super) fn contains(&self, id: SegmentId) -> bool {
        self.0.contains_key(&id)
    }

    /// The segments, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.0.values()
    }

    /// The segment that holds `offset` and the one after it; the oldest segment if everything at `offset` is trimmed.
    pub(super) fn holding(&self, offset: Offset) -> Option<(Segment, Option<Segment>)> {
        let held = self.0.values().rev().find(|s| s.first <= offset).or_else(|| self.0.values().next())?;
        let after = self.0.range(held.id.next()..).next().map(|(_, s)| s.clone());
        Some((held.clone(), after))
    }

    /// Where it goes on behind an offset that the header of any later segment calls void.
    pub(super) fn behind_void(&self, offset: Offset) -> Option<Offset> {
        let voids = self.0.values().filter(|s| s.void <= offset && offset < s.first);
        voids.map(|s| s.first).max()
    }

    /// Behind the last entry of a segment that somebody may be owed; none of the newest one.
    pub(super) fn end_of(&self, id: SegmentId) -> Option<Offset> {
        self.0.range(id.next()..).map(|(_, later)| later.void).min()
    }

    /// Takes out a segment of which nobody is owed anything: the oldest, if all it holds is below `offset`, or one that
    /// recovery found idle, once a later header calls it void. Two with snapshots, which recovery may need, always remain.
    pub(super) fn pop_done(&mut self, offset: Offset) -> Option<Segment> {
        let second = self.0.values().nth(1)?;
        let oldest = self.0.values().next().filter(|_| second.void <= offset);
        let is_void = |s: &Segment| {
            let mut later = self.0.range(s.id.next()..).map(|(_, later)| later);
            later.any(|later| later.void <= s.void || seeded(Bug::VoidForgotten))
        };
        let done = oldest.or_else(|| self.0.values().find(|s| s.idle && is_void(s)))?.id;
        let snapshots = self.0.values().filter(|s| s.snapshot && s.id != done).count();
        if snapshots < 2 && !seeded(Bug::TrimWithoutSnapshots) { None } else { self.0.remove(&done) }
    }

    /// Where the oldest segment ends that may be taken out once nobody needs it.
    pub(super) fn end_of_oldest(&self) -> Option<Offset> {
        let snapshots = self.0.values().skip(1).filter(|s| s.snapshot).count();
        self.0.values().nth(1).filter(|_| snapshots >= 2).map(|s| s.first)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|s| s.length).sum()
    }

    /// Whether one without a snapshot is behind the last snapshot but one, and stays with that.
    pub(super) fn is_chained(&self) -> bool {
        let newest = self.0.values().rev();
        let last_but_one = newest.filter(|s| s.snapshot).nth(1).map_or(SegmentId(0), |s| s.id);
        self.0.range(last_but_one..).any(|(_, s)| !s.snapshot)
    }

    /// Bytes by which the newest three exceed segments of this length. They stay until others have begun behind them.
    pub(super) fn surplus(&self, segment_bytes: u64) -> u64 {
        self.0.values().rev().take(3).map(|s| s.length.saturating_sub(segment_bytes)).sum()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.id.file_name(), self.first)
    }
}

/// Whether the medium gives any of the file, though it refuses some.
pub(super) fn gives_anything(file: &dyn StorageFile) -> bool {
    let length = file.length().unwrap_or(0);
    (0..length).step_by(PROBE_BYTES).any(|at| file.read_at(&mut [0; 1], at).is_ok())
}

/// The next sector boundary at or behind `at`.
pub(super) fn sector_up(at: u64) -> u64 {
    at.next_multiple_of(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::storage::Storage;

    #[test]
    fn the_page_about_upgrades_has_every_feature_bit() {
        let page = include_str!("../../../docs/upgrade.md");
        let row = page.lines().find(|line| line.starts_with("| `journal/*.seg` |")).unwrap();
        let (_, said) = row.split_once("with feature bits ").unwrap();
        // Each bit stands before what it means: `1 (…), 2 (…) and 4 (…)`.
        let before = said.split(" (").filter_map(|text| text.rsplit(' ').next());
        let bits: Vec<u32> = before.filter_map(|word| word.parse().ok()).collect();
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), KNOWN, "{bits:?} in {row}");
        assert_eq!(bits.len(), KNOWN.count_ones() as usize, "{row}");
    }

    #[test]
    fn names_sort_as_numbers_and_others_are_left_alone() {
        assert_eq!(SegmentId::of_file_name(&SegmentId(42).file_name()), Some(SegmentId(42)));
        assert!(SegmentId(9).file_name() < SegmentId(10).file_name());
        for name in ["42.seg", "lock", "spare-0.seg", "+0000000000000000042.seg", "00000000000000000042.seg~"]
        {
            assert_eq!(SegmentId::of_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_header_comes_back_unless_a_byte_is_wrong() {
        let header = SegmentHeader {
            journal: JournalId(1),
            segment: SegmentId(2),
            first: Offset(3),
            void: Offset(3),
            length: 4,
            early: true,
            shared: true,
            boots: true,
        };
        let file = MemoryStorage::new().create("x").unwrap();
        let (sector, _) = header.encode();
        file.write_at(&sector, 0).unwrap();
        assert_eq!(SegmentHeader::read(&*file, SegmentId(2)).unwrap(), HeaderRead::Intact(header));
        assert_eq!(SegmentHeader::read(&*file, SegmentId(3)).unwrap(), HeaderRead::Spare, "an earlier life");
        for (at, byte) in sector.iter().enumerate().take(HEADER_BYTES) {
            file.write_at(&[byte ^ 0x10], at as u64).unwrap();
            assert_eq!(SegmentHeader::read(&*file, SegmentId(2)).unwrap(), HeaderRead::Unknown, "byte {at}");
            file.write_at(&[*byte], at as u64).unwrap();
        }
    }
}
