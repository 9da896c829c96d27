//! The gateway on other processors: built for a Raspberry Pi, and run by an emulator of its processor.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::device::publish;
use forebay_tests::process::{Process, free_port, tail};
use forebay_tests::services::Mosquitto;
use forebay_tests::world::Scratch;

use crate::{checkout, script};

/// Most bytes that the program may have.
const BYTES_MAX: u64 = 12 << 20;

/// An emulator takes its time.
const LIMIT: Duration = Duration::from_secs(120);

/// A processor, the emulator for it, and where its C library is.
struct Machine {
    target: &'static str,
    emulator: &'static str,
    library: &'static str,
}

const PI_64: Machine = Machine {
    target: "aarch64-unknown-linux-gnu",
    emulator: "qemu-aarch64-static",
    library: "/usr/aarch64-linux-gnu",
};

const PI_32: Machine = Machine {
    target: "armv7-unknown-linux-gnueabihf",
    emulator: "qemu-arm-static",
    library: "/usr/arm-linux-gnueabihf",
};

fn cross(target: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = script("gateway/packaging/cross");
    command.arg(target).args(arguments).output().context("running gateway/packaging/cross")
}

impl Machine {
    /// Builds what a package would hold.
    fn build(&self) -> anyhow::Result<PathBuf> {
        let what = ["build", "--profile", "dist", "--locked", "-p", "forebay-gateway", "--bin", "forebay"];
        let output = cross(self.target, &what)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "for {}: {}\n{said}", self.target, output.status);
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout("target"), PathBuf::from);
        Ok(target.join(self.target).join("dist/forebay"))
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.emulator);
        command.args(["-L", self.library]).arg(program).args(arguments).stdin(Stdio::null());
        command
    }

    fn output(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program, arguments).output();
        let output = output.with_context(|| {
            format!("{} is not installed: apt-get install qemu-user-static, or run tests/run", self.emulator)
        })?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        anyhow::ensure!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
        Ok(said)
    }

    /// Lets the program take a device's readings to its embedded database.
    fn run(&self) -> anyhow::Result<()> {
        let program = self.build()?;
        let bytes = std::fs::metadata(&program)?.len();
        eprintln!("{}: {bytes} bytes, {:.1} MiB", self.target, bytes as f64 / f64::from(1 << 20));
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
        assert_eq!(
            self.output(&program, &["--version"])?.trim(),
            format!("forebay {}", env!("CARGO_PKG_VERSION"))
        );

        let scratch = Scratch::new("cross")?;
        let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
        let (file, data_dir) = (scratch.path().join("forebay.toml"), scratch.path().join("data"));
        let config = format!(
            "data_dir = {data_dir:?}\n[http]\nlisten = \"127.0.0.1:{}\"\n[clock]\ntrust = \"always\"\n\
             [[mqtt]]\nurl = \"{}\"\n[[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\n\
             measurement = \"climate\"\n",
            free_port()?,
            broker.url()
        );
        std::fs::write(&file, config)?;
        let file = file.to_str().context("a path that is no text")?;
        let said = self.output(&program, &["check", "--config", file])?;
        assert!(!said.contains("FAIL"), "{said}");

        let log = scratch.path().join("gateway.log");
        let run = self.command(&program, &["run", "--config", file]);
        let mut daemon = Process::spawn("forebay", run, &log)?;
        // What is published before the subscription is there is nobody's.
        wait_for("the gateway's subscription", LIMIT, || {
            if let Some(status) = daemon.exited() {
                return Ok(Err(status));
            }
            let probe = ("sensors/probe/cellar".to_owned(), b"{\"probe\":1}".to_vec());
            publish(broker.port, vec![probe]).map_err(|error| format!("{error:#}"))?;
            match stored(&data_dir, "probe") {
                Ok(0) | Err(_) => Err(tail(&log)),
                Ok(_) => Ok(Ok(())),
            }
        })?
        .map_err(|status| anyhow::anyhow!("it ended with {status}:\n{}", tail(&log)))?;
        let message = |n: u32| ("sensors/esp/cellar".to_owned(), format!("{{\"n\":{n}}}").into_bytes());
        publish(broker.port, (0..ROWS).map(message).collect())?;
        wait_for("all rows in the database", LIMIT, || match stored(&data_dir, "n") {
            Ok(ROWS) => Ok(()),
            stored => Err(format!("{stored:?}")),
        })?;
        let said = self.output(&program, &["status", "--config", file])?;
        let device = said.lines().map(str::trim).find(|line| line.starts_with("esp: ")).unwrap_or_default();
        eprintln!("{}: {ROWS} rows in the database; forebay status: {device}", self.target);
        // An emulator is slow enough for an alarm of the broker's queue.
        assert!(said.contains("\nNothing is being lost"), "{said}");
        assert_eq!(device, format!("esp: learned {ROWS}, stored {ROWS}, lost 0"));
        assert!(daemon.terminate(LIMIT)?.success());
        scratch.passed();
        Ok(())
    }
}

const ROWS: u32 = 200;

/// How many values of a field are in the database.
fn stored(data_dir: &Path, field: &str) -> anyhow::Result<u32> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(data_dir.join("readings.sqlite"), flags)?;
    let count = "SELECT count(*) FROM readings WHERE field = ?1";
    Ok(database.query_row(count, [field], |row| row.get(0))?)
}

#[test]
#[ignore = "takes minutes; `tests/run --long cross` runs it"]
fn it_runs_on_a_64_bit_raspberry_pi() -> anyhow::Result<()> {
    PI_64.run()
}

#[test]
#[ignore = "takes minutes; `tests/run --long cross` runs it"]
fn it_runs_on_a_32_bit_raspberry_pi() -> anyhow::Result<()> {
    PI_32.run()
}

#[test]
fn what_cannot_be_built_here_is_refused_with_the_reason() -> anyhow::Result<()> {
    let output = cross("arm-unknown-linux-gnueabihf", &["build"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("ARMv6") && said.contains("ARMv7"), "{said}");
    let page = std::fs::read_to_string(checkout("docs/raspberry-pi.md"))?;
    assert!(page.contains("ARMv6"), "docs/raspberry-pi.md says nothing of it");
    let output = cross("riscv64gc-unknown-linux-gnu", &["build"])?;
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no build is known")
    );
    Ok(())
}
