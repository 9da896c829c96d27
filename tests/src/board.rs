//! Firmware on an emulated chip: a program of `firmware/boards`, built when it is asked for and run by QEMU.
//!
//! A [`Board`] is the device of `firmware/boards/qemu`. Its UART ends in a cable: a [`Line`] that can be pulled and plugged in
//! again, as an adapter for USB is. While the cable is out, or nobody takes the bytes at its other end, what the board
//! sends is lost, since a UART waits for nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::clock::wait_for;
use crate::process::{Process, tail};
use crate::pty::Line;

/// The name that the board announces.
pub const BOARD_NAME: &str = "emulated";

/// The target of `firmware/boards/qemu`.
const BOARD_TARGET: &str = "thumbv7m-none-eabi";

/// How long QEMU may take to reach the board's first instruction.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a byte may wait for the thread that carries it, and for which a quiet line lets the next gateway in.
const TURN: Duration = Duration::from_millis(1);

/// How long the line must be quiet before another gateway may open it.
const QUIET: Duration = Duration::from_millis(20);

/// Builds the program `name` of `firmware/boards/{package}` for `target`, and says where it lies.
///
/// # Errors
/// No toolchain has the target, or the program does not build.
pub fn build(package: &str, name: &str, target: &str, features: &str) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie in no checkout")?;
    let boards = root.join("firmware/boards");
    let target_dir = boards.join(package).join("target");
    let mut command = Command::new(boards.join("cross"));
    command.args([target, "build", "--release", "--locked", "--bin", name, "--features", features]);
    command.arg("--manifest-path").arg(boards.join(package).join("Cargo.toml"));
    command.arg("--target-dir").arg(&target_dir);
    // What cargo tells the tests about their own build is not meant for another one.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").stdin(Stdio::null());
    let status = command.status().context("running firmware/boards/cross")?;
    anyhow::ensure!(status.success(), "building {name} of {package} for {target}: {status}");
    Ok(target_dir.join(target).join("release").join(name))
}

/// QEMU as `machine`, about to run `program` with the words `arguments`.
///
/// # Errors
/// QEMU is not installed.
pub fn emulator(machine: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = crate::services::command("qemu-system-arm", "qemu-system-arm")?;
    let words: String = arguments.iter().map(|word| format!(",arg={word}")).collect();
    command.args(["-M", machine, "-display", "none", "-monitor", "none", "-kernel"]).arg(program);
    command.args(["-semihosting-config", &format!("enable=on,target=native,arg=forebay{words}")]);
    Ok(command)
}

/// Runs such a program to its end.
///
/// # Errors
/// It fails.
pub fn run_to_end(mut emulator: Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        emulator.stdin(Stdio::null()).output().context("running qemu-system-arm")?;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    anyhow::ensure!(status.success(), "{status}: {said}{}", String::from_utf8_lossy(&stderr));
    Ok(said)
}

/// The emulated device.
#[derive(Debug)]
pub struct Board {
    qemu: Process,
    log: PathBuf,
    monitor: PathBuf,
    plugged: Arc<AtomicBool>,
    cable: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Board {
    /// Starts a board that samples for some seconds, and whose line is reached through `link`.
    ///
    /// # Errors
    /// The firmware does not build, or QEMU does not start.
    pub fn start(directory: &Path, seconds: u64, link: &Path) -> anyhow::Result<Board> {
        std::fs::create_dir_all(directory)?;
        let program = build("qemu", "forebay-board-qemu", BOARD_TARGET, "")?;
        let (socket, log) = (directory.join("uart"), directory.join("qemu.log"));
        let listener = UnixListener::bind(&socket).context("binding the UART's socket")?;
        let mut command = emulator("lm3s6965evb", &program, &[&seconds.to_string()])?;
        command.arg("-chardev").arg(format!("socket,id=uart,path={}", socket.display()));
        command.args(["-serial", "chardev:uart"]);
        let monitor = directory.join("monitor");
        command
            .arg("-chardev")
            .arg(format!("socket,id=monitor,path={},server=on,wait=off", monitor.display()));
        command.args(["-mon", "chardev=monitor"]);
        let mut qemu = Process::spawn("qemu-system-arm", command, &log)?;
        let uart = accept(&listener, &mut qemu, &log)?;
        let line = Line::plug_in(link)?;
        let plugged = Arc::new(AtomicBool::new(true));
        let (cable, link) = (Arc::clone(&plugged), link.to_owned());
        let cable = std::thread::Builder::new()
            .name("cable".into())
            .spawn(move || carry(uart, line, &link, &cable))
            .context("starting the cable's thread")?;
        Ok(Board { qemu, log, monitor, plugged, cable: Some(cable) })
    }

    /// Pulls the cable.
    pub fn unplug(&self) {
        self.plugged.store(false, Ordering::Release);
    }

    /// Plugs it in again, as another terminal behind the same link.
    pub fn plug_in(&self) {
        self.plugged.store(true, Ordering::Release);
    }

    /// Holds the chip up for a while, and then resets it, which leaves its memory as it is.
    ///
    /// # Errors
    /// QEMU does not listen.
    pub fn reset(&self, after: Duration) -> anyhow::Result<()> {
        let mut monitor = UnixStream::connect(&self.monitor).context("reaching QEMU's monitor")?;
        monitor.set_read_timeout(Some(START_LIMIT))?;
        prompt(&mut monitor)?;
        for (command, wait) in [("stop", after), ("system_reset", Duration::ZERO), ("cont", Duration::ZERO)] {
            writeln!(monitor, "{command}")?;
            prompt(&mut monitor)?;
            std::thread::sleep(wait);
        }
        Ok(())
    }

    /// Whether the firmware has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.qemu.exited().is_none()
    }

