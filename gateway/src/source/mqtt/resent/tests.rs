use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use rumqttc::QoS;

use super::*;

/// What happens next between a broker and the gateway.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody publishes one of few payloads, so that equal ones follow one another.
    Publish(u8),
    /// So many messages arrive.
    Arrive(usize),
    /// The journal commits, and acks leave.
    Commit,
    /// So many acks reach the broker.
    Acked(usize),
    /// The connection breaks; what is on its way is lost.
    Cut,
    /// The gateway is killed; what is not committed is lost too.
    Kill,
    /// The broker forgets the session.
    Wipe,
    /// So many messages come and go of which there is no list.
    Others(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2u8).prop_map(Step::Publish),
        6 => (1..6usize).prop_map(Step::Arrive),
        3 => Just(Step::Commit),
        3 => (1..6usize).prop_map(Step::Acked),
        2 => Just(Step::Cut),
        1 => Just(Step::Kill),
        1 => Just(Step::Wipe),
        2 => prop_oneof![1..10u16, 9_000..12_000u16].prop_map(Step::Others),
    ]
}

/// How a broker numbers what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    CountsOn,
    TakesTheLowest,
}

const IN_FLIGHT: usize = 5;

/// A message of a broker: the payload, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    packet: u16,
    payload: u8,
    serial: usize,
}

/// Both sides, and what is between them.
struct World {
    numbering: Numbering,
    last_packet: u16,
    published: usize,
    queue: VecDeque<(u8, usize)>,
    /// Sent, and no ack has come.
    in_flight: VecDeque<Sent>,
    /// On the way to the gateway, with the mark.
    coming: VecDeque<(Sent, bool)>,
    /// Acks on the way back.
    going: VecDeque<u16>,

    resent: Resent,
    /// What is journaled, and which message it came from.
    journal: Vec<(MessageEntry, usize)>,
    durable: usize,
    /// Taken and not acked: packet and number.
    due: VecDeque<(u16, u64)>,
    /// Which message each number of the session is of.
    numbers: BTreeMap<u64, usize>,

    stored: BTreeMap<usize, usize>,
    wiped: Vec<usize>,
    /// Sent and not acked when a connection broke.
    exposed: usize,
}

impl World {
    fn new(numbering: Numbering) -> World {
        let resent = Resent::new(SessionId { broker: 1, generation: 1 });
        let mut world = World {
            numbering,
            last_packet: WINDOW,
            published: 0,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            coming: VecDeque::new(),
            going: VecDeque::new(),
            resent,
            journal: Vec::new(),
            durable: 0,
            due: VecDeque::new(),
            numbers: BTreeMap::new(),
            stored: BTreeMap::new(),
            wiped: Vec::new(),
            exposed: 0,
        };
        world.connect(false);
        world
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(payload) => {
                self.queue.push_back((payload, self.published));
                self.published += 1;
                self.send();
            }
            Step::Arrive(count) => {
                for _ in 0..count {
                    if let Some((sent, again)) = self.coming.pop_front() {
                        self.receive(sent, again);
                    }
                }
            }
            Step::Commit => {
                self.durable = self.journal.len();
                for (packet, number) in std::mem::take(&mut self.due) {
                    self.resent.acked(number);
                    self.going.push_back(packet);
                }
            }
            Step::Acked(count) => {
                for _ in 0..count {
                    if let Some(packet) = self.going.pop_front() {
                        self.in_flight.retain(|sent| sent.packet != packet);
                    }
                }
                self.send();
            }
            Step::Cut => {
                self.cut();
                self.connect(true);
            }
            Step::Kill => {
                self.cut();
                for (_, serial) in self.journal.drain(self.durable..) {
                    *self.stored.get_mut(&serial).unwrap() -= 1;
                }
                self.recall();
                self.connect(true);
            }
            Step::Wipe => {
                self.cut();
                let lost = self.in_flight.drain(..).map(|sent| sent.serial);
                self.wiped.extend(lost.chain(self.queue.drain(..).map(|(_, serial)| serial)));
                self.last_packet = WINDOW;
                self.numbers.clear();
                self.connect(false);
            }
            Step::Others(count) => self.others(count),
        }
    }

    /// Messages without a list come between others, and are acked at once.
    fn others(&mut self, count: u16) {
        if self.numbering == Numbering::TakesTheLowest {
            return;
        }
        // Acks leave in order, so these do not overtake what is in flight.
        self.drain();
        for _ in 0..count {
            self.last_packet = after(self.last_packet);
            self.resent.place(self.last_packet, false);
            if let Some(mark) = self.resent.mark() {
                self.journal.push((mark, usize::MAX));
                *self.stored.entry(usize::MAX).or_default() += 1;
                self.resent.marked();
            }
        }
        self.take(Step::Commit);
    }

    fn send(&mut self) {
        while self.in_flight.len() < IN_FLIGHT
            && let Some((payload, serial)) = self.queue.pop_front()
        {
            let packet = match self.numbering {
                Numbering::CountsOn => after(self.last_packet),
                Numbering::TakesTheLowest => {
                    (1..).find(|id| self.in_flight.iter().all(|sent| sent.packet != *id)).unwrap()
                }
            };
            self.last_packet = packet;
            let sent = Sent { packet, payload, serial };
            self.in_flight.push_back(sent);
            self.coming.push_back((sent, false));
        }
    }

    fn receive(&mut self, sent: Sent, again: bool) {
        let payload = [sent.payload];
        let message = Message {
            topic: "t",
            payload: &payload,
            payload_bytes: 1,
            qos: QoS::AtLeastOnce,
            again,
            retained: false,
            packet: sent.packet,
            fault: None,
        };
        let place = self.resent.place(sent.packet, again);
        let entry = Resent::entry(place, &message);
        let verdict = self.resent.judge(&entry, again);
        if let Verdict::Copy { .. } = verdict {
            assert_eq!(self.numbers[&entry.number], sent.serial, "what is dropped as a copy is one");
        } else {
            if self.resent.is_fallen_back {
                self.numbers.clear();
            }
            self.journal.push((entry, sent.serial));
            *self.stored.entry(sent.serial).or_default() += 1;
        }
        self.resent.settle(&entry, verdict, Offset(0));
        self.numbers.insert(entry.number, sent.serial);
        self.due.push_back((sent.packet, entry.number));
    }

    fn cut(&mut self) {
        self.exposed += self.in_flight.len();
        self.coming.clear();
        self.going.clear();
        self.due.clear();
    }

    fn connect(&mut self, session_present: bool) {
        if let Some(beginning) = self.resent.connect(session_present) {
            self.journal.push((beginning, usize::MAX));
            *self.stored.entry(usize::MAX).or_default() += 1;
            self.durable = self.journal.len();
        }
        self.coming.extend(self.in_flight.iter().map(|sent| (*sent, true)));
        self.send();
    }

    /// What a new process knows.
    fn recall(&mut self) {
        self.resent = Resent::new(SessionId { broker: 1, generation: 0 });
        self.numbers.clear();
        for (entry, serial) in &self.journal {
            if entry.session != self.resent.session {
                self.numbers.clear();
            }
            self.resent.recall(entry, Offset(0));
            self.numbers.insert(entry.number, *serial);
        }
    }

    /// Everything arrives at last.
    fn drain(&mut self) {
        while !(self.queue.is_empty() && self.in_flight.is_empty()) {
            self.take(Step::Arrive(IN_FLIGHT));
            self.take(Step::Commit);
            self.take(Step::Acked(IN_FLIGHT));
        }
    }
}

