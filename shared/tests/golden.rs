//! The bytes of wire version 1, written out.
//!
//! A frozen version's bytes are never edited: a message that must change gets a new kind. Wire version 1
//! is not frozen yet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use forebay_shared::block::{Block, Form, Row, packed_head};
use forebay_shared::frame::{self, Decoder, FRAME_TO_DEVICE_BYTES_MAX};
use forebay_shared::ids::{Boot, ChipId, Epoch, GroupId, SchemaId, Seq, Tick, Token};
use forebay_shared::message::{
    Ack, Birth, Body, Data, FromDevice, FromGateway, Gap, GapCause, Hello, MessageError, Presence, Reject,
    RejectCode, ResetCause, SeqRange, Status, TimeReply, TimeRequest, Welcome,
};
use forebay_shared::pack::{PackItem, PackRow, PackedBytes, Packer};
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

fn unhex(golden: &str) -> Vec<u8> {
    let digits: Vec<u8> = golden.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn chip() -> ChipId {
    "e6614104".parse().unwrap()
}

fn boot() -> Boot {
    Boot::new(0x0102_0304).unwrap()
}

fn last_boot() -> Boot {
    Boot::new(u32::MAX).unwrap()
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

/// A message of either end.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    Device(FromDevice<'a>),
    Gateway(FromGateway),
}

impl<'a> Said<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        // The two ends share no kind.
        FromGateway::parse(message)
            .map(Self::Gateway)
            .or_else(|_| FromDevice::parse(message).map(Self::Device))
    }

    fn bytes(&self) -> Vec<u8> {
        let message = match self {
            Self::Device(FromDevice::Hello(body)) => body.to_message(),
            Self::Device(FromDevice::Birth(body)) => body.to_message(),
            Self::Device(FromDevice::Data(data)) => {
                return [&Data::head(data.form, data.boot)[..], data.block].concat();
            }
            Self::Device(FromDevice::Gap(body)) => body.to_message(),
            Self::Device(FromDevice::TimeReply(body)) => body.to_message(),
            Self::Device(FromDevice::Status(body)) => body.to_message(),
            Self::Gateway(FromGateway::Welcome(body)) => body.to_message(),
            Self::Gateway(FromGateway::Ack(body)) => body.to_message(),
            Self::Gateway(FromGateway::TimeRequest(body)) => body.to_message(),
            Self::Gateway(FromGateway::Reject(body)) => body.to_message(),
            Self::Gateway(FromGateway::Presence(body)) => body.to_message(),
        };
        message.to_vec()
    }
}

