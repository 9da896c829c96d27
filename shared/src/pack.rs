//! Rows packed into few bits.
//!
//! A packed run has no boundaries of bytes inside: bits are filled in from the highest down, and the last byte is
//! padded with zeros. What stands before it on the wire says how many row numbers it covers. The codes of a row:
//!
//! ```text
//! 0                                        a row of the group, and after the time, that are expected
//! 10  Rice(zigzag(ticks - expected))       the same after another time
//! 110 group 8 · ticks · present            any row; the first one of a run is of this form
//! 111 cause 8 · number(rows - 1)           rows that were lost ahead of the run, for this cause
//! ```
//!
//! After one of the first three follow the values that are present, in the order of their channels. *Expected* are the
//! group that came next when the last row's group was there before, and the ticks between those two; at first the
//! same group at once. The first row's `ticks` are its tick: `number(high half) · number(low half)`; later ones are
//! `number(since the row before)`. `present` is `1` where all channels have a value, and else `0` and a bit a channel;
//! a row of the first two forms has the channels that its group's last row had.
//!
//! ```text
//! number(n)  = how many bits n has, 6 · these bits without the highest
//! Rice(n)    = q ones · 0 · the lower k bits of n      where q = n >> k is less than 8
//!            = 8 ones · number(n)                      otherwise
//! zigzag(d)  = 2d where d is not negative, else -2d - 1
//! value      = 1 bit                                   of a Bool
//!            = order 2 · k 5 · number(zigzag(word))    where its channel has its first value of the run
//!            = Rice(zigzag(word - expected))           of the others
//! ```
//!
//! The *word* of an `I32` or `U32` is itself, that of an `F32` its bits, or those without the sign turned over where it
//! is negative, so that words are ordered as numbers are. Words are taken modulo 2³². Expected is the last word where
//! the order is 0, and where it is 1 the last word and once more its distance to the one before, which is taken as
//! -32768 or 32767 where it is beyond. Each channel, and the time, has a `k` of its own, in eighths: after each Rice code 2 eighths less where q was 0, and q + 1 more where it was
//! greater than 1, never below 0 or above 24 and 7 eighths. A channel's begins 4 eighths above the announced `k`, the
//! time's at 2.
//!
//! A run that ends within a row, covers other than the announced number of rows, has padding that is not zero, or
//! more than is needed, is refused as a whole.

use crate::block::{BlockError, Row, Sample};
use crate::ids::{GroupId, Seq, Tick};
use crate::message::GapCause;
use crate::reading::{CHANNELS_MAX, GROUP_CHANNELS_MAX, Schema, Value, ValueKind};

/// Most bytes in a packed run.
pub const PACKED_BYTES_MAX: usize = 235;

/// Ones in a row that say that a number is not in Rice code.
const ESCAPE: u32 = 8;
const RICE_MAX: u8 = 24 * 8 + 7;
const TICK_RICE: u8 = 2 * 8;
/// Bits of the longest number.
const NUMBER_BITS_MAX: usize = 6 + 31;
const ROW_BITS_MAX: usize =
    3 + 8 + 2 * NUMBER_BITS_MAX + 1 + GROUP_CHANNELS_MAX * (1 + ESCAPE as usize + NUMBER_BITS_MAX);

/// The longest row fits in an empty run.
const _: () = assert!(ROW_BITS_MAX.div_ceil(8) <= 200 && 200 <= PACKED_BYTES_MAX);

/// What is remembered of a channel within a run; how well its values are packed, from one run to the next.
#[derive(Debug, Clone, Copy)]
struct Column {
    last: u32,
    /// From the word before the last to the last.
    slope: i16,
    /// Eight times the Rice parameter.
    rice: u8,
    order: u8,
    /// The group's last row had a value.
    present: bool,
    /// The run has had a value.
    seen: bool,
    /// How much oftener the other order would have come nearer lately, at most [`TREND_MAX`] either way.
    trend: i8,
}

const TREND_MAX: i8 = 15;

impl Column {
    const fn expected(&self) -> u32 {
        if self.order == 0 { self.last } else { self.sloped() }
    }

    const fn sloped(&self) -> u32 {
        self.last.wrapping_add_signed(self.slope as i32)
    }

    fn note(&mut self, word: u32) {
        let slope = word.wrapping_sub(self.last).cast_signed();
        self.slope = slope.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        self.last = word;
    }

    const fn begin(&mut self, order: u8, k: u8, word: u32) {
        self.order = order;
        self.rice = (k << 3) | 4;
        self.seen = true;
        self.slope = 0;
        self.last = word;
    }
}

