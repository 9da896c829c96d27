//! What sources, sinks and devices report about themselves while the gateway runs.
//!
//! Counters are atomics on the hot path; texts are behind a mutex that is held for an assignment. Nothing here is
//! durable: what must survive lives in the journal's state, and [`status`] joins the two into one plain snapshot, of
//! which the HTTP interface, the metrics and the commands are views.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::dead_letters::{DeadLetters, Dropped};
use crate::delivery::status::SinkStatus;
use crate::ports::Served;

pub use boots::{BootLedgers, Boots};
pub use findings::{Finding, Severity};
pub use ledger::Ledger;
pub use machine::Machine;
pub use natives::{Native, NativeClock, Natives};
pub use pulse::Pulse;
pub use rate_limit::RateLimit;
pub use status::Status;

pub mod boots;
pub mod findings;
mod lacks;
pub mod ledger;
mod machine;
mod natives;
pub mod pulse;
mod rate_limit;
pub mod status;

/// Everything that is reported, shared by all threads.
#[derive(Debug)]
pub struct Stats {
    started_ns: i64,
    sources: Mutex<BTreeMap<String, Arc<SourceStats>>>,
    sinks: Mutex<BTreeMap<String, Arc<SinkStatus>>>,
    told: Mutex<HashMap<Box<str>, Told>>,
    ports: Mutex<BTreeMap<PathBuf, Served>>,
    listen: OnceLock<SocketAddr>,
    /// With the monotonic millisecond of it, once there is one.
    pulse: Mutex<Option<(u64, Arc<Pulse>)>>,
    dead_letters: OnceLock<Arc<DeadLetters>>,
    lacks_before: OnceLock<lacks::Before>,
    journal_gone: AtomicBool,
    /// What is known of native devices.
    pub natives: Natives,
    /// Rows of the gateway's own health that the journal did not take.
    pub health_dropped: Counter,
    discarded_letters: Counter,
    discarded_rows: Counter,
}

/// The highest sequence that a native device has told of in one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The boot.
    pub boot: u32,
    /// The sequence that follows the highest one told.
    pub next: u64,
}

/// Most native devices whose told sequence is remembered, as a bound; the journal knows fewer.
const MAX_TOLD: usize = 65_536;

/// How old what was measured may be, in milliseconds; a new measurement comes every second.
const PULSE_MS_MAX: u64 = 5_000;

impl Stats {
    /// Nothing has been reported yet.
    #[must_use]
    pub fn new(started_ns: i64) -> Arc<Stats> {
        Arc::new(Stats {
            started_ns,
            sources: Mutex::default(),
            sinks: Mutex::default(),
            told: Mutex::default(),
            ports: Mutex::default(),
            listen: OnceLock::new(),
            pulse: Mutex::default(),
            dead_letters: OnceLock::new(),
            lacks_before: OnceLock::new(),
            journal_gone: AtomicBool::new(false),
            natives: Natives::default(),
            health_dropped: Counter::default(),
            discarded_letters: Counter::default(),
            discarded_rows: Counter::default(),
        })
    }

    /// When the gateway was started, in nanoseconds since 1970 by its own clock.
    #[must_use]
    pub fn started_ns(&self) -> i64 {
        self.started_ns
    }

    /// The reports of the source of that name, for example `mqtt://127.0.0.1:1883`; registers it at the first call.
    pub fn source(&self, name: &str) -> Arc<SourceStats> {
        Arc::clone(lock(&self.sources).entry(name.to_owned()).or_default())
    }

    /// Lets go of the reports of a source that is not configured any more.
    pub fn forget_source(&self, name: &str) {
        lock(&self.sources).remove(name);
    }

    /// The reports of the sink of that name; registers it at the first call.
    pub fn sink(&self, name: &str) -> Arc<SinkStatus> {
        Arc::clone(lock(&self.sinks).entry(name.to_owned()).or_default())
    }

