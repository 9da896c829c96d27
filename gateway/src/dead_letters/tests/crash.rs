//! Power cuts and kills at every call, failed calls, and what was promised before.

use std::collections::BTreeSet;

use super::*;

/// Appends of one life; their letters are large, so that files are begun and dropped.
fn workload(life: u64) -> Vec<Vec<Letter>> {
    let mut next = life * 1_000;
    (0..20)
        .map(|round| {
            let count = [1, 3, 2][round % 3];
            next += count;
            (next - count..next).map(|n| letter(Stage::Delivery, n, [14_000, 300][round % 2])).collect()
        })
        .collect()
}

/// Runs a life until its storage fails; which letters were promised.
fn live(storage: &Faulty, life: u64) -> BTreeSet<u64> {
    let mut promised = BTreeSet::new();
    let Ok(store) = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST) else { return promised };
    for letters in workload(life) {
        if store.append(&letters).is_ok() {
            promised.extend(letters.iter().map(|letter| letter.offset.0));
        }
    }
    promised
}

/// A repeatable coin per sector.
fn coin(seed: u64) -> impl FnMut(&str, usize) -> bool {
    move |name, sector| {
        let mixed = (seed ^ name.len() as u64 ^ (sector as u64) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match seed {
            0 => false,
            1 => true,
            _ => (mixed >> 40).is_multiple_of(2),
        }
    }
}

/// Nothing promised is missing but what is counted as dropped, nothing is damaged, nothing is twice.
#[track_caller]
fn judge(storage: &MemoryStorage, promised: &BTreeSet<u64>, state: &str) {
    let (letters, damaged, dropped) = read(storage);
    assert_eq!(damaged, [], "{state}");
    let kept: Vec<u64> = letters.iter().map(|letter| letter.offset.0).collect();
    let distinct: BTreeSet<u64> = kept.iter().copied().collect();
    assert_eq!(kept.len(), distinct.len(), "{state}: {kept:?}");
    for found in &letters {
        assert_eq!(*found, letter(Stage::Delivery, found.offset.0, found.body.len()), "{state}");
    }
    let oldest = kept.first().copied().unwrap_or(u64::MAX);
    let missing: Vec<&u64> = promised.difference(&distinct).collect();
    assert!(missing.len() as u64 <= dropped.letters, "{state}: {missing:?} missing, {dropped:?}");
    assert!(missing.iter().all(|number| **number < oldest), "{state}: {missing:?} missing, {kept:?}");
}

#[test]
fn a_power_cut_at_any_call_of_two_lives_loses_nothing_promised() {
    let whole = Faulty::new();
    let all = live(&whole, 0);
    assert!(read(&whole.live()).2.letters > 0, "files are dropped");
    judge(&whole.power_cut(coin(0)), &all, "at the end");
    let mut states = 0;
    for call in 0..whole.calls() {
        let first = Faulty::new();
        first.off_at(call);
        let promised = live(&first, 0);
        for seed in 0..4 {
            let left = first.power_cut(coin(seed));
            judge(&left, &promised, &format!("call {call}, seed {seed}"));
            // The second life meets a cut as well, at one of its calls.
            let second = Faulty::over(&left);
            second.off_at((call * 7 + seed * 3) % 60);
            let both = &promised | &live(&second, 1);
            for seed in 0..3 {
                let state = format!("call {call}, seed {seed}, second life");
                judge(&second.power_cut(coin(seed)), &both, &state);
                states += 1;
            }
        }
    }
    assert!(states > 500, "{states} states");
}

#[test]
fn a_kill_at_any_call_followed_by_a_power_cut_loses_nothing_promised() {
    let whole = Faulty::new();
    live(&whole, 0);
    for call in 0..whole.calls() {
        for cut in [2, 5, 9, 14, 30, u64::MAX] {
            let first = Faulty::new();
            first.off_at(call);
            let mut promised = live(&first, 0);
            // The next process finds what was written, durable or not, and is given all of it again.
            let second = Faulty::over(&first.live());
            second.off_at(cut);
            if let Ok(store) = DeadLetters::open(Arc::new(second.clone()), MAX_BYTES_LEAST) {
                for letters in workload(0) {
                    let newest: Vec<u64> = letters.iter().map(|letter| letter.offset.0).collect();
                    if newest.iter().any(|number| !promised.contains(number))
                        && store.append(&letters).is_ok()
                    {
                        promised.extend(newest);
                    }
                }
            }
            for seed in 0..3 {
                let state = format!("killed at {call}, cut at {cut}, seed {seed}");
                judge(&second.power_cut(coin(seed)), &promised, &state);
            }
        }
    }
}

#[test]
fn a_failed_sync_is_not_repeated_on_its_file_and_a_second_one_is_an_error() {
    let storage = Faulty::new();
    let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
    store.append(&[refused(1)]).unwrap();
    storage.fail(Kind::Sync, 1);
    store.append(&[refused(2), refused(3)]).unwrap();
    assert_eq!(letter_files(&storage.live()).len(), 2);
    assert_eq!(offsets(&storage.power_cut(coin(0))), [1, 2, 3], "durable in the new file");
    assert_eq!(offsets(&storage.live()), [1, 2, 3], "and not shown in the old one");

    storage.fail(Kind::Sync, 2);
    let error = store.append(&[refused(4)]).unwrap_err().to_string();
    assert!(error.starts_with("cannot keep dead letters: "), "{error}");
    assert_eq!(store.append(&[refused(4)]).unwrap().written, 1, "tried again by the caller");
    assert_eq!(offsets(&storage.power_cut(coin(0))), [1, 2, 3, 4]);
    assert_eq!(offsets(&storage.power_cut(coin(1))), [1, 2, 3, 4]);
    assert_eq!(offsets(&storage.live()), [1, 2, 3, 4]);
}

#[test]
fn a_letter_that_was_let_go_of_in_vain_is_there_once_it_is_promised_again() {
    let storage = Faulty::new();
    let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
    store.append(&[refused(1), refused(2)]).unwrap();
    // The first sync fails, and the file that was to take over cannot be made.
    storage.fail(Kind::Create, 1);
    storage.fail(Kind::Sync, 1);
    store.remove(&[refused(1)]).unwrap_err();
    assert_eq!(store.append(&[refused(1)]).unwrap().known, 1);
    assert_eq!(offsets(&storage.live()), [1, 2]);
    // Nor does the next life believe what was never said for good.
    let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
    store.append(&[refused(3)]).unwrap();
    assert_eq!(offsets(&storage.live()), [1, 2, 3]);
}

#[test]
fn a_letter_of_an_append_that_failed_can_be_let_go_of() {
    let storage = Faulty::new();
    let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
    store.append(&[refused(1)]).unwrap();
    for failing in [Kind::SyncDirectory, Kind::Create] {
        storage.fail(Kind::Sync, 1);
        storage.fail(failing, 1);
        store.append(&[refused(2)]).unwrap_err();
        store.remove(&[refused(2)]).unwrap();
        assert_eq!(offsets(&storage.live()), [1], "{failing:?}");
    }
}

#[test]
fn whatever_call_fails_once_or_for_a_while_the_caller_gets_through_in_the_end() {
    for kind in [Kind::Create, Kind::Rename, Kind::Remove, Kind::Write, Kind::Sync, Kind::SyncDirectory] {
        for times in [1, 2, 3, 7] {
            let storage = Faulty::new();
            let mut store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
            let mut promised = BTreeSet::new();
            for (round, letters) in workload(0).into_iter().enumerate() {
                if round % 4 == 1 {
                    storage.fail(kind, times);
                }
                let mut tries = 0;
                while store.append(&letters).is_err() {
                    tries += 1;
                    assert!(tries <= times, "{kind:?} {times}: more failures than faults");
                    if tries == 2 {
                        store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
                    }
                }
                promised.extend(letters.iter().map(|letter| letter.offset.0));
                let state = format!("{kind:?} fails {times} times, round {round}");
                judge(&storage.live(), &promised, &state);
                judge(&storage.power_cut(coin(0)), &promised, &state);
                judge(&storage.power_cut(coin(7)), &promised, &state);
            }
        }
    }
}

#[test]
fn files_that_were_dropped_and_come_back_do_not_count() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let letters: Vec<Letter> = (0..60).map(|n| letter(Stage::Delivery, n, 9_000)).collect();
    let mut earlier = BTreeMap::new();
    for letter in letters {
        store.append(&[letter]).unwrap();
        earlier.extend(storage.files());
    }
    let (kept, _, dropped) = read(&storage);
    assert!(dropped.letters > 20);
    earlier.retain(|name, _| !storage.files().contains_key(name));
    earlier.iter().for_each(|(name, bytes)| storage.put(name, bytes.clone()));
    assert!(earlier.len() > 5);
    assert_eq!(intact(&storage), kept);
    open(&storage).append(&[refused(100)]).unwrap();
    assert!(earlier.keys().all(|name| !storage.files().contains_key(name)), "they are removed again");
}
