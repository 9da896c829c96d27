//! What the double does, one test per rule.

use std::collections::HashSet;
use std::io::ErrorKind;

use super::*;

const SECTOR: usize = SECTOR_BYTES;

/// A storage with one durable file `a` of four sectors of `o`.
fn old() -> (MemoryStorage, Arc<dyn StorageFile>) {
    let storage = MemoryStorage::new();
    storage.put("a", vec![b'o'; 4 * SECTOR]);
    let file = storage.open("a").unwrap();
    (storage, file)
}

fn content(storage: &MemoryStorage, name: &str) -> Vec<u8> {
    storage.files().remove(name).unwrap()
}

/// The first byte of each sector of `a`, as text.
fn sectors(storage: &MemoryStorage) -> String {
    content(storage, "a").iter().step_by(SECTOR).map(|byte| char::from(*byte)).collect()
}

fn names(storage: &MemoryStorage) -> String {
    storage.files().into_keys().collect()
}

#[test]
fn a_sync_makes_durable_what_was_written_and_nothing_later() {
    let (storage, file) = old();
    file.write_at(&[b'n'; 3 * SECTOR], 0).unwrap();
    file.sync().unwrap();
    file.write_at(&[b'm'; SECTOR], 2 * SECTOR as u64).unwrap();
    assert_eq!(sectors(&storage), "nnmo");
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "nnno");
    assert_eq!(storage.undecided().sectors.len(), 1);
    assert_eq!(storage.syncs("a"), 1);
}

#[test]
fn unsynced_sectors_survive_independently() {
    let (storage, file) = old();
    // The write begins and ends within sectors, which are old in their other parts.
    file.write_at(&[b'n'; 3 * SECTOR], SECTOR as u64 / 2).unwrap();
    let facts = storage.undecided();
    let fact = |sector| Fact::Sector { file: "a".into(), sector, versions: 2 };
    assert_eq!(facts, Undecided { operations: 0, sectors: (0..4).map(fact).collect(), lengths: vec![] });
    let mut seen = HashSet::new();
    for pattern in 0..16_usize {
        let cut = storage.after_power_cut_by(0, |fact| match fact {
            Fact::Sector { sector, .. } if pattern >> sector & 1 == 1 => Fate::New,
            _ => Fate::Old,
        });
        let bytes = content(&cut, "a");
        for (place, byte) in bytes.iter().enumerate() {
            let written = (SECTOR / 2..SECTOR / 2 + 3 * SECTOR).contains(&place);
            let new = written && pattern >> (place / SECTOR) & 1 == 1;
            assert_eq!(*byte, if new { b'n' } else { b'o' }, "byte {place} of pattern {pattern:b}");
        }
        assert!(seen.insert(cut.digest()), "pattern {pattern:b} is told from the others");
    }
}

#[test]
fn settling_makes_a_file_read_as_it_is_durable() {
    let (storage, file) = old();
    file.write_at(&[b'n'; SECTOR], 0).unwrap();
    file.write_at(&[b'n'; SECTOR], 4 * SECTOR as u64).unwrap();
    storage.plan(Fault::once(CallKind::Sync, 0, ErrorKind::Other));
    file.sync().unwrap_err();
    file.write_at(&[b'm'; SECTOR], SECTOR as u64).unwrap();
    assert_eq!(sectors(&storage), "nmoon");
    file.sync().unwrap();
    assert_eq!(sectors(&storage), "nmoon", "what was lost goes on to read");
    file.settle().unwrap();
    assert_eq!(sectors(&storage), "omoo");
    assert_eq!(storage.undecided(), Undecided::default());
}

#[test]
fn a_garbled_sector_is_neither_old_nor_new_and_follows_from_the_seed() {
    let (storage, file) = old();
    file.write_at(&[b'n'; 2 * SECTOR], 0).unwrap();
    let garbled = |seed| content(&storage.after_power_cut_by(0, |_| Fate::Garbled(seed)), "a");
    let first = garbled(1);
    assert_eq!(first, garbled(1));
    let other = garbled(2);
    assert_ne!(first[..SECTOR], other[..SECTOR]);
    assert_ne!(first[SECTOR..2 * SECTOR], other[SECTOR..2 * SECTOR]);
    assert_ne!(first[..SECTOR], first[SECTOR..2 * SECTOR]);
    for sector in first.chunks(SECTOR).take(2) {
        assert!(sector.iter().collect::<HashSet<_>>().len() > 100);
    }
    assert_eq!(first[2 * SECTOR..], [b'o'; 2 * SECTOR], "what was not written stays");
}

