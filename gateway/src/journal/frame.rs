//! Frames: runs of entries that are written, checked and read as one.
//!
//! Format, little-endian:
//!
//! | at | what |
//! |---|---|
//! | 0 | magic, 4 bytes |
//! | 4 | CRC-32C of the journal's id, u64, and everything from 8 on, u32 |
//! | 8 | length of the frame in bytes, header included, u32 |
//! | 12 | entries, u16; 0 in a piece of a snapshot |
//! | 14 | flags, u16: bit 0, a submission or snapshot ends with this frame; bit 1, a piece of a snapshot |
//! | 16 | id of the segment, u64: bytes of a recycled file's earlier life carry another |
//! | 24 | offset of the first entry, u64; in a piece of a snapshot, the offset that the snapshot stands for |
//! | 32 | watermark when the frame was written, u64: everything below was durable |
//! | 40 | rows learned up to the end of this frame, u64: what a lost frame before this one held can be counted |
//! | 48 | CRC-32C of the frame before it in the segment, or of the segment header, u32 |
//! | 52 | the entries; in a piece of a snapshot its number from 0, u32, how many there are, u32, and its bytes |
//!
//! A submission begins in a frame of its own unless it fits the open one as a whole.

use bytes::Bytes;

use super::JournalId;
use super::bugs::{Bug, seeded};
use super::entry::{Entry, Undecodable, take_entry};
use super::segment::SegmentId;
use crate::record::Offset;

/// Largest frame in bytes, header included.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a frame before its entries.
pub(super) const FRAME_HEADER_BYTES: usize = 52;

/// The first bytes of a frame. What devices send ends up in frames, and in files that serve again; that it never poses as
/// a frame is the checksum's doing, which begins with the journal's random id.
pub(super) const MAGIC: [u8; 4] = *b"\xfbFBj";

const COMPLETE: u16 = 1;
const SNAPSHOT: u16 = 2;

/// A committed frame whose checksum was right.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    first: Offset,
    count: u32,
    learned: u64,
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: usize,
    pub(super) count: u16,
    pub(super) complete: bool,
    pub(super) snapshot: bool,
    pub(super) segment: SegmentId,
    pub(super) first: Offset,
    pub(super) watermark: Offset,
    pub(super) learned: u64,
    pub(super) previous: u32,
}

impl Frame {
    pub(super) fn new(bytes: Bytes, header: &FrameHeader) -> Frame {
        Frame { bytes, first: header.first, count: u32::from(header.count), learned: header.learned }
    }

