//! SenML in JSON (RFC 8428) as a payload: a pack of records, each of which is one value; records of one device and
//! one time are a row.
//!
//! **Names.** What counts is the resolved name, base name and name together. A URN of a device, `urn:dev:ow:10e2…`
//! (RFC 9039), is the device, and what follows its identifier behind `:`, `/` or `_` is the field. Any other name is
//! divided at its last `:` or `/`. Where the configuration or the topic names the device, all of such a name is the
//! field. `:` and `/` in a field become `_`; a name that ends with the device has the field `value`.
//! **Values.** `v`, with the base value, is a float field, or an integer one where `integer_fields` lists it, `vb` a
//! boolean; `vs` and `vd` are kept, as they stand, where `text_fields` lists the field. A sum `s`, with the base sum,
//! is the field `<name>_sum`. Units and update times have no place in a point and are left out.
//! **Times.** Base time and time together, from 2^28 seconds on, are since 1970; anything below is relative to now,
//! which is the receipt of the message, and a record that lies ahead of it is refused: it is no reading. Both are
//! read as decimal text, never through a sum of floats.
//! **Failure.** A record that cannot be read is refused with its reason, the others become rows. If it sets a base to
//! what is none, those that follow it are refused too, until that base is set anew. A record whose field cannot be
//! stored, or is in the row already, is refused alone: the first of two stays. A pack that is no array, of a version
//! above [`VERSION_MAX`], or with a label that must be understood and is not (one that ends in `_`) is refused as one.
//! Limits: [`MAX_RECORDS`] records a pack, of which the rest is refused as one, and [`super::json::MAX_FIELDS`] fields
//! a row.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::json::MAX_FIELDS;
use super::{fields, time, value};
use crate::config::{Layout, TimestampFormat};
use crate::record::Value;

/// Most records in one pack.
pub const MAX_RECORDS: usize = 10_000;

/// The version of SenML that is understood, and all below.
pub const VERSION_MAX: u64 = 10;

/// Times below are relative: 2^28 seconds.
const ABSOLUTE_NS: i64 = (1 << 28) * 1_000_000_000;

/// Values of one device at one time.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The device, where the names tell.
    pub device: Option<String>,
    /// When.
    pub time: Time,
    /// At least one, as they are stored: left out and renamed by the layout, and none there twice.
    pub fields: Vec<(String, Value)>,
    /// How many records they are from.
    pub records: u64,
}

/// When a record happened. Relative times come first, the oldest of each first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Time {
    /// So many nanoseconds from the receipt; negative for before, never positive.
    Relative(i64),
    /// Nanoseconds since 1970.
    Absolute(i64),
}

/// Why a pack or a record is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SenmlError {
    /// The bytes are not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// The document is something else.
    #[error("no SenML: a pack is an array of records, each of which is an object")]
    NotPack,
    /// Of a version to come.
    #[error("a SenML pack of version {0}; up to {VERSION_MAX} is understood")]
    Version(String),
    /// A label that must be understood.
    #[error("the label {0:?} must be understood, and is not")]
    Label(String),
    /// A label holds a value of another type.
    #[error("`{label}` of the record {name:?} is no {expected}")]
    Type {
        /// The label.
        label: &'static str,
        /// The record's name as far as it is known.
        name: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A record without base name and name.
    #[error("a record has no name")]
    NoName,
    /// A record without value and sum.
    #[error("the record {0:?} has no value")]
    NoValue(String),
    /// A record with more than one value.
    #[error("the record {0:?} has more than one value")]
    TwoValues(String),
    /// The time does not fit.
    #[error("the time of the record {0:?} does not fit into 64 bits of nanoseconds")]
    TimeRange(String),
    /// A relative time in the future.
    #[error(
        "the record {name:?} lies {seconds} s ahead of now, as times below 2^28 s are relative; a reading is of the past"
    )]
    Ahead {
        /// The record.
        name: String,
        /// Whole seconds.
        seconds: i64,
    },
    /// A listed integer field holds something else.
    #[error("field {0:?} is listed in `integer_fields` and holds no 64-bit integer")]
    NotInteger(String),
    /// Value and base value together are beyond all numbers.
    #[error("field {0:?} and its base do not add up to a number")]
    NotFinite(String),
    /// A field that cannot be stored.
    #[error("{0}")]
    Field(String),
    /// A field that another record has given.
    #[error("the field {0:?} is there twice for one device and one time; the first one is kept")]
    Twice(String),
    /// No record became a field.
    #[error("no fields: there is no number or boolean, and text is kept only if listed in `text_fields`")]
    NoFields,
    /// Too many records.
    #[error("more than {MAX_RECORDS} records in one pack; send smaller ones")]
    TooManyRecords,
    /// Too many records of one time.
    #[error("more than {MAX_FIELDS} fields of one device at one time")]
    TooManyFields,
}

