//! The store as a whole: what it keeps, what it lets go, and what it says of both.

mod crash;
mod damage;
mod faulty;
mod format;
mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::journal::JournalId;
use crate::journal::memory::MemoryStorage;
use crate::record::Offset;
use faulty::{Faulty, Kind};

/// A letter of the sink `main`, or of intake, that tells its number everywhere.
fn letter(stage: Stage, number: u64, body_bytes: usize) -> Letter {
    let body: Box<[u8]> = number.to_le_bytes().into_iter().cycle().take(body_bytes).collect();
    Letter {
        sink: if stage == Stage::Delivery { "main".into() } else { "".into() },
        journal: JournalId(0xbee),
        offset: Offset(number),
        stage,
        at_ns: 1_700_000_000_000_000_000 + number as i64,
        device: format!("device {number}").into(),
        rows: number % 3 + 1,
        origin: "climate,room=cellar".into(),
        reason: "field type conflict".into(),
        body_bytes: body.len() as u64,
        body,
    }
}

fn refused(number: u64) -> Letter {
    letter(Stage::Delivery, number, 20)
}

fn open(storage: &MemoryStorage) -> DeadLetters {
    DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap()
}

fn read(storage: &MemoryStorage) -> (Vec<Letter>, Vec<Damage>, Dropped) {
    let mut reader = Reader::open(Arc::new(storage.clone())).unwrap();
    let (mut letters, mut damaged) = (Vec::new(), Vec::new());
    for found in &mut reader {
        match found.unwrap() {
            Found::Letter(letter) => letters.push(letter),
            Found::Damage(damage) => damaged.push(damage),
        }
    }
    (letters, damaged, reader.dropped())
}

/// All letters of a store without damage.
fn intact(storage: &MemoryStorage) -> Vec<Letter> {
    let (letters, damaged, _) = read(storage);
    assert_eq!(damaged, []);
    letters
}

fn offsets(storage: &MemoryStorage) -> Vec<u64> {
    intact(storage).iter().map(|letter| letter.offset.0).collect()
}

/// Names of the files of letters.
fn letter_files(storage: &MemoryStorage) -> Vec<String> {
    storage.files().into_keys().filter(|name| file::FileNumber::of_file_name(name).is_some()).collect()
}

#[test]
fn letters_come_back_as_they_were_in_this_life_and_in_the_next() {
    let storage = MemoryStorage::new();
    let first = [
        letter(Stage::Delivery, 3, 0),
        letter(Stage::Intake, 3, INTAKE_BODY_BYTES_MAX),
        Letter { sink: "second".into(), ..letter(Stage::Delivery, 3, DELIVERY_BODY_BYTES_MAX) },
        Letter { device: "".into(), reason: "ä".repeat(512).into(), at_ns: i64::MIN, ..refused(2) },
        Letter { offset: Offset(u64::MAX), rows: u64::MAX, body_bytes: u64::MAX, ..refused(0) },
    ];
    let store = open(&storage);
    let all = Appended { written: 5, ..Appended::default() };
    assert_eq!(store.append(&first).unwrap(), all);
    assert_eq!(intact(&storage), first);
    store.append(&[refused(4)]).unwrap();
    let store = open(&storage);
    assert_eq!(intact(&storage).len(), 6);
    store.append(&[refused(5)]).unwrap();
    assert_eq!(offsets(&storage), [3, 3, 3, 2, u64::MAX, 4, 5]);
    assert_eq!(letter_files(&storage).len(), 2, "an old file is not written again");
}

#[test]
fn a_letter_that_is_let_go_of_is_gone_in_every_life_and_may_come_again() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    store.append(&[refused(1), refused(2), letter(Stage::Intake, 1, 9), refused(3)]).unwrap();
    store.remove(&[refused(1), refused(3), refused(77)]).unwrap();
    let left = [refused(2), letter(Stage::Intake, 1, 9)];
    assert_eq!(intact(&storage), left);
    // The mark of the end is no proof that is needed.
    storage.remove(file::END_FILE).unwrap();
    let store = open(&storage);
    store.append(&[refused(2), refused(3)]).unwrap();
    assert_eq!(intact(&storage), [&left[..], &[refused(3)]].concat(), "it has come again, behind the others");
    assert_eq!(store.append(&[refused(3)]).unwrap().known, 1);
    store.remove(&[refused(3), refused(2)]).unwrap();
    drop(store);
    open(&storage).append(&[refused(4)]).unwrap();
    assert_eq!(offsets(&storage), [1, 4]);
    let reader = Reader::open(Arc::new(storage)).unwrap();
    assert_eq!(reader.find(&"main-3".parse().unwrap()).unwrap(), None);
}

