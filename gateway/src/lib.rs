//! Forebay's gateway: takes readings from serial and MQTT devices, journals them, acks them, and writes them to the
//! databases exactly once in effect.

pub mod clock;
pub mod config;
pub mod record;
pub mod stats;
