//! Health and status.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::audit::Audits;
use super::overview::Overviews;
use super::query::Queries;
use super::refusals::Refusals;
use crate::audit::Auditor;
use crate::cache::Latest;
use crate::clock;
use crate::config::{self, AckAfter, Config};
use crate::delivery::status;
use crate::journal::{Condition, Journal};
use crate::query::Engine;
use crate::stats::{Stats, Status};

/// What the handlers look at.
#[derive(Debug)]
pub struct Api {
    pub(super) journal: Journal,
    pub(super) stats: Arc<Stats>,
    clock: config::Clock,
    ack_after: AckAfter,
    pub(super) streams: Arc<Semaphore>,
    pub(super) latest: Mutex<Latest>,
    pub(super) queries: Queries,
    pub(super) audits: Audits,
    pub(super) refusals: Arc<Refusals>,
    pub(super) overviews: Overviews,
}

impl Api {
    /// Shows this journal and these reports.
    #[must_use]
    pub fn new(
        journal: Journal,
        stats: Arc<Stats>,
        config: &Config,
        engine: Engine,
        auditor: Auditor,
    ) -> Arc<Api> {
        let streams = Arc::new(Semaphore::new(super::live::MAX_STREAMS));
        let latest = Mutex::new(Latest::new(&journal, super::devices::SERIES_MAX));
        let (clock, ack_after) = (config.clock, config.ack_after);
        let (queries, audits) = (Queries::new(engine), Audits::new(auditor));
        let (refusals, overviews) = (Arc::default(), Overviews::new(&config.data_dir));
        Arc::new(Api {
            journal,
            stats,
            clock,
            ack_after,
            streams,
            latest,
            queries,
            audits,
            refusals,
            overviews,
        })
    }

    /// Whether acks wait for a database that is away.
    fn waits_for_a_database(&self) -> bool {
        let is_away =
            |condition| matches!(condition, status::Condition::Retrying | status::Condition::Holding);
        self.ack_after == AckAfter::Database
            && self.stats.sinks().values().any(|sink| is_away(sink.snapshot().state))
    }

    /// The gateway as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.journal, &self.stats, clock::now_ns(), clock::belief(self.clock))
    }
}

/// 200 while the committer lives, whatever brokers and databases do.
pub(super) async fn health(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    match api.journal.usage().state {
        // A restart would wait for the same disk.
        Condition::Running | Condition::Full | Condition::Stalled => (StatusCode::OK, "ok\n"),
        Condition::Failed => {
            (StatusCode::SERVICE_UNAVAILABLE, "the journal has failed; see the log and restart\n")
        }
    }
}

/// 200 while acks are given.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    match api.journal.usage().state {
        Condition::Running if api.waits_for_a_database() => {
            (StatusCode::SERVICE_UNAVAILABLE, "a database is away; acks wait for it\n")
        }
        Condition::Running => (StatusCode::OK, "ok\n"),
        Condition::Full => {
            (StatusCode::SERVICE_UNAVAILABLE, "the journal is full; acks wait for the databases\n")
        }
        Condition::Stalled => {
            (StatusCode::SERVICE_UNAVAILABLE, "the disk does not answer; acks wait for it, see `dmesg`\n")
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
