//! A gateway reduced to what the link needs: it looks devices up, makes rows durable a little later, and forgets the
//! others when it is killed. It does with the gateway's half what `source/native.rs` does.

use std::collections::BTreeMap;

use forebay_firmware::noise::Random;
use forebay_shared::block::{Block, Row};
use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, Epoch, LongSeq, Millis, SchemaId, Token};
use forebay_shared::link::{Event, Known, Receiver, Terms, Transport};
use forebay_shared::message::{Body, FromDevice, GapCause, Hello, Presence, RejectCode};
use forebay_shared::reading::{Schema, SchemaBuilder};

use super::bugs::{HostBug, Seeded};
use super::plan::Plan;
use super::report::{Report, Situation};

/// How long rows may be missing before a broker is suspected.
const STALL_MS: u32 = 5000;
/// How long an answer to a time request is waited for.
const ASK_MS: u32 = 300;
const TOKEN: Token = Token(7);

#[derive(Debug)]
pub(crate) enum Stored {
    Rows(Vec<Row>),
    Gap(GapCause),
    Quarantined,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) from: LongSeq,
    pub(crate) to: LongSeq,
    pub(crate) stored: Stored,
    durable_at: Millis,
}

/// What a gateway has of one boot.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) first: LongSeq,
    pub(crate) entries: Vec<Entry>,
    durable: usize,
    /// One past the last row that the device told of.
    pub(crate) told: LongSeq,
    /// What a mistaken host believes to have.
    believed: LongSeq,
}

impl Log {
    fn new(first: LongSeq) -> Self {
        Self { first, entries: Vec::new(), durable: 0, told: first, believed: first }
    }

    pub(crate) fn next(&self) -> LongSeq {
        self.entries.last().map_or(self.first, |entry| entry.to)
    }

    pub(crate) fn released(&self) -> LongSeq {
        self.durable.checked_sub(1).map_or(self.first, |at| self.entries[at].to)
    }

    fn durable_at(&self) -> Option<Millis> {
        self.entries.get(self.durable).map(|entry| entry.durable_at)
    }
}

/// One connection.
#[derive(Debug)]
struct Port {
    receiver: Box<Receiver>,
    decoder: Decoder,
    births: Option<(SchemaId, SchemaBuilder)>,
    dated: bool,
    ask_at: Option<Millis>,
    /// Blocks that were taken and not handed up: none of their rows may come up as lost.
    taken: Vec<(LongSeq, LongSeq)>,
    opened_at: Millis,
    /// Nothing has gone wrong since it was opened.
    is_quiet: bool,
}

/// A disk, counted from the first, and a boot.
pub(crate) type Place = (u32, Boot);

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) report: Report,
    transport: Transport,
    seeded: Option<Seeded>,
    plan: u64,
    random: Random,
    epoch: Epoch,
    credit: u8,
    port: Option<Port>,
    /// A port that the device has left, and that is still being read.
    old_port: Option<Port>,
    /// Two ports have had the same device.
    overlapped: bool,
    schemas: BTreeMap<u32, Schema>,
    card: u32,
    logs: BTreeMap<Place, Log>,
    hold_until: Millis,
    durable_from: Millis,
}

