//! One plain snapshot of everything that is reported: `/api/v1/status`, and what metrics and commands show.
//!
//! The names of the fields are depended on (DESIGN.md §10); fields may be added.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Finding, Ledger, Machine, SourceState, SourceStats, Stats};
use crate::clock::Belief;
use crate::dead_letters::Dropped;
use crate::delivery::status::SinkStatus;
use crate::journal::clocks::Clocks;
use crate::journal::entry::Cause;
use crate::journal::state::{Gaps, Ledger as Account};
use crate::journal::{Condition, Journal, State};

/// The gateway as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the gateway.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When the gateway was started, in nanoseconds since 1970 by its own clock.
    pub started_ns: i64,
    /// When this was written down, likewise.
    pub now_ns: i64,
    /// Whether the gateway's own clock is believed.
    pub clock_trusted: bool,
    /// What is known of the gateway's own clock.
    #[serde(default)]
    pub clock: ClockReport,
    /// The ledger of all devices; of each device that of all its sinks, which is for each number that of the sink where it is
    /// worst ([`Ledger::worst`]), so that a row counts once and is confirmed when every sink has it.
    pub ledger: Ledger,
    /// The offset of the journal that all these ledgers are as of: every entry below it is in them.
    #[serde(default)]
    pub ledger_offset: u64,
    /// By chip id, or by the tag `device` of a foreign device.
    pub devices: BTreeMap<String, DeviceReport>,
    /// How many devices there are, also where they are left out.
    #[serde(default)]
    pub device_count: usize,
    /// Rows declared lost since the data directory was made, by cause; a row that two sinks lack counts twice.
    pub gap_rows: BTreeMap<String, u64>,
    /// Rows that went to the dead letters since the data directory was made; one that two sinks refuse counts twice.
    pub dead_lettered_rows: u64,
    /// Rows of the gateway's own health that the journal did not take since the start.
    #[serde(default)]
    pub health_dropped_rows: u64,
    /// The same in the last ten seconds.
    #[serde(default)]
    pub health_dropped_rows_lately: u64,
    /// What had to go from the dead letters to make room for new ones (`[dead_letters] max_bytes`), since the data directory
    /// was made.
    #[serde(default)]
    pub dead_letters_dropped: Dropped,
    /// The same in the last ten seconds.
    #[serde(default)]
    pub dead_letters_dropped_lately: Dropped,
    /// What somebody has let go of since the start (`forebay dead-letters drop`).
    #[serde(default)]
    pub dead_letters_discarded: Dropped,
    /// The journal.
    pub journal: JournalReport,
    /// By broker or port.
    pub sources: BTreeMap<String, SourceReport>,
    /// By name.
    pub sinks: BTreeMap<String, SinkReport>,
    /// The HTTP interface.
    pub http: HttpReport,
    /// Rows declared lost in the last ten seconds.
    #[serde(default)]
    pub lost_rows_lately: u64,
    /// Whether nothing has been measured for five seconds, so that rates, and all that is of the last ten seconds, are left
    /// out.
    #[serde(default)]
    pub is_measuring_overdue: bool,
    /// The process and its disk.
    #[serde(default)]
    pub machine: Machine,
    /// Bytes that the process writes to disks in a day, by the mean since its start; none in its first minute.
    #[serde(default)]
    pub written_bytes_per_day: Option<u64>,
    /// What is wrong, worst first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// The same in one sentence.
    #[serde(default)]
    pub verdict: String,
}

/// The gateway's own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReport {
    /// Why it is believed, or is not.
    pub reason: String,
    /// For how many seconds at most it will not be believed.
    pub wait_s: u64,
    /// Messages that wait for room in the journal; they are not acked. Native devices keep what they have.
    pub waiting_messages: u64,
    /// Rows that are journaled, and wait for their time until the clock is believed.
    #[serde(default)]
    pub waiting_rows: u64,
    /// Rows whose time is an estimate since nothing vouched for the clock, since the data directory was made.
    #[serde(default)]
    pub estimated_rows: u64,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The name that it goes by, which is its tag `device`.
    pub name: String,
    /// Whether it speaks Forebay's own protocol.
    pub native: bool,
    /// Rows journaled.
    pub rows: u64,
    /// Its ledger in each sink.
    pub sinks: BTreeMap<String, Ledger>,
}

