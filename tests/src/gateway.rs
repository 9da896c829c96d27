//! The gateway under test: the real binary, its configuration file, and its lives.
//!
//! The program is the one that the variable `FOREBAY_BIN` names, as `tests/run` sets it. Without it, the harness runs
//! itself with the hidden command `gateway`, which is the same entry point compiled into `forebay-sim`: so `cargo demo` and
//! a bare `cargo test` build and run what the sources say, and never a `forebay` left over from another build.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::clock::wait_for;
use crate::closing::Closing;
use crate::device::NATIVE_PREFIX;
use crate::http::Http;
use crate::process::{Process, Usage, free_port};
use crate::strace::Strace;

/// The variable that names the gateway's program.
const PROGRAM_VARIABLE: &str = "FOREBAY_BIN";

/// How long a gateway may take until it acknowledges.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long a gateway may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How to run a `forebay` command.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// What comes before the command itself.
    prefix: &'static [&'static str],
    /// Variables that only this program is given.
    variables: Vec<(&'static str, PathBuf)>,
}

impl Program {
    /// The program to test; `sim` is the path of `forebay-sim`.
    #[must_use]
    pub fn find(sim: &Path) -> Program {
        match std::env::var_os(PROGRAM_VARIABLE) {
            Some(path) => Program { path: path.into(), prefix: &[], variables: Vec::new() },
            None => Program { path: sim.to_owned(), prefix: &["gateway"], variables: Vec::new() },
        }
    }

    /// The program to test, with the `forebay-sim` that cargo has built for the running test.
    #[must_use]
    pub fn of_this_build() -> Program {
        // A test lies in `deps`, the programs of its package one directory above.
        let test = std::env::current_exe().unwrap_or_default();
        let directory = test.parent().and_then(Path::parent).unwrap_or(Path::new(""));
        Program::find(&directory.join("forebay-sim"))
    }

    /// The same program, with a variable of its environment set to a path.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, path: PathBuf) -> Program {
        self.variables.push((name, path));
        self
    }

    /// The program without any arguments.
    #[must_use]
    pub fn bare(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(self.prefix).envs(self.variables.iter().map(|(name, path)| (name, path)));
        command
    }

    /// A command such as `run` or `check` with a configuration file.
    #[must_use]
    pub fn command(&self, name: &str, config: &Path) -> Command {
        let mut command = self.bare();
        command.arg(name).arg("--config").arg(config);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn output(&self, name: &str, config: &Path) -> anyhow::Result<Output> {
        let mut command = self.command(name, config);
        command.stdin(Stdio::null()).output().with_context(|| format!("running {}", self.path.display()))
    }
}

/// What goes into the gateway's configuration file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The broker's URL, if there is one; JSON devices and native devices are served through it.
    pub mqtt: Option<String>,
    /// Serial ports.
    pub ports: Vec<PathBuf>,
    /// Further tables, as text: sinks and what a test needs. The clock is believed unless they have a table of it, and the
    /// gateway's health is stored only if they have one of that.
    pub tables: String,
}

impl Settings {
    /// The table of an InfluxDB 1 database.
    #[must_use]
    pub fn influxdb_1(url: &str, database: &str) -> String {
        format!(
            "[[influxdb]]\nname = \"main\"\nurl = \"{url}\"\nversion = 1\ndatabase = \"{database}\"\n\
             flush_interval = \"200ms\"\n"
        )
    }

    /// The table of a database with the version 2 write API.
    #[must_use]
    pub fn influxdb_2(url: &str, org: &str, bucket: &str, token_file: Option<&Path>) -> String {
        let mut table = format!(
            "[[influxdb]]\nname = \"main\"\nurl = \"{url}\"\nversion = 2\norg = {org:?}\nbucket = {bucket:?}\n\
             flush_interval = \"200ms\"\n"
        );
        if let Some(file) = token_file {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "token_file = {file:?}");
        }
        table
    }

    /// The configuration file of a gateway whose files live in `directory`.
    fn to_toml(&self, directory: &Path, http_port: u16) -> String {
        let mut text =
            format!("data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{http_port}\"\n", data_dir(directory));
        // A virtual machine has no other reason to believe its clock.
        if !self.tables.contains("[clock]") {
            text.push_str("[clock]\ntrust = \"always\"\n");
        }
        // Tests count what devices bring. One that wants the gateway's own health has a table of it.
        if !self.tables.contains("[health]") {
            text.push_str("[health]\ninterval = \"off\"\n");
        }
        if let Some(url) = &self.mqtt {
            let _ = write!(
                text,
                "[[mqtt]]\nurl = \"{url}\"\nclient_id = \"forebay-under-test\"\nnative = true\n\
                 native_prefix = \"{NATIVE_PREFIX}\"\n\
                 [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\n\
                 measurement = \"weather\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ns\"\n"
            );
        }
        for port in &self.ports {
            let _ = writeln!(text, "[[serial]]\nport = {port:?}");
        }
        text.push_str(&self.tables);
        text
    }
}

