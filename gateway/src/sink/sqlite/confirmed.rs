//! How many rows the file has confirmed, by device, so that a file that was lost or put back tells what it lacks.
//!
//! Operation: rows are counted in the transaction that stores them. A row below the file's own cursor was counted before.
//! Delivery may give others twice, where a life ended between the file and the journal; then the file counts more than
//! the ledger, and is set right when they are compared. It never counts less unless it has lost something: what a
//! comparison reports as missing is missing.
//!
//! A file that an earlier version has made does not know what it had confirmed before: it takes the ledger's word once.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::position;
use crate::record::Offset;
use crate::sink::batch::Part;

/// Stands among the devices of a file that an earlier version has made, until it was compared.
const EARLIER: &str = "(earlier)";

/// What a file of an earlier version lacks.
pub(super) const UPGRADE: &str = "BEGIN IMMEDIATE;
     CREATE TABLE IF NOT EXISTS confirmed (device TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
     INSERT OR IGNORE INTO confirmed (device, rows) VALUES ('(earlier)', 0);
     COMMIT;";

const SET: &str = "INSERT OR REPLACE INTO confirmed (device, rows) VALUES (?1, ?2)";

/// Counts the rows of a part that is being stored, before the file's cursor moves.
pub(super) fn count(transaction: &Transaction<'_>, journal: &str, part: &Part<'_>) -> rusqlite::Result<()> {
    let from = begin(transaction, journal)?;
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
    Ok(())
}

/// How many rows the file lacks of what the ledger counts, in the ledger's order. The file must have been given all of
/// that, and nothing else.
pub(super) fn compare(
    transaction: &Transaction<'_>,
    journal: &str,
    ledger: &[(Box<str>, u64)],
) -> rusqlite::Result<Vec<u64>> {
    begin(transaction, journal)?;
    let mut counted = transaction.prepare("SELECT rows FROM confirmed WHERE device = ?1")?;
    let mut set = transaction.prepare(SET)?;
    let is_of_earlier_version = counted.exists([EARLIER])?;
    let mut lacks = Vec::with_capacity(ledger.len());
    for (device, rows) in ledger {
        let known: Option<i64> = counted.query_row([&**device], |row| row.get(0)).optional()?;
        let known = known.map_or(0, i64::cast_unsigned);
        let lack = if is_of_earlier_version { 0 } else { rows.saturating_sub(known) };
        if known != rows - lack {
            set.execute(params![device, (rows - lack).cast_signed()])?;
        }
        lacks.push(lack);
    }
    if is_of_earlier_version {
        transaction.execute("DELETE FROM confirmed WHERE device = ?1", [EARLIER])?;
    }
    Ok(lacks)
}

/// Below it everything is counted. What was counted of another journal is forgotten.
fn begin(transaction: &Transaction<'_>, journal: &str) -> rusqlite::Result<Offset> {
    if let Some(next) = position(transaction, journal)? {
        return Ok(next);
    }
    transaction.execute("DELETE FROM confirmed", [])?;
    Ok(Offset(0))
}
