//! Where a sink stands: where delivery to it begins, and what it has lost of what it had confirmed.
//!
//! Only a sink that keeps a cursor of its own can tell, the embedded database: its file may be gone, or an older one may
//! have been put back. Then delivery begins where the file stands, or with the oldest row that the journal still has, and
//! those rows are confirmed as before. What the journal has no more is lost, and declared as
//! [`Cause::SinkReset`]: the difference between the rows that the ledger counts as confirmed and those that the
//! file counts, device by device.
//!
//! Operation: the two counts are compared once in each life, in the first moment in which the sink was given all that the
//! ledger counts and nothing beyond. Whatever took rows away from the redelivery until then, the journal's need of room or
//! a damaged block, is in the difference.
//!
//! Failure: what is declared is not in the ledger's count any more, so a restart at any moment declares only the rest.

use std::time::Instant;

use tracing::{error, warn};

use super::Step;
use super::driver::{Driver, JOURNAL_RETRY, Stopping};
use super::gather::Gather;
use super::waits::patience;
use crate::journal::entry::Cause;
use crate::record::Offset;
use crate::sink::{Batch, Position, Sink};

impl<S: Sink> Driver<S> {
    /// Where delivery begins: at the journal's cursor, or before it if the sink itself knows of less. A sink that is
    /// ahead, because the last life ended between its transaction and the cursor, gets the difference again, which
    /// changes nothing there but puts it in the ledger.
    pub(super) async fn locate(&mut self) -> Result<Offset, Stopping> {
        let position = loop {
            // A store may be out of order for days, and what it lacks must not stand in the way meanwhile.
            if self.must_evict() {
                self.evict().await?;
            }
            let patience = patience(self.evict_to.clone(), self.accounted);
            let position = tokio::select! {
                position = self.sink.position() => position,
                () = patience => continue,
            };
            match position {
                Ok(position) => break position,
                Err(outcome) => {
                    self.note(&outcome);
                    self.delivery.handle_batch(1, vec![vec![0]]);
                    self.delivery.handle_outcome(Instant::now(), outcome, &[]);
                    let now = Instant::now();
                    let Step::Wait(until) = self.delivery.poll(now) else {
                        self.wait(now + JOURNAL_RETRY).await?;
                        continue;
                    };
                    self.wait(until).await?;
                }
            }
        };
        let floor = self.journal.with_state(|state| state.floor(&self.name));
        Ok(match position {
            Position::Journal => self.accounted,
            Position::Own(own) => {
                self.may_lack = true;
                own.unwrap_or_default().min(self.accounted).max(floor)
            }
        })
    }

    /// Says once that the sink gets again what is in the ledger. A sink that is merely behind where nothing was for it, as rows
    /// are that it does not want, lacks nothing.
    pub(super) fn tell_of_lack(&mut self, batch: &Batch) {
        let first = batch.records().map(|(offset, _)| offset).next();
        let Some(from) = first.filter(|from| *from < self.accounted && !self.has_told_of_lack) else {
            return;
        };
        self.has_told_of_lack = true;
        self.status.note(
            "the store may lack what it had confirmed, and gets again what the journal still has of it",
        );
        warn!(sink = &*self.name, %from, to = %self.accounted, "the store may lack what it had confirmed; it gets again what the journal still has of it");
    }

    /// Declares what the sink has lost for good of what it had confirmed, once it was given everything that there is.
    pub(super) async fn declare_lack(&mut self, gather: &Gather) {
        let given = gather.without_rows().unwrap_or(gather.from());
        let is_even = given >= self.accounted && self.held.is_empty() && self.ahead.stored.is_empty();
        if !self.may_lack || !is_even || self.has_failed() {
            return;
        }
        let (mut names, mut confirmed) = (Vec::new(), Vec::new());
        self.journal.with_state(|state| {
            for (device, rows) in state.confirmed_by_device(&self.name) {
                names.push(device.name.clone());
                confirmed.push((device.key.clone(), rows));
            }
        });
        // A sink that cannot tell now fails at the next write too, which is complained about.
        let Ok(lacks) = self.sink.lacks(self.accounted, &confirmed).await else { return };
        self.may_lack = false;
        let now = self.now();
        let mut gaps = Vec::new();
        for (((key, _), name), rows) in confirmed.iter().zip(&names).zip(lacks) {
            if rows > 0 {
                gaps.push(self.gaps.of_numbers(Cause::SinkReset, (key, name), 0, (0, rows), now));
            }
        }
        let rows: u64 = gaps.iter().map(|gap| gap.count).sum();
        if rows > 0 && self.declare(gaps, self.accounted).await {
            error!(
                sink = &*self.name,
                rows,
                "the store has lost rows that it had confirmed, and the journal has them no more; they are declared in forebay_gap"
            );
        }
    }
}
