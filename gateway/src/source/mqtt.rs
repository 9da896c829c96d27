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
use queues::{Coming, DueAck, Held};
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

/// How long a broker is left alone that sends one message after the other.
const NAP: Duration = Duration::from_millis(1);

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
        durable: context.durable(),
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
    /// How far acks may go.
    watermark: watch::Receiver<Offset>,
    /// How far the journal is durable.
    durable: watch::Receiver<Offset>,
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
            self.alarm.end(&self.reporter);
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
        // A broker may want to hear more often than it was offered; to be heard less often is no use to the gateway.
        let wanted_s = welcome.keep_alive_s.filter(|seconds| *seconds > 0);
        let allowed_s = wanted_s.unwrap_or(KEEP_ALIVE_S).clamp(2, KEEP_ALIVE_S);
        self.life.ping_every_ms = u64::from(allowed_s) * 500;
        self.life.ping_at = clock::monotonic_ms() + self.life.ping_every_ms;
        self.is_subscribed &= welcome.session_present;
        if !welcome.session_present {
            self.sparkplug.lapse("the broker has forgotten the session, and births or deaths with it");
        }
        if let Some(beginning) = self.resent.connect(welcome.session_present) {
            self.life.subscribing = Some(Subscribing::Begin(beginning, clock::steady_ns()));
            self.life.retry_at = Some(0);
        } else if !self.is_subscribed {
            self.subscribe();
        }
        if let Some(presence) = self.fleet.presence_topic() {
            self.ask(&[presence], QoS::AtMostOnce);
        }
        for filter in self.fleet.given_up() {
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
        self.fleet.complain(&self.reporter);
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

    /// The broker has told of no other gateway.
    fn begin_native(&mut self) {
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
                    // Whoever sends is there, although the answer to a ping may stand behind a large message.
                    self.life.pinged_at = self.life.pinged_at.map(|_| clock::monotonic_ms());
                    let due = self.life.acks.len();
                    self.read(link)?;
                    self.nap(self.life.acks.len() - due);
                }
                changed = self.watermark.changed() => if changed.is_err() { return Ok(()) },
                changed = self.durable.changed(), if matches!(self.life.subscribing, Some(Subscribing::Begun(_))) => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
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
                Incoming::Message(message) => self.receive(&message),
                Incoming::Granted { subscriptions, refused } => self.subscribed(subscriptions, refused),
                Incoming::Pong => {
                    self.life.pinged_at = None;
                    if self.fleet.is_asking() {
                        if !self.fleet.decide() {
                            return Err(LinkError::Yielded);
                        }
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

    /// Leaves a broker that sends one message after the other alone for a moment, if it may go on sending meanwhile: one
    /// look for fifty messages costs as much as one for each. The thread sleeps, since its event loop would wake for each
    /// packet. Native devices ask for the time on the same connection, and are not kept waiting.
    fn nap(&self, came: usize) {
        let is_idle = self.life.waiting.is_empty() && self.life.closing.is_none();
        if came > 0 && is_idle && self.life.acks.leave_room_for(came) && !self.fleet.has_devices() {
            std::thread::sleep(NAP);
        }
    }

    fn subscribed(&mut self, subscriptions: usize, refused: usize) {
        if self.dropped_asked == DroppedAsked::Asked {
            self.dropped_asked = DroppedAsked::Answered;
            return;
        }
        self.life.grants_due = self.life.grants_due.saturating_sub(subscriptions);
        let is_all_asked = self.life.subscribing.is_none() && !self.fleet.is_asking();
        self.life.is_refused |= refused > 0;
        self.is_subscribed |= is_all_asked && self.life.grants_due == 0 && !self.life.is_refused;
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
    fn receive(&mut self, message: &Message<'_>) {
        if self.life.closing.is_some() {
            return;
        }
        self.reporter.stats().messages.add(1);
        self.life.has_heard = true;
        let place = (message.packet != 0).then(|| self.resent.place(message.packet, message.again));
        if let Some(mark) = self.resent.mark()
            && self.context.ingest.remember(mark).is_ok()
        {
            self.resent.marked();
        }
        let mut coming = Coming { received_ns: clock::steady_ns(), place, rows_done: 0 };
        if self.life.waiting.is_empty() && self.take(message, &mut coming) {
            return;
        }
        if message.qos == QoS::AtMostOnce && !self.life.waiting.has_room_for_unprotected() {
            self.reporter.stats().dropped_messages.add(1);
            self.reporter.loss(
                "qos0",
                "a message at QoS 0 is dropped, because older ones wait for room in the journal",
            );
            return;
        }
        self.life.waiting.push(Held::of(message, coming));
        self.life.retry_at.get_or_insert(clock::monotonic_ms() + RETRY_MS);
        self.reporter.stats().waiting.set(self.life.waiting.len());
    }

    /// Whether the message found room.
    fn take(&mut self, message: &Message<'_>, coming: &mut Coming) -> bool {
        let device = self.fleet.device_of(message.topic).filter(|_| message.fault.is_none());
        let taken = if let Some(device) = device {
            let (outbox, reporter) = (&mut self.outbox, &self.reporter);
            self.fleet.handle_message(Now::read(), device, message.payload, message.again, outbox, reporter);
            self.life.fleet_due = Some(0);
            // The link has acks of its own, so the broker may forget the message at once.
            Some((NOTHING, None))
        } else if self.hear(message) {
            Some((NOTHING, None))
        } else {
            self.take_foreign(message, coming)
        };
        let Some((Taken { receipt, rows }, listed)) = taken else { return false };
        let Coming { received_ns, .. } = *coming;
        let ack = DueAck { packet: message.packet, qos: message.qos, receipt, rows, listed, received_ns };
        // What has no packet id wants no ack.
        if message.packet != 0 && self.life.acks.push(ack) {
            self.context.ingest.journal().hurry();
        }
        true
    }

    /// Whether the message was for the gateway itself: another one's presence, or what the broker says of its queue, unless
    /// somebody has subscribed to that.
    fn hear(&mut self, message: &Message<'_>) -> bool {
        if let Some(presence) = self.fleet.presence_topic().filter(|presence| presence == message.topic) {
            if self.fleet.hear_presence(message.payload, &mut self.outbox) {
                self.ask(&[presence], QoS::AtMostOnce);
                self.life.ping_at = 0;
            }
            return true;
        }
        let is_wanted =
            || self.config.subscribe.iter().any(|one| one.topic.captures(message.topic).is_some());
        self.alarm.hear(message, &self.reporter) && !is_wanted()
    }

    /// What intake made of a foreign message, and its number among those that are known again; `None` if what is left of it
    /// is to be held.
    fn take_foreign(&mut self, message: &Message<'_>, coming: &mut Coming) -> Option<(Taken, Option<u64>)> {
        let Some(Read { at, mut parsed, effect }) = self.read_foreign(message) else {
            return Some((NOTHING, None));
        };
        let taken = self.take_parsed(message, &mut parsed, coming)?;
        if let Some(effect) = effect {
            self.settle_sparkplug(effect, message.packet != 0);
        }
        if message.qos == QoS::AtMostOnce
            && let Some(count) = at.and_then(|at| self.unprotected.get(at))
        {
            count.add(1);
        }
        Some(taken)
    }

    fn take_parsed(
        &mut self,
        message: &Message<'_>,
        parsed: &mut Parsed,
        coming: &mut Coming,
    ) -> Option<(Taken, Option<u64>)> {
        if parsed.is_empty() {
            return Some((NOTHING, None));
        }
        let origin = Origin { name: message.topic, payload: message.payload, bytes: message.payload_bytes };
        // A point with a time of its own is the same point however often it comes.
        let needs_list = parsed.refused.is_some() || parsed.rows.iter().any(|row| row.timestamp.is_none());
        let entry = coming.place.filter(|_| needs_list).map(|place| Resent::entry(place, message));
        let verdict = entry.as_ref().map_or(Verdict::New, |entry| self.resent.judge(entry, message.again));
        let taken = if let Verdict::Copy { receipt } = verdict {
            Taken { receipt, rows: 0 }
        } else {
            let arrival = Arrival { received_ns: coming.received_ns, again: message.again, message: entry };
            let rows = parsed.rows.len();
            parsed.rows.drain(..coming.rows_done.min(rows));
            let taken = self.context.take_foreign(parsed, origin, arrival, &self.reporter);
            if taken.is_none() {
                coming.rows_done = rows - parsed.rows.len();
            }
            taken?
        };
        if verdict == Verdict::Doubt {
            self.reporter.stats().doubtful_messages.add(1);
        }
        if let Some(entry) = &entry {
            self.resent.settle(entry, verdict, taken.receipt);
        }
        Some((taken, entry.map(|entry| entry.number)))
    }

    /// What a foreign message says; `None` if it came for no subscription.
    fn read_foreign(&self, message: &Message<'_>) -> Option<Read> {
        if let Some(fault) = message.fault {
            let reason = format!("{} bytes of payload: {fault}", message.payload_bytes);
            return Some(Read { at: None, parsed: Parsed::unreadable(reason), effect: None });
        }
        let naming = self.context.ingest.naming();
        let read = parse(&self.config.subscribe, &self.sparkplug, naming, message);
        if read.is_none() {
            let what = format!(
                "a message on {:.64?} matches no subscription of ours and is let go; a session of an earlier configuration still asks for it",
                message.topic
            );
            self.reporter.trouble("unmatched", &what);
        }
        read
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
