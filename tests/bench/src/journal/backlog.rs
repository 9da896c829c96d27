//! Part (c): a backlog that waits on disk, opened by a process that has nothing of it in memory.
//!
//! The page cache forgets the contents of the files before each opening; what the file system knows of the files
//! themselves stays, for all engines alike.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::WARM_UP_COMMIT;
use crate::engine::Setup;
use crate::process::peak_rss_mib;
use crate::task::Task;
use crate::workload::ns_of;

/// Writes a backlog and ends as a killed process does: everything is durable, nothing is closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fill {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    pub(crate) records: u64,
}

/// Opens a backlog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) setup: Setup,
    pub(crate) directory: PathBuf,
    /// Number that no record has yet.
    pub(crate) next: u64,
    /// Whether it is closed in good order, or left as by a killed process.
    pub(crate) close: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct OpenOutcome {
    /// From the start until the oldest record has been read and a new one is durable.
    pub(crate) ready_s: f64,
    /// The most memory that it took until then.
    pub(crate) rss_mib: f64,
}

impl Task for Fill {
    const NAME: &'static str = "fill";
    type Outcome = ();

    fn run(&self) -> Result<()> {
        let mut engine = self.setup.open(&self.directory)?;
        for first in (0..self.records).step_by(WARM_UP_COMMIT as usize) {
            let ticket = engine.submit(first..self.records.min(first + WARM_UP_COMMIT))?;
            engine.wait(ticket)?;
        }
        std::mem::forget(engine);
        Ok(())
    }
}

impl Task for Open {
    const NAME: &'static str = "open";
    type Outcome = OpenOutcome;

    fn run(&self) -> Result<OpenOutcome> {
        let start = Instant::now();
        let mut engine = self.setup.open(&self.directory)?;
        // An empty one has to be written to before it can be read from.
        let written_first = self.next == 0;
        if !written_first {
            ensure!(engine.first_ns()? == ns_of(0), "the first record is another");
        }
        let ticket = engine.submit(self.next..self.next + 1)?;
        engine.wait(ticket)?;
        if written_first {
            ensure!(engine.first_ns()? == ns_of(0), "the first record is another");
        }
        let outcome = OpenOutcome { ready_s: start.elapsed().as_secs_f64(), rss_mib: peak_rss_mib()? };
        if self.close {
            engine.close()?;
        } else {
            std::mem::forget(engine);
        }
        Ok(outcome)
    }
}
