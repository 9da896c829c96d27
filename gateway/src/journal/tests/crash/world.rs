//! What happens to a journal in a life: what submitters, the keeper and delivery do, one deed at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::life::Profile;
use super::model::Fact;
use super::names::{DEVICES, NATIVES, Rng, SINKS};
use super::oracle;
use super::tap::Tap;
use crate::journal::bugs::{Bug, seeded};
use crate::journal::clocks::{ClockEntry, FixEntry};
use crate::journal::entry::{
    Cause, Counts, DeviceEntry, Fields, GapEntry, LetterEntry, LettersEntry, RowEntry, SinkEntry, SkipEntry,
};
use crate::journal::intake::SPARES;
use crate::journal::state::NewAccounts;
use crate::journal::{Class, Entry, Read, Reader, Refused, Shared, State, Submission, keeper};
use crate::record::{MachineBoot, Offset, Value};

const SERIES: &str = "climate,device=boiler,room=cellar..";

/// What submitters, the keeper and delivery see.
pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) tap: Tap,
    pub(super) profile: Profile,
    pub(super) machine: MachineBoot,
    pub(super) trouble: Mutex<Option<String>>,
}

impl World {
    pub(super) fn submit(
        &self,
        class: Class,
        decide: impl FnOnce(&State, &mut Submission<'_>) -> Result<(), Refused>,
    ) -> bool {
        let mut encoded = Vec::new();
        let before = self.shared.intake();
        let live_bytes = before.live_bytes;
        let owes = before.state.sinks().iter().any(|sink| before.state.owed(&sink.name) > 0);
        drop(before);
        let submitted = self.shared.submit(class, |state, submission| {
            decide(state, submission)?;
            encoded.clone_from(submission.out);
            Ok::<_, Refused>(())
        });
        let Ok(((), receipt)) = submitted else { return false };
        let mut end = 0;
        self.tap.learn(|known| {
            let view = Arc::make_mut(&mut known.view);
            if !encoded.is_empty() {
                view.push(&encoded, self.shared.journal, self.profile.device_bytes_max());
            }
            end = view.end();
        });
        if receipt.0 != end {
            let trouble = format!("the receipt is {receipt}, but {end} entries were submitted");
            *self.trouble.lock().unwrap() = Some(trouble);
        }
        let intake = self.shared.intake();
        let begins = class != Class::Internal && owes && intake.live_bytes > live_bytes;
        let kept_bytes = SPARES as u64 * self.profile.shape.segment_bytes;
        if begins && intake.live_bytes + kept_bytes > intake.limit_bytes() {
            let trouble = "rows take what is kept for delivery".to_owned();
            *self.trouble.lock().unwrap() = Some(trouble);
        }
        true
    }

    /// Rows of some device. When there is no room, delivery makes some, if it may.
    pub(super) fn rows(&self, choice: u64, count: u64) -> bool {
        let mut rng = Rng(choice);
        let at = rng.below(DEVICES.len() as u64) as usize;
        let class = if at < NATIVES { Class::Native } else { Class::Foreign };
        let submitted = self.submit(class, |state, submission| {
            let device = state.account(DEVICES[at], &mut NewAccounts::default());
            let boot = state.device(device).and_then(|known| known.boots.last()).map_or(0, |boot| boot.boot);
            let native = at < NATIVES;
            if native && !state.has_room_for_native(DEVICES[at]) {
                return Ok(());
            }
            if native && boot == 0 {
                submission.add(&Entry::Device(DeviceEntry { device, name: device, boot: 1, first: 0 }))?;
            }
            let boot = if native { boot.max(1) } else { 0 };
            let next = state.expected(device, boot).unwrap_or(0);
            let early = self.early(state, submission, choice)?;
            for sequence in next..next + count {
                let fields = [("v".to_owned(), Value::Float((rng.next() >> 12) as f64))];
                let ns = state.last_stamp().saturating_add(1).max(1 << 60);
                let row = RowEntry {
                    device,
                    boot,
                    sequence,
                    stamped: true,
                    series: SERIES,
                    ns: if early.is_some() { sequence as i64 } else { ns },
                    fields: Fields::of(&fields),
                };
                submission.add(&early.map_or(Entry::Row(row), |machine| Entry::EarlyRow(machine, row)))?;
            }
            Ok(())
        });
        if !submitted {
            self.tidy();
        }
        submitted
    }

    /// The boot of the machine, if entries are early now: as long as it waits for its fix, and before that now and then.
    fn early(
        &self,
        state: &State,
        submission: &mut Submission<'_>,
        choice: u64,
    ) -> Result<Option<MachineBoot>, Refused> {
        let machine = self.machine;
        match state.clocks().get(machine) {
            Some(clock) => Ok(clock.offset_ns.is_none().then_some(machine)),
            None if self.profile.early && choice.is_multiple_of(3) => {
                submission.add(&Entry::Clock(ClockEntry { machine, told_ns: 5 }))?;
                Ok(Some(machine))
            }
            None => Ok(None),
        }
    }

    /// The clock is believed. Now and then what is fixed is fixed again, which must change nothing.
    pub(super) fn fix(&self, choice: u64) {
        self.submit(Class::Internal, |state, submission| {
            let mut rng = Rng(choice);
            let again =
                rng.one_in(3).then_some(self.machine).filter(|again| state.clocks().get(*again).is_some());
            let due = state.clocks().waiting().map(|clock| clock.machine).chain(again);
            due.into_iter().try_for_each(|machine| {
                let (offset_ns, estimated) = ((rng.next() >> 4) as i64, rng.one_in(2));
                submission.add(&Entry::ClockFix(FixEntry { machine, offset_ns, estimated }))
            })
        });
    }

    pub(super) fn boot(&self, choice: u64) {
        let device = DEVICES[(choice % NATIVES as u64) as usize];
        self.submit(Class::Native, |state, submission| {
            if !state.has_room_for_native(device) {
                return Ok(());
            }
            let last = state.device(device).and_then(|known| known.boots.last()).map_or(0, |boot| boot.boot);
            submission.add(&Entry::Device(DeviceEntry { device, name: device, boot: last + 1, first: 0 }))
        });
    }

    /// A native device has lost some rows before they came.
    pub(super) fn lost(&self, choice: u64) {
        let device = DEVICES[(choice % NATIVES as u64) as usize];
        self.submit(Class::Native, |state, submission| {
            let Some(boot) = state.device(device).and_then(|known| known.boots.last()) else { return Ok(()) };
            let count = 1 + choice / 8 % 5;
            let (from, to) = (boot.next, boot.next + count);
            let early = self.early(state, submission, choice)?;
            submission.add(&gap(device, boot.boot, from..to, count, None, early))
        });
    }

    pub(super) fn letter(&self, choice: u64) {
        let device = DEVICES[NATIVES + (choice % 3) as usize];
        self.submit(Class::Foreign, |state, submission| {
            submission.add(&Entry::Letter(LetterEntry {
                device: state.account(device, &mut NewAccounts::default()),
                rows: choice / 8 % 3,
                ns: 1,
                origin: "topic",
                reason: "not a number",
                body_bytes: 9,
                body: b"{\"t\":nan}",
            }))
        });
    }

    /// The dead letters have everything up to some offset, and no room for some of it.
    pub(super) fn letters(&self, choice: u64) {
        let watermark = self.shared.watermark.borrow().0;
        let dropped = [(Box::from(DEVICES[NATIVES]), 1)];
        self.submit(Class::Internal, |state, submission| {
            let Some(oldest) = state.oldest_letter().filter(|oldest| oldest.0 < watermark) else {
                return Ok(());
            };
            let kept =
                Offset(watermark - if choice.is_multiple_of(3) { (watermark - oldest.0) / 2 } else { 0 });
            let some = state.device(DEVICES[NATIVES]).is_some_and(|device| device.letters > 0);
            let dropped: &[(Box<str>, u64)] = if some && choice.is_multiple_of(2) { &dropped } else { &[] };
            submission.add(&Entry::Letters(LettersEntry {
                to: kept,
                unkept: some,
                rows: Counts::of(dropped),
            }))
        });
    }

    pub(super) fn sink(&self, choice: u64) {
        let sink = SINKS[(choice % 2) as usize];
        self.submit(Class::Internal, |state, submission| {
            if state.cursor(sink).is_some() {
                return Ok(());
            }
            let start = state.lowest_cursor().unwrap_or_default();
            submission.add(&Entry::Sink(SinkEntry { sink, start }))
        });
    }

    pub(super) fn forget(&self, choice: u64) {
        let sink = SINKS[(choice % 2) as usize];
        self.submit(Class::Internal, |state, submission| {
            let others = state.sinks().len() > 1 && state.cursor(sink).is_some();
            if others { submission.add(&Entry::Forget(sink)) } else { Ok(()) }
        });
    }

    /// A sink confirms what is durable, or refuses a row of it.
    pub(super) fn deliver(&self, choice: u64) {
        let mut rng = Rng(choice);
        let sink = SINKS[rng.below(2) as usize];
        let Some(cursor) = self.shared.intake().state.cursor(sink) else { return };
        let behind = self.shared.watermark.borrow().0 - cursor.0;
        if behind == 0 {
            return;
        }
        let next = cursor.0 + if rng.one_in(2) { behind } else { 1 + rng.below(behind) };
        let next = self.date(cursor.0, next);
        let mut rows = self.rows_between(cursor.0, next);
        let rejected = rows.iter_mut().next().filter(|_| rng.one_in(4)).map(|(device, count)| {
            *count -= 1;
            gap(device, 0, 0..1, 1, Some((sink, Cause::Rejected)), None)
        });
        let confirmed: Vec<_> = rows.iter().map(|(device, rows)| (Box::from(*device), *rows)).collect();
        if rejected.is_some() && seeded(Bug::CursorBeforeItsGaps) {
            self.submit(Class::Internal, |_, submission| {
                submission.add_cursor(sink, Offset(next), &confirmed)
            });
            self.submit(Class::Internal, |_, submission| {
                rejected.iter().try_for_each(|gap| submission.add(gap))
            });
            return;
        }
        self.submit(Class::Internal, |_, submission| {
            rejected.iter().try_for_each(|gap| submission.add(gap))?;
            submission.add_cursor(sink, Offset(next), &confirmed)
        });
    }

    /// A sink confirms all that is durable.
    pub(super) fn confirm_all(&self, sink: &str) {
        let next = self.shared.watermark.borrow().0;
        let Some(cursor) = self.shared.intake().state.cursor(sink).filter(|cursor| cursor.0 < next) else {
            return;
        };
        let next = self.date(cursor.0, next);
        let rows = self.rows_between(cursor.0, next);
        let confirmed: Vec<_> = rows.iter().map(|(device, rows)| (Box::from(*device), *rows)).collect();
        self.submit(Class::Internal, |_, submission| submission.add_cursor(sink, Offset(next), &confirmed));
    }

    /// Whether a sink may say where it is, or that it is there.
    pub(super) fn confirms_again(&self) -> bool {
        self.submit(Class::Internal, |state, submission| match state.sinks().first() {
            Some(sink) => submission.add_cursor(&sink.name, sink.cursor, &[]),
            None => submission.add(&Entry::Sink(SinkEntry { sink: SINKS[0], start: Offset(0) })),
        })
    }

    /// Gives entries from an offset on their times, as delivery does; up to where, at most to `to`.
    fn date(&self, from: u64, to: u64) -> u64 {
        let mut reader = Reader::new(Arc::clone(&self.shared), Offset(from));
        let fixes = reader.fixes();
        while let Ok(Read::Frame(frame)) = reader.next() {
            for (offset, entry) in frame.entries().filter(|(offset, _)| offset.0 >= from) {
                let Ok(entry) = entry else { continue };
                let dated = fixes.date(entry);
                if offset.0 >= to || dated.is_early() {
                    return to.min(offset.0);
                }
                if let Some(ns) = oracle::time_of(&dated).filter(|_| entry.is_early()) {
                    self.tap.learn(|known| {
                        Arc::make_mut(&mut known.times).insert(offset.0, ns);
                    });
                }
            }
        }
        to
    }

    /// Lets go of the oldest rows for every sink that does not have them, as delivery does: gaps and jump in one.
    fn evict(&self, target: u64) {
        for sink in SINKS {
            let cursor = self.shared.intake().state.cursor(sink).filter(|cursor| cursor.0 < target);
            let Some(cursor) = cursor else { continue };
            let rows = self.rows_between(cursor.0, target);
            if seeded(Bug::CursorBeforeItsGaps) {
                self.submit(Class::Internal, |_, submission| {
                    submission.add_cursor(sink, Offset(target), &[])
                });
            }
            self.submit(Class::Internal, |_, submission| {
                for (device, count) in rows {
                    submission.add(&gap(device, 0, 0..count, count, Some((sink, Cause::Evicted)), None))?;
                }
                submission.add(&Entry::Skip(SkipEntry { sink, to: Offset(target) }))
            });
        }
        self.submit(Class::Internal, |state, submission| {
            let kept = Offset(target);
            let below = state.oldest_letter().is_some_and(|oldest| oldest < kept);
            let letters = LettersEntry { to: kept, unkept: false, rows: Counts::of(&[]) };
            if below { submission.add(&Entry::Letters(letters)) } else { Ok(()) }
        });
    }

    fn rows_between(&self, from: u64, to: u64) -> BTreeMap<&'static str, u64> {
        let mut rows = BTreeMap::new();
        let known = self.tap.known();
        for (_, told) in known.view.entries_from(from).take_while(|(offset, _)| *offset < to) {
            if let Fact::Row { device, .. } = told.fact {
                *rows.entry(device).or_insert(0) += 1;
            }
        }
        rows
    }

