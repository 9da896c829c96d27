//! What the journal's medium lost of what a sink is still to get.
//!
//! What is owed to a sink and cannot be read any more is lost: the difference between the ledger and a reading of
//! everything behind the hole, account by account. That needs no knowledge of what the hole held. Where the numbers of a
//! native device jump, the gap says which rows they were.
//!
//! One reading tells of all holes at once, and their losses are declared with the first of them. So it remembers which
//! holes it came across, up to a number, and those are passed without reading all of it again. The gaps may take more
//! than one submission, of which the last one has the skip: each of them makes less be owed, so wherever a crash ends
//! that, the next reading finds what is still to be declared.
//!
//! What a reading has in memory is bounded by the accounts of the ledger.

use std::collections::{HashMap, VecDeque};

use tokio::task::yield_now;

use super::gaps::{Gap, GapMaker, When};
use crate::journal::entry::{Cause, Entry, GapEntry, RowEntry};
use crate::journal::state::BOOTS_MAX;
use crate::journal::{Journal, Read, ReadError};
use crate::record::Offset;

/// Jumps that are told apart for one device; more of them are summed up.
const JUMPS_MAX: usize = 64;
/// Holes that are remembered; behind more of them all is read once more.
const HOLES_MAX: usize = 1024;

/// What the ledger says at one moment.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Up to where the figures hold.
    pub(super) end: Offset,
    /// Rows that the sink is still to get, with key and tag of their device.
    rows: Vec<(Box<str>, Box<str>, u64)>,
}

/// Holes whose losses are declared.
#[derive(Debug, Default)]
pub(super) struct Holes(VecDeque<(Offset, Offset)>);

/// What can be read of one account.
#[derive(Debug, Default)]
struct Readable {
    rows: u64,
    /// Where the numbers of a native device's latest boots go on.
    next: VecDeque<(u32, u64)>,
    /// Numbers that are missing between two rows: boot, from, to.
    jumps: Vec<(u32, u64, u64)>,
}

/// Asks the ledger what a sink is still to get.
pub(super) fn owed(journal: &Journal, sink: &str) -> Owed {
    journal.with_state_and_end(|state, end| Owed {
        end,
        rows: state
            .owed_by_device(sink)
            .map(|(device, rows)| (device.key.clone(), device.name.clone(), rows))
            .collect(),
    })
}

/// The gaps of what is owed and cannot be read from an offset on, before which everything is accounted for; and the
/// holes behind it, which these gaps tell of too. Everything below `owed.end` must be durable. Their time is `now`.
pub(super) async fn damaged(
    journal: &Journal,
    from: Offset,
    owed: &Owed,
    maker: &mut GapMaker,
    now: When,
) -> Result<(Vec<Gap>, Holes), ReadError> {
    let (readable, holes) = read(journal, from, owed).await?;
    let mut gaps = Vec::new();
    for (key, tag, rows) in &owed.rows {
        let found = readable.get(&**key);
        let lost = rows.saturating_sub(found.map_or(0, |found| found.rows));
        let mut of_numbers = |boot, numbers| {
            gaps.push(maker.of_numbers(Cause::Damaged, (key, tag), boot, numbers, now));
        };
        let jumps = found.map_or(&[][..], |found| &found.jumps);
        let known: u64 = jumps.iter().map(|(_, from, to)| to - from).sum();
        let told_apart = known <= lost && jumps.len() <= JUMPS_MAX;
        let (jumps, known) = if told_apart { (jumps, known) } else { (&[][..], 0) };
        jumps.iter().for_each(|(boot, from, to)| of_numbers(*boot, (*from, *to)));
        if lost > known {
            of_numbers(0, (0, lost - known));
        }
    }
    Ok((gaps, holes))
}

