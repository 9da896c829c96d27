//! What a port is by USB: the nearest directory above its device in sysfs that has a vendor and a product.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How far the USB device may be above the device of its port, as a bound; it is one or two directories.
const LEVELS_MAX: usize = 6;

/// Longest text that is kept of a device's description, in bytes; USB allows 252.
const TEXT_BYTES_MAX: usize = 256;

/// What a device says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usb {
    /// Vendor id.
    #[serde(with = "hex")]
    pub vendor: u16,
    /// Product id.
    #[serde(with = "hex")]
    pub product: u16,
    /// Serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is called.
    pub name: Option<String>,
}

/// The identity of the port whose device is at `device`, which must be free of links.
pub(super) fn identity(device: &Path, sys: &Path) -> Option<Usb> {
    let sys = sys.canonicalize().ok()?;
    let above = device.ancestors().take(LEVELS_MAX).take_while(|path| path.starts_with(&sys));
    above.into_iter().find_map(|path| {
        let number = |name: &str| u16::from_str_radix(&text(path, name)?, 16).ok();
        Some(Usb {
            vendor: number("idVendor")?,
            product: number("idProduct")?,
            serial: text(path, "serial"),
            manufacturer: text(path, "manufacturer"),
            name: text(path, "product"),
        })
    })
}

fn text(directory: &Path, name: &str) -> Option<String> {
    let bytes = std::fs::read(directory.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Ids as everybody writes them: four digits.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    pub(super) fn serialize<S: Serializer>(id: &u16, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{id:04x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
        let text = String::deserialize(from)?;
        u16::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
