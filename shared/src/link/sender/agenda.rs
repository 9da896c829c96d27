//! All timers of the sender: what is due next, and what it means that it was sent.
//!
//! One function goes through them, so that whoever asks what to send and whoever asks when cannot disagree. Time is
//! counted in 32 bits and reckoned from the present, since a small chip has no more in a register.

use super::super::Transport;
use super::super::rtt::RTO_MS_MAX;
use super::super::window::Backlog;
use super::{Sender, State, Transmit};
use crate::ids::Stamp;

/// A device says something at least every 5 seconds: a second less leaves room for the line.
const KEEPALIVE_MS: u32 = 4000;
/// A gateway that was silent for so long has not answered three of them.
const SILENCE_MS: u32 = 15_000;
/// Nothing is due, however long one waits.
pub(super) const NEVER: u32 = u32::MAX;

/// What is to be sent next, and how long that has time.
pub(super) struct Agenda {
    pub(super) wait_ms: u32,
    pub(super) what: Transmit,
}

impl Agenda {
    #[inline(never)]
    fn add(&mut self, wait_ms: u32, what: Transmit) {
        if wait_ms < self.wait_ms {
            *self = Self { wait_ms, what };
        }
    }
}

impl Sender {
    /// Notes that this is sent now.
    #[inline(never)]
    pub(super) fn begin<B: Backlog>(&mut self, now: Stamp, what: Transmit, backlog: &mut B) {
        match what {
            Transmit::TimeReply(_) => self.reply = None,
            Transmit::Hello => {
                if self.is_connected() {
                    self.greet();
                }
                self.wait(now, State::Greeting);
                self.wait_ms = self.doubled_wait_ms();
            }
            Transmit::Birth(index) => {
                self.birth = index + 1;
                self.state = State::Announcing;
                if self.birth == self.channels {
                    self.birth = 0;
                    self.wait_ms = self.repeat_ms() as u16;
                    self.wait(now, State::Announced);
                }
            }
            Transmit::Gap => {
                let to = backlog.lost_to().unwrap_or(self.received);
                if self.gap_sent && self.gap_sent_to == to {
                    self.round_trip.timed_out(now, self.gap_sent_at);
                }
                (self.gap_sent, self.gap_sent_to, self.gap_sent_at) = (true, to, now);
            }
            Transmit::Block(place) => {
                self.state = State::Open;
                if let Some(rows) = self.window.sent(now, place, &mut self.round_trip, backlog) {
                    self.sent = self.sent.max(rows.to);
                }
            }
            Transmit::Status { asks: true } => {
                let asked = self.state == State::Asking;
                self.wait_ms = if asked { self.doubled_wait_ms() } else { self.round_trip.rto_ms() as u16 };
                self.wait(now, State::Asking);
            }
            Transmit::Status { asks: false } => self.state = self.state.min(State::Open),
        }
    }

    fn wait(&mut self, now: Stamp, state: State) {
        self.state = state;
        self.again_at = now.plus(u32::from(self.wait_ms));
    }

    fn doubled_wait_ms(&self) -> u16 {
        (u32::from(self.wait_ms) << 1).min(RTO_MS_MAX) as u16
    }

    /// What is to be sent next, and how long that has time. Of what is due at once, the first that stands here.
    pub(super) fn next<B: Backlog>(&self, now: Stamp, backlog: &B) -> Agenda {
        let mut agenda = Agenda { wait_ms: NEVER, what: Transmit::Hello };
        if self.is_connected() {
            agenda.wait_ms = now.until(self.heard_at.plus(SILENCE_MS));
        }
        if let Some(token) = self.reply {
            agenda.add(0, Transmit::TimeReply(token));
        }
        let again = now.until(self.again_at);
        match self.state {
            State::Detached => return agenda,
            State::Arriving => agenda.add(0, Transmit::Hello),
            State::Greeting => agenda.add(again, Transmit::Hello),
            State::Announcing => agenda.add(0, Transmit::Birth(self.birth)),
            State::Announced => agenda.add(again, Transmit::Birth(self.birth)),
            State::Open | State::Asking => {}
        }
        if self.is_connected() {
            let question = self.add_rows(now, backlog, &mut agenda);
            let keepalive = now.until(self.spoke_at.plus(KEEPALIVE_MS));
            agenda.add(keepalive.min(question), Transmit::Status { asks: question != NEVER });
        }
        agenda
    }

    /// What is to be sent of the rows. How long it is until the gateway is to be asked for credit.
    #[inline(never)]
    fn add_rows<B: Backlog>(&self, now: Stamp, backlog: &B, agenda: &mut Agenda) -> u32 {
        if let Some(to) = backlog.lost_to()
            && self.received.is_before(to)
        {
            let told = self.gap_sent && self.gap_sent_to == to;
            let wait_ms = if told { now.until(self.gap_sent_at.plus(self.repeat_ms())) } else { 0 };
            agenda.add(wait_ms, Transmit::Gap);
        }
        let survey = self.window.survey(now, self.round_trip.rto_ms(), backlog);
        // Over MQTT it is the broker that sends again.
        let repeats = self.transport == Transport::Serial;
        if let Some((place, wait_ms)) = survey.missing.filter(|_| repeats) {
            agenda.add(wait_ms, Transmit::Block(place));
        }
        if !self.has_unsent(backlog) {
            return NEVER;
        }
        if self.may_send_block(survey) {
            agenda.add(0, Transmit::Block(self.window.end(backlog)));
        } else if repeats && self.is_open() && survey.missing.is_none() {
            // Nothing is on its way that would be answered.
            let asked = self.state == State::Asking;
            let at = if asked { self.again_at } else { self.heard_at.plus(self.round_trip.rto_ms()) };
            return now.until(at);
        }
        NEVER
    }

    /// How long to wait before something other than a block is repeated.
    fn repeat_ms(&self) -> u32 {
        match self.transport {
            Transport::Serial => self.round_trip.rto_ms(),
            Transport::Mqtt => RTO_MS_MAX,
        }
    }
}
