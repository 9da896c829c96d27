//! The gateway is killed at random moments, and restarted on what it left behind.

use std::time::Duration;

use forebay_tests::closing::Closing;
use forebay_tests::device::MEASUREMENTS;
use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::ledger::Account;
use forebay_tests::proxy::HttpProxy;
use forebay_tests::readback::{influxql, victoria};
use forebay_tests::seed::{Rng, long};
use forebay_tests::services::{InfluxDb, VictoriaMetrics};

use crate::world::{Load, Scratch, World};

/// 8 serial and 50 MQTT devices, together some 1,200 rows a second.
const LOAD: Load = Load { serial: 8, native: 25, json: 25, period: Duration::from_millis(50) };

fn kills() -> u64 {
    if long() { 25 } else { 5 }
}

/// Kills and restarts the gateway; some lives end while they still read what the last one left. Returns how many rows the
/// write requests carried that a kill cut off.
fn kill_repeatedly(world: &mut World, rng: &mut Rng, database: &HttpProxy) -> anyhow::Result<u64> {
    let mut cut_off = 0;
    for kill in 0..kills() {
        world.run(Duration::from_millis(rng.in_range(700..2500)))?;
        world.gateway.kill();
        cut_off += database.take_last_write_rows();
        if kill % 2 == 1 {
            world.gateway.launch()?;
            std::thread::sleep(Duration::from_millis(rng.in_range(0..400)));
            world.gateway.kill();
            cut_off += database.take_last_write_rows();
        }
        world.gateway.resume()?;
    }
    world.run(Duration::from_secs(1))?;
    Ok(cut_off)
}

/// Nothing of what is called lost, wrong or invented happened, and enough did happen.
fn assert_complete(total: &Account) {
    assert!(total.acked > 5_000, "only {} rows were acknowledged", total.acked);
    assert_eq!(total.lost, 0, "acked or undeclared rows are missing");
    assert_eq!(total.retimed, 0, "rows with two timestamps");
    assert_eq!(total.gaps, 0, "no ring was small enough to overflow");
    assert!(total.complete(), "{total:?}");
}

#[test]
fn every_acked_row_is_in_influxdb_once_at_its_time() -> anyhow::Result<()> {
    let mut rng = Rng::announced("kill, InfluxDB")?;
    let scratch = Scratch::new("kill-influxdb")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let database = HttpProxy::start(server.port)?;
    let table = Settings::influxdb_1(&database.url(), InfluxDb::DATABASE);
    let mut world = World::start(scratch, LOAD, table)?;
    kill_repeatedly(&mut world, &mut rng, &database)?;
    let since_ns = world.since_ns;
    let (ledger, scratch) = world.finish(|_| {
        influxql::read(&Http::new()?, &server.url(), InfluxDb::DATABASE, &MEASUREMENTS, since_ns)
    })?;
    assert_complete(&ledger.total);
    assert_eq!(ledger.total.duplicates, 0);
    scratch.passed();
    Ok(())
}

#[test]
fn victoriametrics_with_deduplication_has_one_sample_a_reading() -> anyhow::Result<()> {
    let mut rng = Rng::announced("kill, VictoriaMetrics with deduplication")?;
    let scratch = Scratch::new("kill-victoria-dedup")?;
    let server = VictoriaMetrics::start(&scratch.path().join("victoria"), true)?;
    let database = HttpProxy::start(server.port)?;
    let mut world = World::start(scratch, LOAD, Settings::influxdb_2(&database.url(), "o", "b", None))?;
    world.gateway.closes(Closing::Unverifiable("InfluxQL"));
    kill_repeatedly(&mut world, &mut rng, &database)?;
    let since_ns = world.since_ns;
    let (ledger, scratch) =
        world.finish(|_| victoria::read(&Http::new()?, &server.url(), &MEASUREMENTS, since_ns))?;
    assert_complete(&ledger.total);
    assert_eq!(ledger.total.duplicates, 0);
    scratch.passed();
    Ok(())
}

#[test]
fn without_deduplication_the_surplus_is_what_the_kills_cut_off() -> anyhow::Result<()> {
    let mut rng = Rng::announced("kill, VictoriaMetrics without deduplication")?;
    let scratch = Scratch::new("kill-victoria")?;
    let server = VictoriaMetrics::start(&scratch.path().join("victoria"), false)?;
    let database = HttpProxy::start(server.port)?;
    let mut world = World::start(scratch, LOAD, Settings::influxdb_2(&database.url(), "o", "b", None))?;
    world.gateway.closes(Closing::Unverifiable("InfluxQL"));
    let cut_off = kill_repeatedly(&mut world, &mut rng, &database)?;
    let (since_ns, mqtt) = (world.since_ns, world.mqtt.counter());
    let (ledger, scratch) =
        world.finish(|_| victoria::read(&Http::new()?, &server.url(), &MEASUREMENTS, since_ns))?;
    let (duplicates, redelivered) = (ledger.total.duplicates, mqtt.count());
    eprintln!(
        "{duplicates} duplicates; the kills cut off write requests with {cut_off} rows; \
         the broker delivered {redelivered} messages again"
    );
    assert_complete(&ledger.total);
    assert!(duplicates <= cut_off, "{duplicates} duplicates, and only {cut_off} rows without an answer");
    scratch.passed();
    Ok(())
}
