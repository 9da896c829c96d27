//! What the two ends say to each other: one kind byte and a body of at most 248 bytes.
//!
//! Over MQTT a message travels as it is; over a serial line it travels in a [frame](crate::frame).
//!
//! Bodies are postcard, which is positional: a field can be neither added nor moved later. So kinds are
//! assigned by hand, once; a body that must change gets a new kind; no enum that could grow stands in a
//! body; and a body with bytes left over is refused. A kind whose low nibble is 8 to 15 is optional: who
//! does not know it skips it. Any other unknown kind from a device is answered with [`Reject`].
//!
//! What stands here is the gateway's end, in serde and postcard; [`brief`] is the device's.

pub mod brief;

use core::fmt;

use heapless::{String, Vec};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::block::{BLOCK_BYTES_MAX, Form};
use crate::ids::{Boot, ChipId, Epoch, SchemaId, Seq, Tick, Token};
use crate::reading::{Description, Name};

/// The one version of the wire that there is.
pub const WIRE_VERSION: u8 = 1;
/// Most bytes in a body.
pub const BODY_BYTES_MAX: usize = 248;
/// Most bytes in a message: the kind and the body.
pub const MESSAGE_BYTES_MAX: usize = 1 + BODY_BYTES_MAX;
/// Most selective ranges in an [`Ack`]; with more, it would not fit in 64 bytes on the wire.
pub const ACK_RANGES_MAX: usize = 3;
/// Most bytes in the client id of a [`Presence`].
pub const CLIENT_BYTES_MAX: usize = 64;

/// The bytes of a message.
pub type Message = Vec<u8, MESSAGE_BYTES_MAX, u8>;

/// What a message is. Numbers are assigned once and for ever; 0x44 is kept for commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Device: see [`Hello`].
    Hello = 0x01,
    /// Device: see [`Birth`].
    Birth = 0x02,
    /// Device: see [`Data`], with a packed block.
    Data = 0x03,
    /// Device: see [`Data`], with a plain block.
    DataPlain = 0x04,
    /// Device: see [`Gap`].
    Gap = 0x05,
    /// Device: see [`TimeReply`].
    TimeReply = 0x06,
    /// Device: see [`Status`].
    Status = 0x07,
    /// Gateway: see [`Welcome`].
    Welcome = 0x41,
    /// Gateway: see [`Ack`].
    Ack = 0x42,
    /// Gateway: see [`TimeRequest`].
    TimeRequest = 0x43,
    /// Gateway: see [`Reject`].
    Reject = 0x45,
    /// Gateway, over MQTT only: see [`Presence`].
    Presence = 0x46,
}

/// A body with a kind of its own.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind byte that stands before it.
    const KIND: Kind;

    /// The whole message.
    fn to_message(&self) -> Message {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let [kind, body @ ..] = &mut bytes;
        *kind = Self::KIND as u8;
        let len = postcard::to_slice(self, body).map_or(0, |body| 1 + body.len());
        debug_assert!(len > 0, "every body fits in a message");
        Vec::from_slice(bytes.get(..len).unwrap_or_default()).unwrap_or_default()
    }
}

/// Device → gateway: who I am, what I hold and what time I have. The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<C = ChipId, N = Name> {
    /// Identity of the device.
    pub chip: C,
    /// Its announced name; may be empty.
    pub name: N,
    /// The boot that a gateway assigned, if one has.
    #[serde(with = "boot_or_zero")]
    pub boot: Option<Boot>,
    /// Oldest version of the wire that it speaks.
    pub version_min: u8,
    /// Newest version of the wire that it speaks.
    pub version_max: u8,
    /// Its groups and channels.
    pub schema: SchemaId,
    /// First row that is not released: the device holds it, or declares it lost in a [`Gap`].
    pub oldest: Seq,
    /// The number that the next row will get.
    pub next: Seq,
    /// Ticks per second.
    pub tick_hz: u32,
    /// The tick at which this message was made.
    pub tick_now: Tick,
    /// Why the device started: see [`ResetCause`].
    pub reset_cause: ResetCause,
    /// The tick at which rows kept through a reset were taken up again, if they were.
    pub resumed_at: Option<Tick>,
}

impl Hello {
    /// What the [`Welcome`] that answers it carries.
    pub const fn token(&self) -> Token {
        Token::of(self.tick_now)
    }
}

/// Why a device started. Numbers that are not named here may come from newer firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResetCause(pub u8);

