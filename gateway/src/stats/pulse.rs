//! What changes by the second: rates, how the backlogs grow or shrink, and how old they are.
//!
//! [`Meter`] is given counters once a second and says how they have moved in the last [`WINDOW_MS`]; it knows no clock. What it
//! says is a [`Pulse`], which [`Stats`] keeps for everybody who writes down a status.

use std::collections::{BTreeMap, VecDeque};

use super::{Machine, Stats, Status};
use crate::journal::entry::Cause;
use crate::journal::{Entry, Journal, Read, State};
use crate::record::Offset;

/// Rates are means over the last so many milliseconds.
pub const WINDOW_MS: u64 = 10_000;
/// Bytes written a day are a mean since the start, once so many milliseconds have gone by.
const WEAR_LEAST_MS: u64 = 60_000;
/// Frames that are looked through for the oldest row that waits for a database.
const FRAMES_MAX: usize = 64;

/// What was measured last; nothing before the first measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulse {
    /// Rows that each source hands to intake in a second.
    pub sources: BTreeMap<String, f64>,
    /// Each sink.
    pub sinks: BTreeMap<String, SinkPulse>,
    /// Entries and bytes that the journal commits in a second.
    pub journal: (f64, f64),
    /// Rows declared lost in the last [`WINDOW_MS`].
    pub lost_lately: u64,
    /// The process and its disk.
    pub machine: Machine,
    /// Bytes that the process has written to disks in a day, by the mean since its start; none in its first minute.
    pub written_bytes_per_day: Option<u64>,
}

/// How delivery to one sink gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SinkPulse {
    /// Rows that it confirms in a second.
    pub rows_per_s: f64,
    /// How long the oldest row that it lacks has been waiting, by the row's own time; 0 if it lacks none.
    pub backlog_age_s: Option<u64>,
    /// When it will have caught up, if it goes on so; none while its backlog does not shrink.
    pub drain_s: Option<u64>,
}

/// What [`Meter`] is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Rows handed to intake, by source.
    pub sources: BTreeMap<String, u64>,
    /// By sink.
    pub sinks: BTreeMap<String, SinkCounts>,
    /// Entries and bytes that the journal has committed.
    pub journal: (u64, u64),
    /// Rows declared lost, by anybody.
    pub lost: u64,
    /// The process and its disk.
    pub machine: Machine,
}

/// What [`Meter`] is given of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Rows confirmed.
    pub confirmed: u64,
    /// Rows that it still has to get.
    pub backlog: u64,
    /// How long the oldest of them has been waiting.
    pub age_s: Option<u64>,
}

/// Compares counters with those of a while ago.
#[derive(Debug, Default)]
pub struct Meter {
    /// With the monotonic millisecond of each; the first one is at most [`WINDOW_MS`] old, if there are two.
    past: VecDeque<(u64, Counts)>,
    /// What the process had written when it was first asked, and when that was.
    first: Option<(u64, u64)>,
}

impl Pulse {
    /// Puts what was measured into a status whose sources and sinks are there.
    pub(super) fn write_into(&self, status: &mut Status) {
        (status.journal.entries_per_s, status.journal.bytes_per_s) = self.journal;
        for (name, source) in &mut status.sources {
            source.rows_per_s = self.sources.get(name).copied().unwrap_or(0.0);
        }
        for (name, sink) in &mut status.sinks {
            let pulse = self.sinks.get(name).copied().unwrap_or_default();
            sink.rows_per_s = pulse.rows_per_s;
            (sink.backlog_age_s, sink.drain_s) = (pulse.backlog_age_s, pulse.drain_s);
        }
        status.lost_rows_lately = self.lost_lately;
        (status.machine, status.written_bytes_per_day) = (self.machine, self.written_bytes_per_day);
    }
}

impl Meter {
    /// Takes the counters as they are at `now_ms`, a monotonic millisecond.
    pub fn take(&mut self, now_ms: u64, counts: Counts) -> Pulse {
        while self.past.len() > 1
            && self.past.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) > WINDOW_MS)
        {
            self.past.pop_front();
        }
        let (from_ms, from) = self.past.front().cloned().unwrap_or_else(|| (now_ms, counts.clone()));
        let passed_ms = now_ms.saturating_sub(from_ms);
        let rate = |now: u64, before: u64| per_second(now.saturating_sub(before), passed_ms);
        let source = |(name, now): (&String, &u64)| {
            let before = from.sources.get(name).unwrap_or(now);
            (name.clone(), rate(*now, *before))
        };
        let sink = |(name, now): (&String, &SinkCounts)| {
            let before = from.sinks.get(name).unwrap_or(now);
            let shrunk = before.backlog.saturating_sub(now.backlog);
            let drain_s = match (now.backlog, shrunk) {
                (0, _) => Some(0),
                (_, 0) => None,
                (backlog, shrunk) => Some(backlog.saturating_mul(passed_ms) / shrunk / 1_000),
            };
            let rows_per_s = rate(now.confirmed, before.confirmed);
            (name.clone(), SinkPulse { rows_per_s, backlog_age_s: now.age_s, drain_s })
        };
        let pulse = Pulse {
            sources: counts.sources.iter().map(source).collect(),
            sinks: counts.sinks.iter().map(sink).collect(),
            journal: (rate(counts.journal.0, from.journal.0), rate(counts.journal.1, from.journal.1)),
            lost_lately: counts.lost.saturating_sub(from.lost),
            machine: counts.machine,
            written_bytes_per_day: self.per_day(now_ms, counts.machine.written_bytes),
        };
        self.past.push_back((now_ms, counts));
        pulse
    }

    fn per_day(&mut self, now_ms: u64, written: Option<u64>) -> Option<u64> {
        const DAY_MS: u128 = 86_400_000;
        let written = written?;
        let (from_ms, before) = *self.first.get_or_insert((now_ms, written));
        let passed_ms = now_ms.saturating_sub(from_ms);
        if passed_ms < WEAR_LEAST_MS {
            return None;
        }
        let a_day = u128::from(written.saturating_sub(before)) * DAY_MS / u128::from(passed_ms);
        Some(u64::try_from(a_day).unwrap_or(u64::MAX))
    }
}

