//! What a sink refuses becomes a durable, counted gap of that sink.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::Settled;
use crate::journal::entry::{Cause, GapEntry, RowEntry};
use crate::record::{Offset, SeriesKey, split_series};
use crate::sink::Batch;
use crate::sink::batch::Record;

/// Refused points that are logged one by one in each [`LOG_PERIOD`]; the others are counted.
const LOGGED: u64 = 3;
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// A gap whose time is not later than that of its device's previous one by this much at most is moved behind it.
const COLLISION_NS: i64 = 1_000_000;
/// Devices whose previous gap is remembered.
const DEVICES: usize = 10_000;

/// Makes gaps of one sink out of refused rows.
pub(super) struct Rejections {
    sink: Arc<str>,
    tags: Vec<(String, String)>,
    /// Time of each device's latest gap.
    latest_ns: HashMap<Box<str>, i64>,
    /// When the period of the log began, and how many points were refused in it.
    period: Option<(Instant, u64)>,
}

/// A gap that owns its texts: refused rows of one device that follow one another, or have no number. A run of rows is
/// one entry, because a journal that is full has to become emptier by what its rows turn into.
pub(super) struct RejectedRows {
    device: String,
    boot: u32,
    from: u64,
    to: u64,
    series: String,
    ns: i64,
}

impl Rejections {
    pub(super) fn new(sink: Arc<str>, tags: Vec<(String, String)>) -> Rejections {
        Rejections { sink, tags, latest_ns: HashMap::new(), period: None }
    }

    /// The gaps of the refused rows, and a word in the log about them. A refused gap is logged alone: a gap about it
    /// would be refused as well.
    ///
    /// Rows below `accounted` are in the ledger already.
    pub(super) fn declare(
        &mut self,
        now: Instant,
        batch: &Batch,
        settled: &Settled,
        accounted: Offset,
    ) -> Vec<RejectedRows> {
        let mut refused = settled.rejected.iter().peekable();
        let mut gaps: Vec<RejectedRows> = Vec::new();
        for (point, (offset, record)) in batch.records().take(settled.points).enumerate() {
            let Some(rejected) = refused.next_if(|rejected| rejected.point == point) else { continue };
            let (kind, device, series, ns) = match record {
                Record::Row(row) => ("row", row.device, row.series, row.ns),
                Record::Gap(gap) => ("gap", gap.device, gap.series, gap.ns),
            };
            if self.may_log(now) {
                error!(
                    sink = &*self.sink,
                    device,
                    series,
                    ns,
                    reason = rejected.reason,
                    "the database refuses a {kind}"
                );
            }
            if let Record::Row(row) = record
                && offset >= accounted
                && !gaps.iter_mut().rev().any(|gap| gap.take_in(&row))
            {
                gaps.push(self.gap(&row));
            }
        }
        gaps
    }

    fn may_log(&mut self, now: Instant) -> bool {
        let (began, refused) = self.period.get_or_insert((now, 0));
        if now.duration_since(*began) >= LOG_PERIOD {
            if *refused > LOGGED {
                error!(
                    sink = &*self.sink,
                    "the database refused {} more points meanwhile",
                    *refused - LOGGED
                );
            }
            (*began, *refused) = (now, 0);
        }
        *refused += 1;
        *refused <= LOGGED
    }

    fn gap(&mut self, row: &RowEntry<'_>) -> RejectedRows {
        let (_, row_tags) = split_series(row.series);
        let device =
            row_tags.iter().find(|(name, _)| name == "device").map_or(row.device, |(_, value)| value);
        let own = [("cause", Cause::Rejected.as_str()), ("device", device)];
        let configured = self.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut tags: Vec<_> =
            configured.filter(|(name, _)| own.iter().all(|(own, _)| own != name)).chain(own).collect();
        // Row and configuration were checked before, so the key can be made; if not, the gap counts all the same.
        let series = SeriesKey::new("forebay_gap", &mut tags)
            .map_or_else(|_| "forebay_gap,cause=rejected".to_owned(), |key| key.as_str().to_owned());
        RejectedRows {
            device: row.device.to_owned(),
            boot: row.boot,
            from: row.sequence,
            to: row.sequence.saturating_add(1),
            series,
            ns: self.own_ns(row),
        }
    }

    /// The row's time, moved behind the device's previous gap where both would be the same point.
    fn own_ns(&mut self, row: &RowEntry<'_>) -> i64 {
        if self.latest_ns.len() >= DEVICES {
            self.latest_ns.clear();
        }
        let latest = self.latest_ns.entry(row.device.into()).or_insert(i64::MIN);
        let collides = row.ns <= *latest && latest.saturating_sub(row.ns) < COLLISION_NS;
        *latest = if collides { latest.saturating_add(1) } else { row.ns };
        *latest
    }
}

impl RejectedRows {
    /// Makes the row part of the gap, if it belongs there.
    fn take_in(&mut self, row: &RowEntry<'_>) -> bool {
        let belongs = *self.device == *row.device
            && self.boot == row.boot
            && (row.boot == 0 || row.sequence == self.to);
        self.to += u64::from(belongs);
        belongs
    }

    pub(super) fn count(&self) -> u64 {
        self.to - self.from
    }

    pub(super) fn entry<'a>(&'a self, sink: &'a str) -> GapEntry<'a> {
        GapEntry {
            device: &self.device,
            boot: self.boot,
            from: self.from,
            to: self.to,
            count: self.count(),
            cause: Cause::Rejected,
            sink: Some(sink),
            stamped: false,
            series: &self.series,
            ns: self.ns,
        }
    }
}
