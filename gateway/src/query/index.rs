//! Where in the journal the rows of a device, a measurement or a time may be, so that a query reads no more than it must.
//!
//! *Constraints.* Nothing on the path of a row pays for it, and it is bounded: about 200 bytes for a quarter of a MiB of
//! journal, and at most [`BLOCKS_MAX`] of these. It may say yes where nothing is, and never no where something is.
//!
//! *Operation.* A reader follows the journal, from memory as long as it keeps up, and cuts it into blocks of whole frames.
//! Of each it remembers the range of times, and 1,024 bits in which names are marked. What it has not come to yet, or has
//! forgotten, has to be read.
//!
//! *Failure.* Lost on the way is what a restart loses: it looks through what waits in the journal again, a little a second.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::{Range, RangeInclusive};

use crate::journal::{Entry, Frame, Journal, Read, ReadError, Reader};
use crate::record::{Offset, split_series};

/// Bytes of frames from which on a block is complete.
const BLOCK_BYTES: u64 = 256 << 10;
/// Most blocks: those of 4 GiB. Beyond, the oldest are forgotten.
const BLOCKS_MAX: usize = 16_384;
/// Series whose marks are remembered.
const SERIES_MAX: usize = 10_000;
const WORDS: usize = 16;

/// The blocks of a run of the journal.
#[derive(Debug)]
pub(super) struct Index {
    reader: Reader,
    blocks: VecDeque<Block>,
    hasher: RandomState,
    /// Marks of series that were met, so that a key is taken apart once.
    known: HashMap<Box<str>, Marks>,
}

/// Some consecutive frames.
#[derive(Clone, Copy, Debug)]
struct Block {
    first: Offset,
    end: Offset,
    bytes: u64,
    /// The earliest and the latest time in it; none if no row or gap has one.
    ns: Option<(i64, i64)>,
    /// It has to be read in any case: it has entries without a time yet, or is damaged.
    open: bool,
    marks: Marks,
}

/// A set of names that may say yes too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks([u64; WORDS]);

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Entries of any time, in order.
    pub(super) unknown: Vec<Range<Offset>>,
    /// Entries none of which is before a time, those with the earliest such time first.
    pub(super) known: Vec<(i64, Range<Offset>)>,
}

impl Index {
    /// Nothing is known yet; it will be from `from` on.
    pub(super) fn new(journal: &Journal, from: Offset) -> Index {
        let hasher = RandomState::new();
        Index { reader: journal.reader(from), blocks: VecDeque::new(), hasher, known: HashMap::new() }
    }

