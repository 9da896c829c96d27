//! What devices of one make send, so that a topic and `format` are all that has to be configured.
//!
//! `docs/devices.md` has the topics to subscribe to and what becomes of them, line by line, and is run by a test.
//!
//! **Constraints.** What a make calls a state, an announcement or a command is no reading. It is put aside: acked,
//! and neither stored nor kept among the dead letters. So is a message with nothing but text that nobody lists. What
//! should be a reading and cannot be read is refused, as everywhere.
//! **Common to all.** Words such as `ON` and `off` are booleans; text is kept where `text_fields` lists it, and then
//! always; the measurement is the make's name unless one is configured.

use super::json::{self, Habits, JsonError};
use super::value::{self, ValueError};
use super::{Aside, Message, Parsed, captured};
use crate::config::Preset;
use crate::record::Value;

mod shelly;

/// The field of a state in Home Assistant.
pub(super) const STATE: &str = "state";

const NO_READING: Aside =
    Aside("it has no number and no truth value; text is kept only if listed in `text_fields`");
const NO_OBJECT: Aside = Aside("it is no JSON object, as the readings of this format are");
const EMPTY: Aside = Aside("it is empty, which only takes a retained message back");
const DROPPED: Aside = Aside("all of its fields are left out by `drop`");

/// `Time` is local time without a zone, and so is every other text that looks like one.
const TASMOTA: Habits = Habits { words: true, skipped: &[], texts: &[] };

/// `last_seen` is a number or a text, as configured there, `update` and `device` tell of the firmware and the model.
const ZIGBEE2MQTT: Habits =
    Habits { words: true, skipped: &["device", "last_seen", "update"], texts: &["action"] };

/// A light or a climate device of ESPHome is an object.
const ESPHOME: Habits = Habits { words: true, skipped: &[], texts: &[] };

/// Reads a message of a make.
pub(super) fn read(preset: Preset, message: &Message<'_>, payload: &[u8]) -> Result<Parsed, Aside> {
    let parsed = match preset {
        Preset::Tasmota => document(message, &TASMOTA, payload)?,
        Preset::Zigbee2mqtt => {
            zigbee2mqtt_topic(captured(message.captures, "device").unwrap_or_default())?;
            document(message, &ZIGBEE2MQTT, payload)?
        }
        Preset::Shelly => shelly::read(message, payload)?,
        Preset::Esphome if begins(payload) == Some(b'{') => object(message, payload)?,
        Preset::Esphome | Preset::Homeassistant => plain(message, message.field(), payload)?,
    };
    if parsed.is_empty() { Err(DROPPED) } else { Ok(parsed) }
}

/// A device's name may have slashes, so the topic's end tells what is none.
fn zigbee2mqtt_topic(device: &str) -> Result<(), Aside> {
    if device == "bridge" || device.starts_with("bridge/") {
        return Err(Aside("it is the bridge's own"));
    }
    let mut levels = device.rsplit('/');
    let (last, before) = (levels.next().unwrap_or_default(), levels.next());
    match (last, before) {
        ("availability", Some(_)) => Err(Aside("it tells whether a device is there, which is no reading")),
        ("set" | "get", Some(_)) | (_, Some("set" | "get")) => Err(Aside("it is a command to a device")),
        _ => Ok(()),
    }
}

/// One JSON object, which is one row.
fn document(message: &Message<'_>, habits: &Habits, payload: &[u8]) -> Result<Parsed, Aside> {
    match begins(payload) {
        None => return Err(EMPTY),
        Some(b'{') => {}
        Some(_) => return Err(NO_OBJECT),
    }
    let document = json::syntax(payload).and_then(|json| json::read_as(message.layout, habits, &json));
    if document == Err(JsonError::NoFields) {
        return Err(NO_READING);
    }
    Ok(message.document(document))
}

/// An object whose fields have the name that the topic gives before their own.
fn object(message: &Message<'_>, payload: &[u8]) -> Result<Parsed, Aside> {
    let read = |json| json::fields(message.layout, &ESPHOME, message.field(), &json);
    let fields = match json::syntax(payload).and_then(read) {
        Ok(fields) if fields.is_empty() => return Err(NO_READING),
        fields => fields.map_err(|e| e.to_string()),
    };
    let mut parsed = Parsed::default();
    message.add(&mut parsed, fields.and_then(|fields| message.named_row(fields)));
    Ok(parsed)
}

/// One value of a field that the topic names.
fn plain(message: &Message<'_>, field: &str, payload: &[u8]) -> Result<Parsed, Aside> {
    let value = plain_value(message, field, payload)?;
    let mut parsed = Parsed::default();
    message.add(&mut parsed, value.and_then(|value| message.named_row(vec![(field.to_owned(), value)])));
    Ok(parsed)
}

/// The value, or why it is refused.
fn plain_value(message: &Message<'_>, field: &str, payload: &[u8]) -> Result<Result<Value, String>, Aside> {
    if matches!(begins(payload), Some(b'{' | b'[')) {
        return Err(Aside("it is a list or an object, and this format has one value in a message"));
    }
    match value::read(message.layout, field, payload) {
        Err(ValueError::Empty) => Err(EMPTY),
        Err(ValueError::Text { .. }) => Err(NO_READING),
        value => Ok(value.map_err(|e| e.to_string())),
    }
}

/// What a payload begins with, white space apart.
fn begins(payload: &[u8]) -> Option<u8> {
    payload.trim_ascii_start().first().copied()
}

#[cfg(test)]
mod tests;
