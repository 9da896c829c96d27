//! A letter, its key, and its bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::journal::JournalId;
use crate::record::Offset;

/// Most bytes kept of what came at intake.
pub const INTAKE_BODY_BYTES_MAX: usize = 4 << 10;

/// Most bytes kept of a point that a database refused.
pub const DELIVERY_BODY_BYTES_MAX: usize = 16 << 10;

/// Most bytes kept of a device, an origin or a reason.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// What the ids of letters begin with that never got as far as a sink. No sink has this name.
pub const INTAKE: &str = "intake";

/// Most bytes of an encoded letter.
pub(super) const LETTER_BYTES_MAX: usize = FIXED_BYTES + 4 * (2 + TEXT_BYTES_MAX) + DELIVERY_BODY_BYTES_MAX;

const FIXED_BYTES: usize = 41;
const KEY_FIXED_BYTES: usize = 17;

/// Where a letter came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It could not be read.
    Intake,
    /// A database refused it.
    Delivery,
}

/// What could not be stored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The sink that refused it; empty at intake.
    pub sink: Box<str>,
    /// The journal that it comes from. Another one in its place numbers its entries anew.
    pub journal: JournalId,
    /// Its offset in that journal: at intake that of the entry that accounts for it.
    pub offset: Offset,
    /// Where it came to its end.
    pub stage: Stage,
    /// When, in nanoseconds since 1970 UTC.
    pub at_ns: i64,
    /// The device that its rows are accounted to.
    pub device: Box<str>,
    /// How many rows it stands for.
    pub rows: u64,
    /// Topic or port at intake, series at delivery.
    pub origin: Box<str>,
    /// Why it could not be read, or the database's own words.
    pub reason: Box<str>,
    /// The payload, or the point as line protocol; possibly only its beginning.
    pub body: Box<[u8]>,
    /// Length of the body before it was cut.
    pub body_bytes: u64,
}

/// What an operator names a letter by: `main-1234`, or `intake-1234`. Letters of several journals may have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LetterId {
    /// The sink, or [`INTAKE`].
    pub name: Box<str>,
    /// The letter's offset in its journal.
    pub offset: Offset,
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is no id of a dead letter; ids are written as `forebay dead-letters list` shows them: main-1234")]
pub struct NoLetterId;

/// What a letter is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) journal: JournalId,
    pub(super) stage: Stage,
    pub(super) sink: &'a str,
    pub(super) offset: Offset,
}

/// A key that owns its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnKey {
    journal: JournalId,
    stage: Stage,
    sink: Box<str>,
    offset: Offset,
}

/// A letter that borrows its texts from the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) key: Key<'a>,
    pub(super) rows: u64,
    at_ns: i64,
    device: &'a str,
    origin: &'a str,
    reason: &'a str,
    body: &'a [u8],
    body_bytes: u64,
}

impl Letter {
    /// What an operator names it by.
    #[must_use]
    pub fn id(&self) -> LetterId {
        let name = match self.stage {
            Stage::Intake => INTAKE.into(),
            Stage::Delivery => self.sink.clone(),
        };
        LetterId { name, offset: self.offset }
    }

    /// Whether the body is only the beginning of what it was.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.body_bytes > self.body.len() as u64
    }

    pub(super) fn view(&self) -> View<'_> {
        let sink = match self.stage {
            Stage::Intake => "",
            Stage::Delivery => cut_text(&self.sink),
        };
        View {
            key: Key { journal: self.journal, stage: self.stage, sink, offset: self.offset },
            rows: self.rows,
            at_ns: self.at_ns,
            device: cut_text(&self.device),
            origin: cut_text(&self.origin),
            reason: cut_text(&self.reason),
            body: cut_body(&self.body, self.stage),
            body_bytes: self.body_bytes.max(self.body.len() as u64),
        }
    }
}

impl<'a> Key<'a> {
    pub(super) fn encoded_bytes(&self) -> usize {
        KEY_FIXED_BYTES + self.sink.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.stage.number());
        out.extend_from_slice(&self.journal.0.to_le_bytes());
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(self.sink.as_bytes());
    }

    /// None if these are no bytes of a key of this version.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Key<'a>> {
        let (stage, rest) = bytes.split_first()?;
        let (journal, rest) = rest.split_first_chunk()?;
        let (offset, sink) = rest.split_first_chunk()?;
        Some(Key {
            journal: JournalId(u64::from_le_bytes(*journal)),
            stage: Stage::of_number(*stage)?,
            sink: str::from_utf8(sink).ok()?,
            offset: Offset(u64::from_le_bytes(*offset)),
        })
    }

    pub(super) fn to_own(self) -> OwnKey {
        OwnKey { journal: self.journal, stage: self.stage, sink: self.sink.into(), offset: self.offset }
    }
}

impl OwnKey {
    pub(super) fn key(&self) -> Key<'_> {
        Key { journal: self.journal, stage: self.stage, sink: &self.sink, offset: self.offset }
    }
}

impl Stage {
    fn number(self) -> u8 {
        match self {
            Stage::Intake => 0,
            Stage::Delivery => 1,
        }
    }

