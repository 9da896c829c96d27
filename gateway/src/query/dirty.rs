//! What the query sink may not have yet: the rows of the journal from its cursor on, as points.
//!
//! The cursor that counts is that of a few seconds ago: that a database has confirmed a point does not mean everywhere
//! that it shows it at once. What lies between is found in both, and is one point there as everywhere.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::index::Plan;
use super::request::Query;
use crate::journal::{Entry, Frame, Journal, Read, Reader};
use crate::record::{Offset, split_series};
use crate::sink::Point;
use crate::sink::batch::{Audience, Passed};

/// How long what was confirmed is still read from the journal.
const GRACE: Duration = Duration::from_secs(5);
/// The same after a start, when it is not known what was confirmed when, in entries.
const GRACE_ENTRIES: u64 = 20_000;
/// Blocks that are read in the order in which they lie in the journal. Where their times go to and fro, each by itself
/// would have its segment gone through from the start again.
const BLOCKS_TOGETHER: usize = 16;
/// Series of which it is remembered whether they are wanted.
const SERIES_MAX: usize = 10_000;

/// Where the cursor of a sink stood some seconds ago.
#[derive(Debug)]
pub(super) struct Floor(VecDeque<(Instant, Offset)>);

/// What a look through the journal could not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Rows without a time yet.
    pub(super) undated: u64,
    /// Entries that the medium has lost and nobody has declared yet.
    pub(super) damaged: u64,
    /// Entries that are too many.
    pub(super) unread: u64,
    /// Nothing from this time on can be shown: the rest is too much for one answer.
    pub(super) cut_ns: Option<i64>,
    /// Why the medium cannot be read.
    pub(super) failed: Option<String>,
}

/// Tells the series that a query wants.
struct Filter<'q> {
    query: &'q Query,
    known: HashMap<Box<str>, bool>,
}

impl Floor {
    /// A sink whose cursor stands there now.
    pub(super) fn new(now: Instant, cursor: Offset) -> Floor {
        Floor(VecDeque::from([(now, Offset(cursor.0.saturating_sub(GRACE_ENTRIES)))]))
    }

    /// Takes note of the cursor, about once a second.
    pub(super) fn note(&mut self, now: Instant, cursor: Offset) {
        self.0.push_back((now, cursor));
        // The latest of those that are old enough stands in front.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= GRACE) {
            self.0.pop_front();
        }
    }

    /// Below, the sink shows everything.
    pub(super) fn below(&self) -> Offset {
        self.0.front().map_or(Offset(0), |(_, cursor)| *cursor)
    }
}

impl<'q> Filter<'q> {
    fn new(query: &'q Query) -> Filter<'q> {
        Filter { query, known: HashMap::new() }
    }

    /// Whether the query wants points of this series.
    fn wants(&mut self, series: &str) -> bool {
        if let Some(wanted) = self.known.get(series) {
            return *wanted;
        }
        let (measurement, tags) = split_series(series);
        let device = || tags.iter().find(|(name, _)| name == "device").map(|(_, value)| value.as_ref());
        let wanted = self.query.measurement.as_deref().is_none_or(|name| name == measurement)
            && self.query.device.as_deref().is_none_or(|name| device() == Some(name));
        if self.known.len() < SERIES_MAX {
            self.known.insert(series.into(), wanted);
        }
        wanted
    }
}

/// A look through the journal for one query.
pub(super) struct Scan<'a> {
    query: &'a Query,
    audience: &'a Audience,
    filter: Filter<'a>,
    reader: Reader,
    /// Bytes that may still be read, and until when.
    left: u64,
    deadline: Instant,
    missing: Missing,
}

