//! From the metrics of one message to fields, those of one time together, in as many rows as they need.
//!
//! **Values.** Numbers are floats, or integers where `integer_fields` lists them; a time is milliseconds since 1970; text
//! is kept where `text_fields` lists it. Integers are on the wire without their sign, so their type must be known, from
//! the message or from the birth. Left out, as no readings: what is null or no number (NaN, infinity), bytes, data sets
//! and templates, and the metrics with which nodes are controlled.
//! **Failure.** A metric that cannot be read is refused with its reason, and the others are read.

use std::collections::{HashMap, HashSet};

use crate::config::Layout;
use crate::record::{Value, check_name};
use crate::source::payload::value;

use super::births::{NAME_BYTES_MAX, Table};
use super::message::{METRICS_MAX, Metric, Payload, Raw};

/// Nanoseconds of a millisecond.
const MS: i64 = 1_000_000;

/// What the fields of one row may take, so that it fits the journal; what is more is another row of the same time, which
/// databases make one point of. A field that takes more by itself stands alone.
const ROW_BYTES: usize = 4_096;

/// The numbers of the types of integers, and their bits.
const SIGNED: [(u32, u32); 4] = [(1, 8), (2, 16), (3, 32), (4, 64)];
/// UInt8 to UInt64, and DateTime.
const UNSIGNED: [u32; 5] = [5, 6, 7, 8, 13];

/// What the metrics of a message are.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gathered {
    /// Fields by their time.
    pub(super) rows: Vec<Dated>,
    /// How many metrics are refused, and the first reason.
    pub(super) refused: Option<(u64, String)>,
    /// Whether one of them would be known from a birth.
    pub(super) lacks_birth: bool,
}

/// Fields of one time, in nanoseconds since 1970, if it is known.
#[derive(Debug, PartialEq)]
pub(super) struct Dated {
    pub(super) ns: Option<i64>,
    pub(super) fields: Vec<(String, Value)>,
}

/// Reads all metrics. `table` is what the sender's birth told; `sender` names it to people.
pub(super) fn gather(
    layout: &Layout,
    payload: &Payload<'_>,
    table: Option<&Table>,
    sender: &str,
) -> Gathered {
    let mut reader = Reader { layout, payload, table, sender, gathered: Gathered::default() };
    let (mut places, mut seen) = (HashMap::new(), HashSet::new());
    for metric in &payload.metrics {
        match reader.read(metric) {
            Ok(None) => {}
            Ok(Some((name, ns, _))) if !seen.insert((ns, name)) => {
                reader.refuse(1, format!("the metric {name:?} of {sender} is there twice at one time"));
            }
            Ok(Some((name, ns, value))) => {
                let bytes = name.len() + if let Value::Text(text) = &value { text.len() } else { 8 };
                let rows = &mut reader.gathered.rows;
                let (place, filled) = places.entry(ns).or_insert((usize::MAX, ROW_BYTES));
                if *filled + bytes > ROW_BYTES {
                    rows.push(Dated { ns, fields: Vec::new() });
                    (*place, *filled) = (rows.len() - 1, 0);
                }
                *filled += bytes;
                rows[*place].fields.push((name.to_owned(), value));
            }
            Err(reason) => reader.refuse(1, reason),
        }
    }
    if payload.surplus > 0 {
        reader.refuse(
            payload.surplus,
            format!("more than {METRICS_MAX} metrics of {sender} in one message; send smaller ones"),
        );
    }
    reader.gathered
}

/// Nanoseconds of milliseconds since 1970.
pub(super) fn nanoseconds(ms: u64) -> Option<i64> {
    i64::try_from(ms).ok()?.checked_mul(MS)
}

/// A metric's name, its time in nanoseconds since 1970, and its value.
type Told<'a> = (&'a str, Option<i64>, Value);

struct Reader<'a> {
    layout: &'a Layout,
    payload: &'a Payload<'a>,
    table: Option<&'a Table>,
    sender: &'a str,
    gathered: Gathered,
}

