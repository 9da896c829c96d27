//! What happens to the connection, the broker, the session and the gateway while messages flow.

use std::time::{Duration, Instant};

use anyhow::ensure;
use forebay_tests::clock::wait_for;
use forebay_tests::mqtt::{Message, publish, wipe_session};
use forebay_tests::proxy::{Cut, Direction, key_of};
use forebay_tests::seed::Rng;

use super::super::site::{CLIENT_ID, SERVED_LIMIT, Site};
use super::messages::{Kind, Mix};

/// Bytes of a message towards the gateway, and of its PUBACK, about.
const BYTES: (u64, u64) = (40, 4);

/// How often it is looked whether the moment for a trouble has come.
const GLANCE: Duration = Duration::from_micros(200);

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Connections end, most of them within a packet.
    Cuts,
    /// The broker ends, and comes back with its sessions.
    Restart,
    /// The same while the gateway is at a standstill, so that it reads what is left of the connection later.
    RestartUnread,
    /// The broker ends, and comes back without any session.
    Forget,
    /// Somebody else takes the session over and wipes it.
    Takeover,
    /// The gateway is killed.
    Kill,
}

/// Every kind as often as it comes in a short soak.
const COMPOSITION: [(Fault, usize); 6] = [
    (Fault::Cuts, 8),
    (Fault::Restart, 2),
    (Fault::RestartUnread, 2),
    (Fault::Forget, 3),
    (Fault::Takeover, 4),
    (Fault::Kill, 5),
];

/// The troubles in a random order, `times` as many.
pub(super) fn plan(rng: &mut Rng, times: usize) -> anyhow::Result<Vec<Fault>> {
    let mut faults: Vec<Fault> =
        COMPOSITION.iter().flat_map(|(fault, count)| std::iter::repeat_n(*fault, count * times)).collect();
    for last in (1..faults.len()).rev() {
        faults.swap(last, usize::try_from(rng.in_range(0..last as u64 + 1))?);
    }
    Ok(faults)
}

/// A soak under way.
pub(super) struct Soak {
    pub(super) site: Site,
    pub(super) mix: Mix,
    pub(super) rng: Rng,
    /// Of the messages before this place, the broker may have lost those that were never acknowledged.
    pub(super) wiped_before: usize,
    pub(super) wipes: u64,
    pub(super) kills: u64,
    pub(super) restarts: u64,
}

impl Soak {
    /// Publishes `count` messages while `fault` happens, and waits until the gateway has acknowledged the last of them.
    pub(super) fn round(&mut self, fault: Fault, count: usize) -> anyhow::Result<()> {
        let what = format!("{fault:?}");
        let messages = self.mix.chunk(count)?;
        let before = self.site.tap.figures().delivered;
        let due = before + self.rng.in_range(0..count as u64 * 3 / 4);
        match fault {
            Fault::Cuts => self.cuts(&messages)?,
            Fault::Restart | Fault::Forget => {
                publish(self.site.broker.port, &messages)?;
                self.await_delivery(due)?;
                self.restart(fault == Fault::Forget)?;
            }
            Fault::RestartUnread => {
                self.site.gateway.pause()?;
                publish(self.site.broker.port, &messages)?;
                self.restart(false)?;
                self.site.gateway.proceed()?;
            }
            Fault::Takeover => {
                let (port, sessions) = (self.site.broker.port, self.site.tap.figures().sessions);
                self.during(&messages, |soak| {
                    soak.await_delivery(due)?;
                    wipe_session(port, CLIENT_ID)
                })?;
                self.wiped(sessions)?;
            }
            Fault::Kill => {
                self.during(&messages, |soak| {
                    soak.await_delivery(due)?;
                    soak.site.gateway.kill();
                    soak.site.gateway.resume()
                })?;
                self.kills += 1;
            }
        }
        if matches!(fault, Fault::Takeover | Fault::Forget) {
            let last = self.mix.chunk(1)?;
            publish(self.site.broker.port, &last)?;
            return self.await_all(&last, &what);
        }
        self.await_all(&messages, &what)
    }

    /// Publishes `count` messages, and nothing happens.
    pub(super) fn quiet(&mut self, count: usize) -> anyhow::Result<()> {
        let messages = self.mix.chunk(count)?;
        publish(self.site.broker.port, &messages)?;
        self.await_all(&messages, "quiet")
    }

    /// Lets `act` happen while the messages are published.
    fn during(
        &mut self,
        messages: &[Message],
        act: impl FnOnce(&mut Soak) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let port = self.site.broker.port;
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(port, messages));
            let acted = act(self);
            let published = publisher.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?;
            acted.and(published)
        })
    }

    fn cuts(&mut self, messages: &[Message]) -> anyhow::Result<()> {
        let times = self.rng.in_range(1..6);
        let room = messages.len() as u64 / times;
        let mut cuts = Vec::new();
        for _ in 0..times {
            let is_downward = self.rng.in_range(0..2) == 0;
            let (direction, bytes) = match is_downward {
                true => (Direction::ToGateway, BYTES.0),
                false => (Direction::FromGateway, BYTES.1),
            };
            cuts.push(Cut { direction, after_bytes: usize::try_from(self.rng.in_range(0..room * bytes))? });
        }
        self.site.tap.arm(cuts);
        publish(self.site.broker.port, messages)
    }

    fn restart(&mut self, forget: bool) -> anyhow::Result<()> {
        let sessions = self.site.tap.figures().sessions;
        self.site.broker.stop()?;
        if forget {
            self.site.broker.forget()?;
        }
        std::thread::sleep(Duration::from_millis(self.rng.in_range(0..300)));
        self.site.broker.resume()?;
        self.restarts += 1;
        if forget { self.wiped(sessions) } else { Ok(()) }
    }

    /// The session is gone; waits for the next one, from which on nothing may be missing any more.
    fn wiped(&mut self, sessions: u64) -> anyhow::Result<()> {
        self.wipes += 1;
        self.site.tap.wait_for_subscriptions(sessions + 1, Kind::ALL.len(), SERVED_LIMIT)?;
        self.wiped_before = self.mix.sent.len();
        Ok(())
    }

    /// Waits until so many messages were delivered. It looks often, since within ten milliseconds a whole round may be over.
    fn await_delivery(&self, count: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + SERVED_LIMIT;
        while self.site.tap.figures().delivered < count {
            let figures = || self.site.tap.figures();
            ensure!(Instant::now() < deadline, "{count} messages were not delivered: {:?}", figures());
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Waits until the last of these messages is acknowledged, and nothing is open.
    fn await_all(&self, messages: &[Message], what: &str) -> anyhow::Result<()> {
        let Some(last) = messages.last() else { return Ok(()) };
        let key = key_of(last.topic.as_bytes(), &last.payload);
        let tap = &self.site.tap;
        wait_for(&format!("the last PUBACK of a round ({what})"), SERVED_LIMIT, || {
            let figures = tap.figures();
            let all = tap.acknowledged(key) > 0 && figures.open == 0;
            if all { Ok(()) } else { Err(format!("{figures:?}")) }
        })?;
        // Cuts for which there were not enough bytes must not hit another round.
        tap.arm([]);
        Ok(())
    }
}
