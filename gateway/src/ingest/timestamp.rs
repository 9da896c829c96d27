//! Time at intake: unique stamps for rows that come without one, and the map from a device's ticks to nanoseconds.

use std::collections::VecDeque;

use forebay_shared::ids::Tick;

/// How far the clock may fall behind the last stamp before that counts as a step of the clock and not as jitter.
const STEP_NS: i64 = 1_000_000_000;

/// How many answered exchanges end a burst.
const BURST_REPLIES: u32 = 8;

/// How many requests a burst may cost; a line that loses more than that is served with what it gave.
const BURST_REQUESTS: u32 = 24;

/// How long a request may stay unanswered before the next one, in milliseconds: at first, and at most. The pause
/// doubles while nothing is answered, so that a device that is not there is not asked without end.
const REPLY_TIMEOUT_MS: (u64, u64) = (250, 8_000);

/// Requests that an answer may still come to.
const OUTSTANDING: usize = 8;

/// The stamp of a row sampled or received at `now`, given the last stamp before it: strictly increasing, except
/// across a step of the clock to the past, where a new clock epoch begins and the clock is followed.
#[must_use]
pub fn stamp(last: i64, now: i64) -> i64 {
    if last.saturating_sub(now) > STEP_NS { now } else { now.max(last.saturating_add(1)) }
}

/// A line through one exchange: where a tick lies in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickMap {
    tick: Tick,
    ns: i64,
    tick_hz: u32,
    /// Round trip of the exchange, in nanoseconds: the map is off by at most half of it, plus the drift since.
    pub round_trip_ns: i64,
}

impl TickMap {
    /// Nanoseconds since 1970 UTC of a tick.
    #[must_use]
    pub fn ns(&self, tick: Tick) -> i64 {
        let ticks = i128::from(tick.0) - i128::from(self.tick.0);
        let ns = i128::from(self.ns) + ticks * 1_000_000_000 / i128::from(self.tick_hz.max(1));
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }
}

/// A burst of exchanges at the start of a connection; the one with the smallest round trip makes the map.
///
/// Times are nanoseconds since 1970 UTC for the map and milliseconds of a monotonic clock for the timeouts.
#[derive(Debug)]
pub struct Burst {
    tick_hz: u32,
    first_token: u32,
    requests: u32,
    replies: u32,
    outstanding: VecDeque<Request>,
    pause_ms: u64,
    next_at_ms: u64,
    best: Option<TickMap>,
}

#[derive(Debug)]
struct Request {
    token: u32,
    sent_ns: i64,
}

impl Burst {
    /// A burst with a device whose clock ticks `tick_hz` times a second. `first_token` is random: a broker may deliver
    /// the answer to a request of an earlier burst, or of an earlier life of the gateway, which must match none of ours.
    #[must_use]
    pub fn new(tick_hz: u32, first_token: u32) -> Burst {
        Burst {
            tick_hz,
            first_token,
            requests: 0,
            replies: 0,
            outstanding: VecDeque::new(),
            pause_ms: REPLY_TIMEOUT_MS.0,
            next_at_ms: 0,
            best: None,
        }
    }

    /// The token of the request that is to be sent now, if one is. The caller sends it at once.
    pub fn poll_request(&mut self, now_ms: u64, now_ns: i64) -> Option<u32> {
        if now_ms < self.next_at_ms || self.is_done() {
            return None;
        }
        let token = self.first_token.wrapping_add(self.requests);
        self.requests = self.requests.saturating_add(1);
        self.next_at_ms = now_ms + self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(REPLY_TIMEOUT_MS.1);
        self.outstanding.push_back(Request { token, sent_ns: now_ns });
        if self.outstanding.len() > OUTSTANDING {
            self.outstanding.pop_front();
        }
        Some(token)
    }

    /// An answer, received at `now_ns`, in which the device says its tick. It may come after later requests: a slow
    /// line is served with what it has.
    pub fn handle_reply(&mut self, now_ns: i64, token: u32, tick: Tick) {
        let Some(at) = self.outstanding.iter().position(|request| request.token == token) else {
            return;
        };
        let Some(request) = self.outstanding.remove(at) else { return };
        self.pause_ms = REPLY_TIMEOUT_MS.0;
        self.next_at_ms = 0;
        let round_trip_ns = now_ns - request.sent_ns;
        // A negative round trip is a step of the gateway's clock in between.
        if round_trip_ns < 0 {
            return;
        }
        self.replies += 1;
        if self.best.is_none_or(|best| round_trip_ns < best.round_trip_ns) {
            let ns = request.sent_ns + round_trip_ns / 2;
            self.best = Some(TickMap { tick, ns, tick_hz: self.tick_hz, round_trip_ns });
        }
    }

