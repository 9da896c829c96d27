//! From files to [`Config`]: finds and merges the files, and reads the tables that are too small for a module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::document::{self, Table, Variables};
use super::problem::{LoadError, Place, Problem, Problems, Purpose, Sorted};
use super::section::Section;
use super::units;
use super::{
    AckAfter, Clock, Config, DeadLetters, Device, Journal, LogLevel, Trust, WhenFull, brokers,
    check_tag_name, http, ports, sinks,
};
use crate::dead_letters;
use crate::record::check_name;

/// A configuration, and what its reading left to say.
#[derive(Debug)]
pub struct Loaded {
    /// What the gateway runs by.
    pub config: Config,
    /// The files it was read from, the main one first.
    pub files: Vec<PathBuf>,
    /// Faults that do not keep the gateway from running, such as a secret that everybody can read.
    pub warnings: Vec<Problem>,
    /// Variables and secrets that this process has not; empty if everything was to be there.
    absent: Vec<Problem>,
}

impl Loaded {
    /// The configuration, if nothing of it is absent.
    ///
    /// # Errors
    /// What is.
    pub fn complete(&self) -> Result<&Config, LoadError> {
        if self.absent.is_empty() { Ok(&self.config) } else { Err(LoadError::Invalid(self.absent.clone())) }
    }
}

/// Most bytes of one file.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Most files in `conf.d`.
const MAX_FILES: usize = 1000;

/// Loads the main file and `conf.d/*.toml` beside it.
///
/// # Errors
/// All problems that were found, each with file, line, key and cure.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    load_with(path, &|name| std::env::var(name).ok(), Purpose::Everything)
}

/// As [`load`], to find the gateway that runs by it: a variable or a secret that only the gateway has is no fault, unless
/// `data_dir` or the journal needs it, and what it belongs to may be missing in the configuration.
///
/// # Errors
/// As [`load`].
pub fn load_whereabouts(path: &Path) -> Result<Loaded, LoadError> {
    load_with(path, &|name| std::env::var(name).ok(), Purpose::Whereabouts)
}

/// As [`load`], with the environment as an argument.
pub(super) fn load_with(
    path: &Path,
    variables: Variables<'_>,
    purpose: Purpose,
) -> Result<Loaded, LoadError> {
    let files = files(path).map_err(|problem| LoadError::Invalid(vec![problem]))?;
    let texts = files.clone().into_iter().map(|file| read_text(&file));
    of_texts(path, files, texts, variables, purpose)
}

/// The configuration that these files hold, the first of which is the main one, at `path`.
pub(super) fn of_texts(
    path: &Path,
    files: Vec<PathBuf>,
    texts: impl Iterator<Item = Result<Vec<u8>, Problem>>,
    variables: Variables<'_>,
    purpose: Purpose,
) -> Result<Loaded, LoadError> {
    let problems = Problems::default();
    let mut syntax = Vec::new();
    let mut root: Option<Table> = None;
    for ((index, file), text) in files.iter().enumerate().zip(texts) {
        let text = text.map_err(|problem| LoadError::Invalid(vec![problem]))?;
        let parsed = match String::from_utf8(text) {
            Ok(text) => document::parse(&text, index, variables, &problems),
            Err(error) => {
                Err(vec![(line_of(error.as_bytes(), error.utf8_error().valid_up_to()), NO_UTF8.into())])
            }
        };
        match (parsed, &mut root) {
            (Ok(table), Some(root)) => document::merge(root, table, "", &problems),
            (Ok(table), root) => *root = Some(table),
            (Err(errors), _) => syntax.extend(errors.into_iter().map(|(line, message)| Problem {
                file: file.clone(),
                line: Some(line),
                key: String::new(),
                message: format!("is no TOML: {message}"),
            })),
        }
    }
    if !syntax.is_empty() {
        return Err(LoadError::Syntax(syntax));
    }
    let root = root.unwrap_or(Table { place: Place { file: 0, line: 1 }, entries: BTreeMap::new() });
    let home = path.parent().unwrap_or(Path::new(""));
    let config = read_root(Section::root(&root, &problems), home);
    let Sorted { faults, absent, warnings } = problems.finish(&files, purpose);
    if !faults.is_empty() {
        return Err(LoadError::Invalid(faults));
    }
    Ok(Loaded { config, files, warnings, absent })
}

