//! Defects that the crash enumeration and the damage enumeration found, each as small as it gets.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::entry::SkipEntry;
use super::*;
use crate::journal::memory::{CallKind, Fate, Fates, Fault};

const SHAPE: Shape = Shape { segment_bytes: 4096, frame_bytes: 600 };
const SMALL: Options = Options::sized(4096 + 8 * 4096);

/// Fills a frame of [`SHAPE`] with [`FRAME_ROWS`] rows.
const TEXT: &str = "......";
const FRAME_ROWS: u64 = 8;

struct Parts {
    shared: Arc<Shared>,
    committer: Committer,
    report: RecoveryReport,
}

impl Parts {
    /// Opens a journal of which nothing runs by itself, with its spares ready.
    fn open(storage: &MemoryStorage) -> Parts {
        let parts = Parts::open_untidied(storage);
        keeper::tidy(&parts.shared).unwrap();
        parts
    }

    fn open_untidied(storage: &MemoryStorage) -> Parts {
        let opened = Shared::open(Arc::new(storage.clone()), &SMALL, SHAPE, JournalId(1));
        let (shared, committer, report) = opened.unwrap();
        Parts { shared, committer, report }
    }

    fn submit(&self, from: u64, rows: u64) {
        self.try_submit(from, rows).unwrap();
    }

    fn try_submit(&self, from: u64, rows: u64) -> Result<(), Refused> {
        let add = |submission: &mut Submission<'_>| {
            (from..from + rows).try_for_each(|sequence| add_row(submission, sequence, TEXT))
        };
        loop {
            match self.shared.submit(Class::Foreign, |_, submission| add(submission)) {
                Err(Refused::Busy) => keeper::tidy(&self.shared).unwrap(),
                done => return done.map(drop),
            }
        }
    }

    fn register(&self, sink: &str) {
        let entry = Entry::Sink(SinkEntry { sink, start: Offset(0) });
        self.shared.submit(Class::Internal, |_, submission| submission.add(&entry)).unwrap();
    }

    fn confirm(&self, sink: &str, next: Offset) {
        let confirm = |submission: &mut Submission<'_>| submission.add_cursor(sink, next, &[]);
        self.shared.submit(Class::Internal, |_, submission| confirm(submission)).unwrap();
    }

    fn commit_and_tidy(&mut self) {
        self.committer.commit().unwrap();
        keeper::tidy(&self.shared).unwrap();
    }

    fn end(&self) -> u64 {
        self.report.end.0
    }
}

/// A journal that lost its power before the sync of its first commit, of submissions of so many rows each.
fn torn(storage: &MemoryStorage, from: u64, submissions: &[u64]) -> Parts {
    let mut parts = Parts::open(storage);
    for rows in submissions {
        parts.submit(from, *rows);
    }
    // A segment that begins has its header written first.
    let writes = if parts.committer.active.is_some() { 1 } else { 2 };
    storage.cut_at(storage.calls() + writes);
    parts.committer.commit().unwrap_err();
    parts
}

#[test]
fn a_first_commit_that_was_torn_is_no_lost_snapshot() {
    let storage = MemoryStorage::new();
    torn(&storage, 0, &[1]);
    let parts = Parts::open(&storage.after_power_cut(&Fates::only(0)));
    assert_eq!((parts.end(), parts.report.snapshot_lost, parts.report.damaged), (0, false, vec![]));
}

#[test]
fn the_last_frames_of_a_first_submission_are_no_submission() {
    let storage = MemoryStorage::new();
    torn(&storage, 0, &[3 * FRAME_ROWS]);
    let sectors = storage.undecided().sectors.len();
    assert!(sectors > 4);
    // The first sector is the segment's header, without which the submission is whole.
    for first in 2..sectors {
        let cut = storage.after_power_cut(&Fates::suffix(first).others(Fate::Garbled(1)));
        assert_eq!(Parts::open(&cut).end(), 0, "from {first}");
    }
}

#[test]
fn the_first_frames_of_one_life_and_the_last_of_another_are_no_submission() {
    let first_life = MemoryStorage::new();
    torn(&first_life, 0, &[3 * FRAME_ROWS]);
    let sectors = first_life.undecided().sectors.len();
    for kept in 0..sectors {
        let storage = first_life.after_power_cut(&Fates::prefix(kept));
        torn(&storage, 50, &[3 * FRAME_ROWS]);
        for first in 2..storage.undecided().sectors.len() {
            let cut = storage.after_power_cut(&Fates::suffix(first).others(Fate::Garbled(1)));
            assert_eq!(Parts::open(&cut).end(), 0, "up to {kept}, and from {first}");
        }
    }
}

