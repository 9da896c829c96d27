//! Inspection: what a journal holds and what is damaged in it, found by reading all of it and changing nothing.
//!
//! * In: the files of a journal, most often of one that no gateway has open.
//! * Out: a line for each file, and each damaged range with what it means (`cli/journal.rs` prints them).
//!
//! Constraint: for entries the verdict is the one that a start comes to. So what is behind the newest snapshot is judged
//! by recovery itself ([`recovery::survey`]), and only what a start does not look at is judged here: everything before
//! that snapshot is known to be durable, so that each hole in it is damage.
//!
//! Operation: a segment is walked from front to back (`walk.rs`). Each frame carries the checksum of the one before it,
//! and the first one that of the header; so a frame that is gone shows by the next one, even where it held no entries.
//! At the end of a segment the offsets of what follows tell, in the last one the end mark (`end_mark.rs`). From holes in
//! the offsets and breaks in the chain come the findings (`finding.rs`):
//!
//! | found | verdict |
//! |---|---|
//! | a hole in the offsets that was durable | damage, with the rows that it held, as the frames around it tell |
//! | the same, which every sink has passed | damage, but delivered: nobody lacks anything |
//! | a cursor below the oldest segment, unless an entry that moved it on may be lost | damage: files are missing that somebody still needs |
//! | a break in the chain without a hole | damage to a snapshot; no row is lost |
//! | an unreadable header of a segment that holds something durable | damage; no row is lost |
//! | a file shorter than its header or its format says | damage, with whatever holes it makes |
//! | an unreadable slot that held the current end mark | damage; no row is lost, but the end cannot be told any more |
//! | an intact frame with an entry that nobody can decode | damage |
//! | a hole in offsets that a later header calls void; frames that a later segment replaces | none |
//! | something unfinished at the end | a torn tail, which is named, and no damage |
//! | wrong bytes anywhere else | none: nobody reads them |
//! | what a repair has found before, byte for byte the same (`note.rs`) | known, and no damage any more |
//!
//! Failure: a file that cannot be read ends the inspection with its name. While a gateway runs, files change under the
//! eye; so what looks damaged then counts only if a second look finds it too (`directory.rs`).

mod directory;
mod dump;
mod end_mark;
mod finding;
mod note;
mod repair;
mod walk;

use std::collections::BTreeMap;

use serde::Serialize;

use super::end::{END_FILE, EndRead};
use super::files::Candidate;
use super::frame::FrameHeader;
use super::judge;
use super::recovery::{self, Survey};
use super::segment::{FRAMES_AT, SegmentId};
use super::spare::FILLING;
use super::{Frame, JournalId, LOCK_FILE, OpenError, Shape, Storage};
use crate::record::Offset;
use walk::Walk;

pub use directory::{Looked, Unlocked, look, storage};
pub use dump::{Item, Selection, dump};
pub use finding::{Finding, Kind, Place};
pub use note::NOTE_FILE;
pub use repair::{RepairError, Repaired, repair};

/// Length by which the limits of a state are reckoned here; they do not matter to what is found.
const SEGMENT_BYTES: u64 = 16 << 20;

/// What a journal holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Its identity.
    pub journal: JournalId,
    /// Its files, by name.
    pub files: Vec<FileReport>,
    /// Offset of the first entry that is kept.
    pub first: Offset,
    /// Where it goes on.
    pub end: Offset,
    /// Frames that stand, pieces of snapshots included.
    pub frames: u64,
    /// Entries in them.
    pub entries: u64,
    /// Rows among these.
    pub rows: u64,
    /// Rows made known in the life of the journal.
    pub learned: u64,
    /// What is damaged, in the order of the files.
    pub damage: Vec<Finding>,
    /// What is damaged and was left behind by a repair, which has told of it.
    pub known: Vec<Finding>,
    /// Where something was left unfinished that nobody was promised.
    pub torn: Option<Place>,
    /// Whether there is a note of a repair that cannot be read.
    pub note_unreadable: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes up to the end of what stands in it.
    pub used_bytes: u64,
    /// Offset of the first entry of a segment.
    pub first: Option<Offset>,
    /// Offset behind its last entry.
    pub end: Option<Offset>,
    /// Entries that stand in it.
    pub entries: u64,
    /// Rows among them.
    pub rows: u64,
    /// Whether its snapshot is the one that a start begins with.
    pub newest_snapshot: bool,
    /// How it is.
    pub state: FileState,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Holds entries.
    Segment,
    /// Has the name of a coming segment and holds nothing.
    Spare,
    /// Tells where the journal ended.
    EndMark,
    /// Keeps a second gateway out.
    Lock,
    /// Tells what a repair could not bring back.
    RepairNote,
    /// Somebody else's.
    Other,
}

