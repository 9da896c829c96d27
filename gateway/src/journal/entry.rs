//! Entries: what the journal remembers, one fact each.
//!
//! * In: typed entries from ingest (rows, gaps, devices) and delivery (cursors, gaps).
//! * Out: bytes for the pending buffer, and the same entries back, borrowed from a frame.
//! * Next: `journal/state.rs` folds them, `journal/frame.rs` packs them.
//!
//! Constraint: a row is encoded and decoded without allocating; texts, fields and counts stay borrowed.
//!
//! Format, everything little-endian, a *varint* being LEB128 and a *text* a varint length before UTF-8:
//!
//! | entry | bytes after the u16 length of what follows |
//! |---|---|
//! | row | `1`, flags u8 (bit 0: stamped), device text, boot varint, sequence varint, series text, ns i64, fields to the end |
//! | gap | `2`, flags u8 (bit 0: stamped, bit 1: has a sink), cause u8, device text, boot, from, to, count varints, sink text if any, series text, ns i64 |
//! | gap again | `10`, and the rest as a gap |
//! | device | `3`, device text, name text, boot varint, first varint |
//! | sink | `4`, sink text, start varint |
//! | cursor | `5`, sink text, next varint, then device text and rows varint to the end |
//! | letter | `6`, device text, rows varint, ns i64, origin text, reason text, full length varint, first bytes to the end |
//! | forget | `7`, sink text |
//! | skip | `9`, sink text, to varint |
//! | letters | `8`, flags u8 (bit 0: unkept), to varint, then device text and rows varint to the end |
//! | early row | `11`, machine u64, and the rest as a row, whose ns are those of the steady clock |
//! | early gap | `12`, machine u64, and the rest as a gap, likewise |
//! | early gap again | `13`, machine u64, and the rest as a gap, likewise |
//! | clock | `14`, machine u64, told ns i64 |
//! | clock fix | `15`, flags u8 (bit 0: estimated), machine u64, offset ns i64 |
//! | message | `16`, broker u32, generation u32, hash u64, number varint |
//! | shared | `17`, device text, again varint, unsure varint, latest ns i64 |
//! | moved | `18`, what u8 (0: unwanted, 1: replayed), sink text, then device text and rows varint to the end |
//!
//! The entries `11` to `15` are in segments alone whose header says so (`segment.rs`). A gateway that does not know `16`
//! passes over it and stores again what a broker repeats; one that does not know `17` knows less of what databases hold;
//! one that does not know `18` counts those rows as before.
//!
//! A field is a name text, a type byte and the value: `0` f64, `1` zigzag varint, `2` varint, `3` false, `4` true, `5` text.
//!
//! Failure: decoding checks everything, fields included, so that the iterators over a decoded entry cannot fail.

mod cause;
mod message;
mod moved;
mod shared;

use thiserror::Error;

use super::clocks::{ClockEntry, FixEntry, take_machine};
pub use super::codec::Undecodable;
use super::codec::{
    push_text, push_varint, take, take_array, take_byte, take_flags, take_text, take_u32, take_varint,
};
pub use super::lists::{Counts, Fields};
use crate::record::{MachineBoot, Offset};
pub use cause::Cause;
pub use message::{MessageEntry, SessionId};
pub use moved::{Move, MovedEntry};
pub use shared::SharedEntry;

/// Largest encoded entry in bytes, its length prefix included: what one frame can hold.
pub const ENTRY_BYTES_MAX: usize = super::frame::FRAME_BYTES_MAX - super::frame::FRAME_HEADER_BYTES;

const LENGTH_BYTES: usize = 2;
const STAMPED: u8 = 1;
const HAS_SINK: u8 = 2;
const UNKEPT: u8 = 1;

