//! The records that every engine stores: rows of 64 devices, as a broker delivers them.
//!
//! Constraint: the same number gives the same record in every engine and run, and making one costs next to nothing.

/// Rows that tell the same about a climate as any cheap sensor.
#[derive(Debug)]
pub(crate) struct Workload {
    names: Vec<(String, String)>,
}

/// One record, with its texts borrowed from the workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) device: &'a str,
    pub(crate) series: &'a str,
    pub(crate) ns: i64,
    pub(crate) temperature: f64,
    pub(crate) humidity: f64,
}

/// Devices that take turns.
const DEVICES: u64 = 64;

/// Timestamp of the first record.
const FIRST_NS: i64 = 1_767_225_600_000_000_000;

/// From one record to the next.
const STEP_NS: i64 = 50_000;

impl Workload {
    pub(crate) fn new() -> Workload {
        let name = |n| {
            let device = format!("boiler-{n:02}");
            let series = format!("climate,device={device},gateway=north-barn");
            (device, series)
        };
        Workload { names: (0..DEVICES).map(name).collect() }
    }

    /// The record of a number.
    pub(crate) fn record(&self, number: u64) -> Record<'_> {
        let (device, series) = &self.names[(number % DEVICES) as usize];
        let noise = mix(number);
        Record {
            device,
            series,
            ns: ns_of(number),
            temperature: 15.0 + (noise % 2_000) as f64 / 100.0,
            humidity: 20.0 + ((noise >> 32) % 600) as f64 / 10.0,
        }
    }

    /// All devices.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(device, _)| device.as_str())
    }
}

/// Timestamp of the record of a number, by which it is known again.
pub(crate) fn ns_of(number: u64) -> i64 {
    FIRST_NS + number as i64 * STEP_NS
}

/// Spreads the bits of a number all over, after Steele's SplitMix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
