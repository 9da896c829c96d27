//! Fresh rows of calm devices beside those of devices that flood.
//!
//! In all tests but one time is told in writes: rows come in while a write is under way, and wait for a number of writes.

use std::collections::{HashMap, HashSet};
use std::env;

use super::room::until_delivered;
use super::*;

/// A point by series and time; here the time is the number of the row within its device.
type Point = (String, i64);

/// What came in, and what a store was given, write by write.
#[derive(Default)]
struct Log {
    /// The points that each write stored.
    writes: Vec<Vec<Point>>,
    /// During which write each row came in.
    born: HashMap<Point, usize>,
    next: HashMap<String, i64>,
}

impl Log {
    fn submit(&mut self, journal: &Journal, device: &str, rows: i64) {
        let next = self.next.entry(device.to_owned()).or_default();
        let numbers = *next..*next + rows;
        *next += rows;
        submit(journal, device, numbers.clone());
        let write = self.writes.len();
        self.born.extend(numbers.map(|number| ((format!("m,device={device}"), number), write)));
    }

    /// All rows that were stored, in order.
    fn stored(&self) -> impl Iterator<Item = &Point> {
        self.writes.iter().flatten().filter(|(series, _)| series.starts_with("m,"))
    }

    /// How many writes rows of calm devices had to wait, ascending.
    fn calm_delays(&self) -> Vec<usize> {
        let writes = self.writes.iter().enumerate();
        let stored = writes.flat_map(|(write, points)| points.iter().map(move |point| (write, point)));
        let calm = stored.filter(|(_, (series, _))| series.starts_with("m,device=calm"));
        let mut delays: Vec<usize> = calm.map(|(write, point)| write - self.born[point]).collect();
        delays.sort_unstable();
        delays
    }

    /// Everything is stored once, and the ledger says so.
    #[track_caller]
    fn check(&self, journal: &Journal) {
        let distinct: HashSet<&Point> = self.stored().collect();
        assert_eq!(self.stored().count(), distinct.len(), "rows were sent twice");
        assert_eq!(distinct.len(), self.born.len(), "rows were not sent");
        for (device, rows) in &self.next {
            assert_eq!(ledger(journal, device, "main"), (*rows as u64, 0), "{device}");
        }
    }
}

/// A store into whose journal `feed` brings rows during each write.
fn store<F, A>(
    journal: &Journal,
    log: &Arc<Mutex<Log>>,
    mut feed: F,
    mut answer: A,
) -> Store<impl FnMut(&[Point]) -> Outcome + use<F, A>>
where
    F: FnMut(&mut Log, &Journal),
    A: FnMut(&[Point]) -> Outcome,
{
    let (journal, log) = (journal.clone(), Arc::clone(log));
    let script = move |points: &[Point]| {
        let mut log = log.lock().unwrap();
        feed(&mut log, &journal);
        let outcome = answer(points);
        let stored = if outcome == Outcome::Confirmed { points.to_vec() } else { Vec::new() };
        log.writes.push(stored);
        outcome
    };
    Store { points: Points::default(), script }
}

fn start(journal: &Journal, sink: impl Sink + Send + 'static, pace: Option<u64>) -> Running {
    let letters = MemoryStorage::new();
    let service = Service { live_first: true, bytes_per_second_max: pace, ..Service::default() };
    let settings = Settings { service, linger: Duration::ZERO, ..settings("main", 100, &letters) };
    let (stop, stopped) = watch::channel(false);
    let status = Arc::new(SinkStatus::default());
    let thread = spawn(journal.clone(), sink, settings, Arc::clone(&status), stopped).unwrap();
    Running { thread, stop, status, letters }
}

/// Runs a store that confirms everything while `feed` brings rows during its first writes, and checks what it got.
fn run(writes: usize, mut feed: impl FnMut(usize, &mut Log, &Journal) + Send + 'static) -> Log {
    let (journal, log) = (journal(), Arc::<Mutex<Log>>::default());
    log.lock().unwrap().submit(&journal, "flood", 500);
    let feed = move |log: &mut Log, journal: &Journal| {
        if log.writes.len() < writes {
            feed(log.writes.len(), log, journal);
        }
    };
    let store = store(&journal, &log, feed, |_: &[Point]| Outcome::Confirmed);
    let running = start(&journal, store, None);
    until(|| log.lock().unwrap().writes.len() >= writes);
    until_delivered(&journal, &["main"]);
    running.stop();
    let log = std::mem::take(&mut *log.lock().unwrap());
    log.check(&journal);
    log
}

