//! `forebay check`: one line for each thing that must be in order, with the cure where it is not.
//!
//! Nothing is changed: brokers are reached under a client id of its own and without a session, databases are offered
//! a line that none of them stores, ports are looked at and not opened, and the journal is not.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use super::control::{Gateway, talk};
use super::plain;
use crate::clock::{self, Belief};
use crate::config::{self, AckAfter, Config, Loaded, SQLITE};
use crate::daemon;
use crate::journal::Options;

mod brokers;
mod data_dir;
mod databases;
mod mosquitto;
mod ports;

/// What was found out about one thing: a word in its favour, or what is wrong and how to mend it.
type Finding = Result<String, String>;

/// Prints all findings. The exit status is 1 if one of them is a fault.
pub(super) fn run(loaded: &Loaded) -> ExitCode {
    let mut report = Report { faults: 0 };
    let files = loaded.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    report.line("configuration", Ok(files));
    for warning in &loaded.warnings {
        report.line("configuration", Err(warning.to_string()));
    }
    let config = &loaded.config;
    let running = running(&config.data_dir);
    report.line("data_dir", data_dir::check(&config.data_dir, running.as_ref().map(|status| status.pid)));
    let options = Options::from(&config.journal);
    let sinks = data_dir::sinks(&config.data_dir, running.as_ref());
    let room = data_dir::check_journal(&config.data_dir, &options);
    let (room, short) = room.map_or_else(|fault| (Err(fault), None), |(what, short)| (Ok(what), short));
    report.line("journal", sinks.as_ref().map_err(Clone::clone).and(room));
    short.inspect(|short| report.warn("journal", short));
    let sinks = sinks.unwrap_or_default();
    let config = &config.beside(sinks.iter().map(|sink| &*sink.name));
    for (sink, lacks) in data_dir::abandoned(config, &sinks) {
        report.line(&format!("sink {sink}"), Err(lacks));
    }
    report.line("ack", Ok(ack_finding(config)));
    report.line("clock", clock_finding(config.clock));
    if config.mqtt.iter().any(|broker| mosquitto::is_here(&broker.host)) {
        for danger in mosquitto::dangers(Path::new(mosquitto::FILE)) {
            report.warn("mosquitto", &danger);
        }
    }
    for port in &config.serial {
        let known = running.as_ref().and_then(|status| status.sources.get(&port.selector.to_string()));
        let key = ports::key(&port.selector);
        report.line(&format!("{key} {}", port.selector), ports::check(port, known));
    }
    report.line(
        &format!("http.listen {}", config.http.listen),
        listen_finding(config.http.listen, running.is_some()),
    );
    let reached = talk(async {
        let client_id = daemon::kept_client_id(&config.data_dir);
        for broker in &config.mqtt {
            let finding = brokers::check(broker, client_id.as_deref()).await;
            report.line(&format!("mqtt.url {}", broker.url), finding);
        }
        for database in &config.influxdb {
            report.line(
                &format!("influxdb {} {}", database.name, database.url),
                databases::check(database).await,
            );
        }
        Ok(())
    });
    if let Err(error) = reached {
        report.line("network", Err(error.to_string()));
    }
    if let Some(sqlite) = &config.sqlite {
        let known = sinks.iter().find(|sink| sink.name == SQLITE);
        let confirmed = known.map_or(0, |sink| sink.confirmed);
        let (data_dir, is_running) = (&config.data_dir, running.is_some());
        report.line("sqlite", data_dir::check_sqlite(&sqlite.path, data_dir, is_running, confirmed));
    }
    if report.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Report {
    faults: u32,
}

impl Report {
    fn line(&mut self, what: &str, finding: Finding) {
        let (mark, text) = match finding {
            Ok(text) => ("ok  ", text),
            Err(text) => {
                self.faults += 1;
                ("FAIL", text)
            }
        };
        Report::print(mark, what, &text);
    }

    /// Something that works, and is not as it should be: no fault.
    fn warn(&self, what: &str, text: &str) {
        Report::print("warn", what, text);
    }

    fn print(mark: &str, what: &str, text: &str) {
        // Whoever closes the pipe has read enough; the exit code tells the rest.
        drop(writeln!(io::stdout(), "{mark} {}: {}", plain(what), plain(text)));
    }
}

/// The status of the gateway that runs by this configuration, if one does and answers.
fn running(data_dir: &Path) -> Option<crate::stats::Status> {
    let gateway = Gateway::find(data_dir).ok()?;
    talk(async { gateway.status().await }).ok().map(|(_, status)| status)
}

/// What an ack promises, and what it costs.
fn ack_finding(config: &Config) -> String {
    let brokers = config.mqtt.iter().map(|broker| broker.url.as_str()).collect::<Vec<_>>().join(", ");
    match config.ack_after {
        AckAfter::Journal => "after fdatasync: no crash loses what is acked".to_owned(),
        AckAfter::Memory => {
            "from memory: a crash, a kill or a power cut loses what was acked in the moments before; \
             [ack] after = \"journal\" would not"
                .to_owned()
        }
        AckAfter::Database if brokers.is_empty() => {
            "after the database: while it is away, devices keep their readings as long as they can".to_owned()
        }
        AckAfter::Database => format!(
            "after the database: while it is away nothing is acked, messages gather in the queue of {brokers}, and a broker \
             drops what exceeds its limit (mosquitto: max_queued_messages, 1000 by default); raise that for the longest \
             outage, or set [ack] after = \"journal\""
        ),
    }
}

/// Whether the gateway can listen there, unless it does already.
fn listen_finding(address: SocketAddr, is_running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Ok("is free".to_owned()),
        Err(_) if is_running => Ok("is served by the gateway that runs".to_owned()),
        Err(error) => {
            Err(format!("cannot be listened on: {error}; stop what uses the port, or choose another"))
        }
    }
}

fn clock_finding(clock: config::Clock) -> Finding {
    let belief = clock::belief(clock);
    let Belief::Waiting(wait) = belief else {
        return Ok(format!("is believed: {}", belief.reason()));
    };
    let wait = wait.as_secs();
    Err(format!(
        "is not synchronised: rows that need it are taken and acked, and delivered once it is, or in {wait} s; \
         enable systemd-timesyncd or chrony, or set [clock] trust = \"always\""
    ))
}