/// Every message of a device: an ordinary one, and one at each end of what its fields can hold.
fn of_devices() -> Vec<(&'static str, FromDevice<'static>)> {
    let most = u32::MAX;
    let names = Name::try_from("abcdefghijklmnopqrstuvwxyzabcdef").unwrap();
    let least_hello = Hello {
        chip: ChipId::new(&[0]).unwrap(),
        name: Name::new(),
        version_min: 0,
        version_max: 0,
        schema: SchemaId(0),
        next: Seq(0),
        tick_hz: 0,
        tick_now: Tick(0),
        reset_cause: ResetCause::UNKNOWN,
        ..hello()
    };
    let most_hello = Hello {
        chip: ChipId::new(&[0xff; 16]).unwrap(),
        name: names.clone(),
        boot: Some(last_boot()),
        version_min: u8::MAX,
        version_max: u8::MAX,
        schema: SchemaId(most),
        oldest: Seq(most),
        next: Seq(most),
        tick_hz: most,
        tick_now: Tick(u64::MAX),
        reset_cause: ResetCause(u8::MAX),
        resumed_at: Some(Tick(u64::MAX)),
    };
    let birth = |kind, scale| {
        let description = Description { unit: Name::new(), kind, scale, ..description() };
        FromDevice::Birth(Birth { schema: SchemaId(1), index: 0, count: 1, description })
    };
    let most_birth = Birth {
        schema: SchemaId(most),
        index: u8::MAX,
        count: u8::MAX,
        description: Description {
            group: GroupId(u8::MAX),
            group_name: names.clone(),
            channel: names.clone(),
            unit: names,
            kind: ValueKind::F32,
            scale: i8::MIN,
        },
    };
    let data = |form, boot, block| FromDevice::Data(Data { boot, form, block });
    let gap = |boot, from, to, cause| FromDevice::Gap(Gap { boot, from: Seq(from), to: Seq(to), cause });
    let reply = |token, tick| FromDevice::TimeReply(TimeReply { token: Token(token), tick_now: Tick(tick) });
    let status = |boot, oldest, sent, next, [ring_used, ring_size, evicted_rows]: [u32; 3]| {
        let (oldest, sent, next) = (Seq(oldest), Seq(sent), Seq(next));
        FromDevice::Status(Status { boot, oldest, sent, next, ring_used, ring_size, evicted_rows })
    };
    let one = Boot::new(1).unwrap();
    vec![
        ("0104e661410406626f696c6572000101effdb6f50d00ac02e8078080808080010400", FromDevice::Hello(hello())),
        (
            "0104e661410406626f696c6572848688080101effdb6f50d00ac02e807808080808001040109",
            FromDevice::Hello(Hello { boot: Some(boot()), resumed_at: Some(Tick(9)), ..hello() }),
        ),
        ("01 0100 00 00 00 00 00 00 00 00 00 00 00", FromDevice::Hello(least_hello)),
        (
            "01 10ffffffffffffffffffffffffffffffff
             206162636465666768696a6b6c6d6e6f707172737475767778797a616263646566 ffffffff0f ff ff ffffffff0f
             ffffffff0f ffffffff0f ffffffff0f ffffffffffffffffff01 ff 01ffffffffffffffffff01",
            FromDevice::Hello(most_hello),
        ),
        (
            "020102040007636c696d6174650b74656d706572617475726503c2b04302fe",
            FromDevice::Birth(Birth { schema: SchemaId(1), index: 2, count: 4, description: description() }),
        ),
        ("02 01 00 01 00 07636c696d617465 0b74656d7065726174757265 00 01 00", birth(ValueKind::Bool, 0)),
        ("02 01 00 01 00 07636c696d617465 0b74656d7065726174757265 00 02 16", birth(ValueKind::I32, 22)),
        ("02 01 00 01 00 07636c696d617465 0b74656d7065726174757265 00 02 ea", birth(ValueKind::I32, -22)),
        ("02 01 00 01 00 07636c696d617465 0b74656d7065726174757265 00 03 00", birth(ValueKind::U32, 0)),
        ("02 01 00 01 00 07636c696d617465 0b74656d7065726174757265 00 04 00", birth(ValueKind::F32, 0)),
        (
            "02 ffffffff0f ff ff ff 206162636465666768696a6b6c6d6e6f707172737475767778797a616263646566
             206162636465666768696a6b6c6d6e6f707172737475767778797a616263646566
             206162636465666768696a6b6c6d6e6f707172737475767778797a616263646566 04 80",
            FromDevice::Birth(most_birth),
        ),
        (
            "03 04030201 2c010000 05 c00015e88324ae0ca2c03807c5e6806002240885c101",
            data(Form::Packed, boot(), PACKED),
        ),
        ("03 ffffffff", data(Form::Packed, last_boot(), &[])),
        (
            "04 04030201 ac02 e807 02 00 00 0f ab02 01 ac02 80e6c547 00 c801 04 ad02",
            data(Form::Plain, boot(), TWO_ROWS),
        ),
        ("04 01000000", data(Form::Plain, one, &[])),
        ("04 ffffffff 00 00 01 00 00 01 00", data(Form::Plain, last_boot(), LEAST_BLOCK)),
        ("058486880801800101", gap(boot(), 1, 128, GapCause::OVERFLOW)),
        ("05 01 ffffffff0f 00 02", gap(one, most, 0, GapCause::DEVICE_RESET)),
        ("05 ffffffff0f ffffffff0f ffffffff0f ff", gap(last_boot(), most, most, GapCause::FORGOTTEN)),
        ("06c80103", reply(200, 3)),
        ("06 00 00", reply(0, 0)),
        ("06 ffffffff0f ffffffffffffffffff01", reply(most, u64::MAX)),
        ("07848688080102039003804005", status(boot(), 1, 2, 3, [400, 8192, 5])),
        ("07 01 00 00 00 00 00 00", status(one, 0, 0, 0, [0; 3])),
        (
            "07 ffffffff0f ffffffff0f ffffffff0f ffffffff0f ffffffff0f ffffffff0f ffffffff0f",
            status(last_boot(), most, most, most, [most; 3]),
        ),
    ]
}

