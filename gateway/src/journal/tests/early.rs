//! Early entries: their bytes, where they may lie, and when they get their time. A journal of them is kept.

use super::clocks::{CLOCKS_MAX, ClockEntry, FixEntry};
use super::entry::{Cause, GapEntry};
use super::format::{Kept, check_snapshot_without_boots, hex};
use super::segment::{HeaderRead, SegmentHeader};
use super::small::{SMALL, SMALL_JOURNAL, commit, open_shaped, open_small, survey_small};
use super::*;
use crate::record::MachineBoot;

const KEPT: Kept = Kept("journal-v1-early");
const MACHINE: MachineBoot = MachineBoot(0x1122_3344_5566_7788);
const LATER: MachineBoot = MachineBoot(0x99aa);

fn early_row<'a>(sequence: u64, fields: Fields<'a>) -> RowEntry<'a> {
    RowEntry {
        device: "e6",
        boot: 7,
        sequence,
        stamped: true,
        series: "m,d=e6",
        ns: 40 + sequence as i64,
        fields,
    }
}

fn gap(sink: Option<&str>) -> GapEntry<'_> {
    GapEntry {
        device: "e6",
        boot: 7,
        from: 3,
        to: 5,
        count: 2,
        cause: Cause::Overflow,
        sink,
        stamped: true,
        series: "g",
        ns: 50,
    }
}

/// Every entry that an older gateway does not know, and its bytes.
fn every_entry(mut check: impl FnMut(&Entry<'_>, &str)) {
    let fields = [("i".into(), Value::Integer(-3))];
    check(
        &Entry::Clock(ClockEntry { machine: MACHINE, told_ns: 9 }),
        "11000e88776655443322110900000000000000",
    );
    check(
        &Entry::EarlyRow(MACHINE, early_row(2, Fields::of(&fields))),
        "22000b88776655443322110102653607\
         02066d2c643d65362a0000000000000001690105",
    );
    check(
        &Entry::EarlyGap(MACHINE, gap(None)),
        "1c000c8877665544332211010002653607030502\
         01673200000000000000",
    );
    check(
        &Entry::EarlyGapAgain(MACHINE, gap(Some("main"))),
        "21000d8877665544332211030002653607030502\
         046d61696e01673200000000000000",
    );
    check(
        &Entry::ClockFix(FixEntry { machine: MACHINE, offset_ns: 1_000, estimated: true }),
        "12000f018877665544332211e803000000000000",
    );
}

#[test]
fn the_bytes_of_each_entry() {
    every_entry(|entry, expected| {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes).unwrap();
        assert_eq!(hex(&bytes), expected, "{entry:?}");
    });
}

#[test]
fn the_bytes_of_a_header_and_a_snapshot() {
    let (journal, segment) = (JournalId(1), SegmentId(2));
    let header = SegmentHeader {
        journal,
        segment,
        first: Offset(3),
        void: Offset(3),
        length: 4,
        early: true,
        shared: false,
        boots: false,
    };
    assert_eq!(hex(&header.encode().0[..16]), "464f52454241594a0100000001000000");
    let mut state = State::new(JournalId(0x7788), 10_000);
    let mut apply = |entry: &Entry<'_>| state.apply(Offset(5), entry);
    every_entry(|entry, _| {
        // Of a clock that is fixed nobody has to know the latest row any more.
        if !matches!(entry, Entry::ClockFix(_)) {
            apply(entry);
        }
    });
    assert_eq!(hex(&state.to_bytes().unwrap()), SNAPSHOT);
    check_snapshot_without_boots(SNAPSHOT_WITHOUT_BOOTS, &state);
    assert_eq!(State::from_bytes(&state.to_bytes().unwrap(), 10_000), Some(state));
}

const SNAPSHOT: &str = "0488ef010102653601026536010705ffffffffffffffffff010100000100020000ffffffffffffffffff010300a8030188ef99abc5e88c9111011201546464010005000001000788ef99abc5e88c91115400010001070101000200";
const SNAPSHOT_WITHOUT_BOOTS: &str = "0288ef010102653601026536010705ffffffffffffffffff010100000100020000ffffffffffffffffff01030088020188ef99abc5e88c9111011201546464010005000001000788ef99abc5e88c911154";

