//! A group of devices that start, drain and end together: an event loop for the serial ones, and one for those at a
//! broker, each in a thread of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use forebay_shared::ids::ChipId;
use serde::Serialize;

use super::{Conductor, Faults, JsonDevice, MqttNative, NativeCore, Phase, RING_BYTES, SerialDevice, Spec};
use crate::clock::wait_for;
use crate::proxy::MqttProxy;
use crate::truth::{Dating, Truth};

/// The prefix of native devices' topics.
pub const NATIVE_PREFIX: &str = "forebay/v1";

/// What stands before the device in the topics of JSON devices.
const JSON_TOPIC: &str = "sensors";

/// What runs a device.
type Task = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Running devices.
#[derive(Debug, Default)]
pub struct Fleet {
    conductor: Arc<Conductor>,
    faults: Faults,
    forgets: bool,
    truths: Vec<(Duration, Arc<Truth>)>,
    serial: Vec<(PathBuf, SerialDevice)>,
    groups: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// How many MQTT devices of which kind, and which broker they use.
#[derive(Clone, Debug)]
pub struct MqttFleet {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Devices of the real firmware.
    pub native: usize,
    /// Devices that publish JSON.
    pub json: usize,
    /// Time between two rows of a device.
    pub period: Duration,
}

/// What a device says of itself, or all of them together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Rows that it sampled.
    pub produced: u64,
    /// Rows that the gateway said are durable; of a JSON device, those that the broker took.
    pub acked: u64,
    /// Rows that it threw away for want of room.
    pub lost: u64,
    /// Rows that it still has.
    pub waiting: u64,
    /// Devices that somebody listens to.
    pub connected: u64,
    /// Devices that still have rows, or have not yet declared the loss of some.
    pub unsettled: u64,
}

/// One device's account.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// Its rows.
    #[serde(flatten)]
    pub tally: Tally,
    /// The boot that the gateway gave it; 0 for none.
    pub boot: u32,
    /// True time of its first row, in nanoseconds since 1970 UTC; the others followed one another by `every_ns`.
    pub first_ns: i64,
    /// Time between two of its rows.
    pub every_ns: u64,
}

impl Fleet {
    /// No devices yet.
    #[must_use]
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// No devices yet, for a run of any length: rows are counted and not kept for a judge, and lines have faults.
    #[must_use]
    pub fn endless(faults: Faults) -> Fleet {
        let mut fleet = Fleet::new();
        (fleet.faults, fleet.forgets) = (faults, true);
        fleet
    }

