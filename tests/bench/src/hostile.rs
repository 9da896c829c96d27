//! The benchmark `hostile`: what attacks do to the acks of others.
//!
//! A gateway gets [`PACE`] messages a second from a broker of ours that knows when it sent each and when its ack came. Before
//! each attack the same is measured without one, and each attack begins while it goes on. Those over HTTP are of
//! `forebay_tests::hostile`; a device behind a second broker publishes what nobody can read as fast as it is acked, and
//! one on a serial line sends bytes without sense at the line's rate. Attackers give way to the gateway wherever they want the
//! processor at the same time, since theirs would be another machine's; what the kernel does for them costs this one.

mod device;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use forebay_tests::closing::Closing;
use forebay_tests::gateway::{Gateway, Program, Settings};
use forebay_tests::hostile::{Attack, Kind};
use serde::Serialize;

use crate::cli::Common;
use crate::device::Device;
use crate::modes::broker::{Broker, Session};
use crate::mqtt::load::Load;
use crate::process::Machine;
use crate::progress;
use crate::statistics::Latency;

/// Messages a second of those who mean no harm.
const PACE: u64 = 500;

/// Messages of theirs that may be in flight: as many as they want.
const WINDOW: u64 = 10_000;

/// How long an attack goes on before it is measured.
const AHEAD: Duration = Duration::from_secs(1);

/// The gateway's token, which no attacker has.
const TOKEN: &str = "the-token-of-the-benchmark-0123456789";

/// Who means harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Attacker {
    Slowloris,
    HugeHeaders,
    Connections,
    WrongTokens,
    MqttGarbage,
    SerialGarbage,
}

const ATTACKERS: [Attacker; 6] = [
    Attacker::Slowloris,
    Attacker::HugeHeaders,
    Attacker::Connections,
    Attacker::WrongTokens,
    Attacker::MqttGarbage,
    Attacker::SerialGarbage,
];

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    seconds: u64,
}

/// What came of one attack, and of the time before it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    attacker: Attacker,
    alone: Latency,
    attacked: Latency,
    /// Connections, messages or bytes of the attacker.
    attempts: u64,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    let mut machine = Machine::look();
    let mut outcomes = Vec::new();
    let disk = Device::plain(&common.directory()?)?;
    for run in 1..=plan.runs {
        let directory = disk.fresh()?;
        let mut site = Site::start(directory.path(), &plan)?;
        for attacker in ATTACKERS {
            progress!("run {run} of {}: {}", plan.runs, attacker.name());
            outcomes.push(site.measure(attacker, &plan)?);
        }
        site.end()?;
    }
    machine.look_again();
    report::Report::new(&plan, machine, &outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let (runs, seconds) = if common.quick { (1, 1) } else { (5, 5) };
        Plan { runs: common.runs().unwrap_or(runs), seconds }
    }

    fn messages(&self) -> u64 {
        self.seconds * PACE
    }
}

impl Attacker {
    fn name(self) -> &'static str {
        match self {
            Attacker::Slowloris => "slowloris",
            Attacker::HugeHeaders => "huge headers",
            Attacker::Connections => "10,000 connections",
            Attacker::WrongTokens => "wrong tokens",
            Attacker::MqttGarbage => "garbage by MQTT",
            Attacker::SerialGarbage => "garbage by serial",
        }
    }

    fn http(self) -> Option<Kind> {
        match self {
            Attacker::Slowloris => Some(Kind::Slowloris),
            Attacker::HugeHeaders => Some(Kind::HugeHeaders),
            Attacker::Connections => Some(Kind::Connections),
            Attacker::WrongTokens => Some(Kind::WrongTokens),
            Attacker::MqttGarbage | Attacker::SerialGarbage => None,
        }
    }
}

/// A gateway with a good broker, a bad one, and a bad serial line.
struct Site {
    gateway: Gateway,
    _brokers: [Broker; 2],
    good: Session,
    bad: Option<Session>,
    garbage: Load,
    line: Option<forebay_tests::pty::Line>,
    load: Load,
    next: u64,
}

impl Site {
    fn start(directory: &Path, plan: &Plan) -> Result<Site> {
        let mut brokers = [Broker::open()?, Broker::open()?];
        let line = forebay_tests::pty::Line::plug_in(&directory.join("port"))?;
        let subscribe = "native = false\n[[mqtt.subscribe]]\ntopic = \"sensors/{device}/{room}\"\n\
                         format = \"json\"\nmeasurement = \"weather\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ms\"\n";
        let mqtt =
            |broker: &Broker| format!("[[mqtt]]\nurl = \"mqtt://127.0.0.1:{}\"\n{subscribe}", broker.port);
        let tables = format!("{}{}", mqtt(&brokers[0]), mqtt(&brokers[1]));
        let settings = Settings { ports: vec![line.link().to_owned()], tables, ..Settings::default() };
        let program = Program::find(Path::new("forebay-sim"));
        let mut gateway = Gateway::configure(program, &directory.join("gateway"), &settings)?;
        gateway.require_token(TOKEN)?;
        gateway.closes(Closing::Unaudited("only acks are measured"));
        gateway.launch()?;
        let good = brokers[0].accept()?;
        let bad = Some(brokers[1].accept()?);
        gateway.await_ready()?;
        let load = Load::new(2 * plan.messages() * ATTACKERS.len() as u64, true)?;
        let garbage = device::garbage()?;
        Ok(Site { gateway, _brokers: brokers, good, bad, garbage, line: Some(line), load, next: 1 })
    }

    fn measure(&mut self, attacker: Attacker, plan: &Plan) -> Result<Outcome> {
        let alone = self.acks(plan)?;
        let (attacked, attempts) = if let Some(kind) = attacker.http() {
            let attack = Attack::start(kind, self.gateway.http_address())?;
            thread::sleep(AHEAD);
            let attacked = self.acks(plan)?;
            (attacked, attack.end()?.opened.load(Ordering::Relaxed))
        } else {
            let over = Arc::new(AtomicBool::new(false));
            let device = match attacker {
                Attacker::SerialGarbage => device::on_line(self.line.take().context("no line")?, &over)?,
                _ => device::at_broker(self.bad.take().context("no broker")?, &self.garbage, &over)?,
            };
            thread::sleep(AHEAD);
            let attacked = self.acks(plan)?;
            over.store(true, Ordering::Relaxed);
            (attacked, device.join().map_err(|_| anyhow!("the hostile device has panicked"))??)
        };
        ensure!(attempts > 0, "{} did nothing", attacker.name());
        Ok(Outcome { attacker, alone, attacked, attempts })
    }

    fn acks(&mut self, plan: &Plan) -> Result<Latency> {
        let numbers = self.next..=self.next + plan.messages() - 1;
        self.next = numbers.end() + 1;
        Ok(Latency::of(&mut self.good.publish(&self.load, numbers, Some(PACE), WINDOW)?.latencies))
    }

    fn end(mut self) -> Result<()> {
        let status = self.gateway.terminate()?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}
