//! What a device has said and heard, taken from its line: it keeps to its credit, and says each thing once.

use forebay_shared::block::Block;
use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::Seq;
use forebay_shared::link::Transport;
use forebay_shared::message::{FromDevice, FromGateway};
use forebay_shared::reading::Schema;

use super::Node;
use crate::world::bugs::is_data;
use crate::world::report::{Report, Situation};

/// What the device has said and heard since it was welcomed.
#[derive(Debug)]
pub(super) struct Tap {
    ear: Decoder,
    decoder: Decoder,
    pub(super) raw: Vec<u8>,
    /// Ends of the blocks sent and not known to be received.
    outstanding: Vec<Seq>,
    sent: Option<Seq>,
    pub(super) credit: u8,
    received: Seq,
    /// As it was when the frame that is being sent was begun.
    pub(super) credit_at_start: u8,
    pub(super) in_frame: bool,
    gap_to: Option<Seq>,
}

impl Tap {
    pub(super) const fn new() -> Self {
        Self {
            ear: Decoder::new(),
            decoder: Decoder::new(),
            raw: Vec::new(),
            outstanding: Vec::new(),
            sent: None,
            credit: 0,
            received: Seq(0),
            credit_at_start: 0,
            in_frame: false,
            gap_to: None,
        }
    }

    /// The messages that end with these bytes on the way to the device.
    pub(super) fn messages(&mut self, transport: Transport, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        match transport {
            Transport::Mqtt => Vec::from([bytes.to_vec()]),
            Transport::Serial => {
                let mut messages = Vec::new();
                while let Some(message) = self.ear.next(&mut rest) {
                    messages.extend(message.map(<[u8]>::to_vec));
                }
                messages
            }
        }
    }
}

impl Node {
    /// Notes what a message that has just arrived whole allows the device.
    pub(super) fn heard(&mut self, message: &[u8]) {
        let boot = self.device.boot();
        match FromGateway::parse(message) {
            Ok(FromGateway::Welcome(welcome)) if Some(welcome.boot) == boot && self.device.is_connected() => {
                self.tap.outstanding.clear();
                self.tap.sent = None;
                (self.tap.credit, self.tap.received) = (welcome.credit, welcome.received);
            }
            Ok(FromGateway::Ack(ack)) if Some(ack.boot) == boot && self.device.is_connected() => {
                (self.tap.credit, self.tap.received) = (ack.credit, ack.received);
                self.tap.outstanding.retain(|end| ack.received.is_before(*end));
            }
            _ => {}
        }
    }

    /// The credit that the device last heard of.
    pub(crate) fn credit(&self) -> u8 {
        self.tap.credit
    }

    pub(super) fn tap_bytes(&mut self, bytes: &[u8], report: &mut Report) -> Option<(Vec<u8>, bool)> {
        self.tap.raw.extend(bytes);
        let mut rest = bytes;
        let message = match self.tap.decoder.next(&mut rest)? {
            Ok(message) => message.to_vec(),
            Err(error) => panic!("a device sent what is no frame: {error}"),
        };
        assert!(rest.is_empty(), "a frame ends where the device pauses");
        let raw = core::mem::take(&mut self.tap.raw);
        let said = self.tap_message(message.clone(), report);
        let Some(said) = said else { return Some((Vec::new(), false)) };
        if said == message {
            return Some((raw, true));
        }
        let mut out = [0; FRAME_BYTES_MAX + 1];
        let len = frame::encode(&[&said], &mut out[1..]).unwrap();
        Some((out[..=len].to_vec(), true))
    }

    /// Sees a message that the device has sent, and gives what becomes of it.
    pub(super) fn tap_message(&mut self, message: Vec<u8>, report: &mut Report) -> Option<Vec<u8>> {
        self.tap.in_frame = false;
        let message = if is_data(&message) { self.tap_data(message) } else { message };
        if let Ok(FromDevice::Gap(gap)) = FromDevice::parse(&message) {
            let grew =
                self.tap.gap_to.is_some_and(|to| to.is_before(gap.to) && self.tap.received.is_before(to));
            if grew {
                report.saw(Situation::GapGrewInFlight);
            }
            self.tap.gap_to = Some(gap.to);
        }
        self.mistaken.say(message)
    }

    fn tap_data(&mut self, message: Vec<u8>) -> Vec<u8> {
        let Ok(FromDevice::Data(data)) = FromDevice::parse(&message) else {
            panic!("a device sent no message")
        };
        let block = Block::parse(data.form, data.block).expect("a device sends whole blocks");
        let (boot, first, end) = (data.boot, block.first(), block.end());
        assert_eq!(Some(boot), self.device.boot());
        if self.tap.sent.is_none_or(|sent| sent.is_before(end)) {
            let ring = self.device.lost().map_or(self.device.oldest(), |lost| lost.to);
            self.tap.outstanding.retain(|end| ring.is_before(*end));
            let allowed = usize::from(self.tap.credit_at_start);
            assert!(self.tap.outstanding.len() < allowed.max(1), "more blocks than the credit of {allowed}");
            assert!(allowed > 0, "a block without credit");
            self.tap.outstanding.push(end);
            self.tap.sent = Some(end);
        }
        if core::mem::take(&mut self.spoil) && !self.spoilt.contains(&(boot, first)) {
            self.spoilt.push((boot, first));
        }
        if self.spoilt.contains(&(boot, first)) {
            let life = self.life_mut();
            let rows = life.at(first)..life.at(end);
            for sample in &mut life.samples[rows] {
                sample.spoilt = true;
            }
            return spoilt(&message, &self.schemas[self.life().schema]);
        }
        message
    }
}

/// The same message, of which the header of the block can be read, and the rows cannot.
fn spoilt(message: &[u8], schema: &Schema) -> Vec<u8> {
    let readable = |message: &[u8]| {
        let Ok(FromDevice::Data(data)) = FromDevice::parse(message) else { return None };
        let block = Block::parse(data.form, data.block).ok()?;
        Some(block.rows(schema).collect::<Result<Vec<_>, _>>().is_ok())
    };
    let shorter = message[..message.len() - 1].to_vec();
    assert_eq!(readable(&shorter), Some(false), "a block that ends too early");
    shorter
}