    /// All sources, by name.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<String, Arc<SourceStats>> {
        lock(&self.sources).clone()
    }

    /// All sinks, by name.
    #[must_use]
    pub fn sinks(&self) -> BTreeMap<String, Arc<SinkStatus>> {
        lock(&self.sinks).clone()
    }

    /// A native device told of a sequence: `next` follows the highest row that it has numbered in `boot`.
    pub fn learn(&self, device: &str, boot: u32, next: u64) {
        let mut told = lock(&self.told);
        if let Some(known) = told.get_mut(device) {
            let same_boot = known.boot == boot;
            *known = Told { boot, next: if same_boot { known.next.max(next) } else { next } };
        } else if told.len() < MAX_TOLD {
            told.insert(device.into(), Told { boot, next });
        }
    }

    /// What that native device has told of, if it has spoken since the gateway started.
    #[must_use]
    pub fn told(&self, device: &str) -> Option<Told> {
        lock(&self.told).get(device).copied()
    }

    /// Remembers what is done with a serial port.
    pub fn set_port(&self, path: &Path, served: Served) {
        lock(&self.ports).insert(path.to_owned(), served);
    }

    /// Forgets the serial ports that are not there any more.
    pub fn keep_ports(&self, there: &BTreeSet<PathBuf>) {
        lock(&self.ports).retain(|path, _| there.contains(path));
    }

    /// What is done with each serial port, by the path that it was found at.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<PathBuf, Served> {
        lock(&self.ports).clone()
    }

    /// Remembers what was measured now.
    pub fn set_pulse(&self, pulse: Pulse) {
        self.set_pulse_of(clock::monotonic_ms(), pulse);
    }

    fn set_pulse_of(&self, now_ms: u64, pulse: Pulse) {
        *lock(&self.pulse) = Some((now_ms, Arc::new(pulse)));
    }

    /// What was measured last. What is too old to be of now is left out, and that is said.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse_at(clock::monotonic_ms())
    }

    fn pulse_at(&self, now_ms: u64) -> Arc<Pulse> {
        match &*lock(&self.pulse) {
            None => Arc::default(),
            Some((at_ms, pulse)) if now_ms.saturating_sub(*at_ms) <= PULSE_MS_MAX => Arc::clone(pulse),
            Some(_) => Arc::new(Pulse { is_overdue: true, ..Pulse::default() }),
        }
    }

    /// Where dead letters are kept; only the first call counts.
    pub fn set_dead_letters(&self, dead_letters: &Arc<DeadLetters>) {
        self.dead_letters.get_or_init(|| Arc::clone(dead_letters));
    }

    /// What had to go from the dead letters to make room for new ones, since the data directory was made.
    #[must_use]
    pub fn dead_letters_dropped(&self) -> Dropped {
        self.dead_letters.get().map(|dead_letters| dead_letters.dropped()).unwrap_or_default()
    }

    /// Dead letters that somebody has let go of, since the start.
    #[must_use]
    pub fn dead_letters_discarded(&self) -> Dropped {
        Dropped { letters: self.discarded_letters.get(), rows: self.discarded_rows.get() }
    }

    /// Remembers that the journal was gone at the start, with rows that nobody can count.
    pub fn set_journal_gone(&self) {
        self.journal_gone.store(true, Ordering::Relaxed);
    }

    /// Whether the journal was gone at the start.
    #[must_use]
    pub fn was_journal_gone(&self) -> bool {
        self.journal_gone.load(Ordering::Relaxed)
    }

    /// Remembers which address the HTTP interface got; only the first call counts.
    pub fn set_listen(&self, address: SocketAddr) {
        self.listen.get_or_init(|| address);
    }

    /// The address of the HTTP interface, once it listens.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.get().copied()
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Changes it.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// Nanoseconds since 1970 by the gateway's clock.
    pub at_ns: i64,
    /// What, why, and what to do; never holds a secret.
    pub text: String,
}

/// Longest text kept of an error, in bytes: reasons may come from a server.
const MAX_ERROR_BYTES: usize = 1024;

impl LastError {
    fn new(at_ns: i64, text: &str) -> LastError {
        let mut end = text.len().min(MAX_ERROR_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        LastError { at_ns, text: text[..end].to_owned() }
    }
}

/// How a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It has not tried yet.
    #[default]
    Starting,
    /// The broker or the port is there.
    Connected,
    /// Any port of a kind is served when it is plugged in, and there was none so far. That is no trouble.
    Waiting,
    /// The broker or the port is not there; it is tried again.
    Disconnected,
    /// The source has ended.
    Stopped,
}

/// What a source reports.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// MQTT messages or serial frames that arrived, bad ones included.
    pub messages: Counter,
    /// Rows handed to intake, redelivered ones not included.
    pub rows_received: Counter,
    /// Rows whose ack has left.
    pub rows_acked: Counter,
    /// Messages or frames that could not be read.
    pub bad_messages: Counter,
    /// Messages that a broker sent again and that may be stored twice now, because nothing tells whether they were stored.
    pub doubtful_messages: Counter,
    /// Messages at QoS 0 that were let go of, because older ones waited for room in the journal.
    pub dropped_messages: Counter,
    /// How often acks were held back for so long that a broker's queue may have overflowed.
    pub queue_alarms: Counter,
    /// Connections made.
    pub connects: Counter,
    /// Messages that wait for the clock, or for room in the journal.
    pub waiting: Gauge,
    unprotected: AtomicBool,
    queue: Mutex<BrokerQueue>,
    unprotected_messages: Mutex<BTreeMap<String, Arc<Counter>>>,
    condition: Mutex<Condition>,
}

#[derive(Debug, Default)]
struct Condition {
    state: SourceState,
    last_error: Option<LastError>,
}

#[derive(Clone, Debug, Default)]
struct BrokerQueue {
    alarm: Option<String>,
    dropped: Option<u64>,
}

