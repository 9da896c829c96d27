//! `[[influxdb]]` and `[sqlite]`.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::section::Section;
use super::{Influxdb, InfluxdbApi, SQLITE, Service, Sqlite, Start, filter, secret};
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
    let rate = section.size("max_bytes_per_second", 1 << 10..=1 << 32, 0);
    let bytes_per_second_max = Some(rate).filter(|rate| *rate > 0);
    let live_first = section.boolean("live_first").unwrap_or(false);
    let service = Service { live_first, bytes_per_second_max, ..read_service(section) };
    let api = read_api(section, home);
    let read_token = secret::read(section, "read_token", "read_token_file", home);
    if read_token.is_some() && matches!(api, Some(InfluxdbApi::V1 { .. })) {
        section.fault(
            "read_token_file",
            "belongs to versions 2 and 3; version 1 asks with `username` and `password_file`",
        );
    }
    Some(Influxdb { name: name?, url: url?, api: api?, batch_size, flush_interval, read_token, service })
}

/// Reads what every sink may have.
fn read_service(section: &mut Section<'_>) -> Service {
    let start = section.word("start", &[("oldest", Start::Oldest), ("now", Start::Now)]);
    let required = section.boolean("required").unwrap_or(true);
    let filter = filter::read(section);
    Service { start: start.unwrap_or_default(), required, filter, ..Service::default() }
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
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has a query or fragment; {FORM}, and the database in keys of its own"));
    }
    let path = url.path().trim_end_matches('/');
    if let Some(own) = ["/api/v2/write", "/api/v3/write_lp", "/write"].iter().find(|own| path.ends_with(*own))
    {
        return Err(format!("{text:?} ends in {own}, which Forebay adds itself; leave it out"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Keys that only some versions have a use for.
const KEYS: [(&str, &[u64]); 9] = [
    ("database", &[1, 3]),
    ("retention_policy", &[1]),
    ("username", &[1]),
    ("password_file", &[1]),
    ("password", &[1]),
    ("org", &[2]),
    ("bucket", &[2]),
    ("token_file", &[2, 3]),
    ("token", &[2, 3]),
];

/// The version is written, or the keys present decide; where these fit versions 1 and 3, the server does.
fn read_api(section: &mut Section<'_>, home: &Path) -> Option<InfluxdbApi> {
    let has = |section: &Section<'_>, keys: &[&str]| keys.iter().any(|key| section.has(key));
    let version = match section.number("version", 1..=3, 0) {
        0 if section.has("version") => None,
        0 if has(section, &["org", "bucket"]) => Some(2),
        0 if has(section, &["retention_policy", "username", "password_file", "password"]) => Some(1),
        0 if section.has("database") => Some(0),
        0 => {
            let cure = "write `org` and `bucket` for InfluxDB 2, or `database` for InfluxDB 1 and 3";
            section.fault("version", format!("is missing, and no other key decides it; {cure}"));
            None
        }
        version => Some(version),
    };
    let database = section.parsed("database", not_empty);
    let retention_policy = section.parsed("retention_policy", not_empty);
    let username = section.text("username").map(|text| text.text.to_owned());
    let password = secret::read(section, "password", "password_file", home);
    let org = section.parsed("org", not_empty);
    let bucket = section.parsed("bucket", not_empty);
    let token = secret::read(section, "token", "token_file", home);
    let version = version?;
    let is_misplaced =
        |(key, versions): &&(&str, &[u64])| version != 0 && !versions.contains(&version) && section.has(key);
    for (key, versions) in KEYS.iter().filter(is_misplaced) {
        let owner = versions.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ");
        section.fault(key, format!("belongs to version {owner}; remove it or set version = {}", versions[0]));
    }
    match version {
        1 => {
            section.missing("database", "name the database to write to");
            if password.is_some() && username.is_none() {
                section.fault("password_file", "is given without `username`; add `username`");
            }
            Some(InfluxdbApi::V1 { database: database?, retention_policy, username, password })
        }
        2 => {
            section.missing("org", "name the organisation; for a server that has none, any text will do");
            section.missing("bucket", "name the bucket to write to");
            Some(InfluxdbApi::V2 { org: org?, bucket: bucket?, token })
        }
        3 => {
            section.missing("database", "name the database to write to");
            Some(InfluxdbApi::V3 { database: database?, token })
        }
        _ => Some(InfluxdbApi::Open { database: database?, token }),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty; write its name".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads the embedded store: on when it is asked for, when no other sink is configured, and once its file exists. Where it
/// is off for want of a file it comes second.
pub(super) fn read_sqlite(root: &mut Section<'_>, data_dir: &Path) -> [Option<Sqlite>; 2] {
    let other_sink = root.has("influxdb");
    let Some(mut section) = root.table("sqlite") else {
        let sqlite = Sqlite::at(data_dir.join("readings.sqlite"));
        return if !other_sink || sqlite.path.exists() { [Some(sqlite), None] } else { [None, Some(sqlite)] };
    };
    let enabled = section.boolean("enabled").unwrap_or(true);
    let path = section.parsed("path", not_empty).unwrap_or("readings.sqlite".to_owned());
    let defaults = Sqlite::at(data_dir.join(path));
    let century = Duration::from_secs(36_500 * 86_400);
    let retention = section.duration("retention", Duration::from_secs(60)..=century, defaults.retention);
    let max_bytes = section.size("max_bytes", 4 << 20..=1 << 43, defaults.max_bytes);
    let service = read_service(&mut section);
    if !enabled && !other_sink {
        section.fault("enabled", "without it no sink is left; add an [[influxdb]] or remove this key");
    }
    section.close();
    [enabled.then_some(Sqlite { retention, max_bytes, service, ..defaults }), None]
}

impl Sqlite {
    /// A store at `path` with the default limits.
    fn at(path: std::path::PathBuf) -> Sqlite {
        let retention = Duration::from_secs(30 * 86_400);
        Sqlite { path, retention, max_bytes: 2 << 30, service: Service::default() }
    }
}
