//! What is due on a connection besides what comes: acks, native sessions, held messages, signs of life, the steps of a
//! shutdown.

use super::alarm::HELD_BACK_MS;
use super::link::LinkError;
use super::outbox::KEEP_ALIVE_S;
use super::queues::{Acks, Waiting};
use super::{Broker, Now};
use crate::clock;
use crate::journal::entry::MessageEntry;
use crate::record::Offset;

/// How long a shutdown waits for the broker to read the last acks and the goodbye, and to close the connection.
const LEAVE_MS: u64 = 3_000;

/// Pause before a held message is tried again even without news of room, in milliseconds.
pub(super) const RETRY_MS: u64 = 1_000;

/// How long a ping may go unanswered.
const DEAD_MS: u64 = KEEP_ALIVE_S as u64 * 1_000;

/// How long after a message others are expected.
const FLOW_MS: u64 = 2_000;

/// What belongs to one connection.
#[derive(Default)]
pub(super) struct Life {
    pub(super) acks: Acks,
    pub(super) waiting: Waiting,
    pub(super) subscribing: Option<Subscribing>,
    /// Subscriptions that are not answered yet.
    pub(super) grants_due: usize,
    /// When the next thing is due, in monotonic milliseconds: of the native sessions.
    pub(super) fleet_due: Option<u64>,
    /// Held messages are tried again then.
    pub(super) retry_at: Option<u64>,
    pub(super) ping_at: u64,
    /// A ping that was not answered yet was sent then.
    pub(super) pinged_at: Option<u64>,
    /// Half of what the broker allows between two signs of life.
    pub(super) ping_every_ms: u64,
    /// Whether a message has come since this was last looked after.
    pub(super) has_heard: bool,
    /// Until then another message is expected any moment.
    flows_until: u64,
    /// Whether the broker refused a subscription.
    pub(super) is_refused: bool,
    /// Whether a message was acked.
    pub(super) has_acked: bool,
    /// When this is to be looked after again, by its own word.
    due: Option<u64>,
    /// When the shutdown gives up waiting.
    pub(super) closing: Option<Closing>,
}

/// What comes before the subscriptions, so that nothing comes before it.
#[derive(Clone, Copy)]
pub(super) enum Subscribing {
    /// The session that begins is to be journaled, once that is possible; it began then, in steady nanoseconds.
    Begin(MessageEntry, i64),
    /// It is journaled, and durable then.
    Begun(Offset),
}

/// How far a shutdown is.
#[derive(Clone, Copy)]
pub(super) enum Closing {
    /// Acks are due until then.
    Acks(u64),
    /// Goodbye is said; the broker has until then to close the connection. Closing it ourselves, with bytes unread, would
    /// throw away the acks that the broker has not read.
    Left(u64),
}

impl Broker {
    /// Does what is due: acks, native sessions, held messages, signs of life, the steps of a shutdown. Returns when to
    /// look again, in milliseconds of the monotonic clock.
    pub(super) fn tend(&mut self) -> Result<u64, LinkError> {
        let durable = *self.watermark.borrow_and_update();
        let now = clock::monotonic_ms();
        if self.life.retry_at.is_some_and(|at| at <= now) {
            self.try_again(now);
        }
        if let Some(Subscribing::Begun(receipt)) = self.life.subscribing
            && receipt <= *self.durable.borrow_and_update()
        {
            self.life.subscribing = None;
            self.subscribe();
        }
        let births_due = self.sparkplug.tend(now, &self.reporter);
        while let Some(ack) = self.life.acks.next(durable) {
            self.outbox.ack(ack.packet, ack.qos);
            if let Some(number) = ack.listed {
                self.resent.acked(number);
            }
            self.reporter.stats().rows_acked.add(ack.rows);
            self.life.has_acked = true;
        }
        if self.fleet.awaits_commit() || self.life.fleet_due.is_some_and(|at| at <= now) {
            self.life.fleet_due = self.fleet.tend(Now::read(), durable, &mut self.outbox, &self.reporter);
        }
        let sign_due = self.tend_signs(now)?;
        let close_due = self.tend_closing(now)?;
        // A broker keeps nothing for a session that has not subscribed.
        let subscribing_ns = match self.life.subscribing {
            Some(Subscribing::Begin(_, since_ns)) => Some(since_ns),
            Some(Subscribing::Begun(_)) | None => None,
        };
        let oldest_ns = self.life.acks.oldest_ns().or(self.life.waiting.oldest_ns()).or(subscribing_ns);
        let oldest = oldest_ns.map(|ns| now.saturating_sub(age_ms(ns)));
        let alarm_due = self.alarm.tend(now, oldest, self.life.due.unwrap_or(now), &self.reporter);
        if std::mem::take(&mut self.life.has_heard) {
            self.life.flows_until = now + FLOW_MS;
        }
        // Whoever has nothing to do for long cannot tell that from having been stopped.
        let flow_due = (now < self.life.flows_until).then_some(now + HELD_BACK_MS);
        let due = [
            self.life.fleet_due,
            self.life.retry_at,
            births_due,
            close_due,
            alarm_due,
            flow_due,
            Some(sign_due),
        ];
        let due = due.into_iter().flatten().min().unwrap_or(sign_due);
        self.life.due = Some(due.max(now));
        Ok(due)
    }

