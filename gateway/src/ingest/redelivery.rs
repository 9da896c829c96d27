//! Which points of foreign messages are journaled already: a message that a broker sends again costs nothing, and rows that
//! share their point with an earlier one are counted, since they make none of their own in a database.
//!
//! A broker sends again, marked as a repetition, whatever it has no PUBACK for: after a broken connection, after a
//! restart of either side. A row with a time of its own would land on the same point in every store that overwrites,
//! so nothing is at stake but work, bytes, and stores that keep both. Rows without a time of their own are not known
//! here: their second receipt has another time, and no two of them have the same.
//!
//! Bounded: the latest [`POINTS`] points, and for each account the time up to which some may be forgotten; a broker that has
//! more of them in flight doubles the rest. At a start they are read from the end of the journal. A point is known by a keyed
//! 64-bit hash of series and time, what it holds by one that goes on over the fields.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use tracing::warn;

use crate::journal::{Entry, Journal, Read, State};
use crate::record::{Offset, Row, ValueRef};

/// Points remembered.
const POINTS: usize = 65_536;
/// Points remembered with other fields than they came with first.
const CHANGED: usize = 4_096;

/// The latest points with a time of their own.
pub(super) struct Redelivery {
    keys: RandomState,
    /// What each point held when it came first.
    known: HashMap<u64, u64>,
    order: VecDeque<Remembered>,
    /// Further contents of points.
    changed: HashSet<u64>,
    changed_order: VecDeque<u64>,
    places: HashMap<Box<str>, usize>,
    times: Vec<Times>,
    /// Whether all that the journal ever held was looked through.
    is_complete: bool,
}

/// A point with a time of its own, as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PointKey {
    pub(super) point: u64,
    content: u64,
    pub(super) ns: i64,
}

struct Remembered {
    point: u64,
    ns: i64,
    place: usize,
}

/// What is known of the times of an account's rows.
#[derive(Clone, Copy)]
struct Times {
    /// Every point that is later is remembered: `i64::MIN` if all are, `i64::MAX` if nothing is known of earlier ones.
    floor: i64,
    /// The latest of all, as far as is known.
    latest: i64,
}

/// What a row's point is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// None of them has it.
    New,
    /// One of them has it.
    Again,
    /// One that is forgotten may have had it.
    Unsure,
}

impl Redelivery {
    fn new() -> Redelivery {
        Redelivery {
            keys: RandomState::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
            changed: HashSet::new(),
            changed_order: VecDeque::new(),
            places: HashMap::new(),
            times: Vec::new(),
            is_complete: true,
        }
    }

    /// What the end of the journal holds.
    pub(super) fn of(journal: &Journal) -> Redelivery {
        let mut redelivery = Redelivery::new();
        let end = *journal.watermark().borrow();
        let mut reader = journal.reader(Offset(end.0.saturating_sub(POINTS as u64)));
        let mut next = Offset(0);
        loop {
            match reader.next() {
                Ok(Read::Frame(frame)) => {
                    redelivery.is_complete &= frame.first() <= next;
                    next = frame.end();
                    redelivery.learn(frame.entries().filter_map(|(_, entry)| entry.ok()));
                }
                Ok(Read::Damaged { .. }) => {}
                Ok(Read::Wait) => break,
                Err(e) => {
                    warn!(
                        "{e}; messages that are sent again may be journaled twice, which the databases even out"
                    );
                    redelivery.is_complete = false;
                    break;
                }
            }
        }
        redelivery.is_complete &= next >= end;
        if !redelivery.is_complete {
            journal.with_state(|state| redelivery.doubt(state));
        }
        redelivery
    }