#[test]
fn a_letter_is_found_by_its_id() {
    let storage = MemoryStorage::new();
    let second = Letter { sink: "second-1".into(), ..refused(3) };
    let letters = [refused(3), letter(Stage::Intake, 3, 9), second, refused(4)];
    open(&storage).append(&letters).unwrap();
    for (id, place) in [("main-3", 0), ("intake-3", 1), ("second-1-3", 2), ("main-4", 3)] {
        let reader = Reader::open(Arc::new(storage.clone())).unwrap();
        assert_eq!(letters[place].id().to_string(), id);
        let found = Matches { newest: letters[place].clone(), count: 1 };
        assert_eq!(reader.find(&id.parse().unwrap()).unwrap(), Some(found), "{id}");
    }
    let reader = Reader::open(Arc::new(storage)).unwrap();
    assert_eq!(reader.find(&"second-3".parse().unwrap()).unwrap(), None);
}

#[test]
fn letters_of_a_new_journal_are_kept_beside_those_of_the_old_one() {
    let storage = MemoryStorage::new();
    let old = letter(Stage::Intake, 5, 3);
    let new = Letter { journal: JournalId(0xcab), body: b"new"[..].into(), ..old.clone() };
    // In one life, and in another one that has to look into the files.
    assert_eq!(open(&storage).append(std::slice::from_ref(&old)).unwrap().written, 1);
    let store = open(&storage);
    for known in [0, 1] {
        assert_eq!(store.append(std::slice::from_ref(&new)).unwrap().known, known);
    }
    assert_eq!(intact(&storage), [old.clone(), new.clone()]);
    let found = Reader::open(Arc::new(storage)).unwrap().find(&old.id()).unwrap();
    assert_eq!(found, Some(Matches { newest: new, count: 2 }));
}

#[test]
fn what_is_there_already_is_kept_once() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let letters: Vec<Letter> = (10..20).map(refused).collect();
    store.append(&letters[..5]).unwrap();
    let appended = store.append(&letters).unwrap();
    assert_eq!((appended.written, appended.known), (5, 5));
    let twice = [refused(15), refused(3), refused(3), letter(Stage::Intake, 15, 1)];
    let appended = open(&storage).append(&twice).unwrap();
    assert_eq!((appended.written, appended.known), (2, 2));
    assert_eq!(open(&storage).append(&letters).unwrap().known, 10);
    assert_eq!(offsets(&storage), [(10..20).collect(), vec![3, 15]].concat());
}

#[test]
fn nothing_to_append_makes_no_files() {
    let storage = MemoryStorage::new();
    assert_eq!(open(&storage).append(&[]).unwrap(), Appended::default());
    assert!(storage.files().is_empty());
    assert_eq!(read(&storage), (vec![], vec![], Dropped::default()));
}

#[test]
fn one_flush_makes_a_thousand_letters_durable() {
    let storage = Faulty::new();
    let store = DeadLetters::open(Arc::new(storage.clone()), 64 << 20).unwrap();
    store.append(&[refused(0)]).unwrap();
    let before = storage.made(Kind::Sync);
    store.append(&(1..1001).map(refused).collect::<Vec<_>>()).unwrap();
    assert_eq!(storage.made(Kind::Sync) - before, 1);
    assert_eq!(intact(&storage.power_cut(|_, _| false)).len(), 1001);
}

