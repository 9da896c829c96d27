//! What an operator has to know, worst first: whether anything is being lost, what is wrong, and what to do about it.
//!
//! It is made of a [`Status`] alone, so that a page, a command and a test say the same of the same state.

use serde::{Deserialize, Serialize};

use super::SourceState;
use super::status::{SinkReport, SourceReport, Status};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Rows are being lost, or are refused.
    Loss,
    /// Nothing is lost, and somebody has to do something before it is.
    Trouble,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter, in a few words.
    pub what: String,
    /// Why, and what to do about it.
    pub cure: String,
}

impl Finding {
    fn new(severity: Severity, what: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { severity, what: what.into(), cure: cure.into() }
    }

    /// What is wrong in this status, worst first.
    #[must_use]
    pub fn all(status: &Status) -> Vec<Finding> {
        let mut findings: Vec<Finding> = losses(status).into_iter().chain(journal(status)).collect();
        findings.extend(status.sinks.iter().filter_map(|(name, sink)| of_sink(name, sink)));
        findings.extend(status.sources.iter().filter_map(|(name, source)| of_source(name, source)));
        findings.extend(clock(status));
        findings.sort_by_key(|finding| finding.severity);
        findings
    }

    /// The findings in one sentence.
    #[must_use]
    pub fn verdict(findings: &[Finding]) -> String {
        let Some(first) = findings.first() else { return "Nothing is being lost.".to_owned() };
        let others = match findings.len() - 1 {
            0 => String::new(),
            1 => ", and one thing more".to_owned(),
            others => format!(", and {others} things more"),
        };
        match first.severity {
            Severity::Loss => format!("Rows are being lost: {}{others}.", first.what),
            Severity::Trouble => format!("Nothing is being lost, but {}{others}.", first.what),
        }
    }
}

fn losses(status: &Status) -> Option<Finding> {
    let rows = status.lost_rows_lately;
    let mut causes: Vec<_> = status.gap_rows.iter().filter(|(_, rows)| **rows > 0).collect();
    causes.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
    let causes: Vec<&str> = causes.into_iter().map(|(cause, _)| cause.as_str()).collect();
    let what = format!("{rows} were declared lost in the last ten seconds");
    let cure = format!(
        "The causes so far: {}. `overflow` and `overrun` are a device's memory, which is too small for how long it had to \
         wait; `evicted` is the journal's: bring the database back, or raise [journal] max_bytes.",
        causes.join(", ")
    );
    (rows > 0).then(|| Finding::new(Severity::Loss, what, cure))
}

fn journal(status: &Status) -> Option<Finding> {
    let journal = &status.journal;
    let trouble = journal.last_error.clone();
    match journal.state.as_str() {
        "failed" => Some(Finding::new(
            Severity::Loss,
            "the journal takes nothing any more",
            trouble.unwrap_or_else(|| {
                "Look into the log, mend the disk under data_dir, and restart.".to_owned()
            }),
        )),
        "full" => Some(Finding::new(
            Severity::Trouble,
            "the journal is full, so that senders are held back",
            "Bring back the database that lacks rows, or raise [journal] max_bytes; what devices cannot keep meanwhile they \
             declare as lost.",
        )),
        _ => trouble.map(|trouble| Finding::new(Severity::Trouble, "the disk has trouble", trouble)),
    }
}

fn of_sink(name: &str, sink: &SinkReport) -> Option<Finding> {
    let why = || sink.last_error.clone().unwrap_or_else(|| "The log says why".to_owned());
    let (what, cure) = match sink.state.as_str() {
        "retrying" => (
            format!("the database {name} is away"),
            format!(
                "{}. Its rows are kept and sent again; see that it runs, and can be reached from here.",
                why()
            ),
        ),
        "holding" => (format!("the database {name} waits for somebody to mend something"), why()),
        _ => return None,
    };
    Some(Finding::new(Severity::Trouble, what, cure))
}

