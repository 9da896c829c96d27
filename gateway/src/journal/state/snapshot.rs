//! The state as the bytes of a snapshot, and back.
//!
//! A state without early entries has the form that every version of this program reads.

use super::super::bugs::{Bug, seeded};
use super::{Early, State};

/// Version of a snapshot without clocks, and of one with them.
const SNAPSHOT_VERSION: u8 = 1;
const SNAPSHOT_VERSION_WITH_CLOCKS: u8 = 2;

impl State {
    /// The state as a snapshot holds it.
    pub(in crate::journal) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        if self.clocks.is_empty() || seeded(Bug::SnapshotWithoutClocks) {
            return postcard::to_extend(self, vec![SNAPSHOT_VERSION]);
        }
        let bytes = postcard::to_extend(self, vec![SNAPSHOT_VERSION_WITH_CLOCKS])?;
        let devices = (0_u32..).zip(&self.devices);
        let early: Vec<(u32, Early)> = devices.filter_map(|(at, device)| Some((at, device.early?))).collect();
        postcard::to_extend(&(&self.clocks, early), bytes)
    }

    /// The state from a snapshot, under the limit that now holds; none if the bytes are no snapshot.
    pub(in crate::journal) fn from_bytes(bytes: &[u8], device_bytes_max: usize) -> Option<State> {
        let (version, bytes) = bytes.split_first()?;
        let (mut state, mut rest) = postcard::take_from_bytes::<State>(bytes).ok()?;
        match *version {
            SNAPSHOT_VERSION => {}
            SNAPSHOT_VERSION_WITH_CLOCKS => {
                let early: Vec<(u32, Early)>;
                ((state.clocks, early), rest) = postcard::take_from_bytes(rest).ok()?;
                for (at, early) in early {
                    state.devices.get_mut(usize::try_from(at).ok()?)?.early = Some(early);
                }
            }
            _ => return None,
        }
        state.device_bytes_max = device_bytes_max;
        state.places = state.devices.iter().enumerate().map(|(at, d)| (d.key.clone(), at)).collect();
        rest.is_empty().then_some(state)
    }
}
