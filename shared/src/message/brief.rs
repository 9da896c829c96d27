//! A device's end of the messages: the same bytes as postcard's, read and written by hand.
//!
//! What a chip can do without here, which is serde, copies of names and a check of text, takes 6 KiB of its flash. The
//! gateway's end is postcard, so every test in which the two talk holds one against the other, and the tests below do so
//! over any bytes.
//!
//! ```text
//! u8, bool   = one byte                                     u32, u64 = varint: seven bits a byte, lowest first
//! text, list = how many bytes or items, varint · those      option   = 0, or 1 and the value
//! ```

use heapless::Vec;

use super::{
    Ack, Birth, Gap, Hello, Kind, Reject, RejectCode, SeqRange, Status, TimeReply, TimeRequest, Welcome,
};
use crate::ids::{Boot, ChipId, Epoch, Seq, Token};
use crate::reading::Description;

/// Most bytes that a [`Writer`] takes: a `Birth` with three names of 32 bytes has fewer.
const WRITTEN_BYTES_MAX: usize = 128;

/// Puts a message without rows together, or what stands before the rows of another.
#[derive(Debug)]
pub struct Writer(Vec<u8, WRITTEN_BYTES_MAX, u8>);

impl Writer {
    /// Nothing is written yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// One byte.
    #[inline(never)]
    pub fn byte(&mut self, byte: u8) {
        let has_room = self.0.push(byte).is_ok();
        debug_assert!(has_room, "every message of a device fits");
    }

    /// A number of at most 32 bits.
    #[inline(never)]
    pub fn number(&mut self, number: u32) {
        self.long(u64::from(number));
    }

    /// A number of at most 64 bits.
    #[inline(never)]
    fn long(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u32);
        for byte in bytes {
            self.byte(*byte);
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a device says.
pub trait Say {
    /// Writes kind and body.
    fn say(&self, out: &mut Writer);
}

impl Say for Hello<&ChipId, &str> {
    fn say(&self, out: &mut Writer) {
        out.byte(Kind::Hello as u8);
        out.bytes(self.chip.as_bytes());
        out.bytes(self.name.as_bytes());
        out.number(self.boot.map_or(0, Boot::get));
        out.byte(self.version_min);
        out.byte(self.version_max);
        out.number(self.schema.0);
        out.number(self.oldest.0);
        out.number(self.next.0);
        out.number(self.tick_hz);
        out.long(self.tick_now.0);
        out.byte(self.reset_cause.0);
        out.byte(u8::from(self.resumed_at.is_some()));
        if let Some(tick) = self.resumed_at {
            out.long(tick.0);
        }
    }
}

impl Say for Birth<&str> {
    fn say(&self, out: &mut Writer) {
        out.byte(Kind::Birth as u8);
        out.number(self.schema.0);
        out.byte(self.index);
        out.byte(self.count);
        self.description.write(out);
    }
}

impl Description<&str> {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.byte(self.group.0);
        for text in [self.group_name, self.channel, self.unit] {
            out.bytes(text.as_bytes());
        }
        out.byte(self.kind as u8);
        out.byte(self.scale.cast_unsigned());
    }
}

impl Say for Gap {
    fn say(&self, out: &mut Writer) {
        out.byte(Kind::Gap as u8);
        for number in [self.boot.get(), self.from.0, self.to.0] {
            out.number(number);
        }
        out.byte(self.cause.0);
    }
}

impl Say for TimeReply {
    fn say(&self, out: &mut Writer) {
        out.byte(Kind::TimeReply as u8);
        out.number(self.token.0);
        out.long(self.tick_now.0);
    }
}

impl Say for Status {
    fn say(&self, out: &mut Writer) {
        out.byte(Kind::Status as u8);
        let Self { boot, oldest, sent, next, ring_used, ring_size, evicted_rows } = *self;
        for number in [boot.get(), oldest.0, sent.0, next.0, ring_used, ring_size, evicted_rows] {
            out.number(number);
        }
    }
}

/// Takes a body apart. What is missing or damaged reads as nothing, and [`Reader::end`] says so.
#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    failed: bool,
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, failed: false }
    }

    #[inline(never)]
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.bytes.split_first() else {
            self.failed = true;
            return 0;
        };
        self.bytes = rest;
        *byte
    }

    /// A number of at most 32 bits.
    fn number(&mut self) -> u32 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u32::from(byte & 0x7f) << shift;
            if shift == 28 {
                self.failed |= byte > 0x0f;
                return number;
            }
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    #[inline(never)]
    fn flag(&mut self) -> bool {
        let byte = self.byte();
        self.failed |= byte > 1;
        byte == 1
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        let Some((bytes, rest)) = self.bytes.split_at_checked(len) else {
            self.failed = true;
            return &[];
        };
        self.bytes = rest;
        bytes
    }

    fn boot(&mut self) -> Option<Boot> {
        Boot::new(self.number())
    }

    /// Whether all was there, and nothing more.
    const fn end(&self) -> bool {
        !self.failed && self.bytes.is_empty()
    }
}

