//! Whether a device's ring is large enough: it has to hold what the line takes in the time from sampling to release.
//!
//! *In:* how full it is, and what made room in it. *Out:* a word to the operator.
//!
//! After an outage a ring is full, and drains. One that is full in the midst of a long connection is too small for its line
//! and this disk, or its line too slow for its rows.

use forebay_shared::ids::Millis;

/// How long a ring may take to drain after its device was let in.
const DRAIN_MS: u32 = 60_000;

/// The ring of a device that was let in at some time.
#[derive(Debug)]
pub(super) struct Margin {
    since: Millis,
    size: u32,
}

impl Margin {
    pub(super) const fn new(now: Millis) -> Margin {
        Margin { since: now, size: 0 }
    }

    /// The device said how full it is.
    pub(super) fn handle_status(&mut self, now: Millis, used: u32, size: u32) -> Option<String> {
        self.size = size;
        let is_narrow = u64::from(used) * 4 > u64::from(size) * 3;
        (is_narrow && self.has_drained(now)).then(|| {
            format!("its ring has {used} of {size} bytes in use, though this gateway is there: {CURE}")
        })
    }

    /// Rows made room for newer ones.
    pub(super) fn handle_overflow(&self, now: Millis) -> Option<String> {
        let of = if self.size > 0 { format!(" of {} bytes", self.size) } else { String::new() };
        self.has_drained(now).then(|| {
            format!("rows are lost since its ring{of} overflows, though this gateway is there: {CURE}")
        })
    }

    fn has_drained(&self, now: Millis) -> bool {
        now.since(self.since) >= DRAIN_MS
    }
}

const CURE: &str = "its line, or the disk here, is too slow for its rows, or the ring too small";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_too_small_only_when_it_had_time_to_drain() {
        let mut margin = Margin::new(Millis(5));
        let (soon, late) = (Millis(60_004), Millis(60_005));
        assert_eq!((margin.handle_status(soon, 8_000, 8_192), margin.handle_overflow(soon)), (None, None));
        assert_eq!(margin.handle_status(late, 6_144, 8_192), None, "three quarters");
        let narrow = margin.handle_status(late, 6_145, 8_192).unwrap();
        assert!(
            narrow.starts_with(
                "its ring has 6145 of 8192 bytes in use, though this gateway is there: its line,"
            )
        );
        let lost = margin.handle_overflow(late).unwrap();
        assert!(lost.starts_with("rows are lost since its ring of 8192 bytes overflows, though"), "{lost}");
    }
}
