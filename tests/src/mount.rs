//! Mounting: a disk of a chosen size in memory, and unmounting whatever is mounted somewhere.
//!
//! A test that needs a mount and cannot have one fails and says what is missing; nothing is skipped.

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// Name of the file that takes all the room.
const FILLER: &str = "filler";

/// A tmpfs. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk of `bytes`, making the directory.
    ///
    /// # Errors
    /// Mounting is not allowed here.
    pub fn mount(mount_point: &Path, bytes: u64) -> anyhow::Result<SmallDisk> {
        std::fs::create_dir_all(mount_point)?;
        let options = size_option(bytes)?;
        mount("tmpfs", mount_point, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
            .with_context(|| {
                format!(
                    "mounting a tmpfs at {}: this test needs root, and a container that may mount",
                    mount_point.display()
                )
            })?;
        Ok(SmallDisk { mount_point: mount_point.to_owned() })
    }

    /// Gives it another size, as an operator does who enlarges a volume.
    ///
    /// # Errors
    /// It holds more than that.
    pub fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let options = size_option(bytes)?;
        mount_remount(&self.mount_point, MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
            .context("resizing a tmpfs")
    }

    /// Lets another file take every byte that is free now, and says how many that were.
    ///
    /// # Errors
    /// The file cannot be written for another reason than a full disk.
    pub fn fill(&self) -> anyhow::Result<u64> {
        let path = self.mount_point.join(FILLER);
        let mut file = File::options().create(true).append(true).open(path).context("opening the filler")?;
        let mut written = 0;
        for piece in [vec![0xaa; 64 * 1024], vec![0xaa; 512], vec![0xaa; 1]] {
            loop {
                match file.write(&piece) {
                    Ok(0) => break,
                    Ok(length) => written += u64::try_from(length)?,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("writing the filler"),
                }
            }
        }
        Ok(written)
    }

    /// Takes that file away.
    ///
    /// # Errors
    /// There is none.
    pub fn make_room(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.mount_point.join(FILLER)).context("removing the filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        detach(&self.mount_point);
    }
}

/// Unmounts what is mounted there, at once for everybody who looks, and really once nobody has a file of it open.
pub fn detach(mount_point: &Path) {
    if let Err(error) = unmount(mount_point, UnmountFlags::DETACH) {
        eprintln!("{} stays mounted: {error}", mount_point.display());
    }
}

fn size_option(bytes: u64) -> anyhow::Result<CString> {
    Ok(CString::new(format!("size={bytes}"))?)
}
