//! Rows by boot: random lives against a model, and the bytes that keep what they amount to.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::entry::{
    Cause, Counts, CursorEntry, DeviceEntry, GapEntry, LetterEntry, Move, MovedEntry, SinkEntry,
};
use super::format::{Kept, hex};
use super::segment::{HeaderRead, SegmentHeader};
use super::small::{commit, open_small};
use super::state::BOOTS_MAX;
use super::*;
use crate::stats::{Boots, Ledger, Told};

const KEPT: Kept = Kept("journal-v1-boots");
const DEVICE: &str = "e6614104";
const SINKS: [&str; 3] = ["main", "sqlite", "late"];

/// What happens in a life; of a sink, by number, to so many rows.
#[derive(Clone, Copy, Debug)]
enum Act {
    Boot,
    Rows(u64),
    Overflow(u64),
    Letter,
    Confirm(usize, u64),
    Refuse(usize, u64),
    Evict(usize, u64),
    /// A gap that tells of no boot.
    EvictAny(usize, u64),
    LeaveOut(usize, u64),
    Replay(usize, u64),
    /// As a sink that begins now, or at the oldest.
    Register(usize, bool),
    Forget(usize),
    /// The state is written down, and read again.
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let of =
        |make: fn(usize, u64) -> Act| (0..SINKS.len(), 1..9_u64).prop_map(move |(sink, n)| make(sink, n));
    let act = prop_oneof![
        2 => Just(Act::Boot),
        6 => (1..9_u64).prop_map(Act::Rows),
        1 => (1..9_u64).prop_map(Act::Overflow),
        1 => Just(Act::Letter),
        6 => of(Act::Confirm),
        1 => of(Act::Refuse),
        1 => of(Act::Evict),
        1 => of(Act::EvictAny),
        1 => of(Act::LeaveOut),
        1 => of(Act::Replay),
        1 => (0..SINKS.len(), any::<bool>()).prop_map(|(sink, now)| Act::Register(sink, now)),
        1 => (0..SINKS.len()).prop_map(Act::Forget),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 0..80)
}

/// A device in a state, and what the state should say of it.
struct Life {
    state: State,
    entries: u64,
    boot: u32,
    /// The boot of each row.
    rows: VecDeque<u32>,
    /// The boots of the rows that each sink is still to get, oldest first.
    waiting: BTreeMap<&'static str, VecDeque<u32>>,
}

impl Life {
    fn new() -> Life {
        let state = State::new(JournalId(1), 1 << 20);
        let mut life = Life { state, entries: 0, boot: 0, rows: VecDeque::new(), waiting: BTreeMap::new() };
        life.live(&[Act::Register(0, false), Act::Register(1, false), Act::Boot]);
        life
    }

    fn live(&mut self, acts: &[Act]) {
        acts.iter().for_each(|act| self.act(*act));
    }