    /// Offset of the first entry.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// Offset behind the last entry.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first.plus(u64::from(self.count))
    }

    /// Size in bytes, header included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The entries with their offsets. One that cannot be decoded was written by a newer version or with a fault that
    /// the checksum does not see: skip and count it.
    pub fn entries(&self) -> impl Iterator<Item = (Offset, Result<Entry<'_>, Undecodable>)> {
        let mut body = self.body();
        (0..u64::from(self.count))
            .map(move |n| (self.first.plus(n), take_entry(&mut body).and_then(Entry::decode)))
    }

    /// Rows learned before this frame, given what all frames before it and this one told of.
    pub(super) fn learned_before(&self) -> u64 {
        let own = self.entries().map(|(_, entry)| entry.map_or(0, |entry| entry.rows_learned()));
        own.fold(self.learned, u64::saturating_sub)
    }

    /// All of it, as it lies in the file.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its checksum, which the next frame carries on.
    pub(super) fn checksum(&self) -> u32 {
        self.bytes.get(4..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Rows learned up to its end.
    pub(super) fn learned(&self) -> u64 {
        self.learned
    }

    /// The piece of a snapshot that it is: number, count of pieces, bytes.
    pub(super) fn piece(&self) -> Option<(u32, u32, &[u8])> {
        let (part, rest) = self.body().split_first_chunk()?;
        let (parts, bytes) = rest.split_first_chunk()?;
        Some((u32::from_le_bytes(*part), u32::from_le_bytes(*parts), bytes))
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default()
    }
}

impl FrameHeader {
    /// Offset behind the last entry.
    pub(super) fn end(&self) -> Offset {
        self.first.plus(u64::from(self.count))
    }

    /// Where its segment begins at the latest, if it is the first frame that is left: what was written with it lies in the
    /// same segment, from the watermark of that moment on.
    pub(super) fn begins(&self) -> Offset {
        if seeded(Bug::BeginWithWhatIsLeft) { self.first } else { self.first.min(self.watermark) }
    }

    /// Writes the header into the space before the entries and returns the frame's checksum.
    pub(super) fn seal(&self, frame: &mut [u8], journal: JournalId) -> u32 {
        let flags = if self.complete { COMPLETE } else { 0 } | if self.snapshot { SNAPSHOT } else { 0 };
        let mut at = 8;
        let mut put = |bytes: &[u8]| {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&(self.length as u32).to_le_bytes());
        put(&self.count.to_le_bytes());
        put(&flags.to_le_bytes());
        put(&self.segment.0.to_le_bytes());
        put(&self.first.0.to_le_bytes());
        put(&self.watermark.0.to_le_bytes());
        put(&self.learned.to_le_bytes());
        put(&self.previous.to_le_bytes());
        let checksum = covered(frame, self.length).map_or(0, |bytes| checksum_of(bytes, journal));
        frame[..4].copy_from_slice(&MAGIC);
        frame[4..8].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads the frame of `segment` that `bytes` begin with, and its checksum; none if there is no such intact frame.
    pub(super) fn parse(bytes: &[u8], segment: SegmentId, journal: JournalId) -> Option<(FrameHeader, u32)> {
        let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let u64_at = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(*head[at..].first_chunk()?)) };
        let u32_at = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(*head[at..].first_chunk()?)) };
        let u16_at = |at: usize| -> Option<u16> { Some(u16::from_le_bytes(*head[at..].first_chunk()?)) };
        let length = u32_at(8)? as usize;
        let in_bounds = (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length);
        let foreign = u64_at(16)? != segment.0 && !seeded(Bug::NoSegmentIdInFrames);
        if head[..4] != MAGIC || !in_bounds || foreign {
            return None;
        }
        let checksum = u32_at(4)?;
        if checksum_of(covered(bytes, length)?, journal) != checksum && !seeded(Bug::NoChecksum) {
            return None;
        }
        let flags = u16_at(14)?;
        let header = FrameHeader {
            length,
            count: u16_at(12)?,
            complete: flags & COMPLETE != 0,
            snapshot: flags & SNAPSHOT != 0,
            segment,
            first: Offset(u64_at(24)?),
            watermark: Offset(u64_at(32)?),
            learned: u64_at(40)?,
            previous: u32_at(48)?,
        };
        Some((header, checksum))
    }
}

/// What the checksum of a frame of that length covers.
fn covered(frame: &[u8], length: usize) -> Option<&[u8]> {
    #[cfg(test)]
    if seeded(Bug::ChecksumWithoutLength) {
        return super::bugs::covered_without_length(frame, length);
    }
    frame.get(8..length)
}

/// The checksum of bytes in a journal. Who does not know the journal's id cannot make one.
fn checksum_of(bytes: &[u8], journal: JournalId) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&journal.0.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::super::entry::LetterEntry;
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let header = FrameHeader {
            length: FRAME_HEADER_BYTES + 9,
            count: 3,
            complete: true,
            snapshot: false,
            segment: SegmentId(7),
            first: Offset(100),
            watermark: Offset(99),
            learned: 77,
            previous: 0xdead_beef,
        };
        let mut frame = vec![0x5a; header.length];
        let (journal, other) = (JournalId(5), JournalId(6));
        let checksum = header.seal(&mut frame, journal);
        assert_eq!(FrameHeader::parse(&frame, SegmentId(7), journal), Some((header, checksum)));
        assert_eq!(FrameHeader::parse(&frame, SegmentId(7), other), None, "of another journal");
        assert_eq!(FrameHeader::parse(&frame, SegmentId(8), journal), None, "of another segment");
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::parse(&frame, SegmentId(7), journal), None, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for end in 0..frame.len() {
            assert_eq!(FrameHeader::parse(&frame[..end], SegmentId(7), journal), None, "cut at {end}");
        }
    }

    #[test]
    fn a_frame_that_tells_of_more_than_was_learned_follows_nothing() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        for rows in [u64::MAX, 3] {
            let letter =
                LetterEntry { device: "a", rows, ns: 0, origin: "", reason: "", body_bytes: 0, body: b"" };
            Entry::Letter(letter).encode(&mut bytes).unwrap();
        }
        let header = FrameHeader {
            length: bytes.len(),
            count: 2,
            complete: true,
            snapshot: false,
            segment: SegmentId(1),
            first: Offset(0),
            watermark: Offset(0),
            learned: 5,
            previous: 0,
        };
        assert_eq!(Frame::new(bytes.into(), &header).learned_before(), 0);
    }
}
