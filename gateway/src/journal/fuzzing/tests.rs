//! Whether the named inputs of the kept corpus (`tests/fuzz/corpus`) still do what their names say: a change of a format
//! makes them stale, and a search that begins with stale inputs does not get far.

use std::fs;
use std::path::Path;

use super::samples::{Files, samples};
use super::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");

fn input(target: &str, name: &str) -> Vec<u8> {
    let path = Path::new(CORPUS).join(target).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn kept_entries_are_of_the_kinds_that_they_are_named_after() {
    let kind = |entry: &Entry<'_>| match entry {
        Entry::Row(_) => "row",
        Entry::Gap(_) => "gap",
        Entry::GapAgain(_) => "gap_again",
        Entry::Device(_) => "device",
        Entry::Sink(_) => "sink",
        Entry::Cursor(_) => "cursor",
        Entry::Letter(_) => "letter",
        Entry::Forget(_) => "forget",
        Entry::Letters(_) => "letters",
        Entry::Skip(_) => "skip",
        Entry::EarlyRow(..) => "early_row",
        Entry::EarlyGap(..) => "early_gap",
        Entry::EarlyGapAgain(..) => "early_gap_again",
        Entry::Clock(_) => "clock",
        Entry::ClockFix(_) => "clock_fix",
        Entry::Message(_) => "message",
        Entry::Shared(_) => "shared",
        Entry::Moved(_) => "moved",
    };
    let own_time = ["row", "gap", "gap_again"];
    let early = ["early_row", "early_gap", "early_gap_again", "clock", "clock_fix"];
    let others =
        ["device", "sink", "cursor", "letter", "forget", "letters", "skip", "message", "shared", "moved"];
    for name in own_time.into_iter().chain(early).chain(others) {
        let bytes = input("entry", name);
        assert_eq!(Entry::decode(&bytes).as_ref().map(kind), Ok(name));
    }
}

#[test]
fn kept_formats_are_read() {
    let raw = input("frame", "raw");
    assert_eq!(raw[0] % 2, 0);
    let (header, _) = FrameHeader::parse(&raw[1..], SegmentId(3), JOURNAL).unwrap();
    let frame = Frame::new(Bytes::copy_from_slice(&raw[1..]), &header);
    assert!(header.count > 0 && frame.entries().all(|(_, entry)| entry.is_ok()));
    assert_eq!(input("frame", "sealed")[0] % 2, 1);

    for (name, is_mark) in [("one", true), ("empty", false), ("zeros", false)] {
        let storage = MemoryStorage::new();
        storage.put(END_FILE, input("end_mark", name));
        assert_eq!(EndFile::read(&storage).unwrap().is_some(), is_mark, "{name}");
    }

    let kept = input("snapshot", "full");
    let mut feed = Feed::new(&kept);
    assert!(Entry::decode(feed.bytes()).is_ok());
    let state = State::from_bytes(feed.rest(), DEVICE_BYTES_MAX).unwrap();
    assert!(!state.devices().is_empty() && state.sinks().len() == 2 && state.oldest_letter().is_some());
}

#[test]
fn kept_journals_are_damaged_as_their_names_say() {
    let made = |name: &str| {
        let bytes = input("recovery", name);
        (edits::directory(&mut Feed::new(&bytes)), &samples()[usize::from(bytes[0])])
    };
    for (at, name) in ["none", "closed", "killed", "trimmed", "rewritten", "lives"].into_iter().enumerate() {
        assert_eq!(made(name).0, samples()[at], "{name}");
    }
    let (files, sample) = made("copied");
    assert_eq!(files.len(), sample.len() + 1);
    let (files, sample) = made("cut");
    assert!(hit(&files, sample, |now, before| before.starts_with(now)));
    let (files, sample) = made("flipped");
    let flipped = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    assert!(hit(&files, sample, |now, before| now.iter().zip(before).map(flipped).sum::<u32>() == 1));
    let (files, sample) = made("zeroed");
    assert!(hit(&files, sample, |now, before| {
        now.iter().zip(before).all(|(now, before)| now == before || *now == 0)
    }));
    let (files, sample) = made("mark");
    assert!(rescan::mark(&files).is_some() && rescan::mark(&files) != rescan::mark(sample));
    for name in ["header", "frame"] {
        let (files, sample) = made(name);
        assert!(hit(&files, sample, |_, _| true), "{name}");
        let (now, before) = (rescan::look(&files, false), rescan::look(sample, false));
        assert_eq!(now.len(), before.len());
        let pairs = || now.iter().zip(&before);
        assert!(pairs().all(|(now, before)| now.frames.len() == before.frames.len()), "{name}");
        assert_eq!(pairs().all(|(now, before)| now.header == before.header), name == "frame");
        assert_eq!(pairs().all(|(now, before)| now.frames == before.frames), name == "header");
    }
    let (files, _) = made("beginning_lost");
    assert_eq!(rescan::look(&files, true).len(), rescan::look(&files, false).len() + 1);
    assert!(rescan::is_newer(&made("newer").0));
    let raw = rescan::look(&made("raw").0, false);
    assert!(raw.len() == 1 && raw[0].header.is_some() && raw[0].frames.len() == 1);
}

/// Whether exactly one file is another than before, in this way.
fn hit(files: &Files, sample: &Files, way: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let changed: Vec<_> = sample.iter().filter(|(name, bytes)| files.get(*name) != Some(bytes)).collect();
    changed.len() == 1 && files.get(changed[0].0).is_some_and(|now| way(now, changed[0].1))
}
