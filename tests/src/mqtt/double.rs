//! A broker that follows a script, for what no real broker sends: messages of any announced size, and bytes that are no MQTT.
//!
//! It has one persistent session. On each connection it sends, in order, whatever was not acknowledged yet, and to a client of
//! MQTT 5 nothing that exceeds the size which that client announced. Its answer to the greeting, or to the first subscription,
//! and the messages behind it leave in one piece, as they may on any connection. What it is told beyond that it grants.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;

use super::Message;
use super::packet::{self, Packet};

/// Bytes of a streamed message that are written at once.
const PIECE: usize = 64 * 1024;

/// CONNECT's property that names the largest packet which the client takes.
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Something to send.
#[derive(Clone, Debug)]
pub enum Item {
    /// A message at QoS 1.
    Message(Message),
    /// A message at QoS 1 whose remaining length is `bytes`: the payload is as many `x` as that takes.
    Streamed {
        /// Its topic.
        topic: String,
        /// Everything behind the remaining length.
        bytes: usize,
    },
    /// Bytes after which there is nothing to be said on a connection. They are sent on as many of them as this.
    Raw {
        /// The bytes.
        bytes: Vec<u8>,
        /// On how many connections.
        times: usize,
    },
}

/// What has become of the script.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// When each connection was made.
    pub connected: Vec<Instant>,
    /// For each item: how often it was sent.
    pub sent: Vec<usize>,
    /// For each item: whether it was acknowledged, discarded as too large, or as raw bytes sent often enough.
    pub done: Vec<bool>,
    /// Messages that the client had announced not to take.
    pub discarded: usize,
    /// The largest packet that the client takes, if it says so.
    pub packet_bytes_max: Option<usize>,
    /// Whether the client has subscribed.
    subscribed: bool,
}

/// The running broker.
#[derive(Debug)]
pub struct ScriptedBroker {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    items: Vec<Item>,
    progress: Mutex<Progress>,
    ended: Mutex<bool>,
    /// The present connection, to end it.
    present: Mutex<Option<TcpStream>>,
}

impl ScriptedBroker {
    /// Starts a broker on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start(items: Vec<Item>) -> anyhow::Result<ScriptedBroker> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the broker")?;
        let port = listener.local_addr()?.port();
        let progress =
            Progress { sent: vec![0; items.len()], done: vec![false; items.len()], ..Progress::default() };
        let shared = Arc::new(Shared {
            items,
            progress: Mutex::new(progress),
            ended: Mutex::new(false),
            present: Mutex::new(None),
        });
        let served = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new().name("scripted-broker".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if *lock(&served.ended) {
                    break;
                }
                // A connection that fails in whatever way is over, and the client is to make another one.
                let _ = serve(stream, &served);
            }
        })?;
        Ok(ScriptedBroker { port, shared, acceptor: Some(acceptor) })
    }

    /// Where the gateway connects.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// What has become of the script.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.shared.progress).clone()
    }
}

