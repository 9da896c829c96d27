//! The core of a device: samples go in, bytes or messages come out, and nothing here does IO.
//!
//! Operation, over a serial line: give what arrived to [`Device::receive`], call [`Device::poll`], write
//! [`Device::transmit`], say with [`Device::sent`] how much of it was written, and start over, at the
//! latest at the deadline that `poll` gave or after [`Device::record`]. Over MQTT the same with
//! [`Device::receive_message`], [`Device::presence`], [`Device::transmit_message`] and
//! [`Device::message_sent`].
//!
//! Memory: the ring, and at most 384 bytes with four channels; a channel more is 13 bytes. A ring that outlives a reset
//! takes 188 more. `Device::new` is `const`, so that a device can be a static.
//!
//! Cost: a row is encoded once, in 32-bit integer arithmetic, right into the ring, and a frame is made from there piece
//! by piece. There are no floats (an `f32` passes as its bits) and no divisions. As long as nothing happens but rows that
//! join others in the open block, `poll` only compares the time with the deadline that it gave.
//!
//! Failure: damaged frames and messages for others are counted and change nothing. Where the ring is full,
//! the oldest block makes room and the gateway is told. A chip that was reset loses what is in the ring, which the
//! gateway is told, unless that is in memory that outlives a reset ([`Device::resume`]).

mod outgoing;
mod record;
mod said;

use forebay_shared::frame::{Bytes as _, Decoder, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, ChipId, Millis, Seq, Stamp, Tick, Token};
use forebay_shared::link::{Backlog, Sender, SenderError, Transmit, Transport};
use forebay_shared::message::{MESSAGE_BYTES_MAX, ResetCause, SeqRange};
use forebay_shared::reading::{Groups, NAME_BYTES_MAX};

use crate::ring::{Kept, Kin, Memory, Ring};
use outgoing::Outgoing;
use said::{Head, Said};

pub use crate::ring::WhenFull;
pub use record::RecordError;

/// What a device is, whichever chip it is.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The name that it announces; may be empty, and has at most 32 bytes.
    pub name: &'static str,
    /// What it measures.
    pub groups: Groups,
    /// Ticks per second.
    pub tick_hz: u32,
    /// How long a row may wait for company while the link has nothing else to do, in milliseconds.
    pub linger_ms: u32,
    /// What carries its messages.
    pub transport: Transport,
    /// What makes way when the ring is full.
    pub when_full: WhenFull,
}

/// What happened so far, for tests and displays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that made room for newer ones without having been released.
    pub evicted_rows: u32,
    /// Blocks that were sent again.
    pub repeated_blocks: u32,
    /// Damaged frames on the line, up to 65,535.
    pub bad_frames: u32,
    /// Messages that were not for this device, or could not be obeyed, up to 65,535.
    pub ignored_messages: u32,
}

/// A device with a ring of `RING` bytes, and at most `CHANNELS` channels in all its groups. See the
/// [module](self).
#[derive(Debug)]
pub struct Device<const RING: usize, const CHANNELS: usize, M = [u8; RING]> {
    config: &'static DeviceConfig,
    chip: ChipId,
    reset_cause: ResetCause,
    /// Has a row been seen in the open block since it was begun?
    is_open: bool,
    open_since: Stamp,
    ring: Ring<RING, CHANNELS, M>,
    sender: Sender,
    decoder: Decoder<{ FRAME_TO_DEVICE_BYTES_MAX - 2 }>,
    out: Outgoing,
    /// Whether there is nothing to do until then, unless something happens.
    is_quiet: bool,
    quiet_until: Stamp,
    /// These two are for the display, and stop at their ends.
    bad_frames: u16,
    ignored_messages: u16,
}

impl<const RING: usize, const CHANNELS: usize> Device<RING, CHANNELS> {
    /// A device that has just started, with an empty ring. `chip` is its identity, and `reset_cause` tells why it
    /// started.
    ///
    /// # Panics
    ///
    /// When the groups have more than `CHANNELS` channels, or the name has more than 32 bytes; in a `const` item or a
    /// static, that is an error of the compiler.
    pub const fn new(config: &'static DeviceConfig, chip: ChipId, reset_cause: ResetCause) -> Self {
        Self::with(Ring::new(config.when_full), config, chip, reset_cause)
    }
}

