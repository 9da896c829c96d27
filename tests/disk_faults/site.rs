//! What these tests share: the database behind a switch, what may be asked of a running world, and the verdict.

use std::time::Duration;

use forebay_tests::clock::wait_for;
use forebay_tests::closing::Closing;
use forebay_tests::device::MEASUREMENTS;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::ledger::{Account, Ledger};
use forebay_tests::proxy::HttpProxy;
use forebay_tests::readback::{Stored, influxql};
use forebay_tests::services::InfluxDb;
use forebay_tests::world::{Scratch, World};
use serde_json::Value;

/// How long the gateway may take to do what it promises after a fault.
pub(crate) const REACTION_LIMIT: Duration = Duration::from_secs(30);

/// How long acks that were on their way may take to arrive, and how long then none may come.
const IN_FLIGHT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_millis(1500);

/// InfluxDB, reached by the gateway through a proxy that can be cut.
#[derive(Debug)]
pub(crate) struct Database {
    server: InfluxDb,
    pub(crate) link: HttpProxy,
}

impl Database {
    pub(crate) fn start(scratch: &Scratch) -> anyhow::Result<Database> {
        let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
        let link = HttpProxy::start(server.port)?;
        Ok(Database { server, link })
    }

    /// The configuration's tables: this database, and `[journal]` with these lines.
    pub(crate) fn tables(&self, journal: &str) -> String {
        format!("{}[journal]\n{journal}\n", Settings::influxdb_1(&self.link.url(), InfluxDb::DATABASE))
    }

    pub(crate) fn read(&self, since_ns: i64) -> anyhow::Result<Stored> {
        influxql::read(&Http::new()?, &self.server.url(), InfluxDb::DATABASE, &MEASUREMENTS, since_ns)
    }
}

/// Rows that were acknowledged so far.
pub(crate) fn acked(world: &World) -> anyhow::Result<u64> {
    world.fleet.note_acknowledged(&world.mqtt)?;
    Ok(world.fleet.progress().1)
}

/// Waits until `rows` more rows are acknowledged. A journal that has failed does not get better, so that it is not waited
/// for.
pub(crate) fn await_acks(world: &World, rows: u64, limit: Duration) -> anyhow::Result<()> {
    let goal = acked(world)? + rows;
    let what = format!("the acknowledging of {rows} more rows");
    let missing = wait_for(&what, limit, || {
        let now = acked(world).map_err(|error| format!("{error:#}"))?;
        let journal = if now < goal { journal(&world.gateway) } else { String::new() };
        match goal.saturating_sub(now) {
            0 => Ok(None),
            missing if journal.contains("\"failed\"") => Ok(Some((missing, journal))),
            missing => Err(format!("{missing} are missing; the journal says {journal}")),
        }
    })?;
    match missing {
        None => Ok(()),
        Some((missing, journal)) => {
            anyhow::bail!("{what}: {missing} are missing, and the journal says {journal}")
        }
    }
}

/// Lets the database have everything but the latest rows, until the journal has room for another round: each start takes
/// a segment of it.
pub(crate) fn catch_up(world: &World, database: &Database) -> anyhow::Result<()> {
    database.link.mend();
    wait_for("the delivery of almost everything", REACTION_LIMIT, || {
        let status = world.gateway.status().map_err(|error| format!("{error:#}"))?;
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(u64::MAX);
        let (queued, bytes) = (number("/ledger/queued"), number("/journal/bytes"));
        if queued < 500 && bytes <= number("/journal/max_bytes") / 2 {
            return Ok(());
        }
        Err(format!("{queued} rows wait, and the journal has {bytes} bytes"))
    })
}

/// Lets the devices run for a while in which nothing may be acknowledged.
pub(crate) fn assert_acks_are_held(world: &mut World) -> anyhow::Result<()> {
    world.run(IN_FLIGHT)?;
    let before = acked(world)?;
    world.run(SILENCE)?;
    let meanwhile = acked(world)? - before;
    let state = journal(&world.gateway);
    anyhow::ensure!(meanwhile == 0, "{meanwhile} rows were acknowledged; the journal says {state}");
    let readiness = world.gateway.readiness()?;
    anyhow::ensure!(readiness != 200, "/readyz says 200 while nothing is acknowledged");
    Ok(())
}

/// Whether the gateway has said in its log, at WARN or ERROR, something with one of these words since `from`.
pub(crate) fn assert_alarm(gateway: &Gateway, from: usize, words: &[&str]) -> anyhow::Result<()> {
    let log = gateway.log_text()?;
    let said = log.get(from..).unwrap_or_default();
    let mut alarms = said.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    let heard = alarms.any(|line| words.iter().any(|word| line.to_lowercase().contains(word)));
    anyhow::ensure!(heard, "no warning in the log speaks of {words:?}:\n{said}");
    Ok(())
}

/// How long the log is now.
pub(crate) fn log_length(gateway: &Gateway) -> anyhow::Result<usize> {
    Ok(gateway.log_text()?.len())
}

/// What the journal says of itself.
pub(crate) fn journal(gateway: &Gateway) -> String {
    match gateway.status() {
        Ok(status) => status.get("journal").map(ToString::to_string).unwrap_or_default(),
        Err(error) => format!("{error:#}"),
    }
}

/// Lets the database take everything, and judges it.
pub(crate) fn finish(mut world: World, database: &Database) -> anyhow::Result<(Ledger, Scratch)> {
    database.link.mend();
    // Journals here are small and begin anew all the time: of the first row of a device after a start, and of rows that were
    // evicted, the ledger says itself that it does not know.
    world.gateway.closes(Closing::Consistent);
    let since_ns = world.since_ns;
    world.finish(|_| database.read(since_ns))
}

/// Every acknowledged row is there, once, at its time, and what is missing is declared.
pub(crate) fn assert_complete(total: &Account, acked_least: u64) {
    assert!(total.acked >= acked_least, "only {} rows were acknowledged", total.acked);
    assert_eq!(total.lost, 0, "acked or undeclared rows are missing");
    assert_eq!(total.duplicates, 0, "rows are stored twice");
    assert!(total.complete(), "{total:?}");
}
