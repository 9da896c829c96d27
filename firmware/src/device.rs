//! The core of a device: samples go in, bytes or messages come out, and nothing here does IO.
//!
//! Operation, over a serial line: give what arrived to [`Device::receive`], call [`Device::poll`], write
//! [`Device::transmit`], say with [`Device::sent`] how much of it was written, and start over, at the
//! latest at the deadline that `poll` gave or after [`Device::record`]. Over MQTT the same with
//! [`Device::receive_message`], [`Device::presence`], [`Device::transmit_message`] and
//! [`Device::message_sent`].
//!
//! Memory: the ring, and about 1.3 KiB. `Device::new` is `const`, so that a device can be a static.
//!
//! Cost: a row is encoded once, in 32-bit integer arithmetic, and copied once into the ring. There are no
//! floats (an `f32` passes as its bits) and no divisions.
//!
//! Failure: damaged frames and messages for others are counted and change nothing. Where the ring is full,
//! the oldest block makes room and the gateway is told.

use core::fmt;

use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, ChipId, GroupId, Millis, SchemaId, Seq, Tick};
use forebay_shared::link::{Backlog, Sender, Transmit, Transport};
use forebay_shared::message::{
    Birth, Body, Data, FromGateway, Gap, GapCause, Hello, ResetCause, SeqRange, Status, TimeReply,
    WIRE_VERSION,
};
use forebay_shared::reading::{Groups, Name, Value};

use crate::ring::Ring;

/// What a device is.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Its identity.
    pub chip: ChipId,
    /// The name that it announces; may be empty.
    pub name: Name,
    /// What it measures.
    pub groups: Groups,
    /// Ticks per second.
    pub tick_hz: u32,
    /// How long a row may wait for company while the link has nothing else to do, in milliseconds.
    pub linger_ms: u32,
    /// What carries its messages.
    pub transport: Transport,
    /// Why it started.
    pub reset_cause: ResetCause,
}

/// What happened so far, for tests and displays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that made room for newer ones without having been released.
    pub evicted_rows: u32,
    /// Blocks that were sent again.
    pub repeated_blocks: u32,
    /// Damaged frames on the line.
    pub bad_frames: u32,
    /// Messages that were not for this device, or could not be obeyed.
    pub ignored_messages: u32,
}

/// A device with a ring of `RING` bytes. See the [module](self).
#[derive(Debug)]
pub struct Device<const RING: usize> {
    config: DeviceConfig,
    schema: Option<SchemaId>,
    ring: Ring<RING>,
    sender: Sender,
    decoder: Decoder<{ FRAME_TO_DEVICE_BYTES_MAX - 2 }>,
    out: Output,
    /// The block in the output.
    leaving: Option<SeqRange>,
    /// When the open block was first seen to have a row.
    open_since: Option<Millis>,
    bad_frames: u32,
    ignored_messages: u32,
}

impl<const RING: usize> Device<RING> {
    /// A device that has just started, with an empty ring.
    pub const fn new(config: DeviceConfig) -> Self {
        let sender = Sender::new(config.transport);
        Self {
            config,
            schema: None,
            ring: Ring::new(),
            sender,
            decoder: Decoder::new(),
            out: Output { bytes: [0; FRAME_BYTES_MAX + 1], at: 0, end: 0, in_burst: false },
            leaving: None,
            open_since: None,
            bad_frames: 0,
            ignored_messages: 0,
        }
    }

    /// Takes one sample of a group and gives its number: one entry a channel, `None` where it has no
    /// value this time. `tick` is the time of the sample, which should not lie before the last one's.
    ///
    /// # Errors
    ///
    /// The values are not the group's; nothing was recorded.
    pub fn record(
        &mut self,
        tick: Tick,
        group: GroupId,
        values: &[Option<Value>],
    ) -> Result<Seq, RecordError> {
        let channels = self.config.groups.get(group).ok_or(RecordError::Group)?.channels;
        if channels.len() != values.len() {
            return Err(RecordError::Count);
        }
        let fits = |(value, kind): (&Option<Value>, _)| value.is_none_or(|value| value.kind() == kind);
        if !values.iter().zip(channels.iter().map(|channel| channel.kind)).all(fits) {
            return Err(RecordError::Kind);
        }
        if values.iter().all(Option::is_none) {
            return Err(RecordError::Empty);
        }
        let seq = self.ring.push(tick, group, values);
        if self.ring.open_rows() == 1 {
            self.open_since = None;
        }
        Ok(seq)
    }