const NO_UTF8: &str = "it is not written in UTF-8";

fn line_of(bytes: &[u8], at: usize) -> u32 {
    let before = bytes.get(..at).unwrap_or(bytes).iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

fn files(main: &Path) -> Result<Vec<PathBuf>, Problem> {
    let folder = main.parent().unwrap_or(Path::new("")).join("conf.d");
    let unreadable = |error: &io::Error| Problem {
        file: folder.clone(),
        line: None,
        key: String::new(),
        message: format!("cannot be read: {error}; let the user that Forebay runs as read it"),
    };
    let mut extra = Vec::new();
    match fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|error| unreadable(&error))?.path();
                let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
                if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                    extra.push(path);
                }
            }
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(unreadable(&error)),
    }
    if extra.len() > MAX_FILES {
        let message = format!("holds {} files; at most {MAX_FILES} are read", extra.len());
        return Err(Problem { file: folder, line: None, key: String::new(), message });
    }
    extra.sort();
    extra.insert(0, main.to_owned());
    Ok(extra)
}

fn read_text(file: &Path) -> Result<Vec<u8>, Problem> {
    let fault = |message| Problem { file: file.to_owned(), line: None, key: String::new(), message };
    let bytes = fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            fault("there is no such file; create it or name another with --config".to_owned())
        }
        _ => fault(format!("cannot be read: {error}; let the user that Forebay runs as read it")),
    })?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(fault(format!("has {} bytes; no configuration is that long", bytes.len())));
    }
    Ok(bytes)
}

fn read_root(mut root: Section<'_>, home: &Path) -> Config {
    let data_dir =
        root.parsed("data_dir", parse_data_dir).unwrap_or_else(|| PathBuf::from("/var/lib/forebay"));
    let tags = read_global_tags(&mut root);
    let devices = read_devices(&mut root);
    let mqtt = brokers::read(&mut root, home);
    let serial = ports::read(&mut root);
    let ack_after = read_ack(&mut root);
    let journal = read_journal(&mut root);
    let influxdb = sinks::read_influxdb(&mut root, home);
    let [sqlite, sqlite_without_file] = sinks::read_sqlite(&mut root, &data_dir);
    let dead_letters = read_dead_letters(&mut root);
    let clock = read_clock(&mut root);
    let health = read_health(&mut root);
    let http = http::read(&mut root, home, &influxdb, sqlite.is_some());
    let log_level = read_log(&mut root);
    if !root.has("mqtt") && !root.has("serial") {
        root.warning("mqtt", "nothing is read from anywhere; add an [[mqtt]] or a [[serial]]");
    }
    root.close();
    Config {
        data_dir,
        tags,
        devices,
        mqtt,
        serial,
        ack_after,
        journal,
        influxdb,
        sqlite,
        sqlite_without_file,
        dead_letters,
        clock,
        health,
        http,
        log_level,
    }
}

fn parse_data_dir(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty; write a directory".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn read_global_tags(root: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut tags = root.table("tags").map(|section| read_tags(&section)).unwrap_or_default();
    tags.entry("gateway".to_owned()).or_insert_with(host_name);
    tags
}

/// The name of this machine, as far as it can be a tag.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() || check_name("tag value", &name).is_err() { "forebay".to_owned() } else { name }
}

