//! What a topic of Sparkplug says: whose message it is, and of what kind.

use super::births::NAME_BYTES_MAX;

/// An edge node, by group and name.
pub(super) type NodeId = (String, String);

/// The kinds of messages that are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Birth,
    Death,
    Data,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic<'a> {
    pub(super) group: &'a str,
    pub(super) edge: &'a str,
    /// None for the edge node itself.
    pub(super) device: Option<&'a str>,
    pub(super) kind: Kind,
}

/// What a topic is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'a> {
    Topic(Topic<'a>),
    /// Of a kind that brings no reading.
    Aside(&'static str),
    /// Not of Sparkplug.
    Fault(String),
}

impl<'a> Topic<'a> {
    pub(super) fn read(topic: &'a str) -> Read<'a> {
        const FORM: &str =
            "a topic of Sparkplug B is spBv1.0/group/NDATA/node or spBv1.0/group/DDATA/node/device";
        let levels: Vec<&str> = topic.split('/').collect();
        let (group, word, edge, device) = match levels[..] {
            ["spBv1.0", "STATE", ..] => return Read::Aside("it is the state of a host application"),
            ["spBv1.0", group, word, edge] => (group, word, edge, None),
            ["spBv1.0", group, word, edge, device] => (group, word, edge, Some(device)),
            _ => return Read::Fault(FORM.to_owned()),
        };
        if matches!(word, "NCMD" | "DCMD") {
            return Read::Aside("it is a command to an edge node or a device");
        }
        let kind = match (word, device) {
            ("NBIRTH", None) | ("DBIRTH", Some(_)) => Kind::Birth,
            ("NDEATH", None) | ("DDEATH", Some(_)) => Kind::Death,
            ("NDATA", None) | ("DDATA", Some(_)) => Kind::Data,
            _ => return Read::Fault(format!("{word:.16?} is no kind of message there; {FORM}")),
        };
        if [group, edge, device.unwrap_or_default()].iter().any(|level| level.len() > NAME_BYTES_MAX) {
            return Read::Fault(format!("a level of the topic has more than {NAME_BYTES_MAX} bytes"));
        }
        if group.is_empty() || edge.is_empty() || device.is_some_and(str::is_empty) {
            return Read::Fault(format!("a level of the topic is empty; {FORM}"));
        }
        Read::Topic(Topic { group, edge, device, kind })
    }

    pub(super) fn node(&self) -> NodeId {
        (self.group.to_owned(), self.edge.to_owned())
    }

    /// The tag `device` of its readings.
    pub(super) fn tag(&self) -> &'a str {
        self.device.unwrap_or(self.edge)
    }

    /// For messages to people.
    pub(super) fn named(&self) -> String {
        let device = self.device.map(|device| format!("/{device}")).unwrap_or_default();
        format!("{}/{}{device}", self.group, self.edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(topic: &str) -> Option<Kind> {
        match Topic::read(topic) {
            Read::Topic(topic) => Some(topic.kind),
            Read::Aside(_) | Read::Fault(_) => None,
        }
    }

    #[test]
    fn a_topic_tells_kind_and_sender() {
        let Read::Topic(topic) = Topic::read("spBv1.0/plant 1/DDATA/line/motor") else { unreachable!() };
        assert_eq!((topic.group, topic.edge, topic.device), ("plant 1", "line", Some("motor")));
        assert_eq!((topic.tag(), topic.named().as_str()), ("motor", "plant 1/line/motor"));
        assert_eq!(kind("spBv1.0/g/NBIRTH/e"), Some(Kind::Birth));
        assert_eq!(kind("spBv1.0/g/DDEATH/e/d"), Some(Kind::Death));
        for aside in ["spBv1.0/STATE/host", "spBv1.0/g/NCMD/e", "spBv1.0/g/DCMD/e/d"] {
            assert!(matches!(Topic::read(aside), Read::Aside(_)), "{aside}");
        }
        for fault in [
            "spBv1.0",
            "spBv1.0/g/NDATA",
            "spBv1.0/g/NDATA/e/d",
            "spBv1.0/g/DDATA/e",
            "spBv1.0/g/X/e",
            "spBv1.0//NDATA/e",
            "spBv1.0/g/DDATA/e/",
            "spBv1.0/g/DDATA/e/d/x",
            "spAv1.0/g/NDATA/e",
            "",
        ] {
            assert!(matches!(Topic::read(fault), Read::Fault(_)), "{fault}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(Topic::read(&format!("spBv1.0/g/NDATA/{long}")), Read::Fault(_)));
    }
}
