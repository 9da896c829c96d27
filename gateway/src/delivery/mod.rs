//! Delivery: from the journal to one sink, in order, until it confirms.
//!
//! * In: committed frames of the journal.
//! * Out: batches for a sink; the sink's cursor, and gaps for what it refuses, back to the journal.
//! * Next: `sink/` (a file per write path).
//!
//! *Constraints.* Nothing is dropped but what the database refuses in its own words, and that becomes a durable
//! gap in the same submission as the cursor that passes it. The cursor is durable before the next batch is sent, so
//! that a kill doubles at most the batch in flight; but while the journal is nearly full, a cursor is written once a
//! segment, because it has to free more than it takes, and a kill doubles at most a segment's worth. One sink never waits
//! for another, and none keeps the journal from making room.
//!
//! *Operation.* `driver.rs` runs a thread for each sink: gather (`batcher.rs`), write, commit, repeat. What happens to
//! one batch is decided here, in [`Delivery`], which knows neither clock nor network nor journal: a batch is a number
//! of points, an answer an [`Outcome`], time an argument.
//!
//! *Failure.* Retry and hold wait (`backoff.rs`) and send the same points again, for ever. A rejected part is halved
//! until the offenders stand alone; since parts go from left to right, what is dealt with is always the front of the
//! batch. After [`REQUESTS_MAX`] answers the front is settled and the rest starts afresh as a batch of its own:
//! offenders cost requests, but never a neighbour. A part that is too large is halved too, and remembered as the
//! size not to be exceeded.

pub mod backoff;
pub mod batcher;
mod commit;
mod complaints;
pub mod driver;
#[cfg(test)]
mod driver_tests;
mod gaps;
mod gather;
pub mod horizon;
pub mod letters;
mod losses;
mod progress;
mod rejection;
mod skip;
pub mod status;

use std::ops::Range;
use std::time::Instant;

use self::backoff::Backoff;
use crate::sink::Outcome;

/// Answers that one batch may cost before what is dealt with is settled.
pub const REQUESTS_MAX: u32 = 64;
/// So many parts of the largest size in a row raise that size again after a server found parts too large.
const PARTS_BEFORE_GROWTH: u32 = 256;

/// The decisions about one batch after another.
#[derive(Debug)]
pub struct Delivery {
    backoff: Backoff,
    wait_until: Option<Instant>,
    /// What is left of the batch, leftmost last.
    parts: Vec<Pending>,
    /// Points from the left that are dealt with.
    settled: usize,
    rejected: Vec<Rejected>,
    requests: u32,
    /// Most points that the server takes at once, as far as is known.
    part_max: usize,
    parts_of_that_size: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these points of the batch, and report the outcome.
    Write(Range<usize>),
    /// Nothing before this instant.
    Wait(Instant),
    /// Commit the front of the batch, which [`Delivery::settle`] names; if points remain, begin them as a new batch.
    Settle,
}

/// The front of a batch that is dealt with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many points it has.
    pub points: usize,
    /// Those of them that the sink refused, in ascending order; it confirmed all others.
    pub rejected: Vec<Rejected>,
}

/// A refused point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its number in the batch.
    pub point: usize,
    /// What the server says.
    pub reason: String,
}

#[derive(Debug)]
struct Pending {
    points: Range<usize>,
    /// There is an offender in it for certain, so that sending it whole would be wasted.
    guilty: bool,
    /// There is one for certain if the part to its left, its other half, turns out to have none.
    guilty_if_left_is_not: bool,
}

impl Delivery {
    /// No batch yet.
    #[must_use]
    pub fn new(backoff: Backoff) -> Delivery {
        Delivery {
            backoff,
            wait_until: None,
            parts: Vec::new(),
            settled: 0,
            rejected: Vec::new(),
            requests: 0,
            part_max: usize::MAX,
            parts_of_that_size: 0,
        }
    }

    /// A batch of that many points is to be delivered; one before it was settled.
    pub fn handle_batch(&mut self, points: usize) {
        (self.settled, self.requests) = (0, 0);
        self.rejected.clear();
        self.parts.clear();
        if points > 0 {
            self.parts.push(Pending::new(0..points));
        }
    }

    /// The next step.
    pub fn poll(&mut self, now: Instant) -> Step {
        if let Some(until) = self.wait_until.filter(|until| now < *until) {
            return Step::Wait(until);
        }
        self.wait_until = None;
        while self.requests < REQUESTS_MAX || self.settled == 0 {
            let Some(part) = self.parts.last() else { break };
            if part.points.len() > self.part_max {
                self.cut(self.part_max);
            } else if part.guilty && part.points.len() > 1 {
                self.halve();
            } else {
                return Step::Write(part.points.clone());
            }
        }
        Step::Settle
    }