    /// Waits until the gateway has everything and the firmware ends, and returns what it says of itself.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<Value> {
        let status = wait_for("the end of the firmware", limit, || {
            self.qemu.exited().ok_or_else(|| "it runs".to_owned())
        })?;
        let said = std::fs::read_to_string(&self.log)?;
        anyhow::ensure!(status.success(), "the firmware ended with {status}:\n{said}");
        match self.cable.take().map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            _ => anyhow::bail!("the cable's thread panicked"),
        }
        let report = said.lines().find(|line| line.starts_with('{'));
        let report = report.with_context(|| format!("the firmware did not report:\n{said}"))?;
        serde_json::from_str(report).context("the firmware's report is no JSON")
    }
}

/// Reads until QEMU's monitor is ready for a command.
fn prompt(monitor: &mut UnixStream) -> anyhow::Result<()> {
    let mut said = Vec::new();
    while !said.ends_with(b"(qemu) ") {
        let mut more = [0; 256];
        let count = monitor.read(&mut more).context("reading from QEMU's monitor")?;
        anyhow::ensure!(count > 0, "QEMU's monitor ended: {}", String::from_utf8_lossy(&said));
        said.extend(more.get(..count).unwrap_or_default());
    }
    Ok(())
}

fn accept(listener: &UnixListener, qemu: &mut Process, log: &Path) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let stream = wait_for("QEMU's start", START_LIMIT, || match (listener.accept(), qemu.exited()) {
        (Ok((stream, _)), _) => Ok(Ok(stream)),
        (Err(_), Some(status)) => Ok(Err(anyhow::anyhow!("QEMU ended with {status}:\n{}", tail(log)))),
        (Err(error), None) => Err(error.to_string()),
    })??;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TURN))?;
    Ok(stream)
}

/// Carries bytes both ways until the board ends.
fn carry(mut uart: UnixStream, line: Line, link: &Path, plugged: &AtomicBool) -> anyhow::Result<()> {
    let mut line = Some(line);
    let mut buffer = [0; 512];
    let mut quiet_since = Instant::now();
    loop {
        let from_board = match uart.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => &[],
            // QEMU closes its end in a hurry.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context("reading from the board"),
        };
        line = match (line, plugged.load(Ordering::Acquire)) {
            (Some(line), false) => {
                line.unplug();
                None
            }
            (None, true) => Some(Line::plug_in(link)?),
            (line, _) => line,
        };
        let Some(line) = &line else { continue };
        if !from_board.is_empty() {
            line.write(from_board)?;
        }
        let mut answer = [0; 512];
        let count = line.read(&mut answer)?;
        // The board may be gone, which the next read tells.
        let _ = uart.write_all(answer.get(..count).unwrap_or_default());
        if count > 0 || !from_board.is_empty() {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() >= QUIET {
            line.allow_next_gateway();
            quiet_since = Instant::now();
        }
    }
    line.into_iter().for_each(Line::unplug);
    Ok(())
}
