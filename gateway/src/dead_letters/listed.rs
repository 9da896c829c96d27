//! A letter as lists show it.

use serde::Serialize;

use super::{Letter, Stage};

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
