//! Compares the ledger, as it was before and after the counting, with what was counted. No side effects.

use std::collections::BTreeSet;

use super::books::{Books, Entry};
use super::report::{DeviceReport, SinkReport, Verdict};
use super::{Counted, Counts};

/// Judges one sink.
pub(super) fn judge(before: &Books, after: &Books, counts: &Counts) -> SinkReport {
    let mut report = SinkReport { balances: after.balances, ..SinkReport::default() };
    let mut strangers = Counted::default();
    let pool = after.devices.iter().find(|(_, entry)| entry.is_pool()).map(|(name, _)| name.clone());
    let names: BTreeSet<&String> = after.devices.keys().chain(counts.devices.keys()).collect();
    let none = Entry::default();
    for name in names {
        let counted = counts.devices.get(name).copied().unwrap_or_default();
        let Some(entry) = after.devices.get(name) else {
            strangers = strangers.and(counted);
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
        let counted = strangers.and(counts.devices.get(&name).copied().unwrap_or_default());
        let entry_before = before.devices.get(&name).unwrap_or(&none);
        report.devices.insert(name, of_device((entry_before, entry), counted));
    }
    excuse_names(&mut report, after);
    excuse_missing(&mut report, counts.excuse.as_deref());
    sum(&mut report);
    if report.verdict == Verdict::Difference && report.reason.is_none() {
        report.reason.clone_from(&counts.remark);
    }
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
            "{} points carry another tag gateway, as those of this one did if it was called otherwise",
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
            "{} points of this device carry another tag gateway, and some of them may be the missing ones",
            counted.elsewhere
        ));
    }
    if surplus > 0 {
        notes.push(
            "points of this name were written by somebody else, before this data directory was made, or are in a file that was put back after they had been declared lost"
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
        dead_lettered: after.dead_lettered,
        lost: after.lost,
        missing,
        surplus,
        boots: after.boots.clone(),
        notes,
    }
}

