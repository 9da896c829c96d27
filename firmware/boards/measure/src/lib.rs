//! What the measuring programs share.
#![no_std]

pub mod gateway;
pub mod stack;
