//! Clocks: when entries happened that came before the gateway's clock was believed.
//!
//! * In: *early* rows and gaps, which tell of a boot of the machine and the nanoseconds of its steady clock; the fix of
//!   each such boot.
//! * Out: [`Fixes`], by which readers give early entries their time.
//! * Next: `sink/batch.rs` makes points of dated entries.
//!
//! Constraints: a boot of the machine is fixed once, and the first fix stands, so that an early entry has the same
//! nanosecond in every sink, in every life. A fix is shown to readers when it is durable, not before. The list is bounded
//! by [`CLOCKS_MAX`]: the oldest clock that is fixed, and whose entries everybody has, makes room for a new one; where there
//! is none, intake has to wait.
//!
//! The unit is the boot of the machine and not that of the gateway, because the steady clock counts on through a restart
//! of the gateway: what a life has left without a time, the next one knows exactly.

use serde::{Deserialize, Serialize};

use super::bugs::{Bug, seeded};
use super::codec::{Undecodable, take_array, take_flags};
use super::entry::{Entry, GapEntry, RowEntry};
use crate::record::{MachineBoot, Offset};

/// Boots of the machine whose early entries may be in the journal at a time.
pub const CLOCKS_MAX: usize = 64;

const ESTIMATED: u8 = 1;

/// Early entries of a boot of the machine begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEntry {
    /// The boot.
    pub machine: MachineBoot,
    /// What the wall clock, which nobody vouched for, was ahead of the steady one.
    pub told_ns: i64,
}

/// The time of all early entries of a boot of the machine, before and behind this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixEntry {
    /// The boot.
    pub machine: MachineBoot,
    /// What makes its steady nanoseconds those since 1970 UTC.
    pub offset_ns: i64,
    /// Whether nothing vouches for that.
    pub estimated: bool,
}

/// All clocks that are remembered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    list: Vec<Clock>,
    /// Early entries below have no time any more if their clock is not listed: everybody has them.
    forgotten_below: Offset,
    estimated_rows: u64,
}

/// A boot of the machine of which there are early entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The boot.
    pub machine: MachineBoot,
    /// What its wall clock was ahead of the steady one when the first early entry came; none if that is lost.
    pub told_ns: Option<i64>,
    /// The first and the last stamp, in steady nanoseconds.
    pub stamps: Option<(i64, i64)>,
    /// The latest steady nanosecond of any entry.
    pub end_ns: i64,
    /// Early rows.
    pub rows: u64,
    /// What makes steady nanoseconds those since 1970 UTC, once that is known.
    pub offset_ns: Option<i64>,
    newest: Offset,
}

/// What readers know of clocks: the durable fixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixes {
    offsets: Vec<(MachineBoot, i64)>,
    forgotten_below: Offset,
}

impl ClockEntry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.machine.0.to_le_bytes());
        out.extend_from_slice(&self.told_ns.to_le_bytes());
    }

    pub(super) fn decode(input: &mut &[u8]) -> Result<ClockEntry, Undecodable> {
        Ok(ClockEntry { machine: take_machine(input)?, told_ns: take_ns(input)? })
    }
}

impl FixEntry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.estimated { ESTIMATED } else { 0 });
        out.extend_from_slice(&self.machine.0.to_le_bytes());
        out.extend_from_slice(&self.offset_ns.to_le_bytes());
    }

    pub(super) fn decode(input: &mut &[u8]) -> Result<FixEntry, Undecodable> {
        Ok(FixEntry {
            estimated: take_flags(input, ESTIMATED)? & ESTIMATED != 0,
            machine: take_machine(input)?,
            offset_ns: take_ns(input)?,
        })
    }
}

pub(super) fn take_machine(input: &mut &[u8]) -> Result<MachineBoot, Undecodable> {
    take_array(input).map(|bytes| MachineBoot(u64::from_le_bytes(bytes)))
}

fn take_ns(input: &mut &[u8]) -> Result<i64, Undecodable> {
    take_array(input).map(i64::from_le_bytes)
}

impl Clocks {
    /// The clock of a boot of the machine, if it is remembered.
    #[must_use]
    pub fn get(&self, machine: MachineBoot) -> Option<&Clock> {
        self.list.iter().find(|clock| clock.machine == machine)
    }

    /// Whether early entries of a boot of the machine wait for its fix.
    #[must_use]
    pub fn is_waiting(&self, machine: MachineBoot) -> bool {
        self.waiting().any(|clock| clock.machine == machine)
    }

