//! What an operator has to know, worst first: whether anything is being lost, what is wrong, and what to do about it.
//!
//! It is made of a [`Status`] alone, so that a page, a command and a test say the same of the same state.

use serde::{Deserialize, Serialize};

use super::SourceState;
use super::status::{SinkReport, SourceReport, Status};
use crate::dead_letters::Dropped;
use crate::terminal::some;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Rows are being lost.
    Loss,
    /// Nothing is being lost now; somebody has to do something before it is, or to know of what one database lacks.
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
        let mut findings: Vec<Finding> = losses(status).into_iter().chain(journal_gone(status)).collect();
        findings.extend(status.sources.iter().flat_map(|(name, source)| losses_of_source(name, source)));
        findings.extend(losses_of_letters(status).into_iter().chain(dropped_health(status)));
        findings.extend(journal(status).into_iter().chain(measuring(status)));
        findings.extend(status.sinks.iter().filter_map(|(name, sink)| of_sink(name, sink)));
        findings.extend(status.sinks.iter().filter_map(|(name, sink)| losses_of_sink(name, sink)));
        findings.extend(status.sinks.iter().filter_map(|(name, sink)| refusals(name, sink)));
        findings.extend(status.sources.iter().filter_map(|(name, source)| of_source(name, source)));
        findings.extend(status.sources.iter().filter_map(|(name, source)| unreadable(name, source)));
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
    let cure = format!("The causes so far: {}. {}", causes.join(", "), explained(&causes));
    (rows > 0).then(|| Finding::new(Severity::Loss, what, cure.trim_end()))
}

/// What causes of losses are, and what to do about each.
fn explained(causes: &[&str]) -> String {
    let explanations: [(&[&str], &str); 4] = [
        (
            &["overflow", "overrun"],
            "`overflow` and `overrun` are a device's memory, which is too small for how long it had to wait. ",
        ),
        (
            &["damaged"],
            "`damaged` is what the disk under data_dir gives back no more: see `dmesg`, and replace it if this comes again. ",
        ),
        (
            &["evicted"],
            "`evicted` made room in the journal: bring the database back sooner, raise [journal] max_bytes, or make room on \
             the disk if that was full. ",
        ),
        (
            &["sink_reset"],
            "`sink_reset` went with the file of the embedded database, which was removed or replaced. ",
        ),
    ];
    let of = explanations.into_iter().filter(|(names, _)| names.iter().any(|name| causes.contains(name)));
    of.map(|(_, text)| text).collect()
}

fn losses_of_source(name: &str, source: &SourceReport) -> impl Iterator<Item = Finding> + use<> {
    let own = source.dropped_messages_lately;
    let own = (own > 0).then(|| {
        Finding::new(
            Severity::Loss,
            format!("the gateway dropped {} of {name} at QoS 0 in the last ten seconds", some(own, "message")),
            "They came faster than the journal could take them, and nobody sends them again. Let the sender publish, and \
             [[mqtt.subscribe]] ask, at QoS 1, so that they wait at the broker; see what else is wrong here: a full \
             journal, or a disk that is too slow.",
        )
    });
    let broker = source.broker_dropped_messages_lately;
    let broker = (broker > 0).then(|| {
        Finding::new(
            Severity::Loss,
            format!("the broker {name} dropped {} in the last ten seconds", some(broker, "message")),
            "Its queue for this client or another one was full; it does not say whose. Raise max_queued_messages of \
             mosquitto, see docs/guarantees.md.",
        )
    });
    own.into_iter().chain(broker)
}

fn losses_of_letters(status: &Status) -> Option<Finding> {
    let Dropped { letters, rows } = status.dead_letters_dropped_lately;
    (letters > 0).then(|| {
        Finding::new(
            Severity::Loss,
            format!(
                "{} with {} made room for new ones in the last ten seconds",
                some(letters, "dead letter"),
                some(rows, "row")
            ),
            "Raise [dead_letters] max_bytes, and see with `forebay dead-letters list` why there are so many.",
        )
    })
}

/// They are no readings, and none of them can be dated while the clock is not believed.
fn dropped_health(status: &Status) -> Option<Finding> {
    let rows = status.health_dropped_rows_lately;
    (rows > 0).then(|| {
        Finding::new(
            Severity::Trouble,
            format!("the gateway dropped {} of its own health in the last ten seconds", some(rows, "row")),
            "The journal is full, or the gateway's clock is not believed yet; readings have the room that there is.",
        )
    })
}

