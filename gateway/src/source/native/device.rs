//! A native device that was let in: what it calls its channels, how its ticks lie in time, and what of it is on its way.
//!
//! In: blocks and lost ranges, in order. Out: rows with series and steady nanosecond, handed to `ingest/mod.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_shared::block::{Block, BlockBytes, BlockError, Row};
use forebay_shared::ids::{LongSeq, Millis, SchemaId, Tick};
use forebay_shared::reading::{Physical, Schema, SchemaBuilder};

use super::super::Reporter;
use super::Now;
use super::clocks::DeviceClock;
use super::margin::Margin;
use crate::clock;
use crate::ingest::clock_map::Front;
use crate::ingest::exchange::Exchanges;
use crate::ingest::timestamp::stamp;
use crate::ingest::{Admission, Ingest, NativeError, NativeRow, Origin, Taken, cause_of};
use crate::journal::Refused;
use crate::journal::entry::Cause;
use crate::record::{Offset, SeriesKey, Value};

/// A device that was let in.
pub(super) struct Device {
    pub(super) admission: Admission,
    pub(super) builder: Option<Box<SchemaBuilder>>,
    pub(super) schema: Option<(Arc<Schema>, Vec<SeriesKey>)>,
    pub(super) exchanges: Exchanges,
    pub(super) clock: Arc<DeviceClock>,
    /// Time of the latest row of each group, in steady nanoseconds.
    pub(super) last_ns: Vec<i64>,
    pub(super) waiting: VecDeque<Waiting>,
    /// When what waits is tried again.
    pub(super) retry_at: Option<Millis>,
    /// It was given credit since the clock was asked.
    pub(super) has_credit: bool,
    pub(super) margin: Margin,
    pub(super) releases: VecDeque<Release>,
}

/// A range of rows, or of lost rows, on its way to the journal.
pub(super) struct Waiting {
    pub(super) from: LongSeq,
    pub(super) to: LongSeq,
    pub(super) what: Lot,
}

pub(super) enum Lot {
    /// A sealed block, of which the first rows came before.
    Block {
        skip: u32,
        bytes: Box<BlockBytes>,
    },
    Lost(Cause),
}

pub(super) fn new_exchanges() -> Exchanges {
    // Without randomness the clock is as good a source of tokens that were not used lately.
    Exchanges::new(getrandom::u32().unwrap_or_else(|_| clock::monotonic().subsec_nanos()))
}

/// Rows before `to` may be released once `receipt` is durable.
pub(super) struct Release {
    pub(super) receipt: Offset,
    pub(super) to: LongSeq,
    pub(super) rows: u64,
}

impl Device {
    pub(super) fn tell_of_ring(&self, trouble: Option<String>, reporter: &Reporter) {
        if let Some(trouble) = trouble {
            reporter.trouble(
                "ring",
                &format!("device {} ({}): {trouble}", self.admission.name, self.admission.device),
            );
        }
    }

    pub(super) fn can_date(&self) -> bool {
        self.exchanges.burst_is_over() && self.schema.is_some()
    }

    /// Takes the answer to a question for the tick. Returns the shortest round trip so far in nanoseconds, and by how much
    /// the device's seconds are longer than ours in parts per billion, if it was one of ours.
    pub(super) fn handle_time(&mut self, now: Now, token: u32, tick: Tick) -> Option<(i64, f64)> {
        let exchange = self.exchanges.handle_reply(now.ms.0, now.steady_ns, token, tick)?;
        let mut clock = self.clock.lock();
        clock.map.handle_exchange(exchange);
        self.exchanges.set_pace(now.ms.0, clock.map.rate().sigma_ppb);
        clock.map.round_trip_ns().zip(Some(clock.map.rate().ppb))
    }

    pub(super) fn hand_over(
        &mut self,
        ingest: &Ingest,
        waiting: &Waiting,
        now: Now,
        reporter: &Reporter,
    ) -> Result<Release, NativeError> {
        let Waiting { from, to, .. } = *waiting;
        let taken = match &waiting.what {
            Lot::Lost(cause) => ingest.native_gap(&self.admission, from, to, *cause, now.steady_ns)?,
            Lot::Block { skip, bytes } => match self.date(now, *skip, bytes) {
                Ok(dated) => {
                    let taken = self.take_rows(ingest, &dated, from, &dated.rows, now)?;
                    // Only what was taken counts as given: a refused block is dated anew when it is tried again.
                    let Dated { front, last_ns, .. } = dated;
                    self.last_ns = last_ns;
                    self.clock.lock().advance(front);
                    taken
                }
                Err(e) => {
                    let device = &self.admission.device;
                    reporter.stats().bad_messages.add(1);
                    reporter.loss("block", &format!("a block of device {device} cannot be decoded: {e}"));
                    let origin = Origin::whole(reporter.name(), &bytes.bytes);
                    ingest.native_undecodable(
                        &self.admission,
                        (from, to),
                        &e.to_string(),
                        origin,
                        now.steady_ns,
                    )?
                }
            },
        };
        Ok(Release { receipt: taken.receipt, to, rows: taken.rows })
    }

