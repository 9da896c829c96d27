//! What one message of Sparkplug says, with what is known of its node; nothing is changed by that.

use std::collections::BTreeMap;

use crate::config::Layout;
use crate::ingest::identity::Naming;
use crate::record::{Row, Value, check_name};
use crate::source::payload::{self, Aside, Parsed, Refusal, UNKNOWN_DEVICE};

use super::births::{DEVICES_MAX, NODES_MAX, Node, Table};
use super::message::Payload;
use super::rows::{Dated, Gathered, gather, nanoseconds};
use super::topic::Topic;
use super::{Change, Effect, Reading, Sparkplug};

/// The field that tells whether a node or a device is there.
const ONLINE: &str = "online";

const NO_BIRTH: &str = "no birth of it, or of its device, was received that stands";

impl Reading {
    pub(super) fn refused(device: &str, reason: String) -> Reading {
        let refused = Some(refusal(device, 1, reason));
        Reading { parsed: Ok(Parsed { rows: Vec::new(), refused }), effect: None }
    }
}

fn refusal(device: &str, rows: u64, reason: String) -> Refusal {
    let is_name = check_name("tag value", device).is_ok();
    Refusal { device: if is_name { device } else { UNKNOWN_DEVICE }.to_owned(), rows, reason }
}

/// One message, with what is known of its node.
pub(super) struct Message<'a> {
    pub(super) layout: &'a Layout,
    pub(super) naming: &'a Naming,
    pub(super) topic: Topic<'a>,
    pub(super) payload: Payload<'a>,
    pub(super) node: Option<&'a Node>,
    pub(super) again: bool,
}