/// Nobody can count what was in it, so that no other number tells of it.
fn journal_gone(status: &Status) -> Option<Finding> {
    status.journal.was_gone.then(|| {
        Finding::new(
            Severity::Loss,
            "the journal was gone at the start, and nobody can count the rows that it held",
            "The directory `journal` under data_dir was missing although the gateway had been in use. If you have it, stop \
             the gateway and put it back in place of the new one; what came meanwhile is in the new one. If not, see \
             who removed it; this is said until the next start.",
        )
    })
}

/// That is over, and stays said: the database lacks these rows for good, whatever the others have.
fn losses_of_sink(name: &str, sink: &SinkReport) -> Option<Finding> {
    let rows: u64 = sink.gaps_since_start.values().sum();
    let causes: Vec<&str> = sink.gaps_since_start.keys().map(String::as_str).collect();
    let counts: Vec<String> =
        sink.gaps_since_start.iter().map(|(cause, rows)| format!("`{cause}` {rows}")).collect();
    let cure = format!(
        "By cause: {}. {}Another database may have these rows. This is said until the next start.",
        counts.join(", "),
        explained(&causes)
    );
    let what = format!("the database {name} lacks {} lost since the start", some(rows, "row"));
    (rows > 0).then(|| Finding::new(Severity::Trouble, what, cure))
}

/// What a database refuses is kept aside, and no loss.
fn refusals(name: &str, sink: &SinkReport) -> Option<Finding> {
    let (rows, when) = match (sink.rows_rejected_lately, sink.refused_since_start) {
        (0, rows) => (rows, "since the start"),
        (rows, _) => (rows, "in the last ten seconds"),
    };
    (rows > 0).then(|| {
        Finding::new(
            Severity::Trouble,
            format!("the database {name} refused {} {when}, kept as dead letters", some(rows, "row")),
            "`forebay dead-letters list` says why. Mend that, and have them sent again with `forebay dead-letters replay`.",
        )
    })
}

