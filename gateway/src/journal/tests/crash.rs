//! Crash-point enumeration.

mod damage;
mod explore;
mod life;
mod model;
mod names;
mod oracle;
mod tap;
mod tears;

use std::time::Instant;

use super::super::bugs::{Bug, seed};
use explore::{Effort, Explorer, Path};

const EFFORT: Effort = Effort { steps: 150, second: 40, third: 400 };

#[test]
fn nothing_acknowledged_is_lost_in_any_crash() {
    if let Ok(path) = std::env::var("FOREBAY_CRASH") {
        let path: Path = path.parse().unwrap();
        let failed = Explorer::new(path.seed, EFFORT).replay(&path).err();
        println!("{failed:?}");
        assert!(failed.is_none());
        return;
    }
    for seed in 0..6 {
        let started = Instant::now();
        let mut explorer = Explorer::new(seed, EFFORT);
        let result = explorer.run();
        println!("seed {seed}: {:?} {:?}", explorer.counts, started.elapsed());
        if let Err(failure) = result {
            panic!("{}: {}", failure.path, failure.message);
        }
    }
}

#[test]
fn each_seeded_bug_is_caught() {
    for bug in Bug::ALL {
        seed(Some(bug));
        let started = Instant::now();
        let mut states = 0;
        let caught = (0..3).find_map(|number| {
            let mut explorer = Explorer::new(number, EFFORT);
            let failure = explorer.run().err();
            states += explorer.counts.values().sum::<u64>();
            failure
        });
        seed(None);
        match caught {
            Some(failure) => {
                println!(
                    "{bug:?}: {} after {states} states, {:?}: {:.200}",
                    failure.path,
                    started.elapsed(),
                    failure.message
                );
            }
            None => println!("{bug:?}: NOT CAUGHT in {states} states, {:?}", started.elapsed()),
        }
    }
}

#[test]
fn damage_costs_what_it_hits() {
    for (seed, steps) in [(0, 4), (0, 120), (1, 150), (2, 150), (3, 150), (4, 200), (5, 60)] {
        let started = Instant::now();
        let sample = damage::Sample::new(seed, steps).unwrap();
        println!(
            "{seed}, {steps}: {}: {:.300?} {:?}",
            sample.describe(),
            sample.try_all(),
            started.elapsed()
        );
    }
}
