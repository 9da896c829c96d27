//! VictoriaMetrics, which keeps identical points: the one store that shows every duplicate.

use std::path::Path;

use crate::clock::wait_for;
use crate::http::Http;
use crate::process::{Process, free_port};

/// A running VictoriaMetrics. It acknowledges before it persists, so no test stops it.
#[derive(Debug)]
pub struct VictoriaMetrics {
    /// The port of its HTTP interface.
    pub port: u16,
    _process: Process,
}

impl VictoriaMetrics {
    /// Starts a server whose files live in `directory`. With `deduplicate`, equal points within a millisecond are one.
    ///
    /// # Errors
    /// victoria-metrics is not installed or does not get ready.
    pub fn start(directory: &Path, deduplicate: bool) -> anyhow::Result<VictoriaMetrics> {
        std::fs::create_dir_all(directory)?;
        let port = free_port()?;
        let mut command = super::command("victoria-metrics", "victoria-metrics")?;
        command
            .arg(format!("-storageDataPath={}", directory.join("data").display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args(["-retentionPeriod=100y", "-loggerLevel=WARN", "-memory.allowedBytes=256MB"]);
        if deduplicate {
            command.arg("-dedup.minScrapeInterval=1ms");
        }
        let process = Process::spawn("victoria-metrics", command, &directory.join("victoria.log"))?;
        let server = VictoriaMetrics { port, _process: process };
        let (http, url) = (Http::new()?, format!("{}/health", server.url()));
        wait_for("VictoriaMetrics' answer to /health", super::READY_LIMIT, || match http.get(&url) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(format!("{error:#}")),
        })?;
        Ok(server)
    }

    /// Its URL without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
