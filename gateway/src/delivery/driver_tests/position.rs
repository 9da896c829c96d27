//! An embedded store that comes back without what it had confirmed.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::room::until_delivered;
use super::*;

const ROW_BYTES: usize = 1000;

fn open(storage: &MemoryStorage) -> Journal {
    Journal::open(Arc::new(storage.clone()), &Options::sized(2 << 20)).unwrap().0
}

fn sqlite(path: &Path) -> Sqlite {
    let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
    Sqlite::new(path.to_owned(), "this journal".to_owned(), limits, Box::new(|| None))
}

/// Makes so many rows of a device durable, with times of their own.
fn journal_rows(journal: &Journal, device: &str, rows: i64) {
    let fields = [("text".to_owned(), Value::Text("x".repeat(ROW_BYTES)))];
    for _ in 0..rows {
        let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |state, submission| {
            let (sequence, series) = (state.next_number(device), format!("m,device={device}"));
            let ns = 1 + sequence.cast_signed();
            let fields = Fields::of(&fields);
            let row = RowEntry { device, boot: 0, sequence, stamped: false, series: &series, ns, fields };
            submission.add(&Entry::Row(row))
        });
        let end = submitted.unwrap().1;
        until(|| *journal.watermark().borrow() >= end);
    }
}

/// The same, and waits until they are delivered.
fn deliver(journal: &Journal, device: &str, rows: i64) {
    journal_rows(journal, device, rows);
    until_delivered(journal, &["main"]);
}

/// Delivers rows of two devices until the journal has none any more of what it has now.
fn deliver_much(journal: &Journal, path: &Path) {
    let running = Running::start(journal, "main", sqlite(path));
    let end = *journal.watermark().borrow();
    let has_older = || match journal.reader(Offset(0)).next().unwrap() {
        Read::Frame(frame) => frame.first() < end,
        Read::Wait => true,
        Read::Damaged { from, to } => panic!("{from} to {to}"),
    };
    loop {
        deliver(journal, "a", 150);
        deliver(journal, "b", 50);
        if !has_older() {
            break;
        }
    }
    running.stop();
}

/// Of each device: rows that are journaled, confirmed, and lost with the store.
fn ledgers(journal: &Journal) -> Vec<[u64; 3]> {
    journal.with_state(|state| {
        let of = |device: &str| {
            let device = state.device(device).unwrap();
            let (_, ledger) = state.ledgers(device).next().unwrap();
            [device.rows, ledger.confirmed, ledger.gaps.of(Cause::SinkReset)]
        };
        ["a", "b"].map(of).to_vec()
    })
}

/// Of each device: points in the file, and points that it says are lost; none while the file is not made yet.
fn stored(path: &Path) -> Option<Vec<(u64, u64)>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let ask = |query: &str, device| file.query_row(query, [device], |row| row.get::<_, i64>(0));
    let of = |device| {
        let points = "SELECT count(*) FROM readings WHERE measurement = 'm' AND device = ?1";
        let lost = "SELECT coalesce(sum(value), 0) FROM readings
                    WHERE measurement = 'forebay_gap' AND json_extract(tags, '$.cause') = 'sink_reset'
                      AND field = 'count' AND device = ?1";
        Some((ask(points, device).ok()?.cast_unsigned(), ask(lost, device).ok()?.cast_unsigned()))
    };
    ["a", "b"].into_iter().map(of).collect()
}

/// Starts delivery until all is said, and checks that what is missing is declared, to the row; how many of each device were
/// declared now.
#[track_caller]
fn check(journal: &Journal, path: &Path) -> Vec<u64> {
    let lost = |ledgers: Vec<[u64; 3]>| ledgers.into_iter().map(|[_, _, lost]| lost);
    let before: Vec<u64> = lost(ledgers(journal)).collect();
    let declared =
        || lost(ledgers(journal)).zip(&before).map(|(now, before)| now - before).collect::<Vec<_>>();
    let running = Running::start(journal, "main", sqlite(path));
    until(|| {
        let stored = stored(path).unwrap_or_default();
        let is_right = |((points, lost), ([_, confirmed, _], declared)): (&(u64, u64), ([u64; 3], u64))| {
            *points == confirmed && *lost >= declared
        };
        stored.len() == 2 && stored.iter().zip(ledgers(journal).into_iter().zip(declared())).all(is_right)
    });
    until_delivered(journal, &["main"]);
    running.stop();
    let ledgers = ledgers(journal);
    assert!(ledgers.iter().all(|[rows, confirmed, lost]| *rows == confirmed + lost), "{ledgers:?}");
    declared()
}

