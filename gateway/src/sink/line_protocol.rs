//! Points as line protocol: `series field=value,… ns`, one line each, gzipped into one request body.
//!
//! The series is copied as it stands in the journal, already escaped; so a line costs a copy, the formatting of its
//! numbers and the compression, and no allocation. Times are always written, in nanoseconds.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::record::{Row, Value, ValueRef, push_key, unescape};
use crate::sink::batch::{OwnPoint, Point};

/// Text gathered before it is handed to the compressor, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;

/// What the receiving server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// InfluxDB 1: has no unsigned integers, so they are written as signed ones. One beyond the signed range is
    /// refused by the server, by name, and becomes a gap.
    V1,
    /// InfluxDB 2 and later.
    V2,
}

/// A compressed request body.
#[derive(Clone, Debug)]
pub struct Body {
    /// The gzip stream.
    pub gzip: Bytes,
    /// Lines in it; a body without lines must not be sent.
    pub lines: usize,
}

/// A body that is being made, point by point (gzip level 1: a tenth of the text for a fifth of the time of level 6).
#[derive(Debug)]
pub struct Encoder {
    dialect: Dialect,
    gzip: GzEncoder<Vec<u8>>,
    text: String,
    lines: usize,
}

impl Encoder {
    /// An empty body.
    #[must_use]
    pub fn new(dialect: Dialect) -> Encoder {
        let gzip = GzEncoder::new(Vec::with_capacity(CHUNK_BYTES), Compression::new(1));
        Encoder { dialect, gzip, text: String::with_capacity(CHUNK_BYTES + 4096), lines: 0 }
    }

    /// What its lines are written in.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Adds a point's line.
    ///
    /// # Errors
    /// None that memory does not cause; the compressor's signature has them.
    pub fn push(&mut self, point: &Point<'_>) -> io::Result<()> {
        self.lines += usize::from(push_line(&mut self.text, self.dialect, point));
        if self.text.len() >= CHUNK_BYTES {
            self.gzip.write_all(self.text.as_bytes())?;
            self.text.clear();
        }
        Ok(())
    }

    /// The whole.
    ///
    /// # Errors
    /// As above.
    pub fn finish(mut self) -> io::Result<Body> {
        self.gzip.write_all(self.text.as_bytes())?;
        Ok(Body { gzip: self.gzip.finish()?.into(), lines: self.lines })
    }
}

/// Writes all points as one body.
///
/// # Errors
/// As [`Encoder::push`].
pub fn encode<'a>(points: impl Iterator<Item = Point<'a>>, dialect: Dialect) -> io::Result<Body> {
    let mut encoder = Encoder::new(dialect);
    for point in points {
        encoder.push(&point)?;
    }
    encoder.finish()
}

/// Appends one line with its line feed. A point without fields cannot be written: nothing is appended and the
/// answer is `false`.
pub fn push_line(out: &mut String, dialect: Dialect, point: &Point<'_>) -> bool {
    let has_fields = push_series_and_fields(out, dialect, point);
    if has_fields {
        // Formatting into a String cannot fail.
        let _ = writeln!(out, " {}", point.ns);
    }
    has_fields
}

/// The same without the time, for a point that has none yet.
pub fn push_undated(out: &mut String, dialect: Dialect, point: &Point<'_>) -> bool {
    let has_fields = push_series_and_fields(out, dialect, point);
    if has_fields {
        out.push('\n');
    }
    has_fields
}

/// Appends a row as its sender gave it: without a time where it had none.
pub fn push_row(out: &mut String, dialect: Dialect, row: &Row) -> bool {
    let point = |ns| Point::of(row.series.as_str(), ns, &row.fields);
    match row.timestamp {
        Some(ns) => push_line(out, dialect, &point(ns)),
        None => push_undated(out, dialect, &point(0)),
    }
}

fn push_series_and_fields(out: &mut String, dialect: Dialect, point: &Point<'_>) -> bool {
    let start = out.len();
    out.push_str(point.series);
    let mut separator = ' ';
    for (name, value) in point.fields() {
        out.push(separator);
        separator = ',';
        push_key(out, name);
        out.push('=');
        push_value(out, dialect, value);
    }
    if separator == ' ' {
        out.truncate(start);
    }
    separator != ' '
}

fn push_value(out: &mut String, dialect: Dialect, value: ValueRef<'_>) {
    let _ = match value {
        // The debug form is the shortest that reads back as the same double, with an exponent where that is shorter.
        ValueRef::Float(v) => write!(out, "{v:?}"),
        ValueRef::Integer(v) => write!(out, "{v}i"),
        ValueRef::Unsigned(v) if dialect == Dialect::V1 => write!(out, "{v}i"),
        ValueRef::Unsigned(v) => write!(out, "{v}u"),
        ValueRef::Boolean(v) => {
            out.push_str(if v { "true" } else { "false" });
            Ok(())
        }
        ValueRef::Text(v) => {
            push_text(out, v);
            Ok(())
        }
    };
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if matches!(byte, b'"' | b'\\') {
            out.push_str(&text[plain_from..at]);
            out.push('\\');
            plain_from = at;
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// Reads a line that [`push_line`] has written in the dialect of version 2; none if it has not.
#[must_use]
pub fn parse_line(line: &str) -> Option<OwnPoint> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let (series, mut rest) = split_at_unescaped(line, b' ')?;
    let mut fields = Vec::new();
    loop {
        let (name, value) = split_at_unescaped(rest, b'=')?;
        let (value, behind) = take_value(value)?;
        fields.push((unescape(name).into_owned(), value));
        match behind.split_at_checked(1)? {
            (",", further) => rest = further,
            (" ", ns) => {
                let (series, ns) = (series.to_owned(), ns.parse().ok()?);
                return Some(OwnPoint { series, ns, fields, device: None });
            }
            _ => return None,
        }
    }
}

/// What is before the first separator without a backslash before it, and what is behind.
fn split_at_unescaped(text: &str, separator: u8) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let is_end = |at: &usize| bytes[*at] == separator && (*at == 0 || bytes[*at - 1] != b'\\');
    let end = (0..bytes.len()).find(is_end)?;
    Some((&text[..end], &text[end + 1..]))
}

