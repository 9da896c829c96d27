//! Rows as they become durable, as server-sent events: `/api/v1/live`, `/api/v1/live?device=NAME`.
//!
//! An event without a name is one row in line protocol, or the point `forebay_gap` of a declared loss; one that came before
//! the gateway's clock was believed has no time at the end of its line. An event `skipped` says how many journal entries a client
//! missed because it was too slow: the stream then goes on at the present, so that no client holds anything up.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use crate::journal::{Entry, Journal, Read, Reader};
use crate::record::{Offset, split_series};
use crate::sink::batch::Record;
use crate::sink::line_protocol::{Dialect, push_line, push_undated};

/// Most streams at a time.
pub const MAX_STREAMS: usize = 16;
/// Text sent at once, about, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// Chunks that may wait for a slow client.
const CHUNKS: usize = 4;
/// Entries that a client may be behind before it is skipped ahead.
const MAX_BEHIND: u64 = 20_000;

/// What the client wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only this device, by its tag or its chip id.
    device: Option<Box<str>>,
}

/// The stream.
pub(super) async fn live(State(api): State<Arc<Api>>, Query(wanted): Query<Wanted>) -> Response {
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many live streams; close one\n").into_response();
    };
    let (chunks, body) = mpsc::channel(CHUNKS);
    let stream = Stream::new(&api.journal, wanted.device);
    tokio::spawn(run(stream, chunks, permit));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(ReceiverStream::new(body))).into_response()
}

type Chunk = Result<Bytes, Infallible>;

async fn run(mut stream: Stream, chunks: mpsc::Sender<Chunk>, _permit: OwnedSemaphorePermit) {
    let mut watermark = stream.journal.watermark();
    // An event without content makes the headers leave at once.
    let mut text = ": live\n\n".to_owned();
    loop {
        if !text.is_empty() && chunks.send(Ok(Bytes::from(text))).await.is_err() {
            return;
        }
        let end = *watermark.borrow_and_update();
        // Reading may wait for the disk, which this thread must not.
        let Ok((advanced, more)) = tokio::task::spawn_blocking(move || stream.advance(end)).await else {
            return;
        };
        stream = advanced;
        text = more;
        if text.is_empty() {
            tokio::select! {
                changed = watermark.changed() => if changed.is_err() { return },
                () = chunks.closed() => return,
            }
        }
    }
}

struct Stream {
    journal: Journal,
    reader: Reader,
    next: Offset,
    device: Option<Box<str>>,
}

impl Stream {
    fn new(journal: &Journal, device: Option<Box<str>>) -> Stream {
        let next = *journal.watermark().borrow();
        Stream { journal: journal.clone(), reader: journal.reader(next), next, device }
    }

    /// Reads on for about one chunk, which is empty when nothing more is durable.
    fn advance(mut self, end: Offset) -> (Stream, String) {
        let mut text = String::new();
        if end.0.saturating_sub(self.next.0) > MAX_BEHIND {
            self.reader = self.journal.reader(end);
            self.skip_to(end, &mut text);
        }
        while text.len() < CHUNK_BYTES {
            match self.reader.next() {
                Ok(Read::Wait) => break,
                Ok(Read::Frame(frame)) => {
                    // The reader passes over what was trimmed meanwhile.
                    self.skip_to(frame.first(), &mut text);
                    let (from, fixes) = (self.next, self.reader.fixes());
                    for (offset, entry) in frame.entries().filter(|(offset, _)| *offset >= from) {
                        self.next = offset.plus(1);
                        if let Ok(entry) = entry {
                            self.push(fixes.date(entry), &mut text);
                        }
                    }
                }
                Ok(Read::Damaged { to, .. }) => self.skip_to(to, &mut text),
                // Delivery complains about a medium that cannot be read; here it is passed over.
                Err(_) => {
                    self.reader = self.journal.reader(end);
                    self.skip_to(end, &mut text);
                    break;
                }
            }
        }
        (self, text)
    }

    /// Says how many entries between here and `offset` are not shown, if there are any.
    fn skip_to(&mut self, offset: Offset, text: &mut String) {
        if offset > self.next {
            *text += &format!("event: skipped\ndata: {}\n\n", offset.0 - self.next.0);
            self.next = offset;
        }
    }

    fn push(&self, entry: Entry<'_>, text: &mut String) {
        let (record, key, series) = match entry {
            Entry::Row(row) | Entry::EarlyRow(_, row) => (Record::Row(row), row.device, row.series),
            Entry::Gap(gap) | Entry::EarlyGap(_, gap) if gap.sink.is_none() => {
                (Record::Gap(gap), gap.device, gap.series)
            }
            _ => return,
        };
        let wanted = |device: &str| device == key || has_tag(series, device);
        if !self.device.as_deref().is_none_or(wanted) {
            return;
        }
        let start = text.len();
        text.push_str("data: ");
        let push = if entry.is_early() { push_undated } else { push_line };
        if push(text, Dialect::V2, &record.point()) {
            text.push('\n');
        } else {
            text.truncate(start);
        }
    }
}

fn has_tag(series: &str, device: &str) -> bool {
    let (_, tags) = split_series(series);
    tags.iter().any(|(name, value)| name == "device" && value == device)
}
