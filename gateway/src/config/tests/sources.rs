//! Brokers, subscriptions and ports.

use super::*;

#[test]
fn faults_of_brokers() {
    for (text, expected) in [
        ("native = true", "1: mqtt.url: is missing; write `url = \"mqtt://host:1883\"`"),
        (
            "url = \"127.0.0.1:1883\"",
            "2: mqtt.url: \"127.0.0.1:1883\" has no scheme; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"tcp://a:1\"",
            "2: mqtt.url: tcp:// is written mqtt:// here; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"ssl://a\"",
            "2: mqtt.url: ssl:// is written mqtts:// here; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"ftp://a\"",
            "2: mqtt.url: ftp:// is not supported; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"mqtt://u:p@a\"",
            "2: mqtt.url: holds a user name or password; write `username` and `password_file` instead",
        ),
        (
            "url = \"mqtt://a/b\"",
            "2: mqtt.url: \"mqtt://a/b\" has more than host and port; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"mqtt://\"",
            "2: mqtt.url: \"mqtt://\" names no host; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"mqtt://a:99999\"",
            "2: mqtt.url: \"mqtt://a:99999\" is no URL: invalid port number; write \"mqtt://host:1883\", or \"mqtts://host\" for TLS",
        ),
        (
            "url = \"mqtt://a\"\nversion = 4",
            "3: mqtt.version: 4 is how MQTT 3.1.1 counts itself on the wire; write 3 or 5",
        ),
        (
            "url = \"mqtts://a\"\nca_file = \"/dev/null\"",
            "3: mqtt.ca_file: /dev/null holds no certificate; it takes certificates as PEM",
        ),
        (
            "url = \"mqtts://a\"\nca_file = \"/nowhere\"",
            "3: mqtt.ca_file: /nowhere cannot be read: I/O error: No such file or directory (os error 2); it takes certificates as PEM",
        ),
        (
            "url = \"mqtts://a\"\nclient_key_file = \"x\"",
            "3: mqtt.client_key_file: is given without its certificate; add `client_cert_file`",
        ),
        (
            "url = \"mqtt://a\"\nca_file = \"x\"",
            "3: mqtt.ca_file: has a meaning only with TLS; write `url = \"mqtts://…\"`",
        ),
        (
            "url = \"mqtt://a\"\nclient_id = \"\"",
            "3: mqtt.client_id: takes 1 to 64 bytes of plain text; the broker keeps the session under this name",
        ),
        (
            "url = \"mqtt://a\"\nnative_prefix = \"a/\"",
            "3: mqtt.native_prefix: \"a/\" begins with \"/\" or \"$\" or ends in \"/\"; write \"forebay/v1\"",
        ),
        (
            "url = \"mqtt://a\"\nnative = false",
            "3: mqtt.native: nothing is taken from this broker; set native = true or add [[mqtt.subscribe]]",
        ),
        ("url = \"mqtt://a\"\nclientid = \"x\"", "3: mqtt.clientid: unknown key; did you mean `client_id`?"),
        (
            "url = \"mqtt://a\"\npassword = \"x\"\nusername = \"x\"",
            "3: mqtt.password: a secret does not belong into the configuration; put it into a file and write \
             `password_file`, or write \"${VARIABLE}\"",
        ),
        (
            "url = \"mqtt://a\"\nusername = \"x\"\npassword = \"${EMPTY}\"",
            "4: mqtt.password: the variable is empty; set it for the service",
        ),
        (
            "url = \"mqtt://a\"\n[[mqtt]]\nurl = \"mqtt://a:1883\"",
            "4: mqtt.url: mqtt://a:1883 is configured twice; put all [[mqtt.subscribe]] below one [[mqtt]]",
        ),
        (
            "url = \"mqtt://a\"\ntopics = []",
            "3: mqtt.topics: unknown key; Telegraf's `topics` is `topic` here, one [[mqtt.subscribe]] for each",
        ),
    ] {
        bad(&format!("[[mqtt]]\n{text}"), &format!("forebay.toml:{expected}"));
    }
}

