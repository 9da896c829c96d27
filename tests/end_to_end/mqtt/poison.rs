//! Packets that a client may choke on: messages of any size, and bytes in which no packet can be found. They come from a
//! scripted broker, since no real one sends them on demand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::mqtt::Message;
use forebay_tests::mqtt::double::{Item, Progress, ScriptedBroker};
use forebay_tests::mqtt::packet::REMAINING_MAX;
use forebay_tests::readback::influxql;
use forebay_tests::services::InfluxDb;
use serde_json::Value;

use super::site::{CLIENT_ID, DRAIN_LIMIT, SERVED_LIMIT, broker_table, subscription};
use crate::world::{Scratch, program};

/// Good messages before, between and behind the bad ones.
const NEIGHBOURS: usize = 20;

/// By how much the gateway may grow, whatever it is sent.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A PUBLISH at QoS 1 whose remaining length takes five bytes, with something behind it.
const NO_LENGTH: &[u8] = b"\x32\xff\xff\xff\xff\x7f\x00\x06good/xjunk";

/// On how many connections the broker sends it.
const BROKEN_CONNECTIONS: usize = 3;

/// The shortest pause before a client tries again.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// How soon messages are acknowledged that come in one piece with the answer to the greeting.
const PROMPT: Duration = Duration::from_secs(5);

struct Stage {
    gateway: Gateway,
    broker: ScriptedBroker,
    database: InfluxDb,
    scratch: Scratch,
}

/// Good messages, the numbers of which go on where the script ends.
fn neighbours(script: &mut Vec<Item>) {
    for _ in 0..NEIGHBOURS {
        let payload = format!("{{\"n\":{}}}", script.len());
        script.push(Item::Message(Message::new("good/device", payload)));
    }
}

fn numbers(script: &[Item]) -> BTreeSet<usize> {
    let is_good = |item: &Item| matches!(item, Item::Message(message) if message.topic == "good/device");
    script.iter().enumerate().filter(|(_, item)| is_good(item)).map(|(place, _)| place).collect()
}

impl Stage {
    fn start(test: &str, script: Vec<Item>, version: u8) -> anyhow::Result<Stage> {
        let scratch = Scratch::new(test)?;
        let database = InfluxDb::start(&scratch.path().join("influxdb"))?;
        let broker = ScriptedBroker::start(script)?;
        let tables = Settings::influxdb_1(&database.url(), InfluxDb::DATABASE)
            + &broker_table(&broker.url(), CLIENT_ID, version)
            + &subscription("good")
            + &subscription("bad");
        let settings = Settings { mqtt: None, ports: Vec::new(), tables };
        let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
        Ok(Stage { gateway, broker, database, scratch })
    }

    /// Waits until the broker has got rid of everything.
    fn await_end(&self) -> anyhow::Result<Progress> {
        wait_for("the end of the script", SERVED_LIMIT, || {
            let progress = self.broker.progress();
            let left = progress.done.iter().filter(|done| !**done).count();
            let connections = progress.connected.len();
            let left = format!("{left} items are left after {connections} connections");
            if progress.done.iter().all(|done| *done) { Ok(progress) } else { Err(left) }
        })
    }

    /// Every good message is in the database, and none of them more often than the broker sent it.
    fn assert_neighbours(&self, numbers: &BTreeSet<usize>, sent: &[usize]) -> anyhow::Result<()> {
        self.gateway.drain(DRAIN_LIMIT)?;
        let what = ("good", "n", "device");
        let found = influxql::numbers(&Http::new()?, &self.database.url(), InfluxDb::DATABASE, what)?;
        let mut counts = vec![0; sent.len()];
        for (_, number) in found {
            let place: usize = format!("{number:.0}").parse()?;
            *counts.get_mut(place).with_context(|| format!("{place} was never sent"))? += 1;
        }
        for &place in numbers {
            let allowed = 1..=sent[place];
            assert!(allowed.contains(&counts[place]), "{place}: {} points, {allowed:?}", counts[place]);
        }
        Ok(())
    }

    fn source(&self) -> anyhow::Result<Value> {
        Ok(self.gateway.status()?["sources"][self.broker.url()].clone())
    }

    /// The dead letters, as the command lists them.
    fn letters(&self) -> anyhow::Result<Vec<Value>> {
        let mut command = program().bare();
        command.args(["dead-letters", "list", "--json", "--config"]).arg(self.gateway.config());
        let output = command.output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed: Value = serde_json::from_slice(&output.stdout)?;
        Ok(listed["letters"].as_array().cloned().unwrap_or_default())
    }
}

