//! The judge: what the devices produced against what the store returned.
//!
//! For every device `produced = stored + gaps + lost`. A row is *lost* when the store does not return it although it was
//! acknowledged, or although no gap declares it. Everything else that may be wrong is counted apart: a number that the
//! store returns twice, a time that is not the true one, a value that is not the one that was measured, a gap that
//! declares more than is missing, a row that nobody produced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::readback::{Stored, StoredRow};
use crate::truth::{Dating, Log, Truth};

/// How far a value may be off: what a 32-bit float rounds away.
const VALUE_TOLERANCE: f64 = 1e-6;

/// One device's account, or the sum of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Rows that the device sampled.
    pub produced: u64,
    /// Rows that were acknowledged to it.
    pub acked: u64,
    /// Different rows that the store returned.
    pub stored: u64,
    /// Samples that the store returned beyond one for each row.
    pub duplicates: u64,
    /// Rows that the store declares lost.
    pub gaps: u64,
    /// Rows that are missing although acknowledged, or without being declared.
    pub lost: u64,
    /// Rows with more than one timestamp.
    pub retimed: u64,
    /// Samples whose time is further from the true one than allowed.
    pub mistimed: u64,
    /// Samples with a wrong value.
    pub altered: u64,
    /// Samples of rows that were never produced.
    pub unknown: u64,
    /// Rows that are stored and declared lost at the same time.
    pub overdeclared: u64,
    /// The largest distance from the true time, in nanoseconds.
    pub time_error_ns_max: i64,
}

/// Every device's account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The sum.
    #[serde(flatten)]
    pub total: Account,
    /// By device.
    pub devices: BTreeMap<String, Account>,
}

/// Compares the devices' logs with what the store returned. `tolerance_ns` is how far the time of a row that the gateway
/// dated may be off, for a device; rows with a time of their own must return it exactly.
pub fn judge<'a>(
    truths: impl IntoIterator<Item = &'a Truth>,
    stored: &Stored,
    tolerance_ns: &dyn Fn(&str) -> i64,
) -> Ledger {
    let mut rows: BTreeMap<&str, Vec<&StoredRow>> = BTreeMap::new();
    for row in &stored.rows {
        rows.entry(&row.device).or_default().push(row);
    }
    let mut ledger = Ledger::default();
    for truth in truths {
        let name = truth.name();
        let allowed = match truth.dating() {
            Dating::Payload => 0,
            Dating::Gateway => tolerance_ns(name),
        };
        let samples = rows.remove(name).unwrap_or_default();
        let account = judge_device(truth, &samples, stored, allowed);
        ledger.total.add(&account);
        ledger.devices.insert(name.to_owned(), account);
    }
    for (stranger, samples) in rows {
        let account = Account { unknown: count(samples.len()), ..Account::default() };
        ledger.total.add(&account);
        ledger.devices.insert(stranger.to_owned(), account);
    }
    ledger
}

/// How many rows were acknowledged that the store does not return, at this moment of a run.
pub fn acked_but_missing<'a>(truths: impl IntoIterator<Item = &'a Truth>, stored: &Stored) -> u64 {
    let there: BTreeSet<(&str, u64)> =
        stored.rows.iter().map(|row| (row.device.as_str(), row.number)).collect();
    let missing = truths.into_iter().map(|truth| {
        let log = truth.log();
        let acked = (0_u64..).zip(&log.rows).filter(|(_, row)| row.acked);
        count(acked.filter(|(number, _)| !there.contains(&(truth.name(), *number))).count())
    });
    missing.sum()
}

