//! What a sink has of the journal above its cursor: stretches of offsets, each but for the devices that were left out.

use std::collections::VecDeque;

use crate::record::Offset;
use crate::sink::selection::LeftOut;

/// Most stretches that are remembered.
const STRETCHES_MAX: usize = 1_024;

/// Offsets above the cursor whose points a sink has.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Ascending, none overlapping another, and none touching one that lacks the same devices.
    stretches: VecDeque<Stretch>,
}

/// Offsets whose points a sink has, but for those of some devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    from: u64,
    to: u64,
    without: LeftOut,
}

impl Stored {
    /// None, as for every sink whose rows go in order.
    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Whether the sink has what stands at an offset, which is of this device.
    pub(super) fn has(&self, offset: Offset, device: &str) -> bool {
        let behind = self.stretches.partition_point(|stretch| stretch.to <= offset.0);
        let stretch = self.stretches.get(behind).filter(|stretch| stretch.from <= offset.0);
        stretch.is_some_and(|stretch| !stretch.without.has(device))
    }

    /// The cursor has come to an offset.
    pub(super) fn pass(&mut self, to: Offset) {
        while let Some(first) = self.stretches.front_mut() {
            if first.to > to.0 {
                first.from = first.from.max(to.0);
                return;
            }
            self.stretches.pop_front();
        }
    }

    /// The sink has everything from one offset to another but what is of these devices. Of too many stretches the shortest is
    /// forgotten.
    pub(super) fn add(&mut self, from: Offset, to: Offset, without: &LeftOut) {
        let (from, to) = (from.0, to.0);
        if from >= to {
            return;
        }
        let first = self.stretches.partition_point(|stretch| stretch.to < from);
        let last = self.stretches.partition_point(|stretch| stretch.from <= to);
        let mut joined = Joined::default();
        let mut at = from;
        for old in self.stretches.drain(first..last) {
            joined.push(old.from, old.to.min(from), &old.without);
            joined.push(at, old.from.min(to), without);
            at = at.max(old.from.min(to));
            joined.push(at, old.to.min(to), &old.without.common(without));
            at = at.max(old.to.min(to));
            joined.push(old.from.max(to), old.to, &old.without);
        }
        joined.push(at, to, without);
        for (n, stretch) in joined.0.into_iter().enumerate() {
            self.stretches.insert(first + n, stretch);
        }
        while self.stretches.len() > STRETCHES_MAX {
            let length = |at: &usize| self.stretches[*at].to - self.stretches[*at].from;
            let shortest = (0..self.stretches.len()).min_by_key(length);
            shortest.and_then(|shortest| self.stretches.remove(shortest));
        }
    }
}

/// Stretches in ascending order, as few as they can be.
#[derive(Default)]
struct Joined(Vec<Stretch>);

impl Joined {
    fn push(&mut self, from: u64, to: u64, without: &LeftOut) {
        if from >= to {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.to == from && last.without == *without => last.to = to,
            _ => self.0.push(Stretch { from, to, without: without.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const DEVICES: [&str; 3] = ["a", "b", "c"];

    fn without(bits: u8) -> LeftOut {
        let devices = DEVICES.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        devices.map(|(_, device)| (*device).into()).collect()
    }

    proptest! {
        #[test]
        fn stretches_are_what_was_added_and_not_passed_device_by_device(
            steps in prop::collection::vec((0..200_u64, 0..20_u64, 0..8_u8, prop::bool::weighted(0.1)), 0..40),
        ) {
            let (mut stored, mut model) = (Stored::default(), BTreeSet::new());
            for (from, length, bits, passes) in steps {
                let left_out = without(bits);
                if passes {
                    stored.pass(Offset(from));
                    model.retain(|(offset, _)| *offset >= from);
                } else {
                    stored.add(Offset(from), Offset(from + length), &left_out);
                    let has = DEVICES.into_iter().filter(|device| !left_out.has(device));
                    model.extend(has.flat_map(|device| (from..from + length).map(move |offset| (offset, device))));
                }
                for (offset, device) in (0..230).flat_map(|offset| DEVICES.map(|device| (offset, device))) {
                    let has = stored.has(Offset(offset), device);
                    prop_assert_eq!(has, model.contains(&(offset, device)), "{} {}: {:?}", offset, device, stored);
                }
                let pairs = stored.stretches.iter().zip(stored.stretches.iter().skip(1));
                for (one, other) in pairs {
                    prop_assert!(one.to < other.from || one.to == other.from && one.without != other.without);
                }
            }
        }
    }

    #[test]
    fn of_too_many_stretches_the_shortest_is_forgotten() {
        let mut stored = Stored::default();
        for n in 0..=STRETCHES_MAX as u64 {
            let length = if n == 7 { 1 } else { 5 };
            stored.add(Offset(n * 10), Offset(n * 10 + length), &without(1));
        }
        assert_eq!(stored.stretches.len(), STRETCHES_MAX);
        let has = |offset| stored.has(Offset(offset), "b");
        assert!(!has(70) && has(60) && has(10 * STRETCHES_MAX as u64 + 4));
        assert!(!stored.has(Offset(60), "a"));
    }
}
