//! What `devices` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use forebay_firmware::noise::{Chance, Noise};
use forebay_tests::device::Faults;

/// Most devices of a kind, as many as have names and chips of their own.
const DEVICES_MAX: u64 = 65_535;

/// The longest time between two of anything that may be asked for.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Devices of the real firmware on serial lines (pseudo-terminals) and at an MQTT broker, and devices that publish JSON.
///
/// Exits 0 if everything that was sampled is acknowledged or declared lost at the end, else 1.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many serial devices
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=DEVICES_MAX))]
    pub(super) serial: u64,
    /// How many MQTT devices
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=DEVICES_MAX))]
    pub(super) mqtt: u64,
    /// How many MQTT devices that are none of ours: they publish JSON to sensors/NAME/garden, and a row counts as
    /// acknowledged once the broker has it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=DEVICES_MAX))]
    pub(super) mqtt_json: u64,
    /// The broker of the MQTT devices
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub(super) broker: String,
    /// A directory for the ports of the serial devices: port0, port1, … [default: forebay-sim in the directory for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    ports: Option<PathBuf>,
    /// Time between two rows of a device
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::sim::parse_duration)]
    pub(super) every: Duration,
    /// How long the devices sample; until interrupted, unless given
    #[arg(long = "for", value_name = "TIME", value_parser = crate::sim::parse_duration)]
    pub(super) duration: Option<Duration>,
    /// How long they may take to deliver what is left then
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::sim::parse_duration)]
    pub(super) drain: Duration,
    /// Print the account of each device at the end, as one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    knobs: Knobs,
}

/// Chances are probabilities from 0 to 1 for each byte of a serial line, in both directions: 0.001 is one byte in a
/// thousand. An MQTT connection loses no bytes, so of these knobs it knows --delay and --disconnect.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Faults (chances from 0 to 1 for each byte of a serial line, in both directions)"
)]
struct Knobs {
    /// One bit of the byte is turned over
    #[arg(long, value_name = "CHANCE", default_value = "0", value_parser = chance)]
    flip: Chance,
    /// The byte is lost
    #[arg(long, value_name = "CHANCE", default_value = "0", value_parser = chance)]
    drop: Chance,
    /// The byte comes twice
    #[arg(long, value_name = "CHANCE", default_value = "0", value_parser = chance)]
    duplicate: Chance,
    /// A byte that nobody sent comes before it
    #[arg(long, value_name = "CHANCE", default_value = "0", value_parser = chance)]
    insert: Chance,
    /// A read ends behind the byte, and the rest comes up to 20 ms later
    #[arg(long, value_name = "CHANCE", default_value = "0", value_parser = chance)]
    split: Chance,
    /// What is sent, over serial lines and MQTT, is held up by up to so long
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = crate::sim::parse_duration)]
    delay: Duration,
    /// Each cable is pulled, and each MQTT connection cut, that often on average, for up to 3 s; 0 for never. While
    /// the devices deliver what is left, nothing is pulled or cut
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::sim::parse_duration)]
    disconnect: Duration,
    /// Decides about all faults: the same seed does the same to the same bytes, and pulls at the same times; without
    /// it each run has its own, which is printed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Options {
    /// How many devices are asked for.
    pub(super) fn check(&self) -> anyhow::Result<u64> {
        let devices = self.serial + self.mqtt + self.mqtt_json;
        anyhow::ensure!(
            devices > 0,
            "no device is asked for; say how many with --serial N, --mqtt N or --mqtt-json N"
        );
        let every = self.every;
        anyhow::ensure!(!every.is_zero(), "--every 0 is no time between two rows; the least is 1ms");
        anyhow::ensure!(every <= TIME_MAX, "--every is longer than a day; the longest is 24h");
        Ok(devices)
    }

    /// Where the ports are.
    pub(super) fn ports(&self) -> PathBuf {
        self.ports.clone().unwrap_or_else(|| std::env::temp_dir().join("forebay-sim"))
    }

    /// The seed that is asked for, if one is.
    pub(super) fn seed(&self) -> Option<u64> {
        self.knobs.seed
    }

    /// What is wrong with the lines, by `seed`.
    pub(super) fn faults(&self, seed: u64) -> anyhow::Result<Faults> {
        let Knobs { flip, drop, duplicate, insert, split, delay, disconnect, .. } = self.knobs;
        let noise = Noise { flip, drop, duplicate, insert };
        anyhow::ensure!(
            noise.is_possible(),
            "--flip, --drop, --duplicate and --insert are more than 1 together; a byte meets one of them at most"
        );
        for (knob, time) in [("--delay", delay), ("--disconnect", disconnect)] {
            anyhow::ensure!(time <= TIME_MAX, "{knob} is longer than a day; the longest is 24h");
        }
        Ok(Faults { seed, noise, split, delay, disconnect, ..Faults::default() })
    }
}

fn chance(text: &str) -> Result<Chance, String> {
    let chance = text.parse().ok().and_then(Chance::new);
    chance.ok_or_else(|| format!("{text:?} is no chance; write a number from 0 to 1, such as 0.001"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Result<Options, String> {
        let parsed = Line::try_parse_from(line.split_whitespace());
        parsed.map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn every_knob_reaches_its_fault_and_no_other() {
        let tenth = Chance::new(0.1).unwrap();
        let of = |knob: &str| parsed(&format!("devices --serial 1 {knob}")).unwrap().faults(9).unwrap();
        let perfect = of("");
        assert_eq!((perfect.noise, perfect.split, perfect.seed), (Noise::default(), Chance::NEVER, 9));
        assert!(perfect.delay.is_zero() && perfect.disconnect.is_zero());
        assert_eq!(of("--flip 0.1").noise, Noise { flip: tenth, ..Noise::default() });
        assert_eq!(of("--drop 0.1").noise, Noise { drop: tenth, ..Noise::default() });
        assert_eq!(of("--duplicate 0.1").noise, Noise { duplicate: tenth, ..Noise::default() });
        assert_eq!(of("--insert 0.1").noise, Noise { insert: tenth, ..Noise::default() });
        assert_eq!(of("--split 0.1").split, tenth);
        assert_eq!(of("--delay 20ms").delay, Duration::from_millis(20));
        assert_eq!(of("--disconnect 1m").disconnect, Duration::from_secs(60));
        assert_eq!(parsed("devices --seed 7").unwrap().seed(), Some(7));
    }

    #[test]
    fn what_cannot_be_says_what_to_write() {
        for (line, parts) in [
            ("devices --flip 2 --serial 1", ["no chance", "from 0 to 1"]),
            ("devices --flip 0.7 --drop 0.7 --serial 1", ["--flip", "more than 1"]),
            ("devices --delay 25h --serial 1", ["--delay", "longer than a day"]),
            ("devices", ["no device", "--serial N"]),
            ("devices --serial 1 --every 0", ["--every", "1ms"]),
            ("devices --mqtt 70000", ["70000", "65535"]),
        ] {
            let error = parsed(line)
                .and_then(|options| {
                    options.faults(1).and_then(|_| options.check()).map_err(|error| error.to_string())
                })
                .unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
        }
        assert_eq!(parsed("devices --serial 64 --mqtt 1000").unwrap().check().unwrap(), 1064);
    }
}
