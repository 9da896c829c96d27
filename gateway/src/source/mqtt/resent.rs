//! Which messages a broker sends a second time, of those whose rows have no time of their own.
//!
//! A broker sends again, marked as such and in the old order, whatever it has no ack for: after a broken connection, after
//! a restart of either side. Acks leave in the order of receipt, so what comes again are the last messages of the session,
//! and behind them perhaps some that were sent and never arrived. Each message is journaled with its number and a hash, in
//! the submission of its rows. A message is a copy if it is marked, the session is the same, and the message of its number
//! has its hash. After the first one that is no copy, everything is new until the next connection.
//!
//! *Numbers.* Packet ids go from 1 to 65,535 and begin again. A number is the id with the turns before it. Every message
//! of the session is counted, also those that are not listed; where these are many, one is journaled now and then, so that
//! no turn is missed after a restart. A new message whose id does not go on from the last one shows that the broker has
//! lost its count: what is known of earlier ones means nothing any more.
//!
//! *Doubt.* Some brokers use an id again as soon as it is free, or begin anew with each connection. One of these may have
//! sent a new message under the id of one that it has long got the ack for, with the same payload; if it got lost on the
//! way, its repetition looks like that of the old one. That cannot be if the ack of the old one was never sent, nor with an
//! id that only who counts on comes to. Else it is in doubt, and what is in doubt is stored again: twice rather than never.
//!
//! Limits: the latest [`MESSAGES`] messages of a session are known, and at a start those among the last [`ENTRIES`] entries
//! of the journal. A repetition of an older one is stored again.

use std::collections::VecDeque;

use tracing::warn;

use super::wire::Message;
use crate::journal::entry::{Entry, MessageEntry, SessionId};
use crate::journal::{Journal, Read};
use crate::record::Offset;

/// Messages known of a session. Brokers have fewer in flight, unless they are told otherwise; mosquitto 2.0 forgets its limit
/// while it empties a long queue.
const MESSAGES: usize = 16_384;

/// Entries of the journal that are looked through at a start.
const ENTRIES: u64 = 65_536;

/// Whoever uses a packet id beyond this one counts on: others have no more than their window in flight.
const WINDOW: u16 = 1_000;

/// Packet ids that there are.
const IDS: u64 = 65_535;

/// After so many numbers that are not journaled, one is.
const STRIDE: u64 = 16_384;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was never taken.
    New,
    /// It was taken, and is durable then.
    Copy { receipt: Offset },
    /// It may be either.
    Doubt,
}

/// Which message of which session something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    session: SessionId,
    pub(super) number: u64,
}

/// The messages of one session, and how far their repetition is.
pub(super) struct Resent {
    session: SessionId,
    /// By rising numbers.
    list: VecDeque<Known>,
    /// The highest number of the session so far.
    last: u64,
    /// The highest that is in the journal.
    journaled: u64,
    /// Whether the broker may still send copies on this connection.
    is_repeating: bool,
    /// Whether the journal is to hear of a session that begins, because the broker has lost its count.
    is_fallen_back: bool,
}

struct Known {
    number: u64,
    hash: u64,
    receipt: Offset,
    /// Whether an ack may have been sent.
    may_be_acked: bool,
}

impl Resent {
    /// What the end of the journal tells of the latest session at `broker`, a hash of it and the client id.
    pub(super) fn of(journal: &Journal, broker: u32) -> Resent {
        let mut resent = Resent::new(SessionId { broker, generation: random() });
        let end = *journal.watermark().borrow();
        let mut reader = journal.reader(Offset(end.0.saturating_sub(ENTRIES)));
        loop {
            match reader.next() {
                Ok(Read::Frame(frame)) => {
                    for (offset, entry) in frame.entries() {
                        if let Ok(Entry::Message(message)) = entry {
                            resent.recall(&message, offset.plus(1));
                        }
                    }
                }
                // What is missing may be the beginning of another session.
                Ok(Read::Damaged { .. }) => resent.begin(random()),
                Ok(Read::Wait) => return resent,
                Err(e) => {
                    warn!("{e}; messages that are sent again may be stored twice");
                    resent.begin(random());
                    return resent;
                }
            }
        }
    }

    fn new(session: SessionId) -> Resent {
        Resent {
            session,
            list: VecDeque::new(),
            last: 0,
            journaled: 0,
            is_repeating: false,
            is_fallen_back: false,
        }
    }

    fn recall(&mut self, message: &MessageEntry, receipt: Offset) {
        if message.session.broker != self.session.broker {
            return;
        }
        if message.session != self.session {
            self.begin(message.session.generation);
        }
        if message.number != 0 {
            self.last = self.last.max(message.number);
            self.push(Known { number: message.number, hash: message.hash, receipt, may_be_acked: true });
        }
    }

    fn begin(&mut self, generation: u32) {
        *self = Resent::new(SessionId { generation, ..self.session });
    }

    /// A connection begins. If the broker does not know the session any more, the one that begins now is to be journaled
    /// before its first message comes.
    pub(super) fn connect(&mut self, session_present: bool) -> Option<MessageEntry> {
        if session_present {
            self.is_repeating = true;
            return None;
        }
        self.begin(random());
        Some(MessageEntry::beginning(self.session))
    }

