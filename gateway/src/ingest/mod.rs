//! In: submissions, parsed rows of foreign devices, or rows of native ones, dated in steady nanoseconds, and gaps.
//! Out: journal entries with frozen identity, series and time (`dating.rs`); the receipt is the offset to wait for.
//! Next: `journal/writer.rs`.
//!
//! Every decision is taken under the journal's lock, from the state that the journal's entries add up to, and becomes
//! part of that state in the same step. So no row is journaled twice, however many connections a device has, and a
//! time once given is never given again.

pub mod clock_map;
mod dating;
pub mod exchange;
pub mod identity;
mod points;
mod redelivery;
#[cfg(test)]
mod tests;
pub mod timestamp;

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_shared::ids::{Boot, LongSeq};
use forebay_shared::message::{GapCause, Hello};
use thiserror::Error;
use tracing::warn;

use crate::dead_letters::{INTAKE_BODY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::journal::entry::{
    Cause, DeviceEntry, Entry, Fields, GapEntry, LetterEntry, MessageEntry, RowEntry,
};
use crate::journal::state::{BootState, DeviceState, NewAccounts, OTHERS, State};
use crate::journal::{Class, Journal, Refused, Submission};
use crate::record::{Offset, PointError, Row, SeriesKey, Value, check_name};
use crate::source::payload::{Parsed, Refusal, UNKNOWN_DEVICE};
use crate::stats::{RateLimit, Stats};

pub use dating::OwnClock;

use dating::Dating;
use identity::{Named, Naming};
use points::Points;
use redelivery::{PointKey, Redelivery};

/// Measurement of the points that tell of gaps.
pub const GAP_MEASUREMENT: &str = "forebay_gap";

/// The one door into the journal for everything that sources bring.
pub struct Ingest {
    journal: Journal,
    naming: Naming,
    stats: Arc<Stats>,
    clock: OwnClock,
    redelivery: Mutex<Redelivery>,
    /// Devices without an account are named now and then.
    strangers: Mutex<RateLimit>,
    /// The latest stamp that rows beside the present hang on.
    last_base: AtomicI64,
}

/// Where a submission came from, and what it was before it was read.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// A topic, a port, a device.
    pub name: &'a str,
    /// The bytes as they came, perhaps only their beginning.
    pub payload: &'a [u8],
    /// How many there were.
    pub bytes: usize,
}

impl<'a> Origin<'a> {
    /// Of something whose bytes are all there.
    #[must_use]
    pub const fn whole(name: &'a str, payload: &'a [u8]) -> Origin<'a> {
        Origin { name, payload, bytes: payload.len() }
    }
}

/// How a foreign message came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When, in nanoseconds of the steady clock.
    pub received_ns: i64,
    /// Whether its sender marks it as sent before.
    pub again: bool,
    /// What its repetition is known by, where anything but its points' own times is needed for that.
    pub message: Option<MessageEntry>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The submission is durable once the watermark has reached this.
    pub receipt: Offset,
    /// Rows journaled.
    pub rows: u64,
}

/// A native device as intake knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Chip id in lower-case hex.
    pub device: String,
    /// Value of the tag `device`.
    pub name: String,
    /// The boot that its rows are numbered in.
    pub boot: Boot,
    /// Sequence of the next row that is not journaled.
    pub next: LongSeq,
    /// The boot's latest row in steady nanoseconds; `i64::MIN` if it is not known where that lies.
    pub last_ns: i64,
    /// What makes steady nanoseconds those since 1970, unless the gateway's clock is not believed.
    pub offset_ns: Option<i64>,
    /// Everything below `next` is durable once the watermark has reached this.
    pub receipt: Offset,
}

/// What a native device's block says.
#[derive(Clone, Debug, PartialEq)]
pub enum NativeRow {
    /// A row.
    Sample {
        /// Position of its group in the schema.
        group: usize,
        /// Nanoseconds of the steady clock.
        ns: i64,
        /// Names and values; empty if none of the values can be stored.
        fields: Vec<(String, Value)>,
    },
    /// Rows that were lost before they came to a block.
    Lost {
        /// How many, not zero.
        rows: u32,
        /// Why.
        cause: Cause,
    },
}

impl NativeRow {
    /// How many numbers of the device it has.
    #[must_use]
    pub fn numbers(&self) -> u64 {
        match self {
            NativeRow::Sample { .. } => 1,
            NativeRow::Lost { rows, .. } => u64::from(*rows),
        }
    }
}

