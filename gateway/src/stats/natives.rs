//! What sessions know of native devices, for those who show it: units of channels, and how well their clocks are known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use forebay_shared::reading::Schema;

use super::{MAX_TOLD, lock};

/// What is known of native devices since the gateway's start, by ledger key.
#[derive(Debug, Default)]
pub struct Natives(Mutex<HashMap<Box<str>, Native>>);

/// One native device.
#[derive(Clone, Debug, Default)]
pub struct Native {
    /// What it calls its channels, once it has said so or is known.
    pub schema: Option<Arc<Schema>>,
    /// How its clock goes, once it was asked.
    pub clock: Option<NativeClock>,
}

/// What is known of a device's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeClock {
    /// By how much a row may be dated wrongly while the device is connected, in nanoseconds: half the round trip of the
    /// quickest of the latest exchanges.
    pub error_ns: i64,
    /// By how much its seconds are longer than ours, in parts per billion.
    pub rate_ppb: f64,
}

impl Natives {
    /// The device calls its channels so.
    pub fn describe(&self, device: &str, schema: &Arc<Schema>) {
        self.change(device, |native| native.schema = Some(Arc::clone(schema)));
    }

    /// Its clock was asked.
    pub fn set_clock(&self, device: &str, clock: NativeClock) {
        self.change(device, |native| native.clock = Some(clock));
    }

    /// What is known of a device.
    #[must_use]
    pub fn get(&self, device: &str) -> Option<Native> {
        lock(&self.0).get(device).cloned()
    }

    fn change(&self, device: &str, change: impl FnOnce(&mut Native)) {
        let mut natives = lock(&self.0);
        if let Some(native) = natives.get_mut(device) {
            change(native);
        } else if natives.len() < MAX_TOLD {
            change(natives.entry(device.into()).or_default());
        }
    }
}

impl Native {
    /// The unit of a channel of a group; none if it has none.
    #[must_use]
    pub fn unit(&self, group: &str, channel: &str) -> Option<&str> {
        let channels = self.schema.as_ref()?.channels();
        let is_it = |group_name: &str, name: &str| group_name == group && name == channel;
        let found = channels.iter().find(|of| is_it(&of.group_name, &of.channel))?;
        Some(found.unit.as_str()).filter(|unit| !unit.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use forebay_shared::ids::GroupId;
    use forebay_shared::reading::{Description, ValueKind};

    use super::*;

    #[test]
    fn units_go_by_group_and_channel() {
        let name = |text: &str| text.try_into().unwrap();
        let channel = |group: u8, group_name: &str, unit: &str| Description {
            group: GroupId(group),
            group_name: name(group_name),
            channel: name("t"),
            unit: name(unit),
            kind: ValueKind::I32,
            scale: -2,
        };
        let schema = Schema::new([channel(0, "air", "°C"), channel(1, "state", "")]).unwrap();
        let natives = Natives::default();
        natives.describe("chip", &Arc::new(schema));
        natives.set_clock("chip", NativeClock { error_ns: 400, rate_ppb: -2_000.0 });
        let native = natives.get("chip").unwrap();
        assert_eq!((native.unit("air", "t"), native.unit("state", "t")), (Some("°C"), None));
        assert_eq!((native.unit("air", "u"), native.clock.unwrap().error_ns), (None, 400));
        assert!(natives.get("other").is_none());
    }
}
