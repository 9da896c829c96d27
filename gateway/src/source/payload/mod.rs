//! Payload formats: from the bytes of one message to rows.
//!
//! In: a payload, and what the topic that it came on names. Out: rows with their series, and what was refused and
//! why. Next: `ingest/mod.rs`. Each format is a module of its own that knows nothing of topics, tags or the journal.

pub mod csv;
mod fields;
pub(crate) mod fuzzing;
pub mod json;
pub mod line_protocol;
mod preset;
pub mod senml;
pub mod time;
pub mod value;

use crate::config::{Format, Layout, Preset, Selector, TimestampFormat};
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

    /// A message that never came to be parsed.
    #[must_use]
    pub fn unreadable(reason: String) -> Parsed {
        let refusal = Refusal { device: UNKNOWN_DEVICE.to_owned(), rows: 1, reason };
        Parsed { rows: Vec::new(), refused: Some(refusal) }
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
    /// How many: one for a document, one a line for line protocol and CSV, one an element or a record where these are
    /// rows.
    pub rows: u64,
    /// The first reason.
    pub reason: String,
}

impl Refusal {
    /// Both in one: the rows of both, and the first reason.
    #[must_use]
    pub fn both(first: Option<Refusal>, other: Option<Refusal>) -> Option<Refusal> {
        match (first, other) {
            (Some(first), Some(other)) => Some(Refusal { rows: first.rows + other.rows, ..first }),
            (first, other) => first.or(other),
        }
    }
}

/// The device that rows without any device are accounted to. They carry no `device` tag.
pub const UNKNOWN_DEVICE: &str = "(unknown)";

/// Why a message brings no reading, where that is no fault of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside(pub &'static str);

/// Parses one message. `captures` is what its topic names, such as a device.
#[must_use]
pub fn parse(layout: &Layout, naming: &Naming, captures: &Captures<'_>, payload: &[u8]) -> Parsed {
    read(layout, naming, captures, payload).unwrap_or_default()
}

/// Parses one message, and says why, if it brings nothing and is none the worse for it.
///
/// # Errors
/// Says what else it is.
pub fn read(
    layout: &Layout,
    naming: &Naming,
    captures: &Captures<'_>,
    payload: &[u8],
) -> Result<Parsed, Aside> {
    let message = Message { layout, naming, captures };
    if payload.len() > MAX_PAYLOAD_BYTES {
        let reason = format!("{} bytes of payload; the limit is {MAX_PAYLOAD_BYTES}", payload.len());
        return Ok(message.refused(reason));
    }
    let parsed = match &layout.format {
        Format::Json => message.json(payload),
        Format::LineProtocol => message.lines(payload),
        Format::Csv { .. } => match csv::Table::of(layout) {
            Some(mut table) => parse_csv_line(layout, naming, &mut table, payload),
            None => Parsed::default(),
        },
        Format::Senml => message.senml(payload),
        Format::Value => message.value(payload),
        Format::Sparkplug => {
            return Err(Aside("what it says depends on its topic and the messages before it"));
        }
        Format::Preset(preset) => return preset::read(*preset, &message, payload),
    };
    match parsed.is_empty() {
        true => Err(Aside(
            "it has no row: an empty list, comments, a header, or only fields that `drop` leaves out",
        )),
        false => Ok(parsed),
    }
}

/// Parses one line of a table, whose header may have come before. A header brings nothing.
#[must_use]
pub fn parse_csv_line(layout: &Layout, naming: &Naming, table: &mut csv::Table, line: &[u8]) -> Parsed {
    let message = Message { layout, naming, captures: &[] };
    let Ok(text) = std::str::from_utf8(line) else {
        return message.refused(NOT_UTF8.to_owned());
    };
    match table.read(text) {
        Ok(None) => Parsed::default(),
        Ok(Some(row)) => message.document(json::read(layout, &row)),
        Err(e) => message.refused(e.to_string()),
    }
}

