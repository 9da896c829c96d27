//! Patterns for the paths of ports: `*` and `?` in the last part of a path, as a shell reads them.

use std::fmt;
use std::path::{Path, PathBuf};

/// A pattern such as `/dev/ttyUSB*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPattern {
    directory: PathBuf,
    name: String,
}

/// Most names that are looked at in the directory, as a bound; `/dev` has some hundreds.
const NAMES_MAX: usize = 16_384;

impl PortPattern {
    /// Reads a pattern, which may be a plain path too.
    ///
    /// # Errors
    /// Says what is wrong and how patterns are written.
    pub fn parse(text: &str) -> Result<PortPattern, String> {
        let wrong = |what: &str| Err(format!("{text:?} {what}; write for example \"/dev/ttyUSB*\""));
        let Some((directory, name)) = text.rsplit_once('/').filter(|_| text.starts_with('/')) else {
            return wrong("is no path");
        };
        if directory.contains(['*', '?', '[']) {
            return wrong("has a pattern before its last \"/\"");
        }
        if name.contains('[') {
            return wrong("has \"[\", and patterns know \"*\" and \"?\" only");
        }
        if name.is_empty() {
            return wrong("is a directory");
        }
        let directory = if directory.is_empty() { "/" } else { directory };
        Ok(PortPattern { directory: directory.into(), name: name.to_owned() })
    }

    /// The paths that it matches now, in the order of their names.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .take(NAMES_MAX)
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| matches(&self.name, name)))
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    }

    /// Whether it matches this path.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        path.parent() == Some(&self.directory)
            && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| matches(&self.name, name))
    }
}

impl fmt::Display for PortPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.join(&self.name).display().fmt(f)
    }
}

/// Whether a pattern matches all of a name. Work is bounded by the product of their lengths.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the latest `*` stands, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while of < name.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, of));
                at += 1;
            }
            (Some(c), _) if *c == '?' || *c == name[of] => (at, of) = (at + 1, of + 1),
            (_, Some((before, taken))) => {
                star = Some((before, taken + 1));
                (at, of) = (before + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_has_it() {
        for (pattern, name, expected) in [
            ("ttyUSB*", "ttyUSB0", true),
            ("ttyUSB*", "ttyUSB", true),
            ("ttyUSB*", "ttyACM0", false),
            ("tty?CM*", "ttyACM12", true),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxa", false),
            ("?", "", false),
            ("*", "", true),
            ("port", "port", true),
            ("port", "port1", false),
            ("é?", "éü", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_those_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b1", "b0", "a0"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let pattern = PortPattern::parse(&format!("{}/b*", directory.path().display())).unwrap();
        assert_eq!(pattern.paths(), [directory.path().join("b0"), directory.path().join("b1")]);
        assert!(pattern.matches(&directory.path().join("b7")) && !pattern.matches(Path::new("/b7")));
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        for (text, part) in [
            ("ttyUSB*", "no path"),
            ("/dev/*/x", "before its last"),
            ("/dev/tty[0-9]", "only"),
            ("/dev/", "directory"),
        ] {
            assert!(PortPattern::parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
