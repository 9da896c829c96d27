//! Where the ticks of one boot of a device lie in time.
//!
//! *In:* exchanges, connections, warm resets. *Out:* nanoseconds of ticks. *Next:* `source/native/device.rs` dates rows.
//!
//! Constraints: no IO, no clock, and bounded memory: [`WINDOW`] exchanges and [`POINTS`] points. All times are of a clock
//! that never steps (`clock.rs`); what it reads in nanoseconds since 1970 is added when rows are taken in.
//!
//! Operation: the map is a line of *points*, and rows between two of them are interpolated. A point is not an
//! exchange, but what the latest exchanges of the present connection say together: a straight line through them, in
//! which an exchange counts less the longer its round trip was beyond the shortest one, and which leans on the rate that was
//! known before. Behind the last point that rate goes on. So an outage is nothing but a long way between two points.
//!
//! | situation | what the map does |
//! |---|---|
//! | first connection of a boot | goes backward from its first point, by the rate known of the chip or the nominal one |
//! | outage | interpolates between the last point before and the first one after |
//! | outage with a warm reset in it | goes forward to the reset and backward to it; the clock stood still in between |
//! | outage with several of them | the same by the last one; rows before it are too early by what the others took |
//! | …but that would overlap | interpolates: the clock cannot have stood still for less than no time |
//! | outage that no clock explains | the device is believed from the latest exchange on, and everything in between goes backward from there |
//! | a count that is lower than before | all points are forgotten; the device counts anew |
//! | more points than there is room for | the one that the line misses least goes |
//!
//! What has been dated stays. A correction backward makes time go slower for a while (by an eighth, [`Front`]), never
//! stand still.
//!
//! Error: on a live line half of the asymmetry of the quickest exchanges, and the drift between two of them. For rows of an
//! outage of length *T* in which the rate of the device's clock varied by *r* (largest less smallest), [`outage_bound_ns`]:
//! half a round trip and [`SIGMAS`] *σ* at the ends, and *T·r/4* in the middle. The line passes the quickest exchange, which
//! is off by at most half of its round trip, as closely as the best exchange is believed; it may be minutes old when the
//! outage begins, or come seconds after its end, and what the rate is not known by leads the line away from it for as
//! long: *σ* is the root of both squares. The worse of the ends counts. In between, a rate that is *r/2* too high for half
//! of the outage and as much too low for the rest leads farthest astray; a constant one, whatever it is, costs nothing. If
//! the gateway's own clock is not known yet when the device comes back, or a reset lies in the outage, *r* is the error of
//! the rate that was known, and counts in full.

use std::collections::VecDeque;

use forebay_shared::ids::Tick;

use fit::Fit;

use super::exchange::Exchange;

mod fit;

/// Exchanges of the present connection that make the line.
pub const WINDOW: usize = 32;

/// Points that are kept.
pub const POINTS: usize = 32;

/// Distance of points in nanoseconds; exchanges that follow closer make the last point better.
const SPACING_NS: i64 = 900_000_000;

/// What a clock may be off by, in ns per second: twice what the worst of crystals and resonators are.
const RATE_PPB_MAX: f64 = 1_000_000.0;

/// What is assumed of a clock of which nothing is known, one standard deviation.
const RATE_PPB_UNKNOWN: f64 = 500_000.0;

/// How well a rate is known at best from one connection to the next, and how much worse with each second.
const RATE_PPB_KNOWN: f64 = 1_000.0;
const WANDER_PPB_PER_S: f64 = 10.0;

/// What an exchange is off by at least, and how much more with each second of its age.
const EXCHANGE_NS: f64 = 50_000.0;
const AGE_NS_PER_S: f64 = 1_000.0;

/// What part of its lateness an exchange is off by, beyond what all late ones have in common.
const LATE: f64 = 0.2;

/// How many standard deviations an error is taken to be at most; of normal errors one in 1.7 million is larger.
pub const SIGMAS: f64 = 5.0;

/// What two points may be off by together before a rate is blamed.
const SLACK_NS: f64 = 50_000_000.0;

/// A correction backward that is larger is a step of a clock between two lives of the gateway, and is followed.
const STEP_NS: i64 = 10_000_000_000;

const NS_PER_S: f64 = 1e9;

