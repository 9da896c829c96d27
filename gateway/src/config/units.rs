//! Sizes, durations and numbers with their units.

use std::time::Duration;

/// Reads `"1GiB"`: a whole number and a unit, binary or decimal.
///
/// # Errors
/// Says how sizes are written.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write \"512KiB\", \"64MiB\" or \"1GiB\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Reads `"250ms"`: a whole number and a unit.
///
/// # Errors
/// Says how durations are written.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write \"250ms\", \"10s\", \"5m\", \"12h\" or \"30d\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// The same duration in the unit that fits, as messages and cures write it.
pub(super) fn write_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_nanos() > 0 || seconds == 0 => format!("{}ms", duration.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// The same size in the largest binary unit that divides it.
pub(super) fn write_size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(factor, _)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(factor, name)| format!("{}{name}", bytes / factor))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0B", 0), ("512KiB", 524_288), ("1GiB", 1 << 30), ("2 MB", 2_000_000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1", "GiB", "1gib", "-1GiB", "1.5GiB", "99999999999TiB", "18446744073709551616B"] {
            assert!(size(text).is_err(), "{text}");
        }
        for bytes in [0, 1, 1024, 1025, 2 << 20, 1 << 30] {
            assert_eq!(size(&write_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("0ms", 0), ("250ms", 250), ("1s", 1000), ("10m", 600_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "1", "ms", "1 fortnight", "-1s", "1.5s", "1h30m", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for ms in [0, 1, 999, 1000, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration_ms = Duration::from_millis(ms);
            assert_eq!(duration(&write_duration(duration_ms)), Ok(duration_ms));
        }
    }
}
