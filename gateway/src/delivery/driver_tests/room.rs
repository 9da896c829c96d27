//! Delivery while the journal is full, nearly full, or its submissions are large.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::config::WhenFull;
use crate::delivery::progress::Progress;
use crate::journal::entry::{Counts, DeviceEntry, LetterEntry, LettersEntry};
use crate::journal::memory::{CallKind, Fault};
use crate::sink::Position;

/// Longest time without any progress; only a failing test waits so long.
const STANDSTILL: Duration = Duration::from_secs(20);

/// Cannot be opened.
struct Broken;

impl Sink for Broken {
    async fn write(&mut self, _: &Part<'_>) -> Outcome {
        panic!("it never said where it stands")
    }

    async fn position(&mut self) -> Result<Position, Outcome> {
        Err(Outcome::Hold { reason: "no database".into() })
    }
}

pub(super) fn good() -> Store<impl FnMut(&[(String, i64)]) -> Outcome> {
    Store { points: Points::default(), script: |_: &[(String, i64)]| Outcome::Confirmed }
}

/// Refuses half of what [`fill`] submits.
fn picky() -> Store<impl FnMut(&[(String, i64)]) -> Outcome> {
    let script = |points: &[(String, i64)]| match points.iter().any(|(series, _)| series.starts_with("bad")) {
        true => Outcome::Rejected { reason: "400: field type conflict".into() },
        false => Outcome::Confirmed,
    };
    Store { points: Points::default(), script }
}

pub(super) fn sized(max_bytes: u64, when_full: WhenFull) -> Options {
    Options { when_full, ..Options::sized(max_bytes) }
}

pub(super) fn open(max_bytes: u64, when_full: WhenFull) -> Journal {
    Journal::open(Arc::new(MemoryStorage::new()), &sized(max_bytes, when_full)).unwrap().0
}

pub(super) fn row(
    journal: &Journal,
    class: Class,
    device: &str,
    boot: u32,
    series: &str,
) -> Result<Offset, Refused> {
    let fields = [("v".to_owned(), Value::Float(1.5))];
    let submitted: Result<((), Offset), Refused> = journal.submit(class, |state, submission| {
        let next = state.device(device).and_then(|device| device.boot(boot)).map_or(0, |boot| boot.next);
        let sequence = if boot == 0 { state.next_number(device) } else { next };
        let fields = Fields::of(&fields);
        submission.add(&Entry::Row(RowEntry {
            device,
            boot,
            sequence,
            stamped: false,
            series,
            ns: sequence as i64,
            fields,
        }))
    });
    submitted.map(|(_, end)| end)
}

