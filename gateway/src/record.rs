//! The vocabulary that every stage of the gateway speaks: series, rows, values and journal offsets.
//!
//! A *record* is a row whose identity, series and nanosecond timestamp are fixed. They are fixed once, at intake,
//! written to the journal, and never computed again, whatever the configuration becomes later.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Position of an entry in the journal: entries are numbered from 0, for the life of the data directory.
///
/// Used as a bound it is exclusive: a watermark of 7 says that the entries 0 to 6 are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `entries` further on.
    #[must_use]
    pub fn plus(self, entries: u64) -> Offset {
        Offset(self.0.saturating_add(entries))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of the machine, from its start to its end: what the steady clock counts in. The kernel gives each a random id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineBoot(pub u64);

impl fmt::Display for MachineBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One typed field value that owns its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A finite double.
    Float(f64),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer; InfluxDB 1 stores it as signed and refuses what does not fit.
    Unsigned(u64),
    /// A boolean.
    Boolean(bool),
    /// UTF-8 text.
    Text(String),
}

impl ValueRef<'_> {
    /// The value with a text of its own.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Float(v) => Value::Float(v),
            ValueRef::Integer(v) => Value::Integer(v),
            ValueRef::Unsigned(v) => Value::Unsigned(v),
            ValueRef::Boolean(v) => Value::Boolean(v),
            ValueRef::Text(v) => Value::Text(v.to_owned()),
        }
    }
}

impl Value {
    /// The same value, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Float(v) => ValueRef::Float(*v),
            Value::Integer(v) => ValueRef::Integer(*v),
            Value::Unsigned(v) => ValueRef::Unsigned(*v),
            Value::Boolean(v) => ValueRef::Boolean(*v),
            Value::Text(v) => ValueRef::Text(v),
        }
    }
}

/// One typed field value, borrowed from a journal frame or a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// A finite double.
    Float(f64),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// A boolean.
    Boolean(bool),
    /// UTF-8 text.
    Text(&'a str),
}

/// A row as a payload describes it, before intake fixes its identity and time.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The device that the row is accounted to: the tag `device`, or the chip id of a native device.
    pub device: String,
    /// Measurement and full tag set.
    pub series: SeriesKey,
    /// Field names and values; never empty, never a NaN.
    pub fields: Vec<(String, Value)>,
    /// Nanoseconds since 1970 UTC as the payload says, if it says.
    pub timestamp: Option<i64>,
    /// Without a timestamp: how far from its receipt the row happened, in nanoseconds; negative for before, never positive.
    pub offset_ns: i64,
}

impl Row {
    /// When it happened, for one that only looks at it: intake gives times that are nobody else's.
    #[must_use]
    pub fn ns(&self, received_ns: i64) -> i64 {
        self.timestamp.unwrap_or_else(|| received_ns.saturating_add(self.offset_ns))
    }
}

