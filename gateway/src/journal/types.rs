//! What the journal is told and what it answers: options, submissions, refusals, reports.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{error, info, warn};

use super::clocks::CLOCKS_MAX;
use super::entry::{Counts, CursorEntry, ENTRY_BYTES_MAX, Entry, EntryTooLarge, Move, MovedEntry};
use super::segment::SECTOR_BYTES;
use crate::config;
pub use crate::config::WhenFull;
use crate::record::Offset;

/// Smallest `max_bytes`.
pub const MAX_BYTES_LEAST: u64 = 2 << 20;

/// Segments in `max_bytes`, unless they would be smaller or larger than the bounds below.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 128 << 10;
const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// Limits and pace of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of all files together; at least [`MAX_BYTES_LEAST`].
    pub max_bytes: u64,
    /// How long a commit may wait for company; zero commits as fast as the disk allows.
    pub commit_interval: Duration,
    /// What happens to intake when there is no room.
    pub when_full: WhenFull,
}

/// Identity of a journal, random, given when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalId(pub u64);

/// Who submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Intake from devices that cannot be held back for long: brokers and lines drop what is not taken. It may wait a
    /// moment for company in its commit, until its source is in a hurry ([`Journal::hurry`](super::Journal::hurry)).
    Foreign,
    /// Intake from native devices, which keep what is not acknowledged.
    Native,
    /// Delivery's cursors and gaps, without which the journal would never empty: may use the reserve.
    Internal,
}

/// Why a submission was not taken. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The journal reached `max_bytes` or the disk is full: try again when [`super::Journal::room`] changes.
    #[error("the journal is full; it takes rows again when the databases have confirmed some")]
    Full,
    /// The disk does not keep up: try again when [`super::Journal::room`] changes.
    #[error("too much waits to be written to the journal; try again in a moment")]
    Busy,
    /// The submission, or one entry of it, is larger than the journal ever takes.
    #[error("{bytes} bytes are more than the journal takes at once ({limit})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What would be taken.
        limit: usize,
    },
    /// It holds rows of too many boots of the machine that came before the clock was believed: try again later.
    #[error(
        "the journal holds early rows of {CLOCKS_MAX} starts of this machine; it takes those of another one once the databases have some, or the clock is believed"
    )]
    Clocks,
    /// The journal failed to write, or is closed, and takes nothing until the next start.
    #[error("the journal has failed or is closed; see the log, check the disk under data_dir and restart")]
    Failed,
}

/// Why a journal cannot be opened. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the journal directory {directory} is in use by process {pid}; stop that process first")]
    Locked {
        /// The directory.
        directory: String,
        /// The process, `unknown` if it does not say.
        pid: String,
    },
    /// A newer program wrote it.
    #[error(
        "the journal file {file} has format {version} (features {features:#x}), which this version does not know; run the version that wrote it"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format version.
        version: u32,
        /// Its feature bits.
        features: u32,
    },
    /// The limit leaves no room to work.
    #[error("journal.max_bytes is {max_bytes}; set it to at least {MAX_BYTES_LEAST}")]
    TooSmall {
        /// The limit as configured.
        max_bytes: u64,
    },
    /// The disk or its permissions are in the way.
    #[error("cannot open the journal: {what}: {cause}; check the disk and the permissions of data_dir")]
    Unreadable {
        /// What could not be used.
        what: String,
        /// Why.
        cause: io::Error,
    },
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Where the journal goes on.
    pub end: Offset,
    /// Entries read behind the snapshot.
    pub entries: u64,
    /// Rows among the damaged entries, as far as intact neighbours tell.
    pub rows_lost: u64,
    /// Entries behind the snapshot that were durable and are lost, as half-open ranges.
    pub damaged: Vec<(Offset, Offset)>,
    /// Whether the last commit was left unfinished; what it held was never acknowledged.
    pub torn_tail: bool,
    /// Whether no snapshot was intact, so that what only trimmed segments told of devices and sinks is forgotten.
    pub snapshot_lost: bool,
}

/// What the journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Their limit.
    pub max_bytes: u64,
    /// Everything below is durable.
    pub watermark: Offset,
    /// Everything below was submitted.
    pub end: Offset,
    /// Largest submission in bytes of entries.
    pub submission_bytes_max: usize,
    /// Whether it takes rows.
    pub state: Condition,
    /// What is wrong with the disk, and what to do about it.
    pub trouble: Option<String>,
}

/// Whether the journal takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It does.
    Running,
    /// Not until databases confirm, or the disk has room.
    Full,
    /// It does, and commits nothing: the disk does not answer.
    Stalled,
    /// Not until the next start.
    Failed,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Commits {
    /// Commits, one sync each.
    pub commits: u64,
    /// Entries committed.
    pub entries: u64,
    /// Bytes written for them, frame headers included.
    pub bytes: u64,
    /// Files given up after a failed write or sync; what they were to hold went into new ones.
    pub rewrites: u64,
}

