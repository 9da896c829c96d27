//! What became of a native device's rows by boot, in each sink.
//!
//! Constraints: at most [`BOOTS_MAX`](super::BOOTS_MAX) boots, those that the state remembers; what they do not have of the
//! device's sums is of earlier boots, or was counted before boots were told apart. So the sums are never wrong, and no boot
//! ever has more settled than it has rows.
//!
//! Operation: a row and a gap say of which boot they are. A cursor counts rows by device alone, and need not say more: rows
//! of a device are settled in the order of the journal, so what is settled is of the earliest boot that waits. Where that
//! order does not hold, for losses by damage, which are declared ahead of their turn, and for those of a device with more than
//! four boots in one submission, the sum is right and the boot may be another one. Rows that a filter leaves out are counted
//! before those that are confirmed, so delivery gives counts of one boot after those of another (`delivery/progress.rs`).

use serde::{Deserialize, Serialize};

use super::super::entry::Cause;
use super::{DeviceState, Gaps, Ledger};

/// What became of the rows of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLedger {
    /// The boot, never 0.
    pub boot: u32,
    /// Rows journaled.
    pub rows: u64,
    /// Rows that no sink will get.
    pub gaps: Gaps,
    pub(super) ledgers: Vec<Ledger>,
}

/// How a sink came to be done with rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Confirmed,
    Skipped,
    Lost(Cause),
}

impl DeviceState {
    /// Counts rows that were journaled of a boot, 0 for none.
    pub(super) fn count_rows(&mut self, boot: u32, rows: u64) {
        self.rows = self.rows.saturating_add(rows);
        if let Some(known) = self.by_boot_mut(boot) {
            known.rows = known.rows.saturating_add(rows);
        }
    }

    /// Counts rows of a boot that no sink will get.
    pub(super) fn count_gap(&mut self, boot: u32, cause: Cause, rows: u64) {
        self.gaps.add(cause, rows);
        if let Some(known) = self.by_boot_mut(boot) {
            known.gaps.add(cause, rows);
        }
    }

    /// A sink is done with rows: of this boot, as far as that has any that wait, else of the earliest that has.
    pub(super) fn settle(&mut self, at: usize, end: End, boot: u32, rows: u64) {
        let mut left = rows;
        let earlier = self.earlier_waiting(at);
        if let Some(known) = self.by_boot_mut(boot) {
            left -= known.settle(at, end, left);
        }
        left = left.saturating_sub(earlier);
        for known in &mut self.by_boot {
            left -= known.settle(at, end, left);
        }
        end.add(self.ledger(at), rows);
    }

    /// Rows that a sink had refused are stored after all, the earliest first.
    pub(super) fn replay(&mut self, at: usize, rows: u64) {
        self.change(at, rows, |ledger| ledger.gaps.of(Cause::Rejected), Ledger::replay);
    }

    /// A sink has lost rows that it had confirmed, the earliest first.
    pub(super) fn lack(&mut self, at: usize, rows: u64) {
        self.change(at, rows, |ledger| ledger.confirmed, Ledger::lack);
    }

    /// Changes the count of up to so many rows that are counted as `of` says, those of no boot that is told apart first.
    fn change(
        &mut self,
        at: usize,
        rows: u64,
        of: impl Fn(Ledger) -> u64,
        change: impl Fn(&mut Ledger, u64) -> u64,
    ) {
        let by_boot = self.by_boot.iter().fold(0_u64, |sum, boot| sum.saturating_add(of(boot.ledger(at))));
        let earlier = of(*self.ledger(at)).saturating_sub(by_boot);
        let rows = change(self.ledger(at), rows);
        let mut left = rows.saturating_sub(earlier);
        for known in &mut self.by_boot {
            left -= change(known.ledger_mut(at), left);
        }
    }

    /// A sink that is new owes nothing of what is journaled; or what another one owes.
    pub(super) fn register(&mut self, at: usize, like: Option<usize>) {
        for known in &mut self.by_boot {
            let skipped = like.map_or(known.rows, |like| known.ledger(like).settled());
            known.ledger_mut(at).skipped = skipped;
        }
        let skipped = like.map_or(self.rows, |like| self.ledger(like).settled());
        self.ledger(at).skipped = skipped;
    }

    /// A sink is none any more.
    pub(super) fn forget(&mut self, at: usize) {
        let of_boots = self.by_boot.iter_mut().map(|known| &mut known.ledgers);
        for ledgers in of_boots.chain([&mut self.ledgers]).filter(|ledgers| at < ledgers.len()) {
            ledgers.remove(at);
        }
    }

    /// A boot begins, and only boots that are remembered are told apart.
    pub(super) fn tell_apart(&mut self, boot: u32) {
        self.by_boot.retain(|known| self.boots.iter().any(|of| of.boot == known.boot));
        if self.by_boot_mut(boot).is_none() {
            self.by_boot.push(BootLedger { boot, ..BootLedger::default() });
        }
    }

    /// Rows that a sink is still to get and that are of no boot that is told apart.
    fn earlier_waiting(&mut self, at: usize) -> u64 {
        let waiting = self.rows.saturating_sub(self.ledger(at).settled());
        self.by_boot.iter().fold(waiting, |left, known| left.saturating_sub(known.waiting(at)))
    }

    fn by_boot_mut(&mut self, boot: u32) -> Option<&mut BootLedger> {
        self.by_boot.iter_mut().find(|known| known.boot == boot)
    }
}

impl BootLedger {
    fn waiting(&self, at: usize) -> u64 {
        self.rows.saturating_sub(self.ledger(at).settled())
    }

    /// The sink that is listed there is done with up to so many rows; how many there were.
    fn settle(&mut self, at: usize, end: End, rows: u64) -> u64 {
        let rows = rows.min(self.waiting(at));
        if rows > 0 {
            end.add(self.ledger_mut(at), rows);
        }
        rows
    }

    fn ledger(&self, at: usize) -> Ledger {
        self.ledgers.get(at).copied().unwrap_or_default()
    }

    fn ledger_mut(&mut self, at: usize) -> &mut Ledger {
        if self.ledgers.len() <= at {
            self.ledgers.resize(at + 1, Ledger::default());
        }
        &mut self.ledgers[at]
    }
}

impl End {
    fn add(self, ledger: &mut Ledger, rows: u64) {
        match self {
            End::Confirmed => ledger.confirmed = ledger.confirmed.saturating_add(rows),
            End::Skipped => ledger.skipped = ledger.skipped.saturating_add(rows),
            End::Lost(cause) => ledger.gaps.add(cause, rows),
        }
    }
}

impl Ledger {
    /// Up to so many rows that were refused are confirmed; how many there were.
    fn replay(&mut self, rows: u64) -> u64 {
        let rows = self.gaps.take(Cause::Rejected, rows);
        self.confirmed = self.confirmed.saturating_add(rows);
        rows
    }

    /// Up to so many rows that were confirmed are lost to the sink; how many there were.
    fn lack(&mut self, rows: u64) -> u64 {
        let rows = rows.min(self.confirmed);
        self.confirmed -= rows;
        self.gaps.add(Cause::SinkReset, rows);
        rows
    }

    /// What is left without what another one has.
    #[must_use]
    pub fn without(&self, other: &Ledger) -> Ledger {
        Ledger {
            confirmed: self.confirmed.saturating_sub(other.confirmed),
            skipped: self.skipped.saturating_sub(other.skipped),
            gaps: self.gaps.without(&other.gaps),
        }
    }
}