/// The same for every message of a gateway.
fn of_gateways() -> Vec<(&'static str, FromGateway)> {
    let most = u32::MAX;
    let one = Boot::new(1).unwrap();
    let welcome = |epoch, boot, [released, received]: [u32; 2], wants_birth, credit, chip, answers| {
        let (released, received) = (Seq(released), Seq(received));
        let epoch = Epoch(epoch);
        let answers = Token(answers);
        FromGateway::Welcome(Welcome { epoch, boot, released, received, wants_birth, credit, chip, answers })
    };
    let ack = |epoch, boot, [received, released]: [u32; 2], ranges: &[(u32, u32)], credit, births| {
        let ranges = ranges.iter().map(|(from, to)| SeqRange { from: Seq(*from), to: Seq(*to) }).collect();
        let (epoch, received, released) = (Epoch(epoch), Seq(received), Seq(released));
        FromGateway::Ack(Ack { epoch, boot, received, released, ranges, credit, births })
    };
    let request =
        |epoch, token| FromGateway::TimeRequest(TimeRequest { epoch: Epoch(epoch), token: Token(token) });
    let reject = |code, kind| FromGateway::Reject(Reject { code, kind });
    let presence = |epoch, client: &str| {
        FromGateway::Presence(Presence { epoch: Epoch(epoch), client: client.try_into().unwrap() })
    };
    vec![
        ("4107848688080405011004e6614104c801", welcome(7, boot(), [4, 5], true, 16, chip(), 200)),
        ("41 00 01 00 00 00 00 0100 00", welcome(0, one, [0, 0], false, 0, ChipId::new(&[0]).unwrap(), 0)),
        (
            "41 ffffffff0f ffffffff0f ffffffff0f ffffffff0f 01 ff 10ffffffffffffffffffffffffffffffff ffffffff0f",
            welcome(most, last_boot(), [most; 2], true, u8::MAX, ChipId::new(&[0xff; 16]).unwrap(), most),
        ),
        ("4207848688080504010a141001", ack(7, boot(), [5, 4], &[(10, 20)], 16, true)),
        ("42 00 01 00 00 00 00 00", ack(0, one, [0, 0], &[], 0, false)),
        (
            "42 ffffffff0f ffffffff0f ffffffff0f ffffffff0f 03 ffffffff0f 00 00 7f 8001 ffffffff0f ff 01",
            ack(most, last_boot(), [most; 2], &[(most, 0), (0, 127), (128, most)], u8::MAX, true),
        ),
        ("4307c801", request(7, 200)),
        ("43 00 00", request(0, 0)),
        ("43 ffffffff0f ffffffff0f", request(most, most)),
        ("45 01 7f", reject(RejectCode::UNKNOWN_KIND, 0x7f)),
        ("45 02 01", reject(RejectCode::UNSUPPORTED_VERSION, 1)),
        ("45 03 00", reject(RejectCode::MALFORMED, 0)),
        ("45 04 01", reject(RejectCode::DEVICE_LIMIT, 1)),
        ("450504", reject(RejectCode::WRONG_BOOT, 4)),
        ("45 ff ff", reject(RejectCode(u8::MAX), u8::MAX)),
        ("460709666f72656261792d31", presence(7, "forebay-1")),
        ("46 00 00", presence(0, "")),
        (
            "46 ffffffff0f 40 78787878787878787878787878787878787878787878787878787878787878787878787878787878
             787878787878787878787878787878787878787878787878",
            presence(most, &"x".repeat(64)),
        ),
    ]
}

/// Two rows of [`GROUPS`], as [`rows`] makes them.
const TWO_ROWS: &[u8] = &[
    0xac, 0x02, 0xe8, 0x07, 2, 0, 0, 0x0f, 0xab, 0x02, 1, 0xac, 0x02, 0x80, 0xe6, 0xc5, 0x47, 0, 0xc8, 1, 4,
    0xad, 2,
];
/// Five rows, of which two are lost, as [`packed_rows`] packs them.
const PACKED: &[u8] = &[
    0x2c, 0x01, 0x00, 0x00, 0x05, 0xc0, 0x00, 0x15, 0xe8, 0x83, 0x24, 0xae, 0x0c, 0xa2, 0xc0, 0x38, 0x07,
    0xc5, 0xe6, 0x80, 0x60, 0x02, 0x24, 0x08, 0x85, 0xc1, 0x01,
];
const LEAST_BLOCK: &[u8] = &[0, 0, 1, 0, 0, 1, 0];

fn goldens() -> impl Iterator<Item = (&'static str, Said<'static>)> {
    let devices = of_devices().into_iter().map(|(golden, message)| (golden, Said::Device(message)));
    devices.chain(of_gateways().into_iter().map(|(golden, message)| (golden, Said::Gateway(message))))
}

#[test]
fn messages_are_their_bytes_and_the_bytes_are_the_messages() {
    for (golden, said) in goldens() {
        let bytes = unhex(golden);
        assert_eq!(hex(&said.bytes()), hex(&bytes), "{said:?}");
        assert_eq!(Said::parse(&bytes).as_ref(), Ok(&said), "{golden}");
    }
    assert_eq!(GROUPS.descriptions().next(), Some(description()));
}

