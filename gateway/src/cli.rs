//! The commands of `forebay`.
//!
//! Exit status: 0 when all is well, 1 for a fault, 2 for a command line or configuration file that does not parse.
//! What a command prints for people and programs goes to standard output, everything else to standard error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{self, LoadError, Loaded};
use crate::http::dead_letters::Selection;
use crate::source::dry_run;
use crate::terminal::{plain, some};
use crate::{clock, daemon, harden};

mod audit;
mod check;
mod control;
mod dead_letters;
mod explain;
mod export;
mod journal;
pub(crate) mod log;
mod manual;
mod owner;
mod ports;
mod query;
mod sinks;
mod status;
mod tail;

use dead_letters::Order;

/// Acks your devices once their readings are on disk, and writes them to your database exactly once in effect.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        file: File,
        /// Print what would be written; nothing is journaled, nothing is sent to a port
        #[arg(long)]
        dry_run: bool,
        /// How the log is written
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        log: log::Format,
    },
    /// Check the configuration, then reach brokers and databases and look at ports; says how to mend
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Print every key of the configuration with its default, as Markdown; no file is read
    Config,
    /// Show sources, sinks, devices and the journal of the running gateway
    Status {
        #[command(flatten)]
        file: File,
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
        /// Show it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Print readings as they become durable, as line protocol
    Tail {
        #[command(flatten)]
        file: File,
        /// Only this device, by its name or chip id
        device: Option<String>,
    },
    /// Show points that are acked, whether the database has them yet or not; the gateway must run
    Query {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        wanted: query::Wanted,
    },
    /// Print all points of a time, those of the database and those that wait in the journal; the gateway may run
    Export {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        wanted: export::Wanted,
    },
    /// Show what a message would become, or why it would not; nobody is asked, and nothing is written
    Explain {
        #[command(flatten)]
        file: File,
        /// The topic that it comes on
        #[arg(long)]
        topic: String,
        /// The file that holds its payload; - for standard input
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
    },
    /// List serial ports: what they are, who has them, what the gateway does with them, and the lines to configure
    Ports {
        /// The configuration file of the gateway to ask; without one at the usual place none is asked
        #[arg(long = "config", value_name = "FILE")]
        path: Option<PathBuf>,
        /// Print them as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Compare the ledger with what the databases count themselves; exit status 1 for a difference, 2 if it cannot be told
    Audit {
        #[command(flatten)]
        file: File,
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the sinks that the journal knows, or let go of one; the gateway must not run
    Sinks {
        #[command(subcommand)]
        command: SinksCommand,
    },
    /// Look into the journal's files, and copy what is intact of a damaged one
    Journal {
        #[command(subcommand)]
        command: journal::JournalCommand,
    },
    /// Look at what could not be read or what a database refused, send it again, or let it go
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Print what a shell needs to complete these commands
    Completions {
        /// Which shell
        shell: manual::Shell,
    },
    /// Print the manual page, or write one for each command into a directory
    Man {
        /// Where the pages go
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum SinksCommand {
    /// One line for each: its name, its cursor, and how many rows it is still to get
    List {
        #[command(flatten)]
        file: File,
    },
    /// Let go of a sink and of the rows that it is still to get
    Forget {
        #[command(flatten)]
        file: File,
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// One line for each: id, time, stage, sink, device, rows, origin, reason
    List {
        #[command(flatten)]
        file: File,
        /// Print them as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Everything that is kept of one, its body included
    Show {
        #[command(flatten)]
        file: File,
        /// Its id, as the list shows it
        id: String,
        /// Print it as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send points again that a database has refused, once the cause is mended; asks the running gateway
    Replay {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        which: Which,
    },
    /// Let letters go for good; asks the running gateway
    Drop {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        which: Which,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Which {
    /// Their ids, as the list shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// With --all: those that this database has refused
    #[arg(long, value_name = "NAME", requires = "all")]
    sink: Option<String>,
}

#[derive(Debug, Args)]
struct File {
    /// The configuration file; `conf.d/*.toml` beside it is read too
    #[arg(long = "config", value_name = "FILE", default_value = config::DEFAULT_PATH)]
    path: PathBuf,
}

/// Does what the command line of this process says.
#[must_use]
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Does what a command line says, the name of the program first.
#[must_use]
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    harden::keep_files_private();
    match Cli::parse_from(arguments).command {
        Command::Run { file, dry_run, log } => run(&file.path, dry_run, log),
        Command::Check { file } => with_config(&file.path, check::run),
        Command::Config => report(manual::print(config::reference().as_bytes())),
        Command::Status { file, json, watch } => {
            with_data_dir(&file.path, |dir| status::run(dir, json, watch))
        }
        Command::Tail { file, device } => with_data_dir(&file.path, |dir| tail::run(dir, device.as_deref())),
        Command::Query { file, wanted } => {
            with_whereabouts(&file.path, |loaded| exit_status(query::run(&loaded.config.data_dir, &wanted)))
        }
        Command::Export { file, wanted } => {
            with_whereabouts(&file.path, |loaded| exit_status(export::run(loaded, &wanted)))
        }
        Command::Explain { file, topic, payload } => {
            with_config(&file.path, |loaded| match explain::run(&loaded.config, &topic, &payload) {
                Ok(false) => ExitCode::FAILURE,
                done => report(done.map(drop)),
            })
        }
        Command::Ports { path, json } => list_ports(path, json),
        Command::Audit { file, json } => with_whereabouts(&file.path, |loaded| audit::run(loaded, json)),
        Command::Sinks { command: SinksCommand::List { file } } => {
            with_whereabouts(&file.path, |loaded| report(sinks::list(&loaded.config)))
        }
        Command::Sinks { command: SinksCommand::Forget { file, name } } => {
            with_whereabouts(&file.path, |loaded| report(sinks::forget(&loaded.config, &name)))
        }
        Command::Journal { command } => look_into_journal(&command),
        Command::DeadLetters { command: DeadLettersCommand::List { file, json } } => {
            with_data_dir(&file.path, |dir| dead_letters::list(dir, json))
        }
        Command::DeadLetters { command: DeadLettersCommand::Show { file, id, json } } => {
            with_data_dir(&file.path, |dir| dead_letters::show(dir, &id, json))
        }
        Command::DeadLetters { command: DeadLettersCommand::Replay { file, which } } => {
            order(&file, Order::Replay, which)
        }
        Command::DeadLetters { command: DeadLettersCommand::Drop { file, which } } => {
            order(&file, Order::Drop, which)
        }
        Command::Completions { shell } => report(manual::completions(shell, Cli::command())),
        Command::Man { directory } => report(manual::pages(Cli::command(), directory.as_deref())),
    }
}

fn run(path: &Path, dry_run: bool, log: log::Format) -> ExitCode {
    log::start(log);
    with_config(path, |loaded| {
        log::set_level(loaded.config.log_level);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        if !clock::trusted(loaded.config.clock) {
            tracing::warn!(
                "the clock is not synchronised; rows that need it are taken and acked, and delivered once it is (see [clock])"
            );
        }
        let done = if dry_run {
            dry_run::run(&loaded.config).map_err(Into::into)
        } else {
            daemon::run(path, &loaded.config)
        };
        report(done)
    })
}

/// Loads the configuration, or says all that is wrong with it.
fn with_config(path: &Path, command: impl FnOnce(&Loaded) -> ExitCode) -> ExitCode {
    with_loaded(config::load(path), command)
}

/// The same for who has enough of where the gateway's data is: variables and secrets may be the gateway's alone.
fn with_whereabouts(path: &Path, command: impl FnOnce(&Loaded) -> ExitCode) -> ExitCode {
    with_loaded(config::load_whereabouts(path), command)
}

fn with_loaded(loaded: Result<Loaded, LoadError>, command: impl FnOnce(&Loaded) -> ExitCode) -> ExitCode {
    match loaded {
        Ok(loaded) => command(&loaded),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn with_data_dir(path: &Path, command: impl FnOnce(&Path) -> anyhow::Result<()>) -> ExitCode {
    with_whereabouts(path, |loaded| report(command(&loaded.config.data_dir)))
}

/// Lets the running gateway do something with dead letters.
fn order(file: &File, order: Order, Which { ids, all, sink }: Which) -> ExitCode {
    let selection = Selection { ids, all, sink };
    with_whereabouts(&file.path, |loaded| {
        match dead_letters::order(&loaded.config.data_dir, order, &selection) {
            Ok(false) => ExitCode::FAILURE,
            done => report(done.map(drop)),
        }
    })
}

/// Ports are looked for before there is a configuration.
fn list_ports(path: Option<PathBuf>, json: bool) -> ExitCode {
    let usual = || Some(PathBuf::from(config::DEFAULT_PATH)).filter(|path| path.exists());
    let Some(path) = path.or_else(usual) else { return report(ports::run(None, json)) };
    match config::load_whereabouts(&path) {
        Ok(loaded) => report(ports::run(Some(&loaded.config), json)),
        // Who mends it may need the list for that.
        Err(error) => {
            report(ports::run(None, json));
            eprintln!(
                "{error}\nforebay: the configuration cannot be read, so no gateway was asked about the ports"
            );
            ExitCode::FAILURE
        }
    }
}

/// A journal that is named itself needs no configuration.
fn look_into_journal(command: &journal::JournalCommand) -> ExitCode {
    let run = |directory: &Path| match command.run(directory) {
        Ok(false) => ExitCode::FAILURE,
        done => report(done.map(drop)),
    };
    match command.place().directory() {
        Some(directory) => run(directory),
        None => {
            with_whereabouts(command.place().config(), |loaded| run(&loaded.config.data_dir.join("journal")))
        }
    }
}

fn report(done: anyhow::Result<()>) -> ExitCode {
    exit_status(done.map(|()| ExitCode::SUCCESS))
}

/// The status that a command has come to, or says what it could not do.
fn exit_status(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("forebay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_well_defined() {
        Cli::command().debug_assert();
    }

    /// Every `forebay …` of a page, in its code and between its backquotes, without comments and what a shell does with it.
    fn commands(page: &str) -> Vec<String> {
        let quoted = page.split('`').skip(1).step_by(2).map(|text| text.replace('\n', " "));
        let lines = page.lines().map(|line| line.trim_start_matches(['$', ' ']).to_owned());
        let all = quoted.chain(lines).filter_map(|text| {
            let text = text.strip_prefix("sudo ").unwrap_or(&text);
            let text = text.strip_prefix("-u forebay ").unwrap_or(text);
            let words = text.strip_prefix("forebay ")?;
            // A sentence may begin with the name.
            let is_command = words.starts_with(|c: char| c.is_ascii_lowercase()) && !words.ends_with('.');
            is_command.then(|| words.split(['#', '|', '>', '&']).next().unwrap_or_default().trim().to_owned())
        });
        all.filter(|words| !words.is_empty()).collect()
    }

    #[test]
    fn every_command_in_the_documentation_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let own = ["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name));
        let mut count = 0;
        for page in pages.chain(own).filter(|path| path.extension().is_some_and(|e| e == "md")) {
            for command in commands(&std::fs::read_to_string(&page).unwrap()) {
                let words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
                let parsed = Cli::try_parse_from(["forebay"].into_iter().chain(words));
                let kind = parsed.err().map(|error| error.kind());
                // In a sentence a command may stand for all of its forms.
                let is_one = kind.is_none_or(|kind| {
                    matches!(
                        kind,
                        ErrorKind::MissingRequiredArgument
                            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    )
                });
                assert!(is_one, "{}: forebay {command}: {kind:?}", page.display());
                count += 1;
            }
        }
        eprintln!("{count} commands in the documentation");
        assert!(count > 60, "only {count} commands are found");
    }
}
