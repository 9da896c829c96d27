//! `forebay-sim devices`: a fleet of simulated devices, against any gateway and broker, on lines as bad as one likes.
//!
//! Devices run in two event loops, one for serial lines and one for the broker, and keep counts instead of logs, so that
//! a run may last for any time. At its end the devices get `--drain` to deliver what is left; what they sampled must be
//! acknowledged or declared lost by then.

mod options;
mod ports;
mod report;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forebay_tests::device::{Fleet, MqttFleet, RING_BYTES};
use forebay_tests::process::allow_files;
use forebay_tests::seed;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use options::Options;
use ports::Ports;
use report::Report;

/// How often the devices are looked at; a line of progress comes once a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Files that the process has open besides those of its devices.
const FILES_BESIDES: u64 = 64;

/// How long a broker is waited for before it is said that there is none.
const BROKER_LIMIT: Duration = Duration::from_secs(2);

/// Runs the devices and says once a second how they are doing.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let faults = options.faults(seed(options)?)?;
    let devices = options.check()?;
    allow_files(FILES_BESIDES + 2 * options.serial + options.mqtt + options.mqtt_json)
        .with_context(|| format!("{devices} devices are too many here"))?;
    let mut fleet = Fleet::endless(faults.clone());
    let _ports = add_serial(&mut fleet, options)?;
    add_mqtt(&mut fleet, options)?;
    eprintln!("seed {}; a row of each device every {:?}", faults.seed, options.every);

    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Run { options, fleet: &fleet, start }.to_the_end())?;
    let report = Report::new(&fleet, &faults, start.elapsed());
    // What a device failed of is the better reason.
    fleet.end()?;
    report.print(options)?;
    Ok(if report.is_settled() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seed that was asked for, or one of this run.
fn seed(options: &Options) -> anyhow::Result<u64> {
    options.seed().map_or_else(seed::random, Ok)
}

fn add_serial(fleet: &mut Fleet, options: &Options) -> anyhow::Result<Option<Ports>> {
    if options.serial == 0 {
        return Ok(None);
    }
    let ports = Ports::take(options.ports())?;
    fleet.add_serial::<RING_BYTES>(ports.directory(), usize::try_from(options.serial)?, options.every)?;
    eprintln!(
        "{} serial devices; the gateway finds them all with\n\n{}",
        options.serial,
        ports.configuration()
    );
    Ok(Some(ports))
}

fn add_mqtt(fleet: &mut Fleet, options: &Options) -> anyhow::Result<()> {
    let (native, json) = (usize::try_from(options.mqtt)?, usize::try_from(options.mqtt_json)?);
    if native + json == 0 {
        return Ok(());
    }
    let broker = resolve(&options.broker)?;
    if TcpStream::connect_timeout(&broker, BROKER_LIMIT).is_err() {
        eprintln!(
            "no broker answers at {}; start one, or name it with --broker; the devices keep trying",
            options.broker
        );
    }
    eprintln!("{} MQTT devices at {}", native + json, options.broker);
    let (host, port) = (broker.ip().to_string(), broker.port());
    fleet.add_mqtt(&MqttFleet { host, port, native, json, period: options.every })
}

/// The broker's address, looked up once instead of by every device.
fn resolve(url: &str) -> anyhow::Result<SocketAddr> {
    let (host, port) = super::parse_broker(url)?;
    let unknown = || format!("--broker {url}: no address of {host}; correct the name, or write its address");
    let mut addresses = (host.as_str(), port).to_socket_addrs().with_context(unknown)?;
    addresses.next().with_context(unknown)
}

/// A run of the fleet.
struct Run<'a> {
    options: &'a Options,
    fleet: &'a Fleet,
    start: Instant,
}

impl Run<'_> {
    /// Lets the devices sample for as long as they are to, or until somebody interrupts, and then deliver what is left.
    async fn to_the_end(&self) -> anyhow::Result<()> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let end = self.options.duration.and_then(|duration| self.start.checked_add(duration));
        self.until(end, &mut interrupt, &mut terminate, |_| false).await;
        self.fleet.stop_sampling();
        eprintln!(
            "the devices sample no more; waiting up to {:?} until all is delivered (interrupt again to leave it)",
            self.options.drain
        );
        // What a device was sampling at that moment is counted within its next step.
        tokio::time::sleep(LOOK_EVERY).await;
        let end = Instant::now().checked_add(self.options.drain);
        self.until(end, &mut interrupt, &mut terminate, |fleet| fleet.tally().unsettled == 0).await;
        Ok(())
    }

    /// Says how it goes until the end, a signal, a device that failed, or `is_done`.
    async fn until(
        &self,
        end: Option<Instant>,
        interrupt: &mut Signal,
        terminate: &mut Signal,
        is_done: impl Fn(&Fleet) -> bool,
    ) {
        let mut next_line = Instant::now() + Duration::from_secs(1);
        while end.is_none_or(|end| Instant::now() < end) && self.fleet.is_running() && !is_done(self.fleet) {
            if Instant::now() >= next_line {
                report::progress(self.fleet, self.start);
                next_line += Duration::from_secs(1);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = interrupt.recv() => return,
                _ = terminate.recv() => return,
            }
        }
    }
}
