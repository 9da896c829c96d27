//! A group of devices that start, drain and end together: serial ones in threads, MQTT ones in tasks of one thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use forebay_shared::ids::ChipId;

use super::{Conductor, JsonDevice, MqttNative, NativeCore, Phase, RING_BYTES, SerialDevice, Spec};
use crate::clock::wait_for;
use crate::proxy::MqttProxy;
use crate::truth::{Dating, Truth};

/// The prefix of native devices' topics.
pub const NATIVE_PREFIX: &str = "forebay/v1";

/// What stands before the device in the topics of JSON devices.
const JSON_TOPIC: &str = "sensors";

/// Running devices.
#[derive(Debug, Default)]
pub struct Fleet {
    conductor: Arc<Conductor>,
    truths: Vec<Arc<Truth>>,
    serial: Vec<(PathBuf, SerialDevice)>,
    mqtt: Option<JoinHandle<anyhow::Result<()>>>,
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

impl Fleet {
    /// No devices yet.
    #[must_use]
    pub fn new() -> Fleet {
        Fleet::default()
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
        std::fs::create_dir_all(directory)?;
        for _ in 0..count {
            let index = self.serial.len();
            let spec =
                self.spec(&format!("serial-{index}"), period, Dating::Gateway, NativeCore::<RING>::VALUES);
            let link = directory.join(format!("port{index}"));
            self.serial.push((link.clone(), SerialDevice::start::<RING>(spec, chip(b's', index)?, link)?));
        }
        Ok(())
    }

    /// Adds the MQTT devices; once for a fleet.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn add_mqtt(&mut self, of: &MqttFleet) -> anyhow::Result<()> {
        let mut native = Vec::new();
        for index in 0..of.native {
            let name = format!("native-{index}");
            let spec = self.spec(&name, of.period, Dating::Gateway, NativeCore::<RING_BYTES>::VALUES);
            let (host, prefix) = (of.host.clone(), NATIVE_PREFIX.to_owned());
            native.push(MqttNative { spec, chip: chip(b'm', index)?, host, port: of.port, prefix });
        }
        let mut json = Vec::new();
        for index in 0..of.json {
            let name = format!("json-{index}");
            let topic = format!("{JSON_TOPIC}/{name}/garden");
            let spec = self.spec(&name, of.period, Dating::Payload, super::json::json_values);
            json.push(JsonDevice { spec, host: of.host.clone(), port: of.port, topic });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("mqtt devices".into()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                native.into_iter().for_each(|device| drop(tasks.spawn(device.run())));
                json.into_iter().for_each(|device| drop(tasks.spawn(device.run())));
                while let Some(ended) = tasks.join_next().await {
                    ended.context("a device's task")??;
                }
                Ok(())
            })
        })?;
        self.mqtt = Some(thread);
        Ok(())
    }

    fn spec(&mut self, name: &str, period: Duration, dating: Dating, values: crate::truth::Values) -> Spec {
        let truth = Arc::new(Truth::new(name, dating, values));
        self.truths.push(Arc::clone(&truth));
        Spec { name: name.to_owned(), period, conductor: Arc::clone(&self.conductor), truth }
    }

    /// The devices' logs.
    pub fn truths(&self) -> impl Iterator<Item = &Truth> {
        self.truths.iter().map(AsRef::as_ref)
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
        self.conductor.set(Phase::Draining);
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
        for (_, device) in &mut self.serial {
            device.join()?;
        }
        if let Some(thread) = self.mqtt.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the thread of the MQTT devices panicked"))??;
        }
        Ok(std::mem::take(&mut self.truths))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.conductor.set(Phase::Ended);
    }
}

/// A chip id that no other device of the fleet has.
fn chip(kind: u8, index: usize) -> anyhow::Result<ChipId> {
    let [high, low] = u16::try_from(index)?.to_be_bytes();
    ChipId::new(&[0xe6, 0x61, kind, high, low]).context("a chip id")
}
