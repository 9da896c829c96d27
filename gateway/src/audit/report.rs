//! What an audit found: the shape of `/api/v1/audit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::books::{Books, Entry};
use crate::record::Offset;
use crate::stats::Ledger;

/// How ledger and database compare. The greatest of several stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The database holds exactly the points that the ledger says.
    #[default]
    Exact,
    /// It holds as many as it can; of some rows the ledger does not know whether they are points there.
    Consistent,
    /// It cannot be told.
    Unverifiable,
    /// Points are missing, or there are some that the ledger does not know.
    Difference,
}

/// The audit of all sinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The greatest of the sinks'.
    pub verdict: Verdict,
    /// Where the journal stood behind the last entry when it was done.
    pub offset: u64,
    /// By name.
    pub sinks: BTreeMap<String, SinkReport>,
}

/// The audit of one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkReport {
    /// The greatest of the devices', or unverifiable as a whole.
    pub verdict: Verdict,
    /// Why it is no better, where that is not of one device.
    pub reason: Option<String>,
    /// Whether the ledger's own sum is right for each device.
    pub balances: bool,
    /// Rows that the sink has confirmed.
    pub confirmed: u64,
    /// Points that it holds of them, those included that its retention has deleted and counted.
    pub stored: u64,
    /// Rows that could not be read or were refused.
    #[serde(default)]
    pub dead_lettered: u64,
    /// Rows that were declared lost.
    #[serde(default)]
    pub lost: u64,
    /// By the name that points carry; empty for points without one.
    pub devices: BTreeMap<String, DeviceReport>,
}

/// The audit of one device in one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// How its points compare.
    pub verdict: Verdict,
    /// Accounts of the ledger whose points carry this name; none if the ledger does not know it.
    pub accounts: Vec<String>,
    /// Rows confirmed.
    pub confirmed: u64,
    /// Rows that share series and time with an earlier one, so that they are no points of their own.
    pub shared: u64,
    /// The fewest points that the sink must hold, and the most that it can.
    pub expected: (u64, u64),
    /// Points that it holds.
    pub stored: u64,
    /// Points that it has deleted by its retention, as it counts itself.
    pub swept: u64,
    /// Points of the same name with another tag `gateway`, or none; not among those stored unless only they fit.
    pub elsewhere: u64,
    /// Rows that are no points because they could not be read or were refused.
    #[serde(default)]
    pub dead_lettered: u64,
    /// Rows that are no points because they were declared lost.
    #[serde(default)]
    pub lost: u64,
    /// Points that are missing, or zero.
    pub missing: u64,
    /// Points that the ledger does not know, or zero.
    pub surplus: u64,
    /// The same rows by boot, of native devices, the oldest first.
    #[serde(default)]
    pub boots: Vec<BootReport>,
    /// What has to be known about the numbers.
    pub notes: Vec<String>,
}

/// What the ledger says of one boot of a native device in one sink. What all of a device add up to is the ledger of the
/// device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// Chip id.
    pub device: String,
    /// The boot; none for all before those that the journal remembers.
    pub boot: Option<u32>,
    /// Rows learned.
    pub learned: u64,
    /// Rows that the sink has confirmed.
    pub confirmed: u64,
    /// Rows that it has not.
    pub unconfirmed: u64,
    /// Rows that it refused.
    pub dead_lettered: u64,
    /// Rows declared lost.
    pub lost: u64,
}

impl BootReport {
    pub(super) fn of(device: &str, boot: Option<u32>, ledger: &Ledger) -> BootReport {
        BootReport {
            device: device.to_owned(),
            boot,
            learned: ledger.learned,
            confirmed: ledger.confirmed,
            unconfirmed: ledger.backlog(),
            dead_lettered: ledger.dead_lettered,
            lost: ledger.lost(),
        }
    }
}

impl Report {
    pub(super) fn of(offset: Offset, sinks: BTreeMap<String, SinkReport>) -> Report {
        let verdict = sinks.values().map(|sink| sink.verdict).max().unwrap_or_default();
        Report { verdict, offset: offset.0, sinks }
    }
}

impl SinkReport {
    pub(super) fn unverifiable(books: &Books, reason: String) -> SinkReport {
        let sum = |of: fn(&Entry) -> u64| books.devices.values().map(of).fold(0, u64::saturating_add);
        let (confirmed, lost) = (sum(|entry| entry.confirmed), sum(|entry| entry.lost));
        let dead_lettered = sum(|entry| entry.dead_lettered);
        let verdict = Verdict::Unverifiable;
        let (balances, reason) = (books.balances, Some(reason));
        SinkReport { verdict, reason, balances, confirmed, dead_lettered, lost, ..SinkReport::default() }
    }
}
