//! The gateway's own health, as a row of a device that is named like it: a hundred gateways behind routers cannot be scraped.
//!
//! * In: the status, the disk, the process.
//! * Out: a row of `forebay_gateway`, through intake as any other, so that it is journaled, counted and delivered.
//!
//! *Constraints.* It is measured once in an interval, so that an idle disk is written to no more often. A journal that is full,
//! or will be at the next segment, takes none: what has no room for readings has none for this, and nothing makes room for it.
//! Nothing waits for it either: what is not taken is dropped, and counted. So is what would have no time yet: it would hold up
//! the delivery of everything behind it, and take the place of a start of the machine whose clock was never believed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::clock::{self, Belief};
use crate::config::{self, Config};
use crate::ingest::{Arrival, Ingest, Origin};
use crate::journal::{Journal, Refused, State};
use crate::record::{Row, SeriesKey, Value};
use crate::source::payload::Parsed;
use crate::stats::pulse::age_s;
use crate::stats::{Machine, Stats, Status};

/// Measurement of these rows.
pub const MEASUREMENT: &str = "forebay_gateway";

/// What measures the gateway.
pub struct Health {
    ingest: Arc<Ingest>,
    stats: Arc<Stats>,
    believed: config::Clock,
    data_dir: PathBuf,
    device: String,
    series: SeriesKey,
    started: Duration,
}

impl Health {
    /// Measures the gateway of this configuration; none if its name cannot be a tag, which the log says.
    #[must_use]
    pub fn new(config: &Config, ingest: Arc<Ingest>, stats: Arc<Stats>) -> Option<Health> {
        let name = config.tags.get("gateway").map_or("", String::as_str);
        let named = ingest.naming().foreign(name);
        let device = named.tag.to_owned();
        let series = ingest.naming().series(MEASUREMENT, Some(&named), Vec::new());
        let series = series.inspect_err(|error| warn!("the gateway's health is not stored: {error}")).ok()?;
        let (data_dir, started) = (config.data_dir.clone(), clock::monotonic());
        Some(Health { ingest, stats, believed: config.clock, data_dir, device, series, started })
    }

    /// Measures for ever, once in `interval`.
    pub async fn run(self, interval: Duration) {
        let health = Arc::new(self);
        loop {
            tokio::time::sleep(interval).await;
            let health = Arc::clone(&health);
            // The disk is asked how full it is, and the journal for its oldest row.
            tokio::task::spawn_blocking(move || health.measure()).await.ok();
        }
    }

    /// Takes one row, or drops it.
    fn measure(&self) {
        let journal = self.ingest.journal();
        let cause = if journal.is_tight() {
            Some(Refused::Full.to_string())
        } else if self.ingest.is_early() {
            Some(
                "it would have to wait for its time, since the gateway's clock is not believed yet"
                    .to_owned(),
            )
        } else {
            self.take(journal).err().map(|refused| refused.to_string())
        };
        if let Some(cause) = cause {
            debug!(cause, "a row of the gateway's health is dropped");
            self.stats.health_dropped.add(1);
        }
    }

    fn take(&self, journal: &Journal) -> Result<(), Refused> {
        let belief = clock::belief(self.believed);
        let status = Status::of(journal, &self.stats, clock::now_ns(), belief);
        let fields = fields(&status, belief, self.machine(), waited_s(journal, status.now_ns));
        let row = Row {
            device: self.device.clone(),
            series: self.series.clone(),
            fields,
            timestamp: None,
            offset_ns: 0,
        };
        let parsed = Parsed { rows: vec![row], refused: None };
        let arrival = Arrival { received_ns: clock::steady_ns(), again: false, message: None };
        self.ingest.foreign(&parsed, Origin::whole(MEASUREMENT, &[]), arrival).map(drop)
    }

    fn machine(&self) -> Machine {
        Machine::read(&self.data_dir, clock::monotonic().saturating_sub(self.started))
    }
}

/// How long the oldest row that some database lacks has been waiting for it, in seconds by its own time; none if no row that
/// has a time is found.
fn waited_s(journal: &Journal, now_ns: i64) -> Option<u64> {
    let owes = |state: &State| {
        let owed = state.sinks().iter().filter(|sink| state.owed(&sink.name) > 0);
        owed.map(|sink| sink.cursor).min()
    };
    let cursor = journal.with_state(owes)?;
    age_s(journal, cursor, now_ns)
}

