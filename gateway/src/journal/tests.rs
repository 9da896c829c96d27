//! The journal as a whole, over the memory double and over a real directory.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::entry::{Cause, DeviceEntry, Fields, GapEntry, RowEntry};
use super::memory::MemoryStorage;
use super::*;
use crate::cache::Latest;
use crate::record::Value;

const OPTIONS: Options = Options { max_bytes: MAX_BYTES_LEAST, commit_interval: Duration::ZERO };
const SEGMENT_BYTES: u64 = 128 << 10;

fn open(storage: &MemoryStorage) -> (Journal, RecoveryReport) {
    Journal::open(Arc::new(storage.clone()), &OPTIONS).unwrap()
}

fn fields(value: i64, text: &str) -> Vec<(String, Value)> {
    vec![("v".into(), Value::Integer(value)), ("t".into(), Value::Text(text.into()))]
}

fn add_row(submission: &mut Submission<'_>, sequence: u64, text: &str) -> Result<(), Refused> {
    submission.add(&Entry::Row(RowEntry {
        device: "e6614104",
        boot: 7,
        sequence,
        stamped: true,
        series: "climate,device=boiler",
        ns: 1_000 + sequence as i64,
        fields: Fields::of(&fields(sequence as i64, text)),
    }))
}

/// Submits rows numbered from `from` on as one submission and returns its receipt.
fn submit_rows(journal: &Journal, from: u64, rows: u64, text: &str) -> Result<Offset, Refused> {
    let (_, receipt) = journal.submit(Class::Intake, |_, submission| {
        (from..from + rows).try_for_each(|sequence| add_row(submission, sequence, text))
    })?;
    Ok(receipt)
}

fn wait_for(journal: &Journal, receipt: Offset) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut watermark = journal.watermark();
    runtime.block_on(watermark.wait_for(|w| *w >= receipt)).unwrap();
}

fn wait_for_room(journal: &Journal, mut room: watch::Receiver<u64>, mut retry: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while !retry() {
        assert_ne!(journal.usage().state, Condition::Failed);
        runtime.block_on(room.changed()).unwrap();
    }
}

/// Everything readable: the sequences of rows by offset, and the damaged ranges.
fn read_all(journal: &Journal, from: Offset) -> (BTreeMap<Offset, u64>, Vec<(Offset, Offset)>) {
    let (mut rows, mut damaged) = (BTreeMap::new(), Vec::new());
    let mut reader = journal.reader(from);
    loop {
        match reader.next().unwrap() {
            Read::Frame(frame) => rows.extend(frame.entries().filter_map(|(offset, entry)| {
                let Entry::Row(row) = entry.unwrap() else { return None };
                Some((offset, row.sequence))
            })),
            Read::Damaged { from, to } => damaged.push((from, to)),
            Read::Wait => return (rows, damaged),
        }
    }
}

fn sequences(journal: &Journal) -> Vec<u64> {
    let (rows, damaged) = read_all(journal, Offset(0));
    assert_eq!(damaged, []);
    rows.into_values().collect()
}

#[test]
fn what_is_submitted_comes_back_in_order_and_after_reopening() {
    let storage = MemoryStorage::new();
    let (journal, report) = open(&storage);
    assert_eq!(report, RecoveryReport::default());
    let receipt = submit_rows(&journal, 0, 3, "a").unwrap();
    wait_for(&journal, receipt);
    submit_rows(&journal, 3, 2, "b").unwrap();
    let (state, id) = (journal.with_state(State::clone), journal.id());
    journal.close();
    assert_eq!(submit_rows(&journal, 5, 1, "c"), Err(Refused::Failed), "closed");
    assert_eq!(sequences(&journal), [0, 1, 2, 3, 4]);
    drop(journal);

    let (journal, report) = open(&storage);
    assert!(!report.torn_tail && !report.snapshot_lost && report.damaged.is_empty());
    assert_eq!(sequences(&journal), [0, 1, 2, 3, 4], "from the files this time");
    assert_eq!((journal.with_state(State::clone), journal.id()), (state, id));
    assert_eq!(journal.with_state(State::last_stamp), 1_004);
}