    /// Tries again what had no room: the beginning of a session, and held messages, the oldest first.
    fn try_again(&mut self, now: u64) {
        self.room.borrow_and_update();
        if let Some(Subscribing::Begin(beginning, _)) = self.life.subscribing {
            match self.context.ingest.remember(beginning) {
                Ok(receipt) => self.life.subscribing = Some(Subscribing::Begun(receipt)),
                Err(e) => self.reporter.trouble("room", &format!("subscriptions wait: {e}")),
            }
        }
        while let Some(mut held) = self.life.waiting.take() {
            let mut coming = held.coming;
            if !self.take(&held.message(), &mut coming) {
                held.coming = coming;
                self.life.waiting.put_back(held);
                break;
            }
        }
        let is_held_up =
            !self.life.waiting.is_empty() || matches!(self.life.subscribing, Some(Subscribing::Begin(..)));
        self.life.retry_at = is_held_up.then_some(now + RETRY_MS);
        self.reporter.stats().waiting.set(self.life.waiting.len());
    }

    /// Keeps the connection alive, and finds out whether it is. While nothing is read, no answer can be seen.
    fn tend_signs(&mut self, now: u64) -> Result<u64, LinkError> {
        if now >= self.life.ping_at {
            self.outbox.ping();
            self.life.ping_at = now + self.life.ping_every_ms;
            self.life.pinged_at.get_or_insert(now);
        }
        if self.life.waiting.is_overfull() {
            self.life.pinged_at = self.life.pinged_at.map(|_| now);
        }
        match self.life.pinged_at {
            Some(at) if now >= at + DEAD_MS => Err(LinkError::Dead(DEAD_MS / 1_000)),
            Some(at) => Ok(self.life.ping_at.min(at + DEAD_MS)),
            None => Ok(self.life.ping_at),
        }
    }

    fn tend_closing(&mut self, now: u64) -> Result<Option<u64>, LinkError> {
        match self.life.closing {
            None => Ok(None),
            Some(Closing::Acks(until)) if now < until && !self.life.acks.is_empty() => Ok(Some(until)),
            Some(Closing::Acks(_)) => {
                if !self.life.acks.is_empty() {
                    let what = "some messages are not acked at the end; the broker will send them again";
                    self.reporter.trouble("close", what);
                }
                self.fleet.handle_closing(&mut self.outbox);
                self.outbox.leave();
                self.life.closing = Some(Closing::Left(now + LEAVE_MS));
                Ok(Some(now + LEAVE_MS))
            }
            Some(Closing::Left(until)) if now < until => Ok(Some(until)),
            Some(Closing::Left(_)) => Err(LinkError::Closed("")),
        }
    }
}

/// How long ago something came, by nanoseconds of the steady clock.
fn age_ms(received_ns: i64) -> u64 {
    u64::try_from(clock::steady_ns().saturating_sub(received_ns) / 1_000_000).unwrap_or_default()
}
