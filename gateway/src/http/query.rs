//! Queries: `/api/v1/query`. What is asked and answered is [`crate::query`]'s; here is how many at a time.
//!
//! A query runs on a thread of its own with a lower claim on the processor, so that no number of them holds up intake; a
//! few wait for their turn or for their client to read, and further ones are asked to come again. A connection serves one
//! query: the number of connections is bounded, and those that idle until their next query would keep others from being
//! accepted.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query as Parameters, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_stream::StreamExt as _;

use super::Api;
use crate::clock;
use crate::query::{Engine, Fault, Query};

/// Most queries that are answered at a time, and that wait or are answered.
const RUNNING_MAX: usize = 4;
pub(super) const ADMITTED_MAX: usize = 16;
/// By how much a query gives way to everything else. Not more, since it takes locks that others wait for, if only briefly.
const NICE: i32 = 5;
/// How often the engine looks at what has changed.
const EVERY: Duration = Duration::from_secs(1);

/// The engine, and who may use it.
#[derive(Debug)]
pub(super) struct Queries {
    engine: Arc<Engine>,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
struct Refusal {
    error: Fault,
}

impl Queries {
    pub(super) fn new(engine: Engine) -> Queries {
        Queries {
            engine: Arc::new(engine),
            admitted: Arc::new(Semaphore::new(ADMITTED_MAX)),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
        }
    }
}

/// Keeps the engine up to date for ever.
pub(super) async fn follow(api: Arc<Api>) {
    loop {
        let engine = Arc::clone(&api.queries.engine);
        // It reads what was committed meanwhile, at worst from the disk.
        tokio::task::spawn_blocking(move || engine.follow()).await.ok();
        tokio::time::sleep(EVERY).await;
    }
}

/// The answer to one query.
pub(super) async fn query(
    State(api): State<Arc<Api>>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Response {
    let pairs = parameters.iter().map(|(key, text)| (key.as_str(), text.as_str()));
    let query = match Query::parse(pairs, clock::now_ns()) {
        Ok(query) => query,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error),
    };
    let Queries { engine, admitted, running } = &api.queries;
    let Ok(admitted) = Arc::clone(admitted).try_acquire_owned() else { return busy() };
    let Ok(permit) = Arc::clone(running).acquire_owned().await else { return busy() };
    let (sender, answer) = oneshot::channel();
    let engine = Arc::clone(engine);
    let thread = thread::Builder::new().name("query".to_owned()).spawn(move || {
        let _permit = permit;
        // A thread has a claim of its own; if it may not be lowered, it is as others are.
        let _ = rustix::process::setpriority_process(None, NICE);
        let answered = engine.answer(&query).map(|answer| serde_json::to_vec(&answer));
        // Nobody may be left who waits for it.
        let _ = sender.send(answered);
    });
    if thread.is_err() {
        return busy();
    }
    match answer.await {
        Ok(Ok(Ok(json))) => sent(json, admitted),
        Ok(Err(error)) => refusal(StatusCode::BAD_REQUEST, error),
        Ok(Ok(Err(_))) | Err(_) => busy(),
    }
}

/// An answer, which counts among those that are admitted until it is sent, so that clients that do not read cannot fill the
/// memory. What is left of it at the end, some hundred KiB, may lie in the buffer of the connection.
fn sent(json: Vec<u8>, admitted: OwnedSemaphorePermit) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONNECTION, HeaderValue::from_static("close")),
        (CONTENT_LENGTH, HeaderValue::from(json.len())),
    ];
    let chunks = tokio_stream::iter([json]).map(move |chunk| {
        let _admitted = &admitted;
        Ok::<_, Infallible>(chunk)
    });
    (headers, Body::from_stream(chunks)).into_response()
}

fn busy() -> Response {
    let cause = format!("there are {ADMITTED_MAX} queries already");
    let error = Fault::new("query", cause, "ask again in a moment, and fewer at a time");
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refusal(status: StatusCode, error: Fault) -> Response {
    (status, [(CONNECTION, "close")], Json(Refusal { error })).into_response()
}
