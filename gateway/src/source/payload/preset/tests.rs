//! Payloads in the shape that each project's documentation shows, and the points that they become.

use super::*;
use crate::config::{Format, Layout, Selector, TopicPattern};
use crate::ingest::identity::Naming;
use crate::record::Row;
use crate::sink::line_protocol::{Dialect, push_row};

fn layout(preset: Preset) -> Layout {
    let measurement = Some(Selector::Fixed(preset.name().to_owned()));
    Layout { measurement, ..Layout::of(Format::Preset(preset)) }
}

/// The lines that a message becomes, or why it becomes none.
fn told(layout: &Layout, pattern: &str, topic: &str, payload: &str) -> Vec<String> {
    let pattern = TopicPattern::parse(pattern).unwrap();
    let captures = pattern.captures(topic).unwrap();
    let parsed = match super::super::read(layout, &Naming::default(), &captures, payload.as_bytes()) {
        Ok(parsed) => parsed,
        Err(Aside(why)) => return vec![format!("aside: {why}")],
    };
    let line = |row: &Row| {
        let mut line = String::new();
        push_row(&mut line, Dialect::V2, row);
        line.trim_end().to_owned()
    };
    let refused = parsed.refused.iter().map(|refusal| format!("refused: {}", refusal.reason));
    parsed.rows.iter().map(line).chain(refused).collect()
}

#[track_caller]
fn check(preset: Preset, pattern: &str, table: &[(&str, &str, &[&str])]) {
    for (topic, payload, expected) in table {
        assert_eq!(told(&layout(preset), pattern, topic, payload), *expected, "{topic} {payload}");
    }
}

const SKIPPED: &str =
    "aside: it has no number and no truth value; text is kept only if listed in `text_fields`";

#[test]
fn tasmota() {
    check(
        Preset::Tasmota,
        "tele/{device}/+",
        &[
            (
                "tele/boiler/SENSOR",
                r#"{"Time":"2021-11-17T17:13:36","DS18B20":{"Id":"05167219F3FF","Temperature":32.3},"TempUnit":"C"}"#,
                &["tasmota,device=boiler DS18B20_Temperature=32.3"],
            ),
            (
                "tele/plug/SENSOR",
                r#"{"Time":"2021-11-17T16:12:22","ENERGY":{"TotalStartTime":"2021-11-17T16:12:22","Total":0.734,
                    "Yesterday":0.000,"Power":0,"Factor":0.00,"Voltage":119,"Current":0.000}}"#,
                &[
                    "tasmota,device=plug ENERGY_Current=0.0,ENERGY_Factor=0.0,ENERGY_Power=0.0,ENERGY_Total=0.734,\
                   ENERGY_Voltage=119.0,ENERGY_Yesterday=0.0",
                ],
            ),
            (
                "tele/plug/STATE",
                r#"{"Time":"2022-01-19T23:59:26","Uptime":"0T00:00:05","UptimeSec":5,"SleepMode":"Dynamic","POWER":"OFF",
                    "Wifi":{"AP":1,"SSId":"net","BSSId":"30:23:03:00:00:00","RSSI":54,"Signal":-73}}"#,
                &[
                    "tasmota,device=plug POWER=false,UptimeSec=5.0,Wifi_AP=1.0,Wifi_RSSI=54.0,Wifi_Signal=-73.0",
                ],
            ),
            ("tele/plug/LWT", "Online", &["aside: it is no JSON object, as the readings of this format are"]),
            ("tele/plug/STATE", "", &["aside: it is empty, which only takes a retained message back"]),
            ("tele/plug/SENSOR", r#"{"Time":"2021-11-17T16:12:22"}"#, &[SKIPPED]),
            (
                "tele/plug/SENSOR",
                "{\"Time\":",
                &["refused: not JSON: EOF while parsing a value at line 1 column 8"],
            ),
        ],
    );
}

