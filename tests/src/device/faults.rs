//! What goes wrong on the lines of a fleet, by seed: one set of knobs, from which every device gets decisions of its own.
//!
//! The same seed does the same to the n-th byte of a device in each direction, whenever that comes, and pulls its cable
//! at the same times after its start. Nothing here does IO or reads a clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_firmware::noise::{Chance, Noise, Random};
use forebay_shared::ids::Millis;
use serde::Serialize;

use super::link::LinkEvent;

/// Bytes that may be on their way in one direction of a line before it takes no more.
const WAY_BYTES_MAX: usize = 4 * 1024;

/// Longest pause before the rest of what was split arrives, in milliseconds.
const SPLIT_MS_MAX: u64 = 20;

/// How long a line is away once it is cut, in milliseconds.
const AWAY_MS: (u64, u64) = (200, 3_000);

/// The knobs of a fleet. Without any of them, lines are perfect.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Decides all of it.
    pub seed: u64,
    /// What happens to single bytes of serial lines.
    pub noise: Noise,
    /// How likely a read of a serial line ends behind a byte, and the rest comes a moment later.
    pub split: Chance,
    /// What is sent is on its way for up to so long.
    pub delay: Duration,
    /// Each line is cut that often, on average; never, if zero.
    pub disconnect: Duration,
    /// What was done so far, to all lines together.
    pub struck: Arc<Struck>,
}

/// How often each fault struck.
#[derive(Debug, Default, Serialize)]
pub struct Struck {
    /// Bytes with a bit turned over.
    pub flipped: AtomicU64,
    /// Bytes that did not arrive.
    pub dropped: AtomicU64,
    /// Bytes that arrived twice.
    pub duplicated: AtomicU64,
    /// Bytes that nobody sent.
    pub inserted: AtomicU64,
    /// Reads that ended early.
    pub split: AtomicU64,
    /// Pieces and messages that were held up.
    pub delayed: AtomicU64,
    /// Lines that were cut.
    pub disconnected: AtomicU64,
}

impl Faults {
    /// What the serial line of the device `name` meets.
    pub(super) fn of_line(&self, name: &str) -> LineFaults {
        let mut seeds = self.seeds(name);
        // Numbers of its own for each kind of decision, so that none depends on how bytes come together.
        let mut way = || Way {
            bytes_random: Random::new(seeds.below(1 << 40)),
            noise: self.noise,
            ends_random: Random::new(seeds.below(1 << 40)),
            split: self.split,
            struck: Arc::clone(&self.struck),
            arriving: self.held_up(seeds.below(1 << 40)),
            bytes: 0,
        };
        let (up, down) = (way(), way());
        LineFaults { up, down, outages: self.outages(&mut seeds) }
    }

    /// What the connection of the device `name` with its broker meets.
    pub(super) fn of_connection(&self, name: &str) -> ConnectionFaults {
        let mut seeds = self.seeds(name);
        let (up, down) = (self.held_up(seeds.below(1 << 40)), self.held_up(seeds.below(1 << 40)));
        ConnectionFaults { up, down, outages: self.outages(&mut seeds) }
    }

