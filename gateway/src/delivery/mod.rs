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
//! Points go in *lanes*: those of a class that the database is known to refuse (`lanes.rs`) go by themselves, behind all
//! others, so that none of these waits for them. A lane of which the server says that it refuses each point costs one
//! request; only where it does not say which are refused, the part is halved until the offenders stand alone.
//!
//! For a sink with `live_first` fresh rows take turns with a backlog (`ahead.rs`); what went ahead is not sent again when its
//! turn comes.
//!
//! *Failure.* Retry and hold wait (`backoff.rs`) and send the same points again, for ever. After [`REQUESTS_MAX`] answers
//! the front of the batch, up to the first point that is not dealt with, is settled; what is behind it goes on as a batch
//! of its own, and what of that is stored already is not sent again. So that there always is a front, the last
//! [`FRONT_REQUESTS`] of them are for the part that stands first. A part that is too large is halved too, and remembered
//! as the size not to be exceeded.

mod ahead;
pub mod backoff;
pub mod batcher;
mod commit;
mod complaints;
pub mod driver;
#[cfg(test)]
mod driver_tests;
mod gaps;
mod gather;
mod heavy;
pub mod horizon;
mod lanes;
pub mod letters;
mod losses;
mod pace;
mod position;
mod progress;
mod rejection;
pub mod replay;
mod skip;
pub mod status;
mod stored;
mod waits;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::backoff::Backoff;
use crate::sink::Outcome;

/// Answers that one batch may cost before what is dealt with is settled.
pub const REQUESTS_MAX: u32 = 64;
/// The last of them, which are kept for the part that stands first: halving finds its first point in fewer.
const FRONT_REQUESTS: u32 = 24;
/// So many parts of the largest size in a row raise that size again after a server found parts too large.
const PARTS_BEFORE_GROWTH: u32 = 256;

/// The decisions about one batch after another.
#[derive(Debug)]
pub struct Delivery {
    backoff: Backoff,
    wait_until: Option<Instant>,
    /// What is left of the batch, what goes next last.
    parts: Vec<Pending>,
    /// What became of each point of the batch.
    fates: Vec<Fate>,
    requests: u32,
    /// Most points that the server takes at once, as far as is known.
    part_max: usize,
    parts_of_that_size: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these points of the batch, in ascending order, and report the outcome.
    Write(Arc<[usize]>),
    /// Nothing before this instant.
    Wait(Instant),
    /// Commit the front of the batch, which [`Delivery::settle`] names; if points remain, go on behind it.
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
    pub reason: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Confirmed,
    Rejected(Arc<str>),
}

#[derive(Debug)]
struct Pending {
    /// In ascending order, at least one.
    points: Arc<[usize]>,
    /// There is an offender in it for certain, so that sending it whole would be wasted.
    guilty: bool,
    /// There is one for certain if the part that goes before it, its other half, turns out to have none.
    guilty_if_other_is_not: bool,
}

impl Delivery {
    /// No batch yet.
    #[must_use]
    pub fn new(backoff: Backoff) -> Delivery {
        Delivery {
            backoff,
            wait_until: None,
            parts: Vec::new(),
            fates: Vec::new(),
            requests: 0,
            part_max: usize::MAX,
            parts_of_that_size: 0,
        }
    }

    /// A delivery of other points to the same server.
    fn beside(&self) -> Delivery {
        Delivery { part_max: self.part_max, ..Delivery::new(Backoff::new(0)) }
    }

    /// A batch of so many points, numbered from 0, is to be delivered in these lanes. Those that are in none are confirmed
    /// already. What was left of another batch is forgotten.
    pub fn handle_batch(&mut self, points: usize, lanes: Vec<Vec<usize>>) {
        self.requests = 0;
        self.fates = vec![Fate::Confirmed; points];
        for point in lanes.iter().flatten() {
            self.fates[*point] = Fate::Open;
        }
        self.parts.clear();
        let parts = lanes.into_iter().rev().filter(|lane| !lane.is_empty());
        self.parts.extend(parts.map(|lane| Pending::new(lane.into())));
    }