async fn read<'a>(
    journal: &Journal,
    from: Offset,
    owed: &'a Owed,
) -> Result<(HashMap<&'a str, Readable>, Holes), ReadError> {
    let accounts = owed.rows.iter().map(|(key, ..)| (&**key, Readable::default()));
    let (mut readable, mut holes): (HashMap<_, _>, _) = (accounts.collect(), Holes::default());
    let mut reader = journal.reader(from);
    loop {
        // A backlog may be long, and whoever waits for the driver to end must not have to wait for that.
        yield_now().await;
        match reader.next()? {
            Read::Frame(frame) => {
                for (offset, entry) in frame.entries().skip_while(|(offset, _)| *offset < from) {
                    if offset >= owed.end {
                        return Ok((readable, holes));
                    }
                    let (device, entry) = match entry {
                        Ok(Entry::Row(row) | Entry::EarlyRow(_, row)) => (row.device, Ok(row)),
                        Ok(Entry::Gap(gap) | Entry::EarlyGap(_, gap)) => (gap.device, Err(gap)),
                        _ => continue,
                    };
                    // Of an account of which nothing is owed, nothing can be missing.
                    let Some(account) = readable.get_mut(device) else { continue };
                    match entry {
                        Ok(row) => account.take_row(&row),
                        Err(gap) => account.take_gap(&gap),
                    }
                }
            }
            Read::Damaged { from, to } if to <= owed.end => holes.add(from, to),
            // What was damaged since may hold rows of which the figures do not tell.
            Read::Damaged { .. } | Read::Wait => return Ok((readable, holes)),
        }
    }
}

impl Holes {
    fn add(&mut self, from: Offset, to: Offset) {
        if self.0.len() < HOLES_MAX {
            self.0.push_back((from, to));
        }
    }

    /// Whether the losses of a hole are declared; forgets those before it.
    pub(super) fn cover(&mut self, from: Offset, to: Offset) -> bool {
        while self.0.pop_front_if(|(_, end)| *end <= from).is_some() {}
        self.0.front().is_some_and(|(known_from, known_to)| *known_from <= from && to <= *known_to)
    }
}

impl Readable {
    fn take_row(&mut self, row: &RowEntry<'_>) {
        self.rows += 1;
        if row.boot != 0 {
            self.pass(row.boot, row.sequence, row.sequence.saturating_add(1));
        }
    }

    fn take_gap(&mut self, gap: &GapEntry<'_>) {
        if gap.boot != 0 && gap.sink.is_none() {
            self.pass(gap.boot, gap.from, gap.to);
        }
    }

    fn pass(&mut self, boot: u32, from: u64, to: u64) {
        let Some((_, next)) = self.next.iter_mut().find(|(known, _)| *known == boot) else {
            if self.next.len() >= BOOTS_MAX {
                self.next.pop_front();
            }
            self.next.push_back((boot, to));
            return;
        };
        if from > *next && self.jumps.len() <= JUMPS_MAX {
            self.jumps.push((boot, *next, from));
        }
        *next = to.max(*next);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Options, Refused};

    #[test]
    fn a_reading_can_be_abandoned_at_each_frame() {
        let journal = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(2 << 20)).unwrap().0;
        let mut owed = owed(&journal, "main");
        for sink in ["a", "b", "c"] {
            let submitted: Result<_, Refused> =
                journal.submit(Class::Internal, |_, submission| submission.add(&Entry::Forget(sink)));
            owed.end = submitted.unwrap().1;
            while *journal.watermark().borrow() < owed.end {
                std::thread::yield_now();
            }
        }
        let mut maker = GapMaker::new(Vec::new());
        let now = When { machine: None, ns: 5 };
        let mut reading = pin!(damaged(&journal, Offset(0), &owed, &mut maker, now));
        let mut context = Context::from_waker(Waker::noop());
        let pauses = std::iter::from_fn(|| reading.as_mut().poll(&mut context).is_pending().then_some(()));
        assert!(pauses.count() >= 3);
    }

    #[test]
    fn a_hole_that_was_read_over_is_known_until_it_is_passed() {
        let mut holes = Holes::default();
        for from in [10, 20, 30] {
            holes.add(Offset(from), Offset(from + 5));
        }
        assert!(!holes.cover(Offset(8), Offset(15)), "it has grown");
        assert!(holes.cover(Offset(10), Offset(15)) && holes.cover(Offset(12), Offset(15)));
        assert!(holes.cover(Offset(30), Offset(35)), "what is before it is forgotten");
        assert!(!holes.cover(Offset(20), Offset(25)) && !holes.cover(Offset(40), Offset(41)));
        for from in 0..2 * HOLES_MAX as u64 {
            holes.add(Offset(100 + 2 * from), Offset(101 + 2 * from));
        }
        assert_eq!(holes.0.len(), HOLES_MAX);
    }

    #[test]
    fn a_device_that_restarts_for_ever_takes_no_more_memory_than_another() {
        let mut account = Readable::default();
        for boot in 1..10_000 {
            account.pass(boot, 0, 5);
            account.pass(boot, 7, 9);
        }
        assert_eq!((account.next.len(), account.jumps.len()), (BOOTS_MAX, JUMPS_MAX + 1));
    }
}
