//! The write-behind cache: the recent tail of the journal in memory, and the latest row of each series.
//!
//! Constraint: the path of a row through the commit must not pay for readers. The tail costs one copy of a commit; the
//! latest rows cost nothing there, because they follow the journal at their owner's pace.
//!
//! Operation: [`Recent`] keeps whole committed frames, newest first to stay, up to [`RECENT_BYTES_MAX`]. [`Latest`]
//! reads frames as delivery does and keeps the row with the highest timestamp per series, as copies of its fields.
//!
//! Failure: nothing here is needed for a promise; whoever misses a frame here reads it from disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::journal::clocks::Fixes;
use crate::journal::entry::{Entry, RowEntry};
use crate::journal::{Frame, Journal, Read, ReadError, Reader};
use crate::record::{MachineBoot, Offset, Value};

/// Bytes of frames kept in memory.
pub const RECENT_BYTES_MAX: usize = 2 << 20;

/// The frames committed last.
#[derive(Debug)]
pub struct Recent {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// Keeps at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Recent {
        Recent { frames: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the next frame and lets go of the oldest.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes();
        self.frames.push_back(Arc::new(frame));
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// The frame that holds `offset`, if it is still here.
    #[must_use]
    pub fn get(&self, offset: Offset) -> Option<Arc<Frame>> {
        let at = self.frames.partition_point(|frame| frame.end() <= offset);
        self.frames.get(at).filter(|frame| frame.first() <= offset).cloned()
    }
}

/// The latest row of each series, at most `series_max` of them.
#[derive(Debug)]
pub struct Latest {
    rows: HashMap<Box<str>, LatestRow>,
    reader: Reader,
    series_max: usize,
    untracked: u64,
    fixes: Arc<Fixes>,
    now_ns: i64,
}

/// The row of one series with the highest timestamp; an early one, until its clock is fixed, if it came last.
#[derive(Clone, Debug, PartialEq)]
pub struct LatestRow {
    /// Ledger key of the device.
    pub device: Box<str>,
    /// Nanoseconds since 1970 UTC, or of the steady clock if there is a boot of the machine.
    pub ns: i64,
    /// The boot of the machine that an early row came in.
    pub machine: Option<MachineBoot>,
    /// Names and values.
    pub fields: Vec<(String, Value)>,
    /// When it was seen here, in nanoseconds since 1970 by the gateway's clock, to a second or so.
    pub seen_ns: i64,
    /// What one of its numbers was lately.
    pub spark: Spark,
}

/// The latest values of one field, oldest first, for a small picture: at most one in [`Spark::SPACING_NS`], at most
/// [`Spark::VALUES_MAX`]. It is the first number of the first row; another one follows when that has been away for
/// [`Spark::PATIENCE_NS`] and from [`Spark::PATIENCE_ROWS`] rows, and begins anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spark {
    field: Box<str>,
    values: VecDeque<f32>,
    last_ns: i64,
    /// Rows without the field, one after the other.
    lacking: u32,
}

