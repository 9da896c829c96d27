//! Identities and positions, one type each, so that none is taken for another.

use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use heapless::Vec;
use serde::{Deserialize, Deserializer, Serialize};

/// Most bytes in a [`ChipId`].
pub const CHIP_ID_BYTES_MAX: usize = 16;

/// Identity of a device: the unique number that its chip was made with, 1 to 16 bytes.
///
/// Printed, and parsed, as lower-case hexadecimal digits, two a byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChipId(Vec<u8, CHIP_ID_BYTES_MAX, u8>);

impl ChipId {
    /// Takes 1 to 16 bytes; `None` for any other length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() { None } else { Vec::from_slice(bytes).ok().map(Self) }
    }

    /// The bytes as the chip gives them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ChipId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8, CHIP_ID_BYTES_MAX, u8>::deserialize(deserializer)?;
        if bytes.is_empty() { Err(serde::de::Error::custom("empty chip id")) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChipId({self})")
    }
}

/// The text is not a chip id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseChipIdError;

impl fmt::Display for ParseChipIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chip id is 1 to 16 bytes written as lower-case hexadecimal digits, two a byte")
    }
}

impl core::error::Error for ParseChipIdError {}

impl FromStr for ChipId {
    type Err = ParseChipIdError;

    fn from_str(text: &str) -> Result<Self, ParseChipIdError> {
        let mut bytes = Vec::<u8, CHIP_ID_BYTES_MAX, u8>::new();
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        for [high, low] in pairs {
            let byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
            bytes.push(byte).map_err(|_| ParseChipIdError)?;
        }
        if bytes.is_empty() || !rest.is_empty() { Err(ParseChipIdError) } else { Ok(Self(bytes)) }
    }
}

/// Upper case is refused: one chip must not have two spellings in topics and keys.
fn hex_digit(digit: u8) -> Result<u8, ParseChipIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseChipIdError),
    }
}

/// One life of a device's numbering, assigned by the gateway; never zero.
///
/// On the wire, where a device may have none yet, zero stands for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot(NonZeroU32);

impl Boot {
    /// `None` for zero, which means that no boot is assigned.
    pub const fn new(boot: u32) -> Option<Self> {
        match NonZeroU32::new(boot) {
            Some(boot) => Some(Self(boot)),
            None => None,
        }
    }

