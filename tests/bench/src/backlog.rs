//! The benchmark `backlog`: what a database gets when it comes back.
//!
//! * *Drain:* a backlog that spans a day of readings, beside a bare client that loads the same lines: batches of the same
//!   size, one in flight, compressed as it goes, through the same relay.
//! * *Live:* the same while [`LIVE_PACE`] messages a second come in, with `live_first`: how soon is each in the database?
//! * *Outage:* [`OUTAGE_PACE`] messages a second, which go on when the database comes back: how long until it has all of
//!   those that it missed?

mod bulk;
mod report;

use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use forebay_tests::gateway::{Gateway, Program, Settings};
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::proxy::HttpProxy;
use forebay_tests::services::InfluxDb;
use serde::Serialize;

use crate::cli::Common;
use crate::device::Device;
use crate::modes::broker::{Broker, Session};
use crate::mqtt::load::{Load, Message};
use crate::process::Machine;
use crate::progress;
use crate::statistics::quantile;
use bulk::Bulk;

/// Points in a batch, of the gateway and of the bare client.
const BATCH: usize = 5_000;
/// Messages a second that come in while a backlog drains.
const LIVE_PACE: u64 = 200;
/// Messages a second through an outage.
const OUTAGE_PACE: u64 = 2_000;
/// Messages that the broker has in flight.
const WINDOW: u64 = 2_000;
/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;
/// How often the database is asked what it has.
const LOOK: Duration = Duration::from_millis(50);
/// The longest wait for the database to have everything.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    runs: usize,
    messages: u64,
    outage_s: u64,
}

/// What came of one run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    /// Rows a second into the database: by the bare client, and by the gateway from the moment of the return on.
    bare_per_s: f64,
    drained_per_s: f64,
    /// The same while live messages came in, and how many of these came before its end.
    beside_live_per_s: f64,
    live: u64,
    /// From publishing to being found in the database.
    live_p50_s: f64,
    live_p95_s: f64,
    live_max_s: f64,
    /// From the return of the database until it had what it missed, and what the bare client took for the same.
    caught_up_s: f64,
    outage_bare_s: f64,
}

/// Runs the benchmark; whether every bar was met.
pub(crate) fn run(common: &Common) -> Result<bool> {
    let plan = Plan::of(common);
    let mut machine = Machine::look();
    let disk = Device::plain(&common.directory()?)?;
    let mut outcomes = Vec::new();
    for run in 1..=plan.runs {
        let directory = disk.fresh()?;
        outcomes.push(Bench::start(directory.path(), &plan)?.measure(&plan, run)?);
    }
    machine.look_again();
    report::Report::new(&plan, machine, outcomes).publish(common)
}

impl Plan {
    fn of(common: &Common) -> Plan {
        let plan = if common.quick {
            Plan { runs: 1, messages: 60_000, outage_s: 4 }
        } else {
            Plan { runs: 3, messages: 1_000_000, outage_s: 60 }
        };
        Plan { runs: common.runs().unwrap_or(plan.runs), ..plan }
    }

    /// Live messages, enough for a drain of a tenth of the speed that is hoped for.
    fn live_messages(&self) -> u64 {
        LIVE_PACE * (2 + self.messages / 10_000)
    }

    fn outage_messages(&self) -> u64 {
        OUTAGE_PACE * self.outage_s
    }

    /// The numbers of the messages of each part.
    fn parts(&self) -> [RangeInclusive<u64>; 5] {
        let mut next = 1;
        let after = OUTAGE_PACE * 10;
        [self.messages, self.messages, self.live_messages(), self.outage_messages(), after].map(|count| {
            let from = next;
            next += count;
            from..=next - 1
        })
    }
}

/// A broker, a gateway and a database that can be cut off.
struct Bench {
    database: InfluxDb,
    relay: HttpProxy,
    gateway: Gateway,
    session: Session,
    load: Load,
    now_ms: u64,
    http: Http,
}

