//! Devices that have a fixed number of rows and want to get rid of them as fast as they are taken.
//!
//! Rows are a millisecond apart and end now, so that timestamps increase strictly and never lie ahead.

use std::time::Duration;

use forebay_firmware::Device;
use forebay_shared::ids::{ChipId, Millis, Tick};
use forebay_shared::link::Transport;
use forebay_shared::message::{MESSAGE_BYTES_MAX, ResetCause};
use rumqttc::QoS;

use super::faults::Faults;
use super::link::{LinkEvent, MqttLink};
use super::native::{CHANNELS, config, record_row};
use super::{RING_BYTES, json_payload};
use crate::clock::{TickClock, wall_ns};

/// Free bytes of the ring that are left before more is sampled: more than any row needs.
const RING_RESERVE: usize = 2 * 1024;

/// How long a device waits for news before it looks again.
const NAP: Duration = Duration::from_millis(20);

/// What the messages of a load are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A JSON object on `sensors/NAME/garden`, one row a message.
    Json,
    /// A line of line protocol on `lines/NAME`, one row a message.
    LineProtocol,
    /// Blocks of the device link; a message carries several rows.
    Native,
}

/// One device of a load.
#[derive(Clone, Debug)]
pub struct LoadDevice {
    /// Its number, from which its name follows.
    pub index: u16,
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// How many rows it has.
    pub rows: u64,
    /// What its messages are.
    pub payload: Payload,
    /// The prefix of native devices' topics.
    pub prefix: String,
}

impl LoadDevice {
    /// Publishes everything and returns how many messages that took, once the broker, or for native devices the gateway,
    /// has acknowledged all of it.
    ///
    /// # Errors
    /// The firmware refuses a row.
    pub async fn run(self) -> anyhow::Result<u64> {
        let name = format!("load-{}", self.index);
        let client_id = format!("sim-{name}-{}", std::process::id());
        let faults = Faults::default().of_connection(&name);
        let mut link = MqttLink::start(&self.host, self.port, &client_id, faults);
        match self.payload {
            Payload::Native => self.run_native(&name, &mut link).await,
            Payload::Json | Payload::LineProtocol => Ok(self.run_plain(&name, &mut link).await),
        }
    }

    async fn run_plain(&self, name: &str, link: &mut MqttLink) -> u64 {
        let first_ns = wall_ns() - i64::try_from(self.rows).unwrap_or(0) * 1_000_000;
        let (mut published, mut taken) = (0, 0);
        let mut ns = first_ns;
        let mut ready = self.message(name, 0, ns);
        while taken < self.rows {
            while published < self.rows && link.publish(&ready.0, ready.1.clone()) {
                published += 1;
                ns += 1_000_000;
                ready = self.message(name, published, ns);
            }
            let mut event = link.next(NAP).await;
            while let Some(seen) = event {
                taken += u64::from(matches!(seen, LinkEvent::Taken));
                event = link.try_next();
            }
        }
        published
    }

    fn message(&self, name: &str, number: u64, ns: i64) -> (String, Vec<u8>) {
        if self.payload == Payload::Json {
            return (format!("sensors/{name}/garden"), json_payload(number, ns).into_bytes());
        }
        let temperature = 20 + number % 10;
        let line = format!("weather,device={name},room=garden n={number},temperature={temperature}.5 {ns}");
        (format!("lines/{name}"), line.into_bytes())
    }

    async fn run_native(&self, name: &str, link: &mut MqttLink) -> anyhow::Result<u64> {
        let [high, low] = self.index.to_be_bytes();
        let no_chip = || anyhow::anyhow!("no chip id for {name}");
        let chip = ChipId::new(&[0xe6, 0x61, b'l', high, low]).ok_or_else(no_chip)?;
        let (up, down) = (format!("{}/{chip}/up", self.prefix), format!("{}/{chip}/down", self.prefix));
        let presence = format!("{}/gateway", self.prefix);
        let config = config(name, Transport::Mqtt)?;
        let mut device = Box::new(Device::<RING_BYTES, CHANNELS>::new(config, chip, ResetCause::POWER_ON));
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let clock = TickClock::start(self.rows.saturating_mul(1000));
        let (mut recorded, mut messages) = (0, 0);
        while recorded < self.rows || device.oldest() != device.next_sequence() {
            while recorded < self.rows && device.ring_used_bytes() + RING_RESERVE < RING_BYTES {
                record_row(&mut device, u32::try_from(recorded)?, recorded * 1000)?;
                recorded += 1;
            }
            let now = Millis(clock.milliseconds());
            device.poll(now, Tick(clock.tick()));
            while let Some(message) = device.transmit_message(&mut buffer) {
                if !link.publish(&up, message.to_vec()) {
                    break;
                }
                messages += 1;
                device.message_sent();
                device.poll(now, Tick(clock.tick()));
            }
            let mut event = link.next(NAP).await;
            while let Some(seen) = event {
                let now = Millis(clock.milliseconds());
                match seen {
                    LinkEvent::Connected => {
                        link.subscribe(&down, QoS::AtMostOnce).await?;
                        link.subscribe(&presence, QoS::AtLeastOnce).await?;
                    }
                    LinkEvent::Disconnected => device.presence(None),
                    LinkEvent::Message { topic, payload } if topic == presence => {
                        device.presence(Some(&payload));
                    }
                    LinkEvent::Message { payload, .. } => device.receive_message(now, &payload),
                    LinkEvent::Taken => {}
                }
                event = link.try_next();
            }
        }
        Ok(messages)
    }
}
