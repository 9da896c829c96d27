//! Delivery that has to let go of the oldest rows.

use std::io;

use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use super::super::commit::{Kept, Submitted};
use super::room::{open, row, sized};
use super::*;
use crate::config::WhenFull;
use crate::dead_letters::{Letter, Stage};
use crate::journal::JournalId;
use crate::journal::memory::{CallKind, Fates, Fault};
use crate::journal::storage::Storage as _;

#[test]
fn a_full_journal_lets_go_of_its_oldest_rows_and_declares_each() {
    let storage = MemoryStorage::new();
    let options = Options { when_full: WhenFull::DropOldest, ..Options::sized(2 << 20) };
    let journal = Journal::open(Arc::new(storage.clone()), &options).unwrap().0;
    let points = Points::default();
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let script = {
        let down = Arc::clone(&down);
        move |_: &[(String, i64)]| match down.load(std::sync::atomic::Ordering::Relaxed) {
            true => retry(),
            false => Outcome::Confirmed,
        }
    };
    let running = Running::start(&journal, "main", Store { points: Arc::clone(&points), script });
    let fields = [("v".to_owned(), Value::Text("x".repeat(1000)))];
    let mut rows = 0;
    while rows < 6_000 {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Native, |_, submission| {
            (rows..rows + 10).try_for_each(|n| {
                submission.add(&Entry::Row(RowEntry {
                    device: ["a", "b"][n as usize % 2],
                    boot: 0,
                    sequence: n / 2,
                    stamped: false,
                    series: ["m,device=a", "m,device=b"][n as usize % 2],
                    ns: n as i64 * 10_000_000,
                    fields: Fields::of(&fields),
                }))
            })
        });
        match submitted {
            Ok(_) => rows += 10,
            Err(Refused::Full | Refused::Busy) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other}"),
        }
        let on_disk: usize = storage.files().values().map(Vec::len).sum();
        assert!(on_disk <= 2 << 20, "{on_disk} bytes");
    }
    down.store(false, std::sync::atomic::Ordering::Relaxed);
    until(|| ["a", "b"].iter().all(|device| fate(&journal, device)[3] == 0));
    let (a, b) = (fate(&journal, "a"), fate(&journal, "b"));
    assert!(a[2] > 1_000 && b[2] > 1_000 && a[0] > 100, "{a:?} {b:?}");
    assert_eq!(a[0] + a[2] + b[0] + b[2], 6_000);
    running.stop();
    let stored = points.lock().unwrap().clone();
    let told = stored.iter().filter(|(series, _)| series.starts_with("forebay_gap,cause=evicted")).count();
    assert!((2..=64).contains(&told), "{told} points tell of what was let go");
    let mut stored: Vec<_> = stored.into_iter().filter(|(series, _)| series.starts_with("m,")).collect();
    let count = stored.len();
    stored.sort();
    stored.dedup();
    assert_eq!((stored.len(), count as u64), (count, a[0] + b[0]), "nothing that was let go comes back");
    let reopened = {
        drop(journal);
        Journal::open(Arc::new(storage), &options).unwrap().0
    };
    assert_eq!(fate(&reopened, "a"), a);
}

