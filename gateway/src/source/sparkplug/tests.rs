//! Nodes that are born, send by alias, miss messages, die, and outlive a restart of the gateway.

use proptest::prelude::*;

use super::message::{Metric, Raw, tests::encode};
use super::*;
use crate::config::{Format, Selector};
use crate::record::Row;
use crate::sink::line_protocol::{Dialect, push_row};
use crate::stats::Stats;

/// The time of the n-th message, in milliseconds since 1970.
fn at_ms(number: u64) -> u64 {
    1_700_000_000_000 + number
}

fn layout() -> Layout {
    let measurement = Some(Selector::Fixed("sparkplug".to_owned()));
    Layout { measurement, ..Layout::of(Format::Sparkplug) }
}

fn metric<'a>(name: impl Into<Option<&'a str>>, alias: impl Into<Option<u64>>, value: Raw<'a>) -> Metric<'a> {
    let datatype = matches!(value, Raw::Double(_)).then_some(10);
    Metric { name: name.into(), alias: alias.into(), datatype, value: Some(value), ..Metric::default() }
}

/// A birth with a metric `t`, whose alias is 1, in the session `bd_seq`.
fn birth(seq: u64, bd_seq: u64, number: u64) -> Vec<u8> {
    let metrics = vec![metric("bdSeq", None, Raw::Long(bd_seq)), metric("t", 1, Raw::Double(20.0))];
    encode(&Payload { timestamp: Some(at_ms(number)), seq: Some(seq), metrics, surplus: 0 })
}

fn data(seq: u64, alias: u64, value: f64, number: u64) -> Vec<u8> {
    let metrics = vec![metric(None, alias, Raw::Double(value))];
    encode(&Payload { timestamp: Some(at_ms(number)), seq: Some(seq), metrics, surplus: 0 })
}

fn death(bd_seq: u64, timestamp: Option<u64>) -> Vec<u8> {
    let metrics = vec![metric("bdSeq", None, Raw::Long(bd_seq))];
    encode(&Payload { timestamp, seq: None, metrics, surplus: 0 })
}

/// A gateway, as far as these messages are concerned.
struct Gateway {
    known: Sparkplug,
    now_ms: u64,
}

impl Gateway {
    fn new() -> Gateway {
        Gateway { known: Sparkplug::default(), now_ms: 0 }
    }

    /// What becomes of a message, a line for each row, and what is published.
    fn hear(&mut self, topic: &str, payload: &[u8], again: bool) -> (Vec<String>, Option<Command>) {
        let heard = Heard { topic, payload, again };
        let reading = self.known.read(&layout(), &Naming::default(), &heard);
        let now = Now { monotonic_ms: self.now_ms, wall_ms: 1 };
        let command = reading.effect.and_then(|effect| self.known.settle(effect, now, false));
        let lines = match reading.parsed {
            Ok(parsed) => lines(&parsed),
            Err(Aside(why)) => vec![format!("aside: {why}")],
        };
        (lines, command)
    }

    /// What becomes of a message after which nothing is asked for.
    #[track_caller]
    fn quiet(&mut self, topic: &str, payload: &[u8]) -> Vec<String> {
        let (lines, command) = self.hear(topic, payload, false);
        assert_eq!(command, None);
        lines
    }

    /// Why births are asked for after a message.
    fn asks(&mut self, topic: &str, payload: &[u8]) -> String {
        self.hear(topic, payload, false).1.map(|command| command.why).unwrap_or_default()
    }

    fn born() -> Gateway {
        let mut gateway = Gateway::new();
        gateway.quiet(NBIRTH, &birth(0, 7, 0));
        gateway.quiet(DBIRTH, &birth(1, 7, 1));
        gateway
    }
}

fn lines(parsed: &Parsed) -> Vec<String> {
    let line = |row: &Row| {
        let mut line = String::new();
        push_row(&mut line, Dialect::V2, row);
        line.trim_end().to_owned()
    };
    let refused = parsed.refused.iter();
    let refused =
        refused.map(|refused| format!("{} of {}: {}", refused.rows, refused.device, refused.reason));
    parsed.rows.iter().map(line).chain(refused).collect()
}

const NBIRTH: &str = "spBv1.0/plant/NBIRTH/line";
const DBIRTH: &str = "spBv1.0/plant/DBIRTH/line/motor";
const NDATA: &str = "spBv1.0/plant/NDATA/line";
const DDATA: &str = "spBv1.0/plant/DDATA/line/motor";
const NDEATH: &str = "spBv1.0/plant/NDEATH/line";
const DDEATH: &str = "spBv1.0/plant/DDEATH/line/motor";

