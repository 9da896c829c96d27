//! What is asked: the parameters of `/api/v1/query` and of the commands, read into a [`Query`] that can only be valid.

use serde::Serialize;

use super::{POINTS_DEFAULT, POINTS_MAX};
use crate::config::parse_duration;
use crate::record::MAX_NAME_BYTES;

/// How far back is looked where `from` is left out.
const FROM_DEFAULT_NS: i64 = 3_600_000_000_000;
/// The shortest and the longest window.
const EVERY_NS: std::ops::RangeInclusive<i64> = 1_000_000..=366 * 86_400_000_000_000;
/// The times that every store can name; InfluxDB has none beyond.
const TIMES_NS: std::ops::RangeInclusive<i64> = i64::MIN + 2..=i64::MAX - 1;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only this device, by the value of its tag `device`.
    pub device: Option<String>,
    /// Only this measurement.
    pub measurement: Option<String>,
    /// Only points that have this field, and only this one of their fields.
    pub field: Option<String>,
    /// Nothing before, in nanoseconds since 1970 UTC.
    pub from_ns: i64,
    /// Nothing from here on.
    pub to_ns: i64,
    /// Points in an answer, 1 to [`POINTS_MAX`]; more only where they share one instant.
    pub limit: usize,
    /// Asked for windows instead of points.
    pub windows: Option<Windows>,
}

/// How points are brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Length of a window in nanoseconds; windows begin at multiples of it since 1970 UTC.
    pub every_ns: i64,
    /// What becomes of the values in it.
    pub aggregate: Aggregate,
}

/// What becomes of the numbers of a field in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Their mean, a float.
    Mean,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
}

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{key} {cause}; {cure}")]
pub struct Fault {
    /// The parameter.
    pub key: String,
    /// What is wrong with it.
    pub cause: String,
    /// What to write instead.
    pub cure: String,
}

impl Fault {
    /// A fault of a parameter.
    pub(crate) fn new(key: &str, cause: impl Into<String>, cure: impl Into<String>) -> Fault {
        Fault { key: key.to_owned(), cause: cause.into(), cure: cure.into() }
    }
}

impl Query {
    /// Reads parameters; `now_ns` is what times are relative to where they are left out.
    ///
    /// # Errors
    /// The first parameter that is unknown, given twice or unusable.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        now_ns: i64,
    ) -> Result<Query, Fault> {
        let mut given = Given::default();
        for (key, text) in parameters {
            let slot = given.slot(key).ok_or_else(|| {
                let cure = "use device, measurement, field, from, to, limit, every and aggregate";
                Fault::new(key, "is no parameter of a query", cure)
            })?;
            if slot.replace(text).is_some() {
                return Err(Fault::new(key, "is given twice", "give it once"));
            }
        }
        let windows = windows(given.every, given.aggregate)?;
        let to_given = given.to.map(|text| time("to", text)).transpose()?;
        let from_ns = match given.from {
            Some(text) => time("from", text)?,
            None => to_given.unwrap_or(now_ns).saturating_sub(FROM_DEFAULT_NS).max(*TIMES_NS.start()),
        };
        // Points may be ahead of this machine's clock; a window that is begun belongs to the answer.
        let to_default = || match windows {
            Some(windows) => windows.floor_ns(now_ns).saturating_add(windows.every_ns).min(*TIMES_NS.end()),
            None => *TIMES_NS.end(),
        };
        let to_ns = to_given.unwrap_or_else(to_default);
        if to_given.is_some() && from_ns >= to_ns {
            let cause = "is not before `to`, so that no time is left";
            return Err(Fault::new(
                "from",
                cause,
                "ask for a `to` that is later; it is not part of the answer",
            ));
        }
        Ok(Query {
            device: name("device", given.device)?,
            measurement: name("measurement", given.measurement)?,
            field: name("field", given.field)?,
            from_ns,
            to_ns,
            limit: limit(given.limit)?,
            windows,
        })
    }
}

impl Query {
    /// Whether it wants a field of that name.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.field.as_deref().is_none_or(|field| field == name)
    }
}

impl Windows {
    /// The beginning of the window that holds an instant.
    #[must_use]
    pub fn floor_ns(self, ns: i64) -> i64 {
        ns.saturating_sub(ns.rem_euclid(self.every_ns))
    }
}

#[derive(Default)]
struct Given<'a> {
    device: Option<&'a str>,
    measurement: Option<&'a str>,
    field: Option<&'a str>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    limit: Option<&'a str>,
    every: Option<&'a str>,
    aggregate: Option<&'a str>,
}

impl<'a> Given<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "device" => &mut self.device,
            "measurement" => &mut self.measurement,
            "field" => &mut self.field,
            "from" => &mut self.from,
            "to" => &mut self.to,
            "limit" => &mut self.limit,
            "every" => &mut self.every,
            "aggregate" => &mut self.aggregate,
            _ => return None,
        })
    }
}

