//! Batches: records of a run of the journal, on their way to one sink.
//!
//! A batch holds the journal's frames, not copies of their records; it decodes them anew for each use. Its points are
//! numbered from 0, so that the decisions of [`crate::delivery`] need to know nothing of the journal. Rows that the sink
//! does not want are no points; they are counted when the batch passes them. A *selective* batch, which no cursor
//! follows, has nothing but points, and none of the devices that it leaves out.

use std::io;
use std::sync::Arc;
use std::{mem, slice};

use super::line_protocol::{self, Body, Dialect, Encoder};
use super::ready::Ready;
use super::selection::{Census, LeftOut};
use crate::config::Filter;
use crate::journal::Frame;
use crate::journal::clocks::Fixes;
use crate::journal::entry::{Entry, Fields, GapEntry, RowEntry};
use crate::record::{Offset, Value, ValueRef};

/// What a record takes in the journal besides texts and fields.
const RECORD_BYTES: usize = 20;

/// A sink as the journal's entries concern it.
#[derive(Debug)]
pub struct Audience {
    /// Its name.
    pub name: Arc<str>,
    /// What it is to get.
    pub filter: Filter,
}

/// The records from one offset to another that concern one sink.
#[derive(Debug)]
pub struct Batch {
    audience: Arc<Audience>,
    /// The fixes that were known when the batch began. It keeps to them, so that it always has the same points.
    fixes: Arc<Fixes>,
    frames: Vec<Arc<Frame>>,
    from: Offset,
    to: Offset,
    points: usize,
    /// Rows that the sink does not want.
    unwanted: usize,
    bytes: usize,
    selection: Option<Selection>,
    /// The body of the request that has all of its points, as far as it is made.
    ready: Option<Ready>,
}

/// What makes a batch selective.
#[derive(Debug, Default)]
struct Selection {
    left_out: LeftOut,
    /// Of all points that it has come across.
    census: Census,
    /// Bytes of the points that it has.
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

/// What is written at once: some points of a batch, or points that stand in no batch any more.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    source: Source<'a>,
    settled: Offset,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    /// By number, in ascending order.
    Batch(&'a Batch, &'a [usize]),
    Own(&'a [OwnPoint]),
}

/// A point that owns its texts.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnPoint {
    /// Canonical series key.
    pub series: String,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
    /// Names and values, at least one.
    pub fields: Vec<(String, Value)>,
    /// Ledger key of the device whose row it is, if the journal counts it.
    pub device: Option<Box<str>>,
}

