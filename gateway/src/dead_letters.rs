//! The dead letters: what could not be read at intake, and what a database refused, kept with the reason.
//!
//! # Constraints
//!
//! * What [`DeadLetters::append`] has returned for survives a crash, a kill and a power cut at any instant.
//! * It is bounded by `max_bytes`. When there is no room the oldest file goes, and how many letters and rows went is
//!   counted durably, before they go.
//! * It always opens: damage costs the letters that it hit, and those are named by file and position, and counted.
//! * A letter is kept once, however often it is appended: its key is the journal's id, stage, sink and journal offset.
//! * No letters are held in memory. Who reads needs no lock, changes nothing, and may do so while the gateway appends.
//!
//! # Format
//!
//! A directory of files `{number:020}.letters`, numbered in the order of their making; a file `end`; and files that are
//! being made, `{number:020}.new`, which do not count. All numbers are little-endian.
//!
//! A file begins with a header (`file.rs`), written twice, into its first and second sector:
//!
//! | at | what |
//! |---|---|
//! | 0 | magic `FOREBAYD`, 8 bytes |
//! | 8 | format version, u32 |
//! | 12 | feature bits, u32; one that is unknown makes the store unreadable |
//! | 16 | number of the file, u64 |
//! | 24 | salt, u64, random; each frame of the file repeats it, so that no payload can contain one |
//! | 32 | number of the oldest file that counts, u64: those below were dropped |
//! | 40 | number of the file before it, u64; its own number if there is none. Numbers in between do not count |
//! | 48 | where the frames of that file end, u64: what lies behind was never durable |
//! | 56 | how many letters that file was given, u64 |
//! | 64 | letters dropped so far, u64 |
//! | 72 | rows of these, u64 |
//! | 80 | CRC-32C of bytes 0 to 79, u32; its place is the same in every version |
//!
//! At 1024 the frames (`frame.rs`) begin. Those of one append follow one another; the next append begins on a sector
//! boundary, so that no write ever touches a sector that holds durable letters. The rest of a sector is zero.
//!
//! | at | what |
//! |---|---|
//! | 0 | magic, the bytes FB 46 42 6C |
//! | 4 | CRC-32C of everything from 8 on, u32 |
//! | 8 | length of the frame in bytes, u32 |
//! | 12 | kind, u8: 1 is a letter, 2 says that one is gone; others are passed over |
//! | 13 | zero, 3 bytes |
//! | 16 | salt of the file, u64 |
//! | 24 | how many letters the file was given before this frame, u32 |
//! | 28 | where its append begins, u32: everything below was durable when this was written |
//! | 32 | how many letters the file was given before its append, u32 |
//! | 36 | the letter; of one that is gone its stage, u8, id of the journal, u64, journal offset, u64, and sink to the end |
//!
//! A letter is gone if a frame behind it says so, in its file or a later one: it was sent again and stored, or dropped by
//! somebody's word. Such a frame is no letter in any count.
//!
//! A letter (`letter.rs`):
//!
//! | at | what |
//! |---|---|
//! | 0 | stage, u8: 0 intake, 1 delivery |
//! | 1 | id of the journal, u64 |
//! | 9 | journal offset, u64 |
//! | 17 | time, i64, nanoseconds since 1970 UTC |
//! | 25 | rows, u64 |
//! | 33 | length of the body before it was cut, u64 |
//! | 41 | four texts, each as its length, u16, and that many bytes of UTF-8: sink, device, origin, reason |
//! | … | the body, to the end of the frame |
//!
//! The file `end` is one sector, written anew in place after each append and never synced. It says how much is durable,
//! so that damage in the last append can be told from a tail that a power cut has torn. Old or lost, it costs nothing
//! but that.
//!
//! | at | what |
//! |---|---|
//! | 0 | magic `FOREBAYE`, 8 bytes |
//! | 8 | format version, u32 |
//! | 12 | feature bits, u32 |
//! | 16 | number of the newest file, u64 |
//! | 24 | where its durable frames end, u64 |
//! | 32 | how many letters it was given, u64 |
//! | 40 | CRC-32C of bytes 0 to 39, u32 |
//!
//! # Operation
//!
//! An append writes its letters behind the last ones and syncs the file once (`writer.rs`). When they do not fit, and
//! for the first append of each life, a file is begun: header and letters are written under the name `.new` and synced,
//! the file gets its name, and the directory is synced; only then are dropped files removed. So a file that counts has
//! a complete header, and what a header says holds at one instant. The first append of a life reads all files once, to
//! know what is in them; later ones read files only where a letter's offset lies among those of its journal and sink in it,
//! to see whether it is there already.
//!
//! Which files count is found from the newest header, backwards (`chain.rs`).
//!
//! # Failure
//!
//! | found | meaning | done |
//! |---|---|---|
//! | no frame where one should be, below what is proven durable | damage | named, counted by the next frame's number; reading goes on at the next intact frame |
//! | no frame, nothing proven | the torn tail of an append that has not returned | nothing |
//! | intact letters, nothing proven | an append that a power cut or a kill has interrupted | shown; the next life writes them again, into the file whose header excludes this tail |
//! | one copy of a header is bad | damage | named; nothing is lost |
//! | both copies are bad | damage | named; the letters are read all the same, and the counts are those of the file before |
//! | a file is missing | damage | named and counted |
//! | an unknown version or feature | a newer program wrote it | refused, nothing is changed |
//!
//! A write or sync that fails is not repeated on the same file: the letters are written into a new one. If that fails
//! too, the caller gets an error, keeps the letters and tries again; a full disk is no more than that.

