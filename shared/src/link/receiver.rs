//! The gateway's half of the link: one per connection and device.
//!
//! *In:* messages of a device. *Out:* its rows, each once, in order. *Next:* the gateway's `ingest/mod.rs`.
//!
//! Constraints: no allocation, no clock. Blocks beyond a hole are held here, at most [`WINDOW_BLOCKS`] of
//! them, and acknowledged by ranges. So rows come up strictly in order: one number per device and boot
//! tells what is a repetition, and timestamps never run backward. A held block is never given up, since
//! the device does not send it again.
//!
//! Operation: after [`Receiver::handle`], drain [`Receiver::poll_event`], then
//! [`Receiver::poll_transmit`]. Acknowledgements wait a few milliseconds, so that one of them covers
//! several blocks and often their release too; a hole, a repetition or a question is answered at once.
//!
//! Failure: what is damaged or out of place changes nothing, is an error to the caller, and is answered
//! with `Reject` where that helps. Data without a welcome, or with another boot, is refused; the device
//! then says `Hello`.

use core::fmt;

use super::bugs::{Bug, seeded};
use super::session::{Intake, Session};
use super::{ACK_DELAY_MS, WINDOW_BLOCKS};
use crate::block::{BlockBytes, BlockError};
use crate::ids::{Boot, Epoch, LongSeq, Millis, Tick, Token};
use crate::message::{
    Birth, Body, FromDevice, GapCause, Hello, Message, MessageError, Reject, RejectCode, Status, TimeRequest,
    WIRE_VERSION,
};

/// What the gateway's half has to say to its host.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A device asks to be let in: look it up, then call [`Receiver::welcome`].
    Hello(Hello),
    /// One channel of the device's schema: put them together in a
    /// [`SchemaBuilder`](crate::reading::SchemaBuilder), then call [`Receiver::births_complete`].
    Birth(Birth),
    /// The next rows in order, with no hole to what came before.
    Rows {
        /// The first new row.
        from: LongSeq,
        /// One past the last row.
        to: LongSeq,
        /// How many numbers at the front of the block came up before.
        skip: u32,
        /// The sealed block, of which only the header has been checked.
        block: BlockBytes,
    },
    /// The next rows in order are lost.
    Gap {
        /// The first lost row.
        from: LongSeq,
        /// One past the last lost row.
        to: LongSeq,
        /// Why.
        cause: GapCause,
    },
    /// The answer to [`Receiver::request_time`].
    TimeReply {
        /// The one of the request.
        token: Token,
        /// The device's tick at the time of its answer.
        tick: Tick,
    },
    /// How things stand on the device.
    Status(Status),
}

/// On what terms a device is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The numbering of its rows: its own if it has one, else one that was never used for it.
    pub boot: Boot,
    /// What the host has of this boot; nothing where it never saw it.
    pub known: Option<Known>,
    /// Whether the host lacks the schema.
    pub wants_birth: bool,
    /// Blocks that may be outstanding; see [`Receiver::set_credit`].
    pub credit: u8,
}

/// How far the host has come with a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// One past the last row that it was ever handed, durable or not.
    pub next: LongSeq,
    /// One past the last row before which all are durable; at most `next`.
    pub released: LongSeq,
}

/// What happened so far, for the operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that had come before.
    pub duplicate_blocks: u64,
    /// Blocks for which there was no room; the device sends them again.
    pub dropped_blocks: u64,
    /// Messages that were refused.
    pub errors: u64,
}

/// The gateway's half of the link. See the [module](self).
#[derive(Debug)]
pub struct Receiver {
    epoch: Epoch,
    hello: Option<Hello>,
    session: Option<Session>,
    event: Option<Event>,
    reject: Option<Reject>,
    counters: Counters,
}

impl Receiver {
    /// A connection on which nothing has been said, in the gateway's life `epoch`.
    pub const fn new(epoch: Epoch) -> Self {
        let counters = Counters { duplicate_blocks: 0, dropped_blocks: 0, errors: 0 };
        Self { epoch, hello: None, session: None, event: None, reject: None, counters }
    }

