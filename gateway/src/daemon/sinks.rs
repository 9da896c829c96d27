//! The databases: each gets a thread that delivers to it, and one that is not configured any more is let go of.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tracing::info;

use crate::clock;
use crate::config::{self, AckAfter, Config, Influxdb, InfluxdbApi, SQLITE, Service};
use crate::dead_letters::DeadLetters;
use crate::delivery::driver::{self, Settings};
use crate::delivery::horizon::{Horizon, Reached};
use crate::journal::Journal;
use crate::sink::Credentials;
use crate::sink::influx::{Influx, Target};
use crate::sink::sqlite::{Limits, Sqlite};
use crate::stats::Stats;

/// Longest time that sinks may take at the end to deliver what is committed.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Points in a batch of the embedded store, and how long they may wait for company.
const SQLITE_BATCH: (usize, Duration) = (5_000, Duration::from_millis(250));

/// A sink that is not configured any more would hold the journal for ever. One that has everything is forgotten; for
/// one that has not, somebody has to decide.
pub(super) fn let_go_of_sinks(config: &Config, journal: &Journal) -> Result<()> {
    let gone: Vec<(String, u64)> = journal.with_state(|state| {
        let gone = state.sinks().iter().filter(|sink| !config.has_sink(&sink.name));
        gone.map(|sink| (sink.name.to_string(), state.owed(&sink.name))).collect()
    });
    for (name, owed) in gone {
        if owed > 0 {
            bail!("the sink {name:?} {}", lacks_rows(&name, owed));
        }
        journal.forget_sink(&name)?;
        info!(sink = name, "forgotten: it is not configured any more, and has everything");
    }
    Ok(())
}

/// What is wrong with a sink that is not configured any more, and how to mend it.
pub(crate) fn lacks_rows(name: &str, owed: u64) -> String {
    format!(
        "is not configured any more, and {owed} rows are not delivered to it yet; configure it again under this name, or \
         let go of them with `forebay sinks forget {name}` and the same --config"
    )
}

/// Starts delivery to each database.
///
/// # Errors
/// One of them cannot be made from its configuration, or gets no thread.
pub(super) fn start_sinks(
    config: &Config,
    journal: &Journal,
    stats: &Stats,
    dead_letters: &Arc<DeadLetters>,
    horizon: &Arc<Horizon>,
    stop: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>> {
    let gap_tags: Vec<(String, String)> =
        config.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let is_awaited = config.ack_after == AckAfter::Database;
    // All are known before one of them starts, or acks could go ahead of the others.
    let mut reached: VecDeque<Option<Reached>> =
        awaited(config).into_iter().map(|is_awaited| is_awaited.then(|| horizon.add())).collect();
    let mut settings = |name: &str, (batch_points, linger): (usize, Duration), service: &Service| Settings {
        name: name.to_owned(),
        batch_points,
        // Whoever waits for the database waits for no company.
        linger: if is_awaited { Duration::ZERO } else { linger },
        horizon: reached.pop_front().flatten(),
        drain: DRAIN,
        dead_letters: Arc::clone(dead_letters),
        service: service.clone(),
        gap_tags: gap_tags.clone(),
        seed: getrandom::u64().unwrap_or_default(),
    };
    let mut threads = Vec::new();
    for influxdb in &config.influxdb {
        let Influxdb { name, url, api, batch_size, flush_interval, service, .. } = influxdb;
        let settings = settings(name, (*batch_size, *flush_interval), service);
        let what = || format!("[[influxdb]] {name}");
        let sink = Influx::new(url, target(api)).with_context(what)?;
        let thread = driver::spawn(journal.clone(), sink, settings, stats.sink(name), stop.clone());
        threads.push(thread.with_context(what)?);
    }
    if let Some(sqlite) = &config.sqlite {
        let limits = Limits { retention: sqlite.retention, max_bytes: sqlite.max_bytes };
        let id = format!("{:016x}", journal.id().0);
        let believed = config.clock;
        let clock = Box::new(move || clock::trusted(believed).then(clock::now_ns));
        let sink = Sqlite::new(sqlite.path.clone(), id, limits, clock);
        let settings = settings(SQLITE, SQLITE_BATCH, &sqlite.service);
        let thread = driver::spawn(journal.clone(), sink, settings, stats.sink(SQLITE), stop.clone());
        threads.push(thread.context("[sqlite]")?);
    }
    Ok(threads)
}

/// Whether acks wait for each sink, in the order in which they are started: for all that are required, and if none is, for
/// all.
fn awaited(config: &Config) -> Vec<bool> {
    let services = config.influxdb.iter().map(|influxdb| &influxdb.service);
    let required: Vec<bool> =
        services.chain(config.sqlite.as_ref().map(|sqlite| &sqlite.service)).map(|s| s.required).collect();
    let is_any_required = required.contains(&true);
    let is_awaited = config.ack_after == AckAfter::Database;
    required.into_iter().map(|is_required| is_awaited && (is_required || !is_any_required)).collect()
}

/// What a configured database is written to.
fn target(api: &InfluxdbApi) -> Target {
    let own = |secret: &Option<config::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    match api.clone() {
        InfluxdbApi::V1 { database, retention_policy, username, password } => {
            let password = own(&password).unwrap_or_default();
            let credentials = username.map(|username| Credentials { username, password });
            Target::V1 { database, retention_policy, credentials }
        }
        InfluxdbApi::V2 { org, bucket, token } => Target::V2 { org, bucket, token: own(&token) },
        InfluxdbApi::V3 { database, token } => Target::V3 { database, token: own(&token) },
        InfluxdbApi::Open { database, token } => Target::Open { database, token: own(&token) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::{Entry, Fields, RowEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Options, Refused};
    use crate::record::{Offset, Value};

    #[test]
    fn a_sink_that_is_left_behind_is_named_with_both_cures_and_an_empty_one_is_forgotten() {
        let options = Options::sized(4 << 20);
        let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &options).unwrap();
        let config = config::of_text("data_dir = \"/nowhere\"\n");
        for sink in [SQLITE, "old"] {
            journal.register_sink(sink).unwrap();
        }
        let fields = [("t".to_owned(), Value::Float(1.0))];
        let (device, series, fields) = ("d", "m,device=d", Fields::of(&fields));
        let row = RowEntry { device, boot: 0, sequence: 0, stamped: false, series, ns: 1, fields };
        journal.submit(Class::Foreign, |_, submission| submission.add(&Entry::Row(row))).unwrap();
        let refused = let_go_of_sinks(&config, &journal).unwrap_err().to_string();
        assert!(
            refused.contains("\"old\"") && refused.contains("1 rows") && refused.contains("sinks forget old")
        );
        assert!(refused.contains("configure it again"), "{refused}");
        let confirmed = [("d".into(), 1)];
        let next = Offset(9);
        journal
            .submit(Class::Internal, |_, submission| submission.add_cursor("old", next, &confirmed))
            .map(|_: ((), _)| ())
            .unwrap_or_else(|e: Refused| panic!("{e}"));
        let_go_of_sinks(&config, &journal).unwrap();
        assert_eq!(journal.with_state(|state| state.cursor("old")), None);
        assert!(journal.with_state(|state| state.cursor(SQLITE)).is_some());
    }
}