#[test]
fn every_kind_has_a_golden() {
    // A kind byte alone is no message of most kinds, but it tells whether anybody knows the kind.
    let unknown = |error| matches!(error, MessageError::Unknown { .. } | MessageError::Optional { .. });
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|kind| {
            !FromDevice::parse(&[*kind]).is_err_and(unknown)
                || !FromGateway::parse(&[*kind]).is_err_and(unknown)
        })
        .collect();
    let mut golden: Vec<u8> = goldens().map(|(golden, _)| unhex(golden)[0]).collect();
    golden.sort_unstable();
    golden.dedup();
    assert_eq!(hex(&golden), hex(&known));
}

#[test]
fn rows() {
    let mut block = PlainWriter::new();
    let full =
        [Some(Value::I32(-150)), Some(Value::Bool(true)), Some(Value::U32(300)), Some(Value::F32(101_325.0))];
    block.push(Seq(300), Tick(1000), GroupId(0), &full).unwrap();
    block.push(Seq(301), Tick(1200), GroupId(0), &[None, None, Some(Value::U32(301)), None]).unwrap();
    assert_eq!(hex(block.bytes()), hex(TWO_ROWS));
    let schema = Schema::new(GROUPS.descriptions()).unwrap();
    assert_eq!(
        Block::parse(Form::Plain, block.bytes()).unwrap().rows(&schema).filter(Result::is_ok).count(),
        2
    );
    assert_eq!(hex(&Data::head(Form::Plain, boot())), "0404030201");

    let mut block = PlainWriter::new();
    block
        .push(Seq(u32::MAX), Tick(u64::MAX - u64::from(u32::MAX)), GroupId(0), &[Some(Value::I32(i32::MIN))])
        .unwrap();
    let values = [Some(Value::I32(i32::MAX)), Some(Value::Bool(false)), Some(Value::U32(u32::MAX))];
    let values = [&values[..], &[Some(Value::F32(f32::NEG_INFINITY))]].concat();
    block.push(Seq(0), Tick(u64::MAX), GroupId(0), &values).unwrap();
    let golden = "ffffffff0f 80808080f0ffffffff01 02 00 00 01 ffffffff0f 00 ffffffff0f 0f feffffff0f 00 ffffffff0f 000080ff";
    assert_eq!(hex(block.bytes()), hex(&unhex(golden)));
    let rows: Vec<_> =
        Block::parse(Form::Plain, block.bytes()).unwrap().rows(&schema).map(Result::unwrap).collect();
    let Row::Sample(last) = &rows[1] else { panic!("a plain block loses nothing") };
    assert_eq!((last.seq, last.tick, last.values.len()), (Seq(0), Tick(u64::MAX), 4));
}

/// Where a packed run goes.
struct Run(Vec<u8>);

impl PackedBytes for Run {
    fn put(&mut self, at: u8, byte: u8) -> bool {
        self.0.truncate(usize::from(at));
        self.0.push(byte);
        true
    }
}

#[test]
fn packed_rows() {
    let (mut packer, mut run) = (Packer::<4>::new(), Run(Vec::new()));
    let mut push = |packer: &mut Packer<4>, tick, values: &[Option<Value>]| {
        let row = PackRow { tick: Tick(tick), group: GroupId(0), channels_before: 0, values };
        packer.push(&PackItem::Row(row), &mut run).unwrap();
    };
    let full =
        [Some(Value::I32(-150)), Some(Value::Bool(true)), Some(Value::U32(300)), Some(Value::F32(101_325.0))];
    push(&mut packer, 1000, &full);
    push(&mut packer, 1200, &[None, None, Some(Value::U32(301)), None]);
    push(&mut packer, 1400, &[None, None, Some(Value::U32(302)), None]);
    packer.push(&PackItem::Lost { rows: 2, cause: GapCause::SENSOR }, &mut run).unwrap();
    let head = packed_head(SeqRange { from: Seq(300), to: Seq(305) });
    assert_eq!(hex(&[&head[..], &run.0].concat()), hex(PACKED));
    assert_eq!(hex(&Data::head(Form::Packed, boot())), "0304030201");

    let schema = Schema::new(GROUPS.descriptions()).unwrap();
    let rows: Result<Vec<_>, _> = Block::parse(Form::Packed, PACKED).unwrap().rows(&schema).collect();
    let rows = rows.unwrap();
    assert!(
        matches!(&rows[2], Row::Sample(row) if row.seq == Seq(302) && row.tick == Tick(1400)),
        "{rows:?}"
    );
    assert_eq!(rows[3], Row::Lost { from: Seq(303), to: Seq(305), cause: GapCause::SENSOR });
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
    assert_eq!(FromDevice::parse(&[0x00]), Err(MessageError::Unknown { kind: 0x00 }));
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
