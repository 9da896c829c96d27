//! What tests with real processes share: a directory, a broker with a recording proxy, a fleet and a gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::wall_ns;
use crate::device::{Fleet, MqttFleet};
use crate::gateway::{Gateway, Program, Settings, round_trip_tolerance, round_trips};
use crate::ledger::{Ledger, judge};
use crate::process::tail;
use crate::proxy::MqttProxy;
use crate::readback::Stored;
use crate::services::Mosquitto;
use tempfile::TempDir;

/// How long devices and gateway may take to deliver everything at the end of a run.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// A temporary directory that stays, with all logs in it, unless the test says that it passed.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// A directory whose name tells the test.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(test: &str) -> anyhow::Result<Scratch> {
        let prefix = format!("forebay-{test}-");
        Ok(Scratch(Some(tempfile::Builder::new().prefix(&prefix).tempdir()?)))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// The test passed: nothing of it is kept.
    pub fn passed(mut self) {
        self.0.take();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(directory) = self.0.take() else { return };
        let directory = directory.keep();
        eprintln!("the test's files are kept in {}", directory.display());
        for log in logs(&directory) {
            eprintln!("---- end of {} ----\n{}", log.display(), tail(&log));
        }
    }
}

fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| if path.is_dir() { logs(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

/// How many devices of which kind, and how often each of them samples.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Devices of the real firmware on serial lines.
    pub serial: usize,
    /// Devices of the real firmware at the broker.
    pub native: usize,
    /// Devices that publish JSON.
    pub json: usize,
    /// Time between two rows of a device.
    pub period: Duration,
}

/// The data directory of the gateway in a [`World`] with this scratch directory, for whoever wants to mount a disk there.
#[must_use]
pub fn data_dir(scratch: &Scratch) -> PathBuf {
    crate::gateway::data_dir(&gateway_directory(scratch))
}

fn gateway_directory(scratch: &Scratch) -> PathBuf {
    scratch.path().join("gateway")
}

/// Devices, a broker with a proxy before it, and a gateway that stores as `table` says.
#[derive(Debug)]
pub struct World {
    /// The broker that devices publish to.
    pub broker: Mosquitto,
    /// What the gateway connects to.
    pub mqtt: MqttProxy,
    /// The devices.
    pub fleet: Fleet,
    /// The gateway.
    pub gateway: Gateway,
    /// No row is older.
    pub since_ns: i64,
    /// The test's files.
    pub scratch: Scratch,
}

impl World {
    /// Starts everything, and returns once the gateway serves the devices.
    ///
    /// # Errors
    /// Some part does not get ready.
    pub fn start(scratch: Scratch, load: Load, table: String) -> anyhow::Result<World> {
        World::with_ring::<{ crate::device::RING_BYTES }>(scratch, load, table)
    }

    /// The same, with rings of `RING` bytes in the serial devices.
    ///
    /// # Errors
    /// As [`World::start`].
    pub fn with_ring<const RING: usize>(
        scratch: Scratch,
        load: Load,
        table: String,
    ) -> anyhow::Result<World> {
        World::start_by::<RING>(scratch, load, table, Gateway::resume)
    }

    /// The same, with a gateway that `start` starts, which need not wait until it acknowledges.
    ///
    /// # Errors
    /// As [`World::start`].
    pub fn start_by<const RING: usize>(
        scratch: Scratch,
        load: Load,
        table: String,
        start: impl FnOnce(&mut Gateway) -> anyhow::Result<()>,
    ) -> anyhow::Result<World> {
        let since_ns = wall_ns();
        let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
        let mqtt = MqttProxy::start(broker.port)?;
        let mut fleet = Fleet::new();
        fleet.add_serial::<RING>(&scratch.path().join("dev"), load.serial, load.period)?;
        let ports = fleet.ports().map(Path::to_owned).collect();
        let settings = Settings { mqtt: Some(mqtt.url()), ports, tables: table };
        let mut gateway =
            Gateway::configure(Program::of_this_build(), &gateway_directory(&scratch), &settings)?;
        start(&mut gateway)?;
        mqtt.wait_until_served()?;
        let (host, port) = ("127.0.0.1".to_owned(), broker.port);
        fleet.add_mqtt(&MqttFleet {
            host,
            port,
            native: load.native,
            json: load.json,
            period: load.period,
        })?;
        Ok(World { broker, mqtt, fleet, gateway, since_ns, scratch })
    }

    /// Lets the devices run for a while.
    ///
    /// # Errors
    /// A message was acknowledged that no device sent.
    pub fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        std::thread::sleep(time);
        self.fleet.note_acknowledged(&self.mqtt)
    }

    /// Stops sampling, waits until everything is delivered, holds the gateway's ledger against its databases, ends it, and
    /// judges what `read` finds.
    ///
    /// # Errors
    /// Something is not delivered in time, the gateway panicked or does not end well, or the store cannot be read.
    pub fn finish(
        mut self,
        read: impl FnOnce(&Gateway) -> anyhow::Result<Stored>,
    ) -> anyhow::Result<(Ledger, Scratch)> {
        self.fleet.drain(Some(&self.mqtt), DRAIN_LIMIT)?;
        let usage = self.gateway.usage();
        self.gateway.close(DRAIN_LIMIT)?;
        let truths = self.fleet.end()?;
        let stored = read(&self.gateway)?;
        let log = self.gateway.log_text()?;
        anyhow::ensure!(!log.contains("panicked"), "the gateway panicked");
        let ledger = judge(truths.iter().map(AsRef::as_ref), &stored, &round_trip_tolerance(&log));
        let longest = round_trips(&log).into_values().max().unwrap_or(0);
        eprintln!(
            "{}largest time error {} µs; longest of the clock exchanges' round trips {longest} µs; \
             gateway: {:.2} CPU s, {} MiB at most",
            ledger.abridged(),
            ledger.total.time_error_ns_max / 1000,
            usage.cpu_seconds,
            usage.resident_bytes_max >> 20,
        );
        Ok((ledger, self.scratch))
    }
}