/// What became of a pack.
#[derive(Debug, Default, PartialEq)]
pub struct Pack {
    /// Rows by their times.
    pub rows: Vec<Row>,
    /// How many records are refused, and why the first one.
    pub refused: Option<(u64, SenmlError)>,
}

/// Reads a pack. `named` says that the configuration or the topic names the device. Nothing may come of it, if the
/// layout leaves out all fields.
///
/// # Errors
/// Says why the pack is refused as a whole.
pub fn parse(layout: &Layout, named: bool, payload: &[u8]) -> Result<Pack, SenmlError> {
    let json: Json = serde_json::from_slice(payload).map_err(|e| SenmlError::Syntax(e.to_string()))?;
    let records = json.as_array().ok_or(SenmlError::NotPack)?;
    for record in records {
        check(record.as_object().ok_or(SenmlError::NotPack)?)?;
    }
    let mut rows = Rows {
        layout,
        named,
        pack: Pack::default(),
        places: HashMap::new(),
        names: Vec::new(),
        has_fields: false,
    };
    let mut bases = Bases { name: Ok(""), time_ns: Ok(0), value: Ok(None), sum: Ok(None) };
    for (at, record) in records.iter().filter_map(Json::as_object).enumerate() {
        let read =
            if at < MAX_RECORDS { rows.read(&mut bases, record) } else { Err(SenmlError::TooManyRecords) };
        if let Err(error) = read {
            let refused = &mut rows.pack.refused;
            *refused = refused.take().map(|(count, first)| (count + 1, first)).or(Some((1, error)));
        }
        if at == MAX_RECORDS {
            break;
        }
    }
    if !rows.has_fields && rows.pack.refused.is_none() {
        return Err(SenmlError::NoFields);
    }
    rows.pack.rows.sort_by_key(|row| row.time);
    Ok(rows.pack)
}

/// What makes a pack one that cannot be read at all.
fn check(record: &Map<String, Json>) -> Result<(), SenmlError> {
    if let Some(version) =
        record.get("bver").filter(|version| version.as_u64().is_none_or(|v| v > VERSION_MAX))
    {
        return Err(SenmlError::Version(version.to_string().chars().take(64).collect()));
    }
    match record.keys().find(|label| label.ends_with('_')) {
        Some(label) => Err(SenmlError::Label(label.chars().take(64).collect())),
        None => Ok(()),
    }
}

/// What the records so far have set. A base that was set to what is none is unknown until it is set anew.
struct Bases<'j> {
    name: Result<&'j str, SenmlError>,
    time_ns: Result<i64, SenmlError>,
    value: Result<Option<f64>, SenmlError>,
    sum: Result<Option<f64>, SenmlError>,
}

/// What holds for a record.
struct Base<'j> {
    name: &'j str,
    time_ns: i64,
    value: Option<f64>,
    sum: Option<f64>,
}

struct Rows<'c> {
    layout: &'c Layout,
    named: bool,
    pack: Pack,
    /// Where the row of a device and a time is.
    places: HashMap<(Option<String>, Time), usize>,
    /// The names of the fields of each row.
    names: Vec<HashSet<String>>,
    /// Whether a record had a field, be it one that the layout leaves out.
    has_fields: bool,
}

