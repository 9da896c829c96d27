//! What must hold for any bytes in the directory of the dead letters. See `crate::fuzzing`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::{END_FILE, Extent, FRAMES_AT, FileNumber, Header, sector_up};
use super::frame::{self, Content, Durable, FrameHeader, Salt};
use super::{DeadLetters, Dropped, Found, Letter, MAX_BYTES_LEAST, OpenError, ReadError, Reader, Stage};
use crate::fuzzing::Feed;
use crate::journal::JournalId;
use crate::journal::memory::MemoryStorage;
use crate::record::Offset;

const EDITS_MAX: usize = 48;
const FILES_MAX: usize = 12;
const FILE_BYTES_MAX: usize = 40 << 10;

/// More than can be found in so few bytes.
const FOUND_MAX: usize = 100_000;

type Files = BTreeMap<String, Vec<u8>>;

/// A store that is made as the input says, then damaged as it says: it can be read, and twice the same; it takes a
/// letter and keeps it, and what it had as well.
pub fn dead_letters(input: &[u8]) {
    let mut feed = Feed::new(input);
    let mut files = Files::new();
    for _ in 0..EDITS_MAX {
        if feed.is_empty() {
            break;
        }
        edit(&mut files, &mut feed);
    }
    let storage = MemoryStorage::new();
    files.iter().for_each(|(name, bytes)| storage.put(name, bytes.clone()));

    let Some((before, dropped)) = read(&storage) else {
        let opened = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST);
        assert!(matches!(opened, Err(OpenError::Unreadable(ReadError::Newer { .. }))), "{opened:?}");
        assert_eq!(storage.files(), files, "a newer format was touched");
        return;
    };
    assert_eq!(read(&storage), Some((before.clone(), dropped)), "read a second time");
    assert_eq!(storage.files(), files, "reading changes nothing");
    it_goes_on(&storage, &letters(&before), dropped);
}

fn it_goes_on(storage: &MemoryStorage, before: &[Letter], dropped: Dropped) {
    let new = letter(Stage::Delivery, "after", 1 << 40, 30);
    for life in 0..2 {
        let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST);
        let appended = store.ok().map(|store| store.append(std::slice::from_ref(&new)));
        assert!(
            matches!(&appended, Some(Ok(appended)) if appended.written + appended.known == 1),
            "{appended:?}"
        );
        let (now, dropped_now) = read(storage).unwrap_or_default();
        let now = letters(&now);
        assert!(now.iter().any(|letter| letter.id() == new.id()), "the letter is not there, life {life}");
        if dropped_now == dropped {
            let gone = before.iter().find(|letter| !now.contains(letter));
            assert!(gone.is_none(), "{gone:?} is gone, life {life}");
        }
    }
}

/// Everything that a reader comes across, and what it says was dropped; none if a newer program wrote it.
fn read(storage: &MemoryStorage) -> Option<(Vec<Found>, Dropped)> {
    let opened = Reader::open(Arc::new(storage.clone()));
    let mut reader = match opened {
        Err(ReadError::Newer { .. }) => return None,
        opened => opened.ok(),
    };
    assert!(reader.is_some(), "the store cannot be read");
    let mut found = Vec::new();
    for next in reader.iter_mut().flatten() {
        assert!(next.is_ok(), "{:?}", next.err());
        found.extend(next.ok());
        assert!(found.len() < FOUND_MAX, "reading does not end");
    }
    for damage in found.iter().filter_map(|found| if let Found::Damage(d) = found { Some(d) } else { None }) {
        assert!(damage.from <= damage.to, "{damage:?}");
    }
    Some((found, reader.map(|reader| reader.dropped()).unwrap_or_default()))
}

fn letters(found: &[Found]) -> Vec<Letter> {
    let letter = |found: &Found| if let Found::Letter(letter) = found { Some(letter.clone()) } else { None };
    found.iter().filter_map(letter).collect()
}

fn letter(stage: Stage, sink: &str, offset: u64, body_bytes: usize) -> Letter {
    Letter {
        journal: JournalId(1 + offset % 2),
        sink: sink.into(),
        offset: Offset(offset),
        stage,
        at_ns: 1_700_000_000_000_000_000,
        device: "boiler".into(),
        rows: 1 + offset % 3,
        origin: "climate".into(),
        reason: "field type conflict".into(),
        body: vec![b'v'; body_bytes].into(),
        body_bytes: body_bytes as u64,
    }
}

