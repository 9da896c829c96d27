//! InfluxDB line protocol as a payload: one line a row, `measurement,tag=value field=value,… timestamp`.
//!
//! Lines are independent: a bad one is refused with its number and reason, the others become rows. Empty lines and
//! comments (`#`) are skipped. Limits: [`MAX_LINES`] lines a message and what [`crate::record::check_name`] allows.

use std::borrow::Cow;

use thiserror::Error;

use crate::record::{Value, unescape};

/// Most lines in one message; the rest is refused as one.
pub const MAX_LINES: usize = 10_000;

/// One parsed line, unescaped, borrowed where nothing had to be unescaped.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    /// Measurement.
    pub measurement: Cow<'a, str>,
    /// Tags in the order of the line.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Fields in the order of the line; at least one.
    pub fields: Fields,
    /// The number at the end, in whatever unit the sender uses.
    pub timestamp: Option<i64>,
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// There is no space between series and fields.
    #[error("no fields: expected `measurement,tags fields timestamp`")]
    NoFields,
    /// A tag or field has no `=`.
    #[error("{0} {1:?} has no `=`")]
    NoEquals(&'static str, String),
    /// A quoted text does not end.
    #[error("the text of field {0:?} has no closing quote")]
    OpenQuote(String),
    /// Not a number, boolean or quoted text.
    #[error("the value {value:?} of field {field:?} is no number, boolean or quoted text")]
    BadValue {
        /// The field.
        field: String,
        /// The text of its value, shortened.
        value: String,
    },
    /// The timestamp is no integer.
    #[error("the timestamp {0:?} is no integer")]
    BadTimestamp(String),
    /// A message with too many lines.
    #[error("more than {MAX_LINES} lines in one message; send smaller batches")]
    TooManyLines,
}

/// Parses a message line by line; blank lines and comments yield nothing.
pub fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, LineError>> {
    LineBreaks { rest: text }
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .enumerate()
        .take(MAX_LINES + 1)
        .map(|(at, line)| if at < MAX_LINES { parse(line) } else { Err(LineError::TooManyLines) })
}

/// Splits at line feeds that are not inside a quoted field text.
struct LineBreaks<'a> {
    rest: &'a str,
}

impl<'a> Iterator for LineBreaks<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = end_of_line(self.rest);
        let line = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(line)
    }
}

fn end_of_line(text: &str) -> usize {
    let bytes = text.as_bytes();
    let first = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    if bytes.first() == Some(&b'#') {
        return first;
    }
    // A quote opens a text only right behind the `=` of a field.
    let mut quoted = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' if quoted => quoted = false,
            b'"' if at > 0 && bytes[at - 1] == b'=' => quoted = true,
            b'\n' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    // With a quote left open the line ends where it seems to: the damage stays in one line.
    if quoted { first } else { bytes.len() }
}

/// Parses one line.
///
/// # Errors
/// Says which part of the line is not understood.
pub fn parse(line: &str) -> Result<Line<'_>, LineError> {
    let (series, rest) = cut(line, |b| b == b' ').ok_or(LineError::NoFields)?;
    let rest = rest.trim_start_matches(' ');
    let (measurement, tag_text) = match cut(series, |b| b == b',') {
        Some((measurement, tags)) => (measurement, Some(tags)),
        None => (series, None),
    };
    let mut tags = Vec::new();
    let mut remaining = tag_text;
    while let Some(text) = remaining {
        let (pair, next) = cut(text, |b| b == b',').map_or((text, None), |(pair, next)| (pair, Some(next)));
        let (name, value) =
            cut(pair, |b| b == b'=').ok_or_else(|| LineError::NoEquals("tag", shorten(pair)))?;
        tags.push((unescape(name), unescape(value)));
        remaining = next;
    }
    let (fields, timestamp) = parse_fields(rest)?;
    let timestamp = match timestamp {
        "" => None,
        text => Some(text.parse().map_err(|_| LineError::BadTimestamp(shorten(text)))?),
    };
    Ok(Line { measurement: unescape(measurement), tags, fields, timestamp })
}

/// Names and values.
pub type Fields = Vec<(String, Value)>;

/// Fields and the trimmed text behind them.
fn parse_fields(text: &str) -> Result<(Fields, &str), LineError> {
    let mut fields = Fields::new();
    let mut rest = text;
    loop {
        let (name, behind) =
            cut(rest, |b| b == b'=').ok_or_else(|| LineError::NoEquals("field", shorten(rest)))?;
        let name = unescape(name).into_owned();
        let (value, behind) = parse_value(&name, behind)?;
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => fields.push((name, value)),
        }
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok((fields, behind.trim())),
        }
    }
}