fn judge_device(truth: &Truth, samples: &[&StoredRow], stored: &Stored, allowed_ns: i64) -> Account {
    let log = truth.log();
    let acked = log.rows.iter().filter(|row| row.acked).count();
    let mut account = Account { produced: count(log.rows.len()), acked: count(acked), ..Account::default() };
    let mut times: BTreeMap<u64, BTreeSet<i64>> = BTreeMap::new();
    for sample in samples {
        let Some(row) = usize::try_from(sample.number).ok().and_then(|number| log.rows.get(number)) else {
            account.unknown += 1;
            continue;
        };
        let known = times.entry(sample.number).or_default();
        account.duplicates += u64::from(!known.is_empty());
        known.insert(sample.ns);
        // The store cuts what it cannot keep, so that the truth is cut the same way before it is compared.
        let truth_ns = row.ns - row.ns.rem_euclid(stored.resolution_ns);
        let slack = if truth.dating() == Dating::Gateway { stored.resolution_ns - 1 } else { 0 };
        let error = (sample.ns - truth_ns).abs();
        account.mistimed += u64::from(error > allowed_ns + slack);
        account.time_error_ns_max = account.time_error_ns_max.max(error);
        account.altered += u64::from(!values_match(truth, sample));
    }
    account.stored = count(times.len());
    account.retimed = count(times.values().filter(|known| known.len() > 1).count());
    settle_gaps(&mut account, truth.name(), &log, stored, &times);
    account
}

/// Counts what is declared lost, and what is missing without being.
fn settle_gaps(
    account: &mut Account,
    name: &str,
    log: &Log,
    stored: &Stored,
    times: &BTreeMap<u64, BTreeSet<i64>>,
) {
    let mut declared = BTreeSet::new();
    for gap in stored.gaps.iter().filter(|gap| gap.device == name) {
        account.gaps += gap.count;
        declared.extend(log.numbers_in_gap(gap.boot, gap.from, gap.to));
    }
    account.overdeclared = count(declared.iter().filter(|number| times.contains_key(number)).count());
    let numbered = (0_u64..).zip(&log.rows);
    let missing = numbered.filter(|(number, _)| !times.contains_key(number));
    account.lost = count(missing.filter(|(number, row)| row.acked || !declared.contains(number)).count());
}

fn values_match(truth: &Truth, sample: &StoredRow) -> bool {
    if sample.fields.is_empty() {
        return true;
    }
    truth.values(sample.number).iter().all(|(name, expected)| {
        let found = sample.fields.iter().find(|(field, _)| field == name);
        found.is_some_and(|(_, value)| (value - expected).abs() <= VALUE_TOLERANCE * expected.abs().max(1.0))
    })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Account {
    /// Whether every acknowledged row is there exactly once, at its time, and what is missing is declared.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.duplicates == 0 && self.complete()
    }

    /// The same, for stores that keep identical points: duplicates are left to the caller.
    #[must_use]
    pub fn complete(&self) -> bool {
        let faults =
            self.lost + self.retimed + self.mistimed + self.altered + self.unknown + self.overdeclared;
        faults == 0 && self.produced == self.stored + self.gaps
    }

    /// What is odd about it, in words.
    fn oddities(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let all = [
            (self.retimed, "with two timestamps"),
            (self.mistimed, "at a wrong time"),
            (self.altered, "with a wrong value"),
            (self.unknown, "that nobody produced"),
            (self.overdeclared, "stored and yet declared lost"),
        ];
        all.into_iter().filter(|(rows, _)| *rows > 0)
    }

    fn add(&mut self, other: &Account) {
        self.produced += other.produced;
        self.acked += other.acked;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.retimed += other.retimed;
        self.mistimed += other.mistimed;
        self.altered += other.altered;
        self.unknown += other.unknown;
        self.overdeclared += other.overdeclared;
        self.time_error_ns_max = self.time_error_ns_max.max(other.time_error_ns_max);
    }
}

