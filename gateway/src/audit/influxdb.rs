//! Counting in InfluxDB, by InfluxQL.
//!
//! InfluxQL counts values, not rows, and rows of one measurement may have different fields. `COUNT(*)` tells how often each
//! field is there, which costs the database little. If that is the same for all fields of a group, and the sum of a device what
//! the ledger says, every row had them all: for anything else, as many rows would have to be missing as there are
//! too many. Otherwise the rows are counted: a subquery with `fill(0)` has a number in a numeric field of every row, whichever
//! fields it came with, and that is what is counted. Where a measurement has no numeric field, that of another one serves: the
//! subquery reads both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value as Scalar;

use super::Counts;
use crate::ingest::GAP_MEASUREMENT;
use crate::query::influxql::{Columns, Conversation, Influxql, cells, quoted};

/// Most measurements that are counted.
const MEASUREMENTS_MAX: usize = 10_000;

/// The tags `device` and `gateway` of some points; empty where there is none.
type Group = (String, String);

/// How many points there are of each group in a measurement.
struct Measured {
    rows: BTreeMap<Group, u64>,
    /// Whether each of these numbers is sure.
    is_sure: bool,
}

/// A measurement's fields, and which of them hold numbers.
#[derive(Default)]
struct Fields {
    names: BTreeSet<String>,
    numeric: Option<String>,
    /// One that has values of several types, of which InfluxQL counts one.
    mixed: Option<String>,
}

/// Counts the points of each device. `policy` is the retention policy that is written, if not the default one; `gateway` is
/// this one's own tag, and `expects` says whether a number needs no closer look.
///
/// # Errors
/// What keeps the database from counting.
pub(super) fn count(
    database: &Influxql,
    policy: Option<&str>,
    gateway: &str,
    deadline: Instant,
    expects: &dyn Fn(&str, u64) -> bool,
) -> Result<Counts, String> {
    let conversation = database.talk(deadline)?;
    let fields = fields(&conversation)?;
    let mut measured = BTreeMap::new();
    for name in fields.keys() {
        measured.insert(name, roughly(&conversation, name)?);
    }
    let questionable = questionable(measured.values(), gateway, expects);
    for (name, rough) in &mut measured {
        let asks = |(device, _): &Group| questionable.contains(device);
        let of = &fields[*name];
        if of.names.len() > 1 && (!rough.is_sure || rough.rows.keys().any(asks)) {
            *rough = exactly(&conversation, name, &fields)?;
        }
    }
    let mut counts = Counts::default();
    for ((device, of), rows) in measured.into_values().flat_map(|measured| measured.rows) {
        let counted = counts.devices.entry(device).or_default();
        let sum = if of == gateway { &mut counted.own } else { &mut counted.elsewhere };
        *sum = sum.saturating_add(rows);
    }
    counts.excuse = excuse(&conversation, policy);
    Ok(counts)
}

/// The measurements of rows, with their fields.
fn fields(conversation: &Conversation<'_>) -> Result<BTreeMap<String, Fields>, String> {
    let mut measurements: BTreeMap<String, Fields> = BTreeMap::new();
    for columns in conversation.ask("SHOW FIELD KEYS")? {
        if columns.name == GAP_MEASUREMENT {
            continue;
        }
        let of = measurements.entry(columns.name.clone()).or_default();
        for [field, kind] in cells(std::slice::from_ref(&columns)) {
            if !of.names.insert(field.to_owned()) {
                of.mixed = Some(field.to_owned());
            } else if of.numeric.is_none() && matches!(kind, "float" | "integer" | "unsigned") {
                of.numeric = Some(field.to_owned());
            }
        }
        if measurements.len() > MEASUREMENTS_MAX {
            return Err(format!("it has more than {MEASUREMENTS_MAX} measurements, which are not counted"));
        }
    }
    for of in measurements.values_mut() {
        // What has another type in a part of the points is not filled there.
        of.numeric = of.numeric.take().filter(|name| of.mixed.as_ref() != Some(name));
    }
    Ok(measurements)
}