fn parse_value<'a>(field: &str, text: &'a str) -> Result<(Value, &'a str), LineError> {
    if let Some(quoted) = text.strip_prefix('"') {
        return parse_text(field, quoted);
    }
    let end = text.bytes().position(|b| matches!(b, b',' | b' ')).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let bad = || LineError::BadValue { field: field.to_owned(), value: shorten(word) };
    let value = match word {
        "t" | "T" | "true" | "True" | "TRUE" => Value::Boolean(true),
        "f" | "F" | "false" | "False" | "FALSE" => Value::Boolean(false),
        _ => {
            if let Some(digits) = word.strip_suffix('i') {
                Value::Integer(digits.parse().map_err(|_| bad())?)
            } else if let Some(digits) = word.strip_suffix('u') {
                Value::Unsigned(digits.parse().map_err(|_| bad())?)
            } else {
                let number: f64 = word.parse().map_err(|_| bad())?;
                // `nan` and `inf` parse as numbers, but no store keeps them.
                if !number.is_finite() {
                    return Err(bad());
                }
                Value::Float(number)
            }
        }
    };
    Ok((value, behind))
}

fn parse_text<'a>(field: &str, quoted: &'a str) -> Result<(Value, &'a str), LineError> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Value::Text(text), &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(LineError::OpenQuote(field.to_owned()))
}

/// Cuts at the first separator that no backslash escapes.
fn cut(text: &str, separator: impl Fn(u8) -> bool) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            at += 1;
        } else if separator(bytes[at]) {
            return Some((&text[..at], &text[at + 1..]));
        }
        at += 1;
    }
    None
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Line<'_> {
        parse(text).unwrap()
    }

    #[test]
    fn every_type_and_escape_is_read() {
        let line = one(
            r#"my\ climate,device=a\,b,room=x\=y t=21.5,n=-3i,u=7u,ok=T,say="a \"b\" \\ c,d = e" 1700000000000000001"#,
        );
        assert_eq!(line.measurement, "my climate");
        assert_eq!(line.tags, [("device".into(), "a,b".into()), ("room".into(), "x=y".into())]);
        assert_eq!(
            line.fields,
            [
                ("t".to_owned(), Value::Float(21.5)),
                ("n".to_owned(), Value::Integer(-3)),
                ("u".to_owned(), Value::Unsigned(7)),
                ("ok".to_owned(), Value::Boolean(true)),
                ("say".to_owned(), Value::Text(r#"a "b" \ c,d = e"#.to_owned())),
            ]
        );
        assert_eq!(line.timestamp, Some(1_700_000_000_000_000_001));
    }

    #[test]
    fn a_bad_line_is_named_and_its_neighbours_stand() {
        let parsed: Vec<_> = lines("m v=1 1\n# comment\n\nm v=\nm v=2 2\nm v=x\nm\nm v=1 noon").collect();
        assert_eq!(parsed.len(), 6);
        assert!(parsed[0].is_ok() && parsed[2].is_ok());
        assert_eq!(parsed[1], Err(LineError::BadValue { field: "v".to_owned(), value: String::new() }));
        assert_eq!(parsed[4], Err(LineError::NoFields));
        assert_eq!(parsed[5], Err(LineError::BadTimestamp("noon".to_owned())));
    }

    #[test]
    fn a_line_feed_inside_quotes_belongs_to_the_text_and_an_open_quote_costs_one_line() {
        let parsed: Vec<_> = lines("m v=\"a\nb\" 1\nm v=2 2").collect();
        assert_eq!(parsed[0].as_ref().unwrap().fields[0].1, Value::Text("a\nb".to_owned()));
        assert_eq!(parsed.len(), 2);
        let parsed: Vec<_> = lines("m v=\"open 1\nm v=2 2").collect();
        assert_eq!(parsed[0], Err(LineError::OpenQuote("v".to_owned())));
        assert_eq!(parsed[1].as_ref().unwrap().timestamp, Some(2));
    }

    #[test]
    fn not_a_number_is_refused() {
        for value in ["nan", "inf", "-inf", "1e999", "9223372036854775808i", "-1u"] {
            assert!(matches!(parse(&format!("m v={value}")), Err(LineError::BadValue { .. })), "{value}");
        }
    }

    #[test]
    fn too_many_lines_are_refused_as_one() {
        let text = "m v=1\n".repeat(MAX_LINES + 50);
        let parsed: Vec<_> = lines(&text).collect();
        assert_eq!(parsed.len(), MAX_LINES + 1);
        assert_eq!(parsed[MAX_LINES], Err(LineError::TooManyLines));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}|[a-z,=\\\\ \"\n0-9iut#]{0,80}") {
            for line in lines(&text).flatten() {
                prop_assert!(!line.fields.is_empty());
            }
        }
    }
}
