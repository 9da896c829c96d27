//! In: messages of one native device, from a serial line or through a broker. Out: dated rows and gaps, and
//! the messages that answer them: welcome, time requests, acks of what is received and of what is durable.
//! Next: `ingest/mod.rs`.
//!
//! A [`Session`] is one conversation with one device, without IO: the source hands messages in, tells it how far the
//! journal is durable, and sends what it asks to be sent. The order of a conversation: hello, welcome without credit,
//! births where the schema is unknown, a burst of time exchanges, then credit and rows, and an exchange now and then. What
//! the journal has no room for waits here, at most what the credit allows, while the credit is taken back.

mod anchors;
mod clocks;
mod device;
mod margin;

use std::collections::VecDeque;
use std::sync::Arc;

use forebay_shared::ids::{Millis, Token};
use forebay_shared::link::{Event, Known, Receiver, Terms, Transport};
use forebay_shared::message::{Birth, GapCause, Hello, Kind, Message, RejectCode};
use forebay_shared::reading::{Description, Schema, SchemaBuilder};

pub use clocks::Clocks;
pub use device::Schemas;

use device::{Device, Lot, Release, Waiting, new_exchanges};
use margin::Margin;

use super::{Context, Reporter};
use crate::clock;
use crate::ingest::{Admission, AdmitError, NativeError, cause_of};
use crate::journal::Refused;
use crate::record::{Offset, SeriesKey};
use crate::stats::NativeClock;

/// Blocks that a device may have outstanding while there is room for them.
const CREDIT: u8 = 16;

/// Rows and gaps that may wait for room; a device that sends more than its credit is asked to start over.
const WAITING_MAX: usize = 4 * CREDIT as usize;

/// How long a hole may stand before a device behind a broker is welcomed again, in milliseconds.
const STALL_MS: u32 = 5_000;

/// Pause before what was refused is tried again even without news of room, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// An instant, by the clocks that a session needs.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic milliseconds.
    pub ms: Millis,
    /// Nanoseconds of the clock that never steps.
    pub steady_ns: i64,
}

impl Now {
    /// The present instant.
    #[must_use]
    pub fn read() -> Now {
        Now { ms: Millis(clock::monotonic_ms()), steady_ns: clock::steady_ns() }
    }
}

/// One conversation with one device.
pub struct Session {
    context: Context,
    transport: Transport,
    receiver: Box<Receiver>,
    device: Option<Device>,
    /// A hello that could not be answered yet, and when it is looked at again.
    unanswered: Option<(Hello, Millis)>,
}

impl Session {
    /// A conversation in which nothing has been said.
    #[must_use]
    pub fn new(context: Context, transport: Transport) -> Session {
        let mut receiver = Box::new(Receiver::new(context.epoch));
        if transport == Transport::Serial {
            receiver.ask_for_hello();
        }
        Session { context, transport, receiver, device: None, unanswered: None }
    }

    /// Takes one message of the device.
    pub fn handle(&mut self, now: Now, message: &[u8], reporter: &Reporter) {
        if let Err(e) = self.receiver.handle(now.ms, message) {
            // A device that speaks before it was let in is asked for its hello; that is how every restart begins.
            if self.device.is_some() {
                reporter.trouble("link", &format!("a message of {} is refused: {e}", self.label()));
            }
        }
        self.handle_events(now, reporter);
        self.drain(now, reporter);
    }

    /// The line or broker was connected anew: the clock is asked again, and the device sends what is missing.
    pub fn handle_connected(&mut self, now: Now) {
        if let Some(device) = &mut self.device {
            let resumed_at = self.receiver.hello().and_then(|hello| hello.resumed_at);
            device.exchanges = new_exchanges();
            device.margin = Margin::new(now.ms);
            device.clock.lock().map.handle_connected(resumed_at);
            // The exchange that ends the burst hands over what waits.
            (device.retry_at, device.has_credit) = (None, false);
            self.receiver.set_credit(now.ms, 0);
            self.receiver.welcome_again(now.ms);
        }
    }

    /// Everything below `durable` is on disk, or time has passed: releases rows and tries again what had no room.
    pub fn tend(&mut self, now: Now, durable: Offset, reporter: &Reporter) {
        if let Some((hello, at)) = self.unanswered.take() {
            if at <= now.ms {
                self.welcome(now, hello, reporter);
                self.handle_events(now, reporter);
            } else {
                self.unanswered = Some((hello, at));
            }
        }
        if let Some(device) = &mut self.device {
            while let Some(release) = device.releases.pop_front_if(|release| release.receipt <= durable) {
                self.receiver.release(now.ms, release.to);
                reporter.stats().rows_acked.add(release.rows);
            }
        }
        let stalled = self.receiver.stalled_since().is_some_and(|since| now.ms.since(since) >= STALL_MS);
        if self.transport == Transport::Mqtt && stalled {
            self.receiver.welcome_again(now.ms);
        }
        self.drain(now, reporter);
    }

