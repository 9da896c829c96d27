//! Real journals to be damaged, the same ones in every run.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::OnceLock;

use super::super::entry::{
    Cause, Counts, DeviceEntry, Entry, Fields, GapEntry, LetterEntry, LettersEntry, RowEntry, SkipEntry,
};
use super::super::memory::{CallKind, Fault, MemoryStorage};
use super::super::{JournalId, Refused, Submission};
use super::life::{Life, held};
use crate::record::{Offset, Value};

/// Names and contents of files.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Identity of all of these journals.
pub(super) const JOURNAL: JournalId = JournalId(0x0123_4567_89ab_cdef);

/// The journals: none; closed cleanly; killed; trimmed, with spares of an earlier life; rewritten after a failed sync;
/// of many short lives.
pub(super) fn samples() -> &'static [Files] {
    static SAMPLES: OnceLock<Vec<Files>> = OnceLock::new();
    SAMPLES.get_or_init(|| vec![Files::new(), closed(), killed(), trimmed(), rewritten(), lives()])
}

fn closed() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = Writer::open(&storage);
    writer.register("main");
    for n in 0..14 {
        writer.rows(1 + n % 5, 150);
    }
    writer.rows(9, 300);
    writer.finish();
    storage.files()
}

fn killed() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = Writer::open(&storage);
    writer.device(3);
    for n in 0..6 {
        writer.rows(n, 90);
        writer.gap(Cause::Overflow, None);
    }
    drop(writer);
    storage.files()
}

fn trimmed() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = Writer::open(&storage);
    writer.register("main");
    writer.register("sqlite");
    for n in 0..30 {
        let end = writer.rows(4, 200);
        writer.letter();
        if n % 4 == 3 {
            writer.cursor("main", end);
            writer.gap(Cause::Rejected, Some("main"));
        }
        if n % 8 == 7 {
            writer.kept(end, n % 16 == 15);
            writer.skip("sqlite", end);
        }
    }
    writer.finish();
    storage.files()
}

fn rewritten() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = Writer::open(&storage);
    writer.rows(8, 200);
    for _ in 0..2 {
        let next = storage.calls_of(CallKind::Sync);
        storage.plan(Fault::once(CallKind::Sync, next, ErrorKind::Other));
        writer.rows(6, 250);
        writer.rows(2, 20);
    }
    writer.finish();
    storage.files()
}

fn lives() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = Writer::open(&storage);
    writer.register("main");
    let end = writer.rows(5, 100);
    writer.finish();
    for life in 0..5 {
        let mut writer = Writer::open(&storage);
        if life == 3 {
            writer.rows(3, 40);
        }
        writer.cursor("main", Offset(end.0.min(3 + life)));
        writer.finish();
    }
    storage.files()
}

/// Fills a journal with entries that follow one another as real ones do.
struct Writer {
    life: Life,
    numbers: BTreeMap<&'static str, u64>,
    ns: i64,
}

const DEVICES: [&str; 3] = ["e6614104", "cellar", "north/barn"];

impl Writer {
    fn open(storage: &MemoryStorage) -> Writer {
        let life = held(Life::open(storage), "opening").0;
        let numbers = DEVICES.map(|device| (device, life.state().next_number(device))).into();
        Writer { life, numbers, ns: 1_700_000_000_000_000_000 }
    }

    fn finish(mut self) {
        self.life.mark();
    }

    fn submit(&mut self, decide: impl FnOnce(&mut Submission<'_>) -> Result<(), Refused>) -> Offset {
        let end = held(self.life.submit(|_, submission| decide(submission)), "a submission");
        self.life.commit(true);
        end
    }

    fn add(&mut self, entry: &Entry<'_>) -> Offset {
        self.submit(|submission| submission.add(entry))
    }

    fn rows(&mut self, rows: usize, text_bytes: usize) -> Offset {
        let mut listed = Vec::new();
        for n in 0..rows {
            let device = DEVICES[n % DEVICES.len()];
            let number = self.numbers.entry(device).or_default();
            listed.push((device, *number, self.ns));
            *number += 1;
            self.ns += 1_000;
        }
        self.submit(|submission| {
            for (device, sequence, ns) in listed {
                let fields = [
                    ("t".to_owned(), Value::Float(21.5)),
                    ("n".to_owned(), Value::Integer(-3)),
                    ("s".to_owned(), Value::Text("x".repeat(text_bytes))),
                ];
                submission.add(&Entry::Row(RowEntry {
                    device,
                    boot: if device == DEVICES[0] { 7 } else { 0 },
                    sequence,
                    stamped: sequence.is_multiple_of(2),
                    series: "climate,device=x",
                    ns,
                    fields: Fields::of(&fields),
                }))?;
            }
            Ok(())
        })
    }

    fn device(&mut self, boot: u32) -> Offset {
        let entry = DeviceEntry { device: DEVICES[0], name: "boiler", boot, first: 0 };
        self.add(&Entry::Device(entry))
    }

    fn gap(&mut self, cause: Cause, sink: Option<&str>) -> Offset {
        self.ns += 1;
        self.add(&Entry::Gap(GapEntry {
            device: DEVICES[1],
            boot: 0,
            from: 3,
            to: 5,
            count: 2,
            cause,
            sink,
            stamped: true,
            series: "forebay_gap,device=cellar",
            ns: self.ns,
        }))
    }

    fn letter(&mut self) -> Offset {
        self.ns += 1;
        self.add(&Entry::Letter(LetterEntry {
            device: DEVICES[2],
            rows: 1,
            ns: self.ns,
            origin: "a/topic",
            reason: "is no JSON",
            body_bytes: 3,
            body: b"{}}",
        }))
    }

    fn kept(&mut self, to: Offset, unkept: bool) -> Offset {
        let rows = [(DEVICES[2].into(), 1)];
        self.add(&Entry::Letters(LettersEntry { to, unkept, rows: Counts::of(&rows) }))
    }

    fn register(&mut self, sink: &str) -> Offset {
        self.add(&Entry::Sink(super::super::entry::SinkEntry { sink, start: Offset(0) }))
    }

    fn cursor(&mut self, sink: &str, next: Offset) -> Offset {
        let confirmed = [(DEVICES[0].into(), 2), (DEVICES[1].into(), 1)];
        self.submit(|submission| submission.add_cursor(sink, next, &confirmed))
    }

    fn skip(&mut self, sink: &str, to: Offset) -> Offset {
        self.add(&Entry::Skip(SkipEntry { sink, to }))
    }
}
