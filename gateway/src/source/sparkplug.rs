//! Sparkplug B: what edge nodes and their devices say to be born with, to have measured, and to have died of.
//!
//! In: messages below `spBv1.0/` of one broker, in their order. Out: rows, and commands that ask a node for its births.
//! Next: `sparkplug/heard.rs` for what one message says, `message.rs` for a payload, `rows.rs` for what becomes of its
//! metrics, `births.rs` for what is kept.
//!
//! **Constraints.** What a message says depends on those before it: a birth gives names and types to numbers, and a
//! count tells whether one is missing. So there is a state for each broker. [`Sparkplug::read`] does not change it, as a
//! message that finds no room in the journal is read again; [`Sparkplug::settle`] does, once the message is taken.
//! **Operation.** A node's births are asked for when a message needs one that was not received, when a message is
//! missing, and after a start of the gateway, which may have missed some; at most every [`ASK_EVERY_MS`] for a node, and
//! [`ASKS_PER_S`] times a second. Births and deaths are written to a file before the message is acked; those at QoS 0,
//! which have no ack, within [`SAVE_AFTER_MS`]. A message that the broker marks as sent again is no sign of a missing one.
//! **Alive or not.** A birth is a row with the field `online` that is true, a death one that is false; the death of a
//! node is that of its devices. The payload of a node's death was written when it connected, so its time counts only if
//! it is later than the birth's; else the time of receipt does. The death of an earlier session is none.
//! **Failure.** A metric that only a missing birth could name is refused, and kept among the dead letters with the
//! message. Beyond the limits in `births.rs` and `message.rs` births are refused by name.

mod births;
pub(crate) mod fuzzing;
mod heard;
mod message;
mod rows;
mod topic;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::Layout;
use crate::ingest::identity::Naming;

use super::Reporter;
use super::payload::{Aside, MAX_PAYLOAD_BYTES, Parsed, UNKNOWN_DEVICE};
use births::{BIRTHS_BYTES_MAX, DEVICES_MAX, Device, NODES_MAX, Node, Nodes, Table};
use heard::Message;
use message::{Payload, rebirth};
use topic::{Kind, NodeId, Read, Topic};

/// Directory below `data_dir` with a file for each broker.
pub const DIRECTORY: &str = "sparkplug";

/// Pause between two commands to one node.
const ASK_EVERY_MS: u64 = 10_000;

/// Commands a second, to all nodes of a broker.
const ASKS_PER_S: u32 = 20;

/// How long a birth at QoS 0 may wait to be written, together with others.
const SAVE_AFTER_MS: u64 = 1_000;

/// Pause before a file that could not be written is tried again.
const SAVE_AGAIN_MS: u64 = 10_000;

/// What is known of the edge nodes behind one broker.
#[derive(Debug, Default)]
pub struct Sparkplug {
    nodes: Nodes,
    asked: Asked,
    file: Option<PathBuf>,
    save_at_ms: Option<u64>,
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// The broker has sent it before, perhaps to nobody.
    pub again: bool,
}

/// What a message says.
#[derive(Debug)]
pub struct Reading {
    /// Its rows, or why it has none and is none the worse for it.
    pub parsed: Result<Parsed, Aside>,
    /// What changes once it is taken.
    pub effect: Option<Effect>,
}

/// What a message changes.
#[derive(Debug)]
pub struct Effect {
    node: NodeId,
    seq: Option<u8>,
    change: Change,
    wanted: Option<String>,
}

#[derive(Debug)]
enum Change {
    Nothing,
    NodeBirth(Node),
    NodeDeath,
    DeviceBirth(String, Table),
    DeviceDeath(String),
}

/// Asks an edge node for its births, at QoS 0 and not retained.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Where to publish it.
    pub topic: String,
    /// What to publish.
    pub payload: Vec<u8>,
    /// For people.
    pub why: String,
}

/// Now, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub monotonic_ms: u64,
    /// Since 1970.
    pub wall_ms: u64,
}

impl Sparkplug {
    /// What an earlier life of the gateway has left in a file.
    #[must_use]
    pub fn open(file: PathBuf) -> Sparkplug {
        let nodes = births::load(&file).unwrap_or_else(|e| {
            let file = file.display();
            tracing::warn!("{file} is of no use: {e}; edge nodes of Sparkplug are asked for their births");
            Nodes::new()
        });
        let mut sparkplug = Sparkplug { nodes, file: Some(file), ..Sparkplug::default() };
        sparkplug.lapse("the gateway was not there for a while");
        sparkplug
    }

    /// Births and deaths may have been missed, so births are to be asked for as messages come.
    pub fn lapse(&mut self, why: &str) {
        for node in self.nodes.values_mut().filter(|node| node.is_alive) {
            node.wanted = Some(why.to_owned());
        }
    }