/// A closed journal with every entry, of a machine that is fixed and of one that is not.
fn every_kind() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    submit_rows(&journal, 0, 2, "before").unwrap();
    every_entry(|entry, _| {
        commit(&journal, &[*entry]);
    });
    let fields = [("i".into(), Value::Integer(4))];
    commit(&journal, &[Entry::Clock(ClockEntry { machine: LATER, told_ns: 9 })]);
    for sequence in 5..30 {
        commit(&journal, &[Entry::EarlyRow(LATER, early_row(sequence, Fields::of(&fields)))]);
    }
    journal.close();
    storage
}

/// Made the journal that is kept; see `format.rs`.
#[test]
#[ignore = "makes the fixture, which is kept; it refuses to replace one"]
fn make_the_early_journal_that_is_kept() {
    KEPT.make(&every_kind());
}

#[test]
fn a_journal_with_early_entries_is_read_and_goes_on() {
    let storage = KEPT.read();
    assert!(inspect::inspect(&storage).unwrap().is_well());
    let early: Vec<bool> = survey_small(&storage).files.candidates.iter().map(|c| c.segment.early).collect();
    assert_eq!(early.first(), Some(&false), "what came before can be read by an older gateway");
    assert!(early.len() > 1 && early[1..].iter().all(|early| *early));
    let (journal, report) = open_small(&storage);
    assert_eq!((report.damaged, report.torn_tail, report.snapshot_lost), (vec![], false, false));
    assert_eq!(times(&journal)[2..5], [Ok(1_042), Ok(1_050), Ok(1_050)]);
    assert_eq!(times(&journal)[5..], (45..70).map(Err).collect::<Vec<_>>());
    journal.with_state(|state| {
        assert_eq!((state.clocks().waiting_rows(), state.clocks().estimated_rows()), (25, 1));
        assert_eq!(state.last_stamp(), 1_050);
    });
    commit(&journal, &[Entry::ClockFix(FixEntry { machine: LATER, offset_ns: 2_000, estimated: false })]);
    assert_eq!(times(&journal)[5..], (2_045..2_070).map(Ok).collect::<Vec<_>>());
    let device = journal.with_state(|state| state.device("e6").unwrap().clone());
    assert_eq!((device.early, device.boot(7).unwrap().last_ns), (None, 2_069));
}

/// The times of all rows and gaps, or where on their steady clock those lie that have none.
fn times(journal: &Journal) -> Vec<Result<i64, i64>> {
    let (mut times, mut reader) = (Vec::new(), journal.reader(Offset(0)));
    while let Read::Frame(frame) = reader.next().unwrap() {
        times.extend(frame.entries().filter_map(|(_, entry)| match journal.fixes().date(entry.unwrap()) {
            Entry::Row(row) => Some(Ok(row.ns)),
            Entry::Gap(gap) | Entry::GapAgain(gap) => Some(Ok(gap.ns)),
            Entry::EarlyRow(_, row) => Some(Err(row.ns)),
            Entry::EarlyGap(_, gap) | Entry::EarlyGapAgain(_, gap) => Some(Err(gap.ns)),
            _ => None,
        }));
    }
    times
}

/// The feature bits of all segments that have begun.
fn features(storage: &MemoryStorage) -> Vec<bool> {
    let early = |name: &String| {
        let id = SegmentId::of_file_name(name)?;
        match SegmentHeader::read(&*storage.open(name).unwrap(), id).unwrap() {
            HeaderRead::Intact(header) => Some(header.early),
            _ => None,
        }
    };
    storage.files().keys().filter_map(early).collect()
}