    /// Takes bytes that arrived on the serial line.
    pub fn receive(&mut self, now: Millis, mut bytes: &[u8]) {
        while let Some(frame) = self.decoder.next(&mut bytes) {
            match frame {
                Ok(message) => {
                    let backlog = backlog(&self.ring, &self.config);
                    if self.sender.handle(now, message, &self.config.chip, &backlog).is_err() {
                        self.ignored_messages = self.ignored_messages.wrapping_add(1);
                    }
                }
                Err(_) => self.bad_frames = self.bad_frames.wrapping_add(1),
            }
        }
    }

    /// Takes a message that arrived on the device's MQTT topic.
    pub fn receive_message(&mut self, now: Millis, message: &[u8]) {
        let backlog = backlog(&self.ring, &self.config);
        if self.sender.handle(now, message, &self.config.chip, &backlog).is_err() {
            self.ignored_messages = self.ignored_messages.wrapping_add(1);
        }
    }

    /// Takes the payload of the gateway's retained presence topic; `None`, or an empty one, says that no
    /// gateway is there, or that the broker cannot be reached.
    pub fn presence(&mut self, now: Millis, payload: Option<&[u8]>) {
        match payload.filter(|payload| !payload.is_empty()).map(FromGateway::parse) {
            None => self.sender.presence(now, None),
            Some(Ok(FromGateway::Presence(presence))) => self.sender.presence(now, Some(&presence)),
            Some(_) => self.ignored_messages = self.ignored_messages.wrapping_add(1),
        }
    }

    /// Decides what to send, and says when to call again if nothing happens before. Call it after each
    /// of the other calls; `tick` is the present time by the device's own count.
    pub fn poll(&mut self, now: Millis, tick: Tick) -> Option<Millis> {
        self.ring.release(self.sender.released());
        if self.out.is_empty() {
            if let Some(rows) = self.leaving.take() {
                self.sender.block_left(now, rows);
            }
            self.seal_if_idle(now);
            match self.sender.poll_transmit(now, &backlog(&self.ring, &self.config)) {
                Some(transmit) => self.encode(now, tick, transmit),
                None => self.out.in_burst = false,
            }
        }
        if !self.out.is_empty() {
            return Some(now);
        }
        let link = self.sender.poll_timeout(&backlog(&self.ring, &self.config));
        link.into_iter().chain(self.seal_due()).min()
    }

    /// Bytes to be written to the serial line; none, where it has nothing to say.
    pub fn transmit(&self) -> &[u8] {
        self.out.rest()
    }

    /// The first `count` of those bytes were written.
    pub fn sent(&mut self, count: usize) {
        self.out.at = self.out.at.saturating_add(count).min(self.out.end);
    }

    /// The message to be published next, if there is one.
    pub fn transmit_message(&self) -> Option<&[u8]> {
        (!self.out.is_empty()).then(|| self.out.rest())
    }

    /// The message was handed to the MQTT client, which repeats it until the broker has it.
    pub fn message_sent(&mut self) {
        self.out.at = self.out.end;
    }

    /// Whether a gateway has let the device in.
    pub fn is_connected(&self) -> bool {
        self.sender.is_connected()
    }

    /// The boot that a gateway assigned, if one has.
    pub const fn boot(&self) -> Option<Boot> {
        self.sender.boot()
    }

    /// First row that is not released: it is in the ring, or lost.
    pub fn oldest(&self) -> Seq {
        self.ring.unreleased()
    }

    /// The number that the next row will get.
    pub const fn next_sequence(&self) -> Seq {
        self.ring.next()
    }

    /// One past the last row that the gateway said is durable.
    pub const fn released(&self) -> Seq {
        self.sender.released()
    }

