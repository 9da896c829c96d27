//! Devices with their latest rows: `/api/v1/devices`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value as Scalar;

use super::Api;
use crate::cache::LatestRow;
use crate::clock;
use crate::query::scalar;

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

/// All devices.
pub(super) async fn devices(State(api): State<Arc<Api>>) -> Json<Vec<Device>> {
    catch_up(&api).await;
    let mut devices: BTreeMap<String, Device> = api.journal.with_state(|state| {
        let device = |device: &crate::journal::state::DeviceState| Device {
            device: device.key.to_string(),
            name: device.name.to_string(),
            native: device.native,
            rows: device.rows,
            latest: BTreeMap::new(),
        };
        state.devices().iter().map(|known| (known.key.to_string(), device(known))).collect()
    });
    for (series, row) in api.latest.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(device) = devices.get_mut(&*row.device) {
            device.latest.insert(series.to_owned(), latest(row));
        }
    }
    Json(devices.into_values().collect())
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
