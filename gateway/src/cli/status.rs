//! `forebay status`: one screen about the running gateway.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::control::{Gateway, talk};
use super::{plain, some};
use crate::stats::status::{SinkReport, SourceReport};
use crate::stats::{Finding, Ledger, SourceState, Status};

/// Devices shown; the others are counted.
const MAX_DEVICES: usize = 20;

/// Prints the status, once or every second.
///
/// # Errors
/// No gateway runs, or it hung up.
pub(super) fn run(data_dir: &Path, json: bool, watch: bool) -> Result<()> {
    let gateway = Gateway::find(data_dir)?;
    talk(async {
        let mut was_there = false;
        loop {
            let page = match gateway.status().await {
                Ok((text, _)) if json => text + "\n",
                Ok((_, status)) if watch => on_cleared(&render(&status)),
                Ok((_, status)) => render(&status),
                // Whoever watches sees the gateway come back.
                Err(error) if was_there && watch && !json => on_cleared(&format!(
                    "{}\nlooking for it again every second\n",
                    plain(&format!("{error:#}"))
                )),
                Err(error) => return Err(error),
            };
            was_there = true;
            let mut out = io::stdout().lock();
            match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("standard output cannot be written")?,
            }
            drop(out);
            if !watch {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Home and clear: the page stands still while its numbers change.
fn on_cleared(page: &str) -> String {
    format!("\x1b[H\x1b[2J{page}")
}

/// The page.
fn render(status: &Status) -> String {
    let mut page = Page { now_ns: status.now_ns, ..Page::default() };
    let up = Duration::from_nanos(status.now_ns.saturating_sub(status.started_ns).max(0).unsigned_abs());
    page.line(&format!(
        "forebay {} up {} pid {}, {}",
        status.version,
        span(up),
        status.pid,
        url(&status.http.listen)
    ));
    // A gateway of an earlier version says none.
    if !status.verdict.is_empty() {
        page.line(&plain(&status.verdict));
    }
    page.findings(&status.findings);
    let clock = &status.clock;
    let reason = plain(&clock.reason);
    if status.clock_trusted {
        page.line(&format!("clock      believed: {reason}"));
    } else {
        page.line(&format!("clock      not believed for {} s at most: {reason}", clock.wait_s));
        page.line(&format!(
            "           safe and without their time yet: {} (see [clock] in the configuration)",
            some(clock.waiting_rows, "row")
        ));
    }
    if clock.estimated_rows > 0 {
        page.line(&format!("           times estimated so far: {}", some(clock.estimated_rows, "row")));
    }
    let journal = &status.journal;
    let (bytes, max_bytes) = (size(journal.bytes), size(journal.max_bytes));
    page.line(&format!(
        "journal    {}, {bytes} of {max_bytes}, {} commits",
        plain(&journal.state),
        journal.commits
    ));
    if let Some(error) = &journal.last_error {
        page.line(&format!("           {}", plain(error)));
    }
    if clock.waiting_messages > 0 {
        page.line(&format!("           {} messages wait for room in it", clock.waiting_messages));
    }
    page.line(&format!("ledger     {}", ledger(&status.ledger)));

    page.heading("sources");
    for (name, source) in &status.sources {
        page.source(name, source);
    }
    page.heading("sinks");
    for (name, sink) in &status.sinks {
        page.sink(name, sink);
    }
    page.heading("devices");
    for (key, device) in status.devices.iter().take(MAX_DEVICES) {
        let name = if device.name == *key {
            plain(key)
        } else {
            format!("{} ({})", plain(&device.name), plain(key))
        };
        let rows = Ledger::worst(device.sinks.values());
        let rows = rows.map_or_else(|| some(device.rows, "row"), |rows| ledger(&rows));
        page.line(&format!("  {name}: {rows}"));
    }
    if let more @ 1.. = status.devices.len().saturating_sub(MAX_DEVICES) {
        page.line(&format!("  and {more} more; see --json"));
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    now_ns: i64,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.line(&format!("\n{text}"));
    }

    fn entry(&mut self, name: &str, state: &str, rows: &str) {
        self.line(&format!("  {}: {}, {rows}", plain(name), plain(state)));
    }

    fn source(&mut self, name: &str, source: &SourceReport) {
        let state = match source.state {
            SourceState::Starting => "starting",
            SourceState::Connected => "connected",
            SourceState::Waiting => "waiting for a device",
            SourceState::Disconnected => "disconnected",
            SourceState::Stopped => "stopped",
        };
        let bad = if source.bad_messages > 0 {
            format!(", {}", some(source.bad_messages, "bad message"))
        } else {
            String::new()
        };
        // Nothing that cannot be acknowledged ever is.
        let acked = if source.unprotected {
            "unprotected".to_owned()
        } else {
            format!("{} acked", source.rows_acked)
        };
        let mut rows = format!("{} received, {acked}{bad}", some(source.rows_received, "row"));
        if source.doubtful_messages > 0 {
            rows += &format!(
                ", {} sent again that may be stored twice",
                some(source.doubtful_messages, "message")
            );
        }
        if source.dropped_messages > 0 {
            rows +=
                &format!(", {} at QoS 0 dropped for want of room", some(source.dropped_messages, "message"));
        }
        for (filter, messages) in source.unprotected_messages.iter().filter(|(_, messages)| **messages > 0) {
            rows += &format!(", {} of {filter} unprotected at QoS 0", some(*messages, "message"));
        }
        if let Some(dropped) = source.broker_dropped_messages.filter(|dropped| *dropped > 0) {
            rows += &format!(", {} dropped by the broker", some(dropped, "message"));
        }
        self.entry(name, state, &rows);
        if source.state != SourceState::Disconnected || source.alarm.is_some() {
            self.trouble(source.last_error.as_deref(), source.last_error_ns);
        }
        if let Some(alarm) = &source.alarm {
            self.line(&format!("    alarm: {}", plain(alarm)));
        }
    }

    fn sink(&mut self, name: &str, sink: &SinkReport) {
        let state = if sink.state.is_empty() { "not configured" } else { &sink.state };
        let rows = format!(
            "since the start {} confirmed and {} refused, {} waiting",
            some(sink.rows_confirmed, "row"),
            sink.rows_rejected,
            sink.backlog_rows
        );
        self.entry(name, state, &rows);
        if !matches!(&*sink.state, "retrying" | "holding") {
            self.trouble(sink.last_error.as_deref(), sink.last_error_ns);
        }
    }

    /// All that is wrong, with what to do about it.
    fn findings(&mut self, findings: &[Finding]) {
        for Finding { what, cure, .. } in findings {
            self.line(&format!("  {}", plain(what)));
            self.line(&format!("    {}", plain(cure)));
        }
    }

    /// The latest error, and how long ago it was. It is over: one that lasts is among the findings.
    fn trouble(&mut self, error: Option<&str>, at_ns: Option<i64>) {
        let Some(error) = error else { return };
        let ago = at_ns.map(|at| Duration::from_nanos(self.now_ns.saturating_sub(at).max(0).unsigned_abs()));
        let ago = ago.map_or_else(String::new, |ago| format!(", {} ago", span(ago)));
        self.line(&format!("    last error{ago}: {}", plain(error)));
    }
}

fn ledger(ledger: &Ledger) -> String {
    let mut text = format!("learned {}, stored {}", ledger.learned, ledger.confirmed);
    for (what, rows) in [
        ("queued", ledger.queued),
        ("unconfirmed", ledger.unconfirmed),
        ("dead-lettered", ledger.dead_lettered),
        ("still with the device", ledger.not_yet_received),
    ] {
        if rows > 0 {
            // Writing into a String cannot fail.
            let _ = write!(text, ", {what} {rows}");
        }
    }
    let _ = write!(text, ", lost {}", ledger.lost());
    for (at, (cause, rows)) in ledger.gaps.iter().enumerate() {
        let _ = write!(text, "{}{} {rows}", if at == 0 { " (" } else { ", " }, plain(cause));
    }
    if !ledger.gaps.is_empty() {
        text.push(')');
    }
    text
}

/// Where a browser finds the gateway. One that listens on all addresses is found by this machine's name.
fn url(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("http://{}:{}/", plain(&name), address.port())
        }
        _ => format!("http://{}/", plain(listen)),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stats::Severity;

    #[test]
    fn an_address_is_one_that_a_browser_can_open() {
        assert_eq!(url("127.0.0.1:8686"), "http://127.0.0.1:8686/");
        assert_eq!(url("[fd00::1]:80"), "http://[fd00::1]:80/");
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for all in ["0.0.0.0:8686", "[::]:8686"] {
            assert_eq!(url(all), format!("http://{name}:8686/"));
        }
    }

    #[test]
    fn an_error_is_told_with_how_long_ago_it_was() {
        let minute = 60_000_000_000;
        let mut page = Page { now_ns: 6 * minute, ..Page::default() };
        page.trouble(None, None);
        page.trouble(Some("no answer"), Some(minute));
        page.trouble(Some("no answer"), None);
        page.now_ns = 0;
        page.trouble(Some("no answer"), Some(minute));
        let lines: Vec<&str> = page.text.lines().map(str::trim).collect();
        let expected =
            ["last error, 5 min ago: no answer", "last error: no answer", "last error, 0 s ago: no answer"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_what_to_do_about_it() {
        let finding = |at: usize| Finding {
            severity: Severity::Trouble,
            what: format!("thing {at} is wrong"),
            cure: format!("Mend \u{1b}[31m{at}."),
        };
        let mut page = Page::default();
        page.findings(&[finding(0), finding(1)]);
        let lines: Vec<&str> = page.text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (4, "  thing 0 is wrong", "  thing 1 is wrong"));
        assert!(lines[3].ends_with("[31m1.") && !page.text.contains('\u{1b}'), "{}", page.text);
    }

    #[test]
    fn a_database_is_told_since_when_it_is_counted() {
        let sink = SinkReport {
            state: "running".to_owned(),
            rows_confirmed: 7,
            backlog_rows: 2,
            last_error: Some("no answer".to_owned()),
            last_error_ns: Some(4_000_000_000),
            ..SinkReport::default()
        };
        let mut page = Page { now_ns: 9_000_000_000, ..Page::default() };
        page.sink("main", &sink);
        let expected = "  main: running, since the start 7 rows confirmed and 0 refused, 2 waiting\n    last error, 5 s ago: no answer\n";
        assert_eq!(page.text, expected);
        page.text.clear();
        page.sink("main", &SinkReport { state: "retrying".to_owned(), ..sink });
        assert!(!page.text.contains("no answer"), "it stands at the top: {}", page.text);
    }

    #[test]
    fn the_ledger_says_what_is_not_zero() {
        let mut rows = Ledger { learned: 10, confirmed: 10, ..Ledger::default() };
        assert_eq!(ledger(&rows), "learned 10, stored 10, lost 0");
        rows = Ledger { learned: 15, queued: 2, gaps: BTreeMap::from([("overflow".to_owned(), 3)]), ..rows };
        assert_eq!(ledger(&rows), "learned 15, stored 10, queued 2, lost 3 (overflow 3)");
    }
}
