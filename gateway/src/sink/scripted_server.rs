//! An HTTP server for tests that gives prepared answers and keeps what it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::read::GzDecoder;

/// One answer.
#[derive(Clone)]
pub(crate) enum Script {
    /// Status and headers as on the wire, then a body.
    Answer(&'static str, &'static str),
    /// The connection is cut after the request was read.
    Cut,
    /// The same, after half of an answer.
    Half(&'static str, &'static str),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    /// The body, decompressed if it was compressed.
    pub(crate) lines: String,
}

/// Serves on loopback until the process ends; a connection serves one request.
pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl ScriptedServer {
    /// Gives the answers in turn, the last one for ever.
    pub(crate) fn start(script: Vec<Script>) -> ScriptedServer {
        let mut script = script.into_iter().peekable();
        ScriptedServer::answering(move |_| {
            if script.len() > 1 { script.next().unwrap() } else { script.peek().unwrap().clone() }
        })
    }

    /// Decides each answer from the request.
    pub(crate) fn answering(answer: impl FnMut(&Request) -> Script + Send + 'static) -> ScriptedServer {
        ScriptedServer::listening(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// The same on an address that was chosen before.
    pub(crate) fn listening(
        address: SocketAddr,
        mut answer: impl FnMut(&Request) -> Script + Send + 'static,
    ) -> ScriptedServer {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&mut stream) else { continue };
                let script = answer(&request);
                seen.lock().unwrap().push(request);
                let (head, body, sent) = match script {
                    Script::Answer(head, body) => (head, body, body.len()),
                    Script::Half(head, body) => (head, body, body.len() / 2),
                    Script::Cut => continue,
                };
                let (length, body) = (body.len(), &body[..sent]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        ScriptedServer { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let length = length.trim().parse().unwrap();
    let mut body = bytes.split_off(head_end);
    while body.len() < length {
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            n => body.extend_from_slice(&chunk[..n]),
        }
    }
    let mut lines = String::new();
    if head.contains("content-encoding: gzip") {
        GzDecoder::new(body.as_slice()).read_to_string(&mut lines).unwrap();
    } else {
        lines = String::from_utf8(body).unwrap();
    }
    Some(Request { head, lines })
}
