//! Damage to a journal that was closed cleanly: every truncation of every file, every byte of every file.
//!
//! The oracle here knows which frame lies where: damage may cost the frames that it hits and no entry more, must be
//! named by their offsets, and elsewhere changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::life::{Life, Profile};
use super::model::View;
use super::names::Rng;
use super::tap::{Known, Tap};
use crate::journal::entry::Entry;
use crate::journal::memory::MemoryStorage;
use crate::journal::scan::Scanner;
use crate::journal::segment::FRAMES_AT;
use crate::journal::{JournalId, Read, Reader, RecoveryReport, Shared, State};
use crate::record::Offset;

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { at: usize, bits: u8 },
    Cut { bytes: usize },
}

/// A journal that was closed cleanly, and what it is known to hold.
pub(super) struct Sample {
    profile: Profile,
    files: BTreeMap<String, Vec<u8>>,
    view: Arc<View>,
    end: u64,
    state: State,
    segments: Vec<Placed>,
}

/// A segment and what stands of it.
struct Placed {
    file: String,
    first: u64,
    void: u64,
    /// Where its snapshot lies; empty if it has none.
    snapshot: Range<usize>,
    /// Where its frames lie, and their entries.
    frames: Vec<(Range<usize>, Range<u64>)>,
}

/// What an open journal says.
struct Told {
    report: RecoveryReport,
    state: State,
    read: BTreeSet<u64>,
    damaged: BTreeSet<u64>,
}

impl Sample {
    /// The journal that a workload of so many steps leaves.
    pub(super) fn new(seed: u64, steps: usize) -> Result<Sample, String> {
        let profile = Profile::of(seed);
        let tap = Tap::new(MemoryStorage::with_capacity(1 << 30), Known::default(), false);
        let mut life = Life::open(tap, profile, Rng(seed))?;
        for _ in 0..steps {
            if !life.over {
                life.step()?;
            }
        }
        let (storage, known) = life.close()?;
        let tap = Tap::new(storage.after_kill(), known, false);
        let opened = Life::open(tap.clone(), profile, Rng(seed))?;
        let shared = opened.shared();
        let segments = placed(shared);
        let state = shared.intake().state.clone();
        let known = tap.known();
        Ok(Sample {
            profile,
            files: tap.inner().files(),
            view: known.view,
            end: known.acked,
            state,
            segments,
        })
    }

    /// Tries every damage; returns how many there were.
    pub(super) fn try_all(&self) -> Result<u64, String> {
        let mut tried = 0;
        for (file, bytes) in &self.files {
            for at in 0..bytes.len() {
                let flips = [0x01, 0x80, 0xff].map(|bits| Damage::Flip { at, bits });
                for damage in flips.into_iter().chain([Damage::Cut { bytes: at }]) {
                    self.judge(file, damage).map_err(|trouble| format!("{file}, {damage:?}: {trouble}"))?;
                    tried += 1;
                }
            }
        }
        Ok(tried)
    }

    pub(super) fn describe(&self) -> String {
        let frames: usize = self.segments.iter().map(|segment| segment.frames.len()).sum();
        let (files, segments) = (self.files.len(), self.segments.len());
        format!("{files} files, {segments} segments, {frames} frames, {} entries", self.end)
    }

    fn judge(&self, file: &str, damage: Damage) -> Result<(), String> {
        let storage = MemoryStorage::with_capacity(1 << 30);
        for (name, bytes) in &self.files {
            let mut bytes = bytes.clone();
            match damage {
                _ if name != file => {}
                Damage::Flip { at, bits } => bytes[at] ^= bits,
                Damage::Cut { bytes: length } => bytes.truncate(length),
            }
            storage.put(name, bytes);
        }
        let hit = |range: &Range<usize>| match damage {
            Damage::Flip { at, .. } => range.contains(&at),
            Damage::Cut { bytes } => bytes < range.end,
        };
        let told = self.open(&storage)?;
        self.judge_told(file, &told, hit)?;
        let again = self.open(&storage)?;
        if (&again.report, &again.state) != (&told.report, &told.state) {
            return Err(format!("a second recovery says {:?} after {:?}", again.report, told.report));
        }
        Ok(())
    }

