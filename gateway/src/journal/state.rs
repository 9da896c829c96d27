//! The state: what all entries so far amount to.
//!
//! * In: every entry, in the order of the journal.
//! * Out: identity for ingest, the ledger for status and audit, cursors for delivery and trim.
//! * Next: `journal/recovery.rs` rebuilds it from a snapshot and the entries behind it.
//!
//! Constraint: this is the only source of truth for identity, ledger and cursors. It changes through
//! [`State::apply`] alone and depends on nothing but the entries, so that recovery arrives at the same state.
//! Its size is bounded, because a snapshot of it opens every segment and must not take more than a quarter. A snapshot
//! is a version byte, 1, and the fields below in postcard. Once there was an early entry it is version 2: behind that come
//! the clocks and, for each device with an early row, its place in the list and where that row lies. Once a row shared its
//! point with an earlier one it is version 3: behind that come places of devices and what is known of such rows. Once a
//! native device has begun a boot it is version 4: behind that come places of devices and what became of the rows of their
//! boots (`state/boots.rs`).
//!
//! Operation: natives are listed by their chip id, foreign devices by their tag. Intake decides which account a row goes
//! to ([`State::account`]): that of a foreign device for which there is no room is [`OTHERS`]; a native one is refused.
//! The entry holds the account, so that what the entries amount to does not depend on the limit that holds when they are
//! gone through again.

mod boots;
mod device;
mod snapshot;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::JournalId;
use super::bugs::{Bug, seeded};
use super::clocks::{Clocks, FixEntry};
use super::entry::{
    Cause, CursorEntry, DeviceEntry, Entry, GapEntry, LetterEntry, LettersEntry, Move, MovedEntry, RowEntry,
    SharedEntry, SinkEntry, SkipEntry,
};
use crate::record::Offset;

pub use boots::BootLedger;
use boots::End;
pub use device::{BOOTS_MAX, BootState, DeviceState, Early, Gaps, Ledger, Shared};

/// Ledger key of all foreign devices beyond the limit together.
pub const OTHERS: &str = "(others)";

/// Ledger key of rows that were lost with every sign of whose they were.
pub const UNKNOWN: &str = "(unknown)";

/// What a device's numbers take in a snapshot, texts and sinks apart: varints at their longest, two causes of gaps. Where its
/// latest early row lies is not reckoned; that takes less than varints fall short of their longest.
const DEVICE_BYTES_MAX: usize = 160;
/// What the counts of a native device's boots take in a snapshot, as varints that usual counts need.
const BOOTS_BYTES: usize = 160;
/// What one sink's counts for one device take in a snapshot.
const LEDGER_BYTES_MAX: usize = 50;
/// What a native device with a name of usual length takes in a snapshot, with one or two sinks.
pub(super) const USUAL_DEVICE_BYTES: usize = 2 * 16 + DEVICE_BYTES_MAX + BOOTS_BYTES + 2 * LEDGER_BYTES_MAX;

/// The fold over all entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    journal: JournalId,
    devices: Vec<DeviceState>,
    sinks: Vec<SinkState>,
    last_stamp: i64,
    learned: u64,
    letters: Option<Letters>,
    /// What the devices take in a snapshot, as [`State::reckon`] has it.
    device_bytes: usize,
    #[serde(skip)]
    clocks: Clocks,
    #[serde(skip)]
    device_bytes_max: usize,
    /// Ledger key to place in `devices`.
    #[serde(skip)]
    places: HashMap<Box<str>, usize>,
}

/// What accounts that a submission is about to open will take in a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewAccounts {
    bytes: usize,
}

/// Letters that are not in the dead letters yet: nothing from the oldest on is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Letters {
    oldest: Offset,
    newest: Offset,
}

/// A registered sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkState {
    /// Its name.
    pub name: Box<str>,
    /// Everything below is accounted for.
    pub cursor: Offset,
    /// Nothing below is delivered any more, whatever the sink has lost since.
    pub floor: Offset,
}

