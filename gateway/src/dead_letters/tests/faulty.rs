//! A storage whose calls are counted and fail as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::journal::Storage;
use crate::journal::memory::MemoryStorage;
use crate::journal::storage::{Space, StorageFile};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Create,
    Rename,
    Remove,
    Write,
    Sync,
    SyncDirectory,
}

/// Memory behind faults. Clones are the same storage.
#[derive(Clone, Default)]
pub(super) struct Faulty {
    memory: MemoryStorage,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    calls: u64,
    made: BTreeMap<Kind, u64>,
    /// From this call on there is no power.
    off_at: Option<u64>,
    /// How many of the next calls of a kind fail.
    failing: BTreeMap<Kind, u64>,
    /// Files of which a sync has failed: the system takes what they hold for written.
    lost: BTreeSet<String>,
    /// A place that cannot be read.
    unreadable: Option<(String, u64)>,
    bytes_max: u64,
}

impl Faulty {
    pub(super) fn new() -> Faulty {
        Faulty::default()
    }

    /// The next process on what this one has left behind.
    pub(super) fn over(memory: &MemoryStorage) -> Faulty {
        Faulty { memory: memory.clone(), ..Faulty::default() }
    }

    pub(super) fn live(&self) -> MemoryStorage {
        self.memory.clone()
    }

    pub(super) fn power_cut(&self, keep: impl FnMut(&str, usize) -> bool) -> MemoryStorage {
        self.memory.power_cut(keep)
    }

    /// Calls that change something, up to now.
    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(super) fn made(&self, kind: Kind) -> u64 {
        self.state().made.get(&kind).copied().unwrap_or(0)
    }

    /// The most bytes that all files together ever had.
    pub(super) fn bytes_max(&self) -> u64 {
        self.state().bytes_max
    }

    pub(super) fn off_at(&self, call: u64) {
        self.state().off_at = Some(call);
    }

    pub(super) fn fail(&self, kind: Kind, times: u64) {
        self.state().failing.insert(kind, times);
    }

    pub(super) fn unreadable(&self, name: &str, sector: u64) {
        self.state().unreadable = Some((name.to_owned(), sector));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts a call that changes something; what it fails with.
    fn take(&self, kind: Kind) -> io::Result<()> {
        let mut state = self.state();
        state.calls += 1;
        *state.made.entry(kind).or_default() += 1;
        if state.off_at.is_some_and(|off_at| state.calls > off_at) {
            return Err(io::Error::other("no power"));
        }
        match state.failing.get_mut(&kind) {
            Some(times @ 1..) => {
                *times -= 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(FaultyFile { storage: self.clone(), name: name.to_owned(), file })
    }
}

impl Storage for Faulty {
    fn space(&self) -> io::Result<Space> {
        self.memory.space()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.memory.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(name, self.memory.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.take(Kind::Create)?;
        if !self.memory.files().contains_key(name) {
            self.state().lost.remove(name);
        }
        Ok(self.file(name, self.memory.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.take(Kind::Rename)?;
        self.memory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.take(Kind::Remove)?;
        self.memory.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.take(Kind::SyncDirectory)?;
        self.memory.sync_directory()
    }
}

struct FaultyFile {
    storage: Faulty,
    name: String,
    file: Arc<dyn StorageFile>,
}

impl StorageFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if let Some((name, sector)) = &self.storage.state().unreadable
            && *name == self.name
            && at < (sector + 1) * 512
            && at + buffer.len() as u64 > sector * 512
        {
            return Err(io::Error::other("a bad sector"));
        }
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Err(error) = self.storage.take(Kind::Write) {
            // A part of it is written all the same.
            let half = bytes.len() / 1024 * 512;
            self.file.write_at(&bytes[..half], at)?;
            return Err(error);
        }
        self.file.write_at(bytes, at)?;
        let total: usize = self.storage.memory.files().values().map(Vec::len).sum();
        let mut state = self.storage.state();
        state.bytes_max = state.bytes_max.max(total as u64);
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        if let Err(error) = self.storage.take(Kind::Sync) {
            self.storage.state().lost.insert(self.name.clone());
            return Err(error);
        }
        if self.storage.state().lost.contains(&self.name) { Ok(()) } else { self.file.sync() }
    }
}
