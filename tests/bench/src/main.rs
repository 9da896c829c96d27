//! Benchmarks: each measures Forebay beside its alternatives in one run, and prints a table or JSON, and a plot.
//!
//! `tests/bench/run NAME [--json]` builds and runs this program; without arguments it says what there is.
//!
//! * `journal.rs`: our log beside SQLite, fjall and redb as journals (`engine.rs`) of the same records (`workload.rs`).
//! * `ack.rs`: ack latency and rate beside a bare fdatasync loop, and the wear curve.
//! * `modes.rs`: write-behind and write-through: what `[ack] after` costs and risks.
//! * `backlog.rs`: what a database gets when it comes back, beside a bare bulk load, and how soon it has fresh rows.
//! * `link.rs`: bytes a reading on a serial line beside other ways to send it, and how well the line is used.
//! * `mqtt.rs`: what comes from a broker beside a subscriber that only acks, and what a message costs all the way.
//! * `hostile.rs`: how long acks take while somebody attacks the gateway.
//! * `footprint.rs`: memory, the time to the first ack, and the size of the program.
//! * Each measurement of `journal` and `ack` is a task (`task.rs`) in a process of its own, on a loop device with
//!   counters (`device.rs`) where it is about wear.
//! * `publish.rs`, `svg.rs`: tables, JSON, plots and the bars that ours has to clear.
//!
//! This package is no member of the project's workspace, so that the engines compared with never reach the product's
//! lock file.

mod ack;
mod backlog;
mod cli;
mod device;
mod engine;
mod footprint;
mod hostile;
mod journal;
mod link;
mod modes;
mod mqtt;
mod process;
mod publish;
mod statistics;
mod svg;
mod task;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use cli::{Bench, Cli};

/// Tells whoever waits what is being done.
macro_rules! progress {
    ($($what:tt)*) => { eprintln!("bench: {}", format_args!($($what)*)) };
}
pub(crate) use progress;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let (common, met) = match &cli.bench {
        Bench::Journal { common, append_only } => (common, journal::run(common, *append_only)?),
        Bench::Ack(common) => (common, ack::run(common)?),
        Bench::AckModes(common) => (common, modes::run(common)?),
        Bench::Backlog(common) => (common, backlog::run(common)?),
        Bench::Link(common) => (common, link::run(common)?),
        Bench::Hostile(common) => (common, hostile::run(common)?),
        Bench::Mqtt { common, cost_only, messages } => (common, mqtt::run(common, *cost_only, *messages)?),
        Bench::Footprint(common) => (common, footprint::run(common)?),
        Bench::Task { name, task } => return task::run(name, task).map(|()| ExitCode::SUCCESS),
    };
    Ok(if met || !common.check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