    fn apply(&mut self, entry: &Entry<'_>) {
        self.state.apply(Offset(self.entries), entry);
        self.entries += 1;
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Boot => {
                self.boot += 1;
                let (device, name, boot) = (DEVICE, "boiler", self.boot);
                self.apply(&Entry::Device(DeviceEntry { device, name, boot, first: 0 }));
            }
            Act::Rows(rows) => (0..rows).for_each(|_| self.row()),
            Act::Overflow(rows) => self.gap(self.boot, Cause::Overflow, rows, None),
            Act::Letter => {
                let (device, rows, ns, origin, reason) = (DEVICE, 1, 0, "t", "no JSON");
                let (body_bytes, body) = (1, &b"x"[..]);
                self.apply(&Entry::Letter(LetterEntry {
                    device,
                    rows,
                    ns,
                    origin,
                    reason,
                    body_bytes,
                    body,
                }));
            }
            Act::Confirm(sink, n) => {
                let rows = [(DEVICE.into(), self.take(sink, n).len() as u64)];
                let (sink, next, confirmed) = (SINKS[sink], Offset(0), Counts::of(&rows));
                self.apply(&Entry::Cursor(CursorEntry { sink, next, confirmed }));
            }
            Act::Refuse(sink, n) => self.lose(sink, n, Cause::Rejected),
            Act::Evict(sink, n) => self.lose(sink, n, Cause::Evicted),
            Act::EvictAny(sink, n) => {
                let rows = self.take(sink, n).len() as u64;
                self.gap(0, Cause::Evicted, rows, Some(SINKS[sink]));
            }
            Act::LeaveOut(sink, n) => {
                let rows = self.take(sink, n).len() as u64;
                self.count_anew(sink, Move::Unwanted, rows);
            }
            Act::Replay(sink, n) => self.count_anew(sink, Move::Replayed, n),
            Act::Register(sink, now) => self.register(SINKS[sink], now),
            Act::Forget(sink) => {
                self.waiting.remove(SINKS[sink]);
                self.apply(&Entry::Forget(SINKS[sink]));
            }
            Act::Restart => {
                let bytes = self.state.to_bytes().unwrap();
                let read = State::from_bytes(&bytes, 1 << 20).expect("a snapshot");
                assert_eq!(read, self.state);
                self.state = read;
            }
        }
    }

    fn row(&mut self) {
        let sequence = self.state.expected(DEVICE, self.boot).unwrap();
        let (device, boot, stamped, series, ns, fields) = (DEVICE, self.boot, false, "m", 0, Fields::of(&[]));
        self.apply(&Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields }));
        self.rows.push_back(boot);
        self.waiting.values_mut().for_each(|waiting| waiting.push_back(boot));
    }

    fn gap(&mut self, boot: u32, cause: Cause, count: u64, sink: Option<&str>) {
        let next = self.state.expected(DEVICE, boot).unwrap_or(0);
        let (from, to) = if sink.is_none() { (next, next + count) } else { (0, count) };
        let (device, stamped, series, ns) = (DEVICE, false, "g", 0);
        self.apply(&Entry::Gap(GapEntry { device, boot, from, to, count, cause, sink, stamped, series, ns }));
    }

    /// The boots of up to so many rows that a sink gets no more.
    fn take(&mut self, sink: usize, n: u64) -> Vec<u32> {
        let Some(waiting) = self.waiting.get_mut(SINKS[sink]) else { return Vec::new() };
        let n = waiting.len().min(n as usize);
        waiting.drain(..n).collect()
    }

    fn lose(&mut self, sink: usize, n: u64, cause: Cause) {
        for boot in self.take(sink, n) {
            self.gap(boot, cause, 1, Some(SINKS[sink]));
        }
    }

    fn count_anew(&mut self, sink: usize, what: Move, rows: u64) {
        let rows = [(DEVICE.into(), rows)];
        self.apply(&Entry::Moved(MovedEntry { sink: SINKS[sink], what, rows: Counts::of(&rows) }));
    }

    /// A sink that does not begin now owes what the slowest does.
    fn register(&mut self, sink: &'static str, now: bool) {
        if self.waiting.contains_key(sink) {
            return;
        }
        let slowest = self.state.sinks().iter().min_by_key(|known| known.cursor);
        let of_slowest = slowest.and_then(|known| self.waiting.get(&*known.name));
        let waiting = if now { VecDeque::new() } else { of_slowest.unwrap_or(&self.rows).clone() };
        let start = Offset(if now { self.entries + 1 } else { 0 });
        self.apply(&Entry::Sink(SinkEntry { sink, start }));
        self.waiting.insert(sink, waiting);
    }

    fn check(&self, in_flight: u64, to_come: u64) {
        let device = self.state.device(DEVICE).unwrap();
        let next = self.state.expected(DEVICE, self.boot).unwrap() + to_come;
        let told = Some(Told { boot: self.boot, next });
        let boots = Boots::of(&self.state, device, told, |_| in_flight);
        let known: Vec<u32> = boots.boots.iter().map(|boot| boot.boot).collect();
        let oldest = (self.boot + 1).saturating_sub(BOOTS_MAX as u32).max(1);
        assert_eq!(known, (oldest..=self.boot).collect::<Vec<_>>());
        for (sink, account) in self.state.ledgers(device) {
            let mut sum = boots.earlier[sink].clone();
            boots.boots.iter().for_each(|boot| sum.add(&boot.sinks[sink]));
            assert_eq!(sum, Ledger::of(device, account, told, in_flight), "{sink}");
            assert!(boots.earlier[sink].balances(), "{sink}");
            for boot in &boots.boots {
                let ledger = &boot.sinks[sink];
                let waiting = self.waiting[sink].iter().filter(|of| **of == boot.boot).count() as u64;
                assert_eq!((ledger.backlog(), ledger.balances()), (waiting, true), "{sink}, {boot:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn boots_and_what_was_before_add_up_to_the_device_in_each_sink(
        acts in acts(), in_flight in 0..20_u64, to_come in 0..3_u64,
    ) {
        let mut life = Life::new();
        life.check(in_flight, to_come);
        for act in acts {
            life.act(act);
            life.check(in_flight, to_come);
        }
    }
}

#[test]
fn what_boots_have_is_exact_where_nothing_is_left_out() {
    let mut life = Life::new();
    life.live(&[Act::Rows(5), Act::Overflow(2), Act::Boot, Act::Rows(4)]);
    life.live(&[Act::Confirm(0, 3), Act::Refuse(0, 1), Act::Confirm(0, 2), Act::Evict(1, 7)]);
    let boots = Boots::of(&life.state, life.state.device(DEVICE).unwrap(), None, |_| 2);
    let told = |boot: usize, sink: &str| {
        let Ledger { learned, confirmed, queued, unconfirmed, dead_lettered, .. } =
            boots.boots[boot].sinks[sink];
        (learned, confirmed, queued + unconfirmed, dead_lettered, boots.boots[boot].sinks[sink].lost())
    };
    assert_eq!((told(0, "main"), told(1, "main")), ((7, 4, 0, 1, 2), (4, 1, 3, 0, 0)));
    assert_eq!((told(0, "sqlite"), told(1, "sqlite")), ((7, 0, 0, 0, 7), (4, 0, 2, 0, 2)));
    assert_eq!(boots.earlier["main"], Ledger::default());
    assert_eq!(boots.boots[1].sinks["main"].unconfirmed, 2);
}

#[test]
fn a_gap_that_names_a_boot_is_of_that_boot_whoever_waits_for_longer() {
    let mut life = Life::new();
    life.live(&[Act::Rows(5), Act::Boot, Act::Rows(4)]);
    life.gap(2, Cause::Damaged, 3, Some("main"));
    life.gap(2, Cause::Damaged, 3, Some("main"));
    let boots = Boots::of(&life.state, life.state.device(DEVICE).unwrap(), None, |_| 0);
    let told = |boot: usize| {
        let ledger = &boots.boots[boot].sinks["main"];
        (ledger.backlog(), ledger.lost())
    };
    assert_eq!((told(0), told(1)), ((3, 2), (0, 4)), "and no boot loses more than it has");
}

#[test]
fn the_bytes_of_the_header_and_the_snapshot() {
    let (journal, segment) = (JournalId(1), SegmentId(2));
    let (first, void) = (Offset(3), Offset(3));
    let (early, shared, boots) = (false, false, true);
    let header = SegmentHeader { journal, segment, first, void, length: 4, early, shared, boots };
    assert_eq!(hex(&header.encode().0[..16]), "464f52454241594a0100000004000000");

    let mut life = Life::new();
    let plain = State::new(JournalId(1), 10_000).to_bytes().unwrap();
    life.live(&[Act::Rows(3), Act::Overflow(1), Act::Confirm(0, 2), Act::Refuse(1, 1)]);
    let bytes = life.state.to_bytes().unwrap();
    assert_eq!((plain[0], bytes[0]), (1, 4), "a state without any has the form that every version reads");
    // No clocks, no early and no shared rows; one device, the first of the list, with one boot.
    assert!(hex(&bytes).ends_with(BOOTS), "{}", hex(&bytes));
    assert_eq!(State::from_bytes(&bytes, 1 << 20), Some(life.state));
    assert_eq!(State::from_bytes(&bytes[..bytes.len() - 1], 1 << 20), None);
}

/// A list of one: place 0, and a list of one boot: 1, with 3 rows, gaps by cause, and two sinks: confirmed, skipped, gaps.
const BOOTS: &str = "0100010103010001020200000000010301";

/// A closed journal of a device with two boots, of which a sink has come into the second, in several segments.
fn two_boots() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (journal, _) = open_small(&storage);
    commit(&journal, &[Entry::Sink(SinkEntry { sink: "main", start: Offset(0) })]);
    let fields = [("v".to_owned(), Value::Text("x".repeat(200)))];
    for boot in [7, 8] {
        commit(&journal, &[Entry::Device(DeviceEntry { device: DEVICE, name: "boiler", boot, first: 0 })]);
        for sequence in 0..20 {
            let (device, stamped, series, ns) = (DEVICE, false, "m,device=boiler", sequence as i64);
            let fields = Fields::of(&fields);
            commit(&journal, &[Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields })]);
        }
    }
    let (from, to, count, cause, sink) = (20, 23, 3, Cause::Overflow, None);
    let (device, boot, stamped, series, ns) = (DEVICE, 8, false, "forebay_gap,device=boiler", 20);
    let gap = GapEntry { device, boot, from, to, count, cause, sink, stamped, series, ns };
    let confirmed = [(DEVICE.into(), 25)];
    let (next, confirmed) = (Offset(1), Counts::of(&confirmed));
    commit(&journal, &[Entry::Gap(gap), Entry::Cursor(CursorEntry { sink: "main", next, confirmed })]);
    for _ in 0..40 {
        commit(&journal, &[Entry::Forget(&"y".repeat(200))]);
    }
    journal.close();
    storage
}

