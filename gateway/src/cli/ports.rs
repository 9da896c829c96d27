//! `forebay ports`: the serial ports of this machine, who has them, and the lines that configure them.
//!
//! A running gateway is asked, because it knows what it does with each port and may see more of the machine than whoever
//! asks. Who has a port open this process looks up too, since root sees the processes of all users, and the gateway is a
//! user of its own. Without a gateway, and without a configuration, it looks for everything by itself; it opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::process::geteuid;
use serde::Serialize;

use super::control::{Gateway, NotRunning, talk};
use super::plain;
use crate::config::{Config, SerialSelector};
use crate::ports::{Holder, Listed, Places, PortId};

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    /// Whether a running gateway was asked.
    gateway: bool,
    ports: Vec<Listed>,
}

/// Prints all ports. Without a configuration no gateway is looked for.
///
/// # Errors
/// A gateway runs and does not answer, or standard output cannot be written.
pub(super) fn run(config: Option<&Config>, json: bool) -> Result<()> {
    let answer = ask(config)?;
    let text = if json { serde_json::to_string_pretty(&answer)? + "\n" } else { render(&answer) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

fn ask(config: Option<&Config>) -> Result<Answer> {
    let gateway = config.map(|config| Gateway::find(&config.data_dir));
    match gateway {
        Some(Ok(gateway)) => {
            let ports = talk(async {
                let text = gateway.get("/api/v1/ports", &[]).await?.text().await?;
                serde_json::from_str(&text)
                    .context("its ports cannot be read; is the gateway of the same version as this command?")
            })?;
            Ok(Answer { gateway: true, ports: see_more(ports, &Places::default()) })
        }
        Some(Err(error)) if !error.is::<NotRunning>() => Err(error),
        _ => {
            let further = config.map(configured).unwrap_or_default();
            Ok(Answer { gateway: false, ports: Places::default().listing(&further, &BTreeMap::new()) })
        }
    }
}

/// Adds the holders that this process may see, and the gateway may not.
fn see_more(mut ports: Vec<Listed>, places: &Places) -> Vec<Listed> {
    let id_of = |port: &Listed| PortId::of(&port.path);
    let seen = places.holders(&ports.iter().filter_map(id_of).collect::<BTreeSet<PortId>>());
    for port in &mut ports {
        for holder in id_of(port).and_then(|id| seen.get(&id)).into_iter().flatten() {
            if port.holders.iter().all(|known| known.pid != holder.pid) {
                port.holders.push(holder.clone());
            }
        }
    }
    ports
}

/// The paths that a configuration names; what is no device is left out.
fn configured(config: &Config) -> Vec<PathBuf> {
    let of = |selector: &SerialSelector| match selector {
        SerialSelector::Port(path) => vec![path.clone()],
        SerialSelector::Any(pattern) => pattern.paths(),
        SerialSelector::Usb { .. } => Vec::new(),
    };
    config.serial.iter().flat_map(|port| of(&port.selector)).collect()
}

fn render(answer: &Answer) -> String {
    if answer.ports.is_empty() {
        return "there is no serial port; plug a device in, and in a container let it see /sys and /dev\n"
            .to_owned();
    }
    let mut page = String::new();
    for port in &answer.ports {
        // Writing into a String cannot fail.
        let _ = write!(page, "{}", shown(&port.path));
        if let Some(usb) = &port.usb {
            let _ = write!(page, "  {:04x}:{:04x}", usb.vendor, usb.product);
            for text in [&usb.manufacturer, &usb.name].into_iter().flatten() {
                let _ = write!(page, "  {}", plain(text));
            }
            if let Some(serial) = &usb.serial {
                let _ = write!(page, "  serial {}", plain(serial));
            }
        }
        page.push('\n');
        if let Some(by_id) = &port.by_id {
            let _ = writeln!(page, "    always at  {}", shown(by_id));
        }
        let _ = writeln!(page, "    open in    {}", open_in(&port.holders, geteuid().is_root()));
        if let Some(served) = &port.gateway {
            let detail =
                if served.detail.is_empty() { String::new() } else { format!(": {}", plain(&served.detail)) };
            let _ = writeln!(
                page,
                "    gateway    {} for {}{detail}",
                served.state.as_str(),
                plain(&served.serial)
            );
        }
        for line in port.configure.lines() {
            let _ = writeln!(page, "    {}", plain(line));
        }
        page.push('\n');
    }
    page.pop();
    page
}

fn open_in(holders: &[Holder], sees_all: bool) -> String {
    if holders.is_empty() {
        let unless = if sees_all { "" } else { " that this user may see (`sudo forebay ports` shows all)" };
        return format!("no process{unless}");
    }
    let names = holders.iter().map(|holder| format!("{} ({})", holder.pid, plain(&holder.command)));
    names.collect::<Vec<_>>().join(", ")
}

fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tests::FakeMachine;
    use crate::ports::{PortState, Served, Usb};

    #[test]
    fn a_port_is_shown_with_all_that_is_known_and_nothing_that_steers_a_terminal() {
        let port = Listed {
            path: "/dev/ttyACM0".into(),
            by_id: Some("/dev/serial/by-id/usb-x".into()),
            usb: Some(Usb {
                vendor: 0x2e8a,
                product: 0xa,
                serial: Some("E6\u{1b}[2J".into()),
                manufacturer: Some("Raspberry Pi".into()),
                name: None,
            }),
            holders: vec![Holder { pid: 7, command: "forebay".into() }],
            gateway: Some(Served {
                serial: "usb:2e8a:*".into(),
                state: PortState::Released,
                detail: "nothing valid came".into(),
                since_ns: 1,
            }),
            configure: "[[serial]]\nusb = \"2e8a:000a\"\n".into(),
        };
        let page = render(&Answer { gateway: true, ports: vec![port] });
        for part in [
            "/dev/ttyACM0  2e8a:000a  Raspberry Pi  serial E6\u{fffd}[2J\n",
            "always at  /dev/serial/by-id/usb-x\n",
            "open in    7 (forebay)\n",
            "gateway    released for usb:2e8a:*: nothing valid came\n",
            "    [[serial]]\n    usb = \"2e8a:000a\"\n",
        ] {
            assert!(page.contains(part), "{part:?} in {page}");
        }
        assert!(render(&Answer { gateway: false, ports: Vec::new() }).contains("plug a device in"));
        assert_eq!(open_in(&[], true), "no process");
        assert!(open_in(&[], false).contains("sudo forebay ports"));
    }

    #[test]
    fn who_has_a_port_open_is_told_although_the_gateway_may_not_see_it() {
        let mut machine = FakeMachine::new();
        let port = machine.add_pico("ttyACM0", "1");
        let open = std::fs::File::options().read(true).write(true).open(&port).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").stdin(open).spawn().unwrap();
        let mut told = machine.places.listing(&[], &BTreeMap::new());
        let itself = Holder { pid: 1, command: "forebay".into() };
        told[0].holders = vec![itself.clone()];
        let more = see_more(told, &machine.places);
        let again = see_more(more.clone(), &machine.places);
        let expected = [itself, Holder { pid: other.id(), command: "sleep".into() }];
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(more[0].holders, expected);
        assert_eq!(again, more, "each only once");
    }
}
