//! The bytes of wire version 1, written out.
//!
//! A frozen version's bytes are never edited: a message that must change gets a new kind. Wire version 1
//! is not frozen yet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use forebay_shared::block::{Block, Form};
use forebay_shared::frame::{self, Decoder, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, ChipId, Epoch, GroupId, SchemaId, Seq, Tick, Token};
use forebay_shared::message::{
    Ack, Birth, Body, Data, FromDevice, FromGateway, Gap, GapCause, Hello, MessageError, Presence, Reject,
    RejectCode, ResetCause, SeqRange, Status, TimeReply, TimeRequest, Welcome,
};
use forebay_shared::plain::PlainWriter;
use forebay_shared::reading::{Channel, Description, Group, Groups, Name, Schema, Value, ValueKind};

const GROUPS: Groups = Groups::new(&[Group {
    name: "climate",
    channels: &[
        Channel { name: "temperature", unit: "°C", kind: ValueKind::I32, scale: -2 },
        Channel { name: "heating", unit: "", kind: ValueKind::Bool, scale: 0 },
        Channel { name: "pulses", unit: "", kind: ValueKind::U32, scale: 0 },
        Channel { name: "pressure", unit: "Pa", kind: ValueKind::F32, scale: 0 },
    ],
}]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn chip() -> ChipId {
    "e6614104".parse().unwrap()
}

fn boot() -> Boot {
    Boot::new(0x0102_0304).unwrap()
}

fn hello() -> Hello {
    Hello {
        chip: chip(),
        name: Name::try_from("boiler").unwrap(),
        boot: None,
        version_min: 1,
        version_max: 1,
        schema: SchemaId(0xdead_beef),
        oldest: Seq(0),
        next: Seq(300),
        tick_hz: 1000,
        tick_now: Tick(1 << 35),
        reset_cause: ResetCause::WATCHDOG,
        resumed_at: None,
    }
}

fn description() -> Description {
    Description {
        group: GroupId(0),
        group_name: Name::try_from("climate").unwrap(),
        channel: Name::try_from("temperature").unwrap(),
        unit: Name::try_from("°C").unwrap(),
        kind: ValueKind::I32,
        scale: -2,
    }
}

fn check<B: Body>(body: &B, golden: &str) {
    assert_eq!(hex(&body.to_message()), golden);
}

#[test]
fn messages_of_a_device() {
    let hello = hello();
    check(&hello, "0104e661410406626f696c6572000101effdb6f50d00ac02e8078080808080010400");
    check(
        &Hello { boot: Some(boot()), resumed_at: Some(Tick(9)), ..hello },
        "0104e661410406626f696c6572848688080101effdb6f50d00ac02e807808080808001040109",
    );
    assert_eq!(GROUPS.descriptions().next(), Some(description()));
    check(
        &Birth { schema: SchemaId(1), index: 2, count: 4, description: description() },
        "020102040007636c696d6174650b74656d706572617475726503c2b04302fe",
    );
    check(&Gap { boot: boot(), from: Seq(1), to: Seq(128), cause: GapCause::OVERFLOW }, "058486880801800101");
    check(&TimeReply { token: Token(200), tick_now: Tick(3) }, "06c80103");
    let status = Status {
        boot: boot(),
        oldest: Seq(1),
        sent: Seq(2),
        next: Seq(3),
        ring_used: 400,
        ring_size: 8192,
        evicted_rows: 5,
    };
    check(&status, "07848688080102039003804005");
}

#[test]
fn messages_of_a_gateway() {
    let welcome = Welcome {
        epoch: Epoch(7),
        boot: boot(),
        released: Seq(4),
        received: Seq(5),
        wants_birth: true,
        credit: 16,
        chip: chip(),
        answers: Token(200),
    };
    check(&welcome, "4107848688080405011004e6614104c801");
    let ranges = heapless::Vec::from_slice(&[SeqRange { from: Seq(10), to: Seq(20) }]).unwrap();
    let (received, released) = (Seq(5), Seq(4));
    check(
        &Ack { epoch: Epoch(7), boot: boot(), received, released, ranges, credit: 16, births: true },
        "4207848688080504010a141001",
    );
    check(&TimeRequest { epoch: Epoch(7), token: Token(200) }, "4307c801");
    check(&Reject { code: RejectCode::WRONG_BOOT, kind: 4 }, "450504");
    check(&Presence { epoch: Epoch(7), client: "forebay-1".try_into().unwrap() }, "460709666f72656261792d31");
}

#[test]
fn rows() {
    let mut block = PlainWriter::new();
    let full =
        [Some(Value::I32(-150)), Some(Value::Bool(true)), Some(Value::U32(300)), Some(Value::F32(101_325.0))];
    block.push(Seq(300), Tick(1000), GroupId(0), &full).unwrap();
    block.push(Seq(301), Tick(1200), GroupId(0), &[None, None, Some(Value::U32(301)), None]).unwrap();
    assert_eq!(hex(block.bytes()), "ac02e8070200000fab0201ac0280e6c54700c80104ad02");
    let schema = Schema::new(GROUPS.descriptions()).unwrap();
    assert_eq!(
        Block::parse(Form::Plain, block.bytes()).unwrap().rows(&schema).filter(Result::is_ok).count(),
        2
    );
    assert_eq!(hex(&Data::head(Form::Plain, boot())), "0404030201");
}

#[test]
fn a_schema_is_named_by_its_descriptions() {
    assert_eq!(GROUPS.id(), SchemaId(0xf27e_d16b));
    assert_eq!(Schema::new(GROUPS.descriptions()).unwrap().id(), GROUPS.id());
}

#[test]
fn frames() {
    let mut out = [0; 64];
    let len = frame::encode(&[&[0x43, 7, 0, 9]], &mut out).unwrap();
    assert_eq!(hex(&out[..len]), "0343070609bc22a18d00");
    // The check value that the literature gives for this CRC, e3069283.
    let len = frame::encode(&[b"123456789"], &mut out).unwrap();
    assert_eq!(hex(&out[..len]), "0e313233343536373839839206e300");
}

#[test]
fn the_longest_messages_fit() {
    let all_ones = SeqRange { from: Seq(u32::MAX), to: Seq(u32::MAX) };
    let ack = Ack {
        epoch: Epoch(u32::MAX),
        boot: Boot::new(u32::MAX).unwrap(),
        received: Seq(u32::MAX),
        released: Seq(u32::MAX),
        ranges: heapless::Vec::from_slice(&[all_ones; 3]).unwrap(),
        credit: u8::MAX,
        births: true,
    };
    let welcome = Welcome {
        epoch: Epoch(u32::MAX),
        boot: Boot::new(u32::MAX).unwrap(),
        released: Seq(u32::MAX),
        received: Seq(u32::MAX),
        wants_birth: true,
        credit: u8::MAX,
        chip: ChipId::new(&[0xff; 16]).unwrap(),
        answers: Token(u32::MAX),
    };
    for message in [ack.to_message(), welcome.to_message()] {
        let mut out = [0; 64];
        let len = frame::encode(&[&message], &mut out).unwrap();
        assert!(len < FRAME_TO_DEVICE_BYTES_MAX, "{len} and a delimiter before it");
        let mut decoder = Decoder::<{ FRAME_TO_DEVICE_BYTES_MAX - 2 }>::new();
        assert_eq!(decoder.next(&mut &out[..len]), Some(Ok(&message[..])));
    }
    let hello = Hello {
        chip: ChipId::new(&[0xff; 16]).unwrap(),
        name: Name::try_from("abcdefghijklmnopqrstuvwxyzabcdef").unwrap(),
        boot: Boot::new(u32::MAX),
        schema: SchemaId(u32::MAX),
        oldest: Seq(u32::MAX),
        next: Seq(u32::MAX),
        tick_hz: u32::MAX,
        tick_now: Tick(u64::MAX),
        resumed_at: Some(Tick(u64::MAX)),
        ..hello()
    };
    assert!(hello.to_message().len() <= 128);
}

#[test]
fn what_is_no_message_is_named() {
    let malformed = |kind| Err(MessageError::Malformed { kind });
    assert_eq!(FromDevice::parse(&[]), Err(MessageError::Empty));
    assert_eq!(FromDevice::parse(&[0x21]), Err(MessageError::Unknown { kind: 0x21 }));
    assert_eq!(FromDevice::parse(&[0x18]), Err(MessageError::Optional { kind: 0x18 }));
    assert_eq!(FromDevice::parse(&[0x06, 1]), malformed(0x06), "cut short");
    assert_eq!(FromDevice::parse(&[0x06, 1, 2, 3]), malformed(0x06), "too long");
    assert_eq!(FromDevice::parse(&[0x04, 0, 0, 0, 0, 1]), malformed(0x04), "boot zero");
    assert_eq!(
        FromDevice::parse(&[&[0x04, 1, 0, 0, 0][..], &[0; 245]].concat()),
        malformed(0x04),
        "too long"
    );
    assert_eq!(FromGateway::parse(&[0x44]), Err(MessageError::Unknown { kind: 0x44 }));
    assert_eq!(FromGateway::parse(&[0x4f]), Err(MessageError::Optional { kind: 0x4f }));
    let mut birth =
        Birth { schema: SchemaId(1), index: 0, count: 1, description: description() }.to_message();
    assert!(FromDevice::parse(&birth).is_ok());
    let kind_at = birth.len() - 2;
    birth[kind_at] = 9;
    assert_eq!(FromDevice::parse(&birth), malformed(0x02), "unknown type");
}
