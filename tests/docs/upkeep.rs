//! The pages for whoever keeps it running: dashboard.md, damaged-card.md, guarantees.md, sd-card.md, spool.md, sqlite.md,
//! upgrade.md.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use forebay_gateway::stats::Status;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::process::Process;
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
    publish_readings_of("boiler", broker, count)
}

fn publish_readings_of(device: &str, broker: &Mosquitto, count: u64) -> anyhow::Result<()> {
    let first_ms = u64::try_from(wall_ns() / 1_000_000)? - 30 * 60 * 1_000;
    let messages = (0..count).map(|number| {
        let time = first_ms + number;
        let body = format!(
            "{{\"time\":{time},\"temperature\":21.{:03},\"humidity\":44.125,\"pressure\":1013.25,\"light\":117}}",
            number % 1000
        );
        (format!("sensors/{device}/cellar"), body.into_bytes())
    });
    publish(broker.port, messages.collect())
}

#[test]
fn a_console_can_ask_what_the_dashboard_shows() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/dashboard.md")?;
    let _broker = configure(&mut page, "")?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.run("curl -s http://127.0.0.1")?;
    let said = page.run("forebay status --json")?;
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
    let gateway = page.gateway("forebay run")?;
    let said = page.typed(&query, "")?;
    assert_eq!(said.text.lines().count(), 500, "the database had them all: {}", said.text);
    page.run("forebay audit")?;
    the_embedded_database_is_recovered(&mut page, &broker, gateway)?;
    page.close()
}

/// What was stored last is in SQLite's log alone when the gateway is killed, and is there still once the files were moved.
fn the_embedded_database_is_recovered(
    page: &mut Stage,
    broker: &Mosquitto,
    mut gateway: Process,
) -> anyhow::Result<()> {
    let count = |page: &Stage, file: &Path| -> anyhow::Result<u64> {
        let said = page.typed(&format!("sqlite3 '{}' 'SELECT count(*) FROM points'", file.display()), "")?;
        said.text.trim().parse().with_context(|| said.text.clone())
    };
    let database = page.path("data/readings.sqlite");
    page.connected()?;
    let all = count(page, &database)? + 700;
    publish_readings_of("pump", broker, 700)?;
    wait_for("the readings in the database", LIMIT, || match count(page, &database) {
        Ok(found) if found == all => Ok(()),
        other => Err(format!("{other:?} of {all}")),
    })?;
    gateway.kill();
    let alone = page.path("alone.sqlite");
    std::fs::copy(&database, &alone)?;
    let without_log = count(page, &alone)?;
    assert!(without_log < all, "nothing is in the log alone");

    for _ in 0..3 {
        page.run("mv /")?;
    }
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    wait_for("a new database", LIMIT, || if database.exists() { Ok(()) } else { Err("none".to_owned()) })?;
    page.run("sqlite3 ")?;
    assert_eq!(count(page, &page.path("recovered.sqlite"))?, all, "{without_log} without the log");
    assert!(gateway.terminate(LIMIT)?.success());
    Ok(())
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
    let broker = configure(&mut page, "[sqlite]\n")?;
    let as_it_is = std::fs::read_to_string(page.path(CONFIG))?;
    let spared = as_it_is.replace("[sqlite]\n", &tables);
    let status = page.take("forebay status --config")?;
    let details = page.take("forebay status --json")?;
    let mut plain = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    page.connected()?;
    let before = one_by_one(&page, &details, &broker)?;
    assert!(plain.terminate(LIMIT)?.success());

    page.write(CONFIG, &spared)?;
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run")?;
    page.connected()?;
    let after = one_by_one(&page, &details, &broker)?;
    eprintln!("commits and their bytes: {before:?}, and with commit_interval {after:?}");
    assert!(after.0 * 3 < before.0 && after.1 < before.1, "{before:?}, {after:?}");
    let said = page.typed(&status, "")?;
    assert!(said.good && said.text.contains("journal") && said.text.contains("commits"), "{said:?}");
    let said = page.typed(&details, "")?;
    assert!(said.good && said.text.contains("\"written_bytes\":"), "{said:?}");
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}

