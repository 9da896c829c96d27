//! Topic patterns: MQTT topic filters some of whose levels have a name.
//!
//! `sensors/{device}/{room}` is subscribed as `sensors/+/+`, and a topic that matches yields `device` and `room`.
//! `{device#}` at the end is subscribed as `#` and yields all further levels, slashes included. Plain `+` and `#` work too.
//! With `$share/group/` in front the members of a group share the messages.

/// A topic filter with named levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    /// What is subscribed at the broker.
    pub filter: String,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    Any,
    Named(String),
    Rest,
    NamedRest(String),
}

/// Longest topic that MQTT can carry, in bytes.
const MAX_TOPIC_BYTES: usize = 65_535;

impl TopicPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says which part is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<TopicPattern, String> {
        if text.is_empty() {
            return Err("is empty; give a topic such as \"sensors/{device}\"".to_owned());
        }
        if text.len() > MAX_TOPIC_BYTES || text.contains(char::is_control) {
            return Err(
                "holds a control character or more than 65,535 bytes, which MQTT cannot carry".to_owned()
            );
        }
        let (share, topic) = split_share(text)?;
        let mut levels = Vec::new();
        let mut parts = topic.split('/').peekable();
        while let Some(part) = parts.next() {
            let level = parse_level(part)?;
            if level.is_rest() && parts.peek().is_some() {
                return Err(
                    "has \"#\" before its end; \"#\" stands for all further levels and comes last".to_owned()
                );
            }
            if level.name().is_some() && levels.iter().any(|other: &Level| other.name() == level.name()) {
                return Err(format!("names {part} twice; give every level a name of its own, or \"+\""));
            }
            levels.push(level);
        }
        let filter = levels.iter().map(Level::filter).collect::<Vec<_>>().join("/");
        let filter = format!("{share}{filter}");
        Ok(TopicPattern { filter, levels })
    }

    /// The named levels of a topic, in the pattern's order; `None` when the topic does not match.
    #[must_use]
    pub fn captures<'a>(&'a self, topic: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return None;
        }
        let mut named = Vec::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            match level {
                Level::Rest => return Some(named),
                Level::NamedRest(name) => {
                    named.push((name.as_str(), rest.unwrap_or_default()));
                    return Some(named);
                }
                Level::Text(_) | Level::Any | Level::Named(_) => {}
            }
            let (part, behind) = match rest?.split_once('/') {
                Some((part, behind)) => (part, Some(behind)),
                None => (rest?, None),
            };
            rest = behind;
            match level {
                Level::Text(text) if text != part => return None,
                Level::Named(name) => named.push((name.as_str(), part)),
                _ => {}
            }
        }
        rest.is_none().then_some(named)
    }

    /// The names of the pattern's levels, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(Level::name)
    }

    /// Whether some topic matches both patterns. Brokers may then deliver its messages once or twice, as they like.
    #[must_use]
    pub fn overlaps(&self, other: &TopicPattern) -> bool {
        let wild_first = |levels: &[Level]| !matches!(levels.first(), Some(Level::Text(_)));
        let system_first =
            |levels: &[Level]| matches!(levels.first(), Some(Level::Text(text)) if text.starts_with('$'));
        if (wild_first(&self.levels) && system_first(&other.levels))
            || (wild_first(&other.levels) && system_first(&self.levels))
        {
            return false;
        }
        overlap(&self.levels, &other.levels)
    }
}

impl Level {
    fn filter(&self) -> &str {
        match self {
            Level::Text(text) => text,
            Level::Any | Level::Named(_) => "+",
            Level::Rest | Level::NamedRest(_) => "#",
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Level::Named(name) | Level::NamedRest(name) => Some(name),
            Level::Text(_) | Level::Any | Level::Rest => None,
        }
    }

    fn is_rest(&self) -> bool {
        matches!(self, Level::Rest | Level::NamedRest(_))
    }
}

/// Takes `$share/group/` off a shared subscription. What follows it is the topic, of which each message goes to one member
/// of the group.
fn split_share(text: &str) -> Result<(&str, &str), String> {
    const FORM: &str = "write \"$share/group/topic\"";
    let Some(rest) = text.strip_prefix("$share/") else { return Ok(("", text)) };
    let Some((group, topic)) = rest.split_once('/').filter(|(_, topic)| !topic.is_empty()) else {
        return Err(format!("is a shared subscription without a topic; {FORM}"));
    };
    if group.is_empty() || group.contains(['+', '#', '{', '}']) {
        return Err(format!(
            "is a shared subscription of the group {group:?}, which is no plain name; {FORM}"
        ));
    }
    Ok((&text[..text.len() - topic.len()], topic))
}

fn parse_level(part: &str) -> Result<Level, String> {
    if part == "+" {
        return Ok(Level::Any);
    }
    if part == "#" {
        return Ok(Level::Rest);
    }
    let inside = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if part.contains(['+', '#']) && inside.is_none() {
        return Err(format!("has the level {part:?}; \"+\" and \"#\" each stand alone between slashes"));
    }
    if !part.contains(['{', '}']) {
        return Ok(Level::Text(part.to_owned()));
    }
    let (name, is_rest) = match inside.and_then(|inside| inside.strip_suffix('#')) {
        Some(name) => (Some(name), true),
        None => (inside, false),
    };
    match name {
        Some(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
            let name = name.to_owned();
            Ok(if is_rest { Level::NamedRest(name) } else { Level::Named(name) })
        }
        _ => Err(format!(
            "has the level {part:?}; a name is letters, digits and \"_\" in braces and fills the level: \"{{room}}\""
        )),
    }
}

