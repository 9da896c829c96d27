//! The decision table of recovery, row by row, as the doc of `recovery.rs` has it.

use super::end::{END_FILE, EndMark, EndRead};
use super::frame::FrameHeader;
use super::memory::{CallKind, Fault};
use super::segment::{HeaderRead, SegmentHeader};
use super::small::{SMALL, SMALL_JOURNAL, as_written, commit_rows, idle_lives, open_small, survey_small};
use super::spare::FILLING;
use super::*;

/// Where the first mark of a journal is.
const SLOT: usize = end::SLOT_BYTES;

/// A byte of the first piece of a segment's snapshot.
const SNAPSHOT: usize = segment::FRAMES_AT as usize + 4;

fn name(id: u64) -> String {
    SegmentId(id).file_name()
}

/// A closed journal of `lives` lives with rows of 100 bytes, `rows` in each.
fn lives(lives: u64, rows: u64) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for life in 0..lives {
        let (journal, _) = open_small(&storage);
        commit_rows(&journal, life * rows..(life + 1) * rows, &"x".repeat(100));
        journal.close();
    }
    storage
}

/// The segments that have begun, in order.
fn begun(storage: &MemoryStorage) -> Vec<u64> {
    survey_small(storage).files.candidates.iter().map(|c| c.segment.id.0).collect()
}

fn edit(storage: &MemoryStorage, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = storage.files().remove(name).unwrap();
    change(&mut bytes);
    storage.put(name, bytes);
}

/// The frames of a segment with entries in them, as byte ranges.
fn frames(storage: &MemoryStorage, id: u64) -> Vec<(std::ops::Range<usize>, FrameHeader)> {
    let bytes = storage.files().remove(&name(id)).unwrap();
    let found = (0..bytes.len())
        .filter_map(|at| Some((at, FrameHeader::parse(&bytes[at..], SegmentId(id), SMALL_JOURNAL)?.0)));
    found.filter(|(_, h)| h.count > 0).map(|(at, header)| (at..at + header.length, header)).collect()
}

/// What is found when the journal is opened: sequences of rows, and the report.
fn opened(storage: &MemoryStorage) -> (Vec<u64>, RecoveryReport) {
    let (journal, report) = open_small(&storage.fork());
    (read_all(&journal, Offset(0)).0.into_values().collect(), report)
}

fn without_damage(storage: &MemoryStorage, rows: std::ops::Range<u64>) {
    let (found, report) = opened(storage);
    assert_eq!(found, rows.collect::<Vec<_>>());
    assert_eq!((report.damaged, report.torn_tail, report.snapshot_lost), (vec![], false, false));
}

#[test]
fn no_file_is_a_new_journal() {
    let storage = MemoryStorage::new();
    let survey = survey_small(&storage);
    assert_eq!(survey.verdict, judge::Verdict::default());
    assert_eq!((survey.folded.state.journal(), survey.snapshot_lost), (JournalId(1), false));
    without_damage(&storage, 0..0);
}

#[test]
fn an_intact_header_of_a_newer_format_is_refused_and_nothing_is_touched() {
    for (at, byte) in [(8, 2), (12, 8), (12, 15)] {
        let storage = lives(2, 3);
        edit(&storage, &name(begun(&storage)[0]), |bytes| {
            bytes[at] = byte;
            let checksum = crc32c::crc32c(&bytes[..56]);
            bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
        });
        let before = storage.digest();
        let refused = recovery::survey(&storage, &storage.list().unwrap(), SMALL, JournalId(1));
        assert!(matches!(refused.map(drop), Err(OpenError::Newer { .. })));
        assert_eq!(storage.digest(), before);
    }
}

#[test]
fn an_intact_end_mark_of_a_newer_format_is_refused_and_nothing_is_touched() {
    let newer = |version: u8| {
        let storage = lives(2, 3);
        edit(&storage, END_FILE, |bytes| {
            for slot in bytes.chunks_mut(SLOT).filter(|slot| slot[0] != 0) {
                slot[8] = version;
                let checksum = crc32c::crc32c(&slot[..48]);
                slot[48..52].copy_from_slice(&checksum.to_le_bytes());
            }
        });
        storage
    };
    let storage = newer(2);
    let before = storage.digest();
    let refused = recovery::survey(&storage, &storage.list().unwrap(), SMALL, JournalId(1)).map(drop);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("file end has format 2"), "{said}");
    assert_eq!(storage.digest(), before);
    // No program has ever written 0, so that is damage.
    survey_small(&newer(0));
}

