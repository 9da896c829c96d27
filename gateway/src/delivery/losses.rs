//! What a sink will not get: rows that the journal's medium lost, and rows that are let go to make room.
//!
//! *Damage.* What is owed to a sink and cannot be read any more is lost: the difference between the ledger and a reading of
//! everything behind the cursor, device by device. That needs no knowledge of what the hole held. Where the numbers of a
//! native device jump, the gap says which rows they were.
//!
//! *Eviction.* The rows in the oldest segment are read once more, to be counted by device and boot.
//!
//! Both end in one submission, of gaps and a skip, so that what is skipped is declared in the same instant.

use std::collections::{HashMap, hash_map};

use super::gaps::{Gap, GapMaker};
use crate::journal::entry::{Cause, Entry, GapEntry, RowEntry};
use crate::journal::{Frame, Journal, Read, ReadError};
use crate::record::Offset;

/// Jumps that are told apart for one device; more of them are summed up.
const JUMPS_MAX: usize = 64;

/// Gaps that are declared in one submission: it must fit the smallest segment's half.
pub(super) const GAPS_MAX: usize = 128;

/// What the ledger says at one moment.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Where the sink stands.
    pub(super) cursor: Offset,
    /// Up to where the figures hold.
    pub(super) end: Offset,
    /// Rows that the sink is still to get, with key and tag of their device.
    rows: Vec<(Box<str>, Box<str>, u64)>,
}

/// What can be read.
#[derive(Debug, Default)]
struct Readable {
    rows: HashMap<Box<str>, u64>,
    /// Where the numbers of a native device's boots go on.
    next: HashMap<(Box<str>, u32), u64>,
    /// Numbers that are missing between two rows: device, boot, from, to.
    jumps: HashMap<Box<str>, Vec<(u32, u64, u64)>>,
}

/// Asks the ledger what a sink is still to get.
pub(super) fn owed(journal: &Journal, sink: &str) -> Owed {
    journal.with_state_and_end(|state, end| Owed {
        cursor: state.cursor(sink).unwrap_or_default(),
        end,
        rows: state
            .owed_by_device(sink)
            .map(|(device, rows)| (device.key.clone(), device.name.clone(), rows))
            .collect(),
    })
}

/// The gaps of what is owed and cannot be read. Everything below `owed.end` must be durable. Their time is `now_ns`.
pub(super) fn damaged(
    journal: &Journal,
    owed: &Owed,
    maker: &mut GapMaker,
    now_ns: i64,
) -> Result<Vec<Gap>, ReadError> {
    let readable = read(journal, owed)?;
    let mut gaps = Vec::new();
    for (key, tag, rows) in &owed.rows {
        let lost = rows.saturating_sub(readable.rows.get(key).copied().unwrap_or(0));
        let mut of_numbers = |boot, numbers| {
            gaps.push(maker.of_numbers(Cause::Damaged, (key, tag), boot, numbers, now_ns));
        };
        let jumps = readable.jumps.get(key).map_or(&[][..], Vec::as_slice);
        let known: u64 = jumps.iter().map(|(_, from, to)| to - from).sum();
        let jumps = if known <= lost && jumps.len() <= JUMPS_MAX { jumps } else { &[] };
        let known: u64 = jumps.iter().map(|(_, from, to)| to - from).sum();
        jumps.iter().for_each(|(boot, from, to)| of_numbers(*boot, (*from, *to)));
        if lost > known {
            of_numbers(0, (0, lost - known));
        }
    }
    Ok(gaps)
}

fn read(journal: &Journal, owed: &Owed) -> Result<Readable, ReadError> {
    let mut readable = Readable::default();
    let mut reader = journal.reader(owed.cursor);
    loop {
        match reader.next()? {
            Read::Frame(frame) => {
                for (offset, entry) in frame.entries() {
                    if offset >= owed.end {
                        return Ok(readable);
                    }
                    match entry {
                        Ok(Entry::Row(row)) if offset >= owed.cursor => readable.take_row(&row),
                        Ok(Entry::Gap(gap)) if offset >= owed.cursor => readable.take_gap(&gap),
                        _ => {}
                    }
                }
            }
            Read::Damaged { .. } => {}
            Read::Wait => return Ok(readable),
        }
    }
}

/// Rows that are let go, as gaps.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    gaps: Vec<Gap>,
    /// Place of each device's latest gap of evicted rows.
    latest: HashMap<Box<str>, usize>,
    /// Place of the gap that comes again, by device, boot and cause: there is one of each, however often room is made.
    again: HashMap<(Box<str>, u32, Cause), usize>,
}

impl Evicted {
    /// Adds the entries of a frame from one offset up to another, as far as they concern the sink.
    pub(super) fn add(
        &mut self,
        frame: &Frame,
        (from, to): (Offset, Offset),
        sink: &str,
        maker: &mut GapMaker,
    ) {
        let entries = frame.entries().skip_while(|(offset, _)| *offset < from);
        for (_, entry) in entries.take_while(|(offset, _)| *offset < to) {
            match entry {
                Ok(Entry::Row(row)) => self.add_row(&row, maker),
                Ok(Entry::Gap(gap) | Entry::GapAgain(gap)) if gap.sink.is_none_or(|name| name == sink) => {
                    self.add_gap(&gap);
                }
                _ => {}
            }
        }
    }

    fn add_row(&mut self, row: &RowEntry<'_>, maker: &mut GapMaker) {
        let latest = self.latest.get(row.device).copied();
        if latest.is_none_or(|at| !self.gaps[at].take_in(row)) {
            self.latest.insert(row.device.into(), self.gaps.len());
            self.gaps.push(maker.of_row(Cause::Evicted, row));
        }
    }

    /// A gap whose point was not delivered yet comes again behind what makes room, and is not counted again.
    fn add_gap(&mut self, gap: &GapEntry<'_>) {
        let known = self.again.entry((gap.device.into(), gap.boot, gap.cause));
        match known {
            hash_map::Entry::Occupied(at) => self.gaps[*at.get()].join(gap),
            hash_map::Entry::Vacant(place) => {
                place.insert(self.gaps.len());
                self.gaps.push(Gap::again(gap));
            }
        }
    }

    /// Whether so many came together that they should be declared before more are added.
    pub(super) fn is_large(&self) -> bool {
        self.gaps.len() >= GAPS_MAX
    }

    /// The gaps so far.
    pub(super) fn take(&mut self) -> Vec<Gap> {
        self.latest.clear();
        self.again.clear();
        std::mem::take(&mut self.gaps)
    }
}

impl Readable {
    fn take_row(&mut self, row: &RowEntry<'_>) {
        match self.rows.get_mut(row.device) {
            Some(rows) => *rows += 1,
            None => drop(self.rows.insert(row.device.into(), 1)),
        }
        if row.boot != 0 {
            self.pass(row.device, row.boot, row.sequence, row.sequence.saturating_add(1));
        }
    }

    fn take_gap(&mut self, gap: &GapEntry<'_>) {
        if gap.boot != 0 && gap.sink.is_none() {
            self.pass(gap.device, gap.boot, gap.from, gap.to);
        }
    }

    fn pass(&mut self, device: &str, boot: u32, from: u64, to: u64) {
        let next = self.next.entry((device.into(), boot)).or_insert(from);
        if from > *next {
            let jumps = self.jumps.entry(device.into()).or_default();
            if jumps.len() <= JUMPS_MAX {
                jumps.push((boot, *next, from));
            }
        }
        *next = to.max(*next);
    }
}
