//! What an ack waits for, `[ack] after`: nothing but room, the disk, or the database.

use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::services::InfluxDb;
use forebay_tests::strace::Strace;
use forebay_tests::world::{Load, Scratch, World};
use serde_json::Value;

use crate::site::{
    Database, REACTION_LIMIT, acked, assert_acks_are_held, assert_complete, await_acks, finish,
};

const LOAD: Load = Load { serial: 2, native: 3, json: 10, period: Duration::from_millis(50) };

/// Longer than an ack from memory can take, and shorter than anybody waits for one.
const STALL: Duration = Duration::from_secs(2);

fn tables(database: &Database, after: &str) -> String {
    let sink = Settings::influxdb_1(&database.link.url(), InfluxDb::DATABASE);
    format!("{sink}[ack]\nafter = \"{after}\"\n")
}

/// Rows that this life of the gateway has acked, and the offset below which everything is durable.
fn acked_and_watermark(gateway: &Gateway) -> anyhow::Result<(u64, u64)> {
    let status = gateway.status()?;
    let sources = status.get("sources").and_then(Value::as_object).context("no sources")?;
    let acked = sources.values().filter_map(|source| source.get("rows_acked")?.as_u64()).sum();
    let watermark = status.pointer("/journal/watermark").and_then(Value::as_u64);
    Ok((acked, watermark.context("no watermark")?))
}

#[test]
fn after_the_database_nothing_is_acked_that_is_not_in_it() -> anyhow::Result<()> {
    let scratch = Scratch::new("acks-after-the-database")?;
    let database = Database::start(&scratch)?;
    let mut world = World::start(scratch, LOAD, tables(&database, "database"))?;
    await_acks(&world, 500, REACTION_LIMIT)?;
    database.link.cut();
    assert_acks_are_held(&mut world)?;
    world.gateway.kill();
    let before = acked(&world)?;
    world.gateway.launch()?;
    world.run(Duration::from_secs(2))?;
    let meanwhile = acked(&world)? - before;
    anyhow::ensure!(
        meanwhile == 0,
        "{meanwhile} rows were acknowledged after a restart without the database"
    );
    let stored = database.read(world.since_ns)?.rows.len() as u64;
    anyhow::ensure!(stored >= before, "{before} rows are acknowledged, and {stored} are in the database");
    database.link.mend();
    await_acks(&world, 500, REACTION_LIMIT)?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 1_000);
    scratch.passed();
    Ok(())
}

#[test]
fn from_memory_acks_do_not_wait_for_the_disk() -> anyhow::Result<()> {
    let scratch = Scratch::new("acks-from-memory")?;
    let database = Database::start(&scratch)?;
    let log = scratch.path().join("calls");
    let mut world = World::start(scratch, LOAD, tables(&database, "memory"))?;
    await_acks(&world, 300, REACTION_LIMIT)?;
    let (_, before) = acked_and_watermark(&world.gateway)?;
    let status = world.gateway.terminate()?;
    anyhow::ensure!(status.success(), "the gateway ended with {status}");
    world.gateway.launch_under(&Strace::delay("fdatasync", STALL, &log))?;
    wait_for("acks of rows that are not durable", REACTION_LIMIT, || {
        let (acked, watermark) = acked_and_watermark(&world.gateway).map_err(|error| format!("{error:#}"))?;
        // Each row is an entry, so no more of this life's rows than that are durable.
        let durable = watermark.saturating_sub(before);
        if acked > durable + 100 { Ok(()) } else { Err(format!("{acked} acked, {durable} durable")) }
    })?;
    let (ledger, scratch) = finish(world, &database)?;
    assert_complete(&ledger.total, 500);
    scratch.passed();
    Ok(())
}
