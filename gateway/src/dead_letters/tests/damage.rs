//! What the disk does to files costs what it hit, and is named.

use super::*;

/// The files of a store, and which letters it was given.
struct Sample {
    files: BTreeMap<String, Vec<u8>>,
    newest: String,
    letters: Vec<Letter>,
}

impl Sample {
    /// Two files; the newer one of three appends.
    fn new() -> Sample {
        let storage = MemoryStorage::new();
        let letters: Vec<Letter> =
            (1..=7).map(|number| letter(Stage::Delivery, number, number as usize * 31)).collect();
        open(&storage).append(&letters[..2]).unwrap();
        let store = open(&storage);
        for range in [2..3, 3..6, 6..7] {
            store.append(&letters[range]).unwrap();
        }
        let newest = letter_files(&storage).pop().unwrap();
        Sample { files: storage.files(), newest, letters }
    }

    fn storage(&self, name: &str, bytes: Option<Vec<u8>>) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for (name, bytes) in self.files.iter().filter(|(other, _)| *other != name) {
            storage.put(name, bytes.clone());
        }
        if let Some(bytes) = bytes {
            storage.put(name, bytes);
        }
        storage
    }

    fn names(&self) -> Vec<String> {
        self.files.keys().filter(|name| name.ends_with(".letters")).cloned().collect()
    }
}

/// What is lost and what is named are the same, and both stay as they are when the next life appends.
#[track_caller]
fn check(storage: &MemoryStorage, sample: &Sample, name: &str) -> (u64, Vec<Damage>) {
    let (letters, damaged, _) = read(storage);
    let lost = sample.letters.iter().filter(|letter| !letters.contains(letter)).count();
    assert_eq!(letters.len() + lost, sample.letters.len(), "none is twice or made up");
    let named: u64 = damaged.iter().map(|damage| damage.letters).sum();
    assert_eq!(lost as u64, named, "{damaged:?}");
    assert!(damaged.iter().all(|damage| damage.file == name), "{damaged:?}");
    let more = refused(1_000);
    open(storage).append(std::slice::from_ref(&more)).unwrap();
    let (after, damaged_after, _) = read(storage);
    assert_eq!(after, [letters, vec![more]].concat());
    assert_eq!(damaged_after, damaged);
    (named, damaged)
}

#[test]
fn a_flipped_byte_costs_at_most_its_letter_and_is_named() {
    let sample = Sample::new();
    let mut costly = 0;
    for name in sample.names() {
        for at in 0..sample.files[&name].len() {
            let mut bytes = sample.files[&name].clone();
            bytes[at] ^= [0x01, 0xff, 0x80][at % 3];
            let (lost, damaged) = check(&sample.storage(&name, Some(bytes)), &sample, &name);
            assert!(lost <= 1, "byte {at} costs {lost}");
            let hit = damaged.iter().all(|damage| (damage.from..damage.to).contains(&(at as u64)));
            assert!(hit && damaged.len() <= 1, "byte {at}: {damaged:?}");
            let is_header = at % 512 < 84 && at < 1024;
            assert_eq!(damaged.len(), usize::from(is_header) + lost as usize, "byte {at}");
            costly += lost;
        }
    }
    assert!(costly > 1_500, "{costly} bytes of the files are letters");
}

#[test]
fn a_file_that_is_cut_short_loses_what_was_behind_the_cut_and_says_how_much() {
    let sample = Sample::new();
    for name in sample.names() {
        let whole = sample.files[&name].len();
        let mut before = u64::MAX;
        for end in 0..whole {
            let bytes = sample.files[&name][..end].to_vec();
            let (lost, _) = check(&sample.storage(&name, Some(bytes)), &sample, &name);
            assert!(lost <= before, "a longer file loses no more");
            before = lost;
        }
        assert_eq!(before, 0, "{name} ends in padding");
    }
}

#[test]
fn a_file_that_is_gone_is_named() {
    let sample = Sample::new();
    for (name, letters) in sample.names().into_iter().zip([2, 5]) {
        let (lost, damaged) = check(&sample.storage(&name, None), &sample, &name);
        assert_eq!((lost, damaged.len()), (letters, 1));
    }
}