    /// Those that are not fixed, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Clock> {
        self.list.iter().filter(|clock| clock.offset_ns.is_none())
    }

    /// Early rows that wait for a fix.
    #[must_use]
    pub fn waiting_rows(&self) -> u64 {
        self.waiting().fold(0, |sum, clock| sum.saturating_add(clock.rows))
    }

    /// Rows whose time is an estimate, over all time.
    #[must_use]
    pub fn estimated_rows(&self) -> u64 {
        self.estimated_rows
    }

    /// What readers may know once all of it is durable.
    #[must_use]
    pub fn fixes(&self) -> Fixes {
        let offsets = self.list.iter().filter_map(|clock| Some((clock.machine, clock.offset_ns?)));
        Fixes { offsets: offsets.collect(), forgotten_below: self.forgotten_below }
    }

    /// Whether there never was an early entry.
    pub(super) fn is_empty(&self) -> bool {
        *self == Clocks::default()
    }

    /// Whether another clock can be remembered, given that everybody has everything below an offset.
    pub(super) fn has_room(&self, done_below: Option<Offset>) -> bool {
        self.list.len() < CLOCKS_MAX || self.oldest_done(done_below).is_some()
    }

    /// A new clock. What intake has admitted is taken in, even if it does not see any more why there was room.
    pub(super) fn begin(&mut self, entry: &ClockEntry, done_below: Option<Offset>) {
        if self.get(entry.machine).is_some() {
            return;
        }
        if self.list.len() >= CLOCKS_MAX
            && let Some(at) = self.oldest_done(done_below)
        {
            let forgotten = self.list.remove(at);
            self.forgotten_below = self.forgotten_below.max(forgotten.newest.plus(1));
        }
        self.entry(entry.machine).told_ns = Some(entry.told_ns);
    }

    /// An early entry at `offset`; the clock that it came by.
    pub(super) fn take_in(
        &mut self,
        machine: MachineBoot,
        offset: Offset,
        ns: i64,
        stamped: bool,
    ) -> &mut Clock {
        let clock = self.entry(machine);
        clock.newest = clock.newest.max(offset);
        clock.end_ns = clock.end_ns.max(ns);
        if stamped {
            clock.stamps = Some(clock.stamps.map_or((ns, ns), |(first, _)| (first.min(ns), ns)));
        }
        clock
    }

    /// The clock that a fix has fixed; none if there is none such, or it was fixed before.
    pub(super) fn fix(&mut self, fix: &FixEntry) -> Option<&Clock> {
        let clock = self.list.iter_mut().find(|clock| clock.machine == fix.machine)?;
        if clock.offset_ns.is_some() && !seeded(Bug::LaterFixWins) {
            return None;
        }
        clock.offset_ns = Some(fix.offset_ns);
        if fix.estimated {
            self.estimated_rows = self.estimated_rows.saturating_add(clock.rows);
        }
        Some(clock)
    }

    fn oldest_done(&self, done_below: Option<Offset>) -> Option<usize> {
        let done_below = done_below?;
        self.list.iter().position(|clock| clock.offset_ns.is_some() && clock.newest < done_below)
    }

    fn entry(&mut self, machine: MachineBoot) -> &mut Clock {
        let at = self.list.iter().position(|clock| clock.machine == machine).unwrap_or_else(|| {
            self.list.push(Clock {
                machine,
                told_ns: None,
                stamps: None,
                end_ns: 0,
                rows: 0,
                offset_ns: None,
                newest: Offset(0),
            });
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

impl Fixes {
    /// The entry with its time: an early one whose clock is fixed becomes one like any other.
    #[must_use]
    pub fn date<'a>(&self, entry: Entry<'a>) -> Entry<'a> {
        let dated = match entry {
            Entry::EarlyRow(machine, row) => {
                self.ns(machine, row.ns).map(|ns| Entry::Row(RowEntry { ns, ..row }))
            }
            Entry::EarlyGap(machine, gap) => {
                self.ns(machine, gap.ns).map(|ns| Entry::Gap(GapEntry { ns, ..gap }))
            }
            Entry::EarlyGapAgain(machine, gap) => {
                self.ns(machine, gap.ns).map(|ns| Entry::GapAgain(GapEntry { ns, ..gap }))
            }
            _ => None,
        };
        dated.unwrap_or(entry)
    }

    /// Nanoseconds since 1970 UTC of a moment of the steady clock, if its fix is known.
    #[must_use]
    pub fn ns(&self, machine: MachineBoot, steady_ns: i64) -> Option<i64> {
        let (_, offset_ns) = self.offsets.iter().find(|(fixed, _)| *fixed == machine)?;
        Some(steady_ns.saturating_add(*offset_ns))
    }

    /// Whether an early entry at `offset` that has no time will never have one: everybody had it, and its clock is
    /// forgotten.
    #[must_use]
    pub fn has_forgotten(&self, offset: Offset) -> bool {
        offset < self.forgotten_below
    }
}
