//! The device's half of the link.
//!
//! *In:* what the ring holds ([`Backlog`]) and the gateway's messages. *Out:* what to send next
//! ([`Transmit`]), which the device encodes. *Next:* `frame.rs`.
//!
//! Constraints: no allocation, no clock, no division; about 100 bytes. The sender never touches a row. It
//! knows the blocks by their places, and what it has to remember of one is kept with it.
//!
//! Operation: `agenda.rs` says what is due first. [`Sender::poll_transmit`] gives what it says, [`Sender::poll_timeout`]
//! tells how long that has time.
//!
//! Failure: a message of the gateway that does not go with what the device holds is ignored; a false
//! acknowledgement would destroy rows. A gateway that is silent for 15 seconds is greeted anew.

mod agenda;

use core::fmt;

use super::Transport;
use super::rtt::RoundTrip;
use super::window::{Backlog, Place, Survey, Window};
use crate::ids::{Boot, ChipId, Epoch, Seq, Stamp, Token};
use crate::message::brief::read_presence;
use crate::message::{Ack, Reject, RejectCode, TimeRequest, Welcome};
use agenda::NEVER;

/// Time between the first two `Hello` of a greeting; it doubles up to [`RTO_MS_MAX`](super::rtt::RTO_MS_MAX).
const HELLO_MS: u16 = 250;

/// What the device shall send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// Its `Hello`; then call [`Sender::hello_sent`].
    Hello,
    /// The `Birth` of the channel at this index.
    Birth(u8),
    /// The `Gap` with all that was lost and is not released.
    Gap,
    /// The sealed block at this place.
    Block(Place),
    /// A `TimeReply` to this request.
    TimeReply(Token),
    /// Its `Status`, as a sign of life, or to ask for an answer.
    Status {
        /// Rows wait without credit, and the message that gave some may be lost.
        asks: bool,
    },
}

/// The device's half of the link. See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub struct Sender {
    // The small ones first: a small chip reaches only the first bytes of a structure at once.
    transport: Transport,
    state: State,
    /// How many channels there are to announce, and which comes next.
    channels: u8,
    birth: u8,
    credit: u8,
    /// The gateway was told of lost rows since the welcome.
    gap_sent: bool,
    /// How long what the state says waits the next time, and when it is due.
    wait_ms: u16,
    again_at: Stamp,
    /// Of the gateway that assigned the boot.
    epoch: Epoch,
    boot: Option<Boot>,
    /// Of the last `Hello`.
    hello: Token,
    received: Seq,
    /// One past the last row sent since the welcome.
    sent: Seq,
    /// Blocks sent and not below `received`.
    window: Window,
    round_trip: RoundTrip,
    spoke_at: Stamp,
    heard_at: Stamp,
    reply: Option<Token>,
    /// Where those ended of which it was told last, and when.
    gap_sent_to: Seq,
    gap_sent_at: Stamp,
}

/// In the order in which a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// No gateway is present: be silent.
    Detached,
    /// Say `Hello` now.
    Arriving,
    /// Say `Hello` again.
    Greeting,
    /// Send the next `Birth`.
    Announcing,
    /// All channels were announced; unless that is acknowledged, start over.
    Announced,
    /// Send data.
    Open,
    /// Rows wait without credit: ask why, again and again.
    Asking,
}

impl Sender {
    /// A device that has just started. Over a serial line it greets at once, over MQTT once a gateway is
    /// [present](Self::presence).
    pub const fn new(transport: Transport, channels: u8) -> Self {
        let state = match transport {
            Transport::Serial => State::Arriving,
            Transport::Mqtt => State::Detached,
        };
        Self {
            transport,
            channels,
            state,
            again_at: Stamp::ZERO,
            wait_ms: HELLO_MS,
            birth: 0,
            epoch: Epoch(0),
            boot: None,
            hello: Token(0),
            received: Seq(0),
            credit: 0,
            reply: None,
            window: Window::new(),
            sent: Seq(0),
            gap_sent_to: Seq(0),
            gap_sent: false,
            gap_sent_at: Stamp::ZERO,
            round_trip: RoundTrip::new(),
            spoke_at: Stamp::ZERO,
            heard_at: Stamp::ZERO,
        }
    }

    /// Goes on with the rows of an earlier life, of which those before `first` are released. Only before the first
    /// welcome.
    pub const fn resume(&mut self, boot: Option<Boot>, first: Seq) {
        (self.boot, self.received, self.sent) = (boot, first, first);
    }