/// Why a native device's rows are not taken.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The journal takes nothing now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another connection of the device got further, or the boot is closed: the session has to begin anew.
    #[error("the device's rows continue at {expected}, and this connection brings {got}")]
    OutOfStep {
        /// Where the journal is.
        expected: u64,
        /// Where the connection is.
        got: u64,
    },
    /// The device has begun so many boots since that this one is forgotten.
    #[error("the device's boot is closed")]
    Closed,
}

/// Why a native device is not admitted.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// The journal takes nothing now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The journal knows as many devices as it may.
    #[error("there is no room for another device; raise [journal] max_bytes")]
    DeviceLimit,
    /// The system gives no random numbers.
    #[error("cannot choose a boot: {0}")]
    NoRandomness(getrandom::Error),
}

impl Ingest {
    /// A door into `journal`, with the names of the configuration.
    #[must_use]
    pub fn new(journal: Journal, naming: Naming, stats: Arc<Stats>, clock: OwnClock) -> Ingest {
        let redelivery = Mutex::new(Redelivery::of(&journal));
        let strangers = Mutex::new(RateLimit::once_a_minute());
        let last_base = AtomicI64::new(i64::MIN);
        Ingest { journal, naming, stats, clock, redelivery, strangers, last_base }
    }

    /// The journal behind the door.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The configured names.
    #[must_use]
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Takes what one foreign message became: its rows, and a letter for what could not be read, in one submission.
    /// Rows without a time of their own get that of their receipt, or the next free nanosecond, or lie as long before that as
    /// they say. Of a message that the broker marks as sent again, points with a time of their own that are journaled already
    /// are left out; its receipt covers them. What else it brings is journaled with what its repetition will be known by.
    ///
    /// # Errors
    /// The journal takes nothing now; the message is to be held and tried again, except when it is too large.
    pub fn foreign(&self, parsed: &Parsed, origin: Origin<'_>, arrival: Arrival) -> Result<Taken, Refused> {
        let dating = self.dating(arrival.received_ns);
        let mut redelivery = self.redelivery.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Option<PointKey>> = parsed.rows.iter().map(|row| redelivery.key_of(row)).collect();
        let mut points = Points::default();
        let ((rows, stranger), receipt) = self.journal.submit(Class::Foreign, |state, submission| {
            let mut dating = dating(state);
            let (mut rows, mut stranger) = (0, None);
            let mut numbers = Numbers::default();
            for (row, key) in parsed.rows.iter().zip(&keys) {
                if arrival.again && key.is_some_and(|key| redelivery.knows(key)) {
                    continue;
                }
                let (account, number) = numbers.next(state, &row.device);
                if account != row.device {
                    stranger = Some(row.device.as_str());
                }
                match row.timestamp.zip(*key) {
                    Some((ns, key)) => {
                        points.take(&mut redelivery, key, account, state);
                        submission.add(&Entry::Row(foreign_row(row, account, number, ns)))?;
                    }
                    None => {
                        let ns = dating.stamp_beside(row.offset_ns, &self.last_base);
                        dating.add_row(submission, foreign_row(row, account, number, ns))?;
                    }
                }
                rows += 1;
            }
            points.shared().try_for_each(|shared| submission.add(&Entry::Shared(shared)))?;
            if let Some(refusal) = &parsed.refused {
                let device = self.refused_device(refusal);
                let account = state.account(device, &mut numbers.new);
                submission.add(&letter(account, refusal.rows, &refusal.reason, origin, dating.wall_ns()))?;
            }
            if let Some(message) = arrival.message {
                submission.add(&Entry::Message(message))?;
            }
            Ok::<_, Refused>((rows, stranger))
        })?;
        if let Some(device) = stranger {
            self.name_stranger(device);
        }
        points.remember(&mut redelivery);
        Ok(Taken { receipt, rows })
    }

    fn name_stranger(&self, device: &str) {
        let mut limit = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = limit.allow(crate::clock::monotonic()) {
            warn!(
                "the journal has no room for an account of the device {device:.64?} ({more} more rows like its since the last word): its rows are stored, and counted together with those of others in \"{OTHERS}\"; raise [journal] max_bytes, or see whether {{device}} stands for something that changes all the time"
            );
        }
    }

