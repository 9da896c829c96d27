//! The seam between the journal and its medium: a few calls, so that a double can stand in for the disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Advice;

/// A flat directory of files. Nothing is durable before it was synced.
pub trait Storage: Send + Sync {
    /// Names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// It does not exist or may not be opened.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Creates an empty file, emptying one that exists.
    ///
    /// # Errors
    /// It cannot be created.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file, replacing one that exists.
    ///
    /// # Errors
    /// It cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// Nothing is known to be durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Asks for the room on the medium.
    ///
    /// # Errors
    /// It cannot be asked.
    fn space(&self) -> io::Result<Space>;
}

/// Room on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still take.
    pub free_bytes: u64,
    /// Size of the medium in bytes.
    pub total_bytes: u64,
}

/// One file of a [`Storage`].
pub trait StorageFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// It cannot be asked.
    fn length(&self) -> io::Result<u64>;

    /// Reads into `buffer` from position `at` on; fewer bytes than asked for mean that the file ends there.
    ///
    /// # Errors
    /// The medium fails.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at position `at`.
    ///
    /// # Errors
    /// Any part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written durable, as fdatasync does.
    ///
    /// # Errors
    /// What was written since the last sync may be lost, and asking again does not bring it back.
    fn sync(&self) -> io::Result<()>;

    /// Makes what was written durable, and sees to it that what is read then comes from the medium: what a failed sync
    /// has lost may go on to read as if it were there, even for the next process.
    ///
    /// # Errors
    /// As for [`StorageFile::sync`].
    fn settle(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// An existing directory.
    #[must_use]
    pub fn new(path: &Path) -> Directory {
        Directory { path: path.to_owned() }
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = File::options().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let room = rustix::fs::statvfs(&self.path)?;
        Ok(Space {
            free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
            total_bytes: room.f_blocks.saturating_mul(room.f_frsize),
        })
    }
}

impl StorageFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        // Pages that a failed write-back left behind count as clean, and are dropped with the others.
        Ok(rustix::fs::fadvise(self, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_knows_the_room_on_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let space = Directory::new(directory.path()).space().unwrap();
        let room = rustix::fs::statvfs(directory.path()).unwrap();
        assert_eq!(space.total_bytes, room.f_blocks * room.f_frsize);
        assert!(space.free_bytes <= room.f_bfree.max(room.f_bavail) * room.f_frsize + (1 << 30));
        assert!(Directory::new(&directory.path().join("none")).space().is_err());
    }
}
