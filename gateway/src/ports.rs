//! The serial ports of this machine: which there are, what they are by USB, and who holds them.
//!
//! **Constraints.** Nothing is opened, since opening a port resets many boards: all of it is read from sysfs, from the
//! names in `/dev` and from `/proc`, and every directory is read up to a bound. A port is known by its device number,
//! whatever its names are.
//! **Operation.** [`Places`] lists ports, [`holders`](Places::holders) tells which processes have one open, and
//! [`listing`](Places::listing) joins the two for people and programs. In a container that has the host's `/sys` and
//! `/dev` elsewhere, the variables FOREBAY_SYSFS and FOREBAY_DEV say where.
//! **Failure.** What cannot be read is not there: a machine without sysfs has ports without an identity, and processes
//! of other users are not among the holders unless one may look into them, as root may.

mod holders;
mod listing;
mod usb;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

pub use holders::Holder;
pub use listing::{Listed, PortState, Served};
pub use usb::Usb;

/// Most names that are looked at in one directory.
const NAMES_MAX: usize = 16_384;

/// A port, by the number of its device: a path and a link to it are one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId(u64);

impl PortId {
    /// The port that a path leads to, if it leads to a device.
    #[must_use]
    pub fn of(path: &Path) -> Option<PortId> {
        let metadata = std::fs::metadata(path).ok()?;
        metadata.file_type().is_char_device().then(|| PortId(metadata.rdev()))
    }

    /// Whether it is a pseudo-terminal, which belongs to whoever made it.
    #[must_use]
    pub fn is_pseudo(self) -> bool {
        (136..=143).contains(&rustix::fs::major(self.0))
    }

    #[cfg(test)]
    pub(crate) fn new(number: u64) -> PortId {
        PortId(number)
    }
}

/// A port that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its path, such as `/dev/ttyACM0`.
    pub path: PathBuf,
    /// Which one it is.
    pub id: PortId,
    /// What it is by USB, unless it is part of the machine.
    pub usb: Option<Usb>,
}

/// Where the machine tells of its ports.
#[derive(Clone, Debug)]
pub struct Places {
    sys: PathBuf,
    dev: PathBuf,
    proc: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        let place = |variable: &str, usual: &str| {
            std::env::var_os(variable)
                .filter(|path| !path.is_empty())
                .map_or_else(|| PathBuf::from(usual), PathBuf::from)
        };
        Places {
            sys: place("FOREBAY_SYSFS", "/sys"),
            dev: place("FOREBAY_DEV", "/dev"),
            proc: "/proc".into(),
        }
    }
}

impl Places {
    /// The ports that have hardware, in the order of their names.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let mut ports: Vec<Port> = names(&self.sys.join("class/tty"))
            .filter_map(|name| {
                let class = self.sys.join("class/tty").join(&name);
                // Terminals without hardware have no device; a UART that is not fitted is of type 0.
                let device = class.join("device").canonicalize().ok()?;
                if std::fs::read_to_string(class.join("type")).is_ok_and(|kind| kind.trim() == "0") {
                    return None;
                }
                let path = self.dev.join(&name);
                let id = PortId::of(&path)?;
                Some(Port { path, id, usb: usb::identity(&device, &self.sys) })
            })
            .collect();
        ports.sort_by(|a, b| a.path.cmp(&b.path));
        ports
    }

    /// The links below `/dev/serial/by-id`, which stay the same wherever a device is plugged in.
    fn by_id(&self) -> BTreeMap<PortId, PathBuf> {
        let directory = self.dev.join("serial/by-id");
        let paths = names(&directory).map(|name| directory.join(name));
        paths.filter_map(|path| Some((PortId::of(&path)?, path))).collect()
    }
}

/// The names in a directory, as far as they are text; none if it cannot be read.
fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(NAMES_MAX);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// A machine whose ports are made up, and whose devices are terminals.
    pub(crate) struct FakeMachine {
        pub(crate) directory: tempfile::TempDir,
        pub(crate) places: Places,
        lines: Vec<std::os::fd::OwnedFd>,
    }

    impl FakeMachine {
        pub(crate) fn new() -> FakeMachine {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            for name in ["sys/class/tty", "dev/serial/by-id"] {
                std::fs::create_dir_all(at(name)).unwrap();
            }
            let places = Places { sys: at("sys"), dev: at("dev"), proc: "/proc".into() };
            FakeMachine { directory, places, lines: Vec::new() }
        }

        /// Adds `/dev/NAME` whose device is `device` below `/sys/devices`, with files of that content beside it.
        pub(crate) fn add(&mut self, name: &str, device: &str, files: &[(&str, &str)]) -> PathBuf {
            let sys = self.directory.path().join("sys");
            std::fs::create_dir_all(sys.join("devices").join(device)).unwrap();
            for (file, content) in files {
                std::fs::write(sys.join("devices").join(file), content).unwrap();
            }
            let class = sys.join("class/tty").join(name);
            std::fs::create_dir_all(&class).unwrap();
            symlink(sys.join("devices").join(device), class.join("device")).unwrap();
            let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
            grantpt(&line).unwrap();
            unlockpt(&line).unwrap();
            let terminal = ptsname(&line, Vec::new()).unwrap();
            let path = self.directory.path().join("dev").join(name);
            symlink(terminal.to_str().unwrap(), &path).unwrap();
            self.lines.push(line);
            path
        }

        /// A Pico by USB.
        pub(crate) fn add_pico(&mut self, name: &str, serial: &str) -> PathBuf {
            let usb = format!("pci0/usb1/{serial}");
            let file = |file: &str| format!("{usb}/{file}");
            let files = [
                (file("idVendor"), "2e8a\n"),
                (file("idProduct"), "000a\n"),
                (file("manufacturer"), "Raspberry Pi\n"),
                (file("product"), "Pico\n"),
                (file("serial"), &*format!("{serial}\n")),
            ];
            let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
            self.add(name, &format!("{usb}/1-1:1.0"), &files)
        }
    }

    #[test]
    fn ports_have_their_usb_identity_and_phantoms_are_left_out() {
        let mut machine = FakeMachine::new();
        let pico = machine.add_pico("ttyACM0", "E6614104");
        let uart = machine.add("ttyAMA0", "platform/uart", &[]);
        machine.add("ttyS7", "platform/serial8250", &[]);
        let class = machine.directory.path().join("sys/class/tty");
        std::fs::write(class.join("ttyS7/type"), "0\n").unwrap();
        std::fs::create_dir_all(class.join("tty1")).unwrap();
        let ports = machine.places.ports();
        assert_eq!(ports.iter().map(|port| &port.path).collect::<Vec<_>>(), [&pico, &uart]);
        let usb = ports[0].usb.as_ref().unwrap();
        assert_eq!((usb.vendor, usb.product), (0x2e8a, 0x000a));
        assert_eq!((usb.serial.as_deref(), usb.name.as_deref()), (Some("E6614104"), Some("Pico")));
        assert_eq!(ports[1].usb, None);
        assert_eq!(PortId::of(&pico), Some(ports[0].id));
    }

    #[test]
    fn a_machine_without_sysfs_has_no_ports() {
        let nowhere = Places { sys: "/nowhere".into(), dev: "/nowhere".into(), proc: "/nowhere".into() };
        assert_eq!(nowhere.ports(), []);
        assert!(nowhere.listing(&[], &BTreeMap::new()).is_empty());
    }
}
