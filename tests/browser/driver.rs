//! A browser, driven as the WebDriver standard says, with what Chromium adds to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::http::Http;
use forebay_tests::process::{Process, free_port};
use forebay_tests::services::command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser, or what it is to show, may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The page's size unless a test wants another one.
pub(crate) const DESK: (u32, u32) = (1100, 900);

/// Keys that WebDriver has a number for.
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const LEFT: char = '\u{e012}';

/// Keeps names that are of one run alone out of sight, whenever the page writes them, until it is called off.
const DRESS: &str = r"
    const names = [
        [/\S*\/dev\/port(\d+)/g, '/dev/ttyACM$1'],
        [/^port(\d+)$/, 'ttyACM$1'],
        [/mqtt:\/\/127\.0\.0\.1:\d+/g, 'mqtt://127.0.0.1:1883'],
        [/http:\/\/127\.0\.0\.1:\d+/g, 'http://127.0.0.1:8086'],
        [/^127\.0\.0\.1:\d+/, '127.0.0.1:8686'],
    ];
    const dress = () => {
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        for (let text = texts.nextNode(); text; text = texts.nextNode()) {
            const dressed = names.reduce((words, [from, to]) => words.replace(from, to), text.data);
            if (dressed !== text.data) text.data = dressed;
        }
    };
    window.dressing = new MutationObserver(dress);
    window.dressing.observe(document.body, { subtree: true, childList: true, characterData: true });
    dress();
";
const UNDRESS: &str = "window.dressing?.disconnect()";

/// A browser with one empty page.
pub(crate) struct Browser {
    http: Http,
    session: String,
    _driver: Process,
    /// Its own files are no part of what is kept of a test.
    _profile: TempDir,
}

impl Browser {
    /// Starts one whose files live in `directory`.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Browser> {
        std::fs::create_dir_all(directory)?;
        let port = free_port()?;
        let mut driver = command("chromedriver", "chromium-driver")?;
        driver.arg(format!("--port={port}")).env("HOME", directory);
        let driver = Process::spawn("chromedriver", driver, &directory.join("chromedriver.log"))?;
        let (http, url) = (Http::new()?, format!("http://127.0.0.1:{port}"));
        wait_for("chromedriver's readiness", LIMIT, || match http.get_json(&format!("{url}/status")) {
            Ok(status) if status["value"]["ready"] == true => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })?;
        let own = tempfile::tempdir()?;
        let profile = format!("--user-data-dir={}", own.path().display());
        // Root has no sandbox, and containers have little shared memory.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--lang=en-GB",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = post(&http, &format!("{url}/session"), &wanted)?;
        let id = session["sessionId"].as_str().context("a session without an id")?;
        let browser =
            Browser { session: format!("{url}/session/{id}"), http, _driver: driver, _profile: own };
        browser.resize(DESK)?;
        Ok(browser)
    }

    /// Goes to a page.
    pub(crate) fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// What the body of a function returns in the page.
    pub(crate) fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn await_true(&self, what: &str, expression: &str) -> anyhow::Result<()> {
        let script = format!("return Boolean({expression})");
        let waited = wait_for(what, LIMIT, || match self.run(&script) {
            Ok(Value::Bool(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        waited.with_context(|| format!("the page: {}", self.text("main").unwrap_or_default()))
    }

    /// The text of the first element that a selector finds.
    pub(crate) fn text(&self, selector: &str) -> anyhow::Result<String> {
        let found = self.run(&format!("return document.querySelector({selector:?}).innerText"))?;
        Ok(found.as_str().with_context(|| format!("no {selector}"))?.to_owned())
    }

    /// Waits until the text of an element has these words, and returns it.
    pub(crate) fn await_text(&self, selector: &str, words: &str) -> anyhow::Result<String> {
        wait_for(&format!("{words:?} in {selector}"), LIMIT, || match self.text(selector) {
            Ok(text) if text.contains(words) => Ok(text),
            Ok(text) => Err(text),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Presses and releases a key.
    pub(crate) fn press(&self, key: char) -> anyhow::Result<()> {
        let key = |kind: &str| json!({ "type": kind, "value": key.to_string() });
        let keys = json!({ "type": "key", "id": "keys", "actions": [key("keyDown"), key("keyUp")] });
        self.post("actions", &json!({ "actions": [keys] })).map(drop)
    }

    /// Types a text where the focus is.
    pub(crate) fn write(&self, text: &str) -> anyhow::Result<()> {
        text.chars().try_for_each(|key| self.press(key))
    }

    /// Gives the page another size, in pixels.
    pub(crate) fn resize(&self, (width, height): (u32, u32)) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.tell("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// Lets the page believe that its reader prefers `scheme`, `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) -> anyhow::Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.tell("Emulation.setEmulatedMedia", &json!({ "features": [feature] })).map(drop)
    }

    /// A command of Chromium's own.
    pub(crate) fn tell(&self, command: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// The warnings and errors that the console has been told of since the last call, each with its level.
    pub(crate) fn console(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" }))?;
        let entries = entries.as_array().context("a log that is no list")?;
        let bad = entries.iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        Ok(bad.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect())
    }

    /// Shows ports and addresses, which a test has made up for this run alone, as those of an installed gateway, for a picture.
    fn dress(&self) -> anyhow::Result<()> {
        self.run(DRESS).map(drop)
    }

    /// Leaves a picture of the first `height` pixels of the page in `target/screenshots`.
    pub(crate) fn picture(&self, name: &str, (width, height): (u32, u32)) -> anyhow::Result<()> {
        self.dress()?;
        self.capture(name, &json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 }))
    }

    /// The same of an element.
    pub(crate) fn picture_of(&self, name: &str, selector: &str) -> anyhow::Result<()> {
        self.dress()?;
        let place = format!(
            "const at = document.querySelector({selector:?}).getBoundingClientRect(); \
             return {{ x: at.x + scrollX, y: at.y + scrollY, width: at.width, height: at.height, scale: 1 }}"
        );
        self.capture(name, &self.run(&place)?)
    }

    fn capture(&self, name: &str, clip: &Value) -> anyhow::Result<()> {
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.tell("Page.captureScreenshot", &how)?;
        self.run(UNDRESS)?;
        let png = from_base64(taken["data"].as_str().context("a picture without data")?)?;
        let directory = screenshots();
        std::fs::create_dir_all(&directory)?;
        let file = directory.join(format!("{name}.png"));
        std::fs::write(&file, png).with_context(|| format!("writing {}", file.display()))
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        post(&self.http, &format!("{}/{path}", self.session), body)
    }
}

impl Drop for Browser {
    /// The driver ends the browser with its session; killed, it would leave it behind.
    fn drop(&mut self) {
        let _ = self.http.delete(&self.session);
    }
}

fn post(http: &Http, url: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = http.post(url, "application/json", body.to_string())?.successful(url)?;
    let mut answer: Value = serde_json::from_str(&answer.body)?;
    Ok(answer["value"].take())
}

/// Beside the programs of this build.
fn screenshots() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(3).unwrap_or(Path::new("target")).join("screenshots")
}

fn from_base64(text: &str) -> anyhow::Result<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::with_capacity(text.len() / 4 * 3));
    for letter in text.trim_end_matches('=').bytes() {
        let digit = digit(letter).with_context(|| format!("{letter} is no digit of base 64"))?;
        (bits, held) = ((bits << 6) | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            let [.., byte] = (bits >> held).to_be_bytes();
            bytes.push(byte);
        }
    }
    Ok(bytes)
}