impl Spark {
    /// Values that are kept.
    pub const VALUES_MAX: usize = 48;
    /// How far apart they are at least, by the time of their rows.
    pub const SPACING_NS: u64 = 5_000_000_000;
    /// How long rows may lack the field, by their time.
    pub const PATIENCE_NS: u64 = 300_000_000_000;
    /// How many rows may lack it.
    pub const PATIENCE_ROWS: u32 = 10;

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.values.iter().copied()
    }

    fn take(&mut self, fields: &[(String, Value)], ns: i64) {
        // Either way: a row that waits for its time has another clock.
        let since_ns = if self.values.is_empty() { u64::MAX } else { ns.abs_diff(self.last_ns) };
        if since_ns < Spark::SPACING_NS {
            return;
        }
        let mut numbers = fields.iter().filter_map(|(name, value)| Some((name, as_f32(value)?)));
        let own = numbers.clone().find(|(name, _)| ***name == *self.field);
        self.lacking = if own.is_some() { 0 } else { self.lacking.saturating_add(1) };
        let is_away =
            self.values.is_empty() || since_ns >= Spark::PATIENCE_NS && self.lacking >= Spark::PATIENCE_ROWS;
        let Some((name, value)) = own.or_else(|| numbers.next().filter(|_| is_away)) else { return };
        if **name != *self.field {
            (self.field, self.values) = (name.as_str().into(), VecDeque::new());
        }
        self.last_ns = ns;
        self.values.push_back(value);
        if self.values.len() > Spark::VALUES_MAX {
            self.values.pop_front();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a picture of a few pixels needs no more digits")]
fn as_f32(value: &Value) -> Option<f32> {
    match value {
        Value::Float(value) => Some(*value as f32),
        Value::Integer(value) => Some(*value as f32),
        Value::Unsigned(value) => Some(*value as f32),
        Value::Boolean(_) | Value::Text(_) => None,
    }
}

impl Latest {
    /// Starts at the journal's present watermark.
    #[must_use]
    pub fn new(journal: &Journal, series_max: usize) -> Latest {
        let reader = journal.reader(*journal.watermark().borrow());
        Latest { rows: HashMap::new(), reader, series_max, untracked: 0, fixes: Arc::default(), now_ns: 0 }
    }

    /// Takes in everything that was committed since the last call; call it about once a second, and before an answer. The time
    /// is `now_ns`, in nanoseconds since 1970.
    ///
    /// # Errors
    /// The journal cannot be read; what was taken in stands.
    pub fn catch_up(&mut self, now_ns: i64) -> Result<(), ReadError> {
        self.now_ns = now_ns;
        let fixes = self.reader.fixes();
        if fixes != self.fixes {
            self.rows.values_mut().for_each(|row| row.date(&fixes));
            self.fixes = fixes;
        }
        loop {
            match self.reader.next()? {
                Read::Frame(frame) => self.take_in(&frame),
                Read::Damaged { .. } => {}
                Read::Wait => return Ok(()),
            }
        }
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

    fn take_in(&mut self, frame: &Frame) {
        for (_, entry) in frame.entries() {
            match entry.map(|entry| self.fixes.date(entry)) {
                Ok(Entry::Row(row)) => self.take_in_row(&row, None),
                Ok(Entry::EarlyRow(machine, row)) => self.take_in_row(&row, Some(machine)),
                _ => {}
            }
        }
    }

    fn take_in_row(&mut self, row: &RowEntry<'_>, machine: Option<MachineBoot>) {
        if let Some(known) = self.rows.get_mut(row.series) {
            if row.ns >= known.ns || machine != known.machine {
                known.replace(row, machine, self.now_ns);
            }
        } else if self.rows.len() < self.series_max {
            let mut latest = LatestRow {
                device: row.device.into(),
                ns: row.ns,
                machine,
                fields: Vec::new(),
                seen_ns: self.now_ns,
                spark: Spark::default(),
            };
            latest.replace(row, machine, self.now_ns);
            self.rows.insert(row.series.into(), latest);
        } else {
            self.untracked += 1;
        }
    }
}

impl LatestRow {
    /// Gives an early row its time, if that is known.
    fn date(&mut self, fixes: &Fixes) {
        if let Some(ns) = self.machine.and_then(|machine| fixes.ns(machine, self.ns)) {
            (self.ns, self.machine, self.spark.last_ns) = (ns, None, ns);
        }
    }

    /// Overwrites in place, since a series nearly always keeps its fields.
    fn replace(&mut self, row: &RowEntry<'_>, machine: Option<MachineBoot>, now_ns: i64) {
        (self.ns, self.machine, self.seen_ns) = (row.ns, machine, now_ns);
        let mut kept = 0;
        for (name, value) in row.fields.iter() {
            match self.fields.get_mut(kept) {
                Some((old_name, old_value)) if old_name == name => *old_value = value.to_value(),
                Some(old) => *old = (name.to_owned(), value.to_value()),
                None => self.fields.push((name.to_owned(), value.to_value())),
            }
            kept += 1;
        }
        self.fields.truncate(kept);
        self.spark.take(&self.fields, row.ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_NS: i64 = Spark::SPACING_NS.cast_signed();

    fn fields(of: &[(&str, f64)]) -> Vec<(String, Value)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), Value::Float(*value))).collect()
    }

    #[test]
    fn a_picture_is_of_one_field_while_rows_have_it() {
        let mut spark = Spark::default();
        let (both, other) = (fields(&[("h", 40.0), ("t", 21.0)]), fields(&[("h", 41.0)]));
        spark.take(&fields(&[("t", 20.0)]), 0);
        spark.take(&both, STEP_NS - 1);
        spark.take(&both, STEP_NS);
        spark.take(&other, 2 * STEP_NS);
        spark.take(&[], 3 * STEP_NS);
        assert_eq!(spark.values().collect::<Vec<_>>(), [20.0, 21.0]);
        let away_ns = STEP_NS + Spark::PATIENCE_NS.cast_signed();
        spark.take(&other, away_ns);
        assert_eq!(spark.values().count(), 2, "t comes rarely");
        (0..Spark::PATIENCE_ROWS).for_each(|_| spark.take(&other, away_ns));
        assert_eq!(spark.values().collect::<Vec<_>>(), [41.0], "t is away");
    }
}
