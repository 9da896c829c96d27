//! Reading back with InfluxQL, through `/query`: InfluxDB 1, and the compatible interface of 2 and 3.

use anyhow::Context as _;
use serde_json::{Map, Value};

use super::{GAP_MEASUREMENT, Stored, StoredGap, StoredRow, whole};
use crate::http::{Http, percent_encode};
use crate::truth::NUMBER_FIELD;

/// Reads every row from `since_ns` on that carries a number, in all of `measurements`, and every gap.
///
/// # Errors
/// The server does not answer or answers with an error.
pub fn read(
    http: &Http,
    url: &str,
    database: &str,
    measurements: &[&str],
    since_ns: i64,
) -> anyhow::Result<Stored> {
    let mut stored = Stored { resolution_ns: 1, ..Stored::default() };
    for measurement in measurements {
        for point in select(http, url, database, measurement, since_ns)? {
            stored.rows.extend(point.into_row());
        }
    }
    for point in select(http, url, database, GAP_MEASUREMENT, since_ns)? {
        stored.gaps.push(point.into_gap().context("a gap without boot, from, to or count")?);
    }
    Ok(stored)
}

/// One point: its tags, and its columns, `time` in nanoseconds among them.
#[derive(Debug)]
pub struct Point {
    tags: Map<String, Value>,
    columns: Vec<(String, Value)>,
}

/// `SELECT *` of one measurement from `since_ns` on, series by series.
///
/// # Errors
/// The server does not answer or answers with an error.
pub fn select(
    http: &Http,
    url: &str,
    database: &str,
    measurement: &str,
    since_ns: i64,
) -> anyhow::Result<Vec<Point>> {
    let statement = format!("SELECT * FROM \"{measurement}\" WHERE time >= {since_ns} GROUP BY *");
    let statement = percent_encode(&statement);
    let database = percent_encode(database);
    let query = format!("{url}/query?db={database}&epoch=ns&chunked=true&chunk_size=10000&q={statement}");
    let answer = http.get(&query)?.successful(measurement)?;
    let mut points = Vec::new();
    for document in serde_json::Deserializer::from_str(&answer.body).into_iter::<Value>() {
        let document = document.context("an answer that is no JSON")?;
        for result in array(&document, "results") {
            anyhow::ensure!(result.get("error").is_none(), "{measurement}: {result}");
            for series in array(result, "series") {
                collect(series, &mut points);
            }
        }
    }
    Ok(points)
}

/// The numbers in a field of one device's points in a measurement, each with its nanosecond.
///
/// # Errors
/// The server does not answer or answers with an error.
pub fn numbers(
    http: &Http,
    url: &str,
    database: &str,
    (measurement, field, device): (&str, &str, &str),
) -> anyhow::Result<Vec<(i64, f64)>> {
    let statement = format!("SELECT \"{field}\" FROM \"{measurement}\" WHERE \"device\" = '{device}'");
    let (statement, database) = (percent_encode(&statement), percent_encode(database));
    let query = format!("{url}/query?db={database}&epoch=ns&chunked=true&chunk_size=10000&q={statement}");
    let answer = http.get(&query)?.successful(measurement)?;
    let mut numbers = Vec::new();
    for document in serde_json::Deserializer::from_str(&answer.body).into_iter::<Value>() {
        let document = document.context("an answer that is no JSON")?;
        for result in array(&document, "results") {
            anyhow::ensure!(result.get("error").is_none(), "{measurement}: {result}");
            let rows = array(result, "series").iter().flat_map(|series| array(series, "values"));
            for row in rows {
                let ns = row.get(0).and_then(Value::as_i64);
                let number = row.get(1).and_then(Value::as_f64);
                numbers.push(ns.zip(number).with_context(|| format!("{measurement}: {row}"))?);
            }
        }
    }
    Ok(numbers)
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn collect(series: &Value, points: &mut Vec<Point>) {
    let tags = series.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
    let names: Vec<String> =
        array(series, "columns").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for row in array(series, "values").iter().filter_map(Value::as_array) {
        let columns = names.iter().cloned().zip(row.iter().cloned()).collect();
        points.push(Point { tags: tags.clone(), columns });
    }
}

impl Point {
    /// A tag's value, or the empty text.
    #[must_use]
    pub fn tag(&self, name: &str) -> String {
        self.tags.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// A field's value, or `time`.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Value> {
        self.columns.iter().find(|(column, value)| column == name && !value.is_null()).map(|(_, value)| value)
    }

    fn count(&self, name: &str) -> Option<u64> {
        let value = self.column(name)?;
        value.as_u64().or_else(|| value.as_f64().and_then(whole))
    }

    fn into_row(self) -> Option<StoredRow> {
        let number = self.count(NUMBER_FIELD)?;
        let ns = self.column("time")?.as_i64()?;
        let device = self.tag("device");
        let others = self.columns.into_iter().filter(|(name, _)| name != "time" && name != NUMBER_FIELD);
        let fields = others.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect();
        Some(StoredRow { device, number, ns, fields })
    }

    fn into_gap(self) -> Option<StoredGap> {
        Some(StoredGap {
            device: self.tag("device"),
            cause: self.tag("cause"),
            boot: u32::try_from(self.count("boot")?).ok()?,
            from: self.count("from")?,
            to: self.count("to")?,
            count: self.count("count")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::collect;
    use serde_json::json;

    #[test]
    fn rows_and_gaps_are_read_from_the_answers_columns() {
        let mut points = Vec::new();
        let series = json!({"name": "climate", "tags": {"device": "a b"},
            "columns": ["time", "n", "t", "gone"], "values": [[1_700_000_000_000_000_001_i64, 3, 21.5, null]]});
        collect(&series, &mut points);
        let row = points.remove(0).into_row().expect("a row");
        assert_eq!((row.device.as_str(), row.number, row.ns), ("a b", 3, 1_700_000_000_000_000_001));
        assert_eq!(row.fields, [("t".to_owned(), 21.5)]);
        let gap = json!({"tags": {"device": "a", "cause": "overflow"},
            "columns": ["time", "boot", "from", "to", "count"], "values": [[1, 4_000_000_000_u32, 5, 9, 4]]});
        collect(&gap, &mut points);
        let gap = points.remove(0).into_gap().expect("a gap");
        assert_eq!((gap.boot, gap.from, gap.to, gap.count), (4_000_000_000, 5, 9, 4));
    }
}
