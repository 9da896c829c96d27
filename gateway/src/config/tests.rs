//! Good and bad configurations; what is said about the bad ones is compared word for word.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::load::load_with;
use super::problem::Purpose;
use super::*;

mod formats;
mod secrets;
mod sinks;
mod sources;

/// A directory with the given files, the configuration being `forebay.toml`.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    dir
}

fn load_dir(dir: &Path) -> Result<Loaded, LoadError> {
    load_for(dir, Purpose::Everything)
}

fn load_for(dir: &Path, purpose: Purpose) -> Result<Loaded, LoadError> {
    let variables = |name: &str| match name {
        "SECRET" => Some("from the environment".to_owned()),
        "EMPTY" => Some(String::new()),
        "DIR" => Some("/data".to_owned()),
        _ => None,
    };
    load_with(&dir.join("forebay.toml"), &variables, purpose)
}

fn good(text: &str) -> Config {
    let dir = directory(&[("forebay.toml", text), ("token", "t0ken\n"), ("password", "pass word")]);
    load_dir(dir.path()).unwrap_or_else(|error| panic!("{error}")).config
}

/// What is said about a configuration, without the directory.
fn said(files: &[(&str, &str)]) -> Vec<String> {
    let dir = directory(files);
    let prefix = format!("{}/", dir.path().display());
    let problems = match load_dir(dir.path()) {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.problems().to_vec(),
    };
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

/// One faulty line, appended to a configuration that is in order, and what is said about it.
#[track_caller]
fn bad(text: &str, expected: &str) {
    assert_eq!(said(&[("forebay.toml", text)]), [expected], "{text}");
}

const SAMPLE: &str = r#"
data_dir = "/var/lib/forebay"

[tags]                                   # on every point
gateway = "north-barn"                   # default: the host name

[devices."e6614104"]                     # a device by the name or chip id it announces
name = "boiler"
tags = { room = "cellar" }

[[mqtt]]                                 # a broker; several allowed
url = "mqtt://127.0.0.1:1883"
client_id = "forebay-north-barn-3f9a"    # default: forebay-<host>-<id kept in data_dir>
username = "forebay"
password_file = "password"
native = true                            # serve devices that speak our protocol
native_prefix = "forebay/v1"

[[mqtt.subscribe]]
topic = "sensors/{device}/{room}"
format = "json"
# device = "$.id"                        # a key wins over the placeholder of its name
measurement = "climate"
timestamp = "$.time"                     # leave out: time of first receipt
timestamp_format = "ms"                  # s | ms | us | ns | rfc3339
integer_fields = []
text_fields = []
tags_from = ["$.site"]
retained = "skip"                        # skip | store

[[serial]]                               # several allowed
usb = "2e8a:*"
format = "native"
baud = 115200

[ack]
after = "journal"

[journal]
max_bytes = "1GiB"
commit_interval = "0ms"

[[influxdb]]                             # a database; several allowed
name = "main"
url = "http://127.0.0.1:8086"
version = 2
org = "home"
bucket = "sensors"
token_file = "token"
batch_size = 5000                        # records
flush_interval = "1s"
required = true
start = "oldest"
live_first = false

[sqlite]
path = "readings.sqlite"                 # relative to data_dir
retention = "30d"
max_bytes = "2GiB"

[dead_letters]
max_bytes = "64MiB"

[clock]
trust = "auto"                           # auto | always
max_wait = "10m"

[http]
listen = "127.0.0.1:8686"
"#;

#[test]
fn the_sample_of_the_design_is_read() {
    let config = good(SAMPLE);
    assert_eq!(config.data_dir, Path::new("/var/lib/forebay"));
    assert_eq!(config.tags["gateway"], "north-barn");
    let boiler = &config.devices["e6614104"];
    assert_eq!((boiler.name.as_deref(), boiler.tags["room"].as_str()), (Some("boiler"), "cellar"));
    let [broker] = &config.mqtt[..] else { panic!("one broker") };
    assert_eq!(
        (broker.url.as_str(), broker.host.as_str(), broker.port),
        ("mqtt://127.0.0.1:1883", "127.0.0.1", 1883)
    );
    assert_eq!(broker.password.as_ref().map(Secret::expose), Some("pass word"));
    assert!(broker.native);
    let [subscription] = &broker.subscribe[..] else { panic!("one subscription") };
    assert_eq!(subscription.topic.filter, "sensors/+/+");
    assert_eq!(subscription.layout.measurement, Some(Selector::Fixed("climate".to_owned())));
    assert_eq!(subscription.layout.timestamp_format, Some(TimestampFormat::Milliseconds));
    assert_eq!(subscription.layout.tags_from[0].last_name(), Some("site"));
    let selector = SerialSelector::Usb { vendor: 0x2e8a, product: None };
    let expected = Serial { selector, baud: 115_200, speech: Speech::Native };
    assert_eq!(config.serial, [expected]);
    assert_eq!(
        config.journal,
        Journal { max_bytes: 1 << 30, commit_interval: Duration::ZERO, when_full: WhenFull::Auto }
    );
    let token = Some(Secret::new("t0ken".to_owned()));
    let api = InfluxdbApi::V2 { org: "home".to_owned(), bucket: "sensors".to_owned(), token };
    let (batch_size, flush_interval) = (5000, Duration::from_secs(1));
    let url = "http://127.0.0.1:8086".to_owned();
    let (name, read_token, service) = ("main".to_owned(), None, Service::default());
    let expected = Influxdb { name, url, api, batch_size, flush_interval, read_token, service };
    assert_eq!(config.influxdb, [expected]);
    let sqlite = config.sqlite.unwrap();
    assert_eq!(sqlite.path, Path::new("/var/lib/forebay/readings.sqlite"));
    assert_eq!((sqlite.retention, sqlite.max_bytes), (Duration::from_secs(2_592_000), 2 << 30));
    assert_eq!(config.dead_letters, DeadLetters { max_bytes: 64 << 20 });
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8686");
}

#[test]
fn a_few_lines_are_enough() {
    let config = good("[[serial]]\nport = \"/dev/ttyACM0\"\n");
    assert_eq!(config.serial[0].selector, SerialSelector::Port("/dev/ttyACM0".into()));
    assert!(config.sqlite.is_some(), "the embedded store is on when no other sink is configured");
    assert!(config.tags.contains_key("gateway"));
    assert_eq!(config.clock, Clock { trust: Trust::Auto, max_wait: Duration::from_secs(600) });
    assert_eq!(config.dead_letters, DeadLetters { max_bytes: 64 << 20 });
    let small = good("[[serial]]\nport = \"/dev/ttyACM0\"\n[dead_letters]\nmax_bytes = \"256KiB\"\n");
    assert_eq!(small.dead_letters.max_bytes, 256 << 10);
    assert_eq!(config.health, Some(Duration::from_secs(60)));
    for (text, interval) in [("off", None), ("1s", Some(1)), ("1d", Some(86_400))] {
        let text = format!("[[serial]]\nport = \"/dev/ttyACM0\"\n[health]\ninterval = {text:?}\n");
        assert_eq!(good(&text).health, interval.map(Duration::from_secs));
    }
}

#[test]
fn other_files_merge_append_and_replace() {
    let dir = directory(&[
        (
            "forebay.toml",
            "data_dir = \"${DIR}/a\"\n[tags]\na = \"1\"\nb = \"1\"\n[[serial]]\nport = \"/dev/a\"\n",
        ),
        ("conf.d/20.toml", "data_dir = \"/twenty\"\n[[serial]]\nport = \"/dev/c\"\n"),
        ("conf.d/10.toml", "[tags]\nb = \"2\"\n[[serial]]\nport = \"/dev/b\"\n"),
        ("conf.d/.hidden.toml", "nonsense"),
        ("conf.d/readme.txt", "nonsense"),
    ]);
    let loaded = load_dir(dir.path()).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/twenty"));
    assert_eq!((loaded.config.tags["a"].as_str(), loaded.config.tags["b"].as_str()), ("1", "2"));
    let ports: Vec<String> = loaded.config.serial.iter().map(|port| port.selector.to_string()).collect();
    assert_eq!(ports, ["/dev/a", "/dev/b", "/dev/c"]);
    assert_eq!(loaded.files.len(), 3);
}

#[test]
fn a_fault_in_another_file_names_that_file() {
    let files = [
        ("forebay.toml", "[[serial]]\nport = \"/dev/a\"\n[http]\nlisten = \"127.0.0.1:1\""),
        ("conf.d/x.toml", "\n[http]\nport = 2\n"),
        ("conf.d/y.toml", "http = 3"),
    ];
    assert_eq!(
        said(&files),
        [
            "conf.d/x.toml:3: http.port: unknown key; it is part of `listen = \"127.0.0.1:8686\"`",
            "conf.d/y.toml:1: http: is a number here but a table in an earlier file; write it the same way in both",
        ]
    );
}

#[test]
fn a_subscription_in_a_file_of_its_own_is_told_where_it_belongs() {
    let main = ("forebay.toml", "[[mqtt]]\nurl = \"mqtt://a\"\n");
    let subscribe = "[[mqtt.subscribe]]\ntopic = \"tele/{device}/SENSOR\"\nformat = \"tasmota\"\n";
    let at = "conf.d/tasmota.toml:1: mqtt: is a table here but an array of tables in an earlier file; ";
    let cure = "put [[mqtt.subscribe]] into that file, below the [[mqtt]] that it is for";
    assert_eq!(said(&[main, ("conf.d/tasmota.toml", subscribe)]), [format!("{at}{cure}")]);
    let plain = ("conf.d/tasmota.toml", "[mqtt]\nurl = \"mqtt://b\"\n");
    assert_eq!(said(&[main, plain]), [format!("{at}write it the same way in both")]);
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let dir = directory(&[("forebay.toml", "a = 1\nb = = 2\n"), ("conf.d/z.toml", "[x\n")]);
    let error = load_dir(dir.path()).unwrap_err();
    assert_eq!(error.exit_status(), 2);
    let text = error.to_string();
    assert!(text.contains("forebay.toml:2: is no TOML: "), "{text}");
    assert!(text.contains("z.toml:1: is no TOML: "), "{text}");
    let dir = directory(&[("forebay.toml", "a = 1\na = 2\n")]);
    let text = load_dir(dir.path()).unwrap_err().to_string();
    assert!(text.contains("forebay.toml:2: is no TOML: duplicate key"), "{text}");
    fs::write(dir.path().join("forebay.toml"), b"a = 1\nb = \"\xff\"\n").unwrap();
    let error = load_dir(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("forebay.toml:2: is no TOML: it is not written in UTF-8"), "{error}");
}

#[test]
fn a_missing_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = load_dir(dir.path()).unwrap_err();
    assert_eq!(error.exit_status(), 1);
    let cure = "there is no such file; create it or name another with --config";
    assert!(error.to_string().ends_with(&format!("forebay.toml: {cure}")), "{error}");
}

