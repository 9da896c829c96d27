//! What waits within one connection: messages for room in the journal, acks for their commit.

use std::collections::VecDeque;

use rumqttc::QoS;

use super::resent::Place;
use super::wire::{Fault, Message};
use crate::record::Offset;

/// Messages that a broker has in flight at least: mosquitto's default.
const WINDOW_LEAST: usize = 20;

/// What a broker is known to have in flight that has room for more at any time.
const WINDOW_WIDE: usize = 64;

/// Messages held while the journal is full. A broker stops at its own in-flight limit, long before this.
const HELD_MESSAGES_MAX: usize = 65_535;

/// Messages at QoS 0 among them.
const UNPROTECTED_MAX: usize = 1_024;

/// Bytes held while the journal is full.
const HELD_BYTES_MAX: usize = 16 << 20;

/// Acks that are due, in receive order.
#[derive(Default)]
pub(super) struct Acks {
    due: VecDeque<DueAck>,
    /// The most acks that were due at once on this connection: what the broker is known to have in flight.
    window: usize,
    /// Whether the commit of what is due is hurried already.
    is_hurried: bool,
    /// After so many commits that are hurried, one waits for the whole window: there may be more than is known.
    until_probe: u32,
    /// Whether this is such a one, and half of the window is out.
    is_probing: bool,
}

/// Hurried commits between two of those that try whether the window is wider. It costs a broker that has sent all it may
/// the time of one commit.
const PROBE_EVERY: u32 = 64;

/// An ack that leaves once `receipt` is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueAck {
    pub(super) packet: u16,
    pub(super) qos: QoS,
    pub(super) receipt: Offset,
    pub(super) rows: u64,
    /// Its number in the list of messages that are known again.
    pub(super) listed: Option<u64>,
    /// When it was received, in steady nanoseconds.
    pub(super) received_ns: i64,
}

impl Acks {
    /// Whether the commit is to hurry: a broker with half of its window out may send nothing more before it gets acks.
    pub(super) fn push(&mut self, ack: DueAck) -> bool {
        self.due.push_back(ack);
        if self.due.len() > self.window.max(WINDOW_LEAST) {
            (self.window, self.until_probe) = (self.due.len(), 0);
        }
        let window = self.window.max(WINDOW_LEAST);
        let enough = if self.until_probe == 0 { window } else { window / 2 };
        self.is_probing |= self.until_probe == 0 && self.due.len() >= window / 2;
        let hurries = self.due.len() >= enough && !self.is_hurried;
        if hurries {
            self.is_hurried = true;
            self.until_probe = self.until_probe.checked_sub(1).unwrap_or(PROBE_EVERY);
        }
        hurries
    }

    /// The next ack in receive order, if it is durable.
    pub(super) fn next(&mut self, durable: Offset) -> Option<DueAck> {
        let next = self.due.pop_front_if(|ack| ack.receipt <= durable)?;
        if std::mem::take(&mut self.is_probing) && !self.is_hurried {
            // The broker has stopped short of the window: it has fewer in flight than brokers are taken to have.
            self.until_probe = PROBE_EVERY;
        }
        self.is_hurried = false;
        Some(next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether twice as many messages as have just come could come before the broker has to wait for acks.
    pub(super) fn leave_room_for(&self, came: usize) -> bool {
        self.window >= WINDOW_WIDE && self.due.len() + 2 * came < self.window
    }

    /// When the message was received that waits longest for its ack, in steady nanoseconds.
    pub(super) fn oldest_ns(&self) -> Option<i64> {
        self.due.front().map(|ack| ack.received_ns)
    }
}

/// Messages that wait for room in the journal.
#[derive(Default)]
pub(super) struct Waiting {
    held: VecDeque<Held>,
    bytes: usize,
    /// Those among them that nobody would send again.
    unprotected: usize,
}

/// A message that waits.
pub(super) struct Held {
    topic: String,
    payload: Vec<u8>,
    payload_bytes: usize,
    qos: QoS,
    again: bool,
    retained: bool,
    packet: u16,
    fault: Option<Fault>,
    pub(super) coming: Coming,
}

/// What is known of a message beside what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coming {
    /// When it was received, in steady nanoseconds: the wall clock may step while it waits.
    pub(super) received_ns: i64,
    /// Where it stands in the session, if it wants an ack.
    pub(super) place: Option<Place>,
    /// How many of its rows are journaled: there may be more than there was room for.
    pub(super) rows_done: usize,
}

impl Held {
    pub(super) fn of(message: &Message<'_>, coming: Coming) -> Held {
        Held {
            topic: message.topic.to_owned(),
            payload: message.payload.to_owned(),
            payload_bytes: message.payload_bytes,
            qos: message.qos,
            again: message.again,
            retained: message.retained,
            packet: message.packet,
            fault: message.fault,
            coming,
        }
    }

    pub(super) fn message(&self) -> Message<'_> {
        Message {
            topic: &self.topic,
            payload: &self.payload,
            payload_bytes: self.payload_bytes,
            qos: self.qos,
            again: self.again,
            retained: self.retained,
            packet: self.packet,
            fault: self.fault,
        }
    }
}

impl Waiting {
    pub(super) fn push(&mut self, held: Held) {
        self.account(&held, usize::wrapping_add);
        self.held.push_back(held);
    }

    fn account(&mut self, held: &Held, change: fn(usize, usize) -> usize) {
        self.bytes = change(self.bytes, held.payload.len() + held.topic.len() + size_of::<Held>());
        self.unprotected = change(self.unprotected, usize::from(held.qos == QoS::AtMostOnce));
    }

