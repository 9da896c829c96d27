//! SQLite as a journal: one table, write-ahead log, a sync for each transaction.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::{Connection, params};

use super::{Confirmed, Engine, Source, Ticket, ours};

pub(crate) fn settings() -> String {
    format!(
        "SQLite {}: journal_mode=WAL, synchronous=FULL, locking_mode=EXCLUSIVE, the other settings as they come; prepared INSERT, one transaction a commit",
        rusqlite::version()
    )
}

pub(crate) struct Sqlite {
    connection: Connection,
    source: Source,
    confirmed: Confirmed,
}

impl Sqlite {
    pub(crate) fn open(directory: &Path, trim: bool) -> Result<Sqlite> {
        std::fs::create_dir_all(directory)?;
        let connection = Connection::open(directory.join("journal.sqlite"))?;
        // One process has the file, so nothing has to be shared with another.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        ensure!(mode == "wal", "SQLite chose the journal mode {mode}");
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
        )?;
        Ok(Sqlite { connection, source: Source::new(), confirmed: Confirmed::new(trim) })
    }
}

impl Engine for Sqlite {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO journal VALUES (?1, ?2)")?;
        let confirmed = self.confirmed.take(&records);
        for number in records {
            insert.execute(params![number as i64, self.source.body(number)?])?;
        }
        drop(insert);
        if let Some(confirmed) = confirmed {
            let mut delete = transaction.prepare_cached("DELETE FROM journal WHERE number < ?1")?;
            delete.execute([confirmed.end as i64])?;
        }
        transaction.commit()?;
        Ok(Ticket::default())
    }

    fn wait(&mut self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        let select = "SELECT body FROM journal ORDER BY number LIMIT 1";
        let body: Vec<u8> = self.connection.query_row(select, [], |row| row.get(0))?;
        ours::ns_of_body(&body)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.connection.close().map_err(|(_, error)| error.into())
    }
}