#[test]
fn tasmotas_time_counts_where_it_has_a_zone_and_is_configured() {
    let layout = Layout {
        timestamp: Some(crate::config::JsonPath::parse("$.Time").unwrap()),
        timestamp_format: Some(crate::config::TimestampFormat::Rfc3339),
        ..layout(Preset::Tasmota)
    };
    let at = |time: &str| {
        let payload = format!(r#"{{"Time":"{time}","BME280":{{"Humidity":40.5}}}}"#);
        told(&layout, "tele/{device}/SENSOR", "tele/a/SENSOR", &payload)
    };
    assert_eq!(
        at("2023-11-15T00:13:20+02:00"),
        ["tasmota,device=a BME280_Humidity=40.5 1700000000000000000"]
    );
    assert_eq!(
        at("2023-11-15T00:13:20"),
        ["refused: the timestamp 2023-11-15T00:13:20 is not in the format rfc3339"]
    );
}

#[test]
fn zigbee2mqtt() {
    check(
        Preset::Zigbee2mqtt,
        "zigbee2mqtt/{device#}",
        &[
            (
                "zigbee2mqtt/climate",
                r#"{"temperature":27.34,"humidity":44.72,"battery":97,"linkquality":115,"last_seen":"2019-12-14T15:39:01.292Z"}"#,
                &[
                    "zigbee2mqtt,device=climate battery=97.0,humidity=44.72,linkquality=115.0,temperature=27.34",
                ],
            ),
            (
                "zigbee2mqtt/kitchen/floor_light",
                r#"{"state":"ON","brightness":215,"color":{"x":0.3,"y":0.4},"color_mode":"xy",
                    "update":{"state":"idle","installed_version":5,"latest_version":5},"update_available":false,
                    "device":{"networkAddress":5}}"#,
                &[
                    "zigbee2mqtt,device=kitchen/floor_light brightness=215.0,color_x=0.3,color_y=0.4,state=true,\
                   update_available=false",
                ],
            ),
            (
                "zigbee2mqtt/button",
                r#"{"action":"single"}"#,
                &["zigbee2mqtt,device=button action=\"single\""],
            ),
            ("zigbee2mqtt/door", r#"{"contact":false}"#, &["zigbee2mqtt,device=door contact=false"]),
            ("zigbee2mqtt/button", r#"{"action":""}"#, &[SKIPPED]),
            ("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#, &["aside: it is the bridge's own"]),
            (
                "zigbee2mqtt/kitchen/floor_light/availability",
                r#"{"state":"online"}"#,
                &["aside: it tells whether a device is there, which is no reading"],
            ),
            ("zigbee2mqtt/lamp/set", r#"{"brightness":5}"#, &["aside: it is a command to a device"]),
            ("zigbee2mqtt/lamp/set/brightness", "5", &["aside: it is a command to a device"]),
            (
                "zigbee2mqtt/lamp/brightness",
                "5",
                &["aside: it is no JSON object, as the readings of this format are"],
            ),
        ],
    );
}

#[test]
fn shelly_of_the_first_generation() {
    check(
        Preset::Shelly,
        "shellies/{device}/{path#}",
        &[
            ("shellies/plug/relay/0", "on", &["shelly,component=relay:0,device=plug state=true"]),
            ("shellies/plug/relay/0/power", "12.50", &["shelly,component=relay:0,device=plug power=12.5"]),
            ("shellies/plug/relay/0/energy", "1520", &["shelly,component=relay:0,device=plug energy=1520.0"]),
            (
                "shellies/em/emeter/1/total_returned",
                "0.5",
                &["shelly,component=emeter:1,device=em total_returned=0.5"],
            ),
            ("shellies/plug/input/0", "1", &["shelly,component=input:0,device=plug value=1.0"]),
            (
                "shellies/ht/sensor/temperature",
                "21.37",
                &["shelly,component=sensor,device=ht temperature=21.37"],
            ),
            ("shellies/door/sensor/state", "open", &[SKIPPED]),
            ("shellies/plug/temperature", "43.1", &["shelly,device=plug temperature=43.1"]),
            ("shellies/plug/overtemperature", "0", &["shelly,device=plug overtemperature=0.0"]),
            (
                "shellies/plug/ext_temperature/0",
                "21.3",
                &["shelly,component=ext_temperature:0,device=plug value=21.3"],
            ),
            ("shellies/roller/roller/0", "stop", &[SKIPPED]),
            ("shellies/roller/roller/0/pos", "57", &["shelly,component=roller:0,device=roller pos=57.0"]),
            (
                "shellies/plug/temperature_f",
                "109.6",
                &["aside: it repeats in Fahrenheit what another topic says in Celsius"],
            ),
            ("shellies/plug/online", "true", &["aside: it tells of the device, not of what it measures"]),
            ("shellies/plug/announce", "{}", &["aside: it tells of the device, not of what it measures"]),
            ("shellies/plug/relay/0/command", "on", &["aside: it is a command to a device"]),
            (
                "shellies/plug/input_event/0",
                r#"{"event":"S","event_cnt":2}"#,
                &["aside: it is a list or an object, and this format has one value in a message"],
            ),
        ],
    );
}

const SWITCH: &str = r#"{"id":0,"source":"init","output":false,"apower":12.5,"voltage":230.1,
    "aenergy":{"total":1520.25,"by_minute":[1.0,2.0,3.0],"minute_ts":1708179950},"temperature":{"tC":37.7,"tF":99.8}}"#;
const NOTIFY: &str = r#"{"src":"shellyplus1-441793ab3fb4","dst":"shellyplus1-441793ab3fb4/events","method":"NotifyStatus",
    "params":{"ts":1708179956.30,"switch:0":{"id":0,"temperature":{"tC":37.67,"tF":99.81}},"em1:0":{"id":0,"act_power":-1899.8}}}"#;

#[test]
fn shelly_of_later_generations() {
    let switch = [
        "shelly,component=switch:0,device=plug aenergy_total=1520.25,apower=12.5,output=false,temperature_tC=37.7,voltage=230.1",
    ];
    let notified = [
        "shelly,component=em1:0,device=plug act_power=-1899.8 1708179956300000000",
        "shelly,component=switch:0,device=plug temperature_tC=37.67 1708179956300000000",
    ];
    let event =
        r#"{"src":"s","method":"NotifyEvent","params":{"ts":1.0,"events":[{"component":"input:0","id":0}]}}"#;
    let unset = r#"{"src":"s","method":"NotifyStatus","params":{"ts":1.61,"mqtt":{"connected":true}}}"#;
    let no_event = "aside: it is no NotifyStatus: events are no readings";
    check(
        Preset::Shelly,
        "shellies/{device}/{path#}",
        &[
            ("shellies/plug/status/switch:0", SWITCH, &switch),
            ("shellies/plug/events/rpc", NOTIFY, &notified),
            ("shellies/plug/events/rpc", event, &[no_event]),
            ("shellies/plug/events/rpc", unset, &["shelly,component=mqtt,device=plug connected=true"]),
            (
                "shellies/plug/events/rpc",
                "[",
                &["refused: not JSON: EOF while parsing a list at line 1 column 1"],
            ),
            (
                "shellies/plug/status/script:1",
                r#"{"id":1,"running":true}"#,
                &["shelly,component=script:1,device=plug running=true"],
            ),
            ("shellies/plug/status/input:0", r#"{"id":0,"state":null}"#, &[SKIPPED]),
            (
                "shellies/plug/status/ble",
                "null",
                &["aside: it is no JSON object, as the readings of this format are"],
            ),
            ("shellies/plug/rpc", "{}", &["aside: it is a command to a device"]),
            ("shellies/plug/command/switch:0", "on", &["aside: it is a command to a device"]),
        ],
    );
    check(Preset::Shelly, "{device}/status/{component}", &[("plug/status/switch:0", SWITCH, &switch)]);
    check(Preset::Shelly, "{device}/events/rpc", &[("plug/events/rpc", NOTIFY, &notified)]);
}

#[test]
fn esphome() {
    check(
        Preset::Esphome,
        "{device}/{domain}/{field}/state",
        &[
            (
                "livingroom/sensor/temperature/state",
                "21.5",
                &["esphome,device=livingroom,domain=sensor temperature=21.5"],
            ),
            (
                "hall/binary_sensor/motion/state",
                "ON",
                &["esphome,device=hall,domain=binary_sensor motion=true"],
            ),
            (
                "hall/light/lamp/state",
                r#"{"state":"ON","color_mode":"rgb","brightness":255,"color":{"r":255,"g":128,"b":0}}"#,
                &[
                    "esphome,device=hall,domain=light lamp_brightness=255.0,lamp_color_b=0.0,lamp_color_g=128.0,lamp_color_r=255.0,\
                   lamp_state=true",
                ],
            ),
            ("hall/sensor/temperature/state", "nan", &[SKIPPED]),
            ("hall/text_sensor/version/state", "2024.11.0 (Nov 20 2024)", &[SKIPPED]),
            ("hall/light/lamp/state", r#"{"color_mode":"rgb"}"#, &[SKIPPED]),
        ],
    );
}

#[test]
fn home_assistant() {
    let one_value = "aside: it is a list or an object, and this format has one value in a message";
    check(
        Preset::Homeassistant,
        "homeassistant/{domain}/{device}/state",
        &[
            (
                "homeassistant/light/master_bedroom_dimmer/state",
                "on",
                &["homeassistant,device=master_bedroom_dimmer,domain=light state=true"],
            ),
            (
                "homeassistant/sensor/outside/state",
                "21.5",
                &["homeassistant,device=outside,domain=sensor state=21.5"],
            ),
            ("homeassistant/light/a/state", "\"on\"", &["homeassistant,device=a,domain=light state=true"]),
            ("homeassistant/sensor/outside/state", "unavailable", &[SKIPPED]),
        ],
    );
    check(
        Preset::Homeassistant,
        "homeassistant/{domain}/{device}/{field}",
        &[
            (
                "homeassistant/light/a/brightness",
                "215",
                &["homeassistant,device=a,domain=light brightness=215.0"],
            ),
            ("homeassistant/light/a/last_changed", "\"2017-10-01T23:20:30.920969+00:00\"", &[SKIPPED]),
            ("homeassistant/light/a/rgb_color", "[255, 128, 0]", &[one_value]),
            ("homeassistant/sensor/a/config", "{\"name\": \"a\"}", &[one_value]),
        ],
    );
}

#[test]
fn keys_of_the_configuration_count_for_presets_too() {
    let mut layout = layout(Preset::Shelly);
    layout.text_fields = vec!["state".to_owned()];
    layout.rename.insert("power".to_owned(), "watt".to_owned());
    layout.rename.insert("watt".to_owned(), "lost".to_owned());
    layout.drop.insert("energy".to_owned());
    let told = |path: &str, payload| {
        told(&layout, "shellies/{device}/{path#}", &format!("shellies/plug/{path}"), payload)
    };
    assert_eq!(told("roller/0", "stop"), ["shelly,component=roller:0,device=plug state=\"stop\""]);
    assert_eq!(told("relay/0", "on"), ["shelly,component=relay:0,device=plug state=\"on\""]);
    assert_eq!(told("relay/0/power", "1"), ["shelly,component=relay:0,device=plug watt=1.0"], "renamed once");
    assert_eq!(told("relay/0/energy", "1"), ["aside: all of its fields are left out by `drop`"]);
}
