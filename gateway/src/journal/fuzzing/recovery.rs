//! Recovering any bytes never panics, comes to the same a second time, and loses no intact frame.

use std::sync::Arc;

use super::super::entry::{Fields, RowEntry};
use super::super::memory::MemoryStorage;
use super::super::recovery::{self, Recovered};
use super::super::state::NewAccounts;
use super::super::storage::Storage;
use super::super::{Entry, OpenError, RecoveryReport, State};
use super::edits;
use super::life::{Delivered, Item, Life, SHAPE, held};
use super::rescan::{self, Expected, Seen};
use super::samples::{Files, JOURNAL};
use crate::fuzzing::Feed;
use crate::record::{Offset, Value};

/// Offsets from here on are no journal's: it would have to take a million rows a second for a hundred thousand years.
const OFFSET_MAX: u64 = 1 << 62;

/// A directory, damaged as the input says.
pub fn recovery(input: &[u8]) {
    let files = edits::directory(&mut Feed::new(input));
    let storage = storage_of(&files);
    if rescan::is_newer(&files) {
        let refused = recover(&storage).map(drop);
        assert!(matches!(refused, Err(OpenError::Newer { .. })), "a newer format: {refused:?}");
        assert_eq!(storage.files(), files, "a newer format was touched");
        return;
    }
    let (seen, base) = look_twice(&files);
    if rescan::is_contradictory(&files, &seen) {
        held(recover(&storage), "recovery");
        let (life, report) = held(Life::open(&storage), "opening");
        life.read(0);
        if report.end.0 < OFFSET_MAX {
            drop(take_a_row(life, &storage));
        }
        return;
    }
    let first = held(recover(&storage), "recovery");
    let again = held(recover(&storage), "the second recovery");
    assert_eq!(again.report, first.report);
    assert_eq!(again.state, first.state);
    assert_eq!(format!("{:?}", again.segments), format!("{:?}", first.segments));
    assert_eq!(again.spares.len(), first.spares.len());
    if first.report.end.0 > OFFSET_MAX {
        return;
    }

    let (life, report) = held(Life::open(&storage), "opening");
    assert_eq!(report, first.report);
    // What is needed and lies before the oldest segment is lost with the one that held it.
    let oldest = seen.first().map_or(0, Seen::first);
    let lost_from = life.done_below().filter(|needed| seen.first().is_some_and(|s| needed.0 < s.void()));
    let from = lost_from.map_or(oldest, |needed| needed.0);
    let delivered = life.read(from);
    let expected = rescan::expect(&seen, base, rescan::mark(&files).map(|(_, watermark)| watermark));
    assert_eq!(report.end.0, expected.end, "the end of {seen:?}, read from {base:?}");
    if rescan::look(&files, true).len() > seen.len() {
        // Files behind may hold what is missing before the very end, and nothing else.
        let missing = owed(expected.missing.into_iter().collect(), &seen);
        let sought = missing.last().is_some_and(|(_, to)| *to == expected.end);
        assert!(!sought, "{missing:?} was looked for in {seen:?} alone");
    }
    everything_intact_is_delivered(&delivered, &expected, &seen);
    nothing_is_left_out_or_twice(&delivered, &report, &seen, base, from);
    it_goes_on(life, &storage, &delivered, &report);
}

fn storage_of(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    files.iter().for_each(|(name, bytes)| storage.put(name, bytes.clone()));
    storage
}

fn recover(storage: &MemoryStorage) -> Result<Recovered, OpenError> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    recovery::recover(&storage, &held(storage.list(), "the list"), SHAPE, JOURNAL)
}

/// The segments, and the id of the one from whose snapshot recovery begins. Takes over where segments without a header are
/// said to begin, and nothing else.
fn look_twice(files: &Files) -> (Vec<Seen>, Option<u64>) {
    let storage = storage_of(files);
    let names = held(storage.list(), "the list");
    let survey = held(recovery::survey(&storage, &names, SHAPE, JOURNAL), "the survey");
    assert_eq!(storage.files(), *files, "looking changes nothing");
    let candidates = &survey.files.candidates;
    let ids = |seen: &[Seen]| seen.iter().map(|segment| segment.id).collect::<Vec<_>>();
    let found: Vec<u64> = candidates.iter().map(|candidate| candidate.segment.id.0).collect();
    let plain = rescan::look(files, false);
    let mut seen = if ids(&plain) == found { plain } else { rescan::look(files, true) };
    assert_eq!(ids(&seen), found);
    for (seen, candidate) in seen.iter_mut().zip(candidates) {
        seen.begins = candidate.segment.first.0;
    }
    let base = candidates.get(survey.base).map(|candidate| candidate.segment.id.0);
    (seen, base)
}

