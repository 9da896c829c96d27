//! Thousands of devices, and many who look on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forebay_tests::clock::wall_ns;
use forebay_tests::device::publish;
use forebay_tests::http::Http;

use crate::site::Site;

const DEVICES: usize = 1_000;
/// Streams that the gateway serves at once.
const STREAMS: usize = 16;
const MEASURED: Duration = Duration::from_secs(10);

/// CPU seconds that the gateway takes in [`MEASURED`].
fn cpu_seconds(site: &Site) -> f64 {
    let before = site.world.gateway.usage().cpu_seconds;
    std::thread::sleep(MEASURED);
    site.world.gateway.usage().cpu_seconds - before
}

/// Follows the status on a thread of its own until the gateway is gone or the test is over; returns bytes and events.
fn follow(url: &str) -> anyhow::Result<TcpStream> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /api/v1/status/live HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
    let reader = BufReader::new(stream.try_clone()?);
    std::thread::spawn(move || reader.lines().map_while(Result::ok).for_each(drop));
    Ok(stream)
}

#[test]
fn a_thousand_devices_are_shown_by_the_page_and_cost_little() -> anyhow::Result<()> {
    let site = Site::start("browser-many")?;
    let browser = &site.browser;
    let messages = (0..DEVICES).map(|n| {
        let payload = format!("{{\"time\":{},\"temperature\":{}}}", wall_ns(), n % 40);
        (format!("sensors/meter-{n:04}/field"), payload.into_bytes())
    });
    publish(site.world.broker.port, messages.collect())?;
    browser.await_text("#path-devices", "1,009 devices")?;
    browser.await_text("#devices-count", "1 to 25 of 1,009 devices")?;
    browser.await_true("a page of rows", "document.querySelectorAll('#devices tr').length === 25")?;
    let nodes = browser.run("return document.querySelectorAll('*').length")?;
    assert!(nodes.as_u64().is_some_and(|nodes| nodes < 1_500), "{nodes} nodes");
    browser.run("document.querySelector('#on').click()")?;
    browser.await_text("#devices-count", "26 to 50 of 1,009 devices")?;
    browser.run("const filter = document.querySelector('#filter'); filter.value = 'METER-077'; filter.dispatchEvent(new Event('input'))")?;
    browser.await_text("#devices-count", "1 to 10 of 10 that match, of 1,009 devices")?;
    browser.open("about:blank")?;

    let http = Http::new()?;
    let table = http.get(&site.world.gateway.url("/api/v1/table?sort=silent&limit=100000"))?;
    let table: serde_json::Value = serde_json::from_str(&table.successful("the table")?.body)?;
    assert_eq!(table["devices"].as_array().map(Vec::len), Some(200), "a page has a limit");
    let refused = http.get(&site.world.gateway.url("/api/v1/table?colour=red"))?;
    assert_eq!(refused.status, 400);

    let url = site.world.gateway.url("/");
    // Of the page that was left, the gateway learns when it next has something to say.
    let idle = cpu_seconds(&site);
    let first = follow(&url)?;
    let one = cpu_seconds(&site);
    let others = (1..STREAMS).map(|_| follow(&url)).collect::<anyhow::Result<Vec<_>>>()?;
    let all = cpu_seconds(&site);
    let asked = Instant::now();
    let too_many = http.get(&site.world.gateway.url("/api/v1/status/live"));
    let status = too_many.context("the stream that is one too many")?.status;
    assert!(status == 503 && asked.elapsed() < Duration::from_secs(5), "{status}");
    eprintln!(
        "gateway with {DEVICES} devices, CPU seconds in {MEASURED:?}: nobody looks on {idle:.2}, one {one:.2}, {STREAMS} {all:.2}"
    );
    assert!(all - idle < 1.0, "{all} CPU seconds for {STREAMS} who look on");
    drop((first, others));
    site.finish()
}
