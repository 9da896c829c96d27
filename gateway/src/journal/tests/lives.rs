//! Random lives of a small journal, kept in step by hand, against a model that knows what was submitted.
//!
//! The model folds every entry itself, never hears of what a kill cut off, and knows from the
//! number of segments alone who may be refused as full. `PROPTEST_CASES` goes further; a case that fails is shrunk and
//! printed as its steps.

mod model;
mod named;

use proptest::prelude::*;

use super::super::clocks::{ClockEntry, FixEntry};
use super::super::entry::{
    Cause, Counts, CursorEntry, DeviceEntry, GapEntry, LetterEntry, LettersEntry, SkipEntry,
};
use super::super::intake::SPARES;
use super::super::keeper;
use super::super::memory::{CallKind, Fault};
use super::super::state::NewAccounts;
use super::*;
use crate::record::MachineBoot;
use model::{Model, NATIVES, SINKS, Step, encoded, name, step, when_full};

const SHAPE: Shape = Shape { segment_bytes: 8 << 10, frame_bytes: 1 << 10 };

/// The journal and the model beside it.
struct World {
    storage: MemoryStorage,
    options: Options,
    shared: Arc<Shared>,
    committer: Committer,
    model: Model,
    /// Whether a submission of this life made room of the oldest rows a wish.
    may_evict: bool,
    /// Whether this life has taken anything yet.
    fresh: bool,
    /// Segments and spares that this life found.
    files_found: u64,
    ns: i64,
}

fn options(segments: u64, when_full: WhenFull) -> Options {
    Options { when_full, ..Options::sized(segments * SHAPE.segment_bytes + 4_096) }
}

impl World {
    fn new() -> World {
        let storage = MemoryStorage::new();
        let options = options(16, WhenFull::Auto);
        let (shared, committer, _) = World::open(&storage, &options);
        let model = Model::new(shared.intake().state.clone());
        World {
            storage,
            options,
            shared,
            committer,
            model,
            may_evict: false,
            fresh: true,
            files_found: 0,
            ns: 0,
        }
    }

    fn open(storage: &MemoryStorage, options: &Options) -> (Arc<Shared>, Committer, RecoveryReport) {
        Shared::open(Arc::new(storage.clone()), options, SHAPE, JournalId(1)).unwrap()
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let end = self.model.end();
        let back = |back: u64| Offset(end.0.saturating_sub(back));
        match *step {
            Step::Rows { class, device, rows, bytes } => return self.rows(class, device, rows, bytes),
            Step::Gap { device, cause, count, sink } => {
                self.ns += 1;
                let gap = GapEntry {
                    device: &self.account(device),
                    boot: 0,
                    from: 1,
                    to: 1 + count,
                    count,
                    cause: Cause::ALL[cause],
                    sink: sink.map(|sink| SINKS[sink]),
                    stamped: true,
                    series: "forebay_gap",
                    ns: self.ns,
                };
                self.submit(&[Entry::Gap(gap)])?;
            }
            Step::Boot { device, .. } if !self.model.state.has_room_for_native(&name(device)) => {}
            Step::Boot { device, boot } => {
                self.submit(&[Entry::Device(DeviceEntry {
                    device: &name(device),
                    name: "n",
                    boot,
                    first: 0,
                })])?;
            }
            Step::Letter { device, rows } => self.submit(&[Entry::Letter(LetterEntry {
                device: &self.account(device),
                rows,
                ns: 3,
                origin: "a/topic",
                reason: "is no JSON",
                body_bytes: 4,
                body: b"{}}}",
            })])?,
            Step::Letters { back: b, unkept, device } => {
                let rows: Vec<_> = device.iter().map(|device| (self.account(*device).into(), 1)).collect();
                let entry = LettersEntry { to: back(b), unkept, rows: Counts::of(&rows) };
                self.submit(&[Entry::Letters(entry)])?;
            }
            Step::Sink(sink) => {
                let oldest = self.shared.segments().iter().next().map_or(Offset(0), |segment| segment.first);
                let start = self.model.state.lowest_cursor().unwrap_or(oldest);
                self.submit(&[Entry::Sink(SinkEntry { sink: SINKS[sink], start })])?;
            }
            Step::Forget(sink) => self.submit(&[Entry::Forget(SINKS[sink])])?,
            Step::Cursor { sink, back: b } => {
                let confirmed = [(self.account(2).into(), 1)];
                let cursor =
                    CursorEntry { sink: SINKS[sink], next: back(b), confirmed: Counts::of(&confirmed) };
                self.submit(&[Entry::Cursor(cursor)])?;
            }
            Step::Early { device, machine, rows } => {
                return self.early(device, MachineBoot(machine), rows);
            }
            Step::Fix { machine, offset_ns } => {
                let machine = MachineBoot(machine);
                let fix = FixEntry { machine, offset_ns, estimated: offset_ns % 2 == 0 };
                self.submit(&[Entry::ClockFix(fix)])?;
            }
            Step::Skip { sink, back: b } => {
                self.submit(&[Entry::Skip(SkipEntry { sink: SINKS[sink], to: back(b) })])?;
            }
            Step::FailSync(ahead) => {
                let nth = self.storage.calls_of(CallKind::Sync) + ahead;
                self.storage.heal();
                self.storage.plan(Fault::once(CallKind::Sync, nth, io::ErrorKind::Other));
            }
            Step::Mark => self.committer.mark(),
            Step::Reopen { kill, segments, when_full } => return self.reopen(kill, segments, when_full),
        }
        Ok(())
    }