    /// Remembers something of a broker's session beside its messages: that it begins, or how far its numbers are.
    ///
    /// # Errors
    /// The journal takes nothing now.
    pub fn remember(&self, entry: MessageEntry) -> Result<Offset, Refused> {
        let entry = Entry::Message(entry);
        let remembered = self.journal.submit(Class::Foreign, |_, submission| submission.add(&entry))?;
        Ok(remembered.1)
    }

    fn refused_device<'a>(&'a self, refusal: &'a Refusal) -> &'a str {
        if refusal.device == UNKNOWN_DEVICE {
            return UNKNOWN_DEVICE;
        }
        self.naming.foreign(&refusal.device).tag
    }

    fn push_gap(
        &self,
        submission: &mut Submission<'_>,
        dating: &mut Dating,
        device: &str,
        named: Option<&Named<'_>>,
        lost: Lost,
    ) -> Result<(), Refused> {
        let series = self.naming.gap_series(named, lost.cause);
        let gap = GapEntry {
            device,
            boot: lost.boot,
            from: lost.from,
            to: lost.to,
            count: lost.to.saturating_sub(lost.from),
            cause: lost.cause,
            sink: None,
            stamped: true,
            series: &series,
            ns: dating.stamp(),
        };
        dating.add_gap(submission, gap)
    }

    /// Looks a native device up at its `Hello`: continues its boot, adopts one that another journal assigned, or
    /// assigns a new one and closes the one before.
    ///
    /// # Errors
    /// The journal takes nothing now, or knows as many devices as it may.
    pub fn admit(&self, hello: &Hello, now_ns: i64) -> Result<Admission, AdmitError> {
        let device = hello.chip.to_string();
        let dating = self.dating(now_ns);
        let (mut admission, receipt) = self.journal.submit(Class::Native, |state, submission| {
            if !state.has_room_for_native(&device) {
                return Err(AdmitError::DeviceLimit);
            }
            let mut dating = dating(state);
            let name = self.native_name(state, &device, &hello.name);
            let known = state.device(&device);
            let offset_ns = dating.offset_ns();
            let admission = |name, boot, next, last_ns| {
                let (device, receipt) = (device.clone(), Offset(0));
                Admission { device, name, boot, next, last_ns, offset_ns, receipt }
            };
            let present = hello.boot.and_then(|boot| Some((boot, known?, known?.boot(boot.get())?)));
            if let Some((boot, known, at)) = present {
                let last_ns = self.last_steady_ns(known, at, offset_ns);
                return Ok(admission(name, boot, LongSeq(at.next), last_ns));
            }
            if let Some(lost) = self.lost_with_reset(&device, known) {
                let named = self.naming.native(&device, &name);
                self.push_gap(submission, &mut dating, &device, Some(&named), lost)?;
            }
            let boot = match hello.boot {
                Some(boot) => boot,
                None => new_boot(known)?,
            };
            let next = LongSeq(u64::from(hello.oldest.0));
            submission.add(&Entry::Device(DeviceEntry {
                device: &device,
                name: &name,
                boot: boot.get(),
                first: next.0,
            }))?;
            Ok(admission(name, boot, next, i64::MIN))
        })?;
        admission.receipt = receipt;
        Ok(admission)
    }

    /// Where the latest row of a device's boot lies on the steady clock, if that can be told.
    fn last_steady_ns(&self, known: &DeviceState, at: BootState, offset_ns: Option<i64>) -> i64 {
        let early = known.early.filter(|early| early.boot == at.boot && early.machine == self.clock.machine);
        let dated = offset_ns.filter(|_| at.last_ns != i64::MIN);
        early.map(|early| early.ns).or(dated.map(|ns| at.last_ns.saturating_sub(ns))).unwrap_or(i64::MIN)
    }

    /// What the closed boot had told of and never handed over: at least this much went with the device's memory.
    fn lost_with_reset(&self, device: &str, known: Option<&DeviceState>) -> Option<Lost> {
        let last = known?.boots.last()?;
        let told = self.stats.told(device).filter(|told| told.boot == last.boot)?;
        let lost = Lost { boot: last.boot, from: last.next, to: told.next, cause: Cause::DeviceReset };
        (lost.from < lost.to).then_some(lost)
    }

