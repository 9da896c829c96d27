//! What a sink refuses is kept among the dead letters; `commit.rs` counts it as a gap of that sink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::{Rejected, Settled};
use crate::dead_letters::{Letter, Stage};
use crate::journal::JournalId;
use crate::record::Offset;
use crate::sink::batch::Record;
use crate::sink::line_protocol::{self, Dialect};
use crate::sink::{Batch, answer};

/// Refused points that are logged one by one in each [`LOG_PERIOD`]; the others are counted.
const LOGGED: u64 = 3;
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Makes letters of one sink out of refused points.
pub(super) struct Rejections {
    sink: Arc<str>,
    journal: JournalId,
    /// When the period of the log began, and how many points were refused in it.
    period: Option<(Instant, u64)>,
}

impl Rejections {
    pub(super) fn new(sink: Arc<str>, journal: JournalId) -> Rejections {
        Rejections { sink, journal, period: None }
    }

    /// The refused points as letters, and a word in the log about them.
    pub(super) fn letters(
        &mut self,
        now: Instant,
        now_ns: i64,
        batch: &Batch,
        settled: &Settled,
    ) -> Vec<Letter> {
        let mut letters = Vec::with_capacity(settled.rejected.len());
        for (offset, record, rejected) in refused(batch, settled) {
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
                    reason = of_one(&rejected.reason),
                    "the database refuses a {kind}"
                );
            }
            let mut body = String::new();
            line_protocol::push_line(&mut body, Dialect::V2, &record.point());
            letters.push(Letter {
                sink: (*self.sink).into(),
                journal: self.journal,
                offset,
                stage: Stage::Delivery,
                at_ns: now_ns,
                device: device.into(),
                rows: u64::from(matches!(record, Record::Row(_))),
                origin: series.into(),
                reason: of_one(&rejected.reason).into(),
                body_bytes: body.len() as u64,
                body: body.into_bytes().into(),
            });
        }
        letters
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

/// A server's reason without its count of the refused points, which is the whole request's.
fn of_one(reason: &str) -> &str {
    answer::dropped(reason).map_or(reason, |(what, _)| what)
}

/// The points of the batch's front that were refused.
fn refused<'a>(
    batch: &'a Batch,
    settled: &'a Settled,
) -> impl Iterator<Item = (Offset, Record<'a>, &'a Rejected)> {
    let mut rejected = settled.rejected.iter().peekable();
    batch.records().take(settled.points).enumerate().filter_map(move |(point, (offset, record))| {
        rejected.next_if(|rejected| rejected.point == point).map(|rejected| (offset, record, rejected))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_a_whole_request_is_no_part_of_the_reason_of_one_row() {
        let conflict =
            "400: partial write: field type conflict: input field \"t\" on measurement \"m\" is type string";
        assert_eq!(of_one(&format!("{conflict} dropped=5000")), conflict);
        for whole in [conflict, "", "400: a dropped=word"] {
            assert_eq!(of_one(whole), whole);
        }
    }
}