/// Made the journal that is kept; see `format.rs`.
#[test]
#[ignore = "makes the fixture, which is kept; it refuses to replace one"]
fn make_the_journal_with_boots_that_is_kept() {
    KEPT.make(&two_boots());
}

#[test]
fn a_journal_with_boots_is_read_and_goes_on() {
    let storage = KEPT.read();
    let told = |journal: &Journal| {
        journal.with_state(|state| {
            let boots = Boots::of(state, state.device(DEVICE).unwrap(), None, |_| 0);
            let of = |ledger: &Ledger| (ledger.learned, ledger.confirmed, ledger.backlog(), ledger.lost());
            let of_boots = boots.boots.iter().map(|boot| (boot.boot, of(&boot.sinks["main"])));
            (of_boots.collect::<Vec<_>>(), of(&boots.earlier["main"]))
        })
    };
    let expected = (vec![(7, (20, 20, 0, 0)), (8, (23, 5, 15, 3))], (0, 0, 0, 0));
    let (journal, report) = open_small(&storage);
    assert_eq!((report.damaged, report.torn_tail, report.snapshot_lost), (vec![], false, false));
    assert!(features(&storage).iter().filter(|boots| **boots).count() >= 2, "{:?}", features(&storage));
    assert_eq!(told(&journal), expected);
    commit(&journal, &[Entry::Forget("nobody")]);
    journal.close();
    assert_eq!(told(&open_small(&storage).0), expected);
}

