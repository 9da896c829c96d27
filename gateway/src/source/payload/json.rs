//! JSON as a payload: one document is one row.
//!
//! Every number leaf is a float field and every boolean a boolean field, so that `21` followed by `21.5` is never a
//! type conflict; integers and text are kept only where the configuration lists them. Nested names and array
//! indices are joined by `_`. A leaf that names the device, the measurement, the timestamp or a tag is not a field.
//! Nulls are skipped. Limits: [`MAX_FIELDS`] fields a row, and the nesting depth of the parser (128).

use serde_json::Value as Json;
use thiserror::Error;

use crate::config::{JsonPath, Layout, Selector, Step, TimestampFormat};
use crate::record::Value;

/// Most fields in one document.
pub const MAX_FIELDS: usize = 512;

/// What a document says, before tags and series are put together.
#[derive(Debug, PartialEq)]
pub struct Document {
    /// The device, where the configuration takes it from the payload.
    pub device: Option<String>,
    /// The measurement, likewise.
    pub measurement: Option<String>,
    /// Tags from `tags_from`, by the last name of their paths.
    pub tags: Vec<(String, String)>,
    /// At least one field.
    pub fields: Vec<(String, Value)>,
    /// Nanoseconds since 1970 UTC, where the configuration takes it from the payload.
    pub timestamp: Option<i64>,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The bytes are not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// A configured path leads nowhere.
    #[error("nothing at {path} for `{key}`")]
    Missing {
        /// The configuration key that names the path.
        key: &'static str,
        /// The path.
        path: String,
    },
    /// A name is given by an object, an array or null.
    #[error("{path} for `{key}` is neither text nor a number")]
    NotScalar {
        /// The configuration key that names the path.
        key: &'static str,
        /// The path.
        path: String,
    },
    /// The timestamp cannot be read in the configured format.
    #[error("the timestamp {text} is not in the format {format}")]
    BadTimestamp {
        /// The value as it came, shortened.
        text: String,
        /// The configured `timestamp_format`.
        format: &'static str,
    },
    /// A listed integer field holds something else.
    #[error("field {0:?} is listed in `integer_fields` and holds no 64-bit integer")]
    NotInteger(String),
    /// No leaf became a field.
    #[error("no fields: there is no number or boolean, and text is kept only if listed in `text_fields`")]
    NoFields,
    /// Too many leaves.
    #[error("more than {MAX_FIELDS} fields in one document")]
    TooManyFields,
}

/// Parses one document as the layout says.
///
/// # Errors
/// Says which path or field is at fault, and why.
pub fn parse(layout: &Layout, payload: &[u8]) -> Result<Document, JsonError> {
    let json: Json = serde_json::from_slice(payload).map_err(|e| JsonError::Syntax(e.to_string()))?;
    read(layout, &json)
}

/// Reads a document that is parsed already.
///
/// # Errors
/// As [`parse`].
pub fn read(layout: &Layout, json: &Json) -> Result<Document, JsonError> {
    let device = selected("device", layout.device.as_ref(), json)?;
    let measurement = selected("measurement", layout.measurement.as_ref(), json)?;
    let mut tags = Vec::with_capacity(layout.tags_from.len());
    for path in &layout.tags_from {
        // A tag that is absent from one document is no fault of the document.
        if let Some(leaf) = find(json, path).filter(|leaf| !leaf.is_null()) {
            tags.push((last_name(path), scalar("tags_from", path, leaf)?));
        }
    }
    let timestamp = match (&layout.timestamp, layout.timestamp_format) {
        (Some(path), Some(format)) => Some(read_timestamp(path, format, json)?),
        _ => None,
    };
    let mut walk = Walk { layout, claimed: claimed(layout), fields: Vec::new(), name: String::new() };
    let mut path = Vec::new();
    walk.visit(json, &mut path)?;
    if walk.fields.is_empty() {
        return Err(JsonError::NoFields);
    }
    Ok(Document { device, measurement, tags, fields: walk.fields, timestamp })
}

