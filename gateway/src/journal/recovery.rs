//! Recovery: from whatever is on disk to a state and an end to go on from.
//!
//! Operation: everything is synced before it is trusted, because after a kill the page cache may hold what the disk does
//! not. The newest intact snapshot gives the state; the frames behind it are gone through in order:
//!
//! | found | decided |
//! |---|---|
//! | no file | a new journal |
//! | an intact header of a newer format | refused, nothing touched |
//! | no intact snapshot | everything that is left is folded, and that is reported |
//! | a frame that begins where the one before ended | taken |
//! | a frame at or beyond the first offset of a later segment | never finished in an earlier life: passed over |
//! | a hole that is proven durable | damage: reported, passed over, the frames behind it are taken |
//! | any other hole | a torn tail: reported, what lies behind it was never acknowledged and is left out |
//! | the end within a submission | a torn tail as well: the submission is left out |
//! | no frame where durable entries are proven | damage up to there |
//!
//! *Proven durable* is everything below a watermark that an intact frame carries, or below the first offset in the intact
//! header of a later segment, since both are written only after the sync of what they speak of.
//!
//! Nothing is written but the removal of files that hold nothing, and nothing is ever appended to an old segment: the first submission opens a new one, whose first
//! offset hides what was left out. Doing it again therefore comes to the same result.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tracing::warn;

use super::entry::Entry;
use super::pending::Tail;
use super::scan::{Found, Scanner};
use super::segment::{HeaderRead, Segment, SegmentHeader, SegmentId, Segments};
use super::storage::Storage;
use super::{JournalId, OpenError, RecoveryReport, State};
use crate::record::Offset;

/// What recovery arrived at.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) segments: Segments,
    pub(super) tail: Tail,
    pub(super) report: RecoveryReport,
}

/// A segment as it was found.
struct Candidate {
    segment: Segment,
    header: Option<SegmentHeader>,
    frames: Vec<Found>,
}

/// What the frames behind the snapshot come to.
#[derive(Default)]
struct Verdict {
    end: Offset,
    damaged: Vec<(Offset, Offset)>,
    torn: bool,
}

/// Opens what is there. `device_bytes_max` and `segment_bytes` follow from the options, the latter being a minimum.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    names: &[String],
    segment_bytes: u64,
    new_id: JournalId,
) -> Result<Recovered, OpenError> {
    let ids: Vec<SegmentId> = names.iter().filter_map(|name| SegmentId::of_file_name(name)).collect();
    let mut candidates = open_candidates(&**storage, &ids)?;
    let known = candidates.iter().rev().find_map(|c| c.header).map(|header| header.journal);
    let device_bytes_max = usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX);

    let (base, snapshot) = find_snapshot(&candidates, device_bytes_max)?;
    let snapshot_lost = snapshot.is_none() && !candidates.is_empty();
    let mut state = snapshot.unwrap_or_else(|| State::new(known.unwrap_or(new_id), device_bytes_max));
    for candidate in &mut candidates[base..] {
        candidate.frames = scan(&candidate.segment, usize::MAX)?;
    }
    drop_unfinished(&mut candidates[base..]);
    let verdict = judge(&candidates[base..]);
    let entries = fold(&mut state, &candidates[base..], verdict.end)?;

    let next_segment = ids.iter().max().map_or(SegmentId(1), |id| id.next());
    // A snapshot must fit, even if `max_bytes` has shrunk since.
    let state_bytes = state.to_bytes().map_or(0, |bytes| bytes.len() as u64);
    let segment_bytes = segment_bytes.max((4 * state_bytes).next_multiple_of(super::segment::SECTOR_BYTES));
    let tail = Tail { end: verdict.end, at: segment_bytes, segment_bytes, next_segment };
    let report = RecoveryReport {
        end: verdict.end,
        entries,
        damaged: verdict.damaged,
        torn_tail: verdict.torn,
        snapshot_lost,
    };
    report.log();
    let mut segments = Segments::default();
    candidates.into_iter().for_each(|candidate| segments.insert(candidate.segment));
    Ok(Recovered { state, segments, tail, report })
}

/// Opens and syncs every segment; refuses those of a newer program before anything else is done.
fn open_candidates(storage: &dyn Storage, ids: &[SegmentId]) -> Result<Vec<Candidate>, OpenError> {
    let mut candidates = BTreeMap::new();
    for &id in ids {
        let opened = storage.open(&id.file_name()).and_then(|file| {
            let length = file.length()?;
            let header = SegmentHeader::read(&*file, id)?;
            Ok((file, length, header))
        });
        let (file, length, header) = opened.map_err(|e| unreadable(id, e))?;
        let header = match header {
            HeaderRead::Intact(header) => Some(header),
            HeaderRead::Unknown => None,
            HeaderRead::Newer { version, features } => {
                return Err(OpenError::Newer { file: id.file_name(), version, features });
            }
        };
        let first = header.map_or(Offset(0), |header| header.first);
        let segment = Segment { id, first, length, file };
        candidates.insert(id, Candidate { segment, header, frames: Vec::new() });
    }
    let mut standing = Vec::new();
    for mut candidate in candidates.into_values() {
        candidate.segment.file.sync().map_err(|e| unreadable(candidate.segment.id, e))?;
        if candidate.header.is_none() {
            let Some(found) = scan(&candidate.segment, 1)?.pop() else {
                // It was named and never begun, or nothing of it is left. Nobody would ever trim it.
                drop(storage.remove(&candidate.segment.id.file_name()));
                continue;
            };
            candidate.segment.first = found.header.first;
        }
        standing.push(candidate);
    }
    if !standing.is_empty() {
        storage
            .sync_directory()
            .map_err(|source| OpenError::Unreadable { what: "the directory".into(), source })?;
    }
    Ok(standing)
}