/// The data directory of a gateway whose files live in `directory`.
#[must_use]
pub fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// A gateway with a data directory that outlives its processes.
#[derive(Debug)]
pub struct Gateway {
    program: Program,
    directory: PathBuf,
    http_port: u16,
    http: Http,
    process: Option<Process>,
    /// CPU time of the lives that have ended, and the most memory of any.
    past: Usage,
    closing: Closing,
    /// Whether the test takes away what the embedded database had confirmed.
    loses_store: bool,
}

impl Gateway {
    /// Writes the configuration into `directory` and starts the first life.
    ///
    /// # Errors
    /// The gateway does not get ready.
    pub fn start(program: Program, directory: &Path, settings: &Settings) -> anyhow::Result<Gateway> {
        let mut gateway = Gateway::configure(program, directory, settings)?;
        gateway.resume()?;
        Ok(gateway)
    }

    /// Writes the configuration into `directory` and starts nothing.
    ///
    /// # Errors
    /// The directory cannot be written, or no port is free.
    pub fn configure(program: Program, directory: &Path, settings: &Settings) -> anyhow::Result<Gateway> {
        std::fs::create_dir_all(directory)?;
        let http_port = free_port()?;
        let config = settings.to_toml(directory, http_port);
        std::fs::write(directory.join("forebay.toml"), config)?;
        let (directory, http) = (directory.to_owned(), Http::new()?);
        Ok(Gateway {
            program,
            directory,
            http_port,
            http,
            process: None,
            past: Usage::default(),
            closing: Closing::Exact,
            loses_store: false,
        })
    }