#[test]
fn a_file_that_has_not_begun_is_a_spare_behind_the_segments_and_removed_before_them() {
    let storage = lives(2, 3);
    let ids = begun(&storage);
    let (oldest, behind) = (SegmentId(ids[0]), SegmentId(ids[1] + 50));
    storage.rename(&oldest.file_name(), &name(0)).unwrap();
    storage.put(&oldest.file_name(), vec![0; SMALL.segment_bytes as usize]);
    storage.put(&behind.file_name(), vec![0; SMALL.segment_bytes as usize]);
    let survey = survey_small(&storage);
    assert!(survey.files.useless.contains(&oldest.file_name()), "{:?}", survey.files.useless);
    assert!(survey.files.spares.iter().any(|(id, _)| *id == behind));
    assert_eq!(survey.files.next, behind.next(), "no number is given twice");
    let (journal, _) = open_small(&storage);
    let left = storage.files();
    assert!(!left.contains_key(&oldest.file_name()) && left.contains_key(&behind.next().file_name()));
    drop(journal);
}

#[test]
fn zeros_or_another_segments_header_and_frames_are_a_file_that_has_not_begun() {
    let storage = lives(1, 3);
    let earlier = storage.files().remove(&name(begun(&storage)[0])).unwrap();
    for content in [vec![0; earlier.len()], earlier] {
        let storage = lives(1, 3);
        let ids = begun(&storage);
        storage.put(&name(ids[0] + 50), content);
        assert_eq!(begun(&storage), ids);
        without_damage(&storage, 0..3);
    }
}

#[test]
fn a_spare_of_another_length_and_one_that_was_being_filled_are_removed() {
    let storage = lives(1, 3);
    let short = begun(&storage)[0] + 50;
    storage.put(&name(short), vec![0; 1024]);
    storage.put(FILLING, vec![0; 100]);
    storage.put("somebody.else", vec![1]);
    storage.faults(|f| f.full = true);
    let (journal, _) = open_small(&storage);
    let left = storage.files();
    assert!(!left.contains_key(&name(short)) && !left.contains_key(FILLING));
    assert!(left.contains_key("somebody.else"), "what is not the journal's is left alone");
    drop(journal);
}

#[test]
fn a_file_shorter_than_its_header_says_is_cut_and_what_is_missing_is_a_hole() {
    let storage = lives(2, 3);
    let first = begun(&storage)[0];
    let last = frames(&storage, first).pop().unwrap();
    edit(&storage, &name(first), |bytes| bytes.truncate(last.0.end + 10));
    without_damage(&storage, 0..6);
    edit(&storage, &name(first), |bytes| bytes.truncate(last.0.end - 1));
    let survey = survey_small(&storage);
    let candidate = &survey.files.candidates[0];
    assert!(candidate.bytes < candidate.header.unwrap().length);
    let (rows, _) = opened(&storage);
    assert_eq!(rows, [0, 1, 3, 4, 5]);
}

#[test]
fn a_segment_whose_header_is_lost_is_known_by_its_frames() {
    let lost: [fn(&mut Vec<u8>); 2] = [|bytes| bytes[20] ^= 1, |bytes| bytes[..512].fill(0)];
    for lose in lost {
        let storage = lives(2, 3);
        let ids = begun(&storage);
        for id in &ids {
            edit(&storage, &name(*id), lose);
        }
        let survey = survey_small(&storage);
        assert!(survey.files.candidates.iter().all(|c| c.header.is_none()));
        let firsts: Vec<_> = survey.files.candidates.iter().map(|c| c.segment.first.0).collect();
        assert_eq!((begun(&storage), firsts), (ids, vec![0, 3]));
        without_damage(&storage, 0..6);
    }
}

#[test]
fn the_newest_intact_snapshot_counts_and_the_one_before_serves_where_it_is_damaged() {
    let storage = lives(3, 3);
    assert_eq!(survey_small(&storage).base, 2);
    let state = survey_small(&storage).folded.state;
    edit(&storage, &name(begun(&storage)[2]), |bytes| bytes[SNAPSHOT] ^= 1);
    let survey = survey_small(&storage);
    assert_eq!((survey.base, survey.snapshot_lost), (1, false));
    assert_eq!(survey.folded.state, state);
    without_damage(&storage, 0..9);
}

