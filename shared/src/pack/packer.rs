//! Rows into bits.

use super::PACKED_BYTES_MAX;
use super::model::{Column, ESCAPE, Following, TICK_RICE, adapt, bit_length, ordered, zigzag};
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

/// What is added to a run.
#[derive(Debug, Clone, Copy)]
pub enum PackItem<'a> {
    /// A row.
    Row(PackRow<'a>),
    /// So many rows, not zero, were lost in front of the next one.
    Lost {
        /// How many.
        rows: u32,
        /// Why.
        cause: GapCause,
    },
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
    columns: [Column; CHANNELS],
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
            columns: [Column::NEW; CHANNELS],
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
        self.columns.iter_mut().for_each(Column::end_run);
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

    /// Adds one or the other.
    ///
    /// # Errors
    ///
    /// It was not added, and the run is to be closed.
    pub fn push(&mut self, item: &PackItem<'_>, bytes: &mut impl PackedBytes) -> Result<(), PackError> {
        let before = self.end;
        let mut bits = Bits { end: before, bytes, failed: None };
        match item {
            PackItem::Row(row) => self.row(row, &mut bits),
            PackItem::Lost { rows, cause } => bits.lost(*rows, *cause),
        }
        let packed = bits.finish();
        self.end = packed.unwrap_or(before);
        if packed.is_err() && before.used > 0 {
            // The last byte is put back as it was.
            let had_room = bytes.put(before.len, before.partial);
            debug_assert!(had_room, "the byte was there before");
        }
        packed.map(|_| ())
    }

    #[inline(never)]
    fn row<B: PackedBytes>(&mut self, row: &PackRow<'_>, bits: &mut Bits<'_, B>) {
        let PackRow { tick, group: GroupId(group), channels_before, values } = *row;
        let from = usize::from(channels_before);
        let Some(columns) = self.columns.get_mut(from..from + values.len()) else {
            return bits.fail(PackError::Full);
        };
        let (low, high) = (tick.0 as u32, (tick.0 >> 32) as u32);
        let [last_low, last_high] = self.last_tick;
        let (ticks, borrow) = low.overflowing_sub(last_low);
        if self.started && last_high.checked_add(u32::from(borrow)) != Some(high) {
            // Backward, or too far ahead.
            return bits.fail(PackError::Full);
        }
        let (next, expected) = self.following.get(self.group);
        let as_before =
            columns.iter().zip(values).all(|(column, value)| column.is_present() == value.is_some());
        if !self.started || next != group || !as_before {
            bits.put(0b110 << 8 | u32::from(group), 11);
            if self.started {
                bits.number(ticks);
            } else {
                bits.number(high);
                bits.number(low);
            }
            bits.present(values);
        } else if ticks == expected {
            bits.put(0, 1);
        } else {
            bits.put(0b10, 2);
            bits.rice(zigzag(ticks.wrapping_sub(expected)), &mut self.tick_rice);
        }
        if self.started {
            self.following.note(self.group, group, ticks);
        }
        (self.started, self.last_tick, self.group) = (true, [low, high], group);
        for (column, value) in columns.iter_mut().zip(values) {
            column.set_present(value.is_some());
            match value {
                None => {}
                Some(Value::Bool(bit)) => bits.put(u32::from(*bit), 1),
                Some(Value::I32(value)) => bits.word(value.cast_unsigned(), column),
                Some(Value::U32(value)) => bits.word(*value, column),
                Some(Value::F32(value)) => bits.word(ordered(value.to_bits()), column),
            }
        }
    }
}

impl<const CHANNELS: usize> Default for Packer<CHANNELS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bits on their way to bytes. After a failure, nothing more is put.
struct Bits<'a, B> {
    end: End,
    bytes: &'a mut B,
    failed: Option<PackError>,
}

impl<B: PackedBytes> Bits<'_, B> {
    /// The lower `count` bits of `value`.
    fn put(&mut self, value: u32, mut count: u32) {
        while count > 0 && self.failed.is_none() {
            count -= 1;
            self.end.partial |= ((value >> count & 1) as u8) << (7 - self.end.used);
            self.end.used += 1;
            if self.end.used == 8 {
                self.byte();
                self.end = End { len: self.end.len + 1, used: 0, partial: 0 };
            }
        }
    }

    #[inline(never)]
    fn byte(&mut self) {
        if usize::from(self.end.len) == PACKED_BYTES_MAX {
            self.fail(PackError::Full);
        } else if !self.bytes.put(self.end.len, self.end.partial) {
            self.fail(PackError::NoRoom);
        }
    }

    const fn fail(&mut self, error: PackError) {
        self.failed = Some(error);
    }

    /// Puts the last byte too, as it is so far.
    fn finish(&mut self) -> Result<End, PackError> {
        if self.end.used > 0 && self.failed.is_none() {
            self.byte();
        }
        self.failed.map_or(Ok(self.end), Err)
    }

    fn lost(&mut self, rows: u32, cause: GapCause) {
        self.put(0b111 << 8 | u32::from(cause.0), 11);
        self.number(rows.wrapping_sub(1));
    }

    fn number(&mut self, value: u32) {
        let len = bit_length(value);
        self.put(len, 6);
        self.put(value, len.saturating_sub(1));
    }

    fn present(&mut self, values: &[Option<Value>]) {
        let all = values.iter().all(Option::is_some);
        self.put(u32::from(all), 1);
        if !all {
            for value in values {
                self.put(u32::from(value.is_some()), 1);
            }
        }
    }

    fn rice(&mut self, value: u32, rice: &mut u8) {
        let k = u32::from(*rice >> 3);
        let quotient = value >> k;
        if quotient < ESCAPE {
            self.put((2 << quotient) - 2, quotient + 1);
            self.put(value, k);
        } else {
            self.put(0xff, ESCAPE);
            self.number(value);
        }
        adapt(rice, quotient);
    }

    fn word(&mut self, word: u32, column: &mut Column) {
        if column.is_seen() {
            self.rice(zigzag(word.wrapping_sub(column.expected())), &mut column.rice);
            column.compare_orders(word);
            column.note(word);
        } else {
            let (order, k) = (column.order(), column.rice >> 3);
            self.put(u32::from(order) << 5 | u32::from(k), 7);
            column.begin(order, k, word);
            self.number(zigzag(word));
        }
    }
}
