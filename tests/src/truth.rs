//! What a device really produced: the log that the judge holds against the store.
//!
//! A row's *number* is its index in this log. It travels inside the row, as the channel `n`, so that the store's answer
//! can be matched without trusting anything that the gateway made up on the way (sequence, boot, timestamp).

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The channel or JSON member that carries the row's number.
pub const NUMBER_FIELD: &str = "n";

/// What a device measures: the numeric fields of the row with a given number.
pub type Values = fn(u64) -> Vec<(&'static str, f64)>;

/// How the rows of a device get their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dating {
    /// The payload carries it, so the store must return exactly that.
    Payload,
    /// The gateway works it out from the device's ticks, so that it may be off by the clock exchange's error.
    Gateway,
}

/// One row as the device produced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrueRow {
    /// True time of the sample, nanoseconds since 1970 UTC.
    pub ns: i64,
    /// How often the device had been reset when it sampled the row.
    pub era: usize,
    /// The sequence that the firmware gave it within that era; 0 for devices that number nothing.
    pub sequence: u32,
    /// The device tick of the sample; 0 for devices that have none.
    pub tick: u64,
    /// Whether it was acknowledged: released by the gateway, or its message's PUBACK seen.
    pub acked: bool,
    /// Whether the device itself threw it away before it was acknowledged.
    pub evicted: bool,
}

/// The log of one device, shared between the device's thread and the judge.
#[derive(Debug)]
pub struct Truth {
    name: String,
    dating: Dating,
    values: Values,
    forgets: bool,
    log: Mutex<Log>,
    produced: AtomicU64,
    acked: AtomicU64,
    lost: AtomicU64,
    idle: AtomicBool,
    connected: AtomicBool,
}

/// What [`Truth`] guards.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Every row, by number; of a log that forgets, those that are neither acknowledged nor evicted.
    pub rows: VecDeque<TrueRow>,
    /// How many rows are not here any more.
    pub forgotten: u64,
    /// True time of the first row, nanoseconds since 1970 UTC; 0 while there is none.
    pub first_ns: i64,
    /// The boot that the gateway assigned in each era; 0 while none is known.
    pub boots: Vec<u32>,
    /// Below it, every row is acknowledged or evicted.
    settled: usize,
}

impl Truth {
    /// An empty log of the device that announces itself as `name` and measures `values`.
    #[must_use]
    pub fn new(name: &str, dating: Dating, values: Values) -> Truth {
        Truth {
            name: name.to_owned(),
            dating,
            values,
            forgets: false,
            log: Mutex::new(Log { boots: vec![0], ..Log::default() }),
            produced: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            idle: AtomicBool::new(true),
            connected: AtomicBool::new(false),
        }
    }

    /// The same for a run without an end: rows are counted, and forgotten once they are acknowledged or evicted.
    #[must_use]
    pub fn forgetting(name: &str, dating: Dating, values: Values) -> Truth {
        Truth { forgets: true, ..Truth::new(name, dating, values) }
    }

