//! A proxy between the gateway and a database that counts write requests and their answers.
//!
//! The last request before a kill is the one whose answer the gateway may not have been able to act upon: the answer was
//! on its way, or had arrived and the cursor behind it was not durable yet. [`HttpProxy::take_last_write_rows`] says how
//! many rows it carried, which is how many duplicates the kill may have caused in a store that keeps them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::read::GzDecoder;

use super::{Relay, close};

/// Write requests since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Requests that were passed to the database whole.
    pub requests: u64,
    /// Answers that came back from the database.
    pub answers: u64,
    /// Rows (lines) in those requests, repeated ones counted again.
    pub rows: u64,
    /// The most rows in one request.
    pub rows_max: u64,
}

#[derive(Debug, Default)]
struct Records {
    counts: WriteCounts,
    last_write_rows: u64,
    loses_answers: bool,
    lost_answers: u64,
}

/// The running proxy.
#[derive(Debug)]
pub struct HttpProxy {
    relay: Relay,
    records: Arc<Mutex<Records>>,
}

impl HttpProxy {
    /// Starts a proxy in front of the database on `port` of this machine.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(port: u16) -> anyhow::Result<HttpProxy> {
        HttpProxy::in_front_of(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Starts a proxy in front of the database at `upstream`.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn in_front_of(upstream: SocketAddr) -> anyhow::Result<HttpProxy> {
        let records = Arc::new(Mutex::new(Records::default()));
        let shared = Arc::clone(&records);
        let relay = Relay::start(upstream, move |client, server| {
            // An error here is a connection that ended, which both sides learn by its end.
            let _ = serve(&client, &server, &shared);
            close(&client);
            close(&server);
        })?;
        Ok(HttpProxy { relay, records })
    }

    /// Where the gateway sends its writes, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.relay.port)
    }

    /// What has passed so far.
    #[must_use]
    pub fn counts(&self) -> WriteCounts {
        lock(&self.records).counts
    }

    /// How many rows the latest write request carried; a second call answers 0 until there is another.
    #[must_use]
    pub fn take_last_write_rows(&self) -> u64 {
        std::mem::take(&mut lock(&self.records).last_write_rows)
    }

    /// Whether connections end in place of the database's answers to writes, which it has carried out.
    pub fn lose_answers(&self, lose: bool) {
        lock(&self.records).loses_answers = lose;
    }

    /// How many answers were lost so.
    #[must_use]
    pub fn lost_answers(&self) -> u64 {
        lock(&self.records).lost_answers
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.relay.switch.cut();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.relay.switch.mend();
    }
}

fn lock(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection: a request, its answer, the next request.
fn serve(client: &TcpStream, server: &TcpStream, records: &Mutex<Records>) -> std::io::Result<()> {
    let (mut requests, mut answers) = (BufReader::new(client), BufReader::new(server));
    let (mut to_client, mut to_server) = (client, server);
    while let Some(request) = Message::read(&mut requests)? {
        let rows = request.rows();
        to_server.write_all(&request.bytes)?;
        if let Some(rows) = rows {
            let mut records = lock(records);
            records.counts.requests += 1;
            records.counts.rows += rows;
            records.counts.rows_max = records.counts.rows_max.max(rows);
            records.last_write_rows = rows;
        }
        let Some(answer) = Message::read(&mut answers)? else { break };
        if rows.is_some() {
            let mut records = lock(records);
            records.counts.answers += 1;
            if records.loses_answers {
                records.lost_answers += 1;
                break;
            }
        }
        to_client.write_all(&answer.bytes)?;
    }
    Ok(())
}

/// One HTTP/1.1 request or answer, byte for byte as it came.
#[derive(Debug)]
struct Message {
    start: String,
    bytes: Vec<u8>,
    body: std::ops::Range<usize>,
    gzip: bool,
}

impl Message {
    /// The next message, or `None` at the end of the connection.
    fn read(from: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Message>> {
        let mut bytes = Vec::new();
        let start = read_line(from, &mut bytes)?;
        if start.is_empty() {
            return Ok(None);
        }
        let (mut length, mut chunked, mut gzip) = (0, false, false);
        loop {
            let line = read_line(from, &mut bytes)?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else { break };
            match (name, value.trim()) {
                ("content-length", digits) => length = digits.parse().map_err(std::io::Error::other)?,
                ("transfer-encoding", "chunked") => chunked = true,
                ("content-encoding", "gzip") => gzip = true,
                _ => {}
            }
        }
        let body_start = bytes.len();
        if chunked {
            read_chunks(from, &mut bytes)?;
        } else {
            read_exactly(from, &mut bytes, length)?;
        }
        let body = body_start..bytes.len();
        Ok(Some(Message { start, bytes, body, gzip }))
    }

    /// How many lines a write request carries; `None` for any other request.
    fn rows(&self) -> Option<u64> {
        if !self.start.starts_with("POST ") || !self.start.contains("write") {
            return None;
        }
        let body = self.bytes.get(self.body.clone())?;
        let mut text = Vec::new();
        if self.gzip {
            GzDecoder::new(body).read_to_end(&mut text).ok()?;
        } else {
            text.extend_from_slice(body);
        }
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
        u64::try_from(lines).ok()
    }
}

/// Appends one line to `bytes` and returns it without its end.
fn read_line(from: &mut BufReader<&TcpStream>, bytes: &mut Vec<u8>) -> std::io::Result<String> {
    let start = bytes.len();
    from.read_until(b'\n', bytes)?;
    let line = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
    Ok(line.trim_end().to_owned())
}

fn read_exactly(from: &mut BufReader<&TcpStream>, bytes: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    let start = bytes.len();
    bytes.resize(start + length, 0);
    from.read_exact(bytes.get_mut(start..).unwrap_or_default())
}

fn read_chunks(from: &mut BufReader<&TcpStream>, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let size = read_line(from, bytes)?;
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(std::io::Error::other)?;
        // A chunk's data, or nothing after the last one, ends in CR LF.
        read_exactly(from, bytes, size + 2)?;
        if size == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HttpProxy;
    use crate::http::Http;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    #[test]
    fn writes_are_counted_and_a_cut_refuses() {
        let database = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = database.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in database.incoming().flatten() {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                }
            }
        });
        let proxy = HttpProxy::start(port).unwrap();
        let http = Http::new().unwrap();
        let url = format!("{}/write?db=x", proxy.url());
        assert_eq!(http.post(&url, "text/plain", "a v=1\nb v=2\n".into()).unwrap().status, 204);
        let counts = proxy.counts();
        assert_eq!((counts.requests, counts.answers, counts.rows), (1, 1, 2));
        assert_eq!((proxy.take_last_write_rows(), proxy.take_last_write_rows()), (2, 0));
        proxy.cut();
        assert!(http.get(&url).is_err());
        proxy.mend();
        assert_eq!(http.get(&url).unwrap().status, 204);
        assert_eq!(proxy.counts().requests, 1, "a GET is no write");
    }
}
