//! Where the serial ports of a fleet are: links in a directory that belongs to one fleet at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// A directory that no other fleet has.
#[derive(Debug)]
pub(super) struct Ports {
    directory: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Ports {
    /// Takes the directory, and removes the links of a fleet that was killed: what they lead to is somebody else's by
    /// now.
    pub(super) fn take(directory: PathBuf) -> anyhow::Result<Ports> {
        let cannot = || format!("the ports cannot be in {}; name another with --ports", directory.display());
        std::fs::create_dir_all(&directory).with_context(cannot)?;
        let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock"));
        let lock = lock.with_context(cannot)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let directory = directory.display();
            anyhow::anyhow!("{directory} has the ports of another fleet that runs; name another with --ports")
        })?;
        for entry in std::fs::read_dir(&directory).with_context(cannot)?.flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && is_port(&entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path()).with_context(cannot)?;
            }
        }
        Ok(Ports { directory, _lock: lock })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The lines with which a gateway serves all of them.
    pub(super) fn configuration(&self) -> String {
        // A JSON string is a TOML string too.
        let pattern = serde_json::Value::from(self.directory.join("port*").to_string_lossy());
        format!("[[serial]]\nport = {pattern}\nclaim = \"any\"\n")
    }
}

fn is_port(name: &str) -> bool {
    let number = name.strip_prefix("port").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_fleets_and_links_of_a_dead_one_go() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("ports");
        let first = Ports::take(directory.clone()).unwrap();
        let refused = Ports::take(directory.clone()).unwrap_err().to_string();
        assert!(refused.contains("another fleet") && refused.contains("--ports"), "{refused}");
        for name in ["port0", "portal"] {
            std::os::unix::fs::symlink("/dev/null", directory.join(name)).unwrap();
        }
        std::fs::write(directory.join("port1"), "").unwrap();
        drop(first);
        let second = Ports::take(directory.clone()).unwrap();
        assert!(!directory.join("port0").is_symlink() && directory.join("portal").is_symlink());
        assert!(directory.join("port1").exists(), "no file of anybody is removed");
        let config = format!("data_dir = \"/d\"\n{}", second.configuration());
        let file = scratch.path().join("forebay.toml");
        std::fs::write(&file, config).unwrap();
        assert_eq!(forebay_gateway::config::load(&file).unwrap().config.serial.len(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_names_itself_and_the_cure() {
        let refused = format!("{:#}", Ports::take("/proc/none".into()).unwrap_err());
        assert!(refused.contains("/proc/none") && refused.contains("--ports"), "{refused}");
    }
}
