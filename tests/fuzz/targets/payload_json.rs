//! See `payload_json` in `gateway/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_gateway::fuzzing::payload_json(input));
