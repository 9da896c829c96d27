//! Timestamps in payloads: numbers in a unit, or RFC 3339, to nanoseconds since 1970 UTC.
//!
//! A payload's time is stored exactly as sent, so numbers are read as decimal text and never through a float.

use crate::config::TimestampFormat;

/// The name of a format, as the configuration spells it.
#[must_use]
pub fn name(format: TimestampFormat) -> &'static str {
    match format {
        TimestampFormat::Seconds => "s",
        TimestampFormat::Milliseconds => "ms",
        TimestampFormat::Microseconds => "us",
        TimestampFormat::Nanoseconds => "ns",
        TimestampFormat::Rfc3339 => "rfc3339",
    }
}

/// Reads a timestamp; `None` if it is not in the format or does not fit into 64 bits of nanoseconds.
#[must_use]
pub fn parse(text: &str, format: TimestampFormat) -> Option<i64> {
    match format {
        TimestampFormat::Seconds => decimal(text, 9),
        TimestampFormat::Milliseconds => decimal(text, 6),
        TimestampFormat::Microseconds => decimal(text, 3),
        TimestampFormat::Nanoseconds => decimal(text, 0),
        TimestampFormat::Rfc3339 => rfc3339(text),
    }
}

/// An integer in the given format's unit, as line protocol has it.
#[must_use]
pub fn scale(number: i64, format: TimestampFormat) -> Option<i64> {
    let factor = match format {
        TimestampFormat::Seconds => 1_000_000_000,
        TimestampFormat::Milliseconds => 1_000_000,
        TimestampFormat::Microseconds => 1_000,
        TimestampFormat::Nanoseconds => 1,
        TimestampFormat::Rfc3339 => return None,
    };
    number.checked_mul(factor)
}

/// `123.456` with `shift` more decimal places, rounded down where there are more digits than nanoseconds.
fn decimal(text: &str, shift: usize) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let places = i32::try_from(shift).ok()?.checked_add(exponent)?;
    let keep = i32::try_from(whole.len()).ok()?.checked_add(places)?;
    if !(-64..=64).contains(&keep) {
        return None;
    }
    let mut value: i128 = 0;
    let mut digits = whole.bytes().chain(fraction.bytes());
    for _ in 0..keep {
        value = value.checked_mul(10)? + i128::from(digits.next().map_or(0, |digit| digit - b'0'));
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// `2026-11-22T02:10:00.123456789Z`, or with a numeric zone.
fn rfc3339(text: &str) -> Option<i64> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_in_every_unit() {
        let ns = 1_700_000_000_123_456_789;
        assert_eq!(parse("1700000000123456789", TimestampFormat::Nanoseconds), Some(ns));
        assert_eq!(parse("1700000000123456.789", TimestampFormat::Microseconds), Some(ns));
        assert_eq!(parse("1700000000.123456789", TimestampFormat::Seconds), Some(ns));
        assert_eq!(parse("1700000000123", TimestampFormat::Milliseconds), Some(1_700_000_000_123_000_000));
        assert_eq!(parse("1.7e9", TimestampFormat::Seconds), Some(1_700_000_000_000_000_000));
        assert_eq!(parse("-1.5", TimestampFormat::Seconds), Some(-1_500_000_000));
        for bad in ["", "now", "1e99", "99999999999999", ".5", "1.2.3", "0x10", "1e"] {
            assert_eq!(parse(bad, TimestampFormat::Seconds), None, "{bad}");
        }
    }

    #[test]
    fn rfc3339_is_read_with_zone_and_fraction() {
        let parse = |text| parse(text, TimestampFormat::Rfc3339);
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2023-11-14T22:13:20.5Z"), Some(1_700_000_000_500_000_000));
        assert_eq!(parse("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse("2024-02-29 00:00:00Z"), Some(1_709_164_800_000_000_000));
        assert_eq!(parse("1969-12-31T23:59:59.999999999Z"), Some(-1));
        for bad in ["2023-02-29T00:00:00Z", "2023-13-01T00:00:00Z", "2023-01-01T24:00:00Z", "2023-01-01", "é"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("2023-01-01T00:00:00"), None, "a time without a zone is nobody's time");
    }
}