    /// The tag of a native device. A second chip that announces a name in use is told apart by its last four digits.
    fn native_name(&self, state: &State, device: &str, announced: &str) -> String {
        let announced = if check_name("device name", announced).is_ok() { announced } else { "" };
        let named = self.naming.native(device, announced);
        let taken = state
            .devices()
            .iter()
            .any(|other| other.native && *other.key != *device && *other.name == *named.tag);
        if !taken {
            return named.tag.to_owned();
        }
        let last_four = device.get(device.len().saturating_sub(4)..).unwrap_or(device);
        let name = format!("{}-{last_four}", named.tag);
        warn!(
            device,
            "another device is named {:?}; this one is stored as {name:?}; name it in [devices.{device:?}]",
            named.tag
        );
        name
    }

    /// The series of one of a native device's groups.
    ///
    /// # Errors
    /// The group's name cannot be a measurement.
    pub fn native_series(&self, admission: &Admission, group: &str) -> Result<SeriesKey, PointError> {
        let named = self.naming.native(&admission.device, &admission.name).renamed(&admission.name);
        self.naming.series(group, Some(&named), Vec::new())
    }

    /// Takes rows of a native device, the first of which is number `first` of the admitted boot. Rows that are
    /// journaled already are left out.
    ///
    /// # Errors
    /// The journal takes nothing now, or the rows do not continue where the journal stands.
    pub fn native_rows(
        &self,
        admission: &Admission,
        series: &[SeriesKey],
        first: LongSeq,
        rows: &[NativeRow],
        now_ns: i64,
    ) -> Result<Taken, NativeError> {
        let dating = self.dating(now_ns);
        let (taken, receipt) = self.journal.submit(Class::Native, |state, submission| {
            let mut dating = dating(state);
            let known = expected(state, admission, first.0)?;
            let (mut taken, mut sequence, boot) = (0, first.0, admission.boot.get());
            for row in rows {
                let (from, to) = (sequence, sequence + row.numbers());
                sequence = to;
                if to <= known {
                    continue;
                }
                let lost = |cause| Lost { boot, from: from.max(known), to, cause };
                let lost = match row {
                    NativeRow::Lost { cause, .. } => lost(*cause),
                    NativeRow::Sample { group, ns, fields } => match series.get(*group) {
                        Some(series) if !fields.is_empty() => {
                            taken += 1;
                            let row = RowEntry {
                                device: &admission.device,
                                boot,
                                sequence: from,
                                stamped: false,
                                series: series.as_str(),
                                ns: dating.ns(*ns),
                                fields: Fields::of(fields),
                            };
                            dating.add_row(submission, row)?;
                            continue;
                        }
                        _ => lost(Cause::Unparseable),
                    },
                };
                self.push_native_gap(submission, &mut dating, admission, lost)?;
            }
            Ok::<_, NativeError>(taken)
        })?;
        Ok(Taken { receipt, rows: taken })
    }

    /// Takes a block of a native device that cannot be decoded: its rows are a gap, and its bytes are kept.
    ///
    /// # Errors
    /// The journal takes nothing now, or the rows do not continue where the journal stands.
    pub fn native_undecodable(
        &self,
        admission: &Admission,
        (from, to): (LongSeq, LongSeq),
        reason: &str,
        origin: Origin<'_>,
        now_ns: i64,
    ) -> Result<Taken, NativeError> {
        let dating = self.dating(now_ns);
        let ((), receipt) = self.journal.submit(Class::Native, |state, submission| {
            let (boot, cause) = (admission.boot.get(), Cause::Unparseable);
            let lost = Lost { boot, from: expected(state, admission, from.0)?, to: to.0, cause };
            if lost.from < lost.to {
                let mut dating = dating(state);
                self.push_native_gap(submission, &mut dating, admission, lost)?;
                submission.add(&letter(&admission.device, 0, reason, origin, dating.wall_ns()))?;
            }
            Ok::<_, NativeError>(())
        })?;
        Ok(Taken { receipt, rows: 0 })
    }

    /// Takes a range of rows that a native device has lost.
    ///
    /// # Errors
    /// The journal takes nothing now, or the range does not continue where the journal stands.
    pub fn native_gap(
        &self,
        admission: &Admission,
        from: LongSeq,
        to: LongSeq,
        cause: Cause,
        now_ns: i64,
    ) -> Result<Taken, NativeError> {
        let dating = self.dating(now_ns);
        let ((), receipt) = self.journal.submit(Class::Native, |state, submission| {
            let lost = Lost {
                boot: admission.boot.get(),
                from: expected(state, admission, from.0)?,
                to: to.0,
                cause,
            };
            if lost.from < lost.to {
                self.push_native_gap(submission, &mut dating(state), admission, lost)?;
            }
            Ok::<_, NativeError>(())
        })?;
        Ok(Taken { receipt, rows: 0 })
    }

