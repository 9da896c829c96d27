//! What goes to a broker, as bytes that wait to be sent.
//!
//! In: acks, subscriptions, messages of ours. Out: bytes, which `link.rs` writes. Everything in it belongs to the present
//! connection and is thrown away with it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rumqttc::mqttbytes::{Protocol, v4};
use rumqttc::v5::mqttbytes::{self as mqttbytes5, v5};

pub(in crate::source) use rumqttc::QoS;

use crate::config::{self, MqttVersion};

/// How long a broker may hear nothing before it takes the gateway for gone; half of it passes between two signs of life.
pub(super) const KEEP_ALIVE_S: u16 = 60;

/// Messages that a broker with MQTT 5 may send before it waits for acks: more than brokers have in flight by themselves.
const RECEIVE_MAXIMUM: u16 = 1_000;

/// The largest packet that MQTT can express. A broker with MQTT 5 drops what is larger than announced, and tells nobody.
const PACKET_BYTES_MAX: u32 = 268_435_455;

/// A session that never expires.
const FOREVER: u32 = u32::MAX;

/// Filters in one packet: hosted brokers take no more than eight.
const FILTERS: usize = 8;

/// Bytes that may wait; a broker that does not read so much has stopped.
const BYTES_MAX: usize = 8 << 20;

/// How the gateway introduces itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub(super) client_id: String,
    /// Whether the broker is to forget what it knows under this client id, and to forget again at the end.
    pub(super) clean: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<config::Secret>,
    /// A retained topic that the broker clears when the gateway is gone.
    pub(super) will: Option<String>,
}

/// Bytes for one connection.
pub(in crate::source) struct Outbox {
    version: MqttVersion,
    bytes: BytesMut,
    packet: u16,
}

impl Outbox {
    pub(in crate::source) fn new(version: MqttVersion) -> Outbox {
        Outbox { version, bytes: BytesMut::new(), packet: 0 }
    }

    /// A connection has ended.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the broker has stopped reading.
    pub(super) fn is_overfull(&self) -> bool {
        self.bytes.len() > BYTES_MAX
    }

    /// What is to be written next.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes
    }

    /// So much was written.
    pub(super) fn sent(&mut self, length: usize) {
        self.bytes.advance(length);
    }

    pub(super) fn greet(&mut self, greeting: &Greeting) {
        let password = greeting.password.as_ref().map_or("", config::Secret::expose);
        let username = greeting.username.as_deref();
        // Writing fails only above the largest length of a packet; names and passwords are limited far below it.
        match self.version {
            MqttVersion::V3 => {
                let mut connect = v4::Connect::new(greeting.client_id.as_str());
                connect.protocol = Protocol::V4;
                connect.keep_alive = KEEP_ALIVE_S;
                connect.clean_session = greeting.clean;
                connect.login = username.map(|username| v4::Login::new(username, password));
                connect.last_will = greeting.will.as_deref().map(|topic| v4::LastWill {
                    topic: topic.to_owned(),
                    message: Bytes::new(),
                    qos: QoS::AtLeastOnce,
                    retain: true,
                });
                connect.write(&mut self.bytes).ok();
            }
            MqttVersion::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(if greeting.clean { 0 } else { FOREVER });
                properties.receive_maximum = Some(RECEIVE_MAXIMUM);
                properties.max_packet_size = Some(PACKET_BYTES_MAX);
                let connect = v5::Connect {
                    keep_alive: KEEP_ALIVE_S,
                    client_id: greeting.client_id.clone(),
                    clean_start: greeting.clean,
                    properties: Some(properties),
                };
                let login = username.map(|username| v5::Login::new(username, password));
                let will = greeting.will.as_deref().map(|topic| v5::LastWill {
                    topic: Bytes::copy_from_slice(topic.as_bytes()),
                    message: Bytes::new(),
                    qos: mqttbytes5::QoS::AtLeastOnce,
                    retain: true,
                    properties: None,
                });
                connect.write(&will, &login, &mut self.bytes).ok();
            }
        }
    }

    /// Asks for topics. The answers together speak of as many filters.
    pub(super) fn subscribe(&mut self, filters: &[String], qos: QoS) {
        for filters in filters.chunks(FILTERS) {
            let packet = self.next_packet();
            match self.version {
                MqttVersion::V3 => {
                    let filters = filters.iter().map(|filter| v4::SubscribeFilter::new(filter.clone(), qos));
                    let subscribe = v4::Subscribe { pkid: packet, filters: filters.collect() };
                    subscribe.write(&mut self.bytes).ok();
                }
                MqttVersion::V5 => {
                    let filters = filters.iter().map(|filter| {
                        let mut filter = v5::Filter::new(filter.clone(), qos_of_v5(qos));
                        // A subscription that is renewed brings no old states again; who asks at QoS 0 wants to see them.
                        if qos != QoS::AtMostOnce {
                            filter.retain_forward_rule = v5::RetainForwardRule::OnNewSubscribe;
                        }
                        filter
                    });
                    let subscribe =
                        v5::Subscribe { pkid: packet, filters: filters.collect(), properties: None };
                    subscribe.write(&mut self.bytes).ok();
                }
            }
        }
    }

    /// Asks for a topic no more.
    pub(super) fn unsubscribe(&mut self, filter: String) {
        let packet = self.next_packet();
        match self.version {
            MqttVersion::V3 => {
                v4::Unsubscribe { pkid: packet, topics: vec![filter] }.write(&mut self.bytes).ok();
            }
            MqttVersion::V5 => {
                let unsubscribe = v5::Unsubscribe { pkid: packet, filters: vec![filter], properties: None };
                unsubscribe.write(&mut self.bytes).ok();
            }
        }
    }

    /// Publishes something.
    pub(in crate::source) fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
        let packet = if qos == QoS::AtMostOnce { 0 } else { self.next_packet() };
        match self.version {
            MqttVersion::V3 => {
                let mut publish = v4::Publish::new(topic, qos, payload);
                (publish.retain, publish.pkid) = (retain, packet);
                publish.write(&mut self.bytes).ok();
            }
            MqttVersion::V5 => {
                let payload = Bytes::copy_from_slice(payload);
                let mut publish = v5::Publish::new(topic, qos_of_v5(qos), payload, None);
                (publish.retain, publish.pkid) = (retain, packet);
                publish.write(&mut self.bytes).ok();
            }
        }
    }

    /// The message is safe: PUBACK, or at QoS 2 PUBREC. Both versions write it alike.
    pub(super) fn ack(&mut self, packet: u16, qos: QoS) {
        let kind = if qos == QoS::ExactlyOnce { 0x50 } else { 0x40 };
        self.put_short(kind, packet);
    }

    /// A delivery at QoS 2 is over: PUBCOMP.
    pub(super) fn complete(&mut self, packet: u16) {
        self.put_short(0x70, packet);
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self) {
        self.bytes.put_slice(&[0xc0, 0]);
    }

    /// Says goodbye, so that the broker does not publish the will.
    pub(super) fn leave(&mut self) {
        self.bytes.put_slice(&[0xe0, 0]);
    }

    fn put_short(&mut self, kind: u8, packet: u16) {
        let [high, low] = packet.to_be_bytes();
        self.bytes.put_slice(&[kind, 2, high, low]);
    }

    fn next_packet(&mut self) -> u16 {
        self.packet = if self.packet == u16::MAX { 1 } else { self.packet + 1 };
        self.packet
    }
}

fn qos_of_v5(qos: QoS) -> mqttbytes5::QoS {
    match qos {
        QoS::AtMostOnce => mqttbytes5::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqttbytes5::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqttbytes5::QoS::ExactlyOnce,
    }
}
