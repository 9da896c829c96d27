//! Sparkplug B: what an edge node says by alias is named by its birth, also after the gateway was killed; a node whose
//! birth nobody has heard is asked for it.

use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::mqtt::{Client, Message};
use serde_json::Value;

use super::site::{SERVED_LIMIT, Site};

const MS: i64 = 1_000_000;

/// The metric that asks for births, as it is in a command.
const REBIRTH: &[u8] = b"\x0a\x14Node Control/Rebirth";

/// An edge node, which counts its messages.
struct EdgeNode {
    began_ms: u64,
    seq: u8,
}

impl EdgeNode {
    /// A message at the next millisecond: timestamp (field 1), the metrics (field 2) and seq (field 3).
    fn message(&mut self, topic: &str, metrics: &[&[u8]]) -> Message {
        let mut payload = vec![0x08];
        put_varint(&mut payload, self.began_ms + u64::from(self.seq));
        for metric in metrics {
            payload.push(0x12);
            put_varint(&mut payload, metric.len() as u64);
            payload.extend_from_slice(metric);
        }
        payload.extend_from_slice(&[0x18, self.seq]);
        self.seq += 1;
        Message::new(topic, payload)
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Name `bdSeq`, type Int64, value 7.
const BD_SEQ: &[u8] = b"\x0a\x05bdSeq\x20\x04\x58\x07";
/// Name `speed`, alias 3, type Int16, value 1480.
const SPEED: &[u8] = b"\x0a\x05speed\x10\x03\x20\x02\x50\xc8\x0b";
/// Alias 3, value -5 in 16 bits.
const SPEED_BY_ALIAS: &[u8] = b"\x10\x03\x50\xfb\xff\x03";

fn await_acks(site: &Site, count: u64) -> anyhow::Result<()> {
    wait_for("the PUBACKs", SERVED_LIMIT, || match site.tap.figures() {
        figures if figures.acked == count => Ok(()),
        figures => Err(format!("{count} were published: {figures:?}")),
    })
}

#[test]
fn births_outlive_the_gateway_and_missing_ones_are_asked_for() -> anyhow::Result<()> {
    let subscription = "[[mqtt.subscribe]]\ntopic = \"spBv1.0/#\"\nformat = \"sparkplug\"\n".to_owned();
    let mut site = Site::start("sparkplug", "", 3, &[subscription])?;
    let mut client = Client::connect(site.broker.port, "line", true)?;
    let mut listener = Client::connect(site.broker.port, "listener", true)?;
    listener.subscribe("spBv1.0/+/NCMD/+")?;
    let began_ms = u64::try_from(wall_ns() / MS)?;
    let mut node = EdgeNode { began_ms, seq: 0 };
    client.publish(&[
        node.message("spBv1.0/plant/NBIRTH/line", &[BD_SEQ]),
        node.message("spBv1.0/plant/DBIRTH/line/motor", &[SPEED]),
        node.message("spBv1.0/plant/DDATA/line/motor", &[SPEED_BY_ALIAS]),
    ])?;
    await_acks(&site, 3)?;

    site.gateway.kill();
    site.gateway.resume()?;
    client.publish(&[node.message("spBv1.0/plant/DDATA/line/motor", &[SPEED_BY_ALIAS])])?;
    let (topic, _) = listener.receive()?;
    assert_eq!(topic, "spBv1.0/plant/NCMD/line", "a birth may have been missed");
    let mut stranger = EdgeNode { began_ms, seq: 9 };
    client.publish(&[stranger.message("spBv1.0/plant/NDATA/stranger", &[SPEED_BY_ALIAS])])?;
    let (topic, command) = listener.receive()?;
    assert_eq!(topic, "spBv1.0/plant/NCMD/stranger");
    assert!(command.windows(REBIRTH.len()).any(|window| window == REBIRTH), "{command:02x?}");
    assert!(command.ends_with(b"\x20\x0b\x70\x01"), "of the type Boolean, and true: {command:02x?}");
    await_acks(&site, 5)?;

    site.gateway.drain(SERVED_LIMIT)?;
    let lost = site.gateway.status()?.pointer("/ledger/dead_lettered").and_then(Value::as_u64);
    assert_eq!(lost, Some(1), "what the stranger said by alias");
    site.settle()?;
    let ns = |number: i64| (i64::try_from(began_ms).unwrap_or_default() + number) * MS;
    assert_eq!(
        site.numbers("sparkplug", "speed", "motor")?,
        [(ns(1), 1_480.0), (ns(2), -5.0), (ns(3), -5.0)]
    );
    let online = site.points("sparkplug")?.iter().filter(|point| point.column("online").is_some()).count();
    assert_eq!(online, 2, "a node and a device were born");
    site.scratch.passed();
    Ok(())
}
