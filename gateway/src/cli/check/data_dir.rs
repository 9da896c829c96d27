//! The data directory and the embedded store in it.

use std::fs::{File, TryLockError};
use std::path::Path;

use rustix::fs::{Access, FsWord, PROC_SUPER_MAGIC, access, statfs};
use rustix::io::Errno;

use super::Finding;
use crate::cli::owner;
use crate::config::Config;
use crate::daemon;
use crate::journal::inspect::{self, KnownSink};
use crate::journal::storage::{Directory, Storage as _};
use crate::journal::{Capacity, Options};
use crate::sink::sqlite;
use crate::stats::Status;

/// Whether a gateway can use the directory. `running` is the pid of the gateway that uses it and answers.
pub(super) fn check(data_dir: &Path, running: Option<u32>) -> Finding {
    let name = data_dir.display();
    if let Some(pid) = running {
        return Ok(format!("{name} is used by the running gateway, process {pid}"));
    }
    if is_other_than_directory(data_dir) {
        return Err(format!("{name} is a file, not a directory; name another as data_dir"));
    }
    match access(data_dir, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if has_no_room_ever(data_dir) => return Err(no_room(data_dir, data_dir)),
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => return check_parent(data_dir),
        Err(error) => {
            return Err(format!(
                "{name} cannot be written: {error}; run `{}`, or give it to the gateway's user with chown",
                owner::as_owner_of(data_dir)
            ));
        }
    }
    // A gateway holds this lock for as long as it lives; taking it for a moment disturbs none that runs.
    let lock = data_dir.join("journal/lock");
    match File::open(&lock).map(|file| file.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => {
            let pid = std::fs::read_to_string(&lock).unwrap_or_default();
            let pid = pid.trim();
            Err(format!(
                "{name} is used by process {pid}, which does not answer; stop it, or name another data_dir"
            ))
        }
        _ => Ok(format!("{name} is writable and free")),
    }
}

/// What the journal can do on the disk that it is on, and what is wrong with that.
pub(super) fn check_journal(data_dir: &Path, options: &Options) -> Result<(String, Option<String>), String> {
    let exists = |path: &&Path| path.exists() && !path.as_os_str().is_empty();
    let directory = data_dir.ancestors().find(exists).unwrap_or(Path::new("."));
    let space = Directory::new(directory).space().map_err(|error| {
        format!("cannot ask how much room is on the disk of {}: {error}", data_dir.display())
    })?;
    let files = std::fs::read_dir(data_dir.join("journal")).into_iter().flatten().flatten();
    let own: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let room_bytes = space.free_bytes.saturating_add(own);
    let Capacity { segment_bytes, devices } = options.capacity(room_bytes);
    let max_mib = options.max_bytes >> 20;
    let what =
        format!("at most {max_mib} MiB in files of {} KiB, for some {devices} devices", segment_bytes >> 10);
    let short = (room_bytes < options.max_bytes).then(|| {
        format!(
            "the disk of {} has room for {} MiB of these {max_mib}: it is full before the journal is; make room, or lower \
             [journal] max_bytes",
            data_dir.display(),
            room_bytes >> 20
        )
    });
    Ok((what, short))
}

/// Whether there is something else in the directory's place.
fn is_other_than_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_dir())
}

/// Whether a file system holds no files of anybody: /proc and /sys let root write and make nothing.
fn has_no_room_ever(directory: &Path) -> bool {
    const SYSFS_MAGIC: FsWord = 0x6265_6572;
    statfs(directory).is_ok_and(|system| matches!(system.f_type, PROC_SUPER_MAGIC | SYSFS_MAGIC))
}

fn no_room(data_dir: &Path, directory: &Path) -> String {
    format!(
        "{} cannot be used: the file system of {} holds no files of anybody; name another as data_dir",
        data_dir.display(),
        directory.display()
    )
}

