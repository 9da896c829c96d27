//! USB ports that are made up: a directory that looks like `/sys` and one that looks like `/dev`, for a gateway that is told
//! by FOREBAY_SYSFS and FOREBAY_DEV to look there. What is plugged in behind a port is a pseudo-terminal.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::gateway::Program;

/// The made-up machine.
#[derive(Debug)]
pub struct UsbPorts {
    directory: PathBuf,
}

impl UsbPorts {
    /// A machine without ports, in `directory`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn new(directory: &Path) -> std::io::Result<UsbPorts> {
        for name in ["sys/class/tty", "sys/devices", "dev/serial/by-id"] {
            std::fs::create_dir_all(directory.join(name))?;
        }
        Ok(UsbPorts { directory: directory.to_owned() })
    }

    /// A program that sees these ports and no others.
    #[must_use]
    pub fn seen_by(&self, program: Program) -> Program {
        let of = |name: &str| self.directory.join(name);
        program.with_variable("FOREBAY_SYSFS", of("sys")).with_variable("FOREBAY_DEV", of("dev"))
    }

    /// The path of a port, where the terminal of its device is to be linked.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join("dev").join(name)
    }

    /// Tells that the port `name` is of a device with this identity.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn add(&self, name: &str, (vendor, product): (&str, &str), serial: &str) -> std::io::Result<()> {
        let device = self.directory.join("sys/devices/usb1").join(serial);
        let interface = device.join(format!("1-1:1.0-{name}"));
        std::fs::create_dir_all(&interface)?;
        let texts =
            [("idVendor", vendor), ("idProduct", product), ("serial", serial), ("product", "Simulated")];
        for (file, text) in texts {
            std::fs::write(device.join(file), format!("{text}\n"))?;
        }
        let class = self.class(name);
        std::fs::create_dir_all(&class)?;
        symlink(&interface, class.join("device"))?;
        symlink(self.path(name), self.directory.join("dev/serial/by-id").join(format!("usb-{serial}")))
    }

    /// Tells that there is no such port any more.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove(&self, name: &str, serial: &str) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.class(name))?;
        std::fs::remove_file(self.directory.join("dev/serial/by-id").join(format!("usb-{serial}")))
    }

    fn class(&self, name: &str) -> PathBuf {
        self.directory.join("sys/class/tty").join(name)
    }
}
