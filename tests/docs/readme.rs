//! README.md: its configuration runs, and so does every command.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use forebay_gateway::dead_letters::{DIRECTORY, DeadLetters, Letter, Stage as LetterStage};
use forebay_gateway::journal::JournalId;
use forebay_gateway::query::Answer;
use forebay_gateway::record::Offset;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::services::InfluxDb;

use crate::stage::{CONFIG, LIMIT, Stage, root};

/// The README's configuration, with its database of version 1, on the test's own services.
fn configure(page: &mut Stage) -> anyhow::Result<()> {
    write_secret(&page.path("etc/mqtt.password"))?;
    write_secret(&page.path("etc/influxdb.token"))?;
    let main = page.block("toml", "data_dir =")?;
    let read = page.configured(&main)?;
    anyhow::ensure!((read.mqtt.len(), read.serial.len(), read.influxdb.len()) == (1, 1, 1), "{read:?}");
    let sources = main.split("[[influxdb]]").next().unwrap_or_default();
    let version_1 = page.block("toml", "version = 1")?;
    page.write(CONFIG, &format!("{sources}{version_1}"))?;
    // The embedded database beside it, since the README reads that too.
    page.write("conf.d/sqlite.toml", "[sqlite]\n")?;
    let energy = page.block("toml", "name = \"energy\"")?;
    let text = page.block("toml", "format = \"csv\"")?;
    let read = page.configured(&format!("{text}\n{energy}"))?;
    anyhow::ensure!((read.serial.len(), read.influxdb.len()) == (1, 1), "{read:?}");
    anyhow::ensure!(!read.influxdb[0].service.required, "{read:?}");
    Ok(())
}

fn write_secret(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, "secret\n")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Puts the letter that the README shows into the store of a gateway that does not run.
fn keep_a_letter(data_dir: &Path) -> anyhow::Result<()> {
    let body = *b"climate,device=esp t=\"a\"\n";
    let letter = Letter {
        sink: "main".into(),
        journal: JournalId(1),
        offset: Offset(1234),
        stage: LetterStage::Delivery,
        at_ns: 1_767_225_600_000_000_000,
        device: "esp".into(),
        rows: 1,
        origin: "climate,device=esp".into(),
        reason: "field type conflict".into(),
        body: body.into(),
        body_bytes: body.len() as u64,
    };
    let store = DeadLetters::open_dir(&data_dir.join(DIRECTORY), 1 << 20)?;
    store.append(&[letter])?;
    Ok(())
}

#[test]
fn the_readme_is_true() -> anyhow::Result<()> {
    let mut page = Stage::open("README.md")?;
    let (broker, server) = (page.broker_as_shown()?, page.influxdb()?);
    page.replace("database = \"sensors\"", &format!("database = {:?}", InfluxDb::DATABASE));
    configure(&mut page)?;
    let said = page.run("forebay config")?;
    assert!(said.contains("| `max_bytes` |"), "{said}");
    page.run("forebay check")?;
    let mut gateway = page.gateway("forebay run --config")?;
    page.until("forebay status", &["connected"])?;

    page.write("message.json", "{\"time\":1767225600000,\"t\":21.5}")?;
    let said = page.run("forebay explain")?;
    assert!(said.contains("room=cellar t=21.5 1767225600000000000"), "{said}");
    // What it shows depends on the machine.
    let said = page.run("forebay ports")?;
    assert!(said.contains("serial"), "{said}");

    show_rows(&mut page, broker.port)?;
    let first = read_back(&mut page)?;
    for word in ["replay", "drop"] {
        let said = page.ran(&format!("forebay dead-letters {word}"))?;
        assert!(
            !said.good && said.text.contains("main-1234 stays: there is no such dead letter"),
            "{said:?}"
        );
    }
    let audit = page.take("forebay audit")?;
    let said = page.typed(&audit, "")?;
    assert!(said.good && said.text.contains("main: ") && said.text.contains("  esp "), "{said:?}");
    assert!(gateway.terminate(LIMIT)?.success());

    let said = page.typed(&audit, "")?;
    assert!(said.good && said.text.contains("main: exact, "), "{said:?}");
    let (export, running) = first;
    let said = page.typed(&export, "")?;
    assert!(said.good && said.text == running, "{said:?}");
    let said = page.run("forebay sinks list")?;
    assert!(said.contains("main"), "{said}");
    let said = page.run("sqlite3 ")?;
    assert!(said.contains("|climate|esp|t|21.5|"), "{said}");
    dead_letters(&mut page)?;
    for what in ["list", "verify", "dump"] {
        assert!(!page.run(&format!("forebay journal {what}"))?.is_empty(), "{what}");
    }
    with_a_token(&mut page)?;
    try_it(&mut page, &broker.url())?;
    drop(server);
    page.close()
}

/// A row shows in the dry run and in the tail.
fn show_rows(page: &mut Stage, broker: u16) -> anyhow::Result<()> {
    let (mut dry, dry_log) = page.start("forebay run --dry-run", "dry.log")?;
    let (mut tail, tail_log) = page.start("forebay tail", "tail.log")?;
    let mut number = 0;
    wait_for("a row in the dry run and in the tail", LIMIT, || {
        number += 1;
        let payload = format!("{{\"time\":{},\"t\":21.5}}", wall_ns() / 1_000_000);
        let message = ("sensors/esp/cellar".to_owned(), payload.into_bytes());
        publish(broker, vec![message]).map_err(|error| error.to_string())?;
        for log in [&dry_log, &tail_log] {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            if !text.contains("climate,device=esp,") || !text.contains("room=cellar t=21.5 ") {
                return Err(format!("{} shows {text:?} after {number} messages", log.display()));
            }
        }
        Ok(())
    })?;
    for process in [&mut dry, &mut tail] {
        process.kill();
    }
    Ok(())
}

