//! `forebay audit`: exact to the row where nothing is wrong, and a finger on what is.

use std::time::Duration;

use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::closing::Closing;
use forebay_tests::device::publish;
use forebay_tests::gateway::Settings;
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::readback::influxql;
use forebay_tests::seed::Rng;
use forebay_tests::services::InfluxDb;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::world::{DRAIN_LIMIT, Load, Scratch, World, program};

const NOBODY: Load = Load { serial: 0, native: 0, json: 0, period: Duration::from_secs(1) };

/// A world without devices that stores in both databases.
fn world(test: &str) -> anyhow::Result<(World, InfluxDb)> {
    let scratch = Scratch::new(test)?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tables = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE) + "[sqlite]\nenabled = true\n";
    Ok((World::start(scratch, NOBODY, tables)?, server))
}

/// Publishes JSON messages of devices that give the time themselves, and waits until both databases have them.
fn store(world: &World, messages: &[(&str, Value)], confirmed: u64) -> anyhow::Result<()> {
    let messages = messages
        .iter()
        .map(|(device, payload)| (format!("sensors/{device}/garden"), payload.to_string().into_bytes()));
    publish(world.broker.port, messages.collect())?;
    wait_for("the confirmation of all rows", DRAIN_LIMIT, || match world.gateway.backlog() {
        Ok((0, rows)) if rows == confirmed => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

fn write(server: &InfluxDb, lines: &str) -> anyhow::Result<()> {
    let url = format!("{}/write?db={}&precision=ns", server.url(), InfluxDb::DATABASE);
    Http::new()?.post(&url, "text/plain", lines.to_owned())?.successful(lines).map(drop)
}

fn statement(server: &InfluxDb, statement: &str) -> anyhow::Result<()> {
    let url = format!("{}/query?db={}&q={}", server.url(), InfluxDb::DATABASE, percent_encode(statement));
    Http::new()?.post(&url, "text/plain", String::new())?.successful(statement).map(drop)
}

/// The exit status of the command, what it prints for people, and what it prints for programs.
fn audit(world: &World) -> anyhow::Result<(Option<i32>, String, Value)> {
    let output = program().output("audit", &world.gateway.config())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), said, world.gateway.audit()?))
}

