//! What a broker says, read from the bytes of its connection.
//!
//! In: bytes as they come. Out: [`Incoming`]. PUBLISH is read here, everything else by rumqttc's codec. The library
//! wants a whole packet in memory and ends the connection over one that it cannot read; the broker would then send the
//! same packet again, for ever. So a message larger than [`PACKET_BYTES_MAX`] is passed over while it comes and keeps its
//! beginning only, and one that breaks the rules is handed over with its [`Fault`]: both are refused, kept and acked like any
//! other that cannot be used. Only bytes in which no next packet can be found end the connection.

use std::fmt;

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use rumqttc::{ConnectReturnCode, QoS, SubscribeReasonCode};
use thiserror::Error;

use crate::config::MqttVersion;
use crate::dead_letters::INTAKE_BODY_BYTES_MAX;
use crate::source::payload::MAX_PAYLOAD_BYTES;

/// The longest topic, with what stands around it.
const TOPIC_BYTES_MAX: usize = 65_535 + 64;

/// The longest PUBLISH that is held in memory as a whole: the largest payload, the longest topic, and properties.
pub(super) const PACKET_BYTES_MAX: usize = MAX_PAYLOAD_BYTES + 2 * TOPIC_BYTES_MAX;

/// What is kept of a longer one: the longest topic, and as much of the payload as a dead letter has.
const HEAD_BYTES: usize = TOPIC_BYTES_MAX + INTAKE_BODY_BYTES_MAX;

/// The longest packet of any other kind: a broker's own words are short.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const PUBLISH: u8 = 3;

/// What a broker says.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming<'a> {
    /// The answer to the greeting.
    Welcome(Welcome),
    /// A message.
    Message(Message<'a>),
    /// Subscriptions were looked at, and so many of them were refused.
    Granted { subscriptions: usize, refused: usize },
    /// The broker is there.
    Pong,
    /// The second half of a delivery at QoS 2.
    Release(u16),
    /// The broker ends the connection, and says why.
    Farewell(String),
    /// Something that needs no answer.
    Receipt,
}

/// The answer to the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// Whether the broker still knows the session.
    pub(super) session_present: bool,
    /// How often the broker wants to hear something, where it decides that itself.
    pub(super) keep_alive_s: Option<u16>,
}

/// One PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    /// The payload; of a message that is too large only its beginning.
    pub(super) payload: &'a [u8],
    /// Bytes of the whole payload.
    pub(super) payload_bytes: usize,
    pub(super) qos: QoS,
    /// The broker has sent it before, perhaps to nobody.
    pub(super) again: bool,
    /// It is the topic's last state, sent because of a subscription.
    pub(super) retained: bool,
    /// Names it in its ack; 0 if there is nothing to ack.
    pub(super) packet: u16,
    /// Why it cannot be used.
    pub(super) fault: Option<Fault>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is longer than anything that is read.
    TooLarge,
    /// It breaks the rules of MQTT, here.
    Malformed(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLarge => write!(f, "the limit is {MAX_PAYLOAD_BYTES} bytes of payload"),
            Fault::Malformed(what) => write!(f, "a malformed MQTT packet: {what}"),
        }
    }
}

/// Why the connection cannot go on.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// The broker refuses the greeting.
    #[error("{}", explain(*.0))]
    Refused(Refusal),
    /// There is no telling where the next packet begins.
    #[error(
        "sends a packet whose length has more than four bytes, which MQTT does not know; what follows cannot be read"
    )]
    Length,
    /// A packet of the broker itself is longer than it can need.
    #[error("sends a packet of type {kind} with {bytes} bytes; the limit is {ANSWER_BYTES_MAX}")]
    TooLong {
        /// MQTT's number of it.
        kind: u8,
        /// Its length.
        bytes: usize,
    },
    /// A packet of the broker itself cannot be read.
    #[error("sends a packet that is not MQTT {version}: {why}")]
    Malformed {
        /// What was spoken.
        version: MqttVersion,
        /// What the codec says.
        why: String,
    },
}

/// A refused greeting, in the words of the version that was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    V3(ConnectReturnCode),
    V5(v5::ConnectReturnCode),
}

fn explain(refusal: Refusal) -> String {
    use ConnectReturnCode as V3;
    use v5::ConnectReturnCode as V5;
    match refusal {
        Refusal::V3(V3::BadUserNamePassword | V3::NotAuthorized)
        | Refusal::V5(V5::BadUserNamePassword | V5::NotAuthorized) => {
            "refuses user name or password; check mqtt.username and mqtt.password_file, and the broker's password file"
                .to_owned()
        }
        Refusal::V3(V3::RefusedProtocolVersion) | Refusal::V5(V5::UnsupportedProtocolVersion) => {
            "does not speak this version of MQTT; set mqtt.version to 3 or 5".to_owned()
        }
        Refusal::V3(V3::BadClientId) | Refusal::V5(V5::ClientIdentifierNotValid) => {
            "refuses the client id; set mqtt.client_id to one that it allows".to_owned()
        }
        Refusal::V3(code) => format!("refuses the connection: {code:?}; see the broker's log"),
        Refusal::V5(code) => format!("refuses the connection: {code:?}; see the broker's log"),
    }
}