    fn push_native_gap(
        &self,
        submission: &mut Submission<'_>,
        dating: &mut Dating,
        admission: &Admission,
        lost: Lost,
    ) -> Result<(), Refused> {
        let named = self.naming.native(&admission.device, &admission.name).renamed(&admission.name);
        self.push_gap(submission, dating, &admission.device, Some(&named), lost)
    }
}

/// A range of lost rows.
#[derive(Clone, Copy)]
struct Lost {
    boot: u32,
    from: u64,
    to: u64,
    cause: Cause,
}

/// Where the journal stands in the admitted boot, given that the connection brings rows from `first` on.
fn expected(state: &State, admission: &Admission, first: u64) -> Result<u64, NativeError> {
    let boot = state.device(&admission.device).and_then(|device| device.boot(admission.boot.get()));
    match boot {
        Some(boot) if first <= boot.next => Ok(boot.next),
        Some(boot) => Err(NativeError::OutOfStep { expected: boot.next, got: first }),
        None => Err(NativeError::Closed),
    }
}

/// A random boot that the journal has not known for this device.
fn new_boot(known: Option<&DeviceState>) -> Result<Boot, AdmitError> {
    loop {
        let random = getrandom::u32().map_err(AdmitError::NoRandomness)?;
        let fresh = known.is_none_or(|known| known.boot(random).is_none());
        if let Some(boot) = Boot::new(random).filter(|_| fresh) {
            return Ok(boot);
        }
    }
}

/// The journal's word for a device's cause.
#[must_use]
pub fn cause_of(cause: GapCause) -> Cause {
    match cause {
        GapCause::DEVICE_RESET => Cause::DeviceReset,
        GapCause::FORGOTTEN => Cause::Damaged,
        GapCause::OVERRUN => Cause::Overrun,
        GapCause::SENSOR => Cause::Sensor,
        GapCause::RESET => Cause::Reset,
        // A newer device may know more causes; what they have in common is that the device could not keep the rows.
        _ => Cause::Overflow,
    }
}

/// Accounts and numbers of the rows of one submission: those of an account follow one another, so that a hole in the
/// journal shows whose rows it held.
#[derive(Default)]
struct Numbers<'a> {
    new: NewAccounts,
    /// The device of the first row, its account, and the number of the next row: most messages have one device.
    first: Option<(&'a str, &'a str, u64)>,
    accounts: HashMap<&'a str, &'a str>,
    next: HashMap<&'a str, u64>,
}

impl<'a> Numbers<'a> {
    fn next(&mut self, state: &State, device: &'a str) -> (&'a str, u64) {
        if self.first.is_none() {
            let account = state.account(device, &mut self.new);
            self.first = Some((device, account, state.next_number(account)));
        }
        let account = match self.first {
            Some((known, account, _)) if known == device => account,
            _ => *self.accounts.entry(device).or_insert_with(|| state.account(device, &mut self.new)),
        };
        let next = match &mut self.first {
            Some((_, first, next)) if *first == account => next,
            _ => self.next.entry(account).or_insert_with(|| state.next_number(account)),
        };
        *next += 1;
        (account, *next - 1)
    }
}

/// An entry for what could not be read, shortened to what is kept of it.
fn letter<'a>(device: &'a str, rows: u64, reason: &'a str, origin: Origin<'a>, ns: i64) -> Entry<'a> {
    let body_bytes = origin.bytes as u64;
    let body = &origin.payload[..origin.payload.len().min(INTAKE_BODY_BYTES_MAX)];
    let (origin, reason) = (cut(origin.name), cut(reason));
    Entry::Letter(LetterEntry { device, rows, ns, origin, reason, body_bytes, body })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

fn foreign_row<'a>(row: &'a Row, device: &'a str, sequence: u64, ns: i64) -> RowEntry<'a> {
    RowEntry {
        device,
        boot: 0,
        sequence,
        stamped: row.timestamp.is_none() && row.offset_ns >= 0,
        series: row.series.as_str(),
        ns,
        fields: Fields::of(&row.fields),
    }
}
