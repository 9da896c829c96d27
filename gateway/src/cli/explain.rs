//! `forebay explain`: what a message would become, or why it would not.
//!
//! Everything that it prints is line protocol: points as they would be written, and comments. It asks nobody, neither a
//! broker nor a running gateway, and reads a message as the gateway would, by the configuration alone.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::clock;
use crate::config::{Config, Format, Mqtt, Subscribe};
use crate::ingest::identity::Naming;
use crate::record::Row;
use crate::sink::line_protocol::{self, Dialect};
use crate::source::payload::{self, Aside, MAX_PAYLOAD_BYTES, Parsed};
use crate::source::sparkplug::{Heard, Sparkplug};
use crate::terminal::plain_lines;

/// Bytes of a payload that are read: enough to see that it is too large.
const READ_BYTES_MAX: u64 = MAX_PAYLOAD_BYTES as u64 + 1;

/// Prints it. Whether anything would come of the message.
///
/// # Errors
/// The payload cannot be read, or the topic is none.
pub(super) fn run(config: &Config, topic: &str, file: &Path) -> Result<bool> {
    if topic.is_empty() || topic.contains(['+', '#']) {
        bail!(
            "{topic:?} is no topic of a message; write one without \"+\" and \"#\", as a broker would deliver it"
        );
    }
    let explanation = explain(config, topic, &read(file)?);
    io::stdout()
        .write_all(plain_lines(&explanation.text).as_bytes())
        .context("standard output cannot be written")?;
    Ok(explanation.stores)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    let done = if file == Path::new("-") {
        io::stdin().lock().take(READ_BYTES_MAX).read_to_end(&mut payload)
    } else {
        File::open(file).and_then(|file| file.take(READ_BYTES_MAX).read_to_end(&mut payload))
    };
    done.with_context(|| format!("the payload {} cannot be read", file.display()))?;
    Ok(payload)
}

/// What there is to say of a message.
#[derive(Debug, Default, PartialEq)]
struct Explanation {
    text: String,
    /// Whether any row of it would be stored.
    stores: bool,
}

impl Explanation {
    fn remark(&mut self, remark: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "# {}", super::plain(remark));
    }
}

fn explain(config: &Config, topic: &str, payload: &[u8]) -> Explanation {
    let mut explanation = Explanation::default();
    let naming = Naming::new(config);
    let mut is_taken = false;
    for broker in &config.mqtt {
        if is_native(broker, topic) {
            is_taken = true;
            let prefix = &broker.native_prefix;
            explanation.remark(&format!(
                "{}: topics below {prefix} are the native devices', whose messages are no text; `forebay tail` shows \
                 their rows",
                broker.url
            ));
            continue;
        }
        let mut matching = broker
            .subscribe
            .iter()
            .filter_map(|subscribe| subscribe.topic.captures(topic).map(|captures| (subscribe, captures)));
        if let Some((subscribe, captures)) = matching.next() {
            is_taken = true;
            explanation.remark(&subscription(broker, subscribe, &captures));
            if subscribe.layout.format == Format::Sparkplug {
                let heard = Heard { topic, payload, again: false };
                let reading = Sparkplug::default().read(&subscribe.layout, &naming, &heard);
                explanation.remark(
                    "read by itself: aliases, types and what dies with a node depend on the births before",
                );
                tell(&mut explanation, reading.parsed);
            } else {
                tell(&mut explanation, payload::read(&subscribe.layout, &naming, &captures, payload));
            }
        }
    }
    if !is_taken {
        unmatched(&mut explanation, config, topic);
    }
    explanation
}

fn is_native(broker: &Mqtt, topic: &str) -> bool {
    let below = topic.strip_prefix(&broker.native_prefix);
    broker.native && below.is_some_and(|rest| rest.starts_with('/'))
}

/// The subscription that a message comes by, and what its topic names.
fn subscription(broker: &Mqtt, subscribe: &Subscribe, captures: &payload::Captures<'_>) -> String {
    let names: Vec<String> = captures.iter().map(|(name, value)| format!("{name} {value:?}")).collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let format = subscribe.layout.format.name();
    format!("{} by {}, format {format}; the topic names {names}", broker.url, subscribe.topic.filter)
}

