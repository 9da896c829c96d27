//! What the ledger says that a sink holds, by the name that points carry.

use std::collections::BTreeMap;

use super::report::BootReport;
use crate::journal::State;
use crate::journal::entry::Cause;
use crate::journal::state::{DeviceState, Ledger as Account, OTHERS, UNKNOWN};
use crate::stats::{Boots, Ledger};

/// The ledger of one sink at one offset of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) devices: BTreeMap<String, Entry>,
    /// Whether every learned row of each account is somewhere, and none twice.
    pub(super) balances: bool,
}

/// What the accounts whose points carry one name have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Ledger keys.
    pub(super) accounts: Vec<String>,
    pub(super) native: bool,
    pub(super) confirmed: u64,
    /// Rows that the sink is still to get. A write of an earlier life may have stored some of them.
    pub(super) backlog: u64,
    /// Rows that are lost to this sink, though a write that was given up may have stored them.
    pub(super) evicted: u64,
    /// Rows that are none of this sink's business, though it may have them from before it was registered.
    pub(super) skipped: u64,
    /// Rows that the sink does not have: refused, or lost otherwise.
    pub(super) absent: u64,
    /// Rows that share their point with an earlier row.
    pub(super) again: u64,
    /// Rows of which that is not known.
    pub(super) unsure: u64,
    /// Rows that could not be read, or that this sink has refused.
    pub(super) dead_lettered: u64,
    /// Rows declared lost.
    pub(super) lost: u64,
    /// The same rows by boot.
    pub(super) boots: Vec<BootReport>,
}

impl Books {
    pub(super) fn of(state: &State, sink: &str) -> Books {
        let mut books = Books { devices: BTreeMap::new(), balances: true };
        for device in state.devices() {
            let account = state.ledgers(device).find(|(name, _)| *name == sink);
            let Some((_, account)) = account else { continue };
            let ledger = Ledger::of(device, account, None, 0);
            books.balances &= ledger.balances();
            let entry = books.devices.entry(tag_of(device)).or_default();
            entry.add(device, account);
            entry.dead_lettered = entry.dead_lettered.saturating_add(ledger.dead_lettered);
            entry.lost = entry.lost.saturating_add(ledger.lost());
            entry.boots.extend(boots_of(state, device, sink));
        }
        books
    }

    /// Whether nothing is on its way to the sink.
    pub(super) fn is_settled(&self) -> bool {
        self.devices.values().all(|entry| entry.backlog == 0)
    }

    /// Whether so many points of a device leave no question.
    pub(super) fn expects(&self, device: &str, points: u64) -> bool {
        self.devices.get(device).is_some_and(|entry| entry.least() == points && entry.most() == points)
    }
}

/// The ledger of a device by boot; nothing of one without boots.
fn boots_of(state: &State, device: &DeviceState, sink: &str) -> Vec<BootReport> {
    let all = Boots::of(state, device, None, |_| 0);
    let earlier = all.earlier.get(sink).filter(|_| !all.boots.is_empty()).map(|ledger| (None, ledger));
    let earlier = earlier.filter(|(_, ledger)| **ledger != Ledger::default());
    let boots = all.boots.iter().filter_map(|boot| Some((Some(boot.boot), boot.sinks.get(sink)?)));
    earlier.into_iter().chain(boots).map(|(boot, ledger)| BootReport::of(&device.key, boot, ledger)).collect()
}

/// The name that a device's points carry: the tag `device`, or nothing where there is no such tag.
fn tag_of(device: &DeviceState) -> String {
    match &*device.key {
        UNKNOWN => String::new(),
        _ => device.name.to_string(),
    }
}

impl Entry {
    fn add(&mut self, device: &DeviceState, account: Account) {
        self.accounts.push(device.key.to_string());
        self.native |= device.native;
        self.confirmed = self.confirmed.saturating_add(account.confirmed);
        let backlog = device.rows.saturating_sub(account.settled());
        self.backlog = self.backlog.saturating_add(backlog);
        let evicted = account.gaps.of(Cause::Evicted);
        self.evicted = self.evicted.saturating_add(evicted);
        self.skipped = self.skipped.saturating_add(account.skipped);
        self.absent = self.absent.saturating_add(account.gaps.total() - evicted);
        let (again, unsure) = device.shared.map_or((0, 0), |shared| (shared.again, shared.unsure));
        self.again = self.again.saturating_add(again);
        self.unsure = self.unsure.saturating_add(unsure);
    }

    /// The account of those who have none of their own.
    pub(super) fn is_pool(&self) -> bool {
        self.accounts.iter().any(|account| account == OTHERS)
    }

    /// The fewest points that the sink must hold.
    pub(super) fn least(&self) -> u64 {
        self.confirmed.saturating_sub(self.again).saturating_sub(self.unsure)
    }

    /// The most points that it can hold of these rows. A row that shares its point makes one all the same in a sink that
    /// lacks the row before it.
    pub(super) fn most(&self) -> u64 {
        let possible = [self.backlog, self.evicted, self.skipped];
        let possible = possible.into_iter().fold(self.confirmed, u64::saturating_add);
        let missing = [self.backlog, self.evicted, self.skipped, self.absent];
        let missing = missing.into_iter().fold(0, u64::saturating_add);
        possible.saturating_sub(self.again.saturating_sub(missing))
    }
}
