//! The engine on a journal in memory, with the real embedded store, and with prepared answers of a database.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value as Scalar;

use super::dirty::{Missing, Scan};
use super::index::Plan;
use super::{Answer, Engine, Query};
use crate::config::Config;
use crate::journal::clocks::ClockEntry;
use crate::journal::entry::{Fields, RowEntry};
use crate::journal::memory::MemoryStorage;
use crate::journal::{Class, Entry, Journal, Options, Read, Refused};
use crate::record::{MachineBoot, Offset, Value};
use crate::sink::batch::Audience;
use crate::sink::scripted_server::{Script, ScriptedServer};
use crate::sink::sqlite::{Limits, Sqlite};
use crate::sink::{Batch, Outcome, Sink as _};

/// A row: number of the device, nanoseconds, number of the field, value.
type Given = (u8, i64, u8, i16);
/// What is to be read: by nanoseconds and device, the fields.
type Expected = BTreeMap<(i64, String), BTreeMap<String, f64>>;

const END_NS: i64 = 400;

fn journal() -> Journal {
    Journal::open(Arc::new(MemoryStorage::new()), &Options::sized(4 << 20)).unwrap().0
}

fn config(data_dir: &Path, tables: &str) -> Config {
    crate::config::of_text(&format!("data_dir = {data_dir:?}\n{tables}"))
}

