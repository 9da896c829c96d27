//! Fresh rows before a backlog.

use std::collections::HashSet;

use super::room::{good, row, sized, until_delivered};
use super::*;
use crate::config::WhenFull;

const BACKLOG: i64 = 3_000;

fn start(journal: &Journal, sink: impl Sink + Send + 'static) -> Running {
    let letters = MemoryStorage::new();
    let service = Service { live_first: true, ..Service::default() };
    let settings = Settings { service, ..settings("main", 100, &letters) };
    let (stop, stopped) = watch::channel(false);
    let status = Arc::new(SinkStatus::default());
    let thread = spawn(journal.clone(), sink, settings, Arc::clone(&status), stopped).unwrap();
    Running { thread, stop, status, letters }
}

fn is_of(device: &str, point: &(String, i64)) -> bool {
    point.0 == format!("m,device={device}")
}

/// A store that takes a backlog, and in whose first writes batches of fresh rows come in.
fn with_fresh<F: FnMut(&[(String, i64)]) -> Outcome>(
    journal: &Journal,
    (writes, rows): (i64, i64),
    mut script: F,
) -> Store<impl FnMut(&[(String, i64)]) -> Outcome + use<F>> {
    let (journal, mut written) = (journal.clone(), 0);
    let script = move |points: &[(String, i64)]| {
        if written < writes {
            submit(&journal, "new", written * rows..(written + 1) * rows);
        }
        written += 1;
        script(points)
    };
    Store { points: Points::default(), script }
}

#[test]
fn fresh_rows_take_turns_with_a_backlog_and_nothing_is_sent_twice() {
    let journal = journal();
    submit(&journal, "old", 0..BACKLOG);
    let writes = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&writes);
    let store = with_fresh(&journal, (4, 100), move |points| {
        seen.lock().unwrap().extend(points.last().map(|(series, _)| series.clone()));
        Outcome::Confirmed
    });
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    until_delivered(&journal, &["main"]);
    let status = running.stop();
    let points = points.lock().unwrap().clone();
    // A fresh batch behind each of the backlog, as long as there are any. What went ahead first begins with the end of the
    // backlog.
    let batches = writes.lock().unwrap().clone();
    let (old, new) = ("m,device=old", "m,device=new");
    // Which side begins depends on what ends the journal.
    let first = batches.iter().position(|of| *of == new).unwrap();
    assert!(first <= 2 && batches[first..first + 5] == [new, old, new, old, new], "{batches:?}");
    assert_eq!(points.len() as i64, BACKLOG + 400, "nothing is there twice");
    assert_eq!(points.iter().collect::<HashSet<_>>().len(), points.len());
    assert_eq!((ledger(&journal, "old", "main"), ledger(&journal, "new", "main")), ((3_000, 0), (400, 0)));
    assert_eq!(status.snapshot().confirmed_rows, 3_400);
}

#[test]
fn more_rows_than_the_turns_take_leave_no_side_without_a_turn() {
    let journal = journal();
    submit(&journal, "old", 0..BACKLOG);
    let writes = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&writes);
    let store = with_fresh(&journal, (6, 1_000), move |points| {
        seen.lock().unwrap().extend(points.last().map(|(series, _)| series.clone()));
        Outcome::Confirmed
    });
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    until_delivered(&journal, &["main"]);
    running.stop();
    let points = points.lock().unwrap().clone();
    // What went ahead first begins with the end of the backlog.
    let batches = writes.lock().unwrap().clone();
    let (old, new) = ("m,device=old", "m,device=new");
    // Which side begins depends on what ends the journal.
    let first = batches.iter().position(|of| *of == new).unwrap();
    assert!(first <= 2 && batches[first..first + 5] == [new, old, new, old, new], "{batches:?}");
    assert_eq!(points.len() as i64, BACKLOG + 6_000);
    assert_eq!(points.iter().collect::<HashSet<_>>().len(), points.len());
}

#[test]
fn without_the_key_rows_go_in_order() {
    let journal = journal();
    submit(&journal, "old", 0..BACKLOG);
    let store = with_fresh(&journal, (4, 100), |_| Outcome::Confirmed);
    let points = Arc::clone(&store.points);
    let running = Running::start(&journal, "main", store);
    until_delivered(&journal, &["main"]);
    running.stop();
    let points = points.lock().unwrap().clone();
    assert!(points[..BACKLOG as usize].iter().all(|point| is_of("old", point)));
}