    fn judge_told(&self, file: &str, told: &Told, hit: impl Fn(&Range<usize>) -> bool) -> Result<(), String> {
        let Told { report, state, read, damaged } = told;
        let damage = self.segments.iter().find(|segment| segment.file == file);
        let lost: BTreeSet<u64> = damage
            .into_iter()
            .flat_map(|segment| segment.frames.iter().filter(|(place, _)| hit(place)))
            .flat_map(|(_, offsets)| offsets.clone())
            .collect();
        let header_hit = |segment: &Placed| segment.file == file && hit(&(0..60));
        let snapshot_hit =
            |segment: &Placed| segment.snapshot.is_empty() || segment.file == file && hit(&segment.snapshot);
        let base = self.segments.iter().rev().find(|segment| !snapshot_hit(segment));
        let only_snapshot = self.segments.iter().filter(|s| !s.snapshot.is_empty()).count() < 2;
        if report.snapshot_lost && !(only_snapshot && self.segments[0].first == 0) {
            return Err("no snapshot is left".into());
        }
        if report.end.0 != self.end {
            return Err(format!("it ends at {} instead of {}", report.end, self.end));
        }
        let from = self.view.facts(self.end).needed_from();
        let void = |offset: u64| self.segments.iter().any(|s| (s.void..s.first).contains(&offset));
        for offset in from..self.end {
            let told = (read.contains(&offset), damaged.contains(&offset));
            let expected = (!lost.contains(&offset), lost.contains(&offset));
            // What was written twice, because a sync failed, may be left in the file that was given up.
            let copied = lost.contains(&offset) && told == (true, false);
            if told != expected && !copied && !void(offset) {
                return Err(format!("entry {offset} is read, named as damaged: {told:?}, not {expected:?}"));
            }
        }
        let named: BTreeSet<u64> = report.damaged.iter().flat_map(|(from, to)| from.0..to.0).collect();
        let base = base.map_or(0, |base| base.first);
        let expected: BTreeSet<u64> = lost.iter().copied().filter(|offset| *offset >= base).collect();
        let doubtful = |offset: &u64| {
            void(*offset) && self.segments.iter().any(header_hit)
                || expected.contains(offset) && !damaged.contains(offset)
        };
        if !named.symmetric_difference(&expected).all(doubtful) {
            return Err(format!("{:?} is reported as damaged, not {expected:?}", report.damaged));
        }
        let rows: u64 = self
            .view
            .entries_from(0)
            .filter(|(offset, _)| named.contains(offset))
            .map(|(_, told)| Entry::decode(&told.body).map_or(0, |entry| entry.rows_learned()))
            .sum();
        if report.rows_lost != rows {
            return Err(format!("{} rows are reported as lost, not {rows}", report.rows_lost));
        }
        let total = |d: &crate::journal::state::DeviceState| d.rows + d.letters + d.gaps.total();
        let sum: u64 = state.devices().iter().map(total).sum();
        if state.learned() != self.state.learned() || sum != state.learned() {
            return Err(format!("of {} rows {sum} are accounted for", self.state.learned()));
        }
        if named.is_empty() && *state != self.state {
            return Err(format!("the state is {state:?} instead of {:?}", self.state));
        }
        Ok(())
    }

    fn open(&self, storage: &MemoryStorage) -> Result<Told, String> {
        let Profile { options, shape, .. } = &self.profile;
        let opened = Shared::open(Arc::new(storage.clone()), options, *shape, JournalId(1));
        let (shared, _, report) = opened.map_err(|cause| format!("it does not open: {cause}"))?;
        let state = shared.intake().state.clone();
        let from = self.view.facts(self.end).needed_from();
        let (mut read, mut damaged) = (BTreeSet::new(), BTreeSet::new());
        let mut reader = Reader::new(Arc::clone(&shared), Offset(from));
        loop {
            match reader.next().map_err(|cause| cause.to_string())? {
                Read::Wait => break,
                Read::Damaged { from, to } => damaged.extend(from.0..to.0),
                Read::Frame(frame) => {
                    for (offset, entry) in frame.entries() {
                        let submitted = self.view.entries_from(offset.0).next();
                        let same = submitted.is_some_and(|(at, told)| {
                            at == offset.0 && Entry::decode(&told.body).as_ref() == entry.as_ref()
                        });
                        if !same || offset.0 >= from && !read.insert(offset.0) {
                            return Err(format!(
                                "entry {offset} is not what was submitted, or read twice: {entry:?}"
                            ));
                        }
                    }
                }
            }
        }
        Ok(Told { report, state, read, damaged })
    }
}

/// Where everything lies that stands.
fn placed(shared: &Shared) -> Vec<Placed> {
    let segments: Vec<_> = shared.segments().iter().cloned().collect();
    let mut limit = u64::MAX;
    let mut placed = Vec::new();
    for segment in segments.iter().rev() {
        let mut scanner = Scanner::new(segment);
        let at = FRAMES_AT as usize;
        let (mut snapshot, mut frames) = (at..at, Vec::new());
        while let Some(found) = scanner.next().unwrap() {
            let place = found.at as usize..found.at as usize + found.header.length;
            if found.header.snapshot {
                snapshot.end = place.end;
            } else if found.header.first.0 < limit {
                frames.push((place, found.header.first.0..found.header.end().0));
            }
        }
        limit = limit.min(segment.first.0);
        let (file, first, void) = (segment.id.file_name(), segment.first.0, segment.void.0);
        placed.push(Placed { file, first, void, snapshot, frames });
    }
    placed.reverse();
    placed
}
