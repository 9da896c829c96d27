//! Loops that join the core with a port: thin, since the core decides everything.

pub mod blocking;