mod chain;
mod file;
mod frame;
pub(crate) mod fuzzing;
mod letter;
mod listed;
mod reader;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::journal::Storage;
use crate::journal::storage::Directory;

use chain::Chain;
pub use chain::ReadError;
pub use letter::{
    DELIVERY_BODY_BYTES_MAX, INTAKE, INTAKE_BODY_BYTES_MAX, Letter, LetterId, NoLetterId, Stage,
    TEXT_BYTES_MAX,
};
pub use listed::{Listed, WholeLetter, time};
pub use reader::{Damage, Found, Matches, Reader};
use writer::Writer;

/// Name of the store's directory below `data_dir`.
pub const DIRECTORY: &str = "dead-letters";

/// Smallest `max_bytes`.
pub const MAX_BYTES_LEAST: u64 = 256 << 10;

/// The store, opened for appending. The lock of the journal in the same `data_dir` keeps a second process out.
#[derive(Debug)]
pub struct DeadLetters {
    writer: Mutex<Writer>,
    dropped: Mutex<Dropped>,
}

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Letters written.
    pub written: u64,
    /// Letters that were there already.
    pub known: u64,
    /// What had to go to make room, since the last append that returned: an error for the log.
    pub dropped: Dropped,
}

/// What had to go to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Letters.
    pub letters: u64,
    /// Their rows.
    pub rows: u64,
}

/// Why the store cannot be opened for appending. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The limit leaves no room to work.
    #[error("dead_letters.max_bytes is {max_bytes}; set it to at least {MAX_BYTES_LEAST}")]
    TooSmall {
        /// The limit as configured.
        max_bytes: u64,
    },
    /// The directory cannot be made.
    #[error("cannot make {directory}: {cause}; give data_dir to the gateway's user with chown")]
    Directory {
        /// The directory.
        directory: String,
        /// Why.
        cause: io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

/// Letters could not be made durable. Some of them may be all the same, and appending them again is harmless.
#[derive(Debug, Error)]
#[error("cannot keep dead letters: {what}: {cause}; make room on the disk under data_dir, or replace it")]
pub struct AppendError {
    /// What failed.
    pub what: String,
    /// Why.
    pub cause: io::Error,
}

impl DeadLetters {
    /// Opens or makes the store in a directory.
    ///
    /// # Errors
    /// It cannot be made or read, or a newer version wrote it.
    pub fn open_dir(directory: &Path, max_bytes: u64) -> Result<DeadLetters, OpenError> {
        let unusable = |cause| OpenError::Directory { directory: directory.display().to_string(), cause };
        fs::create_dir_all(directory).map_err(unusable)?;
        // Letters are only as durable as the name of their directory, whichever life has made it.
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new("."))).and_then(|file| file.sync_all()).map_err(unusable)?;
        DeadLetters::open(Arc::new(Directory::new(directory)), max_bytes)
    }

    /// Opens or makes the store in any storage.
    ///
    /// # Errors
    /// As [`DeadLetters::open_dir`].
    pub fn open(storage: Arc<dyn Storage>, max_bytes: u64) -> Result<DeadLetters, OpenError> {
        if max_bytes < MAX_BYTES_LEAST {
            return Err(OpenError::TooSmall { max_bytes });
        }
        let dropped = Mutex::new(Chain::read(&storage)?.dropped);
        Ok(DeadLetters { writer: Mutex::new(Writer::new(storage, max_bytes)), dropped })
    }

    /// Makes letters durable, those that are there already excepted.
    ///
    /// # Errors
    /// They are not, or not all of them: keep them and try again after a pause.
    pub fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        if letters.is_empty() {
            return Ok(Appended::default());
        }
        self.write(|writer| writer.append(letters))
    }

    /// Makes durable that letters do not count any more; those that counted until now, each once.
    ///
    /// # Errors
    /// Some of them may still count; letting them go again is harmless.
    pub fn remove<'a>(&self, letters: &'a [Letter]) -> Result<Vec<&'a Letter>, AppendError> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        self.write(|writer| writer.remove(letters))
    }

    /// What had to go to make room since the directory was made. It waits for no disk.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<R>(&self, work: impl FnOnce(&mut Writer) -> R) -> R {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut writer);
        let dropped = writer.dropped();
        let mut known = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        // A writer that could not read what is there knows of none.
        *known = Dropped { letters: known.letters.max(dropped.letters), rows: known.rows.max(dropped.rows) };
        result
    }
}

impl Dropped {
    fn add(&mut self, other: Dropped) {
        self.letters = self.letters.saturating_add(other.letters);
        self.rows = self.rows.saturating_add(other.rows);
    }

    /// What was dropped since it was `before`.
    pub(crate) fn since(self, before: Dropped) -> Dropped {
        Dropped {
            letters: self.letters.saturating_sub(before.letters),
            rows: self.rows.saturating_sub(before.rows),
        }
    }
}
