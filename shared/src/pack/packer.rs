//! Rows into bits.

use super::PACKED_BYTES_MAX;
use super::model::{
    Column, Columns, ESCAPE, Following, TICK_RICE, TREND_MAX, adapt, bit_length, ordered, zigzag,
};
use crate::ids::{GroupId, Tick};
use crate::message::GapCause;
use crate::reading::Value;

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
    pub(super) end: End,
}

/// Where the run ends: after `used` bits in the byte at `len`.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    len: u8,
    pub(super) used: u8,
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
