//! A storage in memory that tells what is written from what is durable.
//!
//! # Constraints
//!
//! It serves tests, which open a state of it a million times, and a gateway that must not touch a disk. So copies share
//! contents until one side writes them, everything that happens follows from the calls and from seeds, and what is kept
//! beyond the contents is what was not synced.
//!
//! # Operation
//!
//! Files are 512-byte sectors (`content.rs`) under names in a directory (`medium.rs`). A power cut leaves each sector
//! that was written since the last sync old, new, as it was in between, or garbled; each length that was not synced old,
//! new, or in between; and of the directory operations that were not synced the first few. A file whose creation is
//! not among them is gone, synced or not, and a removed one is back. A kill leaves everything as it reads, and what was
//! not synced is still not synced. To create a file over another makes a new one, so that the old one may come back.
//!
//! # Failure
//!
//! Calls are numbered and fail by plan (`calls.rs`). A failed write may have written some of its sectors. A failed sync
//! takes what it covers for written, as Linux does: it goes on to read as it was written, but no later sync makes it
//! durable, unless it was written again. A failed sync of the directory changes nothing: the journal of the file system
//! keeps the order, so that a later one makes everything durable or fails.

mod calls;
mod content;
mod fates;
mod medium;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use calls::{Call, CallKind, Fault};
pub use fates::{Fact, Fate, Fates, Lengths, Undecided};

use super::storage::{Space, Storage, StorageFile};
use calls::{Calls, Refusal};
use content::SECTOR_BYTES;
use fates::{ByFact, ByFates, Decide};
use medium::{FileId, Medium};

/// A directory in memory. Clones are handles of the same one; [`MemoryStorage::fork`] makes another.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    core: Mutex<Core>,
    released: Condvar,
}

#[derive(Clone, Default)]
struct Core {
    medium: Medium,
    calls: Calls,
    faults: Faults,
}

/// Faults of a [`MemoryStorage`] that are switched on and off, for tests with threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Whether syncs fail.
    pub fail_syncs: bool,
    /// Whether writes fail with "no space left".
    pub full: bool,
    /// Whether syncs do not return for the time being.
    pub hold_syncs: bool,
    /// How many syncs wait for that to end.
    pub held: u64,
}

struct MemoryFile {
    shared: Arc<Shared>,
    id: FileId,
    name: Arc<str>,
}

