//! InfluxDB 1: `POST /write?db=…&precision=ns`, through a thin client of our own on current reqwest and rustls.
//!
//! User name and password travel as basic authentication, never in the address. A path in the URL is kept as a
//! prefix, so a server behind a proxy works.

use reqwest::header::{CONTENT_ENCODING, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};

use super::batch::Part;
use super::line_protocol::{self, Dialect};
use super::{CONNECT_TIMEOUT, Outcome, REQUEST_TIMEOUT, Sink, SinkError, answer};

/// User name and password of a server that asks for them.
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; may be empty.
    pub password: String,
}

/// One database of one server.
pub struct Influx1 {
    client: Client,
    write_url: Url,
    credentials: Option<Credentials>,
}

impl Influx1 {
    /// Prepares the client; nothing is sent yet. Without a retention policy the database's default one is written.
    ///
    /// # Errors
    /// A URL that is none, or that has a query or credentials; a machine without root certificates where the URL
    /// is `https`.
    pub fn new(
        url: &str,
        database: &str,
        retention_policy: Option<&str>,
        credentials: Option<Credentials>,
    ) -> Result<Influx1, SinkError> {
        let mut write_url = super::check_url(url)?;
        let prefix = write_url.path().trim_end_matches('/').to_owned();
        write_url.set_path(&format!("{prefix}/write"));
        write_url.query_pairs_mut().append_pair("db", database).append_pair("precision", "ns");
        if let Some(policy) = retention_policy {
            write_url.query_pairs_mut().append_pair("rp", policy);
        }
        // Installed once a process; the second installation fails and is not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy();
        if write_url.scheme() == "http" {
            // Spares a machine without root certificates the error, and every other one the reading of them.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| SinkError::Client(super::causes(&error)))?;
        Ok(Influx1 { client, write_url, credentials })
    }

    /// Sends one gzipped body of `points` points.
    pub async fn send(&self, gzip: Vec<u8>, points: usize) -> Outcome {
        let mut request = self.client.post(self.write_url.clone()).header(CONTENT_ENCODING, "gzip").body(gzip);
        if let Some(Credentials { username, password }) = &self.credentials {
            request = request.basic_auth(username, Some(password));
        }
        match request.send().await {
            Ok(response) => read_answer(response, points).await,
            Err(error) => {
                let unknown = !error.is_connect();
                Outcome::Retry { reason: super::causes(&error), after: None, unknown }
            }
        }
    }
}

impl Sink for Influx1 {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        match line_protocol::encode(part.points(), Dialect::V1) {
            Ok(body) if body.lines == 0 => Outcome::Confirmed,
            Ok(body) => self.send(body.gzip, body.lines).await,
            Err(error) => Outcome::Retry { reason: error.to_string(), after: None, unknown: false },
        }
    }
}

/// A body that breaks off keeps its status: that the server refused is known, why is not.
async fn read_answer(mut response: Response, points: usize) -> Outcome {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(answer::retry_after);
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = answer::LONGEST_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == answer::LONGEST_BODY_BYTES {
            break;
        }
    }
    answer::classify(status, &String::from_utf8_lossy(&body), after, points)
}
