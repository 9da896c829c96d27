//! Which processes have a port open, as `/proc` tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Places, PortId, names};

/// Most holders that are named for one port.
const HOLDERS_MAX: usize = 8;

/// A process that has a port open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command, without arguments; empty if it has just ended.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

impl Places {
    /// The processes that have one of these ports open, as far as this one may see it.
    #[must_use]
    pub fn holders(&self, ports: &BTreeSet<PortId>) -> BTreeMap<PortId, Vec<Holder>> {
        let mut holders: BTreeMap<PortId, Vec<Holder>> = BTreeMap::new();
        if ports.is_empty() {
            return holders;
        }
        for pid in names(&self.proc).filter_map(|name| name.parse::<u32>().ok()) {
            let process = self.proc.join(pid.to_string());
            for id in open_devices(&process).intersection(ports) {
                let of_port = holders.entry(*id).or_default();
                if of_port.len() < HOLDERS_MAX {
                    let command = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
                    of_port.push(Holder { pid, command: command.trim().to_owned() });
                }
            }
        }
        holders
    }

    /// The other processes that have this port open, as far as this one may see it.
    #[must_use]
    pub fn others(&self, port: PortId) -> Vec<Holder> {
        let own = std::process::id();
        let holders = self.holders(&BTreeSet::from([port])).into_values().flatten();
        holders.filter(|holder| holder.pid != own).collect()
    }
}

fn open_devices(process: &Path) -> BTreeSet<PortId> {
    let directory = process.join("fd");
    names(&directory)
        .map(|fd| directory.join(fd))
        // Only what is a file below some directory of devices is asked for its number, which costs more.
        .filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to.starts_with("/dev")))
        .filter_map(|fd| PortId::of(&fd))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::FakeMachine;
    use super::*;

    #[test]
    fn whoever_has_a_port_open_is_named() {
        let mut machine = FakeMachine::new();
        let (held, free) = (machine.add("ttyA", "a", &[]), machine.add("ttyB", "b", &[]));
        let open = std::fs::File::options().read(true).write(true).open(&held).unwrap();
        let ids = BTreeSet::from([PortId::of(&held).unwrap(), PortId::of(&free).unwrap()]);
        let holders = machine.places.holders(&ids);
        let of = |path| holders.get(&PortId::of(path).unwrap()).cloned().unwrap_or_default();
        let command = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        assert_eq!(of(&held), [Holder { pid: std::process::id(), command }]);
        assert_eq!(of(&free), []);
        assert_eq!(machine.places.others(PortId::of(&held).unwrap()), [], "by this process only");
        let other = std::process::Command::new("sleep").arg("60").stdin(open.try_clone().unwrap()).spawn();
        let mut other = other.unwrap();
        let others = machine.places.others(PortId::of(&held).unwrap());
        assert_eq!(others.iter().map(|other| other.pid).collect::<Vec<_>>(), [other.id()]);
        other.kill().unwrap();
        other.wait().unwrap();
        drop(open);
        assert_eq!(machine.places.holders(&ids), BTreeMap::new());
    }
}
