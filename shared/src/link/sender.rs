//! The device's half of the link.
//!
//! *In:* what the ring holds ([`Backlog`]) and the gateway's messages. *Out:* what to send next
//! ([`Transmit`]), which the device encodes. *Next:* `frame.rs`.
//!
//! Constraints: no allocation, no clock, no division; about 700 bytes. The sender never touches a row. It
//! knows the blocks in flight by their numbers, and asks for one by a row that it holds.
//!
//! Operation: every timer is one function that says when it is due. [`Sender::poll_transmit`] takes the
//! first one that has come, [`Sender::poll_timeout`] the earliest of all, so the two cannot disagree.
//!
//! Failure: a message of the gateway that does not go with what the device holds is ignored; a false
//! acknowledgement would destroy rows. A gateway that is silent for 15 seconds is greeted anew.

use core::fmt;

use super::Transport;
use super::rtt::{RTO_MS_MAX, RoundTrip};
use super::window::Window;
use crate::ids::{Boot, ChipId, Epoch, Millis, Seq, Token};
use crate::message::{Ack, FromGateway, MessageError, Presence, RejectCode, SeqRange, TimeRequest, Welcome};

/// Time between the first two `Hello` of a greeting; it doubles up to [`RTO_MS_MAX`].
const HELLO_MS: u32 = 250;
/// A device says something at least every 5 seconds: a second less leaves room for the line.
const KEEPALIVE_MS: u32 = 4000;
/// A gateway that was silent for so long has not answered three of them.
const SILENCE_MS: u32 = 15_000;

/// What the device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// First row in the ring; where there is none, the first of the open block.
    pub oldest: Seq,
    /// One past the last row in a sealed block.
    pub sealed: Seq,
    /// One past the last row that made room for newer ones and is not released, if there is any.
    pub lost_to: Option<Seq>,
    /// How many channels there are to announce.
    pub births: u8,
}

/// What the device shall send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// Its `Hello`.
    Hello,
    /// The `Birth` of the channel at this index.
    Birth(u8),
    /// The `Gap` with all that was lost and is not released.
    Gap,
    /// The sealed block that holds this row; then call [`Sender::block_sent`].
    Block(Seq),
    /// A `TimeReply` to this request.
    TimeReply(Token),
    /// Its `Status`.
    Status,
}

/// The device's half of the link. See the [module](self).
#[derive(Debug)]
pub struct Sender {
    transport: Transport,
    state: State,
    epoch: Option<Epoch>,
    boot: Option<Boot>,
    received: Seq,
    released: Seq,
    credit: u8,
    births: Births,
    reply: Option<Token>,
    /// Blocks sent and not below `received`.
    window: Window,
    /// One past the last row sent since the welcome.
    sent: Seq,
    gap_sent: Option<GapSent>,
    /// When to ask why nothing may be sent, and how long to wait after that.
    probe: Option<(Millis, u32)>,
    round_trip: RoundTrip,
    spoke_at: Millis,
    heard_at: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No gateway is present: be silent.
    Detached,
    /// Say `Hello` at `at`, and again after `wait_ms`.
    Greeting { at: Millis, wait_ms: u32 },
    /// The gateway has answered.
    Welcomed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Births {
    /// The gateway knows the schema.
    Known,
    /// This one is next.
    Sending(u8),
    /// All were sent; unless they are acknowledged, start over at this time.
    Sent(Millis),
}

#[derive(Debug)]
struct GapSent {
    to: Seq,
    at: Millis,
}

impl Sender {
    /// A device that has just started. Over a serial line it greets at once, over MQTT once a gateway is
    /// [present](Self::presence).
    pub const fn new(transport: Transport) -> Self {
        let state = match transport {
            Transport::Serial => State::Greeting { at: Millis(0), wait_ms: HELLO_MS },
            Transport::Mqtt => State::Detached,
        };
        Self {
            transport,
            state,
            epoch: None,
            boot: None,
            received: Seq(0),
            released: Seq(0),
            credit: 0,
            births: Births::Known,
            reply: None,
            window: Window::new(),
            sent: Seq(0),
            gap_sent: None,
            probe: None,
            round_trip: RoundTrip::new(),
            spoke_at: Millis(0),
            heard_at: Millis(0),
        }
    }