/// Asks for what was stored in each way that the README shows. Out: how everything is exported, and what that gave.
fn read_back(page: &mut Stage) -> anyhow::Result<(String, String)> {
    let query = page.take("forebay query")?;
    let said = page.typed(&query, "")?;
    assert!(said.good && said.text.is_empty(), "there is no boiler: {said:?}");
    let said = page.typed(&query.replace("boiler", "esp"), "")?;
    assert!(said.good && said.text.contains("climate,device=esp,"), "{said:?}");
    assert!(said.text.contains("room=cellar t=21.5 "), "{said:?}");
    for _ in 0..2 {
        let said = page.run("curl 'http://127.0.0.1")?;
        assert!(said.contains("\"complete\":true"), "{said}");
    }
    let shown = page.block("json", "points")?;
    let answer: Answer = serde_json::from_str(&shown).with_context(|| format!("no answer: {shown}"))?;
    assert!(answer.complete && answer.points[0].time == "2026-01-01T00:00:00.5Z");
    let export = page.take("forebay export")?;
    let said = page.typed(&export, "")?;
    assert!(said.good && said.text.contains(",climate,esp,t,21.5,float,"), "{said:?}");
    Ok((export, said.text))
}

fn dead_letters(page: &mut Stage) -> anyhow::Result<()> {
    let (list, show) = (page.take("forebay dead-letters list")?, page.take("forebay dead-letters show")?);
    let said = page.typed(&list, "")?;
    assert!(said.good && !said.text.contains("main-1234"), "{said:?}");
    let said = page.typed(&show, "")?;
    assert!(!said.good && said.text.contains("`forebay dead-letters list`"), "{said:?}");
    keep_a_letter(&page.path("data"))?;
    let said = page.typed(&list, "")?;
    let line = "main-1234  2026-01-01T00:00:00Z  delivery  main  esp  1  ";
    assert!(said.good && said.text.contains(line), "{said:?}");
    let said = page.typed(&show, "")?;
    assert!(said.good && said.text.contains("field type conflict"), "{said:?}");
    assert!(said.text.ends_with("t=\"a\"\n"), "{said:?}");
    Ok(())
}

/// Reached from other machines, with a token.
fn with_a_token(page: &mut Stage) -> anyhow::Result<()> {
    // Here everything is this user's own.
    page.program("sudo", &Command::new("env"))?;
    page.replace("-g forebay", "-g $(id -g)");
    page.run("head -c 32 /dev/urandom")?;
    let reached = page.block("toml", "[http]")?;
    let http = page.configured(&reached)?.http;
    anyhow::ensure!(!http.listen.ip().is_loopback() && http.token.is_some(), "{http:?}");
    let token_only: Vec<&str> = reached.lines().filter(|line| !line.starts_with("listen")).collect();
    page.write("conf.d/token.toml", &token_only.join("\n"))?;
    let mut gateway = page.gateway_by(&format!("forebay run --config {CONFIG}"))?;
    let refused = page.typed(&format!("curl -sf {}", page.url("/api/v1/status")), "")?;
    assert!(!refused.good, "{refused:?}");
    let here = page.url("");
    page.replace("http://barn:8686", &here);
    let said = page.run("curl -H \"Authorization")?;
    assert!(said.contains("\"verdict\""), "{said}");
    assert!(gateway.terminate(LIMIT)?.success());
    Ok(())
}

/// What cargo's aliases run, as they would run it: cargo has built it already.
fn try_it(page: &mut Stage, broker: &str) -> anyhow::Result<()> {
    let aliases = std::fs::read_to_string(root().join(".cargo/config.toml"))?;
    anyhow::ensure!(
        aliases.contains("forebay-sim -- demo\"") && aliases.contains("forebay-sim --\""),
        "{aliases}"
    );
    let demo = page.take("cargo demo")?.replace("cargo demo", "forebay-sim demo --");
    let fleet = page.take("cargo sim devices")?.replace("cargo sim", "forebay-sim");
    page.program("forebay-sim", &Command::new(env!("CARGO_BIN_EXE_forebay-sim")))?;
    let said = page.typed(&demo, "")?;
    assert!(said.good && said.text.contains("is plugged in again"), "{said:?}");

    let ports: PathBuf = page.path("ports");
    let own = format!("--broker {broker} --ports {}", ports.display());
    let fleet = fleet.replace("devices ", &format!("devices {own} "));
    let fleet = fleet.split('#').next().unwrap_or_default().to_owned();
    let (mut fleet, log) = page.start_typed(&fleet, "fleet.log")?;
    wait_for("the lines of the fleet's ports, and all of these", LIMIT, || {
        let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let names = std::fs::read_dir(&ports).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let count = names.filter(|name| name.to_string_lossy().starts_with("port")).count();
        if text.contains("[[serial]]") && count == 64 {
            Ok(())
        } else {
            Err(format!("{count} ports: {text}"))
        }
    })?;
    fleet.kill();
    Ok(())
}
