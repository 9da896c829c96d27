//! Serial ports: looked at, never opened, since opening resets many boards.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Finding;
use crate::config::{Serial, SerialSelector, Speech};
use crate::ports::{Places, PortId};
use crate::source::serial;
use crate::stats::SourceState;
use crate::stats::status::SourceReport;

/// The key that names the port or ports.
pub(super) fn key(selector: &SerialSelector) -> &'static str {
    match selector {
        SerialSelector::Port(_) | SerialSelector::Any(_) => "serial.port",
        SerialSelector::Usb { .. } => "serial.usb",
    }
}

/// What is said of a port that is claimed and is not there.
const ABSENT: &str = "is not plugged in now; it is claimed when it appears";

/// Whether the port is there and may be used; `known` is what a running gateway says about it.
pub(super) fn check(config: &Serial, known: Option<&SourceReport>) -> Finding {
    let found = look(&config.selector, known)?;
    Ok(match &config.speech {
        Speech::Native => found,
        Speech::Text(_) => {
            format!("{found}; unprotected: text cannot be acknowledged, so what is not heard is lost")
        }
    })
}

fn look(selector: &SerialSelector, known: Option<&SourceReport>) -> Finding {
    if let Some(known) = known {
        return match (known.state, &known.last_error) {
            (SourceState::Connected, _) => Ok("the running gateway has it open".to_owned()),
            (SourceState::Waiting, _) => Ok(ABSENT.to_owned()),
            _ if selector.is_claim() && is_absent(selector) => Ok(ABSENT.to_owned()),
            (_, Some(error)) => Err(format!("the running gateway says: {error}")),
            (_, None) => Err("the running gateway does not have it open; plug the device in".to_owned()),
        };
    }
    match selector {
        SerialSelector::Port(path) => check_path(path).and_then(|found| check_free(path, found)),
        SerialSelector::Usb { vendor, product } => check_usb(*vendor, *product, &Places::default()),
        // A directory that is not there is no fault either, as that of the ids is while nothing is plugged in.
        SerialSelector::Any(_) => check_any(selector, &Places::default()),
    }
}

fn check_path(path: &Path) -> Finding {
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => {
            return Err(
                "there is no such port; plug the device in, or correct serial.port (`forebay ports` shows what there is)"
                    .to_owned(),
            );
        }
        Err(error) => {
            return Err(format!(
                "may not be used: {error}; add the gateway's user to the group of the port with `usermod -aG dialout USER`"
            ));
        }
    }
    let is_device = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device());
    if is_device { Ok("is there".to_owned()) } else { Err("is no serial port; name another path".to_owned()) }
}

/// A port that is named is to be this gateway's alone.
fn check_free(path: &Path, found: String) -> Finding {
    match PortId::of(path).filter(|id| !id.is_pseudo()).map(|id| others(id, &Places::default())) {
        // The other end of a pseudo-terminal may have this one open too.
        None => Ok(found),
        Some(others) if others.is_empty() => Ok(found),
        Some(others) => Err(format!("is open in {others}; stop it, or name another port")),
    }
}