/// One row of each fifth of twenty calm devices.
fn feed_calm(write: usize, log: &mut Log, journal: &Journal) {
    for n in (0..20).filter(|n| (write + n).is_multiple_of(5)) {
        log.submit(journal, &format!("calm{n}"), 1);
    }
}

#[test]
fn calm_devices_have_their_turns_beside_one_that_floods() {
    let log = run(60, |write, log, journal| {
        log.submit(journal, "flood", 300);
        feed_calm(write, log, journal);
    });
    let delays = log.calm_delays();
    assert_eq!(delays.len(), 240);
    let late = delays.iter().filter(|delay| **delay > 2).count();
    assert!(
        late <= delays.len() / 20,
        "{late} of {} rows waited for more than a turn of each: {delays:?}",
        delays.len()
    );
    assert!(delays.last() <= Some(&6), "{delays:?}");
    // Once it is left out, a flood comes in its own order.
    let flood = log.writes[10..].iter().flatten().filter(|(series, _)| series == "m,device=flood");
    assert!(flood.map(|(_, number)| number).is_sorted());
}

#[test]
fn several_floods_are_left_out_and_come_back_when_they_are_calm() {
    let log = run(120, |write, log, journal| {
        for flood in ["flood", "flood2", "flood3"] {
            log.submit(journal, flood, if write < 60 { 120 } else { i64::from(write % 2 == 0) });
        }
        feed_calm(write, log, journal);
    });
    let delays = log.calm_delays();
    let late = delays.iter().filter(|delay| **delay > 2).count();
    assert!(late <= delays.len() / 20, "{late} of {} rows waited: {delays:?}", delays.len());
    // The backlog of the first half takes longer than the second, and what floods no more is fresh again.
    let last: Vec<usize> = log.born.values().copied().filter(|write| *write >= 100).collect();
    let fresh =
        log.writes.iter().enumerate().flat_map(|(write, points)| points.iter().map(move |p| (write, p)));
    let fresh =
        fresh.filter(|(write, point)| log.born[*point] >= 100 && write - log.born[*point] <= 2).count();
    assert!(fresh >= last.len() * 9 / 10, "{fresh} of {} rows were fresh", last.len());
}

#[test]
fn one_calm_device_has_its_turns_beside_three_that_flood_alike() {
    let log = run(60, |_, log, journal| {
        for n in 0..36 {
            log.submit(journal, ["flood", "flood2", "flood3"][n % 3], 10);
        }
        log.submit(journal, "calm", 1);
    });
    let delays = log.calm_delays();
    let late = delays.iter().filter(|delay| **delay > 2).count();
    assert!(delays.len() == 60 && late <= 3, "{late} of {} rows waited: {delays:?}", delays.len());
}

#[test]
fn devices_of_which_none_stands_out_share_the_turns() {
    let log = run(60, |_, log, journal| {
        for n in 0..10 {
            log.submit(journal, &format!("calm{n}"), 30);
        }
    });
    // Some of what comes is always among the latest, of each of them.
    for n in 0..10 {
        let series = format!("m,device=calm{n}");
        let writes = log.writes.iter().enumerate().take(60);
        let of = writes.flat_map(|(write, points)| points.iter().map(move |point| (write, point)));
        let fresh = of.filter(|(write, point)| point.0 == series && write - log.born[*point] <= 4).count();
        assert!(fresh >= 60, "{fresh} rows of {series} were fresh");
    }
}

/// Tells when points come, and that each of them takes bytes of the line.
struct Line {
    began: Instant,
    stored: Arc<Mutex<Vec<(Point, Duration)>>>,
    sent: u64,
}

const POINT_BYTES: u64 = 50;

impl Sink for Line {
    async fn write(&mut self, part: &Part<'_>) -> Outcome {
        let now = self.began.elapsed();
        let points = part.points().map(|point| ((point.series.to_owned(), point.ns), now));
        self.stored.lock().unwrap().extend(points);
        self.sent += POINT_BYTES * part.count() as u64;
        Outcome::Confirmed
    }

