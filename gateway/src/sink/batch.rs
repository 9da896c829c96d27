//! Batches: records of a run of the journal, on their way to one sink.
//!
//! A batch holds the journal's frames, not copies of their records; it decodes them anew for each use. Its points are
//! numbered from 0, so that the decisions of [`crate::delivery`] need to know nothing of the journal.

use std::ops::Range;
use std::sync::Arc;

use crate::journal::Frame;
use crate::journal::clocks::Fixes;
use crate::journal::entry::{Entry, Fields, GapEntry, RowEntry};
use crate::record::{Offset, Value, ValueRef};

/// The records from one offset to another that concern one sink.
#[derive(Debug)]
pub struct Batch {
    sink: Arc<str>,
    /// The fixes that were known when the batch began. It keeps to them, so that it always has the same points.
    fixes: Arc<Fixes>,
    frames: Vec<Arc<Frame>>,
    from: Offset,
    to: Offset,
    points: usize,
    bytes: usize,
}

/// What became of a frame that was added to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// It was used up; otherwise the rest of it belongs to the next batch.
    pub whole_frame: bool,
    /// The rest of it begins with an entry whose time is not known yet.
    pub waits: bool,
    /// Entries in it that cannot be decoded, or were delivered and have no time any more, and are passed over.
    pub unreadable: usize,
}

/// Some consecutive points of a batch.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    batch: &'a Batch,
    points: Range<usize>,
    settled: Offset,
}

/// A record that becomes a point.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A row.
    Row(RowEntry<'a>),
    /// A declared loss.
    Gap(GapEntry<'a>),
}

/// What a store is to keep: series, time and fields.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// Canonical series key.
    pub series: &'a str,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
    record: Record<'a>,
}

impl Batch {
    /// An empty batch of the sink named `sink`.
    #[must_use]
    pub fn new(sink: Arc<str>, from: Offset) -> Batch {
        Batch { sink, fixes: Arc::default(), frames: Vec::new(), from, to: from, points: 0, bytes: 0 }
    }

    /// Adds the frame's entries from the batch's end on, until the batch has `points_max` points or stands before an entry
    /// to which no fix gives its time.
    pub fn add(&mut self, frame: &Arc<Frame>, fixes: &Arc<Fixes>, points_max: usize) -> Added {
        if self.points == 0 {
            self.fixes = Arc::clone(fixes);
        }
        let (mut end, mut waits, mut unreadable, before) = (frame.end(), false, 0, self.points);
        for (offset, entry) in frame.entries() {
            if offset < self.to {
                continue;
            }
            let entry = entry.map(|entry| self.fixes.date(entry));
            let early = entry.as_ref().is_ok_and(|entry| concerns(entry, &self.sink) && entry.is_early());
            waits = early && !self.fixes.has_forgotten(offset);
            if self.points >= points_max || waits {
                end = offset;
                break;
            }
            match entry {
                Ok(_) if early => unreadable += 1,
                Ok(entry) => self.points += usize::from(Record::of(entry, &self.sink).is_some()),
                Err(_) => unreadable += 1,
            }
        }
        self.to = end.max(self.to);
        if self.points > before {
            self.bytes += frame.bytes();
            self.frames.push(Arc::clone(frame));
        }
        Added { whole_frame: end == frame.end(), waits, unreadable }
    }

    /// Points in the batch.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points
    }

    /// Bytes of the frames that the batch keeps in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Offset of the first entry.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Offset behind the last entry.
    #[must_use]
    pub fn to(&self) -> Offset {
        self.to
    }

    /// The points numbered `points`. Everything below `settled` is dealt with for good once this part is stored.
    #[must_use]
    pub fn part(&self, points: Range<usize>, settled: Offset) -> Part<'_> {
        Part { batch: self, points, settled }
    }

    /// Offset of the point numbered `point`, or the end of the batch behind its last.
    #[must_use]
    pub fn offset_of(&self, point: usize) -> Offset {
        if point >= self.points {
            return self.to;
        }
        self.records().nth(point).map_or(self.to, |(offset, _)| offset)
    }

    /// Drops the first `points` points, which are dealt with.
    pub fn advance(&mut self, points: usize) {
        self.from = self.offset_of(points);
        self.points = self.points.saturating_sub(points);
        self.frames.retain(|frame| frame.end() > self.from);
        self.bytes = self.frames.iter().map(|frame| frame.bytes()).sum();
    }

    /// The records with their offsets, in order: the record numbered `n` is the point numbered `n`.
    pub fn records(&self) -> impl Iterator<Item = (Offset, Record<'_>)> {
        self.frames
            .iter()
            .flat_map(|frame| frame.entries())
            .skip_while(|(offset, _)| *offset < self.from)
            .filter_map(|(offset, entry)| {
                let entry = self.fixes.date(entry.ok()?);
                Some((offset, Record::of(entry, &self.sink)?))
            })
            .take(self.points)
    }
}

impl Part<'_> {
    /// The points, in the order of the journal.
    pub fn points(&self) -> impl Iterator<Item = Point<'_>> {
        let records = self.batch.records().skip(self.points.start).take(self.points.len());
        records.map(|(_, record)| record.point())
    }

    /// Everything below is dealt with for good once this part is stored.
    #[must_use]
    pub fn settled(&self) -> Offset {
        self.settled
    }
}

impl<'a> Record<'a> {
    /// The record that `entry` is to the sink named `sink`: another sink's losses are none of its business.
    pub(crate) fn of(entry: Entry<'a>, sink: &str) -> Option<Record<'a>> {
        match entry {
            Entry::Row(row) => Some(Record::Row(row)),
            Entry::Gap(gap) | Entry::GapAgain(gap) if concerns(&entry, sink) => Some(Record::Gap(gap)),
            _ => None,
        }
    }

    /// The point that it becomes.
    #[must_use]
    pub fn point(self) -> Point<'a> {
        let (series, ns) = match self {
            Record::Row(row) => (row.series, row.ns),
            Record::Gap(gap) => (gap.series, gap.ns),
        };
        Point { series, ns, record: self }
    }
}

/// Whether a sink is to get what an entry tells of, if it tells of rows.
fn concerns(entry: &Entry<'_>, sink: &str) -> bool {
    match entry {
        Entry::Gap(gap) | Entry::GapAgain(gap) | Entry::EarlyGap(_, gap) | Entry::EarlyGapAgain(_, gap) => {
            gap.sink.is_none_or(|name| name == sink)
        }
        _ => true,
    }
}

impl<'a> Point<'a> {
    /// A point that stands in no journal.
    #[must_use]
    pub fn of(series: &'a str, ns: i64, fields: &'a [(String, Value)]) -> Point<'a> {
        let fields = Fields::of(fields);
        let row = RowEntry { device: "", boot: 0, sequence: 0, stamped: false, series, ns, fields };
        Record::Row(row).point()
    }

    /// Names and values; a gap tells its boot, its sequences and its count.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, ValueRef<'a>)> + use<'a> {
        let (row, gap): (Option<Fields<'a>>, _) = match &self.record {
            Record::Row(row) => (Some(row.fields), None),
            Record::Gap(gap) => {
                let number = |n: u64| ValueRef::Integer(i64::try_from(n).unwrap_or(i64::MAX));
                let numbers =
                    [("boot", u64::from(gap.boot)), ("from", gap.from), ("to", gap.to), ("count", gap.count)];
                (None, Some(numbers.map(|(name, n)| (name, number(n)))))
            }
        };
        row.into_iter().flat_map(|fields| fields.iter()).chain(gap.into_iter().flatten())
    }
}