    /// Takes one message of the gateway. Rows before [`released`](Self::released) may be freed then.
    ///
    /// # Errors
    ///
    /// The message was ignored.
    pub fn handle(
        &mut self,
        now: Millis,
        message: &[u8],
        chip: &ChipId,
        backlog: &Backlog,
    ) -> Result<(), SenderError> {
        match FromGateway::parse(message)? {
            FromGateway::Welcome(welcome) => self.welcome(now, &welcome, chip, backlog),
            FromGateway::Ack(ack) => self.ack(now, &ack, backlog),
            FromGateway::TimeRequest(TimeRequest { epoch, token }) => {
                self.hear(now, epoch)?;
                self.reply = Some(token);
                Ok(())
            }
            FromGateway::Reject(reject) => {
                if reject.code == RejectCode::WRONG_BOOT && self.state == State::Welcomed {
                    self.greet(now);
                }
                Ok(())
            }
            FromGateway::Presence(presence) => {
                self.presence(now, Some(&presence));
                Ok(())
            }
        }
    }

    /// Over MQTT: a gateway is there, or none is any more.
    pub fn presence(&mut self, now: Millis, presence: Option<&Presence>) {
        match presence {
            None => {
                self.state = State::Detached;
                self.reply = None;
            }
            Some(presence) => {
                if self.state == State::Detached || self.epoch != Some(presence.epoch) {
                    self.greet(now);
                }
            }
        }
    }

    /// What to send now, if anything. What it says must be sent.
    pub fn poll_transmit(&mut self, now: Millis, backlog: &Backlog) -> Option<Transmit> {
        // What made room in the ring cannot be sent again.
        self.window.forget(backlog.oldest);
        if is_due(self.silence_due(), now) {
            self.greet(now);
        }
        let transmit = self.choose(now, backlog)?;
        self.spoke_at = now;
        Some(transmit)
    }

