//! What the tap remembers: which messages were delivered to the gateway, which of them it acknowledged, and what the broker
//! had to send again.
//!
//! A delivery is a *new* message unless it is marked as a repetition and the session has the same content under the same
//! packet id. What was delivered and not acknowledged when a connection ends was *in flight*; only that, and what the
//! broker did not hear the acknowledgement of, can come twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::mqtt::packet::{CONNACK, CONNECT, DUP, LEVEL_5, PUBACK, Packet, Published, RETAIN, SUBACK};

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections of the gateway.
    pub connections: u64,
    /// Those on which the broker knew no session.
    pub sessions: u64,
    /// Subscriptions of the present session.
    pub granted: usize,
    /// Connections that were cut here.
    pub cuts: u64,
    /// Different messages that were delivered to the gateway.
    pub delivered: u64,
    /// Different messages that the gateway acknowledged.
    pub acked: u64,
    /// Retained messages among the deliveries.
    pub retained: u64,
    /// Deliveries beyond the first one of a message.
    pub redelivered: u64,
    /// Those among them whose message the gateway had acknowledged before.
    pub redelivered_acked: u64,
    /// Messages delivered and not acknowledged, now.
    pub open: usize,
    /// The most that there ever were of them.
    pub open_max: usize,
    /// The same at the ends of all connections, summed.
    pub open_at_ends: u64,
    /// Acknowledgements of what was not delivered on their connection.
    pub stray_acks: u64,
    /// Acknowledgements that left out an older message.
    pub disordered_acks: u64,
}

/// Identifies a message by its content.
#[must_use]
pub fn key_of(topic: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, payload).hash(&mut hasher);
    hasher.finish()
}

/// A message of the session.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: u64,
    acked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    figures: Figures,
    version_5: bool,
    /// The session's latest message under each packet id.
    session: HashMap<u16, Known>,
    /// Packet ids that were delivered on the present connection and not acknowledged, in order.
    open: VecDeque<u16>,
    acknowledged: HashMap<u64, u32>,
}

impl Records {
    pub(super) fn figures(&self) -> Figures {
        Figures { open: self.open.len(), ..self.figures }
    }

    pub(super) fn acknowledged(&self, key: u64) -> u32 {
        self.acknowledged.get(&key).copied().unwrap_or(0)
    }

    /// A connection begins.
    pub(super) fn begin(&mut self) {
        self.figures.connections += 1;
    }

    /// The connection is over, and nothing of it will be noted any more.
    pub(super) fn end(&mut self) {
        self.figures.open_at_ends += u64::try_from(self.open.len()).unwrap_or(0);
        self.open.clear();
    }

    pub(super) fn note_cut(&mut self, is_cut: bool) {
        self.figures.cuts += u64::from(is_cut);
    }

    pub(super) fn note_from_gateway(&mut self, packet: &Packet<'_>) {
        match packet.kind {
            CONNECT => self.version_5 = packet.level() == Some(LEVEL_5),
            PUBACK => {
                if let Some(id) = packet.id() {
                    self.acknowledge(id);
                }
            }
            _ => {}
        }
    }

    pub(super) fn note_delivery(&mut self, packet: &Packet<'_>) {
        match packet.kind {
            CONNACK if !packet.session_present() => {
                self.session.clear();
                self.figures.sessions += 1;
                self.figures.granted = 0;
            }
            SUBACK => self.figures.granted += packet.granted(self.version_5),
            _ => {}
        }
        if let Some(published) = packet.published(self.version_5) {
            self.figures.retained += u64::from(packet.flags & RETAIN != 0);
            self.deliver(&published, packet.flags & DUP != 0);
        }
    }

    fn deliver(&mut self, published: &Published<'_>, repeated: bool) {
        let key = key_of(published.topic, published.payload);
        let known = self.session.get(&published.id).filter(|known| repeated && known.key == key);
        if let Some(known) = known {
            self.figures.redelivered += 1;
            self.figures.redelivered_acked += u64::from(known.acked);
        } else {
            self.figures.delivered += 1;
            self.session.insert(published.id, Known { key, acked: false });
        }
        self.open.push_back(published.id);
        self.figures.open_max = self.figures.open_max.max(self.open.len());
    }

    fn acknowledge(&mut self, id: u16) {
        let Some(at) = self.open.iter().position(|open| *open == id) else {
            self.figures.stray_acks += 1;
            return;
        };
        self.figures.disordered_acks += u64::from(at != 0);
        self.open.remove(at);
        if let Some(known) = self.session.get_mut(&id).filter(|known| !known.acked) {
            known.acked = true;
            self.figures.acked += 1;
            *self.acknowledged.entry(known.key).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Records, key_of};
    use crate::mqtt::packet::Packet;

    const FIRST: &[u8] = b"\x32\x08\x00\x03a/b\x00\x09x";
    const AGAIN: &[u8] = b"\x3a\x08\x00\x03a/b\x00\x09x";
    const ACK: &[u8] = b"\x40\x02\x00\x09";
    const NEW_SESSION: &[u8] = b"\x20\x02\x00\x00";
    const SAME_SESSION: &[u8] = b"\x20\x02\x01\x00";

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet::parse(bytes).expect("a whole packet").0
    }

    fn connected(records: &mut Records, connack: &[u8]) {
        records.end();
        records.begin();
        records.note_delivery(&packet(connack));
    }

    #[test]
    fn what_comes_again_in_its_session_is_one_message() {
        let mut records = Records::default();
        connected(&mut records, NEW_SESSION);
        records.note_delivery(&packet(FIRST));
        connected(&mut records, SAME_SESSION);
        records.note_delivery(&packet(AGAIN));
        records.note_from_gateway(&packet(ACK));
        connected(&mut records, SAME_SESSION);
        records.note_delivery(&packet(AGAIN));
        records.note_from_gateway(&packet(ACK));
        assert_eq!(records.acknowledged(key_of(b"a/b", b"x")), 1);
        let expected = Figures {
            connections: 3,
            sessions: 1,
            delivered: 1,
            acked: 1,
            redelivered: 2,
            redelivered_acked: 1,
            open_max: 1,
            open_at_ends: 1,
            ..Figures::default()
        };
        assert_eq!(records.figures(), expected);
    }

    #[test]
    fn the_same_content_without_the_mark_or_in_another_session_is_another_message() {
        let mut records = Records::default();
        connected(&mut records, NEW_SESSION);
        records.note_delivery(&packet(FIRST));
        records.note_from_gateway(&packet(ACK));
        records.note_delivery(&packet(FIRST));
        records.note_from_gateway(&packet(ACK));
        connected(&mut records, NEW_SESSION);
        records.note_delivery(&packet(AGAIN));
        records.note_from_gateway(&packet(ACK));
        assert_eq!(records.acknowledged(key_of(b"a/b", b"x")), 3);
    }

    #[test]
    fn a_stray_ack_and_one_out_of_order_are_told() {
        let mut records = Records::default();
        connected(&mut records, NEW_SESSION);
        records.note_from_gateway(&packet(ACK));
        records.note_delivery(&packet(b"\x32\x08\x00\x03a/b\x00\x08y"));
        records.note_delivery(&packet(FIRST));
        records.note_from_gateway(&packet(ACK));
        let figures = records.figures();
        assert_eq!((figures.stray_acks, figures.disordered_acks, figures.open), (1, 1, 1));
    }
}
