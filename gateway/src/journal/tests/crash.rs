//! Crash-point enumeration: a journal that crashes at every call of a workload, in every way that is tried, and again.
//!
//! * In: workloads that follow from seeds (`life.rs`) over the memory double, observed at every call (`tap.rs`).
//! * Out: the number of distinct states that were judged (`oracle.rs`), or the path of one that breaks a promise.
//!
//! # Constraints
//!
//! A state costs some 50 to 100 microseconds, most of it recovery, so that the default run judges several hundred
//! thousand of them. The oracle knows what was submitted and what the watermark was; it never looks at a file. The
//! checker is checked: with each of the mistakes in `bugs.rs` built in, it must find a state that shows it.
//!
//! # Operation
//!
//! A state is what a disk holds after a power cut or a kill at one call, together with what was known then: it is counted
//! once per call and content (`explore.rs`). It is opened and judged. Some states live on, write, and crash at every call
//! in their turn; killed ones always crash in the recovery that follows. Damage to a journal that was closed is enumerated
//! beside that (`damage.rs`).
//!
//! # Failure
//!
//! A failure prints the state's path, and `FOREBAY_CRASH={path}` goes to it, with `FOREBAY_BUG={name}` built in if that
//! is set: `cargo test --release -p forebay-gateway --lib journal::tests::crash -- --nocapture`. `FOREBAY_SEED` gives what
//! is random, `FOREBAY_LONG=1` the full count.

mod damage;
mod explore;
mod life;
mod model;
mod names;
mod oracle;
mod tap;
mod tears;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use damage::Sample;
use explore::{Counts, Effort, Explorer, Failure, Path};
use life::EARLY_FROM;

use crate::journal::bugs::{Bug, seed};

const EFFORT: Effort = Effort { steps: 150, second: 80, third: 1000 };

/// Workloads that every run goes through, and those that a long one does.
const SEEDS: u64 = 2;
const SEEDS_LONG: u64 = 24;

/// A workload that needs the last room of its journal.
const FILLED: u64 = 16;

/// Random lives that do not crash.
const LIVES: u64 = 2_000;
const LIVES_LONG: u64 = 50_000;

/// Least numbers of distinct states.
const STATES_MIN: u64 = 100_000;
const STATES_MIN_LONG: u64 = 1_000_000;

/// Workloads whose closed journals are damaged: seed and steps. The first has a single segment.
const DAMAGED: [(u64, usize); 2] = [(0, 4), (3, 120)];
const DAMAGED_LONG: [(u64, usize); 5] = [(0, 4), (3, 120), (1, 150), (4, 200), (5, 60)];

const THREADS: usize = 2;

#[test]
fn nothing_acknowledged_is_lost_in_any_crash() {
    if let Ok(path) = env::var("FOREBAY_CRASH") {
        return replay(&path);
    }
    let random = random_seed();
    let seeds = if is_long() { SEEDS_LONG } else { SEEDS };
    // With early rows, too, whatever the random one is like.
    let seeds: BTreeSet<u64> = (0..seeds).chain([EARLY_FROM, EARLY_FROM + 1, random]).collect();
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let (counts, failures) = (Mutex::new(Counts::new()), Mutex::new(Vec::new()));
    on_threads(&seeds, |seed| {
        let mut explorer = Explorer::new(*seed, EFFORT);
        let failed = explorer.run().err();
        let mut sums = counts.lock().unwrap();
        explorer.counts.into_iter().for_each(|(kind, states)| *sums.entry(kind).or_default() += states);
        failures.lock().unwrap().extend(failed);
    });
    let counts = counts.into_inner().unwrap();
    counts.iter().for_each(|(kind, states)| println!("{states:>9} {kind}"));
    let states: u64 = counts.values().sum();
    println!("{states:>9} distinct states");
    none_of(&failures.into_inner().unwrap());
    assert!(states >= if is_long() { STATES_MIN_LONG } else { STATES_MIN });
}

/// Lives without a crash cost little, so there are many, and rows must be taken at the end of each.
#[test]
fn whatever_befell_a_journal_takes_rows_again_once_all_is_confirmed() {
    if env::var("FOREBAY_CRASH").is_ok() {
        return;
    }
    let random = random_seed();
    let lives = if is_long() { LIVES_LONG } else { LIVES };
    let seeds: Vec<u64> = (0..lives).map(|life| random.wrapping_add(life)).collect();
    let failures = Mutex::new(Vec::new());
    on_threads(&seeds, |seed| failures.lock().unwrap().extend(Explorer::new(*seed, EFFORT).live().err()));
    none_of(&failures.into_inner().unwrap());
}

