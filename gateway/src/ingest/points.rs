//! The points of one submission's rows: which of them are new, and what the journal is to know of the others.

use std::collections::{HashMap, HashSet};

use super::redelivery::{Novelty, PointKey, Redelivery};
use crate::journal::State;
use crate::journal::entry::SharedEntry;

/// Points of rows with a time of their own, in the order of the rows.
#[derive(Default)]
pub(super) struct Points<'a> {
    taken: Vec<(PointKey, usize)>,
    /// Points of this submission; most have one row, and need none.
    own: HashSet<u64>,
    shared: Vec<(usize, SharedEntry<'a>)>,
    /// Where in `shared` the place of an account is.
    shared_at: HashMap<usize, usize>,
}

impl<'a> Points<'a> {
    /// Looks at the point of the next row, which goes to `account`. The journal's state does not have the submission yet.
    pub(super) fn take(
        &mut self,
        redelivery: &mut Redelivery,
        key: PointKey,
        account: &'a str,
        state: &State,
    ) {
        let place = redelivery.place_of(account, state);
        if let [(first, _)] = self.taken[..] {
            self.own.insert(first.point);
        }
        let is_own = !self.taken.is_empty() && !self.own.insert(key.point);
        let novelty = if is_own { Novelty::Again } else { redelivery.novelty(key, place) };
        self.taken.push((key, place));
        if novelty == Novelty::New {
            return;
        }
        let at = *self.shared_at.entry(place).or_insert_with(|| {
            let latest_ns = redelivery.latest_ns(place);
            let entry = SharedEntry { device: account, again: 0, unsure: 0, latest_ns };
            self.shared.push((place, entry));
            self.shared.len() - 1
        });
        let (_, entry) = &mut self.shared[at];
        entry.again += u64::from(novelty == Novelty::Again);
        entry.unsure += u64::from(novelty == Novelty::Unsure);
    }

    /// What the journal is to know, behind the rows.
    pub(super) fn shared(&self) -> impl Iterator<Item = SharedEntry<'a>> {
        // Most submissions share nothing, and look at no row again.
        let taken = if self.shared.is_empty() { &[] } else { &self.taken[..] };
        let mut latest_ns: HashMap<usize, i64> = HashMap::new();
        for (key, place) in taken {
            let latest = latest_ns.entry(*place).or_insert(key.ns);
            *latest = key.ns.max(*latest);
        }
        self.shared.iter().map(move |(place, entry)| {
            let own = latest_ns.get(place).copied().unwrap_or(i64::MIN);
            SharedEntry { latest_ns: own.max(entry.latest_ns), ..*entry }
        })
    }

    /// They are journaled.
    pub(super) fn remember(&self, redelivery: &mut Redelivery) {
        for (key, place) in &self.taken {
            redelivery.remember(*key, *place);
        }
    }
}
