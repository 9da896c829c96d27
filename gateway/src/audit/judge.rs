//! Compares the ledger, as it was before and after the counting, with what was counted. No side effects.

use std::collections::BTreeSet;

use super::books::{Books, Entry};
use super::report::{DeviceReport, SinkReport, Verdict};
use super::{Counted, Counts};

/// Judges one sink.
pub(super) fn judge(before: &Books, after: &Books, counts: &Counts) -> SinkReport {
    let mut report = SinkReport { balances: after.balances, ..SinkReport::default() };
    let mut strangers = 0;
    let pool = after.devices.iter().find(|(_, entry)| entry.is_pool()).map(|(name, _)| name.clone());
    let names: BTreeSet<&String> = after.devices.keys().chain(counts.devices.keys()).collect();
    let none = Entry::default();
    for name in names {
        let counted = counts.devices.get(name).copied().unwrap_or_default();
        let Some(entry) = after.devices.get(name) else {
            strangers += counted.own;
            if pool.is_none() && counted.own > 0 {
                report.devices.insert(name.clone(), of_stranger(counted));
            }
            continue;
        };
        if Some(name) != pool.as_ref() {
            let entry_before = before.devices.get(name).unwrap_or(&none);
            report.devices.insert(name.clone(), of_device((entry_before, entry), counted));
        }
    }
    if let Some(name) = pool
        && let Some(entry) = after.devices.get(&name)
    {
        // Whoever has no account of its own is counted here, whatever its name.
        let counted = Counted { own: strangers, ..counts.devices.get(&name).copied().unwrap_or_default() };
        let entry_before = before.devices.get(&name).unwrap_or(&none);
        report.devices.insert(name, of_device((entry_before, entry), counted));
    }
    excuse_names(&mut report, after);
    excuse_missing(&mut report, counts.excuse.as_deref());
    sum(&mut report);
    report
}

/// Points of a name that no account has.
fn of_stranger(counted: Counted) -> DeviceReport {
    DeviceReport {
        verdict: Verdict::Difference,
        stored: counted.own,
        swept: counted.swept,
        elsewhere: counted.elsewhere,
        surplus: counted.own,
        notes: vec!["the ledger knows no device of this name: its points are from elsewhere, from before this data directory, or from a device that has been renamed".to_owned()],
        ..DeviceReport::default()
    }
}

fn of_device((before, after): (&Entry, &Entry), counted: Counted) -> DeviceReport {
    let (least, most) = (before.least(), after.most().saturating_add(after.again.min(counted.swept)));
    let mut notes = Vec::new();
    let mut stored = counted.own.saturating_add(counted.swept);
    let all = stored.saturating_add(counted.elsewhere);
    if stored < least && (least..=most).contains(&all) {
        stored = all;
        notes.push(format!(
            "{} points carry the tag gateway of another name, as those of this gateway did if it was called otherwise",
            counted.elsewhere
        ));
    }
    let (missing, surplus) = (least.saturating_sub(stored), stored.saturating_sub(most));
    let mut verdict = match (missing, surplus) {
        (0, 0) if least == most => Verdict::Exact,
        (0, 0) => Verdict::Consistent,
        _ => Verdict::Difference,
    };
    if missing > 0 && all > stored && all >= least {
        verdict = Verdict::Unverifiable;
        notes.push(format!(
            "{} points of this name carry the tag gateway of another name, and some of them may be the missing ones",
            counted.elsewhere
        ));
    }
    if surplus > 0 {
        notes.push(
            "points of this name were written by somebody else, or before this data directory was made"
                .to_owned(),
        );
    }
    note_range(&mut notes, before, after);
    DeviceReport {
        verdict,
        accounts: after.accounts.clone(),
        confirmed: after.confirmed,
        shared: after.again,
        expected: (least, most),
        stored,
        swept: counted.swept,
        elsewhere: counted.elsewhere,
        missing,
        surplus,
        notes,
    }
}

/// Says why the ledger allows more than one number.
fn note_range(notes: &mut Vec<String>, before: &Entry, after: &Entry) {
    let moved = after.confirmed.saturating_sub(before.confirmed);
    let lacking = after.again.min(after.absent);
    let of = [
        (after.unsure, "rows gave themselves a time so old that nobody remembers whether there was a point"),
        (moved, "rows were confirmed while it was counted"),
        (after.backlog, "rows are not confirmed, though a write without an answer may have stored them"),
        (after.evicted, "rows were let go of, though a write that was given up may have stored them"),
        (
            after.skipped,
            "rows are from before this sink was registered, though it may have them from an earlier time",
        ),
        (lacking, "rows share their point with rows that this sink may lack"),
    ];
    notes.extend(of.iter().filter(|(rows, _)| *rows > 0).map(|(rows, what)| format!("{rows} {what}")));
}

/// A native device that got another name has points under both.
fn excuse_names(report: &mut SinkReport, books: &Books) {
    let is_native = |name: &str| books.devices.get(name).is_some_and(|entry| entry.native);
    let missing: u64 =
        report.devices.iter().filter(|(name, _)| is_native(name)).map(|(_, device)| device.missing).sum();
    let is_stranger = |device: &DeviceReport| device.accounts.is_empty();
    let surplus: u64 = report.devices.values().filter(|d| is_stranger(d)).map(|device| device.surplus).sum();
    if missing == 0 || missing != surplus {
        return;
    }
    for (name, device) in &mut report.devices {
        if is_stranger(device) || is_native(name) && device.missing > 0 {
            device.verdict = Verdict::Consistent;
            device.notes.push("as many points are missing of native devices as there are under names that no device has any more: such a device has been renamed".to_owned());
            (device.missing, device.surplus) = (0, 0);
        }
    }
}

/// What is missing may be what a retention has dropped.
fn excuse_missing(report: &mut SinkReport, excuse: Option<&str>) {
    let Some(excuse) = excuse else { return };
    for device in report.devices.values_mut().filter(|device| device.missing > 0) {
        device.verdict = Verdict::Unverifiable;
        device.notes.push(excuse.to_owned());
    }
}

fn sum(report: &mut SinkReport) {
    let devices = report.devices.values();
    report.confirmed = devices.clone().fold(0, |sum: u64, device| sum.saturating_add(device.confirmed));
    report.stored = devices.clone().fold(0, |sum: u64, device| sum.saturating_add(device.stored));
    report.verdict = devices.map(|device| device.verdict).max().unwrap_or_default();
    if !report.balances {
        report.verdict = Verdict::Difference;
        report.reason =
            Some("the ledger's own sum is wrong, which is a fault of Forebay; please report it".to_owned());
    }
}
