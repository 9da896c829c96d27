//! Rows in postcard: for devices that had better not handle bits.
//!
//! Integers are varints, signed ones zigzag; an `f32` is four bytes, low first:
//!
//! ```text
//! plain block = first u32 · base tick u64 · count u8 (not zero) · count rows
//! row         = group u8 · ticks since the row before (the first: since base) u32 · present u32 · values
//! ```
//!
//! Bit *n* of `present`, not zero, says that channel *n* of the group has a value; the values follow in
//! that order, each encoded as its channel's kind says. Decoding therefore needs the [`Schema`].

use heapless::Vec;
use serde::{Serialize, de::DeserializeOwned};

use crate::block::{BLOCK_BYTES_MAX, BlockError, Sample, take};
use crate::ids::{GroupId, Seq, Tick};
use crate::reading::{GROUP_CHANNELS_MAX, Schema, Value, ValueKind};

/// A row and the header before it always fit in an empty block.
const _: () = assert!(HEADER_BYTES_MAX + ROW_BYTES_MAX <= BLOCK_BYTES_MAX && ROW_BYTES_MAX <= 200);
const HEADER_BYTES_MAX: usize = 5 + 10 + 1;
const ROW_BYTES_MAX: usize = 1 + 5 + 5 + 5 * GROUP_CHANNELS_MAX;

/// An open block: encodes rows until it is full.
#[derive(Debug)]
pub struct PlainWriter {
    first: Seq,
    last_tick: Tick,
    rows: u8,
    /// Where the number of rows is kept.
    count_at: u8,
    len: u8,
    bytes: [u8; BLOCK_BYTES_MAX],
}

/// The row does not fit in this block any more: seal it and start another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFull;

impl PlainWriter {
    /// An empty block.
    pub const fn new() -> Self {
        Self { first: Seq(0), last_tick: Tick(0), rows: 0, count_at: 0, len: 0, bytes: [0; BLOCK_BYTES_MAX] }
    }

    /// Number of the first row; without meaning while there are no rows.
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// Rows so far.
    pub const fn rows(&self) -> u8 {
        self.rows
    }

    /// The encoded block; empty without rows.
    pub fn bytes(&self) -> &[u8] {
        let len = if self.rows == 0 { 0 } else { usize::from(self.len) };
        self.bytes.get(..len).unwrap_or_default()
    }

    /// Starts over.
    pub const fn clear(&mut self) {
        self.rows = 0;
        self.len = 0;
    }

    /// Appends row `seq`, which must follow the row before. At most 32 values, at least one of them
    /// present, each of its channel's kind: the caller knows the group and has checked that.
    ///
    /// # Errors
    ///
    /// The block is full, or `tick` lies before the last row's or too far behind it; nothing was
    /// appended. An empty block takes every row.
    pub fn push(
        &mut self,
        seq: Seq,
        tick: Tick,
        group: GroupId,
        values: &[Option<Value>],
    ) -> Result<(), BlockFull> {
        if self.rows == 0 {
            self.open(seq, tick)?;
        }
        debug_assert!(seq == self.first.plus(u32::from(self.rows)), "row numbers have no hole");
        let delta = tick.0.checked_sub(self.last_tick.0).ok_or(BlockFull)?;
        let delta = u32::try_from(delta).map_err(|_| BlockFull)?;
        let rows = self.rows.checked_add(1).ok_or(BlockFull)?;

        let mut out = Output { bytes: &mut self.bytes, len: usize::from(self.len) };
        out.put(&group)?;
        out.put(&delta)?;
        let present = values.iter().rev().fold(0, |bits: u32, value| bits << 1 | u32::from(value.is_some()));
        out.put(&present)?;
        for value in values.iter().flatten() {
            match value {
                Value::Bool(value) => out.put(value),
                Value::I32(value) => out.put(value),
                Value::U32(value) => out.put(value),
                Value::F32(value) => out.put(value),
            }?;
        }
        self.len = out.len as u8;
        self.rows = rows;
        self.last_tick = tick;
        self.bytes[usize::from(self.count_at)] = rows;
        Ok(())
    }

