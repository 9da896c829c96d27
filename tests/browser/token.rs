//! A gateway that wants a token: the page asks for it, keeps it, and does with it what is done to nobody without.

use forebay_tests::clock::wall_ns;
use forebay_tests::device::publish;
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::services::InfluxDb;

use crate::driver::{Browser, ENTER};
use crate::site::Site;

const TOKEN: &str = "the-token-of-the-page-0123456789";

/// Lines from the broker, in whose measurements the database may already hold something else.
const LINES: &str = "[[mqtt.subscribe]]\ntopic = \"raw\"\nformat = \"line-protocol\"\n";

/// A gateway that wants the token, and a browser that is not there yet.
fn start(test: &str) -> anyhow::Result<Site> {
    Site::start_by(test, LINES, |gateway| {
        gateway.require_token(TOKEN)?;
        gateway.resume()
    })
}

/// Goes to the page, and gives it a token when it asks.
fn open_with(site: &Site, token: &str) -> anyhow::Result<()> {
    site.browser.open(&site.world.gateway.url("/"))?;
    site.browser.await_text("#token-why", "The gateway wants a token.")?;
    give(&site.browser, token)
}

fn give(browser: &Browser, token: &str) -> anyhow::Result<()> {
    assert_eq!(browser.run("return document.activeElement.id")?, "token-text");
    browser.write(token)?;
    browser.press(ENTER)
}

const LIVE: &str = "document.body.dataset.link === 'live'";
const HIDDEN: &str = "return document.querySelector('#token').hidden";

#[test]
fn a_token_is_asked_for_kept_and_sent_with_everything() -> anyhow::Result<()> {
    let site = start("browser-token")?;
    let browser = &site.browser;
    open_with(&site, "wrong")?;
    browser.await_text("#token-why", "The gateway does not take this token.")?;
    give(browser, "schl\u{fc}ssel")?;
    browser.await_text("#token-why", "signs of ASCII only")?;
    browser.run("document.querySelector('#token-text').value = ''")?;
    give(browser, TOKEN)?;
    browser.await_true("a live page", LIVE)?;
    browser.await_text("#devices", "greenhouse")?;
    browser.await_text("#letters-count", "None")?;
    assert_eq!(browser.run(HIDDEN)?, true);
    let elsewhere = browser.run("return document.cookie + location.href + JSON.stringify(localStorage)")?;
    assert!(!elsewhere.to_string().contains(TOKEN), "{elsewhere}");
    // It outlives a reload, as a tab does.
    site.open()?;
    assert_eq!(browser.run(HIDDEN)?, true);
    // What no header can carry is forgotten.
    browser.run("sessionStorage.setItem('forebay-token', 'schl\u{fc}ssel')")?;
    open_with(&site, TOKEN)?;
    browser.await_true("a live page", LIVE)?;
    browser.await_text("#devices", "greenhouse")?;
    site.finish()
}

#[test]
fn with_the_token_a_point_that_was_refused_is_sent_again_from_the_page() -> anyhow::Result<()> {
    let site = start("browser-replay")?;
    let (browser, http, ns) = (&site.browser, Http::new()?, wall_ns());
    let (url, database) = (site.server.url(), InfluxDb::DATABASE);
    // The database holds a number where the gateway is to store a text.
    let write = format!("{url}/write?db={database}&precision=ns");
    http.post(&write, "text/plain", format!("other v=1.5 {ns}"))?.successful("a point")?;
    publish(
        site.world.broker.port,
        vec![("raw".to_owned(), format!("other,device=esp v=\"a text\" {ns}").into())],
    )?;
    open_with(&site, TOKEN)?;
    browser.await_text("#letters", "field type conflict")?;
    browser.await_text("#letters", "esp")?;
    browser.run("document.querySelector('#letters button').focus()")?;
    browser.press(ENTER)?;
    let said = browser.await_text("#replay-result", "0 letters are stored. 1 stays: ")?;
    assert!(said.contains("field type conflict"), "{said}");
    // The button that was pressed can be pressed again.
    assert_eq!(browser.run("return document.activeElement.textContent")?, "Send again");
    let drop = format!("{url}/query?db={database}&q={}", percent_encode("DROP MEASUREMENT other"));
    http.post(&drop, "text/plain", String::new())?.successful("the mending")?;
    browser.press(ENTER)?;
    browser.await_text("#replay-result", "1 letter is stored.")?;
    browser.await_true("the letter's going", "document.querySelectorAll('#letters tr').length === 0")?;
    assert_eq!(browser.run("return document.activeElement.id")?, "letters-head");
    site.finish()
}