    /// Gives it a token, which takes effect at its next start; the harness sends it from now on.
    ///
    /// # Errors
    /// The files of the configuration cannot be written.
    pub fn require_token(&mut self, token: &str) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let (file, folder) = (self.directory.join("http.token"), self.directory.join("conf.d"));
        std::fs::write(&file, format!("{token}\n"))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("token.toml"), "[http]\ntoken_file = \"http.token\"\n")?;
        self.http = Http::bearing(token)?;
        Ok(())
    }

    /// Where its HTTP interface listens.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.http_port).into()
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts another life on the same data directory, and waits until it acknowledges.
    ///
    /// # Errors
    /// It ends, or does not get ready in time.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        self.await_ready()
    }

    /// Waits until it acknowledges.
    ///
    /// # Errors
    /// It ends, or does not get ready in time.
    pub fn await_ready(&mut self) -> anyhow::Result<()> {
        let url = self.url("/readyz");
        self.await_answer("the gateway's getting ready", |http| match http.get(&url) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("/readyz answers {}: {}", answer.status, answer.body)),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until its journal is in a state that `is_wanted`, and returns that state.
    ///
    /// # Errors
    /// It ends, or does not come to that in time.
    pub fn await_journal(&mut self, what: &str, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let url = self.url("/api/v1/status");
        self.await_answer(what, |http| match http.get_json(&url) {
            Ok(status) => match status.pointer("/journal/state").and_then(Value::as_str) {
                Some(state) if is_wanted(state) => Ok(state.to_owned()),
                state => Err(format!("the journal's state is {state:?}")),
            },
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until `ask` gets the answer that it wants; a gateway that ends is not waited for any longer.
    fn await_answer<T>(&mut self, what: &str, ask: impl Fn(&Http) -> Result<T, String>) -> anyhow::Result<T> {
        let (process, http, log) = (&mut self.process, &self.http, self.directory.join("gateway.log"));
        wait_for(what, READY_LIMIT, || match process.as_mut().and_then(Process::exited) {
            Some(status) => Ok(Err((status, crate::process::tail(&log)))),
            None => ask(http).map(Ok),
        })?
        .map_err(|(status, log)| anyhow::anyhow!("before {what}, it ended with {status}:\n{log}"))
    }

    /// Starts another life without waiting for it, so that it can be killed at any moment.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        self.spawn(self.program.command("run", &self.config()))
    }

    /// The same, with a fault at some of its system calls.
    ///
    /// # Errors
    /// strace cannot be started.
    pub fn launch_under(&mut self, strace: &Strace) -> anyhow::Result<()> {
        self.spawn(strace.wrap(&self.program.command("run", &self.config()))?)
    }

    fn spawn(&mut self, command: Command) -> anyhow::Result<()> {
        self.process = Some(Process::spawn("forebay", command, &self.directory.join("gateway.log"))?);
        Ok(())
    }

    /// Sends SIGKILL without waiting for the end, which [`Gateway::kill`] does.
    ///
    /// # Errors
    /// It is not running.
    pub fn send_kill(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the gateway is not running")?.signal(Signal::KILL)
    }

    /// Stops it in its tracks (SIGSTOP), as a machine that has no time for it does.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the gateway is not running")?.signal(Signal::STOP)
    }

    /// Asks it to read its configuration again (SIGHUP).
    ///
    /// # Errors
    /// It is not running.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the gateway is not running")?.signal(Signal::HUP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not running.
    pub fn proceed(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the gateway is not running")?.signal(Signal::CONT)
    }

    /// Waits for it to end by itself or by an injected fault, and kills it after `limit`. Returns how it ended by then.
    pub fn wait_for_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let process = self.process.as_mut()?;
        let ended = wait_for("the gateway's end", limit, || process.exited().ok_or(String::new())).ok();
        self.kill();
        ended
    }

    /// Kills the process without warning.
    pub fn kill(&mut self) {
        self.add_usage();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Says what the audit at the end is to say, where that is not that everything is exact.
    pub fn closes(&mut self, closing: Closing) {
        self.closing = closing;
    }

    /// Says that the embedded database comes back without what it had confirmed, which it must never say of itself else.
    pub fn loses_store(&mut self) {
        self.loses_store = true;
    }

    /// What `forebay audit --json` says.
    ///
    /// # Errors
    /// It says nothing that can be read.
    pub fn audit(&self) -> anyhow::Result<Value> {
        let mut command = self.program.command("audit", &self.config());
        let output = command.arg("--json").stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the audit ended with {}: {said}", output.status))
    }

    /// Ends a test's last life: waits until everything is delivered, holds the ledger against what the databases count, and
    /// ends the process with SIGTERM.
    ///
    /// # Errors
    /// Not everything is delivered, the audit does not say what it is to say, or the process does not end well.
    pub fn close(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.drain(limit)?;
        if !matches!(self.closing, Closing::Unaudited(_)) {
            self.closing.check(&self.audit()?)?;
        }
        let lost: u64 = Closing::lost_with_a_store(&self.status()?);
        anyhow::ensure!((lost > 0) == self.loses_store, "{lost} rows went with a store");
        let status = self.end()?;
        anyhow::ensure!(status.success(), "after SIGTERM the gateway ended with {status}");
        Ok(())
    }

    /// Ends the process with SIGTERM, wherever it is with its rows; nothing may be missing nevertheless.
    ///
    /// # Errors
    /// It does not end in time, or the audit before that finds a difference.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if !matches!(self.closing, Closing::Unaudited(_)) {
            self.closing.check_midway(&self.audit()?)?;
        }
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.add_usage();
        self.process.take().context("the gateway is not running")?.terminate(END_LIMIT)
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("forebay.toml")
    }

    /// The embedded store's file.
    #[must_use]
    pub fn sqlite_file(&self) -> PathBuf {
        self.directory.join("data/readings.sqlite")
    }

    /// An address of its HTTP interface.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// `/api/v1/status`, in which every learned row must be somewhere, and none twice.
    ///
    /// # Errors
    /// It does not answer, or a ledger in it does not balance.
    pub fn status(&self) -> anyhow::Result<Value> {
        let status = self.http.get_json(&self.url("/api/v1/status"))?;
        let sinks = |device: &Value| device["sinks"].as_object().cloned().unwrap_or_default();
        for (name, device) in status["devices"].as_object().into_iter().flatten() {
            for (sink, ledger) in sinks(device) {
                let is_balanced = Closing::balances(&ledger);
                anyhow::ensure!(is_balanced, "the ledger of {name} in {sink} does not balance: {ledger}");
            }
        }
        Ok(status)
    }

    /// An answer of its API.
    ///
    /// # Errors
    /// It does not answer.
    pub fn api(&self, path: &str) -> anyhow::Result<Value> {
        self.http.get_json(&self.url(path))
    }

    /// The status code of `/readyz`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn readiness(&self) -> anyhow::Result<u16> {
        Ok(self.http.get(&self.url("/readyz"))?.status)
    }

    /// Rows that are journaled and not confirmed by the sink yet, and rows that it has confirmed.
    ///
    /// # Errors
    /// The gateway does not answer, or its status has another shape.
    pub fn backlog(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.status()?;
        let count = |name: &str| status.pointer(&format!("/ledger/{name}")).and_then(Value::as_u64);
        let (queued, unconfirmed) = (count("queued"), count("unconfirmed"));
        let queued = queued.zip(unconfirmed).map(|(queued, unconfirmed)| queued + unconfirmed);
        queued.zip(count("confirmed")).with_context(|| format!("a status without a ledger: {status}"))
    }

    /// Waits until everything that is journaled is confirmed.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub fn drain(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for("the gateway's delivery of everything", limit, || match self.backlog() {
            Ok((0, _)) => Ok(()),
            Ok((queued, confirmed)) => Err(format!("{queued} rows are queued, {confirmed} confirmed")),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// CPU time of all lives so far, memory now, and the most memory of any life.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let now = self.process.as_ref().and_then(|process| process.usage().ok()).unwrap_or_default();
        Usage {
            cpu_seconds: self.past.cpu_seconds + now.cpu_seconds,
            resident_bytes: now.resident_bytes,
            resident_bytes_max: self.past.resident_bytes_max.max(now.resident_bytes_max),
        }
    }

    /// Everything that all its lives have logged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log_text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.directory.join("gateway.log"))?).into_owned())
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.exited().is_none())
    }

    fn add_usage(&mut self) {
        self.past = Usage { resident_bytes: 0, ..self.usage() };
    }
}

