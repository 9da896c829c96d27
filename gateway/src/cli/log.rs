//! The log, on standard error: a line of text or a JSON object for each event, whatever is in what it tells.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::LogLevel;

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// As people read it
    #[default]
    Text,
    /// As programs read it
    Json,
}

/// The variable that says what is told; it wins over the configuration.
const VARIABLE: &str = "FOREBAY_LOG";

/// Puts another filter in the place of the one that is used.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// Starts it, at `info` unless the variable FOREBAY_LOG says otherwise (`debug`, `forebay_gateway=trace`).
pub(super) fn start(format: Format) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    CHANGE.set(Box::new(move |filter| handle.reload(filter).is_ok())).ok();
    let lines = fmt::layer()
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(format == Format::Text && io::stderr().is_terminal())
        .with_target(false);
    let log = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => log.with(lines).init(),
        Format::Json => {
            log.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
        }
    }
}

/// Lets the log tell as much as the configuration says, unless a variable has said it; whether it was changed.
pub(crate) fn set_level(level: LogLevel) -> bool {
    let is_told = EnvFilter::try_from_env(VARIABLE).is_ok();
    !is_told && CHANGE.get().is_some_and(|change| change(EnvFilter::new(level.as_str())))
}

/// Writes each event, which comes whole, as one line without a character that a terminal would obey. What escapes there were
/// in the values of an event has been made text before; those that are left colour it.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let is_odd = |c: char| c.is_control() && c != '\u{1b}';
        if line.contains(is_odd) {
            let line: String = line.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect();
            self.0.write_all(format!("{line}\n").as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = |event: &str| {
            let mut out = OneLine(Vec::new());
            out.write_all(event.as_bytes()).unwrap();
            String::from_utf8(out.0).unwrap()
        };
        assert_eq!(written("INFO all is well\n"), "INFO all is well\n");
        assert_eq!(written("INFO a\r\nINFO forged\n"), "INFO a\u{fffd}\u{fffd}INFO forged\n");
        assert_eq!(
            written("\u{1b}[32mINFO\u{1b}[0m \u{9b}2J\u{7f}\n"),
            "\u{1b}[32mINFO\u{1b}[0m \u{fffd}2J\u{fffd}\n"
        );
    }
}