#[test]
fn a_refused_decision_leaves_no_trace() {
    let (journal, _) = open(&MemoryStorage::new());
    let end = submit_rows(&journal, 0, 1, "a").unwrap();
    let before = journal.with_state(State::clone);
    let refused = journal.submit(Class::Intake, |_, submission| {
        add_row(submission, 1, "b")?;
        Err::<(), _>(Refused::Busy)
    });
    assert_eq!(refused, Err(Refused::Busy));
    assert_eq!(journal.with_state(State::clone), before);
    let empty = journal.submit(Class::Intake, |_, _| Ok::<_, Refused>("nothing"));
    assert_eq!(empty, Ok(("nothing", end)));
}

#[test]
fn too_large_a_submission_is_refused_by_size() {
    let (journal, _) = open(&MemoryStorage::new());
    let limit = journal.usage().submission_bytes_max;
    assert_eq!(limit as u64, SEGMENT_BYTES / 2);
    let text = "x".repeat(10_000);
    assert!(
        matches!(submit_rows(&journal, 0, 7, &text), Err(Refused::TooLarge { bytes, limit: l }) if bytes > l && l == limit)
    );
    let text = "x".repeat(20_000);
    assert!(
        matches!(submit_rows(&journal, 0, 1, &text), Err(Refused::TooLarge { bytes, .. }) if bytes > 20_000)
    );
    assert_eq!(journal.with_state(|state| state.devices().len()), 0);
}

#[test]
fn the_watermark_waits_for_the_sync_and_one_sync_serves_all_who_came_meanwhile() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    wait_for(&journal, submit_rows(&journal, 0, 1, "a").unwrap());
    let syncs = storage.syncs("00000000000000000001.seg");
    let commits = journal.commits().commits;

    storage.faults(|f| f.hold_syncs = true);
    let held = submit_rows(&journal, 1, 1, "b").unwrap();
    // The spare may be the one that is held, so it takes the committer's own write to tell.
    while !written(&storage, b"b") {
        thread::yield_now();
    }
    assert!(*journal.watermark().borrow() < held);
    let receipts: Vec<_> = (2..102).map(|n| submit_rows(&journal, n, 1, "c").unwrap()).collect();
    assert!(*journal.watermark().borrow() < held);
    let after_cut = storage.power_cut(|_, _| false);
    storage.faults(|f| f.hold_syncs = false);
    wait_for(&journal, receipts[99]);
    // A slow machine may tell the watermark in between, which is a commit too.
    let commits = journal.commits().commits - commits;
    assert!((2..=3).contains(&commits), "{commits} commits");
    assert_eq!(storage.syncs("00000000000000000001.seg"), syncs + commits);

    let (journal, _) = open(&after_cut);
    assert_eq!(sequences(&journal), [0], "nothing else was durable, and nothing else was acknowledged");
}

fn written(storage: &MemoryStorage, text: &[u8]) -> bool {
    let files = storage.files();
    let needle = [&[b't', 5, text.len() as u8], text].concat();
    files["00000000000000000001.seg"].windows(needle.len()).any(|w| w == needle)
}

#[test]
fn a_commit_interval_gathers_until_somebody_is_in_a_hurry() {
    let options = Options { commit_interval: Duration::from_secs(3600), ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &options).unwrap();
    submit_rows(&journal, 0, 1, "a").unwrap();
    let receipt = submit_rows(&journal, 1, 1, "b").unwrap();
    journal.hurry();
    wait_for(&journal, receipt);
    let commits = journal.commits();
    assert_eq!(commits.commits, 1);
    let receipt = submit_rows(&journal, 2, 5, &"x".repeat(12_000)).unwrap();
    let receipt = receipt.max(submit_rows(&journal, 7, 5, &"x".repeat(12_000)).unwrap());
    wait_for(&journal, receipt);
    submit_rows(&journal, 12, 1, "c").unwrap();
    journal.close();
    assert_eq!(sequences(&journal), (0..13).collect::<Vec<_>>());
}