#[test]
fn a_sector_written_twice_may_be_as_it_was_in_between() {
    let (storage, file) = old();
    for byte in [b'1', b'2', b'3'] {
        file.write_at(&[byte; 10], 0).unwrap();
    }
    let expected = Fact::Sector { file: "a".into(), sector: 0, versions: 4 };
    assert_eq!(storage.undecided().sectors, [expected]);
    let version = |n| sectors(&storage.after_power_cut_by(0, |_| Fate::Version(n)));
    assert_eq!([0, 1, 2, 3, 9].map(version), ["oooo", "1ooo", "2ooo", "3ooo", "3ooo"]);
    file.sync().unwrap();
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "3ooo");
}

#[test]
fn an_unsynced_length_is_old_or_new_and_takes_the_sectors_beyond_with_it() {
    let (storage, file) = old();
    file.write_at(&[b'n'; SECTOR], 4 * SECTOR as u64 - 100).unwrap();
    file.write_at(&[b'm'; 10], 6 * SECTOR as u64).unwrap();
    let (durable, written) = (4 * SECTOR as u64, 6 * SECTOR as u64 + 10);
    let length = Fact::Length { file: "a".into(), durable, written, versions: 3 };
    assert_eq!(storage.undecided().lengths, [length]);

    let short = content(&storage.after_power_cut(&Fates::all_new().with_lengths(Lengths::Old)), "a");
    assert_eq!(short.len(), 4 * SECTOR);
    assert_eq!(short[4 * SECTOR - 100..], [b'n'; 100], "what lies within the old length is still decided");
    let long = content(&storage.after_power_cut(&Fates::prefix(0)), "a");
    assert_eq!(long[..4 * SECTOR], [b'o'; 4 * SECTOR]);
    assert_eq!(long[4 * SECTOR..], [0; 2 * SECTOR + 10], "what never was written is zeros");
    let between = storage.after_power_cut_by(0, |fact| match fact {
        Fact::Sector { .. } => Fate::New,
        Fact::Length { .. } => Fate::Version(1),
    });
    assert_eq!(content(&between, "a").len(), 5 * SECTOR - 100);

    file.sync().unwrap();
    assert_eq!(storage.undecided(), Undecided::default());
    assert_eq!(content(&storage.after_power_cut(&Fates::all_old()), "a"), content(&storage, "a"));
}

#[test]
fn a_prefix_of_the_directory_operations_survives() {
    let storage = MemoryStorage::new();
    storage.put("a", vec![b'a']);
    storage.put("b", vec![b'b']);
    let created = storage.create("c").unwrap();
    created.write_at(b"c", 0).unwrap();
    created.sync().unwrap();
    storage.rename("c", "b").unwrap();
    storage.remove("a").unwrap();
    assert_eq!(storage.undecided().operations, 3);
    let cut = |operations| storage.after_power_cut(&Fates::all_old().with_operations(operations));
    assert_eq!([0, 1, 2, 3, 9].map(|n| names(&cut(n))), ["ab", "abc", "ab", "b", "b"]);
    assert_eq!(content(&cut(0), "b"), b"b", "the synced content of a file whose creation is gone is gone");
    assert_eq!(content(&cut(1), "c"), b"c");
    assert_eq!(content(&cut(2), "b"), b"c");

    storage.sync_directory().unwrap();
    assert_eq!(storage.undecided(), Undecided::default());
    assert_eq!(names(&storage.after_power_cut(&Fates::all_old())), "b");
}

#[test]
fn a_created_file_that_was_not_synced_survives_empty() {
    let storage = MemoryStorage::new();
    let file = storage.create("a").unwrap();
    storage.sync_directory().unwrap();
    file.write_at(b"content", 0).unwrap();
    assert_eq!(content(&storage.after_power_cut(&Fates::all_old()), "a"), b"");
    assert_eq!(content(&storage.after_power_cut(&Fates::prefix(0)), "a"), [0; 7]);
}

