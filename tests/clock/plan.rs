//! One device's life: connected, cut off, connected again.

use std::collections::VecDeque;
use std::fmt;

use forebay_gateway::ingest::clock_map::{
    Anchor, ClockMap, Front, POINTS, Rate, SIGMAS, WINDOW, outage_bound_ns,
};
use forebay_gateway::ingest::exchange::Exchanges;
use forebay_shared::ids::Tick;
use forebay_tests::seed::Rng;

use super::device::DeviceClock;
use super::line::{Line, unit};

/// Step of virtual time while the line is live.
const STEP_S: f64 = 0.002;
/// How old the journaled anchor may become.
const ANCHOR_S: f64 = 60.0;
/// Rows that the gateway is handed in a step.
const ROWS_A_STEP: usize = 40;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) lasts_s: f64,
    pub(crate) restart: bool,
    /// A warm reset in it: after this part of the outage, and how long it takes.
    pub(crate) reset: Option<(f64, f64)>,
}

#[derive(Debug)]
pub(crate) struct Plan {
    line: Line,
    clock: DeviceClock,
    row_s: f64,
    live_s: f64,
    outages: Vec<Outage>,
}

/// What became of the rows.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) live: Vec<i64>,
    pub(crate) outage: Vec<i64>,
    /// Errors of rows behind an outage as parts of what they may be.
    pub(crate) of_bound: Vec<f64>,
    pub(crate) disorder: usize,
    pub(crate) outages: usize,
    pub(crate) restarts: usize,
    pub(crate) resets: usize,
}

/// Figures of many errors.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) rows: usize,
    pub p50_ns: i64,
    pub p99_ns: i64,
    pub(crate) max_ns: i64,
}

impl Plan {
    pub(crate) fn random(rng: &mut Rng, tick_hz: u32, line: Line) -> Plan {
        let drifts = rng.in_range(0..2) == 0;
        let outage = |rng: &mut Rng| {
            let lasts_s =
                [5.0, 120.0, 3_600.0, 86_400.0][rng.in_range(0..4) as usize] * (0.5 + unit(rng) / 2.0);
            let reset =
                (rng.in_range(0..4) == 0).then(|| (unit(rng), 0.1 + unit(rng) * lasts_s.min(600.0) / 4.0));
            Outage { lasts_s, restart: rng.in_range(0..2) == 0, reset }
        };
        Plan {
            line,
            clock: DeviceClock {
                tick_hz,
                ppm: [-500.0, 500.0, 1_000.0 * unit(rng) - 500.0][rng.in_range(0..3) as usize],
                swing_ppm: if drifts { 5.0 * unit(rng) } else { 0.0 },
                period_s: [3_600.0, 86_400.0][rng.in_range(0..2) as usize],
                resets: Vec::new(),
            },
            row_s: [0.01, 0.1, 1.0][rng.in_range(0..3) as usize],
            live_s: 120.0 + 300.0 * unit(rng),
            outages: (0..3).map(|_| outage(rng)).collect(),
        }
    }

    pub(crate) fn day_offline(rng: &mut Rng, ppm: f64, restart: bool) -> Plan {
        let outage = Outage { lasts_s: 86_400.0, restart, reset: None };
        let mut plan = Plan::random(rng, 1_000_000, Line::usb());
        (plan.clock.ppm, plan.clock.swing_ppm, plan.row_s) = (ppm, 0.0, 10.0);
        (plan.live_s, plan.outages) = (300.0, vec![outage]);
        plan
    }

    pub(crate) fn run(self, rng: &mut Rng) -> Errors {
        let mut life = Life::new(self);
        let (live_s, outages) = (life.plan.live_s, life.plan.outages.clone());
        life.live(rng, live_s, None);
        for outage in outages {
            life.cut(outage);
            life.live(rng, live_s, Some(outage));
        }
        life.errors
    }
}

