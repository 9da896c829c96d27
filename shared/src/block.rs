//! A sealed run of rows as it travels, and back.
//!
//! A block is encoded once, where its rows are sampled, and travels unchanged: a retransmission is a copy, and the
//! same bytes go over a serial line or MQTT. There are two forms of it, in messages of two kinds: [packed](crate::pack),
//! which is what `forebay-firmware` sends, and [plain](crate::plain), which needs no handling of bits. Both begin with
//! what the link has to know, the numbers of the rows; the rows themselves can only be decoded with the [`Schema`].
//!
//! ```text
//! packed block = first u32, low byte first · count varint, not zero · packed run of rows
//! plain block  = first varint · base tick varint · count u8, not zero · rows
//! ```
//!
//! A block that breaks any rule, or that ends too early or too late, is refused as a whole.

use core::fmt;

use heapless::Vec;
use serde::de::DeserializeOwned;

use crate::ids::{GroupId, Seq, Tick};
use crate::message::brief::Writer;
use crate::message::{GapCause, SeqRange};
use crate::pack::{PACKED_BYTES_MAX, PackedRows};
use crate::plain::PlainRows;
use crate::reading::{GROUP_CHANNELS_MAX, Schema, Value};

/// Most bytes in a block.
pub const BLOCK_BYTES_MAX: usize = 244;

/// Most bytes before the rows of a packed block.
pub const PACKED_HEAD_BYTES_MAX: usize = 4 + 5;

const _: () = assert!(PACKED_HEAD_BYTES_MAX + PACKED_BYTES_MAX <= BLOCK_BYTES_MAX);

/// How the rows of a block are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// In postcard.
    Plain,
    /// In bits.
    Packed,
}

/// A sealed block, whole and still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockBytes {
    /// How it is encoded.
    pub form: Form,
    /// The encoded block.
    pub bytes: Vec<u8, BLOCK_BYTES_MAX, u8>,
}

/// What stands before the packed run of these rows, which are at least one.
pub fn packed_head(rows: SeqRange) -> Vec<u8, PACKED_HEAD_BYTES_MAX, u8> {
    let mut head = Writer::new();
    write_packed_head(rows, &mut head);
    Vec::from_slice(head.as_bytes()).unwrap_or_default()
}

/// Writes what stands before the packed run of these rows.
pub fn write_packed_head(rows: SeqRange, out: &mut Writer) {
    for byte in rows.from.0.to_le_bytes() {
        out.byte(byte);
    }
    out.number(rows.from.rows_until(rows.to));
}

/// A sealed block whose header has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    first: Seq,
    end: Seq,
    rows: Encoded<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoded<'a> {
    Plain { base: Tick, rows: &'a [u8] },
    Packed(&'a [u8]),
}

impl<'a> Block<'a> {
    /// Reads the header, which needs no schema.
    ///
    /// # Errors
    ///
    /// The header is cut short or damaged, or counts no rows, or more than a sequence can tell apart.
    pub fn parse(form: Form, bytes: &'a [u8]) -> Result<Self, BlockError> {
        match form {
            Form::Plain => {
                let (first, bytes) = take(bytes).ok_or(BlockError::Header)?;
                let (base, bytes) = take(bytes).ok_or(BlockError::Header)?;
                let (count, rows) = take::<u8>(bytes).ok_or(BlockError::Header)?;
                Self::new(first, u32::from(count), Encoded::Plain { base, rows })
            }
            Form::Packed => {
                let (first, bytes) = bytes.split_first_chunk().ok_or(BlockError::Header)?;
                let (count, rows) = take(bytes).ok_or(BlockError::Header)?;
                Self::new(Seq(u32::from_le_bytes(*first)), count, Encoded::Packed(rows))
            }
        }
    }

    const fn new(first: Seq, count: u32, rows: Encoded<'a>) -> Result<Self, BlockError> {
        if count == 0 || count > i32::MAX as u32 {
            return Err(BlockError::Header);
        }
        Ok(Self { first, end: first.plus(count), rows })
    }

    /// Number of the first row.
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// One past the number of the last row.
    pub const fn end(&self) -> Seq {
        self.end
    }

    /// Decodes the rows. Trust none of them before the last has come without an error: collect them
    /// into a `Result` first.
    pub const fn rows<'s>(&self, schema: &'s Schema) -> Rows<'a, 's> {
        match self.rows {
            Encoded::Plain { base, rows } => {
                Rows::Plain(PlainRows::new(schema, self.first, self.end, base, rows))
            }
            Encoded::Packed(rows) => Rows::Packed(PackedRows::new(schema, self.first, self.end, rows)),
        }
    }
}

/// A decoded row, or rows that were lost before they came to the block.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator, and nearly all are samples")]
pub enum Row {
    /// What was sampled.
    Sample(Sample),
    /// Numbers that were given to rows of which nothing else is left.
    Lost {
        /// First lost row.
        from: Seq,
        /// One past the last lost row.
        to: Seq,
        /// Why they were lost.
        cause: GapCause,
    },
}

/// One sample of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its number within its device and boot.
    pub seq: Seq,
    /// When it was sampled, by the device's own count.
    pub tick: Tick,
    /// Which group was sampled.
    pub group: GroupId,
    /// The values that are present, each with the position of its channel in the group; never empty.
    pub values: Vec<(u8, Value), GROUP_CHANNELS_MAX, u8>,
}

/// Rows of a block in order; ends after the first error.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator, and one at a time is on the stack")]
pub enum Rows<'a, 's> {
    #[doc(hidden)]
    Plain(PlainRows<'a, 's>),
    #[doc(hidden)]
    Packed(PackedRows<'a, 's>),
}

impl Iterator for Rows<'_, '_> {
    type Item = Result<Row, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Plain(rows) => rows.next().map(|row| row.map(Row::Sample)),
            Self::Packed(rows) => rows.next(),
        }
    }
}

pub(crate) fn take<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// Why a block cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The header is cut short or damaged, or counts no rows, or too many.
    Header,
    /// The schema has no such group.
    Group(GroupId),
    /// A row's tick is beyond the largest one.
    Tick,
    /// A row has no values, or values of channels that its group does not have.
    Present,
    /// A number is cut short or damaged.
    Value,
    /// More rows are lost than the block covers.
    Rows,
    /// Bytes are left after the last row, or padding that is not zero.
    Trailing,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("block header is cut short, or counts no rows or too many"),
            Self::Group(group) => write!(f, "block holds a row of group {group}, which the schema lacks"),
            Self::Tick => f.write_str("block holds a tick beyond 64 bits"),
            Self::Present => f.write_str("block holds a row without values, or with more than its group has"),
            Self::Value => f.write_str("block ends within a row, or holds a number that cannot be"),
            Self::Rows => f.write_str("block says that more rows are lost than it covers"),
            Self::Trailing => f.write_str("block goes on after its last row"),
        }
    }
}

impl core::error::Error for BlockError {}
