//! `forebay journal` over the files of a real gateway: beside it, on a damaged journal, and on a repaired copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::proxy::MqttProxy;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};
use serde_json::{Value, json};

use crate::world::{DRAIN_LIMIT, Scratch, program};

/// Rows that are journaled while the database is not there.
const ROWS: u64 = 60;

/// What a command answered: its exit status and its standard output.
struct Answer {
    status: Option<i32>,
    text: String,
}

impl Answer {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("no JSON: {}", self.text))
    }
}

/// Runs `forebay journal …` to its end.
fn journal(arguments: &[&str]) -> anyhow::Result<Answer> {
    let mut command: Command = program().bare();
    let output = command.arg("journal").args(arguments).stdin(Stdio::null()).output()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.is_empty() {
        text = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Ok(Answer { status: output.status.code(), text })
}

/// A gateway behind a broker whose database is not there yet.
struct Setup {
    scratch: Scratch,
    broker: Mosquitto,
    _mqtt: MqttProxy,
    gateway: Gateway,
    database: InfluxDb,
    since_ns: i64,
}

impl Setup {
    fn start(test: &str) -> anyhow::Result<Setup> {
        let scratch = Scratch::new(test)?;
        let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
        let mqtt = MqttProxy::start(broker.port)?;
        let mut database = InfluxDb::start(&scratch.path().join("influxdb"))?;
        database.stop()?;
        let settings = Settings {
            mqtt: Some(mqtt.url()),
            tables: Settings::influxdb_1(&database.url(), InfluxDb::DATABASE),
            ..Settings::default()
        };
        let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
        mqtt.wait_until_served()?;
        Ok(Setup { scratch, broker, _mqtt: mqtt, gateway, database, since_ns: wall_ns() })
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("gateway/data/journal")
    }

    /// Publishes rows numbered from 0 on, each of which is durable before the next one, and so in a frame of its own.
    fn journal_rows(&self, rows: u64) -> anyhow::Result<()> {
        for number in 0..rows {
            let before = self.watermark()?;
            let ns = self.since_ns + i64::try_from(number)? * 1_000_000;
            let payload = json!({ "time": ns, "number": number }).to_string();
            publish(self.broker.port, vec![("sensors/esp/cellar".to_owned(), payload.into_bytes())])?;
            wait_for("a row's being durable", DRAIN_LIMIT, || match self.watermark() {
                Ok(watermark) if watermark > before => Ok(()),
                other => Err(format!("{other:?}")),
            })?;
        }
        Ok(())
    }

    fn watermark(&self) -> anyhow::Result<u64> {
        let status = self.gateway.status()?;
        status.pointer("/journal/watermark").and_then(Value::as_u64).context("a status without a watermark")
    }
}

fn files(directory: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

/// Flips a bit in the field's name of one row, and says in which file and at which byte.
fn flip_row(directory: &Path, number: u64) -> anyhow::Result<(String, u64)> {
    let newest = files(directory)?.into_iter().rev().find(|(path, bytes)| {
        path.extension().is_some_and(|extension| extension == "seg")
            && bytes.windows(6).any(|window| window == b"number")
    });
    let (path, mut bytes) = newest.context("no segment holds a row")?;
    let places = bytes.windows(6).enumerate().filter(|(_, window)| *window == b"number");
    let at = places.map(|(at, _)| at).nth(usize::try_from(number)?).context("no such row")?;
    bytes[at] ^= 0x01;
    std::fs::write(&path, &bytes)?;
    let name = path.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
    Ok((name.to_owned(), at as u64))
}

#[test]
fn a_damaged_row_is_named_left_out_of_the_copy_and_costs_no_other() -> anyhow::Result<()> {
    const HIT: u64 = 40;
    let mut setup = Setup::start("journal-commands")?;
    setup.journal_rows(ROWS)?;
    assert!(setup.gateway.terminate()?.success());
    let (config, directory) = (setup.gateway.config().display().to_string(), setup.directory());

    let well = journal(&["verify", "--config", &config, "--json"])?;
    let verdict = well.json()?;
    assert_eq!((well.status, &verdict["well"], &verdict["rows"]), (Some(0), &json!(true), &json!(ROWS)));
    let before = files(&directory)?;
    let (file, at) = flip_row(&directory, HIT)?;
    let damaged = files(&directory)?;
    assert_eq!(before.len(), damaged.len());

    let verify = journal(&["verify", "--config", &config])?;
    assert_eq!(verify.status, Some(1), "{}", verify.text);
    assert!(verify.text.contains(&format!("damaged: {file} bytes ")), "{}", verify.text);
    let verdict = journal(&["verify", "--config", &config, "--json"])?.json()?;
    let [found] = &verdict["damage"].as_array().context("no list")?[..] else {
        anyhow::bail!("one byte is one finding: {verdict}")
    };
    let (from, to) = (&found["places"][0]["bytes"][0], &found["places"][0]["bytes"][1]);
    assert!(from.as_u64() <= Some(at) && to.as_u64() > Some(at), "{found}");
    assert_eq!((&found["rows"], &found["kind"]), (&json!(1), &json!("entries")), "{found}");
    let offset = found["offsets"][0].as_u64().context("no offset")?;

    let list = journal(&["list", "--config", &config, "--json"])?.json()?;
    let states = list["files"].as_array().context("no list")?.iter();
    let states: Vec<_> = states.filter(|f| f["name"] == file.as_str()).map(|f| &f["state"]).collect();
    assert_eq!(states, [&json!("damaged")]);
    let dump = journal(&[
        "dump",
        "--config",
        &config,
        "--from",
        &(offset - 1).to_string(),
        "--limit",
        "2",
        "--json",
    ])?;
    let kinds: Vec<Value> = dump.text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let kinds: Vec<_> = kinds.iter().map(|item| item["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["row", "damaged", "row"], "{}", dump.text);

    let copy = setup.scratch.path().join("copy");
    let to = copy.display().to_string();
    let repair = journal(&["repair", "--config", &config, "--to", &to])?;
    assert_eq!(repair.status, Some(0), "{}", repair.text);
    let again = journal(&["repair", "--config", &config, "--to", &to])?;
    assert!(again.status == Some(1) && again.text.contains("not empty"), "{}", again.text);
    let verify = journal(&["verify", "--journal", &to, "--json"])?;
    let verdict = verify.json()?;
    assert_eq!((verify.status, &verdict["rows"]), (Some(0), &json!(ROWS - 1)), "{verdict}");
    assert_eq!(verdict["known"][0]["offsets"], found["offsets"], "{verdict}");
    assert_eq!(files(&directory)?, damaged, "nothing of that changed a byte");

    // On the damaged original and on the copy the gateway delivers the same: everything else.
    for life in ["original", "copy"] {
        setup.database.resume()?;
        create_anew(&setup.database)?;
        setup.gateway.resume()?;
        let numbers = || delivered(&setup.database, setup.since_ns);
        wait_for("the delivery of the other rows", DRAIN_LIMIT, || match numbers() {
            Ok(numbers) if numbers.len() as u64 == ROWS - 1 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        assert_eq!(numbers()?, (0..ROWS).filter(|number| *number != HIT).collect::<Vec<_>>(), "{life}");
        setup.gateway.close(DRAIN_LIMIT)?;
        setup.database.stop()?;
        if life == "original" {
            std::fs::rename(&directory, setup.scratch.path().join("damaged"))?;
            std::fs::rename(&copy, &directory)?;
        }
    }
    let verify = journal(&["verify", "--config", &config])?;
    assert_eq!(verify.status, Some(0), "after the gateway went on with the copy: {}", verify.text);
    setup.scratch.passed();
    Ok(())
}

/// Empties the database.
fn create_anew(server: &InfluxDb) -> anyhow::Result<()> {
    for verb in ["DROP", "CREATE"] {
        let statement = percent_encode(&format!("{verb} DATABASE {}", InfluxDb::DATABASE));
        let url = format!("{}/query?q={statement}", server.url());
        Http::new()?.post(&url, "text/plain", String::new())?.successful(verb)?;
    }
    Ok(())
}

/// The numbers of the rows in the database, in order.
fn delivered(server: &InfluxDb, since_ns: i64) -> anyhow::Result<Vec<u64>> {
    let points = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, "weather", since_ns)?;
    let numbers = points.iter().filter_map(|point| point.column("number").and_then(Value::as_f64));
    let mut numbers: Vec<u64> = numbers.map(|number| number as u64).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[test]
fn beside_a_running_gateway_its_journal_is_well_at_any_moment() -> anyhow::Result<()> {
    let mut setup = Setup::start("journal-running")?;
    let config = setup.gateway.config().display().to_string();
    let mut looks = 0;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let setup = &setup;
        let rows = scope.spawn(move || setup.journal_rows(ROWS));
        while !rows.is_finished() {
            let verify = journal(&["verify", "--config", &config])?;
            assert_eq!(verify.status, Some(0), "{}", verify.text);
            assert!(verify.text.contains("a gateway is running"), "{}", verify.text);
            assert_eq!(journal(&["list", "--config", &config])?.status, Some(0));
            looks += 1;
        }
        rows.join().map_err(|_| anyhow::anyhow!("publishing panicked"))?
    })?;
    assert!(looks > 3, "only {looks} looks");
    let to = setup.scratch.path().join("copy").display().to_string();
    let repair = journal(&["repair", "--config", &config, "--to", &to])?;
    assert!(repair.status == Some(1) && repair.text.contains("in use by process"), "{}", repair.text);
    assert!(setup.gateway.terminate()?.success());
    let verdict = journal(&["verify", "--config", &config, "--json"])?.json()?;
    assert_eq!((&verdict["rows"], &verdict["running"]), (&json!(ROWS), &Value::Null));
    setup.scratch.passed();
    Ok(())
}

#[test]
fn what_cannot_be_looked_at_is_named_with_its_cure() -> anyhow::Result<()> {
    let scratch = Scratch::new("journal-errors")?;
    let directory = scratch.path().join("journal");
    let named = directory.display().to_string();
    let says = |arguments: &[&str], words: &[&str]| -> anyhow::Result<()> {
        let answer = journal(arguments)?;
        let said = words.iter().all(|word| answer.text.contains(word));
        anyhow::ensure!(answer.status == Some(1) && said, "{:?} {}", answer.status, answer.text);
        Ok(())
    };
    says(&["verify", "--journal", &named], &["there is no journal in", "--config"])?;
    std::fs::create_dir(&directory)?;
    std::fs::write(directory.join("something.else"), "x")?;
    says(&["list", "--journal", &named], &["there is no journal in", "segment"])?;
    // A header of a format of the future: magic, version and checksum are where they always are.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/fixtures/journal-v1");
    for entry in std::fs::read_dir(fixture)? {
        let entry = entry?;
        std::fs::copy(entry.path(), directory.join(entry.file_name()))?;
    }
    let (path, bytes) = files(&directory)?
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .context("no segment")?;
    std::fs::write(&path, newer(bytes))?;
    for command in ["list", "verify", "dump"] {
        says(&[command, "--journal", &named], &["format 2", "run the version that wrote it"])?;
    }
    let to = scratch.path().join("copy").display().to_string();
    says(&["repair", "--journal", &named, "--to", &to], &["format 2"])?;
    let within = directory.join("a/copy").display().to_string();
    says(&["repair", "--journal", &named, "--to", &within], &["lies within the journal"])?;
    assert!(!directory.join("a").exists());
    std::fs::remove_file(&path)?;
    std::fs::create_dir(&path)?;
    says(&["verify", "--journal", &named], &["00000000000000000002.seg", "check the disk"])?;
    scratch.passed();
    Ok(())
}

/// The segment with a header of format 2.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[8] = 2;
    let checksum = crc32c(&bytes[..56]);
    bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// CRC-32C, bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}
