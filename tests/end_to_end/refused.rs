//! Points that the genuine InfluxDB 1 refuses: found in few requests, kept with its words, and stored once the cause is
//! mended.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::device::publish;
use forebay_tests::gateway::Settings;
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::proxy::HttpProxy;
use forebay_tests::readback::influxql::{self, Point};
use forebay_tests::services::InfluxDb;
use serde_json::Value;

use crate::world::{Load, Scratch, World, program};

const LIMIT: Duration = Duration::from_secs(30);

/// A gateway that takes lines, and a database behind a proxy that counts requests.
struct Site {
    world: World,
    server: InfluxDb,
    proxy: HttpProxy,
    http: Http,
}

/// Waits until the gateway has its subscriptions: what comes before, no broker keeps for it.
fn await_broker(world: &World) -> anyhow::Result<()> {
    wait_for("the gateway's session at the broker", LIMIT, || {
        let status = world.gateway.status().map_err(|error| format!("{error:#}"))?;
        let sources = status["sources"].as_object().cloned().unwrap_or_default();
        match sources.values().all(|source| source["state"] == "connected") && !sources.is_empty() {
            true => Ok(()),
            false => Err(format!("{sources:?}")),
        }
    })
}

impl Site {
    fn start(name: &str) -> anyhow::Result<Site> {
        let scratch = Scratch::new(name)?;
        let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
        let proxy = HttpProxy::start(server.port)?;
        let table = format!(
            "[[mqtt.subscribe]]\ntopic = \"raw\"\nformat = \"line-protocol\"\n{}",
            Settings::influxdb_1(&proxy.url(), InfluxDb::DATABASE)
        );
        let load = Load { serial: 0, native: 0, json: 0, period: Duration::from_secs(1) };
        let world = World::start(scratch, load, table)?;
        await_broker(&world)?;
        Ok(Site { world, server, proxy, http: Http::new()? })
    }

    fn query(&self, statement: &str) -> anyhow::Result<()> {
        let (url, statement_text) = (self.server.url(), percent_encode(statement));
        let url = format!("{url}/query?db={}&q={statement_text}", InfluxDb::DATABASE);
        let answer = self.http.post(&url, "text/plain", String::new())?.successful(statement)?;
        anyhow::ensure!(!answer.body.contains("error"), "{statement}: {}", answer.body);
        Ok(())
    }

    /// Writes a line past the gateway.
    fn write(&self, line: &str) -> anyhow::Result<()> {
        let url = format!("{}/write?db={}&precision=ns", self.server.url(), InfluxDb::DATABASE);
        self.http.post(&url, "text/plain", line.to_owned())?.successful(line).map(drop)
    }

    /// Sends lines in one message, and waits until so many rows in all are confirmed and so many dead-lettered; how many
    /// requests that took.
    fn send(&self, lines: String, confirmed: u64, refused: u64) -> anyhow::Result<u64> {
        let before = self.proxy.counts().requests;
        publish(self.world.broker.port, vec![("raw".to_owned(), lines.into_bytes())])?;
        self.settle(confirmed, refused)?;
        Ok(self.proxy.counts().requests - before)
    }

