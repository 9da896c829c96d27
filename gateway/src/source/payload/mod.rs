//! Payload formats: from the bytes of one message to rows.
//!
//! In: a payload, and what the topic that it came on names. Out: rows with their series, and what was refused and why.
//! Next: `ingest/mod.rs`. Each format is a module of its own that knows nothing of topics, tags or the journal.

pub mod csv;
pub mod json;
pub mod line_protocol;
pub mod time;

use crate::config::{Format, Layout, Selector, TimestampFormat};
use crate::ingest::identity::Naming;
use crate::record::{Row, Value, check_name};

/// Largest payload that is looked at, in bytes; a larger one is refused as a whole.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// What one message became. Every row in it is either in `rows` or counted in `refused`.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// Rows, ready for intake.
    pub rows: Vec<Row>,
    /// How many rows were refused, and the first reason.
    pub refused: Option<Refusal>,
}

impl Parsed {
    /// Whether the message brought nothing at all, not even something to complain about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.refused.is_none()
    }

    /// Counts every row as refused, for a message that cannot be taken as a whole.
    #[must_use]
    pub fn refuse_all(&self, reason: String) -> Parsed {
        let before = self.refused.as_ref().map_or(0, |refusal| refusal.rows);
        let refused = self.refused.as_ref().map(|refusal| refusal.device.as_str());
        let device = self.rows.first().map(|row| row.device.as_str()).or(refused);
        let rows = self.rows.len() as u64 + before;
        let device = device.unwrap_or(UNKNOWN_DEVICE).to_owned();
        Parsed { rows: Vec::new(), refused: Some(Refusal { device, rows, reason }) }
    }
}

/// Rows of one message that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The device that they are accounted to; [`UNKNOWN_DEVICE`] if the message does not say.
    pub device: String,
    /// How many: one for a document, one a line for line protocol and CSV.
    pub rows: u64,
    /// The first reason.
    pub reason: String,
}

/// The device that rows without any device are accounted to. They carry no `device` tag.
pub const UNKNOWN_DEVICE: &str = "(unknown)";

/// Parses one message. `captures` is what its topic names, such as a device.
#[must_use]
pub fn parse(layout: &Layout, naming: &Naming, captures: &Captures<'_>, payload: &[u8]) -> Parsed {
    if payload.len() > MAX_PAYLOAD_BYTES {
        let reason = format!("{} bytes of payload; the limit is {MAX_PAYLOAD_BYTES}", payload.len());
        return refused(layout, captures, reason);
    }
    match &layout.format {
        Format::Json => match json::parse(layout, payload) {
            Ok(document) => document_row(layout, naming, captures, document),
            Err(e) => refused(layout, captures, e.to_string()),
        },
        Format::LineProtocol => parse_lines(layout, naming, captures, payload),
        Format::Csv { .. } => match csv::Table::of(layout) {
            Some(mut table) => parse_csv_line(layout, naming, &mut table, payload),
            None => Parsed::default(),
        },
    }
}

/// Parses one line of a table, whose header may have come before. A header brings nothing.
#[must_use]
pub fn parse_csv_line(layout: &Layout, naming: &Naming, table: &mut csv::Table, line: &[u8]) -> Parsed {
    let Ok(text) = std::str::from_utf8(line) else {
        return refused(layout, &[], NOT_UTF8.to_owned());
    };
    match table.read(text) {
        Ok(None) => Parsed::default(),
        Ok(Some(row)) => match json::read(layout, &row) {
            Ok(document) => document_row(layout, naming, &[], document),
            Err(e) => refused(layout, &[], e.to_string()),
        },
        Err(e) => refused(layout, &[], e.to_string()),
    }
}

/// A message, or a line, that is refused as one row.
#[must_use]
pub fn refused(layout: &Layout, captures: &Captures<'_>, reason: String) -> Parsed {
    Parsed { rows: Vec::new(), refused: Some(refusal(layout, captures, 1, reason)) }
}

/// Names and values that a topic's placeholders caught.
pub type Captures<'a> = [(&'a str, &'a str)];

const NOT_UTF8: &str = "not UTF-8 text";

fn captured<'a>(captures: &Captures<'a>, name: &str) -> Option<&'a str> {
    captures.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

fn refusal(layout: &Layout, captures: &Captures<'_>, rows: u64, reason: String) -> Refusal {
    let storable = |device: &&str| !device.is_empty() && check_name("tag value", device).is_ok();
    let fixed = match &layout.device {
        Some(Selector::Fixed(device)) => Some(device.as_str()),
        _ => captured(captures, "device"),
    };
    let device = fixed.filter(storable);
    Refusal { device: device.unwrap_or(UNKNOWN_DEVICE).to_owned(), rows, reason }
}

fn document_row(
    layout: &Layout,
    naming: &Naming,
    captures: &Captures<'_>,
    document: json::Document,
) -> Parsed {
    let device = document.device.as_deref().or_else(|| captured(captures, "device")).unwrap_or_default();
    if device.is_empty() {
        let reason = "the device is empty; it comes from `device` or from {device} in the topic".to_owned();
        return refused(layout, captures, reason);
    }
    let measurement =
        document.measurement.as_deref().or_else(|| captured(captures, "measurement")).unwrap_or_default();
    let mut own: Vec<(&str, &str)> =
        document.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    push_placeholder_tags(captures, &mut own);
    match row(naming, Some(device), measurement, own, document.fields, document.timestamp) {
        Ok(row) => Parsed { rows: vec![row], refused: None },
        Err(reason) => refused(layout, captures, reason),
    }
}

