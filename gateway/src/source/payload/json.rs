//! JSON as a payload: one document is one row, or each element of an array in it is one.
//!
//! Every number leaf is a float field and every boolean a boolean field, so that `21` followed by `21.5` is never a
//! type conflict; integers and text are kept only where the configuration lists them. Nested names and array
//! indices are joined by `_`. A leaf that names the device, the measurement, the timestamp or a tag is not a field.
//! Nulls are skipped. Text that is a number is one where `numbers_in_text` says so; listed text stays text.
//!
//! With `readings` the fields of a row are those of its element alone. Paths to what is no field are looked for in
//! the element first, then in the document.
//!
//! Limits: [`MAX_FIELDS`] fields a row, [`MAX_READINGS`] elements, of which the rest is refused as one, and the
//! nesting depth of the parser (128).

use serde_json::Value as Json;
use thiserror::Error;

use super::value;
use crate::config::{JsonPath, Layout, NumbersInText, Selector, Step, TimestampFormat};
use crate::record::Value;

/// Most fields in one row.
pub const MAX_FIELDS: usize = 512;

/// Most elements of the array that `readings` names.
pub const MAX_READINGS: usize = 10_000;

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
    /// What `readings` names is something else.
    #[error("{0} for `readings` is no array")]
    NotArray(String),
    /// Too many elements.
    #[error("more than {MAX_READINGS} readings in one document; send smaller ones")]
    TooManyReadings,
}

/// What is known of the documents of a certain make, beside the layout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Words such as `ON` and `off` are booleans.
    pub words: bool,
    /// Members with these names are no fields, nor is anything in them.
    pub skipped: &'static [&'static str],
    /// Text fields that are kept though nobody lists them.
    pub texts: &'static [&'static str],
}

/// Parses one document as the layout says.
///
/// # Errors
/// Says which path or field is at fault, and why.
pub fn parse(layout: &Layout, payload: &[u8]) -> Result<Document, JsonError> {
    read(layout, &syntax(payload)?)
}

/// The document that some bytes are.
///
/// # Errors
/// They are no JSON.
pub fn syntax(payload: &[u8]) -> Result<Json, JsonError> {
    serde_json::from_slice(payload).map_err(|e| JsonError::Syntax(e.to_string()))
}

/// Reads a document that is parsed already.
///
/// # Errors
/// As [`parse`].
pub fn read(layout: &Layout, json: &Json) -> Result<Document, JsonError> {
    Places { element: json, document: None }.read(layout, &Habits::default())
}

/// Reads a document of a certain make.
///
/// # Errors
/// As [`parse`].
pub fn read_as(layout: &Layout, habits: &Habits, json: &Json) -> Result<Document, JsonError> {
    Places { element: json, document: None }.read(layout, habits)
}

/// Reads what an array in a document holds, each element as a document of its own; the errors are those of elements.
///
/// # Errors
/// There is no such array.
pub fn readings<'j>(
    layout: &'j Layout,
    path: &JsonPath,
    json: &'j Json,
) -> Result<impl Iterator<Item = Result<Document, JsonError>> + use<'j>, JsonError> {
    let key = "readings";
    let found = find(json, path).ok_or_else(|| JsonError::Missing { key, path: path.to_string() })?;
    let elements = found.as_array().ok_or_else(|| JsonError::NotArray(path.to_string()))?;
    Ok(elements.iter().take(MAX_READINGS + 1).enumerate().map(move |(at, element)| match at {
        MAX_READINGS => Err(JsonError::TooManyReadings),
        _ => Places { element, document: Some(json) }.read(layout, &Habits::default()),
    }))
}

/// The fields of a document, with `name` before their names.
///
/// # Errors
/// A listed integer field holds something else, or there are too many.
pub fn fields(
    layout: &Layout,
    habits: &Habits,
    name: &str,
    json: &Json,
) -> Result<Vec<(String, Value)>, JsonError> {
    let mut walk =
        Walk { layout, habits, claimed: claimed(layout), fields: Vec::new(), name: name.to_owned() };
    walk.visit(json, &mut Vec::new())?;
    Ok(walk.fields)
}

/// Where a row is read from.
#[derive(Clone, Copy)]
struct Places<'j> {
    /// What holds its fields.
    element: &'j Json,
    /// The document around it, for paths that lead nowhere in the element.
    document: Option<&'j Json>,
}

