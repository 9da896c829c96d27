//! Repair: a copy that holds everything that stands, and tells of what does not.
//!
//! Constraint: no row may vanish from the ledger. A start counts lost rows by the hole that they left: by its offsets, by
//! what the frames around it have learned, and by the numbers of the next rows. So holes stay holes.
//!
//! Operation: each frame that stands is copied as it is, to the same place in a new file of the same name and length;
//! what is damaged, torn or replaced is left out and reads as zeros. A header that cannot be read is put together from
//! what the other files say until the checksum that the first frame carries on fits; if nothing fits, one is made that
//! says what the frames say. The end mark is written anew for the end that recovery finds. What the copy still lacks goes
//! into a note (`note.rs`), by which `verify` knows it.
//!
//! Failure: the copy is recovered once, and must come to the same state, end and holes as the original does; otherwise
//! it is called useless. The original is only read.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::finding::Finding;
use super::walk::Walk;
use super::{Inspection, inspect, note, survey, walk_all};
use crate::journal::end::{EndFile, EndMark};
use crate::journal::recovery::Survey;
use crate::journal::scan::Scanner;
use crate::journal::segment::{FRAMES_AT, SegmentHeader, sector_up};
use crate::journal::storage::StorageFile;
use crate::journal::{OpenError, Storage};

/// Zeros written at once.
const STRIDE_BYTES: u64 = 1 << 20;

/// What a repair has done.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// Segments in the copy.
    pub segments: u64,
    /// Frames, entries and rows in it.
    pub frames: u64,
    /// Entries in these.
    pub entries: u64,
    /// Rows among them.
    pub rows: u64,
    /// What was damaged in the original.
    pub damage: Vec<Finding>,
    /// What the copy still lacks, as its note says.
    pub left: Vec<Finding>,
}

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The original cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to copy.
    #[error("there is nothing to repair: no segment of the journal is left")]
    Nothing,
    /// The copy cannot be written.
    #[error("cannot write {file}: {cause}; make room, and try again")]
    Write {
        /// What could not be written.
        file: String,
        /// Why.
        cause: io::Error,
    },
    /// The copy comes to something else than the original.
    #[error(
        "the copy does not come to the same as the original ({0} differs), which is a fault of this program; use the original: it starts, and delivers what is intact"
    )]
    Differs(&'static str),
}

/// Copies a journal into an empty storage.
///
/// # Errors
/// See [`RepairError`]. The original is as it was.
pub fn repair(from: &dyn Storage, to: &dyn Storage) -> Result<Repaired, RepairError> {
    let original = inspect(from)?;
    let names = from.list().map_err(|cause| super::unreadable("the directory", cause))?;
    let survey = survey(from, &names)?;
    if survey.files.candidates.is_empty() {
        return Err(RepairError::Nothing);
    }
    let copied = write_copy(&original, &survey, to);
    if copied.is_err() {
        // Half a copy could pass for a journal that lost the rest. What cannot be removed is named by the error.
        for name in to.list().unwrap_or_default() {
            drop(to.remove(&name));
        }
    }
    let copy = copied?;
    let is_segment = |file: &&super::FileReport| file.kind == super::FileKind::Segment;
    Ok(Repaired {
        segments: copy.files.iter().filter(is_segment).count() as u64,
        frames: copy.frames,
        entries: copy.entries,
        rows: copy.rows,
        damage: original.damage,
        left: copy.damage,
    })
}

/// Writes the copy, looks at it as a start would, and says what it holds.
fn write_copy(original: &Inspection, survey: &Survey, to: &dyn Storage) -> Result<Inspection, RepairError> {
    copy_segments(survey, to)?;
    let journal = survey.folded.state.journal();
    let mark = EndMark { watermark: survey.verdict.end, learned: survey.folded.state.learned() };
    let write_mark = || EndFile::open(to, journal, None, mark).map(drop);
    write_mark().map_err(|cause| RepairError::Write { file: super::END_FILE.into(), cause })?;

    let copy = inspect(to)?;
    check(survey, original, to, &copy)?;
    if !copy.damage.is_empty() {
        let failed = |cause| RepairError::Write { file: note::NOTE_FILE.into(), cause };
        note::write(to, copy.damage.clone()).map_err(failed)?;
    }
    Ok(copy)
}

