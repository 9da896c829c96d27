//! A gateway reduced to what the link needs: it looks devices up, makes rows durable a little later, and
//! forgets the others when it is killed.

use std::collections::BTreeMap;

use forebay_shared::block::{Block, Row};
use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, Epoch, LongSeq, Millis, Token};
use forebay_shared::link::{Event, Known, Receiver, Terms, Transport, WINDOW_BLOCKS};
use forebay_shared::message::{Body, Hello, Presence};
use forebay_shared::reading::{Schema, SchemaBuilder};

use super::Random;

/// How long rows may be missing before a broker is suspected.
const STALL_MS: u32 = 5000;

#[derive(Debug)]
pub(crate) enum Stored {
    Rows(Vec<Row>),
    Gap { from: LongSeq, to: LongSeq },
}

/// What a gateway has of one boot.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Each entry ends before this row and is durable from this time on.
    entries: Vec<(LongSeq, Millis, Stored)>,
    durable: usize,
}

impl Log {
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Stored> {
        self.entries.iter().map(|(_, _, stored)| stored)
    }

    pub(crate) fn next(&self) -> LongSeq {
        self.entries.last().map_or(LongSeq(0), |(end, _, _)| *end)
    }

    pub(crate) fn released(&self) -> LongSeq {
        self.durable.checked_sub(1).map_or(LongSeq(0), |at| self.entries[at].0)
    }
}

#[derive(Debug)]
pub(crate) struct Gateway {
    transport: Transport,
    epoch: Epoch,
    receiver: Receiver,
    decoder: Decoder,
    schema: Option<Schema>,
    births: Option<SchemaBuilder>,
    logs: BTreeMap<Boot, Log>,
    dated: bool,
    hold_until: Millis,
    outgoing: Vec<u8>,
    duplicate_blocks: u64,
    bad_frames: u64,
}

impl Gateway {
    pub(crate) fn new(transport: Transport, seed: u64) -> Self {
        let epoch = Epoch(seed as u32);
        Self {
            transport,
            epoch,
            receiver: Receiver::new(epoch),
            decoder: Decoder::new(),
            schema: None,
            births: None,
            logs: BTreeMap::new(),
            dated: false,
            hold_until: Millis(0),
            outgoing: Vec::new(),
            duplicate_blocks: 0,
            bad_frames: 0,
        }
    }

