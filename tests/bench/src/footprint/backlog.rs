//! A journal full of rows that a database is still to get, as a killed gateway leaves it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use forebay_gateway::journal::entry::{Fields, RowEntry};
use forebay_gateway::journal::{Class, Entry, Journal, Options, Refused};
use forebay_gateway::record::Value;

use crate::workload::Workload;

/// The database that lacks everything.
pub(super) const SINK: &str = "main";

/// Rows of a submission.
const ROWS: u64 = 1_000;

/// The longest that the journal may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fills the journal of a data directory with so many bytes.
pub(super) fn fill(data_dir: &Path, bytes: u64) -> Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let (journal, _) = Journal::open_dir(&data_dir.join("journal"), &Options::sized(2 * bytes))?;
    journal.register_sink(SINK)?;
    let workload = Workload::new();
    let (mut next, mut since) = (0, Instant::now());
    while journal.usage().bytes < bytes {
        match submit(&journal, &workload, next) {
            Ok(()) => (next, since) = (next + ROWS, Instant::now()),
            Err(Refused::Busy) => {
                ensure!(since.elapsed() < PATIENCE, "the journal takes nothing any more");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(refused) => return Err(refused.into()),
        }
    }
    // Everything is durable once it is closed.
    journal.close();
    Ok(())
}

fn submit(journal: &Journal, workload: &Workload, first: u64) -> Result<(), Refused> {
    let add = |submission: &mut forebay_gateway::journal::Submission<'_>| {
        for sequence in first..first + ROWS {
            let record = workload.record(sequence);
            let field = |name: &str, value| (name.to_owned(), Value::Float(value));
            let fields = [field("temperature", record.temperature), field("humidity", record.humidity)];
            submission.add(&Entry::Row(RowEntry {
                device: record.device,
                boot: 0,
                sequence,
                stamped: false,
                series: record.series,
                ns: record.ns,
                fields: Fields::of(&fields),
            }))?;
        }
        Ok(())
    };
    journal.submit(Class::Foreign, |_, submission| add(submission)).map(drop)
}
