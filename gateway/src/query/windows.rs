//! Downsampling: the numbers of each field of each series, brought together window by window.
//!
//! The embedded store is read point by point. A database brings together by itself whatever the journal has nothing of; the
//! windows in which the journal has points are computed from points, its own and the database's, each once: there is no
//! telling which of them the database has counted already.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use super::answer::{Answer, Point};
use super::influxql::{Conversation, Measurement};
use super::request::{Aggregate, Query, Windows};
use super::table::Table;
use super::{Engine, Held, Store};
use crate::record::Value;

/// Most points of the journal that are held for one answer, and what they may take in memory, about, in bytes.
const DIRTY_MAX: usize = 100_000;
const DIRTY_BYTES_MAX: usize = 24 << 20;
/// What the windows of an answer may take in memory, about, in bytes.
const WINDOWS_BYTES_MAX: usize = 16 << 20;
/// Points that a database is asked for at once, where windows are computed from them.
const POINTS_AT_ONCE: usize = 10_000;
/// Runs of windows that are computed from points; beyond, what lies between them is too.
const RUNS_MAX: usize = 32;

/// Numbers of one field in one window.
#[derive(Clone, Debug, PartialEq)]
struct Fold {
    aggregate: Aggregate,
    /// Their sum, or the least or greatest of them.
    value: Value,
    count: u64,
}

/// What an answer is made of.
struct Work {
    windows: Windows,
    /// What the journal has.
    raw: Table<Held>,
    folds: Table<Fold>,
}

/// By how much more is looked at where nothing was found.
const STRIDE: i64 = 8;

/// Answers a query for windows, of as many as are about `limit` rows; none if one window alone has more.
pub(super) fn answer(
    engine: &Engine,
    asked: &Query,
    windows: Windows,
    limit: usize,
    deadline: Instant,
) -> Option<Answer> {
    // As many windows as there is room for if each device that may be meant has one series.
    let devices = match asked.device {
        Some(_) => 1,
        None => engine.journal.with_state(|state| state.devices().len()),
    };
    let fitting = i64::try_from((limit / devices.max(1)).max(1)).unwrap_or(i64::MAX);
    let (mut count, mut asked) = (fitting, asked.clone());
    loop {
        // A stride that turns out to be too long must leave time for a shorter one.
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let until = if count > fitting { now + left / 2 } else { deadline };
        let (answer, next_ns) = page(engine, &asked, windows, (count, limit), until)?;
        let may_go_on = Instant::now() < deadline;
        match next_ns {
            // A span without points is passed over in strides.
            Some(next_ns) if answer.points.is_empty() && answer.complete && may_go_on => {
                asked.from_ns = next_ns;
                count = count.saturating_mul(STRIDE);
            }
            _ if !answer.complete && count > fitting && may_go_on => count = fitting,
            _ => return Some(answer),
        }
    }
}

/// The rows of the first `count` windows, at most about `limit`, and where the next page begins.
fn page(
    engine: &Engine,
    asked: &Query,
    windows: Windows,
    (count, limit): (i64, usize),
    deadline: Instant,
) -> Option<(Answer, Option<i64>)> {
    let first_ns = windows.floor_ns(asked.from_ns);
    let end_ns = first_ns.saturating_add(windows.every_ns.saturating_mul(count)).min(asked.to_ns);
    let query = Query { to_ns: end_ns, ..asked.clone() };
    let following = |ns: i64| Some(ns).filter(|ns| *ns < asked.to_ns);

    let mut notes = Vec::new();
    let mut raw = Table::new(end_ns, DIRTY_MAX, DIRTY_BYTES_MAX);
    engine.dirty(&query, &mut raw, &mut notes, deadline);
    if raw.end_ns() < end_ns {
        raw.cut(windows.floor_ns(raw.end_ns()));
    }
    if raw.end_ns() <= first_ns {
        let cause = "the journal has more points in one window than an answer can hold; it is left out";
        notes.push(format!("{cause}; ask for shorter windows or one device"));
        let next_ns = following(first_ns.saturating_add(windows.every_ns));
        return Some((engine.told(notes, 0, Vec::new(), next_ns), next_ns));
    }
    let folds = Table::new(raw.end_ns(), limit, WINDOWS_BYTES_MAX);
    let mut work = Work { windows, raw, folds };
    if let Err(reason) = work.add_stored(engine, &query, &mut notes, deadline) {
        notes.push(reason);
    }
    work.add_raw();
    (!work.folds.is_overfull()).then(|| {
        let points = work.folds.iter().map(|(ns, series, row)| {
            let row: BTreeMap<&str, Value> =
                row.iter().map(|(name, fold)| (&**name, fold.finish())).collect();
            Point::new(ns, series, row.iter().map(|(name, value)| (*name, value)))
        });
        let next_ns = following(work.folds.end_ns());
        (engine.told(notes, work.raw.len(), points.collect(), next_ns), next_ns)
    })
}

