//! Messages as the journal remembers them: by which a broker's repetition of one is known after a restart.

use std::fmt;

use super::super::codec::{Undecodable, push_varint, take_array, take_varint};

/// One session at a broker: from the moment at which the broker began it to the one at which it has forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Which broker, and under which client id: a hash of both.
    pub broker: u32,
    /// Which of the sessions there: a random number.
    pub generation: u32,
}

/// A message whose rows have no time of their own, or that could not be read; its entry follows theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageEntry {
    /// The session that it came in.
    pub session: SessionId,
    /// Its number in the session: the broker's packet id, with the turns that those have made; 0 tells that it begins.
    pub number: u64,
    /// A hash of its topic and payload.
    pub hash: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.broker, self.generation)
    }
}

impl MessageEntry {
    /// The entry that tells that a session begins.
    #[must_use]
    pub fn beginning(session: SessionId) -> MessageEntry {
        MessageEntry { session, number: 0, hash: 0 }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.broker.to_le_bytes());
        out.extend_from_slice(&self.session.generation.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        push_varint(out, self.number);
    }

    pub(super) fn decode(input: &mut &[u8]) -> Result<MessageEntry, Undecodable> {
        Ok(MessageEntry {
            session: SessionId {
                broker: u32::from_le_bytes(take_array(input)?),
                generation: u32::from_le_bytes(take_array(input)?),
            },
            hash: u64::from_le_bytes(take_array(input)?),
            number: take_varint(input)?,
        })
    }
}