    /// The map, once the burst is over.
    #[must_use]
    pub fn finished(&self) -> Option<TickMap> {
        self.best.filter(|_| self.is_done())
    }

    /// When [`Burst::poll_request`] wants to be called again, in milliseconds of the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        (!self.is_done()).then_some(self.next_at_ms)
    }

    fn is_done(&self) -> bool {
        self.replies >= BURST_REPLIES || (self.replies > 0 && self.requests >= BURST_REQUESTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_increase_strictly_and_follow_a_step_back() {
        assert_eq!(stamp(100, 200), 200);
        assert_eq!(stamp(200, 200), 201);
        assert_eq!(stamp(200, 150), 201);
        let noon = 1_700_000_000_000_000_000;
        assert_eq!(stamp(noon, noon - STEP_NS), noon + 1);
        assert_eq!(stamp(noon, noon - STEP_NS - 1), noon - STEP_NS - 1);
    }

    #[test]
    fn the_smallest_round_trip_wins() {
        let mut burst = Burst::new(1_000_000, 7);
        let round_trips = [9_000, 400, 7_000, 300, 800, 500, 900, 1_000];
        for (at, round_trip) in round_trips.into_iter().enumerate() {
            assert_eq!(burst.finished(), None);
            let now = i64::try_from(at).unwrap() * 1_000_000;
            let token = burst.poll_request(0, now).unwrap();
            let middle = now + round_trip / 2;
            burst.handle_reply(now + round_trip, token, Tick(u64::try_from(middle / 1_000).unwrap() + 5_000));
        }
        let map = burst.finished().unwrap();
        assert_eq!(map.round_trip_ns, 300);
        assert_eq!(map.ns(Tick(5_000 + 10_000)), 10_000_000 + 150);
        assert_eq!(map.ns(Tick(0)), -5_000_000 + 150);
    }

    #[test]
    fn a_lost_request_is_sent_again_and_a_late_answer_counts_for_what_it_is() {
        let mut burst = Burst::new(1_000, u32::MAX);
        let first = burst.poll_request(0, 0).unwrap();
        assert_eq!(burst.poll_request(REPLY_TIMEOUT_MS.0 - 1, 1), None);
        let second = burst.poll_request(REPLY_TIMEOUT_MS.0, 250_000_000).unwrap();
        burst.handle_reply(400_000_000, first, Tick(1));
        assert_eq!(burst.best.unwrap().round_trip_ns, 400_000_000);
        burst.handle_reply(400_000_000, first, Tick(1));
        assert_eq!(burst.replies, 1, "an answer counts once");
        burst.handle_reply(251_000_000, second, Tick(1));
        assert_eq!(burst.best.unwrap().round_trip_ns, 1_000_000);
    }

    #[test]
    fn a_device_farther_away_than_the_pause_is_served_too() {
        let mut burst = Burst::new(1_000, 0);
        let mut sent = VecDeque::new();
        for ms in 0..30_000 {
            let ns = i64::try_from(ms).unwrap() * 1_000_000;
            if let Some(token) = burst.poll_request(ms, ns) {
                sent.push_back((ms + 900, token));
            }
            while let Some((_, token)) = sent.pop_front_if(|(at, _)| *at <= ms) {
                burst.handle_reply(ns, token, Tick(ms));
            }
        }
        assert_eq!(burst.finished().unwrap().round_trip_ns, 900_000_000);
    }

    #[test]
    fn an_answer_to_an_earlier_burst_is_none_to_this_one() {
        let mut earlier = Burst::new(1_000, 1_000_000);
        let stale = earlier.poll_request(0, 0).unwrap();
        let mut burst = Burst::new(1_000, 2_000_000);
        let token = burst.poll_request(60, 60_000_000).unwrap();
        burst.handle_reply(60_000_001, stale, Tick(1));
        assert_eq!(burst.best, None);
        burst.handle_reply(61_000_000, token, Tick(61));
        assert_eq!(burst.best.unwrap().round_trip_ns, 1_000_000);
    }

    #[test]
    fn a_lossy_line_ends_with_what_it_gave_and_a_silent_one_is_asked_on_ever_more_rarely() {
        let mut burst = Burst::new(1_000, u32::MAX);
        let mut asked = Vec::new();
        for ms in 0..400_000 {
            if let Some(token) = burst.poll_request(ms, 0) {
                asked.push((ms, token));
            }
        }
        assert!((45..60).contains(&asked.len()), "{}", asked.len());
        burst.handle_reply(10, asked.last().unwrap().1, Tick(7));
        assert_eq!(burst.finished().unwrap().round_trip_ns, 10);
    }
}