impl State {
    /// The state of an empty journal. `device_bytes_max` bounds what devices may take in a snapshot.
    #[must_use]
    pub fn new(journal: JournalId, device_bytes_max: usize) -> State {
        State {
            journal,
            devices: Vec::new(),
            sinks: Vec::new(),
            last_stamp: i64::MIN,
            learned: 0,
            letters: None,
            device_bytes: 0,
            clocks: Clocks::default(),
            device_bytes_max,
            places: HashMap::new(),
        }
    }

    /// Identity of this journal, given when it was created.
    #[must_use]
    pub fn journal(&self) -> JournalId {
        self.journal
    }

    /// One device by its ledger key.
    #[must_use]
    pub fn device(&self, key: &str) -> Option<&DeviceState> {
        self.places.get(key).map(|&at| &self.devices[at])
    }

    /// All devices, in the order of their first appearance.
    #[must_use]
    pub fn devices(&self) -> &[DeviceState] {
        &self.devices
    }

    /// The account that rows of `device` go to: its own, or [`OTHERS`] when there is no room for it beside `new`.
    #[must_use]
    pub fn account<'a>(&self, device: &'a str, new: &mut NewAccounts) -> &'a str {
        if self.places.contains_key(device) {
            return device;
        }
        let bytes = new.bytes + self.device_cost(device);
        if self.device_bytes + bytes > self.device_bytes_max {
            return OTHERS;
        }
        new.bytes = bytes;
        device
    }

    /// Whether `device` is known as a native one or can become so.
    #[must_use]
    pub fn has_room_for_native(&self, device: &str) -> bool {
        let more = match self.device(device) {
            Some(known) if known.native => return true,
            Some(_) => BOOTS_BYTES,
            None => self.device_cost(device) + BOOTS_BYTES,
        };
        self.device_bytes + more <= self.device_bytes_max
    }

    /// The registered sinks, in the order of their registration.
    #[must_use]
    pub fn sinks(&self) -> &[SinkState] {
        &self.sinks
    }

    /// Everything below is accounted for in this sink; none if the sink is not registered.
    #[must_use]
    pub fn cursor(&self, sink: &str) -> Option<Offset> {
        self.sinks.iter().find(|s| &*s.name == sink).map(|s| s.cursor)
    }

    /// Nothing below is delivered to this sink any more.
    #[must_use]
    pub fn floor(&self, sink: &str) -> Offset {
        self.sinks.iter().find(|s| &*s.name == sink).map_or(Offset(0), |s| s.floor)
    }

    /// What became of a device's rows, by sink.
    pub fn ledgers<'a>(&'a self, device: &'a DeviceState) -> impl Iterator<Item = (&'a str, Ledger)> {
        self.sinks
            .iter()
            .enumerate()
            .map(|(at, sink)| (&*sink.name, device.ledgers.get(at).copied().unwrap_or_default()))
    }

    /// What became of the rows of one of a device's boots, by sink.
    pub fn ledgers_of_boot<'a>(&'a self, boot: &'a BootLedger) -> impl Iterator<Item = (&'a str, Ledger)> {
        let named = self.sinks.iter().enumerate();
        named.map(|(at, sink)| (&*sink.name, boot.ledgers.get(at).copied().unwrap_or_default()))
    }

    /// Rows that a registered sink is still to get.
    #[must_use]
    pub fn owed(&self, sink: &str) -> u64 {
        self.owed_by_device(sink).fold(0, |sum, (_, rows)| sum.saturating_add(rows))
    }

    /// Rows that a registered sink is still to get, by device; devices without any are left out.
    pub fn owed_by_device<'a>(&'a self, sink: &'a str) -> impl Iterator<Item = (&'a DeviceState, u64)> {
        let owed = move |device: &'a DeviceState| {
            let (_, ledger) = self.ledgers(device).find(|(name, _)| *name == sink)?;
            Some((device, device.rows.saturating_sub(ledger.settled()))).filter(|(_, rows)| *rows > 0)
        };
        self.devices.iter().filter_map(owed)
    }

    /// Rows that a registered sink has confirmed, by device.
    pub fn confirmed_by_device<'a>(&'a self, sink: &'a str) -> impl Iterator<Item = (&'a DeviceState, u64)> {
        let confirmed = move |device: &'a DeviceState| {
            let (_, ledger) = self.ledgers(device).find(|(name, _)| *name == sink)?;
            Some((device, ledger.confirmed))
        };
        self.devices.iter().filter_map(confirmed)
    }

    /// Nanosecond that the gateway's clock last gave to a row or gap; `i64::MIN` before the first.
    #[must_use]
    pub fn last_stamp(&self) -> i64 {
        self.last_stamp
    }

    /// The clocks of early entries.
    #[must_use]
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Whether any rows share their point with earlier ones, or may.
    #[must_use]
    pub(super) fn has_shared(&self) -> bool {
        self.devices.iter().any(|device| device.shared.is_some())
    }

    /// Whether rows are counted by boot.
    #[must_use]
    pub(super) fn has_boots(&self) -> bool {
        self.devices.iter().any(|device| !device.by_boot.is_empty())
    }

    /// Whether another boot of the machine may have early entries.
    #[must_use]
    pub fn has_room_for_clock(&self) -> bool {
        self.clocks.has_room(self.done_below())
    }

    /// Number that the next row of a foreign account gets.
    #[must_use]
    pub fn next_number(&self, account: &str) -> u64 {
        self.device(account).map_or(0, |device| device.rows)
    }

    /// Rows made known so far, lost ones included.
    #[must_use]
    pub fn learned(&self) -> u64 {
        self.learned
    }

    /// The oldest letter that is not in the dead letters yet.
    #[must_use]
    pub fn oldest_letter(&self) -> Option<Offset> {
        self.letters.map(|letters| letters.oldest)
    }

    /// Everything below is accounted for in every sink; none before the first sink is registered.
    pub(super) fn lowest_cursor(&self) -> Option<Offset> {
        self.sinks.iter().map(|s| s.cursor).min()
    }

    /// Nobody needs what is below; none before the first sink is registered.
    pub(super) fn done_below(&self) -> Option<Offset> {
        let lowest = self.lowest_cursor()?;
        let letter = self.oldest_letter().filter(|_| !seeded(Bug::TrimPastLetters));
        Some(letter.map_or(lowest, |letter| letter.min(lowest)))
    }

    /// Takes in the next entry, which is at `offset`.
    pub fn apply(&mut self, offset: Offset, entry: &Entry<'_>) {
        self.learned = self.learned.saturating_add(entry.rows_learned());
        match entry {
            Entry::Row(row) => {
                if row.stamped {
                    // Stamps increase but for a step of the clock to the past, and then go on from there.
                    self.last_stamp = row.ns;
                }
                self.apply_row(row, row.ns);
            }
            Entry::EarlyRow(machine, row) => {
                let clock = self.clocks.take_in(*machine, offset, row.ns, row.stamped);
                clock.rows = clock.rows.saturating_add(1);
                self.apply_row(row, i64::MIN);
                if row.boot != 0 {
                    let early = Early { boot: row.boot, machine: *machine, ns: row.ns };
                    self.entry(row.device).advance_early(early);
                }
            }
            Entry::Gap(gap) => {
                if gap.stamped {
                    self.last_stamp = gap.ns;
                }
                self.apply_gap(gap);
            }
            Entry::EarlyGap(machine, gap) => {
                self.clocks.take_in(*machine, offset, gap.ns, gap.stamped);
                self.apply_gap(gap);
            }
            // Whoever wants to know of messages looks through the journal's end.
            Entry::GapAgain(_) | Entry::Message(_) => {}
            Entry::EarlyGapAgain(machine, gap) => {
                self.clocks.take_in(*machine, offset, gap.ns, false);
            }
            Entry::Clock(clock) => self.clocks.begin(clock, self.done_below()),
            Entry::ClockFix(fix) => self.apply_fix(fix),
            Entry::Device(device) => self.apply_device(device),
            Entry::Sink(sink) => self.apply_sink(offset, sink),
            Entry::Forget(sink) => self.apply_forget(sink),
            Entry::Cursor(cursor) => self.apply_cursor(cursor),
            Entry::Skip(skip) => self.apply_skip(skip),
            Entry::Moved(moved) => self.apply_moved(moved),
            Entry::Letter(letter) => self.apply_letter(offset, letter),
            Entry::Letters(letters) => self.apply_letters(letters),
            Entry::Shared(shared) => self.apply_shared(shared),
        }
    }

    /// A row; `ns` is its time, if it has one.
    fn apply_row(&mut self, row: &RowEntry<'_>, ns: i64) {
        let device = self.advance(row.device, row.boot, row.sequence.saturating_add(1), ns);
        device.count_rows(row.boot, 1);
        if let Some(shared) = &mut device.shared
            && !row.stamped
        {
            shared.latest_ns = shared.latest_ns.max(ns);
        }
    }

    fn apply_shared(&mut self, entry: &SharedEntry<'_>) {
        let none = Shared { again: 0, unsure: 0, latest_ns: entry.latest_ns };
        let shared = self.entry(entry.device).shared.get_or_insert(none);
        shared.again = shared.again.saturating_add(entry.again);
        shared.unsure = shared.unsure.saturating_add(entry.unsure);
        shared.latest_ns = shared.latest_ns.max(entry.latest_ns);
    }

    /// Early stamps and the latest early row of each boot get their time, and stamps go on from there.
    fn apply_fix(&mut self, fix: &FixEntry) {
        let Some(clock) = self.clocks.fix(fix) else { return };
        if let Some((_, last)) = clock.stamps {
            self.last_stamp = last.saturating_add(fix.offset_ns);
        }
        for device in &mut self.devices {
            device.fix(fix.machine, fix.offset_ns);
        }
    }

    fn apply_gap(&mut self, gap: &GapEntry<'_>) {
        let sink = gap.sink.map(|name| self.sinks.iter().position(|s| &*s.name == name));
        match sink {
            None => {
                let device = self.advance(gap.device, gap.boot, gap.to, i64::MIN);
                device.count_gap(gap.boot, gap.cause, gap.count);
            }
            Some(Some(at)) if gap.cause == Cause::SinkReset => self.entry(gap.device).lack(at, gap.count),
            Some(Some(at)) => self.entry(gap.device).settle(at, End::Lost(gap.cause), gap.boot, gap.count),
            Some(None) => drop(self.entry(gap.device)),
        }
    }

    fn apply_device(&mut self, entry: &DeviceEntry<'_>) {
        let at = self.place(entry.device);
        let device = &mut self.devices[at];
        let before = device_bytes(device);
        device.native = true;
        if *device.name != *entry.name {
            device.name = entry.name.into();
        }
        device.begin(BootState { boot: entry.boot, next: entry.first, last_ns: i64::MIN });
        self.device_bytes = self.device_bytes.saturating_sub(before).saturating_add(device_bytes(device));
    }

    fn apply_letter(&mut self, offset: Offset, letter: &LetterEntry<'_>) {
        let oldest = self.oldest_letter().unwrap_or(offset);
        self.letters = Some(Letters { oldest, newest: offset });
        let device = self.entry(letter.device);
        device.letters = device.letters.saturating_add(letter.rows);
        device.letters_waiting = device.letters_waiting.saturating_add(letter.rows);
    }

    fn apply_letters(&mut self, entry: &LettersEntry<'_>) {
        for (device, rows) in entry.rows.iter() {
            let device = self.entry(device);
            device.letters_waiting = device.letters_waiting.saturating_sub(rows);
            if entry.unkept {
                device.lose_letters(rows, Cause::Unkept);
            }
        }
        let Some(letters) = self.letters else { return };
        if letters.newest >= entry.to {
            self.letters = Some(Letters { oldest: letters.oldest.max(entry.to), ..letters });
            return;
        }
        // Nothing waits any more; what nobody has dealt with could not be read.
        self.letters = None;
        for device in self.devices.iter_mut().filter(|device| device.letters_waiting > 0) {
            let rows = std::mem::take(&mut device.letters_waiting);
            device.lose_letters(rows, Cause::Damaged);
        }
    }

    /// Counts journaled rows that the medium lost, which no entry tells of any more; every sink still owes them. With
    /// an empty device `rows` is all there is to know; else they end before `next`.
    pub(super) fn lose(&mut self, device: &str, boot: u32, next: u64, rows: u64) {
        let device = if device.is_empty() { UNKNOWN } else { device };
        self.advance(device, boot, next, i64::MIN).count_rows(boot, rows);
    }

    /// What the next row of this device and boot is numbered; none if the boot is not known.
    pub(super) fn expected(&self, device: &str, boot: u32) -> Option<u64> {
        let known = self.device(device);
        if boot == 0 {
            Some(known.map_or(0, |known| known.rows))
        } else {
            known?.boot(boot).map(|boot| boot.next)
        }
    }

    /// Rows have been made known up to here, though entries that told of some are lost.
    pub(super) fn learn_up_to(&mut self, learned: u64) {
        self.learned = self.learned.max(learned);
    }

    /// A sink that begins with what comes behind its own entry owes nothing of what is journaled; another one owes what the
    /// slowest does.
    fn apply_sink(&mut self, offset: Offset, entry: &SinkEntry<'_>) {
        if self.cursor(entry.sink).is_some() {
            return;
        }
        let slowest = (0..self.sinks.len()).min_by_key(|&at| self.sinks[at].cursor);
        let at = self.sinks.len();
        // What was before is not owed to a store that knows of nothing either.
        let floor = if entry.start > offset { entry.start } else { Offset(0) };
        self.sinks.push(SinkState { name: entry.sink.into(), cursor: entry.start, floor });
        if entry.start > offset {
            self.devices.iter_mut().for_each(|device| device.register(at, None));
        } else if slowest.is_some() {
            self.devices.iter_mut().for_each(|device| device.register(at, slowest));
        }
        self.device_bytes = self.reckon();
    }

    fn apply_forget(&mut self, sink: &str) {
        let Some(at) = self.sinks.iter().position(|s| &*s.name == sink) else { return };
        self.sinks.remove(at);
        self.devices.iter_mut().for_each(|device| device.forget(at));
        self.device_bytes = self.reckon();
    }

    fn apply_cursor(&mut self, entry: &CursorEntry<'_>) {
        let Some(at) = self.sinks.iter().position(|s| &*s.name == entry.sink) else {
            return;
        };
        let sink = &mut self.sinks[at];
        sink.cursor = sink.cursor.max(entry.next);
        for (device, rows) in entry.confirmed.iter() {
            self.entry(device).settle(at, End::Confirmed, 0, rows);
        }
    }

    fn apply_skip(&mut self, entry: &SkipEntry<'_>) {
        if seeded(Bug::EvictedRowsComeBack) {
            return;
        }
        if let Some(sink) = self.sinks.iter_mut().find(|s| *s.name == *entry.sink) {
            sink.cursor = sink.cursor.max(entry.to);
            sink.floor = sink.floor.max(entry.to);
        }
    }

    fn apply_moved(&mut self, entry: &MovedEntry<'_>) {
        let Some(at) = self.sinks.iter().position(|s| &*s.name == entry.sink) else { return };
        for (device, rows) in entry.rows.iter() {
            let device = self.entry(device);
            match entry.what {
                Move::Unwanted => device.settle(at, End::Skipped, 0, rows),
                Move::Replayed => device.replay(at, rows),
            }
        }
    }

    fn entry(&mut self, key: &str) -> &mut DeviceState {
        let at = self.place(key);
        &mut self.devices[at]
    }

    /// Where a device is in the list, in which it is now.
    fn place(&mut self, key: &str) -> usize {
        self.places.get(key).copied().unwrap_or_else(|| {
            self.device_bytes = self.device_bytes.saturating_add(self.device_cost(key));
            self.devices.push(DeviceState { key: key.into(), name: key.into(), ..DeviceState::default() });
            self.places.insert(key.into(), self.devices.len() - 1);
            self.devices.len() - 1
        })
    }

    /// A device has come so far; it is native if a boot is told of.
    fn advance(&mut self, key: &str, boot: u32, next: u64, ns: i64) -> &mut DeviceState {
        let at = self.place(key);
        let device = &mut self.devices[at];
        let was_native = device.native;
        device.advance(boot, next, ns);
        if device.native && !was_native {
            self.device_bytes = self.device_bytes.saturating_add(BOOTS_BYTES);
        }
        device
    }

    /// What the devices take in a snapshot: it depends on them and on the number of sinks alone.
    fn reckon(&self) -> usize {
        let devices = self.devices.iter().map(|device| device_bytes(device) + self.ledger_bytes());
        devices.fold(0, usize::saturating_add)
    }

    /// What a foreign device that is new takes.
    fn device_cost(&self, key: &str) -> usize {
        2 * key.len() + DEVICE_BYTES_MAX + self.ledger_bytes()
    }

    /// What the counts of all sinks for one device take.
    fn ledger_bytes(&self) -> usize {
        self.sinks.len().max(2) * LEDGER_BYTES_MAX
    }
}