/// Finds packets in the bytes of one connection.
pub(super) struct Decoder {
    version: MqttVersion,
    /// Bytes that came and are not passed yet.
    pub(super) bytes: BytesMut,
    /// Bytes of the packet that was handed over last.
    handed: usize,
    long: Option<Long>,
}

/// A message that is too large, while it comes.
struct Long {
    first: u8,
    head: Vec<u8>,
    packet_bytes: usize,
    /// How many of its bytes are still to come.
    rest: usize,
}

impl Decoder {
    pub(super) fn new(version: MqttVersion) -> Decoder {
        Decoder { version, bytes: BytesMut::new(), handed: 0, long: None }
    }

    /// The next packet that is there as a whole.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn next(&mut self) -> Result<Option<Incoming<'_>>, WireError> {
        self.bytes.advance(self.handed);
        self.handed = 0;
        if self.long.as_ref().is_some_and(|long| long.rest == 0) {
            self.long = None;
        }
        if self.long.is_some() {
            return Ok(self.pass_over());
        }
        let Some(Header { first, header, length }) = Header::read(&self.bytes)? else { return Ok(None) };
        let is_message = first >> 4 == PUBLISH;
        if is_message && length > PACKET_BYTES_MAX {
            if self.bytes.len() < header + HEAD_BYTES {
                return Ok(None);
            }
            self.bytes.advance(header);
            let head = self.bytes.split_to(HEAD_BYTES).to_vec();
            self.long = Some(Long { first, head, packet_bytes: length, rest: length - HEAD_BYTES });
            return Ok(self.pass_over());
        }
        if !is_message && length > ANSWER_BYTES_MAX {
            return Err(WireError::TooLong { kind: first >> 4, bytes: length });
        }
        if self.bytes.len() < header + length {
            return Ok(None);
        }
        if !is_message {
            return self.answer(header + length).map(Some);
        }
        self.handed = header + length;
        Ok(Some(Incoming::Message(message(self.version, first, &self.bytes[header..self.handed]))))
    }

    /// Passes over what has come of a message that is too large, and hands its beginning over at its end.
    fn pass_over(&mut self) -> Option<Incoming<'_>> {
        let long = self.long.as_mut()?;
        let passed = long.rest.min(self.bytes.len());
        self.bytes.advance(passed);
        long.rest -= passed;
        if long.rest > 0 {
            return None;
        }
        let mut message = message(self.version, long.first, &long.head);
        message.payload_bytes = message.payload.len() + long.packet_bytes - long.head.len();
        message.payload = &message.payload[..message.payload.len().min(INTAKE_BODY_BYTES_MAX)];
        message.fault = message.fault.or(Some(Fault::TooLarge));
        Some(Incoming::Message(message))
    }

    fn answer(&mut self, length: usize) -> Result<Incoming<'static>, WireError> {
        let mut packet = self.bytes.split_to(length);
        let (version, mine) =
            (self.version, |why: String| WireError::Malformed { version: self.version, why });
        match version {
            MqttVersion::V3 => match v4::Packet::read(&mut packet, ANSWER_BYTES_MAX) {
                Ok(packet) => answer_of_v3(packet),
                Err(e) => Err(mine(e.to_string())),
            },
            MqttVersion::V5 => {
                // MQTT 5 lets a broker leave out what the library wants to see: a reason, and properties behind it.
                match packet[..] {
                    [0xe0, 0] => packet = BytesMut::from(&[0xe0, 2, 0, 0][..]),
                    [0xe0, 1, reason] => packet = BytesMut::from(&[0xe0, 2, reason, 0][..]),
                    _ => {}
                }
                match v5::Packet::read(&mut packet, None) {
                    Ok(packet) => answer_of_v5(packet),
                    Err(e) => Err(mine(e.to_string())),
                }
            }
        }
    }
}

