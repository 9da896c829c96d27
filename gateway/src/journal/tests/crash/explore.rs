//! Goes through the crash states of a workload: every call, every pattern, and lives after lives.
//!
//! A state is named by its path: the seed of the workload, and for each crash the crash point in the life, the sectors
//! that the call had written by then, and the pattern of what survived, or `k` where only the process was killed.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use super::life::{Life, Profile};
use super::names::{Rng, mix};
use super::tap::{Known, Point, Tap};
use super::tears;
use crate::journal::frame::FrameHeader;
use crate::journal::memory::MemoryStorage;
use crate::journal::segment::{HeaderRead, SegmentHeader, SegmentId};
use crate::journal::storage::Storage;

/// A state's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) seed: u64,
    crashes: Vec<Crash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crash {
    point: usize,
    sectors: usize,
    /// The pattern of a power cut; none for a kill.
    pattern: Option<usize>,
}

/// How much is looked at.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Steps of a workload.
    pub(super) steps: usize,
    /// One state in so many gets a second life that writes on, and crashes at every call.
    pub(super) second: u64,
    /// One state in so many of a second life gets a third.
    pub(super) third: u64,
}

/// A state that breaks a promise.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) path: Path,
    pub(super) message: String,
}

/// States seen, by kind.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// Goes through the states of one workload.
pub(super) struct Explorer {
    profile: Profile,
    effort: Effort,
    path: Path,
    seen: HashSet<u64>,
    pub(super) counts: Counts,
}

/// So many times as many second lives begin with a torn tail.
const TORN_MORE: u64 = 20;

/// Steps of a life after a crash.
const LATER_STEPS: usize = 7;

impl Explorer {
    pub(super) fn new(seed: u64, effort: Effort) -> Explorer {
        let path = Path { seed, crashes: Vec::new() };
        Explorer { profile: Profile::of(seed), effort, path, seen: HashSet::new(), counts: Counts::new() }
    }

    /// Goes through all states.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        let (points, lived) = self.observe(&Start::nothing(), self.effort.steps, true);
        lived?;
        self.crash(&points, self.path.seed)
    }

    /// Goes through the life that does not crash.
    pub(super) fn live(&self) -> Result<(), Failure> {
        self.observe(&Start::nothing(), self.effort.steps, false).1
    }

    /// Goes to one state and lives on there.
    pub(super) fn replay(&mut self, path: &Path) -> Result<(), Failure> {
        // Lives on the way may break promises too; what counts is the last one.
        let (mut points, mut lived) = self.observe(&Start::nothing(), self.effort.steps, true);
        print_points(&points);
        for crash in &path.crashes {
            let point = points.get(crash.point).cloned().unwrap_or_else(|| panic!("{path} does not exist"));
            let before = point.storage(crash.sectors);
            self.path.crashes.push(*crash);
            let storage = match crash.pattern {
                Some(pattern) => {
                    let patterns = tears::patterns(&before);
                    let fates =
                        patterns.get(pattern).unwrap_or_else(|| panic!("{path} does not exist")).fates;
                    println!("{}: before {:?}, {fates:?}", self.path, point.call);
                    before.after_power_cut(&fates)
                }
                None => before.after_kill(),
            };
            println!("acked {}, submitted {}", point.known.acked, point.known.view.end());
            println!("{}", listing(&storage));
            let start = Start { storage, known: point.known.clone() };
            (points, lived) = self.observe(&start, LATER_STEPS, true);
            print_points(&points);
        }
        lived
    }

    /// Crashes at each point of a life and judges what comes after.
    fn crash(&mut self, points: &[Point], parent: u64) -> Result<(), Failure> {
        for (at, point) in points.iter().enumerate() {
            let start = |storage| Start { storage, known: point.known.clone() };
            for sectors in 0..point.sectors().max(1) {
                let before = point.storage(sectors);
                let key = mix(&[parent, at as u64, sectors as u64]);
                let kill = Crash { point: at, sectors, pattern: None };
                self.visit(kill, false, key, &start(before.after_kill()))?;
                for (number, tear) in tears::patterns(&before).iter().enumerate() {
                    let storage = before.after_power_cut(&tear.fates);
                    let key = mix(&[parent, at as u64, storage.digest()]);
                    let cut = Crash { pattern: Some(number), ..kill };
                    self.visit(cut, tear.torn, key, &start(storage))?;
                }
            }
        }
        Ok(())
    }

    fn visit(&mut self, crash: Crash, torn: bool, key: u64, start: &Start) -> Result<(), Failure> {
        if !self.seen.insert(key) {
            return Ok(());
        }
        let Crash { sectors, pattern, .. } = crash;
        self.path.crashes.push(crash);
        let depth = self.path.crashes.len();
        let chosen = match depth {
            1 if torn => key.is_multiple_of(self.effort.second / TORN_MORE),
            1 => key.is_multiple_of(self.effort.second),
            2 => key.is_multiple_of(self.effort.third),
            _ => false,
        };
        // What a killed process leaves is decided by a power cut in the next one.
        let deeper = chosen || depth == 1 && pattern.is_none();
        *self.counts.entry(kind(depth, sectors, pattern.is_none())).or_default() += 1;
        let (points, lived) = self.observe(start, if chosen { LATER_STEPS } else { 0 }, deeper);
        lived?;
        if deeper {
            self.crash(&points, key)?;
        }
        self.path.crashes.pop();
        Ok(())
    }

    /// One life, from recovery on.
    fn observe(&self, start: &Start, steps: usize, recording: bool) -> (Vec<Point>, Result<(), Failure>) {
        let tap = Tap::new(start.storage.clone(), start.known.clone(), recording);
        let rng = Rng(self.path.hash());
        let first = self.path.crashes.is_empty();
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut life = Life::open(tap.clone(), self.profile, rng.clone())?;
            if !first && steps > 0 && !rng.clone().one_in(3) {
                life.append_a_frame()?;
            }
            for _ in 0..steps {
                if life.over {
                    break;
                }
                life.step()?;
            }
            if steps > 0 { life.empty() } else { Ok(()) }
        }));
        let lived = lived.unwrap_or_else(|_| Err("a panic".into()));
        let points = if recording { tap.points() } else { Vec::new() };
        (points, lived.map_err(|message| Failure { path: self.path.clone(), message }))
    }
}