    /// Takes one message of the device. Drain [`poll_event`](Self::poll_event) before the next one.
    ///
    /// # Errors
    ///
    /// The message was refused, and nothing but the error count has changed.
    pub fn handle(&mut self, now: Millis, message: &[u8]) -> Result<(), LinkError> {
        let result = self.dispatch(now, message);
        if let Err(error) = result {
            self.counters.errors += 1;
            if let Some(reject) = error.reject(message.first().copied().unwrap_or_default()) {
                self.reject = Some(reject);
            }
        }
        result
    }

    /// Lets the device in, as the answer to [`Event::Hello`].
    ///
    /// # Errors
    ///
    /// There was no `Hello`; the device has another boot; or the device counts fewer rows than are
    /// known of this boot, so that its numbers can no longer be trusted.
    pub fn welcome(&mut self, now: Millis, terms: Terms) -> Result<(), LinkError> {
        let hello = self.hello.as_ref().ok_or(LinkError::NotWelcomed)?;
        if hello.boot.is_some_and(|boot| boot != terms.boot) {
            return Err(LinkError::WrongBoot);
        }
        self.session = Some(Session::new(now, hello, terms)?);
        Ok(())
    }

    /// Welcomes the device again on the present terms, so that it sends again whatever is missing: for a
    /// transport that was connected anew, or has stalled. Does nothing before the first welcome.
    pub fn welcome_again(&mut self, now: Millis) {
        if let Some(session) = &mut self.session {
            session.welcome_again(now);
        }
    }

    /// The host has the whole schema now.
    pub fn births_complete(&mut self, now: Millis) {
        if let Some(session) = &mut self.session {
            session.births = true;
            session.ack_by(now);
        }
    }

    /// Rows before `to` are durable: the device may let go of them.
    pub fn release(&mut self, now: Millis, to: LongSeq) {
        if let Some(session) = &mut self.session {
            let to = to.min(session.next);
            if to > session.released {
                session.released = to;
                session.ack_by(now.plus(ACK_DELAY_MS));
            }
        }
    }

    /// Lets the device have `credit` blocks outstanding beyond what is received, at most
    /// [`WINDOW_BLOCKS`]; zero stops it, as long as the clock is unknown or the journal is full.
    pub fn set_credit(&mut self, now: Millis, credit: u8) {
        if let Some(session) = &mut self.session {
            let credit = credit.min(WINDOW_BLOCKS);
            if session.credit != credit {
                session.credit = credit;
                session.ack_by(now);
            }
        }
    }

    /// Asks for the device's tick; the answer is [`Event::TimeReply`]. A later request replaces one that
    /// was not transmitted yet. Does nothing before the welcome.
    pub fn request_time(&mut self, token: Token) {
        if let Some(session) = &mut self.session {
            session.time_request = Some(token);
        }
    }

    /// Asks the device for its `Hello`. A host does so first of all on a serial line that it has opened: the device may
    /// believe that it is welcome still, or wait ever longer between its greetings.
    pub const fn ask_for_hello(&mut self) {
        self.reject(RejectCode::WRONG_BOOT, 0);
    }

    /// Tells the device that a message of `kind` was not accepted.
    pub const fn reject(&mut self, code: RejectCode, kind: u8) {
        self.reject = Some(Reject { code, kind });
    }

