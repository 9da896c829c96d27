//! Entries of a dump, for people and as JSON. Text from outside is made harmless for the terminal.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::page::{place, push_finding};
use crate::cli::plain;
use crate::journal::Entry;
use crate::journal::entry::{Counts, GapEntry, LetterEntry, RowEntry};
use crate::journal::inspect::Item;
use crate::record::{Offset, ValueRef};
use crate::sink::batch::Record;
use crate::sink::line_protocol::{Dialect, push_line};

/// Bytes of a letter that are shown to people.
const BODY_SHOWN_BYTES: usize = 200;

/// Appends an item as a line without its end.
pub(super) fn push_text(out: &mut String, item: &Item<'_>) {
    let mut text = String::new();
    match item {
        Item::Entry { offset, entry, .. } => {
            // Formatting into a String cannot fail.
            let _ = write!(text, "{offset} ");
            match entry {
                Ok(entry) => push_entry(&mut text, entry),
                Err(cause) => text.push_str(&format!("undecodable: {cause}")),
            }
        }
        Item::Damage(finding) => push_finding(&mut text, "-- damaged", finding),
        Item::Torn(torn) => {
            let _ = write!(text, "-- unfinished: {}", place(torn));
        }
    }
    out.push_str(&plain(text.trim_end_matches('\n')));
}

/// Appends an item as a JSON object.
pub(super) fn push_json(out: &mut String, item: &Item<'_>) {
    let value = match item {
        Item::Entry { offset, segment, entry } => entry_json(*offset, *segment, entry),
        Item::Damage(finding) => json!({
            "kind": "damaged", "what": finding.kind, "places": finding.places, "offsets": finding.offsets,
            "rows": finding.rows, "delivered": finding.delivered,
        }),
        Item::Torn(torn) => json!({ "kind": "torn", "places": [torn] }),
    };
    let _ = write!(out, "{value}");
}

fn push_entry(text: &mut String, entry: &Entry<'_>) {
    let _ = match entry {
        Entry::Row(row) => {
            let _ = write!(text, "row {} boot {} sequence {}: ", row.device, row.boot, row.sequence);
            text.push_str(&line_of(Record::Row(*row)));
            Ok(())
        }
        Entry::Gap(gap) | Entry::GapAgain(gap) => {
            let cause = gap.cause.as_str();
            text.push_str(if matches!(entry, Entry::GapAgain(_)) { "again the " } else { "" });
            let _ = write!(text, "gap {} {cause} {} rows", gap.device, gap.count);
            if let Some(sink) = gap.sink {
                let _ = write!(text, " in {sink}");
            }
            write!(text, ": {}", line_of(Record::Gap(*gap)))
        }
        Entry::Device(device) => write!(
            text,
            "device {} {:?} boot {} from sequence {}",
            device.device, device.name, device.boot, device.first
        ),
        Entry::Sink(sink) => write!(text, "sink {} from {}", sink.sink, sink.start),
        Entry::Forget(sink) => write!(text, "forget {sink}"),
        Entry::Cursor(cursor) => {
            write!(text, "cursor {} at {}{}", cursor.sink, cursor.next, counts(&cursor.confirmed))
        }
        Entry::Skip(skip) => write!(text, "skip {} to {}", skip.sink, skip.to),
        Entry::Letter(letter) => {
            let shown = &letter.body[..letter.body.len().min(BODY_SHOWN_BYTES)];
            write!(
                text,
                "letter {} {} rows from {} at {}: {}: {} bytes: {}",
                letter.device,
                letter.rows,
                letter.origin,
                letter.ns,
                letter.reason,
                letter.body_bytes,
                String::from_utf8_lossy(shown)
            )
        }
        Entry::Letters(letters) => {
            write!(
                text,
                "letters {} below {}{}",
                if letters.unkept { "given up" } else { "kept" },
                letters.to,
                counts(&letters.rows)
            )
        }
    };
}

/// The point that a row or a gap becomes, as line protocol.
fn line_of(record: Record<'_>) -> String {
    let mut line = String::new();
    push_line(&mut line, Dialect::V2, &record.point());
    line.truncate(line.trim_end_matches('\n').len());
    line
}

fn counts(counts: &Counts<'_>) -> String {
    counts.iter().fold(String::new(), |mut text, (device, rows)| {
        let _ = write!(text, ", {device} {rows} rows");
        text
    })
}

fn entry_json(
    offset: Offset,
    segment: u64,
    entry: &Result<Entry<'_>, crate::journal::entry::Undecodable>,
) -> Value {
    let mut value = match entry {
        Ok(Entry::Row(row)) => row_json(row),
        Ok(Entry::Gap(gap)) => gap_json("gap", gap),
        Ok(Entry::GapAgain(gap)) => gap_json("gap_again", gap),
        Ok(Entry::Device(device)) => json!({
            "kind": "device", "device": device.device, "name": device.name, "boot": device.boot, "first": device.first,
        }),
        Ok(Entry::Sink(sink)) => json!({ "kind": "sink", "sink": sink.sink, "start": sink.start }),
        Ok(Entry::Forget(sink)) => json!({ "kind": "forget", "sink": sink }),
        Ok(Entry::Cursor(cursor)) => json!({
            "kind": "cursor", "sink": cursor.sink, "next": cursor.next, "confirmed": counts_json(&cursor.confirmed),
        }),
        Ok(Entry::Skip(skip)) => json!({ "kind": "skip", "sink": skip.sink, "to": skip.to }),
        Ok(Entry::Letter(letter)) => letter_json(letter),
        Ok(Entry::Letters(letters)) => json!({
            "kind": "letters", "to": letters.to, "unkept": letters.unkept, "rows": counts_json(&letters.rows),
        }),
        Err(cause) => json!({ "kind": "undecodable", "cause": cause.to_string() }),
    };
    value["offset"] = json!(offset);
    value["segment"] = json!(segment);
    value
}

fn row_json(row: &RowEntry<'_>) -> Value {
    let fields: Map<String, Value> =
        row.fields.iter().map(|(name, value)| (name.to_owned(), value_json(value))).collect();
    json!({
        "kind": "row", "device": row.device, "boot": row.boot, "sequence": row.sequence, "stamped": row.stamped,
        "series": row.series, "ns": row.ns, "fields": fields, "line": line_of(Record::Row(*row)),
    })
}

fn gap_json(kind: &str, gap: &GapEntry<'_>) -> Value {
    json!({
        "kind": kind, "device": gap.device, "boot": gap.boot, "from": gap.from, "to": gap.to, "count": gap.count,
        "cause": gap.cause.as_str(), "sink": gap.sink, "stamped": gap.stamped, "series": gap.series, "ns": gap.ns,
    })
}

fn letter_json(letter: &LetterEntry<'_>) -> Value {
    json!({
        "kind": "letter", "device": letter.device, "rows": letter.rows, "ns": letter.ns, "origin": letter.origin,
        "reason": letter.reason, "body_bytes": letter.body_bytes, "body": String::from_utf8_lossy(letter.body),
    })
}

fn counts_json(counts: &Counts<'_>) -> Map<String, Value> {
    counts.iter().map(|(device, rows)| (device.to_owned(), rows.into())).collect()
}

fn value_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Float(v) => v.into(),
        ValueRef::Integer(v) => v.into(),
        ValueRef::Unsigned(v) => v.into(),
        ValueRef::Boolean(v) => v.into(),
        ValueRef::Text(v) => v.into(),
    }
}
