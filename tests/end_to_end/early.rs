//! Rows that come while the gateway's clock is not believed: acknowledged at once, and in the databases at their time, once
//! each, when it is. A virtual machine is never synchronised by the kernel's word, so `max_wait` says when that is.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::{MEASUREMENTS, publish};
use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::readback::influxql::select;
use forebay_tests::readback::{Stored, influxql, sqlite};
use forebay_tests::services::InfluxDb;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::world::{Load, Scratch, World, program};

const LOAD: Load = Load { serial: 2, native: 2, json: 2, period: Duration::from_millis(50) };

/// How long after the start of the test the clock is believed, in seconds: two lives of the gateway before that.
const WAIT_S: i64 = 30;

/// What a message may be on its way through the broker, in nanoseconds.
const ON_ITS_WAY_NS: i64 = 200_000_000;

/// A round of messages without a time of their own: the number of its first, and when all were published.
struct Round {
    first: u64,
    from_ns: i64,
    to_ns: i64,
}

const ROUND: u64 = 20;

/// Two databases, messages without a time, and a clock that is believed in [`WAIT_S`].
fn tables(server: &InfluxDb) -> String {
    let max_wait_s = clock_gettime(ClockId::Boottime).tv_sec + WAIT_S;
    format!(
        "{}[sqlite]\nenabled = true\n[clock]\nmax_wait = \"{max_wait_s}s\"\n\
         [[mqtt.subscribe]]\ntopic = \"plain/{{device}}\"\nformat = \"json\"\nmeasurement = \"plain\"\n",
        Settings::influxdb_1(&server.url(), InfluxDb::DATABASE)
    )
}

fn publish_round(world: &World, first: u64) -> anyhow::Result<Round> {
    let from_ns = wall_ns();
    let message = |n| ("plain/button".to_owned(), format!("{{\"n\":{n}}}").into_bytes());
    publish(world.broker.port, (first..first + ROUND).map(message).collect())?;
    Ok(Round { first, from_ns, to_ns: wall_ns() })
}

/// Lets devices and messages come while the clock is not believed: all are acknowledged, and none is delivered.
fn run_unbelieved(world: &mut World, first: u64) -> anyhow::Result<Round> {
    let (_, acked_before) = world.fleet.progress();
    let round = publish_round(world, first)?;
    world.run(Duration::from_secs(4))?;
    let (_, acked) = world.fleet.progress();
    anyhow::ensure!(acked > acked_before + 200, "only {} rows were acknowledged", acked - acked_before);
    let status = world.gateway.status()?;
    anyhow::ensure!(status["clock_trusted"] == false, "too late: {}", status["clock"]);
    let waiting = status["clock"]["waiting_rows"].as_u64().unwrap_or(0);
    anyhow::ensure!(waiting >= first + ROUND + 100, "{waiting} rows wait for their time");
    let native = |stored: &Stored| stored.rows.iter().filter(|row| row.device.contains("native")).count();
    let stored = sqlite::read(&world.gateway.sqlite_file())?;
    anyhow::ensure!(native(&stored) == 0, "rows were delivered before they had a time");
    Ok(round)
}

/// What the dump of the journal says of its clocks: rows without a time, and fixes.
fn dump(world: &World) -> anyhow::Result<(usize, Vec<Value>)> {
    let mut command = program().bare();
    let output =
        command.args(["journal", "dump", "--json", "--config"]).arg(world.gateway.config()).output()?;
    let entries: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Value>()
        .collect::<Result<_, _>>()?;
    let waits = |entry: &&Value| entry["kind"] == "row" && entry["ns"].is_null();
    let waiting = entries.iter().filter(waits).count();
    Ok((waiting, entries.into_iter().filter(|entry| entry["kind"] == "clock_fix").collect()))
}

/// Times of the fleet's rows, by device and number.
fn times(stored: &Stored) -> BTreeMap<(String, u64), Vec<i64>> {
    let mut times: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for row in stored.rows.iter().filter(|row| row.device != "button") {
        times.entry((row.device.clone(), row.number)).or_default().push(row.ns);
    }
    times
}

#[test]
fn rows_of_an_unbelieved_clock_are_acked_at_once_and_delivered_at_their_time() -> anyhow::Result<()> {
    let scratch = Scratch::new("early")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let mut world = World::start(scratch, LOAD, tables(&server))?;
    let clock = world.gateway.status()?["clock"].clone();
    if clock["wait_s"] == 0 {
        // Where the clock is right from the start, nothing can wait for it.
        eprintln!("NOT TESTED, since this machine's clock is believed: {}", clock["reason"]);
        world.scratch.passed();
        return Ok(());
    }
    let mut rounds = vec![run_unbelieved(&mut world, 0)?];
    world.gateway.kill();
    let (waiting, fixes) = dump(&world)?;
    anyhow::ensure!(waiting > 100 && fixes.is_empty(), "{waiting} rows wait, {fixes:?}");
    world.gateway.resume()?;
    rounds.push(run_unbelieved(&mut world, ROUND)?);
    let believed = || match world.gateway.status() {
        Ok(status) if status["clock"]["estimated_rows"].as_u64() > Some(0) => Ok(status["clock"].clone()),
        Ok(status) => Err(status["clock"].to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let clock = wait_for("the clock's being believed", Duration::from_secs(60), believed)?;
    assert_eq!(clock["waiting_rows"], 0, "{clock}");
    rounds.push(publish_round(&world, 2 * ROUND)?);
    world.run(Duration::from_secs(2))?;
    let log = world.gateway.log_text()?;
    assert_eq!(log.matches("the clock is believed:").count(), 1, "one word in the log");
    world.gateway.kill();
    let (waiting, fixes) = dump(&world)?;
    assert_eq!((waiting, fixes.len(), fixes[0]["estimated"].as_bool()), (0, 1, Some(true)), "{fixes:?}");
    world.gateway.resume()?;

    let since_ns = world.since_ns;
    let (http, url) = (Http::new()?, server.url());
    let mut second = Stored::default();
    let (ledger, scratch) = world.finish(|gateway| {
        second = sqlite::read(&gateway.sqlite_file())?;
        influxql::read(&http, &url, InfluxDb::DATABASE, &MEASUREMENTS, since_ns)
    })?;
    let total = &ledger.total;
    assert_eq!((total.lost, total.duplicates, total.retimed, total.gaps), (0, 0, 0, 0), "{total:?}");
    assert!(total.complete(), "{total:?}");
    let first = influxql::read(&http, &url, InfluxDb::DATABASE, &MEASUREMENTS, since_ns)?;
    assert!(times(&first) == times(&second), "both databases have the same times");
    assert_plain(&select(&http, &url, InfluxDb::DATABASE, "plain", since_ns)?, &rounds)?;
    scratch.passed();
    Ok(())
}

/// Each message is stored once, with the time of its receipt.
fn assert_plain(points: &[influxql::Point], rounds: &[Round]) -> anyhow::Result<()> {
    for Round { first, from_ns, to_ns } in rounds {
        for number in *first..first + ROUND {
            let of =
                |point: &&influxql::Point| point.column("n").and_then(Value::as_f64) == Some(number as f64);
            let found: Vec<i64> =
                points.iter().filter(of).filter_map(|point| point.column("time")?.as_i64()).collect();
            let range = *from_ns..to_ns + ON_ITS_WAY_NS;
            anyhow::ensure!(
                found.len() == 1 && range.contains(&found[0]),
                "message {number} was sent in {range:?} and is stored at {found:?}"
            );
        }
    }
    Ok(())
}
