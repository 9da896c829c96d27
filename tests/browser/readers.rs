//! Readers with a keyboard, a phone, or the dark around them.

use crate::driver::{ENTER, TAB};
use crate::site::{HOSTILE, Site};

#[test]
fn everything_can_be_reached_and_used_by_keyboard() -> anyhow::Result<()> {
    let site = Site::start("browser-keyboard")?;
    let browser = &site.browser;
    site.nonsense()?;
    browser.await_text("#letters-count", "1 row")?;
    // A row of the table that is put in while the focus is before it changes nothing.
    browser.await_text("#devices", "greenhouse")?;
    browser.run("document.activeElement.blur()")?;
    let wanted = ["filter", "sort", "tbw", "replay", "chart-device", "chart-series", "chart-range"];
    let mut reached: Vec<String> = Vec::new();
    while !reached.iter().any(|id| id == "chart-range") {
        browser.press(TAB)?;
        let script = "const at = document.activeElement, style = getComputedStyle(at); \
                      return [at.id || at.textContent, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]";
        let focus = browser.run(script)?;
        let id = focus[0].as_str().unwrap_or_default().to_owned();
        assert_eq!(focus[1], true, "no visible focus on {id:?}");
        reached.push(id);
        assert!(reached.len() < 80, "{reached:?}");
    }
    assert_eq!(reached[0], "Skip to the content");
    let places = wanted.map(|id| reached.iter().position(|at| at == id));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{reached:?}");

    browser.run("document.querySelector('#replay').focus()")?;
    browser.press(ENTER)?;
    // Without a token, the gateway says why it sends nothing again.
    browser.await_true(
        "the gateway's word",
        "document.querySelector('#replay-result').textContent.startsWith('Not sent: ')",
    )?;
    browser.run("document.querySelector('#filter').focus()")?;
    browser.write("GREEN")?;
    browser.await_text("#devices-count", "1 to 1 of 1 that match, of")?;
    browser.await_true("one device", "document.querySelectorAll('#devices tr').length === 1")?;
    site.finish()
}

#[test]
fn the_focus_stays_where_it_is_when_rows_change_their_order() -> anyhow::Result<()> {
    let site = Site::start("browser-focus")?;
    let browser = &site.browser;
    browser.await_text("#devices", "serial-1")?;
    browser.run(
        "window.held = [...document.querySelectorAll('#devices tr')].at(-1).querySelector('button'); held.focus()",
    )?;
    browser.run("const sort = document.querySelector('#sort'); sort.value = 'rows'; sort.dispatchEvent(new Event('input'))")?;
    // It sends ten rows a second, more than the hour of others that are before it.
    browser.await_true("another place of the row", "held.closest('tr').nextElementSibling !== null")?;
    assert_eq!(browser.run("return document.activeElement === held && held.isConnected")?, true);
    // What is read out to those who do not see the chart.
    assert_eq!(
        browser.run("return document.querySelector('#chart-caption').getAttribute('aria-live')")?,
        "polite"
    );
    site.finish()
}

/// Words whose contrast to what is behind them is below that of WCAG 2 AA, each with its contrast.
const PALE: &str = "
    const parts = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = parts(color).map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if ((parts(color)[3] ?? 1) === 1) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const pale = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
        const element = node.parentElement;
        if (!node.textContent.trim() || element.closest('noscript, svg, .vh') || element.offsetParent === null || element.disabled) continue;
        const [front, back] = [light(getComputedStyle(element).color), light(behind(element))];
        const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        if (contrast < 4.5) pale.push(`${node.textContent.trim()}: ${contrast.toFixed(2)}`);
    }
    return pale;
";

#[test]
fn it_fits_a_phone_and_suits_the_dark() -> anyhow::Result<()> {
    let mut site = Site::start("browser-phone")?;
    site.reading_of(HOSTILE)?;
    site.reading_of(&"long-name-without-a-break".repeat(4))?;
    site.browser.await_text("#devices", "greenhouse")?;
    // The worst page is one with trouble.
    site.server.stop()?;
    site.browser.await_text("#findings", "The database main is away")?;
    let browser = &site.browser;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme)?;
        let pale = browser.run(PALE)?;
        assert_eq!(pale, serde_json::json!([]), "too little contrast in {scheme} mode");
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor")?);
    }
    assert_ne!(grounds[0], grounds[1], "the dark is no darker");

    browser.resize((360, 740))?;
    let wide = browser.run(
        "return [...document.querySelectorAll('body *')].filter((at) => at.getBoundingClientRect().right > 360.5 \
         && !at.closest('.vh, svg, thead')).map((at) => at.tagName + '#' + at.id + '.' + at.className)",
    )?;
    assert_eq!(wide, serde_json::json!([]), "wider than a phone");
    assert_eq!(browser.run("return document.documentElement.scrollWidth")?, 360);
    assert_eq!(browser.run(PALE)?, serde_json::json!([]), "too little contrast on a phone");

    site.server.resume()?;
    let browser = &site.browser;
    browser.await_true(
        "the end of the trouble",
        "document.querySelector('#verdict-text').textContent === 'Nothing is being lost.'",
    )?;
    browser.await_true(
        "rates of both halves of the path",
        "[...document.querySelectorAll('#rate-in, .lane b')].every((rate) => Number(rate.textContent) > 10)",
    )?;
    browser.prefer("light")?;
    browser.picture("phone", (360, 1150))?;
    browser.resize(crate::driver::DESK)?;
    browser.prefer("dark")?;
    browser.run("scrollTo(0, 0)")?;
    browser.picture("dark", (1100, 1000))?;
    site.finish()
}

#[test]
fn it_has_landmarks_headings_and_names_for_everything() -> anyhow::Result<()> {
    let site = Site::start("browser-names")?;
    let browser = &site.browser;
    browser.await_text("#devices", "greenhouse")?;
    let nameless = browser.run(
        "return [...document.querySelectorAll('input, select, button, figure svg')].filter((at) => \
         !(at.labels?.length || at.getAttribute('aria-label') || at.textContent.trim())).map((at) => at.id)",
    )?;
    assert_eq!(nameless, serde_json::json!([]), "controls without a name");
    let tables = browser.run("return [...document.querySelectorAll('table')].every((at) => at.caption && at.querySelector('thead th[scope=col]'))")?;
    assert_eq!(tables, true, "a table without caption or heads");
    let rows = browser.run("return [...document.querySelectorAll('#devices tr')].every((at) => at.querySelector('th[scope=row]'))")?;
    assert_eq!(rows, true, "a row without a head");
    let sections = browser.run(
        "return [...document.querySelectorAll('section')].every((at) => document.getElementById(at.getAttribute('aria-labelledby'))?.tagName === 'H2')",
    )?;
    assert_eq!(sections, true, "a section without a heading");
    let landmarks = browser.run(
        "return ['header', 'main', 'footer', 'h1'].map((name) => document.querySelectorAll(name).length)",
    )?;
    assert_eq!(landmarks, serde_json::json!([1, 1, 1, 1]));
    let live = browser.run(
        "return [...document.querySelectorAll('[aria-live]')].map((at) => at.getAttribute('aria-live'))",
    )?;
    assert!(live.as_array().is_some_and(|all| all.iter().all(|how| how == "polite")), "{live}");
    // What changes every second is read to nobody.
    let moving = browser.run("return [...document.querySelectorAll('[aria-live]')].some((at) => at.querySelector('dd, b#rate-in'))")?;
    assert_eq!(moving, false);
    site.finish()
}