/// How a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// As it was written.
    Intact,
    /// Something in it was written and is lost.
    Damaged,
    /// Shorter than it says.
    Cut,
    /// Nothing of it stands: later segments replace it.
    Superseded,
    /// Its end was left unfinished.
    Torn,
    /// A repair could not bring all of it back.
    Repaired,
}

/// All that is known while the findings are put together.
struct Facts<'a> {
    survey: &'a Survey,
    walks: &'a [Walk],
    /// Entries that were durable and are lost, from the oldest segment on.
    holes: Vec<(Offset, Offset)>,
    mark: Option<EndRead>,
    /// Files that have the name of a segment and hold nothing.
    empty: &'a BTreeMap<SegmentId, u64>,
}

impl Inspection {
    /// Whether nothing is damaged but what a repair has told of.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Whether there are any files of a journal.
///
/// # Errors
/// The directory cannot be read.
pub fn has_files(storage: &dyn Storage) -> std::io::Result<bool> {
    Ok(storage.list()?.iter().any(|name| name == END_FILE || SegmentId::of_file_name(name).is_some()))
}

/// Reads everything and says what is there.
///
/// # Errors
/// A file cannot be read, or a newer program wrote it.
pub fn inspect(storage: &dyn Storage) -> Result<Inspection, OpenError> {
    let names = storage.list().map_err(|cause| unreadable("the directory", cause))?;
    let survey = survey(storage, &names)?;
    let candidates = &survey.files.candidates;
    let walks = walk_all(&survey, |_, _, _| Ok::<_, OpenError>(()))?;
    let mark = survey.files.end.filter(|end| end.journal == survey.folded.state.journal());
    let empty = empty_files(storage, &names, candidates)?;
    let holes = all_holes(&survey, &walks);
    let facts = Facts { survey: &survey, walks: &walks, holes, mark, empty: &empty };
    let mut findings = finding::collect(&facts);
    findings.extend(end_mark::examine(storage, &survey)?);
    findings.sort_by_key(Finding::position);
    let note = note::read(storage)?;
    let accepted = note.as_deref().unwrap_or_default();
    let is_known = |finding: &Finding| accepted.iter().any(|known| known.is_same(finding));
    let (known, damage): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_known);
    let torn = finding::torn_place(&survey, &walks);
    let mut inspection = Inspection {
        journal: survey.folded.state.journal(),
        files: Vec::new(),
        first: candidates.first().map_or(survey.verdict.end, |oldest| oldest.segment.first),
        end: survey.verdict.end,
        frames: walks.iter().map(|walk| walk.frames).sum(),
        entries: walks.iter().map(|walk| walk.entries).sum(),
        rows: walks.iter().map(|walk| walk.rows).sum(),
        learned: survey.folded.state.learned(),
        damage,
        known,
        torn,
        note_unreadable: note.is_none(),
    };
    inspection.files = report_files(storage, names, &survey, &walks, &inspection)?;
    Ok(inspection)
}

/// A sink that a journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSink {
    /// Its name.
    pub name: String,
    /// Rows that it is still to get.
    pub owed: u64,
    /// Rows that it has confirmed.
    pub confirmed: u64,
}

/// The sinks that a journal knows. This reads no more than a start does.
///
/// # Errors
/// A file cannot be read, or is of a newer version.
pub fn sinks(storage: &dyn Storage) -> Result<Vec<KnownSink>, OpenError> {
    let names = storage.list().map_err(|cause| unreadable("the directory", cause))?;
    let state = survey(storage, &names)?.folded.state;
    let known = state.sinks().iter().map(|sink| KnownSink {
        name: sink.name.to_string(),
        owed: state.owed(&sink.name),
        confirmed: state.confirmed_by_device(&sink.name).map(|(_, rows)| rows).fold(0, u64::saturating_add),
    });
    Ok(known.collect())
}

/// What recovery makes of the journal.
fn survey(storage: &dyn Storage, names: &[String]) -> Result<Survey, OpenError> {
    recovery::survey(storage, names, Shape::of(SEGMENT_BYTES), JournalId(0))
}

/// Walks through all segments, and shows each standing frame.
fn walk_all<E: From<OpenError>>(
    survey: &Survey,
    mut visit: impl FnMut(usize, u64, &Frame) -> Result<(), E>,
) -> Result<Vec<Walk>, E> {
    let candidates = &survey.files.candidates;
    let standing = Standing::of(survey);
    let walk = |(at, candidate): (usize, &Candidate)| {
        let stands = |header: &FrameHeader| standing.stands(at, header);
        walk::walk(candidate, stands, |position, frame| visit(at, position, frame))
    };
    candidates.iter().enumerate().map(walk).collect()
}

/// Which frames stand.
struct Standing {
    /// For each segment the offset at which a later one takes over.
    limits: Vec<Offset>,
    end: Offset,
}