#[test]
fn rows_with_all_kinds_of_fields_are_counted_and_what_is_wrong_is_named() -> anyhow::Result<()> {
    let (mut world, server) = world("audit")?;
    let ns = wall_ns();
    let at = |n: i64| ns + n * 1_000_000;
    // Fields differ from row to row; four rows share their point with an earlier one, one of them with the same content.
    let rows = [
        ("a", json!({"time": at(0), "t": 1.5})),
        ("a", json!({"time": at(1), "h": 2.5})),
        ("a", json!({"time": at(2), "t": 1.5, "h": 2.5})),
        ("a", json!({"time": at(2), "t": 1.5, "h": 2.5})),
        ("a", json!({"time": at(2), "t": 9.5})),
        ("a", json!({"time": at(0), "p": 3.5})),
        ("b", json!({"time": at(0), "on": true})),
        ("b", json!({"time": at(1), "on": false, "off": true})),
        ("b", json!({"time": at(1), "off": false})),
        ("d e,f=g", json!({"time": at(0), "t": 0.5})),
    ];
    store(&world, &rows, rows.len() as u64)?;
    let (status, said, report) = audit(&world)?;
    assert_eq!((status, report["verdict"].as_str()), (Some(0), Some("exact")), "{said}\n{report:#}");
    assert!(said.ends_with("Every database holds exactly the points that the ledger says.\n"), "{said}");
    for sink in ["main", "sqlite"] {
        let of = |device: &str, key: &str| report["sinks"][sink]["devices"][device][key].as_u64();
        assert_eq!(["confirmed", "shared", "stored"].map(|key| of("a", key)), [Some(6), Some(3), Some(3)]);
        assert_eq!(["confirmed", "shared", "stored"].map(|key| of("b", key)), [Some(3), Some(1), Some(2)]);
        assert_eq!(of("d e,f=g", "stored"), Some(1), "{report:#}");
    }
    // It is the same for a gateway that has been killed, and for the command without a gateway.
    world.gateway.kill();
    assert_eq!(audit(&world)?.0, Some(0));
    world.gateway.resume()?;
    store(&world, &[("a", json!({"time": at(1), "h": 7.5}))], 11)?;
    assert_eq!(audit(&world)?.2["sinks"]["main"]["devices"]["a"]["shared"].as_u64(), Some(4));

    // Somebody else's points, of a device that is known and of one that is not.
    let gateway = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let tags = |device: &str| format!("weather,device={device},gateway={gateway},room=garden");
    write(&server, &format!("{} q=1 {}\n{} q=1 7\n", tags("a"), at(5), tags("nobody")))?;
    let (status, said, report) = audit(&world)?;
    assert_eq!(status, Some(1), "{said}");
    let main = &report["sinks"]["main"]["devices"];
    assert_eq!((&main["a"]["surplus"], &main["nobody"]["surplus"]), (&json!(1), &json!(1)), "{said}");
    assert_eq!(report["sinks"]["sqlite"]["verdict"], "exact", "{said}");
    assert!(said.contains("1 too many") && said.ends_with("main differ, as marked above.\n"), "{said}");
    // Those of another gateway are none of this one's business.
    statement(&server, "DELETE FROM weather WHERE device = 'nobody'")?;
    statement(&server, &format!("DELETE FROM weather WHERE device = 'a' AND time = {}", at(5)))?;
    write(&server, &format!("weather,device=a,gateway=another,room=garden t=1 {}\n", at(6)))?;
    let (status, said, report) = audit(&world)?;
    assert_eq!(
        (status, &report["sinks"]["main"]["devices"]["a"]["elsewhere"]),
        (Some(0), &json!(1)),
        "{said}"
    );

    // A row of each database goes missing.
    statement(&server, &format!("DELETE FROM weather WHERE device = 'b' AND time = {}", at(0)))?;
    let embedded = Connection::open(world.gateway.sqlite_file())?;
    embedded.busy_timeout(Duration::from_secs(10))?;
    assert_eq!(embedded.execute("DELETE FROM points WHERE ns = ?1 AND fields LIKE '%h%'", [at(2)])?, 1);
    let (status, said, report) = audit(&world)?;
    assert_eq!(status, Some(1), "{said}");
    let missing = |sink: &str, device: &str| report["sinks"][sink]["devices"][device]["missing"].as_u64();
    let of = ["main", "sqlite"].map(|sink| ["a", "b"].map(|device| missing(sink, device)));
    assert_eq!(of, [[Some(0), Some(1)], [Some(1), Some(0)]], "{said}");
    world.gateway.closes(Closing::Unaudited("its databases were tampered with"));
    world.gateway.close(DRAIN_LIMIT)?;
    world.scratch.passed();
    Ok(())
}

#[test]
fn a_database_that_cannot_be_asked_or_has_dropped_points_is_no_difference() -> anyhow::Result<()> {
    let (mut world, mut server) = world("audit-unverifiable")?;
    let ns = wall_ns();
    let rows: Vec<(&str, Value)> = (0..20).map(|n| ("a", json!({"time": ns + n, "t": 0.5}))).collect();
    store(&world, &rows, 20)?;
    assert_eq!(audit(&world)?.0, Some(0));
    statement(&server, "ALTER RETENTION POLICY autogen ON forebay DURATION 30d")?;
    assert_eq!(audit(&world)?.0, Some(0), "a retention that has dropped nothing");
    statement(&server, &format!("DELETE FROM weather WHERE time = {ns}"))?;
    let (status, said, _) = audit(&world)?;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("1 missing") && said.contains("keeps points for 720h0m0s"), "{said}");
    server.stop()?;
    let (status, said, report) = audit(&world)?;
    assert_eq!((status, &report["sinks"]["sqlite"]["verdict"]), (Some(2), &json!("exact")), "{said}");
    assert!(said.contains("main cannot be asked"), "{said}");
    world.gateway.closes(Closing::Unverifiable("cannot be asked"));
    world.gateway.close(DRAIN_LIMIT)?;
    world.scratch.passed();
    Ok(())
}

