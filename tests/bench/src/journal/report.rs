//! What the benchmark `journal` says.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{FlatOutcome, INTERVAL_MS, Outcomes, PacedOutcome, Plan, RATE, WINDOW, record_bytes};
use crate::cli::Common;
use crate::device::Device;
use crate::engine::Kind;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::{Spread, median};
use crate::svg;

/// Figures that every engine has, for the table, the plot and the bars: key, heading, digits.
const FIGURES: [(&str, &str, usize); 6] = [
    ("records_per_s", "records/s flat out", 0),
    ("cpu_us_per_record", "CPU µs/record, paced", 3),
    ("device_bytes_per_payload_byte", "device bytes/payload byte, paced", 3),
    ("flushes_per_commit", "flushes/commit, paced", 3),
    ("ready_s", "s until the backlog is ready", 4),
    ("rss_mib", "peak MiB with the backlog", 1),
];

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: BTreeMap<&'static str, String>,
    plan: Plan,
    /// Processor time to make and encode a record, which is part of every engine's figure.
    feeding_cpu_us_per_record: f64,
    /// What the paced part costs without any engine: what no engine can spare.
    floor: Steady,
    #[serde(flatten)]
    engines: BTreeMap<&'static str, Engine>,
    bars: Vec<Bar>,
}

/// One engine. Each figure is the median of the runs.
#[derive(Debug, Serialize)]
struct Engine {
    records_per_s: f64,
    #[serde(flatten)]
    steady: Steady,
    ready_s: f64,
    rss_mib: f64,
    best_commit: u64,
    cpu_us_per_record_flat_out: f64,
    /// By commit size; of ours, with commits overlapping.
    records_per_s_by_commit: BTreeMap<u64, f64>,
    /// The same, waiting for each commit before the next is handed in.
    records_per_s_one_by_one: BTreeMap<u64, f64>,
    rss_mib_flat_out: f64,
    rss_mib_empty: f64,
    ready_s_closed: f64,
    /// Least and most of the runs.
    spread: BTreeMap<&'static str, Spread>,
}

