//! docs/devices.md is true: its configurations are read, its messages are put through them, and its points come out.

#![expect(clippy::panic, clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;

use forebay_gateway::config::{self, Config, Format, Layout, Preset};
use forebay_gateway::ingest::identity::Naming;
use forebay_gateway::sink::Point;
use forebay_gateway::sink::line_protocol::{Dialect, push_line, push_undated};
use forebay_gateway::source::payload::{self, Parsed};
use forebay_gateway::source::sparkplug::{Heard, Now, Sparkplug};

const PAGE: &str = include_str!("../../docs/devices.md");

#[test]
fn every_message_of_the_page_becomes_the_points_beside_it() {
    let mut config = None;
    let mut messages: Option<Block> = None;
    let mut formats = Vec::new();
    let mut compared = 0;
    for block in blocks() {
        match block.kind {
            "toml" => config = Some(read(&block)),
            "mqtt" => messages = Some(block),
            "influx" => {
                let messages =
                    messages.take().unwrap_or_else(|| panic!("line {}: points of nothing", block.line));
                let config =
                    config.as_ref().unwrap_or_else(|| panic!("line {}: no configuration", block.line));
                let points = points(config, &messages, &mut formats);
                let expected: Vec<&str> =
                    block.lines.iter().filter(|line| !line.starts_with('#')).copied().collect();
                assert_eq!(points, expected, "line {} of docs/devices.md", block.line);
                compared += messages.lines.len();
            }
            kind => panic!("line {}: a block of {kind:?}, which nothing is known of", block.line),
        }
    }
    assert!(messages.is_none(), "messages at the end without points");
    assert!(compared > 40, "only {compared} messages");
    for preset in Preset::ALL {
        assert!(formats.contains(&Format::Preset(preset)), "nothing of {}", preset.name());
    }
    for format in [Format::Senml, Format::Sparkplug, Format::Value] {
        assert!(formats.contains(&format), "nothing of {}", format.name());
    }
}

/// What stands between two fences.
struct Block {
    kind: &'static str,
    /// Of the page, where it begins.
    line: usize,
    lines: Vec<&'static str>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, text) in PAGE.lines().enumerate() {
        match (text.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some(Block { kind, line: at + 1, lines: Vec::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(text),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the last block has no end");
    blocks
}

fn read(block: &Block) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forebay.toml");
    let text = format!("[[mqtt]]\nurl = \"mqtt://127.0.0.1:1883\"\n\n{}\n", block.lines.join("\n"));
    fs::write(&path, text).unwrap();
    let loaded =
        config::load(&path).unwrap_or_else(|e| panic!("line {} of docs/devices.md: {e}", block.line));
    assert!(loaded.warnings.is_empty(), "line {}: {:?}", block.line, loaded.warnings);
    loaded.config
}

/// The points of all messages, in order, without the tags of `[tags]`.
fn points(config: &Config, messages: &Block, formats: &mut Vec<Format>) -> Vec<String> {
    let (mut points, mut edge_nodes) = (Vec::new(), Sparkplug::default());
    for message in &messages.lines {
        let (topic, payload) = message.split_once(' ').unwrap();
        let mut matching = config.mqtt[0].subscribe.iter().filter_map(|subscribe| {
            subscribe.topic.captures(topic).map(|captures| (&subscribe.layout, captures))
        });
        let (layout, captures) = matching.next().unwrap_or_else(|| panic!("nothing subscribes to {topic}"));
        assert!(matching.next().is_none(), "{topic} is taken twice");
        formats.push(layout.format.clone());
        let parsed = match layout.format {
            Format::Sparkplug => edge_node(&mut edge_nodes, layout, topic, payload),
            _ => payload::parse(layout, &Naming::default(), &captures, payload.as_bytes()),
        };
        assert_eq!(parsed.refused, None, "{message}");
        for row in &parsed.rows {
            let mut line = String::new();
            let point = |ns| Point::of(row.series.as_str(), ns, &row.fields);
            match row.timestamp {
                Some(ns) => push_line(&mut line, Dialect::V2, &point(ns)),
                None => push_undated(&mut line, Dialect::V2, &point(0)),
            };
            points.push(line.trim_end().to_owned());
        }
    }
    points
}

/// What a message of Sparkplug becomes, whose payload is in hex, behind those before it. None may be missing.
fn edge_node(known: &mut Sparkplug, layout: &Layout, topic: &str, hex: &str) -> Parsed {
    let bytes = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let payload: Vec<u8> = bytes.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let reading = known.read(layout, &Naming::default(), &Heard { topic, payload: &payload, again: false });
    let now = Now { monotonic_ms: 0, wall_ms: 0 };
    assert_eq!(reading.effect.and_then(|effect| known.settle(effect, now, false)), None, "{topic}");
    reading.parsed.unwrap_or_default()
}