#[test]
fn segments_rotate_and_are_trimmed_behind_the_slowest_cursor() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    assert_eq!(journal.register_sink("fast"), Ok(Offset(0)));
    assert_eq!(journal.register_sink("slow"), Ok(Offset(0)));
    let text = "x".repeat(1_000);
    let cursor = |sink: &str, next: Offset| {
        let submitted = journal.submit(Class::Internal, |_, submission| {
            submission.add_cursor(sink, next, &[("e6614104".into(), 1)])
        });
        wait_for(&journal, submitted.unwrap().1);
    };
    let mut receipts = Vec::new();
    for n in 0..100 {
        receipts.push(submit_rows(&journal, n * 10, 10, &text).unwrap());
        wait_for(&journal, receipts[receipts.len() - 1]);
    }
    let segments = || storage.files().keys().filter(|name| SegmentIdName::is(name)).count();
    let full = segments();
    assert!(full > 7, "{full} segments");
    cursor("fast", receipts[99]);
    assert_eq!(segments(), full, "the slow sink still needs them");
    cursor("slow", receipts[49]);
    cursor("slow", receipts[49]);
    let half = segments();
    assert!(half < full && half > 3, "{half} of {full} segments");
    let (rows, damaged) = read_all(&journal, receipts[49]);
    assert_eq!(damaged, []);
    assert_eq!(rows.into_values().collect::<Vec<_>>(), (500..1000).collect::<Vec<_>>());
    cursor("slow", receipts[99]);
    cursor("slow", receipts[99]);
    assert_eq!(segments(), 2, "the two newest stay for their snapshots");

    let state = journal.with_state(State::clone);
    assert_eq!(state.cursor("slow"), Some(receipts[99]));
    assert_eq!(journal.register_sink("late"), Ok(receipts[99]));
    journal.close();
    let (journal, report) = open(&storage);
    assert_eq!(report.damaged, []);
    assert_eq!(journal.with_state(|s| s.cursor("late")), Some(receipts[99]));
}

struct SegmentIdName;

impl SegmentIdName {
    fn is(name: &str) -> bool {
        segment::SegmentId::of_file_name(name).is_some()
    }
}

#[test]
fn a_full_journal_refuses_intake_keeps_its_limit_and_takes_rows_again_after_a_cursor() {
    for max_bytes in [MAX_BYTES_LEAST, 4 << 20] {
        let storage = MemoryStorage::new();
        let (journal, _) =
            Journal::open(Arc::new(storage.clone()), &Options { max_bytes, ..OPTIONS }).unwrap();
        journal.register_sink("main").unwrap();
        let text = "x".repeat(1_000);
        let mut next = 0;
        for round in 0..4 {
            let full = loop {
                match submit_rows(&journal, next, 10, &text) {
                    Ok(receipt) => wait_for(&journal, receipt),
                    Err(refused) => break refused,
                }
                next += 10;
            };
            assert_eq!(full, Refused::Full);
            assert_eq!(journal.usage().state, Condition::Full);
            let on_disk: usize = storage.files().values().map(Vec::len).sum();
            assert!(on_disk as u64 <= max_bytes, "{on_disk} bytes in round {round}");
            assert!(next * 1_000 > max_bytes / 2, "{next} rows in round {round}");

            let room = journal.room();
            let end = journal.usage().end;
            journal.submit(Class::Internal, |_, submission| submission.add_cursor("main", end, &[])).unwrap();
            wait_for_room(&journal, room, || submit_rows(&journal, next, 10, &text).is_ok());
            next += 10;
            assert_eq!(journal.usage().state, Condition::Running);
        }
        journal.close();
        let (journal, report) = open(&storage);
        assert_eq!(report.damaged, []);
        assert_eq!(journal.with_state(|s| s.device("e6614104").unwrap().rows), next);
    }
}

