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
    let header = SegmentHeader::read(&*storage.open(SAMPLE).unwrap(), SegmentId(1)).unwrap();
    let HeaderRead::Intact(header) = header else { panic!("{header:?}") };
    let segment = segment::Segment {
        early: false,
        shared: false,
        boots: false,
        journal: header.journal,
        id: SegmentId(1),
        first: Offset(0),
        void: Offset(0),
        length: bytes.len() as u64,
        file: storage.open(SAMPLE).unwrap(),
        snapshot: true,
        idle: false,
        sound: true,
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
        let recover = || {
            recovery::recover(&dynamic, &dynamic.list().unwrap(), Shape::of(SEGMENT_BYTES), JournalId(1))
                .unwrap()
        };
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

/// A journal like `files`, its first segment replaced.
fn with_segment(files: &BTreeMap<String, Vec<u8>>, bytes: Vec<u8>) -> MemoryStorage {
    let storage = MemoryStorage::new();
    files.iter().for_each(|(name, bytes)| storage.put(name, bytes.clone()));
    storage.put(SAMPLE, bytes);
    storage
}

#[test]
fn a_wrong_byte_costs_one_frame_and_is_reported() {
    let files = sample().files();
    let bytes = files[SAMPLE].clone();
    let frames = sample_frames(&bytes);
    let all = sequences(&open(&sample()).0);
    let written = frames.last().map(|f| f.0 + f.1).unwrap();
    for at in (0..written).step_by(11).chain(frames.iter().flat_map(|f| [f.0, f.0 + 9, f.0 + 25])) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x41;
        let storage = with_segment(&files, bytes);
        let (journal, report) = open(&storage);
        let hit = frames.iter().find(|f| (f.0..f.0 + f.1).contains(&at));
        let expected: Vec<_> =
            hit.iter().filter(|f| f.3 > 0).map(|f| (Offset(f.2), Offset(f.2 + f.3))).collect();
        let (rows, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}");
        assert_eq!(report.damaged, expected, "byte {at}");
        assert_eq!(report.snapshot_lost, hit.is_some_and(|f| f.3 == 0), "byte {at}");
        let lost = hit.map_or(0, |f| f.3);
        assert_eq!((all.len() as u64 - rows.len() as u64, report.rows_lost), (lost, lost), "byte {at}");
        assert_eq!(journal.with_state(State::learned), all.len() as u64, "byte {at}");

        wait_for(&journal, submit_rows(&journal, 1_000, 1, "new").unwrap());
        journal.close();
        let (journal, _) = open(&storage);
        let (again, damaged) = read_all(&journal, Offset(0));
        assert_eq!(damaged, expected, "byte {at}, then written on");
        assert_eq!(again.len(), rows.len() + 1, "byte {at}, then written on");
        assert_eq!(journal.with_state(State::learned), all.len() as u64 + 1, "byte {at}, then written on");
    }
}

#[test]
fn a_segment_of_a_closed_journal_cut_anywhere_is_damaged_from_there_on() {
    let files = sample().files();
    let bytes = files[SAMPLE].clone();
    let frames = sample_frames(&bytes);
    let end = frames.last().map(|f| f.2 + f.3).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        let (journal, report) = open(&with_segment(&files, bytes[..cut].to_vec()));
        let whole: u64 = frames.iter().filter(|f| f.0 + f.1 <= cut).map(|f| f.3).sum();
        let expected = if whole < end { vec![(Offset(whole), Offset(end))] } else { vec![] };
        assert_eq!(report.damaged, expected, "cut at {cut}");
        assert_eq!(report.rows_lost, end - whole, "cut at {cut}");
        let (rows, damaged) = read_all(&journal, Offset(0));
        assert_eq!((rows.len() as u64, damaged), (whole, expected), "cut at {cut}");
        let rows = journal.with_state(|state| state.devices().iter().map(|d| d.rows).sum::<u64>());
        assert_eq!(rows, end, "every row is accounted for, cut at {cut}");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let storage = sample();
    let mut bytes = storage.files().remove(SAMPLE).unwrap();
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..56]);
    bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
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
    let holds = |bytes: &[u8]| bytes.windows(17).any(|window| window == b"with the snapshot");
    let (second, mut bytes) = cut.files().into_iter().find(|(_, bytes)| holds(bytes)).unwrap();
    bytes[600] ^= 1;
    cut.put(&second, bytes);

    let (journal, report) = open(&cut);
    assert!(!report.snapshot_lost);
    let (rows, damaged) = read_all(&journal, Offset(0));
    assert_eq!(rows.into_values().collect::<Vec<_>>(), [0, 1, 10, 11, 12, 13]);
    assert_eq!((damaged, report.damaged), (vec![], vec![]));
    assert_eq!(journal.with_state(|state| state.device("e6614104").unwrap().rows), 6);
}
