//! What a database's HTTP answer means for the batch: an [`Outcome`], chosen by what to do next.
//!
//! | answer | outcome |
//! |---|---|
//! | 204 | confirmed |
//! | 400, 422, or 500 that names a refused point, in the server's own JSON | rejected |
//! | 401, 403, 404 with any body; 400 in the server's own JSON that names no point; 500 that names a missing retention policy | hold: a human has to mend something, nothing is dropped |
//! | 413 | too large: halve; from a proxy and for a single point, hold |
//! | 429, 503 | retry, after what `Retry-After` says |
//! | anything else, a proxy's 400 and a captive portal's 200 among it | retry, outcome unknown |
//!
//! A row is given up on the server's own word only. Its own word is a JSON object with the keys `code` and `message`
//! (InfluxDB 2) or `error` (InfluxDB 1 and 3); the latter is so common that its text has to speak of points too.

use std::time::Duration;

use serde::Deserialize;

use super::Outcome;

/// Longest part of an error body that is read, in bytes: servers repeat each refused line, and a batch has 4 MiB.
pub(super) const LONGEST_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

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

/// Classifies the answer to a write of `points` points; `after` is its `Retry-After`.
pub(super) fn classify(status: u16, body: &str, after: Option<Duration>, points: usize) -> Outcome {
    let own: Option<Error> = serde_json::from_str(body).ok();
    let word = own.as_ref().and_then(|own| own.error.as_deref().or(own.message.as_deref()));
    let reason = format!("{status}: {}", shorten(word.unwrap_or(body)));
    let names_points = word.is_some_and(|word| REFUSED_POINTS.iter().any(|phrase| word.contains(phrase)));
    let code = own.as_ref().filter(|own| own.message.is_some()).and_then(|own| own.code.as_deref());
    match status {
        204 => Outcome::Confirmed,
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
            reason: format!("{reason}; the database, bucket, organization or path does not exist"),
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

/// The header `Retry-After` where it is a number of seconds; a date leaves the pace to the backoff.
pub(super) fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
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

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Confirmed => "confirmed",
            Outcome::Retry { unknown: false, .. } => "retry",
            Outcome::Retry { unknown: true, .. } => "retry, unknown",
            Outcome::Hold { .. } => "hold",
            Outcome::TooLarge { .. } => "too large",
            Outcome::Rejected { .. } => "rejected",
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
        (400, r#"{"error":"partial write: points beyond retention policy dropped=1"}"#, 1, "rejected"),
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
            let outcome = classify(*status, body, None, *points);
            assert_eq!(kind(&outcome), *expected, "{status} {body}");
        }
    }

    #[test]
    fn retry_after_is_passed_on_and_a_date_is_not() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        let after = Some(Duration::from_secs(7));
        let outcome = classify(503, "", after, 1);
        assert!(matches!(outcome, Outcome::Retry { after: Some(a), .. } if a == Duration::from_secs(7)));
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        let reason = shorten(&"a\nb".repeat(500));
        assert_eq!(reason.chars().count(), LONGEST_REASON);
        assert!(!reason.contains('\n'));
        assert_eq!(shorten(""), "no text");
    }
}
