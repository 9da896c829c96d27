//! Edge nodes that say anything. See `crate::fuzzing`.

use super::{BIRTHS_BYTES_MAX, Heard, Node, Now, Sparkplug, births};
use crate::config::{Format, Layout, Selector};
use crate::fuzzing::Feed;
use crate::ingest::identity::Naming;
use crate::source::payload::fuzzing::hold_row;

/// Topics of two nodes and a device, and some that are none.
const TOPICS: [&str; 8] = [
    "spBv1.0/g/NBIRTH/e",
    "spBv1.0/g/DBIRTH/e/d",
    "spBv1.0/g/NDATA/e",
    "spBv1.0/g/DDATA/e/d",
    "spBv1.0/g/NDEATH/e",
    "spBv1.0/g/DDEATH/e/d",
    "spBv1.0/g/NDATA/f",
    "spBv1.0/g/NCMD/e",
];

/// Messages of edge nodes: each row can be stored, what is not settled changes nothing, and what is kept comes back.
///
/// The first byte says what is configured; then come messages, each with a byte that says which topic and whether it is
/// sent again, and its payload.
pub fn sparkplug(input: &[u8]) {
    let mut feed = Feed::new(input);
    let choices = feed.byte();
    let mut layout = Layout::of(Format::Sparkplug);
    layout.measurement = Some(Selector::Fixed("sparkplug".to_owned()));
    if choices & 1 != 0 {
        (layout.integer_fields, layout.text_fields) = (vec!["n".to_owned()], vec!["s".to_owned()]);
    }
    if choices & 2 != 0 {
        layout.rename.insert("t".to_owned(), "online".to_owned());
    }
    let (mut known, mut now_ms) = (Sparkplug::default(), 0);
    while !feed.is_empty() {
        let how = usize::from(feed.byte());
        let heard =
            Heard { topic: TOPICS[how % TOPICS.len()], payload: feed.bytes(), again: how & 0x80 != 0 };
        let reading = known.read(&layout, &Naming::default(), &heard);
        let twice = known.read(&layout, &Naming::default(), &heard);
        assert_eq!(reading.parsed, twice.parsed);
        if let Ok(parsed) = &reading.parsed {
            assert!(!parsed.is_empty());
            parsed.rows.iter().for_each(hold_row);
        }
        now_ms += 1_000;
        let now = Now { monotonic_ms: now_ms, wall_ms: now_ms };
        let command = reading.effect.and_then(|effect| known.settle(effect, now, false));
        assert!(command.is_none_or(|command| command.topic.starts_with("spBv1.0/g/NCMD/")));
    }
    assert!(known.nodes.values().map(Node::bytes).sum::<usize>() <= BIRTHS_BYTES_MAX);
    births::hold(&known.nodes);
}
