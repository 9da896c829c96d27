//! Gaps of one sink: what it refused, what was evicted, what the journal's medium lost.

use std::collections::HashMap;

use crate::journal::entry::{Cause, ENTRY_BYTES_MAX, Entry, GapEntry, RowEntry};
use crate::journal::state::OTHERS;
use crate::record::{MachineBoot, SeriesKey, split_series};

/// A gap whose time is not later than that of its series' previous one by this much at most is moved behind it.
const COLLISION_NS: i64 = 1_000_000;
/// Series whose previous gap is remembered.
const SERIES: usize = 10_000;
/// What an entry of a gap takes at most besides device and series.
const REST_BYTES: usize = 512;

/// Makes gaps of one sink.
#[derive(Debug)]
pub(super) struct GapMaker {
    /// Configured tags.
    tags: Vec<(String, String)>,
    /// Time of the latest gap of each series.
    latest: HashMap<Box<str>, When>,
}

/// When something was: nanoseconds since 1970, or of the steady clock in a boot of the machine whose clock is not fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When {
    pub(super) machine: Option<MachineBoot>,
    pub(super) ns: i64,
}

/// A gap that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) device: String,
    pub(super) boot: u32,
    /// The lowest number.
    pub(super) from: u64,
    /// The number behind the highest.
    pub(super) to: u64,
    /// How many of the numbers in between are lost.
    pub(super) count: u64,
    pub(super) cause: Cause,
    /// Whether it is counted already, so that only its point is to be delivered.
    again: bool,
    /// Whether it has rows of several boots.
    is_sum: bool,
    series: String,
    when: When,
}

impl GapMaker {
    pub(super) fn new(tags: Vec<(String, String)>) -> GapMaker {
        GapMaker { tags, latest: HashMap::new() }
    }

    /// The gap that one row leaves: it has the row's time.
    pub(super) fn of_row(&mut self, cause: Cause, row: &RowEntry<'_>, machine: Option<MachineBoot>) -> Gap {
        let (_, tags) = split_series(row.series);
        // A gap of those who share an account tells of more than the device of its first row.
        let own = tags.iter().find(|(name, _)| name == "device" && row.device != OTHERS);
        let tag = own.map_or(row.device, |(_, value)| value);
        let (from, to) = (row.sequence, row.sequence.saturating_add(1));
        Gap { from, to, count: 1, ..self.gap(cause, row.device, tag, row.boot, When { machine, ns: row.ns }) }
    }

    /// The gap of rows of which nothing but their numbers is known, and perhaps not even those.
    pub(super) fn of_numbers(
        &mut self,
        cause: Cause,
        device: (&str, &str),
        boot: u32,
        numbers: (u64, u64),
        when: When,
    ) -> Gap {
        let (from, to) = numbers;
        let (key, tag) = device;
        Gap { from, to, count: to.saturating_sub(from), ..self.gap(cause, key, tag, boot, when) }
    }

    /// The gap of so many rows of which nothing else is known.
    pub(super) fn of_count(&mut self, cause: Cause, device: (&str, &str), count: u64, when: When) -> Gap {
        let (key, tag) = device;
        Gap { count, ..self.gap(cause, key, tag, 0, when) }
    }

    fn gap(&mut self, cause: Cause, device: &str, tag: &str, boot: u32, when: When) -> Gap {
        let own = [("cause", cause.as_str()), ("device", tag)];
        let configured = self.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut tags: Vec<_> =
            configured.filter(|(name, _)| own.iter().all(|(own, _)| own != name)).chain(own).collect();
        let series = SeriesKey::new("forebay_gap", &mut tags).map(|key| key.as_str().to_owned());
        let series = fitting(device, cause, series.ok());
        let when = self.own_time(&series, when);
        let device = device.to_owned();
        Gap { device, boot, from: 0, to: 0, count: 0, cause, again: false, is_sum: false, series, when }
    }

    /// The time, moved behind the series' previous gap where both would be the same point.
    fn own_time(&mut self, series: &str, when: When) -> When {
        if self.latest.len() >= SERIES {
            self.latest.clear();
        }
        let latest = self.latest.entry(series.into()).or_insert(When { ns: i64::MIN, ..when });
        let collides = when.machine == latest.machine
            && when.ns <= latest.ns
            && latest.ns.saturating_sub(when.ns) < COLLISION_NS;
        *latest = if collides { When { ns: latest.ns.saturating_add(1), ..when } } else { when };
        *latest
    }
}

impl Gap {
    /// Makes a row of the same device and boot part of the gap.
    pub(super) fn take_in(&mut self, row: &RowEntry<'_>) {
        (self.from, self.to) = (self.from.min(row.sequence), self.to.max(row.sequence.saturating_add(1)));
        self.count = self.count.saturating_add(1);
    }

    /// A gap whose entry is let go before its point was delivered.
    pub(super) fn again(gap: &GapEntry<'_>, machine: Option<MachineBoot>) -> Gap {
        Gap {
            device: gap.device.to_owned(),
            boot: gap.boot,
            from: gap.from,
            to: gap.to,
            count: gap.count,
            cause: gap.cause,
            again: true,
            is_sum: false,
            series: fitting(gap.device, gap.cause, Some(gap.series.to_owned())),
            when: When { machine, ns: gap.ns },
        }
    }

    /// Makes a gap of the same device, boot and cause part of this one.
    pub(super) fn join(&mut self, gap: &Gap) {
        self.count = self.count.saturating_add(gap.count);
        (self.from, self.to) = (self.from.min(gap.from), self.to.max(gap.to));
        if self.is_sum {
            self.to = self.count;
        }
    }

    /// The same rows without saying of which boot they are, and so by number only how many.
    pub(super) fn without_boot(self) -> Gap {
        Gap { boot: 0, from: 0, to: self.count, is_sum: true, ..self }
    }

    pub(super) fn entry<'a>(&'a self, sink: &'a str) -> Entry<'a> {
        let gap = GapEntry {
            device: &self.device,
            boot: self.boot,
            from: self.from,
            to: self.to,
            count: self.count,
            cause: self.cause,
            sink: Some(sink),
            stamped: false,
            series: &self.series,
            ns: self.when.ns,
        };
        match (self.when.machine, self.again) {
            (None, false) => Entry::Gap(gap),
            (None, true) => Entry::GapAgain(gap),
            (Some(machine), false) => Entry::EarlyGap(machine, gap),
            (Some(machine), true) => Entry::EarlyGapAgain(machine, gap),
        }
    }

    /// Whether it is counted already.
    pub(super) fn is_again(&self) -> bool {
        self.again
    }

    /// Rows that become lost with it.
    #[cfg(test)]
    pub(super) fn rows(&self) -> u64 {
        if self.again { 0 } else { self.count }
    }

    /// Length of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        self.device.len() + self.series.len()
    }
}

/// The key of a gap's point, unless it cannot be made or its entry would fit no frame: the gap counts all the same.
fn fitting(device: &str, cause: Cause, series: Option<String>) -> String {
    series
        .filter(|series| device.len() + series.len() + REST_BYTES <= ENTRY_BYTES_MAX)
        .unwrap_or_else(|| format!("forebay_gap,cause={}", cause.as_str()))
}