/// The paced part of one engine, or of none. Each figure is the median of the runs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Steady {
    cpu_us_per_record: f64,
    /// None without a device of its own.
    device_bytes_per_payload_byte: Option<f64>,
    flushes_per_commit: Option<f64>,
    commit_ms_p50: f64,
    commit_ms_p99: f64,
    late_commits: u64,
    rss_mib_paced: f64,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, device: &Device, outcomes: &Outcomes) -> Result<Report> {
        let mut engines = BTreeMap::new();
        for kind in Kind::ALL {
            engines.insert(kind.name(), Engine::new(kind, outcomes)?);
        }
        let mut settings: BTreeMap<_, _> = Kind::ALL.map(|kind| (kind.name(), kind.settings())).into();
        settings.insert("record", format!("{} bytes, encoded alike for all engines", record_bytes()?));
        settings.insert("paced", format!("{RATE} records/s, one durable commit every {INTERVAL_MS} ms"));
        settings.insert(
            "flat out",
            format!("up to {WINDOW} commits handed in and not yet durable, where an engine can"),
        );
        settings.insert("paced device", device.description.clone());
        let trimming = if plan.append_only {
            "ours lets go of delivered records, 5,000 at a time, and recycles their files; the others only append"
        } else {
            "all let go of delivered records, 5,000 at a time, in the transaction of a commit"
        };
        settings.insert("trimming", trimming.into());
        settings.insert(
            "backlog",
            "page cache of its files dropped before each opening; ready_s after a kill".into(),
        );
        let bars = bars(&engines)?;
        let feeding_cpu_us_per_record = median(outcomes.feeding_us.iter().copied());
        let floor = Steady::of(&outcomes.paced[&Kind::Floor]);
        settings.insert("floor", Kind::Floor.settings());
        let plan = plan.clone();
        let bench = "journal";
        Ok(Report { bench, machine, settings, plan, feeding_cpu_us_per_record, floor, engines, bars })
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let names: Vec<&str> = Kind::ALL.map(Kind::name).to_vec();
        let mut table = Table::new("", &[names.as_slice(), &["floor"]].concat());
        let (cpu, floor) = (Some(self.floor.cpu_us_per_record), &self.floor);
        let floors = [None, cpu, floor.device_bytes_per_payload_byte, floor.flushes_per_commit, None, None];
        for ((key, heading, digits), floor) in FIGURES.into_iter().zip(floors) {
            let floor = floor.map_or(String::new(), |figure| number(figure, digits));
            table.row(heading, names.iter().map(|name| self.cell(name, key, digits)).chain([floor]));
        }
        let mut row = |heading: &str, digits, of: &dyn Fn(&Engine) -> f64| {
            table.row(heading, names.iter().map(|name| number(of(&self.engines[name]), digits)));
        };
        row("best commit size, records", 0, &|e| e.best_commit as f64);
        for commit in &self.plan.commit_sizes {
            row(&format!("records/s at {commit} a commit"), 0, &|e| e.records_per_s_by_commit[commit]);
        }
        for commit in &self.plan.commit_sizes {
            let one_by_one = |e: &Engine| e.records_per_s_one_by_one.get(commit).copied();
            let of = |e: &Engine| one_by_one(e).unwrap_or(e.records_per_s_by_commit[commit]);
            row(&format!("  waiting for each, {commit} a commit"), 0, &of);
        }
        row("CPU µs/record flat out", 3, &|e| e.cpu_us_per_record_flat_out);
        row("records per CPU second flat out", 0, &|e| 1e6 / e.cpu_us_per_record_flat_out);
        row("s until ready, closed cleanly", 4, &|e| e.ready_s_closed);
        row("peak MiB, empty", 1, &|e| e.rss_mib_empty);
        row("peak MiB, flat out", 1, &|e| e.rss_mib_flat_out);
        let mut steady = |heading: &str, digits, of: &dyn Fn(&Steady) -> f64| {
            let all = names.iter().map(|name| &self.engines[name].steady).chain([&self.floor]);
            table.row(heading, all.map(|steady| number(of(steady), digits)));
        };
        let floor = self.floor.cpu_us_per_record;
        steady("CPU µs/record above the floor, paced", 3, &|s| s.cpu_us_per_record - floor);
        steady("commit ms p50, paced", 3, &|s| s.commit_ms_p50);
        steady("commit ms p99, paced", 3, &|s| s.commit_ms_p99);
        steady("commits more than 10 ms late, all runs", 0, &|s| s.late_commits as f64);
        steady("peak MiB, paced", 1, &|s| s.rss_mib_paced);
        let mut text = self.machine.line() + "\n";
        for (what, setting) in &self.settings {
            text += &format!("{what}: {setting}\n");
        }
        let feeding = number(self.feeding_cpu_us_per_record, 3);
        text += &format!("median of {} runs (least to most), engines taking turns; ", self.plan.runs);
        text += &format!("making and encoding a record costs all of them {feeding} CPU µs\n\n{table}");
        text
    }

    fn cell(&self, name: &str, key: &str, digits: usize) -> String {
        match self.engines[name].spread.get(key) {
            Some(s) => {
                let [median, least, most] = [s.median, s.least, s.most].map(|figure| number(figure, digits));
                if self.plan.runs > 1 { format!("{median} ({least} to {most})") } else { median }
            }
            None => "not counted".into(),
        }
    }

    fn plot(&self) -> String {
        let panels: Vec<svg::Panel> = FIGURES
            .iter()
            .map(|&(key, heading, digits)| svg::Panel {
                heading: heading.into(),
                digits,
                bars: Kind::ALL
                    .iter()
                    .filter_map(|kind| {
                        let spread = self.engines[kind.name()].spread.get(key)?;
                        Some((kind.name().to_owned(), spread.median))
                    })
                    .collect(),
            })
            .collect();
        svg::bars("Journals: the same records, every commit synced", &panels)
    }
}