/// A device, its line, and the gateway's side of it.
struct Life {
    plan: Plan,
    now_s: f64,
    next_row_s: f64,
    /// Rows that are not handed over: their ticks, and when they were sampled.
    ring: VecDeque<(u64, f64)>,
    map: ClockMap,
    front: Front,
    last_ns: i64,
    anchor: Option<(f64, Anchor, Known)>,
    resumed_at: Option<Tick>,
    /// Where the outage began, or at the anchor that a restarted gateway goes on from.
    known: Known,
    errors: Errors,
}

/// What the line stands on at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The quickest exchange, and how long before it was; after, if that is negative.
    round_trip_ns: i64,
    age_ns: i64,
    /// How well the rate is known.
    sigma_ppb: f64,
}

/// Rows of an outage: since when the line was cut, and what they may be off by.
struct Bound {
    from_s: f64,
    to_s: f64,
    ns: f64,
}

impl Life {
    fn new(plan: Plan) -> Life {
        let map = ClockMap::new(plan.clock.tick_hz, Rate::UNKNOWN);
        Life {
            now_s: 100.0,
            next_row_s: 101.0,
            ring: VecDeque::new(),
            map,
            front: Front::default(),
            last_ns: i64::MIN,
            anchor: None,
            resumed_at: None,
            known: Known::default(),
            errors: Errors::default(),
            plan,
        }
    }

    fn sample(&mut self) {
        while self.next_row_s <= self.now_s {
            if !self.plan.clock.stands_still(self.next_row_s) {
                let tick = self.plan.clock.tick(self.next_row_s);
                self.ring.push_back((tick, self.next_row_s));
            }
            self.next_row_s += self.plan.row_s;
        }
    }

    /// What the line stands on at a moment.
    fn known_at(&self, at_s: f64) -> Known {
        let quickest = self.map.quickest().expect("there was a burst");
        Known {
            round_trip_ns: quickest.round_trip_ns,
            age_ns: (at_s * 1e9) as i64 - quickest.ns,
            sigma_ppb: self.map.rate().sigma_ppb,
        }
    }

    fn cut(&mut self, outage: Outage) {
        self.errors.outages += 1;
        self.known = self.known_at(self.now_s);
        if let Some((part, takes_s)) = outage.reset {
            self.errors.resets += 1;
            let from_s = self.now_s + 1.0 + part * (outage.lasts_s - takes_s - 2.0).max(0.0);
            let to_s = from_s + takes_s;
            self.plan.clock.reset(from_s, to_s);
            self.resumed_at = self.plan.clock.resets.last().map(|reset| Tick(reset.resumed_at));
        }
        let slow_s = self.plan.row_s.max(outage.lasts_s / 10_000.0);
        let usual_s = std::mem::replace(&mut self.plan.row_s, slow_s);
        self.now_s += outage.lasts_s;
        self.sample();
        self.plan.row_s = usual_s;
        if outage.restart {
            self.errors.restarts += 1;
            let (_, anchor, known) = self.anchor.expect("rows were dated");
            self.known = known;
            self.map = ClockMap::restore(self.plan.clock.tick_hz, anchor);
            self.front = Front::at(self.last_ns);
        }
    }

    /// What rows of an outage may be off by that ended at `to_s`, now that the burst is over.
    fn bound(&self, outage: Outage, to_s: f64) -> Bound {
        let from_s = to_s - outage.lasts_s;
        // The last exchange may lie before the outage, and the anchor before that.
        let since_s = if outage.restart { from_s - ANCHOR_S - self.plan.row_s } else { from_s } - 20.0;
        let tick_ns = 1e9 / f64::from(self.plan.clock.tick_hz);
        let outage_ns = ((to_s - since_s) * 1e9) as i64;
        let variation_ppb = self.plan.clock.variation_ppb(since_s - 600.0, to_s);
        let of_end = |Known { round_trip_ns, age_ns, sigma_ppb }: Known| {
            outage_bound_ns(outage_ns, variation_ppb, (round_trip_ns, age_ns.abs()), sigma_ppb)
        };
        let mut ns = of_end(self.known).max(of_end(self.known_at(to_s))) + tick_ns / 2.0;
        if outage.reset.is_some() {
            // The rate is what it was known as.
            ns += outage_ns as f64 * (variation_ppb + SIGMAS * self.known.sigma_ppb) * 1e-9;
        }
        Bound { from_s: since_s, to_s, ns }
    }