    /// Early rows of a device, announced if need be.
    fn early(&mut self, device: usize, machine: MachineBoot, rows: u64) -> Result<(), TestCaseError> {
        if device < NATIVES && !self.model.state.has_room_for_native(&name(device)) {
            return Ok(());
        }
        let (account, fields) = (self.account(device), fields(0, "early"));
        let first = self.model.state.next_number(&account);
        let row = |sequence| {
            let boot = if device < NATIVES { 1 } else { 0 };
            let (ns, fields) = (sequence as i64, Fields::of(&fields));
            let row = RowEntry { device: &account, boot, sequence, stamped: true, series: "m", ns, fields };
            Entry::EarlyRow(machine, row)
        };
        let known = self.model.state.clocks().get(machine).is_some();
        let clock = (!known).then_some(Entry::Clock(ClockEntry { machine, told_ns: 3 }));
        self.submit(&clock.into_iter().chain((first..first + rows).map(row)).collect::<Vec<_>>())
    }

    /// Submits entries as delivery does, and commits them.
    fn submit(&mut self, entries: &[Entry<'_>]) -> Result<(), TestCaseError> {
        let submitted = self.shared.submit(Class::Internal, |_, submission| {
            entries.iter().try_for_each(|entry| submission.add(entry))
        });
        match submitted {
            Ok(_) => self.take_in(&entries.iter().map(encoded).collect::<Vec<_>>())?,
            Err(refused) => {
                prop_assert_eq!(refused, Refused::Full);
                prop_assert!(!self.fresh, "the first submission of a life is refused");
                prop_assert!(
                    self.segments() + 1 > self.segments_max(),
                    "refused in {} segments",
                    self.segments()
                );
            }
        }
        self.commit()
    }

    fn rows(&mut self, class: Class, device: usize, rows: usize, bytes: usize) -> Result<(), TestCaseError> {
        // As ingest does: a native device is refused by name.
        if device < NATIVES && !self.model.state.has_room_for_native(&name(device)) {
            return Ok(());
        }
        let (before, rewrites) = (self.segments(), self.rewrites());
        // Two may begin in the reserve so that those can go which go on for given-up ones.
        let chain = if self.shared.intake().chained { 2 + SPARES as u64 } else { 0 };
        // A spare that could not be made just now is made the next time.
        let troubled = self.shared.intake().spare_trouble.is_some();
        let (mut evicts, mut taken) = (false, false);
        match self.try_rows(class, device, rows, &"x".repeat(bytes)) {
            Ok(entries) => {
                self.take_in(&entries)?;
                taken = true;
            }
            Err(Refused::TooLarge { bytes, limit }) => {
                prop_assert!(bytes > limit && limit as u64 == SHAPE.segment_bytes / 2);
                return Ok(());
            }
            Err(refused) => {
                prop_assert_eq!(refused, Refused::Full);
                evicts = match self.options.when_full {
                    WhenFull::Auto => class == Class::Foreign,
                    WhenFull::DropOldest => true,
                    WhenFull::Refuse => false,
                };
                self.may_evict |= evicts;
                // Native devices are held back two segments earlier where others do not wait.
                let early = self.options.when_full == WhenFull::Auto && class == Class::Native;
                let kept = SPARES as u64 + if early { 2 } else { 0 };
                prop_assert!(
                    troubled
                        || self.shared.intake().spare_trouble.is_some()
                        || before + 1 + kept > self.segments_max(),
                    "refused in {} segments",
                    before
                );
            }
        }
        self.commit()?;
        let after = self.segments();
        if after > before + self.rewrites() - rewrites && taken {
            // One more where a file was given up after a failed sync.
            let rewrites = self.rewrites() - rewrites;
            let most = self.segments_max() + chain + rewrites;
            prop_assert!(after + SPARES as u64 <= most, "{} segments", after);
        }
        // Without a sink nothing goes, and with the reserve used up delivery waits for the next start.
        let can_go = !self.model.state.sinks().is_empty() && self.segments() < self.segments_max();
        if evicts && can_go { self.let_go(class, device) } else { Ok(()) }
    }

    /// What delivery does when the oldest rows are to make room: in the end there is room.
    fn let_go(&mut self, class: Class, device: usize) -> Result<(), TestCaseError> {
        for _ in 0..64 {
            let to = *self.shared.evict_to.borrow();
            prop_assert!(to <= self.model.end());
            let behind: Vec<&str> =
                SINKS.into_iter().filter(|s| self.model.state.cursor(s).is_some_and(|c| c < to)).collect();
            let kept = LettersEntry { to: self.model.end(), unkept: false, rows: Counts::of(&[]) };
            let skips = behind.into_iter().map(|sink| Entry::Skip(SkipEntry { sink, to }));
            self.submit(&skips.chain([Entry::Letters(kept)]).collect::<Vec<_>>())?;
            if let Ok(entries) = self.try_rows(class, device, 1, "evicting") {
                self.take_in(&entries)?;
                return self.commit();
            }
            self.commit()?;
        }
        prop_assert!(false, "letting go makes no room in {} segments", self.segments());
        Ok(())
    }

    /// Submits rows as ingest does, again as long as no files are ready. Returns the entries.
    fn try_rows(
        &mut self,
        class: Class,
        device: usize,
        rows: usize,
        text: &str,
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let ns = self.ns;
        self.ns += rows as i64;
        loop {
            let submitted = self.shared.submit(class, |state, submission| {
                let (name, mut entries) = (name(device), Vec::new());
                let account = state.account(&name, &mut NewAccounts::default());
                let first = state.next_number(account);
                for n in 0..rows as u64 {
                    let fields = fields(n as i64, text);
                    let entry = Entry::Row(RowEntry {
                        device: account,
                        boot: if device < NATIVES { 1 } else { 0 },
                        sequence: first + n,
                        stamped: device.is_multiple_of(2),
                        series: "m",
                        ns: ns + n as i64,
                        fields: Fields::of(&fields),
                    });
                    submission.add(&entry)?;
                    entries.push(encoded(&entry));
                }
                Ok::<_, Refused>(entries)
            });
            match submitted {
                // What fails is trouble, and then it is full.
                Err(Refused::Busy) => drop(keeper::tidy(&self.shared)),
                done => return done.map(|(entries, _)| entries),
            }
        }
    }

    /// Where the rows of a device are accounted.
    fn account(&self, device: usize) -> String {
        self.model.state.account(&name(device), &mut NewAccounts::default()).to_owned()
    }

    fn take_in(&mut self, entries: &[Vec<u8>]) -> Result<(), TestCaseError> {
        self.fresh = false;
        self.model.take_in(entries)
    }

    fn commit(&mut self) -> Result<(), TestCaseError> {
        let committed = self.committer.commit();
        prop_assert!(committed.is_ok(), "{:?}", committed);
        // What fails once is tried again.
        let _ = keeper::tidy(&self.shared);
        prop_assert_eq!(*self.shared.watermark.borrow(), self.model.end());
        if !self.may_evict {
            prop_assert_eq!(*self.shared.evict_to.borrow(), Offset(0));
        }
        // The first submission after a start may go beyond the limit, and so may delivery in the place of the last two
        // segments that were let go of, and what a failed sync makes anew, with two so that it can go.
        let chain = if self.shared.intake().chained { 2 } else { 0 };
        let beyond = self.segments_max().max(self.files_found) + 1 + 2 + self.rewrites() + chain;
        prop_assert!(self.files() <= beyond, "{} files", self.files());
        self.compare()
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let intake = self.shared.intake();
        prop_assert_eq!(&intake.state, &self.model.state);
        prop_assert_eq!(intake.state.learned(), self.model.learned);
        for (machine, fix) in &self.model.fixes {
            let shown = self.shared.fixes().ns(*machine, 0);
            prop_assert_eq!(shown, *fix, "the first fix stands, and is shown once it is durable");
        }
        prop_assert_eq!(intake.tail.end, self.model.end());
        for (account, rows) in &self.model.accounts {
            prop_assert_eq!(
                intake.state.device(account).map(|device| device.rows),
                Some(*rows),
                "{}",
                account
            );
        }
        Ok(())
    }

    fn reopen(&mut self, kill: bool, segments: u64, when_full: WhenFull) -> Result<(), TestCaseError> {
        self.storage.heal();
        if kill {
            // What is submitted and not committed was never told of.
            let _ = self.shared.submit(Class::Foreign, |_, submission| add_row(submission, 0, "lost"));
            self.storage = self.storage.after_kill();
        }
        self.options = options(segments, when_full);
        let (shared, committer, report) = World::open(&self.storage, &self.options);
        (self.shared, self.committer, self.may_evict) = (shared, committer, false);
        (self.fresh, self.files_found) = (true, self.files());
        prop_assert_eq!((report.damaged, report.torn_tail, report.rows_lost), (vec![], false, 0));
        prop_assert_eq!(report.end, self.model.end());
        self.compare()?;
        self.everything_is_readable()
    }

    /// Whatever somebody is to get comes back as it went in; nothing is damaged.
    fn everything_is_readable(&self) -> Result<(), TestCaseError> {
        let mut read = BTreeMap::new();
        let mut reader = Reader::new(Arc::clone(&self.shared), Offset(0));
        loop {
            match reader.next().unwrap() {
                Read::Frame(frame) => {
                    read.extend(frame.entries().map(|(offset, entry)| (offset, encoded(&entry.unwrap()))));
                }
                Read::Damaged { from, to } => prop_assert!(false, "{} to {} are damaged", from, to),
                Read::Wait => break,
            }
        }
        for (offset, bytes) in &read {
            prop_assert_eq!(Some(bytes), self.model.entries.get(offset.0 as usize), "entry {}", offset);
        }
        let needed = self.model.state.done_below().unwrap_or(self.model.done_below);
        for (offset, bytes) in (0..).map(Offset).zip(&self.model.entries).skip(needed.0 as usize) {
            let owed = Entry::decode(&bytes[2..]).unwrap().is_owed();
            prop_assert!(
                !owed || read.contains_key(&offset),
                "entry {} is gone, needed from {}",
                offset,
                needed
            );
        }
        Ok(())
    }

    /// Segments in use.
    fn segments(&self) -> u64 {
        self.shared.intake().live_bytes / SHAPE.segment_bytes
    }

    /// Segments and spares.
    fn files(&self) -> u64 {
        self.storage.files().keys().filter(|name| SegmentId::of_file_name(name).is_some()).count() as u64
    }

    /// Files given up in this life.
    fn rewrites(&self) -> u64 {
        self.shared.intake().commits.rewrites
    }

    fn segments_max(&self) -> u64 {
        (self.options.max_bytes - 4_096) / SHAPE.segment_bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_lives_as_its_model_says(
        when_full in when_full(), steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        world.reopen(false, 16, when_full)?;
        for step in &steps {
            world.take(step)?;
        }
        world.everything_is_readable()?;
        world.reopen(true, 16, when_full)?;
    }
}
