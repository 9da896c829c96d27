//! What is answered, as it stands in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Scalar;

use crate::record::{Value, split_series};

/// Points or windows in the order of time, and whether that is all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The sink that was asked beside the journal.
    pub sink: String,
    /// Whether everything is here that is acked, and that the sink still has, from `from` to `next`, or else to `to`.
    pub complete: bool,
    /// Why it is not.
    pub reasons: Vec<String>,
    /// How many points the journal had for it, whether the sink has them by now or not.
    pub dirty: usize,
    /// What was found.
    pub points: Vec<Point>,
    /// What `from` is to be for the following points, if there may be any.
    pub next: Option<String>,
}

/// One point, or one window of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// RFC 3339; of a window, its beginning.
    pub time: String,
    /// The same in nanoseconds since 1970 UTC.
    pub ns: i64,
    /// Its measurement.
    pub measurement: String,
    /// Its tags, `device` among them.
    pub tags: BTreeMap<String, String>,
    /// Its fields. A number with a point or an exponent is a float, any other an integer.
    pub fields: BTreeMap<String, Scalar>,
}

impl Point {
    pub(super) fn new<'a>(
        ns: i64,
        series: &str,
        fields: impl Iterator<Item = (&'a str, &'a Value)>,
    ) -> Point {
        let (measurement, tags) = split_series(series);
        Point {
            time: time(ns),
            ns,
            measurement: measurement.into_owned(),
            tags: tags.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            fields: fields.map(|(name, value)| (name.to_owned(), scalar(value))).collect(),
        }
    }
}

/// A value as JSON has it.
pub(crate) fn scalar(value: &Value) -> Scalar {
    match value {
        Value::Float(value) => Scalar::from(*value),
        Value::Integer(value) => Scalar::from(*value),
        Value::Unsigned(value) => Scalar::from(*value),
        Value::Boolean(value) => Scalar::from(*value),
        Value::Text(value) => Scalar::from(value.as_str()),
    }
}

/// What JSON has, as a value; none of what is no value. A number without a point or an exponent is an integer.
pub(crate) fn typed(scalar: &Scalar) -> Option<Value> {
    Some(match scalar {
        Scalar::Bool(value) => Value::Boolean(*value),
        Scalar::String(value) => Value::Text(value.clone()),
        Scalar::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Integer(value),
            (None, Some(value)) => Value::Unsigned(value),
            (None, None) => Value::Float(number.as_f64()?),
        },
        Scalar::Null | Scalar::Array(_) | Scalar::Object(_) => return None,
    })
}

/// RFC 3339 with as many digits as it takes.
pub(super) fn time(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |time| time.to_string())
}
