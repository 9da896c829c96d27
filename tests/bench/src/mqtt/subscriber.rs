//! What ours is measured beside: the least that a subscriber with rumqttc can do. It acks each message as it comes, from a
//! task of its own on a runtime of one thread, and keeps nothing.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, Publish};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

/// The largest packet.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// The longest pause of the broker.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What a subscriber did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscribed {
    /// From the first ack that left to the last.
    pub(super) messages_per_s: f64,
    /// Processor time of its thread, from the start of the connection.
    pub(super) cpu_s: f64,
}

/// Resumes a session that is subscribed already, and acks so many messages; tells when it is connected.
pub(super) fn run(
    port: u16,
    client_id: &str,
    messages: u64,
    connected: &SyncSender<()>,
) -> Result<Subscribed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cpu_before = thread_cpu();
    let elapsed = runtime.block_on(serve(port, client_id, messages, connected))?;
    let cpu_s = (thread_cpu() - cpu_before).as_secs_f64();
    Ok(Subscribed { messages_per_s: (messages - 1) as f64 / elapsed.as_secs_f64(), cpu_s })
}

async fn serve(port: u16, client_id: &str, messages: u64, connected: &SyncSender<()>) -> Result<Duration> {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options.set_clean_session(false).set_manual_acks(true).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    // mosquitto 2.0.11 has far more in flight than its limit once messages have queued: each ack sets many of them free.
    // Both queues have room for that, so that neither task waits for the other.
    let room = usize::try_from(messages)?;
    let (client, mut events) = AsyncClient::new(options, room);
    let (to_ack, mut acks) = mpsc::channel::<Publish>(room);
    let acking = client.clone();
    tokio::spawn(async move {
        while let Some(message) = acks.recv().await {
            if acking.ack(&message).await.is_err() {
                break;
            }
        }
    });
    let (mut acked, mut began, mut elapsed) = (0, None, Duration::ZERO);
    loop {
        let event =
            tokio::time::timeout(SILENCE_LIMIT, events.poll()).await.context("the broker is silent")?;
        match event? {
            Event::Incoming(Packet::ConnAck(welcome)) => {
                if !welcome.session_present {
                    bail!("the broker does not know the session {client_id}");
                }
                connected.send(()).context("nobody waits for the subscriber")?;
            }
            Event::Incoming(Packet::Publish(message)) => to_ack.send(message).await?,
            Event::Outgoing(Outgoing::PubAck(_)) => {
                acked += 1;
                let began = *began.get_or_insert_with(Instant::now);
                if acked == messages {
                    elapsed = began.elapsed();
                    client.disconnect().await?;
                }
            }
            Event::Outgoing(Outgoing::Disconnect) => return Ok(elapsed),
            _ => {}
        }
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