    fn seeds(&self, name: &str) -> Random {
        // Names differ near their ends, so that all of the number has to follow from each byte.
        let mix = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Random::new(name.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    fn held_up<T>(&self, seed: u64) -> HeldUp<T> {
        let delay_ms = u64::try_from(self.delay.as_millis()).unwrap_or(u64::MAX - 1);
        let (random, struck) = (Random::new(seed), Arc::clone(&self.struck));
        HeldUp { random, delay_ms, struck, queue: VecDeque::new(), last_at: Millis(0) }
    }

    fn outages(&self, seeds: &mut Random) -> Outages {
        let every_ms = u64::try_from(self.disconnect.as_millis()).unwrap_or(u64::MAX / 4);
        let (random, struck) = (Random::new(seeds.below(1 << 40)), Arc::clone(&self.struck));
        let mut outages = Outages { random, every_ms, next: Millis(0), struck };
        outages.plan(Millis(0));
        outages
    }
}

/// What one serial line meets.
#[derive(Debug)]
pub(super) struct LineFaults {
    pub(super) up: Way,
    pub(super) down: Way,
    pub(super) outages: Outages,
}

/// What one connection with a broker meets, which loses no bytes: messages with their topics go up, events come down.
#[derive(Debug)]
pub(super) struct ConnectionFaults {
    pub(super) up: HeldUp<(String, Vec<u8>)>,
    pub(super) down: HeldUp<LinkEvent>,
    pub(super) outages: Outages,
}

/// One direction of a serial line.
#[derive(Debug)]
pub(super) struct Way {
    bytes_random: Random,
    noise: Noise,
    ends_random: Random,
    split: Chance,
    struck: Arc<Struck>,
    arriving: HeldUp<Vec<u8>>,
    bytes: usize,
}

impl Way {
    /// How many bytes it takes now.
    pub(super) fn room(&self) -> usize {
        WAY_BYTES_MAX.saturating_sub(self.bytes)
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, now: Millis, bytes: &[u8]) {
        let mut arriving = Vec::with_capacity(bytes.len());
        let harmed = self.noise.pass(&mut self.bytes_random, bytes, |byte| arriving.push(byte));
        add(&self.struck.flipped, harmed.flipped);
        add(&self.struck.dropped, harmed.dropped);
        add(&self.struck.duplicated, harmed.duplicated);
        add(&self.struck.inserted, harmed.inserted);
        self.bytes += arriving.len();
        let at = self.arriving.due(now);
        let mut rest = arriving.as_slice();
        while let Some(end) = rest.iter().position(|_| self.ends()) {
            let (piece, behind) = rest.split_at(end + 1);
            self.push(at, piece);
            self.arriving.last_at.0 += self.ends_random.within(1, SPLIT_MS_MAX);
            rest = behind;
        }
        self.push(at, rest);
    }

    /// Whether a read ends behind the next byte.
    fn ends(&mut self) -> bool {
        let ends = self.split != Chance::NEVER && self.ends_random.happens(self.split);
        add(&self.struck.split, u64::from(ends));
        ends
    }

    /// What arrives at one time arrives in one piece.
    fn push(&mut self, at: Millis, piece: &[u8]) {
        let at = at.max(self.arriving.last_at);
        match self.arriving.queue.back_mut().filter(|(last, _)| *last == at) {
            Some((_, bytes)) => bytes.extend_from_slice(piece),
            None if piece.is_empty() => {}
            None => self.arriving.push(at, piece.to_vec()),
        }
    }

    /// When something arrives that has not arrived yet.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.arriving.next_at()
    }

    /// What has arrived by now and was not taken yet, up to where it is split.
    pub(super) fn arrived(&self, now: Millis) -> Option<&[u8]> {
        self.arriving.arrived(now).map(Vec::as_slice)
    }

    /// The first `count` bytes of what has arrived were taken.
    pub(super) fn take(&mut self, count: usize) {
        let Some((_, piece)) = self.arriving.queue.front_mut() else { return };
        let count = count.min(piece.len());
        self.bytes -= count;
        drop(piece.drain(..count));
        if piece.is_empty() {
            self.arriving.queue.pop_front();
        }
    }

    /// The cable was pulled: what is on its way is gone.
    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.arriving.queue.clear();
    }
}

/// What is on its way for a random time, and never overtakes.
#[derive(Debug)]
pub(super) struct HeldUp<T> {
    random: Random,
    delay_ms: u64,
    struck: Arc<Struck>,
    queue: VecDeque<(Millis, T)>,
    last_at: Millis,
}

impl<T> HeldUp<T> {
    /// Sends something.
    pub(super) fn send(&mut self, now: Millis, item: T) {
        let at = self.due(now);
        self.push(at, item);
    }