impl Engine {
    fn new(kind: Kind, outcomes: &Outcomes) -> Result<Engine> {
        let paced = &outcomes.paced[&kind];
        let flat: Vec<_> = outcomes.flat.iter().filter(|((of, ..), _)| *of == kind).collect();
        let rate = |runs: &[FlatOutcome]| median(runs.iter().map(|run| run.spent.records_per_s()));
        let by_window = |overlapping| {
            let of_window = flat.iter().filter(move |((_, _, window), _)| (*window == WINDOW) == overlapping);
            of_window.map(|((_, commit, _), runs)| (*commit, rate(runs))).collect::<BTreeMap<_, _>>()
        };
        let best = flat.iter().max_by(|(_, a), (_, b)| rate(a).total_cmp(&rate(b)));
        let ((_, best_commit, _), best) = best.context("nothing ran flat out")?;
        let figures: [Option<Spread>; 6] = [
            Spread::of(best.iter().map(|run| run.spent.records_per_s())),
            Spread::of(paced.iter().map(|run| run.spent.cpu_us_per_record())),
            Spread::of(paced.iter().filter_map(PacedOutcome::device_bytes_per_payload_byte)),
            Spread::of(paced.iter().filter_map(PacedOutcome::flushes_per_commit)),
            Spread::of(outcomes.killed[&kind].iter().map(|run| run.ready_s)),
            Spread::of(outcomes.killed[&kind].iter().map(|run| run.rss_mib)),
        ];
        let spread = FIGURES.iter().zip(figures).filter_map(|((key, ..), s)| Some((*key, s?))).collect();
        Ok(Engine {
            records_per_s: rate(best),
            steady: Steady::of(paced),
            ready_s: median(outcomes.killed[&kind].iter().map(|run| run.ready_s)),
            rss_mib: median(outcomes.killed[&kind].iter().map(|run| run.rss_mib)),
            best_commit: *best_commit,
            cpu_us_per_record_flat_out: median(best.iter().map(|run| run.spent.cpu_us_per_record())),
            records_per_s_by_commit: by_window(true),
            records_per_s_one_by_one: by_window(false),
            rss_mib_flat_out: median(best.iter().map(|run| run.rss_mib)),
            rss_mib_empty: median(outcomes.empty[&kind].iter().map(|run| run.rss_mib)),
            ready_s_closed: median(outcomes.closed[&kind].iter().map(|run| run.ready_s)),
            spread,
        })
    }
}

impl Steady {
    fn of(runs: &[PacedOutcome]) -> Steady {
        let counted = |figure: fn(&PacedOutcome) -> Option<f64>| {
            Spread::of(runs.iter().filter_map(figure)).map(|spread| spread.median)
        };
        Steady {
            cpu_us_per_record: median(runs.iter().map(|run| run.spent.cpu_us_per_record())),
            device_bytes_per_payload_byte: counted(PacedOutcome::device_bytes_per_payload_byte),
            flushes_per_commit: counted(PacedOutcome::flushes_per_commit),
            commit_ms_p50: median(runs.iter().map(|run| run.commit.p50_ms)),
            commit_ms_p99: median(runs.iter().map(|run| run.commit.p99_ms)),
            late_commits: runs.iter().map(|run| run.late).sum(),
            rss_mib_paced: median(runs.iter().map(|run| run.rss_mib)),
        }
    }
}

fn bars(engines: &BTreeMap<&str, Engine>) -> Result<Vec<Bar>> {
    let ours = engines.get("ours").context("ours did not run")?;
    let mut bars = vec![
        Bar::at_most("device bytes per payload byte", ours.steady.device_bytes_per_payload_byte, 1.3),
        // The rest is what a new segment takes: one commit in hundreds.
        Bar::at_most("flushes per commit", ours.steady.flushes_per_commit, 1.05),
    ];
    for (name, engine) in engines.iter().filter(|(name, _)| **name != "ours") {
        let cpu = engine.steady.cpu_us_per_record / ours.steady.cpu_us_per_record;
        bars.push(Bar::at_least(&format!("records per CPU second, ours over {name}"), Some(cpu), 2.5));
    }
    for (name, engine) in engines.iter().filter(|(name, _)| **name != "ours") {
        let rate = ours.records_per_s / engine.records_per_s;
        bars.push(Bar::at_least(&format!("top rate, ours over {name}"), Some(rate), 2.0));
    }
    bars.push(Bar::at_most("s until the backlog is ready, after a kill", Some(ours.ready_s), 0.5));
    bars.push(Bar::at_most("s until the backlog is ready, closed cleanly", Some(ours.ready_s_closed), 0.5));
    for (what, mib) in
        [("backlog", ours.rss_mib), ("paced", ours.steady.rss_mib_paced), ("flat out", ours.rss_mib_flat_out)]
    {
        let growth = mib - ours.rss_mib_empty;
        bars.push(Bar::at_most(&format!("MiB more than with an empty journal, {what}"), Some(growth), 16.0));
    }
    Ok(bars)
}