fn submit(journal: &Journal, entries: &[Entry<'_>]) {
    let receipt = loop {
        let submitted = journal.submit(Class::Foreign, |_, submission| {
            entries.iter().try_for_each(|entry| submission.add(entry))
        });
        match submitted {
            Err(Refused::Busy) => std::thread::yield_now(),
            submitted => break submitted.unwrap().1,
        }
    };
    while *journal.watermark().borrow() < receipt {
        std::thread::yield_now();
    }
}

fn write(journal: &Journal, (device, ns, field, value): Given) {
    let (device, fields) = (format!("d{device}"), [(format!("f{field}"), Value::Float(f64::from(value)))]);
    let series = format!("climate,device={device}");
    let row = RowEntry {
        device: &device,
        boot: 0,
        sequence: 0,
        stamped: false,
        series: &series,
        ns,
        fields: Fields::of(&fields),
    };
    submit(journal, &[Entry::Row(row)]);
}

/// Stores the first `points` of the journal as delivery does, its cursor included.
async fn deliver(journal: &Journal, path: &Path, points: usize) {
    let mut batch = Batch::new(Audience::of_all("sqlite"), Offset(0));
    let mut reader = journal.reader(Offset(0));
    while let Read::Frame(frame) = reader.next().unwrap() {
        batch.add(&frame, &reader.fixes(), usize::MAX);
    }
    let limits = Limits { retention: Duration::from_secs(1), max_bytes: 1 << 30 };
    let id = format!("{:016x}", journal.id().0);
    let mut sink = Sqlite::new(path.to_owned(), id, limits, Box::new(|| None));
    let numbers: Vec<usize> = (0..points).collect();
    let part = batch.part(&numbers, batch.offset_of(points));
    assert_eq!(sink.write(&part).await, Outcome::Confirmed);
}

fn expected(given: &[Given]) -> Expected {
    let mut points = Expected::new();
    for (device, ns, field, value) in given {
        let fields = points.entry((*ns, format!("d{device}"))).or_default();
        fields.insert(format!("f{field}"), f64::from(*value));
    }
    points
}

fn query(text: &str) -> Query {
    Query::parse(text.split('&').map(|pair| pair.split_once('=').unwrap()), 0).unwrap()
}

/// All pages; a point that is there twice fails.
fn read(engine: &Engine, text: &str) -> Expected {
    let mut points = Expected::new();
    let (mut from, to) = ("0".to_owned(), END_NS);
    for _ in 0..=END_NS {
        let answer = engine.answer(&query(&format!("from={from}&to={to}&{text}"))).unwrap();
        assert!(answer.complete, "{:?}", answer.reasons);
        for point in answer.points {
            let fields = point.fields.into_iter().map(|(name, value)| (name, value.as_f64().unwrap()));
            let known = points.insert((point.ns, point.tags["device"].clone()), fields.collect());
            assert_eq!(known, None, "{} is there twice", point.time);
        }
        match answer.next {
            Some(next) => from = next,
            None => return points,
        }
    }
    panic!("the pages do not end");
}

/// The same points brought together.
fn windows(points: &Expected, every_ns: i64, aggregate: &str) -> Expected {
    let mut numbers: BTreeMap<(i64, String), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for ((ns, device), fields) in points {
        let window = numbers.entry((ns - ns % every_ns, device.clone())).or_default();
        for (name, value) in fields {
            window.entry(name.clone()).or_default().push(*value);
        }
    }
    let together = |values: Vec<f64>| match aggregate {
        "min" => values.into_iter().fold(f64::INFINITY, f64::min),
        "max" => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        // Small whole numbers: their sum is exact in any order.
        _ => values.iter().sum::<f64>() / values.len() as f64,
    };
    let window = |fields: BTreeMap<String, Vec<f64>>| {
        fields.into_iter().map(|(name, values)| (name, together(values))).collect()
    };
    numbers.into_iter().map(|(at, fields)| (at, window(fields))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn journal_and_store_together_are_what_was_written_each_point_once(
        given in prop::collection::vec((0_u8..4, 0_i64..END_NS, 0_u8..3, -99_i16..99), 1..120),
        delivered in 0_usize..120, limit in 1_usize..20, every_ns in 1_i64..90, looked: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), "");
        let journal = journal();
        journal.register_sink("sqlite").unwrap();
        let engine = Engine::new(&config, &journal).unwrap();
        given.iter().for_each(|row| write(&journal, *row));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let delivered = delivered.min(given.len());
        runtime.block_on(deliver(&journal, &directory.path().join("readings.sqlite"), delivered));
        if looked {
            engine.follow();
        }

        let all = expected(&given);
        prop_assert_eq!(&read(&engine, &format!("limit={limit}")), &all);
        let one: Vec<Given> = given.iter().copied().filter(|(device, ..)| *device == 1).collect();
        prop_assert_eq!(read(&engine, &format!("limit={limit}&device=d1&measurement=climate")), expected(&one));
        let field: Vec<Given> = given.iter().copied().filter(|(_, _, field, _)| *field == 2).collect();
        prop_assert_eq!(read(&engine, &format!("limit={limit}&field=f2")), expected(&field));
        // The shortest window that may be asked for is longer than these; the engine does not mind.
        for aggregate in ["mean", "min", "max"] {
            let wanted = query(&format!("from=0&to={END_NS}&limit={limit}&every=1h&aggregate={aggregate}"));
            let in_windows = |windows: super::Windows| super::Windows { every_ns, ..windows };
            let mut found = Expected::new();
            let mut asked = Query { windows: wanted.windows.map(in_windows), ..wanted };
            loop {
                let answer = engine.answer(&asked).unwrap();
                prop_assert!(answer.complete, "{:?}", answer.reasons);
                for point in answer.points {
                    let fields = point.fields.into_iter().map(|(name, value)| (name, value.as_f64().unwrap()));
                    let known = found.insert((point.ns, point.tags["device"].clone()), fields.collect());
                    prop_assert_eq!(known, None);
                }
                let Some(next) = answer.next else { break };
                asked.from_ns = query(&format!("from={next}")).from_ns;
            }
            prop_assert_eq!(found, windows(&all, every_ns, aggregate));
        }
    }
}