impl ResetCause {
    /// The device does not know.
    pub const UNKNOWN: Self = Self(0);
    /// Power was applied.
    pub const POWER_ON: Self = Self(1);
    /// The reset pin was pulled.
    pub const PIN: Self = Self(2);
    /// The firmware asked for it.
    pub const SOFTWARE: Self = Self(3);
    /// A watchdog ran out.
    pub const WATCHDOG: Self = Self(4);
    /// The supply voltage fell too low.
    pub const BROWN_OUT: Self = Self(5);

    /// Whether the chip had power all the time, so that its memory is as it was.
    pub const fn leaves_memory_alone(self) -> bool {
        matches!(self, Self::PIN | Self::SOFTWARE | Self::WATCHDOG)
    }
}

/// Device → gateway: one of its channels. The set is acked as a whole by [`Ack::births`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth<N = Name> {
    /// The set that it belongs to.
    pub schema: SchemaId,
    /// Its position in the set.
    pub index: u8,
    /// How many channels the set has.
    pub count: u8,
    /// The channel.
    pub description: Description<N>,
}

/// Device → gateway: a sealed [block](crate::block) of rows. The boot is a plain u32, low byte first, so
/// that it travels in the message and not in the sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// Which numbering the rows belong to.
    pub boot: Boot,
    /// How the rows are encoded, which is what the kind of the message says.
    pub form: Form,
    /// The sealed bytes.
    pub block: &'a [u8],
}

impl<'a> Data<'a> {
    /// What stands before the sealed bytes in the message: the kind and the boot.
    pub fn head(form: Form, boot: Boot) -> [u8; 5] {
        let kind = match form {
            Form::Packed => Kind::Data,
            Form::Plain => Kind::DataPlain,
        };
        let [a, b, c, d] = boot.get().to_le_bytes();
        [kind as u8, a, b, c, d]
    }

    fn parse(form: Form, body: &'a [u8]) -> Option<Self> {
        let (boot, block) = body.split_first_chunk::<4>()?;
        let boot = Boot::new(u32::from_le_bytes(*boot))?;
        (block.len() <= BLOCK_BYTES_MAX).then_some(Self { boot, form, block })
    }
}

/// Device → gateway: rows that it has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which numbering the rows belong to.
    pub boot: Boot,
    /// First lost row.
    pub from: Seq,
    /// One past the last lost row.
    pub to: Seq,
    /// Why they were lost.
    pub cause: GapCause,
}

/// Why rows were lost. Numbers that are not named here may come from newer firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GapCause(pub u8);

impl GapCause {
    /// The ring was full: its oldest block made room, or it took no newer row.
    pub const OVERFLOW: Self = Self(1);
    /// The device restarted and its memory did not survive.
    pub const DEVICE_RESET: Self = Self(2);
    /// The device was too busy to take a row from where it was sampled.
    pub const OVERRUN: Self = Self(3);
    /// The sensor did not answer when its row was due.
    pub const SENSOR: Self = Self(4);
    /// The device restarted, and its memory survived, but for the rows of the open block.
    pub const RESET: Self = Self(5);
    /// Not from a device: it was told to let go of rows that the gateway does not have.
    pub const FORGOTTEN: Self = Self(255);

    /// A short name for logs and databases.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OVERFLOW => "overflow",
            Self::DEVICE_RESET => "device_reset",
            Self::OVERRUN => "overrun",
            Self::SENSOR => "sensor",
            Self::RESET => "reset",
            Self::FORGOTTEN => "forgotten",
            _ => "unknown",
        }
    }
}

/// Device → gateway: the answer to a [`TimeRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeReply {
    /// The one of the request.
    pub token: Token,
    /// The tick at which this message was made.
    pub tick_now: Tick,
}

/// Device → gateway: how things stand; also a sign of life and a question for an [`Ack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The present numbering.
    pub boot: Boot,
    /// As in [`Hello::oldest`].
    pub oldest: Seq,
    /// One past the last row that was sent in this connection: what is missing below it was lost.
    pub sent: Seq,
    /// As in [`Hello::next`].
    pub next: Seq,
    /// Bytes in the ring.
    pub ring_used: u32,
    /// Bytes that the ring can hold.
    pub ring_size: u32,
    /// Rows of this life that made room for newer ones.
    pub evicted_rows: u32,
}

/// Gateway → device: the answer to a [`Hello`]. The device then sends again whatever is not `received`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome<C = ChipId> {
    /// This life of the gateway.
    pub epoch: Epoch,
    /// The numbering of the device's rows from now on; the device's own if it had one.
    pub boot: Boot,
    /// One past the last row that the device may let go of.
    pub released: Seq,
    /// One past the last row received without a hole.
    pub received: Seq,
    /// Whether the device shall send its [`Birth`] messages before any data.
    pub wants_birth: bool,
    /// Blocks that it may have outstanding beyond `received`.
    pub credit: u8,
    /// Which device is meant.
    pub chip: C,
    /// The [`Hello::token`] of the `Hello` that this answers. A device without a boot obeys no other: the answer
    /// to an earlier life of it may still be on its way, and would give it the boot of other rows.
    pub answers: Token,
}