/// Messages that are too large to be readings, up to the largest that MQTT can announce.
fn sizes(version: u8) -> anyhow::Result<()> {
    let mut script = Vec::new();
    neighbours(&mut script);
    for bytes in [20 << 10, 1 << 20, REMAINING_MAX] {
        script.push(Item::Streamed { topic: format!("bad/of-{bytes}"), bytes });
        neighbours(&mut script);
    }
    let numbers = numbers(&script);
    let stage = Stage::start(&format!("poison-{version}"), script, version)?;
    let before = stage.gateway.usage().resident_bytes;
    let progress = stage.await_end()?;
    let grown = stage.gateway.usage().resident_bytes_max.saturating_sub(before);
    // What a client of MQTT 5 has announced not to take, the broker keeps to itself.
    let expected = 3 - progress.discarded;
    wait_for("the counting of what was too large", SERVED_LIMIT, || {
        let status = stage.gateway.status().map_err(|error| format!("{error:#}"))?;
        let counted = status.pointer("/ledger/dead_lettered").and_then(Value::as_u64);
        if counted == Some(expected as u64) { Ok(()) } else { Err(format!("{counted:?} of {expected}")) }
    })?;
    stage.assert_neighbours(&numbers, &progress.sent)?;
    let (letters, source) = (stage.letters()?, stage.source()?);
    eprintln!(
        "MQTT {version}: {} connections, {} MiB more than before, {} messages discarded by the broker, {} letters",
        progress.connected.len(),
        grown >> 20,
        progress.discarded,
        letters.len()
    );
    assert_eq!(progress.connected.len(), 1, "the gateway reconnected");
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more than before", grown >> 20);
    assert_eq!(letters.len(), expected, "{letters:?}");
    for letter in &letters {
        let origin = letter["origin"].as_str().unwrap_or_default();
        let bytes = letter["body_bytes"].as_u64().unwrap_or(0);
        assert!(origin.starts_with("bad/of-") && bytes > 20_000, "{letter}");
    }
    assert_eq!(source["bad_messages"].as_u64(), Some(expected as u64), "{source}");
    assert_eq!(version == 5, progress.packet_bytes_max.is_some(), "MQTT 5 announces the largest packet");
    stage.scratch.passed();
    Ok(())
}

/// Bytes that end every hope of finding the next packet.
fn no_length(version: u8) -> anyhow::Result<()> {
    let mut script = Vec::new();
    neighbours(&mut script);
    script.push(Item::Raw { bytes: NO_LENGTH.to_vec(), times: BROKEN_CONNECTIONS });
    neighbours(&mut script);
    let numbers = numbers(&script);
    let stage = Stage::start(&format!("no-length-{version}"), script, version)?;
    let progress = stage.await_end()?;
    let last = progress.connected.last().map(Instant::elapsed).unwrap_or_default();
    stage.assert_neighbours(&numbers, &progress.sent)?;
    let pauses: Vec<Duration> =
        progress.connected.iter().zip(progress.connected.iter().skip(1)).map(|(a, b)| *b - *a).collect();
    let (log, source) = (stage.gateway.log_text()?, stage.source()?);
    eprintln!("MQTT {version}: pauses {pauses:?}; {source}");
    assert_eq!(progress.connected.len(), BROKEN_CONNECTIONS + 1, "one connection for each, and a good one");
    assert!(last < PROMPT, "messages that came with the answer to the greeting waited for {last:?}");
    assert!(pauses.iter().all(|pause| *pause >= PAUSE_MIN), "without a pause: {pauses:?}");
    assert_eq!(source["state"].as_str(), Some("connected"), "{source}");
    assert_eq!(source["connects"].as_u64(), Some(progress.connected.len() as u64), "{source}");
    let url = stage.broker.url();
    let says = |line: &str| line.contains(&url) && line.to_lowercase().contains("length");
    assert!(log.lines().any(says), "the log does not say what is wrong with the length:\n{log}");
    stage.scratch.passed();
    Ok(())
}

#[test]
fn messages_of_any_size_are_survived() -> anyhow::Result<()> {
    sizes(3)
}

#[test]
fn messages_of_any_size_are_survived_with_mqtt_5() -> anyhow::Result<()> {
    sizes(5)
}

#[test]
fn a_length_of_five_bytes_is_survived() -> anyhow::Result<()> {
    no_length(3)
}

#[test]
fn a_length_of_five_bytes_is_survived_with_mqtt_5() -> anyhow::Result<()> {
    no_length(5)
}
