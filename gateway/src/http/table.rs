//! Devices by the page: `/api/v1/table?filter=&sort=&offset=&limit=`.
//!
//! A page is small however many devices there are: at most [`LIMIT_MAX`] of them, and of each at most [`SERIES_SHOWN_MAX`] series
//! of at most [`FIELDS_SHOWN_MAX`] fields; how many are left out is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value as Scalar;

use super::{Api, devices};
use crate::cache::{Latest, LatestRow};
use crate::journal::State as Journaled;
use crate::journal::state::{DeviceState, Ledger as Account};
use crate::query::scalar;
use crate::record::split_series;
use crate::stats::{Ledger, Native, Stats};

/// Devices on a page unless the question says otherwise, and at most.
const LIMIT: usize = 25;
const LIMIT_MAX: usize = 200;
/// Series of a device, and fields of a series, that are shown at most.
const SERIES_SHOWN_MAX: usize = 8;
const FIELDS_SHOWN_MAX: usize = 12;

/// What the reader wants to see.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// Only devices whose name or key contains this, in whatever case.
    filter: String,
    sort: Sort,
    /// Devices before the page.
    offset: usize,
    limit: Option<usize>,
}

/// The order of devices; where it leaves them equal, that of their names.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    #[default]
    Name,
    /// Those that have been silent for longest come first.
    Silent,
    /// Those with most rows.
    Rows,
    /// Those that have lost most rows.
    Lost,
    /// Those of which most rows wait for a database.
    Waiting,
}

/// A page.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    /// Devices that there are.
    total: usize,
    /// Devices that the filter lets through.
    matching: usize,
    /// Devices before the page.
    offset: usize,
    devices: Vec<Device>,
}

/// One device.
#[derive(Debug, Serialize)]
struct Device {
    /// Chip id, or the tag `device`.
    device: String,
    /// The tag `device`.
    name: String,
    native: bool,
    /// Rows journaled, over all time.
    rows: u64,
    /// When a row of it came last, in nanoseconds since 1970; none if that was before the gateway's start.
    seen_ns: Option<i64>,
    /// Rows that wait for the database which is furthest behind.
    waiting: u64,
    dead_lettered: u64,
    /// Rows declared lost, by cause; of each cause those of the database that lacks most.
    gaps: BTreeMap<String, u64>,
    clock: Option<Clock>,
    latest: Vec<Series>,
    /// Series that are left out.
    more_series: usize,
}

/// How well a device's clock is known.
#[derive(Debug, Serialize)]
struct Clock {
    error_ns: i64,
    rate_ppb: f64,
}

/// The latest row of a series.
#[derive(Debug, Serialize)]
struct Series {
    measurement: String,
    /// Nanoseconds since 1970 UTC; none while the row waits for the gateway's clock to be believed.
    time_ns: Option<i64>,
    fields: Vec<Field>,
    more_fields: usize,
    /// What its first number was lately, oldest first.
    spark: Vec<f32>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: String,
    value: Scalar,
    /// As the device announces it; none where it does not.
    unit: Option<String>,
}

/// What devices are chosen and ordered by.
struct Known<'a> {
    device: &'a DeviceState,
    ledger: Ledger,
    seen_ns: Option<i64>,
}

