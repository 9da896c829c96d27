//! What the benchmark `link` says.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::rig::LOOK_MS;
use super::size::Sizes;
use super::{Efficiency, LINGER_MS, OUTAGES, Outcomes, Plan, RELEASE_MS, Resume};
use crate::cli::Common;
use crate::publish::{self, Bar, Table, number};
use crate::svg;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    settings: Vec<String>,
    plan: Plan,
    bytes_per_reading: BTreeMap<&'static str, Sizes>,
    efficiency: Vec<Busy>,
    resume: Vec<Resume>,
    frames_lost_by_one_byte: usize,
    bars: Vec<Bar>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Busy {
    baud: u64,
    ring_bytes: usize,
    ring_peak_bytes: usize,
    frame_loss_percent: f64,
    efficiency_percent: f64,
    repeated_blocks: u32,
}

impl Report {
    pub(super) fn new(plan: &Plan, outcomes: &Outcomes) -> Report {
        let settings = vec![
            "bytes a reading: everything that a frame or line takes; full blocks unless a row a frame is said".into(),
            format!(
                "efficiency: wire time of the data frames that were accepted, each counted once, by the time that \
                 passed; {RELEASE_MS} ms from receipt to release, 1 ms of delay each way, frames damaged both ways"
            ),
            format!(
                "resume: from the plugging in, after which a gateway looks for its port within {LOOK_MS} ms, or from \
                 the gateway's return, until new rows are accepted; {} trials each; linger {LINGER_MS} ms",
                plan.trials
            ),
        ];
        Report {
            bench: "link",
            settings,
            plan: plan.clone(),
            bytes_per_reading: outcomes.sizes.iter().map(|(name, _, sizes)| (*name, *sizes)).collect(),
            efficiency: outcomes.efficiency.iter().map(Busy::of).collect(),
            resume: outcomes.resume.clone(),
            frames_lost_by_one_byte: outcomes.frames_lost_max,
            bars: bars(outcomes),
        }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let headings: Vec<&str> = WAYS.iter().map(|(name, _)| *name).chain(["rows a frame"]).collect();
        let mut sizes = Table::new("bytes a reading", &headings);
        for (name, size) in &self.bytes_per_reading {
            let cells = WAYS.iter().map(|(_, of)| number(of(size), 2));
            sizes.row(name, cells.chain([number(size.rows_a_frame, 1)]));
        }
        let headings = ["ring bytes", "at most used", "frames lost %", "efficiency %", "blocks repeated"];
        let mut busy = Table::new("baud", &headings);
        for line in &self.efficiency {
            let figures = [
                (line.ring_bytes as f64, 0),
                (line.ring_peak_bytes as f64, 0),
                (line.frame_loss_percent, 0),
                (line.efficiency_percent, 2),
                (f64::from(line.repeated_blocks), 0),
            ];
            busy.row(&number(line.baud as f64, 0), figures.map(|(figure, digits)| number(figure, digits)));
        }
        let mut resume = Table::new("resumed after", &["outage s, or more", "median ms", "most ms"]);
        for Resume { after, outage_ms, median_ms, most_ms, .. } in &self.resume {
            let figures = [(*outage_ms as f64 / 1e3, 1), (*median_ms, 0), (*most_ms as f64, 0)];
            resume.row(after, figures.map(|(figure, digits)| number(figure, digits)));
        }
        format!("{}\n\n{sizes}\n{busy}\n{resume}", self.settings.join("\n"))
    }

    fn plot(&self) -> String {
        let of_series = |(name, size): (&&str, &Sizes)| svg::Panel {
            heading: format!("{name}: bytes a reading"),
            digits: 2,
            bars: WAYS.iter().map(|(way, of)| ((*way).to_owned(), of(size))).collect(),
        };
        let mut panels: Vec<svg::Panel> = self.bytes_per_reading.iter().map(of_series).collect();
        let name = |line: &Busy| format!("{} k, {} %", line.baud / 1_000, line.frame_loss_percent);
        panels.push(svg::Panel {
            heading: "Efficiency of the line in percent: baud, frames lost".into(),
            digits: 2,
            bars: self.efficiency.iter().map(|line| (name(line), line.efficiency_percent)).collect(),
        });
        svg::bars("The device link", &panels)
    }
}

/// A way to send a reading: what it is called, and its figure.
type Way = (&'static str, fn(&Sizes) -> f64);

const WAYS: [Way; 6] = [
    ("ours", |sizes| sizes.device),
    ("ours, 1 row", |sizes| sizes.device_row_a_frame),
    ("plain", |sizes| sizes.plain_blocks),
    ("plain, 1 row", |sizes| sizes.plain_row_a_frame),
    ("JSON", |sizes| sizes.json),
    ("line prot.", |sizes| sizes.line_protocol),
];

fn bars(outcomes: &Outcomes) -> Vec<Bar> {
    let sizes = outcomes.sizes.iter().filter_map(|(name, bar, sizes)| {
        Some(Bar::at_most(&format!("bytes a reading, {name}"), Some(sizes.device), (*bar)?))
    });
    let busy = outcomes.efficiency.iter().map(|line| {
        let name = format!("efficiency %, {} baud, {} % lost", line.baud, line.loss_ppm as f64 / 1e4);
        Bar::at_least(&name, Some(line.used.efficiency * 100.0), line.bar * 100.0)
    });
    let resume = OUTAGES.iter().map(|(_, after, bar_ms)| {
        let of_kind = outcomes.resume.iter().filter(|resume| resume.after == *after);
        let most_ms = of_kind.map(|resume| resume.most_ms).max();
        Bar::at_most(&format!("ms until rows come again, {after}"), most_ms.map(|ms| ms as f64), *bar_ms)
    });
    let damage = Bar::at_most("frames lost by one damaged byte", Some(outcomes.frames_lost_max as f64), 2.0);
    sizes.chain(busy).chain(resume).chain([damage]).collect()
}

impl Busy {
    fn of(line: &Efficiency) -> Busy {
        Busy {
            baud: line.baud,
            ring_bytes: line.ring_bytes,
            ring_peak_bytes: line.used.ring_peak_bytes,
            frame_loss_percent: line.loss_ppm as f64 / 1e4,
            efficiency_percent: line.used.efficiency * 100.0,
            repeated_blocks: line.used.repeated_blocks,
        }
    }
}
