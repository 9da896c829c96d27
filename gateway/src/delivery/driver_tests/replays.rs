//! Dead letters that are sent again.

use super::versions::{Manner, serve, start, submit_values};
use super::*;
use crate::dead_letters::{Letter, Stage};
use crate::delivery::replay::{Busy, Fate, LETTERS_MAX};

/// The letters of a sink that runs.
pub(super) fn stored(running: &Running) -> Vec<Letter> {
    let found = Reader::open(Arc::new(running.letters.clone())).unwrap();
    let letter = |found| match found {
        Found::Letter(letter) => letter,
        Found::Damage(damage) => panic!("{damage:?}"),
    };
    found.map(|found| letter(found.unwrap())).collect()
}

pub(super) fn replay(running: &Running, letters: Vec<Letter>) -> Vec<Fate> {
    running.status.desk().hand_in(letters).unwrap().blocking_recv().unwrap()
}

#[test]
fn letters_whose_cause_is_not_mended_stay_and_the_others_are_stored_as_they_were() {
    let journal = journal();
    let (server, database) = serve(Manner::V2);
    let running = start(&journal, &server, Manner::V2, 1000);
    submit_values(&journal, (0..300).map(|ns| ("d", ns, Value::Integer(1))));
    until(|| ledger(&journal, "d", "main") == (0, 300));
    let letters = stored(&running);
    assert_eq!(letters.len(), 300);
    let fates = replay(&running, letters[..200].to_vec());
    let is_refused = |fate: &Fate| matches!(fate, Fate::Refused(why) if why.contains("still refused: 422"));
    assert!(fates.iter().all(is_refused), "{fates:?}");
    assert_eq!((stored(&running).len(), ledger(&journal, "d", "main")), (300, (0, 300)));

    database.lock().unwrap().is_mended = true;
    let cut = Letter { body_bytes: 1 << 20, ..letters[0].clone() };
    let unread = Letter { stage: Stage::Intake, ..letters[1].clone() };
    let damaged = Letter { body: b"\xff"[..].into(), ..letters[2].clone() };
    let mut handed_in = vec![cut, unread, damaged];
    handed_in.extend_from_slice(&letters[3..200]);
    let fates = replay(&running, handed_in);
    assert!(fates[..3].iter().all(|fate| matches!(fate, Fate::Refused(_))), "{:?}", &fates[..3]);
    assert!(fates[3..].iter().all(|fate| *fate == Fate::Stored));
    let left: Vec<u64> = stored(&running).iter().map(|letter| letter.offset.0).collect();
    let expected: Vec<u64> =
        letters[..3].iter().chain(&letters[200..]).map(|letter| letter.offset.0).collect();
    assert_eq!(left, expected);
    assert_eq!(ledger(&journal, "d", "main"), (197, 103));
    let times: Vec<i64> = database.lock().unwrap().stored.keys().map(|(_, ns)| *ns).collect();
    assert_eq!(times, (3..200).collect::<Vec<_>>());

    // A second time, as after a crash in between, changes nothing in the store.
    let fates = replay(&running, letters[3..10].to_vec());
    assert!(fates.iter().all(|fate| *fate == Fate::Stored));
    assert_eq!(database.lock().unwrap().stored.len(), 197);
    assert_eq!(ledger(&journal, "d", "main"), (197, 103), "nor in the ledger");
    running.stop();
}

#[test]
fn a_database_that_does_not_answer_leaves_all_letters_where_they_are() {
    let journal = journal();
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&refuses);
    let script = move |_: &[(String, i64)]| match flag.load(std::sync::atomic::Ordering::Relaxed) {
        true => Outcome::RejectedAll { reason: "400: no".into() },
        false => retry(),
    };
    submit(&journal, "d", 0..20);
    let running = Running::start(&journal, "main", Store { points: Points::default(), script });
    until(|| ledger(&journal, "d", "main") == (0, 20));
    let letters: Vec<Letter> = stored(&running).into_iter().filter(|letter| letter.rows > 0).collect();
    refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    let fates = replay(&running, letters.clone());
    assert_eq!(fates, vec![Fate::Failed("no answer".into()); 20]);
    let left = stored(&running).into_iter().filter(|letter| letter.rows > 0).count();
    assert_eq!((left, ledger(&journal, "d", "main")), (20, (0, 20)));
    running.stop();
}

#[test]
fn a_desk_takes_only_so_much() {
    let journal = journal();
    let (driver, _stop) = driver_of(&journal, &MemoryStorage::new());
    let desk = driver.status.desk();
    let mut told = Vec::new();
    while let Ok(receiver) = desk.hand_in(Vec::new()) {
        told.push(receiver);
        assert!(told.len() < 100, "no limit");
    }
    assert_eq!(desk.hand_in(Vec::new()).unwrap_err(), Busy);
    // Who has gone away makes room.
    told.clear();
    assert!(desk.hand_in(Vec::new()).is_ok());
    let letter = Letter {
        sink: "main".into(),
        journal: journal.id(),
        offset: Offset(1),
        stage: Stage::Delivery,
        at_ns: 0,
        device: "d".into(),
        rows: 1,
        origin: "m".into(),
        reason: "no".into(),
        body: b""[..].into(),
        body_bytes: 0,
    };
    assert_eq!(desk.hand_in(vec![letter; LETTERS_MAX + 1]).unwrap_err(), Busy);
}
