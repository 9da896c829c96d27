//! `docs/wire.md` is true: its examples are the messages that they say, field by field, and its conversation is the one
//! that the gateway's half of the link leads.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use forebay_shared::block::{Block, Form, Row};
use forebay_shared::frame::{self, Decoder, FRAME_BYTES_MAX};
use forebay_shared::ids::{Boot, Epoch, LongSeq, Millis, Token};
use forebay_shared::link::{Event, Receiver, Terms};
use forebay_shared::message::{FromDevice, FromGateway, MessageError, SeqRange};
use forebay_shared::reading::{Description, Schema, SchemaBuilder, Value};
use serde::Serialize;

const WIRE: &str = include_str!("../../docs/wire.md");

/// One line of a message's table.
#[derive(Debug, PartialEq)]
struct Field {
    name: String,
    bytes: String,
    value: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A field as it is encoded and shown.
#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given as they are")]
fn field<T: Serialize>(name: &str, value: &T, shown: impl ToString) -> Field {
    let mut bytes = [0; 64];
    let bytes = postcard::to_slice(value, &mut bytes).unwrap();
    Field { name: name.into(), bytes: hex(bytes), value: shown.to_string() }
}

/// The messages of the page: kind, name and fields.
fn messages() -> Vec<(u8, String, Vec<Field>)> {
    let section = |text: &str| {
        let (heading, text) = text.split_once('\n')?;
        let (name, kind) = heading.strip_suffix(')')?.split_once(" (0x")?;
        let table = text.lines().skip_while(|line| !line.starts_with('|')).skip(2);
        let fields = table.take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, _, bytes, value] = cells[..] else { panic!("not five cells: {line}") };
            Field { name: name.into(), bytes: bytes.trim_matches('`').into(), value: value.into() }
        });
        Some((u8::from_str_radix(kind, 16).unwrap(), name.to_owned(), fields.collect()))
    };
    WIRE.split("\n### ").skip(1).filter_map(section).collect()
}

/// The text of the blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let open = format!("```{language}\n");
    WIRE.split(open.as_str()).skip(1).map(|text| text.split("```").next().unwrap()).collect()
}

fn said(message: &[u8]) -> Vec<Field> {
    let kind = message[0];
    let mut fields = vec![field("kind", &kind, format!("0x{kind:02x}"))];
    fields.extend(match FromDevice::parse(message) {
        Ok(message) => said_by_device(&message),
        Err(_) => said_by_gateway(&FromGateway::parse(message).unwrap()),
    });
    fields
}

fn said_by_device(message: &FromDevice<'_>) -> Vec<Field> {
    match message {
        FromDevice::Hello(body) => {
            let boot = body.boot.map_or(0, Boot::get);
            let resumed = body.resumed_at.map_or("none".to_owned(), |tick| tick.to_string());
            vec![
                field("chip", &body.chip, &body.chip),
                field("name", &body.name, &body.name),
                field("boot", &boot, boot),
                field("version_min", &body.version_min, body.version_min),
                field("version_max", &body.version_max, body.version_max),
                field("schema", &body.schema, format!("0x{:08x}", body.schema.0)),
                field("oldest", &body.oldest, body.oldest),
                field("next", &body.next, body.next),
                field("tick_hz", &body.tick_hz, body.tick_hz),
                field("tick_now", &body.tick_now, body.tick_now),
                field("reset_cause", &body.reset_cause, body.reset_cause.0),
                field("resumed_at", &body.resumed_at, resumed),
            ]
        }
        FromDevice::Birth(body) => {
            let Description { group, group_name, channel, unit, kind, scale } = &body.description;
            vec![
                field("schema", &body.schema, format!("0x{:08x}", body.schema.0)),
                field("index", &body.index, body.index),
                field("count", &body.count, body.count),
                field("group", group, group),
                field("group_name", group_name, group_name),
                field("channel", channel, channel),
                field("unit", unit, unit),
                field("type", kind, *kind as u8),
                field("scale", scale, scale),
            ]
        }
        FromDevice::Data(data) if data.form == Form::Packed => said_in_packed(data.boot, data.block),
        FromDevice::Data(data) => said_in_plain(data.boot, data.block),
        FromDevice::Gap(body) => vec![
            field("boot", &body.boot, body.boot),
            field("from", &body.from, body.from),
            field("to", &body.to, body.to),
            field("cause", &body.cause, body.cause.0),
        ],
        FromDevice::TimeReply(body) => {
            vec![field("token", &body.token, body.token), field("tick_now", &body.tick_now, body.tick_now)]
        }
        FromDevice::Status(body) => vec![
            field("boot", &body.boot, body.boot),
            field("oldest", &body.oldest, body.oldest),
            field("sent", &body.sent, body.sent),
            field("next", &body.next, body.next),
            field("ring_used", &body.ring_used, body.ring_used),
            field("ring_size", &body.ring_size, body.ring_size),
            field("evicted_rows", &body.evicted_rows, body.evicted_rows),
        ],
    }
}

