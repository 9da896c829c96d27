//! A file system of ours that forgets what was not synced.
//!
//! # Constraints
//!
//! A kernel's page cache outlives any process, so that killing the gateway alone never shows a missing fdatasync. Here a
//! power cut is a call: of everything that was not synced it leaves what a disk might leave. A lost row then shows
//! whether the gateway, the real one with all its threads, acknowledged it too early.
//!
//! # Format
//!
//! A tree of nodes in memory (`tree.rs`), each file with its live and its durable bytes, by sectors of 512 (`content.rs`).
//!
//! # Operation
//!
//! It is mounted through FUSE in the test's own process (`adapter.rs`); root needs nothing for that, anybody else
//! `fusermount3`. Files bypass the page cache, names are looked up each time, so that nothing but this file
//! system remembers anything, and a cut needs no unmounting. One thread answers requests in their order.
//!
//! A power cut has three steps, since nothing may be written between the end of the gateway and the cut: send SIGKILL,
//! [`ForgettingFs::power_off`], wait for the gateway's end, [`ForgettingFs::power_cut`]. To choose the exact call
//! at which the machine stops, [`ForgettingFs::freeze`] leaves a request unanswered.
//!
//! # Failure
//!
//! Faults (`faults.rs`) are orders: syncs fail or lie, writes are short, the disk is full or read-only. A frozen file system
//! that nobody switches off goes on after [`FREEZE_LIMIT`], so that no test hangs.

mod adapter;
mod answer;
mod content;
mod faults;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use fuser::{BackgroundSession, Config, MountOption};

pub use content::Damage;
pub use faults::{BadSyncs, Counts, Freeze, ReadOnly};

use crate::clock::wait_for;
use crate::mount::detach;
use crate::seed::Rng;
use adapter::Adapter;
use faults::{Faults, Power};
use tree::Tree;

/// How long requests stay unanswered at most.
pub const FREEZE_LIMIT: Duration = Duration::from_secs(30);

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct ForgettingFs {
    shared: Arc<Shared>,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
}

/// What the handle and the mount share.
#[derive(Debug)]
struct Shared {
    disk: Mutex<Disk>,
    /// Told whenever the power changes.
    power: Condvar,
}

#[derive(Debug)]
struct Disk {
    tree: Tree,
    faults: Faults,
    capacity_bytes: u64,
}

impl ForgettingFs {
    /// Mounts an empty file system with room for `capacity_bytes`, making the directory.
    ///
    /// # Errors
    /// FUSE is not to be had here; the message says what is missing.
    pub fn mount(mount_point: &Path, capacity_bytes: u64) -> anyhow::Result<ForgettingFs> {
        std::fs::create_dir_all(mount_point)?;
        let disk = Disk { tree: Tree::new(), faults: Faults::default(), capacity_bytes };
        let shared = Arc::new(Shared { disk: Mutex::new(disk), power: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("forgetting".into()), MountOption::NoAtime];
        let session =
            fuser::spawn_mount(Adapter::new(Arc::clone(&shared)), mount_point, &config).with_context(|| {
                format!(
                    "mounting a FUSE file system at {}: it needs /dev/fuse, and root or Debian's package fuse3",
                    mount_point.display()
                )
            })?;
        Ok(ForgettingFs { shared, mount_point: mount_point.to_owned(), session: Some(session) })
    }

    /// Leaves that request unanswered, and all later ones with it, until the power goes off.
    pub fn freeze(&self, when: Freeze) {
        self.disk().faults.freeze = Some(when);
    }

    /// Whether it has come to that.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.disk().faults.power == Power::Frozen
    }

    /// Waits until it has come to that; `false` when it has not within `limit`, in which case it will not any more.
    #[must_use]
    pub fn wait_frozen(&self, limit: Duration) -> bool {
        let frozen = || if self.is_frozen() { Ok(()) } else { Err(String::new()) };
        let came = wait_for("the file system's freezing", limit, frozen).is_ok();
        if !came {
            self.disk().faults.freeze = None;
        }
        came || self.is_frozen()
    }

    /// From here on nothing changes what is on the disk, and every request fails. To be called once SIGKILL was sent to
    /// whoever uses it.
    pub fn power_off(&self) {
        self.set_power(Power::Off);
    }

    /// Forgets what was not synced, as `seed` says, and goes on with the rest.
    pub fn power_cut(&self, seed: u64) -> Damage {
        let damage = self.disk().tree.cut(&mut Rng::new(seed));
        self.power_on();
        damage
    }

    /// Forgets everything that was not synced, which is one of the things that a power cut may come to.
    pub fn power_cut_forgetting_all(&self) {
        self.disk().tree.forget();
        self.power_on();
    }

    /// Goes on with everything, as after a kill without a power cut.
    pub fn power_on(&self) {
        self.set_power(Power::On);
    }

    /// Lets syncs of files fail from now on. What they were to make durable is gone from the disk's future, although reads
    /// show it until the next power cut.
    pub fn fail_syncs(&self, which: BadSyncs) {
        self.disk().faults.bad_syncs = which;
    }

    /// Lets each sync of a file take so long from now on, in which no other request is answered.
    pub fn slow_syncs_down(&self, to: Duration) {
        self.disk().faults.sync_time = to;
    }

    /// Lets every sync say from now on that it went well, and do nothing: the proof that a test notices.
    pub fn lie_about_syncs(&self) {
        self.disk().faults.syncs_lie = true;
    }

    /// Turns read-only, or writable again.
    pub fn set_read_only(&self, when: ReadOnly) {
        let mut disk = self.disk();
        disk.faults.read_only = when;
        disk.faults.is_read_only = false;
        // A write that waits for its sync must come after the order, so that nothing depends on the moment.
        if when == ReadOnly::BetweenWrites {
            disk.note_change();
        }
    }

    /// Whether it is read-only now.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.disk().faults.is_read_only
    }

    /// The most that one write takes from now on; longer ones are short.
    pub fn limit_writes(&self, bytes_max: Option<usize>) {
        self.disk().faults.write_bytes_max = bytes_max;
    }

    /// Another disk size; it may be less than what is stored.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk().capacity_bytes = bytes;
    }

    /// Bytes that all files take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk().tree.used_bytes()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.disk().faults.counts
    }

    fn set_power(&self, power: Power) {
        let mut disk = self.disk();
        disk.faults.power = power;
        disk.faults.freeze = None;
        drop(disk);
        self.shared.power.notify_all();
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.disk()
    }
}

impl Drop for ForgettingFs {
    fn drop(&mut self) {
        self.power_off();
        detach(&self.mount_point);
        // The thread ends once the kernel has let go of the mount; nobody waits for it, since a process that still has a
        // file open keeps it.
        drop(self.session.take());
    }
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
