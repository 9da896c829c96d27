//! What the state knows of one device: its boots, its rows, and what became of them in each sink.

use serde::{Deserialize, Serialize};

use super::super::entry::Cause;
use super::BootLedger;
use crate::record::MachineBoot;

/// Boots kept per native device.
pub const BOOTS_MAX: usize = 4;

/// What is known of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Ledger key: chip id in hex, or the tag `device`.
    pub key: Box<str>,
    /// Whether it speaks our protocol.
    pub native: bool,
    /// Name that it goes by; the key itself for a foreign device.
    pub name: Box<str>,
    /// The latest boots, newest last, at most [`BOOTS_MAX`]; none for a foreign device.
    pub boots: Vec<BootState>,
    /// Rows journaled.
    pub rows: u64,
    /// Rows that came as input which cannot be read, kept as letters.
    pub letters: u64,
    /// Those of them whose letters are in the journal alone.
    pub(super) letters_waiting: u64,
    /// Rows that no sink will get.
    pub gaps: Gaps,
    pub(super) ledgers: Vec<Ledger>,
    /// Where its latest early row lies.
    #[serde(skip)]
    pub early: Option<Early>,
    /// What is known of rows that share their point with an earlier one; none before the first of a foreign device.
    #[serde(skip)]
    pub shared: Option<Shared>,
    /// What became of the rows of its latest boots, in the order in which these began.
    #[serde(skip)]
    pub by_boot: Vec<BootLedger>,
}

/// Rows of a foreign device that share series and time with an earlier row, so that they are the same point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Rows that do.
    pub again: u64,
    /// Rows of which that is not known.
    pub unsure: u64,
    /// The latest time that any of its rows has given itself, in nanoseconds since 1970.
    pub latest_ns: i64,
}

/// Where the latest early row of a native device lies: it is none of the boot's times until the clock is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// The device's boot.
    pub boot: u32,
    /// The machine's boot.
    pub machine: MachineBoot,
    /// The row's nanosecond of the steady clock.
    pub ns: i64,
}

/// What is known of one boot of a native device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootState {
    /// The boot, never 0.
    pub boot: u32,
    /// Next expected sequence: everything below is journaled or a declared gap.
    pub next: u64,
    /// Nanosecond of its latest row; `i64::MIN` before the first.
    pub last_ns: i64,
}

/// Lost rows by cause. In a snapshot only the causes that occurred are listed, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<(u8, u64)>", try_from = "Vec<(u8, u64)>")]
pub struct Gaps([u64; Cause::ALL.len()]);

/// What became of one device's rows in one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Rows that the sink confirmed.
    pub confirmed: u64,
    /// Rows that are none of its business: journaled before it was registered, or not wanted by its filter.
    pub skipped: u64,
    /// Rows that this sink alone lacks.
    pub gaps: Gaps,
}

impl DeviceState {
    /// The boot that `boot` names, if it is one of the latest.
    #[must_use]
    pub fn boot(&self, boot: u32) -> Option<BootState> {
        self.boots.iter().find(|b| b.boot == boot).copied()
    }

    /// A boot that is not known here was begun in an entry that is lost.
    pub(super) fn advance(&mut self, boot: u32, next: u64, ns: i64) {
        if boot != 0 && self.boot(boot).is_none() {
            self.native = true;
            self.begin(BootState { boot, next, last_ns: ns });
        }
        if let Some(known) = self.boots.iter_mut().find(|b| b.boot == boot) {
            known.next = known.next.max(next);
            known.last_ns = known.last_ns.max(ns);
        }
    }

    /// An early row of a boot.
    pub(super) fn advance_early(&mut self, early: Early) {
        let same = |known: &Early| (known.boot, known.machine) == (early.boot, early.machine);
        let ns = self.early.filter(same).map_or(early.ns, |known| known.ns.max(early.ns));
        self.early = Some(Early { ns, ..early });
    }

    /// The clock of a boot of the machine is fixed: the latest early row has a time.
    pub(super) fn fix(&mut self, machine: MachineBoot, offset_ns: i64) {
        let Some(early) = self.early.take_if(|early| early.machine == machine) else { return };
        if let Some(known) = self.boots.iter_mut().find(|b| b.boot == early.boot) {
            known.last_ns = known.last_ns.max(early.ns.saturating_add(offset_ns));
        }
    }

    pub(super) fn lose_letters(&mut self, rows: u64, cause: Cause) {
        self.letters = self.letters.saturating_sub(rows);
        self.gaps.add(cause, rows);
    }

    pub(super) fn begin(&mut self, boot: BootState) {
        self.boots.retain(|b| b.boot != boot.boot);
        if self.boots.len() >= BOOTS_MAX {
            self.boots.remove(0);
        }
        self.boots.push(boot);
        self.tell_apart(boot.boot);
    }

    pub(super) fn ledger(&mut self, at: usize) -> &mut Ledger {
        if self.ledgers.len() <= at {
            self.ledgers.resize(at + 1, Ledger::default());
        }
        &mut self.ledgers[at]
    }
}

impl Ledger {
    /// Rows that the sink is done with.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.confirmed.saturating_add(self.skipped).saturating_add(self.gaps.total())
    }
}

impl Gaps {
    /// Rows lost for this cause.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// Rows lost for any cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, rows| sum.saturating_add(*rows))
    }

    /// Causes with their counts, zeros left out.
    pub fn iter(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().map(|cause| (cause, self.of(cause))).filter(|(_, rows)| *rows > 0)
    }

    /// What is left without what another one has.
    #[must_use]
    pub fn without(&self, other: &Gaps) -> Gaps {
        let mut gaps = *self;
        gaps.0.iter_mut().zip(other.0).for_each(|(rows, others)| *rows = rows.saturating_sub(others));
        gaps
    }

    /// Takes up to so many rows out of a cause; how many there were.
    pub(super) fn take(&mut self, cause: Cause, rows: u64) -> u64 {
        let rows = rows.min(self.of(cause));
        self.0[cause as usize] -= rows;
        rows
    }

    pub(super) fn add(&mut self, cause: Cause, rows: u64) {
        let sum = &mut self.0[cause as usize];
        *sum = sum.saturating_add(rows);
    }
}

impl From<Gaps> for Vec<(u8, u64)> {
    fn from(gaps: Gaps) -> Vec<(u8, u64)> {
        gaps.iter().map(|(cause, rows)| (cause as u8, rows)).collect()
    }
}

impl TryFrom<Vec<(u8, u64)>> for Gaps {
    type Error = &'static str;

    fn try_from(list: Vec<(u8, u64)>) -> Result<Gaps, &'static str> {
        let mut gaps = Gaps::default();
        for (cause, rows) in list {
            gaps.add(*Cause::ALL.get(usize::from(cause)).ok_or("an unknown cause")?, rows);
        }
        Ok(gaps)
    }
}
