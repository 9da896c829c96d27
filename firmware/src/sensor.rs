//! Where readings come from.
//!
//! *In:* a sensor's registers. *Out:* one row, to be recorded at once, so that it is numbered before
//! anything can be lost. *Next:* `firmware/src/ring.rs`.
//!
//! With the feature `sensor`, a Sensirion temperature and humidity sensor on any `embedded-hal` bus is at hand.

use forebay_shared::reading::{Group, Value};

/// Samples one group.
pub trait Sensor {
    /// What can go wrong on the way to the sensor.
    type Error;
    /// One entry for each channel of the group.
    type Row: AsRef<[Option<Value>]>;
    /// What is sampled, for the device's groups.
    const GROUP: Group;

    /// Takes one sample.
    ///
    /// # Errors
    ///
    /// The sensor did not answer, or not intelligibly.
    fn sample(&mut self) -> Result<Self::Row, Self::Error>;
}

#[cfg(feature = "sensor")]
pub use sht::Shtc3;

#[cfg(feature = "sensor")]
mod sht {
    use embedded_hal::delay::DelayNs;
    use embedded_hal::i2c::I2c;
    use forebay_shared::reading::{Channel, Group, Value, ValueKind};
    use shtcx::{LowPower, PowerMode, ShtC3};

    use super::Sensor;

    /// A Sensirion SHTC3, driven by the `shtcx` crate: group `climate`, in thousandths of a degree and of
    /// a percent, which need no floats. It sleeps between samples.
    pub struct Shtc3<I2C, D> {
        driver: ShtC3<I2C>,
        delay: D,
    }

    impl<I2C: I2c, D: DelayNs> Shtc3<I2C, D> {
        /// The sensor at its one address on `bus`.
        pub fn new(bus: I2C, delay: D) -> Self {
            Self { driver: shtcx::shtc3(bus), delay }
        }

        /// Gives the bus and the delay back.
        pub fn release(self) -> (I2C, D) {
            (self.driver.destroy(), self.delay)
        }
    }

    impl<I2C: I2c, D: DelayNs> Sensor for Shtc3<I2C, D> {
        type Error = shtcx::Error<I2C::Error>;
        type Row = [Option<Value>; 2];

        const GROUP: Group = Group {
            name: "climate",
            channels: &[
                Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -3 },
                Channel { name: "humidity", unit: "%", kind: ValueKind::I32, scale: -3 },
            ],
        };

        fn sample(&mut self) -> Result<Self::Row, Self::Error> {
            self.driver.wakeup(&mut self.delay)?;
            let measured = self.driver.measure(PowerMode::NormalMode, &mut self.delay);
            // Back to sleep in either case; what the measurement said matters more.
            let asleep = self.driver.sleep();
            let measured = measured?;
            asleep?;
            Ok([
                Some(Value::I32(measured.temperature.as_millidegrees_celsius())),
                Some(Value::I32(measured.humidity.as_millipercent())),
            ])
        }
    }

    #[cfg(test)]
    mod tests {
        use std::vec::Vec;

        use embedded_hal::i2c::ErrorKind;
        use embedded_hal_mock::eh1::delay::NoopDelay;
        use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

        use super::*;

        const ADDRESS: u8 = 0x70;

        fn sensor(measured: [u8; 6]) -> Shtc3<Mock, NoopDelay> {
            let bus = Mock::new(&[
                Transaction::write(ADDRESS, Vec::from([0x35, 0x17])),
                Transaction::write(ADDRESS, Vec::from([0x78, 0x66])),
                Transaction::read(ADDRESS, measured.to_vec()),
                Transaction::write(ADDRESS, Vec::from([0xb0, 0x98])),
            ]);
            Shtc3::new(bus, NoopDelay::new())
        }

        #[test]
        fn a_sample_is_a_row_in_thousandths() {
            // The worked example of the data sheet: 23.7 °C and 63 %.
            let mut sensor = sensor([0x64, 0x8b, 0xc7, 0xa1, 0x33, 0x1c]);
            let row = sensor.sample().unwrap();
            assert_eq!(row, [Some(Value::I32(23_730)), Some(Value::I32(62_968))]);
            sensor.release().0.done();
        }

        #[test]
        fn a_damaged_answer_is_an_error_and_the_sensor_sleeps() {
            let mut sensor = sensor([0x64, 0x8b, 0x00, 0xa1, 0x33, 0x1c]);
            assert!(matches!(sensor.sample(), Err(shtcx::Error::Crc)));
            sensor.release().0.done();
        }

        #[test]
        fn a_sensor_that_does_not_answer_is_an_error() {
            let asleep = Transaction::write(ADDRESS, Vec::from([0x35, 0x17])).with_error(ErrorKind::Other);
            let mut sensor = Shtc3::new(Mock::new(&[asleep]), NoopDelay::new());
            assert!(matches!(sensor.sample(), Err(shtcx::Error::I2c(ErrorKind::Other))));
            sensor.release().0.done();
        }
    }
}
