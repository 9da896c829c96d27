//! What was submitted, and what it must amount to: the memory of the oracle, which never looks at a file.
//!
//! A [`View`] is shared and never changed, so that every crash point keeps the one that held at its moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::{DEVICES, SINKS, interned};
use crate::journal::entry::{Entry, take_entry};
use crate::journal::{JournalId, State};
use crate::record::{MachineBoot, Offset};

/// What was submitted, in order, without what a crash took.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) journal: Option<JournalId>,
    pub(super) submissions: Vec<Arc<Submitted>>,
}

/// One submission.
pub(super) struct Submitted {
    pub(super) first: u64,
    pub(super) entries: Vec<Told>,
    /// The state behind it.
    after: State,
}

/// One entry.
pub(super) struct Told {
    pub(super) body: Box<[u8]>,
    pub(super) fact: Fact,
}

/// What the oracle makes of an entry by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Row { device: &'static str, boot: u32, sequence: u64 },
    Boot { device: &'static str, boot: u32, first: u64 },
    Lost { device: &'static str, boot: u32, to: u64, rows: u64 },
    SinkGap,
    Sink { sink: &'static str, start: u64 },
    Forget { sink: &'static str },
    Cursor { sink: &'static str, next: u64 },
    Letter { rows: u64 },
    Letters { kept: u64 },
    Clock { machine: MachineBoot },
    Fix { machine: MachineBoot, offset_ns: i64 },
    Message,
}

/// What the standing entries say, worked out without [`State`].
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// Next sequence by device and boot.
    pub(super) next: BTreeMap<(&'static str, u32), u64>,
    pub(super) cursors: BTreeMap<&'static str, u64>,
    /// What each boot of the machine that there are early entries of was fixed at, if it was.
    pub(super) fixes: BTreeMap<MachineBoot, Option<i64>>,
    pub(super) learned: u64,
    pub(super) oldest_letter: Option<u64>,
    newest_letter: u64,
}

impl View {
    pub(super) fn end(&self) -> u64 {
        self.submissions.last().map_or(0, |last| last.end())
    }

    /// Whether a submission ends at `end`.
    pub(super) fn ends_at(&self, end: u64) -> bool {
        end == 0 || self.submissions.binary_search_by_key(&end, |s| s.end()).is_ok()
    }

    /// The state that the entries below `end` amount to.
    pub(super) fn state_at(&self, end: u64, journal: JournalId, device_bytes_max: usize) -> State {
        let behind = self.submissions.partition_point(|s| s.end() <= end);
        match behind.checked_sub(1) {
            Some(last) => self.submissions[last].after.clone(),
            None => State::new(journal, device_bytes_max),
        }
    }

    /// The entries from `from` on, with their offsets.
    pub(super) fn entries_from(&self, from: u64) -> impl Iterator<Item = (u64, &Told)> {
        let begin = self.submissions.partition_point(|s| s.end() <= from);
        let all = self.submissions[begin..].iter().flat_map(|s| (s.first..).zip(&s.entries));
        all.skip_while(move |(offset, _)| *offset < from)
    }

    /// What the entries below `end` say.
    pub(super) fn facts(&self, end: u64) -> Facts {
        let mut facts = Facts::default();
        for (offset, told) in self.entries_from(0).take_while(|(offset, _)| *offset < end) {
            facts.take_in(offset, told.fact);
        }
        facts
    }

    /// Takes in what was submitted.
    pub(super) fn push(&mut self, encoded: &[u8], journal: JournalId, device_bytes_max: usize) {
        let first = self.end();
        let mut after = self.state_at(first, journal, device_bytes_max);
        let (mut rest, mut entries) = (encoded, Vec::new());
        while !rest.is_empty() {
            let body = take_entry(&mut rest).unwrap();
            let entry = Entry::decode(body).unwrap();
            let fact = Fact::of(&entry);
            after.apply(Offset(first + entries.len() as u64), &entry);
            entries.push(Told { body: body.into(), fact });
        }
        self.submissions.push(Arc::new(Submitted { first, entries, after }));
    }

    /// Forgets what a crash took.
    pub(super) fn truncate(&mut self, end: u64) {
        let standing = self.submissions.partition_point(|s| s.end() <= end);
        self.submissions.truncate(standing);
    }
}

impl Submitted {
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

impl Fact {
    /// What an entry tells of the account that it goes to in this state.
    fn of(entry: &Entry<'_>) -> Fact {
        let device = |name: &str| interned(&DEVICES, name);
        let sink = |name: &str| interned(&SINKS, name);
        match entry {
            Entry::Row(row) | Entry::EarlyRow(_, row) => {
                Fact::Row { device: device(row.device), boot: row.boot, sequence: row.sequence }
            }
            Entry::GapAgain(_) | Entry::EarlyGapAgain(..) => Fact::SinkGap,
            Entry::Gap(gap) | Entry::EarlyGap(_, gap) if gap.sink.is_some() => Fact::SinkGap,
            Entry::Gap(gap) | Entry::EarlyGap(_, gap) => {
                Fact::Lost { device: device(gap.device), boot: gap.boot, to: gap.to, rows: gap.count }
            }
            Entry::Device(boot) => {
                Fact::Boot { device: device(boot.device), boot: boot.boot, first: boot.first }
            }
            Entry::Sink(entry) => Fact::Sink { sink: sink(entry.sink), start: entry.start.0 },
            Entry::Forget(name) => Fact::Forget { sink: sink(name) },
            Entry::Cursor(cursor) => Fact::Cursor { sink: sink(cursor.sink), next: cursor.next.0 },
            Entry::Skip(skip) => Fact::Cursor { sink: sink(skip.sink), next: skip.to.0 },
            Entry::Letter(letter) => Fact::Letter { rows: letter.rows },
            Entry::Letters(letters) => Fact::Letters { kept: letters.to.0 },
            Entry::Clock(clock) => Fact::Clock { machine: clock.machine },
            Entry::ClockFix(fix) => Fact::Fix { machine: fix.machine, offset_ns: fix.offset_ns },
            Entry::Message(_) | Entry::Shared(_) | Entry::Moved(_) => Fact::Message,
        }
    }
}

impl Fact {
    /// Whether a sink or the dead letters are to get it, or need it for what they are to get.
    pub(super) fn is_owed(self) -> bool {
        let is_of_clocks = matches!(self, Fact::Clock { .. } | Fact::Fix { .. });
        is_of_clocks
            || matches!(self, Fact::Row { .. } | Fact::Lost { .. } | Fact::SinkGap | Fact::Letter { .. })
    }
}

impl Facts {
    fn take_in(&mut self, offset: u64, fact: Fact) {
        match fact {
            Fact::Row { device, boot, sequence } => {
                self.next.insert((device, boot), sequence + 1);
                self.learned += 1;
            }
            Fact::Boot { device, boot, first } => {
                self.next.insert((device, boot), first);
            }
            Fact::Lost { device, boot, to, rows } => {
                self.next.insert((device, boot), to);
                self.learned += rows;
            }
            Fact::SinkGap | Fact::Message => {}
            Fact::Clock { machine } => {
                self.fixes.entry(machine).or_default();
            }
            Fact::Fix { machine, offset_ns } => {
                self.fixes.entry(machine).or_default().get_or_insert(offset_ns);
            }
            Fact::Sink { sink, start } => {
                self.cursors.entry(sink).or_insert(start);
            }
            Fact::Forget { sink } => {
                self.cursors.remove(sink);
            }
            Fact::Cursor { sink, next } => {
                self.cursors.insert(sink, next);
            }
            Fact::Letter { rows } => {
                self.learned += rows;
                self.oldest_letter.get_or_insert(offset);
                self.newest_letter = offset;
            }
            Fact::Letters { kept } => {
                let oldest = self.oldest_letter.filter(|_| self.newest_letter >= kept);
                self.oldest_letter = oldest.map(|oldest| oldest.max(kept));
            }
        }
    }

    /// Somebody needs everything from here on.
    pub(super) fn needed_from(&self) -> u64 {
        let lowest = self.cursors.values().copied().min().unwrap_or(0);
        self.oldest_letter.map_or(lowest, |letter| letter.min(lowest))
    }
}
