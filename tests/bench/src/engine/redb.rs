//! redb as a journal: one table, an immediate commit for each transaction.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Confirmed, Engine, Source, Ticket, ours};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");

pub(crate) fn settings() -> String {
    "redb 4.6: defaults; one write transaction a commit with Durability::Immediate".into()
}

pub(crate) struct Redb {
    database: Database,
    source: Source,
    confirmed: Confirmed,
}

impl Redb {
    pub(crate) fn open(directory: &Path, trim: bool) -> Result<Redb> {
        std::fs::create_dir_all(directory)?;
        Ok(Redb {
            database: Database::create(directory.join("journal.redb"))?,
            source: Source::new(),
            confirmed: Confirmed::new(trim),
        })
    }
}

impl Engine for Redb {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut table = transaction.open_table(TABLE)?;
        if let Some(confirmed) = self.confirmed.take(&records) {
            table.retain_in(confirmed, |_, _| false)?;
        }
        for number in records {
            table.insert(number, self.source.body(number)?)?;
        }
        drop(table);
        transaction.commit()?;
        Ok(Ticket::default())
    }

    fn wait(&mut self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let (_, body) = table.first()?.context("redb holds no record")?;
        ours::ns_of_body(body.value())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.close()?)
    }
}