impl<'j> Places<'j> {
    fn read(self, layout: &Layout, habits: &Habits) -> Result<Document, JsonError> {
        let device = self.selected("device", layout.device.as_ref())?;
        let measurement = self.selected("measurement", layout.measurement.as_ref())?;
        let mut tags = Vec::with_capacity(layout.tags_from.len());
        for path in &layout.tags_from {
            // A tag that is absent from one document is no fault of the document.
            if let Some(leaf) = self.find(path).filter(|leaf| !leaf.is_null()) {
                tags.push((last_name(path), scalar("tags_from", path, leaf)?));
            }
        }
        let timestamp = match (&layout.timestamp, layout.timestamp_format) {
            (Some(path), Some(format)) => Some(self.timestamp(path, format)?),
            _ => None,
        };
        let fields = fields(layout, habits, "", self.element)?;
        if fields.is_empty() {
            return Err(JsonError::NoFields);
        }
        Ok(Document { device, measurement, tags, fields, timestamp })
    }

    fn find(self, path: &JsonPath) -> Option<&'j Json> {
        find(self.element, path).or_else(|| find(self.document?, path))
    }

    fn selected(self, key: &'static str, selector: Option<&Selector>) -> Result<Option<String>, JsonError> {
        match selector {
            None => Ok(None),
            Some(Selector::Fixed(text)) => Ok(Some(text.clone())),
            Some(Selector::Path(path)) => {
                let leaf =
                    self.find(path).ok_or_else(|| JsonError::Missing { key, path: path.to_string() })?;
                scalar(key, path, leaf).map(Some)
            }
        }
    }

    fn timestamp(self, path: &JsonPath, format: TimestampFormat) -> Result<i64, JsonError> {
        let key = "timestamp";
        let leaf = self.find(path).ok_or_else(|| JsonError::Missing { key, path: path.to_string() })?;
        let text = scalar(key, path, leaf)?;
        super::time::parse(&text, format).ok_or_else(|| JsonError::BadTimestamp {
            text: text.chars().take(64).collect(),
            format: super::time::name(format),
        })
    }
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
    habits: &'c Habits,
    claimed: Vec<&'c [Step]>,
    fields: Vec<(String, Value)>,
    name: String,
}

impl Walk<'_> {
    fn visit<'j>(&mut self, json: &'j Json, path: &mut Vec<At<'j>>) -> Result<(), JsonError> {
        match json {
            Json::Null => Ok(()),
            Json::Object(members) => members
                .iter()
                .filter(|(key, _)| !self.habits.skipped.contains(&key.as_str()))
                .try_for_each(|(key, member)| self.descend(At::Key(key), key, member, path)),
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
        let name = if self.name.is_empty() { value::DEFAULT_FIELD } else { self.name.as_str() };
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
            Json::String(text) => match self.text(name, text)? {
                Some(value) => value,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if self.fields.len() == MAX_FIELDS {
            return Err(JsonError::TooManyFields);
        }
        let name = name.to_owned();
        self.fields.push((name, value));
        Ok(())
    }

    /// What text that nobody lists stands for, if for anything.
    fn text(&self, name: &str, text: &str) -> Result<Option<Value>, JsonError> {
        if self.habits.texts.contains(&name) {
            return Ok((!text.is_empty()).then(|| Value::Text(text.to_owned())));
        }
        if self.habits.words
            && let Some(truth) = value::truth(text)
        {
            return Ok(Some(Value::Boolean(truth)));
        }
        let is_number = match &self.layout.numbers_in_text {
            NumbersInText::Never => false,
            NumbersInText::Always => true,
            NumbersInText::Of(names) => names.iter().any(|listed| listed == name),
        };
        if !is_number {
            return Ok(None);
        }
        let text = text.trim();
        let number = value::number(text);
        if !self.layout.integer_fields.iter().any(|listed| listed == name) {
            return Ok(number.map(Value::Float));
        }
        match value::integer(text) {
            // As the same number without quotes: it would be missed, while other text is none.
            None if number.is_some() => Err(JsonError::NotInteger(name.to_owned())),
            integer => Ok(integer.map(Value::Integer)),
        }
    }
}

