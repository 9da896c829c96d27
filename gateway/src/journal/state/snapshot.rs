//! The state as the bytes of a snapshot, and back.
//!
//! A state without early entries and shared points has the form that every version of this program reads.

use super::super::bugs::{Bug, seeded};
use super::{DeviceState, Early, Shared, State};

/// Version of a snapshot without clocks, of one with them, and of one with shared points too.
const SNAPSHOT_VERSION: u8 = 1;
const SNAPSHOT_VERSION_WITH_CLOCKS: u8 = 2;
const SNAPSHOT_VERSION_WITH_SHARED: u8 = 3;

impl State {
    /// The state as a snapshot holds it.
    pub(in crate::journal) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let shared = self.listed(|device| device.shared);
        if (self.clocks.is_empty() || seeded(Bug::SnapshotWithoutClocks)) && shared.is_empty() {
            return postcard::to_extend(self, vec![SNAPSHOT_VERSION]);
        }
        let version =
            if shared.is_empty() { SNAPSHOT_VERSION_WITH_CLOCKS } else { SNAPSHOT_VERSION_WITH_SHARED };
        let bytes = postcard::to_extend(self, vec![version])?;
        let bytes = postcard::to_extend(&(&self.clocks, self.listed(|device| device.early)), bytes)?;
        if shared.is_empty() { Ok(bytes) } else { postcard::to_extend(&shared, bytes) }
    }

    /// The state from a snapshot, under the limit that now holds; none if the bytes are no snapshot.
    pub(in crate::journal) fn from_bytes(bytes: &[u8], device_bytes_max: usize) -> Option<State> {
        let (version, bytes) = bytes.split_first()?;
        let (mut state, mut rest) = postcard::take_from_bytes::<State>(bytes).ok()?;
        if !(SNAPSHOT_VERSION..=SNAPSHOT_VERSION_WITH_SHARED).contains(version) {
            return None;
        }
        if *version >= SNAPSHOT_VERSION_WITH_CLOCKS {
            let early: Vec<(u32, Early)>;
            ((state.clocks, early), rest) = postcard::take_from_bytes(rest).ok()?;
            for (at, early) in early {
                state.devices.get_mut(usize::try_from(at).ok()?)?.early = Some(early);
            }
        }
        if *version >= SNAPSHOT_VERSION_WITH_SHARED {
            let shared: Vec<(u32, Shared)>;
            (shared, rest) = postcard::take_from_bytes(rest).ok()?;
            for (at, shared) in shared {
                state.devices.get_mut(usize::try_from(at).ok()?)?.shared = Some(shared);
            }
        }
        state.device_bytes_max = device_bytes_max;
        state.places = state.devices.iter().enumerate().map(|(at, d)| (d.key.clone(), at)).collect();
        rest.is_empty().then_some(state)
    }

    /// What some devices have, with their places in the list.
    fn listed<T>(&self, of: impl Fn(&DeviceState) -> Option<T>) -> Vec<(u32, T)> {
        (0_u32..).zip(&self.devices).filter_map(|(at, device)| Some((at, of(device)?))).collect()
    }
}
