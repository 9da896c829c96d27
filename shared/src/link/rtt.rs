//! How long to wait for an acknowledgement: RFC 6298, in whole milliseconds and without a division.

use crate::ids::Stamp;

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
    pub(super) const fn begin(&mut self, now: Stamp) {
        self.backed_off_at = now;
    }

    /// The present timeout.
    pub(super) const fn rto_ms(&self) -> u32 {
        self.rto_ms as u32
    }

    /// Takes the measured round trip of something that was sent once: of what was sent twice, nobody
    /// knows which copy was answered.
    pub(super) fn measured(&mut self, round_trip_ms: u32) {
        let sample = round_trip_ms.min(SAMPLE_MS_MAX);
        let (mut smoothed_8, mut deviation_4) = (u32::from(self.smoothed_8), u32::from(self.deviation_4));
        if smoothed_8 == 0 {
            smoothed_8 = sample << 3;
            deviation_4 = sample << 1;
        } else {
            deviation_4 = deviation_4 - (deviation_4 >> 2) + sample.abs_diff(smoothed_8 >> 3);
            smoothed_8 = smoothed_8 - (smoothed_8 >> 3) + sample;
        }
        let rto = (smoothed_8 >> 3) + deviation_4.max(1);
        self.rto_ms = rto.clamp(RTO_MS_MIN, RTO_MS_MAX) as u16;
        (self.smoothed_8, self.deviation_4) = (smoothed_8 as u16, deviation_4 as u16);
    }

    /// Something that was sent at `sent_at` was not answered in time: waits twice as long until the next
    /// measurement. What else was on the line at that moment says nothing new.
    pub(super) fn timed_out(&mut self, now: Stamp, sent_at: Stamp) {
        // An instant that seems to lie ahead is weeks old.
        if now.since(sent_at) <= now.since(self.backed_off_at) {
            self.rto_ms = (self.rto_ms() << 1).min(RTO_MS_MAX) as u16;
            self.backed_off_at = now;
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

    fn at(ms: u32) -> Stamp {
        Stamp::ZERO.plus(ms)
    }

    #[test]
    fn one_outage_doubles_once() {
        let mut line = RoundTrip::new();
        for sent_at in 0..16 {
            line.timed_out(at(1016), at(sent_at));
        }
        assert_eq!(line.rto_ms(), 2000);
        line.timed_out(at(3016), at(1016));
        assert_eq!(line.rto_ms(), 4000);
        line.timed_out(at(7016), at(3016));
        assert_eq!(line.rto_ms(), RTO_MS_MAX);
        line.measured(100);
        let later = 30 * 24 * 3_600_000;
        line.timed_out(at(later), at(later - 300));
        assert!(line.rto_ms() >= 600, "also after weeks without any");
    }
}
