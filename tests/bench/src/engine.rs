//! The engines, behind the few calls that a journal needs.
//!
//! Constraint: all of them store the same bytes for a record, made in the same way ([`ours::Encoder`]), and do the same
//! work: append, and let go of what a database has confirmed, [`BATCH_ROWS`] at a time, in the transaction of a commit.
//! Ours cannot be spared the latter, since that is how its files are recycled; the others can (`--append-only`).

mod fjall;
mod floor;
pub(crate) mod ours;
mod redb;
mod sqlite;

use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// A durable log of records, seen by its only writer.
pub(crate) trait Engine {
    /// Hands records in as one commit. An engine that cannot go on meanwhile returns when they are durable.
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket>;

    /// Returns when what the ticket was given for is durable.
    fn wait(&mut self, ticket: Ticket) -> Result<()>;

    /// Reads the oldest record and returns its timestamp.
    fn first_ns(&mut self) -> Result<i64>;

    /// Shuts down as a program does that ends in good order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What a submission is waited for by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Rows that a database confirms at once.
const BATCH_ROWS: u64 = 5_000;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Ours,
    Sqlite,
    Fjall,
    Redb,
    /// Writes and syncs and does nothing else: what any engine must spend.
    Floor,
    /// Makes and encodes the records and drops them: what feeding an engine costs.
    Nothing,
}

/// How an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// Whether records are let go of as soon as they are durable.
    pub(crate) trim: bool,
    /// Limit of ours.
    pub(crate) max_bytes: u64,
    /// Commit interval of ours.
    pub(crate) commit_interval_ms: u64,
}

impl Kind {
    /// The engines compared.
    pub(crate) const ALL: [Kind; 4] = [Kind::Ours, Kind::Sqlite, Kind::Fjall, Kind::Redb];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Sqlite => "sqlite",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::Floor => "floor",
            Kind::Nothing => "nothing",
        }
    }

    /// What it is and how it is set.
    pub(crate) fn settings(self) -> String {
        match self {
            Kind::Ours => ours::settings(),
            Kind::Sqlite => sqlite::settings(),
            Kind::Fjall => fjall::settings(),
            Kind::Redb => redb::settings(),
            Kind::Floor => floor::settings(),
            Kind::Nothing => "makes and encodes the records only".into(),
        }
    }
}

impl Setup {
    /// Opens or creates the engine in a directory.
    pub(crate) fn open(&self, directory: &Path) -> Result<Box<dyn Engine>> {
        Ok(match self.kind {
            Kind::Ours => Box::new(ours::Ours::open(directory, self)?),
            Kind::Sqlite => Box::new(sqlite::Sqlite::open(directory, self.trim)?),
            Kind::Fjall => Box::new(fjall::Fjall::open(directory, self.trim)?),
            Kind::Redb => Box::new(redb::Redb::open(directory, self.trim)?),
            Kind::Floor => Box::new(floor::Floor::open(directory)?),
            Kind::Nothing => Box::new(Nothing::new()),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes the bytes that every engine but ours stores; ours makes the same ones in place.
pub(crate) struct Source {
    workload: Workload,
    encoder: ours::Encoder,
    body: Vec<u8>,
}

impl Source {
    pub(crate) fn new() -> Source {
        Source { workload: Workload::new(), encoder: ours::Encoder::new(), body: Vec::new() }
    }

    /// The record of a number, encoded.
    pub(crate) fn body(&mut self, number: u64) -> Result<&[u8]> {
        self.body.clear();
        self.encoder.encode(&self.workload.record(number), &mut self.body)
    }
}

/// What a database has confirmed, for an engine that knows its records by their numbers.
struct Confirmed {
    trim: bool,
    /// Everything below has been let go of.
    gone: u64,
}

impl Confirmed {
    fn new(trim: bool) -> Confirmed {
        Confirmed { trim, gone: 0 }
    }

    /// What the commit of `records` has to let go of, if a batch has come together since the last time.
    fn take(&mut self, records: &Range<u64>) -> Option<Range<u64>> {
        let due = self.trim && records.start - self.gone >= BATCH_ROWS;
        due.then(|| std::mem::replace(&mut self.gone, records.start)..records.start)
    }
}

struct Nothing {
    source: Source,
    bytes: usize,
}

impl Nothing {
    fn new() -> Nothing {
        Nothing { source: Source::new(), bytes: 0 }
    }
}

impl Engine for Nothing {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        for number in records {
            self.bytes += std::hint::black_box(self.source.body(number)?).len();
        }
        Ok(Ticket::default())
    }

    fn wait(&mut self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        anyhow::bail!("nothing was stored")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_commits_trims_and_finds_the_oldest_record_again() {
        for kind in Kind::ALL {
            let directory = tempfile::tempdir().unwrap();
            let setup = Setup { kind, trim: false, max_bytes: 16 << 20, commit_interval_ms: 0 };
            let path = directory.path().join("journal");
            let mut engine = setup.open(&path).unwrap();
            let ticket = engine.submit(0..2_500).unwrap();
            engine.wait(ticket).unwrap();
            engine.close().unwrap();
            let mut engine = setup.open(&path).unwrap();
            assert_eq!(engine.first_ns().unwrap(), crate::workload::ns_of(0), "{kind}");
            engine.close().unwrap();
            let mut engine = Setup { trim: true, ..setup }.open(&path).unwrap();
            for first in (2_500..200_000).step_by(2_500) {
                let ticket = engine.submit(first..first + 2_500).unwrap();
                engine.wait(ticket).unwrap();
            }
            assert_ne!(engine.first_ns().unwrap(), crate::workload::ns_of(0), "{kind}");
            engine.close().unwrap();
        }
    }
}
