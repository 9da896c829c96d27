//! What delivery to one sink is doing: written by its driver, read by the status page and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::replay::Desk;
use crate::clock;

/// Whether delivery gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It has not written anything yet.
    #[default]
    Starting,
    /// The last write was answered.
    Running,
    /// The last write failed and is repeated soon.
    Retrying,
    /// Somebody has to mend something; `last_error` says what. Nothing is dropped meanwhile.
    Holding,
    /// The gateway is shutting down.
    Stopped,
}

impl Condition {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Starting => "starting",
            Condition::Running => "running",
            Condition::Retrying => "retrying",
            Condition::Holding => "holding",
            Condition::Stopped => "stopped",
        }
    }
}

/// One sink's state and counters since the start; shared between the driver and whoever shows them.
#[derive(Debug, Default)]
pub struct SinkStatus {
    /// With when the latest trouble was, in nanoseconds since 1970, and what.
    mood: Mutex<(Condition, Option<(i64, String)>)>,
    confirmed: AtomicU64,
    rejected: AtomicU64,
    discarded: AtomicU64,
    unconfirmed: Mutex<Vec<(Box<str>, u64)>>,
    retries: AtomicU64,
    requests: AtomicU64,
    sent_bytes: AtomicU64,
    desk: Desk,
}

/// A plain copy of [`SinkStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkSnapshot {
    /// Whether delivery gets on.
    pub state: Condition,
    /// The latest reason why a write was not confirmed, also when it was later, or why rows are sent again.
    pub last_error: Option<String>,
    /// When that was, in nanoseconds since 1970.
    pub last_error_ns: Option<i64>,
    /// Rows confirmed since the start.
    pub confirmed_rows: u64,
    /// Rows refused since the start.
    pub rejected_rows: u64,
    /// Rows sent whose answer is unknown.
    pub unconfirmed_rows: u64,
    /// Writes that failed and were repeated since the start.
    pub retries: u64,
    /// Requests or transactions since the start, failed ones included.
    pub requests: u64,
    /// Bytes of their bodies, where they have any.
    pub sent_bytes: u64,
}

impl SinkStatus {
    /// A plain copy.
    #[must_use]
    pub fn snapshot(&self) -> SinkSnapshot {
        let (state, last_error) = self.mood().clone();
        let (last_error_ns, last_error) = last_error.unzip();
        SinkSnapshot {
            state,
            last_error,
            last_error_ns,
            confirmed_rows: self.confirmed.load(Ordering::Relaxed),
            rejected_rows: self.rejected.load(Ordering::Relaxed),
            unconfirmed_rows: self.unconfirmed().iter().map(|(_, rows)| rows).sum(),
            retries: self.retries.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Where dead letters are handed in that are to be sent again.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Counts rows that it has refused since the start and nobody wants any more.
    pub fn discard(&self, rows: u64) {
        self.discarded.fetch_add(rows, Ordering::Relaxed);
    }

    /// How many these are.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }

    pub(super) fn count_request(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn set(&self, state: Condition) {
        self.mood().0 = state;
    }

    pub(super) fn set_failed(&self, state: Condition, reason: &str) {
        *self.mood() = (state, Some((clock::now_ns(), reason.to_owned())));
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody has to mend something before delivery goes on.
    pub(super) fn hold(&self, reason: &str) {
        *self.mood() = (Condition::Holding, Some((clock::now_ns(), reason.to_owned())));
    }

    pub(super) fn note(&self, reason: &str) {
        self.mood().1 = Some((clock::now_ns(), reason.to_owned()));
    }

    /// Rows sent whose answer is unknown, by device.
    #[must_use]
    pub fn unconfirmed(&self) -> Vec<(Box<str>, u64)> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_unconfirmed(&self, rows: Vec<(Box<str>, u64)>) {
        *self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub(super) fn settle(&self, confirmed: u64, rejected: u64) {
        self.set_unconfirmed(Vec::new());
        self.confirmed.fetch_add(confirmed, Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
    }

    fn mood(&self) -> MutexGuard<'_, (Condition, Option<(i64, String)>)> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