#[test]
fn early_entries_lie_where_an_older_gateway_refuses_to_look_and_nothing_else_does() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    wait_for(&journal, submit_rows(&journal, 0, 2, "a").unwrap());
    assert_eq!(features(&storage), [false], "a journal without any stays what it was");
    let fields = [("i".into(), Value::Integer(4))];
    let row = Entry::EarlyRow(MACHINE, early_row(0, Fields::of(&fields)));
    commit(&journal, &[Entry::Clock(ClockEntry { machine: MACHINE, told_ns: 9 }), row]);
    commit(&journal, &[row]);
    assert_eq!(features(&storage), [false, true]);
    journal.close();
    let (journal, _) = open(&storage);
    commit(&journal, &[row]);
    assert_eq!(features(&storage), [false, true], "the last segment is gone on with");
    let text = "x".repeat(10_000);
    for sequence in (10..40).step_by(5) {
        wait_for(&journal, submit_rows(&journal, sequence, 5, &text).unwrap());
    }
    let features = features(&storage);
    assert!(features.len() > 3 && features[2..].iter().all(|early| *early), "their snapshots tell of clocks");
}

#[test]
fn a_fix_is_shown_once_it_is_durable_and_the_first_one_stands() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    let fields = [("i".into(), Value::Integer(4))];
    let row = Entry::EarlyRow(MACHINE, early_row(0, Fields::of(&fields)));
    commit(&journal, &[Entry::Clock(ClockEntry { machine: MACHINE, told_ns: 9 }), row]);
    storage.faults(|f| f.hold_syncs = true);
    let fix = |offset_ns| {
        let fix = Entry::ClockFix(FixEntry { machine: MACHINE, offset_ns, estimated: false });
        let submitted: Result<_, Refused> = journal.submit(Class::Internal, |_, s| s.add(&fix));
        submitted.unwrap().1
    };
    let receipt = fix(1_000);
    assert!(!journal.with_state(|state| state.clocks().is_waiting(MACHINE)), "no other will be made");
    assert_eq!(times(&journal), [Err(40)]);
    let after_cut = storage.power_cut(|_, _| false);
    storage.faults(|f| f.hold_syncs = false);
    wait_for(&journal, receipt);
    assert_eq!(times(&journal), [Ok(1_040)]);
    wait_for(&journal, fix(7_000));
    commit(&journal, &[row]);
    assert_eq!(times(&journal), [Ok(1_040), Ok(1_040)]);
    drop(journal);
    assert_eq!(times(&open(&storage).0), [Ok(1_040), Ok(1_040)], "from the snapshot or the entries");
    assert_eq!(times(&open(&after_cut).0), [Err(40)], "what nobody was shown may be made anew");
}

#[test]
fn a_clock_makes_room_for_another_once_everybody_has_its_rows_and_not_before() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_shaped(&storage, Shape { segment_bytes: 64 << 10, ..SMALL });
    journal.register_sink("main").unwrap();
    let fields = [("i".into(), Value::Integer(4))];
    let machine = |n: usize| MachineBoot(n as u64);
    let begin = |n: usize| {
        let clock = Entry::Clock(ClockEntry { machine: machine(n), told_ns: 9 });
        let row = Entry::EarlyRow(machine(n), early_row(n as u64, Fields::of(&fields)));
        commit(&journal, &[clock, row])
    };
    let fix = |n| Entry::ClockFix(FixEntry { machine: machine(n), offset_ns: 100, estimated: false });
    let has_room = || journal.with_state(State::has_room_for_clock);
    let first = begin(0);
    let second = (1..CLOCKS_MAX).map(begin).min().unwrap();
    commit(&journal, &[fix(0), fix(1)]);
    assert!(!has_room(), "a database is still to get the rows of the first");
    let cursor = |next| journal.submit(Class::Internal, |_, s| s.add_cursor("main", next, &[])).unwrap();
    cursor(first);
    assert!(has_room());
    begin(CLOCKS_MAX);
    assert!(!has_room());
    let (fixes, known) =
        (journal.fixes(), journal.with_state(|state| state.clocks().get(machine(0)).is_some()));
    assert!(!known && !fixes.has_forgotten(first) && fixes.has_forgotten(Offset(first.0 - 1)));
    cursor(second);
    assert!(has_room());
    let state = journal.with_state(State::clone);
    assert_eq!(
        State::from_bytes(&state.to_bytes().unwrap(), SMALL.segment_bytes as usize / 4).unwrap().clocks(),
        state.clocks()
    );
    assert_eq!(journal.id(), SMALL_JOURNAL);
}