fn of_source(name: &str, source: &SourceReport) -> Option<Finding> {
    if let Some(alarm) = &source.alarm {
        return Some(Finding::new(
            Severity::Trouble,
            format!("the queue of {name} may overflow"),
            alarm.clone(),
        ));
    }
    (source.state == SourceState::Disconnected).then(|| {
        let cure = source.last_error.clone().unwrap_or_else(|| "Look into the log.".to_owned());
        Finding::new(Severity::Trouble, format!("{name} is not connected"), cure)
    })
}

fn clock(status: &Status) -> Option<Finding> {
    let waiting = status.clock.waiting_rows;
    (!status.clock_trusted && waiting > 0).then(|| {
        let what = format!("{waiting} rows wait until this machine knows the time");
        let cure = format!(
            "{}. Let it reach a time server, or see [clock] in the configuration; at the latest in {} s the time is estimated.",
            status.clock.reason, status.clock.wait_s
        );
        Finding::new(Severity::Trouble, what, cure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Belief;
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Journal, Options};
    use crate::stats::{Pulse, Stats};

    fn status(change: impl FnOnce(&Stats)) -> Status {
        let storage = std::sync::Arc::new(MemoryStorage::new());
        let (journal, _) = Journal::open(storage, &Options::sized(4 << 20)).unwrap();
        let stats = Stats::new(0);
        change(&stats);
        Status::of(&journal, &stats, 1, Belief::Told)
    }

    #[test]
    fn a_gateway_that_is_well_says_so() {
        let status = status(|stats| {
            stats.source("mqtt://a").recover();
            stats.source("usb:2e8a:*").await_device();
        });
        assert_eq!((status.findings, status.verdict.as_str()), (Vec::new(), "Nothing is being lost."));
    }

    #[test]
    fn what_is_wrong_is_named_with_a_cure_and_losses_come_first() {
        let mut status = status(|stats| {
            stats.source("/dev/a").fail(SourceState::Disconnected, 1, "it is not there; plug it in");
            stats.source("mqtt://b").recover();
            stats.source("mqtt://b").set_alarm(Some("acks are held back".to_owned()));
        });
        let whats = |status: &Status| status.findings.iter().map(|of| of.what.clone()).collect::<Vec<_>>();
        assert_eq!(whats(&status), ["/dev/a is not connected", "the queue of mqtt://b may overflow"]);
        assert_eq!(status.findings[0].cure, "it is not there; plug it in");
        assert_eq!(status.verdict, "Nothing is being lost, but /dev/a is not connected, and one thing more.");

        status
            .sinks
            .insert("main".to_owned(), SinkReport { state: "retrying".to_owned(), ..SinkReport::default() });
        status.journal.state = "full".to_owned();
        status.lost_rows_lately = 7;
        status.gap_rows.insert("evicted".to_owned(), 70);
        status.findings = Finding::all(&status);
        assert_eq!(
            whats(&status)[..3],
            [
                "7 were declared lost in the last ten seconds",
                "the journal is full, so that senders are held back",
                "the database main is away"
            ]
        );
        assert!(status.findings[0].cure.contains("so far: evicted."), "{}", status.findings[0].cure);
        let verdict = Finding::verdict(&status.findings);
        assert_eq!(
            verdict,
            "Rows are being lost: 7 were declared lost in the last ten seconds, and 4 things more."
        );
    }

    #[test]
    fn rates_are_those_that_were_measured_last() {
        let status = status(|stats| {
            stats.source("a").recover();
            stats.sink("main");
            let pulse = Pulse { sources: [("a".to_owned(), 2.5)].into(), lost_lately: 3, ..Pulse::default() };
            stats.set_pulse(pulse);
        });
        assert_eq!((status.sources["a"].rows_per_s, status.lost_rows_lately), (2.5, 3));
        assert_eq!((status.sinks["main"].rows_per_s, status.sinks["main"].backlog_age_s), (0.0, None));
        assert!(status.verdict.starts_with("Rows are being lost"), "{}", status.verdict);
    }
}