#[test]
fn without_an_intact_snapshot_everything_is_folded_and_that_is_reported() {
    let storage = lives(3, 3);
    let state = survey_small(&storage).folded.state;
    for id in begun(&storage) {
        edit(&storage, &name(id), |bytes| bytes[SNAPSHOT] ^= 1);
    }
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.snapshot_lost), ((0..9).collect(), true));
    assert_eq!(survey_small(&storage).folded.state, state, "nothing was trimmed yet");
}

#[test]
fn a_frame_that_begins_where_the_one_before_ended_is_taken() {
    let storage = lives(1, 9);
    let frames = frames(&storage, begun(&storage)[0]);
    assert!(frames.windows(2).all(|pair| pair[0].1.end() == pair[1].1.first));
    without_damage(&storage, 0..9);
}

#[test]
fn a_frame_with_the_number_of_another_segment_is_of_an_earlier_life_of_the_file() {
    let storage = lives(2, 3);
    let ids = begun(&storage);
    let files = storage.files();
    let (earlier, _) = frames(&storage, ids[0]).pop().unwrap();
    let (last, _) = frames(&storage, ids[1]).pop().unwrap();
    edit(&storage, &name(ids[1]), |bytes| {
        let at = segment::sector_up(last.end as u64) as usize;
        bytes[at..at + earlier.len()].copy_from_slice(&files[&name(ids[0])][earlier]);
    });
    without_damage(&storage, 0..6);
}

#[test]
fn a_frame_at_or_beyond_the_first_offset_of_a_later_segment_is_passed_over() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 0..3, "written once");
    let syncs = storage.calls_of(CallKind::Sync);
    storage.plan(Fault::once(CallKind::Sync, syncs, io::ErrorKind::Other));
    commit_rows(&journal, 3..6, "written twice");
    journal.close();
    let storage = as_written(&storage);
    let survey = survey_small(&storage);
    let first = &survey.files.candidates[0];
    let beyond = frames(&storage, first.segment.id.0).pop().unwrap();
    assert_eq!(beyond.1.first, Offset(3), "the first file holds it too");
    assert!(first.frames.iter().all(|found| found.header.first < Offset(3)));
    without_damage(&storage, 0..6);
}

#[test]
fn offsets_that_a_later_header_calls_void_are_passed_over() {
    let storage = idle_lives();
    let headers: Vec<_> = survey_small(&storage).files.candidates.iter().filter_map(|c| c.header).collect();
    let last = headers[headers.len() - 1];
    let idle = &headers[1..headers.len() - 1];
    assert!(idle.len() == 2 && idle.iter().all(|header| header.first >= last.void), "{headers:?}");
    for header in idle {
        storage.remove(&header.segment.file_name()).unwrap();
    }
    // The snapshot of the newest would hide the matter.
    edit(&storage, &last.segment.file_name(), |bytes| bytes[SNAPSHOT] ^= 1);
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.damaged, report.torn_tail), (vec![0, 1, 2], vec![], false));
}

#[test]
fn damage_to_offsets_that_a_later_header_calls_void_is_none() {
    let storage = idle_lives();
    let ids = begun(&storage);
    // The snapshots would hide the matter.
    for id in &ids[1..] {
        edit(&storage, &name(*id), |bytes| bytes[SNAPSHOT] ^= 1);
    }
    for id in &ids[1..ids.len() - 1] {
        let storage = storage.fork();
        let frame = frames(&storage, *id).pop().unwrap().0;
        edit(&storage, &name(*id), |bytes| bytes[frame.start] ^= 1);
        let (rows, report) = opened(&storage);
        assert_eq!((rows, report.damaged, report.torn_tail), (vec![0, 1, 2], vec![], false));
    }
}

#[test]
fn a_hole_below_the_watermark_of_a_later_frame_is_damage_and_what_lies_behind_is_taken() {
    let storage = lives(1, 9);
    storage.remove(END_FILE).unwrap();
    let id = begun(&storage)[0];
    let frame = frames(&storage, id).swap_remove(4);
    edit(&storage, &name(id), |bytes| bytes[frame.0.end - 1] ^= 1);
    let (rows, report) = opened(&storage);
    assert_eq!(rows, [0, 1, 2, 3, 5, 6, 7, 8]);
    assert_eq!((report.damaged, report.rows_lost), (vec![(Offset(4), Offset(5))], 1));
    assert!(!report.torn_tail);
}