/// Fraction bits of a slope.
const SLOPE_BITS: u32 = 32;

/// How far a device's clock is off the gateway's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Nanoseconds that a nominal second of the device takes beyond a second.
    pub ppb: f64,
    /// How well that is known, one standard deviation.
    pub sigma_ppb: f64,
}

/// What outlives a connection and a life of the gateway: a point at or before every row that is not dated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// A tick, and where it lies.
    pub tick: Tick,
    /// Nanoseconds of the tick.
    pub ns: i64,
    /// How the clock goes on from there.
    pub rate: Rate,
}

/// How far rows are dated; time goes on from there, by an eighth slower if it has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front {
    last: Option<(Option<Tick>, i64)>,
}

/// The map of one boot. See the [module](self).
#[derive(Clone, Debug)]
pub struct ClockMap {
    tick_hz: u32,
    points: VecDeque<Point>,
    window: VecDeque<Exchange>,
    /// The rate as it was known when the connection began, or from exchanges that are forgotten, and since when.
    before: Rate,
    before_ns: i64,
    /// Exchanges of the connection that were forgotten.
    forgotten: usize,
    rate: Rate,
    /// Until its second point: how the connection is joined to what was before.
    joint: Option<Joint>,
}

/// A point, and the slope behind it, in ns per tick with [`SLOPE_BITS`] fraction bits.
#[derive(Clone, Copy, Debug)]
struct Point {
    tick: u64,
    ns: i64,
    slope: u64,
}

#[derive(Clone, Copy, Debug)]
struct Joint {
    /// The last point of the connection before.
    last: Option<Point>,
    resumed_at: Option<Tick>,
}

impl Rate {
    /// Nothing is known.
    pub const UNKNOWN: Rate = Rate { ppb: 0.0, sigma_ppb: RATE_PPB_UNKNOWN };

    fn bounded(self) -> Rate {
        let sigma_ppb = if self.sigma_ppb.is_finite() { self.sigma_ppb } else { RATE_PPB_UNKNOWN };
        Rate {
            ppb: if self.ppb.is_finite() { self.ppb.clamp(-RATE_PPB_MAX, RATE_PPB_MAX) } else { 0.0 },
            sigma_ppb: sigma_ppb.clamp(RATE_PPB_KNOWN, RATE_PPB_UNKNOWN),
        }
    }
}

/// What rows of an outage may be off by: its length, the variation of the rate in it, and of the worse of its ends the
/// round trip of the quickest exchange, how far that is from the end, and how well the rate is known there.
#[must_use]
pub fn outage_bound_ns(
    outage_ns: i64,
    variation_ppb: f64,
    (round_trip_ns, age_ns): (i64, i64),
    sigma_ppb: f64,
) -> f64 {
    let drift_ns = age_ns as f64 / NS_PER_S * sigma_ppb;
    round_trip_ns as f64 / 2.0
        + SIGMAS * EXCHANGE_NS.hypot(drift_ns)
        + outage_ns as f64 / NS_PER_S * variation_ppb / 4.0
}

impl ClockMap {
    /// The map of a boot of which nothing is known but perhaps the rate of the chip.
    #[must_use]
    pub fn new(tick_hz: u32, rate: Rate) -> ClockMap {
        let rate = rate.bounded();
        ClockMap {
            tick_hz: tick_hz.max(1),
            points: VecDeque::new(),
            window: VecDeque::new(),
            before: rate,
            before_ns: 0,
            forgotten: 0,
            rate,
            joint: None,
        }
    }

    /// The map of a boot as an earlier life of the gateway left it.
    #[must_use]
    pub fn restore(tick_hz: u32, anchor: Anchor) -> ClockMap {
        let mut map = ClockMap::new(tick_hz, anchor.rate);
        let slope = map.slope(map.rate.ppb);
        map.points.push_back(Point { tick: anchor.tick.0, ns: anchor.ns, slope });
        map
    }

    /// A connection begins; no tick is known in it. `resumed_at` is where the device took its count up again after its
    /// last warm reset.
    pub fn handle_connected(&mut self, resumed_at: Option<Tick>) {
        self.window.clear();
        self.before = self.rate;
        self.joint = Some(Joint { last: self.points.back().copied(), resumed_at });
    }

