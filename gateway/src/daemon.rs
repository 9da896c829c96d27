//! The daemon: puts the stages together, and takes them down in the order in which readings flow.
//!
//! Start: journal (recovery), sinks, HTTP, sources. Stop, at SIGTERM or SIGINT: sources take nothing more and send the
//! acks of what was committed; the journal commits; sinks deliver what is committed, as long as their databases take
//! it and for at most [`sinks::DRAIN`]; the journal closes. What is left is delivered by the next start.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use forebay_shared::ids::Epoch;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::clock::{self, Moment};
use crate::config::{self, AckAfter, Config};
use crate::dead_letters::{self, DeadLetters};
use crate::delivery::horizon::Horizon;
use crate::delivery::letters;
use crate::harden;
use crate::health::Health;
use crate::http::{Letters, Server};
use crate::ingest::identity::Naming;
use crate::ingest::{Ingest, OwnClock};
use crate::journal::{Journal, Options};
use crate::raw;
use crate::record::Offset;
use crate::source::native::{Clocks, Schemas};
use crate::source::{Context, sparkplug};
use crate::stats::{Machine, Stats};
use crate::systemd::Manager;
use reload::{Reload, Reloader};
use signals::{Signal, Signals};
use sinks::{let_go_of_sinks, start_sinks};
use sources::Sources;

mod client_id;
mod last_version;
mod reload;
mod signals;
mod sinks;
mod sources;

pub use client_id::kept as kept_client_id;
pub(crate) use sinks::lacks_rows;

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

/// How long a start takes, with the first connections to brokers and databases.
const START: Duration = Duration::from_secs(2);

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
    let gateway = Gateway::start(path, config, &runtime)?;
    manager.ready(&gateway.journal);
    // Whoever asks over HTTP waits for those who read and write; a thread has a claim of its own.
    if let Err(error) = rustix::process::setpriority_process(None, HTTP_NICE) {
        debug!(%error, "the HTTP interface has the same claim on the processor as all others");
    }
    runtime.block_on(gateway.serve(&mut signals, &manager));
    info!("stopped");
    // An audit that still counts must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}

/// All stages, at work.
struct Gateway {
    journal: Journal,
    ingest: Arc<Ingest>,
    clocks: Arc<Clocks>,
    /// What the configuration says of the clock.
    believed: config::Clock,
    server: Server,
    health: Option<(Duration, Health)>,
    /// Stops the sources, and before that starts them anew at SIGHUP.
    reloader: Reloader,
    /// Delivery to each database, and to the dead letters.
    sinks: Vec<JoinHandle<()>>,
    stop_sinks: watch::Sender<bool>,
    /// What acks go by where that is not the journal's watermark: whoever waits for news of it must not find it closed.
    goals: (watch::Sender<Offset>, Arc<Horizon>),
}

impl Gateway {
    /// Starts the stages against the direction in which readings flow.
    fn start(path: &Path, config: &Config, runtime: &Runtime) -> Result<Gateway> {
        create_data_dir(&config.data_dir)?;
        let (journal, was_gone) = last_version::told(&config.data_dir, open_journal(config))?;
        let config = &journal.with_state(|state| config.beside(state.sinks().iter().map(|sink| &*sink.name)));
        let_go_of_sinks(config, &journal)?;

        let stats = Stats::new(clock::now_ns());
        journal.with_state(|state| stats.set_lacks_before(state));
        if was_gone {
            stats.set_journal_gone();
        }
        let directory = config.data_dir.join(dead_letters::DIRECTORY);
        let dead_letters =
            DeadLetters::open_dir(&directory, config.dead_letters.max_bytes).map_err(Into::into);
        let dead_letters = Arc::new(last_version::told(&config.data_dir, dead_letters)?);
        last_version::note(&config.data_dir);
        stats.set_dead_letters(&dead_letters);
        let server = runtime.block_on(Server::bind(config, &journal, &stats))?;
        let (store, reports) = (Arc::clone(&dead_letters), Arc::clone(&stats));
        let server = server.with_letters(Letters { store, directory, stats: reports });

        let horizon = Arc::new(Horizon::default());
        let (stop_sinks, sinks_stop) = watch::channel(false);
        let mut sinks = start_sinks(config, &journal, &stats, &dead_letters, &horizon, &sinks_stop)?;
        sinks.push(letters::spawn(journal.clone(), dead_letters, sinks_stop)?);

        let ingest = ingest_of(config, &journal, &stats);
        let clocks = Arc::new(Clocks::open(config.data_dir.join(CLOCKS), clock::machine_boot()));
        let everything = watch::Sender::new(Offset(u64::MAX));
        let context = Context {
            ingest: Arc::clone(&ingest),
            epoch: Epoch(getrandom::u32().context("the system gives no random numbers")?),
            schemas: Arc::new(Schemas::default()),
            clocks: Arc::clone(&clocks),
            births: config.data_dir.join(sparkplug::DIRECTORY),
            stats: Arc::clone(&stats),
            acks: match config.ack_after {
                AckAfter::Memory => everything.subscribe(),
                AckAfter::Journal => journal.watermark(),
                AckAfter::Database => horizon.subscribe(),
            },
            // Each source is given its own.
            stop: watch::channel(false).1,
        };
        let sources = Sources::start(config, context)?;
        let reload =
            Reload { path: path.to_owned(), running: config.clone(), sources, token: server.token() };
        let reloader = Reloader::start(reload)?;
        let health = config.health.zip(Health::new(config, Arc::clone(&ingest), stats));
        info!(data_dir = %config.data_dir.display(), "running");
        let believed = config.clock;
        let goals = (everything, horizon);
        Ok(Gateway { journal, ingest, clocks, believed, server, health, reloader, sinks, stop_sinks, goals })
    }

    /// Answers over HTTP and does what is due now and then, until a signal says to stop; then stops the stages in the
    /// order in which readings flow.
    async fn serve(self, signals: &mut Signals, manager: &Arc<Manager>) {
        let Gateway { journal, ingest, clocks, believed, server, health, reloader, sinks, stop_sinks, goals } =
            self;
        let serving = tokio::spawn(server.serve());
        let saving = tokio::spawn(save_clocks(Arc::clone(&clocks), believed));
        let fixing = tokio::spawn(fix_clocks(ingest));
        tokio::spawn(async {
            tokio::time::sleep(START).await;
            raw::let_go_of_start();
        });
        let (watcher, watched) = (Arc::clone(manager), journal.clone());
        let watching = tokio::spawn(async move { watcher.watch(&watched).await });
        let measuring = health.map(|(interval, health)| tokio::spawn(health.run(interval)));
        let signal = run_until_stopped(signals, &reloader, manager, &journal).await;
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
        drop(goals);
        serving.abort();
    }
}

/// Intake, which has given all rows of an earlier life their time that can have it.
fn ingest_of(config: &Config, journal: &Journal, stats: &Arc<Stats>) -> Arc<Ingest> {
    let believed = config.clock;
    let (belief, moment) = (Box::new(move || clock::belief(believed)), Box::new(Moment::of_steady));
    let own_clock = OwnClock { machine: clock::machine_boot(), belief, moment };
    let ingest = Ingest::new(journal.clone(), Naming::new(config), Arc::clone(stats), own_clock);
    // What an earlier life has left without a time is older than anything that comes now.
    if let Err(refused) = ingest.fix_clocks(clock::steady_ns()) {
        warn!(%refused, "rows of an earlier start wait for their time");
    }
    Arc::new(ingest)
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

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic has ended the process already.
        thread.join().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
