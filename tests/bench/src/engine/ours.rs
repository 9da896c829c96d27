//! Forebay's own journal. The one file that knows its interface.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use forebay_gateway::journal::entry::{Entry, Fields, RowEntry};
use forebay_gateway::journal::{Class, Journal, Options, Read, Refused, Submission};
use forebay_gateway::record::{Offset, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{BATCH_ROWS, Engine, Setup, Ticket};
use crate::workload::{Record, Workload};

const SINK: &str = "bench";

/// Rows in one submission at most, which keeps it well below the largest that the journal takes.
const SUBMISSION_ROWS_MAX: u64 = 1_000;

/// Bytes before an encoded entry, in which the journal keeps its length.
const LENGTH_BYTES: usize = 2;

/// When a journal that does not move counts as broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn settings() -> String {
    "segments of max_bytes / 16, at most 16 MiB; submissions of at most 1,000 rows; one sink".into()
}

/// Encodes records as the journal does.
#[derive(Debug)]
pub(crate) struct Encoder {
    fields: Vec<(String, Value)>,
}

/// The journal, as the gateway uses it.
pub(crate) struct Ours {
    journal: Journal,
    receipts: Receipts,
    room: watch::Receiver<u64>,
    workload: Workload,
    encoder: Encoder,
    confirmed: Vec<(Box<str>, u64)>,
    trim: bool,
    unconfirmed: u64,
}

/// Sees receipts resolve.
pub(crate) struct Receipts {
    watermark: watch::Receiver<Offset>,
    runtime: Runtime,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        let field = |name: &str| (name.to_owned(), Value::Float(0.0));
        Encoder { fields: vec![field("temperature"), field("humidity")] }
    }

    /// Appends the encoded record to `out` and returns what was appended, the length in front of it left out.
    pub(crate) fn encode<'o>(&mut self, record: &Record<'_>, out: &'o mut Vec<u8>) -> Result<&'o [u8]> {
        let start = out.len();
        self.entry(record).encode(out)?;
        Ok(&out[start + LENGTH_BYTES..])
    }

    fn entry<'a>(&'a mut self, record: &Record<'a>) -> Entry<'a> {
        self.fields[0].1 = Value::Float(record.temperature);
        self.fields[1].1 = Value::Float(record.humidity);
        Entry::Row(RowEntry {
            device: record.device,
            boot: 0,
            sequence: 0,
            stamped: false,
            series: record.series,
            ns: record.ns,
            fields: Fields::of(&self.fields),
        })
    }
}

/// Timestamp of an encoded record.
pub(crate) fn ns_of_body(body: &[u8]) -> Result<i64> {
    match Entry::decode(body)? {
        Entry::Row(row) => Ok(row.ns),
        entry => bail!("{entry:?} is not a record"),
    }
}

impl Ours {
    pub(crate) fn open(directory: &Path, setup: &Setup) -> Result<Ours> {
        let options = Options {
            commit_interval: Duration::from_millis(setup.commit_interval_ms),
            ..Options::sized(setup.max_bytes)
        };
        let (journal, _) = Journal::open_dir(directory, &options)?;
        journal.register_sink(SINK)?;
        let workload = Workload::new();
        let confirmed = workload.devices().map(|device| (device.into(), BATCH_ROWS / 64)).collect();
        Ok(Ours {
            receipts: Receipts::of(&journal)?,
            room: journal.room(),
            journal,
            workload,
            encoder: Encoder::new(),
            confirmed,
            trim: setup.trim,
            unconfirmed: 0,
        })
    }

    /// A second view of the receipts, for another thread.
    pub(crate) fn receipts(&self) -> Result<Receipts> {
        Receipts::of(&self.journal)
    }

    /// Commits since the start.
    pub(crate) fn commits(&self) -> u64 {
        self.journal.commits().commits
    }

    /// Everything below is durable.
    pub(crate) fn durable(&self) -> Ticket {
        self.receipts.durable()
    }

    fn submit_once(&mut self, records: Range<u64>) -> Result<Offset, Refused> {
        let Ours { journal, workload, encoder, .. } = self;
        let confirms = self.trim && self.unconfirmed >= BATCH_ROWS;
        let durable = Offset(self.receipts.durable().0);
        let confirmed = self.confirmed.as_slice();
        let fill = |submission: &mut Submission<'_>| {
            for number in records {
                submission.add(&encoder.entry(&workload.record(number)))?;
            }
            if confirms { submission.add_cursor(SINK, durable, confirmed) } else { Ok(()) }
        };
        let (_, receipt) = journal.submit(Class::Foreign, |_, submission| fill(submission))?;
        if confirms {
            self.unconfirmed = 0;
        }
        Ok(receipt)
    }
}

impl Engine for Ours {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        let mut ticket = Ticket::default();
        let mut next = records.start;
        while next < records.end {
            let part = next..records.end.min(next + SUBMISSION_ROWS_MAX);
            self.room.mark_unchanged();
            match self.submit_once(part.clone()) {
                Ok(receipt) => {
                    ticket = Ticket(receipt.0);
                    self.unconfirmed += part.end - part.start;
                    next = part.end;
                }
                Err(Refused::Busy | Refused::Full) => {
                    let room = self.room.changed();
                    let changed = self.receipts.runtime.block_on(async { timeout(PATIENCE, room).await });
                    changed.context("the journal takes nothing any more")??;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        // Whoever submits here sends nothing more before it is durable.
        self.journal.hurry();
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<()> {
        self.receipts.wait(ticket)?;
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        let mut reader = self.journal.reader(Offset(0));
        loop {
            match reader.next()? {
                Read::Frame(frame) => {
                    for (_, entry) in frame.entries() {
                        if let Entry::Row(row) = entry? {
                            return Ok(row.ns);
                        }
                    }
                }
                Read::Damaged { from, to } => bail!("the entries {from} to {to} are damaged"),
                Read::Wait => bail!("the journal holds no record"),
            }
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.journal.close();
        Ok(())
    }
}

impl Receipts {
    fn of(journal: &Journal) -> Result<Receipts> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        Ok(Receipts { watermark: journal.watermark(), runtime })
    }

    /// Returns when what the ticket was given for is durable, and what is by then.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> Result<Ticket> {
        let Receipts { watermark, runtime } = self;
        let durable = if watermark.borrow().0 >= ticket.0 {
            watermark.borrow().0
        } else {
            let reached = watermark.wait_for(|watermark| watermark.0 >= ticket.0);
            let reached = runtime.block_on(async { timeout(PATIENCE, reached).await });
            reached.context("the journal commits nothing any more")??.0
        };
        Ok(Ticket(durable))
    }

    fn durable(&self) -> Ticket {
        Ticket(self.watermark.borrow().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::ns_of;

    #[test]
    fn every_record_has_the_same_length_and_comes_back() {
        let workload = Workload::new();
        let mut encoder = Encoder::new();
        for number in (0..1_000).chain([u64::from(u32::MAX)]) {
            let mut out = Vec::new();
            let body = encoder.encode(&workload.record(number), &mut out).unwrap();
            assert_eq!(body.len(), 105, "record {number}");
            assert_eq!(ns_of_body(body).unwrap(), ns_of(number));
        }
    }
}
