//! Findings: what is damaged, where, and what that means.

use serde::{Deserialize, Serialize};

use super::walk::{Break, Side};
use super::{Facts, Walk};
use crate::journal::files::Candidate;
use crate::journal::recovery::Survey;
use crate::journal::segment::{FRAMES_AT, HEADER_BYTES, SECTOR_BYTES, SegmentId};
use crate::record::Offset;

/// Missing files that are named one by one.
const MISSING_NAMED_MAX: usize = 8;

/// One damaged range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is damaged.
    pub kind: Kind,
    /// Where; nothing where no file is left to look into.
    pub places: Vec<Place>,
    /// The lost entries, as a half-open range.
    pub offsets: Option<(Offset, Offset)>,
    /// Rows among them, where the frames around tell.
    pub rows: Option<u64>,
    /// Whether every sink has passed the lost entries, so that nobody lacks them.
    pub delivered: bool,
}

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its name.
    pub file: String,
    /// The range, half open; none if the file is missing.
    pub bytes: Option<(u64, u64)>,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Frames with entries.
    Entries,
    /// Files with entries that are not there any more.
    Missing,
    /// Frames without entries: pieces of a snapshot.
    Snapshot,
    /// The header of a segment.
    Header,
    /// A file is shorter than it says.
    Cut,
    /// The current end mark.
    EndMark,
    /// An entry in an intact frame.
    Undecodable,
}

impl Kind {
    /// What it means for whoever reads about it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::Entries => "the frames there cannot be read; the other rows are delivered",
            Kind::Missing => "no file holds these entries any more",
            Kind::Snapshot => "a snapshot of the state; no row is lost, a start reads from an older one",
            Kind::Header => "the header of the segment; no row is lost, the frames say the same",
            Kind::Cut => "the file is shorter than it was made",
            Kind::EndMark => {
                "where the journal ended; no row is lost, but damage to the last commit would not be noticed"
            }
            Kind::Undecodable => "an entry that this version cannot decode, though its checksum is right",
        }
    }
}

impl Finding {
    /// Where it belongs among other findings and frames: by file, then by position.
    pub(super) fn position(&self) -> (String, u64) {
        let place = self.places.first();
        place.map_or_else(Default::default, |p| (p.file.clone(), p.bytes.map_or(0, |(from, _)| from)))
    }

    /// Whether it is the same damage, whatever became known of it since.
    pub(super) fn is_same(&self, other: &Finding) -> bool {
        (self.kind, &self.places, self.offsets) == (other.kind, &other.places, other.offsets)
    }

    fn plain(kind: Kind, file: String, bytes: (u64, u64)) -> Finding {
        let places = vec![Place { file, bytes: Some(bytes) }];
        Finding { kind, places, offsets: None, rows: None, delivered: false }
    }
}

/// Everything that is damaged in the segments.
pub(super) fn collect(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let done = facts.survey.folded.state.done_below();
    let mut touched = vec![false; facts.walks.len()];
    for hole in &facts.holes {
        let places = facts.places(*hole, &mut touched);
        let is_there = places.iter().any(|place| place.bytes.is_some());
        findings.push(Finding {
            kind: if is_there { Kind::Entries } else { Kind::Missing },
            places,
            offsets: Some(*hole),
            rows: facts.rows_in(*hole),
            delivered: done.is_some_and(|done| hole.1 <= done),
        });
    }
    let cut = facts.empty.iter().filter(|(_, bytes)| is_cut(**bytes));
    findings.extend(cut.map(|(id, bytes)| Finding::plain(Kind::Cut, id.file_name(), (*bytes, *bytes))));
    let durable = facts.durable();
    for ((candidate, walk), touched) in facts.segments().zip(touched) {
        let (file, first) = (candidate.segment.id.file_name(), candidate.segment.first);
        let is_proven = durable > first;
        match &candidate.header {
            Some(header) if candidate.bytes < header.length => {
                findings.push(Finding::plain(Kind::Cut, file.clone(), (candidate.bytes, header.length)));
            }
            None if is_proven && (walk.frames > 0 || touched) => {
                findings.push(Finding::plain(Kind::Header, file.clone(), (0, HEADER_BYTES as u64)));
            }
            _ => {}
        }
        let breaks = walk.breaks.iter().filter(|b| is_proven && !b.is_hole(first));
        findings.extend(breaks.map(|b| Finding::plain(Kind::Snapshot, file.clone(), b.bytes)));
        findings.extend(walk.undecodable.iter().map(|(bytes, offset)| Finding {
            offsets: Some((*offset, offset.plus(1))),
            delivered: done.is_some_and(|done| *offset < done),
            ..Finding::plain(Kind::Undecodable, file.clone(), *bytes)
        }));
    }
    findings
}

/// Where something unfinished was left out at the end.
pub(super) fn torn_place(survey: &Survey, walks: &[Walk]) -> Option<Place> {
    let mut candidates = survey.files.candidates.iter().zip(walks);
    let held = candidates.rfind(|(candidate, _)| candidate.segment.first <= survey.verdict.end);
    let (candidate, walk) = held.filter(|_| survey.verdict.torn)?;
    let bytes = (walk.tail.bytes.0, candidate.bytes.max(walk.tail.bytes.0));
    Some(Place { file: candidate.segment.id.file_name(), bytes: Some(bytes) })
}

