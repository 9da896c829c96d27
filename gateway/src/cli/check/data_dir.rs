//! The data directory and the embedded store in it.

use std::fs::{File, TryLockError};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Finding;
use crate::cli::owner;
use crate::config::Config;
use crate::daemon;
use crate::journal::storage::{Directory, Storage as _};
use crate::journal::{Capacity, Options, inspect};
use crate::stats::Status;

/// Whether a gateway can use the directory. `running` is the pid of the gateway that uses it and answers.
pub(super) fn check(data_dir: &Path, running: Option<u32>) -> Finding {
    let name = data_dir.display();
    if let Some(pid) = running {
        return Ok(format!("{name} is used by the running gateway, process {pid}"));
    }
    match access(data_dir, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if data_dir.is_dir() => {}
        Ok(()) => return Err(format!("{name} is no directory; name another as data_dir")),
        Err(Errno::NOENT) => return check_parent(data_dir),
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

/// What the journal can do on the disk that it is on.
pub(super) fn check_journal(data_dir: &Path, options: &Options) -> Finding {
    let exists = |path: &&Path| path.exists() && !path.as_os_str().is_empty();
    let directory = data_dir.ancestors().find(exists).unwrap_or(Path::new("."));
    let space = Directory::new(directory).space().map_err(|error| {
        format!("cannot ask how much room is on the disk of {}: {error}", data_dir.display())
    })?;
    let files = std::fs::read_dir(data_dir.join("journal")).into_iter().flatten().flatten();
    let own: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let room_bytes = space.free_bytes.saturating_add(own);
    let Capacity { segment_bytes, devices } = options.capacity(room_bytes);
    let short = if room_bytes < options.max_bytes {
        format!("; the disk has room for {} MiB of it only", room_bytes >> 20)
    } else {
        String::new()
    };
    Ok(format!(
        "at most {} MiB in files of {} KiB, for some {devices} devices{short}",
        options.max_bytes >> 20,
        segment_bytes >> 10
    ))
}

/// The databases that the journal knows, and how many rows each still lacks: what the running gateway says, or what its next
/// start will find.
///
/// # Errors
/// The journal cannot be read, and the gateway would not start.
pub(super) fn sinks(data_dir: &Path, running: Option<&Status>) -> Result<Vec<(String, u64)>, String> {
    if let Some(status) = running {
        return Ok(status.sinks.iter().map(|(name, sink)| (name.clone(), sink.backlog_rows)).collect());
    }
    let directory = data_dir.join("journal");
    match directory.try_exists() {
        Ok(true) => inspect::owed(&inspect::storage(&directory)).map_err(|error| error.to_string()),
        Ok(false) => Ok(Vec::new()),
        Err(error) => Err(format!(
            "cannot look at {}: {error}; run `{}`",
            directory.display(),
            owner::as_owner_of(data_dir)
        )),
    }
}

/// Databases that are not configured any more and still lack rows, with what to do: the next start would be refused.
pub(super) fn abandoned(config: &Config, sinks: &[(String, u64)]) -> Vec<(String, String)> {
    let gone = sinks.iter().filter(|(name, rows)| *rows > 0 && !config.has_sink(name));
    gone.map(|(name, rows)| (name.clone(), daemon::lacks_rows(name, *rows))).collect()
}

fn check_parent(data_dir: &Path) -> Finding {
    let name = data_dir.display();
    let parent =
        data_dir.ancestors().skip(1).find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match access(parent, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(format!("{name} will be made")),
        Err(error) => Err(format!(
            "{name} does not exist and cannot be made: {error}; run `install -d -m 750 -o USER {name}` with the \
             gateway's user"
        )),
    }
}

/// Whether the embedded store can be written.
pub(super) fn check_sqlite(path: &Path) -> Finding {
    let name = path.display();
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) if path.is_file() => Ok(format!("{name} is writable")),
        Ok(()) => Err(format!("{name} is no file; name another as [sqlite] path")),
        Err(Errno::NOENT) => match path.parent() {
            Some(parent) if parent.exists() && access(parent, Access::WRITE_OK).is_err() => {
                Err(format!("{name} cannot be made; give its directory to the gateway's user with chown"))
            }
            _ => Ok(format!("{name} will be made")),
        },
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
        let finding = check_journal(&dir.path().join("a/b"), &Options::sized(4 << 20)).unwrap();
        assert!(finding.starts_with("at most 4 MiB in files of 256 KiB, for some 2"), "{finding}");
        let finding = check_journal(dir.path(), &Options::sized(1 << 60)).unwrap();
        assert!(finding.contains("the disk has room for"), "{finding}");
    }

    #[test]
    fn a_directory_that_is_missing_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(&dir.path().join("a/b"), None).unwrap().contains("will be made"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check(&file, None).is_err());
        assert!(check_sqlite(&file).unwrap().contains("is writable"));
        assert!(check_sqlite(dir.path()).is_err());
        assert!(check_sqlite(&dir.path().join("x.sqlite")).unwrap().contains("will be made"));
    }
}