fn parse_lines(layout: &Layout, naming: &Naming, captures: &Captures<'_>, payload: &[u8]) -> Parsed {
    let Ok(text) = std::str::from_utf8(payload) else {
        return refused(layout, captures, NOT_UTF8.to_owned());
    };
    let fixed = match &layout.device {
        Some(Selector::Fixed(device)) => Some(device.as_str()),
        _ => captured(captures, "device"),
    };
    let format = layout.timestamp_format.unwrap_or(TimestampFormat::Nanoseconds);
    let mut parsed = Parsed::default();
    for line in line_protocol::lines(text) {
        match line.map_err(|e| e.to_string()).and_then(|line| line_row(naming, captures, fixed, format, line))
        {
            Ok(row) => parsed.rows.push(row),
            Err(reason) => match &mut parsed.refused {
                Some(refused) => refused.rows += 1,
                none => *none = Some(refusal(layout, captures, 1, reason)),
            },
        }
    }
    parsed
}

/// The line's own measurement and tags stand; topic and configuration only add what it lacks.
fn line_row(
    naming: &Naming,
    captures: &Captures<'_>,
    fixed_device: Option<&str>,
    format: TimestampFormat,
    line: line_protocol::Line<'_>,
) -> Result<Row, String> {
    let timestamp = match line.timestamp {
        Some(number) => Some(
            time::scale(number, format)
                .ok_or_else(|| format!("the timestamp {number} does not fit into ns"))?,
        ),
        None => None,
    };
    let mut own: Vec<(&str, &str)> = Vec::with_capacity(line.tags.len() + captures.len());
    let mut device = fixed_device;
    for (name, value) in &line.tags {
        if name == "device" {
            device = Some(value);
        } else {
            own.push((name, value));
        }
    }
    push_placeholder_tags(captures, &mut own);
    row(naming, device, &line.measurement, own, line.fields, timestamp)
}

fn push_placeholder_tags<'a>(captures: &Captures<'a>, own: &mut Vec<(&'a str, &'a str)>) {
    for &(name, value) in captures {
        if !matches!(name, "device" | "measurement") && !own.iter().any(|(known, _)| *known == name) {
            own.push((name, value));
        }
    }
}

fn row(
    naming: &Naming,
    device: Option<&str>,
    measurement: &str,
    own: Vec<(&str, &str)>,
    fields: Vec<(String, Value)>,
    timestamp: Option<i64>,
) -> Result<Row, String> {
    for (name, _) in &fields {
        if name.is_empty() {
            return Err("a field has an empty name".to_owned());
        }
        check_name("field", name).map_err(|e| e.to_string())?;
    }
    let device = device.filter(|device| !device.is_empty()).map(|device| naming.foreign(device));
    let series = naming.series(measurement, device.as_ref(), own).map_err(|e| e.to_string())?;
    let device = device.map_or(UNKNOWN_DEVICE, |device| device.tag).to_owned();
    Ok(Row { device, series, fields, timestamp, offset_ns: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicPattern;

    fn layout(format: Format) -> Layout {
        Layout {
            device: None,
            measurement: (format == Format::Json).then(|| Selector::Fixed("climate".to_owned())),
            timestamp: None,
            timestamp_format: None,
            integer_fields: Vec::new(),
            text_fields: Vec::new(),
            tags_from: Vec::new(),
            format,
        }
    }

    fn one(format: Format, topic: &str, payload: &str) -> Parsed {
        let pattern = TopicPattern::parse("sensors/{device}/{room}").unwrap();
        let captures = pattern.captures(topic).unwrap();
        parse(&layout(format), &Naming::default(), &captures, payload.as_bytes())
    }

    #[test]
    fn placeholders_name_the_device_and_become_tags() {
        let parsed = one(Format::Json, "sensors/esp 1,x/cellar", r#"{"t":21}"#);
        assert_eq!(parsed.refused, None);
        assert_eq!(parsed.rows[0].device, "esp 1,x");
        assert_eq!(parsed.rows[0].series.as_str(), r"climate,device=esp\ 1\,x,room=cellar");
        assert_eq!(parsed.rows[0].timestamp, None);
    }

    #[test]
    fn a_name_that_cannot_be_carried_is_refused_and_counted() {
        let parsed = one(Format::Json, "sensors/a\nb/cellar", r#"{"t":21}"#);
        assert!(parsed.rows.is_empty());
        let refusal = parsed.refused.unwrap();
        assert_eq!((refusal.device.as_str(), refusal.rows), (UNKNOWN_DEVICE, 1));
        assert!(refusal.reason.contains("control character"), "{}", refusal.reason);
    }

    #[test]
    fn a_document_without_a_device_is_refused() {
        let refusal = one(Format::Json, "sensors//cellar", r#"{"t":21}"#).refused.unwrap();
        assert_eq!(refusal.device, UNKNOWN_DEVICE);
        assert!(refusal.reason.starts_with("the device is empty"), "{}", refusal.reason);
    }

    #[test]
    fn a_lines_own_tags_stand_and_the_topic_adds_what_it_lacks() {
        let payload = "climate,device=own,room=attic t=1 5\nclimate t=2 6\nbroken\n";
        let parsed = one(Format::LineProtocol, "sensors/esp/cellar", payload);
        let series: Vec<&str> = parsed.rows.iter().map(|row| row.series.as_str()).collect();
        assert_eq!(series, ["climate,device=own,room=attic", "climate,device=esp,room=cellar"]);
        assert_eq!(parsed.rows[1].timestamp, Some(6));
        let refusal = parsed.refused.unwrap();
        assert_eq!((refusal.device.as_str(), refusal.rows), ("esp", 1));
    }

    #[test]
    fn a_payload_too_large_is_refused_unread() {
        let parsed = one(Format::Json, "sensors/esp/cellar", &" ".repeat(MAX_PAYLOAD_BYTES + 1));
        assert!(parsed.refused.unwrap().reason.contains("the limit is 1048576"));
    }
}
