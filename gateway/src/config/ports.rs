//! `[[serial]]`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::layout::{self, Origin};
use super::section::Section;
use super::{Format, Layout, PortPattern, Serial, SerialSelector, Speech};

/// Most `[[serial]]`.
const MAX_PORTS: usize = 64;

/// Most columns of a table: as many as a row may have fields.
const MAX_COLUMNS: usize = 512;

const CURE: &str = "write `usb = \"vendor:product\"` or `port = \"/dev/serial/by-id/…\"`";

/// Reads all ports.
pub(super) fn read(root: &mut Section<'_>) -> Vec<Serial> {
    let mut ports: Vec<Serial> = Vec::new();
    for mut section in root.tables("serial", MAX_PORTS) {
        let baud = u32::try_from(section.number("baud", 1..=4_000_000, 115_200)).unwrap_or(115_200);
        let speech = read_speech(&mut section);
        if let Some(selector) = read_selector(&mut section) {
            if let Some((key, other)) = ports.iter().find_map(|port| clash(&port.selector, &selector)) {
                section.fault(key, format!("{other} is configured twice; remove one"));
            }
            ports.extend(speech.map(|speech| Serial { selector, baud, speech }));
        }
        section.close();
    }
    ports
}

fn read_selector(section: &mut Section<'_>) -> Option<SerialSelector> {
    let any = section.parsed("claim", parse_claim).is_some();
    let port = section.parsed("port", |text| if any { parse_any(text) } else { parse_port(text) });
    let usb = section.parsed("usb", parse_usb);
    match (section.has("port"), section.has("usb")) {
        (true, true) => section.fault("usb", "is given together with `port`; keep one of them"),
        (false, false) => section.fault("port", format!("is missing; {CURE}")),
        (false, true) if any => {
            section.fault("claim", "does nothing beside `usb`, whose ports are all claimed; remove it");
        }
        _ => {}
    }
    port.or(usb)
}

fn parse_claim(text: &str) -> Result<(), String> {
    if text == "any" {
        return Ok(());
    }
    Err(format!("{text:?} is not \"any\"; write that to claim every port that `port` matches, or remove it"))
}

fn parse_port(text: &str) -> Result<SerialSelector, String> {
    if text.contains(['*', '?', '[']) {
        return Err(format!(
            "{text:?} may be any device; write `usb = \"vendor:product\"` or one path below /dev/serial/by-id, \
             or add `claim = \"any\"` to try them all"
        ));
    }
    if !text.starts_with('/') {
        return Err(format!("{text:?} is no path; write for example \"/dev/serial/by-id/…\""));
    }
    Ok(SerialSelector::Port(PathBuf::from(text)))
}

fn parse_any(text: &str) -> Result<SerialSelector, String> {
    PortPattern::parse(text).map(SerialSelector::Any)
}

fn parse_usb(text: &str) -> Result<SerialSelector, String> {
    let wrong = || {
        format!(
            "{text:?} is no USB identity; write vendor and product as lsusb does: \"2e8a:000a\" or \"2e8a:*\""
        )
    };
    let (vendor, product) = text.split_once(':').ok_or_else(wrong)?;
    let product = if product == "*" { None } else { Some(hex(product).ok_or_else(wrong)?) };
    Ok(SerialSelector::Usb { vendor: hex(vendor).ok_or_else(wrong)?, product })
}

fn hex(text: &str) -> Option<u16> {
    let digits = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u16::from_str_radix(text, 16).ok().filter(|_| digits)
}

/// The key at fault and the earlier entry, when two entries may stand for the same port. Where a path or a pattern and
/// a USB identity do, the gateway sees it when the port is there, and the earlier in [`SerialSelector`] has it.
fn clash(a: &SerialSelector, b: &SerialSelector) -> Option<(&'static str, String)> {
    let clashes = match (a, b) {
        (SerialSelector::Port(x), SerialSelector::Port(y)) => (x == y).then_some("port"),
        (SerialSelector::Usb { vendor: v, product: p }, SerialSelector::Usb { vendor: w, product: q }) => {
            (v == w && (p == q || p.is_none() || q.is_none())).then_some("usb")
        }
        (SerialSelector::Any(x), SerialSelector::Any(y)) => (x == y).then_some("port"),
        _ => None,
    };
    clashes.map(|key| (key, a.to_string()))
}

fn read_speech(section: &mut Section<'_>) -> Option<Speech> {
    let word = section.parsed("format", parse_format);
    let format = match word {
        Some(Word::Csv) => Some(Format::Csv {
            columns: read_columns(section),
            separator: section.parsed("separator", parse_separator).unwrap_or(','),
        }),
        Some(Word::Json) => Some(Format::Json),
        Some(Word::LineProtocol) => Some(Format::LineProtocol),
        Some(Word::Native) | None => None,
    };
    if !matches!(word, Some(Word::Csv)) {
        refuse(
            section,
            &["columns", "separator"],
            "belongs to `format = \"csv\"`; write that or remove the key",
        );
    }
    match (format, word, section.has("format")) {
        (Some(format), ..) => layout::read(section, Some(format), &Origin::Line).map(text),
        // A format that cannot be read says nothing about the other keys.
        (None, None, true) => layout::read(section, None, &Origin::Line).map(text),
        (None, ..) => {
            let cure = "native devices bring this themselves; write `format`, or remove the key";
            refuse(
                section,
                &["device"],
                "a path is `port`, and native devices name themselves; remove the key",
            );
            refuse(section, &layout::KEYS[1..], cure);
            Some(Speech::Native)
        }
    }
}

fn text(layout: Layout) -> Speech {
    Speech::Text(Box::new(layout))
}

/// Asks for keys that do nothing here, and says so.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], cure: &str) {
    for key in keys {
        if section.take(key) {
            section.fault(key, cure);
        }
    }
}

#[derive(Clone, Copy)]
enum Word {
    Native,
    Json,
    LineProtocol,
    Csv,
}

fn parse_format(text: &str) -> Result<Word, String> {
    match text {
        "native" => Ok(Word::Native),
        "json" => Ok(Word::Json),
        "line-protocol" => Ok(Word::LineProtocol),
        "csv" => Ok(Word::Csv),
        "influx" => Err("Telegraf's \"influx\" is \"line-protocol\" here".to_owned()),
        _ => Err(format!("{text:?} is no format; write \"native\", \"json\", \"line-protocol\" or \"csv\"")),
    }
}

fn parse_separator(text: &str) -> Result<char, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if !c.is_alphanumeric() && !"\"\r\n.-+_".contains(c) => Ok(c),
        _ => Err(format!("{text:?} is no separator; write one character such as \",\", \";\" or \"\\t\"")),
    }
}

fn read_columns(section: &mut Section<'_>) -> Option<Vec<String>> {
    let columns = section.texts("columns");
    if !section.has("columns") {
        return None;
    }
    let mut seen = BTreeSet::new();
    for name in columns.iter().filter(|name| !name.is_empty()) {
        if name.starts_with('$') {
            section.fault("columns", format!("{name:?} is no name; write it without \"$.\""));
        } else if !seen.insert(*name) {
            section.fault(
                "columns",
                format!("lists {name:?} twice; remove one, or write \"\" for a column to skip"),
            );
        }
    }
    if seen.is_empty() || columns.len() > MAX_COLUMNS {
        let cure = "list the columns' names, or leave the key out where a header line names them";
        section.fault("columns", format!("names {} columns; {cure}", seen.len()));
    }
    Some(columns.into_iter().map(str::to_owned).collect())
}