fn read_tags(section: &Section<'_>) -> BTreeMap<String, String> {
    let tags = section.named_texts();
    for (name, value) in &tags {
        let fault = check_tag_name(name).err();
        if let Some(message) = fault.or_else(|| check_name("tag value", value).err().map(|e| e.to_string())) {
            section.fault(name, message);
        }
    }
    tags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn read_devices(root: &mut Section<'_>) -> BTreeMap<String, Device> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    let sections = root.table("devices").map(|devices| devices.named_tables()).unwrap_or_default();
    for (id, mut section) in sections {
        let name = section.parsed("name", parse_device_name);
        let tags = section.table("tags").map(|tags| read_tags(&tags)).unwrap_or_default();
        if let Some((other, _)) = name.as_ref().and_then(|_| devices.iter().find(|(_, d)| d.name == name)) {
            section.fault("name", format!("the device {other:?} has this name too; give each its own"));
        }
        section.close();
        devices.insert(id.to_owned(), Device { name, tags });
    }
    devices
}

fn parse_device_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty; write a name or remove the key".to_owned());
    }
    check_name("tag value", text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn read_ack(root: &mut Section<'_>) -> AckAfter {
    let mut after = AckAfter::default();
    if let Some(mut section) = root.table("ack") {
        let words =
            [("memory", AckAfter::Memory), ("journal", AckAfter::Journal), ("database", AckAfter::Database)];
        after = section.word("after", &words).unwrap_or_default();
        section.close();
    }
    after
}

fn read_journal(root: &mut Section<'_>) -> Journal {
    let mut journal =
        Journal { max_bytes: 1 << 30, commit_interval: Duration::ZERO, when_full: WhenFull::Auto };
    if let Some(mut section) = root.table("journal") {
        journal.max_bytes = section.size("max_bytes", 2 << 20..=1 << 40, journal.max_bytes);
        let longest = Duration::from_secs(10);
        journal.commit_interval =
            section.duration("commit_interval", Duration::ZERO..=longest, journal.commit_interval);
        let words =
            [("auto", WhenFull::Auto), ("refuse", WhenFull::Refuse), ("drop-oldest", WhenFull::DropOldest)];
        journal.when_full = section.word("when_full", &words).unwrap_or(journal.when_full);
        section.close();
    }
    journal
}

fn read_dead_letters(root: &mut Section<'_>) -> DeadLetters {
    let mut dead_letters = DeadLetters { max_bytes: 64 << 20 };
    if let Some(mut section) = root.table("dead_letters") {
        let range = dead_letters::MAX_BYTES_LEAST..=1 << 36;
        dead_letters.max_bytes = section.size("max_bytes", range, dead_letters.max_bytes);
        section.close();
    }
    dead_letters
}

/// How long after the machine's start its clock is believed without a reason: by default, and at most.
const CLOCK_MAX_WAIT: Duration = Duration::from_secs(600);
const CLOCK_MAX_WAIT_MOST: Duration = Duration::from_secs(30 * 86_400);

fn read_clock(root: &mut Section<'_>) -> Clock {
    let (mut trust, mut max_wait) = (Trust::Auto, CLOCK_MAX_WAIT);
    if let Some(mut section) = root.table("clock") {
        trust = section.word("trust", &[("auto", Trust::Auto), ("always", Trust::Always)]).unwrap_or(trust);
        max_wait = section.duration("max_wait", Duration::ZERO..=CLOCK_MAX_WAIT_MOST, max_wait);
        section.close();
    }
    Clock { trust, max_wait }
}

fn read_log(root: &mut Section<'_>) -> LogLevel {
    let mut level = LogLevel::default();
    if let Some(mut section) = root.table("log") {
        level = section.word("level", &LogLevel::WORDS).unwrap_or(level);
        section.close();
    }
    level
}

/// How often the gateway stores its own health: by default, and how often at most.
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
const HEALTH_INTERVAL_LEAST: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL_MOST: Duration = Duration::from_secs(86_400);

fn read_health(root: &mut Section<'_>) -> Option<Duration> {
    let mut interval = Some(HEALTH_INTERVAL);
    if let Some(mut section) = root.table("health") {
        interval = section.parsed("interval", parse_health_interval).unwrap_or(interval);
        section.close();
    }
    interval
}

fn parse_health_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let interval = units::duration(text).map_err(|message| format!("{message}, or \"off\""))?;
    if (HEALTH_INTERVAL_LEAST..=HEALTH_INTERVAL_MOST).contains(&interval) {
        return Ok(Some(interval));
    }
    Err(format!("{text:?} is out of range; use 1s to 1d, or \"off\""))
}
