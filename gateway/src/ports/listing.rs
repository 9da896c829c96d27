//! Everything about every port, and the lines that configure it: what `forebay ports` and `/api/v1/ports` show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Holder, Places, Port, PortId, Usb};

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path.
    pub path: PathBuf,
    /// Its path below `/dev/serial/by-id`, which stays the same wherever it is plugged in.
    pub by_id: Option<PathBuf>,
    /// What it is by USB, unless it is part of the machine.
    pub usb: Option<Usb>,
    /// The processes that have it open.
    pub holders: Vec<Holder>,
    /// What the running gateway does with it, if one runs and the port is one of its.
    pub gateway: Option<Served>,
    /// The lines that configure it.
    pub configure: String,
}

/// What the gateway does with a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The `[[serial]]` that it belongs to, as status names it.
    pub serial: String,
    /// How far it got with it.
    pub state: PortState,
    /// More about it, and what to do.
    pub detail: String,
    /// Since when, in nanoseconds since 1970.
    pub since_ns: i64,
}

/// How far the gateway got with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// It is open, and nothing valid has come yet.
    Waiting,
    /// It is open, and somebody speaks as configured.
    Served,
    /// Nothing valid came, so it is left to others for a while.
    Released,
    /// Another process has it.
    Held,
    /// It cannot be opened.
    Failed,
}

impl PortState {
    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PortState::Waiting => "waiting",
            PortState::Served => "served",
            PortState::Released => "released",
            PortState::Held => "held",
            PortState::Failed => "failed",
        }
    }
}

impl Places {
    /// All ports with hardware, and those among `further` that are there: paths of a configuration, such as
    /// pseudo-terminals. `served` is what the running gateway says, by path.
    #[must_use]
    pub fn listing(&self, further: &[PathBuf], served: &BTreeMap<PathBuf, Served>) -> Vec<Listed> {
        let mut ports = self.ports();
        for path in further.iter().chain(served.keys()) {
            if let Some(id) = PortId::of(path).filter(|id| ports.iter().all(|port| port.id != *id)) {
                ports.push(Port { path: path.clone(), id, usb: None });
            }
        }
        let ids: BTreeSet<PortId> = ports.iter().map(|port| port.id).collect();
        let served: BTreeMap<PortId, &Served> =
            served.iter().filter_map(|(path, served)| Some((PortId::of(path)?, served))).collect();
        let (mut holders, by_id) = (self.holders(&ids), self.by_id());
        let listed = |port: Port| {
            let by_id = by_id.get(&port.id).cloned();
            let stable = by_id.as_ref().unwrap_or(&port.path);
            let configure = configure(port.usb.as_ref(), &stable.to_string_lossy());
            Listed {
                holders: holders.remove(&port.id).unwrap_or_default(),
                gateway: served.get(&port.id).map(|served| (*served).clone()),
                path: port.path,
                by_id,
                usb: port.usb,
                configure,
            }
        };
        ports.into_iter().map(listed).collect()
    }
}

/// The lines that configure a port; a JSON string is a TOML string too.
fn configure(usb: Option<&Usb>, path: &str) -> String {
    let port = serde_json::Value::from(path);
    match usb {
        Some(Usb { vendor, product, .. }) => {
            format!("[[serial]]\nusb = \"{vendor:04x}:{product:04x}\"   # or only this one: port = {port}\n")
        }
        None => format!("[[serial]]\nport = {port}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::FakeMachine;
    use super::*;

    #[test]
    fn a_listing_has_names_holders_and_what_the_gateway_does() {
        let mut machine = FakeMachine::new();
        let pico = machine.add_pico("ttyACM0", "E66\"1");
        let by_id = machine.directory.path().join("dev/serial/by-id/usb-pico");
        symlink(&pico, &by_id).unwrap();
        let uart = machine.add("ttyAMA0", "platform/uart", &[]);
        let says = Served {
            serial: "usb:2e8a:*".into(),
            state: PortState::Served,
            detail: String::new(),
            since_ns: 5,
        };
        let listing = machine
            .places
            .listing(std::slice::from_ref(&pico), &BTreeMap::from([(by_id.clone(), says.clone())]));
        assert_eq!(listing.len(), 2, "a port that is configured is not there twice: {listing:?}");
        assert_eq!((listing[0].path.clone(), listing[0].by_id.clone()), (pico, Some(by_id.clone())));
        assert_eq!(listing[0].gateway, Some(says));
        assert_eq!(listing[1].gateway, None);
        for listed in &listing {
            let text = format!("data_dir = \"/nowhere\"\n{}", listed.configure);
            assert_eq!(crate::config::of_text(&text).serial.len(), 1, "{}", listed.configure);
        }
        assert!(
            listing[0].configure.contains("2e8a:000a") && listing[0].configure.contains("by-id/usb-pico")
        );
        assert!(listing[1].configure.contains(&*uart.to_string_lossy()));
    }
}
