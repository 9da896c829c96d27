//! A letter as lists show it.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Letter, Matches, Stage};

/// A letter without its body.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    id: String,
    at: String,
    at_ns: i64,
    stage: Stage,
    sink: Option<String>,
    journal: String,
    offset: u64,
    device: String,
    rows: u64,
    origin: String,
    reason: String,
    body_bytes: u64,
}

impl Listed {
    /// What a list says of a letter.
    #[must_use]
    pub fn of(letter: &Letter) -> Listed {
        Listed {
            id: letter.id().to_string(),
            at: time(letter.at_ns),
            at_ns: letter.at_ns,
            stage: letter.stage,
            sink: (letter.stage == Stage::Delivery).then(|| letter.sink.to_string()),
            journal: letter.journal.to_string(),
            offset: letter.offset.0,
            device: letter.device.to_string(),
            rows: letter.rows,
            origin: letter.origin.to_string(),
            reason: letter.reason.to_string(),
            body_bytes: letter.body_bytes,
        }
    }
}

/// Nanoseconds since 1970 as RFC 3339.
#[must_use]
pub fn time(ns: i64) -> String {
    // 64 bits of nanoseconds end long before the range of this type does; digits would do all the same.
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |time| time.to_string())
}

/// A letter with its body, which is either text or hexadecimal digits.
#[derive(Debug, Serialize)]
pub struct WholeLetter<'a> {
    #[serde(flatten)]
    line: Listed,
    /// Letters with this id; it is the newest of them.
    matches: u64,
    cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

impl WholeLetter<'_> {
    /// What there is to say of it.
    #[must_use]
    pub fn of(found: &Matches) -> WholeLetter<'_> {
        let Matches { newest: letter, count: matches } = found;
        let body = str::from_utf8(&letter.body).ok();
        let body_hex = body.is_none().then(|| {
            letter.body.iter().fold(String::new(), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            })
        });
        WholeLetter { line: Listed::of(letter), matches: *matches, cut: letter.is_cut(), body, body_hex }
    }
}