    fn settle(&self, confirmed: u64, refused: u64) -> anyhow::Result<()> {
        wait_for("the database's word on each row", LIMIT, || {
            let status = self.world.gateway.status().map_err(|error| format!("{error:#}"))?;
            let of = |name: &str| status["ledger"][name].as_u64();
            match (of("confirmed"), of("dead_lettered"), of("queued"), of("unconfirmed")) {
                (Some(c), Some(d), Some(0), Some(0)) if (c, d) == (confirmed, refused) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    fn points(&self, measurement: &str) -> anyhow::Result<Vec<Point>> {
        influxql::select(&self.http, &self.server.url(), InfluxDb::DATABASE, measurement, 0)
    }

    /// Runs `forebay dead-letters …`; whether all was well, and what it said.
    fn dead_letters(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut command = program().bare();
        command.arg("dead-letters").args(arguments).arg("--config").arg(self.world.gateway.config());
        let output = command.stdin(Stdio::null()).output()?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), said))
    }

    fn letters(&self) -> anyhow::Result<Vec<Value>> {
        let (good, said) = self.dead_letters(&["list", "--json"])?;
        anyhow::ensure!(good, "{said}");
        let list: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        Ok(list["letters"].as_array().cloned().unwrap_or_default())
    }

    fn finish(self) -> anyhow::Result<()> {
        let (_, scratch) = self.world.finish(|_| Ok(forebay_tests::readback::Stored::default()))?;
        scratch.passed();
        Ok(())
    }
}

#[test]
fn one_type_conflict_in_5000_is_kept_with_its_reason_and_stored_once_it_is_mended() -> anyhow::Result<()> {
    let site = Site::start("refused-one")?;
    let ns = wall_ns();
    site.write(&format!("other v=1.5 {ns}"))?;
    let mut lines = String::new();
    for n in 0..5_000 {
        let at = ns + n;
        if n == 3_210 {
            writeln!(lines, "other,device=esp v=\"a text\" {at}")?;
        } else {
            writeln!(lines, "climate,device=esp n={n} {at}")?;
        }
    }
    let requests = site.send(lines, 4_999, 1)?;
    assert_eq!(site.points("climate")?.len(), 4_999);
    let letters = site.letters()?;
    let [letter] = &letters[..] else { anyhow::bail!("{letters:?}") };
    let reason = letter["reason"].as_str().unwrap_or_default();
    eprintln!("{requests} requests for 5,000 points with one bad; the reason kept: {reason}");
    assert!(reason.contains("field type conflict: input field \"v\" on measurement \"other\""), "{reason}");
    assert!(requests <= 4, "{requests} requests");

    let id = letter["id"].as_str().unwrap_or_default().to_owned();
    let (good, said) = site.dead_letters(&["replay", &id])?;
    assert!(!good && said.contains("still refused"), "nothing is mended yet: {said}");
    assert_eq!(site.letters()?.len(), 1);
    site.query("DROP MEASUREMENT other")?;
    let (good, said) = site.dead_letters(&["replay", &id])?;
    assert!(good && said.contains("1 dead letter is stored, and gone"), "{said}");
    assert_eq!(site.letters()?.len(), 0);
    site.settle(5_000, 0)?;
    let points = site.points("other")?;
    let [point] = &points[..] else { anyhow::bail!("{points:?}") };
    assert_eq!(point.column("v").and_then(Value::as_str), Some("a text"));
    assert_eq!(point.column("time").and_then(Value::as_i64), Some(ns + 3_210), "its own time");
    assert_eq!(point.tag("device"), "esp");
    site.finish()
}

#[test]
fn with_the_token_what_was_refused_is_sent_again_over_tcp_and_the_page_is_for_everybody() -> anyhow::Result<()>
{
    const TOKEN: &str = "the-token-of-this-test-0123456789";
    let mut site = Site::start("refused-token")?;
    let ns = wall_ns();
    site.write(&format!("other v=1.5 {ns}"))?;
    site.send(format!("other,device=esp v=\"a text\" {ns}"), 0, 1)?;
    site.world.gateway.kill();
    site.world.gateway.require_token(TOKEN)?;
    site.world.gateway.resume()?;
    let (stranger, bearer) = (Http::new()?, Http::bearing(TOKEN)?);
    let url = |path: &str| site.world.gateway.url(path);
    for path in ["/", "/ui/app.js", "/ui/ask.js", "/ui/letters.js", "/healthz"] {
        assert_eq!(stranger.get(&url(path))?.status, 200, "{path}");
    }
    let closed = ["/api/v1/status/live", "/api/v1/table", "/api/v1/dead-letters", "/api/v1/live"];
    for path in closed {
        assert_eq!(stranger.get(&url(path))?.status, 401, "{path}");
    }
    let mut stream = TcpStream::connect(site.world.gateway.http_address())?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET /api/v1/status/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")?;
    let event = BufReader::new(stream).lines().find(|line| {
        line.as_ref().map_or(true, |line| line.contains("event: status") || line.starts_with("HTTP/1.1 4"))
    });
    let event = event.context("the stream has ended")??;
    assert_eq!(event, "event: status", "the token opens the stream");

    let list = bearer.get_json(&url("/api/v1/dead-letters?limit=100"))?;
    let id = list["letters"][0]["id"].as_str().context("no letter")?.to_owned();
    // As the button of the page does.
    let replay = |http: &Http| {
        let body = format!("{{\"ids\":[\"{id}\"]}}");
        http.post(&url("/api/v1/dead-letters/replay"), "application/json", body)
    };
    assert_eq!(replay(&stranger)?.status, 401);
    let done = |http: &Http| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&replay(http)?.successful("replay")?.body)?)
    };
    let kept = done(&bearer)?;
    assert_eq!((&kept["gone"], &kept["kept"]), (&0.into(), &1.into()), "nothing is mended yet: {kept}");
    site.query("DROP MEASUREMENT other")?;
    let gone = done(&bearer)?;
    assert_eq!((&gone["gone"], &gone["kept"]), (&1.into(), &0.into()), "{gone}");
    site.settle(1, 0)?;
    assert_eq!(site.points("other")?.len(), 1);
    site.finish()
}

