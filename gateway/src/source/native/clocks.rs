//! The clocks of native devices, which outlive the connections that told of them.
//!
//! In: admissions. Out: the map of the device's boot, with what earlier connections told, for `device.rs` to date rows.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_shared::ids::Boot;
use forebay_shared::message::Hello;

use super::anchors::{self, Anchors, Saved};
use crate::ingest::Admission;
use crate::ingest::clock_map::{ClockMap, Front, Rate};
use crate::record::MachineBoot;

/// Maps by device, and what an earlier life of the gateway knew.
#[derive(Debug, Default)]
pub struct Clocks {
    present: Mutex<HashMap<String, Arc<DeviceClock>>>,
    saved: Mutex<Anchors>,
    file: Option<(PathBuf, MachineBoot)>,
}

/// The clock of one boot. Two connections of a device that has changed its port share it.
#[derive(Debug)]
pub(super) struct DeviceClock {
    boot: Boot,
    tick_hz: u32,
    known: Mutex<Known>,
}

/// All that is known of a clock, in steady nanoseconds.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) map: ClockMap,
    pub(super) front: Front,
}

impl Clocks {
    /// The clocks that are kept in the file `path`, in this boot of the machine.
    #[must_use]
    pub fn open(path: PathBuf, machine: MachineBoot) -> Clocks {
        let saved = anchors::load(&path).unwrap_or_else(|e| {
            let path = path.display();
            tracing::warn!("{path} cannot be read: {e}; rows of the time before are dated less exactly");
            Anchors::new()
        });
        Clocks { present: Mutex::default(), saved: Mutex::new(saved), file: Some((path, machine)) }
    }

    /// A connection of a device begins. Only devices that the journal admitted come here, so the journal's limit on devices
    /// bounds the map.
    pub(super) fn begin(&self, admission: &Admission, hello: &Hello) -> Arc<DeviceClock> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let known = present.get(&admission.device).cloned();
        let clock = match known {
            Some(known) if known.boot == admission.boot && known.tick_hz == hello.tick_hz => known,
            known => {
                let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
                let saved = saved.get(&admission.device);
                let same = saved.filter(|s| s.boot == admission.boot && s.tick_hz == hello.tick_hz);
                let machine = self.file.as_ref().map(|(_, machine)| *machine);
                let map = match same.and_then(|saved| saved.anchor_in(machine?, admission.offset_ns)) {
                    Some(anchor) => ClockMap::restore(hello.tick_hz, anchor),
                    None => {
                        // Another boot has another count, but the same crystal.
                        let earlier = saved.map_or(Rate::UNKNOWN, |saved| saved.anchor.rate);
                        let rate = known.map_or(earlier, |known| known.lock().map.rate());
                        ClockMap::new(hello.tick_hz, rate)
                    }
                };
                let clock = Arc::new(DeviceClock::new(admission, hello.tick_hz, map));
                present.insert(admission.device.clone(), Arc::clone(&clock));
                clock
            }
        };
        clock.lock().map.handle_connected(hello.resumed_at);
        clock
    }

    /// Writes down where all clocks stand, if any has gone on; complains if that cannot be done. `offset_ns` makes steady
    /// nanoseconds those since 1970, unless the gateway's clock is not believed.
    pub fn save(&self, offset_ns: Option<i64>) {
        let Some((path, machine)) = &self.file else { return };
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut anchors = saved.clone();
        for (device, clock) in present {
            let known = clock.lock();
            let Some(tick) = known.front.tick() else { continue };
            let DeviceClock { boot, tick_hz, .. } = *clock;
            let (anchor, machine) = (known.map.anchor(tick), *machine);
            anchors.insert(device, Saved { boot, tick_hz, anchor, machine, offset_ns });
        }
        if anchors == *saved {
            return;
        }
        match anchors::save(path, &anchors) {
            Ok(()) => *saved = anchors,
            Err(e) => {
                let path = path.display();
                tracing::warn!("{path} cannot be written: {e}; check the disk under data_dir");
            }
        }
    }
}

