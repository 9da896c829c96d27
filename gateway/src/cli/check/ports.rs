//! Serial ports: looked at, never opened, since opening resets many boards.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serialport::SerialPortType;

use super::Finding;
use crate::config::SerialSelector;
use crate::stats::SourceState;
use crate::stats::status::SourceReport;

/// Whether the port is there and may be used; `known` is what a running gateway says about it.
pub(super) fn check(selector: &SerialSelector, known: Option<&SourceReport>) -> Finding {
    if let Some(known) = known {
        return match (known.state, &known.last_error) {
            (SourceState::Connected, _) => Ok("the running gateway has it open".to_owned()),
            (_, Some(error)) => Err(format!("the running gateway says: {error}")),
            (_, None) => Err("the running gateway does not have it open; plug the device in".to_owned()),
        };
    }
    match selector {
        SerialSelector::Port(path) => check_path(path),
        SerialSelector::Usb { vendor, product } => check_usb(*vendor, *product),
    }
}

fn check_path(path: &Path) -> Finding {
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => {
            return Err(
                "there is no such port; plug the device in, or correct serial.port (`ls /dev/serial/by-id` shows what there is)"
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

/// A device that is not plugged in is no fault: it is claimed whenever it appears.
fn check_usb(vendor: u16, product: Option<u16>) -> Finding {
    // Without sysfs, as in some containers, no port has a USB identity.
    let ports =
        if Path::new("/sys/class/tty").is_dir() { serialport::available_ports() } else { Ok(Vec::new()) };
    let ports = ports
        .map_err(|error| format!("the ports of this machine cannot be listed: {error}; is /sys mounted?"))?;
    let matching = ports.iter().filter(|port| match &port.port_type {
        SerialPortType::UsbPort(usb) => usb.vid == vendor && product.is_none_or(|product| product == usb.pid),
        _ => false,
    });
    let mut names = Vec::new();
    for port in matching {
        check_path(Path::new(&port.port_name)).map_err(|fault| format!("{} {fault}", port.port_name))?;
        names.push(port.port_name.as_str());
    }
    match names[..] {
        [] => Ok("is not plugged in now; it is claimed when it appears".to_owned()),
        _ => Ok(format!("is at {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_port_and_a_file_are_faults() {
        let port = |path: &str| check(&SerialSelector::Port(path.into()), None);
        assert!(port("/dev/no-such-port").unwrap_err().contains("plug the device in"));
        assert!(port("/proc/self/status").is_err());
        assert_eq!(port("/dev/null").unwrap(), "is there");
        assert!(check(&SerialSelector::Usb { vendor: 0xffff, product: Some(1) }, None).is_ok());
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
            connects: 0,
        };
        let selector = SerialSelector::Port("/dev/no-such-port".into());
        assert!(check(&selector, Some(&report(SourceState::Connected, None))).is_ok());
        let fault = check(&selector, Some(&report(SourceState::Disconnected, Some("busy; stop minicom"))));
        assert_eq!(fault, Err("the running gateway says: busy; stop minicom".to_owned()));
    }
}