/// The paths whose leaves are not fields.
fn claimed(layout: &Layout) -> Vec<&[Step]> {
    let mut paths: Vec<&[Step]> = layout.tags_from.iter().map(|path| path.steps.as_slice()).collect();
    for selector in [&layout.device, &layout.measurement] {
        if let Some(Selector::Path(path)) = selector {
            paths.push(&path.steps);
        }
    }
    paths.extend(layout.timestamp.as_ref().map(|path| path.steps.as_slice()));
    paths
}

/// A place in the document during the walk; borrowed, so that no text is copied for leaves that are no fields.
#[derive(Clone, Copy)]
enum At<'a> {
    Key(&'a str),
    Index(usize),
}

impl At<'_> {
    fn is(self, step: &Step) -> bool {
        match (self, step) {
            (At::Key(key), Step::Key(name)) => key == name,
            (At::Index(at), Step::Index(index)) => at == *index,
            _ => false,
        }
    }
}

struct Walk<'c> {
    layout: &'c Layout,
    claimed: Vec<&'c [Step]>,
    fields: Vec<(String, Value)>,
    name: String,
}

impl Walk<'_> {
    fn visit<'j>(&mut self, json: &'j Json, path: &mut Vec<At<'j>>) -> Result<(), JsonError> {
        match json {
            Json::Null => Ok(()),
            Json::Object(members) => {
                members.iter().try_for_each(|(key, member)| self.descend(At::Key(key), key, member, path))
            }
            Json::Array(elements) => elements
                .iter()
                .enumerate()
                .try_for_each(|(at, element)| self.descend(At::Index(at), &at.to_string(), element, path)),
            leaf => self.leaf(leaf, path),
        }
    }

    fn descend<'j>(
        &mut self,
        at: At<'j>,
        name: &str,
        json: &'j Json,
        path: &mut Vec<At<'j>>,
    ) -> Result<(), JsonError> {
        let length = self.name.len();
        if length > 0 {
            self.name.push('_');
        }
        self.name.push_str(name);
        path.push(at);
        let visited = self.visit(json, path);
        path.pop();
        self.name.truncate(length);
        visited
    }

    fn leaf(&mut self, leaf: &Json, path: &[At<'_>]) -> Result<(), JsonError> {
        let same =
            |steps: &&[Step]| steps.len() == path.len() && path.iter().zip(*steps).all(|(at, s)| at.is(s));
        if self.claimed.iter().any(same) {
            return Ok(());
        }
        // A document that is a bare scalar has no name of its own.
        let name = if self.name.is_empty() { "value" } else { self.name.as_str() };
        let listed = |names: &[String]| names.iter().any(|listed| listed == name);
        let value = match leaf {
            Json::Bool(value) => Value::Boolean(*value),
            Json::Number(number) if listed(&self.layout.integer_fields) => {
                Value::Integer(integer(number).ok_or_else(|| JsonError::NotInteger(name.to_owned()))?)
            }
            Json::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Value::Float(number),
                None => return Ok(()),
            },
            Json::String(text) if listed(&self.layout.text_fields) => Value::Text(text.clone()),
            _ => return Ok(()),
        };
        if self.fields.len() == MAX_FIELDS {
            return Err(JsonError::TooManyFields);
        }
        let name = name.to_owned();
        self.fields.push((name, value));
        Ok(())
    }
}

/// The integer that a number stands for: `21` and `21.0` both are 21.
fn integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        let exact = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 2^53")]
        exact.then_some(float as i64)
    })
}

fn selected(
    key: &'static str,
    selector: Option<&Selector>,
    json: &Json,
) -> Result<Option<String>, JsonError> {
    match selector {
        None => Ok(None),
        Some(Selector::Fixed(text)) => Ok(Some(text.clone())),
        Some(Selector::Path(path)) => {
            let leaf = find(json, path).ok_or_else(|| JsonError::Missing { key, path: path.to_string() })?;
            scalar(key, path, leaf).map(Some)
        }
    }
}

fn scalar(key: &'static str, path: &JsonPath, leaf: &Json) -> Result<String, JsonError> {
    match leaf {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        Json::Bool(value) => Ok(value.to_string()),
        _ => Err(JsonError::NotScalar { key, path: path.to_string() }),
    }
}

fn find<'j>(json: &'j Json, path: &JsonPath) -> Option<&'j Json> {
    path.steps.iter().try_fold(json, |at, step| match step {
        Step::Key(key) => at.get(key),
        Step::Index(index) => at.get(index),
    })
}

