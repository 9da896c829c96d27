//! The journal: an append-only log in segments, which makes readings durable before anybody is told that they are.
//!
//! # Constraints
//!
//! * What lies below the watermark survives a crash, a kill and a power cut at any instant.
//! * A commit costs one flush, a row no allocation and well under a microsecond; it works in 4 MiB as in 1 GiB.
//! * It always starts: damage costs the frames that it hit, and those are named.
//! * Everything is bounded: files by `max_bytes`, memory by the pending buffer and the recent frames.
//!
//! # Format
//!
//! A directory of segments (`segment.rs`) of frames (`frame.rs`) of entries (`entry.rs`); among them spare segments that
//! have not begun; and the end mark (`end.rs`). Entries are numbered from 0 for the life of the directory; the number is
//! their *offset*. Entries of a time when the gateway's clock was not believed are *early* (`clocks.rs`); the header of a
//! segment says whether it may hold any, so that an older gateway refuses it. A segment begins with a snapshot of the state (`state.rs`) in frames of its own, so that older ones can
//! go. A commit begins on a sector boundary.
//!
//! # Operation
//!
//! [`Journal::submit`] lets the caller decide from the state and collects entries, under the only lock (`intake.rs`),
//! into the pending buffer (`pending.rs`). The committer (`writer.rs`) takes the buffer, writes it, syncs, and moves the
//! watermark. Readers (`reader.rs`) see what is below the watermark, and the fixes of clocks among it. Segments below every sink's durable cursor are
//! trimmed; the two newest with a snapshot stay.
//!
//! Three kinds of threads meet here: whoever submits, the committer, and the keeper (`keeper.rs`), which keeps spare
//! segments ready (`spare.rs`). The locks of intake, segments and recent frames are taken one at a time, and none of them
//! is held during IO.
//!
//! # Failure
//!
//! Full: intake is refused until sinks confirm, or the oldest rows make room. No room on the disk: the same, looked at
//! again every second. A failed write or sync: once, the rows go into a new file; a second time, nothing is taken and
//! nothing acknowledged until the next start; delivery goes on. After a crash: `recovery.rs`, `judge.rs`, `fold.rs`.

mod bugs;
pub mod clocks;
mod codec;
mod end;
pub mod entry;
mod files;
mod fold;
mod frame;
pub(crate) mod fuzzing;
pub mod inspect;
mod intake;
mod judge;
mod keeper;
mod lists;
pub mod memory;
mod pending;
mod reader;
mod recovery;
mod scan;
mod segment;
mod spare;
pub mod state;
pub mod storage;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

pub use entry::Entry;
pub use frame::{FRAME_BYTES_MAX, Frame};
pub use reader::{DamagedBytes, Read, ReadError, Reader};
pub use state::State;
pub use storage::Storage;
pub use types::{
    Capacity, Class, Commits, Condition, JournalId, MAX_BYTES_LEAST, OpenError, Options, RecoveryReport,
    Refused, Submission, Usage, WhenFull,
};

use crate::cache::{RECENT_BYTES_MAX, Recent};
use crate::config::Start;
use crate::record::Offset;
use clocks::Fixes;
use end::{EndFile, EndMark};
use entry::SinkEntry;
use intake::{Intake, Phase};
use pending::Shape;
use segment::{HeaderRead, SegmentHeader, SegmentId, Segments};
use spare::Spares;
use storage::Directory;
use writer::Committer;

/// For how long the disk may hold up a commit before that is told: longer than a card takes that tidies up inside.
pub(crate) const STALLED_AFTER: Duration =
    if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(5) };

/// Name of the file whose lock keeps a second process out.
const LOCK_FILE: &str = "lock";

/// The handle, shared by everybody. The last one to go closes the journal as [`Journal::close`] does.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// What handles, readers and threads share.
struct Shared {
    options: Options,
    journal: JournalId,
    shape: Shape,
    intake: Mutex<Intake>,
    /// Wakes the committer.
    committer: Condvar,
    /// How many turns the committer has taken, and how often it has come back from the disk.
    turns: AtomicU64,
    /// Wakes the keeper.
    preparer: Condvar,
    segments: Mutex<Segments>,
    recent: Mutex<Recent>,
    /// Durable fixes of clocks.
    fixes: Mutex<Arc<Fixes>>,
    spares: Spares,
    watermark: watch::Sender<Offset>,
    room: watch::Sender<u64>,
    evict_to: watch::Sender<Offset>,
    evict_optional_to: watch::Sender<Offset>,
}

/// What ends with the last handle.
struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
}

