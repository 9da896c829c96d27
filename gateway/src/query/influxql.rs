//! Reading databases in InfluxQL over `/query`: the one language that InfluxDB 1, 2 and 3 share.
//!
//! *Constraints.* Names are quoted, so that none of them ends its text; every answer is bounded in bytes and in time.
//!
//! *Operation.* A measurement is asked for its fields with their types, and for its tags: the answers to `SELECT` do not tell
//! them apart, and write an integer as a float without a fraction. Points of all its series come in the order of time, up to
//! a limit; `GROUP BY time` brings them together. In version 2 a bucket has the name of the database that it is mapped to.
//!
//! *Failure.* What keeps an answer from being complete is told in words; what was there before it is still shown.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use serde_json::Value as Scalar;

use super::request::{Aggregate, Query, Windows};
use crate::record::{SeriesKey, Value};
use crate::sink::field_type::FieldType;

pub(crate) use client::{Columns, Influxql, cells};

mod client;

/// Most cells that are asked for at once, columns times rows.
const CELLS_MAX: usize = 250_000;
/// Most measurements that a query without one goes through.
const MEASUREMENTS_MAX: usize = 1_000;

/// A conversation with the database, for one query.
pub(crate) struct Conversation<'a> {
    database: &'a Influxql,
    runtime: Option<tokio::runtime::Runtime>,
    deadline: Instant,
}

/// What a measurement consists of.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) name: String,
    /// Fields that are asked for, with their types.
    fields: Vec<(String, FieldType)>,
    tags: Vec<String>,
}

/// A point, or a window, as the database has it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ns: i64,
    pub(super) series: SeriesKey,
    pub(super) fields: Vec<(String, Value)>,
}

