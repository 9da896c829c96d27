//! What a device measures, and the values it sends.
//!
//! A *group* is a set of channels sampled at one instant; it becomes a measurement in the database, and
//! a channel one of its fields. The device has its groups as [`Groups`], static tables that are checked
//! when the firmware is compiled. It announces them channel by channel ([`Description`]), and the
//! gateway puts them together as a [`Schema`], which it needs to decode rows. Both name the same set by
//! the same [`SchemaId`], a CRC-32C over the encoded descriptions in order.

use core::fmt;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use crate::crc32c::bitwise;
use crate::ids::{GroupId, SchemaId};

/// Most channels in a group: a row tells in 32 bits which of them it holds.
pub const GROUP_CHANNELS_MAX: usize = 32;
/// Most channels in all groups of a device together.
pub const CHANNELS_MAX: usize = 128;
/// Most bytes in the name of a device, group, channel or unit.
pub const NAME_BYTES_MAX: usize = 32;
/// Greatest power of ten, up or down, by which an integer is scaled: the last that `f64` holds exactly.
pub const SCALE_MAX: i8 = 22;

/// A name of at most [`NAME_BYTES_MAX`] bytes.
pub type Name = String<NAME_BYTES_MAX, u8>;

/// What the values of a channel are, by the number that the wire carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum ValueKind {
    /// Yes or no.
    Bool = 1,
    /// A signed integer that stands for itself times ten to the channel's scale.
    I32 = 2,
    /// An unsigned integer that stands for itself: a counter or a state.
    U32 = 3,
    /// A single-precision number.
    F32 = 4,
}

impl From<ValueKind> for u8 {
    fn from(kind: ValueKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for ValueKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Bool),
            2 => Ok(Self::I32),
            3 => Ok(Self::U32),
            4 => Ok(Self::F32),
            _ => Err("unknown value type"),
        }
    }
}

/// One channel's value as the device sends it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// For [`ValueKind::Bool`].
    Bool(bool),
    /// For [`ValueKind::I32`], before scaling.
    I32(i32),
    /// For [`ValueKind::U32`].
    U32(u32),
    /// For [`ValueKind::F32`]; may be infinite or not a number.
    F32(f32),
}

/// One channel's value in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Physical {
    /// Yes or no.
    Bool(bool),
    /// A counter or a state.
    Integer(i64),
    /// A quantity; may be infinite or not a number, where the device said so.
    Float(f64),
}

impl Value {
    /// Which kind of channel takes this value.
    pub const fn kind(self) -> ValueKind {
        match self {
            Self::Bool(_) => ValueKind::Bool,
            Self::I32(_) => ValueKind::I32,
            Self::U32(_) => ValueKind::U32,
            Self::F32(_) => ValueKind::F32,
        }
    }

    /// The value in the channel's unit. Only [`Value::I32`] is scaled.
    ///
    /// A negative scale divides, because ten to a negative power has no exact binary form: 2150 at
    /// scale −2 is the `f64` nearest to 21.5, as if the decimal had been parsed.
    pub fn physical(self, scale: i8) -> Physical {
        match self {
            Self::Bool(value) => Physical::Bool(value),
            Self::I32(raw) => {
                let power = TEN_TO[usize::from(scale.unsigned_abs()).min(TEN_TO.len() - 1)];
                let raw = f64::from(raw);
                Physical::Float(if scale < 0 { raw / power } else { raw * power })
            }
            Self::U32(value) => Physical::Integer(i64::from(value)),
            Self::F32(value) => Physical::Float(f64::from(value)),
        }
    }
}

/// Powers of ten up to the last that `f64` holds exactly, so that scaling rounds once.
const TEN_TO: [f64; SCALE_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// One channel, as the firmware writes it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Name within its group, 1 to 32 bytes.
    pub name: &'static str,
    /// Unit of the scaled value, such as `"°C"`; may be empty.
    pub unit: &'static str,
    /// What its values are.
    pub kind: ValueKind,
    /// Power of ten by which an [`ValueKind::I32`] is multiplied; zero for the others.
    pub scale: i8,
}

/// Channels sampled at one instant, as the firmware writes them down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Name within its device, 1 to 32 bytes.
    pub name: &'static str,
    /// Its 1 to 32 channels.
    pub channels: &'static [Channel],
}

/// All groups of a device, within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    all: &'static [Group],
    /// So that no chip has to compute it.
    id: SchemaId,
    channel_count: u8,
}

impl Groups {
    /// Checks the limits; a `const` item makes that a compile-time check.
    ///
    /// # Panics
    ///
    /// When a name is empty, too long or used twice, a group has no channel or more than
    /// [`GROUP_CHANNELS_MAX`], all together have more than [`CHANNELS_MAX`], or a scale is beyond
    /// [`SCALE_MAX`] or given to a kind that has none.
    pub const fn new(groups: &'static [Group]) -> Self {
        let mut total = 0;
        let mut at = 0;
        while at < groups.len() {
            check_group(&groups[at]);
            total += groups[at].channels.len();
            let mut earlier = 0;
            while earlier < at {
                assert!(!same(groups[earlier].name, groups[at].name), "two groups have the same name");
                earlier += 1;
            }
            at += 1;
        }
        assert!(total > 0 && total <= CHANNELS_MAX, "a device has 1 to 128 channels");
        Self { all: groups, id: schema_id(groups), channel_count: total as u8 }
    }