    /// The answer to the part that [`Delivery::poll`] named last.
    pub fn handle_outcome(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Retry { after, .. } => {
                let wait = match after {
                    Some(after) => self.backoff.imposed(after),
                    None => self.backoff.retry(),
                };
                self.wait_until = Some(now + wait);
                return;
            }
            Outcome::Hold { .. } => {
                self.wait_until = Some(now + self.backoff.hold());
                return;
            }
            Outcome::Confirmed => self.confirm(),
            Outcome::TooLarge { reason } => {
                let points = self.parts.last().map_or(0, |part| part.points.len());
                if points > 1 {
                    self.part_max = points.div_ceil(2);
                    self.parts_of_that_size = 0;
                } else {
                    self.reject(reason);
                }
            }
            Outcome::Rejected { reason } => self.reject(reason),
        }
        self.backoff.reset();
        self.requests = self.requests.saturating_add(1);
    }

    /// Nobody was refused so far in this batch.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rejected.is_empty()
    }

    /// Takes the front of the batch that is dealt with; the numbers of what remains start anew behind it.
    pub fn settle(&mut self) -> Settled {
        Settled { points: std::mem::take(&mut self.settled), rejected: std::mem::take(&mut self.rejected) }
    }

    fn confirm(&mut self) {
        let Some(part) = self.parts.pop() else { return };
        self.settled = part.points.end;
        if let Some(right) = self.parts.last_mut() {
            right.guilty |= right.guilty_if_left_is_not;
        }
        if part.points.len() == self.part_max {
            self.parts_of_that_size += 1;
            if self.parts_of_that_size == PARTS_BEFORE_GROWTH {
                self.part_max = self.part_max.saturating_mul(2);
                self.parts_of_that_size = 0;
            }
        }
    }

    fn reject(&mut self, reason: String) {
        if self.parts.last().is_some_and(|part| part.points.len() > 1) {
            self.halve();
        } else if let Some(part) = self.parts.pop() {
            self.settled = part.points.end;
            self.rejected.push(Rejected { point: part.points.start, reason });
            self.acquit_right();
        }
    }

    /// Replaces a part that has an offender by its halves.
    fn halve(&mut self) {
        let Some(part) = self.parts.pop() else { return };
        self.acquit_right();
        let middle = part.points.start + part.points.len() / 2;
        let right = Pending::new(middle..part.points.end);
        self.parts.push(Pending { guilty_if_left_is_not: true, ..right });
        self.parts.push(Pending::new(part.points.start..middle));
    }

    /// Cuts a piece of `points` points off the front of a part. If an offender is in it, it may be in either piece.
    fn cut(&mut self, points: usize) {
        let Some(part) = self.parts.pop() else { return };
        self.acquit_right();
        let middle = part.points.start + points;
        self.parts.push(Pending::new(middle..part.points.end));
        self.parts.push(Pending::new(part.points.start..middle));
    }

    /// The part to the left of the next one is no longer what that one's guilt was to be inferred from.
    fn acquit_right(&mut self) {
        if let Some(right) = self.parts.last_mut() {
            right.guilty_if_left_is_not = false;
        }
    }
}

impl Settled {
    /// What is before the first refused point.
    fn before_refused(self) -> Settled {
        let points = self.rejected.first().map_or(self.points, |rejected| rejected.point);
        Settled { points, rejected: Vec::new() }
    }
}

