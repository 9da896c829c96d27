//! One series over a range, drawn from what journal and database have.

use crate::driver::{ENTER, LEFT};
use crate::site::Site;

/// How many points the line has.
const POINTS: &str =
    "[...document.querySelectorAll('#chart .mean')].reduce((sum, line) => sum + line.points.length, 0)";

#[test]
fn a_series_is_drawn_with_what_lies_between() -> anyhow::Result<()> {
    let mut site = Site::start("browser-chart")?;
    let browser = &site.browser;
    browser.await_text("#devices", "greenhouse")?;
    browser.run("document.querySelector('button[aria-label=\"Chart of greenhouse\"]').focus()")?;
    browser.press(ENTER)?;
    // An hour of a reading each 30 s, in windows of 20 s.
    browser.await_true("a line", &format!("{POINTS} >= 118"))?;
    browser.await_text("#chart-caption", "weather humidity of greenhouse")?;
    browser.run("document.querySelector('#chart-series').value = [...document.querySelectorAll('#chart-series option')].find((at) => at.textContent.includes('temperature')).value; document.querySelector('#chart-series').dispatchEvent(new Event('input'))")?;
    let caption = browser.await_text("#chart-caption", "weather temperature of greenhouse")?;
    assert!(caption.contains("from 2"), "{caption}");
    browser
        .await_true("one line without a hole", "document.querySelectorAll('#chart .mean').length === 1")?;
    let note = browser.await_text("#chart-note", "windows of 20 s")?;
    assert!(!note.contains("Not complete"), "{note}");
    // A row for each window, and a readout for each by the arrow keys.
    browser.await_true("the table", "document.querySelectorAll('#chart-rows tr').length === 100")?;
    browser.run("document.querySelector('#chart').focus()")?;
    browser.press(LEFT)?;
    browser.press(LEFT)?;
    browser.await_text("#chart-caption", "mean 2")?;
    browser.picture_of("chart", "#chart-section")?;

    site.server.stop()?;
    site.readings()?;
    let browser = &site.browser;
    browser.run("document.querySelector('#chart-form').requestSubmit()")?;
    let note = browser.await_text("#chart-note", "Not complete: ")?;
    eprintln!("{note}");
    site.server.resume()?;
    let browser = &site.browser;
    browser.run("document.querySelector('#chart-device').value = 'nobody'; document.querySelector('#chart-form').requestSubmit()")?;
    browser.await_text("#chart-note", "No numbers of nobody in this range.")?;
    let told = browser.console()?;
    assert!(told.is_empty(), "the console: {told:?}");
    site.finish()
}