    /// An exchange of the present connection. One that was overtaken by a later one tells nothing new.
    pub fn handle_exchange(&mut self, exchange: Exchange) {
        if self.window.back().is_some_and(|last| exchange.tick < last.tick) {
            return;
        }
        let first = self.window.is_empty();
        if self.window.len() >= WINDOW {
            self.forget_exchange(exchange);
        }
        if first {
            self.before_ns = exchange.ns;
        }
        self.window.push_back(exchange);
        let ns = self.fit(exchange);
        let point = Point { tick: exchange.tick.0, ns, slope: self.slope(self.rate.ppb) };
        let last = self.points.back().copied().filter(|_| !first);
        // Requests that were held up together are answered together, whatever lies between their sending.
        let is_close = last.is_some_and(|last| {
            let passed_ns = point.tick.saturating_sub(last.tick) as f64 * self.tick_ns();
            ns.saturating_sub(last.ns) < SPACING_NS || passed_ns < SPACING_NS as f64
        });
        match (self.joint, last) {
            (Some(joint), None) => self.join(joint, point),
            (Some(joint), Some(last)) => {
                // However much later this exchange is: by itself the first may have been a slow one.
                self.join(joint, self.moved(point, last.tick));
                if !is_close {
                    self.joint = None;
                    self.push(point);
                }
            }
            (None, Some(last)) if is_close => self.replace_last(self.moved(point, last.tick)),
            (None, _) => self.push(point),
        }
    }