impl Counts {
    /// The counters as they are now. It may read the journal, and so wait for the disk.
    #[must_use]
    pub fn of(journal: &Journal, stats: &Stats, now_ns: i64, machine: Machine) -> Counts {
        let commits = journal.commits();
        let (lost, owed) = journal.with_state(|state| (lost(state), owed(state)));
        let mut sinks = BTreeMap::new();
        for (name, cursor, backlog) in owed {
            let confirmed = 0;
            let age_s = if backlog == 0 { Some(0) } else { age_s(journal, cursor, now_ns) };
            sinks.insert(name, SinkCounts { confirmed, backlog, age_s });
        }
        for (name, status) in stats.sinks() {
            sinks.entry(name).or_default().confirmed = status.snapshot().confirmed_rows;
        }
        let sources = stats.sources().into_iter().map(|(name, source)| (name, source.rows_received.get()));
        Counts { sources: sources.collect(), sinks, journal: (commits.entries, commits.bytes), lost, machine }
    }
}

/// Rows that are declared lost. What a database refuses is none of them: it is kept among the dead letters.
fn lost(state: &State) -> u64 {
    let of_sink = |gaps: &crate::journal::state::Gaps| gaps.total().saturating_sub(gaps.of(Cause::Rejected));
    let of_device = |device| state.ledgers(device).map(|(_, account)| of_sink(&account.gaps)).sum::<u64>();
    state.devices().iter().map(|device| of_sink(&device.gaps) + of_device(device)).sum()
}

/// Each sink with its cursor and the rows that it still has to get.
fn owed(state: &State) -> Vec<(String, Offset, u64)> {
    let of = |sink: &crate::journal::state::SinkState| {
        (sink.name.to_string(), sink.cursor, state.owed(&sink.name))
    };
    state.sinks().iter().map(of).collect()
}

/// How long the oldest row at or behind `cursor` has been waiting, in seconds by its own time; none if no row that has a
/// time is found. It may read the disk.
#[must_use]
pub fn age_s(journal: &Journal, cursor: Offset, now_ns: i64) -> Option<u64> {
    let mut reader = journal.reader(cursor);
    for _ in 0..FRAMES_MAX {
        let frame = match reader.next().ok()? {
            Read::Frame(frame) => frame,
            Read::Damaged { .. } => continue,
            Read::Wait => return None,
        };
        let rows =
            frame.entries().filter(|(offset, _)| *offset >= cursor).filter_map(|(_, entry)| entry.ok());
        let oldest =
            rows.filter_map(|entry| if let Entry::Row(row) = entry { Some(row.ns) } else { None }).min();
        if let Some(oldest_ns) = oldest {
            return Some(now_ns.saturating_sub(oldest_ns).max(0).unsigned_abs() / 1_000_000_000);
        }
    }
    None
}

/// To three digits behind the point, since it is for people.
fn per_second(count: u64, passed_ms: u64) -> f64 {
    if passed_ms == 0 {
        return 0.0;
    }
    (count as f64 * 1e6 / passed_ms as f64).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(received: u64, confirmed: u64, backlog: u64) -> Counts {
        Counts {
            sources: BTreeMap::from([("s".to_owned(), received)]),
            sinks: BTreeMap::from([("main".to_owned(), SinkCounts { confirmed, backlog, age_s: Some(3) })]),
            journal: (received, received * 100),
            lost: received / 100,
            machine: Machine { written_bytes: Some(received * 1_000), ..Machine::default() },
        }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(5_000, counts(500, 0, 500)).sources["s"], 0.0, "nothing to compare with");
        let pulse = meter.take(6_000, counts(600, 10, 590));
        assert_eq!((pulse.sources["s"], pulse.sinks["main"].rows_per_s), (100.0, 10.0));
        assert_eq!((pulse.sinks["main"].drain_s, pulse.sinks["main"].backlog_age_s), (None, Some(3)));
        assert_eq!((pulse.journal, pulse.lost_lately), ((100.0, 10_000.0), 1));
        for second in 7..60 {
            meter.take(second * 1_000, counts(600, 10, 590));
        }
        let pulse = meter.take(60_000, counts(605, 10, 590));
        assert_eq!(pulse.sources["s"], 0.5, "what was before the window does not count");
        assert_eq!(pulse.lost_lately, 0);
        assert!(meter.past.len() <= 12, "the past is bounded");
    }

    #[test]
    fn a_backlog_that_shrinks_says_when_it_is_gone() {
        let mut meter = Meter::default();
        meter.take(0, counts(0, 0, 1_000));
        let pulse = meter.take(2_000, counts(0, 300, 800));
        assert_eq!(pulse.sinks["main"].drain_s, Some(8), "800 rows, 100 a second");
        assert_eq!(meter.take(3_000, counts(0, 300, 0)).sinks["main"].drain_s, Some(0));
    }

    #[test]
    fn what_is_written_a_day_is_told_after_a_minute() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(1_000, counts(1_000, 0, 0)).written_bytes_per_day, None);
        assert_eq!(meter.take(60_999, counts(2_000, 0, 0)).written_bytes_per_day, None);
        let pulse = meter.take(87_400, counts(2_000, 0, 0));
        assert_eq!(
            pulse.written_bytes_per_day,
            Some(1_000_000_000),
            "a million bytes in a thousandth of a day"
        );
    }
}
