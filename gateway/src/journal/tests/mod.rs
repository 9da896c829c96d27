//! The journal as a whole, over the memory double and over a real directory.

mod boots;
mod crash;
mod damage;
mod early;
mod format;
mod found;
mod hostile;
mod inspection;
mod lives;
mod model;
mod shared;
mod small;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::{Fields, RowEntry};
use super::memory::MemoryStorage;
use super::*;
use crate::cache::Latest;
use crate::record::Value;

const OPTIONS: Options = Options::sized(MAX_BYTES_LEAST);
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

/// Submits rows numbered from `from` on as one submission and returns its receipt. A journal that is busy with its files
/// is waited for.
fn submit_rows(journal: &Journal, from: u64, rows: u64, text: &str) -> Result<Offset, Refused> {
    loop {
        match try_submit_rows(journal, from, rows, text) {
            Err(Refused::Busy) => thread::yield_now(),
            submitted => return submitted,
        }
    }
}

/// The same without patience.
fn try_submit_rows(journal: &Journal, from: u64, rows: u64, text: &str) -> Result<Offset, Refused> {
    let (_, receipt) = journal.submit(Class::Foreign, |_, submission| {
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
fn a_reader_tells_how_much_it_goes_through_what_it_passes_over_included() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    for sequence in 0..20 {
        wait_for(&journal, submit_rows(&journal, sequence, 1, &"x".repeat(300)).unwrap());
    }
    journal.close();
    drop(journal);
    let (journal, _) = open(&storage);
    let (mut bytes, mut last) = (0, Offset(0));
    let mut reader = journal.reader(Offset(0));
    while let Read::Frame(frame) = reader.next().unwrap() {
        assert!(reader.bytes() >= bytes + frame.bytes() as u64);
        (bytes, last) = (reader.bytes(), frame.first());
    }
    let mut reader = journal.reader(Offset(0));
    reader.skip_to(last);
    assert!(matches!(reader.next().unwrap(), Read::Frame(frame) if frame.first() == last));
    assert!((20 * 300..=bytes).contains(&reader.bytes()), "{} of {bytes}", reader.bytes());
}

#[test]
fn a_refused_decision_leaves_no_trace() {
    let (journal, _) = open(&MemoryStorage::new());
    let end = submit_rows(&journal, 0, 1, "a").unwrap();
    let before = journal.with_state(State::clone);
    let refused = journal.submit(Class::Foreign, |_, submission| {
        add_row(submission, 1, "b")?;
        Err::<(), _>(Refused::Busy)
    });
    assert_eq!(refused, Err(Refused::Busy));
    assert_eq!(journal.with_state(State::clone), before);
    let empty = journal.submit(Class::Foreign, |_, _| Ok::<_, Refused>("nothing"));
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
    let held = submit_rows(&journal, 1, 1, "held up").unwrap();
    // The spare may be the one that is held, so it takes the committer's own write to tell.
    while !written(&storage, b"held up") {
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

/// Whether the first segment holds `text`, synced or not.
fn written(storage: &MemoryStorage, text: &[u8]) -> bool {
    let files = storage.files();
    files["00000000000000000001.seg"].windows(text.len()).any(|window| window == text)
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
    let segments = || journal.shared.segments().iter().count();
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
                assert!(next * 1_000 < 8 * max_bytes, "it never is full");
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
    for (rows, text) in [(10, text.as_str()), (1, "x")] {
        while let Ok(receipt) = submit_rows(&journal, next, rows, text) {
            wait_for(&journal, receipt);
            next += rows;
        }
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
    while journal.usage().trouble.is_none() {
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
        match fs::copy(file.path(), copy.join(file.file_name())) {
            // The keeper gives a new spare its name meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
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
        .submit(Class::Foreign, |_, submission| {
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
    latest.catch_up(7_000).unwrap();
    let row = latest.get("climate,device=boiler").unwrap();
    assert_eq!((&row.fields, row.seen_ns, row.spark.values().count()), (&fields(5, "new"), 7_000, 1));
    assert_eq!((latest.iter().count(), latest.untracked()), (1, 1));
}