    /// Everything that is not durable is gone; the schema is lost now and then too.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for log in self.logs.values_mut() {
            log.entries.truncate(log.durable);
        }
        self.epoch = Epoch(random.below(1 << 32) as u32);
        self.connect_anew();
        if random.one_in(2) {
            self.schema = None;
        }
    }

    /// The port was opened anew, or the device came from another broker: what was held is gone.
    pub(crate) fn connect_anew(&mut self) {
        self.duplicate_blocks += self.receiver.counters().duplicate_blocks;
        self.receiver = Receiver::new(self.epoch);
        self.decoder = Decoder::new();
        self.outgoing.clear();
    }

    pub(crate) fn hold_until(&mut self, until: Millis) {
        self.hold_until = until;
    }

    pub(crate) fn presence(&self) -> Vec<u8> {
        Presence { epoch: self.epoch, client: "forebay".try_into().unwrap() }.to_message().to_vec()
    }

    pub(crate) fn receive(&mut self, now: Millis, bytes: &[u8], random: &mut Random) {
        match self.transport {
            Transport::Mqtt => self.handle(now, bytes, random),
            Transport::Serial => {
                let mut rest = bytes;
                while let Some(found) = self.decoder.next(&mut rest) {
                    match found.map(<[u8]>::to_vec) {
                        Ok(message) => self.handle(now, &message, random),
                        Err(_) => self.bad_frames += 1,
                    }
                }
            }
        }
    }

    /// What happens without a message: rows become durable, credit comes and goes, stalls are noticed.
    pub(crate) fn work(&mut self, now: Millis, random: &mut Random) {
        for (boot, log) in &mut self.logs {
            while log.entries.get(log.durable).is_some_and(|(_, at, _)| *at <= now) {
                log.durable += 1;
            }
            if self.receiver.boot() == Some(*boot) {
                self.receiver.release(now, log.released());
            }
        }
        let open = self.dated && self.schema.is_some() && self.hold_until <= now;
        self.receiver.set_credit(now, if open { WINDOW_BLOCKS } else { 0 });
        let stalled = self.receiver.stalled_since().is_some_and(|since| now.since(since) >= STALL_MS);
        if self.transport == Transport::Mqtt && stalled {
            self.receiver.welcome_again(now);
        }
        if !self.dated && random.one_in(300) {
            self.receiver.request_time(Token(7));
        }
    }

    pub(crate) fn take_message(&mut self, now: Millis) -> Option<Vec<u8>> {
        if self.receiver.poll_timeout().is_none_or(|at| at > now) {
            assert_eq!(self.receiver.poll_transmit(now), None, "said nothing of this");
            return None;
        }
        self.receiver.poll_transmit(now).map(|message| message.to_vec())
    }

    pub(crate) fn take_bytes(&mut self, now: Millis, room: usize) -> Vec<u8> {
        while self.outgoing.len() < room
            && let Some(message) = self.take_message(now)
        {
            let mut frame = [0; FRAME_BYTES_MAX];
            let len = frame::encode(&[&message], &mut frame).unwrap();
            assert!(len < FRAME_TO_DEVICE_BYTES_MAX, "with the delimiter before it");
            self.outgoing.push(frame::DELIMITER);
            self.outgoing.extend(&frame[..len]);
        }
        let count = room.min(self.outgoing.len());
        self.outgoing.drain(..count).collect()
    }

    pub(crate) fn logs(&self) -> &BTreeMap<Boot, Log> {
        &self.logs
    }

    pub(crate) fn duplicate_blocks(&self) -> u64 {
        self.duplicate_blocks + self.receiver.counters().duplicate_blocks
    }

    pub(crate) fn bad_frames(&self) -> u64 {
        self.bad_frames
    }

    fn handle(&mut self, now: Millis, message: &[u8], random: &mut Random) {
        // What is refused is the device's problem; it must settle it by itself.
        let _ = self.receiver.handle(now, message);
        while let Some(event) = self.receiver.poll_event() {
            self.heed(now, event, random);
        }
    }

    fn heed(&mut self, now: Millis, event: Event, random: &mut Random) {
        match event {
            Event::Hello(hello) => self.welcome(now, &hello, random),
            Event::Birth(birth) => {
                let builder = self.births.get_or_insert_with(|| SchemaBuilder::new(birth.schema));
                if let Some(schema) = builder.insert(birth.index, birth.count, birth.description).unwrap() {
                    self.schema = Some(schema);
                    self.receiver.births_complete(now);
                }
            }
            Event::Rows { from, to, skip, block } => {
                let block = Block::parse(block.form, &block.bytes).unwrap();
                let rows: Result<Vec<Row>, _> = block.rows(self.schema.as_ref().unwrap()).collect();
                let first = from.to_wire();
                assert_eq!(block.first().plus(skip), first);
                let is_new = |row: &Row| match row {
                    Row::Sample(row) => !row.seq.is_before(first),
                    Row::Lost { to, .. } => first.is_before(*to),
                };
                let rows: Vec<Row> = rows.unwrap().into_iter().filter(is_new).collect();
                self.store(now, from, to, Stored::Rows(rows), random);
            }
            Event::Gap { from, to, .. } => self.store(now, from, to, Stored::Gap { from, to }, random),
            Event::TimeReply { token, .. } => {
                assert_eq!(token, Token(7));
                self.dated = true;
            }
            Event::Status(_) => {}
        }
    }

    fn welcome(&mut self, now: Millis, hello: &Hello, random: &mut Random) {
        let fresh = || Boot::new(random.below(1 << 32) as u32 | 1).unwrap();
        let boot = hello.boot.unwrap_or_else(fresh);
        let known = self.logs.get(&boot).map(|log| Known { next: log.next(), released: log.released() });
        let wants_birth = self.schema.as_ref().is_none_or(|schema| schema.id() != hello.schema);
        self.dated = false;
        self.receiver.welcome(now, Terms { boot, known, wants_birth, credit: 0 }).unwrap();
        self.receiver.request_time(Token(7));
        self.logs.entry(boot).or_default();
    }

    fn store(&mut self, now: Millis, from: LongSeq, to: LongSeq, stored: Stored, random: &mut Random) {
        let log = self.logs.get_mut(&self.receiver.boot().unwrap()).unwrap();
        assert_eq!(log.next(), from, "rows and gaps follow one another");
        assert!(to > from);
        let durable_at = now.plus(1 + random.below(20) as u32);
        log.entries.push((to, durable_at, stored));
    }
}