#[test]
fn undecided_names_files_as_they_survive() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    storage.rename("a", "z").unwrap();
    storage.remove("z").unwrap();
    let files = |operations| -> Vec<String> {
        let named = |fact: &Fact| match fact {
            Fact::Sector { file, .. } | Fact::Length { file, .. } => file.to_string(),
        };
        storage.undecided_after(operations).sectors.iter().map(named).collect()
    };
    assert_eq!(files(0), ["a"]);
    assert_eq!(files(1), ["z"]);
    assert!(files(2).is_empty());
    assert_eq!(content(&storage.after_power_cut(&Fates::all_new().with_operations(0)), "a")[0], b'n');
}

#[test]
fn what_a_failed_sync_covered_reads_on_and_no_later_sync_makes_it_durable() {
    let (storage, file) = old();
    file.write_at(&[b'n'; 2 * SECTOR], 0).unwrap();
    file.write_at(&[b'n'; SECTOR], 4 * SECTOR as u64).unwrap();
    storage.plan(Fault::once(CallKind::Sync, 0, ErrorKind::Other));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(sectors(&storage), "nnoon");
    file.write_at(&[b'm'; SECTOR], 2 * SECTOR as u64).unwrap();
    file.sync().unwrap();
    assert_eq!(storage.undecided().sectors.len(), 3);
    assert_eq!(storage.undecided().lengths.len(), 1);
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "oomo");
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_new())), "nnmon");

    // Written again and synced, it is durable, and the length with what lies behind the old one.
    file.write_at(b"q", 0).unwrap();
    file.write_at(b"q", 4 * SECTOR as u64).unwrap();
    file.sync().unwrap();
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "qomoq");
    let lost = Fact::Sector { file: "a".into(), sector: 1, versions: 2 };
    assert_eq!(storage.undecided().sectors, [lost]);
}

#[test]
fn calls_are_numbered_and_told_by_kind() {
    let storage = MemoryStorage::new();
    storage.start_trace();
    let file = storage.create("a").unwrap();
    file.write_at(&[1; 2 * SECTOR], 100).unwrap();
    file.sync().unwrap();
    file.length().unwrap();
    file.read_at(&mut [0], 0).unwrap();
    storage.list().unwrap();
    storage.rename("a", "b").unwrap();
    storage.open("b").unwrap();
    storage.remove("b").unwrap();
    storage.sync_directory().unwrap();
    storage.space().unwrap();
    let trace = storage.trace();
    let kinds: Vec<_> = trace.iter().map(|call| call.kind).collect();
    use CallKind::*;
    assert_eq!(kinds, [Create, Write, Sync, Length, Read, List, Rename, Open, Remove, SyncDirectory, Space]);
    assert_eq!(trace[1], Call { kind: Write, file: "a".into(), sectors: 3 });
    assert_eq!(storage.calls(), 11);
    assert_eq!(storage.calls_of(Write), 1);
}

/// Rewrites the four sectors, syncs, and creates another file, as far as it gets.
fn workload(storage: &MemoryStorage) -> io::Result<()> {
    let file = storage.open("a")?;
    file.write_at(&[b'n'; 4 * SECTOR], 0)?;
    file.sync()?;
    storage.create("b")?;
    storage.sync_directory()
}

#[test]
fn from_the_cut_on_every_call_fails_and_changes_nothing() {
    let cut_at = |call| {
        let storage = old().0.after_kill();
        storage.cut_at(call);
        let error = workload(&storage).err();
        (storage, error)
    };
    for call in 0..5 {
        let (storage, error) = cut_at(call);
        assert_eq!(error.unwrap().to_string(), "power is off");
        assert!(storage.is_off());
        assert_eq!(storage.calls(), call);
        let before = storage.files();
        assert!(workload(&storage).is_err());
        assert!(storage.create("c").is_err() && storage.list().is_err() && storage.sync_directory().is_err());
        assert_eq!(storage.files(), before);
        assert_eq!(storage.calls(), call);
    }
    let after = |call| {
        let cut = cut_at(call).0.after_power_cut(&Fates::all_old());
        sectors(&cut) + &names(&cut)
    };
    assert_eq!([1, 2, 3, 4, 5].map(after), ["ooooa", "ooooa", "nnnna", "nnnna", "nnnnab"]);
    let (storage, error) = cut_at(5);
    assert!(error.is_none() && !storage.is_off());
}