impl Facts<'_> {
    fn segments(&self) -> impl DoubleEndedIterator<Item = (&Candidate, &Walk)> {
        self.survey.files.candidates.iter().zip(self.walks)
    }

    /// Everything below was durable.
    fn durable(&self) -> Offset {
        let told = self.walks.iter().map(|walk| walk.watermark);
        let begun = self.survey.files.candidates.iter().filter_map(|c| c.header).map(|header| header.first);
        let marked = self.mark.map(|end| end.mark.watermark);
        told.chain(begun).chain(marked).max().unwrap_or_default()
    }

    /// The bytes that a hole must have been in. Notes which segments it touches.
    fn places(&self, (from, to): (Offset, Offset), touched: &mut [bool]) -> Vec<Place> {
        let candidates = &self.survey.files.candidates;
        let mut places = Vec::new();
        let Some(oldest) = candidates.first() else {
            return self.empty_between(None, None);
        };
        if from < oldest.segment.void {
            places.extend(self.empty_between(None, Some(oldest.segment.id)));
        }
        for (at, (candidate, walk)) in self.segments().enumerate() {
            let segment = &candidate.segment;
            let next = candidates.get(at + 1);
            let ends = next.map_or(to, |next| next.segment.void);
            let (first, last) = (from.max(segment.first), to.min(ends));
            if first >= last {
                continue;
            }
            let inner = walk.breaks.iter().find(|b| b.covers(first, last, segment.first));
            let mut others = Vec::new();
            if inner.is_none() && !walk.tail_has_traces {
                others = self.empty_between(Some(segment.id), next.map(|next| next.segment.id));
            }
            if others.is_empty() {
                touched[at] = true;
                let bytes = inner.unwrap_or(&walk.tail).bytes;
                others.push(Place { file: segment.id.file_name(), bytes: Some(bytes) });
            }
            places.extend(others);
        }
        places
    }

    /// Files between two segments that hold nothing, and such as are missing there. Behind the last segment there are
    /// spares, so that only those count that are too short for one.
    fn empty_between(&self, after: Option<SegmentId>, before: Option<SegmentId>) -> Vec<Place> {
        let is_behind = |id: &SegmentId| after.is_none_or(|after| *id > after);
        let behind = || self.empty.iter().filter(|(id, _)| is_behind(id));
        let may_be_spare = after.is_some() && before.is_none();
        let empty = behind().filter(|(id, bytes)| {
            before.is_none_or(|before| **id < before) && (!may_be_spare || is_cut(**bytes))
        });
        let mut places: Vec<Place> =
            empty.map(|(id, bytes)| Place { file: id.file_name(), bytes: Some((0, *bytes)) }).collect();
        let up_to = before.or_else(|| behind().next().map(|(id, _)| *id));
        if let (Some(after), Some(up_to)) = (after, up_to) {
            let absent = (after.0 + 1..up_to.0).map(SegmentId).filter(|id| !self.empty.contains_key(id));
            let absent = absent.take(MISSING_NAMED_MAX);
            places.extend(absent.map(|id| Place { file: id.file_name(), bytes: None }));
        }
        places
    }

    /// Rows in a hole: what was learned up to its end, less what was learned before it.
    fn rows_in(&self, (from, to): (Offset, Offset)) -> Option<u64> {
        let voids = self.survey.files.candidates.iter().filter_map(|candidate| candidate.header);
        let same_before = |side: Offset| {
            side == from || voids.clone().any(|header| header.first == from && header.void == side)
        };
        let same_after = |side: Offset| {
            side == to || voids.clone().any(|header| header.void == to && header.first == side)
        };
        let breaks = || self.walks.iter().flat_map(|walk| walk.breaks.iter().chain([&walk.tail]));
        let before = breaks().filter_map(|b| b.before).rfind(|side| same_before(side.offset));
        let firsts = self.walks.iter().filter_map(|walk| walk.opening);
        let after = breaks().filter_map(|b| b.after).chain(firsts).find(|side| same_after(side.offset));
        let marked = self.mark.filter(|end| end.mark.watermark == to).map(|end| end.mark.learned);
        let start = (from == Offset(0)).then_some(0);
        let learned_before = before.map(|side: Side| side.learned).or(start)?;
        after.map(|side| side.learned).or(marked)?.checked_sub(learned_before)
    }
}

/// Whether a file without header and frames is shorter than any that was made as a segment.
fn is_cut(bytes: u64) -> bool {
    bytes <= FRAMES_AT || !bytes.is_multiple_of(SECTOR_BYTES)
}

impl Break {
    /// Whether offsets are missing in it, in a segment whose first one is given.
    fn is_hole(&self, first: Offset) -> bool {
        let reached = self.before.map_or(first, |side| side.offset);
        self.after.is_none_or(|side| side.offset > reached)
    }

    /// Whether these offsets must have been here.
    fn covers(&self, from: Offset, to: Offset, first: Offset) -> bool {
        self.before.map_or(first, |side| side.offset) <= from
            && self.after.is_some_and(|side| side.offset >= to)
    }
}
