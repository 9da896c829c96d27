//! A plain blocking client of MQTT 3.1.1: it publishes at QoS 1 and waits for every PUBACK, so that nothing of what a test
//! counts is on its way.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::packet::{self, Packet};

/// The longest wait for an answer of the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Messages that may wait for their PUBACK.
const WINDOW: usize = 200;

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether the broker is to keep it for later subscribers.
    pub retain: bool,
}

impl Message {
    /// A message that is not to be retained.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Message {
        Message { topic: topic.into(), payload: payload.into(), retain: false }
    }

    /// The same message, to be retained.
    #[must_use]
    pub fn retained(self) -> Message {
        Message { retain: true, ..self }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    last_id: u16,
}

impl Client {
    /// Connects to the broker on `port`, with a clean session or the one that it keeps.
    ///
    /// # Errors
    /// The broker is not there, or refuses.
    pub fn connect(port: u16, client_id: &str, clean: bool) -> anyhow::Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to the broker")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut client = Client { stream, unread: Vec::new(), last_id: 0 };
        client.stream.write_all(&packet::connect(client_id, clean))?;
        client.next(|answer| match (answer.kind, answer.body) {
            (packet::CONNACK, [_, 0]) => Ok(()),
            (kind, body) => bail!("the broker answers CONNECT with packet {kind}: {body:02x?}"),
        })??;
        Ok(client)
    }

    /// Publishes messages at QoS 1, in order, and returns when the broker has acknowledged all of them.
    ///
    /// # Errors
    /// The connection is lost, or the broker acknowledges something else.
    pub fn publish<'a>(&mut self, messages: impl IntoIterator<Item = &'a Message>) -> anyhow::Result<()> {
        let mut open = VecDeque::with_capacity(WINDOW);
        let mut bytes = Vec::new();
        for message in messages {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            open.push_back(self.last_id);
            let mut body = packet::publish_front(&message.topic, self.last_id, false);
            body.extend_from_slice(&message.payload);
            let retain = if message.retain { packet::RETAIN } else { 0 };
            bytes.extend(packet::packet(packet::PUBLISH, packet::QOS_1 | retain, &body));
            if open.len() == WINDOW {
                self.stream.write_all(&bytes).context("publishing")?;
                bytes.clear();
                self.settle(&mut open, WINDOW / 2)?;
            }
        }
        self.stream.write_all(&bytes).context("publishing")?;
        self.settle(&mut open, 0)
    }

    /// Waits until only `left` messages are without a PUBACK.
    fn settle(&mut self, open: &mut VecDeque<u16>, left: usize) -> anyhow::Result<()> {
        while open.len() > left {
            let id = self.next(|answer| (answer.kind == packet::PUBACK).then(|| answer.id()).flatten())?;
            ensure!(id == open.pop_front(), "the broker acknowledges {id:?}");
        }
        Ok(())
    }

    /// Subscribes and waits for the grant.
    ///
    /// # Errors
    /// The connection is lost, or the broker refuses.
    pub fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        self.stream.write_all(&packet::subscribe(filter, 1, 0))?;
        loop {
            // Messages of earlier subscriptions may come first.
            let granted =
                self.next(|answer| (answer.kind == packet::SUBACK).then(|| answer.granted(false)))?;
            match granted {
                Some(1) => return Ok(()),
                Some(_) => bail!("the broker does not grant {filter}"),
                None => {}
            }
        }
    }

    /// The next message at QoS 0: its topic and its payload.
    ///
    /// # Errors
    /// The connection is lost, or nothing comes in time.
    pub fn receive(&mut self) -> anyhow::Result<(String, Vec<u8>)> {
        self.next(|message| {
            ensure!(message.kind == packet::PUBLISH, "packet {} instead of a message", message.kind);
            let (length, rest) = message.body.split_first_chunk().context("no topic")?;
            let (topic, payload) =
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).context("no topic")?;
            Ok((String::from_utf8_lossy(topic).into_owned(), payload.to_vec()))
        })?
    }

    /// Says goodbye, so that no will of ours is published, and waits until the broker has closed the connection.
    ///
    /// # Errors
    /// The broker does not close it in time.
    pub fn disconnect(mut self) -> anyhow::Result<()> {
        self.stream.write_all(&packet::packet(packet::DISCONNECT, 0, &[]))?;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).context("the end of the connection")?;
        Ok(())
    }

    /// The next packet, as `take` sees it.
    fn next<T>(&mut self, take: impl FnOnce(&Packet<'_>) -> T) -> anyhow::Result<T> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((packet, length)) = Packet::parse(&self.unread) {
                let taken = take(&packet);
                self.unread.drain(..length);
                return Ok(taken);
            }
            let length = self.stream.read(&mut buffer).context("waiting for the broker")?;
            let bytes = buffer.get(..length).unwrap_or_default();
            ensure!(!bytes.is_empty(), "the broker closed the connection");
            self.unread.extend_from_slice(bytes);
        }
    }
}