impl Standing {
    fn of(survey: &Survey) -> Standing {
        let mut limit = Offset(u64::MAX);
        let limits = survey.files.candidates.iter().rev().map(|candidate| {
            let own = limit;
            limit = limit.min(candidate.segment.first);
            own
        });
        let mut limits: Vec<Offset> = limits.collect();
        limits.reverse();
        Standing { limits, end: survey.verdict.end }
    }

    fn stands(&self, segment: usize, header: &FrameHeader) -> bool {
        header.first < self.limits[segment] && header.end() <= self.end
    }
}

/// Everything durable that is lost: before the oldest segment, before the newest snapshot, and behind it.
fn all_holes(survey: &Survey, walks: &[Walk]) -> Vec<(Offset, Offset)> {
    let candidates = &survey.files.candidates;
    let mut holes = Vec::new();
    if let Some(oldest) = candidates.first() {
        // What is lost behind the snapshot may have moved a cursor on.
        let is_exact = survey.verdict.damaged.is_empty() && !survey.snapshot_lost;
        let needed =
            survey.folded.state.done_below().filter(|needed| is_exact && *needed < oldest.segment.void);
        holes.extend(needed.map(|needed| (needed, oldest.segment.void)));
        let mut end = oldest.segment.first;
        let mut reach = |first: Offset, to: Offset| {
            holes.extend((first > end).then_some((end, first)));
            end = end.max(to);
        };
        for walk in &walks[..survey.base] {
            walk.runs.iter().for_each(|(first, to)| reach(*first, *to));
        }
        let base = candidates[survey.base].segment.first;
        reach(base, base);
    }
    let mut holes = judge::without_void(holes, candidates);
    holes.extend(&survey.verdict.damaged);
    holes
}

/// Files that are named as segments and are none.
fn empty_files(
    storage: &dyn Storage,
    names: &[String],
    candidates: &[Candidate],
) -> Result<BTreeMap<SegmentId, u64>, OpenError> {
    let ids = names.iter().filter_map(|name| SegmentId::of_file_name(name));
    let empty = ids.filter(|id| !candidates.iter().any(|c| c.segment.id == *id));
    empty.map(|id| Ok((id, length(storage, &id.file_name())?))).collect()
}

fn report_files(
    storage: &dyn Storage,
    mut names: Vec<String>,
    survey: &Survey,
    walks: &[Walk],
    inspection: &Inspection,
) -> Result<Vec<FileReport>, OpenError> {
    names.sort();
    let candidates = &survey.files.candidates;
    let report = |name: String| {
        let place = candidates.iter().position(|c| c.segment.id.file_name() == name);
        let kind = match (place, name.as_str()) {
            (Some(_), _) => FileKind::Segment,
            (None, END_FILE) => FileKind::EndMark,
            (None, LOCK_FILE) => FileKind::Lock,
            (None, NOTE_FILE) => FileKind::RepairNote,
            (None, FILLING) => FileKind::Spare,
            (None, name) if SegmentId::of_file_name(name).is_some() => FileKind::Spare,
            _ => FileKind::Other,
        };
        let mut report = FileReport {
            bytes: length(storage, &name)?,
            name,
            kind,
            used_bytes: 0,
            first: None,
            end: None,
            entries: 0,
            rows: 0,
            newest_snapshot: false,
            state: FileState::Intact,
        };
        if let Some(at) = place {
            let (segment, walk) = (&candidates[at].segment, &walks[at]);
            report.used_bytes = walk.tail.bytes.0;
            report.first = Some(segment.first);
            report.end = Some(walk.runs.last().map_or(segment.first, |(_, end)| *end));
            (report.entries, report.rows) = (walk.entries, walk.rows);
            report.newest_snapshot = at == survey.base && !survey.snapshot_lost;
            if walk.frames == 0 && walk.tail.bytes.0 == FRAMES_AT {
                report.state = FileState::Superseded;
            }
        }
        report.state = inspection.state_of(&report);
        Ok(report)
    };
    names.into_iter().map(report).collect()
}

impl Inspection {
    fn state_of(&self, file: &FileReport) -> FileState {
        let concerns = |finding: &&Finding| finding.places.iter().any(|place| place.file == file.name);
        let mut damage = self.damage.iter().filter(concerns).peekable();
        if damage.peek().is_some() {
            let cut = damage.any(|finding| finding.kind == Kind::Cut);
            return if cut { FileState::Cut } else { FileState::Damaged };
        }
        if self.known.iter().any(|finding| concerns(&finding)) {
            return FileState::Repaired;
        }
        if self.torn.as_ref().is_some_and(|torn| torn.file == file.name) {
            return FileState::Torn;
        }
        file.state
    }
}

fn length(storage: &dyn Storage, name: &str) -> Result<u64, OpenError> {
    let length = storage.open(name).and_then(|file| file.length());
    length.map_err(|cause| unreadable(name, cause))
}

fn unreadable(what: &str, cause: std::io::Error) -> OpenError {
    OpenError::Unreadable { what: what.into(), cause }
}
