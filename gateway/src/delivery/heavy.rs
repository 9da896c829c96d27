//! Who floods: the devices that fresh turns leave to the backlog, so that others have theirs.
//!
//! Constraint: nobody is left out while all fresh rows fit their turns, and nobody whose rows take no more than about as
//! many bytes as everybody else's. A device that is left out loses its turns ahead and nothing else: the backlog has its
//! rows in order.
//!
//! Operation: when a fresh batch is full and more waits behind it, the heaviest device in what the batch has come across is
//! left out if it stands out, and the batch is read on; so again, until it reaches the journal's end or nobody stands out.
//! A device stands out if it has more than [`TIMES_OTHERS`] times what others have in the mean, or, however many flood, if
//! it has more than its fair share, an equal part of the batch, and somebody has less than a quarter of that. Whoever is
//! the only one is left out once it is late itself. It is taken in again when it has been no burden for [`IDLE_TURNS`]
//! turns: what the sink has is remembered by stretches with the same devices left out, and should be few.
//!
//! *Limits.* At most [`DEVICES_MAX`] devices, 16, are left out. Where more than these have more than their fair share,
//! nobody is left out for the sake of one that has little, whose rows then take their chance with all others. What is left
//! out is still gone through: if 65,536 entries, or eight batches, come between two turns, the turn begins a batch before
//! the journal's end (`ahead.rs`).

use std::sync::Arc;

use crate::sink::selection::{Census, LeftOut};

/// Most devices that are left out at a time.
const DEVICES_MAX: usize = 16;
/// How many times what others have in the mean makes a device stand out.
const TIMES_OTHERS: u64 = 2;
/// How many times what the lightest has fits a fair share before others make room for it.
const SHARE_TIMES: u64 = 4;
/// Fresh turns after which a device that was no burden in any of them is left out no more.
const IDLE_TURNS: u32 = 8;

/// The devices that are left out.
#[derive(Debug, Default)]
pub(super) struct Heavy {
    /// With the number of turns in which each was no burden.
    devices: Vec<(Arc<str>, u32)>,
}

impl Heavy {
    /// One device.
    #[cfg(test)]
    pub(super) fn of(device: &str) -> Heavy {
        Heavy { devices: vec![(device.into(), 0)] }
    }

    /// All of them.
    pub(super) fn left_out(&self) -> LeftOut {
        self.devices.iter().map(|(device, _)| Arc::clone(device)).collect()
    }

    /// A fresh batch that came across this is full before its time, and late or not: whether somebody more is left out.
    pub(super) fn handle_full(&mut self, census: &Census, is_late: bool) -> bool {
        let (heaviest, others) = self.split(census);
        let room = DEVICES_MAX - self.devices.len();
        let stands_out = heaviest.filter(|(_, bytes)| match others.number {
            0 => is_late,
            _ => others.are_flooded_by(*bytes, || self.above_share(census) <= room),
        });
        let added = stands_out.filter(|_| room > 0);
        self.devices.extend(added.map(|(device, _)| (device.into(), 0)));
        added.is_some()
    }

    /// A fresh batch has left that came across this, all of which would have fitted it, or not.
    pub(super) fn handle_turn(&mut self, census: &Census, all_fits: bool) {
        let (heaviest, mut others) = self.split(census);
        heaviest.into_iter().for_each(|(_, bytes)| others.add(bytes));
        for (device, idle) in &mut self.devices {
            let is_burden = !all_fits && others.are_flooded_by(census.of(device), || true);
            *idle = if is_burden { 0 } else { *idle + 1 };
        }
        self.devices.retain(|(_, idle)| *idle < IDLE_TURNS);
    }

    /// The heaviest of those who are not left out, and the others of them.
    fn split<'a>(&self, census: &'a Census) -> (Option<(&'a str, u64)>, Others) {
        let (mut heaviest, mut others) = (None, Others::default());
        for (device, bytes) in self.taken_in(census) {
            let lighter = match heaviest {
                Some((known, most)) if (most, known) > (bytes, device) => Some(bytes),
                _ => heaviest.replace((device, bytes)).map(|(_, bytes)| bytes),
            };
            lighter.into_iter().for_each(|bytes| others.add(bytes));
        }
        (heaviest, others)
    }

    /// How many of those who are not left out have more than an equal part.
    fn above_share(&self, census: &Census) -> usize {
        let mut all = Others::default();
        self.taken_in(census).for_each(|(_, bytes)| all.add(bytes));
        let is_above = |bytes: u64| bytes.saturating_mul(all.number) > all.sum;
        self.taken_in(census).filter(|(_, bytes)| is_above(*bytes)).count()
    }

    fn taken_in<'a>(&self, census: &'a Census) -> impl Iterator<Item = (&'a str, u64)> {
        census.iter().filter(|(device, _)| !self.devices.iter().any(|(out, _)| **out == **device))
    }
}

/// What other devices have.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    number: u64,
    sum: u64,
    least: Option<u64>,
}