    /// Whether a tick of the present connection is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.window.is_empty()
    }

    /// The quickest of the latest exchanges.
    #[must_use]
    pub fn quickest(&self) -> Option<Exchange> {
        self.window.iter().min_by_key(|exchange| exchange.round_trip_ns).copied()
    }

    /// Its round trip.
    #[must_use]
    pub fn round_trip_ns(&self) -> Option<i64> {
        self.quickest().map(|exchange| exchange.round_trip_ns)
    }

    /// How the device's clock goes at present.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Where a tick lies in time, whatever was dated before.
    #[must_use]
    pub fn ns(&self, tick: Tick) -> i64 {
        let before = self.points.iter().rev().find(|point| point.tick <= tick.0);
        match (before, self.points.front()) {
            (Some(point), _) => point.ns.saturating_add(span(point.slope, point.tick, tick.0)),
            // What lies between two points is no rate to go backward by.
            (None, Some(first)) => {
                first.ns.saturating_add(span(self.slope(self.rate.ppb), first.tick, tick.0))
            }
            (None, None) => 0,
        }
    }

    /// The time of a row sampled at `tick`, given what was dated before it.
    #[must_use]
    pub fn date(&self, front: Front, tick: Tick) -> i64 {
        let ns = self.ns(tick);
        let Some((at, last)) = front.last else { return ns };
        if let Some(at) = at.filter(|at| tick < *at) {
            // Sampled before a row that is dated already: as far beside the map as that one is.
            return ns.saturating_add(last.saturating_sub(self.ns(at)).clamp(0, STEP_NS));
        }
        let nominal = self.slope(0.0);
        let passed = at.map_or(0, |at| span(nominal - nominal / 8, at.0, tick.0.max(at.0)));
        let earliest = last.saturating_add(passed);
        if earliest.saturating_sub(ns) > STEP_NS { ns } else { ns.max(earliest) }
    }

    /// All rows before `tick` are dated: what lies before it is not needed any more.
    pub fn forget_before(&mut self, tick: Tick) {
        while self.points.get(1).is_some_and(|second| second.tick <= tick.0) {
            self.points.pop_front();
        }
    }

    /// What a later life of the gateway goes on from, if all rows before `tick` are dated.
    #[must_use]
    pub fn anchor(&self, tick: Tick) -> Anchor {
        Anchor { tick, ns: self.ns(tick), rate: self.rate }
    }

    /// Memory in use: exchanges and points.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.window.len(), self.points.len())
    }

    /// Drops the exchange that says least, and keeps what all of them say of the rate.
    fn forget_exchange(&mut self, latest: Exchange) {
        let shortest = self.round_trip_ns().unwrap_or(0);
        let says = |at: usize| variance(&self.window[at], shortest, latest.ns);
        if let Some(at) = (0..self.window.len()).max_by(|&a, &b| says(a).total_cmp(&says(b))) {
            self.window.remove(at);
        }
        self.forgotten += 1;
        if self.forgotten.is_multiple_of(WINDOW / 2) {
            // Half of what this stands on will be counted again.
            self.before = Rate { sigma_ppb: 2.0 * self.rate.sigma_ppb, ..self.rate }.bounded();
            self.before_ns = latest.ns;
        }
    }

    /// Lays a line through the window, leaning on the rate known before; sets the rate, and returns where the latest
    /// exchange lies on the line.
    fn fit(&mut self, latest: Exchange) -> i64 {
        let tick_ns = NS_PER_S / f64::from(self.tick_hz);
        let shortest = self.round_trip_ns().unwrap_or(0);
        let since = latest.ns.saturating_sub(self.before_ns);
        let sigma = self.before.sigma_ppb + WANDER_PPB_PER_S * since as f64 / NS_PER_S;
        let mut fit = Fit::new(self.before.ppb, sigma.min(RATE_PPB_UNKNOWN));
        for exchange in &self.window {
            let x = -((latest.tick.0 - exchange.tick.0) as f64) / f64::from(self.tick_hz);
            let y = (exchange.ns - latest.ns) as f64 - x * NS_PER_S;
            let late = (exchange.round_trip_ns - shortest) as f64;
            fit.add(x, late, y, tick_ns.powi(2) / 12.0 + variance(exchange, shortest, latest.ns));
        }
        let (offset, rate) = fit.solve();
        self.rate = rate.bounded();
        // The device read its tick in the middle of it, on average; the tick began half a tick before.
        latest.ns.saturating_add((offset - tick_ns / 2.0).round() as i64)
    }

    /// Puts the connection's first point behind the last one of the connection before.
    fn join(&mut self, joint: Joint, point: Point) {
        let Some(last) = joint.last.filter(|last| last.tick < point.tick) else {
            self.points.clear();
            self.points.push_back(point);
            return;
        };
        while self.points.pop_back_if(|known| known.tick > last.tick).is_some() {}
        let passed_ns = (point.ns - last.ns) as f64;
        let nominal_ns = (point.tick - last.tick) as f64 * self.tick_ns();
        let ppb = (passed_ns / nominal_ns - 1.0) * NS_PER_S;
        let explained = (ppb.abs() - RATE_PPB_MAX) * nominal_ns / NS_PER_S <= SLACK_NS;
        let slope = self.slope(self.before.ppb);
        let backward = |tick: u64| point.ns.saturating_add(span(slope, point.tick, tick));
        let reset = joint.resumed_at.filter(|at| last.tick < at.0 && at.0 <= point.tick);
        let forward = |at: Tick| last.ns.saturating_add(span(slope, last.tick, at.0));
        match reset {
            Some(at) if forward(at) <= backward(at.0) => {
                if let Some(last) = self.points.back_mut() {
                    last.slope = slope;
                }
                self.push_apart(Point { tick: at.0, ns: backward(at.0), slope });
                self.push_apart(point);
            }
            _ if !explained => {
                self.push_apart(Point { tick: last.tick + 1, ns: backward(last.tick + 1), slope });
                self.push_apart(point);
            }
            _ => {
                self.push(point);
                let round_trip_ns = self.round_trip_ns().unwrap_or(0) as f64;
                let sigma_ns = SLACK_NS / 10.0 + round_trip_ns / 2.0;
                self.learn(Rate { ppb, sigma_ppb: sigma_ns / nominal_ns * NS_PER_S }, nominal_ns);
            }
        }
    }

    /// A long way between two points tells the rate better than a connection can.
    fn learn(&mut self, rate: Rate, over_ns: f64) {
        let wandered = WANDER_PPB_PER_S * (over_ns / NS_PER_S).sqrt();
        let sigma_ppb = rate.sigma_ppb + wandered;
        if sigma_ppb < self.before.sigma_ppb {
            self.before = Rate { ppb: rate.ppb, sigma_ppb }.bounded();
        }
    }

    /// Appends a point; the line goes straight to it.
    fn push(&mut self, point: Point) {
        if let Some(last) = self.points.back_mut() {
            last.slope = slope_between(*last, point).unwrap_or(last.slope);
        }
        self.push_apart(point);
    }

    /// Appends a point that the line does not go to.
    fn push_apart(&mut self, point: Point) {
        self.points.push_back(point);
        if self.points.len() > POINTS {
            self.thin_out();
        }
    }

    fn replace_last(&mut self, point: Point) {
        self.points.pop_back();
        self.push(point);
    }

    /// Drops the point that the line between its neighbours misses least.
    fn thin_out(&mut self) {
        let miss = |at: usize| {
            let (before, point, after) = (self.points[at - 1], self.points[at], self.points[at + 1]);
            let is_joined =
                |a: Point, b: Point| (a.ns + span(a.slope, a.tick, b.tick)).abs_diff(b.ns) < 1_000;
            if !is_joined(before, point) || !is_joined(point, after) {
                return u64::MAX;
            }
            let straight = slope_between(before, after).unwrap_or(before.slope);
            (before.ns + span(straight, before.tick, point.tick)).abs_diff(point.ns)
        };
        // What a connection is joined to has to stay until it is.
        let joined = self.joint.and_then(|joint| joint.last).map(|last| last.tick);
        let inner = (1..self.points.len() - 1).filter(|&at| Some(self.points[at].tick) != joined);
        let Some(at) = inner.min_by_key(|&at| miss(at)) else { return };
        self.points.remove(at);
        let (before, after) = (self.points[at - 1], self.points[at]);
        self.points[at - 1].slope = slope_between(before, after).unwrap_or(before.slope);
    }

    /// The point where the line that goes through `point` is at another tick.
    fn moved(&self, point: Point, tick: u64) -> Point {
        Point { tick, ns: point.ns.saturating_add(span(point.slope, point.tick, tick)), ..point }
    }

    fn tick_ns(&self) -> f64 {
        NS_PER_S / f64::from(self.tick_hz)
    }

    fn slope(&self, ppb: f64) -> u64 {
        (self.tick_ns() * (1.0 + ppb / NS_PER_S) * 2f64.powi(32)).max(0.0) as u64
    }
}

