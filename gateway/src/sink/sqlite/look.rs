//! Looks at the embedded store's file and leaves it as it is: no file is made, no lock is taken, and the log beside it is
//! neither read nor written. For a file that no gateway uses.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{SCHEMA_VERSION, StoreError, damaged};

/// Whether a gateway could go on with the file, by its header: the version of its format, 0 for one that is still empty.
///
/// # Errors
/// It is no SQLite database, damaged at its head, or of a newer format: what is wrong, and the cure.
pub fn look(path: &Path) -> Result<i64, String> {
    let name = path.display();
    match version(path) {
        Ok(version) if version > SCHEMA_VERSION => Err(format!("{name}: {}", StoreError::Newer(version))),
        Ok(version) => Ok(version),
        // A file that is shorter than its header says may have the rest in the log; the gateway's start puts it together.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) && has_log(path) => {
            Ok(SCHEMA_VERSION)
        }
        Err(error) => Err(match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damaged(path, &error),
            _ => format!("cannot read {name}: {error}"),
        }),
    }
}

fn version(path: &Path) -> rusqlite::Result<i64> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path), flags)?;
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The file, as one that SQLite takes for immutable: it then makes nothing beside it.
fn uri(path: &Path) -> String {
    let mut uri = String::from(if path.is_absolute() { "file://" } else { "file:" });
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The names and the bytes of all files in a directory.
    fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = files
            .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn the_format_is_told_and_nothing_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("50% of #1?.sqlite");
        assert!(look(&path).unwrap_err().contains("cannot read"));
        assert_eq!(files(directory.path()), [], "nothing is made");

        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(super::super::SCHEMA).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        connection.execute_batch("INSERT INTO swept (device, points) VALUES ('d', 1)").unwrap();
        let before = files(directory.path());
        assert_eq!(before.len(), 3, "the log and its index are there");
        assert_eq!(look(&path), Ok(SCHEMA_VERSION));
        assert!(files(directory.path()) == before);
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(connection);
        let before = files(directory.path());
        let newer = look(&path).unwrap_err();
        assert!(newer.contains("version 99, newer") && newer.contains("run the version"), "{newer}");
        assert!(files(directory.path()) == before);
    }

    #[test]
    fn what_is_no_database_is_named_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.sqlite");
        fs::write(&path, "").unwrap();
        assert_eq!(look(&path), Ok(0), "the gateway begins it");
        fs::write(&path, "no database at all, but longer than a header of one".repeat(9)).unwrap();
        let damaged = look(&path).unwrap_err();
        assert!(
            ["no SQLite database", "-wal", "move the file away"].iter().all(|word| damaged.contains(word))
        );
        assert_eq!(files(directory.path()).len(), 1);
    }

    #[test]
    fn a_file_that_was_cut_is_damaged_unless_its_log_has_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.sqlite");
        Connection::open(&path).unwrap().execute_batch(super::super::SCHEMA).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(4096).unwrap();
        assert!(look(&path).unwrap_err().contains("damaged"));
        fs::write(directory.path().join("readings.sqlite-wal"), "log").unwrap();
        assert_eq!(look(&path), Ok(SCHEMA_VERSION));
    }
}