#[test]
fn damage_to_a_closed_journal_costs_what_it_hits_and_is_named() {
    if env::var("FOREBAY_CRASH").is_ok() {
        return;
    }
    let samples: &[(u64, usize)] = if is_long() { &DAMAGED_LONG } else { &DAMAGED };
    on_threads(samples, |(seed, steps)| {
        let sample = Sample::new(*seed, *steps).unwrap();
        let tried = sample.try_all();
        println!("seed {seed}, {steps} steps: {}: {tried:?} damages", sample.describe());
        tried.unwrap();
    });
}

#[test]
fn each_seeded_bug_is_caught() {
    if env::var("FOREBAY_CRASH").is_ok() {
        return;
    }
    let escaped = Mutex::new(Vec::new());
    on_threads(&Bug::ALL, |bug| {
        let started = Instant::now();
        seed(Some(*bug));
        let caught = hunt(*bug);
        seed(None);
        match caught {
            Some((state, states, message)) => {
                println!(
                    "{bug:?}: {state}, after {states} states, {:.1?}: {message:.160}",
                    started.elapsed()
                );
            }
            None => escaped.lock().unwrap().push(*bug),
        }
    });
    assert_eq!(*escaped.lock().unwrap(), []);
}

/// Looks for a state that shows the bug that is switched on: its name, how many came before, and what is wrong.
fn hunt(bug: Bug) -> Option<(String, u64, String)> {
    // What is cheap comes first: lives that crash once, damage, and then everything.
    let shallow = |seed| (seed, Effort { second: u64::MAX, ..EFFORT });
    let deep = |seed| (seed, Effort { third: 6000, ..EFFORT });
    let mut states = 0;
    // But for those that are known to hide long, where they were found before.
    let before = match bug {
        Bug::PageCacheTrusted | Bug::TrimPastLetters | Bug::BeginWithWhatIsLeft => {
            crash(shallow(1), &mut states)
        }
        Bug::TrimWithoutSnapshots => crash(deep(1), &mut states),
        Bug::StopAtDamage => damage(DAMAGED[1], &mut states),
        Bug::SparesNotCounted | Bug::FixShownBeforeItIsDurable => crash(shallow(FILLED), &mut states),
        Bug::AppendBehindOldTail | Bug::SpareKeepsItsName | Bug::VoidForgotten => {
            crash(deep(EARLY_FROM + 1), &mut states)
        }
        _ => None,
    };
    before
        .or_else(|| crash(shallow(0), &mut states))
        .or_else(|| damage(DAMAGED[0], &mut states))
        .or_else(|| crash(shallow(EARLY_FROM), &mut states))
        .or_else(|| (1..SEEDS).find_map(|seed| crash(shallow(seed), &mut states)))
        .or_else(|| damage(DAMAGED[1], &mut states))
        .or_else(|| crash(shallow(FILLED), &mut states))
        // The one in which rows before the clock is believed meet most else, and then all.
        .or_else(|| crash(deep(EARLY_FROM + 1), &mut states))
        .or_else(|| (0..EARLY_FROM + 4).find_map(|seed| crash(deep(seed), &mut states)))
}

fn crash((seed, effort): (u64, Effort), states: &mut u64) -> Option<(String, u64, String)> {
    let mut explorer = Explorer::new(seed, effort);
    let failed = explorer.run().err();
    *states += explorer.counts.values().sum::<u64>();
    failed.map(|Failure { path, message }| (format!("FOREBAY_CRASH={path}"), *states, message))
}

fn damage((seed, steps): (u64, usize), states: &mut u64) -> Option<(String, u64, String)> {
    let tried = Sample::new(seed, steps).and_then(|sample| sample.try_all());
    *states += tried.as_ref().ok().copied().unwrap_or(0);
    tried.err().map(|message| (format!("damage to seed {seed}, {steps} steps"), *states, message))
}

/// Goes to the state of that name.
fn replay(path: &str) {
    let path: Path = path.parse().unwrap();
    if let Ok(name) = env::var("FOREBAY_BUG") {
        seed(Some(Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name).unwrap()));
    }
    let mut explorer = Explorer::new(path.seed, EFFORT);
    if let Err(Failure { path, message }) = explorer.replay(&path) {
        panic!("{path}: {message}");
    }
}

fn random_seed() -> u64 {
    let given = env::var("FOREBAY_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| getrandom::u64().unwrap());
    println!("FOREBAY_SEED={seed}");
    seed
}

fn none_of(failures: &[Failure]) {
    for Failure { path, message } in failures {
        println!("FOREBAY_CRASH={path}: {message}");
    }
    assert!(failures.is_empty(), "{} lives break a promise", failures.len());
}

fn is_long() -> bool {
    env::var("FOREBAY_LONG").is_ok_and(|long| long == "1")
}

/// Does something for each item, on [`THREADS`] threads.
fn on_threads<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}
