//! `forebay-sim devices`: simulated devices that run until they are interrupted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use forebay_tests::device::{Fleet, MqttFleet, RING_BYTES};

/// What `devices` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A broker, as mqtt://HOST:PORT, for MQTT devices
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// How many MQTT devices of the real firmware
    #[arg(long, default_value_t = 4, requires = "mqtt")]
    native: u16,
    /// How many MQTT devices that publish JSON to sensors/NAME/garden
    #[arg(long, default_value_t = 0, requires = "mqtt")]
    json: u16,
    /// A directory for the ports of serial devices (port0, port1, …), which the gateway can open
    #[arg(long, value_name = "DIR", required_unless_present = "mqtt")]
    ports: Option<PathBuf>,
    /// How many serial devices
    #[arg(long, default_value_t = 1, requires = "ports")]
    serial: u16,
    /// Time between two rows of a device
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::parse_duration)]
    every: Duration,
    /// How long to run; until interrupted, unless given
    #[arg(long = "for", value_name = "TIME", value_parser = super::parse_duration)]
    duration: Option<Duration>,
}

/// Runs the devices and says once a second how they are doing.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!options.every.is_zero(), "--every must be longer than nothing");
    let mut fleet = Fleet::new();
    if let Some(directory) = &options.ports {
        fleet.add_serial::<RING_BYTES>(directory, usize::from(options.serial), options.every)?;
        for port in fleet.ports() {
            eprintln!("a serial device is at {}", port.display());
        }
    }
    if let Some(url) = &options.mqtt {
        let (host, port) = super::parse_broker(url)?;
        let (native, json) = (usize::from(options.native), usize::from(options.json));
        fleet.add_mqtt(&MqttFleet { host, port, native, json, period: options.every })?;
    }
    let start = Instant::now();
    while options.duration.is_none_or(|duration| start.elapsed() < duration) {
        std::thread::sleep(Duration::from_secs(1));
        let (produced, acked) = fleet.progress();
        eprintln!("{:>6} s  produced {produced:>8}  acked {acked:>8}", start.elapsed().as_secs());
    }
    fleet.end()?;
    Ok(ExitCode::SUCCESS)
}