    /// The place of a message that has come, whatever it brings; to be asked for once, in the order of their coming.
    pub(super) fn place(&mut self, packet: u16, again: bool) -> Place {
        let number = self.number(packet, again);
        Place { session: self.session, number }
    }

    fn number(&mut self, packet: u16, again: bool) -> u64 {
        let packet = u64::from(packet);
        if packet == 0 || self.last == 0 {
            self.last = self.last.max(packet);
            return packet;
        }
        let ahead = (packet + IDS - id_of(self.last)) % IDS;
        if ahead > 0 && ahead <= IDS / 2 {
            self.last += ahead;
            return self.last;
        }
        if again {
            // An older one; before the first there is none.
            return (self.last + ahead).checked_sub(if ahead == 0 { 0 } else { IDS }).unwrap_or(packet);
        }
        let counted_on = self.list.iter().any(|known| counts_on(known.number));
        self.begin(random());
        self.is_fallen_back = counted_on;
        self.last = packet;
        packet
    }

    /// What the journal is to hear although no rows are due: that the count begins anew, or how far it is.
    pub(super) fn mark(&self) -> Option<MessageEntry> {
        if self.is_fallen_back {
            return Some(MessageEntry::beginning(self.session));
        }
        let is_far = self.last > self.journaled + STRIDE && !self.list.is_empty();
        is_far.then_some(MessageEntry { session: self.session, number: self.last, hash: 0 })
    }

    /// The journal has heard what [`Resent::mark`] said.
    pub(super) fn marked(&mut self) {
        self.journaled = self.last;
        self.is_fallen_back = false;
    }

    /// A message as the journal is to remember it.
    pub(super) fn entry(place: Place, message: &Message<'_>) -> MessageEntry {
        MessageEntry { session: place.session, number: place.number, hash: hash_of(message) }
    }

    /// What a message is. Changes nothing: whoever acts on it says so with [`Resent::settle`].
    pub(super) fn judge(&self, entry: &MessageEntry, again: bool) -> Verdict {
        let is_old = again && self.is_repeating && entry.session == self.session;
        match self.find(entry.number).filter(|known| is_old && known.hash == entry.hash) {
            None => Verdict::New,
            Some(known) if known.may_be_acked && !counts_on(known.number) => Verdict::Doubt,
            Some(known) => Verdict::Copy { receipt: known.receipt },
        }
    }

    /// A message was dealt with, and is durable at `receipt`.
    pub(super) fn settle(&mut self, entry: &MessageEntry, verdict: Verdict, receipt: Offset) {
        self.is_repeating &= verdict != Verdict::New;
        // What waited while the broker lost its count belongs to the time before.
        if entry.session == self.session {
            // The broker has it in flight now, so its id means no other message before the next ack.
            self.push(Known { number: entry.number, hash: entry.hash, receipt, may_be_acked: false });
        }
    }

    /// The ack of the message of this number leaves.
    pub(super) fn acked(&mut self, number: u64) {
        if let Ok(at) = self.list.binary_search_by_key(&number, |known| known.number) {
            self.list[at].may_be_acked = true;
        }
    }

    fn find(&self, number: u64) -> Option<&Known> {
        self.list.binary_search_by_key(&number, |known| known.number).ok().map(|at| &self.list[at])
    }

    fn push(&mut self, known: Known) {
        self.journaled = self.journaled.max(known.number);
        let is_full = self.list.len() >= MESSAGES;
        match self.list.binary_search_by_key(&known.number, |known| known.number) {
            Ok(at) => self.list[at] = known,
            // It would be the first to go.
            Err(0) if is_full => {}
            Err(at) => {
                // The oldest goes before it comes: a list that ever holds one more takes twice the memory from then on.
                if is_full {
                    self.list.pop_front();
                }
                self.list.insert(at - usize::from(is_full), known);
            }
        }
    }
}

/// Whether only a broker that counts on comes to the id of this number.
fn counts_on(number: u64) -> bool {
    id_of(number) > u64::from(WINDOW)
}

/// The packet id of a number.
fn id_of(number: u64) -> u64 {
    (number.max(1) - 1) % IDS + 1
}

/// What a broker and a client id are known by in the journal.
pub(super) fn broker_key(url: &str, client_id: &str) -> u32 {
    let hash = fnv(fnv(FNV_BASIS, url.as_bytes()), client_id.as_bytes());
    (hash >> 32) as u32 ^ hash as u32
}

fn hash_of(message: &Message<'_>) -> u64 {
    let topic = fnv(FNV_BASIS, message.topic.as_bytes());
    fnv(fnv(topic, &(message.payload_bytes as u64).to_le_bytes()), message.payload)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: it is kept on disk, so it must be the same for good, and nobody gains by two messages of one hash.
fn fnv(basis: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(basis, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number that no other session has; without randomness, the time serves.
fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| crate::clock::now_ns() as u32)
}

#[cfg(test)]
mod tests;
