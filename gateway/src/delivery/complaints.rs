//! What status page and log hear of a sink that fails, and of a journal that keeps delivery waiting.

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::driver::Driver;
use super::status::Condition;
use crate::sink::{Outcome, Sink};

/// The same complaint is logged once in this time.
const PAUSE: Duration = Duration::from_secs(60);

/// What was logged last, so that a failure that repeats itself fills no disk.
#[derive(Default)]
pub(super) struct Complaints {
    last: Option<(Instant, String)>,
}

impl Complaints {
    /// Whether to log this one: it is new, or the last time was long ago.
    fn begin(&mut self, now: Instant, reason: &str) -> bool {
        if let Some((at, last)) = &self.last
            && last == reason
            && now.duration_since(*at) < PAUSE
        {
            return false;
        }
        self.last = Some((now, reason.to_owned()));
        true
    }

    /// Whether there was anything to complain about.
    fn end(&mut self) -> bool {
        self.last.take().is_some()
    }
}

impl<S: Sink> Driver<S> {
    /// Tells status page and log of an outcome.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Confirmed => {
                self.status.set(Condition::Running);
                if self.complaints.end() {
                    info!(sink = &*self.name, "delivery goes on");
                }
            }
            Outcome::Retry { reason, .. } => {
                self.status.set_failed(Condition::Retrying, reason);
                self.complain(reason);
            }
            Outcome::Hold { reason } => {
                self.status.set_failed(Condition::Holding, reason);
                if self.complaints.begin(Instant::now(), reason) {
                    error!(
                        sink = &*self.name,
                        reason, "delivery is held until this is mended; nothing is dropped"
                    );
                }
            }
            Outcome::TooLarge { reason }
            | Outcome::Rejected { reason }
            | Outcome::RejectedAll { reason }
            | Outcome::RejectedNamed { reason, .. } => self.note_refusal(reason),
            Outcome::Partial { refused } => {
                self.note_refusal(refused.first().map_or("a point is refused", |(_, reason)| reason));
            }
        }
    }

    fn note_refusal(&self, reason: &str) {
        self.status.set(Condition::Running);
        self.status.note(reason);
    }

    /// Tells the log, of the same thing only now and then.
    pub(super) fn complain(&mut self, reason: &str) {
        if self.complaints.begin(Instant::now(), reason) {
            warn!(sink = &*self.name, reason, "delivery is delayed; it is tried again");
        }
    }
}