    /// Reads on, through about `bytes` of the journal; true if there is more.
    ///
    /// # Errors
    /// The journal cannot be read; what was read stands.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<bool, ReadError> {
        let mut left = bytes;
        while left > 0 {
            match self.reader.next()? {
                Read::Wait => return Ok(false),
                Read::Damaged { from, to } => {
                    let marks = Marks::default();
                    self.push(Block { first: from, end: to, bytes: 0, ns: None, open: true, marks });
                }
                Read::Frame(frame) => {
                    left = left.saturating_sub(frame.bytes() as u64);
                    self.take_in(&frame);
                }
            }
        }
        Ok(true)
    }

    /// Everything below is of no interest any more.
    pub(super) fn forget_below(&mut self, offset: Offset) {
        while self.blocks.front().is_some_and(|block| block.end <= offset) {
            self.blocks.pop_front();
        }
    }

    /// The marks that a block must have to hold anything of these.
    pub(super) fn marks(&self, measurement: Option<&str>, device: Option<&str>) -> Marks {
        let mut marks = Marks::default();
        measurement.into_iter().for_each(|name| marks.set(self.hasher.hash_one((0_u8, name))));
        device.into_iter().for_each(|name| marks.set(self.hasher.hash_one((1_u8, name))));
        marks
    }

    /// What of `offsets` is to be read for rows with these marks and times.
    pub(super) fn plan(&self, offsets: Range<Offset>, marks: &Marks, times_ns: &RangeInclusive<i64>) -> Plan {
        let mut plan = Plan::default();
        let mut unknown_from = offsets.start;
        for block in self.blocks.iter().skip_while(|block| block.end <= offsets.start) {
            let range = block.first.max(offsets.start)..block.end.min(offsets.end);
            if range.is_empty() {
                break;
            }
            // Between two blocks there is nothing; before the first there is what was not looked at.
            if unknown_from == offsets.start {
                plan.push_unknown(unknown_from..range.start);
            }
            unknown_from = range.end;
            match block.ns {
                _ if block.open => plan.push_unknown(range),
                Some((first_ns, _)) if block.may_hold(marks, times_ns) => plan.known.push((first_ns, range)),
                _ => {}
            }
        }
        plan.push_unknown(unknown_from..offsets.end);
        plan.known.sort_by_key(|(first_ns, range)| (*first_ns, range.start));
        plan
    }

    fn take_in(&mut self, frame: &Frame) {
        let fixes = self.reader.fixes();
        let mut block = match self.blocks.back() {
            Some(block) if block.bytes < BLOCK_BYTES && block.end == frame.first() => {
                // It is put back below.
                let block = *block;
                self.blocks.pop_back();
                block
            }
            _ => {
                let (first, marks) = (frame.first(), Marks::default());
                Block { first, end: first, bytes: 0, ns: None, open: false, marks }
            }
        };
        for (_, entry) in frame.entries() {
            match entry.map(|entry| fixes.date(entry)) {
                Ok(Entry::Row(row)) => block.note(row.ns, self.marks_of(row.series)),
                Ok(Entry::Gap(gap) | Entry::GapAgain(gap)) => block.note(gap.ns, self.marks_of(gap.series)),
                Ok(entry) if !entry.is_early() => {}
                _ => block.open = true,
            }
        }
        block.end = frame.end();
        block.bytes += frame.bytes() as u64;
        self.push(block);
    }

    fn push(&mut self, block: Block) {
        if self.blocks.len() == BLOCKS_MAX {
            self.blocks.pop_front();
        }
        self.blocks.push_back(block);
    }

    fn marks_of(&mut self, series: &str) -> Marks {
        if let Some(marks) = self.known.get(series) {
            return *marks;
        }
        let (measurement, tags) = split_series(series);
        let device = tags.iter().find(|(name, _)| name == "device").map(|(_, value)| value.as_ref());
        let marks = self.marks(Some(&measurement), device);
        if self.known.len() == SERIES_MAX {
            self.known.clear();
        }
        self.known.insert(series.into(), marks);
        marks
    }
}

impl Block {
    fn note(&mut self, ns: i64, marks: Marks) {
        let (first, last) = self.ns.unwrap_or((ns, ns));
        self.ns = Some((first.min(ns), last.max(ns)));
        self.marks.0.iter_mut().zip(marks.0).for_each(|(word, more)| *word |= more);
    }

    fn may_hold(&self, marks: &Marks, times_ns: &RangeInclusive<i64>) -> bool {
        let in_time =
            self.ns.is_some_and(|(first, last)| first <= *times_ns.end() && last >= *times_ns.start());
        let named = self.marks.0.iter().zip(marks.0).all(|(word, wanted)| word & wanted == wanted);
        in_time && named
    }
}