/// The journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalReport {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Their bound.
    pub max_bytes: u64,
    /// Every entry below this offset is durable.
    pub watermark: u64,
    /// Every entry below this offset was submitted.
    pub end: u64,
    /// `running`, `full`, `stalled` (the disk does not answer) or `failed`.
    pub state: String,
    /// What is wrong with the disk, and what to do about it; none while all is well.
    pub last_error: Option<String>,
    /// Whether it was gone when the gateway started, although the data directory was in use: what it held is lost.
    #[serde(default)]
    pub was_gone: bool,
    /// Commits since the start.
    pub commits: u64,
    /// Entries committed since the start.
    pub entries_committed: u64,
    /// Bytes written for them since the start.
    pub bytes_written: u64,
    /// Files given up since the start because a write or sync of them failed; nothing is lost with them.
    pub rewrites: u64,
    /// Entries committed in a second, by the mean of the last ten.
    #[serde(default)]
    pub entries_per_s: f64,
    /// Bytes written for them in a second, likewise.
    #[serde(default)]
    pub bytes_per_s: f64,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Whether the broker or port is there.
    pub state: SourceState,
    /// The latest trouble, and what to do about it; it may be over.
    pub last_error: Option<String>,
    /// When that was, in nanoseconds since 1970.
    pub last_error_ns: Option<i64>,
    /// Messages or frames that arrived since the start.
    pub messages: u64,
    /// Rows handed to intake since the start.
    pub rows_received: u64,
    /// Rows whose ack has left since the start.
    pub rows_acked: u64,
    /// Messages or frames that could not be read since the start.
    pub bad_messages: u64,
    /// The same in the last ten seconds.
    #[serde(default)]
    pub bad_messages_lately: u64,
    /// Messages since the start that a broker sent again and that may be stored twice, because nothing tells whether they
    /// were stored before.
    #[serde(default)]
    pub doubtful_messages: u64,
    /// Messages since the start that came at QoS 0 and were let go of, because older ones waited for room in the journal.
    #[serde(default)]
    pub dropped_messages: u64,
    /// The same in the last ten seconds.
    #[serde(default)]
    pub dropped_messages_lately: u64,
    /// Messages since the start that came at QoS 0, by subscription: what does not arrive of these nobody sends again.
    #[serde(default)]
    pub unprotected_messages: BTreeMap<String, u64>,
    /// What may cost messages at the broker now, or a few seconds ago.
    #[serde(default)]
    pub alarm: Option<String>,
    /// How often there was such an alarm since the start.
    #[serde(default)]
    pub queue_alarms: u64,
    /// Messages that the broker has dropped since its own start, for whatever client, where it tells.
    #[serde(default)]
    pub broker_dropped_messages: Option<u64>,
    /// By how many that has grown in the last ten seconds.
    #[serde(default)]
    pub broker_dropped_messages_lately: u64,
    /// Connections made since the start.
    pub connects: u64,
    /// What comes from it cannot be acknowledged: what does not arrive here is lost, and nobody knows how much that is.
    #[serde(default)]
    pub unprotected: bool,
    /// Rows handed to intake in a second, by the mean of the last ten.
    #[serde(default)]
    pub rows_per_s: f64,
}

