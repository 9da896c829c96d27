//! An I2C bus with a Sensirion SHTC3 on it, in software: it answers as the data sheet says, and refuses what that
//! forbids, so that the published driver must do everything right.
//!
//! What it measures tells which measurement it is: the humidity counts up by the smallest step of the sensor, from 0,
//! and the temperature swings around 21 °C.

use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

const ADDRESS: u8 = 0x70;
const WAKE_UP: [u8; 2] = [0x35, 0x17];
const SLEEP: [u8; 2] = [0xb0, 0x98];
/// Temperature first, without clock stretching, normal mode.
const MEASURE: [u8; 2] = [0x78, 0x66];

/// The bus, and the sensor.
pub(crate) struct Bus {
    awake: bool,
    /// What the last measurement has for the reader.
    result: Option<[u8; 6]>,
    measured: u16,
}

impl Bus {
    /// A sensor that sleeps.
    pub(crate) const fn new() -> Self {
        Self { awake: false, result: None, measured: 0 }
    }

    fn measure(&mut self) {
        let swing = (self.measured % 400).abs_diff(200);
        // A raw temperature is (t + 45 °C) · 2^16 / 175 °C.
        let temperature = 24_600 + swing;
        let ([a, b], [c, d]) = (temperature.to_be_bytes(), self.measured.to_be_bytes());
        self.result = Some([a, b, checksum([a, b]), c, d, checksum([c, d])]);
        self.measured = self.measured.wrapping_add(1);
    }

    fn obey(&mut self, command: &[u8]) -> Result<(), Nack> {
        match (command, self.awake) {
            (command, _) if command == WAKE_UP => self.awake = true,
            (command, true) if command == SLEEP => self.awake = false,
            (command, true) if command == MEASURE => self.measure(),
            _ => return Err(Nack),
        }
        Ok(())
    }
}

/// CRC-8 with the polynomial 0x31 from 0xff on.
fn checksum(word: [u8; 2]) -> u8 {
    word.into_iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

/// The sensor pulled nothing down.
#[derive(Debug)]
pub(crate) struct Nack;

impl Error for Nack {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown)
    }
}

impl ErrorType for Bus {
    type Error = Nack;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nack> {
        if address != ADDRESS {
            return Err(Nack);
        }
        for operation in operations {
            match operation {
                Operation::Write(bytes) => self.obey(bytes)?,
                Operation::Read(buffer) => {
                    let result = self.result.take().ok_or(Nack)?;
                    buffer.copy_from_slice(result.get(..buffer.len()).ok_or(Nack)?);
                }
            }
        }
        Ok(())
    }
}
