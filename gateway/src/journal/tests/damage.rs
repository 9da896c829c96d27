//! Cut files, wrong bytes, foreign formats.

use super::*;

/// A closed journal of 12 submissions, the last but one of three frames.
fn sample() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    let mut next = 0;
    for n in 0..12 {
        let (rows, text) = if n == 10 { (5, "y".repeat(8_000)) } else { (3, "z".into()) };
        wait_for(&journal, submit_rows(&journal, next, rows, &text).unwrap());
        next += rows;
    }
    journal.close();
    storage
}

const SAMPLE: &str = "00000000000000000001.seg";

/// The frames of the sample as (position, length, first offset, entries).
fn sample_frames(bytes: &[u8]) -> Vec<(usize, usize, u64, u64)> {
    let storage = MemoryStorage::new();
    storage.put(SAMPLE, bytes.to_vec());
    let segment = segment::Segment {
        id: segment::SegmentId(1),
        first: Offset(0),
        length: bytes.len() as u64,
        file: storage.open(SAMPLE).unwrap(),
    };
    let mut scanner = scan::Scanner::new(&segment);
    std::iter::from_fn(|| scanner.next().unwrap())
        .map(|f| (f.at as usize, f.header.length, f.header.first.0, u64::from(f.header.count)))
        .collect()
}

#[test]
fn a_segment_cut_anywhere_gives_the_submissions_before_the_cut() {
    let bytes = sample().files().remove(SAMPLE).unwrap();
    let frames = sample_frames(&bytes);
    let written = frames.last().map(|f| f.0 + f.1).unwrap();
    assert!(frames.len() > 13);
    let whole_ends: Vec<u64> = {
        let (journal, _) = open(&sample());
        let (rows, _) = read_all(&journal, Offset(0));
        // A submission of the sample ends where the next row is the first of a submission.
        let firsts: Vec<u64> = (0..12).map(|n| if n <= 10 { n * 3 } else { n * 3 + 2 }).collect();
        rows.iter().filter(|(_, s)| firsts.contains(s)).map(|(offset, _)| offset.0).collect()
    };
    // In and behind the long texts one offset is much as another, and takes long.
    let long = frames.iter().find(|f| f.1 > 4_096).map_or(written, |f| f.0 + 100);
    let cuts = (0..written).filter(|cut| *cut < long || cut % 7 == 0);
    for cut in cuts {
        let storage = MemoryStorage::new();
        storage.put(SAMPLE, bytes[..cut].to_vec());
        let dynamic: Arc<dyn Storage> = Arc::new(storage.clone());
        let recover =
            || recovery::recover(&dynamic, &dynamic.list().unwrap(), SEGMENT_BYTES, JournalId(1)).unwrap();
        let recovered = recover();
        let intact = frames.iter().filter(|f| f.0 + f.1 <= cut).map(|f| f.2 + f.3).max().unwrap_or(0);
        let expected =
            whole_ends.iter().copied().chain([frames.last().unwrap().2]).filter(|e| *e <= intact).max();
        assert_eq!(recovered.report.damaged, [], "cut at {cut}");
        assert_eq!(recovered.tail.end.0, expected.unwrap_or(0), "cut at {cut}");
        assert_eq!(recover().state, recovered.state, "cut at {cut}");
        if cut % 32 == 0 {
            let (journal, _) = open(&storage);
            let kept = sequences(&journal);
            assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
            wait_for(&journal, submit_rows(&journal, 1_000, 1, "new").unwrap());
            journal.close();
            let (journal, _) = open(&storage);
            assert_eq!(sequences(&journal), [kept, vec![1_000]].concat(), "cut at {cut}, then written on");
        }
    }
}

#[test]
fn a_wrong_byte_costs_one_frame_and_is_reported() {
    let bytes = sample().files().remove(SAMPLE).unwrap();
    let frames = sample_frames(&bytes);
    let all = sequences(&open(&sample()).0);
    let written = frames.last().map(|f| f.0 + f.1).unwrap();
    for at in (0..written).step_by(11).chain(frames.iter().flat_map(|f| [f.0, f.0 + 9, f.0 + 25])) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x41;
        let storage = MemoryStorage::new();
        storage.put(SAMPLE, bytes);
        let (journal, report) = open(&storage);
        let hit = frames.iter().find(|f| (f.0..f.0 + f.1).contains(&at) && f.3 > 0);
        let expected: Vec<_> = hit.iter().map(|f| (Offset(f.2), Offset(f.2 + f.3))).collect();
        let (rows, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}");
        assert_eq!(report.damaged, expected, "byte {at}");
        let lost = hit.map_or(0, |f| if f.2 == 0 { 0 } else { f.3 });
        let rows_lost = all.len() as u64 - rows.len() as u64;
        assert!(rows_lost == lost || hit.is_some_and(|f| f.2 == 0) && rows_lost < lost + 4, "byte {at}");

        wait_for(&journal, submit_rows(&journal, 1_000, 1, "new").unwrap());
        journal.close();
        let (journal, _) = open(&storage);
        let (again, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}, then written on");
        assert_eq!(again.len(), rows.len() + 1, "byte {at}, then written on");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let storage = sample();
    let mut bytes = storage.files().remove(SAMPLE).unwrap();
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    storage.put(SAMPLE, bytes);
    let before = storage.files();
    let refused = Journal::open(Arc::new(storage.clone()), &OPTIONS).map(drop);
    assert!(matches!(refused, Err(OpenError::Newer { version: 2, .. })));
    assert_eq!(storage.files(), before);
    let small = Options { max_bytes: MAX_BYTES_LEAST - 1, ..OPTIONS };
    assert!(matches!(Journal::open(Arc::new(storage), &small), Err(OpenError::TooSmall { .. })));
}

#[test]
fn what_was_left_out_stays_out_when_the_next_snapshot_is_lost() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    let acknowledged = submit_rows(&journal, 0, 2, "a").unwrap();
    wait_for(&journal, acknowledged);
    storage.faults(|f| f.hold_syncs = true);
    submit_rows(&journal, 2, 5, &"b".repeat(8_000)).unwrap();
    while !written(&storage, &[b'b'; 100]) {
        thread::yield_now();
    }
    // Of three frames the first is gone, and the other two are intact.
    let begun = storage.syncs(SAMPLE);
    let cut = storage.power_cut(|name, sector| begun > 0 && name == SAMPLE && sector > 20);
    storage.faults(|f| f.hold_syncs = false);

    let (journal, report) = open(&cut);
    assert!(report.torn_tail);
    assert_eq!(journal.usage().end, acknowledged);
    wait_for(&journal, submit_rows(&journal, 10, 2, "with the snapshot").unwrap());
    wait_for(&journal, submit_rows(&journal, 12, 2, "in a later frame").unwrap());
    journal.close();
    drop(journal);
    let second = "00000000000000000002.seg";
    let mut bytes = cut.files().remove(second).unwrap();
    bytes[600] ^= 1;
    cut.put(second, bytes);

    let (journal, report) = open(&cut);
    assert!(!report.snapshot_lost);
    let (rows, damaged) = read_all(&journal, Offset(0));
    assert_eq!(rows.into_values().collect::<Vec<_>>(), [0, 1, 12, 13]);
    assert_eq!(damaged, report.damaged);
    assert_eq!(damaged, [(acknowledged, acknowledged.plus(3))], "a snapshot and two rows");
    assert_eq!(journal.with_state(|state| state.device("e6614104").unwrap().rows), 4);
}
