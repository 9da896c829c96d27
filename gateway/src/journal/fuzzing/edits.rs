//! The directory that an input describes: one of the real journals, and what is then done to its files.

use super::super::JournalId;
use super::super::end::{END_DRAFT, END_FILE, EndFile, EndMark};
use super::super::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader};
use super::super::memory::MemoryStorage;
use super::super::segment::{SegmentHeader, SegmentId};
use super::super::spare::FILLING;
use super::life::{SHAPE, held};
use super::rescan;
use super::samples::{Files, JOURNAL, samples};
use crate::fuzzing::Feed;
use crate::record::Offset;

const EDITS_MAX: usize = 48;
const FILES_MAX: usize = 16;
const FILE_BYTES_MAX: usize = 3 * SHAPE.segment_bytes as usize;
const SECTOR_BYTES: usize = 512;

/// Carries out the input.
pub(super) fn directory(feed: &mut Feed<'_>) -> Files {
    let samples = samples();
    let mut files = samples[usize::from(feed.byte()) % samples.len()].clone();
    for _ in 0..EDITS_MAX {
        if feed.is_empty() {
            break;
        }
        edit(&mut files, feed);
    }
    files
}

fn edit(files: &mut Files, feed: &mut Feed<'_>) {
    match feed.byte() % 14 {
        0 => with_byte(files, feed, |byte, feed| *byte ^= 1 << (feed.byte() % 8)),
        1 => with_byte(files, feed, |byte, feed| *byte = feed.byte()),
        2 => overwrite(files, feed),
        3 => with_sectors(files, feed, |sectors, _| sectors.fill(0)),
        4 => with_sectors(files, feed, |sectors, feed| sectors.fill(feed.byte())),
        5 => with_file(files, feed, |bytes, feed| bytes.truncate(feed.below(bytes.len() + 1))),
        6 => with_file(files, feed, |bytes, feed| {
            bytes.resize(FILE_BYTES_MAX.min(bytes.len() + feed.below(2 * SECTOR_BYTES)), feed.byte());
        }),
        7 => copy(files, feed),
        8 => swap(files, feed),
        9 => drop(existing(files, feed).and_then(|name| files.remove(&name))),
        10 => {
            let name = new_name(feed);
            let bytes = feed.bytes();
            put(files, name, bytes.to_vec());
        }
        11 => header(files, feed),
        12 => frame(files, feed),
        _ => mark(files, feed),
    }
}

/// The name of a file that is there.
fn existing(files: &Files, feed: &mut Feed<'_>) -> Option<String> {
    files.keys().nth(feed.byte() as usize % files.len().max(1)).cloned()
}

fn new_name(feed: &mut Feed<'_>) -> String {
    match feed.byte() % 25 {
        0 => END_FILE.into(),
        1 => FILLING.into(),
        2 => "lock".into(),
        3 => "00000000000000000001.seg~".into(),
        24 => END_DRAFT.into(),
        id => SegmentId(u64::from(id) - 3).file_name(),
    }
}

fn put(files: &mut Files, name: String, mut bytes: Vec<u8>) {
    bytes.truncate(FILE_BYTES_MAX);
    if files.len() < FILES_MAX || files.contains_key(&name) {
        files.insert(name, bytes);
    }
}

fn with_file(files: &mut Files, feed: &mut Feed<'_>, change: impl FnOnce(&mut Vec<u8>, &mut Feed<'_>)) {
    if let Some(bytes) = existing(files, feed).and_then(|name| files.get_mut(&name)) {
        change(bytes, feed);
    }
}

fn with_byte(files: &mut Files, feed: &mut Feed<'_>, change: impl FnOnce(&mut u8, &mut Feed<'_>)) {
    with_file(files, feed, |bytes, feed| {
        let at = feed.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            change(byte, feed);
        }
    });
}

fn with_sectors(files: &mut Files, feed: &mut Feed<'_>, change: impl FnOnce(&mut [u8], &mut Feed<'_>)) {
    with_file(files, feed, |bytes, feed| {
        let from = usize::from(feed.byte()) % bytes.len().div_ceil(SECTOR_BYTES).max(1) * SECTOR_BYTES;
        let to = bytes.len().min(from + (1 + usize::from(feed.byte()) % 4) * SECTOR_BYTES);
        change(&mut bytes[from..to], feed);
    });
}

