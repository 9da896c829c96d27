//! The driver between a real journal and a store that misbehaves.

mod damage;
mod early;
mod eviction;
mod fairness;
mod live_first;
mod overload;
mod position;
mod prepared;
mod replays;
mod room;
mod services;
mod versions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::driver::{Driver, Settings, spawn};
use super::status::{Condition, SinkStatus};
use crate::config::Service;
use crate::dead_letters::{DeadLetters, Found, MAX_BYTES_LEAST, Reader};
use crate::journal::entry::{Cause, Entry, Fields, RowEntry};
use crate::journal::memory::MemoryStorage;
use crate::journal::{Class, Journal, Options, Read, Refused};
use crate::record::{Offset, Value};
use crate::sink::sqlite::{Limits, Sqlite};
use crate::sink::{Outcome, Part, Sink};

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

type Points = Arc<Mutex<Vec<(String, i64)>>>;

/// Keeps what it confirms, and does as it is told by a script that sees each write.
struct Store<F> {
    points: Points,
    script: F,
}

impl<F: FnMut(&[(String, i64)]) -> Outcome> Sink for Store<F> {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        let points: Vec<_> = part.points().map(|point| (point.series.to_owned(), point.ns)).collect();
        let outcome = (self.script)(&points);
        if outcome == Outcome::Confirmed {
            self.points.lock().unwrap().extend(points);
        }
        outcome
    }
}

/// Never answers.
struct Silence;

impl Sink for Silence {
    async fn write(&mut self, _: &Part<'_>) -> Outcome {
        std::future::pending().await
    }
}

struct Running {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
    status: Arc<SinkStatus>,
    letters: MemoryStorage,
}

impl Running {
    /// What the dead letters hold: offset, reason and body of each.
    fn letters(&self) -> Vec<(u64, String, String)> {
        let read = Reader::open(Arc::new(self.letters.clone())).unwrap().map(|found| match found.unwrap() {
            Found::Letter(letter) => {
                let body = String::from_utf8_lossy(&letter.body).into_owned();
                (letter.offset.0, letter.reason.into(), body)
            }
            Found::Damage(damage) => panic!("{damage:?}"),
        });
        read.collect()
    }

    fn start<S: Sink + Send + 'static>(journal: &Journal, name: &str, sink: S) -> Running {
        Running::start_with(journal, name, sink, 100, MemoryStorage::new())
    }

    fn start_with<S: Sink + Send + 'static>(
        journal: &Journal,
        name: &str,
        sink: S,
        batch_points: usize,
        letters: MemoryStorage,
    ) -> Running {
        let settings = settings(name, batch_points, &letters);
        let (stop, stopped) = watch::channel(false);
        let status = Arc::new(SinkStatus::default());
        let thread = spawn(journal.clone(), sink, settings, Arc::clone(&status), stopped).unwrap();
        Running { thread, stop, status, letters }
    }

    fn stop(self) -> Arc<SinkStatus> {
        self.stop.send(true).unwrap();
        self.thread.join().unwrap();
        assert_eq!(self.status.snapshot().state, Condition::Stopped);
        self.status
    }
}

fn settings(name: &str, batch_points: usize, letters: &MemoryStorage) -> Settings {
    Settings {
        name: name.to_owned(),
        batch_points,
        linger: Duration::from_millis(5),
        drain: Duration::from_millis(300),
        dead_letters: Arc::new(DeadLetters::open(Arc::new(letters.clone()), MAX_BYTES_LEAST).unwrap()),
        service: Service::default(),
        gap_tags: vec![("gateway".to_owned(), "barn".to_owned())],
        horizon: None,
        seed: 7,
    }
}

/// A driver that does not run, and what ends it when dropped.
fn driver_of(journal: &Journal, letters: &MemoryStorage) -> (Driver<Silence>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let settings = settings("main", 100, letters);
    (Driver::new(journal.clone(), Silence, settings, Arc::default(), stopped).unwrap(), stop)
}

fn journal() -> Journal {
    journal_in(&MemoryStorage::new())
}