/// The rows of the example, one field each; a decoder gives them whole, so the parts are put together again here.
fn said_in_plain(boot: Boot, bytes: &[u8]) -> Vec<Field> {
    let schema = schema();
    let block = Block::parse(Form::Plain, bytes).unwrap();
    let rows: Vec<_> = block.rows(&schema).map(Result::unwrap).collect();
    let sample =
        |row| if let Row::Sample(sample) = row { sample } else { panic!("a plain block loses nothing") };
    let (base, _): (u64, _) = postcard::take_from_bytes(&bytes[1..]).unwrap();
    let plain = boot.get().to_le_bytes();
    let mut fields = vec![
        Field { name: "boot".into(), bytes: hex(&plain), value: boot.to_string() },
        field("first", &block.first(), block.first()),
        field("base_tick", &base, base),
        field("count", &(rows.len() as u8), rows.len()),
    ];
    let mut tick = base;
    for row in rows.into_iter().map(sample) {
        let present = row.values.iter().fold(0, |bits: u32, (channel, _)| bits | 1 << channel);
        fields.push(field("group", &row.group, row.group));
        fields.push(field("ticks", &((row.tick.0 - tick) as u32), row.tick.0 - tick));
        fields.push(field("present", &present, present));
        fields.extend(row.values.iter().map(|(_, value)| match value {
            Value::Bool(value) => field("value", value, value),
            Value::I32(value) => field("value", value, value),
            Value::U32(value) => field("value", value, value),
            Value::F32(value) => field("value", value, value),
        }));
        tick = row.tick.0;
    }
    fields
}

/// A packed block up to its bits, which are shown by the rows in them.
fn said_in_packed(boot: Boot, bytes: &[u8]) -> Vec<Field> {
    let schema = schema();
    let block = Block::parse(Form::Packed, bytes).unwrap();
    let count = block.first().rows_until(block.end());
    let shown: Vec<String> = block.rows(&schema).map(|row| shown(&row.unwrap())).collect();
    let [boot_bytes, first] = [boot.get(), block.first().0].map(|number| hex(&number.to_le_bytes()));
    let head = field("count", &count, count);
    let run = bytes[4 + unhex(&head.bytes).len()..].to_vec();
    vec![
        Field { name: "boot".into(), bytes: boot_bytes, value: boot.to_string() },
        Field { name: "first".into(), bytes: first, value: block.first().to_string() },
        head,
        Field { name: "run".into(), bytes: hex(&run), value: shown.join("; ") },
    ]
}

/// A row in few words.
fn shown(row: &Row) -> String {
    match row {
        Row::Lost { from, to, cause } => format!("{from}..{to} lost, cause {}", cause.0),
        Row::Sample(row) => {
            let values = row.values.iter().map(|(at, value)| match value {
                Value::Bool(value) => format!("{at}: {value}"),
                Value::I32(value) => format!("{at}: {value}"),
                Value::U32(value) => format!("{at}: {value}"),
                Value::F32(value) => format!("{at}: {value}"),
            });
            format!("{} at {}, {}", row.seq, row.tick, values.collect::<Vec<_>>().join(", "))
        }
    }
}

fn said_by_gateway(message: &FromGateway) -> Vec<Field> {
    match message {
        FromGateway::Welcome(body) => vec![
            field("epoch", &body.epoch, body.epoch),
            field("boot", &body.boot, body.boot),
            field("released", &body.released, body.released),
            field("received", &body.received, body.received),
            field("wants_birth", &body.wants_birth, body.wants_birth),
            field("credit", &body.credit, body.credit),
            field("chip", &body.chip, &body.chip),
            field("answers", &body.answers, body.answers),
        ],
        FromGateway::Ack(body) => {
            let ranges: Vec<_> =
                body.ranges.iter().map(|SeqRange { from, to }| format!("{from}..{to}")).collect();
            vec![
                field("epoch", &body.epoch, body.epoch),
                field("boot", &body.boot, body.boot),
                field("received", &body.received, body.received),
                field("released", &body.released, body.released),
                field("ranges", &body.ranges, ranges.join(", ")),
                field("credit", &body.credit, body.credit),
                field("births", &body.births, body.births),
            ]
        }
        FromGateway::TimeRequest(body) => {
            vec![field("epoch", &body.epoch, body.epoch), field("token", &body.token, body.token)]
        }
        FromGateway::Reject(body) => {
            vec![field("code", &body.code, body.code.0), field("of_kind", &body.kind, body.kind)]
        }
        FromGateway::Presence(body) => {
            vec![field("epoch", &body.epoch, body.epoch), field("client", &body.client, &body.client)]
        }
    }
}

/// The frames of the conversation: whether the device sends it, its message, and what it is called.
fn conversation() -> Vec<(bool, Vec<u8>, &'static str)> {
    let [text] = blocks("conversation")[..] else { panic!("there is one conversation") };
    let line = |line: &'static str| {
        let (from_device, rest) = match line.strip_prefix('→') {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix('←').unwrap()),
        };
        let (bytes, name) = rest.trim().split_once("  ").unwrap();
        (from_device, message_in(&unhex(bytes)), name.trim())
    };
    text.lines().map(line).collect()
}

