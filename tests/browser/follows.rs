//! The page follows what happens: rows that flow, a database that goes, a device that is unplugged, a gateway that restarts.

use std::time::Duration;

use forebay_tests::clock::wait_for;
use serde_json::json;

use crate::driver::LIMIT;
use crate::site::{HOSTILE, Site};

/// The number in an element of the page.
fn number(site: &Site, selector: &str) -> anyhow::Result<f64> {
    let text = site.browser.text(selector)?;
    let digits: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    Ok(digits.parse()?)
}

const LEARNED: &str = "#ledger [data-part=learned] dd";

/// Waits until the ledger tells of more rows than `than`.
fn await_more(site: &Site, than: f64) -> anyhow::Result<f64> {
    wait_for("the page's telling of further rows", LIMIT, || match number(site, LEARNED) {
        Ok(learned) if learned > than => Ok(learned),
        other => Err(format!("{other:?}, not more than {than}")),
    })
}

/// The row of the source or database whose name has these words, as text.
fn row(words: &str) -> String {
    format!(
        "[...document.querySelectorAll('#parts tr')].find((row) => row.querySelector('th')?.innerText.includes({words:?}))?.innerText"
    )
}

#[test]
fn figures_move_devices_appear_and_names_are_only_text() -> anyhow::Result<()> {
    let site = Site::start("browser-figures")?;
    let browser = &site.browser;
    browser.await_text("#verdict-text", "Nothing is being lost.")?;
    let learned = await_more(&site, 0.0)?;
    await_more(&site, learned)?;
    browser.await_true(
        "a rate on the first arrow",
        "Number(document.querySelector('#rate-in').textContent) > 10",
    )?;
    browser.await_true(
        "a rate on the second arrow",
        "Number(document.querySelector('.lane b').textContent) > 10",
    )?;
    // What it is to show is in the first picture of the README.
    site.readings()?;
    browser.await_true(
        "lines of what came lately",
        "document.querySelectorAll('#devices .spark polyline[points*=\" \"]').length > 4",
    )?;
    browser.picture("well", (1100, 1560))?;
    site.reading_of(HOSTILE)?;
    let shown = format!(
        "[...document.querySelectorAll('#devices th b')].some((name) => name.textContent === {HOSTILE:?})"
    );
    browser.await_true("the device with a hostile name", &shown)?;
    for words in ["°C", "serial-0", "greenhouse", "±"] {
        browser.await_text("#devices", words)?;
    }
    assert_eq!(browser.run("return [document.title, document.querySelectorAll('main img').length]")?[1], 0);
    assert_eq!(browser.run("return document.title")?, "Forebay");
    let told = browser.console()?;
    assert!(told.is_empty(), "the console: {told:?}");
    site.finish()
}

#[test]
fn a_database_that_is_away_and_a_device_that_is_unplugged_are_named_with_a_cure() -> anyhow::Result<()> {
    let mut site = Site::start("browser-trouble")?;
    let port = site.world.fleet.ports().next().map(|port| port.display().to_string()).unwrap_or_default();
    site.server.stop()?;
    if let Some(device) = site.world.fleet.serial(0) {
        device.unplug();
    }
    let browser = &site.browser;
    browser.await_text("#verdict-text", "Nothing is being lost, but")?;
    browser.await_text("#findings", "The database main is away")?;
    browser.await_text("#findings", &format!("{port} is not connected"))?;
    let database = browser.await_text("#findings", &site.server.url())?;
    eprintln!("{database}");
    browser.await_true("the database's row", &format!("{}.includes('away, tried again')", row("main")))?;
    browser.await_true("the port's row", &format!("{}.includes('not there')", row(&port)))?;
    browser
        .await_true("a blocked arrow", "document.querySelector('.lane .pipe').dataset.flow === 'blocked'")?;
    browser.await_true(
        "a backlog that ages",
        "/\\d s old/.test(document.querySelector('#backlog').innerText)",
    )?;
    browser.await_text("#backlog", "not at the present pace")?;
    assert_eq!(browser.run("return document.title")?, "! Forebay");
    // Two seconds more of a backlog are something to look at.
    std::thread::sleep(Duration::from_secs(2));
    browser.picture("trouble", (1100, 1250))?;
    site.server.resume()?;
    if let Some(device) = site.world.fleet.serial(0) {
        device.plug_in();
    }
    site.browser.await_true(
        "the end of the trouble",
        "document.querySelector('#verdict-text').textContent === 'Nothing is being lost.'",
    )?;
    site.browser.await_text("#backlog", "now")?;
    site.finish()
}

/// Counts how often the page asks for the stream.
const COUNT: &str = "
    const ask = window.fetch;
    window.questions = 0;
    window.fetch = (path, options) => {
        if (String(path).includes('status/live')) window.questions += 1;
        return ask(path, options);
    };
";