impl Pending {
    fn new(points: Range<usize>) -> Pending {
        Pending { points, guilty: false, guilty_if_left_is_not: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A store that refuses some points, takes so many at once, and fails now and then.
    struct Store {
        bad: BTreeSet<usize>,
        largest: usize,
        faults: u32,
        stored: BTreeSet<usize>,
        answers: u32,
    }

    impl Store {
        fn new(bad: BTreeSet<usize>) -> Store {
            Store { bad, largest: usize::MAX, faults: 0, stored: BTreeSet::new(), answers: 0 }
        }

        fn write(&mut self, points: Range<usize>) -> Outcome {
            self.faults = self.faults.rotate_right(1);
            if self.faults & 1 == 1 {
                return Outcome::Retry { reason: "502".into(), after: None, unknown: true };
            }
            self.answers += 1;
            if points.len() > self.largest {
                return Outcome::TooLarge { reason: "413".into() };
            }
            if points.clone().any(|point| self.bad.contains(&point)) {
                return Outcome::Rejected { reason: "400".into() };
            }
            self.stored.extend(points);
            Outcome::Confirmed
        }
    }

    fn delivery() -> Delivery {
        Delivery::new(Backoff::new(1))
    }

    /// Delivers a batch to its end, settlement by settlement, on a clock that jumps to each wake-up.
    fn deliver(delivery: &mut Delivery, store: &mut Store, points: usize) -> BTreeSet<usize> {
        let mut now = Instant::now();
        let (mut done, mut rejected) = (0, BTreeSet::new());
        while done < points {
            delivery.handle_batch(points - done);
            let answers = store.answers;
            loop {
                match delivery.poll(now) {
                    Step::Write(part) => {
                        assert!(!part.is_empty());
                        let outcome = store.write(part.start + done..part.end + done);
                        delivery.handle_outcome(now, outcome);
                    }
                    Step::Wait(until) => {
                        assert!(until > now);
                        now = until;
                    }
                    Step::Settle => break,
                }
            }
            assert!(store.answers - answers <= REQUESTS_MAX);
            let settled = delivery.settle();
            assert!(settled.points > 0, "a batch must get on within its requests");
            rejected.extend(settled.rejected.iter().map(|r| r.point + done));
            done += settled.points;
        }
        rejected
    }

    proptest! {
        #[test]
        fn offenders_are_found_and_neighbours_stored(
            points in 1_usize..3000, bad in prop::collection::btree_set(0_usize..3000, 0..40),
            largest in prop_oneof![Just(usize::MAX), 1_usize..3000], faults: u32,
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|point| *point < points).collect();
            let faults = faults & 0x7fff_ffff;
            let mut store = Store { largest, faults, ..Store::new(bad.clone()) };
            let rejected = deliver(&mut delivery(), &mut store, points);
            prop_assert_eq!(&rejected, &bad);
            let good: BTreeSet<usize> = (0..points).filter(|point| !bad.contains(point)).collect();
            prop_assert_eq!(&store.stored, &good);
        }
    }

    #[test]
    fn one_offender_in_5000_costs_few_requests() {
        for offender in [0, 1, 2499, 2500, 4998, 4999] {
            let mut store = Store::new(BTreeSet::from([offender]));
            assert_eq!(deliver(&mut delivery(), &mut store, 5000), BTreeSet::from([offender]));
            assert_eq!(store.stored.len(), 4999);
            assert!(store.answers <= 28, "{} requests", store.answers);
        }
    }

    #[test]
    fn a_batch_of_offenders_gets_on_settlement_by_settlement() {
        let mut store = Store::new((0..300).collect());
        assert_eq!(deliver(&mut delivery(), &mut store, 300).len(), 300);
    }

    #[test]
    fn what_is_too_large_is_halved_and_remembered() {
        let mut delivery = delivery();
        let mut store = Store { largest: 100, ..Store::new(BTreeSet::new()) };
        deliver(&mut delivery, &mut store, 1000);
        let learned = store.answers;
        deliver(&mut delivery, &mut store, 1000);
        assert_eq!(store.answers - learned, 16, "1000 points in parts of at most 63, none refused");
        assert!(delivery.part_max <= 100);
    }

    #[test]
    fn a_point_that_is_too_large_alone_is_an_offender() {
        let mut store = Store { largest: 0, ..Store::new(BTreeSet::new()) };
        assert_eq!(deliver(&mut delivery(), &mut store, 3).len(), 3);
    }

    #[test]
    fn what_is_before_the_first_refused_point_can_be_settled_by_itself() {
        let rejected = |point| Rejected { point, reason: String::new() };
        let settled = Settled { points: 9, rejected: vec![rejected(4), rejected(6)] };
        assert_eq!(settled.before_refused(), Settled { points: 4, rejected: vec![] });
        let settled = Settled { points: 9, rejected: vec![rejected(0)] };
        assert_eq!(settled.before_refused().points, 0);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_send_the_same_again() {
        let mut now = Instant::now();
        let mut delivery = delivery();
        delivery.handle_batch(10);
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            assert_eq!(delivery.poll(now), Step::Write(0..10));
            delivery
                .handle_outcome(now, Outcome::Retry { reason: String::new(), after: None, unknown: true });
            let Step::Wait(until) = delivery.poll(now) else { panic!("no wait after a failure") };
            assert_eq!(delivery.poll(until - Duration::from_nanos(1)), Step::Wait(until));
            longest = longest.max(until - now);
            now = until;
        }
        assert!(longest > Duration::from_secs(20) && longest <= backoff::LONGEST_WAIT, "{longest:?}");
        delivery.handle_outcome(now, Outcome::Confirmed);
        assert_eq!(delivery.poll(now), Step::Settle);
        assert_eq!(delivery.settle(), Settled { points: 10, rejected: vec![] });
    }

    #[test]
    fn a_server_that_names_a_wait_gets_it_and_a_hold_is_slow() {
        let now = Instant::now();
        let mut delivery = delivery();
        delivery.handle_batch(1);
        let after = Some(Duration::from_secs(60));
        delivery.handle_outcome(now, Outcome::Retry { reason: String::new(), after, unknown: false });
        assert!(matches!(delivery.poll(now), Step::Wait(until) if until >= now + Duration::from_secs(60)));
        let now = now + Duration::from_secs(600);
        assert_eq!(delivery.poll(now), Step::Write(0..1));
        delivery.handle_outcome(now, Outcome::Hold { reason: String::new() });
        assert!(matches!(delivery.poll(now), Step::Wait(until) if until >= now + Duration::from_secs(2)));
    }
}