impl Rows<'_> {
    fn read<'j>(&mut self, bases: &mut Bases<'j>, record: &'j Map<String, Json>) -> Result<(), SenmlError> {
        let base = &bases.read(record)?;
        let name = text(record, "n", base.name)?.unwrap_or_default();
        let name = [base.name, name].concat();
        if name.is_empty() {
            return Err(SenmlError::NoName);
        }
        let time_ns = base.time_ns.checked_add(seconds(record, "t", &name)?.unwrap_or(0));
        let time = match time_ns.ok_or_else(|| SenmlError::TimeRange(name.clone()))? {
            ns if ns >= ABSOLUTE_NS => Time::Absolute(ns),
            ns if ns > 0 => return Err(SenmlError::Ahead { name, seconds: ns / 1_000_000_000 }),
            ns => Time::Relative(ns),
        };
        let (device, field) = divide(&name, self.named);
        let label = value_label(record, &name)?;
        let sum = number(record, "s", &name)?;
        let mut fields = Vec::with_capacity(2);
        if let Some(value) = self.value(label, base, record, &name, &field)? {
            fields.push((field.clone(), value));
        } else if let Some(value) = base.value.filter(|_| label.is_none() && sum.is_none()) {
            fields.push((field.clone(), self.numeric(&field, value)?));
        }
        if sum.is_some() || base.sum.is_some() {
            let field = format!("{field}_sum");
            let sum = self.numeric(&field, sum.unwrap_or(0.0) + base.sum.unwrap_or(0.0))?;
            fields.push((field, sum));
        }
        if fields.is_empty() && label.is_none() {
            return Err(SenmlError::NoValue(name));
        }
        self.add(device.map(str::to_owned), time, fields)
    }

    /// The record's own value with its base; `None` if it has none, or text that nobody asked for.
    fn value(
        &self,
        label: Option<&'static str>,
        base: &Base<'_>,
        record: &Map<String, Json>,
        name: &str,
        field: &str,
    ) -> Result<Option<Value>, SenmlError> {
        Ok(match label {
            Some("vb") => {
                let truth = record.get("vb").and_then(Json::as_bool);
                Some(Value::Boolean(truth.ok_or_else(|| wrong("vb", name, "boolean"))?))
            }
            Some(label @ ("vs" | "vd")) => {
                let text = text(record, label, name)?;
                let listed = self.layout.text_fields.iter().any(|listed| listed == field);
                text.filter(|_| listed).map(|text| Value::Text(text.to_owned()))
            }
            Some(_) => {
                let value = number(record, "v", name)?.unwrap_or_default();
                // Without a base, an integer of 64 bits is not put through a float.
                let exact = record.get("v").and_then(Json::as_i64).filter(|_| base.value.is_none());
                Some(match exact.filter(|_| self.is_integer(field)) {
                    Some(integer) => Value::Integer(integer),
                    None => self.numeric(field, value + base.value.unwrap_or(0.0))?,
                })
            }
            None => None,
        })
    }

    fn is_integer(&self, field: &str) -> bool {
        self.layout.integer_fields.iter().any(|listed| listed == field)
    }

    fn numeric(&self, field: &str, number: f64) -> Result<Value, SenmlError> {
        if !number.is_finite() {
            return Err(SenmlError::NotFinite(field.to_owned()));
        }
        if !self.is_integer(field) {
            return Ok(Value::Float(number));
        }
        value::whole(number).map(Value::Integer).ok_or_else(|| SenmlError::NotInteger(field.to_owned()))
    }

    fn add(
        &mut self,
        device: Option<String>,
        time: Time,
        mut fields: Vec<(String, Value)>,
    ) -> Result<(), SenmlError> {
        self.has_fields |= !fields.is_empty();
        fields::settle(self.layout, &mut fields).map_err(SenmlError::Field)?;
        if fields.is_empty() {
            return Ok(());
        }
        let rows = &mut self.pack.rows;
        let place = *self.places.entry((device, time)).or_insert_with_key(|(device, _)| {
            rows.push(Row { device: device.clone(), time, fields: Vec::new(), records: 0 });
            self.names.push(HashSet::new());
            rows.len() - 1
        });
        let (row, names) = (&mut rows[place], &mut self.names[place]);
        if row.fields.len() + fields.len() > MAX_FIELDS {
            return Err(SenmlError::TooManyFields);
        }
        if let Some((name, _)) = fields.iter().find(|(name, _)| names.contains(name)) {
            return Err(SenmlError::Twice(name.clone()));
        }
        names.extend(fields.iter().map(|(name, _)| name.clone()));
        row.fields.extend(fields);
        row.records += 1;
        Ok(())
    }
}

