//! The kept corpus of the fuzz targets, and random changes of it, against the promises in `gateway/src/fuzzing.rs`.
//!
//! `tests/fuzz/run` looks further, with coverage to guide it, and takes its time; here is the part that always runs. The
//! seed is printed, and `FOREBAY_SEED` replays it; `FOREBAY_LONG=1` goes ten times as far. An input that fails is left
//! in a file whose name is printed: put it into the corpus together with the mend.

#![expect(clippy::panic, clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use forebay_gateway::fuzzing::{INPUT_BYTES_MAX, TARGETS, Target};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let mut directories: Vec<String> = fs::read_dir(CORPUS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    directories.sort();
    assert_eq!(directories, TARGETS.map(|(name, _)| name));
}

#[test]
fn configurations_hold_their_promises() {
    hold("config", 6_000);
}

#[test]
fn dead_letters_hold_their_promises() {
    hold("dead_letters", 4_000);
}

#[test]
fn end_marks_hold_their_promises() {
    hold("end_mark", 2_000);
}

#[test]
fn entries_hold_their_promises() {
    hold("entry", 6_000);
}

#[test]
fn frames_hold_their_promises() {
    hold("frame", 6_000);
}

#[test]
fn the_words_of_a_broker_hold_their_promises() {
    hold("mqtt", 6_000);
}

#[test]
fn json_payloads_hold_their_promises() {
    hold("payload_json", 100_000);
}

#[test]
fn known_makes_hold_their_promises() {
    hold("payload_preset", 100_000);
}

#[test]
fn senml_packs_hold_their_promises() {
    hold("payload_senml", 100_000);
}

#[test]
fn plain_values_hold_their_promises() {
    hold("payload_value", 100_000);
}

#[test]
fn recovery_holds_its_promises() {
    hold("recovery", 4_000);
}

#[test]
fn snapshots_hold_their_promises() {
    hold("snapshot", 6_000);
}

#[test]
fn edge_nodes_hold_their_promises() {
    hold("sparkplug", 40_000);
}

#[test]
fn lines_hold_their_promises() {
    hold("wire_frame", 20_000);
}

#[test]
fn messages_hold_their_promises() {
    hold("wire_message", 40_000);
}

#[test]
fn packed_rows_hold_their_promises() {
    hold("wire_pack", 40_000);
}

/// Runs a target over its corpus and over so many inputs that are changed from it.
fn hold(name: &str, mutations: u64) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(name, target, input, file);
    }
    let seed = seed(name);
    let long = std::env::var_os("FOREBAY_LONG").is_some_and(|value| value == "1");
    let mutations = if long { 10 * mutations } else { mutations };
    for n in 0..mutations {
        let input = mutated(&corpus, &mut Rng(seed.wrapping_add(n << 20)));
        run(name, target, &input, &format!("mutation {n} with FOREBAY_SEED={seed}"));
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(CORPUS).join(name);
    let mut corpus: Vec<(String, Vec<u8>)> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    corpus
}

fn run(name: &str, target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_ok() {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-failed"));
    fs::write(&path, input).unwrap();
    panic!("{name} breaks a promise on {what}; the input is in {}", path.display());
}

fn seed(name: &str) -> u64 {
    let seed = match std::env::var("FOREBAY_SEED") {
        Ok(text) => text.parse().expect("FOREBAY_SEED is a number"),
        Err(_) => u64::from(getrandom::u32().unwrap()),
    };
    eprintln!("{name}: FOREBAY_SEED={seed}");
    seed
}

/// An input of the corpus after a few changes.
fn mutated(corpus: &[(String, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len())].1.clone();
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(input.len() + 1);
        let length = rng.below(1 + (input.len() - at).min(64));
        match rng.below(8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6)];
                }
            }
            3 => drop(input.drain(at..at + length)),
            4 => drop(input.splice(at..at, (0..rng.below(16)).map(|_| rng.next() as u8).collect::<Vec<_>>())),
            5 => drop(input.splice(at..at, input[at..at + length].to_vec())),
            6 => input.truncate(at),
            _ => {
                let other = &corpus[rng.below(corpus.len())].1;
                input.splice(at.., other[rng.below(other.len() + 1)..].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// A small seeded generator (splitmix64): equal seeds give equal runs.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
