//! What goes wrong, and when: orders that a test gives to the file system while it is mounted.

use std::time::Duration;

use rustix::io::Errno;

/// Which syncs of files fail with EIO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadSyncs {
    /// None.
    #[default]
    None,
    /// The one after so many good ones.
    Once {
        /// How many go well before.
        after: u64,
    },
    /// All.
    All,
}

/// When the file system turns read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    /// It does not; if it was, it is writable again.
    #[default]
    Never,
    /// Once nothing waits for a sync, as a remount by an operator does.
    BetweenWrites,
    /// Once something was written to a file that was not synced yet, as a kernel does that has met an error.
    BeforeSync,
}

/// All orders.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) bad_syncs: BadSyncs,
    /// How long a sync of a file takes.
    pub(super) sync_time: Duration,
    /// Syncs say that all is well and do nothing.
    pub(super) syncs_lie: bool,
    pub(super) read_only: ReadOnly,
    pub(super) is_read_only: bool,
    /// The most that one write takes.
    pub(super) write_bytes_max: Option<usize>,
    pub(super) freeze: Option<Freeze>,
    pub(super) power: Power,
    pub(super) counts: Counts,
}

/// When the machine stops: before a request that it leaves unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// The one behind so many writes, syncs and changes of directories.
    AfterChanges(u64),
    /// The sync behind so many others, so that something is written and not synced.
    AfterSyncs(u64),
}

/// Whether the machine goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Power {
    /// Requests are answered.
    #[default]
    On,
    /// No request is answered, as if the machine had stopped in the midst of it.
    Frozen,
    /// Every request is refused; the programs that made them are being killed.
    Off,
}

/// What the file system did since it was mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes, syncs and changes of directories.
    pub changes: u64,
    /// Syncs of files that went well.
    pub syncs: u64,
    /// Syncs of files that failed.
    pub failed_syncs: u64,
    /// Writes that took less than they were given.
    pub short_writes: u64,
    /// Requests that were refused for want of room.
    pub refused_full: u64,
    /// Requests that were refused because nothing may be written.
    pub refused_read_only: u64,
}

impl Faults {
    /// Whether to stop before the request that comes now, which is a sync or another change.
    pub(super) fn freezes_now(&mut self, is_sync: bool) -> bool {
        let left = match &mut self.freeze {
            None => return false,
            Some(Freeze::AfterSyncs(_)) if !is_sync => return false,
            Some(Freeze::AfterChanges(left) | Freeze::AfterSyncs(left)) => left,
        };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.freeze = None;
        self.power = Power::Frozen;
        true
    }

    /// Whether files may be changed now.
    pub(super) fn check_writable(&mut self) -> Result<(), Errno> {
        self.counts.refused_read_only += u64::from(self.is_read_only);
        if self.is_read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Whether the next sync of a file that has something to sync fails.
    pub(super) fn next_sync_fails(&mut self) -> bool {
        let fails = match &mut self.bad_syncs {
            BadSyncs::None => false,
            BadSyncs::All => true,
            BadSyncs::Once { after: 0 } => {
                self.bad_syncs = BadSyncs::None;
                true
            }
            BadSyncs::Once { after } => {
                *after -= 1;
                false
            }
        };
        let count = if fails { &mut self.counts.failed_syncs } else { &mut self.counts.syncs };
        *count += 1;
        fails
    }

    /// Follows the order to turn read-only once its moment has come; `awaits_sync` says whether a file does.
    pub(super) fn note_change(&mut self, awaits_sync: bool) {
        match self.read_only {
            ReadOnly::Never => {}
            ReadOnly::BetweenWrites => self.is_read_only |= !awaits_sync,
            ReadOnly::BeforeSync => self.is_read_only |= awaits_sync,
        }
    }
}
