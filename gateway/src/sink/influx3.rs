//! InfluxDB 3: `POST /api/v3/write_lp?db=…&precision=nanosecond&accept_partial=true`.
//!
//! Without a precision the server would guess it by the size of the numbers. It takes the lines that it can and names
//! each of the others by its number, so that nothing has to be searched for. A name is believed only if the answer
//! repeats the beginning of the very line: a number that is off by one would give up a good point and lose a bad one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SinkError;
use super::answer::shorten;
use super::batch::Point;
use super::influx::{Version, WritePath};
use super::line_protocol::Dialect;
use super::server::{Authorization, Server};

/// The write path of a database. Without a token no `Authorization` is sent.
pub(super) fn path(server: &Server, database: &str, token: Option<&str>) -> Result<WritePath, SinkError> {
    let mut url = server.url("/api/v3/write_lp");
    let mut query = url.query_pairs_mut();
    query.append_pair("db", database);
    query.append_pair("precision", "nanosecond").append_pair("accept_partial", "true");
    drop(query);
    let authorization = Authorization::token("Bearer", token)?;
    Ok(WritePath { version: Version::V3, url, authorization, dialect: Dialect::V2 })
}

/// What the server says of a partial write.
#[derive(Debug, Deserialize)]
struct Partial {
    error: String,
    data: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    original_line: String,
    /// From 1.
    line_number: usize,
    error_message: String,
}

/// The refused ones of `points`, by number from 0 in ascending order, and why; all others are stored. None if the answer
/// does not say so, or does not name each of them beyond doubt.
pub(super) fn refused<'a>(
    body: &str,
    points: impl Iterator<Item = Point<'a>>,
) -> Option<Vec<(usize, String)>> {
    let partial: Partial = serde_json::from_str(body).ok()?;
    if !partial.error.contains("partial write") || partial.data.is_empty() {
        return None;
    }
    let mut named: BTreeMap<usize, &Line> = BTreeMap::new();
    for line in &partial.data {
        named.insert(line.line_number.checked_sub(1)?, line);
    }
    let mut refused = Vec::with_capacity(named.len());
    for (number, point) in points.enumerate() {
        if let Some(line) = named.remove(&number) {
            if !is_line_of(&line.original_line, &point) {
                return None;
            }
            refused.push((number, format!("400: {}", shorten(&line.error_message))));
        }
    }
    named.is_empty().then_some(refused)
}

/// Whether a line, which may have been cut or written anew, is that of a point: it begins with the series, and if it ends
/// with a time, with the same.
fn is_line_of(line: &str, point: &Point<'_>) -> bool {
    let Some(rest) = line.trim_end().strip_prefix(point.series) else { return false };
    let time = rest.rsplit(' ').next().and_then(|time| time.parse::<i64>().ok());
    rest.starts_with(' ') && time.is_none_or(|time| time == point.ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;

    fn refused_of(body: &str) -> Option<Vec<(usize, String)>> {
        let fields = [("v".to_owned(), Value::Float(1.0))];
        let series = ["m,device=a", "m,device=b", "m,device=a"];
        let points = series.into_iter().zip(5..).map(|(series, ns)| Point::of(series, ns, &fields));
        refused(body, points)
    }

    fn body(lines: &[(usize, &str)]) -> String {
        let data: Vec<_> = lines
            .iter()
            .map(|(number, line)| serde_json::json!({ "original_line": line, "line_number": number, "error_message": "why" }))
            .collect();
        serde_json::json!({ "error": "partial write of line protocol occurred", "data": data }).to_string()
    }

    #[test]
    fn refused_lines_are_found_by_their_number() {
        let why = "400: why".to_owned();
        assert_eq!(refused_of(&body(&[(2, "m,device=b v=1 6")])), Some(vec![(1, why.clone())]));
        // Cut, written anew, and out of order.
        let both = body(&[(3, "m,device=a v=1"), (1, "m,device=a v=1i 5\n")]);
        assert_eq!(refused_of(&both), Some(vec![(0, why.clone()), (2, why)]));
    }

    #[test]
    fn a_number_that_may_mean_another_line_is_not_believed() {
        for lines in [
            // Counted from 0; beyond the end; another series; the same series at another time; half a tag.
            &[(0, "m,device=a v=1 5")][..],
            &[(4, "m,device=a v=1 8")],
            &[(1, "m,device=b v=1 6")],
            &[(1, "m,device=a v=1 7")],
            &[(1, "m,device=ab v=1 5")],
            &[(2, "m,device=b v=1 6"), (3, "")],
        ] {
            assert_eq!(refused_of(&body(lines)), None, "{lines:?}");
        }
        let whole = r#"{"error":"parsing failed for write_lp endpoint","data":{"line_number":1,"original_line":"m,device=a v=1 5","error_message":"why"}}"#;
        assert_eq!((refused_of(whole), refused_of("<html>"), refused_of(&body(&[]))), (None, None, None));
    }
}