    /// Rows that made room for newer ones and are not released.
    pub fn lost(&self) -> Option<SeqRange> {
        self.ring.lost()
    }

    /// Bytes of the ring in use.
    pub const fn ring_used_bytes(&self) -> usize {
        self.ring.used_bytes()
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        Counters {
            evicted_rows: self.ring.evicted_rows(),
            repeated_blocks: self.sender.repeated_blocks(),
            bad_frames: self.bad_frames,
            ignored_messages: self.ignored_messages,
        }
    }

    fn seal_if_idle(&mut self, now: Millis) {
        if self.ring.open_rows() > 0 {
            self.open_since.get_or_insert(now);
        }
        if self.seal_due().is_some_and(|due| due <= now) {
            self.ring.seal();
            self.open_since = None;
        }
    }

    /// When the open block is to be sealed as it is: only if it would be sent at once. Before that, and
    /// as long as the link is down, blocks fill.
    fn seal_due(&self) -> Option<Millis> {
        let wanted = self.ring.open_rows() > 0 && self.sender.wants_block(&backlog(&self.ring, &self.config));
        // A row that came since the last poll is noticed at the next.
        wanted.then(|| self.open_since.map_or(Millis(0), |since| since.plus(self.config.linger_ms)))
    }

    fn encode(&mut self, now: Millis, tick: Tick, transmit: Transmit) {
        match transmit {
            Transmit::Hello => {
                let hello = self.hello(tick);
                self.put(&hello);
            }
            Transmit::Birth(index) => {
                if let Some(description) = self.config.groups.descriptions().nth(usize::from(index)) {
                    let count = self.config.groups.channel_count();
                    let schema = self.schema();
                    self.put(&Birth { schema, index, count, description });
                }
            }
            Transmit::Gap => {
                if let (Some(boot), Some(SeqRange { from, to })) = (self.sender.boot(), self.ring.lost()) {
                    self.put(&Gap { boot, from, to, cause: GapCause::OVERFLOW });
                }
            }
            Transmit::Block(row) => {
                if let (Some(boot), Some(block)) = (self.sender.boot(), self.ring.find(row)) {
                    let (left, right) = block.parts;
                    self.out.put(self.config.transport, &[&Data::head(boot), left, right]);
                    self.sender.block_sent(now, block.rows);
                    self.leaving = Some(block.rows);
                }
            }
            Transmit::TimeReply(token) => self.put(&TimeReply { token, tick_now: tick }),
            Transmit::Status => {
                if let Some(boot) = self.sender.boot() {
                    self.put(&self.status(boot));
                }
            }
        }
    }

