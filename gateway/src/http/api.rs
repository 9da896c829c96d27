//! Health and status.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{Semaphore, watch};

use crate::clock;
use crate::config::Trust;
use crate::journal::{Condition, Journal};
use crate::stats::{Stats, Status};

/// What the handlers look at.
#[derive(Debug)]
pub struct Api {
    pub(super) journal: Journal,
    pub(super) stats: Arc<Stats>,
    trust: Trust,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) streams: Arc<Semaphore>,
}

impl Api {
    /// Shows this journal and these reports, until `stop` becomes true.
    #[must_use]
    pub fn new(journal: Journal, stats: Arc<Stats>, trust: Trust, stop: watch::Receiver<bool>) -> Arc<Api> {
        let streams = Arc::new(Semaphore::new(super::live::MAX_STREAMS));
        Arc::new(Api { journal, stats, trust, stop, streams })
    }

    /// The gateway as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.journal, &self.stats, clock::now_ns(), clock::trusted(self.trust))
    }
}

/// 200 while the committer lives, whatever brokers and databases do.
pub(super) async fn health(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    match api.journal.usage().state {
        Condition::Running | Condition::Full => (StatusCode::OK, "ok\n"),
        Condition::Failed => {
            (StatusCode::SERVICE_UNAVAILABLE, "the journal has failed; see the log and restart\n")
        }
    }
}

/// 200 while acks are given.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if *api.stop.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n");
    }
    match api.journal.usage().state {
        Condition::Running => (StatusCode::OK, "ok\n"),
        Condition::Full => {
            (StatusCode::SERVICE_UNAVAILABLE, "the journal is full; acks wait for the databases\n")
        }
        Condition::Failed => {
            (StatusCode::SERVICE_UNAVAILABLE, "the journal has failed; see the log and restart\n")
        }
    }
}

/// Everything.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    Json(api.status())
}