#[test]
fn all_problems_are_reported_at_once_in_their_order() {
    let text =
        "[[mqtt]]\nurl = \"mqtt://a\"\nservers = []\n[[serial]]\nbaud = 0\n[journal]\nmax_bytes = \"1MiB\"\n";
    assert_eq!(
        said(&[("forebay.toml", text)]),
        [
            "forebay.toml:3: mqtt.servers: unknown key; Telegraf's `servers` is `url` here, one [[mqtt]] for each broker",
            "forebay.toml:4: serial.port: is missing; write `usb = \"vendor:product\"` or `port = \"/dev/serial/by-id/…\"`",
            "forebay.toml:5: serial.baud: 0 is out of range; use 1 to 4000000",
            "forebay.toml:7: journal.max_bytes: 1MiB is out of range; use 2MiB to 1TiB",
        ]
    );
}

#[test]
fn nothing_to_read_from_is_a_warning() {
    bad("", "forebay.toml:1: mqtt: nothing is read from anywhere; add an [[mqtt]] or a [[serial]]");
}

#[test]
fn faults_of_small_tables() {
    let with_port =
        |text: &str, expected: &str| bad(&format!("serial = [{{ port = \"/dev/a\" }}]\n{text}"), expected);
    for (text, expected) in [
        ("data_dri = \"x\"", "data_dri: unknown key; did you mean `data_dir`?"),
        ("data_dir = \"\"", "data_dir: is empty; write a directory"),
        ("data_dir = 5", "data_dir: is a number; it takes a text"),
        ("data_dir = \"${NO}\"", "data_dir: the environment has no variable NO; set it for the service"),
        ("inputs.x = 1", "inputs: unknown key; Telegraf's [[inputs.mqtt_consumer]] is [[mqtt]] here"),
        ("mqtt = { url = \"mqtt://a\" }", "mqtt: is a table; it takes an array of tables: write [[mqtt]]"),
        ("tags = 1", "tags: is a number; it takes a table: write [tags]"),
        ("tags.room = 1", "tags.room: is a number; it takes a text"),
        (
            "tags.device = \"x\"",
            "tags.device: the tag `device` is made by Forebay; use `name` in [devices] to change it",
        ),
        ("tags.time = \"x\"", "tags.time: the tag \"time\" is reserved by InfluxDB; choose another name"),
        (
            "tags.a = \"x\\n\"",
            "tags.a: the tag value \"x\\n\" holds a control character, which line protocol cannot carry",
        ),
        ("devices.a.nmae = \"x\"", "devices.a.nmae: unknown key; did you mean `name`?"),
        ("devices.a.name = \"\"", "devices.a.name: is empty; write a name or remove the key"),
        ("devices.a = 1", "devices.a: is a number; it takes a table with `name` and `tags`"),
        ("ack.after = \"disk\"", "ack.after: \"disk\" is not one of \"memory\", \"journal\", \"database\""),
        (
            "journal.when_full = \"drop\"",
            "journal.when_full: \"drop\" is not one of \"auto\", \"refuse\", \"drop-oldest\"",
        ),
        (
            "journal.max_bytes = \"2 gigs\"",
            "journal.max_bytes: \"2 gigs\" is no size; write \"512KiB\", \"64MiB\" or \"1GiB\"",
        ),
        ("journal.max_bytes = true", "journal.max_bytes: is true or false; it takes a size such as \"1GiB\""),
        (
            "journal.commit_interval = 100",
            "journal.commit_interval: is a number; it takes a duration such as \"250ms\" or \"30d\"",
        ),
        ("journal.commit_interval = \"1h\"", "journal.commit_interval: 1h is out of range; use 0ms to 10s"),
        (
            "dead_letters.max_bytes = \"200KiB\"",
            "dead_letters.max_bytes: 200KiB is out of range; use 256KiB to 64GiB",
        ),
        ("dead_letters.max_byte = \"1MiB\"", "dead_letters.max_byte: unknown key; did you mean `max_bytes`?"),
        ("clock.trust = \"never\"", "clock.trust: \"never\" is not one of \"auto\", \"always\""),
        ("clock.max_wait = \"60d\"", "clock.max_wait: 60d is out of range; use 0ms to 30d"),
        (
            "health.interval = \"never\"",
            "health.interval: \"never\" is no duration; write \"250ms\", \"10s\", \"5m\", \"12h\" or \"30d\", or \"off\"",
        ),
        (
            "health.interval = \"500ms\"",
            "health.interval: \"500ms\" is out of range; use 1s to 1d, or \"off\"",
        ),
        ("http.listen = \"8686\"", "http.listen: \"8686\" is no address and port; write \"127.0.0.1:8686\""),
        (
            "http.listen = \"0.0.0.0:80\"",
            "http.listen: 0.0.0.0:80 is reached from other machines, so it needs a token: make one with \
             `(umask 077; head -c 32 /dev/urandom | base64 > http.token)` beside this file, let the gateway's user read \
             it, and write `token_file = \"http.token\"`; or write \"127.0.0.1:80\"",
        ),
        (
            "http.token = \"written-in-the-open\"",
            "http.token: a secret does not belong into the configuration; put it into a file and write \
             `token_file`, or write \"${VARIABLE}\"",
        ),
        (
            "sqlite.enabled = false",
            "sqlite.enabled: without it no sink is left; add an [[influxdb]] or remove this key",
        ),
        ("sqlite.retention = \"0s\"", "sqlite.retention: 0s is out of range; use 1m to 36500d"),
    ] {
        with_port(text, &format!("forebay.toml:2: {expected}"));
    }
    bad(
        "[[serial]]\nport = \"/dev/a\"\n[devices]\na = { name = \"x\" }\nb = { name = \"x\" }",
        "forebay.toml:5: devices.b.name: the device \"a\" has this name too; give each its own",
    );
}

