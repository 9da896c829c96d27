//! An MQTT connection as a simulated device sees it: events come through a bounded queue, publishing never waits.
//!
//! The client's event loop runs in a task of its own and is never dropped half way through a packet, but where the
//! connection is cut. It waits while the queue is full, so the device must look at its events often, and must never wait
//! for the client itself. What a bad network does lies between the two: what is sent, and what happens, is held up.

use std::time::Duration;

use forebay_shared::ids::Millis;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::faults::ConnectionFaults;

/// Events that may wait for the device.
const EVENTS_MAX: usize = 256;

/// Requests that may wait for the connection.
const REQUESTS_MAX: usize = 64;

/// Messages, or events, that may be on their way.
const UNDER_WAY_MAX: usize = 16;

/// Publishes that the broker has not acknowledged yet.
const INFLIGHT_MAX: u16 = 100;

/// How long a device waits before it tries to reach a broker again.
const RETRY: Duration = Duration::from_millis(200);

/// How long a message waits before it is offered again to a client that took no more.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

/// What happened on the connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The broker accepted the connection.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A message on a topic that was subscribed to.
    Message { topic: String, payload: Vec<u8> },
    /// The broker took one message over.
    Taken,
}

/// A connection that reconnects by itself, with a persistent session.
#[derive(Debug)]
pub(super) struct MqttLink {
    client: AsyncClient,
    events: mpsc::Receiver<LinkEvent>,
    cuts: mpsc::Sender<Duration>,
    faults: ConnectionFaults,
    started: Instant,
    task: JoinHandle<()>,
}

impl MqttLink {
    /// Starts connecting. Must be called within a runtime.
    pub(super) fn start(host: &str, port: u16, client_id: &str, faults: ConnectionFaults) -> MqttLink {
        let mut options = MqttOptions::new(client_id, host, port);
        options.set_clean_session(false).set_inflight(INFLIGHT_MAX).set_keep_alive(Duration::from_secs(10));
        options.set_max_packet_size(64 * 1024, 64 * 1024);
        let (client, connection) = AsyncClient::new(options, REQUESTS_MAX);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (cuts, cut) = mpsc::channel(1);
        let task = tokio::spawn(carry(connection, sender, cut));
        MqttLink { client, events, cuts, faults, started: Instant::now(), task }
    }

    /// The next event, or `None` after `wait`. Nothing is lost where the wait is given up.
    pub(super) async fn next(&mut self, wait: Duration) -> Option<LinkEvent> {
        let until = Instant::now() + wait;
        loop {
            let wake = self.work().min(until);
            if let Some(event) = self.arrived() {
                return Some(event);
            }
            tokio::select! {
                biased;
                Some(event) = self.events.recv(), if self.faults.down.len() < UNDER_WAY_MAX => {
                    self.faults.down.send(self.now(), event);
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= until {
                        return None;
                    }
                }
            }
        }
    }

    /// The next event, if one is there.
    pub(super) fn try_next(&mut self) -> Option<LinkEvent> {
        if self.faults.down.len() < UNDER_WAY_MAX
            && let Ok(event) = self.events.try_recv()
        {
            self.faults.down.send(self.now(), event);
        }
        self.arrived()
    }

    /// Sends a message at QoS 1; `false` when no more are taken for now.
    pub(super) fn publish(&mut self, topic: &str, payload: Vec<u8>) -> bool {
        let has_room = self.faults.up.len() < UNDER_WAY_MAX;
        if has_room {
            self.faults.up.send(self.now(), (topic.to_owned(), payload));
        }
        self.work();
        has_room
    }

    /// Subscribes; a request that finds no room is made again at the next connection.
    pub(super) async fn subscribe(&self, topic: &str, qos: QoS) -> anyhow::Result<()> {
        self.client
            .subscribe(topic, qos)
            .await
            .map_err(|error| anyhow::anyhow!("subscribing to {topic}: {error}"))
    }

    /// From now on the connection is not cut on purpose any more.
    pub(super) fn spare(&mut self) {
        self.faults.outages.stop();
    }

    /// Hands on what has arrived at the client, cuts the connection if that is due, and says when there is more to do.
    fn work(&mut self) -> Instant {
        let now = self.now();
        while let Some((topic, payload)) = self.faults.up.arrived(now) {
            if self.client.try_publish(topic, QoS::AtLeastOnce, false, payload.clone()).is_err() {
                return Instant::now() + OFFER_AGAIN;
            }
            self.faults.up.take();
        }
        if let Some(away) = self.faults.outages.due(now) {
            // If it is away already, it stays away for as long as it was told first.
            let _ = self.cuts.try_send(away);
        }
        let faults = &self.faults;
        let next = [faults.up.next_at(), faults.down.next_at(), faults.outages.next_at()];
        let next = next.into_iter().flatten().min().unwrap_or(Millis(now.0 + 60_000));
        Instant::now() + Duration::from_millis(next.0.saturating_sub(now.0))
    }

    fn arrived(&mut self) -> Option<LinkEvent> {
        self.faults.down.arrived(self.now())?;
        self.faults.down.take()
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

impl Drop for MqttLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs the client, and cuts its connection when told to.
async fn carry(
    mut connection: EventLoop,
    events: mpsc::Sender<LinkEvent>,
    mut cuts: mpsc::Receiver<Duration>,
) {
    let mut connected = false;
    loop {
        let polled = tokio::select! {
            polled = connection.poll() => polled,
            // Before the first connection there is no session yet that would keep what was published.
            Some(away) = cuts.recv(), if connected => {
                connection.clean();
                connected = false;
                if events.send(LinkEvent::Disconnected).await.is_err() {
                    return;
                }
                tokio::time::sleep(away).await;
                continue;
            }
        };
        let event = match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                connected = true;
                Some(LinkEvent::Connected)
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                Some(LinkEvent::Message { topic: message.topic, payload: message.payload.to_vec() })
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => Some(LinkEvent::Taken),
            Ok(_) => None,
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                std::mem::take(&mut connected).then_some(LinkEvent::Disconnected)
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}
