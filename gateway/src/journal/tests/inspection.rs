//! What the inspection says of whole and damaged journals, beside what a start and delivery say.

use super::inspect::{FileKind, FileState, Finding, Inspection, Item, Kind, NOTE_FILE, Selection};
use super::small::{
    SMALL, SMALL_JOURNAL, as_written, commit_rows, every_kind, idle_lives, open_shaped, open_small,
    survey_small,
};
use super::*;

fn inspect(storage: &MemoryStorage) -> Inspection {
    let before = storage.digest();
    let inspection = inspect::inspect(storage).unwrap();
    assert_eq!(storage.digest(), before, "an inspection changes nothing");
    inspection
}

fn flipped(storage: &MemoryStorage, name: &str, at: usize, mask: u8) -> MemoryStorage {
    let copy = storage.fork();
    let mut bytes = storage.files().remove(name).unwrap();
    bytes[at] ^= mask;
    copy.put(name, bytes);
    copy
}

/// The frames of a segment as byte ranges with their offsets, found without any scanner.
fn frames_in(name: &str, bytes: &[u8]) -> Vec<(std::ops::Range<usize>, frame::FrameHeader)> {
    let id = SegmentId::of_file_name(name).unwrap();
    let starts = 0..bytes.len();
    let parsed =
        starts.filter_map(|at| Some((at, frame::FrameHeader::parse(&bytes[at..], id, SMALL_JOURNAL)?.0)));
    parsed.map(|(at, header)| (at..at + header.length, header)).collect()
}

fn segments(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let files = storage.files().into_iter();
    files.filter(|(name, bytes)| name.ends_with(".seg") && !frames_in(name, bytes).is_empty()).collect()
}

/// Ranges that touch as one.
fn merged(mut ranges: Vec<(Offset, Offset)>) -> Vec<(Offset, Offset)> {
    ranges.sort_unstable();
    ranges.into_iter().fold(Vec::new(), |mut merged: Vec<(Offset, Offset)>, (from, to)| {
        match merged.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
        merged
    })
}

fn ranges(findings: &[Finding]) -> Vec<(Offset, Offset)> {
    merged(findings.iter().filter_map(|finding| finding.offsets).collect())
}

/// Of ranges what is at or behind an offset.
fn behind(ranges: Vec<(Offset, Offset)>, from: Offset) -> Vec<(Offset, Offset)> {
    ranges.into_iter().map(|(a, b)| (a.max(from), b)).filter(|(a, b)| a < b).collect()
}

/// The inspection says what a start says, as far as that looks, and what delivery meets from the lowest cursor on.
fn assert_agrees(storage: &MemoryStorage, inspection: &Inspection, what: &str) {
    let survey = survey_small(storage);
    let base = survey.files.candidates.get(survey.base).map_or(Offset(0), |c| c.segment.first);
    let all: Vec<_> = inspection.damage.iter().chain(&inspection.known).cloned().collect();
    assert_eq!(behind(ranges(&all), base), merged(survey.verdict.damaged), "{what}: the start");
    let (journal, report) = open_small(&storage.fork());
    let from = journal.with_state(State::lowest_cursor).unwrap_or_default().max(inspection.first);
    let (_, met) = read_all(&journal, from);
    assert_eq!(merged(met), behind(ranges(&all), from), "{what}: delivery");
    let rows_lost: u64 =
        all.iter().filter(|f| f.offsets.is_some_and(|(_, to)| to > base)).filter_map(|f| f.rows).sum();
    assert_eq!(report.rows_lost, rows_lost, "{what}: rows");
}

#[test]
fn a_sound_journal_is_well_and_told_file_by_file() {
    let storage = every_kind();
    let inspection = inspect(&storage);
    assert!(inspection.is_well() && inspection.torn.is_none(), "{inspection:?}");
    let used = segments(&storage);
    assert!(used.len() > 3, "{} segments", used.len());
    let (mut entries, mut rows) = (0, 0);
    for file in &inspection.files {
        let Some(bytes) = used.get(&file.name) else {
            let kind = if file.name == end::END_FILE { FileKind::EndMark } else { FileKind::Spare };
            assert_eq!((file.kind, file.state), (kind, FileState::Intact), "{}", file.name);
            continue;
        };
        let frames = frames_in(&file.name, bytes);
        assert_eq!((file.kind, file.state), (FileKind::Segment, FileState::Intact));
        assert_eq!((file.first, file.end), (Some(frames[0].1.first), Some(frames[frames.len() - 1].1.end())));
        assert_eq!(
            (file.used_bytes, file.bytes),
            (frames[frames.len() - 1].0.end as u64, SMALL.segment_bytes)
        );
        assert_eq!(file.newest_snapshot, used.keys().next_back() == Some(&file.name));
        entries += file.entries;
        rows += file.rows;
    }
    assert_eq!((inspection.entries, inspection.rows), (entries, rows));
    assert_eq!(inspection.end, open_small(&storage).0.usage().end);
    assert_eq!(inspection.entries, inspection.end.0 - inspection.first.0);
}

