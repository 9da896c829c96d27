//! SIGHUP: reads the configuration again, and applies what can change without a row being lost.
//!
//! **Applied:** the level of the log, the token of the HTTP interface, brokers with their subscriptions, and serial ports. A source
//! that has not changed is not touched. **At the next start:** everything else, which is named key by key. Identity is not
//! among what can change: names, tags, series and times of rows that were taken are frozen in the journal. **Failure.** A
//! file that cannot be used changes nothing, and each of its faults is in the log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::sources::Sources;
use crate::cli::log;
use crate::config::{self, Config};
use crate::http::Token;

/// What a new configuration is applied to.
pub(super) struct Reload {
    pub(super) path: PathBuf,
    /// What the gateway runs by.
    pub(super) running: Config,
    pub(super) sources: Sources,
    pub(super) token: Arc<Token>,
}

/// The thread that applies configurations, and has the sources. It is begun before the main thread gives way to others, since
/// the threads that it starts have as much of a claim on the processor as itself.
#[derive(Debug)]
pub(super) struct Reloader {
    orders: SyncSender<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

impl Reloader {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(mut reload: Reload) -> Result<Reloader> {
        let (orders, heard) = sync_channel::<oneshot::Sender<()>>(1);
        let work = move || {
            for done in heard {
                reload.run();
                // Whoever stops does not wait for it.
                done.send(()).ok();
            }
            reload.sources.stop();
        };
        let thread = Builder::new().name("reload".to_owned()).spawn(work)?;
        Ok(Reloader { orders, thread })
    }

    /// Has the configuration read again; what is returned resolves when that is done.
    pub(super) fn order(&self) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        // One that waits already has not read the file yet, and does for both.
        self.orders.try_send(done).ok();
        told
    }

    /// Stops all sources, and waits for their end, and for that of what was ordered.
    pub(super) fn stop(self) {
        drop(self.orders);
        // A panic has ended the process already.
        self.thread.join().ok();
    }
}

impl Reload {
    /// Does it. It waits for sources to end.
    fn run(&mut self) {
        // What was acked is safe all the same.
        if let Err(error) = self.apply() {
            error!("SIGHUP: {error:#}");
        }
    }

    fn apply(&mut self) -> Result<()> {
        let loaded = match config::load(&self.path) {
            Ok(loaded) => loaded,
            Err(fault) => {
                error!("SIGHUP: the configuration is not as it should be, and nothing was changed");
                for problem in fault.problems() {
                    error!("{problem}");
                }
                return Ok(());
            }
        };
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let wanted = loaded.config;
        for change in at_next_start(&self.running, &wanted) {
            warn!("SIGHUP: {change}; this is applied when the gateway is started again");
        }
        self.apply_to_process(&wanted);
        let applied = Config { mqtt: wanted.mqtt, serial: wanted.serial, ..self.running.clone() };
        // Also if it is what was last applied: a source that could not be begun then does not run.
        self.sources.change(&applied).context(
            "a source cannot be started; mend the cause and send SIGHUP again, or restart the gateway",
        )?;
        self.running = applied;
        info!("SIGHUP: the configuration was read again");
        Ok(())
    }

    /// The log, and who may ask over HTTP.
    fn apply_to_process(&mut self, wanted: &Config) {
        if wanted.log_level != self.running.log_level {
            self.running.log_level = wanted.log_level;
            if !log::set_level(wanted.log_level) {
                warn!("SIGHUP: log.level has changed, but the variable FOREBAY_LOG says what the log tells");
            }
        }
        if wanted.http.token != self.running.http.token && wanted.http.token.is_some() {
            self.running.http.token.clone_from(&wanted.http.token);
            self.token.set(wanted.http.token.clone());
            info!("SIGHUP: the token of the HTTP interface has changed");
        }
    }
}

