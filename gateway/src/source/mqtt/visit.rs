//! Short visits to a broker, in a session of their own that the broker forgets: to knock, and to listen.

use std::time::Duration;

use super::link::{Link, LinkError, PATIENCE};
use super::outbox::{KEEP_ALIVE_S, Outbox, QoS};
use super::reading::{parse, sparkplug_now};
use super::wire::{Incoming, Message};
use super::{FAREWELL, greeting};
use crate::config::Mqtt;
use crate::ingest::identity::Naming;
use crate::source::fleet::{Heard, rival_of};
use crate::source::payload::Parsed;
use crate::source::sparkplug::Sparkplug;

/// Finds out whether the broker is there and lets the gateway in.
///
/// # Errors
/// Says why not, and what to change.
pub(crate) async fn knock(broker: &Mqtt, client_id: String) -> Result<(), LinkError> {
    let mut outbox = Outbox::new(broker.version);
    let (mut link, _) = Link::open(broker, &greeting(broker, client_id, true), &mut outbox).await?;
    outbox.leave();
    tokio::time::timeout(FAREWELL, link.turn(&mut outbox, true)).await.ok();
    Ok(())
}

/// Finds out whether another gateway serves the native devices behind the broker: its client id.
///
/// # Errors
/// The broker cannot be asked.
pub(crate) async fn rival(
    broker: &Mqtt,
    visitor: String,
    client_id: &str,
) -> Result<Option<String>, LinkError> {
    let topic = format!("{}/gateway", broker.native_prefix);
    let mut outbox = Outbox::new(broker.version);
    let (mut link, _) = Link::open(broker, &greeting(broker, visitor, true), &mut outbox).await?;
    outbox.subscribe(std::slice::from_ref(&topic), QoS::AtMostOnce);
    // A retained message at QoS 0 is sent with the subscription, and the answer to the ping behind it.
    outbox.ping();
    let answer = async {
        let mut rival = None;
        loop {
            while let Some(incoming) = link.decoder.next()? {
                match incoming {
                    Incoming::Message(message) if message.topic == topic => {
                        rival = match rival_of(message.payload, client_id) {
                            Heard::Rival(other) => Some(other),
                            Heard::Own | Heard::Nobody => None,
                        };
                    }
                    Incoming::Pong => return Ok(rival),
                    _ => {}
                }
            }
            link.turn(&mut outbox, true).await?;
        }
    };
    let rival = tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(LinkError::Silent))?;
    outbox.leave();
    tokio::time::timeout(FAREWELL, link.turn(&mut outbox, true)).await.ok();
    Ok(rival)
}

/// Hands over what each message would become, by its topic, until the connection ends. At QoS 0, so that nothing is acked.
pub(in crate::source) async fn listen(
    broker: &Mqtt,
    client_id: String,
    naming: &Naming,
    connected: impl FnOnce(),
    mut take: impl FnMut(&str, Parsed),
) -> LinkError {
    let mut outbox = Outbox::new(broker.version);
    let opened = Link::open(broker, &greeting(broker, client_id, true), &mut outbox).await;
    let mut link = match opened {
        Ok((link, _)) => link,
        Err(error) => return error,
    };
    connected();
    let filters: Vec<String> =
        broker.subscribe.iter().map(|subscribe| subscribe.topic.filter.clone()).collect();
    outbox.subscribe(&filters, QoS::AtMostOnce);
    let mut sparkplug = Sparkplug::default();
    let mut take = |message: &Message<'_>| {
        let parsed = match message.fault {
            Some(fault) => Some(Parsed::unreadable(fault.to_string())),
            None => parse(&broker.subscribe, &sparkplug, naming, message).map(|read| {
                if let Some(effect) = read.effect {
                    // Births that are missing here are asked for by nobody: this is a visit.
                    sparkplug.settle(effect, sparkplug_now(), false);
                }
                read.parsed
            }),
        };
        if let Some(parsed) = parsed {
            take(message.topic, parsed);
        }
    };
    let mut signs = tokio::time::interval(Duration::from_secs(u64::from(KEEP_ALIVE_S) / 2));
    loop {
        tokio::select! {
            turned = link.turn(&mut outbox, true) => {
                if let Err(error) = turned {
                    return error;
                }
            }
            _ = signs.tick() => outbox.ping(),
        }
        loop {
            match link.decoder.next() {
                Ok(Some(Incoming::Message(message))) => take(&message),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
    }
}
