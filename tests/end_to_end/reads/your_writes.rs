//! A client that reads right after each acknowledgement, while database and gateway come and go, misses nothing and sees
//! nothing twice.

use std::time::{Duration, Instant};

use forebay_tests::gateway::Settings;
use forebay_tests::seed::{Rng, long};
use forebay_tests::services::{InfluxDb, VictoriaMetrics};

use super::site::{MEASUREMENT, Points, Site, points};
use crate::world::{DRAIN_LIMIT, Scratch};

const DEVICES: u64 = 4;

fn steps() -> u64 {
    if long() { 1_500 } else { 250 }
}

/// What happened during a run.
#[derive(Debug, Default)]
struct Counts {
    queries: u64,
    complete: u64,
    kills: u64,
    outages: u64,
}

/// Writes a few readings, with a kill of the gateway before their acknowledgement now and then.
fn write(site: &mut Site, rng: &mut Rng, counts: &mut Counts) -> anyhow::Result<()> {
    let count = rng.in_range(1..6);
    let readings: Vec<_> = (0..count)
        .map(|_| {
            let device = format!("d{}", rng.in_range(0..DEVICES));
            let number = site.acked.len() as i64 * 10 + rng.in_range(0..10).cast_signed();
            site.reading(&device, number)
        })
        .collect();
    site.publish(&readings)?;
    if rng.in_range(0..25) == 0 {
        counts.kills += 1;
        site.kill()?;
    }
    site.await_acks(readings)
}

/// Reads back everything, or one device, in pages of some size; points that were acknowledged before `shown_from_ns` may be
/// missing in an answer that says so.
fn read(site: &Site, rng: &mut Rng, shown_from_ns: Option<i64>, counts: &mut Counts) -> anyhow::Result<()> {
    let limit = [7, 100, 10_000][usize::try_from(rng.in_range(0..3))?];
    let device = format!("d{}", rng.in_range(0..DEVICES));
    let parameters: &[(&str, &str)] = match rng.in_range(0..3) {
        0 => &[],
        1 => &[("measurement", MEASUREMENT)],
        _ => &[("device", &device), ("measurement", MEASUREMENT)],
    };
    let answer = site.ask_all(parameters, limit)?;
    let found = points(&answer)?;
    let is_wanted = |(_, of): &(i64, String)| parameters.is_empty() || parameters.len() == 1 || *of == device;
    let all: Points =
        site.acked.iter().filter(|(at, _)| is_wanted(at)).map(|(at, n)| (at.clone(), *n)).collect();
    counts.queries += 1;
    counts.complete += u64::from(answer.complete);
    let Some(shown_from_ns) = shown_from_ns else {
        anyhow::ensure!(answer.complete, "not complete: {:?}", answer.reasons);
        anyhow::ensure!(found == all, "{parameters:?}: {}", difference(&found, &all));
        return Ok(());
    };
    anyhow::ensure!(!answer.complete && !answer.reasons.is_empty(), "complete without the database");
    let later = |points: &Points| {
        points
            .iter()
            .filter(|((ns, _), _)| *ns >= shown_from_ns)
            .map(|(at, n)| (at.clone(), *n))
            .collect::<Points>()
    };
    anyhow::ensure!(
        later(&found) == later(&all),
        "{parameters:?}: {}",
        difference(&later(&found), &later(&all))
    );
    anyhow::ensure!(found.iter().all(|(at, n)| all.get(at) == Some(n)), "a point that nobody wrote");
    Ok(())
}

fn difference(found: &Points, all: &Points) -> String {
    let missing: Vec<_> = all.iter().filter(|(at, _)| !found.contains_key(*at)).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|(at, _)| !all.contains_key(*at)).take(5).collect();
    format!("{} of {} points; missing {missing:?}, surplus {surplus:?}", found.len(), all.len())
}