/// The databases that the journal knows: what the running gateway says, or what its next start will find.
///
/// # Errors
/// The journal cannot be read, and the gateway would not start; or it is gone, and its rows are lost with it.
pub(super) fn sinks(data_dir: &Path, running: Option<&Status>) -> Result<Vec<KnownSink>, String> {
    if let Some(status) = running {
        let confirmed = |name: &str| {
            let ledgers = status.devices.values().filter_map(|device| device.sinks.get(name));
            ledgers.map(|ledger| ledger.confirmed).fold(0, u64::saturating_add)
        };
        let sinks = status.sinks.iter();
        let known = sinks.map(|(name, sink)| KnownSink {
            name: name.clone(),
            owed: sink.backlog_rows,
            confirmed: confirmed(name),
        });
        return Ok(known.collect());
    }
    let directory = data_dir.join("journal");
    match directory.try_exists() {
        Ok(true) => inspect::sinks(&inspect::storage(&directory)).map_err(|error| error.to_string()),
        Ok(false) if daemon::was_in_use(data_dir) => Err(format!(
            "{} is gone although the directory was in use; rows that it held are lost, and nobody can count them; put it \
             back if you have it, or start forebay, which begins a new one",
            directory.display()
        )),
        Ok(false) => Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(format!("{} cannot be made, see data_dir", directory.display()))
        }
        Err(error) => Err(format!(
            "cannot look at {}: {error}; run `{}`",
            directory.display(),
            owner::as_owner_of(data_dir)
        )),
    }
}

/// Databases that are not configured any more and still lack rows, with what to do: the next start would be refused.
pub(super) fn abandoned(config: &Config, sinks: &[KnownSink]) -> Vec<(String, String)> {
    let gone = sinks.iter().filter(|sink| sink.owed > 0 && !config.has_sink(&sink.name));
    gone.map(|sink| (sink.name.clone(), daemon::lacks_rows(&sink.name, sink.owed))).collect()
}

fn check_parent(data_dir: &Path) -> Finding {
    let name = data_dir.display();
    let parent =
        data_dir.ancestors().skip(1).find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if is_other_than_directory(parent) {
        let parent = parent.display();
        return Err(format!("{name} cannot be made: {parent} is a file; name another as data_dir"));
    }
    match access(parent, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if has_no_room_ever(parent) => Err(no_room(data_dir, parent)),
        Ok(()) => Ok(format!("{name} will be made")),
        Err(error) => Err(format!(
            "{name} does not exist and cannot be made: {error}; run `install -d -m 750 -o USER {name}` with the \
             gateway's user"
        )),
    }
}