/// What a batch passes.
#[derive(Clone, Copy, Debug)]
pub enum Passed<'a> {
    /// A point.
    Point(Record<'a>),
    /// A row that the sink does not want.
    Unwanted(RowEntry<'a>),
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

impl Audience {
    /// A sink that is to get everything.
    #[must_use]
    pub fn of_all(name: &str) -> Arc<Audience> {
        Arc::new(Audience { name: name.into(), filter: Filter::default() })
    }

    /// Whether it is to get what an entry tells of, if that tells of rows: another sink's losses are none of its business.
    fn concerns(&self, entry: &Entry<'_>) -> bool {
        match entry {
            Entry::Gap(gap)
            | Entry::GapAgain(gap)
            | Entry::EarlyGap(_, gap)
            | Entry::EarlyGapAgain(_, gap) => {
                gap.sink.is_none_or(|name| *name == *self.name) && self.filter.wants_gap(gap.series)
            }
            _ => true,
        }
    }
}

impl Batch {
    /// An empty batch of a sink.
    #[must_use]
    pub fn new(audience: Arc<Audience>, from: Offset) -> Batch {
        Batch {
            audience,
            fixes: Arc::default(),
            frames: Vec::new(),
            from,
            to: from,
            points: 0,
            unwanted: 0,
            bytes: 0,
            selection: None,
            ready: None,
        }
    }

    /// An empty batch that leaves out some devices.
    #[must_use]
    pub fn selective(audience: Arc<Audience>, from: Offset, left_out: LeftOut) -> Batch {
        let selection = Some(Selection { left_out, ..Selection::default() });
        Batch { selection, ..Batch::new(audience, from) }
    }

    /// Adds the frame's entries from the batch's end on, until the batch has `rows_max` rows or stands before an entry
    /// to which no fix gives its time.
    pub fn add(&mut self, frame: &Arc<Frame>, fixes: &Arc<Fixes>, rows_max: usize) -> Added {
        if self.rows() == 0 {
            self.fixes = Arc::clone(fixes);
        }
        self.ready = None;
        let (mut end, mut waits, mut unreadable, before) = (frame.end(), false, 0, self.rows());
        for (offset, entry) in frame.entries() {
            if offset < self.to {
                continue;
            }
            let entry = entry.map(|entry| self.fixes.date(entry));
            let early = entry.as_ref().is_ok_and(|entry| self.audience.concerns(entry) && entry.is_early());
            waits = early && !self.fixes.has_forgotten(offset);
            if self.rows() >= rows_max || waits {
                end = offset;
                break;
            }
            match entry {
                Ok(_) if early => unreadable += 1,
                Ok(entry) => match Passed::of(entry, &self.audience) {
                    Some(Passed::Point(record)) => self.points += usize::from(self.selects(&record)),
                    Some(Passed::Unwanted(_)) => self.unwanted += usize::from(self.selection.is_none()),
                    None => {}
                },
                Err(_) => unreadable += 1,
            }
        }
        self.to = end.max(self.to);
        // A frame that filled a batch comes again where that leaves out more and so is not full any more.
        let is_here = self.frames.last().is_some_and(|last| last.first() == frame.first());
        if self.rows() > before && !is_here {
            self.bytes += frame.bytes();
            self.frames.push(Arc::clone(frame));
        }
        Added { whole_frame: end == frame.end(), waits, unreadable }
    }

    /// Whether a point that it comes across is one of its own.
    fn selects(&mut self, record: &Record<'_>) -> bool {
        let Some(selection) = &mut self.selection else { return true };
        selection.census.count(record);
        let selects = !selection.left_out.has(record.device());
        selection.bytes += if selects { record.bytes() } else { 0 };
        selects
    }

    /// Leaves out these devices instead of those that were left out; what a selective batch has not got of the latter until
    /// now it does not get any more.
    pub fn leave_out(&mut self, left_out: LeftOut) {
        let Some(selection) = &mut self.selection else { return };
        self.ready = None;
        selection.left_out = left_out;
        let frames = mem::take(&mut self.frames).into_iter();
        self.frames =
            frames.filter(|frame| self.passed_in(slice::from_ref(frame)).next().is_some()).collect();
        self.bytes = self.frames.iter().map(|frame| frame.bytes()).sum();
        let sizes = self.records().map(|(_, record)| record.bytes());
        let (points, bytes) = sizes.fold((0, 0), |(points, sum), bytes| (points + 1, sum + bytes));
        self.points = points;
        if let Some(selection) = &mut self.selection {
            selection.bytes = bytes;
        }
    }

    /// Points in the batch.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points
    }

    /// Points in the batch, and rows that the sink does not want.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.points + self.unwanted
    }

    /// Bytes of the frames that the batch keeps in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that count against the size of a batch: of a selective one those of its points, else those of its frames.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.selection.as_ref().map_or(self.bytes, |selection| selection.bytes)
    }

    /// The devices that it leaves out.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.selection.as_ref().map_or_else(LeftOut::default, |selection| selection.left_out.clone())
    }

    /// What a selective batch has come across.
    #[must_use]
    pub fn census(&self) -> Option<&Census> {
        self.selection.as_ref().map(|selection| &selection.census)
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

    /// The points of these numbers, which ascend. Everything below `settled` is dealt with for good once this part is
    /// stored.
    #[must_use]
    pub fn part<'a>(&'a self, points: &'a [usize], settled: Offset) -> Part<'a> {
        Part { source: Source::Batch(self, points), settled }
    }

    /// Offset of the point numbered `point`, or the end of the batch behind its last.
    #[must_use]
    pub fn offset_of(&self, point: usize) -> Offset {
        if point >= self.points {
            return self.to;
        }
        self.records().nth(point).map_or(self.to, |(offset, _)| offset)
    }

    /// Drops everything before the point numbered `points`, or all of it behind the last: it is dealt with.
    pub fn advance(&mut self, points: usize) {
        self.ready = None;
        self.from = self.offset_of(points);
        self.points = self.points.saturating_sub(points);
        self.frames.retain(|frame| frame.end() > self.from);
        self.bytes = self.frames.iter().map(|frame| frame.bytes()).sum();
        self.unwanted = self.passed().filter(|(_, passed)| matches!(passed, Passed::Unwanted(_))).count();
    }

    /// Goes on making the body of the request for all points, by one frame; whether there is more to make of it.
    pub fn prepare(&mut self, dialect: Dialect) -> bool {
        let (mut encoder, done) = match self.ready.take() {
            Some(Ready::Growing(encoder, done)) if encoder.dialect() == dialect => (encoder, done),
            Some(Ready::Done(made, body)) if made == dialect => {
                self.ready = Some(Ready::Done(made, body));
                return false;
            }
            _ => (Box::new(Encoder::new(dialect)), 0),
        };
        let ready = match self.frames.get(done..=done) {
            Some(frame) => {
                let pushed =
                    points(self.passed_in(frame)).try_for_each(|(_, record)| encoder.push(&record.point()));
                pushed.map(|()| Ready::Growing(encoder, done + 1))
            }
            None => Ready::finish(*encoder),
        };
        // Without memory for it, it is made when it is sent.
        self.ready = ready.ok();
        matches!(self.ready, Some(Ready::Growing(..)))
    }

    /// Makes what is left of a body that was begun.
    pub fn finish_preparing(&mut self) {
        while let Some(Ready::Growing(encoder, _)) = &self.ready
            && self.prepare(encoder.dialect())
        {}
    }

    /// The records with their offsets, in order: the record numbered `n` is the point numbered `n`.
    pub fn records(&self) -> impl Iterator<Item = (Offset, Record<'_>)> {
        points(self.passed())
    }

    /// The same, and between them the rows that the sink does not want.
    pub fn passed(&self) -> impl Iterator<Item = (Offset, Passed<'_>)> {
        self.passed_in(&self.frames)
    }

    fn passed_in<'a>(&'a self, frames: &'a [Arc<Frame>]) -> impl Iterator<Item = (Offset, Passed<'a>)> {
        let entries = frames.iter().flat_map(|frame| frame.entries());
        let (from, to) = (self.from, self.to);
        let entries =
            entries.skip_while(move |(offset, _)| *offset < from).take_while(move |(offset, _)| *offset < to);
        entries.filter_map(|(offset, entry)| {
            let entry = self.fixes.date(entry.ok()?);
            let passed = Passed::of(entry, &self.audience)?;
            self.has(&passed).then_some((offset, passed))
        })
    }

    fn has(&self, passed: &Passed<'_>) -> bool {
        match (&self.selection, passed) {
            (None, _) => true,
            (Some(selection), Passed::Point(record)) => !selection.left_out.has(record.device()),
            (Some(_), Passed::Unwanted(_)) => false,
        }
    }
}