impl Drop for ScriptedBroker {
    fn drop(&mut self) {
        *lock(&self.shared.ended) = true;
        if let Some(stream) = lock(&self.shared.present).take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // The acceptor waits in `accept`; one more connection lets it see that it has ended.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a connection to its end.
fn serve(mut stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    *lock(&shared.present) = Some(stream.try_clone()?);
    lock(&shared.progress).connected.push(Instant::now());
    let output = Arc::new(Mutex::new(stream.try_clone()?));
    let mut sender: Option<JoinHandle<()>> = None;
    let mut version_5 = false;
    let (mut buffer, mut unread) = (vec![0; PIECE], Vec::new());
    loop {
        let length = stream.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        unread.extend_from_slice(bytes);
        while let Some((packet, length)) = Packet::parse(&unread) {
            let mut answer = answer(&packet, &mut version_5, &mut lock(&shared.progress));
            let may_send = sender.is_none() && lock(&shared.progress).subscribed;
            if may_send {
                let (output, shared, front) =
                    (Arc::clone(&output), Arc::clone(shared), std::mem::take(&mut answer));
                // It ends by itself when the connection does.
                let send = move || drop(send_all(&output, &shared, version_5, front));
                sender = Some(std::thread::spawn(send));
            } else {
                lock(&output).write_all(&answer)?;
            }
            unread.drain(..length);
        }
    }
    stream.shutdown(Shutdown::Both)?;
    if let Some(sender) = sender {
        let _ = sender.join();
    }
    Ok(())
}

/// What a packet is answered with; it may be nothing.
fn answer(packet: &Packet<'_>, version_5: &mut bool, progress: &mut Progress) -> Vec<u8> {
    if packet.kind == packet::CONNECT {
        *version_5 = packet.level() == Some(packet::LEVEL_5);
    }
    let version_5 = *version_5;
    let id = packet.id().unwrap_or(0).to_be_bytes();
    match packet.kind {
        packet::CONNECT => {
            progress.packet_bytes_max = version_5.then(|| announced_maximum(packet.body)).flatten();
            let mut body = vec![u8::from(progress.subscribed), 0];
            if version_5 {
                body.push(0);
            }
            packet::packet(packet::CONNACK, 0, &body)
        }
        packet::SUBSCRIBE => {
            progress.subscribed = true;
            let mut body = id.to_vec();
            if version_5 {
                body.push(0);
            }
            body.extend(std::iter::repeat_n(1, filters(packet.body, version_5)));
            packet::packet(packet::SUBACK, 0, &body)
        }
        packet::PUBACK => {
            let place = usize::from(u16::from_be_bytes(id)).wrapping_sub(1);
            if let Some(done) = progress.done.get_mut(place) {
                *done = true;
            }
            Vec::new()
        }
        packet::PUBLISH => packet
            .published(version_5)
            .map(|published| packet::packet(packet::PUBACK, 0, &published.id.to_be_bytes()))
            .unwrap_or_default(),
        packet::PINGREQ => packet::packet(packet::PINGRESP, 0, &[]),
        _ => Vec::new(),
    }
}

/// How many filters a SUBSCRIBE has.
fn filters(body: &[u8], version_5: bool) -> usize {
    let mut rest = body.get(2..).unwrap_or_default();
    if version_5 && let Some((properties, prefix)) = packet::variable_integer(rest) {
        rest = rest.get(prefix + properties..).unwrap_or_default();
    }
    let mut count = 0;
    while let Some((length, behind)) = rest.split_first_chunk() {
        count += 1;
        rest = behind.get(usize::from(u16::from_be_bytes(*length)) + 1..).unwrap_or_default();
    }
    count
}

/// The largest packet that the client of a CONNECT takes, if that is its first property or comes behind the expiry of its
/// session, which is what clients do.
fn announced_maximum(body: &[u8]) -> Option<usize> {
    let (length, prefix) = packet::variable_integer(body.get(10..)?)?;
    let mut properties = body.get(10 + prefix..10 + prefix + length)?;
    loop {
        let (&name, rest) = properties.split_first()?;
        // Session expiry, receive maximum, maximum packet size, topic alias maximum, two requests.
        let width = match name {
            0x11 | MAXIMUM_PACKET_SIZE => 4,
            0x21 | 0x22 => 2,
            0x17 | 0x19 => 1,
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(width)?;
        if name == MAXIMUM_PACKET_SIZE {
            return value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).map(|max| max as usize);
        }
        properties = rest;
    }
}

/// Sends what is not done, behind `front`. Messages that follow one another leave in one piece, together with it.
fn send_all(
    output: &Mutex<TcpStream>,
    shared: &Shared,
    version_5: bool,
    front: Vec<u8>,
) -> std::io::Result<()> {
    let mut piece = front;
    for (place, item) in shared.items.iter().enumerate() {
        let Some(is_again) = lock(&shared.progress).send(place, item, version_5) else { continue };
        let id = u16::try_from(place + 1).unwrap_or(u16::MAX);
        piece.extend(item.beginning(id, is_again, version_5));
        if let Item::Streamed { .. } = item {
            let mut output = lock(output);
            output.write_all(&std::mem::take(&mut piece))?;
            item.stream(&mut output, version_5)?;
        }
        if matches!(item, Item::Raw { .. }) {
            break;
        }
    }
    lock(output).write_all(&piece)
}

impl Progress {
    /// Notes that an item is about to be sent, and says whether it was sent before; `None` if it is not to be sent.
    fn send(&mut self, place: usize, item: &Item, version_5: bool) -> Option<bool> {
        let (sent, done) = (self.sent.get_mut(place)?, self.done.get_mut(place)?);
        if *done {
            return None;
        }
        if item.packet_bytes(version_5) > self.packet_bytes_max.unwrap_or(usize::MAX) {
            self.discarded += 1;
            *done = true;
            return None;
        }
        *sent += 1;
        if let Item::Raw { times, .. } = item {
            *done = *sent >= *times;
        }
        Some(*sent > 1)
    }
}

impl Item {
    fn front(&self, id: u16, version_5: bool) -> (Vec<u8>, usize) {
        match self {
            Item::Message(message) => {
                let front = packet::publish_front(&message.topic, id, version_5);
                let length = front.len() + message.payload.len();
                (front, length)
            }
            Item::Streamed { topic, bytes } => (packet::publish_front(topic, id, version_5), *bytes),
            Item::Raw { .. } => (Vec::new(), 0),
        }
    }

    fn packet_bytes(&self, version_5: bool) -> usize {
        let (_, length) = self.front(1, version_5);
        packet::head(packet::PUBLISH, 0, length).len() + length
    }

    /// Everything up to the payload of a message that is streamed, and else all of it.
    fn beginning(&self, id: u16, again: bool, version_5: bool) -> Vec<u8> {
        if let Item::Raw { bytes, .. } = self {
            return bytes.clone();
        }
        let (front, length) = self.front(id, version_5);
        let dup = if again { packet::DUP } else { 0 };
        let mut bytes = packet::head(packet::PUBLISH, packet::QOS_1 | dup, length);
        bytes.extend(front);
        if let Item::Message(message) = self {
            bytes.extend_from_slice(&message.payload);
        }
        bytes
    }

    /// The payload of a message that is streamed.
    fn stream(&self, stream: &mut TcpStream, version_5: bool) -> std::io::Result<()> {
        let (front, length) = self.front(1, version_5);
        let piece = vec![b'x'; PIECE];
        let mut left = length.saturating_sub(front.len());
        while left > 0 {
            let now = left.min(PIECE);
            stream.write_all(piece.get(..now).unwrap_or_default())?;
            left -= now;
        }
        Ok(())
    }
}