/// One fact in the journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A row that will become a point in every sink.
    Row(RowEntry<'a>),
    /// A declared loss, which becomes a point too.
    Gap(GapEntry<'a>),
    /// A gap that is counted already, whose point its sink has yet to get: what held it first made room.
    GapAgain(GapEntry<'a>),
    /// A boot of a native device was assigned or adopted.
    Device(DeviceEntry<'a>),
    /// A sink was registered: nothing from `start` on is trimmed before it is confirmed.
    Sink(SinkEntry<'a>),
    /// A sink is not served any more: what it was still to get does not hold the journal.
    Forget(&'a str),
    /// A sink confirmed everything below an offset.
    Cursor(CursorEntry<'a>),
    /// A sink gets nothing any more that is below an offset: the gaps before it say what it lacks.
    Skip(SkipEntry<'a>),
    /// Input that could not be read as rows, on its way to the dead letters.
    Letter(LetterEntry<'a>),
    /// Letters below an offset are in the dead letters, or given up and counted.
    Letters(LettersEntry<'a>),
    /// A row that came before the gateway's clock was believed: its nanoseconds are those of the steady clock in a boot of
    /// the machine, and it has no time until that is fixed.
    EarlyRow(MachineBoot, RowEntry<'a>),
    /// A gap of that time.
    EarlyGap(MachineBoot, GapEntry<'a>),
    /// A gap of that time, as [`Entry::GapAgain`].
    EarlyGapAgain(MachineBoot, GapEntry<'a>),
    /// Early entries of a boot of the machine begin.
    Clock(ClockEntry),
    /// When the early entries of a boot of the machine happened.
    ClockFix(FixEntry),
    /// What a broker's repetition of a message is known by.
    Message(MessageEntry),
    /// Rows before it, of the same submission, make no points of their own, or may not.
    Shared(SharedEntry<'a>),
    /// Rows of a sink are counted anew.
    Moved(MovedEntry<'a>),
}

/// A row with frozen identity, series and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowEntry<'a> {
    /// Account: chip id in hex, or the tag `device` of a foreign device, or what devices without room share. Intake has
    /// decided it for good; what follows from it does not depend on the configuration.
    pub device: &'a str,
    /// Boot of a native device; 0 for a foreign one.
    pub boot: u32,
    /// Number of the row within the boot; for a foreign device, among all rows of its account.
    pub sequence: u64,
    /// Whether the gateway's clock gave the time.
    pub stamped: bool,
    /// Canonical series key.
    pub series: &'a str,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
    /// Names and values.
    pub fields: Fields<'a>,
}

/// A declared loss of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapEntry<'a> {
    /// Ledger key.
    pub device: &'a str,
    /// Boot of a native device; 0 for a foreign one.
    pub boot: u32,
    /// First lost sequence.
    pub from: u64,
    /// Sequence behind the last lost one.
    pub to: u64,
    /// Lost rows; at least this many, where a device lost its memory.
    pub count: u64,
    /// Why they are lost.
    pub cause: Cause,
    /// The one sink that lacks them; none if no sink will ever get them.
    pub sink: Option<&'a str>,
    /// Whether the gateway's clock gave the time.
    pub stamped: bool,
    /// Canonical series key of the point that tells of the gap.
    pub series: &'a str,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
}

/// A boot of a native device begins; the one before it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEntry<'a> {
    /// Ledger key: chip id in hex.
    pub device: &'a str,
    /// Name that the device goes by.
    pub name: &'a str,
    /// The boot, never 0.
    pub boot: u32,
    /// First sequence expected of it.
    pub first: u64,
}

/// A sink is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkEntry<'a> {
    /// Its name, the identity of its cursor.
    pub sink: &'a str,
    /// First offset that it is to get.
    pub start: Offset,
}

/// A sink's progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CursorEntry<'a> {
    /// The sink.
    pub sink: &'a str,
    /// Everything below is confirmed, rejected or otherwise accounted for.
    pub next: Offset,
    /// Rows confirmed since the previous cursor entry.
    pub confirmed: Counts<'a>,
}

/// A sink goes on behind what was evicted or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipEntry<'a> {
    /// The sink.
    pub sink: &'a str,
    /// Nothing below is delivered any more.
    pub to: Offset,
}

/// Input that could not be read as rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterEntry<'a> {
    /// Ledger key.
    pub device: &'a str,
    /// Rows that it stands for; none where a gap counts them.
    pub rows: u64,
    /// Nanoseconds since 1970 UTC at receipt, by the gateway's clock as it was.
    pub ns: i64,
    /// Where it came from: a topic, a port.
    pub origin: &'a str,
    /// Why it could not be read.
    pub reason: &'a str,
    /// Its full length.
    pub body_bytes: u64,
    /// Its first bytes.
    pub body: &'a [u8],
}

/// Letters have left the journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LettersEntry<'a> {
    /// Every letter below is dealt with.
    pub to: Offset,
    /// Whether there was no room for them among the dead letters, where they are kept otherwise.
    pub unkept: bool,
    /// Their rows by device.
    pub rows: Counts<'a>,
}

/// An entry exceeds [`ENTRY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the entry has {bytes} bytes; the limit is {ENTRY_BYTES_MAX}")]
pub struct EntryTooLarge {
    /// Its encoded length.
    pub bytes: usize,
}

impl Entry<'_> {
    /// Appends the encoded entry to `out`.
    ///
    /// # Errors
    /// The entry does not fit a frame; `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EntryTooLarge> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        match self {
            Entry::Row(row) => {
                out.push(1);
                row.encode(out);
            }
            Entry::EarlyRow(machine, row) => {
                push_early(out, 11, *machine);
                row.encode(out);
            }
            Entry::Gap(gap) => {
                out.push(2);
                gap.encode(out);
            }
            Entry::EarlyGap(machine, gap) => {
                push_early(out, 12, *machine);
                gap.encode(out);
            }
            Entry::GapAgain(gap) => {
                out.push(10);
                gap.encode(out);
            }
            Entry::EarlyGapAgain(machine, gap) => {
                push_early(out, 13, *machine);
                gap.encode(out);
            }
            Entry::Device(device) => device.encode(out),
            Entry::Sink(sink) => {
                out.push(4);
                push_text(out, sink.sink);
                push_varint(out, sink.start.0);
            }
            Entry::Forget(sink) => {
                out.push(7);
                push_text(out, sink);
            }
            Entry::Cursor(cursor) => {
                out.push(5);
                push_text(out, cursor.sink);
                push_varint(out, cursor.next.0);
                cursor.confirmed.encode(out);
            }
            Entry::Skip(skip) => {
                out.push(9);
                push_text(out, skip.sink);
                push_varint(out, skip.to.0);
            }
            Entry::Letter(letter) => letter.encode(out),
            Entry::Letters(letters) => {
                out.extend_from_slice(&[8, if letters.unkept { UNKEPT } else { 0 }]);
                push_varint(out, letters.to.0);
                letters.rows.encode(out);
            }
            Entry::Clock(clock) => {
                out.push(14);
                clock.encode(out);
            }
            Entry::ClockFix(fix) => {
                out.push(15);
                fix.encode(out);
            }
            Entry::Message(message) => {
                out.push(16);
                message.encode(out);
            }
            Entry::Shared(shared) => {
                out.push(17);
                shared.encode(out);
            }
            Entry::Moved(moved) => {
                out.push(18);
                moved.encode(out);
            }
        }
        let bytes = out.len() - start;
        let Ok(length) = u16::try_from(bytes - LENGTH_BYTES) else {
            out.truncate(start);
            return Err(EntryTooLarge { bytes });
        };
        if bytes > ENTRY_BYTES_MAX {
            out.truncate(start);
            return Err(EntryTooLarge { bytes });
        }
        out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }
}

impl<'a> Entry<'a> {
    /// How many rows it makes known: journaled, declared lost before the journal, or kept as a letter.
    #[must_use]
    pub fn rows_learned(&self) -> u64 {
        match self {
            Entry::Row(_) | Entry::EarlyRow(..) => 1,
            Entry::Gap(gap) | Entry::EarlyGap(_, gap) if gap.sink.is_none() => gap.count,
            Entry::Letter(letter) => letter.rows,
            _ => 0,
        }
    }

    /// Whether somebody beyond the journal is to get it, or what somebody is to get depends on it, so that it must not be
    /// trimmed before.
    #[must_use]
    pub(super) fn is_owed(&self) -> bool {
        matches!(self, Entry::Row(_) | Entry::Gap(_) | Entry::GapAgain(_) | Entry::Letter(_))
            || self.is_of_clocks()
    }

    /// Whether it is early, or tells of what early entries need: a gateway that knows of no such thing must not read it.
    #[must_use]
    pub(super) fn is_of_clocks(&self) -> bool {
        self.is_early() || matches!(self, Entry::Clock(_) | Entry::ClockFix(_))
    }

    /// Whether it has no time of its own.
    #[must_use]
    pub fn is_early(&self) -> bool {
        matches!(self, Entry::EarlyRow(..) | Entry::EarlyGap(..) | Entry::EarlyGapAgain(..))
    }

    /// Decodes one entry without its length prefix.
    ///
    /// # Errors
    /// Anything that [`Entry::encode`] does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Undecodable> {
        let entry = Entry::decode_own(bytes)?;
        match &entry {
            Entry::Row(row) | Entry::EarlyRow(_, row) => row.fields.check()?,
            Entry::Cursor(cursor) => cursor.confirmed.check()?,
            Entry::Letters(letters) => letters.rows.check()?,
            Entry::Moved(moved) => moved.rows.check()?,
            _ => {}
        }
        Ok(entry)
    }

    /// Decodes an entry that this process has just encoded, leaving its lists unchecked.
    pub(super) fn decode_own(bytes: &'a [u8]) -> Result<Entry<'a>, Undecodable> {
        let mut input = bytes;
        let entry = match take_byte(&mut input)? {
            1 => {
                let row = RowEntry::decode(&mut input)?;
                input = &[];
                Entry::Row(row)
            }
            11 => {
                let machine = take_machine(&mut input)?;
                let row = RowEntry::decode(&mut input)?;
                input = &[];
                Entry::EarlyRow(machine, row)
            }
            12 => Entry::EarlyGap(take_machine(&mut input)?, GapEntry::decode(&mut input)?),
            13 => Entry::EarlyGapAgain(take_machine(&mut input)?, GapEntry::decode(&mut input)?),
            2 => Entry::Gap(GapEntry::decode(&mut input)?),
            10 => Entry::GapAgain(GapEntry::decode(&mut input)?),
            3 => Entry::Device(DeviceEntry {
                device: take_text(&mut input)?,
                name: take_text(&mut input)?,
                boot: take_u32(&mut input)?,
                first: take_varint(&mut input)?,
            }),
            4 => Entry::Sink(SinkEntry {
                sink: take_text(&mut input)?,
                start: Offset(take_varint(&mut input)?),
            }),
            7 => Entry::Forget(take_text(&mut input)?),
            5 => Entry::Cursor(CursorEntry {
                sink: take_text(&mut input)?,
                next: Offset(take_varint(&mut input)?),
                confirmed: Counts::encoded(std::mem::take(&mut input)),
            }),
            9 => {
                Entry::Skip(SkipEntry { sink: take_text(&mut input)?, to: Offset(take_varint(&mut input)?) })
            }
            6 => Entry::Letter(LetterEntry::decode(&mut input)?),
            8 => Entry::Letters(LettersEntry {
                unkept: take_flags(&mut input, UNKEPT)? & UNKEPT != 0,
                to: Offset(take_varint(&mut input)?),
                rows: Counts::encoded(std::mem::take(&mut input)),
            }),
            14 => Entry::Clock(ClockEntry::decode(&mut input)?),
            15 => Entry::ClockFix(FixEntry::decode(&mut input)?),
            16 => Entry::Message(MessageEntry::decode(&mut input)?),
            17 => Entry::Shared(SharedEntry::decode(&mut input)?),
            18 => Entry::Moved(MovedEntry::decode(&mut input)?),
            _ => return Err(Undecodable("unknown kind")),
        };
        if input.is_empty() { Ok(entry) } else { Err(Undecodable("bytes behind the last field")) }
    }
}

/// Takes the next length-prefixed entry off `input`, without decoding it.
///
/// # Errors
/// Fewer bytes than the prefix announces.
pub(super) fn take_entry<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Undecodable> {
    let length = u16::from_le_bytes(take_array(input)?);
    take(input, usize::from(length))
}

impl RowEntry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.stamped { STAMPED } else { 0 });
        push_text(out, self.device);
        push_varint(out, u64::from(self.boot));
        push_varint(out, self.sequence);
        push_text(out, self.series);
        out.extend_from_slice(&self.ns.to_le_bytes());
        self.fields.encode(out);
    }
}

