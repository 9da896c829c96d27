//! The device side of Forebay.
#![no_std]