/// Rows that the embedded store has deleted were there: it counts them itself.
#[test]
fn what_the_retention_of_the_embedded_store_deletes_stays_accounted_for() -> anyhow::Result<()> {
    let scratch = Scratch::new("audit-retention")?;
    let mut world = World::start(scratch, NOBODY, "[sqlite]\nretention = \"1h\"\n".to_owned())?;
    let (now, old) = (wall_ns(), wall_ns() - 2 * 3_600_000_000_000);
    let rows: Vec<(&str, Value)> = (0..50).map(|n| ("a", json!({"time": old + n, "t": 0.5}))).collect();
    store(&world, &rows, 50)?;
    let swept = wait_for("the deletion of what is too old", DRAIN_LIMIT, || {
        let fault = |error: anyhow::Error| format!("{error:#}");
        let number = world.gateway.backlog().map_err(fault)?.1;
        let row = json!({"time": now + i64::try_from(number).unwrap_or(0), "t": 0.5});
        store(&world, &[("a", row)], number + 1).map_err(fault)?;
        let report = world.gateway.audit().map_err(fault)?;
        let swept = report["sinks"]["sqlite"]["devices"]["a"]["swept"].as_u64().unwrap_or(0);
        if swept >= 50 { Ok(swept) } else { Err(format!("{report:#}")) }
    })?;
    assert_eq!(swept, 50);
    world.gateway.close(DRAIN_LIMIT)?;
    world.scratch.passed();
    Ok(())
}

