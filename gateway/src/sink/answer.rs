//! What a database's HTTP answer means for the batch: an [`Outcome`], chosen by what to do next.
//!
//! | answer | outcome |
//! |---|---|
//! | 204 | confirmed |
//! | 400, 422, or 500 that names a refused point, in the server's own JSON | rejected; all of it, if it counts as many as were sent |
//! | 400 of InfluxDB 3 that names the lines (`influx3.rs`) | these are refused, the others stored |
//! | 401, 403, 404 with any body; 400 in the server's own JSON that names no point; 500 that names a missing retention policy | hold: a human has to mend something, nothing is dropped |
//! | 413 | too large: halve; from a proxy and for a single point, hold |
//! | 429, 503 | retry, after what `Retry-After` says |
//! | an error longer than is read of any | too large: halve |
//! | anything else, a proxy's 400 and a captive portal's 200 among it | retry, outcome unknown |
//!
//! A row is given up on the server's own word only. Its own word is a JSON object with the keys `code` and `message`
//! (InfluxDB 2) or `error` (InfluxDB 1 and 3); the latter is so common that its text has to speak of points too.

use std::collections::HashMap;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;

use super::Outcome;
use super::batch::Point;
use super::line_protocol::{self, Dialect};
use super::server::Answer;
use crate::clock;

/// Longest part of an error body that is read, in bytes: servers repeat each refused line, and a batch has 4 MiB.
pub(super) const LONGEST_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 600;

/// What the servers write when they refuse points; nothing else of theirs contains it.
const REFUSED_POINTS: [&str; 7] = [
    "partial write",
    "unable to parse",
    "field type conflict",
    "beyond retention policy",
    "max key length exceeded",
    "line protocol",
    "parsing failed",
];

#[derive(Deserialize)]
struct Error {
    code: Option<String>,
    message: Option<String>,
    error: Option<String>,
}

/// Classifies the answer to a write of `points` points.
pub(super) fn classify(answer: &Answer, points: usize) -> Outcome {
    let Answer { status, after, ref body, is_cut, .. } = *answer;
    let own: Option<Error> = serde_json::from_str(body).ok();
    let word = own.as_ref().and_then(Error::word);
    let reason = format!("{status}: {}", shorten(word.unwrap_or(body)));
    let names_points = word.is_some_and(|word| REFUSED_POINTS.iter().any(|phrase| word.contains(phrase)));
    let code = own.as_ref().filter(|own| own.message.is_some()).and_then(|own| own.code.as_deref());
    match status {
        204 => Outcome::Confirmed,
        400 | 422 | 500 if is_cut && points > 1 => Outcome::TooLarge {
            reason: format!("{status}: an error of more than {LONGEST_BODY_BYTES} bytes"),
        },
        400 | 422 | 500
            if names_points && word.and_then(dropped).is_some_and(|(_, count)| count == points) =>
        {
            Outcome::RejectedAll { reason }
        }
        400 | 422 if names_points || matches!(code, Some("invalid" | "unprocessable entity")) => {
            Outcome::Rejected { reason }
        }
        // Servers before InfluxDB 2.1 answer so to a partial write.
        500 if names_points => Outcome::Rejected { reason },
        400 if own.as_ref().is_some_and(|own| own.error.is_some()) => Outcome::Hold { reason },
        401 => Outcome::Hold { reason: format!("{reason}; the token, user name or password is wrong") },
        403 => Outcome::Hold { reason: format!("{reason}; the token or user may not write there") },
        // InfluxDB 1 answers so to a missing retention policy.
        500 if word.is_some_and(|word| word.starts_with("retention policy not found")) => {
            Outcome::Hold { reason }
        }
        404 => Outcome::Hold {
            reason: format!(
                "{reason}; the database, bucket, organization or path does not exist: create it, or mend the \
                 configuration; `forebay check` says which it is"
            ),
        },
        413 if points > 1 || word.is_some() => Outcome::TooLarge { reason },
        413 => Outcome::Hold {
            reason: format!(
                "{reason}; something before the database refuses even one point: raise its body limit"
            ),
        },
        429 => Outcome::Retry { reason, after, unknown: false },
        _ => Outcome::Retry { reason, after, unknown: true },
    }
}

impl Error {
    fn word(&self) -> Option<&str> {
        self.error.as_deref().or(self.message.as_deref())
    }
}

/// What a server says of points that it dropped, and how many these are, by its own count at the end.
pub(crate) fn dropped(word: &str) -> Option<(&str, usize)> {
    let (what, count) = word.rsplit_once("dropped=")?;
    Some((what.trim_end(), count.trim().parse().ok()?))
}

