//! The metrics of a real gateway by the conventions of Prometheus, and what is made of them: a dashboard and alerts.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::reads::site::Site;
use crate::world::{DRAIN_LIMIT, Scratch};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Runs promtool, which has to be content and say nothing that it is not.
fn promtool(words: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new("promtool");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool is in the Debian package prometheus")?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool {words:?}: {said}");
    Ok(said.into_owned())
}

/// All names of metrics of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("forebay_")).map(str::to_owned).collect()
}

#[test]
fn metrics_follow_the_conventions_and_dashboard_and_alerts_use_no_others() -> anyhow::Result<()> {
    let scratch = Scratch::new("metrics")?;
    let mut site = Site::start("metrics", scratch, "")?;
    let readings = (0..100).map(|number| site.reading(&format!("d{number}"), number)).collect();
    site.write(readings)?;
    site.gateway.drain(DRAIN_LIMIT)?;
    let page = site.http.get(&site.gateway.url("/metrics"))?.successful("/metrics")?.body;
    let said = promtool(&["check", "metrics"], &page)?;
    ensure!(said.trim().is_empty(), "promtool finds fault: {said}");
    ensure!(page.lines().count() < 200, "a hundred devices have made a hundred lines:\n{page}");

    let offered: BTreeSet<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
        .collect();
    ensure!(offered.len() > 20, "{offered:?}");
    let dashboard = std::fs::read_to_string(docs("grafana/forebay.json"))?;
    let parsed: Value = serde_json::from_str(&dashboard).context("the dashboard is no JSON")?;
    ensure!(
        parsed["panels"].as_array().is_some_and(|panels| panels.len() > 10),
        "a dashboard without panels"
    );
    let rules = std::fs::read_to_string(docs("prometheus/forebay.rules.yml"))?;
    for (what, text) in [("dashboard", dashboard), ("alerts", rules)] {
        // The measurement of gaps is named in a text.
        let unknown: Vec<String> = names(&text)
            .into_iter()
            .filter(|name| name != "forebay_gap" && !offered.contains(name))
            .collect();
        ensure!(unknown.is_empty(), "the {what} ask for {unknown:?}, which there is not");
    }
    site.gateway.close(DRAIN_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn alerts_rise_when_they_should() -> anyhow::Result<()> {
    let path = |name: &str| docs(name).display().to_string();
    promtool(&["check", "rules", &path("prometheus/forebay.rules.yml")], "")?;
    promtool(&["test", "rules", &path("prometheus/forebay.rules.test.yml")], "")?;
    let rules = std::fs::read_to_string(docs("prometheus/forebay.rules.yml"))?;
    let tests = std::fs::read_to_string(docs("prometheus/forebay.rules.test.yml"))?;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tests.contains(&format!("  - name: {alert} rises\n")), "nothing tests {alert}");
    }
    Ok(())
}
