//! The dashboard in a real browser: headless Chromium, driven through chromedriver's WebDriver interface, on the real
//! gateway with mosquitto, InfluxDB and devices of the real firmware. What is not installed fails these tests.
//!
//! Pictures of the page are left in `target/screenshots`.

#[path = "browser/driver.rs"]
mod driver;
#[path = "browser/follows.rs"]
mod follows;
#[path = "browser/many.rs"]
mod many;
#[path = "browser/readers.rs"]
mod readers;
#[path = "browser/series.rs"]
mod series;
#[path = "browser/site.rs"]
mod site;
#[path = "browser/token.rs"]
mod token;
