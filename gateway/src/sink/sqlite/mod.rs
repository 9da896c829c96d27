//! The embedded store: one SQLite file, on by default, that people can query by hand (`schema.sql`).
//!
//! *Constraints.* A stored batch survives a power cut (write-ahead log, `synchronous = FULL`). The same point twice is
//! one point: equal series and time merge their fields, the later value of a field wins. Delivery's cursor is written
//! in the transaction of the points and rules over the journal's copy, so that points and cursor cannot disagree,
//! whatever happens to either file; so are the rows counted that it has confirmed (`confirmed.rs`). The file is bounded in
//! time and in bytes (`sweep.rs`).
//!
//! *Operation.* One connection, opened at first use and reopened after an error; other processes read meanwhile.
//!
//! *Failure.* Busy, locked, full and I/O errors are retried. What only a human can mend holds delivery with an alarm:
//! no permission, not a database, a newer format, and a file that was removed while in use (writing on would fill a
//! file without a name). A restart then begins a new file with the oldest rows that the journal still has.

mod confirmed;
mod look;
mod sweep;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use self::confirmed::Standing;
pub use self::look::look;
use self::sweep::Sweep;
use super::batch::{Part, Point};
use super::{Outcome, Position, Sink};
use crate::record::{Offset, ValueRef, split_series};

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_VERSION: i64 = 1;
/// How long SQLite itself waits for somebody else's lock; beyond it the backoff takes over.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// Series whose ids are remembered; beyond it they are looked up again.
const CACHED_SERIES: usize = 50_000;

/// How much history the file keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Points older than this are deleted.
    pub retention: Duration,
    /// Beyond this many bytes the oldest points are deleted.
    pub max_bytes: u64,
}

/// Tells the time in nanoseconds since 1970 UTC, or nothing while the clock cannot be trusted: history is not deleted
/// on the word of a clock that was never set.
pub type Clock = Box<dyn Fn() -> Option<i64> + Send>;

/// One file.
pub struct Sqlite {
    path: PathBuf,
    /// Identity of the journal that is delivered.
    journal: String,
    clock: Clock,
    sweep: Sweep,
    store: Option<Store>,
    /// Device and inode of the file that was open, which a file of the same name need not be.
    file: Option<(u64, u64)>,
}

/// The open file.
struct Store {
    connection: Connection,
    /// Device and inode of the file when it was opened.
    file: (u64, u64),
    series: HashMap<Box<str>, i64>,
    json: String,
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(
        "its format is version {0}, newer than this program knows; run the version that wrote it, or name another file as sqlite.path"
    )]
    Newer(i64),
    #[error(
        "it was removed or replaced while in use; stop forebay, put it back, and start again: without it the start begins a new \
         one, stores again what the journal still has, and declares the rest lost (sink_reset)"
    )]
    Removed,
}

impl Sqlite {
    /// Nothing is opened yet. `journal` is the identity of the journal whose offsets are stored.
    #[must_use]
    pub fn new(path: PathBuf, journal: String, limits: Limits, clock: Clock) -> Sqlite {
        Sqlite { path, journal, clock, sweep: Sweep::new(limits), store: None, file: None }
    }

    /// Stores points, counts their rows, and stores the cursor behind what is settled, in one transaction.
    fn store(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        let store = open(&mut self.store, &mut self.file, &self.path)?;
        if file_identity(&self.path) != Some(store.file) {
            return Err(StoreError::Removed);
        }
        let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Standing { next, is_counted } = confirmed::begin(&transaction, &self.journal)?;
        let (written, rows) = write_points(&transaction, &mut store.series, &mut store.json, part, next)?;
        confirmed::count(&transaction, &rows)?;
        // What a file has that is ahead of the journal's cursor it is given again, and has counted.
        transaction.execute(
            "INSERT OR REPLACE INTO delivery (only_row, journal, next, counted) VALUES (1, ?1, ?2, ?3)",
            params![self.journal, as_stored(part.settled().max(next)), is_counted.then_some(1)],
        )?;
        let forgotten = self.sweep.advance(&transaction, (self.clock)(), written)?;
        transaction.commit()?;
        if forgotten {
            // Its id may serve another series.
            store.series.clear();
        }
        // The points are stored; whatever disturbs this will disturb the next write too, which then says so.
        let _ = self.sweep.shrink(&store.connection);
        Ok(())
    }

