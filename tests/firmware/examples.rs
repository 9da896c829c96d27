//! The examples of the adapters run as they stand: each on a serial port of its own, all against one gateway.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Program, Settings};
use forebay_tests::process::Process;
use forebay_tests::pty::Line;
use forebay_tests::world::Scratch;
use serde_json::Value;

/// Each example and the chip id that it has.
const EXAMPLES: [(&str, &str); 3] = [("blocking", "e661"), ("interrupt", "e662"), ("asynch", "e663")];

/// Rows that each must bring, one a second.
const ROWS: u64 = 3;

const LIMIT: Duration = Duration::from_secs(60);

/// A null-modem cable: what goes in at one end comes out at the other.
fn join(ends: &[(Line, Line)], stop: &AtomicBool) -> anyhow::Result<()> {
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Acquire) {
        for (one, other) in ends {
            for (from, to) in [(one, other), (other, one)] {
                let count = from.read(&mut buffer)?;
                to.write(buffer.get(..count).unwrap_or_default())?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn build_examples() -> anyhow::Result<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in no checkout")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root).args([
        "build",
        "--release",
        "-p",
        "forebay-firmware",
        "--examples",
        "--locked",
    ]);
    command.arg("--target-dir").arg(root.join("target"));
    let status = command.status().context("running cargo")?;
    anyhow::ensure!(status.success(), "building the examples: {status}");
    Ok(root.join("target/release/examples"))
}

#[test]
fn every_example_is_a_whole_firmware() -> anyhow::Result<()> {
    let (scratch, programs) = (Scratch::new("examples")?, build_examples()?);
    let path = |name: String| scratch.path().join(name);
    let mut ends = Vec::new();
    for (name, _) in EXAMPLES {
        ends.push((
            Line::plug_in(&path(format!("{name}-device")))?,
            Line::plug_in(&path(format!("{name}-port")))?,
        ));
    }
    let ports = EXAMPLES.iter().map(|(name, _)| path(format!("{name}-port"))).collect();
    let settings = Settings { mqtt: None, ports, tables: String::new() };
    let gateway = Gateway::start(Program::of_this_build(), &path("gateway".into()), &settings)?;
    let mut running = Vec::new();
    for (name, _) in EXAMPLES {
        let mut command = Command::new(programs.join(name));
        command.arg(path(format!("{name}-device"))).stdin(Stdio::null());
        running.push(Process::spawn(name, command, &path(format!("{name}.log")))?);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cable = scope.spawn(|| join(&ends, &stop));
        let arrived = wait_for("rows of every example", LIMIT, || {
            let status = gateway.status().map_err(|error| format!("{error:#}"))?;
            let rows = EXAMPLES.map(|(_, chip)| {
                let rows = status.pointer(&format!("/devices/{chip}/rows")).and_then(Value::as_u64);
                rows.unwrap_or(0)
            });
            if rows.iter().all(|rows| *rows >= ROWS) { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        stop.store(true, Ordering::Release);
        let cable = cable.join().map_err(|_| anyhow::anyhow!("the cable's thread panicked"))?;
        arrived.and(cable)
    })?;
    scratch.passed();
    Ok(())
}
