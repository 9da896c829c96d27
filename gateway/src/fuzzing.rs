//! What fuzzing feeds: a function per format, which takes any bytes and panics where a promise about that format is broken.
//!
//! Constraint: formats are private, and so are the parts that read them; the fuzz targets (`tests/fuzz`) and the test
//! that goes through their kept corpus (`gateway/tests/fuzz_corpus.rs`) stand outside of this crate. So the functions
//! are here, public and hidden from the documentation. They are no cargo feature, because a feature would build the
//! gateway twice, once as it is and once as it is tested, and because nothing of the product calls them, so that the
//! linker leaves them out of the binary.
//!
//! Operation: an input is either the bytes of a format themselves, or a program of edits that is carried out on a real
//! journal or store. All work is bounded by the length of the input, of which no more than [`INPUT_BYTES_MAX`] is looked
//! at, and depends on nothing else, so that an input that was kept does the same again.

pub use crate::config::fuzzing::config;
pub use crate::dead_letters::fuzzing::dead_letters;
pub use crate::journal::fuzzing::{end_mark, entry, frame, recovery, snapshot};
pub use crate::source::mqtt::fuzzing::mqtt;
pub use crate::source::payload::fuzzing::{payload_json, payload_preset, payload_senml, payload_value};
pub use crate::source::sparkplug::fuzzing::sparkplug;
pub use wire::{wire_frame, wire_message, wire_pack};

mod wire;

/// Bytes of an input that are looked at.
pub const INPUT_BYTES_MAX: usize = 16 << 10;

/// A function that panics if an input shows that a promise is broken.
pub type Target = fn(&[u8]);

/// The functions by the names of their targets and of their directories in the corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("config", config),
    ("dead_letters", dead_letters),
    ("end_mark", end_mark),
    ("entry", entry),
    ("frame", frame),
    ("mqtt", mqtt),
    ("payload_json", payload_json),
    ("payload_preset", payload_preset),
    ("payload_senml", payload_senml),
    ("payload_value", payload_value),
    ("recovery", recovery),
    ("snapshot", snapshot),
    ("sparkplug", sparkplug),
    ("wire_frame", wire_frame),
    ("wire_message", wire_message),
    ("wire_pack", wire_pack),
];

/// An input that is read from front to back as numbers and bytes. Behind its end everything is 0 and empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Feed<'a> {
        Feed(&input[..input.len().min(INPUT_BYTES_MAX)])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A number below `limit`, which is 0 if that is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.short()) % limit.max(1)
    }

    /// As many bytes as the short before them says, or what is left.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.short()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let length = N.min(self.0.len());
        array[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        array
    }
}
