//! Devices with their latest rows: `/api/v1/devices`; and one of them with its ledger, by boot too:
//! `/api/v1/devices/{device}`, where the device is its chip id or tag.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value as Scalar;

use super::Api;
use crate::cache::LatestRow;
use crate::clock;
use crate::journal::State as Journaled;
use crate::journal::state::DeviceState;
use crate::query::scalar;
use crate::stats::{Boots, Ledger, Stats};

/// Most series whose latest row is kept in memory; rows of further series are stored, and only not shown here.
pub(super) const SERIES_MAX: usize = 10_000;

/// How often the latest rows are brought up to date, so that a question never waits for a long way to go.
const EVERY: Duration = Duration::from_secs(1);

/// One device.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    /// Chip id, or the tag `device`.
    device: String,
    /// The tag `device`.
    name: String,
    /// Whether it speaks Forebay's own protocol.
    native: bool,
    /// Rows journaled, over all time.
    rows: u64,
    /// The latest row of each of its series since the gateway started, by series.
    latest: BTreeMap<String, Latest>,
}

/// One row.
#[derive(Debug, Serialize)]
struct Latest {
    /// Nanoseconds since 1970 UTC; none while the row waits for the gateway's clock to be believed.
    time_ns: Option<i64>,
    fields: BTreeMap<String, Scalar>,
}

/// One device and what became of its rows.
#[derive(Debug, Serialize)]
struct Account {
    #[serde(flatten)]
    device: Device,
    /// Its ledger in each sink.
    sinks: BTreeMap<String, Ledger>,
    /// The same by boot.
    #[serde(flatten)]
    boots: Boots,
}

/// All devices.
pub(super) async fn devices(State(api): State<Arc<Api>>) -> Json<Vec<Device>> {
    catch_up(&api).await;
    let mut devices: BTreeMap<String, Device> = api.journal.with_state(|state| {
        state.devices().iter().map(|known| (known.key.to_string(), Device::of(known))).collect()
    });
    for (series, row) in api.latest.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(device) = devices.get_mut(&*row.device) {
            device.latest.insert(series.to_owned(), latest(row));
        }
    }
    Json(devices.into_values().collect())
}

/// One device, by its ledger key.
pub(super) async fn device(State(api): State<Arc<Api>>, Path(key): Path<String>) -> Response {
    catch_up(&api).await;
    let account = api.journal.with_state(|state| {
        let device = state.device(&key)?;
        Some(Account::of(state, device, &api.stats))
    });
    let Some(mut account) = account else {
        let cure = "no device has this chip id or tag; /api/v1/devices lists those that there are\n";
        return (StatusCode::NOT_FOUND, cure).into_response();
    };
    for (series, row) in api.latest.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if *row.device == *key {
            account.device.latest.insert(series.to_owned(), latest(row));
        }
    }
    Json(account).into_response()
}

impl Device {
    /// Without its latest rows.
    fn of(device: &DeviceState) -> Device {
        Device {
            device: device.key.to_string(),
            name: device.name.to_string(),
            native: device.native,
            rows: device.rows,
            latest: BTreeMap::new(),
        }
    }
}

impl Account {
    fn of(state: &Journaled, device: &DeviceState, stats: &Stats) -> Account {
        let (told, sinks) = (stats.told(&device.key), stats.sinks());
        let in_flight = |sink: &str| {
            let rows = sinks.get(sink).map(|sink| sink.unconfirmed()).unwrap_or_default();
            rows.into_iter().find(|(of, _)| *of == device.key).map_or(0, |(_, rows)| rows)
        };
        let ledgers = state
            .ledgers(device)
            .map(|(sink, account)| (sink.to_owned(), Ledger::of(device, account, told, in_flight(sink))));
        Account {
            device: Device::of(device),
            sinks: ledgers.collect(),
            boots: Boots::of(state, device, told, in_flight),
        }
    }
}

/// Keeps the latest rows up to date for ever.
pub(super) async fn follow(api: Arc<Api>) {
    loop {
        catch_up(&api).await;
        tokio::time::sleep(EVERY).await;
    }
}

pub(super) async fn catch_up(api: &Arc<Api>) {
    let api = Arc::clone(api);
    let caught_up = tokio::task::spawn_blocking(move || {
        api.latest.lock().unwrap_or_else(PoisonError::into_inner).catch_up(clock::now_ns())
    });
    if let Ok(Err(e)) = caught_up.await {
        tracing::debug!("the latest rows are not up to date: {e}");
    }
}

fn latest(row: &LatestRow) -> Latest {
    let fields = row.fields.iter().map(|(name, value)| (name.clone(), scalar(value)));
    Latest { time_ns: row.machine.is_none().then_some(row.ns), fields: fields.collect() }
}