#[test]
fn every_flipped_byte_of_what_was_written_is_damage_and_no_other_is() {
    let storage = every_kind();
    let used = segments(&storage);
    let end_mark = EndFile::read(&storage).unwrap().unwrap();
    let (mut damaged, mut harmless) = (0, 0);
    for (name, bytes) in storage.files() {
        let frames = if used.contains_key(&name) { frames_in(&name, &bytes) } else { Vec::new() };
        for at in 0..bytes.len() {
            let current = end_mark.number as usize % 2 * end::SLOT_BYTES;
            let expected = match name.as_str() {
                end::END_FILE => (current..current + end::MARK_BYTES).contains(&at),
                _ if frames.is_empty() => false,
                _ => at < segment::HEADER_BYTES || frames.iter().any(|(range, _)| range.contains(&at)),
            };
            let copy = flipped(&storage, &name, at, 1 << (at % 8));
            let inspection = inspect(&copy);
            let what = format!("{name}, byte {at}: {:?}", inspection.damage);
            assert_eq!(inspection.is_well(), !expected, "{what}");
            let [found] = &inspection.damage[..] else {
                assert!(!expected, "one byte is one finding: {what}");
                harmless += 1;
                continue;
            };
            damaged += 1;
            let place = &found.places[0];
            let (from, to) = place.bytes.expect(&what);
            assert!(place.file == name && (from..to).contains(&(at as u64)), "{what}");
            if let Some((range, header)) = frames.iter().find(|(range, _)| range.contains(&at)) {
                let expected = (header.count > 0).then(|| (header.first, header.end()));
                assert_eq!(found.offsets, expected, "{what}");
                assert!(header.count == 0 || found.rows.is_some(), "{what}");
                if *range == (range.start..range.end) && at == range.start + 9 {
                    assert_agrees(&copy, &inspection, &what);
                }
            } else {
                assert_eq!(found.offsets, None, "{what}");
            }
        }
    }
    assert!(damaged > 10_000 && harmless > 10_000, "{damaged} of {harmless}");
}

#[test]
fn a_segment_that_is_cut_anywhere_is_damaged_where_a_start_and_delivery_say() {
    let storage = every_kind();
    for (name, bytes) in segments(&storage) {
        for length in (0..bytes.len()).filter(|length| length % 61 == 0 || length % 512 < 2) {
            let copy = storage.fork();
            copy.put(&name, bytes[..length].to_vec());
            let inspection = inspect(&copy);
            let what = format!("{name} cut to {length}: {:?}", inspection.damage);
            assert!(!inspection.is_well(), "{what}");
            let is_named = |f: &Finding| f.places.iter().any(|place| place.file == name);
            assert!(inspection.damage.iter().any(is_named), "{what}");
            if length >= segment::HEADER_BYTES {
                assert!(inspection.damage.iter().any(|finding| finding.kind == Kind::Cut), "{what}");
                let report = inspection.files.iter().find(|file| file.name == name).unwrap();
                assert_eq!(report.state, FileState::Cut);
            }
            if length % 512 == 0 {
                assert_agrees(&copy, &inspection, &what);
            }
        }
    }
    for length in 0..2 * end::SLOT_BYTES {
        let copy = storage.fork();
        copy.put(end::END_FILE, storage.files()[end::END_FILE][..length].to_vec());
        assert!(inspect(&copy).damage.iter().any(|finding| finding.kind == Kind::Cut), "{length}");
    }
}

#[test]
fn a_missing_segment_is_damage_unless_it_was_trimmed() {
    let storage = every_kind();
    let names: Vec<String> = segments(&storage).into_keys().collect();
    for (at, name) in names.iter().enumerate() {
        let copy = storage.fork();
        let held = inspect(&copy).files.into_iter().find(|file| file.name == *name).unwrap();
        copy.remove(name).unwrap();
        let inspection = inspect(&copy);
        let what = format!("{name}: {:?}", inspection.damage);
        let [found] = &inspection.damage[..] else { panic!("{what}") };
        if at == 0 {
            // A start has no reason to look for it; somebody who is still to get its rows has.
            let needed = open_small(&storage).0.with_state(State::done_below).unwrap();
            assert!(needed > held.first.unwrap(), "the sample");
            assert_eq!(
                (found.kind, found.offsets),
                (Kind::Missing, Some((needed, held.end.unwrap()))),
                "{what}"
            );
            continue;
        }
        assert_eq!((found.kind, found.offsets), (Kind::Missing, held.first.zip(held.end)), "{what}");
        assert_eq!(found.rows, Some(held.rows + gaps_and_letters(&storage, &held)), "{what}");
        if at + 1 < names.len() {
            assert_eq!(found.places[0].file, *name, "{what}");
        }
        assert_agrees(&copy, &inspection, &what);
    }
}

