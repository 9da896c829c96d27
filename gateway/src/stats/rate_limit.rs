//! Keeps a hostile or broken peer from filling the log.

use std::time::Duration;

/// Lets one message through per interval and counts what it held back.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    last: Option<Duration>,
    suppressed: u64,
}

impl RateLimit {
    /// At most one message in `interval`.
    #[must_use]
    pub const fn every(interval: Duration) -> RateLimit {
        RateLimit { interval, last: None, suppressed: 0 }
    }

    /// At most one message a minute.
    #[must_use]
    pub const fn once_a_minute() -> RateLimit {
        RateLimit::every(Duration::from_secs(60))
    }

    /// Whether a message may be logged at `now` (monotonic): the number held back since the last one, or `None`.
    pub fn allow(&mut self, now: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_sub(last) < self.interval) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_passes_and_the_others_are_counted() {
        let mut limit = RateLimit::once_a_minute();
        let at = Duration::from_secs;
        assert_eq!(limit.allow(at(5)), Some(0));
        assert_eq!(limit.allow(at(6)), None);
        assert_eq!(limit.allow(at(64)), None);
        assert_eq!(limit.allow(at(65)), Some(2));
        assert_eq!(limit.allow(at(124)), None);
        assert_eq!(limit.allow(at(1000)), Some(1));
    }
}
