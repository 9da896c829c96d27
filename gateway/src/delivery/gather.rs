//! Gathers the journal's frames into batches.

use std::convert::Infallible;
use std::future::pending;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::yield_now;
use tracing::error;

use super::batcher::Batcher;
use crate::journal::{Frame, Read, ReadError, Reader};
use crate::record::Offset;
use crate::sink::Batch;
use crate::sink::batch::Audience;
use crate::sink::line_protocol::Dialect;
use crate::sink::selection::{Census, LeftOut};

/// Bytes of journal that a batch keeps in memory; passed by less than one frame.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The growing batch of one sink, and where the next frame comes from.
pub(super) struct Gather {
    audience: Arc<Audience>,
    reader: Reader,
    batcher: Batcher,
    batch: Batch,
    /// A frame whose end belongs to the next batch.
    rest: Option<Arc<Frame>>,
    /// Entries that the medium lost, behind which reading goes on once they are declared.
    hole: Option<(Offset, Offset)>,
    /// What its batches leave out, if they are selective.
    left_out: Option<LeftOut>,
}

impl Gather {
    pub(super) fn new(audience: Arc<Audience>, reader: Reader, batcher: Batcher) -> Gather {
        let batch = Batch::new(Arc::clone(&audience), reader.position());
        Gather { audience, reader, batcher, batch, rest: None, hole: None, left_out: None }
    }

    /// Gathers what goes ahead: batches without some devices, of whose bytes only their own count.
    pub(super) fn selective(
        audience: Arc<Audience>,
        reader: Reader,
        batcher: Batcher,
        left_out: LeftOut,
    ) -> Gather {
        let batch = Batch::selective(Arc::clone(&audience), reader.position(), left_out.clone());
        Gather { audience, reader, batcher, batch, rest: None, hole: None, left_out: Some(left_out) }
    }

    /// Begins anew at an offset.
    pub(super) fn restart(&mut self, reader: Reader) {
        self.batcher.handle_departure();
        self.batch = self.empty_batch(reader.position());
        (self.reader, self.rest, self.hole) = (reader, None, None);
    }

    /// Adds what is committed, until the batch is full or stands before a hole, or before an entry whose time is not known
    /// yet: the fix that it waits for moves the watermark, as everything does that is worth another look.
    ///
    /// # Errors
    /// The journal's medium fails; the batch keeps what it has.
    pub(super) fn advance(&mut self, now: Instant) -> Result<(), ReadError> {
        while self.add_frame(now)? {}
        Ok(())
    }

    /// The same, a frame at a time, so that others on this thread get on with their work, and then the body of a batch that
    /// is full; never completes. A medium that fails ends it too: the next to advance is told.
    pub(super) async fn advance_beside(&mut self, dialect: Option<Dialect>) -> Infallible {
        while let Ok(true) = self.add_frame(Instant::now()) {
            yield_now().await;
        }
        if let Some(dialect) = dialect
            && self.is_full()
        {
            while self.batch.prepare(dialect) {
                yield_now().await;
            }
        }
        pending().await
    }

    /// Adds the next frame; whether there may be another one to add.
    fn add_frame(&mut self, now: Instant) -> Result<bool, ReadError> {
        if self.is_full() || self.hole.is_some() {
            return Ok(false);
        }
        let frame = match self.rest.take() {
            Some(frame) => frame,
            None => match self.reader.next()? {
                Read::Frame(frame) => frame,
                Read::Damaged { from, to } => {
                    self.hole = Some((from, to));
                    return Ok(false);
                }
                Read::Wait => return Ok(false),
            },
        };
        let added = self.batch.add(&frame, &self.reader.fixes(), self.batcher.points_max());
        self.batcher.handle_growth(now, self.batch.rows(), self.batch.weight());
        if added.unreadable > 0 {
            error!(
                sink = &*self.audience.name,
                entries = added.unreadable,
                first = %frame.first(),
                "entries of the journal cannot be decoded, or have no time any more, and are not delivered"
            );
        }
        if !added.whole_frame {
            self.rest = Some(frame);
        }
        Ok(!added.waits)
    }

    /// The batch is as large as it may be.
    pub(super) fn is_full(&self) -> bool {
        self.batcher.is_full() || self.batch.bytes() >= BATCH_BYTES_MAX
    }

    /// The same, whatever its points share their frames with.
    pub(super) fn is_full_of_points(&self) -> bool {
        self.batcher.is_full()
    }

    /// Where the batch begins.
    pub(super) fn from(&self) -> Offset {
        self.batch.from()
    }

    /// Where the batch ends.
    pub(super) fn to(&self) -> Offset {
        self.batch.to()
    }

    /// The batch has to leave now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.batcher.is_due(now) || self.hole.is_some() && !self.is_empty()
    }

    /// The hole that comes next, once what is before it has left.
    pub(super) fn hole(&self) -> Option<(Offset, Offset)> {
        self.hole.filter(|_| self.is_empty())
    }

    /// When the batch has to leave by its age.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.batcher.poll_timeout()
    }

    /// The batch has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.rows() == 0
    }

    /// Everything below is in batches that were taken, or has no rows; none if the batch has rows.
    pub(super) fn without_rows(&self) -> Option<Offset> {
        self.is_empty().then(|| self.batch.to())
    }

    /// Takes the batch; the next one begins behind it.
    pub(super) fn take(&mut self) -> Batch {
        self.batcher.handle_departure();
        let next = self.empty_batch(self.batch.to());
        mem::replace(&mut self.batch, next)
    }

    /// The batch under way, if it is selective, and those behind it leave out these devices.
    pub(super) fn leave_out(&mut self, now: Instant, left_out: LeftOut) {
        self.batch.leave_out(left_out.clone());
        self.left_out = Some(left_out);
        self.batcher.handle_growth(now, self.batch.rows(), self.batch.weight());
    }

    /// What a selective batch has come across so far.
    pub(super) fn census(&self) -> Option<&Census> {
        self.batch.census()
    }

    fn empty_batch(&self, from: Offset) -> Batch {
        let audience = Arc::clone(&self.audience);
        match &self.left_out {
            Some(left_out) => Batch::selective(audience, from, left_out.clone()),
            None => Batch::new(audience, from),
        }
    }
}