#[test]
fn what_is_acked_can_be_read_from_influxdb_at_once_whatever_restarts() -> anyhow::Result<()> {
    let mut rng = Rng::announced("read your writes, InfluxDB")?;
    let scratch = Scratch::new("reads-influxdb")?;
    let mut server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tables = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let mut site = Site::start("reads-influxdb", scratch, &tables)?;
    let mut counts = Counts::default();
    // Since when the database is away, by the time of the first reading behind that.
    let mut away_since_ns: Option<i64> = None;
    for step in 0..steps() {
        match away_since_ns {
            None if rng.in_range(0..50) == 0 || step == 20 => {
                counts.outages += 1;
                server.stop()?;
                away_since_ns = Some(forebay_tests::clock::wall_ns());
            }
            Some(_) if rng.in_range(0..15) == 0 => {
                server.resume()?;
                away_since_ns = None;
            }
            _ => {}
        }
        write(&mut site, &mut rng, &mut counts)?;
        read(&site, &mut rng, away_since_ns, &mut counts)?;
    }
    if away_since_ns.is_some() {
        server.resume()?;
    }
    site.gateway.drain(DRAIN_LIMIT)?;
    read(&site, &mut rng, None, &mut counts)?;
    site.gateway.close(DRAIN_LIMIT)?;
    eprintln!("{} points; {counts:?}", site.acked.len());
    assert!(counts.kills > 2 && counts.outages > 0 && counts.complete < counts.queries, "{counts:?}");
    site.scratch.passed();
    Ok(())
}

#[test]
fn what_is_acked_can_be_read_from_sqlite_at_once_whatever_restarts() -> anyhow::Result<()> {
    let mut rng = Rng::announced("read your writes, SQLite")?;
    let mut site = Site::start("reads-sqlite", Scratch::new("reads-sqlite")?, "")?;
    let mut counts = Counts::default();
    for _ in 0..steps() {
        write(&mut site, &mut rng, &mut counts)?;
        read(&site, &mut rng, None, &mut counts)?;
    }
    site.gateway.drain(DRAIN_LIMIT)?;
    read(&site, &mut rng, None, &mut counts)?;
    site.gateway.close(DRAIN_LIMIT)?;
    eprintln!("{} points; {counts:?}", site.acked.len());
    assert!(counts.kills > 2 && counts.complete == counts.queries, "{counts:?}");
    site.scratch.passed();
    Ok(())
}

#[test]
fn a_store_without_influxql_is_named_and_what_it_lacks_is_shown() -> anyhow::Result<()> {
    let scratch = Scratch::new("reads-victoria")?;
    let server = VictoriaMetrics::start(&scratch.path().join("victoria"), true)?;
    let tables = Settings::influxdb_2(&server.url(), "o", "b", None);
    let mut site = Site::start("reads-victoria", scratch, &tables)?;
    let readings = (0..5).map(|number| site.reading("d0", number)).collect();
    site.write(readings)?;
    let answer = site.ask_all(&[("device", "d0")], 10)?;
    assert!(!answer.complete && answer.reasons[0].contains("VictoriaMetrics"), "{answer:?}");
    assert_eq!(points(&answer)?, site.acked);
    site.scratch.passed();
    Ok(())
}

#[test]
fn a_database_that_hangs_holds_nobody_up_for_longer_than_is_said() -> anyhow::Result<()> {
    let scratch = Scratch::new("reads-hang")?;
    // It accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let tables = Settings::influxdb_1(&format!("http://{}", silent.local_addr()?), "d");
    let mut site = Site::start("reads-hang", scratch, &tables)?;
    site.gateway.closes(forebay_tests::closing::Closing::Unaudited("its database never answers"));
    let reading = site.reading("d0", 1);
    site.write(vec![reading])?;
    let start = Instant::now();
    let answer = site.ask_all(&[], 10)?;
    let elapsed = start.elapsed();
    assert!(!answer.complete && answer.reasons[0].contains("takes too long"), "{answer:?}");
    assert_eq!(points(&answer)?, site.acked);
    assert!(elapsed <= forebay_gateway::query::PATIENCE + Duration::from_secs(5), "{elapsed:?}");
    site.scratch.passed();
    Ok(())
}
