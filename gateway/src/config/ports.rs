//! `[[serial]]`.

use std::path::PathBuf;

use super::section::Section;
use super::{Serial, SerialSelector};

/// Most ports: each costs a thread.
const MAX_PORTS: usize = 64;

/// Reads all ports.
pub(super) fn read(root: &mut Section<'_>) -> Vec<Serial> {
    let mut ports: Vec<Serial> = Vec::new();
    for mut section in root.tables("serial", MAX_PORTS) {
        section.later("claim", None, "a port is claimed by `usb` or named by `port`");
        match section.text("format").map(|format| format.text) {
            Some("native") | None => {}
            Some(format @ ("json" | "line-protocol" | "csv")) => {
                section.fault("format", format!("{format:?} is not supported yet; write \"native\""));
            }
            Some(format) => section.fault("format", format!("{format:?} is no format; write \"native\"")),
        }
        let baud = u32::try_from(section.number("baud", 1..=4_000_000, 115_200)).unwrap_or(115_200);
        if let Some(selector) = read_selector(&mut section) {
            if let Some((key, other)) = ports.iter().find_map(|port| clash(&port.selector, &selector)) {
                section.fault(key, format!("{other} is configured twice; remove one"));
            }
            ports.push(Serial { selector, baud });
        }
        section.close();
    }
    ports
}

fn read_selector(section: &mut Section<'_>) -> Option<SerialSelector> {
    let port = section.parsed("port", parse_port);
    let usb = section.parsed("usb", parse_usb);
    match (section.has("port"), section.has("usb")) {
        (true, true) => section.fault("usb", "is given together with `port`; keep one of them"),
        (false, false) => {
            let cure = "write `usb = \"vendor:product\"` or `port = \"/dev/serial/by-id/…\"`";
            section.fault("port", format!("is missing; {cure}"));
        }
        _ => {}
    }
    port.or(usb)
}

fn parse_port(text: &str) -> Result<SerialSelector, String> {
    if text.contains(['*', '?', '[']) {
        return Err(format!(
            "{text:?} may be any device; write `usb = \"vendor:product\"` or one path below /dev/serial/by-id"
        ));
    }
    if !text.starts_with('/') {
        return Err(format!("{text:?} is no path; write for example \"/dev/serial/by-id/…\""));
    }
    Ok(SerialSelector::Port(PathBuf::from(text)))
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

/// The key at fault and the earlier entry, when two entries may stand for the same port.
fn clash(a: &SerialSelector, b: &SerialSelector) -> Option<(&'static str, String)> {
    match (a, b) {
        (SerialSelector::Port(x), SerialSelector::Port(y)) => (x == y).then(|| ("port", a.to_string())),
        (SerialSelector::Usb { vendor: v, product: p }, SerialSelector::Usb { vendor: w, product: q }) => {
            (v == w && (p == q || p.is_none() || q.is_none())).then(|| ("usb", a.to_string()))
        }
        _ => None,
    }
}
