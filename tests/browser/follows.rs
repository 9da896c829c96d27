//! The page follows what happens: rows that flow, a database that goes, a device that is unplugged, a gateway that restarts.

use std::time::Duration;

use forebay_tests::clock::wait_for;

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

#[test]
fn a_gateway_that_hangs_or_restarts_is_found_again_without_a_reload() -> anyhow::Result<()> {
    let mut site = Site::start("browser-restart")?;
    await_more(&site, 0.0)?;
    site.browser.run("window.marker = 7")?;
    // One that is there and says nothing is no better.
    site.world.gateway.pause()?;
    site.browser.await_text("#link", "Not connected")?;
    site.world.gateway.proceed()?;
    site.browser.await_true("a live page", "document.body.dataset.link === 'live'")?;
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
