//! The real device against the gateway's real half of the link, on a virtual clock and over a line or a broker that
//! loses, damages, delays and repeats, while gateways are killed and move to empty disks, devices restart, and rings
//! overflow.
//!
//! Each plan follows from one number. Judged at its end, for each boot: what the gateway made durable is one unbroken
//! sequence of rows, gaps and undecodable blocks; each row is the one that was sampled; each row in a gap has made room
//! in a full ring; nothing is released before it is durable; and soon after the last fault everything sampled is
//! released. Two devices with one name are no matter of the link, which knows a device by its chip: that is tested where
//! names are given, in the gateway's `ingest`.
//!
//! `FOREBAY_SEED=n cargo test --release -p forebay-firmware --test link_pair` goes through plan n alone and tells what
//! happens; `FOREBAY_LONG=1` goes through ten times as many plans.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use std::cell::Cell;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Plan, RESUME_MS_MAX, Report, Seeded, Situation, World};

use forebay_shared::link::Transport;

/// Plans in a short run, and in a long one; a seeded bug is caught within a short run.
const PLANS: u64 = 1000;
const PLANS_LONG: u64 = 10_000;

/// Rows on average in a plan.
const ROWS_A_PLAN: u64 = 1000;

fn plans() -> Range<u64> {
    match std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None if std::env::var("FOREBAY_LONG").is_ok_and(|long| long == "1") => 1..1 + PLANS_LONG,
        None => 1..1 + PLANS,
    }
}

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Goes through a plan. What it finds wrong is an error.
fn go_through(plan: Plan, seeded: Option<Seeded>, told: bool) -> Result<Report, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                loud(info);
            }
        }));
    });
    SILENT.set(!told);
    let world = AssertUnwindSafe(World::new(plan, seeded, told));
    let result = panic::catch_unwind(|| { world }.0.run());
    SILENT.set(false);
    Seeded::seed(None);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a word").to_owned()
    })
}

/// Does `work` with the numbers of the plans, in as many threads as there are processors.
fn each<T: Send>(numbers: Range<u64>, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(numbers.start);
    let thread = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return done;
            }
            done.push(work(number));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_row_is_handed_up_once_or_declared_lost() {
    let plans = plans();
    println!("link pair: plans {plans:?}");
    let count = plans.end - plans.start;
    let results = each(plans, |seed| {
        go_through(Plan::new(seed), None, count == 1)
            .map_err(|found| format!("plan {seed}: {found}\nFOREBAY_SEED={seed} goes through it alone"))
    });
    let mut total = Report::default();
    for result in results {
        match result {
            Ok(report) => total.add(&report),
            Err(found) => panic!("{found}"),
        }
    }
    println!("{total}");
    if count == 1 {
        return;
    }
    assert!(total.rows + total.gap_rows >= ROWS_A_PLAN * count);
    for situation in Situation::ALL {
        assert!(total.count(situation) >= 100, "{situation:?} came {} times", total.count(situation));
    }
    assert!(total.resume.longest_ms <= RESUME_MS_MAX, "{}", total.resume);
}

#[test]
fn every_seeded_bug_is_caught() {
    let count = Seeded::ALL.len() as u64;
    let mut caught = each(0..count, |number| {
        let bug = Seeded::ALL[number as usize];
        let found =
            (1..=PLANS).find_map(|seed| Some((seed, go_through(Plan::new(seed), Some(bug), false).err()?)));
        (number, bug, found)
    });
    caught.sort_by_key(|(number, _, _)| *number);
    for (_, bug, found) in &caught {
        match found {
            Some((plan, found)) => {
                println!("{bug:?}: plan {plan}: {}", found.lines().next().unwrap_or_default());
            }
            None => println!("{bug:?}: not caught in {PLANS} plans"),
        }
    }
    assert!(caught.iter().all(|(_, _, found)| found.is_some()), "a bug was not caught");
}

#[test]
fn a_perfect_line_repeats_nothing() {
    for transport in [Transport::Serial, Transport::Mqtt] {
        let report = go_through(Plan::calm(1, transport), None, false).unwrap();
        assert!(report.rows > 1000);
        assert_eq!((report.gap_rows, report.repeated_blocks, report.duplicate_blocks), (0, 0, 0));
    }
}
