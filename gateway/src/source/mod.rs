//! Sources: where submissions come from and where their acks go.
//!
//! A source runs in a thread of its own and is told three things by the rest of the gateway: how far the journal is
//! durable (acks may leave), that there is room again (what was held may be tried again), and that it is to stop.

pub mod dry_run;
pub mod fleet;
pub mod mqtt;
pub mod native;
pub mod payload;
pub mod serial;
pub mod sparkplug;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_shared::ids::Epoch;
use tokio::sync::watch;
use tracing::{error, warn};

use crate::clock;
use crate::ingest::{Arrival, Ingest, Origin, Taken};
use crate::journal::Refused;
use crate::record::Offset;
use crate::stats::{RateLimit, SourceState, SourceStats, Stats};
use native::{Clocks, Schemas};
use payload::{Parsed, Refusal};

/// What every source is given.
#[derive(Clone)]
pub struct Context {
    /// Takes submissions.
    pub ingest: Arc<Ingest>,
    /// This life of the gateway, as native devices are told it.
    pub epoch: Epoch,
    /// What native devices are made of.
    pub schemas: Arc<Schemas>,
    /// How their ticks lie in time.
    pub clocks: Arc<Clocks>,
    /// Directory of the files in which the births of Sparkplug's edge nodes are kept.
    pub births: PathBuf,
    /// What devices told of.
    pub stats: Arc<Stats>,
    /// What is below may be acked (`[ack] after`).
    pub acks: watch::Receiver<Offset>,
    /// Becomes true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    /// How far acks may go, and news of it: by default, as far as the journal is durable.
    #[must_use]
    pub fn watermark(&self) -> watch::Receiver<Offset> {
        self.acks.clone()
    }

    /// How far the journal is durable, and news of it, whatever acks wait for.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Offset> {
        self.ingest.journal().watermark()
    }

    /// News of room in the journal.
    #[must_use]
    pub fn room(&self) -> watch::Receiver<u64> {
        self.ingest.journal().room()
    }

    /// Journals what one foreign message became. `None` says that there is no room now: what is left in `parsed` is to be
    /// held and tried again.
    pub fn take_foreign(
        &self,
        parsed: &mut Parsed,
        origin: Origin<'_>,
        arrival: Arrival,
        reporter: &Reporter,
    ) -> Option<Taken> {
        let mut rows = 0;
        loop {
            match self.ingest.foreign(parsed, origin, arrival) {
                Ok(taken) => {
                    self.note(parsed, &taken, origin, reporter);
                    return Some(Taken { rows: rows + taken.rows, ..taken });
                }
                Err(e @ Refused::TooLarge { .. }) => match parsed.rows.len() {
                    // A row that is too large by itself costs no other.
                    0 | 1 => *parsed = parsed.refuse_all(e.to_string()),
                    many => rows += self.take_part(parsed, many / 2, origin, arrival, reporter)?,
                },
                Err(Refused::Busy) => return None,
                Err(e) => {
                    reporter.trouble("room", &format!("messages wait: {e}"));
                    return None;
                }
            }
        }
    }

    /// Journals the first rows of a message and leaves the others in `parsed`. Returns how many were journaled.
    fn take_part(
        &self,
        parsed: &mut Parsed,
        rows: usize,
        origin: Origin<'_>,
        arrival: Arrival,
        reporter: &Reporter,
    ) -> Option<u64> {
        let mut behind = parsed.rows.split_off(rows);
        let refused = parsed.refused.take();
        // What a repetition is known by stands behind the last row.
        let part = Arrival { message: None, ..arrival };
        let taken = self.take_foreign(parsed, origin, part, reporter);
        if taken.is_some() {
            *parsed = Parsed { rows: behind, refused };
        } else {
            parsed.rows.append(&mut behind);
            parsed.refused = Refusal::both(parsed.refused.take(), refused);
        }
        taken.map(|taken| taken.rows)
    }

    fn note(&self, parsed: &Parsed, taken: &Taken, origin: Origin<'_>, reporter: &Reporter) {
        reporter.stats().rows_received.add(taken.rows);
        if let Some(refusal) = &parsed.refused {
            reporter.stats().bad_messages.add(1);
            let (name, reason) = (origin.name, &refusal.reason);
            let what =
                format!("{name:.64?} brings what is no reading: {reason}; see `forebay dead-letters list`");
            reporter.trouble("payload", &what);
        }
    }

    /// Whether the gateway stops.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns when the gateway stops.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error means that the sender is gone, which is the end too.
        stop.wait_for(|stopped| *stopped).await.ok();
    }
}

/// A source's voice: its counters and state, and a log in which each kind of trouble appears at most once a minute.
#[derive(Debug)]
pub struct Reporter {
    name: String,
    stats: Arc<SourceStats>,
    limits: RefCell<BTreeMap<&'static str, RateLimit>>,
}

impl Reporter {
    /// Speaks for the source `name`.
    #[must_use]
    pub fn new(name: String, stats: Arc<SourceStats>) -> Reporter {
        Reporter { name, stats, limits: RefCell::default() }
    }

    /// The source's name, as in status and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &SourceStats {
        &self.stats
    }

    /// The broker or port is there.
    pub fn connected(&self, how: &str) {
        self.stats.connects.add(1);
        self.stats.recover();
        tracing::info!(source = self.name, "connected: {how}");
    }

    /// Who was not understood before is understood now.
    pub fn understood(&self) {
        self.stats.recover();
    }

    /// The broker or port is gone.
    pub fn disconnected(&self, why: &str) {
        self.stats.fail(SourceState::Disconnected, clock::now_ns(), why);
        self.log("disconnected", why);
    }

    /// The port was never there, or has not come back.
    pub fn missing(&self, what: &str) {
        self.stats.fail(SourceState::Disconnected, clock::now_ns(), what);
        self.log("missing", what);
    }

    /// Any port of a kind will do, and there is none yet.
    pub fn waiting(&self) {
        if self.stats.await_device() {
            tracing::info!(source = self.name, "waiting for a device to be plugged in");
        }
    }

    /// Something went wrong that does not end the connection; `kind` groups what is logged once a minute.
    pub fn trouble(&self, kind: &'static str, what: &str) {
        self.stats.note(clock::now_ns(), what);
        self.log(kind, what);
    }

    /// Something is lost: counted and declared, but lost.
    pub fn loss(&self, kind: &'static str, what: &str) {
        self.stats.note(clock::now_ns(), what);
        if let Some(more) = self.allow(kind) {
            error!(source = self.name, "{what}{more}");
        }
    }

    fn log(&self, kind: &'static str, what: &str) {
        if let Some(more) = self.allow(kind) {
            warn!(source = self.name, "{what}{more}");
        }
    }

    /// Whether there may be a word about it now, and how many there were not.
    fn allow(&self, kind: &'static str) -> Option<String> {
        let mut limits = self.limits.borrow_mut();
        let limit = limits.entry(kind).or_insert_with(RateLimit::once_a_minute);
        match limit.allow(clock::monotonic())? {
            0 => Some(String::new()),
            held_back => Some(format!(" (and {held_back} more like it)")),
        }
    }
}

/// Sleeps until an instant in monotonic milliseconds, or for ever.
async fn sleep_until(deadline_ms: Option<u64>) {
    match deadline_ms {
        Some(deadline) => {
            let pause = deadline.saturating_sub(clock::monotonic_ms());
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        None => std::future::pending().await,
    }
}
