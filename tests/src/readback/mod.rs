//! What a store returns when it is asked in its own language: rows with their number and time, and declared gaps.

pub mod influxql;
pub mod sqlite;
pub mod victoria;

/// The measurement under which gaps are stored.
pub const GAP_MEASUREMENT: &str = "forebay_gap";

/// Everything of interest that a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// One for every sample that the store returned; a duplicate is here twice.
    pub rows: Vec<StoredRow>,
    /// Every declared gap.
    pub gaps: Vec<StoredGap>,
    /// How exactly the store keeps time, in nanoseconds.
    pub resolution_ns: i64,
}

/// One row as a store returned it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// The tag `device`.
    pub device: String,
    /// The row's number in the device's own log.
    pub number: u64,
    /// Nanoseconds since 1970 UTC.
    pub ns: i64,
    /// Every other numeric field, by name; empty where the store keeps fields apart.
    pub fields: Vec<(String, f64)>,
}

/// One declared gap as a store returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGap {
    /// The tag `device`.
    pub device: String,
    /// The tag `cause`.
    pub cause: String,
    /// The boot whose rows are lost; 0 for devices without one.
    pub boot: u32,
    /// First lost sequence.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// How many rows are declared lost.
    pub count: u64,
}

/// A count that a store returned as a float.
fn whole(value: f64) -> Option<u64> {
    let is_count = (0.0..9e15).contains(&value) && value.fract() == 0.0;
    is_count.then(|| format!("{value:.0}").parse().ok()).flatten()
}
