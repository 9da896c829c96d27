//! The state as the bytes of a snapshot, and back.
//!
//! A state without early entries, shared points and native devices has the form that every version of this program reads.

use super::super::bugs::{Bug, seeded};
use super::super::clocks::Clocks;
use super::{BOOTS_MAX, BootLedger, DeviceState, Early, Shared, State};

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
        }
        // Versions of this program reckon differently, and what is written must not be reckoned upon.
        state.device_bytes = state.reckon();
        state.device_bytes_max = device_bytes_max;
        state.places = state.devices.iter().enumerate().map(|(at, d)| (d.key.clone(), at)).collect();
        rest.is_empty().then_some(state)
    }

    /// What some devices have, with their places in the list.
    fn listed<'a, T>(&'a self, of: impl Fn(&'a DeviceState) -> Option<T>) -> Vec<(u32, T)> {
        (0_u32..).zip(&self.devices).filter_map(|(at, device)| Some((at, of(device)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::entry::{DeviceEntry, Entry, Fields, RowEntry, SinkEntry};
    use super::super::super::{JournalId, Options};
    use super::super::NewAccounts;
    use super::*;
    use crate::record::Offset;

    fn begin(state: &mut State, device: &str) {
        state.apply(Offset(0), &Entry::Device(DeviceEntry { device, name: "boiler", boot: 1, first: 0 }));
    }

    /// What snapshots of a state are when it is written and read so many times.
    fn restarted(mut state: State, times: usize, version: u8) -> State {
        for _ in 0..times {
            let bytes = state.to_bytes().unwrap();
            assert_eq!(bytes[0], version);
            state = State::from_bytes(&bytes, state.device_bytes_max).unwrap();
        }
        state
    }

    #[test]
    fn what_devices_take_is_the_same_after_every_restart() {
        let mut state = State::new(JournalId(1), 4_000);
        for n in 0..8 {
            begin(&mut state, &format!("e6614104{n:08}"));
        }
        assert!(state.has_room_for_native("e6614104x"));
        let by_boot = state.clone();
        // An older gateway has left it so, and no device restarts.
        state.devices.iter_mut().for_each(|device| device.by_boot.clear());
        let restarts = restarted(state.clone(), 5, SNAPSHOT_VERSION);
        assert_eq!(restarts.device_bytes, state.device_bytes);
        assert_eq!(restarts, state);
        assert!(restarts.has_room_for_native("e6614104x"));
        assert_eq!(restarted(by_boot.clone(), 5, SNAPSHOT_VERSION_WITH_BOOTS), by_boot);
        // What was written too large before is mended.
        let raised = State { device_bytes: 1 << 20, ..state.clone() };
        assert_eq!(restarted(raised, 1, SNAPSHOT_VERSION), state);
    }

    #[test]
    fn what_devices_take_is_what_is_reckoned_from_them_however_they_came() {
        let mut state = State::new(JournalId(1), 1 << 20);
        begin(&mut state, "a");
        for (device, boot) in [("b", 0), ("c", 3), ("a", 2), ("b", 5)] {
            let (series, fields) = ("m", Fields::of(&[]));
            let row = RowEntry { device, boot, sequence: 0, stamped: false, series, ns: 0, fields };
            state.apply(Offset(0), &Entry::Row(row));
            assert_eq!(state.device_bytes, state.reckon(), "{device}, {boot}");
        }
        state.lose("d", 7, 1, 1);
        assert_eq!(state.device_bytes, state.reckon());
        for sink in ["one", "two", "three"] {
            state.apply(Offset(0), &Entry::Sink(SinkEntry { sink, start: Offset(0) }));
            assert_eq!(state.device_bytes, state.reckon(), "{sink}");
        }
        state.apply(Offset(0), &Entry::Forget("one"));
        assert_eq!((state.device_bytes, state.devices.len()), (state.reckon(), 4));
    }

    #[test]
    fn native_devices_are_taken_in_while_there_is_room_for_their_boots_as_many_as_is_said() {
        let capacity = Options::sized(1 << 20).capacity(1 << 30);
        let bytes_max = usize::try_from(capacity.segment_bytes / 4).unwrap();
        assert_eq!(filled(bytes_max).0.devices.len(), capacity.devices);
        for more in (0..500).step_by(50) {
            taken_in_while_there_is_room(bytes_max + more);
        }
    }

    /// A state with as many native devices as it takes in, and the name of the next.
    fn filled(bytes_max: usize) -> (State, String) {
        let mut state = State::new(JournalId(1), bytes_max);
        let mut names = (0..).map(|n| format!("{n:016x}"));
        loop {
            let name = names.next().unwrap();
            if !state.has_room_for_native(&name) {
                return (state, name);
            }
            let (device, boot, first) = (&*name, 1, 0);
            state.apply(Offset(0), &Entry::Device(DeviceEntry { device, name: &name, boot, first }));
        }
    }

    fn taken_in_while_there_is_room(bytes_max: usize) {
        let (mut state, refused) = filled(bytes_max);
        assert!(state.device_bytes <= bytes_max, "{} of {bytes_max} bytes", state.device_bytes);
        // A foreign one may still fit, but does not become a native one then.
        if state.account(&refused, &mut NewAccounts::default()) == refused {
            state.lose(&refused, 0, 1, 1);
            assert!(!state.has_room_for_native(&refused));
        }
        assert!(state.has_room_for_native("0000000000000000"));
    }
}