#[test]
fn a_hole_below_the_first_offset_of_a_later_header_is_damage() {
    let storage = lives(2, 3);
    storage.remove(END_FILE).unwrap();
    let ids = begun(&storage);
    let frame = frames(&storage, ids[0]).pop().unwrap();
    edit(&storage, &name(ids[0]), |bytes| bytes[frame.0.start] ^= 1);
    // The snapshot of the later one would hide the matter, and its frames prove it too.
    let proof = frames(&storage, ids[1]);
    edit(&storage, &name(ids[1]), |bytes| {
        bytes[SNAPSHOT] ^= 1;
        proof.iter().for_each(|(range, _)| bytes[range.start] ^= 1);
    });
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.damaged), (vec![0, 1], vec![(Offset(2), Offset(3))]));
}

/// A journal whose last commit, one submission of several frames, is on disk but for what `lose` takes of it. It was
/// never marked.
fn unfinished(lose: impl FnOnce(&mut [u8], &[std::ops::Range<usize>])) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 0..3, "a");
    wait_for(&journal, submit_rows(&journal, 3, 4, &"b".repeat(600)).unwrap());
    journal.close();
    storage.remove(END_FILE).unwrap();
    let id = begun(&storage)[0];
    let last: Vec<_> = frames(&storage, id).into_iter().skip(3).map(|(range, _)| range).collect();
    assert_eq!(last.len(), 4);
    edit(&storage, &name(id), |bytes| lose(bytes, &last));
    storage
}

#[test]
fn any_other_hole_is_a_torn_tail_and_what_lies_behind_it_is_left_out() {
    let storage = unfinished(|bytes, frames| bytes[frames[0].start] ^= 1);
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.end, report.torn_tail), (vec![0, 1, 2], Offset(3), true));
    assert_eq!((report.damaged, report.rows_lost), (vec![], 0));
}

#[test]
fn the_end_within_a_submission_is_a_torn_tail_and_the_submission_is_left_out() {
    let storage = unfinished(|bytes, frames| bytes[frames[3].start] ^= 1);
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.end, report.torn_tail), (vec![0, 1, 2], Offset(3), true));
    assert_eq!(report.damaged, []);
}

#[test]
fn no_frame_where_durable_entries_are_proven_is_damage_up_to_there() {
    let storage = lives(1, 9);
    let id = begun(&storage)[0];
    let last = frames(&storage, id).pop().unwrap().0;
    edit(&storage, &name(id), |bytes| bytes[last.start] ^= 1);
    let (rows, report) = opened(&storage);
    assert_eq!(rows, (0..8).collect::<Vec<_>>());
    assert_eq!((report.damaged, report.rows_lost), (vec![(Offset(8), Offset(9))], 1));
}

#[test]
fn an_end_mark_without_any_segment_makes_everything_below_it_damage() {
    let storage = lives(1, 3);
    let id = survey_small(&storage).folded.state.journal();
    for name in storage.files().into_keys().filter(|name| name != END_FILE) {
        storage.remove(&name).unwrap();
    }
    let (rows, report) = opened(&storage);
    assert_eq!((rows, report.damaged), (vec![], vec![(Offset(0), Offset(3))]));
    assert_eq!((report.end, report.rows_lost), (Offset(3), 3));
    assert_eq!(survey_small(&storage).folded.state.journal(), id);
}

#[test]
fn an_end_mark_that_is_missing_damaged_or_of_another_journal_proves_nothing() {
    let changes: [fn(&MemoryStorage); 3] = [
        |storage| storage.remove(END_FILE).unwrap(),
        |storage| edit(storage, END_FILE, |bytes| bytes[SLOT + 30] ^= 1),
        |storage| {
            let mark = EndMark { watermark: Offset(1_000), learned: 1_000 };
            let slot = EndRead { mark, journal: JournalId(1), number: 7 }.encode();
            edit(storage, END_FILE, |bytes| bytes[SLOT..].copy_from_slice(&slot));
        },
    ];
    for change in changes {
        let storage = lives(1, 3);
        change(&storage);
        without_damage(&storage, 0..3);
    }
}

