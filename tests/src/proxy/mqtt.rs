//! A proxy between the gateway and its broker that records which messages the gateway acknowledged.
//!
//! It reads the packets of both directions. A PUBLISH at QoS 1 towards the gateway is remembered by its packet id
//! *before* it is passed on; a PUBACK from the gateway moves it to the acknowledged ones. Packet ids belong to one
//! connection, so what was not acknowledged on a connection is forgotten with it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Relay, close};
use crate::clock::wait_for;
use crate::mqtt::packet::{CONNECT, LEVEL_5, PUBACK, PUBLISH, Packet, SUBACK, SUBSCRIBE};

/// How topics begin on which a broker tells of itself.
const OF_THE_BROKER: &[u8] = b"$SYS/";
/// How the topics of foreign messages begin, as `Settings` subscribes to them.
const FOREIGN: &[u8] = b"sensors/";

/// How the topic of a gateway's presence ends.
const PRESENCE: &str = "/gateway";

/// How long a gateway may take to subscribe.
const SERVED_LIMIT: Duration = Duration::from_secs(30);

/// A message that passed to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Passed {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Records {
    acknowledged: Vec<Passed>,
    /// Hashes of everything that has passed, to tell a second delivery of the same message.
    seen: HashSet<u64>,
    redelivered: u64,
    connections: u64,
    /// Packet ids of subscriptions that were asked for and are not made yet, and how many are.
    subscriptions_asked: HashSet<u16>,
    subscriptions_made: u64,
    /// Whether the subscription to foreign messages was asked for, which may be a packet of its own.
    foreign_asked: bool,
    present: bool,
}

/// The running proxy.
#[derive(Debug)]
pub struct MqttProxy {
    relay: Relay,
    records: Arc<Mutex<Records>>,
}