    /// Whether rows are forgotten, so that it is nothing for the judge.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.forgets
    }

    /// The name that its points carry in the tag `device`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its timestamps come from.
    #[must_use]
    pub fn dating(&self) -> Dating {
        self.dating
    }

    /// The fields that a store must return for row `number`, apart from the number itself and what is no number.
    #[must_use]
    pub fn values(&self, number: u64) -> Vec<(&'static str, f64)> {
        (self.values)(number)
    }

    /// Rows produced so far; also the number that the next row will carry.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::Acquire)
    }

    /// Rows acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Rows so far that the device threw away before they were acknowledged.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether somebody took the device's rows when it last looked: a gateway, or of a JSON device the broker.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// The device looked whether somebody takes its rows.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }

    /// Whether the device had got rid of every row when it last looked.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// The device looked whether it has got rid of every row.
    pub fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
    }

    /// The true time of row `number`.
    #[must_use]
    pub fn ns_of(&self, number: u64) -> Option<i64> {
        let log = self.lock();
        log.rows.get(log.index(number)).map(|row| row.ns)
    }

    /// Logs a row sampled at `tick`, which was `ns` on the true clock, under the `sequence` that the firmware gave it.
    pub fn produce(&self, ns: i64, tick: u64, sequence: u32) {
        let mut log = self.lock();
        let era = log.boots.len() - 1;
        if log.forgotten == 0 && log.rows.is_empty() {
            log.first_ns = ns;
        }
        log.rows.push_back(TrueRow { ns, era, sequence, tick, acked: false, evicted: false });
        self.produced.fetch_add(1, Ordering::AcqRel);
    }

    /// The firmware had no room for the latest row, which has this number.
    pub fn refuse(&self, sequence: u32) {
        if let Some(row) = self.lock().rows.back_mut().filter(|row| row.sequence == sequence) {
            row.evicted = true;
        }
    }

    /// The device was reset: what it had not got rid of is gone, and its numbering starts anew.
    pub fn reset(&self) {
        let mut log = self.lock();
        let from = log.settled;
        for row in log.rows.iter_mut().skip(from).filter(|row| !row.acked) {
            row.evicted = true;
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
        log.settled = log.rows.len();
        log.boots.push(0);
    }

    /// Brings the log up to what the firmware says of itself: its boot, the first row that it still holds (older ones it
    /// has thrown away unless they were released), and the first that is not released.
    pub fn observe(&self, boot: u32, oldest: u32, released: u32) {
        let mut log = self.lock();
        if let Some(present) = log.boots.last_mut()
            && boot != 0
        {
            *present = boot;
        }
        let log = &mut *log;
        let (mut acked, mut lost) = (0, 0);
        for row in log.rows.iter_mut().skip(log.settled) {
            if before(row.sequence, released) {
                // Of a row that was refused, it is the loss that is durable.
                row.acked = !row.evicted;
            } else if before(row.sequence, oldest) {
                row.evicted = true;
            } else {
                break;
            }
            acked += u64::from(row.acked);
            lost += u64::from(row.evicted);
            log.settled += 1;
        }
        if self.forgets {
            log.forget();
        }
        self.acked.fetch_add(acked, Ordering::AcqRel);
        self.lost.fetch_add(lost, Ordering::AcqRel);
    }

    /// The message that carried row `number` was acknowledged.
    pub fn acknowledge(&self, number: u64) {
        let mut log = self.lock();
        let index = log.index(number);
        if let Some(row) = log.rows.get_mut(index)
            && !row.acked
        {
            row.acked = true;
            self.acked.fetch_add(1, Ordering::AcqRel);
        }
        if self.forgets {
            log.settled = log.rows.iter().take_while(|row| row.acked).count();
            log.forget();
        }
    }

    /// A copy of the log, for the judge.
    #[must_use]
    pub fn log(&self) -> Log {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A poisoned log belongs to a device thread that panicked; what it logged before is still the truth.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Where row `number` is, if it is here.
    fn index(&self, number: u64) -> usize {
        number.checked_sub(self.forgotten).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX)
    }

    fn forget(&mut self) {
        self.forgotten += u64::try_from(self.settled).unwrap_or(0);
        drop(self.rows.drain(..self.settled));
        self.settled = 0;
    }

    /// The numbers of the rows that the gap `[from, to)` of `boot` declares lost.
    #[must_use]
    pub fn numbers_in_gap(&self, boot: u32, from: u64, to: u64) -> BTreeSet<u64> {
        let Some(era) = self.boots.iter().position(|&known| known == boot && boot != 0) else {
            return BTreeSet::new();
        };
        let numbered = (0_u64..).zip(&self.rows);
        numbered
            .filter(|(_, row)| row.era == era && (from..to).contains(&u64::from(row.sequence)))
            .map(|(number, _)| number)
            .collect()
    }
}

/// Whether sequence `a` comes before `b` (RFC 1982).
fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::{Dating, Truth};

    #[test]
    fn released_rows_are_acked_and_thrown_away_rows_are_not() {
        let truth = Truth::new("a", Dating::Gateway, |_| Vec::new());
        for sequence in 0..10 {
            truth.produce(i64::from(sequence), u64::from(sequence), sequence);
        }
        truth.observe(7, 0, 3);
        truth.observe(7, 6, 3);
        truth.observe(7, 6, 8);
        let log = truth.log();
        let acked: Vec<bool> = log.rows.iter().map(|row| row.acked).collect();
        let mut expected = [true; 10];
        for lost in [3, 4, 5, 8, 9] {
            expected[lost] = false;
        }
        assert_eq!(acked, expected);
        assert_eq!(truth.acked(), 5);
        assert!(log.rows[3].evicted && log.rows[5].evicted && !log.rows[8].evicted);
        assert_eq!(log.numbers_in_gap(7, 3, 6).into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn a_log_that_forgets_counts_the_same_and_keeps_what_is_open() {
        let truth = Truth::forgetting("a", Dating::Gateway, |_| Vec::new());
        for sequence in 0..10 {
            truth.produce(100 + i64::from(sequence), 0, sequence);
        }
        truth.observe(7, 0, 3);
        truth.observe(7, 6, 3);
        assert_eq!((truth.produced(), truth.acked(), truth.lost()), (10, 3, 3));
        assert_eq!((truth.ns_of(5), truth.ns_of(6)), (None, Some(106)));
        truth.refuse(9);
        truth.observe(7, 10, 10);
        assert_eq!((truth.acked(), truth.lost()), (6, 4));
        let log = truth.log();
        assert_eq!((log.rows.len(), log.forgotten, log.first_ns), (0, 10, 100));
        truth.produce(111, 0, 10);
        truth.acknowledge(10);
        assert_eq!((truth.acked(), truth.log().rows.len()), (7, 0));
    }

    #[test]
    fn a_reset_gives_up_what_was_not_acked_and_starts_a_new_era() {
        let truth = Truth::new("a", Dating::Gateway, |_| Vec::new());
        truth.produce(1, 1, 0);
        truth.produce(2, 2, 1);
        truth.observe(7, 0, 1);
        truth.reset();
        truth.produce(3, 1, 0);
        truth.observe(9, 0, 1);
        let log = truth.log();
        assert!(log.rows[0].acked && log.rows[1].evicted && log.rows[2].acked);
        assert_eq!(log.boots, [7, 9]);
        assert_eq!(log.numbers_in_gap(9, 0, 5).into_iter().collect::<Vec<_>>(), [2]);
    }
}