/// A value, and what is behind it.
fn take_value(text: &str) -> Option<(Value, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (mut value, mut is_escaped) = (String::new(), false);
        for (at, c) in quoted.char_indices() {
            match c {
                '\\' if !is_escaped => is_escaped = true,
                '"' if !is_escaped => return Some((Value::Text(value), &quoted[at + 1..])),
                c => {
                    value.push(c);
                    is_escaped = false;
                }
            }
        }
        return None;
    }
    let (word, behind) = text.split_at(text.find([',', ' '])?);
    let value = match (word, word.strip_suffix('i'), word.strip_suffix('u')) {
        ("true", ..) => Value::Boolean(true),
        ("false", ..) => Value::Boolean(false),
        (_, Some(digits), _) => Value::Integer(digits.parse().ok()?),
        (_, _, Some(digits)) => Value::Unsigned(digits.parse().ok()?),
        _ => Value::Float(word.parse().ok().filter(|v: &f64| v.is_finite())?),
    };
    Some((value, behind))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::record::SeriesKey;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Value::Float),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(Value::Unsigned),
            any::<bool>().prop_map(Value::Boolean),
            "[ -~äß\n]{0,20}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn a_line_comes_back_as_it_went(
            measurement in "[!-~ ä]{0,9}[a-z]", tag in "[!-~ ]{0,9}[a-z]", ns: i64,
            fields in prop::collection::vec(("[!-~ ,=]{0,9}[a-z]", value()), 1..5),
        ) {
            let series = SeriesKey::new(&measurement, &mut vec![("t", &tag)]).unwrap();
            let point = OwnPoint { series: series.as_str().to_owned(), ns, fields, device: None };
            let mut line = String::new();
            prop_assert!(push_line(&mut line, Dialect::V2, &point.point()));
            prop_assert_eq!(parse_line(&line), Some(point));
        }

        #[test]
        fn any_text_is_read_or_not(text in "[mt=,i\"0-9. \\\\-]{0,30}") {
            if let Some(point) = parse_line(&text) {
                prop_assert!(!point.fields.is_empty());
            }
        }
    }

    #[test]
    fn what_is_no_line_is_not_read() {
        for text in [
            "",
            "m",
            "m v=1",
            "m v= 5",
            "m v=1 x",
            "m v=NaN 5",
            "m v=\"a 5",
            "m v=1x 5",
            "m v=1i,5",
            "journal: \0\0",
        ] {
            assert_eq!(parse_line(text), None, "{text}");
        }
    }

    fn line(dialect: Dialect, fields: &[(&str, Value)]) -> String {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut out = String::new();
        push_line(&mut out, dialect, &Point::of("m,device=d", -5, &fields));
        out
    }

    #[test]
    fn every_type_is_written_so_that_it_reads_back() {
        let fields = [
            ("f", Value::Float(21.0)),
            ("e", Value::Float(1e-300)),
            ("i", Value::Integer(i64::MIN)),
            ("u", Value::Unsigned(u64::MAX)),
            ("b", Value::Boolean(false)),
            ("a b", Value::Text("say \"a\\b\"".to_owned())),
        ];
        let expected = "m,device=d f=21.0,e=1e-300,i=-9223372036854775808i,u=18446744073709551615u,b=false,a\\ b=\"say \\\"a\\\\b\\\"\" -5\n";
        assert_eq!(line(Dialect::V2, &fields), expected);
        assert_eq!(line(Dialect::V1, &fields), expected.replace("615u", "615i"));
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        for value in [0.1, 1.0 / 3.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, -0.0, 1e21, 123_456_789.123] {
            let line = line(Dialect::V2, &[("v", Value::Float(value))]);
            let text = line.trim_start_matches("m,device=d v=").split(' ').next().unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            assert!(text.len() <= 24, "{text}");
        }
    }

    #[test]
    fn a_point_without_fields_is_no_line() {
        assert_eq!(line(Dialect::V2, &[]), "");
        let body = encode(std::iter::once(Point::of("m", 1, &[])), Dialect::V2).unwrap();
        assert_eq!(body.lines, 0);
    }

    #[test]
    fn a_body_is_gzip_of_all_lines() {
        let fields = [("v".to_owned(), Value::Integer(1))];
        let points = (0..10_000).map(|n| Point::of("m,device=d", 1_700_000_000_000_000_000 + n, &fields));
        let body = encode(points, Dialect::V2).unwrap();
        let mut text = String::new();
        GzDecoder::new(&body.gzip[..]).read_to_string(&mut text).unwrap();
        assert_eq!((body.lines, text.lines().count()), (10_000, 10_000));
        assert_eq!(text.lines().last(), Some("m,device=d v=1i 1700000000000009999"));
        assert!(body.gzip.len() * 5 < text.len());
    }
}
