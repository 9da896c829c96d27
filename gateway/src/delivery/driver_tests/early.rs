//! Delivery of rows that wait for their time.

use super::room::sized;
use super::*;
use crate::config::WhenFull;
use crate::journal::clocks::{ClockEntry, FixEntry, Fixes};
use crate::record::MachineBoot;
use crate::sink::Batch;
use crate::sink::batch::Audience;

const MACHINE: MachineBoot = MachineBoot(7);
const OFFSET_NS: i64 = 1_000_000;

fn commit(journal: &Journal, entries: &[Entry<'_>]) -> Offset {
    let submitted: Result<((), Offset), Refused> =
        journal.submit(Class::Internal, |_, submission| entries.iter().try_for_each(|e| submission.add(e)));
    let end = submitted.unwrap().1;
    until(|| *journal.watermark().borrow() >= end);
    end
}

fn begin(journal: &Journal) {
    commit(journal, &[Entry::Clock(ClockEntry { machine: MACHINE, told_ns: 0 })]);
}

fn fix(journal: &Journal) {
    commit(
        journal,
        &[Entry::ClockFix(FixEntry { machine: MACHINE, offset_ns: OFFSET_NS, estimated: false })],
    );
}

/// An early row of a device, numbered as it should be.
fn early(journal: &Journal, device: &str, ns: i64, text: &str) -> Result<Offset, Refused> {
    let fields = [("v".to_owned(), Value::Text(text.to_owned()))];
    let series = format!("m,device={device}");
    let (_, end) = journal.submit(Class::Foreign, |state, submission| {
        let sequence = state.next_number(device);
        let (boot, stamped, series, fields) = (0, true, series.as_str(), Fields::of(&fields));
        let row = RowEntry { device, boot, sequence, stamped, series, ns, fields };
        submission.add(&Entry::EarlyRow(MACHINE, row))
    })?;
    Ok(end)
}

fn store(points: &Points) -> Store<impl FnMut(&[(String, i64)]) -> Outcome + use<>> {
    Store { points: Arc::clone(points), script: |_: &[(String, i64)]| Outcome::Confirmed }
}

fn times(points: &Points) -> Vec<i64> {
    points.lock().unwrap().iter().map(|(_, ns)| *ns).collect()
}

/// CPU time of a thread of this process, in clock ticks.
fn ticks_of(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let of = |stat: String| {
        let (name, rest) = stat.split_once(") ")?;
        let words: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        name.ends_with(thread).then_some(ticks(11)? + ticks(12)?)
    };
    stats.filter_map(of).sum()
}

#[test]
fn a_row_without_a_time_and_what_is_behind_it_wait_for_its_fix_at_rest() {
    let journal = journal();
    let points = Points::default();
    let running = Running::start(&journal, "early", store(&points));
    submit(&journal, "d", 0..3);
    begin(&journal);
    early(&journal, "d", 10, "x").unwrap();
    submit(&journal, "d", 3..6);
    until(|| points.lock().unwrap().len() == 3);
    let began = ticks_of("(sink-early");
    for ns in 6..40 {
        submit(&journal, "d", ns..ns + 1);
        std::thread::sleep(Duration::from_millis(10));
    }
    let ticks = ticks_of("(sink-early") - began;
    assert!(ticks < 10, "{ticks} ticks of CPU time for 34 commits that changed nothing");
    assert_eq!(times(&points), [0, 1, 2], "nothing passes it");
    fix(&journal);
    until(|| points.lock().unwrap().len() == 41);
    assert_eq!(times(&points)[..5], [0, 1, 2, OFFSET_NS + 10, 3]);
    until(|| ledger(&journal, "d", "early") == (41, 0));
    running.stop();
}

#[test]
fn every_sink_gets_the_same_time_in_every_attempt_and_every_life() {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    begin(&journal);
    for ns in 0..20 {
        early(&journal, "d", ns, "x").unwrap();
    }
    let running = Running::start(&journal, "first", store(&Points::default()));
    fix(&journal);
    until(|| ledger(&journal, "d", "first") == (20, 0));
    running.stop();
    // A second fix, as a gateway would make that has not heard of the first.
    commit(&journal, &[Entry::ClockFix(FixEntry { machine: MACHINE, offset_ns: 5, estimated: true })]);
    let (points, attempts) = (Points::default(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&attempts);
    let script = move |points: &[(String, i64)]| {
        let mut seen = seen.lock().unwrap();
        seen.push(points.to_vec());
        if seen.len() < 3 { retry() } else { Outcome::Confirmed }
    };
    // The next life reads from the disk.
    drop(journal);
    let journal = journal_in(&storage);
    journal.submit(Class::Internal, |_, s| s.add(&Entry::Forget("first"))).map(|_: ((), _)| ()).unwrap();
    let start = Entry::Sink(crate::journal::entry::SinkEntry { sink: "second", start: Offset(0) });
    commit(&journal, &[start]);
    let running = Running::start(&journal, "second", Store { points: Arc::clone(&points), script });
    until(|| points.lock().unwrap().len() == 20);
    assert_eq!(times(&points), (OFFSET_NS..OFFSET_NS + 20).collect::<Vec<_>>());
    let attempts = attempts.lock().unwrap();
    assert!(attempts[0] == attempts[1] && attempts[1] == attempts[2], "the same points again");
    running.stop();
}

#[test]
fn a_batch_keeps_to_the_fixes_that_were_known_when_it_began() {
    let journal = journal();
    submit(&journal, "d", 0..3);
    begin(&journal);
    let end = early(&journal, "d", 10, "x").unwrap();
    until(|| *journal.watermark().borrow() >= end);
    fix(&journal);
    let (mut frames, mut reader) = (Vec::new(), journal.reader(Offset(0)));
    while let Read::Frame(frame) = reader.next().unwrap() {
        frames.push(frame);
    }
    let mut batch = Batch::new(Audience::of_all("main"), Offset(0));
    let add = |batch: &mut Batch, fixes: &Arc<Fixes>| {
        let waits = frames.iter().any(|frame| batch.add(frame, fixes, 100).waits);
        (batch.points(), waits)
    };
    assert_eq!(add(&mut batch, &Arc::default()), (3, true));
    assert_eq!(add(&mut batch, &journal.fixes()), (3, true), "what it has may be under way");
    assert_eq!(batch.to(), Offset(end.0 - 1), "the next one begins there");
    let mut next = Batch::new(Audience::of_all("main"), batch.to());
    assert_eq!(add(&mut next, &Arc::default()), (0, true));
    assert_eq!(add(&mut next, &journal.fixes()), (1, false), "an empty one takes the latest");
}

#[test]
fn a_journal_full_of_rows_without_a_time_does_what_is_configured_and_declares_what_goes() {
    for when_full in [WhenFull::Refuse, WhenFull::DropOldest] {
        let options = sized(2 << 20, when_full);
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &options).unwrap().0;
        let points = Points::default();
        let running = Running::start(&journal, "main", store(&points));
        begin(&journal);
        let text = "x".repeat(1_000);
        let (mut rows, mut full) = (0, 0);
        while rows < 4_000 && full < 200 {
            match early(&journal, "d", rows, &text) {
                Ok(_) => (rows, full) = (rows + 1, 0),
                Err(Refused::Full | Refused::Busy) => {
                    full += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(rows == 4_000, when_full == WhenFull::DropOldest, "{rows} rows");
        assert_eq!(times(&points), [0_i64; 0], "nothing is delivered before its fix");
        fix(&journal);
        until(|| fate(&journal, "d")[3] == 0);
        let [confirmed, _, evicted, _] = fate(&journal, "d");
        assert_eq!((confirmed + evicted, evicted > 1_000), (rows as u64, when_full == WhenFull::DropOldest));
        running.stop();
        let stored = points.lock().unwrap().clone();
        let told: Vec<_> = stored.iter().filter(|(series, _)| series.starts_with("forebay_gap")).collect();
        assert_eq!(told.is_empty(), when_full == WhenFull::Refuse);
        let range = OFFSET_NS..OFFSET_NS + rows;
        assert!(stored.iter().all(|(_, ns)| range.contains(ns)), "rows and gaps have their time: {told:?}");
    }
}
