//! A storage that keeps a copy of itself before every call that changes something: the crash points of a life.
//!
//! One run of a workload so gives all its crash points. A copy costs about a microsecond, because contents are shared.
//! The tap also lets something happen *meanwhile*, within a write or sync of the committer, as other threads would.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::model::View;
use crate::journal::memory::{CallKind, MemoryStorage};
use crate::journal::storage::{Space, Storage, StorageFile};
use crate::record::Offset;

/// A moment at which the process or the power may go.
#[derive(Clone)]
pub(super) struct Point {
    /// What the storage was before the call.
    storage: MemoryStorage,
    /// The call; none at the end of a life.
    pub(super) call: Option<CallKind>,
    file: String,
    write: Option<Write>,
    pub(super) known: Known,
}

/// What the oracle knew at a moment.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) view: Arc<View>,
    /// The times that sinks were given of early entries, by offset.
    pub(super) times: Arc<BTreeMap<u64, i64>>,
    /// Everything below was acknowledged.
    pub(super) acked: u64,
}

#[derive(Clone)]
struct Write {
    at: u64,
    bytes: Arc<[u8]>,
}

/// The storage under observation. Clones observe the same one.
#[derive(Clone)]
pub(super) struct Tap(Arc<Log>);

#[derive(Default)]
struct Log {
    /// The storage, which is another one after a restart.
    inner: Mutex<MemoryStorage>,
    recording: bool,
    points: Mutex<Vec<Point>>,
    known: Mutex<Known>,
    watermark: Mutex<Option<watch::Receiver<Offset>>>,
    /// Names of the open files, which renames change.
    names: Mutex<Vec<Arc<Mutex<String>>>>,
    meanwhile: Mutex<Option<(u64, Meanwhile)>>,
    peak_bytes: Mutex<u64>,
}

/// Something that another thread does.
pub(super) type Meanwhile = Box<dyn FnOnce() + Send>;

struct TapFile {
    tap: Tap,
    inner: Arc<dyn StorageFile>,
    name: Arc<Mutex<String>>,
}

const SECTOR_BYTES: usize = 512;

impl Point {
    /// How many sectors the call writes.
    pub(super) fn sectors(&self) -> usize {
        self.write
            .as_ref()
            .map_or(0, |write| (write.at as usize % SECTOR_BYTES + write.bytes.len()).div_ceil(SECTOR_BYTES))
    }

    /// What the storage is once the call has written its first `sectors`.
    pub(super) fn storage(&self, sectors: usize) -> MemoryStorage {
        let storage = self.storage.fork();
        storage.heal();
        if let Some(write) = self.write.as_ref().filter(|_| sectors > 0)
            // A file without a name is nowhere to be found after a crash.
            && let Ok(file) = storage.open(&self.file)
        {
            let bytes = sectors * SECTOR_BYTES - write.at as usize % SECTOR_BYTES;
            file.write_at(&write.bytes[..bytes.min(write.bytes.len())], write.at).unwrap();
        }
        storage
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "before {:?} of {:?} at {:?}, ", self.call, self.file, self.write.as_ref().map(|w| w.at))?;
        let bytes: usize = self.storage.files().values().map(Vec::len).sum();
        write!(f, "{} acknowledged of {}, {bytes} bytes", self.known.acked, self.known.view.end())
    }
}

impl Tap {
    /// Observes a storage about which so much is known.
    pub(super) fn new(inner: MemoryStorage, known: Known, recording: bool) -> Tap {
        Tap(Arc::new(Log { inner: Mutex::new(inner), recording, known: Mutex::new(known), ..Log::default() }))
    }

    pub(super) fn inner(&self) -> MemoryStorage {
        self.0.inner.lock().unwrap().clone()
    }

    /// Lets the process be killed; what it leaves is found by the next one.
    pub(super) fn kill(&self) {
        let known = self.known();
        *self.0.known.lock().unwrap() = known;
        *self.0.watermark.lock().unwrap() = None;
        self.0.names.lock().unwrap().clear();
        let left = self.inner().after_kill();
        *self.0.inner.lock().unwrap() = left;
    }

