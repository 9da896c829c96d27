//! Good and bad configurations; what is said about the bad ones is compared word for word.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::load::load_with;
use super::problem::Purpose;
use super::*;

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

#[test]
fn faults_of_databases() {
    let v2 = "url = \"http://a\"\norg = \"o\"\nbucket = \"b\"\n";
    for (text, expected) in [
        (
            "org = \"o\"\nbucket = \"b\"",
            "3: influxdb.url: is missing; write `url = \"http://127.0.0.1:8086\"`",
        ),
        (
            "url = \"http://a\"",
            "3: influxdb.version: is missing, and no other key decides it; write `org` and `bucket` for InfluxDB 2, or \
             `database` for InfluxDB 1 and 3",
        ),
        (
            "url = \"http://a\"\nversion = 2\norg = \"o\"",
            "3: influxdb.bucket: is missing; name the bucket to write to",
        ),
        (
            "url = \"http://a\"\nbucket = \"b\"",
            "3: influxdb.org: is missing; name the organisation; for a server that has none, any text will do",
        ),
        (
            "url = \"http://a\"\nversion = 1",
            "3: influxdb.database: is missing; name the database to write to",
        ),
        (
            &format!("{v2}database = \"d\""),
            "7: influxdb.database: belongs to version 1 or 3; remove it or set version = 1",
        ),
        (
            "url = \"http://a\"\nversion = 3",
            "3: influxdb.database: is missing; name the database to write to",
        ),
        (
            "url = \"http://a\"\nversion = 3\ndatabase = \"d\"\nbucket = \"b\"",
            "7: influxdb.bucket: belongs to version 2; remove it or set version = 2",
        ),
        (
            "url = \"http://a\"\nversion = 1\ndatabase = \"d\"\ntoken = \"${SECRET}\"",
            "7: influxdb.token: belongs to version 2 or 3; remove it or set version = 2",
        ),
        (
            "url = \"http://a\"\nversion = 4\ndatabase = \"d\"",
            "5: influxdb.version: 4 is out of range; use 1 to 3",
        ),
        (
            "url = \"a:8086\"\ndatabase = \"d\"",
            "4: influxdb.url: \"a:8086\" begins with neither http:// nor https://; write \"http://127.0.0.1:8086\"",
        ),
        (
            "url = \"http://u:p@a\"\ndatabase = \"d\"",
            "4: influxdb.url: holds a user name or password; write `username` and `password_file` instead",
        ),
        (
            "url = \"http://a/write?db=d\"\ndatabase = \"d\"",
            "4: influxdb.url: \"http://a/write?db=d\" has a query or fragment; write \"http://127.0.0.1:8086\", and the \
             database in keys of its own",
        ),
        (
            "url = \"http://a/influx/api/v2/write/\"\ndatabase = \"d\"",
            "4: influxdb.url: \"http://a/influx/api/v2/write/\" ends in /api/v2/write, which Forebay adds itself; leave \
             it out",
        ),
        (
            &format!("{v2}name = \"sqlite\""),
            "7: influxdb.name: \"sqlite\" is the name of the embedded store; choose another",
        ),
        (
            &format!("{v2}name = \"intake\""),
            "7: influxdb.name: \"intake\" is what dead letters are named by that no sink was given; choose another",
        ),
        (
            &format!("{v2}name = \"a b\""),
            "7: influxdb.name: \"a b\" is no name; use 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
        ),
        (
            &format!("{v2}[[influxdb]]\nurl = \"http://b\"\ndatabase = \"d\""),
            "7: influxdb.name: \"influxdb\" is used twice; give each database a `name` of its own, which its cursor is \
             kept under",
        ),
        (
            &format!("{v2}organization = \"o\""),
            "7: influxdb.organization: unknown key; Telegraf's `organization` is `org` here",
        ),
        (
            &format!("{v2}urls = []"),
            "7: influxdb.urls: unknown key; Telegraf's `urls` is `url` here, one [[influxdb]] for each database",
        ),
        (&format!("{v2}batch_size = 0"), "7: influxdb.batch_size: 0 is out of range; use 1 to 50000"),
        (&format!("{v2}start = \"new\""), "7: influxdb.start: \"new\" is not one of \"oldest\", \"now\""),
        (
            &format!("{v2}max_bytes_per_second = \"1B\""),
            "7: influxdb.max_bytes_per_second: 1B is out of range; use 1KiB to 4GiB",
        ),
        (
            &format!("{v2}match = {{ device = \"a\" }}"),
            "7: influxdb.match.device: is a text; it takes a list of texts",
        ),
        (
            &format!("{v2}match = {{ measurement = [] }}"),
            "7: influxdb.match.measurement: matches nothing; write patterns such as [\"climate\", \"power_*\"]",
        ),
        (
            &format!("{v2}token_file = \"none\""),
            "7: influxdb.token_file: none cannot be read: No such file or directory (os error 2); create it, readable \
             by the user that Forebay runs as",
        ),
        (
            &format!("{v2}token = \"${{SECRET}}\"\ntoken_file = \"x\""),
            "7: influxdb.token: is given twice; keep `token_file` and remove `token`",
        ),
    ] {
        let text = format!("serial = [{{ port = \"/dev/a\" }}]\n\n[[influxdb]]\n{text}");
        bad(&text, &format!("forebay.toml:{expected}"));
    }
}