#[test]
fn faults_of_subscriptions() {
    let json = "topic = \"s/{device}\"\nformat = \"json\"\nmeasurement = \"m\"\n";
    let lines = "topic = \"s/#\"\nformat = \"line-protocol\"\n";
    let twice = "[[mqtt.subscribe]]\ntopic = \"+/x\"\nformat = \"line-protocol\"\n";
    for (text, expected) in [
        (
            "format = \"line-protocol\"",
            "3: mqtt.subscribe.topic: is missing; write for example `topic = \"sensors/{device}/{room}\"`",
        ),
        (
            "topic = \"a\"",
            "3: mqtt.subscribe.format: is missing; write `format = \"json\"`, another format or the name of a preset",
        ),
        (
            "topic = \"a\"\ndata_format = \"json\"\nformat = \"line-protocol\"",
            "5: mqtt.subscribe.data_format: unknown key; Telegraf's `data_format` is `format` here",
        ),
        (
            "topic = \"a\"\nformat = \"influx\"",
            "5: mqtt.subscribe.format: Telegraf's \"influx\" is \"line-protocol\" here",
        ),
        (
            "topic = \"a\"\nformat = \"xml\"",
            "5: mqtt.subscribe.format: \"xml\" is no format; use \"json\", \"line-protocol\", \"senml\", \"sparkplug\", \
             \"value\", or for devices of one make \"tasmota\", \"zigbee2mqtt\", \"shelly\", \"esphome\", \"homeassistant\"",
        ),
        (
            "topic = \"a/{device}\"\nformat = \"json\"",
            "3: mqtt.subscribe.measurement: is missing, and JSON without one is no point; name a level of the topic \
             {measurement}, or write `measurement` as a text or a path \"$.type\"",
        ),
        (
            "topic = \"a\"\nformat = \"json\"\nmeasurement = \"m\"",
            "3: mqtt.subscribe.device: is missing, and JSON without one is no point; name a level of the topic \
             {device}, or write `device` as a text or a path \"$.id\"",
        ),
        (
            "topic = \"a/#/b\"\nformat = \"line-protocol\"",
            "4: mqtt.subscribe.topic: has \"#\" before its end; \"#\" stands for all further levels and comes last",
        ),
        (
            "topic = \"a/{time}\"\nformat = \"line-protocol\"",
            "4: mqtt.subscribe.topic: the tag \"time\" is reserved by InfluxDB; choose another name",
        ),
        (
            "topic = \"forebay/#\"\nformat = \"line-protocol\"",
            "4: mqtt.subscribe.topic: matches the topics of native devices; narrow it, or set native = false",
        ),
        (
            &format!("{lines}{twice}"),
            "7: mqtt.subscribe.topic: matches topics that \"s/#\" matches too; narrow one of them, or a message may \
             be taken twice",
        ),
        (
            &format!("{json}timestamp = \"$.time\""),
            "3: mqtt.subscribe.timestamp_format: is missing beside `timestamp`; write s, ms, us, ns or rfc3339",
        ),
        (
            &format!("{json}timestamp_format = \"s\""),
            "7: mqtt.subscribe.timestamp_format: does nothing without `timestamp`; add it or remove this",
        ),
        (
            &format!("{json}timestamp_format = \"s\"\ntimestamp = \"time\""),
            "8: mqtt.subscribe.timestamp: \"time\" does not begin with \"$\"; paths are written \"$.a.b[0]\"",
        ),
        (
            &format!("{json}device = \"$..id\""),
            "7: mqtt.subscribe.device: \"$..id\" has an empty name; paths are written \"$.a.b[0]\"",
        ),
        (
            &format!("{json}tags_from = [\"$[0]\"]"),
            "7: mqtt.subscribe.tags_from: \"$[0]\" has no name that the tag could take; end it in one",
        ),
        (
            &format!("{json}tags_from = [\"$.device\"]"),
            "7: mqtt.subscribe.tags_from: \"$.device\" would be the tag `device`; write `device = \"$.device\"`",
        ),
        (
            &format!("{json}tags_from = [\"$.a.x\", \"$.b.x\"]"),
            "7: mqtt.subscribe.tags_from: the tag \"x\" comes from two places; remove one",
        ),
        (
            &format!("{json}integer_fields = [\"a\"]\ntext_fields = [\"a\"]"),
            "8: mqtt.subscribe.text_fields: \"a\" is in `integer_fields` too; remove one",
        ),
        (
            &format!("{json}text_fields = [1]"),
            "7: mqtt.subscribe.text_fields: is a number; it takes a list of texts",
        ),
        (
            &format!("{json}integer_fields = [\"$.a\"]"),
            "7: mqtt.subscribe.integer_fields: \"$.a\" is no field; nested names are joined by \"_\": \"a_b\"",
        ),
        (
            &format!("{json}retained = \"yes\""),
            "7: mqtt.subscribe.retained: \"yes\" is not one of \"skip\", \"store\"",
        ),
        (
            &format!("{lines}measurement = \"m\""),
            "6: mqtt.subscribe.measurement: line protocol brings this itself; remove the key",
        ),
        (
            &format!("{lines}device = \"$.a\""),
            "6: mqtt.subscribe.device: line protocol has no paths; name a level of the topic {device}, or write a text",
        ),
        (
            &format!("{lines}timestamp_format = \"rfc3339\""),
            "6: mqtt.subscribe.timestamp_format: timestamps of line protocol are numbers; write s, ms, us or ns",
        ),
    ] {
        let text = format!("[[mqtt]]\nurl = \"mqtt://a\"\n[[mqtt.subscribe]]\n{text}");
        bad(&text, &format!("forebay.toml:{expected}"));
    }
}