#[test]
fn both_copies_of_a_header_cost_no_letters() {
    let sample = Sample::new();
    for name in sample.names() {
        let mut bytes = sample.files[&name].clone();
        (bytes[17], bytes[530]) = (0xff, 0xff);
        let storage = sample.storage(&name, Some(bytes));
        let (letters, damaged, _) = read(&storage);
        assert_eq!(letters, sample.letters);
        assert_eq!(damaged, [Damage { file: name, from: 0, to: 1024, letters: 0 }]);
        assert_eq!(open(&storage).append(&sample.letters).unwrap().known, 7);
    }
}

#[test]
fn without_the_file_that_tells_the_end_all_letters_are_there() {
    let sample = Sample::new();
    for at in 0..=512 {
        let mut bytes = sample.files["end"].clone();
        let bytes = bytes.get_mut(at).map(|byte| *byte ^= 0x10).map(|()| bytes);
        let storage = sample.storage("end", bytes);
        assert_eq!(intact(&storage), sample.letters);
        open(&storage).append(&[refused(1_000)]).unwrap();
        assert_eq!(intact(&storage).len(), 8, "each once");
    }
}

#[test]
fn a_torn_tail_is_no_damage_and_nothing_is_appended_to_it() {
    let sample = Sample::new();
    let whole = &sample.files[&sample.newest];
    // What the disk holds when the power goes during the append of the letters 4 to 6.
    let storage = MemoryStorage::new();
    open(&storage).append(&sample.letters[..2]).unwrap();
    let store = open(&storage);
    store.append(&sample.letters[2..3]).unwrap();
    let before = storage.files();
    store.append(&sample.letters[3..6]).unwrap();
    let torn = &storage.files()[&sample.newest];
    let durable = before[&sample.newest].len();
    assert!(torn.len() > durable + 512 && torn.len() < whole.len());
    for end in durable..=torn.len() {
        for garbled in [false, true] {
            let mut bytes = torn[..end].to_vec();
            if garbled && end > durable {
                bytes[durable..].iter_mut().step_by(300).for_each(|byte| *byte ^= 0x55);
            }
            let storage = MemoryStorage::new();
            before.iter().for_each(|(name, bytes)| storage.put(name, bytes.clone()));
            storage.put(&sample.newest, bytes);
            let letters = intact(&storage);
            assert!(letters.len() >= 3 && letters == sample.letters[..letters.len()], "cut at {end}");
            // The same letters come again.
            let storage = Faulty::over(&storage);
            let store = DeadLetters::open(Arc::new(storage.clone()), MAX_BYTES_LEAST).unwrap();
            let appended = store.append(&sample.letters[3..]).unwrap();
            assert_eq!(appended.known, letters.len() as u64 - 3, "cut at {end}");
            assert_eq!(intact(&storage.live()), sample.letters);
            assert_eq!(intact(&storage.power_cut(|_, _| false)), sample.letters);
        }
    }
}

#[test]
fn a_sector_that_cannot_be_read_costs_what_is_in_it() {
    let sample = Sample::new();
    let storage = Faulty::over(&sample.storage("", None));
    storage.unreadable(&sample.newest, 3);
    let found: Vec<Found> = Reader::open(Arc::new(storage)).unwrap().map(Result::unwrap).collect();
    let damaged: Vec<&Damage> = found
        .iter()
        .filter_map(|f| if let Found::Damage(damage) = f { Some(damage) } else { None })
        .collect();
    let [damage] = damaged[..] else { panic!("{damaged:?}") };
    assert!(damage.from <= 3 * 512 && damage.to > 3 * 512, "{damage:?}");
    assert_eq!(found.len() - 1 + damage.letters as usize, 7);
    assert!(damage.letters < 4);
}

#[test]
fn a_payload_that_looks_like_a_letter_is_none() {
    let other = MemoryStorage::new();
    open(&other).append(&[refused(66)]).unwrap();
    let forged = other.files().remove(&letter_files(&other)[0]).unwrap().split_off(1024);
    let storage = MemoryStorage::new();
    let carrier = Letter { body: forged.into(), ..refused(1) };
    open(&storage).append(&[carrier, refused(2)]).unwrap();
    let [name] = &letter_files(&storage)[..] else { panic!("one file") };
    let mut bytes = storage.files()[name].clone();
    bytes[1024] ^= 1;
    storage.put(name, bytes);
    let (letters, damaged, _) = read(&storage);
    assert_eq!(letters, [refused(2)]);
    assert_eq!(damaged.len(), 1);
}
