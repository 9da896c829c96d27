//! Timestamps of devices against a virtual truth.
//!
//! Devices with clocks that are off by up to 500 ppm, and change with the temperature, count 1,000 or 1,000,000 ticks a
//! second. They sample rows, and talk to the gateway's clock map over lines with jitter, asymmetric delays and blocks in
//! the way; lines are cut for up to 24 hours, the gateway restarts meanwhile, devices have warm resets. All of it in
//! virtual time, from one printed seed.

mod clock {
    pub(crate) mod device;
    pub(crate) mod line;
    pub(crate) mod plan;
}

use clock::line::Line;
use clock::plan::{Errors, Plan, Summary};
use forebay_tests::seed::{Rng, long};

fn plans(rng: &mut Rng, line: &Line) -> Errors {
    let mut all = Errors::default();
    for tick_hz in [1_000, 1_000_000] {
        // With 20, the percentile of the same code differs by a fifth from one seed to the other.
        for _ in 0..if long() { 200 } else { 50 } {
            all.add(Plan::random(rng, tick_hz, line.clone()).run(rng));
        }
    }
    all
}

#[test]
fn rows_are_dated_within_a_millisecond_and_within_the_bound_behind_an_outage() {
    let mut rng = Rng::announced("timestamps").unwrap();
    for line in [Line::usb(), Line::uart(), Line::busy_uart(), Line::mqtt()] {
        let errors = plans(&mut rng, &line);
        let (live, outage) = (Summary::of(&errors.live), Summary::of(&errors.outage));
        let worst = errors.of_bound.iter().copied().fold(0.0, f64::max);
        println!(
            "{:9} live: {live}; behind an outage: {outage}, at most {worst:.2} of the bound; \
             {} outages, {} of them with a restart of the gateway, {} with a reset; {} rows out of order",
            line.name, errors.outages, errors.restarts, errors.resets, errors.disorder
        );
        assert!(live.p99_ns <= line.live_ns, "{}: p99 is {} ns", line.name, live.p99_ns);
        assert!(worst <= 1.0, "{}: the bound is exceeded {worst} times", line.name);
        assert_eq!(errors.disorder, 0, "{}: time went backward", line.name);
        assert!(errors.outages > 10 && errors.restarts > 3 && errors.resets > 3, "{}: too little", line.name);
    }
}

#[test]
fn a_day_offline_at_a_constant_rate_costs_nothing() {
    let mut rng = Rng::announced("a day offline").unwrap();
    for ppm in [-500.0, -20.0, 500.0] {
        for restart in [false, true] {
            let errors = Plan::day_offline(&mut rng, ppm, restart).run(&mut rng);
            let outage = Summary::of(&errors.outage);
            println!("24 h offline at {ppm} ppm, restart {restart}: {outage}");
            assert!(outage.max_ns <= 1_000_000 && outage.rows > 8_000, "{outage}");
        }
    }
}
