//! Rows that come before the gateway's clock is believed: lives of machines and gateways against a model that knows the
//! true time of everything.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use proptest::prelude::*;

use super::super::dating::due_fixes;
use super::*;
use crate::clock::Moment;
use crate::journal::clocks::{ClockEntry, FixEntry};
use crate::journal::{Journal, JournalId, Read};

const SECOND: i64 = 1_000_000_000;

/// The first early row needs a file of its own, which may have to be made.
fn patiently(mut submit: impl FnMut() -> Result<Taken, Refused>) {
    while let Err(refused) = submit() {
        assert_eq!(refused, Refused::Busy);
        std::thread::yield_now();
    }
}

/// What becomes of a gateway and its machine.
#[derive(Clone, Debug)]
enum Step {
    /// So much time passes, in milliseconds.
    Pass(i64),
    /// A message with rows that have no time of their own.
    Stamped(usize),
    /// A row with one.
    Dated,
    /// Rows of a native device.
    Native(usize),
    /// The kernel vouches for the clock, or `max_wait` has passed.
    Believe(Belief),
    /// The kernel does not vouch for the clock any more, as a gateway sees that starts then.
    Doubt,
    /// The gateway is killed and starts again.
    Restart,
    /// The machine starts anew after so many milliseconds, with a wall clock that is behind by as many.
    Reboot(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5_000_i64).prop_map(Step::Pass),
        4 => (1..5_usize).prop_map(Step::Stamped),
        1 => Just(Step::Dated),
        3 => (1..4_usize).prop_map(Step::Native),
        1 => prop_oneof![Just(Belief::Synchronised), Just(Belief::Waited)].prop_map(Step::Believe),
        1 => Just(Step::Doubt),
        1 => Just(Step::Restart),
        1 => (1_000..9_000_000_i64).prop_map(Step::Reboot),
    ]
}

/// The gateway, and the truth about its clocks.
struct World {
    storage: Arc<MemoryStorage>,
    ingest: Ingest,
    kernel: Arc<Kernel>,
    machine: MachineBoot,
    /// True nanoseconds now, at the machine's start, and what the wall clock is behind them.
    true_ns: i64,
    started_ns: i64,
    behind_ns: i64,
    admission: Option<Admission>,
    /// What is true of each row, in the order of the journal; none if it has a time of its own.
    truth: Vec<Option<Truth>>,
}

/// A row as a database gets it: device, time if it has one, and whether it was early.
type Delivered = (String, Option<i64>, bool);

/// When a row came: by the truth, and by the wall clock.
#[derive(Clone, Copy, Debug)]
struct Truth {
    true_ns: i64,
    wall_ns: i64,
    machine: MachineBoot,
}

/// What the machine says of its clocks: whether the wall clock is to be believed, and how far it is ahead of the steady one.
#[derive(Default)]
struct Kernel {
    belief: AtomicU8,
    offset_ns: AtomicI64,
}

const BELIEFS: [Belief; 3] =
    [Belief::Waiting(std::time::Duration::MAX), Belief::Synchronised, Belief::Waited];

impl World {
    fn new() -> World {
        let (storage, kernel) = (Arc::new(MemoryStorage::new()), Arc::<Kernel>::default());
        let machine = MachineBoot(1);
        let ingest = World::start(&storage, &kernel, machine);
        let (true_ns, started_ns) = (1_700_000_100 * SECOND, 1_700_000_000 * SECOND);
        let (admission, truth) = (None, Vec::new());
        World { storage, ingest, kernel, machine, true_ns, started_ns, behind_ns: 0, admission, truth }
    }

    fn start(storage: &Arc<MemoryStorage>, kernel: &Arc<Kernel>, machine: MachineBoot) -> Ingest {
        let (journal, _) =
            Journal::open(Arc::<MemoryStorage>::clone(storage), &Options::sized(4 << 20)).unwrap();
        let [one, other] = [Arc::clone(kernel), Arc::clone(kernel)];
        let belief = Box::new(move || BELIEFS[usize::from(one.belief.load(Ordering::Relaxed))]);
        let moment = Box::new(move |steady_ns| Moment {
            ns: steady_ns + other.offset_ns.load(Ordering::Relaxed),
            steady_ns,
        });
        Ingest::new(journal, Naming::default(), Stats::new(0), OwnClock { machine, belief, moment })
    }

    /// What the wall clock reads.
    fn wall_ns(&self) -> i64 {
        self.true_ns - self.behind_ns
    }

    /// What the steady clock reads, with the wall clock as it is now.
    fn steady_ns(&self) -> i64 {
        self.kernel.offset_ns.store(self.started_ns - self.behind_ns, Ordering::Relaxed);
        self.true_ns - self.started_ns
    }

