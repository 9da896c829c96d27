//! The native devices behind one broker: their topics, and a session each.
//!
//! A device publishes on `{prefix}/{chip}/up` and listens on `{prefix}/{chip}/down`; the gateway's presence is
//! retained on `{prefix}/gateway`, and its last will takes it away. Devices publish only while a gateway is present.
//!
//! One gateway serves a prefix: two would each store what the other has not yet acked. So a gateway asks for the presence
//! of another one before it shows its own, and if there is one, serves no native device until it is started again. Two that begin
//! at the same moment hear of each other, and the one with the lower client id goes on.

use std::collections::HashMap;

use forebay_shared::link::Transport;
use forebay_shared::message::{Body, FromDevice, FromGateway, Presence};

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
    service: Service,
    /// While the broker is asked, the gateway that it told of last; then the one that serves the devices.
    rival: Option<String>,
    context: Context,
    sessions: HashMap<String, Session>,
}

/// Whether native devices are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// They are not, by the configuration.
    Off,
    /// It is not known yet whether another gateway does.
    Asking,
    On,
    /// Another gateway does.
    Yielded,
}

impl Fleet {
    /// No device has spoken yet.
    #[must_use]
    pub fn new(config: &config::Mqtt, client_id: &str, context: &Context) -> Fleet {
        Fleet {
            prefix: config.native_prefix.clone(),
            client_id: client_id.to_owned(),
            service: if config.native { Service::Asking } else { Service::Off },
            rival: None,
            context: context.clone(),
            sessions: HashMap::new(),
        }
    }

    /// What is subscribed for the devices, if any are served.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        (self.service == Service::On).then(|| self.up())
    }

    fn up(&self) -> String {
        format!("{}/+/up", self.prefix)
    }

    /// Whether the broker is still to tell of another gateway.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.service == Service::Asking
    }

    /// The broker has told of every gateway that it knows of. Whether the devices are served from now on.
    pub(super) fn decide(&mut self) -> bool {
        let is_free = self.rival.is_none();
        self.service = if is_free { Service::On } else { Service::Yielded };
        if !is_free {
            self.sessions.clear();
        }
        is_free
    }

    /// What is subscribed no more, because another gateway serves the devices.
    #[must_use]
    pub fn given_up(&self) -> Vec<String> {
        match self.service {
            Service::Yielded => vec![self.up(), self.presence()],
            Service::Off | Service::Asking | Service::On => Vec::new(),
        }
    }

    /// Says who serves the devices instead, if somebody does.
    pub(super) fn complain(&self, reporter: &Reporter) {
        let Some(rival) = self.rival.as_ref().filter(|_| self.service == Service::Yielded) else { return };
        let what = format!(
            "another gateway, with the client id {rival:?}, serves the native devices of {}; none are served here until this gateway is started again. Stop the other one, or give one of them another native_prefix or native = false; if it is gone for good, clear its retained message on {}",
            self.prefix,
            self.presence()
        );
        reporter.loss("rival", &what);
    }

    /// Somebody's presence was heard. Returns whether the broker is to be asked again for what is retained there: what was
    /// heard may be old.
    pub(super) fn hear_presence(&mut self, payload: &[u8], outbox: &mut Outbox) -> bool {
        let heard = rival_of(payload, &self.client_id);
        if self.is_asking() {
            self.rival = match heard {
                Heard::Rival(rival) => Some(rival),
                Heard::Own | Heard::Nobody => None,
            };
            return false;
        }
        match heard {
            Heard::Rival(rival) if rival < self.client_id => {
                self.service = Service::Asking;
                self.rival = Some(rival);
                return true;
            }
            Heard::Own => {}
            // The other one is to hear that this one is here; and the will of one that has gone may have cleared it.
            Heard::Rival(_) | Heard::Nobody => self.publish_presence(outbox),
        }
        false
    }

    fn presence(&self) -> String {
        format!("{}/gateway", self.prefix)
    }

    /// Where the presence is retained, if devices are served.
    #[must_use]
    pub fn presence_topic(&self) -> Option<String> {
        matches!(self.service, Service::Asking | Service::On).then(|| self.presence())
    }

    /// The device that speaks on a topic.
    #[must_use]
    pub fn device_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        if !matches!(self.service, Service::Asking | Service::On) {
            return None;
        }
        topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?.strip_suffix("/up")
    }

    /// A new connection to the broker: the presence is renewed and every device asked for what is missing.
    pub(super) fn handle_connected(&mut self, now: Now, outbox: &mut Outbox) {
        if self.service != Service::On {
            return;
        }
        self.publish_presence(outbox);
        for session in self.sessions.values_mut() {
            session.handle_connected(now);
        }
        self.transmit_all(now, outbox);
    }

    fn publish_presence(&self, outbox: &mut Outbox) {
        let Some(topic) = self.presence_topic() else { return };
        let client = shown(&self.client_id).as_str().try_into().unwrap_or_default();
        let presence = Presence { epoch: self.context.epoch, client };
        outbox.publish(&topic, QoS::AtLeastOnce, true, presence.to_message().as_slice());
    }

    /// The gateway leaves on purpose, so that the broker does not publish its will.
    pub(super) fn handle_closing(&mut self, outbox: &mut Outbox) {
        if let Some(topic) = self.presence_topic().filter(|_| !self.is_asking()) {
            outbox.publish(&topic, QoS::AtLeastOnce, true, &[]);
        }
    }

    /// One message of a device. What comes before it is known whether another gateway serves it is left to its link, which
    /// brings it again after the next welcome.
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        device: &str,
        message: &[u8],
        again: bool,
        outbox: &mut Outbox,
        reporter: &Reporter,
    ) {
        if self.is_asking() {
            return;
        }
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

    /// Whether native devices have spoken.
    pub(super) fn has_devices(&self) -> bool {
        !self.sessions.is_empty()
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

/// Whom a presence tells of.
pub(super) enum Heard {
    Nobody,
    Own,
    Rival(String),
}

/// Reads a presence, as somebody with this client id.
pub(super) fn rival_of(payload: &[u8], client_id: &str) -> Heard {
    match FromGateway::parse(payload) {
        Ok(FromGateway::Presence(presence)) if presence.client.as_str() == shown(client_id) => Heard::Own,
        Ok(FromGateway::Presence(presence)) => Heard::Rival(presence.client.as_str().to_owned()),
        _ => Heard::Nobody,
    }
}

/// A client id as far as a presence has room for it.
fn shown(client_id: &str) -> String {
    client_id[..client_id.floor_char_boundary(64)].to_owned()
}

fn transmit(prefix: &str, device: &str, session: &mut Session, now: Now, outbox: &mut Outbox) {
    while let Some(message) = session.poll_transmit(now) {
        outbox.publish(&format!("{prefix}/{device}/down"), QoS::AtMostOnce, false, message.as_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_shared::ids::Epoch;

    #[test]
    fn a_presence_tells_whose_it_is() {
        let of = |client: &str| {
            let client = shown(client).as_str().try_into().unwrap_or_default();
            Presence { epoch: Epoch(7), client }.to_message().as_slice().to_vec()
        };
        let long = "ä".repeat(40);
        assert!(matches!(rival_of(&of("a"), "a"), Heard::Own));
        assert!(matches!(rival_of(&of(&long), &long), Heard::Own), "as much as there is room for");
        assert!(matches!(rival_of(&of("a"), "b"), Heard::Rival(rival) if rival == "a"));
        assert!(matches!(rival_of(b"", "a"), Heard::Nobody));
        assert!(matches!(rival_of(b"no presence", "a"), Heard::Nobody));
    }
}
