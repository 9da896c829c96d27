//! What a sink does not get: passing what the journal has lost, and letting go of the oldest rows when it needs room.

use std::sync::Arc;
use std::time::Instant;

use tracing::{error, warn};

use super::driver::{Driver, JOURNAL_RETRY, Stopping};
use super::gaps::Gap;
use super::gather::Gather;
use super::losses::{self, Evicted, GAPS_MAX};
use crate::clock;
use crate::dead_letters::{Letter, Stage};
use crate::journal::Read;
use crate::journal::entry::{Entry, SkipEntry};
use crate::record::Offset;
use crate::sink::Sink;

impl<S: Sink> Driver<S> {
    /// Declares what the sink cannot get any more, and goes on behind the hole.
    pub(super) async fn pass_hole(
        &mut self,
        from: Offset,
        to: Offset,
        gather: &mut Gather,
    ) -> Result<(), Stopping> {
        self.declare_damage(from, to).await?;
        gather.restart(self.journal.reader(to));
        Ok(())
    }

    /// Lets go of what the sink has not got yet of the oldest segment.
    pub(super) async fn evict(&mut self, gather: &mut Gather) -> Result<(), Stopping> {
        let to = *self.evict_to.borrow_and_update();
        let mut reader = self.journal.reader(self.accounted);
        let (mut evicted, mut rows) = (Evicted::default(), 0);
        while self.accounted < to {
            let read = match reader.next() {
                Ok(read) => read,
                Err(error) => {
                    self.complain(&error.to_string());
                    self.wait(Instant::now() + JOURNAL_RETRY).await?;
                    continue;
                }
            };
            let (at, hole) = match read {
                Read::Wait => break,
                Read::Damaged { from, to } => (from, Some((from, to))),
                Read::Frame(frame) => {
                    evicted.add(&frame, (self.accounted, to), &self.name, &mut self.gaps);
                    (frame.end().min(to), None)
                }
            };
            if at >= to || hole.is_some() || evicted.is_large() {
                let gaps = evicted.take();
                rows += gaps.iter().map(Gap::rows).sum::<u64>();
                self.skip(&gaps, at).await;
            }
            if let Some((from, to)) = hole {
                self.declare_damage(from, to).await?;
            }
        }
        if rows > 0 {
            error!(
                sink = &*self.name,
                rows,
                "the journal is full: the oldest rows made room and are lost to this sink; they are declared in forebay_gap"
            );
        }
        gather.restart(self.journal.reader(self.accounted));
        Ok(())
    }

    async fn declare_damage(&mut self, from: Offset, to: Offset) -> Result<(), Stopping> {
        if to <= self.accounted {
            return Ok(());
        }
        let owed = losses::owed(&self.journal, &self.name);
        self.durable(owed.end).await;
        let gaps = loop {
            match losses::damaged(&self.journal, &owed, &mut self.gaps, clock::now_ns()) {
                Ok(gaps) => break gaps,
                Err(error) => {
                    self.complain(&error.to_string());
                    self.wait(Instant::now() + JOURNAL_RETRY).await?;
                }
            }
        };
        let rows: u64 = gaps.iter().map(|gap| gap.count).sum();
        self.quarantine(from, to, rows).await?;
        if rows > 0 {
            error!(sink = &*self.name, %from, %to, rows, "the journal is damaged: rows cannot be delivered; they are declared in forebay_gap; see `forebay journal verify`");
        } else {
            warn!(sink = &*self.name, %from, %to, "the journal is damaged where nothing was to be delivered");
        }
        self.skip(&gaps, to).await;
        Ok(())
    }

    /// Keeps the damaged bytes among the dead letters, before the file that they are in serves again.
    async fn quarantine(&mut self, from: Offset, to: Offset, rows: u64) -> Result<(), Stopping> {
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
            // A gap counts them.
            rows: 0,
            origin: format!("{}, byte {}", damaged.file, damaged.at).into(),
            reason: format!(
                "the journal is damaged: entries {from} to {to} cannot be read, with {rows} rows"
            )
            .into(),
            body_bytes: damaged.length,
            body: damaged.bytes.into(),
        };
        self.keep(&[letter]).await.map(drop)
    }

    /// Makes the gaps durable and, with the last of them, that the sink goes on at `to`. Where the journal has failed,
    /// delivery goes on without that, as it does without cursors, and the next start declares it.
    async fn skip(&mut self, gaps: &[Gap], to: Offset) {
        let name = Arc::clone(&self.name);
        let entry = Entry::Skip(SkipEntry { sink: &name, to });
        let (front, last) = gaps.split_at(gaps.len().saturating_sub(1) / GAPS_MAX * GAPS_MAX);
        let mut receipt = Offset(0);
        for gaps in front.chunks(GAPS_MAX) {
            receipt = self.submit(gaps, |_| Ok(())).await.unwrap_or(receipt);
        }
        receipt = self.submit(last, |submission| submission.add(&entry)).await.unwrap_or(receipt);
        self.durable(receipt).await;
        self.accounted = self.accounted.max(to);
        self.status.settle(0, 0);
    }
}