/// Why a name or a set of fields cannot become a point.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PointError {
    /// The measurement is empty.
    #[error("the measurement is empty; set `measurement` or name it in the topic pattern")]
    NoMeasurement,
    /// A tag or field has an empty name.
    #[error("a {0} has an empty name")]
    EmptyName(&'static str),
    /// A name holds a control character, which no line protocol can carry.
    #[error("the {what} {name:?} holds a control character, which line protocol cannot carry")]
    Control {
        /// Measurement, tag or field.
        what: &'static str,
        /// The name as it came, shortened.
        name: String,
    },
    /// A name ends in a backslash, which would escape the separator that follows it.
    #[error("the {what} {name:?} ends in a backslash, which line protocol cannot carry")]
    Backslash {
        /// Measurement, tag or field.
        what: &'static str,
        /// The name as it came, shortened.
        name: String,
    },
    /// A measurement, tag or field name is too long.
    #[error("the {what} has {bytes} bytes; the limit is {}", MAX_NAME_BYTES)]
    TooLong {
        /// Measurement, tag or field.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The same tag is given twice.
    #[error("the tag {0:?} is given twice")]
    DuplicateTag(String),
}

/// Longest measurement, tag name, tag value or field name, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Measurement and tag set in canonical form: line protocol's own, `measurement,tag=value,…`, escaped, tags sorted
/// by name. Equal keys are the same series, byte for byte, in the journal and in every store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey(String);

impl SeriesKey {
    /// Builds the key. Tags with an empty value are left out, since no store keeps them.
    ///
    /// # Errors
    /// A name or value that line protocol cannot carry, or a tag given twice.
    pub fn new(measurement: &str, tags: &mut Vec<(&str, &str)>) -> Result<SeriesKey, PointError> {
        if measurement.is_empty() {
            return Err(PointError::NoMeasurement);
        }
        check_name("measurement", measurement)?;
        tags.retain(|(_, value)| !value.is_empty());
        tags.sort_unstable();
        let text: usize = tags.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut key = String::with_capacity(measurement.len() + text + 8);
        push_escaped(&mut key, measurement, is_measurement_special);
        let mut last = None;
        for (name, value) in tags.iter() {
            if name.is_empty() {
                return Err(PointError::EmptyName("tag"));
            }
            if last == Some(*name) {
                return Err(PointError::DuplicateTag((*name).to_owned()));
            }
            last = Some(*name);
            check_name("tag", name)?;
            check_name("tag value", value)?;
            key.push(',');
            push_escaped(&mut key, name, is_key_special);
            key.push('=');
            push_escaped(&mut key, value, is_key_special);
        }
        Ok(SeriesKey(key))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag as (name, value), unescaped.
pub type Tag<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Takes a canonical series key apart: the measurement, then the tags, all unescaped.
#[must_use]
pub fn split_series(key: &str) -> (Cow<'_, str>, Vec<Tag<'_>>) {
    let mut parts = split_unescaped(key, b',');
    let measurement = parts.next().map_or(Cow::Borrowed(""), unescape);
    let tags = parts
        .map(|pair| {
            let mut halves = split_unescaped(pair, b'=');
            let name = halves.next().unwrap_or_default();
            let value = pair.get(name.len() + 1..).unwrap_or_default();
            (unescape(name), unescape(value))
        })
        .collect();
    (measurement, tags)
}

/// Refuses what line protocol has no way to write: control characters, a trailing backslash, excessive length.
///
/// # Errors
/// Says which of the three it is, and of what.
pub fn check_name(what: &'static str, name: &str) -> Result<(), PointError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(PointError::TooLong { what, bytes: name.len() });
    }
    if name.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(PointError::Control { what, name: shorten(name) });
    }
    if name.ends_with('\\') {
        return Err(PointError::Backslash { what, name: shorten(name) });
    }
    Ok(())
}

/// Appends a field or tag name in line protocol's escaped form.
pub fn push_key(out: &mut String, name: &str) {
    push_escaped(out, name, is_key_special);
}

fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

fn is_measurement_special(byte: u8) -> bool {
    matches!(byte, b',' | b' ')
}

fn is_key_special(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'=')
}

fn push_escaped(out: &mut String, text: &str, special: fn(u8) -> bool) {
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if special(byte) {
            out.push_str(&text[plain_from..at]);
            out.push('\\');
            plain_from = at;
        }
    }
    out.push_str(&text[plain_from..]);
}

/// Takes the backslashes before separators away, as line protocol has them.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek().is_some_and(|next| matches!(next, ',' | ' ' | '=')) {
            continue;
        }
        out.push(c);
    }
    Cow::Owned(out)
}

/// Splits at each `separator` that no backslash precedes. A key never holds a backslash before a separator of its
/// own, because [`check_name`] refuses names that end in one.
fn split_unescaped(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let bytes = current.as_bytes();
        let end = (0..bytes.len()).find(|&at| bytes[at] == separator && (at == 0 || bytes[at - 1] != b'\\'));
        if let Some(end) = end {
            rest = Some(&current[end + 1..]);
            Some(&current[..end])
        } else {
            rest = None;
            Some(current)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_key_is_sorted_escaped_and_comes_apart_again() {
        let mut tags = vec![("room", "cellar, left"), ("device", "a=b"), ("empty", "")];
        let key = SeriesKey::new("my climate", &mut tags).unwrap();
        assert_eq!(key.as_str(), r"my\ climate,device=a\=b,room=cellar\,\ left");
        let (measurement, tags) = split_series(key.as_str());
        assert_eq!(measurement, "my climate");
        assert_eq!(tags, [("device".into(), "a=b".into()), ("room".into(), "cellar, left".into())]);
    }

    #[test]
    fn a_backslash_inside_a_value_survives() {
        let key = SeriesKey::new("m", &mut vec![("path", r"c:\dir,x")]).unwrap();
        let (_, tags) = split_series(key.as_str());
        assert_eq!(tags, [("path".into(), r"c:\dir,x".into())]);
    }

    #[test]
    fn what_line_protocol_cannot_carry_is_refused() {
        assert_eq!(SeriesKey::new("", &mut vec![]), Err(PointError::NoMeasurement));
        assert!(matches!(SeriesKey::new("a\nb", &mut vec![]), Err(PointError::Control { .. })));
        assert!(matches!(SeriesKey::new("m", &mut vec![("t", "x\\")]), Err(PointError::Backslash { .. })));
        assert!(matches!(
            SeriesKey::new("m", &mut vec![("t", "1"), ("t", "2")]),
            Err(PointError::DuplicateTag(_))
        ));
        assert!(matches!(SeriesKey::new(&"x".repeat(1025), &mut vec![]), Err(PointError::TooLong { .. })));
    }
}
