//! In: MQTT messages, from devices of any make and from native devices. Out: submissions, and later their acks.
//! Next: `payload/mod.rs` for what a message says (native devices: `native.rs`), then `ingest/mod.rs`.
//!
//! One thread and one task a broker. The session is persistent: what has no ack comes again after the connection, in
//! the same order. An ack leaves after the commit that holds its message, in receive order, and all acks of one commit
//! leave in one write. Everything that belongs to a connection (acks that are due, messages that wait, bytes to send) is
//! thrown away with it, so that no late ack can confirm a newer message of the same packet id.
//!
//! The task waits for five things at once: bytes of the broker, a commit, room in the journal, the next deadline, and the
//! word to stop. It never waits for one alone, however full the journal or slow the disk is.

mod alarm;
pub(crate) mod fuzzing;
mod link;
mod outbox;
mod queues;
mod reading;
mod resent;
mod tending;
mod visit;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub(super) use outbox::{Outbox, QoS};

use alarm::{Alarm, DROPPED_TOPIC};
use link::{Link, LinkError};
use outbox::{Greeting, KEEP_ALIVE_S};
use queues::{DueAck, Held};
use reading::{Read, open_sparkplug, parse, sparkplug_now};
use resent::{Resent, Verdict, broker_key};
use tending::{Closing, Life, RETRY_MS, Subscribing};
use wire::{Incoming, Message, Welcome};

use super::fleet::Fleet;
use super::native::Now;
use super::payload::Parsed;
use super::sparkplug::{self, Sparkplug};
use super::{Context, Reporter, sleep_until};
use crate::clock;
use crate::config;
use crate::ingest::{Arrival, Origin, Taken};
use crate::record::Offset;
use crate::stats::{Counter, SourceState};

pub(super) use visit::listen;
pub(crate) use visit::{knock, rival};

/// How long a shutdown waits for the last commit and its acks.
const CLOSE_MS: u64 = 5_000;

/// How long a goodbye may take where nobody waits for its effect.
const FAREWELL: Duration = Duration::from_millis(200);

/// First and longest pause before the next connection attempt.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A connection that lasted this long was a good one, whatever ended it.
const LASTING_MS: u64 = 10_000;

/// What has nothing to wait for.
const NOTHING: Taken = Taken { receipt: Offset(0), rows: 0 };

/// Serves one broker until the context says to stop. Blocks its thread.
pub fn run(config: &config::Mqtt, client_id: &str, context: &Context, reporter: Reporter) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            reporter.disconnected(&format!("cannot start a runtime for the broker {}: {e}", config.url));
            return;
        }
    };
    let unprotected = config.subscribe.iter().map(|subscribe| {
        let filter = &subscribe.topic.filter;
        reporter.stats().unprotected_messages(filter)
    });
    let broker = Broker {
        unprotected: unprotected.collect(),
        fleet: Fleet::new(config, client_id, context),
        config: config.clone(),
        context: context.clone(),
        watermark: context.watermark(),
        room: context.room(),
        reporter,
        client_id: client_id.to_owned(),
        outbox: Outbox::new(config.version),
        resent: Resent::of(context.ingest.journal(), broker_key(&config.url, client_id)),
        sparkplug: open_sparkplug(config, client_id, context),
        is_subscribed: false,
        alarm: Alarm::default(),
        dropped_asked: DroppedAsked::default(),
        life: Life::default(),
    };
    runtime.block_on(broker.run());
}

/// One broker, over all connections.
struct Broker {
    config: config::Mqtt,
    client_id: String,
    context: Context,
    watermark: watch::Receiver<Offset>,
    room: watch::Receiver<u64>,
    reporter: Reporter,
    /// Messages at QoS 0, by subscription.
    unprotected: Vec<Arc<Counter>>,
    fleet: Fleet,
    outbox: Outbox,
    resent: Resent,
    sparkplug: Sparkplug,
    /// Whether the session has all subscriptions. The first connection of a process asks for them even in a session that is
    /// present, since the configuration may have changed; and so does the next one, if it ended before they were granted.
    is_subscribed: bool,
    alarm: Alarm,
    dropped_asked: DroppedAsked,
    life: Life,
}

