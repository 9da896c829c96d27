//! InfluxDB 2 and every store with its write API: `POST /api/v2/write` through the `influxdb2` crate.
//!
//! The crate carries our own bytes: line protocol from [`super::line_protocol`], already gzipped, which a default
//! header of its HTTP client declares; this client therefore serves writes alone. What the crate does not offer is
//! made up for here: it panics on a URL that does not parse and drops the path of one that has a path, so both are
//! refused with a message at construction; it hides the headers of an answer, so the backoff alone sets the pace;
//! it reads error bodies whole, which the time limit of a request bounds.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::scripted_server::{Script, ScriptedServer};

    fn body() -> Vec<u8> {
        let fields = [("v".to_owned(), crate::record::Value::Unsigned(1))];
        let point = crate::sink::Point::of("m,device=d", 7, &fields);
        line_protocol::encode(std::iter::once(point), Dialect::V2).unwrap().gzip
    }

    async fn answer(script: Script) -> Outcome {
        let server = ScriptedServer::start(vec![script]);
        let sink = Influx2::new(&server.url(), "org", "bucket", None).unwrap();
        sink.send(body(), 5).await
    }

    #[tokio::test]
    async fn a_request_names_bucket_organization_precision_and_token() {
        let server = ScriptedServer::start(vec![Script::Answer("204 No Content", "")]);
        let sink = Influx2::new(&server.url(), "my org", "b", Some("t0ken")).unwrap();
        assert_eq!(sink.send(body(), 1).await, Outcome::Confirmed);
        let requests = server.requests();
        let head = &requests[0].head;
        assert!(head.starts_with("post /api/v2/write?bucket=b&org=my+org&precision=ns http/1.1"), "{head}");
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(head.contains("authorization: token t0ken"), "{head}");
        assert_eq!(requests[0].lines, "m,device=d v=1u 7\n");
    }

    #[tokio::test]
    async fn answers_are_read_through_the_crate() {
        let body =
            r#"{"code":"unprocessable entity","message":"partial write: field type conflict dropped=1"}"#;
        assert!(matches!(answer(Script::Answer("422 Unprocessable", body)).await, Outcome::Rejected { .. }));
        assert!(matches!(answer(Script::Answer("401 Unauthorized", "")).await, Outcome::Hold { .. }));
        assert!(matches!(answer(Script::Answer("413 Too Large", "")).await, Outcome::TooLarge { .. }));
        assert!(matches!(
            answer(Script::Answer("302 Found\r\nLocation: /", "")).await,
            Outcome::Retry { .. }
        ));
        assert!(matches!(answer(Script::Answer("200 OK", "<html>")).await, Outcome::Retry { .. }));
    }

    #[tokio::test]
    async fn a_cut_leaves_the_outcome_unknown_and_a_refused_connection_does_not() {
        assert!(matches!(answer(Script::Cut).await, Outcome::Retry { unknown: true, .. }));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sink = Influx2::new(&format!("http://{free}"), "o", "b", None).unwrap();
        assert!(matches!(sink.send(body(), 1).await, Outcome::Retry { unknown: false, .. }));
    }

    #[test]
    fn what_the_crate_would_misread_is_refused() {
        let refusal = |url, token| Influx2::new(url, "o", "b", token).unwrap_err();
        assert!(matches!(refusal("http://h/influx", None), SinkError::Path { .. }));
        assert!(matches!(refusal("h:8086", None), SinkError::Url { .. }));
        assert!(matches!(refusal("http://h", Some("a\nb")), SinkError::Token));
        assert!(Influx2::new("http://h:8086/", "o", "b", Some("t")).is_ok());
    }
}
