//! What the benchmark `footprint` says.

use serde::Serialize;

use super::{ALLOCATOR, FirstAck, Memory, Outcomes, PACE, Plan, STORES, Size, Store, mib};
use crate::cli::Common;
use crate::mqtt::load::PAYLOAD_BYTES;
use crate::process::Machine;
use crate::publish::{self, Bar, Table, number};
use crate::statistics::median;
use crate::svg;

/// MiB at rest, and at [`PACE`].
const REST_MIB_MAX: f64 = 12.0;
const LOAD_MIB_MAX: f64 = 24.0;

/// Milliseconds to the first ack, with an empty journal and with a full one.
const EMPTY_MS_MAX: f64 = 300.0;
const FULL_MS_MAX: f64 = 1_000.0;

/// MiB of the stripped program.
const SIZE_MIB_MAX: f64 = 12.0;

/// Everything that was found out. Figures are medians of the runs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    settings: Vec<String>,
    plan: Plan,
    memory: Vec<Memory>,
    first_ack: FirstAck,
    size: Size,
    memory_runs: Vec<Memory>,
    first_ack_runs: Vec<FirstAck>,
    bars: Vec<Bar>,
}

impl Report {
    pub(super) fn new(plan: &Plan, machine: Machine, outcomes: &Outcomes) -> Report {
        let memory: Vec<Memory> = STORES.map(|store| memory_of(store, &outcomes.memory)).into();
        let ack = |figure: fn(&FirstAck) -> f64| median(outcomes.first_ack.iter().map(figure));
        let first_ack = FirstAck { empty_ms: ack(|run| run.empty_ms), full_ms: ack(|run| run.full_ms) };
        let size = outcomes.size;
        let most = |figure: fn(&Memory) -> f64| memory.iter().map(figure).fold(0.0, f64::max);
        let bars = vec![
            Bar::at_most("resident at rest, MiB", Some(most(|one| one.rest_mib)), REST_MIB_MAX),
            Bar::at_most(
                &format!("resident at {PACE} messages/s, MiB"),
                Some(most(|one| one.load_mib)),
                LOAD_MIB_MAX,
            ),
            Bar::at_most("first ack, empty journal, ms", Some(first_ack.empty_ms), EMPTY_MS_MAX),
            Bar::at_most("first ack, full journal, ms", Some(first_ack.full_ms), FULL_MS_MAX),
            Bar::at_most("stripped program, MiB", Some(mib(size.here)), SIZE_MIB_MAX),
            Bar::at_most("stripped program for aarch64, MiB", size.aarch64.map(mib), SIZE_MIB_MAX),
        ];
        let settings = vec![
            format!("JSON of {PAYLOAD_BYTES} bytes from 50 devices at QoS 1, for {} s", plan.load_s),
            format!(
                "full journal: {} MiB that no database has, nothing of it in the page cache",
                plan.journal_bytes >> 20
            ),
            format!("allocator: {ALLOCATOR}"),
        ];
        Report {
            bench: "footprint",
            machine,
            settings,
            plan: plan.clone(),
            memory,
            first_ack,
            size,
            memory_runs: outcomes.memory.clone(),
            first_ack_runs: outcomes.first_ack.clone(),
            bars,
        }
    }

    /// Prints and plots; whether every bar was met.
    pub(super) fn publish(&self, common: &Common) -> anyhow::Result<bool> {
        publish::publish(common, self.bench, self, &self.table(), &self.bars, &self.plot())
    }

    fn table(&self) -> String {
        let head = format!("{}\n{}\n", self.machine.line(), self.settings.join("\n"));
        let mut table = Table::new("resident, MiB", &["at rest", &format!("{PACE} messages/s")]);
        for Memory { store, rest_mib, load_mib } in &self.memory {
            table.row(store.word(), [number(*rest_mib, 1), number(*load_mib, 1)]);
        }
        format!("{head}median of {} runs\n\n{table}", self.plan.runs)
    }

    fn plot(&self) -> String {
        let memory = |figure: fn(&Memory) -> f64| {
            self.memory.iter().map(|one| (one.store.word().into(), figure(one))).collect()
        };
        let FirstAck { empty_ms, full_ms } = self.first_ack;
        let panel = |heading: &str, digits, bars| svg::Panel { heading: heading.into(), digits, bars };
        let panels = [
            panel("resident at rest, MiB", 1, memory(|one| one.rest_mib)),
            panel("resident under load, MiB", 1, memory(|one| one.load_mib)),
            panel("start to first ack, ms", 0, vec![("empty".into(), empty_ms), ("full".into(), full_ms)]),
        ];
        svg::bars("What the gateway takes", &panels)
    }
}

impl Store {
    fn word(self) -> &'static str {
        match self {
            Store::Sqlite => "SQLite",
            Store::Influxdb => "InfluxDB",
        }
    }
}

fn memory_of(store: Store, runs: &[Memory]) -> Memory {
    let of = |figure: fn(&Memory) -> f64| median(runs.iter().filter(|run| run.store == store).map(figure));
    Memory { store, rest_mib: of(|run| run.rest_mib), load_mib: of(|run| run.load_mib) }
}
