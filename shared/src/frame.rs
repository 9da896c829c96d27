//! A message as bytes on a serial line, and back.
//!
//! *In:* a message, from [`Sender`](crate::link::Sender)'s device or from the gateway.
//! *Out:* bytes on the line; at the other end, the message again.
//! *Next:* the gateway's `source/serial.rs`.
//!
//! ```text
//! frame = COBS(message · CRC-32C of the message, low byte first) · 0x00
//! ```
//!
//! COBS leaves no zero inside a frame, so a zero always ends one: after any damage the next frame is
//! read again. A burst starts with a zero of its own, which ends whatever noise came before. There is no
//! length field, so no length can lie. A message has at most 249 bytes, so COBS costs exactly one.
//!
//! The check is 32 bits wide because byte stuffing weakens it: one lost byte shifts all that follow, and
//! an acknowledgement that is falsely accepted destroys data.

use core::fmt;

use heapless::Vec;

use crate::checksum;
use crate::crc32c::Checksum;
use crate::link::bugs::{Bug, seeded};
use crate::message::MESSAGE_BYTES_MAX;

/// Most bytes in a frame, with its closing zero.
pub const FRAME_BYTES_MAX: usize = 1 + MESSAGE_BYTES_MAX + CRC_BYTES + 1;
/// Most bytes in a frame from gateway to device, with its closing zero and one that starts a burst: all
/// that a small receive buffer needs to hold.
pub const FRAME_TO_DEVICE_BYTES_MAX: usize = 64;
/// The byte that ends a frame, and that starts a burst.
pub const DELIMITER: u8 = 0;

const CRC_BYTES: usize = 4;