    fn read_position(&mut self) -> Result<Option<Offset>, StoreError> {
        let store = open(&mut self.store, &mut self.file, &self.path)?;
        Ok(confirmed::standing(&store.connection, &self.journal)?.map(|standing| standing.next))
    }

    fn compare(&mut self, to: Offset, ledger: &[(Box<str>, u64)]) -> Result<Vec<u64>, StoreError> {
        let store = open(&mut self.store, &mut self.file, &self.path)?;
        let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let lacks = confirmed::compare(&transaction, &self.journal, to, ledger)?;
        transaction.commit()?;
        Ok(lacks)
    }

    /// Forgets what a failed transaction may have left in memory, and decides what to do next.
    fn fail(&mut self, error: &StoreError) -> Outcome {
        let code = match error {
            StoreError::Sqlite(error) => error.sqlite_error_code(),
            StoreError::Newer(_) | StoreError::Removed => Some(ErrorCode::CannotOpen),
        };
        let busy = matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked));
        match &mut self.store {
            Some(store) if busy || matches!(error, StoreError::Removed) => store.series.clear(),
            store => *store = None,
        }
        let path = self.path.display();
        match code {
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::AuthorizationForStatementDenied,
            ) => Outcome::Hold { reason: format!("cannot write {path}: {error}") },
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Outcome::Hold { reason: damaged(&self.path, error) }
            }
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Outcome::Rejected { reason: error.to_string() }
            }
            _ => Outcome::Retry { reason: format!("{path}: {error}"), after: None, unknown: false },
        }
    }
}

/// What is wrong with a file that SQLite cannot read, and the cure.
fn damaged(path: &Path, error: &dyn std::fmt::Display) -> String {
    let path = path.display();
    format!(
        "{path} is damaged or no SQLite database: {error}; stop forebay, move the file away together with those of the \
         same name with -wal and -shm behind it, which may hold rows too, and start forebay; see docs/damaged-card.md"
    )
}

impl Sink for Sqlite {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        match self.store(part) {
            Ok(()) => Outcome::Confirmed,
            Err(error) => self.fail(&error),
        }
    }

    async fn position(&mut self) -> Result<Position, Outcome> {
        self.read_position().map(Position::Own).map_err(|error| self.fail(&error))
    }

    async fn lacks(&mut self, to: Offset, confirmed: &[(Box<str>, u64)]) -> Result<Vec<u64>, Outcome> {
        self.compare(to, confirmed).map_err(|error| self.fail(&error))
    }
}

/// The open file, opened now if it is not; that must be the one that was open before, since delivery stands where that did.
fn open<'a>(
    slot: &'a mut Option<Store>,
    file: &mut Option<(u64, u64)>,
    path: &Path,
) -> Result<&'a mut Store, StoreError> {
    match slot {
        Some(store) => Ok(store),
        None if file.is_some() && file_identity(path) != *file => Err(StoreError::Removed),
        None => {
            let store = slot.insert(connect(path)?);
            *file = Some(store.file);
            Ok(store)
        }
    }
}

fn connect(path: &Path) -> Result<Store, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::Newer(version));
    }
    if version < SCHEMA_VERSION {
        connection.execute_batch(SCHEMA)?;
    }
    confirmed::upgrade(&connection, version < SCHEMA_VERSION)?;
    if !connection.table_exists(None, "swept")? {
        // An earlier version has made the file, and did not count what it deleted.
        connection.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS swept (device TEXT PRIMARY KEY, points INTEGER NOT NULL) WITHOUT ROWID;
             INSERT OR IGNORE INTO swept (device, points) VALUES ('(earlier)', 0);
             COMMIT;",
        )?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let file = file_identity(path).ok_or(StoreError::Removed)?;
    Ok(Store { connection, file, series: HashMap::new(), json: String::new() })
}