    /// When [`poll_transmit`](Self::poll_transmit) will have something to say, if nothing happens before.
    pub fn poll_timeout(&self, backlog: &Backlog) -> Option<Millis> {
        [
            self.reply.map(|_| Millis(0)),
            self.hello_due(),
            self.births_due(),
            self.gap_due(backlog),
            self.repeat_due(),
            self.block_due(backlog).map(|_| Millis(0)),
            self.status_due(backlog),
            self.silence_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The block with these rows is being sent.
    pub fn block_sent(&mut self, now: Millis, rows: SeqRange) {
        self.window.sent(now, rows);
        self.sent = self.sent.max(rows.to);
    }

    /// The last byte of the block has been handed to the line, so the wait for its acknowledgement
    /// begins now: on a slow line a block takes longer to send than its answer to come.
    pub fn block_left(&mut self, now: Millis, rows: SeqRange) {
        self.window.left(now, rows);
    }

    /// Whether a block that is sealed now would be sent at once. Until then an open block had better
    /// fill up.
    pub fn wants_block(&self, backlog: &Backlog) -> bool {
        self.may_send_block() && self.unsent(backlog) == backlog.sealed
    }

    /// Whether a gateway has let the device in.
    pub fn is_connected(&self) -> bool {
        self.state == State::Welcomed
    }

    /// The boot that a gateway assigned, if one has.
    pub const fn boot(&self) -> Option<Boot> {
        self.boot
    }

    /// One past the last row that may be freed.
    pub const fn released(&self) -> Seq {
        self.released
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

    fn choose(&mut self, now: Millis, backlog: &Backlog) -> Option<Transmit> {
        if let Some(token) = self.reply.take() {
            return Some(Transmit::TimeReply(token));
        }
        if is_due(self.hello_due(), now) {
            if let State::Greeting { at, wait_ms } = &mut self.state {
                *at = now.plus(*wait_ms);
                *wait_ms = (*wait_ms << 1).min(RTO_MS_MAX);
            }
            return Some(Transmit::Hello);
        }
        if is_due(self.births_due(), now) {
            return Some(self.next_birth(now, backlog));
        }
        if is_due(self.gap_due(backlog), now) {
            if let Some(before) = self.gap_sent.as_ref().filter(|before| Some(before.to) == backlog.lost_to) {
                self.round_trip.timed_out(now, before.at);
            }
            self.gap_sent = backlog.lost_to.map(|to| GapSent { to, at: now });
            return Some(Transmit::Gap);
        }
        if is_due(self.repeat_due(), now)
            && let Some(row) = self.window.take_missing(now, &mut self.round_trip)
        {
            return Some(Transmit::Block(row));
        }
        if let Some(row) = self.block_due(backlog) {
            self.probe = None;
            return Some(Transmit::Block(row));
        }
        if is_due(self.status_due(backlog), now) {
            self.probe = self.probe_due(backlog).map(|_| {
                let wait =
                    self.probe.map_or(self.round_trip.rto_ms(), |(_, wait)| (wait << 1).min(RTO_MS_MAX));
                (now.plus(wait), wait)
            });
            return Some(Transmit::Status);
        }
        None
    }

    fn next_birth(&mut self, now: Millis, backlog: &Backlog) -> Transmit {
        let index = if let Births::Sending(index) = self.births { index } else { 0 };
        self.births = if index + 1 < backlog.births {
            Births::Sending(index + 1)
        } else {
            Births::Sent(now.plus(self.repeat_ms()))
        };
        Transmit::Birth(index)
    }

    // The timers: when is each due, if at all?

    fn hello_due(&self) -> Option<Millis> {
        if let State::Greeting { at, .. } = self.state { Some(at) } else { None }
    }

    fn births_due(&self) -> Option<Millis> {
        match self.births {
            _ if self.state != State::Welcomed => None,
            Births::Known => None,
            Births::Sending(_) => Some(Millis(0)),
            Births::Sent(again) => Some(again),
        }
    }

    fn gap_due(&self, backlog: &Backlog) -> Option<Millis> {
        let to = backlog.lost_to.filter(|to| self.is_connected() && self.received.is_before(*to))?;
        match &self.gap_sent {
            Some(sent) if sent.to == to => Some(sent.at.plus(self.repeat_ms())),
            Some(_) | None => Some(Millis(0)),
        }
    }

    /// Over MQTT it is the broker that sends again.
    fn repeat_due(&self) -> Option<Millis> {
        let repeats = self.transport == Transport::Serial && self.is_connected();
        self.window.missing_due(self.round_trip.rto_ms()).filter(|_| repeats)
    }

    /// The first row of the block to be sent next, if one may be.
    fn block_due(&self, backlog: &Backlog) -> Option<Seq> {
        let row = self.unsent(backlog);
        (self.may_send_block() && row.is_before(backlog.sealed)).then_some(row)
    }

    fn status_due(&self, backlog: &Backlog) -> Option<Millis> {
        if !self.is_connected() {
            return None;
        }
        let keepalive = self.spoke_at.plus(KEEPALIVE_MS);
        Some(self.probe_due(backlog).map_or(keepalive, |probe| probe.min(keepalive)))
    }

    /// Rows wait without credit, and nothing else is on its way that would be answered: the message that
    /// gave credit may be lost.
    fn probe_due(&self, backlog: &Backlog) -> Option<Millis> {
        let waits = self.unsent(backlog).is_before(backlog.sealed) && self.window.all_acked();
        if self.transport == Transport::Mqtt
            || self.births != Births::Known
            || !waits
            || self.may_send_block()
        {
            return None;
        }
        Some(self.probe.map_or(self.heard_at.plus(self.round_trip.rto_ms()), |(due, _)| due))
    }

    fn silence_due(&self) -> Option<Millis> {
        self.is_connected().then(|| self.heard_at.plus(SILENCE_MS))
    }

    /// How long to wait before something other than a block is repeated.
    fn repeat_ms(&self) -> u32 {
        match self.transport {
            Transport::Serial => self.round_trip.rto_ms(),
            Transport::Mqtt => RTO_MS_MAX,
        }
    }

    fn may_send_block(&self) -> bool {
        self.is_connected() && self.births == Births::Known && self.window.has_room(self.credit)
    }

    /// The first row that was not sent since the welcome.
    fn unsent(&self, backlog: &Backlog) -> Seq {
        self.window.end().unwrap_or(self.received).max(backlog.oldest)
    }

    // What the gateway said.

    fn greet(&mut self, now: Millis) {
        self.state = State::Greeting { at: now, wait_ms: HELLO_MS };
        self.reply = None;
    }

    fn welcome(
        &mut self,
        now: Millis,
        welcome: &Welcome,
        chip: &ChipId,
        backlog: &Backlog,
    ) -> Result<(), SenderError> {
        let for_us = welcome.chip == *chip && self.boot.is_none_or(|boot| boot == welcome.boot);
        if !for_us || self.state == State::Detached {
            return Err(SenderError::NotForUs);
        }
        let Welcome { received, released, .. } = *welcome;
        if backlog.sealed.is_before(received) || received.is_before(released) {
            return Err(SenderError::Sequence);
        }
        self.state = State::Welcomed;
        self.epoch = Some(welcome.epoch);
        self.boot = Some(welcome.boot);
        // A gateway that knows less than an earlier one cannot bring rows back.
        self.released = self.released.max(released);
        self.received = received;
        self.sent = received;
        self.credit = welcome.credit;
        self.births = if welcome.wants_birth { Births::Sending(0) } else { Births::Known };
        self.window.clear();
        self.gap_sent = None;
        self.probe = None;
        self.heard_at = now;
        Ok(())
    }

    fn ack(&mut self, now: Millis, ack: &Ack, backlog: &Backlog) -> Result<(), SenderError> {
        self.hear(now, ack.epoch)?;
        if self.boot != Some(ack.boot) {
            return Err(SenderError::NotForUs);
        }
        let Ack { received, released, .. } = *ack;
        let goes_back = received.is_before(self.received);
        if goes_back || backlog.sealed.is_before(received) || received.is_before(released) {
            return Err(SenderError::Sequence);
        }
        self.received = received;
        self.released = self.released.max(released);
        self.credit = ack.credit;
        if ack.births {
            self.births = Births::Known;
        }
        self.window.settle(now, ack, &mut self.round_trip);
        Ok(())
    }

    /// Notes a sign of life, and a restart of the gateway.
    fn hear(&mut self, now: Millis, epoch: Epoch) -> Result<(), SenderError> {
        if self.state != State::Welcomed {
            return Err(SenderError::NotForUs);
        }
        if self.epoch != Some(epoch) {
            self.greet(now);
            return Err(SenderError::NotForUs);
        }
        self.heard_at = now;
        Ok(())
    }
}

fn is_due(due: Option<Millis>, now: Millis) -> bool {
    due.is_some_and(|due| due <= now)
}

/// Why a message of the gateway was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderError {
    /// It cannot be read.
    Message(MessageError),
    /// It is meant for another device, another boot or another state.
    NotForUs,
    /// It acknowledges rows that were never numbered, or takes back what it acknowledged.
    Sequence,
}

impl From<MessageError> for SenderError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

impl fmt::Display for SenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => error.fmt(f),
            Self::NotForUs => f.write_str("message is meant for another device, boot or state"),
            Self::Sequence => f.write_str("message acknowledges rows that do not exist"),
        }
    }
}

