//! Rows that share their point with an earlier one: the bytes of what tells of them, and where it may lie.

use super::entry::SharedEntry;
use super::format::hex;
use super::segment::{HeaderRead, SegmentHeader};
use super::small::commit;
use super::*;

const SHARED: Entry<'static> =
    Entry::Shared(SharedEntry { device: "esp", again: 2, unsure: 1, latest_ns: 5 });

#[test]
fn the_bytes_of_the_entry_the_header_and_the_snapshot() {
    let mut bytes = Vec::new();
    SHARED.encode(&mut bytes).unwrap();
    assert_eq!(hex(&bytes), "0f00110365737002010500000000000000");
    let (journal, segment) = (JournalId(1), SegmentId(2));
    let (first, void) = (Offset(3), Offset(3));
    let header =
        SegmentHeader { journal, segment, first, void, length: 4, early: false, shared: true, boots: false };
    assert_eq!(hex(&header.encode().0[..16]), "464f52454241594a0100000002000000");

    let mut state = State::new(JournalId(0x7788), 10_000);
    let plain = state.to_bytes().unwrap();
    state.apply(Offset(0), &SHARED);
    let bytes = state.to_bytes().unwrap();
    assert_eq!((plain[0], bytes[0]), (1, 3), "a state without any has the form that every version reads");
    // One device, the first of the list; its latest time is a zigzag varint.
    assert!(hex(&bytes).ends_with("010002010a"), "{}", hex(&bytes));
    assert_eq!(State::from_bytes(&bytes, 10_000), Some(state));
    assert_eq!(State::from_bytes(&bytes[..bytes.len() - 1], 10_000), None);
}

#[test]
fn counts_add_up_and_the_latest_time_goes_on_with_the_rows() {
    let mut state = State::new(JournalId(1), 10_000);
    let row = |ns, stamped| {
        let fields = Fields::of(&[]);
        Entry::Row(RowEntry { device: "esp", boot: 0, sequence: 0, stamped, series: "m", ns, fields })
    };
    state.apply(Offset(0), &row(9, false));
    let shared = |state: &State| state.device("esp").and_then(|device| device.shared);
    assert_eq!(shared(&state), None);
    state.apply(Offset(1), &SHARED);
    state.apply(Offset(2), &row(7, false));
    state.apply(Offset(3), &row(8, true));
    state.apply(Offset(4), &SHARED);
    let known = shared(&state).unwrap();
    assert_eq!((known.again, known.unsure, known.latest_ns), (4, 2, 7));
}

/// What the headers of all segments that have begun say of shared points.
fn features(storage: &MemoryStorage) -> Vec<bool> {
    let shared = |name: &String| {
        let id = SegmentId::of_file_name(name)?;
        match SegmentHeader::read(&*storage.open(name).unwrap(), id).unwrap() {
            HeaderRead::Intact(header) => Some(header.shared),
            _ => None,
        }
    };
    storage.files().keys().filter_map(shared).collect()
}

#[test]
fn only_snapshots_that_tell_of_them_are_kept_from_older_gateways() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    commit(&journal, &[SHARED]);
    assert_eq!(features(&storage), [false], "older gateways pass over the entry itself");
    let text = "x".repeat(10_000);
    for sequence in (0..30).step_by(5) {
        wait_for(&journal, submit_rows(&journal, sequence, 5, &text).unwrap());
    }
    let features = features(&storage);
    assert!(features.len() > 2 && !features[0] && features[1..].iter().all(|shared| *shared), "{features:?}");
    let before = journal.with_state(State::clone);
    journal.close();
    let (journal, report) = open(&storage);
    assert!(report.damaged.is_empty() && !report.snapshot_lost);
    assert!(before.device("esp").is_some_and(|device| device.shared.is_some()));
    assert_eq!(journal.with_state(State::clone), before);
}
