//! `[[mqtt]]` and `[[mqtt.subscribe]]`.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Url;

use super::section::Section;
use super::{Format, JsonPath, Mqtt, Retained, Selector, Subscribe, TimestampFormat, TopicPattern};
use super::{check_tag_name, secret};

/// Most brokers: each costs a thread.
const MAX_BROKERS: usize = 16;
/// Most subscriptions of one broker: every message is held against each.
const MAX_SUBSCRIPTIONS: usize = 256;

const NO_TLS: &str = "TLS to a broker comes later";

/// Reads all brokers.
pub(super) fn read(root: &mut Section<'_>, home: &Path) -> Vec<Mqtt> {
    let mut brokers: Vec<Mqtt> = Vec::new();
    for mut section in root.tables("mqtt", MAX_BROKERS) {
        let broker = read_broker(&mut section, home);
        if let Some(broker) = broker {
            if brokers.iter().any(|other| other.url == broker.url) {
                let cure = "put all [[mqtt.subscribe]] below one [[mqtt]]";
                section.fault("url", format!("{} is configured twice; {cure}", broker.url));
            }
            brokers.push(broker);
        }
        section.close();
    }
    brokers
}

fn read_broker(section: &mut Section<'_>, home: &Path) -> Option<Mqtt> {
    section.missing("url", "write `url = \"mqtt://host:1883\"`");
    let url = section.parsed("url", parse_url);
    for key in ["ca_file", "client_cert_file", "client_key_file"] {
        section.later(key, None, NO_TLS);
    }
    let client_id = section.parsed("client_id", parse_client_id);
    let username = section.text("username").map(|text| text.text.to_owned());
    let password = secret::read(section, "password", "password_file", home);
    if password.is_some() && !section.has("username") {
        section
            .fault("password_file", "is given without `username`, which MQTT does not allow; add `username`");
    }
    let native = section.boolean("native").unwrap_or(true);
    let native_prefix = section.parsed("native_prefix", parse_prefix).unwrap_or("forebay/v1".to_owned());
    let subscribe = read_subscriptions(section, native.then_some(native_prefix.as_str()));
    if !native && !section.has("subscribe") {
        let cure = "set native = true or add [[mqtt.subscribe]]";
        section.fault("native", format!("nothing is taken from this broker; {cure}"));
    }
    let (url, host, port) = url?;
    Some(Mqtt { url, host, port, client_id, username, password, native, native_prefix, subscribe })
}

fn parse_url(text: &str) -> Result<(String, String, u16), String> {
    const FORM: &str = "write \"mqtt://host:1883\"";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{text:?} has no scheme; {FORM}"));
    };
    match scheme {
        "mqtt" => {}
        "mqtts" | "ssl" | "tls" | "wss" => {
            return Err(format!("{scheme}:// is not supported yet: {NO_TLS}; {FORM}"));
        }
        "tcp" => return Err(format!("tcp:// is written mqtt:// here; {FORM}")),
        other => return Err(format!("{other}:// is not supported; {FORM}")),
    }
    if rest.contains('@') {
        return Err("holds a user name or password; write `username` and `password_file` instead".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}; {FORM}"))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has more than host and port; {FORM}"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| format!("{text:?} names no host; {FORM}"))?;
    let port = url.port().unwrap_or(1883);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok((format!("mqtt://{host}:{port}"), bare.to_owned(), port))
}

