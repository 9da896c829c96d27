//! What a format needs, and what it cannot have.

use super::*;

#[test]
fn faults_of_formats() {
    let json = "topic = \"s/{device}\"\nformat = \"json\"\nmeasurement = \"m\"\n";
    let senml = "topic = \"s\"\nformat = \"senml\"\nmeasurement = \"m\"\n";
    let sparkplug = |topic: &str| format!("topic = \"{topic}\"\nformat = \"sparkplug\"\n");
    let forms = "write \"spBv1.0/#\", \"spBv1.0/group/#\" or \"spBv1.0/group/+/node/#\"";
    let value = "topic = \"s/{device}\"\nformat = \"value\"\nmeasurement = \"m\"\n";
    let shelly = "topic = \"s/{device}/{path#}\"\nformat = \"shelly\"\n";
    let tasmota = "topic = \"s/{device}\"\nformat = \"tasmota\"\n";
    for (text, expected) in [
        (
            format!("{json}reading = \"$.a\""),
            "7: mqtt.subscribe.reading: unknown key; did you mean `readings`?",
        ),
        (
            format!("{json}readings = \"a\""),
            "7: mqtt.subscribe.readings: \"a\" does not begin with \"$\"; paths are written \"$.a.b[0]\"",
        ),
        (
            format!("{json}field = \"t\""),
            "7: mqtt.subscribe.field: JSON names its fields itself; remove the key, or use `rename`",
        ),
        (
            format!("{json}numbers_in_text = 1"),
            "7: mqtt.subscribe.numbers_in_text: is a number; it takes true, false or a list of texts",
        ),
        (
            format!("{json}numbers_in_text = [\"\"]"),
            "7: mqtt.subscribe.numbers_in_text: \"\" is no field; nested names are joined by \"_\": \"a_b\"",
        ),
        (
            format!("{json}text_fields = [\"a\"]\nnumbers_in_text = [\"a\"]"),
            "8: mqtt.subscribe.numbers_in_text: \"a\" is in `text_fields` too; remove one",
        ),
        (format!("{json}drop = \"a\""), "7: mqtt.subscribe.drop: is a text; it takes a list of texts"),
        (format!("{json}drop = [\"a\", \"a\"]"), "7: mqtt.subscribe.drop: lists \"a\" twice; remove one"),
        (
            format!("{json}drop = [\"a\"]\nrename.a = \"b\""),
            "7: mqtt.subscribe.drop: \"a\" is renamed by `rename` too; remove one",
        ),
        (
            format!("{json}rename = [\"a\"]"),
            "7: mqtt.subscribe.rename: is a list; it takes a table: write [mqtt.subscribe.rename]",
        ),
        (format!("{json}rename.a = 1"), "7: mqtt.subscribe.rename.a: is a number; it takes a text"),
        (format!("{json}rename.a = \"a\""), "7: mqtt.subscribe.rename.a: is renamed to itself; remove it"),
        (
            format!("{json}rename.a = \"\""),
            "7: mqtt.subscribe.rename.a: \"\" is no name of a field; write for example \"temperature\"",
        ),
        (
            format!("{json}rename.\"$.a\" = \"b\""),
            "7: mqtt.subscribe.rename.$.a: \"$.a\" is no field; nested names are joined by \"_\": \"a_b\"",
        ),
        (
            "topic = \"s/#\"\nformat = \"line-protocol\"\nreadings = \"$.a\"".to_owned(),
            "6: mqtt.subscribe.readings: line protocol brings this itself; remove the key",
        ),
        (
            format!("{senml}readings = \"$.a\""),
            "7: mqtt.subscribe.readings: SenML has no paths and no numbers in text; remove the key",
        ),
        (
            format!("{senml}timestamp = \"$.a\""),
            "7: mqtt.subscribe.timestamp: SenML brings this itself; remove the key",
        ),
        (
            format!("{senml}device = \"$.a\""),
            "7: mqtt.subscribe.device: SenML has no paths; name a level of the topic {device}, or write a text",
        ),
        (
            "topic = \"s\"\nformat = \"senml\"".to_owned(),
            "3: mqtt.subscribe.measurement: is missing, and SenML without one is no point; name a level of the topic \
             {measurement}, or write `measurement` as a text",
        ),
        (
            sparkplug("$share/g/spBv1.0/#"),
            &*format!(
                "4: mqtt.subscribe.topic: is shared, so that births would go to one member and what they explain to another; \
                 {forms}"
            ),
        ),
        (
            sparkplug("spBv1.0/plant/NDATA/#"),
            &*format!(
                "4: mqtt.subscribe.topic: leaves out messages of an edge node that the others cannot be understood without; \
                 {forms}"
            ),
        ),
        (sparkplug("plant/#"), &*format!("4: mqtt.subscribe.topic: is no topic of Sparkplug B; {forms}")),
        (
            sparkplug("spBv1.0/{plant}/#"),
            "4: mqtt.subscribe.topic: names levels, which Sparkplug names itself: they become the tags `group`, `edge` and \
             `device`; write \"+\"",
        ),
        (
            sparkplug("spBv1.0/#") + "device = \"a\"",
            "6: mqtt.subscribe.device: Sparkplug brings this itself; remove the key",
        ),
        (
            sparkplug("spBv1.0/#") + "tags_from = [\"$.a\"]",
            "6: mqtt.subscribe.tags_from: Sparkplug has no paths and no numbers in text; remove the key",
        ),
        (
            sparkplug("spBv1.0/#") + "retained = \"store\"",
            "6: mqtt.subscribe.retained: Sparkplug retains no reading; remove the key",
        ),
        (
            format!("{value}timestamp_format = \"s\""),
            "7: mqtt.subscribe.timestamp_format: a plain value has no time; remove the key",
        ),
        (
            format!("{value}tags_from = [\"$.a\"]"),
            "7: mqtt.subscribe.tags_from: a plain value has no paths, and a number in it is one; remove the key",
        ),
        (
            "topic = \"s\"\nformat = \"value\"\nmeasurement = \"m\"".to_owned(),
            "3: mqtt.subscribe.device: is missing, and a plain value without one is no point; name a level of the topic \
             {device}, or write `device` as a text",
        ),
        (
            format!("{shelly}timestamp = \"$.ts\""),
            "6: mqtt.subscribe.timestamp: this format finds times itself; remove the key",
        ),
        (
            format!("{shelly}readings = \"$.ts\""),
            "6: mqtt.subscribe.readings: this format has no paths; remove the key",
        ),
        (
            format!("{tasmota}timestamp = \"$.Time\""),
            "3: mqtt.subscribe.timestamp_format: is missing beside `timestamp`; write s, ms, us, ns or rfc3339",
        ),
        (
            format!("{tasmota}readings = \"$.a\""),
            "6: mqtt.subscribe.readings: a message of this format is one row; remove the key",
        ),
        (
            "topic = \"s/+\"\nformat = \"zigbee2mqtt\"".to_owned(),
            "3: mqtt.subscribe.device: is missing, and a message without one is no point; name a level of the topic {device}, \
             or write `device` as a text",
        ),
        (
            "topic = \"{device}/sensor/+/state\"\nformat = \"esphome\"".to_owned(),
            "3: mqtt.subscribe.field: is missing, so that all entities would be one field; name a level of the topic {field}, or \
             write `field`",
        ),
        (
            "topic = \"s\"\nformat = \"csv\"".to_owned(),
            "5: mqtt.subscribe.format: \"csv\" is for lines on a serial port; use \"json\", \"line-protocol\", \"senml\", \
             \"sparkplug\", \"value\", or for devices of one make \"tasmota\", \"zigbee2mqtt\", \"shelly\", \"esphome\", \"homeassistant\"",
        ),
    ] {
        let text = format!("[[mqtt]]\nurl = \"mqtt://a\"\n[[mqtt.subscribe]]\n{text}");
        bad(&text, &format!("forebay.toml:{expected}"));
    }
    bad(
        "[[serial]]\nport = \"/dev/a\"\ndrop = [\"a\"]",
        "forebay.toml:3: serial.drop: native devices bring this themselves; write `format`, or remove the key",
    );
    bad(
        "[[serial]]\nport = \"/dev/a\"\nformat = \"csv\"\ndevice = \"d\"\nmeasurement = \"m\"\ncolumns = [\"a\"]\nrename.b = \"c\"",
        "forebay.toml:7: serial.rename: \"b\" is none of `columns`; add it there",
    );
}
