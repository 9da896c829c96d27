//! Names, tags and texts that a hostile device chooses: what can be stored comes back from the database as it was, what cannot
//! is kept with a reason, and nothing of it commands the operator's terminal or forges a line of the log.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::mqtt::{Client, Message};
use forebay_tests::proxy::MqttTap;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};
use serde_json::{Value, json};

use crate::world::{DRAIN_LIMIT, Scratch, program};

/// What ends a statement, a query, a label, a line, or a name, somewhere.
const STORABLE: [&str; 14] = [
    "a,b=c d",
    "quoted\"name\"",
    "it's'); DROP TABLE points; --",
    "back\\slash\\x",
    "{\"json\": [1]}",
    "$(reboot) `reboot` ${HOME}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%s%n%00",
    "äöü 温度 🌡",
    "=,=, ,= =",
    "# HELP forebay_journal_bytes",
    // Not of ASCII, and commands to some terminals all the same; and what turns the writing round.
    "\u{9b}31mred",
    "pump\u{202e}gpj.exe",
];

/// What a terminal would obey, or a log would take for a line of its own.
const CONTROLS: [&str; 6] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "two\nlines",
    "over\rwritten",
    "tab\tab",
    "bell\u{7}\u{8}\u{8}",
    "2026-01-01T00:00:00Z  INFO ok\n2026-01-01T00:00:00Z ERROR forged line",
];

fn message(number: i64, device: &str, tag: &str, text: &str) -> Message {
    let payload = json!({ "time": number, "id": device, "site": tag, "text": text, "n": number });
    Message::new("names".to_owned(), payload.to_string())
}

/// No character of it commands a terminal.
fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let [out, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(out + &errors)
}

#[test]
fn names_are_stored_as_they_are_and_command_no_terminal() -> anyhow::Result<()> {
    let scratch = Scratch::new("hostile-names")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let tap = MqttTap::start(broker.port)?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let source = format!(
        "[[mqtt]]\nurl = \"{}\"\nnative = false\n[[mqtt.subscribe]]\ntopic = \"names\"\nformat = \"json\"\n\
         device = \"$.id\"\nmeasurement = \"names\"\ntags_from = [\"$.site\"]\ntext_fields = [\"text\"]\n\
         integer_fields = [\"n\"]\ntimestamp = \"$.time\"\ntimestamp_format = \"ns\"\n[sqlite]\nenabled = true\nretention = \"36500d\"\n",
        tap.url()
    );
    let tables = source + &Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let settings = Settings { tables, ..Settings::default() };
    let mut gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    tap.wait_for_subscriptions(1, 1, DRAIN_LIMIT)?;

    let mut client = Client::connect(broker.port, "hostile-names", true)?;
    let (mut stored, mut sent) = (BTreeMap::new(), Vec::new());
    for (name, number) in STORABLE.iter().zip(1_700_000_000_000_000_000_i64..) {
        // Every kind of text in every place.
        let text = format!("{name}\u{1b}[31m\n{}", CONTROLS[(number % 6) as usize]);
        sent.push(message(number, name, &format!("site {name}"), &text));
        stored.insert(number, ((*name).to_owned(), format!("site {name}"), text));
    }
    for (name, number) in CONTROLS.iter().zip(1_700_000_000_000_001_000_i64..) {
        sent.push(message(number, name, "plain", "refused"));
        sent.push(message(number + 100, "plain", name, "refused"));
    }
    let expected = sent.len() as u64;
    client.publish(sent.iter())?;
    wait_for("all of it", DRAIN_LIMIT, || {
        let status = gateway.status().map_err(|error| format!("{error:#}"))?;
        match status["ledger"]["learned"].as_u64() {
            Some(learned) if learned == expected => Ok(()),
            learned => Err(format!("{learned:?} of {expected}")),
        }
    })?;
    gateway.drain(DRAIN_LIMIT)?;

    // Both databases have what could be stored, to the character.
    let http = forebay_tests::http::Http::new()?;
    let points = influxql::select(&http, &server.url(), InfluxDb::DATABASE, "names", 0)?;
    let of_influxdb: BTreeMap<i64, _> = points
        .iter()
        .filter_map(|point| {
            let (device, site) = (point.tag("device"), point.tag("site"));
            let text = point.column("text")?.as_str()?.to_owned();
            Some((point.column("n")?.as_i64()?, (device, site, text)))
        })
        .collect();
    ensure!(of_influxdb == stored, "InfluxDB has {of_influxdb:?}");
    let sqlite = rusqlite::Connection::open(gateway.sqlite_file())?;
    let tables: i64 = sqlite.query_row("SELECT count(*) FROM points", [], |row| row.get(0))?;
    ensure!(tables == STORABLE.len() as i64, "SQLite has {tables} points");
    let answer =
        gateway.api("/api/v1/query?measurement=names&from=1700000000000000000&to=1700000000000001000")?;
    let points = answer["points"].as_array().context("no points")?;
    let of_query: BTreeMap<i64, _> = points
        .iter()
        .filter_map(|point| {
            let text = |pointer: &str| point.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let tags = (text("/tags/device")?, text("/tags/site")?, text("/fields/text")?);
            Some((point["ns"].as_i64()?, tags))
        })
        .collect();
    ensure!(of_query == stored, "the query says {of_query:?}");

    // The others are dead letters, and no command prints what a terminal would obey.
    let config = gateway.config();
    let command = |words: &[&str]| {
        let mut command = program().bare();
        command.args(words).arg("--config").arg(&config);
        output(&mut command)
    };
    let letters = gateway.api("/api/v1/dead-letters")?;
    let letters = letters["letters"].as_array().context("no letters")?.clone();
    ensure!(letters.len() == 2 * CONTROLS.len(), "{} dead letters", letters.len());
    let id = letters[0]["id"].as_str().context("no id")?;
    let payload = scratch.path().join("payload.json");
    std::fs::write(&payload, &sent[0].payload)?;
    let said = [
        command(&["status"])?,
        command(&["dead-letters", "list"])?,
        command(&["dead-letters", "show", id])?,
        command(&[
            "query",
            "--measurement",
            "names",
            "--from",
            "1700000000000000000",
            "--to",
            "1800000000000000000",
        ])?,
        command(&["explain", "--topic", "names", "--payload", &payload.display().to_string()])?,
        command(&["audit"])?,
        command(&["journal", "dump"])?,
        gateway.log_text()?,
    ];
    for text in &said {
        ensure!(text.lines().count() > 1 && is_harmless(text), "a terminal would obey {text:?}");
    }
    let log = &said[said.len() - 1];
    ensure!(
        !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")),
        "a line of the log is forged: {log}"
    );
    gateway.close(DRAIN_LIMIT)?;
    scratch.passed();
    Ok(())
}
