//! The journal.
pub mod entry;
mod frame;
pub mod memory;
mod reader;
pub mod state;
pub mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

pub use entry::Entry;
pub use frame::{FRAME_BYTES_MAX, Frame};
pub use reader::{Read, ReadError, Reader};
pub use state::State;
pub use storage::Storage;

use crate::record::Offset;
use entry::EntryTooLarge;

/// Smallest `max_bytes`.
pub const MAX_BYTES_LEAST: u64 = 2 << 20;

/// Limits and pace of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of all files together; at least [`MAX_BYTES_LEAST`].
    pub max_bytes: u64,
    /// How long a commit may wait for company; zero commits as fast as the disk allows.
    pub commit_interval: Duration,
}

/// Identity of a journal, random, given when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalId(pub u64);

/// Who submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Intake: refused when the journal is full.
    Intake,
    /// Delivery's cursors and gaps, without which the journal would never empty: may use the reserve.
    Internal,
}

/// Why a submission was not taken. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The journal reached `max_bytes` or the disk is full: try again when [`Journal::room`] changes.
    #[error("the journal is full; it takes rows again when the databases have confirmed some")]
    Full,
    /// The disk does not keep up: try again when [`Journal::room`] changes.
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
    /// The journal failed to write and takes nothing until the next start.
    #[error("the journal has failed; see the log, check the disk under data_dir and restart")]
    Failed,
}

impl From<EntryTooLarge> for Refused {
    fn from(entry: EntryTooLarge) -> Refused {
        Refused::TooLarge { bytes: entry.bytes, limit: entry::ENTRY_BYTES_MAX }
    }
}

/// Why a journal cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {directory} is in use by process {pid}; stop it first")]
    Locked {
        /// The directory.
        directory: String,
        /// The process, `?` if it does not say.
        pid: String,
    },
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Entries that were durable and are lost, as half-open ranges.
    pub damaged: Vec<(Offset, Offset)>,
}

/// What the journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Their limit.
    pub max_bytes: u64,
    /// Everything below is durable.
    pub watermark: Offset,
    /// Everything below was submitted.
    pub end: Offset,
    /// Whether it takes rows.
    pub state: Condition,
}

/// Whether the journal takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It does.
    Running,
    /// Not until databases confirm, or the disk has room.
    Full,
    /// Not until the next start.
    Failed,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Commits {
    /// Commits.
    pub commits: u64,
    /// Entries committed.
    pub entries: u64,
    /// Bytes written for them, headers and padding included.
    pub bytes: u64,
}

/// The entries of one submission, as they are collected.
#[derive(Debug)]
pub struct Submission<'a> {
    out: &'a mut Vec<u8>,
    entries: u32,
}

impl Submission<'_> {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if it does not fit a frame; the submission is as before and may go on.
    pub fn add(&mut self, entry: &Entry<'_>) -> Result<(), Refused> {
        entry.encode(self.out)?;
        self.entries += 1;
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
        let _ = (sink, next, confirmed);
        Ok(())
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }
}

/// The handle, shared by everybody. The last one to go closes the journal as [`Journal::close`] does.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    watermark: watch::Sender<Offset>,
    room: watch::Sender<u64>,
}

impl Journal {
    /// Opens or creates the journal in a directory, which is locked until the process ends.
    ///
    /// # Errors
    /// Another process has it, it cannot be read or written, or a newer version wrote it. Nothing was changed.
    pub fn open_dir(directory: &Path, options: &Options) -> Result<(Journal, RecoveryReport), OpenError> {
        Err(OpenError::Locked { directory: directory.display().to_string(), pid: format!("{options:?}") })
    }

    /// Opens or creates the journal in any storage.
    ///
    /// # Errors
    /// As [`Journal::open_dir`].
    pub fn open(
        storage: Arc<dyn Storage>,
        options: &Options,
    ) -> Result<(Journal, RecoveryReport), OpenError> {
        let _ = (storage, options);
        let shared = Shared { watermark: watch::Sender::new(Offset(0)), room: watch::Sender::new(0) };
        Ok((Journal { shared: Arc::new(shared) }, RecoveryReport::default()))
    }

    /// Decides and appends in one step: `decide` sees the state that includes everything submitted before, and adds
    /// entries, which are appended as a whole or not at all. Returns what `decide` returned, and the receipt: the
    /// submission is durable once the watermark has reached it.
    ///
    /// `decide` runs under the journal's only lock: it must be short and must not call the journal.
    ///
    /// # Errors
    /// What `decide` returned, or the journal's refusal. Nothing was appended.
    pub fn submit<T, E: From<Refused>>(
        &self,
        class: Class,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<T, E>,
    ) -> Result<(T, Offset), E> {
        let _ = (class, decide);
        Err(Refused::Failed.into())
    }

    /// Registers a sink, which then starts where the slowest registered sink stands, or with the oldest entry if
    /// there is none. Returns its cursor; a known sink keeps its own.
    ///
    /// # Errors
    /// The journal's refusal.
    pub fn register_sink(&self, name: &str) -> Result<Offset, Refused> {
        let _ = name;
        Err(Refused::Failed)
    }

    /// Looks at the state. `look` runs under the journal's only lock: it must be short and must not call the journal.
    pub fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&State::new(JournalId(0), 0))
    }

    /// Everything below the watermark is durable.
    #[must_use]
    pub fn watermark(&self) -> watch::Receiver<Offset> {
        self.shared.watermark.subscribe()
    }

    /// Changes whenever a refused submission may be tried again.
    #[must_use]
    pub fn room(&self) -> watch::Receiver<u64> {
        self.shared.room.subscribe()
    }

    /// Commits now what waits for `commit_interval`. A source calls this once half of what it may have in flight is
    /// unacknowledged, because nothing more may arrive before the commit.
    pub fn hurry(&self) {}

    /// A reader of committed entries from an offset on.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        Reader::new(from)
    }

    /// What the journal holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { bytes: 0, max_bytes: 0, watermark: Offset(0), end: Offset(0), state: Condition::Failed }
    }

    /// Counters since the start.
    #[must_use]
    pub fn commits(&self) -> Commits {
        Commits::default()
    }

    /// Commits everything and stops. Later submissions are refused as [`Refused::Failed`]; readers go on.
    pub fn close(&self) {}
}