    fn hello(&mut self, tick_now: Tick) -> Hello {
        Hello {
            chip: self.config.chip.clone(),
            name: self.config.name.clone(),
            boot: self.sender.boot(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            schema: self.schema(),
            oldest: self.ring.unreleased(),
            next: self.ring.next(),
            tick_hz: self.config.tick_hz,
            tick_now,
            reset_cause: self.config.reset_cause,
            resumed_at: None,
        }
    }

    fn status(&self, boot: Boot) -> Status {
        Status {
            boot,
            oldest: self.ring.unreleased(),
            sent: self.sender.sent(),
            next: self.ring.next(),
            ring_used: self.ring.used_bytes() as u32,
            ring_size: RING as u32,
            evicted_rows: self.ring.evicted_rows(),
        }
    }

    /// A checksum over all names, so it is computed once.
    fn schema(&mut self) -> SchemaId {
        *self.schema.get_or_insert_with(|| self.config.groups.id())
    }

    fn put<B: Body>(&mut self, body: &B) {
        let mut message = [0; CONTROL_BYTES_MAX];
        let len = body.write(&mut message);
        debug_assert!(len.is_ok(), "every control message fits");
        if let Some(message) = len.ok().and_then(|len| message.get(..len)) {
            self.out.put(self.config.transport, &[message]);
        }
    }
}

/// Most bytes in a message of a device without rows: a `Birth` with three names of 32 bytes.
const CONTROL_BYTES_MAX: usize = 128;

fn backlog<const RING: usize>(ring: &Ring<RING>, config: &DeviceConfig) -> Backlog {
    Backlog {
        oldest: ring.oldest(),
        sealed: ring.sealed(),
        lost_to: ring.lost().map(|lost| lost.to),
        births: config.groups.channel_count(),
    }
}

/// The one frame or message that is being sent.
#[derive(Debug)]
struct Output {
    bytes: [u8; FRAME_BYTES_MAX + 1],
    at: usize,
    end: usize,
    /// Whether the line was busy up to now, so that it needs no delimiter before the next frame.
    in_burst: bool,
}

impl Output {
    const fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    fn put(&mut self, transport: Transport, parts: &[&[u8]]) {
        (self.at, self.end) = match transport {
            Transport::Serial => {
                // Every message fits in a frame.
                let len = frame::encode(parts, &mut self.bytes[1..]).unwrap_or(0);
                self.bytes[0] = frame::DELIMITER;
                (usize::from(self.in_burst), 1 + len)
            }
            Transport::Mqtt => {
                let mut end = 0;
                for part in parts {
                    self.bytes[end..end + part.len()].copy_from_slice(part);
                    end += part.len();
                }
                (0, end)
            }
        };
        self.in_burst = true;
    }
}

/// Why a sample was not recorded: the firmware and its groups do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// There is no such group.
    Group,
    /// More or fewer values than the group has channels.
    Count,
    /// A value is not of its channel's kind.
    Kind,
    /// No channel has a value.
    Empty,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "no such group",
            Self::Count => "a row has one entry for each channel of its group",
            Self::Kind => "a value is not of its channel's kind",
            Self::Empty => "a row has at least one value",
        })
    }
}

