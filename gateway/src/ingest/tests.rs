mod early;

use std::sync::Arc;

use forebay_shared::ids::{Boot, ChipId, LongSeq, SchemaId, Seq, Tick};
use forebay_shared::message::{Hello, ResetCause};

use super::*;
use crate::clock::{Belief, Moment};
use crate::config::Device;
use crate::journal::memory::MemoryStorage;
use crate::journal::{Options, Read};
use crate::record::{MachineBoot, Value};

const CHIP: [u8; 4] = [0xe6, 0x61, 0x41, 0x04];

struct Bench {
    ingest: Ingest,
    stats: Arc<Stats>,
}

fn bench() -> Bench {
    let options = Options::sized(4 << 20);
    let (journal, _) = Journal::open(Arc::new(MemoryStorage::new()), &options).unwrap();
    let stats = Stats::new(0);
    Bench { ingest: Ingest::new(journal, Naming::default(), Arc::clone(&stats), told()), stats }
}

/// A clock that is believed without further ado, and reads what the steady one does.
fn told() -> OwnClock {
    let moment = Box::new(|ns| Moment { ns, steady_ns: ns });
    OwnClock { machine: MachineBoot(1), belief: Box::new(|| Belief::Told), moment }
}

impl Bench {
    fn gaps(&self, device: &str, cause: Cause) -> u64 {
        self.ingest.journal.with_state(|state| state.device(device).map_or(0, |device| device.gaps.of(cause)))
    }

    fn letters(&self, device: &str) -> u64 {
        self.ingest.journal.with_state(|state| state.device(device).map_or(0, |device| device.letters))
    }

    fn rows(&self, device: &str) -> u64 {
        self.ingest.journal.with_state(|state| state.device(device).map_or(0, |device| device.rows))
    }
}

fn hello(boot: Option<Boot>, oldest: u32, next: u32) -> Hello {
    Hello {
        chip: ChipId::new(&CHIP).unwrap(),
        name: "boiler".try_into().unwrap(),
        boot,
        version_min: 1,
        version_max: 1,
        schema: SchemaId(7),
        oldest: Seq(oldest),
        next: Seq(next),
        tick_hz: 1_000,
        tick_now: Tick(0),
        reset_cause: ResetCause::UNKNOWN,
        resumed_at: None,
    }
}

fn native_rows(count: usize) -> Vec<NativeRow> {
    let row = |at| NativeRow::Sample { group: 0, ns: at, fields: vec![("t".to_owned(), Value::Float(1.0))] };
    (0..i64::try_from(count).unwrap()).map(row).collect()
}

fn series() -> Vec<SeriesKey> {
    vec![SeriesKey::new("climate", &mut vec![("device", "boiler")]).unwrap()]
}

fn foreign(timestamps: &[Option<i64>], refused: u64) -> Parsed {
    let row = |timestamp: &Option<i64>| Row {
        device: "pump".to_owned(),
        series: series().remove(0),
        fields: vec![("t".to_owned(), Value::Float(1.0))],
        timestamp: *timestamp,
        offset_ns: 0,
    };
    let refusal = Refusal { device: "pump".to_owned(), rows: refused, reason: "no reason".to_owned() };
    Parsed { rows: timestamps.iter().map(row).collect(), refused: (refused > 0).then_some(refusal) }
}

#[test]
fn rows_without_a_time_get_one_each_and_others_keep_theirs() {
    let bench = bench();
    let now = 1_000_000;
    for _ in 0..2 {
        bench.ingest.foreign(&foreign(&[None, Some(5), None], 0), ORIGIN, came(now)).unwrap();
    }
    assert_eq!(bench.ingest.journal.with_state(State::last_stamp), now + 3);
    assert_eq!(bench.rows("pump"), 6);
}

/// The times of all rows in the journal.
fn times(ingest: &Ingest) -> Vec<i64> {
    let mut reader = ingest.journal.reader(Offset(0));
    let mut times = Vec::new();
    while let Ok(Read::Frame(frame)) = reader.next() {
        times.extend(frame.entries().filter_map(|(_, entry)| match entry {
            Ok(Entry::Row(row)) => Some(row.ns),
            _ => None,
        }));
    }
    times
}

fn beside(offsets: &[i64]) -> Parsed {
    let mut parsed = foreign(&vec![None; offsets.len()], 0);
    for (row, offset_ns) in parsed.rows.iter_mut().zip(offsets) {
        row.offset_ns = *offset_ns;
    }
    parsed
}

