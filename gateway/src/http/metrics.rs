//! The status in Prometheus' text format.
//!
//! Labels are sources, sinks, causes, states and reasons, which the configuration or this program bounds; devices are no
//! label. Names and units go by the conventions of Prometheus, which `promtool check metrics` knows.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Api;
use crate::stats::status::SourceReport;
use crate::stats::{SourceState, Status};

/// The metrics.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let refused: Vec<(&str, u64)> = api.refusals.counts().collect();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(&api.status(), &refused))
}

/// Writes the metrics of a snapshot; `refused` is what the HTTP interface has refused, by reason.
fn render(status: &Status, refused: &[(&str, u64)]) -> String {
    let mut page = Page(String::with_capacity(4096));
    push_process(&mut page, status);
    push_sources(&mut page, status);
    push_sinks(&mut page, status);
    push_rows(&mut page, status);
    push_journal(&mut page, status);
    page.family(
        "forebay_http_refused_total",
        "counter",
        "Requests and connections that were refused, by reason.",
    );
    page.labelled("forebay_http_refused_total", "reason", refused.iter().copied());
    page.0
}

fn push_process(page: &mut Page, status: &Status) {
    page.family("forebay_build_info", "gauge", "The version of the gateway, as a label.");
    page.labelled("forebay_build_info", "version", [(status.version.as_str(), 1)].into_iter());
    let started_s = u64::try_from(status.started_ns / 1_000_000_000).unwrap_or(0);
    page.single(
        "forebay_start_time_seconds",
        "gauge",
        "When the gateway was started, in seconds since 1970 by its own clock.",
        started_s,
    );
    if let Some(bytes) = status.machine.resident_bytes {
        page.single("forebay_resident_memory_bytes", "gauge", "Memory of the process that is in use.", bytes);
    }
    if let Some(bytes) = status.machine.disk_free_bytes {
        page.single("forebay_disk_free_bytes", "gauge", "Room on the disk of data_dir.", bytes);
    }
    page.single(
        "forebay_devices",
        "gauge",
        "Devices that the gateway knows, or has ever known.",
        status.devices.len() as u64,
    );
}

