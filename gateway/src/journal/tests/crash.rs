//! Crash-point enumeration.

mod explore;
mod life;
mod model;
mod names;
mod oracle;
mod tap;
mod tears;

use std::time::Instant;

use explore::{Effort, Explorer, Path};

#[test]
fn nothing_acknowledged_is_lost_in_any_crash() {
    let effort = Effort { steps: 150, second: 40, third: 400 };
    if let Ok(path) = std::env::var("FOREBAY_CRASH") {
        let path: Path = path.parse().unwrap();
        let failed = Explorer::new(path.seed, effort).replay(&path).err();
        println!("{failed:?}");
        assert!(failed.is_none());
        return;
    }
    for seed in 0..6 {
        let started = Instant::now();
        let mut explorer = Explorer::new(seed, effort);
        let result = explorer.run();
        println!("seed {seed}: {:?} {:?}", explorer.counts, started.elapsed());
        if let Err(failure) = result {
            panic!("{}: {}", failure.path, failure.message);
        }
    }
}
