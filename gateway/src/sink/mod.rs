//! Sinks: where records end up, one file per write path.
//!
//! * In: parts of batches from delivery.
//! * Out: requests and transactions; an [`Outcome`] back to delivery, whose cursor then lets the journal trim.
//! * Next: none, the reading has arrived.
//!
//! A sink turns a part of a batch into one request or transaction, and the answer into an [`Outcome`]: not what went
//! wrong, but what to do next. It decides nothing else; waiting, halving and giving up belong to [`crate::delivery`].
//! Every write may be repeated: equal series and time are the same point in each of them.
//!
//! | file | write path |
//! |---|---|
//! | `influx1.rs` | InfluxDB 1 `/write`, and every store that speaks like it |
//! | `influx2.rs` | InfluxDB 2 `/api/v2/write`, and every store with it |
//! | `influx3.rs` | InfluxDB 3 `/api/v3/write_lp` |
//! | `sqlite/` | the embedded store |
//!
//! The three of InfluxDB are one [`influx::Influx`], which knows or asks for the version, over one HTTP client
//! (`server.rs`), and `answer.rs` reads what comes back.

pub(crate) mod answer;
pub mod batch;
pub(crate) mod field_type;
pub mod influx;
mod influx1;
mod influx2;
mod influx3;
pub mod line_protocol;
mod ready;
#[cfg(test)]
pub(crate) mod scripted_server;
pub mod selection;
mod server;
pub mod sqlite;

use std::time::Duration;

use reqwest::Url;
use thiserror::Error;

pub use batch::{Batch, Part, Point};

use crate::record::Offset;
use line_protocol::Dialect;

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the start of a request to the end of its answer; beyond it the outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A store that takes points.
pub trait Sink {
    /// Writes the points of `part`, which has at least one, and says what to do next.
    fn write(&mut self, part: &Part<'_>) -> impl Future<Output = Outcome>;

    /// Where delivery has come to as the sink itself knows. A failure is one of the outcomes retry and hold.
    fn position(&mut self) -> impl Future<Output = Result<Position, Outcome>> {
        std::future::ready(Ok(Position::Journal))
    }

    /// Of the rows that the ledger counts as confirmed, by ledger key of their devices, those that the sink lacks, in the same
    /// order. It is asked once it was given everything below `_to`, of which the ledger tells, and from there on counts what
    /// it is given. A sink without counts of its own lacks nothing. A failure is one of the outcomes retry and hold.
    fn lacks(
        &mut self,
        _to: Offset,
        confirmed: &[(Box<str>, u64)],
    ) -> impl Future<Output = Result<Vec<u64>, Outcome>> {
        std::future::ready(Ok(vec![0; confirmed.len()]))
    }

    /// Whether a store that could not be reached answers again, which costs it next to nothing; never true of one that
    /// has answered and wants to be left alone.
    fn is_back(&mut self) -> impl Future<Output = bool> {
        std::future::ready(false)
    }

    /// What its requests are written in, so that bodies can be made before their turn; none if there is nothing to make.
    fn dialect(&self) -> Option<Dialect> {
        None
    }

    /// Bytes of all requests so far, failed ones included.
    fn sent_bytes(&self) -> u64 {
        0
    }
}

/// User name and password of a server that asks for them.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; may be empty.
    pub password: String,
}

/// Who knows where delivery has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The journal alone.
    Journal,
    /// The sink keeps a cursor of its own, in the transaction of its points; none yet for this journal.
    Own(Option<Offset>),
}

/// What to do after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store has every point: go on.
    Confirmed,
    /// Send the same again.
    Retry {
        /// Why, for the log.
        reason: String,
        /// The shortest wait that the server asks for.
        after: Option<Duration>,
        /// The points may have been stored nevertheless.
        unknown: bool,
    },
    /// Somebody has to mend something; send the same again at a slow pace, with an alarm.
    Hold {
        /// What, for the alarm.
        reason: String,
    },
    /// Send less at once.
    TooLarge {
        /// What the server says.
        reason: String,
    },
    /// The store refuses at least one of the points for good; it may have taken the others.
    Rejected {
        /// What the server says.
        reason: String,
    },
    /// The store refuses each of the points for good.
    RejectedAll {
        /// What the server says.
        reason: String,
    },
    /// The store refuses these points, and perhaps others; it may have taken the rest or not.
    RejectedNamed {
        /// What the server says.
        reason: String,
        /// Numbers of the points within the part, in ascending order.
        points: Vec<usize>,
    },
    /// The store refuses these points for good, and has all others.
    Partial {
        /// Their numbers within the part, in ascending order, and what the server says of each.
        refused: Vec<(usize, String)>,
    },
}

/// A sink cannot be made from its configuration.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The URL cannot be used.
    #[error("url {url:?} {problem}; write it as http://host:8086")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The token holds characters that no HTTP header can carry.
    #[error(
        "the token holds a line feed or another character that no HTTP header can carry; check the end of the token file"
    )]
    Token,
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

/// Refuses what no client could use, or would use otherwise than it is written.
fn check_url(text: &str) -> Result<Url, SinkError> {
    let problem = |problem: String| SinkError::Url { url: without_credentials(text), problem };
    let url = Url::parse(text).map_err(|error| problem(format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(problem("is neither http:// nor https://".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(problem("holds a user name or password, which belong in keys of their own".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(problem("holds a query or fragment".to_owned()));
    }
    Ok(url)
}

/// The URL fit for a message: what stands before an `@` may be a password.
fn without_credentials(url: &str) -> String {
    match (url.find("//"), url.rfind('@')) {
        (Some(slashes), Some(at)) if slashes < at => format!("{}//…{}", &url[..slashes], &url[at..]),
        _ => url.to_owned(),
    }
}

/// An error with all its causes in one line; HTTP clients hide the telling one at the bottom.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    answer::shorten(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_would_be_misread_are_refused_without_telling_the_password() {
        for url in ["influx:8086", "ftp://h", "/3242", "http://h/?db=x", "http://h/#x", "http://u:geheim@h/"]
        {
            let message = check_url(url).unwrap_err().to_string();
            assert!(!message.contains("geheim"), "{message}");
        }
        assert!(check_url("https://h:8086").is_ok());
    }
}