impl Front {
    /// Rows of an earlier connection or life were dated up to there.
    #[must_use]
    pub fn at(ns: i64) -> Front {
        Front { last: Some((None, ns)) }
    }

    /// The row sampled at `tick` is dated. Rows of groups that take their samples at different times may come in any
    /// order; the front is at the latest tick.
    pub fn advance(&mut self, tick: Tick, ns: i64) {
        if self.tick().is_none_or(|at| at <= tick) {
            self.last = Some((Some(tick), ns));
        }
    }

    /// The last row that is dated, if its tick is known.
    #[must_use]
    pub fn tick(&self) -> Option<Tick> {
        self.last.and_then(|(tick, _)| tick)
    }
}

/// How far an exchange is off, in square nanoseconds, when another one took `shortest_ns` and it is `now_ns`.
fn variance(exchange: &Exchange, shortest_ns: i64, now_ns: i64) -> f64 {
    let late = LATE * (exchange.round_trip_ns - shortest_ns) as f64;
    let age = AGE_NS_PER_S * (now_ns - exchange.ns) as f64 / NS_PER_S;
    EXCHANGE_NS.powi(2) + late.powi(2) + age.powi(2)
}

fn slope_between(from: Point, to: Point) -> Option<u64> {
    let (ticks, ns) = (to.tick.checked_sub(from.tick)?, to.ns.checked_sub(from.ns)?);
    let slope = (i128::from(ns) << SLOPE_BITS).checked_div(i128::from(ticks))?;
    u64::try_from(slope).ok()
}

