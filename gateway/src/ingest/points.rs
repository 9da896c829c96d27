//! The points of one submission's rows: which of them are new, and what the journal is to know of the others.

use std::collections::HashSet;

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
        let at = self.shared.iter().position(|(known, _)| *known == place).unwrap_or_else(|| {
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
        self.shared.iter().map(|(place, entry)| {
            let own = self.taken.iter().filter(|(_, of)| of == place).map(|(key, _)| key.ns);
            SharedEntry { latest_ns: own.fold(entry.latest_ns, i64::max), ..*entry }
        })
    }

    /// They are journaled.
    pub(super) fn remember(&self, redelivery: &mut Redelivery) {
        for (key, place) in &self.taken {
            redelivery.remember(*key, *place);
        }
    }
}
