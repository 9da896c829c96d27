//! The firmware core with sensors, a tick counter and a log: what the serial and the MQTT device share.

use forebay_firmware::device::RecordError;
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_shared::ids::{Boot, ChipId, GroupId, Millis, Tick};
use forebay_shared::link::Transport;
use forebay_shared::message::ResetCause;
use forebay_shared::reading::{Channel, Group, Groups, NAME_BYTES_MAX, Value, ValueKind};
use tokio::sync::watch;

use super::{Phase, Spec};
use crate::clock::{TICK_HZ, TickClock};
use crate::truth::Values;

/// Ring of a simulated device: some ten seconds of its rows.
pub const RING_BYTES: usize = 32 * 1024;

/// How long a row may wait for company on an idle link, in milliseconds.
const LINGER_MS: u32 = 50;

/// How long a device with nothing to do may be left alone, in milliseconds.
const IDLE_MS: u64 = 1000;

/// How many rows are sampled at once after the thread came late.
const ROWS_AT_ONCE_MAX: u32 = 1000;

/// The sensors of a native device: every kind of value, in two groups. Row `number` is of the group `climate`, every
/// fourth of the group `power`.
pub const GROUPS: Groups = Groups::new(&[
    Group {
        name: "climate",
        channels: &[
            Channel { name: "n", unit: "", kind: ValueKind::U32, scale: 0 },
            Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 },
            Channel { name: "humidity", unit: "%", kind: ValueKind::F32, scale: 0 },
            Channel { name: "heating", unit: "", kind: ValueKind::Bool, scale: 0 },
        ],
    },
    Group {
        name: "power",
        channels: &[
            Channel { name: "n", unit: "", kind: ValueKind::U32, scale: 0 },
            Channel { name: "current", unit: "A", kind: ValueKind::F32, scale: 0 },
            Channel { name: "energy", unit: "Wh", kind: ValueKind::U32, scale: 0 },
        ],
    },
]);

/// Channels in both groups.
pub const CHANNELS: usize = 7;

/// What every simulated device is, but for its name.
///
/// Firmware has this in its program; here it stays for as long as the process runs.
///
/// # Errors
/// The name is too long for the wire.
pub fn config(name: &str, transport: Transport) -> anyhow::Result<&'static DeviceConfig> {
    anyhow::ensure!(name.len() <= NAME_BYTES_MAX, "{name} is too long for a device's name");
    Ok(Box::leak(Box::new(DeviceConfig {
        name: String::from(name).leak(),
        groups: GROUPS,
        tick_hz: TICK_HZ,
        linger_ms: LINGER_MS,
        transport,
        when_full: WhenFull::DropOldest,
    })))
}

fn is_power(number: u32) -> bool {
    number % 4 == 3
}

fn temperature_raw(number: u32) -> i32 {
    i32::try_from(number * 7 % 6000).unwrap_or(0) - 1500
}

fn humidity(number: u32) -> f32 {
    f32::from(u8::try_from(number % 100).unwrap_or(0)) * 0.37 + 40.0
}

fn current(number: u32) -> f32 {
    f32::from(u8::try_from(number % 64).unwrap_or(0)) * 0.125
}

/// The numeric fields that a store must return for row `number` of a native device.
#[must_use]
pub fn native_values(number: u64) -> Vec<(&'static str, f64)> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    if is_power(number) {
        vec![("current", f64::from(current(number))), ("energy", f64::from(number / 4))]
    } else {
        let temperature = f64::from(temperature_raw(number)) / 100.0;
        vec![("temperature", temperature), ("humidity", f64::from(humidity(number)))]
    }
}

