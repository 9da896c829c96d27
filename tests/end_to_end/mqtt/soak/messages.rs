//! What is published: messages with a time of their own, with a counter and no time, and with neither, so that one is like
//! the one before it.

use forebay_tests::clock::wall_ns;
use forebay_tests::mqtt::Message;
use forebay_tests::proxy::key_of;
use forebay_tests::seed::Rng;

/// Devices of each kind.
pub(super) const DEVICES: usize = 8;

/// What tells messages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A time of their own, in `own`.
    Own,
    /// A counter, in `counter`.
    Counter,
    /// Nothing: the same constant twice or more in a row, in `constant`.
    Constant,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Own, Kind::Counter, Kind::Constant];

    /// The measurement, and the first level of the topic.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Own => "own",
            Kind::Counter => "counter",
            Kind::Constant => "constant",
        }
    }
}

/// A message that was published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) kind: Kind,
    pub(super) device: usize,
    /// What its field `n` says: its place among all messages, or of a constant one the run that it belongs to.
    pub(super) number: u32,
    /// What the tap knows it by.
    pub(super) key: u64,
}

/// Where a device's constant stands.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    value: u32,
    left: u64,
}

/// Makes messages, and remembers them.
#[derive(Debug)]
pub(super) struct Mix {
    rng: Rng,
    origin_ns: i64,
    runs: [Run; DEVICES],
    pub(super) sent: Vec<Sent>,
}

impl Mix {
    pub(super) fn new(seed: u64) -> Mix {
        Mix { rng: Rng::new(seed), origin_ns: wall_ns(), runs: [Run::default(); DEVICES], sent: Vec::new() }
    }

    /// The time that message `number` carries.
    pub(super) fn ns(&self, number: u32) -> i64 {
        self.origin_ns + i64::from(number) * 1000
    }

    /// The next messages, the last of which is one of a kind.
    pub(super) fn chunk(&mut self, count: usize) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() + 2 < count {
            let device = usize::try_from(self.rng.in_range(0..DEVICES as u64))?;
            match self.rng.in_range(0..3) {
                0 => messages.push(self.add(Kind::Own, device)?),
                1 => messages.push(self.add(Kind::Counter, device)?),
                _ => {
                    // Half of them directly behind one another, the others wherever chance puts them.
                    messages.push(self.add(Kind::Constant, device)?);
                    if self.rng.in_range(0..2) == 0 {
                        messages.push(self.add(Kind::Constant, device)?);
                    }
                }
            }
        }
        messages.push(self.add(Kind::Counter, 0)?);
        Ok(messages)
    }

    fn add(&mut self, kind: Kind, device: usize) -> anyhow::Result<Message> {
        let mut number = u32::try_from(self.sent.len())?;
        let payload = match kind {
            Kind::Own => format!("{{\"n\":{number},\"time\":{}}}", self.ns(number)),
            Kind::Counter => format!("{{\"n\":{number}}}"),
            Kind::Constant => {
                number = self.constant(device);
                format!("{{\"n\":{number}}}")
            }
        };
        let topic = format!("{}/{}", kind.name(), device_name(device));
        let key = key_of(topic.as_bytes(), payload.as_bytes());
        self.sent.push(Sent { kind, device, number, key });
        Ok(Message::new(topic, payload))
    }

    fn constant(&mut self, device: usize) -> u32 {
        let run = &mut self.runs[device];
        if run.left == 0 {
            *run = Run { value: run.value + 1, left: self.rng.in_range(2..7) };
        }
        run.left -= 1;
        run.value
    }
}

/// The tag `device`, and the last level of the topic.
pub(super) fn device_name(device: usize) -> String {
    format!("device-{device}")
}