/// Submits rows until there is no room; where each ends.
fn fill(journal: &Journal, class: Class, whose: impl Fn(usize) -> (String, u32)) -> Vec<Offset> {
    let mut ends = Vec::new();
    loop {
        let (device, boot) = whose(ends.len());
        match row(journal, class, &device, boot, "m,device=d") {
            Ok(end) => ends.push(end),
            Err(Refused::Busy) => std::thread::yield_now(),
            Err(Refused::Full) => return ends,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Where a sink goes on, the rows that it let go of, and those that it is still to get.
fn evicted(journal: &Journal) -> (Offset, u64, u64) {
    journal.with_state(|state| {
        let ledgers = state.devices().iter().flat_map(|device| state.ledgers(device));
        let evicted = ledgers.map(|(_, ledger)| ledger.gaps.of(Cause::Evicted)).sum();
        (state.cursor("main").unwrap(), evicted, state.owed("main"))
    })
}

/// Lets a sink evict the oldest segment of a full journal, with the power going at a call; what is on the disk then, or
/// none if the sink was done before.
fn evict_until(full: &MemoryStorage, call: u64) -> Option<MemoryStorage> {
    let storage = full.fork();
    let options = sized(2 << 20, WhenFull::DropOldest);
    let journal = Journal::open(Arc::new(storage.clone()), &options).unwrap().0;
    storage.cut_at(storage.calls() + call);
    let silent = Store { points: Points::default(), script: |_: &[(String, i64)]| retry() };
    let _running = Running::start(&journal, "main", silent);
    let (before, evict_to) = (evicted(&journal).0, journal.evict_to());
    let asked = row(&journal, Class::Foreign, "d", 0, "m,device=d");
    assert!(matches!(asked, Err(Refused::Full | Refused::Failed)), "{asked:?}");
    until(|| storage.is_off() || evicted(&journal).0 > before && evicted(&journal).0 >= *evict_to.borrow());
    storage.is_off().then(|| storage.after_power_cut(&Fates::all_old()))
}

#[test]
fn a_crash_in_the_middle_of_an_eviction_leaves_what_is_skipped_declared_and_nothing_else() {
    let options = sized(2 << 20, WhenFull::DropOldest);
    let full = MemoryStorage::new();
    let journal = Journal::open(Arc::new(full.clone()), &options).unwrap().0;
    journal.register_sink("main").unwrap();
    // The gaps of a segment are too many for one submission.
    let ends =
        fill(&journal, Class::Foreign, |row| (format!("{:0150}", row % 80), (row / 80 % 4) as u32 + 1));
    let oldest_end = journal.segment_end(Offset(0)).unwrap();
    journal.close();
    drop(journal);
    let mut halfway = 0;
    for call in 0.. {
        let Some(disk) = evict_until(&full, call) else { break };
        let journal = Journal::open(Arc::new(disk), &options).unwrap().0;
        let (cursor, evicted, owed) = evicted(&journal);
        let below = ends.iter().filter(|end| **end <= cursor).count() as u64;
        assert_eq!((evicted, evicted + owed), (below, ends.len() as u64), "power cut at call {call}");
        halfway += u64::from(evicted > 0 && cursor < oldest_end);
        journal.close();
    }
    assert!(halfway > 0, "no crash came between two submissions");
}

/// A driver of a full journal that has asked it to make room, and what ends it when dropped.
fn pressed_driver(letters: &MemoryStorage) -> (Driver<Silence>, watch::Sender<bool>, Runtime) {
    let journal = open(2 << 20, WhenFull::DropOldest);
    let (driver, stop) = driver_of(&journal, letters);
    fill(&journal, Class::Foreign, |_| ("d".to_owned(), 0));
    until(|| driver.must_evict());
    (driver, stop, runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

#[test]
fn letters_that_cannot_be_kept_do_not_keep_the_journal_full() {
    let letters = MemoryStorage::new();
    letters.plan(Fault::for_ever(CallKind::Create, 0, io::ErrorKind::PermissionDenied));
    let (mut driver, _stop, runtime) = pressed_driver(&letters);
    let letter = Letter {
        sink: "main".into(),
        journal: JournalId(1),
        offset: Offset(1),
        stage: Stage::Delivery,
        at_ns: 0,
        device: "d".into(),
        rows: 1,
        origin: "m,device=d".into(),
        reason: "400".into(),
        body: b""[..].into(),
        body_bytes: 0,
    };
    let kept = runtime.block_on(driver.keep(&[letter]));
    assert!(matches!(kept, Ok(Kept::MustEvict)));
}

#[test]
fn a_cursor_for_which_there_is_no_room_does_not_keep_the_journal_full() {
    let (mut driver, _stop, runtime) = pressed_driver(&MemoryStorage::new());
    fill(&driver.journal, Class::Internal, |_| ("d".to_owned(), 0));
    // It takes more than a row, so that the rest of the segment is too small.
    let (device, fields) = (&*"d".repeat(500), Fields::of(&[]));
    let row = RowEntry { device, boot: 0, sequence: 0, stamped: false, series: "m,device=d", ns: 5, fields };
    assert!(driver.held.confirm(&row));
    driver.held.pass(Offset(2));
    let submitted = runtime.block_on(async { timeout(PATIENCE, driver.submit_held(false)).await });
    assert!(matches!(submitted, Ok(Submitted::MustEvict)));
    assert!(!driver.held.is_empty(), "it waits for the next chance");
}

#[test]
fn a_full_disk_costs_the_oldest_segment_and_not_the_backlog() {
    let storage = MemoryStorage::with_capacity(3 << 20);
    let options = sized(4 << 20, WhenFull::DropOldest);
    let journal = Journal::open(Arc::new(storage), &options).unwrap().0;
    let silent = Store { points: Points::default(), script: |_: &[(String, i64)]| retry() };
    let running = Running::start(&journal, "main", silent);
    let mut ends = fill(&journal, Class::Foreign, |_| ("d".into(), 0));
    let (full, owed) = (ends.len(), evicted(&journal).2);
    // A third of the backlog again, in which several segments have to go.
    while ends.len() < full + full / 3 {
        match row(&journal, Class::Foreign, "d", 0, "m,device=d") {
            Ok(end) => ends.push(end),
            Err(Refused::Busy | Refused::Full) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
        let (_, gone, left) = evicted(&journal);
        assert!(left > owed / 2, "{gone} rows made room, and {left} of {owed} are left");
    }
    running.stop();
}

#[test]
fn native_devices_wait_for_a_full_disk_only_as_long_as_it_is_full() {
    let storage = MemoryStorage::with_capacity(3 << 20);
    let journal = Journal::open(Arc::new(storage.clone()), &sized(4 << 20, WhenFull::Auto)).unwrap().0;
    let silent = Store { points: Points::default(), script: |_: &[(String, i64)]| retry() };
    let running = Running::start(&journal, "main", silent);
    let send = |class, device: &str| match row(&journal, class, device, 0, "m,device=d") {
        Ok(_) => true,
        Err(Refused::Busy | Refused::Full) => false,
        Err(other) => panic!("{other}"),
    };
    storage.put("of others", vec![0; 1 << 20]);
    let began = Instant::now();
    while evicted(&journal).1 == 0 {
        send(Class::Foreign, "d");
        assert!(began.elapsed() < PATIENCE, "nothing makes room");
    }
    assert!(!send(Class::Native, "n"), "the rows of others make room for a native device");
    storage.remove("of others").unwrap();
    until(|| send(Class::Native, "n"));
    running.stop();
}
