//! The files and the directory: as they read, as they are durable, and what lies between.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::content::{Content, digest, mix};
use super::fates::{Decide, Undecided};

/// Everything that a disk and its page cache hold. A copy shares the contents until one side writes them.
#[derive(Clone, Default)]
pub(super) struct Medium {
    live: Names,
    durable: Names,
    /// What was done to the directory since it was synced, in order.
    operations: Vec<Operation>,
    files: BTreeMap<FileId, File>,
    next: u64,
    capacity_bytes: Option<u64>,
}

/// A file whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

type Names = BTreeMap<Arc<str>, FileId>;

#[derive(Clone)]
enum Operation {
    Create(Arc<str>, FileId),
    Rename(Arc<str>, Arc<str>),
    Remove(Arc<str>),
}

#[derive(Clone, Default)]
struct File {
    content: Arc<Content>,
    syncs: u64,
    /// How often it is open. A removed file lasts as long as that.
    handles: usize,
}

impl Medium {
    /// An empty medium on which files have this much room.
    pub(super) fn with_capacity(bytes: u64) -> Medium {
        Medium { capacity_bytes: Some(bytes), ..Medium::default() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.live.keys()
    }

    /// Opens a file for as long as [`Medium::close`] is not called.
    pub(super) fn open(&mut self, name: &str) -> io::Result<(Arc<str>, FileId)> {
        let (name, id) = self.live.get_key_value(name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(file) = self.files.get_mut(id) {
            file.handles += 1;
        }
        Ok((Arc::clone(name), *id))
    }

    /// Creates a file and opens it.
    pub(super) fn create(&mut self, name: &str) -> io::Result<(Arc<str>, FileId)> {
        if self.free_bytes() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = self.add(Content::default());
        let name = Arc::<str>::from(name);
        self.change(Operation::Create(Arc::clone(&name), id))?;
        self.open(&name)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(Operation::Rename(from.into(), to.into()))
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(Operation::Remove(name.into()))
    }

    pub(super) fn sync_directory(&mut self) {
        self.durable = self.live.clone();
        self.operations.clear();
        self.sweep();
    }

    pub(super) fn close(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.handles = file.handles.saturating_sub(1);
            if file.handles == 0 && self.live.values().all(|live| *live != id) {
                self.sweep();
            }
        }
    }

    /// Places a durable file, and makes the directory durable with it.
    pub(super) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let id = self.add(Content::durable(bytes));
        self.live.insert(name.into(), id);
        self.sync_directory();
    }

    pub(super) fn content(&self, id: FileId) -> io::Result<&Content> {
        Ok(&*self.files.get(&id).ok_or(io::ErrorKind::NotFound)?.content)
    }