    fn take(&mut self, step: &Step) {
        let now_ns = self.steady_ns();
        match step {
            Step::Pass(ms) => self.true_ns += ms * 1_000_000,
            Step::Stamped(rows) => {
                let parsed = foreign(&vec![None; *rows], 0);
                patiently(|| self.ingest.foreign(&parsed, ORIGIN, came(now_ns)));
                self.learn(*rows);
            }
            Step::Dated => {
                self.ingest.foreign(&foreign(&[Some(5)], 0), ORIGIN, came(now_ns)).unwrap();
                self.truth.push(None);
            }
            Step::Native(rows) => self.native(*rows),
            Step::Believe(belief) => {
                // The kernel has set the clock by then; if nobody has, it is what it was.
                if *belief == Belief::Synchronised {
                    self.behind_ns = 0;
                }
                let at = BELIEFS.iter().position(|known| known == belief).unwrap();
                self.kernel.belief.store(at as u8, Ordering::Relaxed);
                self.ingest.fix_clocks(self.steady_ns()).unwrap();
            }
            Step::Doubt => self.kernel.belief.store(0, Ordering::Relaxed),
            Step::Restart => self.restart(),
            Step::Reboot(ms) => {
                self.true_ns += ms * 1_000_000;
                self.behind_ns += ms * 1_000_000;
                self.started_ns = self.true_ns;
                self.true_ns += 20 * SECOND;
                self.machine = MachineBoot(self.machine.0 + 1);
                self.kernel.belief.store(0, Ordering::Relaxed);
                self.restart();
            }
        }
        // Less than a message has rows, so that their stamps run ahead of the clock.
        self.true_ns += 1;
    }

    /// Rows of a native device, sampled just before now and behind those before. What came before the clock was doubted has no
    /// place on the steady clock that anybody knows, so only that order keeps them apart.
    fn native(&mut self, rows: usize) {
        let now_ns = self.steady_ns();
        let boot = self.admission.as_ref().map(|admission| admission.boot);
        let admission = self.ingest.admit(&hello(boot, 0, 0), now_ns).unwrap();
        let first = now_ns - rows as i64;
        assert!(first > admission.last_ns, "the last one is where it was");
        let row = |at: usize| NativeRow::Sample {
            group: 0,
            ns: first + at as i64,
            fields: vec![("t".to_owned(), Value::Float(1.0))],
        };
        let sampled: Vec<_> = (0..rows).map(row).collect();
        patiently(|| {
            let taken = self.ingest.native_rows(&admission, &series(), admission.next, &sampled, now_ns);
            taken.map_err(|e| if let NativeError::Refused(refused) = e { refused } else { panic!("{e}") })
        });
        self.admission = Some(admission);
        self.learn(rows);
        self.true_ns += 10;
    }

    fn learn(&mut self, rows: usize) {
        let (true_ns, wall_ns, machine) = (self.true_ns, self.wall_ns(), self.machine);
        self.truth.extend(vec![Some(Truth { true_ns, wall_ns, machine }); rows]);
    }

    fn restart(&mut self) {
        self.ingest.journal.close();
        self.ingest = World::start(&self.storage, &self.kernel, self.machine);
        self.ingest.fix_clocks(self.steady_ns()).unwrap();
    }

    /// The rows in order, and all fixes that were made.
    fn rows(&self) -> (Vec<Delivered>, Vec<FixEntry>) {
        let (mut rows, mut fixes) = (Vec::new(), Vec::new());
        let journal = &self.ingest.journal;
        let end = journal.usage().end;
        while *journal.watermark().borrow() < end {
            std::thread::yield_now();
        }
        let mut reader = journal.reader(Offset(0));
        while let Read::Frame(frame) = reader.next().unwrap() {
            for (_, entry) in frame.entries() {
                let entry = entry.unwrap();
                match journal.fixes().date(entry) {
                    Entry::Row(row) => rows.push((row.device.to_owned(), Some(row.ns), entry.is_early())),
                    Entry::EarlyRow(_, row) => rows.push((row.device.to_owned(), None, true)),
                    Entry::ClockFix(fix) => fixes.push(fix),
                    _ => {}
                }
            }
        }
        (rows, fixes)
    }