    /// The channels of the group at `id`, and how many there are before them.
    pub fn located(self, id: GroupId) -> Option<(u8, &'static [Channel])> {
        let at = usize::from(id.0);
        let before = self.all.get(..at)?.iter().map(|group| group.channels.len() as u8).sum();
        Some((before, self.all.get(at)?.channels))
    }

    /// The name of the whole set.
    pub const fn id(self) -> SchemaId {
        self.id
    }

    /// How many channels all groups have together.
    pub const fn channel_count(self) -> u8 {
        self.channel_count
    }

    /// Every channel in order, as it is announced to the gateway.
    pub fn descriptions(self) -> impl Iterator<Item = Description> {
        self.borrowed().map(|description| description.map(|text| name(text)))
    }

    fn borrowed(self) -> impl Iterator<Item = Description<&'static str>> {
        (0..self.channel_count()).map_while(move |index| self.description(index))
    }

    /// The channel at `index` of all, as it is announced.
    pub fn description(self, index: u8) -> Option<Description<&'static str>> {
        let mut at = usize::from(index);
        for (id, group) in (0..).zip(self.all) {
            if let Some(channel) = group.channels.get(at) {
                return Some(Description {
                    group: GroupId(id),
                    group_name: group.name,
                    channel: channel.name,
                    unit: channel.unit,
                    kind: channel.kind,
                    scale: channel.scale,
                });
            }
            at -= group.channels.len();
        }
        None
    }
}

const fn check_group(group: &Group) {
    assert!(is_name(group.name), "a group's name has 1 to 32 bytes");
    let count = group.channels.len();
    assert!(count > 0 && count <= GROUP_CHANNELS_MAX, "a group has 1 to 32 channels");
    let mut at = 0;
    while at < count {
        let channel = &group.channels[at];
        assert!(is_name(channel.name), "a channel's name has 1 to 32 bytes");
        assert!(channel.unit.len() <= NAME_BYTES_MAX, "a unit has at most 32 bytes");
        assert!(is_scale(channel.kind, channel.scale), "only an I32 has a scale, from -22 to 22");
        let mut earlier = 0;
        while earlier < at {
            assert!(!same(group.channels[earlier].name, channel.name), "two channels have the same name");
            earlier += 1;
        }
        at += 1;
    }
}

const fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

const fn is_scale(kind: ValueKind, scale: i8) -> bool {
    match kind {
        ValueKind::I32 => -SCALE_MAX <= scale && scale <= SCALE_MAX,
        ValueKind::Bool | ValueKind::U32 | ValueKind::F32 => scale == 0,
    }
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() && left[at] == right[at] {
        at += 1;
    }
    at == left.len() && at == right.len()
}

/// The text of a checked name, which fits by construction.
fn name(text: &str) -> Name {
    Name::try_from(text).unwrap_or_default()
}

/// One channel as it is announced on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description<N = Name> {
    /// Position of its group.
    pub group: GroupId,
    /// Name of its group, the same in all channels of the group.
    pub group_name: N,
    /// Its own name.
    pub channel: N,
    /// Unit of the scaled value; may be empty.
    pub unit: N,
    /// What its values are.
    pub kind: ValueKind,
    /// Power of ten by which an [`ValueKind::I32`] is multiplied.
    pub scale: i8,
}