/// Rows that gaps and letters in a file make known.
fn gaps_and_letters(storage: &MemoryStorage, file: &inspect::FileReport) -> u64 {
    let mut rows = 0;
    let id = SegmentId::of_file_name(&file.name).unwrap();
    dump(storage, Selection { from: Offset(0), to: Offset(u64::MAX), segment: Some(id.0) }, |item| {
        if let Item::Entry { entry: Ok(entry), .. } = item
            && !matches!(entry, Entry::Row(_))
        {
            rows += entry.rows_learned();
        }
        true
    });
    rows
}

fn dump(storage: &MemoryStorage, wanted: Selection, show: impl FnMut(Item<'_>) -> bool) {
    let before = storage.digest();
    inspect::dump(storage, wanted, show).unwrap();
    assert_eq!(storage.digest(), before, "a dump changes nothing");
}

#[test]
fn what_every_sink_has_passed_is_damaged_but_delivered() {
    let storage = every_kind();
    let done = open_small(&storage.fork()).0.with_state(State::done_below).unwrap();
    let (mut before, mut behind) = (0, 0);
    for (name, bytes) in segments(&storage) {
        for (range, header) in frames_in(&name, &bytes).into_iter().filter(|(_, header)| header.count > 0) {
            let inspection = inspect(&flipped(&storage, &name, range.start, 1));
            let [found] = &inspection.damage[..] else { panic!("{:?}", inspection.damage) };
            assert_eq!(found.delivered, header.end() <= done, "{found:?}");
            if found.delivered { before += 1 } else { behind += 1 }
        }
    }
    assert!(before > 0 && behind > 10, "{before} delivered, {behind} not");
}

#[test]
fn a_torn_tail_is_named_and_is_no_damage() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 0..3, "durable");
    storage.faults(|f| f.hold_syncs = true);
    submit_rows(&journal, 3, 3, &"unfinished ".repeat(60)).unwrap();
    let written = |storage: &MemoryStorage| {
        storage.files().values().any(|bytes| bytes.windows(10).any(|window| window == b"unfinished"))
    };
    while !written(&storage) {
        thread::yield_now();
    }
    let sectors = std::cell::RefCell::new(Vec::new());
    let probe = storage.power_cut(|name, sector| {
        if name.ends_with(".seg") {
            sectors.borrow_mut().push(sector);
        }
        true
    });
    drop(probe);
    let unfinished = sectors.into_inner();
    // Of several frames all but the last survive, and then all but the first.
    let (first, last) = (unfinished[0], unfinished[unfinished.len() - 1]);
    let cuts = [last, first].map(|lost| (lost, storage.power_cut(|_, sector| sector != lost)));
    storage.faults(|f| f.hold_syncs = false);
    for (lost, cut) in cuts {
        let inspection = inspect(&cut);
        assert!(inspection.is_well(), "{:?}", inspection.damage);
        let torn = inspection.torn.clone().unwrap();
        assert_eq!(inspection.end, Offset(3));
        assert!(torn.bytes.unwrap().0 <= lost as u64 * 512, "{torn:?}");
        let states: Vec<_> = inspection.files.iter().map(|file| file.state).collect();
        assert!(states.contains(&FileState::Torn), "{states:?}");

        // The next life begins a new segment, which makes what was torn superseded.
        let (journal, report) = open_small(&cut);
        assert!(report.torn_tail);
        commit_rows(&journal, 3..5, "again");
        journal.close();
        let inspection = inspect(&cut);
        assert!(inspection.is_well() && inspection.torn.is_none(), "{inspection:?}");
        assert_agrees(&cut, &inspection, "after a torn tail");
    }
}

