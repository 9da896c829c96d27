//! The embedded store: one SQLite file, on by default, that people can query by hand (`schema.sql`).
//!
//! *Constraints.* A stored batch survives a power cut (write-ahead log, `synchronous = FULL`). The same point twice is
//! one point: equal series and time merge their fields, the later value of a field wins. Delivery's cursor is written
//! in the transaction of the points and rules over the journal's copy, so that points and cursor cannot disagree,
//! whatever happens to either file. The file is bounded in time and in bytes (`sweep.rs`).
//!
//! *Operation.* One connection, opened at first use and reopened after an error; other processes read meanwhile.
//!
//! *Failure.* Busy, locked, full and I/O errors are retried. What only a human can mend holds delivery with an alarm:
//! no permission, not a database, a newer format, and a file that was removed while in use (writing on would fill a
//! file without a name). A restart then begins a new file with the oldest rows that the journal still has.

mod sweep;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

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
    #[error("its format is version {0}, newer than this program knows; update forebay or name another file")]
    Newer(i64),
    #[error("it was removed or replaced while in use; put it back, or restart forebay to begin a new one")]
    Removed,
}

impl Sqlite {
    /// Nothing is opened yet. `journal` is the identity of the journal whose offsets are stored.
    #[must_use]
    pub fn new(path: PathBuf, journal: String, limits: Limits, clock: Clock) -> Sqlite {
        Sqlite { path, journal, clock, sweep: Sweep::new(limits), store: None }
    }

    /// Stores points and the cursor `next` in one transaction.
    fn store<'a>(
        &mut self,
        points: impl Iterator<Item = Point<'a>>,
        next: Offset,
    ) -> Result<(), StoreError> {
        let store = open(&mut self.store, &self.path)?;
        if file_identity(&self.path) != Some(store.file) {
            return Err(StoreError::Removed);
        }
        let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = write_points(&transaction, &mut store.series, &mut store.json, points)?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO delivery (only_row, journal, next) VALUES (1, ?1, ?2)")?
            .execute(params![self.journal, as_stored(next)])?;
        self.sweep.advance(&transaction, (self.clock)(), written)?;
        transaction.commit()?;
        self.sweep.shrink(&store.connection)?;
        Ok(())
    }

    fn read_position(&mut self) -> Result<Option<Offset>, StoreError> {
        let store = open(&mut self.store, &self.path)?;
        let row: Option<(String, i64)> = store
            .connection
            .query_row("SELECT journal, next FROM delivery", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(row.filter(|(journal, _)| *journal == self.journal).map(|(_, next)| Offset(next.cast_unsigned())))
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
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Outcome::Hold {
                reason: format!("{path} is damaged or no SQLite database: {error}; move it away and restart forebay"),
            },
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Outcome::Rejected { reason: error.to_string() }
            }
            _ => Outcome::Retry { reason: format!("{path}: {error}"), after: None, unknown: false },
        }
    }
}

impl Sink for Sqlite {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        match self.store(part.points(), part.settled()) {
            Ok(()) => Outcome::Confirmed,
            Err(error) => self.fail(&error),
        }
    }

    async fn position(&mut self) -> Result<Position, Outcome> {
        self.read_position().map(Position::Own).map_err(|error| self.fail(&error))
    }
}

/// The open file, opened now if it is not.
fn open<'a>(slot: &'a mut Option<Store>, path: &Path) -> Result<&'a mut Store, StoreError> {
    match slot {
        Some(store) => Ok(store),
        None => Ok(slot.insert(connect(path)?)),
    }
}

fn connect(path: &Path) -> Result<Store, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::Newer(version));
    }
    if version < SCHEMA_VERSION {
        connection.execute_batch(SCHEMA)?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let file = file_identity(path).ok_or(StoreError::Removed)?;
    Ok(Store { connection, file, series: HashMap::new(), json: String::new() })
}

fn file_identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns how many points were written.
fn write_points<'a>(
    transaction: &Transaction<'_>,
    series: &mut HashMap<Box<str>, i64>,
    json: &mut String,
    points: impl Iterator<Item = Point<'a>>,
) -> rusqlite::Result<usize> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO points (series, ns, fields) VALUES (?1, ?2, ?3)
         ON CONFLICT (series, ns) DO UPDATE SET fields = json_patch(fields, excluded.fields)
         WHERE fields IS NOT excluded.fields",
    )?;
    let mut written = 0;
    for point in points {
        json.clear();
        push_fields(json, &point);
        let id = series_id(transaction, series, point.series)?;
        upsert.execute(params![id, point.ns, json.as_str()])?;
        written += 1;
    }
    Ok(written)
}

fn series_id(
    transaction: &Transaction<'_>,
    known: &mut HashMap<Box<str>, i64>,
    key: &str,
) -> rusqlite::Result<i64> {
    if let Some(id) = known.get(key) {
        return Ok(*id);
    }
    let stored = transaction
        .prepare_cached("SELECT id FROM series WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
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
    transaction
        .prepare_cached("INSERT INTO series (key, measurement, device, tags) VALUES (?1, ?2, ?3, ?4)")?
        .insert(params![key, measurement, device, json])
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
