//! Recovery: from whatever is on disk to a state and an end to go on from.
//!
//! Operation: everything is synced before it is trusted, because after a kill the page cache may hold what the disk does
//! not, and then read from the disk, because after a failed sync it may hold what no later one writes. The newest intact snapshot gives the state; the frames behind it are gone through in order, and this table
//! decides (`judge.rs`):
//!
//! | found | decided |
//! |---|---|
//! | no file | a new journal |
//! | an intact header of a newer format | refused, nothing touched |
//! | zeros or another segment's header, and no frame of the file's own where the first one belongs | has not begun |
//! | a file that has not begun | a spare, under a new name; removed, if a later one has begun or it has another length than is wanted |
//! | a file that was being filled | removed; what has no name of the journal's is left alone |
//! | an unreadable header before frames of the file's own | a segment that begins with the first frame that is left |
//! | a file shorter than its header says | cut; what is missing is judged as any hole is |
//! | the newest snapshot is not intact | the one before, and everything since is folded |
//! | no intact snapshot | everything that is left is folded, and that is reported |
//! | a frame that begins where the one before ended | taken |
//! | a frame with the number of another segment | of an earlier life of the file: passed over |
//! | a frame at or beyond the first offset of a later segment | unfinished in an earlier life, or rewritten: passed over |
//! | offsets that a later header calls void | nobody is owed them: passed over, and no damage if they are lost |
//! | a hole that is proven durable | damage: reported, passed over, the frames behind it are taken |
//! | any other hole | a torn tail: reported, what lies behind it was never acknowledged and is left out |
//! | the end within a submission | a torn tail as well: the submission is left out |
//! | no frame where durable entries are proven | damage up to there |
//! | an end mark and no segment | damage from the beginning up to the mark |
//! | an end mark that is missing, damaged or of another journal | proves nothing |
//! | an entry in an intact frame that cannot be decoded | passed over |
//! | last segments that nobody is owed anything of | idle: the header of the next one calls them void |
//! | any other last segment that is whole, without any sign of more behind its end | gone on with, behind that end |
//!
//! Each row has a test in `tests/table.rs`.
//!
//! *Proven durable* is everything below a watermark that an intact frame or the end mark carries, or below the first
//! offset in the intact header of a later segment, since all are written only after the sync of what they speak of.
//!
//! Rows in a hole are counted (`fold.rs`), and every sink still owes them: delivery, when it comes to the hole, declares
//! them as gaps. Nothing is written but the removal of files that hold nothing, so that doing it again comes to the same
//! result. The last segment is gone on with only if nothing was left out in it ([`resume`]); else the first submission
//! opens a new one, whose first offset hides what was left out.

use std::io;
use std::sync::Arc;

use super::bugs::{Bug, begins_anew, seeded};
use super::end::EndRead;
use super::files::{Candidate, Files, unreadable};
use super::fold::{self, Folded};
use super::frame::Frame;
use super::judge::{self, Verdict};
use super::pending::{Shape, Tail};
use super::scan::{Found, Scanner};
use super::segment::{FRAMES_AT, SECTOR_BYTES, Segment, SegmentId, Segments, sector_up};
use super::spare::Spare;
use super::storage::Storage;
use super::writer::Active;
use super::{JournalId, OpenError, RecoveryReport, State};
use crate::record::Offset;

/// How many segments at the end are looked through for whether anybody is owed anything of them.
const IDLE_LOOKED_AT: usize = 4;

/// What recovery arrived at.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) segments: Segments,
    pub(super) spares: Vec<Spare>,
    /// Id of the next file that is made.
    pub(super) next: SegmentId,
    pub(super) tail: Tail,
    /// The segment that is gone on with.
    pub(super) active: Option<Active>,
    pub(super) end: Option<EndRead>,
    pub(super) report: RecoveryReport,
}

/// What is known of the journal, before anything was changed.
pub(super) struct Survey {
    pub(super) files: Files,
    /// Place of the segment whose snapshot the state begins with.
    pub(super) base: usize,
    pub(super) verdict: Verdict,
    pub(super) folded: Folded,
    pub(super) snapshot_lost: bool,
}