#[test]
fn rows_beside_their_receipt_lie_as_far_from_it_as_they_say_and_are_nobody_elses() {
    let bench = bench();
    let now = 1_000_000;
    for offsets in [&[-500, -400, 0][..], &[-500, -400], &[-500], &[0], &[-500, -7], &[1_000]] {
        bench.ingest.foreign(&beside(offsets), ORIGIN, came(now)).unwrap();
    }
    bench.ingest.journal.close();
    let expected = [
        vec![now - 500, now - 400, now + 1],
        vec![now + 2 - 500, now + 2 - 400],
        vec![now + 3 - 500],
        vec![now + 2],
        vec![now + 4 - 500, now + 4 - 7],
        vec![now + 3],
    ];
    let times = times(&bench.ingest);
    assert_eq!(times, expected.concat());
    assert_eq!(times.iter().collect::<std::collections::BTreeSet<_>>().len(), times.len());
    assert_eq!(
        bench.ingest.journal.with_state(State::last_stamp),
        now + 3,
        "no row beside it moves the clock"
    );
}

#[test]
fn of_a_message_sent_again_only_what_is_new_is_taken_even_after_a_restart() {
    let storage = Arc::new(MemoryStorage::new());
    let open = || {
        let options = Options::sized(4 << 20);
        let (journal, _) = Journal::open(Arc::<MemoryStorage>::clone(&storage), &options).unwrap();
        Ingest::new(journal, Naming::default(), Stats::new(0), told())
    };
    let ingest = open();
    assert_eq!(ingest.foreign(&foreign(&[Some(5), None], 0), ORIGIN, came(0)).unwrap().rows, 2);
    assert_eq!(
        ingest.foreign(&foreign(&[Some(5)], 0), ORIGIN, came(0)).unwrap().rows,
        1,
        "not marked, so it is taken"
    );
    assert_eq!(ingest.foreign(&foreign(&[Some(5), Some(6)], 0), ORIGIN, came_again(0)).unwrap().rows, 1);
    ingest.journal.close();
    drop(ingest);
    let ingest = open();
    let again = foreign(&[Some(5), Some(6), Some(7), None], 0);
    assert_eq!(
        ingest.foreign(&again, ORIGIN, came_again(0)).unwrap().rows,
        2,
        "a row without a time has no second chance to be known"
    );
}

fn came(received_ns: i64) -> Arrival {
    Arrival { received_ns, again: false, message: None }
}

fn came_again(received_ns: i64) -> Arrival {
    Arrival { again: true, ..came(received_ns) }
}

const ORIGIN: Origin<'_> = Origin::whole("sensors/pump", b"{ no JSON");

#[test]
fn rows_that_share_a_point_are_counted_in_the_journal_also_after_a_restart() {
    let storage = Arc::new(MemoryStorage::new());
    let options = Options::sized(4 << 20);
    let life = || {
        let (journal, _) = Journal::open(Arc::<MemoryStorage>::clone(&storage), &options).unwrap();
        Ingest::new(journal, Naming::default(), Stats::new(0), told())
    };
    let shared = |ingest: &Ingest| {
        let shared = |state: &State| state.devices().iter().map(|device| device.shared).collect::<Vec<_>>();
        ingest.journal.with_state(shared)
    };
    let take = |ingest: &Ingest, times: &[Option<i64>]| {
        ingest.foreign(&foreign(times, 0), Origin::whole("t", b""), came(50)).unwrap();
    };
    let ingest = life();
    take(&ingest, &[Some(7), None, Some(8), Some(9), None]);
    assert_eq!(shared(&ingest), [None], "rows without a time of their own have one each");
    take(&ingest, &[Some(8), Some(10), Some(10), Some(6)]);
    let known = |again, latest_ns| [Some(crate::journal::state::Shared { again, unsure: 0, latest_ns })];
    assert_eq!(shared(&ingest), known(2, 10), "one of an earlier message, one of the same");
    ingest.journal.close();
    drop(ingest);
    let ingest = life();
    take(&ingest, &[Some(7), Some(11)]);
    assert_eq!(shared(&ingest), known(3, 11));
    let refused = ingest.foreign(&foreign(&vec![Some(99); 40_000], 0), Origin::whole("t", b""), came(50));
    assert!(refused.is_err(), "it is too large");
    take(&ingest, &[Some(99)]);
    assert_eq!(shared(&ingest), known(3, 99), "what was refused is not remembered");
}

#[test]
fn what_cannot_be_read_is_a_durable_letter_beside_its_neighbours() {
    let bench = bench();
    let taken = bench.ingest.foreign(&foreign(&[None], 3), ORIGIN, came(10)).unwrap();
    assert_eq!((taken.rows, bench.rows("pump"), bench.letters("pump")), (1, 1, 3));
    bench.ingest.foreign(&foreign(&[], 1), ORIGIN, came(10)).unwrap();
    assert_eq!(bench.letters("pump"), 4);
    assert_eq!(bench.ingest.journal.with_state(State::last_stamp), 10, "a letter takes no time from a row");
}