impl Journal {
    /// Opens or creates the journal in a directory, which stays locked until the journal is closed.
    ///
    /// # Errors
    /// Another process has it, it cannot be read or written, or a newer version wrote it. Nothing was changed.
    pub fn open_dir(directory: &Path, options: &Options) -> Result<(Journal, RecoveryReport), OpenError> {
        let unusable = |cause| OpenError::Unreadable { what: directory.display().to_string(), cause };
        create_durably(directory).map_err(unusable)?;
        let lock = lock_directory(directory)?;
        let storage = Arc::new(Directory::new(directory));
        let (journal, report) = Journal::open(storage, options)?;
        *lock_of(&journal.running.lock) = Some(lock);
        Ok((journal, report))
    }

    /// Opens or creates the journal in any storage.
    ///
    /// # Errors
    /// As [`Journal::open_dir`].
    pub fn open(
        storage: Arc<dyn Storage>,
        options: &Options,
    ) -> Result<(Journal, RecoveryReport), OpenError> {
        if options.max_bytes < MAX_BYTES_LEAST {
            return Err(OpenError::TooSmall { max_bytes: options.max_bytes });
        }
        let shape = Shape::of(segment_bytes(&*storage, options)?);
        let new_id = getrandom::u64().map_err(|cause| OpenError::Unreadable {
            what: "the system's random numbers".into(),
            cause: io::Error::other(cause.to_string()),
        })?;
        let (shared, committer, report) = Shared::open(storage, options, shape, JournalId(new_id))?;
        // Segments that were done with outlive a kill, and perhaps nobody commits before there is room.
        committer.trim();
        // The first rows need not wait for files. A disk that has no room for any is told as trouble.
        drop(keeper::tidy(&shared));
        let running =
            Running { shared: Arc::clone(&shared), threads: Mutex::default(), lock: Mutex::default() };
        running
            .start(committer)
            .map_err(|cause| OpenError::Unreadable { what: "its threads".into(), cause })?;
        Ok((Journal { shared, running: Arc::new(running) }, report))
    }

    /// Decides and appends in one step: `decide` sees the state that includes everything submitted before, and adds
    /// entries, which are appended as a whole or not at all. Returns what `decide` returned, and the receipt: the
    /// submission is durable once the watermark has reached it. The receipt of an empty submission is the present end.
    ///
    /// `decide` runs under the journal's lock: it must be short and must not call the journal.
    ///
    /// # Errors
    /// What `decide` returned, or the journal's refusal. Nothing was appended.
    pub fn submit<T, E: From<Refused>>(
        &self,
        class: Class,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<T, E>,
    ) -> Result<(T, Offset), E> {
        self.shared.submit(class, decide)
    }

    /// Registers a sink, which then starts where the slowest registered sink stands, or with the oldest entry if there
    /// is none. Returns its cursor; a known sink keeps its own.
    ///
    /// # Errors
    /// The journal's refusal.
    pub fn register_sink(&self, name: &str) -> Result<Offset, Refused> {
        self.register_sink_from(name, Start::Oldest)
    }

    /// The same for a sink that, if it is new, may start behind everything that is journaled.
    ///
    /// # Errors
    /// The journal's refusal.
    pub fn register_sink_from(&self, name: &str, start: Start) -> Result<Offset, Refused> {
        // Without a sink nothing is trimmed meanwhile.
        let oldest = self.shared.segments().iter().next().map_or(Offset(0), |segment| segment.first);
        let (start, _) = self.submit(Class::Internal, |state, submission| {
            if let Some(cursor) = state.cursor(name) {
                return Ok(cursor);
            }
            let start = match start {
                Start::Oldest => state.lowest_cursor().unwrap_or(oldest),
                Start::Now => submission.next().plus(1),
            };
            submission.add(&Entry::Sink(SinkEntry { sink: name, start }))?;
            Ok::<_, Refused>(start)
        })?;
        Ok(start)
    }

    /// Forgets a sink, so that what it was still to get is trimmed like everything else.
    ///
    /// # Errors
    /// The journal's refusal.
    pub fn forget_sink(&self, name: &str) -> Result<(), Refused> {
        self.submit(Class::Internal, |_, submission| submission.add(&Entry::Forget(name))).map(drop)
    }

    /// Looks at the state, and at the offset up to which it holds. `look` runs under the journal's lock: it must be short
    /// and must not call the journal.
    pub fn with_state_and_end<R>(&self, look: impl FnOnce(&State, Offset) -> R) -> R {
        let intake = self.shared.intake();
        look(&intake.state, intake.tail.end)
    }

