//! MQTT's packets: the encoding and the decoding of what the harness needs.

/// Packet types, the high half of the first byte.
pub const CONNECT: u8 = 1;
/// The broker's answer to it.
pub const CONNACK: u8 = 2;
/// A message.
pub const PUBLISH: u8 = 3;
/// The acknowledgement of a message at QoS 1.
pub const PUBACK: u8 = 4;
/// A wish for messages.
pub const SUBSCRIBE: u8 = 8;
/// The broker's answer to it.
pub const SUBACK: u8 = 9;
/// A sign of life.
pub const PINGREQ: u8 = 12;
/// The broker's answer to it.
pub const PINGRESP: u8 = 13;
/// The end of a connection.
pub const DISCONNECT: u8 = 14;

/// The flag of a message that is the topic's retained one.
pub const RETAIN: u8 = 0b0001;
/// The bits of the quality of service.
pub const QOS: u8 = 0b0110;
/// Quality of service 1.
pub const QOS_1: u8 = 0b0010;
/// The flag of a message that is sent again.
pub const DUP: u8 = 0b1000;

/// The protocol level of MQTT 3.1.1.
pub const LEVEL_4: u8 = 4;
/// The protocol level of MQTT 5.
pub const LEVEL_5: u8 = 5;

/// The largest remaining length that four bytes can say.
pub const REMAINING_MAX: usize = 268_435_455;

/// One complete MQTT packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its type.
    pub kind: u8,
    /// The low half of its first byte.
    pub flags: u8,
    /// Everything behind the remaining length.
    pub body: &'a [u8],
}

/// A PUBLISH at QoS 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// Its packet id.
    pub id: u16,
    /// Its topic.
    pub topic: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet at the front of `bytes`, and its length; `None` until all of it is there.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<(Packet<'a>, usize)> {
        let (&first, rest) = bytes.split_first()?;
        let (length, prefix) = variable_integer(rest)?;
        let body = rest.get(prefix..prefix + length)?;
        Some((Packet { kind: first >> 4, flags: first & 0x0f, body }, 1 + prefix + length))
    }

    /// The content of a PUBLISH at QoS 1 or 2.
    #[must_use]
    pub fn published(&self, version_5: bool) -> Option<Published<'a>> {
        if self.kind != PUBLISH || self.flags & QOS == 0 {
            return None;
        }
        let (length, rest) = self.body.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (id, mut payload) = rest.split_first_chunk()?;
        if version_5 {
            let (properties, prefix) = variable_integer(payload)?;
            payload = payload.get(prefix + properties..)?;
        }
        Some(Published { id: u16::from_be_bytes(*id), topic, payload })
    }

    /// The packet id at the front of the body.
    #[must_use]
    pub fn id(&self) -> Option<u16> {
        self.body.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Whether a CONNACK says that the broker has kept the session.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.body.first().is_some_and(|flags| flags & 1 == 1)
    }

    /// How many subscriptions a SUBACK grants.
    #[must_use]
    pub fn granted(&self, version_5: bool) -> usize {
        let mut codes = self.body.get(2..).unwrap_or_default();
        if version_5 && let Some((properties, prefix)) = variable_integer(codes) {
            codes = codes.get(prefix + properties..).unwrap_or_default();
        }
        codes.iter().filter(|code| **code < 0x80).count()
    }

    /// The protocol level of a CONNECT: protocol name (2 + 4 bytes), then the level.
    #[must_use]
    pub fn level(&self) -> Option<u8> {
        self.body.get(6).copied()
    }
}

/// MQTT's variable byte integer: its value and how many bytes it took.
#[must_use]
pub fn variable_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// The first bytes of a packet whose body has this length.
#[must_use]
pub fn head(kind: u8, flags: u8, mut length: usize) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | flags];
    loop {
        let low = (length & 0x7f).to_le_bytes()[0];
        length >>= 7;
        if length == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A whole packet.
#[must_use]
pub fn packet(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = head(kind, flags, body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// A CONNECT of MQTT 3.1.1 with a keep-alive of a minute.
#[must_use]
pub fn connect(client_id: &str, clean: bool) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    // Without a keep-alive: whoever publishes or listens here sends no pings.
    body.extend([if clean { 2 } else { 0 }, 0, 0]);
    text(&mut body, client_id.as_bytes());
    packet(CONNECT, 0, &body)
}

/// What a PUBLISH at QoS 1 has before its payload.
#[must_use]
pub fn publish_front(topic: &str, id: u16, version_5: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    body.extend(id.to_be_bytes());
    if version_5 {
        body.push(0);
    }
    body
}

/// A SUBSCRIBE of MQTT 3.1.1 for one filter.
#[must_use]
pub fn subscribe(filter: &str, id: u16, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    text(&mut body, filter.as_bytes());
    body.push(qos);
    packet(SUBSCRIBE, 0b0010, &body)
}

/// A text with its length in front; longer ones than MQTT can carry are cut.
fn text(body: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend(bytes.iter().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use super::{
        PUBLISH, Packet, Published, QOS_1, REMAINING_MAX, head, packet, publish_front, variable_integer,
    };

    #[test]
    fn a_packet_in_pieces_waits_for_its_end() {
        let mut body = publish_front("a/b", 9, false);
        body.push(b'x');
        let bytes = packet(PUBLISH, QOS_1, &body);
        assert_eq!(bytes, b"\x32\x08\x00\x03a/b\x00\x09x");
        for end in 0..bytes.len() {
            assert!(Packet::parse(&bytes[..end]).is_none());
        }
        let (packet, length) = Packet::parse(&bytes).expect("a whole packet");
        assert_eq!(length, bytes.len());
        let published = Published { id: 9, topic: b"a/b", payload: b"x" };
        assert_eq!(packet.published(false), Some(published));
    }

    #[test]
    fn version_5_has_properties_before_the_payload_and_the_codes() {
        let (packet, _) = Packet::parse(b"\x32\x0b\x00\x03a/b\x00\x09\x02\x01\x00x").expect("a whole packet");
        assert_eq!(packet.published(true).map(|published| published.payload), Some(b"x".as_slice()));
        let (suback, _) = Packet::parse(b"\x90\x05\x00\x01\x00\x01\x87").expect("a whole packet");
        assert_eq!(suback.granted(true), 1);
    }

    #[test]
    fn lengths_come_back() {
        for length in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, REMAINING_MAX] {
            let bytes = head(PUBLISH, 0, length);
            assert_eq!(variable_integer(&bytes[1..]), Some((length, bytes.len() - 1)));
        }
        assert_eq!(variable_integer(&[0xff; 5]), None, "five bytes are no length");
    }
}