/// What a lost file had, and the journal has no more, is a counted gap: to the row, and once, whatever else happens meanwhile.
#[test]
fn what_goes_with_the_file_of_the_embedded_store_is_counted() -> anyhow::Result<()> {
    let mut rng = Rng::announced("lost file")?;
    let scratch = Scratch::new("lost-file")?;
    let mut world = World::start(scratch, NOBODY, "[journal]\nmax_bytes = \"2MiB\"\n".to_owned())?;
    world.gateway.loses_store();
    let (ns, mut rows) = (wall_ns(), 0);
    for lost in 0..2 {
        for _ in 0..4 {
            let row = |n: i64| json!({"time": ns + n, "x": 0.1, "y": 0.2, "z": 0.3});
            let messages: Vec<(&str, Value)> =
                (rows..rows + 3_000).map(|n| (if n % 3 == 0 { "a" } else { "b" }, row(n))).collect();
            let before = world.gateway.backlog()?.1;
            store(&world, &messages, before + 3_000)?;
            rows += 3_000;
        }
        world.gateway.kill();
        for behind in ["", "-wal", "-shm"] {
            let mut file = world.gateway.sqlite_file().into_os_string();
            file.push(behind);
            if let Err(error) = std::fs::remove_file(&file) {
                anyhow::ensure!(error.kind() == std::io::ErrorKind::NotFound, "removing {file:?}: {error}");
            }
        }
        world.gateway.resume()?;
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(rng.in_range(0..300)));
            world.gateway.kill();
            world.gateway.resume()?;
        }
        let gaps = wait_for("the gaps of what is lost", DRAIN_LIMIT, || {
            let fault = |error: anyhow::Error| format!("{error:#}");
            // The audit comes first: what the ledger says before the file was read is of before the loss.
            let audit = world.gateway.audit().map_err(fault)?;
            let status = world.gateway.status().map_err(fault)?;
            let of =
                |device: &str| status["devices"][device]["sinks"]["sqlite"]["gaps"]["sink_reset"].as_u64();
            let stored = status["ledger"]["confirmed"].as_u64();
            let is_exact = audit["verdict"] == "exact";
            match (of("a"), of("b"), stored) {
                (Some(a), Some(b), Some(stored)) if is_exact && a + b + stored == rows.unsigned_abs() => {
                    Ok((a, b))
                }
                _ => Err(format!("{status:#}\n{audit:#}")),
            }
        })?;
        anyhow::ensure!(
            gaps.0 > 3_000 * (lost + 1) && gaps.1 > 6_000 * (lost + 1),
            "{gaps:?} of {rows} rows"
        );
        eprintln!("{gaps:?} of {rows} rows are lost");
    }
    let file = Connection::open(world.gateway.sqlite_file())?;
    let query = "SELECT count(DISTINCT device) FROM readings
                 WHERE measurement = 'forebay_gap' AND json_extract(tags, '$.cause') = 'sink_reset'";
    wait_for("the gaps as points of the new file", DRAIN_LIMIT, || {
        match file.query_row(query, [], |row| row.get::<_, i64>(0)) {
            Ok(2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    world.gateway.close(DRAIN_LIMIT)?;
    world.scratch.passed();
    Ok(())
}

/// The gateway's own health, through kills: counted in the ledger like any other row, and exact in the database.
#[test]
fn the_gateways_health_is_stored_as_a_device_of_its_own() -> anyhow::Result<()> {
    let mut rng = Rng::announced("health")?;
    let scratch = Scratch::new("health")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tables = format!(
        "[tags]\ngateway = \"north barn\"\n[health]\ninterval = \"1s\"\n{}",
        Settings::influxdb_1(&server.url(), InfluxDb::DATABASE)
    );
    let load = Load { serial: 1, native: 1, json: 1, period: Duration::from_millis(50) };
    let mut world = World::start(scratch, load, tables)?;
    for _ in 0..3 {
        world.run(Duration::from_millis(rng.in_range(1_500..2_500)))?;
        world.gateway.kill();
        world.gateway.resume()?;
    }
    world.run(Duration::from_millis(2_500))?;
    let resident = world.gateway.usage().resident_bytes;
    let (since_ns, http) = (world.since_ns, Http::new()?);
    let status = world.gateway.status()?;
    // No row of it may be on its way while it is counted.
    world.gateway.closes(Closing::Consistent);
    let measurements = forebay_tests::device::MEASUREMENTS;
    let (ledger, scratch) = world
        .finish(|_| influxql::read(&http, &server.url(), InfluxDb::DATABASE, &measurements, since_ns))?;
    assert!(ledger.total.balanced() && ledger.total.gaps == 0, "{:?}", ledger.total);
    let points = influxql::select(&http, &server.url(), InfluxDb::DATABASE, "forebay_gateway", since_ns)?;
    let rows = status["devices"]["north barn"]["rows"].as_u64().unwrap_or(0);
    assert!(rows >= 5 && points.len() as u64 >= rows, "{rows} rows, {} points", points.len());
    assert!(
        points
            .iter()
            .all(|point| point.tag("device") == "north barn" && point.tag("gateway") == "north barn")
    );
    let last = points.last().map(|point| |name: &str| point.column(name).cloned());
    let last = last.ok_or_else(|| anyhow::anyhow!("no points"))?;
    let number = |name: &str| last(name).and_then(|value| value.as_u64()).unwrap_or(u64::MAX);
    assert!(number("acked_rows") > 20 && number("commits") > 5, "{points:?}");
    assert!((resident / 4..resident * 4).contains(&number("resident_bytes")), "{resident}: {points:?}");
    assert!(number("disk_free_bytes") > 1 << 20 && number("journal_max_bytes") == 1 << 30, "{points:?}");
    assert_eq!((number("gap_rows"), number("dead_letters"), number("health_dropped")), (0, 0, 0));
    assert_eq!(last("clock_believed"), Some(json!(true)));
    assert!(last("version").is_some_and(|version| version.is_string()));
    scratch.passed();
    Ok(())
}