impl<'a> RowEntry<'a> {
    fn decode(input: &mut &'a [u8]) -> Result<Self, Undecodable> {
        Ok(RowEntry {
            stamped: take_flags(input, STAMPED)? & STAMPED != 0,
            device: take_text(input)?,
            boot: take_u32(input)?,
            sequence: take_varint(input)?,
            series: take_text(input)?,
            ns: i64::from_le_bytes(take_array(input)?),
            fields: Fields::encoded(input),
        })
    }
}

impl GapEntry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let stamped = if self.stamped { STAMPED } else { 0 };
        let has_sink = if self.sink.is_some() { HAS_SINK } else { 0 };
        out.extend_from_slice(&[stamped | has_sink, self.cause as u8]);
        push_text(out, self.device);
        for number in [u64::from(self.boot), self.from, self.to, self.count] {
            push_varint(out, number);
        }
        if let Some(sink) = self.sink {
            push_text(out, sink);
        }
        push_text(out, self.series);
        out.extend_from_slice(&self.ns.to_le_bytes());
    }
}

impl<'a> GapEntry<'a> {
    fn decode(input: &mut &'a [u8]) -> Result<Self, Undecodable> {
        let flags = take_flags(input, STAMPED | HAS_SINK)?;
        let cause = usize::from(take_byte(input)?);
        Ok(GapEntry {
            cause: *Cause::ALL.get(cause).ok_or(Undecodable("unknown cause"))?,
            device: take_text(input)?,
            boot: take_u32(input)?,
            from: take_varint(input)?,
            to: take_varint(input)?,
            count: take_varint(input)?,
            sink: if flags & HAS_SINK != 0 { Some(take_text(input)?) } else { None },
            stamped: flags & STAMPED != 0,
            series: take_text(input)?,
            ns: i64::from_le_bytes(take_array(input)?),
        })
    }
}

