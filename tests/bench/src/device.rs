//! Where the engines write: an ext4 file system of their own on a loop device, whose counters tell what reached it.
//!
//! Operation: the image is written through once, so that no engine pays for blocks that were never there. The loop
//! device passes a flush on to the disk below, so that syncs cost what they cost. Image, mount and device vanish with
//! the last process that uses them, however it ends: the image has no name any more once it is attached, the mount
//! lives in a namespace of the benchmark's own, and the device detaches itself.
//!
//! Failure: without root, or without the tools, a plain directory takes its place, and there are no counters.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Advice, fadvise, syncfs};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Tells the benchmark that it runs in a namespace of its own.
const NAMESPACE: &str = "FOREBAY_BENCH_NAMESPACE";

const SECTOR_BYTES: u64 = 512;

/// A directory to write in, and the counters of the device below it, if there are any.
#[derive(Debug)]
pub(crate) struct Device {
    directory: TempDir,
    pub(crate) stat: Option<PathBuf>,
    /// What it is, for people.
    pub(crate) description: String,
}

/// What a device has written since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) flushes: u64,
}

/// Goes on in a mount namespace of the benchmark's own, where one can be made.
pub(crate) fn enter_namespace() {
    let possible = rustix::process::geteuid().is_root() && env::var_os(NAMESPACE).is_none();
    if possible && call("unshare", &["--mount", "true"]).is_ok() {
        let Ok(program) = env::current_exe() else { return };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(program).args(env::args_os().skip(1));
        // It returns only where it failed, and then there will be no counters.
        drop(command.env(NAMESPACE, "1").exec());
    }
}

impl Device {
    /// A plain directory in `base`.
    pub(crate) fn plain(base: &Path) -> Result<Device> {
        fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        let directory = TempDir::with_prefix_in("data-", base)?;
        Ok(Device { directory, stat: None, description: "a plain directory".into() })
    }

    /// A loop device with an image of `bytes` bytes in `base`, or else a plain directory that says why.
    pub(crate) fn counted(base: &Path, bytes: u64) -> Result<Device> {
        let mut device = Device::plain(base)?;
        match mount_loop(device.directory.path(), bytes) {
            Ok(name) => {
                device.stat = Some(Path::new("/sys/block").join(&name).join("stat"));
                device.description = format!("ext4 on /dev/{name}, {} MiB, direct IO", bytes >> 20);
            }
            Err(cause) => {
                device.description = format!("a plain directory, without device counters: {cause:#}");
            }
        }
        Ok(device)
    }

    /// A fresh directory on it.
    pub(crate) fn fresh(&self) -> Result<TempDir> {
        Ok(TempDir::with_prefix_in("run-", self.directory.path())?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.stat.is_some() {
            // The mount goes with the namespace in any case.
            drop(call("umount", &[&self.directory.path().display().to_string()]));
        }
    }
}

impl Counters {
    /// Reads the counters of a block device, once everything is written that the file system of `directory` holds back.
    pub(crate) fn read(stat: &Path, directory: &Path) -> Result<Counters> {
        syncfs(File::open(directory)?)?;
        Counters::parse(&fs::read_to_string(stat)?)
    }

    /// What was written since `earlier`.
    pub(crate) fn since(self, earlier: Counters) -> Counters {
        Counters { bytes: self.bytes - earlier.bytes, flushes: self.flushes - earlier.flushes }
    }

    /// Fields as in the kernel's `Documentation/block/stat.rst`; flushes are counted since Linux 5.5.
    fn parse(stat: &str) -> Result<Counters> {
        let fields: Vec<u64> = stat.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(fields.len() >= 16, "the kernel counts no flushes");
        Ok(Counters { bytes: fields[6] * SECTOR_BYTES, flushes: fields[15] })
    }
}

/// Takes the contents of all files below a directory out of the page cache.
pub(crate) fn forget_cached(directory: &Path) -> Result<()> {
    syncfs(File::open(directory)?)?;
    for entry in fs::read_dir(directory)? {
        let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
        if entry?.is_dir() {
            forget_cached(&path)?;
        } else {
            fadvise(File::open(&path)?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Mounts a new file system in `directory` and returns the name of its block device.
fn mount_loop(directory: &Path, bytes: u64) -> Result<String> {
    ensure!(rustix::process::geteuid().is_root(), "only root can mount");
    ensure!(env::var_os(NAMESPACE).is_some(), "no mount namespace can be made");
    let image = directory.join("image");
    let attached = attach(&image, bytes);
    fs::remove_file(&image)?;
    let device = attached?;
    let mounted = call("mount", &["-o", "noatime", &device, &directory.display().to_string()]);
    // On a mounted device this only says that it is to go when it is unmounted.
    call("losetup", &["--detach", &device])?;
    mounted?;
    let name = device.strip_prefix("/dev/").unwrap_or(&device).to_owned();
    Counters::read(&Path::new("/sys/block").join(&name).join("stat"), directory)?;
    Ok(name)
}

fn attach(image: &Path, bytes: u64) -> Result<String> {
    let zeros = vec![0; 1 << 20];
    let mut file = File::create(image)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let image = image.display().to_string();
    let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
    call("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", options, &image])?;
    let device = call("losetup", &["--find", "--show", "--direct-io=on", &image])?;
    Ok(device.trim().to_owned())
}

/// Runs a program of the system and returns what it printed.
fn call(program: &str, arguments: &[&str]) -> Result<String> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_written_and_flushes_are_taken_from_their_fields() {
        let stat = "55 0 2102 5 4 0 2048 1 0 4 6 0 0 0 0 17 0";
        assert_eq!(Counters::parse(stat).unwrap(), Counters { bytes: 1 << 20, flushes: 17 });
        assert!(Counters::parse("55 0 2102 5 4 0 2048 1 0 4 6").is_err());
    }
}
