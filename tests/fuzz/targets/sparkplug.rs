//! See `sparkplug` in `gateway/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_gateway::fuzzing::sparkplug(input));
