//! The settings of a mosquitto on this machine, by its configuration file: which of them lose messages without a word.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where Debian and its relatives have it.
pub(super) const FILE: &str = "/etc/mosquitto/mosquitto.conf";

/// Longest file that is read, and most files of an included directory.
const BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 64;

/// Messages that should fit into a session's queue, and those that do unless told.
const QUEUED_LEAST: u64 = 10_000;
const QUEUED_DEFAULT: u64 = 1_000;
/// Seconds between two saves, which a kill may cost.
const AUTOSAVE_MOST: u64 = 300;
const AUTOSAVE_DEFAULT: u64 = 1_800;

/// The settings that decide what is lost, as a mosquitto takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    persistence: bool,
    /// 0 for no limit.
    max_queued_messages: u64,
    /// Seconds; 0 for never.
    autosave_interval: u64,
    autosave_on_changes: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            persistence: false,
            max_queued_messages: QUEUED_DEFAULT,
            autosave_interval: AUTOSAVE_DEFAULT,
            autosave_on_changes: false,
        }
    }
}

/// Whether a broker of this host would be the one that the file on this machine is for.
pub(super) fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// What is dangerous in a configuration, each with its cure; none if there is no such file, or it may not be read.
pub(super) fn dangers(file: &Path) -> Vec<String> {
    let mut settings = Settings::default();
    let Some(text) = read(file) else { return Vec::new() };
    for line in text.lines() {
        match setting(line) {
            Some(("include_dir", directory)) => {
                included(Path::new(directory)).iter().for_each(|text| settings.take(text));
            }
            _ => settings.take(line),
        }
    }
    let name = file.display();
    settings
        .dangers()
        .into_iter()
        .map(|danger| format!("if the broker is started with {name}: {danger}"))
        .collect()
}

impl Settings {
    fn take(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(setting) {
            match name {
                "persistence" => self.persistence = value == "true",
                "max_queued_messages" => set(&mut self.max_queued_messages, value),
                "autosave_interval" => set(&mut self.autosave_interval, value),
                "autosave_on_changes" => self.autosave_on_changes = value == "true",
                _ => {}
            }
        }
    }

    fn dangers(&self) -> Vec<String> {
        let mut dangers = Vec::new();
        if !self.persistence {
            dangers.push(
                "persistence is off, so a restart of the broker loses what waits for the gateway; write `persistence true`"
                    .to_owned(),
            );
        } else if !self.autosave_on_changes
            && (self.autosave_interval == 0 || self.autosave_interval > AUTOSAVE_MOST)
        {
            let lost = match self.autosave_interval {
                0 => "everything since its start".to_owned(),
                seconds => format!("up to {seconds} s of messages"),
            };
            dangers.push(format!(
                "a broker that is killed forgets {lost} that wait for the gateway; write `autosave_interval 60`"
            ));
        }
        let queued = self.max_queued_messages;
        if queued > 0 && queued < QUEUED_LEAST {
            dangers.push(format!(
                "while the gateway is away the broker keeps {queued} messages and drops the rest; write `max_queued_messages 100000`"
            ));
        }
        dangers
    }
}

/// Name and value of a line that sets something.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (name, value) = line.split_once(char::is_whitespace)?;
    (!line.starts_with('#')).then(|| (name, value.trim()))
}

fn set(place: &mut u64, value: &str) {
    if let Ok(number) = value.parse() {
        *place = number;
    }
}

/// The files of a directory that mosquitto reads, in its order.
fn included(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    paths.sort_unstable();
    paths.iter().take(FILES_MAX).filter_map(|path| read(path)).collect()
}

fn read(file: &Path) -> Option<String> {
    let is_short = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= BYTES_MAX);
    is_short.then(|| fs::read(file).ok()).flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_of_this_machine_is_known_by_its_host() {
        for host in ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]", "127.0.1.1"] {
            assert!(is_here(host), "{host}");
        }
        for host in ["192.168.1.5", "broker.lan", "localhost.lan", ""] {
            assert!(!is_here(host), "{host}");
        }
    }

    #[test]
    fn settings_that_lose_are_named_with_their_cure_wherever_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        let (file, more) = (directory.path().join("mosquitto.conf"), directory.path().join("conf.d"));
        fs::create_dir(&more).unwrap();
        let found = |main: &str, included: &str| {
            fs::write(&file, main.replace("DIR", more.to_str().unwrap())).unwrap();
            fs::write(more.join("own.conf"), included).unwrap();
            fs::write(more.join("own.conf.bak"), "persistence false\n").unwrap();
            dangers(&file)
        };
        let cures = |found: &[String]| -> Vec<String> {
            found.iter().map(|text| text.split('`').nth(1).unwrap().to_owned()).collect()
        };
        let nothing = found("# persistence true\nlistener 1883\n", "");
        assert_eq!(cures(&nothing), ["persistence true", "max_queued_messages 100000"]);
        assert!(nothing[0].contains(file.to_str().unwrap()));
        let of_debian = "persistence true\ninclude_dir DIR\n";
        assert_eq!(cures(&found(of_debian, "")), ["autosave_interval 60", "max_queued_messages 100000"]);
        assert!(found(of_debian, "autosave_interval 60\n  max_queued_messages\t100000\n").is_empty());
        assert!(found(of_debian, "autosave_on_changes true\nmax_queued_messages 0\n").is_empty());
        assert_eq!(
            cures(&found(of_debian, "persistence false\nmax_queued_messages 20000\n")),
            ["persistence true"]
        );
        assert!(found(of_debian, "autosave_interval 0\n")[0].contains("since its start"));
        assert!(dangers(&directory.path().join("none")).is_empty());
    }
}