fn measuring(status: &Status) -> Option<Finding> {
    status.is_measuring_overdue.then(|| {
        Finding::new(
            Severity::Trouble,
            "nothing was measured for five seconds, so that losses would not be seen",
            "The machine is too busy, or its disk does not answer; see `top`, and `dmesg`.",
        )
    })
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
            format!(
                "{}; what devices cannot keep meanwhile they declare as lost.",
                trouble.as_deref().unwrap_or(
                    "Bring back the database that lacks rows, raise [journal] max_bytes, or make room on the disk if that is \
                     full"
                )
            ),
        )),
        "stalled" => Some(Finding::new(
            Severity::Trouble,
            "the disk does not answer, and what has come waits for it",
            trouble.unwrap_or_else(|| "See in `dmesg` what ails the disk under data_dir.".to_owned()),
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
                "{}. What waits for it is sent again; {}.",
                why(),
                // Whoever says so can be reached.
                if why().contains("disk is full") {
                    "make room on its disk"
                } else {
                    "see that it runs, and can be reached from here"
                }
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

/// What cannot be read is kept aside, and no loss; but nobody has its readings.
fn unreadable(name: &str, source: &SourceReport) -> Option<Finding> {
    let bad = source.bad_messages_lately;
    (bad > 0).then(|| {
        Finding::new(
            Severity::Trouble,
            format!(
                "{} of {name} could not be read in the last ten seconds, kept as dead letters",
                some(bad, "message")
            ),
            "`forebay dead-letters list` says why, and `forebay explain` how a message is read. Mend the device, or what \
             the configuration says of its messages.",
        )
    })
}

fn clock(status: &Status) -> Option<Finding> {
    let waiting = status.clock.waiting_rows;
    (!status.clock_trusted && waiting > 0).then(|| {
        let what = format!("until this machine knows the time, {} must wait", some(waiting, "row"));
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
    use crate::stats::pulse::{SinkPulse, SourcePulse};
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

    fn of_pulse(pulse: Pulse) -> (Severity, String, String) {
        let mut status = status(|stats| {
            stats.source("mqtt://a").recover();
            stats.sink("main");
            stats.set_pulse(pulse);
        });
        assert_eq!(status.findings.len(), 1, "{:?}", status.findings);
        let Finding { severity, what, .. } = status.findings.remove(0);
        (severity, what, status.verdict)
    }

    #[test]
    fn whatever_is_lost_by_the_way_is_a_loss() {
        let source = |dropped, broker_dropped| Pulse {
            sources: [(
                "mqtt://a".to_owned(),
                SourcePulse { dropped, broker_dropped, ..SourcePulse::default() },
            )]
            .into(),
            ..Pulse::default()
        };
        let letters = Pulse { letters_dropped: Dropped { letters: 2, rows: 9 }, ..Pulse::default() };
        for (pulse, expected) in [
            (source(4, 0), "the gateway dropped 4 messages of mqtt://a at QoS 0 in the last ten seconds"),
            (source(0, 5), "the broker mqtt://a dropped 5 messages in the last ten seconds"),
            (letters, "2 dead letters with 9 rows made room for new ones in the last ten seconds"),
        ] {
            let (severity, what, verdict) = of_pulse(pulse);
            assert_eq!((severity, what.as_str()), (Severity::Loss, expected));
            assert_eq!(verdict, format!("Rows are being lost: {expected}."));
        }
    }

    #[test]
    fn what_is_refused_or_unknown_is_no_reason_to_say_that_all_is_well() {
        let sink = SinkPulse { rejected: 3, ..SinkPulse::default() };
        let refused = Pulse { sinks: [("main".to_owned(), sink)].into(), ..Pulse::default() };
        let overdue = Pulse { is_overdue: true, ..Pulse::default() };
        let health = Pulse { health_dropped: 1, ..Pulse::default() };
        let source = SourcePulse { bad: 2, ..SourcePulse::default() };
        let bad = Pulse { sources: [("mqtt://a".to_owned(), source)].into(), ..Pulse::default() };
        for (pulse, expected) in [
            (bad, "2 messages of mqtt://a could not be read in the last ten seconds, kept as dead letters"),
            (health, "the gateway dropped 1 row of its own health in the last ten seconds"),
            (refused, "the database main refused 3 rows in the last ten seconds, kept as dead letters"),
            (overdue, "nothing was measured for five seconds, so that losses would not be seen"),
        ] {
            let (severity, what, verdict) = of_pulse(pulse);
            assert_eq!((severity, what.as_str()), (Severity::Trouble, expected));
            assert_eq!(verdict, format!("Nothing is being lost, but {expected}."));
        }
    }

    #[test]
    fn who_lacks_room_is_told_to_make_room() {
        let sink = |said: &str| SinkReport {
            state: "retrying".to_owned(),
            last_error: Some(said.to_owned()),
            ..SinkReport::default()
        };
        let cure = |said| of_sink("main", &sink(said)).unwrap().cure;
        assert!(cure("database or disk is full").ends_with("sent again; make room on its disk."));
        assert!(cure("no answer").ends_with("sent again; see that it runs, and can be reached from here."));
        let mut status = status(|_| {});
        status.journal.state = "full".to_owned();
        assert!(journal(&status).unwrap().cure.starts_with("Bring back the database"));
        status.journal.last_error = Some("no space left; make room".to_owned());
        assert!(journal(&status).unwrap().cure.starts_with("no space left; make room; what devices"));
    }

    #[test]
    fn a_journal_that_was_gone_is_a_loss_for_the_life_of_the_process() {
        let status = status(Stats::set_journal_gone);
        assert!(status.journal.was_gone);
        assert_eq!(status.findings[0].severity, Severity::Loss);
        assert!(status.findings[0].cure.contains("put it back"), "{}", status.findings[0].cure);
        assert_eq!(
            status.verdict,
            "Rows are being lost: the journal was gone at the start, and nobody can count the rows that it held."
        );
    }

    #[test]
    fn rates_are_those_that_were_measured_last() {
        let status = status(|stats| {
            stats.source("a").recover();
            stats.sink("main");
            let source = SourcePulse { rows_per_s: 2.5, ..SourcePulse::default() };
            let pulse =
                Pulse { sources: [("a".to_owned(), source)].into(), lost_lately: 3, ..Pulse::default() };
            stats.set_pulse(pulse);
        });
        assert_eq!((status.sources["a"].rows_per_s, status.lost_rows_lately), (2.5, 3));
        assert_eq!((status.sinks["main"].rows_per_s, status.sinks["main"].backlog_age_s), (0.0, None));
        assert!(status.verdict.starts_with("Rows are being lost"), "{}", status.verdict);
    }
}
