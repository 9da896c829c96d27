//! Exchanges of time with a device: when it is asked for its tick, and what an answer is worth.
//!
//! *In:* answers. *Out:* tokens of requests to send, and [`Exchange`]s. *Next:* `clock_map.rs`.
//!
//! Constraints: no IO, no clock. Times are milliseconds of a monotonic clock for the timeouts, and nanoseconds of a
//! clock that never steps for the exchanges themselves.
//!
//! Operation: a connection begins with a *burst*, one request after the other, of which the one that was answered
//! soonest counts most; the line is quiet then, as a device is not asked for rows before. Then the device is asked again
//! at the pace that its clock needs: several times a second at first, every 16 seconds once its rate is known.
//!
//! Failure: a request that is lost is followed by the next one; an answer that comes late counts for what it is. A
//! device that does not answer is asked ever more rarely.

use std::collections::VecDeque;

use forebay_shared::ids::Tick;

/// How many answered exchanges end a burst.
const BURST_REPLIES: u32 = 8;

/// How many requests a burst may cost; a line that loses more than that is served with what it gave.
const BURST_REQUESTS: u32 = 24;

/// How long a request may stay unanswered before the next one, in milliseconds: at first, and at most. The pause
/// doubles while nothing is answered, so that a device that is not there is not asked without end.
const REPLY_TIMEOUT_MS: (u64, u64) = (250, 8_000);

/// Pauses between exchanges behind the burst, in milliseconds: the shortest and the longest.
const PAUSE_MS: (u64, u64) = (100, 16_000);
/// What a rate that is not known well may add to the error between two exchanges, in nanoseconds.
const DRIFT_NS: f64 = 150_000.0;
/// The longest pause between exchanges of a device that does not.
const SILENT_MS_MAX: u64 = 512_000;

/// Long pauses end on multiples of this, in milliseconds, so that whoever tends many devices wakes for all of them.
const GRID_MS: u64 = 250;

/// Requests that an answer may still come to.
const OUTSTANDING: usize = 8;

/// One answered question for a device's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What the device answered.
    pub tick: Tick,
    /// The middle between question and answer, in nanoseconds.
    pub ns: i64,
    /// From question to answer, in nanoseconds: `ns` is off by at most half of it.
    pub round_trip_ns: i64,
}

/// The exchanges of one connection.
#[derive(Debug)]
pub struct Exchanges {
    first_token: u32,
    requests: u32,
    replies: u32,
    outstanding: VecDeque<Request>,
    pause_ms: u64,
    /// The pause behind an answer, once the burst is over.
    pace_ms: u64,
    next_at_ms: u64,
}

#[derive(Debug)]
struct Request {
    token: u32,
    sent_ns: i64,
}

impl Exchanges {
    /// Begins with a burst. `first_token` is random: a broker may deliver the answer to a request of an earlier
    /// connection, or of an earlier life of the gateway, which must match none of ours.
    #[must_use]
    pub fn new(first_token: u32) -> Exchanges {
        Exchanges {
            first_token,
            requests: 0,
            replies: 0,
            outstanding: VecDeque::new(),
            pause_ms: REPLY_TIMEOUT_MS.0,
            pace_ms: PAUSE_MS.0,
            next_at_ms: 0,
        }
    }

    /// The token of the request that is to be sent now, if one is. The caller sends it at once.
    pub fn poll_request(&mut self, now_ms: u64, now_ns: i64) -> Option<u32> {
        if now_ms < self.next_at_ms {
            return None;
        }
        let token = self.first_token.wrapping_add(self.requests);
        self.requests = self.requests.saturating_add(1);
        let longest = if self.burst_is_over() { SILENT_MS_MAX } else { REPLY_TIMEOUT_MS.1 };
        self.next_at_ms = now_ms + self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(longest);
        self.outstanding.push_back(Request { token, sent_ns: now_ns });
        if self.outstanding.len() > OUTSTANDING {
            self.outstanding.pop_front();
        }
        Some(token)
    }

    /// An answer, received at `now_ns`, in which the device says its tick. It may come after later requests.
    pub fn handle_reply(&mut self, now_ms: u64, now_ns: i64, token: u32, tick: Tick) -> Option<Exchange> {
        let at = self.outstanding.iter().position(|request| request.token == token)?;
        let request = self.outstanding.remove(at)?;
        let round_trip_ns = now_ns.checked_sub(request.sent_ns).filter(|ns| *ns >= 0)?;
        self.replies = self.replies.saturating_add(1);
        if self.burst_is_over() {
            self.plan(now_ms);
        } else {
            (self.pause_ms, self.next_at_ms) = (REPLY_TIMEOUT_MS.0, 0);
        }
        Some(Exchange { tick, ns: request.sent_ns + round_trip_ns / 2, round_trip_ns })
    }

    /// From `now_ms` on, once the burst is over, asks as often as a clock needs whose rate is known to `sigma_ppb`.
    pub fn set_pace(&mut self, now_ms: u64, sigma_ppb: f64) {
        self.pace_ms = ((DRIFT_NS / sigma_ppb * 1_000.0) as u64).clamp(PAUSE_MS.0, PAUSE_MS.1);
        if self.burst_is_over() {
            self.plan(now_ms);
        }
    }

