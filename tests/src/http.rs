//! A blocking HTTP client for the harness: one request, one answer, a deadline on everything.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// The longest that one request may take; reading a whole run back is the slowest of them.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may be idle and still be used again; the gateway closes it after ten seconds.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// A client with a runtime of its own.
#[derive(Debug)]
pub struct Http {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    /// The header `Authorization`, if one is sent.
    authorization: Option<String>,
}

/// Status and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The whole body as text.
    pub body: String,
}

impl Http {
    /// A client that sends no credentials.
    ///
    /// # Errors
    /// The runtime or the TLS setup fails.
    pub fn new() -> anyhow::Result<Http> {
        // A second installation is refused and harmless: whoever came first installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A server may close what is idle, and this runtime does not look meanwhile.
        let client = reqwest::Client::builder().timeout(REQUEST_LIMIT).pool_idle_timeout(IDLE_LIMIT);
        let client = client.no_proxy().build()?;
        Ok(Http { runtime, client, authorization: None })
    }

    /// The same, sending `Authorization: Token …` as InfluxDB's version 2 expects.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn with_token(token: Option<String>) -> anyhow::Result<Http> {
        Ok(Http { authorization: token.map(|token| format!("Token {token}")), ..Http::new()? })
    }

    /// The same, sending `Authorization: Bearer …` as the gateway expects.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn bearing(token: &str) -> anyhow::Result<Http> {
        Ok(Http { authorization: Some(format!("Bearer {token}")), ..Http::new()? })
    }

    /// GET.
    ///
    /// # Errors
    /// No answer came; an answer of any status is no error.
    pub fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(self.client.get(url)).with_context(|| format!("GET {url}"))
    }

    /// POST of a text body.
    ///
    /// # Errors
    /// No answer came; an answer of any status is no error.
    pub fn post(&self, url: &str, content_type: &str, body: String) -> anyhow::Result<Answer> {
        let request = self.client.post(url).header("content-type", content_type).body(body);
        self.send(request).with_context(|| format!("POST {url}"))
    }

    /// DELETE.
    ///
    /// # Errors
    /// No answer came; an answer of any status is no error.
    pub fn delete(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(self.client.delete(url)).with_context(|| format!("DELETE {url}"))
    }

    /// GET of a JSON document.
    ///
    /// # Errors
    /// No answer, a status other than 200, or no JSON.
    pub fn get_json(&self, url: &str) -> anyhow::Result<Value> {
        let answer = self.get(url)?.successful(url)?;
        serde_json::from_str(&answer.body).with_context(|| format!("{url} answered no JSON"))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let request = match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        };
        self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: response.text().await? })
        })
    }
}

impl Answer {
    /// The answer, if its status is one of success.
    ///
    /// # Errors
    /// Another status; the message carries the start of the body.
    pub fn successful(self, asked: &str) -> anyhow::Result<Answer> {
        let excerpt: String = self.body.chars().take(300).collect();
        anyhow::ensure!((200..300).contains(&self.status), "{asked} answered {}: {excerpt}", self.status);
        Ok(self)
    }
}

/// `text` escaped for a query string.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