    /// Whether there is a place for another message that nobody would send again.
    pub(super) fn has_room_for_unprotected(&self) -> bool {
        self.unprotected < UNPROTECTED_MAX && !self.is_overfull()
    }

    /// The message that waits longest; whoever cannot use it puts it back.
    pub(super) fn take(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.account(&held, usize::wrapping_sub);
        Some(held)
    }

    pub(super) fn put_back(&mut self, held: Held) {
        self.account(&held, usize::wrapping_add);
        self.held.push_front(held);
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// When the message was received that waits longest, in steady nanoseconds.
    pub(super) fn oldest_ns(&self) -> Option<i64> {
        self.held.front().map(|held| held.coming.received_ns)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether nothing more is to be read before some of it has gone.
    pub(super) fn is_overfull(&self) -> bool {
        self.held.len() > HELD_MESSAGES_MAX || self.bytes > HELD_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(packet: u16, receipt: u64) -> DueAck {
        DueAck {
            packet,
            qos: QoS::AtLeastOnce,
            receipt: Offset(receipt),
            rows: 1,
            listed: None,
            received_ns: 0,
        }
    }

    #[test]
    fn acks_leave_in_receive_order_once_they_are_durable() {
        let mut acks = Acks::default();
        acks.push(ack(8, 5));
        acks.push(ack(9, 2));
        assert!(acks.next(Offset(4)).is_none(), "the later one is durable, and waits for its turn");
        let packets: Vec<u16> = std::iter::from_fn(|| acks.next(Offset(5))).map(|ack| ack.packet).collect();
        assert_eq!(packets, [8, 9]);
        assert!(acks.is_empty());
    }

    /// After how many of `messages` in a row the commit is hurried; then all of them are acked.
    fn hurried(acks: &mut Acks, messages: usize) -> Vec<usize> {
        let hurried = (1..=messages).filter(|_| acks.push(ack(1, 0))).collect();
        while acks.next(Offset(0)).is_some() {}
        hurried
    }

    #[test]
    fn half_of_the_known_window_hurries_the_commit_and_now_and_then_the_whole_one() {
        let mut acks = Acks::default();
        let probe = vec![WINDOW_LEAST];
        assert_eq!(hurried(&mut acks, WINDOW_LEAST), probe, "the first one tries whether there is more");
        for _ in 0..PROBE_EVERY {
            assert_eq!(hurried(&mut acks, WINDOW_LEAST), [WINDOW_LEAST / 2]);
        }
        assert_eq!(hurried(&mut acks, WINDOW_LEAST), probe);
        assert_eq!(hurried(&mut acks, 60), [WINDOW_LEAST / 2]);
        assert_eq!(hurried(&mut acks, 60), [60], "the window is known to be wider, and may be wider still");
        assert_eq!(hurried(&mut acks, 60), [30]);
        assert!(hurried(&mut acks, 29).is_empty());
    }

    #[test]
    fn a_broker_with_a_narrow_window_is_hurried_too() {
        let mut acks = Acks::default();
        assert!(hurried(&mut acks, 10).is_empty(), "the first commit tries whether there is more");
        for _ in 0..PROBE_EVERY {
            assert_eq!(hurried(&mut acks, 10), [10]);
        }
        assert!(hurried(&mut acks, 10).is_empty());
        assert_eq!(hurried(&mut acks, 10), [10]);
    }

    #[test]
    fn a_broker_is_left_alone_where_it_is_far_from_its_window() {
        let mut acks = Acks::default();
        let mut after = |window: usize, due: usize, came| {
            hurried(&mut acks, window);
            for _ in 0..due {
                acks.push(ack(1, 0));
            }
            acks.leave_room_for(came)
        };
        assert!(!after(WINDOW_WIDE - 1, 0, 1), "so few may hold it up at once");
        assert!(after(WINDOW_WIDE, 1, 1));
        assert!(after(1_000, 10, 400) && !after(1_000, 400, 400));
    }

    #[test]
    fn what_is_held_is_bounded_and_comes_back_whole() {
        let payload = vec![7; HELD_BYTES_MAX];
        let message = Message {
            topic: "t",
            payload: &payload,
            payload_bytes: payload.len(),
            qos: QoS::AtLeastOnce,
            again: true,
            retained: true,
            packet: 3,
            fault: Some(Fault::TooLarge),
        };
        let coming = |received_ns| Coming { received_ns, place: None, rows_done: 2 };
        let mut waiting = Waiting::default();
        waiting.push(Held::of(&Message { payload: &payload[..HELD_BYTES_MAX / 2], ..message }, coming(5)));
        assert!(!waiting.is_overfull());
        waiting.push(Held::of(&message, coming(6)));
        assert!(waiting.is_overfull());
        let first = waiting.take().unwrap();
        assert_eq!((first.message().packet, first.message().payload_bytes), (3, payload.len()));
        assert_eq!(first.coming, coming(5));
        waiting.put_back(first);
        assert!(waiting.is_overfull() && waiting.len() == 2 && waiting.oldest_ns() == Some(5));
    }

    #[test]
    fn of_what_nobody_sends_again_some_is_held() {
        let message = Message {
            topic: "t",
            payload: b"1",
            payload_bytes: 1,
            qos: QoS::AtMostOnce,
            again: false,
            retained: false,
            packet: 0,
            fault: None,
        };
        let mut waiting = Waiting::default();
        while waiting.has_room_for_unprotected() {
            waiting.push(Held::of(&message, Coming { received_ns: 0, place: None, rows_done: 0 }));
        }
        assert_eq!(waiting.len(), UNPROTECTED_MAX);
        waiting.take().unwrap();
        assert!(waiting.has_room_for_unprotected());
    }
}
