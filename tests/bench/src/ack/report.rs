//! What the benchmark `ack` says.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::wear::WearOutcome;
use super::{AckOutcome, Outcomes, Plan, WEAR_RATE};
use crate::cli::Common;
use crate::device::Device;
use crate::engine::Kind;
use crate::journal::record_bytes;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::median;
use crate::svg;

const DAY_S: f64 = 86_400.0;

/// Everything that was found out. Each figure is the median of the runs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    closed_loop: Vec<Acks>,
    half_peak: Acks,
    wear: Vec<Worn>,
    bars: Vec<Bar>,
}

#[derive(Clone, Debug, Serialize)]
struct Acks {
    /// None for the stream at half the peak.
    senders: Option<usize>,
    records_per_s: f64,
    commits_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of all runs.
    max_ms: f64,
    bare_p50_ms: f64,
    bare_p99_ms: f64,
    bare_max_ms: f64,
    p50_over_bare_p50: f64,
    p50_in_commit_cycles: f64,
    /// How late the stream was handed in.
    lag_p50_ms: f64,
    lag_p99_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Worn {
    commit_interval_ms: u64,
    /// None without a device of its own.
    device_bytes_per_day: Option<f64>,
    device_bytes_per_payload_byte: Option<f64>,
    flushes_per_s: Option<f64>,
    commits_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, device: &Device, outcomes: &Outcomes) -> Result<Report> {
        let closed_loop: Vec<Acks> =
            outcomes.closed.iter().map(|(senders, runs)| Acks::of(Some(*senders), runs)).collect();
        let half_peak = Acks::of(None, &outcomes.half);
        let peak = closed_loop.iter().max_by(|a, b| a.records_per_s.total_cmp(&b.records_per_s));
        let peak = peak.context("nothing was measured")?;
        let bars = vec![
            Bar::at_most(
                "median ack over bare fdatasync, half the peak",
                Some(half_peak.p50_over_bare_p50),
                3.0,
            ),
            Bar::at_most("median ack in commit cycles, at the peak", Some(peak.p50_in_commit_cycles), 2.0),
        ];
        let payload = record_bytes()?;
        let wear =
            outcomes.wear.iter().map(|(interval, outcome)| Worn::of(*interval, outcome, payload)).collect();
        let settings = vec![
            format!(
                "records of {payload} bytes, one a submission, [ack] after = \"journal\"; {}",
                Kind::Ours.settings()
            ),
            "bare: 4 KiB over a zero-filled file at a moving position, fdatasync; in turns with ours".into(),
            format!("half the peak: a steady stream of {} records/s", number(outcomes.half_rate, 0)),
            format!("wear: {WEAR_RATE} records/s at random times on {}", device.description),
        ];
        Ok(Report { bench: "ack", machine, settings, plan: plan.clone(), closed_loop, half_peak, wear, bars })
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let text = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        format!("{text}median of {} runs\n\n{}\n{}", self.plan.runs, self.ack_table(), self.wear_table())
    }

    fn ack_table(&self) -> Table {
        let headings = [
            "records/s",
            "commits/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "bare p50",
            "bare p99",
            "bare max",
            "p50/bare",
            "p50/cycle",
        ];
        let mut table = Table::new("senders", &headings);
        for acks in self.closed_loop.iter().chain([&self.half_peak]) {
            let name = acks.senders.map_or("half the peak".into(), |senders| number(senders as f64, 0));
            let cells = [
                (acks.records_per_s, 0),
                (acks.commits_per_s, 0),
                (acks.p50_ms, 3),
                (acks.p99_ms, 3),
                (acks.max_ms, 1),
                (acks.bare_p50_ms, 3),
                (acks.bare_p99_ms, 3),
                (acks.bare_max_ms, 1),
                (acks.p50_over_bare_p50, 2),
                (acks.p50_in_commit_cycles, 2),
            ];
            table.row(&name, cells.map(|(figure, digits)| number(figure, digits)));
        }
        table
    }

    fn wear_table(&self) -> Table {
        let headings = ["MB/day", "bytes/payload byte", "flushes/s", "commits/s", "p50 ms", "p99 ms"];
        let mut table = Table::new("commit_interval", &headings);
        let counted =
            |figure: Option<f64>, digits| figure.map_or("not counted".into(), |f| number(f, digits));
        for worn in &self.wear {
            let cells = [
                counted(worn.device_bytes_per_day.map(|bytes| bytes / 1e6), 0),
                counted(worn.device_bytes_per_payload_byte, 2),
                counted(worn.flushes_per_s, 1),
                number(worn.commits_per_s, 1),
                number(worn.p50_ms, 2),
                number(worn.p99_ms, 2),
            ];
            table.row(&format!("{} ms", worn.commit_interval_ms), cells);
        }
        table
    }

    fn plot(&self) -> String {
        let curve = |heading: &str, digits, of: &dyn Fn(&Worn) -> Option<f64>| svg::Curve {
            heading: heading.into(),
            digits,
            points: self
                .wear
                .iter()
                .filter_map(|worn| Some((format!("{} ms", worn.commit_interval_ms), of(worn)?)))
                .collect(),
        };
        let curves = [
            curve("MB written a day", 0, &|worn| Some(worn.device_bytes_per_day? / 1e6)),
            curve("device bytes per payload byte", 2, &|worn| worn.device_bytes_per_payload_byte),
            curve("median ack latency, ms", 2, &|worn| Some(worn.p50_ms)),
        ];
        let title = format!("What patience saves the disk: {WEAR_RATE} records/s");
        svg::curves(&title, "commit_interval; heights are logarithmic", &curves)
    }
}

impl Acks {
    fn of(senders: Option<usize>, runs: &[AckOutcome]) -> Acks {
        let of = |figure: fn(&AckOutcome) -> f64| median(runs.iter().map(figure));
        let most = |figure: fn(&AckOutcome) -> f64| runs.iter().map(figure).fold(0.0, f64::max);
        Acks {
            senders,
            records_per_s: of(AckOutcome::rate),
            commits_per_s: of(|run| run.commits as f64 / run.wall_s),
            p50_ms: of(|run| run.ours.p50_ms),
            p99_ms: of(|run| run.ours.p99_ms),
            max_ms: most(|run| run.ours.max_ms),
            bare_p50_ms: of(|run| run.bare.p50_ms),
            bare_p99_ms: of(|run| run.bare.p99_ms),
            bare_max_ms: most(|run| run.bare.max_ms),
            p50_over_bare_p50: of(AckOutcome::over_bare),
            p50_in_commit_cycles: of(AckOutcome::over_cycle),
            lag_p50_ms: of(|run| run.lag.p50_ms),
            lag_p99_ms: of(|run| run.lag.p99_ms),
        }
    }
}

impl Worn {
    fn of(commit_interval_ms: u64, outcome: &WearOutcome, payload: u64) -> Worn {
        let bytes = outcome.device.map(|device| device.bytes as f64);
        Worn {
            commit_interval_ms,
            device_bytes_per_day: bytes.map(|bytes| bytes / outcome.wall_s * DAY_S),
            device_bytes_per_payload_byte: bytes.map(|bytes| bytes / (outcome.records * payload) as f64),
            flushes_per_s: outcome.device.map(|device| device.flushes as f64 / outcome.wall_s),
            commits_per_s: outcome.commits as f64 / outcome.wall_s,
            p50_ms: outcome.latency.p50_ms,
            p99_ms: outcome.latency.p99_ms,
        }
    }
}