    /// Does what the keeper does, and what delivery does when it is asked for room.
    pub(super) fn tidy(&self) {
        // What the disk refuses is tried again the next time.
        let _ = keeper::tidy(&self.shared);
        let (target, watermark) = (self.shared.evict_to.borrow().0, self.shared.watermark.borrow().0);
        if target <= watermark {
            self.evict(target);
        }
    }

    /// Reads as a sink does: from its cursor on everything that is durable, and nothing else.
    pub(super) fn read(&self, choice: u64) -> Result<(), String> {
        let known = self.tap.known();
        let watermark = self.shared.watermark.borrow().0;
        let state = self.shared.intake().state.clone();
        let lowest = state.done_below().map_or(0, |offset| offset.0);
        let from = state.cursor(SINKS[(choice % 2) as usize]).map_or(lowest, |cursor| cursor.0.max(lowest));
        if from < watermark {
            oracle::read_back(&self.shared, &known.view, from, watermark)?;
        }
        Ok(())
    }
}

fn gap<'a>(
    device: &'a str,
    boot: u32,
    rows: std::ops::Range<u64>,
    count: u64,
    sink: Option<(&'a str, Cause)>,
    early: Option<MachineBoot>,
) -> Entry<'a> {
    let gap = GapEntry {
        device,
        boot,
        from: rows.start,
        to: rows.end,
        count,
        cause: sink.map_or(Cause::Overflow, |(_, cause)| cause),
        sink: sink.map(|(name, _)| name),
        stamped: false,
        series: "forebay_gap",
        ns: 7,
    };
    early.map_or(Entry::Gap(gap), |machine| Entry::EarlyGap(machine, gap))
}
