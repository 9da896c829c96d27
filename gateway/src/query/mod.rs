//! Queries: what the journal has and the query sink may not have yet, merged with what that sink holds.
//!
//! * In: a [`Query`], from HTTP or from a command.
//! * Out: an [`Answer`]: points or windows in the order of time, each once.
//!
//! *Constraints.* A reading can be read as soon as it is acked, and is never shown twice. A query never waits on the journal's
//! locks nor holds them; it is bounded in time ([`PATIENCE`]), in memory and in the bytes of journal that it reads, and runs
//! on a thread of its own with a low priority. What cannot be shown is told: `complete` is false, and the reasons say why.
//!
//! *Operation.* First the sink's cursor is read (where it stood some seconds ago, or what the embedded store says itself), then
//! the watermark, then the journal between them (`dirty.rs`), where that
//! may hold anything of interest (`index.rs`), and only then the store (`influxql.rs`, `sqlite.rs`). What is confirmed
//! meanwhile is found in both; so nothing falls between them, in this order alone. Points meet in a table by instant and
//! series (`table.rs`), where the journal wins: it is what the store will have. A page holds whole instants, and the next one
//! begins where it ends. Downsampling (`windows.rs`) lets the database do what it can, and goes back to the points where the
//! journal has any.
//!
//! *Failure.* A database that is down, slow, or speaks another language leaves what the journal has.

mod answer;
mod dirty;
mod index;
pub(crate) mod influxql;
mod request;
mod sqlite;
mod table;
mod windows;

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use answer::{Answer, Point};
pub(crate) use answer::{scalar, typed};
pub use request::{Aggregate, Fault, Query, Windows};

use crate::config::Config;
use crate::journal::Journal;
use crate::record::{Offset, Value};
use crate::sink::SinkError;
use crate::sink::batch::Audience;
use dirty::{Floor, Missing, Scan};
use index::Index;
use influxql::{Found, Influxql};
use sqlite::Embedded;
use table::Table;

/// Points in an answer unless the query says otherwise, and at most.
pub const POINTS_DEFAULT: usize = 1_000;
/// Most points that a query may ask for.
pub const POINTS_MAX: usize = 10_000;
/// Longest time for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the points of an answer may take in memory, about, in bytes.
const POINTS_BYTES_MAX: usize = 16 << 20;
/// Most bytes of journal that one query reads.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of journal that the index looks through at once, and in one step of that.
const INDEX_BYTES: u64 = 16 << 20;
const INDEX_STEP_BYTES: u64 = 1 << 20;

/// Answers queries.
#[derive(Debug)]
pub struct Engine {
    journal: Journal,
    /// The query sink.
    audience: Audience,
    store: Store,
    index: Mutex<Index>,
    floor: Mutex<Floor>,
}

/// A value, and what it is worth against another of the same point.
#[derive(Debug)]
struct Held {
    /// Where it stands in the journal; none for what the store has, which is older.
    offset: Option<Offset>,
    value: Value,
}

/// What the query sink is read by.
#[derive(Debug)]
enum Store {
    Embedded(Embedded),
    Influxql(Box<Influxql>),
}

impl Engine {
    /// Answers from this journal and the query sink of the configuration; nobody is asked yet.
    ///
    /// # Errors
    /// The sink's URL or the HTTP client cannot be had.
    pub fn new(config: &Config, journal: &Journal) -> Result<Engine, SinkError> {
        let sink = config.http.query_sink.as_str();
        let influxdb = config.influxdb.iter().find(|influxdb| influxdb.name == sink);
        let sqlite = config.sqlite.as_ref();
        let service = influxdb.map(|influxdb| &influxdb.service).or(sqlite.map(|sqlite| &sqlite.service));
        let filter = service.map(|service| service.filter.clone()).unwrap_or_default();
        let store = match influxdb {
            Some(influxdb) => Store::Influxql(Box::new(Influxql::new(influxdb)?)),
            None => {
                let data_dir = || config.data_dir.join("readings.sqlite");
                let path = sqlite.map_or_else(data_dir, |sqlite| sqlite.path.clone());
                Store::Embedded(Embedded::new(path, format!("{:016x}", journal.id().0)))
            }
        };
        let cursor = journal.with_state(|state| state.cursor(sink)).unwrap_or_default();
        let floor = Floor::new(Instant::now(), cursor);
        let index = Mutex::new(Index::new(journal, floor.below()));
        let audience = Audience { name: sink.into(), filter };
        Ok(Engine { journal: journal.clone(), audience, store, index, floor: Mutex::new(floor) })
    }

