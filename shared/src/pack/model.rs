//! What both ends remember of a run, and expect of its next row.

/// Ones in a row that say that a number is not in Rice code.
pub(super) const ESCAPE: u32 = 8;
/// The greatest Rice parameter, in eighths.
pub(super) const RICE_MAX: u32 = 24 * 8 + 7;
/// Of the time, at first.
pub(super) const TICK_RICE: u8 = 2 * 8;

/// What is remembered of a channel within a run; how well its values are packed, from one run to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) last: u32,
    /// From the word before the last to the last.
    slope: i16,
    /// Eight times the Rice parameter.
    pub(super) rice: u8,
    /// The order, whether the group's last row had a value, whether the run has had one; and above them how much oftener
    /// the other order would have come nearer lately, at most [`TREND_MAX`] either way.
    flags: i8,
}

const ORDER: i8 = 1;
const PRESENT: i8 = 2;
const SEEN: i8 = 4;
/// One step of the trend.
const STEP: i8 = 8;
const TREND_MAX: i8 = 15;

impl Column {
    pub(super) const NEW: Self = Self { last: 0, slope: 0, rice: 3 * 8, flags: 0 };

    pub(super) const fn order(&self) -> u8 {
        (self.flags & ORDER) as u8
    }

    pub(super) const fn is_present(&self) -> bool {
        self.flags & PRESENT != 0
    }

    pub(super) const fn set_present(&mut self, present: bool) {
        self.flags &= !PRESENT;
        if present {
            self.flags |= PRESENT;
        }
    }

    pub(super) const fn is_seen(&self) -> bool {
        self.flags & SEEN != 0
    }

    pub(super) const fn expected(&self) -> u32 {
        if self.order() == 0 { self.last } else { self.sloped() }
    }

    const fn sloped(&self) -> u32 {
        self.last.wrapping_add_signed(self.slope as i32)
    }

    pub(super) fn note(&mut self, word: u32) {
        let slope = word.wrapping_sub(self.last).cast_signed();
        self.slope = slope.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        self.last = word;
    }

    pub(super) const fn begin(&mut self, order: u8, k: u8, word: u32) {
        self.flags = self.flags & !ORDER | order as i8 | SEEN;
        (self.rice, self.slope, self.last) = ((k << 3) | 4, 0, word);
    }

    /// Learns which order comes nearer to this word.
    pub(super) fn compare_orders(&mut self, word: u32) {
        let (plain, sloped) =
            (zigzag(word.wrapping_sub(self.last)), zigzag(word.wrapping_sub(self.sloped())));
        if sloped < plain && self.flags >> 3 < TREND_MAX {
            self.flags += STEP;
        } else if plain < sloped && self.flags >> 3 > -TREND_MAX {
            self.flags -= STEP;
        }
    }

    /// The next run begins with the order that came nearer in this one.
    pub(super) const fn end_run(&mut self) {
        let trend = self.flags >> 3;
        self.flags = (trend >> 1 << 3) | (trend > 0) as i8;
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
    let before = u32::from(*rice);
    *rice = match quotient {
        0 => before.saturating_sub(2),
        1 => before,
        more => (before + more.min(ESCAPE) + 1).min(RICE_MAX),
    } as u8;
}

/// By steps: a small chip has no instruction for it, and this is asked for once in many rows.
pub(super) const fn bit_length(value: u32) -> u32 {
    let mut len = 0;
    while len < u32::BITS && value >> len > 0 {
        len += 1;
    }
    len
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