impl<'j> Bases<'j> {
    /// Takes over each base that the record sets, whatever is wrong with the others.
    fn read(&mut self, record: &'j Map<String, Json>) -> Result<Base<'j>, SenmlError> {
        if let Some(name) = text(record, "bn", "").transpose() {
            self.name = name;
        }
        let name = self.name.as_ref().copied().unwrap_or_default();
        if let Some(time_ns) = seconds(record, "bt", name).transpose() {
            self.time_ns = time_ns;
        }
        if let Some(value) = number(record, "bv", name).transpose() {
            self.value = value.map(Some);
        }
        if let Some(sum) = number(record, "bs", name).transpose() {
            self.sum = sum.map(Some);
        }
        Ok(Base {
            name: self.name.clone()?,
            time_ns: self.time_ns.clone()?,
            value: self.value.clone()?,
            sum: self.sum.clone()?,
        })
    }
}

/// Which of the labels of a value a record has.
fn value_label(record: &Map<String, Json>, name: &str) -> Result<Option<&'static str>, SenmlError> {
    let mut labels = ["v", "vb", "vs", "vd"].into_iter().filter(|label| record.contains_key(*label));
    match (labels.next(), labels.next()) {
        (_, Some(_)) => Err(SenmlError::TwoValues(name.to_owned())),
        (label, None) => Ok(label),
    }
}

fn wrong(label: &'static str, name: &str, expected: &'static str) -> SenmlError {
    SenmlError::Type { label, name: shorten(name), expected }
}

fn shorten(name: &str) -> String {
    name.chars().take(128).collect()
}

fn text<'j>(
    record: &'j Map<String, Json>,
    label: &'static str,
    name: &str,
) -> Result<Option<&'j str>, SenmlError> {
    record.get(label).map(|text| text.as_str().ok_or_else(|| wrong(label, name, "text"))).transpose()
}

fn number(record: &Map<String, Json>, label: &'static str, name: &str) -> Result<Option<f64>, SenmlError> {
    record.get(label).map(|number| number.as_f64().ok_or_else(|| wrong(label, name, "number"))).transpose()
}

fn seconds(record: &Map<String, Json>, label: &'static str, name: &str) -> Result<Option<i64>, SenmlError> {
    let Some(time) = record.get(label) else { return Ok(None) };
    let Json::Number(number) = time else { return Err(wrong(label, name, "number")) };
    let ns = time::parse(&number.to_string(), TimestampFormat::Seconds);
    ns.map(Some).ok_or_else(|| SenmlError::TimeRange(shorten(name)))
}

/// A resolved name as device and field.
fn divide(name: &str, named: bool) -> (Option<&str>, String) {
    let separators = [':', '/'];
    let name = name.trim_end_matches(separators);
    let (device, field) = match urn_end(name) {
        Some(end) => (Some(&name[..end]), name.get(end + 1..).unwrap_or_default()),
        None if named => (None, name),
        None => match name.rfind(separators) {
            Some(at) => (Some(&name[..at]), &name[at + 1..]),
            None => (None, name),
        },
    };
    let field = match field.trim_matches(separators) {
        "" => value::DEFAULT_FIELD.to_owned(),
        field => field.replace(separators, "_"),
    };
    (device, field)
}

