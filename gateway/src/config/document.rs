//! TOML text into values that know their file and line; several files into one table.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problems};

/// A variable of the environment by its name.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Text, its variables already put in; `literal` says that there were none.
    Text {
        text: String,
        literal: bool,
    },
    Integer(i64),
    Boolean(bool),
    /// Floats and dates, which no key takes.
    Other(&'static str),
    /// A value that was refused already; it reads as if it were absent.
    Refused,
    Array(Vec<Value>),
    Table(Table),
}

/// A table: each key with the place where it was first written.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: BTreeMap<String, (Place, Value)>,
}

impl Kind {
    /// What the value is, for messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Text { .. } => "a text",
            Kind::Integer(_) => "a number",
            Kind::Boolean(_) => "true or false",
            Kind::Other(name) => name,
            Kind::Refused => "refused",
            Kind::Array(_) if self.is_array_of_tables() => "an array of tables",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }

    fn is_array_of_tables(&self) -> bool {
        matches!(self, Kind::Array(items)
            if !items.is_empty() && items.iter().all(|item| matches!(item.kind, Kind::Table(_))))
    }
}

/// Reads one file. Faults inside values, such as a variable that is not set, go to `problems`.
///
/// # Errors
/// Line and description of each place that is no TOML.
pub(super) fn parse(
    text: &str,
    file: usize,
    variables: Variables<'_>,
    problems: &Problems,
) -> Result<Table, Vec<(u32, String)>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    if !errors.is_empty() {
        let describe = |error: toml::de::Error| {
            let line = lines.at(&error.span().unwrap_or(0..0));
            (line, error.message().replace('\n', ", "))
        };
        return Err(errors.into_iter().map(describe).collect());
    }
    let converter = Converter { file, lines, variables, problems };
    let place = converter.place(&table.span());
    Ok(converter.table(place, table.get_ref(), ""))
}

/// Puts a later file's table on top of an earlier one's: tables merge, arrays of tables append, and any other value
/// replaces the earlier one.
pub(super) fn merge(base: &mut Table, over: Table, path: &str, problems: &Problems) {
    for (key, (place, value)) in over.entries {
        match base.entries.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert((place, value));
            }
            Entry::Occupied(mut occupied) => {
                let path = join(path, occupied.key());
                merge_value(&mut occupied.get_mut().1, value, &path, problems);
            }
        }
    }
}

fn merge_value(base: &mut Value, over: Value, path: &str, problems: &Problems) {
    let is_tables = base.kind.is_array_of_tables();
    match (&mut base.kind, over.kind) {
        (Kind::Table(base), Kind::Table(over)) => merge(base, over, path, problems),
        (Kind::Array(base), Kind::Array(over)) if is_tables => base.extend(over),
        (kept, kind @ (Kind::Table(_) | Kind::Array(_))) | (kept @ Kind::Table(_), kind) => {
            if std::mem::discriminant(kept) == std::mem::discriminant(&kind) {
                *base = Value { place: over.place, kind };
            } else {
                let cure = below(&kind, path).filter(|_| is_tables);
                let message = format!(
                    "is {} here but {} in an earlier file; {}",
                    kind.name(),
                    kept.name(),
                    cure.as_deref().unwrap_or("write it the same way in both")
                );
                problems.fault(over.place, path.to_owned(), message);
            }
        }
        (_, kind) => *base = Value { place: over.place, kind },
    }
}

/// Where a block belongs that stands in a file of its own, without the one that it is part of.
fn below(kind: &Kind, path: &str) -> Option<String> {
    let Kind::Table(table) = kind else { return None };
    let (key, _) = table.entries.iter().find(|(_, (_, value))| value.kind.is_array_of_tables())?;
    let block = join(path, key);
    Some(format!("put [[{block}]] into that file, below the [[{path}]] that it is for"))
}

/// The key `key` inside the tables `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

struct Converter<'a> {
    file: usize,
    lines: Lines,
    variables: Variables<'a>,
    problems: &'a Problems,
}

impl Converter<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        Place { file: self.file, line: self.lines.at(span) }
    }

    fn table(&self, place: Place, table: &DeTable<'_>, path: &str) -> Table {
        let entries = table.iter().map(|(key, value)| {
            let place = self.place(&key.span());
            let path = join(path, key.get_ref());
            (key.get_ref().to_string(), (place, self.value(place, value.get_ref(), &path)))
        });
        Table { place, entries: entries.collect() }
    }

    /// `place` is the key's, which is where an operator looks, except in arrays, whose items have their own.
    fn value(&self, place: Place, value: &DeValue<'_>, path: &str) -> Value {
        let kind = match value {
            DeValue::String(text) => self.text(place, text, path),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => Kind::Other("a number beyond 64 bits"),
            },
            DeValue::Float(_) => Kind::Other("a fraction"),
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(_) => Kind::Other("a date"),
            DeValue::Array(items) => Kind::Array(
                items.iter().map(|item| self.value(self.place(&item.span()), item.get_ref(), path)).collect(),
            ),
            DeValue::Table(table) => Kind::Table(self.table(place, table, path)),
        };
        Value { place, kind }
    }

    fn text(&self, place: Place, text: &str, path: &str) -> Kind {
        match expand(text, self.variables) {
            Ok(None) => Kind::Text { text: text.to_owned(), literal: true },
            Ok(Some(text)) => Kind::Text { text, literal: false },
            Err(refused) => {
                let key = path.to_owned();
                match refused {
                    NotExpanded::Malformed(message) => self.problems.fault(place, key, message),
                    NotExpanded::NoVariable(message) => self.problems.absent(place, key, message),
                }
                Kind::Refused
            }
        }
    }
}

/// Why a text's variables are not put in.
#[derive(Debug, PartialEq, Eq)]
enum NotExpanded {
    /// It is not written as one writes variables.
    Malformed(String),
    /// This process has no such variable.
    NoVariable(String),
}

/// Puts `${VAR}` in; `None` when there is none.
fn expand(text: &str, variables: Variables<'_>) -> Result<Option<String>, NotExpanded> {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            let message = "has \"${\" without \"}\"; variables are written \"${NAME}\"";
            return Err(NotExpanded::Malformed(message.to_owned()));
        };
        let Some(value) = variables(name) else {
            return Err(NotExpanded::NoVariable(format!(
                "the environment has no variable {name}; set it for the service"
            )));
        };
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    if rest.len() == text.len() {
        return Ok(None);
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Byte positions at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Lines {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, on which a span begins.
    fn at(&self, span: &Range<usize>) -> u32 {
        u32::try_from(self.0.partition_point(|begin| *begin <= span.start)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let variables = |name: &str| (name == "A").then(|| "x}y".to_owned());
        assert_eq!(expand("plain $.a $ {", &variables), Ok(None));
        assert_eq!(expand("${A}-${A}", &variables), Ok(Some("x}y-x}y".to_owned())));
        assert!(
            matches!(expand("${B}", &variables), Err(NotExpanded::NoVariable(why)) if why.contains("no variable B"))
        );
        assert!(
            matches!(expand("${A", &variables), Err(NotExpanded::Malformed(why)) if why.contains("without"))
        );
    }

    #[test]
    fn lines_count_from_one() {
        let lines = Lines::new("a\nb\n\nc");
        assert_eq!([0, 1, 2, 4, 5].map(|at| lines.at(&(at..at))), [1, 1, 2, 3, 4]);
    }
}
