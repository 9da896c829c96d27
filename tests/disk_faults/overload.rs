//! `when_full = "drop-oldest"` and `"auto"`: a journal that is full goes on taking rows, and every row that it drops for
//! that is declared, in the gateway's ledger as in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_tests::closing::Closing;
use forebay_tests::mount::SmallDisk;
use forebay_tests::readback::Stored;
use forebay_tests::truth::{Dating, Truth};
use forebay_tests::world::{DRAIN_LIMIT, Scratch, World, data_dir};
use serde_json::Value;

use crate::full_disk::{DISK_BYTES, FLOOD};
use crate::site::{Database, acked, await_acks};

/// The cause of gaps that a full journal makes.
const EVICTED: &str = "evicted";

/// How long the flood may take to bring the rows of one step.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

/// Without a database, until the journal has gone round; with a kill on the way; then drains and judges.
fn overload(when_full: &str) -> anyhow::Result<(Outcome, Scratch)> {
    let scratch = Scratch::new(when_full)?;
    let disk = SmallDisk::mount(&data_dir(&scratch), DISK_BYTES)?;
    let database = Database::start(&scratch)?;
    database.link.cut();
    let journal = format!("max_bytes = \"2MiB\"\nwhen_full = \"{when_full}\"");
    let mut world = World::start(scratch, FLOOD, database.tables(&journal))?;
    await_acks(&world, 30_000, FLOOD_LIMIT)?;
    disk.fill()?;
    let before = native_acks(&world);
    await_acks(&world, 10_000, FLOOD_LIMIT)?;
    let native_acks = native_acks(&world) - before;
    world.gateway.kill();
    acked(&world)?;
    world.gateway.resume()?;
    await_acks(&world, 10_000, FLOOD_LIMIT)?;
    database.link.mend();
    world.fleet.drain(Some(&world.mqtt), DRAIN_LIMIT)?;
    world.gateway.drain(DRAIN_LIMIT)?;
    let status = world.gateway.status()?;
    let stored = database.read(world.since_ns)?;
    let verdicts = judge(&world, &status, &stored)?;
    // Of rows that were evicted while a write was given up nobody knows whether they are there.
    world.gateway.closes(Closing::Consistent);
    world.gateway.close(DRAIN_LIMIT)?;
    let World { scratch, fleet, .. } = world;
    fleet.end()?;
    drop(disk);
    Ok((Outcome { verdicts, native_acks }, scratch))
}

/// Rows that were acknowledged to native devices.
fn native_acks(world: &World) -> u64 {
    let native = world.fleet.truths().filter(|truth| truth.dating() == Dating::Gateway);
    native.map(Truth::acked).sum()
}

/// What an overload came to.
struct Outcome {
    verdicts: Vec<Verdict>,
    /// Rows that were acknowledged to native devices while 10,000 were in all, from a full journal.
    native_acks: u64,
}

/// One device's rows, as the device, the database and the gateway's ledger count them.
#[derive(Debug)]
struct Verdict {
    dating: Dating,
    produced: u64,
    /// Different rows in the database.
    stored: u64,
    /// Rows that the database has gaps for, by cause.
    gaps: BTreeMap<String, u64>,
    /// `learned`, `confirmed` and the sum of all gaps of the gateway's ledger.
    learned: u64,
    confirmed: u64,
    declared: u64,
}

fn judge(world: &World, status: &Value, stored: &Stored) -> anyhow::Result<Vec<Verdict>> {
    let devices = status.get("devices").and_then(Value::as_object);
    world
        .fleet
        .truths()
        .map(|truth| {
            let name = truth.name();
            let report = devices.into_iter().flat_map(|devices| devices.values());
            let mut report = report.filter(|report| report.get("name").and_then(Value::as_str) == Some(name));
            let ledger = report.next().and_then(|report| report.pointer("/sinks/main")).cloned();
            let ledger = ledger.unwrap_or_default();
            let count = |key: &str| ledger.get(key).and_then(Value::as_u64).unwrap_or(0);
            for nowhere in ["queued", "unconfirmed", "not_yet_received"] {
                anyhow::ensure!(count(nowhere) == 0, "{name}: {nowhere} in {ledger}");
            }
            let mut gaps = BTreeMap::new();
            for gap in stored.gaps.iter().filter(|gap| gap.device == name) {
                *gaps.entry(gap.cause.clone()).or_default() += gap.count;
            }
            let rows = stored.rows.iter().filter(|row| row.device == name).map(|row| row.number);
            let declared = ledger.get("gaps").and_then(Value::as_object);
            Ok(Verdict {
                dating: truth.dating(),
                produced: truth.produced(),
                stored: u64::try_from(rows.collect::<BTreeSet<_>>().len())?,
                gaps,
                learned: count("learned"),
                confirmed: count("confirmed"),
                declared: declared.into_iter().flatten().filter_map(|(_, rows)| rows.as_u64()).sum(),
            })
        })
        .collect()
}

impl Verdict {
    fn gaps_of(&self, cause: &str) -> u64 {
        self.gaps.get(cause).copied().unwrap_or(0)
    }

    /// Nothing is unaccounted for, neither in the gateway's ledger nor between device and database. A message that the
    /// broker delivers again after a kill may be taken twice if its first copy was evicted: it is then stored, or evicted
    /// once more, and declared in excess, which is the safe side.
    fn assert_accounted(&self) {
        assert_eq!(self.learned, self.confirmed + self.declared, "{self:?}");
        assert_eq!(self.declared, self.gaps.values().sum::<u64>(), "the database has other gaps: {self:?}");
        assert!(self.produced <= self.stored + self.declared, "rows are missing: {self:?}");
        let in_flight_max = 200;
        assert!(
            self.stored + self.declared <= self.produced + in_flight_max,
            "too much is declared: {self:?}"
        );
    }
}

#[test]
fn drop_oldest_declares_every_row_that_made_room() -> anyhow::Result<()> {
    let (Outcome { verdicts, .. }, scratch) = overload("drop-oldest")?;
    verdicts.iter().for_each(Verdict::assert_accounted);
    let evicted: u64 = verdicts.iter().map(|verdict| verdict.gaps_of(EVICTED)).sum();
    let stored: u64 = verdicts.iter().map(|verdict| verdict.stored).sum();
    eprintln!("{stored} rows are stored, {evicted} were evicted and are declared");
    assert!(evicted > 10_000);
    scratch.passed();
    Ok(())
}

#[test]
fn auto_evicts_foreign_rows_and_holds_native_devices_back() -> anyhow::Result<()> {
    let (Outcome { verdicts, native_acks }, scratch) = overload("auto")?;
    verdicts.iter().for_each(Verdict::assert_accounted);
    let evicted = |dating| {
        let of = verdicts.iter().filter(move |verdict| verdict.dating == dating);
        of.map(|verdict| verdict.gaps_of(EVICTED)).sum::<u64>()
    };
    let (foreign, native) = (evicted(Dating::Payload), evicted(Dating::Gateway));
    eprintln!("{foreign} foreign and {native} native rows were evicted and are declared");
    assert!(foreign > 10_000);
    // Of every eleven rows, one is a native device's.
    assert!(native_acks < 100, "{native_acks} native rows were taken by a full journal");
    scratch.passed();
    Ok(())
}
