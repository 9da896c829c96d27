//! How long to wait before the next attempt: exponential, with jitter, capped.
//!
//! Jitter keeps a hundred gateways from returning to a database in step after its outage. The random numbers come
//! from a seed that the caller passes in, so that a test can replay a run.

use std::time::Duration;

/// Longest wait that the gateway chooses by itself.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest wait that a server can impose with `Retry-After`.
pub const LONGEST_IMPOSED_WAIT: Duration = Duration::from_secs(300);

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LOOK_WAIT: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// A state that a human has to mend is looked at again at a slow pace from the start.
const FIRST_HOLD: Duration = Duration::from_secs(5);

/// The waits of one sink.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// No failure so far. Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Backoff {
        // A xorshift generator never leaves zero.
        Backoff { failures: 0, random: seed | 1 }
    }

    /// The wait after one more failure: uniform between nothing (in practice 50 ms) and a ceiling that doubles from
    /// 250 ms to 30 s.
    pub fn retry(&mut self) -> Duration {
        let ceiling = self.ceiling(FIRST_RETRY);
        self.between(SHORTEST_WAIT, ceiling)
    }

    /// The wait after the server named one: never shorter than it says, with up to a second of jitter, at most 5 minutes.
    pub fn imposed(&mut self, wait: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let jitter = self.between(SHORTEST_WAIT, Duration::from_secs(1));
        wait.saturating_add(jitter).min(LONGEST_IMPOSED_WAIT)
    }

    /// The wait where only a human can mend the cause: the upper half of a ceiling that doubles from 5 s to 30 s.
    pub fn hold(&mut self) -> Duration {
        let ceiling = self.ceiling(FIRST_HOLD);
        self.between(ceiling / 2, ceiling)
    }

    /// The pause before it is looked whether a sink that was gone is back: a quarter to three quarters of a second, so that
    /// gateways do not return in step.
    pub fn look(&mut self) -> Duration {
        self.between(LOOK_WAIT, 3 * LOOK_WAIT)
    }

    /// The sink answered: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&mut self, first: Duration) -> Duration {
        let ceiling = first.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        ceiling
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low);
        let steps = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        low + Duration::from_millis(self.next_random() % steps)
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_spread_below_a_ceiling_that_doubles_up_to_30_s() {
        let mut longest = [Duration::ZERO; 12];
        for seed in 1..500_u64 {
            let mut backoff = Backoff::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for (failure, longest) in longest.iter_mut().enumerate() {
                let wait = backoff.retry();
                let ceiling = Duration::from_millis(250 << failure).min(LONGEST_WAIT);
                assert!(wait >= SHORTEST_WAIT && wait <= ceiling, "{wait:?} after {failure} failures");
                *longest = wait.max(*longest);
            }
        }
        for (failure, longest) in longest.iter().enumerate() {
            let ceiling = Duration::from_millis(250 << failure).min(LONGEST_WAIT);
            assert!(
                *longest > ceiling * 9 / 10,
                "the jitter of failure {failure} never came near {ceiling:?}"
            );
        }
    }

    #[test]
    fn an_answer_starts_over() {
        let mut backoff = Backoff::new(7);
        for _ in 0..20 {
            backoff.retry();
        }
        backoff.reset();
        assert!(backoff.retry() <= FIRST_RETRY);
    }

    #[test]
    fn holds_are_slow_and_imposed_waits_are_kept() {
        let mut backoff = Backoff::new(7);
        assert!(backoff.hold() >= FIRST_HOLD / 2);
        for _ in 0..40 {
            assert!(backoff.hold() <= LONGEST_WAIT);
        }
        assert!(backoff.imposed(Duration::from_secs(60)) >= Duration::from_secs(60));
        assert!(backoff.imposed(Duration::ZERO) >= SHORTEST_WAIT);
        assert_eq!(backoff.imposed(Duration::from_secs(86_400)), LONGEST_IMPOSED_WAIT);
    }
}
