//! `forebay-sim demo`: every stage of the path at once, with an outage in the middle and an honest ledger at the end.
//!
//! The store is cut off for a while: the embedded one by holding its write lock, a remote one by cutting the connection
//! in front of it. One serial device is pulled out and plugged in again. At the end the rows are read back from the
//! store itself, and every row that was acknowledged must be there, once.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use forebay_tests::clock::wall_ns;
use forebay_tests::closing::Closing;
use forebay_tests::device::{Fleet, MEASUREMENTS, MqttFleet, RING_BYTES};
use forebay_tests::gateway::{Gateway, Program, Settings, round_trip_tolerance};
use forebay_tests::http::Http;
use forebay_tests::ledger::{Account, Ledger, judge};
use forebay_tests::proxy::{HttpProxy, MqttProxy};
use forebay_tests::readback::{self, Stored};
use forebay_tests::services::EmbeddedBroker;
use rusqlite::Connection;
use serde_json::Value;

/// Time between two rows of a device.
const PERIOD: Duration = Duration::from_millis(10);

/// How long the devices and the gateway may take to deliver everything after the last sample.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// What `demo` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long the devices sample
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = super::parse_duration)]
    duration: Duration,
    /// How many devices: half of them serial, half MQTT
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    devices: u16,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Store into a real database with the version 2 write API instead of the embedded one
    #[arg(long, value_name = "URL", requires_all = ["org", "bucket"])]
    influxdb_url: Option<String>,
    /// The database's organisation
    #[arg(long, requires = "influxdb_url")]
    org: Option<String>,
    /// The bucket
    #[arg(long, requires = "influxdb_url")]
    bucket: Option<String>,
    /// A file with the token that may write to and read from the bucket
    #[arg(long, value_name = "FILE", requires = "influxdb_url")]
    token_file: Option<PathBuf>,
}

