//! Some hundred clients that ask as fast as they can keep nobody from being acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forebay_tests::gateway::Settings;
use forebay_tests::http::Http;
use forebay_tests::readback::influxql;
use forebay_tests::services::InfluxDb;

use super::site::{MEASUREMENT, Site};
use crate::world::{DRAIN_LIMIT, Scratch};

/// Clients that ask, each one query after another.
const CLIENTS: usize = 300;

/// Readings that are acknowledged before, and meanwhile.
const READINGS: i64 = 10_000;

/// The most memory that the gateway may use.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Default)]
struct Flood {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Neither an answer nor a refusal; the first of them.
    strange: AtomicU64,
    first: OnceLock<String>,
    over: AtomicBool,
}

async fn ask(client: reqwest::Client, url: String, flood: Arc<Flood>) {
    while !flood.over.load(Ordering::Relaxed) {
        let answer = client.get(&url).send().await;
        let count = match answer.map(|answer| answer.status().as_u16()) {
            Ok(200) => &flood.answered,
            Ok(503) => &flood.refused,
            // Of one host there may be so many connections, and one more is closed.
            Err(error) if error.is_connect() || error.is_request() && !error.is_timeout() => &flood.refused,
            other => {
                flood.first.get_or_init(|| format!("{other:?}"));
                &flood.strange
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets all clients ask until it is over.
fn run(url: &str, flood: &Arc<Flood>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(120)).no_proxy().build()?;
    runtime.block_on(async {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(ask(client.clone(), url.to_owned(), Arc::clone(flood))))
            .collect();
        for client in clients {
            client.await?;
        }
        Ok(())
    })
}

fn write(site: &mut Site, first: i64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for hundred in (first..first + READINGS).step_by(100) {
        let readings = (hundred..hundred + 100).map(|number| site.reading("d0", number)).collect();
        site.write(readings)?;
    }
    Ok(start.elapsed())
}

#[test]
fn a_flood_of_queries_holds_up_no_ack_and_loses_nothing() -> anyhow::Result<()> {
    let scratch = Scratch::new("flood")?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tables = Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let mut site = Site::start("flood", scratch, &tables)?;
    let quiet = write(&mut site, 0)?;

    let flood = Arc::new(Flood::default());
    let url = site.gateway.url(&format!("/api/v1/query?from={}&limit=2000", site.since_ns));
    let clients = {
        let flood = Arc::clone(&flood);
        std::thread::spawn(move || run(&url, &flood))
    };
    forebay_tests::clock::wait_for("the flood", super::site::ACK_LIMIT, || {
        match flood.answered.load(Ordering::Relaxed) {
            0..5 => Err(format!("{flood:?}")),
            _ => Ok(()),
        }
    })?;
    let before = flood.answered.load(Ordering::Relaxed);
    let flooded = write(&mut site, READINGS)?;
    let meanwhile = flood.answered.load(Ordering::Relaxed) - before;
    flood.over.store(true, Ordering::Relaxed);
    clients.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    let usage = site.gateway.usage();
    eprintln!(
        "{READINGS} acks in {:.1} s alone and in {:.1} s beside {meanwhile} answers to {CLIENTS} clients; {flood:?}; {} MiB at most",
        quiet.as_secs_f64(),
        flooded.as_secs_f64(),
        usage.resident_bytes_max >> 20
    );
    assert!(meanwhile > 0 && flood.refused.load(Ordering::Relaxed) > 0, "there was no flood");
    // Generous, since the clients and the database share the machine: it tells a claim that is ignored.
    assert!(flooded <= 10 * quiet + Duration::from_secs(1), "{flooded:?} beside a flood, {quiet:?} without");
    assert_eq!(flood.strange.load(Ordering::Relaxed), 0, "neither answered nor refused: {:?}", flood.first);
    assert!(usage.resident_bytes_max < RESIDENT_BYTES_MAX, "{usage:?}");
    assert_eq!(site.tap.figures().connections, 1, "the gateway lost its broker");
    site.gateway.drain(DRAIN_LIMIT)?;
    let stored = influxql::select(&Http::new()?, &server.url(), InfluxDb::DATABASE, MEASUREMENT, 0)?;
    assert_eq!(stored.len() as i64, 2 * READINGS);
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}