    /// The next message for the device. A time request is dated now, so it is to be sent at once.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Message> {
        if let Some(device) = &mut self.device
            && let Some(token) = device.exchanges.poll_request(now.ms.0, now.steady_ns)
        {
            self.receiver.request_time(Token(token));
        }
        self.receiver.poll_transmit(now.ms)
    }

    /// When [`Session::tend`] wants to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let device = self.device.as_ref();
        let exchange = device.map(|device| Millis(device.exchanges.poll_timeout()));
        let stall = match self.transport {
            Transport::Mqtt => self.receiver.stalled_since().map(|since| since.plus(STALL_MS)),
            Transport::Serial => None,
        };
        let unanswered = self.unanswered.as_ref().map(|(_, at)| *at);
        let retry = device.and_then(|device| device.retry_at);
        [self.receiver.poll_timeout(), exchange, stall, unanswered, retry].into_iter().flatten().min()
    }

    /// Whether a durable offset would release something.
    #[must_use]
    pub fn awaits_commit(&self) -> bool {
        self.device.as_ref().is_some_and(|device| !device.releases.is_empty())
    }

    fn label(&self) -> String {
        self.device.as_ref().map_or_else(
            || "a device that has not said hello".to_owned(),
            |device| format!("device {} ({})", device.admission.name, device.admission.device),
        )
    }

    fn handle_events(&mut self, now: Now, reporter: &Reporter) {
        while let Some(event) = self.receiver.poll_event() {
            self.handle_event(now, event, reporter);
        }
    }

    fn handle_event(&mut self, now: Now, event: Event, reporter: &Reporter) {
        match event {
            Event::Hello(hello) => self.welcome(now, hello, reporter),
            Event::Birth(birth) => self.handle_birth(now, birth, reporter),
            Event::TimeReply { token, tick } => {
                let Some(device) = &mut self.device else { return };
                let Some((round_trip_ns, rate_ppb)) = device.handle_time(now, token.0, tick) else { return };
                let known = NativeClock { error_ns: round_trip_ns / 2, rate_ppb };
                self.context.stats.natives.set_clock(&device.admission.device, known);
                if device.exchanges.burst_is_over() && !device.has_credit && device.retry_at.is_none() {
                    device.has_credit = true;
                    tracing::info!(
                        device = device.admission.device,
                        name = device.admission.name,
                        boot = device.admission.boot.get(),
                        round_trip_us = round_trip_ns / 1_000,
                        "clock of the device is known"
                    );
                    self.receiver.set_credit(now.ms, CREDIT);
                }
            }
            Event::Status(status) => {
                if let Some(device) = &mut self.device {
                    let trouble = device.margin.handle_status(now.ms, status.ring_used, status.ring_size);
                    device.tell_of_ring(trouble, reporter);
                    let next = self.receiver.learned().map_or(u64::from(status.next.0), |next| next.0);
                    self.context.stats.learn(&device.admission.device, status.boot.get(), next);
                }
            }
            Event::Rows { from, to, skip, block } => {
                self.enqueue(
                    Waiting { from, to, what: Lot::Block { skip, bytes: Box::new(block) } },
                    reporter,
                );
            }
            Event::Gap { from, to, cause } => {
                if let Some(device) = self.device.as_ref().filter(|_| cause == GapCause::OVERFLOW) {
                    device.tell_of_ring(device.margin.handle_overflow(now.ms), reporter);
                }
                self.enqueue(Waiting { from, to, what: Lot::Lost(cause_of(cause)) }, reporter);
            }
        }
    }

    fn enqueue(&mut self, waiting: Waiting, reporter: &Reporter) {
        let Some(device) = &mut self.device else { return };
        // A gap that grows while it waits is one gap.
        if let (Some(Waiting { to, what: Lot::Lost(before), .. }), Lot::Lost(cause)) =
            (device.waiting.back_mut(), &waiting.what)
            && before == cause
            && *to == waiting.from
        {
            *to = waiting.to;
            return;
        }
        device.waiting.push_back(waiting);
        if device.waiting.len() > WAITING_MAX {
            reporter.trouble("credit", &format!("{} sends more than it may", self.label()));
            self.start_over();
        }
    }

    /// Looks the device up and lets it in, or leaves its hello for later.
    fn welcome(&mut self, now: Now, hello: Hello, reporter: &Reporter) {
        self.device = None;
        self.unanswered = None;
        let admission = match self.context.ingest.admit(&hello, now.steady_ns) {
            Ok(admission) => admission,
            Err(AdmitError::DeviceLimit) => {
                reporter.trouble(
                    "limit",
                    &format!("device {} is refused: {}", hello.chip, AdmitError::DeviceLimit),
                );
                self.receiver.reject(RejectCode::DEVICE_LIMIT, Kind::Hello as u8);
                return;
            }
            Err(e) => {
                reporter.trouble("hello", &format!("device {} has to wait: {e}", hello.chip));
                self.unanswered = Some((hello, now.ms.plus(RETRY_MS)));
                return;
            }
        };
        let schema = self.context.schemas.get(&admission.device, hello.schema);
        let series = schema.and_then(|schema| self.with_series(&admission, schema, reporter));
        // What is journaled and not yet durable is not released before it is.
        let oldest = admission.next.extend(hello.oldest).unwrap_or(admission.next);
        let known = Known { next: admission.next, released: oldest.min(admission.next) };
        let terms =
            Terms { boot: admission.boot, known: Some(known), wants_birth: series.is_none(), credit: 0 };
        if let Err(e) = self.receiver.welcome(now.ms, terms) {
            reporter.trouble("hello", &format!("device {} is not let in: {e}", admission.device));
            self.receiver.reject(RejectCode::WRONG_BOOT, Kind::Hello as u8);
            return;
        }
        // A device that has just been given its boot may not have heard of it: what it holds is not lost with it.
        if hello.boot.is_some() {
            let next = admission.next.extend(hello.next).unwrap_or(admission.next);
            self.context.stats.learn(&admission.device, admission.boot.get(), next.0);
        }
        tracing::info!(
            source = reporter.name(),
            device = admission.device,
            name = admission.name,
            boot = admission.boot.get(),
            next = admission.next.0,
            "device is let in"
        );
        let groups = series.as_ref().map_or(0, |(_, series)| series.len());
        let builder = series.is_none().then(|| Box::new(SchemaBuilder::new(hello.schema)));
        let release = Release { receipt: admission.receipt, to: admission.next, rows: 0 };
        self.device = Some(Device {
            exchanges: new_exchanges(),
            clock: self.context.clocks.begin(&admission, &hello),
            builder,
            schema: series,
            last_ns: vec![admission.last_ns; groups],
            waiting: VecDeque::new(),
            retry_at: None,
            has_credit: false,
            margin: Margin::new(now.ms),
            releases: VecDeque::from([release]),
            admission,
        });
    }

    fn handle_birth(&mut self, now: Now, birth: Birth, reporter: &Reporter) {
        let label = self.label();
        let Some(device) = &mut self.device else { return };
        let Some(builder) = &mut device.builder else {
            // A repetition of what is known.
            self.receiver.births_complete(now.ms);
            return;
        };
        let schema = match builder.insert(birth.index, birth.count, birth.description) {
            Ok(None) => return,
            Ok(Some(schema)) => schema,
            Err(e) => {
                reporter.trouble("birth", &format!("the channels that {label} announces are refused: {e}"));
                return;
            }
        };
        device.builder = None;
        let admission = device.admission.clone();
        let schema = self.context.schemas.insert(&admission.device, birth.schema, schema);
        let series = self.with_series(&admission, schema, reporter);
        if let (Some(device), Some(series)) = (&mut self.device, series) {
            device.last_ns = vec![admission.last_ns; series.1.len()];
            device.schema = Some(series);
            self.receiver.births_complete(now.ms);
        }
    }

    fn with_series(
        &self,
        admission: &Admission,
        schema: Arc<Schema>,
        reporter: &Reporter,
    ) -> Option<(Arc<Schema>, Vec<SeriesKey>)> {
        let name = |group: &[Description]| {
            group.first().map(|channel| channel.group_name.clone()).unwrap_or_default()
        };
        let series: Result<Vec<SeriesKey>, _> =
            schema.groups().map(|group| self.context.ingest.native_series(admission, &name(group))).collect();
        match series {
            Ok(series) => {
                self.context.stats.natives.describe(&admission.device, &schema);
                Some((schema, series))
            }
            Err(e) => {
                reporter.trouble("birth", &format!("device {} cannot be stored: {e}", admission.device));
                None
            }
        }
    }

    /// Hands over what waits, as long as it can be dated and there is room.
    fn drain(&mut self, now: Now, reporter: &Reporter) {
        let Some(device) = self.device.as_mut().filter(|device| device.can_date()) else { return };
        let was_waiting = device.retry_at.take().is_some();
        while let Some(waiting) = device.waiting.pop_front() {
            match device.hand_over(&self.context.ingest, &waiting, now, reporter) {
                Ok(release) => {
                    reporter.stats().rows_received.add(release.rows);
                    device.releases.push_back(release);
                }
                Err(NativeError::Refused(e)) => {
                    if !matches!(e, Refused::Busy) {
                        reporter
                            .trouble("room", &format!("device {} has to wait: {e}", device.admission.device));
                    }
                    device.waiting.push_front(waiting);
                    device.retry_at = Some(now.ms.plus(RETRY_MS));
                    self.receiver.set_credit(now.ms, 0);
                    return;
                }
                Err(e) => {
                    reporter.trouble("step", &format!("device {} starts over: {e}", device.admission.device));
                    self.start_over();
                    return;
                }
            }
        }
        if was_waiting {
            device.has_credit = true;
            self.receiver.set_credit(now.ms, CREDIT);
        }
        if let (Some(boot), Some(learned)) = (self.receiver.boot(), self.receiver.learned()) {
            self.context.stats.learn(&device.admission.device, boot.get(), learned.0);
        }
    }

    /// Forgets the conversation and asks the device for its hello. What was taken is safe in the journal; what waits
    /// is not released and comes again.
    fn start_over(&mut self) {
        *self.receiver = Receiver::new(self.context.epoch);
        self.receiver.reject(RejectCode::WRONG_BOOT, Kind::DataPlain as u8);
        self.device = None;
    }
}