/// Opens what is there, in the wanted shape as far as that holds the state.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    names: &[String],
    shape: Shape,
    new_id: JournalId,
) -> Result<Recovered, OpenError> {
    let mut survey = survey(&**storage, names, shape, new_id)?;
    // A snapshot must fit, even if `max_bytes` has shrunk since.
    let state_bytes = survey.folded.state.to_bytes().map_or(0, |bytes| bytes.len() as u64);
    let least = (4 * state_bytes).next_multiple_of(SECTOR_BYTES);
    let shape = Shape { segment_bytes: shape.segment_bytes.max(least), ..shape };
    let is_idle = mark_idle(&mut survey).map_err(|(id, cause)| unreadable(id, cause))?;
    // Going on in a segment that is idle would keep those before it, and lives without an end to them fill a journal.
    let active = if is_idle { None } else { resume(&survey, shape) };
    let Survey { files, verdict, folded, snapshot_lost, .. } = survey;
    let state = folded.state;
    let mut spares = files.spares;
    let mut useless = files.useless;
    spares.retain(|(id, file)| {
        let serves = file.length().is_ok_and(|length| length == shape.segment_bytes);
        if !serves {
            useless.push(id.file_name());
        }
        serves
    });
    for name in useless {
        // A file that cannot be removed is in nobody's way.
        drop(storage.remove(&name));
    }
    let (spares, next) = rename_spares(&**storage, spares, files.next);
    let report = RecoveryReport {
        end: verdict.end,
        entries: folded.entries,
        rows_lost: folded.rows_lost,
        damaged: verdict.damaged,
        torn_tail: verdict.torn,
        snapshot_lost,
    };
    report.log();
    let mut segments = Segments::default();
    files.candidates.into_iter().for_each(|candidate| segments.insert(candidate.segment));
    // A tail that is full makes the first submission open a segment.
    let at = active.as_ref().map_or(shape.segment_bytes, |active| active.at);
    let early = active.as_ref().is_some_and(|active| active.segment.early);
    let shared = active.as_ref().is_some_and(|active| active.segment.shared);
    let boots = active.as_ref().is_some_and(|active| active.segment.boots);
    let tail = Tail { end: verdict.end, at, early, shared, boots, shape };
    Ok(Recovered { state, segments, spares, next, tail, active, end: files.end, report })
}

/// The last segment, to go on with where it ends. Frames that may lie behind that end must never come to life, so there
/// must be none; and what the file holds there must be what the medium has, as a sync that succeeded has shown.
fn resume(survey: &Survey, shape: Shape) -> Option<Active> {
    let Candidate { segment, header, frames, bytes } = survey.files.candidates.last()?;
    let last = frames.iter().rfind(|found| found.header.end() <= survey.verdict.end)?;
    let wanted = header.filter(|header| header.length == *bytes && *bytes == shape.segment_bytes);
    let nothing_missing = frames.first()?.at == FRAMES_AT
        && frames.windows(2).all(|pair| pair[0].header.end() == pair[1].header.first)
        && survey.verdict.damaged.iter().all(|(_, to)| *to <= segment.first);
    let nothing_more = last.header.complete && frames.last()?.header.end() == survey.verdict.end;
    let whole = segment.snapshot && segment.sound && nothing_missing && nothing_more && !survey.verdict.torn;
    if wanted.is_none() || begins_anew() || !whole && !seeded(Bug::AppendBehindOldTail) {
        return None;
    }
    Some(Active { segment: segment.clone(), at: sector_up(last.end_at()), previous: last.checksum })
}

/// Gives spares durable names that no file has had yet, or removes them.
fn rename_spares(storage: &dyn Storage, found: Vec<Spare>, mut next: SegmentId) -> (Vec<Spare>, SegmentId) {
    if seeded(Bug::SpareKeepsItsName) {
        return (found, next);
    }
    let (mut spares, mut useless) = (Vec::new(), Vec::new());
    for (id, file) in found {
        if storage.rename(&id.file_name(), &next.file_name()).is_ok() {
            spares.push((next, file));
            next = next.next();
        } else {
            useless.push(id);
        }
    }
    if !spares.is_empty() && storage.sync_directory().is_err() {
        useless.extend(spares.drain(..).map(|(id, _)| id));
    }
    for id in useless {
        // It is in nobody's way, but for its room.
        drop(storage.remove(&id.file_name()));
    }
    (spares, next)
}