fn everything_intact_is_delivered(delivered: &Delivered, expected: &Expected, seen: &[Seen]) {
    let frames = |first, end| delivered.items.contains(&Item::Frame(Offset(first), Offset(end)));
    for (first, end) in &expected.frames {
        assert!(
            frames(*first, *end),
            "{first}..{end} is intact and not delivered: {delivered:?} of {seen:?}"
        );
    }
    let intact = |first, end| seen.iter().flat_map(|s| &s.frames).any(|f| (f.first, f.end) == (first, end));
    for item in &delivered.items {
        if let Item::Frame(first, end) = item {
            assert!(intact(first.0, end.0), "{first}..{end} is nowhere");
        }
    }
}

/// What is delivered and what is named as damaged cover everything up to the end, and nothing twice.
fn nothing_is_left_out_or_twice(
    delivered: &Delivered,
    report: &RecoveryReport,
    seen: &[Seen],
    base: Option<u64>,
    mut at: u64,
) {
    let oldest = seen.first().map_or(0, Seen::first);
    let judged_from = seen.iter().find(|segment| Some(segment.id) == base).map_or(oldest, Seen::first);
    let mut damaged = Vec::new();
    for item in &delivered.items {
        let (Item::Frame(from, to) | Item::Damaged(from, to)) = *item;
        // Of what is void nobody needs to be told.
        while at < from.0
            && let Some(next) = void_from(seen, at)
        {
            at = next;
        }
        match item {
            Item::Frame(..) => assert!(from.0 <= at && at < to.0, "{item:?} at {at} in {delivered:?}"),
            Item::Damaged(..) => {
                assert!(from.0 == at && at < to.0, "{item:?} at {at} in {delivered:?}");
                damaged.push((from.0.max(judged_from), to.0));
            }
        }
        at = to.0;
    }
    while at < report.end.0
        && let Some(next) = void_from(seen, at)
    {
        at = next;
    }
    assert_eq!(at, report.end.0.max(oldest.min(at)), "{delivered:?}");
    let reported = report.damaged.iter().map(|(from, to)| (from.0, to.0)).collect();
    assert_eq!(owed(damaged, seen), owed(reported, seen), "{delivered:?} of {seen:?}");
}

/// The parts of ranges of which somebody is owed anything, neighbours joined.
fn owed(ranges: Vec<(u64, u64)>, seen: &[Seen]) -> Vec<(u64, u64)> {
    let mut owed: Vec<(u64, u64)> = Vec::new();
    for (mut from, to) in ranges {
        while from < to {
            if let Some(next) = void_from(seen, from) {
                from = next;
                continue;
            }
            let voids = seen.iter().filter_map(|segment| segment.header).map(|(_, void)| void);
            let end = voids.filter(|void| *void > from).min().unwrap_or(to).min(to);
            match owed.last_mut() {
                Some((_, before)) if *before == from => *before = end,
                _ => owed.push((from, end)),
            }
            from = end;
        }
    }
    owed
}

/// Where it goes on behind `at` if a header says that nobody is owed anything there.
fn void_from(seen: &[Seen], at: u64) -> Option<u64> {
    seen.iter()
        .filter_map(|segment| segment.header)
        .find(|(first, void)| (*void..*first).contains(&at))
        .map(|(first, _)| first)
}

/// A journal that was damaged takes a row and keeps it, and keeps what it had.
fn it_goes_on(life: Life, storage: &MemoryStorage, before: &Delivered, first: &RecoveryReport) {
    let done_below = life.done_below().unwrap_or_default();
    let (written, now) = take_a_row(life, storage);
    let (life, report) = held(Life::open(storage), "opening once more");
    assert_eq!(report.end, written.end);
    // Rows that are told to be lost where nothing is missing: no journal writes that.
    if first.rows_lost == 0 || !first.damaged.is_empty() {
        assert_eq!(life.state(), written.state, "the state after another start");
    }
    let later = life.read(0);
    for (when, read) in [("now", &now), ("later", &later)] {
        let place = Offset(written.end.0 - 1);
        assert_eq!(read.owed.get(&place), Some(&written.row), "the row is not there, {when}");
        for (offset, entry) in before.owed.range(done_below..) {
            assert_eq!(read.owed.get(offset), Some(entry), "{offset} is gone, {when}");
        }
    }
}

/// What was written into a journal.
struct Written {
    row: Vec<u8>,
    end: Offset,
    state: State,
}

/// Writes a row, and reads everything while the journal is still open.
fn take_a_row(mut life: Life, storage: &MemoryStorage) -> (Written, Delivered) {
    let fields = [("v".to_owned(), Value::Integer(1))];
    let state = life.state();
    let device = state.account("after", &mut NewAccounts::default());
    let entry = Entry::Row(RowEntry {
        device,
        boot: 0,
        sequence: state.next_number(device),
        stamped: false,
        series: "after",
        ns: 1,
        fields: Fields::of(&fields),
    });
    let mut row = Vec::new();
    held(entry.encode(&mut row), "the row");
    let end = held(life.submit(|_, submission| submission.add(&entry)), "a row");
    life.commit(true);
    let (state, now) = (life.state(), life.read(0));
    drop(life);
    held(Life::open(storage), "opening");
    (Written { row, end, state }, now)
}
