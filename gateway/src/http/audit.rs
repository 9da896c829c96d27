//! The audit, on the control socket alone: it makes databases count, which nobody else is to ask for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::Api;
use crate::audit::Auditor;

/// Who counts, and that it is done by one at a time.
#[derive(Debug)]
pub(super) struct Audits {
    auditor: Arc<Auditor>,
    running: Arc<Semaphore>,
}

impl Audits {
    pub(super) fn new(auditor: Auditor) -> Audits {
        Audits { auditor: Arc::new(auditor), running: Arc::new(Semaphore::new(1)) }
    }
}

/// The ledger against what the databases count.
pub(super) async fn audit(State(api): State<Arc<Api>>) -> Response {
    let Audits { auditor, running } = &api.audits;
    let Ok(permit) = Arc::clone(running).try_acquire_owned() else {
        return (StatusCode::TOO_MANY_REQUESTS, "an audit is under way; ask again when it is done\n")
            .into_response();
    };
    let (auditor, journal) = (Arc::clone(auditor), api.journal.clone());
    let done = tokio::task::spawn_blocking(move || {
        // Whoever asked may have gone; the next one still has to wait.
        let _permit = permit;
        auditor.audit(&journal)
    });
    match done.await {
        Ok(report) => Json(report).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n").into_response(),
    }
}