impl<'n, N> Description<N> {
    fn map<M>(&'n self, name: impl Fn(&'n N) -> M) -> Description<M> {
        Description {
            group: self.group,
            group_name: name(&self.group_name),
            channel: name(&self.channel),
            unit: name(&self.unit),
            kind: self.kind,
            scale: self.scale,
        }
    }
}

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
    /// Says which rule of [`Groups::new`] the set breaks, or that groups are not numbered from 0 in order.
    pub fn new(channels: impl IntoIterator<Item = Description>) -> Result<Self, SchemaError> {
        let mut schema = Self { channels: Vec::new(), group_ends: Vec::new() };
        for channel in channels {
            schema.push(channel)?;
        }
        if schema.channels.is_empty() { Err(SchemaError::Count) } else { Ok(schema) }
    }

    /// The name of the whole set.
    pub fn id(&self) -> SchemaId {
        let mut names = Names::new();
        for channel in &self.channels {
            names.add(
                channel.group.0,
                &channel.group_name,
                &channel.channel,
                &channel.unit,
                channel.kind,
                channel.scale,
            );
        }
        names.id()
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
    /// A scale is beyond [`SCALE_MAX`] or given to a kind that has none.
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

const fn schema_id(groups: &[Group]) -> SchemaId {
    let mut names = Names::new();
    let mut at = 0;
    while at < groups.len() {
        let Group { name, channels } = groups[at];
        let mut index = 0;
        while index < channels.len() {
            let channel = &channels[index];
            names.add(at as u8, name, channel.name, channel.unit, channel.kind, channel.scale);
            index += 1;
        }
        at += 1;
    }
    names.id()
}

/// The checksum over the encoded descriptions in order.
struct Names(bitwise::Checksum);

impl Names {
    const fn new() -> Self {
        Self(bitwise::Checksum::new())
    }

    const fn add(
        &mut self,
        group: u8,
        group_name: &str,
        channel: &str,
        unit: &str,
        kind: ValueKind,
        scale: i8,
    ) {
        self.0.update(&[group]);
        self.text(group_name);
        self.text(channel);
        self.text(unit);
        self.0.update(&[kind as u8, scale.cast_unsigned()]);
    }

    /// A name has at most 32 bytes, so its length is one.
    const fn text(&mut self, text: &str) {
        self.0.update(&[text.len() as u8]);
        self.0.update(text.as_bytes());
    }

    const fn id(self) -> SchemaId {
        SchemaId(self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const GROUPS: Groups = Groups::new(&[
        Group {
            name: "climate",
            channels: &[
                Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 },
                Channel { name: "heating", unit: "", kind: ValueKind::Bool, scale: 0 },
            ],
        },
        Group {
            name: "meter",
            channels: &[Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 }],
        },
    ]);

    fn channels() -> Vec<Description> {
        GROUPS.descriptions().collect()
    }

    #[test]
    fn decimals_are_what_a_parser_would_read() {
        for (raw, scale, text) in [
            (2150, -2, "21.50"),
            (-1, -1, "-0.1"),
            (3, -1, "0.3"),
            (i32::MAX, -9, "2.147483647"),
            (i32::MIN, 0, "-2147483648"),
            (7, 3, "7000"),
            (1, -22, "1e-22"),
        ] {
            assert_eq!(Value::I32(raw).physical(scale), Physical::Float(text.parse().unwrap()), "{text}");
        }
        assert_eq!(Value::U32(u32::MAX).physical(0), Physical::Integer(4_294_967_295));
        assert_eq!(Value::Bool(true).physical(0), Physical::Bool(true));
        assert_eq!(Value::F32(0.5).physical(0), Physical::Float(0.5));
    }

    #[test]
    fn both_ends_have_the_same_schema() {
        let schema = Schema::new(channels()).unwrap();
        assert_eq!(schema.id(), GROUPS.id());
        assert_eq!(schema.channels(), channels());
        assert_eq!(usize::from(GROUPS.channel_count()), channels().len());
        let sizes: Vec<_> = schema.groups().map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1]);
        assert_eq!(schema.group(GroupId(1)).unwrap()[0].channel, "pulses");
        assert_eq!(schema.group(GroupId(2)), None);
    }

    #[test]
    fn a_schema_is_complete_in_any_order() {
        let mut builder = SchemaBuilder::new(GROUPS.id());
        let all = channels();
        for index in [2, 0, 2] {
            assert_eq!(builder.insert(index, 3, all[usize::from(index)].clone()), Ok(None));
        }
        assert_eq!(builder.insert(3, 3, all[1].clone()), Err(SchemaError::Count));
        let schema = builder.insert(1, 3, all[1].clone()).unwrap().unwrap();
        assert_eq!(schema.id(), GROUPS.id());
        assert_eq!(builder.insert(0, 3, all[0].clone()), Ok(None), "it starts over");

        let mut other = SchemaBuilder::new(SchemaId(GROUPS.id().0 ^ 1));
        assert_eq!(other.insert(0, 1, all[0].clone()), Err(SchemaError::Id));
        assert_eq!(other.insert(0, 200, all[0].clone()), Err(SchemaError::Count));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let changed = |at: usize, change: fn(&mut Description)| {
            let mut all = channels();
            change(&mut all[at]);
            Schema::new(all).unwrap_err()
        };
        assert_eq!(Schema::new([]), Err(SchemaError::Count));
        assert_eq!(changed(1, |c| c.group = GroupId(1)), SchemaError::Name, "one group, two names");
        assert_eq!(changed(2, |c| c.group = GroupId(2)), SchemaError::Order);
        assert_eq!(changed(0, |c| c.group = GroupId(1)), SchemaError::Order);
        assert_eq!(changed(1, |c| c.channel = channels()[0].channel.clone()), SchemaError::Name);
        assert_eq!(changed(2, |c| c.group_name = channels()[0].group_name.clone()), SchemaError::Name);
        assert_eq!(changed(2, |c| c.channel = Name::new()), SchemaError::Name);
        assert_eq!(changed(0, |c| c.scale = 23), SchemaError::Scale);
        assert_eq!(changed(0, |c| c.scale = i8::MIN), SchemaError::Scale);
        assert_eq!(changed(2, |c| c.scale = 1), SchemaError::Scale);
        let many = |group| {
            let of = channels().swap_remove(0);
            (0..33).map(move |number: u8| {
                let channel = Name::try_from(std::format!("c{number}").as_str()).unwrap();
                Description { group: GroupId(group), channel, ..of.clone() }
            })
        };
        assert_eq!(Schema::new(many(0)), Err(SchemaError::Count), "33 channels in a group");
    }
}