    fn open(&mut self, first: Seq, base: Tick) -> Result<(), BlockFull> {
        let mut out = Output { bytes: &mut self.bytes, len: 0 };
        out.put(&first)?;
        out.put(&base)?;
        self.count_at = out.len as u8;
        out.put(&0_u8)?;
        self.len = out.len as u8;
        self.first = first;
        self.last_tick = base;
        Ok(())
    }
}

impl Default for PlainWriter {
    fn default() -> Self {
        Self::new()
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn put<T: Serialize>(&mut self, value: &T) -> Result<(), BlockFull> {
        let rest = self.bytes.get_mut(self.len..).ok_or(BlockFull)?;
        self.len += postcard::to_slice(value, rest).map_err(|_| BlockFull)?.len();
        Ok(())
    }
}

/// Reads a plain block's rows from `seq` to `end`.
#[derive(Debug, Clone)]
pub struct PlainRows<'a, 's> {
    schema: &'s Schema,
    seq: Seq,
    end: Seq,
    tick: Tick,
    bytes: &'a [u8],
}

impl<'a, 's> PlainRows<'a, 's> {
    pub(crate) const fn new(schema: &'s Schema, seq: Seq, end: Seq, base: Tick, bytes: &'a [u8]) -> Self {
        Self { schema, seq, end, tick: base, bytes }
    }

    /// The next row; nothing behind the last one, or behind an error.
    pub(crate) fn next(&mut self) -> Option<Result<Sample, BlockError>> {
        let row = if self.seq != self.end {
            self.row()
        } else if self.bytes.is_empty() {
            return None;
        } else {
            Err(BlockError::Trailing)
        };
        if row.is_err() {
            (self.seq, self.bytes) = (self.end, &[]);
        }
        Some(row)
    }