impl Work {
    fn add_stored(
        &mut self,
        engine: &Engine,
        query: &Query,
        notes: &mut Vec<String>,
        deadline: Instant,
    ) -> Result<(), String> {
        match &engine.store {
            Store::Embedded(store) => {
                let is_there = store.each(query, deadline, |ns, series, fields| {
                    if ns >= self.folds.end_ns() {
                        return ControlFlow::Break(());
                    }
                    self.add_point((ns, series), fields.iter().filter(|(name, _)| query.wants(name)));
                    ControlFlow::Continue(())
                })?;
                engine.expect_file(is_there)
            }
            Store::Influxql(database) => {
                let conversation = database.talk(deadline)?;
                let runs = self.runs();
                for measurement in conversation.measurements(query, notes)? {
                    self.add_windows(&conversation, &measurement, query, &runs)?;
                    for run in &runs {
                        self.add_points(&conversation, &measurement, query, run)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds what the database has brought together, but for the windows in `runs`.
    fn add_windows(
        &mut self,
        conversation: &Conversation<'_>,
        of: &Measurement,
        query: &Query,
        runs: &[Range<i64>],
    ) -> Result<(), String> {
        let times = (query.from_ns, self.folds.end_ns());
        for found in conversation.windows(of, query, self.windows, times)? {
            if runs.iter().any(|run| run.contains(&found.ns)) {
                continue;
            }
            for (name, value) in &found.fields {
                self.add((found.ns, found.series.as_str()), name, value);
            }
        }
        Ok(())
    }

    /// Adds the database's points in one run of windows.
    fn add_points(
        &mut self,
        conversation: &Conversation<'_>,
        of: &Measurement,
        query: &Query,
        run: &Range<i64>,
    ) -> Result<(), String> {
        let mut from_ns = run.start.max(query.from_ns);
        loop {
            let to_ns = run.end.min(self.folds.end_ns());
            if from_ns >= to_ns {
                return Ok(());
            }
            let (found, end_ns) = conversation.points(of, query, (from_ns, to_ns), POINTS_AT_ONCE)?;
            let complete_to_ns = end_ns.unwrap_or(to_ns);
            for found in found.iter().filter(|found| found.ns < complete_to_ns) {
                let fields = found.fields.iter();
                self.add_point((found.ns, found.series.as_str()), fields);
            }
            if complete_to_ns == from_ns {
                return Err(format!(
                    "more than {POINTS_AT_ONCE} points have the same time; ask for one device"
                ));
            }
            from_ns = complete_to_ns;
        }
    }

    /// Adds a stored point, but for what the journal has of it.
    fn add_point<'a>(
        &mut self,
        (ns, series): (i64, &str),
        fields: impl Iterator<Item = &'a (String, Value)>,
    ) {
        for (name, value) in fields {
            if self.raw.get(ns, series).is_none_or(|row| !row.contains_key(name.as_str())) {
                self.add((self.windows.floor_ns(ns), series), name, value);
            }
        }
    }

    /// Adds what the journal has.
    fn add_raw(&mut self) {
        for (ns, series, row) in self.raw.iter() {
            for (name, held) in row {
                let at = (self.windows.floor_ns(ns), series);
                if let Some(fold) = Fold::of(self.windows.aggregate, &held.value) {
                    self.folds.merge(at, name, (fold, 0), Fold::join);
                }
            }
        }
    }

    fn add(&mut self, at: (i64, &str), name: &str, value: &Value) {
        if let Some(fold) = Fold::of(self.windows.aggregate, value) {
            self.folds.merge(at, name, (fold, 0), Fold::join);
        }
    }

    /// The windows in which the journal has points, those that follow each other together.
    fn runs(&self) -> Vec<Range<i64>> {
        let mut runs: Vec<Range<i64>> = Vec::new();
        for ns in self.raw.instants() {
            let start = self.windows.floor_ns(ns);
            let end = start.saturating_add(self.windows.every_ns);
            match runs.last_mut() {
                Some(run) if start <= run.end => run.end = run.end.max(end),
                _ => runs.push(start..end),
            }
        }
        if let ([first, .., last], true) = (&runs[..], runs.len() > RUNS_MAX) {
            runs = std::iter::once(first.start..last.end).collect();
        }
        runs
    }
}

impl Fold {
    /// One number; none if it is no number.
    fn of(aggregate: Aggregate, value: &Value) -> Option<Fold> {
        let number = as_float(value)?;
        let value = if aggregate == Aggregate::Mean { Value::Float(number) } else { value.clone() };
        Some(Fold { aggregate, value, count: 1 })
    }

    /// Adds others to it, and does not grow.
    fn join(&mut self, other: Fold) -> usize {
        let replaces = match (self.aggregate, as_float(&self.value), as_float(&other.value)) {
            (Aggregate::Mean, Some(sum), Some(more)) => {
                self.value = Value::Float(sum + more);
                false
            }
            (Aggregate::Min, Some(least), Some(other)) => other < least,
            (Aggregate::Max, Some(greatest), Some(other)) => other > greatest,
            _ => false,
        };
        if replaces {
            self.value = other.value;
        }
        self.count += other.count;
        0
    }

    fn finish(&self) -> Value {
        match (self.aggregate, &self.value) {
            (Aggregate::Mean, Value::Float(sum)) => Value::Float(sum / self.count as f64),
            (_, value) => value.clone(),
        }
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(v) => Some(*v),
        Value::Integer(v) => Some(*v as f64),
        Value::Unsigned(v) => Some(*v as f64),
        Value::Boolean(_) | Value::Text(_) => None,
    }
}