/// The points, by number in ascending order, whose lines an error repeats as those that cannot be read.
pub(super) fn quoted<'a>(
    body: &str,
    points: impl Iterator<Item = Point<'a>>,
    dialect: Dialect,
) -> Vec<usize> {
    const BEFORE: &str = "unable to parse '";
    const BEHIND: &str = "': ";
    let own: Option<Error> = serde_json::from_str(body).ok();
    let word = own.as_ref().and_then(Error::word).unwrap_or_default();
    if !word.contains(BEFORE) {
        return Vec::new();
    }
    let mut lines: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, point) in points.enumerate() {
        let mut line = String::new();
        line_protocol::push_line(&mut line, dialect, &point);
        lines.entry(line.trim_end().to_owned()).or_default().push(number);
    }
    let mut numbers = Vec::new();
    for quote in word.split(BEFORE).skip(1) {
        // A line may itself contain what stands behind it.
        let ends = quote.match_indices(BEHIND).map(|(end, _)| &quote[..end]);
        numbers.extend(ends.filter_map(|line| lines.remove(line.trim_end())).flatten());
    }
    numbers.sort_unstable();
    numbers
}

/// How long the header `Retry-After` says to wait: seconds, or a date, from which the server's own `Date` is taken if it
/// says that, since the gateway's clock may not be believed.
pub(super) fn retry_after(header: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text: &str| DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text.trim()).ok();
    let now_ns =
        date.and_then(time).map_or_else(|| i128::from(clock::now_ns()), jiff::Timestamp::as_nanosecond);
    let wait_ns = time(header)?.as_nanosecond().saturating_sub(now_ns);
    Some(Duration::from_nanos(u64::try_from(wait_ns.max(0)).unwrap_or(u64::MAX)))
}