    /// Takes one message of the gateway. What it releases is released in `backlog` at once.
    ///
    /// # Errors
    ///
    /// The message was ignored.
    #[inline(never)]
    pub fn handle<B: Backlog>(
        &mut self,
        now: Stamp,
        message: &[u8],
        chip: &ChipId,
        backlog: &mut B,
    ) -> Result<(), SenderError> {
        let (kind, body) = message.split_first().ok_or(SenderError::Unreadable)?;
        match kind {
            0x41 => self.welcome(now, &Welcome::read(body).ok_or(SenderError::Unreadable)?, chip, backlog),
            0x42 => self.ack(now, &Ack::read(body).ok_or(SenderError::Unreadable)?, backlog),
            0x43 => {
                let TimeRequest { epoch, token } = TimeRequest::read(body).ok_or(SenderError::Unreadable)?;
                self.hear(now, epoch)?;
                self.reply = Some(token);
                Ok(())
            }
            0x45 => {
                if Reject::read(body).ok_or(SenderError::Unreadable)?.code == RejectCode::WRONG_BOOT {
                    self.asked_for_hello(now);
                }
                Ok(())
            }
            0x46 => {
                self.presence(Some(read_presence(body).ok_or(SenderError::Unreadable)?));
                Ok(())
            }
            _ => Err(SenderError::Unreadable),
        }
    }

    fn asked_for_hello(&mut self, now: Stamp) {
        if self.is_connected() {
            self.greet();
        } else if self.state == State::Greeting {
            // The gateway is there, however long the wait has become without it.
            self.again_at = now.plus(now.until(self.again_at).min(u32::from(HELLO_MS)));
            self.wait_ms = HELLO_MS;
        }
    }

    /// Takes the payload of the gateway's presence topic over MQTT; an empty one says that no gateway is there.
    ///
    /// # Errors
    ///
    /// The payload was ignored.
    pub fn handle_presence(&mut self, payload: &[u8]) -> Result<(), SenderError> {
        let epoch = match payload.split_first() {
            None => None,
            Some((0x46, body)) => Some(read_presence(body).ok_or(SenderError::Unreadable)?),
            Some(_) => return Err(SenderError::Unreadable),
        };
        self.presence(epoch);
        Ok(())
    }

    fn presence(&mut self, epoch: Option<Epoch>) {
        match epoch {
            None => {
                self.state = State::Detached;
                self.reply = None;
            }
            Some(epoch) => {
                if self.state == State::Detached || !self.has_epoch(epoch) {
                    self.greet();
                }
            }
        }
    }

    /// What to send now, if anything. What it says must be sent.
    pub fn poll_transmit<B: Backlog>(&mut self, now: Stamp, backlog: &mut B) -> Option<Transmit> {
        let next = self.next(now, backlog);
        if next.wait_ms > 0 {
            return None;
        }
        // What answers for the clock is not answered itself. It must not take the place of the status, whose answer tells
        // of credit that got lost while rows wait in a block that is not sealed.
        if !matches!(next.what, Transmit::TimeReply(_)) {
            self.spoke_at = now;
        }
        self.begin(now, next.what, backlog);
        Some(next.what)
    }

    /// How many milliseconds it is until [`poll_transmit`](Self::poll_transmit) will have something to say, if nothing
    /// happens before.
    pub fn poll_timeout<B: Backlog>(&self, now: Stamp, backlog: &B) -> Option<u32> {
        Some(self.next(now, backlog).wait_ms).filter(|ms| *ms != NEVER)
    }

    /// The `Hello` with this token is being sent.
    pub const fn hello_sent(&mut self, token: Token) {
        self.hello = token;
    }

    /// The last byte of the block has been handed to the line, so the wait for its acknowledgement
    /// begins now: on a slow line a block takes longer to send than its answer to come.
    pub fn block_left<B: Backlog>(&self, now: Stamp, place: Place, backlog: &mut B) {
        self.window.left(now, place, backlog);
    }

    /// The line takes nothing any more: whoever listens next is greeted.
    pub fn line_stalled(&mut self) {
        if self.transport == Transport::Serial {
            self.greet();
        }
    }

