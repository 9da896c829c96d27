//! A database with InfluxDB's write API: the one write path of its version, and which version that is.
//!
//! Where the configuration leaves the version open, the server is asked for it: `/ping` answers with the header
//! `X-Influxdb-Version` in all of them. Until it does, nothing is written and nothing is guessed. It is asked again when
//! the path that was found does not exist any more, as after an upgrade.

use std::time::Duration;

use reqwest::Url;
use tracing::info;

use super::answer::{classify, quoted};
use super::batch::Part;
use super::line_protocol::Dialect;
use super::server::{Answer, Authorization, Server};
use super::{Credentials, Outcome, Sink, SinkError, influx1, influx2, influx3};

/// Longest wait for the answer to a question that costs a server nothing.
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// A version of InfluxDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.x, and stores that speak like it.
    V1,
    /// 2.x.
    V2,
    /// 3.x.
    V3,
}

/// What is written to, and how.
#[derive(Clone)]
pub enum Target {
    /// A database of InfluxDB 1.
    V1 {
        /// Its name.
        database: String,
        /// Its retention policy, unless it is the default one.
        retention_policy: Option<String>,
        /// Who writes, if the server asks.
        credentials: Option<Credentials>,
    },
    /// A bucket of InfluxDB 2.
    V2 {
        /// The organisation.
        org: String,
        /// Its name.
        bucket: String,
        /// What the server asks for, if it does.
        token: Option<String>,
    },
    /// A database of InfluxDB 3.
    V3 {
        /// Its name.
        database: String,
        /// What the server asks for, if it does.
        token: Option<String>,
    },
    /// A database of InfluxDB 1 or 3: the server says which.
    Open {
        /// Its name.
        database: String,
        /// What the server asks for, if it does.
        token: Option<String>,
    },
}

/// Address, header and dialect of the writes to one database.
pub(super) struct WritePath {
    pub(super) version: Version,
    pub(super) url: Url,
    pub(super) authorization: Authorization,
    pub(super) dialect: Dialect,
}

/// One database of one server.
pub struct Influx {
    server: Server,
    target: Target,
    /// None while the server has not said which version it is.
    path: Option<WritePath>,
    /// Whether there was no answer of its own to the last write.
    is_silent: bool,
    sent_bytes: u64,
}

impl Influx {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is none, or that has a query or credentials; a token that no header can carry; a machine without root
    /// certificates where the URL is `https`.
    pub fn new(url: &str, target: Target) -> Result<Influx, SinkError> {
        let server = Server::new(url)?;
        let path = match &target {
            Target::V1 { database, retention_policy, credentials } => {
                Some(influx1::path(&server, database, retention_policy.as_deref(), credentials.as_ref()))
            }
            Target::V2 { org, bucket, token } => Some(influx2::path(&server, org, bucket, token.as_deref())?),
            Target::V3 { database, token } => Some(influx3::path(&server, database, token.as_deref())?),
            Target::Open { token, .. } => {
                // A token that cannot be sent is better known now.
                Authorization::token("Bearer", token.as_deref())?;
                None
            }
        };
        Ok(Influx { server, target, path, is_silent: false, sent_bytes: 0 })
    }

    /// Which version the server is of: as configured, or as it says itself.
    ///
    /// # Errors
    /// What to do because it does not say: retry or hold.
    pub async fn version(&mut self) -> Result<Version, Outcome> {
        Ok(self.path().await?.version)
    }

    async fn path(&mut self) -> Result<&WritePath, Outcome> {
        let path = match self.path.take() {
            Some(path) => path,
            None => self.find_path().await?,
        };
        Ok(self.path.insert(path))
    }

