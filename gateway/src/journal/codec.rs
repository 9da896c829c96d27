//! The primitives of the entry format: varints and texts, written and read.

use thiserror::Error;

/// The bytes are no entry of this format version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the entry cannot be decoded: {0}")]
pub struct Undecodable(pub(super) &'static str);

pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Undecodable> {
    let (head, rest) = input.split_at_checked(bytes).ok_or(Undecodable("it ends early"))?;
    *input = rest;
    Ok(head)
}

pub(super) fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Undecodable> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(Undecodable("it ends early"))?;
    *input = rest;
    Ok(*head)
}

pub(super) fn take_byte(input: &mut &[u8]) -> Result<u8, Undecodable> {
    take_array::<1>(input).map(|[byte]| byte)
}

/// Takes a byte of flags, of which none may be set but those that are known.
pub(super) fn take_flags(input: &mut &[u8], known: u8) -> Result<u8, Undecodable> {
    let flags = take_byte(input)?;
    if flags & !known == 0 { Ok(flags) } else { Err(Undecodable("unknown flags")) }
}

pub(super) fn take_varint(input: &mut &[u8]) -> Result<u64, Undecodable> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(input)?;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // The tenth byte has room for one bit, and a last byte of zero is a longer spelling of the same number.
            let canonical = bits << shift >> shift == bits && (byte != 0 || shift == 0);
            return if canonical { Ok(value) } else { Err(Undecodable("a malformed number")) };
        }
    }
    Err(Undecodable("a number that does not end"))
}

pub(super) fn take_u32(input: &mut &[u8]) -> Result<u32, Undecodable> {
    u32::try_from(take_varint(input)?).map_err(|_| Undecodable("a number beyond 32 bits"))
}

pub(super) fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Undecodable> {
    let length = take_varint(input)?;
    let bytes = take(input, usize::try_from(length).unwrap_or(usize::MAX))?;
    std::str::from_utf8(bytes).map_err(|_| Undecodable("text that is not UTF-8"))
}