    /// The number, not zero.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number {
    ($(#[$attribute:meta])* $name:ident($inner:ty)) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One life of a gateway process, random at its start: a new one reveals a restart.
    Epoch(u32)
}
number! {
    /// Name of a device's set of groups and channels: a checksum of their descriptions.
    SchemaId(u32)
}
number! {
    /// Position of a group in its device's description.
    #[derive(PartialOrd, Ord)]
    GroupId(u8)
}
number! {
    /// Ties an answer to its question.
    Token(u32)
}
number! {
    /// A device's own count of time, at the rate that its `Hello` announces.
    #[derive(PartialOrd, Ord)]
    Tick(u64)
}
number! {
    /// Number of a row within its device and boot, as the wire carries it.
    ///
    /// It wraps, so two of them are compared as in RFC 1982 and have no total order; [`LongSeq`] has.
    Seq(u32)
}
number! {
    /// Number of a row within its device and boot, extended so that it never wraps.
    #[derive(PartialOrd, Ord)]
    LongSeq(u64)
}
number! {
    /// A monotonic clock in milliseconds, from any origin.
    #[derive(PartialOrd, Ord)]
    Millis(u64)
}

impl Seq {
    /// Whether `self` comes before `other`, given that they are less than 2³¹ apart.
    pub const fn is_before(self, other: Self) -> bool {
        self.distance_from(other) < 0
    }

    /// `self - base`, negative when `self` comes before `base`.
    pub const fn distance_from(self, base: Self) -> i32 {
        self.0.wrapping_sub(base.0).cast_signed()
    }

    /// The number `rows` further on.
    #[must_use]
    pub const fn plus(self, rows: u32) -> Self {
        Self(self.0.wrapping_add(rows))
    }

    /// Rows in the half-open range from `self` to `end`.
    pub const fn rows_until(self, end: Self) -> u32 {
        end.0.wrapping_sub(self.0)
    }

    /// The later of the two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }
}

impl LongSeq {
    /// As the wire carries it.
    pub const fn to_wire(self) -> Seq {
        Seq((self.0 & 0xffff_ffff) as u32)
    }

    /// The long form of `seq` that is nearest to `self`; `None` where that would be below zero or
    /// beyond the largest number.
    pub const fn extend(self, seq: Seq) -> Option<Self> {
        match self.0.checked_add_signed(seq.distance_from(self.to_wire()) as i64) {
            Some(long) => Some(Self(long)),
            None => None,
        }
    }

    /// The number `rows` further on.
    #[must_use]
    pub const fn plus(self, rows: u64) -> Self {
        Self(self.0.saturating_add(rows))
    }

    /// Rows in the half-open range from `self` to `end`; zero where `end` comes first.
    pub const fn rows_until(self, end: Self) -> u64 {
        end.0.saturating_sub(self.0)
    }
}

impl Millis {
    /// The instant `ms` later.
    #[must_use]
    pub const fn plus(self, ms: u32) -> Self {
        Self(self.0.saturating_add(ms as u64))
    }

    /// Milliseconds since `earlier`, zero where that lies ahead, at most `u32::MAX`.
    pub const fn since(self, earlier: Self) -> u32 {
        let elapsed = self.0.saturating_sub(earlier.0);
        if elapsed > u32::MAX as u64 { u32::MAX } else { elapsed as u32 }
    }
}

impl Token {
    /// What ties the answer to a question that was asked at this tick: its low half, which hardly ever repeats from one
    /// life of a device to the next.
    pub const fn of(tick: Tick) -> Self {
        Self((tick.0 & 0xffff_ffff) as u32)
    }
}

/// An instant that is less than 24 days away, in half the memory, and with which a small chip reckons fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u32);

impl Stamp {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// Of `at`.
    pub const fn of(at: Millis) -> Self {
        Self(at.0 as u32)
    }

    /// The instant `ms` later.
    #[must_use]
    pub const fn plus(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    /// The instant `ms` before.
    #[must_use]
    pub const fn minus(self, ms: u32) -> Self {
        Self(self.0.wrapping_sub(ms))
    }

    /// Milliseconds since `earlier`. Of one that lies ahead it seems to be weeks.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Milliseconds until `later`, zero where that has passed.
    pub const fn until(self, later: Self) -> u32 {
        let ms = later.0.wrapping_sub(self.0);
        if ms.cast_signed() < 0 { 0 } else { ms }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_chip_id_is_lower_case_hex_both_ways() {
        let chip = ChipId::new(&[0xe6, 0x61, 0x41, 0x04]).unwrap();
        assert_eq!(chip.to_string(), "e6614104");
        assert_eq!("e6614104".parse(), Ok(chip));
        for text in ["", "e", "e661410", "E661", "zz", "0123456789abcdef0123456789abcdef01"] {
            assert_eq!(text.parse::<ChipId>(), Err(ParseChipIdError), "{text:?}");
        }
        assert_eq!(ChipId::new(&[]), None);
        assert_eq!(ChipId::new(&[0; 17]), None);
    }

    #[test]
    fn sequences_compare_across_the_wrap() {
        let before = Seq(u32::MAX - 1);
        let after = before.plus(3);
        assert_eq!(after, Seq(1));
        assert!(before.is_before(after) && !after.is_before(before) && !after.is_before(after));
        assert_eq!(after.distance_from(before), 3);
        assert_eq!(before.rows_until(after), 3);
        assert_eq!(before.max(after), after);
        assert_eq!(before.min(after), before);
    }

    #[test]
    fn a_stamp_counts_over_its_wrap() {
        let now = Stamp::of(Millis((5 << 32) - 10));
        let later = now.plus(30);
        assert_eq!(later, Stamp::of(Millis((5 << 32) + 20)));
        assert_eq!((now.until(later), later.until(now), now.until(now)), (30, 0, 0));
        assert_eq!(later.since(now), 30);
    }

    #[test]
    fn the_long_form_is_the_nearest_one() {
        let near = LongSeq((7 << 32) + 5);
        assert_eq!(near.extend(Seq(9)), Some(LongSeq((7 << 32) + 9)));
        assert_eq!(near.extend(Seq(u32::MAX)), Some(LongSeq((7 << 32) - 1)));
        assert_eq!(LongSeq(5).extend(Seq(u32::MAX)), None);
        assert_eq!(near.to_wire(), Seq(5));
    }
}
