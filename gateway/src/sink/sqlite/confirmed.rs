//! How many rows the file has confirmed, by device, so that a file that was lost or put back tells what it lacks.
//!
//! Operation: rows are counted in the transaction that stores them. A row below the file's own cursor was counted before.
//! Delivery may give others twice, and where a life ended between the file and the journal the file is ahead of the ledger;
//! then it counts more, and a comparison sets its counts and its cursor back to what the ledger knows. It never counts
//! less unless it has lost something: what a comparison reports as missing is missing.
//!
//! An earlier version does not count. It leaves no `counted` beside the cursor that it writes, and a file of its takes the
//! ledger's word once.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{as_stored, position};
use crate::record::Offset;
use crate::sink::batch::Part;

/// What a file of an earlier version lacks.
pub(super) const UPGRADE: &str = "BEGIN IMMEDIATE;
     ALTER TABLE delivery ADD COLUMN counted INTEGER;
     CREATE TABLE confirmed (device TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
     COMMIT;";

/// Counts the rows of a part that is being stored, before the file's cursor moves; whether all are counted that the file has.
pub(super) fn count(transaction: &Transaction<'_>, journal: &str, part: &Part<'_>) -> rusqlite::Result<bool> {
    let (from, is_counted) = begin(transaction, journal)?;
    let mut rows: HashMap<&str, i64> = HashMap::new();
    for device in part.devices_from(from) {
        *rows.entry(device).or_default() += 1;
    }
    let mut add = transaction.prepare(
        "INSERT INTO confirmed (device, rows) VALUES (?1, ?2)
         ON CONFLICT (device) DO UPDATE SET rows = rows + excluded.rows",
    )?;
    for (device, rows) in rows {
        add.execute(params![device, rows])?;
    }
    Ok(is_counted)
}

/// How many rows the file lacks of what the ledger counts, in the ledger's order. The file must have been given everything
/// below `to`, of which the ledger tells; what it has beyond that it is given again, and counts it then.
pub(super) fn compare(
    transaction: &Transaction<'_>,
    journal: &str,
    to: Offset,
    ledger: &[(Box<str>, u64)],
) -> rusqlite::Result<Vec<u64>> {
    let (_, is_counted) = begin(transaction, journal)?;
    let mut counted = transaction.prepare("SELECT rows FROM confirmed WHERE device = ?1")?;
    let mut set = transaction.prepare("INSERT OR REPLACE INTO confirmed (device, rows) VALUES (?1, ?2)")?;
    let mut lacks = Vec::with_capacity(ledger.len());
    for (device, rows) in ledger {
        let known: Option<i64> = counted.query_row([&**device], |row| row.get(0)).optional()?;
        let known = known.map_or(0, i64::cast_unsigned);
        let lack = if is_counted { rows.saturating_sub(known) } else { 0 };
        if known != rows - lack {
            set.execute(params![device, (rows - lack).cast_signed()])?;
        }
        lacks.push(lack);
    }
    transaction.execute("UPDATE delivery SET counted = 1, next = ?1", [as_stored(to)])?;
    Ok(lacks)
}

/// Below which offset everything is counted, and whether all is that the file has of this journal. What was counted of
/// another one is forgotten.
fn begin(transaction: &Transaction<'_>, journal: &str) -> rusqlite::Result<(Offset, bool)> {
    if let Some((next, is_counted)) = position(transaction, journal)? {
        return Ok((next, is_counted));
    }
    transaction.execute("DELETE FROM confirmed", [])?;
    Ok((Offset(0), true))
}
