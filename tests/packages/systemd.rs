//! The installed unit under a real systemd, with all of its confinement, in a container of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::device::publish;
use forebay_tests::process::{Process, free_port, tail};
use forebay_tests::services::Mosquitto;
use forebay_tests::world::Scratch;

use crate::deb;
use crate::root::Root;

const LIMIT: Duration = Duration::from_secs(120);

/// A booted system, which ends with this.
struct Booted {
    container: Process,
}

impl Booted {
    fn boot(root: &Root, log: &Path) -> anyhow::Result<Booted> {
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--directory"])
            .arg(root.path("/"));
        let container = Process::spawn("systemd-nspawn", command, log).context(
            "systemd-nspawn is not installed: apt-get install systemd-container, or run tests/run",
        )?;
        let booted = Booted { container };
        wait_for("the unit's start", LIMIT, || match booted.show("ActiveState") {
            Ok(state) if state == "active" => Ok(()),
            Ok(state) => Err(state),
            Err(error) => Err(format!("{error:#}\n{}", tail(log))),
        })?;
        Ok(booted)
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        // The first process in there is its only child, but for a moment at the beginning.
        let init = child_of(self.container.id()).context("the container has no process")?;
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &init.to_string(), "--"]).args(words);
        let output = command.stdin(Stdio::null()).output().context("running nsenter")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        anyhow::ensure!(output.status.success(), "{words:?}: {}\n{said}", output.status);
        Ok(said)
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> anyhow::Result<String> {
        self.run(&["systemctl", "show", "--property", property, "--value", "forebay.service"])
    }

    /// Waits until a property of the unit is right.
    fn wait(&self, property: &str, is_right: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        wait_for(&format!("the unit's {property}"), LIMIT, || match self.show(property) {
            Ok(value) if is_right(&value) => Ok(value),
            Ok(value) => Err(value),
            Err(error) => Err(format!("{error:#}")),
        })
    }
}

/// A process that this one has started.
fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let its_parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        (its_parent.parse() == Ok(parent)).then_some(id)
    })
}

impl Drop for Booted {
    fn drop(&mut self) {
        // It would be killed anyway; a signal before lets it unmount what it has mounted.
        drop(self.container.terminate(LIMIT));
    }
}

/// Publishes a number until the database has it: the gateway may not have subscribed yet.
fn read(root: &Root, broker: &Mosquitto, number: u32) -> anyhow::Result<()> {
    wait_for("the reading in the database", LIMIT, || {
        let message = ("sensors/esp/cellar".to_owned(), format!("{{\"n\":{number}}}").into_bytes());
        publish(broker.port, vec![message]).map_err(|error| format!("{error:#}"))?;
        match deb::readings(root, &format!("field = 'n' AND value = {number}")) {
            Ok(0) => Err("it is not there".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

#[test]
#[ignore = "takes minutes; `tests/run --long packages` runs it"]
fn the_unit_runs_confined_is_watched_and_ends_in_good_order() -> anyhow::Result<()> {
    let scratch = Scratch::new("package-systemd")?;
    let package = deb::build("0.1.0-1", scratch.path())?;
    let included = "adduser,ca-certificates,dbus,systemd,systemd-sysv";
    // Logs are looked for in a scratch directory, and a system's links lead everywhere.
    let place = tempfile::tempdir()?;
    let root = Root::make(&place.path().join("root"), included)?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    std::fs::copy(&package, root.path("/root/forebay.deb"))?;
    root.run(&["dpkg", "--install", "/root/forebay.deb"])?;
    std::fs::write(root.path("/etc/forebay/conf.d/own.toml"), deb::own_configuration(free_port()?, &broker))?;
    // Three minutes are for disks, and too long for a test.
    std::fs::create_dir_all(root.path("/etc/systemd/system/forebay.service.d"))?;
    let drop_in = root.path("/etc/systemd/system/forebay.service.d/test.conf");
    std::fs::write(drop_in, "[Service]\nWatchdogSec=2s\nTimeoutStopSec=3s\n")?;

    let booted = Booted::boot(&root, &scratch.path().join("container.log"))?;
    booted.wait("StatusText", |text| text.starts_with("acks are given; 0 rows wait"))?;
    let status = booted.run(&["cat", &format!("/proc/{}/status", booted.show("MainPID")?)])?;
    let has = |line: &str| {
        status.lines().any(|known| known.split_whitespace().collect::<Vec<_>>().join(" ") == line)
    };
    assert!(has("CapEff: 0000000000000000") && has("CapBnd: 0000000000000000"), "{status}");
    assert!(has("NoNewPrivs: 1") && has("Seccomp: 2"), "{status}");
    read(&root, &broker, 1)?;
    let before = deb::readings(&root, "field = 'n'")?;

    // Long enough for a watchdog that is not fed.
    let restarts = booted.show("NRestarts")?;
    assert_eq!(restarts, "0", "it is restarted without a reason");
    booted.run(&["systemctl", "kill", "--signal=STOP", "forebay.service"])?;
    booted.wait("NRestarts", |count| count == "1")?;
    let journal = booted.run(&["journalctl", "--no-pager", "--unit", "forebay.service"])?;
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    booted.wait("ActiveState", |state| state == "active")?;
    read(&root, &broker, 2)?;
    assert!(deb::readings(&root, "field = 'n'")? > before, "what was stored before is gone");

    booted.run(&["systemctl", "stop", "forebay.service"])?;
    assert_eq!(booted.show("Result")?, "success");
    assert_eq!(booted.show("ExecMainStatus")?, "0");
    drop(booted);
    scratch.passed();
    Ok(())
}
