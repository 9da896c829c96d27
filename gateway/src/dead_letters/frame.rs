//! Frames: each holds one letter, or says that one is gone, and is checked by itself.

use super::letter::{Key, LETTER_BYTES_MAX, View};

/// Bytes before the letter.
pub(super) const FRAME_HEADER_BYTES: usize = 36;

/// Largest frame.
pub(super) const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + LETTER_BYTES_MAX;

/// The first byte of a frame, which cannot occur in UTF-8.
pub(super) const FIRST_BYTE: u8 = 0xfb;

const MAGIC: [u8; 4] = [FIRST_BYTE, b'F', b'B', b'l'];
const LETTER: u8 = 1;
const GONE: u8 = 2;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Letter,
    /// The key of a letter before it that does not count any more.
    Gone,
    /// Something of a later version.
    Other,
}

/// What is written into a frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Letter(View<'a>),
    Gone(Key<'a>),
}

/// What the frames of one file have in common, and those of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64);

/// What a frame says besides its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) salt: Salt,
    /// Letters that the file was given before it.
    pub(super) index: u32,
    /// What was durable when it was written.
    pub(super) durable: Durable,
}

/// The beginning of a file that was durable once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Durable {
    /// Where it ends.
    pub(super) end: u32,
    /// How many letters it holds.
    pub(super) letters: u32,
}

impl Content<'_> {
    pub(super) fn is_letter(&self) -> bool {
        matches!(self, Content::Letter(_))
    }

    /// Length of its frame.
    pub(super) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES
            + match self {
                Content::Letter(letter) => letter.encoded_bytes(),
                Content::Gone(key) => key.encoded_bytes(),
            }
    }
}

/// Appends a frame.
pub(super) fn push(out: &mut Vec<u8>, content: &Content<'_>, salt: Salt, index: u32, durable: Durable) {
    let start = out.len();
    let length = content.frame_bytes();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[if content.is_letter() { LETTER } else { GONE }, 0, 0, 0]);
    out.extend_from_slice(&salt.0.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&durable.end.to_le_bytes());
    out.extend_from_slice(&durable.letters.to_le_bytes());
    match content {
        Content::Letter(letter) => letter.encode(out),
        Content::Gone(key) => key.encode(out),
    }
    debug_assert_eq!(out.len() - start, length);
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

impl FrameHeader {
    /// Reads what the bytes claim to be the header of a frame, of this salt if it is known. Nothing is checked yet
    /// that needs the whole frame.
    pub(super) fn claim(bytes: &[u8], salt: Option<Salt>) -> Option<FrameHeader> {
        let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(*head[at..].first_chunk()?));
        let header = FrameHeader {
            length: u32_at(8)? as usize,
            kind: match head[12] {
                LETTER => Kind::Letter,
                GONE => Kind::Gone,
                _ => Kind::Other,
            },
            salt: Salt(u64::from_le_bytes(*head[16..].first_chunk()?)),
            index: u32_at(24)?,
            durable: Durable { end: u32_at(28)?, letters: u32_at(32)? },
        };
        let plausible = head[..4] == MAGIC && salt.is_none_or(|salt| salt == header.salt);
        (plausible && (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&header.length)).then_some(header)
    }

    /// Whether the bytes are the whole frame, as it was written.
    pub(super) fn is_intact(&self, frame: &[u8]) -> bool {
        let checksum = frame.get(4..8).and_then(|bytes| bytes.first_chunk()).copied();
        frame.len() == self.length
            && checksum.is_some_and(|checksum| crc32c::crc32c(&frame[8..]) == u32::from_le_bytes(checksum))
    }
}
