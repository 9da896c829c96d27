//! What a broker says, under fuzzing.

use super::wire::{Decoder, Incoming};
use crate::config::MqttVersion;
use crate::fuzzing::Feed;

/// Bytes of a broker: they mean the same however they come, and nothing of them is kept that has been passed.
///
/// The first byte says which version is spoken and in pieces of how many bytes the rest comes.
pub fn mqtt(input: &[u8]) {
    let mut feed = Feed::new(input);
    let how = feed.byte();
    let version = if how & 1 == 0 { MqttVersion::V3 } else { MqttVersion::V5 };
    let bytes = feed.rest();
    let (whole, _) = heard(version, bytes, bytes.len().max(1));
    let (pieces, _) = heard(version, bytes, usize::from(how >> 1) + 1);
    assert_eq!(whole, pieces);
}

/// What is told of each packet when `bytes` come in pieces of that size, and the most that was held at once.
pub(super) fn heard(version: MqttVersion, bytes: &[u8], piece: usize) -> (Vec<String>, usize) {
    let mut decoder = Decoder::new(version);
    let (mut told, mut most) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        decoder.bytes.extend_from_slice(piece);
        most = most.max(decoder.bytes.len());
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(Incoming::Message(message))) => told.push(format!(
                    "{} #{} {}/{} {:?}",
                    message.topic,
                    message.packet,
                    message.payload.len(),
                    message.payload_bytes,
                    message.fault
                )),
                Ok(Some(other)) => told.push(format!("{other:?}")),
                Err(error) => {
                    told.push(error.to_string());
                    return (told, most);
                }
            }
        }
    }
    (told, most)
}
