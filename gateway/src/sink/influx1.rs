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
        let mut request =
            self.client.post(self.write_url.clone()).header(CONTENT_ENCODING, "gzip").body(gzip);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sink::scripted_server::{Script, ScriptedServer};

    fn body() -> Vec<u8> {
        let fields = [("v".to_owned(), crate::record::Value::Float(1.5))];
        let point = crate::sink::Point::of("m,device=d", 7, &fields);
        line_protocol::encode(std::iter::once(point), Dialect::V1).unwrap().gzip
    }

    async fn answer(script: Script) -> Outcome {
        let server = ScriptedServer::start(vec![script]);
        let sink = Influx1::new(&server.url(), "db", None, None).unwrap();
        sink.send(body(), 5).await
    }

    #[tokio::test]
    async fn a_request_names_database_policy_precision_and_user() {
        let server = ScriptedServer::start(vec![Script::Answer("204 No Content", "")]);
        let credentials = Credentials { username: "u".into(), password: "p&q".into() };
        let url = format!("{}/influx/", server.url());
        let sink = Influx1::new(&url, "my db", Some("year"), Some(credentials)).unwrap();
        assert_eq!(sink.send(body(), 1).await, Outcome::Confirmed);
        let requests = server.requests();
        let head = &requests[0].head;
        assert!(head.starts_with("post /influx/write?db=my+db&precision=ns&rp=year http/1.1"), "{head}");
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(head.contains("authorization: basic dtpwjne="), "{head}");
        assert_eq!(requests[0].lines, "m,device=d v=1.5 7\n");
    }

    #[tokio::test]
    async fn answers_are_read_with_their_retry_after() {
        let outcome = answer(Script::Answer("503 Busy\r\nRetry-After: 9", "")).await;
        assert!(
            matches!(outcome, Outcome::Retry { after: Some(after), .. } if after == Duration::from_secs(9))
        );
        let body = r#"{"error":"partial write: field type conflict dropped=1"}"#;
        assert!(matches!(answer(Script::Answer("400 Bad", body)).await, Outcome::Rejected { .. }));
        assert!(matches!(
            answer(Script::Answer("302 Found\r\nLocation: /", "")).await,
            Outcome::Retry { .. }
        ));
    }

    #[tokio::test]
    async fn a_cut_leaves_the_outcome_unknown_and_a_refused_connection_does_not() {
        assert!(matches!(answer(Script::Cut).await, Outcome::Retry { unknown: true, .. }));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sink = Influx1::new(&format!("http://{free}"), "db", None, None).unwrap();
        assert!(matches!(sink.send(body(), 1).await, Outcome::Retry { unknown: false, .. }));
    }
}