impl core::error::Error for SenderError {}

#[cfg(test)]
mod tests {
    use std::vec::Vec as Many;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Body, Reject};

    const BOOT: Boot = Boot::new(9).unwrap();
    const EPOCH: Epoch = Epoch(1);
    const START: Millis = Millis(1000);

    /// A sender, and a ring in which each block has ten rows.
    struct Bench {
        sender: Sender,
        chip: ChipId,
        backlog: Backlog,
    }

    impl Bench {
        fn new(transport: Transport) -> Self {
            let backlog = Backlog { oldest: Seq(0), sealed: Seq(1000), lost_to: None, births: 2 };
            Self { sender: Sender::new(transport), chip: ChipId::new(&[1]).unwrap(), backlog }
        }

        fn welcomed(transport: Transport, credit: u8) -> Self {
            let mut bench = Self::new(transport);
            if transport == Transport::Mqtt {
                bench.sender.presence(START, Some(&presence(EPOCH)));
            }
            assert_eq!(bench.next(START), Some(Transmit::Hello));
            bench.hear(START, &bench.welcome(credit)).unwrap();
            bench
        }

        fn welcome(&self, credit: u8) -> Welcome {
            let (released, received) = (Seq(0), Seq(0));
            let (wants_birth, chip) = (false, self.chip.clone());
            Welcome { epoch: EPOCH, boot: BOOT, released, received, wants_birth, credit, chip }
        }

        fn hear<B: Body>(&mut self, now: Millis, body: &B) -> Result<(), SenderError> {
            self.sender.handle(now, &body.to_message(), &self.chip, &self.backlog)
        }

        fn next(&mut self, now: Millis) -> Option<Transmit> {
            let due = self.sender.poll_timeout(&self.backlog);
            let transmit = self.sender.poll_transmit(now, &self.backlog);
            assert_eq!(transmit.is_some(), due.is_some_and(|due| due <= now), "{due:?}: {transmit:?}");
            if let Some(Transmit::Block(row)) = transmit {
                let from = Seq(row.0 / 10 * 10);
                self.sender.block_sent(now, SeqRange { from, to: from.plus(10) });
            }
            transmit
        }

        /// The rows with which the blocks begin that are sent now; nothing else is.
        fn blocks(&mut self, now: Millis) -> Many<u32> {
            let mut rows = Many::new();
            while let Some(transmit) = self.next(now) {
                let Transmit::Block(row) = transmit else { panic!("{transmit:?}") };
                rows.push(row.0);
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
        let mut at = Millis(0);
        for wait in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            assert_eq!(bench.next(at), Some(Transmit::Hello));
            assert_eq!(bench.next(at.plus(wait - 1)), None);
            at = at.plus(wait);
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
        bench.sender.block_left(START.plus(260), SeqRange { from: Seq(0), to: Seq(10) });
        assert_eq!(bench.blocks(START.plus(1259)), []);
        assert_eq!(bench.blocks(START.plus(1260)), [0]);
    }

    #[test]
    fn over_a_broker_blocks_are_sent_once_a_welcome() {
        let mut bench = Bench::welcomed(Transport::Mqtt, 2);
        assert_eq!(bench.blocks(START), [0, 10]);
        assert_eq!(bench.next(START.plus(3999)), None);
        assert_eq!(bench.next(START.plus(4000)), Some(Transmit::Status));
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
            assert_eq!(bench.next(at), Some(Transmit::Status));
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
            let _ = bench.sender.handle(START, &restart, &bench.chip, &bench.backlog);
            assert_eq!(bench.next(START) == Some(Transmit::Hello), greets, "{restart:?}");
        }
    }

    #[test]
    fn without_a_gateway_the_sender_is_silent() {
        let mut bench = Bench::welcomed(Transport::Mqtt, 4);
        bench.sender.presence(START, None);
        assert_eq!(
            (bench.next(START.plus(100_000)), bench.sender.poll_timeout(&bench.backlog)),
            (None, None)
        );
        assert_eq!(bench.hear(START, &bench.welcome(4)), Err(SenderError::NotForUs));
        bench.sender.presence(START, Some(&presence(EPOCH)));
        assert_eq!(bench.next(START), Some(Transmit::Hello));
    }

    #[test]
    fn a_silent_gateway_is_greeted() {
        let mut bench = Bench::welcomed(Transport::Serial, 0);
        bench.backlog.sealed = Seq(0);
        for at in [4000, 8000, 12_000] {
            assert_eq!(bench.next(START.plus(at)), Some(Transmit::Status));
        }
        assert_eq!(bench.next(START.plus(14_999)), None);
        assert_eq!(bench.next(START.plus(15_000)), Some(Transmit::Hello));
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
        assert_eq!((bench.sender.received(), bench.sender.released()), (Seq(10), Seq(0)));
    }

    #[test]
    fn it_stays_small() {
        assert!(size_of::<Sender>() <= 700, "{}", size_of::<Sender>());
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
                let _ = bench.sender.handle(START, &message, &bench.chip, &bench.backlog);
                while bench.next(START).is_some() {}
                let (released, sealed) = (bench.sender.released(), bench.backlog.sealed);
                prop_assert!(!sealed.is_before(released), "{released} is released, {sealed} is sealed");
            }
        }
    }
}