impl Marks {
    fn set(&mut self, hash: u64) {
        for bits in [hash, hash >> 32] {
            let bit = (bits % (64 * WORDS as u64)) as usize;
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }
}

impl Plan {
    fn push_unknown(&mut self, range: Range<Offset>) {
        match self.unknown.last_mut() {
            _ if range.start >= range.end => {}
            Some(before) if before.end == range.start => before.end = range.end,
            _ => self.unknown.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::entry::{Fields, RowEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Options, Refused};
    use crate::record::Value;

    const ALL: RangeInclusive<i64> = i64::MIN..=i64::MAX;

    fn journal() -> Journal {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(32 << 20)).unwrap().0;
        journal.register_sink("main").unwrap();
        journal
    }

    /// Rows of a device at these times, in commits of 1,000.
    fn rows(journal: &Journal, device: &str, times: Range<i64>) {
        let series = format!("climate,device={device}");
        let fields = [("text".to_owned(), Value::Text("x".repeat(100)))];
        let mut from = times.start;
        while from < times.end {
            let to = times.end.min(from + 1_000);
            let submitted = journal.submit(Class::Foreign, |_, submission| {
                for ns in from..to {
                    let (sequence, fields) = (ns.cast_unsigned(), Fields::of(&fields));
                    let row =
                        RowEntry { device, boot: 0, sequence, stamped: false, series: &series, ns, fields };
                    submission.add(&Entry::Row(row))?;
                }
                Ok::<(), Refused>(())
            });
            match submitted {
                Err(Refused::Busy) => std::thread::yield_now(),
                submitted => {
                    let receipt = submitted.unwrap().1;
                    while *journal.watermark().borrow() < receipt {
                        std::thread::yield_now();
                    }
                    from = to;
                }
            }
        }
    }

    fn entries(plan: &Plan) -> u64 {
        let ranges = plan.unknown.iter().chain(plan.known.iter().map(|(_, range)| range));
        ranges.map(|range| range.end.0 - range.start.0).sum()
    }

    /// Whether all entries that hold such a row are in the plan, and none of them is before the time that it says.
    fn covers(journal: &Journal, plan: &Plan, device: &str, times_ns: &RangeInclusive<i64>) -> bool {
        let is_planned = |offset: Offset, ns: i64| {
            let known = plan.known.iter().any(|(first_ns, range)| *first_ns <= ns && range.contains(&offset));
            known || plan.unknown.iter().any(|range| range.contains(&offset))
        };
        let mut reader = journal.reader(Offset(0));
        while let Read::Frame(frame) = reader.next().unwrap() {
            for (offset, entry) in frame.entries() {
                let Ok(Entry::Row(row)) = entry else { continue };
                let wanted = row.device == device && times_ns.contains(&row.ns);
                if wanted && !is_planned(offset, row.ns) {
                    return false;
                }
            }
        }
        true
    }

    #[test]
    fn a_query_reads_where_its_device_and_its_time_may_be_and_nowhere_else() {
        let journal = journal();
        for hour in 0..4 {
            rows(&journal, "boiler", hour * 10_000..hour * 10_000 + 5_000);
            rows(&journal, "pump", hour * 10_000..hour * 10_000 + 5_000);
        }
        let end = *journal.watermark().borrow();
        let mut index = Index::new(&journal, Offset(0));
        let nothing_known = index.plan(Offset(0)..end, &index.marks(None, None), &ALL);
        assert_eq!((nothing_known.unknown, nothing_known.known), (vec![Offset(0)..end], vec![]));
        while index.advance(100_000).unwrap() {}

        let times_ns = 10_000..=12_000;
        for (device, times_ns, most) in
            [(Some("pump"), &times_ns, 9_000), (Some("pump"), &ALL, 32_000), (None, &times_ns, 14_000)]
        {
            let plan = index.plan(Offset(0)..end, &index.marks(Some("climate"), device), times_ns);
            assert!(covers(&journal, &plan, device.unwrap_or("boiler"), times_ns), "{device:?} {plan:?}");
            assert!(entries(&plan) < most, "{device:?} in {times_ns:?}: {} entries", entries(&plan));
            assert_eq!(plan.unknown, [], "all of it was looked at");
            assert!(plan.known.is_sorted_by_key(|(first_ns, _)| *first_ns));
        }
        for marks in [index.marks(Some("weather"), None), index.marks(None, Some("stranger"))] {
            assert_eq!(index.plan(Offset(0)..end, &marks, &ALL), Plan::default());
        }
    }

    #[test]
    fn what_it_has_not_come_to_or_has_forgotten_is_read() {
        let journal = journal();
        rows(&journal, "boiler", 0..20_000);
        let known_to = *journal.watermark().borrow();
        let mut index = Index::new(&journal, Offset(0));
        while index.advance(u64::MAX).unwrap() {}
        rows(&journal, "boiler", 20_000..21_000);
        let end = *journal.watermark().borrow();
        let marks = index.marks(None, Some("stranger"));
        let plan = |index: &Index| index.plan(Offset(0)..end, &marks, &ALL).unknown;
        assert_eq!(plan(&index), [known_to..end]);
        index.blocks.pop_front();
        let known_from = index.blocks.front().unwrap().first;
        assert_eq!(plan(&index), [Offset(0)..known_from, known_to..end]);
        index.forget_below(known_to);
        assert_eq!(plan(&index), [Offset(0)..end]);
    }
}
