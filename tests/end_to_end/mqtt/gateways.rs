//! Several gateways on one broker: one serves the native devices of a prefix, however they come and go; foreign topics are
//! shared, and what one of them missed while it was gone it gets when it is back.

use std::collections::BTreeMap;

use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::Http;
use forebay_tests::mqtt::{Client, Message, publish};
use forebay_tests::proxy::MqttTap;
use forebay_tests::readback::influxql;
use forebay_tests::services::{InfluxDb, Mosquitto};

use super::site::{DRAIN_LIMIT, SERVED_LIMIT};
use crate::world::{Scratch, program};

const PRESENCE: &str = "forebay/v1/gateway";

/// A gateway behind a tap of its own.
struct Member {
    name: &'static str,
    gateway: Gateway,
    tap: MqttTap,
}

impl Member {
    /// Makes everything ready, and starts nothing.
    fn prepare(
        name: &'static str,
        scratch: &Scratch,
        broker: &Mosquitto,
        native: bool,
        rest: &str,
    ) -> anyhow::Result<Member> {
        let tap = MqttTap::start(broker.port)?;
        let url = tap.url();
        // The tag tells their points apart in a database that they share.
        let tables = format!(
            "[tags]\ngateway = \"{name}\"\n\
             [[mqtt]]\nurl = \"{url}\"\nclient_id = \"{name}\"\nnative = {native}\n{rest}"
        );
        let settings = Settings { mqtt: None, ports: Vec::new(), tables };
        let gateway = Gateway::configure(program(), &scratch.path().join(name), &settings)?;
        Ok(Member { name, gateway, tap })
    }

    fn says(&self, what: &str) -> anyhow::Result<()> {
        wait_for(&format!("a word of {} on {what:?}", self.name), SERVED_LIMIT, || {
            let log = self.gateway.log_text().map_err(|error| error.to_string())?;
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
    }
}

/// What is retained as the presence.
fn presence(broker: &Mosquitto) -> anyhow::Result<Vec<u8>> {
    let mut client = Client::connect(broker.port, "onlooker", true)?;
    // The broker tells of this once a second, so that there is something to receive in any case.
    client.subscribe("$SYS/broker/uptime")?;
    client.subscribe(PRESENCE)?;
    let (topic, payload) = client.receive()?;
    Ok(if topic == PRESENCE { payload } else { Vec::new() })
}

fn await_presence(broker: &Mosquitto, name: &str) -> anyhow::Result<()> {
    wait_for(&format!("the presence of {name:?}"), SERVED_LIMIT, || {
        let payload = presence(broker).map_err(|error| error.to_string())?;
        let is_as_wanted = match name {
            "" => payload.is_empty(),
            name => payload.windows(name.len()).any(|part| part == name.as_bytes()),
        };
        if is_as_wanted { Ok(()) } else { Err(String::from_utf8_lossy(&payload).into_owned()) }
    })
}

#[test]
fn one_gateway_serves_a_prefix_and_a_second_one_says_why_it_does_not() -> anyhow::Result<()> {
    let scratch = Scratch::new("rivals")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let foreign =
        "[[mqtt.subscribe]]\ntopic = \"flow/{device}\"\nformat = \"json\"\nmeasurement = \"flow\"\n";
    let mut alpha = Member::prepare("alpha", &scratch, &broker, true, "")?;
    let mut beta = Member::prepare("beta", &scratch, &broker, true, foreign)?;
    alpha.gateway.resume()?;
    await_presence(&broker, "alpha")?;

    beta.gateway.resume()?;
    beta.says("another gateway, with the client id \"alpha\"")?;
    wait_for("beta's foreign topics", SERVED_LIMIT, || {
        // It comes back without native devices first, and subscribes then.
        publish(broker.port, &[Message::new("flow/a", "{\"n\":1}")]).map_err(|error| error.to_string())?;
        match beta.tap.figures() {
            figures if figures.acked > 0 => Ok(()),
            figures => Err(format!("{figures:?}")),
        }
    })?;
    let checked = program().output("check", &beta.gateway.config())?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("\"alpha\""), "{said}");
    let checked = program().output("check", &alpha.gateway.config())?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!said.contains("another gateway"), "it is its own presence: {said}");