/// A page of devices.
pub(super) async fn table(
    State(api): State<Arc<Api>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Table>, (StatusCode, &'static str)> {
    devices::catch_up(&api).await;
    // With thousands of devices this takes milliseconds, in which others are answered.
    let made = tokio::task::spawn_blocking(move || {
        let state = api.journal.with_state(Journaled::clone);
        let latest = api.latest.lock().unwrap_or_else(PoisonError::into_inner);
        Table::of(&state, &latest, &api.stats, &wanted)
    });
    made.await
        .map(Json)
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the table cannot be made; see the log\n"))
}

impl Table {
    fn of(state: &Journaled, latest: &Latest, stats: &Stats, wanted: &Wanted) -> Table {
        let mut seen: HashMap<&str, i64> = HashMap::new();
        for (_, row) in latest.iter() {
            let seen_ns = seen.entry(&row.device).or_default();
            *seen_ns = (*seen_ns).max(row.seen_ns);
        }
        let filter = wanted.filter.to_lowercase();
        let passes = |text: &str| text.to_lowercase().contains(&filter);
        let matching = state.devices().iter().filter(|device| passes(&device.name) || passes(&device.key));
        let mut known: Vec<Known<'_>> = matching
            .map(|device| Known {
                device,
                ledger: worst(state, device),
                seen_ns: seen.get(&*device.key).copied(),
            })
            .collect();
        known.sort_by_cached_key(|known| (wanted.sort.key(known), known.device.name.to_lowercase()));
        let limit = wanted.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
        let page = known.iter().skip(wanted.offset).take(limit);
        let mut rows: HashMap<&str, Vec<(&str, &LatestRow)>> =
            page.clone().map(|known| (&*known.device.key, Vec::new())).collect();
        for (series, row) in latest.iter() {
            if let Some(of_device) = rows.get_mut(&*row.device) {
                of_device.push((series, row));
            }
        }
        let device = |known: &Known<'_>| {
            let native = stats.natives.get(&known.device.key).unwrap_or_default();
            Device::of(known, rows.remove(&*known.device.key).unwrap_or_default(), &native)
        };
        Table {
            total: state.devices().len(),
            matching: known.len(),
            offset: wanted.offset,
            devices: page.map(device).collect(),
        }
    }
}

impl Sort {
    fn key(self, known: &Known<'_>) -> Reverse<u64> {
        Reverse(match self {
            Sort::Name => 0,
            Sort::Silent => known.seen_ns.map_or(u64::MAX, |ns| u64::MAX - ns.max(0).unsigned_abs()),
            Sort::Rows => known.device.rows,
            Sort::Lost => known.ledger.lost(),
            Sort::Waiting => known.ledger.backlog(),
        })
    }
}

impl Device {
    fn of(known: &Known<'_>, mut rows: Vec<(&str, &LatestRow)>, native: &Native) -> Device {
        let Known { device, ledger, seen_ns } = known;
        rows.sort_unstable_by_key(|(series, _)| *series);
        Device {
            device: device.key.to_string(),
            name: device.name.to_string(),
            native: device.native,
            rows: device.rows,
            seen_ns: *seen_ns,
            waiting: ledger.backlog(),
            dead_lettered: ledger.dead_lettered,
            gaps: ledger.gaps.clone(),
            clock: native.clock.map(|clock| Clock { error_ns: clock.error_ns, rate_ppb: clock.rate_ppb }),
            more_series: rows.len().saturating_sub(SERIES_SHOWN_MAX),
            latest: rows
                .iter()
                .take(SERIES_SHOWN_MAX)
                .map(|(series, row)| Series::of(series, row, native))
                .collect(),
        }
    }
}

impl Series {
    fn of(series: &str, row: &LatestRow, native: &Native) -> Series {
        let (measurement, _) = split_series(series);
        let field = |(name, value): &(String, crate::record::Value)| Field {
            unit: native.unit(&measurement, name).map(str::to_owned),
            name: name.clone(),
            value: scalar(value),
        };
        Series {
            time_ns: row.machine.is_none().then_some(row.ns),
            fields: row.fields.iter().take(FIELDS_SHOWN_MAX).map(field).collect(),
            more_fields: row.fields.len().saturating_sub(FIELDS_SHOWN_MAX),
            spark: row.spark.values().collect(),
            measurement: measurement.into_owned(),
        }
    }
}

/// The ledger of a device in all sinks.
fn worst(state: &Journaled, device: &DeviceState) -> Ledger {
    let of = |account| Ledger::of(device, account, None, 0);
    let ledgers: Vec<Ledger> = state.ledgers(device).map(|(_, account)| of(account)).collect();
    Ledger::worst(&ledgers).unwrap_or_else(|| of(Account::default()))
}
