//! Rows of a sink that came to another end than the one that they were counted under, or to none that a store knows of.

use super::super::codec::{Undecodable, push_text, take_byte, take_text};
use super::Counts;

/// What became of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Move {
    /// The sink does not want them, by its filter: they are none of its business, as those from before it was added.
    Unwanted = 0,
    /// They were among the dead letters, and the sink has confirmed them since.
    Replayed = 1,
}

/// Rows of a sink that are counted anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovedEntry<'a> {
    /// The sink.
    pub sink: &'a str,
    /// What became of them.
    pub what: Move,
    /// How many, by device.
    pub rows: Counts<'a>,
}

impl Move {
    /// The name in dumps of the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Move::Unwanted => "unwanted",
            Move::Replayed => "replayed",
        }
    }
}

impl<'a> MovedEntry<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.what as u8);
        push_text(out, self.sink);
        self.rows.encode(out);
    }

    pub(super) fn decode(input: &mut &'a [u8]) -> Result<MovedEntry<'a>, Undecodable> {
        let what = match take_byte(input)? {
            0 => Move::Unwanted,
            1 => Move::Replayed,
            _ => return Err(Undecodable("unknown end of rows")),
        };
        Ok(MovedEntry { what, sink: take_text(input)?, rows: Counts::encoded(std::mem::take(input)) })
    }
}
