//! What a sink does not get: passing what the journal has lost, and letting go of the oldest rows when it needs room.
//!
//! *Damage* is what `losses.rs` finds. *Eviction*: the rows in the oldest segment are read once more, to be counted by
//! device and boot, and each submission of gaps has the skip that goes just as far as they do. So what is skipped is
//! declared in the same instant, however many submissions it takes.
//!
//! Failure: a medium that refuses a whole read is waited for; where the journal needs the room, for
//! [`letters::PATIENCE`], and then it is damage. Blocks that it refuses among others that can be read are damage at once.

use std::time::Instant;

use tokio::task::yield_now;
use tracing::{error, warn};

use super::commit::Submitted;
use super::driver::{Driver, JOURNAL_RETRY, Stopping};
use super::gaps::{Gap, When};
use super::{letters, losses};
use crate::clock::{self, Moment};
use crate::dead_letters::{Letter, Stage};
use crate::journal::entry::{Cause, Entry};
use crate::journal::{Frame, Read};
use crate::record::Offset;
use crate::sink::Sink;

impl<S: Sink> Driver<S> {
    /// Whether the journal needs the room of what this sink has not got yet.
    pub(super) fn must_evict(&self) -> bool {
        *self.evict_to.borrow() > self.accounted
    }

    /// Lets go of what the sink has not got yet of the oldest segment.
    pub(super) async fn evict(&mut self) -> Result<(), Stopping> {
        let to = *self.evict_to.borrow_and_update();
        let mut reader = self.journal.reader(self.accounted);
        let (mut rows, mut failing) = (0, None);
        while self.accounted < to {
            yield_now().await;
            match reader.next() {
                Ok(Read::Frame(frame)) => rows += self.let_go(&frame, to).await,
                Ok(Read::Damaged { from, to }) => self.declare_damage(from, to).await?,
                Ok(Read::Wait) => self.wait(Instant::now() + JOURNAL_RETRY).await?,
                Err(error) => {
                    self.complain(&error.to_string());
                    if failing.get_or_insert_with(Instant::now).elapsed() < letters::PATIENCE {
                        self.wait(Instant::now() + JOURNAL_RETRY).await?;
                    } else {
                        self.declare_damage(self.accounted, to).await?;
                    }
                }
            }
        }
        let declared = self.submit_patiently().await;
        if rows > 0 && declared {
            error!(
                sink = &*self.name,
                rows,
                "the journal is full: the oldest rows made room and are lost to this sink; they are declared in forebay_gap"
            );
        }
        Ok(())
    }

    /// Turns the entries of a frame up to an offset into gaps, as far as they concern the sink; how many rows that are.
    async fn let_go(&mut self, frame: &Frame, to: Offset) -> u64 {
        let mut rows = 0;
        let fixes = self.journal.fixes();
        let entries = frame.entries().skip_while(|(offset, _)| *offset < self.accounted);
        let entries: Vec<_> = entries.take_while(|(offset, _)| *offset < to).collect();
        for (offset, entry) in entries {
            let Ok(entry) = entry.map(|entry| fixes.date(entry)) else { continue };
            while !self.try_let_go(offset, &entry) {
                self.submit_patiently().await;
            }
            rows += u64::from(self.is_lost(offset, &entry));
            self.skip(offset.plus(1));
        }
        self.skip(frame.end().min(to));
        rows
    }

    /// Whether letting go of an entry costs the sink a row.
    fn is_lost(&self, offset: Offset, entry: &Entry<'_>) -> bool {
        matches!(entry, Entry::Row(row) | Entry::EarlyRow(_, row)
            if self.audience.filter.wants_row(row.series) && !self.ahead.stored.has(offset, row.device))
    }

    fn try_let_go(&mut self, offset: Offset, entry: &Entry<'_>) -> bool {
        let has = |device: &str| self.ahead.stored.has(offset, device);
        let (machine, gap) = match entry {
            Entry::Row(row) if has(row.device) && self.audience.filter.wants_row(row.series) => {
                return self.held.confirm(row);
            }
            Entry::Row(row) | Entry::EarlyRow(_, row) if !self.is_lost(offset, entry) => {
                return self.held.pass_over(row);
            }
            Entry::Row(row) => return self.held.lose(Cause::Evicted, row, None, &mut self.gaps),
            Entry::EarlyRow(machine, row) => {
                return self.held.lose(Cause::Evicted, row, Some(*machine), &mut self.gaps);
            }
            Entry::Gap(gap) | Entry::GapAgain(gap) => (None, gap),
            Entry::EarlyGap(machine, gap) | Entry::EarlyGapAgain(machine, gap) => (Some(*machine), gap),
            _ => return true,
        };
        // A gap whose point was not delivered yet comes again behind what makes room, and is not counted again.
        has(gap.device)
            || gap.sink.is_some_and(|name| *name != *self.name)
            || !self.audience.filter.wants_gap(gap.series)
            || self.held.repeat(gap, machine)
    }

