//! A broker with the limits that it comes with, which keeps a thousand messages for a client and drops the rest in silence:
//! what holds the gateway up for longer than the broker can bridge is a loss, and a database that is gone is no such thing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_tests::clock::wait_for;
use forebay_tests::mqtt::{Client, Dropped, Message};
use forebay_tests::seed::long;

use super::site::{SERVED_LIMIT, Site, subscription};

/// mosquitto's own limits: 20 messages in flight, 1,000 queued.
const ITS_OWN_LIMITS: &str = "";

const DEVICES: u64 = 8;

/// How many messages are published at once. Between two such bursts there is a pause.
const BURST: u64 = 30;

/// A publisher that keeps a rate.
struct Stream {
    client: Client,
    published: u64,
}

impl Stream {
    fn start(site: &Site) -> anyhow::Result<Stream> {
        Ok(Stream { client: Client::connect(site.broker.port, "stream", true)?, published: 0 })
    }

    /// Publishes `count` messages, evenly over a time.
    fn publish(&mut self, count: u64, time: Duration) -> anyhow::Result<()> {
        let (started, bursts) = (Instant::now(), count.div_ceil(BURST));
        for burst in 0..bursts {
            let messages: Vec<Message> = (0..BURST.min(count - burst * BURST))
                .map(|at| {
                    let number = self.published + at;
                    Message::new(format!("flow/{}", number % DEVICES), format!("{{\"n\":{number}}}"))
                })
                .collect();
            self.client.publish(&messages)?;
            self.published += messages.len() as u64;
            let due = time.mul_f64(f64::from(u32::try_from(burst + 1)?) / f64::from(u32::try_from(bursts)?));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        Ok(())
    }
}

/// The numbers that the database has, and how many points beyond one for each.
fn stored(site: &Site) -> anyhow::Result<(BTreeSet<u64>, u64)> {
    let (mut numbers, mut points) = (BTreeSet::new(), 0);
    for device in 0..DEVICES {
        for (_, number) in site.numbers("flow", "n", &device.to_string())? {
            numbers.insert(format!("{number:.0}").parse()?);
            points += 1;
        }
    }
    let extra = points - numbers.len() as u64;
    Ok((numbers, extra))
}

#[test]
fn an_outage_of_the_database_costs_a_broker_with_its_own_limits_nothing() -> anyhow::Result<()> {
    let mut site = Site::start("database-outage", ITS_OWN_LIMITS, 3, &[subscription("flow")])?;
    let mut drops = Dropped::watch(site.broker.port)?;
    let (messages, outage) =
        if long() { (1_000_000, Duration::from_secs(600)) } else { (30_000, Duration::from_secs(20)) };
    let mut stream = Stream::start(&site)?;
    stream.publish(1_500, Duration::from_secs(1))?;
    site.database.stop()?;
    stream.publish(messages, outage)?;
    let (behind, _) = site.gateway.backlog()?;
    site.database.resume()?;
    stream.publish(1_500, Duration::from_secs(1))?;
    let published = stream.published;
    // Nobody can acknowledge what was dropped; and nothing is, unless the disk has held a commit up for so long that the
    // gateway has said so.
    let dropped = drops.now()?;
    let alarms = site.gateway.status()?["sources"][&site.tap.url()]["queue_alarms"].as_u64();
    assert!(
        dropped == 0 || alarms > Some(0),
        "the broker dropped {dropped} messages, and there was no alarm"
    );
    let kept = published.saturating_sub(dropped);
    wait_for("all PUBACKs", SERVED_LIMIT, || match site.tap.figures() {
        figures if figures.acked == kept => Ok(()),
        figures => Err(format!("{kept} were kept: {figures:?}")),
    })?;
    let back = Instant::now();
    site.settle()?;
    let (numbers, extra) = stored(&site)?;
    eprintln!(
        "{messages} messages in {outage:?} without a database, {behind} rows behind at its end; {dropped} dropped by the \
         broker, {alarms:?} alarms; {} of {published} stored, {extra} twice, {:.1} s after the last PUBACK; gateway: {} MiB at most",
        numbers.len(),
        back.elapsed().as_secs_f64(),
        site.gateway.usage().resident_bytes_max >> 20
    );
    assert!(behind + dropped >= messages, "the database was not away all the time");
    assert_eq!((numbers.len() as u64, extra), (kept, 0));
    site.scratch.passed();
    Ok(())
}

/// The gateway stands still for as long as a bad disk makes it; at that rate the broker cannot keep what comes meanwhile.
/// What it drops it counts, the gateway shows that and raises the alarm, and everything else is stored.
#[test]
fn what_a_broker_drops_while_the_gateway_stands_still_it_counts() -> anyhow::Result<()> {
    let mut site = Site::start("standstill", ITS_OWN_LIMITS, 3, &[subscription("flow")])?;
    let mut drops = Dropped::watch(site.broker.port)?;
    assert_eq!(drops.now()?, 0, "before");
    let mut stream = Stream::start(&site)?;
    // The alarm is for a flow of messages that is held up.
    stream.publish(1_500, Duration::from_secs(1))?;
    site.gateway.pause()?;
    stream.publish(6_000, Duration::from_secs(2))?;
    site.gateway.proceed()?;
    stream.publish(1_500, Duration::from_secs(1))?;
    let source = site.tap.url();
    wait_for("the alarm and the broker's count in the status", SERVED_LIMIT, || {
        let status = site.gateway.status().map_err(|error| error.to_string())?;
        let source = &status["sources"][&source];
        let alarm = source["alarm"].as_str().unwrap_or_default();
        let is_told = alarm.contains("may overflow") && source["broker_dropped_messages"].as_u64() > Some(0);
        if is_told { Ok(()) } else { Err(source.to_string()) }
    })?;
    let dropped = drops.now()?;
    let told = site.gateway.status()?["sources"][&source]["broker_dropped_messages"].as_u64();
    assert_eq!(told, Some(dropped), "the gateway shows what the broker counts");
    let kept = stream.published.saturating_sub(dropped);
    wait_for("the PUBACKs of what the broker kept", SERVED_LIMIT, || match site.tap.figures() {
        figures if figures.acked == kept && figures.open == 0 => Ok(()),
        figures => Err(format!("{kept} were kept: {figures:?}")),
    })?;
    site.settle()?;
    let (numbers, extra) = stored(&site)?;
    eprintln!("{} published, {dropped} dropped by the broker, {} stored", stream.published, numbers.len());
    assert!(dropped > 0, "the broker kept everything");
    assert!(site.gateway.log_text()?.contains("the broker has dropped"), "the log says nothing of it");
    assert_eq!((numbers.len() as u64, extra), (kept, 0));
    site.scratch.passed();
    Ok(())
}
