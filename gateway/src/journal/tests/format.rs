//! The format, byte by byte, and a journal of it that is kept. What is pinned here is on somebody's disk.

use std::path::PathBuf;

use super::end::{EndMark, EndRead};
use super::entry::{
    Cause, Counts, CursorEntry, DeviceEntry, GapEntry, LetterEntry, LettersEntry, MessageEntry, SessionId,
    SinkEntry, SkipEntry,
};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use super::segment::SegmentHeader;
use super::small::{every_kind, open_small, survey_small};
use super::state::DeviceState;
use super::*;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a snapshot that an older gateway wrote, in hex, is read as what `state` was without counts by boot.
#[track_caller]
pub(super) fn check_snapshot_without_boots(snapshot: &str, state: &State) {
    let digits = |at: usize| u8::from_str_radix(&snapshot[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..snapshot.len()).step_by(2).map(digits).collect();
    let read = State::from_bytes(&bytes, 10_000).unwrap();
    let without_boots = |device: &DeviceState| {
        let mut device = device.clone();
        device.by_boot.clear();
        device
    };
    assert_eq!(read.devices(), state.devices().iter().map(without_boots).collect::<Vec<_>>());
    assert_eq!((read.sinks(), read.clocks()), (state.sinks(), state.clocks()));
    assert_eq!((read.learned(), read.last_stamp()), (state.learned(), state.last_stamp()));
    assert_eq!(read.to_bytes().unwrap()[0], bytes[0], "it goes on in its form until a boot begins");
}

fn every_entry(check: impl Fn(&Entry<'_>, &str)) {
    let fields = [
        ("f".into(), Value::Float(21.5)),
        ("i".into(), Value::Integer(-3)),
        ("u".into(), Value::Unsigned(300)),
        ("b".into(), Value::Boolean(true)),
        ("t".into(), Value::Text("ä".into())),
    ];
    let fields = Fields::of(&fields);
    let row =
        RowEntry { device: "e6", boot: 7, sequence: 130, stamped: true, series: "m,d=e6", ns: -2, fields };
    check(
        &Entry::Row(row),
        "3400010102653607820106\
         6d2c643d6536feffffffffffffff\
         0166000000000000803540016901050175\
         02ac020162040174\
         0502c3a4",
    );
    let gap = GapEntry {
        device: "e6",
        boot: 7,
        from: 1,
        to: 4,
        count: 3,
        cause: Cause::Rejected,
        sink: Some("main"),
        stamped: true,
        series: "g",
        ns: 1,
    };
    check(&Entry::Gap(gap), "190002030302653607010403046d61696e01670100000000000000");
    check(
        &Entry::Gap(GapEntry { sink: None, stamped: false, cause: Cause::Overflow, ..gap }),
        "14000200000265360701040301670100000000000000",
    );
    check(&Entry::GapAgain(gap), "19000a030302653607010403046d61696e01670100000000000000");
    check(
        &Entry::Device(DeviceEntry { device: "e6", name: "boiler", boot: 7, first: 9 }),
        "0d000302653606626f696c65720709",
    );
    check(&Entry::Sink(SinkEntry { sink: "main", start: Offset(200) }), "080004046d61696ec801");
    check(&Entry::Forget("main"), "060007046d61696e");
    let counts = [("e6".into(), 2), ("b".into(), 128)];
    check(
        &Entry::Cursor(CursorEntry { sink: "main", next: Offset(5), confirmed: Counts::of(&counts) }),
        "0f0005046d61696e050265360201628001",
    );
    check(&Entry::Skip(SkipEntry { sink: "main", to: Offset(6) }), "070009046d61696e06");
    let letter = LetterEntry {
        device: "e6",
        rows: 1,
        ns: 2,
        origin: "t/x",
        reason: "no JSON",
        body_bytes: 5,
        body: b"\xff{",
    };
    check(&Entry::Letter(letter), "1c000602653601020000000000000003742f78076e6f204a534f4e05ff7b");
    check(
        &Entry::Letters(LettersEntry { to: Offset(9), unkept: false, rows: Counts::of(&counts[..1]) }),
        "070008000902653602",
    );
    let session = SessionId { broker: 0x1122_3344, generation: 0x5566_7788 };
    let message = MessageEntry { session, number: 300, hash: 0x1122_3344_5566_7788 };
    check(&Entry::Message(message), "13001044332211887766558877665544332211ac02");
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
fn the_bytes_of_a_header() {
    let header = SegmentHeader {
        journal: JournalId(0x1122_3344_5566_7788),
        segment: SegmentId(3),
        first: Offset(300),
        void: Offset(299),
        length: 6144,
        early: false,
        shared: false,
        boots: false,
    };
    let (sector, checksum) = header.encode();
    assert_eq!(
        hex(&sector[..60]),
        "464f52454241594a0100000000000000887766554433221103000000000000002c010000000000002b010000000000000018000000000000632d06fb"
    );
    assert_eq!(hex(&checksum.to_le_bytes()), hex(&sector[56..60]));
    assert!(sector[60..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_bytes_of_a_frame() {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    Entry::Sink(SinkEntry { sink: "main", start: Offset(200) }).encode(&mut bytes).unwrap();
    let header = FrameHeader {
        length: bytes.len(),
        count: 1,
        complete: true,
        snapshot: false,
        segment: SegmentId(3),
        first: Offset(300),
        watermark: Offset(298),
        learned: 77,
        previous: 0xdead_beef,
    };
    header.seal(&mut bytes, JournalId(0x1122_3344_5566_7788));
    assert_eq!(
        hex(&bytes),
        "fb46426a38ea253f3e0000000100010003000000000000002c010000000000002a010000000000004d00000000000000efbeadde080004046d61696ec801"
    );
}

#[test]
fn the_bytes_of_an_end_mark() {
    let mark = EndMark { watermark: Offset(300), learned: 77 };
    let slot = EndRead { mark, journal: JournalId(0x1122_3344_5566_7788), number: 5 }.encode();
    assert_eq!(
        hex(&slot[..52]),
        "464f5245424159450100000000000000887766554433221105000000000000002c010000000000004d0000000000000062a8cb98"
    );
    assert!(slot[52..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_bytes_of_a_snapshot() {
    let mut state = State::new(JournalId(0x1122_3344_5566_7788), 10_000);
    let mut offset = Offset(0);
    let mut apply = |entry: &Entry<'_>| {
        state.apply(offset, entry);
        offset = offset.plus(1);
    };
    apply(&Entry::Sink(SinkEntry { sink: "main", start: Offset(0) }));
    let apply = std::cell::RefCell::new(&mut apply);
    every_entry(|entry, _| {
        if !matches!(entry, Entry::Forget(_)) {
            (*apply.borrow_mut())(entry);
        }
    });
    let bytes = state.to_bytes().unwrap();
    assert_eq!(hex(&bytes), SNAPSHOT);
    check_snapshot_without_boots(
        "0188ef99abc5e88c9111020265360106626f696c6572010709ffffffffffffffffff0101010001000301020001030301620001620000000000018001000001046d61696e060602050109099204",
        &state,
    );
    assert_eq!(State::from_bytes(&bytes, 10_000), Some(state));
}

const SNAPSHOT: &str = "0488ef99abc5e88c9111020265360106626f696c6572010709ffffffffffffffffff0101010001000301020001030301620001620000000000018001000001046d61696e06060205010909b20500000000000100010701010003010000010301";

/// A journal that is kept, by the name of its directory. It is never edited and never made anew: a further version of the
/// format gets a further directory.
pub(super) struct Kept(pub(super) &'static str);

impl Kept {
    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(self.0)
    }

    /// The journal, in memory.
    pub(super) fn read(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for entry in fs::read_dir(self.directory()).unwrap() {
            let path = entry.unwrap().path();
            storage.put(path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
        }
        storage
    }

    pub(super) fn make(&self, journal: &MemoryStorage) {
        fs::create_dir(self.directory()).expect("the fixture is there already, and is never made anew");
        for (name, bytes) in journal.files() {
            fs::write(self.directory().join(name), bytes).unwrap();
        }
    }
}

/// Made the journal that is kept.
#[test]
#[ignore = "makes the fixture, which is kept; it refuses to replace one"]
fn make_the_journal_that_is_kept() {
    println!("cargo test --release -p forebay-gateway --lib make_the_journal_that_is_kept -- --ignored");
    Kept("journal-v1").make(&every_kind());
}

#[test]
fn a_journal_of_version_1_is_read_and_goes_on() {
    let storage = Kept("journal-v1").read();
    let survey = survey_small(&storage);
    let found: Vec<_> = survey.files.candidates.iter().map(|c| (c.segment.id.0, c.segment.first.0)).collect();
    assert_eq!(found, [(2, 11), (3, 20), (4, 25), (5, 30), (6, 35), (7, 40), (8, 45), (11, 50)]);
    assert_eq!(survey.base, 7, "the newest snapshot");
    assert_eq!((survey.files.spares.len(), survey.files.end.map(|end| end.number)), (2, Some(3)));
    let inspection = inspect::inspect(&storage).unwrap();
    assert!(inspection.is_well());
    assert_eq!((inspection.entries, inspection.rows), (45, 37));

    let (journal, report) = open_small(&storage);
    assert_eq!((report.damaged, report.torn_tail, report.snapshot_lost), (vec![], false, false));
    assert_eq!((journal.id(), journal.usage().end), (JournalId(0xf0eb), Offset(56)));
    let (rows, damaged) = read_all(&journal, Offset(11));
    assert_eq!(rows.into_values().collect::<Vec<_>>(), (6..10).chain(12..45).collect::<Vec<_>>());
    assert_eq!(damaged, []);
    journal.with_state(|state| {
        let sinks: Vec<_> = state.sinks().iter().map(|s| (&*s.name, s.cursor.0, s.floor.0)).collect();
        assert_eq!(sinks, [("main", 27, 0), ("sqlite", 16, 16)]);
        let device = state.device("e6614104").unwrap();
        assert_eq!((&*device.name, device.native, device.rows), ("boiler", true, 43));
        assert_eq!(device.boots, [state::BootState { boot: 7, next: 45, last_ns: 1_044 }]);
        assert_eq!(device.gaps.iter().collect::<Vec<_>>(), [(Cause::Overflow, 2)]);
        let ledgers = state.ledgers(device).map(|(sink, l)| (sink, l.confirmed, l.gaps.total()));
        assert_eq!(ledgers.collect::<Vec<_>>(), [("main", 10, 2), ("sqlite", 10, 0)]);
        assert_eq!(state.device("esp").map(|device| device.letters), Some(1));
        assert_eq!((state.learned(), state.last_stamp(), state.oldest_letter()), (46, 1_044, None));
    });
    wait_for(&journal, submit_rows(&journal, 45, 1, "later").unwrap());
    journal.close();
    let (journal, report) = open(&storage);
    assert_eq!((report.damaged, report.torn_tail), (vec![], false), "in the shape of a real one");
    assert_eq!(sequences(&journal).last(), Some(&45));
}
