//! The keys that say how payloads are read, which `[[mqtt.subscribe]]` and `[[serial]]` have in common.

use std::collections::{BTreeMap, BTreeSet};

use super::section::Section;
use super::{Format, JsonPath, Layout, NumbersInText, Selector, TimestampFormat};
use crate::record::check_name;

mod check;

/// All keys that are read here.
pub(super) const KEYS: [&str; 12] = [
    "device",
    "measurement",
    "timestamp",
    "timestamp_format",
    "integer_fields",
    "text_fields",
    "tags_from",
    "readings",
    "numbers_in_text",
    "field",
    "rename",
    "drop",
];

/// What payloads come by, and what it may name itself.
pub(super) enum Origin<'a> {
    /// A topic, with the names of its levels, if it can be read.
    Topic { levels: Option<Vec<&'a str>> },
    /// A line, which names nothing.
    Line,
}

impl<'a> Origin<'a> {
    fn names(&self) -> &[&'a str] {
        match self {
            Origin::Topic { levels } => levels.as_deref().unwrap_or_default(),
            Origin::Line => &[],
        }
    }

    /// Whether it may name what is looked for.
    fn may_name(&self, key: &str) -> bool {
        matches!(self, Origin::Topic { levels: None }) || self.names().contains(&key)
    }

    /// How else a device or a measurement may be had, for the end of a sentence.
    fn cure(&self, key: &str) -> String {
        match self {
            Origin::Topic { .. } => format!("name a level of the topic {{{key}}}, or write"),
            Origin::Line => "write".to_owned(),
        }
    }
}

/// Reads all keys; `None` without a format.
pub(super) fn read(section: &mut Section<'_>, format: Option<Format>, origin: &Origin<'_>) -> Option<Layout> {
    let mut layout = Layout {
        // Without a format, the remaining keys are checked by themselves.
        format: format.clone().unwrap_or(Format::Json),
        device: section.parsed("device", Selector::parse),
        measurement: section.parsed("measurement", Selector::parse),
        timestamp: section.parsed("timestamp", JsonPath::parse),
        timestamp_format: section.word("timestamp_format", TIMESTAMP_FORMATS),
        integer_fields: read_fields(section, "integer_fields"),
        text_fields: read_fields(section, "text_fields"),
        tags_from: read_tags(section),
        readings: section.parsed("readings", parse_readings),
        numbers_in_text: read_numbers_in_text(section),
        field: section.parsed("field", parse_field),
        rename: read_rename(section),
        drop: read_fields(section, "drop").into_iter().collect(),
    };
    check::names(section, &layout);
    if let Some(format) = &format {
        check::format(section, &layout, format, origin);
    }
    if let Some(format @ (Format::Preset(_) | Format::Sparkplug)) = &format
        && !section.has("measurement")
        && !origin.names().contains(&"measurement")
    {
        layout.measurement = Some(Selector::Fixed(format.name().to_owned()));
    }
    format.map(|_| layout)
}

const TIMESTAMP_FORMATS: &[(&str, TimestampFormat)] = &[
    ("s", TimestampFormat::Seconds),
    ("ms", TimestampFormat::Milliseconds),
    ("us", TimestampFormat::Microseconds),
    ("ns", TimestampFormat::Nanoseconds),
    ("rfc3339", TimestampFormat::Rfc3339),
];

fn read_fields(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let names = section.texts(key);
    listed_fields(section, key, &names);
    names.into_iter().map(str::to_owned).collect()
}

fn listed_fields(section: &Section<'_>, key: &str, names: &[&str]) {
    let mut seen = BTreeSet::new();
    for name in names {
        if is_no_field(name) {
            section.fault(key, format!("{name:?} is no field; nested names are joined by \"_\": \"a_b\""));
        } else if !seen.insert(*name) {
            section.fault(key, format!("lists {name:?} twice; remove one"));
        }
    }
}

fn is_no_field(name: &str) -> bool {
    name.is_empty() || name.starts_with('$')
}

fn read_tags(section: &mut Section<'_>) -> Vec<JsonPath> {
    let mut paths = Vec::new();
    for text in section.texts("tags_from") {
        match JsonPath::parse(text) {
            Ok(path) => paths.push(path),
            Err(message) => section.fault("tags_from", message),
        }
    }
    paths
}

/// The document itself may be the array.
fn parse_readings(text: &str) -> Result<JsonPath, String> {
    if text == "$" { Ok(JsonPath { steps: Vec::new() }) } else { JsonPath::parse(text) }
}

fn read_numbers_in_text(section: &mut Section<'_>) -> NumbersInText {
    let key = "numbers_in_text";
    match section.boolean_or_texts(key) {
        None | Some(Ok(false)) => NumbersInText::Never,
        Some(Ok(true)) => NumbersInText::Always,
        Some(Err(names)) => {
            listed_fields(section, key, &names);
            NumbersInText::Of(names.into_iter().map(str::to_owned).collect())
        }
    }
}

fn parse_field(text: &str) -> Result<String, String> {
    if is_no_field(text) {
        return Err(format!("{text:?} is no name of a field; write for example \"temperature\""));
    }
    check_name("field", text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn read_rename(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(table) = section.table("rename") else { return BTreeMap::new() };
    let names = table.named_texts();
    for (old, new) in &names {
        if is_no_field(old) {
            table.fault(old, format!("{old:?} is no field; nested names are joined by \"_\": \"a_b\""));
        } else if let Err(message) = parse_field(new) {
            table.fault(old, message);
        } else if old == new {
            table.fault(old, "is renamed to itself; remove it");
        }
    }
    names.into_iter().map(|(old, new)| (old.to_owned(), new.to_owned())).collect()
}