fn journal_in(storage: &MemoryStorage) -> Journal {
    let options = Options::sized(16 << 20);
    Journal::open(Arc::new(storage.clone()), &options).unwrap().0
}

/// Submits one row for each time, of one device, and waits until all are durable.
fn submit(journal: &Journal, device: &str, times: std::ops::Range<i64>) {
    let fields = [("v".to_owned(), Value::Integer(1))];
    let series = format!("m,device={device}");
    let mut end = Offset(0);
    for ns in times {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |state, submission| {
            submission.add(&Entry::Row(RowEntry {
                device,
                boot: 0,
                sequence: state.next_number(device),
                stamped: false,
                series: &series,
                ns,
                fields: Fields::of(&fields),
            }))
        });
        end = submitted.unwrap().1;
    }
    until(|| *journal.watermark().borrow() >= end);
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Rows of one device by what became of them in the sink "main": confirmed, damaged, evicted, still owed.
fn fate(journal: &Journal, device: &str) -> [u64; 4] {
    journal.with_state(|state| {
        let device = state.device(device).unwrap();
        let (_, ledger) = state.ledgers(device).next().unwrap();
        let lost = |cause| ledger.gaps.of(cause);
        let owed = device.rows - ledger.settled();
        [ledger.confirmed, lost(Cause::Damaged), lost(Cause::Evicted), owed]
    })
}

/// Confirmed rows and rows lost to this sink, of one device.
fn ledger(journal: &Journal, device: &str, sink: &str) -> (u64, u64) {
    journal.with_state(|state| {
        let device = state.device(device).unwrap();
        let (_, ledger) = state.ledgers(device).find(|(name, _)| *name == sink).unwrap();
        (ledger.confirmed, ledger.gaps.of(Cause::Rejected))
    })
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "no answer".into(), after: None, unknown: true }
}

#[test]
fn everything_arrives_once_in_order_and_in_the_ledger() {
    let journal = journal();
    let points = Points::default();
    let largest = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&largest);
    let script = move |points: &[(String, i64)]| {
        let mut largest = seen.lock().unwrap();
        *largest = points.len().max(*largest);
        Outcome::Confirmed
    };
    submit(&journal, "a", 0..1000);
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    submit(&journal, "b", 0..500);
    until(|| points.lock().unwrap().len() >= 1500);
    until(|| ledger(&journal, "b", "main") == (500, 0));
    assert_eq!(ledger(&journal, "a", "main"), (1000, 0));
    let times: Vec<i64> = points.lock().unwrap().iter().map(|(_, ns)| *ns).collect();
    assert_eq!(times, (0..1000).chain(0..500).collect::<Vec<_>>());
    assert_eq!(*largest.lock().unwrap(), 100, "batches are cut to their size");
    let status = running.stop().snapshot();
    assert_eq!((status.confirmed_rows, status.unconfirmed_rows, status.retries), (1500, 0, 0));
}

#[test]
fn a_refused_row_becomes_a_gap_of_its_sink_and_of_no_other() {
    let journal = journal();
    let (strict, lax) = (Points::default(), Points::default());
    let script = |points: &[(String, i64)]| match points.iter().any(|(_, ns)| ns % 50 == 7) {
        true => Outcome::Rejected { reason: "400: partial write".into() },
        false => Outcome::Confirmed,
    };
    let running = Running::start(&journal, "strict", Store { points: Arc::clone(&strict), script });
    let other = Store { points: Arc::clone(&lax), script: |_: &[(String, i64)]| Outcome::Confirmed };
    let other = Running::start(&journal, "lax", other);
    submit(&journal, "d", 0..150);
    until(|| ledger(&journal, "d", "strict") == (147, 3));
    until(|| ledger(&journal, "d", "lax") == (150, 0));
    let count = |points: &Points| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (series, _) in points.lock().unwrap().iter() {
            *counts.entry(series.clone()).or_default() += 1;
        }
        counts
    };
    let refused: Vec<(String, String)> =
        running.letters().into_iter().map(|(_, reason, body)| (reason, body)).collect();
    let letter = |ns| ("400: partial write".to_owned(), format!("m,device=d v=1i {ns}\n"));
    let rows: Vec<_> = refused.iter().filter(|(_, body)| body.starts_with("m,")).cloned().collect();
    assert_eq!(rows, [letter(7), letter(57), letter(107)]);
    // The gaps' points have the times of the refused rows; the strict store refuses those as well, and that is that.
    assert_eq!(count(&strict), BTreeMap::from([("m,device=d".to_owned(), 147)]));
    assert_eq!(running.stop().snapshot().rejected_rows, 3);
    other.stop();
    assert_eq!(count(&lax), BTreeMap::from([("m,device=d".to_owned(), 150)]));
}