#[test]
fn frames_that_were_written_again_elsewhere_are_no_damage_and_neither_are_their_bytes() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 0..3, "durable");
    let syncs = storage.calls_of(memory::CallKind::Sync);
    storage.plan(memory::Fault::once(memory::CallKind::Sync, syncs, io::ErrorKind::Other));
    commit_rows(&journal, 3..6, "written twice");
    assert_eq!(journal.commits().rewrites, 1);
    journal.close();
    let storage = as_written(&storage);
    let inspection = inspect(&storage);
    assert!(inspection.is_well(), "{:?}", inspection.damage);
    assert_eq!((inspection.entries, inspection.rows), (6, 6), "what was written twice counts once");
    let (name, bytes) = segments(&storage).into_iter().next().unwrap();
    let at = bytes.windows(13).position(|window| window == b"written twice").unwrap();
    let copy = flipped(&storage, &name, at, 4);
    let inspection = inspect(&copy);
    assert!(inspection.is_well(), "{:?}", inspection.damage);
    assert_agrees(&copy, &inspection, "a superseded frame");
}

#[test]
fn offsets_that_a_later_header_calls_void_are_no_damage() {
    let storage = idle_lives();
    let survey = survey_small(&storage);
    let voids = survey.files.candidates.iter().filter_map(|c| c.header).filter(|h| h.void < h.first);
    let (void, first) = voids.map(|h| (h.void, h.first)).next_back().unwrap();
    assert!(inspect(&storage).is_well());
    for (name, bytes) in segments(&storage) {
        for (range, header) in frames_in(&name, &bytes) {
            let copy = flipped(&storage, &name, range.start + 20, 1);
            let inspection = inspect(&copy);
            let what = format!("{name} at {range:?}: {:?}", inspection.damage);
            let is_void = header.count > 0 && (void..first).contains(&header.first);
            assert_eq!(inspection.is_well(), is_void, "{what}");
            assert_agrees(&copy, &inspection, &what);
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_version() {
    let storage = every_kind();
    let (name, mut bytes) = segments(&storage).into_iter().next_back().unwrap();
    bytes[8] = 9;
    let checksum = crc32c::crc32c(&bytes[..56]);
    bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
    storage.put(&name, bytes);
    let refused = inspect::inspect(&storage);
    assert!(matches!(&refused, Err(OpenError::Newer { version: 9, .. })), "{refused:?}");
}

#[test]
fn a_dump_shows_every_entry_in_order_and_damage_in_its_place() {
    let storage = every_kind();
    let all = Selection { from: Offset(0), to: Offset(u64::MAX), segment: None };
    let shown = |storage: &MemoryStorage, wanted: Selection| {
        let mut shown = Vec::new();
        dump(storage, wanted, |item| {
            shown.push(match item {
                Item::Entry { offset, entry, .. } => {
                    entry.unwrap();
                    Ok(offset)
                }
                Item::Damage(finding) => Err(finding.offsets.unwrap()),
                Item::Torn(_) => Err((Offset(0), Offset(0))),
            });
            true
        });
        shown
    };
    let inspection = inspect(&storage);
    let every: Vec<_> = (inspection.first.0..inspection.end.0).map(|offset| Ok(Offset(offset))).collect();
    assert_eq!(shown(&storage, all), every);
    let (from, to) = (inspection.first.plus(7), inspection.first.plus(12));
    assert_eq!(shown(&storage, Selection { from, to, segment: None }), every[7..12]);

    let (name, bytes) = segments(&storage).into_iter().nth(1).unwrap();
    let (range, header) = frames_in(&name, &bytes).into_iter().rfind(|(_, header)| header.count > 0).unwrap();
    let copy = flipped(&storage, &name, range.end - 1, 8);
    let lost = header.first..header.end();
    let mut expected: Vec<_> =
        every.iter().copied().filter(|o| !o.is_ok_and(|o| lost.contains(&o))).collect();
    let place = expected.iter().position(|o| *o == Ok(lost.end)).unwrap();
    expected.insert(place, Err((lost.start, lost.end)));
    assert_eq!(shown(&copy, all), expected);
    let mut left = 5;
    dump(&storage, all, |_| {
        left -= 1;
        left > 0
    });
    assert_eq!(left, 0, "whoever has enough is shown no more");
}

fn repaired(storage: &MemoryStorage) -> (MemoryStorage, inspect::Repaired) {
    let (before, copy) = (storage.digest(), MemoryStorage::new());
    let done = inspect::repair(storage, &copy).unwrap();
    assert_eq!(storage.digest(), before, "a repair leaves the original as it is");
    (copy, done)
}

#[test]
fn a_copy_of_a_damaged_journal_is_well_and_delivers_and_accounts_for_the_same() {
    let storage = every_kind();
    let mut tried = 0;
    for (name, bytes) in segments(&storage) {
        let starts = frames_in(&name, &bytes).into_iter().map(|(range, _)| range.start + 30);
        for at in starts.chain([20]) {
            let damaged = flipped(&storage, &name, at, 2);
            let (copy, done) = repaired(&damaged);
            let (original, inspection) = (inspect(&damaged), inspect(&copy));
            let what = format!("{name}, byte {at}: {:?}, {:?}", original.damage, inspection.damage);
            assert!(inspection.is_well(), "{what}");
            assert_eq!(inspection.known, done.left, "{what}");
            assert_eq!(ranges(&inspection.known), ranges(&original.damage), "{what}");
            if at == 20 {
                assert_eq!(inspection.known, [], "a header is brought back: {what}");
                assert_eq!(copy.files()[&name][..60], bytes[..60]);
            }
            let (journal, report) = open_small(&damaged.fork());
            let (again, same) = open_small(&copy);
            let from = journal.with_state(State::lowest_cursor).unwrap();
            assert_eq!(read_all(&again, from), read_all(&journal, from), "{what}");
            assert_eq!(again.with_state(State::clone), journal.with_state(State::clone), "{what}");
            assert_eq!(
                (same.rows_lost, same.damaged, same.end),
                (report.rows_lost, report.damaged, report.end)
            );

            // A start and further rows change nothing about that; further damage shows.
            let receipt = submit_rows(&again, 50, 1, "later").unwrap();
            wait_for(&again, receipt);
            // What is delivered since is the same damage still.
            for sink in ["main", "sqlite"] {
                wait_for(
                    &again,
                    again.submit(Class::Internal, |_, s| s.add_cursor(sink, receipt, &[])).unwrap().1,
                );
            }
            again.close();
            assert!(inspect(&copy).is_well(), "{what}");
            let later = segments(&copy).into_iter().find_map(|(name, bytes)| {
                let mut frames = frames_in(&name, &bytes).into_iter();
                frames
                    .find(|(_, h)| h.count > 0 && h.end() == receipt)
                    .map(|(range, header)| (name, range, header))
            });
            let (last, range, header) = later.unwrap();
            let twice = flipped(&copy, &last, range.start + 6, 1);
            let inspection = inspect(&twice);
            assert_eq!(ranges(&inspection.damage), [(header.first, header.end())], "{what}");
            let (copy, _) = repaired(&twice);
            assert!(inspect(&copy).is_well(), "a copy of a copy: {what}");
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn a_copy_of_a_cut_or_torn_journal_or_one_without_a_segment_is_well() {
    let storage = every_kind();
    for (name, bytes) in segments(&storage) {
        for length in (0..bytes.len()).step_by(300) {
            let cut = storage.fork();
            cut.put(&name, bytes[..length].to_vec());
            let (copy, _) = repaired(&cut);
            assert!(inspect(&copy).is_well(), "{name} cut to {length}");
        }
        let missing = storage.fork();
        missing.remove(&name).unwrap();
        let (copy, done) = repaired(&missing);
        assert!(inspect(&copy).is_well() && !done.left.is_empty(), "{name}");
    }
    let nothing = MemoryStorage::new();
    let refused = inspect::repair(&nothing, &MemoryStorage::new());
    assert!(matches!(refused, Err(inspect::RepairError::Nothing)), "{refused:?}");
}

#[test]
fn a_lost_header_of_any_length_is_brought_back() {
    let storage = every_kind();
    let shape = Shape { segment_bytes: 2 * SMALL.segment_bytes, ..SMALL };
    let (journal, _) = open_shaped(&storage, shape);
    commit_rows(&journal, 50..52, "in a longer segment");
    journal.close();
    for (name, bytes) in segments(&storage) {
        let (copy, done) = repaired(&flipped(&storage, &name, 50, 1));
        assert_eq!(copy.files()[&name][..segment::HEADER_BYTES], bytes[..segment::HEADER_BYTES], "{name}");
        assert_eq!(done.left, [], "{name}");
    }
}

#[test]
fn a_note_that_cannot_be_read_makes_nothing_known() {
    let storage = every_kind();
    let (name, bytes) = segments(&storage).into_iter().next_back().unwrap();
    let (range, _) = frames_in(&name, &bytes).into_iter().next_back().unwrap();
    let (copy, _) = repaired(&flipped(&storage, &name, range.start, 1));
    let note = copy.files().remove(NOTE_FILE).unwrap();
    for length in 0..note.len() - 2 {
        copy.put(NOTE_FILE, note[..length].to_vec());
        let inspection = inspect(&copy);
        assert!(inspection.note_unreadable && !inspection.is_well(), "cut to {length}");
    }
    copy.put(NOTE_FILE, note);
    assert!(inspect(&copy).is_well());
}