#[test]
fn what_a_torn_commit_left_in_a_spare_does_not_stand_behind_a_new_one() {
    let first_life = MemoryStorage::new();
    torn(&first_life, 0, &[FRAME_ROWS, FRAME_ROWS, FRAME_ROWS]);
    for first in 2..first_life.undecided().sectors.len() {
        let storage = first_life.after_power_cut(&Fates::suffix(first));
        let mut parts = Parts::open(&storage);
        parts.submit(50, FRAME_ROWS);
        parts.committer.commit().unwrap();
        assert_eq!(Parts::open(&storage.after_kill()).end(), FRAME_ROWS, "from {first}");
    }
}

#[test]
fn a_spare_whose_name_was_not_durable_at_a_kill_is_there_after_a_power_cut() {
    let storage = MemoryStorage::new();
    let parts = Parts::open_untidied(&storage);
    // It is filled and renamed, and the directory is about to be synced.
    storage.cut_at(storage.calls() + 5);
    keeper::tidy(&parts.shared).unwrap_err();
    let storage = storage.after_kill();
    assert!(storage.undecided().operations > 0);
    let mut parts = Parts::open_untidied(&storage);
    parts.submit(0, 1);
    parts.committer.commit().unwrap();
    assert_eq!(Parts::open(&storage.after_power_cut(&Fates::all_old())).end(), 1);
}

#[test]
fn a_segment_that_cannot_be_let_go_of_is_told_and_goes_later() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.register("main");
    for first in 0..12 {
        parts.submit(first * FRAME_ROWS, FRAME_ROWS);
        parts.commit_and_tidy();
    }
    let live_bytes = |parts: &Parts| parts.shared.intake().live_bytes;
    storage.plan(Fault::for_ever(CallKind::Rename, 0, ErrorKind::ReadOnlyFilesystem));
    storage.plan(Fault::for_ever(CallKind::Remove, 0, ErrorKind::ReadOnlyFilesystem));
    for _ in 0..3 {
        parts.confirm("main", Offset(12 * FRAME_ROWS));
        parts.committer.commit().unwrap();
    }
    keeper::tidy(&parts.shared).unwrap_err();
    let told = parts.shared.intake().retire_trouble.clone().unwrap();
    assert!(told.contains("cannot be let go of"), "{told}");
    assert!(parts.shared.intake().retire_due, "it is not tried again");
    let before = live_bytes(&parts);
    storage.heal();
    keeper::tidy(&parts.shared).unwrap();
    assert_eq!(parts.shared.intake().retire_trouble, None);
    assert!(live_bytes(&parts) < before, "{} bytes of {before}", live_bytes(&parts));
}

#[test]
fn the_end_is_marked_in_another_file_after_a_failed_sync() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    let mut marked = |rows: u64, fault: Option<Fault>| {
        parts.submit(rows - 1, 1);
        parts.committer.commit().unwrap();
        fault.into_iter().for_each(|fault| storage.plan(fault));
        parts.committer.mark();
        storage.heal();
        let left = storage.after_power_cut(&Fates::all_old());
        EndFile::read(&left).unwrap().unwrap().mark.watermark
    };
    let sync = |ahead| (CallKind::Sync, storage.calls_of(CallKind::Sync) + ahead, ErrorKind::Other);
    // The first sync is the commit's.
    let (kind, nth, error) = sync(1);
    assert_eq!(marked(1, Some(Fault::once(kind, nth, error))), Offset(1));
    let (kind, nth, error) = sync(1);
    assert_eq!(marked(2, Some(Fault::for_ever(kind, nth, error))), Offset(1));
    assert_eq!(marked(3, None), Offset(3));
}

#[test]
fn segments_that_cannot_go_cost_a_few_others_and_not_the_backlog() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.register("main");
    let mut row = 0;
    while parts.try_submit(row, FRAME_ROWS).is_ok() {
        row += FRAME_ROWS;
        parts.commit_and_tidy();
    }
    storage.plan(Fault::for_ever(CallKind::Rename, 0, ErrorKind::Other));
    storage.plan(Fault::for_ever(CallKind::Remove, 0, ErrorKind::Other));
    let mut asked = BTreeSet::new();
    for _ in 0..10 {
        let full = parts.try_submit(row, FRAME_ROWS);
        assert_eq!(full, Err(Refused::Full));
        drop(keeper::tidy(&parts.shared));
        let to = *parts.shared.evict_to.borrow();
        asked.insert(to);
        let skip = Entry::Skip(SkipEntry { sink: "main", to });
        parts.shared.submit(Class::Internal, |_, submission| submission.add(&skip)).unwrap_or_default();
        parts.committer.commit().unwrap();
    }
    assert!((3..=4).contains(&asked.len()), "evicted to {asked:?}");
    storage.heal();
    keeper::tidy(&parts.shared).unwrap();
    parts.submit(row, FRAME_ROWS);
}