/// A metric of each source: name, kind, help, and where it is told of.
type OfSource = (&'static str, &'static str, &'static str, fn(&SourceReport) -> Option<u64>);

const OF_SOURCES: [OfSource; 10] = [
    ("forebay_rows_received_total", "counter", "Rows handed to intake by a source.", |s| {
        Some(s.rows_received)
    }),
    ("forebay_rows_acked_total", "counter", "Rows whose ack has left, after they were durable.", |s| {
        Some(s.rows_acked)
    }),
    (
        "forebay_bad_messages_total",
        "counter",
        "Messages or frames of a source that could not be read.",
        |s| Some(s.bad_messages),
    ),
    (
        "forebay_doubtful_messages_total",
        "counter",
        "Messages that a broker sent again and that may be stored twice.",
        |s| Some(s.doubtful_messages),
    ),
    (
        "forebay_unprotected_messages_total",
        "counter",
        "Messages that came at QoS 0 and that nobody would send again.",
        |s| Some(s.unprotected_messages.values().sum()),
    ),
    (
        "forebay_dropped_messages_total",
        "counter",
        "Messages at QoS 0 that were let go of, because older ones waited for room in the journal.",
        |s| Some(s.dropped_messages),
    ),
    (
        "forebay_broker_queue_alarms_total",
        "counter",
        "Times that acks were held back for so long that a broker's queue may have overflowed.",
        |s| Some(s.queue_alarms),
    ),
    (
        "forebay_broker_queue_alarm",
        "gauge",
        "Whether a broker's queue may overflow, because acks are held back or were a few seconds ago.",
        |s| Some(u64::from(s.alarm.is_some())),
    ),
    (
        "forebay_broker_dropped_messages",
        "gauge",
        "Messages that a broker has dropped since its own start, for whatever client, where it tells.",
        |s| s.broker_dropped_messages,
    ),
    (
        "forebay_source_connected",
        "gauge",
        "Whether the broker or port is there; not told of a kind of port that none was plugged in of yet.",
        |s| (s.state != SourceState::Waiting).then(|| u64::from(s.state == SourceState::Connected)),
    ),
];

fn push_sources(page: &mut Page, status: &Status) {
    for (name, kind, help, told) in OF_SOURCES {
        page.family(name, kind, help);
        let told =
            status.sources.iter().filter_map(|(source, report)| Some((source.as_str(), told(report)?)));
        page.labelled(name, "source", told);
    }
}

fn push_sinks(page: &mut Page, status: &Status) {
    let sinks = || status.sinks.iter().map(|(name, sink)| (name.as_str(), sink));
    page.family("forebay_rows_confirmed_total", "counter", "Rows that a database confirmed.");
    page.labelled("forebay_rows_confirmed_total", "sink", sinks().map(|(name, s)| (name, s.rows_confirmed)));
    page.family(
        "forebay_write_retries_total",
        "counter",
        "Writes to a database that failed and were repeated.",
    );
    page.labelled("forebay_write_retries_total", "sink", sinks().map(|(name, s)| (name, s.retries)));
    page.family(
        "forebay_write_requests_total",
        "counter",
        "Requests or transactions to a database, failed ones included.",
    );
    page.labelled("forebay_write_requests_total", "sink", sinks().map(|(name, s)| (name, s.requests)));
    page.family("forebay_write_bytes_total", "counter", "Bytes of the bodies of these requests.");
    page.labelled("forebay_write_bytes_total", "sink", sinks().map(|(name, s)| (name, s.sent_bytes)));
    page.family(
        "forebay_backlog_rows",
        "gauge",
        "Rows that are durable here and not confirmed by a database.",
    );
    page.labelled("forebay_backlog_rows", "sink", sinks().map(|(name, s)| (name, s.backlog_rows)));
    page.family("forebay_rows_rejected_total", "counter", "Rows that a database refused.");
    page.labelled("forebay_rows_rejected_total", "sink", sinks().map(|(name, s)| (name, s.rows_rejected)));
    page.family(
        "forebay_sink_up",
        "gauge",
        "Whether a database takes what it is sent; 1 before the first attempt.",
    );
    page.labelled(
        "forebay_sink_up",
        "sink",
        sinks().map(|(name, s)| (name, u64::from(matches!(&*s.state, "running" | "starting")))),
    );
}

fn push_rows(page: &mut Page, status: &Status) {
    page.family(
        "forebay_gap_rows_total",
        "counter",
        "Rows declared lost since the data directory was made, by cause; a row that two databases lack counts twice.",
    );
    page.labelled(
        "forebay_gap_rows_total",
        "cause",
        status.gap_rows.iter().map(|(cause, rows)| (cause.as_str(), *rows)),
    );

    page.single(
        "forebay_dead_lettered_rows",
        "gauge",
        "Rows that could not be read or that a database refused; those that were replayed since are left out, those that were let go of are not.",
        status.dead_lettered_rows,
    );

    page.single(
        "forebay_dead_letters_dropped_total",
        "counter",
        "Dead letters that made room for new ones and are lost, since the data directory was made.",
        status.dead_letters_dropped.letters,
    );
    page.single(
        "forebay_dead_letter_rows_dropped_total",
        "counter",
        "Rows of these dead letters.",
        status.dead_letters_dropped.rows,
    );
    page.single(
        "forebay_dead_letters_discarded_total",
        "counter",
        "Dead letters that somebody has let go of, since the start.",
        status.dead_letters_discarded.letters,
    );
    page.single(
        "forebay_dead_letter_rows_discarded_total",
        "counter",
        "Rows of these dead letters.",
        status.dead_letters_discarded.rows,
    );

    let clock = &status.clock;
    page.single(
        "forebay_clock_trusted",
        "gauge",
        "Whether the gateway's own clock is believed.",
        u64::from(status.clock_trusted),
    );
    page.single(
        "forebay_clock_waiting_rows",
        "gauge",
        "Rows that are durable here and wait for their time until the clock is believed.",
        clock.waiting_rows,
    );
    page.single(
        "forebay_clock_estimated_rows_total",
        "counter",
        "Rows whose time is an estimate, since nothing vouched for the clock.",
        clock.estimated_rows,
    );
}

/// The states that a journal can be in, as the status calls them.
const JOURNAL_STATES: [&str; 4] = ["running", "full", "stalled", "failed"];

fn push_journal(page: &mut Page, status: &Status) {
    let journal = &status.journal;
    page.family(
        "forebay_journal_state",
        "gauge",
        "Which state the journal is in: 1 for that, 0 for the others; only while it runs acks are given.",
    );
    let states = JOURNAL_STATES.map(|state| (state, u64::from(state == journal.state)));
    page.labelled("forebay_journal_state", "state", states.into_iter());
    page.single("forebay_journal_bytes", "gauge", "Bytes of the journal's files.", journal.bytes);
    page.single("forebay_journal_max_bytes", "gauge", "Bound of the journal's files.", journal.max_bytes);
    page.single("forebay_journal_commits_total", "counter", "Commits of the journal.", journal.commits);
    page.single(
        "forebay_journal_written_bytes_total",
        "counter",
        "Bytes written to the journal's files.",
        journal.bytes_written,
    );
    page.single(
        "forebay_journal_rewrites_total",
        "counter",
        "Files of the journal that were given up because a write or sync of them failed.",
        journal.rewrites,
    );
    page.single(
        "forebay_health_dropped_total",
        "counter",
        "Rows of the gateway's own health that the journal did not take.",
        status.health_dropped_rows,
    );
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn labelled<'a>(&mut self, name: &str, label: &str, values: impl Iterator<Item = (&'a str, u64)>) {
        for (text, value) in values {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            self.line(format_args!("{name}{{{label}=\"{text}\"}} {value}"));
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}