impl DeviceEntry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(3);
        push_text(out, self.device);
        push_text(out, self.name);
        push_varint(out, u64::from(self.boot));
        push_varint(out, self.first);
    }
}

impl LetterEntry<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(6);
        push_text(out, self.device);
        push_varint(out, self.rows);
        out.extend_from_slice(&self.ns.to_le_bytes());
        push_text(out, self.origin);
        push_text(out, self.reason);
        push_varint(out, self.body_bytes);
        out.extend_from_slice(self.body);
    }
}

impl<'a> LetterEntry<'a> {
    fn decode(input: &mut &'a [u8]) -> Result<Self, Undecodable> {
        Ok(LetterEntry {
            device: take_text(input)?,
            rows: take_varint(input)?,
            ns: i64::from_le_bytes(take_array(input)?),
            origin: take_text(input)?,
            reason: take_text(input)?,
            body_bytes: take_varint(input)?,
            body: std::mem::take(input),
        })
    }
}

fn push_early(out: &mut Vec<u8>, kind: u8, machine: MachineBoot) {
    out.push(kind);
    out.extend_from_slice(&machine.0.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Value;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Value::Float),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(Value::Unsigned),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,40}".prop_map(Value::Text),
        ]
    }

    fn round_trip(entry: &Entry<'_>) {
        let mut bytes = vec![0xaa];
        entry.encode(&mut bytes).unwrap();
        let mut input = &bytes[1..];
        let body = take_entry(&mut input).unwrap();
        assert!(input.is_empty());
        assert_eq!(Entry::decode(body).as_ref(), Ok(entry));
        for end in 0..body.len() {
            // A shorter list is still a list, so a cut row or cursor may decode; it must only never panic or be equal.
            assert_ne!(Entry::decode(&body[..end]).as_ref(), Ok(entry), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(
            device in ".{0,20}", series in ".{1,60}", boot: u32, sequence: u64, stamped: bool, ns: i64,
            fields in prop::collection::vec((".{1,12}".prop_map(String::from), value()), 1..8),
        ) {
            let row = RowEntry {
                device: &device, boot, sequence, stamped, series: &series, ns, fields: Fields::of(&fields),
            };
            round_trip(&Entry::Row(row));
            round_trip(&Entry::EarlyRow(MachineBoot(sequence), row));
        }

        #[test]
        fn gaps_come_back_as_they_went(
            texts in (".{0,20}", ".{1,60}", prop::option::of(".{1,9}")),
            numbers: (u32, u64, u64, u64, i64), stamped: bool, cause in 0..Cause::ALL.len(),
        ) {
            let gap = GapEntry {
                device: &texts.0, boot: numbers.0, from: numbers.1, to: numbers.2, count: numbers.3,
                cause: Cause::ALL[cause], sink: texts.2.as_deref(), stamped, series: &texts.1, ns: numbers.4,
            };
            round_trip(&Entry::Gap(gap));
            round_trip(&Entry::GapAgain(gap));
            let machine = MachineBoot(gap.to);
            round_trip(&Entry::EarlyGap(machine, gap));
            round_trip(&Entry::EarlyGapAgain(machine, gap));
        }

        #[test]
        fn the_others_come_back_as_they_went(
            name in ".{0,20}", other in ".{0,20}", boot: u32, number: u64,
            counts in prop::collection::vec((".{1,12}".prop_map(String::into_boxed_str), any::<u64>()), 0..5),
            bytes in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            round_trip(&Entry::Device(DeviceEntry { device: &name, name: &other, boot, first: number }));
            round_trip(&Entry::Sink(SinkEntry { sink: &name, start: Offset(number) }));
            round_trip(&Entry::Forget(&name));
            round_trip(&Entry::Skip(SkipEntry { sink: &name, to: Offset(number) }));
            round_trip(&Entry::Cursor(CursorEntry {
                sink: &name, next: Offset(number), confirmed: Counts::of(&counts),
            }));
            let machine = MachineBoot(number);
            round_trip(&Entry::Clock(ClockEntry { machine, told_ns: -i64::from(boot) }));
            let fix = FixEntry { machine, offset_ns: i64::from(boot), estimated: boot % 2 == 0 };
            round_trip(&Entry::ClockFix(fix));
            let session = SessionId { broker: boot, generation: !boot };
            round_trip(&Entry::Message(MessageEntry { session, number: u64::from(boot), hash: number }));
            let (again, unsure, latest_ns) = (number, u64::from(boot), -i64::from(boot));
            round_trip(&Entry::Shared(SharedEntry { device: &name, again, unsure, latest_ns }));
            for what in [Move::Unwanted, Move::Replayed] {
                round_trip(&Entry::Moved(MovedEntry { sink: &name, what, rows: Counts::of(&counts) }));
            }
            let letters = LettersEntry { to: Offset(number), unkept: boot % 2 == 0, rows: Counts::of(&counts) };
            round_trip(&Entry::Letters(letters));
            round_trip(&Entry::Letter(LetterEntry {
                device: &name, rows: number, ns: -7, origin: &other, reason: &name, body_bytes: number, body: &bytes,
            }));
        }

        #[test]
        fn arbitrary_bytes_decode_to_what_encodes_back_to_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[bytes.first().map_or(1, |b| b % 19)], bytes.as_slice()].concat();
            if let Ok(entry) = Entry::decode(&bytes) {
                let mut out = Vec::new();
                entry.encode(&mut out).unwrap();
                prop_assert_eq!(&out[LENGTH_BYTES..], &bytes);
            }
        }
    }

    #[test]
    fn an_entry_beyond_a_frame_is_refused_and_leaves_no_trace() {
        let mut out = vec![1, 2, 3];
        for length in [ENTRY_BYTES_MAX, 70_000] {
            let bytes = vec![0; length];
            let entry = Entry::Letter(letter(&bytes));
            assert!(matches!(entry.encode(&mut out), Err(EntryTooLarge { bytes }) if bytes > length));
            assert_eq!(out, [1, 2, 3]);
        }
        let empty = Entry::Letter(letter(&[]));
        empty.encode(&mut out).unwrap();
        let bytes = vec![0; ENTRY_BYTES_MAX - (out.len() - 3)];
        out.truncate(3);
        Entry::Letter(letter(&bytes)).encode(&mut out).unwrap();
        assert_eq!(out.len(), 3 + ENTRY_BYTES_MAX);
    }

    fn letter(body: &[u8]) -> LetterEntry<'_> {
        LetterEntry { device: "d", rows: 1, ns: 0, origin: "t", reason: "r", body_bytes: 0, body }
    }

    #[test]
    fn causes_are_numbered_as_listed() {
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
        }
    }
}