    beta.gateway.kill();
    await_presence(&broker, "alpha")?;
    alpha.gateway.kill();
    await_presence(&broker, "")?;
    beta.gateway.resume()?;
    await_presence(&broker, "beta")?;
    alpha.gateway.resume()?;
    alpha.says("another gateway, with the client id \"beta\"")?;
    assert!(alpha.gateway.terminate()?.success());
    await_presence(&broker, "beta")?;
    assert!(beta.gateway.terminate()?.success());
    await_presence(&broker, "")?;
    scratch.passed();
    Ok(())
}

/// The first one's connection is gone while the second one starts; when it is back, both believe that they serve.
#[test]
fn of_two_gateways_that_meet_one_gives_way() -> anyhow::Result<()> {
    let scratch = Scratch::new("meeting")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let mut alpha = Member::prepare("alpha", &scratch, &broker, true, "")?;
    let mut beta = Member::prepare("beta", &scratch, &broker, true, "")?;
    alpha.gateway.resume()?;
    await_presence(&broker, "alpha")?;
    alpha.gateway.pause()?;
    // Nobody has said goodbye, so the broker publishes the will.
    alpha.tap.cut_now();
    await_presence(&broker, "")?;
    beta.gateway.resume()?;
    await_presence(&broker, "beta")?;
    alpha.gateway.proceed()?;
    beta.says("another gateway, with the client id \"alpha\"")?;
    await_presence(&broker, "alpha")?;
    assert!(beta.gateway.terminate()?.success());
    await_presence(&broker, "alpha")?;
    assert!(alpha.gateway.terminate()?.success());
    scratch.passed();
    Ok(())
}

/// Messages, and between how many of them something happens.
const MESSAGES: u64 = 6_000;
const PORTION: u64 = 500;

#[test]
fn what_is_shared_is_stored_once_though_members_are_killed() -> anyhow::Result<()> {
    let scratch = Scratch::new("shared")?;
    let broker = Mosquitto::start_with(&scratch.path().join("mosquitto"), "max_queued_messages 0\n")?;
    let database = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let rest = "[[mqtt.subscribe]]\ntopic = \"$share/barns/flow/{device}\"\nformat = \"json\"\nmeasurement = \"flow\"\n"
        .to_owned()
        + &Settings::influxdb_1(&database.url(), InfluxDb::DATABASE);
    let mut members = [
        Member::prepare("one", &scratch, &broker, false, &rest)?,
        Member::prepare("two", &scratch, &broker, false, &rest)?,
    ];
    for member in &mut members {
        member.gateway.resume()?;
        member.tap.wait_for_subscriptions(1, 1, SERVED_LIMIT)?;
    }
    let mut client = Client::connect(broker.port, "publisher", true)?;
    for portion in 0..MESSAGES / PORTION {
        let numbers = portion * PORTION..(portion + 1) * PORTION;
        let messages: Vec<Message> = numbers
            .map(|number| Message::new(format!("flow/{}", number % 7), format!("{{\"n\":{number}}}")))
            .collect();
        client.publish(&messages)?;
        let victim = &mut members[usize::try_from(portion % 2)?];
        match portion % 4 {
            0 | 1 => victim.gateway.kill(),
            _ => victim.gateway.resume()?,
        }
    }
    wait_for("all PUBACKs", SERVED_LIMIT, || {
        let figures = members.each_ref().map(|member| member.tap.figures());
        let acked: u64 = figures.iter().map(|figures| figures.acked).sum();
        if acked >= MESSAGES { Ok(()) } else { Err(format!("{MESSAGES} were published: {figures:?}")) }
    })?;
    let open: u64 = members.iter().map(|member| member.tap.figures().open_at_ends).sum();
    for member in &mut members {
        assert!(member.tap.figures().acked > MESSAGES / 10, "{} had no share", member.name);
        member.gateway.close(DRAIN_LIMIT)?;
    }
    let points = influxql::select(&Http::new()?, &database.url(), InfluxDb::DATABASE, "flow", 0)?;
    let mut stored: BTreeMap<u64, u64> = BTreeMap::new();
    for point in &points {
        let number = point.column("n").and_then(serde_json::Value::as_f64).unwrap_or(-1.0);
        *stored.entry(format!("{number:.0}").parse()?).or_default() += 1;
    }
    let extra: u64 = stored.values().map(|times| times - 1).sum();
    eprintln!(
        "{MESSAGES} shared messages: {} stored, {extra} twice, {open} in flight at kills",
        stored.len()
    );
    assert_eq!(stored.len() as u64, MESSAGES);
    assert!(extra <= open, "{extra} twice, and {open} were in flight");
    scratch.passed();
    Ok(())
}
