//! Databases.

use super::*;

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
