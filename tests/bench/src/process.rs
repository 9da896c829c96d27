//! What the kernel says of this process and machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Processor time of this process so far, user and system, of all its threads.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The most memory that this process has had resident, in MiB.
pub(crate) fn peak_rss_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()).context("no VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}

/// Where and under what conditions it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    cores: usize,
    /// Processes that wanted to run, on average over the last minute, before the benchmark.
    load_before: f64,
    /// The same at its end.
    load_after: f64,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Machine { kernel, processor, cores, load_before: load(), load_after: load() }
    }

    /// Looks at the load again.
    pub(crate) fn look_again(&mut self) {
        self.load_after = load();
    }

    pub(crate) fn line(&self) -> String {
        let Machine { kernel, processor, cores, load_before, load_after } = self;
        format!(
            "{cores} cores of {processor}, Linux {kernel}, load {load_before:.2} before, {load_after:.2} after"
        )
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}
