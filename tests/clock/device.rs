//! A device's clock, of which the truth is known: how far it is off, and where each of its ticks lies.

use std::f64::consts::TAU;

/// A clock that is off by `ppm`, and by up to `swing_ppm` more or less as the temperature goes up and down.
#[derive(Clone, Debug)]
pub(crate) struct DeviceClock {
    pub(crate) tick_hz: u32,
    pub(crate) ppm: f64,
    pub(crate) swing_ppm: f64,
    pub(crate) period_s: f64,
    /// Warm resets.
    pub(crate) resets: Vec<Reset>,
}

/// The count stands still from one true moment to another, and goes on with the next tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reset {
    pub(crate) from_s: f64,
    pub(crate) to_s: f64,
    pub(crate) resumed_at: u64,
}

impl DeviceClock {
    /// Seconds that the clock counts up to a true moment, had it never stood still.
    fn counted_s(&self, at_s: f64) -> f64 {
        let swing = self.swing_ppm * self.period_s / TAU * (1.0 - (TAU * at_s / self.period_s).cos());
        at_s + (self.ppm * at_s + swing) * 1e-6
    }

    /// How far the clock is off, in ns per second, at a true moment.
    pub(crate) fn rate_ppb(&self, at_s: f64) -> f64 {
        1e3 * (self.ppm + self.swing_ppm * (TAU * at_s / self.period_s).sin())
    }

    /// Largest less smallest rate between two moments, in ns per second.
    pub(crate) fn variation_ppb(&self, from_s: f64, to_s: f64) -> f64 {
        let rates = (0..=200).map(|n| self.rate_ppb(from_s + (to_s - from_s) * f64::from(n) / 200.0));
        let (low, high) = rates.fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(r), high.max(r)));
        high - low
    }

    /// The count stands still from one moment to another.
    pub(crate) fn reset(&mut self, from_s: f64, to_s: f64) {
        let resumed_at = self.tick(from_s) + 1;
        self.resets.push(Reset { from_s, to_s, resumed_at });
    }

    /// Whether there is no count at a true moment.
    pub(crate) fn stands_still(&self, at_s: f64) -> bool {
        self.resets.iter().any(|reset| (reset.from_s..reset.to_s).contains(&at_s))
    }

    /// What the device's counter reads at a true moment at which it counts.
    pub(crate) fn tick(&self, at_s: f64) -> u64 {
        let (from_s, resumed_at) = self.since(|reset| reset.to_s <= at_s);
        resumed_at + ((self.counted_s(at_s) - from_s) * f64::from(self.tick_hz)).floor() as u64
    }

    /// The true moment at which a tick begins, in seconds.
    pub(crate) fn truth_s(&self, tick: u64) -> f64 {
        let (from_s, resumed_at) = self.since(|reset| reset.resumed_at <= tick);
        self.inverse(from_s + (tick - resumed_at) as f64 / f64::from(self.tick_hz))
    }

    /// The last reset that is over: what was counted then without any, and the tick.
    fn since(&self, is_over: impl Fn(&Reset) -> bool) -> (f64, u64) {
        let last = self.resets.iter().rfind(|reset| is_over(reset));
        last.map_or((0.0, 0), |reset| (self.counted_s(reset.to_s), reset.resumed_at))
    }

    fn inverse(&self, counted_s: f64) -> f64 {
        let mut at_s = counted_s;
        for _ in 0..6 {
            at_s -= (self.counted_s(at_s) - counted_s) / (1.0 + self.rate_ppb(at_s) * 1e-9);
        }
        at_s
    }
}