fn overwrite(files: &mut Files, feed: &mut Feed<'_>) {
    with_file(files, feed, |bytes, feed| {
        let at = feed.below(bytes.len() + 1);
        let new = feed.bytes();
        let end = FILE_BYTES_MAX.min(at + new.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(at..end) {
            place.copy_from_slice(&new[..end - at]);
        }
    });
}

fn copy(files: &mut Files, feed: &mut Feed<'_>) {
    let from = existing(files, feed);
    let name = new_name(feed);
    if let Some(bytes) = from.and_then(|from| files.get(&from)).cloned() {
        put(files, name, bytes);
    }
}

fn swap(files: &mut Files, feed: &mut Feed<'_>) {
    let (Some(one), Some(other)) = (existing(files, feed), existing(files, feed)) else { return };
    let (Some(first), Some(second)) = (files.get(&one).cloned(), files.get(&other).cloned()) else { return };
    files.insert(one, second);
    files.insert(other, first);
}

/// Writes a header with a right checksum, which says anything.
fn header(files: &mut Files, feed: &mut Feed<'_>) {
    let Some(name) = existing(files, feed) else { return };
    let (kind, first, back) = (feed.byte(), feed.short(), feed.byte());
    let own = SegmentId::of_file_name(&name).unwrap_or(SegmentId(1));
    let header = SegmentHeader {
        journal: if kind & 1 == 0 { JOURNAL } else { JournalId(7) },
        segment: if kind & 2 == 0 { own } else { SegmentId(own.0.saturating_sub(1 + u64::from(kind >> 4))) },
        first: Offset(first.into()),
        void: Offset(first.saturating_sub(back.into()).into()),
        length: SHAPE.segment_bytes,
        early: kind & 32 != 0,
        shared: kind & 16 != 0,
        boots: back & 128 != 0,
    };
    let (mut sector, _) = header.encode();
    if kind & 12 == 12 {
        // A version, or a feature, that is not known.
        let at = if kind & 64 == 0 { 8 } else { 13 };
        sector[at + usize::from(kind >> 7)] ^= 4;
        let checksum = crc32c::crc32c(&sector[..56]);
        sector[56..60].copy_from_slice(&checksum.to_le_bytes());
    }
    if let Some(bytes) = files.get_mut(&name) {
        bytes.resize(bytes.len().max(SECTOR_BYTES), 0);
        bytes[..SECTOR_BYTES].copy_from_slice(&sector);
    }
}

/// Writes a frame with a right checksum: one that is there, changed; or a new one, of anything, at a sector boundary.
fn frame(files: &mut Files, feed: &mut Feed<'_>) {
    let Some(name) = existing(files, feed) else { return };
    let Some(segment) = SegmentId::of_file_name(&name) else { return };
    let Some(bytes) = files.get_mut(&name) else { return };
    let seen = rescan::frames(bytes, segment.0, JOURNAL.0);
    let (kind, place) = (feed.byte(), usize::from(feed.byte()));
    let known = if kind & 1 == 0 && !seen.is_empty() { Some(seen[place % seen.len()]) } else { None };
    let (at, mut header, mut whole) = match known {
        Some(known) => {
            let whole = bytes[known.at..known.at + known.length].to_vec();
            let Some((header, _)) = FrameHeader::parse(&whole, segment, JOURNAL) else { return };
            (known.at, header, whole)
        }
        None => (
            SECTOR_BYTES * (1 + place % (SHAPE.segment_bytes as usize / SECTOR_BYTES)),
            FrameHeader {
                length: FRAME_HEADER_BYTES,
                count: 1,
                complete: true,
                snapshot: false,
                segment,
                first: Offset(0),
                watermark: Offset(0),
                learned: 0,
                previous: 0,
            },
            vec![0; FRAME_HEADER_BYTES],
        ),
    };
    if kind & 2 != 0 {
        header.first = Offset(feed.short().into());
    }
    if kind & 4 != 0 {
        header.watermark = Offset(feed.short().into());
    }
    if kind & 8 != 0 {
        header.learned = feed.short().into();
    }
    if kind & 16 != 0 {
        header.count = feed.byte().into();
    }
    header.complete ^= kind & 32 != 0;
    header.snapshot ^= kind & 64 != 0;
    if kind & 128 != 0 || known.is_none() {
        let skip = FRAME_HEADER_BYTES + feed.below(whole.len() + 1 - FRAME_HEADER_BYTES);
        let body = feed.bytes();
        let end = whole.len().max(skip + body.len()).min(FRAME_BYTES_MAX);
        // A frame that is there keeps its length, lest it covers the next one.
        let end = if known.is_some() { whole.len() } else { end };
        whole.resize(end, 0);
        let body = &body[..body.len().min(end - skip)];
        whole[skip..skip + body.len()].copy_from_slice(body);
    }
    header.length = whole.len();
    header.seal(&mut whole, JOURNAL);
    if at + whole.len() <= FILE_BYTES_MAX {
        bytes.resize(bytes.len().max(at + whole.len()), 0);
        bytes[at..at + whole.len()].copy_from_slice(&whole);
    }
}

/// Writes an end mark with a right checksum, which says anything.
fn mark(files: &mut Files, feed: &mut Feed<'_>) {
    let (kind, watermark, learned) = (feed.byte(), feed.short(), feed.short());
    let storage = MemoryStorage::new();
    if let Some(bytes) = files.get(END_FILE).filter(|_| kind & 1 == 0) {
        storage.put(END_FILE, bytes.clone());
    }
    let journal = if kind & 2 == 0 { JOURNAL } else { JournalId(7) };
    let mark = EndMark { watermark: Offset(watermark.into()), learned: learned.into() };
    let before = held(EndFile::read(&storage), "reading the mark");
    held(EndFile::open(&storage, journal, before, mark).and_then(|mut file| file.write(mark)), "the mark");
    if let Some(bytes) = storage.files().remove(END_FILE) {
        put(files, END_FILE.into(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::segment::{FORMAT_VERSION, HeaderRead};
    use super::super::super::storage::Storage;
    use super::*;

    #[test]
    fn headers_are_of_versions_and_of_features_that_are_not_known_too() {
        let name = SegmentId(1).file_name();
        let (mut versions, mut features, mut known) = (0, 0, 0);
        for (kind, back) in (0..=255).flat_map(|kind| [(kind, 0), (kind, 128)]) {
            let mut files = Files::from([(name.clone(), vec![0; SECTOR_BYTES])]);
            header(&mut files, &mut Feed::new(&[0, kind, 9, 0, back]));
            let storage = MemoryStorage::new();
            storage.put(&name, files[&name].clone());
            match SegmentHeader::read(&*storage.open(&name).unwrap(), SegmentId(1)).unwrap() {
                HeaderRead::Newer { version, .. } if version != FORMAT_VERSION => versions += 1,
                HeaderRead::Newer { .. } => features += 1,
                HeaderRead::Intact(header) => known += usize::from(header.boots),
                _ => {}
            }
        }
        assert!(versions > 0 && features > 0 && known > 0, "{versions}, {features}, {known}");
    }
}
