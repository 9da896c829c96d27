//! The database, the broker and the cable go away under load, and come back.

use std::time::{Duration, Instant};

use forebay_tests::clock::wait_for;
use forebay_tests::device::MEASUREMENTS;
use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::readback::{influxql, sqlite};
use forebay_tests::seed::{Rng, long};
use forebay_tests::services::InfluxDb;

use crate::world::{DRAIN_LIMIT, Load, Scratch, World};

/// The most memory that the gateway may use, whatever the backlog.
const RESIDENT_BYTES_MAX: u64 = 160 << 20;

#[test]
fn a_stopped_database_loses_nothing_and_the_backlog_drains() -> anyhow::Result<()> {
    let scratch = Scratch::new("outage-influxdb")?;
    let outage = Duration::from_secs(if long() { 30 } else { 10 });
    let mut server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let load = Load { serial: 8, native: 10, json: 40, period: Duration::from_millis(25) };
    let table = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let mut world = World::start(scratch, load, table)?;
    world.run(Duration::from_secs(2))?;
    server.stop()?;
    let acked_before = world.fleet.progress().1;
    world.run(outage)?;
    let acked_meanwhile = world.fleet.progress().1 - acked_before;
    let (backlog, _) = world.gateway.backlog()?;
    let usage = world.gateway.usage();
    server.resume()?;
    let back = Instant::now();
    world.fleet.drain(Some(&world.mqtt), DRAIN_LIMIT)?;
    world.gateway.drain(DRAIN_LIMIT)?;
    eprintln!(
        "{outage:?} without a database: {acked_meanwhile} rows acknowledged, {backlog} rows behind, \
         {} MiB resident; drained {:.1} s after its return",
        usage.resident_bytes >> 20,
        back.elapsed().as_secs_f64()
    );
    assert!(acked_meanwhile > 1_000, "intake stopped during the outage");
    assert!(backlog > 1_000);
    assert!(usage.resident_bytes_max < RESIDENT_BYTES_MAX, "{usage:?}");
    let since_ns = world.since_ns;
    let (ledger, scratch) = world.finish(|_| {
        influxql::read(&Http::new()?, &server.url(), InfluxDb::DATABASE, &MEASUREMENTS, since_ns)
    })?;
    assert!(ledger.total.balanced() && ledger.total.gaps == 0, "{:?}", ledger.total);
    scratch.passed();
    Ok(())
}

#[test]
fn a_restarted_broker_loses_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::announced("broker restart")?;
    let scratch = Scratch::new("broker-restart")?;
    let load = Load { serial: 1, native: 10, json: 10, period: Duration::from_millis(25) };
    let mut world = World::start(scratch, load, String::new())?;
    for _ in 0..if long() { 10 } else { 3 } {
        world.run(Duration::from_millis(rng.in_range(800..2000)))?;
        world.broker.stop()?;
        std::thread::sleep(Duration::from_millis(rng.in_range(0..1500)));
        world.broker.resume()?;
    }
    world.run(Duration::from_secs(1))?;
    let (ledger, scratch) = world.finish(|gateway| sqlite::read(&gateway.sqlite_file()))?;
    assert!(ledger.total.balanced() && ledger.total.gaps == 0, "{:?}", ledger.total);
    assert!(ledger.total.stored > 1_000);
    scratch.passed();
    Ok(())
}

#[test]
fn cut_connections_to_the_broker_lose_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::announced("cut connections")?;
    let scratch = Scratch::new("cut-connections")?;
    let load = Load { serial: 0, native: 5, json: 10, period: Duration::from_millis(20) };
    let mut world = World::start(scratch, load, String::new())?;
    let cuts = if long() { 50 } else { 5 };
    for _ in 0..cuts {
        world.run(Duration::from_millis(rng.in_range(300..1200)))?;
        let before = world.mqtt.connections();
        world.mqtt.cut();
        std::thread::sleep(Duration::from_millis(rng.in_range(0..800)));
        world.mqtt.mend();
        wait_for("the gateway's return after a cut", Duration::from_secs(30), || {
            match world.mqtt.connections() {
                connections if connections > before => Ok(()),
                connections => Err(format!("{connections} connections so far")),
            }
        })?;
    }
    world.run(Duration::from_secs(1))?;
    let (ledger, scratch) = world.finish(|gateway| sqlite::read(&gateway.sqlite_file()))?;
    assert!(ledger.total.balanced() && ledger.total.gaps == 0, "{:?}", ledger.total);
    scratch.passed();
    Ok(())
}

#[test]
fn what_a_full_ring_had_to_evict_is_a_gap_in_the_store() -> anyhow::Result<()> {
    let scratch = Scratch::new("overflow")?;
    let load = Load { serial: 2, native: 0, json: 0, period: Duration::from_millis(5) };
    let mut world = World::with_ring::<2048>(scratch, load, String::new())?;
    for _ in 0..2 {
        world.run(Duration::from_secs(1))?;
        if let Some(device) = world.fleet.serial(0) {
            device.unplug();
        }
        world.run(Duration::from_secs(2))?;
        if let Some(device) = world.fleet.serial(0) {
            device.plug_in();
        }
    }
    world.run(Duration::from_secs(2))?;
    let (ledger, scratch) = world.finish(|gateway| sqlite::read(&gateway.sqlite_file()))?;
    assert!(ledger.total.balanced(), "{:?}", ledger.total);
    assert!(ledger.devices["serial-0"].gaps > 100, "the ring did not overflow");
    assert_eq!(ledger.devices["serial-1"].gaps, 0, "the other device lost nothing");
    scratch.passed();
    Ok(())
}
