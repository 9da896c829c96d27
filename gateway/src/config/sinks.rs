//! `[[influxdb]]` and `[sqlite]`.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::section::Section;
use super::{Influxdb, InfluxdbApi, SQLITE, Sqlite, secret};
use crate::dead_letters::INTAKE;

/// Most databases: each costs a thread and a cursor.
const MAX_DATABASES: usize = 16;

/// Reads all databases.
pub(super) fn read_influxdb(root: &mut Section<'_>, home: &Path) -> Vec<Influxdb> {
    let mut databases: Vec<Influxdb> = Vec::new();
    for mut section in root.tables("influxdb", MAX_DATABASES) {
        let database = read_database(&mut section, home);
        if let Some(database) = database {
            if databases.iter().any(|other| other.name == database.name) {
                let cure = "give each database a `name` of its own, which its cursor is kept under";
                section.fault("name", format!("{:?} is used twice; {cure}", database.name));
            }
            databases.push(database);
        }
        section.close();
    }
    databases
}

fn read_database(section: &mut Section<'_>, home: &Path) -> Option<Influxdb> {
    let name =
        if section.has("name") { section.parsed("name", parse_name) } else { Some("influxdb".to_owned()) };
    section.missing("url", "write `url = \"http://127.0.0.1:8086\"`");
    let url = section.parsed("url", parse_url);
    let batch_size = usize::try_from(section.number("batch_size", 1..=50_000, 5_000)).unwrap_or(5_000);
    let hour = Duration::from_secs(3600);
    let flush_interval = section.duration("flush_interval", Duration::ZERO..=hour, Duration::from_secs(1));
    section.later("required", Some("true"), "every database is required");
    section.later("start", Some("\"oldest\""), "a new database begins at the oldest reading kept");
    section.later("live_first", Some("false"), "the oldest reading goes first");
    let api = read_api(section, home);
    let read_token = secret::read(section, "read_token", "read_token_file", home);
    if read_token.is_some() && matches!(api, Some(InfluxdbApi::V1 { .. })) {
        section.fault(
            "read_token_file",
            "belongs to version 2; version 1 asks with `username` and `password_file`",
        );
    }
    Some(Influxdb { name: name?, url: url?, api: api?, batch_size, flush_interval, read_token })
}

fn parse_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err(format!("{text:?} is no name; use 1 to 64 letters, digits, \"-\", \"_\" or \".\""));
    }
    if text == SQLITE {
        return Err(format!("{text:?} is the name of the embedded store; choose another"));
    }
    if text == INTAKE {
        return Err(format!(
            "{text:?} is what dead letters are named by that no sink was given; choose another"
        ));
    }
    Ok(text.to_owned())
}

fn parse_url(text: &str) -> Result<String, String> {
    const FORM: &str = "write \"http://127.0.0.1:8086\"";
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(format!("{text:?} begins with neither http:// nor https://; {FORM}"));
    }
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}; {FORM}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; write `username` and `password_file` instead".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "{text:?} has more than host and port; {FORM}, and the database in keys of its own"
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

const V1_KEYS: [&str; 5] = ["database", "retention_policy", "username", "password_file", "password"];
const V2_KEYS: [&str; 4] = ["org", "bucket", "token_file", "token"];

/// The version is written, or the keys present decide.
fn read_api(section: &mut Section<'_>, home: &Path) -> Option<InfluxdbApi> {
    let has = |section: &Section<'_>, keys: &[&str]| keys.iter().any(|key| section.has(key));
    let version = match section.number("version", 1..=3, 0) {
        0 if section.has("version") => None,
        0 if has(section, &["org", "bucket"]) => Some(2),
        0 if section.has("database") => Some(1),
        0 => {
            let cure = "write version = 2 with `org` and `bucket`, or version = 1 with `database`";
            section.fault("version", format!("is missing, and no other key decides it; {cure}"));
            None
        }
        3 => {
            section.fault(
                "version",
                "3 is not supported yet; InfluxDB 3 also takes version = 2, its database as `bucket`",
            );
            None
        }
        version => Some(version),
    };
    let v1 = read_v1(section, home, version == Some(1));
    let v2 = read_v2(section, home, version == Some(2));
    let (own, other, other_keys) = match version? {
        1 => (v1, 2, &V2_KEYS[..]),
        _ => (v2, 1, &V1_KEYS[..]),
    };
    for key in other_keys.iter().filter(|key| section.has(key)) {
        section.fault(key, format!("belongs to version {other}; remove it or set version = {other}"));
    }
    own
}

fn read_v1(section: &mut Section<'_>, home: &Path, wanted: bool) -> Option<InfluxdbApi> {
    let database = section.parsed("database", not_empty);
    let retention_policy = section.parsed("retention_policy", not_empty);
    let username = section.text("username").map(|text| text.text.to_owned());
    let password = secret::read(section, "password", "password_file", home);
    if !wanted {
        return None;
    }
    section.missing("database", "name the database to write to");
    if password.is_some() && username.is_none() {
        section.fault("password_file", "is given without `username`; add `username`");
    }
    Some(InfluxdbApi::V1 { database: database?, retention_policy, username, password })
}

fn read_v2(section: &mut Section<'_>, home: &Path, wanted: bool) -> Option<InfluxdbApi> {
    let org = section.parsed("org", not_empty);
    let bucket = section.parsed("bucket", not_empty);
    let token = secret::read(section, "token", "token_file", home);
    if !wanted {
        return None;
    }
    section.missing("org", "name the organisation; for a server that has none, any text will do");
    section.missing("bucket", "name the bucket to write to");
    Some(InfluxdbApi::V2 { org: org?, bucket: bucket?, token })
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty; write its name".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads the embedded store: on when it is asked for, when no other sink is configured, and once its file exists.
pub(super) fn read_sqlite(root: &mut Section<'_>, data_dir: &Path) -> Option<Sqlite> {
    let other_sink = root.has("influxdb");
    let Some(mut section) = root.table("sqlite") else {
        let sqlite = Sqlite::at(data_dir.join("readings.sqlite"));
        return (!other_sink || sqlite.path.exists()).then_some(sqlite);
    };
    let enabled = section.boolean("enabled").unwrap_or(true);
    let path = section.parsed("path", not_empty).unwrap_or("readings.sqlite".to_owned());
    let defaults = Sqlite::at(data_dir.join(path));
    let century = Duration::from_secs(36_500 * 86_400);
    let retention = section.duration("retention", Duration::from_secs(60)..=century, defaults.retention);
    let max_bytes = section.size("max_bytes", 4 << 20..=1 << 43, defaults.max_bytes);
    if !enabled && !other_sink {
        section.fault("enabled", "without it no sink is left; add an [[influxdb]] or remove this key");
    }
    section.close();
    enabled.then_some(Sqlite { retention, max_bytes, ..defaults })
}

impl Sqlite {
    /// A store at `path` with the default limits.
    fn at(path: std::path::PathBuf) -> Sqlite {
        Sqlite { path, retention: Duration::from_secs(30 * 86_400), max_bytes: 2 << 30 }
    }
}
