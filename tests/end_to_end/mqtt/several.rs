//! Several brokers in one gateway: what happens to one of them is no matter of the other's.

use std::time::Duration;

use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::mqtt::{Message, publish};
use forebay_tests::proxy::MqttTap;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};

use super::site::{DRAIN_LIMIT, SERVED_LIMIT, broker_table, subscription};
use crate::world::{Scratch, program};

/// Messages that a broker is given at a time.
const MESSAGES: u64 = 500;

/// How soon a broker must be served while another one is gone.
const UNHARMED_LIMIT: Duration = Duration::from_secs(15);

/// A broker with its tap, and how many messages it was given.
struct Side {
    name: &'static str,
    broker: Mosquitto,
    tap: MqttTap,
    published: u64,
}

impl Side {
    fn start(name: &'static str, scratch: &Scratch) -> anyhow::Result<Side> {
        let broker = Mosquitto::start(&scratch.path().join(name))?;
        let tap = MqttTap::start(broker.port)?;
        Ok(Side { name, broker, tap, published: 0 })
    }

    fn table(&self) -> String {
        broker_table(&self.tap.url(), &format!("forebay-{}", self.name), 3) + &subscription(self.name)
    }

    /// Publishes some more and waits until the gateway has acknowledged all of it.
    fn serve(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.publish()?;
        self.await_acks(limit)
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let first = self.published;
        let messages: Vec<Message> = (first..first + MESSAGES)
            .map(|number| {
                Message::new(format!("{}/{}", self.name, number % 10), format!("{{\"n\":{number}}}"))
            })
            .collect();
        self.published += MESSAGES;
        publish(self.broker.port, &messages)
    }

    fn await_acks(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for(&format!("all PUBACKs of {}", self.name), limit, || match self.tap.figures() {
            figures if figures.acked == self.published => Ok(()),
            figures => Err(format!("{} were published: {figures:?}", self.published)),
        })
    }
}

#[test]
fn a_broker_that_is_gone_does_no_harm_to_another_and_is_served_again() -> anyhow::Result<()> {
    let scratch = Scratch::new("several-brokers")?;
    let database = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let (mut steady, mut shaky) = (Side::start("steady", &scratch)?, Side::start("shaky", &scratch)?);
    let tables = Settings::influxdb_1(&database.url(), InfluxDb::DATABASE) + &steady.table() + &shaky.table();
    let settings = Settings { mqtt: None, ports: Vec::new(), tables };
    let mut gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    for side in [&mut steady, &mut shaky] {
        side.tap.wait_for_subscriptions(1, 1, SERVED_LIMIT)?;
        side.serve(SERVED_LIMIT)?;
    }
    for round in 0..2 {
        shaky.broker.stop()?;
        for _ in 0..4 {
            steady.serve(UNHARMED_LIMIT)?;
        }
        let status = gateway.status()?;
        let state = |side: &Side| status["sources"][side.tap.url()]["state"].as_str().map(str::to_owned);
        assert_eq!(state(&steady).as_deref(), Some("connected"), "{}", status["sources"]);
        assert_ne!(state(&shaky).as_deref(), Some("connected"), "{}", status["sources"]);
        shaky.broker.resume()?;
        // The session is still there, so that the broker keeps what it is given before the gateway is back.
        shaky.serve(SERVED_LIMIT)?;
        steady.serve(UNHARMED_LIMIT)?;
        eprintln!("round {round}: {} and {} messages", steady.published, shaky.published);
    }
    assert_eq!(steady.tap.figures().connections, 1, "the other broker's end was none of its business");
    gateway.close(DRAIN_LIMIT)?;
    let http = Http::new()?;
    for side in [&steady, &shaky] {
        let points = influxql::select(&http, &database.url(), InfluxDb::DATABASE, side.name, 0)?;
        let mut numbers: Vec<f64> = points.iter().filter_map(|point| point.column("n")?.as_f64()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        assert_eq!(numbers.len() as u64, side.published, "messages of {}", side.name);
        assert!(points.len() as u64 - side.published <= side.tap.figures().open_at_ends);
    }
    scratch.passed();
    Ok(())
}
