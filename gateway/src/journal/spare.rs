//! Spare segments: files made ready before they are needed.
//!
//! Constraint: a commit must cost one flush. A file that grows, or whose blocks were never written, costs two, because
//! the file system journals the change of the file itself; so a segment is zero-filled, or was a segment before.
//!
//! Operation: one spare is kept. A thread of its own fills it while the committer goes on; a trimmed segment becomes a
//! spare as it is, since frames of its earlier life carry another segment id.
//!
//! Failure: whoever fills a spare may find the disk full; the file is then removed, and the next attempt begins anew.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segment::SegmentId;
use super::storage::{Storage, StorageFile};

const PREFIX: &str = "spare-";
const FILLING: &str = "filling.tmp";

/// Zeros written between two syncs, so that a commit waits for no more than this.
const STRIDE_BYTES: usize = 1 << 20;

/// The spare segments of one length.
pub(super) struct Spares {
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    ready: Mutex<Ready>,
}

#[derive(Default)]
struct Ready {
    names: Vec<String>,
    made: u64,
}

impl Spares {
    /// Takes over the spares that earlier runs left behind, and removes what is no use.
    pub(super) fn open(storage: Arc<dyn Storage>, segment_bytes: u64, names: &[String]) -> Spares {
        let mut ready = Ready::default();
        for name in names.iter().filter(|name| name.starts_with(PREFIX) || *name == FILLING) {
            let number = name.strip_prefix(PREFIX).and_then(|n| n.parse::<u64>().ok());
            let length = storage.open(name).and_then(|file| file.length());
            match (number, length) {
                (Some(number), Ok(length)) if length == segment_bytes && ready.names.is_empty() => {
                    ready.made = number + 1;
                    ready.names.push(name.clone());
                }
                // A file that cannot be removed is in nobody's way.
                _ => drop(storage.remove(name)),
            }
        }
        Spares { storage, segment_bytes, ready: Mutex::new(ready) }
    }

    /// Makes a spare ready if there is none.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mut ready = self.lock();
        if ready.names.is_empty() {
            self.fill(&mut ready)?;
        }
        Ok(())
    }

    /// Turns a spare into the file of a segment, making one first if there is none or waiting for the one that is being
    /// made. The name is durable when this returns.
    pub(super) fn take(&self, segment: SegmentId) -> io::Result<Arc<dyn StorageFile>> {
        let mut ready = self.lock();
        if ready.names.is_empty() {
            self.fill(&mut ready)?;
        }
        let spare = ready.names.pop().ok_or(io::ErrorKind::NotFound)?;
        let name = segment.file_name();
        self.storage.rename(&spare, &name)?;
        self.storage.sync_directory()?;
        self.storage.open(&name)
    }

    /// Makes a spare of a trimmed segment, or removes it if there is one already or one is just being made.
    pub(super) fn recycle(&self, segment: SegmentId, length: u64) -> io::Result<()> {
        let name = segment.file_name();
        match self.ready.try_lock() {
            Ok(mut ready) if ready.names.is_empty() && length == self.segment_bytes => {
                let spare = ready.name();
                self.storage.rename(&name, &spare)?;
                ready.names.push(spare);
                Ok(())
            }
            _ => self.storage.remove(&name),
        }
    }

    /// Bytes of the spares that are ready; none while one is being made.
    pub(super) fn bytes(&self) -> u64 {
        self.ready.try_lock().map_or(0, |ready| ready.names.len() as u64 * self.segment_bytes)
    }

    fn fill(&self, ready: &mut Ready) -> io::Result<()> {
        let filled = self.write_zeros();
        if filled.is_err() {
            drop(self.storage.remove(FILLING));
            return filled;
        }
        let spare = ready.name();
        self.storage.rename(FILLING, &spare)?;
        self.storage.sync_directory()?;
        ready.names.push(spare);
        Ok(())
    }

    fn write_zeros(&self) -> io::Result<()> {
        let file = self.storage.create(FILLING)?;
        let zeros = vec![0; STRIDE_BYTES.min(usize::try_from(self.segment_bytes).unwrap_or(STRIDE_BYTES))];
        let mut at = 0;
        while at < self.segment_bytes {
            let length = (self.segment_bytes - at).min(zeros.len() as u64);
            file.write_at(&zeros[..length as usize], at)?;
            file.sync()?;
            at += length;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    fn name(&mut self) -> String {
        self.made += 1;
        format!("{PREFIX}{}", self.made)
    }
}