    /// Declares what the sink cannot get any more because of a hole.
    pub(super) async fn declare_damage(&mut self, from: Offset, to: Offset) -> Result<(), Stopping> {
        if to <= self.accounted {
            return Ok(());
        }
        // The ledger has to know what was delivered before.
        let mut declarable = self.submit_patiently().await;
        let mut gaps = Vec::new();
        if declarable && !self.holes.cover(from, to) {
            gaps = self.losses(to).await?;
            // If the journal fails, what is only pending cannot be told from what is lost.
            declarable = !self.has_failed();
        }
        self.quarantine(from, to).await?;
        let rows: u64 = gaps.iter().map(|gap| gap.count).sum();
        if declarable {
            declarable = self.declare(gaps, to).await;
        }
        self.accounted = self.accounted.max(to);
        if !declarable {
            error!(sink = &*self.name, %from, %to, "the journal is damaged, and takes nothing any more: what is lost will be declared by the next start");
        } else if rows > 0 {
            error!(sink = &*self.name, %from, %to, rows, "the journal is damaged: rows cannot be delivered; they are declared in forebay_gap; see `forebay journal verify`");
        } else {
            warn!(sink = &*self.name, %from, %to, "the journal is damaged where nothing was to be delivered, or what was is declared already");
        }
        Ok(())
    }

    /// The gaps of what cannot be read from an offset on.
    async fn losses(&mut self, from: Offset) -> Result<Vec<Gap>, Stopping> {
        let owed = losses::owed(&self.journal, &self.name);
        self.durable(owed.end).await;
        loop {
            let now = self.now();
            match losses::damaged(&self.journal, from, &owed, &mut self.gaps, now).await {
                Ok((gaps, holes)) => {
                    self.holes = holes;
                    return Ok(gaps);
                }
                Err(error) => {
                    self.complain(&error.to_string());
                    self.wait(Instant::now() + JOURNAL_RETRY).await?;
                }
            }
        }
    }

    /// When it is now: by the steady clock, while rows wait for the fix of this boot of the machine.
    pub(super) fn now(&self) -> When {
        let (now, machine) = (Moment::now(), clock::machine_boot());
        match self.journal.with_state(|state| state.clocks().is_waiting(machine)) {
            true => When { machine: Some(machine), ns: now.steady_ns },
            false => When { machine: None, ns: now.ns },
        }
    }

    /// Makes gaps durable and, with the last of them, that the sink goes on at `to`; false if the journal has failed.
    async fn declare(&mut self, gaps: Vec<Gap>, to: Offset) -> bool {
        for gap in gaps {
            while !self.held.add(&gap) {
                self.submit_patiently().await;
            }
        }
        self.skip(to);
        self.submit_patiently().await
    }

    /// Keeps the damaged bytes among the dead letters, before the file that they are in serves again.
    async fn quarantine(&mut self, from: Offset, to: Offset) -> Result<(), Stopping> {
        let damaged = match self.journal.reader(from).damaged_bytes(from, to) {
            Ok(Some(damaged)) => damaged,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.complain(&error.to_string());
                return Ok(());
            }
        };
        let letter = Letter {
            sink: (*self.name).into(),
            journal: self.journal.id(),
            offset: from,
            stage: Stage::Delivery,
            at_ns: clock::now_ns(),
            device: "(journal)".into(),
            // Gaps count them.
            rows: 0,
            origin: format!("{}, byte {}", damaged.file, damaged.at).into(),
            reason: format!("the journal is damaged: entries {from} to {to} cannot be read").into(),
            body_bytes: damaged.length,
            body: damaged.bytes.into(),
        };
        self.keep(&[letter]).await.map(drop)
    }

    /// The sink goes on at `to` without having got what is before.
    fn skip(&mut self, to: Offset) {
        if to > self.accounted {
            self.accounted = to;
            self.held.skip(to);
        }
    }

    /// Makes durable what is held, as long as it takes; false if the journal has failed, and the next start declares it.
    async fn submit_patiently(&mut self) -> bool {
        let submitted = self.submit_held(true).await;
        if let Submitted::Taken(receipt) = submitted {
            self.durable(receipt).await;
        }
        !matches!(submitted, Submitted::Failed) && !self.has_failed()
    }
}