#[test]
fn the_keys_present_decide_the_version() {
    let head = "[[serial]]\nport = \"/dev/a\"\n[[influxdb]]\nurl = \"http://a:8086/\"\n";
    let config = good(&format!("{head}database = \"d\"\nusername = \"u\"\npassword = \"${{SECRET}}\""));
    assert_eq!(config.influxdb[0].url, "http://a:8086");
    assert!(config.sqlite.is_none(), "another sink is configured");
    let InfluxdbApi::V1 { database, password, .. } = &config.influxdb[0].api else { panic!("version 1") };
    assert_eq!(
        (database.as_str(), password.as_ref().map(Secret::expose)),
        ("d", Some("from the environment"))
    );
    let config = good(&format!("{head}org = \"o\"\nbucket = \"b\""));
    assert!(matches!(config.influxdb[0].api, InfluxdbApi::V2 { token: None, .. }));
    // Versions 1 and 3 have a database both.
    for token in ["", "token = \"${SECRET}\""] {
        let config = good(&format!("{head}database = \"d\"\n{token}"));
        assert!(matches!(&config.influxdb[0].api, InfluxdbApi::Open { database, .. } if database == "d"));
    }
    let config = good(&format!("{head}database = \"d\"\nversion = 3"));
    assert!(matches!(config.influxdb[0].api, InfluxdbApi::V3 { token: None, .. }));
}

#[test]
fn a_database_may_get_a_part_and_need_not_stop_intake() {
    let head =
        "[[serial]]\nport = \"/dev/a\"\n[[influxdb]]\nurl = \"http://a:8086/influx/\"\ndatabase = \"d\"\n";
    let more = "start = \"now\"\nrequired = false\nlive_first = true\nmax_bytes_per_second = \"64KiB\"\n\
                [influxdb.match]\nmeasurement = [\"climate\"]\ndevice = [\"boiler-*\"]\n\
                [sqlite]\nrequired = false\nmatch = { room = [\"cellar\"] }";
    let config = good(&format!("{head}{more}"));
    assert_eq!(config.influxdb[0].url, "http://a:8086/influx");
    let Service { start, required, live_first, filter, bytes_per_second_max } = &config.influxdb[0].service;
    assert_eq!((*start, *required, *live_first), (Start::Now, false, true));
    assert_eq!(*bytes_per_second_max, Some(64 << 10));
    assert!(filter.wants_row("climate,device=boiler-2") && !filter.wants_row("climate,device=fridge"));
    let of_sqlite = &config.sqlite.unwrap().service;
    assert!(
        !of_sqlite.required
            && of_sqlite.filter.wants_row("m,room=cellar")
            && !of_sqlite.filter.wants_row("m")
    );
}

