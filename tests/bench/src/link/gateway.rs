//! The gateway as the link sees it: the real [`Receiver`], a disk that makes rows durable after a fixed time, and what it
//! remembers of the device from one life to the next.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use forebay_shared::frame::{self, DELIMITER, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::{Boot, Epoch, LongSeq, Millis};
use forebay_shared::link::{Event, Known, Receiver, Terms, WINDOW_BLOCKS};
use forebay_shared::reading::SchemaBuilder;

/// Bytes around a message in a frame: the stuffing's, the check's and the delimiter.
const AROUND_BYTES: usize = 6;

/// The kinds of messages that carry rows, packed and plain.
const DATA_KINDS: [u8; 2] = [0x03, 0x04];

pub(super) struct Gateway {
    epoch: u32,
    /// None while the port is closed.
    line: Option<Open>,
    release_ms: u32,
    schema_known: bool,
    next: LongSeq,
    durable: LongSeq,
    /// Rows before this one are durable from this time on.
    syncing: VecDeque<(Millis, LongSeq)>,
    accepted: Accepted,
}

/// Data frames that were taken, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Accepted {
    pub(super) frames: u64,
    /// As they were on the line.
    pub(super) bytes: u64,
}

struct Open {
    receiver: Box<Receiver>,
    decoder: Decoder,
    births: Option<SchemaBuilder>,
    outgoing: VecDeque<u8>,
}

impl Gateway {
    /// A gateway whose port is not open yet, and whose rows are durable so long after they came.
    pub(super) fn new(release_ms: u32) -> Gateway {
        let accepted = Accepted::default();
        let (next, durable) = (LongSeq(0), LongSeq(0));
        let (line, syncing) = (None, VecDeque::new());
        Gateway { epoch: 1, line, release_ms, schema_known: false, next, durable, syncing, accepted }
    }

    /// The port is opened, and the conversation begins anew.
    pub(super) fn open(&mut self) {
        let mut receiver = Box::new(Receiver::new(Epoch(self.epoch)));
        receiver.ask_for_hello();
        self.line = Some(Open { receiver, decoder: Decoder::new(), births: None, outgoing: VecDeque::new() });
    }

    /// The port is gone.
    pub(super) fn close(&mut self) {
        self.line = None;
    }

    /// The process was killed: what is not durable is forgotten, and so are the device's channels.
    pub(super) fn kill(&mut self) {
        self.close();
        self.epoch += 1;
        self.syncing.clear();
        self.next = self.durable;
        self.schema_known = false;
    }

    pub(super) fn accepted(&self) -> Accepted {
        self.accepted
    }

    pub(super) fn receive(&mut self, now: Millis, bytes: &[u8]) -> Result<()> {
        let Some(mut line) = self.line.take() else { return Ok(()) };
        let mut rest = bytes;
        while let Some(message) = line.decoder.next(&mut rest) {
            let Ok(message) = message else { continue };
            let before = line.receiver.counters();
            let taken = line.receiver.handle(now, message).is_ok();
            let after = line.receiver.counters();
            let new = (before.duplicate_blocks, before.dropped_blocks)
                == (after.duplicate_blocks, after.dropped_blocks);
            if taken && new && DATA_KINDS.contains(&message[0]) {
                self.accepted.frames += 1;
                self.accepted.bytes += (message.len() + AROUND_BYTES) as u64;
            }
            while let Some(event) = line.receiver.poll_event() {
                self.heed(now, event, &mut line)?;
            }
        }
        self.line = Some(line);
        Ok(())
    }

    fn heed(&mut self, now: Millis, event: Event, line: &mut Open) -> Result<()> {
        match event {
            Event::Hello(hello) => {
                let boot = hello.boot.or(Boot::new(7)).context("seven is not zero")?;
                let known = Some(Known { next: self.next, released: self.durable });
                let wants_birth = !self.schema_known;
                line.receiver.welcome(now, Terms { boot, known, wants_birth, credit: WINDOW_BLOCKS })?;
            }
            Event::Birth(birth) => {
                let builder = line.births.get_or_insert_with(|| SchemaBuilder::new(birth.schema));
                if builder.insert(birth.index, birth.count, birth.description)?.is_some() {
                    self.schema_known = true;
                }
                if self.schema_known {
                    line.receiver.births_complete(now);
                }
            }
            Event::Rows { to, .. } | Event::Gap { to, .. } => {
                self.next = to;
                self.syncing.push_back((now.plus(self.release_ms), to));
            }
            Event::TimeReply { .. } | Event::Status(_) => {}
        }
        Ok(())
    }

    /// What happens with time: rows become durable, and acks are due.
    pub(super) fn tend(&mut self, now: Millis) -> Result<()> {
        while let Some((_, to)) = self.syncing.pop_front_if(|(at, _)| *at <= now) {
            self.durable = to;
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        line.receiver.release(now, self.durable);
        while let Some(message) = line.receiver.poll_transmit(now) {
            let mut frame = [0; FRAME_BYTES_MAX];
            let length = frame::encode(&[&message], &mut frame)?;
            if line.outgoing.is_empty() {
                line.outgoing.push_back(DELIMITER);
            }
            line.outgoing.extend(&frame[..length]);
        }
        Ok(())
    }

    /// At most `count` bytes for the device.
    pub(super) fn transmit(&mut self, count: usize) -> Vec<u8> {
        let outgoing = self.line.as_mut().map(|line| &mut line.outgoing);
        outgoing.map(|bytes| bytes.drain(..count.min(bytes.len())).collect()).unwrap_or_default()
    }
}

/// Whether a message carries rows.
pub(super) fn is_data(message: &[u8]) -> bool {
    message.first().is_some_and(|kind| DATA_KINDS.contains(kind))
}