/// Writes the message that `parts` are together as a frame to the front of `out`, and says how many
/// bytes the frame has.
///
/// # Errors
///
/// The message is longer than [`MESSAGE_BYTES_MAX`], or `out` is too short; [`FRAME_BYTES_MAX`] bytes
/// are always enough.
pub fn encode(parts: &[&[u8]], out: &mut [u8]) -> Result<usize, FrameError> {
    let message_len: usize = parts.iter().map(|part| part.len()).sum();
    let frame_len = message_len + CRC_BYTES + 2;
    if message_len > MESSAGE_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let out = out.get_mut(..frame_len).ok_or(FrameError::TooLong)?;

    let mut digest = Checksum::new();
    let mut end = 1;
    for part in parts {
        digest.update(part);
        out[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    out[end..end + CRC_BYTES].copy_from_slice(&digest.finish().to_le_bytes());
    end += CRC_BYTES;

    // Each zero, and the byte before all others, becomes the distance to the next zero. At most 253
    // bytes follow one another, so every distance fits in a byte.
    let mut code_at = 0;
    for at in 1..end {
        if out[at] == DELIMITER {
            out[code_at] = (at - code_at) as u8;
            code_at = at;
        }
    }
    out[code_at] = (end - code_at) as u8;
    out[end] = DELIMITER;
    Ok(frame_len)
}

/// A message that is asked for byte by byte.
pub trait Bytes {
    /// How many there are, at most [`MESSAGE_BYTES_MAX`].
    fn size(&self) -> u8;

    /// The byte at `at`, zero beyond the end.
    fn byte(&self, at: u8) -> u8;
}

/// Writes one frame piece by piece, for a device that has no memory for a whole frame.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// Bytes of the frame that were given.
    at: u8,
    /// Bytes of the message, which the frame keeps to even if it should grow meanwhile.
    size: u8,
    check: [u8; CRC_BYTES],
}

impl Pieces {
    /// Begins a frame of this message, which should be the same until the frame ends: one that is not makes a damaged frame.
    pub fn new(message: &impl Bytes) -> Self {
        let size = message.size();
        let check = checksum((0..size).map(|at| message.byte(at)));
        Self { at: 0, size, check: check.to_le_bytes() }
    }

    /// The next byte of the frame, unless it has ended.
    pub fn next(&mut self, message: &impl Bytes) -> Option<u8> {
        let end = self.size + CRC_BYTES as u8;
        // A byte's place in the frame is one more than in what is stuffed.
        let byte = match self.at {
            at if at > end + 1 => return None,
            at if at > end => DELIMITER,
            0 => self.distance(0, message),
            at => match self.decoded(at - 1, message) {
                DELIMITER => self.distance(at, message),
                byte => byte,
            },
        };
        self.at += 1;
        Some(byte)
    }

    fn decoded(&self, at: u8, message: &impl Bytes) -> u8 {
        match at.checked_sub(self.size) {
            None => message.byte(at),
            Some(at) => self.check.get(usize::from(at)).copied().unwrap_or_default(),
        }
    }

    /// How far it is from before byte `from` to the next zero, or to the end.
    fn distance(&self, from: u8, message: &impl Bytes) -> u8 {
        let end = self.size + CRC_BYTES as u8;
        let mut at = from;
        while at < end && self.decoded(at, message) != DELIMITER {
            at += 1;
        }
        at - from + 1
    }
}

/// Finds frames in a stream of bytes. `N` is the most bytes that a message and its check may have:
/// [`Decoder::MAX`] for everything.
#[derive(Debug, Clone)]
pub struct Decoder<const N: usize = { MESSAGE_BYTES_MAX + CRC_BYTES }> {
    buffer: Vec<u8, N, u8>,
    /// Bytes until the next zero, which is implied; zero before the first byte of a frame.
    run: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames.
    Start,
    Inside,
    /// The frame is known to be too long: skip to its end.
    TooLong,
}

impl<const N: usize> Decoder<N> {
    /// Starts between two frames.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), run: 0, state: State::Start }
    }

    /// Forgets what has come of the present frame: for a line that was opened anew.
    pub const fn reset(&mut self) {
        self.state = State::Start;
    }

    /// Takes bytes off the front of `input` until a frame ends, and gives its message. `None` says that
    /// `input` is used up.
    ///
    /// # Errors
    ///
    /// The bytes up to this delimiter were no valid frame. The stream goes on behind them.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<&[u8], FrameError>> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == DELIMITER {
                if self.state == State::Start {
                    continue;
                }
                return Some(self.finish());
            }
            self.push(byte);
        }
        None
    }

    fn push(&mut self, byte: u8) {
        match self.state {
            State::Start => {
                self.buffer.clear();
                self.run = byte;
                self.state = State::Inside;
            }
            State::Inside => {
                self.run -= 1;
                let decoded = if self.run == 0 { DELIMITER } else { byte };
                if self.run == 0 {
                    self.run = byte;
                }
                if self.buffer.push(decoded).is_err() {
                    self.state = State::TooLong;
                }
            }
            State::TooLong => {}
        }
    }

    fn finish(&mut self) -> Result<&[u8], FrameError> {
        let state = core::mem::replace(&mut self.state, State::Start);
        if state == State::TooLong {
            return Err(FrameError::TooLong);
        }
        if self.run != 1 {
            return Err(FrameError::Stuffing);
        }
        let (message, sent) = self.buffer.split_last_chunk::<CRC_BYTES>().ok_or(FrameError::TooShort)?;
        if message.is_empty() {
            return Err(FrameError::TooShort);
        }
        if check(message) != u32::from_le_bytes(*sent) && !seeded(Bug::CrcIgnored) {
            return Err(FrameError::Check);
        }
        Ok(message)
    }
}

fn check(message: &[u8]) -> u32 {
    let mut digest = Checksum::new();
    digest.update(message);
    digest.finish()
}

impl Decoder {
    /// What `N` must be for every message.
    pub const MAX: usize = MESSAGE_BYTES_MAX + CRC_BYTES;
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// More bytes than a frame may have.
    TooLong,
    /// Too few bytes for a message and its check.
    TooShort,
    /// The stuffing does not lead to the end of the frame: a byte was lost, added or changed.
    Stuffing,
    /// The check does not match: a byte was changed.
    Check,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "frame is too long",
            Self::TooShort => "frame is too short",
            Self::Stuffing => "frame has lost or gained a byte",
            Self::Check => "frame does not match its check",
        })
    }
}