    fn sent_bytes(&self) -> u64 {
        self.sent
    }
}

fn submit_row(journal: &Journal, device: &str, ns: i64) {
    let (fields, series) = ([("v".to_owned(), Value::Integer(1))], format!("m,device={device}"));
    let submitted: Result<((), Offset), Refused> = journal.submit(Class::Foreign, |state, submission| {
        let sequence = state.next_number(device);
        let (boot, stamped, series, fields) = (0, false, series.as_str(), Fields::of(&fields));
        submission.add(&Entry::Row(RowEntry { device, boot, sequence, stamped, series, ns, fields }))
    });
    submitted.unwrap();
}

#[test]
fn at_a_pace_that_takes_half_of_a_flood_calm_rows_are_stored_within_two_seconds() {
    let (journal, stored, began) = (journal(), Arc::default(), Instant::now());
    let line = Line { began, stored: Arc::clone(&stored), sent: 0 };
    let running = start(&journal, line, Some(510 * POINT_BYTES));
    // A thousand rows a second of one device, one a second of each of twenty.
    let mut calm = 0;
    for tick in 0..400_u32 {
        let due = Duration::from_millis(10) * tick;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let ns = began.elapsed().as_nanos() as i64;
        (0..10).for_each(|n| submit_row(&journal, "flood", ns + n));
        if tick % 5 == 0 {
            submit_row(&journal, &format!("calm{}", tick / 5 % 20), ns);
            calm += 1;
        }
    }
    until_delivered(&journal, &["main"]);
    running.stop();
    let stored = stored.lock().unwrap();
    assert_eq!(stored.iter().map(|(point, _)| point).collect::<HashSet<_>>().len(), 4_000 + calm);
    assert_eq!(stored.len(), 4_000 + calm, "rows were sent twice");
    assert_eq!(ledger(&journal, "flood", "main"), (4_000, 0));
    let delays = stored.iter().filter(|((series, _), _)| series.starts_with("m,device=calm"));
    let delay = |((_, ns), at): &(Point, Duration)| at.saturating_sub(Duration::from_nanos(*ns as u64));
    let mut delays: Vec<Duration> = delays.map(delay).collect();
    delays.sort_unstable();
    let p95 = delays[delays.len() * 95 / 100];
    println!("calm rows: median {:?}, p95 {p95:?}, most {:?}", delays[delays.len() / 2], delays.last());
    assert!(p95 < Duration::from_secs(2), "p95 {p95:?}");
    let last = stored.iter().map(|(_, at)| *at).max();
    assert!(last > Some(Duration::from_secs(7)), "the pace was kept: {last:?}");
}

/// A generator of a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn is_refused(point: &Point) -> bool {
    point.0.starts_with("m,") && point.1 % 211 == 7
}

/// What the disk had when a life ended, in the instant in which its store had confirmed these points.
struct Cut {
    disk: MemoryStorage,
    points: Vec<Point>,
}

