//! CRC-32C (Castagnoli): guards frames and what is kept through a reset, and names schemas.
//!
//! A chip reckons bit by bit: a table would take a KiB of its flash, and a reading takes less than a byte of a block. So
//! does the compiler, for the name of a schema. All others leave it to a library.

pub(crate) mod bitwise {
    /// The polynomial, its bits in the order in which they are sent.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// The CRC-32C of bytes that come piece by piece.
    #[derive(Debug)]
    pub(crate) struct Checksum(u32);

    impl Checksum {
        /// Of no bytes yet.
        pub(crate) const fn new() -> Self {
            Self(u32::MAX)
        }

        /// Takes the next bytes.
        pub(crate) const fn update(&mut self, bytes: &[u8]) {
            let mut at = 0;
            while at < bytes.len() {
                self.0 ^= bytes[at] as u32;
                at += 1;
                let mut bit = 0;
                while bit < 8 {
                    self.0 = self.0 >> 1 ^ POLYNOMIAL & (self.0 & 1).wrapping_neg();
                    bit += 1;
                }
            }
        }

        /// Of all that came.
        pub(crate) const fn finish(self) -> u32 {
            !self.0
        }
    }
}

#[cfg(not(target_os = "none"))]
mod library {
    use crc::{CRC_32_ISCSI, Crc, Digest};

    static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

    /// The CRC-32C of bytes that come piece by piece.
    pub(crate) struct Checksum(Digest<'static, u32>);

    impl Checksum {
        /// Of no bytes yet.
        pub(crate) fn new() -> Self {
            Self(CRC.digest())
        }

        /// Takes the next bytes.
        pub(crate) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// Of all that came.
        pub(crate) fn finish(self) -> u32 {
            self.0.finalize()
        }
    }
}

#[cfg(target_os = "none")]
pub(crate) use bitwise::Checksum;
#[cfg(not(target_os = "none"))]
pub(crate) use library::Checksum;

/// The CRC-32C of these bytes.
pub fn checksum(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut checksum = Checksum::new();
    for byte in bytes {
        checksum.update(&[byte]);
    }
    checksum.finish()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chip_has_the_check_value_of_the_catalogue() {
        let mut chip = bitwise::Checksum::new();
        chip.update(b"123456789");
        assert_eq!(chip.finish(), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_chip_reckons_as_the_library_does(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 0..20,
        )) {
            let (mut chip, mut library) = (bitwise::Checksum::new(), Checksum::new());
            for piece in &pieces {
                chip.update(piece);
                library.update(piece);
            }
            let all: Vec<u8> = pieces.concat();
            let expected = library.finish();
            prop_assert_eq!((chip.finish(), checksum(all)), (expected, expected));
        }
    }
}
