//! A gateway that is older than what it finds: nothing is written over, and it says which file, which version, and what to
//! do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings, data_dir};
use rusqlite::Connection;

use super::journal_commands::crc32c;
use crate::world::{Scratch, program};

const LIMIT: Duration = Duration::from_secs(60);

/// A structure of a file, at this place, with its version behind a magic of 8 bytes and its checksum after so many bytes.
struct Sealed {
    at: usize,
    checksum_at: usize,
}

impl Sealed {
    /// Makes it one of format 2, intact as it was.
    fn renew(&self, file: &mut [u8]) {
        let Some(bytes) = file.get_mut(self.at..self.at + self.checksum_at + 4) else { return };
        if bytes[..8] == [0; 8] {
            return;
        }
        bytes[8] = 2;
        let checksum = crc32c(&bytes[..self.checksum_at]);
        bytes[self.checksum_at..].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Every file below a directory but locks, with its bytes.
fn files(directory: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let bytes = std::fs::read(&path)?;
            files.insert(path, bytes);
        }
    }
    Ok(files)
}

/// Puts files that the tests keep into the data directory, one of them of a newer format.
fn put(data: &Path, fixture: &str, part: &str, name: &str, sealed: &[Sealed]) -> anyhow::Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/fixtures").join(fixture);
    let to = data.join(part);
    std::fs::create_dir_all(&to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let path = to.join(name);
    let mut bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    sealed.iter().for_each(|sealed| sealed.renew(&mut bytes));
    Ok(std::fs::write(path, bytes)?)
}

#[test]
fn what_a_newer_version_wrote_is_refused_with_its_name() -> anyhow::Result<()> {
    let sealed = |places: &[usize], checksum_at| -> Vec<Sealed> {
        places.iter().map(|at| Sealed { at: *at, checksum_at }).collect()
    };
    for (fixture, part, name, sealed) in [
        ("journal-v1", "journal", "00000000000000000011.seg", sealed(&[0], 56)),
        ("journal-v1", "journal", "end", sealed(&[0, 512], 48)),
        ("dead-letters-1", "dead-letters", "00000000000000000002.letters", sealed(&[0, 512], 80)),
    ] {
        let scratch = Scratch::new("downgrade")?;
        let data = scratch.path().join("data");
        put(&data, fixture, part, name, &sealed)?;
        std::fs::write(data.join("version"), "9.9.9\n")?;
        let before = files(&data.join(part))?;
        let config = scratch.path().join("forebay.toml");
        std::fs::write(&config, format!("data_dir = {data:?}\n[http]\nlisten = \"127.0.0.1:0\"\n"))?;
        let output = program().command("run", &config).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        for word in [name, "format 2", "run the version that wrote", "forebay 9.9.9 ran here last"] {
            assert!(said.contains(word), "{name}: {word:?} is not said: {said}");
        }
        assert!(files(&data.join(part))? == before, "{name}: something was written over");
        assert_eq!(
            std::fs::read_to_string(data.join("version"))?,
            "9.9.9\n",
            "the newer version is forgotten"
        );
        scratch.passed();
    }
    Ok(())
}

/// Whoever goes back finds the embedded database as the newer version left it, and the gateway says why nothing goes there.
#[test]
fn a_newer_embedded_database_holds_its_rows_back() -> anyhow::Result<()> {
    let scratch = Scratch::new("downgrade-sqlite")?;
    let directory = scratch.path().join("gateway");
    let data = data_dir(&directory);
    std::fs::create_dir_all(&data)?;
    let file = data.join("readings.sqlite");
    Connection::open(&file)?.execute_batch("CREATE TABLE of_the_future (x); PRAGMA user_version = 2")?;
    let before = std::fs::read(&file)?;
    let mut gateway = Gateway::start(program(), &directory, &Settings::default())?;
    wait_for("the gateway's word about the file", LIMIT, || {
        let status = gateway.status().map_err(|error| error.to_string())?.to_string();
        let said = status.contains("readings.sqlite") && status.contains("version 2");
        if said { Ok(()) } else { Err(status) }
    })?;
    assert!(gateway.terminate()?.success());
    assert!(std::fs::read(&file)? == before, "the database was written to");
    let own = std::fs::read_to_string(data.join("version"))?;
    assert_eq!(own.trim(), env!("CARGO_PKG_VERSION"));
    scratch.passed();
    Ok(())
}