#[test]
fn rows_that_wait_for_the_clock_are_said_to_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = journal();
    journal.register_sink("sqlite").unwrap();
    write(&journal, (1, 5, 0, 7));
    let fields = [("f0".to_owned(), Value::Float(1.0))];
    let (device, series, fields) = ("d2", "climate,device=d2", Fields::of(&fields));
    let row = RowEntry { device, boot: 0, sequence: 0, stamped: true, series, ns: 9, fields };
    let machine = MachineBoot(7);
    submit(&journal, &[Entry::Clock(ClockEntry { machine, told_ns: 0 }), Entry::EarlyRow(machine, row)]);
    let engine = Engine::new(&config(directory.path(), ""), &journal).unwrap();
    for looked in [false, true] {
        let answer = engine.answer(&query("from=0&to=10")).unwrap();
        assert!(
            !answer.complete && answer.reasons[0].contains("1 rows have no time yet"),
            "{looked}: {answer:?}"
        );
        assert_eq!(answer.points.len(), 1);
        let answer = engine.answer(&query("from=0&to=10&device=d1")).unwrap();
        assert!(answer.complete, "{looked}: {answer:?}");
        engine.follow();
    }
}

/// Looks through a journal whose entry `n` is a point at `4 - n`, as planned; the times of the points shown are the second part.
fn scan(plan: &Plan, bytes: u64, deadline: Instant) -> (Missing, Vec<i64>) {
    let journal = journal();
    journal.register_sink("sqlite").unwrap();
    let first = journal.usage().end.0;
    (0..5).for_each(|n| write(&journal, (1, 4 - n, 0, 7)));
    let shifted =
        |range: &std::ops::Range<Offset>| Offset(first + range.start.0)..Offset(first + range.end.0);
    let unknown = plan.unknown.iter().map(shifted).collect();
    let known = plan.known.iter().map(|(ns, range)| (*ns, shifted(range))).collect();
    let (audience, asked) = (Audience::of_all("sqlite"), query("from=0&to=10"));
    let mut shown = Vec::new();
    let scan = Scan::new(&journal, &audience, &asked, (bytes, deadline));
    let missing = scan.run(&journal, &Plan { unknown, known }, |_, point| {
        shown.push(point.ns);
        10
    });
    (missing, shown)
}

#[test]
fn a_look_through_the_journal_ends_with_its_time_and_says_what_is_missing() {
    let (past, later) = (Instant::now(), Instant::now() + Duration::from_secs(600));
    let all = Plan { unknown: vec![Offset(0)..Offset(5)], known: vec![] };
    let (missing, shown) = scan(&all, u64::MAX, past);
    assert_eq!((missing, shown), (Missing { unread: 5, ..Missing::default() }, vec![]));
    assert_eq!(scan(&all, u64::MAX, later), (Missing::default(), vec![4, 3, 2, 1, 0]));

    let block = |first_ns: i64, at: u64| (first_ns, Offset(at)..Offset(at + 1));
    let blocks =
        Plan { unknown: vec![], known: (1..5).map(|ns| block(ns, 4 - ns.cast_unsigned())).collect() };
    assert_eq!(scan(&blocks, u64::MAX, later), (Missing::default(), vec![4, 3, 2, 1]), "as they lie");
    for (bytes, until, before) in [(u64::MAX, past, vec![]), (1, later, vec![4])] {
        let (missing, shown) = scan(&blocks, bytes, until);
        assert_eq!((missing, shown), (Missing { cut_ns: Some(1), ..Missing::default() }, before));
    }
    let at_once = Plan { unknown: vec![], known: vec![block(0, 4), block(1, 3)] };
    let (missing, _) = scan(&at_once, u64::MAX, past);
    assert_eq!(missing, Missing { unread: 2, ..Missing::default() }, "they may have anything");
}

#[test]
fn an_instant_with_more_points_than_a_page_is_shown_whole() {
    let directory = tempfile::tempdir().unwrap();
    let journal = journal();
    journal.register_sink("sqlite").unwrap();
    (0..9).for_each(|device| write(&journal, (device, 5, 0, 7)));
    let engine = Engine::new(&config(directory.path(), ""), &journal).unwrap();
    let answer = engine.answer(&query("from=0&to=10&limit=2")).unwrap();
    assert_eq!((answer.points.len(), answer.next), (9, None));
}

const INFLUXDB: &str = "[[influxdb]]\nname = \"main\"\nversion = 1\ndatabase = \"d\"\nusername = \"u\"\n";