const NODE: &str = "sparkplug,device=line,edge=line,group=plant";
const MOTOR: &str = "sparkplug,device=motor,edge=line,group=plant";

#[test]
fn a_node_is_born_measures_by_alias_and_dies_with_its_devices() {
    let mut gateway = Gateway::new();
    let line = |series: &str, fields: &str, number| format!("{series} {fields} {}000000", at_ms(number));
    assert_eq!(gateway.quiet(NBIRTH, &birth(0, 7, 0)), [line(NODE, "t=20.0,online=true", 0)]);
    assert_eq!(gateway.quiet(DBIRTH, &birth(1, 7, 1)), [line(MOTOR, "t=20.0,online=true", 1)]);
    assert_eq!(gateway.quiet(NDATA, &data(2, 1, 21.5, 2)), [line(NODE, "t=21.5", 2)]);
    assert_eq!(gateway.quiet(DDATA, &data(3, 1, 22.5, 3)), [line(MOTOR, "t=22.5", 3)]);
    assert_eq!(gateway.quiet(NDEATH, &death(6, None)), ["aside: it is the death of an earlier session"]);
    // A will was written before the birth.
    let dead = [format!("{NODE} online=false"), format!("{MOTOR} online=false")];
    assert_eq!(gateway.quiet(NDEATH, &death(7, Some(at_ms(0)))), dead);
    assert_eq!(gateway.quiet(NDEATH, &death(7, None)), dead, "the same again if it comes again");
    let dead = [line(NODE, "online=false", 9), line(MOTOR, "online=false", 9)];
    assert_eq!(gateway.quiet(NDEATH, &death(7, Some(at_ms(9)))), dead);
    let (lines, command) = gateway.hear(NDATA, &data(4, 1, 21.5, 4), false);
    assert!(
        lines[0].starts_with("1 of line: the alias 1 of plant/line stands for a metric that only a birth")
    );
    assert!(command.is_some());
}

#[test]
fn a_device_dies_alone() {
    let mut gateway = Gateway::born();
    let payload = encode(&Payload { timestamp: Some(at_ms(2)), seq: Some(2), ..Payload::default() });
    assert_eq!(gateway.quiet(DDEATH, &payload), [format!("{MOTOR} online=false {}000000", at_ms(2))]);
    assert_eq!(gateway.quiet(NDATA, &data(3, 1, 1.0, 3)).len(), 1);
    assert!(gateway.asks(DDATA, &data(4, 1, 1.0, 4)).contains("no birth of it, or of its device"));
    assert_eq!(
        gateway.quiet(NDEATH, &death(7, None)),
        [format!("{NODE} online=false")],
        "it is dead already"
    );
    assert_eq!(Gateway::new().quiet(NDEATH, &death(7, None)), [format!("{NODE} online=false")]);
}

#[test]
fn a_missing_message_and_a_missing_birth_are_asked_for_at_most_every_ten_seconds() {
    let mut gateway = Gateway::born();
    let (lines, command) = gateway.hear(NDATA, &data(4, 1, 1.0, 4), false);
    assert_eq!(lines.len(), 1, "what the birth has named is stored all the same");
    let command = command.unwrap();
    assert_eq!((command.topic.as_str(), command.payload), ("spBv1.0/plant/NCMD/line", rebirth(1)));
    assert_eq!(
        command.why,
        "plant/line is asked for its births: a message is missing: number 2 was to come, and 4 came"
    );
    assert_eq!(gateway.asks(NDATA, &data(9, 1, 1.0, 5)), "");
    gateway.now_ms += ASK_EVERY_MS;
    assert!(
        gateway.asks(NDATA, &data(10, 1, 1.0, 6)).contains("number 5 was to come"),
        "it is not forgotten"
    );
    gateway.now_ms += ASK_EVERY_MS;
    gateway.quiet(NDATA, &data(11, 1, 1.0, 7));
    gateway.quiet(NBIRTH, &birth(0, 7, 8));
    assert!(gateway.asks(NDATA, &data(1, 5, 1.0, 9)).contains("metrics that its birth does not have"));
}

#[test]
fn the_count_goes_on_at_0_behind_255_and_repetitions_are_no_gap() {
    let mut gateway = Gateway::born();
    for seq in 2..=300 {
        gateway.quiet(NDATA, &data(seq % 256, 1, 1.0, seq));
    }
    for seq in [43, 44, 45] {
        assert_eq!(gateway.hear(NDATA, &data(seq, 1, 1.0, seq), true).1, None);
    }
    gateway.quiet(NDATA, &data(46, 1, 1.0, 302));
    assert_eq!(gateway.hear(NBIRTH, &birth(0, 7, 0), true).1, None);
    assert_eq!(gateway.hear(DBIRTH, &birth(1, 7, 1), true).1, None);
    gateway.quiet(DDATA, &data(2, 1, 1.0, 2));
    assert!(gateway.asks(DDATA, &data(300, 1, 1.0, 3)).contains("number 3 was to come, and 300 came"));
}

