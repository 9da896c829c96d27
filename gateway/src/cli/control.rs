//! Asks the running gateway over its control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, RequestBuilder, Response};
use serde::Serialize;
use thiserror::Error;

use super::owner;
use crate::http::CONTROL_SOCKET;
use crate::stats::Status;

/// Longest time for the status.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nobody answers, because no gateway runs.
#[derive(Debug, Error)]
#[error(
    "no gateway runs with data_dir {data_dir}: {cause}; start it with `forebay run`, or name its configuration with --config"
)]
pub(super) struct NotRunning {
    data_dir: String,
    cause: String,
}

/// A connection to the running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    client: Client,
}

impl Gateway {
    /// Looks for the gateway that uses `data_dir`.
    ///
    /// # Errors
    /// [`NotRunning`], or the socket may not be used by this user.
    pub(super) fn find(data_dir: &Path) -> Result<Gateway> {
        let path = data_dir.join(CONTROL_SOCKET);
        let not_running = |cause: String| NotRunning { data_dir: data_dir.display().to_string(), cause };
        match UnixStream::connect(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!(
                    "{} may not be used by this user; run `{}`",
                    path.display(),
                    owner::as_owner_of(data_dir)
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_running(format!("there is no {}", path.display())).into());
            }
            Err(error) => {
                return Err(not_running(format!("{} does not answer: {error}", path.display())).into());
            }
        }
        // The client wants an implementation of TLS, though a socket has none; one may be installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().unix_socket(path).build().context("the HTTP client cannot be made")?;
        Ok(Gateway { client })
    }

    /// Asks for a path of the API.
    ///
    /// # Errors
    /// The gateway does not answer, or answers with an error.
    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Response> {
        let mut url = reqwest::Url::parse("http://gateway/")?.join(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        answered(self.client.get(url)).await
    }

    /// Hands something to a path of the API.
    ///
    /// # Errors
    /// The gateway does not answer, or answers with an error.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Response> {
        let url = reqwest::Url::parse("http://gateway/")?.join(path)?;
        let body = serde_json::to_vec(body)?;
        answered(self.client.post(url).header("content-type", "application/json").body(body)).await
    }

    /// Its status, as text and as what it means.
    ///
    /// # Errors
    /// The gateway does not answer, or is of another version that speaks differently.
    pub(super) async fn status(&self) -> Result<(String, Status)> {
        let answer = tokio::time::timeout(PATIENCE, async {
            self.get("/api/v1/status", &[]).await?.text().await.context("the gateway hung up")
        });
        let Ok(text) = answer.await else {
            bail!("the gateway runs and does not answer within {} s; see its log", PATIENCE.as_secs());
        };
        let text = text?;
        let status = serde_json::from_str(&text)
            .context("the gateway's status cannot be read; is it of the same version as this command?")?;
        Ok((text, status))
    }
}

async fn answered(request: RequestBuilder) -> Result<Response> {
    let response = request.send().await.context("the gateway does not answer")?;
    let status = response.status();
    if !status.is_success() {
        let text = response.text().await.unwrap_or_default();
        bail!("the gateway answers {status}: {}", super::plain(text.trim()));
    }
    Ok(response)
}

/// Runs one command's conversation.
///
/// # Errors
/// No event loop can be had, or what the conversation returns.
pub(super) fn talk<T>(conversation: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(conversation)
}
