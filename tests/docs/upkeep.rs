//! The pages for whoever keeps it running: dashboard.md, damaged-card.md, sd-card.md, spool.md, sqlite.md, upgrade.md.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::services::Mosquitto;

use crate::stage::{CONFIG, LIMIT, Stage};

/// A gateway with a broker and the embedded database, whose data is where the package has it, and more tables.
fn configure(page: &mut Stage, tables: &str) -> anyhow::Result<Mosquitto> {
    let broker = page.broker()?;
    let (data, url) = (page.path("data"), broker.url());
    let text = format!(
        "data_dir = {data:?}\n[[mqtt]]\nurl = \"{url}\"\n[[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\n\
         format = \"json\"\nmeasurement = \"climate\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ms\"\n{tables}"
    );
    page.write(CONFIG, &text)?;
    Ok(broker)
}

/// Publishes readings of the last half hour that are 90 bytes long, a millisecond apart.
fn publish_readings(broker: &Mosquitto, count: u64) -> anyhow::Result<()> {
    let first_ms = u64::try_from(wall_ns() / 1_000_000)? - 30 * 60 * 1_000;
    let messages = (0..count).map(|number| {
        let time = first_ms + number;
        let body = format!(
            "{{\"time\":{time},\"temperature\":21.{:03},\"humidity\":44.125,\"pressure\":1013.25,\"light\":117}}",
            number % 1000
        );
        ("sensors/boiler/cellar".to_owned(), body.into_bytes())
    });
    publish(broker.port, messages.collect())
}

#[test]
fn a_console_can_ask_what_the_dashboard_shows() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/dashboard.md")?;
    let _broker = configure(&mut page, "")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.run("curl -s http://127.0.0.1")?;
    let said = page.run("curl -s http://127.0.0.1")?;
    assert!(said.contains("\"verdict\"") && said.contains("\"findings\""), "{said}");
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

#[test]
fn a_damaged_journal_is_recovered() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/damaged-card.md")?;
    let broker = configure(&mut page, "")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    publish_readings(&broker, 500)?;
    let query = format!("forebay query --device boiler --limit 10000 --config {CONFIG}");
    wait_for("all readings", LIMIT, || {
        let said = page.typed(&query, "").map_err(|error| error.to_string())?;
        if said.text.lines().count() == 500 { Ok(()) } else { Err(said.text) }
    })?;
    assert!(gateway.terminate(LIMIT)?.success());
    twist(&page.path("data/journal"))?;

    let said = page.ran("forebay journal verify --config")?;
    assert!(!said.good && said.text.contains("DAMAGED"), "{said:?}");
    page.run("forebay journal repair")?;
    let said = page.run("forebay journal verify --journal")?;
    assert!(said.contains("left by a repair") && said.contains("all is well"), "{said}");
    page.run("mv /")?;
    page.run("mv journal.copy")?;
    let mut gateway = page.gateway("forebay run")?;
    let said = page.typed(&query, "")?;
    assert_eq!(said.text.lines().count(), 500, "the database had them all: {}", said.text);
    page.run("forebay audit")?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

/// Turns over a bit of a row, in the segment that holds most.
fn twist(journal: &Path) -> anyhow::Result<()> {
    let files = std::fs::read_dir(journal)?.collect::<Result<Vec<_>, _>>()?;
    let paths = files.into_iter().map(|entry| entry.path());
    let holds = |path: &PathBuf| -> Option<(u64, u64)> {
        let bytes = std::fs::read(path).ok()?;
        let rows = bytes.windows(6).filter(|window| window == b"boiler").count();
        let at = bytes.windows(6).enumerate().filter(|(_, window)| window == b"boiler").nth(rows / 2)?.0;
        Some((u64::try_from(rows).ok()?, u64::try_from(at).ok()?))
    };
    let most = paths.filter_map(|path| Some((holds(&path)?, path))).max();
    let ((_, at), path) = most.context("no segment holds a row")?;
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])?;
    Ok(())
}

#[test]
fn a_card_is_spared() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/sd-card.md")?;
    let tables = page.block("toml", "commit_interval")?;
    let _broker = configure(&mut page, &tables)?;
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    let said = page.run("forebay status")?;
    assert!(said.contains("journal"), "{said}");
    let said = page.run("curl -s http://127.0.0.1")?;
    assert!(said.contains("\"written_bytes\":"), "{said}");
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

/// The page says 145 bytes a row.
#[test]
fn the_spool_is_as_large_as_the_page_says() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/spool.md")?;
    let broker = configure(&mut page, "")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    publish_readings(&broker, 5000)?;
    assert!(gateway.terminate(LIMIT)?.success());
    let said = page.run("forebay journal list")?;
    let bytes: u64 = said.trim().parse().with_context(|| said.clone())?;
    eprintln!("a row takes {bytes} bytes");
    assert!((120..=200).contains(&bytes), "a row takes {bytes} bytes");
    drop(broker);
    let tables = page.block("toml", "max_bytes")?;
    let _broker = configure(&mut page, &tables)?;
    page.run("forebay check")?;
    page.close()
}

#[test]
fn the_embedded_database_is_opened_by_hand() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/sqlite.md")?;
    let broker = configure(&mut page, "")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    publish_readings(&broker, 3)?;
    let command = page.take("sqlite3 -readonly")?;
    wait_for("the readings in the database", LIMIT, || {
        let said = page.typed(&command, "SELECT count(*) FROM points;\n");
        let said = said.map_err(|error| error.to_string())?;
        if said.good && said.text.trim() == "3" { Ok(()) } else { Err(said.text) }
    })?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

#[test]
fn an_upgrade_can_be_taken_back() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/upgrade.md")?;
    let broker = configure(&mut page, "")?;
    let said = page.run("forebay --version")?;
    assert!(said.starts_with("forebay "), "{said}");
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    publish_readings(&broker, 10)?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.run("forebay journal verify")?;
    page.run("cp -a")?;
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    page.run("forebay audit")?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}