impl SourceStats {
    /// What comes from it cannot be acknowledged, so that what does not arrive is lost.
    pub fn set_unprotected(&self) {
        self.unprotected.store(true, Ordering::Relaxed);
    }

    /// Something that is no error yet, and may cost messages outside of the gateway; or that it is over.
    pub fn set_alarm(&self, alarm: Option<String>) {
        lock(&self.queue).alarm = alarm;
    }

    /// What the broker counts as dropped since it was started.
    pub fn set_broker_dropped(&self, messages: u64) {
        lock(&self.queue).dropped = Some(messages);
    }

    /// The count of messages of a subscription that came at QoS 0: nobody would send them again.
    pub fn unprotected_messages(&self, filter: &str) -> Arc<Counter> {
        Arc::clone(lock(&self.unprotected_messages).entry(filter.to_owned()).or_default())
    }

    /// Changes the state.
    pub fn set_state(&self, state: SourceState) {
        lock(&self.condition).state = state;
    }

    /// All is well again: what went wrong before is no reason to look any more.
    pub fn recover(&self) {
        *lock(&self.condition) = Condition { state: SourceState::Connected, last_error: None };
    }

    /// Nothing is there, and nothing need be. Whether that is new.
    pub fn await_device(&self) -> bool {
        let mut condition = lock(&self.condition);
        let is_new = condition.state != SourceState::Waiting;
        *condition = Condition { state: SourceState::Waiting, last_error: None };
        is_new
    }

    /// Changes the state for a reason that an operator wants to read.
    pub fn fail(&self, state: SourceState, at_ns: i64, text: &str) {
        *lock(&self.condition) = Condition { state, last_error: Some(LastError::new(at_ns, text)) };
    }

    /// Remembers an error that does not change the state.
    pub fn note(&self, at_ns: i64, text: &str) {
        lock(&self.condition).last_error = Some(LastError::new(at_ns, text));
    }

    /// State and last error.
    #[must_use]
    pub fn condition(&self) -> (SourceState, Option<LastError>) {
        let condition = lock(&self.condition);
        (condition.state, condition.last_error.clone())
    }
}

/// A thread that panicked while it held one of these locks left a whole value behind: each is assigned at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_waits_for_a_device_has_no_trouble_and_says_so_once() {
        let source = SourceStats::default();
        source.note(1, "busy");
        assert!(source.await_device() && !source.await_device());
        assert!(matches!(source.condition(), (SourceState::Waiting, None)));
        source.recover();
        assert_eq!(source.condition().0, SourceState::Connected);
        assert!(source.await_device(), "it is new again");
    }

    #[test]
    fn an_error_is_forgotten_once_all_is_well() {
        let source = SourceStats::default();
        source.fail(SourceState::Disconnected, 1, "unplugged");
        source.recover();
        assert!(matches!(source.condition(), (SourceState::Connected, None)));
        source.note(2, "a bad line");
        let (state, error) = source.condition();
        assert!(state == SourceState::Connected && error.is_some());
    }

    #[test]
    fn what_a_device_told_of_grows_within_a_boot() {
        let stats = Stats::new(0);
        stats.learn("chip", 7, 10);
        stats.learn("chip", 7, 4);
        assert_eq!(stats.told("chip"), Some(Told { boot: 7, next: 10 }));
        stats.learn("chip", 8, 1);
        assert_eq!(stats.told("chip"), Some(Told { boot: 8, next: 1 }));
        assert_eq!(stats.told("other"), None);
    }

    #[test]
    fn an_error_is_kept_short_and_whole_in_its_letters() {
        let source = Stats::new(0).source("a");
        source.fail(SourceState::Disconnected, 5, &"ä".repeat(1000));
        let (state, error) = source.condition();
        assert_eq!(state, SourceState::Disconnected);
        assert_eq!(error.unwrap(), LastError { at_ns: 5, text: "ä".repeat(512) });
        source.set_state(SourceState::Connected);
        assert!(source.condition().1.is_some(), "the last error is history, not state");
    }

    #[test]
    fn what_was_measured_is_not_repeated_for_ever() {
        let stats = Stats::new(0);
        assert_eq!(*stats.pulse_at(1_000_000), Pulse::default(), "nothing is expected yet");
        stats.set_pulse_of(1_000, Pulse { journal: (7.0, 70.0), ..Pulse::default() });
        assert_eq!(stats.pulse_at(1_000 + PULSE_MS_MAX).journal, (7.0, 70.0));
        let later = stats.pulse_at(1_001 + PULSE_MS_MAX);
        assert_eq!((later.journal, later.is_overdue), ((0.0, 0.0), true));
    }

    #[test]
    fn a_name_stands_for_the_same_source() {
        let stats = Stats::new(0);
        stats.source("a").rows_received.add(2);
        stats.source("a").rows_received.add(3);
        assert_eq!(stats.sources()["a"].rows_received.get(), 5);
    }
}
