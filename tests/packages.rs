//! What is installed: the unit, the example configuration, the container's files, and the Debian package from its
//! installation to its purge.
//!
//! What takes minutes is ignored unless it is asked for, as `tests/run --long packages` does.

#[path = "packages/container.rs"]
mod container;
#[path = "packages/cross.rs"]
mod cross;
#[path = "packages/deb.rs"]
mod deb;
#[path = "packages/pages.rs"]
mod pages;
#[path = "packages/root.rs"]
mod root;
#[path = "packages/systemd.rs"]
mod systemd;
#[path = "packages/unit.rs"]
mod unit;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A script of the checkout, which builds as it would from a shell: what cargo tells a test of its package would have other
/// packages built anew.
fn script(path: &str) -> Command {
    let mut command = Command::new(checkout(path));
    command.current_dir(checkout("")).stdin(Stdio::null());
    let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE"];
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO") && !kept.contains(&name.as_str())) {
        command.env_remove(name);
    }
    command
}

/// A file or directory of the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