    /// Looks at the state. `look` runs under the journal's lock: it must be short and must not call the journal.
    pub fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.shared.intake().state)
    }

    /// Identity of this journal, given when it was created.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.shared.journal
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

    /// Where a sink is to go on so that the oldest segment can make room; what it lacks below is to become gaps.
    #[must_use]
    pub fn evict_to(&self) -> watch::Receiver<Offset> {
        self.shared.evict_to.subscribe()
    }

    /// The same for a sink for which intake does not wait: it is also asked when it is the only one that lacks what is in
    /// the oldest segment, whatever `when_full` says. Intake takes note that there is one.
    #[must_use]
    pub fn evict_optional_to(&self, sink: &str) -> watch::Receiver<Offset> {
        let mut intake = self.shared.intake();
        if !intake.optional.iter().any(|name| **name == *sink) {
            intake.optional.push(sink.into());
        }
        self.shared.evict_optional_to.subscribe()
    }

    /// Whether room is so scarce that what is written has to free more than it takes: intake is refused, or will be at the
    /// next segment.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.shared.intake().is_tight()
    }

    /// Where the segment ends that holds an offset; none of the newest one.
    #[must_use]
    pub fn segment_end(&self, at: Offset) -> Option<Offset> {
        self.shared.segments().holding(at).and_then(|(_, after)| after).map(|after| after.first)
    }

    /// Commits now what waits for company. A source calls this once half of what it may have in flight is
    /// unacknowledged, because nothing more may arrive before the commit.
    pub fn hurry(&self) {
        let mut intake = self.shared.intake();
        let before = intake.urgency();
        intake.hurry();
        let is_news = before < intake.urgency();
        drop(intake);
        if is_news {
            self.shared.committer.notify_one();
        }
    }

    /// Wakes the committer, and tells how many turns it has taken so far. One that lives and is not at the disk has taken
    /// another one when this is asked again a moment later.
    #[must_use]
    pub fn ask_for_a_turn(&self) -> u64 {
        self.shared.committer.notify_one();
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// A reader of committed entries from an offset on.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// The fixes that are durable: what gives early entries their time.
    #[must_use]
    pub fn fixes(&self) -> Arc<Fixes> {
        Arc::clone(&self.shared.fixes())
    }

    /// What the journal holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let intake = self.shared.intake();
        let watermark = *self.shared.watermark.borrow();
        let held_up = intake.held_up(watermark).filter(|held_up| *held_up >= STALLED_AFTER);
        let state = match intake.condition() {
            Condition::Running if held_up.is_some() => Condition::Stalled,
            state => state,
        };
        let stalled = held_up.filter(|_| state == Condition::Stalled).map(|held_up| {
            format!(
                "the disk does not answer: what has come has waited for it for {} s, and so have acks; see in `dmesg` what \
                 ails the disk under data_dir",
                held_up.as_secs()
            )
        });
        let troubles = [&intake.commit_trouble, &intake.retire_trouble, &intake.spare_trouble];
        Usage {
            bytes: intake.file_bytes(),
            max_bytes: self.shared.options.max_bytes,
            watermark,
            end: intake.tail.end,
            submission_bytes_max: intake.submission_bytes_max(),
            state,
            trouble: stalled.or_else(|| troubles.into_iter().find_map(Clone::clone)),
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn commits(&self) -> Commits {
        self.shared.intake().commits
    }

    /// Commits everything, stops, and unlocks the directory. Later submissions are refused as [`Refused::Failed`];
    /// readers go on.
    pub fn close(&self) {
        self.running.stop();
    }
}

impl Shared {
    /// Recovers what is there and makes the parts, of which none runs yet. A journal that is new gets `new_id`.
    fn open(
        storage: Arc<dyn Storage>,
        options: &Options,
        shape: Shape,
        new_id: JournalId,
    ) -> Result<(Arc<Shared>, Committer, RecoveryReport), OpenError> {
        let unlistable = |cause| OpenError::Unreadable { what: "the directory".into(), cause };
        let names = storage.list().map_err(unlistable)?;
        let recovered = recovery::recover(&storage, &names, shape, new_id)?;
        let (journal, tail) = (recovered.state.journal(), recovered.tail);
        let live_bytes = recovered.segments.bytes();
        // Without the file of the end mark, recovery knows less and loses nothing.
        let now = EndMark { watermark: tail.end, learned: recovered.state.learned() };
        let end = EndFile::open(&*storage, journal, recovered.end, now)
            .inspect_err(|cause| warn!(%cause, "cannot open the journal's end mark"));
        let spares =
            Spares::new(Arc::clone(&storage), tail.shape.segment_bytes, recovered.spares, recovered.next);
        let fixes = Mutex::new(Arc::new(recovered.state.clocks().fixes()));
        let intake = Intake::new(recovered.state, tail, *options, live_bytes, spares.ready_count());
        let shared = Arc::new(Shared {
            options: *options,
            journal,
            shape: tail.shape,
            intake: Mutex::new(intake),
            committer: Condvar::new(),
            turns: AtomicU64::new(0),
            preparer: Condvar::new(),
            segments: Mutex::new(recovered.segments),
            recent: Mutex::new(Recent::new(RECENT_BYTES_MAX)),
            fixes,
            spares,
            watermark: watch::Sender::new(tail.end),
            room: watch::Sender::new(0),
            evict_to: watch::Sender::new(Offset(0)),
            evict_optional_to: watch::Sender::new(Offset(0)),
        });
        let committer = Committer::new(Arc::clone(&shared), storage, recovered.active, end.ok());
        Ok((shared, committer, recovered.report))
    }

    fn submit<T, E: From<Refused>>(
        &self,
        class: Class,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<T, E>,
    ) -> Result<(T, Offset), E> {
        let mut intake = self.intake();
        let before = intake.urgency();
        let result = intake.submit(class, decide);
        let after = intake.urgency();
        let tidy = intake.tidy_due && result.is_err();
        drop(intake);
        if before < after {
            self.committer.notify_one();
        }
        if tidy {
            self.preparer.notify_one();
        }
        result
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        lock_of(&self.intake)
    }

    /// The committer is alive.
    fn take_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        lock_of(&self.segments)
    }

    fn fixes(&self) -> MutexGuard<'_, Arc<Fixes>> {
        lock_of(&self.fixes)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        lock_of(&self.recent)
    }

    /// Takes nothing any more.
    fn fail(&self) {
        let mut intake = self.intake();
        intake.phase = Phase::Failed;
        intake.refused = true;
        self.tell_room(&mut intake);
        self.preparer.notify_one();
    }

    /// Takes note of what is wrong with one matter, or that it is right again, and says so once.
    fn set_trouble(
        &self,
        matter: fn(&mut Intake) -> &mut Option<String>,
        trouble: Option<String>,
        mended: &str,
    ) {
        let mut intake = self.intake();
        if *matter(&mut intake) == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => warn!("{trouble}"),
            None => info!("{mended}"),
        }
        *matter(&mut intake) = trouble;
        self.tell_room(&mut intake);
    }

    /// Tells those who were refused that they may try again.
    fn tell_room(&self, intake: &mut Intake) {
        if std::mem::take(&mut intake.refused) {
            self.room.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }
}