/// Publishes messages over a connection of their own.
///
/// # Errors
/// As [`Client::publish`].
pub fn publish<'a>(port: u16, messages: impl IntoIterator<Item = &'a Message>) -> anyhow::Result<()> {
    let mut client = Client::connect(port, &format!("publisher-{port}"), true)?;
    client.publish(messages)?;
    client.disconnect()
}

/// Takes over the session of `client_id` with a clean one, so that the broker forgets its subscriptions and whatever waits
/// for it.
///
/// # Errors
/// The broker is not there.
pub fn wipe_session(port: u16, client_id: &str) -> anyhow::Result<()> {
    // Whoever owned the session may be back already and have thrown us out, which is how it may be.
    drop(Client::connect(port, client_id, true)?);
    Ok(())
}

/// What a broker that tells so every second has dropped. It has to be listened to all the time: mosquitto lets a number lapse
/// that has not changed for a minute.
#[derive(Debug)]
pub struct Dropped {
    port: u16,
    client: Client,
    dropped: Option<u64>,
}

impl Dropped {
    const TOPIC: &str = "$SYS/broker/publish/messages/dropped";
    const UPTIME: &str = "$SYS/broker/uptime";
    const MARK: &str = "observer/mark";

    /// Begins to listen to the broker on `port`, which was started less than a minute ago.
    ///
    /// # Errors
    /// The broker is not there.
    pub fn watch(port: u16) -> anyhow::Result<Dropped> {
        let mut client = Client::connect(port, &format!("observer-{port}"), true)?;
        for topic in [Dropped::UPTIME, Dropped::MARK, Dropped::TOPIC] {
            client.subscribe(topic)?;
        }
        Ok(Dropped { port, client, dropped: None })
    }

    /// How many messages the broker has dropped so far.
    ///
    /// # Errors
    /// It says nothing.
    pub fn now(&mut self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        // What lies here may be old up to the mark, and the first uptime behind it of the second before.
        publish(self.port, &[Message::new(Dropped::MARK, "")])?;
        self.listen_to(Dropped::MARK, deadline)?;
        while self.dropped.is_none() {
            self.listen_to(Dropped::TOPIC, deadline)?;
        }
        for _ in 0..2 {
            self.listen_to(Dropped::UPTIME, deadline)?;
        }
        self.dropped.context("the broker does not tell what it has dropped")
    }

    /// Reads up to the next message on a topic. In a round of numbers the uptime comes first.
    fn listen_to(&mut self, wanted: &str, deadline: Instant) -> anyhow::Result<()> {
        loop {
            let (topic, payload) = self.client.receive()?;
            if topic == Dropped::TOPIC {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.dropped = Some(text.parse().with_context(|| format!("{} is {text:?}", Dropped::TOPIC))?);
            }
            if topic == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the broker tells nothing on {wanted}");
        }
    }
}
