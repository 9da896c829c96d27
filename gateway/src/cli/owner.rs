//! Whose the data is: a command that opens the journal itself leaves files behind, and the gateway must be able to open
//! them when it starts next.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Result, bail};
use rustix::process::{Uid, geteuid};

/// The directory of the journal in `data_dir`, which this user may open without harm.
///
/// # Errors
/// There is none, or it is somebody else's; then the command line to use instead.
pub(super) fn journal_of(data_dir: &Path) -> Result<PathBuf> {
    let directory = data_dir.join("journal");
    let owner = match fs::metadata(&directory) {
        Ok(found) if found.is_dir() => found.uid(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("{} may not be used by this user; run `{}`", directory.display(), as_owner_of(data_dir))
        }
        _ => bail!(
            "there is no journal in {} yet; the gateway makes it when it first runs",
            data_dir.display()
        ),
    };
    if keeps_owner_out(geteuid(), owner) {
        bail!(
            "{} belongs to {}, whose gateway could not open what root leaves in it; run `{}`",
            directory.display(),
            name_of(owner),
            as_owner_of(&directory)
        );
    }
    Ok(directory)
}

/// Whether the files that `user` makes are closed to the owner of their directory. Others than root cannot make any there,
/// unless the group may write, and then they have said so.
fn keeps_owner_out(user: Uid, owner: u32) -> bool {
    user.is_root() && owner != user.as_raw()
}

/// This command line, as the owner of a directory would write it.
pub(super) fn as_owner_of(directory: &Path) -> String {
    let owner = fs::metadata(directory).map_or_else(|_| "forebay".to_owned(), |found| name_of(found.uid()));
    let mut line = format!("sudo -u {}", quoted(OsStr::new(&owner)));
    for word in std::env::args_os() {
        line.push(' ');
        line.push_str(&quoted(&word));
    }
    line
}

/// A user's name, or `#` and the number, which sudo takes too.
fn name_of(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_among(&users, uid).unwrap_or_else(|| format!("#{uid}"))
}

fn name_among(users: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    let is_it = |fields: &Vec<&str>| fields.get(2) == Some(&number.as_str());
    let found = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(is_it)?;
    found.first().map(|name| (*name).to_owned())
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = super::plain(&word.to_string_lossy());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nodd\nforebay:x:998:997:Forebay gateway:/var/lib/forebay:/bin/false\n";

    #[test]
    fn an_owner_has_a_name_or_a_number() {
        assert_eq!(name_among(USERS, 998).as_deref(), Some("forebay"));
        assert_eq!((name_among(USERS, 997), name_among(USERS, 9)), (None, None));
        assert_eq!(quoted(OsStr::new("#998")), "'#998'");
        assert_eq!(quoted(OsStr::new("/etc/a b/it's.toml")), r"'/etc/a b/it'\''s.toml'");
        assert_eq!(quoted(OsStr::new("--config=/etc/f.toml")), "--config=/etc/f.toml");
    }

    #[test]
    fn only_root_in_a_directory_of_somebody_else_is_in_the_way() {
        let user = Uid::from_raw;
        assert!(keeps_owner_out(user(0), 998));
        assert!(!keeps_owner_out(user(0), 0) && !keeps_owner_out(user(998), 998));
        assert!(!keeps_owner_out(user(1000), 998), "the system refuses it already");
    }

    #[test]
    fn root_is_told_the_command_to_use() {
        let data_dir = tempfile::tempdir().unwrap();
        let missing = journal_of(data_dir.path()).unwrap_err().to_string();
        assert!(missing.starts_with("there is no journal in "), "{missing}");
        let journal = data_dir.path().join("journal");
        fs::create_dir(&journal).unwrap();
        assert_eq!(journal_of(data_dir.path()).unwrap(), journal);
        // Only root can give a directory away.
        if std::os::unix::fs::chown(&journal, Some(54_321), None).is_ok() {
            let refused = journal_of(data_dir.path()).unwrap_err().to_string();
            assert!(refused.contains("run `sudo -u '#54321' "), "{refused}");
        }
    }
}