impl core::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use forebay_shared::ids::Epoch;
    use forebay_shared::message::{Ack, FromDevice, Presence, Welcome};
    use forebay_shared::reading::{Channel, Group, ValueKind};

    use super::*;

    const GROUPS: Groups = Groups::new(&[Group {
        name: "meter",
        channels: &[
            Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 },
            Channel { name: "open", unit: "", kind: ValueKind::Bool, scale: 0 },
        ],
    }]);
    const CHIP: [u8; 2] = [0xab, 0xcd];
    const EPOCH: Epoch = Epoch(5);
    const BOOT: Boot = Boot::new(6).unwrap();

    fn device(transport: Transport) -> Device<512> {
        Device::new(DeviceConfig {
            chip: ChipId::new(&CHIP).unwrap(),
            name: Name::new(),
            groups: GROUPS,
            tick_hz: 1000,
            linger_ms: 100,
            transport,
            reset_cause: ResetCause::UNKNOWN,
        })
    }

    fn welcome() -> Welcome {
        let (released, received, wants_birth, credit) = (Seq(0), Seq(0), false, 4);
        let chip = ChipId::new(&CHIP).unwrap();
        Welcome { epoch: EPOCH, boot: BOOT, released, received, wants_birth, credit, chip }
    }

    fn row(pulses: u32) -> [Option<Value>; 2] {
        [Some(Value::U32(pulses)), None]
    }

    #[test]
    fn a_sample_that_is_not_of_its_group_is_refused() {
        let mut device = device(Transport::Serial);
        let mut record = |group, values: &[_]| device.record(Tick(0), GroupId(group), values);
        assert_eq!(record(1, &row(0)), Err(RecordError::Group));
        assert_eq!(record(0, &row(0)[..1]), Err(RecordError::Count));
        assert_eq!(record(0, &[Some(Value::I32(0)), None]), Err(RecordError::Kind));
        assert_eq!(record(0, &[None, None]), Err(RecordError::Empty));
        assert_eq!(record(0, &row(0)), Ok(Seq(0)));
    }

    #[test]
    fn an_open_block_waits_for_the_link_and_then_for_company() {
        let mut device = device(Transport::Mqtt);
        let now = Millis(1000);
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        assert_eq!(device.poll(now, Tick(0)), None, "no gateway, nothing to do");
        let presence = Presence { epoch: EPOCH, client: Default::default() };
        device.presence(now, Some(&presence.to_message()));
        device.poll(now, Tick(77));
        let hello = FromDevice::parse(device.transmit_message().unwrap()).unwrap();
        assert!(
            matches!(hello, FromDevice::Hello(hello) if hello.tick_now == Tick(77) && hello.next == Seq(1))
        );
        device.message_sent();
        device.receive_message(now, &welcome().to_message());
        assert_eq!(device.poll(now, Tick(0)), Some(now.plus(100)));
        device.record(Tick(0), GroupId(0), &row(1)).unwrap();
        assert_eq!(device.poll(now.plus(99), Tick(0)), Some(now.plus(100)));
        assert_eq!(device.transmit_message(), None);
        device.poll(now.plus(100), Tick(0));
        let data = FromDevice::parse(device.transmit_message().unwrap()).unwrap();
        assert!(matches!(data, FromDevice::Data(data) if data.boot == BOOT), "{data:?}");
        device.message_sent();

        let ack = Ack {
            epoch: EPOCH,
            boot: BOOT,
            received: Seq(2),
            released: Seq(2),
            ranges: Default::default(),
            credit: 4,
            births: true,
        };
        assert!(device.ring_used_bytes() > 0);
        device.receive_message(now.plus(110), &ack.to_message());
        device.poll(now.plus(110), Tick(0));
        assert_eq!((device.ring_used_bytes(), device.oldest(), device.released()), (0, Seq(2), Seq(2)));
        device.presence(now.plus(120), Some(&[]));
        assert!(!device.is_connected());
    }

    #[test]
    fn a_burst_begins_with_a_delimiter_and_only_then() {
        let mut device = device(Transport::Serial);
        let now = Millis(0);
        assert_eq!(device.poll(now, Tick(0)), Some(now));
        let hello = device.transmit();
        assert_eq!((hello.first(), hello.last()), (Some(&0), Some(&0)));
        device.sent(1);
        assert_ne!(device.transmit().first(), Some(&0), "the rest of it comes next");
        device.sent(usize::MAX);
        assert_eq!(device.transmit(), []);

        let mut frame = [0; 64];
        let len =
            frame::encode(&[&Welcome { wants_birth: true, ..welcome() }.to_message()], &mut frame).unwrap();
        device.receive(now, &frame[..len]);
        assert!(device.is_connected());
        for _ in 0..2 {
            device.poll(now, Tick(0));
            assert_ne!(device.transmit().first(), Some(&0), "in the same burst");
            device.sent(usize::MAX);
        }
        device.poll(now, Tick(0));
        assert_eq!(device.transmit(), []);
        device.poll(Millis(1000), Tick(0));
        assert_eq!(device.transmit().first(), Some(&0));
    }

    #[test]
    fn a_slow_line_is_not_mistaken_for_a_bad_one() {
        let mut device = device(Transport::Serial);
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        device.receive_message(Millis(0), &welcome().to_message());
        device.poll(Millis(0), Tick(0));
        device.sent(usize::MAX);
        device.poll(Millis(100), Tick(0));
        device.sent(1);
        assert!(!device.transmit().is_empty(), "the block is on its way");
        device.poll(Millis(600), Tick(0));
        device.sent(usize::MAX);
        device.poll(Millis(700), Tick(0));
        assert_eq!(device.poll(Millis(1500), Tick(0)), Some(Millis(1700)));
    }

    #[test]
    fn damage_on_the_line_is_counted() {
        let mut device = device(Transport::Serial);
        device.receive(Millis(0), &[1, 2, 3, 0, 0]);
        device.receive(Millis(0), &[7; 100]);
        device.receive(Millis(0), &[0]);
        device.receive_message(Millis(0), &[0x41]);
        let Counters { bad_frames, ignored_messages, .. } = device.counters();
        assert_eq!((bad_frames, ignored_messages), (2, 1));
    }

    #[test]
    fn it_stays_small() {
        assert!(size_of::<Device<512>>() <= 512 + 1400, "{}", size_of::<Device<512>>());
    }
}
