//! Forebay's gateway: takes readings from serial and MQTT devices, journals them, acks them, and writes them to the
//! databases exactly once in effect. The modules in the order that a reading takes:

pub mod source;

pub mod ingest;

pub mod journal;

pub mod cache;

pub mod delivery;

pub mod sink;

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dead_letters;
#[doc(hidden)]
pub mod fuzzing;
pub mod harden;
pub mod health;
pub mod http;
pub mod ports;
pub mod query;
mod raw;
pub mod record;
pub mod stats;
pub mod systemd;
mod terminal;