fn last_name(path: &JsonPath) -> String {
    let name = path.steps.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    });
    name.unwrap_or_else(|| "value".to_owned())
}

fn read_timestamp(path: &JsonPath, format: TimestampFormat, json: &Json) -> Result<i64, JsonError> {
    let leaf =
        find(json, path).ok_or_else(|| JsonError::Missing { key: "timestamp", path: path.to_string() })?;
    let text = scalar("timestamp", path, leaf)?;
    super::time::parse(&text, format).ok_or_else(|| JsonError::BadTimestamp {
        text: text.chars().take(64).collect(),
        format: super::time::name(format),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Format;

    fn layout() -> Layout {
        let path = |text| JsonPath::parse(text).unwrap();
        Layout {
            format: Format::Json,
            device: None,
            measurement: None,
            timestamp: Some(path("$.time")),
            timestamp_format: Some(TimestampFormat::Milliseconds),
            integer_fields: vec!["count".to_owned()],
            text_fields: vec!["state".to_owned()],
            tags_from: vec![path("$.meta.site")],
        }
    }

    fn fields(text: &str) -> Vec<(String, Value)> {
        parse(&layout(), text.as_bytes()).unwrap().fields
    }

    fn error(text: &str) -> String {
        parse(&layout(), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn leaves_become_fields_by_their_joined_names() {
        let document = parse(
            &layout(),
            br#"{"time":1700000000123,"t":21,"env":{"h":40.5,"ok":true},"a":[1,[2]],"n":null,"state":"on","note":"x",
                "count":7.0,"meta":{"site":"north","floor":2}}"#,
        )
        .unwrap();
        assert_eq!(document.timestamp, Some(1_700_000_000_123_000_000));
        assert_eq!(document.tags, [("site".to_owned(), "north".to_owned())]);
        let mut fields = document.fields;
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("a_0", Value::Float(1.0)),
            ("a_1_0", Value::Float(2.0)),
            ("count", Value::Integer(7)),
            ("env_h", Value::Float(40.5)),
            ("env_ok", Value::Boolean(true)),
            ("meta_floor", Value::Float(2.0)),
            ("state", Value::Text("on".to_owned())),
            ("t", Value::Float(21.0)),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_whole_number_and_a_fraction_are_the_same_type() {
        assert_eq!(fields(r#"{"time":1,"t":21}"#), [("t".to_owned(), Value::Float(21.0))]);
        assert_eq!(fields(r#"{"time":1,"t":21.5}"#), [("t".to_owned(), Value::Float(21.5))]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error("{").starts_with("not JSON: "));
        assert_eq!(error(r#"{"t":1}"#), "nothing at $.time for `timestamp`");
        assert_eq!(error(r#"{"time":"noon","t":1}"#), "the timestamp noon is not in the format ms");
        assert_eq!(error(r#"{"time":[],"t":1}"#), "$.time for `timestamp` is neither text nor a number");
        assert_eq!(
            error(r#"{"time":1,"count":1.5}"#),
            "field \"count\" is listed in `integer_fields` and holds no 64-bit integer"
        );
        assert!(error(r#"{"time":1,"note":"x"}"#).starts_with("no fields"));
        let many: Vec<String> = (0..=MAX_FIELDS).map(|at| format!("\"f{at}\":1")).collect();
        assert!(error(&format!("{{\"time\":1,{}}}", many.join(","))).starts_with("more than 512 fields"));
    }

    #[test]
    fn device_and_measurement_come_from_the_payload_where_configured() {
        let mut layout = layout();
        layout.device = Some(Selector::Path(JsonPath::parse("$.id").unwrap()));
        layout.measurement = Some(Selector::Fixed("climate".to_owned()));
        let document = parse(&layout, br#"{"time":1,"id":4711,"t":1}"#).unwrap();
        assert_eq!(document.device.as_deref(), Some("4711"));
        assert_eq!(document.measurement.as_deref(), Some("climate"));
        assert_eq!(document.fields.len(), 1, "the id is no field");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            parse(&layout(), &bytes).ok();
        }
    }
}