#[test]
fn a_bad_fresh_row_is_isolated_in_its_turn_and_its_neighbours_are_not_sent_again() {
    let journal = journal();
    submit(&journal, "old", 0..BACKLOG);
    let store = with_fresh(&journal, (2, 100), |points| {
        match points.iter().any(|point| is_of("new", point) && point.1 == 133) {
            true if points.len() == 1 => Outcome::RejectedAll { reason: "400: bad".into() },
            true => Outcome::Rejected { reason: "400: bad".into() },
            false => Outcome::Confirmed,
        }
    });
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    until_delivered(&journal, &["main"]);
    let letters = running.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].2.contains("133"), "{letters:?}");
    running.stop();
    assert_eq!(ledger(&journal, "new", "main"), (199, 1));
    let mut points = points.lock().unwrap().clone();
    points.retain(|(series, _)| !series.starts_with("forebay_gap"));
    assert_eq!(points.iter().collect::<HashSet<_>>().len() as i64, BACKLOG + 199);
    // Of the halves that were not sent in eight requests, what is stored is not known by number.
    let twice = points.len() as i64 - (BACKLOG + 199);
    assert!((0..100).contains(&twice), "{twice} points were sent twice");
}

#[test]
fn a_sink_that_fails_ahead_gets_it_later_and_a_restart_forgets_only_what_went_ahead() {
    let storage = MemoryStorage::new();
    let journal = journal_in(&storage);
    submit(&journal, "old", 0..BACKLOG);
    // It takes the first fresh batch, fails at the second, and then altogether.
    let (mut fresh, mut written) = (0, 0);
    let store = with_fresh(&journal, (2, 100), move |points| {
        written += 1;
        fresh += u64::from(points.last().is_some_and(|point| is_of("new", point)));
        if fresh >= 2 || written > 10 { retry() } else { Outcome::Confirmed }
    });
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    let began = Instant::now();
    while running.status.snapshot().retries == 0 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    running.stop();
    let first: Vec<_> = points.lock().unwrap().clone();
    let went_ahead = first.iter().filter(|point| is_of("new", point)).count();
    assert!((1..=100).contains(&went_ahead), "{went_ahead} rows went ahead");
    assert_eq!(ledger(&journal, "new", "main"), (0, 0), "nothing counts before the cursor has passed it");
    journal.close();
    drop(journal);

    let journal = journal_in(&storage);
    let store = good();
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    until_delivered(&journal, &["main"]);
    running.stop();
    assert_eq!((ledger(&journal, "old", "main"), ledger(&journal, "new", "main")), ((3_000, 0), (200, 0)));
    let all: HashSet<_> = first.iter().chain(points.lock().unwrap().iter()).cloned().collect();
    assert_eq!(all.len() as i64, BACKLOG + 200);
}

#[test]
fn what_went_ahead_is_not_declared_lost_when_the_journal_makes_room() {
    let journal =
        Journal::open(Arc::new(MemoryStorage::new()), &sized(2 << 20, WhenFull::DropOldest)).unwrap().0;
    submit(&journal, "old", 0..BACKLOG);
    // After some batches the store takes nothing of the backlog any more.
    let mut old_batches = 0;
    let store = with_fresh(&journal, (1, 300), move |points| {
        let is_old = points.iter().any(|point| is_of("old", point));
        old_batches += usize::from(is_old);
        if is_old && old_batches > 3 { retry() } else { Outcome::Confirmed }
    });
    let points = Arc::clone(&store.points);
    let running = start(&journal, store);
    let began = Instant::now();
    let stored = || -> HashSet<_> {
        points.lock().unwrap().iter().filter(|point| is_of("new", point)).cloned().collect()
    };
    while stored().len() < 100 {
        assert!(began.elapsed() < PATIENCE, "nothing goes ahead");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Rows of a third device push out the backlog, and behind it what went ahead.
    let evicted = || {
        journal.with_state(|state| {
            let device = state.device("new").unwrap();
            state.ledgers(device).map(|(_, ledger)| ledger.gaps.of(Cause::Evicted)).sum::<u64>()
        })
    };
    while ledger(&journal, "new", "main").0 + evicted() < 300 {
        match row(&journal, Class::Foreign, "more", 0, "m,device=more") {
            Ok(_) => {}
            Err(Refused::Busy | Refused::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other}"),
        }
        assert!(began.elapsed() < PATIENCE, "the rows that went ahead never made room");
    }
    running.stop();
    let (confirmed, evicted) = (ledger(&journal, "new", "main").0, evicted());
    assert_eq!((confirmed, confirmed + evicted), (stored().len() as u64, 300), "what is stored is not lost");
}