    /// The next thing that the host has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take().or_else(|| self.session.as_mut()?.advance())
    }

    /// The next message for the device, if one is due.
    pub fn poll_transmit(&mut self, now: Millis) -> Option<Message> {
        if let Some(reject) = self.reject.take() {
            return Some(reject.to_message());
        }
        let hello = self.hello.as_ref()?;
        let session = self.session.as_mut()?;
        if session.welcome_due {
            session.welcome_due = false;
            return Some(session.welcome(self.epoch, hello).to_message());
        }
        if let Some(token) = session.time_request.take() {
            return Some(TimeRequest { epoch: self.epoch, token }.to_message());
        }
        if session.ack_at.is_some_and(|at| at <= now) {
            session.ack_at = None;
            session.unacked_blocks = 0;
            return Some(session.ack(self.epoch).to_message());
        }
        None
    }

    /// When [`poll_transmit`](Self::poll_transmit) will have something to say, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let session = self.session.as_ref();
        if self.reject.is_some() || session.is_some_and(|s| s.welcome_due || s.time_request.is_some()) {
            return Some(Millis(0));
        }
        session?.ack_at
    }

    /// What the device said of itself last.
    pub const fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// The device's boot, once it is welcomed.
    pub fn boot(&self) -> Option<Boot> {
        self.session.as_ref().map(|session| session.boot)
    }

    /// The next row that the host will be handed, once the device is welcomed.
    pub fn next(&self) -> Option<LongSeq> {
        self.session.as_ref().map(|session| session.next)
    }

    /// One past the last row that the device is known to have numbered, once it is welcomed.
    pub fn learned(&self) -> Option<LongSeq> {
        self.session.as_ref().map(|session| session.learned)
    }

    /// Since when rows that the device has sent are missing without any progress, while it may send. Over
    /// MQTT the host then welcomes it [again](Self::welcome_again); over a serial line the device notices
    /// by itself.
    pub fn stalled_since(&self) -> Option<Millis> {
        let session = self.session.as_ref()?;
        if session.credit == 0 || seeded(Bug::NoStallNoticed) { None } else { session.missing_since }
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn dispatch(&mut self, now: Millis, message: &[u8]) -> Result<(), LinkError> {
        match FromDevice::parse(message)? {
            FromDevice::Hello(hello) => self.greet(now, hello)?,
            FromDevice::Birth(birth) => {
                self.adopted(None)?;
                self.event = Some(Event::Birth(birth));
            }
            FromDevice::Data(data) => match self.adopted(Some(data.boot))?.data(now, data)? {
                Intake::Taken => {}
                Intake::Duplicate => self.counters.duplicate_blocks += 1,
                Intake::Dropped => self.counters.dropped_blocks += 1,
            },
            FromDevice::Gap(gap) => self.adopted(Some(gap.boot))?.gap(now, gap)?,
            FromDevice::TimeReply(reply) => {
                self.adopted(None)?;
                self.event = Some(Event::TimeReply { token: reply.token, tick: reply.tick_now });
            }
            FromDevice::Status(status) => {
                self.adopted(Some(status.boot))?.status(now, status)?;
                self.event = Some(Event::Status(status));
            }
        }
        Ok(())
    }

    /// The session that a message belongs to. Only a device that has had its welcome sends one, so from
    /// now on a `Hello` without a boot comes from a later life.
    fn adopted(&mut self, boot: Option<Boot>) -> Result<&mut Session, LinkError> {
        let session = self.session.as_mut().ok_or(LinkError::NotWelcomed)?;
        if boot.is_some_and(|boot| boot != session.boot) {
            return Err(LinkError::WrongBoot);
        }
        session.adopted = true;
        Ok(session)
    }

    fn greet(&mut self, now: Millis, hello: Hello) -> Result<(), LinkError> {
        if !(hello.version_min..=hello.version_max).contains(&WIRE_VERSION) {
            return Err(LinkError::Version { min: hello.version_min, max: hello.version_max });
        }
        match (&mut self.session, &self.hello) {
            (Some(session), Some(before)) if session.continues(before, &hello) => {
                session.learned = session.learned.max(session.long(hello.next)?);
                session.welcome_again(now);
            }
            _ => {
                self.session = None;
                self.event = Some(Event::Hello(hello.clone()));
            }
        }
        self.hello = Some(hello);
        Ok(())
    }
}

/// Why a message, or a welcome, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// It cannot be read.
    Message(MessageError),
    /// The header of its block cannot be read.
    Block(BlockError),
    /// The device speaks none of our versions.
    Version {
        /// Oldest version that it speaks.
        min: u8,
        /// Newest version that it speaks.
        max: u8,
    },
    /// The device has not said `Hello`, or was not let in yet.
    NotWelcomed,
    /// The device has another boot than it was welcomed with.
    WrongBoot,
    /// Its row numbers do not go with what is known.
    Sequence,
}

