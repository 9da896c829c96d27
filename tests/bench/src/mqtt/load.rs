//! The load: JSON of 90 bytes from 50 devices, encoded before the clock starts, and a publisher that costs next to nothing
//! beside the broker.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use forebay_tests::mqtt::packet;

/// What the messages are published on.
pub(super) const FILTER: &str = "sensors/+/+";

/// How many devices take turns.
const DEVICES: u64 = 50;

/// Bytes of every payload.
pub(crate) const PAYLOAD_BYTES: usize = 90;

/// The field `n` of a message is its number above this.
pub(crate) const FIRST_N: u64 = 1_000_000;

/// Messages that are written at once when there is no schedule.
const CHUNK: usize = 250;

/// Messages that may be without a PUBACK.
const WINDOW: usize = 2_000;

/// The longest wait for an answer of the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A PUBACK of MQTT 3.1.1.
const PUBACK_BYTES: usize = 4;

/// Messages as the broker is to get them, packet by packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    packets: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
}

/// A reading of a device of one's choice, with a timestamp of its own.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) device: String,
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) ms: u64,
}

impl Message {
    fn topic(&self) -> String {
        format!("sensors/{}/room-{}", self.device, self.number % 7)
    }

    fn payload(&self) -> String {
        let [temperature, humidity, pressure] = weather(self.number);
        let n = FIRST_N + self.number;
        format!(
            r#"{{"time":{},"temperature":{temperature:.2},"humidity":{humidity:.2},"pressure":{pressure:.2},"n":{n}}}"#,
            self.ms
        )
    }

    /// The point that the gateway makes of it, but for its own tag.
    pub(crate) fn line(&self) -> String {
        let [temperature, humidity, pressure] = weather(self.number);
        let (device, room, n, ms) = (&self.device, self.number % 7, FIRST_N + self.number, self.ms);
        format!(
            "weather,device={device},gateway=bench,room=room-{room} humidity={humidity:.2},n={n},pressure={pressure:.2},temperature={temperature:.2} {ms}000000"
        )
    }
}

impl Load {
    /// Messages that have a timestamp of their own, or a text in its place that no field is made of.
    pub(crate) fn new(messages: u64, dated: bool) -> Result<Load> {
        Load::numbered(1..=messages, dated)
    }

    /// One message, which is none of the others.
    pub(super) fn probe(dated: bool) -> Result<Load> {
        Load::numbered(0..=0, dated)
    }

    fn numbered(numbers: impl Iterator<Item = u64>, dated: bool) -> Result<Load> {
        Load::with_payloads(numbers, |number| Ok(payload(number, dated)?.into_bytes()))
    }

    /// Messages with payloads that are made of their numbers.
    pub(crate) fn with_payloads(
        numbers: impl Iterator<Item = u64>,
        payload_of: impl Fn(u64) -> Result<Vec<u8>>,
    ) -> Result<Load> {
        let mut load = Load::default();
        for number in numbers {
            let device = number % DEVICES;
            let topic = format!("sensors/device-{device:02}/room-{}", device % 7);
            let payload = payload_of(number)?;
            // From the nine-millionth on they are a digit longer.
            ensure!(payload.len() - PAYLOAD_BYTES <= 1, "{payload:?} has {} bytes", payload.len());
            load.push(&topic, &payload);
        }
        Ok(load)
    }

    /// Messages in the order of their numbers, from 1 on.
    pub(crate) fn of(messages: impl Iterator<Item = Message>) -> Load {
        let mut load = Load::default();
        for message in messages {
            load.push(&message.topic(), message.payload().as_bytes());
        }
        load
    }

    fn push(&mut self, topic: &str, payload: &[u8]) {
        // Packet ids go round without 0.
        let id = (self.ends.len() % usize::from(u16::MAX) + 1) as u16;
        let mut body = packet::publish_front(topic, id, false);
        body.extend_from_slice(payload);
        self.packets.extend(packet::packet(packet::PUBLISH, packet::QOS_1, &body));
        self.ends.push(self.packets.len());
    }