#[test]
fn a_gap_reaches_the_store_that_refused_its_row() {
    let journal = journal();
    let points = Points::default();
    let script = |points: &[(String, i64)]| match points
        .iter()
        .any(|(series, ns)| series.starts_with('m') && ns % 10 == 3)
    {
        true => Outcome::Rejected { reason: "400: unable to parse".into() },
        false => Outcome::Confirmed,
    };
    submit(&journal, "d", 0..20);
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    until(|| points.lock().unwrap().len() == 19);
    let gaps: Vec<_> =
        points.lock().unwrap().iter().filter(|(series, _)| series.starts_with("forebay")).cloned().collect();
    let series = "forebay_gap,cause=rejected,device=d,gateway=barn".to_owned();
    assert_eq!(gaps, [(series, 3)], "one point tells of both");
    assert_eq!(ledger(&journal, "d", "main"), (18, 2));
    running.stop();
}

#[test]
fn an_outage_delays_and_loses_nothing() {
    let journal = journal();
    let points = Points::default();
    let mut failures = 3;
    let script = move |_: &[(String, i64)]| {
        failures -= 1;
        if failures >= 0 { retry() } else { Outcome::Confirmed }
    };
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    submit(&journal, "d", 0..250);
    until(|| ledger(&journal, "d", "main") == (250, 0));
    assert_eq!(points.lock().unwrap().len(), 250);
    let status = running.stop().snapshot();
    assert_eq!((status.retries, status.last_error.as_deref()), (3, Some("no answer")));
}

#[test]
fn a_stop_during_an_outage_is_prompt_and_the_next_start_goes_on() {
    let journal = journal();
    let points = Points::default();
    let store = Store { points: Arc::clone(&points), script: |_: &[(String, i64)]| retry() };
    let running = Running::start(&journal, "main", store);
    submit(&journal, "d", 0..30);
    until(|| running.status.snapshot().state == Condition::Retrying);
    assert_eq!(running.status.unconfirmed(), [("d".into(), 30)]);
    running.stop();
    assert_eq!(ledger(&journal, "d", "main"), (0, 0));
    let store = Store { points: Arc::clone(&points), script: |_: &[(String, i64)]| Outcome::Confirmed };
    let running = Running::start(&journal, "main", store);
    until(|| ledger(&journal, "d", "main") == (30, 0));
    running.stop();
    assert_eq!(points.lock().unwrap().len(), 30);
}