#[test]
fn a_message_too_large_is_refused_as_such() {
    let bench = bench();
    let mut parsed = foreign(&[None], 0);
    parsed.rows[0].fields = vec![("text".to_owned(), Value::Text("x".repeat(64 << 10)))];
    assert!(matches!(bench.ingest.foreign(&parsed, ORIGIN, came(0)), Err(Refused::TooLarge { .. })));
    let refused = parsed.refuse_all("too large".to_owned());
    bench.ingest.foreign(&refused, ORIGIN, came(0)).unwrap();
    assert_eq!((bench.rows("pump"), bench.letters("pump")), (0, 1));
}

#[test]
fn two_connections_of_a_device_journal_each_row_once() {
    let bench = bench();
    let first = bench.ingest.admit(&hello(None, 0, 0), 0).unwrap();
    let series = series();
    let take = |admission: &Admission, from, count| {
        bench.ingest.native_rows(admission, &series, LongSeq(from), &native_rows(count), 0)
    };
    assert_eq!(take(&first, 0, 4).unwrap().rows, 4);
    let second = bench.ingest.admit(&hello(Some(first.boot), 0, 8), 0).unwrap();
    assert_eq!((second.boot, second.next, second.last_ns), (first.boot, LongSeq(4), 3));
    assert_eq!(take(&second, 2, 4).unwrap().rows, 2, "two of them are known");
    assert_eq!(take(&first, 4, 2).unwrap().rows, 0);
    assert!(matches!(take(&second, 7, 1), Err(NativeError::OutOfStep { expected: 6, got: 7 })));
    assert_eq!(bench.rows("e6614104"), 6);
}

#[test]
fn a_device_that_lost_its_memory_leaves_an_open_gap() {
    let bench = bench();
    let first = bench.ingest.admit(&hello(None, 0, 0), 0).unwrap();
    bench.ingest.native_rows(&first, &series(), LongSeq(0), &native_rows(4), 0).unwrap();
    bench.stats.learn("e6614104", first.boot.get(), 9);
    let second = bench.ingest.admit(&hello(None, 0, 0), 0).unwrap();
    assert_ne!(second.boot, first.boot);
    assert_eq!(bench.gaps("e6614104", Cause::DeviceReset), 5);
    bench.ingest.admit(&hello(None, 0, 0), 0).unwrap();
    assert_eq!(bench.gaps("e6614104", Cause::DeviceReset), 5, "of the second boot nothing was told");
}

#[test]
fn a_boot_of_another_gateway_is_adopted_where_the_device_stands() {
    let bench = bench();
    let boot = Boot::new(77).unwrap();
    let admission = bench.ingest.admit(&hello(Some(boot), 5_000, 5_010), 0).unwrap();
    assert_eq!((admission.boot, admission.next), (boot, LongSeq(5_000)));
}

#[test]
fn a_gap_claims_only_what_is_not_there() {
    let bench = bench();
    let admission = bench.ingest.admit(&hello(None, 0, 0), 0).unwrap();
    bench.ingest.native_rows(&admission, &series(), LongSeq(0), &native_rows(4), 0).unwrap();
    let lose = |from, to| {
        bench.ingest.native_gap(&admission, LongSeq(from), LongSeq(to), Cause::Overflow, 0).unwrap();
        bench.gaps("e6614104", Cause::Overflow)
    };
    assert_eq!(lose(2, 7), 3);
    assert_eq!(lose(2, 7), 3);
    assert_eq!(lose(2, 9), 5);
}

#[test]
fn a_second_chip_of_a_name_is_told_apart_unless_it_is_configured() {
    let mut bench = bench();
    assert_eq!(bench.ingest.admit(&hello(None, 0, 0), 0).unwrap().name, "boiler");
    let mut other = hello(None, 0, 0);
    other.chip = ChipId::new(&[0xab; 6]).unwrap();
    assert_eq!(bench.ingest.admit(&other, 0).unwrap().name, "boiler-abab");
    let device = Device { name: Some("pump".to_owned()), ..Device::default() };
    bench.ingest.naming = Naming::of(&[("abababababab", device)]);
    let admission = bench.ingest.admit(&other, 0).unwrap();
    assert_eq!(admission.name, "pump");
    let series = bench.ingest.native_series(&admission, "climate").unwrap();
    assert_eq!(series.as_str(), "climate,device=pump");
}