/// Fills a journal with rows of a native device for sinks that do not run yet; how many there are.
fn fill(journal: &Journal, sinks: &[&str]) -> u64 {
    for sink in sinks {
        journal.register_sink(sink).unwrap();
    }
    let device = DeviceEntry { device: "e6614104", name: "boiler", boot: 7, first: 0 };
    let begun: Result<_, Refused> =
        journal.submit(Class::Native, |_, submission| submission.add(&Entry::Device(device)));
    begun.unwrap();
    let mut rows = 0;
    loop {
        let series = ["bad,device=boiler,gateway=barn", "good,device=boiler,gateway=barn"][rows as usize % 2];
        match row(journal, Class::Native, "e6614104", 7, series) {
            Ok(_) => rows += 1,
            Err(Refused::Busy) => std::thread::yield_now(),
            Err(Refused::Full) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // What is durable is in segments that are known.
    until(|| *journal.watermark().borrow() == journal.usage().end);
    rows
}

/// Submits a row of a foreign device as soon as the journal takes it.
pub(super) fn row_in_time(journal: &Journal, device: &str) -> Offset {
    loop {
        match row(journal, Class::Foreign, device, 0, "m") {
            Ok(end) => return end,
            Err(Refused::Busy) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Waits until sinks have got everything, as long as they get on.
#[track_caller]
pub(super) fn until_delivered(journal: &Journal, sinks: &[&str]) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let owed = journal.with_state(|state| sinks.iter().map(|sink| state.owed(sink)).sum());
        if owed == 0 {
            return;
        }
        if owed < least {
            (least, since) = (owed, Instant::now());
        }
        assert!(since.elapsed() < STANDSTILL, "{owed} rows do not get on: {:?}", journal.usage());
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn until_durable(journal: &Journal, end: Offset) {
    until(|| *journal.watermark().borrow() >= end);
}

#[test]
fn a_batch_of_more_devices_than_a_submission_can_count_is_counted_in_slices() {
    let journal = open(64 << 20, WhenFull::Auto);
    journal.register_sink("main").unwrap();
    let mut end = Offset(0);
    for n in 0..3_000 {
        end = row_in_time(&journal, &format!("{n:0200}"));
    }
    until_durable(&journal, end);
    let running = Running::start_with(&journal, "main", good(), 5_000, MemoryStorage::new());
    until_delivered(&journal, &["main"]);
    running.stop();
    let mut cursors = entries(&journal);
    cursors.retain(|entry| entry.starts_with("cursor"));
    cursors.dedup();
    assert!(cursors.len() == 2 && cursors.last() == Some(&format!("cursor {end}")), "{cursors:?}");
}

#[test]
fn a_full_journal_is_emptied_by_small_batches() {
    let journal = open(2 << 20, WhenFull::Refuse);
    let rows = fill(&journal, &["main"]);
    let running = Running::start_with(&journal, "main", good(), 3, MemoryStorage::new());
    until_delivered(&journal, &["main"]);
    assert_eq!(ledger(&journal, "e6614104", "main"), (rows, 0));
    running.stop();
}

#[test]
fn a_full_journal_is_emptied_though_every_other_row_is_refused() {
    for sinks in [&["main"][..], &["main", "second"]] {
        let journal = open(2 << 20, WhenFull::Refuse);
        let rows = fill(&journal, sinks);
        let start = |sink: &&str| Running::start_with(&journal, sink, picky(), 1_000, MemoryStorage::new());
        let running: Vec<Running> = sinks.iter().map(start).collect();
        until_delivered(&journal, sinks);
        for sink in sinks {
            assert_eq!(ledger(&journal, "e6614104", sink), (rows / 2, rows - rows / 2));
        }
        running.into_iter().for_each(|running| drop(running.stop()));
    }
}

#[test]
fn a_backlog_beyond_a_limit_that_was_lowered_gets_out() {
    let storage = MemoryStorage::new();
    let open =
        |max_bytes| Journal::open(Arc::new(storage.clone()), &sized(max_bytes, WhenFull::Refuse)).unwrap().0;
    let journal = open(16 << 20);
    let rows = fill(&journal, &["main"]);
    journal.close();
    drop(journal);
    let journal = open(2 << 20);
    let running = Running::start_with(&journal, "main", good(), 50, MemoryStorage::new());
    until_delivered(&journal, &["main"]);
    assert_eq!(ledger(&journal, "e6614104", "main"), (rows, 0));
    running.stop();
}

#[test]
fn while_the_journal_is_tight_what_is_confirmed_waits_for_the_end_of_a_segment_or_for_the_stop() {
    let journal = open(2 << 20, WhenFull::Refuse);
    fill(&journal, &["main"]);
    let cursor = journal.with_state(|state| state.cursor("main"));
    let first = journal.segment_end(cursor.unwrap()).unwrap();
    let points = Points::default();
    let mut left = 5;
    let script = move |_: &[(String, i64)]| {
        left -= 1;
        if left >= 0 { Outcome::Confirmed } else { retry() }
    };
    let store = Store { points: Arc::clone(&points), script };
    // Few rows: where each was a commit of its own, a segment has hardly more than 200.
    let running = Running::start_with(&journal, "main", store, 20, MemoryStorage::new());
    until(|| running.status.snapshot().state == Condition::Retrying);
    assert_eq!(journal.with_state(|state| state.cursor("main")), cursor, "no segment is freed yet");
    running.stop();
    assert_eq!(ledger(&journal, "e6614104", "main"), (100, 0));
    let cursor = journal.with_state(|state| state.cursor("main"));
    assert!(cursor < Some(first), "{cursor:?} {first}");

    let seen = journal.clone();
    let script = move |_: &[(String, i64)]| match seen.with_state(|state| state.cursor("main") >= Some(first))
    {
        true => retry(),
        false => Outcome::Confirmed,
    };
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    until(|| running.status.snapshot().state == Condition::Retrying);
    running.stop();
}

/// Submits rows one by one, and waits where there is no room.
fn take_in<'a>(journal: &Journal, rows: u64, whose: impl Fn(u64) -> (&'a str, u32)) -> Vec<Offset> {
    let (mut ends, mut since) = (Vec::new(), Instant::now());
    while (ends.len() as u64) < rows {
        let (device, boot) = whose(ends.len() as u64);
        match row(journal, Class::Foreign, device, boot, "m,device=d,site=north,building=4,room=cellar") {
            Ok(end) => {
                ends.push(end);
                since = Instant::now();
            }
            Err(Refused::Full | Refused::Busy) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other}"),
        }
        assert!(since.elapsed() < STANDSTILL, "no room after {} rows: {:?}", ends.len(), journal.usage());
    }
    ends
}

#[test]
fn a_store_that_cannot_say_where_it_stands_stops_nobody() {
    for when_full in [WhenFull::DropOldest, WhenFull::Auto] {
        let journal = open(2 << 20, when_full);
        let running = Running::start(&journal, "main", good());
        let broken = Running::start(&journal, "sqlite", Broken);
        take_in(&journal, 40_000, |_| ("d", 0));
        assert_eq!(broken.status.snapshot().state, Condition::Holding);
        until_delivered(&journal, &["main"]);
        let [confirmed, damaged, evicted, _] = fate(&journal, "d");
        // On a busy machine it may be too slow for all of it.
        assert_eq!((confirmed + evicted, damaged), (40_000, 0));
        assert!(confirmed > 1_000, "{confirmed} rows");
        running.stop();
        broken.stop();
    }
}

#[test]
fn a_slow_store_and_evictions_account_for_each_row_once() {
    let journal = open(2 << 20, WhenFull::DropOldest);
    let mut writes = 0;
    let script = move |points: &[(String, i64)]| {
        writes += 1;
        std::thread::sleep(Duration::from_millis(4));
        match points.iter().find(|(series, ns)| series.starts_with('m') && ns % 997 == 5) {
            Some(_) => Outcome::Rejected { reason: "400: unable to parse".into() },
            None if writes % 7 == 0 => Outcome::Retry { reason: "503".into(), after: None, unknown: false },
            None => Outcome::Confirmed,
        }
    };
    let running = Running::start(&journal, "main", Store { points: Points::default(), script });
    take_in(&journal, 200, |_| ("d", 0));
    until(|| ledger(&journal, "d", "main").1 == 1);
    take_in(&journal, 39_800, |_| ("d", 0));
    running.stop();
    let running = Running::start_with(&journal, "main", good(), 1_000, MemoryStorage::new());
    until_delivered(&journal, &["main"]);
    running.stop();
    let (confirmed, rejected) = ledger(&journal, "d", "main");
    let [_, damaged, evicted, owed] = fate(&journal, "d");
    assert_eq!((confirmed + rejected + evicted, damaged, owed), (40_000, 0, 0));
    assert!(confirmed > 0 && rejected > 0 && evicted > 0, "{confirmed} {rejected} {evicted}");
}

#[test]
fn refused_points_that_cannot_be_kept_are_waited_for_and_then_counted() {
    let journal = journal();
    let letters = MemoryStorage::new();
    letters.plan(Fault::for_ever(CallKind::Create, 0, io::ErrorKind::PermissionDenied));
    let held = Arc::new(AtomicBool::new(false));
    let script = |points: &[(String, i64)]| match points.iter().any(|(_, ns)| *ns == 3) {
        true => Outcome::Rejected { reason: "400: unable to parse".into() },
        false => Outcome::Confirmed,
    };
    submit(&journal, "d", 0..10);
    let store = Store { points: Points::default(), script };
    let running = Running::start_with(&journal, "main", store, 100, letters);
    until(|| {
        let status = running.status.snapshot();
        let said = status.last_error.is_some_and(|error| error.contains("cannot keep dead letters"));
        held.fetch_or(status.state == Condition::Holding && said, Ordering::Relaxed);
        journal.with_state(|state| state.owed("main")) == 0
    });
    assert!(held.load(Ordering::Relaxed), "the status says so meanwhile");
    let unkept = journal.with_state(|state| {
        let device = state.device("d").unwrap();
        state.ledgers(device).next().unwrap().1.gaps.of(Cause::Unkept)
    });
    assert_eq!((ledger(&journal, "d", "main"), unkept), ((9, 0), 1));
    running.stop();
}

#[test]
fn what_the_journal_can_never_take_is_not_submitted_again() {
    let journal = journal();
    let (mut driver, _stop) = driver_of(&journal, &MemoryStorage::new());
    let fields = Fields::of(&[]);
    driver.held = Progress::new(&"main".into(), usize::MAX);
    for n in 0..10_000 {
        let device = &*format!("{n:0200}");
        let row =
            RowEntry { device, boot: 0, sequence: 0, stamped: false, series: "m,device=d", ns: 5, fields };
        assert!(driver.held.confirm(&row));
        driver.held.pass(Offset(1));
    }
    assert_eq!(driver.try_submit_held(), Err(Refused::Failed));
    assert!(driver.held.is_empty() && driver.has_failed(), "delivery goes on without the journal");
    // A cursor behind what was not counted would make the ledger wrong.
    driver.held.pass(Offset(2));
    assert_eq!(driver.try_submit_held(), Err(Refused::Failed));
    assert_eq!((driver.try_submit_held(), driver.journaled), (Ok(None), Offset(0)));
}

#[test]
fn a_journal_gets_on_when_nothing_in_it_is_a_point() {
    const LETTERS: u64 = 1000;
    let journal = open(2 << 20, WhenFull::Refuse);
    let running = Running::start(&journal, "main", good());
    let body = [b'{'; 8_000];
    let letter = LetterEntry {
        device: "d",
        rows: 1,
        ns: 5,
        origin: "sensors/d",
        reason: "no JSON",
        body_bytes: body.len() as u64,
        body: &body,
    };
    let submit = |entry: &Entry<'_>| {
        let since = Instant::now();
        loop {
            let submitted: Result<_, Refused> =
                journal.submit(Class::Foreign, |_, submission| submission.add(entry));
            match submitted {
                Ok(((), end)) => return end,
                Err(Refused::Busy | Refused::Full) if since.elapsed() < STANDSTILL => {
                    std::thread::yield_now();
                }
                Err(other) => panic!("{other}: {:?}", journal.usage()),
            }
        }
    };
    for _ in 0..LETTERS {
        let to = submit(&Entry::Letter(letter));
        submit(&Entry::Letters(LettersEntry { to, unkept: false, rows: Counts::of(&[("d".into(), 1)]) }));
    }
    running.stop();
    let further = journal.usage().end.0 - 2 * LETTERS;
    assert!(further < LETTERS / 10, "{further} cursors");
}