/// A half-open range of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqRange {
    /// First row.
    pub from: Seq,
    /// One past the last row.
    pub to: Seq,
}

/// Gateway → device: what has arrived, and what may be let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// This life of the gateway; another than before reveals a restart.
    pub epoch: Epoch,
    /// The numbering.
    pub boot: Boot,
    /// One past the last row received without a hole: need not be sent again in this epoch.
    pub received: Seq,
    /// One past the last row that the device may let go of.
    pub released: Seq,
    /// Rows received beyond a hole, lowest first.
    pub ranges: Vec<SeqRange, ACK_RANGES_MAX, u8>,
    /// Blocks that may be outstanding beyond `received`.
    pub credit: u8,
    /// Whether the gateway has the whole schema.
    pub births: bool,
}

/// Gateway → device: what time have you?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRequest {
    /// This life of the gateway.
    pub epoch: Epoch,
    /// Comes back in the [`TimeReply`].
    pub token: Token,
}

/// Gateway → device: a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// The kind byte of the message.
    pub kind: u8,
}

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RejectCode(pub u8);

impl RejectCode {
    /// No such kind.
    pub const UNKNOWN_KIND: Self = Self(1);
    /// None of the announced versions of the wire is spoken here.
    pub const UNSUPPORTED_VERSION: Self = Self(2);
    /// The body cannot be decoded.
    pub const MALFORMED: Self = Self(3);
    /// The gateway knows as many devices as it may.
    pub const DEVICE_LIMIT: Self = Self(4);
    /// Not welcomed, or welcomed with another boot: say [`Hello`].
    pub const WRONG_BOOT: Self = Self(5);
}

/// Gateway, over MQTT, retained: a gateway is there. Its last will replaces it with an empty payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// This life of the gateway.
    pub epoch: Epoch,
    /// Its MQTT client id.
    pub client: String<CLIENT_BYTES_MAX, u8>,
}

macro_rules! bodies {
    ($($body:ident),*) => { $(impl Body for $body { const KIND: Kind = Kind::$body; })* };
}
bodies!(Hello, Birth, Gap, TimeReply, Status, Welcome, Ack, TimeRequest, Reject, Presence);

/// A message from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromDevice<'a> {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Birth`].
    Birth(Birth),
    /// See [`Data`].
    Data(Data<'a>),
    /// See [`Gap`].
    Gap(Gap),
    /// See [`TimeReply`].
    TimeReply(TimeReply),
    /// See [`Status`].
    Status(Status),
}

impl<'a> FromDevice<'a> {
    /// Reads a message that a device sent.
    ///
    /// # Errors
    ///
    /// The kind is unknown, or the body is not exactly one of its kind.
    pub fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let (&kind, body) = message.split_first().ok_or(MessageError::Empty)?;
        match kind {
            0x01 => read(body).map(Self::Hello),
            0x02 => read(body).map(Self::Birth),
            0x03 => Data::parse(Form::Packed, body).map(Self::Data).ok_or(MessageError::Malformed { kind }),
            0x04 => Data::parse(Form::Plain, body).map(Self::Data).ok_or(MessageError::Malformed { kind }),
            0x05 => read(body).map(Self::Gap),
            0x06 => read(body).map(Self::TimeReply),
            0x07 => read(body).map(Self::Status),
            _ => Err(MessageError::unknown(kind)),
        }
    }
}

/// A message from a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGateway {
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`TimeRequest`].
    TimeRequest(TimeRequest),
    /// See [`Reject`].
    Reject(Reject),
    /// See [`Presence`].
    Presence(Presence),
}

impl FromGateway {
    /// Reads a message that a gateway sent.
    ///
    /// # Errors
    ///
    /// The kind is unknown, or the body is not exactly one of its kind.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let (&kind, body) = message.split_first().ok_or(MessageError::Empty)?;
        match kind {
            0x41 => read(body).map(Self::Welcome),
            0x42 => read(body).map(Self::Ack),
            0x43 => read(body).map(Self::TimeRequest),
            0x45 => read(body).map(Self::Reject),
            0x46 => read(body).map(Self::Presence),
            _ => Err(MessageError::unknown(kind)),
        }
    }
}