    /// Hands rows to intake: all at once, or where that is too large for the journal, in halves. What was taken of them is
    /// not taken again when the rest is tried later.
    fn take_rows(
        &self,
        ingest: &Ingest,
        dated: &Dated<'_>,
        from: LongSeq,
        rows: &[NativeRow],
        now: Now,
    ) -> Result<Taken, NativeError> {
        match ingest.native_rows(&self.admission, dated.series, from, rows, now.steady_ns) {
            Err(NativeError::Refused(Refused::TooLarge { .. })) if rows.len() > 1 => {
                let (before, behind) = rows.split_at(rows.len() / 2);
                let first = self.take_rows(ingest, dated, from, before, now)?;
                let from = from.plus(before.iter().map(NativeRow::numbers).sum());
                let last = self.take_rows(ingest, dated, from, behind, now)?;
                // The later receipt covers the earlier one.
                Ok(Taken { receipt: last.receipt, rows: first.rows + last.rows })
            }
            taken => taken,
        }
    }

    /// Decodes a block and dates its rows, each group's strictly after the one before. The first `skip` numbers came
    /// before.
    fn date(&self, now: Now, skip: u32, block: &BlockBytes) -> Result<Dated<'_>, BlockError> {
        let clock = self.clock.lock();
        let (mut front, mut last_ns) = (clock.front, self.last_ns.clone());
        let Some((schema, series)) = &self.schema else {
            return Ok(Dated { rows: Vec::new(), front, last_ns, series: &[] });
        };
        let block = Block::parse(block.form, &block.bytes)?;
        let first = block.first().plus(skip);
        let mut rows = Vec::new();
        for row in block.rows(schema).collect::<Result<Vec<_>, _>>()? {
            let row = match row {
                Row::Sample(row) if row.seq.is_before(first) => continue,
                Row::Sample(row) => row,
                Row::Lost { from, to, cause } => {
                    let from = from.max(first);
                    if from.is_before(to) {
                        rows.push(NativeRow::Lost { rows: from.rows_until(to), cause: cause_of(cause) });
                    }
                    continue;
                }
            };
            let group = usize::from(row.group.0);
            let latest_ns = now.steady_ns.saturating_add(AHEAD_NS);
            let mut ns = clock.map.date(front, row.tick).min(latest_ns);
            front.advance(row.tick, ns);
            if let Some(last) = last_ns.get_mut(group) {
                ns = stamp(*last, ns);
                *last = ns;
            }
            let channels = schema.group(row.group).unwrap_or_default();
            let fields = row.values.iter().filter_map(|(at, value)| {
                let channel = channels.get(usize::from(*at))?;
                let value = match value.physical(channel.scale) {
                    Physical::Bool(value) => Value::Boolean(value),
                    Physical::Integer(value) => Value::Integer(value),
                    Physical::Float(value) if value.is_finite() => Value::Float(value),
                    Physical::Float(_) => return None,
                };
                Some((channel.channel.as_str().to_owned(), value))
            });
            rows.push(NativeRow::Sample { group, ns, fields: fields.collect() });
        }
        Ok(Dated { rows, front, last_ns, series })
    }
}

/// No row was sampled after it came; so far one may seem to be, since the clocks are not exactly known to each other. What
/// a faulty device says beyond that must not go into the time of others.
const AHEAD_NS: i64 = 5_000_000_000;

/// A decoded block.
struct Dated<'a> {
    rows: Vec<NativeRow>,
    front: Front,
    last_ns: Vec<i64>,
    series: &'a [SeriesKey],
}

/// Schemas by device, so that a device that comes back need not describe itself again; equal ones are kept once.
#[derive(Debug, Default)]
pub struct Schemas(Mutex<HashMap<String, (SchemaId, Arc<Schema>)>>);

impl Schemas {
    pub(super) fn get(&self, device: &str, id: SchemaId) -> Option<Arc<Schema>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(device).filter(|(of, _)| *of == id).map(|(_, schema)| Arc::clone(schema))
    }

    /// Only devices that the journal admitted come here, so the journal's limit on devices bounds the map.
    pub(super) fn insert(&self, device: &str, id: SchemaId, schema: Schema) -> Arc<Schema> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.values().find(|(of, other)| *of == id && **other == schema);
        let schema = same.map_or_else(|| Arc::new(schema), |(_, same)| Arc::clone(same));
        known.insert(device.to_owned(), (id, Arc::clone(&schema)));
        schema
    }
}
