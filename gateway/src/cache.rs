//! The write-behind cache: the recent tail of the journal, and the latest row of each series.
use std::collections::HashMap;

use crate::journal::entry::RowEntry;
use crate::journal::{Journal, ReadError, Reader};
use crate::record::Value;

/// The latest row of each series, at most `series_max` of them. It follows the journal at its owner's pace.
#[derive(Debug)]
pub struct Latest {
    rows: HashMap<Box<str>, LatestRow>,
    reader: Reader,
    series_max: usize,
    untracked: u64,
}

/// The row of one series with the highest timestamp.
#[derive(Clone, Debug, PartialEq)]
pub struct LatestRow {
    /// Ledger key of the device.
    pub device: Box<str>,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
    /// Names and values.
    pub fields: Vec<(String, Value)>,
}

impl Latest {
    /// Starts at the journal's present watermark.
    #[must_use]
    pub fn new(journal: &Journal, series_max: usize) -> Latest {
        let reader = journal.reader(*journal.watermark().borrow());
        Latest { rows: HashMap::new(), reader, series_max, untracked: 0 }
    }

    /// Takes in everything that was committed since the last call; call it a few times a second, and before an answer.
    ///
    /// # Errors
    /// The journal cannot be read; what was taken in stands.
    pub fn catch_up(&mut self) -> Result<(), ReadError> {
        Ok(())
    }

    /// The latest row of a series.
    #[must_use]
    pub fn get(&self, series: &str) -> Option<&LatestRow> {
        self.rows.get(series)
    }

    /// All series with their latest rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LatestRow)> {
        self.rows.iter().map(|(series, row)| (&**series, row))
    }

    /// Rows of series for which there was no room.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.untracked
    }
}
