//! The real device against the gateway's real half of the link, on a virtual clock and over a line or a
//! broker that loses, damages and repeats, while gateways crash, devices restart and rings overflow.
//!
//! Judged at the end, for each boot: what the gateway made durable is one unbroken sequence of rows and
//! gaps; each row is the one that was sampled; each gap row was evicted; and after the last fault
//! everything sampled is released.
//!
//! `SEED=n cargo test -p forebay-firmware --test link_pair` runs one seed again, and `SEEDS=n` more of them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::ops::Range;

use world::{Faults, Report, World};

use forebay_shared::link::Transport;

/// How many seeds each test runs.
fn seeds() -> Range<u64> {
    let variable = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    match (variable("SEED"), variable("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 1..1 + count.unwrap_or(5),
    }
}

fn run(name: &str, transport: Transport, faults: Faults) -> Report {
    let mut total = Report::default();
    for seed in seeds() {
        println!("{name}: seed {seed}");
        total.add(&World::new(seed, transport, faults).run());
    }
    println!("{name}: {total:?}");
    total
}

#[test]
fn a_perfect_line_repeats_nothing() {
    let report = run("perfect", Transport::Serial, Faults::default());
    assert!(report.rows > 0);
    assert_eq!((report.gap_rows, report.repeated_blocks, report.duplicate_blocks), (0, 0, 0));
}

#[test]
fn a_bad_line_loses_nothing() {
    let faults = Faults { line_errors: true, ..Faults::default() };
    let report = run("bad line", Transport::Serial, faults);
    assert!(report.repeated_blocks > 0 && report.bad_frames > 0);
    assert_eq!(report.gap_rows, 0);
}

#[test]
fn an_unplugged_line_overflows_and_says_so() {
    let faults = Faults { line_errors: true, cuts: true, ..Faults::default() };
    let report = run("cuts", Transport::Serial, faults);
    assert!(report.gap_rows > 0 && report.rows > report.gap_rows);
}

#[test]
fn gateways_crash_over_a_bad_line() {
    let faults = Faults { line_errors: true, crashes: true, holds: true, ..Faults::default() };
    let report = run("crashes", Transport::Serial, faults);
    assert!(report.crashes > 0 && report.duplicate_blocks > 0);
}

#[test]
fn everything_at_once_over_a_line() {
    let faults = Faults { line_errors: true, cuts: true, crashes: true, holds: true, resets: true };
    let report = run("everything", Transport::Serial, faults);
    assert!(report.boots > 1 && report.gap_rows > 0 && report.crashes > 0);
}

#[test]
fn a_perfect_broker_repeats_nothing() {
    let report = run("perfect broker", Transport::Mqtt, Faults::default());
    assert!(report.rows > 0);
    assert_eq!((report.gap_rows, report.repeated_blocks, report.duplicate_blocks), (0, 0, 0));
}

#[test]
fn a_broker_that_drops_and_repeats_loses_nothing_unsaid() {
    let faults = Faults { line_errors: true, ..Faults::default() };
    let report = run("bad broker", Transport::Mqtt, faults);
    assert!(report.duplicate_blocks > 0);
}

#[test]
fn everything_at_once_over_a_broker() {
    let faults = Faults { line_errors: true, cuts: true, crashes: true, holds: true, resets: true };
    let report = run("everything, broker", Transport::Mqtt, faults);
    assert!(report.boots > 1 && report.gap_rows > 0 && report.crashes > 0);
}