impl Influxql {
    /// Begins to ask, until a deadline.
    ///
    /// # Errors
    /// The system gives no event loop.
    pub(crate) fn talk(&self, deadline: Instant) -> Result<Conversation<'_>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error: io::Error| format!("no event loop can be had: {error}"))?;
        Ok(Conversation { database: self, runtime: Some(runtime), deadline })
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        // A name lookup that hangs must not hold up the answer.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Conversation<'_> {
    /// The measurements that may have what is asked for, with the fields and tags that they have. Those with a field of
    /// several types, of which InfluxQL shows one, are named in `notes`.
    ///
    /// # Errors
    /// What keeps the database from answering.
    pub(super) fn measurements(
        &self,
        query: &Query,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Measurement>, String> {
        let names = match &query.measurement {
            Some(name) => vec![name.clone()],
            None => self.names(query, notes)?,
        };
        let mut measurements = Vec::new();
        for name in names {
            let from = quoted(&name, '"');
            let fields = self.ask(&format!("SHOW FIELD KEYS FROM {from}"))?;
            let mut kinds: BTreeMap<String, FieldType> = BTreeMap::new();
            for [field, kind] in cells(&fields) {
                let wanted = query.field.as_deref().is_none_or(|wanted| wanted == field);
                let Some(kind) = FieldType::named(kind).filter(|_| wanted) else { continue };
                let known = kinds.entry(field.to_owned()).or_insert(kind);
                if *known != kind {
                    *known = kind.min(*known);
                    notes.push(format!(
                        "{} has the field {field:?} of {name:?} with several types, and shows one of them",
                        self.database.name
                    ));
                }
            }
            if !kinds.is_empty() {
                let tags = self.ask(&format!("SHOW TAG KEYS FROM {from}"))?;
                let tags = cells(&tags).map(|[tag]| tag.to_owned()).collect();
                measurements.push(Measurement { name, fields: kinds.into_iter().collect(), tags });
            }
        }
        Ok(measurements)
    }

    fn names(&self, query: &Query, notes: &mut Vec<String>) -> Result<Vec<String>, String> {
        let of_device =
            query.device.as_deref().map(|device| format!(" WHERE \"device\" = {}", quoted(device, '\'')));
        let limit = MEASUREMENTS_MAX + 1;
        let parts = self.ask(&format!("SHOW MEASUREMENTS{} LIMIT {limit}", of_device.unwrap_or_default()))?;
        let mut names: Vec<String> = cells(&parts).map(|[name]| name.to_owned()).collect();
        if names.len() > MEASUREMENTS_MAX {
            names.truncate(MEASUREMENTS_MAX);
            notes.push(format!(
                "{} has more than {MEASUREMENTS_MAX} measurements; ask for one of them",
                self.database.name
            ));
        }
        Ok(names)
    }

    /// The points of a measurement from `from_ns` to before `to_ns`, oldest first and about `limit` of them. If that is not
    /// all, the instant from which on they are not complete.
    ///
    /// # Errors
    /// What keeps the database from answering.
    pub(super) fn points(
        &self,
        of: &Measurement,
        query: &Query,
        (from_ns, to_ns): (i64, i64),
        limit: usize,
    ) -> Result<(Vec<Found>, Option<i64>), String> {
        let columns = of.fields.len() + of.tags.len();
        let limit = limit.min(CELLS_MAX / (columns + 1)).max(2);
        let mut wanted: Vec<String> =
            of.fields.iter().map(|(name, _)| format!("{}::field", quoted(name, '"'))).collect();
        wanted.extend(of.tags.iter().map(|name| format!("{}::tag", quoted(name, '"'))));
        let statement = format!(
            "SELECT {} {} ORDER BY time LIMIT {limit}",
            wanted.join(", "),
            from_where(&of.name, query, (from_ns, to_ns))
        );
        let (mut found, mut rows, mut last_ns, mut is_cut) = (Vec::new(), 0, None, false);
        for columns in self.ask_some(&statement)? {
            is_cut |= columns.partial;
            for row in &columns.values {
                let Some((ns, cells)) = row.split_first() else { continue };
                // Also of rows that have nothing to be shown: behind the last of them there may be more.
                rows += 1;
                last_ns = ns.as_i64().or(last_ns);
                let (fields, tags) = cells.split_at(of.fields.len().min(cells.len()));
                let tags =
                    of.tags.iter().zip(tags).filter_map(|(name, tag)| Some((name.as_str(), tag.as_str()?)));
                found.extend(self.found(of, ns, &mut tags.collect(), fields, FieldType::value)?);
            }
        }
        Ok((found, last_ns.filter(|_| rows >= limit || is_cut)))
    }

    /// The windows of a measurement from `from_ns` to before `to_ns`, one row for each window of a series. Fields that are no
    /// numbers have none.
    ///
    /// # Errors
    /// What keeps the database from answering.
    pub(super) fn windows(
        &self,
        of: &Measurement,
        query: &Query,
        windows: Windows,
        (from_ns, to_ns): (i64, i64),
    ) -> Result<Vec<Found>, String> {
        let function = match windows.aggregate {
            Aggregate::Mean => "mean",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
        };
        let is_number =
            |kind: FieldType| matches!(kind, FieldType::Float | FieldType::Integer | FieldType::Unsigned);
        let numbers: Vec<_> = of.fields.iter().filter(|(_, kind)| is_number(*kind)).cloned().collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<String> =
            numbers.iter().map(|(name, _)| format!("{function}({}::field)", quoted(name, '"'))).collect();
        let statement = format!(
            "SELECT {} {} GROUP BY time({}ns), * fill(none)",
            wanted.join(", "),
            from_where(&of.name, query, (from_ns, to_ns)),
            windows.every_ns
        );
        let kind =
            |kind: FieldType| if windows.aggregate == Aggregate::Mean { FieldType::Float } else { kind };
        let of = Measurement { name: of.name.clone(), fields: numbers, tags: Vec::new() };
        let mut found = Vec::new();
        for columns in self.ask(&statement)? {
            for row in &columns.values {
                let Some((ns, cells)) = row.split_first() else { continue };
                let mut tags = columns.tags.iter().map(|(name, tag)| (name.as_str(), tag.as_str())).collect();
                found.extend(
                    self.found(&of, ns, &mut tags, cells, |own, cell| FieldType::value(kind(own), cell))?,
                );
            }
        }
        Ok(found)
    }

    fn found(
        &self,
        of: &Measurement,
        ns: &Scalar,
        tags: &mut Vec<(&str, &str)>,
        cells: &[Scalar],
        value: impl Fn(FieldType, &Scalar) -> Option<Value>,
    ) -> Result<Option<Found>, String> {
        let fields = of.fields.iter().zip(cells);
        let fields: Vec<_> =
            fields.filter_map(|((name, kind), cell)| Some((name.clone(), value(*kind, cell)?))).collect();
        if fields.is_empty() {
            return Ok(None);
        }
        let ns = ns.as_i64().ok_or_else(|| self.database.strange(&format!("a point at {ns}")))?;
        let series =
            SeriesKey::new(&of.name, tags).map_err(|error| self.database.strange(&error.to_string()))?;
        Ok(Some(Found { ns, series, fields }))
    }

    pub(crate) fn ask(&self, statement: &str) -> Result<Vec<Columns>, String> {
        let answer = self.ask_some(statement)?;
        if answer.iter().any(|columns| columns.partial) {
            let name = &self.database.name;
            return Err(format!(
                "{name} may show only some of its rows (max-row-limit); ask for a shorter time"
            ));
        }
        Ok(answer)
    }

    /// The same, where an answer that is not whole is as good as one with a limit.
    fn ask_some(&self, statement: &str) -> Result<Vec<Columns>, String> {
        // It is there until the conversation is over.
        let Some(runtime) = &self.runtime else { return Err(self.database.strange("nothing")) };
        runtime.block_on(self.database.ask(statement, self.deadline))
    }
}

impl FieldType {
    /// A cell as a value of this type; none if it is empty.
    fn value(self, cell: &Scalar) -> Option<Value> {
        Some(match self {
            FieldType::Float => Value::Float(cell.as_f64()?),
            FieldType::Integer => Value::Integer(cell.as_i64()?),
            FieldType::Unsigned => Value::Unsigned(cell.as_u64()?),
            FieldType::Boolean => Value::Boolean(cell.as_bool()?),
            FieldType::Text => Value::Text(cell.as_str()?.to_owned()),
        })
    }
}

fn from_where(measurement: &str, query: &Query, (from_ns, to_ns): (i64, i64)) -> String {
    let device =
        query.device.as_deref().map(|device| format!(" AND \"device\"::tag = {}", quoted(device, '\'')));
    let from = quoted(measurement, '"');
    format!("FROM {from} WHERE time >= {from_ns} AND time < {to_ns}{}", device.unwrap_or_default())
}

/// A name or a text as InfluxQL quotes it.
pub(crate) fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