fn tell(explanation: &mut Explanation, parsed: Result<Parsed, Aside>) {
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(Aside(why)) => {
            return explanation.remark(&format!("nothing is stored of it, and nothing is lost: {why}"));
        }
    };
    for row in &parsed.rows {
        push_row(&mut explanation.text, row);
        if let Some(remark) = row.timestamp.and_then(odd_time) {
            explanation.remark(&remark);
        }
    }
    let undated = parsed.rows.iter().filter(|row| row.timestamp.is_none());
    match undated.clone().any(|row| row.offset_ns != 0) {
        true => explanation.remark(
            "times that are missing are those of the receipt, some of them moved by what the payload says",
        ),
        false if undated.count() > 0 => explanation.remark(
            "times that are missing are those of the receipt; retained messages without a time are stored only with \
             `retained = \"store\"`",
        ),
        false => {}
    }
    explanation.stores |= !parsed.rows.is_empty();
    if let Some(refusal) = &parsed.refused {
        let (rows, device) = (refusal.rows, &refusal.device);
        explanation.remark(&format!(
            "{rows} refused and kept among the dead letters of {device}: {}",
            refusal.reason
        ));
    }
}

/// What is to be said of a time that no sensor can have meant: most often it is in another unit than was configured.
fn odd_time(ns: i64) -> Option<String> {
    const FIRST_S: i64 = 946_684_800;
    const YEAR_NS: i64 = 366 * 86_400 * 1_000_000_000;
    let is_odd = ns / 1_000_000_000 < FIRST_S || ns > clock::now_ns().saturating_add(YEAR_NS);
    let time = is_odd.then(|| jiff::Timestamp::from_nanosecond(i128::from(ns)).ok()).flatten()?;
    Some(format!("the time of the row above is {time}: is `timestamp_format` the unit of the payload?"))
}

fn push_row(text: &mut String, row: &Row) {
    line_protocol::push_row(text, Dialect::V2, row);
    if row.timestamp.is_none() && row.offset_ns != 0 {
        let _ = writeln!(text, "# the row above is {} ns from the receipt", row.offset_ns);
    }
}

