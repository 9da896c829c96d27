//! The state as the bytes of a snapshot, and back.
//!
//! A state without early entries, shared points and native devices has the form that every version of this program reads.

use super::super::bugs::{Bug, seeded};
use super::super::clocks::Clocks;
use super::{BOOTS_BYTES, BOOTS_MAX, BootLedger, DeviceState, Early, Shared, State};

/// Version of a snapshot without clocks, of one with them, of one with shared points too, and of one with boots too.
const SNAPSHOT_VERSION: u8 = 1;
const SNAPSHOT_VERSION_WITH_CLOCKS: u8 = 2;
const SNAPSHOT_VERSION_WITH_SHARED: u8 = 3;
const SNAPSHOT_VERSION_WITH_BOOTS: u8 = 4;

impl State {
    /// The state as a snapshot holds it.
    pub(in crate::journal) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let is_mutant = seeded(Bug::SnapshotWithoutClocks);
        let no_clocks = Clocks::default();
        let clocks = if is_mutant { &no_clocks } else { &self.clocks };
        let version = match () {
            () if self.has_boots() => SNAPSHOT_VERSION_WITH_BOOTS,
            () if self.has_shared() => SNAPSHOT_VERSION_WITH_SHARED,
            () if !clocks.is_empty() => SNAPSHOT_VERSION_WITH_CLOCKS,
            () => SNAPSHOT_VERSION,
        };
        let mut bytes = postcard::to_extend(self, vec![version])?;
        if version >= SNAPSHOT_VERSION_WITH_CLOCKS {
            let early = self.listed(|device| device.early.filter(|_| !is_mutant));
            bytes = postcard::to_extend(&(clocks, early), bytes)?;
        }
        if version >= SNAPSHOT_VERSION_WITH_SHARED {
            bytes = postcard::to_extend(&self.listed(|device| device.shared), bytes)?;
        }
        if version >= SNAPSHOT_VERSION_WITH_BOOTS {
            let boots = self.listed(|device| Some(&device.by_boot).filter(|boots| !boots.is_empty()));
            bytes = postcard::to_extend(&boots, bytes)?;
        }
        Ok(bytes)
    }

    /// The state from a snapshot, under the limit that now holds; none if the bytes are no snapshot.
    pub(in crate::journal) fn from_bytes(bytes: &[u8], device_bytes_max: usize) -> Option<State> {
        let (version, bytes) = bytes.split_first()?;
        let (mut state, mut rest) = postcard::take_from_bytes::<State>(bytes).ok()?;
        if !(SNAPSHOT_VERSION..=SNAPSHOT_VERSION_WITH_BOOTS).contains(version) {
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
        if *version >= SNAPSHOT_VERSION_WITH_BOOTS {
            let boots: Vec<(u32, Vec<BootLedger>)>;
            (boots, rest) = postcard::take_from_bytes(rest).ok()?;
            for (at, boots) in boots {
                if boots.len() > BOOTS_MAX {
                    return None;
                }
                state.devices.get_mut(usize::try_from(at).ok()?)?.by_boot = boots;
            }
        } else {
            let natives = state.devices.iter().filter(|device| device.native).count();
            state.device_bytes = state.device_bytes.saturating_add(natives.saturating_mul(BOOTS_BYTES));
        }
        state.device_bytes_max = device_bytes_max;
        state.places = state.devices.iter().enumerate().map(|(at, d)| (d.key.clone(), at)).collect();
        rest.is_empty().then_some(state)
    }

    /// What some devices have, with their places in the list.
    fn listed<'a, T>(&'a self, of: impl Fn(&'a DeviceState) -> Option<T>) -> Vec<(u32, T)> {
        (0_u32..).zip(&self.devices).filter_map(|(at, device)| Some((at, of(device)?))).collect()
    }
}
