//! The real services that the tests run against, each on a free port with a temporary directory of its own.
//!
//! A service is ready when it answers its own protocol, not when its process exists. Each can be stopped and started
//! again on the same port and directory, which is what the outage tests do.

mod embedded;
mod influxdb;
mod mosquitto;
mod victoria;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

pub use embedded::EmbeddedBroker;
pub use influxdb::InfluxDb;
pub use mosquitto::{Mosquitto, accepts_client, write_password};
pub use victoria::VictoriaMetrics;

/// How long a service may take to answer for the first time, on a machine that is building at the same time.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long a service may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Finds a program on the path or where the distributions put daemons.
///
/// # Errors
/// It is not installed; the message says how to get it.
fn program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed: apt-get install {package}, or run tests/run"))
}

/// A command of a program that a Debian package has.
///
/// # Errors
/// It is not installed; the message says how to get it.
pub fn command(name: &str, package: &str) -> anyhow::Result<Command> {
    Ok(Command::new(program(name, package)?))
}