/// The other processes that have a port open, as words.
fn others(id: PortId, places: &Places) -> String {
    places.others(id).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A device that is not plugged in is no fault: it is claimed whenever it appears.
fn check_usb(vendor: u16, product: Option<u16>, places: &Places) -> Finding {
    let of_kind = |port: &crate::ports::Port| {
        port.usb
            .as_ref()
            .is_some_and(|usb| vendor == usb.vendor && product.is_none_or(|product| product == usb.product))
    };
    check_all(places.ports().iter().filter(|port| of_kind(port)).map(|port| port.path.as_path()), places)
}

fn check_any(selector: &SerialSelector, places: &Places) -> Finding {
    check_all(serial::find(selector, &places.ports()).iter().map(|(path, _)| path.as_path()), places)
}

fn is_absent(selector: &SerialSelector) -> bool {
    serial::find(selector, &Places::default().ports()).is_empty()
}

/// Ports that are claimed are left to whoever has them, which is no fault.
fn check_all<'a>(paths: impl Iterator<Item = &'a Path>, places: &Places) -> Finding {
    let mut names = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        check_path(path).map_err(|fault| format!("{name} {fault}"))?;
        let others = PortId::of(path).map(|id| others(id, places)).unwrap_or_default();
        names.push(if others.is_empty() { name } else { format!("{name}, which is left to {others}") });
    }
    match names[..] {
        [] => Ok(ABSENT.to_owned()),
        _ => Ok(format!("is at {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::PortPattern;
    use crate::ports::tests::FakeMachine;

    fn selector(path: &str) -> SerialSelector {
        SerialSelector::Port(path.into())
    }

    #[test]
    fn a_missing_port_and_a_file_are_faults() {
        let port = |path: &str| look(&selector(path), None);
        assert!(port("/dev/no-such-port").unwrap_err().contains("plug the device in"));
        assert!(port("/proc/self/status").is_err());
        let mut machine = FakeMachine::new();
        let there = machine.add("ttyA", "a", &[]);
        assert_eq!(port(&there.to_string_lossy()).unwrap(), "is there");
        // A device that somebody has open, which is no pseudo-terminal.
        let mut other =
            std::process::Command::new("sleep").arg("60").stdin(std::process::Stdio::null()).spawn().unwrap();
        let fault = port("/dev/null").unwrap_err();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(fault.contains("is open in process ") && fault.contains("stop it"), "{fault}");
    }

    #[test]
    fn ports_that_are_claimed_may_be_absent() {
        let mut machine = FakeMachine::new();
        assert!(check_usb(0x2e8a, None, &machine.places).unwrap().contains("not plugged in"));
        let pico = machine.add_pico("ttyACM0", "1");
        for product in [None, Some(0x000a)] {
            assert_eq!(
                check_usb(0x2e8a, product, &machine.places).unwrap(),
                format!("is at {}", pico.display())
            );
        }
        assert!(check_usb(0x2e8a, Some(0x000b), &machine.places).unwrap().contains("not plugged in"));
        let any = |pattern: &str| {
            check_any(&SerialSelector::Any(PortPattern::parse(pattern).unwrap()), &machine.places).unwrap()
        };
        assert_eq!(any(&pico.with_file_name("tty*").to_string_lossy()), format!("is at {}", pico.display()));
        assert!(any("/nowhere/tty*").contains("not plugged in"));
        assert!(any("/dev/tty").contains("not plugged in"), "a console is no port");
    }

    #[test]
    fn whoever_has_a_port_open_is_named() {
        let mut machine = FakeMachine::new();
        let pico = machine.add_pico("ttyACM0", "1");
        let open = std::fs::File::options().read(true).write(true).open(&pico).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").stdin(open).spawn().unwrap();
        let found = check_usb(0x2e8a, None, &machine.places).unwrap();
        let expected = format!("is at {}, which is left to process {} (sleep)", pico.display(), other.id());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, expected);
        assert_eq!(check_free(&pico, "is there".to_owned()), Ok("is there".to_owned()), "a pseudo-terminal");
    }

    #[test]
    fn a_running_gateway_is_asked() {
        let report = |state, last_error: Option<&str>| SourceReport {
            state,
            last_error: last_error.map(str::to_owned),
            last_error_ns: None,
            messages: 0,
            rows_received: 0,
            rows_acked: 0,
            bad_messages: 0,
            bad_messages_lately: 0,
            doubtful_messages: 0,
            dropped_messages: 0,
            dropped_messages_lately: 0,
            alarm: None,
            queue_alarms: 0,
            broker_dropped_messages: None,
            broker_dropped_messages_lately: 0,
            unprotected_messages: BTreeMap::new(),
            connects: 0,
            unprotected: false,
            rows_per_s: 0.0,
        };
        let selector = selector("/dev/no-such-port");
        assert!(look(&selector, Some(&report(SourceState::Connected, None))).is_ok());
        assert_eq!(look(&selector, Some(&report(SourceState::Waiting, None))).unwrap(), ABSENT);
        let fault = look(&selector, Some(&report(SourceState::Disconnected, Some("busy; stop minicom"))));
        assert_eq!(fault, Err("the running gateway says: busy; stop minicom".to_owned()));
    }
}
