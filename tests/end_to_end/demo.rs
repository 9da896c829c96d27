//! `cargo demo`, as a stranger runs it.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use forebay_tests::services::VictoriaMetrics;
use serde_json::Value;

use crate::world::Scratch;

fn demo(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-sim"));
    // As `cargo demo -- …` runs it: the alias ends in the command, and cargo hands the `--` on.
    let output = command.args(["demo", "--"]).args(arguments).arg("--json").stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    eprintln!("{told}");
    anyhow::ensure!(output.status.success(), "the demo ended with {}", output.status);
    for step in ["the store is cut off", "the store is back", "is unplugged", "is plugged in again"] {
        anyhow::ensure!(told.contains(step), "it was never said that {step}");
    }
    serde_json::from_slice(&output.stdout).context("standard output is no JSON object")
}

fn count(ledger: &Value, key: &str) -> u64 {
    ledger.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

#[test]
fn twenty_seconds_store_ten_thousand_rows_once() -> anyhow::Result<()> {
    let ledger = demo(&["--for", "20s"])?;
    let devices = ledger.get("devices").and_then(Value::as_object).context("no devices")?;
    assert!(devices.len() >= 8, "{devices:?}");
    assert!(devices.keys().filter(|name| name.starts_with("serial-")).count() >= 4);
    assert!(count(&ledger, "stored") > 10_000, "{ledger}");
    assert_eq!((count(&ledger, "duplicates"), count(&ledger, "lost")), (0, 0), "{ledger}");
    assert_eq!(count(&ledger, "produced"), count(&ledger, "stored") + count(&ledger, "gaps"), "{ledger}");
    for (name, account) in devices {
        assert!(count(account, "acked") > 0 && count(account, "lost") == 0, "{name}: {account}");
    }
    Ok(())
}

#[test]
fn a_real_database_can_take_the_embedded_ones_place() -> anyhow::Result<()> {
    let scratch = Scratch::new("demo-victoria")?;
    let server = VictoriaMetrics::start(&scratch.path().join("victoria"), true)?;
    let url = server.url();
    let ledger =
        demo(&["--for", "8s", "--devices", "4", "--influxdb-url", &url, "--org", "o", "--bucket", "b"])?;
    assert!(count(&ledger, "stored") > 1_000, "{ledger}");
    scratch.passed();
    Ok(())
}
