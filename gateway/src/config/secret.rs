//! Secrets: from a file, or from a variable of the environment, and never from the configuration itself.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

use super::Secret;
use super::section::Section;

/// Longest secret, in bytes; tokens of InfluxDB have 88.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Reads the secret `key`, given as `key = "${VARIABLE}"` or by the file that `file_key` names. A relative file is
/// looked for beside the main configuration file, in `home`.
pub(super) fn read(
    section: &mut Section<'_>,
    key: &'static str,
    file_key: &'static str,
    home: &Path,
) -> Option<Secret> {
    let inline = section.text(key);
    let file = section.text(file_key);
    if let Some(inline) = inline {
        if file.is_some() {
            section.fault(key, format!("is given twice; keep `{file_key}` and remove `{key}`"));
        } else if inline.literal {
            let cure = format!("put it into a file and write `{file_key}`, or write \"${{VARIABLE}}\"");
            section.fault(key, format!("a secret does not belong into the configuration; {cure}"));
        } else if inline.text.is_empty() {
            section.fault(key, "the variable is empty; set it for the service");
        }
        return Some(Secret::new(inline.text.to_owned()));
    }
    let path = home.join(file?.text);
    match read_file(&path) {
        Ok((secret, mode)) => {
            if mode & 0o004 != 0 {
                let path = path.display();
                let message =
                    format!("{path} is readable by everybody (mode {mode:o}); run `chmod o-rwx {path}`");
                section.warning(file_key, message);
            }
            Some(secret)
        }
        Err(Unusable::Unreadable(message)) => {
            section.absent(file_key, message);
            None
        }
        Err(Unusable::NoSecret(message)) => {
            section.fault(file_key, message);
            None
        }
    }
}

/// Whether a line is a user's entry as `mosquitto_passwd` writes it: name, and a hash with its kind.
fn is_hashed(line: &str) -> bool {
    let hash = line.split_once(':').map(|(_, hash)| hash);
    hash.is_some_and(|hash| ["$5$", "$6$", "$7$"].iter().any(|kind| hash.starts_with(kind)))
}

/// Why a file gives no secret.
enum Unusable {
    /// It is not there, or not for this user.
    Unreadable(String),
    /// What it holds is none.
    NoSecret(String),
}

fn read_file(path: &Path) -> Result<(Secret, u32), Unusable> {
    let name = path.display();
    let unreadable = |error: io::Error| {
        let message =
            format!("{name} cannot be read: {error}; create it, readable by the user that Forebay runs as");
        match error.kind() {
            io::ErrorKind::InvalidData => Unusable::NoSecret(message),
            _ => Unusable::Unreadable(message),
        }
    };
    let no_secret = |message| Err(Unusable::NoSecret(message));
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return no_secret(format!("{name} is longer than any secret; write only the secret into it"));
    }
    let secret =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return no_secret(format!("{name} is empty; write the secret into it"));
    }
    if text.lines().all(is_hashed) {
        return no_secret(format!(
            "{name} is a password file of mosquitto, which holds hashes; write the password itself into a file of its own"
        ));
    }
    if secret.contains(char::is_control) {
        return no_secret(format!(
            "{name} holds more than one line or a control character; write only the secret into it"
        ));
    }
    Ok((Secret::new(secret.to_owned()), mode))
}
