//! What the end-to-end tests share: a directory, a broker with a recording proxy, a fleet and a gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_tests::clock::wall_ns;
use forebay_tests::device::{Fleet, MqttFleet};
use forebay_tests::gateway::{Gateway, Program, Settings, round_trip_tolerance, round_trips};
use forebay_tests::ledger::{Ledger, judge};
use forebay_tests::process::tail;
use forebay_tests::proxy::MqttProxy;
use forebay_tests::readback::Stored;
use forebay_tests::services::Mosquitto;
use tempfile::TempDir;

/// How long devices and gateway may take to deliver everything at the end of a run.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// A temporary directory that stays, with all logs in it, unless the test says that it passed.
#[derive(Debug)]
pub(crate) struct Scratch(Option<TempDir>);

impl Scratch {
    pub(crate) fn new(test: &str) -> anyhow::Result<Scratch> {
        let prefix = format!("forebay-{test}-");
        Ok(Scratch(Some(tempfile::Builder::new().prefix(&prefix).tempdir()?)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// The test passed: nothing of it is kept.
    pub(crate) fn passed(mut self) {
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

/// The program under test.
pub(crate) fn program() -> Program {
    Program::find(Path::new(env!("CARGO_BIN_EXE_forebay-sim")))
}

/// How many devices of which kind, and how often each of them samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) serial: usize,
    pub(crate) native: usize,
    pub(crate) json: usize,
    pub(crate) period: Duration,
}

/// Devices, a broker with a proxy before it, and a gateway that stores as `table` says.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) broker: Mosquitto,
    pub(crate) mqtt: MqttProxy,
    pub(crate) fleet: Fleet,
    pub(crate) gateway: Gateway,
    pub(crate) since_ns: i64,
    pub(crate) scratch: Scratch,
}

impl World {
    pub(crate) fn start(scratch: Scratch, load: Load, table: String) -> anyhow::Result<World> {
        World::with_ring::<{ forebay_tests::device::RING_BYTES }>(scratch, load, table)
    }

    /// The same, with rings of `RING` bytes in the serial devices.
    pub(crate) fn with_ring<const RING: usize>(
        scratch: Scratch,
        load: Load,
        table: String,
    ) -> anyhow::Result<World> {
        let since_ns = wall_ns();
        let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
        let mqtt = MqttProxy::start(broker.port)?;
        let mut fleet = Fleet::new();
        fleet.add_serial::<RING>(&scratch.path().join("dev"), load.serial, load.period)?;
        let ports = fleet.ports().map(Path::to_owned).collect();
        let settings = Settings { mqtt: Some(mqtt.url()), ports, tables: table };
        let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
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
    pub(crate) fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        std::thread::sleep(time);
        self.fleet.note_acknowledged(&self.mqtt)
    }

    /// Stops sampling, waits until everything is delivered, ends the gateway, and judges what `read` finds.
    pub(crate) fn finish(
        mut self,
        read: impl FnOnce(&Gateway) -> anyhow::Result<Stored>,
    ) -> anyhow::Result<(Ledger, Scratch)> {
        self.fleet.drain(Some(&self.mqtt), DRAIN_LIMIT)?;
        self.gateway.drain(DRAIN_LIMIT)?;
        let usage = self.gateway.usage();
        let status = self.gateway.terminate()?;
        anyhow::ensure!(status.success(), "after SIGTERM the gateway ended with {status}");
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
