//! The least that any engine must do: encode, write over zeros that were written before, sync. No index, no checksum,
//! nothing that could be found again.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::{Engine, Source, Ticket};

const FILE_BYTES: u64 = 64 << 20;
const SECTOR_BYTES: u64 = 512;

pub(crate) fn settings() -> String {
    "for comparison: one pwrite over zeros and one fdatasync a commit in the caller's thread, nothing else"
        .into()
}

pub(crate) struct Floor {
    file: File,
    at: u64,
    source: Source,
    commit: Vec<u8>,
}

impl Floor {
    pub(crate) fn open(directory: &Path) -> Result<Floor> {
        fs::create_dir_all(directory)?;
        let file = File::create(directory.join("floor"))?;
        // Larger writes make larger folios, which cost each later write into them more.
        let zeros = vec![0; 64 << 10];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Floor { file, at: 0, source: Source::new(), commit: Vec::new() })
    }
}

impl Engine for Floor {
    fn submit(&mut self, records: Range<u64>) -> Result<Ticket> {
        self.commit.clear();
        for number in records {
            self.commit.extend_from_slice(self.source.body(number)?);
        }
        let length = (self.commit.len() as u64).next_multiple_of(SECTOR_BYTES);
        if self.at + length > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.commit, self.at)?;
        self.file.sync_data()?;
        self.at += length;
        Ok(Ticket::default())
    }

    fn wait(&mut self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn first_ns(&mut self) -> Result<i64> {
        bail!("nothing is found again")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