impl<'a> Welcome<&'a [u8]> {
    /// Reads a body; `None` where it is not exactly one.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let welcome = Self {
            epoch: Epoch(body.number()),
            boot: body.boot()?,
            released: Seq(body.number()),
            received: Seq(body.number()),
            wants_birth: body.flag(),
            credit: body.byte(),
            chip: body.bytes(),
            answers: Token(body.number()),
        };
        body.end().then_some(welcome)
    }
}

impl Ack {
    /// Reads a body; `None` where it is not exactly one.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let (epoch, boot) = (Epoch(body.number()), body.boot()?);
        let (received, released) = (Seq(body.number()), Seq(body.number()));
        let mut ranges = Vec::new();
        for _ in 0..body.number() {
            ranges.push(SeqRange { from: Seq(body.number()), to: Seq(body.number()) }).ok()?;
        }
        let (credit, births) = (body.byte(), body.flag());
        body.end().then_some(Self { epoch, boot, received, released, ranges, credit, births })
    }
}

impl TimeRequest {
    /// Reads a body; `None` where it is not exactly one.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let request = Self { epoch: Epoch(body.number()), token: Token(body.number()) };
        body.end().then_some(request)
    }
}

impl Reject {
    /// Reads a body; `None` where it is not exactly one.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let reject = Self { code: RejectCode(body.byte()), kind: body.byte() };
        body.end().then_some(reject)
    }
}

/// Reads the body of a [`Presence`](super::Presence) as far as a device has use for it: the gateway's life.
pub fn read_presence(body: &[u8]) -> Option<Epoch> {
    let mut body = Reader::new(body);
    let (epoch, client) = (Epoch(body.number()), body.bytes());
    (body.end() && client.len() <= super::CLIENT_BYTES_MAX).then_some(epoch)
}
#[cfg(test)]
mod tests {
    use std::vec::Vec as Many;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{GroupId, SchemaId, Tick};
    use crate::message::{Body, FromGateway, GapCause, Presence, ResetCause};
    use crate::reading::{Name, ValueKind};

    fn said(message: &impl Say) -> Many<u8> {
        let mut out = Writer::new();
        message.say(&mut out);
        out.as_bytes().to_vec()
    }

    /// What a device makes of a message, as the gateway has it. Of `Presence` it leaves out what it does not read.
    fn heard(message: &[u8]) -> Option<FromGateway> {
        let (kind, body) = message.split_first()?;
        Some(match kind {
            0x41 => {
                let Welcome { epoch, boot, released, received, wants_birth, credit, chip, answers } =
                    Welcome::read(body)?;
                let chip = ChipId::new(chip)?;
                FromGateway::Welcome(Welcome {
                    epoch,
                    boot,
                    released,
                    received,
                    wants_birth,
                    credit,
                    chip,
                    answers,
                })
            }
            0x42 => FromGateway::Ack(Ack::read(body)?),
            0x43 => FromGateway::TimeRequest(TimeRequest::read(body)?),
            0x45 => FromGateway::Reject(Reject::read(body)?),
            0x46 => {
                FromGateway::Presence(Presence { epoch: read_presence(body)?, client: Default::default() })
            }
            _ => return None,
        })
    }

