//! `[[mqtt]]` and `[[mqtt.subscribe]]`.

use std::path::Path;

use reqwest::Url;

use super::layout::{self, Origin};
use super::section::Section;
use super::{
    Format, Mqtt, MqttVersion, Retained, Subscribe, TopicPattern, check_tag_name, format, secret, tls,
};

/// Most brokers: each costs a thread.
const MAX_BROKERS: usize = 16;
/// Most subscriptions of one broker: every message is held against each.
const MAX_SUBSCRIPTIONS: usize = 256;

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
    let version = read_version(section);
    let tls = tls::read(section, url.as_ref().is_some_and(|url| url.is_secure), home);
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
    let Address { url, host, port, .. } = url?;
    Some(Mqtt {
        url,
        host,
        port,
        version,
        tls,
        client_id,
        username,
        password,
        native,
        native_prefix,
        subscribe,
    })
}

fn read_version(section: &mut Section<'_>) -> MqttVersion {
    match section.number("version", 3..=5, 3) {
        5 => MqttVersion::V5,
        4 => {
            section.fault("version", "4 is how MQTT 3.1.1 counts itself on the wire; write 3 or 5");
            MqttVersion::V3
        }
        _ => MqttVersion::V3,
    }
}

/// Where a broker is.
struct Address {
    url: String,
    host: String,
    port: u16,
    is_secure: bool,
}

fn parse_url(text: &str) -> Result<Address, String> {
    const FORM: &str = "write \"mqtt://host:1883\", or \"mqtts://host\" for TLS";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{text:?} has no scheme; {FORM}"));
    };
    match scheme {
        "mqtt" | "mqtts" => {}
        "ssl" | "tls" => return Err(format!("{scheme}:// is written mqtts:// here; {FORM}")),
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
    let is_secure = scheme == "mqtts";
    let port = url.port().unwrap_or(if is_secure { 8883 } else { 1883 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Address { url: format!("{scheme}://{host}:{port}"), host: bare.to_owned(), port, is_secure })
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
    section.missing("format", "write `format = \"json\"`, another format or the name of a preset");
    let format = section.parsed("format", format::parse);
    if format == Some(Format::Sparkplug) {
        check_sparkplug(section, topic.as_ref());
    }
    let levels = topic.as_ref().map(|topic| topic.names().collect());
    let layout = layout::read(section, format, &Origin::Topic { levels });
    let retained = section.word("retained", &[("skip", Retained::Skip), ("store", Retained::Store)]);
    Some(Subscribe { topic: topic?, layout: layout?, retained: retained.unwrap_or(Retained::Skip) })
}

/// A node's messages make sense together only: births name what data brings, and a count tells if one is missing.
fn check_sparkplug(section: &Section<'_>, topic: Option<&TopicPattern>) {
    const FORM: &str = "write \"spBv1.0/#\", \"spBv1.0/group/#\" or \"spBv1.0/group/+/node/#\"";
    if section.has("retained") {
        section.fault("retained", "Sparkplug retains no reading; remove the key");
    }
    let Some(topic) = topic else { return };
    if topic.names().next().is_some() {
        section.fault("topic", "names levels, which Sparkplug names itself: they become the tags `group`, `edge` and `device`; write \"+\"");
    }
    let fault = match topic.filter.split('/').collect::<Vec<_>>()[..] {
        ["$share", ..] => "is shared, so that births would go to one member and what they explain to another",
        ["spBv1.0", "#"] | ["spBv1.0", _, "#"] | ["spBv1.0", _, "+", "#"] | ["spBv1.0", _, "+", _, "#"] => {
            return;
        }
        ["spBv1.0", ..] => "leaves out messages of an edge node that the others cannot be understood without",
        _ => "is no topic of Sparkplug B",
    };
    section.fault("topic", format!("{fault}; {FORM}"));
}

fn parse_topic(text: &str) -> Result<TopicPattern, String> {
    let pattern = TopicPattern::parse(text)?;
    for name in pattern.names().filter(|name| !matches!(*name, "device" | "measurement")) {
        check_tag_name(name)?;
    }
    Ok(pattern)
}
