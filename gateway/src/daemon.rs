//! The daemon: puts the stages together, and takes them down in the order in which readings flow.
//!
//! Start: journal (recovery), sinks, HTTP, sources. Stop, at SIGTERM or SIGINT: sources take nothing more and send the
//! acks of what was committed; the journal commits; sinks deliver what is committed, as long as their databases take
//! it and for at most [`DRAIN`]; the journal closes. What is left is delivered by the next start.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use forebay_shared::ids::Epoch;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::clock::{self, Moment};
use crate::config::{self, AckAfter, Config, Influxdb, InfluxdbApi, SQLITE, Service};
use crate::dead_letters::{self, DeadLetters};
use crate::delivery::driver::{self, Settings};
use crate::delivery::horizon::{Horizon, Reached};
use crate::delivery::letters;
use crate::harden;
use crate::health::Health;
use crate::http::{Letters, Server};
use crate::ingest::identity::Naming;
use crate::ingest::{Ingest, OwnClock};
use crate::journal::{Journal, Options};
use crate::raw;
use crate::record::Offset;
use crate::sink::Credentials;
use crate::sink::influx::{Influx, Target};
use crate::sink::sqlite::{Limits, Sqlite};
use crate::source::native::{Clocks, Schemas};
use crate::source::{Context, sparkplug};
use crate::stats::{Machine, Stats};
use crate::systemd::Manager;
use reload::{Reload, Reloader};
use signals::{Signal, Signals};
use sources::Sources;

mod client_id;
mod last_version;
mod reload;
mod signals;
mod sources;

pub use client_id::kept as kept_client_id;

/// Longest time that sinks may take at the end to deliver what is committed.
const DRAIN: Duration = Duration::from_secs(5);

/// Points in a batch of the embedded store, and how long they may wait for company.
const SQLITE_BATCH: (usize, Duration) = (5_000, Duration::from_millis(250));

/// A thread that panics leaves a gateway that looks alive and is not. A restart loses nothing that was acked.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        error!(
            "a thread has panicked, which is a fault of Forebay; the process ends, and nothing that was acked is lost"
        );
        std::process::abort();
    }));
}

/// File in the data directory that tells where the clocks of native devices stood, and how often it is written.
const CLOCKS: &str = "clocks";
const CLOCKS_PAUSE: Duration = Duration::from_secs(60);

/// By how much the main thread, which serves HTTP, gives way to all others.
const HTTP_NICE: i32 = 10;

/// How often it is looked whether rows that came before the clock was believed can get their time.
const FIX_PAUSE: Duration = Duration::from_millis(250);

