//! Shelly devices: of the first generation a topic for each value, of the later ones a JSON object for each
//! component.
//!
//! | topic behind the device | what it is |
//! |---|---|
//! | `status/switch:0` | all of a component's values, dated by their receipt |
//! | `events/rpc` | `NotifyStatus` and `NotifyFullStatus`: values of components that changed, with the device's time |
//! | `relay/0/power`, `sensor/temperature`, `relay/0` | one value |
//!
//! A topic's `{path#}` is what stands behind the device; `{component}` alone is what stands behind `status`, and with
//! neither the topic is `events/rpc`. The component is a tag, `relay:0` as later generations write it; the field is
//! what is left of the path, or `state` for a truth value and `value` for a number where nothing is.
//!
//! A device that does not know the time yet counts it from its start: such a time is left, and the receipt counts.

use serde_json::{Map, Value as Json};

use super::super::json::{self, Habits};
use super::super::{Aside, Draft, Message, Parsed, captured, time, value};
use super::{NO_OBJECT, NO_READING, STATE, begins, plain_value};
use crate::config::TimestampFormat;
use crate::record::{Row, Value};

/// `id` is in the component's name, `by_minute` and `minute_ts` repeat what `total` says, `tF` what `tC` does.
const HABITS: Habits =
    Habits { words: false, skipped: &["id", "by_minute", "minute_ts", "tF", "unixtime"], texts: &[] };

/// No device of these generations was made before: 2017.
const MADE_NS: i64 = 1_500_000_000_000_000_000;

/// Reads a message of a device of any generation.
pub(super) fn read(message: &Message<'_>, payload: &[u8]) -> Result<Parsed, Aside> {
    match (captured(message.captures, "path"), captured(message.captures, "component")) {
        (Some("events/rpc"), _) | (None, None) => notification(message, payload),
        (Some(path), _) => match path.strip_prefix("status/") {
            Some(component) => status(message, component, payload),
            None => first_generation(message, path, payload),
        },
        (None, Some(component)) => status(message, component, payload),
    }
}

fn status(message: &Message<'_>, component: &str, payload: &[u8]) -> Result<Parsed, Aside> {
    if begins(payload) != Some(b'{') {
        return Err(NO_OBJECT);
    }
    let fields = match json::syntax(payload).and_then(|json| fields(message, &json)) {
        Ok(fields) if fields.is_empty() => return Err(NO_READING),
        fields => fields.map_err(|e| e.to_string()),
    };
    let mut parsed = Parsed::default();
    message.add(&mut parsed, fields.and_then(|fields| row(message, Some(component), fields, None)));
    Ok(parsed)
}

fn notification(message: &Message<'_>, payload: &[u8]) -> Result<Parsed, Aside> {
    let json = match json::syntax(payload) {
        Ok(json) => json,
        Err(e) => return Ok(message.refused(e.to_string())),
    };
    let is_status =
        matches!(json.get("method").and_then(Json::as_str), Some("NotifyStatus" | "NotifyFullStatus"));
    let Some(params) = json.get("params").and_then(Json::as_object).filter(|_| is_status) else {
        return Err(Aside("it is no NotifyStatus: events are no readings"));
    };
    let timestamp = device_time(params);
    let mut parsed = Parsed::default();
    for (component, status) in params.iter().filter(|(_, status)| status.is_object()) {
        match fields(message, status).map_err(|e| e.to_string()) {
            Ok(fields) if fields.is_empty() => {}
            fields => {
                let row = fields.and_then(|fields| row(message, Some(component), fields, timestamp));
                message.add(&mut parsed, row);
            }
        }
    }
    if parsed.is_empty() { Err(NO_READING) } else { Ok(parsed) }
}

fn fields(message: &Message<'_>, status: &Json) -> Result<Vec<(String, Value)>, json::JsonError> {
    json::fields(message.layout, &HABITS, "", status)
}

fn device_time(params: &Map<String, Json>) -> Option<i64> {
    let Json::Number(seconds) = params.get("ts")? else { return None };
    time::parse(&seconds.to_string(), TimestampFormat::Seconds).filter(|ns| *ns >= MADE_NS)
}

fn first_generation(message: &Message<'_>, path: &str, payload: &[u8]) -> Result<Parsed, Aside> {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        "announce" | "info" | "online" => {
            return Err(Aside("it tells of the device, not of what it measures"));
        }
        "command" | "set" | "rpc" => return Err(Aside("it is a command to a device")),
        _ if path.starts_with("command/") => return Err(Aside("it is a command to a device")),
        _ if path.split('/').any(|level| level.ends_with("_f")) => {
            return Err(Aside("it repeats in Fahrenheit what another topic says in Celsius"));
        }
        _ => {}
    }
    let mut levels = path.split('/').filter(|level| !level.is_empty());
    let first = levels.next().unwrap_or_default();
    let rest: Vec<&str> = levels.collect();
    let is_number = |level: &str| level.bytes().all(|b| b.is_ascii_digit());
    let (component, rest) = match &rest[..] {
        [] => (None, &[first][..]),
        [number, rest @ ..] if is_number(number) => (Some(format!("{first}:{number}")), rest),
        rest => (Some(first.to_owned()), rest),
    };
    let field = match rest {
        [] if is_plain_number(payload) => value::DEFAULT_FIELD.to_owned(),
        [] => STATE.to_owned(),
        rest => rest.join("_"),
    };
    let value = plain_value(message, &field, payload)?;
    let mut parsed = Parsed::default();
    let row = value.and_then(|value| row(message, component.as_deref(), vec![(field, value)], None));
    message.add(&mut parsed, row);
    Ok(parsed)
}

fn is_plain_number(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| value::number(text.trim()).is_some())
}

fn row(
    message: &Message<'_>,
    component: Option<&str>,
    fields: Vec<(String, Value)>,
    timestamp: Option<i64>,
) -> Result<Option<Row>, String> {
    let mut draft = message.draft(fields);
    if draft.device.is_none() {
        return Err(super::super::NO_DEVICE.to_owned());
    }
    draft.tags.extend(component.map(|component| ("component", component)));
    message.row(Draft { timestamp, ..draft })
}