/// The integer that a number stands for: `21` and `21.0` both are 21.
fn integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| value::whole(number.as_f64()?))
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
    name.unwrap_or_else(|| value::DEFAULT_FIELD.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Format;

    fn layout() -> Layout {
        let path = |text| JsonPath::parse(text).unwrap();
        Layout {
            timestamp: Some(path("$.time")),
            timestamp_format: Some(TimestampFormat::Milliseconds),
            integer_fields: vec!["count".to_owned()],
            text_fields: vec!["state".to_owned()],
            tags_from: vec![path("$.meta.site")],
            ..Layout::of(Format::Json)
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

    #[test]
    fn text_that_is_a_number_is_one_where_that_is_configured() {
        let text = r#"{"time":1,"a":"21.5","b":" 7 ","c":"n/a","state":"5","count":"8","d":"nan","e":""}"#;
        let float = |name: &str, value| (name.to_owned(), Value::Float(value));
        let named = |numbers_in_text| {
            let layout = Layout { numbers_in_text, ..layout() };
            parse(&layout, text.as_bytes()).unwrap().fields
        };
        let state = ("state".to_owned(), Value::Text("5".to_owned()));
        assert_eq!(named(NumbersInText::Never), std::slice::from_ref(&state));
        let count = ("count".to_owned(), Value::Integer(8));
        assert_eq!(named(NumbersInText::Always), [float("a", 21.5), float("b", 7.0), count, state.clone()]);
        assert_eq!(named(NumbersInText::Of(vec!["b".to_owned()])), [float("b", 7.0), state]);
    }

    #[test]
    fn text_that_is_a_number_and_no_integer_is_refused_where_an_integer_is_listed() {
        let layout = Layout { numbers_in_text: NumbersInText::Always, ..layout() };
        let told = |count: &str| parse(&layout, format!(r#"{{"time":1,"count":{count},"t":1}}"#).as_bytes());
        for count in ["1.5", r#""1.5""#, r#"" -2.5 ""#, r#""9223372036854775808""#] {
            assert_eq!(told(count), Err(JsonError::NotInteger("count".to_owned())), "{count}");
        }
        assert_eq!(told(r#""7.0""#).unwrap().fields[0], ("count".to_owned(), Value::Integer(7)));
        assert_eq!(
            told(r#""n/a""#).unwrap().fields,
            [("t".to_owned(), Value::Float(1.0))],
            "it is no number"
        );
    }

    #[test]
    fn each_element_of_an_array_is_a_row() {
        let json: Json = serde_json::from_str(
            r#"{"time":5,"meta":{"site":"north"},"battery":3.3,
                "list":[{"time":1,"t":1},{"t":2,"meta":{"site":"south"}},{"t":"x"},{"time":"noon","t":1},4]}"#,
        )
        .unwrap();
        let layout = layout();
        let path = |text| JsonPath::parse(text).unwrap();
        let told: Vec<String> = readings(&layout, &path("$.list"), &json)
            .unwrap()
            .map(|document| match document {
                Ok(document) => {
                    let (tag, time) = (&document.tags[0].1, document.timestamp.unwrap());
                    format!("{tag} {time} {:?}", document.fields)
                }
                Err(e) => e.to_string(),
            })
            .collect();
        assert_eq!(
            told,
            [
                r#"north 1000000 [("t", Float(1.0))]"#,
                r#"south 5000000 [("t", Float(2.0))]"#,
                &JsonError::NoFields.to_string(),
                "the timestamp noon is not in the format ms",
                r#"north 5000000 [("value", Float(4.0))]"#,
            ]
        );
        let error = |text| readings(&layout, &path(text), &json).err().unwrap().to_string();
        assert_eq!(error("$.nowhere"), "nothing at $.nowhere for `readings`");
        assert_eq!(error("$.meta"), "$.meta for `readings` is no array");
    }

    #[test]
    fn an_array_that_is_too_long_is_cut_and_says_so() {
        let json = Json::Array(vec![serde_json::json!({"time": 1, "t": 1}); MAX_READINGS + 7]);
        let (layout, top) = (layout(), JsonPath { steps: Vec::new() });
        let rows: Vec<_> = readings(&layout, &top, &json).unwrap().collect();
        assert_eq!(rows.len(), MAX_READINGS + 1);
        assert_eq!(rows.last(), Some(&Err(JsonError::TooManyReadings)));
    }

    #[test]
    fn the_habits_of_a_make_are_known() {
        let habits = Habits { words: true, skipped: &["id"], texts: &["action"] };
        let layout = Layout { timestamp: None, ..layout() };
        let json =
            serde_json::json!({"a": {"id": 1, "x": "ON"}, "action": "single", "b": "auto", "state": "off"});
        let document = read_as(&layout, &habits, &json).unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [("a_x", Value::Boolean(true)), ("action", text("single")), ("state", text("off"))];
        assert_eq!(document.fields, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            parse(&layout(), &bytes).ok();
        }

        #[test]
        fn no_document_panics(text in "[\\[\\]{}:,\"a-c0-9.truefalsn ]{0,48}") {
            let layout = Layout { numbers_in_text: NumbersInText::Always, ..layout() };
            if let Ok(json) = syntax(text.as_bytes()) {
                read_as(&layout, &Habits { words: true, ..Habits::default() }, &json).ok();
                for path in ["$.a", "$[0]"] {
                    readings(&layout, &JsonPath::parse(path).unwrap(), &json).map(Iterator::count).ok();
                }
            }
        }
    }
}
