//! A gateway that wants a token. Who wants it here is a double of the page's `fetch`, so that the page's part of the contract
//! is tested alone: no question to `/api` is answered without the right `Authorization`.

use serde_json::json;

use crate::driver::ENTER;
use crate::site::Site;

const DOORKEEPER: &str = "
    const ask = window.fetch;
    window.fetch = (path, options) => {
        const token = new Headers(options?.headers).get('Authorization');
        if (String(path).startsWith('/api/') && token !== 'Bearer right') {
            return Promise.resolve(new Response('a token is needed', { status: 401 }));
        }
        return ask(path, options);
    };
";

#[test]
fn a_token_is_asked_for_kept_and_sent_with_everything() -> anyhow::Result<()> {
    let site = Site::start("browser-token")?;
    let browser = &site.browser;
    browser.tell("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": DOORKEEPER }))?;
    browser.open(&site.world.gateway.url("/"))?;
    browser.await_text("#token-why", "The gateway wants a token.")?;
    assert_eq!(browser.run("return document.activeElement.id")?, "token-text");
    // No header can carry it, so it is never sent.
    browser.write("schl\u{fc}ssel-\u{1f511}")?;
    browser.press(ENTER)?;
    browser.await_text("#token-why", "of ASCII")?;
    browser.write("wrong")?;
    browser.press(ENTER)?;
    browser.await_text("#token-why", "The gateway does not take this token.")?;
    browser.write("right")?;
    browser.press(ENTER)?;
    browser.await_true("a live page", "document.body.dataset.link === 'live'")?;
    browser.await_text("#devices", "greenhouse")?;
    assert_eq!(browser.run("return document.querySelector('#token').hidden")?, true);
    assert_eq!(browser.run("return document.cookie + location.href.includes('right')")?, "false");
    // It outlives a reload, as a tab does.
    site.open()?;
    assert_eq!(browser.run("return document.querySelector('#token').hidden")?, true);
    site.finish()
}