    /// Whether the connection has told enough for rows to be dated.
    #[must_use]
    pub fn burst_is_over(&self) -> bool {
        self.replies >= BURST_REPLIES || (self.replies > 0 && self.requests >= BURST_REQUESTS)
    }

    /// When [`Exchanges::poll_request`] wants to be called again, in milliseconds of the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.next_at_ms
    }

    fn plan(&mut self, now_ms: u64) {
        let grid = if self.pace_ms >= 4 * GRID_MS { GRID_MS } else { 1 };
        self.pause_ms = self.pace_ms;
        self.next_at_ms = (now_ms + self.pace_ms).next_multiple_of(grid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_asks_at_once_and_then_ever_more_rarely() {
        let mut exchanges = Exchanges::new(7);
        let mut asked = Vec::new();
        for ms in 0..120_000 {
            let ns = i64::try_from(ms).unwrap() * 1_000_000;
            while let Some(token) = exchanges.poll_request(ms, ns) {
                asked.push(ms);
                let exchange = exchanges.handle_reply(ms, ns + 300, token, Tick(ms)).unwrap();
                assert_eq!(exchange, Exchange { tick: Tick(ms), ns: ns + 150, round_trip_ns: 300 });
                assert_eq!(exchanges.burst_is_over(), asked.len() >= 8);
                exchanges.set_pace(
                    ms,
                    [500_000.0, 100_000.0, 20_000.0, 1_000.0][asked.len().saturating_sub(8).min(3)],
                );
            }
        }
        let pauses: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(pauses[..10], [0, 0, 0, 0, 0, 0, 0, 300, 1_700, 7_500]);
        assert!(pauses[10..].iter().all(|pause| *pause == 16_000) && pauses.len() > 15, "{pauses:?}");
    }

    #[test]
    fn a_lost_request_is_sent_again_and_a_late_answer_counts_for_what_it_is_once() {
        let mut exchanges = Exchanges::new(u32::MAX);
        let first = exchanges.poll_request(0, 0).unwrap();
        assert_eq!(exchanges.poll_request(REPLY_TIMEOUT_MS.0 - 1, 1), None);
        let second = exchanges.poll_request(REPLY_TIMEOUT_MS.0, 250_000_000).unwrap();
        let late = exchanges.handle_reply(400, 400_000_000, first, Tick(1)).unwrap();
        assert_eq!(late.round_trip_ns, 400_000_000);
        assert_eq!(exchanges.handle_reply(400, 400_000_000, first, Tick(1)), None);
        let soon = exchanges.handle_reply(400, 251_000_000, second, Tick(1)).unwrap();
        assert_eq!((soon.ns, soon.round_trip_ns), (250_500_000, 1_000_000));
    }

    #[test]
    fn a_device_farther_away_than_the_pause_is_served_too() {
        let mut exchanges = Exchanges::new(0);
        let mut sent = VecDeque::new();
        let mut over_at = None;
        for ms in 0..60_000 {
            let ns = i64::try_from(ms).unwrap() * 1_000_000;
            if let Some(token) = exchanges.poll_request(ms, ns) {
                sent.push_back((ms + 900, token));
            }
            while let Some((_, token)) = sent.pop_front_if(|(at, _)| *at <= ms) {
                let exchange = exchanges.handle_reply(ms, ns, token, Tick(ms)).unwrap();
                assert_eq!(exchange.round_trip_ns, 900_000_000);
            }
            if exchanges.burst_is_over() {
                over_at.get_or_insert(ms);
            }
        }
        assert!(over_at.unwrap() < 10_000, "{over_at:?}");
    }

    #[test]
    fn an_answer_to_an_earlier_connection_is_none_to_this_one() {
        let mut earlier = Exchanges::new(1_000_000);
        let stale = earlier.poll_request(0, 0).unwrap();
        let mut exchanges = Exchanges::new(2_000_000);
        let token = exchanges.poll_request(60, 60_000_000).unwrap();
        assert_eq!(exchanges.handle_reply(60, 60_000_001, stale, Tick(1)), None);
        assert!(exchanges.handle_reply(61, 61_000_000, token, Tick(61)).is_some());
    }

    #[test]
    fn a_silent_device_is_asked_ever_more_rarely() {
        let count = |exchanges: &mut Exchanges, from: u64| {
            let asked = (from..from + 4_000_000).step_by(50);
            asked.filter(|&ms| exchanges.poll_request(ms, 0).is_some()).count()
        };
        let mut exchanges = Exchanges::new(u32::MAX);
        assert!((500..520).contains(&count(&mut exchanges, 0)));
        let token = exchanges.poll_request(5_000_000, 0).unwrap();
        assert!(exchanges.handle_reply(5_000_000, 10, token, Tick(7)).is_some());
        assert!(exchanges.burst_is_over(), "a lossy line ends with what it gave");
        exchanges.set_pace(5_000_000, 1_000.0);
        assert!((8..20).contains(&count(&mut exchanges, 5_000_000)));
    }
}
