//! The dump: every entry that stands, in order, and what is damaged in its place among them.

use super::{Inspection, Kind, inspect, survey, unreadable, walk_all};
use crate::journal::entry::Undecodable;
use crate::journal::segment::SegmentId;
use crate::journal::{Entry, OpenError, Storage};
use crate::record::Offset;

use super::finding::{Finding, Place};

/// Which entries are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// The first offset.
    pub from: Offset,
    /// The offset behind the last one.
    pub to: Offset,
    /// Only this segment, by its number.
    pub segment: Option<u64>,
}

/// What a dump shows.
#[derive(Debug)]
pub enum Item<'a> {
    /// An entry.
    Entry {
        /// Its offset.
        offset: Offset,
        /// The number of its segment.
        segment: u64,
        /// The entry, with its time where that is fixed, unless it cannot be decoded.
        entry: Result<Entry<'a>, Undecodable>,
    },
    /// Something is damaged here.
    Damage(&'a Finding),
    /// What comes behind is unfinished, and nobody was promised anything of it.
    Torn(&'a Place),
}

/// Shows everything that is wanted, until `show` returns false.
///
/// # Errors
/// As [`inspect`].
pub fn dump(
    storage: &dyn Storage,
    wanted: Selection,
    mut show: impl FnMut(Item<'_>) -> bool,
) -> Result<(), OpenError> {
    let inspection = inspect(storage)?;
    let names = storage.list().map_err(|cause| unreadable("the directory", cause))?;
    let survey = survey(storage, &names)?;
    let mut damage = Damage::of(&inspection, wanted);
    let fixes = survey.folded.state.clocks().fixes();
    let mut goes_on = true;
    walk_all(&survey, |at, position, frame| {
        let id = survey.files.candidates[at].segment.id;
        if !goes_on || frame.end() <= wanted.from && frame.end() > frame.first() || frame.first() >= wanted.to
        {
            return Ok(());
        }
        goes_on = damage.show_up_to(Some(&(id.file_name(), position)), &mut show);
        if wanted.segment.is_some_and(|segment| segment != id.0) {
            return Ok(());
        }
        for (offset, entry) in frame.entries().filter(|(o, _)| (wanted.from..wanted.to).contains(o)) {
            let entry = entry.map(|entry| fixes.date(entry));
            goes_on = goes_on && show(Item::Entry { offset, segment: id.0, entry });
        }
        Ok::<_, OpenError>(())
    })?;
    goes_on = goes_on && damage.show_up_to(None, &mut show);
    if let Some(torn) = inspection.torn.filter(|_| goes_on && wanted.to > inspection.end) {
        show(Item::Torn(&torn));
    }
    Ok(())
}

/// Damage that is still to be shown, in the order of the files.
struct Damage {
    findings: std::iter::Peekable<std::vec::IntoIter<Finding>>,
}

impl Damage {
    fn of(inspection: &Inspection, wanted: Selection) -> Damage {
        let is_wanted = |finding: &&Finding| {
            let in_range = finding.offsets.is_none_or(|(from, to)| to > wanted.from && from < wanted.to);
            let file = wanted.segment.map(|segment| SegmentId(segment).file_name());
            let in_file = file.is_none_or(|file| finding.places.iter().any(|place| place.file == file));
            // An entry that cannot be decoded is shown as such.
            in_range && in_file && finding.kind != Kind::Undecodable
        };
        let findings = inspection.damage.iter().chain(&inspection.known).filter(is_wanted);
        let mut findings: Vec<Finding> = findings.cloned().collect();
        findings.sort_by_key(Finding::position);
        Damage { findings: findings.into_iter().peekable() }
    }

    /// Shows what is before a place, or everything.
    fn show_up_to(&mut self, place: Option<&(String, u64)>, show: &mut impl FnMut(Item<'_>) -> bool) -> bool {
        while let Some(finding) =
            self.findings.next_if(|finding| place.is_none_or(|place| finding.position() < *place))
        {
            if !show(Item::Damage(&finding)) {
                return false;
            }
        }
        true
    }
}
