//! The status by the second, as server-sent events: `/api/v1/status/live`.
//!
//! *Constraints.* However many look on, and however many devices there are, a second costs one snapshot, which is written down
//! once and shared, and none where nobody looks on. It leaves out `devices`; `table.rs` has them by the page. A client that is
//! slow gets the newest snapshot next, and none that it missed.
//! *Operation.* [`follow`] measures once a second what [`crate::stats::pulse`] is about, for everybody who shows a status, and
//! writes the snapshot down if there is a stream. An event `status` is one of them, in JSON. What it compares with first is
//! taken when the interface is made, before anything is delivered or received.
//! *Failure.* A disk that does not answer holds up nothing: what only it knows is left out meanwhile.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use crate::clock;
use crate::stats::Machine;
use crate::stats::pulse::{Counts, Meter, OnDisk};

/// Most streams at a time.
pub const STREAMS_MAX: usize = 16;
/// How often there is an event.
const EVERY: Duration = Duration::from_secs(1);
/// How long the disk may take to answer before a measurement goes without.
const DISK_PATIENCE: Duration = Duration::from_millis(500);

/// The newest snapshot, and who may have it.
#[derive(Debug)]
pub(super) struct Overviews {
    latest: watch::Sender<Bytes>,
    streams: Arc<Semaphore>,
    meter: Mutex<Meter>,
    data_dir: PathBuf,
    started: Duration,
}

impl Overviews {
    pub(super) fn new(data_dir: &Path) -> Overviews {
        Overviews {
            latest: watch::Sender::new(Bytes::new()),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            meter: Mutex::default(),
            data_dir: data_dir.to_owned(),
            started: clock::monotonic(),
        }
    }
}

/// Measures once a second for ever.
pub(super) async fn follow(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: Option<JoinHandle<OnDisk>> = None;
    loop {
        ticks.tick().await;
        // It asks the disk how full it is, and the journal for its oldest rows. One that is stuck there is waited for.
        let asked = asking.get_or_insert_with(|| {
            let api = Arc::clone(&api);
            spawn_blocking(move || OnDisk::ask(&api.journal, &api.overviews.data_dir, clock::now_ns()))
        });
        let answer = timeout(DISK_PATIENCE, asked).await.ok();
        if answer.is_some() {
            asking = None;
        }
        let on_disk = answer.and_then(Result::ok).unwrap_or_default();
        let measured = Arc::clone(&api);
        spawn_blocking(move || measured.measure(&on_disk)).await.ok();
    }
}

impl Api {
    /// Measures once. It waits for no disk.
    pub(super) fn measure(&self, on_disk: &OnDisk) {
        let Overviews { latest, meter, started, .. } = &self.overviews;
        let machine = Machine::of_process(clock::monotonic().saturating_sub(*started));
        let counts = Counts::of(&self.journal, &self.stats, machine, on_disk);
        let pulse = meter.lock().unwrap_or_else(PoisonError::into_inner).take(clock::monotonic_ms(), counts);
        self.stats.set_pulse(pulse);
        if latest.receiver_count() > 0
            && let Some(event) = self.event()
        {
            latest.send_replace(event);
        }
    }

    /// The snapshot as an event; none if it cannot be written, which its types exclude.
    fn event(&self) -> Option<Bytes> {
        let mut text = b"event: status\ndata: ".to_vec();
        serde_json::to_writer(&mut text, &self.status().without_devices()).ok()?;
        text.extend_from_slice(b"\n\n");
        Some(text.into())
    }
}

/// The stream.
pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    let Ok(permit) = Arc::clone(&api.overviews.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages look on; close one\n").into_response();
    };
    let (chunks, body) = mpsc::channel(1);
    tokio::spawn(run(api.overviews.latest.subscribe(), chunks, permit));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(ReceiverStream::new(body))).into_response()
}

type Chunk = Result<Bytes, Infallible>;

async fn run(mut latest: watch::Receiver<Bytes>, chunks: mpsc::Sender<Chunk>, _permit: OwnedSemaphorePermit) {
    // An event without content makes the headers leave at once.
    let mut chunk = Bytes::from_static(b": status\n\n");
    while chunks.send(Ok(chunk)).await.is_ok() {
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            () = chunks.closed() => return,
        }
        chunk = latest.borrow_and_update().clone();
    }
}
