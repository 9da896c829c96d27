//! What the benchmark `hostile` says.

use serde::Serialize;

use super::device::{IN_FLIGHT, LINE_BYTES_PER_S};
use super::{ATTACKERS, Attacker, Outcome, PACE, Plan};
use crate::cli::Common;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::median;
use crate::svg;

/// How much longer acks may take, in the worst hundredth, while somebody attacks.
const P99_RATIO_MAX: f64 = 2.0;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    attacks: Vec<Compared>,
    bars: Vec<Bar>,
}

/// One attack: medians of the runs.
#[derive(Debug, Serialize)]
struct Compared {
    attacker: Attacker,
    alone_p99_ms: f64,
    attacked_p50_ms: f64,
    attacked_p99_ms: f64,
    attacked_max_ms: f64,
    attempts: f64,
    /// Of the medians of the latencies in the worst hundredth.
    p99_ratio: f64,
    runs: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, outcomes: &[Outcome]) -> Report {
        let attacks: Vec<Compared> =
            ATTACKERS.iter().map(|attacker| Compared::of(*attacker, outcomes)).collect();
        let bars = attacks.iter().map(|compared| {
            let name = format!("p99 of acks under {}, times that without", compared.attacker.name());
            Bar::at_most(&name, Some(compared.p99_ratio), P99_RATIO_MAX)
        });
        let settings = vec![
            format!(
                "JSON at QoS 1, {PACE} messages/s, into the embedded database; acks after the journal's sync"
            ),
            format!(
                "garbage: {IN_FLIGHT} messages in flight by MQTT; {LINE_BYTES_PER_S} bytes/s on the serial line"
            ),
        ];
        let bars = bars.collect();
        Report { bench: "hostile", machine, settings, plan: plan.clone(), attacks, bars }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> anyhow::Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let head = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        let headings = ["alone: p99 ms", "attacked: p50 ms", "p99 ms", "most ms", "p99 ratio", "attempts"];
        let mut table = Table::new("attack", &headings);
        for compared in &self.attacks {
            let cells = [
                number(compared.alone_p99_ms, 2),
                number(compared.attacked_p50_ms, 2),
                number(compared.attacked_p99_ms, 2),
                number(compared.attacked_max_ms, 1),
                number(compared.p99_ratio, 2),
                number(compared.attempts, 0),
            ];
            table.row(compared.attacker.name(), cells);
        }
        format!("{head}medians of {} runs of {} s\n\n{table}", self.plan.runs, self.plan.seconds)
    }

    fn plot(&self) -> String {
        let panel = |heading: &str, figure: fn(&Compared) -> f64| svg::Panel {
            heading: heading.into(),
            digits: 2,
            bars: self.attacks.iter().map(|one| (one.attacker.name().into(), figure(one))).collect(),
        };
        let panels = [
            panel("ack alone, p99 ms", |compared| compared.alone_p99_ms),
            panel("ack attacked, p99 ms", |compared| compared.attacked_p99_ms),
        ];
        svg::bars("acks while somebody attacks", &panels)
    }
}

impl Compared {
    fn of(attacker: Attacker, outcomes: &[Outcome]) -> Compared {
        let of_it = outcomes.iter().filter(|outcome| outcome.attacker == attacker);
        let runs: Vec<Outcome> = of_it.copied().collect();
        let of = |figure: fn(&Outcome) -> f64| median(runs.iter().map(figure));
        // The disk is as quick or slow as it is, whoever attacks: all that was measured without is one sample.
        let alone_p99_ms = median(outcomes.iter().map(|outcome| outcome.alone.p99_ms));
        let attacked_p99_ms = of(|run| run.attacked.p99_ms);
        Compared {
            attacker,
            alone_p99_ms,
            attacked_p50_ms: of(|run| run.attacked.p50_ms),
            attacked_p99_ms,
            attacked_max_ms: of(|run| run.attacked.max_ms),
            attempts: of(|run| run.attempts as f64),
            p99_ratio: attacked_p99_ms / alone_p99_ms,
            runs,
        }
    }
}