/// All columns, in eight bytes each.
#[derive(Debug, Clone)]
struct Columns<const CHANNELS: usize> {
    last: [u32; CHANNELS],
    slope: [i16; CHANNELS],
    rice: [u8; CHANNELS],
    /// The order, whether present and seen, and above them the trend.
    flags: [i8; CHANNELS],
}

impl<const CHANNELS: usize> Columns<CHANNELS> {
    const fn new() -> Self {
        Self { last: [0; CHANNELS], slope: [0; CHANNELS], rice: [3 * 8; CHANNELS], flags: [0; CHANNELS] }
    }

    fn get(&self, at: usize) -> Option<Column> {
        let flags = *self.flags.get(at)?;
        Some(Column {
            last: *self.last.get(at)?,
            slope: *self.slope.get(at)?,
            rice: *self.rice.get(at)?,
            order: (flags & 1) as u8,
            present: flags & 2 != 0,
            seen: flags & 4 != 0,
            trend: flags >> 3,
        })
    }

    fn set(&mut self, at: usize, column: Column) {
        let Column { last, slope, rice, order, present, seen, trend } = column;
        if at < CHANNELS {
            (self.last[at], self.slope[at], self.rice[at]) = (last, slope, rice);
            self.flags[at] = trend << 3 | i8::from(seen) << 2 | i8::from(present) << 1 | order as i8;
        }
    }

    fn is_present(&self, at: usize) -> bool {
        self.flags.get(at).is_some_and(|flags| flags & 2 != 0)
    }

    fn set_present(&mut self, at: usize, present: bool) {
        if let Some(flags) = self.flags.get_mut(at) {
            *flags = *flags & !2 | i8::from(present) << 1;
        }
    }
}

/// Which group is expected after one, and when.
#[derive(Debug, Clone, Copy)]
struct Following<const CHANNELS: usize> {
    ticks: [u32; CHANNELS],
    group: [u8; CHANNELS],
}

impl<const CHANNELS: usize> Following<CHANNELS> {
    const fn new() -> Self {
        let mut new = Self { ticks: [0; CHANNELS], group: [0; CHANNELS] };
        let mut at = 0;
        while at < CHANNELS {
            new.group[at] = at as u8;
            at += 1;
        }
        new
    }

    fn get(&self, after: u8) -> (u8, u32) {
        let at = usize::from(after);
        (self.group.get(at).copied().unwrap_or(after), self.ticks.get(at).copied().unwrap_or_default())
    }

    fn note(&mut self, after: u8, group: u8, ticks: u32) {
        let at = usize::from(after);
        if let (Some(next), Some(distance)) = (self.group.get_mut(at), self.ticks.get_mut(at)) {
            (*next, *distance) = (group, ticks);
        }
    }
}

/// A row to be packed. The caller knows the group and has checked the values against it.
#[derive(Debug, Clone, Copy)]
pub struct PackRow<'a> {
    /// When it was sampled.
    pub tick: Tick,
    /// Its group.
    pub group: GroupId,
    /// How many channels the groups before it have.
    pub channels_before: u8,
    /// One entry a channel, at least one of them with a value.
    pub values: &'a [Option<Value>],
}

/// Where packed bytes go: to the place that is counted from the beginning of the run.
pub trait PackedBytes {
    /// Writes one byte; `false` where there is no room.
    fn put(&mut self, at: u8, byte: u8) -> bool;
}

/// Why a row was not packed. The run is as it was before, and nothing more can be added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackError {
    /// It does not fit in this run; an empty one takes every row.
    Full,
    /// There is no room for more bytes.
    NoRoom,
}

/// Packs rows of a device with at most `CHANNELS` channels into one run after the other.
#[derive(Debug)]
pub struct Packer<const CHANNELS: usize> {
    columns: Columns<CHANNELS>,
    following: Following<CHANNELS>,
    /// The lower and the upper half: whole, it would cost four more bytes to be aligned.
    last_tick: [u32; 2],
    group: u8,
    /// The run has a row with values.
    started: bool,
    tick_rice: u8,
    end: End,
}

/// Where the run ends: after `used` bits in the byte at `len`.
#[derive(Debug, Clone, Copy)]
struct End {
    len: u8,
    used: u8,
    partial: u8,
}