/// Whether the broker was asked what it drops. Some end the connection over that question; it is put last, and only once
/// to those.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum DroppedAsked {
    #[default]
    No,
    /// On this connection, and there is no answer yet.
    Asked,
    /// On this connection, and the answer is there.
    Answered,
    Never,
}

impl Broker {
    async fn run(mut self) {
        let mut pause = RECONNECT.0;
        while !self.context.is_stopped() {
            let began = clock::monotonic_ms();
            let end = self.connection().await;
            self.dropped_asked = match self.dropped_asked {
                DroppedAsked::Asked | DroppedAsked::Never => DroppedAsked::Never,
                DroppedAsked::No | DroppedAsked::Answered => DroppedAsked::No,
            };
            if self.life.has_acked || clock::monotonic_ms() - began >= LASTING_MS {
                pause = RECONNECT.0;
            }
            let was_closing = self.life.closing.is_some();
            self.life = Life::default();
            self.reporter.stats().waiting.set(0);
            match end {
                Ok(()) => break,
                Err(_) if was_closing => break,
                // It is begun anew, without native devices.
                Err(LinkError::Yielded) => continue,
                Err(error) => self.reporter.disconnected(&format!("broker {}: {error}", self.config.url)),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.context.stopped() => {}
            }
            pause = (pause * 2).min(RECONNECT.1);
        }
        self.sparkplug.tend(u64::MAX, &self.reporter);
        self.reporter.stats().set_state(SourceState::Stopped);
    }

    /// Connects, and serves the connection until it ends; without an error if that is because of a shutdown.
    async fn connection(&mut self) -> Result<(), LinkError> {
        let greeting = Greeting {
            will: self.fleet.presence_topic(),
            ..greeting(&self.config, self.client_id.clone(), false)
        };
        let stop = self.context.clone();
        let (mut link, welcome) = tokio::select! {
            opened = Link::open(&self.config, &greeting, &mut self.outbox) => opened?,
            () = stop.stopped() => return Ok(()),
        };
        self.begin(welcome);
        // What came together with the welcome is there already, and nothing more may come for a while.
        let end = match self.read(&mut link) {
            Ok(()) => self.serve(&mut link).await,
            Err(error) => Err(error),
        };
        if let Err(LinkError::Yielded) = end {
            // Without a goodbye the broker would publish the will, and clear the other one's presence.
            self.outbox.leave();
            tokio::time::timeout(FAREWELL, link.turn(&mut self.outbox, true)).await.ok();
        }
        end
    }

    fn begin(&mut self, welcome: Welcome) {
        let allowed_s = welcome.keep_alive_s.unwrap_or(KEEP_ALIVE_S).max(2);
        self.life.ping_every_ms = u64::from(allowed_s) * 500;
        self.life.ping_at = clock::monotonic_ms() + self.life.ping_every_ms;
        self.is_subscribed &= welcome.session_present;
        if !welcome.session_present {
            self.sparkplug.lapse("the broker has forgotten the session, and births or deaths with it");
        }
        if let Some(session) = self.resent.connect(welcome.session_present) {
            self.life.subscribing = Some(Subscribing::Begin(session));
            self.life.retry_at = Some(0);
        } else if !self.is_subscribed {
            self.subscribe();
        }
        if let Some(presence) = self.fleet.presence_topic() {
            self.ask(&[presence], QoS::AtMostOnce);
        }
        if let Some(filter) = self.fleet.given_up() {
            self.outbox.unsubscribe(filter);
        }
        if self.fleet.is_asking() {
            // A retained message at QoS 0 comes with its subscription, and the answer to the ping behind it.
            self.life.ping_at = 0;
        } else {
            self.fleet.handle_connected(Now::read(), &mut self.outbox);
        }
        self.life.fleet_due = Some(0);
        self.reporter.connected(if welcome.session_present { "session resumed" } else { "new session" });
    }

    /// Asks for everything that the session is to have.
    fn subscribe(&mut self) {
        let filters = self.config.subscribe.iter().map(|subscribe| subscribe.topic.filter.clone());
        let filters: Vec<String> = filters.chain(self.fleet.filter()).collect();
        self.ask(&filters, QoS::AtLeastOnce);
    }

    fn ask(&mut self, filters: &[String], qos: QoS) {
        self.life.grants_due += filters.len();
        self.outbox.subscribe(filters, qos);
    }

