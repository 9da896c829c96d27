//! The steps of a life, and what the model knows: everything that was submitted, and what it amounts to.

use proptest::prelude::*;

use super::super::*;
use crate::journal::entry::Cause;
use crate::record::MachineBoot;

pub(super) const SINKS: [&str; 3] = ["main", "second", "sqlite"];
/// Of these, the ten foreign devices do not all find room for an account of their own.
pub(super) const DEVICES: usize = 12;
pub(super) const NATIVES: usize = 2;
/// Boots of the machine that there are early rows of.
pub(super) const MACHINES: u64 = 4;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Rows { class: Class, device: usize, rows: usize, bytes: usize },
    Gap { device: usize, cause: usize, count: u64, sink: Option<usize> },
    Boot { device: usize, boot: u32 },
    Letter { device: usize, rows: u64 },
    Letters { back: u64, unkept: bool, device: Option<usize> },
    Sink(usize),
    Forget(usize),
    Cursor { sink: usize, back: u64 },
    Early { device: usize, machine: u64, rows: u64 },
    Fix { machine: u64, offset_ns: i64 },
    Skip { sink: usize, back: u64 },
    FailSync(u64),
    Mark,
    Reopen { kill: bool, segments: u64, when_full: WhenFull },
}

pub(super) fn class() -> impl Strategy<Value = Class> {
    prop_oneof![2 => Just(Class::Foreign), 1 => Just(Class::Native)]
}

pub(super) fn when_full() -> impl Strategy<Value = WhenFull> {
    prop_oneof![Just(WhenFull::Auto), Just(WhenFull::Refuse), Just(WhenFull::DropOldest)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (class(), 0..DEVICES, 1..9usize, 0..700usize)
            .prop_map(|(class, device, rows, bytes)| Step::Rows { class, device, rows, bytes }),
        1 => (0..DEVICES, 0..Cause::ALL.len(), 1..9u64, prop::option::of(0..SINKS.len()))
            .prop_map(|(device, cause, count, sink)| Step::Gap { device, cause, count, sink }),
        1 => (0..NATIVES, 1..9u32).prop_map(|(device, boot)| Step::Boot { device, boot }),
        1 => (0..DEVICES, 0..3u64).prop_map(|(device, rows)| Step::Letter { device, rows }),
        1 => (0..40u64, any::<bool>(), prop::option::of(0..DEVICES))
            .prop_map(|(back, unkept, device)| Step::Letters { back, unkept, device }),
        1 => (0..SINKS.len()).prop_map(Step::Sink),
        1 => (0..SINKS.len()).prop_map(Step::Forget),
        2 => (0..SINKS.len(), 0..60u64).prop_map(|(sink, back)| Step::Cursor { sink, back }),
        1 => (0..SINKS.len(), 0..60u64).prop_map(|(sink, back)| Step::Skip { sink, back }),
        2 => (0..DEVICES, 0..MACHINES, 1..9u64)
            .prop_map(|(device, machine, rows)| Step::Early { device, machine, rows }),
        1 => (0..MACHINES, any::<i64>()).prop_map(|(machine, offset_ns)| Step::Fix { machine, offset_ns }),
        1 => (0..4u64).prop_map(Step::FailSync),
        1 => Just(Step::Mark),
        1 => (any::<bool>(), 10..24u64, when_full())
            .prop_map(|(kill, segments, when_full)| Step::Reopen { kill, segments, when_full }),
    ]
}

/// Everything that was submitted, and what it amounts to.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) state: State,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) learned: u64,
    /// Everything below was accounted for in every sink that there was, and may be gone.
    pub(super) done_below: Offset,
    /// Rows of each account of foreign devices.
    pub(super) accounts: BTreeMap<String, u64>,
    /// What each boot of the machine with early rows was fixed at, if it was.
    pub(super) fixes: BTreeMap<MachineBoot, Option<i64>>,
}

impl Model {
    pub(super) fn new(state: State) -> Model {
        Model {
            state,
            entries: Vec::new(),
            learned: 0,
            done_below: Offset(0),
            accounts: BTreeMap::new(),
            fixes: BTreeMap::new(),
        }
    }

    pub(super) fn take_in(&mut self, entries: &[Vec<u8>]) -> Result<(), TestCaseError> {
        for bytes in entries {
            let entry = Entry::decode(&bytes[2..]).unwrap();
            match &entry {
                Entry::ClockFix(fix) => {
                    if let Some(known) = self.fixes.get_mut(&fix.machine) {
                        known.get_or_insert(fix.offset_ns);
                    }
                }
                Entry::Clock(clock) => {
                    self.fixes.entry(clock.machine).or_default();
                }
                Entry::Row(row) | Entry::EarlyRow(_, row) if row.boot == 0 => {
                    let number = self.accounts.entry(row.device.to_owned()).or_default();
                    prop_assert_eq!(row.sequence, *number, "the number of a row of {}", row.device);
                    *number += 1;
                    self.learned += 1;
                }
                Entry::Row(_) | Entry::EarlyRow(..) => self.learned += 1,
                Entry::Gap(gap) if gap.sink.is_none() => self.learned += gap.count,
                Entry::Letter(letter) => self.learned += letter.rows,
                _ => {}
            }
            self.state.apply(Offset(self.entries.len() as u64), &entry);
            self.entries.push(bytes.clone());
            self.done_below = self.done_below.max(self.state.done_below().unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Offset {
        Offset(self.entries.len() as u64)
    }
}

pub(super) fn name(device: usize) -> String {
    format!("device {device}")
}

pub(super) fn encoded(entry: &Entry<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes).unwrap();
    bytes
}
