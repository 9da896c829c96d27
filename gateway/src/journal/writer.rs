//! The committer: makes durable what was submitted.
//!
//! * In: the pending buffer.
//! * Out: frames in segments, the watermark at which receipts resolve, segments that nobody needs any more.
//! * Next: `delivery/mod.rs` reads what is below the watermark.
//!
//! Operation: group commit is self-clocked. While one fdatasync runs, submissions collect; when it returns, all of them
//! are the next commit. The first of them may wait for company ([`Intake::commit_at`](super::intake::Intake::commit_at)):
//! for a moment where nobody is held up by it, so that a fast disk does not make a commit of every message; and for the
//! `commit_interval`, unless much has come together, or half of what a source may have in flight is out.
//! A second after the last commit the end is marked (`end.rs`), so that recovery can tell what was durable and is damaged
//! from what was never finished.
//!
//! Failure: a failed fdatasync is never repeated, because the kernel may have dropped the pages: the file is given up, and
//! the frames, which are still in memory, go into a new one, whose first offset supersedes what the old one may hold of
//! them. A second failure in a row is final until the next start: the watermark stands still and nothing is taken any
//! more. A full disk is waited out: the same bytes are written again later.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{error, warn};

use super::Shared;
use super::bugs::{Bug, seeded};
use super::end::{EndFile, EndMark};
use super::frame::{Frame, FrameHeader};
use super::intake::Phase;
use super::pending::{Pending, PendingFrame};
use super::segment::{FRAMES_AT, Segment, sector_up};
use super::storage::Storage;
use crate::record::Offset;

/// How long the last commit may stay the last before the end is marked.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// How long a full disk is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Failures in a row after which nothing is tried any more.
const STRIKES_MAX: u32 = 2;

/// Owns the segment that is being written.
pub(super) struct Committer {
    shared: Arc<Shared>,
    taken: Pending,
    /// Frames of `taken` that are durable.
    done: usize,
    /// Everything below is accounted for once `taken` is durable.
    trim_to: Option<Offset>,
    pub(super) active: Option<Active>,
    /// Whether the segment that the next frame begins is the active one.
    opened: bool,
    watermark: Offset,
    learned: u64,
    /// Failures since the last commit.
    strikes: u32,
    storage: Arc<dyn Storage>,
    /// Where the end is marked; none, if that has to be made.
    end: Option<EndFile>,
}

/// The segment that is being written.
pub(super) struct Active {
    pub(super) segment: Segment,
    /// Where the next commit goes.
    pub(super) at: u64,
    /// Checksum of what lies before.
    pub(super) previous: u32,
}

/// Why nothing became durable.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing is lost: try again later.
    Full(io::Error),
    /// What became of the bytes is unknown.
    Failed(io::Error),
}

/// What the committer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Commit,
    Mark,
    Stop,
}

impl Committer {
    /// Makes the committer that goes on in the active segment, if there is one.
    pub(super) fn new(
        shared: Arc<Shared>,
        storage: Arc<dyn Storage>,
        active: Option<Active>,
        end: Option<EndFile>,
    ) -> Committer {
        let watermark = *shared.watermark.borrow();
        let (learned, trim_to) = {
            let state = &shared.intake().state;
            (state.learned(), state.done_below())
        };
        Committer {
            shared,
            taken: Pending::default(),
            done: 0,
            trim_to,
            active,
            opened: false,
            watermark,
            learned,
            strikes: 0,
            storage,
            end,
        }
    }