impl core::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut out = [0; FRAME_BYTES_MAX];
        let (left, right) = message.split_at(message.len() / 2);
        let len = encode(&[left, right], &mut out).unwrap();
        out[..len].to_vec()
    }

    fn decode_all(mut bytes: &[u8]) -> Vec<Result<Vec<u8>, FrameError>> {
        let mut decoder = Decoder::<{ Decoder::MAX }>::new();
        let mut found = Vec::new();
        while let Some(result) = decoder.next(&mut bytes) {
            found.push(result.map(<[u8]>::to_vec));
        }
        found
    }

    #[test]
    fn limits_are_exact() {
        let longest = [7; MESSAGE_BYTES_MAX];
        assert_eq!(frame(&longest).len(), FRAME_BYTES_MAX);
        assert_eq!(decode_all(&frame(&longest)), [Ok(longest.to_vec())]);
        let mut out = [0; 2 * FRAME_BYTES_MAX];
        assert_eq!(encode(&[&longest, &[1]], &mut out), Err(FrameError::TooLong));
        assert_eq!(encode(&[&[1, 2]], &mut out[..7]), Err(FrameError::TooLong));
        assert_eq!(decode_all(&[5; 600]), [], "no delimiter, no frame");
        assert_eq!(decode_all(&[&[5; 600][..], &[0]].concat()), [Err(FrameError::TooLong)]);
        assert_eq!(decode_all(&[1, 0]), [Err(FrameError::TooShort)]);
        assert_eq!(decode_all(&[9, 1, 0]), [Err(FrameError::Stuffing)]);
    }

    #[test]
    fn a_frame_follows_any_noise() {
        let noisy = [&[0xff, 0x13, 0x37][..], &[0, 0], &frame(&[1, 0, 2]), &frame(&[0])].concat();
        let mut found = decode_all(&noisy);
        assert!(found.remove(0).is_err());
        assert_eq!(found, [Ok([1, 0, 2].to_vec()), Ok([0].to_vec())]);
    }

    struct Whole<'a>(&'a [u8]);

    impl Bytes for Whole<'_> {
        fn size(&self) -> u8 {
            self.0.len() as u8
        }

        fn byte(&self, at: u8) -> u8 {
            self.0[usize::from(at)]
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_same_frame(
            message in vec(prop_oneof![Just(0_u8), any::<u8>()], 1..=MESSAGE_BYTES_MAX),
        ) {
            let mut whole = [0; FRAME_BYTES_MAX];
            let len = encode(&[&message], &mut whole).unwrap();
            let mut pieces = Pieces::new(&Whole(&message));
            let frame: Vec<u8> = core::iter::from_fn(|| pieces.next(&Whole(&message))).collect();
            prop_assert_eq!(&frame[..], &whole[..len]);
        }

        #[test]
        fn messages_come_back(messages in vec(vec(prop_oneof![Just(0), any::<u8>()], 1..=249), 1..4)) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let found: Result<Vec<_>, _> = decode_all(&bytes).into_iter().collect();
            prop_assert_eq!(found, Ok(messages));
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..600)) {
            decode_all(&bytes);
        }

        #[test]
        fn one_wrong_byte_is_seen_and_costs_one_frame(
            message in vec(any::<u8>(), 1..=249), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let mut bytes = frame(&message);
            let at = at.index(bytes.len() - 1);
            bytes[at] ^= flip;
            bytes.extend(frame(&[42]));
            let found = decode_all(&bytes);
            prop_assert_eq!(found.last(), Some(&Ok([42].to_vec())));
            prop_assert!(found[..found.len() - 1].iter().all(Result::is_err), "{:?}", found);
        }
    }
}