impl Gateway {
    pub(crate) fn new(plan: &Plan, seeded: Option<Seeded>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            report: Report::default(),
            transport: plan.transport,
            seeded,
            plan: plan.seed,
            epoch: Epoch(random.u32()),
            credit: [1, 2, 4, 16, 16][random.below(5) as usize],
            random,
            port: None,
            old_port: None,
            overlapped: false,
            schemas: BTreeMap::new(),
            card: 0,
            logs: BTreeMap::new(),
            hold_until: Millis(0),
            durable_from: Millis(0),
        }
    }

    /// Opens the line, or connects to the broker, as if for the first time.
    pub(crate) fn open(&mut self, now: Millis) {
        let mut receiver = Box::new(Receiver::new(self.epoch));
        if self.transport == Transport::Serial {
            receiver.ask_for_hello();
        }
        self.close();
        self.port = Some(Port {
            receiver,
            decoder: Decoder::new(),
            births: None,
            dated: false,
            ask_at: None,
            taken: Vec::new(),
            opened_at: now,
            is_quiet: true,
        });
    }

    /// The line is gone, and with it what was held.
    pub(crate) fn close(&mut self) {
        if let Some(port) = self.port.take() {
            self.report.duplicate_blocks += port.receiver.counters().duplicate_blocks;
            self.report.refused_messages += port.receiver.counters().errors;
        }
    }

    /// The device turns up at another port while the one before is still being read.
    pub(crate) fn rename(&mut self, now: Millis) {
        self.old_port = self.port.take();
        self.overlapped = true;
        self.open(now);
    }

    pub(crate) fn close_old_port(&mut self) {
        self.old_port = None;
    }

    /// The connection to the broker is a new one.
    pub(crate) fn reconnect(&mut self, now: Millis) {
        if let Some(port) = &mut self.port {
            port.dated = false;
            port.ask_at = port.receiver.boot().map(|_| now);
            port.receiver.set_credit(now, 0);
            port.receiver.welcome_again(now);
        }
    }

    /// Everything that is not durable is gone; the schemas are now and then too.
    pub(crate) fn crash(&mut self) {
        self.close();
        self.old_port = None;
        self.overlapped = false;
        self.durable_from = Millis(0);
        for ((card, _), log) in &mut self.logs {
            if *card == self.card {
                log.believed = log.next();
                log.entries.truncate(log.durable);
            }
        }
        if self.seeded != Some(Seeded::Host(HostBug::EpochKept)) {
            self.epoch = Epoch(self.random.u32());
        }
        if self.random.one_in(2) {
            self.schemas.clear();
        }
    }

    /// The next start finds an empty disk.
    pub(crate) fn change_card(&mut self) {
        self.card += 1;
        self.schemas.clear();
    }

    /// What is stored before then becomes durable only then.
    pub(crate) fn slow_disk_until(&mut self, until: Millis) {
        self.durable_from = until;
    }

    pub(crate) fn hold_until(&mut self, until: Millis) {
        self.hold_until = until;
    }

    /// Something goes wrong, so how long things take now says nothing.
    pub(crate) fn disturb(&mut self) {
        if let Some(port) = &mut self.port {
            port.is_quiet = false;
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.port.is_some()
    }

    pub(crate) fn presence(&self) -> Vec<u8> {
        Presence { epoch: self.epoch, client: "forebay".try_into().unwrap() }.to_message().to_vec()
    }

    pub(crate) fn logs(&self) -> &BTreeMap<Place, Log> {
        &self.logs
    }

    /// Takes what has arrived, and says which messages ended with it.
    pub(crate) fn receive(&mut self, now: Millis, bytes: &[u8]) -> Vec<Vec<u8>> {
        let Some(mut port) = self.port.take() else { return Vec::new() };
        let messages = self.read(now, &mut port, bytes);
        // What starts over has opened a port of its own.
        self.port.get_or_insert(port);
        messages
    }

    pub(crate) fn receive_on_old_port(&mut self, now: Millis, bytes: &[u8]) {
        let Some(mut port) = self.old_port.take() else { return };
        let present = self.port.take();
        self.read(now, &mut port, bytes);
        let started_over = self.port.take().is_some();
        self.port = present;
        self.old_port = (!started_over).then_some(port);
    }

    /// When something happens without a message.
    pub(crate) fn next_at(&self) -> Option<Millis> {
        let port = self.port.as_ref();
        let commit =
            self.logs.range((self.card, Boot::new(1)?)..).filter_map(|(_, log)| log.durable_at()).min();
        let reopening =
            port.filter(|port| port.dated && self.hold_until > Millis(0)).map(|_| self.hold_until);
        let stall = port.filter(|_| self.transport == Transport::Mqtt);
        let stall = stall.and_then(|port| port.receiver.stalled_since()).map(|since| since.plus(STALL_MS));
        let ask = port.filter(|port| !port.dated).and_then(|port| port.ask_at);
        [port.and_then(|port| port.receiver.poll_timeout()), commit, reopening, stall, ask]
            .into_iter()
            .flatten()
            .min()
    }

    /// What happens without a message: rows become durable, credit comes and goes, stalls are noticed.
    pub(crate) fn work(&mut self, now: Millis) {
        let card = self.card;
        for ((_, boot), log) in self.logs.iter_mut().filter(|((of, _), _)| *of == card) {
            while log.durable_at().is_some_and(|at| at <= now) {
                log.durable += 1;
            }
            let early = self.seeded == Some(Seeded::Host(HostBug::AckBeforeDurable));
            let to = if early { log.next() } else { log.released() };
            if let Some(port) = self.port.as_mut().filter(|port| port.receiver.boot() == Some(*boot)) {
                port.receiver.release(now, to);
            }
        }
        if self.hold_until <= now {
            self.hold_until = Millis(0);
        }
        let Some(port) = &mut self.port else { return };
        let schema = port.receiver.hello().map(|hello| hello.schema.0);
        let has_schema = schema.is_some_and(|schema| self.schemas.contains_key(&schema));
        let open = port.dated && has_schema && self.hold_until <= now;
        port.receiver.set_credit(now, if open { self.credit } else { 0 });
        let stalled = port.receiver.stalled_since().is_some_and(|since| now.since(since) >= STALL_MS);
        if self.transport == Transport::Mqtt && stalled {
            port.receiver.welcome_again(now);
        }
        if !port.dated && port.ask_at.is_some_and(|at| at <= now) {
            port.receiver.request_time(TOKEN);
            port.ask_at = Some(now.plus(ASK_MS));
        }
    }

    pub(crate) fn take_message(&mut self, now: Millis) -> Option<Vec<u8>> {
        let receiver = &mut self.port.as_mut()?.receiver;
        if receiver.poll_timeout().is_none_or(|at| at > now) {
            assert_eq!(receiver.poll_transmit(now), None, "said nothing of this");
            return None;
        }
        let message = receiver.poll_transmit(now)?;
        let mut frame = [0; FRAME_BYTES_MAX];
        let len = frame::encode(&[&message], &mut frame).unwrap();
        assert!(len < FRAME_TO_DEVICE_BYTES_MAX, "with the delimiter before it");
        Some(message.to_vec())
    }

    fn read(&mut self, now: Millis, port: &mut Port, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        match self.transport {
            Transport::Mqtt => messages.push(bytes.to_vec()),
            Transport::Serial => {
                let mut rest = bytes;
                while let Some(found) = port.decoder.next(&mut rest) {
                    match found {
                        Ok(message) => messages.push(message.to_vec()),
                        Err(_) => self.report.bad_frames += 1,
                    }
                }
            }
        }
        for message in &messages {
            self.handle(now, port, message);
        }
        messages
    }

    fn handle(&mut self, now: Millis, port: &mut Port, message: &[u8]) {
        let before = port.receiver.counters();
        let taken = port.receiver.handle(now, message).is_ok();
        let after = port.receiver.counters();
        let parsed = FromDevice::parse(message);
        if let Ok(FromDevice::Data(data)) = &parsed
            && taken
            && (before.duplicate_blocks, before.dropped_blocks)
                == (after.duplicate_blocks, after.dropped_blocks)
        {
            let (block, next) = (Block::parse(data.form, data.block).unwrap(), port.receiver.next().unwrap());
            let range = (next.extend(block.first()).unwrap(), next.extend(block.end()).unwrap());
            port.taken.push(range);
        }
        let mut over_held = match (&parsed, port.receiver.next()) {
            (Ok(FromDevice::Gap(gap)), Some(next)) if taken => {
                next.extend(gap.from).is_some_and(|from| from < next)
            }
            _ => false,
        };
        let is_gap = matches!(parsed, Ok(FromDevice::Gap(_)));
        while let Some(event) = port.receiver.poll_event() {
            over_held |= is_gap && matches!(event, Event::Rows { .. });
            self.heed(now, port, event);
        }
        if over_held {
            self.report.saw(Situation::GapOverHeldRows);
        }
        if let (Some(boot), Some(learned)) = (port.receiver.boot(), port.receiver.learned())
            && let Some(log) = self.logs.get_mut(&(self.card, boot))
        {
            log.told = log.told.max(learned);
        }
    }

    fn heed(&mut self, now: Millis, port: &mut Port, event: Event) {
        match event {
            Event::Hello(hello) => self.welcome(now, port, &hello),
            Event::Birth(birth) => {
                if port.births.as_ref().is_none_or(|(of, _)| *of != birth.schema) {
                    port.births = Some((birth.schema, SchemaBuilder::new(birth.schema)));
                }
                let (_, builder) = port.births.as_mut().unwrap();
                if let Some(schema) = builder.insert(birth.index, birth.count, birth.description).unwrap() {
                    self.schemas.insert(birth.schema.0, schema);
                    port.receiver.births_complete(now);
                }
            }
            Event::Rows { from, to, skip, block } => {
                port.taken.retain(|(_, end)| *end > to);
                let block = Block::parse(block.form, &block.bytes).unwrap();
                let schema = port.receiver.hello().unwrap().schema.0;
                let schema = self.schemas.get(&schema).expect("rows come only after the schema");
                let rows: Result<Vec<Row>, _> = block.rows(schema).collect();
                let stored = match rows {
                    Ok(mut rows) => {
                        assert_eq!(block.first().plus(skip), from.to_wire());
                        rows.retain(|row| comes_after(row, from));
                        Stored::Rows(rows)
                    }
                    Err(_) => {
                        self.report.saw(Situation::Undecodable);
                        Stored::Quarantined
                    }
                };
                self.store(now, port, (from, to), stored);
            }
            Event::Gap { from, to, cause } => {
                for (first, end) in &port.taken {
                    assert!(*end <= from || *first >= to, "rows that were taken come up as lost");
                }
                self.store(now, port, (from, to), Stored::Gap(cause));
            }
            Event::TimeReply { token, .. } if token == TOKEN => {
                if !port.dated && port.is_quiet {
                    self.report.resume.note(u64::from(now.since(port.opened_at)), self.plan);
                }
                port.is_quiet = false;
                port.dated = true;
            }
            // The rest of it is babble.
            Event::TimeReply { .. } | Event::Status(_) => {}
        }
    }

    fn welcome(&mut self, now: Millis, port: &mut Port, hello: &Hello) {
        let seeded = |bug| self.seeded == Some(Seeded::Host(bug));
        let fresh = if seeded(HostBug::BootReused) { 7 } else { self.random.u32() | 1 };
        let boot = hello.boot.or(Boot::new(fresh)).unwrap();
        let log = self.logs.get(&(self.card, boot));
        let known = log.filter(|_| !seeded(HostBug::BootForgotten)).map(|log| {
            let next = if seeded(HostBug::LostRowsKnown) { log.believed.max(log.next()) } else { log.next() };
            Known { next, released: log.released() }
        });
        if self.card > 0 && hello.boot.is_some() && log.is_none() && hello.oldest.0 >= 5000 {
            self.report.saw(Situation::NewCard);
        }
        let wants_birth = !self.schemas.contains_key(&hello.schema.0);
        (port.dated, port.births) = (false, None);
        port.taken.clear();
        if port.receiver.welcome(now, Terms { boot, known, wants_birth, credit: 0 }).is_err() {
            port.receiver.reject(RejectCode::WRONG_BOOT, 1);
            return;
        }
        port.ask_at = Some(now);
        let first = port.receiver.next().unwrap();
        self.logs.entry((self.card, boot)).or_insert_with(|| Log::new(first));
    }

    fn store(&mut self, now: Millis, port: &mut Port, (from, to): (LongSeq, LongSeq), stored: Stored) {
        let log = self.logs.get_mut(&(self.card, port.receiver.boot().unwrap())).unwrap();
        let next = log.next();
        let (mut from, mut stored) = (from, stored);
        if from != next && self.overlapped {
            // As `ingest` does: what is there already is left out, and what does not follow is asked for again.
            if from > next {
                self.open(now);
                return;
            }
            if to <= next {
                return;
            }
            if let Stored::Rows(rows) = &mut stored {
                rows.retain(|row| comes_after(row, next));
            }
            from = next;
        }
        assert_eq!(next, from, "rows and gaps follow one another");
        assert!(to > from);
        let slow = if self.random.one_in(20) { 300 } else { 20 };
        let before = log.entries.last().map_or(Millis(0), |entry| entry.durable_at);
        let durable_at = now.plus(1 + self.random.below(slow) as u32).max(before).max(self.durable_from);
        log.entries.push(Entry { from, to, stored, durable_at });
    }
}

/// Whether some of it is not before `next`.
fn comes_after(row: &Row, next: LongSeq) -> bool {
    match row {
        Row::Sample(row) => !row.seq.is_before(next.to_wire()),
        Row::Lost { to, .. } => next.to_wire().is_before(*to),
    }
}
