//! The README is true: its configuration runs, and so does every `forebay …` line in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_gateway::dead_letters::{DIRECTORY, DeadLetters, Letter, Stage};
use forebay_gateway::journal::JournalId;
use forebay_gateway::query::Answer;
use forebay_gateway::record::Offset;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::process::{Process, free_port};
use forebay_tests::services::{InfluxDb, Mosquitto};

use crate::world::{Scratch, program};

const README: &str = include_str!("../../README.md");
const LIMIT: Duration = Duration::from_secs(20);

/// The text of each block of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let open = format!("```{language}\n");
    let behind = README.split(open.as_str()).skip(1);
    behind.filter_map(|text| text.split("```").next()).collect()
}

/// The README's configuration, with its database of version 1, on the test's own services.
fn config(scratch: &Path, broker: &Mosquitto, server: &InfluxDb) -> anyhow::Result<PathBuf> {
    let blocks = blocks("toml");
    let [main, version_1, reached, energy, text] = blocks[..] else {
        anyhow::bail!("the README has another number of TOML blocks")
    };
    let (of_http, token) = (scratch.join("http.toml"), scratch.join("http.token"));
    std::fs::write(&token, "a-token-that-is-long-enough\n")?;
    std::fs::write(&of_http, reached.replace("/etc/forebay/http.token", &token.display().to_string()))?;
    let http = forebay_gateway::config::load(&of_http)?.config.http;
    anyhow::ensure!(!http.listen.ip().is_loopback() && http.token.is_some(), "{http:?}");
    let of_text = scratch.join("text.toml");
    std::fs::write(&of_text, text)?;
    anyhow::ensure!(forebay_gateway::config::load(&of_text)?.config.serial.len() == 1, "no serial port");
    std::fs::write(&of_text, format!("{text}\n{energy}"))?;
    let databases = forebay_gateway::config::load(&of_text)?.config.influxdb;
    anyhow::ensure!(databases.len() == 1 && !databases[0].service.required, "no second database");
    let sources = main.split("[[influxdb]]").next().unwrap_or_default();
    let secret = scratch.join("mqtt.password");
    write_secret(&secret)?;
    let replacements = [
        ("/var/lib/forebay", scratch.join("data").display().to_string()),
        ("mqtt://127.0.0.1:1883", broker.url()),
        ("/etc/forebay/mqtt.password", secret.display().to_string()),
        ("http://127.0.0.1:8086", server.url()),
        ("database = \"sensors\"", format!("database = {:?}", InfluxDb::DATABASE)),
    ];
    let own = format!("[clock]\ntrust = \"always\"\n[http]\nlisten = \"127.0.0.1:{}\"\n", free_port()?);
    let mut text = format!("{sources}{version_1}{own}");
    for (readme, here) in replacements {
        anyhow::ensure!(text.contains(readme), "the README does not say {readme} any more");
        text = text.replace(readme, &here);
    }
    let file = scratch.join("forebay.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

fn write_secret(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, "secret\n")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// The command line behind each `forebay ` of the README's shell blocks, with the test's configuration in it.
fn command_lines(file: &Path) -> Vec<Vec<String>> {
    let lines = blocks("sh").into_iter().flat_map(str::lines);
    let commands = lines.filter_map(|line| line.split('#').next()?.trim().strip_prefix("forebay "));
    let file = file.display().to_string();
    let copy = file.replace("forebay.toml", "journal.copy");
    let message = file.replace("forebay.toml", "message.json");
    let word = |word: &str| match word {
        "forebay.toml" => file.clone(),
        "journal.copy" => copy.clone(),
        "message.json" => message.clone(),
        word => word.to_owned(),
    };
    commands.map(|command| command.split_whitespace().map(word).collect()).collect()
}

fn start(arguments: &[String], scratch: &Path, log: &str) -> anyhow::Result<(Process, PathBuf)> {
    let log = scratch.join(log);
    let mut command: Command = program().bare();
    // Whoever wants to hear less gets the same gateway.
    command.args(arguments).stdin(Stdio::null()).env("FOREBAY_LOG", "error");
    Ok((Process::spawn("forebay", command, &log)?, log))
}

/// Runs a command to its end; whether all was well, and what it said.
fn finish(arguments: &[String]) -> anyhow::Result<(bool, String)> {
    let output = program().bare().args(arguments).stdin(Stdio::null()).output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

/// Puts the letter that the README shows into the store of a gateway that does not run.
fn keep_a_letter(data_dir: &Path) -> anyhow::Result<()> {
    let body = *b"climate,device=esp t=\"a\"\n";
    let letter = Letter {
        sink: "main".into(),
        journal: JournalId(1),
        offset: Offset(1234),
        stage: Stage::Delivery,
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
    let scratch = Scratch::new("readme")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let file = config(scratch.path(), &broker, &server)?;
    let lines = command_lines(&file);
    let is =
        |line: &[String], words: &[&str]| words.iter().all(|word| line.iter().any(|known| known == word));
    let line = |words: &[&str]| {
        let found = lines.iter().find(|line| is(line, words));
        found.cloned().with_context(|| format!("the README does not show forebay {}", words.join(" ")))
    };
    assert_eq!(lines.len(), 20, "a command of the README is not tried here: {lines:?}");

    let (good, said) = finish(&line(&["check"])?)?;
    assert!(good, "{said}");
    let run: Vec<String> = line(&["run"])?.into_iter().filter(|word| word != "--dry-run").collect();
    let (mut gateway, _) = start(&run, scratch.path(), "gateway.log")?;
    let status = line(&["status"])?;
    let is_connected = || {
        let (good, said) = finish(&status).map_err(|error| error.to_string())?;
        if good && said.contains("connected") { Ok(()) } else { Err(said) }
    };
    wait_for("the gateway's connection to the broker", LIMIT, is_connected)?;

    let explain = line(&["explain"])?;
    std::fs::write(scratch.path().join("message.json"), "{\"time\":1767225600000,\"t\":21.5}")?;
    let (good, said) = finish(&explain)?;
    assert!(good && said.contains("room=cellar t=21.5 1767225600000000000"), "{said}");

    // What it shows depends on the machine.
    let (good, said) = finish(&line(&["ports"])?)?;
    assert!(good && said.contains("serial"), "{said}");

    let (mut dry, dry_log) = start(&line(&["run", "--dry-run"])?, scratch.path(), "dry.log")?;
    let (mut tail, tail_log) = start(&line(&["tail"])?, scratch.path(), "tail.log")?;
    let mut number = 0;
    let shown = || {
        number += 1;
        let payload = format!("{{\"time\":{},\"t\":21.5}}", wall_ns() / 1_000_000);
        let message = ("sensors/esp/cellar".to_owned(), payload.into_bytes());
        publish(broker.port, vec![message]).map_err(|error| error.to_string())?;
        for log in [&dry_log, &tail_log] {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            if !text.contains("climate,device=esp,") || !text.contains("room=cellar t=21.5 ") {
                return Err(format!("{} shows {text:?} after {number} messages", log.display()));
            }
        }
        Ok(())
    };
    wait_for("a row in the dry run and in the tail", LIMIT, shown)?;
    for process in [&mut dry, &mut tail] {
        process.kill();
    }
    let (good, said) = finish(&line(&["query"])?)?;
    assert!(good && said.is_empty(), "there is no boiler: {said}");
    let mut query = line(&["query"])?;
    query.iter_mut().filter(|word| *word == "boiler").for_each(|word| "esp".clone_into(word));
    let (good, said) = finish(&query)?;
    assert!(good && said.contains("climate,device=esp,") && said.contains("room=cellar t=21.5 "), "{said}");
    for shown in blocks("json") {
        let answer: Answer = serde_json::from_str(shown).with_context(|| format!("no answer: {shown}"))?;
        assert!(answer.complete && answer.points[0].time == "2026-01-01T00:00:00.5Z");
    }
    let export = line(&["export"])?;
    let (good, running) = finish(&export)?;
    assert!(good && running.contains(",climate,esp,t,21.5,float,"), "{running}");
    let audit = line(&["audit"])?;
    let (good, said) = finish(&audit)?;
    assert!(good && said.contains("main: ") && said.contains("  esp "), "{said}");
    for word in ["replay", "drop"] {
        let (good, said) = finish(&line(&["dead-letters", word])?)?;
        assert!(!good && said.contains("main-1234 stays: there is no such dead letter"), "{said}");
    }
    assert!(gateway.terminate(LIMIT)?.success());
    let (good, said) = finish(&audit)?;
    assert!(good && said.contains("main: exact, "), "{said}");
    let (good, offline) = finish(&export)?;
    assert!(good && offline == running, "{offline}");
    let (good, said) = finish(&line(&["sinks", "list"])?)?;
    assert!(good && said.contains("main"), "{said}");

    let list = line(&["dead-letters", "list"])?;
    let (good, said) = finish(&list)?;
    assert!(good && !said.contains("main-1234"), "{said}");
    let show = line(&["dead-letters", "show"])?;
    let (good, said) = finish(&show)?;
    assert!(!good && said.contains("`forebay dead-letters list`"), "{said}");
    keep_a_letter(&scratch.path().join("data"))?;
    let (good, said) = finish(&list)?;
    assert!(good && said.contains("main-1234  2026-01-01T00:00:00Z  delivery  main  esp  1  "), "{said}");
    let (good, said) = finish(&show)?;
    assert!(good && said.contains("field type conflict") && said.ends_with("t=\"a\"\n"), "{said}");

    let journal: Vec<_> = lines.iter().filter(|line| is(line, &["journal"])).collect();
    assert_eq!(journal.len(), 5, "{journal:?}");
    for line in journal {
        let (good, said) = finish(line)?;
        assert!(good && !said.is_empty(), "{line:?}: {said}");
    }
    scratch.passed();
    Ok(())
}