impl<'m, const RING: usize, const CHANNELS: usize> Device<RING, CHANNELS, &'m mut [u8; RING]> {
    /// The same, with a ring in memory that is elsewhere: a static of zeros costs a chip no flash, and the ring is never
    /// on its stack, however the device is made.
    ///
    /// # Panics
    ///
    /// As [`Device::new`].
    pub const fn with_memory(
        config: &'static DeviceConfig,
        memory: &'m mut [u8; RING],
        chip: ChipId,
        reset_cause: ResetCause,
    ) -> Self {
        Self::with(Ring::within(memory, config.when_full), config, chip, reset_cause)
    }
}

impl<const RING: usize, const CHANNELS: usize, M: Memory> Device<RING, CHANNELS, Kept<M>> {
    /// A device that goes on with what an earlier life of it left in `memory`, which outlives a reset and has
    /// [`KEPT_BYTES`](crate::ring::KEPT_BYTES) more than the ring. Where nothing in it can be taken up, since the chip had
    /// no power, or this is other firmware, the ring is empty.
    ///
    /// Where it was, ticks have to go on from [`Device::resumed_at`].
    ///
    /// # Panics
    ///
    /// As [`Device::new`].
    pub fn resume(config: &'static DeviceConfig, memory: M, chip: ChipId, reset_cause: ResetCause) -> Self {
        let kin = Kin { schema: config.groups.id(), tick_hz: config.tick_hz };
        let ring = Ring::resume(memory, kin, config.when_full, reset_cause.leaves_memory_alone());
        let mut device = Self::with(ring, config, chip, reset_cause);
        device.sender.resume(device.ring.boot(), device.ring.unreleased());
        device
    }
}

impl<const RING: usize, const CHANNELS: usize, M: Memory> Device<RING, CHANNELS, M> {
    const fn with(
        ring: Ring<RING, CHANNELS, M>,
        config: &'static DeviceConfig,
        chip: ChipId,
        reset_cause: ResetCause,
    ) -> Self {
        let channels = config.groups.channel_count();
        assert!(channels as usize <= CHANNELS, "the groups have more channels than the device");
        assert!(config.name.len() <= NAME_BYTES_MAX, "a device's name has at most 32 bytes");
        let sender = Sender::new(config.transport, channels);
        Self {
            config,
            chip,
            reset_cause,
            is_open: false,
            open_since: Stamp::ZERO,
            ring,
            sender,
            decoder: Decoder::new(),
            out: Outgoing::new(),
            is_quiet: false,
            quiet_until: Stamp::ZERO,
            bad_frames: 0,
            ignored_messages: 0,
        }
    }

    /// Numbers rows from `first` on, as if all before were released. Only before the first row.
    #[cfg(feature = "simulation")]
    pub fn number_from(&mut self, first: Seq) {
        self.ring.number_from(first);
        self.sender.resume(None, first);
    }

    /// Where the count of time has to go on, after a reset from which the ring was taken up.
    pub fn resumed_at(&self) -> Option<Tick> {
        self.ring.resumed_at()
    }

    /// Takes bytes that arrived on the serial line.
    pub fn receive(&mut self, now: Millis, mut bytes: &[u8]) {
        while let Some(frame) = self.decoder.next(&mut bytes) {
            self.is_quiet = false;
            match frame {
                Ok(message) => {
                    let heard =
                        self.sender.handle(Stamp::of(now), message, &self.chip, self.ring.blocks_mut());
                    self.heard(heard);
                }
                Err(_) => self.bad_frames = self.bad_frames.saturating_add(1),
            }
        }
    }

    /// Takes a message that arrived on the device's MQTT topic.
    pub fn receive_message(&mut self, now: Millis, message: &[u8]) {
        let heard = self.sender.handle(Stamp::of(now), message, &self.chip, self.ring.blocks_mut());
        self.heard(heard);
    }

    /// Takes the payload of the gateway's retained presence topic; `None`, or an empty one, says that no
    /// gateway is there, or that the broker cannot be reached.
    pub fn presence(&mut self, payload: Option<&[u8]>) {
        let payload = payload.unwrap_or_default();
        let heard = self.sender.handle_presence(payload);
        if payload.is_empty() {
            self.out.abort();
        }
        self.heard(heard);
    }

    fn heard(&mut self, heard: Result<(), SenderError>) {
        self.is_quiet = false;
        if heard.is_err() {
            self.ignored_messages = self.ignored_messages.saturating_add(1);
        }
        if let Some(boot) = self.sender.boot() {
            self.ring.keep_boot(boot);
        }
    }