fn name(key: &str, text: Option<&str>) -> Result<Option<String>, Fault> {
    match text {
        Some("") => Err(Fault::new(key, "is empty", "name one, or leave the parameter out")),
        Some(text) if text.len() > MAX_NAME_BYTES => {
            let cause = format!("has {} bytes, and no name has more than {MAX_NAME_BYTES}", text.len());
            Err(Fault::new(key, cause, "write the name as `forebay tail` shows it"))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// RFC 3339 with an offset, or a whole number of nanoseconds since 1970 UTC.
fn time(key: &str, text: &str) -> Result<i64, Fault> {
    let of_text = || Some(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond());
    let ns = text.parse::<i128>().ok().or_else(of_text).ok_or_else(|| {
        let cure = "write RFC 3339 such as 2026-01-31T12:00:00Z, or nanoseconds since 1970";
        let hint = if text.contains(' ') { ", and + as %2B in an address" } else { "" };
        Fault::new(key, format!("is {text:?}, which is no time"), format!("{cure}{hint}"))
    })?;
    i64::try_from(ns).ok().filter(|ns| TIMES_NS.contains(ns)).ok_or_else(|| {
        Fault::new(key, format!("is {text:?}, which no store can hold"), "ask for a time from 1678 to 2262")
    })
}

fn limit(text: Option<&str>) -> Result<usize, Fault> {
    let Some(text) = text else { return Ok(POINTS_DEFAULT) };
    text.parse().ok().filter(|limit| (1..=POINTS_MAX).contains(limit)).ok_or_else(|| {
        let cure = format!("write a number from 1 to {POINTS_MAX}, and go on with `next`");
        Fault::new("limit", format!("is {text:?}"), cure)
    })
}

fn windows(every: Option<&str>, aggregate: Option<&str>) -> Result<Option<Windows>, Fault> {
    if aggregate.is_some() && every.is_none() {
        return Err(Fault::new("aggregate", "is given without `every`", "add every=5m, or leave it out"));
    }
    let aggregate = match aggregate {
        None | Some("mean") => Aggregate::Mean,
        Some("min") => Aggregate::Min,
        Some("max") => Aggregate::Max,
        Some(text) => {
            return Err(Fault::new("aggregate", format!("is {text:?}"), "write mean, min or max"));
        }
    };
    let Some(text) = every else {
        return Ok(None);
    };
    let duration = parse_duration(text).map_err(|_| {
        Fault::new("every", format!("is {text:?}, which is no duration"), "write 10s, 5m, 12h or 30d")
    })?;
    let every_ns = i64::try_from(duration.as_nanos()).ok().filter(|every_ns| EVERY_NS.contains(every_ns));
    let every_ns = every_ns
        .ok_or_else(|| Fault::new("every", format!("is {text:?}"), "write a duration from 1ms to 366d"))?;
    Ok(Some(Windows { every_ns, aggregate }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: i64 = 1_767_225_600_000_000_123;

    fn parse(text: &str) -> Result<Query, Fault> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query::parse(pairs.map(|pair| pair.split_once('=').unwrap()), NOW_NS)
    }

    #[test]
    fn what_is_left_out_is_the_last_hour_and_what_is_ahead_of_the_clock() {
        let query = parse("").unwrap();
        assert_eq!((query.from_ns, query.to_ns), (NOW_NS - FROM_DEFAULT_NS, i64::MAX - 1));
        assert_eq!((query.limit, query.windows), (1_000, None));
        let query = parse("every=1h").unwrap();
        let windows = Windows { every_ns: FROM_DEFAULT_NS, aggregate: Aggregate::Mean };
        assert_eq!((query.to_ns, query.windows), (NOW_NS - 123 + FROM_DEFAULT_NS, Some(windows)));
        let query = parse("to=100").unwrap();
        assert_eq!((query.from_ns, query.to_ns), (100 - FROM_DEFAULT_NS, 100));
    }

    #[test]
    fn times_are_rfc_3339_or_nanoseconds() {
        let query = parse("from=2026-01-01T01:00:00.000000001+01:00&to=1767225600000000002").unwrap();
        assert_eq!((query.from_ns, query.to_ns), (1_767_225_600_000_000_001, 1_767_225_600_000_000_002));
    }

    #[test]
    fn faults_name_the_parameter_the_cause_and_the_cure() {
        for (text, key, cause) in [
            ("devise=x", "devise", "no parameter"),
            ("device=a&device=b", "device", "twice"),
            ("device=", "device", "empty"),
            ("from=yesterday", "from", "no time"),
            ("to=9999999999999999999999", "to", "no store"),
            ("from=9223372036854775807", "from", "no store"),
            ("from=5&to=5", "from", "not before"),
            ("limit=0", "limit", "\"0\""),
            ("limit=10001", "limit", "10001"),
            ("every=5", "every", "no duration"),
            ("every=0s", "every", "0s"),
            ("every=1h&aggregate=median", "aggregate", "median"),
            ("aggregate=max", "aggregate", "without"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.key, key, "{text}");
            assert!(fault.cause.contains(cause) && !fault.cure.is_empty(), "{text}: {fault}");
        }
        assert!(parse(&format!("device={}", "x".repeat(1025))).unwrap_err().cause.contains("1025"));
    }

    #[test]
    fn windows_before_1970_begin_at_multiples_too() {
        let windows = Windows { every_ns: 10, aggregate: Aggregate::Max };
        assert_eq!([-11, -10, -1, 0, 9, 10].map(|ns| windows.floor_ns(ns)), [-20, -10, -10, 0, 0, 10]);
    }
}