#[test]
fn a_full_journal_can_be_emptied_after_any_number_of_starts() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    journal.register_sink("main").unwrap();
    let text = "x".repeat(1_000);
    let mut next = 0;
    while let Ok(receipt) = submit_rows(&journal, next, 10, &text) {
        wait_for(&journal, receipt);
        next += 10;
    }
    drop(journal);
    for start in 1..=20 {
        let (journal, _) = open(&storage);
        assert_eq!(submit_rows(&journal, next, 1, "x"), Err(Refused::Full), "start {start}");
        let submitted = journal
            .submit(Class::Internal, |_, submission| submission.add_cursor("main", Offset(start), &[]));
        wait_for(&journal, submitted.unwrap().1);
    }
}

#[test]
fn a_full_disk_is_waited_out() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    wait_for(&journal, submit_rows(&journal, 0, 1, "a").unwrap());
    storage.faults(|f| f.full = true);
    let receipt = submit_rows(&journal, 1, 1, "b").unwrap();
    while !journal.shared.intake().disk_full {
        thread::yield_now();
    }
    assert!(*journal.watermark().borrow() < receipt);
    storage.faults(|f| f.full = false);
    wait_for(&journal, receipt);
    assert_eq!(sequences(&journal), [0, 1]);
}

#[test]
fn a_failed_sync_is_final_until_the_next_start() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    let durable = submit_rows(&journal, 0, 1, "a").unwrap();
    wait_for(&journal, durable);
    storage.faults(|f| f.fail_syncs = true);
    submit_rows(&journal, 1, 1, "b").unwrap();
    while journal.usage().state != Condition::Failed {
        thread::yield_now();
    }
    storage.faults(|f| f.fail_syncs = false);
    assert_eq!(submit_rows(&journal, 2, 1, "c"), Err(Refused::Failed));
    assert_eq!(*journal.watermark().borrow(), durable);
    assert_eq!(sequences(&journal), [0], "reading goes on");
    drop(journal);
    let (journal, _) = open(&storage.power_cut(|_, _| false));
    assert_eq!(sequences(&journal), [0]);
}

/// A closed journal of 12 submissions, the fifth of three frames.
fn sample() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    let mut next = 0;
    for n in 0..12 {
        let (rows, text) = if n == 5 { (5, "y".repeat(8_000)) } else { (3, "z".into()) };
        wait_for(&journal, submit_rows(&journal, next, rows, &text).unwrap());
        next += rows;
    }
    journal.close();
    storage
}

const SAMPLE: &str = "00000000000000000001.seg";

/// The frames of the sample as (position, length, first offset, entries).
fn sample_frames(bytes: &[u8]) -> Vec<(usize, usize, u64, u64)> {
    let storage = MemoryStorage::new();
    storage.put(SAMPLE, bytes.to_vec());
    let segment = segment::Segment {
        id: segment::SegmentId(1),
        first: Offset(0),
        length: bytes.len() as u64,
        file: storage.open(SAMPLE).unwrap(),
    };
    let mut scanner = scan::Scanner::new(&segment);
    std::iter::from_fn(|| scanner.next().unwrap())
        .map(|f| (f.at as usize, f.header.length, f.header.first.0, u64::from(f.header.count)))
        .collect()
}

