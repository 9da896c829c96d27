//! What the benchmark `backlog` says.

use serde::Serialize;

use super::{BATCH, LIVE_PACE, OUTAGE_PACE, Outcome, Plan};
use crate::cli::Common;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::median;
use crate::svg;

/// Everything that was found out. Figures are medians of the runs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    outcome: Outcome,
    runs: Vec<Outcome>,
    bars: Vec<Bar>,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, runs: Vec<Outcome>) -> Report {
        let of = |figure: fn(&Outcome) -> f64| median(runs.iter().map(figure));
        let outcome = Outcome {
            bare_per_s: of(|run| run.bare_per_s),
            drained_per_s: of(|run| run.drained_per_s),
            beside_live_per_s: of(|run| run.beside_live_per_s),
            live: runs.iter().map(|run| run.live).sum(),
            live_p50_s: of(|run| run.live_p50_s),
            live_p95_s: of(|run| run.live_p95_s),
            live_max_s: of(|run| run.live_max_s),
            caught_up_s: of(|run| run.caught_up_s),
            outage_bare_s: of(|run| run.outage_bare_s),
        };
        let drain = of(|run| run.drained_per_s / run.bare_per_s);
        let late = of(|run| run.caught_up_s - 1.0 - 1.25 * run.outage_bare_s);
        let bars = vec![
            Bar::at_least("drain rate, of a bare bulk load", Some(drain), 0.8),
            Bar::at_most("s to the database at p95, live, beside a backlog", Some(outcome.live_p95_s), 2.0),
            Bar::at_most("s of catching up beyond 1 s and 1.25 bare bulk loads", Some(late), 0.0),
        ];
        let settings = vec![
            format!(
                "InfluxDB 1, batches of {BATCH}, one in flight, gzip level 1, through one relay, live_first"
            ),
            format!(
                "a backlog of {} rows over a day; {LIVE_PACE} live messages/s beside it; an outage of {} s at {OUTAGE_PACE} messages/s",
                plan.messages, plan.outage_s
            ),
        ];
        Report { bench: "backlog", machine, settings, plan: plan.clone(), outcome, runs, bars }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> anyhow::Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let head = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        let mut table = Table::new("", &["rows/s", "live p50 s", "p95 s", "most s", "caught up s"]);
        let (of, none) = (&self.outcome, || "-".to_owned());
        let bare = [number(of.bare_per_s, 0), none(), none(), none(), number(of.outage_bare_s, 2)];
        table.row("bare bulk load", bare);
        table.row("backlog", [number(of.drained_per_s, 0), none(), none(), none(), none()]);
        let live = [of.live_p50_s, of.live_p95_s, of.live_max_s].map(|s| number(s, 2));
        let [p50, p95, most] = live;
        table.row("beside live", [number(of.beside_live_per_s, 0), p50, p95, most, none()]);
        table.row("outage", [none(), none(), none(), none(), number(of.caught_up_s, 2)]);
        format!("{head}median of {} runs\n\n{table}", self.plan.runs)
    }

    fn plot(&self) -> String {
        let of = &self.outcome;
        let panel = |heading: &str, digits, bars: &[(&str, f64)]| svg::Panel {
            heading: heading.into(),
            digits,
            bars: bars.iter().map(|(name, figure)| ((*name).into(), *figure)).collect(),
        };
        let rates =
            [("bare", of.bare_per_s), ("backlog", of.drained_per_s), ("beside live", of.beside_live_per_s)];
        let live = [("p50", of.live_p50_s), ("p95", of.live_p95_s), ("most", of.live_max_s)];
        let outage = [("bare", of.outage_bare_s), ("caught up", of.caught_up_s)];
        let panels = [
            panel("rows/s", 0, &rates),
            panel("live rows beside a backlog, s", 2, &live),
            panel("behind an outage, s", 2, &outage),
        ];
        svg::bars("A database that comes back", &panels)
    }
}
