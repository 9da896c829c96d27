//! In: MQTT messages, from devices of any make and from native devices. Out: submissions, and later their PUBACKs.
//! Next: `payload/mod.rs` for what a message says (native devices: `native.rs`), then `ingest/mod.rs`.
//!
//! One thread a broker, with a current-thread runtime and three tasks that share a [`Broker`]: *poll* drives
//! rumqttc's event loop and takes messages in, and never waits for anything else while there is room; *send* is the
//! only one that hands requests to rumqttc (a request channel that is full would stall the poll task for ever);
//! *tend* looks after native sessions and after messages that had no room.
//!
//! The session is persistent and acks are manual: a PUBACK leaves after the commit that holds the message, in
//! receive order. Every ack carries the number of the connection that its message came on, because packet ids
//! begin anew with each connection and a late ack would confirm a message that was never stored.

mod queues;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode,
};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

pub(super) use queues::Request;

use queues::{DueAck, Held, Queues};

use super::fleet::Fleet;
use super::native::Now;
use super::{Context, Reporter, payload, sleep_until};
use crate::clock;
use crate::config;
use crate::ingest::{Origin, Taken};
use crate::record::Offset;
use crate::stats::SourceState;

/// The largest packet that MQTT can express: the client must never refuse one, or the broker would send it again at
/// once, for ever. What is too large to be a reading is refused later, and acked.
const MAX_PACKET_BYTES: usize = 268_435_460;

/// Requests to rumqttc that may be under way; twice what a broker usually has in flight.
const REQUESTS: usize = 2_048;

/// How long a shutdown waits for the last commit and its acks.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a shutdown waits for the broker to read the last acks and the disconnect, and to close the connection.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Pause before a held message is tried again even without news of room, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// First and longest pause before the next connection attempt.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Serves one broker until the context says to stop. Blocks its thread.
pub fn run(config: &config::Mqtt, client_id: &str, context: &Context, reporter: Reporter) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            reporter.disconnected(&format!("cannot start a runtime for the broker {}: {e}", config.url));
            return;
        }
    };
    let fleet = Fleet::new(config, client_id, context);
    let (client, mut event_loop) = AsyncClient::new(options(config, client_id, &fleet), REQUESTS);
    // An ack that waits for the broker's delayed acknowledgement of the last one costs 40 ms.
    event_loop.network_options.set_tcp_nodelay(true);
    let broker = Rc::new(Broker {
        config: config.clone(),
        context: context.clone(),
        reporter,
        client,
        queues: RefCell::new(Queues::default()),
        fleet: RefCell::new(fleet),
        watermark: context.watermark(),
        outgoing: Notify::new(),
        tended: Notify::new(),
    });
    LocalSet::new().block_on(&runtime, async {
        let send = tokio::task::spawn_local({
            let broker = Rc::clone(&broker);
            async move { broker.send().await }
        });
        let tend = tokio::task::spawn_local({
            let broker = Rc::clone(&broker);
            async move { broker.tend().await }
        });
        tokio::select! {
            () = broker.poll(event_loop) => {}
            () = broker.close() => {}
        }
        send.abort();
        tend.abort();
    });
    broker.reporter.stats().set_state(SourceState::Stopped);
}

fn options(config: &config::Mqtt, client_id: &str, fleet: &Fleet) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, &config.host, config.port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_session(false);
    options.set_manual_acks(true);
    options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    if let Some(username) = &config.username {
        let password = config.password.as_ref().map_or("", config::Secret::expose);
        options.set_credentials(username, password);
    }
    if let Some(presence) = fleet.presence_topic() {
        options.set_last_will(LastWill::new(presence, Vec::new(), QoS::AtLeastOnce, true));
    }
    options
}

/// What the three tasks share. One thread, so cells and no locks; no borrow is held across an await.
struct Broker {
    config: config::Mqtt,
    context: Context,
    reporter: Reporter,
    client: AsyncClient,
    queues: RefCell<Queues>,
    fleet: RefCell<Fleet>,
    watermark: watch::Receiver<Offset>,
    /// There is something to send.
    outgoing: Notify,
    /// There is something to look after.
    tended: Notify,
}