/// Runs the demo; the exit status says whether the ledger balances. Its files are kept when it does not.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("forebay-demo-").tempdir()?;
    let outcome = run_in(directory.path(), options);
    if !matches!(&outcome, Ok(ledger) if is_balanced(ledger)) {
        eprintln!("the demo's files are kept in {}", directory.keep().display());
    }
    Ok(if is_balanced(&outcome?) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_in(directory: &Path, options: &Options) -> anyhow::Result<Ledger> {
    let since_ns = wall_ns();
    let broker = EmbeddedBroker::start()?;
    let proxy = MqttProxy::start(broker.port)?;
    let mut fleet = Fleet::new();
    let count = usize::from(options.devices);
    fleet.add_serial::<RING_BYTES>(&directory.join("dev"), count / 2, PERIOD)?;
    let mut store = Store::new(options)?;
    let ports = fleet.ports().map(Path::to_owned).collect();
    let settings = Settings { mqtt: Some(proxy.url()), ports, tables: store.table() };
    let program = Program::find(&std::env::current_exe()?);
    let mut gateway = Gateway::start(program, &directory.join("gateway"), &settings)?;
    proxy.wait_until_served()?;
    let mqtt = count - count / 2;
    let (host, port, json) = ("127.0.0.1".into(), broker.port, mqtt / 2);
    fleet.add_mqtt(&MqttFleet { host, port, native: mqtt - json, json, period: PERIOD })?;
    eprintln!("{} serial and {mqtt} MQTT devices, a row each every {PERIOD:?}", count / 2);

    play(options.duration, &mut store, &fleet, &proxy, &mut gateway)?;
    eprintln!("the devices have stopped; waiting until all is delivered");
    fleet.drain(Some(&proxy), DRAIN_LIMIT)?;
    gateway.drain(DRAIN_LIMIT)?;
    progress(&fleet, &gateway, Instant::now(), "");
    gateway.closes(store.closing());
    gateway.close(DRAIN_LIMIT)?;
    let truths = fleet.end()?;

    let stored = store.read(&gateway, since_ns)?;
    let ledger =
        judge(truths.iter().map(AsRef::as_ref), &stored, &round_trip_tolerance(&gateway.log_text()?));
    report(options, &ledger)?;
    Ok(ledger)
}

/// Whether everything is there, once. How exact times are depends on how long the broker inside this process keeps a busy
/// machine's packets, and is only told.
fn is_balanced(ledger: &Ledger) -> bool {
    Account { mistimed: 0, ..ledger.total.clone() }.balanced()
}

fn report(options: &Options, ledger: &Ledger) -> anyhow::Result<()> {
    eprint!("{ledger}");
    if options.json {
        println!("{}", serde_json::to_string(ledger)?);
    }
    let verdict = if is_balanced(ledger) {
        "every acked row is in the store exactly once, and produced = stored + declared gaps"
    } else {
        "the ledger does not balance"
    };
    eprintln!("{verdict}");
    if ledger.total.mistimed > 0 {
        eprintln!("times are further off than the clock exchanges allow: this machine is busy");
    }
    Ok(())
}

/// Lets the devices sample, with the store's outage from 40 % of the time on and the pulled cable from 50 % on.
fn play(
    duration: Duration,
    store: &mut Store,
    fleet: &Fleet,
    proxy: &MqttProxy,
    gateway: &mut Gateway,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let fault = (duration * 15 / 100).min(Duration::from_secs(5));
    let (cut_at, unplug_at) = (duration * 40 / 100, duration / 2);
    let mut script = [
        (cut_at, Step::CutStore),
        (unplug_at, Step::Unplug),
        (cut_at + fault, Step::MendStore),
        (unplug_at + fault, Step::PlugIn),
    ];
    script.sort_by_key(|(at, _)| *at);
    let mut script = script.into_iter().peekable();
    let (mut next_line, mut store_down, mut unplugged) = (Duration::from_secs(1), false, false);
    while start.elapsed() < duration {
        if let Some((_, step)) = script.next_if(|(at, _)| *at <= start.elapsed()) {
            eprintln!("{}", step.announcement());
            match step {
                Step::CutStore => store.cut(gateway)?,
                Step::MendStore => store.mend()?,
                Step::Unplug => fleet.serial(0).context("no serial device")?.unplug(),
                Step::PlugIn => fleet.serial(0).context("no serial device")?.plug_in(),
            }
            store_down = matches!(step, Step::CutStore) || (store_down && !matches!(step, Step::MendStore));
            unplugged = matches!(step, Step::Unplug) || (unplugged && !matches!(step, Step::PlugIn));
        }
        fleet.note_acknowledged(proxy)?;
        if start.elapsed() >= next_line {
            let what = match (store_down, unplugged) {
                (true, true) => "store down, one device unplugged",
                (true, false) => "store down",
                (false, true) => "one device unplugged",
                (false, false) => "",
            };
            progress(fleet, gateway, start, what);
            next_line += Duration::from_secs(1);
        }
        anyhow::ensure!(gateway.is_running(), "the gateway has ended:\n{}", gateway.log_text()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What happens in the middle.
#[derive(Clone, Copy, Debug)]
enum Step {
    CutStore,
    MendStore,
    Unplug,
    PlugIn,
}

impl Step {
    fn announcement(self) -> &'static str {
        match self {
            Step::CutStore => "--- the store is cut off ---",
            Step::MendStore => "--- the store is back ---",
            Step::Unplug => "--- serial-0 is unplugged ---",
            Step::PlugIn => "--- serial-0 is plugged in again ---",
        }
    }
}

/// One line: what was produced, acknowledged and stored, what is dirty, and what is declared lost.
fn progress(fleet: &Fleet, gateway: &Gateway, start: Instant, what: &str) {
    let (produced, acked) = fleet.progress();
    let Ok(status) = gateway.status() else { return eprintln!("the gateway does not answer") };
    let count = |name: &str| status.pointer(&format!("/ledger/{name}")).and_then(Value::as_u64).unwrap_or(0);
    let gaps = status.pointer("/ledger/gaps").and_then(Value::as_object);
    let gaps: u64 = gaps.map_or(0, |gaps| gaps.values().filter_map(Value::as_u64).sum());
    let dirty = count("queued") + count("unconfirmed");
    eprintln!(
        "{:>4} s  produced {produced:>8}  acked {acked:>8}  stored {:>8}  dirty {dirty:>7}  gaps {gaps:>5}  {what}",
        start.elapsed().as_secs(),
        count("confirmed"),
    );
}

/// Where the gateway stores, and how that is cut off.
#[derive(Debug)]
enum Store {
    Embedded { lock: Option<Connection> },
    Remote(Box<Remote>),
}

#[derive(Debug)]
struct Remote {
    proxy: HttpProxy,
    http: Http,
    url: String,
    org: String,
    bucket: String,
    token_file: Option<PathBuf>,
}

impl Store {
    fn new(options: &Options) -> anyhow::Result<Store> {
        let Some(url) = options.influxdb_url.as_deref() else { return Ok(Store::Embedded { lock: None }) };
        let url = url.trim_end_matches('/').to_owned();
        let authority =
            url.strip_prefix("http://").context("the demo reaches databases over http:// only")?;
        let upstream = resolve(authority)?;
        let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| file.display().to_string());
        let token = options.token_file.as_ref().map(read).transpose()?;
        Ok(Store::Remote(Box::new(Remote {
            proxy: HttpProxy::in_front_of(upstream)?,
            http: Http::with_token(token.map(|token| token.trim().to_owned()))?,
            url,
            org: options.org.clone().unwrap_or_default(),
            bucket: options.bucket.clone().unwrap_or_default(),
            token_file: options.token_file.clone(),
        })))
    }

    fn closing(&self) -> Closing {
        match self {
            Store::Embedded { .. } => Closing::Exact,
            Store::Remote(_) => {
                Closing::Unaudited("the database may hold other points, or speak no InfluxQL")
            }
        }
    }

    fn table(&self) -> String {
        match self {
            Store::Embedded { .. } => String::new(),
            Store::Remote(remote) => Settings::influxdb_2(
                &remote.proxy.url(),
                &remote.org,
                &remote.bucket,
                remote.token_file.as_deref(),
            ),
        }
    }

    fn cut(&mut self, gateway: &Gateway) -> anyhow::Result<()> {
        match self {
            Store::Embedded { lock } => {
                let store = Connection::open(gateway.sqlite_file())?;
                store.busy_timeout(Duration::from_secs(10))?;
                store.execute_batch("BEGIN IMMEDIATE").context("locking the store")?;
                *lock = Some(store);
            }
            Store::Remote(remote) => remote.proxy.cut(),
        }
        Ok(())
    }

    fn mend(&mut self) -> anyhow::Result<()> {
        match self {
            Store::Embedded { lock } => {
                if let Some(store) = lock.take() {
                    store.execute_batch("ROLLBACK")?;
                }
            }
            Store::Remote(remote) => remote.proxy.mend(),
        }
        Ok(())
    }

    /// Reads back from the store itself.
    fn read(&self, gateway: &Gateway, since_ns: i64) -> anyhow::Result<Stored> {
        match self {
            Store::Embedded { .. } => readback::sqlite::read(&gateway.sqlite_file()),
            Store::Remote(remote) => {
                let Remote { http, url, bucket, .. } = &**remote;
                let metrics = http.get(&format!("{url}/metrics"));
                if metrics.is_ok_and(|answer| answer.body.contains("vm_app_version")) {
                    readback::victoria::read(http, url, &MEASUREMENTS, since_ns)
                } else {
                    readback::influxql::read(http, url, bucket, &MEASUREMENTS, since_ns)
                }
            }
        }
    }
}

fn resolve(authority: &str) -> anyhow::Result<SocketAddr> {
    let host = authority.split('/').next().unwrap_or_default();
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = with_port.to_socket_addrs().with_context(|| format!("looking up {host}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}