#[test]
fn the_embedded_store_stays_once_its_file_exists() {
    let text = |dir: &Path, more: &str| {
        let dir = dir.display();
        format!(
            "data_dir = \"{dir}\"\nserial = [{{ port = \"/dev/a\" }}]\n{more}\n[[influxdb]]\nurl = \"http://a\"\ndatabase = \"d\""
        )
    };
    let dir = directory(&[("readings.sqlite", "")]);
    assert!(good(&text(dir.path(), "")).sqlite.is_some());
    assert!(good(&text(dir.path(), "sqlite.enabled = false")).sqlite.is_none());

    let lost = directory(&[]);
    let config = good(&text(lost.path(), ""));
    assert!(config.sqlite.is_none() && config.beside(["main"].into_iter()).sqlite.is_none());
    let kept = config.beside(["main", "sqlite"].into_iter()).sqlite.unwrap();
    assert_eq!(
        kept.path,
        lost.path().join("readings.sqlite"),
        "it has lost its file, not its rows in the journal"
    );
    let off = good(&text(lost.path(), "sqlite.enabled = false"));
    assert!(off.beside(["sqlite"].into_iter()).sqlite.is_none());
    let empty = directory(&[]);
    assert!(good(&text(empty.path(), "")).sqlite.is_none());
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning_and_never_shown() {
    let text = "[[mqtt]]\nurl = \"mqtt://a\"\nusername = \"u\"\npassword_file = \"password\"\n";
    let dir = directory(&[("forebay.toml", text), ("password", "hunter2\r\n")]);
    let path = dir.path().join("password");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load_dir(dir.path()).unwrap();
    let path = path.display();
    let expected =
        format!("password_file: {path} is readable by everybody (mode 644); run `chmod o-rwx {path}`");
    let [warning] = &loaded.warnings[..] else { panic!("one warning: {:?}", loaded.warnings) };
    assert!(warning.to_string().ends_with(&format!("forebay.toml:4: mqtt.{expected}")), "{warning}");
    assert_eq!(loaded.config.mqtt[0].password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_secret_file_holds_one_line() {
    let text = "[[mqtt]]\nurl = \"mqtt://a\"\nusername = \"u\"\npassword_file = \"password\"\n";
    for (content, expected) in [
        ("\n", "password is empty; write the secret into it"),
        (
            "forebay:$7$101$c2FsdA==$aGFzaA==\nother:$6$c2FsdA==$aGFzaA==\n",
            "password is a password file of mosquitto, which holds hashes; write the password itself into a file of its own",
        ),
        ("a\nb\n", "password holds more than one line or a control character; write only the secret into it"),
    ] {
        assert_eq!(
            said(&[("forebay.toml", text), ("password", content)]),
            [format!("forebay.toml:4: mqtt.password_file: {expected}")]
        );
    }
}

/// A shell has neither the credentials of the service nor its variables, and may not read its secrets.
#[test]
fn who_only_looks_for_the_gateway_needs_neither_its_variables_nor_its_secrets() {
    let text = "data_dir = \"${DIR}\"\n[http]\nlisten = \"0.0.0.0:1\"\ntoken_file = \"${CREDENTIALS}/http.token\"\n\
        query_sink = \"main\"\n[tags]\nsite = \"${SITE}\"\n[[influxdb]]\nname = \"main\"\nurl = \"http://a\"\norg = \"${ORG}\"\nbucket = \"b\"\n\
        token_file = \"no-such-file\"\n[[serial]]\nusb = \"2e8a:*\"\n";
    let dir = directory(&[("forebay.toml", text)]);
    let loaded = load_for(dir.path(), Purpose::Whereabouts).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/data"));
    let told = |problems: &[Problem]| problems.iter().map(|p| (p.line, p.key.clone())).collect::<Vec<_>>();
    let absent = loaded.complete().map(drop).unwrap_err();
    let keys = [(4, "http.token_file"), (7, "tags.site"), (11, "influxdb.org"), (13, "influxdb.token_file")];
    assert_eq!(told(absent.problems()), keys.map(|(line, key)| (Some(line), key.to_owned())));
    // The gateway itself needs them all, and hears of nothing that only follows from that.
    assert_eq!(load_dir(dir.path()).map(drop), Err(absent));

    for (text, key) in [
        ("data_dir = \"${NOWHERE}\"", "data_dir"),
        ("[journal]\nmax_bytes = \"${NOWHERE}\"", "journal.max_bytes"),
        ("data_dri = \"/data\"", "data_dri"),
        ("tags.a = \"${DIR\"", "tags.a"),
    ] {
        let dir = directory(&[("forebay.toml", &format!("{text}\n[[serial]]\nusb = \"2e8a:*\"\n"))]);
        let faults = load_for(dir.path(), Purpose::Whereabouts).unwrap_err();
        assert_eq!(faults.problems().iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), [key]);
    }
    let whole = directory(&[("forebay.toml", "[[serial]]\nusb = \"2e8a:*\"\n")]);
    assert!(load_for(whole.path(), Purpose::Whereabouts).unwrap().complete().is_ok());
}