    /// Asks the server which version it is.
    async fn find_path(&self) -> Result<WritePath, Outcome> {
        let hold = |reason: String| Outcome::Hold { reason };
        let Target::Open { database, token } = &self.target else {
            return Err(hold("the database is not configured".to_owned()));
        };
        let token = token.as_deref();
        let unsendable = |error: SinkError| hold(error.to_string());
        let authorization = Authorization::token("Bearer", token).map_err(unsendable)?;
        let answer = self.server.get("/ping", &authorization, PING_PATIENCE).await?;
        let version = answer.version.as_deref();
        match (version.and_then(major), answer.status) {
            (Some(1), _) if token.is_some() => Err(hold(
                "the server says that it is InfluxDB 1, which takes no token; write version = 1 with `username` and `password_file`, or leave `token_file` out".to_owned(),
            )),
            (Some(1), _) => {
                info!(version, "the server is of version 1");
                Ok(influx1::path(&self.server, database, None, None))
            }
            (Some(3), _) => {
                info!(version, "the server is of version 3");
                influx3::path(&self.server, database, token).map_err(unsendable)
            }
            (Some(2), _) => Err(hold(
                "the server says that it is InfluxDB 2, which wants `org` and `bucket` instead of `database`".to_owned(),
            )),
            (_, 401 | 403) => Err(hold(format!(
                "the server does not let /ping in ({}), so its version is not known; check the token, or write `version`",
                answer.status
            ))),
            (_, 200..=299 | 404) => Err(hold(format!(
                "the server does not say which version of InfluxDB it speaks like (/ping answers {}); write `version`",
                answer.status
            ))),
            (_, status) => Err(Outcome::Retry {
                reason: format!("{status}: /ping does not say which version the server is of"),
                after: answer.after,
                unknown: false,
            }),
        }
    }
}

impl Sink for Influx {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        if let Err(outcome) = self.path().await {
            self.is_silent = matches!(outcome, Outcome::Retry { .. });
            return outcome;
        }
        let Some(path) = &self.path else { return Outcome::Confirmed };
        let body = match part.body(path.dialect) {
            Ok(body) if body.lines == 0 => return Outcome::Confirmed,
            Ok(body) => body,
            Err(error) => {
                return Outcome::Retry { reason: error.to_string(), after: None, unknown: false };
            }
        };
        self.sent_bytes += body.gzip.len() as u64;
        let answer = match self.server.post(&path.url, &path.authorization, body.gzip).await {
            Ok(answer) => answer,
            Err(outcome) => {
                self.is_silent = true;
                return outcome;
            }
        };
        // What stands before a server that is gone says so.
        self.is_silent = matches!(answer.status, 502 | 504) && answer.after.is_none();
        let outcome = judge(path, &answer, part, body.lines);
        if answer.status == 404 && matches!(self.target, Target::Open { .. }) {
            self.path = None;
        }
        outcome
    }

    async fn is_back(&mut self) -> bool {
        if !self.is_silent {
            return false;
        }
        let authorization = self.path.as_ref().map_or(&Authorization::None, |path| &path.authorization);
        let answer = self.server.get("/ping", authorization, PING_PATIENCE).await;
        answer.is_ok_and(|answer| answer.status < 500 && answer.status != 429)
    }

    fn dialect(&self) -> Option<Dialect> {
        self.path.as_ref().map(|path| path.dialect)
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}

/// What an answer to the lines of a part means, by what its version says of single lines.
fn judge(path: &WritePath, answer: &Answer, part: &Part<'_>, lines: usize) -> Outcome {
    // A point without a line would make the numbers of lines another count than those of points.
    let is_numbered = lines == part.count();
    if path.version == Version::V3
        && answer.status == 400
        && is_numbered
        && let Some(refused) = influx3::refused(&answer.body, part.points())
    {
        return Outcome::Partial { refused };
    }
    match classify(answer, lines) {
        Outcome::Rejected { reason } if is_numbered => {
            let points = quoted(&answer.body, part.points(), path.dialect);
            match points.len() {
                0 => Outcome::Rejected { reason },
                named if named == lines => Outcome::RejectedAll { reason },
                _ => Outcome::RejectedNamed { reason, points },
            }
        }
        outcome => outcome,
    }
}

/// The first number of a version such as `1.6.7`, `v2.7.1` or `3.0.0-beta`.
fn major(version: &str) -> Option<u32> {
    let digits = version.trim().trim_start_matches('v');
    let (major, _) = digits.split_once('.')?;
    major.parse().ok()
}

#[cfg(test)]
mod tests;