#[test]
fn a_stop_delivers_the_rest_and_does_not_wait_for_a_store_that_is_silent() {
    let journal = journal();
    let points = Points::default();
    let store = Store { points: Arc::clone(&points), script: |_: &[(String, i64)]| Outcome::Confirmed };
    submit(&journal, "d", 0..1234);
    Running::start(&journal, "main", store).stop();
    assert_eq!(points.lock().unwrap().len(), 1234, "what is committed is delivered before the end");

    let running = Running::start(&journal, "other", Silence);
    submit(&journal, "e", 0..1);
    let began = Instant::now();
    running.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_embedded_store_brings_the_ledger_up_to_date_after_a_crash() {
    let journal = journal();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("readings.sqlite");
    let sqlite = || {
        let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
        Sqlite::new(path.clone(), "this journal".to_owned(), limits, Box::new(|| None))
    };
    let count = || -> i64 {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.query_row("SELECT count(*) FROM points", [], |row| row.get(0)).unwrap()
    };
    submit(&journal, "d", 0..300);
    Running::start(&journal, "sqlite", sqlite()).stop();
    assert_eq!((count(), ledger(&journal, "d", "sqlite")), (300, (300, 0)));

    // A crash between the store's transaction and the journal's cursor: the store is ahead.
    submit(&journal, "d", 300..350);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE delivery SET next = next + 1000", []).unwrap();
    Running::start(&journal, "sqlite", sqlite()).stop();
    assert_eq!((count(), ledger(&journal, "d", "sqlite")), (350, (350, 0)));

    // The file is lost: what the journal still has comes again, and is not counted again.
    drop(connection);
    std::fs::remove_file(&path).unwrap();
    submit(&journal, "d", 350..360);
    let status = Running::start(&journal, "sqlite", sqlite()).stop();
    let told = status.snapshot().last_error;
    assert!(told.is_some_and(|told| told.contains("lacks what it had confirmed")));
    assert_eq!((count(), ledger(&journal, "d", "sqlite")), (360, (360, 0)));
}

#[test]
fn a_batch_that_nobody_wants_is_given_up_row_by_row() {
    let journal = journal();
    let points = Points::default();
    let script = |points: &[(String, i64)]| match points.iter().any(|(series, _)| series == "m,device=bad") {
        true => Outcome::Rejected { reason: "400: unable to parse".into() },
        false => Outcome::Confirmed,
    };
    submit(&journal, "bad", 0..45);
    submit(&journal, "bad", 0..45);
    submit(&journal, "good", 0..60);
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    until(|| ledger(&journal, "bad", "main") == (0, 90));
    until(|| ledger(&journal, "good", "main") == (60, 0));
    running.stop();
    let stored = points.lock().unwrap();
    assert_eq!(stored.iter().filter(|(series, _)| series == "m,device=good").count(), 60);
    let gaps: Vec<i64> =
        stored.iter().filter(|(series, _)| series.starts_with("forebay")).map(|(_, ns)| *ns).collect();
    assert!(
        gaps.len() < 90 && gaps.is_sorted_by(|a, b| a < b),
        "a run a gap, none on top of another: {gaps:?}"
    );
}

#[test]
fn no_batch_is_sent_before_the_cursor_behind_the_last_one_is_durable() {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    let points = Points::default();
    let (disk, watched) = (storage.clone(), journal.clone());
    let mut writes = 0;
    let script = move |_: &[(String, i64)]| {
        writes += 1;
        if writes == 1 {
            disk.faults(|faults| faults.hold_syncs = true);
        } else {
            let usage = watched.usage();
            assert_eq!(usage.watermark, usage.end, "write {writes} left before its time");
        }
        Outcome::Confirmed
    };
    submit(&journal, "d", 0..200);
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    storage.wait_until_held();
    // Time enough for a driver that does not wait to betray itself.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(points.lock().unwrap().len(), 100);
    storage.faults(|faults| faults.hold_syncs = false);
    until(|| ledger(&journal, "d", "main") == (200, 0));
    running.stop();
}

#[test]
fn delivery_goes_on_without_cursors_when_the_journal_has_failed() {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    let points = Points::default();
    let disk = storage.clone();
    let script = move |_: &[(String, i64)]| {
        disk.faults(|faults| faults.fail_syncs = true);
        Outcome::Confirmed
    };
    submit(&journal, "d", 0..250);
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    until(|| points.lock().unwrap().len() == 250);
    running.stop();
}

/// What sinks have written into a journal, in words.
fn entries(journal: &Journal) -> Vec<String> {
    let mut reader = journal.reader(Offset(0));
    let mut words = Vec::new();
    loop {
        match reader.next().unwrap() {
            Read::Frame(frame) => {
                words.extend(frame.entries().filter_map(|(_, entry)| match entry.unwrap() {
                    Entry::Gap(gap) => Some(format!("gap {} of {}", gap.cause.as_str(), gap.count)),
                    Entry::GapAgain(_) => Some("gap again".to_owned()),
                    Entry::Skip(skip) => Some(format!("skip {}", skip.to)),
                    Entry::Cursor(cursor) => Some(format!("cursor {}", cursor.next)),
                    _ => None,
                }));
            }
            Read::Damaged { .. } => {}
            Read::Wait => return words,
        }
    }
}