    /// Adds `count` serial devices with rings of `RING` bytes, whose lines are reached through links in `directory`.
    ///
    /// # Errors
    /// No pseudo-terminal can be had.
    pub fn add_serial<const RING: usize>(
        &mut self,
        directory: &Path,
        count: usize,
        period: Duration,
    ) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let mut tasks: Vec<Task> = Vec::new();
        for _ in 0..count {
            let index = self.serial.len();
            let spec =
                self.spec(&format!("serial-{index}"), period, Dating::Gateway, NativeCore::<RING>::VALUES);
            let link = directory.join(format!("port{index}"));
            let (device, task) = SerialDevice::new::<RING>(spec, chip(b's', index)?, link.clone())?;
            self.serial.push((link, device));
            tasks.push(Box::pin(task.run()));
        }
        self.run("serial devices", tasks)
    }

    /// Adds the MQTT devices.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn add_mqtt(&mut self, of: &MqttFleet) -> anyhow::Result<()> {
        let mut tasks: Vec<Task> = Vec::new();
        for index in 0..of.native {
            let name = format!("native-{index}");
            let spec = self.spec(&name, of.period, Dating::Gateway, NativeCore::<RING_BYTES>::VALUES);
            let (host, prefix) = (of.host.clone(), NATIVE_PREFIX.to_owned());
            let device = MqttNative { spec, chip: chip(b'm', index)?, host, port: of.port, prefix };
            tasks.push(Box::pin(device.run()));
        }
        for index in 0..of.json {
            let name = format!("json-{index}");
            let topic = format!("{JSON_TOPIC}/{name}/garden");
            let spec = self.spec(&name, of.period, Dating::Payload, super::json::json_values);
            let device = JsonDevice { spec, host: of.host.clone(), port: of.port, topic };
            tasks.push(Box::pin(device.run()));
        }
        self.run("mqtt devices", tasks)
    }

    /// Runs devices in one event loop, until all have ended or one has failed.
    fn run(&mut self, name: &str, tasks: Vec<Task>) -> anyhow::Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                tasks.into_iter().for_each(|task| drop(running.spawn(task)));
                while let Some(ended) = running.join_next().await {
                    ended.context("a device's task")??;
                }
                Ok(())
            })
        });
        self.groups.push(thread.with_context(|| format!("starting the thread of the {name}"))?);
        Ok(())
    }

    fn spec(&mut self, name: &str, period: Duration, dating: Dating, values: crate::truth::Values) -> Spec {
        let new = if self.forgets { Truth::forgetting } else { Truth::new };
        let truth = Arc::new(new(name, dating, values));
        // The golden section spreads any number of devices over the period.
        let part = (self.truths.len() as u64).wrapping_mul(618) % 1000;
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let offset = Duration::from_millis(period_ms / 1000 * part + period_ms % 1000 * part / 1000);
        self.truths.push((period, Arc::clone(&truth)));
        let (conductor, faults) = (Arc::clone(&self.conductor), self.faults.clone());
        Spec { name: name.to_owned(), period, offset, conductor, truth, faults }
    }

    /// The devices' logs.
    pub fn truths(&self) -> impl Iterator<Item = &Truth> {
        self.truths.iter().map(|(_, truth)| truth.as_ref())
    }

    /// The paths of the serial lines.
    pub fn ports(&self) -> impl Iterator<Item = &Path> {
        self.serial.iter().map(|(link, _)| link.as_path())
    }

    /// A serial device, to pull its cable.
    #[must_use]
    pub fn serial(&self, index: usize) -> Option<&SerialDevice> {
        self.serial.get(index).map(|(_, device)| device)
    }

    /// Rows produced and rows acknowledged so far.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        self.truths()
            .fold((0, 0), |(produced, acked), truth| (produced + truth.produced(), acked + truth.acked()))
    }

    /// What all devices say of themselves together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.truths().map(tally).fold(Tally::default(), |sum, of| Tally {
            produced: sum.produced + of.produced,
            acked: sum.acked + of.acked,
            lost: sum.lost + of.lost,
            waiting: sum.waiting + of.waiting,
            connected: sum.connected + of.connected,
            unsettled: sum.unsettled + of.unsettled,
        })
    }

    /// Each device's account, by name.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        let account = |(period, truth): &(Duration, Arc<Truth>)| {
            let log = truth.log();
            let every_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            let boot = log.boots.last().copied().unwrap_or(0);
            let account = Account { tally: tally(truth), boot, first_ns: log.first_ns, every_ns };
            (truth.name().to_owned(), account)
        };
        self.truths.iter().map(account).collect()
    }

    /// Whether no device has failed; [`Fleet::end`] says of what.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.groups.iter().any(JoinHandle::is_finished)
    }

    /// Lets the devices sample nothing any more, and deliver what is left.
    pub fn stop_sampling(&self) {
        self.conductor.set(Phase::Draining);
    }

    /// Enters the PUBACKs that a proxy saw into the logs of the JSON devices.
    ///
    /// # Errors
    /// A message was acknowledged that no device of the fleet sent.
    pub fn note_acknowledged(&self, proxy: &MqttProxy) -> anyhow::Result<()> {
        for passed in proxy.take_acknowledged() {
            // Other topics belong to native devices, whose acknowledgements are those of their own link.
            let mut levels = passed.topic.split('/');
            if levels.next() != Some(JSON_TOPIC) {
                continue;
            }
            let name = levels.next().unwrap_or_default();
            let Some(truth) = self.truths().find(|truth| truth.name() == name) else { continue };
            let number =
                super::number_in(&passed.payload).with_context(|| format!("a strange message of {name}"))?;
            truth.acknowledge(number);
        }
        Ok(())
    }

    /// Stops sampling, and waits until every device got rid of all it had; with the proxy in front of the gateway, also
    /// until the gateway has acknowledged every message of the JSON devices.
    ///
    /// # Errors
    /// Some device still holds rows after `limit`; it is named.
    pub fn drain(&self, proxy: Option<&MqttProxy>, limit: Duration) -> anyhow::Result<()> {
        self.stop_sampling();
        // Rows that a device was sampling at that moment are logged within its next step.
        std::thread::sleep(Duration::from_millis(150));
        wait_for("the devices' getting rid of all rows", limit, || {
            if let Some(proxy) = proxy {
                self.note_acknowledged(proxy).map_err(|error| format!("{error:#}"))?;
            }
            let unacked = |truth: &Truth| {
                proxy.is_some() && truth.dating() == Dating::Payload && truth.acked() < truth.produced()
            };
            let waiting: Vec<_> = self.truths().filter(|truth| !truth.idle() || unacked(truth)).collect();
            let described = waiting.iter().map(|truth| {
                format!(
                    "{} produced {} and got {} acknowledged",
                    truth.name(),
                    truth.produced(),
                    truth.acked()
                )
            });
            if waiting.is_empty() { Ok(()) } else { Err(described.collect::<Vec<_>>().join("; ")) }
        })
    }

    /// Ends every device.
    ///
    /// # Errors
    /// What a device failed of.
    pub fn end(mut self) -> anyhow::Result<Vec<Arc<Truth>>> {
        self.conductor.set(Phase::Ended);
        for group in std::mem::take(&mut self.groups) {
            group.join().map_err(|_| anyhow::anyhow!("a thread of devices panicked"))??;
        }
        Ok(std::mem::take(&mut self.truths).into_iter().map(|(_, truth)| truth).collect())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.conductor.set(Phase::Ended);
    }
}

fn tally(truth: &Truth) -> Tally {
    let is_idle = truth.idle();
    // What is acknowledged meanwhile was produced before.
    let (acked, lost) = (truth.acked(), truth.lost());
    let produced = truth.produced();
    Tally {
        produced,
        acked,
        lost,
        waiting: produced.saturating_sub(acked + lost),
        connected: u64::from(truth.connected()),
        unsettled: u64::from(!is_idle),
    }
}

/// A chip id that no other device of the fleet has.
fn chip(kind: u8, index: usize) -> anyhow::Result<ChipId> {
    let [high, low] = u16::try_from(index)?.to_be_bytes();
    ChipId::new(&[0xe6, 0x61, kind, high, low]).context("a chip id")
}