#[test]
fn a_flood_stays_within_the_limit_and_every_letter_is_listed_or_counted() {
    let mixed: &[usize] = &[0, 20, 700, 16_000];
    let floods = [(MAX_BYTES_LEAST, mixed), (MAX_BYTES_LEAST, &[900]), (300_000, mixed), (1 << 20, mixed)];
    for (max_bytes, sizes) in floods {
        let storage = Faulty::new();
        let mut store = DeadLetters::open(Arc::new(storage.clone()), max_bytes).unwrap();
        let (mut next, mut reported, mut appended_rows) = (0, Dropped::default(), 0);
        for round in 0..400 {
            let size = sizes[round % sizes.len()];
            let count = round as u64 % 29 + 1;
            let letters: Vec<Letter> =
                (next..next + count).map(|number| letter(Stage::Delivery, number, size)).collect();
            next += count;
            appended_rows += letters.iter().map(|letter| letter.rows).sum::<u64>();
            reported.add(store.append(&letters).unwrap().dropped);
            if round % 50 == 49 {
                store = DeadLetters::open(Arc::new(storage.clone()), max_bytes).unwrap();
            }
        }
        assert!(storage.bytes_max() <= max_bytes, "{} of {max_bytes} bytes", storage.bytes_max());
        let (letters, damaged, dropped) = read(&storage.live());
        assert_eq!((damaged, dropped), (vec![], reported));
        let kept: Vec<u64> = letters.iter().map(|letter| letter.offset.0).collect();
        assert_eq!(kept, (dropped.letters..next).collect::<Vec<_>>(), "the newest stay");
        let kept_rows: u64 = letters.iter().map(|letter| letter.rows).sum();
        assert_eq!(kept_rows + dropped.rows, appended_rows);
        let on_disk: usize = storage.live().files().values().map(Vec::len).sum();
        assert!(on_disk as u64 > max_bytes / 2, "{on_disk} of {max_bytes} bytes are used");
    }
}

#[test]
fn a_lower_limit_holds_from_the_next_file_on() {
    let storage = MemoryStorage::new();
    let letters: Vec<Letter> = (0..500).map(|number| letter(Stage::Delivery, number, 2_000)).collect();
    DeadLetters::open(Arc::new(storage.clone()), 64 << 20).unwrap().append(&letters).unwrap();
    let appended = open(&storage).append(&[refused(1_000)]).unwrap();
    assert_eq!(appended.dropped.letters, 500);
    assert_eq!(offsets(&storage), [1_000]);
    assert_eq!(read(&storage).2, appended.dropped);
}

#[test]
fn a_limit_without_room_is_refused() {
    let refused = DeadLetters::open(Arc::new(MemoryStorage::new()), MAX_BYTES_LEAST - 1);
    assert!(refused.unwrap_err().to_string().contains("at least 262144"));
}

#[test]
fn a_directory_is_made_and_read_by_others_while_letters_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("data/dead-letters");
    assert!(Reader::open_dir(&directory).unwrap().next().is_none());
    let store = DeadLetters::open_dir(&directory, MAX_BYTES_LEAST).unwrap();
    let done = AtomicBool::new(false);
    let (mut reads, mut most) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Two files' worth of letters at a time: files come and go under the readers' eyes.
            for round in 0..60 {
                let numbers = round * 40..(round + 1) * 40;
                let letters: Vec<Letter> = numbers.map(|n| letter(Stage::Delivery, n, 900)).collect();
                store.append(&letters).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let mut last = None;
            for found in Reader::open_dir(&directory).unwrap() {
                let Found::Letter(letter) = found.unwrap() else { panic!("damage") };
                assert!(last < Some(letter.offset), "{last:?} before {}", letter.offset);
                last = Some(letter.offset);
            }
            most = most.max(last.map_or(0, |offset| offset.0));
            reads += 1;
        }
    });
    let mut reader = Reader::open_dir(&directory).unwrap();
    let kept = reader.by_ref().count() as u64;
    assert_eq!(kept + reader.dropped().letters, 2_400, "after {reads} reads, the last up to {most}");
}

#[test]
fn what_a_newer_program_wrote_is_refused_and_left_alone() {
    let storage = MemoryStorage::new();
    open(&storage).append(&[refused(1)]).unwrap();
    let [name] = &letter_files(&storage)[..] else { panic!("one file") };
    for (place, value) in [(8, 2), (12, 1)] {
        let mut files: BTreeMap<String, Vec<u8>> = storage.files();
        let bytes = files.get_mut(name).unwrap();
        for copy in [0, 512] {
            bytes[copy + place] = value;
            let checksum = crc32c::crc32c(&bytes[copy..copy + 80]);
            bytes[copy + 80..copy + 84].copy_from_slice(&checksum.to_le_bytes());
        }
        let newer = MemoryStorage::new();
        files.iter().for_each(|(name, bytes)| newer.put(name, bytes.clone()));
        let said = DeadLetters::open(Arc::new(newer.clone()), MAX_BYTES_LEAST).unwrap_err().to_string();
        assert!(said.contains(name) && said.contains("run the version that wrote them"), "{said}");
        assert!(Reader::open(Arc::new(newer.clone())).is_err());
        assert_eq!(newer.files(), files);
    }
}
