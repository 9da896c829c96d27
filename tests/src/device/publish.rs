//! Publishing single messages, for tests that want to choose every byte.

use std::time::Duration;

use anyhow::Context as _;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

/// How long the broker may take to take everything over.
const LIMIT: Duration = Duration::from_secs(30);

/// Publishes messages (topic, payload) at QoS 1, in order, and waits until the broker has acknowledged all of them.
///
/// # Errors
/// The broker is not there, or refuses.
pub fn publish(port: u16, messages: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(LIMIT, send(port, messages)).await.context("the broker takes too long")?
    })
}

async fn send(port: u16, messages: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let client_id = format!("publisher-{}-{port}", std::process::id());
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options.set_max_packet_size(16 * 1024 * 1024, 16 * 1024 * 1024).set_inflight(50);
    let (client, mut events) = AsyncClient::new(options, 10);
    let mut missing = messages.len();
    let sender = tokio::spawn(async move {
        for (topic, payload) in messages {
            client.publish(topic, QoS::AtLeastOnce, false, payload).await?;
        }
        // The connection lives as long as its client.
        Ok::<_, rumqttc::ClientError>(client)
    });
    while missing > 0 {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.context("publishing")? {
            missing -= 1;
        }
    }
    sender.await?.context("publishing")?;
    Ok(())
}