fn answer_of_v3(packet: v4::Packet) -> Result<Incoming<'static>, WireError> {
    Ok(match packet {
        v4::Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
            Incoming::Welcome(Welcome { session_present: ack.session_present, keep_alive_s: None })
        }
        v4::Packet::ConnAck(ack) => return Err(WireError::Refused(Refusal::V3(ack.code))),
        v4::Packet::SubAck(ack) => {
            let refused = ack.return_codes.iter().filter(|code| **code == SubscribeReasonCode::Failure);
            Incoming::Granted { subscriptions: ack.return_codes.len(), refused: refused.count() }
        }
        v4::Packet::PubRel(release) => Incoming::Release(release.pkid),
        v4::Packet::PingResp => Incoming::Pong,
        v4::Packet::Disconnect => Incoming::Farewell("without a reason".to_owned()),
        _ => Incoming::Receipt,
    })
}

fn answer_of_v5(packet: v5::Packet) -> Result<Incoming<'static>, WireError> {
    Ok(match packet {
        v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
            let keep_alive_s = ack.properties.and_then(|properties| properties.server_keep_alive);
            Incoming::Welcome(Welcome { session_present: ack.session_present, keep_alive_s })
        }
        v5::Packet::ConnAck(ack) => return Err(WireError::Refused(Refusal::V5(ack.code))),
        v5::Packet::SubAck(ack) => {
            let granted =
                |code: &&v5::SubscribeReasonCode| !matches!(code, v5::SubscribeReasonCode::Success(_));
            let refused = ack.return_codes.iter().filter(granted).count();
            Incoming::Granted { subscriptions: ack.return_codes.len(), refused }
        }
        v5::Packet::PubRel(release) => Incoming::Release(release.pkid),
        v5::Packet::PingResp(_) => Incoming::Pong,
        v5::Packet::Disconnect(farewell) => {
            let told =
                farewell.properties.and_then(|properties| properties.reason_string).unwrap_or_default();
            Incoming::Farewell(format!("{:?} {told}", farewell.reason_code).trim_end().to_owned())
        }
        _ => Incoming::Receipt,
    })
}

/// The first bytes of a packet.
struct Header {
    first: u8,
    /// Bytes of the header itself.
    header: usize,
    /// Bytes that follow it.
    length: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Option<Header>, WireError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        match variable(rest) {
            Variable::Number { value, bytes } => Ok(Some(Header { first, header: 1 + bytes, length: value })),
            Variable::Cut => Ok(None),
            Variable::TooLong => Err(WireError::Length),
        }
    }
}

/// A number in MQTT's variable length.
enum Variable {
    Number { value: usize, bytes: usize },
    Cut,
    TooLong,
}

fn variable(bytes: &[u8]) -> Variable {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Variable::Number { value, bytes: at + 1 };
        }
    }
    if bytes.len() < 4 { Variable::Cut } else { Variable::TooLong }
}

/// Reads a PUBLISH from its first byte and what follows its length.
fn message(version: MqttVersion, first: u8, body: &[u8]) -> Message<'_> {
    let qos = match first >> 1 & 3 {
        0 => QoS::AtMostOnce,
        2 => QoS::ExactlyOnce,
        // There is no QoS 3; what comes with it is acked like QoS 1 and not used.
        _ => QoS::AtLeastOnce,
    };
    let mut message = Message {
        topic: "",
        payload: &[],
        payload_bytes: 0,
        qos,
        again: first & 8 != 0,
        retained: first & 1 != 0,
        packet: 0,
        fault: None,
    };
    message.fault = fill(version, body, &mut message).err().map(Fault::Malformed);
    if first >> 1 & 3 == 3 {
        message.fault = Some(Fault::Malformed("QoS 3"));
    }
    message.payload_bytes = message.payload.len();
    message
}

/// Everything that can be found is filled in, whatever is wrong with the rest: the packet id above all, since what is
/// not acked comes again.
fn fill<'a>(version: MqttVersion, body: &'a [u8], message: &mut Message<'a>) -> Result<(), &'static str> {
    const SHORT: &str = "it ends before its payload";
    let (length, rest) = body.split_first_chunk::<2>().ok_or(SHORT)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (topic, mut rest) = rest.split_at_checked(length).ok_or("its topic is longer than it is itself")?;
    if message.qos != QoS::AtMostOnce {
        let (packet, behind) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
        message.packet = u16::from_be_bytes(*packet);
        rest = behind;
    }
    message.payload = rest;
    message.topic = std::str::from_utf8(topic).map_err(|_| "its topic is not UTF-8")?;
    if message.qos != QoS::AtMostOnce && message.packet == 0 {
        return Err("its packet id is 0");
    }
    if version == MqttVersion::V5 {
        let Variable::Number { value, bytes } = variable(rest) else {
            return Err("the length of its properties cannot be read");
        };
        message.payload = rest.get(bytes + value..).ok_or("its properties are longer than it is itself")?;
    }
    if message.topic.is_empty() {
        return Err("it has no topic");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