#[test]
fn a_segment_cut_anywhere_gives_the_submissions_before_the_cut() {
    let bytes = sample().files().remove(SAMPLE).unwrap();
    let frames = sample_frames(&bytes);
    let written = frames.last().map(|f| f.0 + f.1).unwrap();
    assert!(frames.len() > 13);
    let whole_ends: Vec<u64> = {
        let (journal, _) = open(&sample());
        let (rows, _) = read_all(&journal, Offset(0));
        // A submission of the sample ends where the next row is the first of a submission.
        let firsts: Vec<u64> = (0..12).map(|n| if n <= 5 { n * 3 } else { n * 3 + 2 }).collect();
        rows.iter().filter(|(_, s)| firsts.contains(s)).map(|(offset, _)| offset.0).collect()
    };
    for cut in
        (0..written).step_by(7).chain(frames.iter().flat_map(|f| [f.0, f.0 + 1, f.0 + f.1 - 1, f.0 + f.1]))
    {
        let storage = MemoryStorage::new();
        storage.put(SAMPLE, bytes[..cut].to_vec());
        let dynamic: Arc<dyn Storage> = Arc::new(storage.clone());
        let recover =
            || recovery::recover(&dynamic, &dynamic.list().unwrap(), SEGMENT_BYTES, JournalId(1)).unwrap();
        let recovered = recover();
        let intact = frames.iter().filter(|f| f.0 + f.1 <= cut).map(|f| f.2 + f.3).max().unwrap_or(0);
        let expected =
            whole_ends.iter().copied().chain([frames.last().unwrap().2]).filter(|e| *e <= intact).max();
        assert_eq!(recovered.report.damaged, [], "cut at {cut}");
        assert_eq!(recovered.tail.end.0, expected.unwrap_or(0), "cut at {cut}");
        assert_eq!(recover().state, recovered.state, "cut at {cut}");
        if cut % 5 == 0 {
            let (journal, _) = open(&storage);
            let kept = sequences(&journal);
            assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
            wait_for(&journal, submit_rows(&journal, 1_000, 1, "new").unwrap());
            journal.close();
            let (journal, _) = open(&storage);
            assert_eq!(sequences(&journal), [kept, vec![1_000]].concat(), "cut at {cut}, then written on");
        }
    }
}

#[test]
fn a_wrong_byte_costs_one_frame_and_is_reported() {
    let bytes = sample().files().remove(SAMPLE).unwrap();
    let frames = sample_frames(&bytes);
    let all = sequences(&open(&sample()).0);
    let written = frames.last().map(|f| f.0 + f.1).unwrap();
    for at in (0..written).step_by(13).chain(frames.iter().flat_map(|f| [f.0, f.0 + 9, f.0 + 25])) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x41;
        let storage = MemoryStorage::new();
        storage.put(SAMPLE, bytes);
        let (journal, report) = open(&storage);
        let hit = frames.iter().find(|f| (f.0..f.0 + f.1).contains(&at) && f.3 > 0);
        let expected: Vec<_> = hit.iter().map(|f| (Offset(f.2), Offset(f.2 + f.3))).collect();
        let (rows, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}");
        assert_eq!(report.damaged, expected, "byte {at}");
        let lost = hit.map_or(0, |f| if f.2 == 0 { 0 } else { f.3 });
        let rows_lost = all.len() as u64 - rows.len() as u64;
        assert!(rows_lost == lost || hit.is_some_and(|f| f.2 == 0) && rows_lost < lost + 4, "byte {at}");

        wait_for(&journal, submit_rows(&journal, 1_000, 1, "new").unwrap());
        journal.close();
        let (journal, _) = open(&storage);
        let (again, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}, then written on");
        assert_eq!(again.len(), rows.len() + 1, "byte {at}, then written on");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let storage = sample();
    let mut bytes = storage.files().remove(SAMPLE).unwrap();
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    storage.put(SAMPLE, bytes);
    let before = storage.files();
    let refused = Journal::open(Arc::new(storage.clone()), &OPTIONS).map(drop);
    assert!(matches!(refused, Err(OpenError::Newer { version: 2, .. })));
    assert_eq!(storage.files(), before);
    let small = Options { max_bytes: MAX_BYTES_LEAST - 1, ..OPTIONS };
    assert!(matches!(Journal::open(Arc::new(storage), &small), Err(OpenError::TooSmall { .. })));
}

#[test]
fn a_directory_is_locked_reopened_and_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/journal");
    let (journal, _) = Journal::open_dir(&path, &OPTIONS).unwrap();
    for n in 0..50 {
        submit_rows(&journal, n, 1, &"x".repeat(5_000)).unwrap();
    }
    let receipt = submit_rows(&journal, 50, 1, "last").unwrap();
    wait_for(&journal, receipt);
    let second = Journal::open_dir(&path, &OPTIONS).map(drop);
    let pid = std::process::id().to_string();
    assert!(matches!(&second, Err(error @ OpenError::Locked { .. }) if error.to_string().contains(&pid)));

    // What a killed process leaves behind is what the files hold at that moment.
    let copy = directory.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let (killed, _) = Journal::open_dir(&copy, &OPTIONS).unwrap();
    assert_eq!(sequences(&killed), (0..51).collect::<Vec<_>>());

    journal.close();
    let (journal, report) = Journal::open_dir(&path, &OPTIONS).unwrap();
    assert!(!report.torn_tail);
    assert_eq!(sequences(&journal), (0..51).collect::<Vec<_>>());
}

