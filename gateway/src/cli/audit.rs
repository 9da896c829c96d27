//! `forebay audit`: the ledger against what the databases count. The running gateway does it; if none runs, this process does.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::control::{Gateway, NotRunning, talk};
use super::{plain, sinks, some};
use crate::audit::{Auditor, BootReport, DeviceReport, PATIENCE, Report, SinkReport, Verdict};
use crate::config::Loaded;

/// Devices with nothing to be said about that are shown of each sink.
const MAX_DEVICES: usize = 20;

/// Prints what was found; the exit status says what that is.
pub(super) fn run(loaded: &Loaded, json: bool) -> ExitCode {
    let done = found(loaded).and_then(|report| {
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", render(&report));
        }
        Ok(report.verdict)
    });
    match done {
        Ok(Verdict::Exact | Verdict::Consistent) => ExitCode::SUCCESS,
        Ok(Verdict::Difference) => ExitCode::from(1),
        Ok(Verdict::Unverifiable) => ExitCode::from(2),
        Err(error) => {
            eprintln!("forebay: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn found(loaded: &Loaded) -> Result<Report> {
    let config = &loaded.config;
    let gateway = match Gateway::find(&config.data_dir) {
        Ok(gateway) => gateway,
        Err(error) if error.is::<NotRunning>() => {
            let config =
                loaded.complete().context("no gateway runs, so the databases are asked from here")?;
            let journal = sinks::open(config)?;
            let config =
                journal.with_state(|state| config.beside(state.sinks().iter().map(|sink| &*sink.name)));
            let report = Auditor::new(&config)?.audit(&journal);
            journal.close();
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let sinks = config.influxdb.len() + usize::from(config.sqlite.is_some());
    let limit = PATIENCE.saturating_mul(u32::try_from(sinks).unwrap_or(u32::MAX).saturating_add(1));
    let text = talk(async {
        let answer = tokio::time::timeout(limit, async {
            gateway.get("/api/v1/audit", &[]).await?.text().await.context("the gateway hung up")
        });
        let late =
            || format!("the gateway runs and does not answer within {} s; see its log", limit.as_secs());
        answer.await.with_context(late)?
    })?;
    serde_json::from_str(&text)
        .context("the answer cannot be read; is the gateway of the same version as this command?")
}

/// A table for each sink, and one sentence.
fn render(report: &Report) -> String {
    let mut page = String::new();
    for (name, sink) in &report.sinks {
        push_sink(&mut page, name, sink);
    }
    page.push_str(&sentence(report));
    page
}

fn push_sink(page: &mut String, name: &str, sink: &SinkReport) {
    let is_counted = sink.verdict != Verdict::Unverifiable || !sink.devices.is_empty();
    let stored = if is_counted { sink.stored.to_string() } else { "unknown".to_owned() };
    // Formatting into a String cannot fail.
    let _ = writeln!(
        page,
        "{}: {}, {} confirmed, {stored} points stored{}",
        plain(name),
        word(sink.verdict),
        some(sink.confirmed, "row"),
        absent(sink.dead_lettered, sink.lost)
    );
    if let Some(reason) = &sink.reason {
        let _ = writeln!(page, "  {}", plain(reason));
    }
    if sink.devices.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "  {:<24}{:>12}{:>12}{:>12}{:>10}  ",
        "device", "confirmed", "expected", "stored", "lost"
    );
    let quiet = |device: &DeviceReport| {
        device.verdict == Verdict::Exact && device.notes.is_empty() && device.lost + device.dead_lettered == 0
    };
    let mut left_out = 0;
    let mut shown = 0;
    for (device, found) in &sink.devices {
        if quiet(found) && shown >= MAX_DEVICES {
            left_out += 1;
            continue;
        }
        shown += usize::from(quiet(found));
        push_device(page, device, found);
    }
    if left_out > 0 {
        let _ = writeln!(page, "  and {left_out} devices that are exact, and have lost nothing");
    }
}

fn push_device(page: &mut String, name: &str, found: &DeviceReport) {
    let name = if name.is_empty() { "(without a device)".to_owned() } else { plain(name) };
    let expected = match found.expected {
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least}-{most}"),
    };
    let what = match (found.missing, found.surplus) {
        (0, 0) => word(found.verdict).to_owned(),
        (missing, 0) => format!("{}: {missing} missing", word(found.verdict)),
        (_, surplus) => format!("{}: {surplus} too many", word(found.verdict)),
    };
    let _ = writeln!(
        page,
        "  {name:<24}{:>12}{expected:>12}{:>12}{:>10}  {what}",
        found.confirmed, found.stored, found.lost
    );
    if found.dead_lettered > 0 {
        let _ = writeln!(
            page,
            "    unreadable or refused: {}; `forebay dead-letters list` shows what is kept of them",
            some(found.dead_lettered, "row")
        );
    }
    if found.shared > 0 {
        let _ = writeln!(page, "    with series and time of an earlier one: {}", some(found.shared, "row"));
    }
    if found.swept > 0 {
        let _ = writeln!(page, "    {} of the points were deleted by the retention since", found.swept);
    }
    for boot in found.boots.iter().filter(|_| found.boots.len() > 1) {
        push_boot(page, boot);
    }
    for note in &found.notes {
        let _ = writeln!(page, "    {}", plain(note));
    }
}

/// One line of a device that has more than one boot.
fn push_boot(page: &mut String, boot: &BootReport) {
    let name = boot.boot.map_or_else(|| "earlier boots".to_owned(), |boot| format!("boot {boot}"));
    let BootReport { learned, confirmed, unconfirmed, dead_lettered, lost, .. } = boot;
    let _ = write!(page, "    {name}: {learned} learned, {confirmed} confirmed, {unconfirmed} unconfirmed");
    page.push_str(&absent(*dead_lettered, *lost));
    page.push('\n');
}

/// Rows that are no points, for the end of a line.
fn absent(dead_lettered: u64, lost: u64) -> String {
    let mut text = String::new();
    for (rows, what) in
        [(dead_lettered, "dead-lettered"), (lost, "lost")].into_iter().filter(|(rows, _)| *rows > 0)
    {
        let _ = write!(text, ", {rows} {what}");
    }
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Exact => "exact",
        Verdict::Consistent => "consistent",
        Verdict::Unverifiable => "unverifiable",
        Verdict::Difference => "different",
    }
}

fn sentence(report: &Report) -> String {
    let of = |verdict: Verdict| {
        let names = report.sinks.iter().filter(|(_, sink)| sink.verdict == verdict);
        names.map(|(name, _)| plain(name)).collect::<Vec<_>>().join(", ")
    };
    match report.verdict {
        Verdict::Exact => "Every database holds exactly the points that the ledger says.\n".to_owned(),
        Verdict::Consistent => format!(
            "No more is missing, and no more is there, than the ledger allows; of some rows in {} it cannot be told whether they are points there.\n",
            of(Verdict::Consistent)
        ),
        Verdict::Unverifiable => {
            format!(
                "It cannot be told whether {} has everything; the reasons stand above.\n",
                of(Verdict::Unverifiable)
            )
        }
        Verdict::Difference => {
            format!("The ledger and {} differ, as marked above.\n", of(Verdict::Difference))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_lost_and_where_the_rest_is() {
        let device = DeviceReport {
            confirmed: 7,
            expected: (7, 7),
            stored: 7,
            dead_lettered: 2,
            lost: 13,
            ..DeviceReport::default()
        };
        let sink = SinkReport {
            confirmed: 7,
            stored: 7,
            dead_lettered: 2,
            lost: 13,
            devices: [("porch".to_owned(), device)].into(),
            ..SinkReport::default()
        };
        let mut page = String::new();
        push_sink(&mut page, "main", &sink);
        let words: Vec<Vec<&str>> = page.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            page.lines().next(),
            Some("main: exact, 7 rows confirmed, 7 points stored, 2 dead-lettered, 13 lost")
        );
        assert_eq!(words[1], ["device", "confirmed", "expected", "stored", "lost"]);
        assert_eq!(words[2], ["porch", "7", "7", "7", "13", "exact"]);
        assert_eq!(words[3][..5], ["unreadable", "or", "refused:", "2", "rows;"]);
        assert_eq!(absent(0, 0), "");
    }

    #[test]
    fn what_could_not_be_counted_is_unknown() {
        let (verdict, reason) = (Verdict::Unverifiable, Some("no answer".to_owned()));
        let mut page = String::new();
        push_sink(
            &mut page,
            "main",
            &SinkReport { verdict, reason, confirmed: 7, lost: 2, ..SinkReport::default() },
        );
        assert_eq!(
            page,
            "main: unverifiable, 7 rows confirmed, unknown points stored, 2 lost\n  no answer\n"
        );
    }

    #[test]
    fn a_device_that_has_lost_rows_is_shown_however_many_are_exact() {
        let device = |lost| DeviceReport { lost, ..DeviceReport::default() };
        let devices = (0..30).map(|at| (format!("d{at:02}"), device(u64::from(at == 29)))).collect();
        let mut page = String::new();
        push_sink(&mut page, "main", &SinkReport { devices, ..SinkReport::default() });
        assert!(page.contains("  d29 ") && !page.contains("  d28 "), "{page}");
        assert!(page.ends_with("and 9 devices that are exact, and have lost nothing\n"), "{page}");
    }
}
