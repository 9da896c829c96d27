//! A native device that speaks through an MQTT broker.

use std::time::Duration;

use forebay_shared::ids::ChipId;
use forebay_shared::link::Transport;
use forebay_shared::message::MESSAGE_BYTES_MAX;
use rumqttc::QoS;

use super::link::{LinkEvent, MqttLink};
use super::{NativeCore, Phase, RING_BYTES, Spec};

/// A native device and the broker that it uses.
#[derive(Debug)]
pub struct MqttNative {
    /// What every device has.
    pub spec: Spec,
    /// Its identity.
    pub chip: ChipId,
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// The prefix of the topics, without a trailing slash.
    pub prefix: String,
}

impl MqttNative {
    /// Runs until the conductor ends it.
    ///
    /// # Errors
    /// The firmware refuses a row.
    pub async fn run(self) -> anyhow::Result<()> {
        let (up, down) =
            (format!("{}/{}/up", self.prefix, self.chip), format!("{}/{}/down", self.prefix, self.chip));
        let presence = format!("{}/gateway", self.prefix);
        let client_id = format!("sim-{}", self.chip);
        let faults = self.spec.faults.of_connection(&self.spec.name);
        let mut core = NativeCore::<RING_BYTES>::new(self.spec, self.chip, Transport::Mqtt)?;
        let mut link = MqttLink::start(&self.host, self.port, &client_id, faults);
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let mut phases = core.phases();
        while core.phase() != Phase::Ended {
            let mut wait_ms = core.step()?;
            while let Some(message) = core.device.transmit_message(&mut buffer) {
                if !link.publish(&up, message.to_vec()) {
                    wait_ms = 5;
                    break;
                }
                core.device.message_sent();
                wait_ms = core.step()?;
            }
            if core.phase() == Phase::Draining {
                link.spare();
            }
            // A device that is due at once has a message ready, and was just told that the client takes no more.
            let event = tokio::select! {
                event = link.next(Duration::from_millis(wait_ms.max(1))) => event,
                _ = phases.changed() => None,
            };
            let now = core.now();
            match event {
                Some(LinkEvent::Connected) => {
                    // The presence last, so that the answer to what it sets off finds its subscription.
                    link.subscribe(&down, QoS::AtMostOnce).await?;
                    link.subscribe(&presence, QoS::AtLeastOnce).await?;
                }
                Some(LinkEvent::Disconnected) => core.device.presence(None),
                Some(LinkEvent::Message { topic, payload }) if topic == presence => {
                    core.device.presence(Some(&payload));
                }
                Some(LinkEvent::Message { payload, .. }) => core.device.receive_message(now, &payload),
                Some(LinkEvent::Taken) | None => {}
            }
        }
        Ok(())
    }
}