    /// How much is on its way.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the first of it arrives.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// The first of it, if it has arrived by now.
    pub(super) fn arrived(&self, now: Millis) -> Option<&T> {
        self.queue.front().filter(|(at, _)| *at <= now).map(|(_, item)| item)
    }

    /// Takes the first of it.
    pub(super) fn take(&mut self) -> Option<T> {
        self.queue.pop_front().map(|(_, item)| item)
    }

    fn due(&mut self, now: Millis) -> Millis {
        if self.delay_ms == 0 {
            return now;
        }
        add(&self.struck.delayed, 1);
        Millis(now.0 + self.random.within(0, self.delay_ms))
    }

    fn push(&mut self, at: Millis, item: T) {
        self.last_at = at.max(self.last_at);
        self.queue.push_back((self.last_at, item));
    }
}

/// When a line is cut, and for how long.
#[derive(Debug)]
pub(super) struct Outages {
    random: Random,
    every_ms: u64,
    next: Millis,
    struck: Arc<Struck>,
}

impl Outages {
    /// If the line is to be cut now, for how long.
    pub(super) fn due(&mut self, now: Millis) -> Option<Duration> {
        if self.every_ms == 0 || now < self.next {
            return None;
        }
        let away_ms = self.random.within(AWAY_MS.0, AWAY_MS.1);
        // From when it was due, so that being late once does not shift all that follows.
        self.plan(Millis(self.next.0 + away_ms));
        add(&self.struck.disconnected, 1);
        Some(Duration::from_millis(away_ms))
    }

    /// When the line is cut next.
    pub(super) fn next_at(&self) -> Option<Millis> {
        (self.every_ms > 0).then_some(self.next)
    }

    /// From now on it is not cut any more.
    pub(super) fn stop(&mut self) {
        self.every_ms = 0;
    }

    fn plan(&mut self, from: Millis) {
        self.next = Millis(from.0 + 1 + self.random.below(2 * self.every_ms.max(1)));
    }
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [u8; 4000] = [0x55; 4000];

    /// What arrives of [`SENT`], and when, if it is sent in pieces of so many bytes at once.
    fn passed(faults: &Faults, name: &str, piece: usize) -> Vec<(Millis, Vec<u8>)> {
        let mut way = faults.of_line(name).up;
        SENT.chunks(piece).for_each(|bytes| way.send(Millis(1000), bytes));
        let mut arrived = Vec::new();
        while let Some(at) = way.next_at() {
            assert_eq!(way.arrived(Millis(at.0 - 1)), None, "it arrives too early");
            let bytes = way.arrived(at).unwrap().to_vec();
            way.take(bytes.len());
            arrived.push((at, bytes));
        }
        assert_eq!(way.room(), WAY_BYTES_MAX);
        arrived
    }

