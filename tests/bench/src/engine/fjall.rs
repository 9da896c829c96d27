//! fjall as a journal: one keyspace, a synced batch for each commit.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Confirmed, Engine, Source, Ticket, ours};

pub(crate) fn settings() -> String {
    "fjall 3.1: defaults (memtable 64 MiB, LZ4); one batch a commit with PersistMode::SyncData".into()
}

pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    source: Source,
    confirmed: Confirmed,
}

impl Fjall {
    pub(crate) fn open(directory: &Path, trim: bool) -> Result<Fjall> {
        let database = Database::builder(directory).open()?;
        let keyspace = database.keyspace("journal", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, keyspace, source: Source::new(), confirmed: Confirmed::new(trim) })
    }
}

impl Engine for Fjall {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for number in self.confirmed.take(&records).into_iter().flatten() {
            batch.remove(&self.keyspace, number.to_be_bytes());
        }
        for number in records {
            batch.insert(&self.keyspace, number.to_be_bytes(), self.source.body(number)?);
        }
        batch.commit()?;
        Ok(Ticket::default())
    }

    fn wait(&mut self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        let first = self.keyspace.first_key_value().context("fjall holds no record")?;
        ours::ns_of_body(&first.value()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self);
        Ok(())
    }
}
