//! The keys that say how payloads are read, which `[[mqtt.subscribe]]` and `[[serial]]` have in common.

use std::collections::BTreeSet;

use super::section::Section;
use super::{Format, JsonPath, Layout, Selector, TimestampFormat, check_tag_name};

/// All keys that are read here.
pub(super) const KEYS: [&str; 7] =
    ["device", "measurement", "timestamp", "timestamp_format", "integer_fields", "text_fields", "tags_from"];

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

    /// Whether all that it names is known.
    fn is_known(&self) -> bool {
        !matches!(self, Origin::Topic { levels: None })
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
    let layout = Layout {
        // Without a format, the remaining keys are checked by themselves.
        format: format.clone().unwrap_or(Format::Json),
        device: section.parsed("device", Selector::parse),
        measurement: section.parsed("measurement", Selector::parse),
        timestamp: section.parsed("timestamp", JsonPath::parse),
        timestamp_format: section.word("timestamp_format", TIMESTAMP_FORMATS),
        integer_fields: read_fields(section, "integer_fields"),
        text_fields: read_fields(section, "text_fields"),
        tags_from: read_tags(section),
    };
    match &format {
        Some(Format::Json) => check_document(section, &layout, origin, "JSON"),
        Some(Format::Csv { columns, .. }) => {
            check_document(section, &layout, origin, "a line of CSV");
            check_columns(section, &layout, columns.as_deref());
        }
        Some(Format::LineProtocol) => check_line_protocol(section, &layout, origin),
        None => {}
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
    let mut seen = BTreeSet::new();
    for name in &names {
        if name.is_empty() || name.starts_with('$') {
            section.fault(key, format!("{name:?} is no field; nested names are joined by \"_\": \"a_b\""));
        } else if !seen.insert(*name) {
            section.fault(key, format!("lists {name:?} twice; remove one"));
        }
    }
    names.into_iter().map(str::to_owned).collect()
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

fn check_document(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>, what: &str) {
    let names = origin.names();
    for key in ["device", "measurement"] {
        if origin.is_known() && !section.has(key) && !names.contains(&key) {
            let path = if key == "device" { "$.id" } else { "$.type" };
            let cure = format!("{} `{key}` as a text or a path \"{path}\"", origin.cure(key));
            section.fault(key, format!("is missing, and {what} without one is no point; {cure}"));
        }
    }
    let timestamps = match (section.has("timestamp"), section.has("timestamp_format")) {
        (true, false) => Some("is missing beside `timestamp`; write s, ms, us, ns or rfc3339"),
        (false, true) => Some("does nothing without `timestamp`; add it or remove this"),
        _ => None,
    };
    if let Some(message) = timestamps {
        section.fault("timestamp_format", message);
    }
    let mut tags: BTreeSet<&str> = names.iter().copied().collect();
    for path in &layout.tags_from {
        let Some(name) = path.last_name() else {
            section
                .fault("tags_from", format!("\"{path}\" has no name that the tag could take; end it in one"));
            continue;
        };
        if name == "device" {
            section.fault(
                "tags_from",
                format!("\"{path}\" would be the tag `device`; write `device = \"{path}\"`"),
            );
        } else if let Err(message) = check_tag_name(name) {
            section.fault("tags_from", message);
        } else if !tags.insert(name) {
            section.fault("tags_from", format!("the tag {name:?} comes from two places; remove one"));
        }
    }
    if let Some(both) = layout.integer_fields.iter().find(|name| layout.text_fields.contains(name)) {
        section.fault("text_fields", format!("{both:?} is in `integer_fields` too; remove one"));
    }
}

fn check_line_protocol(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>) {
    for key in ["measurement", "timestamp", "integer_fields", "text_fields", "tags_from"] {
        if section.has(key) {
            section.fault(key, "line protocol brings this itself; remove the key");
        }
    }
    if matches!(layout.device, Some(Selector::Path(_))) {
        section.fault("device", format!("line protocol has no paths; {} a text", origin.cure("device")));
    }
    if layout.timestamp_format == Some(TimestampFormat::Rfc3339) {
        section.fault("timestamp_format", "timestamps of line protocol are numbers; write s, ms, us or ns");
    }
}

/// A column that a key names and the table has not would make every line a bad one.
fn check_columns(section: &Section<'_>, layout: &Layout, columns: Option<&[String]>) {
    let selected = |selector: &Option<Selector>| match selector {
        Some(Selector::Path(path)) => vec![path.clone()],
        _ => Vec::new(),
    };
    let named = [
        ("device", selected(&layout.device)),
        ("measurement", selected(&layout.measurement)),
        ("timestamp", layout.timestamp.iter().cloned().collect()),
        ("tags_from", layout.tags_from.clone()),
    ];
    for (key, paths) in named {
        for path in paths {
            match (path.column(), columns) {
                (None, _) => section.fault(key, format!("\"{path}\" is no column; write \"$.name\"")),
                (Some(name), Some(columns)) if !columns.iter().any(|column| column == name) => {
                    section.fault(key, format!("\"{path}\" is none of `columns`; add it there"));
                }
                _ => {}
            }
        }
    }
    for (key, fields) in [("integer_fields", &layout.integer_fields), ("text_fields", &layout.text_fields)] {
        let unknown = |field: &&String| columns.is_some_and(|columns| !columns.contains(field));
        if let Some(field) = fields.iter().find(unknown) {
            section.fault(key, format!("{field:?} is none of `columns`; add it there"));
        }
    }
}
