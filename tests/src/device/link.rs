//! An MQTT connection as a simulated device sees it: events come through a bounded queue, publishing never waits.
//!
//! The client's event loop runs in a task of its own and is never dropped half way through a packet. It waits while the
//! queue is full, so the device must look at its events often, and must never wait for the client itself.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events that may wait for the device.
const EVENTS_MAX: usize = 256;

/// Requests that may wait for the connection.
const REQUESTS_MAX: usize = 64;

/// Publishes that the broker has not acknowledged yet.
const INFLIGHT_MAX: u16 = 100;

/// How long a device waits before it tries to reach a broker again.
const RETRY: Duration = Duration::from_millis(200);

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
    task: JoinHandle<()>,
}

impl MqttLink {
    /// Starts connecting. Must be called within a runtime.
    pub(super) fn start(host: &str, port: u16, client_id: &str) -> MqttLink {
        let mut options = MqttOptions::new(client_id, host, port);
        options.set_clean_session(false).set_inflight(INFLIGHT_MAX).set_keep_alive(Duration::from_secs(10));
        options.set_max_packet_size(64 * 1024, 64 * 1024);
        let (client, mut events_in) = AsyncClient::new(options, REQUESTS_MAX);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let task = tokio::spawn(async move {
            let mut connected = false;
            loop {
                let event = match events_in.poll().await {
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
                    && sender.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        MqttLink { client, events, task }
    }

    /// The next event, or `None` after `wait`.
    pub(super) async fn next(&mut self, wait: Duration) -> Option<LinkEvent> {
        tokio::time::timeout(wait, self.events.recv()).await.ok().flatten()
    }

    /// The next event, if one is there.
    pub(super) fn try_next(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }

    /// Hands a message to the client at QoS 1; `false` when it takes no more for now.
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>) -> bool {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok()
    }

    /// Subscribes; a request that finds no room is made again at the next connection.
    pub(super) async fn subscribe(&self, topic: &str, qos: QoS) -> anyhow::Result<()> {
        self.client
            .subscribe(topic, qos)
            .await
            .map_err(|error| anyhow::anyhow!("subscribing to {topic}: {error}"))
    }
}

impl Drop for MqttLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
