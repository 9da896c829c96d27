//! Which points of foreign messages are journaled already, so that a message that a broker sends again costs nothing.
//!
//! A broker sends again, marked as a repetition, whatever it has no PUBACK for: after a broken connection, after a
//! restart of either side. A row with a time of its own would land on the same point in every store that overwrites,
//! so nothing is at stake but work, bytes, and stores that keep both. Rows without a time of their own are not known
//! here: their second receipt has another time.
//!
//! Bounded: the latest [`POINTS`] points; a broker that has more of them in flight doubles the rest. At a start they are read from
//! the end of the journal. A point is known by a keyed 64-bit hash of series, time and fields.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use tracing::warn;

use crate::journal::{Entry, Journal, Read};
use crate::record::{Offset, Row, ValueRef};

/// Points remembered.
const POINTS: usize = 65_536;

/// The latest points with a time of their own.
pub(super) struct Redelivery {
    keys: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Redelivery {
    /// What the end of the journal holds.
    pub(super) fn of(journal: &Journal) -> Redelivery {
        let mut redelivery =
            Redelivery { keys: RandomState::new(), known: HashSet::new(), order: VecDeque::new() };
        let end = *journal.watermark().borrow();
        let mut reader = journal.reader(Offset(end.0.saturating_sub(POINTS as u64)));
        loop {
            match reader.next() {
                Ok(Read::Frame(frame)) => {
                    redelivery.learn(frame.entries().filter_map(|(_, entry)| entry.ok()));
                }
                Ok(Read::Damaged { .. }) => {}
                Ok(Read::Wait) => return redelivery,
                Err(e) => {
                    warn!(
                        "{e}; messages that are sent again may be journaled twice, which the databases even out"
                    );
                    return redelivery;
                }
            }
        }
    }

    fn learn<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        for entry in entries {
            if let Entry::Row(row) = entry
                && row.boot == 0
                && !row.stamped
            {
                let key = self.key(row.series, row.ns, row.fields.iter());
                self.remember(key);
            }
        }
    }

    /// The key of a row that has a time of its own.
    pub(super) fn key_of(&self, row: &Row) -> Option<u64> {
        let fields = row.fields.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        row.timestamp.map(|ns| self.key(row.series.as_str(), ns, fields))
    }

    /// Whether the point is journaled already.
    pub(super) fn knows(&self, key: u64) -> bool {
        self.known.contains(&key)
    }

    /// The point is journaled now.
    pub(super) fn remember(&mut self, key: u64) {
        if self.known.insert(key) {
            self.order.push_back(key);
            if self.order.len() > POINTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn key<'a>(&self, series: &str, ns: i64, fields: impl Iterator<Item = (&'a str, ValueRef<'a>)>) -> u64 {
        let mut hasher = self.keys.build_hasher();
        (series, ns).hash(&mut hasher);
        for (name, value) in fields {
            name.hash(&mut hasher);
            match value {
                ValueRef::Float(value) => (0, value.to_bits()).hash(&mut hasher),
                ValueRef::Integer(value) => (1, value).hash(&mut hasher),
                ValueRef::Unsigned(value) => (2, value).hash(&mut hasher),
                ValueRef::Boolean(value) => (3, value).hash(&mut hasher),
                ValueRef::Text(value) => (4, value).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}