impl LinkError {
    /// What the device is told: mostly to say `Hello` again, which clears up where both stand.
    const fn reject(self, kind: u8) -> Option<Reject> {
        match self {
            Self::Message(error) => error.reject(),
            Self::Block(_) => Some(Reject { code: RejectCode::MALFORMED, kind }),
            Self::Version { .. } => Some(Reject { code: RejectCode::UNSUPPORTED_VERSION, kind }),
            Self::NotWelcomed | Self::WrongBoot | Self::Sequence => {
                Some(Reject { code: RejectCode::WRONG_BOOT, kind })
            }
        }
    }
}

impl From<MessageError> for LinkError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

impl From<BlockError> for LinkError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => error.fmt(f),
            Self::Block(error) => error.fmt(f),
            Self::Version { min, max } => {
                write!(
                    f,
                    "device speaks wire versions {min} to {max}, not {WIRE_VERSION}: update the older end"
                )
            }
            Self::NotWelcomed => f.write_str("device was not welcomed yet and is asked for its hello"),
            Self::WrongBoot => f.write_str("device has another boot than it was welcomed with"),
            Self::Sequence => {
                f.write_str("row numbers of the device do not go with what is known of its boot")
            }
        }
    }
}

impl core::error::Error for LinkError {}

#[cfg(test)]
mod tests {
    use std::vec::Vec as Many;

    use proptest::prelude::*;

    use super::*;
    use crate::block::Form;
    use crate::ids::{ChipId, GroupId, SchemaId, Seq};
    use crate::message::{Ack, Data, FromGateway, Gap, ResetCause};
    use crate::plain::PlainWriter;
    use crate::reading::{Name, Value};

    const BOOT: Boot = Boot::new(9).unwrap();
    const NOW: Millis = Millis(1000);

    fn hello(boot: Option<Boot>, oldest: u32, next: u32) -> Hello {
        Hello {
            chip: ChipId::new(&[1]).unwrap(),
            name: Name::new(),
            boot,
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            schema: SchemaId(1),
            oldest: Seq(oldest),
            next: Seq(next),
            tick_hz: 1000,
            tick_now: Tick(5),
            reset_cause: ResetCause::UNKNOWN,
            resumed_at: None,
        }
    }

    fn terms(known: Option<u64>) -> Terms {
        let known = known.map(|next| Known { next: LongSeq(next), released: LongSeq(next) });
        Terms { boot: BOOT, known, wants_birth: false, credit: 16 }
    }

