//! Which version of the gateway ran here last, in a file, so that whoever went back to an older one is told which one to take.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use tracing::{info, warn};

use crate::{dead_letters, journal};

/// File in the data directory.
pub(super) const FILE: &str = "version";

/// Longest version that is believed, in bytes.
const BYTES_MAX: usize = 32;

/// This program's.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// What a part of the data directory gave. Where it is of a newer version, the error says which one ran here last.
///
/// # Errors
/// That of the part.
pub(super) fn told<T>(data_dir: &Path, given: Result<T>) -> Result<T> {
    given.map_err(|error| match kept(data_dir).filter(|version| version != OWN && is_of_newer(&error)) {
        Some(version) => {
            anyhow::anyhow!("{error:#}; this is forebay {OWN}, and forebay {version} ran here last")
        }
        None => error,
    })
}

fn is_of_newer(error: &anyhow::Error) -> bool {
    use dead_letters::{OpenError, ReadError};
    matches!(error.downcast_ref(), Some(journal::OpenError::Newer { .. }))
        || matches!(error.downcast_ref(), Some(OpenError::Unreadable(ReadError::Newer { .. })))
}

/// Writes down that this version runs here, once it has opened what it cannot do without, and logs which one ran before: what
/// else a newer one has left is said later.
pub(super) fn note(data_dir: &Path) {
    match kept(data_dir) {
        Some(version) if version == OWN => return,
        Some(version) => info!("this is forebay {OWN}, and forebay {version} ran here last"),
        None => {}
    }
    let path = data_dir.join(FILE);
    if let Err(error) = write(data_dir, &path) {
        warn!("{} cannot be written: {error}; it only says which version ran here last", path.display());
    }
}

/// The version that is written down. What is no version is as good as nothing.
fn kept(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    let version = text.trim();
    let is_plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte));
    (is_plain && (1..=BYTES_MAX).contains(&version.len())).then(|| version.to_owned())
}

fn write(data_dir: &Path, path: &Path) -> std::io::Result<()> {
    let draft = data_dir.join("version.new");
    let mut file = fs::File::create(&draft)?;
    writeln!(file, "{OWN}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data_dir: &Path, error: impl Into<anyhow::Error>) -> String {
        told(data_dir, Err::<(), _>(error.into())).unwrap_err().to_string()
    }

    fn newer() -> journal::OpenError {
        journal::OpenError::Newer { file: "end".to_owned(), version: 2, features: 0 }
    }

    #[test]
    fn what_is_newer_names_the_version_that_ran_here_last_if_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        let plain = newer().to_string();
        assert_eq!(said(data_dir, newer()), plain);
        note(data_dir);
        assert_eq!(said(data_dir, newer()), plain, "this very version");
        assert_eq!(fs::read_dir(data_dir).unwrap().count(), 1, "no draft is left behind");
        fs::write(data_dir.join(FILE), "9.9.9-rc.1\n").unwrap();
        let hint = format!("; this is forebay {OWN}, and forebay 9.9.9-rc.1 ran here last");
        assert_eq!(said(data_dir, newer()), format!("{plain}{hint}"));
        let letters = || dead_letters::ReadError::Newer { file: "1".to_owned(), version: 2, features: 0 };
        assert!(said(data_dir, dead_letters::OpenError::Unreadable(letters())).ends_with(&hint));
        assert_eq!(said(data_dir, anyhow::anyhow!("it is locked")), "it is locked", "no version mends that");
        for nonsense in ["", "\u{1b}[2J", &"9".repeat(33)] {
            fs::write(data_dir.join(FILE), nonsense).unwrap();
            assert_eq!(said(data_dir, newer()), plain, "{nonsense:?}");
        }
        note(data_dir);
        assert_eq!(fs::read_to_string(data_dir.join(FILE)).unwrap(), format!("{OWN}\n"));
    }
}
