//! The ledger of promise 3: where every row is that a device told of, per device and sink.
//!
//! `learned = confirmed + queued + unconfirmed + dead-lettered + gaps + not yet received`. What is queued is what was
//! journaled and is in none of the other places, so the ledger shows a row that was counted twice, and not one that
//! never was; whether the databases have what is confirmed, only they can say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Told;
use crate::journal::entry::Cause;
use crate::journal::state::{DeviceState, Gaps, Ledger as Account};

/// Where the rows are, in rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Rows that the device numbered, as far as it told; of a foreign device those that arrived or are declared lost.
    pub learned: u64,
    /// Rows that the store confirmed.
    pub confirmed: u64,
    /// Rows that are journaled and wait.
    pub queued: u64,
    /// Rows that were sent and whose answer is unknown.
    pub unconfirmed: u64,
    /// Rows kept aside with the reason why they could not be read, or why the store refuses them.
    pub dead_lettered: u64,
    /// Rows declared lost, by cause; causes without rows are left out.
    pub gaps: BTreeMap<String, u64>,
    /// Rows that the device still holds.
    pub not_yet_received: u64,
}

/// What the journal knows of the rows of a device, or of a part of them, and of what became of them in one sink.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Rows journaled.
    pub(super) rows: u64,
    /// Rows kept aside at intake.
    pub(super) letters: u64,
    /// Rows that no sink will get.
    pub(super) gaps: Gaps,
    pub(super) account: Account,
}

impl Held {
    pub(super) fn of(device: &DeviceState, account: Account) -> Held {
        Held { rows: device.rows, letters: device.letters, gaps: device.gaps, account }
    }

    /// Rows that the sink is still to get.
    pub(super) fn waiting(&self) -> u64 {
        self.rows.saturating_sub(self.account.settled())
    }

    /// As a ledger: so many rows the device still holds, and up to so many the sink is being sent.
    pub(super) fn ledger(&self, not_yet_received: u64, in_flight: u64) -> Ledger {
        let rows = self.rows.saturating_sub(self.account.skipped);
        let unconfirmed = in_flight.min(self.waiting());
        let mut gaps = BTreeMap::new();
        let kept = self.account.gaps.of(Cause::Rejected);
        let lost = self.account.gaps.iter().filter(|(cause, _)| *cause != Cause::Rejected);
        for (cause, rows) in self.gaps.iter().chain(lost) {
            *gaps.entry(cause.as_str().to_owned()).or_default() += rows;
        }
        Ledger {
            learned: rows
                .saturating_add(self.gaps.total())
                .saturating_add(self.letters)
                .saturating_add(not_yet_received),
            confirmed: self.account.confirmed,
            queued: self.waiting() - unconfirmed,
            unconfirmed,
            dead_lettered: self.letters.saturating_add(kept),
            gaps,
            not_yet_received,
        }
    }
}

impl Told {
    /// Rows that the device has told of and not brought.
    pub(super) fn not_yet_received(&self, device: &DeviceState) -> u64 {
        let next = device.boot(self.boot).map_or(0, |boot| boot.next);
        self.next.saturating_sub(next)
    }
}

impl Ledger {
    /// The ledger of one device and one sink: `account` is what the journal knows of the two, `told` what the device
    /// told of since the gateway started, and `in_flight` the rows of this device that the sink is being sent.
    #[must_use]
    pub fn of(device: &DeviceState, account: Account, told: Option<Told>, in_flight: u64) -> Ledger {
        let not_yet_received = told.map_or(0, |told| told.not_yet_received(device));
        Held::of(device, account).ledger(not_yet_received, in_flight)
    }

