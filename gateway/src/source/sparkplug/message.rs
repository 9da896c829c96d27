//! The payload of Sparkplug B: protocol buffers, of which the parts that readings are made of are read.
//!
//! **Constraints.** A decoder of its own, since a payload of 1 MiB may hold half a million empty metrics: here no more
//! than [`METRICS_MAX`] of them take memory, the others are counted, and texts stay where they are. What is not known is
//! passed over, as protocol buffers want it: data sets, templates, properties, metadata, extensions. Only groups, which
//! they gave up long ago, are refused.
//! **Failure.** Bytes in which a field cannot be found make the whole payload unreadable.

use thiserror::Error;

/// Metrics of one message that are read; the others are refused.
pub(super) const METRICS_MAX: usize = 8_192;

/// The metric by which an edge node is told to send its births again.
pub(super) const REBIRTH: &str = "Node Control/Rebirth";

/// The number of the type Boolean.
const BOOLEAN: u32 = 11;

/// What an edge node writes into `uuid` if `body` is another payload, compressed.
const COMPRESSED: &[u8] = b"SPBV1.0_COMPRESSED";

/// A message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Payload<'a> {
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<u64>,
    pub(super) seq: Option<u64>,
    pub(super) metrics: Vec<Metric<'a>>,
    /// Metrics beyond [`METRICS_MAX`].
    pub(super) surplus: u64,
}

/// One value, with what the message says of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Metric<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) alias: Option<u64>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<u64>,
    pub(super) datatype: Option<u32>,
    pub(super) is_null: bool,
    pub(super) value: Option<Raw<'a>>,
}

/// A value as it is on the wire, where negative integers look like large ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    Text(&'a str),
    /// Bytes, a data set, a template or an extension.
    Other,
}

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum PayloadError {
    #[error("no payload of Sparkplug B: it ends in the middle of a field")]
    Cut,
    #[error("no payload of Sparkplug B: a number has more than ten bytes")]
    Number,
    #[error("no payload of Sparkplug B: a field of wire type {0}, which protocol buffers no longer have")]
    WireType(u8),
    #[error("no payload of Sparkplug B: a text is not UTF-8")]
    Text,
    #[error("the payload is compressed, which is not supported; switch compression off at the edge node")]
    Compressed,
}

impl<'a> Payload<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Payload<'a>, PayloadError> {
        let mut payload = Payload::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Number(timestamp)) => payload.timestamp = Some(timestamp),
                (2, Field::Bytes(_)) if payload.metrics.len() >= METRICS_MAX => payload.surplus += 1,
                (2, Field::Bytes(metric)) => payload.metrics.push(Metric::decode(metric)?),
                (3, Field::Number(seq)) => payload.seq = Some(seq),
                (4, Field::Bytes(COMPRESSED)) => return Err(PayloadError::Compressed),
                _ => {}
            }
        }
        Ok(payload)
    }

    /// The number that a death and the birth of its session have in common.
    pub(super) fn bd_seq(&self) -> Option<u64> {
        let metric = self.metrics.iter().find(|metric| metric.name == Some("bdSeq"))?;
        match metric.value? {
            Raw::Int(number) => Some(u64::from(number)),
            Raw::Long(number) => Some(number),
            _ => None,
        }
    }
}

impl<'a> Metric<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Metric<'a>, PayloadError> {
        let mut metric = Metric::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(name)) => metric.name = Some(text(name)?),
                (2, Field::Number(alias)) => metric.alias = Some(alias),
                (3, Field::Number(timestamp)) => metric.timestamp = Some(timestamp),
                (4, Field::Number(datatype)) => metric.datatype = Some(datatype as u32),
                (7, Field::Number(is_null)) => metric.is_null = is_null != 0,
                (10, Field::Number(number)) => metric.value = Some(Raw::Int(number as u32)),
                (11, Field::Number(number)) => metric.value = Some(Raw::Long(number)),
                (12, Field::Four(bytes)) => metric.value = Some(Raw::Float(f32::from_le_bytes(bytes))),
                (13, Field::Eight(bytes)) => metric.value = Some(Raw::Double(f64::from_le_bytes(bytes))),
                (14, Field::Number(truth)) => metric.value = Some(Raw::Boolean(truth != 0)),
                (15, Field::Bytes(bytes)) => metric.value = Some(Raw::Text(text(bytes)?)),
                (16..=19, Field::Bytes(_)) => metric.value = Some(Raw::Other),
                _ => {}
            }
        }
        Ok(metric)
    }
}

