//! A broker for one client: it knows when it sent a message, and when the ack came.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use forebay_tests::mqtt::packet::{self, Packet};

use crate::mqtt::load::Load;

/// The longest wait for a connection, and for an ack.
const LIMIT: Duration = Duration::from_secs(30);

/// Messages that are written at once when there is no schedule.
const CHUNK: u64 = 100;

/// A port, and whether its client has a session.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) port: u16,
    listener: TcpListener,
    has_session: bool,
}

/// A connection of the client, which has subscribed.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    has_subscribed: bool,
    /// Numbers in flight, and when they were sent.
    sent: VecDeque<(u64, Instant)>,
    /// Numbers whose ack has come, and how long it took.
    acked: Vec<(u64, Duration)>,
    has_ended: bool,
    /// What an ack said that was not due.
    fault: Option<String>,
}

/// What came of messages that were all acked.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) per_s: f64,
}

impl Broker {
    pub(crate) fn open() -> Result<Broker> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the broker")?;
        Ok(Broker { port: listener.local_addr()?.port(), listener, has_session: false })
    }

    /// Waits until the client has connected and subscribed.
    pub(crate) fn accept(&mut self) -> Result<Session> {
        let (stream, _) = self.listener.accept().context("waiting for the gateway")?;
        stream.set_nodelay(true)?;
        let shared = Arc::new(Shared::default());
        let (reading, has_session) = (Arc::clone(&shared), self.has_session);
        let input = stream.try_clone()?;
        // It ends with the connection.
        thread::spawn(move || {
            let ended = read(input, &reading, has_session);
            let mut state = reading.lock();
            state.has_ended = true;
            state.fault = state.fault.take().or(ended.err().map(|error| format!("{error:#}")));
            reading.news.notify_all();
        });
        self.has_session = true;
        let session = Session { stream, shared };
        session.wait(|state| state.has_subscribed).context("waiting for a subscription")?;
        Ok(session)
    }
}

impl Session {
    /// Publishes messages at a pace, or as fast as the window allows, and waits for all acks.
    pub(crate) fn publish(
        &mut self,
        load: &Load,
        numbers: RangeInclusive<u64>,
        pace: Option<u64>,
        window: u64,
    ) -> Result<Acked> {
        let began = Instant::now();
        let (mut next, last) = (*numbers.start(), *numbers.end());
        while next <= last {
            let until = match pace {
                Some(pace) => {
                    let due = began + Duration::from_secs_f64((next - numbers.start()) as f64 / pace as f64);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    next
                }
                None => last.min(next + CHUNK - 1),
            };
            self.wait(|state| state.sent.len() as u64 + (until - next) < window)?;
            self.send(load, next..=until)?;
            next = until + 1;
        }
        self.wait(|state| state.sent.is_empty())?;
        let took = began.elapsed();
        let acked = std::mem::take(&mut self.shared.lock().acked);
        ensure!(acked.len() as u64 == last + 1 - numbers.start(), "{} acks", acked.len());
        Ok(Acked {
            per_s: acked.len() as f64 / took.as_secs_f64(),
            latencies: acked.into_iter().map(|(_, latency)| latency).collect(),
        })
    }

    /// Publishes messages at a pace, and when that of `at` is sent does something that ends the connection; the numbers
    /// of the messages that were acked before.
    pub(super) fn publish_until(
        &mut self,
        load: &Load,
        numbers: RangeInclusive<u64>,
        pace: u64,
        at: u64,
        end: impl FnOnce(),
    ) -> Result<Vec<u64>> {
        let began = Instant::now();
        for number in *numbers.start()..=at.min(*numbers.end()) {
            let due = began + Duration::from_secs_f64((number - numbers.start()) as f64 / pace as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.send(load, number..=number)?;
        }
        end();
        self.wait(|state| state.has_ended).ok();
        let acked = std::mem::take(&mut self.shared.lock().acked);
        Ok(acked.into_iter().map(|(number, _)| number).collect())
    }

    fn send(&mut self, load: &Load, numbers: RangeInclusive<u64>) -> Result<()> {
        let now = Instant::now();
        let mut bytes = Vec::new();
        for number in numbers.clone() {
            bytes.extend_from_slice(load.packet(number));
        }
        self.shared.lock().sent.extend(numbers.map(|number| (number, now)));
        self.stream.write_all(&bytes).context("publishing")
    }

    fn wait(&self, mut is_so: impl FnMut(&State) -> bool) -> Result<()> {
        let state = self.shared.lock();
        let waits = |state: &mut State| !is_so(state) && !state.has_ended;
        let (mut state, waited) =
            self.shared.news.wait_timeout_while(state, LIMIT, waits).unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = state.fault.take() {
            return Err(anyhow!(fault));
        }
        ensure!(!waited.timed_out(), "nothing came within {LIMIT:?}");
        ensure!(is_so(&state), "the connection has ended");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers what the client says, until it ends the connection.
fn read(mut stream: TcpStream, shared: &Shared, has_session: bool) -> Result<()> {
    let (mut buffer, mut unread) = (vec![0; 64 * 1024], Vec::new());
    loop {
        // A client that was killed may leave a reset behind.
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return Ok(()) };
        let now = Instant::now();
        unread.extend_from_slice(&buffer[..length]);
        let (mut answer, mut at) = (Vec::new(), 0);
        let mut state = shared.lock();
        while let Some((packet, length)) = Packet::parse(&unread[at..]) {
            at += length;
            let id = packet.id().unwrap_or_default().to_be_bytes();
            match packet.kind {
                packet::CONNECT => {
                    answer.extend(packet::packet(packet::CONNACK, 0, &[u8::from(has_session), 0]));
                }
                packet::SUBSCRIBE => {
                    answer.extend(packet::packet(packet::SUBACK, 0, &[id[0], id[1], 1]));
                    state.has_subscribed = true;
                }
                packet::PINGREQ => answer.extend(packet::packet(packet::PINGRESP, 0, &[])),
                packet::PUBACK => {
                    let (number, sent) = state.sent.pop_front().context("an ack of nothing")?;
                    let due = ((number - 1) % 65_535 + 1) as u16;
                    ensure!(due.to_be_bytes() == id, "an ack of {id:?} in place of {due}");
                    state.acked.push((number, now - sent));
                }
                _ => {}
            }
        }
        drop(state);
        shared.news.notify_all();
        unread.drain(..at);
        stream.write_all(&answer)?;
    }
}
