//! What changes by the second: rates, how the backlogs grow or shrink, and how old they are.
//!
//! [`Meter`] is given counters once a second and says how they have moved in the last [`WINDOW_MS`]; it knows no clock. What it
//! says is a [`Pulse`], which [`Stats`] keeps for everybody who writes down a status.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use super::machine::disk_free_bytes;
use super::{Machine, Stats, Status};
use crate::dead_letters::Dropped;
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
    /// Each source.
    pub sources: BTreeMap<String, SourcePulse>,
    /// Each sink.
    pub sinks: BTreeMap<String, SinkPulse>,
    /// Entries and bytes that the journal commits in a second.
    pub journal: (f64, f64),
    /// Rows declared lost in the last [`WINDOW_MS`].
    pub lost_lately: u64,
    /// Rows of the gateway's own health that the journal did not take in that time.
    pub health_dropped: u64,
    /// What had to go from the dead letters in that time.
    pub letters_dropped: Dropped,
    /// Whether nothing of this is known, since measuring gets stuck.
    pub is_overdue: bool,
    /// The process and its disk.
    pub machine: Machine,
    /// Bytes that the process has written to disks in a day, by the mean since its start; none in its first minute.
    pub written_bytes_per_day: Option<u64>,
}

/// How a source gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourcePulse {
    /// Rows that it hands to intake in a second.
    pub rows_per_s: f64,
    /// Messages that could not be read in the last [`WINDOW_MS`].
    pub bad: u64,
    /// Messages at QoS 0 that it let go of in that time.
    pub dropped: u64,
    /// Messages that its broker has dropped in that time.
    pub broker_dropped: u64,
}

/// How delivery to one sink gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SinkPulse {
    /// Rows that it confirms in a second.
    pub rows_per_s: f64,
    /// How long the oldest row that it lacks has been waiting, by the row's own time; 0 if it lacks none.
    pub backlog_age_s: Option<u64>,
    /// When it will have caught up, if it goes on so; none while its backlog does not shrink, or by nothing that it confirms.
    pub drain_s: Option<u64>,
    /// Rows that it has refused in the last [`WINDOW_MS`].
    pub rejected: u64,
}

/// What [`Meter`] is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// By source.
    pub sources: BTreeMap<String, SourceCounts>,
    /// By sink.
    pub sinks: BTreeMap<String, SinkCounts>,
    /// Entries and bytes that the journal has committed.
    pub journal: (u64, u64),
    /// Rows declared lost, by anybody.
    pub lost: u64,
    /// Rows of the gateway's own health that the journal did not take.
    pub health_dropped: u64,
    /// What had to go from the dead letters.
    pub letters_dropped: Dropped,
    /// The process and its disk.
    pub machine: Machine,
}

/// What [`Meter`] is given of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Rows handed to intake.
    pub received: u64,
    /// Messages that could not be read.
    pub bad: u64,
    /// Messages at QoS 0 that were let go of.
    pub dropped: u64,
    /// Messages that the broker has dropped since its own start, where it tells.
    pub broker_dropped: Option<u64>,
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
    /// Rows refused.
    pub rejected: u64,
}