    /// Rows declared lost, for whatever cause.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.gaps.values().sum()
    }

    /// Rows that are journaled and not confirmed.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.queued + self.unconfirmed
    }

    /// Whether every learned row is somewhere, and nowhere twice.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.learned == self.somewhere()
    }

    fn somewhere(&self) -> u64 {
        let others = [self.backlog(), self.dead_lettered, self.lost(), self.not_yet_received];
        others.into_iter().fold(self.confirmed, u64::saturating_add)
    }

    /// One ledger for several sinks of the same rows, which hides nothing that any of them lacks: of what is lost, for each
    /// cause, refused or waiting it has the number of the sink where that is highest, and confirmed is what is left then, so
    /// that it balances as far as they do. Where these numbers together are more than there are rows, rows that are lost go
    /// before those that are refused, and these before those that wait. None without a sink.
    #[must_use]
    pub fn worst<'a>(sinks: impl IntoIterator<Item = &'a Ledger>) -> Option<Ledger> {
        let sinks: Vec<&Ledger> = sinks.into_iter().collect();
        let most = |of: fn(&Ledger) -> u64| sinks.iter().map(|ledger| of(ledger)).max();
        // What was counted twice is to be seen here too.
        let twice = most(|ledger| ledger.somewhere().saturating_sub(ledger.learned))?;
        let learned = most(|ledger| ledger.learned)?;
        let behind = sinks.iter().max_by_key(|ledger| ledger.backlog())?;
        let mut most_lost: BTreeMap<&str, u64> = BTreeMap::new();
        for (cause, rows) in sinks.iter().flat_map(|ledger| &ledger.gaps) {
            let most = most_lost.entry(cause).or_default();
            *most = (*most).max(*rows);
        }
        let mut left = learned;
        let mut take = |rows: u64| {
            let rows = rows.min(left);
            left -= rows;
            rows
        };
        let not_yet_received = take(most(|ledger| ledger.not_yet_received)?);
        let lost = most_lost.into_iter().map(|(cause, rows)| (cause.to_owned(), take(rows)));
        let gaps = lost.filter(|(_, rows)| *rows > 0).collect();
        let dead_lettered = take(most(|ledger| ledger.dead_lettered)?);
        let (unconfirmed, queued) = (take(behind.unconfirmed), take(behind.queued));
        let confirmed = left.saturating_add(twice);
        Some(Ledger { learned, confirmed, queued, unconfirmed, dead_lettered, gaps, not_yet_received })
    }

    /// Adds the rows of another ledger.
    pub fn add(&mut self, other: &Ledger) {
        self.learned += other.learned;
        self.confirmed += other.confirmed;
        self.queued += other.queued;
        self.unconfirmed += other.unconfirmed;
        self.dead_lettered += other.dead_lettered;
        self.not_yet_received += other.not_yet_received;
        for (cause, rows) in &other.gaps {
            *self.gaps.entry(cause.clone()).or_default() += rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::{
        Cause, Counts, CursorEntry, DeviceEntry, Entry, Fields, GapEntry, RowEntry, SinkEntry,
    };
    use crate::journal::{JournalId, State};
    use crate::record::Offset;

    fn row<'a>(device: &'a str, boot: u32, sequence: u64) -> Entry<'a> {
        let fields = Fields::of(&[]);
        Entry::Row(RowEntry { device, boot, sequence, stamped: false, series: "m", ns: 0, fields })
    }

    fn gap<'a>(
        device: &'a str,
        boot: u32,
        range: (u64, u64),
        cause: Cause,
        sink: Option<&'a str>,
    ) -> Entry<'a> {
        let ((from, to), count) = (range, range.1 - range.0);
        Entry::Gap(GapEntry {
            device,
            boot,
            from,
            to,
            count,
            cause,
            sink,
            stamped: false,
            series: "g",
            ns: 0,
        })
    }

    /// Ten rows numbered 0 to 9, two of them lost, five confirmed and one rejected by one of two sinks.
    fn state() -> State {
        let mut state = State::new(JournalId(1), 1 << 20);
        for sink in ["main", "sqlite"] {
            state.apply(Offset(0), &Entry::Sink(SinkEntry { sink, start: Offset(0) }));
        }
        state.apply(
            Offset(0),
            &Entry::Device(DeviceEntry { device: "chip", name: "boiler", boot: 7, first: 0 }),
        );
        state.apply(Offset(0), &gap("chip", 7, (0, 2), Cause::Overflow, None));
        for sequence in 2..10 {
            state.apply(Offset(0), &row("chip", 7, sequence));
        }
        state.apply(Offset(0), &gap("chip", 7, (4, 5), Cause::Rejected, Some("main")));
        let confirmed = [("chip".into(), 5)];
        let confirmed = Counts::of(&confirmed);
        state.apply(Offset(0), &Entry::Cursor(CursorEntry { sink: "main", next: Offset(8), confirmed }));
        state
    }

    fn ledger(state: &State, sink: &str, told: Option<Told>, in_flight: u64) -> Ledger {
        let device = state.device("chip").unwrap();
        let (_, account) = state.ledgers(device).find(|(name, _)| *name == sink).unwrap();
        Ledger::of(device, account, told, in_flight)
    }

    #[test]
    fn every_row_is_somewhere() {
        let state = state();
        let ledger = ledger(&state, "main", Some(Told { boot: 7, next: 13 }), 1);
        let gaps = BTreeMap::from([("overflow".to_owned(), 2)]);
        let expected = Ledger {
            learned: 13,
            confirmed: 5,
            queued: 1,
            unconfirmed: 1,
            dead_lettered: 1,
            gaps,
            not_yet_received: 3,
        };
        assert_eq!(ledger, expected);
        assert!(ledger.balances());
    }

    #[test]
    fn another_sink_has_a_ledger_of_its_own() {
        let ledger = ledger(&state(), "sqlite", None, 100);
        assert_eq!((ledger.learned, ledger.confirmed, ledger.unconfirmed, ledger.queued), (10, 0, 8, 0));
        assert_eq!(ledger.lost(), 2);
        assert!(ledger.balances());
    }

    #[test]
    fn rows_from_before_a_sink_was_registered_are_none_of_its_business() {
        let mut state = state();
        state.apply(Offset(12), &Entry::Sink(SinkEntry { sink: "late", start: Offset(8) }));
        let ledger = ledger(&state, "late", None, 0);
        assert_eq!((ledger.learned, ledger.confirmed, ledger.queued), (10, 0, 8));
        assert!(ledger.balances());
    }

    fn worst(ledgers: &[Ledger]) -> Ledger {
        Ledger::worst(ledgers).unwrap()
    }

    fn delivered(learned: u64, lost: &[(&str, u64)], dead_lettered: u64, queued: u64) -> Ledger {
        let gaps: BTreeMap<String, u64> =
            lost.iter().map(|(cause, rows)| ((*cause).to_owned(), *rows)).collect();
        let confirmed = learned - gaps.values().sum::<u64>() - dead_lettered - queued;
        Ledger { learned, confirmed, queued, dead_lettered, gaps, ..Ledger::default() }
    }

    #[test]
    fn what_one_of_several_sinks_lacks_is_in_the_ledger_of_all() {
        let lossy = delivered(10, &[("damaged", 2)], 0, 0);
        let refusing = delivered(10, &[("damaged", 1)], 3, 0);
        let slow = delivered(10, &[], 0, 4);
        for order in [[&lossy, &refusing, &slow], [&slow, &lossy, &refusing], [&refusing, &slow, &lossy]] {
            let all = Ledger::worst(order).unwrap();
            assert_eq!(all, delivered(10, &[("damaged", 2)], 3, 4));
            assert!(all.balances());
        }
        let both = worst(&[delivered(10, &[("evicted", 3)], 0, 0), delivered(10, &[("damaged", 1)], 0, 0)]);
        assert_eq!(both, delivered(10, &[("damaged", 1), ("evicted", 3)], 0, 0));
        assert_eq!(Ledger::worst([]), None);
    }

    #[test]
    fn the_ledger_of_one_sink_is_the_ledger_of_all_also_where_rows_were_counted_twice() {
        let twice = Ledger { confirmed: 12, ..delivered(10, &[], 0, 1) };
        for only in [delivered(10, &[("damaged", 2)], 1, 3), ledger(&state(), "main", None, 1), twice] {
            assert_eq!(Ledger::worst([&only]).unwrap(), only);
        }
        let twice = Ledger { confirmed: 11, ..delivered(10, &[], 0, 0) };
        assert!(!worst(&[twice, delivered(10, &[("damaged", 2)], 0, 0)]).balances());
    }

    #[test]
    fn rows_that_one_sink_lost_and_another_lacks_count_once() {
        let (lost, refused) = (delivered(10, &[("evicted", 8)], 0, 0), delivered(10, &[], 5, 5));
        let all = worst(&[lost, refused]);
        assert_eq!((all.lost(), all.dead_lettered, all.queued, all.confirmed), (8, 2, 0, 0));
        assert!(all.balances());
    }

    #[test]
    fn a_sink_that_is_added_takes_nothing_from_what_was_learned() {
        let mut state = state();
        let of = |state: &State| {
            let device = state.device("chip").unwrap();
            let ledgers: Vec<Ledger> =
                state.ledgers(device).map(|(_, account)| Ledger::of(device, account, None, 0)).collect();
            worst(&ledgers)
        };
        for (sink, rows) in [("main", 2), ("sqlite", 8)] {
            let confirmed = [("chip".into(), rows)];
            let confirmed = Counts::of(&confirmed);
            state.apply(Offset(9), &Entry::Cursor(CursorEntry { sink, next: Offset(10), confirmed }));
        }
        let before = of(&state);
        state.apply(Offset(10), &Entry::Sink(SinkEntry { sink: "zulu", start: Offset(10) }));
        let late = ledger(&state, "zulu", None, 0);
        assert!(late.learned < 10 && late.backlog() == 0, "{late:?}");
        assert_eq!((of(&state).learned, before.learned), (10, 10));
        assert!(of(&state).balances());
    }

    #[test]
    fn rows_confirmed_twice_show() {
        let mut state = state();
        let confirmed = [("chip".into(), 5)];
        let confirmed = Counts::of(&confirmed);
        state.apply(Offset(0), &Entry::Cursor(CursorEntry { sink: "main", next: Offset(9), confirmed }));
        assert!(!ledger(&state, "main", None, 0).balances());
    }
}