    fn of_number(number: u8) -> Option<Stage> {
        match number {
            0 => Some(Stage::Intake),
            1 => Some(Stage::Delivery),
            _ => None,
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn to_letter(self) -> Letter {
        Letter {
            sink: self.key.sink.into(),
            journal: self.key.journal,
            offset: self.key.offset,
            stage: self.key.stage,
            at_ns: self.at_ns,
            device: self.device.into(),
            rows: self.rows,
            origin: self.origin.into(),
            reason: self.reason.into(),
            body: self.body.into(),
            body_bytes: self.body_bytes,
        }
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        let texts: usize = self.texts().iter().map(|text| 2 + text.len()).sum();
        FIXED_BYTES + texts + self.body.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.key.stage.number());
        out.extend_from_slice(&self.key.journal.0.to_le_bytes());
        out.extend_from_slice(&self.key.offset.0.to_le_bytes());
        out.extend_from_slice(&self.at_ns.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        for text in self.texts() {
            // Texts were cut to far less than this type holds.
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(self.body);
    }

    /// None if these are no bytes of a letter of this version.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<View<'a>> {
        let (stage, rest) = bytes.split_first()?;
        let stage = Stage::of_number(*stage)?;
        let (journal, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (at_ns, rest) = rest.split_first_chunk()?;
        let (rows, rest) = rest.split_first_chunk()?;
        let (body_bytes, rest) = rest.split_first_chunk()?;
        let (sink, rest) = take_text(rest)?;
        let (device, rest) = take_text(rest)?;
        let (origin, rest) = take_text(rest)?;
        let (reason, body) = take_text(rest)?;
        let journal = JournalId(u64::from_le_bytes(*journal));
        Some(View {
            key: Key { journal, stage, sink, offset: Offset(u64::from_le_bytes(*offset)) },
            rows: u64::from_le_bytes(*rows),
            at_ns: i64::from_le_bytes(*at_ns),
            device,
            origin,
            reason,
            body,
            body_bytes: u64::from_le_bytes(*body_bytes),
        })
    }

    fn texts(&self) -> [&'a str; 4] {
        [self.key.sink, self.device, self.origin, self.reason]
    }
}

impl LetterId {
    pub(super) fn names(&self, key: &Key<'_>) -> bool {
        let name = match key.stage {
            Stage::Intake => INTAKE,
            Stage::Delivery => key.sink,
        };
        *self.name == *name && self.offset == key.offset
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = NoLetterId;

    fn from_str(text: &str) -> Result<LetterId, NoLetterId> {
        let (name, offset) = text.rsplit_once('-').ok_or(NoLetterId)?;
        let offset = offset.parse().map(Offset).map_err(|_| NoLetterId)?;
        if name.is_empty() { Err(NoLetterId) } else { Ok(LetterId { name: name.into(), offset }) }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Intake => "intake",
            Stage::Delivery => "delivery",
        })
    }
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((str::from_utf8(text).ok()?, rest))
}

fn cut_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The beginning of a body. Text is not cut within a character, so that it stays text.
fn cut_body(body: &[u8], stage: Stage) -> &[u8] {
    let limit = match stage {
        Stage::Intake => INTAKE_BODY_BYTES_MAX,
        Stage::Delivery => DELIVERY_BODY_BYTES_MAX,
    };
    let Some(head) = body.get(..limit) else { return body };
    match str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => &head[..error.valid_up_to()],
        _ => head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for (text, name, offset) in [("main-12", "main", 12), ("a-b-0", "a-b", 0), ("intake-7", "intake", 7)]
        {
            let id: LetterId = text.parse().unwrap();
            assert_eq!((&*id.name, id.offset), (name, Offset(offset)));
            assert_eq!(id.to_string(), text);
        }
        for text in ["", "-", "main", "main-", "-1", "main-x", "main-18446744073709551616"] {
            assert_eq!(text.parse::<LetterId>(), Err(NoLetterId), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = "ä".repeat(20_000);
        let mut letter = Letter {
            sink: "main".into(),
            journal: JournalId(2),
            offset: Offset(1),
            stage: Stage::Delivery,
            at_ns: 0,
            device: "d".into(),
            rows: 1,
            origin: "m".into(),
            reason: format!("x{long}").into(),
            body: format!("x{long}").into_bytes().into(),
            body_bytes: 0,
        };
        let mut bytes = Vec::new();
        letter.view().encode(&mut bytes);
        assert_eq!(bytes.len(), letter.view().encoded_bytes());
        assert!(bytes.len() <= LETTER_BYTES_MAX);
        let cut = View::decode(&bytes).unwrap().to_letter();
        assert_eq!((cut.reason.len(), cut.body.len(), cut.body_bytes), (1023, 16_383, 40_001));
        assert!(cut.is_cut() && str::from_utf8(&cut.body).is_ok());
        letter.stage = Stage::Intake;
        letter.body = vec![0xff; 5_000].into();
        letter.body_bytes = 1 << 20;
        let view = letter.view();
        assert_eq!((view.body.len(), view.body_bytes, view.key.sink), (4_096, 1 << 20, ""));
        for end in 0..bytes.len() - cut.body.len() {
            assert!(View::decode(&bytes[..end]).is_none(), "cut at {end}");
        }
    }
}