    /// Commits until the journal closes or fails.
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Next::Stop => break,
                Next::Mark => self.mark(),
                Next::Commit => match self.commit() {
                    Err(CommitError::Full(_)) if self.pause() == Next::Stop => break,
                    Ok(()) | Err(CommitError::Full(_)) => {}
                    Err(CommitError::Failed(_)) => break,
                },
            }
        }
    }

    /// Blocks until there is something to do.
    fn wait(&mut self) -> Next {
        if self.done < self.taken.frames.len() {
            return Next::Commit;
        }
        // Whoever asks for a turn does not put the mark off.
        let mark_at = Instant::now() + MARK_AFTER;
        let mut intake = self.shared.intake();
        loop {
            self.shared.take_turn();
            let closing = intake.phase != Phase::Open;
            let patience = if let Some(due) = intake.commit_at() {
                let now = Instant::now();
                if closing || due <= now {
                    return Next::Commit;
                }
                due - now
            } else if intake.mark_due && closing {
                return Next::Mark;
            } else if intake.mark_due {
                let now = Instant::now();
                if mark_at <= now {
                    return Next::Mark;
                }
                mark_at - now
            } else if closing {
                return Next::Stop;
            } else {
                Duration::MAX
            };
            let (guard, _) =
                self.shared.committer.wait_timeout(intake, patience).unwrap_or_else(PoisonError::into_inner);
            intake = guard;
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

    /// Makes everything durable that is taken or pending, with one sync per segment touched, and tells those who wait
    /// how that went.
    pub(super) fn commit(&mut self) -> Result<(), CommitError> {
        let committed = self.commit_taken();
        match &committed {
            Ok(()) => self.tell(None),
            Err(CommitError::Full(cause)) => {
                let trouble =
                    format!("the disk takes nothing: {cause}; make room on it, acks wait until then");
                self.tell(Some(trouble));
            }
            Err(CommitError::Failed(cause)) => {
                error!(%cause, watermark = %self.watermark, "the journal cannot be written; nothing is acked until the next start");
                let trouble = format!(
                    "the journal cannot be written: {cause}; check the disk under data_dir and restart"
                );
                self.tell(Some(trouble));
                self.shared.fail();
            }
        }
        committed
    }

    fn tell(&self, trouble: Option<String>) {
        self.shared.set_trouble(|intake| &mut intake.commit_trouble, trouble, "the journal is written again");
    }

    /// Notes the end outside the segments. That is a help to recovery, and nothing is lost without it.
    pub(super) fn mark(&mut self) {
        self.shared.intake().mark_due = false;
        let mark = EndMark { watermark: self.watermark, learned: self.learned };
        let written = self.end.take().and_then(|mut end| end.write(mark).is_ok().then_some(end));
        let written = match written {
            Some(end) => Ok(end),
            None => EndFile::make(&*self.storage, self.shared.journal, mark),
        };
        self.end = written
            .inspect_err(|cause| warn!(%cause, "cannot mark the end of the journal; damage to its last rows would look like an unfinished write"))
            .ok();
    }

    fn commit_taken(&mut self) -> Result<(), CommitError> {
        if self.done >= self.taken.frames.len() {
            self.taken.clear();
            self.done = 0;
            let mut intake = self.shared.intake();
            intake.take(&mut self.taken);
            self.trim_to = intake.state.done_below();
            if seeded(Bug::MarkBeforeSync) {
                let mark = EndMark { watermark: intake.tail.end, learned: intake.state.learned() };
                drop(intake);
                self.end.as_mut().map(|end| end.write(mark));
            }
        }
        if seeded(Bug::TrimBeforeCursorIsDurable) {
            self.trim();
        }
        if seeded(Bug::FixShownBeforeItIsDurable) {
            self.show_fixes();
        }
        while self.done < self.taken.frames.len() {
            let rest = &self.taken.frames[self.done..];
            let run = rest.iter().skip(1).position(|f| f.opens).map_or(rest.len(), |at| at + 1);
            self.commit_run(self.done..self.done + run)?;
            self.done += run;
            self.opened = false;
        }
        self.trim();
        Ok(())
    }

    /// Makes frames durable that go into the same segment; into another one, if that fails.
    fn commit_run(&mut self, run: Range<usize>) -> Result<(), CommitError> {
        loop {
            let written = self.write_run(run.clone());
            self.shared.take_turn();
            let cause = match written {
                Ok(()) => {
                    self.strikes = 0;
                    return Ok(());
                }
                Err(CommitError::Failed(cause)) => cause,
                full => return full,
            };
            self.strikes += 1;
            if self.strikes >= STRIKES_MAX {
                return Err(CommitError::Failed(cause));
            }
            if self.taken.frames[run.start].opens && !self.opened {
                // No further file could be had; the one before is as good as it was.
                continue;
            }
            warn!(%cause, "a journal file cannot be written; its last rows go into a new one, and nothing is lost");
            self.give_up();
        }
    }

    /// Never touches the active segment again. What of it is durable stays readable.
    fn give_up(&mut self) {
        self.opened = false;
        let Some(active) = self.active.take() else { return };
        let id = active.segment.id;
        let mut segments = self.shared.segments();
        let begun = active.at > FRAMES_AT;
        let useless = if begun { None } else { segments.remove(id) };
        if let Some(segment) = segments.get_mut(id) {
            segment.sound = false;
        }
        drop(segments);
        if let Some(segment) = useless {
            self.shared.spares.discard(Segment { sound: false, ..segment });
        }
        let mut intake = self.shared.intake();
        intake.live_bytes += active.segment.length;
        intake.unopened += usize::from(active.segment.snapshot && !begun);
        intake.commits.rewrites += 1;
        (intake.retire_due, intake.tidy_due) = (true, true);
        drop(intake);
        self.shared.preparer.notify_one();
    }

    fn write_run(&mut self, run: Range<usize>) -> Result<(), CommitError> {
        let head = self.taken.frames[run.start];
        if self.active.is_none() || head.opens && !self.opened {
            self.active = Some(self.open_segment(&head)?);
            self.opened = true;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.at == FRAMES_AT {
            // The header goes out with the first frames' sync.
            let (sector, _) = active.segment.header().encode();
            active.segment.file.write_at(&sector, 0).map_err(CommitError::of)?;
        }
        let next = self.taken.frames.get(run.end);
        let (end, last) = (next.map_or(self.taken.bytes.len(), |next| next.start), next.is_none());
        let (headers, previous) = seal(&mut self.taken, run, end, active, self.watermark);
        let bytes = &self.taken.bytes[head.start..end];
        active.segment.file.write_at(bytes, active.at).map_err(CommitError::of)?;
        let unsynced = seeded(Bug::AckBeforeSync) || seeded(Bug::SyncOnlyTheLastSegment) && !last;
        if !unsynced {
            let synced = active.segment.file.sync();
            let retry = seeded(Bug::RetryFailedSync) && synced.is_err();
            let synced = if retry { active.segment.file.sync() } else { synced };
            synced.map_err(CommitError::Failed)?;
        }
        // The next commit keeps off the sector in which this one ends.
        active.at += bytes.len() as u64;
        if !seeded(Bug::SharedSector) {
            active.at = sector_up(active.at);
        }
        active.previous = previous;
        self.publish(&headers, head.start..end);
        Ok(())
    }

    /// Takes a file for the next segment: with a snapshot as intake planned it, or without where a file was given up.
    fn open_segment(&self, head: &PendingFrame) -> Result<Active, CommitError> {
        let PendingFrame { first, opens: snapshot, early, shared, boots, .. } = *head;
        let (id, file) = self.shared.spares.take().map_err(CommitError::of)?;
        let length = self.shared.shape.segment_bytes;
        let segments = self.shared.segments();
        // Any of the idle ones before it may go.
        let idle = segments.iter().rev().take_while(|s| s.idle && !seeded(Bug::VoidForgotten)).last();
        let void = idle.map_or(first, |idle| idle.void);
        drop(segments);
        let journal = self.shared.journal;
        let sound = true;
        let idle = false;
        let segment =
            Segment { journal, id, first, void, length, early, shared, boots, file, snapshot, idle, sound };
        let (_, previous) = segment.header().encode();
        self.shared.segments().insert(segment.clone());
        let mut intake = self.shared.intake();
        if snapshot {
            intake.unopened = intake.unopened.saturating_sub(1);
        }
        intake.tidy_due = true;
        drop(intake);
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
            self.learned = header.learned;
            if header.count > 0 {
                recent.push(Frame::new(frame, header));
            }
        }
        drop(recent);
        let mut intake = self.shared.intake();
        intake.mark_due = true;
        intake.moved = Instant::now();
        intake.commits.commits += 1;
        intake.commits.entries += entries;
        intake.commits.bytes += commit.len() as u64;
        let tidy = !intake.tidy_due && intake.wants_spare();
        intake.tidy_due |= tidy;
        self.shared.tell_room(&mut intake);
        drop(intake);
        if tidy {
            self.shared.preparer.notify_one();
        }
        // Whoever waits for a fix wakes by the watermark.
        if self.taken.fixes.as_ref().is_some_and(|(end, _)| *end <= self.watermark) {
            self.show_fixes();
        }
        self.shared.watermark.send_if_modified(|watermark| {
            let moved = *watermark != self.watermark;
            *watermark = self.watermark;
            moved
        });
    }

    fn show_fixes(&mut self) {
        if let Some((_, fixes)) = self.taken.fixes.take() {
            *self.shared.fixes() = fixes;
        }
    }

    /// Lets go of the segments that nobody needs any more.
    pub(super) fn trim(&self) {
        let Some(offset) = self.trim_to else { return };
        let mut trimmed = false;
        loop {
            let done = self.shared.segments().pop_done(offset);
            let Some(segment) = done else { break };
            self.shared.spares.discard(segment);
            trimmed = true;
        }
        if trimmed {
            self.shared.intake().retire_due = true;
            self.shared.preparer.notify_one();
        }
    }
}

impl CommitError {
    fn of(cause: io::Error) -> CommitError {
        if is_full(&cause) { CommitError::Full(cause) } else { CommitError::Failed(cause) }
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
            snapshot: frame.snapshot,
            segment: active.segment.id,
            first: frame.first,
            watermark: if seeded(Bug::WatermarkBeforeDurable) { frame.first } else { watermark },
            learned: frame.learned,
            previous,
        };
        previous = header.seal(&mut taken.bytes[frame.start..frame_end], active.segment.journal);
        headers.push(header);
    }
    (headers, previous)
}

/// Whether a later attempt may succeed where this one found no room.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
}
