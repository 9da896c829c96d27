//! One table of the document, handed out by key and type. What was asked for and is described is known; the rest is a fault.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Kind, Table, Value, join};
use super::problem::{Place, Problems};
use super::{foreign, reference, units};

/// A table being read.
pub(super) struct Section<'a> {
    table: &'a Table,
    path: String,
    described: &'static reference::Table,
    asked: Vec<&'static str>,
    problems: &'a Problems,
}

/// A text and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    /// No variable was put in.
    pub(super) literal: bool,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(table: &'a Table, problems: &'a Problems) -> Section<'a> {
        Section { table, path: String::new(), described: &reference::ROOT, asked: Vec::new(), problems }
    }

    /// A table in it.
    fn within(&self, table: &'a Table, path: String, described: &'static reference::Table) -> Section<'a> {
        Section { table, path, described, asked: Vec::new(), problems: self.problems }
    }

    /// Whether the key is written, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.entries.contains_key(key)
    }

    /// Records a fault of a key: on its line, or on the section's when it is missing.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        self.problems.fault(self.place(key), join(&self.path, key), message);
    }

    /// Records that what a key refers to is not there, or not for this process.
    pub(super) fn absent(&self, key: &str, message: impl Into<String>) {
        self.problems.absent(self.place(key), join(&self.path, key), message);
    }

    /// Whether anything that the configuration refers to was not there so far.
    pub(super) fn has_absent(&self) -> bool {
        self.problems.has_absent()
    }

    /// Records what `check` counts as a fault and `run` only warns of.
    pub(super) fn warning(&self, key: &str, message: impl Into<String>) {
        self.problems.warning(self.place(key), join(&self.path, key), message);
    }

    /// Records that a key must be there, unless it is there and was refused already.
    pub(super) fn missing(&self, key: &str, cure: &str) {
        if !self.has(key) {
            self.fault(key, format!("is missing; {cure}"));
        }
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Text<'a>> {
        let value = self.ask(key)?;
        match &value.kind {
            Kind::Text { text, literal } => Some(Text { text, literal: *literal }),
            other => self.wrong_type(key, other, "a text"),
        }
    }

    /// A text that is read further by `parse`, which returns what is wrong with it.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(text.text).map_err(|message| self.fault(key, message)).ok()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
                format!("{text:?} is not one of {}", all.join(", "))
            })
        })
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.ask(key)?;
        match &value.kind {
            Kind::Boolean(value) => Some(*value),
            other => self.wrong_type(key, other, "true or false"),
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = self.ask(key) else { return default };
        let Kind::Integer(number) = &value.kind else {
            return self.wrong_type(key, &value.kind, "a whole number").unwrap_or(default);
        };
        match u64::try_from(*number).ok().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let (low, high) = (range.start(), range.end());
                self.fault(key, format!("{number} is out of range; use {low} to {high}"));
                default
            }
        }
    }

    /// A size in bytes in a range: a text with a unit, or a plain number of bytes.
    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = self.ask(key) else { return default };
        let bytes = match &value.kind {
            Kind::Text { text, .. } => units::size(text),
            Kind::Integer(bytes) => u64::try_from(*bytes).map_err(|_| format!("{bytes} is no size")),
            other => return self.wrong_type(key, other, "a size such as \"1GiB\"").unwrap_or(default),
        };
        match bytes {
            Ok(bytes) if range.contains(&bytes) => bytes,
            Ok(bytes) => {
                let [given, low, high] = [bytes, *range.start(), *range.end()].map(units::write_size);
                self.fault(key, format!("{given} is out of range; use {low} to {high}"));
                default
            }
            Err(message) => {
                self.fault(key, message);
                default
            }
        }
    }

    /// A duration in a range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let parse = |text: &str| {
            let duration = units::duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let [low, high] = [*range.start(), *range.end()].map(units::write_duration);
            Err(format!("{text} is out of range; use {low} to {high}"))
        };
        if let Some(value @ (Kind::Integer(_) | Kind::Other(_))) = self.kind(key) {
            self.asked.push(key);
            return self.wrong_type(key, value, "a duration such as \"250ms\" or \"30d\"").unwrap_or(default);
        }
        self.parsed(key, parse).unwrap_or(default)
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<&'a str> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let Kind::Array(items) = &value.kind else {
            return self.wrong_type(key, &value.kind, "a list of texts").unwrap_or_default();
        };
        let text = |item: &'a Value| match &item.kind {
            Kind::Text { text, .. } => Some(text.as_str()),
            other => self.wrong_type(key, other, "a list of texts"),
        };
        items.iter().filter_map(text).collect()
    }

    /// A truth value, or a list of texts.
    pub(super) fn boolean_or_texts(&mut self, key: &'static str) -> Option<Result<bool, Vec<&'a str>>> {
        match self.kind(key) {
            Some(Kind::Array(_)) => Some(Err(self.texts(key))),
            Some(Kind::Boolean(value)) => {
                self.asked.push(key);
                Some(Ok(*value))
            }
            _ => {
                let value = self.ask(key)?;
                self.wrong_type(key, &value.kind, "true, false or a list of texts")
            }
        }
    }

    /// A table.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.ask(key)?;
        match &value.kind {
            Kind::Table(table) => Some(self.within(table, join(&self.path, key), self.described.below(key))),
            other => self.wrong_type(key, other, &format!("a table: write [{}]", join(&self.path, key))),
        }
    }

    /// An array of tables of at most `limit` members.
    pub(super) fn tables(&mut self, key: &'static str, limit: usize) -> Vec<Section<'a>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let path = join(&self.path, key);
        let expected = format!("an array of tables: write [[{path}]]");
        let Kind::Array(items) = &value.kind else {
            return self.wrong_type(key, &value.kind, &expected).unwrap_or_default();
        };
        if items.len() > limit {
            self.fault(key, format!("there are {} of them; at most {limit} are supported", items.len()));
        }
        let section = |item: &'a Value| match &item.kind {
            Kind::Table(table) => Some(self.within(table, path.clone(), self.described.below(key))),
            other => self.wrong_type(key, other, &expected),
        };
        items.iter().filter_map(section).collect()
    }

    /// Every key of a table whose keys are names: as texts.
    pub(super) fn named_texts(&self) -> BTreeMap<&'a str, &'a str> {
        let text = |(key, (_, value)): (&'a String, &'a (Place, Value))| match &value.kind {
            Kind::Text { text, .. } => Some((key.as_str(), text.as_str())),
            other => self.wrong_type(key, other, "a text"),
        };
        self.table.entries.iter().filter_map(text).collect()
    }

    /// Every key of a table whose keys are names: as lists of texts.
    pub(super) fn named_lists(&self) -> Vec<(&'a str, Vec<&'a str>)> {
        let list = |(key, (_, value)): (&'a String, &'a (Place, Value))| match &value.kind {
            Kind::Array(items) => {
                let text = |item: &'a Value| match &item.kind {
                    Kind::Text { text, .. } => Some(text.as_str()),
                    other => self.wrong_type(key, other, "a list of texts"),
                };
                Some((key.as_str(), items.iter().filter_map(text).collect()))
            }
            other => self.wrong_type(key, other, "a list of texts"),
        };
        self.table.entries.iter().filter_map(list).collect()
    }

    /// Every key of a table whose keys are names: as tables.
    pub(super) fn named_tables(&self) -> Vec<(&'a str, Section<'a>)> {
        let section = |(key, (_, value)): (&'a String, &'a (Place, Value))| match &value.kind {
            Kind::Table(table) => {
                Some((key.as_str(), self.within(table, join(&self.path, key), self.described)))
            }
            other => self.wrong_type(key, other, "a table with `name` and `tags`"),
        };
        self.table.entries.iter().filter_map(section).collect()
    }

    /// Asks for a key that has no meaning where it stands; whether it is written.
    pub(super) fn take(&mut self, key: &'static str) -> bool {
        self.asked.push(key);
        self.has(key)
    }

    /// Ends the reading: what was not asked for is unknown, and so is what nobody has described.
    pub(super) fn close(self) {
        let known: Vec<&str> = self.asked.iter().copied().filter(|key| self.described.has(key)).collect();
        for (key, (place, _)) in &self.table.entries {
            if !known.contains(&key.as_str()) {
                let cure = foreign::cure(&self.path, key, &known);
                self.problems.fault(*place, join(&self.path, key), format!("unknown key; {cure}"));
            }
        }
    }

    fn place(&self, key: &str) -> Place {
        self.table.entries.get(key).map_or(self.table.place, |(_, value)| value.place)
    }

    fn kind(&self, key: &str) -> Option<&'a Kind> {
        self.table.entries.get(key).map(|(_, value)| &value.kind)
    }

    fn ask(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        let value = self.table.entries.get(key).map(|(_, value)| value)?;
        (!matches!(value.kind, Kind::Refused)).then_some(value)
    }

    /// Always `None`, so that callers can go on with their default. Of what was refused already there is no more to say.
    fn wrong_type<T>(&self, key: &str, found: &Kind, expected: &str) -> Option<T> {
        if !matches!(found, Kind::Refused) {
            self.fault(key, format!("is {}; it takes {expected}", found.name()));
        }
        None
    }
}