#[test]
fn a_message_that_finds_no_room_is_read_again_as_it_was() {
    let mut gateway = Gateway::born();
    let payload = data(2, 1, 1.0, 2);
    let heard = Heard { topic: NDATA, payload: &payload, again: false };
    for _ in 0..3 {
        let reading = gateway.known.read(&layout(), &Naming::default(), &heard);
        assert!(reading.effect.is_some_and(|effect| effect.wanted.is_none()));
    }
    gateway.quiet(NDATA, &payload);
}

#[test]
fn no_more_than_twenty_nodes_a_second_are_asked() {
    let mut gateway = Gateway::new();
    let mut asked = |now_ms, nodes: std::ops::Range<u32>| {
        gateway.now_ms = now_ms;
        nodes
            .filter(|node| !gateway.asks(&format!("spBv1.0/g/NDATA/{node}"), &data(0, 1, 1.0, 0)).is_empty())
            .count()
    };
    assert_eq!((asked(0, 0..30), asked(1_000, 0..30)), (20, 10));
    assert_eq!(asked(ASK_EVERY_MS, 0..30), 20);
    assert!(gateway.known.asked.at_ms.len() <= 30 && gateway.known.nodes.is_empty());
}

#[test]
fn what_births_told_outlives_the_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sparkplug/12345678");
    let reporter = Reporter::new("broker".to_owned(), Stats::new(0).source("broker"));
    let mut gateway = Gateway { known: Sparkplug::open(file.clone()), now_ms: 5 };
    gateway.quiet(NBIRTH, &birth(0, 7, 0));
    gateway.quiet(DBIRTH, &birth(1, 7, 1));
    assert_eq!(gateway.known.tend(5, &reporter), Some(5 + SAVE_AFTER_MS));
    assert!(!file.exists());
    assert_eq!(gateway.known.tend(5 + SAVE_AFTER_MS, &reporter), None);

    let mut gateway = Gateway { known: Sparkplug::open(file.clone()), now_ms: 0 };
    let (lines, command) = gateway.hear(DDATA, &data(99, 1, 3.0, 5), false);
    assert_eq!(lines, [format!("{MOTOR} t=3.0 {}000000", at_ms(5))]);
    assert!(
        command.unwrap().why.ends_with("the gateway was not there for a while"),
        "it may have missed a birth"
    );
    gateway.now_ms += ASK_EVERY_MS;
    gateway.quiet(DDATA, &data(100, 1, 3.0, 6));
    let heard = Heard { topic: NDEATH, payload: &death(7, None), again: false };
    let effect = gateway.known.read(&layout(), &Naming::default(), &heard).effect.unwrap();
    gateway.known.settle(effect, Now { monotonic_ms: 9, wall_ms: 9 }, true);
    assert_eq!(gateway.known.tend(9, &reporter), None, "at once, as its ack waits for it");

    let mut gateway = Gateway { known: Sparkplug::open(file.clone()), now_ms: 0 };
    assert!(gateway.asks(NDATA, &data(0, 1, 1.0, 7)).contains("no birth of it"), "the dead stay dead");
    std::fs::write(&file, b"FOREBAYS\x01damaged").unwrap();
    assert!(Sparkplug::open(file).nodes.is_empty());
}

#[test]
fn a_session_that_the_broker_forgot_is_a_lapse() {
    let mut gateway = Gateway::born();
    gateway.known.lapse("the session is gone");
    assert!(gateway.asks(NDATA, &data(2, 1, 1.0, 2)).ends_with("the session is gone"));
    gateway.quiet(NDATA, &data(3, 1, 1.0, 3));
}

#[test]
fn a_file_that_cannot_be_written_is_tried_again() {
    let reporter = Reporter::new("broker".to_owned(), Stats::new(0).source("broker"));
    let file = PathBuf::from("/proc/nowhere/sparkplug/1");
    let mut gateway = Gateway { known: Sparkplug { file: Some(file), ..Sparkplug::default() }, now_ms: 0 };
    gateway.quiet(NBIRTH, &birth(0, 7, 0));
    assert_eq!(gateway.known.tend(2_000, &reporter), Some(2_000 + SAVE_AGAIN_MS));
    assert!(reporter.stats().report().last_error.is_some_and(|told| told.contains("after a restart births")));
    assert_eq!(gateway.known.tend(u64::MAX, &reporter), Some(u64::MAX));
}

