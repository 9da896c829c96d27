//! When a batch leaves: it is full in points or bytes, or its oldest point has waited long enough.

use std::time::{Duration, Instant};

/// What makes a batch leave.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Points in a batch, at least 1.
    pub points: usize,
    /// Bytes of journal that a batch keeps in memory; passed by less than one frame.
    pub bytes: usize,
    /// How long a point may wait for others.
    pub linger: Duration,
}

/// Watches one growing batch.
#[derive(Debug)]
pub struct Batcher {
    limits: Limits,
    points: usize,
    bytes: usize,
    oldest: Option<Instant>,
}

impl Batcher {
    /// No batch yet.
    #[must_use]
    pub fn new(limits: Limits) -> Batcher {
        Batcher { limits, points: 0, bytes: 0, oldest: None }
    }

    /// Most points that a batch may have.
    #[must_use]
    pub fn points_max(&self) -> usize {
        self.limits.points.max(1)
    }

    /// The batch has this size now.
    pub fn handle_growth(&mut self, now: Instant, points: usize, bytes: usize) {
        (self.points, self.bytes) = (points, bytes);
        self.oldest = (points > 0).then(|| self.oldest.unwrap_or(now));
    }

    /// The batch has left; the next one is empty.
    pub fn handle_departure(&mut self) {
        (self.points, self.bytes, self.oldest) = (0, 0, None);
    }

    /// Nothing more fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.points >= self.points_max() || self.bytes >= self.limits.bytes
    }

    /// The batch has to leave now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.poll_timeout().is_some_and(|due| due <= now)
    }

    /// When the batch has to leave by its age; never while it is empty.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.limits.linger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(1);

    fn batcher() -> Batcher {
        Batcher::new(Limits { points: 10, bytes: 1000, linger: LINGER })
    }

    #[test]
    fn a_batch_leaves_when_it_is_full() {
        let now = Instant::now();
        let mut batcher = batcher();
        batcher.handle_growth(now, 9, 10);
        assert!(!batcher.is_due(now));
        batcher.handle_growth(now, 10, 10);
        assert!(batcher.is_due(now));
        batcher.handle_departure();
        assert!(!batcher.is_full());
        batcher.handle_growth(now, 1, 1000);
        assert!(batcher.is_due(now));
    }

    #[test]
    fn a_batch_leaves_when_its_oldest_point_has_waited() {
        let now = Instant::now();
        let mut batcher = batcher();
        batcher.handle_growth(now, 0, 0);
        assert_eq!(batcher.poll_timeout(), None, "an empty batch never leaves");
        batcher.handle_growth(now, 1, 10);
        batcher.handle_growth(now + LINGER / 2, 2, 20);
        assert_eq!(batcher.poll_timeout(), Some(now + LINGER), "later points do not make it wait longer");
        assert!(!batcher.is_due(now + LINGER / 2));
        assert!(batcher.is_due(now + LINGER));
        batcher.handle_departure();
        assert_eq!(batcher.poll_timeout(), None);
    }
}
