//! Replay: refused points that are sent again, because somebody has mended the cause.
//!
//! * In: dead letters of one sink, by its [`Desk`].
//! * Out: requests to the sink; what it takes leaves the dead letters, and the ledger counts it as confirmed.
//!
//! Operation: the sink's own driver does it between two batches, over the same write path. A letter holds its point with
//! series, time and types as they were frozen at intake, and that is what is sent.
//!
//! Failure: a letter goes only after the database has confirmed its point, so a crash in between costs nothing but a second
//! replay, which changes nothing there. One between the end of a letter and the entry in the ledger leaves its rows counted
//! as dead-lettered. A database that does not answer, or still refuses, leaves the letter where it is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info};

use super::backoff::Backoff;
use super::driver::Driver;
use super::lanes::Lanes;
use super::{Delivery, Step};
use crate::dead_letters::{Letter, Stage};
use crate::journal::entry::Move;
use crate::journal::{Class, Refused};
use crate::sink::batch::OwnPoint;
use crate::sink::line_protocol::parse_line;
use crate::sink::{Outcome, Part, Sink};

/// Most letters that are handed in at once.
pub const LETTERS_MAX: usize = 256;
/// Most requests for a replay that wait.
const WAITING_MAX: usize = 4;

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its point is stored, and it is gone.
    Stored,
    /// It stays, because the database refuses its point still, or no point can be made of it.
    Refused(String),
    /// It stays, because the database could not be asked; others would fare no better.
    Failed(String),
}

/// Where letters of one sink are handed in.
#[derive(Debug, Default)]
pub struct Desk {
    waiting: Mutex<VecDeque<Replay>>,
    asked: Notify,
}

/// Letters that are to be sent again.
#[derive(Debug)]
pub struct Replay {
    letters: Vec<Letter>,
    answer: oneshot::Sender<Vec<Fate>>,
}

/// Too much is waiting at a desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("other dead letters of this database are being sent again; try it later")]
pub struct Busy;

impl Desk {
    /// Hands in letters, at most [`LETTERS_MAX`]; what became of each comes in their order, once the sink has time.
    ///
    /// # Errors
    /// Others wait already.
    pub fn hand_in(&self, letters: Vec<Letter>) -> Result<oneshot::Receiver<Vec<Fate>>, Busy> {
        let (answer, told) = oneshot::channel();
        let mut waiting = self.waiting();
        // Whoever has gone away does not wait any more.
        waiting.retain(|replay| !replay.answer.is_closed());
        if waiting.len() >= WAITING_MAX || letters.len() > LETTERS_MAX {
            return Err(Busy);
        }
        waiting.push_back(Replay { letters, answer });
        drop(waiting);
        self.asked.notify_one();
        Ok(told)
    }

    /// The next that wait, if somebody still does.
    pub(super) fn take(&self) -> Option<Replay> {
        let mut waiting = self.waiting();
        std::iter::from_fn(|| waiting.pop_front()).find(|replay| !replay.answer.is_closed())
    }

    /// Completes once something was handed in.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Replay>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sink> Driver<S> {
    /// Sends letters again, lets go of those that are stored, and tells what became of each.
    pub(super) async fn replay(&mut self, replay: Replay) {
        let Replay { letters, answer } = replay;
        let mut fates: Vec<Fate> = vec![Fate::Failed("it was not sent".to_owned()); letters.len()];
        let (mut points, mut places) = (Vec::new(), Vec::new());
        for (place, letter) in letters.iter().enumerate() {
            match point_of(letter) {
                Ok(point) => {
                    points.push(OwnPoint {
                        device: self.counts(letter).then(|| letter.device.clone()),
                        ..point
                    });
                    places.push(place);
                }
                Err(why) => fates[place] = Fate::Refused(why.to_owned()),
            }
        }
        for (place, fate) in places.iter().zip(self.send_again(&points).await) {
            fates[*place] = fate;
        }
        let stored: Vec<Letter> = letters
            .into_iter()
            .zip(&fates)
            .filter(|(_, fate)| **fate == Fate::Stored)
            .map(|(letter, _)| letter)
            .collect();
        match self.dead_letters.remove(&stored) {
            Err(error) => {
                let why = format!("the point is stored, but its letter stays: {error}");
                let stored = fates.iter_mut().filter(|fate| **fate == Fate::Stored);
                stored.for_each(|fate| *fate = Fate::Failed(why.clone()));
            }
            Ok(gone) if !gone.is_empty() => {
                info!(sink = &*self.name, letters = gone.len(), "dead letters are stored, and gone");
                // What is counted anew has to be counted.
                self.journal_held().await;
                self.count_replayed(&gone);
            }
            Ok(_) => {}
        }
        // Whoever asked may have gone away.
        let _ = answer.send(fates);
    }

