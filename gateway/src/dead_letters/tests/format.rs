//! The format, byte by byte. What is pinned here is on somebody's disk.

use std::path::Path;

use super::super::file::{Extent, FileNumber, Header};
use super::super::frame::{self, Durable, Salt};
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_header() {
    let header = Header {
        number: FileNumber(3),
        salt: Salt(0x1122_3344_5566_7788),
        first: FileNumber(1),
        previous: Some(Extent { number: FileNumber(2), end: 0x2000, letters: 9 }),
        dropped: Dropped { letters: 5, rows: 6 },
    };
    let mut bytes = Vec::new();
    header.push(&mut bytes);
    assert_eq!(bytes.len(), 1024);
    assert_eq!(bytes[..512], bytes[512..]);
    assert_eq!(
        hex(&bytes[..84]),
        "464f5245424159440100000000000000030000000000000088776655443322110100000000000000020000000000000000200000000000000900000000000000\
         05000000000000000600000000000000eb0e21a1"
    );
    assert!(bytes[84..512].iter().all(|byte| *byte == 0));
}

#[test]
fn the_bytes_of_the_file_that_tells_the_end() {
    let end = Extent { number: FileNumber(3), end: 0x1400, letters: 2 }.encode();
    assert_eq!(
        hex(&end[..44]),
        "464f524542415945010000000000000003000000000000000014000000000000\
         0200000000000000bf6e2ee6"
    );
    assert!(end[44..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_bytes_of_a_letter() {
    let letter = Letter {
        sink: "main".into(),
        journal: JournalId(0x0102_0304_0506_0708),
        offset: Offset(258),
        stage: Stage::Delivery,
        at_ns: -2,
        device: "b".into(),
        rows: 1,
        origin: "m,a=1".into(),
        reason: "no".into(),
        body: b"m,a=1 t=1 5\n"[..].into(),
        body_bytes: 12,
    };
    let mut bytes = Vec::new();
    frame::push(
        &mut bytes,
        &frame::Content::Letter(letter.view()),
        Salt(0x1122_3344_5566_7788),
        7,
        Durable { end: 1024, letters: 6 },
    );
    assert_eq!(
        hex(&bytes),
        "fb46426c58b738006d0000000100000088776655443322110700000000040000060000000108070605040302010201000000000000\
         feffffffffffffff01000000000000000c0000000000000004006d61696e01006205006d2c613d31\
         02006e6f6d2c613d3120743d3120350a"
    );
}

/// The letters of the store under `tests/fixtures/dead-letters-1`, which version 1 wrote in two lives.
fn fixture_letters() -> Vec<Letter> {
    let first = [
        letter(Stage::Delivery, 1, 40),
        letter(Stage::Intake, 2, 700),
        Letter { sink: "second".into(), reason: "ä".into(), ..letter(Stage::Delivery, 1, 0) },
    ];
    let second = [letter(Stage::Intake, 9, 5)];
    [&first[..], &second].concat()
}

#[test]
fn a_store_of_version_1_is_read_and_goes_on() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dead-letters-1");
    let found: Vec<Found> = Reader::open_dir(&directory).unwrap().map(Result::unwrap).collect();
    let expected: Vec<Found> = fixture_letters().into_iter().map(Found::Letter).collect();
    assert_eq!(found, expected);
    let storage = MemoryStorage::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        storage.put(path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
    }
    let appended = open(&storage).append(&[refused(1), refused(3)]).unwrap();
    assert_eq!((appended.written, appended.known), (1, 1));
    assert_eq!(intact(&storage), [fixture_letters(), vec![refused(3)]].concat());
}