/// Samples row `number` of the simulated sensors into `device`; the sequence that it got, and whether there was room for
/// it.
///
/// # Errors
/// The firmware refuses a row.
pub fn record_row<const RING: usize>(
    device: &mut Device<RING, CHANNELS>,
    number: u32,
    tick: u64,
) -> anyhow::Result<(u32, bool)> {
    let sequence = device.next_sequence().0;
    let n = Some(Value::U32(number));
    let recorded = if is_power(number) {
        let values = [n, Some(Value::F32(current(number))), Some(Value::U32(number / 4))];
        device.record(Tick(tick), GroupId(1), &values)
    } else {
        let temperature = Some(Value::I32(temperature_raw(number)));
        let values =
            [n, temperature, Some(Value::F32(humidity(number))), Some(Value::Bool(number.is_multiple_of(3)))];
        device.record(Tick(tick), GroupId(0), &values)
    };
    match recorded {
        Ok(_) => Ok((sequence, true)),
        Err(RecordError::Full) => Ok((sequence, false)),
        Err(error) => anyhow::bail!("the firmware refused a row: {error}"),
    }
}

/// A device of the real firmware, and the harness's view of it.
#[derive(Debug)]
pub struct NativeCore<const RING: usize> {
    /// The firmware.
    pub device: Box<Device<RING, CHANNELS>>,
    spec: Spec,
    clock: TickClock,
    period_ticks: u64,
    next_sample: u64,
}

impl<const RING: usize> NativeCore<RING> {
    /// What [`crate::truth::Truth`] needs to know of the values.
    pub const VALUES: Values = native_values;

    /// Powers a device on.
    ///
    /// # Errors
    /// The name is too long for the wire.
    pub fn new(spec: Spec, chip: ChipId, transport: Transport) -> anyhow::Result<NativeCore<RING>> {
        let device = Box::new(Device::new(config(&spec.name, transport)?, chip, ResetCause::POWER_ON));
        // Devices in the field have been running for any time; a counter beyond 32 bits is the harder case.
        let clock = TickClock::start(5_000_000_000);
        let period_ticks = u64::try_from(spec.period.as_micros())?;
        let next_sample = clock.first_tick() + period_ticks + u64::try_from(spec.offset.as_micros())?;
        Ok(NativeCore { device, spec, clock, period_ticks, next_sample })
    }

    /// Samples what is due, brings the log up to date, and lets the firmware decide what to send. Says in how many
    /// milliseconds it wants to be called again.
    ///
    /// # Errors
    /// The firmware refuses a row.
    pub fn step(&mut self) -> anyhow::Result<u64> {
        let sampling = self.spec.conductor.phase() == Phase::Sampling;
        if sampling {
            self.sample_due()?;
        }
        self.observe();
        let now = self.now();
        let deadline = self.device.poll(now, Tick(self.clock.tick()));
        let link = deadline.map_or(IDLE_MS, |at| u64::from(at.since(now)));
        let sample =
            if sampling { self.next_sample.saturating_sub(self.clock.tick()) / 1000 } else { IDLE_MS };
        Ok(link.min(sample).min(IDLE_MS))
    }

    /// The firmware's monotonic time.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(self.clock.milliseconds())
    }

    /// What the device was told to do.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.spec.conductor.phase()
    }

    /// Says when it is told to do something else.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.spec.conductor.phases()
    }

    fn sample_due(&mut self) -> anyhow::Result<()> {
        let tick_now = self.clock.tick();
        for _ in 0..ROWS_AT_ONCE_MAX {
            if self.next_sample > tick_now {
                break;
            }
            let number = u32::try_from(self.spec.truth.produced())?;
            let (sequence, kept) = record_row(&mut self.device, number, self.next_sample)?;
            self.spec.truth.produce(self.clock.ns_of(self.next_sample), self.next_sample, sequence);
            if !kept {
                self.spec.truth.refuse(sequence);
            }
            self.next_sample += self.period_ticks;
            // Only now is it known whether this row cost an older one its place.
            self.observe();
        }
        Ok(())
    }

    fn observe(&self) {
        let device = &self.device;
        let boot = device.boot().map_or(0, Boot::get);
        let held_from = device.lost().map_or_else(|| device.oldest(), |lost| lost.to);
        self.spec.truth.observe(boot, held_from.0, device.released().0);
        self.spec.truth.set_idle(device.oldest() == device.next_sequence());
        self.spec.truth.set_connected(device.is_connected());
    }
}