fn points<'a>(
    passed: impl Iterator<Item = (Offset, Passed<'a>)>,
) -> impl Iterator<Item = (Offset, Record<'a>)> {
    passed.filter_map(|(offset, passed)| match passed {
        Passed::Point(record) => Some((offset, record)),
        Passed::Unwanted(_) => None,
    })
}

impl<'a> Part<'a> {
    /// Points that stand in no batch.
    #[must_use]
    pub fn of_points(points: &'a [OwnPoint], settled: Offset) -> Part<'a> {
        Part { source: Source::Own(points), settled }
    }

    /// The points, in the order of the journal.
    pub fn points(&self) -> impl Iterator<Item = Point<'a>> + use<'a> {
        self.placed().map(|(_, point)| point)
    }

    /// The same, each with its offset, if it stands in a batch.
    pub fn placed(&self) -> impl Iterator<Item = (Option<Offset>, Point<'a>)> + use<'a> {
        let (batch, own) = match self.source {
            Source::Batch(batch, numbers) => (Some((batch, numbers)), &[][..]),
            Source::Own(points) => (None, points),
        };
        let of_batch = batch.into_iter().flat_map(|(batch, numbers)| {
            let mut wanted = numbers.iter().peekable();
            let records = batch.records().enumerate();
            let chosen = records.filter(move |(number, _)| wanted.next_if_eq(&number).is_some());
            chosen.take(numbers.len()).map(|(_, (offset, record))| (Some(offset), record.point()))
        });
        of_batch.chain(own.iter().map(|point| (None, point.point())))
    }

    /// The points as one body: the one that was made before, or a new one.
    ///
    /// # Errors
    /// None that memory does not cause.
    pub fn body(&self, dialect: Dialect) -> io::Result<Body> {
        let ready = match self.source {
            Source::Batch(batch, numbers) if numbers.len() == batch.points => batch.ready.as_ref(),
            _ => None,
        };
        match ready.and_then(|ready| ready.body(dialect)) {
            Some(body) => Ok(body.clone()),
            None => line_protocol::encode(self.points(), dialect),
        }
    }

    /// How many points there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.source {
            Source::Batch(_, numbers) => numbers.len(),
            Source::Own(points) => points.len(),
        }
    }

    /// Everything below is dealt with for good once this part is stored.
    #[must_use]
    pub fn settled(&self) -> Offset {
        self.settled
    }
}

