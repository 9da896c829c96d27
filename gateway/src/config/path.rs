//! Paths into a JSON payload, `$.a.b[0]` and nothing else, and selectors that are such a path or a fixed text.

use std::fmt;

/// A path to one place in a payload. At least one step, but for `readings`, where the payload itself is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    /// From the payload's top down.
    pub steps: Vec<Step>,
}

/// One step of a [`JsonPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into an array, from 0.
    Index(usize),
}

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    /// Says what is wrong and how paths are written.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let wrong = |what: &str| Err(format!("{text:?} {what}; paths are written \"$.a.b[0]\""));
        let Some(mut rest) = text.strip_prefix('$') else {
            return wrong("does not begin with \"$\"");
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (key, tail) = after.split_at(end);
                if key.is_empty() {
                    return wrong("has an empty name");
                }
                if key.contains(|c: char| c.is_whitespace() || "*?@()]'\"".contains(c)) {
                    return wrong("has more than plain names and indexes");
                }
                steps.push(Step::Key(key.to_owned()));
                rest = tail;
            } else if let Some((index, tail)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
                let Some(index) = index.parse().ok().filter(|_| digits) else {
                    return wrong("has an index that is no number");
                };
                steps.push(Step::Index(index));
                rest = tail;
            } else {
                return wrong("is no path");
            }
        }
        if steps.is_empty() {
            return wrong("names no leaf");
        }
        Ok(JsonPath { steps })
    }

    /// The last name of the path, which is what a tag made from it is called; `None` when it has only indexes.
    #[must_use]
    pub fn last_name(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
    }

    /// The column of a table that it names; `None` if it goes deeper than a table does.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        match &self.steps[..] {
            [Step::Key(name)] => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.steps {
            match step {
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a device or a measurement comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// From the payload.
    Path(JsonPath),
    /// The same for every message.
    Fixed(String),
}

impl Selector {
    /// Reads a selector: what begins with `$` is a path.
    ///
    /// # Errors
    /// As [`JsonPath::parse`]; and an empty text.
    pub fn parse(text: &str) -> Result<Selector, String> {
        if text.starts_with('$') {
            JsonPath::parse(text).map(Selector::Path)
        } else if text.is_empty() {
            Err("is empty; give a text or a path such as \"$.id\"".to_owned())
        } else {
            Ok(Selector::Fixed(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written_back() {
        let path = JsonPath::parse("$.a.b[0].c-d").unwrap();
        let key = |text: &str| Step::Key(text.to_owned());
        assert_eq!(path.steps, [key("a"), key("b"), Step::Index(0), key("c-d")]);
        assert_eq!(path.to_string(), "$.a.b[0].c-d");
        assert_eq!(path.last_name(), Some("c-d"));
        assert_eq!(JsonPath::parse("$.a[3]").unwrap().last_name(), Some("a"));
        assert_eq!(JsonPath::parse("$[1]").unwrap().last_name(), None);
    }

    #[test]
    fn anything_beyond_names_and_indexes_is_refused() {
        for text in [
            "",
            "a",
            "$",
            "$a",
            "$..a",
            "$.",
            "$.a.",
            "$.*",
            "$.a[*]",
            "$.a[-1]",
            "$.a[+1]",
            "$.a[",
            "$.a[]",
            "$['a']",
            "$.a b",
            "$.a]",
            "$.a[0]b",
            "$.a[?(@.x)]",
            "$.a[99999999999999999999]",
        ] {
            let error = JsonPath::parse(text).unwrap_err();
            assert!(error.contains("\"$.a.b[0]\""), "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_is_a_path_or_a_text() {
        assert!(matches!(Selector::parse("$.id"), Ok(Selector::Path(_))));
        assert_eq!(Selector::parse("climate"), Ok(Selector::Fixed("climate".to_owned())));
        assert!(Selector::parse("$id").is_err());
        assert!(Selector::parse("").is_err());
    }
}
