//! One server with InfluxDB's write API: requests over a connection that is kept, and answers of bounded length.
//!
//! A path in the URL is kept as a prefix, so that a server behind a proxy works. Secrets travel in the header
//! `Authorization` alone. Redirects are not followed, and a proxy of the environment is not asked: both would take the
//! points somewhere else than the configuration says.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, DATE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};

use super::{CONNECT_TIMEOUT, Credentials, Outcome, REQUEST_TIMEOUT, SinkError, answer};

/// Where requests go.
#[derive(Debug)]
pub(super) struct Server {
    client: Client,
    base: Url,
}

/// What is shown to the server.
#[derive(Clone)]
pub(super) enum Authorization {
    None,
    Basic(Credentials),
    Token(HeaderValue),
}

/// Status and body of an answer, as far as they came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What its `Retry-After` says.
    pub(super) after: Option<Duration>,
    pub(super) body: String,
    /// Whether there was more of the body than is read of any.
    pub(super) is_cut: bool,
    /// What its `X-Influxdb-Version` says.
    pub(super) version: Option<String>,
}

impl Server {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is none, or that has a query or credentials; a machine without root certificates where the URL is
    /// `https`.
    pub(super) fn new(url: &str) -> Result<Server, SinkError> {
        let base = super::check_url(url)?;
        // Installed once a process; the second installation fails and is not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy();
        if base.scheme() == "http" {
            // Spares a machine without root certificates the error, and every other one the reading of them.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| SinkError::Client(super::causes(&error)))?;
        Ok(Server { client, base })
    }

    /// The address of a path such as `/write` on this server.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// Sends one gzipped body.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn post(
        &self,
        url: &Url,
        authorization: &Authorization,
        gzip: Bytes,
    ) -> Result<Answer, Outcome> {
        let request = self.client.post(url.clone()).header(CONTENT_ENCODING, "gzip").body(gzip);
        ask(request, authorization).await
    }

    /// Asks for a path, for `patience` at most.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn get(
        &self,
        path: &str,
        authorization: &Authorization,
        patience: Duration,
    ) -> Result<Answer, Outcome> {
        ask(self.client.get(self.url(path)).timeout(patience), authorization).await
    }
}

impl Authorization {
    /// A token, behind the word that the server wants before it; none without a token.
    ///
    /// # Errors
    /// The token holds a character that no header can carry.
    pub(super) fn token(word: &str, token: Option<&str>) -> Result<Authorization, SinkError> {
        let Some(token) = token else { return Ok(Authorization::None) };
        let mut header = HeaderValue::from_str(&format!("{word} {token}")).map_err(|_| SinkError::Token)?;
        header.set_sensitive(true);
        Ok(Authorization::Token(header))
    }
}

async fn ask(request: RequestBuilder, authorization: &Authorization) -> Result<Answer, Outcome> {
    let request = match authorization {
        Authorization::None => request,
        Authorization::Basic(Credentials { username, password }) => {
            request.basic_auth(username, Some(password))
        }
        Authorization::Token(header) => request.header(AUTHORIZATION, header.clone()),
    };
    match request.send().await {
        Ok(response) => Ok(read(response).await),
        Err(error) => {
            let unknown = !error.is_connect();
            Err(Outcome::Retry { reason: super::causes(&error), after: None, unknown })
        }
    }
}

/// A body that breaks off keeps its status: that the server refused is known, why is not.
async fn read(mut response: Response) -> Answer {
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let date = header(DATE.as_str());
    let after = header(RETRY_AFTER.as_str()).and_then(|after| answer::retry_after(after, date));
    let version = header("x-influxdb-version").map(answer::shorten);
    let status = response.status().as_u16();
    let (mut body, mut is_cut) = (Vec::new(), false);
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = answer::LONGEST_BODY_BYTES - body.len();
        is_cut = chunk.len() > room;
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if is_cut {
            break;
        }
    }
    Answer { status, after, body: String::from_utf8_lossy(&body).into_owned(), is_cut, version }
}