    /// Decides what to send, and says when to call again if nothing happens before. Call it after each
    /// of the other calls; `tick` is the present time by the device's own count.
    pub fn poll(&mut self, now: Millis, tick: Tick) -> Option<Millis> {
        self.wait(Stamp::of(now), tick).map(|ms| now.plus(ms))
    }

    /// The same, with the milliseconds until then.
    fn wait(&mut self, now: Stamp, tick: Tick) -> Option<u32> {
        if self.is_quiet && now.until(self.quiet_until) > 0 {
            return Some(now.until(self.quiet_until));
        }
        self.is_quiet = false;
        match (self.config.transport, self.out.what()) {
            (Transport::Serial, Some(_)) => self.watch_line(now),
            // A block that made room before the broker took it is lost, and declared.
            (Transport::Mqtt, Some(Transmit::Block(place))) if self.ring.blocks().block(place).is_none() => {
                self.out.finish();
            }
            // What was lost is known by now.
            (Transport::Mqtt, Some(Transmit::Gap)) if self.ring.lost().is_none() => self.out.finish(),
            _ => {}
        }
        if self.out.what().is_none() {
            self.choose(now, tick);
        }
        if self.out.what().is_some() {
            return Some(0);
        }
        let link = self.sender.poll_timeout(now, self.ring.blocks());
        let wait = link.unwrap_or(u32::MAX).min(self.seal_due(now));
        if wait == u32::MAX {
            return None;
        }
        (self.is_quiet, self.quiet_until) = (wait > 0, now.plus(wait));
        Some(wait)
    }

    /// Bytes to be written to the serial line; none, where it has nothing to say. They are the next piece of a frame,
    /// or all of it.
    pub fn transmit(&self) -> &[u8] {
        self.out.waiting()
    }

    /// The first `count` of those bytes were written.
    pub fn sent(&mut self, count: usize) {
        if self.out.sent(count) {
            self.refill();
        }
    }

