//! A stage for one page: a directory, real services, and a shell in which its commands are typed as they stand.
//!
//! What a reader has at the usual place is elsewhere here: ports, `/etc/forebay`, `/var/lib/forebay`. Such words are replaced,
//! and nothing else. A page is done when each of its commands and configurations that carries no mark was taken.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_gateway::config::{self, Config};
use forebay_tests::clock::wait_for;
use forebay_tests::docs::{Block, blocks};
use forebay_tests::gateway::Program;
use forebay_tests::http::Http;
use forebay_tests::process::{Process, free_port};
use forebay_tests::services::{InfluxDb, Mosquitto, command};
use forebay_tests::world::Scratch;

/// How long a command may take, and what is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The configuration file of the page.
pub(crate) const CONFIG: &str = "forebay.toml";

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A page, what of it is still to be run, and where.
pub(crate) struct Stage {
    page: &'static str,
    blocks: VecDeque<Block>,
    commands: VecDeque<String>,
    replaced: Vec<(String, String)>,
    scratch: Scratch,
    http_port: u16,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) command: String,
    pub(crate) good: bool,
    /// Standard output, then standard error.
    pub(crate) text: String,
}

impl Stage {
    /// A page of the checkout, with everything on it still to be run.
    pub(crate) fn open(page: &'static str) -> anyhow::Result<Stage> {
        let text = std::fs::read_to_string(root().join(page))?;
        let blocks: VecDeque<Block> =
            blocks(&text)?.into_iter().filter(|block| block.not_run.is_none()).collect();
        let commands = blocks.iter().flat_map(Block::commands).collect();
        let name = page.replace('/', "-");
        let scratch = Scratch::new(&name)?;
        let http_port = free_port()?;
        let mut stage = Stage { page, blocks, commands, replaced: Vec::new(), scratch, http_port };
        for directory in ["bin", "conf.d", "etc"] {
            std::fs::create_dir(stage.path(directory))?;
        }
        // A file of conf.d counts more than the page's own. This machine may have no other reason to believe its clock.
        let own = format!(
            "[clock]\ntrust = \"always\"\n[http]\nlisten = \"127.0.0.1:{http_port}\"\n[health]\ninterval = \"off\"\n"
        );
        stage.write("conf.d/stage.toml", &own)?;
        stage.replace("/etc/forebay", &stage.path("etc").display().to_string());
        stage.replace("/var/lib/forebay", &stage.path("data").display().to_string());
        stage.replace("127.0.0.1:8686", &format!("127.0.0.1:{http_port}"));
        let program = Program::of_this_build().bare();
        stage.program("forebay", &program)?;
        Ok(stage)
    }