impl Bench {
    fn start(directory: &Path, plan: &Plan) -> Result<Bench> {
        let database = InfluxDb::start(&directory.join("database"))?;
        let port = database.url().rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
        let relay = HttpProxy::start(port)?;
        let mut broker = Broker::open()?;
        let gateway = gateway(directory, broker.port, &relay)?;
        let now_ms = forebay_gateway::clock::now_ns() as u64 / 1_000_000;
        let load = Load::of(messages(plan, now_ms));
        let session = broker.accept()?;
        Ok(Bench { database, relay, gateway, session, load, now_ms, http: Http::new()? })
    }

    fn measure(mut self, plan: &Plan, run: usize) -> Result<Outcome> {
        let [drained, beside, live, missed, after] = plan.parts();

        progress!("run {run} of {}: the bare client loads {} points", plan.runs, plan.messages);
        let bare = self.bulk("bare", plan, drained.clone())?;

        progress!("run {run} of {}: a backlog drains", plan.runs);
        self.relay.cut();
        self.session.publish(&self.load, drained, None, WINDOW)?;
        let drain = self.return_and_drain()?;

        progress!("run {run} of {}: a backlog drains while messages come in", plan.runs);
        self.relay.cut();
        self.session.publish(&self.load, beside, None, WINDOW)?;
        let (beside_live, mut latencies) = self.drain_beside_live(live)?;
        let live = latencies.len() as u64;

        progress!("run {run} of {}: an outage of {} s", plan.runs, plan.outage_s);
        self.relay.cut();
        self.session.publish(&self.load, missed.clone(), Some(OUTAGE_PACE), WINDOW)?;
        let caught_up = self.catch_up(missed.clone(), after)?;
        self.gateway.drain(DRAIN_LIMIT)?;
        let outage_bare = self.bulk("bare2", plan, missed)?;

        let per_s = |took: Duration| plan.messages as f64 / took.as_secs_f64();
        Ok(Outcome {
            bare_per_s: per_s(bare),
            drained_per_s: per_s(drain),
            beside_live_per_s: per_s(beside_live),
            live,
            live_p50_s: quantile(&mut latencies, 0.5).as_secs_f64(),
            live_p95_s: quantile(&mut latencies, 0.95).as_secs_f64(),
            live_max_s: quantile(&mut latencies, 1.0).as_secs_f64(),
            caught_up_s: caught_up.as_secs_f64(),
            outage_bare_s: outage_bare.as_secs_f64(),
        })
    }

    /// How long the bare client takes for the points of some messages, in a database of its own.
    fn bulk(&self, name: &str, plan: &Plan, numbers: RangeInclusive<u64>) -> Result<Duration> {
        let create = percent_encode(&format!("CREATE DATABASE {name}"));
        let url = format!("{}/query?q={create}", self.database.url());
        self.http.post(&url, "text/plain", String::new())?.successful("CREATE DATABASE")?;
        let all = messages(plan, self.now_ms);
        let wanted =
            all.skip(*numbers.start() as usize - 1).take((numbers.end() - numbers.start() + 1) as usize);
        Bulk::new(&self.relay.url(), name)?.load(wanted.map(|message| message.line()), BATCH)
    }

    /// Lets the database come back, and tells how long the backlog took.
    fn return_and_drain(&self) -> Result<Duration> {
        let began = Instant::now();
        self.relay.mend();
        self.gateway.drain(DRAIN_LIMIT)?;
        Ok(began.elapsed())
    }

    /// The same while messages come in; and how long those took that came before the end.
    fn drain_beside_live(&mut self, live: RangeInclusive<u64>) -> Result<(Duration, Vec<Duration>)> {
        let Bench { database, relay, gateway, session, load, http, .. } = self;
        let total = live.end() - live.start() + 1;
        let query = percent_encode("SELECT count(n) FROM weather WHERE device = 'live'");
        let url = format!("{}/query?db={}&q={query}", database.url(), InfluxDb::DATABASE);
        relay.mend();
        let began = Instant::now();
        thread::scope(|scope| {
            let publisher = scope.spawn(move || session.publish(load, live, Some(LIVE_PACE), WINDOW));
            let (mut found, mut latencies, mut drained) = (0, Vec::new(), None);
            while found < total && (drained.is_none() || !publisher.is_finished()) {
                thread::sleep(LOOK);
                let count = count(http, &url)?;
                let now = began.elapsed();
                // Rows of one device come in order, so a count says which are there.
                for number in found..count {
                    let sent = Duration::from_secs_f64(number as f64 / LIVE_PACE as f64);
                    if drained.is_none_or(|drained| sent < drained) {
                        latencies.push(now.saturating_sub(sent));
                    }
                }
                found = count;
                // What is queued now is at most what came in the last second or two.
                if drained.is_none() && gateway.backlog()?.0 < 3 * LIVE_PACE {
                    drained = Some(now);
                }
                ensure!(now < DRAIN_LIMIT, "the backlog is not drained");
            }
            publisher.join().map_err(|_| anyhow::anyhow!("the publisher has panicked"))??;
            gateway.drain(DRAIN_LIMIT)?;
            Ok((drained.context("the live messages ended before the backlog did")?, latencies))
        })
    }

