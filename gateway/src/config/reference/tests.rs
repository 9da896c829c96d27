//! The page is the one in docs, and what it says of each key is what becomes of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::super::load::load_with;
use super::super::problem::Purpose;
use super::super::{Config, LoadError, units};
use super::*;

const FILE: &str = "docs/configuration.md";

#[test]
fn the_page_is_what_the_gateway_knows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    if std::env::var_os("FOREBAY_RENEW").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "{FILE} is not what `forebay config` prints; run this test with FOREBAY_RENEW=1, and look at what changes"
    );
}

/// A directory with the files that examples name.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "a-token-that-is-long-enough\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    home
}

fn read(home: &Path, text: &str) -> Result<Config, LoadError> {
    let path = home.join("forebay.toml");
    std::fs::write(&path, text).unwrap();
    let variable = |name: &str| (name == "SECRET").then(|| "a-secret-that-is-long-enough".to_owned());
    load_with(&path, &variable, Purpose::Everything).map(|loaded| loaded.config)
}

/// The lines that a table needs so that a key of it can be read, without that key: those of the tables above, too.
fn around(path: &str, key: &str) -> String {
    let source = "[[mqtt]]\nurl = \"mqtt://127.0.0.1\"\n";
    let without = |lines: &str| -> String {
        let is_other = |line: &&str| !line.starts_with(&format!("{key} ="));
        lines.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
    };
    match (path, key) {
        ("", _) => String::new(),
        ("devices.NAME", _) => "[devices.\"e661\"]\n".to_owned(),
        ("mqtt", "url") => "[[mqtt]]\n".to_owned(),
        ("mqtt", "ca_file") => "[[mqtt]]\nurl = \"mqtts://127.0.0.1\"\n".to_owned(),
        ("mqtt", "client_cert_file" | "client_key_file") => without(
            "[[mqtt]]\nurl = \"mqtts://127.0.0.1\"\nclient_cert_file = \"gateway.pem\"\nclient_key_file = \"gateway.key\"",
        ),
        ("mqtt", "password" | "password_file") => format!("{source}username = \"forebay\"\n"),
        ("mqtt", "native") => format!(
            "{source}[[mqtt.subscribe]]\ntopic = \"a/{{device}}\"\nformat = \"senml\"\nmeasurement = \"m\"\n"
        ),
        ("mqtt", _) => source.to_owned(),
        ("mqtt.subscribe", _) => source.to_owned() + &subscribe(key, without),
        ("serial", "port" | "usb") => "[[serial]]\n".to_owned(),
        ("serial", "claim") => "[[serial]]\nport = \"/dev/ttyUSB*\"\n".to_owned(),
        ("serial", "columns" | "separator") => {
            without("[[serial]]\nusb = \"2e8a:*\"\nformat = \"csv\"\ndevice = \"d\"\nmeasurement = \"m\"")
        }
        ("serial", "baud" | "format") => "[[serial]]\nusb = \"2e8a:*\"\n".to_owned(),
        ("serial", _) => "[[serial]]\nusb = \"2e8a:*\"\n".to_owned() + &text(key, without),
        ("influxdb", _) => influxdb(key, without),
        ("sqlite", "enabled") => "[[influxdb]]\nurl = \"http://h\"\ndatabase = \"d\"\n[sqlite]\n".to_owned(),
        _ => format!("[{path}]\n"),
    }
}

/// The rest of a subscription.
fn subscribe(key: &str, without: impl Fn(&str) -> String) -> String {
    let lines = match key {
        "field" => "topic = \"a/{device}/{measurement}\"\nformat = \"value\"",
        // Made so that each format takes it.
        "format" => "topic = \"a/{device}/{measurement}/{field}\"",
        "topic" => "format = \"json\"\nmeasurement = \"m\"",
        "timestamp" | "timestamp_format" => {
            "topic = \"a/{device}/{measurement}\"\nformat = \"json\"\ntimestamp = \"$.time\"\ntimestamp_format = \"s\""
        }
        _ => "topic = \"a/{device}/{measurement}\"\nformat = \"json\"",
    };
    "[[mqtt.subscribe]]\n".to_owned() + &without(lines)
}

/// The rest of a port that brings lines of text.
fn text(key: &str, without: impl Fn(&str) -> String) -> String {
    let lines = match key {
        "timestamp" | "timestamp_format" => {
            "format = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"\ntimestamp = \"$.time\"\ntimestamp_format = \"s\""
        }
        _ => "format = \"json\"\ndevice = \"d\"\nmeasurement = \"m\"",
    };
    without(lines)
}

/// The rest of a database, of the version that has the key.
fn influxdb(key: &str, without: impl Fn(&str) -> String) -> String {
    let lines = match key {
        "retention_policy" | "username" => "url = \"http://h\"\nversion = 1\ndatabase = \"d\"",
        "password" | "password_file" => "url = \"http://h\"\nversion = 1\ndatabase = \"d\"\nusername = \"u\"",
        "org" | "bucket" | "token" | "token_file" | "read_token" | "read_token_file" => {
            "url = \"http://h\"\nversion = 2\norg = \"o\"\nbucket = \"b\""
        }
        _ => "url = \"http://h\"\ndatabase = \"d\"",
    };
    "[[influxdb]]\n".to_owned() + &without(lines)
}

