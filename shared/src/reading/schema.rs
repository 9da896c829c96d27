//! What a device measures, as the gateway has it: put together from what was announced.

use core::fmt;

use heapless::Vec;

use super::groups::{is_name, is_scale};
use super::{CHANNELS_MAX, Description, GROUP_CHANNELS_MAX, Naming};
use crate::ids::{GroupId, SchemaId};

/// All groups of a device as the gateway knows them: valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    channels: Vec<Description, CHANNELS_MAX, u8>,
    /// One past the last channel of each group.
    group_ends: Vec<u8, CHANNELS_MAX, u8>,
}

impl Schema {
    /// Puts the channels together in the order in which the device announces them.
    ///
    /// # Errors
    ///
    /// Says which rule of [`Groups::new`](super::Groups::new) the set breaks, or that groups are not numbered from 0 in order.
    pub fn new(channels: impl IntoIterator<Item = Description>) -> Result<Self, SchemaError> {
        let mut schema = Self { channels: Vec::new(), group_ends: Vec::new() };
        for channel in channels {
            schema.push(channel)?;
        }
        if schema.channels.is_empty() { Err(SchemaError::Count) } else { Ok(schema) }
    }

    /// The name of the whole set.
    pub fn id(&self) -> SchemaId {
        let mut id = Naming::new();
        for channel in &self.channels {
            id.add(&channel.borrowed());
        }
        id.finish()
    }

    /// All channels in order.
    pub fn channels(&self) -> &[Description] {
        &self.channels
    }

    /// The channels of a group; never empty.
    pub fn group(&self, id: GroupId) -> Option<&[Description]> {
        self.located(id).map(|(_, channels)| channels)
    }

    /// The channels of a group, and how many there are before them.
    pub(crate) fn located(&self, id: GroupId) -> Option<(usize, &[Description])> {
        let at = usize::from(id.0);
        let end = usize::from(*self.group_ends.get(at)?);
        let start = if at == 0 { 0 } else { usize::from(*self.group_ends.get(at - 1)?) };
        Some((start, self.channels.get(start..end)?))
    }

    /// The channels of each group in order; never empty.
    pub fn groups(&self) -> impl Iterator<Item = &[Description]> {
        (0..=u8::MAX).map_while(|id| self.group(GroupId(id)))
    }

    fn push(&mut self, channel: Description) -> Result<(), SchemaError> {
        if !is_name(&channel.group_name) || !is_name(&channel.channel) {
            return Err(SchemaError::Name);
        }
        if !is_scale(channel.kind, channel.scale) {
            return Err(SchemaError::Scale);
        }
        let groups = self.group_ends.len();
        let number = usize::from(channel.group.0);
        if number == groups {
            if self.channels.iter().any(|other| other.group_name == channel.group_name) {
                return Err(SchemaError::Name);
            }
            self.group_ends.push(self.channels.len() as u8).map_err(|_| SchemaError::Count)?;
        } else if number + 1 == groups {
            let group = self.group(channel.group).unwrap_or_default();
            if group.len() == GROUP_CHANNELS_MAX {
                return Err(SchemaError::Count);
            }
            if group.iter().any(|o| o.group_name != channel.group_name || o.channel == channel.channel) {
                return Err(SchemaError::Name);
            }
        } else {
            return Err(SchemaError::Order);
        }
        self.channels.push(channel).map_err(|_| SchemaError::Count)?;
        if let Some(end) = self.group_ends.last_mut() {
            *end += 1;
        }
        Ok(())
    }
}

/// The announced channels are no valid schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaError {
    /// No channel, more than [`CHANNELS_MAX`], or more than [`GROUP_CHANNELS_MAX`] in a group.
    Count,
    /// A name is empty, used twice, or differs within a group.
    Name,
    /// A scale is beyond [`SCALE_MAX`](super::SCALE_MAX) or given to a kind that has none.
    Scale,
    /// Groups are not numbered from 0 in order.
    Order,
    /// The channels are not those that the schema's id names.
    Id,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "a device has 1 to 128 channels, a group 1 to 32",
            Self::Name => "a group's or channel's name is empty, used twice, or differs within its group",
            Self::Scale => "only a scaled integer has a scale, from -22 to 22",
            Self::Order => "groups are not numbered from 0 in order",
            Self::Id => "the announced channels are not those that the schema id names",
        })
    }
}

impl core::error::Error for SchemaError {}

/// Collects announced channels, in any order and with repetitions, until the schema is complete.
#[derive(Debug, Clone)]
pub struct SchemaBuilder {
    id: SchemaId,
    channels: Vec<Option<Description>, CHANNELS_MAX, u8>,
}

impl SchemaBuilder {
    /// Starts to collect the channels of schema `id`.
    pub const fn new(id: SchemaId) -> Self {
        Self { id, channels: Vec::new() }
    }

    /// Takes channel `index` of `count`; gives the schema once it is complete, and starts over.
    ///
    /// # Errors
    ///
    /// The set is not valid, or not the one that its name says; the builder then starts over.
    pub fn insert(
        &mut self,
        index: u8,
        count: u8,
        description: Description,
    ) -> Result<Option<Schema>, SchemaError> {
        let count = usize::from(count);
        if self.channels.len() != count {
            self.channels.clear();
            self.channels.resize(count, None).map_err(|_| SchemaError::Count)?;
        }
        *self.channels.get_mut(usize::from(index)).ok_or(SchemaError::Count)? = Some(description);
        if self.channels.iter().any(Option::is_none) {
            return Ok(None);
        }
        let collected = core::mem::take(&mut self.channels);
        let schema = Schema::new(collected.into_iter().flatten())?;
        if schema.id() == self.id { Ok(Some(schema)) } else { Err(SchemaError::Id) }
    }
}