impl MqttProxy {
    /// Starts a proxy in front of the broker on `port`.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(port: u16) -> anyhow::Result<MqttProxy> {
        let records = Arc::new(Mutex::new(Records::default()));
        let shared = Arc::clone(&records);
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let relay = Relay::start(upstream, move |client, server| serve(client, server, &shared))?;
        Ok(MqttProxy { relay, records })
    }

    /// Where the gateway connects.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.relay.port)
    }

    /// Takes the messages that the gateway acknowledged since the last call.
    #[must_use]
    pub fn take_acknowledged(&self) -> Vec<Passed> {
        std::mem::take(&mut lock(&self.records).acknowledged)
    }

    /// A handle that still counts after the proxy is gone.
    #[must_use]
    pub fn counter(&self) -> Redelivered {
        Redelivered(Arc::clone(&self.records))
    }

    /// How many connections the gateway has made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        lock(&self.records).connections
    }

    /// Waits until the gateway has made its subscriptions and announced its presence. What a device publishes before is
    /// nobody's: a broker keeps nothing for a subscription that does not exist yet.
    ///
    /// # Errors
    /// It takes too long.
    pub fn wait_until_served(&self) -> anyhow::Result<()> {
        wait_for("the gateway's subscribing", SERVED_LIMIT, || {
            let records = lock(&self.records);
            let all_made = records.foreign_asked && records.subscriptions_asked.is_empty();
            let (made, asked) = (records.subscriptions_made, records.subscriptions_asked.len());
            let state = || format!("{made} are made, {asked} asked for, present {}", records.present);
            if records.present && all_made { Ok(()) } else { Err(state()) }
        })
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

/// Counts the deliveries of messages that had been delivered before.
#[derive(Clone, Debug)]
pub struct Redelivered(Arc<Mutex<Records>>);

impl Redelivered {
    /// How many there have been.
    #[must_use]
    pub fn count(&self) -> u64 {
        lock(&self.0).redelivered
    }
}

fn lock(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one connection's two directions share.
#[derive(Debug, Default)]
struct Session {
    version_5: bool,
    unacknowledged: HashMap<u16, Passed>,
}

fn serve(client: TcpStream, server: TcpStream, records: &Arc<Mutex<Records>>) {
    lock(records).connections += 1;
    let session = Arc::new(Mutex::new(Session::default()));
    let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
    let (down_session, down_records) = (Arc::clone(&session), Arc::clone(records));
    let down = std::thread::spawn(move || {
        pump(server, client_out, |packet| note_delivery(packet, &down_session, &down_records));
    });
    pump(client, server_out, |packet| note_from_gateway(packet, &session, records));
    // The thread ends by itself once both sockets are closed; a panic in it has been reported by its own message.
    let _ = down.join();
}

/// Passes bytes on until either side ends, showing each complete packet to `note` before it is passed on.
fn pump(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&Packet<'_>)) {
    let mut buffer = vec![0; 64 * 1024];
    let mut pending = Vec::new();
    while let Ok(length) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        pending.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((packet, length)) = Packet::parse(pending.get(used..).unwrap_or_default()) {
            note(&packet);
            used += length;
        }
        pending.drain(..used);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    close(&from);
    close(&to);
}

fn note_delivery(packet: &Packet<'_>, session: &Mutex<Session>, records: &Mutex<Records>) {
    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
    if packet.kind == SUBACK {
        let mut records = lock(records);
        let is_ours = packet.id().is_some_and(|id| records.subscriptions_asked.remove(&id));
        records.subscriptions_made += u64::from(is_ours);
    }
    let Some((id, passed)) = Passed::of(packet, session.version_5) else { return };
    let mut hasher = DefaultHasher::new();
    passed.hash(&mut hasher);
    let mut records = lock(records);
    let is_new = records.seen.insert(hasher.finish());
    records.redelivered += u64::from(!is_new);
    session.unacknowledged.insert(id, passed);
}

fn note_from_gateway(packet: &Packet<'_>, session: &Mutex<Session>, records: &Mutex<Records>) {
    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
    match packet.kind {
        CONNECT => session.version_5 = packet.level() == Some(LEVEL_5),
        PUBACK => {
            let passed = packet.id().and_then(|id| session.unacknowledged.remove(&id));
            lock(records).acknowledged.extend(passed);
        }
        // Not every broker answers who asks for what it says of itself.
        SUBSCRIBE if packet.body.windows(OF_THE_BROKER.len()).any(|part| part == OF_THE_BROKER) => {}
        SUBSCRIBE => {
            let mut records = lock(records);
            records.foreign_asked |= packet.body.windows(FOREIGN.len()).any(|part| part == FOREIGN);
            records.subscriptions_asked.extend(packet.id());
        }
        PUBLISH => {
            let published = Passed::of(packet, session.version_5);
            let announces = |passed: &Passed| passed.topic.ends_with(PRESENCE) && !passed.payload.is_empty();
            lock(records).present |= published.is_some_and(|(_, passed)| announces(&passed));
        }
        _ => {}
    }
}

impl Passed {
    /// The id and content of a PUBLISH at QoS 1 or 2.
    fn of(packet: &Packet<'_>, version_5: bool) -> Option<(u16, Passed)> {
        let published = packet.published(version_5)?;
        let topic = String::from_utf8_lossy(published.topic).into_owned();
        Some((published.id, Passed { topic, payload: published.payload.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Packet, Records, Session, note_delivery, note_from_gateway};
    use std::sync::Mutex;

    const PUBLISH_QOS_1: &[u8] = b"\x32\x08\x00\x03a/b\x00\x09x";

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet::parse(bytes).expect("a whole packet").0
    }

    #[test]
    fn a_puback_acknowledges_what_was_delivered_under_its_id_on_the_same_connection() {
        let (session, records) = (Mutex::new(Session::default()), Mutex::new(Records::default()));
        note_from_gateway(&packet(b"\x40\x02\x00\x09"), &session, &records);
        assert!(records.lock().unwrap().acknowledged.is_empty(), "nothing was delivered yet");
        note_delivery(&packet(PUBLISH_QOS_1), &session, &records);
        note_from_gateway(&packet(b"\x40\x02\x00\x08"), &session, &records);
        assert!(records.lock().unwrap().acknowledged.is_empty(), "another packet's id");
        note_from_gateway(&packet(b"\x40\x02\x00\x09"), &session, &records);
        let passed = records.lock().unwrap().acknowledged.pop().expect("acknowledged");
        assert_eq!((passed.topic.as_str(), passed.payload.as_slice()), ("a/b", b"x".as_slice()));
        note_delivery(&packet(PUBLISH_QOS_1), &session, &records);
        assert_eq!(records.lock().unwrap().redelivered, 1);
    }

    #[test]
    fn version_5_has_properties_before_the_payload() {
        let (session, records) = (Mutex::new(Session::default()), Mutex::new(Records::default()));
        note_from_gateway(&packet(b"\x10\x08\x00\x04MQTT\x05\x00"), &session, &records);
        note_delivery(&packet(b"\x32\x0b\x00\x03a/b\x00\x09\x02\x01\x00x"), &session, &records);
        note_from_gateway(&packet(b"\x40\x02\x00\x09"), &session, &records);
        assert_eq!(records.lock().unwrap().acknowledged[0].payload, b"x");
    }
}