/// One life of a driver, over a journal that may have rows: its store fails now and then. Unless it is the last one it is cut off
/// after some writes, between a confirmation and what the journal would have been told of it. What it stored.
fn live(
    storage: &MemoryStorage,
    journal: &Journal,
    log: &Arc<Mutex<Log>>,
    seed: u64,
    is_last: bool,
) -> (Vec<Point>, Option<Cut>) {
    let (mut random, mut answers) = (Random(seed), Random(!seed));
    let devices = 2 + random.below(10);
    let loads: Vec<u64> = (0..devices).map(|_| [1, 1, 2, 60, 200, 400][random.below(6) as usize]).collect();
    let (from, writes) = (log.lock().unwrap().writes.len(), 20 + random.below(40) as usize);
    let cut = Arc::<Mutex<Option<Cut>>>::default();
    let cut_of_feed = Arc::clone(&cut);
    let feed = move |log: &mut Log, journal: &Journal| {
        let is_over =
            if is_last { log.writes.len() >= from + writes } else { cut_of_feed.lock().unwrap().is_some() };
        if !is_over {
            for (n, load) in loads.iter().enumerate() {
                log.submit(journal, &format!("d{n}"), random.below(*load) as i64 + i64::from(n == 0));
            }
        }
    };
    let (mut answered, mut faults) = (0, 0);
    let (disk, cut_of_answer) = (storage.clone(), Arc::clone(&cut));
    let answer = move |points: &[Point]| {
        answered += 1;
        faults += u64::from(answers.below(15) == 0);
        let mut cut = cut_of_answer.lock().unwrap();
        match points.iter().any(is_refused) {
            _ if cut.is_some() => retry(),
            _ if faults == 1 => {
                faults = 2;
                retry()
            }
            true if points.len() == 1 => Outcome::RejectedAll { reason: "400: bad".into() },
            true => Outcome::Rejected { reason: "400: bad".into() },
            false => {
                if !is_last && answered > writes {
                    *cut = Some(Cut { disk: disk.power_cut(|_, _| false), points: points.to_vec() });
                }
                Outcome::Confirmed
            }
        }
    };
    let running = start(journal, store(journal, log, feed, answer), None);
    if is_last {
        until(|| log.lock().unwrap().writes.len() >= from + writes);
        until_delivered(journal, &["main"]);
    } else {
        until(|| cut.lock().unwrap().is_some());
    }
    running.stop();
    let log = log.lock().unwrap();
    let stored =
        log.writes[from..].iter().flatten().filter(|(series, _)| series.starts_with("m,")).cloned().collect();
    (stored, cut.lock().unwrap().take())
}

fn lives(seed: u64) {
    let mut storage = MemoryStorage::new();
    let log = Arc::<Mutex<Log>>::default();
    let mut seen: HashSet<Point> = HashSet::new();
    // What was confirmed in the instant in which a life ended, and is still to come again.
    let mut unknown: HashSet<Point> = HashSet::new();
    for life in 0..3 {
        let journal = journal_in(&storage);
        let done = |point: &Point| {
            let device = point.0.trim_start_matches("m,device=");
            journal.with_state(|state| {
                let ledgers = state.device(device).map(|device| state.ledgers(device).next());
                ledgers.flatten().map_or(0, |(_, ledger)| ledger.settled())
            })
        };
        let done: HashMap<String, u64> = seen.iter().map(|point| (point.0.clone(), done(point))).collect();
        if life == 0 {
            log.lock().unwrap().submit(&journal, "d0", 500);
        }
        let (stored, cut) = live(&storage, &journal, &log, seed.wrapping_add(life), life == 2);
        let distinct: HashSet<Point> = stored.iter().cloned().collect();
        assert_eq!(distinct.len(), stored.len(), "seed {seed}, life {life}: rows were sent twice");
        for again in distinct.intersection(&seen) {
            assert!(
                again.1 as u64 >= done[&again.0],
                "seed {seed}, life {life}: {again:?} was in the ledger"
            );
        }
        unknown.retain(|point| !distinct.contains(point));
        seen.extend(distinct);
        let log = log.lock().unwrap();
        let told = |device: &String| ledger(&journal, device, "main");
        if life == 2 {
            assert_eq!(
                unknown.len(),
                0,
                "seed {seed}: no ledger has {unknown:?}, and they did not come again"
            );
            let refused = log.born.keys().filter(|point| is_refused(point)).count();
            assert_eq!(seen.len() + refused, log.born.len(), "seed {seed}: rows were not sent");
            for (device, rows) in log.next.iter().filter(|(_, rows)| **rows > 0) {
                let refused = (0..*rows).filter(|number| number % 211 == 7).count() as u64;
                assert_eq!(told(device), (*rows as u64 - refused, refused), "seed {seed}: {device}");
            }
        }
        drop(journal);
        if let Some(cut) = cut {
            unknown.extend(cut.points.into_iter().filter(|(series, _)| series.starts_with("m,")));
            storage = cut.disk;
        }
    }
}

#[test]
fn random_floods_with_kills_in_between_lose_nothing_and_repeat_only_what_went_ahead() {
    let random = env::var("FOREBAY_SEED")
        .map_or_else(|_| u64::from(getrandom::u32().unwrap()), |s| s.parse().unwrap());
    println!("FOREBAY_SEED={random}");
    for n in 0..4 {
        lives(random.wrapping_add(1_000 * n));
    }
}
