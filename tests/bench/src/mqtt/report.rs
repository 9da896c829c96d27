//! What the benchmark `mqtt` says.

use serde::Serialize;

use super::load::PAYLOAD_BYTES;
use super::{CASES, Case, Cost, Outcomes, PACE, Plan, Throughput, WAYS, Way};
use crate::cli::Common;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::{Spread, median};
use crate::svg;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    throughput: Vec<Compared>,
    cost: Vec<Costs>,
    bars: Vec<Bar>,
}

/// One case. Each figure is the median of the runs.
#[derive(Debug, Serialize)]
struct Compared {
    name: String,
    case: Case,
    ours_per_s: f64,
    rumqttc_per_s: f64,
    /// Of the ratios of the runs.
    ratio: Option<Spread>,
    rumqttc_cpu_us: f64,
    broker_cpu_us: f64,
    runs: Vec<Throughput>,
}

/// One way. Each figure is the median of the runs.
#[derive(Debug, Serialize)]
struct Costs {
    name: String,
    way: Way,
    /// User and system.
    cpu_us: Option<Spread>,
    median: Cost,
    runs: Vec<Cost>,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, outcomes: &Outcomes) -> Report {
        let throughput: Vec<Compared> = CASES.iter().map(|case| Compared::of(*case, outcomes)).collect();
        let cost: Vec<Costs> = WAYS.iter().map(|way| Costs::of(*way, outcomes)).collect();
        let wide =
            throughput.iter().filter(|compared| compared.case.live && compared.case.in_flight >= 1_000);
        let bars = wide.map(|compared| {
            let name = format!("ours over rumqttc, {}", compared.name);
            Bar::at_least(&name, compared.ratio.map(|ratio| ratio.median), 0.8)
        });
        let full_speed = cost.iter().filter(|costs| !costs.way.paced);
        let bars = bars.chain(full_speed.map(|costs| {
            let name = format!("CPU s per million messages, {}", costs.name);
            Bar::at_most(&name, costs.cpu_us.map(|cpu| cpu.median), 10.0)
        }));
        let bars = bars.collect();
        let settings = vec![
            format!(
                "JSON of {PAYLOAD_BYTES} bytes from 50 devices at QoS 1 over one mosquitto with persistence"
            ),
            "ours: [ack] after = \"journal\", fdatasync before every ack; throughput without a database"
                .into(),
            "rumqttc: manual acks from a task of its own, one thread, nothing kept".into(),
            format!("cost: from ready until all is in the database; calm is {PACE} messages/s"),
        ];
        Report { bench: "mqtt", machine, settings, plan: plan.clone(), throughput, cost, bars }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> anyhow::Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let head = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        let text = format!("{head}median of {} runs (least to most)\n\n", self.plan.runs);
        format!("{text}{}\n{}", self.throughput_table(), self.cost_table())
    }

    fn throughput_table(&self) -> Table {
        let headings = ["ours/s", "rumqttc/s", "ours/rumqttc", "rumqttc CPU µs", "mosquitto CPU µs"];
        let mut table = Table::new("throughput", &headings);
        for compared in &self.throughput {
            let cells = [
                number(compared.ours_per_s, 0),
                number(compared.rumqttc_per_s, 0),
                self.spread(compared.ratio, 2),
                number(compared.rumqttc_cpu_us, 1),
                number(compared.broker_cpu_us, 1),
            ];
            table.row(&compared.name, cells);
        }
        table
    }

    fn cost_table(&self) -> Table {
        let headings = [
            "CPU s/million",
            "user",
            "system",
            "acked/s",
            "messages/commit",
            "journal bytes",
            "peak MiB",
            "mosquitto CPU",
        ];
        let mut table = Table::new("cost of a message", &headings);
        for costs in &self.cost {
            let cost = &costs.median;
            let cells = [
                self.spread(costs.cpu_us, 2),
                number(cost.user_us, 2),
                number(cost.system_us, 2),
                number(cost.acked_per_s, 0),
                number(cost.messages_per_commit, 0),
                number(cost.journal_bytes, 1),
                number(cost.peak_rss_mib, 1),
                number(cost.broker_cpu_us, 1),
            ];
            table.row(&costs.name, cells);
        }
        table
    }

    fn spread(&self, spread: Option<Spread>, digits: usize) -> String {
        let Some(Spread { median, least, most }) = spread else { return "-".into() };
        let [median, least, most] = [median, least, most].map(|figure| number(figure, digits));
        if self.plan.runs > 1 { format!("{median} ({least} to {most})") } else { median }
    }

    fn plot(&self) -> String {
        let throughput = self.throughput.iter().map(|compared| svg::Panel {
            heading: format!("messages/s, {}", compared.name),
            digits: 0,
            bars: vec![("ours".into(), compared.ours_per_s), ("rumqttc".into(), compared.rumqttc_per_s)],
        });
        let cost = self.cost.iter().map(|costs| svg::Panel {
            heading: format!("CPU s per million messages, {}", costs.name),
            digits: 1,
            bars: vec![
                ("ours".into(), costs.median.cpu_us()),
                ("mosquitto".into(), costs.median.broker_cpu_us),
            ],
        });
        let panels: Vec<svg::Panel> = throughput.chain(cost).collect();
        svg::bars("MQTT: every message on disk before its ack", &panels)
    }
}

impl Compared {
    fn of(case: Case, outcomes: &Outcomes) -> Compared {
        let runs: Vec<Throughput> =
            outcomes.throughput.iter().filter(|(of, _)| *of == case).map(|(_, run)| *run).collect();
        let of = |figure: fn(&Throughput) -> f64| median(runs.iter().map(figure));
        Compared {
            name: case.name(),
            case,
            ours_per_s: of(|run| run.ours_per_s),
            rumqttc_per_s: of(|run| run.rumqttc_per_s),
            ratio: Spread::of(runs.iter().map(|run| run.ours_per_s / run.rumqttc_per_s)),
            rumqttc_cpu_us: of(|run| run.rumqttc_cpu_us),
            broker_cpu_us: of(|run| run.broker_cpu_us),
            runs,
        }
    }
}

impl Costs {
    fn of(way: Way, outcomes: &Outcomes) -> Costs {
        let runs: Vec<Cost> =
            outcomes.costs.iter().filter(|(of, _)| *of == way).map(|(_, run)| *run).collect();
        let of = |figure: fn(&Cost) -> f64| median(runs.iter().map(figure));
        let median = Cost {
            acked_per_s: of(|run| run.acked_per_s),
            user_us: of(|run| run.user_us),
            system_us: of(|run| run.system_us),
            journal_bytes: of(|run| run.journal_bytes),
            messages_per_commit: of(|run| run.messages_per_commit),
            peak_rss_mib: of(|run| run.peak_rss_mib),
            broker_cpu_us: of(|run| run.broker_cpu_us),
        };
        Costs { name: way.name(), way, cpu_us: Spread::of(runs.iter().map(Cost::cpu_us)), median, runs }
    }
}
