//! A small farm: devices of the firmware on lines and at the broker, sensors that send JSON, InfluxDB, and a browser that
//! shows the gateway's page.

use std::f64::consts::TAU;
use std::time::Duration;

use forebay_tests::clock::wall_ns;
use forebay_tests::device::{RING_BYTES, publish};
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::services::InfluxDb;
use forebay_tests::world::{DRAIN_LIMIT, Load, Scratch, World};
use serde_json::json;

use crate::driver::Browser;

/// A name that a page which builds markup out of text would run.
pub(crate) const HOSTILE: &str = "<img src=x onerror=document.title='run'>";

/// Sensors that send JSON, with the room and the mean temperature of each.
const SENSORS: [(&str, &str, f64); 5] = [
    ("greenhouse", "glass", 24.5),
    ("henhouse", "yard", 14.0),
    ("cellar", "house", 11.5),
    ("roof", "house", 8.0),
    ("pond", "garden", 9.5),
];

/// How far back the sensors' readings go, and how far they are apart.
const HISTORY: Duration = Duration::from_secs(3_600);
const STEP: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) browser: Browser,
    pub(crate) server: InfluxDb,
    pub(crate) world: World,
}

impl Site {
    /// Starts everything and opens the page. The sensors have sent an hour of readings.
    pub(crate) fn start(test: &str) -> anyhow::Result<Site> {
        let site = Site::start_by(test, "", Gateway::resume)?;
        site.open()?;
        Ok(site)
    }

    /// The same, with further `tables` in the configuration of a gateway that `start` starts, and no page yet.
    pub(crate) fn start_by(
        test: &str,
        tables: &str,
        start: impl FnOnce(&mut Gateway) -> anyhow::Result<()>,
    ) -> anyhow::Result<Site> {
        let scratch = Scratch::new(test)?;
        let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
        let browser = Browser::start(&scratch.path().join("browser"))?;
        let tables = format!("{tables}{}", Settings::influxdb_1(&server.url(), InfluxDb::DATABASE));
        let load = Load { serial: 2, native: 2, json: 0, period: Duration::from_millis(100) };
        let world = World::start_by::<RING_BYTES>(scratch, load, tables, start)?;
        let site = Site { browser, server, world };
        let now_ns = wall_ns();
        let steps = HISTORY.as_secs() / STEP.as_secs();
        let times = (0..steps).map(|step| now_ns - (steps - step).cast_signed() * STEP.as_nanos() as i64);
        let messages = times.flat_map(|ns| SENSORS.map(|sensor| reading(sensor, ns))).collect();
        publish(site.world.broker.port, messages)?;
        Ok(site)
    }

    /// Opens the page, and waits until it is live.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        self.browser.open(&self.world.gateway.url("/"))?;
        self.browser.await_true("a live page", "document.body.dataset.link === 'live'")
    }

    /// One reading of each sensor, of now.
    pub(crate) fn readings(&self) -> anyhow::Result<()> {
        publish(self.world.broker.port, SENSORS.map(|sensor| reading(sensor, wall_ns())).into())
    }

    /// A reading of a device that has any name.
    pub(crate) fn reading_of(&self, device: &str) -> anyhow::Result<()> {
        publish(self.world.broker.port, vec![reading((device, "lab", 20.0), wall_ns())])
    }

    /// Two readings of a device, one after the other, as a message says its value.
    pub(crate) fn pair_of(&self, device: &str, values: [f64; 2]) -> anyhow::Result<()> {
        let ns = wall_ns();
        let messages = values.into_iter().zip([ns - STEP.as_nanos() as i64, ns]).map(|(value, ns)| {
            let payload = json!({ "time": ns, "value": value });
            (format!("sensors/{device}/lab"), payload.to_string().into_bytes())
        });
        publish(self.world.broker.port, messages.collect())
    }

    /// A message that cannot be read.
    pub(crate) fn nonsense(&self) -> anyhow::Result<()> {
        publish(self.world.broker.port, vec![("sensors/henhouse/yard".to_owned(), b"{\"time\":".to_vec())])
    }

    /// Ends everything, with the audit of the gateway's ledger against the database.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Site { browser, server, mut world } = self;
        drop(browser);
        world.fleet.drain(None, DRAIN_LIMIT)?;
        world.gateway.close(DRAIN_LIMIT)?;
        world.fleet.end()?;
        let log = std::fs::read_to_string(world.scratch.path().join("gateway/gateway.log"))?;
        anyhow::ensure!(!log.contains("panicked"), "the gateway panicked");
        drop(server);
        world.scratch.passed();
        Ok(())
    }
}

/// What a sensor sends: a slow wave around its mean, with a ripple.
fn reading((device, room, mean): (&str, &str, f64), ns: i64) -> (String, Vec<u8>) {
    let hours = ns as f64 / 3.6e12 % 24.0 + mean;
    let wave = (hours * TAU / 1.3).sin() * 2.2 + (hours * TAU * 9.0).sin() * 0.25;
    let temperature = ((mean + wave) * 100.0).round() / 100.0;
    let humidity = (60.0 - wave * 6.0).round();
    let payload = json!({ "time": ns, "temperature": temperature, "humidity": humidity });
    (format!("sensors/{device}/{room}"), payload.to_string().into_bytes())
}