    /// From now on everything below the watermark is known to be acknowledged.
    pub(super) fn follow(&self, watermark: watch::Receiver<Offset>) {
        *self.0.watermark.lock().unwrap() = Some(watermark);
    }

    pub(super) fn known(&self) -> Known {
        let mut known = self.0.known.lock().unwrap();
        if let Some(watermark) = &*self.0.watermark.lock().unwrap() {
            known.acked = known.acked.max(watermark.borrow().0);
        }
        known.clone()
    }

    pub(super) fn learn(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.known.lock().unwrap());
    }

    /// Lets something happen within the write or sync of a segment after so many others.
    pub(super) fn meanwhile(&self, calls: u64, what: Option<Meanwhile>) {
        *self.0.meanwhile.lock().unwrap() = what.map(|what| (calls, what));
    }

    /// The crash points so far, with the present as the last one.
    pub(super) fn points(&self) -> Vec<Point> {
        self.point(None, "", None);
        std::mem::take(&mut *self.0.points.lock().unwrap())
    }

    /// The most bytes that all files took since the last time this was asked.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.measure();
        std::mem::take(&mut *self.0.peak_bytes.lock().unwrap())
    }

    fn point(&self, call: Option<CallKind>, file: &str, write: Option<Write>) {
        self.measure();
        if self.0.recording {
            let (storage, file, known) = (self.inner().fork(), file.to_owned(), self.known());
            let point = Point { storage, call, file, write, known };
            self.0.points.lock().unwrap().push(point);
        }
    }

    fn measure(&self) {
        if let Ok(space) = self.inner().space() {
            let mut peak = self.0.peak_bytes.lock().unwrap();
            *peak = (*peak).max(space.total_bytes - space.free_bytes);
        }
    }

    fn let_happen(&self) {
        let mut meanwhile = self.0.meanwhile.lock().unwrap();
        match &mut *meanwhile {
            Some((calls @ 1.., _)) => *calls -= 1,
            Some((0, _)) => {
                let what = meanwhile.take();
                drop(meanwhile);
                if let Some((_, what)) = what {
                    what();
                }
            }
            None => {}
        }
    }

    fn file(&self, name: &str, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let name = Arc::new(Mutex::new(name.to_owned()));
        let mut names = self.0.names.lock().unwrap();
        names.retain(|name| Arc::strong_count(name) > 1);
        names.push(Arc::clone(&name));
        Arc::new(TapFile { tap: self.clone(), inner, name })
    }
}

impl Storage for Tap {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner().list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(name, self.inner().open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.point(Some(CallKind::Create), name, None);
        Ok(self.file(name, self.inner().create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.point(Some(CallKind::Rename), from, None);
        self.inner().rename(from, to)?;
        for name in &*self.0.names.lock().unwrap() {
            let mut name = name.lock().unwrap();
            if *name == from {
                to.clone_into(&mut name);
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.point(Some(CallKind::Remove), name, None);
        self.inner().remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.point(Some(CallKind::SyncDirectory), "", None);
        self.inner().sync_directory()
    }

    fn space(&self) -> io::Result<Space> {
        self.inner().space()
    }
}

impl TapFile {
    fn name(&self) -> String {
        self.name.lock().unwrap().clone()
    }

    fn let_happen(&self) {
        if self.name.lock().unwrap().ends_with(".seg") {
            self.tap.let_happen();
        }
    }
}

impl StorageFile for TapFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.let_happen();
        let write = self.tap.0.recording.then(|| Write { at, bytes: bytes.into() });
        self.tap.point(Some(CallKind::Write), &self.name(), write);
        self.inner.write_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.let_happen();
        self.tap.point(Some(CallKind::Sync), &self.name(), None);
        self.inner.sync()
    }

    fn settle(&self) -> io::Result<()> {
        self.tap.point(Some(CallKind::Sync), &self.name(), None);
        self.inner.settle()
    }
}
