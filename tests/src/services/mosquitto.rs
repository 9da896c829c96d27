//! mosquitto with persistence, so that a clean restart keeps sessions and queued messages.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;

use crate::clock::wait_for;
use crate::process::{Process, free_port};

/// A minimal MQTT 3.1.1 CONNECT: clean session, keep-alive 10 s, client id `ready`.
const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready";

/// The answer that accepts it.
const CONNACK: [u8; 4] = [0x20, 0x02, 0x00, 0x00];

/// A running broker.
#[derive(Debug)]
pub struct Mosquitto {
    /// The port it listens on.
    pub port: u16,
    directory: PathBuf,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts a broker whose files live in `directory`, and waits until it accepts a client.
    ///
    /// # Errors
    /// mosquitto is not installed or does not get ready.
    pub fn start(directory: &Path) -> anyhow::Result<Mosquitto> {
        // The queue limits are lifted because a broker that drops what it accepted would be counted against the gateway.
        let limits = "max_inflight_messages 200\nmax_queued_messages 0\nmax_queued_bytes 0\n";
        Mosquitto::start_with(directory, limits)
    }

    /// The same with other lines in its configuration than those that lift the limits: none for mosquitto's own. Listeners
    /// among them have settings of their own.
    ///
    /// # Errors
    /// As [`Mosquitto::start`].
    pub fn start_with(directory: &Path, lines: &str) -> anyhow::Result<Mosquitto> {
        std::fs::create_dir_all(directory)?;
        let port = free_port()?;
        // Started by root, mosquitto drops to an account that cannot write here; `user root` keeps it from that and is
        // ignored for everybody else.
        let settings = format!(
            "per_listener_settings true\nuser root\n\
             persistence true\npersistence_location {}/\nautosave_interval 1800\nset_tcp_nodelay true\n\
             log_dest stderr\nlog_type error\nlog_type warning\nsys_interval 1\n\
             listener {port} 127.0.0.1\nallow_anonymous true\n{lines}",
            directory.display()
        );
        std::fs::write(directory.join("mosquitto.conf"), settings)?;
        let mut broker = Mosquitto { port, directory: directory.to_owned(), process: None };
        broker.resume()?;
        Ok(broker)
    }

    /// Ends the broker cleanly, as a restart by an operator does; it saves sessions and queues first.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(super::END_LIMIT)?;
        }
        Ok(())
    }

    /// Forgets every session and every retained message. It must have been stopped.
    ///
    /// # Errors
    /// It has saved nothing.
    pub fn forget(&self) -> anyhow::Result<()> {
        let file = self.directory.join("mosquitto.db");
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Starts it again on the same port and directory.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = super::command("mosquitto", "mosquitto")?;
        command.arg("-c").arg(self.directory.join("mosquitto.conf"));
        self.process = Some(Process::spawn("mosquitto", command, &self.directory.join("mosquitto.log"))?);
        wait_for("mosquitto's first CONNACK", super::READY_LIMIT, || accepts_client(self.port))
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its URL, as the gateway's configuration wants it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

/// Writes a file of one account, as a listener's `password_file` wants it.
///
/// # Errors
/// The program that belongs to mosquitto is not there, or refuses.
pub fn write_password(file: &Path, username: &str, password: &str) -> anyhow::Result<()> {
    let mut command = super::command("mosquitto_passwd", "mosquitto")?;
    command.args(["-b", "-c"]).arg(file).args([username, password]).stdin(Stdio::null());
    let output = command.output().context("running mosquitto_passwd")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "mosquitto_passwd ended with {}: {said}", output.status);
    Ok(())
}

/// Whether the broker on `port` accepts a client.
///
/// # Errors
/// Says what kept it.
pub fn accepts_client(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let attempt = || -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(CONNECT)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    match attempt() {
        Ok(CONNACK) => Ok(()),
        Ok(other) => Err(format!("it answered {other:02x?}")),
        Err(error) => Err(error.to_string()),
    }
}
