//! Which frames stand: the decisions of recovery's table, over what was found and nothing else.

use super::bugs::{Bug, seeded};
use super::files::Candidate;
use crate::record::Offset;

/// What the frames behind the snapshot come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Behind the last entry that stands.
    pub(super) end: Offset,
    /// Entries that were durable and are lost, as half-open ranges in order.
    pub(super) damaged: Vec<(Offset, Offset)>,
    /// Whether something was left out that was never finished.
    pub(super) torn: bool,
}

/// Forgets frames that a later segment replaces.
pub(super) fn drop_superseded(candidates: &mut [Candidate]) {
    if seeded(Bug::OldCopyAfterRewrite) {
        return;
    }
    let mut limit = Offset(u64::MAX);
    for candidate in candidates.iter_mut().rev() {
        candidate.frames.retain(|found| found.header.first < limit && found.header.end() <= limit);
        limit = limit.min(candidate.segment.first);
    }
}

/// Decides which entries stand. `marked` is the watermark of the end mark.
pub(super) fn judge(candidates: &[Candidate], marked: Option<Offset>) -> Verdict {
    let Some(first) = candidates.first() else {
        let end = marked.filter(|_| !seeded(Bug::OffsetsBeginAnew)).unwrap_or_default();
        let damaged = if end > Offset(0) { vec![(Offset(0), end)] } else { Vec::new() };
        return Verdict { end, damaged, torn: false };
    };
    let durable = proven_durable(candidates, marked);
    let mut verdict = Verdict { end: first.segment.first, ..Verdict::default() };
    // Everything below is the end of a submission, or was durable.
    let mut whole = verdict.end;
    'frames: for candidate in candidates {
        for found in &candidate.frames {
            let header = &found.header;
            if header.first > verdict.end {
                let to = if seeded(Bug::TrustAnyHole) { header.first } else { header.first.min(durable) };
                if to > verdict.end && !seeded(Bug::StopAtDamage) {
                    verdict.damaged.push((verdict.end, to));
                    (verdict.end, whole) = (to, to);
                }
                if header.first > verdict.end {
                    verdict.torn = true;
                    break 'frames;
                }
            }
            verdict.end = verdict.end.max(header.end());
            if header.complete || verdict.end <= durable || seeded(Bug::HalfSubmission) {
                whole = verdict.end;
            }
        }
    }
    verdict.torn |= whole < verdict.end;
    verdict.end = whole;
    if durable > verdict.end {
        verdict.damaged.push((verdict.end, durable));
        verdict.end = durable;
    }
    verdict.damaged = without_void(verdict.damaged, candidates);
    verdict
}

/// Holes without the offsets that a later header calls void: whatever became of those, nobody is owed them.
pub(super) fn without_void(holes: Vec<(Offset, Offset)>, candidates: &[Candidate]) -> Vec<(Offset, Offset)> {
    let voids = candidates.iter().filter_map(|c| c.header).map(|header| (header.void, header.first));
    voids.filter(|(void, first)| void < first).fold(holes, |holes, (void, first)| {
        let parts = holes.into_iter().flat_map(|(from, to)| [(from, to.min(void)), (from.max(first), to)]);
        parts.filter(|(from, to)| from < to).collect()
    })
}

fn proven_durable(candidates: &[Candidate], marked: Option<Offset>) -> Offset {
    let told = candidates.iter().flat_map(|c| &c.frames).map(|found| found.header.watermark);
    let begun = candidates.iter().filter_map(|c| c.header).map(|header| header.first);
    told.chain(begun).chain(marked).max().unwrap_or_default()
}