    /// The live content of a file by its name.
    pub(super) fn named(&self, name: &str) -> Option<(&Content, u64)> {
        let file = self.files.get(self.live.get(name)?)?;
        Some((&file.content, file.syncs))
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self, id: FileId, bytes: &[u8], at: u64) -> io::Result<()> {
        let length = self.content(id)?.bytes().len() as u64;
        let end = at.checked_add(bytes.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        // What lies in the file has its room already.
        let room = length.saturating_add(self.free_bytes());
        let fits =
            bytes.len() - usize::try_from(end.saturating_sub(room)).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if fits > 0 {
            self.content_mut(id)?.write(&bytes[..fits], start);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Makes the writes of a file up to a number durable, but for those that a failed sync lost.
    pub(super) fn sync(&mut self, id: FileId, up_to: u64) -> io::Result<()> {
        if !self.content(id)?.is_durable() {
            self.content_mut(id)?.sync(up_to);
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.syncs += 1;
        }
        Ok(())
    }

    /// Loses the writes of a file up to a number, as a sync that fails does.
    pub(super) fn lose(&mut self, id: FileId, up_to: u64) -> io::Result<()> {
        if !self.content(id)?.is_durable() {
            self.content_mut(id)?.lose(up_to);
        }
        Ok(())
    }

    /// Forgets what failed syncs of a file have lost.
    pub(super) fn forget_lost(&mut self, id: FileId) -> io::Result<()> {
        if !self.content(id)?.is_durable() {
            self.content_mut(id)?.forget_lost();
        }
        Ok(())
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.capacity_bytes.unwrap_or(u64::MAX)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity_bytes else { return u64::MAX };
        let used = self.live.values().filter_map(|id| self.files.get(id));
        capacity.saturating_sub(used.map(|file| file.content.bytes().len() as u64).sum())
    }

    /// How many directory operations are not durable.
    pub(super) fn operations(&self) -> usize {
        self.operations.len()
    }

    /// What a power cut decides if the first `operations` directory operations survive it.
    pub(super) fn undecided(&self, operations: usize) -> Undecided {
        let mut undecided = Undecided { operations: self.operations.len(), ..Undecided::default() };
        for (name, id) in self.surviving(operations) {
            if let Some(file) = self.files.get(&id) {
                file.content.undecided(&name, &mut undecided);
            }
        }
        undecided
    }

    /// What a power cut leaves of the medium, with the first `operations` directory operations.
    pub(super) fn survivor(&self, operations: usize, decide: &mut impl Decide) -> Medium {
        let live = self.surviving(operations);
        let survive = |(name, id): (&Arc<str>, &FileId)| {
            let content = &self.files.get(id)?.content;
            let content = match content.is_durable() {
                true => Arc::clone(content),
                false => Arc::new(content.survivor(name, decide)),
            };
            Some((*id, File { content, ..File::default() }))
        };
        let files = live.iter().filter_map(survive).collect();
        Medium { durable: live.clone(), live, operations: Vec::new(), files, ..*self }
    }

    /// The same medium without anybody who has its files open.
    pub(super) fn closed(&self) -> Medium {
        let mut copy = self.clone();
        copy.files.values_mut().for_each(|file| file.handles = 0);
        copy.sweep();
        copy
    }

    /// A hash of the names and contents of the live files.
    pub(super) fn digest(&self) -> u64 {
        self.live.iter().fold(self.live.len() as u64, |hash, (name, id)| {
            let content = self.files.get(id).map_or(0, |file| file.content.digest());
            let named = mix(hash ^ digest(name.as_bytes()), 0x9e37_79b9_7f4a_7c15);
            mix(named ^ content, 0xd6e8_feb8_6659_fd93)
        })
    }

    /// How many files it keeps, with a name or without.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.files.len()
    }

    fn add(&mut self, content: Content) -> FileId {
        let id = FileId(self.next);
        self.next += 1;
        self.files.insert(id, File { content: Arc::new(content), ..File::default() });
        id
    }

    fn change(&mut self, operation: Operation) -> io::Result<()> {
        operation.apply(&mut self.live)?;
        self.operations.push(operation);
        Ok(())
    }

    fn content_mut(&mut self, id: FileId) -> io::Result<&mut Content> {
        Ok(Arc::make_mut(&mut self.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?.content))
    }

    /// The directory after a power cut that leaves the first `operations`.
    fn surviving(&self, operations: usize) -> Names {
        let mut names = self.durable.clone();
        for operation in self.operations.iter().take(operations) {
            // It went well when it was done, and does now, with all before it.
            let _ = operation.apply(&mut names);
        }
        names
    }

    /// Forgets files that have neither a name nor a handle and that no power cut brings back.
    fn sweep(&mut self) {
        let Medium { live, durable, operations, files, .. } = self;
        files.retain(|id, file| {
            let created =
                |operation: &Operation| matches!(operation, Operation::Create(_, made) if made == id);
            file.handles > 0
                || live.values().chain(durable.values()).any(|named| named == id)
                || operations.iter().any(created)
        });
    }
}

impl Operation {
    fn apply(&self, names: &mut Names) -> io::Result<()> {
        match self {
            Operation::Create(name, id) => {
                names.insert(Arc::clone(name), *id);
            }
            Operation::Rename(from, to) => {
                let id = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                names.insert(Arc::clone(to), id);
            }
            Operation::Remove(name) => {
                names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(())
    }
}