    /// Reads a message, and changes nothing.
    #[must_use]
    pub fn read(&self, layout: &Layout, naming: &Naming, heard: &Heard<'_>) -> Reading {
        let topic = match Topic::read(heard.topic) {
            Read::Topic(topic) => topic,
            Read::Aside(why) => return Reading { parsed: Err(Aside(why)), effect: None },
            Read::Fault(reason) => return Reading::refused(UNKNOWN_DEVICE, reason),
        };
        if heard.payload.len() > MAX_PAYLOAD_BYTES {
            let reason =
                format!("{} bytes of payload; the limit is {MAX_PAYLOAD_BYTES}", heard.payload.len());
            return Reading::refused(topic.tag(), reason);
        }
        let payload = match Payload::decode(heard.payload) {
            Ok(payload) => payload,
            Err(e) => return Reading::refused(topic.tag(), e.to_string()),
        };
        let node = self.nodes.get(&topic.node());
        let message = Message { layout, naming, topic, payload, node, again: heard.again };
        match (topic.kind, topic.device) {
            (Kind::Birth, None) => message.node_birth(self),
            (Kind::Birth, Some(device)) => message.device_birth(self, device),
            (Kind::Data, device) => message.data(device),
            (Kind::Death, None) => message.node_death(),
            (Kind::Death, Some(device)) => message.device_death(device),
        }
    }

    /// A message was taken. `is_acked` says that an ack is due for it. Returns what is to be published.
    pub fn settle(&mut self, effect: Effect, now: Now, is_acked: bool) -> Option<Command> {
        let Effect { node: id, seq, change, wanted } = effect;
        if !matches!(change, Change::Nothing) {
            let due = now.monotonic_ms + if is_acked { 0 } else { SAVE_AFTER_MS };
            self.save_at_ms = Some(self.save_at_ms.map_or(due, |at| at.min(due)));
        }
        match change {
            Change::NodeBirth(node) => {
                self.forget_a_dead_one();
                self.nodes.insert(id, node);
                return None;
            }
            change => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.seq = seq;
                    node.change(change);
                }
            }
        }
        let mut node = self.nodes.get_mut(&id);
        let why = wanted.or_else(|| node.as_ref()?.wanted.clone())?;
        let may_ask = self.asked.allow(&id, now.monotonic_ms);
        if let Some(node) = &mut node {
            node.wanted = (!may_ask).then(|| why.clone());
        }
        let (group, edge) = id;
        may_ask.then(|| Command {
            topic: format!("spBv1.0/{group}/NCMD/{edge}"),
            payload: rebirth(now.wall_ms),
            why: format!("{group}/{edge} is asked for its births: {why}"),
        })
    }

    /// Writes births and deaths down, if that is due. Returns when it is due next, in monotonic milliseconds.
    pub fn tend(&mut self, now_ms: u64, reporter: &Reporter) -> Option<u64> {
        let at = self.save_at_ms?;
        if now_ms < at {
            return Some(at);
        }
        self.save_at_ms = None;
        let file = self.file.as_ref()?;
        if let Err(e) = births::save(file, &self.nodes) {
            let cure = "check the disk under data_dir; after a restart births are asked for";
            reporter.trouble("births", &format!("{} cannot be written: {e}; {cure}", file.display()));
            self.save_at_ms = Some(now_ms.saturating_add(SAVE_AGAIN_MS));
        }
        self.save_at_ms
    }

    /// Makes room for one more node, if there are as many as may be.
    fn forget_a_dead_one(&mut self) {
        if self.nodes.len() >= NODES_MAX {
            let dead = self.nodes.iter().find(|(_, node)| !node.is_alive).map(|(id, _)| id.clone());
            dead.and_then(|dead| self.nodes.remove(&dead));
        }
    }

    /// Why there is no room for a birth of so many bytes, if there is none. `replaced` is not counted.
    fn is_full(&self, replaced: usize, bytes: usize) -> Option<String> {
        let known: usize = self.nodes.values().map(Node::bytes).sum();
        let whole = known.saturating_sub(replaced) + bytes;
        (whole > BIRTHS_BYTES_MAX)
            .then(|| format!("all births together are limited to {BIRTHS_BYTES_MAX} bytes"))
    }
}

impl Node {
    fn change(&mut self, change: Change) {
        match change {
            Change::Nothing | Change::NodeBirth(_) => {}
            Change::NodeDeath => {
                self.is_alive = false;
                self.table = Table::default();
                // Who was alive stays, so that a death that comes again says the same again.
                self.devices.values_mut().for_each(|device| device.table = Table::default());
            }
            Change::DeviceBirth(device, table) => {
                if self.devices.len() >= DEVICES_MAX {
                    let dead = self.devices.iter().find(|(_, device)| !device.is_alive);
                    let dead = dead.map(|(device, _)| device.clone());
                    dead.and_then(|dead| self.devices.remove(&dead));
                }
                self.devices.insert(device, Device { is_alive: true, table });
            }
            Change::DeviceDeath(device) => {
                if let Some(device) = self.devices.get_mut(&device) {
                    *device = Device::default();
                }
            }
        }
    }
}

/// When nodes were asked for their births.
#[derive(Debug, Default)]
struct Asked {
    at_ms: BTreeMap<NodeId, u64>,
    second: u64,
    in_second: u32,
}

impl Asked {
    /// Whether a node may be asked now; then it counts as asked.
    fn allow(&mut self, node: &NodeId, now_ms: u64) -> bool {
        let is_over = |at: u64| now_ms.saturating_sub(at) >= ASK_EVERY_MS;
        if self.second != now_ms / 1_000 {
            (self.second, self.in_second) = (now_ms / 1_000, 0);
            // So it never holds more than what was asked in that time.
            self.at_ms.retain(|_, at| !is_over(*at));
        }
        if self.in_second >= ASKS_PER_S || self.at_ms.get(node).is_some_and(|at| !is_over(*at)) {
            return false;
        }
        self.in_second += 1;
        self.at_ms.insert(node.clone(), now_ms);
        true
    }
}

#[cfg(test)]
mod tests;