    /// Whether a block that is sealed now would be sent at once. Until then an open block had better
    /// fill up.
    pub fn wants_block<B: Backlog>(&self, backlog: &B) -> bool {
        let survey = self.window.survey(Stamp::ZERO, 0, backlog);
        self.may_send_block(survey) && !self.has_unsent(backlog)
    }

    /// Whether a gateway has let the device in.
    pub fn is_connected(&self) -> bool {
        self.state >= State::Announcing
    }

    /// The boot that a gateway assigned, if one has.
    pub const fn boot(&self) -> Option<Boot> {
        self.boot
    }

    /// One past the last row received without a hole.
    pub const fn received(&self) -> Seq {
        self.received
    }

    /// One past the last row that was sent since the welcome.
    pub const fn sent(&self) -> Seq {
        self.sent
    }

    /// How often a block was sent again within one welcome.
    pub const fn repeated_blocks(&self) -> u32 {
        self.window.repeated_blocks()
    }

    fn may_send_block(&self, survey: Survey) -> bool {
        self.is_open() && survey.has_room(self.credit)
    }

    fn is_open(&self) -> bool {
        self.state >= State::Open
    }

    /// Whether a sealed block was not sent since the welcome.
    fn has_unsent<B: Backlog>(&self, backlog: &B) -> bool {
        backlog.block(self.window.end(backlog)).is_some()
    }

    fn has_epoch(&self, epoch: Epoch) -> bool {
        self.boot.is_some() && self.epoch == epoch
    }

    // What the gateway said.

    #[inline(never)]
    fn greet(&mut self) {
        self.state = State::Arriving;
        self.wait_ms = HELLO_MS;
        self.reply = None;
    }

    fn welcome<B: Backlog>(
        &mut self,
        now: Stamp,
        welcome: &Welcome<&[u8]>,
        chip: &ChipId,
        backlog: &mut B,
    ) -> Result<(), SenderError> {
        // Without a boot, only the answer to the last question is sure to be meant for this life of the device.
        let for_this_life = match self.boot {
            Some(boot) => boot == welcome.boot,
            None => welcome.answers == self.hello,
        };
        let for_us = welcome.chip.iter().eq(chip.as_bytes()) && for_this_life;
        if !for_us || self.state == State::Detached {
            return Err(SenderError::NotForUs);
        }
        let Welcome { received, released, .. } = *welcome;
        if backlog.sealed().is_before(received) || received.is_before(released) {
            return Err(SenderError::Sequence);
        }
        self.state = if welcome.wants_birth { State::Announcing } else { State::Open };
        self.birth = 0;
        self.epoch = welcome.epoch;
        self.boot = Some(welcome.boot);
        self.received = received;
        self.sent = received;
        self.credit = welcome.credit;
        backlog.release(released);
        self.window.clear(received, backlog);
        self.round_trip.begin(now);
        self.gap_sent = false;
        self.heard_at = now;
        Ok(())
    }

    fn ack<B: Backlog>(&mut self, now: Stamp, ack: &Ack, backlog: &mut B) -> Result<(), SenderError> {
        let heard_at = self.heard_at;
        self.hear(now, ack.epoch)?;
        if self.boot != Some(ack.boot) {
            return Err(SenderError::NotForUs);
        }
        let Ack { received, released, .. } = *ack;
        let goes_back = received.is_before(self.received);
        if goes_back || backlog.sealed().is_before(received) || received.is_before(released) {
            // A gateway that goes on like this has another idea of where both stand, which only a greeting mends: it
            // does not count as heard.
            self.heard_at = heard_at;
            return Err(SenderError::Sequence);
        }
        self.received = received;
        self.credit = ack.credit;
        backlog.release(released);
        if ack.births && !self.is_open() {
            self.state = State::Open;
        }
        self.window.settle(now, ack, &mut self.round_trip, backlog);
        Ok(())
    }

    /// Notes a sign of life, and a restart of the gateway.
    fn hear(&mut self, now: Stamp, epoch: Epoch) -> Result<(), SenderError> {
        if !self.is_connected() {
            return Err(SenderError::NotForUs);
        }
        if !self.has_epoch(epoch) {
            self.greet();
            return Err(SenderError::NotForUs);
        }
        self.heard_at = now;
        Ok(())
    }
}

/// Why a message of the gateway was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderError {
    /// It cannot be read, or is of an unknown kind.
    Unreadable,
    /// It is meant for another device, another boot or another state.
    NotForUs,
    /// It acknowledges rows that were never numbered, or takes back what it acknowledged.
    Sequence,
}