/// A `#` also matches its parent level, so that `a/#` and `a` overlap.
fn overlap(a: &[Level], b: &[Level]) -> bool {
    match (a, b) {
        ([], []) => true,
        ([level], _) | (_, [level]) if level.is_rest() => true,
        ([], _) | (_, []) => false,
        ([Level::Text(x), ..], [Level::Text(y), ..]) if x != y => false,
        ([_, a @ ..], [_, b @ ..]) => overlap(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).unwrap()
    }

    #[test]
    fn names_are_subscribed_as_plus_and_captured() {
        let sensors = pattern("sensors/{device}/{room}");
        assert_eq!(sensors.filter, "sensors/+/+");
        assert_eq!(sensors.names().collect::<Vec<_>>(), ["device", "room"]);
        assert_eq!(sensors.captures("sensors/a/b"), Some(vec![("device", "a"), ("room", "b")]));
        assert_eq!(sensors.captures("sensors//b"), Some(vec![("device", ""), ("room", "b")]));
        for topic in ["sensors/a", "sensors/a/b/c", "sensor/a/b", "", "sensors"] {
            assert_eq!(sensors.captures(topic), None, "{topic}");
        }
    }

    #[test]
    fn wildcards_follow_mqtt() {
        let captured = Some(vec![("site", "x")]);
        assert_eq!(pattern("{site}/#").captures("x/y/z"), captured);
        assert_eq!(pattern("{site}/#").captures("x"), captured);
        assert_eq!(pattern("+/t").captures("x/t"), Some(vec![]));
        assert_eq!(pattern("a/#").captures("ab"), None);
        assert_eq!(pattern("#").captures("$SYS/broker"), None);
        assert_eq!(pattern("+/broker").captures("$SYS/broker"), None);
        assert_eq!(pattern("$SYS/{what}").captures("$SYS/broker"), Some(vec![("what", "broker")]));
    }

    #[test]
    fn a_shared_subscription_is_of_the_topic_behind_its_group() {
        let shared = pattern("$share/barns/sensors/{device}/#");
        assert_eq!(shared.filter, "$share/barns/sensors/+/#");
        assert_eq!(shared.captures("sensors/a/b"), Some(vec![("device", "a")]));
        assert_eq!(shared.captures("$share/barns/sensors/a/b"), None);
        assert!(shared.overlaps(&pattern("sensors/a")) && !shared.overlaps(&pattern("other/#")));
    }

    #[test]
    fn all_further_levels_may_have_one_name() {
        let devices = pattern("zigbee2mqtt/{device#}");
        assert_eq!(devices.filter, "zigbee2mqtt/#");
        assert_eq!(devices.names().collect::<Vec<_>>(), ["device"]);
        for (topic, device) in
            [("zigbee2mqtt/lamp", "lamp"), ("zigbee2mqtt/a/b/", "a/b/"), ("zigbee2mqtt", "")]
        {
            assert_eq!(devices.captures(topic), Some(vec![("device", device)]), "{topic}");
        }
        assert_eq!(devices.captures("zigbee2mqt/lamp"), None);
        assert_eq!(pattern("{all#}").captures("$SYS/broker"), None);
        let two = pattern("shellies/{device}/{path#}");
        assert_eq!(two.captures("shellies/a/relay/0"), Some(vec![("device", "a"), ("path", "relay/0")]));
        assert_eq!(two.captures("shellies"), None);
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        for (text, part) in [
            ("", "is empty"),
            ("a/#/b", "comes last"),
            ("a+/b", "stand alone"),
            ("a/b#", "stand alone"),
            ("{a}/{a}", "names {a} twice"),
            ("{a}/{a#}", "names {a#} twice"),
            ("{a#}/b", "comes last"),
            ("{#}", "letters, digits"),
            ("{a+}", "letters, digits"),
            ("x{a}", "fills the level"),
            ("{}", "letters, digits"),
            ("{a b}", "letters, digits"),
            ("a\u{0}b", "control character"),
            ("$share/group", "without a topic"),
            ("$share/group/", "without a topic"),
            ("$share/+/a", "no plain name"),
            ("$share//a", "no plain name"),
        ] {
            let error = TopicPattern::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn overlaps_are_found_both_ways() {
        for (a, b, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "{x}/b", true),
            ("a/#", "a", true),
            ("a/#", "b/#", false),
            ("a/{x#}", "a", true),
            ("a/{x#}", "b/{x#}", false),
            ("{x#}", "$SYS/x", false),
            ("a/+", "a/b/c", false),
            ("#", "a/b/c", true),
            ("#", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("forebay/v1/{device}/up", "forebay/+/+/+", true),
        ] {
            assert_eq!(pattern(a).overlaps(&pattern(b)), expected, "{a} {b}");
            assert_eq!(pattern(b).overlaps(&pattern(a)), expected, "{b} {a}");
        }
    }
}
