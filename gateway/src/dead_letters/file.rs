//! Files of letters: their names and headers; and the file `end`, which says how much of the newest is durable.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Dropped;
use super::frame::Salt;
use crate::journal::Storage;
use crate::journal::storage::{Directory, StorageFile};

/// Unit of writing: what is durable never shares one with what is not.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Where the first frame of a file begins: the header is in each of the sectors before.
pub(super) const FRAMES_AT: u64 = 2 * SECTOR_BYTES;

/// Version of the format that this program writes, the only one so far.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Name of the file that says how much of the newest one is durable.
pub(super) const END_FILE: &str = "end";

const HEADER_MAGIC: [u8; 8] = *b"FOREBAYD";
const HEADER_CRC_AT: usize = 80;
const END_MAGIC: [u8; 8] = *b"FOREBAYE";
const END_CRC_AT: usize = 40;

const SUFFIX: &str = ".letters";
const NEW_SUFFIX: &str = ".new";

/// Number of a file. That of one that counts is never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileNumber(pub(super) u64);

/// What a file says of itself and of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: FileNumber,
    pub(super) salt: Salt,
    /// The oldest file that counts.
    pub(super) first: FileNumber,
    /// The file before it.
    pub(super) previous: Option<Extent>,
    pub(super) dropped: Dropped,
}

/// How much of a file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) number: FileNumber,
    /// Where its frames end.
    pub(super) end: u64,
    /// How many letters it was given.
    pub(super) letters: u64,
}

/// What the first two sectors of a file turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    /// Of two copies, at least one is intact; the other's place if it is not.
    Intact(Header, Option<u64>),
    Damaged,
    /// Written by a newer program.
    Newer {
        version: u32,
        features: u32,
    },
}

/// What reading needs of a storage.
pub(super) trait Files: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
}

/// A directory whose files may not be writable.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) PathBuf);

impl FileNumber {
    pub(super) fn file_name(self) -> String {
        format!("{:020}{SUFFIX}", self.0)
    }

    /// The name while it is being made.
    pub(super) fn new_name(self) -> String {
        format!("{:020}{NEW_SUFFIX}", self.0)
    }

    pub(super) fn of_file_name(name: &str) -> Option<FileNumber> {
        let number = name.strip_suffix(SUFFIX)?.parse().ok().map(FileNumber)?;
        (number.file_name() == name).then_some(number)
    }

    pub(super) fn of_new_name(name: &str) -> Option<FileNumber> {
        let number = name.strip_suffix(NEW_SUFFIX)?.parse().ok().map(FileNumber)?;
        (number.new_name() == name).then_some(number)
    }

    pub(super) fn next(self) -> FileNumber {
        FileNumber(self.0.saturating_add(1))
    }
}

