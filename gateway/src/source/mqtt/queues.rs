//! What the tasks of one broker hand to each other: due acks, requests to rumqttc, messages that wait for room.

use std::collections::VecDeque;

use rumqttc::{Publish, QoS};

use crate::record::Offset;

/// Messages that a broker has in flight at least: mosquitto's default.
const WINDOW_LEAST: usize = 20;

/// Messages held while the journal is full. A broker stops at its own in-flight limit, long before this.
const HELD_MESSAGES_MAX: usize = 65_535;

/// Bytes of payload held while the journal is full.
const HELD_BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Queues {
    /// Number of the present connection; 0 before the first.
    pub(super) connection: u64,
    pub(super) connected: bool,
    pub(super) closing: bool,
    pub(super) acks: VecDeque<DueAck>,
    /// The most acks that were due at once on this connection: what the broker is known to have in flight.
    window: usize,
    pub(super) requests: VecDeque<Request>,
    /// Subscriptions asked for and not yet answered.
    pub(super) subscriptions_due: usize,
    pub(super) held: VecDeque<Held>,
    held_bytes: usize,
}

/// A PUBACK that leaves once `receipt` is durable.
pub(super) struct DueAck {
    pub(super) connection: u64,
    pub(super) packet: u16,
    pub(super) receipt: Offset,
    pub(super) rows: u64,
}

/// What the send task does besides acks.
pub(in crate::source) enum Request {
    Subscribe(String),
    Publish { topic: String, retain: bool, qos: QoS, payload: Vec<u8> },
    Disconnect,
}

/// A message that waits for room in the journal.
pub(super) struct Held {
    pub(super) publish: Publish,
    /// When it was received, in steady nanoseconds: the wall clock may step while it waits.
    pub(super) received_ns: i64,
}

impl Queues {
    /// A connection begins.
    pub(super) fn connect(&mut self) {
        self.connection += 1;
        self.connected = true;
        self.window = 0;
    }

    /// The connection is gone. The broker sends again what was not acked, and requests of the old connection make no
    /// sense on the next one.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.acks.clear();
        self.requests.clear();
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Whether the commit is to hurry: a broker with half of its window out may send nothing more before it gets acks.
    pub(super) fn push_ack(&mut self, ack: DueAck) -> bool {
        self.acks.push_back(ack);
        self.window = self.window.max(self.acks.len()).max(WINDOW_LEAST);
        self.acks.len() * 2 >= self.window
    }

    /// The next ack in receive order, if it is durable and belongs to the present connection.
    pub(super) fn next_ack(&mut self, durable: Offset) -> Option<DueAck> {
        while let Some(ack) = self.acks.pop_front() {
            if ack.connection != self.connection {
                continue;
            }
            if ack.receipt <= durable {
                return Some(ack);
            }
            self.acks.push_front(ack);
            return None;
        }
        None
    }

    /// The next request, if there is a connection to send it on.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if self.connected || self.closing { self.requests.pop_front() } else { None }
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.held_bytes += held.publish.payload.len();
        self.held.push_back(held);
    }

    /// The message that waits longest; whoever cannot use it puts it back.
    pub(super) fn take_held(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.held_bytes -= held.publish.payload.len();
        Some(held)
    }

    pub(super) fn put_back(&mut self, held: Held) {
        self.held_bytes += held.publish.payload.len();
        self.held.push_front(held);
    }

    pub(super) fn is_overfull(&self) -> bool {
        !self.closing && (self.held.len() > HELD_MESSAGES_MAX || self.held_bytes > HELD_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(connection: u64, packet: u16, receipt: u64) -> DueAck {
        DueAck { connection, packet, receipt: Offset(receipt), rows: 1 }
    }

    #[test]
    fn acks_leave_in_receive_order_and_only_on_their_own_connection() {
        let mut queues = Queues::default();
        queues.connect();
        queues.push_ack(ack(0, 7, 1));
        queues.push_ack(ack(1, 8, 5));
        queues.push_ack(ack(1, 9, 2));
        assert!(queues.next_ack(Offset(4)).is_none(), "the later one is durable, and waits for its turn");
        let packets: Vec<u16> =
            std::iter::from_fn(|| queues.next_ack(Offset(5))).map(|ack| ack.packet).collect();
        assert_eq!(packets, [8, 9]);
    }

    #[test]
    fn half_of_the_known_window_hurries_the_commit() {
        let mut queues = Queues::default();
        queues.connect();
        let hurried = (0..WINDOW_LEAST as u16).map(|packet| queues.push_ack(ack(1, packet, 0)));
        assert_eq!(hurried.filter(|hurry| !hurry).count(), WINDOW_LEAST / 2 - 1);
        while queues.next_ack(Offset(0)).is_some() {}
        for packet in 0..60 {
            queues.push_ack(ack(1, packet, 0));
        }
        while queues.next_ack(Offset(0)).is_some() {}
        let hurried = (0..60).map(|packet| queues.push_ack(ack(1, packet, 0)));
        assert_eq!(hurried.filter(|hurry| !hurry).count(), 29, "the window is known to be wider now");
    }

    #[test]
    fn what_is_held_is_bounded_and_counted() {
        let mut queues = Queues::default();
        let held =
            |bytes| Held { publish: Publish::new("t", QoS::AtLeastOnce, vec![0; bytes]), received_ns: 0 };
        queues.hold(held(HELD_BYTES_MAX));
        assert!(!queues.is_overfull());
        queues.hold(held(1));
        assert!(queues.is_overfull());
        let first = queues.take_held().unwrap();
        assert!(!queues.is_overfull());
        queues.put_back(first);
        assert!(queues.is_overfull());
        queues.disconnect();
        assert!(!queues.is_overfull() && queues.take_held().is_none());
    }
}