/// Whether a start on the copy comes to what a start on the original comes to.
fn check(
    original: &Survey,
    inspection: &Inspection,
    to: &dyn Storage,
    copy: &Inspection,
) -> Result<(), RepairError> {
    let names = to.list().map_err(|cause| super::unreadable("the copy", cause))?;
    let again = survey(to, &names)?;
    let lost = |inspection: &Inspection| {
        let findings = inspection.damage.iter().chain(&inspection.known);
        let mut lost: Vec<_> = findings.filter_map(|finding| finding.offsets).collect();
        lost.sort_unstable();
        lost
    };
    let same = [
        ("the state", again.folded.state == original.folded.state),
        ("the end", again.verdict.end == original.verdict.end),
        ("what is lost", again.verdict.damaged == original.verdict.damaged && lost(inspection) == lost(copy)),
        ("what is kept", (copy.entries, copy.rows) == (inspection.entries, inspection.rows)),
        ("the end, which is torn,", !again.verdict.torn),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(RepairError::Differs(what)),
        None => Ok(()),
    }
}

fn copy_segments(survey: &Survey, to: &dyn Storage) -> Result<(), RepairError> {
    let candidates = &survey.files.candidates;
    let walks = walk_all(survey, |_, _, _| Ok::<_, OpenError>(()))?;
    let name = |at: usize| candidates[at].segment.id.file_name();
    let failed = |at: usize| move |cause| RepairError::Write { file: name(at), cause };
    let mut files = Vec::new();
    for (at, (candidate, walk)) in candidates.iter().zip(&walks).enumerate() {
        // Without header and frames it holds nothing.
        let holds_anything = candidate.header.is_some() || walk.frames > 0;
        let file = holds_anything.then(|| begin(survey, at, walk, to)).transpose();
        files.push(file.map_err(failed(at))?);
    }
    walk_all(survey, |at, position, frame| {
        let file = files[at].as_ref();
        file.map_or(Ok(()), |file| file.write_at(frame.as_bytes(), position)).map_err(failed(at))
    })?;
    for (at, file) in files.iter().enumerate() {
        file.as_ref().map_or(Ok(()), |file| file.sync()).map_err(failed(at))?;
    }
    to.sync_directory().map_err(|cause| RepairError::Write { file: "the directory".into(), cause })
}

/// Makes the file of a segment: its header, and zeros.
fn begin(survey: &Survey, at: usize, walk: &Walk, to: &dyn Storage) -> io::Result<Arc<dyn StorageFile>> {
    let header = header_of(survey, at, walk)?;
    let file = to.create(&header.segment.file_name())?;
    let zeros = vec![0; STRIDE_BYTES.min(header.length) as usize];
    let mut filled = 0;
    while filled < header.length {
        let length = (header.length - filled).min(STRIDE_BYTES) as usize;
        file.write_at(&zeros[..length], filled)?;
        filled += length as u64;
    }
    file.write_at(&header.encode().0, 0)?;
    Ok(file)
}

/// The header of a segment: its own, or what it must have been, or one that says what its frames say.
fn header_of(survey: &Survey, at: usize, walk: &Walk) -> io::Result<SegmentHeader> {
    let candidates = &survey.files.candidates;
    let (candidate, segment) = (&candidates[at], &candidates[at].segment);
    if let Some(header) = candidate.header {
        return Ok(header);
    }
    let lengths = || candidates.iter().filter_map(|other| other.header).map(|header| header.length);
    let with = |length: u64, features: u8| SegmentHeader {
        journal: survey.folded.state.journal(),
        segment: segment.id,
        first: segment.first,
        void: segment.first,
        length,
        early: features & 1 != 0,
        shared: features & 2 != 0,
        boots: features & 4 != 0,
    };
    let first = Scanner::new(segment).next()?.filter(|found| found.at == FRAMES_AT);
    let carried = first.map(|found| found.header.previous);
    let fits = |header: &SegmentHeader| carried == Some(header.encode().1);
    let least = sector_up(walk.tail.bytes.0).max(candidate.bytes);
    // Who allows early entries, shared points and boots where there are none keeps out no more than older gateways.
    let made = with(lengths().next_back().unwrap_or_default().max(least), 7);
    let tried =
        lengths().chain([candidate.bytes]).flat_map(|length| (0..8).map(move |features| (length, features)));
    let tried = tried.map(|(length, features)| with(length, features));
    Ok(tried.into_iter().find(fits).unwrap_or(made))
}
