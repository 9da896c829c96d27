//! The committer: makes durable what was submitted.
//!
//! * In: the pending buffer.
//! * Out: frames in segments, the watermark at which receipts resolve, trimmed segments.
//! * Next: `delivery/mod.rs` reads what is below the watermark.
//!
//! Operation: group commit is self-clocked. While one fdatasync runs, submissions collect; when it returns, all of them
//! are the next commit. With a `commit_interval` the first of them waits that long for company, unless
//! [`COMMIT_BYTES`] have come together or a source is in a hurry, because half of what it may have in flight is out.
//! A second after the last commit a frame without entries tells the watermark, so that recovery can tell what was
//! durable and is damaged from what was never finished.
//!
//! Failure: a failed fdatasync is never repeated, because the kernel may have dropped the pages: the watermark stands
//! still and nothing is taken any more. A full disk is waited out: the same bytes are written again later.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{error, warn};

use super::Shared;
use super::frame::{Frame, FrameHeader};
use super::intake::Phase;
use super::pending::Pending;
use super::segment::{FRAMES_AT, Segment, SegmentHeader, SegmentId, sector_up};
use crate::record::Offset;

/// Pending bytes that do not wait for `commit_interval`.
pub(super) const COMMIT_BYTES: usize = 64 * 1024;

/// How long the last commit may stay the last before the watermark is told.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// How long a full disk is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Owns the segment that is being written.
pub(super) struct Committer {
    shared: Arc<Shared>,
    taken: Pending,
    /// Frames of `taken` that are durable.
    done: usize,
    /// Everything below is accounted for in every sink once `taken` is durable.
    trim_to: Option<Offset>,
    active: Option<Active>,
    watermark: Offset,
    disk_full: bool,
}

struct Active {
    segment: Segment,
    at: u64,
    previous: u32,
}

enum CommitError {
    /// Nothing is lost: try again later.
    Full(io::Error),
    /// What became of the bytes is unknown.
    Failed(io::Error),
}

