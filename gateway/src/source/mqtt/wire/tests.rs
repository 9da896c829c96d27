use proptest::prelude::*;

use super::super::fuzzing::heard;
use super::*;

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V3, MqttVersion::V5];

/// A PUBLISH at QoS 1 as a broker writes it.
fn publish(version: MqttVersion, packet: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend(packet.to_be_bytes());
    if version == MqttVersion::V5 {
        body.push(0);
    }
    body.extend(payload);
    framed(0x32, &body)
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let more = if rest > 0x7f { 0x80 } else { 0 };
        bytes.push((rest & 0x7f) as u8 | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

#[test]
fn a_message_is_read_however_its_bytes_come() {
    for version in VERSIONS {
        let mut bytes = publish(version, 7, "a/b", b"21.5");
        bytes.extend(publish(version, 8, "c", b""));
        for piece in 1..bytes.len() {
            let (told, _) = heard(version, &bytes, piece);
            assert_eq!(told, ["a/b #7 4/4 None", "c #8 0/0 None"], "{version} in pieces of {piece}");
        }
    }
}

#[test]
fn flags_and_properties_are_understood() {
    let mut decoder = Decoder::new(MqttVersion::V5);
    let mut body = vec![0, 1, b't', 1, 2];
    // A user property, which says nothing to the gateway.
    body.extend([7, 0x26, 0, 1, b'k', 0, 1, b'v', b'!']);
    decoder.bytes.extend_from_slice(&framed(0x3b, &body));
    let Some(Incoming::Message(message)) = decoder.next().unwrap() else { panic!("no message") };
    assert_eq!((message.topic, message.payload, message.packet), ("t", &b"!"[..], 0x0102));
    assert_eq!((message.qos, message.again, message.retained), (QoS::AtLeastOnce, true, true));
    assert_eq!(message.fault, None);
}

#[test]
fn a_message_that_is_too_large_is_cut_and_its_neighbours_are_whole() {
    for version in VERSIONS {
        let mut bytes = publish(version, 1, "before", b"1");
        bytes.extend(publish(version, 2, "large", &vec![b'x'; PACKET_BYTES_MAX + 1]));
        bytes.extend(publish(version, 3, "behind", b"3"));
        for piece in [4_093, 65_536] {
            let (told, most) = heard(version, &bytes, piece);
            let large = format!("large #2 {INTAKE_BODY_BYTES_MAX}/{} Some(TooLarge)", PACKET_BYTES_MAX + 1);
            assert_eq!(told, ["before #1 1/1 None", &large, "behind #3 1/1 None"]);
            assert!(most < HEAD_BYTES + 2 * piece, "{most} bytes were held");
        }
        let whole = publish(version, 4, "t", &vec![b'x'; MAX_PAYLOAD_BYTES]);
        let (told, _) = heard(version, &whole, 65_536);
        assert_eq!(told, [format!("t #4 {MAX_PAYLOAD_BYTES}/{MAX_PAYLOAD_BYTES} None")]);
    }
}

#[test]
fn a_malformed_message_is_told_of_and_can_be_acked() {
    let malformed = [
        (framed(0x32, &[]), "#0", "it ends before its payload"),
        (framed(0x32, &[0, 9, b't']), "#0", "its topic is longer than it is itself"),
        (framed(0x32, &[0, 1, 0xff, 0, 5, 0]), "#5", "its topic is not UTF-8"),
        (framed(0x32, &[0, 1, b't', 0, 0, 0]), "t #0", "its packet id is 0"),
        (framed(0x36, &[0, 1, b't', 0, 5, 0]), "t #5", "QoS 3"),
        (framed(0x32, &[0, 0, 0, 5, 0]), "#5", "it has no topic"),
    ];
    for version in VERSIONS {
        for (bytes, who, why) in &malformed {
            let bytes = [bytes.clone(), publish(version, 6, "behind", b"1")].concat();
            let (told, _) = heard(version, &bytes, 3);
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[0].contains(who) && told[0].contains(why), "{told:?}");
            assert_eq!(told[1], "behind #6 1/1 None");
        }
    }
    let (told, _) = heard(MqttVersion::V5, &framed(0x32, &[0, 1, b't', 0, 5, 9, 0]), 64);
    assert!(told[0].contains("#5") && told[0].contains("properties are longer"), "{told:?}");
}

#[test]
fn only_a_length_without_an_end_ends_the_connection() {
    for version in VERSIONS {
        let mut bytes = publish(version, 1, "before", b"1");
        bytes.extend([0x32, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        bytes.extend(publish(version, 2, "behind", b"1"));
        let (told, _) = heard(version, &bytes, 5);
        assert_eq!(told.len(), 2);
        assert!(told[1].contains("more than four bytes"), "{told:?}");
        let (told, _) = heard(version, &framed(0x90, &vec![0; ANSWER_BYTES_MAX + 1]), 1_000);
        assert!(told[0].contains("packet of type 9 with 65537 bytes"), "{told:?}");
    }
}

#[test]
fn the_brokers_own_words_are_understood() {
    let welcome = |session_present, keep_alive_s| {
        format!("{:?}", Incoming::Welcome(Welcome { session_present, keep_alive_s }))
    };
    let cases: [(MqttVersion, &[u8], String); 10] = [
        (MqttVersion::V3, &[0x20, 2, 1, 0], welcome(true, None)),
        (MqttVersion::V5, &[0x20, 3, 0, 0, 0], welcome(false, None)),
        (MqttVersion::V5, &[0x20, 6, 0, 0, 3, 19, 0, 20], welcome(false, Some(20))),
        (MqttVersion::V3, &[0x90, 4, 0, 1, 1, 0x80], "Granted { subscriptions: 2, refused: 1 }".to_owned()),
        (
            MqttVersion::V5,
            &[0x90, 5, 0, 1, 0, 1, 0x87],
            "Granted { subscriptions: 2, refused: 1 }".to_owned(),
        ),
        (MqttVersion::V3, &[0xd0, 0], "Pong".to_owned()),
        (MqttVersion::V5, &[0x62, 2, 1, 2], "Release(258)".to_owned()),
        (MqttVersion::V5, &[0xe0, 1, 0x8e], "Farewell(\"SessionTakenOver\")".to_owned()),
        (MqttVersion::V5, &[0xe0, 0], "Farewell(\"NormalDisconnection\")".to_owned()),
        (MqttVersion::V3, &[0x40, 2, 0, 1], "Receipt".to_owned()),
    ];
    for (version, bytes, expected) in cases {
        assert_eq!(heard(version, bytes, 1).0, [expected]);
    }
    let refused = [
        (MqttVersion::V3, &[0x20, 2, 0, 4][..], "mqtt.password_file"),
        (MqttVersion::V5, &[0x20, 3, 0, 0x87, 0], "mqtt.password_file"),
        (MqttVersion::V3, &[0x20, 2, 0, 1], "mqtt.version"),
        (MqttVersion::V5, &[0x20, 3, 0, 0x97, 0], "QuotaExceeded"),
        (MqttVersion::V3, &[0x20, 2, 0, 9], "not MQTT 3.1.1"),
    ];
    for (version, bytes, expected) in refused {
        let (told, _) = heard(version, bytes, 64);
        assert!(told.last().unwrap().contains(expected), "{told:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_or_are_kept(bytes in proptest::collection::vec(any::<u8>(), 0..512), piece in 1usize..64) {
        for version in VERSIONS {
            heard(version, &bytes, piece);
        }
    }
}
