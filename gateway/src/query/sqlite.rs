//! Reading the embedded store, beside the connection that writes it.
//!
//! One transaction answers one query, so that it sees one state of the file. Series are gone through one by one, each by
//! its primary key and only as far as the answer has room, so that a query costs what it shows; downsampling reads all
//! points of its time.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};
use serde_json::Value as Scalar;

use super::answer::typed;
use super::request::Query;
use crate::record::{Offset, Value};

/// How long SQLite itself waits for somebody else's lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Embedded {
    path: PathBuf,
    /// Identity of the journal whose offsets count.
    journal: String,
}

/// Fields of a point, as they were stored.
pub(super) type Fields = Vec<(String, Value)>;

impl Embedded {
    pub(super) fn new(path: PathBuf, journal: String) -> Embedded {
        Embedded { path, journal }
    }

    /// The cursor in the file, which rules over the journal's copy; none if it has none of this journal, or does not exist.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub(super) fn cursor(&self, deadline: Instant) -> Result<Option<Offset>, String> {
        let Some(connection) = self.open(deadline)? else { return Ok(None) };
        let sql = "SELECT next FROM delivery WHERE journal = ?1";
        let next = connection.query_row(sql, [&self.journal], |row| row.get::<_, i64>(0)).optional();
        next.map(|next| next.map(|next| Offset(next.cast_unsigned()))).map_err(|error| self.reason(&error))
    }

    /// Shows the points that the query wants, but for the choice of fields: series by series, each in the order of time, and
    /// goes on to the next series when `show` says so. False if there is no file.
    ///
    /// # Errors
    /// Why the file cannot be read, or that the deadline has passed.
    pub(super) fn each(
        &self,
        query: &Query,
        deadline: Instant,
        show: impl FnMut(i64, &str, Fields) -> ControlFlow<()>,
    ) -> Result<bool, String> {
        let Some(connection) = self.open(deadline)? else { return Ok(false) };
        self.walk(&connection, query, show).map(|()| true).map_err(|error| self.reason(&error))
    }

    fn walk(
        &self,
        connection: &Connection,
        query: &Query,
        mut show: impl FnMut(i64, &str, Fields) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        let mut series = transaction.prepare(
            "SELECT id, key FROM series WHERE (?1 IS NULL OR measurement = ?1) AND (?2 IS NULL OR device = ?2)
             ORDER BY id",
        )?;
        let mut points = transaction.prepare(
            "SELECT ns, fields FROM points WHERE series = ?1 AND ns >= ?2 AND ns < ?3 ORDER BY ns",
        )?;
        let mut series = series.query(params![query.measurement, query.device])?;
        while let Some(row) = series.next()? {
            let (id, key): (i64, String) = (row.get(0)?, row.get(1)?);
            let mut rows = points.query(params![id, query.from_ns, query.to_ns])?;
            while let Some(row) = rows.next()? {
                let text = row.get_ref(1)?.as_str()?;
                if show(row.get(0)?, &key, fields(text)).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// None if there is no such file: nothing was stored yet.
    fn open(&self, deadline: Instant) -> Result<Option<Connection>, String> {
        if !self.path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connect = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
            // The file of a store that is just being made has no tables yet.
            let made = connection.table_exists(None, "delivery")?;
            Ok(made.then_some(connection))
        };
        connect().map_err(|error: rusqlite::Error| self.reason(&error))
    }

    fn reason(&self, error: &rusqlite::Error) -> String {
        let path = self.path.display();
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            return format!("{path} takes too long; ask for a shorter time, or for one device");
        }
        format!("{path} cannot be read: {error}; the log of the gateway says more")
    }
}

/// The fields of a point. What is no JSON object was not written by us, and has none.
fn fields(text: &str) -> Fields {
    let Ok(object) = serde_json::from_str::<serde_json::Map<String, Scalar>>(text) else {
        return Fields::new();
    };
    object.into_iter().filter_map(|(name, value)| Some((name, typed(&value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::batch::Audience;
    use crate::sink::sqlite::{Limits, Sqlite};
    use crate::sink::{Batch, Outcome, Sink as _};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn values_come_back_with_their_types_to_the_last_digit() {
        let text = r#"{"f":0.30000000000000004,"w":21.0,"e":5e-324,"i":-9223372036854775808,"u":18446744073709551615,"b":true,"t":"\"\\é"}"#;
        let mut fields = fields(text);
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("b", Value::Boolean(true)),
            ("e", Value::Float(5e-324)),
            ("f", Value::Float(0.1 + 0.2)),
            ("i", Value::Integer(i64::MIN)),
            ("t", Value::Text("\"\\é".to_owned())),
            ("u", Value::Unsigned(u64::MAX)),
            ("w", Value::Float(21.0)),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[tokio::test]
    async fn the_cursor_of_another_journal_is_none_and_a_store_that_is_not_there_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.sqlite");
        let query = Query::parse([], 0).unwrap();
        let mine = Embedded::new(path.clone(), "mine".to_owned());
        assert_eq!(mine.cursor(soon()), Ok(None));
        assert_eq!(mine.each(&query, soon(), |_, _, _| ControlFlow::Continue(())), Ok(false));

        let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
        let mut sink = Sqlite::new(path.clone(), "mine".to_owned(), limits, Box::new(|| None));
        let batch = Batch::new(Audience::of_all("sqlite"), Offset(7));
        assert_eq!(sink.write(&batch.part(&[], Offset(7))).await, Outcome::Confirmed);
        assert_eq!(mine.cursor(soon()), Ok(Some(Offset(7))));
        assert_eq!(Embedded::new(path, "other".to_owned()).cursor(soon()), Ok(None));
    }

    #[test]
    fn a_query_that_takes_too_long_is_ended_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch(include_str!("../sink/sqlite/schema.sql")).unwrap();
        writer
            .execute_batch(
                "INSERT INTO series VALUES (1, 'm', 'm', NULL, '{}');
                 WITH RECURSIVE n (ns) AS (SELECT 0 UNION ALL SELECT ns + 1 FROM n WHERE ns < 100000)
                 INSERT INTO points SELECT 1, ns, '{\"v\":1}' FROM n;",
            )
            .unwrap();
        let query = Query::parse([("from", "0"), ("to", "9223372036854775806")], 0).unwrap();
        let store = Embedded::new(path, "mine".to_owned());
        let mut shown = 0;
        let mut count = |_: i64, _: &str, _: Fields| {
            shown += 1;
            ControlFlow::Continue(())
        };
        assert_eq!(store.each(&query, soon(), &mut count), Ok(true));
        assert_eq!(shown, 100_001);
        // It may open the file, and then no more.
        let late = store.each(&query, Instant::now(), |_, _, _| ControlFlow::Continue(())).unwrap_err();
        assert!(late.contains("takes too long") && late.contains("shorter"), "{late}");
    }
}
