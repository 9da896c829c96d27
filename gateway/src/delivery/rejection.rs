//! What a sink refuses becomes a durable, counted gap of that sink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::Settled;
use super::gaps::{Gap, GapMaker};
use crate::journal::entry::Cause;
use crate::record::Offset;
use crate::sink::Batch;
use crate::sink::batch::Record;

/// Refused points that are logged one by one in each [`LOG_PERIOD`]; the others are counted.
const LOGGED: u64 = 3;
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Makes gaps of one sink out of refused rows.
pub(super) struct Rejections {
    sink: Arc<str>,
    /// When the period of the log began, and how many points were refused in it.
    period: Option<(Instant, u64)>,
}

impl Rejections {
    pub(super) fn new(sink: Arc<str>) -> Rejections {
        Rejections { sink, period: None }
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
        maker: &mut GapMaker,
    ) -> Vec<Gap> {
        let mut refused = settled.rejected.iter().peekable();
        let mut gaps: Vec<Gap> = Vec::new();
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
                gaps.push(maker.of_row(Cause::Rejected, &row));
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
}