/// One sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkReport {
    /// `starting`, `running`, `retrying`, `holding` or `stopped`; empty for a cursor that no sink uses.
    pub state: String,
    /// The latest reason why a write was not confirmed; it may be over.
    pub last_error: Option<String>,
    /// When that was, in nanoseconds since 1970.
    #[serde(default)]
    pub last_error_ns: Option<i64>,
    /// Every entry below this offset is dealt with.
    pub cursor: u64,
    /// Rows journaled and not confirmed.
    pub backlog_rows: u64,
    /// Rows confirmed since the start.
    pub rows_confirmed: u64,
    /// Rows refused since the start.
    pub rows_rejected: u64,
    /// The same in the last ten seconds.
    #[serde(default)]
    pub rows_rejected_lately: u64,
    /// Writes that failed and were repeated since the start.
    pub retries: u64,
    /// Requests or transactions since the start, failed ones included.
    #[serde(default)]
    pub requests: u64,
    /// Bytes of their bodies, where they have any.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Rows that this sink alone lacks, by cause.
    pub gaps: BTreeMap<String, u64>,
    /// Those of them that it has lost since the start.
    #[serde(default)]
    pub gaps_since_start: BTreeMap<String, u64>,
    /// Rows that it has refused since the start, without those that it took later (`forebay dead-letters replay`) or that
    /// somebody has let go of (`forebay dead-letters drop`).
    #[serde(default)]
    pub refused_since_start: u64,
    /// Rows confirmed in a second, by the mean of the last ten.
    #[serde(default)]
    pub rows_per_s: f64,
    /// How long the oldest row that it lacks has been waiting, in seconds by the row's own time; 0 if it lacks none.
    #[serde(default)]
    pub backlog_age_s: Option<u64>,
    /// In how many seconds it will have caught up at the present pace; none while the backlog does not shrink.
    #[serde(default)]
    pub drain_s: Option<u64>,
}

/// The HTTP interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpReport {
    /// Address and port, the port being the one that was taken for `:0`; empty before it listens.
    pub listen: String,
}

impl Status {
    /// Writes down what the journal and the reports say now.
    #[must_use]
    pub fn of(journal: &Journal, stats: &Stats, now_ns: i64, belief: Belief) -> Status {
        let (state, offset) = journal.with_state_and_end(|state, end| (state.clone(), end));
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ns: stats.started_ns(),
            now_ns,
            clock_trusted: belief.is_trust(),
            clock: ClockReport::of(belief, stats, state.clocks()),
            ledger: Ledger::default(),
            ledger_offset: offset.0,
            devices: BTreeMap::new(),
            device_count: state.devices().len(),
            gap_rows: lost_causes().map(|cause| (cause.as_str().to_owned(), 0)).collect(),
            dead_lettered_rows: 0,
            health_dropped_rows: stats.health_dropped.get(),
            health_dropped_rows_lately: 0,
            dead_letters_dropped: stats.dead_letters_dropped(),
            dead_letters_dropped_lately: Dropped::default(),
            dead_letters_discarded: stats.dead_letters_discarded(),
            journal: JournalReport { was_gone: stats.was_journal_gone(), ..JournalReport::of(journal) },
            sources: stats.sources().iter().map(|(name, source)| (name.clone(), source.report())).collect(),
            sinks: BTreeMap::new(),
            http: HttpReport { listen: stats.listen().map(|listen| listen.to_string()).unwrap_or_default() },
            lost_rows_lately: 0,
            is_measuring_overdue: false,
            machine: Machine::default(),
            written_bytes_per_day: None,
            findings: Vec::new(),
            verdict: String::new(),
        };
        for (name, report) in stats.sinks() {
            status.sinks.insert(name, SinkReport::of(&report));
        }
        for sink in state.sinks() {
            status.sinks.entry(sink.name.to_string()).or_default().cursor = sink.cursor.0;
        }
        status.add_devices(&state, stats);
        stats.write_lacks_into(&state, &mut status);
        stats.pulse().write_into(&mut status);
        status.findings = Finding::all(&status);
        status.verdict = Finding::verdict(&status.findings);
        status
    }

    /// The same without its devices, of which there may be thousands.
    #[must_use]
    pub fn without_devices(self) -> Status {
        Status { devices: BTreeMap::new(), ..self }
    }

    fn add_devices(&mut self, state: &State, stats: &Stats) {
        let in_flight: BTreeMap<String, HashMap<Box<str>, u64>> = stats
            .sinks()
            .into_iter()
            .map(|(name, sink)| (name, sink.unconfirmed().into_iter().collect()))
            .collect();
        for device in state.devices() {
            let told = stats.told(&device.key);
            let mut report = DeviceReport {
                name: device.name.to_string(),
                native: device.native,
                rows: device.rows,
                sinks: BTreeMap::new(),
            };
            add_gaps(&mut self.gap_rows, &device.gaps);
            self.dead_lettered_rows += device.letters;
            for (name, account) in state.ledgers(device) {
                let in_flight =
                    in_flight.get(name).and_then(|rows| rows.get(&device.key)).copied().unwrap_or(0);
                let ledger = Ledger::of(device, account, told, in_flight);
                add_gaps(&mut self.gap_rows, &account.gaps);
                self.dead_lettered_rows += account.gaps.of(Cause::Rejected);
                let sink = self.sinks.entry(name.to_owned()).or_default();
                sink.backlog_rows += ledger.backlog();
                add_gaps(&mut sink.gaps, &account.gaps);
                report.sinks.insert(name.to_owned(), ledger);
            }
            let worst = Ledger::worst(report.sinks.values());
            self.ledger.add(&worst.unwrap_or_else(|| Ledger::of(device, Account::default(), told, 0)));
            self.devices.insert(device.key.to_string(), report);
        }
    }
}

