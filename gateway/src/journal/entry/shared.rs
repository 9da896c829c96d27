//! Rows that share their point, which is a series and a nanosecond, with an earlier row.
//!
//! In a database where equal points overwrite such a row makes no point more. So whoever compares the ledger with a database
//! has to know how many there are.

use super::super::codec::{Undecodable, push_text, push_varint, take_array, take_text, take_varint};

/// How many rows of an account, in one submission, have a point that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedEntry<'a> {
    /// Ledger key of a foreign device.
    pub device: &'a str,
    /// Rows whose point is that of an earlier row.
    pub again: u64,
    /// Rows of which nobody knows whether it is: they are older than what intake remembers.
    pub unsure: u64,
    /// The latest time, in nanoseconds since 1970, that any row of the account has given itself so far.
    pub latest_ns: i64,
}

impl SharedEntry<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        push_text(out, self.device);
        push_varint(out, self.again);
        push_varint(out, self.unsure);
        out.extend_from_slice(&self.latest_ns.to_le_bytes());
    }
}

impl<'a> SharedEntry<'a> {
    pub(super) fn decode(input: &mut &'a [u8]) -> Result<Self, Undecodable> {
        Ok(SharedEntry {
            device: take_text(input)?,
            again: take_varint(input)?,
            unsure: take_varint(input)?,
            latest_ns: i64::from_le_bytes(take_array(input)?),
        })
    }
}