/// Each key, with the path of its table.
fn all() -> Vec<(String, &'static Key)> {
    fn push(keys: &mut Vec<(String, &'static Key)>, table: &'static Table, above: &str) {
        let path = if table.name.is_empty() { String::new() } else { table.path(above) };
        keys.extend(table.keys().map(|key| (path.clone(), key)));
        table.below.iter().for_each(|below| push(keys, below, &path));
    }
    let mut keys = Vec::new();
    push(&mut keys, &ROOT, "");
    keys
}

/// Values that it takes, and values that it refuses; both as TOML has them.
fn values(takes: Takes) -> (Vec<String>, Vec<String>) {
    let sizes = |bytes: [u64; 2]| bytes.map(|bytes| format!("\"{}\"", units::write_size(bytes))).to_vec();
    let times = |ms: [u64; 2]| {
        ms.map(|ms| format!("\"{}\"", units::write_duration(Duration::from_millis(ms)))).to_vec()
    };
    let below = |low: u64| low.checked_sub(1);
    let outside = |low, high: u64| below(low).into_iter().chain([high + 1]);
    let one_size = |bytes: u64| format!("\"{bytes}B\"");
    let one_time = |ms: u64| format!("\"{ms}ms\"");
    match takes {
        Takes::OneOf(values) => (
            values.iter().map(|value| (*value).to_owned()).collect(),
            vec!["\"nothing of the kind\"".into(), "7".into()],
        ),
        Takes::Boolean => (vec!["true".into(), "false".into()], vec!["1".into(), "\"true\"".into()]),
        Takes::Number(low, high) => {
            let good = [low, high].map(|number| number.to_string()).to_vec();
            (good, outside(low, high).map(|number| number.to_string()).collect())
        }
        Takes::Size(low, high) => (sizes([low, high]), outside(low, high).map(one_size).collect()),
        Takes::Duration(low, high) => (times([low, high]), outside(low, high).map(one_time).collect()),
        Takes::Text(example) => (vec![example.to_owned()], vec!["true".into()]),
        Takes::Such(_, example) => (vec![example.to_owned()], vec!["1979-05-27".into()]),
        Takes::Nothing => (Vec::new(), vec!["\"a\"".into(), "true".into()]),
    }
}

#[test]
fn each_key_takes_what_is_said_and_refuses_the_rest() {
    let home = home();
    let keys = all();
    assert!(keys.len() > 80, "only {} keys", keys.len());
    for (path, key) in keys {
        let name = key.name;
        let (good, bad) = values(key.takes);
        for value in good {
            let text = with(&path, name, &value);
            if let Err(error) = read(home.path(), &text) {
                assert!(misses_its_file(&value, &error), "{path} {name} = {value}: {error}\n{text}");
            }
        }
        for value in bad {
            let text = with(&path, name, &value);
            let refused = read(home.path(), &text).expect_err(&text).to_string();
            assert!(refused.contains(name), "{path} {name} = {value}: {refused}");
            assert!(!refused.contains("unknown key"), "{path} {name} = {value}: {refused}");
        }
    }
}

/// The document with the key in its table.
fn with(path: &str, key: &str, value: &str) -> String {
    let around = around(path, key);
    let line = format!("{key} = {value}\n");
    match (path, key, value) {
        ("mqtt.subscribe", "format", "\"sparkplug\"") => {
            around.replace("a/{device}/{measurement}/{field}", "spBv1.0/#") + &line
        }
        ("serial", "format", "\"json\"" | "\"csv\"") => {
            format!("{around}{line}device = \"d\"\nmeasurement = \"m\"\n")
        }
        ("influxdb", "version", "2") => {
            around.replace("database = \"d\"", "org = \"o\"\nbucket = \"b\"") + &line
        }
        // There are tables behind it.
        ("mqtt", ..) => around.replacen("[[mqtt]]\n", &format!("[[mqtt]]\n{line}"), 1),
        _ => around + &line,
    }
}

/// Whether it is about a file that is not there, which only a key that is known can be.
fn misses_its_file(value: &str, error: &LoadError) -> bool {
    (value.ends_with(".pem\"") || value.ends_with(".key\"")) && error.to_string().contains("cannot be read")
}

#[test]
fn each_default_is_what_counts_without_the_key() {
    let home = home();
    let mut compared = 0;
    for (path, key) in all() {
        let around = around(&path, key.name);
        let without = read(home.path(), &around);
        match key.default {
            Standard::Is(value) => {
                let with = read(home.path(), &with(&path, key.name, value));
                let (with, without) =
                    (with.unwrap(), without.unwrap_or_else(|error| panic!("{error}\n{around}")));
                assert_eq!(with, without, "{path} {} = {value}", key.name);
                compared += 1;
            }
            Standard::Needed => {
                let refused = without.expect_err(&around).to_string();
                assert!(refused.contains(&format!("{}: is missing", key.name)), "{refused}");
            }
            Standard::None | Standard::Such(_) => {}
        }
    }
    assert!(compared > 25, "only {compared} defaults");
}

#[test]
fn a_table_that_is_not_described_has_no_keys() {
    assert!(!ROOT.below("no such").has("url"));
    assert!(ROOT.has("mqtt") && ROOT.has("data_dir") && !ROOT.has("url"));
    assert!(ROOT.below("mqtt").below("subscribe").has("rename"));
}