impl<const CHANNELS: usize> Packer<CHANNELS> {
    /// An empty run.
    pub const fn new() -> Self {
        Self {
            columns: Columns::new(),
            following: Following::new(),
            last_tick: [0; 2],
            group: 0,
            started: false,
            tick_rice: TICK_RICE,
            end: End { len: 0, used: 0, partial: 0 },
        }
    }

    /// Begins another run. How well each channel was packed is remembered.
    pub fn clear(&mut self) {
        for at in 0..CHANNELS {
            if let Some(column) = self.columns.get(at) {
                let (order, trend) = (u8::from(column.trend > 0), column.trend >> 1);
                self.columns.set(at, Column { order, trend, seen: false, present: false, ..column });
            }
        }
        self.following = Following::new();
        self.started = false;
        self.tick_rice = TICK_RICE;
        self.end = End { len: 0, used: 0, partial: 0 };
    }

    /// Bytes of the run, which have all been put.
    pub fn len(&self) -> u8 {
        self.end.len + u8::from(self.end.used > 0)
    }

    /// Whether nothing was packed since the run began.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// It was not added, and the run is to be closed.
    pub fn push(&mut self, row: &PackRow<'_>, bytes: &mut impl PackedBytes) -> Result<(), PackError> {
        let before = self.end;
        let packed = self.row(row, &mut Bits { end: before, bytes });
        self.close(before, packed, bytes)
    }

    /// Adds that `rows` rows, not zero, were lost in front of the next one.
    ///
    /// # Errors
    ///
    /// It was not added, and the run is to be closed.
    pub fn push_lost(
        &mut self,
        rows: u32,
        cause: GapCause,
        bytes: &mut impl PackedBytes,
    ) -> Result<(), PackError> {
        let before = self.end;
        let packed = Bits { end: before, bytes }.lost(rows, cause);
        self.close(before, packed, bytes)
    }

    /// Moves the end, or puts the last byte back as it was.
    fn close(
        &mut self,
        before: End,
        packed: Result<End, PackError>,
        bytes: &mut impl PackedBytes,
    ) -> Result<(), PackError> {
        self.end = packed.unwrap_or(before);
        if packed.is_err() && before.used > 0 {
            let had_room = bytes.put(before.len, before.partial);
            debug_assert!(had_room, "the byte was there before");
        }
        packed.map(|_| ())
    }

    fn row<B: PackedBytes>(&mut self, row: &PackRow<'_>, bits: &mut Bits<'_, B>) -> Result<End, PackError> {
        let PackRow { tick, group: GroupId(group), channels_before, values } = *row;
        let columns = (usize::from(channels_before)..).zip(values);
        let (low, high) = (tick.0 as u32, (tick.0 >> 32) as u32);
        if self.started {
            let [last_low, last_high] = self.last_tick;
            let (ticks, borrow) = low.overflowing_sub(last_low);
            if last_high.checked_add(u32::from(borrow)) != Some(high) {
                // Backward, or too far ahead.
                return Err(PackError::Full);
            }
            let (next, expected) = self.following.get(self.group);
            let as_before = columns.clone().all(|(at, value)| self.columns.is_present(at) == value.is_some());
            if next != group || !as_before {
                bits.put(0b110, 3)?;
                bits.put(u32::from(group), 8)?;
                bits.number(ticks)?;
                bits.present(values)?;
            } else if ticks == expected {
                bits.put(0, 1)?;
            } else {
                bits.put(0b10, 2)?;
                bits.rice(zigzag(ticks.wrapping_sub(expected)), &mut self.tick_rice)?;
            }
            self.following.note(self.group, group, ticks);
        } else {
            bits.put(0b110, 3)?;
            bits.put(u32::from(group), 8)?;
            bits.number(high)?;
            bits.number(low)?;
            bits.present(values)?;
            self.started = true;
        }
        (self.last_tick, self.group) = ([low, high], group);
        for (at, value) in columns {
            self.columns.set_present(at, value.is_some());
            let word = match value {
                None => continue,
                Some(Value::Bool(bit)) => {
                    bits.put(u32::from(*bit), 1)?;
                    continue;
                }
                Some(Value::I32(value)) => value.cast_unsigned(),
                Some(Value::U32(value)) => *value,
                Some(Value::F32(value)) => ordered(value.to_bits()),
            };
            let mut column = self.columns.get(at).ok_or(PackError::Full)?;
            bits.word(word, &mut column)?;
            self.columns.set(at, column);
        }
        bits.finish()
    }
}

impl<const CHANNELS: usize> Default for Packer<CHANNELS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bits on their way to bytes.
struct Bits<'a, B> {
    end: End,
    bytes: &'a mut B,
}