    /// Everything has the time that it must have, and none is given twice.
    fn judge(&self) -> Result<(), TestCaseError> {
        let (rows, fixes) = self.rows();
        prop_assert_eq!(rows.len(), self.truth.len());
        let of = |machine| fixes.iter().filter(move |fix| fix.machine == machine);
        for fix in &fixes {
            prop_assert_eq!(of(fix.machine).count(), 1, "one fix for each start of the machine");
        }
        let (mut stamps, mut native) = (i64::MIN, i64::MIN);
        for ((device, ns, early), truth) in rows.iter().zip(&self.truth) {
            let Some(Truth { true_ns, wall_ns, machine }) = truth else {
                prop_assert_eq!((*ns, *early), (Some(5), false), "it has its own time");
                continue;
            };
            let Some(ns) = *ns else { return Err(TestCaseError::fail("a row waits for its time")) };
            let last = if device == "pump" { &mut stamps } else { &mut native };
            let estimated = *early && of(*machine).any(|fix| fix.estimated);
            let expected = if *early { true_ns } else { wall_ns };
            prop_assert!(
                estimated || (ns - expected).abs() < 1_000,
                "{} is {} and not {}",
                device,
                ns,
                expected
            );
            // No clock here ever goes back, so no time does.
            prop_assert!(ns > *last, "{} is given again or goes back, behind {}", ns, last);
            *last = ns;
        }
        Ok(())
    }
}

#[test]
fn a_message_that_came_before_the_clock_was_set_is_dated_by_the_clock_that_was_set() {
    for early in [0, 1] {
        let mut world = World::new();
        world.behind_ns = 1_000_000 * SECOND;
        world.take(&Step::Stamped(early));
        let (came_ns, true_ns) = (world.steady_ns(), world.true_ns);
        world.true_ns += SECOND;
        world.take(&Step::Believe(Belief::Synchronised));
        patiently(|| world.ingest.foreign(&foreign(&[None], 0), ORIGIN, came(came_ns)));
        let (_, ns, is_early) = world.rows().0.pop().unwrap();
        assert_eq!((ns, is_early), (Some(true_ns), false));
    }
}

#[test]
fn a_row_from_before_its_receipt_keeps_its_distance_when_the_clock_is_set() {
    let mut world = World::new();
    world.behind_ns = 1_000_000 * SECOND;
    let mut parsed = foreign(&[None, None], 0);
    parsed.rows[0].offset_ns = -60 * SECOND;
    let (came_ns, true_ns) = (world.steady_ns(), world.true_ns);
    patiently(|| world.ingest.foreign(&parsed, ORIGIN, came(came_ns)));
    world.true_ns += SECOND;
    world.take(&Step::Believe(Belief::Synchronised));
    let times: Vec<_> = world.rows().0.into_iter().map(|(_, ns, is_early)| (ns, is_early)).collect();
    assert_eq!(times, [(Some(true_ns - 60 * SECOND), true), (Some(true_ns + 1), true)]);
}

#[test]
fn earlier_starts_are_fixed_in_order_between_what_has_a_time_and_the_next_start() {
    let fields = [("t".to_owned(), Value::Float(1.0))];
    let row = |ns| {
        let (device, boot, sequence, stamped, series) = ("pump", 0, 0, true, "m");
        RowEntry { device, boot, sequence, stamped, series, ns, fields: Fields::of(&fields) }
    };
    let fixed = |told: [i64; 2]| {
        let mut state = State::new(JournalId(1), 10_000);
        let mut apply = |entry: Entry<'_>| state.apply(Offset(0), &entry);
        apply(Entry::Row(row(1_000)));
        for (machine, told_ns, end) in [(MachineBoot(1), told[0], 300), (MachineBoot(2), told[1], 200)] {
            apply(Entry::Clock(ClockEntry { machine, told_ns }));
            apply(Entry::EarlyRow(machine, row(end)));
        }
        let fixes = due_fixes(&state, MachineBoot(3), Moment { ns: 10_500, steady_ns: 500 }, false);
        assert!(fixes.iter().all(|fix| fix.estimated));
        fixes.iter().map(|fix| fix.offset_ns).collect::<Vec<_>>()
    };
    assert_eq!(fixed([5_000, 7_000]), [5_000, 7_000], "what their own clocks said");
    assert_eq!(fixed([0, 0]), [701, 1_001], "behind the last stamp, and one behind the other");
    assert_eq!(fixed([i64::MAX, i64::MAX]), [9_500, 9_800], "each ended before the next one began");
    assert_eq!(fixed([2_000, 2_100]), [2_000, 2_300]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_row_gets_its_time_once_and_no_time_is_given_twice(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        let before = world.rows().0;
        world.take(&Step::Believe(Belief::Synchronised));
        world.judge()?;
        let after = world.rows().0;
        for ((_, before, _), (_, after, _)) in before.iter().zip(&after) {
            prop_assert!(before.is_none_or(|before| Some(before) == *after), "a time has changed");
        }
        world.take(&Step::Restart);
        prop_assert_eq!(world.rows().0, after, "from the disk");
    }
}