/// The row's fields. Those of numbers that are not known are left out.
fn fields(status: &Status, belief: Belief, machine: Machine, waited_s: Option<u64>) -> Vec<(String, Value)> {
    let count = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let backlog = status.sinks.values().map(|sink| sink.backlog_rows).max().unwrap_or(0);
    let acked: u64 = status.sources.values().map(|source| source.rows_acked).sum();
    let numbers = [
        ("backlog_rows", Some(backlog)),
        ("backlog_age_s", if backlog == 0 { Some(0) } else { waited_s }),
        ("gap_rows", Some(status.gap_rows.values().sum())),
        ("dead_letters", Some(status.dead_lettered_rows)),
        ("journal_bytes", Some(status.journal.bytes)),
        ("journal_max_bytes", Some(status.journal.max_bytes)),
        ("commits", Some(status.journal.commits)),
        ("acked_rows", Some(acked)),
        ("disk_free_bytes", machine.disk_free_bytes),
        ("resident_bytes", machine.resident_bytes),
        ("uptime_s", Some(machine.uptime_s)),
        ("health_dropped", Some(status.health_dropped_rows)),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), count(value?))));
    let others = [
        ("clock_believed".to_owned(), Value::Boolean(belief.is_trust())),
        ("version".to_owned(), Value::Text(status.version.clone())),
    ];
    numbers.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::Moment;
    use crate::ingest::OwnClock;
    use crate::ingest::identity::Naming;
    use crate::journal::Options;
    use crate::journal::memory::MemoryStorage;
    use crate::record::{MachineBoot, Offset};

    const NOW_NS: i64 = 1_700_000_000_000_000_000;

    fn health(max_bytes: u64) -> (Health, Journal, Arc<Stats>) {
        health_by(max_bytes, Box::new(|| Belief::Told))
    }

    fn health_by(
        max_bytes: u64,
        belief: Box<dyn Fn() -> Belief + Send + Sync>,
    ) -> (Health, Journal, Arc<Stats>) {
        let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(max_bytes)).unwrap();
        journal.register_sink("main").unwrap();
        let stats = Stats::new(0);
        let own_clock = OwnClock {
            machine: MachineBoot(1),
            belief,
            moment: Box::new(|steady_ns| Moment { ns: NOW_NS, steady_ns }),
        };
        let config = config::of_text("data_dir = \"/tmp\"\n[tags]\ngateway = \"barn\"\n");
        let naming = Naming::new(&config);
        let ingest = Arc::new(Ingest::new(journal.clone(), naming, Arc::clone(&stats), own_clock));
        (Health::new(&config, ingest, Arc::clone(&stats)).unwrap(), journal, stats)
    }

    /// Does what a journal that is busy refuses for a moment.
    fn insist(mut what: impl FnMut() -> Result<(), Refused>) {
        loop {
            match what() {
                Err(Refused::Busy) => std::thread::yield_now(),
                done => return done.unwrap(),
            }
        }
    }

    /// Waits until everything is durable.
    fn settle(journal: &Journal) {
        let end = journal.usage().end;
        let watermark = journal.watermark();
        while *watermark.borrow() < end {
            std::thread::yield_now();
        }
    }

    #[test]
    fn health_is_a_row_of_a_device_named_like_the_gateway() {
        let (health, journal, stats) = health(64 << 20);
        stats.source("s").rows_acked.add(5);
        health.measure();
        assert_eq!(journal.with_state(|state| state.device("barn").map(|device| device.rows)), Some(1));
        assert_eq!(stats.health_dropped.get(), 0);
        let status = Status::of(&journal, &stats, NOW_NS + 9_000_000_000, Belief::Told);
        let machine = Machine { resident_bytes: Some(7), uptime_s: 3, ..Machine::default() };
        let fields = fields(&status, Belief::Told, machine, Some(9));
        let of = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        assert_eq!(of("backlog_rows"), Some(Value::Integer(1)), "the row itself waits for the database");
        assert_eq!(of("backlog_age_s"), Some(Value::Integer(9)));
        assert_eq!(
            (of("acked_rows"), of("resident_bytes")),
            (Some(Value::Integer(5)), Some(Value::Integer(7)))
        );
        assert_eq!(of("disk_free_bytes"), None, "what is not known is left out");
        assert_eq!(of("clock_believed"), Some(Value::Boolean(true)));
        assert_eq!(health.series.as_str(), "forebay_gateway,device=barn,gateway=barn");
    }

    #[test]
    fn health_that_would_have_to_wait_for_its_time_is_dropped() {
        let believed = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&believed);
        let belief = move || match says.load(Ordering::Relaxed) {
            true => Belief::Synchronised,
            false => Belief::Waiting(Duration::from_secs(1)),
        };
        let (health, journal, stats) = health_by(64 << 20, Box::new(belief));
        let rows = || journal.with_state(State::learned);
        health.measure();
        assert_eq!((rows(), stats.health_dropped.get()), (0, 1));
        assert!(
            journal.with_state(|state| state.clocks().waiting().next().is_none()),
            "no clock waits for it"
        );

        // Another row came first, and waits for its fix although the clock is believed by now.
        insist(|| health.take(&journal));
        settle(&journal);
        believed.store(true, Ordering::Relaxed);
        health.measure();
        assert_eq!((rows(), stats.health_dropped.get()), (1, 2));
        insist(|| health.ingest.fix_clocks(clock::steady_ns()));
        settle(&journal);
        assert!(!health.ingest.is_early());
        while rows() < 2 {
            health.measure();
        }
    }

    #[test]
    fn the_age_of_the_backlog_is_that_of_its_oldest_row() {
        let (health, journal, _) = health(64 << 20);
        assert_eq!(waited_s(&journal, NOW_NS), None);
        health.measure();
        settle(&journal);
        assert_eq!(waited_s(&journal, NOW_NS + 90_500_000_000), Some(90));
    }

    #[test]
    fn a_journal_without_room_gets_no_health_and_makes_no_room_for_it() {
        let (health, journal, stats) = health(2 << 20);
        let mut taken = 0;
        while !journal.is_tight() {
            health.measure();
            taken += 1;
            assert!(taken < 100_000, "the journal never gets full");
        }
        let (rows, dropped) = (journal.with_state(State::learned), stats.health_dropped.get());
        for _ in 0..100 {
            health.measure();
        }
        assert_eq!(journal.with_state(State::learned), rows);
        assert_eq!(stats.health_dropped.get(), dropped + 100);
        assert_eq!(*journal.evict_to().borrow(), Offset(0), "nothing has to go for it");
    }
}
