//! What the tests of both forms of a block measure: every type, and a group with another number of channels.

use crate::reading::{Channel, Group, Groups, Schema, Value, ValueKind};

const fn channel(name: &'static str, kind: ValueKind) -> Channel {
    Channel { name, unit: "", kind, scale: 0 }
}

pub(crate) const GROUPS: Groups = Groups::new(&[
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

pub(crate) fn schema() -> Schema {
    Schema::new(GROUPS.descriptions()).unwrap()
}

/// Bits rather than numbers, since a NaN is not equal to itself.
pub(crate) fn bits(value: Value) -> (ValueKind, u32) {
    let bits = match value {
        Value::Bool(value) => u32::from(value),
        Value::I32(value) => value.cast_unsigned(),
        Value::U32(value) => value,
        Value::F32(value) => value.to_bits(),
    };
    (value.kind(), bits)
}
