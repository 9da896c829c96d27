//! Reading back from VictoriaMetrics: it keeps milliseconds, one series a field, and every duplicate.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

use super::{GAP_MEASUREMENT, Stored, StoredGap, StoredRow, whole};
use crate::clock::wall_ns;
use crate::http::{Http, percent_encode};
use crate::truth::NUMBER_FIELD;

/// Reads every sample from `since_ns` on of the number fields of `measurements`, and every gap.
///
/// # Errors
/// The server does not answer; or some field of a measurement has not as many samples as the row numbers beside it.
pub fn read(http: &Http, url: &str, measurements: &[&str], since_ns: i64) -> anyhow::Result<Stored> {
    http.get(&format!("{url}/internal/force_flush"))?.successful("force_flush")?;
    let mut stored = Stored { resolution_ns: 1_000_000, ..Stored::default() };
    for measurement in measurements {
        let mut samples_by_field: BTreeMap<(String, String), usize> = BTreeMap::new();
        for series in export(http, url, measurement, since_ns)? {
            let field = series.field(measurement);
            *samples_by_field.entry((series.device.clone(), field.to_owned())).or_default() +=
                series.samples.len();
            if field == NUMBER_FIELD {
                for (milliseconds, value) in &series.samples {
                    let number = whole(*value).context("a row number that is no whole number")?;
                    let (device, ns) = (series.device.clone(), milliseconds * 1_000_000);
                    stored.rows.push(StoredRow { device, number, ns, fields: Vec::new() });
                }
            }
        }
        for ((device, field), samples) in &samples_by_field {
            let numbered = samples_by_field.get(&(device.clone(), NUMBER_FIELD.to_owned()));
            anyhow::ensure!(
                numbered == Some(samples),
                "{measurement} of {device}: {samples} samples of {field} beside {numbered:?} row numbers"
            );
        }
    }
    stored.gaps = gaps(&export(http, url, GAP_MEASUREMENT, since_ns)?);
    Ok(stored)
}

/// One exported series.
#[derive(Debug)]
struct Series {
    metric: String,
    device: String,
    cause: String,
    samples: Vec<(i64, f64)>,
}

impl Series {
    fn field<'a>(&'a self, measurement: &str) -> &'a str {
        self.metric.strip_prefix(measurement).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default()
    }
}

fn export(http: &Http, url: &str, measurement: &str, since_ns: i64) -> anyhow::Result<Vec<Series>> {
    // Whole seconds. Without an end, it would be the present second's beginning, and hide the latest samples.
    let (start, end) = (since_ns / 1_000_000_000, wall_ns() / 1_000_000_000 + 60);
    let selector = percent_encode(&format!("{{__name__=~\"{measurement}_.+\"}}"));
    let answer = http
        .get(&format!("{url}/api/v1/export?match[]={selector}&start={start}&end={end}"))?
        .successful(measurement)?;
    answer
        .body
        .lines()
        .map(|line| parse(line).with_context(|| format!("an export line: {line:.200}")))
        .collect()
}

fn parse(line: &str) -> Option<Series> {
    let document: Value = serde_json::from_str(line).ok()?;
    let metric = document.get("metric")?;
    let label = |name: &str| metric.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let times = document.get("timestamps")?.as_array()?.iter().map(Value::as_i64);
    let values = document.get("values")?.as_array()?.iter().map(Value::as_f64);
    let samples = times.zip(values).map(|(time, value)| Some((time?, value?))).collect::<Option<_>>()?;
    Some(Series { metric: label("__name__"), device: label("device"), cause: label("cause"), samples })
}

/// Puts the fields of each gap together again by device, cause and millisecond.
fn gaps(exported: &[Series]) -> Vec<StoredGap> {
    let mut fields: BTreeMap<(&str, &str, i64), BTreeMap<&str, u64>> = BTreeMap::new();
    for series in exported {
        for (time, value) in &series.samples {
            let key = (series.device.as_str(), series.cause.as_str(), *time);
            fields.entry(key).or_default().insert(series.field(GAP_MEASUREMENT), whole(*value).unwrap_or(0));
        }
    }
    let gap = |((device, cause, _), of): ((&str, &str, i64), BTreeMap<&str, u64>)| {
        let field = |name: &str| of.get(name).copied().unwrap_or(0);
        StoredGap {
            device: device.to_owned(),
            cause: cause.to_owned(),
            boot: u32::try_from(field("boot")).unwrap_or(0),
            from: field("from"),
            to: field("to"),
            count: field("count"),
        }
    };
    fields.into_iter().map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::{gaps, parse};

    #[test]
    fn an_exported_line_keeps_every_sample_and_gaps_are_put_together() {
        let line = |field: &str, value: u64| {
            format!(
                "{{\"metric\":{{\"__name__\":\"forebay_gap_{field}\",\"device\":\"d\",\"cause\":\"overflow\"}},\
                 \"values\":[{value}],\"timestamps\":[1700000000123]}}"
            )
        };
        let lines = [line("boot", 9), line("from", 4), line("to", 6), line("count", 2)];
        let series: Vec<_> = lines.iter().map(|line| parse(line).expect("a series")).collect();
        assert_eq!(series[0].samples, [(1_700_000_000_123, 9.0)]);
        let gaps = gaps(&series);
        assert_eq!((gaps.len(), gaps[0].boot, gaps[0].from, gaps[0].to, gaps[0].count), (1, 9, 4, 6, 2));
    }
}