#[test]
fn an_entry_that_cannot_be_decoded_is_passed_over() {
    let storage = lives(1, 3);
    let id = begun(&storage)[0];
    let (range, header) = frames(&storage, id).swap_remove(1);
    edit(&storage, &name(id), |bytes| {
        // The kind of the frame's first entry, in a frame that is otherwise right.
        bytes[range.start + frame::FRAME_HEADER_BYTES + 2] = 99;
        let next = frames(&storage, id).swap_remove(2);
        let checksum = header.seal(&mut bytes[range], SMALL_JOURNAL);
        FrameHeader { previous: checksum, ..next.1 }.seal(&mut bytes[next.0], SMALL_JOURNAL);
    });
    let (journal, report) = open_small(&storage);
    assert_eq!((report.damaged, report.end, report.entries), (vec![], Offset(3), 3));
    assert_eq!(journal.with_state(|state| state.device("e6614104").unwrap().rows), 2);
}

/// Whether the next life goes on in the last segment.
fn goes_on(storage: &MemoryStorage) -> bool {
    let storage = storage.fork();
    let before = begun(&storage.fork());
    let opened = Shared::open(Arc::new(storage.clone()), &OPTIONS, SMALL, JournalId(3));
    let (shared, mut committer, report) = opened.unwrap();
    keeper::tidy(&shared).unwrap();
    let next = report.end.0;
    shared.submit(Class::Foreign, |_, submission| add_row(submission, next, "later")).unwrap();
    committer.commit().unwrap();
    without_damage(&storage, 0..next + 1);
    begun(&storage) == before
}

#[test]
fn a_last_segment_that_is_whole_is_gone_on_with_behind_its_end() {
    let whole = lives(1, 3);
    let id = begun(&whole)[0];
    assert!(goes_on(&whole));
    let with = |change: fn(&MemoryStorage, u64)| {
        let storage = whole.fork();
        change(&storage, id);
        storage
    };
    let torn = unfinished(|bytes, frames| bytes[frames[0].start] ^= 1);
    assert!(!goes_on(&torn), "there are frames behind the end");
    let half = unfinished(|bytes, frames| bytes[frames[3].start] ^= 1);
    assert!(!goes_on(&half), "the last submission is not whole");
    let bare = with(|storage, id| edit(storage, &name(id), |bytes| bytes[SNAPSHOT] ^= 1));
    assert!(!goes_on(&bare), "the snapshot is lost");
    let headless = with(|storage, id| edit(storage, &name(id), |bytes| bytes[20] ^= 1));
    assert!(!goes_on(&headless), "the header is lost");
    let cut = with(|storage, id| edit(storage, &name(id), |bytes| bytes.truncate(bytes.len() - 512)));
    assert!(!goes_on(&cut), "the file is cut");
    let doubtful = with(|storage, _| {
        // The end mark is synced before the segment.
        let sync = storage.calls_of(CallKind::Sync) + 1;
        storage.plan(Fault::once(CallKind::Sync, sync, io::ErrorKind::Other));
    });
    assert!(!goes_on(&doubtful), "what it holds could not be synced");
}

#[test]
fn last_segments_that_nobody_is_owed_anything_of_are_let_go_of_once_another_begins() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    journal.register_sink("main").unwrap();
    journal.close();
    let (journal, _) = open_small(&storage);
    let idle: Vec<bool> = journal.shared.segments().iter().map(|segment| segment.idle).collect();
    assert_eq!(idle, [true]);
    commit_rows(&journal, 0..1, "a");
    journal.close();
    let file = storage.open(&name(begun(&storage).pop().unwrap())).unwrap();
    let header = SegmentHeader::read(&*file, SegmentId(begun(&storage).pop().unwrap())).unwrap();
    let HeaderRead::Intact(header) = header else { panic!("{header:?}") };
    assert_eq!((header.void, header.first), (Offset(0), Offset(1)));

    let (journal, _) = open_small(&storage);
    let idle: Vec<bool> = journal.shared.segments().iter().map(|segment| segment.idle).collect();
    assert!(!idle[idle.len() - 1], "a row is owed");
}

#[test]
fn recovering_twice_comes_to_the_same() {
    let storage = lives(2, 9);
    let id = begun(&storage)[0];
    let frame = frames(&storage, id).swap_remove(4).0;
    edit(&storage, &name(id), |bytes| bytes[frame.start] ^= 1);
    for id in begun(&storage) {
        edit(&storage, &name(id), |bytes| bytes[SNAPSHOT] ^= 1);
    }
    let first = survey_small(&storage);
    drop(open_small(&storage));
    let second = survey_small(&storage);
    assert_eq!((first.verdict, first.folded.state), (second.verdict, second.folded.state));
}