/// Runs until a signal says to stop, by the configuration that was read from `path`, which SIGHUP reads again.
///
/// # Errors
/// The data directory, the journal or the HTTP port cannot be had, or a sink cannot be made from its configuration.
pub fn run(path: &Path, config: &Config) -> Result<()> {
    // Before there is another thread.
    raw::spare_memory();
    // Before the process is hidden from others of its user, itself among them.
    Machine::begin();
    abort_on_panic();
    harden::keep_memory_private();
    harden::allow_files();
    // The HTTP clients share one implementation of TLS; a second call finds it in place, which is as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything that takes its time: a signal that comes early is heard later, and ends nothing half-way.
    let mut signals = {
        let _within = runtime.enter();
        Signals::new()
    };
    let manager = Arc::new(Manager::of_this_process());
    manager.status("reading the journal");
    create_data_dir(&config.data_dir)?;
    let (journal, was_gone) = last_version::told(&config.data_dir, open_journal(config))?;
    let config = &journal.with_state(|state| config.beside(state.sinks().iter().map(|sink| &*sink.name)));
    let_go_of_sinks(config, &journal)?;

    let stats = Stats::new(clock::now_ns());
    journal.with_state(|state| stats.set_lacks_before(state));
    if was_gone {
        stats.set_journal_gone();
    }
    let (stop_sinks, sinks_stop) = watch::channel(false);
    let directory = config.data_dir.join(dead_letters::DIRECTORY);
    let dead_letters = DeadLetters::open_dir(&directory, config.dead_letters.max_bytes).map_err(Into::into);
    let dead_letters = Arc::new(last_version::told(&config.data_dir, dead_letters)?);
    last_version::note(&config.data_dir);
    stats.set_dead_letters(&dead_letters);
    let server = runtime.block_on(Server::bind(config, &journal, &stats))?;
    let (store, reports) = (Arc::clone(&dead_letters), Arc::clone(&stats));
    let server = server.with_letters(Letters { store, directory, stats: reports });
    let horizon = Arc::new(Horizon::default());
    let mut sinks = start_sinks(config, &journal, &stats, &dead_letters, &horizon, &sinks_stop)?;
    sinks.push(letters::spawn(journal.clone(), Arc::clone(&dead_letters), sinks_stop)?);
    let (machine, believed) = (clock::machine_boot(), config.clock);
    let (belief, moment) = (Box::new(move || clock::belief(believed)), Box::new(Moment::of_steady));
    let own_clock = OwnClock { machine, belief, moment };
    let ingest = Arc::new(Ingest::new(journal.clone(), Naming::new(config), Arc::clone(&stats), own_clock));
    // What an earlier life has left without a time is older than anything that comes now.
    if let Err(refused) = ingest.fix_clocks(clock::steady_ns()) {
        warn!(%refused, "rows of an earlier start wait for their time");
    }
    let clocks = Arc::new(Clocks::open(config.data_dir.join(CLOCKS), machine));
    let everything = watch::Sender::new(Offset(u64::MAX));
    let acks = match config.ack_after {
        AckAfter::Memory => everything.subscribe(),
        AckAfter::Journal => journal.watermark(),
        AckAfter::Database => horizon.subscribe(),
    };
    let context = Context {
        ingest: Arc::clone(&ingest),
        epoch: Epoch(getrandom::u32().context("the system gives no random numbers")?),
        schemas: Arc::new(Schemas::default()),
        clocks: Arc::clone(&clocks),
        births: config.data_dir.join(sparkplug::DIRECTORY),
        stats: Arc::clone(&stats),
        acks,
        // Each source is given its own.
        stop: watch::channel(false).1,
    };
    let sources = Sources::start(config, context)?;
    let reload = Reload { path: path.to_owned(), running: config.clone(), sources, token: server.token() };
    let reloader = Reloader::start(reload)?;
    let health = config.health.zip(Health::new(config, Arc::clone(&ingest), Arc::clone(&stats)));
    info!(data_dir = %config.data_dir.display(), "running");
    manager.ready(&journal);

    // Whoever asks over HTTP waits for those who read and write; a thread has a claim of its own.
    if let Err(error) = rustix::process::setpriority_process(None, HTTP_NICE) {
        debug!(%error, "the HTTP interface has the same claim on the processor as all others");
    }
    runtime.block_on(async {
        let serving = tokio::spawn(server.serve());
        let saving = tokio::spawn(save_clocks(Arc::clone(&clocks), believed));
        let fixing = tokio::spawn(fix_clocks(ingest));
        let (watcher, watched) = (Arc::clone(&manager), journal.clone());
        let watching = tokio::spawn(async move { watcher.watch(&watched).await });
        let measuring = health.map(|(interval, health)| tokio::spawn(health.run(interval)));
        let signal = run_until_stopped(&mut signals, &reloader, &manager, &journal).await;
        info!("{signal}: stopping");
        manager.stopping();
        watching.abort();
        saving.abort();
        fixing.abort();
        measuring.inspect(tokio::task::JoinHandle::abort);
        // The page and the control socket answer while the last rows are delivered.
        let stopping = tokio::task::spawn_blocking(move || {
            reloader.stop();
            clocks.save(believed_offset(believed));
            stop_sinks.send_replace(true);
            join(sinks);
            journal.close();
        });
        stopping.await.ok();
        serving.abort();
    });
    info!("stopped");
    // An audit that still counts must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}

/// Has the configuration read again as often as SIGHUP says so, until another signal says to stop: which one.
async fn run_until_stopped(
    signals: &mut Signals,
    reloader: &Reloader,
    manager: &Manager,
    journal: &Journal,
) -> &'static str {
    loop {
        match signals.next().await {
            Signal::Stop(name) => return name,
            Signal::Reload => manager.reloading(),
        }
        let done = reloader.order();
        tokio::select! {
            _ = done => manager.ready(journal),
            name = signals.stop() => return name,
        }
    }
}

