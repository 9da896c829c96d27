//! The type of a field as InfluxDB has it.

use crate::record::ValueRef;

/// The type of a field. Of several that one field has, InfluxQL shows the first of these; a float takes all numbers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FieldType {
    Float,
    Integer,
    Unsigned,
    Text,
    Boolean,
}

impl FieldType {
    /// By InfluxDB's own word for it.
    pub(crate) fn named(word: &str) -> Option<FieldType> {
        Some(match word {
            "float" => FieldType::Float,
            "integer" => FieldType::Integer,
            "unsigned" => FieldType::Unsigned,
            "boolean" => FieldType::Boolean,
            "string" => FieldType::Text,
            _ => return None,
        })
    }

    /// Whether a value is sent as this.
    pub(crate) fn is_of(self, value: ValueRef<'_>) -> bool {
        match self {
            FieldType::Float => matches!(value, ValueRef::Float(_)),
            // InfluxDB 1 is sent unsigned integers as signed ones.
            FieldType::Integer => matches!(value, ValueRef::Integer(_) | ValueRef::Unsigned(_)),
            FieldType::Unsigned => matches!(value, ValueRef::Unsigned(_)),
            FieldType::Boolean => matches!(value, ValueRef::Boolean(_)),
            FieldType::Text => matches!(value, ValueRef::Text(_)),
        }
    }
}
