//! A proxy between the gateway and its broker that knows every message and every acknowledgement, and breaks connections
//! at a chosen byte.
//!
//! [`records`] says what is remembered. A packet towards the gateway is noted before its last byte is passed on, and not at
//! all if the connection is cut within it. A packet from the gateway is noted when it was read: what the gateway
//! acknowledged, it has acknowledged, whether or not the broker hears of it.
//!
//! One connection at a time: a new one ends the one before, as a broker does with two clients of one id, and is served when
//! nothing of the old one is left to be noted.

mod records;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Relay, close};
use crate::clock::wait_for;
use crate::mqtt::packet::Packet;

pub use records::{Figures, key_of};

use records::Records;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the broker.
    ToGateway,
    /// To the broker.
    FromGateway,
}

/// An end of a connection that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where bytes are counted.
    pub direction: Direction,
    /// How many bytes still pass there, of this connection or of later ones.
    pub after_bytes: usize,
}

/// The running proxy.
#[derive(Debug)]
pub struct MqttTap {
    relay: Relay,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<Records>,
    /// Cuts to come, the next one in front.
    cuts: Mutex<VecDeque<Cut>>,
    /// Both ends of the present connection.
    present: Mutex<Option<(TcpStream, TcpStream)>>,
    /// Held while a connection is served.
    serving: Mutex<()>,
}

impl MqttTap {
    /// Starts a proxy in front of the broker on `port`.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(port: u16) -> anyhow::Result<MqttTap> {
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let relay = Relay::start(upstream, move |client, server| serve(client, server, &serving))?;
        Ok(MqttTap { relay, shared })
    }

    /// Where the gateway connects.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.relay.port)
    }

    /// Cuts the connection once for each of these, one after the other. Earlier ones that have not happened are called off.
    pub fn arm(&self, cuts: impl IntoIterator<Item = Cut>) {
        *lock(&self.shared.cuts) = cuts.into_iter().collect();
    }

    /// Cuts the connection that there is at this moment.
    pub fn cut_now(&self) {
        if let Some((client, server)) = lock(&self.shared.present).take() {
            close(&client);
            close(&server);
        }
    }

    /// How many cuts are to come.
    #[must_use]
    pub fn armed(&self) -> usize {
        lock(&self.shared.cuts).len()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        lock(&self.shared.records).figures()
    }

    /// How many different messages with this topic and payload, as [`key_of`] puts them together, the gateway acknowledged.
    #[must_use]
    pub fn acknowledged(&self, key: u64) -> u32 {
        lock(&self.shared.records).acknowledged(key)
    }

    /// Waits until the gateway's session has `count` subscriptions, and no less sessions were begun than `sessions`.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub fn wait_for_subscriptions(&self, sessions: u64, count: usize, limit: Duration) -> anyhow::Result<()> {
        wait_for("the gateway's subscribing", limit, || {
            let figures = self.figures();
            let made = figures.sessions >= sessions && figures.granted >= count;
            if made { Ok(()) } else { Err(format!("{figures:?}")) }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
    let (Ok(present_client), Ok(present_server)) = (client.try_clone(), server.try_clone()) else { return };
    if let Some((client, server)) = lock(&shared.present).replace((present_client, present_server)) {
        close(&client);
        close(&server);
    }
    let _serving = lock(&shared.serving);
    lock(&shared.records).begin();
    let downward = Arc::clone(shared);
    let down = std::thread::spawn(move || pump(server, client_out, &downward, Direction::ToGateway));
    pump(client, server_out, shared, Direction::FromGateway);
    // Both sockets are closed, so the other thread ends as well; a panic in it has been reported by its own message.
    let _ = down.join();
    lock(&shared.records).end();
}

/// Passes whole packets on until either side ends or a cut is due.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, direction: Direction) {
    let mut buffer = vec![0; 64 * 1024];
    let mut pending = Vec::new();
    while let Ok(length) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        pending.extend_from_slice(bytes);
        let (ready, is_cut) = take(&mut pending, shared, direction);
        if to.write_all(&ready).is_err() || is_cut {
            break;
        }
    }
    close(&from);
    close(&to);
}

/// Takes the bytes that are to be passed on out of `pending`, notes their packets, and says whether they are the last.
fn take(pending: &mut Vec<u8>, shared: &Shared, direction: Direction) -> (Vec<u8>, bool) {
    let mut whole = 0;
    while let Some((_, length)) = Packet::parse(pending.get(whole..).unwrap_or_default()) {
        whole += length;
    }
    let allowed = allowance(shared, direction, whole);
    let passed = allowed.unwrap_or(whole);
    let mut at = 0;
    let mut records = lock(&shared.records);
    while let Some((packet, length)) = Packet::parse(pending.get(at..).unwrap_or_default()) {
        at += length;
        match direction {
            Direction::ToGateway if at <= passed => records.note_delivery(&packet),
            Direction::ToGateway => {}
            Direction::FromGateway => records.note_from_gateway(&packet),
        }
    }
    records.note_cut(allowed.is_some());
    drop(records);
    let mut ready: Vec<u8> = pending.drain(..whole).collect();
    ready.truncate(passed);
    (ready, allowed.is_some())
}

/// How many of `count` bytes may pass before the next cut; `None` if all of them may.
fn allowance(shared: &Shared, direction: Direction, count: usize) -> Option<usize> {
    let mut cuts = lock(&shared.cuts);
    let next = cuts.front_mut().filter(|cut| cut.direction == direction)?;
    if count <= next.after_bytes {
        next.after_bytes -= count;
        return None;
    }
    cuts.pop_front().map(|cut| cut.after_bytes)
}
