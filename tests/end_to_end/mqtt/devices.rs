//! More devices than anybody has: the gateway keeps an account for as many as it has room for, says which it has refused
//! one, and goes on serving those that it knows.

use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::mqtt::{Client, Message};
use forebay_tests::proxy::MqttTap;
use forebay_tests::readback::sqlite;
use forebay_tests::seed::long;
use forebay_tests::services::Mosquitto;
use serde_json::Value;

use super::site::{CLIENT_ID, broker_table, subscription};
use crate::world::{Scratch, program};

/// The ledger's key of all devices that have no account of their own.
const OTHERS: &str = "(others)";

/// Devices that are there before all the others.
const KNOWN: u64 = 20;

/// Rows of each of those, before and behind the flood.
const ROWS: u64 = 50;

/// How often it is looked how much memory the crowd takes.
const PORTIONS: u64 = 10;

/// By how much the gateway may grow, however many devices come.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// How long the store may take for all of it.
const LIMIT: Duration = Duration::from_secs(600);

/// Rows of the known devices, numbered from `first` on.
fn known(first: u64) -> Vec<Message> {
    let rows = (first..first + ROWS).flat_map(|number| (0..KNOWN).map(move |device| (number, device)));
    rows.map(|(number, device)| Message::new(format!("crowd/known-{device}"), format!("{{\"n\":{number}}}")))
        .collect()
}

fn await_acks(tap: &MqttTap, count: u64) -> anyhow::Result<()> {
    wait_for("all PUBACKs", LIMIT, || match tap.figures() {
        figures if figures.acked == count => Ok(()),
        figures => Err(format!("{count} were published: {figures:?}")),
    })
}

#[test]
fn a_crowd_of_devices_does_not_take_all_memory() -> anyhow::Result<()> {
    let crowd = if long() { 1_000_000 } else { 100_000 };
    let scratch = Scratch::new("crowd")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let tap = MqttTap::start(broker.port)?;
    let tables = broker_table(&tap.url(), CLIENT_ID, 3) + &subscription("crowd");
    let settings = Settings { mqtt: None, ports: Vec::new(), tables };
    let mut gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    tap.wait_for_subscriptions(1, 1, LIMIT)?;
    let mut client = Client::connect(broker.port, "crowd", true)?;
    client.publish(&known(0))?;
    await_acks(&tap, KNOWN * ROWS)?;

    let before = gateway.usage().resident_bytes;
    let mut residents = Vec::new();
    let portion = crowd / PORTIONS;
    for first in (0..PORTIONS).map(|at| at * portion) {
        let messages: Vec<Message> = (first..first + portion)
            .map(|device| Message::new(format!("crowd/stranger-{device:07}"), b"{\"n\":0}".as_slice()))
            .collect();
        client.publish(&messages)?;
        await_acks(&tap, KNOWN * ROWS + first + portion)?;
        residents.push(gateway.usage().resident_bytes >> 20);
    }
    client.publish(&known(ROWS))?;
    let published = 2 * KNOWN * ROWS + crowd;
    await_acks(&tap, published)?;
    gateway.drain(LIMIT)?;
    let (status, usage) = (gateway.status()?, gateway.usage());
    let grown = usage.resident_bytes_max.saturating_sub(before);
    let devices = status["devices"].as_object().context("no devices")?;
    let others = devices.get(OTHERS).and_then(|others| others["rows"].as_u64()).unwrap_or(0);
    eprintln!(
        "{crowd} devices: {} accounts, {others} rows of devices without one; MiB resident after each {portion}: \
         {residents:?}; {} MiB more than before at most",
        devices.len(),
        grown >> 20
    );
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more than before", grown >> 20);
    assert_eq!(tap.figures().connections, 1, "the gateway reconnected");
    assert_accounts(&status, crowd, others)?;
    gateway.close(LIMIT)?;
    let limit = announced_limit(&gateway)?;
    let accounts = devices.len() as u64;
    assert!((limit / 2..=limit * 2).contains(&accounts), "{accounts} accounts, and `check` says {limit}");
    let log = gateway.log_text()?;
    assert!(log.lines().any(|line| line.contains("stranger-")), "the log names no device without room");
    let stored = sqlite::read(&gateway.sqlite_file())?;
    for device in 0..KNOWN {
        let name = format!("known-{device}");
        let rows = stored.rows.iter().filter(|row| row.device == name).count() as u64;
        assert_eq!(rows, 2 * ROWS, "{name}");
    }
    scratch.passed();
    Ok(())
}

/// For how many devices there is room, as `forebay check` says.
fn announced_limit(gateway: &Gateway) -> anyhow::Result<u64> {
    let output = program().output("check", &gateway.config())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = said.split_whitespace().collect();
    let count = words.windows(2).find_map(|pair| match pair {
        [count, "devices"] => count.parse().ok(),
        _ => None,
    });
    count.with_context(|| format!("`check` says nothing of a number of devices: {said}"))
}

/// Every row is somebody's: of a device with an account, of the others, or a dead letter.
fn assert_accounts(status: &Value, crowd: u64, others: u64) -> anyhow::Result<()> {
    let devices = status["devices"].as_object().context("no devices")?;
    let count = |name: &str| status.pointer(&format!("/ledger/{name}")).and_then(Value::as_u64);
    let (confirmed, letters) = (count("confirmed"), count("dead_lettered"));
    let published = 2 * KNOWN * ROWS + crowd;
    let sum = confirmed.zip(letters).map(|(confirmed, letters)| confirmed + letters);
    assert_eq!(sum, Some(published), "{}", status["ledger"]);
    for device in 0..KNOWN {
        let rows = devices.get(&format!("known-{device}")).and_then(|device| device["rows"].as_u64());
        assert_eq!(rows, Some(2 * ROWS));
    }
    let strangers = devices.keys().filter(|name| name.starts_with("stranger-")).count() as u64;
    let refused = others + letters.unwrap_or(0);
    assert!(strangers < crowd && refused > 0, "{strangers} strangers have an account: no limit");
    assert_eq!(strangers + refused, crowd, "a stranger is missing");
    Ok(())
}