/// A message, or a line, that is refused as one row.
#[must_use]
pub fn refused(layout: &Layout, captures: &Captures<'_>, reason: String) -> Parsed {
    Parsed { rows: Vec::new(), refused: Some(refusal(layout, captures, 1, reason)) }
}

/// A row of which everything is known but measurement and names, which the layout has; `None` if all of its fields are
/// left out.
pub(super) fn row(
    layout: &Layout,
    naming: &Naming,
    device: &str,
    tags: Vec<(&str, &str)>,
    fields: Vec<(String, Value)>,
    timestamp: Option<i64>,
) -> Result<Option<Row>, String> {
    let message = Message { layout, naming, captures: &[] };
    let measurement = message.draft(Vec::new()).measurement;
    message.row(Draft { device: Some(device), measurement, tags, fields, timestamp, offset_ns: 0 })
}

/// Names and values that a topic's placeholders caught.
pub type Captures<'a> = [(&'a str, &'a str)];

const NOT_UTF8: &str = "not UTF-8 text";

const NO_DEVICE: &str = "the device is empty; it comes from `device` or from {device} in the topic";

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

/// A message as far as it is known without its payload.
struct Message<'a> {
    layout: &'a Layout,
    naming: &'a Naming,
    captures: &'a Captures<'a>,
}

/// A row before it has a series.
struct Draft<'a> {
    /// The device, if it is known.
    device: Option<&'a str>,
    measurement: &'a str,
    /// The row's own tags.
    tags: Vec<(&'a str, &'a str)>,
    fields: Vec<(String, Value)>,
    timestamp: Option<i64>,
    offset_ns: i64,
}

impl<'a> Message<'a> {
    fn refused(&self, reason: String) -> Parsed {
        refused(self.layout, self.captures, reason)
    }

    fn json(&self, payload: &[u8]) -> Parsed {
        let Some(path) = &self.layout.readings else {
            return self.document(json::parse(self.layout, payload));
        };
        let json = match json::syntax(payload) {
            Ok(json) => json,
            Err(e) => return self.refused(e.to_string()),
        };
        match json::readings(self.layout, path, &json) {
            Ok(documents) => {
                let mut parsed = Parsed::default();
                documents.for_each(|document| self.add_document(&mut parsed, document));
                parsed
            }
            Err(e) => self.refused(e.to_string()),
        }
    }

    fn document(&self, document: Result<json::Document, json::JsonError>) -> Parsed {
        let mut parsed = Parsed::default();
        self.add_document(&mut parsed, document);
        parsed
    }

    fn add_document(&self, parsed: &mut Parsed, document: Result<json::Document, json::JsonError>) {
        let row = document.map_err(|e| e.to_string()).and_then(|document| self.document_row(document));
        self.add(parsed, row);
    }

    fn document_row(&self, document: json::Document) -> Result<Option<Row>, String> {
        let device = document.device.as_deref().or_else(|| captured(self.captures, "device"));
        if device.unwrap_or_default().is_empty() {
            return Err(NO_DEVICE.to_owned());
        }
        let measurement = document.measurement.as_deref().or_else(|| captured(self.captures, "measurement"));
        let mut tags: Vec<(&str, &str)> =
            document.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.push_placeholder_tags(&mut tags);
        self.row(Draft {
            device,
            measurement: measurement.unwrap_or_default(),
            tags,
            fields: document.fields,
            timestamp: document.timestamp,
            offset_ns: 0,
        })
    }

    fn lines(&self, payload: &[u8]) -> Parsed {
        let Ok(text) = std::str::from_utf8(payload) else {
            return self.refused(NOT_UTF8.to_owned());
        };
        let fixed = self.device();
        let format = self.layout.timestamp_format.unwrap_or(TimestampFormat::Nanoseconds);
        let mut parsed = Parsed::default();
        for line in line_protocol::lines(text) {
            let row = line.map_err(|e| e.to_string()).and_then(|line| self.line_row(fixed, format, line));
            self.add(&mut parsed, row);
        }
        parsed
    }

