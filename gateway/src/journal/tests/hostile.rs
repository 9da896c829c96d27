//! What an untrusted sender, a bad block or a changed limit must not be able to do.

use std::time::Instant;

use super::entry::{Cause, Counts, CursorEntry, LetterEntry, LettersEntry};
use super::frame::FrameHeader;
use super::memory::{CallKind, Fault};
use super::small::{SMALL, SMALL_JOURNAL, commit, commit_rows, open_as, open_small, survey_small};
use super::state::{NewAccounts, OTHERS};
use super::storage::{Space, Storage, StorageFile};
use super::*;

/// Frames for many segments, each of which would move the cursor and the end far ahead.
fn forged(segments: std::ops::Range<u64>) -> Vec<u8> {
    let far = Offset(1 << 40);
    let mut bytes = Vec::new();
    for segment in segments {
        let mut frame = vec![0; frame::FRAME_HEADER_BYTES];
        let cursor = CursorEntry { sink: "main", next: far, confirmed: Counts::of(&[]) };
        Entry::Cursor(cursor).encode(&mut frame).unwrap();
        let header = FrameHeader {
            length: frame.len(),
            count: 1,
            complete: true,
            snapshot: false,
            segment: SegmentId(segment),
            first: far,
            watermark: far,
            learned: 0,
            previous: 0,
        };
        // Everything but the journal's id can be guessed.
        header.seal(&mut frame, JournalId(0));
        bytes.append(&mut frame);
    }
    bytes
}

fn letter(body: &[u8]) -> Entry<'_> {
    let (origin, reason, body_bytes) = ("topic", "no JSON", body.len() as u64);
    Entry::Letter(LetterEntry { device: "esp", rows: 1, ns: 1, origin, reason, body_bytes, body })
}

#[test]
fn a_payload_cannot_pose_as_frames() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    journal.register_sink("main").unwrap();
    let mut rows = 0;
    for round in 0..60 {
        let mut end = Offset(0);
        for n in 0..8 {
            commit(&journal, &[letter(&forged(1 + n * 50..1 + (n + 1) * 50))]);
            for _ in 0..5 {
                end = submit_rows(&journal, rows, 1, &"x".repeat(1_000)).unwrap();
                rows += 1;
            }
            wait_for(&journal, end);
        }
        if round < 59 {
            let counts = [("e6614104".into(), 40)];
            let cursor = CursorEntry { sink: "main", next: end, confirmed: Counts::of(&counts) };
            let letters = LettersEntry { to: end, unkept: false, rows: Counts::of(&[]) };
            commit(&journal, &[Entry::Letters(letters), Entry::Cursor(cursor)]);
        }
    }
    let end = journal.usage().end;
    assert_eq!(journal.with_state(|state| state.owed("main")), 40);
    journal.close();
    let (journal, report) = open(&storage);
    let cursor = journal.with_state(|state| state.cursor("main")).unwrap();
    assert_eq!((report.end, report.damaged), (end, vec![]));
    assert_eq!(read_all(&journal, cursor).0.len(), 40);
}

#[test]
fn a_flip_in_a_letters_frame_lets_no_payload_pose_as_a_frame() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    journal.register_sink("main").unwrap();
    wait_for(&journal, submit_rows(&journal, 0, 5, "a").unwrap());
    let end = commit(&journal, &[letter(&forged(1..50))]);
    journal.close();
    let name = SegmentId(1).file_name();
    let mut bytes = storage.files().remove(&name).unwrap();
    let at = bytes.windows(7).position(|window| window == b"no JSON").unwrap();
    bytes[at] ^= 1;
    storage.put(&name, bytes);
    let (journal, report) = open(&storage);
    assert_eq!(journal.with_state(|state| state.cursor("main")), Some(Offset(0)));
    assert_eq!((report.end, report.rows_lost), (end, 1), "the letter");
}