#[test]
fn nodes_devices_and_names_beyond_the_limits_are_refused_by_name() {
    let mut gateway = Gateway::born();
    for number in 1..NODES_MAX {
        gateway.quiet(&format!("spBv1.0/g/NBIRTH/{number}"), &birth(0, 0, 0));
    }
    let told = gateway.quiet("spBv1.0/g/NBIRTH/more", &birth(0, 0, 0));
    assert!(told[0].starts_with("sparkplug,device=more"), "its values are stored");
    assert!(
        told[1].starts_with("1 of more: the birth of g/more is not kept: 4096 edge nodes"),
        "{}",
        told[1]
    );
    gateway.quiet("spBv1.0/g/NDEATH/5", &death(0, None));
    assert_eq!(gateway.quiet("spBv1.0/g/NBIRTH/more", &birth(0, 0, 0)).len(), 1);
    assert_eq!(gateway.known.nodes.len(), NODES_MAX);

    for number in 1..DEVICES_MAX {
        gateway.hear(&format!("{DBIRTH}{number}"), &birth(1, 7, 1), true);
    }
    gateway.hear(&format!("{DDEATH}1"), b"", true);
    assert_eq!(gateway.hear(&format!("{DBIRTH}-new"), &birth(1, 7, 1), true).0.len(), 1, "for a dead one");
    let told = gateway.hear(&format!("{DBIRTH}-more"), &birth(1, 7, 1), true).0;
    assert!(
        told[1].starts_with("1 of motor-more: the birth of plant/line/motor-more is not kept"),
        "{}",
        told[1]
    );
}

#[test]
fn births_beyond_the_limit_in_bytes_are_refused_and_the_old_ones_do_not_stand() {
    let mut gateway = Gateway::born();
    let names: Vec<String> = (0..4_000).map(|n| format!("{n:0>1000}")).collect();
    let metrics =
        || names.iter().zip(10..).map(|(name, alias)| metric(&**name, alias, Raw::Boolean(true))).collect();
    let large = encode(&Payload { seq: Some(0), metrics: metrics(), ..Payload::default() });
    assert!(large.len() > MAX_PAYLOAD_BYTES && gateway.quiet(NBIRTH, &large)[0].contains("bytes of payload"));
    let large = encode(&Payload { seq: Some(0), metrics: metrics().split_off(3_020), ..Payload::default() });
    let mut told = Vec::new();
    for number in 0..9 {
        told = gateway.quiet(&format!("spBv1.0/g/NBIRTH/{number}"), &large);
    }
    let refused = told.pop().unwrap();
    assert!(refused.contains("is not kept: all births together are limited to 16777216 bytes"), "{refused}");
    let told = gateway.quiet(NBIRTH, &large).pop().unwrap();
    assert!(told.contains("the birth of plant/line is not kept"), "{told}");
    assert!(gateway.hear(NDATA, &data(1, 1, 1.0, 2), false).0[0].contains("only a birth could tell"));
}

#[test]
fn what_is_none_of_it_is_refused_or_put_aside() {
    let mut gateway = Gateway::born();
    assert_eq!(gateway.quiet("spBv1.0/STATE/host", b"{}"), ["aside: it is the state of a host application"]);
    assert!(gateway.quiet("spBv1.0/plant/NCMD/line", b"\xff")[0].starts_with("aside: "));
    assert!(gateway.quiet("spBv1.0/plant/X/line", b"")[0].starts_with("1 of (unknown): "));
    assert!(gateway.quiet(NDATA, b"\xff")[0].starts_with("1 of line: no payload of Sparkplug B"));
    let nothing = encode(&Payload { seq: Some(2), ..Payload::default() });
    assert!(gateway.quiet(NDATA, &nothing)[0].starts_with("aside: it has no reading"));
    gateway.quiet(NDATA, &data(3, 1, 1.0, 3));
}

proptest! {
    #[test]
    fn no_messages_panic(
        messages in proptest::collection::vec((0..6_usize, any::<bool>(), any::<u8>(), 0..60_usize, any::<u8>()), 0..12),
    ) {
        let mut gateway = Gateway::new();
        for (topic, again, seq, at, byte) in messages {
            let topic = [NBIRTH, DBIRTH, NDATA, DDATA, NDEATH, DDEATH][topic];
            let mut payload = birth(u64::from(seq), u64::from(byte), 0);
            if let Some(place) = payload.get_mut(at) {
                *place = byte;
            }
            gateway.hear(topic, &payload, again);
        }
    }
}