fn file_identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns how many points were written, and how many rows of each device are at `from` or behind it, or in no batch.
fn write_points<'a>(
    transaction: &Transaction<'_>,
    series: &mut HashMap<Box<str>, i64>,
    json: &mut String,
    part: &Part<'a>,
    from: Offset,
) -> rusqlite::Result<(usize, HashMap<&'a str, i64>)> {
    let mut upsert = transaction.prepare(
        "INSERT INTO points (series, ns, fields) VALUES (?1, ?2, ?3)
         ON CONFLICT (series, ns) DO UPDATE SET fields = json_patch(fields, excluded.fields)
         WHERE fields IS NOT excluded.fields",
    )?;
    let (mut written, mut rows) = (0, HashMap::new());
    for (offset, point) in part.placed() {
        json.clear();
        push_fields(json, &point);
        let id = series_id(transaction, series, point.series)?;
        upsert.execute(params![id, point.ns, json.as_str()])?;
        written += 1;
        if let Some(device) = point.counted_for().filter(|_| offset.is_none_or(|offset| offset >= from)) {
            *rows.entry(device).or_default() += 1;
        }
    }
    Ok((written, rows))
}

fn series_id(
    transaction: &Transaction<'_>,
    known: &mut HashMap<Box<str>, i64>,
    key: &str,
) -> rusqlite::Result<i64> {
    if let Some(id) = known.get(key) {
        return Ok(*id);
    }
    let stored =
        transaction.query_row("SELECT id FROM series WHERE key = ?1", [key], |row| row.get(0)).optional()?;
    let id = match stored {
        Some(id) => id,
        None => insert_series(transaction, key)?,
    };
    if known.len() >= CACHED_SERIES {
        known.clear();
    }
    known.insert(key.into(), id);
    Ok(id)
}

