//! The command line.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

/// Benchmarks of Forebay, each beside its alternatives in one run.
#[derive(Debug, Parser)]
#[command(bin_name = "tests/bench/run", arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) bench: Bench,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Our journal beside SQLite, fjall and redb: processor time, device bytes, flushes, top rate, cold start, memory.
    /// About 25 minutes
    Journal {
        #[command(flatten)]
        common: Common,
        /// Spare the others the work of deleting what was delivered; ours goes on recycling its files.
        #[arg(long)]
        append_only: bool,
    },
    /// Ack latency and rate of 1 to 1,000 senders beside a bare fdatasync loop, and what the commit interval spares.
    /// About 10 minutes
    Ack(Common),
    /// The three values of `[ack] after` side by side: how soon an ack comes, how many a second, how many writes the database
    /// gets, and what a kill loses. About 3 minutes
    AckModes(Common),
    /// A database that comes back: how fast a backlog drains beside a bare bulk load, how soon fresh rows are there, and when
    /// an outage is made up for. About 10 minutes
    Backlog(Common),
    /// Bytes a reading beside plain postcard, JSON and line protocol; how full a serial line is kept while frames are lost,
    /// and how soon it is in use again. About a minute, on a clock of its own
    Link(Common),
    /// Messages a second from mosquitto beside a subscriber that only acks, and the processor time, memory and bytes of a
    /// message on its way to a database. About 10 minutes
    Mqtt {
        #[command(flatten)]
        common: Common,
        /// Measure only what a message costs.
        #[arg(long)]
        cost_only: bool,
        /// Deliver so many messages in each measurement of what one costs, instead of 300,000.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        messages: Option<u64>,
    },
    /// How soon acks come while somebody attacks: slowloris, huge headers, 10,000 connections, wrong tokens, and devices that
    /// send garbage; each beside the same without. About 6 minutes
    Hostile(Common),
    /// Memory at rest and under load, the time from the start to the first ack, and the size of the program, all of what a
    /// package holds. About 10 minutes
    Footprint(Common),
    /// One measurement, in the process that was started for it.
    #[command(hide = true)]
    Task {
        /// Which task.
        name: String,
        /// The task as JSON.
        task: String,
    },
}

/// What all benchmarks take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Take seconds instead of minutes, to show that the benchmark works.
    #[arg(long)]
    pub(crate) quick: bool,
    /// End with status 1 if a bar is missed.
    #[arg(long)]
    pub(crate) check: bool,
    /// Runs of which the median counts; 5 unless told, 1 if quick.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Write the plot here instead of into the directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Where data is written, on the disk to be measured; `bench` beside the program's directory unless told.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl Common {
    /// How often the engines take turns, if that was told.
    pub(crate) fn runs(&self) -> Option<usize> {
        self.runs.map(usize::from)
    }

    /// The directory for data and plots.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let directory = match &self.dir {
            Some(directory) => directory.clone(),
            None => {
                let program = env::current_exe()?;
                let target = program.ancestors().nth(2).context("the program lies nowhere")?;
                target.join("bench")
            }
        };
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_is_said_without_arguments_names_every_benchmark() {
        let script = include_str!("../run");
        let command = Cli::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .filter(|bench| !bench.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        assert!(names.len() > 5, "{names:?}");
        for name in names {
            assert!(script.contains(&format!("\n  {name} ")), "{name} is missing in tests/bench/run");
        }
    }
}