/// The message in a frame that may begin with a delimiter.
fn message_in(frame: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::<{ Decoder::MAX }>::new();
    let mut rest = frame;
    let message = decoder.next(&mut rest).unwrap_or_else(|| panic!("no frame ends in {}", hex(frame)));
    let message = message.unwrap_or_else(|error| panic!("{error}: {}", hex(frame))).to_vec();
    assert_eq!(rest, [], "one frame");
    message
}

fn schema() -> Schema {
    let births = conversation().into_iter().filter_map(|(_, message, _)| match FromDevice::parse(&message) {
        Ok(FromDevice::Birth(birth)) => Some(birth.description),
        _ => None,
    });
    Schema::new(births).unwrap()
}

#[test]
fn every_kind_is_described_and_every_example_is_what_it_says() {
    let unknown = |error| matches!(error, MessageError::Unknown { .. } | MessageError::Optional { .. });
    let is_known = |kind: &u8| {
        !FromDevice::parse(&[*kind]).is_err_and(unknown) || !FromGateway::parse(&[*kind]).is_err_and(unknown)
    };
    let known: Vec<u8> = (0..=u8::MAX).filter(is_known).collect();
    let messages = messages();
    assert_eq!(messages.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), known);
    for (kind, name, fields) in messages {
        let listed = format!("| `{kind:02x}` | [{name}](#{}-0x{kind:02x}) |", name.to_lowercase());
        assert!(WIRE.contains(&listed), "{listed} is not in the list of kinds");
        let bytes: Vec<u8> = fields.iter().flat_map(|field| unhex(&field.bytes)).collect();
        assert_eq!(bytes[0], kind, "{name}");
        assert_eq!(fields, said(&bytes), "{name}");
    }
}

#[test]
fn frames_outside_the_conversation_are_what_the_text_before_them_says() {
    let frames = blocks("frame");
    assert!(!frames.is_empty());
    for frame in frames {
        let message = message_in(&unhex(frame));
        assert!(WIRE.contains(&format!("The message `{}` as a frame:", hex(&message))), "{}", hex(&message));
    }
}

#[test]
fn the_conversation_is_the_one_that_a_gateway_leads() {
    let mut receiver = Receiver::new(Epoch(24_301));
    let (mut now, mut births, mut durable) = (Millis(1000), None, None);
    let conversation = conversation();
    for (at, (from_device, message, name)) in conversation.iter().enumerate() {
        assert_eq!(name.split([' ', ',', ':']).next(), Some(name_of(message[0]).as_str()), "line {at}");
        if !from_device {
            // What waits for company, or for the disk, comes a little later.
            now = now.plus(5);
            let answer = receiver.poll_transmit(now).map(|answer| answer.to_vec());
            assert_eq!(answer.as_deref().map(hex), Some(hex(message)), "line {at}: {name}");
            if let Some(to) = durable.take() {
                receiver.release(now, to);
            }
            continue;
        }
        assert_eq!(receiver.poll_transmit(now), None, "line {at}: the gateway has more to say");
        receiver.handle(now, message).unwrap_or_else(|error| panic!("line {at}: {error}"));
        while let Some(event) = receiver.poll_event() {
            match event {
                Event::Hello(_) => {
                    let boot = Boot::new(16_909_060).unwrap();
                    receiver.welcome(now, Terms { boot, known: None, wants_birth: true, credit: 0 }).unwrap();
                }
                Event::Birth(birth) => {
                    let builder = births.get_or_insert_with(|| SchemaBuilder::new(birth.schema));
                    if builder.insert(birth.index, birth.count, birth.description).unwrap().is_some() {
                        receiver.births_complete(now);
                        receiver.request_time(Token(200));
                    }
                }
                Event::TimeReply { .. } => receiver.set_credit(now, 16),
                Event::Rows { to, .. } => durable = Some(to),
                Event::Gap { from, to, .. } => assert_eq!((from, to), (LongSeq(2), LongSeq(130))),
                Event::Status(_) => {}
            }
        }
    }
    assert_eq!(receiver.next(), Some(LongSeq(130)));
    assert_eq!(receiver.counters().errors, 0);
}

/// What the page calls a kind.
fn name_of(kind: u8) -> String {
    messages().into_iter().find(|(of, ..)| *of == kind).unwrap().1
}

#[test]
fn the_schema_and_the_frames_can_be_made_from_the_page() {
    let schema = schema();
    assert_eq!(format!("0x{:08x}", schema.id().0), "0x2a4e68db");
    assert!(WIRE.contains("| 0x2a4e68db |"));
    let mut out = [0; FRAME_BYTES_MAX];
    let len = frame::encode(&[b"123456789"], &mut out).unwrap();
    assert_eq!(hex(&out[10..len]), "83 92 06 e3 00");
    assert!(WIRE.contains("`123456789` it is `E3069283`"));
}