impl Others {
    fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.sum = self.sum.saturating_add(bytes);
        self.least = Some(self.least.map_or(bytes, |least| least.min(bytes)));
    }

    /// Whether so many bytes of one device stand out beside theirs; by its share alone only if that is of use.
    fn are_flooded_by(&self, bytes: u64, is_of_use: impl FnOnce() -> bool) -> bool {
        let Some(least) = self.least else { return bytes > 0 };
        let (number, all) = (self.number + 1, self.sum.saturating_add(bytes));
        let has_more = bytes.saturating_mul(number) > all;
        let somebody_has_little = least.saturating_mul(SHARE_TIMES).saturating_mul(number) < all;
        bytes.saturating_mul(self.number) > self.sum.saturating_mul(TIMES_OTHERS)
            || has_more && somebody_has_little && is_of_use()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::{Fields, RowEntry};
    use crate::sink::batch::Record;

    /// So many rows of each device, all of one size.
    fn census(devices: &[(&str, usize)]) -> Census {
        let mut census = Census::default();
        for (device, rows) in devices {
            let (series, fields) = ("m,device=x", Fields::of(&[]));
            let row = RowEntry { device, boot: 0, sequence: 0, stamped: false, series, ns: 0, fields };
            (0..*rows).for_each(|_| census.count(&Record::Row(row)));
        }
        census
    }

    fn left_out(heavy: &Heavy) -> Vec<&str> {
        heavy.devices.iter().map(|(device, _)| &**device).collect()
    }

    #[test]
    fn whoever_stands_out_is_left_out_one_after_the_other() {
        let mut heavy = Heavy::default();
        let seen = census(&[("a", 50), ("b", 500), ("c", 1), ("d", 2)]);
        assert!(heavy.handle_full(&seen, false) && heavy.handle_full(&seen, false));
        assert_eq!(left_out(&heavy), ["b", "a"]);
        assert!(!heavy.handle_full(&seen, true), "two rows are not much more than one");
    }

    #[test]
    fn nobody_stands_out_of_equals_and_whoever_is_alone_does_when_it_is_late() {
        let mut heavy = Heavy::default();
        assert!(!heavy.handle_full(&census(&[("a", 50), ("b", 50), ("c", 60)]), true));
        assert!(!heavy.handle_full(&census(&[("a", 20), ("b", 11)]), true));
        assert!(!heavy.handle_full(&census(&[]), true));
        assert!(!heavy.handle_full(&census(&[("a", 50)]), false));
        assert!(heavy.handle_full(&census(&[("a", 50)]), true));
        assert_eq!(left_out(&heavy), ["a"]);
    }

    #[test]
    fn floods_that_are_more_than_the_calm_ones_are_left_out_too() {
        let mut heavy = Heavy::default();
        let seen = census(&[("a", 30), ("b", 30), ("c", 30), ("calm", 2)]);
        assert!((0..3).all(|_| heavy.handle_full(&seen, false)) && !heavy.handle_full(&seen, false));
        let mut out = left_out(&heavy);
        out.sort_unstable();
        assert_eq!(out, ["a", "b", "c"]);
        (0..2 * IDLE_TURNS).for_each(|_| heavy.handle_turn(&seen, false));
        assert_eq!(left_out(&heavy).len(), 3);
        let mut heavy = Heavy::default();
        assert!(!heavy.handle_full(&census(&[("a", 30), ("b", 30), ("c", 30), ("d", 10)]), true));
        // Seventeen could not all be left out.
        let names: Vec<String> = (0..=DEVICES_MAX).map(|n| format!("{n}")).collect();
        let mut devices: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 30)).collect();
        devices.push(("calm", 2));
        assert!(!heavy.handle_full(&census(&devices), true));
        assert!(heavy.handle_full(&census(&devices[1..]), true));
    }

    #[test]
    fn only_so_many_are_left_out() {
        let mut heavy = Heavy::default();
        for n in 0..40 {
            let name = format!("{n}");
            let seen = census(&[(&name, 1_000), ("x", 1), ("y", 1)]);
            assert_eq!(heavy.handle_full(&seen, true), n < DEVICES_MAX);
        }
        assert_eq!(left_out(&heavy).len(), DEVICES_MAX);
    }

    #[test]
    fn whoever_is_no_burden_for_a_while_is_taken_in_again() {
        let mut heavy = Heavy::default();
        let flood = census(&[("a", 500), ("b", 1)]);
        assert!(heavy.handle_full(&flood, false));
        for turn in 0..3 * IDLE_TURNS {
            // Now and then it floods again.
            let floods = turn % IDLE_TURNS == IDLE_TURNS - 1;
            heavy.handle_turn(&flood, !floods);
            assert_eq!(left_out(&heavy), ["a"]);
        }
        let calm = census(&[("a", 3), ("b", 2), ("c", 2)]);
        for _ in 1..IDLE_TURNS {
            heavy.handle_turn(&calm, false);
            assert_eq!(left_out(&heavy), ["a"]);
        }
        heavy.handle_turn(&calm, false);
        assert_eq!(left_out(&heavy), [""; 0]);
    }
}
