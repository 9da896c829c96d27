//! The least that durability costs: 4 KiB over zeros that were written before, and fdatasync.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

const FILE_BYTES: u64 = 16 << 20;
const WRITE_BYTES: usize = 4 << 10;

/// A file that is overwritten bit by bit.
#[derive(Debug)]
pub(crate) struct Bare {
    file: File,
    at: u64,
    pub(crate) samples: Vec<Duration>,
}

impl Bare {
    /// Fills the file with zeros.
    pub(crate) fn create(directory: &Path) -> Result<Bare> {
        let file = File::create(directory.join("bare"))?;
        // Larger writes make larger folios, which cost each later write into them more.
        let zeros = vec![0; 64 << 10];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Bare { file, at: 0, samples: Vec::new() })
    }

    /// Writes and syncs for so long.
    pub(crate) fn run(&mut self, ms: u64) -> Result<()> {
        let (start, limit) = (Instant::now(), Duration::from_millis(ms));
        while start.elapsed() < limit {
            let block = [self.samples.len() as u8 | 1; WRITE_BYTES];
            let began = Instant::now();
            self.file.write_all_at(&block, self.at)?;
            self.file.sync_data()?;
            self.samples.push(began.elapsed());
            self.at = (self.at + WRITE_BYTES as u64) % FILE_BYTES;
        }
        Ok(())
    }
}