    fn bytes(passed: Vec<(Millis, Vec<u8>)>) -> Vec<u8> {
        passed.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    fn percent() -> Chance {
        Chance::one_in(100)
    }

    fn count(counter: &AtomicU64) -> usize {
        usize::try_from(counter.load(Ordering::Relaxed)).unwrap()
    }

    #[test]
    fn a_perfect_line_brings_everything_at_once() {
        assert_eq!(passed(&Faults::default(), "a", SENT.len()), [(Millis(1000), SENT.to_vec())]);
    }

    #[test]
    fn the_same_seed_does_the_same_to_a_device_and_something_else_to_its_neighbour() {
        let noise = Noise { flip: percent(), drop: percent(), duplicate: percent(), insert: percent() };
        let faults = |seed| Faults { seed, noise, split: percent(), ..Faults::default() };
        let of = |seed, name, piece| {
            let faults = faults(seed);
            (bytes(passed(&faults, name, piece)), count(&faults.struck.split))
        };
        assert_eq!(of(1, "a", 7), of(1, "a", 400));
        assert_ne!(of(1, "a", 7), of(1, "b", 7));
        assert_ne!(of(1, "a", 7), of(2, "a", 7));
        let LineFaults { mut up, mut down, .. } = faults(1).of_line("a");
        up.send(Millis(0), &SENT);
        down.send(Millis(0), &SENT);
        assert_ne!(up.arrived(Millis(0)), down.arrived(Millis(0)), "each direction is a line of its own");
    }

    #[test]
    fn what_was_done_is_counted() {
        let noise = Noise { drop: percent(), insert: percent(), ..Noise::default() };
        let faults = Faults { seed: 3, noise, ..Faults::default() };
        let came = bytes(passed(&faults, "a", 100)).len();
        let struck = &faults.struck;
        let (dropped, inserted) = (count(&struck.dropped), count(&struck.inserted));
        assert!(dropped > 10 && inserted > 10);
        assert_eq!(came, SENT.len() - dropped + inserted);
        assert_eq!((count(&struck.flipped), count(&struck.duplicated), count(&struck.split)), (0, 0, 0));
    }

    #[test]
    fn a_split_read_has_its_rest_a_moment_later() {
        let faults = Faults { split: percent(), ..Faults::default() };
        let pieces = passed(&faults, "a", SENT.len());
        assert_eq!(pieces.len() - 1, count(&faults.struck.split));
        assert!((20..80).contains(&pieces.len()), "{}", pieces.len());
        assert!(pieces.is_sorted_by(|(a, _), (b, _)| a < b && b.0 - a.0 <= SPLIT_MS_MAX));
        assert_eq!(bytes(pieces), SENT);
    }

    #[test]
    fn a_delay_holds_up_and_nothing_overtakes() {
        let faults = Faults { delay: Duration::from_millis(50), ..Faults::default() };
        let pieces = passed(&faults, "a", 40);
        assert_eq!(count(&faults.struck.delayed), 100);
        assert!(pieces.iter().all(|(at, _)| (1000..=1050).contains(&at.0)) && pieces.len() > 2);
        assert!(pieces.is_sorted_by_key(|(at, _)| *at));
        assert_eq!(bytes(pieces), SENT);
        let mut messages = faults.of_connection("a").up;
        (0..9).for_each(|number| messages.send(Millis(0), (String::new(), vec![number])));
        assert_eq!(messages.len(), 9);
        assert_eq!(messages.arrived(Millis(50)).map(|(_, message)| message), Some(&vec![0]));
    }

    #[test]
    fn a_line_takes_no_more_than_it_holds_and_a_pulled_cable_holds_nothing() {
        let mut way = Faults::default().of_line("a").up;
        way.send(Millis(0), &SENT);
        assert_eq!(way.room(), WAY_BYTES_MAX - SENT.len());
        way.take(1000);
        assert_eq!(way.arrived(Millis(0)).map(<[u8]>::len), Some(3000));
        way.clear();
        assert_eq!((way.room(), way.next_at()), (WAY_BYTES_MAX, None));
    }

    #[test]
    fn lines_are_cut_as_often_as_told_and_at_the_same_times_for_the_same_seed() {
        let faults = |seed| Faults { seed, disconnect: Duration::from_secs(10), ..Faults::default() };
        let cuts = |seed| {
            let mut outages = faults(seed).of_line("a").outages;
            let times = (0..600_000).filter_map(|ms| outages.due(Millis(ms)).map(|away| (ms, away)));
            times.collect::<Vec<_>>()
        };
        let first = cuts(1);
        // The line is away for 1.6 s on average.
        assert!((35..75).contains(&first.len()), "{}", first.len());
        assert!(first.iter().all(|(_, away)| (200..=3000).contains(&away.as_millis())));
        assert_eq!(first, cuts(1));
        assert_ne!(first, cuts(2));
        let mut none = Faults::default().of_line("a").outages;
        assert_eq!((none.due(Millis(u64::MAX)), none.next_at()), (None, None));
    }
}