    /// A file of the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A URL of the gateway.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// From now on, `to` stands for what the page calls `from`.
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        self.replaced.push((from.to_owned(), to.to_owned()));
    }

    fn here(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Puts a program in the path, with its first arguments, under a name.
    pub(crate) fn program(&self, name: &str, program: &Command) -> anyhow::Result<()> {
        let mut script = format!("#!/bin/sh\nexec '{}'", program.get_program().display());
        for argument in program.get_args() {
            write!(script, " '{}'", argument.display())?;
        }
        script.push_str(" \"$@\"\n");
        let path = self.path("bin").join(name);
        std::fs::write(&path, script)?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
    }

    /// Starts a broker, in the place of the one at the usual port.
    pub(crate) fn broker(&mut self) -> anyhow::Result<Mosquitto> {
        let broker = Mosquitto::start(&self.path("mosquitto"))?;
        self.broker_at(broker.port)?;
        Ok(broker)
    }

    /// The same, with the settings that the page has for it.
    pub(crate) fn broker_as_shown(&mut self) -> anyhow::Result<Mosquitto> {
        let settings = self.block("mosquitto", "persistence true")?;
        let broker = Mosquitto::start_with(&self.path("mosquitto"), &settings)?;
        self.broker_at(broker.port)?;
        Ok(broker)
    }

    /// The broker is at this port, for the gateway and for mosquitto's own clients.
    pub(crate) fn broker_at(&mut self, port: u16) -> anyhow::Result<()> {
        self.replace("mqtt://127.0.0.1:1883", &format!("mqtt://127.0.0.1:{port}"));
        for name in ["mosquitto_pub", "mosquitto_sub"] {
            let mut client = command(name, "mosquitto-clients")?;
            client.arg("-p").arg(port.to_string());
            self.program(name, &client)?;
        }
        Ok(())
    }

    /// Starts an InfluxDB 1 in the place of the one at the usual port.
    pub(crate) fn influxdb(&mut self) -> anyhow::Result<InfluxDb> {
        let server = InfluxDb::start(&self.path("influxdb"))?;
        self.replace("http://127.0.0.1:8086", &server.url());
        Ok(server)
    }

    /// Writes a file of the stage.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.path(name), text)?)
    }

    /// Takes the next block of a kind that has these words.
    pub(crate) fn block(&mut self, kind: &str, words: &str) -> anyhow::Result<String> {
        let is_it = |block: &Block| block.kind == kind && block.text.contains(words);
        let at = self.blocks.iter().position(is_it);
        let block = at.and_then(|at| self.blocks.remove(at));
        let block = block.with_context(|| format!("{} has no block of {kind} with {words:?}", self.page))?;
        Ok(self.here(&block.text))
    }

    /// What is configured by this text, in a file of its own beside the page's.
    pub(crate) fn configured(&self, text: &str) -> anyhow::Result<Config> {
        let directory = tempfile::tempdir_in(self.scratch.path())?;
        let file = directory.path().join(CONFIG);
        let secret = "nobody-knows-it\n";
        for name in ["influxdb.token", "mqtt.password"] {
            let path = directory.path().join(name);
            std::fs::write(&path, secret)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        std::fs::write(&file, text)?;
        Ok(config::load(&file)?.config)
    }

    /// Takes the next command that begins so, as it is typed here.
    pub(crate) fn take(&mut self, beginning: &str) -> anyhow::Result<String> {
        let at = self.commands.iter().position(|command| command.starts_with(beginning));
        let command = at.and_then(|at| self.commands.remove(at));
        let command = command.with_context(|| format!("{} does not show {beginning:?}", self.page))?;
        Ok(self.here(&command))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.arg("-ec").arg(command).current_dir(self.scratch.path());
        shell.env("PATH", format!("{}:{path}", self.path("bin").display()));
        shell
    }

    /// Types a command, with what is read from its standard input.
    pub(crate) fn typed(&self, command: &str, input: &str) -> anyhow::Result<Said> {
        let mut shell = Command::new("timeout");
        let typed = self.shell(command);
        shell.arg(LIMIT.as_secs().to_string()).arg(typed.get_program()).args(typed.get_args());
        shell.current_dir(self.scratch.path());
        shell.envs(typed.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever reads nothing has closed it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Said { command: command.to_owned(), good: output.status.success(), text })
    }

    /// Runs the next command that begins so to its end.
    pub(crate) fn ran(&mut self, beginning: &str) -> anyhow::Result<Said> {
        let command = self.take(beginning)?;
        self.typed(&command, "")
    }

    /// The same, which has to be well.
    pub(crate) fn run(&mut self, beginning: &str) -> anyhow::Result<String> {
        let said = self.ran(beginning)?;
        anyhow::ensure!(said.good, "{}: {}", said.command, said.text);
        Ok(said.text)
    }

    /// Runs the next command that begins so again and again, until it is well and all of these words are in what it says.
    pub(crate) fn until(&mut self, beginning: &str, words: &[&str]) -> anyhow::Result<String> {
        let command = self.take(beginning)?;
        let missing = |said: &Said| words.iter().find(|word| !said.text.contains(*word)).copied();
        wait_for(&format!("{words:?} of {command}"), LIMIT, || {
            let said = self.typed(&command, "").map_err(|error| error.to_string())?;
            match missing(&said) {
                None if said.good => Ok(said.text),
                word => Err(format!("it lacks {word:?}: {}", said.text)),
            }
        })
    }

    /// Starts the next command that begins so, which goes on; and the log that it writes to.
    pub(crate) fn start(&mut self, beginning: &str, log: &str) -> anyhow::Result<(Process, PathBuf)> {
        let command = self.take(beginning)?;
        self.start_typed(&command, log)
    }

    /// Starts a command, which goes on; and the log that it writes to.
    pub(crate) fn start_typed(&self, command: &str, log: &str) -> anyhow::Result<(Process, PathBuf)> {
        let log = self.path(log);
        let process = Process::spawn(command, self.shell(&format!("exec {command}")), &log)?;
        Ok((process, log))
    }

    /// Starts the gateway by the next command that begins so, and waits until it gives acks.
    pub(crate) fn gateway(&mut self, beginning: &str) -> anyhow::Result<Process> {
        let command = self.take(beginning)?;
        self.gateway_by(&command)
    }

    /// Starts the gateway by a command, and waits until it gives acks.
    pub(crate) fn gateway_by(&self, command: &str) -> anyhow::Result<Process> {
        let (gateway, _) = self.start_typed(command, "gateway.log")?;
        let (http, url) = (Http::new()?, self.url("/readyz"));
        wait_for("the gateway", LIMIT, || match http.get(&url) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("it answered {}: {}", answer.status, answer.body)),
            Err(error) => Err(format!("{error:#}")),
        })?;
        Ok(gateway)
    }

    /// Waits until the gateway says that it is connected to its broker.
    pub(crate) fn connected(&self) -> anyhow::Result<()> {
        wait_for("the gateway's connection to the broker", LIMIT, || {
            let said = self.typed(&format!("forebay status --config {CONFIG}"), "");
            let said = said.map_err(|error| error.to_string())?;
            if said.good && said.text.contains("connected") { Ok(()) } else { Err(said.text) }
        })
    }

    /// Everything on the page was run, and the test's files are not needed any more.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let configured = self.blocks.iter().filter(|block| block.kind == "toml" || block.kind == "mosquitto");
        let left: Vec<&String> = self.commands.iter().chain(configured.map(|block| &block.text)).collect();
        anyhow::ensure!(
            left.is_empty(),
            "{} shows what is not run here, and has no mark: {left:#?}",
            self.page
        );
        self.scratch.passed();
        Ok(())
    }
}

/// Whether an answer has everything that the page shows of one, but for the time and the name of this machine.
pub(crate) fn has_what_is_shown(answer: &str, shown: &str) -> bool {
    let is_here = |word: &&str| {
        word.starts_with("gateway=") || (word.len() == 19 && word.bytes().all(|b| b.is_ascii_digit()))
    };
    shown.split([' ', ',', '\n']).filter(|word| !is_here(word)).all(|word| answer.contains(word))
}
