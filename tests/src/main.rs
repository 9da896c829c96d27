//! `forebay-sim`: the demo, simulated devices, and load.

mod sim;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulated devices for Forebay, and a demo that needs nothing installed.
#[derive(Debug, Parser)]
#[command(name = "forebay-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole path: devices, broker, gateway, store, an outage, and the ledger at the end
    Demo(sim::demo::Options),
    /// Keep simulated devices running against any broker or port
    Devices(sim::devices::Options),
    /// Publish as fast as the broker takes it, and say how fast that was
    Load(sim::load::Options),
}

fn main() -> ExitCode {
    // The demo and the tests run this binary again as the gateway. Its arguments are the gateway's own, so they are
    // handed over before anything here could read them.
    if std::env::args_os().nth(1).is_some_and(|command| command == "gateway") {
        return sim::gateway();
    }
    let outcome = match Arguments::parse_from(arguments()).command {
        Command::Demo(options) => sim::demo::run(&options),
        Command::Devices(options) => sim::devices::run(&options),
        Command::Load(options) => sim::load::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("forebay-sim: {error:#}");
        ExitCode::FAILURE
    })
}

/// The command line. `cargo demo -- --for 20s` brings its `--` along, behind the command that the alias names; it is
/// left out, since no command takes anything but options.
fn arguments() -> impl Iterator<Item = OsString> {
    let separator = std::env::args_os().nth(2).is_some_and(|argument| argument == "--");
    std::env::args_os()
        .enumerate()
        .filter(move |(at, _)| !(separator && *at == 2))
        .map(|(_, argument)| argument)
}
