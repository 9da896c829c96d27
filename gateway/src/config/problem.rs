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
    fatal: bool,
}

impl Problems {
    /// A fault that makes the configuration invalid.
    pub(super) fn fault(&self, place: Place, key: String, message: impl Into<String>) {
        self.found.borrow_mut().push(Found { place, key, message: message.into(), fatal: true });
    }

    /// A fault that `check` counts and `run` only warns of.
    pub(super) fn warning(&self, place: Place, key: String, message: impl Into<String>) {
        self.found.borrow_mut().push(Found { place, key, message: message.into(), fatal: false });
    }

    /// The faults and the warnings, in the order of files and lines.
    pub(super) fn finish(self, files: &[PathBuf]) -> (Vec<Problem>, Vec<Problem>) {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.place, &a.key).cmp(&(b.place, &b.key)));
        let (faults, warnings): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|f| f.fatal);
        let name = |f: Found| Problem {
            file: files.get(f.place.file).cloned().unwrap_or_default(),
            line: Some(f.place.line),
            key: f.key,
            message: f.message,
        };
        (faults.into_iter().map(name).collect(), warnings.into_iter().map(name).collect())
    }
}