    /// The broker has told of other gateways, if there are any.
    fn begin_native(&mut self) {
        self.fleet.begin();
        let filters: Vec<String> = self.fleet.filter().into_iter().collect();
        self.ask(&filters, QoS::AtLeastOnce);
        self.fleet.handle_connected(Now::read(), &mut self.outbox);
        self.life.fleet_due = Some(0);
    }

    async fn serve(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let stop = self.context.clone();
        loop {
            let deadline = self.tend()?;
            let may_read = !self.life.waiting.is_overfull();
            let is_closing = self.life.closing.is_some();
            tokio::select! {
                turned = link.turn(&mut self.outbox, may_read) => {
                    turned?;
                    self.read(link)?;
                }
                changed = self.watermark.changed() => if changed.is_err() { return Ok(()) },
                _ = self.room.changed(), if self.life.retry_at.is_some() => self.life.retry_at = Some(0),
                () = sleep_until(Some(deadline)) => {}
                () = stop.stopped(), if !is_closing => {
                    self.life.closing = Some(Closing::Acks(clock::monotonic_ms() + CLOSE_MS));
                }
            }
        }
    }

    /// Takes in everything that has come.
    fn read(&mut self, link: &mut Link) -> Result<(), LinkError> {
        while let Some(incoming) = link.decoder.next()? {
            match incoming {
                Incoming::Message(message) => self.receive(&message)?,
                Incoming::Granted { subscriptions, refused } => self.subscribed(subscriptions, refused),
                Incoming::Pong => {
                    self.life.pinged_at = None;
                    if self.fleet.is_asking() {
                        self.begin_native();
                    }
                }
                Incoming::Release(packet) => self.outbox.complete(packet),
                Incoming::Farewell(why) => return Err(LinkError::Farewell(why)),
                Incoming::Welcome(_) | Incoming::Receipt => {}
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, subscriptions: usize, refused: usize) {
        if self.dropped_asked == DroppedAsked::Asked {
            self.dropped_asked = DroppedAsked::Answered;
            return;
        }
        self.life.grants_due = self.life.grants_due.saturating_sub(subscriptions);
        let is_all_asked = self.life.subscribing.is_none() && !self.fleet.is_asking();
        self.is_subscribed |= is_all_asked && self.life.grants_due == 0;
        if self.is_subscribed && self.dropped_asked == DroppedAsked::No {
            self.outbox.subscribe(&[DROPPED_TOPIC.to_owned()], QoS::AtMostOnce);
            self.dropped_asked = DroppedAsked::Asked;
        }
        if refused > 0 {
            let url = &self.config.url;
            let what = format!(
                "broker {url} refuses {refused} of {subscriptions} subscriptions; check its access rules for this client"
            );
            self.reporter.trouble("subscribe", &what);
        }
    }

    /// Takes a message in, or holds it while older ones wait.
    ///
    /// # Errors
    /// The connection is to end, because another gateway serves the devices.
    fn receive(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        if self.life.closing.is_some() {
            return Ok(());
        }
        if self.fleet.presence_topic().is_some_and(|presence| presence == message.topic) {
            if let Some(rival) = self.fleet.hear_presence(message.payload, &mut self.outbox) {
                self.fleet.yield_to(&rival, &self.reporter);
                return Err(LinkError::Yielded);
            }
            return Ok(());
        }
        if self.alarm.hear(message, &self.reporter) {
            return Ok(());
        }
        self.reporter.stats().messages.add(1);
        let received_ns = clock::steady_ns();
        if self.life.waiting.is_empty() && self.take(message, received_ns) {
            return Ok(());
        }
        if message.qos == QoS::AtMostOnce {
            self.reporter
                .loss("qos0", "a message at QoS 0 is dropped, because older ones wait for the journal");
            return Ok(());
        }
        self.life.waiting.push(Held::of(message, received_ns));
        self.life.retry_at.get_or_insert(clock::monotonic_ms() + RETRY_MS);
        self.reporter.stats().waiting.set(self.life.waiting.len());
        Ok(())
    }

    /// Whether the message found room.
    fn take(&mut self, message: &Message<'_>, received_ns: i64) -> bool {
        let device = self.fleet.device_of(message.topic).filter(|_| message.fault.is_none());
        let taken = if let Some(device) = device {
            let (outbox, reporter) = (&mut self.outbox, &self.reporter);
            self.fleet.handle_message(Now::read(), device, message.payload, message.again, outbox, reporter);
            self.life.fleet_due = Some(0);
            // The link has acks of its own, so the broker may forget the message at once.
            Some((NOTHING, None))
        } else {
            self.take_foreign(message, received_ns)
        };
        let Some((Taken { receipt, rows }, listed)) = taken else { return false };
        let ack = DueAck { packet: message.packet, qos: message.qos, receipt, rows, listed, received_ns };
        // What has no packet id wants no ack.
        if message.packet != 0 && self.life.acks.push(ack) {
            self.context.ingest.journal().hurry();
        }
        true
    }

    /// What intake made of a foreign message, and its number among those that are known again; `None` if it is to be held.
    fn take_foreign(&mut self, message: &Message<'_>, received_ns: i64) -> Option<(Taken, Option<u64>)> {
        let topic = message.topic;
        let (parsed, effect) = match message.fault {
            Some(fault) => {
                let reason = format!("{} bytes of payload: {fault}", message.payload_bytes);
                (Parsed::unreadable(reason), None)
            }
            None => {
                match parse(&self.config.subscribe, &self.sparkplug, self.context.ingest.naming(), message) {
                    Some(Read { at, parsed, effect }) => {
                        if message.qos == QoS::AtMostOnce
                            && let Some(count) = self.unprotected.get(at)
                        {
                            count.add(1);
                        }
                        (parsed, effect)
                    }
                    None => {
                        let what = format!(
                            "a message on {topic:.64?} matches no subscription of ours and is let go; a session of an earlier configuration still asks for it"
                        );
                        self.reporter.trouble("unmatched", &what);
                        return Some((NOTHING, None));
                    }
                }
            }
        };
        let taken = self.take_parsed(message, &parsed, received_ns)?;
        if let Some(effect) = effect {
            self.settle_sparkplug(effect, message.packet != 0);
        }
        Some(taken)
    }

    fn take_parsed(
        &mut self,
        message: &Message<'_>,
        parsed: &Parsed,
        received_ns: i64,
    ) -> Option<(Taken, Option<u64>)> {
        if parsed.is_empty() {
            return Some((NOTHING, None));
        }
        let origin = Origin { name: message.topic, payload: message.payload, bytes: message.payload_bytes };
        let arrival = Arrival { received_ns, again: message.again, message: None };
        // A point with a time of its own is the same point however often it comes.
        let needs_list = parsed.refused.is_some() || parsed.rows.iter().any(|row| row.timestamp.is_none());
        if message.packet == 0 || !needs_list {
            let taken = self.context.take_foreign(parsed, origin, arrival, &self.reporter)?;
            return Some((taken, None));
        }
        let entry = self.resent.entry(message);
        let verdict = self.resent.judge(&entry, message.again);
        let taken = match verdict {
            Verdict::Copy { receipt, .. } => Taken { receipt, rows: 0 },
            Verdict::New | Verdict::Doubt { .. } => {
                let arrival = Arrival { message: Some(entry), ..arrival };
                self.context.take_foreign(parsed, origin, arrival, &self.reporter)?
            }
        };
        if let Verdict::Doubt { .. } = verdict {
            self.reporter.stats().doubtful_messages.add(1);
        }
        Some((taken, Some(self.resent.settle(&entry, verdict, taken.receipt))))
    }

    /// A message of Sparkplug was taken; perhaps its node is to send its births again.
    fn settle_sparkplug(&mut self, effect: sparkplug::Effect, is_acked: bool) {
        if let Some(command) = self.sparkplug.settle(effect, sparkplug_now(), is_acked) {
            self.reporter.trouble("rebirth", &command.why);
            self.outbox.publish(&command.topic, QoS::AtMostOnce, false, &command.payload);
        }
    }
}

/// How a session of this broker is asked for.
fn greeting(config: &config::Mqtt, client_id: String, clean: bool) -> Greeting {
    let (username, password) = (config.username.clone(), config.password.clone());
    Greeting { client_id, clean, username, password, will: None }
}