    fn parsed(message: &[u8]) -> Option<FromGateway> {
        match FromGateway::parse(message).ok()? {
            FromGateway::Presence(Presence { epoch, .. }) => {
                Some(FromGateway::Presence(Presence { epoch, client: Default::default() }))
            }
            other => Some(other),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_the_gateway_means_them(
            kind in 0x40..=0x47_u8, body in vec(prop_oneof![4 => 0..5_u8, 1 => any::<u8>()], 0..40),
        ) {
            let message = [&[kind][..], &body].concat();
            // Beyond a device's 32 bits a number has five bytes, and a text may be other than text.
            let is_odd = body.windows(5).any(|bytes| bytes.iter().all(|byte| *byte > 0x7f));
            let is_text = kind != 0x46 || body.is_ascii();
            prop_assume!(!is_odd && is_text);
            prop_assert_eq!(heard(&message), parsed(&message));
        }

        #[test]
        fn what_the_gateway_says_is_heard(
            words in any::<[u32; 4]>(), bytes in any::<[u8; 2]>(), flag in any::<bool>(),
            chip in vec(any::<u8>(), 1..=16), ranges in vec(any::<(u32, u32)>(), 0..=3),
        ) {
            let [epoch, boot, released, received] = words;
            let (epoch, boot) = (Epoch(epoch), Boot::new(boot.max(1)).unwrap());
            let (released, received) = (Seq(released), Seq(received));
            let [credit, code] = bytes;
            let chip = ChipId::new(&chip).unwrap();
            let answers = Token(epoch.0 ^ received.0);
            let ranges = ranges.iter().map(|(from, to)| SeqRange { from: Seq(*from), to: Seq(*to) }).collect();
            for message in [
                Welcome { epoch, boot, released, received, wants_birth: flag, credit, chip, answers }.to_message(),
                Ack { epoch, boot, received, released, ranges, credit, births: flag }.to_message(),
                TimeRequest { epoch, token: answers }.to_message(),
                Reject { code: RejectCode(code), kind: credit }.to_message(),
                Presence { epoch, client: "forebay".try_into().unwrap() }.to_message(),
            ] {
                let expected = parsed(&message);
                prop_assert!(expected.is_some());
                prop_assert_eq!(heard(&message), expected);
            }
        }

        #[test]
        fn what_a_device_says_is_postcard(
            words in any::<[u32; 7]>(), ticks in any::<[u64; 2]>(), bytes in any::<[u8; 3]>(), some in any::<bool>(),
            chip in vec(any::<u8>(), 1..=16), name in "[a-zé°]{0,16}",
        ) {
            let [a, b, c, d, e, f, g] = words;
            let boot = Boot::new(a.max(1)).unwrap();
            let (oldest, sent, next) = (Seq(b), Seq(c), Seq(d));
            let status = Status { boot, oldest, sent, next, ring_used: e, ring_size: f, evicted_rows: g };
            prop_assert_eq!(said(&status), status.to_message().to_vec());
            let gap = Gap { boot, from: oldest, to: next, cause: GapCause(bytes[0]) };
            prop_assert_eq!(said(&gap), gap.to_message().to_vec());
            let reply = TimeReply { token: Token(e), tick_now: Tick(ticks[0]) };
            prop_assert_eq!(said(&reply), reply.to_message().to_vec());

            let chip = ChipId::new(&chip).unwrap();
            let brief = Hello {
                chip: &chip,
                name: name.as_str(),
                boot: Boot::new(if some { a } else { 0 }),
                version_min: bytes[0],
                version_max: bytes[1],
                schema: SchemaId(b),
                oldest,
                next,
                tick_hz: c,
                tick_now: Tick(ticks[0]),
                reset_cause: ResetCause(bytes[2]),
                resumed_at: some.then_some(Tick(ticks[1])),
            };
            let text = Name::try_from(name.as_str()).unwrap();
            let Hello { boot, version_min, version_max, schema, tick_hz, tick_now, reset_cause, .. } = brief;
            let resumed_at = brief.resumed_at;
            let hello = Hello::<ChipId> {
                chip: chip.clone(),
                name: text.clone(),
                boot,
                version_min,
                version_max,
                schema,
                oldest,
                next,
                tick_hz,
                tick_now,
                reset_cause,
                resumed_at,
            };
            prop_assert_eq!(said(&brief), hello.to_message().to_vec());

            let (group, kind, scale) = (GroupId(bytes[0]), ValueKind::I32, bytes[1].cast_signed());
            let [group_name, channel, unit] = [name.as_str(); 3];
            let description = Description { group, group_name, channel, unit, kind, scale };
            let brief = Birth { schema, index: bytes[1], count: bytes[2], description };
            let [group_name, channel, unit] = [text.clone(), text.clone(), text];
            let description = Description { group, group_name, channel, unit, kind, scale };
            let birth = Birth { schema, index: bytes[1], count: bytes[2], description };
            prop_assert_eq!(said(&brief), birth.to_message().to_vec());
        }
    }
}
