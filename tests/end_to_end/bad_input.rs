//! Input that nobody should send: counted, named, and no harm to what comes beside it.

use std::time::Duration;

use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::{MEASUREMENTS, publish};
use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::pty::Line;
use forebay_tests::readback::influxql::{self, Point};
use forebay_tests::seed::Rng;
use forebay_tests::services::InfluxDb;
use serde_json::{Value, json};

use crate::world::{Load, Scratch, World};

/// How many messages of each bad kind are sent.
const BAD_MESSAGES: u64 = 40;

/// How often the log may name a source's bad input in a run that is shorter than a minute: once for each kind of it.
const NAMED_MAX: usize = 4;

fn strange_devices() -> String {
    "[[mqtt.subscribe]]\ntopic = \"strange\"\nformat = \"json\"\ndevice = \"$.id\"\nmeasurement = \"strange\"\n\
     timestamp = \"$.time\"\ntimestamp_format = \"ns\"\n"
        .to_owned()
}

#[test]
fn bad_input_is_counted_and_good_rows_flow_on() -> anyhow::Result<()> {
    let mut rng = Rng::announced("bad input")?;
    let scratch = Scratch::new("bad-input")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let noise_port = scratch.path().join("noise");
    let noise = Line::plug_in(&noise_port)?;
    let table = format!(
        "[[serial]]\nport = {noise_port:?}\n{}{}",
        Settings::influxdb_1(&server.url(), InfluxDb::DATABASE),
        strange_devices()
    );
    let load = Load { serial: 1, native: 1, json: 1, period: Duration::from_millis(20) };
    let mut world = World::start(scratch, load, table)?;
    let ns = wall_ns();
    let named = |id: &str, at: i64| json!({"id": id, "time": ns + at * 1_000_000, "value": 1.5}).to_string();
    let mut messages = vec![("sensors/bad/garden".to_owned(), vec![b'x'; 1 << 20])];
    messages.push(("strange".into(), named("a b,c=d", 0).into_bytes()));
    for round in 0..BAD_MESSAGES {
        messages.push(("sensors/bad/garden".into(), rng.bytes(50)));
        messages.push(("sensors/bad/garden".into(), b"{\"time\": 1, \"temperature\": ".to_vec()));
        messages.push(("strange".into(), named("new\nline", i64::try_from(round)?).into_bytes()));
        noise.write(&rng.bytes(400))?;
    }
    messages.push(("strange".into(), named("after", 1).into_bytes()));
    publish(world.broker.port, messages)?;
    wait_for("the counting of all bad input", Duration::from_secs(20), || {
        let status = world.gateway.status().map_err(|error| format!("{error:#}"))?;
        let unparseable = status.pointer("/ledger/dead_lettered").and_then(Value::as_u64);
        let noisy = status["sources"][&noise_port.display().to_string()]["bad_messages"].as_u64();
        // The message of 1 MiB, and three kinds of bad ones; of the noise, every piece between two zeros is a frame.
        let counted = unparseable == Some(1 + 3 * BAD_MESSAGES) && noisy >= Some(BAD_MESSAGES);
        if counted { Ok(()) } else { Err(format!("{unparseable:?} messages, {noisy:?} frames")) }
    })?;
    world.run(Duration::from_secs(1))?;

    assert!(world.mqtt.connections() <= 1, "the gateway reconnected {} times", world.mqtt.connections());
    let log = world.gateway.log_text()?;
    let broker_lines =
        log.lines().filter(|line| line.contains(" WARN ") && line.contains("no reading")).count();
    let noise_lines = log.lines().filter(|line| line.contains(" WARN ") && line.contains("noise")).count();
    assert!((1..=NAMED_MAX).contains(&broker_lines), "{broker_lines} lines name the broker's bad input");
    assert!((1..=NAMED_MAX).contains(&noise_lines), "{noise_lines} lines name the noisy port");

    let (http, since_ns) = (Http::new()?, world.since_ns);
    let (ledger, scratch) = world
        .finish(|_| influxql::read(&http, &server.url(), InfluxDb::DATABASE, &MEASUREMENTS, since_ns))?;
    for device in ["serial-0", "native-0", "json-0"] {
        let account = &ledger.devices[device];
        assert!(account.stored > 20 && account.lost == 0 && account.duplicates == 0, "{device}: {account:?}");
    }
    let points = influxql::select(&http, &server.url(), InfluxDb::DATABASE, "strange", since_ns)?;
    let mut names: Vec<String> = points.iter().map(|point| point.tag("device")).collect();
    names.sort();
    assert_eq!(names, ["a b,c=d", "after"], "names that line protocol can carry are stored as they are");
    noise.unplug();
    scratch.passed();
    Ok(())
}

#[test]
fn a_whole_number_first_and_a_fraction_later_is_no_conflict() -> anyhow::Result<()> {
    let scratch = Scratch::new("types")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let load = Load { serial: 0, native: 0, json: 0, period: Duration::from_secs(1) };
    let table = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let world = World::start(scratch, load, table)?;
    let ns = wall_ns();
    let message = |at: i64, value: &str| {
        let payload = format!("{{\"time\": {}, \"temperature\": {value}}}", ns + at);
        ("sensors/typed/garden".to_owned(), payload.into_bytes())
    };
    publish(world.broker.port, vec![message(0, "21"), message(1, "21.5")])?;
    let (http, url) = (Http::new()?, server.url());
    let values = wait_for("both points in the database", Duration::from_secs(20), || {
        let points =
            influxql::select(&http, &url, InfluxDb::DATABASE, "weather", 0).map_err(|e| e.to_string())?;
        let values: Vec<Option<f64>> = points.iter().map(temperature).collect();
        if values.len() >= 2 { Ok(values) } else { Err(format!("{values:?}")) }
    })?;
    assert_eq!(values, [Some(21.0), Some(21.5)]);
    let (_, scratch) = world.finish(|_| Ok(forebay_tests::readback::Stored::default()))?;
    scratch.passed();
    Ok(())
}

fn temperature(point: &Point) -> Option<f64> {
    point.column("temperature")?.as_f64()
}