    /// The line's own measurement and tags stand; topic and configuration only add what it lacks.
    fn line_row(
        &self,
        fixed_device: Option<&str>,
        format: TimestampFormat,
        line: line_protocol::Line<'_>,
    ) -> Result<Option<Row>, String> {
        let timestamp = match line.timestamp {
            Some(number) => Some(
                time::scale(number, format)
                    .ok_or_else(|| format!("the timestamp {number} does not fit into ns"))?,
            ),
            None => None,
        };
        let mut tags: Vec<(&str, &str)> = Vec::with_capacity(line.tags.len() + self.captures.len());
        let mut device = fixed_device;
        for (name, value) in &line.tags {
            if name == "device" {
                device = Some(value);
            } else {
                tags.push((name, value));
            }
        }
        self.push_placeholder_tags(&mut tags);
        let (measurement, fields) = (&*line.measurement, line.fields);
        self.row(Draft { device, measurement, tags, fields, timestamp, offset_ns: 0 })
    }

    fn senml(&self, payload: &[u8]) -> Parsed {
        let named = self.device().filter(|device| !device.is_empty());
        let pack = match senml::parse(self.layout, named.is_some(), payload) {
            Ok(pack) => pack,
            Err(e) => return self.refused(e.to_string()),
        };
        let mut parsed = Parsed::default();
        for row in pack.rows {
            let records = row.records;
            match self.senml_row(named, row) {
                Ok(row) => parsed.rows.push(row),
                Err(reason) => self.refuse(&mut parsed, records, reason),
            }
        }
        if let Some((records, error)) = pack.refused {
            self.refuse(&mut parsed, records, error.to_string());
        }
        parsed
    }

    fn senml_row(&self, named: Option<&str>, row: senml::Row) -> Result<Row, String> {
        let Some(device) = named.or(row.device.as_deref()) else {
            let field = row.fields.first().map_or("", |(name, _)| name);
            return Err(format!(
                "the name {field:?} names no device; name a level of the topic {{device}}, or write `device`"
            ));
        };
        let (timestamp, offset_ns) = match row.time {
            senml::Time::Absolute(ns) => (Some(ns), 0),
            senml::Time::Relative(ns) => (None, ns),
        };
        let draft = self.draft(row.fields);
        self.settled(Draft { device: Some(device), timestamp, offset_ns, ..draft })
    }

    fn value(&self, payload: &[u8]) -> Parsed {
        let mut parsed = Parsed::default();
        let value = value::read(self.layout, self.field(), payload).map_err(|e| e.to_string());
        let row = value.and_then(|value| self.named_row(vec![(self.field().to_owned(), value)]));
        self.add(&mut parsed, row);
        parsed
    }

    /// A row of the device that the configuration or the topic names.
    fn named_row(&self, fields: Vec<(String, Value)>) -> Result<Option<Row>, String> {
        let draft = self.draft(fields);
        match draft.device {
            Some(_) => self.row(draft),
            None => Err(NO_DEVICE.to_owned()),
        }
    }

