//! The oracle: what must hold of an open journal, given what was submitted and what was acknowledged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::model::{Fact, Told, View};
use super::tap::Known;
use crate::journal::entry::Entry;
use crate::journal::{Read, Reader, RecoveryReport, Shared, State};
use crate::record::Offset;

/// Judges a journal that has just been opened, before anything was submitted; returns its end.
pub(super) fn judge_opened(
    shared: &Arc<Shared>,
    report: &RecoveryReport,
    known: &Known,
    device_bytes_max: usize,
) -> Result<u64, String> {
    let (view, end) = (&*known.view, report.end.0);
    if !report.damaged.is_empty() || report.rows_lost > 0 || report.snapshot_lost {
        return Err(format!("a crash is reported as damage: {report:?}"));
    }
    if end < known.acked {
        return Err(format!("the end is {end}, but everything below {} was acknowledged", known.acked));
    }
    if !view.ends_at(end) {
        return Err(format!(
            "no submission ends at {end}; the last one that was made ends at {}",
            view.end()
        ));
    }
    let (tail, watermark) = (shared.intake().tail.end.0, shared.watermark.borrow().0);
    if tail != end || watermark != end {
        return Err(format!(
            "the end is {end}, but intake goes on at {tail} and the watermark is {watermark}"
        ));
    }
    let state = shared.intake().state.clone();
    if end > 0 && view.journal != Some(state.journal()) {
        return Err(format!("the journal was {:?} and is {:?}", view.journal, state.journal()));
    }
    judge_state(&state, view, end, device_bytes_max)?;
    judge_times(shared, known)?;
    read_back(shared, view, view.facts(end).needed_from(), end)
}

/// Judges the state, which must be that of the entries below `end`.
pub(super) fn judge_state(
    state: &State,
    view: &View,
    end: u64,
    device_bytes_max: usize,
) -> Result<(), String> {
    let expected = view.state_at(end, state.journal(), device_bytes_max);
    if *state != expected {
        return Err(format!("the state is not the fold of the {end} entries: {state:?} is not {expected:?}"));
    }
    let facts = view.facts(end);
    for ((device, boot), next) in &facts.next {
        let told = state.expected(device, *boot);
        if told.is_some_and(|told| told != *next) || *boot == 0 && told.is_none() {
            return Err(format!("the next row of {device}, boot {boot}, is {next}, not {told:?}"));
        }
    }
    let cursors: BTreeMap<_, _> = state.sinks().iter().map(|sink| (&*sink.name, sink.cursor.0)).collect();
    if cursors != facts.cursors {
        return Err(format!("the cursors are {cursors:?}, but {:?} is journaled", facts.cursors));
    }
    let letter = state.oldest_letter().map(|offset| offset.0);
    if state.learned() != facts.learned || letter != facts.oldest_letter {
        return Err(format!("{} rows learned, oldest letter {letter:?}, but {facts:?}", state.learned()));
    }
    for (machine, fix) in &facts.fixes {
        let told = state.clocks().get(*machine).map(|clock| clock.offset_ns);
        if told != Some(*fix) {
            return Err(format!("the clock of {machine} is fixed at {fix:?}, not {told:?}"));
        }
    }
    judge_ledger(state, view, end)
}

/// What a sink was told of an early entry is its time for ever.
fn judge_times(shared: &Shared, known: &Known) -> Result<(), String> {
    let fixes = shared.fixes();
    for (offset, told) in &*known.times {
        let (_, entry) = known.view.entries_from(*offset).next().ok_or("a delivered entry is gone")?;
        let entry = Entry::decode(&entry.body).map_err(|cause| cause.to_string())?;
        let ns = time_of(&fixes.date(entry));
        if ns != Some(*told) {
            return Err(format!("entry {offset} was delivered with the time {told}, and now has {ns:?}"));
        }
    }
    Ok(())
}

/// The time of a row or gap that has one.
pub(super) fn time_of(entry: &Entry<'_>) -> Option<i64> {
    match entry {
        Entry::Row(row) => Some(row.ns),
        Entry::Gap(gap) | Entry::GapAgain(gap) => Some(gap.ns),
        _ => None,
    }
}

/// What a sink is still to get of a device must be what it would read.
fn judge_ledger(state: &State, view: &View, end: u64) -> Result<(), String> {
    for sink in state.sinks() {
        let mut owed = BTreeMap::new();
        for (_, told) in view.entries_from(sink.cursor.0).take_while(|(offset, _)| *offset < end) {
            if let Fact::Row { device, .. } = told.fact {
                *owed.entry(device).or_insert(0_u64) += 1;
            }
        }
        for device in state.devices() {
            let settled = state.ledgers(device).find(|(name, _)| *name == &*sink.name);
            let settled = settled.map_or(0, |(_, ledger)| ledger.settled());
            let readable = owed.get(&*device.key).copied().unwrap_or(0);
            if device.rows != settled + readable {
                return Err(format!(
                    "of {} rows of {} the sink {} is done with {settled} and would get {readable}",
                    device.rows, device.key, sink.name
                ));
            }
        }
    }
    Ok(())
}

/// Reads everything from an offset up to `end`, which must be the watermark: each entry once, in order, unchanged. What
/// nobody is owed may be passed over where a segment says so.
pub(super) fn read_back(shared: &Arc<Shared>, view: &View, from: u64, end: u64) -> Result<u64, String> {
    let mut reader = Reader::new(Arc::clone(shared), Offset(from));
    let mut expected = view.entries_from(from);
    let mut next = from;
    loop {
        let frame = match reader.next().map_err(|cause| cause.to_string())? {
            Read::Frame(frame) => frame,
            Read::Damaged { from, to } => return Err(format!("entries {from} to {to} read as damaged")),
            Read::Wait => {
                pass_over(shared, &mut expected, next..end)?;
                return Ok(end);
            }
        };
        pass_over(shared, &mut expected, next..frame.first().0)?;
        next = next.max(frame.first().0);
        let begin = next;
        for (offset, entry) in frame.entries().skip_while(|(offset, _)| offset.0 < begin) {
            let entry = entry.map_err(|cause| format!("entry {offset}: {cause}"))?;
            if entry.is_of_clocks() && !shared.segments().holding(offset).is_some_and(|(held, _)| held.early)
            {
                return Err(format!("entry {offset} is where an older gateway would pass it over"));
            }
            if offset.0 >= end {
                return Err(format!("entry {offset} is read though only {end} are durable"));
            }
            let Some((at, told)) = expected.next() else {
                return Err(format!("entry {offset} was never submitted: {entry:?}"));
            };
            let same = at == offset.0 && Entry::decode(&told.body).is_ok_and(|submitted| submitted == entry);
            if !same {
                return Err(format!("entry {offset} is not what was submitted as {at}: {entry:?}"));
            }
            next = at + 1;
        }
    }
}

fn pass_over<'v>(
    shared: &Shared,
    expected: &mut impl Iterator<Item = (u64, &'v Told)>,
    offsets: Range<u64>,
) -> Result<(), String> {
    for missing in offsets {
        let void = shared.segments().iter().any(|s| (s.void.0..s.first.0).contains(&missing));
        match expected.next() {
            Some((_, told)) if void && !told.fact.is_owed() => {}
            _ => return Err(format!("entry {missing} cannot be read, void {void}")),
        }
    }
    Ok(())
}