#[test]
fn a_lost_first_block_costs_no_more_than_its_frames() {
    for back in [0, 1] {
        let storage = MemoryStorage::new();
        for life in 0..3 {
            let (journal, _) = open_small(&storage);
            commit_rows(&journal, life * 8..(life + 1) * 8, &"x".repeat(100));
            journal.close();
        }
        let hit = survey_small(&storage).files.candidates.iter().rev().nth(back).unwrap().segment.id;
        let mut bytes = storage.files().remove(&hit.file_name()).unwrap();
        let rows_in = |bytes: &[u8]| -> u64 {
            let parse = |at: usize| FrameHeader::parse(&bytes[at..], hit, SMALL_JOURNAL);
            (0..bytes.len()).filter_map(parse).map(|(header, _)| u64::from(header.count)).sum()
        };
        let all = rows_in(&bytes);
        bytes[..1536].fill(0);
        let lost = all - rows_in(&bytes);
        assert!(lost > 0 && lost < all, "{lost} of {all}");
        storage.put(&hit.file_name(), bytes);
        let (journal, _) = open_small(&storage);
        let (rows, damaged) = read_all(&journal, Offset(0));
        assert_eq!(rows.len() as u64, 24 - lost, "{back} before the newest");
        assert_eq!(damaged.iter().map(|(from, to)| to.0 - from.0).sum::<u64>(), lost);
        assert!(storage.files().contains_key(&hit.file_name()), "what holds intact rows stays");
    }
}

#[test]
fn a_refused_read_costs_the_block_and_not_the_start() {
    let storage = MemoryStorage::new();
    for life in 0..3 {
        let (journal, _) = open_small(&storage);
        commit_rows(&journal, life * 12..(life + 1) * 12, &"x".repeat(100));
        journal.close();
    }
    for n in 0..60 {
        let copy = storage.fork();
        let read = copy.calls_of(CallKind::Read) + n;
        copy.plan(Fault::once(CallKind::Read, read, io::ErrorKind::Other));
        let opened = Shared::open(Arc::new(copy), &OPTIONS, SMALL, JournalId(3));
        let (shared, ..) = opened.unwrap_or_else(|error| panic!("read {n}: {error}"));
        assert_eq!(shared.intake().state.learned(), 36, "read {n}");
    }
}

#[test]
fn a_medium_that_refuses_every_read_is_named() {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit_rows(&journal, 0..12, "a");
    journal.close();
    let copy = storage.fork();
    copy.plan(Fault::for_ever(CallKind::Read, copy.calls_of(CallKind::Read), io::ErrorKind::Other));
    let refused = Shared::open(Arc::new(copy), &OPTIONS, SMALL, JournalId(3)).map(drop);
    assert!(matches!(refused, Err(OpenError::Unreadable { .. })));
}

#[test]
fn a_start_on_a_full_disk_keeps_what_is_in_reserve() {
    let storage = MemoryStorage::with_capacity(256 << 20);
    let options = Options { when_full: WhenFull::DropOldest, ..Options::sized(4 << 20) };
    let reopen = || Journal::open(Arc::new(storage.clone()), &options).unwrap().0;
    let journal = reopen();
    journal.register_sink("main").unwrap();
    let mut end = Offset(0);
    for n in 0..1000 {
        end = submit_rows(&journal, n, 1, &"x".repeat(1_000)).unwrap();
        wait_for(&journal, end);
    }
    while journal.shared.intake().spares() < 2 {
        end = submit_rows(&journal, end.0, 1, &"x".repeat(1_000)).unwrap();
        wait_for(&journal, end);
    }
    let free = storage.space().unwrap().free_bytes;
    storage.put("others", vec![0; free as usize]);
    journal.close();
    drop(journal);
    let journal = reopen();
    assert_eq!(journal.shared.intake().spares(), 2);
    let counts = [("e6614104".into(), 1)];
    let cursor = CursorEntry { sink: "main", next: end, confirmed: Counts::of(&counts) };
    commit(&journal, &[Entry::Cursor(cursor)]);
}