    /// What configuration and topic say of a row.
    fn draft(&self, fields: Vec<(String, Value)>) -> Draft<'a> {
        let measurement = match &self.layout.measurement {
            Some(Selector::Fixed(measurement)) => Some(measurement.as_str()),
            _ => captured(self.captures, "measurement"),
        };
        let mut tags = Vec::with_capacity(self.captures.len());
        self.push_placeholder_tags(&mut tags);
        let (device, measurement) =
            (self.device().filter(|device| !device.is_empty()), measurement.unwrap_or_default());
        Draft { device, measurement, tags, fields, timestamp: None, offset_ns: 0 }
    }

    /// The device that the configuration or the topic names.
    fn device(&self) -> Option<&'a str> {
        match &self.layout.device {
            Some(Selector::Fixed(device)) => Some(device),
            _ => captured(self.captures, "device"),
        }
    }

    /// The field of a payload without names.
    fn field(&self) -> &'a str {
        let named = self.layout.field.as_deref().or_else(|| captured(self.captures, "field"));
        named.unwrap_or(match self.layout.format {
            Format::Preset(Preset::Homeassistant) => preset::STATE,
            _ => value::DEFAULT_FIELD,
        })
    }

    fn push_placeholder_tags<'b>(&self, tags: &mut Vec<(&'b str, &'b str)>)
    where
        'a: 'b,
    {
        for &(name, value) in self.captures {
            if !self.layout.format.consumes(name) && !tags.iter().any(|(known, _)| *known == name) {
                tags.push((name, value));
            }
        }
    }

    /// A row with its series; `None` if all of its fields are left out.
    fn row(&self, mut draft: Draft<'_>) -> Result<Option<Row>, String> {
        fields::settle(self.layout, &mut draft.fields)?;
        match draft.fields.is_empty() {
            true => Ok(None),
            false => self.settled(draft).map(Some),
        }
    }

    /// A row, whose fields are as they are stored, with its series.
    fn settled(&self, draft: Draft<'_>) -> Result<Row, String> {
        let device = draft.device.filter(|device| !device.is_empty());
        let device = device.map(|device| self.naming.foreign(device));
        let series = self.naming.series(draft.measurement, device.as_ref(), draft.tags);
        let device = device.map_or(UNKNOWN_DEVICE, |device| device.tag).to_owned();
        let (timestamp, offset_ns) = (draft.timestamp, draft.offset_ns);
        let series = series.map_err(|e| e.to_string())?;
        Ok(Row { device, series, fields: draft.fields, timestamp, offset_ns })
    }

    /// Counts a row in, whatever became of it.
    fn add(&self, parsed: &mut Parsed, row: Result<Option<Row>, String>) {
        match row {
            Ok(row) => parsed.rows.extend(row),
            Err(reason) => self.refuse(parsed, 1, reason),
        }
    }

    fn refuse(&self, parsed: &mut Parsed, rows: u64, reason: String) {
        match &mut parsed.refused {
            Some(refused) => refused.rows += rows,
            none => *none = Some(refusal(self.layout, self.captures, rows, reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicPattern;

    fn layout(format: Format) -> Layout {
        let measurement = (format != Format::LineProtocol).then(|| Selector::Fixed("climate".to_owned()));
        Layout { measurement, ..Layout::of(format) }
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
    fn a_field_that_is_there_twice_refuses_its_row_alone() {
        let parsed = one(Format::Json, "sensors/esp/cellar", r#"{"a_b":1,"a":{"b":2}}"#);
        assert!(parsed.rows.is_empty());
        assert!(parsed.refused.unwrap().reason.starts_with("the field \"a_b\" is there twice"));
        let mut layout = layout(Format::LineProtocol);
        layout.rename.insert("a".to_owned(), "b".to_owned());
        let parsed = parse(&layout, &Naming::default(), &[], b"m a=1,b=2\nm a=3\n");
        assert_eq!(parsed.rows[0].fields, [("b".to_owned(), Value::Float(3.0))]);
        assert_eq!(parsed.refused.unwrap().rows, 1);
    }

    #[test]
    fn the_elements_of_an_array_are_rows_of_their_own_device_and_tags() {
        let mut layout = layout(Format::Json);
        let path = |text| crate::config::JsonPath::parse(text).unwrap();
        layout.readings = Some(path("$.list"));
        layout.device = Some(Selector::Path(path("$.id")));
        layout.tags_from = vec![path("$.site")];
        let told =
            |payload: &str| parse(&layout, &Naming::default(), &[("room", "hall")], payload.as_bytes());
        let parsed = told(
            r#"{"id":"hub","site":"north","list":[{"t":1},{"id":"b","t":2},{"t":"x"},{"id":null,"t":1}]}"#,
        );
        let series: Vec<&str> = parsed.rows.iter().map(|row| row.series.as_str()).collect();
        assert_eq!(
            series,
            ["climate,device=hub,room=hall,site=north", "climate,device=b,room=hall,site=north"]
        );
        let refusal = parsed.refused.unwrap();
        assert_eq!((refusal.rows, refusal.reason.starts_with("no fields")), (2, true), "{}", refusal.reason);
        assert!(told(r#"{"list":[]}"#).is_empty());
        assert_eq!(told(r#"{"list":{}}"#).refused.unwrap().reason, "$.list for `readings` is no array");
        assert!(told("[").refused.unwrap().reason.starts_with("not JSON"));
    }

    #[test]
    fn a_plain_value_is_a_field_by_the_name_that_key_or_topic_give() {
        let mut layout = layout(Format::Value);
        let fields = |layout: &Layout, captures: &Captures<'_>| {
            let parsed = parse(layout, &Naming::default(), captures, b"21.5");
            (parsed.rows[0].series.to_string(), parsed.rows[0].fields[0].0.clone())
        };
        let series = "climate,device=esp".to_owned();
        assert_eq!(fields(&layout, &[("device", "esp")]), (series.clone(), "value".to_owned()));
        let captures = [("device", "esp"), ("field", "t")];
        assert_eq!(fields(&layout, &captures), (series.clone(), "t".to_owned()));
        layout.field = Some("temperature".to_owned());
        assert_eq!(fields(&layout, &captures), (series, "temperature".to_owned()));
        let refusal = parse(&layout, &Naming::default(), &captures, b"warm").refused.unwrap();
        assert!(refusal.reason.contains("`text_fields` lists \"temperature\""), "{}", refusal.reason);
        assert!(
            parse(&layout, &Naming::default(), &[], b"1")
                .refused
                .unwrap()
                .reason
                .contains("the device is empty")
        );
    }

    #[test]
    fn senml_rows_have_the_device_of_the_topic_else_that_of_their_names() {
        let layout = layout(Format::Senml);
        let payload = br#"[{"bn":"urn:dev:ow:10e2:","n":"t","v":1,"t":-5},{"n":"t","v":2}]"#;
        let told =
            |captures: &Captures<'_>, payload: &[u8]| parse(&layout, &Naming::default(), captures, payload);
        let rows = told(&[], payload).rows;
        assert_eq!(rows[0].series.as_str(), "climate,device=urn:dev:ow:10e2");
        assert_eq!((rows[0].timestamp, rows[0].offset_ns), (None, -5_000_000_000));
        assert_eq!((rows[1].timestamp, rows[1].offset_ns), (None, 0));
        assert_eq!(told(&[("device", "esp")], payload).rows[0].series.as_str(), "climate,device=esp");
        let twice =
            told(&[("device", "esp")], br#"[{"n":"a/t","v":1},{"n":"a:t","v":2},{"n":"a/u","v":3,"t":-1}]"#);
        let fields: Vec<_> = twice.rows.iter().flat_map(|row| row.fields.clone()).collect();
        assert_eq!(fields, [("a_u".to_owned(), Value::Float(3.0)), ("a_t".to_owned(), Value::Float(1.0))]);
        assert!(twice.refused.unwrap().reason.starts_with("the field \"a_t\" is there twice"));
        let refusal = told(&[], br#"[{"n":"t","v":1},{"n":"h","v":1},{"v":1}]"#).refused.unwrap();
        assert_eq!(refusal.rows, 3, "each record counts");
        assert!(refusal.reason.starts_with("the name \"t\" names no device"), "{}", refusal.reason);
        let refusal = told(&[], br#"[{"n":"a/t","vs":"x"}]"#).refused.unwrap();
        assert!(refusal.reason.starts_with("no fields"), "{}", refusal.reason);
    }

    #[test]
    fn a_message_whose_fields_are_all_left_out_is_no_fault() {
        let mut layout = layout(Format::Json);
        layout.drop.insert("t".to_owned());
        let captures = [("device", "esp")];
        assert!(read(&layout, &Naming::default(), &captures, b"{\"t\":1}").is_err());
        assert!(parse(&layout, &Naming::default(), &captures, b"{\"t\":1}").is_empty());
    }

    #[test]
    fn a_payload_too_large_is_refused_unread() {
        let parsed = one(Format::Json, "sensors/esp/cellar", &" ".repeat(MAX_PAYLOAD_BYTES + 1));
        assert!(parsed.refused.unwrap().reason.contains("the limit is 1048576"));
    }
}
