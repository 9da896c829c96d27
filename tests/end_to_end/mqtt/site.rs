//! What these tests share: mosquitto, the tap, InfluxDB, and a gateway that subscribes as a test asks.

use std::time::Duration;

use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::proxy::MqttTap;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};

use crate::world::{Scratch, program};

/// The gateway's client id, and the name of its session.
pub(super) const CLIENT_ID: &str = "forebay-under-test";

/// How long the gateway may take until it has subscribed, and until everything that was published is acknowledged.
pub(super) const SERVED_LIMIT: Duration = Duration::from_secs(60);

/// How long the database may take to have everything.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// The parts, the gateway first, so that it ends first.
pub(super) struct Site {
    pub(super) gateway: Gateway,
    pub(super) tap: MqttTap,
    pub(super) broker: Mosquitto,
    pub(super) database: InfluxDb,
    pub(super) http: Http,
    pub(super) scratch: Scratch,
}

/// The table of a broker for foreign devices. The key `version` is left out where it would say the default.
pub(super) fn broker_table(url: &str, client_id: &str, version: u8) -> String {
    let version = if version == 3 { String::new() } else { format!("version = {version}\n") };
    format!("[[mqtt]]\nurl = \"{url}\"\nclient_id = \"{client_id}\"\nnative = false\n{version}")
}

/// The table of a subscription to JSON without a time of its own, below a prefix.
pub(super) fn subscription(prefix: &str) -> String {
    format!(
        "[[mqtt.subscribe]]\ntopic = \"{prefix}/{{device}}\"\nformat = \"json\"\nmeasurement = \"{prefix}\"\n"
    )
}

/// The same for JSON that carries its time in nanoseconds.
pub(super) fn timed_subscription(prefix: &str) -> String {
    subscription(prefix) + "timestamp = \"$.time\"\ntimestamp_format = \"ns\"\n"
}

impl Site {
    /// Starts everything, with a broker of these settings, and returns once the gateway has made all subscriptions.
    pub(super) fn start(
        test: &str,
        broker_lines: &str,
        version: u8,
        subscriptions: &[String],
    ) -> anyhow::Result<Site> {
        let mut site = Site::prepare(test, broker_lines, version, subscriptions)?;
        site.gateway.resume()?;
        site.tap.wait_for_subscriptions(1, subscriptions.len(), SERVED_LIMIT)?;
        Ok(site)
    }

    /// The same, except that the gateway is still to be started.
    pub(super) fn prepare(
        test: &str,
        broker_lines: &str,
        version: u8,
        subscriptions: &[String],
    ) -> anyhow::Result<Site> {
        let scratch = Scratch::new(test)?;
        let broker = Mosquitto::start_with(&scratch.path().join("mosquitto"), broker_lines)?;
        let database = InfluxDb::start(&scratch.path().join("influxdb"))?;
        let tap = MqttTap::start(broker.port)?;
        let tables = Settings::influxdb_1(&database.url(), InfluxDb::DATABASE)
            + &broker_table(&tap.url(), CLIENT_ID, version)
            + &subscriptions.concat();
        let settings = Settings { mqtt: None, ports: Vec::new(), tables };
        let gateway = Gateway::configure(program(), &scratch.path().join("gateway"), &settings)?;
        Ok(Site { gateway, tap, broker, database, http: Http::new()?, scratch })
    }

    /// The numbers in a field of a device's points, each with its nanosecond.
    pub(super) fn numbers(
        &self,
        measurement: &str,
        field: &str,
        device: &str,
    ) -> anyhow::Result<Vec<(i64, f64)>> {
        let what = (measurement, field, device);
        influxql::numbers(&self.http, &self.database.url(), InfluxDb::DATABASE, what)
    }

    /// All points of a measurement.
    pub(super) fn points(&self, measurement: &str) -> anyhow::Result<Vec<influxql::Point>> {
        influxql::select(&self.http, &self.database.url(), InfluxDb::DATABASE, measurement, 0)
    }

    /// Waits until everything that was acknowledged is in the database, and ends the gateway, which must not have panicked.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.gateway.close(DRAIN_LIMIT)?;
        anyhow::ensure!(!self.gateway.log_text()?.contains("panicked"), "the gateway panicked");
        Ok(())
    }
}
