//! The end mark: where the journal ended when it last stood still.
//!
//! Constraint: behind the last frame, damage and a torn commit look alike. A second after the last commit, and when the
//! journal closes, the end is therefore noted outside the segments, where a cut or damaged segment cannot take it along.
//! That costs one flush, as a closing frame in the segment would.
//!
//! Format: the file `end` has two slots of 512 bytes, which are written in turn. A slot, little-endian:
//!
//! | at | what |
//! |---|---|
//! | 0 | magic, 8 bytes |
//! | 8 | format version, u32 |
//! | 12 | 0, u32 |
//! | 16 | id of the journal, u64 |
//! | 24 | number of the mark, u64; the higher one counts, and number n is in slot n mod 2 |
//! | 32 | watermark, u64: everything below is durable |
//! | 40 | rows learned up to there, u64 |
//! | 48 | CRC-32C of bytes 0 to 47, u32; its place is the same in every version |
//!
//! Failure: an intact mark of a newer version is refused with the journal. A mark that is missing or damaged proves nothing, and nothing is lost by it. A file that cannot be written is
//! never synced again: another one takes its place, at once or, if that is not possible, with the next mark.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::JournalId;
use super::storage::{Storage, StorageFile};
use crate::record::Offset;

/// Name of the file, and its name while it is made.
pub(super) const END_FILE: &str = "end";
pub(super) const END_DRAFT: &str = "end.tmp";

const MAGIC: [u8; 8] = *b"FOREBAYE";
const VERSION: u32 = 1;
/// Bytes of a slot, of which the file has two.
pub(super) const SLOT_BYTES: usize = 512;
/// Bytes of a slot that say something.
pub(super) const MARK_BYTES: usize = 52;

/// Where the journal ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndMark {
    pub(super) watermark: Offset,
    pub(super) learned: u64,
}

/// The file that the marks are written to.
pub(super) struct EndFile {
    file: Arc<dyn StorageFile>,
    journal: JournalId,
    number: u64,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndRead {
    pub(super) mark: EndMark,
    pub(super) journal: JournalId,
    pub(super) number: u64,
}

impl EndFile {
    /// Opens the file for further marks, or makes it, so that it always tells the journal's id: a mark that is there stays
    /// until another one is durable.
    pub(super) fn open(
        storage: &dyn Storage,
        journal: JournalId,
        read: Option<EndRead>,
        now: EndMark,
    ) -> io::Result<EndFile> {
        if let Some(read) = read.filter(|read| read.journal == journal) {
            let file = storage.open(END_FILE)?;
            if file.length()? == 2 * SLOT_BYTES as u64 {
                return Ok(EndFile { file, journal, number: read.number });
            }
        }
        EndFile::make(storage, journal, now)
    }

    /// Makes the file anew; what was there before stays until this one is durable.
    pub(super) fn make(storage: &dyn Storage, journal: JournalId, now: EndMark) -> io::Result<EndFile> {
        let file = storage.create(END_DRAFT)?;
        file.write_at(&[0; 2 * SLOT_BYTES], 0)?;
        let mut end = EndFile { file, journal, number: 0 };
        end.write(now)?;
        storage.rename(END_DRAFT, END_FILE)?;
        storage.sync_directory()?;
        Ok(end)
    }

    /// The latest intact mark of a file.
    pub(super) fn read(storage: &dyn Storage) -> io::Result<Option<EndRead>> {
        let file = match storage.open(END_FILE) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(cause),
        };
        let mut bytes = [0; 2 * SLOT_BYTES];
        let read = file.settle().or_else(|_| file.settle()).and_then(|()| file.read_at(&mut bytes, 0));
        let length = read.unwrap_or_else(|cause| {
            warn!(%cause, "the journal's end mark cannot be read");
            0
        });
        let slots = bytes[..length].chunks(SLOT_BYTES);
        Ok(slots.filter_map(parse).max_by_key(|read| read.number))
    }

    /// The version of an intact mark that a newer program has written, if there is one.
    pub(super) fn newer(storage: &dyn Storage) -> Option<u32> {
        let mut bytes = [0; 2 * SLOT_BYTES];
        // What cannot be read is damaged, which is looked at later.
        let length = storage.open(END_FILE).and_then(|file| file.read_at(&mut bytes, 0)).unwrap_or(0);
        let versions = bytes[..length].chunks(SLOT_BYTES).filter_map(|slot| version(slot.first_chunk()?));
        versions.max().filter(|version| *version > VERSION)
    }

