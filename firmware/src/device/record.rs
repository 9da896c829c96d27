//! In: a sample. Out: a numbered row in the ring, or a reason and a counted loss. Next: `ring.rs`.

use core::fmt;

use forebay_shared::ids::{GroupId, Seq, Tick};
use forebay_shared::link::Backlog as _;
use forebay_shared::message::GapCause;
use forebay_shared::pack::PackRow;
use forebay_shared::reading::Value;

use super::Device;
use crate::ring::Memory;

impl<const RING: usize, const CHANNELS: usize, M: Memory> Device<RING, CHANNELS, M> {
    /// Takes one sample of a group and gives its number: one entry a channel, `None` where it has no
    /// value this time. `tick` is the time of the sample, which should not lie before the last one's.
    ///
    /// # Errors
    ///
    /// The values are not the group's, and nothing was recorded; or there is no room, and the row has a number and is
    /// declared lost.
    pub fn record(
        &mut self,
        tick: Tick,
        group: GroupId,
        values: &[Option<Value>],
    ) -> Result<Seq, RecordError> {
        let (channels_before, channels) = self.config.groups.located(group).ok_or(RecordError::Group)?;
        if channels.len() != values.len() {
            return Err(RecordError::Count);
        }
        let mut is_empty = true;
        for (channel, value) in channels.iter().zip(values) {
            if let Some(value) = value {
                is_empty = false;
                if value.kind() != channel.kind {
                    return Err(RecordError::Kind);
                }
            }
        }
        if is_empty {
            return Err(RecordError::Empty);
        }
        let (seq, sealed, evicted) =
            (self.ring.next(), self.ring.blocks().sealed(), self.ring.evicted_rows());
        let taken = self.ring.push(PackRow { tick, group, channels_before, values });
        if self.ring.blocks().sealed() != sealed {
            self.is_open = false;
        }
        // A row more in a block that was seen before is the one thing after which nothing else is to be done.
        if !self.is_open || !taken || self.ring.evicted_rows() != evicted {
            self.is_quiet = false;
        }
        if taken { Ok(seq) } else { Err(RecordError::Full) }
    }

    /// Numbers `rows` rows, at most a million at a time, that were due and cannot be recorded, so that the gateway
    /// learns how many they were: [`GapCause::OVERRUN`] or [`GapCause::SENSOR`].
    pub fn skip(&mut self, rows: u32, cause: GapCause) {
        self.is_quiet = false;
        self.ring.skip(rows.min(1_000_000), cause);
    }
}

/// Why a sample was not recorded: the firmware and its groups do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// There is no such group.
    Group,
    /// More or fewer values than the group has channels.
    Count,
    /// A value is not of its channel's kind.
    Kind,
    /// No channel has a value.
    Empty,
    /// The ring is full, and the row is declared lost.
    Full,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "no such group",
            Self::Count => "a row has one entry for each channel of its group",
            Self::Kind => "a value is not of its channel's kind",
            Self::Empty => "a row has at least one value",
            Self::Full => "the ring is full, and the row is declared lost",
        })
    }
}

impl core::error::Error for RecordError {}
