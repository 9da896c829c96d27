//! InfluxDB 1.x, the genuine engine: true nanoseconds, and the same point twice is one point.

use std::path::{Path, PathBuf};

use crate::clock::wait_for;
use crate::http::{Http, percent_encode};
use crate::process::{Process, free_port};

/// A running InfluxDB.
#[derive(Debug)]
pub struct InfluxDb {
    /// The port of its HTTP interface.
    pub port: u16,
    directory: PathBuf,
    process: Option<Process>,
}

impl InfluxDb {
    /// The database that [`InfluxDb::start`] creates.
    pub const DATABASE: &str = "forebay";

    /// Starts a server whose files live in `directory`, and creates the database.
    ///
    /// # Errors
    /// influxd is not installed, does not get ready, or refuses the database.
    pub fn start(directory: &Path) -> anyhow::Result<InfluxDb> {
        std::fs::create_dir_all(directory)?;
        let (port, rpc_port) = (free_port()?, free_port()?);
        let root = directory.display();
        let settings = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc_port}\"\n\
             [meta]\n dir = \"{root}/meta\"\n logging-enabled = false\n\
             [data]\n dir = \"{root}/data\"\n wal-dir = \"{root}/wal\"\n query-log-enabled = false\n\
             [http]\n bind-address = \"127.0.0.1:{port}\"\n log-enabled = false\n\
             [monitor]\n store-enabled = false\n[logging]\n level = \"warn\"\n suppress-logo = true\n"
        );
        std::fs::write(directory.join("influxdb.conf"), settings)?;
        let mut server = InfluxDb { port, directory: directory.to_owned(), process: None };
        server.resume()?;
        let statement = percent_encode(&format!("CREATE DATABASE {}", InfluxDb::DATABASE));
        let url = format!("{}/query?q={statement}", server.url());
        Http::new()?.post(&url, "text/plain", String::new())?.successful("CREATE DATABASE")?;
        Ok(server)
    }

    /// Ends the server with SIGTERM.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(super::END_LIMIT)?;
        }
        Ok(())
    }

    /// Starts it again on the same port and directory.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = super::command("influxd", "influxdb")?;
        command.arg("run").arg("-config").arg(self.directory.join("influxdb.conf"));
        self.process = Some(Process::spawn("influxd", command, &self.directory.join("influxd.log"))?);
        let (http, url) = (Http::new()?, format!("{}/ping", self.url()));
        wait_for("influxd's answer to /ping", super::READY_LIMIT, || match http.get(&url) {
            Ok(answer) if answer.status == 204 => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Its URL without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
