//! Bits into rows.

use super::model::{Column, ESCAPE, Following, RICE_MAX, TICK_RICE, adapt, ordered, unzigzag};
use crate::block::{BlockError, Row, Sample};
use crate::ids::{GroupId, Seq, Tick};
use crate::message::GapCause;
use crate::reading::{CHANNELS_MAX, Schema, Value, ValueKind};

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
    columns: [Column; CHANNELS_MAX],
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
            columns: [Column::NEW; CHANNELS_MAX],
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
            if !self.columns.get(at).is_some_and(Column::is_present) {
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
            if let Some(column) = self.columns.get_mut(at) {
                column.set_present(present);
            }
        }
        if any { Ok(()) } else { Err(BlockError::Present) }
    }

    fn word(&mut self, at: usize) -> Result<u32, BlockError> {
        let mut column = *self.columns.get(at).ok_or(BlockError::Present)?;
        if column.is_seen() {
            let residue = self.rice(&mut column.rice)?;
            column.note(column.expected().wrapping_add(residue));
        } else {
            let (order, k) = (self.take(2)? as u8, self.take(5)? as u8);
            if order > 1 || u32::from(k) > RICE_MAX >> 3 {
                return Err(BlockError::Value);
            }
            column.begin(order, k, unzigzag(self.number()?));
        }
        if let Some(slot) = self.columns.get_mut(at) {
            *slot = column;
        }
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
