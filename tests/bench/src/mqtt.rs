//! The benchmark `mqtt`: how much the gateway takes from a broker, and what a message costs it.
//!
//! * Throughput: messages acked a second, each after the fdatasync of its journal, beside a subscriber with rumqttc that
//!   acks and keeps nothing (`subscriber.rs`), taking turns on brokers of the same settings. Two loads: *live*, a publisher
//!   at full speed while the subscriber is there, which is what the bar is about; and *queued*, messages that have waited in
//!   the session, where the broker has nothing else to do, so that it is the fastest that a broker can be.
//! * Cost: the gateway's processor time, memory and bytes while messages go through it into a real database, from ready
//!   until all of them are delivered.
//!
//! `max_inflight_messages` is what the broker is told, and no more than that: mosquitto 2.0.11 forgets the limit for messages
//! that have queued. Everything runs on this machine: broker, publisher, database and whoever is measured share its cores.

pub(crate) mod load;
mod ours;
mod report;
mod subscriber;

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use forebay_tests::services::{InfluxDb, Mosquitto, VictoriaMetrics};
use serde::Serialize;

use crate::cli::Common;
use crate::device::Device;
use crate::process::{Machine, Spent};
use crate::progress;
use load::Load;
use ours::{LOOK_OFTEN, LOOK_SELDOM, NO_SINK, Ours};
use subscriber::Subscribed;

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    /// Of a throughput measurement with 1,000 in flight; a quarter of it with 20.
    messages: u64,
    /// Of a cost measurement at full speed.
    delivered_messages: u64,
    /// Of a cost measurement at [`PACE`], in seconds.
    paced_s: u64,
}

/// One way to measure throughput.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Case {
    /// mosquitto's `max_inflight_messages`.
    in_flight: u64,
    /// Whether messages have a timestamp of their own.
    dated: bool,
    /// Whether they are published while the subscriber is there.
    live: bool,
}

const CASES: [Case; 5] = [
    Case { in_flight: 1_000, dated: true, live: true },
    Case { in_flight: 1_000, dated: false, live: true },
    Case { in_flight: 1_000, dated: true, live: false },
    Case { in_flight: 1_000, dated: false, live: false },
    Case { in_flight: 20, dated: true, live: true },
];

/// What came of one run of a case.
#[derive(Clone, Copy, Debug, Serialize)]
struct Throughput {
    ours_per_s: f64,
    rumqttc_per_s: f64,
    rumqttc_cpu_us: f64,
    /// What the broker itself spent on a message, with rumqttc.
    broker_cpu_us: f64,
}

/// Where messages are delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
enum Database {
    Victoria,
    Influx1,
}

/// One way to measure what a message costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Way {
    database: Database,
    dated: bool,
    /// At full speed, unless it is at [`PACE`].
    paced: bool,
}

const WAYS: [Way; 4] = [
    Way { database: Database::Victoria, dated: true, paced: false },
    Way { database: Database::Victoria, dated: false, paced: false },
    Way { database: Database::Influx1, dated: true, paced: false },
    Way { database: Database::Victoria, dated: true, paced: true },
];

/// Messages a second of a calm load.
const PACE: u64 = 2_000;

/// What one run of a way cost; a message, where nothing else is said.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    acked_per_s: f64,
    user_us: f64,
    system_us: f64,
    journal_bytes: f64,
    messages_per_commit: f64,
    peak_rss_mib: f64,
    broker_cpu_us: f64,
}

/// All outcomes, in the order of the runs.
#[derive(Debug, Default)]
struct Outcomes {
    throughput: Vec<(Case, Throughput)>,
    costs: Vec<(Way, Cost)>,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common, cost_only: bool, messages: Option<u64>) -> Result<bool> {
    let plan = Plan::of(common, messages);
    let mut machine = Machine::look();
    let mut outcomes = Outcomes::default();
    let disk = Device::plain(&common.directory()?)?;
    for run in 1..=plan.runs {
        // One of each kind shows that the benchmark works.
        let is_wanted = |dated: bool| dated || !common.quick;
        for case in CASES.into_iter().filter(|case| !cost_only && is_wanted(case.dated)) {
            progress!("throughput, run {run} of {}: {}", plan.runs, case.name());
            let directory = disk.fresh()?;
            // Who goes first changes, so that nobody always meets the quieter disk.
            let outcome = case.measure(directory.path(), &plan, run % 2 == 0)?;
            outcomes.throughput.push((case, outcome));
        }
        for way in WAYS.into_iter().filter(|way| is_wanted(way.dated)) {
            progress!("cost, run {run} of {}: {}", plan.runs, way.name());
            let directory = disk.fresh()?;
            outcomes.costs.push((way, way.measure(directory.path(), &plan)?));
        }
    }
    machine.look_again();
    report::Report::new(&plan, machine, &outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common, messages: Option<u64>) -> Plan {
        let plan = if common.quick {
            Plan { runs: 1, messages: 20_000, delivered_messages: 20_000, paced_s: 1 }
        } else {
            Plan { runs: 5, messages: 200_000, delivered_messages: 300_000, paced_s: 10 }
        };
        Plan {
            runs: common.runs().unwrap_or(plan.runs),
            delivered_messages: messages.unwrap_or(plan.delivered_messages),
            ..plan
        }
    }
}

impl Case {
    fn name(self) -> String {
        let load = if self.live { "live" } else { "queued" };
        format!("{load}, {}, {} in flight", time_of(self.dated), self.in_flight)
    }