fn print_points(points: &[Point]) {
    points.iter().enumerate().for_each(|(at, point)| println!("    {at}: {point:?}"));
}

/// The segments of a storage and their frames.
fn listing(storage: &MemoryStorage) -> String {
    let mut text = String::new();
    for (name, bytes) in storage.fork().files() {
        let _ = writeln!(text, "{name}: {} bytes", bytes.len());
        let Some(id) = SegmentId::of_file_name(&name) else { continue };
        let file = storage.fork().open(&name).unwrap();
        let header = SegmentHeader::read(&*file, id).unwrap();
        let _ = writeln!(text, "    {header:?}");
        let HeaderRead::Intact(header) = header else { continue };
        for at in 0..bytes.len() {
            if let Some((header, _)) = FrameHeader::parse(&bytes[at..], id, header.journal) {
                let _ = writeln!(text, "    at {at}: {header:?}");
            }
        }
    }
    text
}

fn kind(depth: usize, sectors: usize, kill: bool) -> &'static str {
    match (depth, kill, sectors > 0) {
        (1, true, _) => "killed",
        (1, false, false) => "power cut before a call",
        (1, false, true) => "power cut within a write",
        (2, _, _) => "second crash",
        _ => "third crash",
    }
}

/// How a life begins.
struct Start {
    storage: MemoryStorage,
    known: Known,
}

impl Start {
    /// An empty disk, large enough, whose size lets the files be measured.
    fn nothing() -> Start {
        Start { storage: MemoryStorage::with_capacity(1 << 30), known: Known::default() }
    }
}

impl Path {
    fn hash(&self) -> u64 {
        self.crashes.iter().fold(self.seed, |hash, crash| {
            let pattern = crash.pattern.map_or(u64::MAX, |pattern| pattern as u64);
            mix(&[hash, crash.point as u64, crash.sectors as u64, pattern])
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for Crash { point, sectors, pattern } in &self.crashes {
            match pattern {
                Some(pattern) => write!(f, "/{point}.{sectors}.{pattern}")?,
                None => write!(f, "/{point}.{sectors}.k")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Path, String> {
        let wrong = || format!("{text:?} does not name a state");
        let mut parts = text.split('/');
        let seed = parts.next().and_then(|seed| seed.parse().ok()).ok_or_else(wrong)?;
        let crash = |part: &str| {
            let mut numbers = part.split('.');
            let point = numbers.next()?.parse().ok()?;
            let sectors = numbers.next()?.parse().ok()?;
            let pattern = match numbers.next()? {
                "k" => None,
                pattern => Some(pattern.parse().ok()?),
            };
            Some(Crash { point, sectors, pattern })
        };
        let crashes = parts.map(|part| crash(part).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        Ok(Path { seed, crashes })
    }
}