/// Counts each field.
fn roughly(conversation: &Conversation<'_>, name: &str) -> Result<Measured, String> {
    let from = quoted(name, '"');
    let answer =
        conversation.ask(&format!("SELECT COUNT(*) FROM {from} GROUP BY \"device\", \"gateway\""))?;
    let mut measured = Measured { rows: BTreeMap::new(), is_sure: true };
    for columns in answer {
        let counts = || {
            let cells = columns.values.iter().flat_map(|row| row.iter().skip(1));
            cells.filter_map(Scalar::as_u64)
        };
        let most = counts().max().unwrap_or(0);
        measured.is_sure &= counts().all(|count| count == most);
        measured.rows.insert(group(&columns), most);
    }
    Ok(measured)
}

/// Counts the rows.
fn exactly(
    conversation: &Conversation<'_>,
    name: &str,
    fields: &BTreeMap<String, Fields>,
) -> Result<Measured, String> {
    let of = &fields[name];
    if let Some(field) = &of.mixed {
        return Err(format!(
            "the field {field:?} of {name:?} has values of several types, of which InfluxQL counts one only"
        ));
    }
    let helper = || {
        let others = fields.iter().filter_map(|(other, of)| Some((other, of.numeric.as_ref()?)));
        others.into_iter().find(|(_, field)| !of.names.contains(*field))
    };
    let (field, others) = match &of.numeric {
        Some(field) => (field, String::new()),
        None => {
            let helper = helper().ok_or_else(|| {
                format!("the points of {name:?} have several fields and no number, so that InfluxQL cannot count them")
            })?;
            (helper.1, format!(", {}", quoted(helper.0, '"')))
        }
    };
    let statement = format!(
        "SELECT COUNT({}) FROM (SELECT *::field FROM {}{others} GROUP BY * fill(0)) GROUP BY \"device\", \"gateway\"",
        quoted(field, '"'),
        quoted(name, '"')
    );
    let mut measured = Measured { rows: BTreeMap::new(), is_sure: true };
    for columns in conversation.ask(&statement)?.iter().filter(|columns| columns.name == name) {
        let count = columns.values.first().and_then(|row| row.get(1)).and_then(Scalar::as_u64);
        let count = count.ok_or_else(|| format!("it counts the points of {name:?} as no number"))?;
        measured.rows.insert(group(columns), count);
    }
    Ok(measured)
}

fn group(columns: &Columns) -> Group {
    let tag = |name: &str| columns.tags.get(name).cloned().unwrap_or_default();
    (tag("device"), tag("gateway"))
}

/// Devices of which there are not as many points as expected.
fn questionable<'a>(
    measured: impl Iterator<Item = &'a Measured>,
    gateway: &str,
    expects: &dyn Fn(&str, u64) -> bool,
) -> BTreeSet<String> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for ((device, of), rows) in measured.flat_map(|measured| &measured.rows) {
        if of == gateway {
            *sums.entry(device).or_default() += rows;
        }
    }
    let questionable = sums.into_iter().filter(|(device, rows)| !expects(device, *rows));
    questionable.map(|(device, _)| device.to_owned()).collect()
}

/// Whether a retention may have dropped points: then fewer than expected are no proof of a loss.
fn excuse(conversation: &Conversation<'_>, policy: Option<&str>) -> Option<String> {
    let unknown = |why: &str| {
        Some(format!("how long the database keeps points is not known ({why}); what is missing may be older"))
    };
    let policies = match conversation.ask("SHOW RETENTION POLICIES") {
        Ok(policies) => policies,
        Err(why) => return unknown(&why),
    };
    let mut rows = policies.iter().flat_map(|columns| &columns.values);
    let policy = rows.find(|row| match policy {
        Some(policy) => row.first().and_then(Scalar::as_str) == Some(policy),
        None => row.last().and_then(Scalar::as_bool) == Some(true),
    });
    let Some([Scalar::String(name), Scalar::String(kept), ..]) = policy.map(Vec::as_slice) else {
        return unknown("it names no retention policy");
    };
    let may_drop = kept != "0s";
    may_drop.then(|| {
        format!("the retention policy {name:?} keeps points for {kept}; what is missing may be older")
    })
}
