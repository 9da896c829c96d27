//! Entries of a dump, for people and as JSON. Text from outside is made harmless for the terminal.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};

use super::page::{place, push_finding};
use crate::cli::plain;
use crate::journal::Entry;
use crate::journal::entry::{Counts, GapEntry, LetterEntry, RowEntry};
use crate::journal::inspect::Item;
use crate::record::{MachineBoot, Offset, ValueRef};
use crate::sink::batch::Record;
use crate::sink::line_protocol::{Dialect, push_line, push_undated};

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
        Entry::Row(row) => push_row(text, row, None),
        Entry::EarlyRow(machine, row) => push_row(text, row, Some(*machine)),
        Entry::Gap(gap) => push_gap(text, gap, None),
        Entry::EarlyGap(machine, gap) => push_gap(text, gap, Some(*machine)),
        Entry::GapAgain(gap) => {
            text.push_str("again the ");
            push_gap(text, gap, None)
        }
        Entry::EarlyGapAgain(machine, gap) => {
            text.push_str("again the ");
            push_gap(text, gap, Some(*machine))
        }
        Entry::Clock(clock) => {
            write!(
                text,
                "clock of machine boot {}, which says {} ns at its start",
                clock.machine, clock.told_ns
            )
        }
        Entry::ClockFix(fix) => {
            let estimated = if fix.estimated { ", estimated" } else { "" };
            write!(
                text,
                "clock fix of machine boot {}: {} ns at its start{estimated}",
                fix.machine, fix.offset_ns
            )
        }
        Entry::Message(message) if message.number == 0 => {
            write!(text, "session {} begins", message.session)
        }
        Entry::Message(message) => write!(
            text,
            "message {} of session {}, hash {:016x}",
            message.number, message.session, message.hash
        ),
        Entry::Shared(shared) => write!(
            text,
            "shared points of {}: {} rows have the point of an earlier one, {} may",
            shared.device, shared.again, shared.unsure
        ),
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
        Entry::Moved(moved) => {
            write!(text, "{} {}{}", moved.what.as_str(), moved.sink, counts(&moved.rows))
        }
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

fn push_row(text: &mut String, row: &RowEntry<'_>, machine: Option<MachineBoot>) -> fmt::Result {
    write!(text, "row {} boot {} sequence {}", row.device, row.boot, row.sequence)?;
    push_unfixed(text, machine, row.ns)?;
    write!(text, ": {}", line_of(Record::Row(*row), machine))
}

fn push_gap(text: &mut String, gap: &GapEntry<'_>, machine: Option<MachineBoot>) -> fmt::Result {
    write!(text, "gap {} {} {} rows", gap.device, gap.cause.as_str(), gap.count)?;
    if let Some(sink) = gap.sink {
        write!(text, " in {sink}")?;
    }
    push_unfixed(text, machine, gap.ns)?;
    write!(text, ": {}", line_of(Record::Gap(*gap), machine))
}

/// Says of what has no time yet where it lies.
fn push_unfixed(text: &mut String, machine: Option<MachineBoot>, ns: i64) -> fmt::Result {
    machine.map_or(Ok(()), |machine| write!(text, " without a time, {ns} ns into machine boot {machine}"))
}

/// The point that a row or a gap becomes, as line protocol; without a time if there is none yet.
fn line_of(record: Record<'_>, machine: Option<MachineBoot>) -> String {
    let mut line = String::new();
    let push = if machine.is_some() { push_undated } else { push_line };
    push(&mut line, Dialect::V2, &record.point());
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
        Ok(Entry::Row(row)) => row_json(row, None),
        Ok(Entry::EarlyRow(machine, row)) => row_json(row, Some(*machine)),
        Ok(Entry::Gap(gap)) => gap_json("gap", gap, None),
        Ok(Entry::EarlyGap(machine, gap)) => gap_json("gap", gap, Some(*machine)),
        Ok(Entry::GapAgain(gap)) => gap_json("gap_again", gap, None),
        Ok(Entry::EarlyGapAgain(machine, gap)) => gap_json("gap_again", gap, Some(*machine)),
        Ok(Entry::Clock(clock)) => json!({
            "kind": "clock", "machine": clock.machine.to_string(), "told_ns": clock.told_ns,
        }),
        Ok(Entry::ClockFix(fix)) => json!({
            "kind": "clock_fix", "machine": fix.machine.to_string(), "offset_ns": fix.offset_ns,
            "estimated": fix.estimated,
        }),
        Ok(Entry::Message(message)) => json!({
            "kind": "message", "session": message.session.to_string(), "number": message.number,
            "hash": format!("{:016x}", message.hash),
        }),
        Ok(Entry::Shared(shared)) => json!({
            "kind": "shared", "device": shared.device, "again": shared.again, "unsure": shared.unsure,
            "latest_ns": shared.latest_ns,
        }),
        Ok(Entry::Device(device)) => json!({
            "kind": "device", "device": device.device, "name": device.name, "boot": device.boot, "first": device.first,
        }),
        Ok(Entry::Sink(sink)) => json!({ "kind": "sink", "sink": sink.sink, "start": sink.start }),
        Ok(Entry::Forget(sink)) => json!({ "kind": "forget", "sink": sink }),
        Ok(Entry::Cursor(cursor)) => json!({
            "kind": "cursor", "sink": cursor.sink, "next": cursor.next, "confirmed": counts_json(&cursor.confirmed),
        }),
        Ok(Entry::Skip(skip)) => json!({ "kind": "skip", "sink": skip.sink, "to": skip.to }),
        Ok(Entry::Moved(moved)) => json!({
            "kind": "moved", "sink": moved.sink, "what": moved.what.as_str(), "rows": counts_json(&moved.rows),
        }),
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

fn row_json(row: &RowEntry<'_>, machine: Option<MachineBoot>) -> Value {
    let fields: Map<String, Value> =
        row.fields.iter().map(|(name, value)| (name.to_owned(), value_json(value))).collect();
    let mut json = json!({
        "kind": "row", "device": row.device, "boot": row.boot, "sequence": row.sequence, "stamped": row.stamped,
        "series": row.series, "fields": fields, "line": line_of(Record::Row(*row), machine),
    });
    put_time(&mut json, row.ns, machine);
    json
}

/// When it was: `ns`, or what is known of what has no time yet.
fn put_time(json: &mut Value, ns: i64, machine: Option<MachineBoot>) {
    match machine {
        None => json["ns"] = json!(ns),
        Some(machine) => {
            json["ns"] = Value::Null;
            json["steady_ns"] = json!(ns);
            json["machine"] = json!(machine.to_string());
        }
    }
}

fn gap_json(kind: &str, gap: &GapEntry<'_>, machine: Option<MachineBoot>) -> Value {
    let mut json = json!({
        "kind": kind, "device": gap.device, "boot": gap.boot, "from": gap.from, "to": gap.to, "count": gap.count,
        "cause": gap.cause.as_str(), "sink": gap.sink, "stamped": gap.stamped, "series": gap.series,
    });
    put_time(&mut json, gap.ns, machine);
    json
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