/// The layout of a subscription with these lines.
fn subscription(text: &str) -> Layout {
    let mut config = good(&format!("[[mqtt]]\nurl = \"mqtt://a\"\n[[mqtt.subscribe]]\n{text}"));
    config.mqtt.remove(0).subscribe.remove(0).layout
}

#[test]
fn what_becomes_of_a_payload_is_configured() {
    let layout = subscription(
        "topic = \"s/{device}\"\nformat = \"json\"\nmeasurement = \"m\"\nreadings = \"$.list\"\nnumbers_in_text = true\n\
         drop = [\"b\", \"a\"]\n[mqtt.subscribe.rename]\nold = \"new\"\n\"a_b\" = \"c d\"\n",
    );
    assert_eq!(layout.readings, Some(JsonPath::parse("$.list").unwrap()));
    assert_eq!(layout.numbers_in_text, NumbersInText::Always);
    assert_eq!(layout.drop.iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(layout.rename["old"], "new");
    assert_eq!(layout.rename["a_b"], "c d");
    let layout = subscription(
        "topic = \"s/{device}\"\nformat = \"json\"\nmeasurement = \"m\"\nreadings = \"$\"\nnumbers_in_text = [\"t\"]",
    );
    assert_eq!(layout.readings, Some(JsonPath { steps: Vec::new() }));
    assert_eq!(layout.numbers_in_text, NumbersInText::Of(vec!["t".to_owned()]));
    let layout =
        subscription("topic = \"s/{device}\"\nformat = \"value\"\nmeasurement = \"m\"\nfield = \"t\"");
    assert_eq!((layout.format, layout.field.as_deref()), (Format::Value, Some("t")));
    let layout =
        subscription("topic = \"s\"\nformat = \"senml\"\nmeasurement = \"m\"\ntext_fields = [\"t\"]");
    assert_eq!((layout.format, layout.device), (Format::Senml, None));
}

#[test]
fn a_preset_needs_a_topic_and_its_name() {
    let fixed = |text: &str| Some(Selector::Fixed(text.to_owned()));
    for (preset, topic) in Preset::ALL.into_iter().zip([
        "a/{device}",
        "a/{device#}",
        "a/{device}",
        "{device}/sensor/{field}",
        "a/{device}",
    ]) {
        let layout = subscription(&format!("topic = \"{topic}\"\nformat = \"{}\"", preset.name()));
        assert_eq!((layout.format, layout.measurement), (Format::Preset(preset), fixed(preset.name())));
    }
    let layout = subscription("topic = \"a/{device}\"\nformat = \"tasmota\"\nmeasurement = \"power\"");
    assert_eq!(layout.measurement, fixed("power"));
    let layout = subscription("topic = \"a/{measurement}/{device}\"\nformat = \"tasmota\"");
    assert_eq!(layout.measurement, None, "the topic names it");
}

#[test]
fn text_on_a_line_is_read_by_the_keys_of_a_subscription() {
    let text = "[[serial]]\nport = \"/dev/tty*\"\nclaim = \"any\"\nformat = \"csv\"\ndevice = \"$.id\"\n\
                measurement = \"climate\"\ntimestamp = \"$.time\"\ntimestamp_format = \"s\"\n\
                columns = [\"id\", \"time\", \"\", \"t\"]\nseparator = \";\"\ntext_fields = [\"t\"]\n\
                [[serial]]\nport = \"/dev/b\"\nformat = \"line-protocol\"\ntimestamp_format = \"ms\"\n\
                [[serial]]\nusb = \"2e8a:*\"\nformat = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"\n";
    let [any, lines, json] = &good(text).serial[..] else { panic!("three ports") };
    assert_eq!(any.selector, SerialSelector::Any(PortPattern::parse("/dev/tty*").unwrap()));
    let Speech::Text(layout) = &any.speech else { panic!("text") };
    let columns = ["id", "time", "", "t"].map(str::to_owned).to_vec();
    assert_eq!(layout.format, Format::Csv { columns: Some(columns), separator: ';' });
    assert_eq!(layout.timestamp_format, Some(TimestampFormat::Seconds));
    assert_eq!(layout.device, Some(Selector::Path(JsonPath::parse("$.id").unwrap())));
    let Speech::Text(layout) = &lines.speech else { panic!("text") };
    assert_eq!(
        (&layout.format, layout.timestamp_format),
        (&Format::LineProtocol, Some(TimestampFormat::Milliseconds))
    );
    assert!(matches!(&json.speech, Speech::Text(layout) if layout.format == Format::Json));
}

#[test]
fn faults_of_ports() {
    for (text, expected) in [
        (
            "usb = \"2e8a\"",
            "2: serial.usb: \"2e8a\" is no USB identity; write vendor and product as lsusb does: \"2e8a:000a\" or \"2e8a:*\"",
        ),
        (
            "usb = \"2e8a:+00a\"",
            "2: serial.usb: \"2e8a:+00a\" is no USB identity; write vendor and product as lsusb does: \"2e8a:000a\" or \"2e8a:*\"",
        ),
        (
            "port = \"/dev/ttyACM*\"",
            "2: serial.port: \"/dev/ttyACM*\" may be any device; write `usb = \"vendor:product\"` or one path below \
             /dev/serial/by-id, or add `claim = \"any\"` to try them all",
        ),
        ("port = \"COM3\"", "2: serial.port: \"COM3\" is no path; write for example \"/dev/serial/by-id/…\""),
        (
            "port = \"/dev/a\"\nusb = \"2e8a:*\"",
            "3: serial.usb: is given together with `port`; keep one of them",
        ),
        (
            "port = \"/dev/a\"\nclaim = \"all\"",
            "3: serial.claim: \"all\" is not \"any\"; write that to claim every port that `port` matches, or remove it",
        ),
        (
            "usb = \"2e8a:*\"\nclaim = \"any\"",
            "3: serial.claim: does nothing beside `usb`, whose ports are all claimed; remove it",
        ),
        (
            "claim = \"any\"\nport = \"/dev/*/a\"",
            "3: serial.port: \"/dev/*/a\" has a pattern before its last \"/\"; write for example \"/dev/ttyUSB*\"",
        ),
        (
            "port = \"/dev/a\"\nformat = \"xml\"",
            "3: serial.format: \"xml\" is no format; write \"native\", \"json\", \"line-protocol\" or \"csv\"",
        ),
        (
            "port = \"/dev/a\"\nformat = \"json\"\nmeasurement = \"m\"",
            "1: serial.device: is missing, and JSON without one is no point; write `device` as a text or a path \"$.id\"",
        ),
        (
            "port = \"/dev/a\"\nformat = \"csv\"\ndevice = \"d\"",
            "1: serial.measurement: is missing, and a line of CSV without one is no point; write `measurement` as a text \
             or a path \"$.type\"",
        ),
        (
            "port = \"/dev/a\"\nformat = \"line-protocol\"\ndevice = \"$.id\"",
            "4: serial.device: line protocol has no paths; write a text",
        ),
        (
            "port = \"/dev/a\"\nmeasurement = \"m\"",
            "3: serial.measurement: native devices bring this themselves; write `format`, or remove the key",
        ),
        (
            "device = \"/dev/a\"\nport = \"/dev/a\"",
            "2: serial.device: a path is `port`, and native devices name themselves; remove the key",
        ),
        (
            "port = \"/dev/a\"\nformat = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"\nseparator = \";\"",
            "6: serial.separator: belongs to `format = \"csv\"`; write that or remove the key",
        ),
        ("port = \"/dev/a\"\nbaudrate = 9600", "3: serial.baudrate: unknown key; did you mean `baud`?"),
        (
            "port = \"/dev/a\"\ndata_format = \"csv\"",
            "3: serial.data_format: unknown key; Telegraf's `data_format` is `format` here",
        ),
        (
            "usb = \"2e8a:*\"\n[[serial]]\nusb = \"2e8a:000a\"",
            "4: serial.usb: usb:2e8a:* is configured twice; remove one",
        ),
        (
            "port = \"/dev/a\"\n[[serial]]\nport = \"/dev/a\"",
            "4: serial.port: /dev/a is configured twice; remove one",
        ),
    ] {
        bad(&format!("[[serial]]\n{text}"), &format!("forebay.toml:{expected}"));
    }
}
