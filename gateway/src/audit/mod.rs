//! The audit: the ledger against what the databases themselves count, sink by sink and device by device.
//!
//! * In: the journal's state, and the sinks of the configuration.
//! * Out: a [`Report`], for `forebay audit` and `/api/v1/audit`.
//!
//! *What is compared.* A confirmed row is a point, unless it shares series and time with an earlier one, which the ledger
//! counts (`ingest/points.rs`). So a database has as many points of a device as rows were confirmed, less those, and within
//! limits that are said: rows on their way, rows that were evicted while a write was under way, and rows older than what
//! intake remembers. Points of `forebay_gap` are no rows. Devices are compared by the name that their points carry, the tag
//! `device`; a database that several gateways share is told apart by the tag `gateway`.
//!
//! *Constraints.* Nothing is written. Whoever counts has [`PATIENCE`] for each sink and one conversation at a time; a database
//! first counts each field of a measurement, which costs little, and only where the fields differ, or the sum is not what the
//! ledger says, each row (`influxdb.rs`). The ledger is looked at before and after, so that what moves meanwhile is a range,
//! and is counted again if anything did.
//!
//! *Failure.* What cannot be counted is `unverifiable`, with the reason: a token that may not read, a store that speaks no
//! InfluxQL, a retention that may have dropped what is missing.

mod books;
mod influxdb;
mod judge;
mod report;
mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use report::{BootReport, DeviceReport, Report, SinkReport, Verdict};

use self::books::Books;
use crate::config::{Config, InfluxdbApi, SQLITE};
use crate::journal::Journal;
use crate::query::influxql::Influxql;
use crate::sink::SinkError;

/// Longest time for counting in one sink.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a sink is counted at most, again because rows moved meanwhile and it did not take long; and the pause between.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Counts in the sinks of a configuration.
#[derive(Debug)]
pub struct Auditor {
    sinks: Vec<(String, Store)>,
    /// The tag `gateway` of points that this gateway makes.
    gateway: String,
}

#[derive(Debug)]
enum Store {
    /// With the retention policy that is written, where that is named.
    Influxql(Box<Influxql>, Option<String>),
    Embedded(PathBuf),
}

/// What a store holds of one device, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// Points that carry this gateway's tag `gateway`, as all do that it writes.
    own: u64,
    /// Points that carry another one, or none: other writers', or from when this gateway had another name.
    elsewhere: u64,
    /// Points that the store is known to have deleted since, which came from here.
    swept: u64,
}

impl Counted {
    /// Both together.
    fn and(self, other: Counted) -> Counted {
        Counted {
            own: self.own.saturating_add(other.own),
            elsewhere: self.elsewhere.saturating_add(other.elsewhere),
            swept: self.swept.saturating_add(other.swept),
        }
    }
}

/// What a store holds, by device, and whether anything may be gone that is not counted as swept.
#[derive(Debug, Default)]
struct Counts {
    devices: BTreeMap<String, Counted>,
    /// Why fewer points than there should be may be no loss.
    excuse: Option<String>,
    /// What is to be known of the store as a whole where points are missing.
    remark: Option<String>,
}

impl Auditor {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// A database's URL or the HTTP client cannot be had.
    pub fn new(config: &Config) -> Result<Auditor, SinkError> {
        let mut sinks = Vec::new();
        for influxdb in &config.influxdb {
            let policy = match &influxdb.api {
                InfluxdbApi::V1 { retention_policy, .. } => retention_policy.clone(),
                InfluxdbApi::V2 { .. } | InfluxdbApi::V3 { .. } | InfluxdbApi::Open { .. } => None,
            };
            let store = Store::Influxql(Box::new(Influxql::new(influxdb)?), policy);
            sinks.push((influxdb.name.clone(), store));
        }
        if let Some(sqlite) = &config.sqlite {
            sinks.push((SQLITE.to_owned(), Store::Embedded(sqlite.path.clone())));
        }
        let gateway = config.tags.get("gateway").cloned().unwrap_or_default();
        Ok(Auditor { sinks, gateway })
    }

    /// Compares the journal's ledger with all sinks, one after the other. This blocks for as long as the databases take, at
    /// most [`PATIENCE`] and a few pauses for each.
    #[must_use]
    pub fn audit(&self, journal: &Journal) -> Report {
        let sinks =
            self.sinks.iter().map(|(name, store)| (name.clone(), self.audit_sink(journal, name, store)));
        let sinks = sinks.collect();
        Report::of(journal.with_state_and_end(|_, end| end), sinks)
    }

    fn audit_sink(&self, journal: &Journal, name: &str, store: &Store) -> SinkReport {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let before = journal.with_state(|state| Books::of(state, name));
            let expects = |device: &str, points: u64| before.expects(device, points);
            let counts = match store {
                Store::Influxql(database, policy) => {
                    influxdb::count(database, policy.as_deref(), &self.gateway, deadline, &expects)
                }
                Store::Embedded(path) => sqlite::count(path, deadline),
            };
            let after = journal.with_state(|state| Books::of(state, name));
            let counts = match counts {
                Ok(counts) => counts,
                Err(reason) => return SinkReport::unverifiable(&after, reason),
            };
            let is_still = before.is_settled() && before == after;
            if is_still || attempts >= ATTEMPTS || Instant::now() + PATIENCE / 2 > deadline {
                return judge::judge(&before, &after, &counts);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
