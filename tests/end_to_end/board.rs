//! Firmware on an emulated chip, end to end: UART interrupts, a cable, the gateway, InfluxDB.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::board::{BOARD_NAME, Board};
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::readback::GAP_MEASUREMENT;
use forebay_tests::readback::influxql::{Point, select};
use forebay_tests::seed::{Rng, long};
use forebay_tests::services::InfluxDb;
use serde_json::Value;

use crate::world::{DRAIN_LIMIT, Scratch, program};

/// How long the board samples.
fn seconds() -> u64 {
    if long() { 60 } else { 20 }
}

/// How long rows may take to arrive after a disturbance.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Kill,
    Replug,
}

const DISTURBANCES: [Disturbance; 5] =
    [Disturbance::Replug, Disturbance::Kill, Disturbance::Replug, Disturbance::Kill, Disturbance::Replug];

/// Lets rows arrive for a while, and then disturbs that, again and again.
fn disturb(rng: &mut Rng, board: &mut Board, gateway: &mut Gateway) -> anyhow::Result<()> {
    for disturbance in DISTURBANCES {
        let confirmed = gateway.backlog()?.1;
        wait_for("the board's rows in the database", RECOVERY_LIMIT, || match gateway.backlog() {
            Ok((_, now)) if now > confirmed => Ok(()),
            Ok((_, now)) => Err(format!("{now} rows before and after")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        let slot = seconds() * 1000 / 20;
        std::thread::sleep(Duration::from_millis(rng.in_range(slot / 4..slot)));
        anyhow::ensure!(board.is_running(), "the board ended before {disturbance:?}");
        match disturbance {
            Disturbance::Kill => {
                gateway.kill();
                std::thread::sleep(Duration::from_millis(rng.in_range(0..500)));
                gateway.resume()?;
            }
            Disturbance::Replug => {
                board.unplug();
                std::thread::sleep(Duration::from_millis(rng.in_range(100..1000)));
                board.plug_in();
            }
        }
    }
    Ok(())
}

/// The times at which a measurement has the row with each number.
fn rows(points: &[Point], number: impl Fn(&Point) -> Option<u64>) -> anyhow::Result<BTreeMap<u64, Vec<i64>>> {
    let mut rows: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for point in points {
        anyhow::ensure!(point.tag("device") == BOARD_NAME, "a row of another device: {point:?}");
        let number = number(point).with_context(|| format!("a row that nobody sampled: {point:?}"))?;
        let ns = point.column("time").and_then(Value::as_i64).context("a row without a time")?;
        rows.entry(number).or_default().push(ns);
    }
    Ok(rows)
}

/// Of the numbers below `count` all but `lost` are there once, no others are, and later numbers have later times.
fn assert_exact(
    measurement: &str,
    rows: &BTreeMap<u64, Vec<i64>>,
    (count, lost): (u64, u64),
    times: std::ops::Range<i64>,
) {
    let missing: Vec<u64> = (0..count).filter(|number| !rows.contains_key(number)).collect();
    assert_eq!(missing.len() as u64, lost, "{measurement}: of {count} rows {missing:?} are missing");
    assert_eq!(rows.len() as u64, count - lost, "{measurement}: more rows than the board sampled");
    let twice: Vec<_> = rows.iter().filter(|(_, times)| times.len() > 1).collect();
    assert!(twice.is_empty(), "{measurement}: rows with two times: {twice:?}");
    let times_of_rows: Vec<i64> = rows.values().flatten().copied().collect();
    assert!(times_of_rows.is_sorted_by(|a, b| a < b), "{measurement}: times do not grow");
    assert!(times_of_rows.iter().all(|ns| times.contains(ns)), "{measurement}: times out of the run");
}

/// Which row of `pulse` a point is, if it is one.
fn pulse_number(point: &Point) -> Option<u64> {
    let number = point.column("n")?.as_u64().or_else(|| exact(point.column("n")?.as_f64()?))?;
    let level = i64::try_from(number % 2000).ok()?.abs_diff(1000);
    (exact(point.column("level")?.as_f64()? * 10.0)? == level).then_some(number)
}

/// Which row of `climate` a point is, if it is one: the sensor's humidity counts, in steps of 100 % / 2^16.
fn climate_number(point: &Point) -> Option<u64> {
    let milli = |name: &str| exact(point.column(name)?.as_f64()? * 1000.0);
    let number = (milli("humidity")? << 16).div_ceil(100_000);
    let swing = i64::try_from(number % 400).ok()?.abs_diff(200);
    let temperature = (((24_600 + swing) * 175_000) >> 16).checked_sub(45_000)?;
    // The driver's own arithmetic is a step more or less exact.
    (milli("temperature")?.abs_diff(temperature) <= 1).then_some(number)
}

/// The whole number that a float stands for.
fn exact(value: f64) -> Option<u64> {
    ((value - value.round()).abs() < 1e-6).then(|| format!("{:.0}", value.abs()).parse().ok()).flatten()
}

/// A database, a board on a line, and a gateway between them.
fn joined(folder: &Path) -> anyhow::Result<(InfluxDb, Board, Gateway)> {
    let server = InfluxDb::start(&folder.join("influxdb"))?;
    let link = folder.join("ttyUSB0");
    let board = Board::start(&folder.join("board"), seconds(), &link)?;
    let tables = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let settings = Settings { mqtt: None, ports: vec![link], tables };
    let gateway = Gateway::start(program(), &folder.join("gateway"), &settings)?;
    Ok((server, board, gateway))
}

#[test]
fn every_row_of_an_emulated_chip_reaches_influxdb_once() -> anyhow::Result<()> {
    let mut rng = Rng::announced("emulated board")?;
    let (scratch, since_ns) = (Scratch::new("board")?, wall_ns());
    let (server, mut board, mut gateway) = joined(scratch.path())?;
    disturb(&mut rng, &mut board, &mut gateway)?;

    let report = board.finish(Duration::from_secs(seconds()) + DRAIN_LIMIT)?;
    gateway.drain(DRAIN_LIMIT)?;
    let ledger = gateway.status()?.get("ledger").cloned().unwrap_or_default();
    gateway.close(DRAIN_LIMIT)?;
    eprintln!("the board reports {report}\nthe gateway's ledger is {ledger}");
    let count = |document: &Value, name: &str| document.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX);
    let (climate, pulse) = (count(&report, "climate"), count(&report, "pulse"));
    // Where this machine stops the emulated one for a while, all the interrupts of that time come at once, and the
    // firmware's queue may overflow, as it is there to do.
    let lost = count(&report, "lost_rows");
    for nothing in ["lost_bytes", "evicted_rows"] {
        assert_eq!(count(&report, nothing), 0, "{nothing}: {report}");
    }
    assert!(climate >= 2 * seconds() && pulse >= 50 * seconds() && lost < pulse / 2, "{report}");
    assert_eq!(count(&ledger, "learned"), climate + pulse, "{ledger}");
    assert_eq!(count(&ledger, "confirmed"), climate + pulse - lost, "{ledger}");

    let http = Http::new()?;
    let read = |name| select(&http, &server.url(), InfluxDb::DATABASE, name, since_ns);
    let times = since_ns..wall_ns();
    assert_exact("climate", &rows(&read("climate")?, climate_number)?, (climate, 0), times.clone());
    assert_exact("pulse", &rows(&read("pulse")?, pulse_number)?, (pulse, lost), times);
    let gaps = read(GAP_MEASUREMENT)?;
    assert!(gaps.iter().all(|gap| gap.tag("cause") == "overrun"), "{gaps:?}");
    let declared: Option<u64> = gaps.iter().map(|gap| gap.column("count")?.as_u64()).sum();
    assert_eq!(declared, Some(lost), "as many are declared lost as are: {gaps:?}");
    scratch.passed();
    Ok(())
}

/// How often a chip is reset, and how long it is held up before.
const RESETS: u64 = 3;
const HELD_UP: Duration = Duration::from_secs(2);

/// How far a row may be dated into that time: what is known of the clock over an outage is not exact.
const TOLERANCE_NS: i64 = 500_000_000;

/// A ring outlives the chip's reset, with the gateway there and without it: one boot, and nothing lost but the rows of the
/// open block, which are declared.
#[test]
fn a_chip_that_is_reset_goes_on_with_its_ring() -> anyhow::Result<()> {
    let mut rng = Rng::announced("board reset")?;
    let (scratch, since_ns) = (Scratch::new("board-reset")?, wall_ns());
    let (server, mut board, mut gateway) = joined(scratch.path())?;
    let http = Http::new()?;
    let read = |name, since_ns| select(&http, &server.url(), InfluxDb::DATABASE, name, since_ns);
    let mut resets = Vec::new();
    for number in 0..RESETS {
        let confirmed = gateway.backlog()?.1;
        wait_for("the board's rows in the database", RECOVERY_LIMIT, || match gateway.backlog() {
            Ok((_, now)) if now > confirmed => Ok(()),
            Ok((_, now)) => Err(format!("{now} rows before and after")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        let alone = number % 2 == 0;
        if alone {
            // What it knows of the device's clock, it writes down now and then, and when it ends.
            anyhow::ensure!(gateway.terminate()?.success(), "the gateway did not end well");
        }
        std::thread::sleep(Duration::from_millis(rng.in_range(500..2000)));
        anyhow::ensure!(board.is_running(), "the board ended before its reset {number}");
        let from_ns = wall_ns();
        board.reset(HELD_UP)?;
        let until_ns = wall_ns();
        resets.push(from_ns..until_ns);
        if alone {
            std::thread::sleep(Duration::from_millis(rng.in_range(0..1000)));
            gateway.resume()?;
        }
        // Without a row of its own, a count that begins again could not be told from the one before.
        wait_for("a row that the chip sampled after its reset", RECOVERY_LIMIT, || {
            match read("pulse", until_ns + TOLERANCE_NS) {
                Ok(rows) if !rows.is_empty() => Ok(()),
                Ok(_) => Err(format!("none since reset {number}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
    }
    let report = board.finish(Duration::from_secs(seconds()) + DRAIN_LIMIT)?;
    gateway.drain(DRAIN_LIMIT)?;
    let ledger = gateway.status()?.get("ledger").cloned().unwrap_or_default();
    gateway.close(DRAIN_LIMIT)?;
    eprintln!("the board reports {report}\nthe gateway's ledger is {ledger}");

    let (mut pulse, climate) = (read("pulse", since_ns)?, read("climate", since_ns)?);
    let time = |point: &Point| point.column("time").and_then(Value::as_i64);
    pulse.sort_by_key(time);
    let numbers: Option<Vec<u64>> = pulse.iter().map(pulse_number).collect();
    let numbers = numbers.context("a row that nobody sampled")?;
    assert!(pulse.iter().map(time).is_sorted_by(|a, b| a < b), "times do not grow");
    // The count of rows begins again at each reset, and only then; and no row is dated into the time for which the chip
    // was held up before.
    let times: Vec<i64> = pulse.iter().filter_map(time).collect();
    let starts: Vec<usize> = (1..numbers.len()).filter(|at| numbers[at - 1] >= numbers[*at]).collect();
    assert_eq!(starts.len(), resets.len(), "{numbers:?}");
    for (start, reset) in starts.into_iter().zip(&resets) {
        let (before, after) = (times[start - 1] - reset.start, times[start] - reset.end);
        eprintln!(
            "around a reset: the row before it at {before} ns of it, the one behind it {after} ns after it"
        );
        assert!(before < TOLERANCE_NS && after > -TOLERANCE_NS, "rows are dated into the reset");
    }
    assert!(climate.iter().all(|point| climate_number(point).is_some()));

    let gaps = read(GAP_MEASUREMENT, since_ns)?;
    let by_cause = |cause: &str| -> u64 {
        let of_cause = gaps.iter().filter(|gap| gap.tag("cause") == cause);
        of_cause.filter_map(|gap| gap.column("count")?.as_u64()).sum()
    };
    let (reset, overrun) = (by_cause("reset"), by_cause("overrun"));
    assert!(gaps.iter().all(|gap| ["reset", "overrun"].contains(&gap.tag("cause").as_str())), "{gaps:?}");
    assert!(reset > 0, "an open block was empty at each reset");
    let stored = (pulse.len() + climate.len()) as u64;
    assert_eq!(
        report.get("numbered").and_then(Value::as_u64),
        Some(stored + reset + overrun),
        "{report} {gaps:?}"
    );
    eprintln!(
        "{stored} rows stored; {reset} were in an open block, and {overrun} found the queue full: both declared"
    );
    scratch.passed();
    Ok(())
}