impl fmt::Display for SenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "message cannot be read",
            Self::NotForUs => "message is meant for another device, boot or state",
            Self::Sequence => "message acknowledges rows that do not exist",
        })
    }
}

impl core::error::Error for SenderError {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec as Many;

    use proptest::prelude::*;

    use super::super::window::{Block, Flight};
    use super::*;
    use crate::message::{Body, Presence, SeqRange};

    const BOOT: Boot = Boot::new(9).unwrap();
    const EPOCH: Epoch = Epoch(1);
    const STATUS: Transmit = Transmit::Status { asks: false };
    const START: Stamp = Stamp::ZERO.plus(1000);

    fn ms(ms: u32) -> Stamp {
        Stamp::ZERO.plus(ms)
    }

    /// A sender, and a ring in which each block has ten rows.
    struct Bench {
        sender: Sender,
        chip: ChipId,
        backlog: Tens,
    }

    /// A ring in which each block has ten rows, and is placed at the first of them.
    struct Tens {
        oldest: Seq,
        sealed: Seq,
        lost_to: Option<Seq>,
        released: Seq,
        flights: BTreeMap<u32, Flight>,
    }

    impl Backlog for Tens {
        fn oldest(&self) -> Seq {
            self.oldest
        }

        fn sealed(&self) -> Seq {
            self.sealed
        }

        fn lost_to(&self) -> Option<Seq> {
            self.lost_to
        }

        fn release(&mut self, to: Seq) {
            self.released = self.released.max(to);
        }

        fn first(&self) -> Place {
            Place(self.oldest.0)
        }

        fn block(&self, place: Place) -> Option<Block> {
            let from = Seq(place.0);
            let flight = self.flights.get(&place.0).copied().unwrap_or(Flight::NEW);
            let (rows, next) = (SeqRange { from, to: from.plus(10) }, Place(place.0 + 10));
            (!from.is_before(self.oldest) && from.is_before(self.sealed)).then_some(Block {
                rows,
                flight,
                next,
            })
        }

        fn note(&mut self, place: Place, flight: Flight) {
            self.flights.insert(place.0, flight);
        }
    }

    impl Bench {
        fn new(transport: Transport) -> Self {
            let (oldest, sealed, released) = (Seq(0), Seq(1000), Seq(0));
            let backlog = Tens { oldest, sealed, lost_to: None, released, flights: BTreeMap::new() };
            Self { sender: Sender::new(transport, 2), chip: ChipId::new(&[1]).unwrap(), backlog }
        }

        fn welcomed(transport: Transport, credit: u8) -> Self {
            let mut bench = Self::new(transport);
            if transport == Transport::Mqtt {
                bench.sender.presence(Some(EPOCH));
            }
            assert_eq!(bench.next(START), Some(Transmit::Hello));
            bench.hear(START, &bench.welcome(credit)).unwrap();
            bench
        }

        fn welcome(&self, credit: u8) -> Welcome {
            let (released, received) = (Seq(0), Seq(0));
            let (wants_birth, chip, answers) = (false, self.chip.clone(), Token(0));
            Welcome { epoch: EPOCH, boot: BOOT, released, received, wants_birth, credit, chip, answers }
        }

        fn hear<B: Body>(&mut self, now: Stamp, body: &B) -> Result<(), SenderError> {
            self.sender.handle(now, &body.to_message(), &self.chip, &mut self.backlog)
        }

        fn next(&mut self, now: Stamp) -> Option<Transmit> {
            let due = self.sender.poll_timeout(now, &self.backlog);
            let transmit = self.sender.poll_transmit(now, &mut self.backlog);
            assert_eq!(transmit.is_some(), due == Some(0), "{due:?}: {transmit:?}");
            transmit
        }

        /// The rows with which the blocks begin that are sent now; nothing else is.
        fn blocks(&mut self, now: Stamp) -> Many<u32> {
            let mut rows = Many::new();
            while let Some(transmit) = self.next(now) {
                let Transmit::Block(place) = transmit else { panic!("{transmit:?}") };
                rows.push(place.0);
            }
            rows
        }
    }

    fn presence(epoch: Epoch) -> Presence {
        Presence { epoch, client: heapless::String::new() }
    }