#[test]
fn a_sync_under_way_when_the_power_goes_loses_nothing_yet() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    storage.cut_at(storage.calls());
    file.sync().unwrap_err();
    let second = storage.after_kill();
    second.open("a").unwrap().sync().unwrap();
    assert_eq!(sectors(&second.after_power_cut(&Fates::all_old())), "nooo");
}

#[test]
fn the_power_may_go_within_a_write() {
    for (sectors_written, expected) in [(0, "oooo"), (1, "nooo"), (3, "nnno"), (9, "nnnn")] {
        let storage = old().0.after_kill();
        storage.cut_inside(1, sectors_written);
        assert!(workload(&storage).is_err());
        assert_eq!(sectors(&storage.after_kill()), expected);
        assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "oooo");
    }
}

#[test]
fn planned_faults_hit_the_nth_call_of_a_kind_once_or_for_ever() {
    use CallKind::*;
    let (storage, file) = old();
    storage.plan(Fault::once(Write, 1, ErrorKind::StorageFull));
    storage.plan(Fault::for_ever(Read, 1, ErrorKind::Other));
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(file.write_at(b"n", 0).map_err(|e| e.kind()));
        results.push(file.read_at(&mut [0], 0).map(drop).map_err(|e| e.kind()));
    }
    let (full, other) = (Err(ErrorKind::StorageFull), Err(ErrorKind::Other));
    assert_eq!(results, [Ok(()), Ok(()), full, other, Ok(()), other]);
    storage.heal();
    assert!(file.read_at(&mut [0], 0).is_ok());

    for kind in [List, Open, Create, Rename, Remove, SyncDirectory, Space, Length, Sync] {
        storage.plan(Fault::for_ever(kind, 0, ErrorKind::ReadOnlyFilesystem));
    }
    let before = (storage.files(), storage.undecided());
    let errors = [
        storage.list().err(),
        storage.open("a").err(),
        storage.create("b").err(),
        storage.rename("a", "b").err(),
        storage.remove("a").err(),
        storage.sync_directory().err(),
        storage.space().err(),
        file.length().err(),
        file.sync().err(),
    ];
    assert!(errors.iter().flatten().all(|e| e.kind() == ErrorKind::ReadOnlyFilesystem));
    assert_eq!(errors.iter().flatten().count(), 9);
    assert_eq!((storage.files(), storage.undecided()), before);
}

#[test]
fn a_failed_write_may_have_written_a_part() {
    let (storage, file) = old();
    storage.plan(Fault::once(CallKind::Write, 0, ErrorKind::Other).after_writing(2));
    file.write_at(&[b'n'; 3 * SECTOR], SECTOR as u64 - 1).unwrap_err();
    let bytes = content(&storage, "a");
    assert_eq!(bytes.iter().filter(|byte| **byte == b'n').count(), SECTOR + 1);
    assert_eq!((bytes[SECTOR - 1], bytes[2 * SECTOR]), (b'n', b'o'));
}

#[test]
fn after_a_kill_the_unsynced_is_still_unsynced() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    storage.create("b").unwrap();
    storage.plan(Fault::for_ever(CallKind::Read, 0, ErrorKind::Other));
    storage.cut_at(storage.calls());
    assert!(storage.list().is_err());

    let second = storage.after_kill();
    assert_eq!((second.calls(), second.is_off()), (0, false));
    assert_eq!(second.files(), storage.files());
    assert_eq!(second.undecided(), storage.undecided());
    let again = second.open("a").unwrap();
    assert_eq!(again.read_at(&mut [0], 0).unwrap(), 1);
    // A second life that syncs nothing loses to a power cut what it has read.
    again.write_at(b"m", SECTOR as u64).unwrap();
    let cut = second.after_power_cut(&Fates::all_old());
    assert_eq!(sectors(&cut) + &names(&cut), "ooooa");
    again.sync().unwrap();
    second.sync_directory().unwrap();
    let cut = second.after_power_cut(&Fates::all_old());
    assert_eq!(sectors(&cut) + &names(&cut), "nmooab");
    assert_eq!(sectors(&storage), "nooo", "the first life's storage is not touched");
}

