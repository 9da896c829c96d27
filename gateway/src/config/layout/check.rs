//! Which of the keys go together, and which of them a format has a use for.

use std::collections::BTreeSet;

use super::super::section::Section;
use super::super::{
    Format, JsonPath, Layout, NumbersInText, Preset, Selector, TimestampFormat, check_tag_name,
};
use super::Origin;

/// Looks at the names of fields, whatever the format.
pub(super) fn names(section: &Section<'_>, layout: &Layout) {
    let text = &layout.text_fields;
    if let Some(both) = layout.integer_fields.iter().find(|name| text.contains(name)) {
        section.fault("text_fields", format!("{both:?} is in `integer_fields` too; remove one"));
    }
    if let NumbersInText::Of(names) = &layout.numbers_in_text
        && let Some(both) = names.iter().find(|name| text.contains(name))
    {
        section.fault("numbers_in_text", format!("{both:?} is in `text_fields` too; remove one"));
    }
    if let Some(both) = layout.drop.iter().find(|name| layout.rename.contains_key(*name)) {
        section.fault("drop", format!("{both:?} is renamed by `rename` too; remove one"));
    }
}

/// Looks at what a format needs and what it has no use for.
pub(super) fn format(section: &Section<'_>, layout: &Layout, format: &Format, origin: &Origin<'_>) {
    match format {
        Format::Json => {
            refuse(section, &["field"], "JSON names its fields itself; remove the key, or use `rename`");
            check_document(section, layout, origin, "JSON");
        }
        Format::Csv { columns, .. } => {
            refuse(section, &["field"], "the columns name the fields; remove the key, or use `rename`");
            refuse(section, &["readings"], "a line of CSV is one row; remove the key");
            check_document(section, layout, origin, "a line of CSV");
            check_columns(section, layout, columns.as_deref());
        }
        Format::LineProtocol => check_line_protocol(section, layout, origin),
        Format::Senml => {
            refuse(
                section,
                &["timestamp", "timestamp_format", "field"],
                "SenML brings this itself; remove the key",
            );
            refuse(section, DOCUMENT_KEYS, "SenML has no paths and no numbers in text; remove the key");
            check_fixed(section, layout, origin, "SenML");
            need(section, origin, &["measurement"], "SenML");
        }
        Format::Value => check_value(section, layout, origin, "a plain value"),
        Format::Sparkplug => {
            const BROUGHT: &[&str] = &["device", "timestamp", "timestamp_format", "field"];
            refuse(section, BROUGHT, "Sparkplug brings this itself; remove the key");
            refuse(section, DOCUMENT_KEYS, "Sparkplug has no paths and no numbers in text; remove the key");
            check_fixed(section, layout, origin, "Sparkplug");
        }
        Format::Preset(Preset::Tasmota | Preset::Zigbee2mqtt) => {
            let cure = "this format names its fields itself; remove the key, or use `rename`";
            refuse(section, &["field"], cure);
            refuse(section, &["readings"], "a message of this format is one row; remove the key");
            need(section, origin, &["device"], "a message");
            check_timestamp(section);
            check_tags(section, layout, origin);
        }
        Format::Preset(Preset::Shelly) => {
            let cure = "this format names its fields itself; remove the key, or use `rename`";
            refuse(section, &["field"], cure);
            refuse(
                section,
                &["timestamp", "timestamp_format"],
                "this format finds times itself; remove the key",
            );
            refuse(section, DOCUMENT_KEYS, "this format has no paths; remove the key");
            check_fixed(section, layout, origin, "this format");
            need(section, origin, &["device"], "a message");
        }
        Format::Preset(Preset::Esphome) => {
            check_value(section, layout, origin, "a message");
            need_field(section, origin);
        }
        Format::Preset(Preset::Homeassistant) => check_value(section, layout, origin, "a message"),
    }
}