#[derive(PartialEq, Eq)]
enum Next {
    Commit,
    Stop,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>) -> Committer {
        let watermark = *shared.watermark.borrow();
        let (taken, active) = (Pending::default(), None);
        Committer { shared, taken, done: 0, trim_to: None, active, watermark, disk_full: false }
    }

    /// Commits until the journal closes or fails.
    pub(super) fn run(mut self) {
        while self.wait() == Next::Commit {
            match self.commit() {
                Ok(()) => self.set_disk_full(false),
                Err(CommitError::Full(cause)) => {
                    if !self.disk_full {
                        warn!(%cause, "the disk has no room for the journal; acks are held back until it has");
                    }
                    self.set_disk_full(true);
                    if self.pause() == Next::Stop {
                        break;
                    }
                }
                Err(CommitError::Failed(cause)) => {
                    error!(%cause, watermark = %self.watermark, "the journal cannot be written; nothing is acked until the next start");
                    self.shared.fail();
                    break;
                }
            }
        }
    }

    /// Blocks until there is something to commit.
    fn wait(&mut self) -> Next {
        if self.done < self.taken.frames.len() {
            return Next::Commit;
        }
        let interval = self.shared.options.commit_interval;
        let mut intake = self.shared.intake();
        let mut deadline = None;
        loop {
            let closing = intake.phase != Phase::Open;
            let patience = if !intake.pending.is_empty() {
                let now = Instant::now();
                let due = *deadline.get_or_insert(now + interval);
                if closing || intake.hurry || intake.pending.bytes.len() >= COMMIT_BYTES || due <= now {
                    return Next::Commit;
                }
                due - now
            } else if intake.mark_due {
                if closing { Duration::ZERO } else { MARK_AFTER }
            } else if closing {
                return Next::Stop;
            } else {
                Duration::MAX
            };
            let (guard, waited) =
                self.shared.committer.wait_timeout(intake, patience).unwrap_or_else(PoisonError::into_inner);
            intake = guard;
            if waited.timed_out() && intake.pending.is_empty() {
                intake.append_mark();
            }
        }
    }

    /// Leaves a full disk alone for a while.
    fn pause(&self) -> Next {
        let intake = self.shared.intake();
        if intake.phase != Phase::Open {
            return Next::Stop;
        }
        let waited =
            self.shared.committer.wait_timeout_while(intake, RETRY_AFTER, |i| i.phase == Phase::Open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Next::Commit
    }

    /// Makes everything durable that is taken or pending, with one sync per segment touched.
    fn commit(&mut self) -> Result<(), CommitError> {
        if self.done >= self.taken.frames.len() {
            self.taken.clear();
            self.done = 0;
            let mut intake = self.shared.intake();
            intake.take(&mut self.taken);
            self.trim_to = intake.state.lowest_cursor();
        }
        while self.done < self.taken.frames.len() {
            let rest = &self.taken.frames[self.done..];
            let run = rest.iter().skip(1).position(|f| f.opens.is_some()).map_or(rest.len(), |at| at + 1);
            self.commit_run(self.done..self.done + run)?;
            self.done += run;
        }
        self.trim();
        Ok(())
    }

    /// Makes frames durable that go into the same segment.
    fn commit_run(&mut self, run: Range<usize>) -> Result<(), CommitError> {
        let head = self.taken.frames[run.start];
        if let Some(id) = head.opens
            && self.active.as_ref().is_none_or(|active| active.segment.id != id)
        {
            self.active = Some(self.open_segment(id, head.first)?);
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = self.taken.frames.get(run.end).map_or(self.taken.bytes.len(), |next| next.start);
        let (headers, previous) = seal(&mut self.taken, run, end, active, self.watermark);
        let bytes = &self.taken.bytes[head.start..end];
        active.segment.file.write_at(bytes, active.at).map_err(CommitError::of)?;
        active.segment.file.sync().map_err(CommitError::Failed)?;
        // The next commit keeps off the sector in which this one ends.
        active.at = sector_up(active.at + bytes.len() as u64);
        active.previous = previous;
        self.publish(&headers, head.start..end);
        Ok(())
    }

    fn open_segment(&self, id: SegmentId, first: Offset) -> Result<Active, CommitError> {
        let file = self.shared.spares.take(id).map_err(CommitError::of)?;
        let length = self.shared.segment_bytes;
        let header = SegmentHeader { journal: self.shared.journal, segment: id, first, length };
        let (sector, previous) = header.encode();
        file.write_at(&sector, 0).map_err(CommitError::of)?;
        let segment = Segment { id, first, length, file };
        self.shared.segments().insert(segment.clone());
        self.shared.intake().spare_due = true;
        self.shared.preparer.notify_one();
        Ok(Active { segment, at: FRAMES_AT, previous })
    }

    /// Shows durable frames to readers and resolves receipts.
    fn publish(&mut self, headers: &[FrameHeader], range: Range<usize>) {
        let commit = Bytes::copy_from_slice(&self.taken.bytes[range]);
        let mut entries = 0;
        let mut at = 0;
        let mut recent = self.shared.recent();
        for header in headers {
            let frame = commit.slice(at..at + header.length);
            at += header.length;
            entries += u64::from(header.count);
            self.watermark = header.end();
            if header.count > 0 {
                recent.push(Frame::new(frame, header));
            }
        }
        drop(recent);
        let mut intake = self.shared.intake();
        intake.mark_due = entries > 0;
        intake.commits.commits += 1;
        intake.commits.entries += entries;
        intake.commits.bytes += commit.len() as u64;
        self.shared.tell_room(&mut intake);
        drop(intake);
        self.shared.watermark.send_if_modified(|watermark| {
            let moved = *watermark != self.watermark;
            *watermark = self.watermark;
            moved
        });
    }

    /// Lets go of the segments that every sink is done with.
    fn trim(&self) {
        let Some(offset) = self.trim_to else { return };
        loop {
            let Some(segment) = self.shared.segments().pop_below(offset) else { return };
            if let Err(cause) = self.shared.spares.recycle(segment.id, segment.length) {
                warn!(%cause, file = segment.id.file_name(), "cannot remove a journal file that is no longer needed");
            }
            let mut intake = self.shared.intake();
            intake.live_bytes = intake.live_bytes.saturating_sub(segment.length);
            intake.full = false;
            self.shared.tell_room(&mut intake);
            self.shared.preparer.notify_one();
        }
    }

    fn set_disk_full(&mut self, full: bool) {
        if self.disk_full != full {
            self.disk_full = full;
            self.shared.set_disk_full(full);
        }
    }
}

impl CommitError {
    fn of(cause: io::Error) -> CommitError {
        if is_full(&cause) { CommitError::Full(cause) } else { CommitError::Failed(cause) }
    }
}

/// Keeps a spare segment ready until the journal closes or fails.
pub(super) fn prepare_spares(shared: &Shared) {
    let mut intake = shared.intake();
    let mut failing = false;
    while intake.phase == Phase::Open {
        if !failing && intake.spare_allowed() {
            intake.spare_due = false;
            drop(intake);
            let made = shared.spares.prepare();
            if let Err(cause) = &made {
                warn!(%cause, "cannot make the next journal file ready; trying again");
                failing = true;
            }
            shared.set_disk_full(made.is_err_and(|cause| is_full(&cause)));
            intake = shared.intake();
            intake.spare_due |= failing;
            continue;
        }
        let patience = if failing { RETRY_AFTER } else { Duration::MAX };
        let waited = shared.preparer.wait_timeout(intake, patience).unwrap_or_else(PoisonError::into_inner);
        intake = waited.0;
        failing &= !waited.1.timed_out();
    }
}

/// Fills in the headers of the frames in `run`, the last of which ends at `end`.
fn seal(
    taken: &mut Pending,
    run: Range<usize>,
    end: usize,
    active: &Active,
    watermark: Offset,
) -> (Vec<FrameHeader>, u32) {
    let mut previous = active.previous;
    let mut headers = Vec::with_capacity(run.len());
    for at in run.clone() {
        let frame = taken.frames[at];
        let frame_end = if at + 1 < run.end { taken.frames[at + 1].start } else { end };
        let header = FrameHeader {
            length: frame_end - frame.start,
            count: frame.count,
            complete: frame.complete,
            segment: active.segment.id,
            first: frame.first,
            watermark,
            previous,
        };
        previous = header.seal(&mut taken.bytes[frame.start..frame_end]);
        headers.push(header);
    }
    (headers, previous)
}

/// Whether a later attempt may succeed where this one found no room.
fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
}