/// Publishes a reading every 20 milliseconds, as devices that do not know of each other do. Out: how many commits that took,
/// and how many bytes they have written.
fn one_by_one(page: &Stage, details: &str, broker: &Mosquitto) -> anyhow::Result<(u64, u64)> {
    let journal = || -> anyhow::Result<(u64, u64, u64)> {
        let said = page.typed(details, "")?;
        let status: Status = serde_json::from_str(&said.text).with_context(|| said.text)?;
        let journal = status.journal;
        Ok((journal.commits, journal.bytes_written, journal.entries_committed))
    };
    let (commits, bytes, entries) = journal()?;
    let count = 100;
    for _ in 0..count {
        publish_readings(broker, 1)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for("the last commit", LIMIT, || match journal() {
        Ok(now) if now.2 >= entries + count => Ok((now.0 - commits, now.1 - bytes)),
        Ok(now) => Err(format!("{} of {count} entries", now.2 - entries)),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// A gateway that is gone for good, in a group that shares topics: its session keeps what the broker deals to it, until the
/// page's command takes it away.
#[test]
fn a_session_that_nobody_wants_is_removed() -> anyhow::Result<()> {
    let mut page = Stage::open("docs/guarantees.md")?;
    let broker = page.broker_as_shown()?;
    let (data, shared) = (page.path("data"), page.block("toml", "$share/")?);
    let text = format!(
        "data_dir = {data:?}\n[[mqtt]]\nurl = \"{}\"\nclient_id = \"old-barn\"\n{shared}",
        broker.url()
    );
    page.write(CONFIG, &text)?;
    let run = format!("forebay run --config {CONFIG}");
    let tell = |number: u64| {
        let body = format!("{{\"temperature\":{number}}}").into_bytes();
        publish(broker.port, vec![(format!("sensors/of-{number}/cellar"), body)])
    };
    let arrived = |page: &Stage, number: u64| {
        let said = page.typed(&format!("forebay query --device of-{number} --config {CONFIG}"), "");
        said.map(|said| said.text.lines().count())
    };
    let wait = |page: &Stage, number: u64| {
        wait_for(&format!("reading {number}"), LIMIT, || match arrived(page, number) {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    let away = |page: &Stage, number: u64| -> anyhow::Result<()> {
        let mut gateway = page.gateway_by(&run)?;
        page.connected()?;
        assert!(gateway.terminate(LIMIT)?.success());
        tell(number)
    };

    away(&page, 1)?;
    let mut gateway = page.gateway_by(&run)?;
    wait(&page, 1)?;
    assert!(gateway.terminate(LIMIT)?.success());

    away(&page, 2)?;
    page.replace("CLIENT_ID", "old-barn");
    let said = page.run("mosquitto_sub")?;
    assert!(said.contains("mosquitto version"), "{said}");
    let mut gateway = page.gateway_by(&run)?;
    page.connected()?;
    tell(3)?;
    wait(&page, 3)?;
    assert_eq!(arrived(&page, 2)?, 0, "its queue went with the session");
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
fn an_upgrade_is_copied_checked_and_gone_on_with() -> anyhow::Result<()> {
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
    let query = format!("forebay query --device boiler --config {CONFIG}");
    let said = page.typed(&query, "")?;
    assert_eq!(said.text.lines().count(), 10, "{}", said.text);
    let copy = page.path("data.before/journal");
    let said = page.typed(&format!("forebay journal verify --journal '{}'", copy.display()), "")?;
    assert!(said.good && said.text.contains("all is well"), "{said:?}");
    page.run("forebay audit")?;
    assert!(gateway.terminate(LIMIT)?.success());
    page.close()
}
