//! What the machine says of this process and its disk.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The process and the disk under `data_dir`, as they are now. What cannot be known is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Bytes of the disk that the gateway's user may still fill.
    pub disk_free_bytes: Option<u64>,
    /// Memory of the process that is in use.
    pub resident_bytes: Option<u64>,
    /// Seconds since the gateway's start.
    pub uptime_s: u64,
    /// Bytes that the process has had the kernel write to disks since its start: journal, embedded database, dead letters,
    /// and what their file systems round up. What a card writes beyond that inside, nobody tells.
    pub written_bytes: Option<u64>,
}

impl Machine {
    /// Asks, for a process that has run for `uptime`. The disk is asked too, which may wait for it.
    #[must_use]
    pub fn read(data_dir: &Path, uptime: Duration) -> Machine {
        let disk = rustix::fs::statvfs(data_dir).ok();
        Machine {
            disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            resident_bytes: number_in("/proc/self/status", "VmRSS:")
                .map(|kibibytes| kibibytes.saturating_mul(1024)),
            uptime_s: uptime.as_secs(),
            written_bytes: number_in("/proc/self/io", "write_bytes:"),
        }
    }
}

/// The number behind `key` at the beginning of a line of a file of `/proc`.
fn number_in(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_of_memory_and_disk() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::read(directory.path(), Duration::from_millis(3_900));
        assert!(machine.resident_bytes.unwrap() > 100_000 && machine.disk_free_bytes.is_some());
        assert_eq!(machine.uptime_s, 3);
        assert_eq!(number_in("/proc/self/status", "NoSuchKey:"), None);
    }
}
