//! The native devices behind one broker: their topics, and a session each.
//!
//! A device publishes on `{prefix}/{chip}/up` and listens on `{prefix}/{chip}/down`; the gateway's presence is
//! retained on `{prefix}/gateway`, and its last will takes it away. Devices publish only while a gateway is present.

use std::collections::HashMap;

use forebay_shared::link::Transport;
use forebay_shared::message::{Body, FromDevice, Presence};

use super::mqtt::{Outbox, QoS};
use super::native::{Now, Session};
use super::{Context, Reporter};
use crate::config;
use crate::record::Offset;

/// Most devices with a session; what more there are is refused until the gateway restarts.
const SESSIONS_MAX: usize = 16_384;

/// The sessions of one broker.
pub struct Fleet {
    prefix: String,
    client_id: String,
    native: bool,
    context: Context,
    sessions: HashMap<String, Session>,
}

impl Fleet {
    /// No device has spoken yet.
    #[must_use]
    pub fn new(config: &config::Mqtt, client_id: &str, context: &Context) -> Fleet {
        Fleet {
            prefix: config.native_prefix.clone(),
            client_id: client_id.to_owned(),
            native: config.native,
            context: context.clone(),
            sessions: HashMap::new(),
        }
    }

    /// What is subscribed for the devices, if any are served.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        self.native.then(|| format!("{}/+/up", self.prefix))
    }

    /// Where the presence is retained, if devices are served.
    #[must_use]
    pub fn presence_topic(&self) -> Option<String> {
        self.native.then(|| format!("{}/gateway", self.prefix))
    }

    /// The device that speaks on a topic.
    #[must_use]
    pub fn device_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        if !self.native {
            return None;
        }
        topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?.strip_suffix("/up")
    }

    /// A new connection to the broker: the presence is renewed and every device asked for what is missing.
    pub(super) fn handle_connected(&mut self, now: Now, outbox: &mut Outbox) {
        let Some(topic) = self.presence_topic() else { return };
        let client = self.client_id.chars().take(64).collect::<String>();
        let client = client.as_str().try_into().unwrap_or_default();
        let presence = Presence { epoch: self.context.epoch, client };
        outbox.publish(&topic, QoS::AtLeastOnce, true, presence.to_message().as_slice());
        for session in self.sessions.values_mut() {
            session.handle_connected(now);
        }
        self.transmit_all(now, outbox);
    }

    /// The gateway leaves on purpose, so that the broker does not publish its will.
    pub(super) fn handle_closing(&mut self, outbox: &mut Outbox) {
        if let Some(topic) = self.presence_topic() {
            outbox.publish(&topic, QoS::AtLeastOnce, true, &[]);
        }
    }

    /// One message of a device.
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        device: &str,
        message: &[u8],
        again: bool,
        outbox: &mut Outbox,
        reporter: &Reporter,
    ) {
        if let Ok(FromDevice::Hello(hello)) = FromDevice::parse(message) {
            // A device speaks under its own name only: its answers go to that topic.
            if hello.chip.to_string() != device {
                let what = format!("chip {} says hello on the topic of {device:?}", hello.chip);
                reporter.trouble("hello", &what);
                return;
            }
            // A hello without a boot that the broker repeats was answered: the device has its boot by now, and would
            // be taken for one that has lost its memory.
            if again && hello.boot.is_none() && self.sessions.contains_key(device) {
                return;
            }
        }
        if !self.sessions.contains_key(device) {
            if self.sessions.len() >= SESSIONS_MAX {
                reporter
                    .trouble("limit", &format!("more than {SESSIONS_MAX} native devices; one is refused"));
                return;
            }
            self.sessions.insert(device.to_owned(), Session::new(self.context.clone(), Transport::Mqtt));
        }
        if let Some(session) = self.sessions.get_mut(device) {
            session.handle(now, message, reporter);
            transmit(&self.prefix, device, session, now, outbox);
        }
    }

    /// Tells every session how far the journal is durable. Returns when to come back, in monotonic milliseconds.
    pub(super) fn tend(
        &mut self,
        now: Now,
        durable: Offset,
        outbox: &mut Outbox,
        reporter: &Reporter,
    ) -> Option<u64> {
        let mut soonest = None;
        for (device, session) in &mut self.sessions {
            let is_due = session.poll_timeout().is_some_and(|at| at <= now.ms);
            if is_due || session.awaits_commit() {
                session.tend(now, durable, reporter);
                transmit(&self.prefix, device, session, now, outbox);
            }
            let next = session.poll_timeout().map(|at| at.0);
            soonest = [soonest, next].into_iter().flatten().min();
        }
        soonest
    }

    /// Whether a durable offset would release something.
    pub(super) fn awaits_commit(&self) -> bool {
        self.sessions.values().any(Session::awaits_commit)
    }

    fn transmit_all(&mut self, now: Now, outbox: &mut Outbox) {
        for (device, session) in &mut self.sessions {
            transmit(&self.prefix, device, session, now, outbox);
        }
    }
}

fn transmit(prefix: &str, device: &str, session: &mut Session, now: Now, outbox: &mut Outbox) {
    while let Some(message) = session.poll_transmit(now) {
        outbox.publish(&format!("{prefix}/{device}/down"), QoS::AtMostOnce, false, message.as_slice());
    }
}
