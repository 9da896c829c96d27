//! The pace of a sink with a limit on its bytes per second.
//!
//! Each request makes the next one wait for as long as its bytes take at the limit. So the mean is kept whatever the size
//! of requests, without cutting them smaller than the database likes them.

use std::time::{Duration, Instant};

/// When the next request may leave.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second_max: Option<u64>,
    free_at: Option<Instant>,
}

impl Pace {
    /// Without a limit nothing ever waits.
    pub(super) fn new(bytes_per_second_max: Option<u64>) -> Pace {
        Pace { bytes_per_second_max, free_at: None }
    }

    /// A request of so many bytes has left.
    pub(super) fn handle_sent(&mut self, now: Instant, bytes: u64) {
        let Some(limit) = self.bytes_per_second_max else { return };
        let took = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
        let from = self.free_at.map_or(now, |free_at| free_at.max(now));
        self.free_at = from.checked_add(took);
    }

    /// Whether a request would leave too early.
    pub(super) fn is_early(&self, now: Instant) -> bool {
        self.free_at.is_some_and(|free_at| now < free_at)
    }

    /// When the next request may leave, if there was one.
    pub(super) fn free_at(&self) -> Option<Instant> {
        self.free_at
    }

    /// The next request may leave at once.
    pub(super) fn clear(&mut self) {
        self.free_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_the_time_that_they_may_take() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(1_000));
        assert!(!pace.is_early(now));
        pace.handle_sent(now, 2_500);
        let free_at = now + Duration::from_millis(2_500);
        assert!(pace.is_early(free_at - Duration::from_millis(1)) && !pace.is_early(free_at));
        // What was not used is not saved up.
        let later = now + Duration::from_secs(60);
        pace.handle_sent(later, 500);
        pace.handle_sent(later, 500);
        assert_eq!(pace.free_at(), Some(later + Duration::from_secs(1)));
        let mut free = Pace::new(None);
        free.handle_sent(now, u64::MAX);
        assert!(!free.is_early(now));
    }
}
