//! Random lives of a store against a model of it.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { from: u64, count: u64, stage: Stage, sink: usize, bytes: usize },
    Remove { from: u64, count: u64, stage: Stage, sink: usize },
    Reopen,
    PowerCut(u64),
    Fail(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let stage = prop_oneof![Just(Stage::Intake), Just(Stage::Delivery)];
    let gone = prop_oneof![Just(Stage::Intake), Just(Stage::Delivery)];
    let bytes = prop_oneof![4 => 0..600usize, 1 => 3_000..20_000usize];
    prop_oneof![
        8 => (0..400u64, 1..12u64, stage, 0..3usize, bytes)
            .prop_map(|(from, count, stage, sink, bytes)| Step::Append { from, count, stage, sink, bytes }),
        2 => (0..400u64, 1..40u64, gone, 0..3usize)
            .prop_map(|(from, count, stage, sink)| Step::Remove { from, count, stage, sink }),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerCut),
        1 => (0..3usize, 1..3u64).prop_map(|(kind, times)| Step::Fail(kind, times)),
    ]
}

const SINKS: [&str; 3] = ["main", "second", "sqlite"];
const FAILING: [Kind; 3] = [Kind::Write, Kind::Sync, Kind::SyncDirectory];
const MAX_BYTES: u64 = 16 << 20;

type ModelKey = (Stage, String, u64);

fn key(letter: &Letter) -> ModelKey {
    (letter.stage, letter.sink.to_string(), letter.offset.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_it_promised_each_once_in_the_order_of_promising(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut storage = Faulty::new();
        let open = |storage: &Faulty| DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES).unwrap();
        let mut store = open(&storage);
        // What was promised; what may be there besides, because an append of it has failed.
        let (mut promised, mut possible) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Append { from, count, stage, sink, bytes } => {
                    let letters: Vec<Letter> = (from..from + count)
                        .map(|number| Letter {
                            sink: if stage == Stage::Intake { "".into() } else { SINKS[sink].into() },
                            ..letter(stage, number, bytes.min(4096))
                        })
                        .collect();
                    let fresh = letters.iter().filter(|letter| !promised.contains_key(&key(letter))).count();
                    match store.append(&letters) {
                        Ok(appended) => {
                            prop_assert_eq!(appended.dropped, Dropped::default());
                            prop_assert_eq!(appended.written + appended.known, count);
                            prop_assert!(appended.written <= fresh as u64);
                            for letter in letters {
                                let first = possible.remove(&key(&letter));
                                let kept = promised.entry(key(&letter)).or_insert_with(Vec::new);
                                if kept.is_empty() {
                                    kept.extend(first.unwrap_or_default());
                                    kept.push(letter);
                                }
                            }
                        }
                        Err(_) => {
                            for letter in letters.into_iter().filter(|l| !promised.contains_key(&key(l))) {
                                possible.entry(key(&letter)).or_insert_with(Vec::new).push(letter);
                            }
                        }
                    }
                }
                Step::Remove { from, count, stage, sink } => {
                    let letters: Vec<Letter> = (from..from + count)
                        .map(|number| Letter {
                            sink: if stage == Stage::Intake { "".into() } else { SINKS[sink].into() },
                            ..letter(stage, number, 0)
                        })
                        .collect();
                    let removed = store.remove(&letters).is_ok();
                    for key in letters.iter().map(key) {
                        let kept = promised.remove(&key).unwrap_or_default();
                        if removed {
                            possible.remove(&key);
                        } else if !kept.is_empty() {
                            possible.entry(key).or_insert_with(Vec::new).extend(kept);
                        }
                    }
                }
                Step::Reopen => store = open(&storage),
                Step::PowerCut(seed) => {
                    let left = storage.power_cut(|name, sector| {
                        let mixed = (seed ^ name.len() as u64 ^ (sector as u64) << 9)
                            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        (mixed >> 41).is_multiple_of(2)
                    });
                    storage = Faulty::over(&left);
                    store = open(&storage);
                }
                Step::Fail(kind, times) => storage.fail(FAILING[kind], times),
            }
            let mut listed = BTreeMap::new();
            for letter in intact(&storage.live()) {
                let kept = promised.get(&key(&letter)).or_else(|| possible.get(&key(&letter)));
                prop_assert!(kept.is_some_and(|kept| kept.contains(&letter)), "{letter:?} is made up");
                prop_assert!(listed.insert(key(&letter), ()).is_none(), "{letter:?} is twice");
            }
            prop_assert!(promised.keys().all(|key| listed.contains_key(key)), "one is missing");
        }
    }
}
