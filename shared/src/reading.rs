//! What a device measures, and the values it sends.
//!
//! A *group* is a set of channels sampled at one instant; it becomes a measurement in the database, and
//! a channel one of its fields. The device has its groups as [`Groups`], static tables that are checked
//! when the firmware is compiled. It announces them channel by channel ([`Description`]), and the
//! gateway puts them together as a [`Schema`], which it needs to decode rows. Both name the same set by
//! the same [`SchemaId`], a CRC-32C over the encoded descriptions in order.

mod groups;
mod schema;

use heapless::String;
use serde::{Deserialize, Serialize};

use crate::crc32c::bitwise::Checksum;
use crate::ids::{GroupId, SchemaId};

pub use groups::{Channel, Group, Groups};
pub use schema::{Schema, SchemaBuilder, SchemaError};

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

impl Description {
    fn borrowed(&self) -> Description<&str> {
        let Self { group, kind, scale, .. } = *self;
        let [group_name, channel, unit] = [&self.group_name, &self.channel, &self.unit].map(Name::as_str);
        Description { group, group_name, channel, unit, kind, scale }
    }
}

impl Description<&str> {
    /// The names of checked tables, which fit by construction.
    fn owned(self) -> Description {
        let Self { group, kind, scale, .. } = self;
        let [group_name, channel, unit] =
            [self.group_name, self.channel, self.unit].map(|name| Name::try_from(name).unwrap_or_default());
        Description { group, group_name, channel, unit, kind, scale }
    }
}

/// Names a schema: the checksum over its descriptions in order, as they are encoded.
struct Naming(Checksum);

impl Naming {
    const fn new() -> Self {
        Self(Checksum::new())
    }

    const fn add(&mut self, channel: &Description<&str>) {
        self.0.update(&[channel.group.0]);
        self.text(channel.group_name);
        self.text(channel.channel);
        self.text(channel.unit);
        self.0.update(&[channel.kind as u8, channel.scale.cast_unsigned()]);
    }

    /// A name has at most 32 bytes, so its length is one.
    const fn text(&mut self, text: &str) {
        self.0.update(&[text.len() as u8]);
        self.0.update(text.as_bytes());
    }

    const fn finish(self) -> SchemaId {
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