    /// Follows the journal and the sink's cursor; call it about once a second, where it may wait for the disk. True if there
    /// is more of the journal to be looked through.
    pub fn follow(&self) -> bool {
        let cursor = self.cursor();
        let below = {
            let mut floor = lock(&self.floor);
            floor.note(Instant::now(), cursor);
            floor.below()
        };
        lock(&self.index).forget_below(below);
        for _ in 0..INDEX_BYTES / INDEX_STEP_BYTES {
            // In small steps, so that no query waits for long.
            match lock(&self.index).advance(INDEX_STEP_BYTES) {
                Ok(true) => {}
                Ok(false) => return false,
                // Delivery complains about a medium that cannot be read, and queries say so.
                Err(error) => {
                    tracing::debug!("the index of the journal is not up to date: {error}");
                    return false;
                }
            }
        }
        true
    }

    /// Answers a query. This blocks for as long as [`PATIENCE`].
    ///
    /// # Errors
    /// The parameter that would have to be another.
    pub fn answer(&self, query: &Query) -> Result<Answer, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let query = self.by_name(query);
        // Instants are not cut: where one has more than was asked for, as many as there may be are shown.
        for limit in [query.limit, POINTS_MAX] {
            let answer = match query.windows {
                None => self.points(&query, limit, deadline),
                Some(windows) => windows::answer(self, &query, windows, limit, deadline),
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        let cause = format!("would have to be more than {POINTS_MAX}: so many points have the same time");
        Err(Fault::new("limit", cause, "ask for one device or one measurement"))
    }

    /// A native device is known by its chip id too, and stored by its name.
    fn by_name(&self, query: &Query) -> Query {
        let name = query.device.as_deref().and_then(|id| {
            self.journal
                .with_state(|state| Some(state.device(id)?).filter(|d| d.native).map(|d| d.name.to_string()))
        });
        Query { device: name.or_else(|| query.device.clone()), ..query.clone() }
    }

    /// Points as they are; none if an instant has more than `limit` of them.
    fn points(&self, query: &Query, limit: usize, deadline: Instant) -> Option<Answer> {
        let mut notes = Vec::new();
        let mut table = Table::new(query.to_ns, limit, POINTS_BYTES_MAX);
        self.dirty(query, &mut table, &mut notes, deadline);
        let dirty = table.len();
        if let Err(reason) = self.stored(query, &mut table, limit, &mut notes, deadline) {
            notes.push(reason);
        }
        (!table.is_overfull()).then(|| {
            let next_ns = Some(table.end_ns()).filter(|end_ns| *end_ns < query.to_ns);
            let rows = table.iter().map(|(ns, series, row)| {
                Point::new(ns, series, row.iter().map(|(name, held)| (&**name, &held.value)))
            });
            self.told(notes, dirty, rows.collect(), next_ns)
        })
    }

    fn told(&self, reasons: Vec<String>, dirty: usize, points: Vec<Point>, next_ns: Option<i64>) -> Answer {
        let (sink, next) = (self.audience.name.to_string(), next_ns.map(answer::time));
        Answer { sink, complete: reasons.is_empty(), reasons, dirty, points, next }
    }

    /// Puts what the journal has into the table, the later entry over the earlier.
    fn dirty(&self, query: &Query, table: &mut Table<Held>, notes: &mut Vec<String>, deadline: Instant) {
        let mut below = lock(&self.floor).below();
        if let Store::Embedded(store) = &self.store {
            match store.cursor(deadline) {
                // It goes with the points, so it is exact, whatever became of the file.
                Ok(own) => below = own.unwrap_or_default(),
                Err(reason) => notes.push(reason),
            }
        }
        let watermark = *self.journal.watermark().borrow();
        let plan = {
            let index = lock(&self.index);
            let marks = index.marks(query.measurement.as_deref(), query.device.as_deref());
            let times_ns = query.from_ns..=query.to_ns.saturating_sub(1);
            index.plan(below..watermark, &marks, &times_ns)
        };
        // Half of the time is left to the store.
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 2;
        let scan = Scan::new(&self.journal, &self.audience, query, (JOURNAL_BYTES_MAX, until));
        let missing = scan.run(&self.journal, &plan, |offset, point| {
            for (name, value) in point.fields().filter(|(name, _)| query.wants(name)) {
                let held = Held { offset: Some(offset), value: value.to_value() };
                table.put((point.ns, point.series), name, held);
            }
            table.end_ns()
        });
        missing.cut_ns.into_iter().for_each(|cut_ns| table.cut(cut_ns));
        self.tell(&missing, notes);
    }

    fn tell(&self, missing: &Missing, notes: &mut Vec<String>) {
        if missing.undated > 0 {
            notes.push(format!(
                "{} rows have no time yet: they wait until the gateway's clock is believed ([clock])",
                missing.undated
            ));
        }
        if missing.damaged > 0 {
            notes.push(format!("{} entries of the journal are damaged and not declared lost yet; see `forebay journal verify`", missing.damaged));
        }
        if missing.unread > 0 {
            notes.push(format!(
                "{:?} lacks so much that {} entries of the journal could not be read in time for this answer; ask for a shorter time or one device, or when it has caught up",
                self.audience.name, missing.unread
            ));
        }
        notes.extend(missing.failed.clone());
    }

    /// Puts what the store has below what is in the table.
    fn stored(
        &self,
        query: &Query,
        table: &mut Table<Held>,
        limit: usize,
        notes: &mut Vec<String>,
        deadline: Instant,
    ) -> Result<(), String> {
        match &self.store {
            Store::Embedded(store) => {
                let is_there = store.each(query, deadline, |ns, series, fields| {
                    if ns >= table.end_ns() {
                        return ControlFlow::Break(());
                    }
                    for (name, value) in fields.into_iter().filter(|(name, _)| query.wants(name)) {
                        table.put((ns, series), &name, Held { offset: None, value });
                    }
                    ControlFlow::Continue(())
                })?;
                self.expect_file(is_there)
            }
            Store::Influxql(database) => {
                let conversation = database.talk(deadline)?;
                for measurement in conversation.measurements(query, notes)? {
                    let times = (query.from_ns, table.end_ns());
                    let (found, end_ns) = conversation.points(&measurement, query, times, limit + 1)?;
                    for Found { ns, series, fields } in found {
                        for (name, value) in fields {
                            table.put((ns, series.as_str()), &name, Held { offset: None, value });
                        }
                    }
                    end_ns.into_iter().for_each(|end_ns| table.crowd(end_ns));
                }
                Ok(())
            }
        }
    }

    /// A file that is not there is no fault as long as nothing was stored in it.
    fn expect_file(&self, is_there: bool) -> Result<(), String> {
        if is_there || self.cursor() == Offset(0) {
            return Ok(());
        }
        Err("the file of the embedded store is not there; what was in it is not shown".to_owned())
    }

    fn cursor(&self) -> Offset {
        self.journal.with_state(|state| state.cursor(&self.audience.name)).unwrap_or_default()
    }
}

impl Table<Held> {
    /// Puts a value into a field, unless a later one is there.
    fn put(&mut self, at: (i64, &str), name: &str, held: Held) {
        let bytes = if let Value::Text(text) = &held.value { text.len() } else { 0 };
        self.merge(at, name, (held, bytes), |known, held| {
            // Of equals, as a row with a field twice would have them, the last counts.
            let replaces = held.offset >= known.offset;
            if replaces {
                *known = held;
            }
            if replaces { bytes } else { 0 }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
