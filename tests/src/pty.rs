//! A serial line without hardware: the simulated device holds one end of a pseudo-terminal, the gateway opens the other
//! through a link whose path stays the same, as the paths in `/dev/serial/by-id` do.
//!
//! Unplugging closes the device's end and removes the link; plugging in makes a new pseudo-terminal and a new link. The
//! device also keeps the gateway's end open, unread: a real line does not hang up for the device when the gateway dies,
//! and the terminal's settings must outlive the gateway. It clears the exclusive flag on it while it is idle, because
//! a kernel clears that only when the last holder of a terminal closes it, which here would be never.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;

use crate::clock::wait_for;

/// The device's end of a plugged-in line.
#[derive(Debug)]
pub struct Line {
    device: OwnedFd,
    gateway: OwnedFd,
    link: PathBuf,
}

impl Line {
    /// Makes a new line whose gateway end is reached through `link`.
    ///
    /// # Errors
    /// The system has no more pseudo-terminals, or the link cannot be made.
    pub fn plug_in(link: &Path) -> anyhow::Result<Line> {
        let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("opening a pseudo-terminal")?;
        grantpt(&device)?;
        unlockpt(&device)?;
        let name = ptsname(&device, Vec::new())?;
        let gateway = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        // Without this, the terminal would echo to the device what it says before the gateway has opened the line.
        let mut settings = tcgetattr(&gateway)?;
        settings.make_raw();
        tcsetattr(&gateway, OptionalActions::Now, &settings)?;
        fcntl_setfl(&device, OFlags::NONBLOCK)?;
        let name = name.to_str().context("a terminal with a strange name")?;
        // A rename replaces a link that is there already, without a moment in which there is none.
        let fresh = link.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        std::os::unix::fs::symlink(name, &fresh).context("linking the terminal")?;
        std::fs::rename(&fresh, link).context("linking the terminal")?;
        Ok(Line { device, gateway, link: link.to_owned() })
    }

    /// Where the gateway finds it.
    #[must_use]
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// The same for an event loop, whose waits are for the device's end. Must be called within a runtime.
    ///
    /// # Errors
    /// The event loop takes no more.
    #[expect(unsafe_code, reason = "tokio cannot know that a type keeps its descriptor")]
    pub fn watched(self) -> anyhow::Result<AsyncFd<Line>> {
        // SAFETY: the descriptor is open for as long as the line exists, which nothing changes.
        let watched = unsafe { AsyncFd::register(self) };
        watched.map_err(|refused| refused.into_parts().1).context("waiting for a pseudo-terminal")
    }

    /// Removes the link and closes the line, as pulling the cable does.
    pub fn unplug(self) {
        // The link may be gone already with the directory that it was in.
        let _ = std::fs::remove_file(&self.link);
    }

    /// Waits until the gateway has sent something, for at most `milliseconds`.
    pub fn wait(&self, milliseconds: u64) {
        let limit = Timespec {
            tv_sec: i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000,
        };
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&limit));
    }

    /// Reads what the gateway has sent; 0 bytes when nothing is there.
    ///
    /// # Errors
    /// The line is broken.
    pub fn read(&self, buffer: &mut [u8]) -> anyhow::Result<usize> {
        match rustix::io::read(&self.device, buffer) {
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error).context("reading from the line"),
        }
    }

    /// Sends what the line takes, and says how many bytes that were.
    ///
    /// # Errors
    /// The line is broken.
    pub fn write(&self, bytes: &[u8]) -> anyhow::Result<usize> {
        match rustix::io::write(&self.device, bytes) {
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error).context("writing to the line"),
        }
    }

    /// Sends everything, however long the line takes for it.
    ///
    /// # Errors
    /// The line is broken, or takes nothing for `limit`.
    pub fn write_all(&self, mut bytes: &[u8], limit: Duration) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let written = wait_for("the line's taking of bytes", limit, || match self.write(bytes) {
                Ok(0) => Err("it is full".to_owned()),
                Ok(written) => Ok(written),
                Err(error) => Err(format!("{error:#}")),
            })?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Lets another process open the gateway's end, which a killed gateway may have left marked as exclusive.
    pub fn allow_next_gateway(&self) {
        // It fails only where the terminal is gone, which the next read tells.
        let _ = ioctl_tiocnxcl(&self.gateway);
    }
}

impl AsRawFd for Line {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use std::io::{Read as _, Write as _};

    #[test]
    fn bytes_pass_unchanged_both_ways_and_a_replug_keeps_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("port");
        let bytes: Vec<u8> = (0..=255).collect();
        for _ in 0..2 {
            let line = Line::plug_in(&link).unwrap();
            let mut port = std::fs::File::options().read(true).write(true).open(&link).unwrap();
            assert_eq!(line.write(&bytes).unwrap(), 256);
            let mut there = [0; 256];
            port.read_exact(&mut there).unwrap();
            assert_eq!(there.as_slice(), bytes);
            port.write_all(&bytes).unwrap();
            let mut back = Vec::new();
            let mut buffer = [0; 512];
            while back.len() < 256 {
                line.wait(1000);
                let length = line.read(&mut buffer).unwrap();
                back.extend_from_slice(&buffer[..length]);
            }
            assert_eq!(back, bytes);
            line.unplug();
            assert!(!link.exists());
        }
    }
}
