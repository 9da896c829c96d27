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
        let somewhere =
            self.confirmed + self.backlog() + self.dead_lettered + self.lost() + self.not_yet_received;
        self.learned == somewhere
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

    #[test]
    fn rows_confirmed_twice_show() {
        let mut state = state();
        let confirmed = [("chip".into(), 5)];
        let confirmed = Counts::of(&confirmed);
        state.apply(Offset(0), &Entry::Cursor(CursorEntry { sink: "main", next: Offset(9), confirmed }));
        assert!(!ledger(&state, "main", None, 0).balances());
    }
}
