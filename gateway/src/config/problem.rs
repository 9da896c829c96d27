//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// One fault: where it is, which key it is about, what is wrong and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, if the fault is on a line.
    pub line: Option<u32>,
    /// The key with its tables, `mqtt.subscribe.topic`; empty when the fault is the file's.
    pub key: String,
    /// Cause and cure.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(f)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A file is no TOML.
    #[error("{}", lines(.0))]
    Syntax(Vec<Problem>),
    /// The files can be read, or would be if they were there, but they do not say what can be done.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl LoadError {
    /// Everything that was found, in the order of files and lines.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            LoadError::Syntax(problems) | LoadError::Invalid(problems) => problems,
        }
    }

    /// Exit status of a command that met this error: 2 for a file that does not parse, else 1.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            LoadError::Syntax(_) => 2,
            LoadError::Invalid(_) => 1,
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Position of a value or key. Ordered as files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index into the list of files.
    pub(super) file: usize,
    /// From 1.
    pub(super) line: u32,
}

/// Collects problems while sections of the document are read, in any order.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    place: Place,
    key: String,
    message: String,
    weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// It makes the configuration invalid.
    Fault,
    /// What the configuration refers to is not there, or not for this process.
    Absent,
    /// It does not keep the gateway from running.
    Warning,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All that it says is needed.
    Everything,
    /// To find the gateway that runs by it: where its data is, and how its journal is opened. The gateway may have variables
    /// and secrets that whoever asks has not.
    Whereabouts,
}

impl Purpose {
    fn needs(self, key: &str) -> bool {
        self == Purpose::Everything || key == "data_dir" || key == "journal" || key.starts_with("journal.")
    }
}

/// What was found, each in the order of files and lines.
pub(super) struct Sorted {
    pub(super) faults: Vec<Problem>,
    /// What is not there and not needed.
    pub(super) absent: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Problems {
    /// A fault that makes the configuration invalid.
    pub(super) fn fault(&self, place: Place, key: String, message: impl Into<String>) {
        self.add(place, key, message.into(), Weight::Fault);
    }

    /// What is referred to and not there, such as a variable: a fault only for who needs it.
    pub(super) fn absent(&self, place: Place, key: String, message: impl Into<String>) {
        self.add(place, key, message.into(), Weight::Absent);
    }

    /// A fault that `check` counts and `run` only warns of.
    pub(super) fn warning(&self, place: Place, key: String, message: impl Into<String>) {
        self.add(place, key, message.into(), Weight::Warning);
    }

    fn add(&self, place: Place, key: String, message: String, weight: Weight) {
        self.found.borrow_mut().push(Found { place, key, message, weight });
    }

    /// Whether something is not there that was referred to, so that what is left out may be only unread.
    pub(super) fn has_absent(&self) -> bool {
        self.found.borrow().iter().any(|found| found.weight == Weight::Absent)
    }

    /// Everything, as it weighs for this purpose.
    pub(super) fn finish(self, files: &[PathBuf], purpose: Purpose) -> Sorted {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.place, &a.key).cmp(&(b.place, &b.key)));
        let mut sorted = Sorted { faults: Vec::new(), absent: Vec::new(), warnings: Vec::new() };
        for found in found {
            let list = match found.weight {
                Weight::Fault => &mut sorted.faults,
                Weight::Absent if purpose.needs(&found.key) => &mut sorted.faults,
                Weight::Absent => &mut sorted.absent,
                Weight::Warning => &mut sorted.warnings,
            };
            list.push(Problem {
                file: files.get(found.place.file).cloned().unwrap_or_default(),
                line: Some(found.place.line),
                key: found.key,
                message: found.message,
            });
        }
        sorted
    }
}