fn edit(files: &mut Files, feed: &mut Feed<'_>) {
    match feed.byte() % 10 {
        0 | 1 => make(files, feed),
        2 => end(files, feed),
        3 => with_file(files, feed, |bytes, feed| {
            let at = feed.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (feed.byte() % 8);
            }
        }),
        4 => with_file(files, feed, |bytes, feed| {
            let (from, length) = (feed.below(bytes.len() + 1), feed.below(2_000));
            let to = bytes.len().min(from + length);
            bytes[from..to].fill(feed.byte());
        }),
        5 => with_file(files, feed, |bytes, feed| bytes.truncate(feed.below(bytes.len() + 1))),
        6 => with_file(files, feed, |bytes, feed| {
            let (at, new) = (feed.below(bytes.len() + 1), feed.bytes());
            let end = FILE_BYTES_MAX.min(at + new.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }),
        7 => drop(existing(files, feed).and_then(|name| files.remove(&name))),
        8 => {
            let (from, to) = (existing(files, feed), name(feed));
            if let Some(bytes) = from.and_then(|from| files.get(&from)).cloned() {
                put(files, to, bytes);
            }
        }
        _ => {
            let (name, bytes) = (name(feed), feed.bytes());
            put(files, name, bytes.to_vec());
        }
    }
}

/// A file with everything as it should be, but for what the input wants otherwise.
fn make(files: &mut Files, feed: &mut Feed<'_>) {
    let number = FileNumber(feed.byte().into());
    let (kind, back) = (feed.byte(), u64::from(feed.byte()));
    let before = files.get(&FileNumber(number.0.wrapping_sub(1)).file_name());
    let extent = |number| Extent {
        number: FileNumber(number),
        end: before.map_or(0, Vec::len) as u64 & !(back << 9),
        letters: back,
    };
    let header = Header {
        number: if kind & 1 == 0 { number } else { FileNumber(back) },
        salt: Salt(0x5a17 + number.0),
        first: FileNumber(number.0.saturating_sub(u64::from(kind >> 4))),
        previous: number.0.checked_sub(1 + back % 4).map(extent).filter(|_| kind & 2 == 0),
        dropped: Dropped { letters: back, rows: 2 * back },
    };
    let mut bytes = Vec::new();
    header.push(&mut bytes);
    let mut given = 0;
    for append in 0..1 + kind % 4 {
        let durable = Durable { end: bytes.len() as u32, letters: given };
        for n in 0..1 + feed.byte() % 4 {
            let stage = if n % 2 == 0 { Stage::Delivery } else { Stage::Intake };
            let offset = number.0 * 64 + u64::from(append) * 8 + u64::from(n);
            let letter = letter(stage, if n % 2 == 0 { "main" } else { "" }, offset, feed.byte().into());
            frame::push(&mut bytes, &Content::Letter(letter.view()), header.salt, given, durable);
            given += 1;
            if kind & 4 != 0 && offset.is_multiple_of(3) {
                frame::push(&mut bytes, &Content::Gone(letter.view().key), header.salt, given, durable);
            }
        }
        bytes.resize(sector_up(bytes.len() as u64) as usize, 0);
    }
    put(files, number.file_name(), bytes);
}

/// The file that says how much is durable: up to the end of any append of any file, with any number of letters.
fn end(files: &mut Files, feed: &mut Feed<'_>) {
    let number = FileNumber(feed.byte().into());
    let ends = files.get(&number.file_name()).map(|bytes| ends_of_appends(bytes)).unwrap_or_default();
    let end = ends.get(usize::from(feed.byte()) % ends.len().max(1)).copied().unwrap_or(FRAMES_AT);
    let extent = Extent { number, end, letters: feed.byte().into() };
    put(files, END_FILE.into(), extent.encode().to_vec());
}

fn ends_of_appends(bytes: &[u8]) -> Vec<u64> {
    let (mut ends, mut at) = (vec![FRAMES_AT], FRAMES_AT);
    while let Some(rest) = bytes.get(at as usize..)
        && let Some(header) = FrameHeader::claim(rest, None)
    {
        at += header.length as u64;
        if FrameHeader::claim(bytes.get(at as usize..).unwrap_or_default(), None).is_none() {
            at = sector_up(at);
            ends.push(at);
        }
    }
    ends
}

fn existing(files: &Files, feed: &mut Feed<'_>) -> Option<String> {
    files.keys().nth(usize::from(feed.byte()) % files.len().max(1)).cloned()
}

fn name(feed: &mut Feed<'_>) -> String {
    let number = FileNumber(feed.byte().into());
    match number.0 % 8 {
        0 => END_FILE.into(),
        1 => number.new_name(),
        _ => number.file_name(),
    }
}

fn with_file(files: &mut Files, feed: &mut Feed<'_>, change: impl FnOnce(&mut Vec<u8>, &mut Feed<'_>)) {
    if let Some(bytes) = existing(files, feed).and_then(|name| files.get_mut(&name)) {
        change(bytes, feed);
    }
}

fn put(files: &mut Files, name: String, mut bytes: Vec<u8>) {
    bytes.truncate(FILE_BYTES_MAX);
    if files.len() < FILES_MAX || files.contains_key(&name) {
        // An end within an append, which another file's end may be, was never written.
        let number = FileNumber::of_file_name(&name).map(|number| number.0.to_le_bytes());
        if files.get(END_FILE).and_then(|end| end.get(16..24)) == number.as_ref().map(|number| &number[..]) {
            files.remove(END_FILE);
        }
        files.insert(name, bytes);
    }
}