/// Says why the ledger allows more than one number.
fn note_range(notes: &mut Vec<String>, before: &Entry, after: &Entry) {
    let moved = after.confirmed.saturating_sub(before.confirmed);
    let absent = [after.evicted, after.skipped].into_iter().fold(after.absent, u64::saturating_add);
    let lacking = after.again.min(absent);
    let of = [
        (after.unsure, "rows gave themselves a time so old that nobody remembers whether there was a point"),
        (moved, "rows were confirmed while it was counted"),
        (after.backlog, "rows are not confirmed, though a write without an answer may have stored them"),
        (after.evicted, "rows were let go of, though a write that was given up may have stored them"),
        (
            after.skipped,
            "rows are none of this sink's business, from before it was registered or left out by its filter, though it may have them from an earlier time",
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
    let devices = &report.devices;
    let of_all = |of: fn(&DeviceReport) -> u64| devices.values().map(of).fold(0, u64::saturating_add);
    report.confirmed = of_all(|device| device.confirmed);
    report.stored = of_all(|device| device.stored);
    report.dead_lettered = of_all(|device| device.dead_lettered);
    report.lost = of_all(|device| device.lost);
    report.verdict = devices.values().map(|device| device.verdict).max().unwrap_or_default();
    if !report.balances {
        report.verdict = Verdict::Difference;
        report.reason =
            Some("the ledger's own sum is wrong, which is a fault of Forebay; please report it".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::state::OTHERS;

    fn entry(name: &str, confirmed: u64) -> Entry {
        Entry { accounts: vec![name.to_owned()], confirmed, ..Entry::default() }
    }

    fn books(devices: &[(&str, Entry)]) -> Books {
        let devices = devices.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())).collect();
        Books { devices, balances: true }
    }

    fn counts(devices: &[(&str, u64)]) -> Counts {
        let counted = |own: u64| Counted { own, ..Counted::default() };
        let devices = devices.iter().map(|(name, own)| ((*name).to_owned(), counted(*own))).collect();
        Counts { devices, ..Counts::default() }
    }

    fn judged(books: &Books, counts: &Counts) -> SinkReport {
        judge(books, books, counts)
    }

    #[test]
    fn as_many_points_as_rows_are_exact_and_one_more_or_less_is_a_difference() {
        let books = books(&[("a", entry("a", 10)), ("b", entry("b", 0))]);
        for (stored, verdict, missing, surplus) in
            [(10, Verdict::Exact, 0, 0), (9, Verdict::Difference, 1, 0), (12, Verdict::Difference, 0, 2)]
        {
            let report = judged(&books, &counts(&[("a", stored)]));
            assert_eq!(report.verdict, verdict, "{stored}");
            let device = &report.devices["a"];
            assert_eq!((device.missing, device.surplus, report.stored), (missing, surplus, stored));
            assert_eq!(report.devices["b"].verdict, Verdict::Exact);
        }
    }

    #[test]
    fn rows_that_share_a_point_are_no_loss() {
        let mut of_a = Entry { again: 3, ..entry("a", 10) };
        let exact = judged(&books(&[("a", of_a.clone())]), &counts(&[("a", 7)]));
        assert_eq!((exact.verdict, exact.devices["a"].shared), (Verdict::Exact, 3));
        for stored in [6, 8] {
            let report = judged(&books(&[("a", of_a.clone())]), &counts(&[("a", stored)]));
            assert_eq!(report.verdict, Verdict::Difference, "{stored}");
        }
        // A row before them may be one that the sink refused.
        of_a.absent = 1;
        of_a.unsure = 1;
        let report = judged(&books(&[("a", of_a.clone())]), &counts(&[("a", 7)]));
        assert_eq!((report.verdict, report.devices["a"].expected), (Verdict::Consistent, (6, 8)));
        assert_eq!(report.devices["a"].notes.len(), 2, "{:?}", report.devices["a"].notes);
    }

    #[test]
    fn what_moves_is_a_range() {
        let before = books(&[("a", Entry { backlog: 4, ..entry("a", 10) })]);
        let after = books(&[("a", Entry { backlog: 2, ..entry("a", 15) })]);
        let verdict = |stored| judge(&before, &after, &counts(&[("a", stored)])).verdict;
        assert_eq!(
            [9, 10, 17, 18].map(verdict),
            [Verdict::Difference, Verdict::Consistent, Verdict::Consistent, Verdict::Difference]
        );
    }

    #[test]
    fn a_name_that_nobody_has_is_a_difference_unless_accounts_are_shared_or_a_device_was_renamed() {
        let stranger = counts(&[("a", 10), ("x", 2)]);
        let report = judged(&books(&[("a", entry("a", 10))]), &stranger);
        assert_eq!((report.verdict, report.devices["x"].surplus), (Verdict::Difference, 2));
        let shared = judged(&books(&[("a", entry("a", 10)), (OTHERS, entry(OTHERS, 2))]), &stranger);
        assert_eq!(shared.verdict, Verdict::Exact, "{shared:?}");
        let renamed = Entry { native: true, ..entry("e6", 12) };
        let report = judged(&books(&[("a", renamed)]), &stranger);
        assert_eq!((report.verdict, report.devices["a"].missing), (Verdict::Consistent, 0));
    }

    #[test]
    fn those_without_an_account_are_counted_together_with_what_was_deleted_and_is_elsewhere() {
        let books = books(&[(OTHERS, entry(OTHERS, 12))]);
        let of = |strangers: [Counted; 3]| {
            let devices = ["x", "y", OTHERS].map(str::to_owned).into_iter().zip(strangers).collect();
            judged(&books, &Counts { devices, ..Counts::default() })
        };
        let counted = |own, swept, elsewhere| Counted { own, swept, elsewhere };
        let report = of([counted(2, 1, 0), counted(3, 4, 0), counted(1, 1, 0)]);
        let device = &report.devices[OTHERS];
        assert_eq!((report.verdict, device.stored, device.swept), (Verdict::Exact, 12, 6), "{report:?}");
        let report = of([counted(2, 0, 3), counted(3, 0, 4), counted(0, 0, 0)]);
        let device = &report.devices[OTHERS];
        assert_eq!((report.verdict, device.stored, device.elsewhere), (Verdict::Exact, 12, 7), "{report:?}");
    }

    #[test]
    fn what_a_filter_left_out_is_not_said_to_be_from_before_the_sink() {
        let of_a = Entry { again: 3, skipped: 1, evicted: 1, ..entry("a", 10) };
        let report = judged(&books(&[("a", of_a)]), &counts(&[("a", 7)]));
        let device = &report.devices["a"];
        assert_eq!((report.verdict, device.expected), (Verdict::Consistent, (7, 11)));
        assert!(device.notes.iter().any(|note| note.contains("left out by its filter")), "{device:?}");
        let lacking = "2 rows share their point with rows that this sink may lack";
        assert!(device.notes.iter().any(|note| note == lacking), "{device:?}");
    }

    #[test]
    fn another_gateway_and_a_retention_leave_doubt_only_where_something_is_missing() {
        let books = books(&[("a", entry("a", 10))]);
        let of = |own, elsewhere, swept| {
            let mut counts = counts(&[]);
            counts.devices.insert("a".to_owned(), Counted { own, elsewhere, swept });
            counts.excuse = Some("old".to_owned());
            judged(&books, &counts).verdict
        };
        assert_eq!(of(10, 5, 0), Verdict::Exact, "those of the other gateway are its own");
        assert_eq!(of(4, 6, 0), Verdict::Exact, "this one had another name");
        assert_eq!(of(4, 0, 6), Verdict::Exact, "what is counted as deleted was there");
        assert_eq!(of(4, 7, 0), Verdict::Unverifiable);
        assert_eq!(of(9, 0, 0), Verdict::Unverifiable);
        assert_eq!(of(11, 0, 0), Verdict::Difference, "a retention makes no points");
    }

    #[test]
    fn what_is_lost_or_kept_aside_is_told_and_a_remark_where_something_is_missing() {
        let books =
            books(&[("a", Entry { lost: 3, dead_lettered: 2, ..entry("a", 10) }), ("b", entry("b", 0))]);
        for (stored, expected) in [(10, None), (9, Some("no file".to_owned()))] {
            let counts = Counts { remark: Some("no file".to_owned()), ..counts(&[("a", stored)]) };
            let report = judged(&books, &counts);
            assert_eq!((report.lost, report.dead_lettered, report.reason), (3, 2, expected));
            assert_eq!((report.devices["a"].lost, report.devices["a"].dead_lettered), (3, 2));
        }
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_a_difference_whatever_is_stored() {
        let books = Books { balances: false, ..books(&[("a", entry("a", 1))]) };
        assert_eq!(judged(&books, &counts(&[("a", 1)])).verdict, Verdict::Difference);
    }
}