impl<'a> Scan<'a> {
    /// Nothing is read yet, and at most about so many bytes will be, until about the deadline.
    pub(super) fn new(
        journal: &Journal,
        audience: &'a Audience,
        query: &'a Query,
        (left, deadline): (u64, Instant),
    ) -> Scan<'a> {
        let (reader, filter) = (journal.reader(Offset(0)), Filter::new(query));
        Scan { query, audience, filter, reader, left, deadline, missing: Missing::default() }
    }

    /// Goes through what is planned, and shows the points that the sink gets and the query wants, but for the choice of
    /// fields, with their offsets, in any order. `show` says from which time on nothing more is of interest.
    pub(super) fn run(
        mut self,
        journal: &Journal,
        plan: &Plan,
        mut show: impl FnMut(Offset, &Point<'_>) -> i64,
    ) -> Missing {
        let mut end_ns = self.query.to_ns;
        for range in &plan.unknown {
            self.read(journal, range, true, &mut |offset, point| end_ns = show(offset, point));
        }
        let mut known = &plan.known[..];
        while let Some((next, rest)) = known.split_at_checked(known.len().min(BLOCKS_TOGETHER))
            && !next.is_empty()
        {
            let mut blocks: Vec<_> = next.iter().collect();
            blocks.sort_by_key(|(_, range)| range.start);
            for (at, (first_ns, range)) in blocks.iter().enumerate() {
                if self.missing.failed.is_some() {
                    return self.missing;
                }
                if *first_ns >= end_ns {
                    continue;
                }
                if self.is_spent() {
                    let left = blocks[at..].iter().copied().chain(rest);
                    self.leave(left.filter(|(first_ns, _)| *first_ns < end_ns));
                    return self.missing;
                }
                self.read(journal, range, false, &mut |offset, point| end_ns = show(offset, point));
            }
            known = rest;
        }
        self.missing
    }

    /// Whether nothing more may be read.
    fn is_spent(&self) -> bool {
        self.left == 0 || Instant::now() >= self.deadline
    }

    /// Says what is missing without these blocks: everything from the earliest of their times on. If that is too early,
    /// nothing is known of any time.
    fn leave<'b>(&mut self, blocks: impl Iterator<Item = &'b (i64, Range<Offset>)> + Clone) {
        let cut_ns = blocks.clone().map(|(first_ns, _)| *first_ns).min();
        self.missing.cut_ns = cut_ns.filter(|cut_ns| *cut_ns > self.query.from_ns);
        if self.missing.cut_ns.is_none() {
            self.missing.unread += blocks.map(|(_, range)| range.end.0 - range.start.0).sum::<u64>();
        }
    }

    /// Reads a range; one of unknown length only as far as it may.
    fn read(
        &mut self,
        journal: &Journal,
        range: &Range<Offset>,
        bounded: bool,
        show: &mut dyn FnMut(Offset, &Point<'_>),
    ) {
        if self.reader.position() > range.start {
            self.reader = journal.reader(range.start);
        }
        self.reader.skip_to(range.start);
        while self.reader.position() < range.end && self.missing.failed.is_none() {
            if bounded && self.is_spent() {
                self.missing.unread += range.end.0 - self.reader.position().0;
                return;
            }
            let before = self.reader.bytes();
            let read = self.reader.next();
            self.left = self.left.saturating_sub(self.reader.bytes() - before);
            match read {
                Ok(Read::Frame(frame)) => self.take_in(&frame, range, show),
                Ok(Read::Damaged { from, to }) => {
                    self.missing.damaged += to.min(range.end).0.saturating_sub(from.max(range.start).0);
                }
                Ok(Read::Wait) => return,
                Err(error) => self.missing.failed = Some(error.to_string()),
            }
        }
    }

    fn take_in(&mut self, frame: &Frame, range: &Range<Offset>, show: &mut dyn FnMut(Offset, &Point<'_>)) {
        let fixes = self.reader.fixes();
        let times_ns = self.query.from_ns..self.query.to_ns;
        for (offset, entry) in frame.entries().filter(|(offset, _)| range.contains(offset)) {
            let Ok(entry) = entry.map(|entry| fixes.date(entry)) else { continue };
            if let Entry::EarlyRow(_, row) = entry {
                let waits = !fixes.has_forgotten(offset) && self.filter.wants(row.series);
                self.missing.undated += u64::from(waits);
            } else if let Some(Passed::Point(record)) = Passed::of(entry, self.audience) {
                let point = record.point();
                if times_ns.contains(&point.ns) && self.filter.wants(point.series) {
                    show(offset, &point);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_within_the_grace_is_still_read() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut floor = Floor::new(start, Offset(50_000));
        assert_eq!(floor.below(), Offset(30_000), "nobody knows when they were confirmed");
        for second in 1..=12 {
            floor.note(at(second), Offset(50_000 + 10 * second));
        }
        assert_eq!(floor.below(), Offset(50_070), "of second 7");
        assert!(floor.0.len() <= 7);
    }
}
