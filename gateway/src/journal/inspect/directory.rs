//! A journal's directory, opened for reading only, beside a gateway or without one.
//!
//! Constraint: nothing in it changes, not even a time stamp that a write would leave. Whether a gateway has it is asked
//! with a shared lock that is held for a moment.
//!
//! Failure: a card that is worn out refuses to be read here and there. Blocks that the medium refuses read as zeros, so
//! that they are found as damage, and everything else can still be copied. While a gateway runs, files are trimmed, made
//! and written meanwhile; what a first look finds damaged then counts only if the next one finds it too, since what is
//! durable reads the same for ever.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Inspection, inspect};
use crate::journal::storage::{Directory, Space, StorageFile};
use crate::journal::{LOCK_FILE, OpenError, Storage};

/// Looks at a journal that is being written, unless two in a row agree before.
const LOOKS_MAX: usize = 5;

/// What the medium reads at once; what it refuses is given up by these.
const BLOCK_BYTES: u64 = 4096;

/// What a look at a directory shows.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What is there.
    pub inspection: Inspection,
    /// The gateway that writes it, by its process id.
    pub running: Option<String>,
}

/// The lock that keeps gateways from starting.
#[derive(Debug)]
pub struct Unlocked(#[expect(dead_code, reason = "held, not used")] Option<File>);

/// A directory that is only looked at.
struct ReadOnly {
    directory: Directory,
    path: PathBuf,
}

struct ReadOnlyFile(File);

/// The files of a directory, which nobody changes through this.
#[must_use]
pub fn storage(directory: &Path) -> impl Storage {
    ReadOnly { directory: Directory::new(directory), path: directory.to_owned() }
}

/// Inspects a directory, whether or not a gateway runs.
///
/// # Errors
/// As [`inspect`].
pub fn look(directory: &Path) -> Result<Looked, OpenError> {
    let storage = storage(directory);
    let mut running = running(directory)?;
    let mut before: Option<Inspection> = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let seen = inspect(&storage);
        running = running.or(self::running(directory)?);
        let mut seen = match seen {
            Err(OpenError::Unreadable { cause, .. })
                if cause.kind() == ErrorKind::NotFound && running.is_some() && looks < LOOKS_MAX =>
            {
                continue;
            }
            seen => seen?,
        };
        if running.is_none() {
            return Ok(Looked { inspection: seen, running });
        }
        // What is at the end is being written just now.
        seen.torn = None;
        let settled = before.as_ref().is_some_and(|before| seen.keep_what_is_in(before));
        if settled || seen.damage.is_empty() || looks >= LOOKS_MAX {
            return Ok(Looked { inspection: seen, running });
        }
        before = Some(seen);
    }
}

impl Inspection {
    /// Forgets damage that an earlier look did not find; whether all is here that it did find.
    fn keep_what_is_in(&mut self, earlier: &Inspection) -> bool {
        self.damage.retain(|finding| earlier.damage.iter().any(|known| known.is_same(finding)));
        self.damage.len() == earlier.damage.len()
    }
}

impl Unlocked {
    /// Keeps gateways from starting for as long as this lives.
    ///
    /// # Errors
    /// One runs, or the lock cannot be asked.
    pub fn take(directory: &Path) -> Result<Unlocked, OpenError> {
        match lock(directory)? {
            Ok(file) => Ok(Unlocked(file)),
            Err(pid) => Err(OpenError::Locked { directory: directory.display().to_string(), pid }),
        }
    }
}

fn running(directory: &Path) -> Result<Option<String>, OpenError> {
    Ok(lock(directory)?.err())
}

/// The lock that others may have too but no gateway, if there is a file for it; or the process id of the gateway.
fn lock(directory: &Path) -> Result<Result<Option<File>, String>, OpenError> {
    let path = directory.join(LOCK_FILE);
    let failed = |cause| super::unreadable(&path.display().to_string(), cause);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Ok(None)),
        Err(cause) => return Err(failed(cause)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Ok(Some(file))),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            Ok(Err(pid.trim().to_owned()))
        }
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

impl Storage for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(ReadOnlyFile(File::open(self.path.join(name))?)))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn StorageFile>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.directory.space()
    }
}

impl StorageFile for ReadOnlyFile {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match StorageFile::read_at(&self.0, buffer, at) {
            Err(cause) if cause.raw_os_error() == Some(libc::EIO) => {
                let length = self.0.length()?.saturating_sub(at).min(buffer.len() as u64) as usize;
                read_blocks(&mut buffer[..length], at, |block, at| self.0.read_exact_at(block, at))?;
                Ok(length)
            }
            read => read,
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads block by block, and zeros where the medium fails.
fn read_blocks(
    mut buffer: &mut [u8],
    mut at: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let length = (BLOCK_BYTES - at % BLOCK_BYTES).min(buffer.len() as u64);
        let (block, rest) = buffer.split_at_mut(length as usize);
        match read(block, at) {
            Err(cause) if cause.raw_os_error() == Some(libc::EIO) => block.fill(0),
            read => read?,
        }
        (buffer, at) = (rest, at + length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_the_medium_refuses_are_zeros_and_the_others_are_read() {
        let mut buffer = vec![9; 10_000];
        let read = |block: &mut [u8], at: u64| {
            if (8_192..12_288).contains(&at) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            block.fill(1);
            Ok(())
        };
        read_blocks(&mut buffer, 5_000, read).unwrap();
        let is_one = |at: usize| !(8_192..12_288).contains(&(at + 5_000));
        assert!(buffer.iter().enumerate().all(|(at, byte)| *byte == u8::from(is_one(at))));
        let refused = |_: &mut [u8], _: u64| Err(ErrorKind::PermissionDenied.into());
        assert!(read_blocks(&mut buffer, 0, refused).is_err());
    }
}