#[test]
fn a_failed_creation_costs_neither_room_nor_the_file_before() {
    let storage = MemoryStorage::new();
    let (shared, mut committer, _) =
        Shared::open(Arc::new(storage.clone()), &OPTIONS, SMALL, JournalId(3)).unwrap();
    let open_next = || {
        let next = |_: &State, submission: &mut Submission<'_>| {
            (0..3).try_for_each(|n| add_row(submission, n, &"x".repeat(700)))
        };
        shared.submit(Class::Internal, next).map(drop)
    };
    open_next().unwrap();
    committer.commit().unwrap();
    let healthy = committer.active.as_ref().unwrap().segment.id;
    while shared.intake().unopened == 0 {
        open_next().unwrap();
    }
    let created = storage.calls_of(CallKind::Create);
    storage.plan(Fault::once(CallKind::Create, created, io::ErrorKind::Other));
    committer.commit().unwrap();
    assert_eq!(shared.intake().live_bytes, shared.segments().bytes());
    assert!(shared.segments().get_mut(healthy).unwrap().sound);
    assert_eq!(shared.intake().commits.rewrites, 0);
}

#[test]
fn accounts_stay_whose_they_were_when_the_limit_grows() {
    let storage = MemoryStorage::new();
    let row = |journal: &Journal, device: &str| {
        let submit = || {
            journal.submit(Class::Foreign, |state, submission| {
                let device = state.account(device, &mut NewAccounts::default());
                let (boot, sequence, stamped, series, ns) = (0, state.next_number(device), true, "m", 1);
                let fields = Fields::of(&[]);
                submission.add(&Entry::Row(RowEntry {
                    device,
                    boot,
                    sequence,
                    stamped,
                    series,
                    ns,
                    fields,
                }))?;
                Ok::<_, Refused>(Box::from(device))
            })
        };
        let (account, receipt) = loop {
            match submit() {
                // A segment is being prepared.
                Err(Refused::Busy) => thread::yield_now(),
                submitted => break submitted.unwrap(),
            }
        };
        wait_for(journal, receipt);
        account
    };
    let (journal, _) = open(&storage);
    journal.register_sink("main").unwrap();
    let mut counts: BTreeMap<Box<str>, u64> = BTreeMap::new();
    for n in 0..300 {
        *counts.entry(row(&journal, &format!("device {n}"))).or_default() += 1;
    }
    assert!(counts[OTHERS] > 10 && counts.len() > 10);
    journal.close();
    let larger = Options::sized(64 << 20);
    let (journal, _) = Journal::open(Arc::new(storage.clone()), &larger).unwrap();
    let next = journal.usage().end;
    let counts: Vec<_> = counts.into_iter().collect();
    commit(&journal, &[Entry::Cursor(CursorEntry { sink: "main", next, confirmed: Counts::of(&counts) })]);
    journal.with_state(|state| {
        let even =
            |device: &state::DeviceState| state.ledgers(device).all(|(_, l)| l.settled() == device.rows);
        assert!(state.devices().iter().all(even));
        assert_eq!(state.owed("main"), 0);
    });
}

#[test]
fn a_letter_that_the_medium_lost_is_no_dead_letter() {
    let mut state = State::new(JournalId(1), 10_000);
    for (offset, device) in ["a", "b", "a"].into_iter().enumerate() {
        let letter =
            LetterEntry { device, rows: 2, ns: 1, origin: "t", reason: "no JSON", body_bytes: 1, body: b"{" };
        state.apply(Offset(offset as u64), &Entry::Letter(letter));
    }
    let mut letters = |to, unkept, rows: &[(Box<str>, u64)]| {
        let letters = LettersEntry { to: Offset(to), unkept, rows: Counts::of(rows) };
        state.apply(Offset(10), &Entry::Letters(letters));
        let count = |device: &str, cause| {
            let device = state.device(device).unwrap();
            (device.letters, device.gaps.of(cause))
        };
        [count("a", Cause::Damaged), count("b", Cause::Unkept)]
    };
    assert_eq!(letters(1, false, &[("a".into(), 2)]), [(4, 0), (2, 0)]);
    assert_eq!(letters(2, true, &[("b".into(), 2)]), [(4, 0), (0, 2)]);
    assert_eq!(letters(3, false, &[]), [(2, 2), (0, 2)], "the last one was never seen");
    assert_eq!(state.oldest_letter(), None);
}

