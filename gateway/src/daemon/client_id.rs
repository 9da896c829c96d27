//! The client id of a gateway whose configuration names none: made once, and kept.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// File in the data directory that a gateway with brokers has from its first start on.
pub(super) const FILE: &str = "client-id";

/// The client id that is kept in `data_dir`, if there is one yet.
#[must_use]
pub fn kept(data_dir: &Path) -> Option<String> {
    let id = fs::read_to_string(data_dir.join(FILE)).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// `forebay-<host>-<id>`: the broker keeps the session under this name, so it is kept whole, and outlives restarts and
/// a new name of the host. The id tells apart gateways whose hosts have one name.
pub(super) fn kept_or_new(data_dir: &Path) -> Result<String> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Ok(_) => new(data_dir, &path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => new(data_dir, &path),
        Err(e) => {
            bail!("{} cannot be read: {e}; the MQTT session is kept under the id in it", path.display())
        }
    }
}

fn new(data_dir: &Path, path: &Path) -> Result<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let random = getrandom::u32().context("the system gives no random numbers")?;
    let id = format!("forebay-{host}-{random:08x}");
    let draft = data_dir.join("client-id.new");
    let write = || {
        let mut file = fs::File::create(&draft)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::File::open(data_dir)?.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(id)
}
