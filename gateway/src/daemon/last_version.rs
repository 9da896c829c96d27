//! Which version of the gateway ran here last, in a file, so that whoever went back to an older one is told which one to take.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use tracing::warn;

/// File in the data directory.
const FILE: &str = "version";

/// Longest version that is believed, in bytes.
const BYTES_MAX: usize = 32;

/// This program's.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// What a part of the data directory gave. An error says which version ran here last, if that was another.
///
/// # Errors
/// That of the part.
pub(super) fn told<T>(data_dir: &Path, given: Result<T>) -> Result<T> {
    given.map_err(|error| match kept(data_dir).filter(|version| version != OWN) {
        Some(version) => {
            anyhow::anyhow!("{error:#}; this is forebay {OWN}, and forebay {version} ran here last")
        }
        None => error,
    })
}

/// Writes down that this version runs here, once it has opened everything.
pub(super) fn note(data_dir: &Path) {
    if kept(data_dir).as_deref() == Some(OWN) {
        return;
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

    fn said(data_dir: &Path) -> String {
        told(data_dir, Err::<(), _>(anyhow::anyhow!("no"))).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_version_that_ran_here_last_if_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        assert_eq!(said(data_dir), "no");
        note(data_dir);
        assert_eq!(said(data_dir), "no", "this very version");
        assert_eq!(fs::read_dir(data_dir).unwrap().count(), 1, "no draft is left behind");
        fs::write(data_dir.join(FILE), "9.9.9-rc.1\n").unwrap();
        assert_eq!(
            said(data_dir),
            format!("no; this is forebay {OWN}, and forebay 9.9.9-rc.1 ran here last")
        );
        for nonsense in ["", "\u{1b}[2J", &"9".repeat(33)] {
            fs::write(data_dir.join(FILE), nonsense).unwrap();
            assert_eq!(said(data_dir), "no", "{nonsense:?}");
        }
        note(data_dir);
        assert_eq!(fs::read_to_string(data_dir.join(FILE)).unwrap(), format!("{OWN}\n"));
    }
}