impl<'a> Reader<'a> {
    fn refuse(&mut self, count: u64, reason: String) {
        match &mut self.gathered.refused {
            Some((counted, _)) => *counted += count,
            none => *none = Some((count, reason)),
        }
    }

    /// Name, time and value; none if it is no reading.
    fn read(&mut self, metric: &Metric<'a>) -> Result<Option<Told<'a>>, String> {
        let name = self.name(metric)?;
        let is_control =
            name == "bdSeq" || name.starts_with("Node Control/") || name.starts_with("Device Control/");
        let Some(raw) = metric.value.filter(|_| !is_control && !metric.is_null) else { return Ok(None) };
        let Some(value) = self.value(name, metric, raw)? else { return Ok(None) };
        let ns = match metric.timestamp.or(self.payload.timestamp) {
            None => None,
            Some(ms) => Some(nanoseconds(ms).ok_or_else(|| {
                format!("the time of the metric {name:?} of {} does not fit into 64 bits of ns", self.sender)
            })?),
        };
        Ok(Some((name, ns, value)))
    }

    fn name(&mut self, metric: &Metric<'a>) -> Result<&'a str, String> {
        let sender = self.sender;
        let name = match (metric.name.filter(|name| !name.is_empty()), metric.alias) {
            (Some(name), _) => name,
            (None, None) => return Err(format!("a metric of {sender} has neither a name nor an alias")),
            (None, Some(alias)) => match self.table.and_then(|table| table.name(alias)) {
                Some(name) => name,
                None => {
                    self.gathered.lacks_birth = true;
                    let why = match self.table {
                        Some(_) => "its last birth does not have",
                        None => "only a birth could tell, and none that stands was received",
                    };
                    return Err(format!("the alias {alias} of {sender} stands for a metric that {why}"));
                }
            },
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("a metric of {sender} has a name of more than {NAME_BYTES_MAX} bytes"));
        }
        check_name("metric", name).map_err(|e| e.to_string())?;
        Ok(name)
    }

    fn value(&mut self, name: &str, metric: &Metric<'_>, raw: Raw<'_>) -> Result<Option<Value>, String> {
        let is_listed = self.layout.integer_fields.iter().any(|listed| listed == name);
        let not_integer =
            || format!("field {name:?} is listed in `integer_fields` and holds no 64-bit integer");
        let number = match raw {
            Raw::Int(_) | Raw::Long(_) => {
                let integer = self.integer(name, metric, raw)?;
                if is_listed {
                    return i64::try_from(integer)
                        .map(|whole| Some(Value::Integer(whole)))
                        .map_err(|_| not_integer());
                }
                integer as f64
            }
            Raw::Float(float) => f64::from(float),
            Raw::Double(double) => double,
            Raw::Boolean(truth) => return Ok(Some(Value::Boolean(truth))),
            Raw::Text(text) => {
                let is_kept = self.layout.text_fields.iter().any(|listed| listed == name);
                return Ok(is_kept.then(|| Value::Text(text.to_owned())));
            }
            Raw::Other => return Ok(None),
        };
        match (number.is_finite(), is_listed) {
            (false, _) => Ok(None),
            (true, false) => Ok(Some(Value::Float(number))),
            (true, true) => {
                value::whole(number).map(|whole| Some(Value::Integer(whole))).ok_or_else(not_integer)
            }
        }
    }

    /// An integer, with the sign that its type gives it.
    fn integer(&mut self, name: &str, metric: &Metric<'_>, raw: Raw<'_>) -> Result<i128, String> {
        let told = metric.datatype.filter(|datatype| *datatype != 0);
        let sender = self.sender;
        let Some(datatype) = told.or_else(|| self.table.and_then(|table| table.datatype(name))) else {
            self.gathered.lacks_birth = true;
            return Err(format!(
                "the metric {name:?} of {sender} has no data type, neither here nor in a birth"
            ));
        };
        let (unsigned, wide) = match raw {
            Raw::Int(number) => (u64::from(number), i64::from(number as i32)),
            Raw::Long(number) => (number, number as i64),
            _ => (0, 0),
        };
        if UNSIGNED.contains(&datatype) {
            return Ok(i128::from(unsigned));
        }
        let bits = SIGNED.iter().find(|(number, _)| *number == datatype).map(|(_, bits)| *bits);
        let wrong = || {
            format!(
                "the metric {name:?} of {sender} holds an integer that is none of its data type {datatype}"
            )
        };
        signed(wide, bits.ok_or_else(wrong)?).map(i128::from).ok_or_else(wrong)
    }
}

/// An integer of so many bits; a negative one fills the bits of its own type, or all of the wire's.
fn signed(wide: i64, bits: u32) -> Option<i64> {
    let shift = 64 - bits;
    let (lowest, highest) = (i64::MIN >> shift, i64::try_from(u64::MAX >> shift).unwrap_or(i64::MAX));
    (lowest..=highest).contains(&wide).then_some(wide << shift >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Format;

    fn metric(name: &'static str, datatype: u32, raw: Raw<'static>) -> Metric<'static> {
        Metric { name: Some(name), datatype: Some(datatype), value: Some(raw), ..Metric::default() }
    }

    fn gathered(metrics: Vec<Metric<'_>>, table: Option<&Table>) -> Gathered {
        let layout = Layout {
            integer_fields: vec!["n".to_owned()],
            text_fields: vec!["s".to_owned()],
            ..Layout::of(Format::Sparkplug)
        };
        let payload = Payload { timestamp: Some(1_000), metrics, ..Payload::default() };
        gather(&layout, &payload, table, "g/e")
    }

    fn one(metric: Metric<'_>) -> Result<Option<Value>, String> {
        let gathered = gathered(vec![metric], None);
        match gathered.refused {
            Some((_, reason)) => Err(reason),
            None => Ok(gathered.rows.into_iter().flat_map(|row| row.fields).map(|(_, value)| value).next()),
        }
    }

    #[test]
    fn integers_get_their_sign_from_their_type() {
        let float = |datatype, raw| match one(metric("x", datatype, raw)) {
            Ok(Some(Value::Float(float))) => float,
            other => unreachable!("{other:?}"),
        };
        let minus = Raw::Int(u32::MAX - 4);
        assert_eq!((float(1, minus), float(1, Raw::Int(0xfb)), float(1, Raw::Int(5))), (-5.0, -5.0, 5.0));
        assert_eq!((float(2, minus), float(2, Raw::Int(0xfffb)), float(3, minus)), (-5.0, -5.0, -5.0));
        assert_eq!((float(4, Raw::Long(u64::MAX)), float(3, Raw::Long(0xffff_fffb))), (-1.0, -5.0));
        assert_eq!((float(7, minus), float(5, Raw::Int(0xfb))), (4_294_967_291.0, 251.0));
        assert_eq!(float(13, Raw::Long(1_700_000_000_000)), 1_700_000_000_000.0);
        let wrong = "the metric \"x\" of g/e holds an integer that is none of its data type ";
        for (datatype, raw) in
            [(1, Raw::Int(300)), (2, Raw::Int(70_000)), (9, Raw::Int(1)), (99, Raw::Long(1))]
        {
            assert_eq!(one(metric("x", datatype, raw)).unwrap_err(), format!("{wrong}{datatype}"));
        }
        assert!(one(metric("x", 0, Raw::Int(1))).unwrap_err().contains("has no data type"));
    }

    #[test]
    fn listed_fields_are_integers_and_text() {
        let listed = |datatype, raw| one(metric("n", datatype, raw));
        assert_eq!(listed(4, Raw::Long(u64::MAX)), Ok(Some(Value::Integer(-1))));
        assert_eq!(listed(9, Raw::Float(2.0)), Ok(Some(Value::Integer(2))));
        assert!(listed(8, Raw::Long(u64::MAX)).is_err() && listed(10, Raw::Double(0.5)).is_err());
        assert_eq!(one(metric("s", 12, Raw::Text("a"))), Ok(Some(Value::Text("a".to_owned()))));
    }

    #[test]
    fn what_is_no_reading_is_left_out() {
        for metric in [
            metric("x", 12, Raw::Text("a")),
            metric("x", 9, Raw::Float(f32::NAN)),
            metric("x", 10, Raw::Double(f64::INFINITY)),
            metric("x", 17, Raw::Other),
            metric("bdSeq", 4, Raw::Long(1)),
            metric("Node Control/Rebirth", 11, Raw::Boolean(false)),
            Metric { is_null: true, ..metric("x", 9, Raw::Float(1.0)) },
            Metric { value: None, ..metric("x", 9, Raw::Float(1.0)) },
        ] {
            assert_eq!(one(metric), Ok(None));
        }
    }

    #[test]
    fn metrics_of_one_time_are_a_row_and_a_bad_one_costs_no_other() {
        let float = |name, timestamp| Metric { timestamp, ..metric(name, 9, Raw::Float(1.0)) };
        let by_alias = Metric { alias: Some(1), value: Some(Raw::Float(1.0)), ..Metric::default() };
        let metrics = vec![
            float("a", Some(5)),
            float("b", None),
            float("c", Some(5)),
            float("a", Some(5)),
            float("d", Some(u64::MAX)),
            float("e\n", None),
            by_alias,
            Metric::default(),
        ];
        let gathered = gathered(metrics, None);
        let rows: Vec<(Option<i64>, Vec<&str>)> = gathered
            .rows
            .iter()
            .map(|row| (row.ns, row.fields.iter().map(|(name, _)| name.as_str()).collect()))
            .collect();
        assert_eq!(rows, [(Some(5_000_000), vec!["a", "c"]), (Some(1_000_000_000), vec!["b"])]);
        assert!(gathered.lacks_birth);
        let (count, reason) = gathered.refused.unwrap();
        assert_eq!((count, reason.as_str()), (5, "the metric \"a\" of g/e is there twice at one time"));
    }

    #[test]
    fn many_metrics_of_one_time_are_several_rows() {
        let names: Vec<String> = (0..1_000).map(|number| format!("metric {number}")).collect();
        let text = "x".repeat(20_000);
        let mut metrics: Vec<Metric<'_>> = names
            .iter()
            .map(|name| Metric { name: Some(name), value: Some(Raw::Boolean(true)), ..Metric::default() })
            .collect();
        metrics.insert(500, Metric { value: Some(Raw::Text(&text)), ..metric("s", 12, Raw::Other) });
        let gathered = gathered(metrics, None);
        let counts: Vec<usize> = gathered.rows.iter().map(|row| row.fields.len()).collect();
        assert!(counts.len() < 10 && counts.contains(&1), "{counts:?}");
        assert_eq!((counts.iter().sum::<usize>(), gathered.refused), (1_001, None));
    }

    #[test]
    fn a_number_stands_for_what_the_birth_says() {
        let birth = Metric { alias: Some(1), ..metric("t", 2, Raw::Int(0)) };
        let table = Table::of(&Payload { metrics: vec![birth], ..Payload::default() });
        let by = |alias| Metric { alias: Some(alias), value: Some(Raw::Int(0xfffe)), ..Metric::default() };
        let known = gathered(vec![by(1)], Some(&table));
        assert_eq!(known.rows[0].fields, [("t".to_owned(), Value::Float(-2.0))]);
        for (table, reason) in [
            (Some(&table), "the alias 2 of g/e stands for a metric that its last birth does not have"),
            (
                None,
                "the alias 2 of g/e stands for a metric that only a birth could tell, and none that stands was received",
            ),
        ] {
            let unknown = gathered(vec![by(2)], table);
            assert_eq!((unknown.refused, unknown.lacks_birth), (Some((1, reason.to_owned())), true));
        }
    }
}