    /// Writes points until each is stored or refused, or the sink fails; what became of each.
    async fn send_again(&mut self, points: &[OwnPoint]) -> Vec<Fate> {
        let (mut delivery, mut lanes) = (Delivery::new(Backoff::new(1)), Lanes::default());
        delivery.handle_batch(points.len(), vec![(0..points.len()).collect()]);
        let mut fates: Vec<Fate> = Vec::with_capacity(points.len());
        while fates.len() < points.len() {
            let numbers = match delivery.poll(Instant::now()) {
                Step::Write(numbers) => numbers,
                Step::Settle => {
                    let settled = delivery.settle();
                    let first = fates.len();
                    fates.resize(first + settled.points, Fate::Stored);
                    for rejected in settled.rejected {
                        let why = format!("still refused: {}", rejected.reason);
                        fates[first + rejected.point] = Fate::Refused(why);
                    }
                    delivery.handle_commit(settled.points);
                    continue;
                }
                Step::Wait(_) => break,
            };
            let first = fates.len();
            let chosen: Vec<OwnPoint> = numbers.iter().map(|number| points[first + number].clone()).collect();
            // A sink with a cursor of its own stays where it is.
            let part = Part::of_points(&chosen, self.served.min(self.accounted));
            let outcome = if self.is_stopping() { None } else { self.send(&part).await };
            let failed = match &outcome {
                None => Some("the gateway stops, or has to make room; nothing was sent again"),
                Some(Outcome::Retry { reason, .. } | Outcome::Hold { reason }) => Some(reason.as_str()),
                Some(_) => None,
            };
            if let Some(why) = failed {
                fates.resize(points.len(), Fate::Failed(why.to_owned()));
                break;
            }
            let suspects = match &outcome {
                Some(Outcome::Rejected { reason }) => lanes.accuse(reason, &part),
                _ => Vec::new(),
            };
            let suspects: Vec<usize> = suspects.into_iter().map(|at| numbers[at]).collect();
            if let Some(outcome) = outcome {
                delivery.handle_outcome(Instant::now(), outcome, &suspects);
            }
        }
        fates
    }

    /// Whether the rows of a letter are in the ledger: those of an earlier journal are not.
    fn counts(&self, letter: &Letter) -> bool {
        letter.journal == self.journal.id() && letter.rows > 0
    }

    /// Enters rows that are stored after all into the ledger, as far as it is theirs.
    fn count_replayed(&self, letters: &[&Letter]) {
        let mut rows: HashMap<Box<str>, u64> = HashMap::new();
        for letter in letters.iter().filter(|letter| self.counts(letter)) {
            *rows.entry(letter.device.clone()).or_default() += letter.rows;
        }
        if rows.is_empty() {
            return;
        }
        let rows: Vec<(Box<str>, u64)> = rows.into_iter().collect();
        let counted: Result<_, Refused> = self
            .journal
            .submit(Class::Internal, |_, submission| submission.add_moved(&self.name, Move::Replayed, &rows));
        if let Err(refused) = counted {
            error!(sink = &*self.name, %refused, "the ledger goes on counting rows as dead-lettered that are stored now");
        }
    }
}

/// The point that a letter holds, or why it cannot be sent again.
fn point_of(letter: &Letter) -> Result<OwnPoint, &'static str> {
    if letter.stage != Stage::Delivery {
        return Err(
            "it could not be read as rows, so there is no point to send; let its sender send it again",
        );
    }
    if letter.is_cut() {
        return Err("only its beginning is kept, so its point cannot be sent");
    }
    let line = str::from_utf8(&letter.body).ok();
    line.and_then(parse_line).ok_or("it holds no point; it may be a damaged part of the journal")
}