/// Whether the embedded store can be written, and is one. What a gateway has open is its business: looked at from outside it
/// may be half of a change. `confirmed` rows are in it by the journal's count, so that a file that is not there is gone.
pub(super) fn check_sqlite(path: &Path, data_dir: &Path, is_running: bool, confirmed: u64) -> Finding {
    let name = path.display();
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) if !path.is_file() => Err(format!("{name} is no file; name another as [sqlite] path")),
        Ok(()) if is_running => Ok(format!("{name} is writable")),
        Ok(()) => sqlite::look(path).map(|version| match version {
            0 => format!("{name} is writable, and empty"),
            version => format!("{name} is writable, of format {version}"),
        }),
        Err(Errno::NOENT) if path.ancestors().find(|above| above.exists()).is_some_and(has_no_room_ever) => {
            Err(format!("{name} cannot be made there; name another as data_dir, or as [sqlite] path"))
        }
        Err(Errno::NOENT) if confirmed > 0 => Err(format!(
            "{name} is not there, and the journal counts {confirmed} rows as stored in it; {}mount its disk, put it back, or \
             move it here if [sqlite] path was changed, before forebay starts again: without it a start begins a new one, \
             stores again what the journal still has, and declares the rest lost (sink_reset)",
            if is_running { "stop forebay and " } else { "" }
        )),
        Err(Errno::NOENT) => match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if !parent.exists() && !data_dir.starts_with(parent) => Err(format!(
                "{name} cannot be made: there is no directory {}; make it, and give it to the gateway's user",
                parent.display()
            )),
            Some(parent) if parent.exists() && access(parent, Access::WRITE_OK).is_err() => {
                Err(format!("{name} cannot be made; give its directory to the gateway's user with chown"))
            }
            _ => Ok(format!("{name} will be made")),
        },
        Err(Errno::NOTDIR) => {
            Err(format!("{name} cannot be made: it is below a file; name another as [sqlite] path"))
        }
        Err(error) => {
            Err(format!("{name} cannot be written: {error}; give it to the gateway's user with chown"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::{Entry, Fields, RowEntry};
    use crate::journal::{Class, Journal, Refused};

    #[test]
    fn a_directory_in_use_is_a_fault_unless_its_user_answers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(dir.path(), None).unwrap().contains("is writable and free"));
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        std::fs::write(dir.path().join("journal/lock"), "42\n").unwrap();
        let lock = File::open(dir.path().join("journal/lock")).unwrap();
        assert!(check(dir.path(), None).unwrap().contains("is writable and free"));
        lock.lock().unwrap();
        assert!(check(dir.path(), None).unwrap_err().contains("is used by process 42, which"));
        assert!(check(dir.path(), Some(7)).unwrap().contains("process 7"));
    }

    #[test]
    fn a_database_that_is_configured_no_more_and_lacks_rows_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..crate::config::of_text("") };
        let found = || abandoned(&config, &sinks(dir.path(), None).unwrap());
        assert_eq!(found(), [], "no journal yet");
        let directory = dir.path().join("journal");
        let journal = Journal::open_dir(&directory, &Options::sized(2 << 20)).unwrap().0;
        for sink in ["old", "sqlite"] {
            journal.register_sink(sink).unwrap();
        }
        let (device, series, fields) = ("d", "m", Fields::of(&[]));
        let row = RowEntry { device, boot: 0, sequence: 0, stamped: false, series, ns: 5, fields };
        let submitted: Result<((), _), Refused> =
            journal.submit(Class::Internal, |_, submission| submission.add(&Entry::Row(row)));
        submitted.unwrap();
        journal.close();
        let found = found();
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["old"]);
        assert!(found[0].1.contains("1 rows") && found[0].1.contains("sinks forget old"), "{found:?}");

        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::write(&directory, "no directory").unwrap();
        let unreadable = sinks(dir.path(), None).unwrap_err();
        assert!(unreadable.contains("cannot open the journal"), "{unreadable}");
    }

    #[test]
    fn the_journal_is_said_to_hold_what_its_files_allow() {
        let dir = tempfile::tempdir().unwrap();
        let (what, short) = check_journal(&dir.path().join("a/b"), &Options::sized(4 << 20)).unwrap();
        assert_eq!(what, "at most 4 MiB in files of 256 KiB, for some 144 devices");
        assert_eq!(short, None);
        let (_, short) = check_journal(dir.path(), &Options::sized(1 << 60)).unwrap();
        assert!(short.unwrap().contains("it is full before the journal is; make room, or lower"));
    }

    #[test]
    fn a_directory_that_is_missing_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(&dir.path().join("a/b"), None).unwrap().contains("will be made"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for below in [file.join("a/b"), file.clone()] {
            let said = check(&below, None).unwrap_err();
            assert!(said.contains("is a file") && said.contains("name another"), "{said}");
            assert!(sinks(&below, None).unwrap_err().contains("see data_dir"));
            assert!(
                check_sqlite(&below.join("x.sqlite"), &below, false, 0).unwrap_err().contains("below a file")
            );
        }
        for nowhere in ["/proc/x", "/proc/x/y", "/sys"] {
            assert!(check(Path::new(nowhere), None).is_err(), "{nowhere}");
            let below = Path::new(nowhere).join("x.sqlite");
            assert!(check_sqlite(&below, Path::new(nowhere), false, 0).is_err(), "{nowhere}");
        }
    }

    #[test]
    fn a_journal_that_is_gone_is_a_fault_where_one_was() {
        for left in ["client-id", "version"] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(sinks(dir.path(), None), Ok(vec![]));
            std::fs::write(dir.path().join(left), "x").unwrap();
            let gone = sinks(dir.path(), None).unwrap_err();
            assert!(gone.contains("journal is gone") && gone.contains("put it back"), "{gone}");
        }
    }

    #[test]
    fn the_embedded_store_is_looked_into_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str| check_sqlite(&dir.path().join(name), dir.path(), false, 0);
        assert!(check("").is_err(), "a directory");
        assert!(check("x.sqlite").unwrap().contains("will be made"));
        for is_running in [false, true] {
            let gone = check_sqlite(&dir.path().join("x.sqlite"), dir.path(), is_running, 7).unwrap_err();
            assert!(gone.contains("the journal counts 7 rows") && gone.contains("put it back"), "{gone}");
            assert_eq!(gone.contains("stop forebay"), is_running, "{gone}");
        }
        assert!(check("a/x.sqlite").unwrap_err().contains("there is no directory"));
        let made_later = dir.path().join("a");
        assert!(check_sqlite(&made_later.join("x.sqlite"), &made_later, false, 0).is_ok());
        std::fs::write(dir.path().join("x.sqlite"), "").unwrap();
        assert!(check("x.sqlite").unwrap().contains("is writable, and empty"));
        std::fs::write(dir.path().join("x.sqlite"), "random bytes, ".repeat(99)).unwrap();
        assert!(check("x.sqlite").unwrap_err().contains("no SQLite database"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made beside it");
    }
}
