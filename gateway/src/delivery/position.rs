//! Where a sink stands: where delivery to it begins, and what it has lost of what it had confirmed.
//!
//! Only a sink that keeps a cursor of its own can tell, the embedded database: its file may be gone, or an older one may
//! have been put back. Then delivery begins where the file stands, or with the oldest row that the journal still has, and
//! those rows are confirmed as before. What the journal has no more is lost, and declared as
//! [`Cause::SinkReset`]: the difference between the rows that the ledger counts as confirmed and those that the
//! file counts, device by device.
//!
//! Operation: the two counts are compared once in each life, in the first moment in which the sink was given all that the
//! ledger counts, and has nothing beyond. Whatever took rows away from the redelivery until then, the journal's need of room
//! or a damaged block, is in the difference. A file that is ahead of the journal itself, because that is an older one put
//! back, is set back to what the ledger knows before anything is written.
//!
//! Failure: what is declared is not in the ledger's count any more, so a restart at any moment declares only the rest.

use std::time::Instant;

use tracing::{error, warn};

use super::Step;
use super::commit::Submitted;
use super::driver::{Driver, JOURNAL_RETRY, Stopping};
use super::gather::Gather;
use super::waits::patience;
use crate::journal::entry::Cause;
use crate::journal::state::DeviceState;
use crate::record::Offset;
use crate::sink::{Batch, Outcome, Position, Sink};

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
            match self.set_back(position).await {
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
                let own = own.unwrap_or_default();
                self.comparable_from = Some(if own > self.recovered { Offset(0) } else { own });
                own.min(self.accounted).max(floor)
            }
        })
    }

    /// Sets a sink back that is ahead of the journal: what it counts is of entries that this journal has not, or others.
    async fn set_back(&mut self, position: Result<Position, Outcome>) -> Result<Position, Outcome> {
        let position = position?;
        if let Position::Own(Some(own)) = position
            && own > self.recovered
        {
            let confirmed = self.confirmed();
            self.sink.lacks(self.accounted, &confirmed).await?;
        }
        Ok(position)
    }

    /// How many rows of each device the ledger counts as confirmed, by its key there.
    fn confirmed(&self) -> Vec<(Box<str>, u64)> {
        let of = |(device, rows): (&DeviceState, u64)| (device.key.clone(), rows);
        self.journal.with_state(|state| state.confirmed_by_device(&self.name).map(of).collect())
    }

    /// Says once that the sink gets again what is in the ledger. A sink that is merely behind where nothing was for it, as rows
    /// are that it does not want, lacks nothing.
    pub(super) fn tell_of_lack(&mut self, batch: &Batch) {
        let first = batch.records().map(|(offset, _)| offset).next();
        let Some(from) = first.filter(|from| *from < self.accounted && !self.has_told_of_lack) else {
            return;
        };
        self.has_told_of_lack = true;
        let what = "the store lacks what it had confirmed: its file is a new one, or an older one; it gets again what the journal still has of it";
        self.status.note(what);
        warn!(sink = &*self.name, from_entry = %from, to_entry = %self.accounted, "{what}");
    }

    /// Declares what the sink has lost for good of what it had confirmed, once it was given everything that there is.
    pub(super) async fn declare_lack(&mut self, gather: &Gather) -> Result<(), Stopping> {
        let Some(from) = self.comparable_from else { return Ok(()) };
        let given = gather.without_rows().unwrap_or(gather.from());
        let is_even = given >= self.accounted && self.accounted >= from && self.held.is_empty();
        if !is_even || self.has_failed() {
            return Ok(());
        }
        let confirmed = self.confirmed();
        let lacks = match self.sink.lacks(self.accounted, &confirmed).await {
            Ok(lacks) => lacks,
            Err(outcome) => {
                self.note(&outcome);
                return self.wait(Instant::now() + JOURNAL_RETRY).await;
            }
        };
        self.note(&Outcome::Confirmed);
        self.comparable_from = None;
        let (now, mut rows) = (self.now(), 0_u64);
        for ((key, _), count) in confirmed.iter().zip(lacks).filter(|(_, count)| *count > 0) {
            let name = self.journal.with_state(|state| state.device(key).map(|device| device.name.clone()));
            let gap = self.gaps.of_count(Cause::SinkReset, (key, name.as_deref().unwrap_or(key)), count, now);
            while !self.held.add(&gap) {
                // What is not declared now is by the next start.
                match self.submit_held(false).await {
                    Submitted::MustEvict | Submitted::Failed => return Ok(()),
                    Submitted::Taken(_) | Submitted::Nothing => {}
                }
            }
            rows = rows.saturating_add(count);
        }
        if rows > 0 {
            self.journal_held().await;
            error!(
                sink = &*self.name,
                rows,
                "the store has lost rows that it had confirmed, and the journal has them no more; they are declared in forebay_gap"
            );
        }
        Ok(())
    }
}
