//! What must hold for any bytes that the journal may come to read. See `crate::fuzzing`.
//!
//! Here are the formats by themselves; a whole directory of damaged files is the matter of `recovery.rs`, which makes
//! it from a real journal (`samples.rs`) by edits (`edits.rs`), looks through it on its own (`rescan.rs`), lets the
//! journal open it (`life.rs`) and compares.

mod edits;
mod life;
mod recovery;
mod rescan;
mod samples;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::end::{END_FILE, EndFile, EndMark};
use super::entry::{Entry, take_entry};
use super::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameHeader};
use super::memory::MemoryStorage;
use super::segment::SegmentId;
use super::{JournalId, State};
use crate::fuzzing::{Feed, INPUT_BYTES_MAX};
use crate::record::Offset;
pub use recovery::recovery;

/// Whose frames these are.
const JOURNAL: JournalId = samples::JOURNAL;

/// Bound of what devices take in the states that are made here.
const DEVICE_BYTES_MAX: usize = 2 << 10;

/// A frame: bytes as they come, or bytes sealed as a frame, so that what lies behind the checksum is reached.
pub fn frame(input: &[u8]) {
    let mut feed = Feed::new(input);
    if feed.byte().is_multiple_of(2) {
        let bytes = feed.rest();
        let segment = bytes.get(16..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        any_frame(bytes, SegmentId(u64::from_le_bytes(segment)));
    } else {
        sealed_frame(&mut feed);
    }
}

fn any_frame(bytes: &[u8], segment: SegmentId) {
    let Some((header, checksum)) = FrameHeader::parse(bytes, segment, JOURNAL) else { return };
    let own = &bytes[..header.length];
    let mut again = own.to_vec();
    // A flag of a later version is not written by this one.
    if own[14..16] <= [3, 0][..] {
        assert_eq!(header.seal(&mut again, JOURNAL), checksum);
        assert_eq!(again, own, "the header does not come back");
    }
    let frame = Frame::new(Bytes::copy_from_slice(own), &header);
    assert_eq!(frame.bytes(), header.length);
    assert_eq!(frame.entries().count(), usize::from(header.count));
    assert!(frame.learned_before() <= header.learned);
    let mut body = &own[FRAME_HEADER_BYTES..];
    for (_, entry) in frame.entries() {
        let Ok(bytes) = take_entry(&mut body) else { break };
        if let Ok(entry) = entry {
            comes_back(&entry, bytes);
        }
    }
    if let Some((_, _, piece)) = frame.piece() {
        assert_eq!(piece, &own[FRAME_HEADER_BYTES + 8..]);
    }
}

fn sealed_frame(feed: &mut Feed<'_>) {
    let (flags, bit, segment) =
        (feed.byte(), feed.below(8 * FRAME_BYTES_MAX), SegmentId(feed.short().into()));
    let mut header = FrameHeader {
        length: 0,
        count: feed.short(),
        complete: flags & 1 != 0,
        snapshot: flags & 2 != 0,
        segment,
        first: Offset(feed.short().into()),
        watermark: Offset(feed.short().into()),
        learned: feed.short().into(),
        previous: feed.short().into(),
    };
    let body = feed.rest();
    header.length = (FRAME_HEADER_BYTES + body.len()).min(FRAME_BYTES_MAX);
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    bytes.extend_from_slice(&body[..header.length - FRAME_HEADER_BYTES]);
    let checksum = header.seal(&mut bytes, JOURNAL);
    let parse = |bytes: &[u8]| FrameHeader::parse(bytes, segment, JOURNAL);
    assert_eq!(parse(&bytes), Some((header, checksum)));
    any_frame(&bytes, segment);
    assert_eq!(parse(&bytes[..header.length - 1]), None, "a frame cut short");
    let other = JournalId(JOURNAL.0 ^ 1 << (bit % 64));
    assert_eq!(FrameHeader::parse(&bytes, segment, other), None, "a frame of another journal");
    let bit = bit % (8 * header.length);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(parse(&bytes), None, "bit {bit} is wrong");
}

/// One entry without its length.
pub fn entry(input: &[u8]) {
    let bytes = Feed::new(input).rest();
    let Ok(entry) = Entry::decode(bytes) else { return };
    comes_back(&entry, bytes);
    let mut state = State::new(JournalId(1), DEVICE_BYTES_MAX);
    for offset in [0, 1, u64::MAX] {
        state.apply(Offset(offset), &entry);
    }
    walk(&state);
}

/// An entry that decodes is written as it was read: a format with two spellings for one thing has room for mistakes.
fn comes_back(entry: &Entry<'_>, bytes: &[u8]) {
    let mut again = Vec::new();
    if entry.encode(&mut again).is_ok() {
        assert_eq!(&again[2..], bytes, "the entry does not come back");
    }
}

/// The bytes of a snapshot.
pub fn snapshot(input: &[u8]) {
    let mut feed = Feed::new(input);
    let entry = feed.bytes();
    let Some(mut state) = State::from_bytes(feed.rest(), DEVICE_BYTES_MAX) else { return };
    walk(&state);
    if let Ok(entry) = Entry::decode(entry) {
        state.apply(Offset(7), &entry);
        walk(&state);
    }
}

/// Goes through everything that a state tells of; its snapshot must be the same state again.
fn walk(state: &State) {
    for sink in state.sinks() {
        assert_eq!(
            state.owed(&sink.name),
            state.owed_by_device(&sink.name).fold(0, |sum: u64, (_, rows)| sum.saturating_add(rows))
        );
    }
    for device in state.devices() {
        // Of two with one key, which only such bytes have, it is the latter.
        let known = state.device(&device.key);
        assert!(known.is_some_and(|known| !known.native || state.has_room_for_native(&known.key)));
        assert_eq!(state.ledgers(device).count(), state.sinks().len());
    }
    assert!(state.done_below() <= state.lowest_cursor());
    let bytes = state.to_bytes();
    let again = bytes.ok().and_then(|bytes| State::from_bytes(&bytes, DEVICE_BYTES_MAX));
    assert_eq!(again.as_ref(), Some(state), "the snapshot is another state");
}

/// The file of the end mark.
pub fn end_mark(input: &[u8]) {
    let storage = MemoryStorage::new();
    storage.put(END_FILE, Feed::new(input).rest().to_vec());
    let read = EndFile::read(&storage);
    assert!(read.is_ok(), "{read:?}");
    let before = read.ok().flatten();
    let now = EndMark { watermark: Offset(5), learned: 2 };
    let mark = EndMark { watermark: Offset(7), learned: 3 };
    let written = EndFile::open(&storage, JournalId(1), before, now)
        .and_then(|mut file| file.write(mark).map(|()| file));
    assert!(written.is_ok(), "{:?}", written.err());
    let after = EndFile::read(&storage).ok().flatten();
    assert_eq!(after.map(|read| read.mark), Some(mark), "after {before:?}");
    assert!(storage.files().values().all(|bytes| bytes.len() <= INPUT_BYTES_MAX));
}