/// Where the device of a name such as `urn:dev:ow:10e2073a01080063_temperature` ends.
fn urn_end(name: &str) -> Option<usize> {
    let kind = name.strip_prefix("urn:dev:")?;
    let identifier = kind.find(':')? + 1;
    let begin = name.len() - kind.len() + identifier;
    let end = name[begin..].find([':', '/', '_']).map_or(name.len(), |length| begin + length);
    (end > begin).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Format;

    fn layout() -> Layout {
        Layout {
            integer_fields: vec!["count".to_owned()],
            text_fields: vec!["label".to_owned(), "nfc".to_owned()],
            ..Layout::of(Format::Senml)
        }
    }

    fn pack(text: &str) -> Pack {
        parse(&layout(), false, text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Rows as `device at field=value …`.
    fn told(text: &str) -> Vec<String> {
        let pack = pack(text);
        assert_eq!(pack.refused, None, "{text}");
        let row = |row: &Row| {
            let fields: Vec<String> =
                row.fields.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            format!("{} {:?} {}", row.device.as_deref().unwrap_or("-"), row.time, fields.join(" "))
        };
        pack.rows.iter().map(row).collect()
    }

    fn refused(text: &str) -> String {
        let (count, error) = pack(text).refused.unwrap();
        assert_eq!(count, 1, "{text}");
        error.to_string()
    }

    #[test]
    fn records_of_one_device_and_time_are_a_row() {
        let text = r#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
            {"n":"current","t":-5,"v":1.2},{"n":"current","v":1.7}]"#;
        assert_eq!(
            told(text),
            [
                "urn:dev:ow:10e2073a0108006 Absolute(1276020071001000000) current=Float(1.2)",
                "urn:dev:ow:10e2073a0108006 Absolute(1276020076001000000) voltage=Float(120.1) current=Float(1.7)",
            ]
        );
    }

    #[test]
    fn times_below_two_to_the_28_are_relative_to_the_receipt() {
        let text = r#"[{"bn":"a/","n":"t","v":3},{"n":"t","t":-59.5,"v":1},{"n":"t","t":268435456,"v":5}]"#;
        assert_eq!(
            told(text),
            [
                "a Relative(-59500000000) t=Float(1.0)",
                "a Relative(0) t=Float(3.0)",
                "a Absolute(268435456000000000) t=Float(5.0)",
            ]
        );
    }

    #[test]
    fn base_values_and_sums_are_added_and_last_until_they_are_replaced() {
        let text = r#"[{"bn":"a:","bv":20,"bs":100,"n":"x","v":1.5},{"n":"y"},{"n":"z","s":5},{"n":"b","vb":true},
            {"bv":0,"n":"count","v":7}]"#;
        assert_eq!(
            told(text),
            [
                "a Relative(0) x=Float(21.5) x_sum=Float(100.0) y=Float(20.0) y_sum=Float(100.0) z_sum=Float(105.0) \
              b=Boolean(true) b_sum=Float(100.0) count=Integer(7) count_sum=Float(100.0)"
            ]
        );
        assert_eq!(
            told(r#"[{"n":"a:count","v":9007199254740993}]"#),
            ["a Relative(0) count=Integer(9007199254740993)"]
        );
    }

    #[test]
    fn text_and_data_are_kept_where_they_are_listed() {
        let text = r#"[{"bn":"urn:dev:ow:10e2/","n":"label","vs":"Machine Room"},{"n":"nfc","vd":"aGkgCg"},
            {"n":"other","vs":"x"},{"n":"open","vb":false}]"#;
        assert_eq!(
            told(text),
            [
                r#"urn:dev:ow:10e2 Relative(0) label=Text("Machine Room") nfc=Text("aGkgCg") open=Boolean(false)"#
            ]
        );
    }

    #[test]
    fn a_resolved_name_tells_device_and_field_however_it_is_put_together() {
        for (name, device, field, named) in [
            ("urn:dev:ow:10e2073a01080063", Some("urn:dev:ow:10e2073a01080063"), "value", "value"),
            ("urn:dev:ow:10e2:voltage", Some("urn:dev:ow:10e2"), "voltage", "voltage"),
            (
                "urn:dev:mac:0024befffe804ff1/air/temp",
                Some("urn:dev:mac:0024befffe804ff1"),
                "air_temp",
                "air_temp",
            ),
            ("urn:dev:os:32473-1234_temp", Some("urn:dev:os:32473-1234"), "temp", "temp"),
            ("room1/air/temp", Some("room1/air"), "temp", "room1_air_temp"),
            ("plant:pump:", Some("plant"), "pump", "plant_pump"),
            ("temp", None, "temp", "temp"),
            ("urn:dev:ow", Some("urn:dev"), "ow", "urn_dev_ow"),
            ("urn:dev:ow::x", Some("urn:dev:ow:"), "x", "urn_dev_ow__x"),
            (":", None, "value", "value"),
        ] {
            assert_eq!(divide(name, false), (device, field.to_owned()), "{name}");
            assert_eq!(divide(name, true).1, named, "{name}");
        }
        let row = "a Relative(0) t=Float(1.0)";
        assert_eq!(told(r#"[{"n":"a:t","v":1}]"#), [row]);
        assert_eq!(told(r#"[{"bn":"a:","n":"t","v":1}]"#), [row]);
        assert_eq!(told(r#"[{"bn":"a:t","v":1}]"#), [row]);
    }

    #[test]
    fn a_bad_record_is_refused_and_the_others_are_read() {
        let pack = pack(r#"[{"bn":"a:","n":"x","v":"1"},{"n":"y","v":2},{"n":"z"}]"#);
        assert_eq!(pack.rows[0].fields, [("y".to_owned(), Value::Float(2.0))]);
        let (count, error) = pack.refused.unwrap();
        assert_eq!((count, error.to_string().as_str()), (2, "`v` of the record \"a:x\" is no number"));
        for (text, expected) in [
            (r#"[{"v":1}]"#, "a record has no name"),
            (r#"[{"n":"a","v":1,"vb":true}]"#, "the record \"a\" has more than one value"),
            (
                r#"[{"n":"a","v":1,"t":268435455}]"#,
                "the record \"a\" lies 268435455 s ahead of now, as times below 2^28 s are relative; a reading is of the past",
            ),
            (r#"[{"n":"a","u":"V"}]"#, "the record \"a\" has no value"),
            (
                r#"[{"n":"a","v":1,"t":1e30}]"#,
                "the time of the record \"a\" does not fit into 64 bits of nanoseconds",
            ),
            (
                r#"[{"n":"a","v":1,"bt":9e9,"t":9e9}]"#,
                "the time of the record \"a\" does not fit into 64 bits of nanoseconds",
            ),
            (
                r#"[{"n":"a:x","v":1.5e308,"bv":1.5e308}]"#,
                "field \"x\" and its base do not add up to a number",
            ),
            (
                r#"[{"n":"a:count","v":1.5}]"#,
                "field \"count\" is listed in `integer_fields` and holds no 64-bit integer",
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn a_base_that_is_none_refuses_what_follows_until_it_is_set_anew() {
        for (bad, good, reason) in [
            (r#""bt":"1700000000""#, r#""bt":0"#, "`bt` of the record \"a:\" is no number"),
            (r#""bt":1e30"#, r#""bt":0"#, "the time of the record \"a:\" does not fit into"),
            (r#""bv":"1""#, r#""bv":0"#, "`bv` of the record \"a:\" is no number"),
            (r#""bs":null"#, r#""bs":0"#, "`bs` of the record \"a:\" is no number"),
            (r#""bn":7"#, r#""bn":"a:""#, "`bn` of the record \"\" is no text"),
        ] {
            let text = format!(
                r#"[{{"bn":"a:","n":"x","v":1}},{{{bad},"n":"t","v":1}},{{"n":"h","v":2}},{{"n":"b","vb":true}},
                {{{good},"n":"y","v":3}},{{"n":"z","v":4}}]"#
            );
            let pack = pack(&text);
            let fields: Vec<&str> = pack.rows[0].fields.iter().map(|(name, _)| name.as_str()).collect();
            let kept = ["x", "y", "z"];
            assert!(fields.iter().filter(|name| !name.ends_with("_sum")).eq(&kept), "{text}: {fields:?}");
            let (count, error) = pack.refused.unwrap();
            assert_eq!((pack.rows.len(), count), (1, 3), "{text}");
            assert!(error.to_string().starts_with(reason), "{error}");
        }
        // The bases beside it are set all the same.
        let text = r#"[{"bn":3,"bt":1700000000,"bv":10,"n":"x","v":1},{"bn":"a:","n":"y","v":2}]"#;
        let pack = pack(text);
        let fields = vec![("y".to_owned(), Value::Float(12.0))];
        let time = Time::Absolute(1_700_000_000_000_000_000);
        assert_eq!(pack.rows, [Row { device: Some("a".to_owned()), time, fields, records: 1 }]);
        assert_eq!(pack.refused.unwrap().0, 1);
    }

    #[test]
    fn a_record_whose_field_cannot_be_stored_is_refused_alone() {
        let long = "x".repeat(1025);
        for (name, reason) in [
            ("t", "the field \"t\" is there twice for one device and one time"),
            (r"\n", "control character"),
            (r"t\\", "backslash"),
            (r"a\\ b", "backslash before a comma"),
            (&long, "1025 bytes"),
        ] {
            let bad = format!(r#"{{"n":"{name}","v":2}}"#);
            let text = format!(r#"[{{"bn":"a/","n":"t","v":1}},{bad},{{"n":"h","v":3}},{bad}]"#);
            let pack = pack(&text);
            let fields = [("t".to_owned(), Value::Float(1.0)), ("h".to_owned(), Value::Float(3.0))];
            assert_eq!(pack.rows.len(), 1, "{text}");
            assert_eq!((&pack.rows[0].fields[..], pack.rows[0].records), (&fields[..], 2), "{text}");
            let (count, error) = pack.refused.unwrap();
            assert_eq!(count, 2, "{text}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        // A bad record at a time of its own leaves no row, and one with a sum is refused with it.
        let text = r#"[{"bn":"a/","n":"t","s":1},{"n":"t_sum","v":2},{"n":"t","s":2,"v":3},{"n":"\t","v":1,"t":-1}]"#;
        let pack = pack(text);
        assert_eq!(pack.rows.len(), 1);
        assert_eq!(pack.rows[0].fields, [("t_sum".to_owned(), Value::Float(1.0))]);
        assert_eq!(pack.refused.unwrap().0, 3);
    }

    #[test]
    fn what_is_left_out_and_renamed_is_so_before_it_is_compared() {
        let mut layout = layout();
        layout.drop.insert("u".to_owned());
        layout.rename = [("a", "b"), ("b", "c")].map(|(old, new)| (old.to_owned(), new.to_owned())).into();
        let told = |text: &str| parse(&layout, true, text.as_bytes()).unwrap();
        let pack =
            told(r#"[{"n":"a","v":1},{"n":"b","v":2},{"n":"u","v":3},{"n":"u","v":4},{"n":"c","v":5}]"#);
        let fields = [("b".to_owned(), Value::Float(1.0)), ("c".to_owned(), Value::Float(2.0))];
        assert_eq!(pack.rows[0].fields, fields);
        assert_eq!(pack.refused, Some((1, SenmlError::Twice("c".to_owned()))));
        assert_eq!(told(r#"[{"n":"u","v":3}]"#), Pack::default());
    }

    #[test]
    fn what_is_no_pack_is_refused_as_one() {
        let error = |text: &str| parse(&layout(), false, text.as_bytes()).unwrap_err().to_string();
        assert!(error("[").starts_with("not JSON: "));
        assert!(error("{}").starts_with("no SenML: "));
        assert!(error("[1]").starts_with("no SenML: "));
        assert!(error("[]").starts_with("no fields: "));
        assert_eq!(
            error(r#"[{"n":"a","v":1},{"bver":11}]"#),
            "a SenML pack of version 11; up to 10 is understood"
        );
        assert_eq!(
            error(r#"[{"n":"a","v":1,"new_":1}]"#),
            "the label \"new_\" must be understood, and is not"
        );
        let many: Vec<String> = (0..MAX_RECORDS + 5).map(|at| format!(r#"{{"n":"a{at}","v":1}}"#)).collect();
        let pack = pack(&format!("[{}]", many.join(",")));
        assert_eq!(pack.rows[0].fields.len(), MAX_FIELDS);
        assert_eq!(pack.refused.unwrap().0, (MAX_RECORDS - MAX_FIELDS + 1) as u64);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            parse(&layout(), false, &bytes).ok();
        }

        #[test]
        fn no_pack_panics_and_no_field_is_lost(
            records in proptest::collection::vec(("[ab:/_]{0,4}", "[a-c]{0,2}", -1e10f64..1e10, any::<f64>()), 0..8),
        ) {
            let record = |(bn, n, t, v): &(String, String, f64, f64)| serde_json::json!({"bn": bn, "n": n, "t": t, "v": v});
            let text = Json::Array(records.iter().map(record).collect()).to_string();
            if let Ok(pack) = parse(&layout(), false, text.as_bytes()) {
                prop_assert!(pack.rows.iter().all(|row| !row.fields.is_empty()));
                prop_assert!(pack.rows.windows(2).all(|pair| pair[0].time <= pair[1].time));
            }
        }
    }
}