fn text(bytes: &[u8]) -> Result<&str, PayloadError> {
    std::str::from_utf8(bytes).map_err(|_| PayloadError::Text)
}

/// The command to send all births again, at that many milliseconds since 1970.
pub(super) fn rebirth(now_ms: u64) -> Vec<u8> {
    let mut metric = Vec::new();
    put_bytes(&mut metric, 1, REBIRTH.as_bytes());
    put_number(&mut metric, 3, now_ms);
    put_number(&mut metric, 4, u64::from(BOOLEAN));
    put_number(&mut metric, 14, 1);
    let mut payload = Vec::new();
    put_number(&mut payload, 1, now_ms);
    put_bytes(&mut payload, 2, &metric);
    payload
}

/// What stands behind the number of a field.
enum Field<'a> {
    Number(u64),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    Four([u8; 4]),
}

/// The fields of a message, from front to back.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, PayloadError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let field = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => Field::Eight(self.array()?),
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| PayloadError::Cut)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(PayloadError::Cut)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Four(self.array()?),
            other => return Err(PayloadError::WireType(other as u8)),
        };
        Ok(Some((key >> 3, field)))
    }

    fn number(&mut self) -> Result<u64, PayloadError> {
        let mut number = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(if self.0.len() < 10 { PayloadError::Cut } else { PayloadError::Number })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(PayloadError::Cut)?;
        self.0 = rest;
        Ok(*array)
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A payload as an edge node writes it.
    pub(in crate::source::sparkplug) fn encode(payload: &Payload<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(timestamp) = payload.timestamp {
            put_number(&mut out, 1, timestamp);
        }
        for metric in &payload.metrics {
            put_bytes(&mut out, 2, &encode_metric(metric));
        }
        if let Some(seq) = payload.seq {
            put_number(&mut out, 3, seq);
        }
        out
    }

    fn encode_metric(metric: &Metric<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(name) = metric.name {
            put_bytes(&mut out, 1, name.as_bytes());
        }
        for (field, number) in [(2, metric.alias), (3, metric.timestamp), (4, metric.datatype.map(u64::from))]
        {
            if let Some(number) = number {
                put_number(&mut out, field, number);
            }
        }
        if metric.is_null {
            put_number(&mut out, 7, 1);
        }
        match metric.value {
            None => {}
            Some(Raw::Int(number)) => put_number(&mut out, 10, u64::from(number)),
            Some(Raw::Long(number)) => put_number(&mut out, 11, number),
            Some(Raw::Float(float)) => {
                put_varint(&mut out, 12 << 3 | 5);
                out.extend_from_slice(&float.to_le_bytes());
            }
            Some(Raw::Double(double)) => {
                put_varint(&mut out, 13 << 3 | 1);
                out.extend_from_slice(&double.to_le_bytes());
            }
            Some(Raw::Boolean(truth)) => put_number(&mut out, 14, u64::from(truth)),
            Some(Raw::Text(text)) => put_bytes(&mut out, 15, text.as_bytes()),
            Some(Raw::Other) => put_bytes(&mut out, 16, b"bytes"),
        }
        out
    }

    /// By the numbers of sparkplug_b.proto; not to be edited.
    const GOLDEN: &[u8] = b"\x08\xea\xf2\xf5\xa8\xa0\x2b\
        \x12\x19\x0a\x07Voltage\x10\x05\x18\xaa\xef\x81\x95\x86\x2b\x20\x09\x65\x00\x00\x40\x41\
        \x12\x0a\x10\x06\x20\x03\x50\xfb\xff\xff\xff\x0f\
        \x12\x0d\x10\x07\x20\x0a\x69\x00\x00\x00\x00\x00\x00\x02\xc0\
        \x12\x06\x0a\x02on\x70\x01\
        \x12\x07\x0a\x01t\x7a\x02ok\
        \x12\x05\x0a\x01n\x38\x01\
        \x12\x07\x0a\x01l\x20\x04\x58\x07\
        \x12\x06\x10\x08\x82\x01\x01\xff\
        \x18\x02\
        \x22\x04uuid\
        \x2a\x01b";

    fn golden() -> Payload<'static> {
        let metric = Metric::default;
        Payload {
            timestamp: Some(1_486_144_502_122),
            seq: Some(2),
            surplus: 0,
            metrics: vec![
                Metric {
                    name: Some("Voltage"),
                    alias: Some(5),
                    timestamp: Some(1_479_123_433_386),
                    datatype: Some(9),
                    value: Some(Raw::Float(12.0)),
                    ..metric()
                },
                Metric {
                    alias: Some(6),
                    datatype: Some(3),
                    value: Some(Raw::Int(-5_i32 as u32)),
                    ..metric()
                },
                Metric { alias: Some(7), datatype: Some(10), value: Some(Raw::Double(-2.25)), ..metric() },
                Metric { name: Some("on"), value: Some(Raw::Boolean(true)), ..metric() },
                Metric { name: Some("t"), value: Some(Raw::Text("ok")), ..metric() },
                Metric { name: Some("n"), is_null: true, ..metric() },
                Metric { name: Some("l"), datatype: Some(4), value: Some(Raw::Long(7)), ..metric() },
                Metric { alias: Some(8), value: Some(Raw::Other), ..metric() },
            ],
        }
    }

    #[test]
    fn the_bytes_of_the_specification_are_read() {
        assert_eq!(Payload::decode(GOLDEN).unwrap(), golden());
        let bytes = encode(&golden());
        assert_eq!(Payload::decode(&bytes).unwrap(), golden());
    }

    #[test]
    fn the_command_for_a_rebirth_is_a_payload_without_seq() {
        let bytes = rebirth(300);
        assert_eq!(bytes, b"\x08\xac\x02\x12\x1d\x0a\x14Node Control/Rebirth\x18\xac\x02\x20\x0b\x70\x01");
        let payload = Payload::decode(&bytes).unwrap();
        assert_eq!((payload.seq, payload.metrics[0].value), (None, Some(Raw::Boolean(true))));
    }

    #[test]
    fn what_is_no_payload_says_why() {
        for (bytes, error) in [
            (&b"\x08"[..], PayloadError::Cut),
            (b"\x12\x05\x0a", PayloadError::Cut),
            (b"\x0d\x00\x00", PayloadError::Cut),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", PayloadError::Number),
            (b"\x0b", PayloadError::WireType(3)),
            (b"\x12\x03\x0a\x01\xff", PayloadError::Text),
            (b"\x22\x12SPBV1.0_COMPRESSED\x2a\x01b", PayloadError::Compressed),
        ] {
            assert_eq!(Payload::decode(bytes).unwrap_err(), error, "{bytes:?}");
        }
        assert_eq!(Payload::decode(b"").unwrap(), Payload::default());
    }

    #[test]
    fn metrics_beyond_the_limit_are_counted() {
        let payload = [0x12, 0].repeat(METRICS_MAX + 3);
        let payload = Payload::decode(&payload).unwrap();
        assert_eq!((payload.metrics.len(), payload.surplus), (METRICS_MAX, 3));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Payload::decode(&bytes).ok();
        }

        #[test]
        fn no_change_of_a_payload_panics(at in 0..GOLDEN.len(), byte: u8, end in 0..GOLDEN.len()) {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            Payload::decode(&bytes).ok();
            Payload::decode(&bytes[..end]).ok();
        }
    }
}
