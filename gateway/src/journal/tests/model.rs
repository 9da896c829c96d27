//! Random lives of a journal against what must be true of them.

use proptest::prelude::*;

use super::super::entry::{Cause, DeviceEntry, GapEntry};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Rows { device: usize, rows: u64, bytes: usize },
    Gap { device: usize, cause: usize, count: u64, sink: Option<usize> },
    Boot { device: usize, boot: u32 },
    Sink(usize),
    Cursor { sink: usize, back: u64 },
    Wait,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6usize, 1..40u64, 0..900usize)
            .prop_map(|(device, rows, bytes)| Step::Rows { device, rows, bytes }),
        1 => (0..6usize, 0..6usize, 1..9u64, prop::option::of(0..3usize))
            .prop_map(|(device, cause, count, sink)| Step::Gap { device, cause, count, sink }),
        1 => (0..3usize, 1..9u32).prop_map(|(device, boot)| Step::Boot { device, boot }),
        1 => (0..3usize).prop_map(Step::Sink),
        1 => (0..3usize, 0..200u64).prop_map(|(sink, back)| Step::Cursor { sink, back }),
        2 => Just(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

const SINKS: [&str; 3] = ["main", "second", "sqlite"];

fn take(journal: &Journal, step: &Step, next: &mut u64) -> Result<Offset, Refused> {
    let device = |n: usize| format!("device {n}");
    match *step {
        Step::Rows { device: d, rows, bytes } => {
            let (_, receipt) = journal.submit(Class::Foreign, |state, submission| {
                let key = device(d);
                let boot = state.device(&key).and_then(|d| d.boots.last()).map_or(0, |b| b.boot);
                for sequence in *next..*next + rows {
                    submission.add(&Entry::Row(RowEntry {
                        device: &key,
                        boot,
                        sequence,
                        stamped: d % 2 == 0,
                        series: "m",
                        ns: sequence as i64,
                        fields: Fields::of(&fields(rows as i64, &"x".repeat(bytes))),
                    }))?;
                }
                Ok::<_, Refused>(())
            })?;
            *next += rows;
            Ok(receipt)
        }
        Step::Gap { device: d, cause, count, sink } => {
            let key = device(d);
            let gap = GapEntry {
                device: &key,
                boot: 1,
                from: *next,
                to: *next + count,
                count,
                cause: Cause::ALL[cause],
                sink: sink.map(|s| SINKS[s]),
                stamped: true,
                series: "forebay_gap",
                ns: 5,
            };
            Ok(journal.submit(Class::Internal, |_, s| s.add(&Entry::Gap(gap)))?.1)
        }
        Step::Boot { device: d, boot } => {
            let key = device(d);
            let entry = DeviceEntry { device: &key, name: "named", boot, first: *next };
            Ok(journal.submit(Class::Foreign, |_, s| s.add(&Entry::Device(entry)))?.1)
        }
        Step::Sink(sink) => journal.register_sink(SINKS[sink]).map(|_| Offset(0)),
        Step::Cursor { sink, back } => {
            let end = Offset(journal.watermark().borrow().0.saturating_sub(back));
            let cursor = |state: &State, s: &mut Submission<'_>| {
                let next = state.cursor(SINKS[sink]).unwrap_or_default().max(end);
                s.add_cursor(SINKS[sink], next, &[(device(1).into(), back)])
            };
            Ok(journal.submit(Class::Internal, cursor)?.1)
        }
        Step::Wait | Step::Reopen => Ok(Offset(0)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_recovered_state_is_the_fold_of_the_entries(steps in prop::collection::vec(step(), 1..120)) {
        let storage = MemoryStorage::new();
        let (mut journal, _) = open(&storage);
        let mut next = 1;
        // A journal has no identity to keep before something was written.
        wait_for(&journal, submit_rows(&journal, 0, 1, "first").unwrap());
        for step in steps {
            match (take(&journal, &step, &mut next), &step) {
                (Ok(receipt), Step::Wait | Step::Cursor { .. }) => wait_for(&journal, receipt),
                (_, Step::Reopen) => {
                    let (state, end) = (journal.with_state(State::clone), journal.usage().end);
                    journal.close();
                    let (opened, report) = open(&storage);
                    prop_assert_eq!(report.damaged, []);
                    prop_assert_eq!(opened.usage().end, end);
                    prop_assert_eq!(opened.with_state(State::clone), state);
                    journal = opened;
                }
                (Err(refused), _) => prop_assert!(matches!(refused, Refused::Full | Refused::Busy)),
                _ => {}
            }
        }
        let oldest = journal.with_state(State::lowest_cursor).unwrap_or_default();
        journal.close();
        prop_assert_eq!(read_all(&journal, oldest).1, []);
    }

    #[test]
    fn a_power_cut_loses_nothing_acknowledged_and_tears_no_submission(
        submissions in prop::collection::vec((1..30u64, 0..3_000usize), 1..40),
        held_from in 0..40usize, keep in any::<u64>(), second in any::<u64>(),
    ) {
        let storage = MemoryStorage::new();
        let (journal, _) = open(&storage);
        let (mut next, mut ends) = (0, vec![0]);
        for (n, (rows, bytes)) in submissions.iter().enumerate() {
            if n == held_from {
                storage.faults(|f| f.hold_syncs = true);
            }
            let text = "x".repeat(*bytes);
            // A file that the held sync holds up may be what the next rows need.
            let submitted = match n < held_from {
                true => submit_rows(&journal, next, *rows, &text),
                false => try_submit_rows(&journal, next, *rows, &text),
            };
            match submitted {
                Err(Refused::Busy) if n >= held_from => break,
                Ok(receipt) if n < held_from => wait_for(&journal, receipt),
                Ok(_) => {}
                Err(Refused::TooLarge { .. }) => continue,
                Err(other) => prop_assert!(false, "{other}"),
            }
            next += rows;
            ends.push(next);
        }
        let acknowledged = *journal.watermark().borrow();
        let acknowledged_rows = read_all(&journal, Offset(0)).0.len() as u64;
        let cut = storage.power_cut(coin(keep));
        storage.faults(|f| f.hold_syncs = false);

        let (journal, report) = open(&cut);
        prop_assert_eq!(report.damaged, []);
        prop_assert!(journal.usage().end >= acknowledged);
        let rows = sequences(&journal);
        prop_assert!(rows.len() as u64 >= acknowledged_rows);
        prop_assert!(ends.contains(&(rows.len() as u64)), "{} rows tear a submission", rows.len());
        prop_assert_eq!(&rows, &(0..rows.len() as u64).collect::<Vec<_>>());

        // A second life writes on and is cut off in turn.
        wait_for(&journal, submit_rows(&journal, 5_000, 2, "second life").unwrap());
        let (journal, report) = open(&cut.power_cut(coin(second)));
        prop_assert_eq!(report.damaged, []);
        prop_assert_eq!(sequences(&journal), [rows, vec![5_000, 5_001]].concat());
    }
}

/// A repeatable coin per sector.
fn coin(seed: u64) -> impl FnMut(&str, usize) -> bool {
    move |name, sector| {
        let mixed = (seed ^ name.len() as u64 ^ (sector as u64) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        !(mixed >> 40).is_multiple_of(3)
    }
}