    fn row(&mut self) -> Result<Sample, BlockError> {
        let group = self.take()?;
        let channels = self.schema.group(group).ok_or(BlockError::Group(group))?;
        let delta: u32 = self.take()?;
        self.tick = Tick(self.tick.0.checked_add(u64::from(delta)).ok_or(BlockError::Tick)?);
        let mut present: u32 = self.take()?;
        if present == 0 || u64::from(present) >> channels.len() != 0 {
            return Err(BlockError::Present);
        }
        let mut values = Vec::new();
        while present != 0 {
            let channel = present.trailing_zeros() as u8;
            present &= present - 1;
            let kind = channels.get(usize::from(channel)).ok_or(BlockError::Present)?.kind;
            let value = match kind {
                ValueKind::Bool => Value::Bool(self.take()?),
                ValueKind::I32 => Value::I32(self.take()?),
                ValueKind::U32 => Value::U32(self.take()?),
                ValueKind::F32 => Value::F32(self.take()?),
            };
            values.push((channel, value)).map_err(|_| BlockError::Present)?;
        }
        let seq = self.seq;
        self.seq = seq.plus(1);
        Ok(Sample { seq, tick: self.tick, group, values })
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<T, BlockError> {
        let (value, rest) = take(self.bytes).ok_or(BlockError::Value)?;
        self.bytes = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::block::{Block, Form, Row};
    use crate::fixture::{bits, schema};

    fn decode(bytes: &[u8]) -> Result<Vec<Sample>, BlockError> {
        let rows = Block::parse(Form::Plain, bytes)?.rows(&schema()).collect::<Result<Vec<_>, _>>()?;
        Ok(rows
            .into_iter()
            .map(|row| if let Row::Sample(row) = row { row } else { panic!("{row:?}") })
            .collect())
    }

    type Given = (u8, u64, Vec<Option<Value>>);

    fn sample() -> impl Strategy<Value = Given> {
        let all = (
            any::<Option<bool>>(),
            any::<Option<i32>>(),
            any::<Option<u32>>(),
            any::<Option<u32>>().prop_map(|bits| bits.map(f32::from_bits)),
        );
        let all = all.prop_map(|(a, b, c, d)| {
            Vec::from([a.map(Value::Bool), b.map(Value::I32), c.map(Value::U32), d.map(Value::F32)])
        });
        let all = all.prop_filter("a row has a value", |row| row.iter().any(Option::is_some));
        let one = any::<u32>().prop_map(|value| Vec::from([Some(Value::U32(value))]));
        let step = prop_oneof![0..1000_u64, any::<u64>().prop_map(|step| step >> 8)];
        prop_oneof![(Just(0), step.clone(), all), (Just(1), step, one)]
    }

    proptest! {
        #[test]
        fn rows_come_back(first in any::<u32>(), samples in vec(sample(), 1..200)) {
            let mut writer = PlainWriter::new();
            let mut decoded = Vec::new();
            let mut tick = 0;
            for (seq, (group, step, values)) in (first..=u32::MAX).zip(&samples) {
                tick += step >> 8;
                let mut push = || writer.push(Seq(seq), Tick(tick), GroupId(*group), values);
                if push() == Err(BlockFull) {
                    decoded.extend(decode(writer.bytes()).unwrap());
                    writer.clear();
                    writer.push(Seq(seq), Tick(tick), GroupId(*group), values).unwrap();
                }
            }
            decoded.extend(decode(writer.bytes()).unwrap());
            let mut tick = 0;
            for (row, (group, step, values)) in decoded.iter().zip(&samples) {
                tick += step >> 8;
                prop_assert_eq!((row.tick, row.group), (Tick(tick), GroupId(*group)));
                let got: Vec<_> = row.values.iter().map(|(at, value)| (usize::from(*at), bits(*value))).collect();
                let sent: Vec<_> = values.iter().enumerate().filter_map(|(at, v)| v.map(|v| (at, bits(v)))).collect();
                prop_assert_eq!(got, sent);
            }
            let numbers: Vec<_> = decoded.iter().map(|row| row.seq.0).collect();
            let sent: Vec<_> = (first..=u32::MAX).take(samples.len()).collect();
            prop_assert_eq!(numbers, sent);
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..=BLOCK_BYTES_MAX)) {
            if let Ok(rows) = decode(&bytes) {
                prop_assert!(!rows.is_empty());
            }
        }

        #[test]
        fn no_other_length_is_a_block(samples in vec(sample(), 1..5), more in any::<u8>()) {
            let mut writer = PlainWriter::new();
            for (seq, (group, _, values)) in (0..).zip(&samples) {
                writer.push(Seq(seq), Tick(0), GroupId(*group), values).unwrap();
            }
            let mut bytes = writer.bytes().to_vec();
            bytes.push(more);
            prop_assert_eq!(decode(&bytes), Err(BlockError::Trailing));
            for len in 0..bytes.len() - 1 {
                prop_assert!(decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        assert_eq!(decode(&[0, 0, 0]), Err(BlockError::Header), "no rows");
        assert_eq!(decode(&[0, 0, 1, 2, 0, 1, 0]), Err(BlockError::Group(GroupId(2))));
        assert_eq!(decode(&[0, 0, 1, 1, 0, 0]), Err(BlockError::Present), "no values");
        assert_eq!(decode(&[0, 0, 1, 1, 0, 2, 0]), Err(BlockError::Present), "no such channel");
        assert_eq!(decode(&[0, 0, 1, 0, 0, 1, 2]), Err(BlockError::Value), "no such bool");
        let late = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1, 1, 1, 0];
        assert_eq!(decode(&late), Err(BlockError::Tick));
    }

    #[test]
    fn time_that_runs_backward_wants_a_new_block() {
        let mut writer = PlainWriter::new();
        let row = [Some(Value::U32(1))];
        writer.push(Seq(0), Tick(10), GroupId(1), &row).unwrap();
        assert_eq!(writer.push(Seq(1), Tick(9), GroupId(1), &row), Err(BlockFull));
        assert_eq!(writer.push(Seq(1), Tick(1 << 33), GroupId(1), &row), Err(BlockFull));
        assert_eq!((writer.rows(), decode(writer.bytes()).map(|rows| rows.len())), (1, Ok(1)));
    }
}