#[test]
fn short_lives_do_not_fill_a_journal() {
    let mut storage = MemoryStorage::new();
    for life in 0..200 {
        let (journal, report) = open(&storage);
        assert_eq!(report.end, Offset(life));
        wait_for(&journal, submit_rows(&journal, life, 1, "x").unwrap());
        // Every other one is killed.
        if life % 2 == 0 {
            storage = storage.after_kill();
        }
    }
    let (journal, _) = open(&storage);
    assert_eq!(sequences(&journal), (0..200).collect::<Vec<_>>());
    assert_eq!(journal.shared.segments().iter().count(), 1);
}

#[test]
fn asking_without_pause_keeps_nobody_from_making_room() {
    let medium_bytes = 20 * SMALL.segment_bytes;
    let options = Options { when_full: WhenFull::Refuse, ..OPTIONS };
    let storage = MemoryStorage::with_capacity(medium_bytes);
    let (journal, _) = open_as(&storage, SMALL, &options);
    let taken: u64 = storage.files().values().map(|bytes| bytes.len() as u64).sum();
    storage.put("somebody.else", vec![1; (medium_bytes - taken) as usize]);
    let mut rows = 0;
    let refused = loop {
        match try_submit_rows(&journal, rows, 1, &"x".repeat(400)) {
            Ok(receipt) => {
                wait_for(&journal, receipt);
                rows += 1;
            }
            Err(Refused::Busy) => thread::yield_now(),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Full);
    journal.close();
    // The next start finds no room either.
    let (journal, _) = open_as(&storage, SMALL, &options);
    assert_eq!(try_submit_rows(&journal, rows, 1, &"x".repeat(400)), Err(Refused::Full));
    storage.remove("somebody.else").unwrap();
    let asked = Instant::now();
    while let Err(refused) = try_submit_rows(&journal, rows, 1, &"x".repeat(400)) {
        assert!(asked.elapsed() < Duration::from_secs(60), "{refused}");
        thread::yield_now();
    }
}

/// Submits rows until no further one is taken; returns the next sequence.
fn fill(journal: &Journal, mut next: u64) -> u64 {
    for (rows, text) in [(10, "x".repeat(1_000)), (1, "x".repeat(1_000)), (1, "x".to_owned())] {
        while let Ok(receipt) = submit_rows(journal, next, rows, &text) {
            wait_for(journal, receipt);
            next += rows;
        }
    }
    next
}

fn confirm_all(journal: &Journal, sink: &str) {
    let (next, owed) = (journal.usage().end, journal.with_state(|state| state.owed(sink)));
    let confirmed = [("e6614104".into(), owed)];
    commit(journal, &[Entry::Cursor(CursorEntry { sink, next, confirmed: Counts::of(&confirmed) })]);
}

fn await_room(journal: &Journal, next: u64) {
    let asked = Instant::now();
    while let Err(refused) = try_submit_rows(journal, next, 1, "x") {
        assert!(asked.elapsed() < Duration::from_secs(60), "{refused}: {:?}", journal.usage());
        thread::yield_now();
    }
}

#[test]
fn what_was_done_with_before_a_kill_makes_room_at_the_start() {
    for when_full in [WhenFull::Refuse, WhenFull::DropOldest, WhenFull::Auto] {
        let storage = MemoryStorage::new();
        let options = Options { when_full, ..OPTIONS };
        let reopen = |storage: &MemoryStorage| Journal::open(Arc::new(storage.clone()), &options).unwrap().0;
        let journal = reopen(&storage);
        journal.register_sink("good").unwrap();
        journal.register_sink("dead").unwrap();
        let next = fill(&journal, 0);
        confirm_all(&journal, "good");
        drop(journal);
        let journal = reopen(&storage);
        journal.forget_sink("dead").unwrap();
        drop(journal);
        await_room(&reopen(&storage.after_kill()), next);
    }
}

#[test]
fn a_much_smaller_limit_is_come_down_to() {
    for (before, after) in [(256 << 20, 2 << 20), (1 << 30, 16 << 20)] {
        let storage = MemoryStorage::new();
        let high = Options { max_bytes: before, when_full: WhenFull::Refuse, ..OPTIONS };
        let (journal, _) = Journal::open(Arc::new(storage.clone()), &high).unwrap();
        journal.register_sink("main").unwrap();
        let mut next = 0;
        while journal.shared.segments().iter().count() < 3 {
            wait_for(&journal, submit_rows(&journal, next, 500, &"x".repeat(1_000)).unwrap());
            next += 500;
        }
        confirm_all(&journal, "main");
        drop(journal);
        let low = Options { max_bytes: after, ..high };
        let (journal, _) = Journal::open(Arc::new(storage.clone()), &low).unwrap();
        while storage.files().values().map(|bytes| bytes.len() as u64).sum::<u64>() > after {
            await_room(&journal, next);
            next += 1;
            let taken = try_submit_rows(&journal, next, 20, &"x".repeat(1_000));
            next += 20 * u64::from(taken.is_ok());
            confirm_all(&journal, "main");
        }
        await_room(&journal, next);
    }
}

/// A medium that refuses a part of one file.
struct Refusing {
    inner: MemoryStorage,
    file: String,
    refused: std::ops::Range<u64>,
}

struct RefusingFile {
    inner: Arc<dyn StorageFile>,
    refused: std::ops::Range<u64>,
}

impl Storage for Refusing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let inner = self.inner.open(name)?;
        let refused = if name == self.file { self.refused.clone() } else { 0..0 };
        Ok(Arc::new(RefusingFile { inner, refused }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }

    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

impl StorageFile for RefusingFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if at < self.refused.end && at + buffer.len() as u64 > self.refused.start {
            return Err(io::ErrorKind::Other.into());
        }
        self.inner.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.inner.write_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn settle(&self) -> io::Result<()> {
        self.inner.settle()
    }
}

#[test]
fn a_refused_part_of_a_file_costs_what_zeros_would() {
    let storage = MemoryStorage::new();
    let options = Options { max_bytes: 64 << 20, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), &options).unwrap();
    journal.register_sink("main").unwrap();
    for n in 0..600 {
        wait_for(&journal, submit_rows(&journal, n * 5, 5, &"x".repeat(1_000)).unwrap());
    }
    journal.close();
    drop(journal);
    let file = SegmentId(1).file_name();
    let page = |page: u64| page * 4096..(page + 1) * 4096;
    for refused in [page(0), page(2), page(9), page(30), 1 << 20..(1 << 20) + (256 << 10), 0..128 << 10] {
        let zeroed = storage.fork();
        let mut bytes = zeroed.files().remove(&file).unwrap();
        bytes[refused.start as usize..refused.end as usize].fill(0);
        zeroed.put(&file, bytes);
        let medium = Refusing { inner: storage.fork(), file: file.clone(), refused: refused.clone() };
        let found = [Arc::new(zeroed) as Arc<dyn Storage>, Arc::new(medium)].map(|storage| {
            let (journal, report) = Journal::open(storage, &options).unwrap();
            let rows = journal.with_state(|state| state.device("e6614104").map(|device| device.rows));
            (read_all(&journal, Offset(0)), rows, report.rows_lost, report.damaged)
        });
        assert!(found[0] == found[1], "{refused:?}: {:?} and {:?} are damaged", found[0].3, found[1].3);
        assert!(found[0].2 > 0 || refused.start == 0);
    }
}
