//! `forebay-sim load`: how fast a broker, and for native devices the gateway, takes rows.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use forebay_tests::device::{LoadDevice, NATIVE_PREFIX, Payload};
use forebay_tests::process::as_f64;

/// What `load` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The broker, as mqtt://HOST:PORT
    #[arg(long, value_name = "URL")]
    mqtt: String,
    /// How many devices publish at the same time
    #[arg(long, default_value_t = 50)]
    devices: u16,
    /// How many rows each of them has; with json and line-protocol a row is a message
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// What they publish
    #[arg(long, value_enum, default_value_t = Kind::Json)]
    payload: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// JSON objects on sensors/load-N/garden, with `time` in nanoseconds
    Json,
    /// The device link on forebay/v1/CHIP/up; counts what the gateway has released
    Native,
    /// Line protocol on lines/load-N
    LineProtocol,
}

/// Publishes, and prints the rate.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (host, port) = super::parse_broker(&options.mqtt)?;
    let payload = match options.payload {
        Kind::Json => Payload::Json,
        Kind::Native => Payload::Native,
        Kind::LineProtocol => Payload::LineProtocol,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let messages = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..options.devices {
            let (host, prefix) = (host.clone(), NATIVE_PREFIX.to_owned());
            tasks.spawn(LoadDevice { index, host, port, rows: options.messages, payload, prefix }.run());
        }
        let mut messages = 0;
        while let Some(ended) = tasks.join_next().await {
            messages += ended??;
        }
        anyhow::Ok(messages)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let rows = options.messages * u64::from(options.devices);
    println!(
        "{rows} rows in {messages} messages, all acknowledged after {seconds:.2} s: {:.0} messages/s, {:.0} rows/s",
        as_f64(messages) / seconds,
        as_f64(rows) / seconds
    );
    Ok(ExitCode::SUCCESS)
}
