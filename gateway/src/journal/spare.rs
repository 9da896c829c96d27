//! Spare segments: files made ready before they are needed, and files that are not needed any more.
//!
//! Constraint: a commit must cost one flush. A file that grows, or whose blocks were never written, costs two, because
//! the file system journals the change of the file itself; so a segment is zero-filled, or was a segment before. And a
//! name that changes costs one; so a spare has its name as a segment already.
//!
//! Operation: [`SPARES`](super::intake::SPARES) are kept, one to be begun next and one in reserve, so that a journal on a
//! full disk can still note what makes room. [`Spares::make`] makes them, on a thread of its own while the committer goes
//! on; a trimmed segment becomes a spare as it is, since frames of its earlier life carry another segment id. The new
//! name is durable before the spare counts as ready: what is committed must be found again.
//!
//! Failure: whoever fills a spare may find the disk full; the file is then removed, and the next attempt begins anew.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::bugs::{Bug, seeded};
use super::lock_of;
use super::segment::{Segment, SegmentId};
use super::storage::{Storage, StorageFile};

/// Name of a file that is being filled.
pub(super) const FILLING: &str = "filling.tmp";

/// Zeros written between two syncs, so that a commit waits for no more than this.
const STRIDE_BYTES: u64 = 1 << 20;

/// Zeros written at once. Larger writes leave larger folios in the page cache, which make each later write of a few
/// sectors dearer.
const WRITE_BYTES: u64 = 64 << 10;

/// Free bytes that are left to others on the medium: a part of it, and no more than this.
const LEFT_FREE_BYTES: u64 = 16 << 20;
const LEFT_FREE_PART: u64 = 64;

/// The spare segments of one length, and the files to be let go of. Whoever makes a spare may hold [`Spares::next`] for
/// long; the other locks are held for a moment.
pub(super) struct Spares {
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    /// Id of the next file that is made.
    next: Mutex<SegmentId>,
    ready: Mutex<VecDeque<Spare>>,
    ready_count: Arc<AtomicUsize>,
    done: Mutex<Vec<Segment>>,
}

/// A file that has the name of a coming segment.
pub(super) type Spare = (SegmentId, Arc<dyn StorageFile>);

impl Spares {
    /// Takes over the spares that recovery found.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        segment_bytes: u64,
        found: Vec<Spare>,
        next: SegmentId,
    ) -> Spares {
        let ready_count = Arc::new(AtomicUsize::new(found.len()));
        let (next, ready, done) = (Mutex::new(next), Mutex::new(found.into()), Mutex::default());
        Spares { storage, segment_bytes, next, ready, ready_count, done }
    }

    /// How many spares are ready, for whoever must not wait.
    pub(super) fn ready_count(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.ready_count)
    }

    /// The next spare, made on the spot if there is none, or awaited if one is just being made.
    pub(super) fn take(&self) -> io::Result<Spare> {
        if let Some(spare) = self.pop() {
            return Ok(spare);
        }
        let mut next = lock_of(&self.next);
        if let Some(spare) = self.pop() {
            return Ok(spare);
        }
        self.fill(&mut next)?;
        self.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Puts a segment that nobody needs any more where [`Spares::retire`] finds it.
    pub(super) fn discard(&self, segment: Segment) {
        lock_of(&self.done).push(segment);
    }

    /// How many discarded segments are there still.
    pub(super) fn done_count(&self) -> usize {
        lock_of(&self.done).len()
    }

    /// Lets go of the discarded segments: makes spares of them, up to `wanted` in all, and removes the others. Returns
    /// how many segments are gone, and their bytes; a file that cannot be removed now is tried again the next time.
    pub(super) fn retire(&self, wanted: usize) -> (u64, u64, io::Result<()>) {
        let mut next = lock_of(&self.next);
        let (mut files, mut bytes, mut result) = (0, 0, Ok(()));
        let done = std::mem::take(&mut *lock_of(&self.done));
        for segment in done {
            let few = self.ready_count.load(Ordering::Relaxed) < wanted;
            let retired = if few && segment.sound && segment.length == self.segment_bytes {
                self.rename(&mut next, &segment.id.file_name(), &segment.file)
            } else {
                self.storage.remove(&segment.id.file_name())
            };
            match retired {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    result = Err(cause);
                    self.discard(segment);
                }
                _ => {
                    files += 1;
                    bytes += segment.length;
                }
            }
        }
        (files, bytes, result)
    }

    /// Makes one more spare.
    pub(super) fn make(&self) -> io::Result<()> {
        self.fill(&mut lock_of(&self.next))
    }

    /// Whether the medium has room for one more spare, and for others.
    pub(super) fn find_room(&self) -> io::Result<()> {
        self.find_bytes(|total_bytes| LEFT_FREE_BYTES.min(total_bytes / LEFT_FREE_PART))
    }

    fn find_bytes(&self, left_free: impl FnOnce(u64) -> u64) -> io::Result<()> {
        let space = self.storage.space()?;
        let has_room = space.free_bytes >= self.segment_bytes.saturating_add(left_free(space.total_bytes));
        if has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn pop(&self) -> Option<Spare> {
        let mut ready = lock_of(&self.ready);
        let spare = ready.pop_front();
        self.ready_count.store(ready.len(), Ordering::Relaxed);
        spare
    }

    fn fill(&self, next: &mut SegmentId) -> io::Result<()> {
        // The last spare is what a full disk must still give; what is left free comes after it.
        if self.ready_count.load(Ordering::Relaxed) == 0 {
            self.find_bytes(|_| 0)?;
        } else {
            self.find_room()?;
        }
        let filled = self.write_zeros().and_then(|file| self.rename(next, FILLING, &file));
        if filled.is_err() {
            // What cannot be removed now is overwritten by the next attempt.
            drop(self.storage.remove(FILLING));
        }
        filled
    }

    /// Gives a file the name of the next segment. A name that could not be made durable is given up, and the file with it.
    fn rename(&self, next: &mut SegmentId, from: &str, file: &Arc<dyn StorageFile>) -> io::Result<()> {
        let id = *next;
        self.storage.rename(from, &id.file_name())?;
        *next = id.next();
        let synced = if seeded(Bug::NoDirectorySync) { Ok(()) } else { self.storage.sync_directory() };
        if synced.is_err() {
            drop(self.storage.remove(&id.file_name()));
            return synced;
        }
        let mut ready = lock_of(&self.ready);
        ready.push_back((id, Arc::clone(file)));
        self.ready_count.store(ready.len(), Ordering::Relaxed);
        Ok(())
    }

    fn write_zeros(&self) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.storage.create(FILLING)?;
        let zeros = vec![0; WRITE_BYTES.min(self.segment_bytes) as usize];
        let mut at = 0;
        while at < self.segment_bytes {
            let length = (self.segment_bytes - at).min(zeros.len() as u64);
            file.write_at(&zeros[..length as usize], at)?;
            at += length;
            if at.is_multiple_of(STRIDE_BYTES) || at == self.segment_bytes {
                file.sync()?;
            }
        }
        Ok(file)
    }
}