/// Nanoseconds from one tick to another.
fn span(slope: u64, from: u64, to: u64) -> i64 {
    let ticks = i128::from(to) - i128::from(from);
    // Both factors are below 2^64, but the slope is far below 2^63, as no tick takes more than a second.
    let ns = ticks.saturating_mul(i128::from(slope)) >> SLOPE_BITS;
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Exchanges of a connection that begins at `from_s`, by a device with 1,000 ticks a second that counts `fast` times
    /// too fast and was `ahead` ticks ahead at 0.
    fn connect(map: &mut ClockMap, seconds: impl Iterator<Item = i64>, fast: f64, ahead: i64) {
        for at_s in seconds {
            let tick = (at_s as f64 * 1_000.0 * fast) as i64 + ahead;
            let tick = Tick(u64::try_from(tick).unwrap());
            let ns = at_s * SECOND + 500_000;
            map.handle_exchange(Exchange { tick, ns, round_trip_ns: 200_000 });
        }
    }

    fn map() -> ClockMap {
        let mut map = ClockMap::new(1_000, Rate::UNKNOWN);
        map.handle_connected(None);
        map
    }

    fn off_ms(map: &ClockMap, tick: u64, at_s: f64) -> f64 {
        (map.ns(Tick(tick)) as f64 / 1e6 - at_s * 1e3).abs()
    }

    #[test]
    fn a_correction_backward_makes_time_go_slower_and_never_stand_still() {
        let mut map = map();
        connect(&mut map, (1..=20).map(|n| n * 10), 1.0, 0);
        let mut front = Front::default();
        let mut dated = Vec::new();
        for tick in 200_000..204_000 {
            if tick == 201_000 {
                // The device turns out to be 100 ms younger than it seemed.
                map.handle_connected(None);
                connect(&mut map, 201..=201, 1.0, 100);
            }
            let ns = map.date(front, Tick(tick));
            front.advance(Tick(tick), ns);
            dated.push(ns);
        }
        let steps = dated.windows(2).map(|two| two[1] - two[0]);
        let (least, most) =
            steps.fold((i64::MAX, 0), |(least, most), step| (step.min(least), step.max(most)));
        assert!((874_000..876_000).contains(&least) && most < 1_010_000, "{least} to {most}");
        assert!(off_ms(&map, 203_999, 203.899) < 1.0 && dated[3_999] == map.ns(Tick(203_999)));
    }

    #[test]
    fn requests_that_were_held_up_together_bend_nothing() {
        // Asked ever more rarely since 80 s, and answered all at once at 103 s, as behind a connection that was cut.
        let mut map = map();
        let (came_ns, tick) = (103 * SECOND, 103_000);
        for (number, sent_ms) in (0..).zip([80_000, 80_250, 80_750, 81_750, 83_750, 87_750, 95_750]) {
            let round_trip_ns = came_ns - sent_ms * 1_000_000;
            let ns = came_ns - round_trip_ns / 2;
            map.handle_exchange(Exchange { tick: Tick(tick + number / 2), ns, round_trip_ns });
            for (tick, at_s) in [(93_000, 93.0), (1_000, 1.0)] {
                // Half of the longest way there and back.
                assert!(off_ms(&map, tick, at_s) < 11_600.0, "{number}: {} ms", off_ms(&map, tick, at_s));
            }
        }
    }

    #[test]
    fn what_lies_before_the_first_point_follows_the_rate_and_not_the_second_point() {
        let mut map = map();
        // The first exchange is three seconds late on one way, and three seconds later come quick ones.
        let late = Exchange { tick: Tick(100_000), ns: 101_500_000_000, round_trip_ns: 3 * SECOND };
        map.handle_exchange(late);
        connect(&mut map, [103, 105, 107].into_iter(), 1.0, 0);
        assert!(off_ms(&map, 1_000, 1.0) < 1_700.0, "{} ms", off_ms(&map, 1_000, 1.0));
    }

    #[test]
    fn a_slow_exchange_at_the_end_of_an_outage_does_not_stay_its_end() {
        let mut map = map();
        connect(&mut map, (1..=60).map(|n| n * 10), 1.0, 0);
        map.handle_connected(None);
        // It took 20 ms on one way, and those behind it were lost until two seconds later.
        let late = Exchange { tick: Tick(700_000), ns: 700_010_500_000, round_trip_ns: 20_000_000 };
        map.handle_exchange(late);
        connect(&mut map, 702..=702, 1.0, 0);
        assert!(off_ms(&map, 699_000, 699.0) < 1.0, "{} ms", off_ms(&map, 699_000, 699.0));
    }

    #[test]
    fn a_slow_exchange_at_the_end_of_an_outage_tells_no_rate_that_a_quick_one_does_not() {
        let mut map = map();
        connect(&mut map, 1..=2, 1.0, 0);
        map.handle_connected(None);
        // 100 ms on one way, and the next quick one ten seconds later: the rate is hardly known.
        let late = Exchange { tick: Tick(110_000), ns: 110_100_500_000, round_trip_ns: 100_000_000 };
        map.handle_exchange(late);
        connect(&mut map, 120..=120, 1.0, 0);
        assert!(off_ms(&map, 109_000, 109.0) < 1.5, "{} ms", off_ms(&map, 109_000, 109.0));
        assert!(map.rate().ppb.abs() < 100_000.0, "{:?}", map.rate());
    }

    #[test]
    fn what_a_correction_cannot_make_up_for_is_a_step_and_followed() {
        let mut map = map();
        connect(&mut map, 1..=20, 1.0, 0);
        assert_eq!(map.date(Front::at(40 * SECOND), Tick(20_000)), map.ns(Tick(20_000)));
        assert_eq!(map.date(Front::at(25 * SECOND), Tick(20_000)), 25 * SECOND);
    }

    #[test]
    fn a_reset_in_an_outage_stands_still_in_between_and_never_for_less_than_no_time() {
        let mut map = map();
        connect(&mut map, (1..=60).map(|n| n * 10), 1.000_3, 0);
        // For 100 s from 1000 s on there is no count.
        let mut with_reset = map.clone();
        with_reset.handle_connected(Some(Tick(1_000_301)));
        connect(&mut with_reset, 2_000..=2_000, 1.000_3, -100_030);
        assert!(off_ms(&with_reset, 1_000_200, 999.9) < 3.0);
        assert!(off_ms(&with_reset, 1_000_301, 1_100.0) < 3.0);
        assert!(off_ms(&with_reset, 1_900_570, 2_000.0) < 3.0);
        // A reset that took no time, in an outage that seems a little too short for its ticks.
        map.handle_connected(Some(Tick(1_000_301)));
        connect(&mut map, 2_000..=2_000, 1.000_3, 40);
        let (before, after) = (map.ns(Tick(1_000_300)), map.ns(Tick(1_000_301)));
        assert!((900_000..1_100_000).contains(&(after - before)), "{}", after - before);
    }

    #[test]
    fn an_outage_that_no_clock_explains_is_dated_from_its_end() {
        let mut map = map();
        connect(&mut map, 1..=60, 1.0, 0);
        let before = map.ns(Tick(60_000));
        map.handle_connected(None);
        // The wall clock stepped by an hour while the gateway was away.
        connect(&mut map, 3_700..=3_700, 1.0, -3_600_000);
        assert_eq!(map.ns(Tick(60_000)), before);
        assert!(off_ms(&map, 60_010, 3_660.01) < 1.0 && off_ms(&map, 99_000, 3_699.0) < 1.0);
    }

    #[test]
    fn a_lower_count_is_a_new_one() {
        let mut map = map();
        connect(&mut map, 1..=60, 1.0, 0);
        map.handle_connected(None);
        connect(&mut map, 100..=100, 1.0, -99_000);
        assert!(off_ms(&map, 500, 99.5) < 1.0 && off_ms(&map, 2_000, 101.0) < 1.0);
        assert_eq!(map.size().1, 1);
    }

    #[test]
    fn memory_is_bounded_and_a_line_of_many_connections_stays_true() {
        let mut map = map();
        for outage in 0..200 {
            map.handle_connected(None);
            connect(&mut map, (0..10).map(|n| 1 + outage * 1_000 + n * 16), 0.999_5, 0);
            assert!(map.size().0 <= WINDOW && map.size().1 <= POINTS);
        }
        for at_s in (1..199_000).step_by(997) {
            let tick = (at_s as f64 * 999.5) as u64;
            assert!(off_ms(&map, tick, tick as f64 / 999.5) < 1.5, "at {at_s} s");
        }
        connect(&mut map, (0..500).map(|n| 200_000 + n * 16), 0.999_5, 0);
        assert_eq!(map.size(), (WINDOW, POINTS));
        map.forget_before(Tick(208_000_000));
        assert!(map.size().1 <= 2 && map.anchor(Tick(208_000_000)).ns == map.ns(Tick(208_000_000)));
    }
}
