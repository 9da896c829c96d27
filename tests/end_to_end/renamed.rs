//! The configuration changes between a write whose answer was lost and its repetition.

use std::time::Duration;

use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::proxy::HttpProxy;
use forebay_tests::readback::influxql;
use forebay_tests::services::InfluxDb;
use serde_json::json;

use crate::world::{DRAIN_LIMIT, Load, Scratch, World};

const NOBODY: Load = Load { serial: 0, native: 0, json: 0, period: Duration::from_secs(1) };
const ROWS: i64 = 50;

/// Publishes rows that give the time themselves.
fn publish_rows(world: &World, from_ns: i64) -> anyhow::Result<()> {
    let messages = (0..ROWS).map(|number| {
        let payload = json!({ "time": from_ns + number, "v": number });
        ("sensors/boiler/cellar".to_owned(), payload.to_string().into_bytes())
    });
    publish(world.broker.port, messages.collect())
}

/// Every point's tag `site` and `floor`, and the new name of `site`.
fn tags(server: &InfluxDb) -> anyhow::Result<Vec<[String; 3]>> {
    let points = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, "weather", 0)?;
    Ok(points.iter().map(|point| ["site", "floor", "place"].map(|tag| point.tag(tag))).collect())
}

#[test]
fn what_was_stored_without_an_answer_stays_one_point_when_its_tags_are_renamed() -> anyhow::Result<()> {
    let scratch = Scratch::new("renamed")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let database = HttpProxy::start(server.port)?;
    let before = "[tags]\nsite = \"north\"\n[devices.\"boiler\"]\ntags = { floor = \"1\" }\n";
    let after = "[tags]\nplace = \"south\"\n[devices.\"boiler\"]\ntags = { floor = \"2\" }\n";
    let tables = Settings::influxdb_1(&database.url(), InfluxDb::DATABASE) + before;
    let mut world = World::start(scratch, NOBODY, tables)?;
    let ns = wall_ns();

    database.lose_answers(true);
    publish_rows(&world, ns)?;
    wait_for("a write whose answer is lost", DRAIN_LIMIT, || {
        match (database.lost_answers(), tags(&server)) {
            (1.., Ok(points)) if points.len() as i64 == ROWS => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    world.gateway.kill();
    let config = std::fs::read_to_string(world.gateway.config())?;
    anyhow::ensure!(config.contains(before), "{config}");
    std::fs::write(world.gateway.config(), config.replace(before, after))?;
    database.lose_answers(false);
    world.gateway.resume()?;
    publish_rows(&world, ns + ROWS)?;
    world.gateway.close(DRAIN_LIMIT)?;

    let (old, new) = (["north", "1", ""], ["", "2", "south"]);
    let points = tags(&server)?;
    let count = |tags: [&str; 3]| points.iter().filter(|point| **point == tags).count() as i64;
    assert_eq!((points.len() as i64, count(old), count(new)), (2 * ROWS, ROWS, ROWS), "{points:?}");
    world.scratch.passed();
    Ok(())
}