    /// Lets the database come back while messages go on, and tells how long it took until it had all that it missed.
    fn catch_up(&mut self, missed: RangeInclusive<u64>, after: RangeInclusive<u64>) -> Result<Duration> {
        let Bench { database, relay, session, load, http, .. } = self;
        let total = missed.end() - missed.start() + 1;
        let query = percent_encode("SELECT count(n) FROM weather WHERE device =~ /^outage-/");
        let url = format!("{}/query?db={}&q={query}", database.url(), InfluxDb::DATABASE);
        thread::scope(|scope| {
            let publisher = scope.spawn(move || session.publish(load, after, Some(OUTAGE_PACE), WINDOW));
            let began = Instant::now();
            relay.mend();
            while count(http, &url)? < total {
                ensure!(began.elapsed() < DRAIN_LIMIT, "the outage is not made up for");
                thread::sleep(LOOK);
            }
            let took = began.elapsed();
            publisher.join().map_err(|_| anyhow::anyhow!("the publisher has panicked"))??;
            Ok(took)
        })
    }
}

/// Every message: two days of readings, live ones, those of an outage, and those behind it.
fn messages(plan: &Plan, now_ms: u64) -> impl Iterator<Item = Message> + use<> {
    let [drained, beside, live, missed, after] = plan.parts();
    let apart = (DAY_MS / plan.messages).max(1);
    let day = move |numbers: RangeInclusive<u64>, days: u64| {
        let first = *numbers.start();
        numbers.map(move |number| {
            let ms = now_ms - days * DAY_MS + (number - first) * apart;
            Message { device: format!("device-{:02}", number % 50), number, ms }
        })
    };
    let paced = move |numbers: RangeInclusive<u64>, pace: u64| {
        let first = *numbers.start();
        numbers.map(move |number| (number, now_ms + (number - first) * 1_000 / pace))
    };
    let live = paced(live, LIVE_PACE).map(|(number, ms)| Message { device: "live".to_owned(), number, ms });
    let of_many = |name: &'static str| {
        // The milliseconds of one device are apart.
        move |(number, ms): (u64, u64)| Message { device: format!("{name}-{:02}", number % 50), number, ms }
    };
    let missed = paced(missed, OUTAGE_PACE).map(of_many("outage"));
    let after = paced(after, OUTAGE_PACE).map(of_many("after"));
    day(drained, 2).chain(day(beside, 1)).chain(live).chain(missed).chain(after)
}

fn gateway(directory: &Path, port: u16, relay: &HttpProxy) -> Result<Gateway> {
    let tables = format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\n\
         measurement = \"weather\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ms\"\n\
         [[influxdb]]\nversion = 1\nurl = \"{}\"\ndatabase = \"{}\"\nbatch_size = {BATCH}\nlive_first = true\n",
        relay.url(),
        InfluxDb::DATABASE
    );
    let settings = Settings { tables, ..Settings::default() };
    let mut gateway =
        Gateway::configure(Program::find(Path::new("forebay-sim")), &directory.join("gateway"), &settings)?;
    gateway.launch()?;
    Ok(gateway)
}

/// The one number that a query answers with; 0 if it answers with nothing.
fn count(http: &Http, url: &str) -> Result<u64> {
    let answer = http.get_json(url)?;
    Ok(answer.pointer("/results/0/series/0/values/0/1").and_then(serde_json::Value::as_u64).unwrap_or(0))
}
