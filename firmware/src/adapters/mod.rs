//! Loops that join the core with a port: thin, since the core decides everything.
//!
//! * [`blocking`]: a port that is asked whether bytes have arrived;
//! * [`interrupt`]: interrupts that receive bytes, and that sample rows;
//! * [`asynch`]: a port that is awaited.

pub mod asynch;
pub mod blocking;
pub mod interrupt;
