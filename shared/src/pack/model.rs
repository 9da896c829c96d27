//! What both ends remember of a run, and expect of its next row.

/// Ones in a row that say that a number is not in Rice code.
pub(super) const ESCAPE: u32 = 8;
/// The greatest Rice parameter, in eighths.
pub(super) const RICE_MAX: u8 = 24 * 8 + 7;
/// Of the time, at first.
pub(super) const TICK_RICE: u8 = 2 * 8;

/// What is remembered of a channel within a run; how well its values are packed, from one run to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) last: u32,
    /// From the word before the last to the last.
    pub(super) slope: i16,
    /// Eight times the Rice parameter.
    pub(super) rice: u8,
    pub(super) order: u8,
    /// The group's last row had a value.
    pub(super) present: bool,
    /// The run has had a value.
    pub(super) seen: bool,
    /// How much oftener the other order would have come nearer lately, at most [`TREND_MAX`] either way.
    pub(super) trend: i8,
}

pub(super) const TREND_MAX: i8 = 15;

impl Column {
    pub(super) const fn expected(&self) -> u32 {
        if self.order == 0 { self.last } else { self.sloped() }
    }

    pub(super) const fn sloped(&self) -> u32 {
        self.last.wrapping_add_signed(self.slope as i32)
    }

    pub(super) fn note(&mut self, word: u32) {
        let slope = word.wrapping_sub(self.last).cast_signed();
        self.slope = slope.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        self.last = word;
    }

    pub(super) const fn begin(&mut self, order: u8, k: u8, word: u32) {
        self.order = order;
        self.rice = (k << 3) | 4;
        self.seen = true;
        self.slope = 0;
        self.last = word;
    }
}

/// All columns, in eight bytes each.
#[derive(Debug, Clone)]
pub(super) struct Columns<const CHANNELS: usize> {
    pub(super) last: [u32; CHANNELS],
    pub(super) slope: [i16; CHANNELS],
    pub(super) rice: [u8; CHANNELS],
    /// The order, whether present and seen, and above them the trend.
    pub(super) flags: [i8; CHANNELS],
}

impl<const CHANNELS: usize> Columns<CHANNELS> {
    pub(super) const fn new() -> Self {
        Self { last: [0; CHANNELS], slope: [0; CHANNELS], rice: [3 * 8; CHANNELS], flags: [0; CHANNELS] }
    }

    pub(super) fn get(&self, at: usize) -> Option<Column> {
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

    pub(super) fn set(&mut self, at: usize, column: Column) {
        let Column { last, slope, rice, order, present, seen, trend } = column;
        if at < CHANNELS {
            (self.last[at], self.slope[at], self.rice[at]) = (last, slope, rice);
            self.flags[at] = trend << 3 | i8::from(seen) << 2 | i8::from(present) << 1 | order as i8;
        }
    }

    pub(super) fn is_present(&self, at: usize) -> bool {
        self.flags.get(at).is_some_and(|flags| flags & 2 != 0)
    }

    pub(super) fn set_present(&mut self, at: usize, present: bool) {
        if let Some(flags) = self.flags.get_mut(at) {
            *flags = *flags & !2 | i8::from(present) << 1;
        }
    }
}

/// Which group is expected after one, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Following<const CHANNELS: usize> {
    pub(super) ticks: [u32; CHANNELS],
    pub(super) group: [u8; CHANNELS],
}

impl<const CHANNELS: usize> Following<CHANNELS> {
    pub(super) const fn new() -> Self {
        let mut new = Self { ticks: [0; CHANNELS], group: [0; CHANNELS] };
        let mut at = 0;
        while at < CHANNELS {
            new.group[at] = at as u8;
            at += 1;
        }
        new
    }

    pub(super) fn get(&self, after: u8) -> (u8, u32) {
        let at = usize::from(after);
        (self.group.get(at).copied().unwrap_or(after), self.ticks.get(at).copied().unwrap_or_default())
    }

    pub(super) fn note(&mut self, after: u8, group: u8, ticks: u32) {
        let at = usize::from(after);
        if let (Some(next), Some(distance)) = (self.group.get_mut(at), self.ticks.get_mut(at)) {
            (*next, *distance) = (group, ticks);
        }
    }
}

pub(super) fn adapt(rice: &mut u8, quotient: u32) {
    *rice = match quotient {
        0 => rice.saturating_sub(2),
        1 => *rice,
        more => (*rice + more.min(ESCAPE) as u8 + 1).min(RICE_MAX),
    };
}

pub(super) const fn bit_length(value: u32) -> u32 {
    u32::BITS - value.leading_zeros()
}

pub(super) const fn zigzag(difference: u32) -> u32 {
    let signed = difference.cast_signed();
    (signed << 1 ^ signed >> 31).cast_unsigned()
}

pub(super) const fn unzigzag(value: u32) -> u32 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

/// Bits of a number as a word that is ordered as the numbers are, and back.
pub(super) const fn ordered(bits: u32) -> u32 {
    bits ^ ((bits.cast_signed() >> 31).cast_unsigned() >> 1)
}
