//! One database's `/query`: a statement goes out, columns come back, or the reason why not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value as Scalar;

use crate::config::{Influxdb, InfluxdbApi, Secret};
use crate::sink::{SinkError, causes};

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest text of a server that is passed on, in characters.
const SAID_MAX: usize = 200;

/// One database.
#[derive(Clone, Debug)]
pub(crate) struct Influxql {
    pub(super) name: String,
    client: Client,
    url: Url,
    login: Login,
}

#[derive(Clone, Debug)]
enum Login {
    None,
    Basic(String, Option<Secret>),
    Token(Secret),
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    results: Vec<Part>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    series: Vec<Columns>,
    error: Option<String>,
}

/// Rows of one series, or of several in the order of time.
#[derive(Deserialize)]
pub(crate) struct Columns {
    /// The measurement.
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    /// The tags that it was grouped by.
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(default)]
    /// The rows.
    pub(crate) values: Vec<Vec<Scalar>>,
    #[serde(default)]
    /// There may be more rows than these: the server has a limit of its own, or thinks so, as version 1 does behind 10,000.
    pub(crate) partial: bool,
}

impl Influxql {
    /// Prepares the client; nothing is asked yet.
    ///
    /// # Errors
    /// The URL or the client cannot be had.
    pub(crate) fn new(influxdb: &Influxdb) -> Result<Influxql, SinkError> {
        let fault = |problem: String| SinkError::Url { url: influxdb.url.clone(), problem };
        let mut url = Url::parse(&influxdb.url).map_err(|error| fault(format!("is not a URL: {error}")))?;
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/query"));
        let login = match &influxdb.api {
            InfluxdbApi::V1 { database, retention_policy, username, password } => {
                url.query_pairs_mut().append_pair("db", database);
                if let Some(policy) = retention_policy {
                    url.query_pairs_mut().append_pair("rp", policy);
                }
                match username {
                    Some(username) => Login::Basic(username.clone(), password.clone()),
                    None => Login::None,
                }
            }
            InfluxdbApi::V2 { bucket: database, token, .. }
            | InfluxdbApi::V3 { database, token }
            | InfluxdbApi::Open { database, token } => {
                url.query_pairs_mut().append_pair("db", database);
                influxdb.read_token.as_ref().or(token.as_ref()).cloned().map_or(Login::None, Login::Token)
            }
        };
        url.query_pairs_mut().append_pair("epoch", "ns");
        // One may be installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Each query has an event loop of its own, which no connection outlives.
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .no_proxy();
        if url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| SinkError::Client(error.to_string()))?;
        Ok(Influxql { name: influxdb.name.clone(), client, url, login })
    }

    /// Asks one statement.
    ///
    /// # Errors
    /// What keeps the database from answering.
    pub(super) async fn ask(&self, statement: &str, deadline: Instant) -> Result<Vec<Columns>, String> {
        let name = &self.name;
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || {
            format!(
                "{name} takes too long; see that it answers at all, or ask for a shorter time, or for one device"
            )
        };
        let (status, body) = tokio::time::timeout(left, self.send(statement)).await.map_err(|_| late())??;
        self.read(status, &body)
    }

    fn read(&self, status: StatusCode, body: &[u8]) -> Result<Vec<Columns>, String> {
        let name = &self.name;
        let reply: Result<Reply, _> = serde_json::from_slice(body);
        let said = match &reply {
            Ok(reply) => reply.error.clone(),
            Err(_) => Some(String::from_utf8_lossy(&body[..body.len().min(4 * SAID_MAX)]).into_owned()),
        };
        let said = short(&said.unwrap_or_default());
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!(
                    "{name} does not let the gateway read ({status}): {said}; name a token that may in `read_token_file`, or a user that may"
                ));
            }
            StatusCode::NOT_FOUND => {
                return Err(format!(
                    "{name} has nothing to query there ({status}): {said}; a bucket of InfluxDB 2 needs a DBRP mapping of its own name, another store cannot be `query_sink`"
                ));
            }
            _ => return Err(format!("{name} answers {status}: {said}")),
        }
        let reply = reply.map_err(|_| self.strange(&said))?;
        let mut columns = Vec::new();
        for part in reply.results {
            if let Some(error) = part.error {
                return Err(format!("{name} refuses to answer: {}", short(&error)));
            }
            if part.series.iter().any(Columns::is_list_of_databases) {
                return Err(format!(
                    "{name} answers no InfluxQL, as VictoriaMetrics does; read it in its own language (/api/v1/export), or name another sink as [http] query_sink"
                ));
            }
            columns.extend(part.series);
        }
        Ok(columns)
    }

    async fn send(&self, statement: &str) -> Result<(StatusCode, Vec<u8>), String> {
        let Influxql { name, client, url, login } = self;
        let mut form = Url::parse("form:").map_err(|error| error.to_string())?;
        form.query_pairs_mut().append_pair("q", statement);
        let request = client
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        let request = match login {
            Login::None => request,
            Login::Basic(username, password) => {
                request.basic_auth(username, password.as_ref().map(Secret::expose))
            }
            Login::Token(token) => request.header("authorization", format!("Token {}", token.expose())),
        };
        let gone = |error: reqwest::Error| format!("{name} cannot be asked: {}", causes(&error));
        let mut response = request.send().await.map_err(gone)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(gone)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!(
                    "{name} has too much for one answer; ask for a shorter time, for one device, or with a lower limit"
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    /// What no server of ours says.
    pub(super) fn strange(&self, what: &str) -> String {
        format!("{} answers what no InfluxDB does: {what}; check its url", self.name)
    }
}

impl Columns {
    /// What VictoriaMetrics answers to any statement, and InfluxDB to none of ours.
    fn is_list_of_databases(&self) -> bool {
        self.name == "databases" && self.columns == ["name"]
    }
}

/// The first texts of each row.
pub(crate) fn cells<const N: usize>(parts: &[Columns]) -> impl Iterator<Item = [&str; N]> {
    let rows = parts.iter().flat_map(|columns| &columns.values);
    rows.filter_map(|row| {
        let mut texts = [""; N];
        for (text, cell) in texts.iter_mut().zip(row) {
            *text = cell.as_str()?;
        }
        (row.len() >= N).then_some(texts)
    })
}

/// One line of limited length.
fn short(text: &str) -> String {
    text.trim().chars().take(SAID_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
