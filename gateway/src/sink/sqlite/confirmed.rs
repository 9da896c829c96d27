//! How many rows the file has confirmed, by device, so that a file that was lost or put back tells what it lacks.
//!
//! Operation: rows are counted in the transaction that stores them. A row below the file's own cursor was counted before,
//! so what a file has that is ahead of the ledger's cursor, because a life ended in between, is counted once. What is counted
//! too often nevertheless, or of a device that the ledger does not know, is set right by a comparison.
//!
//! Limits: what a comparison reports as missing is missing, but not all that is missing is reported where the file was given
//! rows again that the ledger has not counted as confirmed: those that its filter had left out before, or that it had refused.
//! Rows that the retention had deleted are missing from a file that is gone like all others.
//!
//! A file does not know what it has of this journal if a version has written to it that does not count, which leaves no
//! `counted` beside the cursor; if another journal was delivered to it meanwhile; or if it was made from a dump. Then it
//! takes the ledger's word once.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::as_stored;
use crate::record::Offset;

/// How far the file is in a journal.
pub(super) struct Standing {
    pub(super) next: Offset,
    /// Whether all is counted that the file has of it.
    pub(super) is_counted: bool,
}

/// Makes what a file of an earlier version lacks. One that is made anew from old tables has counts that say nothing.
pub(super) fn upgrade(connection: &Connection, is_remade: bool) -> rusqlite::Result<()> {
    if !connection.column_exists(None, "delivery", "counted")? {
        connection.execute_batch("ALTER TABLE delivery ADD COLUMN counted INTEGER")?;
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS confirmed (device TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID",
    )?;
    if is_remade {
        connection.execute("UPDATE delivery SET counted = NULL", [])?;
    }
    Ok(())
}

/// How far the file is in this journal; none if it has nothing of it.
pub(super) fn standing(connection: &Connection, journal: &str) -> rusqlite::Result<Option<Standing>> {
    Ok(row(connection)?.filter(|(of, _)| *of == *journal).map(|(_, standing)| standing))
}

/// The same when something is to be stored: what was counted of another journal is forgotten.
pub(super) fn begin(transaction: &Transaction<'_>, journal: &str) -> rusqlite::Result<Standing> {
    let row = row(transaction)?;
    let is_new = row.is_none();
    match row {
        Some((of, standing)) if of == *journal => Ok(standing),
        _ => {
            transaction.execute("DELETE FROM confirmed", [])?;
            Ok(Standing { next: Offset(0), is_counted: is_new })
        }
    }
}

/// Adds rows of devices.
pub(super) fn count(transaction: &Transaction<'_>, rows: &HashMap<&str, i64>) -> rusqlite::Result<()> {
    let mut add = transaction.prepare(
        "INSERT INTO confirmed (device, rows) VALUES (?1, ?2)
         ON CONFLICT (device) DO UPDATE SET rows = rows + excluded.rows",
    )?;
    for (device, rows) in rows {
        add.execute(params![device, rows])?;
    }
    Ok(())
}

/// How many rows the file lacks of what the ledger counts, in the ledger's order. The file must have been given everything
/// below `to`, of which the ledger tells; from there on it counts what it is given.
pub(super) fn compare(
    transaction: &Transaction<'_>,
    journal: &str,
    to: Offset,
    ledger: &[(Box<str>, u64)],
) -> rusqlite::Result<Vec<u64>> {
    let is_counted = match row(transaction)? {
        // Nothing was ever stored.
        None => return Ok(ledger.iter().map(|(_, rows)| *rows).collect()),
        // What it has of this journal, and has counted, is of before that other one.
        Some((of, _)) if of != *journal => return Ok(vec![0; ledger.len()]),
        Some((_, standing)) => standing.is_counted,
    };
    let mut all = transaction.prepare("SELECT device, rows FROM confirmed")?;
    let known =
        all.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    let known: HashMap<String, u64> = known.collect::<Result<_, _>>()?;
    let lack = |(device, rows): &(Box<str>, u64)| match is_counted {
        true => rows.saturating_sub(known.get(&**device).copied().unwrap_or(0)),
        false => 0,
    };
    let lacks: Vec<u64> = ledger.iter().map(lack).collect();
    transaction.execute("DELETE FROM confirmed", [])?;
    let mut set = transaction.prepare("INSERT INTO confirmed (device, rows) VALUES (?1, ?2)")?;
    for ((device, rows), lack) in ledger.iter().zip(&lacks) {
        set.execute(params![device, (rows - lack).cast_signed()])?;
    }
    transaction.execute("UPDATE delivery SET counted = 1, next = ?1", [as_stored(to)])?;
    Ok(lacks)
}

/// The journal that the file was last delivered of, and how far.
fn row(connection: &Connection) -> rusqlite::Result<Option<(String, Standing)>> {
    let query = "SELECT journal, next, counted FROM delivery";
    let standing = |next: i64, counted: Option<i64>| Standing {
        next: Offset(next.cast_unsigned()),
        is_counted: counted.is_some(),
    };
    let row = connection.query_row(query, [], |row| Ok((row.get(0)?, standing(row.get(1)?, row.get(2)?))));
    row.optional()
}
