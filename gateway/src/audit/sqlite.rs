//! Counting in the embedded store. The file is this gateway's alone, and counts itself what its retention deletes.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::Counts;
use crate::ingest::GAP_MEASUREMENT;

/// How long SQLite itself waits for somebody else's lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// What stands for what was deleted before that was counted.
const EARLIER: &str = "(earlier)";
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Counts the points of each device.
///
/// # Errors
/// Why the file cannot be read, or that it takes too long.
pub(super) fn count(path: &Path, deadline: Instant) -> Result<Counts, String> {
    if !path.exists() {
        let remark = format!("there is no file {}; `forebay check` says what to do", path.display());
        return Ok(Counts { remark: Some(remark), ..Counts::default() });
    }
    read(path, deadline).map_err(|error| {
        let late = error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted);
        let why =
            if late { "takes too long to count".to_owned() } else { format!("cannot be read: {error}") };
        format!("{} {why}", path.display())
    })
}

fn read(path: &Path, deadline: Instant) -> rusqlite::Result<Counts> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
    let transaction = connection.unchecked_transaction()?;
    let mut counts = Counts::default();
    // The file of a store that is just being made has no tables yet.
    if !transaction.table_exists(None, "points")? {
        return Ok(counts);
    }
    let mut series = transaction.prepare(
        "SELECT device, (SELECT count(*) FROM points WHERE points.series = series.id)
         FROM series WHERE measurement <> ?1",
    )?;
    let mut rows = series.query([GAP_MEASUREMENT])?;
    while let Some(row) = rows.next()? {
        let device = row.get::<_, Option<String>>(0)?.unwrap_or_default();
        let counted = counts.devices.entry(device).or_default();
        counted.own = counted.own.saturating_add(row.get::<_, i64>(1)?.cast_unsigned());
    }
    drop(rows);
    drop(series);
    let has_swept = transaction.table_exists(None, "swept")?;
    let mut uncounted = !has_swept;
    if has_swept {
        let mut swept = transaction.prepare("SELECT device, points FROM swept")?;
        let mut rows = swept.query([])?;
        while let Some(row) = rows.next()? {
            let device: String = row.get(0)?;
            uncounted |= device == EARLIER;
            let counted = counts.devices.entry(device).or_default();
            counted.swept = counted.swept.saturating_add(row.get::<_, i64>(1)?.cast_unsigned());
        }
    }
    if uncounted {
        counts.excuse = Some(
            "the file was made by a version that did not count what its retention deletes; what is missing may be that"
                .to_owned(),
        );
    }
    Ok(counts)
}
