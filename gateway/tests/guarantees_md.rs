//! docs/guarantees.md is true as far as it can be read: its configuration is valid, and what it names exists.

use std::fs;

use forebay_gateway::config;

const PAGE: &str = include_str!("../../docs/guarantees.md");
const METRICS: &str = include_str!("../src/http/metrics.rs");
const STATUS: &str = include_str!("../src/stats/status.rs");
const README: &str = include_str!("../../README.md");
const TASMOTA: &str = include_str!("../../docs/tasmota.md");

#[test]
fn its_configuration_is_read() {
    let blocks: Vec<&str> =
        PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1);
    let directory = tempfile::tempdir().unwrap();
    for block in blocks {
        let path = directory.path().join("forebay.toml");
        let text =
            format!("data_dir = {:?}\n[[mqtt]]\nurl = \"mqtt://127.0.0.1\"\n{block}", directory.path());
        fs::write(&path, text).unwrap();
        let loaded = config::load(&path).unwrap();
        assert_eq!(loaded.config.mqtt[0].subscribe[0].topic.filter, "$share/barns/sensors/+/+");
    }
}

#[test]
fn what_it_names_exists() {
    let words = PAGE.split('`').skip(1).step_by(2);
    let metrics: Vec<&str> = words.filter(|word| word.starts_with("forebay_")).collect();
    assert!(metrics.len() > 4);
    for metric in metrics {
        assert!(METRICS.contains(&format!("\"{metric}\"")), "{metric} is no metric");
    }
    for key in ["alarm", "broker_dropped_messages"] {
        assert!(PAGE.contains(&format!("`{key}`")) && STATUS.contains(&format!("pub {key}:")), "{key}");
    }
}

/// The broker's settings are those that the README and the page about a plug show.
#[test]
fn all_pages_recommend_the_same() {
    let settings = |page: &'static str| -> Vec<&'static str> {
        let from = page.lines().skip_while(|line| *line != "persistence true");
        from.take_while(|line| *line != "```").collect()
    };
    assert!(settings(PAGE).len() > 4);
    assert_eq!(settings(PAGE), settings(README));
    assert_eq!(settings(PAGE), settings(TASMOTA));
}
