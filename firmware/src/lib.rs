//! The device side of Forebay: a write-behind cache in front of a serial line or an MQTT client.
//!
//! Readings go into a ring of fixed size and stay there until the gateway says that they are durable. The
//! core is byte-level and does no IO: it builds for a microcontroller without an allocator, and for the
//! host, where simulated devices run this very code. In the order in which a reading passes through:
//!
//! * [`sensor`]: samples a row;
//! * [`ring`]: keeps rows as sealed blocks, and counts what had to make room;
//! * [`device`]: the core, which joins the ring with the device's half of the link;
//! * [`adapters`]: loops that join the core with a port.
//!
//! With the feature `noise` there is also what a bad line does, for simulations.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod adapters;
pub mod device;
#[cfg(feature = "noise")]
pub mod noise;
pub mod ring;
pub mod sensor;

pub use device::{Device, DeviceConfig, WhenFull};