impl OwnPoint {
    /// The same, borrowed.
    #[must_use]
    pub fn point(&self) -> Point<'_> {
        let device = self.device.as_deref().unwrap_or_default();
        Point::of_device(device, &self.series, self.ns, &self.fields)
    }
}

impl<'a> Passed<'a> {
    /// What an entry is to a sink, if anything.
    pub(crate) fn of(entry: Entry<'a>, audience: &Audience) -> Option<Passed<'a>> {
        match entry {
            Entry::Row(row) if audience.filter.wants_row(row.series) => Some(Passed::Point(Record::Row(row))),
            Entry::Row(row) => Some(Passed::Unwanted(row)),
            Entry::Gap(gap) | Entry::GapAgain(gap) if audience.concerns(&entry) => {
                Some(Passed::Point(Record::Gap(gap)))
            }
            _ => None,
        }
    }
}

impl<'a> Record<'a> {
    /// The row, unless it is a gap.
    #[must_use]
    pub fn row(self) -> Option<RowEntry<'a>> {
        match self {
            Record::Row(row) => Some(row),
            Record::Gap(_) => None,
        }
    }

    /// Ledger key of its device.
    #[must_use]
    pub fn device(&self) -> &'a str {
        match self {
            Record::Row(row) => row.device,
            Record::Gap(gap) => gap.device,
        }
    }

    /// About as many bytes as it takes in the journal.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (series, rest) = match self {
            Record::Row(row) => (row.series, row.fields.bytes()),
            Record::Gap(gap) => (gap.series, 0),
        };
        RECORD_BYTES + self.device().len() + series.len() + rest
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

impl<'a> Point<'a> {
    /// A point that stands in no journal.
    #[must_use]
    pub fn of(series: &'a str, ns: i64, fields: &'a [(String, Value)]) -> Point<'a> {
        Point::of_device("", series, ns, fields)
    }

    fn of_device(device: &'a str, series: &'a str, ns: i64, fields: &'a [(String, Value)]) -> Point<'a> {
        let fields = Fields::of(fields);
        Record::Row(RowEntry { device, boot: 0, sequence: 0, stamped: false, series, ns, fields }).point()
    }

    /// Ledger key of the device whose row it is, if it is one that the journal counts.
    #[must_use]
    pub fn counted_for(&self) -> Option<&'a str> {
        let row = self.record.row()?;
        (!row.device.is_empty()).then_some(row.device)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Journal, Options, Read, Refused};

    /// A journal with one frame: rows of these devices, in this order.
    fn frame(devices: &[&str]) -> Arc<Frame> {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(2 << 20)).unwrap().0;
        let submitted: Result<_, Refused> = journal.submit(Class::Internal, |_, submission| {
            (0_u64..).zip(devices).try_for_each(|(sequence, device)| {
                let (boot, stamped, series, ns) = (0, false, "m", sequence.cast_signed());
                let fields = Fields::of(&[]);
                submission.add(&Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields }))
            })
        });
        let end = submitted.unwrap().1;
        while *journal.watermark().borrow() < end {
            std::thread::yield_now();
        }
        match journal.reader(Offset(0)).next().unwrap() {
            Read::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn times(batch: &Batch) -> Vec<i64> {
        batch.records().map(|(_, record)| record.point().ns).collect()
    }

    #[test]
    fn a_selective_batch_has_no_points_of_those_that_it_leaves_out_and_each_other_once() {
        let frame = frame(&["a", "b", "a", "a", "b", "c", "a", "b"]);
        let mut batch = Batch::selective(Audience::of_all("main"), Offset(0), LeftOut::default());
        assert!(!batch.add(&frame, &Arc::default(), 3).whole_frame);
        assert_eq!(times(&batch), [0, 1, 2]);
        batch.leave_out(["a".into()].into_iter().collect());
        assert_eq!((times(&batch), batch.points()), (vec![1], 1));
        assert!(!batch.add(&frame, &Arc::default(), 3).whole_frame);
        assert_eq!((times(&batch), batch.points(), batch.to()), (vec![1, 4, 5], 3, Offset(6)));
        let census = batch.census().unwrap();
        assert_eq!((census.records(), census.of("a") > census.of("b"), census.of("x")), (6, true, 0));
        let bytes: usize = batch.records().map(|(_, record)| record.bytes()).sum();
        assert_eq!((batch.weight(), batch.bytes()), (bytes, frame.bytes()));
        batch.leave_out(["a", "b", "c"].map(Arc::from).into_iter().collect());
        assert_eq!((batch.points(), batch.weight(), batch.bytes()), (0, 0, 0));
    }
}