/// Looks at everything and decides what stands, without changing anything but what the page cache has not written yet.
pub(super) fn survey(
    storage: &dyn Storage,
    names: &[String],
    shape: Shape,
    new_id: JournalId,
) -> Result<Survey, OpenError> {
    let mut files = Files::open(storage, names)?;
    loop {
        let survey = judge_files(files, shape, new_id)?;
        files = survey.files;
        // Entries that were durable are missing at the end: what looks as if it had not begun may hold them.
        let missing = survey.verdict.damaged.last().is_some_and(|(_, to)| *to == survey.verdict.end);
        if !missing || !files.search_spares()? {
            return Ok(Survey { files, ..survey });
        }
    }
}

fn judge_files(mut files: Files, shape: Shape, new_id: JournalId) -> Result<Survey, OpenError> {
    let known = files.journal;
    let device_bytes_max = usize::try_from(shape.segment_bytes / 4).unwrap_or(usize::MAX);
    let (base, snapshot) = find_snapshots(&mut files.candidates, device_bytes_max)?;
    let without_snapshot = snapshot.is_none();
    let state = snapshot.unwrap_or_else(|| State::new(known.unwrap_or(new_id), device_bytes_max));
    for candidate in &mut files.candidates[base..] {
        candidate.frames = scan(&candidate.segment, usize::MAX)?;
    }
    let mark = files.end.filter(|end| known.is_none_or(|known| known == end.journal)).map(|end| end.mark);
    judge::drop_superseded(&mut files.candidates[base..]);
    let verdict = judge::judge(&files.candidates[base..], mark.map(|mark| mark.watermark));
    let folded = fold::fold(state, &files.candidates[base..], &verdict, mark)
        .map_err(|(id, cause)| unreadable(id, cause))?;
    // A first segment that was left unfinished never told anything.
    let snapshot_lost = without_snapshot && verdict.end > Offset(0);
    Ok(Survey { files, base, verdict, folded, snapshot_lost })
}

/// The first intact frames of a segment, at most `count`.
pub(super) fn scan(segment: &Segment, count: usize) -> Result<Vec<Found>, OpenError> {
    let mut scanner = Scanner::new(segment);
    let mut frames = Vec::new();
    while frames.len() < count
        && let Some(found) = scanner.next().map_err(|e| unreadable(segment.id, e))?
    {
        frames.push(found);
    }
    Ok(frames)
}

/// The newest intact snapshot and the place of its segment; the oldest segment if there is none. Notes where the two
/// newest are, since nothing may be trimmed that would leave less than two.
fn find_snapshots(
    candidates: &mut [Candidate],
    device_bytes_max: usize,
) -> Result<(usize, Option<State>), OpenError> {
    let mut newest = None;
    for (at, candidate) in candidates.iter_mut().enumerate().rev() {
        let read = read_snapshot(&candidate.segment, device_bytes_max);
        if let Some(state) = read.map_err(|e| unreadable(candidate.segment.id, e))? {
            candidate.segment.snapshot = true;
            if newest.is_some() {
                break;
            }
            newest = Some((at, state));
        } else if seeded(Bug::OnlyNewestSnapshot) {
            break;
        }
    }
    Ok(newest.map_or((0, None), |(at, state)| (at, Some(state))))
}

/// The snapshot that a segment begins with.
pub(super) fn read_snapshot(segment: &Segment, device_bytes_max: usize) -> io::Result<Option<State>> {
    let mut scanner = Scanner::new(segment);
    let mut bytes = Vec::new();
    let mut expected = 0;
    while let Some(found) = scanner.next()? {
        let frame: Frame = scanner.frame(&found)?;
        let Some((part, parts, piece)) = frame.piece().filter(|_| found.header.snapshot) else { break };
        if part != expected {
            break;
        }
        bytes.extend_from_slice(piece);
        expected += 1;
        if expected == parts {
            return Ok(State::from_bytes(&bytes, device_bytes_max));
        }
    }
    Ok(None)
}

/// Notes which of the last segments nobody is owed anything of: they need not stay. True if there are any.
fn mark_idle(survey: &mut Survey) -> Result<bool, (SegmentId, io::Error)> {
    let damaged = &survey.verdict.damaged;
    let mut any = false;
    for candidate in survey.files.candidates.iter_mut().rev().take(IDLE_LOOKED_AT) {
        let segment = &candidate.segment;
        if candidate.header.is_none() || damaged.iter().any(|(_, to)| *to > segment.first) {
            break;
        }
        if fold::is_owed_anything(segment).map_err(|cause| (segment.id, cause))? {
            break;
        }
        candidate.segment.idle = true;
        any = true;
    }
    Ok(any)
}
