//! The lists within entries, the fields of a row and the counts of a cursor: values on their way in, bytes on their
//! way out, and the same to whoever goes through them.

use super::codec::{Undecodable, push_text, push_varint, take_array, take_byte, take_text, take_varint};
use crate::record::{Value, ValueRef};

/// The fields of a row: values to be encoded, or a valid encoding.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(List<'a, &'a [(String, Value)]>);

/// Rows by device: counts to be encoded, or a valid encoding.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a>(List<'a, &'a [(Box<str>, u64)]>);

#[derive(Clone, Copy, Debug)]
enum List<'a, V> {
    Values(V),
    Encoded(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Fields still to be encoded.
    #[must_use]
    pub fn of(values: &'a [(String, Value)]) -> Fields<'a> {
        Fields(List::Values(values))
    }

    /// What Fields::encode wrote; [`Fields::check`] says whether it is.
    pub(super) fn encoded(bytes: &'a [u8]) -> Fields<'a> {
        Fields(List::Encoded(bytes))
    }

    /// Refuses an encoding that could not be gone through to its end.
    pub(super) fn check(&self) -> Result<(), Undecodable> {
        let (_, mut encoded) = self.0.parts();
        while !encoded.is_empty() {
            take_field(&mut encoded)?;
        }
        Ok(())
    }

    /// Names and values, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, ValueRef<'a>)> + use<'a> {
        let (mut values, mut encoded) = self.0.parts();
        std::iter::from_fn(move || match values.split_first() {
            Some(((name, value), rest)) => {
                values = rest;
                Some((name.as_str(), value.as_ref()))
            }
            None => take_field(&mut encoded).ok(),
        })
    }

    /// Bytes that they take in the journal; of those still to be encoded about as many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (values, encoded) = self.0.parts();
        values.iter().map(|(name, _)| name.len() + 10).sum::<usize>() + encoded.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (values, encoded) = self.0.parts();
        for (name, value) in values {
            push_text(out, name);
            push_value(out, value.as_ref());
        }
        out.extend_from_slice(encoded);
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> Counts<'a> {
    /// Counts still to be encoded.
    #[must_use]
    pub fn of(values: &'a [(Box<str>, u64)]) -> Counts<'a> {
        Counts(List::Values(values))
    }

    /// What Counts::encode wrote; [`Counts::check`] says whether it is.
    pub(super) fn encoded(bytes: &'a [u8]) -> Counts<'a> {
        Counts(List::Encoded(bytes))
    }

    /// Refuses an encoding that could not be gone through to its end.
    pub(super) fn check(&self) -> Result<(), Undecodable> {
        let (_, mut encoded) = self.0.parts();
        while !encoded.is_empty() {
            take_count(&mut encoded)?;
        }
        Ok(())
    }

    /// Devices and rows, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let (mut values, mut encoded) = self.0.parts();
        std::iter::from_fn(move || match values.split_first() {
            Some(((device, rows), rest)) => {
                values = rest;
                Some((&**device, *rows))
            }
            None => take_count(&mut encoded).ok(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (values, encoded) = self.0.parts();
        for (device, rows) in values {
            push_text(out, device);
            push_varint(out, *rows);
        }
        out.extend_from_slice(encoded);
    }
}

impl PartialEq for Counts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T> List<'a, &'a [T]> {
    fn parts(&self) -> (&'a [T], &'a [u8]) {
        match *self {
            List::Values(values) => (values, &[]),
            List::Encoded(bytes) => (&[], bytes),
        }
    }
}

fn push_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Float(v) => {
            out.push(0);
            out.extend_from_slice(&v.to_le_bytes());
        }
        ValueRef::Integer(v) => {
            out.push(1);
            push_varint(out, ((v << 1) ^ (v >> 63)) as u64);
        }
        ValueRef::Unsigned(v) => {
            out.push(2);
            push_varint(out, v);
        }
        ValueRef::Boolean(v) => out.push(if v { 4 } else { 3 }),
        ValueRef::Text(v) => {
            out.push(5);
            push_text(out, v);
        }
    }
}

fn take_field<'a>(input: &mut &'a [u8]) -> Result<(&'a str, ValueRef<'a>), Undecodable> {
    let name = take_text(input)?;
    let value = match take_byte(input)? {
        0 => ValueRef::Float(f64::from_le_bytes(take_array(input)?)),
        1 => {
            let zigzag = take_varint(input)?;
            ValueRef::Integer((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
        }
        2 => ValueRef::Unsigned(take_varint(input)?),
        3 => ValueRef::Boolean(false),
        4 => ValueRef::Boolean(true),
        5 => ValueRef::Text(take_text(input)?),
        _ => return Err(Undecodable("unknown type of field")),
    };
    Ok((name, value))
}

fn take_count<'a>(input: &mut &'a [u8]) -> Result<(&'a str, u64), Undecodable> {
    Ok((take_text(input)?, take_varint(input)?))
}
