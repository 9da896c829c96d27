//! Time at intake: unique stamps for rows that come without one.

/// How far the clock may fall behind the last stamp before that counts as a step of the clock and not as jitter.
const STEP_NS: i64 = 1_000_000_000;

/// The stamp of a row sampled or received at `now`, given the last stamp before it: strictly increasing, except
/// across a step of the clock to the past, where a new clock epoch begins and the clock is followed.
#[must_use]
pub fn stamp(last: i64, now: i64) -> i64 {
    if last.saturating_sub(now) > STEP_NS { now } else { now.max(last.saturating_add(1)) }
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
}