    fn learn<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        for entry in entries {
            if let Entry::Row(row) = entry
                && row.boot == 0
                && !row.stamped
            {
                let key = self.key(row.series, row.ns, row.fields.iter());
                let place = self.place(row.device, Times { floor: i64::MIN, latest: i64::MIN });
                self.remember(key, place);
            }
        }
    }

    /// There were rows before what was looked through. Those that the journal does not tell of are taken to be no later than
    /// the latest that was seen.
    fn doubt(&mut self, state: &State) {
        for (account, place) in &self.places {
            let seen = self.times[*place].latest;
            let told = Times::of(account, state);
            let floor = if told.floor == i64::MAX { seen } else { told.floor };
            self.times[*place] = Times { floor, latest: told.latest.max(seen) };
        }
    }

    /// The key of a row that has a time of its own.
    pub(super) fn key_of(&self, row: &Row) -> Option<PointKey> {
        let fields = row.fields.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        row.timestamp.map(|ns| self.key(row.series.as_str(), ns, fields))
    }

    /// Whether the point is journaled already, with these fields.
    pub(super) fn knows(&self, key: PointKey) -> bool {
        let first = self.known.get(&key.point);
        first.is_some_and(|content| *content == key.content || self.changed.contains(&key.content))
    }

    /// The place of an account, whether anything of it is remembered or not.
    pub(super) fn place_of(&mut self, account: &str, state: &State) -> usize {
        if let Some(place) = self.places.get(account) {
            return *place;
        }
        let times = match self.is_complete {
            true => Times { floor: i64::MIN, latest: i64::MIN },
            false => Times::of(account, state),
        };
        self.place(account, times)
    }

    /// Whether an earlier row of the account had the point.
    pub(super) fn novelty(&self, key: PointKey, place: usize) -> Novelty {
        if self.known.contains_key(&key.point) {
            Novelty::Again
        } else if self.times.get(place).is_some_and(|times| key.ns > times.floor) {
            Novelty::New
        } else {
            Novelty::Unsure
        }
    }

    /// The latest time of its own that any row of the account is known to have.
    pub(super) fn latest_ns(&self, place: usize) -> i64 {
        self.times.get(place).map_or(i64::MIN, |times| times.latest)
    }

    /// The point is journaled now.
    pub(super) fn remember(&mut self, key: PointKey, place: usize) {
        let PointKey { point, content, ns } = key;
        if let Some(times) = self.times.get_mut(place) {
            times.latest = times.latest.max(ns);
            if times.floor == i64::MAX {
                // Rows before it are taken to be earlier.
                times.floor = ns;
            }
        }
        match self.known.get(&point) {
            None => {
                self.make_room();
                self.known.insert(point, content);
                self.order.push_back(Remembered { point, ns, place });
            }
            Some(first) if *first == content || !self.changed.insert(content) => {}
            Some(_) => self.changed_order.push_back(content),
        }
        if self.changed_order.len() > CHANGED
            && let Some(oldest) = self.changed_order.pop_front()
        {
            self.changed.remove(&oldest);
        }
    }

    /// Forgets the oldest point if there is no place for another one. Before that one comes: a list that ever holds one
    /// more takes twice the memory from then on.
    fn make_room(&mut self) {
        if self.order.len() < POINTS {
            return;
        }
        let Some(oldest) = self.order.pop_front() else { return };
        self.known.remove(&oldest.point);
        if let Some(times) = self.times.get_mut(oldest.place) {
            times.floor = times.floor.max(oldest.ns);
        }
    }

    /// The place of an account, which is new with these times. There are no more of them than the journal has accounts.
    fn place(&mut self, account: &str, times: Times) -> usize {
        if let Some(place) = self.places.get(account) {
            return *place;
        }
        self.times.push(times);
        self.places.insert(account.into(), self.times.len() - 1);
        self.times.len() - 1
    }

    fn key<'a>(
        &self,
        series: &str,
        ns: i64,
        fields: impl Iterator<Item = (&'a str, ValueRef<'a>)>,
    ) -> PointKey {
        let mut hasher = self.keys.build_hasher();
        (series, ns).hash(&mut hasher);
        let point = hasher.finish();
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
        PointKey { point, content: hasher.finish(), ns }
    }
}