/// What a device takes in a snapshot without its counts by sink.
fn device_bytes(device: &DeviceState) -> usize {
    let boots = if device.native { BOOTS_BYTES } else { 0 };
    device.key.len() + device.name.len() + DEVICE_BYTES_MAX + boots
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Counts, Fields};
    use super::*;

    fn row<'a>(device: &'a str, sequence: u64) -> Entry<'a> {
        let fields = Fields::of(&[]);
        Entry::Row(RowEntry { device, boot: 1, sequence, stamped: false, series: "m", ns: 0, fields })
    }

    fn cursor(state: &mut State, sink: &str, next: u64, confirmed: &[(Box<str>, u64)]) {
        let confirmed = Counts::of(confirmed);
        state.apply(Offset(0), &Entry::Cursor(CursorEntry { sink, next: Offset(next), confirmed }));
    }

    #[test]
    fn foreign_devices_beyond_the_limit_share_an_account() {
        let mut state = State::new(JournalId(1), 1_000);
        for n in 0..20 {
            let device = format!("device {n}");
            let account = state.account(&device, &mut NewAccounts::default());
            state.apply(Offset(0), &row(account, 0));
        }
        let own = state.devices().len() - 1;
        assert!((2..10).contains(&own), "{own} devices of their own");
        assert_eq!(state.device(OTHERS).unwrap().rows, 20 - own as u64);
        let account = |name| state.account(name, &mut NewAccounts::default());
        assert_eq!((account("device 0"), account("device 19")), ("device 0", OTHERS));
        let mut new = NewAccounts::default();
        let state = State::new(JournalId(1), 1_000);
        let names: Vec<String> = (0..20).map(|n| format!("device {n}")).collect();
        let own = names.iter().filter(|name| state.account(name, &mut new) == **name).count();
        assert!((2..10).contains(&own), "a submission leaves room for what it opens itself: {own}");
        assert!(state.to_bytes().unwrap().len() < 1_000 + 200);
        let copy = State::from_bytes(&state.to_bytes().unwrap(), 1_000);
        assert_eq!(copy, Some(state));
    }

    #[test]
    fn counts_that_are_too_large_stay_the_largest() {
        let mut state = State::new(JournalId(1), 1_000);
        state.apply(Offset(0), &Entry::Sink(SinkEntry { sink: "main", start: Offset(0) }));
        for device in ["a", "b"] {
            state.lose(device, 1, 1, u64::MAX);
            state.apply(Offset(0), &row(device, 1));
        }
        assert!(state.devices().iter().all(|device| device.rows == u64::MAX));
        assert_eq!(state.owed("main"), u64::MAX, "the rows of both");
        for next in 1..3 {
            cursor(&mut state, "main", next, &[("a".into(), u64::MAX), ("b".into(), u64::MAX)]);
        }
        assert_eq!(state.owed("main"), 0);
    }

    #[test]
    fn a_device_keeps_its_latest_boots_and_where_they_stand() {
        let mut state = State::new(JournalId(1), 1_000);
        for boot in 1..=6 {
            state.apply(
                Offset(0),
                &Entry::Device(DeviceEntry { device: "e6", name: "boiler", boot, first: 10 }),
            );
        }
        state.apply(
            Offset(0),
            &Entry::Device(DeviceEntry { device: "e6", name: "boiler", boot: 1, first: 0 }),
        );
        state.apply(Offset(0), &row("e6", 41));
        state.apply(Offset(0), &row("e6", 7));
        let device = state.device("e6").unwrap();
        assert!(device.native && &*device.name == "boiler");
        assert_eq!(device.boots.iter().map(|b| b.boot).collect::<Vec<_>>(), [4, 5, 6, 1]);
        assert_eq!(device.boot(1), Some(BootState { boot: 1, next: 42, last_ns: 0 }));
    }

    #[test]
    fn a_forgotten_sink_leaves_the_others_as_they_were() {
        let mut state = State::new(JournalId(1), 1_000);
        for sink in ["old", "new"] {
            state.apply(Offset(0), &Entry::Sink(SinkEntry { sink, start: Offset(0) }));
        }
        state.apply(Offset(0), &row("a", 0));
        let confirmed = [("a".into(), 1)];
        let cursor = CursorEntry { sink: "new", next: Offset(3), confirmed: Counts::of(&confirmed) };
        state.apply(Offset(0), &Entry::Cursor(cursor));
        assert_eq!((state.owed("old"), state.owed("new"), state.lowest_cursor()), (1, 0, Some(Offset(0))));
        state.apply(Offset(0), &Entry::Forget("old"));
        assert_eq!(
            (state.cursor("old"), state.owed("new"), state.lowest_cursor()),
            (None, 0, Some(Offset(3)))
        );
    }

    #[test]
    fn a_sink_that_begins_now_owes_nothing_of_before() {
        let mut state = State::new(JournalId(1), 1_000);
        (0..4).for_each(|n| state.apply(Offset(n), &row("a", n)));
        state.apply(Offset(4), &Entry::Sink(SinkEntry { sink: "old", start: Offset(0) }));
        state.apply(Offset(5), &Entry::Sink(SinkEntry { sink: "new", start: Offset(6) }));
        assert_eq!((state.owed("old"), state.owed("new")), (4, 0));
        state.apply(Offset(6), &row("a", 4));
        state.apply(Offset(7), &row("b", 0));
        assert_eq!((state.owed("old"), state.owed("new")), (6, 2));
    }

    #[test]
    fn rows_that_are_unwanted_or_replayed_are_settled_once() {
        let mut state = State::new(JournalId(1), 1_000);
        state.apply(Offset(0), &Entry::Sink(SinkEntry { sink: "main", start: Offset(0) }));
        (0..10).for_each(|n| state.apply(Offset(n), &row("a", n)));
        let moved = |state: &mut State, sink, what, rows| {
            let rows = [("a".into(), rows)];
            state.apply(Offset(0), &Entry::Moved(MovedEntry { sink, what, rows: Counts::of(&rows) }));
        };
        moved(&mut state, "main", Move::Unwanted, 4);
        moved(&mut state, "nobody", Move::Unwanted, 4);
        assert_eq!(state.owed("main"), 6);
        state.apply(
            Offset(0),
            &Entry::Gap(GapEntry {
                device: "a",
                boot: 1,
                from: 0,
                to: 3,
                count: 3,
                cause: Cause::Rejected,
                sink: Some("main"),
                stamped: false,
                series: "forebay_gap",
                ns: 9,
            }),
        );
        moved(&mut state, "main", Move::Replayed, 2);
        let ledger = |state: &State| state.ledgers(state.device("a").unwrap()).next().unwrap().1;
        let now = ledger(&state);
        assert_eq!((now.confirmed, now.skipped, now.gaps.of(Cause::Rejected)), (2, 4, 1));
        moved(&mut state, "main", Move::Replayed, 5);
        let now = ledger(&state);
        assert_eq!(
            (now.confirmed, now.gaps.total(), state.owed("main")),
            (3, 0, 3),
            "no more than there were"
        );
    }

    #[test]
    fn rows_that_a_sink_has_lost_again_were_its_earliest() {
        let mut state = State::new(JournalId(1), 1_000);
        state.apply(Offset(0), &Entry::Sink(SinkEntry { sink: "main", start: Offset(0) }));
        for boot in [1, 2] {
            let begun = DeviceEntry { device: "a", name: "boiler", boot, first: 0 };
            state.apply(Offset(0), &Entry::Device(begun));
            for sequence in 0..4 {
                let Entry::Row(row) = row("a", sequence) else { unreachable!() };
                state.apply(Offset(0), &Entry::Row(RowEntry { boot, ..row }));
            }
        }
        cursor(&mut state, "main", 7, &[("a".into(), 7)]);
        let mut lose = |count| {
            let gap = GapEntry {
                device: "a",
                boot: 0,
                from: 0,
                to: count,
                count,
                cause: Cause::SinkReset,
                sink: Some("main"),
                stamped: false,
                series: "forebay_gap",
                ns: 9,
            };
            state.apply(Offset(0), &Entry::Gap(gap));
            let device = state.device("a").unwrap();
            let of = |ledger: Ledger| (ledger.confirmed, ledger.gaps.of(Cause::SinkReset));
            let all = state.ledgers(device).next().map(|(_, ledger)| of(ledger)).unwrap();
            let boots = device.by_boot.iter();
            let boots: Vec<_> = boots.map(|boot| of(state.ledgers_of_boot(boot).next().unwrap().1)).collect();
            (all, boots, state.owed("main"))
        };
        assert_eq!(lose(5), ((2, 5), vec![(0, 4), (2, 1)], 1));
        assert_eq!(lose(5), ((0, 7), vec![(0, 4), (0, 3)], 1), "no more than it had");
    }

    #[test]
    fn the_ledger_tells_sinks_apart_and_a_late_one_owes_nothing_for_what_was_done() {
        let mut state = State::new(JournalId(1), 1_000);
        let register = |state: &mut State, sink, start| {
            state.apply(Offset(start), &Entry::Sink(SinkEntry { sink, start: Offset(start) }));
        };
        register(&mut state, "main", 0);
        (0..10).for_each(|n| state.apply(Offset(0), &row("a", n)));
        let gap = GapEntry {
            device: "a",
            boot: 1,
            from: 3,
            to: 4,
            count: 1,
            cause: Cause::Rejected,
            sink: Some("main"),
            stamped: true,
            series: "forebay_gap",
            ns: 9,
        };
        state.apply(Offset(0), &Entry::Gap(gap));
        cursor(&mut state, "main", 5, &[("a".into(), 4)]);
        register(&mut state, "late", 5);
        state.apply(Offset(0), &Entry::Gap(GapEntry { sink: None, cause: Cause::Overflow, count: 6, ..gap }));
        cursor(&mut state, "late", 7, &[("a".into(), 2)]);

        let device = state.device("a").unwrap();
        assert_eq!((device.rows, device.gaps.total(), device.gaps.of(Cause::Overflow)), (10, 6, 6));
        let ledgers: Vec<_> = state.ledgers(device).collect();
        assert_eq!(
            (ledgers[0].0, ledgers[0].1.confirmed, ledgers[0].1.gaps.of(Cause::Rejected)),
            ("main", 4, 1)
        );
        assert_eq!((ledgers[1].0, ledgers[1].1.confirmed, ledgers[1].1.skipped), ("late", 2, 5));
        assert_eq!(state.lowest_cursor(), Some(Offset(5)));
        assert_eq!(state.last_stamp(), 9);
    }
}