/// Asks an engine whose database gives these answers; what it was asked, decoded, is the second part.
fn ask(script: Vec<Script>, tables: &str, text: &str) -> (Answer, Vec<String>) {
    let server = ScriptedServer::start(script);
    let directory = tempfile::tempdir().unwrap();
    let journal = journal();
    journal.register_sink("main").unwrap();
    write(&journal, (1, 5, 0, 7));
    let tables = format!("{tables}url = \"{}\"\n", server.url());
    let engine = Engine::new(&config(directory.path(), &tables), &journal).unwrap();
    let answer = engine.answer(&query(text)).unwrap();
    let statement = |body: String| {
        let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
        url.query_pairs().next().unwrap().1.into_owned()
    };
    let asked = server.requests().into_iter().map(|request| statement(request.lines)).collect();
    (answer, asked)
}

#[test]
fn names_cannot_break_out_of_a_statement() {
    let fields = r#"{"results":[{"series":[{"columns":["fieldKey","fieldType"],"values":[["a\"b","float"],["n","integer"]]}]}]}"#;
    let tags = r#"{"results":[{"series":[{"columns":["tagKey"],"values":[["device"],["it's"]]}]}]}"#;
    let points = r#"{"results":[{"series":[{"name":"m","values":[[7,21,null,"x'; DROP","y"],[8,null,3,"x'; DROP",""]]}]}]}"#;
    let script = [fields, tags, points].map(|body| Script::Answer("200 OK", body));
    let hostile = "from=0&to=9&measurement=m\"; DROP \\&device=x'; DROP";
    let (answer, asked) = ask(script.to_vec(), INFLUXDB, hostile);
    assert_eq!(
        asked,
        [
            r#"SHOW FIELD KEYS FROM "m\"; DROP \\""#,
            r#"SHOW TAG KEYS FROM "m\"; DROP \\""#,
            r#"SELECT "a\"b"::field, "n"::field, "device"::tag, "it's"::tag FROM "m\"; DROP \\" WHERE time >= 0 AND time < 9 AND "device"::tag = 'x\'; DROP' ORDER BY time LIMIT 1001"#,
        ]
    );
    // The last name cannot be carried by line protocol, so no such point can have been written.
    assert!(!answer.complete && answer.reasons[0].contains("backslash"), "{answer:?}");
}