    /// A device that was let in, with rows 0 to 1000 and nothing known of them.
    fn welcomed() -> Receiver {
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(None, 0, 1000).to_message()).unwrap();
        assert!(matches!(receiver.poll_event(), Some(Event::Hello(_))));
        receiver.welcome(NOW, terms(None)).unwrap();
        receiver
    }

    fn data(boot: Boot, rows: core::ops::Range<u32>) -> Many<u8> {
        let mut block = PlainWriter::new();
        for seq in rows {
            block.push(Seq(seq), Tick(0), GroupId(0), &[Some(Value::U32(seq))]).unwrap();
        }
        [&Data::head(Form::Plain, boot)[..], block.bytes()].concat()
    }

    fn gap(from: u32, to: u32) -> Message {
        Gap { boot: BOOT, from: Seq(from), to: Seq(to), cause: GapCause::OVERFLOW }.to_message()
    }

    /// What came up, as (kind, from, to): `r` for rows, `g` for a gap.
    fn drain(receiver: &mut Receiver) -> Many<(char, u64, u64)> {
        let events = core::iter::from_fn(|| receiver.poll_event());
        let short = |event| match event {
            Event::Rows { from, to, .. } => Some(('r', from.0, to.0)),
            Event::Gap { from, to, .. } => Some(('g', from.0, to.0)),
            Event::Hello(_) | Event::Birth(_) | Event::TimeReply { .. } | Event::Status(_) => None,
        };
        events.filter_map(short).collect()
    }

    fn said(receiver: &mut Receiver, now: Millis) -> Many<FromGateway> {
        let messages = core::iter::from_fn(|| receiver.poll_transmit(now));
        messages.map(|message| FromGateway::parse(&message).unwrap()).collect()
    }

    fn last_ack(receiver: &mut Receiver, now: Millis) -> Ack {
        match said(receiver, now).pop() {
            Some(FromGateway::Ack(ack)) => ack,
            other => panic!("no ack but {other:?}"),
        }
    }

    #[test]
    fn blocks_beyond_a_hole_wait_for_it() {
        let mut receiver = welcomed();
        said(&mut receiver, NOW);
        for rows in [10..20, 30..40, 20..30, 50..60, 70..80, 90..100] {
            receiver.handle(NOW, &data(BOOT, rows)).unwrap();
        }
        assert_eq!(drain(&mut receiver), []);
        let ack = last_ack(&mut receiver, NOW);
        let ranges: Many<_> = ack.ranges.iter().map(|range| (range.from.0, range.to.0)).collect();
        assert_eq!((ack.received, ranges), (Seq(0), Many::from([(10, 40), (50, 60), (70, 80)])));
        assert_eq!(receiver.stalled_since(), Some(NOW));

        receiver.handle(NOW.plus(1), &data(BOOT, 0..10)).unwrap();
        assert_eq!(drain(&mut receiver), [('r', 0, 10), ('r', 10, 20), ('r', 20, 30), ('r', 30, 40)]);
        assert_eq!(receiver.stalled_since(), Some(NOW.plus(1)), "there has been progress");
        receiver.handle(NOW, &data(BOOT, 30..40)).unwrap();
        receiver.handle(NOW, &data(BOOT, 50..60)).unwrap();
        assert_eq!((drain(&mut receiver), receiver.counters().duplicate_blocks), (Many::new(), 2));
    }

    #[test]
    fn the_block_that_fills_the_hole_always_has_room() {
        let mut receiver = welcomed();
        for first in 1..40 {
            receiver.handle(NOW, &data(BOOT, first..first + 1)).unwrap();
        }
        assert_eq!(receiver.counters().dropped_blocks, 39 - 15);
        receiver.handle(NOW, &data(BOOT, 0..1)).unwrap();
        assert_eq!(drain(&mut receiver).len(), 16);
        assert_eq!(last_ack(&mut receiver, NOW).received, Seq(16));
    }

    #[test]
    fn rows_wait_for_the_schema_in_the_device() {
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(Some(BOOT), 0, 50).to_message()).unwrap();
        receiver.welcome(NOW, Terms { wants_birth: true, ..terms(None) }).unwrap();
        receiver.handle(NOW, &data(BOOT, 0..10)).unwrap();
        assert_eq!((drain(&mut receiver), last_ack(&mut receiver, NOW).received), (Many::new(), Seq(0)));
        receiver.births_complete(NOW);
        receiver.handle(NOW, &data(BOOT, 0..10)).unwrap();
        assert_eq!(drain(&mut receiver), [('r', 0, 10)]);
    }

    #[test]
    fn a_gap_claims_only_what_is_not_held() {
        let mut receiver = welcomed();
        receiver.handle(NOW, &data(BOOT, 0..5)).unwrap();
        assert_eq!(drain(&mut receiver), [('r', 0, 5)]);
        receiver.handle(NOW, &data(BOOT, 8..12)).unwrap();
        receiver.handle(NOW, &gap(0, 20)).unwrap();
        assert_eq!(drain(&mut receiver), [('g', 5, 8), ('r', 8, 12), ('g', 12, 20)]);
        receiver.handle(NOW, &gap(0, 20)).unwrap();
        assert_eq!(drain(&mut receiver), []);
        receiver.handle(NOW, &gap(0, 25)).unwrap();
        assert_eq!(drain(&mut receiver), [('g', 20, 25)]);
        assert_eq!(receiver.handle(NOW, &gap(26, 30)), Err(LinkError::Sequence), "what became of row 25?");
        assert_eq!(receiver.handle(NOW, &gap(25, 25)), Err(LinkError::Sequence));
    }

    #[test]
    fn only_the_new_rows_of_a_block_come_up() {
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(Some(BOOT), 0, 50).to_message()).unwrap();
        receiver.welcome(NOW, terms(Some(14))).unwrap();
        receiver.handle(NOW, &data(BOOT, 10..20)).unwrap();
        let rows = core::iter::from_fn(|| receiver.poll_event()).last();
        assert!(
            matches!(rows, Some(Event::Rows { from: LongSeq(14), to: LongSeq(20), skip: 4, .. })),
            "{rows:?}"
        );
    }

    #[test]
    fn only_what_is_durable_is_released() {
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(Some(BOOT), 0, 50).to_message()).unwrap();
        let known = Some(Known { next: LongSeq(14), released: LongSeq(3) });
        receiver.welcome(NOW, Terms { known, ..terms(None) }).unwrap();
        let said = said(&mut receiver, NOW);
        let [FromGateway::Welcome(welcome), FromGateway::Ack(ack)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((welcome.received, welcome.released), (Seq(14), Seq(3)));
        assert_eq!((ack.received, ack.released), (Seq(14), Seq(3)));
    }

    #[test]
    fn what_the_device_let_go_of_is_a_gap() {
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(Some(BOOT), 30, 50).to_message()).unwrap();
        receiver.poll_event();
        receiver.welcome(NOW, terms(Some(14))).unwrap();
        assert!(
            matches!(receiver.poll_event(), Some(Event::Gap { from: LongSeq(14), to: LongSeq(30), cause })
                if cause == GapCause::FORGOTTEN)
        );
        assert_eq!(receiver.next(), Some(LongSeq(30)));
    }

    #[test]
    fn numbers_are_extended_across_the_wrap() {
        let known = (3 << 32) - 2;
        let mut receiver = Receiver::new(Epoch(1));
        receiver.handle(NOW, &hello(Some(BOOT), u32::MAX - 5, 8).to_message()).unwrap();
        receiver.welcome(NOW, terms(Some(known))).unwrap();
        let mut block = PlainWriter::new();
        for at in 0..4 {
            let value = [Some(Value::U32(0))];
            block.push(Seq(u32::MAX - 1).plus(at), Tick(0), GroupId(0), &value).unwrap();
        }
        receiver.handle(NOW, &[&Data::head(Form::Plain, BOOT)[..], block.bytes()].concat()).unwrap();
        assert_eq!(drain(&mut receiver), [('r', known, known + 4)]);
        assert_eq!(last_ack(&mut receiver, NOW.plus(5)).received, Seq(2));
        assert_eq!(receiver.learned(), Some(LongSeq((3 << 32) + 8)));
    }

    #[test]
    fn nothing_is_taken_before_the_welcome_or_with_another_boot() {
        let mut receiver = Receiver::new(Epoch(1));
        let reject = FromGateway::Reject(Reject { code: RejectCode::WRONG_BOOT, kind: 4 });
        assert_eq!(receiver.handle(NOW, &data(BOOT, 0..1)), Err(LinkError::NotWelcomed));
        assert_eq!(said(&mut receiver, NOW), core::slice::from_ref(&reject));
        let mut receiver = welcomed();
        said(&mut receiver, NOW);
        let other = Boot::new(10).unwrap();
        assert_eq!(receiver.handle(NOW, &data(other, 0..1)), Err(LinkError::WrongBoot));
        assert_eq!(said(&mut receiver, NOW), [reject]);
        assert_eq!(drain(&mut receiver), []);
    }

    #[test]
    fn a_device_that_counts_backward_is_not_let_in() {
        let mut receiver = Receiver::new(Epoch(1));
        assert_eq!(receiver.welcome(NOW, terms(None)), Err(LinkError::NotWelcomed));
        receiver.handle(NOW, &hello(Some(BOOT), 0, 50).to_message()).unwrap();
        assert_eq!(receiver.welcome(NOW, terms(Some(51))), Err(LinkError::Sequence));
        let other = Terms { boot: Boot::new(10).unwrap(), ..terms(None) };
        assert_eq!(receiver.welcome(NOW, other), Err(LinkError::WrongBoot));
        assert_eq!(receiver.boot(), None);
        let ancient = Hello { version_min: 2, version_max: 3, ..hello(None, 0, 0) };
        let error = LinkError::Version { min: 2, max: 3 };
        assert_eq!(receiver.handle(NOW, &ancient.to_message()), Err(error));
    }

    #[test]
    fn a_repeated_hello_is_answered_and_another_life_is_looked_up() {
        let mut receiver = welcomed();
        said(&mut receiver, NOW);
        receiver.handle(NOW, &hello(None, 0, 1001).to_message()).unwrap();
        assert_eq!((receiver.poll_event(), receiver.learned()), (None, Some(LongSeq(1001))));
        assert!(matches!(said(&mut receiver, NOW)[..], [FromGateway::Welcome(_), FromGateway::Ack(_)]));

        receiver.handle(NOW, &data(BOOT, 0..1)).unwrap();
        drain(&mut receiver);
        receiver.handle(NOW, &hello(Some(BOOT), 0, 1002).to_message()).unwrap();
        assert_eq!(receiver.poll_event(), None, "it has missed something");
        receiver.handle(NOW, &hello(None, 0, 1002).to_message()).unwrap();
        assert!(matches!(receiver.poll_event(), Some(Event::Hello(_))), "it has forgotten its boot");
        assert_eq!(receiver.boot(), None);
    }

    #[test]
    fn a_device_that_was_reset_is_looked_up_though_its_rows_go_on() {
        let mut receiver = welcomed();
        let resumed = Hello { resumed_at: Some(Tick(9)), ..hello(Some(BOOT), 0, 1002) };
        receiver.handle(NOW, &resumed.to_message()).unwrap();
        assert_eq!(receiver.poll_event(), Some(Event::Hello(resumed.clone())));
        receiver.welcome(NOW, terms(None)).unwrap();
        receiver.handle(NOW, &resumed.to_message()).unwrap();
        assert_eq!(receiver.poll_event(), None, "it has missed the welcome");
    }

    #[test]
    fn acks_wait_for_company_but_questions_are_answered() {
        let mut receiver = welcomed();
        said(&mut receiver, NOW);
        receiver.handle(NOW, &data(BOOT, 0..1)).unwrap();
        drain(&mut receiver);
        assert_eq!((receiver.poll_timeout(), said(&mut receiver, NOW)), (Some(NOW.plus(5)), Many::new()));
        receiver.release(NOW.plus(2), LongSeq(1));
        let ack = last_ack(&mut receiver, NOW.plus(5));
        assert_eq!((ack.received, ack.released), (Seq(1), Seq(1)));
        assert_eq!(receiver.poll_timeout(), None);

        receiver.release(NOW, LongSeq(99));
        assert_eq!(receiver.poll_timeout(), None, "nothing beyond what came");
        let (oldest, sent, next) = (Seq(0), Seq(1), Seq(0));
        let status = Status { boot: BOOT, oldest, sent, next, ring_used: 0, ring_size: 0, evicted_rows: 0 };
        receiver.handle(NOW, &status.to_message()).unwrap_err();
        let status = Status { sent: Seq(7), next: Seq(1009), ..status };
        receiver.handle(NOW, &status.to_message()).unwrap();
        assert_eq!(receiver.poll_event(), Some(Event::Status(status)));
        assert_eq!(receiver.stalled_since(), Some(NOW), "rows 1 to 6 were sent");
        receiver.set_credit(NOW, 0);
        assert_eq!((last_ack(&mut receiver, NOW).credit, receiver.stalled_since()), (0, None));
    }

    proptest! {
        #[test]
        fn any_messages_are_survived(
            messages in proptest::collection::vec(
                (0..=8_u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..40,
            ),
        ) {
            let mut receiver = welcomed();
            for (kind, body) in messages {
                let message = [&[kind][..], &body].concat();
                let _ = receiver.handle(NOW, &message);
                if let Some(Event::Hello(hello)) = receiver.poll_event() {
                    let boot = hello.boot.unwrap_or(BOOT);
                    let _ = receiver.welcome(NOW, Terms { boot, ..terms(None) });
                }
                drain(&mut receiver);
                said(&mut receiver, NOW);
            }
        }
    }
}