    /// Writes a mark and makes it durable.
    pub(super) fn write(&mut self, mark: EndMark) -> io::Result<()> {
        self.number += 1;
        let slot = EndRead { mark, journal: self.journal, number: self.number }.encode();
        self.file.write_at(&slot, self.number % 2 * SLOT_BYTES as u64)?;
        self.file.sync()
    }
}

impl EndRead {
    /// The slot that says this.
    pub(super) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.journal.0, self.number, self.mark.watermark.0, self.mark.learned];
        for (place, number) in slot[16..48].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&slot[..48]);
        slot[48..MARK_BYTES].copy_from_slice(&checksum.to_le_bytes());
        slot
    }
}

/// The version of a slot, if it is intact.
fn version(head: &[u8; MARK_BYTES]) -> Option<u32> {
    let checksum = u32::from_le_bytes(*head[48..].first_chunk()?);
    let is_intact = head[..8] == MAGIC && crc32c::crc32c(&head[..48]) == checksum;
    is_intact.then_some(u32::from_le_bytes(*head[8..].first_chunk()?))
}

/// What a slot says, if it is intact and of this version.
pub(super) fn parse(slot: &[u8]) -> Option<EndRead> {
    let head = slot.first_chunk::<MARK_BYTES>()?;
    let u64_at = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(*head[at..].first_chunk()?)) };
    if version(head)? != VERSION {
        return None;
    }
    let mark = EndMark { watermark: Offset(u64_at(32)?), learned: u64_at(40)? };
    Some(EndRead { mark, journal: JournalId(u64_at(16)?), number: u64_at(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStorage;

    fn mark(watermark: u64) -> EndMark {
        EndMark { watermark: Offset(watermark), learned: watermark / 2 }
    }

    fn read(storage: &MemoryStorage) -> Option<EndMark> {
        EndFile::read(storage).unwrap().map(|read| read.mark)
    }

    #[test]
    fn the_latest_mark_counts_and_a_damaged_one_leaves_the_one_before() {
        let storage = MemoryStorage::new();
        assert_eq!(read(&storage), None);
        let mut end = EndFile::open(&storage, JournalId(1), None, mark(5)).unwrap();
        assert_eq!(read(&storage), Some(mark(5)), "it tells the journal's id from the beginning");
        for watermark in [10, 20] {
            end.write(mark(watermark)).unwrap();
            assert_eq!(read(&storage), Some(mark(watermark)));
        }
        let bytes = storage.files().remove(END_FILE).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            let other = MemoryStorage::new();
            other.put(END_FILE, damaged);
            let hit = if (SLOT_BYTES..SLOT_BYTES + MARK_BYTES).contains(&at) { 10 } else { 20 };
            assert_eq!(read(&other), Some(mark(hit)), "byte {at}");
        }
        let before = EndFile::read(&storage).unwrap();
        EndFile::open(&storage, JournalId(1), before, mark(20)).unwrap().write(mark(30)).unwrap();
        assert_eq!(read(&storage), Some(mark(30)), "a second life goes on counting");
    }

    #[test]
    fn a_cut_file_says_what_is_left_of_it_and_is_made_anew() {
        let storage = MemoryStorage::new();
        let mut end = EndFile::open(&storage, JournalId(1), None, mark(5)).unwrap();
        end.write(mark(10)).unwrap();
        end.write(mark(20)).unwrap();
        let bytes = storage.files().remove(END_FILE).unwrap();
        for length in 0..bytes.len() {
            storage.put(END_FILE, bytes[..length].to_vec());
            let left = match length {
                0..MARK_BYTES => None,
                _ if length < SLOT_BYTES + MARK_BYTES => Some(mark(10)),
                _ => Some(mark(20)),
            };
            assert_eq!(read(&storage), left, "{length} bytes");
            let before = EndFile::read(&storage).unwrap();
            EndFile::open(&storage, JournalId(1), before, mark(20)).unwrap().write(mark(30)).unwrap();
            assert_eq!(read(&storage), Some(mark(30)), "{length} bytes");
        }
    }
}