    fn measure(self, directory: &Path, plan: &Plan, ours_first: bool) -> Result<Throughput> {
        let messages = if self.in_flight >= 1_000 { plan.messages } else { plan.messages / 4 };
        let load = Load::new(messages, self.dated)?;
        let before = if ours_first { Some(self.ours(&directory.join("ours"), &load)?) } else { None };
        let (beside, broker) = self.rumqttc(&directory.join("rumqttc"), &load)?;
        let ours_per_s = match before {
            Some(rate) => rate,
            None => self.ours(&directory.join("ours"), &load)?,
        };
        Ok(Throughput {
            ours_per_s,
            rumqttc_per_s: beside.messages_per_s,
            rumqttc_cpu_us: beside.cpu_s * 1e6 / messages as f64,
            broker_cpu_us: broker.cpu_s() * 1e6 / messages as f64,
        })
    }

    fn ours(self, directory: &Path, load: &Load) -> Result<f64> {
        let broker = broker(directory, self.in_flight)?;
        let mut ours = Ours::start(&directory.join("gateway"), &broker, NO_SINK, self.dated)?;
        if self.live {
            return live(&ours, load, broker.port, None, LOOK_OFTEN);
        }
        ours.stop()?;
        load.publish(broker.port, None)?;
        ours.resume()?;
        ours.acks(load.messages(), LOOK_OFTEN)
    }

    fn rumqttc(self, directory: &Path, load: &Load) -> Result<(Subscribed, Spent)> {
        const CLIENT_ID: &str = "forebay-bench-rumqttc";
        let broker = broker(directory, self.in_flight)?;
        let port = broker.port;
        load::begin_session(port, CLIENT_ID)?;
        if !self.live {
            load.publish(port, None)?;
        }
        let before = spent_by(&broker)?;
        let messages = load.messages();
        let (connected, is_connected) = sync_channel(1);
        let subscribed = thread::scope(|scope| {
            let subscriber = scope.spawn(move || subscriber::run(port, CLIENT_ID, messages, &connected));
            if self.live && is_connected.recv().is_ok() {
                load.publish(port, None)?;
            }
            subscriber.join().map_err(|_| anyhow!("the subscriber panicked"))?
        })?;
        Ok((subscribed, spent_by(&broker)?.since(&before)))
    }
}

impl Way {
    fn name(self) -> String {
        let database = match self.database {
            Database::Victoria => "VictoriaMetrics",
            Database::Influx1 => "InfluxDB 1",
        };
        let pace = if self.paced { format!("{PACE}/s") } else { "full speed".into() };
        format!("{database}, {}, {pace}", time_of(self.dated))
    }

    fn measure(self, directory: &Path, plan: &Plan) -> Result<Cost> {
        let store = directory.join("database");
        match self.database {
            Database::Victoria => {
                let victoria = VictoriaMetrics::start(&store, false)?;
                let sink =
                    format!("version = 2\norg = \"o\"\nbucket = \"b\"\nurl = \"{}\"\n", victoria.url());
                self.measure_with(directory, plan, &sink)
            }
            Database::Influx1 => {
                let influx = InfluxDb::start(&store)?;
                let database = InfluxDb::DATABASE;
                let sink = format!("version = 1\ndatabase = \"{database}\"\nurl = \"{}\"\n", influx.url());
                self.measure_with(directory, plan, &sink)
            }
        }
    }

    fn measure_with(self, directory: &Path, plan: &Plan, sink: &str) -> Result<Cost> {
        let messages = if self.paced { PACE * plan.paced_s } else { plan.delivered_messages };
        let load = Load::new(messages, self.dated)?;
        let broker = broker(&directory.join("broker"), 1_000)?;
        let sink = format!("[[influxdb]]\n{sink}");
        let ours = Ours::start(&directory.join("gateway"), &broker, &sink, self.dated)?;
        ours.deliver()?;
        let before = ours.counters()?;
        let (spent_before, broker_before) = (before.spent()?, spent_by(&broker)?);
        let acked_per_s = live(&ours, &load, broker.port, self.paced.then_some(PACE), LOOK_SELDOM)?;
        ours.deliver()?;
        let (spent, after) = (before.spent()?.since(&spent_before), ours.counters()?);
        let each = |total: f64| total / messages as f64;
        Ok(Cost {
            acked_per_s,
            user_us: each(spent.user_s * 1e6),
            system_us: each(spent.system_s * 1e6),
            journal_bytes: each((after.journal_bytes - before.journal_bytes) as f64),
            messages_per_commit: messages as f64 / (after.commits - before.commits) as f64,
            peak_rss_mib: spent.peak_rss_mib,
            broker_cpu_us: each(spent_by(&broker)?.since(&broker_before).cpu_s() * 1e6),
        })
    }
}

impl Cost {
    fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Publishes while the gateway is there; messages acked a second.
fn live(ours: &Ours, load: &Load, port: u16, rate: Option<u64>, look_every: Duration) -> Result<f64> {
    let until = ours.counters()?.acked() + load.messages();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| load.publish(port, rate));
        let acked = ours.acks(until, look_every);
        publisher.join().map_err(|_| anyhow!("the publisher panicked"))??;
        acked
    })
}

fn broker(directory: &Path, in_flight: u64) -> Result<Mosquitto> {
    let lines = format!("max_inflight_messages {in_flight}\nmax_queued_messages 0\nmax_queued_bytes 0\n");
    Mosquitto::start_with(directory, &lines)
}

fn spent_by(broker: &Mosquitto) -> Result<Spent> {
    Spent::by(broker.id().context("the broker is not running")?)
}

fn time_of(dated: bool) -> &'static str {
    if dated { "own timestamp" } else { "no timestamp" }
}