/// What only the disk knows, and tells only while it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// Bytes of it that the gateway's user may still fill.
    pub free_bytes: Option<u64>,
    /// How long the oldest row that each sink lacks has been waiting, in seconds.
    pub ages: BTreeMap<String, Option<u64>>,
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
            let pulse = self.sources.get(name).copied().unwrap_or_default();
            source.rows_per_s = pulse.rows_per_s;
            source.bad_messages_lately = pulse.bad;
            source.dropped_messages_lately = pulse.dropped;
            source.broker_dropped_messages_lately = pulse.broker_dropped;
        }
        for (name, sink) in &mut status.sinks {
            let pulse = self.sinks.get(name).copied().unwrap_or_default();
            sink.rows_per_s = pulse.rows_per_s;
            (sink.backlog_age_s, sink.drain_s) = (pulse.backlog_age_s, pulse.drain_s);
            sink.rows_rejected_lately = pulse.rejected;
        }
        status.lost_rows_lately = self.lost_lately;
        status.health_dropped_rows_lately = self.health_dropped;
        status.dead_letters_dropped_lately = self.letters_dropped;
        status.is_measuring_overdue = self.is_overdue;
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
        let source = |(name, now): (&String, &SourceCounts)| {
            (name.clone(), now.since(from.sources.get(name), passed_ms))
        };
        let sink =
            |(name, now): (&String, &SinkCounts)| (name.clone(), now.since(from.sinks.get(name), passed_ms));
        let pulse = Pulse {
            sources: counts.sources.iter().map(source).collect(),
            sinks: counts.sinks.iter().map(sink).collect(),
            journal: (rate(counts.journal.0, from.journal.0), rate(counts.journal.1, from.journal.1)),
            lost_lately: counts.lost.saturating_sub(from.lost),
            health_dropped: counts.health_dropped.saturating_sub(from.health_dropped),
            letters_dropped: counts.letters_dropped.since(from.letters_dropped),
            is_overdue: false,
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

impl SourceCounts {
    /// What has changed since it was `before`. The counters of a source that was not there began with nothing.
    fn since(&self, before: Option<&SourceCounts>, passed_ms: u64) -> SourcePulse {
        let received = self.received.saturating_sub(before.unwrap_or(self).received);
        let broker_dropped = match (before.and_then(|before| before.broker_dropped), self.broker_dropped) {
            (Some(before), Some(now)) if now >= before => now - before,
            // The broker began anew.
            (Some(_), Some(now)) => now,
            _ => 0,
        };
        SourcePulse {
            rows_per_s: per_second(received, passed_ms),
            bad: self.bad.saturating_sub(before.map_or(0, |before| before.bad)),
            dropped: self.dropped.saturating_sub(before.map_or(0, |before| before.dropped)),
            broker_dropped,
        }
    }
}

impl SinkCounts {
    /// What has changed since it was `before`.
    fn since(&self, before: Option<&SinkCounts>, passed_ms: u64) -> SinkPulse {
        let rejected = self.rejected.saturating_sub(before.map_or(0, |before| before.rejected));
        let before = before.unwrap_or(self);
        let confirmed = self.confirmed.saturating_sub(before.confirmed);
        // Rows also go from a backlog by being evicted, refused or left out, and none of that is delivery.
        let progress = before.backlog.saturating_sub(self.backlog).min(confirmed);
        let drain_s = match (self.backlog, progress) {
            (0, _) => Some(0),
            (_, 0) => None,
            (backlog, progress) => Some(backlog.saturating_mul(passed_ms) / progress / 1_000),
        };
        let rows_per_s = per_second(confirmed, passed_ms);
        SinkPulse { rows_per_s, backlog_age_s: self.age_s, drain_s, rejected }
    }
}

impl Counts {
    /// The counters as they are now. It waits for no disk: what that tells is handed in, if it has told.
    #[must_use]
    pub fn of(journal: &Journal, stats: &Stats, machine: Machine, on_disk: &OnDisk) -> Counts {
        let commits = journal.commits();
        let (lost, owed) = journal.with_state(|state| (lost(state), owed(state)));
        let mut sinks: BTreeMap<String, SinkCounts> = BTreeMap::new();
        for (name, _, backlog) in owed {
            let age_s = if backlog == 0 { Some(0) } else { on_disk.ages.get(&name).copied().flatten() };
            sinks.insert(name, SinkCounts { backlog, age_s, ..SinkCounts::default() });
        }
        for (name, status) in stats.sinks() {
            let (sink, status) = (sinks.entry(name).or_default(), status.snapshot());
            (sink.confirmed, sink.rejected) = (status.confirmed_rows, status.rejected_rows);
        }
        let source = |(name, source): (String, std::sync::Arc<super::SourceStats>)| {
            let report = source.report();
            let counts = SourceCounts {
                received: report.rows_received,
                bad: report.bad_messages,
                dropped: report.dropped_messages,
                broker_dropped: report.broker_dropped_messages,
            };
            (name, counts)
        };
        Counts {
            sources: stats.sources().into_iter().map(source).collect(),
            sinks,
            journal: (commits.entries, commits.bytes),
            lost,
            health_dropped: stats.health_dropped.get(),
            letters_dropped: stats.dead_letters_dropped(),
            machine: Machine { disk_free_bytes: on_disk.free_bytes, ..machine },
        }
    }
}

impl OnDisk {
    /// Asks the disk, and may wait for it for as long as it does not answer.
    #[must_use]
    pub fn ask(journal: &Journal, data_dir: &Path, now_ns: i64) -> OnDisk {
        let owed = journal.with_state(owed).into_iter().filter(|(_, _, backlog)| *backlog > 0);
        let ages = owed.map(|(name, cursor, _)| (name, age_s(journal, cursor, now_ns))).collect();
        OnDisk { free_bytes: disk_free_bytes(data_dir), ages }
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
            sources: BTreeMap::from([("s".to_owned(), SourceCounts { received, ..SourceCounts::default() })]),
            sinks: BTreeMap::from([(
                "main".to_owned(),
                SinkCounts { confirmed, backlog, age_s: Some(3), rejected: 0 },
            )]),
            journal: (received, received * 100),
            lost: received / 100,
            health_dropped: 0,
            letters_dropped: Dropped::default(),
            machine: Machine { written_bytes: Some(received * 1_000), ..Machine::default() },
        }
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(
            meter.take(5_000, counts(500, 0, 500)).sources["s"].rows_per_s,
            0.0,
            "nothing to compare with"
        );
        let pulse = meter.take(6_000, counts(600, 10, 590));
        assert_eq!((pulse.sources["s"].rows_per_s, pulse.sinks["main"].rows_per_s), (100.0, 10.0));
        assert_eq!((pulse.sinks["main"].drain_s, pulse.sinks["main"].backlog_age_s), (None, Some(3)));
        assert_eq!((pulse.journal, pulse.lost_lately), ((100.0, 10_000.0), 1));
        for second in 7..60 {
            meter.take(second * 1_000, counts(600, 10, 590));
        }
        let pulse = meter.take(60_000, counts(605, 10, 590));
        assert_eq!(pulse.sources["s"].rows_per_s, 0.5, "what was before the window does not count");
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
    fn only_what_is_confirmed_drains_a_backlog() {
        let mut meter = Meter::default();
        meter.take(0, counts(0, 0, 1_000));
        let pulse = meter.take(2_000, counts(0, 0, 400));
        assert_eq!(pulse.sinks["main"].drain_s, None, "600 were evicted, and none confirmed");
        let pulse = meter.take(4_000, counts(0, 40, 300));
        assert_eq!(pulse.sinks["main"].drain_s, Some(30), "300 rows, 10 a second");
    }

    #[test]
    fn what_goes_lost_by_the_way_is_told_while_it_is_news() {
        let with = |dropped, broker_dropped, rejected, letters| {
            let mut counts = counts(0, 0, 0);
            let source = SourceCounts { bad: dropped, dropped, broker_dropped, ..SourceCounts::default() };
            counts.sources.insert("s".to_owned(), source);
            counts.sinks.entry("main".to_owned()).or_default().rejected = rejected;
            counts.health_dropped = dropped;
            counts.letters_dropped = Dropped { letters, rows: 2 * letters };
            counts
        };
        let told = |pulse: &Pulse| {
            let (source, sink) = (pulse.sources["s"], pulse.sinks["main"]);
            assert_eq!((pulse.health_dropped, source.bad), (source.dropped, source.dropped));
            assert_eq!(pulse.letters_dropped.rows, 2 * pulse.letters_dropped.letters);
            (source.dropped, source.broker_dropped, sink.rejected, pulse.letters_dropped.letters)
        };
        let mut meter = Meter::default();
        // Neither the source nor the sink were there when it began.
        meter.take(0, Counts::default());
        assert_eq!(
            told(&meter.take(1_000, with(2, Some(900), 5, 1))),
            (2, 0, 5, 1),
            "the broker's are older"
        );
        assert_eq!(told(&meter.take(11_500, with(2, Some(907), 5, 1))), (0, 7, 0, 0));
        assert_eq!(told(&meter.take(12_000, with(3, Some(4), 6, 3))), (1, 4, 1, 2), "the broker began anew");
        assert_eq!(told(&meter.take(30_000, with(3, Some(4), 6, 3))), (0, 0, 0, 0));
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