impl ClockReport {
    fn of(belief: Belief, stats: &Stats, clocks: &Clocks) -> ClockReport {
        let wait_s = if let Belief::Waiting(wait) = belief { wait.as_secs() } else { 0 };
        let waiting_messages = stats.sources().values().map(|source| source.waiting.get()).sum();
        ClockReport {
            reason: belief.reason().to_owned(),
            wait_s,
            waiting_messages,
            waiting_rows: clocks.waiting_rows(),
            estimated_rows: clocks.estimated_rows(),
        }
    }
}

impl JournalReport {
    fn of(journal: &Journal) -> JournalReport {
        let (usage, commits) = (journal.usage(), journal.commits());
        JournalReport {
            bytes: usage.bytes,
            max_bytes: usage.max_bytes,
            watermark: usage.watermark.0,
            end: usage.end.0,
            state: match usage.state {
                Condition::Running => "running",
                Condition::Full => "full",
                Condition::Stalled => "stalled",
                Condition::Failed => "failed",
            }
            .to_owned(),
            last_error: usage.trouble,
            was_gone: false,
            commits: commits.commits,
            entries_committed: commits.entries,
            bytes_written: commits.bytes,
            rewrites: commits.rewrites,
            entries_per_s: 0.0,
            bytes_per_s: 0.0,
        }
    }
}

impl SinkReport {
    fn of(status: &SinkStatus) -> SinkReport {
        let snapshot = status.snapshot();
        SinkReport {
            state: snapshot.state.as_str().to_owned(),
            last_error: snapshot.last_error,
            last_error_ns: snapshot.last_error_ns,
            rows_confirmed: snapshot.confirmed_rows,
            rows_rejected: snapshot.rejected_rows,
            retries: snapshot.retries,
            requests: snapshot.requests,
            sent_bytes: snapshot.sent_bytes,
            ..SinkReport::default()
        }
    }
}

impl SourceStats {
    /// A plain copy.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        let (state, last_error) = self.condition();
        let queue = super::lock(&self.queue).clone();
        let (last_error_ns, last_error) = last_error.map(|error| (error.at_ns, error.text)).unzip();
        SourceReport {
            state,
            last_error,
            last_error_ns,
            messages: self.messages.get(),
            rows_received: self.rows_received.get(),
            rows_acked: self.rows_acked.get(),
            bad_messages: self.bad_messages.get(),
            bad_messages_lately: 0,
            doubtful_messages: self.doubtful_messages.get(),
            dropped_messages: self.dropped_messages.get(),
            dropped_messages_lately: 0,
            unprotected_messages: super::lock(&self.unprotected_messages)
                .iter()
                .map(|(filter, count)| (filter.clone(), count.get()))
                .collect(),
            alarm: queue.alarm,
            queue_alarms: self.queue_alarms.get(),
            broker_dropped_messages: queue.dropped,
            broker_dropped_messages_lately: 0,
            connects: self.connects.get(),
            unprotected: self.unprotected.load(Ordering::Relaxed),
            rows_per_s: 0.0,
        }
    }
}

/// The causes of losses. What a database refuses is no loss: it is kept among the dead letters.
fn lost_causes() -> impl Iterator<Item = Cause> {
    Cause::ALL.into_iter().filter(|cause| *cause != Cause::Rejected)
}

fn add_gaps(sum: &mut BTreeMap<String, u64>, gaps: &Gaps) {
    for cause in lost_causes().filter(|cause| gaps.of(*cause) > 0) {
        *sum.entry(cause.as_str().to_owned()).or_default() += gaps.of(cause);
    }
}
