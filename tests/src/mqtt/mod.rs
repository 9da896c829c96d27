//! MQTT 3.1.1 and 5 by hand, where a test wants to choose every byte or to see every one of them.
//!
//! [`packet`] takes packets apart and puts them together, [`Client`] is a plain blocking client, and [`double`] is a broker
//! that follows a script, for what no real broker sends.

mod client;
pub mod double;
pub mod packet;

pub use client::{Client, Dropped, Message, publish, wipe_session};
