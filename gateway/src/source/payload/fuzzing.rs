//! What must hold for any payload. See `crate::fuzzing`.

use super::{Captures, parse};
use crate::config::{Format, JsonPath, Layout, NumbersInText, Preset, Selector, TimestampFormat};
use crate::fuzzing::Feed;
use crate::ingest::identity::Naming;
use crate::record::{Row, Value, ValueRef, check_name};
use crate::sink::Point;
use crate::sink::line_protocol::{Dialect, push_line};

/// JSON, also with an array of readings, with or without all that may be configured.
pub fn payload_json(input: &[u8]) {
    let mut feed = Feed::new(input);
    let mut layout = configured(Format::Json, feed.byte());
    if feed.byte() % 2 == 1 {
        layout.readings = JsonPath::parse("$.r").ok();
    }
    hold(&layout, &mut feed);
}

/// What devices of one make send.
pub fn payload_preset(input: &[u8]) {
    let mut feed = Feed::new(input);
    let choices = feed.byte();
    let preset = Preset::ALL[usize::from(feed.byte()) % Preset::ALL.len()];
    hold(&configured(Format::Preset(preset), choices), &mut feed);
}

/// SenML packs.
pub fn payload_senml(input: &[u8]) {
    let mut feed = Feed::new(input);
    hold(&configured(Format::Senml, feed.byte()), &mut feed);
}

/// Plain values.
pub fn payload_value(input: &[u8]) {
    let mut feed = Feed::new(input);
    hold(&configured(Format::Value, feed.byte()), &mut feed);
}

/// A layout that has what each bit stands for.
fn configured(format: Format, choices: u8) -> Layout {
    let has = |bit: u8| choices & (1 << bit) != 0;
    let path = |text| JsonPath::parse(text).ok();
    let mut layout = Layout::of(format);
    layout.measurement = Some(Selector::Fixed("m".to_owned()));
    if has(0) {
        layout.device = path("$.id").map(Selector::Path);
    }
    if has(1) {
        (layout.timestamp, layout.timestamp_format) = (path("$.time"), Some(TimestampFormat::Seconds));
    }
    if has(2) {
        layout.integer_fields = vec!["n".to_owned(), "a_b".to_owned()];
    }
    if has(3) {
        layout.text_fields = vec!["state".to_owned(), "value".to_owned()];
    }
    if has(4) {
        layout.tags_from = path("$.tag").into_iter().collect();
    }
    if has(5) {
        layout.numbers_in_text = NumbersInText::Always;
    }
    if has(6) {
        layout.rename.insert("t".to_owned(), "a_b".to_owned());
    }
    if has(7) {
        layout.drop.insert("drop".to_owned());
    }
    layout
}

/// What is left of the input is the last level of a topic and a payload. Each row can be stored, and read again.
fn hold(layout: &Layout, feed: &mut Feed<'_>) {
    let level = String::from_utf8_lossy(feed.bytes()).into_owned();
    let device: [(&str, &str); 1] = [("device", &level)];
    let names: [(&str, &str); 4] = [("device", "d"), ("path", &level), ("field", &level), ("x", &level)];
    let captures: &Captures<'_> = if level.starts_with('d') { &device } else { &names };
    let parsed = parse(layout, &Naming::default(), captures, feed.rest());
    for row in &parsed.rows {
        hold_row(row);
    }
    if let Some(refused) = &parsed.refused {
        assert!(refused.rows > 0 && !refused.reason.is_empty() && !refused.device.is_empty());
    }
}

/// Whether a row can be stored, and read again.
pub(in crate::source) fn hold_row(row: &Row) {
    assert!(!row.fields.is_empty());
    assert!(row.offset_ns <= 0 && (row.timestamp.is_none() || row.offset_ns == 0));
    for (at, (name, value)) in row.fields.iter().enumerate() {
        assert!(check_name("field", name).is_ok());
        assert!(row.fields[..at].iter().all(|(other, _)| other != name), "{name:?} is there twice");
        assert!(!matches!(value, Value::Float(number) if !number.is_finite()));
    }
    if row.series.as_str().contains("\\\\") {
        // Databases differ in what they take for escaped in a tag's value, and so does our own reading.
        return;
    }
    let mut text = String::new();
    push_line(&mut text, Dialect::V2, &Point::of(row.series.as_str(), 1, &row.fields));
    let lines: Vec<_> = super::line_protocol::lines(&text).collect();
    let line = match &lines[..] {
        [Ok(line)] => line,
        lines => unreachable!("{text:?} is read as {lines:?}"),
    };
    assert_eq!(line.fields.len(), row.fields.len());
    for ((name, value), (told, read)) in row.fields.iter().zip(&line.fields) {
        assert_eq!(name, told);
        let same = match (value.as_ref(), read.as_ref()) {
            (ValueRef::Float(a), ValueRef::Float(b)) => a == b,
            (a, b) => a == b,
        };
        assert!(same, "{value:?} is read as {read:?}");
    }
}