impl MemoryStorage {
    /// An empty directory.
    #[must_use]
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// An empty directory on a medium of this size. The lengths of all files together do not exceed it.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> MemoryStorage {
        MemoryStorage::of(Core { medium: Medium::with_capacity(bytes), ..Core::default() })
    }

    /// A copy of the directory as it is, with its calls and faults, which goes its own way. Nobody has its files open.
    #[must_use]
    pub fn fork(&self) -> MemoryStorage {
        let core = self.core();
        let faults = Faults { held: 0, ..core.faults };
        MemoryStorage::of(Core { medium: core.medium.closed(), calls: core.calls.clone(), faults })
    }

    /// Places a durable file. The directory becomes durable with it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.core().medium.put(name, bytes);
    }

    /// The names and contents of all files as they are written, durable or not.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let core = self.core();
        let file = |name: &Arc<str>| Some((name.to_string(), core.medium.named(name)?.0.bytes().to_vec()));
        core.medium.names().filter_map(file).collect()
    }

    /// How often a file was synced, 0 if there is none of that name.
    #[must_use]
    pub fn syncs(&self, name: &str) -> u64 {
        self.core().medium.named(name).map_or(0, |(_, syncs)| syncs)
    }

    /// A hash of the names and contents of all files as they read. Two states after a power cut with the same digest are
    /// the same; after a kill they may differ in what is durable.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.core().medium.digest()
    }

    /// How many calls were made, and the number of the next one. Calls after the power went do not count.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.core().calls.made()
    }

    /// How many calls of one kind were made.
    #[must_use]
    pub fn calls_of(&self, kind: CallKind) -> u64 {
        self.core().calls.made_of(kind)
    }

    /// Keeps a list of the calls from now on.
    pub fn start_trace(&self) {
        self.core().calls.start_trace();
    }

    /// The calls since [`MemoryStorage::start_trace`]; none without it.
    #[must_use]
    pub fn trace(&self) -> Vec<Call> {
        self.core().calls.trace().to_vec()
    }

    /// Lets a call fail. Of several faults for the same call the first one planned is taken.
    pub fn plan(&self, fault: Fault) {
        self.core().calls.plan(fault);
    }

    /// Forgets all planned faults.
    pub fn heal(&self) {
        self.core().calls.heal();
    }

    /// Lets the power go before the call of this number: it and all later ones fail and change nothing.
    pub fn cut_at(&self, call: u64) {
        self.cut_inside(call, 0);
    }

    /// Lets the power go within the call of this number. A write has written its first `sectors` by then, not
    /// durably; other calls change nothing.
    pub fn cut_inside(&self, call: u64, sectors: usize) {
        self.core().calls.cut_at(call, sectors);
    }

    /// Whether a call met the power cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.core().calls.is_off()
    }

    /// What a power cut now would decide if all directory operations survived it.
    #[must_use]
    pub fn undecided(&self) -> Undecided {
        self.undecided_after(usize::MAX)
    }

    /// What a power cut now would decide if the first `operations` directory operations survived it.
    #[must_use]
    pub fn undecided_after(&self, operations: usize) -> Undecided {
        self.core().medium.undecided(operations)
    }

    /// What a disk holds after a power cut now.
    #[must_use]
    pub fn after_power_cut(&self, fates: &Fates) -> MemoryStorage {
        let core = self.core();
        let operations = fates.operations(core.medium.operations());
        core.after_power_cut(operations, &mut ByFates::new(fates))
    }

    /// What a disk holds after a power cut now that leaves the first `operations` directory operations. `decide` is
    /// asked for each of [`MemoryStorage::undecided_after`]: file by file, for sectors and then for the length.
    #[must_use]
    pub fn after_power_cut_by(&self, operations: usize, decide: impl FnMut(&Fact) -> Fate) -> MemoryStorage {
        self.core().after_power_cut(operations, &mut ByFact(decide))
    }

    /// What a disk holds after a power cut now that leaves no directory operation. `keep` decides for each sector that
    /// was written and not synced, by file name and number, whether the new content made it; a file reaches to the last
    /// one that did.
    #[must_use]
    pub fn power_cut(&self, keep: impl FnMut(&str, usize) -> bool) -> MemoryStorage {
        self.core().after_power_cut(0, &mut Keep { keep, last: None })
    }

    /// What the next process finds after this one was killed: everything as it reads, and what was not synced still not
    /// synced. Calls are counted anew, and no faults are left.
    #[must_use]
    pub fn after_kill(&self) -> MemoryStorage {
        MemoryStorage::of(Core { medium: self.core().medium.closed(), ..Core::default() })
    }

    /// Changes the faults and wakes what they held up; returns what `change` returns.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        let result = change(&mut self.core().faults);
        self.shared.released.notify_all();
        result
    }

    /// Blocks until a sync is held up by [`Faults::hold_syncs`].
    pub fn wait_until_held(&self) {
        drop(self.shared.wait_while(self.core(), |core| core.faults.held == 0));
    }

    fn of(core: Core) -> MemoryStorage {
        MemoryStorage { shared: Arc::new(Shared { core: Mutex::new(core), released: Condvar::new() }) }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.shared.core()
    }

    /// Takes a call that writes nothing.
    fn take(&self, kind: CallKind, file: &str) -> io::Result<MutexGuard<'_, Core>> {
        let mut core = self.core();
        core.calls.take(kind, file, 0).map_err(|refusal| refusal.error)?;
        Ok(core)
    }

    fn handle(&self, (name, id): (Arc<str>, FileId)) -> Arc<dyn StorageFile> {
        Arc::new(MemoryFile { shared: Arc::clone(&self.shared), id, name })
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.take(CallKind::List, "")?.medium.names().map(ToString::to_string).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.handle(self.take(CallKind::Open, name)?.medium.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.handle(self.take(CallKind::Create, name)?.medium.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.take(CallKind::Rename, from)?.medium.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.take(CallKind::Remove, name)?.medium.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.take(CallKind::SyncDirectory, "")?.medium.sync_directory();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let core = self.take(CallKind::Space, "")?;
        Ok(Space { free_bytes: core.medium.free_bytes(), total_bytes: core.medium.total_bytes() })
    }
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        let core = self.take(CallKind::Length)?;
        Ok(core.medium.content(self.id)?.bytes().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let core = self.take(CallKind::Read)?;
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = core.medium.content(self.id)?.bytes().get(start..).unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut core = self.shared.core();
        let offset = (at % SECTOR_BYTES as u64) as usize;
        let sectors = (offset + bytes.len()).div_ceil(SECTOR_BYTES);
        let refusal = match core.calls.take(CallKind::Write, &self.name, sectors) {
            Ok(()) if core.faults.full => Refusal::injected(io::ErrorKind::StorageFull, 0),
            Ok(()) => return core.medium.write(self.id, bytes, at),
            Err(refusal) => refusal,
        };
        let written = (refusal.sectors.saturating_mul(SECTOR_BYTES)).saturating_sub(offset).min(bytes.len());
        // What failed stays the reason, even if there is no room for this part.
        let _ = core.medium.write(self.id, &bytes[..written], at);
        Err(refusal.error)
    }

    fn sync(&self) -> io::Result<()> {
        let mut core = self.shared.core();
        let mut refusal = core.calls.take(CallKind::Sync, &self.name, 0).err();
        // What is written while the sync is under way need not become durable with it.
        let up_to = core.medium.content(self.id)?.written();
        if refusal.is_none() && core.faults.hold_syncs {
            core.faults.held += 1;
            self.shared.released.notify_all();
            core = self.shared.wait_while(core, |core| core.faults.hold_syncs);
            core.faults.held -= 1;
            refusal = core.calls.is_off().then(|| Refusal::off(0));
        }
        if refusal.is_none() && core.faults.fail_syncs {
            refusal = Some(Refusal::injected(io::ErrorKind::Other, 0));
        }
        match refusal {
            None => core.medium.sync(self.id, up_to),
            Some(Refusal { error, off: true, .. }) => Err(error),
            Some(Refusal { error, .. }) => {
                core.medium.lose(self.id, up_to)?;
                Err(error)
            }
        }
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.shared.core().medium.forget_lost(self.id)
    }
}

impl MemoryFile {
    fn take(&self, kind: CallKind) -> io::Result<MutexGuard<'_, Core>> {
        let mut core = self.shared.core();
        core.calls.take(kind, &self.name, 0).map_err(|refusal| refusal.error)?;
        Ok(core)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.shared.core().medium.close(self.id);
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'c>(
        &self,
        core: MutexGuard<'c, Core>,
        held: impl FnMut(&mut Core) -> bool,
    ) -> MutexGuard<'c, Core> {
        self.released.wait_while(core, held).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn after_power_cut(&self, operations: usize, decide: &mut impl Decide) -> MemoryStorage {
        MemoryStorage::of(Core { medium: self.medium.survivor(operations, decide), ..Core::default() })
    }
}

/// Decides as [`MemoryStorage::power_cut`] says.
struct Keep<K> {
    keep: K,
    /// The last sector that was kept: its file and its end.
    last: Option<(Arc<str>, u64)>,
}

impl<K: FnMut(&str, usize) -> bool> Decide for Keep<K> {
    fn sector(&mut self, file: &Arc<str>, sector: usize, _: usize) -> Fate {
        if !(self.keep)(file, sector) {
            return Fate::Old;
        }
        self.last = Some((Arc::clone(file), (sector as u64 + 1) * SECTOR_BYTES as u64));
        Fate::New
    }

    fn length(&mut self, file: &Arc<str>, versions: usize, lengths: impl Fn(usize) -> u64) -> u64 {
        let end = self.last.take().filter(|(last, _)| last == file).map_or(0, |(_, end)| end);
        end.clamp(lengths(0), lengths(versions))
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.core().medium.names()).finish()
    }
}