fn unmatched(explanation: &mut Explanation, config: &Config, topic: &str) {
    explanation
        .remark(&format!("no subscription matches {topic:?}, so it never reaches the gateway; there are:"));
    for broker in &config.mqtt {
        for subscribe in &broker.subscribe {
            explanation.remark(&format!("  {} {}", broker.url, subscribe.topic.filter));
        }
        if broker.native {
            explanation.remark(&format!("  {} {}/# of native devices", broker.url, broker.native_prefix));
        }
    }
    if config.mqtt.is_empty() {
        explanation.remark("  none, for there is no [[mqtt]]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Loaded};

    const CONFIG: &str = r#"
tags = { gateway = "barn" }
[[mqtt]]
url = "mqtt://a"
[[mqtt.subscribe]]
topic = "sensors/{device}/{room}"
format = "json"
measurement = "climate"
timestamp = "$.time"
timestamp_format = "s"
[[mqtt.subscribe]]
topic = "zigbee2mqtt/{device#}"
format = "zigbee2mqtt"
[[mqtt]]
url = "mqtt://b"
native = false
[[mqtt.subscribe]]
topic = "{device}/senml"
format = "senml"
measurement = "m"
[[mqtt]]
url = "mqtt://c"
native = false
[[mqtt.subscribe]]
topic = "spBv1.0/#"
format = "sparkplug"
"#;

    fn loaded() -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forebay.toml");
        std::fs::write(&path, CONFIG).unwrap();
        config::load(&path).unwrap()
    }

    #[track_caller]
    fn check(topic: &str, payload: &str, stores: bool, expected: &[&str]) {
        let explanation = explain(&loaded().config, topic, payload.as_bytes());
        assert_eq!(explanation.text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(explanation.stores, stores);
    }

    #[test]
    fn a_message_is_told_as_the_points_that_it_becomes() {
        check(
            "sensors/esp/cellar",
            r#"{"time":1700000000,"t":21.5}"#,
            true,
            &[
                "# mqtt://a:1883 by sensors/+/+, format json; the topic names device \"esp\", room \"cellar\"",
                "climate,device=esp,gateway=barn,room=cellar t=21.5 1700000000000000000",
            ],
        );
        check(
            "zigbee2mqtt/kitchen/lamp",
            r#"{"state":"ON"}"#,
            true,
            &[
                "# mqtt://a:1883 by zigbee2mqtt/#, format zigbee2mqtt; the topic names device \"kitchen/lamp\"",
                "zigbee2mqtt,device=kitchen/lamp,gateway=barn state=true",
                "# times that are missing are those of the receipt; retained messages without a time are stored only \
                 with `retained = \"store\"`",
            ],
        );
        check(
            "esp/senml",
            r#"[{"n":"t","v":1,"t":-5},{"n":"t","v":2},{"v":3}]"#,
            true,
            &[
                "# mqtt://b:1883 by +/senml, format senml; the topic names device \"esp\"",
                "m,device=esp,gateway=barn t=1.0",
                "# the row above is -5000000000 ns from the receipt",
                "m,device=esp,gateway=barn t=2.0",
                "# times that are missing are those of the receipt, some of them moved by what the payload says",
                "# 1 refused and kept among the dead letters of esp: a record has no name",
            ],
        );
    }

    #[test]
    fn a_birth_is_told_and_an_alias_depends_on_it() {
        let head = [
            "# mqtt://c:1883 by spBv1.0/#, format sparkplug; the topic names nothing",
            "# read by itself: aliases, types and what dies with a node depend on the births before",
        ];
        let birth = "\x08\x01\x12\x09\x0a\x01t\x10\x05\x20\x03\x50\x07\x18\x00";
        let point = "sparkplug,device=line,edge=line,gateway=barn,group=plant t=7.0,online=true 1000000";
        let odd = "# the time of the row above is 1970-01-01T00:00:00.001Z: is `timestamp_format` the unit of the payload?";
        check("spBv1.0/plant/NBIRTH/line", birth, true, &[head[0], head[1], point, odd]);
        let refused = "# 1 refused and kept among the dead letters of line: the alias 5 of plant/line stands for a \
                       metric that only a birth could tell, and none that stands was received";
        let data = "\x08\x01\x12\x06\x10\x05\x20\x03\x50\x07\x18\x01";
        check("spBv1.0/plant/NDATA/line", data, false, &[head[0], head[1], refused]);
    }

    #[test]
    fn what_nothing_comes_of_is_told_with_the_reason() {
        check(
            "sensors/esp/cellar",
            "\u{1b}{",
            false,
            &[
                "# mqtt://a:1883 by sensors/+/+, format json; the topic names device \"esp\", room \"cellar\"",
                "# 1 refused and kept among the dead letters of esp: not JSON: expected value at line 1 column 1",
            ],
        );
        check(
            "zigbee2mqtt/bridge/state",
            r#"{"state":"online"}"#,
            false,
            &[
                "# mqtt://a:1883 by zigbee2mqtt/#, format zigbee2mqtt; the topic names device \"bridge/state\"",
                "# nothing is stored of it, and nothing is lost: it is the bridge's own",
            ],
        );
        check(
            "sensors/esp",
            "1",
            false,
            &[
                "# no subscription matches \"sensors/esp\", so it never reaches the gateway; there are:",
                "#   mqtt://a:1883 sensors/+/+",
                "#   mqtt://a:1883 zigbee2mqtt/#",
                "#   mqtt://a:1883 forebay/v1/# of native devices",
                "#   mqtt://b:1883 +/senml",
                "#   mqtt://c:1883 spBv1.0/#",
            ],
        );
        check(
            "forebay/v1/e66141/up",
            "",
            false,
            &[
                "# mqtt://a:1883: topics below forebay/v1 are the native devices', whose messages are no text; \
               `forebay tail` shows their rows",
            ],
        );
    }

    #[test]
    fn a_filter_and_a_file_that_is_not_there_are_faults() {
        let config = loaded().config;
        for topic in ["", "a/+", "a/#"] {
            assert!(run(&config, topic, Path::new("-")).is_err(), "{topic}");
        }
        let error = run(&config, "a", Path::new("/nowhere/payload")).unwrap_err();
        assert_eq!(error.to_string(), "the payload /nowhere/payload cannot be read");
    }
}
