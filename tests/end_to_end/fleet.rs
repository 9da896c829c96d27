//! `forebay-sim devices`, as the README shows it: a fleet as a process of its own, on lines that are as bad as they get.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::device::{NativeCore, RING_BYTES};
use forebay_tests::gateway::{Gateway, Settings, round_trip_tolerance};
use forebay_tests::ledger::judge;
use forebay_tests::process::allow_files;
use forebay_tests::readback::sqlite;
use forebay_tests::seed::{Rng, long};
use forebay_tests::services::Mosquitto;
use forebay_tests::truth::{Dating, Truth};
use serde_json::Value;

use crate::world::{DRAIN_LIMIT, Scratch, program};

const README: &str = include_str!("../../README.md");

/// Every knob. A serial line of this kind damages about every tenth frame.
const FAULTS: &str =
    "--flip 0.0004 --drop 0.0003 --duplicate 0.0003 --insert 0.0003 --split 0.01 --delay 20ms";

/// An answer about the clock that is under way when its line is cut comes when the line is back, and is off by half of that.
const HELD_UP_NS: i64 = 2_000_000_000;

/// Runs `forebay-sim` with these words to its end.
fn sim(words: &str) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-sim"));
    let output = command.args(words.split_whitespace()).stdin(Stdio::null()).output()?;
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// The fleet that the README starts; of as many devices at the broker as this machine has time for.
fn readme_fleet() -> anyhow::Result<String> {
    let line = README.lines().find_map(|line| line.strip_prefix("cargo sim devices "));
    let words = line.context("the README shows no cargo sim devices")?.split('#').next().unwrap_or_default();
    let (serial, mqtt) = ("--serial 64", "--mqtt 1000");
    anyhow::ensure!(words.trim() == format!("{serial} {mqtt}"), "the README shows another fleet: {words}");
    Ok(if long() { words.into() } else { format!("{serial} --mqtt 200") })
}

fn count(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

/// A device's log, from its account: rows follow one another by the same time, and none was lost.
fn truth(name: &str, account: &Value) -> anyhow::Result<Truth> {
    let truth = Truth::new(name, Dating::Gateway, NativeCore::<RING_BYTES>::VALUES);
    let produced = u32::try_from(count(account, "produced"))?;
    let first_ns = account["first_ns"].as_i64().context("no time of the first row")?;
    let every_ns = i64::try_from(count(account, "every_ns"))?;
    for number in 0..produced {
        truth.produce(first_ns + i64::from(number) * every_ns, 0, number);
    }
    truth.observe(u32::try_from(count(account, "boot"))?, produced, produced);
    Ok(truth)
}

#[test]
fn a_fleet_on_bad_lines_has_every_acked_row_in_the_store_once() -> anyhow::Result<()> {
    let mut rng = Rng::announced("fleet")?;
    // Inherited by the broker and the gateway.
    allow_files(4096)?;
    let scratch = Scratch::new("fleet")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let ports = scratch.path().join("ports");
    let pattern = ports.join("port*");
    let tables = format!("[[serial]]\nport = {pattern:?}\nclaim = \"any\"\n");
    let settings = Settings { mqtt: Some(broker.url()), ports: Vec::new(), tables };
    let mut gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;

    let seconds = if long() { 60 } else { 12 };
    let words = format!(
        "devices {} --broker {} --ports {} --for {seconds}s --drain 60s --json {FAULTS} --disconnect 15s --seed {}",
        readme_fleet()?,
        broker.url(),
        ports.display(),
        rng.next_u64()
    );
    let output = sim(&words)?;
    assert!(output.status.success(), "the fleet ended with {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)?;
    for (fault, times) in report["faults"].as_object().context("no faults")? {
        assert!(times.as_u64() > Some(0), "{fault} never struck: {}", report["faults"]);
    }
    assert_eq!((count(&report, "waiting"), count(&report, "lost")), (0, 0));
    assert_eq!(count(&report, "produced"), count(&report, "acked"));

    gateway.close(DRAIN_LIMIT)?;
    let log = gateway.log_text()?;
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    let devices = report["devices"].as_object().context("no devices")?;
    let truths: Vec<Truth> =
        devices.iter().map(|(name, account)| truth(name, account)).collect::<Result<_, _>>()?;
    let stored = sqlite::read(&gateway.sqlite_file())?;
    let tolerance = round_trip_tolerance(&log);
    let ledger = judge(&truths, &stored, &|device| tolerance(device) + HELD_UP_NS);
    eprintln!("{}", ledger.abridged());
    assert_eq!(ledger.devices.len(), devices.len(), "a device that is none");
    assert!(ledger.total.balanced() && ledger.total.gaps == 0, "{:?}", ledger.total);
    let rows = count(&report, "produced");
    assert_eq!(ledger.total.stored, rows);
    assert!(rows >= (seconds - 2) * u64::try_from(devices.len())?, "{rows} rows of {}", devices.len());
    // The fleet must leave the machine to what it tests.
    let cpu =
        report["cpu_seconds"].as_f64().context("no CPU time")? / report["seconds"].as_f64().unwrap_or(1.0);
    assert!(cpu < 0.8, "the fleet takes {cpu:.2} of a processor");
    scratch.passed();
    Ok(())
}

#[test]
fn a_fleet_that_nobody_serves_says_what_is_missing_and_fails() -> anyhow::Result<()> {
    let scratch = Scratch::new("fleet-alone")?;
    let ports = scratch.path().join("ports");
    let output =
        sim(&format!("devices --serial 2 --ports {} --every 100ms --for 1s --drain 1s", ports.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        ["2 of 2 devices", "serial-1: ", "rows wait, and nobody listens", "--drain", "claim = \"any\""]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!ports.join("port0").is_symlink(), "a fleet takes its ports along");
    scratch.passed();
    Ok(())
}

#[test]
fn an_interrupted_fleet_delivers_what_is_left() -> anyhow::Result<()> {
    let scratch = Scratch::new("fleet-interrupted")?;
    let ports = scratch.path().join("ports");
    let tables = format!("[[serial]]\nport = {:?}\nclaim = \"any\"\n", ports.join("port*"));
    let settings = Settings { mqtt: None, ports: Vec::new(), tables };
    let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-sim"));
    let words = format!("devices --serial 3 --ports {} --every 20ms", ports.display());
    command.args(words.split_whitespace());
    let log = scratch.path().join("fleet.log");
    let mut fleet = forebay_tests::process::Process::spawn("forebay-sim", command, &log)?;
    wait_for("the delivery of some rows", Duration::from_secs(30), || match gateway.backlog() {
        Ok((_, confirmed)) if confirmed > 100 => Ok(()),
        backlog => Err(format!("{backlog:?}")),
    })?;
    let status = fleet.terminate(Duration::from_secs(30))?;
    assert!(status.success(), "{}", forebay_tests::process::tail(&log));
    assert!(forebay_tests::process::tail(&log).contains("lost 0;"));
    scratch.passed();
    Ok(())
}