/// The first intact frames of a segment, at most `count`.
fn scan(segment: &Segment, count: usize) -> Result<Vec<Found>, OpenError> {
    let mut scanner = Scanner::new(segment);
    let mut frames = Vec::new();
    while frames.len() < count
        && let Some(found) = scanner.next().map_err(|e| unreadable(segment.id, e))?
    {
        frames.push(found);
    }
    Ok(frames)
}

/// The newest intact snapshot and the place of its segment; the oldest segment if there is none.
fn find_snapshot(
    candidates: &[Candidate],
    device_bytes_max: usize,
) -> Result<(usize, Option<State>), OpenError> {
    for (at, candidate) in candidates.iter().enumerate().rev() {
        let read = read_snapshot(&candidate.segment, device_bytes_max);
        if let Some(state) = read.map_err(|e| unreadable(candidate.segment.id, e))? {
            return Ok((at, Some(state)));
        }
    }
    Ok((0, None))
}

fn read_snapshot(segment: &Segment, device_bytes_max: usize) -> io::Result<Option<State>> {
    let mut scanner = Scanner::new(segment);
    let mut bytes = Vec::new();
    let mut expected = 0;
    while let Some(found) = scanner.next()? {
        let frame = scanner.frame(&found)?;
        for (_, entry) in frame.entries() {
            match entry {
                Ok(Entry::Snapshot(piece)) if piece.part == expected => {
                    bytes.extend_from_slice(piece.bytes);
                    expected += 1;
                    if expected == piece.parts {
                        return Ok(State::from_bytes(&bytes, device_bytes_max));
                    }
                }
                _ => return Ok(None),
            }
        }
    }
    Ok(None)
}

/// Forgets frames that a later segment replaces.
fn drop_unfinished(candidates: &mut [Candidate]) {
    let mut limit = Offset(u64::MAX);
    for candidate in candidates.iter_mut().rev() {
        candidate.frames.retain(|found| found.header.first < limit);
        limit = limit.min(candidate.segment.first);
    }
}

/// Decides which entries stand, by the table above.
fn judge(candidates: &[Candidate]) -> Verdict {
    let Some(first) = candidates.first() else { return Verdict::default() };
    let frames = || candidates.iter().flat_map(|c| &c.frames);
    let told = frames().map(|found| found.header.watermark);
    let begun = candidates.iter().filter_map(|c| c.header).map(|header| header.first);
    let durable = told.chain(begun).max().unwrap_or_default();

    let mut verdict = Verdict { end: first.segment.first, ..Verdict::default() };
    let mut whole = verdict.end;
    for found in frames() {
        let header = &found.header;
        if header.first > verdict.end {
            let to = header.first.min(durable);
            if to > verdict.end {
                verdict.damaged.push((verdict.end, to));
                verdict.end = to;
                whole = to;
            }
            if header.first > verdict.end {
                verdict.torn = true;
                break;
            }
        }
        verdict.end = verdict.end.max(header.end());
        if header.complete || verdict.end <= durable {
            whole = verdict.end;
        }
    }
    verdict.torn |= whole < verdict.end;
    verdict.end = whole;
    if durable > verdict.end {
        verdict.damaged.push((verdict.end, durable));
        verdict.end = durable;
    }
    verdict
}

/// Applies what stands to the state, and returns how many entries that were.
fn fold(state: &mut State, candidates: &[Candidate], end: Offset) -> Result<u64, OpenError> {
    let mut entries = 0;
    for candidate in candidates {
        let mut scanner = Scanner::new(&candidate.segment);
        for found in candidate.frames.iter().filter(|found| found.header.end() <= end) {
            scanner.rewind(found);
            let frame = scanner.frame(found).map_err(|e| unreadable(candidate.segment.id, e))?;
            for (offset, entry) in frame.entries() {
                match entry {
                    Ok(entry) => state.apply(&entry),
                    Err(cause) => warn!(%offset, %cause, "a journal entry is passed over"),
                }
                entries += 1;
            }
        }
    }
    Ok(entries)
}

fn unreadable(segment: SegmentId, source: io::Error) -> OpenError {
    OpenError::Unreadable { what: segment.file_name(), source }
}