fn insert_series(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<i64> {
    let (measurement, tags) = split_series(key);
    let device = tags.iter().find(|(name, _)| name == "device").map(|(_, value)| value.as_ref());
    let mut json = String::from("{");
    for (name, value) in &tags {
        push_json_key(&mut json, name);
        push_json_text(&mut json, value);
    }
    json.push('}');
    transaction.execute(
        "INSERT INTO series (key, measurement, device, tags) VALUES (?1, ?2, ?3, ?4)",
        params![key, measurement, device, json],
    )?;
    Ok(transaction.last_insert_rowid())
}

fn push_fields(json: &mut String, point: &Point<'_>) {
    use std::fmt::Write as _;
    json.push('{');
    for (name, value) in point.fields() {
        push_json_key(json, name);
        // Formatting into a String cannot fail.
        let _ = match value {
            ValueRef::Float(v) => write!(json, "{v:?}"),
            ValueRef::Integer(v) => write!(json, "{v}"),
            ValueRef::Unsigned(v) => write!(json, "{v}"),
            ValueRef::Boolean(v) => write!(json, "{v}"),
            ValueRef::Text(v) => {
                push_json_text(json, v);
                Ok(())
            }
        };
    }
    json.push('}');
}

/// Appends `"name":`, behind a comma where it is not the object's first.
fn push_json_key(json: &mut String, name: &str) {
    if !json.ends_with('{') {
        json.push(',');
    }
    push_json_text(json, name);
    json.push(':');
}

fn push_json_text(json: &mut String, text: &str) {
    use std::fmt::Write as _;
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

/// SQLite has signed integers only; the bits are kept.
fn as_stored(offset: Offset) -> i64 {
    offset.0.cast_signed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use rusqlite::OpenFlags;

    use super::super::batch::OwnPoint;
    use super::*;
    use crate::record::Value;

    const SECOND_NS: i64 = 1_000_000_000;

    struct Fixture {
        directory: tempfile::TempDir,
        now_ns: Arc<AtomicI64>,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { directory: tempfile::tempdir().unwrap(), now_ns: Arc::new(AtomicI64::new(0)) }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("readings.sqlite")
        }

        fn sink(&self, journal: &str, max_bytes: u64) -> Sqlite {
            let now_ns = Arc::clone(&self.now_ns);
            let clock = Box::new(move || Some(now_ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0));
            let limits = Limits { retention: Duration::from_secs(100), max_bytes };
            Sqlite::new(self.path(), journal.to_owned(), limits, clock)
        }

        /// Opened as another process would.
        fn reader(&self) -> Connection {
            Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
        }

        fn count(&self, what: &str) -> i64 {
            self.reader().query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
        }
    }

    fn field(name: &str, value: Value) -> Vec<(String, Value)> {
        vec![(name.to_owned(), value)]
    }

    fn point(series: &str, ns: i64, fields: &[(String, Value)]) -> OwnPoint {
        OwnPoint { series: series.to_owned(), ns, fields: fields.to_vec(), device: None }
    }

    fn store(sink: &mut Sqlite, series: &str, ns: i64, fields: &[(String, Value)]) -> Result<(), StoreError> {
        sink.store(&Part::of_points(&[point(series, ns, fields)], Offset(1)))
    }

    #[test]
    fn the_same_point_twice_is_one_and_fields_merge() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let ns = 1_700_000_000 * SECOND_NS + 1;
        for (name, value) in [("a", 1.5), ("a", 1.5), ("b", 2.0), ("a", 3.0)] {
            store(&mut sink, "m,device=d,room=x\\ y", ns, &field(name, Value::Float(value))).unwrap();
        }
        store(&mut sink, "m,device=d,room=x\\ y", -1, &field("t", Value::Text("\"\\\n\u{1}é".into())))
            .unwrap();
        let reader = fixture.reader();
        let mut query = reader
            .prepare("SELECT time || ' ' || measurement || ' ' || device || ' ' || field || ' ' || value || ' ' || tags FROM readings ORDER BY ns, field")
            .unwrap();
        let rows: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let tags = r#"{"device":"d","room":"x y"}"#;
        assert_eq!(
            rows,
            [
                format!("1969-12-31T23:59:59.999999999Z m d t \"\\\n\u{1}é {tags}"),
                format!("2023-11-14T22:13:20.000000001Z m d a 3.0 {tags}"),
                format!("2023-11-14T22:13:20.000000001Z m d b 2.0 {tags}"),
            ]
        );
    }

    #[test]
    fn types_are_kept_to_the_last_digit() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let fields = [
            ("f".to_owned(), Value::Float(0.1)),
            ("w".to_owned(), Value::Float(21.0)),
            ("i".to_owned(), Value::Integer(i64::MIN)),
            ("u".to_owned(), Value::Unsigned(u64::MAX)),
            ("b".to_owned(), Value::Boolean(true)),
        ];
        store(&mut sink, "m", 1, &fields).unwrap();
        store(&mut sink, "m", 1, &field("x", Value::Boolean(false))).unwrap();
        let text: String =
            fixture.reader().query_row("SELECT fields FROM points", [], |row| row.get(0)).unwrap();
        assert_eq!(
            text,
            r#"{"f":0.1,"w":21.0,"i":-9223372036854775808,"u":18446744073709551615,"b":true,"x":false}"#
        );
    }

    #[test]
    fn the_cursor_belongs_to_one_journal() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j1", 1 << 30);
        assert_eq!(sink.read_position().unwrap(), None);
        sink.store(&Part::of_points(&[], Offset(u64::MAX))).unwrap();
        assert_eq!(fixture.sink("j1", 1 << 30).read_position().unwrap(), Some(Offset(u64::MAX)));
        assert_eq!(fixture.sink("j2", 1 << 30).read_position().unwrap(), None);
    }

    /// What the file lacks of what a ledger counts.
    fn lacks<const N: usize>(sink: &mut Sqlite, ledger: [(&str, u64); N]) -> Vec<u64> {
        let to = sink.read_position().unwrap().unwrap_or_default();
        sink.compare(to, &ledger.map(|(device, rows)| (device.into(), rows))).unwrap()
    }

    #[test]
    fn a_file_tells_what_it_lacks_of_what_was_confirmed() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        assert_eq!(lacks(&mut sink, [("a", 3), ("b", 0)]), [3, 0], "a new file has nothing");
        let fields = field("v", Value::Integer(1));
        let of =
            |device: Option<&str>, ns| OwnPoint { device: device.map(Box::from), ..point("m", ns, &fields) };
        let points = [of(Some("a"), 1), of(Some("b"), 2), of(Some("a"), 2), of(None, 3)];
        sink.store(&Part::of_points(&points, Offset(4))).unwrap();
        assert_eq!(lacks(&mut sink, [("a", 2), ("b", 1)]), [0, 0], "rows count, not points");
        assert_eq!(lacks(&mut sink, [("a", 7), ("b", 1), ("c", 1)]), [5, 0, 1]);
        assert_eq!(lacks(&mut sink, [("a", 1), ("b", 1)]), [0, 0], "given again what the ledger had not");
        assert_eq!(lacks(&mut sink, [("a", 2), ("b", 1)]), [1, 0], "and set right by that");
        // A journal that goes and comes back cannot know what the other one changed, and loses nothing by it.
        let mut of_another_journal = fixture.sink("k", 1 << 30);
        assert_eq!(lacks(&mut of_another_journal, [("b", 1)]), [0], "nothing of it is here yet");
        assert_eq!(
            lacks(&mut fixture.sink("j", 1 << 30), [("a", 3), ("b", 1)]),
            [2, 0],
            "and nothing is changed"
        );
        of_another_journal.store(&Part::of_points(&points, Offset(4))).unwrap();
        assert_eq!(lacks(&mut of_another_journal, [("b", 1)]), [0]);
        assert_eq!(lacks(&mut fixture.sink("j", 1 << 30), [("a", 90), ("b", 90)]), [0, 0]);
    }

    #[test]
    fn a_file_of_an_earlier_version_takes_the_ledgers_word_once() {
        let fixture = Fixture::new();
        let fields = field("v", Value::Integer(1));
        store(&mut fixture.sink("j", 1 << 30), "m", 1, &fields).unwrap();
        let earlier = "DROP TABLE confirmed; ALTER TABLE delivery DROP COLUMN counted";
        Connection::open(fixture.path()).unwrap().execute_batch(earlier).unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        assert_eq!(lacks(&mut sink, [("a", 5), ("b", 0)]), [0, 0]);
        assert_eq!(lacks(&mut fixture.sink("j", 1 << 30), [("a", 6), ("b", 1)]), [1, 1]);
        // One that wrote after this version, as it did.
        let earlier = "INSERT OR REPLACE INTO delivery (only_row, journal, next) VALUES (1, 'j', 7)";
        Connection::open(fixture.path()).unwrap().execute_batch(earlier).unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        store(&mut sink, "m", 2, &fields).unwrap();
        assert_eq!(lacks(&mut sink, [("a", 9), ("b", 1)]), [0, 0]);
        assert_eq!(lacks(&mut sink, [("a", 9), ("b", 2)]), [0, 1]);
    }

    #[test]
    fn another_process_reads_meanwhile_and_its_lock_is_a_retry() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let fields = field("v", Value::Integer(1));
        store(&mut sink, "m", 1, &fields).unwrap();
        let reader = fixture.reader();
        reader.execute_batch("BEGIN; SELECT * FROM points").unwrap();
        store(&mut sink, "m", 2, &fields).unwrap();
        drop(reader);

        let other = Connection::open(fixture.path()).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let error = store(&mut sink, "n", 3, &fields).unwrap_err();
        assert!(matches!(sink.fail(&error), Outcome::Retry { unknown: false, .. }));
        other.execute_batch("ROLLBACK").unwrap();
        store(&mut sink, "n", 3, &fields).unwrap();
        assert_eq!((fixture.count("points"), fixture.count("series")), (3, 2));
    }

    #[test]
    fn a_lock_at_the_start_is_a_retry_too() {
        let fixture = Fixture::new();
        let other = Connection::open(fixture.path()).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE x (y)").unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        let error = sink.read_position().unwrap_err();
        assert!(matches!(sink.fail(&error), Outcome::Retry { .. }), "{error}");
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(sink.read_position().unwrap(), None);
    }

    #[test]
    fn what_a_human_has_to_mend_is_held() {
        let fixture = Fixture::new();
        let fields = field("v", Value::Integer(1));
        let mut sink = fixture.sink("j", 1 << 30);
        store(&mut sink, "m", 1, &fields).unwrap();
        std::fs::rename(fixture.path(), fixture.directory.path().join("elsewhere")).unwrap();
        let error = store(&mut sink, "m", 2, &fields).unwrap_err();
        assert!(matches!(sink.fail(&error), Outcome::Hold { .. }), "{error}");
        std::fs::rename(fixture.directory.path().join("elsewhere"), fixture.path()).unwrap();
        store(&mut sink, "m", 2, &fields).unwrap();

        Connection::open(fixture.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        let error = store(&mut sink, "m", 3, &fields).unwrap_err();
        assert!(matches!(sink.fail(&error), Outcome::Hold { reason } if reason.contains("newer")));

        // A file of its own: what is in another one's log would hide it.
        let fixture = Fixture::new();
        std::fs::write(fixture.path(), "no database at all, but longer than a header of one".repeat(9))
            .unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        let error = store(&mut sink, "m", 3, &fields).unwrap_err();
        let Outcome::Hold { reason } = sink.fail(&error) else { panic!("{error}") };
        assert!(["stop forebay", "-wal", "-shm"].iter().all(|word| reason.contains(word)), "{reason}");
    }

    #[test]
    fn a_file_of_format_1_is_gone_on_with() {
        let fixture = Fixture::new();
        let first = include_str!("../../../tests/fixtures/readings-1.sql");
        Connection::open(fixture.path()).unwrap().execute_batch(first).unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        assert_eq!(sink.read_position().unwrap(), Some(Offset(7)));
        let ns = 1_767_225_600_000_000_001;
        store(&mut sink, "climate,device=boiler", ns, &field("heating", Value::Boolean(true))).unwrap();
        store(&mut sink, "climate,device=pump", ns, &field("on", Value::Integer(1))).unwrap();
        let counts =
            ["readings", "points", "series", "swept WHERE points = 3"].map(|what| fixture.count(what));
        assert_eq!(counts, [3, 2, 2, 1]);
    }

    #[test]
    fn a_file_of_a_newer_format_is_left_as_it_is() {
        let fixture = Fixture::new();
        store(&mut fixture.sink("j", 1 << 30), "m", 1, &field("v", Value::Integer(1))).unwrap();
        Connection::open(fixture.path()).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
        let before = std::fs::read(fixture.path()).unwrap();
        let mut sink = fixture.sink("j", 1 << 30);
        let error = store(&mut sink, "m", 2, &field("v", Value::Integer(2))).unwrap_err();
        let Outcome::Hold { reason } = sink.fail(&error) else { panic!("{error}") };
        let name = fixture.path().display().to_string();
        assert!(reason.contains(&name) && reason.contains("version 2") && reason.contains("run"), "{reason}");
        assert!(std::fs::read(fixture.path()).unwrap() == before);
    }

    #[test]
    fn a_series_that_a_failed_batch_brought_is_not_taken_for_stored() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let fields = field("v", Value::Integer(1));
        store(&mut sink, "a", 1, &fields).unwrap();
        let trigger = "CREATE TRIGGER t BEFORE INSERT ON points WHEN NEW.ns = 13
                       BEGIN SELECT RAISE(ABORT, 'unlucky'); END";
        Connection::open(fixture.path()).unwrap().execute_batch(trigger).unwrap();
        let error = store(&mut sink, "b", 13, &fields).unwrap_err();
        assert_eq!(sink.fail(&error), Outcome::Rejected { reason: "unlucky".into() });
        store(&mut sink, "c", 14, &fields).unwrap();
        store(&mut sink, "b", 15, &fields).unwrap();
        assert_eq!(fixture.count("readings WHERE measurement = 'b' AND ns = 15"), 1);
        assert_eq!(fixture.count("readings"), 3);
    }

    #[test]
    fn points_older_than_the_retention_go_in_small_steps() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let fields = field("v", Value::Integer(1));
        for series in ["a", "b"] {
            let old: Vec<_> = (0..1000).map(|s| point(series, s * SECOND_NS / 10, &fields)).collect();
            sink.store(&Part::of_points(&old, Offset(1))).unwrap();
        }
        assert_eq!(fixture.count("points"), 2000, "an untrusted clock deletes nothing");
        fixture.now_ns.store(150 * SECOND_NS, Ordering::Relaxed);
        let mut left = 2000;
        for _ in 0..10 {
            store(&mut sink, "c", 150 * SECOND_NS, &fields).unwrap();
            let now_left = fixture.count("points WHERE ns < 100000000000");
            assert!(left - now_left <= 258, "{} points in one step", left - now_left);
            left = now_left;
        }
        assert_eq!(left, 1000);
        assert_eq!(fixture.count("points WHERE ns < 50000000000"), 0);
    }

    #[test]
    fn a_series_goes_with_its_last_point_and_may_come_back() {
        let fixture = Fixture::new();
        let mut sink = fixture.sink("j", 1 << 30);
        let fields = field("v", Value::Integer(1));
        for series in ["a", "b", "c"] {
            store(&mut sink, series, SECOND_NS, &fields).unwrap();
        }
        fixture.now_ns.store(150 * SECOND_NS, Ordering::Relaxed);
        store(&mut sink, "b", 150 * SECOND_NS, &fields).unwrap();
        assert_eq!(fixture.count("series"), 1, "those of a and c are too old");
        for series in ["d", "c", "a"] {
            store(&mut sink, series, 151 * SECOND_NS, &fields).unwrap();
        }
        let counts =
            ["a", "b", "c", "d"].map(|name| fixture.count(&format!("readings WHERE measurement = '{name}'")));
        assert_eq!((counts, fixture.count("series")), ([1; 4], 4));
    }

    #[test]
    fn the_file_stays_below_its_size() {
        let fixture = Fixture::new();
        let max_bytes: u64 = 1 << 20;
        let mut sink = fixture.sink("j", max_bytes);
        let fields = field("text", Value::Text("x".repeat(100)));
        for batch in 0..100_i64 {
            let points = (0..500).map(|n| point(&format!("m,device=d{}", n % 10), batch * 1000 + n, &fields));
            sink.store(&Part::of_points(&points.collect::<Vec<_>>(), Offset(1))).unwrap();
            let reader = fixture.reader();
            let pages: i64 = reader.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
            assert!(pages * 4096 <= max_bytes.cast_signed() + 200_000, "{pages} pages after batch {batch}");
        }
        let newest: i64 =
            fixture.reader().query_row("SELECT max(ns) FROM points", [], |row| row.get(0)).unwrap();
        assert_eq!(newest, 99_499, "the newest points stay");
        assert!(fixture.count("points") > 3000, "no more is deleted than needed");
        let tighter: u64 = 256 * 1024;
        let mut sink = fixture.sink("j", tighter);
        for n in 0..30 {
            store(&mut sink, "m,device=d0", 200_000 + n, &fields).unwrap();
        }
        let pages: i64 = fixture.reader().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        assert!(pages * 4096 <= tighter.cast_signed(), "{pages} pages after the limit was lowered");
    }
}