impl Message<'_> {
    pub(super) fn node_birth(&self, known: &Sparkplug) -> Reading {
        let table = Table::of(&self.payload);
        let mut gathered = gather(self.layout, &self.payload, Some(&table), &self.topic.named());
        let is_new = self.node.is_none_or(|node| !node.is_alive);
        let alive = if is_new { known.nodes.values().filter(|node| node.is_alive).count() } else { 0 };
        let full = match alive >= NODES_MAX {
            true => Some(format!("{NODES_MAX} edge nodes of this broker are alive, and no more are known")),
            false => known.is_full(self.node.map_or(0, Node::bytes), table.bytes),
        };
        let node = Node {
            bd_seq: self.payload.bd_seq(),
            born_ms: self.payload.timestamp,
            is_alive: true,
            table,
            devices: BTreeMap::new(),
            seq: self.payload.seq.and_then(|seq| u8::try_from(seq).ok()),
            wanted: None,
        };
        // What is told of an earlier birth does not stand any more, whatever becomes of this one.
        let change = self.unless(full, &mut gathered, Change::NodeBirth(node), Change::NodeDeath);
        self.reading(
            gathered,
            Some(true),
            Effect { node: self.topic.node(), seq: None, change, wanted: None },
        )
    }

    pub(super) fn device_birth(&self, known: &Sparkplug, device: &str) -> Reading {
        let table = Table::of(&self.payload);
        let mut gathered = gather(self.layout, &self.payload, Some(&table), &self.topic.named());
        let (seq, gap) = self.follow();
        let Some(node) = self.alive() else {
            // The births that are asked for bring this one again.
            let effect = self.effect(seq, Change::Nothing, Some(NO_BIRTH.to_owned()));
            return self.reading(gathered, Some(true), effect);
        };
        let before = node.devices.get(device).filter(|before| before.is_alive);
        let others = node.devices.values().filter(|device| device.is_alive).count();
        let full = match before.is_none() && others >= DEVICES_MAX {
            true => Some(format!("{DEVICES_MAX} devices of its edge node are alive, and no more are known")),
            false => known.is_full(before.map_or(0, |before| before.table.bytes), device.len() + table.bytes),
        };
        let birth = Change::DeviceBirth(device.to_owned(), table);
        let change = self.unless(full, &mut gathered, birth, Change::DeviceDeath(device.to_owned()));
        self.reading(gathered, Some(true), self.effect(seq, change, gap))
    }

    pub(super) fn data(&self, device: Option<&str>) -> Reading {
        let table = self.alive().and_then(|node| match device {
            None => Some(&node.table),
            Some(device) => Some(&node.devices.get(device).filter(|device| device.is_alive)?.table),
        });
        let gathered = gather(self.layout, &self.payload, table, &self.topic.named());
        let (seq, gap) = self.follow();
        let wanted = match table {
            None => Some(NO_BIRTH.to_owned()),
            Some(_) if gathered.lacks_birth => {
                Some("it sends metrics that its birth does not have".to_owned())
            }
            Some(_) => gap,
        };
        self.reading(gathered, None, self.effect(seq, Change::Nothing, wanted))
    }

    pub(super) fn node_death(&self) -> Reading {
        let born = self.node.map(|node| (node.bd_seq, node.born_ms));
        if let (Some((Some(birth), _)), Some(death)) = (born, self.payload.bd_seq())
            && birth != death
        {
            return Reading { parsed: Err(Aside("it is the death of an earlier session")), effect: None };
        }
        let born_ms = born.and_then(|(_, born_ms)| born_ms);
        let ms = self.payload.timestamp.filter(|ms| born_ms.is_some_and(|born_ms| *ms > born_ms));
        let ns = ms.and_then(nanoseconds);
        let mut parsed = Parsed::default();
        let devices = self.node.iter().flat_map(|node| &node.devices);
        let devices = devices.filter(|(_, device)| device.is_alive).map(|(device, _)| device.as_str());
        for device in std::iter::once(self.topic.edge).chain(devices) {
            self.add(
                &mut parsed,
                device,
                Dated { ns, fields: vec![(ONLINE.to_owned(), Value::Boolean(false))] },
            );
        }
        let seq = self.node.and_then(|node| node.seq);
        let effect = Effect { node: self.topic.node(), seq, change: Change::NodeDeath, wanted: None };
        Reading { parsed: told(parsed), effect: Some(effect) }
    }

    pub(super) fn device_death(&self, device: &str) -> Reading {
        let (seq, gap) = self.follow();
        let wanted = if self.alive().is_some() { gap } else { Some(NO_BIRTH.to_owned()) };
        let effect = self.effect(seq, Change::DeviceDeath(device.to_owned()), wanted);
        // What it was said to have measured at last is no part of a death.
        self.reading(Gathered::default(), Some(false), effect)
    }

    fn alive(&self) -> Option<&Node> {
        self.node.filter(|node| node.is_alive)
    }

    /// The count behind this message, and what is to be said if one before it is missing.
    fn follow(&self) -> (Option<u8>, Option<String>) {
        let last = self.node.and_then(|node| node.seq);
        let Some(seq) = self.payload.seq else { return (last, None) };
        let seq = u8::try_from(seq).ok();
        match last.map(|last| last.wrapping_add(1)) {
            None => (seq, None),
            Some(next) if seq == Some(next) => (seq, None),
            // It may have been taken before, and what came behind it too.
            Some(_) if self.again => (last, None),
            Some(next) => {
                let came = self.payload.seq.unwrap_or_default();
                (seq, Some(format!("a message is missing: number {next} was to come, and {came} came")))
            }
        }
    }

    fn effect(&self, seq: Option<u8>, change: Change, wanted: Option<String>) -> Effect {
        Effect { node: self.topic.node(), seq, change, wanted }
    }

    /// The birth, unless there is no room for it: then it is refused, and the other is what changes.
    fn unless(&self, full: Option<String>, gathered: &mut Gathered, birth: Change, other: Change) -> Change {
        let Some(why) = full else { return birth };
        let reason = format!(
            "the birth of {} is not kept: {why}; what follows by alias is refused",
            self.topic.named()
        );
        match &mut gathered.refused {
            Some((count, _)) => *count += 1,
            none => *none = Some((1, reason)),
        }
        other
    }

    fn reading(&self, gathered: Gathered, online: Option<bool>, effect: Effect) -> Reading {
        let Gathered { mut rows, refused, .. } = gathered;
        if let Some(online) = online {
            let ns = self.payload.timestamp.and_then(nanoseconds);
            let field = (ONLINE.to_owned(), Value::Boolean(online));
            let mut fields = rows.iter().filter(|row| row.ns == ns).flat_map(|row| &row.fields);
            // A metric of that name stands in its place.
            let is_there = fields.any(|(name, _)| name == ONLINE);
            match rows.iter_mut().rfind(|row| row.ns == ns) {
                _ if is_there => {}
                Some(row) => row.fields.push(field),
                None => rows.push(Dated { ns, fields: vec![field] }),
            }
        }
        let mut parsed = Parsed::default();
        rows.into_iter().for_each(|row| self.add(&mut parsed, self.topic.tag(), row));
        if let Some((count, reason)) = refused {
            refuse(&mut parsed, self.topic.tag(), count, reason);
        }
        Reading { parsed: told(parsed), effect: Some(effect) }
    }

    fn add(&self, parsed: &mut Parsed, device: &str, row: Dated) {
        match self.row(device, row) {
            Ok(row) => parsed.rows.extend(row),
            Err(reason) => refuse(parsed, device, 1, reason),
        }
    }

    fn row(&self, device: &str, row: Dated) -> Result<Option<Row>, String> {
        let tags = vec![("group", self.topic.group), ("edge", self.topic.edge)];
        payload::row(self.layout, self.naming, device, tags, row.fields, row.ns)
    }
}

fn refuse(parsed: &mut Parsed, device: &str, rows: u64, reason: String) {
    match &mut parsed.refused {
        Some(refused) => refused.rows += rows,
        none => *none = Some(refusal(device, rows, reason)),
    }
}

fn told(parsed: Parsed) -> Result<Parsed, Aside> {
    const NONE: Aside = Aside(
        "it has no reading: what is null, control metrics, text that is not listed, or what `drop` leaves out",
    );
    if parsed.is_empty() { Err(NONE) } else { Ok(parsed) }
}
