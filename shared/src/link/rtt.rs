//! How long to wait for an acknowledgement: RFC 6298, in whole milliseconds and without a division.

use crate::ids::{Millis, Stamp};

/// Least time to wait.
const RTO_MS_MIN: u32 = 25;
/// Most time to wait, for an acknowledgement or for anything else that is repeated.
pub(super) const RTO_MS_MAX: u32 = 5000;
/// A round trip that took longer counts as this: eight times as much still fits in 16 bits.
const SAMPLE_MS_MAX: u32 = 8000;
/// Time to wait before anything was measured.
const RTO_MS_INITIAL: u32 = 1000;

/// The estimate, and the timeout that follows from it.
#[derive(Debug)]
pub(super) struct RoundTrip {
    /// Smoothed round trip in eighths of a millisecond; zero before the first measurement.
    smoothed_8: u16,
    /// Its mean deviation in quarters of a millisecond.
    deviation_4: u16,
    rto_ms: u16,
    backed_off_at: Stamp,
}

impl RoundTrip {
    pub(super) const fn new() -> Self {
        Self { smoothed_8: 0, deviation_4: 0, rto_ms: RTO_MS_INITIAL as u16, backed_off_at: Stamp::ZERO }
    }

    /// What was sent before `now` does not count any more.
    pub(super) const fn begin(&mut self, now: Millis) {
        self.backed_off_at = Stamp::of(now);
    }

    /// The present timeout.
    pub(super) const fn rto_ms(&self) -> u32 {
        self.rto_ms as u32
    }

    /// Takes the measured round trip of something that was sent once: of what was sent twice, nobody
    /// knows which copy was answered.
    pub(super) fn measured(&mut self, round_trip_ms: u32) {
        let sample = round_trip_ms.min(SAMPLE_MS_MAX) as u16;
        if self.smoothed_8 == 0 {
            self.smoothed_8 = sample << 3;
            self.deviation_4 = sample << 1;
        } else {
            let error = sample.abs_diff(self.smoothed_8 >> 3);
            self.deviation_4 = self.deviation_4 - (self.deviation_4 >> 2) + error;
            self.smoothed_8 = self.smoothed_8 - (self.smoothed_8 >> 3) + sample;
        }
        let rto = (self.smoothed_8 >> 3) + self.deviation_4.max(1);
        self.rto_ms = rto.clamp(RTO_MS_MIN as u16, RTO_MS_MAX as u16);
    }

    /// Something that was sent at `sent_at` was not answered in time: waits twice as long until the next
    /// measurement. What else was on the line at that moment says nothing new.
    pub(super) fn timed_out(&mut self, now: Millis, sent_at: Millis) {
        let backed_off_at = self.backed_off_at.near(now);
        // One that seems to lie ahead is weeks old.
        if sent_at >= backed_off_at || backed_off_at > now {
            self.rto_ms = (self.rto_ms() << 1).min(RTO_MS_MAX) as u16;
            self.backed_off_at = Stamp::of(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_line() {
        let mut line = RoundTrip::new();
        assert_eq!(line.rto_ms(), 1000);
        line.measured(100);
        assert_eq!(line.rto_ms(), 300, "the round trip and four times half of it");
        for _ in 0..50 {
            line.measured(100);
        }
        assert!((100..110).contains(&line.rto_ms()), "{}", line.rto_ms());
        for _ in 0..50 {
            line.measured(2);
        }
        assert_eq!(line.rto_ms(), RTO_MS_MIN);
        for _ in 0..50 {
            line.measured(u32::MAX);
        }
        assert_eq!(line.rto_ms(), RTO_MS_MAX);
    }

    #[test]
    fn one_outage_doubles_once() {
        let mut line = RoundTrip::new();
        for sent_at in 0..16 {
            line.timed_out(Millis(1016), Millis(sent_at));
        }
        assert_eq!(line.rto_ms(), 2000);
        line.timed_out(Millis(3016), Millis(1016));
        assert_eq!(line.rto_ms(), 4000);
        line.timed_out(Millis(7016), Millis(3016));
        assert_eq!(line.rto_ms(), RTO_MS_MAX);
        line.measured(100);
        let later = Millis(30 * 24 * 3_600_000);
        line.timed_out(later, Millis(later.0 - 300));
        assert!(line.rto_ms() >= 600, "also after weeks without any");
    }
}
