//! Who floods: the devices that fresh turns leave to the backlog, so that others have theirs.
//!
//! Constraint: nobody is left out while all fresh rows fit their turns, and nobody whose rows take no more than about as
//! many bytes as everybody else's. A device that is left out loses its turns ahead and nothing else: the backlog has its
//! rows in order.
//!
//! Operation: when a fresh batch is full and more waits behind it, the heaviest device in what the batch has come across is
//! left out, if it has more than [`TIMES_OTHERS`] times what others have in the mean, and the batch is read on; so
//! again, until it reaches the journal's end or nobody stands out. Whoever is the only one is left out once it is late
//! itself. It is taken in again when it has been no burden for [`IDLE_TURNS`] turns: what the sink has is remembered by
//! stretches with the same devices left out, and should be few.

use std::sync::Arc;

use crate::sink::selection::{Census, LeftOut};

/// Most devices that are left out at a time.
const DEVICES_MAX: usize = 16;
/// How many times what others have in the mean makes a device stand out.
const TIMES_OTHERS: u64 = 2;
/// Fresh turns after which a device that was no burden in any of them is left out no more.
const IDLE_TURNS: u32 = 8;

/// The devices that are left out.
#[derive(Debug, Default)]
pub(super) struct Heavy {
    /// With the number of turns in which each was no burden.
    devices: Vec<(Arc<str>, u32)>,
}

impl Heavy {
    /// All of them.
    pub(super) fn left_out(&self) -> LeftOut {
        self.devices.iter().map(|(device, _)| Arc::clone(device)).collect()
    }

    /// A fresh batch that came across this is full before its time, and late or not: whether somebody more is left out.
    pub(super) fn handle_full(&mut self, census: &Census, is_late: bool) -> bool {
        let (heaviest, others) = self.split(census);
        let stands_out = heaviest.filter(|(_, bytes)| is_more(*bytes, others) && (is_late || others.0 > 0));
        let added = stands_out.filter(|_| self.devices.len() < DEVICES_MAX);
        self.devices.extend(added.map(|(device, _)| (device.into(), 0)));
        added.is_some()
    }

    /// A fresh batch has left that came across this, all of which would have fitted it, or not.
    pub(super) fn handle_turn(&mut self, census: &Census, all_fits: bool) {
        let (heaviest, (number, sum)) = self.split(census);
        let others = (number + usize::from(heaviest.is_some()), sum + heaviest.map_or(0, |(_, bytes)| bytes));
        for (device, idle) in &mut self.devices {
            let is_burden = !all_fits && is_more(census.of(device), others);
            *idle = if is_burden { 0 } else { *idle + 1 };
        }
        self.devices.retain(|(_, idle)| *idle < IDLE_TURNS);
    }

    /// The heaviest of those who are not left out; of the others the number and the sum.
    fn split<'a>(&self, census: &'a Census) -> (Option<(&'a str, u64)>, (usize, u64)) {
        let is_in = |device: &str| !self.devices.iter().any(|(out, _)| **out == *device);
        let (mut heaviest, mut number, mut sum) = (None, 0, 0_u64);
        for (device, bytes) in census.iter().filter(|(device, _)| is_in(device)) {
            let lighter = match heaviest {
                Some((known, most)) if (most, known) > (bytes, device) => Some(bytes),
                _ => heaviest.replace((device, bytes)).map(|(_, bytes)| bytes),
            };
            number += usize::from(lighter.is_some());
            sum = sum.saturating_add(lighter.unwrap_or(0));
        }
        (heaviest, (number, sum))
    }
}

/// Whether so many bytes stand out beside those of so many others.
fn is_more(bytes: u64, (others, sum): (usize, u64)) -> bool {
    match others {
        0 => bytes > 0,
        others => bytes.saturating_mul(others as u64) > sum.saturating_mul(TIMES_OTHERS),
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