#[test]
fn thousands_of_bad_points_cost_few_requests_and_are_dropped_on_request() -> anyhow::Result<()> {
    let site = Site::start("refused-many")?;
    let ns = wall_ns();
    site.write(&format!("other v=1.5 {ns}"))?;
    let (mut good, mut bad) = (0, 0);
    for round in 0..3_i64 {
        let mut lines = String::new();
        for n in 0..4_000 {
            let at = ns + 4_000 * round + n;
            match n % 4 {
                0 => writeln!(lines, "other,device=bad v=\"text\" {at}")?,
                // No integer of InfluxDB 1.
                1 if n < 400 => writeln!(lines, "big,device=bad v=18446744073709551615u {at}")?,
                _ => writeln!(lines, "climate,device=esp n={n} {at}")?,
            }
        }
        (good, bad) = (good + 2_900, bad + 1_100);
        let requests = site.send(lines, good, bad)?;
        eprintln!("round {round}: {requests} requests for 4,000 points, 1,100 of which are bad in two ways");
        assert!(requests <= 8, "round {round}: {requests} requests");
    }
    assert_eq!(site.points("climate")?.len(), 8_700);
    let letters = site.letters()?;
    assert_eq!(letters.iter().filter(|letter| letter["rows"] == 1).count(), 3_300);
    let (done, said) = site.dead_letters(&["drop", "--all", "--sink", "nobody"])?;
    assert!(done && said.contains("there is no such dead letter"), "{said}");
    let refused = || -> anyhow::Result<(Value, Value)> {
        let mut status = site.world.gateway.status()?;
        let sink = status["sinks"].as_object_mut().and_then(|sinks| sinks.values_mut().next());
        let refused = sink.map_or(Value::Null, |sink| sink["refused_since_start"].take());
        Ok((refused, status["dead_letters_discarded"]["rows"].take()))
    };
    assert_eq!(refused()?, (3_300.into(), 0.into()));
    let (done, said) = site.dead_letters(&["drop", "--all"])?;
    assert!(done && said.contains("dead letters are dropped"), "{said}");
    assert_eq!(site.letters()?.len(), 0);
    assert_eq!(refused()?, (0.into(), 3_300.into()), "nothing is left to send again");
    site.finish()
}

#[test]
fn what_is_beyond_the_retention_goes_by_itself() -> anyhow::Result<()> {
    let site = Site::start("refused-retention")?;
    site.query(&format!(
        "CREATE RETENTION POLICY hour ON {} DURATION 1h REPLICATION 1 SHARD DURATION 1h DEFAULT",
        InfluxDb::DATABASE
    ))?;
    let ns = wall_ns();
    let two_hours = 7_200_000_000_000;
    let mut lines = String::new();
    for n in 0..1_000 {
        let at = if n % 5 == 0 { ns - two_hours + n } else { ns + n };
        writeln!(lines, "climate,device=esp n={n} {at}")?;
    }
    let requests = site.send(lines, 800, 200)?;
    let letters = site.letters()?;
    let reason = letters.first().and_then(|letter| letter["reason"].as_str()).unwrap_or_default().to_owned();
    eprintln!("{requests} requests for 1,000 points, 200 of which are too old: {reason}");
    assert!(reason.contains("beyond retention policy"), "{reason}");
    assert!(requests <= 8, "{requests} requests");
    site.finish()
}

#[test]
fn a_version_that_is_left_open_is_found_out() -> anyhow::Result<()> {
    let scratch = Scratch::new("refused-open")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let table = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE).replace("version = 1\n", "")
        + "[[mqtt.subscribe]]\ntopic = \"raw\"\nformat = \"line-protocol\"\n";
    let load = Load { serial: 0, native: 0, json: 0, period: Duration::from_secs(1) };
    let world = World::start(scratch, load, table)?;
    await_broker(&world)?;
    publish(
        world.broker.port,
        vec![("raw".to_owned(), format!("m,device=d v=1 {}", wall_ns()).into_bytes())],
    )?;
    wait_for("the row's confirmation", LIMIT, || match world.gateway.backlog() {
        Ok((0, 1)) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let stored = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, "m", 0)?;
    assert_eq!(stored.len(), 1);
    assert!(world.gateway.log_text()?.contains("the server is of version 1"));
    let (_, scratch) = world.finish(|_| Ok(forebay_tests::readback::Stored::default()))?;
    scratch.passed();
    Ok(())
}