#[test]
fn a_gateway_that_hangs_or_restarts_is_found_again_without_a_reload() -> anyhow::Result<()> {
    let mut site = Site::start("browser-restart")?;
    await_more(&site, 0.0)?;
    site.browser.run("window.marker = 7")?;
    // One that is there and says nothing is no better.
    site.world.gateway.pause()?;
    site.browser.run(COUNT)?;
    site.browser.await_text("#link", "Not connected")?;
    site.browser.run("const filter = document.querySelector('#filter'); filter.value = 'GREEN'; filter.dispatchEvent(new Event('input'))")?;
    // Nor is one that takes a question and does not answer it: it is given up, and asked again.
    site.browser.await_text("#devices-count", "Devices cannot be shown: the gateway does not answer")?;
    site.browser.await_true("a second question for the stream", "window.questions > 1")?;
    site.world.gateway.proceed()?;
    site.browser.await_true("a live page", "document.body.dataset.link === 'live'")?;
    site.browser.await_text("#devices-count", "1 to 1 of 1 that match")?;
    site.world.gateway.kill();
    let said = site.browser.await_text("#link", "Not connected")?;
    assert!(said.contains("What is shown is from"), "{said}");
    assert_eq!(site.browser.run("return document.body.dataset.link")?, "lost");
    let before = number(&site, LEARNED)?;
    site.world.gateway.resume()?;
    site.browser.await_true("a live page", "document.body.dataset.link === 'live'")?;
    await_more(&site, before)?;
    assert_eq!(site.browser.run("return window.marker")?, 7, "the page was loaded anew");
    site.finish()
}

#[test]
fn letters_that_could_not_be_listed_are_asked_for_again() -> anyhow::Result<()> {
    let site = Site::start("browser-letters")?;
    let browser = &site.browser;
    browser.await_text("#letters-count", "None")?;
    browser.tell("Network.enable", &json!({}))?;
    browser.tell("Network.setBlockedURLs", &json!({ "urls": ["*/api/v1/dead-letters*"] }))?;
    site.nonsense()?;
    browser.await_text("#letters-count", "They cannot be listed here: the gateway does not answer")?;
    browser.tell("Network.setBlockedURLs", &json!({ "urls": [] }))?;
    // There is no other letter that would have the page ask.
    browser.await_true("the letter", "document.querySelectorAll('#letters tr').length === 1")?;
    assert_eq!(browser.text("#letters-count")?, "1 row went there so far.");
    site.finish()
}

/// Shows a status of a gateway that knows words which the page does not, and that measures nothing; returns what is then told.
const STRANGE: &str = "
    const { showStatus } = await import('/ui/overview.js');
    const status = await (await fetch('/api/v1/status')).json();
    const [waiting, strange] = Object.keys(status.sources);
    status.sources[waiting].state = 'waiting';
    status.sources[strange].state = 'pondering';
    for (const of of [...Object.values(status.sources), ...Object.values(status.sinks)]) {
        of.rows_per_s = null;
        of.backlog_age_s = null;
        of.drain_s = null;
    }
    Object.assign(status.sinks.main, { state: 'running', backlog_rows: 7 });
    Object.assign(status.journal, { bytes_per_s: null, entries_per_s: null });
    delete status.machine;
    status.written_bytes_per_day = null;
    status.findings = [{ severity: 'wonder', what: 'the moon is blue', cure: null }];
    showStatus(status);
    const text = (selector) => document.querySelector(selector).innerText;
    const row = (name) => [...document.querySelectorAll('#parts tr')].find((row) => row.cells[0].textContent.includes(name));
    return {
        waiting: [row(waiting).cells[1].textContent, row(waiting).dataset.state],
        strange: [row(strange).cells[1].textContent, row(strange).dataset.state],
        rates: [row(waiting).cells[2].textContent, text('#rate-in'), text('.lane b')],
        path: text('#path-sources').includes('1 waits for a device'),
        sensors: document.querySelector('#node-sensors').dataset.state,
        lane: text('.lane .node p'),
        backlog: [...document.querySelector('#backlog tr').cells].slice(1).map((cell) => cell.textContent),
        finding: text('#findings'),
        title: document.title,
        written: text('#wear dd'),
    };
";

#[test]
fn words_and_gaps_that_the_page_does_not_know_are_borne() -> anyhow::Result<()> {
    let site = Site::start("browser-strange")?;
    let browser = &site.browser;
    browser.await_text("#devices", "greenhouse")?;
    // Between two events of the stream, since nothing here waits for more than the gateway's answer.
    let shown = browser.run(&format!("return (async () => {{ {STRANGE} }})()"))?;
    let wanted = json!({
        "waiting": ["\u{25cb} waiting for a device", "well"],
        "strange": ["pondering", "well"],
        "rates": ["\u{2013}", "\u{2013}", "\u{2013}"],
        "path": true,
        "sensors": "well",
        "lane": "7 rows behind",
        "backlog": ["7", "not known", "not known"],
        "finding": "The moon is blue",
        "title": "! Forebay",
        "written": "known a minute after the start",
    });
    assert_eq!(shown, wanted);
    let told = browser.console()?;
    assert!(told.is_empty(), "the console: {told:?}");
    site.finish()
}