/// The journal, and whether it was gone although the data directory was in use.
fn open_journal(config: &Config) -> Result<(Journal, bool)> {
    let options = Options::from(&config.journal);
    let directory = config.data_dir.join("journal");
    let was_gone = !directory.exists() && was_in_use(&config.data_dir);
    if was_gone {
        let data_dir = config.data_dir.display();
        error!(
            "there is no journal in {data_dir} although it was in use; rows that it held are lost, and nobody can count them; put it back if you have it"
        );
    }
    let (journal, report) = Journal::open_dir(&directory, &options)?;
    for (from, to) in &report.damaged {
        error!(%from, %to, "entries of the journal are damaged and lost");
    }
    Ok((journal, was_gone))
}

/// Whether a gateway has run in the directory, journal or not.
pub(crate) fn was_in_use(data_dir: &Path) -> bool {
    [client_id::FILE, last_version::FILE].iter().any(|file| data_dir.join(file).exists())
}

/// Writes down now and then where the clocks of native devices stand.
async fn save_clocks(clocks: Arc<Clocks>, believed: config::Clock) {
    loop {
        tokio::time::sleep(CLOCKS_PAUSE).await;
        let clocks = Arc::clone(&clocks);
        tokio::task::spawn_blocking(move || clocks.save(believed_offset(believed))).await.ok();
    }
}

/// What makes steady nanoseconds those since 1970, if the clock is believed.
fn believed_offset(believed: config::Clock) -> Option<i64> {
    clock::trusted(believed).then(|| Moment::now().offset_ns())
}

/// Gives early rows their time once the clock is believed.
async fn fix_clocks(ingest: Arc<Ingest>) {
    loop {
        tokio::time::sleep(FIX_PAUSE).await;
        // A journal that takes nothing now is asked again.
        if let Err(refused) = ingest.fix_clocks(clock::steady_ns()) {
            debug!(%refused, "rows wait for their time");
        }
    }
}

fn create_data_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path).with_context(|| {
        format!("data_dir {} cannot be created; create it and give it to the gateway's user", path.display())
    })?;
    // Whoever made it otherwise may have had a reason.
    if std::fs::metadata(path).is_ok_and(|data_dir| data_dir.mode() & 0o007 != 0) {
        let path = path.display();
        warn!("every user of this machine may look into data_dir {path}; run `chmod o-rwx {path}`");
    }
    Ok(())
}

/// A sink that is not configured any more would hold the journal for ever. One that has everything is forgotten; for
/// one that has not, somebody has to decide.
fn let_go_of_sinks(config: &Config, journal: &Journal) -> Result<()> {
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

fn start_sinks(
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

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic has ended the process already.
        thread.join().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::{Entry, Fields, RowEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Refused};
    use crate::record::Value;

    #[test]
    fn a_journal_that_is_gone_from_a_data_directory_in_use_is_told_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let config = config::of_text(&format!("data_dir = {:?}\n", directory.path()));
        let was_gone = || {
            let (journal, was_gone) = open_journal(&config).unwrap();
            journal.close();
            was_gone
        };
        assert!(!was_gone(), "it is a first start");
        std::fs::write(directory.path().join(client_id::FILE), "forebay-a-1").unwrap();
        assert!(!was_gone());
        std::fs::remove_dir_all(directory.path().join("journal")).unwrap();
        assert!(was_gone());
        assert!(!was_gone(), "there is a new one");
    }

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