impl DeviceClock {
    fn new(admission: &Admission, tick_hz: u32, map: ClockMap) -> DeviceClock {
        let front = match admission.last_ns {
            i64::MIN => Front::default(),
            ns => Front::at(ns),
        };
        DeviceClock { boot: admission.boot, tick_hz, known: Mutex::new(Known { map, front }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Rows are taken in up to there.
    pub(super) fn advance(&mut self, front: Front) {
        self.front = front;
        if let Some(tick) = front.tick() {
            self.map.forget_before(tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_shared::ids::{ChipId, LongSeq, SchemaId, Seq, Tick};
    use forebay_shared::message::{ResetCause, WIRE_VERSION};

    use super::*;
    use crate::ingest::exchange::Exchange;
    use crate::record::Offset;

    const SECOND: i64 = 1_000_000_000;
    /// What the wall clock is ahead of the steady one, before and after the machine restarted.
    const OFFSETS: [i64; 2] = [1_700_000_000 * SECOND, 1_700_050_000 * SECOND];

    const MACHINES: [MachineBoot; 2] = [MachineBoot(1), MachineBoot(2)];

    /// Of a machine whose wall clock is ahead of the steady one by that, if it is believed.
    fn admission(boot: u32, last_ns: i64, offset_ns: Option<i64>) -> Admission {
        Admission {
            device: "e661".to_owned(),
            name: "boiler".to_owned(),
            boot: Boot::new(boot).unwrap(),
            next: LongSeq(0),
            last_ns,
            offset_ns,
            receipt: Offset(0),
        }
    }

    fn hello(boot: u32) -> Hello {
        Hello {
            chip: ChipId::new(&[0xe6, 0x61]).unwrap(),
            name: "boiler".try_into().unwrap(),
            boot: Boot::new(boot),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            schema: SchemaId(1),
            oldest: Seq(0),
            next: Seq(0),
            tick_hz: 1_000_000,
            tick_now: Tick(0),
            reset_cause: ResetCause::UNKNOWN,
            resumed_at: None,
        }
    }

    /// The tick of a device 300 ppm too fast, at a wall time in seconds after [`OFFSETS`] began.
    fn tick(at_s: i64) -> Tick {
        Tick(u64::try_from(at_s * 1_000_300).unwrap())
    }

    fn exchange(clock: &DeviceClock, at_s: i64, offset_ns: i64) {
        let ns = OFFSETS[0] + at_s * SECOND - offset_ns;
        clock.lock().map.handle_exchange(Exchange { tick: tick(at_s), ns, round_trip_ns: 100_000 });
    }

    /// The clock of boot 7 after a thousand seconds on the first machine; the gateway's own was believed or not.
    fn live(path: PathBuf, offset_ns: Option<i64>) -> Clocks {
        let clocks = Clocks::open(path, MACHINES[0]);
        let clock = clocks.begin(&admission(7, i64::MIN, offset_ns), &hello(7));
        (0..100).for_each(|at_s| exchange(&clock, at_s * 10, OFFSETS[0]));
        let mut front = Front::default();
        front.advance(tick(990), 990 * SECOND);
        clock.lock().advance(front);
        clocks.save(offset_ns);
        clocks
    }

    /// What rows of an outage that ends at 80,000 s are off by, where the wall clock is ahead by `offset_ns`.
    fn error_ns(clock: &DeviceClock, offset_ns: i64) -> i64 {
        exchange(clock, 80_000, offset_ns);
        let error = |at_s| {
            let wall = clock.lock().map.ns(tick(at_s)) + offset_ns;
            (wall - (OFFSETS[0] + at_s * SECOND)).abs()
        };
        [1_000, 40_000, 79_000].into_iter().map(error).max().unwrap()
    }

    #[test]
    fn an_outage_in_which_the_machine_restarts_is_interpolated_and_a_new_boot_knows_its_crystal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        live(path.clone(), Some(OFFSETS[0]));

        let clocks = Clocks::open(path.clone(), MACHINES[1]);
        let later = |last_ns| admission(7, last_ns, Some(OFFSETS[1]));
        let clock = clocks.begin(&later(OFFSETS[0] - OFFSETS[1] + 990 * SECOND), &hello(7));
        assert!(error_ns(&clock, OFFSETS[1]) < 200_000);
        let same = clocks.begin(&later(0), &hello(7));
        assert!(Arc::ptr_eq(&clock, &same), "another connection of the boot goes on with its clock");

        let clocks = Clocks::open(path, MACHINES[1]);
        let other = clocks.begin(&admission(8, i64::MIN, Some(OFFSETS[1])), &hello(8));
        let rate = other.lock().map.rate();
        assert!((rate.ppb + 299_910.0).abs() < 5_000.0 && rate.sigma_ppb < 5_000.0, "{rate:?}");
    }

    #[test]
    fn an_outage_in_which_only_the_gateway_restarts_needs_no_wall_clock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        live(path.clone(), None);
        let clocks = Clocks::open(path.clone(), MACHINES[0]);
        let clock = clocks.begin(&admission(7, 990 * SECOND, None), &hello(7));
        assert!(error_ns(&clock, OFFSETS[0]) < 200_000);

        let clocks = Clocks::open(path, MACHINES[1]);
        let clock = clocks.begin(&admission(7, i64::MIN, None), &hello(7));
        exchange(&clock, 80_000, OFFSETS[1]);
        let error = clock.lock().map.ns(tick(79_000)) + OFFSETS[1] - OFFSETS[0] - 79_000 * SECOND;
        assert!(
            error.abs() < 10_000_000,
            "on another start it goes backward, by the rate that was known: {error}"
        );
    }

    #[test]
    fn a_clock_of_which_no_row_is_taken_in_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clocks");
        let clocks = Clocks::open(path.clone(), MACHINES[0]);
        clocks.begin(&admission(7, i64::MIN, Some(OFFSETS[0])), &hello(7));
        clocks.save(Some(OFFSETS[0]));
        assert!(!path.exists());
    }
}
