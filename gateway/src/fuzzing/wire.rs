//! What must hold for any bytes that come over the wire. See `crate::fuzzing`.
//!
//! The formats are those of `forebay_shared`, which has no place for tests that stand outside of it; the gateway is the
//! end that strangers can reach.

use forebay_shared::block::{BLOCK_BYTES_MAX, Block, Form, Row, Sample, packed_head};
use forebay_shared::frame::{
    self, DELIMITER, Decoder, FRAME_BYTES_MAX, FRAME_TO_DEVICE_BYTES_MAX, FrameError,
};
use forebay_shared::ids::{ChipId, Seq};
use forebay_shared::message::brief::read_presence;
use forebay_shared::message::{
    Ack, Body as _, Data, FromDevice, FromGateway, MESSAGE_BYTES_MAX, Message, Reject, SeqRange, TimeRequest,
    Welcome,
};
use forebay_shared::pack::{PACKED_BYTES_MAX, PackItem, PackRow, PackedBytes, Packer};
use forebay_shared::plain::PlainWriter;
use forebay_shared::reading::{Channel, Group, Groups, Schema, Value, ValueKind};

use super::Feed;

type Found = Result<Vec<u8>, FrameError>;

/// Bytes of a serial line: as they come, or a message sealed as a frame, so that what lies behind the check is reached.
pub fn wire_frame(input: &[u8]) {
    let mut feed = Feed::new(input);
    let first = feed.byte();
    if first.is_multiple_of(2) {
        any_line(feed.rest(), usize::from(first / 2) + 1);
    } else {
        sealed(&mut feed);
    }
}

fn any_line(line: &[u8], chunk: usize) {
    let found = decode::<{ Decoder::MAX }>(line, line.len().max(1));
    assert_eq!(decode::<{ Decoder::MAX }>(line, chunk), found, "it matters how the bytes are cut up");
    let frames: Vec<&[u8]> = line.split(|byte| *byte == DELIMITER).collect();
    let whole: Vec<&&[u8]> = frames[..frames.len() - 1].iter().filter(|frame| !frame.is_empty()).collect();
    assert_eq!(found.len(), whole.len(), "one result a frame");
    for (found, frame) in found.iter().zip(&whole) {
        if let Ok(message) = found {
            assert!((1..=MESSAGE_BYTES_MAX).contains(&message.len()));
            assert_eq!(encode(message), [frame, &[DELIMITER][..]].concat(), "a frame has one spelling");
        }
    }
    // A device's smaller decoder reads the same, or says that it is too long.
    let small = decode::<{ FRAME_TO_DEVICE_BYTES_MAX - 2 }>(line, chunk);
    for (small, found) in small.iter().zip(&found) {
        assert!(small == found || *small == Err(FrameError::TooLong), "{small:?} is {found:?}");
    }
}

fn sealed(feed: &mut Feed<'_>) {
    let (bit, cut) = (feed.below(8 * FRAME_BYTES_MAX), feed.below(MESSAGE_BYTES_MAX));
    let message = feed.rest();
    let (left, right) = message.split_at(cut.min(message.len()));
    let mut out = [0; FRAME_BYTES_MAX];
    let Ok(length) = frame::encode(&[left, right], &mut out) else {
        assert!(message.len() > MESSAGE_BYTES_MAX, "what fits is sent");
        return;
    };
    let mut frame = out[..length].to_vec();
    assert_eq!(frame.iter().position(|byte| *byte == DELIMITER), Some(length - 1), "one zero, at the end");
    let found = decode::<{ Decoder::MAX }>(&frame, length);
    let expected = if message.is_empty() { Err(FrameError::TooShort) } else { Ok(message.to_vec()) };
    assert_eq!(found, [expected]);
    let bit = bit % (8 * length);
    frame[bit / 8] ^= 1 << (bit % 8);
    frame.push(DELIMITER);
    let found = decode::<{ Decoder::MAX }>(&frame, length);
    assert!(found.iter().all(Result::is_err), "bit {bit} is wrong: {found:?}");
}

fn decode<const N: usize>(line: &[u8], chunk: usize) -> Vec<Found> {
    let mut decoder = Decoder::<N>::new();
    let mut found = Vec::new();
    for mut bytes in line.chunks(chunk) {
        while let Some(result) = decoder.next(&mut bytes) {
            found.push(result.map(<[u8]>::to_vec));
        }
    }
    found
}