/// What the headers of all segments that have begun say of boots.
fn features(storage: &MemoryStorage) -> Vec<bool> {
    let boots = |name: &String| {
        let id = SegmentId::of_file_name(name)?;
        match SegmentHeader::read(&*storage.open(name).unwrap(), id).unwrap() {
            HeaderRead::Intact(header) => Some(header.boots),
            _ => None,
        }
    };
    storage.files().keys().filter_map(boots).collect()
}

#[test]
fn only_snapshots_that_count_boots_are_kept_from_older_gateways() {
    let storage = MemoryStorage::new();
    let (journal, _) = open(&storage);
    commit(&journal, &[Entry::Device(DeviceEntry { device: DEVICE, name: "boiler", boot: 7, first: 0 })]);
    let text = "x".repeat(10_000);
    for sequence in (0..30).step_by(5) {
        wait_for(&journal, submit_rows(&journal, sequence, 5, &text).unwrap());
    }
    let features = features(&storage);
    assert!(features.len() > 2 && !features[0] && features[1..].iter().all(|boots| *boots), "{features:?}");
    let before = journal.with_state(State::clone);
    journal.close();
    let (journal, report) = open(&storage);
    assert!(report.damaged.is_empty() && !report.snapshot_lost);
    assert!(before.device(DEVICE).is_some_and(|device| device.by_boot.len() == 1));
    assert_eq!(journal.with_state(State::clone), before);
}
