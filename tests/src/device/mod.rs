//! Simulated devices: the real firmware core on a pseudo-terminal or an MQTT connection, and plain MQTT devices that
//! publish JSON with a timestamp of their own.
//!
//! A device samples at a fixed period by its own tick counter. When its task comes late, the rows that were due are
//! sampled with the ticks that they were due at, as an interrupt would have done.

mod faults;
mod fleet;
mod json;
mod link;
mod load;
mod mqtt;
mod native;
mod publish;
mod serial;

use std::sync::Arc;
use std::time::Duration;

pub use faults::{Faults, Struck};
pub use fleet::{Account, Fleet, MqttFleet, NATIVE_PREFIX, Tally};
pub use json::{JsonDevice, json_payload, number_in};
pub use load::{LoadDevice, Payload};
pub use mqtt::MqttNative;
pub use native::{CHANNELS, GROUPS, NativeCore, RING_BYTES, config, native_values, record_row};
pub use publish::publish;
pub use serial::SerialDevice;

use tokio::sync::watch;

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

/// The phase of a group of devices, which their tasks wait on.
#[derive(Debug)]
pub struct Conductor(watch::Sender<Phase>);

impl Default for Conductor {
    fn default() -> Conductor {
        Conductor(watch::Sender::new(Phase::Sampling))
    }
}

impl Conductor {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Changes the phase.
    pub fn set(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Says when it changes.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

/// What every simulated device is given.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The name that it announces, or that its topic carries.
    pub name: String,
    /// Time between two rows.
    pub period: Duration,
    /// How much later than a period after its start it samples first, so that not all of a fleet sample at once.
    pub offset: Duration,
    /// When it is to sample, drain and end.
    pub conductor: Arc<Conductor>,
    /// Where it logs what it produced.
    pub truth: Arc<Truth>,
    /// What is wrong with its line.
    pub faults: Faults,
}
