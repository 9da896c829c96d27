//! A storage in memory that tells what is written from what is durable.
//!
//! It serves tests, and a gateway that must not touch a disk. A power cut yields a second storage with what a disk
//! would hold then: the directory as it was last synced, and of each file the synced sectors, while each sector that was
//! written since is old or new as the caller says.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::storage::{Storage, StorageFile};

const SECTOR_BYTES: usize = 512;

/// A directory in memory.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    directory: Mutex<Directory>,
    faults: Mutex<Faults>,
    released: Condvar,
}

#[derive(Clone, Default)]
struct Directory {
    live: BTreeMap<String, Arc<MemoryFile>>,
    durable: BTreeMap<String, Arc<MemoryFile>>,
}

/// Faults of a [`MemoryStorage`].
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
    content: Mutex<Content>,
    shared: Arc<Shared>,
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    syncs: u64,
}

impl MemoryStorage {
    /// An empty directory.
    #[must_use]
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// Changes the faults and wakes what they held up; returns what `change` returns.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        let result = change(&mut lock(&self.shared.faults));
        self.shared.released.notify_all();
        result
    }

    /// What a disk would hold if the power went now. `keep` decides for each sector that was written and not synced,
    /// by file name and number, whether the new content made it.
    #[must_use]
    pub fn power_cut(&self, mut keep: impl FnMut(&str, usize) -> bool) -> MemoryStorage {
        let after = MemoryStorage::new();
        for (name, file) in &lock(&self.shared.directory).durable {
            let content = lock(&file.content).clone();
            let mut bytes = content.durable.clone();
            for (sector, new) in content.live.chunks(SECTOR_BYTES).enumerate() {
                let from = sector * SECTOR_BYTES;
                let to = from + new.len();
                if content.durable.get(from..to) != Some(new) && keep(name, sector) {
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(new);
                }
            }
            after.put(name, bytes);
        }
        after
    }

    /// The names and contents of all files as they are written, durable or not.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let directory = lock(&self.shared.directory);
        directory.live.iter().map(|(name, file)| (name.clone(), lock(&file.content).live.clone())).collect()
    }

    /// How often a file was synced, 0 if there is none of that name.
    #[must_use]
    pub fn syncs(&self, name: &str) -> u64 {
        lock(&self.shared.directory).live.get(name).map_or(0, |file| lock(&file.content).syncs)
    }

    /// Places a durable file.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let content = Content { live: bytes.clone(), durable: bytes, syncs: 0 };
        let file = Arc::new(MemoryFile { content: Mutex::new(content), shared: Arc::clone(&self.shared) });
        let mut directory = lock(&self.shared.directory);
        directory.live.insert(name.to_owned(), Arc::clone(&file));
        directory.durable.insert(name.to_owned(), file);
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.shared.directory).live.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let directory = lock(&self.shared.directory);
        let file = directory.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(file) as Arc<dyn StorageFile>)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = Arc::new(MemoryFile { content: Mutex::default(), shared: Arc::clone(&self.shared) });
        lock(&self.shared.directory).live.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut directory = lock(&self.shared.directory);
        let file = directory.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        directory.live.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut directory = lock(&self.shared.directory);
        directory.live.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut directory = lock(&self.shared.directory);
        directory.durable = directory.live.clone();
        Ok(())
    }
}

impl StorageFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.content).live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let content = lock(&self.content);
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = content.live.get(start..).unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if lock(&self.shared.faults).full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let live = &mut lock(&self.content).live;
        let missing = (start + bytes.len()).saturating_sub(live.len());
        live.extend(vec![0; missing]);
        live[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // What is written while the sync is under way need not become durable with it.
        let live = lock(&self.content).live.clone();
        let mut faults = lock(&self.shared.faults);
        if faults.hold_syncs {
            faults.held += 1;
            self.shared.released.notify_all();
            faults = self
                .shared
                .released
                .wait_while(faults, |f| f.hold_syncs)
                .unwrap_or_else(PoisonError::into_inner);
            faults.held -= 1;
        }
        if faults.fail_syncs {
            return Err(io::Error::other("injected"));
        }
        let mut content = lock(&self.content);
        content.durable = live;
        content.syncs += 1;
        Ok(())
    }
}

impl MemoryStorage {
    /// Blocks until a sync is held up by [`Faults::hold_syncs`].
    pub fn wait_until_held(&self) {
        let faults = lock(&self.shared.faults);
        drop(
            self.shared.released.wait_while(faults, |f| f.held == 0).unwrap_or_else(PoisonError::into_inner),
        );
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.shared.directory).live.keys()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