impl Running {
    fn start(&self, committer: Committer) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut threads = lock_of(&self.threads);
        threads.push(thread::Builder::new().name("committer".into()).spawn(move || committer.run())?);
        let keep = move || keeper::run(&shared);
        threads.push(thread::Builder::new().name("journal-keeper".into()).spawn(keep)?);
        Ok(())
    }

    fn stop(&self) {
        let mut intake = self.shared.intake();
        if intake.phase == Phase::Open {
            intake.phase = Phase::Closing;
        }
        drop(intake);
        self.shared.committer.notify_all();
        self.shared.preparer.notify_all();
        for thread in lock_of(&self.threads).drain(..) {
            // A thread that panicked has said so itself.
            drop(thread.join());
        }
        drop(lock_of(&self.lock).take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// Length of new segments: as the options and the room on the medium say. While `max_bytes` allows it, the length stays
/// what it was, because files of another length, the reserve among them, would be of no use.
fn segment_bytes(storage: &dyn Storage, options: &Options) -> Result<u64, OpenError> {
    let look = || {
        let (mut room_bytes, mut newest) = (storage.space()?.free_bytes, None);
        for name in storage.list()? {
            let Some(id) = SegmentId::of_file_name(&name) else { continue };
            let file = storage.open(&name)?;
            room_bytes = room_bytes.saturating_add(file.length()?);
            // A file that cannot be read is told of later.
            if let Ok(HeaderRead::Intact(header)) = SegmentHeader::read(&*file, id) {
                newest = newest.max(Some((id, header.length)));
            }
        }
        let (wanted, most) = (options.segment_bytes(room_bytes), options.segment_bytes(u64::MAX));
        let present = newest.map(|(_, length)| length);
        Ok(present.filter(|present| (wanted..=most).contains(present)).unwrap_or(wanted))
    };
    look().map_err(|cause| OpenError::Unreadable { what: "the directory".into(), cause })
}

/// Locks a mutex whose content is consistent even if a thread panicked while it held it.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a directory whose name outlives a power cut: what is durable in it is worth nothing without. Names above it
/// may be as new, so those are made durable too.
fn create_durably(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let above = directory.ancestors().skip(1).take(3).filter(|path| !path.as_os_str().is_empty());
    for path in above {
        match File::open(path).and_then(|opened| opened.sync_all()) {
            // Whoever may not look into it has not made anything in it either.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Locks the directory for this process and leaves its number for the one that comes second.
fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let unusable = |cause| OpenError::Unreadable { what: path.display().to_string(), cause };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            drop(file.read_to_string(&mut pid));
            let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().into() };
            return Err(OpenError::Locked { directory: directory.display().to_string(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(file)
}