#[test]
fn faults_of_tables() {
    let csv = "port = \"/dev/a\"\nformat = \"csv\"\ndevice = \"d\"\nmeasurement = \"m\"\n";
    for (text, expected) in [
        (
            "columns = []",
            "6: serial.columns: names 0 columns; list the columns' names, or leave the key out where a header line names them",
        ),
        (
            "columns = [\"a\", \"a\"]",
            "6: serial.columns: lists \"a\" twice; remove one, or write \"\" for a column to skip",
        ),
        ("columns = [\"$.a\", \"b\"]", "6: serial.columns: \"$.a\" is no name; write it without \"$.\""),
        (
            "separator = \"ab\"",
            "6: serial.separator: \"ab\" is no separator; write one character such as \",\", \";\" or \"\\t\"",
        ),
        ("tags_from = [\"$.a.b\"]", "6: serial.tags_from: \"$.a.b\" is no column; write \"$.name\""),
        (
            "columns = [\"a\"]\ntags_from = [\"$.b\"]",
            "7: serial.tags_from: \"$.b\" is none of `columns`; add it there",
        ),
        (
            "columns = [\"a\"]\ntext_fields = [\"b\"]",
            "7: serial.text_fields: \"b\" is none of `columns`; add it there",
        ),
        (
            "timestamp = \"$.a\"",
            "1: serial.timestamp_format: is missing beside `timestamp`; write s, ms, us, ns or rfc3339",
        ),
    ] {
        bad(&format!("[[serial]]\n{csv}{text}"), &format!("forebay.toml:{expected}"));
    }
}
