//! The firmware on chips: what it costs them, which it builds for, and that its examples run.
//!
//! What is counted here is counted by an emulator, and the same in every run. `FOREBAY_LONG=1` builds for more chips.

#[path = "firmware/builds.rs"]
mod builds;
#[path = "firmware/cost.rs"]
mod cost;
#[path = "firmware/examples.rs"]
mod examples;