#[test]
fn a_fork_goes_its_own_way() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    storage.plan(Fault::once(CallKind::Write, 2, ErrorKind::Other));
    let fork = storage.fork();
    assert_eq!((fork.calls(), fork.digest()), (storage.calls(), storage.digest()));
    let copy = fork.open("a").unwrap();
    copy.write_at(b"m", SECTOR as u64).unwrap();
    copy.write_at(b"m", 0).unwrap_err();
    copy.sync().unwrap();
    assert_eq!((sectors(&storage), sectors(&fork)), ("nooo".into(), "nmoo".into()));
    assert_ne!(fork.digest(), storage.digest());
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "oooo");
    let survivor = storage.after_power_cut(&Fates::all_new());
    survivor.open("a").unwrap().write_at(b"q", 0).unwrap();
    assert_eq!(sectors(&storage), "nooo");
}

#[test]
fn patterns_of_fates_are_what_their_names_say() {
    let (storage, file) = old();
    file.write_at(&[b'n'; 4 * SECTOR], 0).unwrap();
    file.write_at(&[b'm'; 4 * SECTOR], 0).unwrap();
    let cut = |fates: Fates| sectors(&storage.after_power_cut(&fates));
    assert_eq!(cut(Fates::all_old()), "oooo");
    assert_eq!(cut(Fates::all_new()), "mmmm");
    assert_eq!(cut(Fates::only(2)), "oomo");
    assert_eq!(cut(Fates::all_but(2)), "mmom");
    assert_eq!(cut(Fates::prefix(3)), "mmmo");
    assert_eq!(cut(Fates::suffix(3)), "ooom");
    assert_eq!(cut(Fates::only(2).others(Fate::Version(1))), "nnmn");
    assert_eq!(cut(Fates::all_old().others(Fate::Version(1))), "nnnn");
}

#[test]
fn seeds_reach_every_fate_and_repeat_themselves() {
    let (storage, file) = old();
    file.write_at(&[b'n'; 5 * SECTOR], 0).unwrap();
    file.write_at(&[b'm'; 4 * SECTOR], 0).unwrap();
    storage.create("b").unwrap();
    let mut states = HashSet::new();
    let mut fates = HashSet::new();
    for seed in 0..2_000 {
        let cut = storage.after_power_cut(&Fates::seeded(seed));
        assert_eq!(cut.digest(), storage.after_power_cut(&Fates::seeded(seed)).digest());
        states.insert(cut.digest());
        let text = sectors(&cut);
        fates.insert((names(&cut), text.chars().count(), ' '));
        let known = |sector| if "onm".contains(sector) { sector } else { '?' };
        fates.extend(text.chars().take(4).enumerate().map(|(n, sector)| (String::new(), n, known(sector))));
    }
    assert_eq!(fates.len(), 2 * 2 + 4 * 4, "{fates:?}");
    assert!(states.len() > 500, "{} states", states.len());
}

#[test]
fn the_digest_tells_names_places_and_lengths_apart() {
    let digest = |files: &[(&str, &[u8])]| {
        let storage = MemoryStorage::new();
        files.iter().for_each(|(name, bytes)| storage.put(name, bytes.to_vec()));
        storage.digest()
    };
    let states: [&[(&str, &[u8])]; 9] = [
        &[],
        &[("a", b"")],
        &[("b", b"")],
        &[("a", b"\0")],
        &[("a", &[0; 32])],
        &[("a", &[0; 64])],
        &[("a", b"x"), ("b", b"y")],
        &[("a", b"y"), ("b", b"x")],
        &[("a", b"x"), ("c", b"y")],
    ];
    assert_eq!(states.iter().map(|files| digest(files)).collect::<HashSet<_>>().len(), states.len());
    let (storage, file) = old();
    let before = storage.digest();
    file.write_at(b"n", 700).unwrap();
    assert_ne!(storage.digest(), before);
    file.write_at(b"o", 700).unwrap();
    assert_eq!(storage.digest(), before);
}