impl<B: PackedBytes> Bits<'_, B> {
    /// The lower `count` bits of `value`.
    fn put(&mut self, value: u32, mut count: u32) -> Result<(), PackError> {
        while count > 0 {
            let room = 8 - u32::from(self.end.used);
            let taken = count.min(room);
            let part = (value >> (count - taken)) & ((1 << taken) - 1);
            self.end.partial |= (part << (room - taken)) as u8;
            self.end.used += taken as u8;
            count -= taken;
            if self.end.used == 8 {
                self.byte()?;
                self.end = End { len: self.end.len + 1, used: 0, partial: 0 };
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<(), PackError> {
        if usize::from(self.end.len) == PACKED_BYTES_MAX {
            Err(PackError::Full)
        } else if self.bytes.put(self.end.len, self.end.partial) {
            Ok(())
        } else {
            Err(PackError::NoRoom)
        }
    }

    /// Puts the last byte too, as it is so far.
    fn finish(&mut self) -> Result<End, PackError> {
        if self.end.used > 0 {
            self.byte()?;
        }
        Ok(self.end)
    }

    fn lost(&mut self, rows: u32, cause: GapCause) -> Result<End, PackError> {
        self.put(0b111, 3)?;
        self.put(u32::from(cause.0), 8)?;
        self.number(rows.wrapping_sub(1))?;
        self.finish()
    }

    fn number(&mut self, value: u32) -> Result<(), PackError> {
        let len = bit_length(value);
        self.put(len, 6)?;
        self.put(value, len.saturating_sub(1))
    }

    fn present(&mut self, values: &[Option<Value>]) -> Result<(), PackError> {
        if values.iter().all(Option::is_some) {
            return self.put(1, 1);
        }
        self.put(0, 1)?;
        values.iter().try_for_each(|value| self.put(u32::from(value.is_some()), 1))
    }

    fn rice(&mut self, value: u32, rice: &mut u8) -> Result<(), PackError> {
        let k = u32::from(*rice >> 3);
        let quotient = value >> k;
        if quotient < ESCAPE {
            self.put((2 << quotient) - 2, quotient + 1)?;
            self.put(value, k)?;
        } else {
            self.put(0xff, ESCAPE)?;
            self.number(value)?;
        }
        adapt(rice, quotient);
        Ok(())
    }

    fn word(&mut self, word: u32, column: &mut Column) -> Result<(), PackError> {
        if !column.seen {
            let (order, k) = (column.order, column.rice >> 3);
            self.put(u32::from(order), 2)?;
            self.put(u32::from(k), 5)?;
            column.begin(order, k, word);
            return self.number(zigzag(word));
        }
        let residue = zigzag(word.wrapping_sub(column.expected()));
        self.rice(residue, &mut column.rice)?;
        let (plain, sloped) =
            (zigzag(word.wrapping_sub(column.last)), zigzag(word.wrapping_sub(column.sloped())));
        let step = i8::from(sloped < plain) - i8::from(plain < sloped);
        column.trend = (column.trend + step).clamp(-TREND_MAX, TREND_MAX);
        column.note(word);
        Ok(())
    }
}

/// Reads a packed run that covers the rows from `seq` to `end`.
#[derive(Debug, Clone)]
pub struct PackedRows<'a, 's> {
    schema: &'s Schema,
    seq: Seq,
    end: Seq,
    /// Bytes that were not begun, and the byte that was, with how many of its bits are left.
    bytes: &'a [u8],
    current: u8,
    left: u32,
    columns: Columns<CHANNELS_MAX>,
    following: Following<CHANNELS_MAX>,
    last_tick: Tick,
    group: u8,
    started: bool,
    tick_rice: u8,
}

impl<'a, 's> PackedRows<'a, 's> {
    pub(crate) const fn new(schema: &'s Schema, seq: Seq, end: Seq, bytes: &'a [u8]) -> Self {
        Self {
            schema,
            seq,
            end,
            bytes,
            current: 0,
            left: 0,
            columns: Columns::new(),
            following: Following::new(),
            last_tick: Tick(0),
            group: 0,
            started: false,
            tick_rice: TICK_RICE,
        }
    }

    /// The next row; nothing behind the last one, or behind an error.
    pub(crate) fn next(&mut self) -> Option<Result<Row, BlockError>> {
        let rest_is_zero = || u32::from(self.current) & ((1 << self.left) - 1) == 0;
        let row = if self.seq != self.end {
            self.row()
        } else if self.bytes.is_empty() && rest_is_zero() {
            return None;
        } else {
            Err(BlockError::Trailing)
        };
        if row.is_err() {
            (self.seq, self.bytes, self.left) = (self.end, &[], 0);
        }
        Some(row)
    }

    fn row(&mut self) -> Result<Row, BlockError> {
        let (next, expected) = self.following.get(self.group);
        let group = match (self.ones(3)?, self.started) {
            (0, true) => self.advance(GroupId(next), expected)?,
            (1, true) => {
                let change = self.rice_of_ticks()?;
                self.advance(GroupId(next), expected.wrapping_add(change))?
            }
            (2, started) => {
                let group = GroupId(self.take(8)? as u8);
                if self.schema.group(group).is_none() {
                    return Err(BlockError::Group(group));
                }
                if started {
                    let ticks = self.number()?;
                    self.advance(group, ticks)?;
                } else {
                    self.last_tick = Tick(u64::from(self.number()?) << 32 | u64::from(self.number()?));
                    self.started = true;
                }
                self.present(group)?;
                group
            }
            (3, _) => return self.lost(),
            _ => return Err(BlockError::Value),
        };
        self.group = group.0;
        let (seq, tick) = (self.seq, self.last_tick);
        let mut sample = Sample { seq, tick, group, values: heapless::Vec::new() };
        let (from, channels) = self.schema.located(group).ok_or(BlockError::Group(group))?;
        for (channel, description) in (0_u8..).zip(channels) {
            let at = from + usize::from(channel);
            if !self.columns.is_present(at) {
                continue;
            }
            let value = match description.kind {
                ValueKind::Bool => Value::Bool(self.take(1)? == 1),
                ValueKind::I32 => Value::I32(self.word(at)?.cast_signed()),
                ValueKind::U32 => Value::U32(self.word(at)?),
                ValueKind::F32 => Value::F32(f32::from_bits(ordered(self.word(at)?))),
            };
            sample.values.push((channel, value)).map_err(|_| BlockError::Present)?;
        }
        self.seq = seq.plus(1);
        Ok(Row::Sample(sample))
    }

    fn advance(&mut self, group: GroupId, ticks: u32) -> Result<GroupId, BlockError> {
        self.following.note(self.group, group.0, ticks);
        self.last_tick = Tick(self.last_tick.0.checked_add(u64::from(ticks)).ok_or(BlockError::Tick)?);
        Ok(group)
    }

    fn lost(&mut self) -> Result<Row, BlockError> {
        let cause = GapCause(self.take(8)? as u8);
        let rows = self.number()?.checked_add(1).ok_or(BlockError::Rows)?;
        if rows > self.seq.rows_until(self.end) {
            return Err(BlockError::Rows);
        }
        let (from, to) = (self.seq, self.seq.plus(rows));
        self.seq = to;
        Ok(Row::Lost { from, to, cause })
    }

    fn present(&mut self, group: GroupId) -> Result<(), BlockError> {
        let (from, channels) = self.schema.located(group).ok_or(BlockError::Group(group))?;
        let all = self.take(1)? == 1;
        let mut any = all;
        for at in from..from + channels.len() {
            let present = all || self.take(1)? == 1;
            any |= present;
            self.columns.set_present(at, present);
        }
        if any { Ok(()) } else { Err(BlockError::Present) }
    }

    fn word(&mut self, at: usize) -> Result<u32, BlockError> {
        let mut column = self.columns.get(at).ok_or(BlockError::Present)?;
        if column.seen {
            let residue = self.rice(&mut column.rice)?;
            column.note(column.expected().wrapping_add(residue));
        } else {
            let (order, k) = (self.take(2)? as u8, self.take(5)? as u8);
            if order > 1 || k > RICE_MAX >> 3 {
                return Err(BlockError::Value);
            }
            column.begin(order, k, unzigzag(self.number()?));
        }
        self.columns.set(at, column);
        Ok(column.last)
    }

    fn rice_of_ticks(&mut self) -> Result<u32, BlockError> {
        let mut rice = self.tick_rice;
        let change = self.rice(&mut rice)?;
        self.tick_rice = rice;
        Ok(change)
    }

    fn rice(&mut self, rice: &mut u8) -> Result<u32, BlockError> {
        let k = u32::from(*rice >> 3);
        let quotient = self.ones(ESCAPE)?;
        let value = if quotient < ESCAPE { quotient << k | self.take(k)? } else { self.number()? };
        if value >> k < quotient {
            return Err(BlockError::Value);
        }
        adapt(rice, value >> k);
        Ok(unzigzag(value))
    }

    fn number(&mut self) -> Result<u32, BlockError> {
        match self.take(6)? {
            0 => Ok(0),
            len @ 1..=32 => Ok(1 << (len - 1) | self.take(len - 1)?),
            _ => Err(BlockError::Value),
        }
    }

    /// How many ones come, up to `most`; a zero behind fewer is taken too.
    fn ones(&mut self, most: u32) -> Result<u32, BlockError> {
        let mut count = 0;
        while count < most && self.take(1)? == 1 {
            count += 1;
        }
        Ok(count)
    }

    fn take(&mut self, mut count: u32) -> Result<u32, BlockError> {
        let mut value = 0;
        while count > 0 {
            if self.left == 0 {
                let (first, rest) = self.bytes.split_first().ok_or(BlockError::Value)?;
                (self.current, self.bytes, self.left) = (*first, rest, 8);
            }
            let taken = count.min(self.left);
            self.left -= taken;
            count -= taken;
            value = value << taken | (u32::from(self.current) >> self.left) & ((1 << taken) - 1);
        }
        Ok(value)
    }
}

fn adapt(rice: &mut u8, quotient: u32) {
    *rice = match quotient {
        0 => rice.saturating_sub(2),
        1 => *rice,
        more => (*rice + more.min(ESCAPE) as u8 + 1).min(RICE_MAX),
    };
}

const fn bit_length(value: u32) -> u32 {
    u32::BITS - value.leading_zeros()
}

const fn zigzag(difference: u32) -> u32 {
    let signed = difference.cast_signed();
    (signed << 1 ^ signed >> 31).cast_unsigned()
}

const fn unzigzag(value: u32) -> u32 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

/// Bits of a number as a word that is ordered as the numbers are, and back.
const fn ordered(bits: u32) -> u32 {
    bits ^ ((bits.cast_signed() >> 31).cast_unsigned() >> 1)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::block::{Block, Form, packed_head};
    use crate::message::SeqRange;
    use crate::reading::{Channel, Group, Groups};

    const fn channel(name: &'static str, kind: ValueKind) -> Channel {
        Channel { name, unit: "", kind, scale: 0 }
    }

    const GROUPS: Groups = Groups::new(&[
        Group {
            name: "all",
            channels: &[
                channel("bool", ValueKind::Bool),
                channel("i32", ValueKind::I32),
                channel("u32", ValueKind::U32),
                channel("f32", ValueKind::F32),
            ],
        },
        Group { name: "one", channels: &[channel("u32", ValueKind::U32)] },
    ]);

    fn schema() -> Schema {
        Schema::new(GROUPS.descriptions()).unwrap()
    }

    /// Somewhere for bytes, with room for so many.
    struct Room(Vec<u8>, usize);

    impl PackedBytes for Room {
        fn put(&mut self, at: u8, byte: u8) -> bool {
            let at = usize::from(at);
            self.0.truncate(at);
            assert_eq!(self.0.len(), at, "bytes come one after the other");
            self.0.push(byte);
            at < self.1
        }
    }

    /// A run that is being packed, and how many numbers it covers.
    struct Run {
        packer: Packer<5>,
        room: Room,
        first: Seq,
        count: u32,
    }

    impl Run {
        fn new(first: u32) -> Self {
            let room = Room(Vec::new(), PACKED_BYTES_MAX);
            Self { packer: Packer::new(), room, first: Seq(first), count: 0 }
        }

        fn push(&mut self, tick: u64, group: u8, values: &[Option<Value>]) -> Result<(), PackError> {
            let channels_before = if group == 0 { 0 } else { 4 };
            let row = PackRow { tick: Tick(tick), group: GroupId(group), channels_before, values };
            self.packer.push(&row, &mut self.room)?;
            self.count += 1;
            Ok(())
        }

        fn lost(&mut self, rows: u32, cause: GapCause) -> Result<(), PackError> {
            self.packer.push_lost(rows, cause, &mut self.room)?;
            self.count += rows;
            Ok(())
        }

        /// The block so far, and the next one's beginning.
        fn take(&mut self) -> Vec<u8> {
            let to = self.first.plus(self.count);
            let head = packed_head(SeqRange { from: self.first, to });
            let run = &self.room.0[..usize::from(self.packer.len())];
            let block = [&head[..], run].concat();
            self.packer.clear();
            (self.first, self.count) = (to, 0);
            block
        }
    }

    fn decode(block: &[u8]) -> Result<Vec<Row>, BlockError> {
        Block::parse(Form::Packed, block)?.rows(&schema()).collect()
    }

    #[derive(Debug, Clone)]
    enum Given {
        Row(u8, u64, Vec<Option<Value>>),
        Lost(u32, u8),
    }

    fn given() -> impl Strategy<Value = Given> {
        let number = || prop_oneof![4 => 0..9_u32, 2 => 0..5000_u32, 1 => any::<u32>()];
        let maybe = |present: bool, value| if present { Some(value) } else { None };
        let all = (any::<bool>(), number(), number(), number(), prop_oneof![3 => Just(15_u8), 1 => 1..16_u8]);
        let all = all.prop_map(move |(a, b, c, d, present)| {
            Vec::from([
                maybe(present & 1 > 0, Value::Bool(a)),
                maybe(present & 2 > 0, Value::I32(b.cast_signed())),
                maybe(present & 4 > 0, Value::U32(c)),
                maybe(present & 8 > 0, Value::F32(f32::from_bits(d.rotate_right(9)))),
            ])
        });
        let one = number().prop_map(|value| Vec::from([Some(Value::U32(value))]));
        let step =
            || prop_oneof![8 => Just(10_u64), 2 => 0..1000_u64, 1 => any::<u64>().prop_map(|s| s >> 8)];
        prop_oneof![
            4 => (step(), all).prop_map(|(step, row)| Given::Row(0, step, row)),
            4 => (step(), one).prop_map(|(step, row)| Given::Row(1, step, row)),
            1 => (1..=u32::MAX >> 2, any::<u8>()).prop_map(|(rows, cause)| Given::Lost(rows, cause)),
        ]
    }

    /// Bits rather than numbers, since a NaN is not equal to itself.
    fn bits(value: Value) -> (ValueKind, u32) {
        let bits = match value {
            Value::Bool(value) => u32::from(value),
            Value::I32(value) => value.cast_unsigned(),
            Value::U32(value) => value,
            Value::F32(value) => value.to_bits(),
        };
        (value.kind(), bits)
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(first in any::<u32>(), given in vec(given(), 1..300)) {
            let mut run = Run::new(first);
            let (mut decoded, mut ticks, mut tick) = (Vec::new(), Vec::new(), 0);
            for given in &given {
                let mut push = |run: &mut Run| match given {
                    Given::Row(group, step, values) => {
                        run.push(tick + (step >> 8), *group, values).inspect(|()| tick += step >> 8)
                    }
                    Given::Lost(rows, cause) => run.lost(*rows, GapCause(*cause)),
                };
                // A block covers less than half of all numbers.
                if run.count >= u32::MAX >> 2 || push(&mut run).inspect_err(|e| assert_eq!(*e, PackError::Full)).is_err() {
                    decoded.extend(decode(&run.take()).unwrap());
                    push(&mut run).unwrap();
                }
                ticks.push(tick);
            }
            decoded.extend(decode(&run.take()).unwrap());
            prop_assert_eq!(decoded.len(), given.len());
            let mut seq = Seq(first);
            for ((row, given), at) in decoded.iter().zip(&given).zip(ticks) {
                match (row, given) {
                    (Row::Sample(row), Given::Row(group, _, values)) => {
                        prop_assert_eq!((row.seq, row.tick, row.group), (seq, Tick(at), GroupId(*group)));
                        let got: Vec<_> = row.values.iter().map(|(at, v)| (usize::from(*at), bits(*v))).collect();
                        let sent = values.iter().enumerate().filter_map(|(at, v)| v.map(|v| (at, bits(v))));
                        prop_assert_eq!(got, sent.collect::<Vec<_>>());
                        seq = seq.plus(1);
                    }
                    (Row::Lost { from, to, cause }, Given::Lost(rows, of)) => {
                        prop_assert_eq!((*from, *to, cause.0), (seq, seq.plus(*rows), *of));
                        seq = *to;
                    }
                    _ => prop_assert!(false, "{row:?} instead of {given:?}"),
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(count in 1..2000_u32, run in vec(any::<u8>(), 0..=PACKED_BYTES_MAX)) {
            let rows = SeqRange { from: Seq(7), to: Seq(7).plus(count) };
            if let Ok(rows) = decode(&[&packed_head(rows)[..], &run].concat()) {
                prop_assert!(!rows.is_empty() && rows.len() <= count as usize);
            }
        }

        #[test]
        fn no_other_length_is_a_block(given in vec(given(), 1..20), more in any::<u8>(), padding in any::<u8>()) {
            let mut run = Run::new(0);
            for given in &given {
                match given {
                    Given::Row(group, _, values) => { let _ = run.push(0, *group, values); }
                    Given::Lost(rows, cause) => { let _ = run.lost(rows & 0xff | 1, GapCause(*cause)); }
                }
            }
            let used = run.packer.end.used;
            let mut block = run.take();
            block.push(more);
            prop_assert_eq!(decode(&block), Err(BlockError::Trailing));
            block.pop();
            let unused = 0xff_u8.checked_shr(u32::from(used)).unwrap_or(0) & padding;
            if used > 0 && unused != 0 {
                let last = block.len() - 1;
                block[last] |= unused;
                prop_assert_eq!(decode(&block), Err(BlockError::Trailing));
            }
            block.pop();
            prop_assert!(decode(&block).is_err());
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let one = |bits: &str| {
            let padded = std::format!("{bits:0<width$}", width = bits.len().next_multiple_of(8));
            let bytes = padded
                .as_bytes()
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0')));
            decode(&[&[0, 0, 0, 0, 1][..], &bytes.collect::<Vec<_>>()].concat())
        };
        let zero = "000000";
        let row = |group: &str, present: &str| std::format!("110{group}{zero}{zero}{present}");
        let first = std::format!("{}00{}{zero}", row("00000001", "1"), "00011");
        assert!(one(&first).is_ok());
        assert_eq!(one(&row("00000010", "1")), Err(BlockError::Group(GroupId(2))));
        assert_eq!(one(&row("00000000", "00000")), Err(BlockError::Present), "no values");
        assert_eq!(one("0"), Err(BlockError::Value), "nothing is expected yet");
        assert_eq!(one("10"), Err(BlockError::Value), "nothing is expected yet");
        assert_eq!(one(&std::format!("{}10{}{zero}", row("00000001", "1"), "00011")), Err(BlockError::Value));
        assert_eq!(one(&std::format!("{}00{}{zero}", row("00000001", "1"), "11001")), Err(BlockError::Value));
        assert_eq!(one(&std::format!("{}00{}100001", row("00000001", "1"), "00011")), Err(BlockError::Value));
        assert_eq!(one("11100000001000001"), Err(BlockError::Rows), "two lost rows where there is one");
        assert_eq!(one(&std::format!("{first}1")), Err(BlockError::Trailing));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Err(BlockError::Header), "no rows");
        assert_eq!(decode(&[0, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 8]), Err(BlockError::Header), "2^31 rows");
        assert_eq!(decode(&[0, 0, 0]), Err(BlockError::Header));
    }

    #[test]
    fn where_there_is_no_room_nothing_is_packed() {
        let mut run = Run::new(0);
        run.room.1 = 20;
        let mut tick = 0;
        let error = loop {
            tick += 7;
            if let Err(error) = run.push(tick, 1, &[Some(Value::U32(tick as u32 * tick as u32))]) {
                break error;
            }
        };
        assert_eq!(error, PackError::NoRoom);
        let rows = run.count;
        assert!(rows > 3 && run.packer.len() <= 20, "{rows} rows");
        assert_eq!(decode(&run.take()).map(|rows| rows.len()), Ok(rows as usize));
    }

    #[test]
    fn time_that_runs_backward_wants_another_run() {
        for tick in [9, 1 << 33] {
            let mut run = Run::new(0);
            run.push(10, 1, &[Some(Value::U32(1))]).unwrap();
            assert_eq!(run.push(tick, 1, &[Some(Value::U32(1))]), Err(PackError::Full));
            assert_eq!(decode(&run.take()).map(|rows| rows.len()), Ok(1));
        }
    }

    #[test]
    fn regular_rows_take_few_bits() {
        let rows_in_a_block = |value: fn(u32) -> u32| {
            let mut run = Run::new(0);
            let mut rows = Vec::new();
            // The third one: the first two tell what the rows are like.
            for row in 0.. {
                if rows.len() == 3 {
                    break;
                }
                if run.push(u64::from(row) * 10, 1, &[Some(Value::U32(value(row)))]).is_err() {
                    rows.push(run.count);
                    run.take();
                }
            }
            rows[2]
        };
        assert!(rows_in_a_block(|_| 7) > 900, "two bits a row");
        assert!(rows_in_a_block(|row| row * 1000) > 880, "an even slope is no change");
        assert!(rows_in_a_block(|row| 2000 + (row * 7 % 3)) > 400);
    }
}
