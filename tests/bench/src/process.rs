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

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    /// The most memory that it has had resident.
    pub(crate) peak_rss_mib: f64,
}

impl Spent {
    /// What the kernel says of a process of ours.
    pub(crate) fn by(pid: u32) -> Result<Spent> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let stat = read("stat")?;
        let behind_name = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
        let mut ticks = behind_name.split_whitespace().skip(11);
        let mut seconds = || -> Result<f64> {
            let ticks: f64 = ticks.next().context("/proc/PID/stat is short")?.parse()?;
            Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
        };
        let (user_s, system_s) = (seconds()?, seconds()?);
        Ok(Spent { user_s, system_s, peak_rss_mib: number_after("VmHWM:", &read("status")?)? / 1024.0 })
    }

    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// The same since an earlier moment, except for the peak.
    pub(crate) fn since(&self, earlier: &Spent) -> Spent {
        Spent {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
            peak_rss_mib: self.peak_rss_mib,
        }
    }
}

/// The most memory that this process has had resident, in MiB.
pub(crate) fn peak_rss_mib() -> Result<f64> {
    Ok(number_after("VmHWM:", &fs::read_to_string("/proc/self/status")?)? / 1024.0)
}

fn number_after(key: &str, text: &str) -> Result<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
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
