//! Simulated devices: the real firmware core on a pseudo-terminal or an MQTT connection, and plain MQTT devices that
//! publish JSON with a timestamp of their own.
//!
//! A device samples at a fixed period by its own tick counter. When its thread comes late, the rows that were due are
//! sampled with the ticks that they were due at, as an interrupt would have done.

mod fleet;
mod json;
mod link;
mod load;
mod mqtt;
mod native;
mod publish;
mod serial;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

pub use fleet::{Fleet, MqttFleet, NATIVE_PREFIX};
pub use json::{JsonDevice, json_payload, number_in};
pub use load::{LoadDevice, Payload};
pub use mqtt::MqttNative;
pub use native::{CHANNELS, GROUPS, NativeCore, RING_BYTES, config, native_values, record_row};
pub use publish::publish;
pub use serial::SerialDevice;

use crate::truth::Truth;

/// The measurements under which the rows of all simulated devices are stored.
pub const MEASUREMENTS: [&str; 3] = ["climate", "power", "weather"];

/// What a device is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sample and deliver.
    Sampling,
    /// Deliver what is left, sample nothing.
    Draining,
    /// End.
    Ended,
}

/// The phase of a group of devices, shared with their threads.
#[derive(Debug, Default)]
pub struct Conductor(AtomicU8);

impl Conductor {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Sampling,
            1 => Phase::Draining,
            _ => Phase::Ended,
        }
    }

    /// Changes the phase; devices notice within 50 ms.
    pub fn set(&self, phase: Phase) {
        let number = match phase {
            Phase::Sampling => 0,
            Phase::Draining => 1,
            Phase::Ended => 2,
        };
        self.0.store(number, Ordering::Release);
    }
}

/// What every simulated device is given.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The name that it announces, or that its topic carries.
    pub name: String,
    /// Time between two rows.
    pub period: Duration,
    /// When it is to sample, drain and end.
    pub conductor: Arc<Conductor>,
    /// Where it logs what it produced.
    pub truth: Arc<Truth>,
}
