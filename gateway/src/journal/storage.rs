//! The seam between the journal and its medium.

use std::io;
use std::sync::Arc;

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
}
