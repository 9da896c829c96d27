//! What the benchmark `ack-modes` says.

use serde::Serialize;

use super::{KILLED_PACE, MODES, Mode, Outcome, PACE, Plan, WINDOW};
use crate::cli::Common;
use crate::mqtt::load::PAYLOAD_BYTES;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::{Latency, median};
use crate::svg;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    modes: Vec<Compared>,
    bars: Vec<Bar>,
}

/// One mode. Figures are medians of the runs, and sums where they count messages.
#[derive(Debug, Serialize)]
struct Compared {
    mode: Mode,
    outcome: Outcome,
    runs: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, outcomes: &[(Mode, Outcome)]) -> Report {
        let modes: Vec<Compared> = MODES.iter().map(|mode| Compared::of(*mode, outcomes)).collect();
        let safe = modes.iter().filter(|compared| compared.mode != Mode::Memory);
        let bars = safe.map(|compared| {
            let name = format!("acked rows lost at SIGKILL, {}", compared.mode.word());
            Bar::at_most(&name, Some(compared.outcome.lost as f64), 0.0)
        });
        let settings = vec![
            format!(
                "JSON of {PAYLOAD_BYTES} bytes from 50 devices at QoS 1, {WINDOW} in flight, into InfluxDB 1"
            ),
            format!("calm: {PACE} messages/s; killed: {} times at {KILLED_PACE} messages/s", plan.kills),
        ];
        let bars = bars.collect();
        Report { bench: "ack-modes", machine, settings, plan: plan.clone(), modes, bars }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> anyhow::Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let head = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        let headings = [
            "calm: ack p50 ms",
            "p99 ms",
            "writes/1000 readings",
            "full: acked/s",
            "writes/1000 readings",
            "killed: acked",
            "lost",
        ];
        let mut table = Table::new("[ack] after", &headings);
        for Compared { mode, outcome, .. } in &self.modes {
            let cells = [
                number(outcome.ack.p50_ms, 2),
                number(outcome.ack.p99_ms, 2),
                number(outcome.calm_writes, 1),
                number(outcome.acked_per_s, 0),
                number(outcome.full_writes, 2),
                number(outcome.acked as f64, 0),
                number(outcome.lost as f64, 0),
            ];
            table.row(mode.word(), cells);
        }
        format!("{head}median of {} runs, sums of what was acked and lost\n\n{table}", self.plan.runs)
    }

    fn plot(&self) -> String {
        let panel = |heading: &str, digits, figure: fn(&Outcome) -> f64| svg::Panel {
            heading: heading.into(),
            digits,
            bars: self.modes.iter().map(|one| (one.mode.word().into(), figure(&one.outcome))).collect(),
        };
        let panels = [
            panel("ack, p50 ms", 2, |outcome| outcome.ack.p50_ms),
            panel("acked/s", 0, |outcome| outcome.acked_per_s),
            panel("writes per 1,000 readings, calm", 1, |outcome| outcome.calm_writes),
            panel("acked rows lost at SIGKILL", 0, |outcome| outcome.lost as f64),
        ];
        svg::bars("[ack] after: write-behind and write-through", &panels)
    }
}

impl Compared {
    fn of(mode: Mode, outcomes: &[(Mode, Outcome)]) -> Compared {
        let runs: Vec<Outcome> = outcomes.iter().filter(|(of, _)| *of == mode).map(|(_, run)| *run).collect();
        let of = |figure: fn(&Outcome) -> f64| median(runs.iter().map(figure));
        let outcome = Outcome {
            ack: Latency {
                p50_ms: of(|run| run.ack.p50_ms),
                p99_ms: of(|run| run.ack.p99_ms),
                max_ms: of(|run| run.ack.max_ms),
            },
            acked_per_s: of(|run| run.acked_per_s),
            calm_writes: of(|run| run.calm_writes),
            full_writes: of(|run| run.full_writes),
            acked: runs.iter().map(|run| run.acked).sum(),
            lost: runs.iter().map(|run| run.lost).sum(),
        };
        Compared { mode, outcome, runs }
    }
}