#[test]
fn the_latest_row_of_each_series_is_at_hand() {
    let (journal, _) = open(&MemoryStorage::new());
    let mut latest = Latest::new(&journal, 1);
    submit_rows(&journal, 5, 1, "new").unwrap();
    wait_for(&journal, submit_rows(&journal, 1, 1, "old").unwrap());
    let (_, receipt) = journal
        .submit(Class::Intake, |_, submission| {
            submission.add(&Entry::Row(RowEntry {
                device: "other",
                boot: 0,
                sequence: 0,
                stamped: false,
                series: "climate,device=other",
                ns: 1,
                fields: Fields::of(&fields(0, "x")),
            }))
        })
        .unwrap();
    wait_for(&journal, receipt);
    latest.catch_up().unwrap();
    assert_eq!(latest.get("climate,device=boiler").unwrap().fields, fields(5, "new"));
    assert_eq!((latest.iter().count(), latest.untracked()), (1, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Rows { device: usize, rows: u64, bytes: usize },
    Gap { device: usize, cause: usize, count: u64, sink: Option<usize> },
    Boot { device: usize, boot: u32 },
    Sink(usize),
    Cursor { sink: usize, back: u64 },
    Wait,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6usize, 1..40u64, 0..900usize)
            .prop_map(|(device, rows, bytes)| Step::Rows { device, rows, bytes }),
        1 => (0..6usize, 0..6usize, 1..9u64, prop::option::of(0..3usize))
            .prop_map(|(device, cause, count, sink)| Step::Gap { device, cause, count, sink }),
        1 => (0..3usize, 1..9u32).prop_map(|(device, boot)| Step::Boot { device, boot }),
        1 => (0..3usize).prop_map(Step::Sink),
        1 => (0..3usize, 0..200u64).prop_map(|(sink, back)| Step::Cursor { sink, back }),
        2 => Just(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

const SINKS: [&str; 3] = ["main", "second", "sqlite"];

fn take(journal: &Journal, step: &Step, next: &mut u64) -> Result<Offset, Refused> {
    let device = |n: usize| format!("device {n}");
    match *step {
        Step::Rows { device: d, rows, bytes } => {
            let (_, receipt) = journal.submit(Class::Intake, |state, submission| {
                let key = device(d);
                let boot = state.device(&key).and_then(|d| d.boots.last()).map_or(0, |b| b.boot);
                for sequence in *next..*next + rows {
                    submission.add(&Entry::Row(RowEntry {
                        device: &key,
                        boot,
                        sequence,
                        stamped: d % 2 == 0,
                        series: "m",
                        ns: sequence as i64,
                        fields: Fields::of(&fields(rows as i64, &"x".repeat(bytes))),
                    }))?;
                }
                Ok::<_, Refused>(())
            })?;
            *next += rows;
            Ok(receipt)
        }
        Step::Gap { device: d, cause, count, sink } => {
            let key = device(d);
            let gap = GapEntry {
                device: &key,
                boot: 1,
                from: *next,
                to: *next + count,
                count,
                cause: Cause::ALL[cause],
                sink: sink.map(|s| SINKS[s]),
                stamped: true,
                series: "forebay_gap",
                ns: 5,
            };
            Ok(journal.submit(Class::Internal, |_, s| s.add(&Entry::Gap(gap)))?.1)
        }
        Step::Boot { device: d, boot } => {
            let key = device(d);
            let entry = DeviceEntry { device: &key, name: "named", boot, first: *next };
            Ok(journal.submit(Class::Intake, |_, s| s.add(&Entry::Device(entry)))?.1)
        }
        Step::Sink(sink) => journal.register_sink(SINKS[sink]).map(|_| Offset(0)),
        Step::Cursor { sink, back } => {
            let end = Offset(journal.watermark().borrow().0.saturating_sub(back));
            let cursor = |state: &State, s: &mut Submission<'_>| {
                let next = state.cursor(SINKS[sink]).unwrap_or_default().max(end);
                s.add_cursor(SINKS[sink], next, &[(device(1).into(), back)])
            };
            Ok(journal.submit(Class::Internal, cursor)?.1)
        }
        Step::Wait | Step::Reopen => Ok(Offset(0)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_recovered_state_is_the_fold_of_the_entries(steps in prop::collection::vec(step(), 1..120)) {
        let storage = MemoryStorage::new();
        let (mut journal, _) = open(&storage);
        let mut next = 1;
        // A journal has no identity to keep before something was written.
        wait_for(&journal, submit_rows(&journal, 0, 1, "first").unwrap());
        for step in steps {
            match (take(&journal, &step, &mut next), &step) {
                (Ok(receipt), Step::Wait | Step::Cursor { .. }) => wait_for(&journal, receipt),
                (_, Step::Reopen) => {
                    let (state, end) = (journal.with_state(State::clone), journal.usage().end);
                    journal.close();
                    let (opened, report) = open(&storage);
                    prop_assert_eq!(report.damaged, []);
                    prop_assert_eq!(opened.usage().end, end);
                    prop_assert_eq!(opened.with_state(State::clone), state);
                    journal = opened;
                }
                (Err(refused), _) => prop_assert!(matches!(refused, Refused::Full | Refused::Busy)),
                _ => {}
            }
        }
        let oldest = journal.with_state(|s| s.lowest_cursor()).unwrap_or_default();
        journal.close();
        prop_assert_eq!(read_all(&journal, oldest).1, []);
    }

    #[test]
    fn a_power_cut_loses_nothing_acknowledged_and_tears_no_submission(
        submissions in prop::collection::vec((1..30u64, 0..3_000usize), 1..40),
        held_from in 0..40usize, keep in any::<u64>(), second in any::<u64>(),
    ) {
        let storage = MemoryStorage::new();
        let (journal, _) = open(&storage);
        let (mut next, mut ends) = (0, vec![0]);
        for (n, (rows, bytes)) in submissions.iter().enumerate() {
            if n == held_from {
                storage.faults(|f| f.hold_syncs = true);
            }
            match submit_rows(&journal, next, *rows, &"x".repeat(*bytes)) {
                Ok(receipt) if n < held_from => wait_for(&journal, receipt),
                Ok(_) => {}
                Err(Refused::TooLarge { .. }) => continue,
                Err(other) => prop_assert!(false, "{other}"),
            }
            next += rows;
            ends.push(next);
        }
        let acknowledged = *journal.watermark().borrow();
        let acknowledged_rows = read_all(&journal, Offset(0)).0.len() as u64;
        let cut = storage.power_cut(coin(keep));
        storage.faults(|f| f.hold_syncs = false);

        let (journal, report) = open(&cut);
        prop_assert_eq!(report.damaged, []);
        prop_assert!(journal.usage().end >= acknowledged);
        let rows = sequences(&journal);
        prop_assert!(rows.len() as u64 >= acknowledged_rows);
        prop_assert!(ends.contains(&(rows.len() as u64)), "{} rows tear a submission", rows.len());
        prop_assert_eq!(&rows, &(0..rows.len() as u64).collect::<Vec<_>>());

        // A second life writes on and is cut off in turn.
        wait_for(&journal, submit_rows(&journal, 5_000, 2, "second life").unwrap());
        let (journal, report) = open(&cut.power_cut(coin(second)));
        prop_assert_eq!(report.damaged, []);
        prop_assert_eq!(sequences(&journal), [rows, vec![5_000, 5_001]].concat());
    }
}

/// A repeatable coin per sector.
fn coin(seed: u64) -> impl FnMut(&str, usize) -> bool {
    move |name, sector| {
        let mixed = (seed ^ name.len() as u64 ^ (sector as u64) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) % 3 != 0
    }
}
