//! What the interface has refused, for whatever reason: counted, and said once a minute at most.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::seats::Peer;

/// Shortest time between two lines of the log about one reason.
const PAUSE: Duration = Duration::from_secs(60);

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The peer has as many connections as it may have, all of which are being answered.
    Connections,
    /// There was no token, or a wrong one.
    Token,
    /// The request was meant for a name that is not this machine's.
    Host,
    /// A page of another site has made a browser ask.
    Page,
    /// Something was to be changed, and no token is configured.
    Change,
}

impl Reason {
    const ALL: [Reason; 5] = [Reason::Connections, Reason::Token, Reason::Host, Reason::Page, Reason::Change];

    /// As metrics call it.
    fn name(self) -> &'static str {
        match self {
            Reason::Connections => "connections",
            Reason::Token => "token",
            Reason::Host => "host",
            Reason::Page => "page",
            Reason::Change => "change",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Reason::Connections => "a client has too many HTTP connections; further ones are closed",
            Reason::Token => "a request over HTTP had no token, or a wrong one ([http] token_file)",
            Reason::Host => {
                "a request over HTTP was meant for another host; a page may pose as this gateway's"
            }
            Reason::Page => "a page of another site has made a browser ask this gateway; that is refused",
            Reason::Change => {
                "a request over HTTP wanted to change something, and there is no [http] token_file"
            }
        }
    }
}

/// All reasons, each with its count.
#[derive(Debug)]
pub(super) struct Refusals {
    of: [OfReason; Reason::ALL.len()],
}

#[derive(Debug, Default)]
struct OfReason {
    count: AtomicU64,
    said: Mutex<Said>,
}

/// When it was last in the log, and how many there were up to then.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    count: u64,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { of: array::from_fn(|_| OfReason::default()) }
    }
}

impl Refusals {
    /// Counts one, and puts it into the log if nothing was there for a minute. What the client has said stays out of it.
    pub(super) fn count(&self, reason: Reason, peer: Peer) {
        if let Some(further) = self.of[reason as usize].note(Instant::now()) {
            match peer {
                Peer::Remote(address) => warn!(%address, further, "{}", reason.told()),
                Peer::Control => warn!(further, "{} (control socket)", reason.told()),
            }
        }
    }

    /// The counts by the names of their reasons.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .iter()
            .map(|reason| (reason.name(), self.of[*reason as usize].count.load(Ordering::Relaxed)))
    }
}

impl OfReason {
    /// Counts one. If it is to be said now: how many others there were since it was last said.
    fn note(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return None;
        }
        let further = count.saturating_sub(said.count + 1);
        *said = Said { at: Some(now), count };
        Some(further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_minute_with_the_number_of_others() {
        let (reason, start) = (OfReason::default(), Instant::now());
        assert_eq!(reason.note(start), Some(0));
        for second in 1..60 {
            assert_eq!(reason.note(start + Duration::from_secs(second)), None);
        }
        assert_eq!(reason.note(start + PAUSE), Some(59));
        assert_eq!(reason.count.load(Ordering::Relaxed), 61);
    }

    #[test]
    fn each_reason_has_a_place_of_its_own() {
        let refusals = Refusals::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            refusals.count(reason, Peer::Control);
        }
        assert!(refusals.counts().all(|(_, count)| count == 1));
    }
}