impl Ledger {
    /// The same without the devices whose accounts balance and hold no gap.
    #[must_use]
    pub fn abridged(&self) -> Ledger {
        let remarkable = |account: &Account| !account.balanced() || account.gaps > 0;
        let devices = self.devices.iter().filter(|(_, account)| remarkable(account));
        let devices = devices.map(|(name, account)| (name.clone(), account.clone())).collect();
        Ledger { total: self.total.clone(), devices }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<20}{:>10}{:>10}{:>10}{:>12}{:>8}{:>8}{:>14}",
            "device", "produced", "acked", "stored", "duplicates", "gaps", "lost", "time error"
        )?;
        let total = [("total".to_owned(), self.total.clone())];
        for (name, account) in self.devices.clone().into_iter().chain(total) {
            let error = format!("{} µs", account.time_error_ns_max / 1000);
            let Account { produced, acked, stored, duplicates, gaps, lost, .. } = account;
            writeln!(
                f,
                "{name:<20}{produced:>10}{acked:>10}{stored:>10}{duplicates:>12}{gaps:>8}{lost:>8}{error:>14}"
            )?;
            for (rows, what) in account.oddities() {
                writeln!(f, "{:<20}{rows:>10} rows {what}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, judge};
    use crate::readback::{Stored, StoredGap, StoredRow};
    use crate::truth::{Dating, Truth};

    fn device(dating: Dating) -> Truth {
        let truth =
            Truth::new("d", dating, |number| vec![("t", f64::from(u32::try_from(number).unwrap_or(0)))]);
        for sequence in 0..4 {
            truth.produce(i64::from(sequence) * 1_000_000, u64::from(sequence), sequence);
        }
        truth.observe(7, 0, 3);
        truth
    }

    fn sample(number: u32) -> StoredRow {
        let fields = vec![("t".to_owned(), f64::from(number))];
        StoredRow { device: "d".into(), number: u64::from(number), ns: i64::from(number) * 1_000_000, fields }
    }

    fn all() -> Stored {
        Stored { rows: (0..4).map(sample).collect(), gaps: Vec::new(), resolution_ns: 1 }
    }

    fn gap(from: u64, to: u64) -> StoredGap {
        StoredGap { device: "d".into(), cause: "overflow".into(), boot: 7, from, to, count: to - from }
    }

    fn judged(stored: &Stored) -> Ledger {
        judge([&device(Dating::Gateway)], stored, &|_| 1000)
    }

    #[test]
    fn a_full_store_balances() {
        assert!(judged(&all()).total.balanced());
    }

    #[test]
    fn a_missing_row_is_lost_unless_it_was_unacked_and_is_declared() {
        let mut stored = all();
        stored.rows.pop();
        assert_eq!(judged(&stored).total.lost, 1);
        stored.gaps.push(gap(3, 4));
        assert!(judged(&stored).total.balanced());
        stored.rows.pop();
        stored.gaps = vec![gap(2, 4)];
        assert_eq!(judged(&stored).total.lost, 1, "row 2 was acknowledged");
    }

    #[test]
    fn each_kind_of_fault_is_seen() {
        let mut twice = all();
        twice.rows.push(sample(2));
        let total = judged(&twice).total;
        assert_eq!(
            (total.duplicates, total.retimed, total.balanced(), total.complete()),
            (1, 0, false, true)
        );
        let mut late = all();
        late.rows[1].ns += 2000;
        assert_eq!(judged(&late).total.mistimed, 1);
        late.rows.push(sample(1));
        assert_eq!(judged(&late).total.retimed, 1);
        let mut wrong = all();
        wrong.rows[1].fields[0].1 += 0.5;
        assert_eq!(judged(&wrong).total.altered, 1);
        let mut strange = all();
        strange.rows.push(sample(9));
        strange.rows.push(StoredRow { device: "e".into(), ..sample(0) });
        assert_eq!(judged(&strange).total.unknown, 2);
        let mut overdeclared = all();
        overdeclared.gaps.push(gap(3, 4));
        assert!(!judged(&overdeclared).total.balanced());
    }

    #[test]
    fn a_payloads_own_time_must_come_back_exactly() {
        let truth = device(Dating::Payload);
        let mut stored = all();
        assert!(judge([&truth], &stored, &|_| 1000).total.balanced());
        stored.rows[1].ns += 1;
        assert_eq!(judge([&truth], &stored, &|_| 1000).total.mistimed, 1);
    }
}