/// One line of limited length for the log and the status page.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String =
        text.trim().chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.is_empty() {
        short.push_str("no text");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Confirmed => "confirmed",
            Outcome::Retry { unknown: false, .. } => "retry",
            Outcome::Retry { unknown: true, .. } => "retry, unknown",
            Outcome::Hold { .. } => "hold",
            Outcome::TooLarge { .. } => "too large",
            Outcome::Rejected { .. } => "rejected",
            Outcome::RejectedAll { .. } => "all rejected",
            Outcome::RejectedNamed { .. } | Outcome::Partial { .. } => "named",
        }
    }

    /// The table of answers, InfluxDB 1, 2 and 3 and what stands before them.
    const ANSWERS: &[(u16, &str, usize, &str)] = &[
        (204, "", 5, "confirmed"),
        // Malformed line.
        (400, r#"{"code":"invalid","message":"unable to parse 'x': missing fields"}"#, 5, "rejected"),
        (400, r#"{"error":"unable to parse 'x': missing fields"}"#, 5, "rejected"),
        (
            400,
            r#"{"error":"partial write of line protocol occurred","data":[{"line_number":1}]}"#,
            5,
            "rejected",
        ),
        // Type conflict, beyond retention.
        (
            422,
            r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict dropped=1"}"#,
            5,
            "rejected",
        ),
        (
            400,
            r#"{"error":"partial write: field type conflict: input field \"v\" … dropped=1"}"#,
            5,
            "rejected",
        ),
        (400, r#"{"error":"partial write: points beyond retention policy dropped=1"}"#, 1, "all rejected"),
        (
            422,
            r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: input field \"dropped=1\" on measurement \"m\" dropped=5"}"#,
            5,
            "all rejected",
        ),
        (400, r#"{"error":"partial write: unable to parse 'x': missing fields dropped=0"}"#, 5, "rejected"),
        (400, r#"{"error":"database is required dropped=5"}"#, 5, "hold"),
        // Older InfluxDB 2.
        (
            500,
            r#"{"code":"internal error","message":"unexpected error writing points to database: partial write: field type conflict"}"#,
            5,
            "rejected",
        ),
        (
            500,
            r#"{"code":"internal error","message":"unexpected error writing points to database: timeout"}"#,
            5,
            "retry, unknown",
        ),
        (500, r#"{"error":"timeout"}"#, 5, "retry, unknown"),
        (500, "partial write", 5, "retry, unknown"),
        // Not in the server's own format, or not about points.
        (400, "<html><body>Bad Request</body></html>", 5, "retry, unknown"),
        (422, "unable to parse", 5, "retry, unknown"),
        (400, r#"{"message":"unknown route"}"#, 5, "retry, unknown"),
        (400, r#"{"error":"database is required"}"#, 5, "hold"),
        (400, "", 5, "retry, unknown"),
        // Authorization and addresses.
        (401, r#"{"code":"unauthorized","message":"unauthorized access"}"#, 5, "hold"),
        (401, "", 5, "hold"),
        (403, "", 5, "hold"),
        (403, r#"{"error":"\"u\" user is not authorized to write to database \"d\""}"#, 5, "hold"),
        (404, r#"{"code":"not found","message":"bucket \"b\" not found"}"#, 5, "hold"),
        (404, r#"{"error":"database not found: \"d\""}"#, 5, "hold"),
        (404, "404 page not found", 5, "hold"),
        (500, r#"{"error":"retention policy not found: year"}"#, 5, "hold"),
        // Size.
        (413, r#"{"code":"request too large","message":"…"}"#, 5, "too large"),
        (413, r#"{"error":"Request Entity Too Large"}"#, 1, "too large"),
        (413, "<html>nginx</html>", 5, "too large"),
        (413, "<html>nginx</html>", 1, "hold"),
        // Overload and the rest.
        (429, "", 5, "retry"),
        (503, r#"{"code":"unavailable","message":"x"}"#, 5, "retry, unknown"),
        (502, "<html>", 5, "retry, unknown"),
        (504, "", 5, "retry, unknown"),
        (200, "<html>Welcome to the hotel</html>", 5, "retry, unknown"),
        (302, "", 5, "retry, unknown"),
        (418, "", 5, "retry, unknown"),
    ];

    #[test]
    fn every_row_of_the_table_is_classified_by_what_to_do_next() {
        for (status, body, points, expected) in ANSWERS {
            let outcome = classify(&answer(*status, body), *points);
            assert_eq!(kind(&outcome), *expected, "{status} {body}");
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, after: None, body: body.to_owned(), is_cut: false, version: None }
    }

    #[test]
    fn an_error_that_is_too_long_is_asked_for_in_pieces() {
        let cut = Answer { is_cut: true, ..answer(400, r#"{"error":"partial wri"#) };
        assert_eq!(kind(&classify(&cut, 2)), "too large");
        assert_eq!(kind(&classify(&cut, 1)), "retry, unknown");
        assert_eq!(kind(&classify(&Answer { status: 502, ..cut }, 2)), "retry, unknown");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_is_passed_on() {
        assert_eq!(retry_after(" 7 ", None), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("0", None), Some(Duration::ZERO));
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        let wait = |date, now| retry_after(date, Some(now));
        assert_eq!(wait(date, "Wed, 21 Oct 2026 07:26:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(wait(date, "Wed, 21 Oct 2026 07:28:01 GMT"), Some(Duration::ZERO), "it is over");
        let far = retry_after("Fri, 31 Dec 2099 23:59:59 GMT", None);
        assert!(far > Some(Duration::from_secs(86_400)), "{far:?}");
        assert_eq!(retry_after("Wed, 21 Oct 1970 07:28:00 GMT", None), Some(Duration::ZERO));
        assert_eq!((retry_after("soon", None), retry_after("-1", None)), (None, None));
        let busy = Answer { after: Some(Duration::from_secs(7)), ..answer(503, "") };
        let outcome = classify(&busy, 1);
        assert!(matches!(outcome, Outcome::Retry { after: Some(a), .. } if a == Duration::from_secs(7)));
    }

    #[test]
    fn lines_that_cannot_be_read_are_found_by_their_text() {
        let big = [
            ("v".to_owned(), Value::Unsigned(u64::MAX)),
            ("t".to_owned(), Value::Text("it's ': \"x\"".into())),
        ];
        let small = [("v".to_owned(), Value::Unsigned(1))];
        let fields = [&big[..], &small, &big, &small];
        let points = || fields.iter().zip(5..).map(|(fields, ns)| Point::of("m,device=d", ns, fields));
        let mut text = String::new();
        for (number, point) in points().enumerate().filter(|(number, _)| number % 2 == 0) {
            let mut line = String::new();
            line_protocol::push_line(&mut line, Dialect::V1, &point);
            text += &format!(
                "unable to parse '{}': value out of range{}",
                line.trim_end(),
                ["\n", ""][number / 2]
            );
        }
        let body = serde_json::json!({ "error": format!("partial write: {text} dropped=0") }).to_string();
        assert_eq!(quoted(&body, points(), Dialect::V1), [0, 2]);
        assert_eq!(quoted(&body, points(), Dialect::V2), [0_usize; 0], "those are other lines");
        assert_eq!(quoted("<html>unable to parse 'x': y", points(), Dialect::V1), [0_usize; 0]);
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        let reason = shorten(&"a\nb".repeat(500));
        assert_eq!(reason.chars().count(), LONGEST_REASON);
        assert!(!reason.contains('\n'));
        assert_eq!(shorten(""), "no text");
    }
}