#[test]
fn a_bounded_medium_takes_what_fits_and_rewrites_always() {
    assert_eq!(MemoryStorage::new().space().unwrap().total_bytes, u64::MAX);
    let storage = MemoryStorage::with_capacity(1_000);
    let (first, second) = (storage.create("a").unwrap(), storage.create("b").unwrap());
    first.write_at(&[1; 600], 0).unwrap();
    assert_eq!(storage.space().unwrap(), Space { free_bytes: 400, total_bytes: 1_000 });
    assert_eq!(second.write_at(&[2; 500], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(second.length().unwrap(), 400, "what fits was written");
    first.write_at(&[3; 600], 0).unwrap();
    assert_eq!(first.write_at(&[3; 1], 600).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(storage.create("c").map(drop).unwrap_err().kind(), ErrorKind::StorageFull);
    storage.remove("a").unwrap();
    assert_eq!(storage.after_power_cut(&Fates::all_new()).space().unwrap().free_bytes, 600);
    storage.create("c").unwrap().write_at(&[4; 600], 0).unwrap();
}

#[test]
fn a_removed_file_lasts_as_long_as_it_is_open_and_is_forgotten_then() {
    let (storage, file) = old();
    storage.remove("a").unwrap();
    storage.sync_directory().unwrap();
    assert_eq!(file.read_at(&mut [0; 9], 0).unwrap(), 9);
    file.write_at(b"n", 0).unwrap();
    drop(file);
    assert_eq!(storage.core().medium.kept(), 0);
    let file = storage.create("b").unwrap();
    storage.remove("b").unwrap();
    drop(file);
    assert_eq!(storage.core().medium.kept(), 1, "a power cut may bring it back");
    assert_eq!(names(&storage.after_kill().after_power_cut(&Fates::all_new().with_operations(1))), "b");
    storage.sync_directory().unwrap();
    assert_eq!(storage.core().medium.kept(), 0);
}

#[test]
fn what_is_written_during_a_sync_is_not_durable_with_it() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    file.write_at(b"n", SECTOR as u64).unwrap();
    storage.faults(|faults| faults.hold_syncs = true);
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| file.sync());
        storage.wait_until_held();
        file.write_at(b"m", 0).unwrap();
        file.write_at(b"m", 2 * SECTOR as u64).unwrap();
        assert_eq!(sectors(&storage.power_cut(|_, _| false)), "oooo");
        storage.faults(|faults| faults.hold_syncs = false);
        syncing.join().unwrap().unwrap();
    });
    assert_eq!(sectors(&storage), "mnmo");
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "nnoo");
}

#[test]
fn a_sync_that_is_held_up_when_the_power_goes_fails() {
    let (storage, file) = old();
    file.write_at(b"n", 0).unwrap();
    storage.faults(|faults| faults.hold_syncs = true);
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| file.sync());
        storage.wait_until_held();
        storage.cut_at(storage.calls());
        storage.list().unwrap_err();
        storage.faults(|faults| faults.hold_syncs = false);
        assert_eq!(syncing.join().unwrap().unwrap_err().to_string(), "power is off");
    });
    assert_eq!(sectors(&storage.after_power_cut(&Fates::all_old())), "oooo");
}

#[test]
fn a_power_cut_by_sectors_keeps_each_file_to_its_last_sector() {
    let (storage, durable) = old();
    storage.rename("a", "0").unwrap();
    let (a, b) = (storage.create("a").unwrap(), storage.create("b").unwrap());
    storage.sync_directory().unwrap();
    durable.write_at(&[1; SECTOR], SECTOR as u64).unwrap();
    a.write_at(&[1; 3 * SECTOR], 0).unwrap();
    b.write_at(&[1; 3 * SECTOR], 0).unwrap();
    let lengths = |kept: &str, last| {
        let cut = storage.power_cut(|name, sector| name == kept && sector == last);
        cut.files().into_values().map(|bytes| bytes.len() / SECTOR).collect::<Vec<_>>()
    };
    assert_eq!(lengths("a", 1), [4, 2, 0]);
    assert_eq!(lengths("b", 2), [4, 0, 3]);
    assert_eq!(lengths("0", 1), [4, 0, 0], "the end of one file is not that of the next");
}
