//! InfluxDB 2 and every store with its write API: `POST /api/v2/write` through the `influxdb2` crate.
//!
//! The crate carries our own bytes: line protocol from [`super::line_protocol`], already gzipped, which a default
//! header of its HTTP client declares; this client therefore serves writes alone. What the crate does not offer is
//! made up for here: it panics on a URL that does not parse and drops the path of one that has a path, so both are
//! refused with a message at construction; it hides the headers of an answer, so the backoff alone sets the pace.

use std::time::Duration;

use influxdb2::api::write::TimestampPrecision;
use influxdb2::{Client, ClientBuilder, RequestError};
use reqwest_for_influxdb2 as http;

use super::batch::Part;
use super::line_protocol::{self, Dialect};
use super::{CONNECT_TIMEOUT, Outcome, REQUEST_TIMEOUT, Sink, SinkError, answer};

/// One bucket of one server.
#[derive(Debug)]
pub struct Influx2 {
    client: Client,
    org: String,
    bucket: String,
}

impl Influx2 {
    /// Prepares the client; nothing is sent yet. Without a token no `Authorization` is sent.
    ///
    /// # Errors
    /// A URL that is none, or that has a path, query or credentials; a token that no header can carry.
    pub fn new(url: &str, org: &str, bucket: &str, token: Option<&str>) -> Result<Influx2, SinkError> {
        let base = super::check_url(url)?;
        if base.path() != "/" {
            return Err(SinkError::Path { url: url.to_owned(), path: base.path().to_owned() });
        }
        let token = token.unwrap_or_default();
        http::header::HeaderValue::from_str(&format!("Token {token}")).map_err(|_| SinkError::Token)?;
        let mut headers = http::header::HeaderMap::new();
        headers.insert(http::header::CONTENT_ENCODING, http::header::HeaderValue::from_static("gzip"));
        let builder = http::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(http::redirect::Policy::none())
            .no_proxy();
        let client = ClientBuilder::with_builder(builder, url, org, token)
            .build()
            .map_err(|error| SinkError::Client(error.to_string()))?;
        Ok(Influx2 { client, org: org.to_owned(), bucket: bucket.to_owned() })
    }

    /// Sends one gzipped body of `points` points.
    pub async fn send(&self, gzip: Vec<u8>, points: usize) -> Outcome {
        let precision = TimestampPrecision::Nanoseconds;
        let answer =
            self.client.write_line_protocol_with_precision(&self.org, &self.bucket, gzip, precision).await;
        match answer {
            Ok(()) => Outcome::Confirmed,
            Err(RequestError::Http { status, text }) => {
                let mut end = text.len().min(answer::LONGEST_BODY_BYTES);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                answer::classify(status.as_u16(), &text[..end], None, points)
            }
            Err(RequestError::ReqwestProcessing { source }) => {
                Outcome::Retry { reason: super::causes(&source), after: None, unknown: !source.is_connect() }
            }
            Err(error) => Outcome::Retry { reason: error.to_string(), after: None, unknown: true },
        }
    }
}

impl Sink for Influx2 {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        match line_protocol::encode(part.points(), Dialect::V2) {
            Ok(body) if body.lines == 0 => Outcome::Confirmed,
            Ok(body) => self.send(body.gzip, body.lines).await,
            Err(error) => Outcome::Retry { reason: error.to_string(), after: None, unknown: false },
        }
    }
}
