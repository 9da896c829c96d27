//! Which messages a broker sends a second time, of those whose rows have no time of their own.
//!
//! A broker sends again, marked as such and in the old order, whatever it has no ack for: after a broken connection, after
//! a restart of either side. Acks leave in the order of receipt, so what comes again are the last messages of the session,
//! and behind them perhaps some that were sent and never arrived. Each message is journaled with its packet id and a hash,
//! in the submission of its rows. A message is a copy if it is marked, the session is the same, and it is the next one in
//! the order in which they were journaled; the first mark may be anywhere in that list. After the first message that does
//! not fit, everything is new until the next connection.
//!
//! A broker that hands out packet ids again at once (most count on, up to 65,535) may have sent a new message under the id
//! of one that it has long got the ack for, with the same payload; if it got lost on the way, its repetition looks like
//! that of the old one. That can not be if the ack of the old one was never sent, nor if the broker is seen to count on.
//! Else it is in doubt, and what is in doubt is stored again: twice rather than never.
//!
//! Limits: the latest [`MESSAGES`] messages of a session are known, and at a start those among the last [`ENTRIES`] entries
//! of the journal. A repetition of an older one is stored again.

use std::collections::VecDeque;

use tracing::warn;

use super::wire::Message;
use crate::journal::entry::{Entry, MessageEntry, SessionId};
use crate::journal::{Journal, Read};
use crate::record::Offset;

/// Messages known of a session; brokers have fewer in flight, unless they are told otherwise.
const MESSAGES: usize = 2_048;

/// Entries of the journal that are looked through at a start.
const ENTRIES: u64 = 65_536;

/// A broker that uses a packet id beyond this one counts on: whoever begins anew has no more than its window in flight.
const WINDOW: u16 = 1_000;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was never taken.
    New,
    /// It was taken: number of it in the list, and when that is durable.
    Copy { number: u64, receipt: Offset },
    /// It may be either; number of what it may be a copy of.
    Doubt { number: u64 },
}

/// The messages of one session, and how far their repetition is.
pub(super) struct Resent {
    session: SessionId,
    list: VecDeque<Known>,
    /// Number of the first in the list.
    first: u64,
    /// Whether the broker uses no packet id twice within the list.
    counts_on: bool,
    repetition: Repetition,
}

struct Known {
    packet: u16,
    hash: u64,
    receipt: Offset,
    /// Whether an ack may have been sent.
    may_be_acked: bool,
}

/// Where in the list the broker is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repetition {
    /// It sends nothing again.
    Over,
    /// The first copy may be any of them.
    Begins,
    /// The next copy is the message of this number.
    At(u64),
}

impl Resent {
    /// What the end of the journal tells of the latest session at `broker`, a hash of it and the client id.
    pub(super) fn of(journal: &Journal, broker: u32) -> Resent {
        let session = SessionId { broker, generation: random() };
        let mut resent = Resent {
            session,
            list: VecDeque::new(),
            first: 0,
            counts_on: false,
            repetition: Repetition::Over,
        };
        let end = *journal.watermark().borrow();
        let mut reader = journal.reader(Offset(end.0.saturating_sub(ENTRIES)));
        loop {
            match reader.next() {
                Ok(Read::Frame(frame)) => {
                    for (_, entry) in frame.entries() {
                        if let Ok(Entry::Message(message)) = entry {
                            resent.recall(&message);
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

    fn recall(&mut self, message: &MessageEntry) {
        if message.session.broker != self.session.broker {
            return;
        }
        if message.session != self.session {
            self.begin(message.session.generation);
        }
        if message.packet != 0 {
            self.push(Known {
                packet: message.packet,
                hash: message.hash,
                receipt: Offset(0),
                may_be_acked: true,
            });
        }
    }

    fn begin(&mut self, generation: u32) {
        self.session.generation = generation;
        self.first += self.list.len() as u64;
        self.list.clear();
        self.counts_on = false;
        self.repetition = Repetition::Over;
    }

    /// A connection begins. If the broker does not know the session any more, the one that begins now is to be journaled
    /// before its first message comes.
    pub(super) fn connect(&mut self, session_present: bool) -> Option<SessionId> {
        if session_present {
            self.repetition = Repetition::Begins;
            return None;
        }
        self.begin(random());
        Some(self.session)
    }

    /// The message as the journal is to remember it.
    pub(super) fn entry(&self, message: &Message<'_>) -> MessageEntry {
        MessageEntry { session: self.session, packet: message.packet, hash: hash_of(message) }
    }

    /// What a message is. Changes nothing: whoever acts on it says so with [`Resent::settle`].
    pub(super) fn judge(&self, entry: &MessageEntry, again: bool) -> Verdict {
        let fits = |known: &Known| (known.packet, known.hash) == (entry.packet, entry.hash);
        let at = match self.repetition {
            Repetition::Begins if again => self.list.iter().rposition(fits),
            Repetition::At(number) if again => usize::try_from(number.saturating_sub(self.first)).ok(),
            _ => None,
        };
        let found = at.and_then(|at| Some((at, self.list.get(at).filter(|known| fits(known))?)));
        match found {
            None => Verdict::New,
            Some((at, known)) => {
                let number = self.first + at as u64;
                if known.may_be_acked && !self.counts_on {
                    Verdict::Doubt { number }
                } else {
                    Verdict::Copy { number, receipt: known.receipt }
                }
            }
        }
    }

    /// A message was dealt with, and is durable at `receipt`. Returns its number in the list.
    pub(super) fn settle(&mut self, entry: &MessageEntry, verdict: Verdict, receipt: Offset) -> u64 {
        self.repetition = match verdict {
            Verdict::New => Repetition::Over,
            Verdict::Copy { number, .. } | Verdict::Doubt { number } => Repetition::At(number + 1),
        };
        if let Verdict::Copy { number, .. } = verdict {
            return number;
        }
        // A broker that counts on and falls back has lost its memory: its ids say nothing of older messages.
        let newest = self.list.back().filter(|_| self.counts_on);
        if newest.is_some_and(|newest| entry.packet.wrapping_sub(newest.packet) > u16::MAX / 2) {
            self.begin(self.session.generation);
        }
        self.push(Known { packet: entry.packet, hash: entry.hash, receipt, may_be_acked: false });
        self.first + self.list.len() as u64 - 1
    }

    /// The ack of a message leaves.
    pub(super) fn acked(&mut self, number: u64) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(known) = at.and_then(|at| self.list.get_mut(at)) {
            known.may_be_acked = true;
        }
    }

    fn push(&mut self, known: Known) {
        self.counts_on |= known.packet > WINDOW;
        self.list.push_back(known);
        if self.list.len() > MESSAGES {
            self.list.pop_front();
            self.first += 1;
        }
    }
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
