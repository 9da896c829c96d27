//! Small journals: segments of a few KiB, so that a handful of rows fills several.

use super::entry::{Cause, Counts, DeviceEntry, GapEntry, LetterEntry, LettersEntry, SinkEntry, SkipEntry};
use std::sync::atomic::Ordering;

use super::*;

/// Segments of 6 KiB, of which a snapshot takes at most a quarter.
pub(super) const SMALL: Shape = Shape { segment_bytes: 6 << 10, frame_bytes: 1 << 10 };

/// The id of such a journal.
pub(super) const SMALL_JOURNAL: JournalId = JournalId(0xf0eb);

/// Opens a journal of that shape.
pub(super) fn open_small(storage: &MemoryStorage) -> (Journal, RecoveryReport) {
    open_shaped(storage, SMALL)
}

/// Opens a journal of any shape, in which each life begins a segment.
pub(super) fn open_shaped(storage: &MemoryStorage, shape: Shape) -> (Journal, RecoveryReport) {
    open_as(storage, shape, &OPTIONS)
}

/// The same with other options.
pub(super) fn open_as(storage: &MemoryStorage, shape: Shape, options: &Options) -> (Journal, RecoveryReport) {
    let opened = bugs::anew(|| Shared::open(Arc::new(storage.clone()), options, shape, SMALL_JOURNAL));
    let (shared, committer, report) = opened.unwrap();
    // A test may have seen to it that there is no room.
    drop(keeper::tidy(&shared));
    let running = Running { shared: Arc::clone(&shared), threads: Mutex::default(), lock: Mutex::default() };
    running.start(committer).unwrap();
    (Journal { shared, running: Arc::new(running) }, report)
}

/// The same files on a disk that has all of them, whatever a sync has said.
pub(super) fn as_written(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    storage.files().into_iter().for_each(|(name, bytes)| copy.put(&name, bytes));
    copy
}

/// What a start finds.
pub(super) fn survey_small(storage: &MemoryStorage) -> recovery::Survey {
    recovery::survey(storage, &storage.list().unwrap(), SMALL, JournalId(1)).unwrap()
}

/// Submits entries as one, and waits until they are durable.
pub(super) fn commit(journal: &Journal, entries: &[Entry<'_>]) -> Offset {
    let (_, receipt) = journal
        .submit(Class::Internal, |_, submission| entries.iter().try_for_each(|entry| submission.add(entry)))
        .unwrap_or_else(|refused: Refused| panic!("{refused}"));
    wait_for(journal, receipt);
    receipt
}

/// Rows as submissions of their own.
pub(super) fn commit_rows(journal: &Journal, sequences: std::ops::Range<u64>, text: &str) -> Offset {
    let mut receipt = Offset(0);
    for sequence in sequences {
        receipt = submit_rows(journal, sequence, 1, text).unwrap();
        wait_for(journal, receipt);
    }
    receipt
}

/// A journal with three rows and three lives in which nothing happens but that a sink goes on. Of these, nobody is owed
/// anything; their segments are there still, as after a power cut before their removal was durable.
pub(super) fn idle_lives() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    journal.register_sink("main").unwrap();
    commit_rows(&journal, 0..3, "durable");
    journal.close();
    let mut kept = BTreeMap::new();
    for life in 1..4 {
        let (journal, _) = open_small(&storage);
        commit(&journal, &[Entry::Skip(SkipEntry { sink: "main", to: Offset(life) })]);
        journal.close();
        let begun = survey_small(&storage).files.candidates.into_iter().map(|c| c.segment.id.file_name());
        kept.extend(begun.map(|name| (name.clone(), storage.files()[&name].clone())));
    }
    kept.into_iter().for_each(|(name, bytes)| storage.put(&name, bytes));
    storage
}

/// A closed journal of two lives with every kind of entry, in segments that were others before, and two spares.
pub(super) fn every_kind() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    let gap = |sink, cause| GapEntry {
        device: "e6614104",
        boot: 7,
        from: 10,
        to: 12,
        count: 2,
        cause,
        sink,
        stamped: true,
        series: "forebay_gap,cause=overflow,device=boiler",
        ns: 5_000,
    };
    let device = DeviceEntry { device: "e6614104", name: "boiler", boot: 7, first: 0 };
    let letter = LetterEntry {
        device: "esp",
        rows: 1,
        ns: 7_000,
        origin: "sensors/esp/cellar",
        reason: "no JSON",
        body_bytes: 5,
        body: b"\xff{\x1b[2",
    };
    for sink in ["main", "sqlite", "gone"] {
        commit(&journal, &[Entry::Sink(SinkEntry { sink, start: Offset(0) })]);
    }
    commit(&journal, &[Entry::Device(device)]);
    commit(&journal, &[Entry::Forget("gone")]);
    let first = commit_rows(&journal, 0..10, &"x".repeat(400));
    let gaps = [gap(None, Cause::Overflow), gap(Some("main"), Cause::Rejected)];
    commit(&journal, &gaps.map(Entry::Gap));
    let letters = commit(&journal, &[Entry::Letter(letter)]);
    let rows = [("esp".into(), 1_u64)];
    commit(&journal, &[Entry::Letters(LettersEntry { to: letters, unkept: false, rows: Counts::of(&rows) })]);
    let end = commit_rows(&journal, 12..20, &"y".repeat(600));
    let confirmed = [("e6614104".into(), 10_u64)];
    for (sink, next) in [("main", end), ("sqlite", first)] {
        let submitted = journal.submit(Class::Internal, |_, s| s.add_cursor(sink, next, &confirmed)).unwrap();
        wait_for(&journal, submitted.1);
    }
    commit(&journal, &[Entry::Skip(SkipEntry { sink: "sqlite", to: first.plus(1) })]);
    submit_rows(&journal, 20, 3, &"of one submission ".repeat(40))
        .map(|receipt| wait_for(&journal, receipt))
        .unwrap();
    commit_rows(&journal, 23..40, &"z".repeat(500));
    journal.close();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 40..45, "of a second life");
    commit(&journal, &[Entry::GapAgain(gap(Some("main"), Cause::Rejected))]);
    let ready = journal.shared.spares.ready_count();
    while ready.load(Ordering::Relaxed) < intake::SPARES {
        thread::yield_now();
    }
    journal.close();
    recycle(&storage);
    storage
}

/// Makes every file but the oldest look as if it had been that one before.
fn recycle(storage: &MemoryStorage) {
    let files = storage.files();
    let names = files.keys().filter_map(|name| SegmentId::of_file_name(name));
    let ids: Vec<SegmentId> = names.collect();
    let earlier = &files[&ids[0].file_name()];
    for id in &ids[1..] {
        let written = &files[&id.file_name()];
        let mut bytes = earlier.clone();
        if written[..segment::HEADER_BYTES] != [0; segment::HEADER_BYTES] {
            bytes[..segment::FRAMES_AT as usize].copy_from_slice(&written[..segment::FRAMES_AT as usize]);
        }
        for at in 0..written.len() {
            if let Some((header, _)) = frame::FrameHeader::parse(&written[at..], *id, SMALL_JOURNAL) {
                bytes[at..at + header.length].copy_from_slice(&written[at..at + header.length]);
            }
        }
        storage.put(&id.file_name(), bytes);
    }
}