    fn live(&mut self, rng: &mut Rng, lasts_s: f64, outage: Option<Outage>) {
        let (began_s, mut bound) = (self.now_s, None);
        let mut exchanges = Exchanges::new(rng.next_u64() as u32);
        let mut answers: VecDeque<(f64, u32, Tick)> = VecDeque::new();
        self.map.handle_connected(self.resumed_at);
        let until_s = self.now_s + lasts_s;
        while self.now_s < until_s {
            self.now_s += STEP_S;
            self.sample();
            // Exchanges happen between steps; only their order is that of the steps.
            while let Some((_, token, tick)) = answers.front().copied().filter(|(at, ..)| *at <= self.now_s) {
                let (at_s, ..) = answers.pop_front().expect("there is one");
                let exchange = exchanges.handle_reply((at_s * 1e3) as u64, (at_s * 1e9) as i64, token, tick);
                if let Some(exchange) = exchange {
                    self.map.handle_exchange(exchange);
                    exchanges.set_pace((at_s * 1e3) as u64, self.map.rate().sigma_ppb);
                }
            }
            if let Some(token) = exchanges.poll_request((self.now_s * 1e3) as u64, (self.now_s * 1e9) as i64)
                && let Some((down_s, up_s)) = self.plan.line.exchange(rng, exchanges.burst_is_over())
            {
                let tick = Tick(self.plan.clock.tick(self.now_s + down_s));
                answers.push_back((self.now_s + down_s + up_s, token, tick));
            }
            if exchanges.burst_is_over() {
                let bound = bound.get_or_insert_with(|| outage.map(|outage| self.bound(outage, began_s)));
                self.hand_over(bound.as_ref());
            }
        }
    }

    /// Dates rows as the gateway does.
    fn hand_over(&mut self, bound: Option<&Bound>) {
        for _ in 0..ROWS_A_STEP {
            let Some((tick, sampled_s)) = self.ring.pop_front() else { return };
            let ns = self.map.date(self.front, Tick(tick));
            self.errors.disorder +=
                usize::from(ns < self.last_ns || ns == self.last_ns && self.front.tick() != Some(Tick(tick)));
            self.front.advance(Tick(tick), ns);
            self.map.forget_before(Tick(tick));
            self.last_ns = ns;
            if self.anchor.is_none_or(|(at_s, ..)| self.now_s - at_s >= ANCHOR_S) {
                self.anchor = Some((self.now_s, self.map.anchor(Tick(tick)), self.known_at(self.now_s)));
            }
            let (window, points) = self.map.size();
            assert!(window <= WINDOW && points <= POINTS);
            let error = ns - (self.plan.clock.truth_s(tick) * 1e9) as i64;
            match bound.filter(|bound| (bound.from_s..=bound.to_s).contains(&sampled_s)) {
                Some(bound) => {
                    self.errors.outage.push(error.abs());
                    self.errors.of_bound.push(error.abs() as f64 / bound.ns);
                }
                None => self.errors.live.push(error.abs()),
            }
        }
    }
}

impl Errors {
    pub(crate) fn add(&mut self, other: Errors) {
        self.live.extend(other.live);
        self.outage.extend(other.outage);
        self.of_bound.extend(other.of_bound);
        self.disorder += other.disorder;
        self.outages += other.outages;
        self.restarts += other.restarts;
        self.resets += other.resets;
    }
}

impl Summary {
    pub(crate) fn of(errors: &[i64]) -> Summary {
        let mut sorted = errors.to_vec();
        sorted.sort_unstable();
        let at = |part: f64| sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or(0);
        Summary {
            rows: sorted.len(),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            max_ns: sorted.last().copied().unwrap_or(0),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: i64| ns as f64 / 1e6;
        let (p50, p99, max) = (ms(self.p50_ns), ms(self.p99_ns), ms(self.max_ns));
        write!(f, "{} rows, p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms", self.rows)
    }
}