/// The entries of one submission, as they are collected.
#[derive(Debug)]
pub struct Submission<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) entries: u32,
    /// Offset of the first of them.
    pub(super) at: Offset,
    /// Whether there are early entries among them, or clocks.
    pub(super) of_clocks: bool,
}

impl Submission<'_> {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if it does not fit a frame; the submission is as before and may go on.
    pub fn add(&mut self, entry: &Entry<'_>) -> Result<(), Refused> {
        entry.encode(self.out)?;
        self.entries += 1;
        self.of_clocks |= entry.is_of_clocks();
        Ok(())
    }

    /// Adds the progress of a sink, in as many entries as the counts need.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if a single count does not fit a frame.
    pub fn add_cursor(
        &mut self,
        sink: &str,
        next: Offset,
        confirmed: &[(Box<str>, u64)],
    ) -> Result<(), Refused> {
        let entry = Entry::Cursor(CursorEntry { sink, next, confirmed: Counts::of(confirmed) });
        match self.add(&entry) {
            Err(Refused::TooLarge { .. }) if confirmed.len() > 1 => {
                let (front, back) = confirmed.split_at(confirmed.len() / 2);
                self.add_cursor(sink, next, front)?;
                self.add_cursor(sink, next, back)
            }
            added => added,
        }
    }

    /// Adds rows of a sink that came to another end, in as many entries as the counts need.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if a single count does not fit a frame.
    pub fn add_moved(&mut self, sink: &str, what: Move, rows: &[(Box<str>, u64)]) -> Result<(), Refused> {
        match self.add(&Entry::Moved(MovedEntry { sink, what, rows: Counts::of(rows) })) {
            Err(Refused::TooLarge { .. }) if rows.len() > 1 => {
                let (front, back) = rows.split_at(rows.len() / 2);
                self.add_moved(sink, what, front)?;
                self.add_moved(sink, what, back)
            }
            added => added,
        }
    }

    /// Offset that the next entry gets.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.at.plus(u64::from(self.entries))
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Their size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }
}

impl From<&config::Journal> for Options {
    fn from(journal: &config::Journal) -> Options {
        let config::Journal { max_bytes, commit_interval, when_full } = *journal;
        Options { max_bytes, commit_interval, when_full }
    }
}

/// What a journal of a certain size can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Length of a file.
    pub segment_bytes: u64,
    /// Devices with names of usual length that can be told apart; more of them share an account, or are refused.
    pub devices: usize,
}

impl Options {
    /// What the journal can do on a medium that has room for so many bytes of it.
    #[must_use]
    pub fn capacity(&self, room_bytes: u64) -> Capacity {
        let segment_bytes = self.segment_bytes(room_bytes);
        let state_bytes = usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX);
        Capacity { segment_bytes, devices: state_bytes / super::state::USUAL_DEVICE_BYTES }
    }

    /// A journal of that size at its own pace.
    #[must_use]
    pub const fn sized(max_bytes: u64) -> Options {
        Options { max_bytes, commit_interval: Duration::ZERO, when_full: WhenFull::Auto }
    }

    /// Length of a segment.
    ///
    /// A disk that cannot hold `max_bytes` has segments that suit what it can hold, a power of two of them in length, so
    /// that the length stays while the room varies.
    pub(super) fn segment_bytes(&self, room_bytes: u64) -> u64 {
        let even = |bytes: u64| bytes / SEGMENTS / SECTOR_BYTES * SECTOR_BYTES;
        let bytes = if room_bytes >= self.max_bytes {
            even(self.max_bytes)
        } else {
            even(self.max_bytes).min(1 << (even(room_bytes) | 1).ilog2())
        };
        bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

impl RecoveryReport {
    /// Tells the operator. What is damaged is lost and makes an error; a torn tail loses nothing that was promised.
    pub(super) fn log(&self) {
        for (from, to) in &self.damaged {
            error!(%from, %to, "journal entries are damaged and lost; check the disk under data_dir");
        }
        if self.snapshot_lost {
            error!(
                "no snapshot in the journal is intact; devices and sinks are known only from what is left"
            );
        }
        if self.torn_tail {
            warn!(end = %self.end, "the journal's last commit was not finished; nothing that was acknowledged is lost");
        }
        info!(end = %self.end, entries = self.entries, "journal opened");
    }
}

impl From<EntryTooLarge> for Refused {
    fn from(entry: EntryTooLarge) -> Refused {
        Refused::TooLarge { bytes: entry.bytes, limit: ENTRY_BYTES_MAX }
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