fn read<B: Body>(body: &[u8]) -> Result<B, MessageError> {
    match postcard::take_from_bytes(body) {
        Ok((body, [])) => Ok(body),
        Ok(_) | Err(_) => Err(MessageError::Malformed { kind: B::KIND as u8 }),
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// It has no bytes.
    Empty,
    /// Its kind is unknown, and it wants to be understood.
    Unknown {
        /// The kind byte.
        kind: u8,
    },
    /// Its kind is unknown, and it may be skipped.
    Optional {
        /// The kind byte.
        kind: u8,
    },
    /// Its body is cut short, too long or holds an impossible value.
    Malformed {
        /// The kind byte.
        kind: u8,
    },
}

impl MessageError {
    const fn unknown(kind: u8) -> Self {
        if kind & 0x0f >= 8 { Self::Optional { kind } } else { Self::Unknown { kind } }
    }

    /// What a device that sent it is told, if anything.
    pub const fn reject(self) -> Option<Reject> {
        match self {
            Self::Empty | Self::Optional { .. } => None,
            Self::Unknown { kind } => Some(Reject { code: RejectCode::UNKNOWN_KIND, kind }),
            Self::Malformed { kind } => Some(Reject { code: RejectCode::MALFORMED, kind }),
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("message is empty"),
            Self::Unknown { kind } => write!(f, "message kind {kind:#04x} is unknown: update the older end"),
            Self::Optional { kind } => write!(f, "message kind {kind:#04x} is unknown and was skipped"),
            Self::Malformed { kind } => write!(f, "body of message kind {kind:#04x} cannot be decoded"),
        }
    }
}

impl core::error::Error for MessageError {}

/// A boot that may be missing is zero on the wire.
mod boot_or_zero {
    use super::{Boot, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(boot: &Option<Boot>, serializer: S) -> Result<S::Ok, S::Error> {
        boot.map_or(0, Boot::get).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Boot>, D::Error> {
        u32::deserialize(deserializer).map(Boot::new)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![0..=8_u8, 0x40..=0x47_u8, any::<u8>()];
        (kind, vec(prop_oneof![0..5_u8, any::<u8>()], 0..=BODY_BYTES_MAX))
            .prop_map(|(kind, body)| [&[kind][..], &body].concat())
    }

    /// Says what was parsed again: the two must mean the same, though a varint may have been padded.
    fn say(message: &FromDevice<'_>) -> Vec<u8> {
        match message {
            FromDevice::Hello(body) => body.to_message().to_vec(),
            FromDevice::Birth(body) => body.to_message().to_vec(),
            FromDevice::Data(data) => [&Data::head(data.form, data.boot)[..], data.block].concat(),
            FromDevice::Gap(body) => body.to_message().to_vec(),
            FromDevice::TimeReply(body) => body.to_message().to_vec(),
            FromDevice::Status(body) => body.to_message().to_vec(),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(message in message()) {
            if let Ok(parsed) = FromDevice::parse(&message) {
                let said = say(&parsed);
                prop_assert_eq!(FromDevice::parse(&said), Ok(parsed));
            }
            let _ = FromGateway::parse(&message);
        }

        #[test]
        fn hello_comes_back(
            chip in vec(any::<u8>(), 1..=16), name in "[a-zé]{0,16}", boot in any::<u32>(), at in any::<u64>(),
        ) {
            let hello = Hello {
                chip: ChipId::new(&chip).unwrap(),
                name: Name::try_from(name.as_str()).unwrap(),
                boot: Boot::new(boot),
                version_min: 1,
                version_max: WIRE_VERSION,
                schema: SchemaId(boot),
                oldest: Seq(boot),
                next: Seq(!boot),
                tick_hz: boot,
                tick_now: Tick(at),
                reset_cause: ResetCause::PIN,
                resumed_at: Boot::new(boot).map(|_| Tick(at)),
            };
            let message = hello.to_message();
            prop_assert_eq!(FromDevice::parse(&message), Ok(FromDevice::Hello(hello)));
        }

        #[test]
        fn acks_come_back(
            ranges in vec(any::<(u32, u32)>(), 0..=3), numbers in any::<(u32, u32, u32)>(), credit in any::<u8>(),
        ) {
            let ranges = ranges.iter().map(|(from, to)| SeqRange { from: Seq(*from), to: Seq(*to) }).collect();
            let (epoch, received, released) = numbers;
            let (epoch, received, released) = (Epoch(epoch), Seq(received), Seq(released));
            let boot = Boot::new(9).unwrap();
            let ack = Ack { epoch, boot, received, released, ranges, credit, births: credit > 9 };
            prop_assert_eq!(FromGateway::parse(&ack.to_message()), Ok(FromGateway::Ack(ack)));
        }
    }
}