/// What differs and only a start applies, key by key.
fn at_next_start(running: &Config, wanted: &Config) -> Vec<String> {
    // A key that comes to these is applied in `apply`, or named below.
    let Config {
        data_dir: _,
        tags: _,
        devices: _,
        mqtt: _,
        serial: _,
        ack_after: _,
        journal: config::Journal { max_bytes: _, commit_interval: _, when_full: _ },
        influxdb: _,
        sqlite: _,
        sqlite_without_file: _,
        dead_letters: config::DeadLetters { max_bytes: _ },
        clock: config::Clock { trust: _, max_wait: _ },
        health: _,
        http: config::Http { listen: _, token: _, query_sink: _ },
        log_level: _,
    } = running;
    let (old, new) = (running, wanted);
    let is_token_gone = old.http.token.is_some() && new.http.token.is_none();
    let keys = [
        ("data_dir", old.data_dir != new.data_dir),
        ("[tags]", old.tags != new.tags),
        ("[devices]", old.devices != new.devices),
        ("ack.after", old.ack_after != new.ack_after),
        ("journal.max_bytes", old.journal.max_bytes != new.journal.max_bytes),
        ("journal.commit_interval", old.journal.commit_interval != new.journal.commit_interval),
        ("journal.when_full", old.journal.when_full != new.journal.when_full),
        ("[sqlite]", old.sqlite != new.sqlite),
        ("dead_letters.max_bytes", old.dead_letters != new.dead_letters),
        ("clock.trust", old.clock.trust != new.clock.trust),
        ("clock.max_wait", old.clock.max_wait != new.clock.max_wait),
        ("health.interval", old.health != new.health),
        ("http.listen", old.http.listen != new.http.listen),
        ("http.token_file, which is gone,", is_token_gone),
    ];
    let keys = keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("{key} has changed"));
    // Left out, it is the first database.
    let (asked, wanted) = (&old.http.query_sink, &new.http.query_sink);
    let queries = (asked != wanted).then(|| {
        format!(
            "queries are answered from {wanted} instead of {asked} (http.query_sink, or the first database)"
        )
    });
    let names: BTreeSet<&str> =
        old.influxdb.iter().chain(&new.influxdb).map(|database| database.name.as_str()).collect();
    let databases = names.into_iter().filter_map(|name| {
        let of = |config: &'_ Config| config.influxdb.iter().find(|one| one.name == name).cloned();
        let what = match (of(old), of(new)) {
            (None, _) => "is new",
            (_, None) => "is taken out",
            (old, new) if old == new => return None,
            _ => "has changed",
        };
        Some(format!("[[influxdb]] {name} {what}"))
    });
    keys.chain(queries).chain(databases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_start_applies_is_named_key_by_key() {
        let old = config::of_text(
            "[[mqtt]]\nurl = \"mqtt://a\"\n[[influxdb]]\nname = \"x\"\nurl = \"http://a\"\ndatabase = \"d\"\n",
        );
        let new = config::of_text(
            "data_dir = \"/elsewhere\"\ndevices.a.name = \"b\"\nack.after = \"memory\"\njournal.max_bytes = \"4MiB\"\n\
             log.level = \"debug\"\nclock.trust = \"always\"\nhttp.listen = \"127.0.0.1:1\"\n\
             [[influxdb]]\nname = \"x\"\nurl = \"http://a\"\ndatabase = \"e\"\n\
             [[influxdb]]\nname = \"y\"\nurl = \"http://b\"\ndatabase = \"e\"\n",
        );
        assert!(at_next_start(&old, &old).is_empty());
        assert_eq!(
            at_next_start(&old, &new),
            [
                "data_dir has changed",
                "[devices] has changed",
                "ack.after has changed",
                "journal.max_bytes has changed",
                "clock.trust has changed",
                "http.listen has changed",
                "[[influxdb]] x has changed",
                "[[influxdb]] y is new",
            ]
        );
        let queries = |from: &str, to: &str| {
            format!(
                "queries are answered from {to} instead of {from} (http.query_sink, or the first database)"
            )
        };
        // What is asked by default goes with the first database.
        assert_eq!(
            at_next_start(&old, &config::of_text("")),
            ["[sqlite] has changed", &*queries("x", "sqlite"), "[[influxdb]] x is taken out"]
        );
        let y = "[[influxdb]]\nname = \"y\"\nurl = \"http://b\"\ndatabase = \"e\"\n";
        let x = "[[influxdb]]\nname = \"x\"\nurl = \"http://a\"\ndatabase = \"d\"\n";
        let asks = |sink: &str| config::of_text(&format!("http.query_sink = \"{sink}\"\n{x}{y}"));
        assert_eq!(at_next_start(&asks("x"), &asks("y")), [queries("x", "y")]);
        let of = |databases: [&str; 2]| config::of_text(&databases.concat());
        assert_eq!(at_next_start(&of([x, y]), &of([y, x])), [queries("x", "y")], "another one comes first");
    }
}
