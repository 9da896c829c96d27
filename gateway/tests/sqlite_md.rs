//! docs/sqlite.md is true: its statements are run on a store that the gateway's own code has written, and give what stands
//! beside them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "all of this is a test")]

use std::path::Path;
use std::time::Duration;

use forebay_gateway::journal::entry::{Cause, Fields, GapEntry, RowEntry};
use forebay_gateway::journal::{Class, Entry, Journal, Options, Read, Refused};
use forebay_gateway::record::{Offset, Value};
use forebay_gateway::sink::batch::Audience;
use forebay_gateway::sink::sqlite::{Limits, Sqlite};
use forebay_gateway::sink::{Batch, Outcome, Sink as _};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

const PAGE: &str = include_str!("../../docs/sqlite.md");

/// 2026-01-01T00:00:00Z.
const START_NS: i64 = 1_767_225_600_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;

/// The texts between fences of a kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let open = format!("```{kind}\n");
    let behind = PAGE.split(open.as_str()).skip(1);
    behind.map(|text| text.split("```").next().unwrap_or_default().trim_end()).collect()
}

fn add(journal: &Journal, entry: &Entry<'_>) {
    let submitted = journal.submit(Class::Foreign, |_, submission| submission.add(entry));
    let ((), receipt) = submitted.map_err(|error: Refused| error).unwrap();
    while *journal.watermark().borrow() < receipt {
        std::thread::yield_now();
    }
}

fn add_row(journal: &Journal, device: &str, series: &str, ns: i64, fields: &[(String, Value)]) {
    let fields = Fields::of(fields);
    let row = RowEntry { device, boot: 0, sequence: 0, stamped: false, series, ns, fields };
    add(journal, &Entry::Row(row));
}

/// Puts the house of the examples into the journal.
fn live(journal: &Journal) {
    for minute in 0..60_i32 {
        let fields = [
            ("temperature".to_owned(), Value::Float(55.0 + f64::from(minute) / 4.0)),
            ("heating".to_owned(), Value::Boolean(minute % 2 == 1)),
        ];
        let ns = START_NS + i64::from(minute) * MINUTE_NS;
        add_row(journal, "boiler", "climate,device=boiler,room=cellar", ns, &fields);
    }
    for (state, ns) in [("on", START_NS), ("off", START_NS + MINUTE_NS)] {
        let fields = [("state".to_owned(), Value::Text(state.to_owned()))];
        add_row(journal, "pump", "water,device=pump,room=cellar", ns, &fields);
    }
    let gap = GapEntry {
        device: "boiler",
        boot: 7,
        from: 40,
        to: 52,
        count: 12,
        cause: Cause::Overflow,
        sink: None,
        stamped: false,
        series: "forebay_gap,cause=overflow,device=boiler",
        ns: START_NS + 30 * MINUTE_NS,
    };
    add(journal, &Entry::Gap(gap));
}

async fn store(directory: &Path) -> Connection {
    let (journal, _) = Journal::open_dir(&directory.join("journal"), &Options::sized(4 << 20)).unwrap();
    live(&journal);
    let mut batch = Batch::new(Audience::of_all("sqlite"), Offset(0));
    let mut reader = journal.reader(Offset(0));
    while let Read::Frame(frame) = reader.next().unwrap() {
        batch.add(&frame, &reader.fixes(), usize::MAX);
    }
    let path = directory.join("readings.sqlite");
    let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
    let mut sink = Sqlite::new(path.clone(), String::new(), limits, Box::new(|| None));
    let numbers: Vec<usize> = (0..batch.points()).collect();
    let part = batch.part(&numbers, batch.to());
    assert_eq!(sink.write(&part).await, Outcome::Confirmed);
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// What the program sqlite3 prints.
fn printed(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cell = |at: usize| match row.get_ref(at).unwrap() {
            ValueRef::Null => String::new(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => format!("{value:?}"),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(_) => panic!("{sql}: a blob"),
        };
        lines.push((0..columns).map(cell).collect::<Vec<_>>().join("|"));
    }
    lines.join("\n")
}

#[tokio::test]
async fn every_statement_of_the_page_gives_what_stands_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let connection = store(directory.path()).await;
    let (statements, results) = (blocks("sql"), blocks("text"));
    assert!(statements.len() >= 7 && statements.len() == results.len());
    for (statement, result) in statements.into_iter().zip(results) {
        assert_eq!(printed(&connection, statement), result, "{statement}");
    }
}
