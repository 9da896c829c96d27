//! Child processes that are ours: each with its own log file, ended by pid, and never left behind.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::clock::wait_for;

/// How much of a log is printed when a test fails.
const LOG_TAIL_BYTES: u64 = 6 * 1024;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    reaped: bool,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes.
    pub resident_bytes: u64,
    /// The most resident memory it ever had, in bytes.
    pub resident_bytes_max: u64,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let output = File::options().create(true).append(true).open(log).context("opening the log")?;
        let errors = output.try_clone().context("opening the log twice")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {name} ({})", command.get_program().display()))?;
        Ok(Process { name: name.to_owned(), child, reaped: false })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.reaped |= status.is_some();
        status
    }

    /// Kills it at once, as a power cut would as far as the process can tell, and waits for its end.
    pub fn kill(&mut self) {
        if !self.reaped {
            // Both fail only where the process is gone already, which is what was wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped = true;
        }
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let what = format!("the end of {} after SIGTERM", self.name);
        let status =
            wait_for(&what, limit, || self.child.try_wait().ok().flatten().ok_or("still running".into()))?;
        self.reaped = true;
        Ok(status)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// CPU time and memory, as `/proc` tells.
    ///
    /// # Errors
    /// The process is gone, or `/proc` reads differently here.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage_of(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU time and memory of a process, as `/proc` tells.
///
/// # Errors
/// The process is gone, or `/proc` reads differently here.
pub fn usage_of(id: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let bytes_of = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok(Usage {
        cpu_seconds: as_f64(ticks) / as_f64(rustix::param::clock_ticks_per_second()),
        resident_bytes: bytes_of("VmRSS:"),
        resident_bytes_max: bytes_of("VmHWM:"),
    })
}

/// Lets this process, and what it starts, have `count` files open.
///
/// # Errors
/// The system allows fewer.
pub fn allow_files(count: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|allowed| allowed >= count) {
        return Ok(());
    }
    // Without a limit, there is none.
    if let Some(allowed) = maximum.filter(|allowed| *allowed < count) {
        anyhow::bail!(
            "{count} open files are needed, and this process may have {allowed}; allow more (`ulimit -Hn {count}` as \
             root, `nofile` in /etc/security/limits.conf, or LimitNOFILE= of a service)"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
        .with_context(|| format!("allowing {count} open files"))
}

/// The end of a log, for a failure message.
#[must_use]
pub fn tail(log: &Path) -> String {
    let Ok(mut file) = File::open(log) else { return format!("({} cannot be read)", log.display()) };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))
        .and_then(|_| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// A port of the loopback interface that nobody listens on. It is taken from below the range that the kernel hands to
/// outgoing connections, so that it is still free a moment later.
///
/// # Errors
/// No port could be had.
pub fn free_port() -> anyhow::Result<u16> {
    let mut bytes = [0; 2];
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let port = 15_000 + u16::from_le_bytes(bytes) % 15_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between 15000 and 30000")
}

/// Counts are far below 2^52 here, so that a float holds them exactly.
#[must_use]
pub fn as_f64(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(0);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