#[test]
fn types_are_those_of_the_fields_whatever_the_numbers_look_like() {
    let fields = r#"{"results":[{"series":[{"values":[["f0","float"],["n","integer"],["b","boolean"],["s","string"]]}]}]}"#;
    let tags = r#"{"results":[{"series":[{"values":[["device"],["room"]]}]}]}"#;
    let points = r#"{"results":[{"series":[{"values":[[5,true,99,9007199254740993,"x","d1",""],[6,null,21,null,null,"d1","cellar"]]}]}]}"#;
    let script = [fields, tags, points].map(|body| Script::Answer("200 OK", body));
    let (answer, _) = ask(script.to_vec(), INFLUXDB, "from=0&to=9&measurement=climate&device=d1");
    assert!(answer.complete, "{:?}", answer.reasons);
    let shown: Vec<_> = answer
        .points
        .iter()
        .map(|point| (point.ns, point.tags.len(), Scalar::from_iter(point.fields.clone()).to_string()))
        .collect();
    // The journal has 7 where the database has 99: it is what the database will have.
    let first = r#"{"b":true,"f0":7.0,"n":9007199254740993,"s":"x"}"#;
    assert_eq!(shown, [(5, 1, first.to_owned()), (6, 2, r#"{"f0":21.0}"#.to_owned())]);
}

#[test]
fn a_database_that_gives_no_answer_leaves_what_the_journal_has_and_the_reason() {
    let v2 = "[[influxdb]]\nname = \"main\"\nversion = 2\norg = \"o\"\nbucket = \"b\"\n";
    for (script, tables, reason) in [
        (Script::Cut, INFLUXDB, "cannot be asked"),
        (Script::Answer("401 Unauthorized", r#"{"error":"unauthorized"}"#), v2, "read_token_file"),
        (Script::Answer("404 Not Found", r#"{"error":"no dbrp"}"#), v2, "DBRP"),
        (Script::Answer("503 Unavailable", "<html>"), v2, "503"),
        (Script::Answer("200 OK", "<html>Welcome to the hotel</html>"), v2, "hotel"),
        (
            Script::Answer("200 OK", r#"{"results":[{"error":"database not found: d"}]}"#),
            INFLUXDB,
            "not found",
        ),
        (
            Script::Answer(
                "200 OK",
                r#"{"results":[{"series":[{"name":"databases","columns":["name"],"values":[["d"]]}]}]}"#,
            ),
            v2,
            "VictoriaMetrics",
        ),
    ] {
        for text in ["from=0&to=9", "from=0&to=9&every=1h"] {
            let (answer, _) = ask(vec![script.clone()], tables, text);
            assert!(!answer.complete && answer.reasons.len() == 1, "{answer:?}");
            assert!(answer.reasons[0].contains(reason), "{reason}: {:?}", answer.reasons);
            assert_eq!((answer.sink.as_str(), answer.points.len()), ("main", 1));
            assert_eq!(answer.points[0].fields["f0"], 7.0);
        }
    }
}

#[test]
fn rows_of_which_nothing_can_be_shown_do_not_end_the_pages() {
    let keys = |kinds: &'static str| Script::Answer("200 OK", kinds);
    let integer =
        r#"{"results":[{"series":[{"columns":["fieldKey","fieldType"],"values":[["n","integer"]]}]}]}"#;
    let both = r#"{"results":[{"series":[{"columns":["fieldKey","fieldType"],"values":[["n","float"],["n","integer"]]}]}]}"#;
    let tags = r#"{"results":[{"series":[{"columns":["tagKey"],"values":[["device"]]}]}]}"#;
    // As many rows as were asked for, and one point more than the page may have.
    let rows = r#"{"results":[{"series":[{"name":"m","values":[[7,3,"d1"],[8,1.5,"d1"]]}]}]}"#;
    for (kinds, first) in [(integer, Scalar::from(3)), (both, Scalar::from(3.0))] {
        let script = [keys(kinds), keys(tags), keys(rows)];
        let (answer, asked) = ask(script.to_vec(), INFLUXDB, "from=0&to=99&measurement=m&limit=1");
        assert!(asked[2].ends_with("LIMIT 2"), "{asked:?}");
        assert_eq!(answer.points.len(), 1, "{answer:?}");
        assert_eq!((answer.points[0].ns, &answer.points[0].fields["n"]), (7, &first));
        assert_eq!(answer.next.as_deref(), Some("1970-01-01T00:00:00.000000008Z"), "{answer:?}");
    }
}

#[test]
fn queries_carry_the_token_that_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let token = |name: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, name).unwrap();
        path
    };
    let (to_write, to_read) = (token("writer"), token("reader"));
    let empty = Script::Answer("200 OK", r#"{"results":[{}]}"#);
    for (tables, expected) in [
        (format!("token_file = {to_write:?}\n"), "authorization: token writer"),
        (
            format!("token_file = {to_write:?}\nread_token_file = {to_read:?}\n"),
            "authorization: token reader",
        ),
    ] {
        let server = ScriptedServer::start(vec![empty.clone()]);
        let tables = format!(
            "[[influxdb]]\nname = \"main\"\nversion = 2\norg = \"o\"\nbucket = \"my bucket\"\n{tables}url = \"{}\"\n",
            server.url()
        );
        let engine = Engine::new(&config(directory.path(), &tables), &journal()).unwrap();
        assert!(engine.answer(&query("from=0&to=9")).unwrap().complete);
        let head = &server.requests()[0].head;
        assert!(
            head.starts_with("post /query?db=my+bucket&epoch=ns http") && head.contains(expected),
            "{head}"
        );
    }
}