impl Broker {
    /// Drives the connection until the broker has closed it after the disconnect of [`Broker::close`].
    async fn poll(&self, mut event_loop: EventLoop) {
        let mut pause = RECONNECT.0;
        loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    pause = RECONNECT.0;
                    self.connected(ack.session_present);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.receive(publish),
                Ok(Event::Incoming(Packet::SubAck(ack))) => self.subscribed(&ack.return_codes),
                Ok(_) => {}
                Err(e) => {
                    // What rumqttc has read and not handed over yet came on the old connection, and an ack that
                    // waited for a place would leave on the next one. The broker sends all of it again.
                    event_loop.clean();
                    event_loop.state.events.clear();
                    if self.disconnected(&e.to_string()) {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT.1);
                }
            }
            while self.queues.borrow().is_overfull() {
                // The held messages may have found room without any news of it.
                let mut room = self.context.room();
                tokio::time::timeout(Duration::from_millis(RETRY_MS), room.changed()).await.ok();
            }
        }
    }

    fn connected(&self, session_present: bool) {
        let mut queues = self.queues.borrow_mut();
        queues.connect();
        // The first connection of a process subscribes even to a session that is present, since the configuration may
        // have changed; and a connection that ended before its subscriptions were granted left a session without them.
        if !session_present || queues.connection == 1 || queues.subscriptions_due > 0 {
            let filters = self.config.subscribe.iter().map(|subscribe| subscribe.topic.filter.clone());
            let native = self.fleet.borrow().filter();
            let before = queues.requests.len();
            queues.requests.extend(filters.chain(native).map(Request::Subscribe));
            queues.subscriptions_due = queues.requests.len() - before;
        }
        self.fleet.borrow_mut().handle_connected(Now::read(), &mut queues.requests);
        drop(queues);
        self.reporter.connected(if session_present { "session resumed" } else { "new session" });
        self.outgoing.notify_one();
        self.tended.notify_one();
    }

    /// Whether that was the end of a shutdown.
    fn disconnected(&self, error: &str) -> bool {
        let mut queues = self.queues.borrow_mut();
        queues.disconnect();
        if !queues.closing {
            self.reporter.disconnected(&format!("broker {}: {error}", self.config.url));
        }
        queues.closing
    }

    fn subscribed(&self, codes: &[SubscribeReasonCode]) {
        let mut queues = self.queues.borrow_mut();
        queues.subscriptions_due = queues.subscriptions_due.saturating_sub(1);
        if codes.contains(&SubscribeReasonCode::Failure) {
            self.reporter.trouble(
                "subscribe",
                &format!(
                    "broker {} refuses a subscription; check its access rules for this client",
                    self.config.url
                ),
            );
        }
    }

    /// Takes a message in, or holds it while older ones wait.
    fn receive(&self, publish: Publish) {
        let mut queues = self.queues.borrow_mut();
        if queues.closing {
            return;
        }
        self.reporter.stats().messages.add(1);
        let held = Held { publish, received_ns: clock::steady_ns() };
        if queues.held.is_empty() && self.take(&mut queues, &held) {
            return;
        }
        if held.publish.qos == QoS::AtMostOnce {
            self.reporter
                .loss("qos0", "a message at QoS 0 is dropped, because older ones wait for the journal");
            return;
        }
        queues.hold(held);
        self.reporter.stats().waiting.set(queues.held.len());
        self.tended.notify_one();
    }

    /// Whether the message found room.
    fn take(&self, queues: &mut Queues, held: &Held) -> bool {
        let publish = &held.publish;
        let mut fleet = self.fleet.borrow_mut();
        let taken = if let Some(device) = fleet.device_of(&publish.topic) {
            fleet.handle_message(
                Now::read(),
                device,
                &publish.payload,
                publish.dup,
                &mut queues.requests,
                &self.reporter,
            );
            self.outgoing.notify_one();
            self.tended.notify_one();
            // The link has acks of its own, so the broker may forget the message at once.
            Some(Taken { receipt: Offset(0), rows: 0 })
        } else {
            self.take_foreign(publish, held.received_ns)
        };
        let Some(Taken { receipt, rows }) = taken else { return false };
        if publish.qos == QoS::AtLeastOnce {
            self.push_ack(
                queues,
                DueAck { connection: queues.connection, packet: publish.pkid, receipt, rows },
            );
        }
        true
    }

    fn push_ack(&self, queues: &mut Queues, ack: DueAck) {
        // The send task hears of every commit; only what is durable already needs a word.
        if ack.receipt <= *self.watermark.borrow() {
            self.outgoing.notify_one();
        }
        if queues.push_ack(ack) {
            self.context.ingest.journal().hurry();
        }
    }

    /// What intake made of a foreign message; `None` if it is to be held.
    fn take_foreign(&self, publish: &Publish, received_ns: i64) -> Option<Taken> {
        let nothing = Taken { receipt: Offset(0), rows: 0 };
        let mut matching = self.config.subscribe.iter().filter_map(|subscribe| {
            subscribe.topic.captures(&publish.topic).map(|captures| (subscribe, captures))
        });
        let Some((subscribe, captures)) = matching.next() else {
            let topic = publish.topic.chars().take(64).collect::<String>();
            let what = format!(
                "a message on {topic:?} matches no subscription of ours and is let go; a session of an earlier configuration still asks for it"
            );
            self.reporter.trouble("unmatched", &what);
            return Some(nothing);
        };
        let naming = self.context.ingest.naming();
        let mut parsed = payload::parse(&subscribe.layout, naming, &captures, &publish.payload);
        if publish.retain && subscribe.retained == config::Retained::Skip {
            // A retained message without a time of its own is the last state, not a reading.
            parsed.rows.retain(|row| row.timestamp.is_some());
        }
        if parsed.is_empty() {
            return Some(nothing);
        }
        let origin = Origin { name: &publish.topic, payload: &publish.payload };
        self.context.take_foreign(&parsed, origin, received_ns, publish.dup, &self.reporter)
    }

    /// Hands acks and requests to rumqttc.
    async fn send(&self) {
        let mut watermark = self.context.watermark();
        loop {
            let durable = *watermark.borrow_and_update();
            while let Some(ack) = self.next_ack(durable) {
                // Only the packet id matters. Nothing awaits between the look at the connection's number and the
                // hand-over; an ack that then waits for a place in the channel is dropped with the connection.
                let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
                publish.pkid = ack.packet;
                if self.client.ack(&publish).await.is_err() {
                    return;
                }
                self.reporter.stats().rows_acked.add(ack.rows);
            }
            while let Some(request) = self.next_request() {
                if self.hand_over(request).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = watermark.changed() => if changed.is_err() { return },
                () = self.outgoing.notified() => {}
            }
        }
    }

    fn next_ack(&self, durable: Offset) -> Option<DueAck> {
        self.queues.borrow_mut().next_ack(durable)
    }

    fn next_request(&self) -> Option<Request> {
        self.queues.borrow_mut().next_request()
    }

    async fn hand_over(&self, request: Request) -> Result<(), rumqttc::ClientError> {
        match request {
            Request::Subscribe(filter) => self.client.subscribe(filter, QoS::AtLeastOnce).await,
            Request::Publish { topic, retain, qos, payload } => {
                self.client.publish(topic, qos, retain, payload).await
            }
            Request::Disconnect => self.client.disconnect().await,
        }
    }

    /// Looks after native sessions (releases, timers) and after held messages.
    async fn tend(&self) {
        let mut watermark = self.context.watermark();
        let mut room = self.context.room();
        loop {
            let durable = *watermark.borrow_and_update();
            room.borrow_and_update();
            let deadline = self.tend_once(durable);
            let awaits_commit = self.fleet.borrow().awaits_commit();
            tokio::select! {
                changed = watermark.changed(), if awaits_commit => if changed.is_err() { return },
                _ = room.changed() => {}
                () = self.tended.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// When to look again, in milliseconds of the monotonic clock.
    fn tend_once(&self, durable: Offset) -> Option<u64> {
        let mut queues = self.queues.borrow_mut();
        while let Some(held) = queues.take_held() {
            if !self.take(&mut queues, &held) {
                queues.put_back(held);
                break;
            }
        }
        self.reporter.stats().waiting.set(queues.held.len());
        let retry = (!queues.held.is_empty()).then(|| clock::monotonic_ms() + RETRY_MS);
        let deadline =
            self.fleet.borrow_mut().tend(Now::read(), durable, &mut queues.requests, &self.reporter);
        if !queues.requests.is_empty() {
            self.outgoing.notify_one();
        }
        [deadline, retry].into_iter().flatten().min()
    }

    /// Waits for the word to stop, then for the last commit and its acks, and disconnects.
    async fn close(&self) {
        self.context.stopped().await;
        self.queues.borrow_mut().closing = true;
        let all_acked = async {
            while !self.queues.borrow().acks.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(CLOSE_DEADLINE, all_acked).await.is_err() {
            self.reporter
                .trouble("close", "some messages are not acked at the end; the broker will send them again");
        }
        if self.say_goodbye() {
            // The poll task returns first, when the broker has closed the connection. Closing it ourselves, with bytes
            // unread, would throw away the acks that the broker has not read.
            tokio::time::sleep(DISCONNECT_DEADLINE).await;
        }
    }

    /// Whether there is a connection to say it on.
    fn say_goodbye(&self) -> bool {
        let mut queues = self.queues.borrow_mut();
        if queues.connected {
            self.fleet.borrow_mut().handle_closing(&mut queues.requests);
            queues.requests.push_back(Request::Disconnect);
            self.outgoing.notify_one();
        }
        queues.connected
    }
}
