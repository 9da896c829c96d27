//! Which devices a batch leaves out, and how much each has in the run of the journal that it covers.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Record;

/// Devices, by ledger key, whose records are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(Arc<[Arc<str>]>);

/// Bytes of records by device, those of devices that are left out too.
#[derive(Clone, Debug, Default)]
pub struct Census {
    bytes: HashMap<Box<str>, u64>,
    records: usize,
}

impl LeftOut {
    /// Whether a device is left out.
    #[must_use]
    pub fn has(&self, device: &str) -> bool {
        self.0.iter().any(|out| **out == *device)
    }

    /// How many devices are left out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that two have in common.
    #[must_use]
    pub fn common(&self, other: &LeftOut) -> LeftOut {
        match self == other {
            true => self.clone(),
            false => self.0.iter().filter(|device| other.has(device)).cloned().collect(),
        }
    }
}

/// Equal sets are equal, in whatever order they are given.
impl FromIterator<Arc<str>> for LeftOut {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(devices: I) -> LeftOut {
        let mut devices: Vec<Arc<str>> = devices.into_iter().collect();
        devices.sort_unstable();
        devices.dedup();
        LeftOut(devices.into())
    }
}

impl Census {
    /// Counts a record.
    pub(crate) fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        let bytes = record.bytes() as u64;
        match self.bytes.get_mut(record.device()) {
            Some(known) => *known = known.saturating_add(bytes),
            None => drop(self.bytes.insert(record.device().into(), bytes)),
        }
    }

    /// Records of all devices.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of all devices' records.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Bytes of a device's records.
    #[must_use]
    pub fn of(&self, device: &str) -> u64 {
        self.bytes.get(device).copied().unwrap_or(0)
    }

    /// Devices that have any, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.bytes.iter().map(|(device, bytes)| (&**device, *bytes))
    }
}