proptest! {
    #[test]
    fn nothing_new_is_dropped_and_what_comes_again_is_stored_once(
        steps in prop::collection::vec(step(), 1..120), counts_on: bool,
    ) {
        let numbering = if counts_on { Numbering::CountsOn } else { Numbering::TakesTheLowest };
        let mut world = World::new(numbering);
        steps.into_iter().for_each(|step| world.take(step));
        world.drain();
        let stored = |serial: &usize| world.stored.get(serial).copied().unwrap_or_default();
        for serial in (0..world.published).filter(|serial| !world.wiped.contains(serial)) {
            prop_assert!(stored(&serial) > 0, "message {serial} is dropped");
        }
        let extra: usize = (0..world.published).map(|serial| stored(&serial).saturating_sub(1)).sum();
        match numbering {
            Numbering::CountsOn => prop_assert_eq!(extra, 0),
            Numbering::TakesTheLowest => prop_assert!(extra <= world.exposed, "{extra} of {}", world.exposed),
        }
    }
}

#[test]
fn a_broker_that_falls_back_is_not_trusted_with_older_ids() {
    for is_killed in [false, true] {
        let mut world = World::new(Numbering::CountsOn);
        for step in [Step::Publish(0), Step::Publish(0), Step::Arrive(2), Step::Commit] {
            world.take(step);
        }
        // It is restored from an older memory: what comes next has the id of the first one, and is another message.
        world.last_packet = WINDOW;
        world.in_flight.clear();
        world.going.clear();
        for step in [Step::Publish(0), Step::Arrive(1), Step::Commit, Step::Publish(0)] {
            world.take(step);
        }
        world.take(if is_killed { Step::Kill } else { Step::Cut });
        world.take(Step::Arrive(2));
        assert_eq!(world.stored[&3], 1, "its first copy was lost on the way");
    }
}

#[test]
fn numbers_go_on_over_the_turns_of_packet_ids() {
    let mut resent = Resent::new(SessionId { broker: 1, generation: 1 });
    let mut packet = 0;
    for number in 1..200_000 {
        packet = after(packet);
        assert_eq!(resent.place(packet, false).number, number);
    }
    let older = |resent: &mut Resent, back: u64| resent.place(id_of(199_999 - back) as u16, true).number;
    for back in [0, 1, 700, 30_000] {
        assert_eq!(older(&mut resent, back), 199_999 - back);
    }
    assert_eq!(resent.place(after(packet), true).number, 200_000, "a new one may be marked too");
}

#[test]
fn what_is_known_is_bounded_and_the_journal_hears_of_what_is_not_listed() {
    let mut world = World::new(Numbering::CountsOn);
    for _ in 0..2 * MESSAGES {
        for step in [Step::Publish(0), Step::Arrive(1), Step::Commit, Step::Acked(1)] {
            world.take(step);
        }
    }
    assert_eq!(world.resent.list.len(), MESSAGES);
    assert_eq!(world.resent.list.capacity(), MESSAGES, "room for messages that are never there");
    let (entries, last) = (world.journal.len(), world.resent.last);
    (0..10).for_each(|_| world.take(Step::Others(10_000)));
    assert_eq!((world.journal.len() - entries, world.resent.last - last), (6, 100_000));
    world.take(Step::Kill);
    assert!(world.resent.last + STRIDE >= last + 100_000, "no turn is missed");
}

fn after(packet: u16) -> u16 {
    if packet == u16::MAX { 1 } else { packet + 1 }
}