    /// The front is committed, so many points of it: the rest goes on as a batch of its own, numbered anew.
    pub fn handle_commit(&mut self, points: usize) {
        self.requests = 0;
        self.fates.drain(..points.min(self.fates.len()));
        for part in &mut self.parts {
            part.points = part.points.iter().filter_map(|point| point.checked_sub(points)).collect();
        }
        self.parts.retain(|part| !part.points.is_empty());
    }

    /// The next step.
    pub fn poll(&mut self, now: Instant) -> Step {
        if let Some(until) = self.wait_until.filter(|until| now < *until) {
            return Step::Wait(until);
        }
        self.wait_until = None;
        while self.requests < REQUESTS_MAX || self.front() == 0 {
            if self.is_pressed() {
                self.turn_to_front();
            }
            let Some(part) = self.parts.last() else { break };
            if part.points.len() > self.part_max {
                self.cut(self.part_max);
            } else if part.guilty && part.points.len() > 1 {
                self.halve();
            } else {
                return Step::Write(Arc::clone(&part.points));
            }
        }
        Step::Settle
    }

    /// The answer to the part that [`Delivery::poll`] named last. `suspects` are points of it that belong to a class which
    /// the answer accuses, if it does.
    pub fn handle_outcome(&mut self, now: Instant, outcome: Outcome, suspects: &[usize]) {
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
            Outcome::Confirmed => self.confirm(&[]),
            Outcome::Partial { refused } => self.confirm(&refused),
            Outcome::TooLarge { reason } => {
                let points = self.parts.last().map_or(0, |part| part.points.len());
                if points > 1 {
                    self.part_max = points.div_ceil(2);
                    self.parts_of_that_size = 0;
                } else {
                    self.reject_all(reason);
                }
            }
            Outcome::RejectedAll { reason } => self.reject_all(reason),
            Outcome::Rejected { reason } => self.reject(reason, suspects),
            Outcome::RejectedNamed { reason, points } => {
                let part = self.parts.last().map_or_else(Arc::default, |part| Arc::clone(&part.points));
                let named: Vec<usize> = points.into_iter().filter_map(|at| part.get(at).copied()).collect();
                self.reject(reason, &named);
            }
        }
        self.backoff.reset();
        self.requests = self.requests.saturating_add(1);
    }

    /// The store answers again: what waits for it need not wait any longer.
    pub fn handle_return(&mut self) {
        self.wait_until = None;
    }

    /// How long to wait before it is looked whether a store that is waited for answers again.
    pub fn pause_before_look(&mut self) -> Duration {
        self.backoff.look()
    }

    /// Nobody was refused so far in this batch.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.fates.iter().any(|fate| matches!(fate, Fate::Rejected(_)))
    }

    /// The first point that would not be dealt with if `points` were.
    #[must_use]
    pub fn first_open_without(&self, points: &[usize]) -> usize {
        let mut without = points.iter().peekable();
        let open =
            |(point, fate): &(usize, &Fate)| without.next_if_eq(&point).is_none() && **fate == Fate::Open;
        self.fates.iter().enumerate().find(open).map_or(self.fates.len(), |(point, _)| point)
    }

    /// The front of the batch that is dealt with; [`Delivery::handle_commit`] takes it off.
    #[must_use]
    pub fn settle(&self) -> Settled {
        let points = self.front();
        let rejected = self.fates.iter().take(points).enumerate().filter_map(|(point, fate)| match fate {
            Fate::Rejected(reason) => Some(Rejected { point, reason: Arc::clone(reason) }),
            _ => None,
        });
        Settled { points, rejected: rejected.collect() }
    }

    /// Runs of confirmed points.
    fn confirmed(&self) -> impl Iterator<Item = Range<usize>> {
        let fates = self.fates.iter().enumerate();
        let confirmed = fates.filter(|(_, fate)| **fate == Fate::Confirmed).map(|(point, _)| point);
        let mut confirmed = confirmed.peekable();
        std::iter::from_fn(move || {
            let start = confirmed.next()?;
            let mut end = start + 1;
            while confirmed.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(start..end)
        })
    }

    /// Whether what requests are left is for the first point.
    fn is_pressed(&self) -> bool {
        self.requests + FRONT_REQUESTS >= REQUESTS_MAX && self.front() == 0
    }

    fn front(&self) -> usize {
        self.first_open_without(&[])
    }

    /// Everything in the part is stored but what is named, by number within it.
    fn confirm(&mut self, refused: &[(usize, String)]) {
        let Some(part) = self.parts.pop() else { return };
        let is_innocent = refused.is_empty();
        let mut refused = refused.iter().peekable();
        for (at, point) in part.points.iter().enumerate() {
            self.fates[*point] = match refused.next_if(|(number, _)| *number == at) {
                Some((_, reason)) => Fate::Rejected(reason.as_str().into()),
                None => Fate::Confirmed,
            };
        }
        if let Some(other) = self.parts.last_mut() {
            other.guilty |= std::mem::take(&mut other.guilty_if_other_is_not) && is_innocent;
        }
        if part.points.len() == self.part_max {
            self.parts_of_that_size += 1;
            if self.parts_of_that_size == PARTS_BEFORE_GROWTH {
                self.part_max = self.part_max.saturating_mul(2);
                self.parts_of_that_size = 0;
            }
        }
    }

    fn reject_all(&mut self, reason: String) {
        let Some(part) = self.take_part() else { return };
        let reason: Arc<str> = reason.into();
        for point in part.points.iter() {
            self.fates[*point] = Fate::Rejected(Arc::clone(&reason));
        }
    }

    /// There is an offender in the part. Suspects among its points go by themselves, behind the others.
    fn reject(&mut self, reason: String, suspects: &[usize]) {
        let points = self.parts.last().map_or(0, |part| part.points.len());
        if points <= 1 {
            self.reject_all(reason);
        } else if suspects.is_empty() || suspects.len() >= points || self.is_pressed() {
            self.halve();
        } else if let Some(part) = self.take_part() {
            let mut suspects = suspects.iter().peekable();
            let (accused, others): (Vec<usize>, Vec<usize>) =
                part.points.iter().partition(|point| suspects.next_if_eq(point).is_some());
            self.parts.push(Pending::new(accused.into()));
            self.parts.push(Pending::new(others.into()));
        }
    }

    /// Lets the part go next that has the first open point.
    fn turn_to_front(&mut self) {
        let first = (0..self.parts.len()).min_by_key(|at| self.parts[*at].points.first().copied());
        let Some(first) = first.filter(|first| first + 1 < self.parts.len()) else { return };
        // Which part goes before which is what guilt was to be inferred from.
        self.parts.iter_mut().for_each(|part| part.guilty_if_other_is_not = false);
        let part = self.parts.remove(first);
        self.parts.push(part);
    }

    /// Replaces a part that has an offender by its halves.
    fn halve(&mut self) {
        let Some(part) = self.take_part() else { return };
        let (left, right) = part.points.split_at(part.points.len() / 2);
        self.parts.push(Pending { guilty_if_other_is_not: true, ..Pending::new(right.into()) });
        self.parts.push(Pending::new(left.into()));
    }

    /// Cuts a piece of `points` points off the front of a part. If an offender is in it, it may be in either piece.
    fn cut(&mut self, points: usize) {
        let Some(part) = self.take_part() else { return };
        let (left, right) = part.points.split_at(points);
        self.parts.push(Pending::new(right.into()));
        self.parts.push(Pending::new(left.into()));
    }

    /// Takes the part that goes next, which is no longer what the guilt of the one behind it was to be inferred from.
    fn take_part(&mut self) -> Option<Pending> {
        let part = self.parts.pop();
        if let Some(other) = self.parts.last_mut() {
            other.guilty_if_other_is_not = false;
        }
        part
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
    fn new(points: Arc<[usize]>) -> Pending {
        Pending { points, guilty: false, guilty_if_other_is_not: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A store that refuses some points, takes so many at once, and fails now and then.
    struct Store {
        bad: BTreeSet<usize>,
        largest: usize,
        faults: u32,
        stored: BTreeSet<usize>,
        answers: u32,
        manner: Manner,
    }

    /// What a store says and does when it refuses points.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Manner {
        /// It stores nothing, and says only that something is wrong.
        Silent,
        /// It stores the others, and says how many were dropped.
        Counts,
        /// It stores the others, and says which were refused.
        Names,
        /// It stores nothing, and says which cannot be read.
        Quotes,
    }

    impl Store {
        fn new(bad: BTreeSet<usize>) -> Store {
            let (stored, manner) = (BTreeSet::new(), Manner::Silent);
            Store { bad, largest: usize::MAX, faults: 0, stored, answers: 0, manner }
        }

        fn write(&mut self, points: &[usize]) -> Outcome {
            self.faults = self.faults.rotate_right(1);
            if self.faults & 1 == 1 {
                return retry();
            }
            self.answers += 1;
            if points.len() > self.largest {
                return Outcome::TooLarge { reason: "413".into() };
            }
            let bad: Vec<usize> = (0..points.len()).filter(|at| self.bad.contains(&points[*at])).collect();
            if bad.is_empty() || matches!(self.manner, Manner::Counts | Manner::Names) {
                self.stored.extend(points.iter().filter(|point| !self.bad.contains(point)));
            }
            let reason = "400".to_owned();
            match self.manner {
                _ if bad.is_empty() => Outcome::Confirmed,
                Manner::Names => {
                    Outcome::Partial { refused: bad.into_iter().map(|at| (at, "line".to_owned())).collect() }
                }
                Manner::Counts | Manner::Quotes if bad.len() == points.len() => {
                    Outcome::RejectedAll { reason }
                }
                Manner::Quotes => Outcome::RejectedNamed { reason, points: bad },
                Manner::Silent | Manner::Counts => Outcome::Rejected { reason },
            }
        }
    }

    fn retry() -> Outcome {
        Outcome::Retry { reason: "502".into(), after: None, unknown: true }
    }

    fn delivery() -> Delivery {
        Delivery::new(Backoff::new(1))
    }

    /// Delivers a batch to its end, settlement by settlement, on a clock that jumps to each wake-up. Points that `is_known`
    /// has a class for go in a lane of their own, and those that it has one for are accused.
    fn deliver(
        delivery: &mut Delivery,
        store: &mut Store,
        points: usize,
        class: impl Fn(usize) -> Option<usize>,
    ) -> BTreeSet<usize> {
        let mut now = Instant::now();
        let (mut done, mut rejected) = (0, BTreeSet::new());
        let (known, good) = (0..points).partition(|point| class(*point) == Some(0));
        delivery.handle_batch(points, vec![good, known]);
        while done < points {
            let answers = store.answers;
            loop {
                match delivery.poll(now) {
                    Step::Write(part) => {
                        assert!(!part.is_empty() && part.is_sorted());
                        let part: Vec<usize> = part.iter().map(|point| point + done).collect();
                        let outcome = store.write(&part);
                        let accused =
                            part.iter().filter(|point| store.bad.contains(point)).find_map(|p| class(*p));
                        let suspects: Vec<usize> = part
                            .iter()
                            .filter(|point| accused.is_some() && class(**point) == accused)
                            .map(|point| point - done)
                            .collect();
                        delivery.handle_outcome(now, outcome, &suspects);
                    }
                    Step::Wait(until) => {
                        assert!(until > now);
                        now = until;
                    }
                    Step::Settle => break,
                }
            }
            assert!(store.answers - answers <= REQUESTS_MAX, "{} requests", store.answers - answers);
            let settled = delivery.settle();
            assert!(settled.points > 0, "a batch must get on within its requests");
            rejected.extend(settled.rejected.iter().map(|r| r.point + done));
            delivery.handle_commit(settled.points);
            done += settled.points;
        }
        rejected
    }

    proptest! {
        #[test]
        fn offenders_are_found_and_neighbours_stored(
            points in 1_usize..3000, bad in prop::collection::btree_set(0_usize..3000, 0..40),
            largest in prop_oneof![Just(usize::MAX), 1_usize..3000], faults: u32, manner in 0_usize..4, classes in 1_usize..60,
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|point| *point < points).collect();
            let faults = faults & 0x7fff_ffff;
            let manner = [Manner::Silent, Manner::Counts, Manner::Names, Manner::Quotes][manner];
            let mut store = Store { largest, faults, manner, ..Store::new(bad.clone()) };
            // Classes have good points too, and some offenders are of none.
            let class = |point: usize| Some(point % 7919 % classes).filter(|class| *class < 50);
            let rejected = deliver(&mut delivery(), &mut store, points, class);
            prop_assert_eq!(&rejected, &bad);
            let good: BTreeSet<usize> = (0..points).filter(|point| !bad.contains(point)).collect();
            prop_assert_eq!(&store.stored, &good);
        }
    }

    #[test]
    fn one_offender_in_5000_costs_few_requests() {
        for (manner, most) in
            [(Manner::Silent, 28), (Manner::Counts, 28), (Manner::Names, 1), (Manner::Quotes, 3)]
        {
            for offender in [0, 1, 2499, 2500, 4998, 4999] {
                let mut store = Store { manner, ..Store::new(BTreeSet::from([offender])) };
                let rejected = deliver(&mut delivery(), &mut store, 5000, |_| None);
                assert_eq!(rejected, BTreeSet::from([offender]));
                assert_eq!(store.stored.len(), 4999);
                assert!(store.answers <= most, "{manner:?}: {} requests", store.answers);
            }
        }
    }

    #[test]
    fn a_class_of_offenders_costs_three_requests_and_two_once_it_is_known() {
        let bad: BTreeSet<usize> = (0..5000).filter(|point: &usize| point.is_multiple_of(3)).collect();
        for (name, most) in [(1, 3), (0, 2)] {
            let mut store = Store { manner: Manner::Counts, ..Store::new(bad.clone()) };
            let class = |point: usize| point.is_multiple_of(3).then_some(name);
            assert_eq!(deliver(&mut delivery(), &mut store, 5000, class), bad);
            assert_eq!(store.answers, most);
        }
    }

    #[test]
    fn what_is_not_suspected_goes_first() {
        let now = Instant::now();
        let mut delivery = delivery();
        delivery.handle_batch(5, vec![vec![1, 3], vec![0, 2, 4]]);
        let Step::Write(first) = delivery.poll(now) else { panic!("nothing to write") };
        assert_eq!(*first, [1, 3]);
        assert_eq!(delivery.first_open_without(&first), 0);
        delivery.handle_outcome(now, Outcome::Confirmed, &[]);
        let Step::Write(second) = delivery.poll(now) else { panic!("nothing to write") };
        assert_eq!(*second, [0, 2, 4]);
        assert_eq!(delivery.first_open_without(&second), 5);
        assert_eq!(delivery.settle().points, 0, "what is behind the first open point is no front");
    }

    #[test]
    fn a_batch_of_offenders_gets_on_settlement_by_settlement() {
        let mut store = Store::new((0..300).collect());
        assert_eq!(deliver(&mut delivery(), &mut store, 300, |_| None).len(), 300);
    }

    #[test]
    fn what_is_stored_behind_the_front_is_not_sent_again() {
        let bad: BTreeSet<usize> = (0..200).collect();
        let mut store = Store::new(bad.clone());
        assert_eq!(deliver(&mut delivery(), &mut store, 400, |point| (point < 200).then_some(0)), bad);
        assert!(store.answers > 2 * REQUESTS_MAX, "several settlements");
        let good = (200..400).collect();
        assert_eq!(store.stored, good);
        assert_eq!(store.answers, 1 + 1 + 2 * 199, "the good ones in one request, the others halved");
    }

    #[test]
    fn what_is_too_large_is_halved_and_remembered() {
        let mut delivery = delivery();
        let mut store = Store { largest: 100, ..Store::new(BTreeSet::new()) };
        deliver(&mut delivery, &mut store, 1000, |_| None);
        let learned = store.answers;
        deliver(&mut delivery, &mut store, 1000, |_| None);
        assert_eq!(store.answers - learned, 16, "1000 points in parts of at most 63, none refused");
        assert!(delivery.part_max <= 100);
    }

    #[test]
    fn a_point_that_is_too_large_alone_is_an_offender() {
        let mut store = Store { largest: 0, ..Store::new(BTreeSet::new()) };
        assert_eq!(deliver(&mut delivery(), &mut store, 3, |_| None).len(), 3);
    }

    #[test]
    fn what_is_before_the_first_refused_point_can_be_settled_by_itself() {
        let rejected = |point| Rejected { point, reason: "".into() };
        let settled = Settled { points: 9, rejected: vec![rejected(4), rejected(6)] };
        assert_eq!(settled.before_refused(), Settled { points: 4, rejected: vec![] });
        let settled = Settled { points: 9, rejected: vec![rejected(0)] };
        assert_eq!(settled.before_refused().points, 0);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_send_the_same_again() {
        let mut now = Instant::now();
        let mut delivery = delivery();
        delivery.handle_batch(10, vec![(0..10).collect()]);
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            assert_eq!(delivery.poll(now), Step::Write((0..10).collect()));
            delivery.handle_outcome(now, retry(), &[]);
            let Step::Wait(until) = delivery.poll(now) else { panic!("no wait after a failure") };
            assert_eq!(delivery.poll(until - Duration::from_nanos(1)), Step::Wait(until));
            longest = longest.max(until - now);
            now = until;
        }
        assert!(longest > Duration::from_secs(20) && longest <= backoff::LONGEST_WAIT, "{longest:?}");
        delivery.handle_outcome(now, retry(), &[]);
        delivery.handle_return();
        assert_eq!(
            delivery.poll(now),
            Step::Write((0..10).collect()),
            "what has come back is not waited for"
        );
        delivery.handle_outcome(now, Outcome::Confirmed, &[]);
        assert_eq!(delivery.poll(now), Step::Settle);
        assert_eq!(delivery.settle(), Settled { points: 10, rejected: vec![] });
    }

    #[test]
    fn a_server_that_names_a_wait_gets_it_and_a_hold_is_slow() {
        let now = Instant::now();
        let mut delivery = delivery();
        delivery.handle_batch(1, vec![vec![0]]);
        let after = Some(Duration::from_secs(60));
        delivery.handle_outcome(now, Outcome::Retry { reason: String::new(), after, unknown: false }, &[]);
        assert!(matches!(delivery.poll(now), Step::Wait(until) if until >= now + Duration::from_secs(60)));
        let now = now + Duration::from_secs(600);
        assert_eq!(delivery.poll(now), Step::Write([0].into()));
        delivery.handle_outcome(now, Outcome::Hold { reason: String::new() }, &[]);
        assert!(matches!(delivery.poll(now), Step::Wait(until) if until >= now + Duration::from_secs(2)));
    }
}