#[test]
fn what_a_store_has_lost_and_the_journal_has_no_more_is_declared_once() {
    let storage = MemoryStorage::new();
    let journal = open(&storage);
    let directory = tempfile::tempdir().unwrap();
    let (path, older) = (directory.path().join("readings.sqlite"), directory.path().join("older"));
    deliver_much(&journal, &path);
    assert_eq!(check(&journal, &path), [0, 0], "nothing is lost");
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [older.to_str()]).unwrap();
    for _ in 0..2 {
        deliver_much(&journal, &path);
    }
    assert_eq!(check(&journal, &path), [0, 0]);

    // What it has in memory still it could deliver.
    drop(journal);
    let journal = open(&storage);
    let had = stored(&older).unwrap();
    std::fs::rename(&older, &path).unwrap();
    let lost = check(&journal, &path);
    assert!(lost.iter().all(|lost| *lost > 0), "{lost:?}");
    assert!(ledgers(&journal).iter().zip(&had).all(|([_, confirmed, _], (points, _))| confirmed > points));
    assert_eq!(check(&journal, &path), [0, 0], "it was declared already");

    std::fs::remove_file(&path).unwrap();
    let lost = check(&journal, &path);
    assert!(lost.iter().zip(&had).all(|(lost, (points, _))| lost >= points), "{lost:?} and {had:?}");
    assert!(ledgers(&journal).iter().all(|[_, confirmed, _]| *confirmed > 0), "the journal had some");
    assert_eq!(check(&journal, &path), [0, 0], "and that too");
}

/// A file may have what the ledger does not tell of: a life ended in between, or the journal is an older one.
#[test]
fn a_file_that_is_ahead_of_the_ledger_lacks_nothing_ever() {
    let storage = MemoryStorage::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("readings.sqlite");
    let journal = open(&storage);
    let running = Running::start(&journal, "main", sqlite(&path));
    deliver(&journal, "a", 30);
    deliver(&journal, "b", 10);
    running.stop();
    drop(journal);
    let older = storage.fork();
    let journal = open(&storage);
    let running = Running::start(&journal, "main", sqlite(&path));
    deliver(&journal, "a", 30);
    running.stop();
    drop(journal);

    let journal = open(&older);
    for rows in [7, 11, 40] {
        let running = Running::start(&journal, "main", sqlite(&path));
        deliver(&journal, "a", rows);
        deliver(&journal, "b", rows);
        running.stop();
    }
    // Nothing is declared where everything is compared once more.
    Running::start(&journal, "main", sqlite(&path)).stop();
    assert_eq!(ledgers(&journal), [[88, 88, 0], [68, 68, 0]]);
}

/// The new file has rows already of which the ledger does not tell, since the life that stored them ended before that.
#[test]
fn what_a_new_file_has_before_the_ledger_knows_does_not_make_up_for_what_is_lost() {
    let storage = MemoryStorage::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("readings.sqlite");
    let journal = open(&storage);
    for _ in 0..2 {
        deliver_much(&journal, &path);
    }
    journal_rows(&journal, "a", 40);
    let end = journal.watermark().borrow().0.cast_signed();
    drop(journal);
    std::fs::remove_file(&path).unwrap();
    let before = storage.fork();
    let journal = open(&storage);
    let running = Running::start(&journal, "main", sqlite(&path));
    until_delivered(&journal, &["main"]);
    running.stop();
    drop(journal);
    // As that life would have left it, had it ended with the batch of these rows.
    Connection::open(&path).unwrap().execute("UPDATE delivery SET next = ?1 WHERE next > ?1", [end]).unwrap();

    let journal = open(&before);
    let lost = check(&journal, &path);
    assert!(lost.iter().all(|lost| *lost > 0), "{lost:?}");
    assert_eq!(check(&journal, &path), [0, 0]);
}