impl Times {
    /// What the journal's state tells of rows that are not remembered.
    fn of(account: &str, state: &State) -> Times {
        let known = state.device(account).filter(|device| device.rows > 0);
        match known.map(|device| device.shared) {
            None => Times { floor: i64::MIN, latest: i64::MIN },
            Some(None) => Times { floor: i64::MAX, latest: i64::MIN },
            Some(Some(shared)) => Times { floor: shared.latest_ns, latest: shared.latest_ns },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::entry::{Fields, RowEntry, SharedEntry};
    use crate::journal::memory::MemoryStorage;
    use crate::journal::{Class, Options, Refused};
    use crate::record::Value;

    fn key(redelivery: &Redelivery, series: &str, ns: i64, value: f64) -> PointKey {
        redelivery.key(series, ns, [("v", ValueRef::Float(value))].into_iter())
    }

    #[test]
    fn a_point_that_comes_again_is_known_whatever_it_holds() {
        let mut redelivery = Redelivery::new();
        let place = redelivery.place("d", Times { floor: i64::MIN, latest: i64::MIN });
        let [first, other] = [1.0, 2.0].map(|value| key(&redelivery, "m,device=d", 5, value));
        assert_eq!(redelivery.novelty(first, place), Novelty::New);
        redelivery.remember(first, place);
        assert_eq!(redelivery.novelty(other, place), Novelty::Again);
        assert!(redelivery.knows(first) && !redelivery.knows(other));
        redelivery.remember(other, place);
        assert!(redelivery.knows(first) && redelivery.knows(other));
        for apart in [key(&redelivery, "m,device=d", 4, 1.0), key(&redelivery, "n,device=d", 5, 1.0)] {
            assert_eq!(redelivery.novelty(apart, place), Novelty::New);
        }
        assert_eq!(redelivery.latest_ns(place), 5);
    }

    #[test]
    fn what_may_be_forgotten_is_unsure_and_what_is_later_is_new() {
        let mut redelivery = Redelivery::new();
        let place = redelivery.place("d", Times { floor: i64::MIN, latest: i64::MIN });
        let last = POINTS as i64 + 10;
        for ns in 0..last {
            let key = key(&redelivery, "m,device=d", ns, 1.0);
            redelivery.remember(key, place);
        }
        let novelty = |ns| redelivery.novelty(key(&redelivery, "m,device=d", ns, 1.0), place);
        assert_eq!([novelty(9), novelty(10), novelty(last)], [Novelty::Unsure, Novelty::Again, Novelty::New]);
        assert_eq!((redelivery.known.len(), redelivery.order.len()), (POINTS, POINTS));
        assert_eq!(redelivery.order.capacity(), POINTS, "room for points that are never there");
    }

    /// A journal whose first entries are older than what a start looks through.
    fn long_journal(shared: bool) -> Journal {
        let options = Options::sized(256 << 20);
        let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &options).unwrap();
        let fields = [("v".to_owned(), Value::Float(1.0))];
        let fill = |rows: std::ops::Range<i64>, device: &str| {
            journal.submit(Class::Foreign, |state, submission| {
                for ns in rows {
                    let (sequence, series) = (state.next_number(device), "m,device=d");
                    let (boot, stamped, fields) = (0, false, Fields::of(&fields));
                    submission.add(&Entry::Row(RowEntry {
                        device,
                        boot,
                        sequence,
                        stamped,
                        series,
                        ns,
                        fields,
                    }))?;
                }
                if shared {
                    let entry = SharedEntry { device, again: 0, unsure: 1, latest_ns: 0 };
                    submission.add(&Entry::Shared(entry))?;
                }
                Ok::<_, Refused>(())
            })
        };
        let submit = |rows: std::ops::Range<i64>, device: &str| loop {
            match fill(rows.clone(), device) {
                Ok((_, receipt)) => break receipt,
                // The next segment is being prepared.
                Err(Refused::Busy) => std::thread::yield_now(),
                Err(refused) => panic!("{refused}"),
            }
        };
        submit(0..100, "old");
        let mut receipt = Offset(0);
        for round in 1..=40 {
            receipt = submit(round * 10_000..round * 10_000 + 2_000, "d");
        }
        let watermark = journal.watermark();
        while *watermark.borrow() < receipt {
            std::thread::yield_now();
        }
        journal
    }

    #[test]
    fn a_start_that_cannot_see_the_beginning_is_unsure_once_and_not_at_all_of_what_the_journal_tells() {
        for told in [false, true] {
            let journal = long_journal(told);
            let mut redelivery = Redelivery::of(&journal);
            assert!(!redelivery.is_complete);
            let of_old = if told { Novelty::New } else { Novelty::Unsure };
            for (account, expected) in [("d", Novelty::New), ("old", of_old)] {
                let place = journal.with_state(|state| redelivery.place_of(account, state));
                let next = key(&redelivery, account, 500_000, 1.0);
                assert_eq!(redelivery.novelty(next, place), expected, "{account}, told {told}");
                redelivery.remember(next, place);
                let later = key(&redelivery, account, 500_001, 1.0);
                assert_eq!(redelivery.novelty(later, place), Novelty::New);
            }
            let place = journal.with_state(|state| redelivery.place_of("stranger", state));
            let novelty = redelivery.novelty(key(&redelivery, "m,device=s", -5, 1.0), place);
            assert_eq!(novelty, Novelty::New, "nothing came of it before");
            let place = redelivery.places["d"];
            let known = key(&redelivery, "m,device=d", 401_999, 1.0);
            assert_eq!(redelivery.novelty(known, place), Novelty::Again);
        }
    }
}
