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

/// Pairs of numbers for a scale, each with how many lines it gets.
const SCALES: &str = "
    const { niceTicks } = await import('/ui/chart.js');
    const [most, least] = [Number.MAX_VALUE, Number.MIN_VALUE];
    const pairs = [
        [0.3, 0.1 + 0.2], [1013.25, 1013.2500000000001], [1e16, 1e16 + 2], [0, 0], [0, least], [-most, most], [most, most],
        [1e-310, 2e-310], [NaN, NaN], [-Infinity, Infinity], [Infinity, -Infinity], [5, Infinity], [21.3, 24.8],
    ];
    const isGood = (ticks) => ticks.length > 1 && ticks.length <= 8 && ticks.every(Number.isFinite) && ticks[0] < ticks.at(-1);
    return [niceTicks(21.3, 24.8), pairs.filter((pair) => !isGood(niceTicks(...pair))).map(String)];
";

#[test]
fn values_that_differ_by_a_rounding_are_drawn_like_any_others() -> anyhow::Result<()> {
    let site = Site::start("browser-flat")?;
    let browser = &site.browser;
    let scales = browser.run(&format!("return (async () => {{ {SCALES} }})()"))?;
    assert_eq!(scales, serde_json::json!([[21, 22, 23, 24, 25], []]));
    for (device, values) in [
        ("third", [0.3, 0.1 + 0.2]),
        ("pressure", [1013.25, 1_013.250_000_000_000_1]),
        ("great", [1e16, 1e16 + 2.0]),
    ] {
        site.pair_of(device, values)?;
        browser.await_text("#devices", device)?;
        browser.run(&format!("document.querySelector('#chart-device').value = {device:?}; document.querySelector('#chart-form').requestSubmit()"))?;
        let caption = browser.await_text("#chart-caption", &format!("weather value of {device}"))?;
        assert!(caption.contains("in windows of 20 s"), "{caption}");
        let lines = browser.run("return document.querySelectorAll('#chart .grid').length")?;
        assert!(lines.as_u64().is_some_and(|lines| (2..=8).contains(&lines)), "{lines} lines");
        let wrong =
            browser.run("return /NaN|Infinity/.test(document.querySelector('#chart-plot').innerHTML)")?;
        assert_eq!(wrong, false, "{device} is drawn at a place that is none");
    }
    site.finish()
}
