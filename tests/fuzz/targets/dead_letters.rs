//! See `dead_letters` in `gateway/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_gateway::fuzzing::dead_letters(input));
