//! A client that does nothing but load lines into InfluxDB 1: batches of one size, one in flight, compressed as it goes.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A kept connection to a database.
#[derive(Debug)]
pub(super) struct Bulk {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Bulk {
    pub(super) fn new(url: &str, database: &str) -> Result<Bulk> {
        let host = url.strip_prefix("http://").context("no plain URL")?;
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST /write?db={database}&precision=ns HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: gzip\r\nContent-Length: "
        );
        Ok(Bulk { stream: BufReader::new(stream), head })
    }

    /// How long it takes to load these lines.
    pub(super) fn load(mut self, lines: impl Iterator<Item = String>, batch: usize) -> Result<Duration> {
        // What a database has to be sent is there before the clock starts; how it is packed is part of the work.
        let lines: Vec<String> = lines.collect();
        let began = Instant::now();
        for lines in lines.chunks(batch) {
            let mut body = GzEncoder::new(Vec::new(), Compression::fast());
            for line in lines {
                body.write_all(line.as_bytes())?;
                body.write_all(b"\n")?;
            }
            self.post(&body.finish()?)?;
        }
        Ok(began.elapsed())
    }

    fn post(&mut self, body: &[u8]) -> Result<()> {
        let mut request = self.head.clone();
        write!(request, "{}\r\n\r\n", body.len())?;
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        ensure!(status.starts_with("HTTP/1.1 204"), "the database answers {status:?}");
        // An answer without a body ends with an empty line.
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the database closed the connection");
        }
        Ok(())
    }
}