/// Keys of JSON that some formats have no use for.
const DOCUMENT_KEYS: &[&str] = &["tags_from", "readings", "numbers_in_text"];

fn refuse(section: &Section<'_>, keys: &[&str], cure: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        section.fault(key, cure);
    }
}

/// What is neither configured nor named by the topic.
fn need(section: &Section<'_>, origin: &Origin<'_>, keys: &[&str], what: &str) {
    for key in keys.iter().filter(|key| !section.has(key) && !origin.may_name(key)) {
        let cure = origin.cure(key);
        section
            .fault(key, format!("is missing, and {what} without one is no point; {cure} `{key}` as a text"));
    }
}

fn need_field(section: &Section<'_>, origin: &Origin<'_>) {
    if !section.has("field") && !origin.may_name("field") {
        let cure = origin.cure("field");
        section
            .fault("field", format!("is missing, so that all entities would be one field; {cure} `field`"));
    }
}

/// Device and measurement cannot come from paths.
fn check_fixed(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>, what: &str) {
    for (key, selector) in [("device", &layout.device), ("measurement", &layout.measurement)] {
        if matches!(selector, Some(Selector::Path(_))) {
            section.fault(key, format!("{what} has no paths; {} a text", origin.cure(key)));
        }
    }
}

fn check_value(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>, what: &str) {
    refuse(section, &["timestamp", "timestamp_format"], "a plain value has no time; remove the key");
    refuse(section, DOCUMENT_KEYS, "a plain value has no paths, and a number in it is one; remove the key");
    check_fixed(section, layout, origin, "a plain value");
    need(section, origin, &["device"], what);
    if layout.format == Format::Value {
        need(section, origin, &["measurement"], what);
    }
}

fn check_document(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>, what: &str) {
    for key in ["device", "measurement"] {
        if !section.has(key) && !origin.may_name(key) {
            let path = if key == "device" { "$.id" } else { "$.type" };
            let cure = format!("{} `{key}` as a text or a path \"{path}\"", origin.cure(key));
            section.fault(key, format!("is missing, and {what} without one is no point; {cure}"));
        }
    }
    check_timestamp(section);
    check_tags(section, layout, origin);
}

fn check_timestamp(section: &Section<'_>) {
    let timestamps = match (section.has("timestamp"), section.has("timestamp_format")) {
        (true, false) => Some("is missing beside `timestamp`; write s, ms, us, ns or rfc3339"),
        (false, true) => Some("does nothing without `timestamp`; add it or remove this"),
        _ => None,
    };
    if let Some(message) = timestamps {
        section.fault("timestamp_format", message);
    }
}

fn check_tags(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>) {
    let mut tags: BTreeSet<&str> = origin.names().iter().copied().collect();
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
}

fn check_line_protocol(section: &Section<'_>, layout: &Layout, origin: &Origin<'_>) {
    const BROUGHT: &[&str] = &[
        "measurement",
        "timestamp",
        "integer_fields",
        "text_fields",
        "tags_from",
        "readings",
        "numbers_in_text",
        "field",
    ];
    refuse(section, BROUGHT, "line protocol brings this itself; remove the key");
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
    let named: [(&str, Vec<JsonPath>); 4] = [
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
    let in_text: &[String] = match &layout.numbers_in_text {
        NumbersInText::Of(names) => names,
        NumbersInText::Never | NumbersInText::Always => &[],
    };
    let unknown = |field: &&String| columns.is_some_and(|columns| !columns.contains(field));
    for (key, field) in [
        ("integer_fields", layout.integer_fields.iter().find(unknown)),
        ("text_fields", layout.text_fields.iter().find(unknown)),
        ("numbers_in_text", in_text.iter().find(unknown)),
        ("drop", layout.drop.iter().find(unknown)),
        ("rename", layout.rename.keys().find(unknown)),
    ] {
        if let Some(field) = field {
            section.fault(key, format!("{field:?} is none of `columns`; add it there"));
        }
    }
}