#[test]
fn what_a_failed_sync_lost_is_not_trusted_by_the_next_process() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.submit(0, 1);
    storage.plan(Fault::once(CallKind::Sync, storage.calls_of(CallKind::Sync), ErrorKind::Other));
    storage.cut_at(storage.calls() + 3);
    parts.committer.commit().unwrap_err();
    // It reads as if it were there, and no sync makes it durable.
    let storage = storage.after_kill();
    let end = Parts::open(&storage).end();
    assert_eq!(Parts::open(&storage.after_power_cut(&Fates::all_old())).end(), end);
}

#[test]
fn a_header_that_cannot_be_written_leaves_no_segment_behind() {
    for error in [ErrorKind::Other, ErrorKind::StorageFull] {
        let storage = MemoryStorage::new();
        let mut parts = Parts::open(&storage);
        parts.submit(0, 1);
        storage.plan(Fault::once(CallKind::Write, storage.calls_of(CallKind::Write), error));
        // A full disk is tried again later.
        let full = parts.committer.commit().is_err();
        assert_eq!(full, error == ErrorKind::StorageFull);
        parts.committer.commit().unwrap();
        keeper::tidy(&parts.shared).unwrap();
        let segments = parts.shared.segments();
        assert_eq!(segments.iter().count(), 1);
        assert_eq!(parts.shared.intake().live_bytes, segments.bytes());
        drop(segments);
        assert_eq!(Parts::open(&storage.after_kill()).end(), 1);
    }
}

#[test]
fn rows_leave_to_delivery_what_it_takes_out_of_the_reserve() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.register("main");
    let (mut rows, mut next) = (Ok(()), 0);
    while rows.is_ok() {
        rows = parts.try_submit(next, FRAME_ROWS);
        parts.commit_and_tidy();
        next += FRAME_ROWS;
    }
    assert_eq!(rows, Err(Refused::Full));
    for start in 0..3 {
        // It confirms nothing yet, and begins a segment.
        parts.confirm("main", Offset(0));
        parts.commit_and_tidy();
        while parts.shared.intake().tail.left() < 1_000 {
            parts.confirm("main", Offset(0));
            parts.commit_and_tidy();
        }
        assert_eq!(parts.try_submit(next, 1), Err(Refused::Full), "start {start}");
        parts = Parts::open(&storage.after_kill());
    }
    let end = parts.report.end;
    parts.confirm("main", end);
    parts.commit_and_tidy();
    parts.confirm("main", end);
    parts.commit_and_tidy();
    assert_eq!(parts.try_submit(next, 1), Ok(()));
}

#[test]
fn a_journal_full_of_nothing_that_is_owed_takes_rows_again() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.register("main");
    // One commit after the other fails, until what goes on for the files that were given up fills the journal.
    let mut next = 0;
    while parts.try_submit(next, 1).is_ok() {
        storage.plan(Fault::once(CallKind::Sync, storage.calls_of(CallKind::Sync), ErrorKind::Other));
        parts.commit_and_tidy();
        next += 1;
    }
    let rewrites = parts.shared.intake().commits.rewrites;
    assert!(rewrites >= 5, "{rewrites}");
    assert_eq!(parts.try_submit(next, 1), Err(Refused::Full), "they are owed");
    for _ in 0..3 {
        let end = *parts.shared.watermark.borrow();
        let confirmed = [("e6614104".into(), parts.shared.intake().state.owed("main"))];
        let confirm = |submission: &mut Submission<'_>| submission.add_cursor("main", end, &confirmed);
        parts.shared.submit(Class::Internal, |_, submission| confirm(submission)).unwrap();
        parts.commit_and_tidy();
        parts.submit(next, 1);
        parts.commit_and_tidy();
        next += 1;
    }
    let segments = parts.shared.segments().iter().count();
    assert!(segments <= 3, "{segments} segments");
    assert_eq!(Parts::open(&storage.after_kill()).report.damaged, []);
}

#[test]
fn what_the_lost_oldest_segment_held_is_named_to_a_sink_that_needs_it() {
    let storage = MemoryStorage::new();
    let mut parts = Parts::open(&storage);
    parts.register("main");
    while parts.shared.segments().iter().count() < 3 {
        parts.submit(0, FRAME_ROWS);
        parts.committer.commit().unwrap();
    }
    parts.committer.mark();
    let second = parts.shared.segments().iter().nth(1).unwrap().first;
    storage.put("00000000000000000001.seg", Vec::new());
    let parts = Parts::open(&storage.after_kill());
    let mut reader = Reader::new(Arc::clone(&parts.shared), Offset(0));
    assert!(matches!(reader.next().unwrap(), Read::Damaged { from: Offset(0), to } if to == second));
    assert!(matches!(reader.next().unwrap(), Read::Frame(frame) if frame.first() == second));
}