fn encode(message: &[u8]) -> Vec<u8> {
    let mut out = [0; FRAME_BYTES_MAX];
    let length = frame::encode(&[message], &mut out).unwrap_or(0);
    out[..length].to_vec()
}

/// One message of either end, with the rows in it.
pub fn wire_message(input: &[u8]) {
    let message = Feed::new(input).rest();
    let longer = [message, &[0]].concat();
    match FromDevice::parse(message) {
        Ok(parsed) => {
            let said = say_device(&parsed);
            assert!(said.len() <= message.len(), "a shorter spelling than the shortest");
            let has_end = !matches!(parsed, FromDevice::Data(_));
            assert_eq!(FromDevice::parse(&said), Ok(parsed), "it does not come back");
            assert!(!has_end || FromDevice::parse(&longer).is_err(), "bytes behind its end");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match FromGateway::parse(message) {
        Ok(parsed) => {
            assert!(FromDevice::parse(message).is_err(), "the two ends share no kind");
            let said = say_gateway(&parsed);
            assert!(said.len() <= message.len(), "a shorter spelling than the shortest");
            assert_eq!(FromGateway::parse(&said), Ok(parsed), "it does not come back");
            assert!(FromGateway::parse(&longer).is_err(), "bytes behind its end");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    device_hears(message);
}

/// A device reads a message as the gateway means it, though with code of its own, which takes no numbers beyond 32 bits.
fn device_hears(message: &[u8]) {
    let Some((kind, body)) = message.split_first() else { return };
    if body.windows(5).any(|bytes| bytes.iter().all(|byte| *byte > 0x7f)) {
        return;
    }
    let parsed = FromGateway::parse(message).ok();
    match kind {
        0x41 => {
            let heard = Welcome::read(body).and_then(|heard| {
                let Welcome { epoch, boot, released, received, wants_birth, credit, chip, answers } = heard;
                let chip = ChipId::new(chip)?;
                Some(Welcome { epoch, boot, released, received, wants_birth, credit, chip, answers })
            });
            assert_eq!(heard.map(FromGateway::Welcome), parsed);
        }
        0x42 => assert_eq!(Ack::read(body).map(FromGateway::Ack), parsed),
        0x43 => assert_eq!(TimeRequest::read(body).map(FromGateway::TimeRequest), parsed),
        0x45 => assert_eq!(Reject::read(body).map(FromGateway::Reject), parsed),
        // It has no use for the rest of it, and does not look whether that is text.
        0x46 => match parsed {
            Some(FromGateway::Presence(presence)) => assert_eq!(read_presence(body), Some(presence.epoch)),
            _ => assert!(read_presence(body).is_none() || !body.is_ascii()),
        },
        _ => assert_eq!(parsed, None),
    }
}

/// Says again what was parsed. A number may have been spelt longer than it need be, so the bytes can differ.
fn say_device(parsed: &FromDevice<'_>) -> Message {
    match parsed {
        FromDevice::Hello(body) => body.to_message(),
        FromDevice::Birth(body) => body.to_message(),
        FromDevice::Data(data) => {
            rows_come_back(data.form, data.block);
            Data::head(data.form, data.boot).iter().chain(data.block).copied().collect()
        }
        FromDevice::Gap(body) => body.to_message(),
        FromDevice::TimeReply(body) => body.to_message(),
        FromDevice::Status(body) => body.to_message(),
    }
}

fn say_gateway(parsed: &FromGateway) -> Message {
    match parsed {
        FromGateway::Welcome(body) => body.to_message(),
        FromGateway::Ack(body) => body.to_message(),
        FromGateway::TimeRequest(body) => body.to_message(),
        FromGateway::Reject(body) => body.to_message(),
        FromGateway::Presence(body) => body.to_message(),
    }
}

const fn channel(name: &'static str, kind: ValueKind) -> Channel {
    Channel { name, unit: "", kind, scale: 0 }
}

/// Every type, and a group with another number of channels.
const GROUPS: Groups = Groups::new(&[
    Group {
        name: "all",
        channels: &[
            channel("bool", ValueKind::Bool),
            channel("i32", ValueKind::I32),
            channel("u32", ValueKind::U32),
            channel("f32", ValueKind::F32),
        ],
    },
    Group { name: "one", channels: &[channel("u32", ValueKind::U32)] },
]);

/// The bits of a packed block, with a head that says how many rows they are.
pub fn wire_pack(input: &[u8]) {
    let mut feed = Feed::new(input);
    let (first, count) = (Seq(u32::from(feed.short()) << 16), u32::from(feed.short()));
    let run = feed.rest();
    let run = &run[..run.len().min(PACKED_BYTES_MAX)];
    let head = packed_head(SeqRange { from: first, to: first.plus(count) });
    rows_come_back(Form::Packed, &[&head[..], run].concat());
}

/// A block: whole or refused, and what was read is what a device would have written.
fn rows_come_back(form: Form, bytes: &[u8]) {
    let Ok(schema) = Schema::new(GROUPS.descriptions()) else { return };
    let Ok(block) = Block::parse(form, bytes) else { return };
    // An iterator that goes on behind an error, or gives more than its bytes can hold, would be work without end.
    let most = 8 * BLOCK_BYTES_MAX;
    assert!(block.rows(&schema).take(most + 1).count() <= most);
    let Ok(rows) = block.rows(&schema).collect::<Result<Vec<_>, _>>() else { return };
    let mut next = block.first();
    for row in &rows {
        let (from, to) = numbers(row);
        assert!(from == next && from != to, "numbers have a hole: {rows:?}");
        next = to;
    }
    assert_eq!(next, block.end());
    let longer = [bytes, &[0]].concat();
    let longer = Block::parse(form, &longer).map(|block| block.rows(&schema).any(|row| row.is_err()));
    assert!(longer.unwrap_or(true), "bytes behind its last row");
    let again = match form {
        Form::Plain => written_plain(&rows, &schema),
        Form::Packed => written_packed(&rows, &schema),
    };
    assert!(rows.iter().map(key).eq(again.iter().map(key)), "rows do not come back: {rows:?} {again:?}");
}

fn read(form: Form, bytes: &[u8], schema: &Schema) -> Vec<Row> {
    let rows = Block::parse(form, bytes).and_then(|block| block.rows(schema).collect());
    assert!(rows.is_ok(), "what was written is refused: {rows:?}");
    rows.unwrap_or_default()
}

/// One entry a channel of the row's group.
fn values_of(row: &Sample, schema: &Schema) -> Vec<Option<Value>> {
    let mut values = vec![None; schema.group(row.group).map_or(0, <[_]>::len)];
    for (at, value) in &row.values {
        values[usize::from(*at)] = Some(*value);
    }
    values
}

/// Rows after they were written, plain, and read again. What was read may have been spelt shorter than a device spells
/// it, so it may take two blocks.
fn written_plain(rows: &[Row], schema: &Schema) -> Vec<Row> {
    let mut again = Vec::new();
    let mut writer = PlainWriter::new();
    for row in rows {
        let Row::Sample(row) = row else { continue };
        let values = values_of(row, schema);
        if writer.push(row.seq, row.tick, row.group, &values).is_err() {
            again.extend(read(Form::Plain, writer.bytes(), schema));
            writer.clear();
            let taken = writer.push(row.seq, row.tick, row.group, &values);
            assert!(taken.is_ok(), "an empty block takes every row");
        }
    }
    again.extend(read(Form::Plain, writer.bytes(), schema));
    again
}

/// A packed run that grows.
struct Run(Vec<u8>);

impl PackedBytes for Run {
    fn put(&mut self, at: u8, byte: u8) -> bool {
        self.0.truncate(usize::from(at));
        self.0.push(byte);
        usize::from(at) < PACKED_BYTES_MAX
    }
}

fn written_packed(rows: &[Row], schema: &Schema) -> Vec<Row> {
    let mut again = Vec::new();
    let (mut packer, mut run, mut first) = (Packer::<5>::new(), Run(Vec::new()), None);
    let end = rows.last().map_or(Seq(0), |row| numbers(row).1);
    for row in rows {
        let push = |packer: &mut Packer<5>, run: &mut Run| match row {
            Row::Sample(row) => {
                let values = values_of(row, schema);
                let channels_before = if row.group.0 == 0 { 0 } else { 4 };
                let (tick, group) = (row.tick, row.group);
                packer.push(&PackItem::Row(PackRow { tick, group, channels_before, values: &values }), run)
            }
            Row::Lost { from, to, cause } => {
                packer.push(&PackItem::Lost { rows: from.rows_until(*to), cause: *cause }, run)
            }
        };
        let (from, to) = numbers(row);
        if push(&mut packer, &mut run).is_err() {
            again.extend(finished(&mut packer, &mut run, first.take(), from, schema));
            assert!(push(&mut packer, &mut run).is_ok(), "an empty run takes every row");
        }
        first.get_or_insert(from);
        if to == end {
            again.extend(finished(&mut packer, &mut run, first.take(), to, schema));
        }
    }
    again
}

fn finished(
    packer: &mut Packer<5>,
    run: &mut Run,
    first: Option<Seq>,
    end: Seq,
    schema: &Schema,
) -> Vec<Row> {
    let Some(first) = first else { return Vec::new() };
    let run = std::mem::replace(run, Run(Vec::new()));
    let bytes = run.0[..usize::from(packer.len())].to_vec();
    packer.clear();
    read(Form::Packed, &[&packed_head(SeqRange { from: first, to: end })[..], &bytes].concat(), schema)
}

/// The numbers that a row has, or that were lost.
fn numbers(row: &Row) -> (Seq, Seq) {
    match row {
        Row::Sample(row) => (row.seq, row.seq.plus(1)),
        Row::Lost { from, to, .. } => (*from, *to),
    }
}

/// A row to be compared: a number that is none is not equal to itself.
fn key(row: &Row) -> (u32, u64, u8, Vec<(u8, u32)>) {
    let bits = |value: &Value| match *value {
        Value::Bool(value) => u32::from(value),
        Value::I32(value) => value.cast_unsigned(),
        Value::U32(value) => value,
        Value::F32(value) => value.to_bits(),
    };
    match row {
        Row::Lost { from, to, cause } => (from.0, u64::from(to.0), cause.0, Vec::new()),
        Row::Sample(row) => {
            let values = row.values.iter().map(|(at, value)| (*at, bits(value))).collect();
            (row.seq.0, row.tick.0, row.group.0, values)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
        let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus")).join(target);
        let inputs = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap());
        inputs
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect()
    }

    #[test]
    fn kept_messages_are_of_the_kinds_that_they_are_named_after() {
        let inputs = kept("wire_message");
        for (name, input) in &inputs {
            let kind = match FromDevice::parse(input) {
                Ok(FromDevice::Hello(_)) => "hello",
                Ok(FromDevice::Birth(_)) => "birth",
                Ok(FromDevice::Data(data)) if data.form == Form::Packed => "data",
                Ok(FromDevice::Data(_)) => "data_plain",
                Ok(FromDevice::Gap(_)) => "gap",
                Ok(FromDevice::TimeReply(_)) => "time_reply",
                Ok(FromDevice::Status(_)) => "status",
                Err(_) => match FromGateway::parse(input).unwrap() {
                    FromGateway::Welcome(_) => "welcome",
                    FromGateway::Ack(_) => "ack",
                    FromGateway::TimeRequest(_) => "time_request",
                    FromGateway::Reject(_) => "reject",
                    FromGateway::Presence(_) => "presence",
                },
            };
            assert_eq!(name, kind);
        }
        assert_eq!(inputs.len(), 12, "one of each");
        let schema = Schema::new(GROUPS.descriptions()).unwrap();
        for (kept, form) in [("data", Form::Packed), ("data_plain", Form::Plain)] {
            let (_, data) = inputs.iter().find(|(name, _)| name == kept).unwrap();
            let rows = read(form, &data[5..], &schema);
            assert_eq!(rows.iter().map(|row| key(row).3.len()).collect::<Vec<_>>(), [4, 1, 2], "{kept}");
        }
    }

    #[test]
    fn a_kept_run_is_read_whole() {
        for (name, input) in kept("wire_pack") {
            let head = [&[0, 0], &input[..2], &input[2..3]].concat();
            let rows = read(
                Form::Packed,
                &[&head, &input[4..]].concat(),
                &Schema::new(GROUPS.descriptions()).unwrap(),
            );
            assert!(rows.iter().any(|row| matches!(row, Row::Lost { .. })) && rows.len() == 4, "{name}");
        }
    }

    #[test]
    fn kept_lines_have_frames() {
        for (name, input) in kept("wire_frame") {
            match name.as_str() {
                "line" => {
                    let found = decode::<{ Decoder::MAX }>(&input[1..], 7);
                    assert_eq!(found.iter().filter(|found| found.is_ok()).count(), 3);
                    assert!(input[0].is_multiple_of(2) && found.len() == 5);
                }
                _ => assert_eq!((name.as_str(), input[0] % 2), ("sealed", 1)),
            }
        }
    }
}