    fn ack(received: u32, ranges: &[(u32, u32)], credit: u8) -> Ack {
        let range = |&(from, to): &(u32, u32)| SeqRange { from: Seq(from), to: Seq(to) };
        let (received, ranges) = (Seq(received), ranges.iter().map(range).collect());
        Ack { epoch: EPOCH, boot: BOOT, received, released: Seq(0), ranges, credit, births: true }
    }

    #[test]
    fn hello_is_repeated_ever_more_slowly() {
        let mut bench = Bench::new(Transport::Serial);
        let mut at = Stamp::ZERO;
        for wait in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            assert_eq!(bench.next(at), Some(Transmit::Hello));
            assert_eq!(bench.next(at.plus(wait - 1)), None);
            at = at.plus(wait);
        }
    }

    #[test]
    fn a_gateway_that_asks_for_the_hello_need_not_wait_for_it() {
        let mut bench = Bench::new(Transport::Serial);
        for at in [0, 250, 750, 1750, 3750, 7750] {
            assert_eq!(bench.next(ms(at)), Some(Transmit::Hello));
        }
        let ask = Reject { code: RejectCode::WRONG_BOOT, kind: 0 };
        for at in [8000, 8100, 8200] {
            bench.hear(ms(at), &ask).unwrap();
            assert_eq!(bench.next(ms(8249)), None, "as often as it asks, not more often than at first");
        }
        for at in [8250, 8500, 9000] {
            assert_eq!(bench.next(ms(at)), Some(Transmit::Hello));
        }
    }

    #[test]
    fn a_window_is_sent_and_what_was_overtaken_again() {
        let mut bench = Bench::welcomed(Transport::Serial, 4);
        assert_eq!(bench.blocks(START), [0, 10, 20, 30]);
        bench.hear(START.plus(20), &ack(10, &[(20, 30)], 4)).unwrap();
        assert_eq!(bench.blocks(START.plus(20)), [10, 40], "10 was overtaken by 20, 30 may still come");
        bench.hear(START.plus(40), &ack(10, &[(20, 40)], 4)).unwrap();
        assert_eq!(bench.blocks(START.plus(40)), [], "10 was sent again after 30");
        bench.hear(START.plus(60), &ack(10, &[(20, 50)], 4)).unwrap();
        assert_eq!(bench.blocks(START.plus(60)), [10], "but before 40");
        bench.hear(START.plus(80), &ack(50, &[], 16)).unwrap();
        assert_eq!(bench.blocks(START.plus(80)).len(), 16);
    }

    #[test]
    fn what_is_not_answered_is_sent_again_after_the_timeout() {
        let mut bench = Bench::welcomed(Transport::Serial, 2);
        assert_eq!(bench.blocks(START), [0, 10]);
        assert_eq!(bench.blocks(START.plus(999)), []);
        assert_eq!(bench.blocks(START.plus(1000)), [0, 10]);
        assert_eq!(bench.blocks(START.plus(2999)), [], "twice as long");
        assert_eq!(bench.blocks(START.plus(3000)), [0, 10]);
        assert_eq!(bench.sender.repeated_blocks(), 4);
    }

    #[test]
    fn the_answer_to_a_repetition_measures_nothing() {
        let mut bench = Bench::welcomed(Transport::Serial, 1);
        assert_eq!(bench.blocks(START), [0]);
        assert_eq!(bench.blocks(START.plus(1000)), [0]);
        bench.hear(START.plus(1001), &ack(10, &[], 1)).unwrap();
        assert_eq!(bench.blocks(START.plus(1001)), [10]);
        assert_eq!(bench.blocks(START.plus(3000)), [], "it may have been the answer to the first copy");
        assert_eq!(bench.blocks(START.plus(3001)), [10]);
    }

    #[test]
    fn the_wait_begins_when_the_block_has_left() {
        let mut bench = Bench::welcomed(Transport::Serial, 1);
        assert_eq!(bench.blocks(START), [0]);
        bench.sender.block_left(START.plus(260), Place(0), &mut bench.backlog);
        assert_eq!(bench.blocks(START.plus(1259)), []);
        assert_eq!(bench.blocks(START.plus(1260)), [0]);
    }

    #[test]
    fn over_a_broker_blocks_are_sent_once_a_welcome() {
        let mut bench = Bench::welcomed(Transport::Mqtt, 2);
        assert_eq!(bench.blocks(START), [0, 10]);
        assert_eq!(bench.next(START.plus(3999)), None);
        assert_eq!(bench.next(START.plus(4000)), Some(STATUS));
        let welcome = Welcome { received: Seq(10), ..bench.welcome(2) };
        bench.hear(START.plus(4001), &welcome).unwrap();
        assert_eq!(bench.blocks(START.plus(4001)), [10, 20]);
    }

    #[test]
    fn births_come_before_data_and_until_they_are_known() {
        let mut bench = Bench::new(Transport::Serial);
        bench.next(START);
        let welcome = Welcome { wants_birth: true, ..bench.welcome(1) };
        bench.hear(START, &welcome).unwrap();
        for at in [START, START.plus(1000)] {
            assert_eq!(bench.next(at), Some(Transmit::Birth(0)));
            assert_eq!(bench.next(at), Some(Transmit::Birth(1)));
            assert_eq!(bench.next(at), None);
        }
        bench.hear(START.plus(1100), &ack(0, &[], 1)).unwrap();
        assert_eq!(bench.blocks(START.plus(1100)), [0]);
    }

    #[test]
    fn without_credit_the_sender_asks() {
        let mut bench = Bench::welcomed(Transport::Serial, 0);
        let mut at = START;
        for wait in [1000, 1000, 2000] {
            assert_eq!(bench.next(at), None);
            at = at.plus(wait);
            assert_eq!(bench.next(at), Some(Transmit::Status { asks: true }));
        }
        bench.hear(at, &ack(0, &[], 1)).unwrap();
        assert_eq!(bench.blocks(at), [0]);
    }

    #[test]
    fn a_gap_is_repeated_until_it_has_arrived() {
        let mut bench = Bench::welcomed(Transport::Serial, 1);
        bench.backlog.lost_to = Some(Seq(30));
        bench.backlog.oldest = Seq(30);
        assert_eq!(bench.next(START), Some(Transmit::Gap));
        assert_eq!(bench.blocks(START), [30]);
        bench.hear(START.plus(10), &ack(0, &[(30, 40)], 1)).unwrap();
        assert_eq!(bench.next(START.plus(10)), None);
        assert_eq!(bench.next(START.plus(999)), Some(Transmit::Gap));
        bench.backlog.lost_to = Some(Seq(40));
        bench.backlog.oldest = Seq(40);
        assert_eq!(bench.next(START.plus(999)), Some(Transmit::Gap), "it grew");
        bench.hear(START.plus(1000), &bench.welcome(1)).unwrap();
        assert_eq!(bench.next(START.plus(1000)), Some(Transmit::Gap), "after a welcome nothing has arrived");
        bench.hear(START.plus(1000), &ack(40, &[], 1)).unwrap();
        assert_eq!(bench.blocks(START.plus(1000)), [40]);
    }

    #[test]
    fn a_restarted_gateway_is_greeted() {
        for (restart, greets) in [
            (Ack { epoch: Epoch(2), ..ack(0, &[], 1) }.to_message(), true),
            (TimeRequest { epoch: Epoch(2), token: Token(1) }.to_message(), true),
            (Reject { code: RejectCode::WRONG_BOOT, kind: 4 }.to_message(), true),
            (presence(Epoch(2)).to_message(), true),
            (presence(EPOCH).to_message(), false),
            (Reject { code: RejectCode::MALFORMED, kind: 4 }.to_message(), false),
        ] {
            let mut bench = Bench::welcomed(Transport::Mqtt, 0);
            let _ = bench.sender.handle(START, &restart, &bench.chip, &mut bench.backlog);
            assert_eq!(bench.next(START) == Some(Transmit::Hello), greets, "{restart:?}");
        }
    }

    #[test]
    fn without_a_gateway_the_sender_is_silent() {
        let mut bench = Bench::welcomed(Transport::Mqtt, 4);
        bench.sender.presence(None);
        assert_eq!(
            (bench.next(START.plus(100_000)), bench.sender.poll_timeout(START, &bench.backlog)),
            (None, None)
        );
        assert_eq!(bench.hear(START, &bench.welcome(4)), Err(SenderError::NotForUs));
        bench.sender.presence(Some(EPOCH));
        assert_eq!(bench.next(START), Some(Transmit::Hello));
    }

    #[test]
    fn a_silent_gateway_is_greeted() {
        let mut bench = Bench::welcomed(Transport::Serial, 0);
        bench.backlog.sealed = Seq(0);
        for at in [4000, 8000, 12_000] {
            assert_eq!(bench.next(START.plus(at)), Some(STATUS));
        }
        assert_eq!(bench.next(START.plus(14_999)), None);
        assert_eq!(bench.next(START.plus(15_000)), Some(Transmit::Hello));
    }

    #[test]
    fn answers_about_the_clock_do_not_stand_for_a_sign_of_life() {
        let mut bench = Bench::welcomed(Transport::Serial, 0);
        bench.backlog.sealed = Seq(0);
        for at in [1000, 2000, 3000] {
            bench.hear(START.plus(at), &TimeRequest { epoch: EPOCH, token: Token(at) }).unwrap();
            assert_eq!(bench.next(START.plus(at)), Some(Transmit::TimeReply(Token(at))));
        }
        assert_eq!(bench.next(START.plus(4000)), Some(STATUS));
    }

    #[test]
    fn a_gateway_that_takes_back_what_it_had_is_greeted() {
        let mut bench = Bench::welcomed(Transport::Serial, 1);
        assert_eq!(bench.blocks(START), [0]);
        bench.hear(START, &ack(10, &[], 0)).unwrap();
        let mut at = START;
        while START.plus(15_000).since(at) > 0 {
            assert_eq!(bench.hear(at, &ack(9, &[], 1)), Err(SenderError::Sequence));
            while let Some(said) = bench.next(at) {
                assert!(matches!(said, Transmit::Status { .. }));
            }
            at = at.plus(500);
        }
        assert_eq!(bench.next(at), Some(Transmit::Hello));
    }

    #[test]
    fn what_cannot_be_is_ignored() {
        let mut bench = Bench::welcomed(Transport::Serial, 1);
        assert_eq!(bench.blocks(START), [0]);
        bench.hear(START, &ack(10, &[], 1)).unwrap();
        assert_eq!(bench.hear(START, &ack(9, &[], 1)), Err(SenderError::Sequence), "taken back");
        assert_eq!(bench.hear(START, &ack(1001, &[], 1)), Err(SenderError::Sequence), "never sealed");
        let more = Ack { released: Seq(11), ..ack(10, &[], 1) };
        assert_eq!(bench.hear(START, &more), Err(SenderError::Sequence), "released before received");
        let other = Ack { boot: Boot::new(10).unwrap(), ..ack(20, &[], 1) };
        assert_eq!(bench.hear(START, &other), Err(SenderError::NotForUs));
        let welcome = Welcome { chip: ChipId::new(&[2]).unwrap(), ..bench.welcome(1) };
        assert_eq!(bench.hear(START, &welcome), Err(SenderError::NotForUs));
        let welcome = Welcome { boot: Boot::new(10).unwrap(), ..bench.welcome(1) };
        assert_eq!(bench.hear(START, &welcome), Err(SenderError::NotForUs));
        assert_eq!((bench.sender.received(), bench.backlog.released), (Seq(10), Seq(0)));
    }

    #[test]
    fn without_a_boot_only_the_answer_to_the_last_hello_counts() {
        let mut bench = Bench::new(Transport::Serial);
        bench.next(START);
        bench.sender.hello_sent(Token(5));
        let earlier = Welcome { answers: Token(4), ..bench.welcome(1) };
        assert_eq!(bench.hear(START, &earlier), Err(SenderError::NotForUs));
        assert_eq!((bench.sender.boot(), bench.sender.is_connected()), (None, false));
        let answer = Welcome { answers: Token(5), ..bench.welcome(1) };
        assert_eq!(bench.hear(START, &answer), Ok(()));
        assert_eq!(bench.hear(START, &earlier), Ok(()), "with a boot, that tells whom it is for");
    }

    #[test]
    fn it_stays_small() {
        assert!(size_of::<Sender>() <= 92, "{}", size_of::<Sender>());
    }

    proptest! {
        #[test]
        fn any_messages_are_survived(
            messages in proptest::collection::vec(
                (0x40..=0x48_u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..40,
            ),
        ) {
            let mut bench = Bench::welcomed(Transport::Serial, 16);
            for (kind, body) in messages {
                let message = [&[kind][..], &body].concat();
                let _ = bench.sender.handle(START, &message, &bench.chip, &mut bench.backlog);
                while bench.next(START).is_some() {}
                let (released, sealed) = (bench.backlog.released, bench.backlog.sealed);
                prop_assert!(!sealed.is_before(released), "{released} is released, {sealed} is sealed");
            }
        }
    }
}
