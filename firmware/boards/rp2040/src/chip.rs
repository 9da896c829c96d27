//! The temperature sensor inside the chip: a diode on the fifth input of its converter.

use core::convert::Infallible;

use embedded_hal_0_2::adc::OneShot as _;
use forebay_firmware::sensor::Sensor;
use forebay_shared::reading::{Channel, Group, Value, ValueKind};
use rp2040_hal::adc::{Adc, TempSense};

/// Conversions in a sample: a single one is off by a degree or two.
const CONVERSIONS: i32 = 64;

/// The sensor and its converter.
pub(crate) struct Thermometer {
    converter: Adc,
    diode: TempSense,
}

impl Thermometer {
    pub(crate) fn new(mut converter: Adc) -> Option<Self> {
        let diode = converter.take_temp_sensor()?;
        Some(Self { converter, diode })
    }
}

impl Sensor for Thermometer {
    type Error = Infallible;
    type Row = [Option<Value>; 1];

    const GROUP: Group = Group {
        name: "chip",
        channels: &[Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 }],
    };

    fn sample(&mut self) -> Result<Self::Row, Infallible> {
        let sum: i32 = (0..CONVERSIONS)
            .map(|_| self.converter.read(&mut self.diode).map_or(0, |raw: u16| i32::from(raw)))
            .sum();
        Ok([Some(Value::I32(hundredths(sum)))])
    }
}

/// Hundredths of a degree from the sum of all conversions: the data sheet has 0.706 V at 27 °C, and 1.721 mV less for
/// each degree more; the converter has 4096 steps for 3.3 V.
fn hundredths(sum: i32) -> i32 {
    let microvolts = i64::from(sum) * 3_300_000 / i64::from(4096 * CONVERSIONS);
    let hundredths = 2700 - (microvolts - 706_000) * 100 / 1721;
    i32::try_from(hundredths).unwrap_or(i32::MAX)
}