    pub(super) fn messages(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The packet of the message with this number, from 1 on; empty if there is none.
    pub(crate) fn packet(&self, number: u64) -> &[u8] {
        let at = |number: u64| self.ends.get(usize::try_from(number).ok()?).copied();
        let from = number.checked_sub(2).map_or(Some(0), at);
        let to = number.checked_sub(1).and_then(at);
        from.zip(to).and_then(|(from, to)| self.packets.get(from..to)).unwrap_or_default()
    }

    /// Publishes everything at QoS 1 and waits for the last PUBACK: as fast as the broker takes it, or at so many messages a
    /// second, each at its time.
    pub(super) fn publish(&self, port: u16, rate: Option<u64>) -> Result<()> {
        let mut stream = connect(port, "forebay-bench-publisher", true)?;
        let began = Instant::now();
        let (mut sent, mut acked_bytes) = (0, 0);
        while sent < self.ends.len() {
            let until = match rate {
                None => sent + CHUNK,
                Some(rate) => {
                    let due = began + Duration::from_nanos(sent as u64 * 1_000_000_000 / rate);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    sent + 1
                }
            };
            let until = until.min(self.ends.len());
            let from = sent.checked_sub(1).map_or(0, |last| self.ends[last]);
            stream.write_all(&self.packets[from..self.ends[until - 1]]).context("publishing")?;
            sent = until;
            settle(&mut stream, &mut acked_bytes, sent.saturating_sub(WINDOW))?;
        }
        settle(&mut stream, &mut acked_bytes, sent)?;
        leave(stream)
    }
}

/// Begins a session that is kept, with a subscription to all messages at QoS 1, and leaves it.
pub(super) fn begin_session(port: u16, client_id: &str) -> Result<()> {
    let mut stream = connect(port, client_id, false)?;
    stream.write_all(&packet::subscribe(FILTER, 1, 1))?;
    let mut granted = [0; 5];
    stream.read_exact(&mut granted).context("waiting for the SUBACK")?;
    ensure!(granted == [packet::SUBACK << 4, 3, 0, 1, 1], "the broker answers SUBSCRIBE with {granted:02x?}");
    leave(stream)
}

fn connect(port: u16, client_id: &str, clean: bool) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to the broker")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(&packet::connect(client_id, clean))?;
    let mut welcome = [0; 4];
    stream.read_exact(&mut welcome).context("waiting for the CONNACK")?;
    ensure!(welcome[3] == 0, "the broker answers CONNECT with {welcome:02x?}");
    Ok(stream)
}

/// Waits until so many messages have their PUBACK. Nothing else comes, so that counting bytes is enough.
fn settle(stream: &mut TcpStream, acked_bytes: &mut usize, messages: usize) -> Result<()> {
    let mut buffer = [0; 16 * 1024];
    while *acked_bytes < messages * PUBACK_BYTES {
        let length = stream.read(&mut buffer).context("waiting for PUBACKs")?;
        ensure!(length > 0, "the broker closed the publisher's connection");
        *acked_bytes += length;
    }
    Ok(())
}

/// Says goodbye and waits until the broker has closed the connection.
fn leave(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&packet::packet(packet::DISCONNECT, 0, &[]))?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("waiting for the end of the connection")?;
    Ok(())
}

/// Temperature, humidity and pressure.
fn weather(number: u64) -> [f64; 3] {
    let step = (number % 1_000) as f64 / 100.0;
    [20.0 + step, 40.0 + step * 2.0, 1_010.0 + step]
}

fn payload(number: u64, dated: bool) -> Result<String> {
    let mut text = String::with_capacity(PAYLOAD_BYTES);
    if dated {
        write!(text, r#"{{"time":{}"#, 1_754_000_000_000 + number)?;
    } else {
        write!(text, r#"{{"model":"thp-14-rc3""#)?;
    }
    let [temperature, humidity, pressure] = weather(number);
    write!(text, r#","temperature":{temperature:.2},"humidity":{humidity:.2},"#)?;
    write!(text, r#""pressure":{pressure:.2},"n":{}}}"#, FIRST_N + number)?;
    Ok(text)
}
