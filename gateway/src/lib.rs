//! The gateway of Forebay, module by module in the order that a reading takes.

pub mod cache;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod http;
pub mod journal;
pub mod record;
pub mod sink;
pub mod stats;
