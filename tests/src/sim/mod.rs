//! The commands of `forebay-sim`.

pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod load;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

/// Runs the gateway's own command line in this process.
pub(crate) fn gateway() -> ExitCode {
    // What follows `forebay-sim` reads like the gateway's own command line, `gateway` standing for the program's name.
    forebay_gateway::cli::main_with(std::env::args_os().skip(1))
}

/// Reads `20s`, `500ms`, `2m`, `1h` or a bare number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no duration; write 20s, 500ms or 2m"))?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("{unit:?} is no unit of time; write 20s, 500ms or 2m")),
    }
}

/// Host and port of an `mqtt://` URL.
pub(crate) fn parse_broker(url: &str) -> anyhow::Result<(String, u16)> {
    let rest = url.strip_prefix("mqtt://").with_context(|| format!("{url} does not begin with mqtt://"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "1883"));
    anyhow::ensure!(
        !host.is_empty() && !host.contains('@'),
        "{url} must be mqtt://HOST:PORT, without credentials"
    );
    Ok((host.to_owned(), port.parse().with_context(|| format!("the port of {url}"))?))
}

#[cfg(test)]
mod tests {
    use super::{parse_broker, parse_duration};
    use std::time::Duration;

    #[test]
    fn durations_and_brokers_are_read() {
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err() && parse_duration("1d").is_err());
        assert_eq!(parse_broker("mqtt://h:7").unwrap(), ("h".into(), 7));
        assert_eq!(parse_broker("mqtt://h").unwrap(), ("h".into(), 1883));
        assert!(parse_broker("http://h").is_err() && parse_broker("mqtt://u:p@h:1").is_err());
    }
}
