//! What the machine says of this process and its disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;
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

/// What the kernel accounts of what this process reads and writes; none if it does not.
static ACCOUNT: OnceLock<Option<File>> = OnceLock::new();

/// Longest content of it that is read, in bytes; it has some 150.
const ACCOUNT_BYTES_MAX: usize = 1024;

impl Machine {
    /// Opens what a process that keeps its memory from others may not open any more, not even of itself; what is open can be
    /// read for good. Call it first.
    pub fn begin() {
        ACCOUNT.get_or_init(|| File::open("/proc/self/io").ok());
    }

    /// Asks, for a process that has run for `uptime`. The disk is asked too, which may wait for it.
    #[must_use]
    pub fn read(data_dir: &Path, uptime: Duration) -> Machine {
        Machine { disk_free_bytes: disk_free_bytes(data_dir), ..Machine::of_process(uptime) }
    }

    /// The same without the disk.
    #[must_use]
    pub fn of_process(uptime: Duration) -> Machine {
        Machine::begin();
        let account = ACCOUNT.get().and_then(Option::as_ref);
        let status = std::fs::read_to_string("/proc/self/status").ok();
        Machine {
            disk_free_bytes: None,
            resident_bytes: status
                .and_then(|status| number_in(&status, "VmRSS:"))
                .map(|kibibytes| kibibytes.saturating_mul(1024)),
            uptime_s: uptime.as_secs(),
            written_bytes: account.and_then(written),
        }
    }
}

/// Asks the disk, which may wait for it.
pub(super) fn disk_free_bytes(data_dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data_dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn written(account: &File) -> Option<u64> {
    let mut bytes = [0; ACCOUNT_BYTES_MAX];
    let length = account.read_at(&mut bytes, 0).ok()?;
    number_in(std::str::from_utf8(bytes.get(..length)?).ok()?, "write_bytes:")
}

/// The number behind `key` at the beginning of a line.
fn number_in(text: &str, key: &str) -> Option<u64> {
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
        assert_eq!(machine.written_bytes.is_some(), Path::new("/proc/self/io").exists());
    }

    #[test]
    fn a_number_stands_behind_its_key() {
        let text = "VmSize:\t  12 kB\nVmRSS:\t   345 kB\ncancelled_write_bytes: 7\nwrite_bytes: 4096\n";
        assert_eq!((number_in(text, "VmRSS:"), number_in(text, "write_bytes:")), (Some(345), Some(4096)));
        assert_eq!(number_in(text, "NoSuchKey:"), None);
    }
}
