//! Names: which series a row belongs to, from what its device announces and what the configuration says of it.

use std::collections::BTreeMap;

use super::GAP_MEASUREMENT;
use crate::config::{Config, Device};
use crate::journal::entry::Cause;
use crate::record::{PointError, SeriesKey};

/// The configured tags and names. Cheap to ask, built once.
#[derive(Debug, Default)]
pub struct Naming {
    everywhere: BTreeMap<String, String>,
    devices: BTreeMap<String, Device>,
}

/// A device as its points name it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Value of the tag `device`.
    pub tag: &'a str,
    /// What `[devices]` says of it.
    configured: Option<&'a Device>,
}

impl<'a> Named<'a> {
    /// The same device under another tag, with all that is configured for it.
    #[must_use]
    pub fn renamed(self, tag: &'a str) -> Named<'a> {
        Named { tag, ..self }
    }
}

impl Naming {
    /// Takes `[tags]` and `[devices]`.
    #[must_use]
    pub fn new(config: &Config) -> Naming {
        Naming { everywhere: config.tags.clone(), devices: config.devices.clone() }
    }

    /// Names of single devices and nothing else.
    #[cfg(test)]
    pub(crate) fn of(devices: &[(&str, Device)]) -> Naming {
        let devices = devices.iter().map(|(key, device)| ((*key).to_owned(), device.clone())).collect();
        Naming { everywhere: BTreeMap::new(), devices }
    }

    /// A device that is known by what it announces alone.
    #[must_use]
    pub fn foreign<'a>(&'a self, announced: &'a str) -> Named<'a> {
        let configured = self.devices.get(announced);
        let tag = configured.and_then(|device| device.name.as_deref()).unwrap_or(announced);
        Named { tag, configured }
    }

    /// A device with a chip id: configured by it or by its announced name, else named as announced, else by the chip.
    #[must_use]
    pub fn native<'a>(&'a self, chip: &'a str, announced: &'a str) -> Named<'a> {
        let configured = self.devices.get(chip).or_else(|| self.devices.get(announced));
        let fallback = if announced.is_empty() { chip } else { announced };
        let tag = configured.and_then(|device| device.name.as_deref()).unwrap_or(fallback);
        Named { tag, configured }
    }

    /// The series of a row. Of tags with one name the row's own wins, then the device's, then the one for everywhere.
    ///
    /// # Errors
    /// A measurement, name or value that line protocol cannot carry.
    pub fn series(
        &self,
        measurement: &str,
        device: Option<&Named<'_>>,
        own: Vec<(&str, &str)>,
    ) -> Result<SeriesKey, PointError> {
        let mut tags = own;
        if let Some(device) = device {
            tags.retain(|(name, _)| *name != "device");
            tags.push(("device", device.tag));
        }
        let of_device = device.and_then(|device| device.configured).map(|device| &device.tags);
        for (name, value) in of_device.into_iter().flatten().chain(&self.everywhere) {
            if !tags.iter().any(|(known, _)| known == name) {
                tags.push((name, value));
            }
        }
        SeriesKey::new(measurement, &mut tags)
    }
}

impl Naming {
    /// The series of the points that tell of a device's gaps, in canonical form. The configuration's own tags are
    /// left out where they cannot be carried: a loss is declared in any case.
    #[must_use]
    pub fn gap_series(&self, device: Option<&Named<'_>>, cause: Cause) -> String {
        let own = || vec![("cause", cause.as_str())];
        let full = self.series(GAP_MEASUREMENT, device, own());
        full.or_else(|_| SeriesKey::new(GAP_MEASUREMENT, &mut own()))
            .map_or_else(|_| GAP_MEASUREMENT.to_owned(), |key| key.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        let tags = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let boiler = Device { name: Some("boiler".to_owned()), tags: tags(&[("room", "cellar")]) };
        Naming {
            everywhere: tags(&[("gateway", "barn"), ("room", "somewhere")]),
            devices: BTreeMap::from([("e6614104".to_owned(), boiler)]),
        }
    }

    #[test]
    fn the_nearest_tag_wins() {
        let naming = naming();
        let boiler = naming.native("e6614104", "esp");
        let key = naming.series("climate", Some(&boiler), vec![]).unwrap();
        assert_eq!(key.as_str(), "climate,device=boiler,gateway=barn,room=cellar");
        let key = naming.series("climate", Some(&boiler), vec![("room", "attic")]).unwrap();
        assert_eq!(key.as_str(), "climate,device=boiler,gateway=barn,room=attic");
    }

    #[test]
    fn a_device_is_named_as_configured_else_as_announced_else_by_its_chip() {
        let naming = naming();
        assert_eq!(naming.native("e6614104", "esp").tag, "boiler");
        assert_eq!(naming.native("ff00", "esp").tag, "esp");
        assert_eq!(naming.native("ff00", "").tag, "ff00");
        assert_eq!(naming.foreign("pump").tag, "pump");
    }
}