impl Header {
    /// Appends both copies.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let previous = self.previous.unwrap_or(Extent { number: self.number, end: 0, letters: 0 });
        let numbers = [
            self.number.0,
            self.salt.0,
            self.first.0,
            previous.number.0,
            previous.end,
            previous.letters,
            self.dropped.letters,
            self.dropped.rows,
        ];
        let sector = sector(HEADER_MAGIC, &numbers);
        out.extend_from_slice(&sector);
        out.extend_from_slice(&sector);
    }

    /// Reads the header of the file with this number.
    pub(super) fn read(file: &dyn StorageFile, number: FileNumber) -> HeaderRead {
        let copies = [0, SECTOR_BYTES].map(|at| Header::read_copy(file, at, number));
        match copies {
            [HeaderRead::Intact(header, _), HeaderRead::Intact(..)] => HeaderRead::Intact(header, None),
            [HeaderRead::Intact(header, _), HeaderRead::Damaged] => {
                HeaderRead::Intact(header, Some(SECTOR_BYTES))
            }
            [HeaderRead::Damaged, HeaderRead::Intact(header, _)] => HeaderRead::Intact(header, Some(0)),
            [newer @ HeaderRead::Newer { .. }, _] | [_, newer @ HeaderRead::Newer { .. }] => newer,
            [HeaderRead::Damaged, HeaderRead::Damaged] => HeaderRead::Damaged,
        }
    }

    fn read_copy(file: &dyn StorageFile, at: u64, number: FileNumber) -> HeaderRead {
        let mut head = [0; HEADER_CRC_AT + 4];
        // What a bad sector keeps to itself is damaged.
        let complete = file.read_at(&mut head, at).is_ok_and(|read| read == head.len());
        if !complete || !is_intact(&head, HEADER_MAGIC, HEADER_CRC_AT) {
            return HeaderRead::Damaged;
        }
        let (version, features) = (u32_at(&head, 8), u32_at(&head, 12));
        if version != FORMAT_VERSION || features != 0 {
            return HeaderRead::Newer { version, features };
        }
        let previous = Extent {
            number: FileNumber(u64_at(&head, 40)),
            end: u64_at(&head, 48),
            letters: u64_at(&head, 56),
        };
        let header = Header {
            number: FileNumber(u64_at(&head, 16)),
            salt: Salt(u64_at(&head, 24)),
            first: FileNumber(u64_at(&head, 32)),
            previous: (previous.number < number).then_some(previous),
            dropped: Dropped { letters: u64_at(&head, 64), rows: u64_at(&head, 72) },
        };
        if header.number == number { HeaderRead::Intact(header, None) } else { HeaderRead::Damaged }
    }
}

impl Extent {
    /// What the file `end` holds.
    pub(super) fn encode(&self) -> [u8; SECTOR_BYTES as usize] {
        sector(END_MAGIC, &[self.number.0, self.end, self.letters])
    }

    /// Reads the file `end`; none if it is not there, not intact, or of another version.
    pub(super) fn read(files: &dyn Files) -> Option<Extent> {
        let file = files.open(END_FILE).ok()?;
        let mut head = [0; END_CRC_AT + 4];
        // It is written in place, so that a reader may meet it half written. Once more is enough.
        let mut read = || {
            let complete = file.read_at(&mut head, 0).is_ok_and(|read| read == head.len());
            (complete && is_intact(&head, END_MAGIC, END_CRC_AT)).then_some(head)
        };
        let head = read().or_else(&mut read)?;
        let known = u32_at(&head, 8) == FORMAT_VERSION && u32_at(&head, 12) == 0;
        known.then(|| Extent {
            number: FileNumber(u64_at(&head, 16)),
            end: u64_at(&head, 24),
            letters: u64_at(&head, 32),
        })
    }
}

impl Files for Arc<dyn Storage> {
    fn list(&self) -> io::Result<Vec<String>> {
        (**self).list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        (**self).open(name)
    }
}

impl Files for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        Directory::new(&self.0).list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(File::open(self.0.join(name))?))
    }
}

/// The next sector boundary at or behind `at`.
pub(super) fn sector_up(at: u64) -> u64 {
    at.next_multiple_of(SECTOR_BYTES)
}

/// A sector with magic, version, numbers, and the checksum behind them.
fn sector(magic: [u8; 8], numbers: &[u64]) -> [u8; SECTOR_BYTES as usize] {
    let mut sector = [0; SECTOR_BYTES as usize];
    sector[..8].copy_from_slice(&magic);
    sector[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    for (place, number) in sector[16..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let crc_at = 16 + 8 * numbers.len();
    let checksum = crc32c::crc32c(&sector[..crc_at]);
    sector[crc_at..crc_at + 4].copy_from_slice(&checksum.to_le_bytes());
    sector
}

fn is_intact(head: &[u8], magic: [u8; 8], crc_at: usize) -> bool {
    head[..8] == magic && crc32c::crc32c(&head[..crc_at]) == u32_at(head, crc_at)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default())
}