    /// The message to be published next, if there is one, in the front of `buffer`.
    pub fn transmit_message<'b>(&self, buffer: &'b mut [u8; MESSAGE_BYTES_MAX]) -> Option<&'b [u8]> {
        let what = self.out.what().filter(|_| self.config.transport == Transport::Mqtt)?;
        let mut head = Head::new();
        self.write_head(what, &mut head)?;
        let said = Said { head: &head, blocks: self.ring.blocks() };
        for (at, slot) in (0..said.size()).zip(buffer.iter_mut()) {
            *slot = said.byte(at);
        }
        buffer.get(..usize::from(said.size()))
    }

    /// The message was handed to the MQTT client, which repeats it until the broker has it.
    pub const fn message_sent(&mut self) {
        self.out.finish();
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
    pub const fn oldest(&self) -> Seq {
        self.ring.unreleased()
    }

    /// The number that the next row will get.
    pub const fn next_sequence(&self) -> Seq {
        self.ring.next()
    }

    /// One past the last row that the gateway said is durable.
    pub const fn released(&self) -> Seq {
        self.ring.unreleased()
    }

    /// One past the last row in a sealed block.
    #[cfg(feature = "simulation")]
    pub fn sealed(&self) -> Seq {
        self.ring.blocks().sealed()
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
            bad_frames: self.bad_frames as u32,
            ignored_messages: self.ignored_messages as u32,
        }
    }

    /// Begins the next message, if there is one to send.
    fn choose(&mut self, now: Stamp, tick: Tick) {
        self.seal_if_idle(now);
        let Some(what) = self.sender.poll_transmit(now, self.ring.blocks_mut()) else {
            self.out.rest();
            return;
        };
        if what == Transmit::Hello {
            self.sender.hello_sent(Token::of(tick));
        }
        self.ring.mark(tick);
        let rows = SeqRange { from: self.ring.unreleased(), to: self.ring.next() };
        self.out.begin(now, tick, what, rows);
        if self.config.transport == Transport::Serial {
            // Its frame is made from the ring until it has left.
            if let Transmit::Block(place) = what {
                self.ring.pin(place);
            }
            self.refill();
        }
    }

    /// Ends what has left, or what the line does not take any more.
    fn watch_line(&mut self, now: Stamp) {
        if self.out.waiting().is_empty() {
            if let Some(Transmit::Block(place)) = self.out.what() {
                self.sender.block_left(now, place, self.ring.blocks_mut());
            }
            self.out.finish();
        } else if self.out.is_stalled(now) {
            self.sender.line_stalled();
            self.out.abort();
        } else {
            return;
        }
        self.ring.unpin();
    }

    fn seal_if_idle(&mut self, now: Stamp) {
        if self.ring.is_open() && !self.is_open {
            (self.is_open, self.open_since) = (true, now);
        }
        if self.seal_due(now) == 0 {
            self.ring.seal();
            self.is_open = false;
        }
    }

    /// How long it is until the open block is to be sealed as it is: only if it would be sent at once. Before that, and
    /// as long as the link is down, blocks fill.
    fn seal_due(&self, now: Stamp) -> u32 {
        if !self.ring.is_open() || !self.sender.wants_block(self.ring.blocks()) {
            return u32::MAX;
        }
        // A row that came since the last poll is noticed at the next.
        if self.is_open { self.config.linger_ms.saturating_sub(now.since(self.open_since)) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use forebay_shared::frame;
    use forebay_shared::ids::{Epoch, GroupId};
    use forebay_shared::message::{Ack, Body as _, FromDevice, Presence, Welcome};
    use forebay_shared::reading::{Channel, Group, Value, ValueKind};

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

    const fn config(transport: Transport) -> DeviceConfig {
        let when_full = WhenFull::DropOldest;
        DeviceConfig { name: "", groups: GROUPS, tick_hz: 1000, linger_ms: 100, transport, when_full }
    }

    static SERIAL: DeviceConfig = config(Transport::Serial);
    static MQTT: DeviceConfig = config(Transport::Mqtt);

    fn device(config: &'static DeviceConfig) -> Device<512, 2> {
        Device::new(config, ChipId::new(&CHIP).unwrap(), ResetCause::UNKNOWN)
    }

    fn welcome() -> Welcome {
        let (released, received, wants_birth, credit) = (Seq(0), Seq(0), false, 4);
        let (chip, answers) = (ChipId::new(&CHIP).unwrap(), Token(0));
        Welcome { epoch: EPOCH, boot: BOOT, released, received, wants_birth, credit, chip, answers }
    }

    /// All that waits to be written.
    fn written(device: &mut Device<512, 2>) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !device.transmit().is_empty() {
            bytes.extend(device.transmit());
            device.sent(device.transmit().len());
        }
        bytes
    }

    fn row(pulses: u32) -> [Option<Value>; 2] {
        [Some(Value::U32(pulses)), None]
    }

    #[test]
    fn a_sample_that_is_not_of_its_group_is_refused() {
        let mut device = device(&SERIAL);
        let mut record = |group, values: &[_]| device.record(Tick(0), GroupId(group), values);
        assert_eq!(record(1, &row(0)), Err(RecordError::Group));
        assert_eq!(record(0, &row(0)[..1]), Err(RecordError::Count));
        assert_eq!(record(0, &[Some(Value::I32(0)), None]), Err(RecordError::Kind));
        assert_eq!(record(0, &[None, None]), Err(RecordError::Empty));
        assert_eq!(record(0, &row(0)), Ok(Seq(0)));
    }

    #[test]
    fn an_open_block_waits_for_the_link_and_then_for_company() {
        let mut device = device(&MQTT);
        let now = Millis(1000);
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        assert_eq!(device.poll(now, Tick(0)), None, "no gateway, nothing to do");
        let presence = Presence { epoch: EPOCH, client: Default::default() };
        device.presence(Some(&presence.to_message()));
        device.poll(now, Tick(77));
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let hello = FromDevice::parse(device.transmit_message(&mut buffer).unwrap()).unwrap();
        assert!(
            matches!(hello, FromDevice::Hello(hello) if hello.tick_now == Tick(77) && hello.next == Seq(1))
        );
        device.message_sent();
        device.receive_message(now, &Welcome { answers: Token(77), ..welcome() }.to_message());
        assert_eq!(device.poll(now, Tick(0)), Some(now.plus(100)));
        device.record(Tick(0), GroupId(0), &row(1)).unwrap();
        assert_eq!(device.poll(now.plus(99), Tick(0)), Some(now.plus(100)));
        assert_eq!(device.transmit_message(&mut buffer), None);
        device.poll(now.plus(100), Tick(0));
        let data = FromDevice::parse(device.transmit_message(&mut buffer).unwrap()).unwrap();
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
        device.presence(Some(&[]));
        assert!(!device.is_connected());
    }

    #[test]
    fn a_broker_that_takes_nothing_costs_the_oldest() {
        let mut device = device(&MQTT);
        let now = Millis(1000);
        let presence = Presence { epoch: EPOCH, client: Default::default() };
        device.presence(Some(&presence.to_message()));
        device.receive_message(now, &welcome().to_message());
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        device.poll(now, Tick(0));
        device.poll(now.plus(100), Tick(0));
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        assert!(device.transmit_message(&mut buffer).is_some());
        let mut pulses = 1_u32;
        while device.lost().is_none() {
            pulses = pulses.wrapping_mul(0x9e37_79b9);
            device.record(Tick(0), GroupId(0), &row(pulses)).unwrap();
        }
        assert_eq!(device.transmit_message(&mut buffer), None, "it has made room");
        device.poll(now.plus(100), Tick(0));
        let gap = FromDevice::parse(device.transmit_message(&mut buffer).unwrap()).unwrap();
        assert!(matches!(gap, FromDevice::Gap(gap) if gap.from == Seq(0)));
        device.presence(None);
        assert_eq!(device.transmit_message(&mut buffer), None);
    }

    #[test]
    fn a_burst_begins_with_a_delimiter_and_only_then() {
        let mut device = device(&SERIAL);
        let now = Millis(0);
        assert_eq!(device.poll(now, Tick(0)), Some(now));
        assert_eq!(device.transmit().first(), Some(&0));
        device.sent(1);
        assert_ne!(device.transmit().first(), Some(&0), "the rest of it comes next");
        assert_eq!(written(&mut device).last(), Some(&0));

        let mut frame = [0; 64];
        let len =
            frame::encode(&[&Welcome { wants_birth: true, ..welcome() }.to_message()], &mut frame).unwrap();
        device.receive(now, &frame[..len]);
        assert!(device.is_connected());
        for _ in 0..2 {
            device.poll(now, Tick(0));
            assert_ne!(device.transmit().first(), Some(&0), "in the same burst");
            written(&mut device);
        }
        device.poll(now, Tick(0));
        assert_eq!(device.transmit(), []);
        device.poll(Millis(1000), Tick(0));
        assert_eq!(device.transmit().first(), Some(&0));
    }

    #[test]
    fn a_slow_line_is_not_mistaken_for_a_bad_one() {
        let mut device = device(&SERIAL);
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        device.receive_message(Millis(0), &welcome().to_message());
        device.poll(Millis(0), Tick(0));
        written(&mut device);
        device.poll(Millis(100), Tick(0));
        device.sent(1);
        assert!(!device.transmit().is_empty(), "the block is on its way");
        device.poll(Millis(600), Tick(0));
        written(&mut device);
        device.poll(Millis(700), Tick(0));
        assert_eq!(device.poll(Millis(1500), Tick(0)), Some(Millis(1700)));
    }

    #[test]
    fn a_line_that_takes_nothing_gives_its_block_up() {
        let mut device = device(&SERIAL);
        device.record(Tick(0), GroupId(0), &row(0)).unwrap();
        device.receive_message(Millis(0), &welcome().to_message());
        device.poll(Millis(100), Tick(0));
        device.poll(Millis(200), Tick(0));
        device.sent(1);
        assert_eq!(device.poll(Millis(1199), Tick(0)), Some(Millis(1199)));
        device.sent(1);
        device.poll(Millis(1200), Tick(0));
        assert!(device.is_connected() && !device.transmit().is_empty(), "it moves");
        device.poll(Millis(2200), Tick(0));
        assert!(!device.is_connected());
        let greeting = written(&mut device);
        let mut decoder = Decoder::<{ Decoder::MAX }>::new();
        let hello = decoder.next(&mut &greeting[..]).unwrap().unwrap();
        assert!(matches!(FromDevice::parse(hello), Ok(FromDevice::Hello(hello)) if hello.next == Seq(1)));
    }

    #[test]
    fn damage_on_the_line_is_counted() {
        let mut device = device(&SERIAL);
        device.receive(Millis(0), &[1, 2, 3, 0, 0]);
        device.receive(Millis(0), &[7; 100]);
        device.receive(Millis(0), &[0]);
        device.receive_message(Millis(0), &[0x41]);
        let Counters { bad_frames, ignored_messages, .. } = device.counters();
        assert_eq!((bad_frames, ignored_messages), (2, 1));
    }

    #[test]
    fn it_stays_small() {
        // The host's pointers are longer than a chip's, for which `tests/run firmware` has 384 bytes.
        assert!(size_of::<Device<512, 4>>() <= 512 + 392, "{}", size_of::<Device<512, 4>>());
    }
}