fn parse_client_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 64 || text.contains(char::is_control) {
        return Err(
            "takes 1 to 64 bytes of plain text; the broker keeps the session under this name".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn parse_prefix(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.len() > 256
        || text.contains(['+', '#', '{'])
        || text.contains(char::is_control)
    {
        return Err(format!("{text:?} is no topic prefix; write plain levels such as \"forebay/v1\""));
    }
    if text.starts_with(['/', '$']) || text.ends_with('/') {
        return Err(format!("{text:?} begins with \"/\" or \"$\" or ends in \"/\"; write \"forebay/v1\""));
    }
    Ok(text.to_owned())
}

fn read_subscriptions(broker: &mut Section<'_>, native_prefix: Option<&str>) -> Vec<Subscribe> {
    let native = native_prefix.and_then(|prefix| TopicPattern::parse(&format!("{prefix}/#")).ok());
    let mut subscriptions: Vec<Subscribe> = Vec::new();
    for mut section in broker.tables("subscribe", MAX_SUBSCRIPTIONS) {
        if let Some(subscription) = read_subscription(&mut section) {
            let topic = &subscription.topic;
            if let Some(other) = subscriptions.iter().find(|other| other.topic.overlaps(topic)) {
                let other = &other.topic.filter;
                let cure = "narrow one of them, or a message may be taken twice";
                section.fault("topic", format!("matches topics that {other:?} matches too; {cure}"));
            }
            if native.as_ref().is_some_and(|native| native.overlaps(topic)) {
                let cure = "narrow it, or set native = false";
                section.fault("topic", format!("matches the topics of native devices; {cure}"));
            }
            subscriptions.push(subscription);
        }
        section.close();
    }
    subscriptions
}

fn read_subscription(section: &mut Section<'_>) -> Option<Subscribe> {
    section.missing("topic", "write for example `topic = \"sensors/{device}/{room}\"`");
    let topic = section.parsed("topic", parse_topic);
    section.missing("format", "write `format = \"json\"` or `format = \"line-protocol\"`");
    let format = section.parsed("format", parse_format);
    let subscription = Subscribe {
        // A pattern that matches nothing stands in while the remaining keys are checked.
        topic: topic.clone().or_else(|| TopicPattern::parse("-").ok())?,
        format: format.unwrap_or(Format::Json),
        device: section.parsed("device", Selector::parse),
        measurement: section.parsed("measurement", Selector::parse),
        timestamp: section.parsed("timestamp", JsonPath::parse),
        timestamp_format: section.word("timestamp_format", TIMESTAMP_FORMATS),
        integer_fields: read_fields(section, "integer_fields"),
        text_fields: read_fields(section, "text_fields"),
        tags_from: read_tags(section),
        retained: section
            .word("retained", &[("skip", Retained::Skip), ("store", Retained::Store)])
            .unwrap_or(Retained::Skip),
    };
    match format {
        Some(Format::Json) => check_json(section, &subscription, topic.is_some()),
        Some(Format::LineProtocol) => check_line_protocol(section, &subscription),
        None => {}
    }
    topic.and(format).map(|_| subscription)
}

const TIMESTAMP_FORMATS: &[(&str, TimestampFormat)] = &[
    ("s", TimestampFormat::Seconds),
    ("ms", TimestampFormat::Milliseconds),
    ("us", TimestampFormat::Microseconds),
    ("ns", TimestampFormat::Nanoseconds),
    ("rfc3339", TimestampFormat::Rfc3339),
];

fn parse_topic(text: &str) -> Result<TopicPattern, String> {
    let pattern = TopicPattern::parse(text)?;
    for name in pattern.names().filter(|name| !matches!(*name, "device" | "measurement")) {
        check_tag_name(name)?;
    }
    Ok(pattern)
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        "line-protocol" => Ok(Format::LineProtocol),
        "influx" => Err("Telegraf's \"influx\" is \"line-protocol\" here".to_owned()),
        "senml" | "sparkplug" | "value" | "tasmota" | "zigbee2mqtt" | "shelly" | "esphome" => {
            Err(format!("{text:?} is not supported yet; use \"json\" or \"line-protocol\""))
        }
        _ => Err(format!("{text:?} is no format; use \"json\" or \"line-protocol\"")),
    }
}

fn read_fields(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let names = section.texts(key);
    let mut seen = BTreeSet::new();
    for name in &names {
        if name.is_empty() || name.starts_with('$') {
            section.fault(key, format!("{name:?} is no field; nested names are joined by \"_\": \"a_b\""));
        } else if !seen.insert(*name) {
            section.fault(key, format!("lists {name:?} twice; remove one"));
        }
    }
    names.into_iter().map(str::to_owned).collect()
}

fn read_tags(section: &mut Section<'_>) -> Vec<JsonPath> {
    let mut paths = Vec::new();
    for text in section.texts("tags_from") {
        match JsonPath::parse(text) {
            Ok(path) => paths.push(path),
            Err(message) => section.fault("tags_from", message),
        }
    }
    paths
}

fn check_json(section: &Section<'_>, subscription: &Subscribe, topic_is_known: bool) {
    let names: Vec<&str> = subscription.topic.names().collect();
    for key in ["device", "measurement"] {
        if topic_is_known && !section.has(key) && !names.contains(&key) {
            let path = if key == "device" { "$.id" } else { "$.type" };
            let cure = format!(
                "name a level of the topic {{{key}}}, or write `{key}` as a text or a path \"{path}\""
            );
            section.fault(key, format!("is missing, and JSON without one is no point; {cure}"));
        }
    }
    let timestamps = match (section.has("timestamp"), section.has("timestamp_format")) {
        (true, false) => Some("is missing beside `timestamp`; write s, ms, us, ns or rfc3339"),
        (false, true) => Some("does nothing without `timestamp`; add it or remove this"),
        _ => None,
    };
    if let Some(message) = timestamps {
        section.fault("timestamp_format", message);
    }
    let mut tags: BTreeSet<&str> = names.into_iter().collect();
    for path in &subscription.tags_from {
        let Some(name) = path.last_name() else {
            section
                .fault("tags_from", format!("\"{path}\" has no name that the tag could take; end it in one"));
            continue;
        };
        if name == "device" {
            section.fault(
                "tags_from",
                format!("\"{path}\" would be the tag `device`; write `device = \"{path}\"`"),
            );
        } else if let Err(message) = check_tag_name(name) {
            section.fault("tags_from", message);
        } else if !tags.insert(name) {
            section.fault("tags_from", format!("the tag {name:?} comes from two places; remove one"));
        }
    }
    if let Some(both) =
        subscription.integer_fields.iter().find(|name| subscription.text_fields.contains(name))
    {
        section.fault("text_fields", format!("{both:?} is in `integer_fields` too; remove one"));
    }
}

fn check_line_protocol(section: &Section<'_>, subscription: &Subscribe) {
    for key in ["measurement", "timestamp", "integer_fields", "text_fields", "tags_from"] {
        if section.has(key) {
            section.fault(key, "line protocol brings this itself; remove the key");
        }
    }
    if matches!(subscription.device, Some(Selector::Path(_))) {
        section.fault(
            "device",
            "line protocol has no paths; name a level of the topic {device}, or write a text",
        );
    }
    if subscription.timestamp_format == Some(TimestampFormat::Rfc3339) {
        section.fault("timestamp_format", "timestamps of line protocol are numbers; write s, ms, us or ns");
    }
}