#[expect(clippy::panic, reason = "a test that forgets to close its gateway must fail all the same")]
impl Drop for Gateway {
    /// A test that lets go of a gateway that runs has forgotten to hold its ledger against the databases; that is done here.
    fn drop(&mut self) {
        let is_audited = !matches!(self.closing, Closing::Unaudited(_)) && !std::thread::panicking();
        if !is_audited || !self.is_running() {
            return;
        }
        // One that does not answer, or not yet, has a reason that the test knows.
        if let Ok(audit) = self.audit()
            && let Err(error) = self.closing.check_midway(&audit)
        {
            panic!("{error:#}");
        }
    }
}

/// How far the time of a row that the gateway dated may be off, for each device: 4 ms, plus half the round trip of the
/// first clock exchanges, as the gateway's log tells. Of a device with several connections the longest counts.
///
/// Later exchanges are not in the log, and on a machine that does something else a thread may wait for milliseconds on
/// one side of one of them. `tests/clock.rs` says how good the clock is: there, time is virtual.
pub fn round_trip_tolerance(log: &str) -> impl Fn(&str) -> i64 {
    let round_trips = round_trips(log);
    move |device| 4_000_000 + round_trips.get(device).copied().unwrap_or(0) * 1000 / 2
}

/// The longest round trip, in microseconds, of the exchanges that the gateway dated each device by.
#[must_use]
pub fn round_trips(log: &str) -> BTreeMap<String, i64> {
    let mut longest = BTreeMap::new();
    for line in log.lines() {
        let field = |name: &str| line.split_once(&format!(" {name}=")).map(|(_, rest)| rest);
        let name = field("name").and_then(|rest| rest.split([' ', ',']).next());
        let digits = field("round_trip_us").map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        if let (Some(name), Some(Some(digits))) = (name, digits) {
            let known: &mut i64 = longest.entry(name.trim_matches('"').to_owned()).or_default();
            *known = digits.parse().unwrap_or(0).max(*known);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::{Settings, round_trip_tolerance};
    use std::path::Path;

    #[test]
    fn the_longest_round_trip_of_a_device_counts() {
        let log = "INFO x: clock of the device is known device=\"e6\" name=\"a-1\" boot=7 round_trip_us=400\n\
                   INFO x: clock of the device is known device=\"e6\" name=\"a-1\" boot=7 round_trip_us=90\n";
        let tolerance = round_trip_tolerance(log);
        assert_eq!((tolerance("a-1"), tolerance("b")), (4_200_000, 4_000_000));
    }

    #[test]
    fn the_configuration_is_toml() {
        let settings = Settings {
            mqtt: Some("mqtt://127.0.0.1:1".into()),
            ports: vec!["/tmp/a \"b\"".into()],
            tables: Settings::influxdb_2("http://x", "o", "b", Some(Path::new("/t")))
                + &Settings::influxdb_1("http://y", "d"),
        };
        let text = settings.to_toml(Path::new("/d"), 1);
        let parsed: toml::Table = text.parse().expect("TOML");
        assert_eq!(parsed["serial"][0]["port"].as_str(), Some("/tmp/a \"b\""));
        assert_eq!(parsed["mqtt"][0]["subscribe"][0]["topic"].as_str(), Some("sensors/{device}/{room}"));
        assert_eq!(parsed["influxdb"][0]["token_file"].as_str(), Some("/t"));
    }
}
