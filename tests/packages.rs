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
#[path = "packages/root.rs"]
mod root;
#[path = "packages/unit.rs"]
mod unit;

use std::path::{Path, PathBuf};

/// A file or directory of the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
