//! What a foreign message says by the subscription that it came for.

use super::resent::broker_key;
use super::wire::Message;
use crate::clock;
use crate::config::{self, Format, Subscribe};
use crate::ingest::identity::Naming;
use crate::source::Context;
use crate::source::payload::{self, Parsed};
use crate::source::sparkplug::{self, Heard, Sparkplug};

/// What a message says.
pub(super) struct Read {
    /// Number of the subscription that it came for, if it could be read.
    pub(super) at: Option<usize>,
    pub(super) parsed: Parsed,
    /// What it changes once it is taken, if it is of Sparkplug.
    pub(super) effect: Option<sparkplug::Effect>,
}

/// What a message says by the subscription that it came for; `None` if it came for none.
pub(super) fn parse(
    subscriptions: &[Subscribe],
    sparkplug: &Sparkplug,
    naming: &Naming,
    message: &Message<'_>,
) -> Option<Read> {
    let (at, subscribe, captures) = subscriptions.iter().enumerate().find_map(|(at, subscribe)| {
        subscribe.topic.captures(message.topic).map(|captures| (at, subscribe, captures))
    })?;
    if subscribe.layout.format == Format::Sparkplug {
        // What is retained is as old as it may be, and nothing of Sparkplug is but the state of host applications.
        if message.retained {
            return Some(Read { at: Some(at), parsed: Parsed::default(), effect: None });
        }
        let Message { topic, payload, again, .. } = *message;
        let reading = sparkplug.read(&subscribe.layout, naming, &Heard { topic, payload, again });
        return Some(Read {
            at: Some(at),
            parsed: reading.parsed.unwrap_or_default(),
            effect: reading.effect,
        });
    }
    let mut parsed = payload::parse(&subscribe.layout, naming, &captures, message.payload);
    if message.retained && subscribe.retained == config::Retained::Skip {
        // A retained message without a time of its own is the last state, not a reading.
        parsed.rows.retain(|row| row.timestamp.is_some());
        parsed.refused = None;
    }
    Some(Read { at: Some(at), parsed, effect: None })
}

/// What is known of edge nodes behind the broker, if any subscription is of them.
pub(super) fn open_sparkplug(config: &config::Mqtt, client_id: &str, context: &Context) -> Sparkplug {
    if config.subscribe.iter().any(|subscribe| subscribe.layout.format == Format::Sparkplug) {
        Sparkplug::open(context.births.join(format!("{:08x}", broker_key(&config.url, client_id))))
    } else {
        Sparkplug::default()
    }
}

pub(super) fn sparkplug_now() -> sparkplug::Now {
    let wall_ms = u64::try_from(clock::now_ns() / 1_000_000).unwrap_or_default();
    sparkplug::Now { monotonic_ms: clock::monotonic_ms(), wall_ms }
}
