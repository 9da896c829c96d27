//! The wire between a sensor device and a Forebay gateway.
//!
//! Both ends compile this crate, so it has no allocator, no IO and no clock: every size is fixed and
//! time is an argument. In the order in which a reading passes through:
//!
//! * [`ids`]: identities and positions, one type each;
//! * [`reading`]: what a device measures (groups of channels) and the values it sends;
//! * [`pack`]: rows packed into few bits, and back;
//! * [`plain`]: rows in postcard, for devices that handle no bits, and back;
//! * [`block`]: either of them as a sealed, self-contained block;
//! * [`message`]: what the two ends say to each other, one kind byte and a body;
//! * [`frame`]: a message as bytes on a serial line, and back;
//! * [`link`]: both halves of the conversation, as state machines.
//!
//! Over MQTT a message travels as it is; over a serial line it travels in a frame.
//!
//! The device's half takes at most 8 KiB of a chip's flash, which a test measures. What is called from several places is
//! therefore not inlined.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "simulation"))]
extern crate std;

pub mod block;
mod crc32c;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod ids;
pub mod link;
pub mod message;
pub mod pack;
pub mod plain;
pub mod reading;

pub use crc32c::checksum;
