//! The benchmark `link`: what a reading costs on the line, how full the line is kept, and how soon it is in use again.
//!
//! * Bytes a reading, of series that were made before anything was measured (`series.rs`): as the device sends them, in
//!   full blocks and a row a frame, and as plain postcard, JSON and line protocol (`size.rs`).
//! * Efficiency of the line: the real firmware core and the real gateway's half of the link on a virtual line (`rig.rs`,
//!   `line.rs`, `gateway.rs`) that damages frames in both directions; rows are released 50 ms after they came.
//! * How long it takes after a replug or a restart of the gateway until new rows come.
//! * What one damaged byte costs (`damage.rs`).
//!
//! Nothing here takes real time, so the machine and its load do not matter, and a seed gives the same figures everywhere.
//! What the device emits is measured, whatever its messages are.

mod damage;
mod gateway;
mod line;
mod report;
mod rig;
mod series;
mod size;

use anyhow::{Context as _, Result};
use forebay_firmware::device::WhenFull;
use forebay_firmware::{Device, DeviceConfig};
use forebay_shared::ids::ChipId;
use forebay_shared::link::Transport;
use forebay_shared::message::ResetCause;
use serde::Serialize;

use crate::cli::Common;
use crate::progress;
use line::Random;
use rig::{Outage, Rig, Used};
use series::Series;
use size::Sizes;

/// From receipt to release: a commit on a slow disk.
const RELEASE_MS: u32 = 50;

/// How long a row waits for company, where the line is idle.
const LINGER_MS: u32 = 50;

/// Ring of the device on a slow and on a fast line.
const SMALL_RING_BYTES: usize = 8 << 10;
const LARGE_RING_BYTES: usize = 32 << 10;

/// Lines by their baud, with the ring of the device on them.
const LINES: [(u64, usize); 2] = [(115_200, SMALL_RING_BYTES), (921_600, LARGE_RING_BYTES)];

/// Frames of a million that are damaged, and the efficiency to be reached then.
const LOSSES: [(u64, f64); 3] = [(0, 0.99), (10_000, 0.97), (50_000, 0.92)];

/// What happens, and in how many milliseconds the line is to be in use again.
const OUTAGES: [(Outage, &str, f64); 2] =
    [(Outage::Replug, "replug", 1_000.0), (Outage::Restart, "gateway restart", 2_000.0)];

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    /// Rows of each series, at most.
    rows_max: usize,
    efficiency_seconds: u64,
    outages_ms: Vec<u64>,
    /// Of each kind and length of outage.
    trials: u64,
    damage_trials: u64,
}

#[derive(Debug)]
struct Outcomes {
    sizes: Vec<(&'static str, Option<f64>, Sizes)>,
    efficiency: Vec<Efficiency>,
    resume: Vec<Resume>,
    frames_lost_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Efficiency {
    baud: u64,
    ring_bytes: usize,
    loss_ppm: u64,
    bar: f64,
    used: Used,
}

/// Milliseconds until new rows came, after outages of about one length.
#[derive(Clone, Copy, Debug, Serialize)]
struct Resume {
    after: &'static str,
    outage_ms: u64,
    median_ms: f64,
    most_ms: u64,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    let mut sizes = Vec::new();
    let mut wire = Vec::new();
    for series in series::all()? {
        progress!("bytes a reading: {}", series.name);
        let series = series.cut(plan.rows_max);
        sizes.push((series.name, series.bar, size::measure(&series)?));
        if series.name == "slow" {
            wire = size::by_device(&series.cut(600), 0)?.wire;
        }
    }
    let vibration = series::vibration()?;
    let mut efficiency = Vec::new();
    for (baud, ring_bytes) in LINES {
        for (loss_ppm, bar) in LOSSES {
            progress!("efficiency: {baud} baud, {} % of the frames lost", loss_ppm as f64 / 1e4);
            let used = plan.efficiency(&vibration, baud, loss_ppm)?;
            efficiency.push(Efficiency { baud, ring_bytes, loss_ppm, bar, used });
        }
    }
    let mut resume = Vec::new();
    for (outage, after, _) in OUTAGES {
        progress!("resuming after a {after}");
        for outage_ms in &plan.outages_ms {
            resume.push(plan.resume(&vibration, outage, *outage_ms, after)?);
        }
    }
    progress!("damaged bytes");
    let frames_lost_max = damage::frames_lost_max(&wire, plan.damage_trials)?;
    let outcomes = Outcomes { sizes, efficiency, resume, frames_lost_max };
    report::Report::new(&plan, &outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        if common.quick {
            Plan {
                rows_max: 2_000,
                efficiency_seconds: 3,
                outages_ms: vec![1_000, 30_000],
                trials: 2,
                damage_trials: 300,
            }
        } else {
            Plan {
                rows_max: usize::MAX,
                efficiency_seconds: 60,
                outages_ms: vec![100, 1_000, 4_000, 10_000, 20_000, 60_000, 300_000],
                trials: 12,
                damage_trials: 30_000,
            }
        }
    }

    fn efficiency(&self, series: &Series, baud: u64, loss_ppm: u64) -> Result<Used> {
        match baud {
            115_200 => {
                Rig::<SMALL_RING_BYTES>::new(series, baud, loss_ppm, 1)?.efficiency(self.efficiency_seconds)
            }
            _ => Rig::<LARGE_RING_BYTES>::new(series, baud, loss_ppm, 1)?.efficiency(self.efficiency_seconds),
        }
    }

    fn resume(&self, series: &Series, outage: Outage, outage_ms: u64, after: &'static str) -> Result<Resume> {
        let mut random = Random::new(outage_ms);
        let mut times = Vec::new();
        for trial in 0..self.trials {
            let rig = Rig::<SMALL_RING_BYTES>::new(series, 115_200, 0, trial)?;
            // What a device does in an outage has a period of some seconds, and the end must meet all of it.
            let outage_ms = outage_ms + random.below(outage_ms.min(10_000));
            times.push(rig.resume_ms(outage, outage_ms, &mut random)?);
        }
        let median_ms = crate::statistics::median(times.iter().map(|ms| *ms as f64));
        let most_ms = times.into_iter().max().context("no trial")?;
        Ok(Resume { after, outage_ms, median_ms, most_ms })
    }
}

/// The device that is measured.
type Dut<const RING: usize> = Device<RING, CHANNELS>;

/// Channels of the largest group.
const CHANNELS: usize = 4;

/// A device that samples a series.
fn device<const RING: usize>(series: &Series, linger_ms: u32) -> Result<Box<Dut<RING>>> {
    let chip = ChipId::new(&[0xe6, 0x61, 0x41, 0x04]).context("four bytes are a chip id")?;
    let (groups, tick_hz, transport) = (series.groups, series.tick_hz, Transport::Serial);
    let when_full = WhenFull::DropOldest;
    let config = DeviceConfig { name: "boiler", groups, tick_hz, linger_ms, transport, when_full };
    // A device has its configuration for good, as firmware has; there are some hundred in a run.
    Ok(Box::new(Device::new(Box::leak(Box::new(config)), chip, ResetCause::POWER_ON)))
}
